use firn::*;

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
}

fn misuse(cx: &mut Scope<'_>) -> Result<u64, OutOfMemory> {
    let node = {
        let nogc = cx.reserve(64)?;
        nogc.alloc(Node { key: 1, next: Field::null() })
    };
    cx.safepoint();
    Ok(node.key)
}

fn main() {}
