//! The event stream tells everything that happens, with times and counts that fit together.

use firn::events::{Cause, PauseKind};
use firn::{DataArray, Event, FaultOutcome, Field, Gc, InstallKind, NoGc};
use firn::{OutOfMemory, RefArray, Root, Scope, Trace};
use firn_gc::fault::Served;
use firn_heap::sys::page_size;
use firn_heap::sys::uffd::{Injector, Op, Verdict};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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

const WAYS: &[&str] = &[
    "backend=stw",
    "backend=pingpong",
    "backend=pingpong,dense=50,workers=2",
    "backend=pingpong,install=copy",
    "backend=pingpong,fault=thread",
    "backend=pingpong,verify=true",
    "backend=art",
    "backend=art,install=move",
    "backend=art,fault=thread",
    "backend=mprotect",
];

type Table = RefArray<DataArray<u64>>;

/// A table of `count` objects, each nearly a page long.
fn table(cx: &mut Scope<'_>, count: usize) -> Result<Root<Table>, OutOfMemory> {
    let words = page_size() / 8 - 12;
    let table = cx.alloc_refs::<DataArray<u64>>(count)?;
    for index in 0..count {
        replace(cx, &mut |cx, object| table.get(cx).store(cx, index, Some(object)), words, index)?;
    }
    Ok(cx.global(table.get(cx)))
}

type Store<'a> = &'a mut dyn FnMut(&Scope<'_>, Gc<'_, DataArray<u64>>);

fn replace(
    cx: &mut Scope<'_>,
    store: Store<'_>,
    words: usize,
    key: usize,
) -> Result<(), OutOfMemory> {
    cx.scope(|cx| {
        let object = cx.alloc_data::<u64>(words)?;
        object.get(cx).set(0, key as u64);
        store(cx, object.get(cx));
        Ok(())
    })
}

#[test]
fn times_and_counts_of_every_back_end_fit_together() {
    for way in WAYS {
        let Some(heap) = heap(&format!("heap=48m,min-free=4m,{way}")) else { continue };
        let stream = Stream::of(&heap);
        let root = heap.attach(|cx| table(cx, 1000)).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|threads| {
            for seed in 0..3usize {
                let (root, heap, stop) = (&root, &heap, &stop);
                threads.spawn(move || {
                    heap.attach(|cx| {
                        for turn in 0..6_000 {
                            let index = (turn * 7 + seed * 331) % 1000;
                            if turn % 3 == 0 {
                                let words = 10 + turn % 300;
                                let store: Store<'_> =
                                    &mut |cx, new| root.get(cx).store(cx, index, Some(new));
                                replace(cx, store, words, index).unwrap();
                            }
                            let object = root.get(cx).load(cx, index).unwrap();
                            assert_eq!(object.get(0), index as u64, "{way}");
                            if turn % 500 == 0 {
                                cx.blocking(std::thread::yield_now);
                            }
                        }
                        stop.store(true, Ordering::Relaxed);
                    })
                });
            }
            while !stop.load(Ordering::Relaxed) {
                heap.collect();
            }
        });
        heap.collect();
        let completed = heap.stats().cycles;
        assert!(consistent(way, heap.setup().backend, &stream) >= completed, "{way}");
        let verifies =
            stream.any(|event| matches!(event, Event::Pause { kind: PauseKind::Verify, .. }));
        assert_eq!(verifies, way.contains("verify"), "{way}");
    }
}

/// Two threads touch the same missing pages at the same time while the collector is held, round after round,
/// until every wanted outcome of a fault has been seen.
fn outcomes(way: &str, wanted: &[FaultOutcome]) {
    const OBJECTS: usize = 1500;
    let Some(heap) = heap(&format!("heap=64m,workers=1,{way}")) else { return };
    let (stream, hold) = (Stream::of(&heap), Hold::new(heap.core()));
    assert!(heap.core().backend.installer().unwrap().uffd.set_injector(hold.clone()));
    let root = heap.attach(|cx| table(cx, OBJECTS)).unwrap();
    let seen = |outcome| stream.faults(outcome) > 0;
    for _round in 0..60 {
        if wanted.iter().copied().all(seen) {
            break;
        }
        hold.arm(0);
        let turn = AtomicUsize::new(0);
        std::thread::scope(|threads| {
            let collection = threads.spawn(|| heap.collect());
            let touch = || {
                heap.attach(|cx| {
                    while !hold.held() {
                        cx.safepoint();
                        std::hint::spin_loop();
                    }
                    for index in 0..OBJECTS {
                        turn.fetch_add(1, Ordering::SeqCst);
                        let mut spins = 0;
                        while turn.load(Ordering::SeqCst) < 2 * (index + 1) {
                            spins += 1;
                            if spins % 500 == 0 {
                                std::thread::yield_now();
                            }
                            std::hint::spin_loop();
                        }
                        let object = root.get(cx).load(cx, index).unwrap();
                        assert_eq!(object.get(0), index as u64);
                    }
                });
            };
            let two = [threads.spawn(touch), threads.spawn(touch)];
            let watchdog = threads.spawn(|| hold.watch());
            let ended = two.map(|thread| thread.join());
            hold.release();
            assert!(!watchdog.join().unwrap(), "{way}: a mutator waited for the collector");
            assert!(ended.into_iter().all(|end| end.is_ok()), "{way}");
            collection.join().unwrap();
        });
    }
    for &outcome in wanted {
        assert!(seen(outcome), "{way}: no fault was {outcome:?}");
    }
    consistent(way, heap.setup().backend, &stream);
}

#[test]
fn every_outcome_of_a_fault_that_threads_share_is_told() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        println!("left out: two threads cannot fault at the same time on one processor");
        return;
    }
    let all = [FaultOutcome::Built, FaultOutcome::Helped, FaultOutcome::Waited];
    outcomes("backend=pingpong,fault-around=1", &all);
    outcomes("backend=pingpong,install=copy", &all);
    outcomes("backend=art", &all);
    // A group takes longer than anybody spins for a page of it.
    outcomes("backend=pingpong", &all[..2]);
}

#[test]
fn faults_on_pages_that_are_there_are_told_and_those_beyond_the_buffer_counted() {
    const CALLS: u64 = 70_000;
    let Some(heap) = heap("heap=32m,workers=1,backend=pingpong") else { return };
    let (stream, hold) = (Stream::of(&heap), Hold::new(heap.core()));
    assert!(heap.core().backend.installer().unwrap().uffd.set_injector(hold.clone()));
    heap.attach(|cx| {
        let root = table(cx, 600).unwrap();
        hold.arm(0);
        hold.collect_meanwhile(&heap, cx, |cx| {
            let object = root.get(cx).load(cx, 300).unwrap();
            assert_eq!(object.get(0), 300);
            for _ in 0..CALLS {
                let served = heap.core().serve_fault(object.address_now(), cx.mutator_id());
                assert_eq!(served, Served::Page(FaultOutcome::AlreadyMapped));
            }
        });
    });
    let told = stream.faults(FaultOutcome::AlreadyMapped) as u64;
    let mut lost = 0;
    stream.each(|event| {
        if let Event::FaultsLost { count } = event {
            lost += count;
        }
    });
    assert!(told > 60_000 && lost > 0 && told + lost >= CALLS, "{told} told, {lost} lost");
    consistent("lost faults", heap.setup().backend, &stream);
}

/// Lets the kernel do one page of each move only.
struct OnePage;

impl Injector for OnePage {
    fn before(&self, op: Op, _: usize, _: usize, len: usize) -> Verdict {
        let many = op == Op::Move && len > page_size();
        if many { Verdict::Shorten(page_size()) } else { Verdict::Pass }
    }
}

#[test]
fn retries_are_told_with_their_cycle_and_reason() {
    let Some(heap) = heap("heap=32m,backend=pingpong") else { return };
    if heap.setup().install != Some(InstallKind::Move) {
        println!("left out: this kernel has no UFFDIO_MOVE");
        return;
    }
    let stream = Stream::of(&heap);
    heap.core().backend.installer().unwrap().uffd.set_injector(Arc::new(OnePage));
    let _root = heap.attach(|cx| table(cx, 600)).unwrap();
    heap.collect();
    heap.collect();
    let eagain = firn_heap::sys::Errno::EAGAIN.0;
    assert!(stream.any(|event| matches!(
        *event,
        Event::Retry { op: InstallKind::Move, errno, count, .. } if errno == eagain && count > 50
    )));
    consistent("retries", heap.setup().backend, &stream);
}

#[derive(Trace)]
struct Link {
    next: Field<Link>,
}

/// Fills the heap with a list until it is full.
fn fill(cx: &mut Scope<'_>) -> OutOfMemory {
    cx.scope(|cx| {
        let list = cx.var::<Link>();
        loop {
            let nogc = match cx.reserve(NoGc::size_of::<Link>()) {
                Ok(nogc) => nogc,
                Err(error) => return error,
            };
            let link = nogc.alloc(Link { next: Field::null() });
            link.next.store(&nogc, list.get(&nogc));
            list.set(&nogc, Some(link));
        }
    })
}

#[test]
fn every_cause_of_a_cycle_is_told() {
    let caused = |stream: &Stream, wanted| {
        stream.any(|event| matches!(*event, Event::CycleBegin { cause, .. } if cause == wanted))
    };
    // Neither the threshold nor anybody else starts a cycle before the heap is full.
    let one = heap("heap=8m,backend=stw,concurrent=false").unwrap();
    let stream = Stream::of(&one);
    let error = one.attach(fill);
    assert_eq!(error.limit, 8 << 20);
    for cause in [Cause::Allocation, Cause::LastResort] {
        assert!(caused(&stream, cause), "{cause:?}");
    }
    let stalls =
        |event: &Event| matches!(event, Event::AllocStall { bytes, thread: 0, .. } if *bytes > 0);
    assert!(stream.any(stalls), "the thread waited for memory");
    assert!(!caused(&stream, Cause::Threshold) && !caused(&stream, Cause::Explicit));
    // A request may be served by a cycle that was asked for before and has not begun.
    for _ in 0..10 {
        one.collect();
    }
    assert!(caused(&stream, Cause::Explicit));
    one.set_background(true);
    stream.wait_for(
        |event| matches!(event, Event::CycleEnd { summary } if summary.cause == Cause::Background),
    );
    consistent("causes", one.setup().backend, &stream);

    let two = heap("heap=16m,min-free=1m,backend=stw").unwrap();
    let stream = Stream::of(&two);
    two.attach(|cx| {
        while !caused(&stream, Cause::Threshold) {
            cx.scope(|cx| cx.alloc_data::<u64>(1000).map(|_| ())).unwrap();
        }
    });
    two.collect();
    consistent("threshold", two.setup().backend, &stream);

    let three = heap("heap=16m,backend=stw,stress-every=50").unwrap();
    let stream = Stream::of(&three);
    three.attach(|cx| {
        for _ in 0..120 {
            cx.scope(|cx| cx.alloc_data::<u64>(10).map(|_| ())).unwrap();
        }
    });
    assert!(caused(&stream, Cause::Stress));
    consistent("stress", three.setup().backend, &stream);
}

#[test]
fn a_thread_that_waits_for_memory_says_how_long_and_for_how_much() {
    let Some(heap) = heap("heap=8m,backend=pingpong,concurrent=false") else { return };
    let stream = Stream::of(&heap);
    let thread = heap.attach(|cx| {
        for _ in 0..400 {
            cx.scope(|cx| cx.alloc_data::<u8>(60_000).map(|_| ())).unwrap();
        }
        cx.mutator_id()
    });
    stream.wait_for_the_end();
    let mut waits = Vec::new();
    stream.each(|event| {
        if let Event::AllocStall { thread: who, begin, end, bytes } = *event {
            assert!(who == thread && bytes >= 60_000, "{event:?}");
            waits.push((begin, end));
        }
    });
    let summaries = stream.summaries();
    assert!(summaries.len() >= 2, "24 MB do not fit into 8");
    let waited = |begin: u64| waits.iter().any(|wait| wait.0 <= begin && begin <= wait.1);
    assert!(waited(summaries[0].begin), "the first cycle began because somebody waited");
    assert!(summaries.iter().all(|summary| summary.cause == Cause::Allocation), "{summaries:?}");
    consistent("waiting", heap.setup().backend, &stream);
}
