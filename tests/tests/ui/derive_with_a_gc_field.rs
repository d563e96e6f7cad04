use firn::*;

#[derive(Trace)]
struct Holder {
    held: Gc<'static, DataArray<u8>>,
}

fn main() {}
