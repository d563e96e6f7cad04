use firn::*;

#[derive(Trace)]
enum Shape {
    Empty,
    Full(Field<DataArray<u8>>),
}

fn main() {}
