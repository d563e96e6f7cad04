use firn::*;

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
}

fn misuse(cx: &mut Scope<'_>, node: Local<'_, Node>) {
    let _ = Node { key: 1, next: Field::from(node.get(cx)) };
}

fn main() {}
