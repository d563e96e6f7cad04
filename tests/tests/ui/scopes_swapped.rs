use firn::*;

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
}

fn misuse(outer: &mut Scope<'_>, other: &mut Scope<'_>) {
    outer.scope(|inner| std::mem::swap(inner, other));
}

fn main() {}
