//! A cycle allocates no native memory: growing an arena of `malloc` takes `mmap_lock` for writing, for which every
//! thread of the process would wait, in a pause too.
//!
//! Counted are all allocations of the process between a cycle's first event and its last. The tests' own threads
//! allocate nothing meanwhile.

use firn::{DataArray, Ephemeron, Event, Field, Heap, Listener, NoGc, OutOfMemory, RefArray};
use firn::{Root, Scope, Trace};
use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};

mod support;
#[path = "support/ways.rs"]
mod ways;
use support::{in_child, succeeded};
use ways::each_way;

/// A cycle is under way.
static IN_CYCLE: AtomicBool = AtomicBool::new(false);
/// Allocations in cycles.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Where the first one was made.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

thread_local! {
    /// This thread is looking at where it allocates, which allocates.
    static LOOKING: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

impl Counting {
    fn count(&self) {
        if IN_CYCLE.load(Ordering::Relaxed) && !LOOKING.replace(true) {
            if ALLOCATIONS.fetch_add(1, Ordering::Relaxed) == 0 {
                *FIRST.lock().unwrap() = Some(Backtrace::force_capture().to_string());
            }
            LOOKING.set(false);
        }
    }
}

// SAFETY: passes everything on to the system's allocator; the guard is a thread-local without initialiser.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.count();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Switches the counting on and off.
struct Cycles;

impl Listener for Cycles {
    fn event(&self, event: &Event) {
        match event {
            Event::CycleBegin { .. } => IN_CYCLE.store(true, Ordering::Relaxed),
            Event::CycleEnd { .. } => IN_CYCLE.store(false, Ordering::Relaxed),
            _ => {}
        }
    }
}

/// Asserts that no cycle has allocated so far.
fn nothing_allocated(way: &str) {
    let count = ALLOCATIONS.swap(0, Ordering::Relaxed);
    let first = FIRST.lock().unwrap().take();
    assert_eq!(count, 0, "{way}: the first of them: {}", first.unwrap_or_default());
}

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
}

/// Cycles of each kind that `each_way` has, but for verification, which allocates by design.
fn each_plain_way(options: &str, test: impl Fn(&Heap, &str)) {
    each_way(options, |heap, way| {
        if !way.contains("verify=true") {
            heap.add_listener(Arc::new(Cycles));
            test(heap, way);
            nothing_allocated(way);
        }
    });
}

#[test]
fn a_cycle_allocates_nothing_whatever_its_mutators_do() {
    const RUNNING: usize = 3;
    const BLOCKED: usize = 40;
    let output = in_child("a_cycle_allocates_nothing_whatever_its_mutators_do", || {
        each_plain_way("heap=32m,concurrent=false,daemon-policy=idle", |heap, _| {
            let (ready, over) = (Barrier::new(RUNNING + BLOCKED + 1), Barrier::new(BLOCKED + 1));
            let (done, ended) = (AtomicBool::new(false), Barrier::new(RUNNING + BLOCKED + 1));
            std::thread::scope(|threads| {
                for _ in 0..BLOCKED {
                    threads.spawn(|| {
                        heap.attach(|cx| {
                            let node = cx.alloc(Node { key: 1, next: Field::null() }).unwrap();
                            cx.blocking(|| {
                                ready.wait();
                                over.wait();
                            });
                            assert_eq!(node.get(cx).key, 1);
                            cx.blocking(|| ended.wait());
                        });
                    });
                }
                for _ in 0..RUNNING {
                    threads.spawn(|| {
                        heap.attach(|cx| {
                            let list = cx.alloc(Node { key: 0, next: Field::null() }).unwrap();
                            cx.blocking(|| ready.wait());
                            let mut key = 0;
                            while !done.load(Ordering::Relaxed) {
                                cx.scope(|cx| {
                                    let nogc = cx.reserve(NoGc::size_of::<Node>()).unwrap();
                                    key += 1;
                                    let node = nogc.alloc(Node { key, next: Field::null() });
                                    list.get(&nogc).next.store(&nogc, Some(node));
                                });
                                cx.safepoint();
                            }
                            cx.blocking(|| ended.wait());
                        });
                    });
                }
                ready.wait();
                for _ in 0..20 {
                    heap.collect();
                }
                done.store(true, Ordering::Relaxed);
                over.wait();
                ended.wait();
            });
        });
    });
    succeeded(&output);
}

type Numbers = DataArray<u64>;

/// What a chain of ephemerons leads to.
#[derive(Trace)]
struct Link {
    key: u64,
    data: Field<RefArray<Numbers>>,
}

type Chain = RefArray<Ephemeron<Link, Link>>;

/// Ephemerons of which each value is the next one's key, in a table of one order or the other: with one of two such
/// tables marking comes to ephemerons before it comes to their keys. The first key is held; the last value holds
/// `large` large objects.
fn chain(
    cx: &mut Scope<'_>,
    large: usize,
    backwards: bool,
) -> Result<(Root<Chain>, Root<Link>), OutOfMemory> {
    const LINKS: usize = 100;
    let table = cx.alloc_refs::<Numbers>(large)?;
    for index in 0..large {
        cx.scope(|cx| {
            // Longer than a page, so large.
            let numbers = cx.alloc_data::<u64>(600)?;
            numbers.get(cx).set(0, index as u64);
            table.get(cx).store(cx, index, Some(numbers.get(cx)));
            Ok::<_, OutOfMemory>(())
        })?;
    }
    let chain = cx.alloc_refs::<Ephemeron<Link, Link>>(LINKS)?;
    let last = cx.alloc(Link { key: LINKS as u64, data: Field::null() })?;
    last.get(cx).data.store(cx, Some(table.get(cx)));
    let next = cx.var::<Link>();
    next.set(cx, Some(last.get(cx)));
    for index in (0..LINKS).rev() {
        let nogc = cx.reserve(NoGc::size_of::<Link>() + NoGc::EPHEMERON)?;
        let key = nogc.alloc(Link { key: index as u64, data: Field::null() });
        let value = next.get(&nogc).expect("set above");
        let place = if backwards { LINKS - 1 - index } else { index };
        chain.get(&nogc).store(&nogc, place, Some(nogc.alloc_ephemeron(key, value)));
        next.set(&nogc, Some(key));
    }
    Ok((cx.global(chain.get(cx)), cx.global(next.get(cx).expect("set above"))))
}

#[test]
fn a_cycle_allocates_nothing_however_many_large_objects_ephemerons_lead_to() {
    const LARGE: usize = 3_000;
    let name = "a_cycle_allocates_nothing_however_many_large_objects_ephemerons_lead_to";
    let output = in_child(name, || {
        let options = "heap=256m,concurrent=false,daemon-policy=idle,large-object=4k";
        each_plain_way(options, |heap, way| {
            heap.attach(|cx| {
                let chains: Vec<_> = [false, true]
                    .map(|backwards| cx.scope(|cx| chain(cx, LARGE, backwards)).unwrap())
                    .into();
                for _ in 0..3 {
                    cx.collect();
                }
                for (table, first) in &chains {
                    assert_eq!(first.get(cx).key, 0);
                    let whole = (0..table.get(cx).len())
                        .filter_map(|index| table.get(cx).load(cx, index)?.value(cx));
                    let last = whole.max_by_key(|link| link.key).expect("all are whole");
                    let large = last.data.load(cx).expect("the last one's");
                    let sum: u64 = (0..LARGE).map(|i| large.load(cx, i).unwrap().get(0)).sum();
                    assert_eq!(sum, (LARGE * (LARGE - 1) / 2) as u64, "{way}");
                }
            });
        });
    });
    succeeded(&output);
}
