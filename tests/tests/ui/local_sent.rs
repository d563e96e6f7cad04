use firn::*;

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
}

fn misuse(node: Local<'_, Node>) {
    std::thread::scope(|threads| {
        threads.spawn(move || drop(node));
    });
}

fn main() {}
