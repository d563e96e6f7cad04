use firn::*;

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
}

fn needs_send(_: impl Future<Output = u64> + Send) {}

fn misuse(cx: &Scope<'_>, node: Local<'_, Node>) {
    let gc = node.get(cx);
    needs_send(async move {
        std::future::ready(()).await;
        gc.key
    });
}

fn main() {}
