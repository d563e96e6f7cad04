use firn::*;

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
}

fn misuse(cx: &mut Scope<'_>, node: Local<'_, Node>) -> u64 {
    let key: &u64 = &node.get(cx).key;
    cx.safepoint();
    *key
}

fn main() {}
