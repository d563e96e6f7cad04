//! Global roots: any number of them survives any number of cycles, read, replaced and dropped by any thread at any
//! time, and none of it takes place in a pause.

use firn::events::PauseKind;
use firn::{Event, Heap, Listener, Options, OutOfMemory, Root, Trace};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

#[derive(Trace)]
struct Node {
    key: u64,
}

fn each_way(size: &str, body: impl Fn(&str, Heap)) {
    for way in [
        "backend=stw",
        "backend=pingpong",
        "backend=pingpong,verify=true",
        "backend=pingpong,fault=thread",
        "backend=art",
        "backend=mprotect",
    ] {
        match Heap::new(&Options::parse(&format!("heap={size},{way}")).unwrap()) {
            Ok(heap) => body(way, heap),
            Err(error) if error.is_userfaultfd_refused() => println!("left out: {way}: {error}"),
            Err(error) => panic!("{way}: {error}"),
        }
    }
}

fn make(heap: &Heap, keys: std::ops::Range<u64>) -> Vec<Root<Node>> {
    let root = |cx: &mut firn::Scope<'_>, key| {
        cx.scope(|cx| {
            let node = cx.alloc(Node { key })?;
            Ok::<_, OutOfMemory>(cx.global(node.get(cx)))
        })
    };
    heap.attach(|cx| keys.map(|key| root(cx, key).unwrap()).collect())
}

#[test]
fn roots_are_read_and_replaced_by_many_threads_while_cycles_go_on() {
    each_way("32m", |way, heap| {
        let roots: Vec<_> = make(&heap, 0..3_000).into_iter().map(Mutex::new).collect();
        let stop = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let readers: Vec<_> = (0..3usize)
                .map(|thread| {
                    let (heap, roots) = (&heap, &roots);
                    threads.spawn(move || {
                        heap.attach(|cx| {
                            let begun = heap.stats().cycles;
                            // Until a cycle has begun and ended beside them, however fast they are.
                            for turn in (0usize..).take_while(|turn| {
                                *turn < 30_000 || heap.stats().cycles < begun + 2
                            }) {
                                let index = (turn * 17 + thread * 911) % roots.len();
                                let key = index as u64;
                                cx.scope(|cx| {
                                    // Nothing may collect while the lock is held: a thread that waits
                                    // for it would never reach a safepoint.
                                    let node = cx.alloc(Node { key }).unwrap();
                                    let mut root = roots[index].lock().unwrap();
                                    assert_eq!(root.get(cx).key, key, "{way}");
                                    match turn % 5 {
                                        0 => root.set(cx, node.get(cx)),
                                        1 => *root = cx.global(root.get(cx)),
                                        _ => {}
                                    }
                                });
                                cx.safepoint();
                            }
                        })
                    })
                })
                .collect();
            let cycles = threads.spawn(|| {
                let mut cycles = 0;
                while !stop.load(Ordering::Relaxed) {
                    heap.collect();
                    cycles += 1;
                }
                cycles
            });
            let ended: Vec<_> = readers.into_iter().map(|thread| thread.join()).collect();
            stop.store(true, Ordering::Relaxed);
            assert!(cycles.join().unwrap() > 0);
            assert!(ended.into_iter().all(|end| end.is_ok()), "{way}");
        });
    });
}

#[test]
fn roots_that_nobody_reads_for_many_cycles_are_still_right() {
    each_way("32m", |way, heap| {
        let mut roots = make(&heap, 0..20_000);
        for round in 0..7 {
            heap.collect();
            // Places become free, and are used again.
            roots.truncate(20_000 - round * 1_000);
            let more = make(&heap, 0..500);
            heap.collect();
            drop(more);
        }
        heap.attach(|cx| {
            for (key, root) in roots.iter().enumerate() {
                assert_eq!(root.get(cx).key, key as u64, "{way}");
            }
        });
    });
}

#[test]
fn roots_dropped_by_threads_that_are_not_attached_leave_no_marking_work_behind() {
    each_way("16m", |way, heap| {
        let (send, receive) = mpsc::sync_channel::<Vec<Root<Node>>>(2);
        let done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let dropper = threads.spawn(move || receive.into_iter().for_each(drop));
            let (heap, done) = (&heap, &done);
            threads.spawn(move || {
                heap.attach(|cx| {
                    let node = cx.alloc(Node { key: 7 }).unwrap();
                    for _ in 0..60 {
                        let roots = (0..10_000).map(|_| cx.global(node.get(cx))).collect();
                        let send = &send;
                        cx.blocking(move || send.send(roots).unwrap());
                        assert_eq!(node.get(cx).key, 7, "{way}");
                    }
                });
            });
            threads.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    heap.collect();
                    assert!(heap.core().segments.is_empty(), "{way}: marking work is left over");
                }
            });
            dropper.join().unwrap();
            done.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn more_roots_than_fit_into_the_log_can_be_dropped_while_marking_goes_on() {
    each_way("16m", |way, heap| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let cycles = threads.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    heap.collect();
                }
            });
            for _ in 0..4 {
                let roots = make(&heap, 0..30_000);
                let first = heap.attach(|cx| roots[29_999].get(cx).key);
                assert_eq!(first, 29_999, "{way}");
                drop(roots);
            }
            stop.store(true, Ordering::Relaxed);
            cycles.join().unwrap();
        });
    });
}

/// Lengths of the pauses of each kind, in nanoseconds.
#[derive(Default)]
struct Pauses(Mutex<Vec<(PauseKind, u64)>>);

impl Listener for Pauses {
    fn event(&self, event: &Event) {
        if let Event::Pause { kind, stopped, released, .. } = *event {
            self.0.lock().unwrap().push((kind, released - stopped));
        }
    }
}

impl Pauses {
    fn median(&self, wanted: PauseKind) -> u64 {
        let all = self.0.lock().unwrap();
        let mut times: Vec<_> = all.iter().filter(|p| p.0 == wanted).map(|p| p.1).collect();
        times.sort_unstable();
        times[times.len() / 2]
    }
}

#[test]
fn no_pause_grows_with_the_number_of_roots() {
    let heap = match Heap::new(&Options::parse("heap=64m,backend=pingpong").unwrap()) {
        Ok(heap) => heap,
        Err(error) => return println!("left out: {error}"),
    };
    let mut roots = Vec::new();
    for count in [100, 10_000, 1_000_000] {
        let more = heap.attach(|cx| {
            let node = cx.alloc(Node { key: 1 }).unwrap();
            (roots.len()..count).map(|_| cx.global(node.get(cx))).collect::<Vec<_>>()
        });
        roots.extend(more);
        let pauses = Arc::<Pauses>::default();
        heap.add_listener(pauses.clone());
        for _ in 0..11 {
            heap.collect();
        }
        for kind in [PauseKind::Start, PauseKind::FinalMark, PauseKind::Flip] {
            let median = pauses.median(kind);
            println!("{count} roots: median of {kind:?}: {:.1} us", median as f64 / 1000.0);
            // To rewrite a million words takes milliseconds.
            assert!(median < 300_000, "{count} roots: {median} ns for {kind:?}");
        }
    }
}
