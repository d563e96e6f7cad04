//! The shortest way through everything: a list and a tree survive many cycles under every back end.

use firn::{DataArray, Field, Heap, NoGc, Options, OutOfMemory, RefArray, Scope, Trace};

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
    payload: Field<DataArray<u8>>,
}

fn build(cx: &mut Scope<'_>, rounds: u64) -> Result<(), OutOfMemory> {
    let table = cx.alloc_refs::<Node>(5_000)?;
    for round in 0..rounds {
        for index in 0..5_000u64 {
            let len = (index % 300) as usize;
            let bytes = NoGc::size_of::<Node>() + NoGc::size_of_data::<u8>(len);
            let nogc = cx.reserve(bytes)?;
            let payload = nogc.alloc_data::<u8>(len);
            if len > 0 {
                payload.set(0, index as u8);
                payload.set(len - 1, round as u8);
            }
            let node = nogc.alloc(Node {
                key: index * 1000 + round,
                next: Field::null(),
                payload: Field::null(),
            });
            node.payload.store(&nogc, Some(payload));
            let table = table.get(&nogc);
            // Keeps every other node of the round before, so that pages become half dead.
            node.next.store(&nogc, table.load(&nogc, (index as usize + 1) % 5_000));
            if index % 2 == 0 {
                if let Some(old) = table.load(&nogc, index as usize) {
                    old.next.store(&nogc, None);
                }
                table.store(&nogc, index as usize, Some(node));
            }
        }
        cx.collect();
        check(cx, table.get(cx), round);
    }
    Ok(())
}

fn check(cx: &Scope<'_>, table: firn::Gc<'_, RefArray<Node>>, round: u64) {
    for index in (0..5_000).step_by(2) {
        let node = table.load(cx, index).expect("stored");
        assert_eq!(node.key, index as u64 * 1000 + round);
        let payload = node.payload.load(cx).expect("stored");
        let len = index % 300;
        assert_eq!(payload.len(), len);
        if len > 0 {
            assert_eq!(payload.get(len - 1), round as u8);
        }
    }
}

fn run(options: &str) {
    let heap = Heap::new(&Options::parse(options).unwrap()).unwrap();
    heap.attach(|cx| build(cx, 30)).unwrap();
    let stats = heap.stats();
    assert!(stats.cycles >= 30, "{stats:?}");
}

#[test]
fn a_table_of_lists_survives_stw() {
    run("heap=64m,backend=stw");
}

#[test]
fn a_table_of_lists_survives_pingpong() {
    run("heap=64m");
}

#[test]
fn a_table_of_lists_survives_pingpong_with_copy() {
    run("heap=64m,install=copy");
}

#[test]
fn a_table_of_lists_survives_art() {
    run("heap=64m,backend=art");
}

#[test]
fn a_table_of_lists_survives_art_with_move() {
    run("heap=64m,backend=art,install=move");
}

#[test]
fn a_table_of_lists_survives_mprotect() {
    run("heap=64m,backend=mprotect");
}

#[test]
fn a_table_of_lists_survives_a_fault_thread() {
    run("heap=64m,fault=thread");
}

#[test]
fn a_table_of_lists_survives_two_workers() {
    run("heap=64m,workers=2");
}

#[test]
fn a_table_of_lists_survives_verification() {
    run("heap=64m,verify=true");
}
