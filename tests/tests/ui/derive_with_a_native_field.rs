use firn::*;

#[derive(Trace)]
struct Named {
    name: String,
}

fn main() {}
