//! A cycle of the pingpong back end takes `mmap_lock` for writing not once, in any thread of the process; the art back
//! end, counted in the same way, does. (One test function: the counters see the whole process.)

use firn::{DataArray, Heap, Local, Options, RefArray, Scope};
use firn_bench::perf::{LockCounter, LockCounts, Unavailable};

const OBJECTS: usize = 20_000;
const CYCLES: usize = 10;

type Table<'s> = Local<'s, RefArray<DataArray<u64>>>;

/// Replaces every third object, collects, and reads everything.
fn cycle(cx: &mut Scope<'_>, table: Table<'_>, round: usize) {
    for index in (round % 3..OBJECTS).step_by(3) {
        cx.scope(|cx| {
            let data = cx.alloc_data::<u64>(20).expect("room");
            data.get(cx).set(0, index as u64);
            table.get(cx).store(cx, index, Some(data.get(cx)));
        });
    }
    cx.collect();
    let table = table.get(cx);
    for index in (0..OBJECTS).filter(|index| round >= 2 || index % 3 <= round) {
        assert_eq!(table.load(cx, index).expect("stored").get(0), index as u64);
    }
}

/// Counts the locks taken in some cycles of a heap that has run some already.
fn count(options: &str) -> Result<LockCounts, Unavailable> {
    let options = Options::parse(options).unwrap();
    let heap = Heap::new(&options).unwrap_or_else(|error| panic!("{error}"));
    heap.attach(|cx| {
        let table = cx.alloc_refs::<DataArray<u64>>(OBJECTS).expect("room");
        // Steady state first: both ranges used, allocators and stacks grown.
        for round in 0..6 {
            cycle(cx, table, round);
        }
        let counter = LockCounter::start()?;
        for round in 6..6 + CYCLES {
            cycle(cx, table, round);
        }
        counter.stop()
    })
}

#[test]
fn a_pingpong_cycle_never_takes_mmap_lock_for_writing() {
    // The baseline proves that the counters count: it remaps, registers and unregisters in each cycle.
    let art = match count("heap=64m,backend=art") {
        Ok(counts) => counts,
        Err(missing) => {
            println!("left out: the kernel's lock events cannot be counted here: {missing}");
            return;
        }
    };
    assert!(art.write >= 3 * CYCLES as u64, "art: {art:?}");
    for way in [
        "backend=pingpong",
        "backend=pingpong,dense=101",
        "backend=pingpong,dense=50",
        "backend=pingpong,workers=2",
        "backend=pingpong,fault=thread",
        "backend=pingpong,install=copy",
    ] {
        let counts = count(&format!("heap=64m,{way}")).expect("counted once already");
        assert_eq!(counts.write, 0, "{way}, {CYCLES} cycles: {counts:?}");
    }
}
