use firn::*;

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
}

fn misuse(cx: &mut Scope<'_>, node: Local<'_, Node>) -> Result<u64, OutOfMemory> {
    let gc = node.get(cx);
    cx.alloc(Node { key: 1, next: Field::null() })?;
    Ok(gc.key)
}

fn main() {}
