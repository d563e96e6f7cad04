//! A faulting thread moves the whole pages around the one it touched by one call, and holds up nobody by that.

use firn::{DataArray, Event, FaultOutcome, Heap, InstallKind, Local, RefArray, Scope};
use firn_heap::sys::uffd::{Injector, Op, Verdict};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[path = "support/heap.rs"]
mod heaps;
#[path = "support/hold.rs"]
mod hold;
#[allow(dead_code)] // Each test uses a part of it.
#[path = "support/stream.rs"]
mod stream;
use heaps::heap;
use hold::Hold;
use stream::{Stream, consistent};

const OBJECTS: usize = 48_000;
const LEN: usize = 31;

type Table<'s> = Local<'s, RefArray<DataArray<u64>>>;

/// A table of objects of which sixteen fill a page. Nothing of it dies: every page is dense.
fn table<'s>(cx: &mut Scope<'s>) -> Table<'s> {
    let table = cx.alloc_refs::<DataArray<u64>>(OBJECTS).expect("room");
    for index in 0..OBJECTS {
        cx.scope(|cx| {
            let data = cx.alloc_data::<u64>(LEN).expect("room");
            data.get(cx).set(0, index as u64);
            data.get(cx).set(LEN - 1, !(index as u64));
            table.get(cx).store(cx, index, Some(data.get(cx)));
        });
    }
    table
}

fn read(cx: &Scope<'_>, table: Table<'_>, indices: impl Iterator<Item = usize>) {
    let table = table.get(cx);
    for index in indices {
        let data = table.load(cx, index).expect("stored");
        assert_eq!((data.len(), data.get(0)), (LEN, index as u64));
        assert_eq!(data.get(LEN - 1), !(index as u64));
    }
}

/// A heap whose whole pages can be moved, and what is heard of it.
fn moving_heap(way: &str) -> Option<(Heap, Arc<Stream>)> {
    let heap = heap(&format!("heap=64m,workers=1,backend=pingpong,{way}"))?;
    if heap.setup().install != Some(InstallKind::Move) {
        println!("left out: {way}: this kernel has no UFFDIO_MOVE");
        return None;
    }
    let stream = Stream::of(&heap);
    Some((heap, stream))
}

/// What each fault of a mutator published while the collector was held at its first call.
fn published(way: &str) -> Option<Vec<u32>> {
    let (heap, stream) = moving_heap(way)?;
    let hold = Hold::new(heap.core());
    assert!(heap.core().backend.installer().unwrap().uffd.set_injector(hold.clone()));
    heap.attach(|cx| {
        let table = table(cx);
        hold.arm(0);
        hold.collect_meanwhile(&heap, cx, |cx| read(cx, table, 0..OBJECTS));
        read(cx, table, 0..OBJECTS);
    });
    consistent(way, heap.setup().backend, &stream);
    let mut all = Vec::new();
    stream.each(|event| {
        if let Event::Fault { outcome: FaultOutcome::Built, published, .. } = *event {
            all.push(published);
        }
    });
    Some(all)
}

#[test]
fn a_fault_brings_the_pages_around_it_and_no_more_than_asked_for() {
    for (way, most) in
        [("fault-around=1", 1), ("fault-around=5", 5), ("fault=thread", 16), ("", 16)]
    {
        let Some(published) = published(way) else { return };
        let pages: u32 = published.iter().sum();
        assert!(pages > 1_000, "{way}: {pages} pages by faults");
        assert_eq!(published.iter().max(), Some(&most), "{way}");
        // The collector's run, in which it is held, and borders of runs leave smaller groups.
        let whole = published.iter().filter(|count| **count == most).count();
        assert!(whole * 10 >= published.len() * 8, "{way}: {whole} of {}", published.len());
    }
}

/// Two holds at a time.
struct Both(Arc<Hold>, Arc<Hold>);

impl Injector for Both {
    fn before(&self, op: Op, dst: usize, src: usize, len: usize) -> Verdict {
        self.0.before(op, dst, src, len);
        self.1.before(op, dst, src, len)
    }
}

#[test]
fn a_mutator_held_in_the_move_of_its_group_stops_nobody() {
    let Some((heap, stream)) = moving_heap("") else { return };
    let (mover, daemon) = (Hold::thread(heap.core(), "mover"), Hold::new(heap.core()));
    let uffd = &heap.core().backend.installer().unwrap().uffd;
    assert!(uffd.set_injector(Arc::new(Both(mover.clone(), daemon.clone()))));
    let root = heap.attach(|cx| {
        let table = table(cx);
        cx.global(table.get(cx))
    });
    // The collector waits until the mover is held with a group of its own.
    daemon.arm(0);
    mover.arm(0);
    let collected = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let touch = || {
            heap.attach(|cx| {
                while !daemon.held() {
                    cx.safepoint();
                    std::hint::spin_loop();
                }
                let table = root.get(cx).load(cx, OBJECTS / 2).expect("stored");
                assert_eq!(table.get(0), (OBJECTS / 2) as u64);
            });
        };
        let mover_thread =
            std::thread::Builder::new().name("mover".into()).spawn_scoped(threads, touch).unwrap();
        let watchdogs = [&mover, &daemon].map(|hold| threads.spawn(move || hold.watch()));
        let collection = threads.spawn(|| {
            heap.collect();
            collected.store(true, Ordering::SeqCst);
        });
        while !mover.held() {
            std::thread::yield_now();
        }
        daemon.release();
        heap.attach(|cx| {
            let table = root.get(cx);
            for index in 0..OBJECTS {
                let data = table.load(cx, index).expect("stored");
                assert_eq!((data.get(0), data.get(LEN - 1)), (index as u64, !(index as u64)));
            }
        });
        // All of it has been read, and its pages are there; but the cycle waits for the last handler to leave.
        assert!(!collected.load(Ordering::SeqCst));
        mover.release();
        assert!(!watchdogs.map(|watchdog| watchdog.join().unwrap()).contains(&true), "a wait");
        mover_thread.join().unwrap();
        collection.join().unwrap();
    });
    assert!(stream.faults(FaultOutcome::Helped) > 0, "nobody needed a page of the group");
    consistent("a held mutator", heap.setup().backend, &stream);
}
