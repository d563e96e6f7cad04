use firn::*;

#[derive(Trace)]
struct File {
    descriptor: i32,
}

impl Drop for File {
    fn drop(&mut self) {}
}

fn main() {}
