//! Large objects: what dead ones leave is used again, cleared, by large objects without page faults and by small ones
//! without a cycle; live ones keep what is in them whatever goes on beside.

use firn::{DataArray, Heap, NoGc, OutOfMemory, RefArray, Scope};
use std::sync::atomic::{AtomicUsize, Ordering};

#[path = "support/heap.rs"]
mod heaps;
use heaps::heap;

const MIB: usize = 1 << 20;

const WAYS: [&str; 6] = [
    "backend=pingpong",
    "backend=pingpong,install=copy",
    "backend=pingpong,verify=true",
    "backend=art",
    "backend=mprotect",
    "backend=stw",
];

/// Makes `count` arrays of a megabyte one after the other, each of which was zeroes, and writes to each of their pages.
fn garbage(cx: &mut Scope<'_>, count: usize) -> Result<(), OutOfMemory> {
    for _ in 0..count {
        cx.scope(|cx| {
            let array = cx.alloc_data::<u64>(MIB / 8 - 2)?;
            let array = array.get(cx);
            assert!((0..array.len()).all(|index| array.get(index) == 0));
            array.fill(0..array.len(), u64::MAX);
            Ok(())
        })?;
    }
    Ok(())
}

/// Page faults of the calling thread that needed no reading.
fn faults() -> i64 {
    // SAFETY: a structure of numbers, which the kernel fills.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) }, 0);
    usage.ru_minflt
}

#[test]
fn large_objects_in_place_of_dead_ones_are_zeroes_and_cause_no_page_faults() {
    for way in WAYS {
        let Some(heap) = heap(&format!("heap=128m,concurrent=false,trim=false,{way}")) else {
            continue;
        };
        let count = 32;
        heap.attach(|cx| {
            garbage(cx, count)?;
            cx.collect();
            let before = faults();
            garbage(cx, count)?;
            let faults = (faults() - before) as usize;
            let pages = count * MIB / firn_heap::sys::page_size();
            println!("{way}: {faults} page faults on {pages} pages");
            assert!(faults < pages / 20, "{way}: {faults} page faults on {pages} pages");
            Ok::<_, OutOfMemory>(())
        })
        .unwrap();
    }
}

#[test]
fn small_objects_get_what_dead_large_ones_have_left_without_a_cycle() {
    for way in WAYS {
        let Some(heap) = heap(&format!("heap=64m,concurrent=false,trim=false,{way}")) else {
            continue;
        };
        let large = || heap.core().space.large.free_pages() * firn_heap::sys::page_size();
        heap.attach(|cx| {
            garbage(cx, 48)?;
            cx.collect();
            assert!(large() >= 40 * MIB, "{way}: {} bytes are kept", large());
            let cycles = heap.stats().cycles;
            let table = cx.alloc_refs::<DataArray<u8>>(12_000)?;
            for index in 0..12_000 {
                let nogc = cx.reserve(NoGc::size_of_data::<u8>(4_000))?;
                let data = nogc.alloc_data::<u8>(4_000);
                table.get(&nogc).store(&nogc, index, Some(data));
            }
            assert_eq!(heap.stats().cycles, cycles, "{way}");
            assert!(large() < 24 * MIB, "{way}: {} bytes are kept", large());
            assert!(heap.stats().footprint_bytes <= 64 * MIB, "{way}: {:?}", heap.stats());
            Ok::<_, OutOfMemory>(())
        })
        .unwrap();
    }
}

/// One thread's part of the storm below: arrays of all sizes, now and then one of 5 MiB, each of which was zeroes and keeps the number it is
/// filled with until it is dropped.
fn storm(cx: &mut Scope<'_>, seed: u64, done: impl Fn() -> bool) -> Result<(), OutOfMemory> {
    const KEPT: usize = 16;
    let table = cx.alloc_refs::<DataArray<u64>>(KEPT)?;
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut made = [0; KEPT];
    for turn in 1.. {
        if done() {
            break;
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let slot = random as usize % KEPT;
        let long = random >> 58 == 0;
        let length = if long { 5 * MIB / 8 } else { (random >> 32) as usize % 20_000 + 1 };
        cx.scope(|cx| {
            let new = cx.alloc_data::<u64>(length)?;
            let (new, table) = (new.get(cx), table.get(cx));
            assert!((0..length).all(|index| new.get(index) == 0), "not cleared");
            new.fill(0..length, seed << 32 | turn);
            if let Some(old) = table.load(cx, slot) {
                let intact = (0..old.len()).all(|index| old.get(index) == made[slot]);
                assert!(intact, "somebody has written to {:#x}", made[slot]);
            }
            made[slot] = seed << 32 | turn;
            table.store(cx, slot, Some(new));
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn large_objects_keep_their_contents_beside_others_that_come_and_go() {
    for way in WAYS {
        let options = format!("heap=64m,min-free=1m,large-object=4k,{way}");
        let Some(heap) = heap(&options) else { continue };
        let (turns, kept) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let done = |heap: &Heap| {
            // Relaxed, both: counts.
            kept.fetch_max(heap.core().space.large.free_pages(), Ordering::Relaxed);
            turns.fetch_add(1, Ordering::Relaxed) > 2_000 && heap.stats().cycles > 20
        };
        std::thread::scope(|threads| {
            for seed in 1..=3 {
                let (heap, done) = (&heap, &done);
                threads.spawn(move || heap.attach(|cx| storm(cx, seed, || done(heap))).unwrap());
            }
        });
        let (turns, kept) = (turns.into_inner(), kept.into_inner());
        println!("{way}: {turns} objects, {} cycles, {kept} pages kept", heap.stats().cycles);
        assert!(kept > 0, "{way}: pages of dead objects were not kept");
    }
}

#[test]
fn an_array_of_references_can_have_the_room_of_dead_large_objects() {
    for way in WAYS {
        let Some(heap) = heap(&format!("heap=64m,concurrent=false,trim=false,{way}")) else {
            continue;
        };
        heap.attach(|cx| {
            garbage(cx, 48)?;
            cx.collect();
            let array = cx.alloc_refs::<RefArray<DataArray<u8>>>(40 * MIB / 8)?;
            assert_eq!(array.get(cx).len(), 40 * MIB / 8);
            Ok::<_, OutOfMemory>(())
        })
        .unwrap();
    }
}
