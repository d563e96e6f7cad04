use firn::*;

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
}

fn misuse(cx: &mut Scope<'_>, node: Local<'_, Node>) {
    let gc = node.get(cx);
    std::thread::scope(|threads| {
        threads.spawn(move || gc.key);
    });
}

fn main() {}
