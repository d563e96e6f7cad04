use firn::*;

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
}

fn misuse(cx: &mut Scope<'_>, node: Local<'_, Node>) {
    node.get(cx).key = 2;
}

fn main() {}
