use firn::*;

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
}

fn misuse(outer: &mut Scope<'_>) {
    outer.scope(|_inner| outer.safepoint());
}

fn main() {}
