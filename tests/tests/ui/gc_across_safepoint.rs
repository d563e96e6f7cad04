use firn::*;

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
}

fn misuse(cx: &mut Scope<'_>, node: Local<'_, Node>) -> u64 {
    let gc = node.get(cx);
    cx.safepoint();
    gc.key
}

fn main() {}
