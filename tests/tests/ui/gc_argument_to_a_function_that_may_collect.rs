use firn::*;

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
}

fn may_collect(cx: &mut Scope<'_>, node: Gc<'_, Node>) -> u64 {
    cx.safepoint();
    node.key
}

fn misuse(cx: &mut Scope<'_>, node: Local<'_, Node>) -> u64 {
    may_collect(cx, node.get(cx))
}

fn main() {}
