use firn::*;

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
}

fn misuse(cx: &mut Scope<'_>, node: Local<'_, Node>) -> u64 {
    cx.blocking(|| 1 + size_of_val(&node) as u64)
}

fn main() {}
