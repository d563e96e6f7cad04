use firn::*;

#[derive(Trace)]
struct Pair<T> {
    first: T,
    second: T,
}

fn main() {}
