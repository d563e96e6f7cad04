use firn::*;

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
}

fn misuse(cx: &mut Scope<'_>) -> u64 {
    let node = cx.scope(|cx| cx.alloc(Node { key: 1, next: Field::null() }).unwrap());
    node.get(cx).key
}

fn main() {}
