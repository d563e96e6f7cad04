//! Threads come, go, block, panic and run out of memory while the heap collects; other heaps and other threads are
//! not disturbed, and misuse that types cannot forbid is refused with words.

use firn::{AttachError, DataArray, Field, Heap, NoGc, Options, OutOfMemory, Scope, Trace};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, mpsc};

mod support;
use support::{in_child, succeeded};

#[derive(Trace)]
struct Link {
    key: u64,
    next: Field<Link>,
}

fn heap(options: &str) -> Heap {
    Heap::new(&Options::parse(options).unwrap()).unwrap()
}

/// Every back end and fault delivery that works here.
fn each_way(size: &str, body: impl Fn(&str, Heap)) {
    for way in [
        "backend=stw",
        "backend=pingpong",
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

/// Builds a list of `len` links, reads it back after safepoints, and returns the sum of its keys.
fn work(cx: &mut Scope<'_>, len: u64) -> Result<u64, OutOfMemory> {
    cx.scope(|cx| {
        let list = cx.var::<Link>();
        for key in 0..len {
            let nogc = cx.reserve(NoGc::size_of::<Link>())?;
            let link = nogc.alloc(Link { key, next: Field::null() });
            link.next.store(&nogc, list.get(&nogc));
            list.set(&nogc, Some(link));
        }
        cx.safepoint();
        let mut sum = 0;
        let mut at = list.get(cx);
        while let Some(link) = at {
            sum += link.key;
            at = link.next.load(cx);
        }
        Ok(sum)
    })
}

/// Collects over and over until told to stop; returns how often.
fn collect_until(heap: &Heap, stop: &AtomicBool) -> u64 {
    let mut cycles = 0;
    while !stop.load(Ordering::Relaxed) {
        heap.collect();
        cycles += 1;
    }
    cycles
}

#[test]
fn threads_come_and_go_during_cycles() {
    each_way("32m", |way, heap| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let cycles = threads.spawn(|| collect_until(&heap, &stop));
            for _ in 0..20 {
                let few: Vec<_> = (0..4)
                    .map(|_| threads.spawn(|| heap.attach(|cx| work(cx, 300)).unwrap()))
                    .collect();
                for thread in few {
                    assert_eq!(thread.join().unwrap(), 300 * 299 / 2, "{way}");
                }
            }
            stop.store(true, Ordering::Relaxed);
            assert!(cycles.join().unwrap() > 0);
        });
    });
}

#[test]
fn attaching_and_detaching_in_a_storm_loses_nothing() {
    each_way("32m", |way, heap| {
        let stop = AtomicBool::new(false);
        let root = heap.attach(|cx| {
            let link = cx.alloc(Link { key: 77, next: Field::null() }).unwrap();
            cx.global(link.get(cx))
        });
        std::thread::scope(|threads| {
            let cycles = threads.spawn(|| collect_until(&heap, &stop));
            let storm: Vec<_> = (0..3)
                .map(|_| {
                    threads.spawn(|| {
                        for turn in 0..200 {
                            let key = heap.attach(|cx| {
                                cx.alloc(Link { key: turn, next: Field::null() }).unwrap();
                                root.get(cx).key
                            });
                            assert_eq!(key, 77);
                        }
                    })
                })
                .collect();
            for thread in storm {
                thread.join().unwrap();
            }
            stop.store(true, Ordering::Relaxed);
            cycles.join().unwrap();
        });
        assert_eq!(heap.core().safepoints.attached(), 0, "{way}");
    });
}

#[test]
fn a_panic_in_a_mutator_ends_that_thread_only() {
    each_way("32m", |way, heap| {
        let ended = std::thread::scope(|threads| {
            let doomed = threads.spawn(|| {
                heap.attach(|cx| {
                    let kept = cx.alloc(Link { key: 1, next: Field::null() }).unwrap();
                    cx.scope(|cx| {
                        cx.alloc_data::<u8>(1000).unwrap();
                        cx.collect();
                        if kept.get(cx).key == 1 {
                            std::panic::resume_unwind(Box::new("on purpose"));
                        }
                    })
                })
            });
            doomed.join()
        });
        assert_eq!(*ended.unwrap_err().downcast_ref::<&str>().unwrap(), "on purpose");
        assert_eq!(heap.core().safepoints.attached(), 0, "{way}: it is still attached");
        heap.collect();
        assert_eq!(heap.attach(|cx| work(cx, 1_000)), Ok(499_500), "{way}");
    });
}

#[test]
fn a_thread_that_unwinds_can_attach_again() {
    let heap = heap("heap=16m");
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        heap.attach(|_| std::panic::resume_unwind(Box::new(())))
    }));
    assert!(caught.is_err());
    assert_eq!(heap.attach(|cx| work(cx, 10)), Ok(45));
}

#[test]
fn a_thread_that_blocks_across_ten_cycles_finds_its_objects_again() {
    each_way("32m", |way, heap| {
        let (blocked, is_blocked) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        std::thread::scope(|threads| {
            let heap = &heap;
            let sleeper = threads.spawn(move || {
                heap.attach(|cx| {
                    let table = cx.alloc_refs::<Link>(1_000).unwrap();
                    for key in 0..1_000 {
                        cx.scope(|cx| {
                            let link = cx.alloc(Link { key, next: Field::null() }).unwrap();
                            table.get(cx).store(cx, key as usize, Some(link.get(cx)));
                        });
                    }
                    cx.blocking(move || {
                        blocked.send(()).unwrap();
                        may_go_on.recv().unwrap();
                    });
                    let table = table.get(cx);
                    (0..1_000).all(|key| table.load(cx, key).unwrap().key == key as u64)
                })
            });
            is_blocked.recv().unwrap();
            for _ in 0..10 {
                heap.attach(|cx| work(cx, 2_000)).unwrap();
                heap.collect();
            }
            go_on.send(()).unwrap();
            assert!(sleeper.join().unwrap(), "{way}");
        });
        assert!(heap.stats().cycles >= 10);
    });
}

#[test]
fn a_full_heap_is_an_error_and_goes_on_once_references_are_dropped() {
    each_way("8m", |way, heap| {
        heap.attach(|cx| {
            for _ in 0..3 {
                let error = cx.scope(|cx| {
                    let list = cx.var::<Link>();
                    for key in 0.. {
                        let nogc = match cx.reserve(NoGc::size_of::<Link>()) {
                            Ok(nogc) => nogc,
                            Err(error) => return (key, error),
                        };
                        let link = nogc.alloc(Link { key, next: Field::null() });
                        link.next.store(&nogc, list.get(&nogc));
                        list.set(&nogc, Some(link));
                    }
                    unreachable!("a heap of 8 MiB does not hold every list");
                });
                let (links, OutOfMemory { live, limit, .. }) = error;
                assert_eq!(limit, 8 << 20, "{way}");
                assert!(live <= limit && live > 0, "{way}: {error:?}");
                assert!(links as usize * NoGc::size_of::<Link>() > limit / 2, "{way}: {error:?}");
                assert_eq!(work(cx, 10_000), Ok(49_995_000), "{way}: dropped references make room");
            }
            let large = cx.alloc_data::<u8>(64 << 20);
            assert_eq!(large.err().expect("8 MiB").requested, 64 << 20);
            assert_eq!(work(cx, 100), Ok(4950));
        });
    });
}

#[test]
fn a_full_heap_of_large_data_goes_on_once_references_are_dropped() {
    each_way("16m", |way, heap| {
        heap.attach(|cx| {
            for _ in 0..3 {
                let held = cx.scope(|cx| {
                    let table = cx.alloc_refs::<DataArray<u8>>(100).unwrap();
                    (0..100)
                        .take_while(|&index| {
                            cx.scope(|cx| {
                                let Ok(data) = cx.alloc_data::<u8>(1 << 20) else { return false };
                                table.get(cx).store(cx, index, Some(data.get(cx)));
                                true
                            })
                        })
                        .count()
                });
                assert!((8..16).contains(&held), "{way}: {held} MiB of 16 were held");
            }
        });
    });
}

#[test]
fn many_heaps_live_side_by_side() {
    let heaps: Vec<_> = (0..12).map(|_| heap("heap=4m")).collect();
    std::thread::scope(|threads| {
        for (number, heap) in heaps.iter().enumerate() {
            threads.spawn(move || {
                for round in 0..5 {
                    heap.attach(|cx| {
                        let len = 1_000 + number as u64;
                        assert_eq!(work(cx, len), Ok(len * (len - 1) / 2));
                        cx.collect();
                    });
                    assert_eq!(heap.stats().cycles, round + 1);
                }
            });
        }
    });
}

#[test]
fn heaps_can_be_made_and_dropped_for_ever() {
    // Far more than can exist at a time: each returns its place, its threads and its memory.
    for _ in 0..150 {
        let heap = heap("heap=4m");
        assert_eq!(heap.attach(|cx| work(cx, 50)), Ok(1225));
    }
}

#[test]
fn a_heap_outlives_its_handle_while_a_root_needs_it() {
    let root = {
        let heap = heap("heap=4m");
        heap.attach(|cx| {
            let link = cx.alloc(Link { key: 5, next: Field::null() }).unwrap();
            cx.global(link.get(cx))
        })
    };
    // Dropping the root ends the heap: nothing to observe but that it works.
    drop(root);
}

#[test]
fn attaching_twice_is_refused_with_words() {
    let (one, two) = (heap("heap=4m"), heap("heap=4m"));
    one.attach(|_| {
        for heap in [&one, &two] {
            let again = heap.try_attach(|_| ());
            assert!(matches!(again, Err(AttachError::Already)));
            assert!(again.unwrap_err().to_string().contains("attached to a heap already"));
        }
    });
    two.attach(|cx| work(cx, 1)).unwrap();
}

#[test]
fn a_root_used_with_another_heap_panics() {
    let (one, two) = (heap("heap=4m"), heap("heap=4m"));
    let root = one.attach(|cx| {
        let link = cx.alloc(Link { key: 9, next: Field::null() }).unwrap();
        cx.global(link.get(cx))
    });
    let used = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        two.attach(|cx| root.get(cx).key)
    }));
    let message = used.unwrap_err();
    let text = message.downcast_ref::<&str>().map(|s| s.to_string());
    let text = text.or(message.downcast_ref::<String>().cloned()).unwrap();
    assert!(text.contains("another heap"), "{text}");
    assert_eq!(one.attach(|cx| root.get(cx).key), 9);
}

#[test]
fn a_limit_on_address_space_is_named_in_the_error() {
    let output = in_child("a_limit_on_address_space_is_named_in_the_error", || {
        let limit = libc::rlimit { rlim_cur: 1 << 30, rlim_max: 1 << 30 };
        // SAFETY: the kernel reads a live struct.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
        let error = Heap::new(&Options::parse("heap=4g,backend=stw").unwrap()).unwrap_err();
        println!("said: {error}");
        let small = Heap::new(&Options::parse("heap=4m,backend=stw").unwrap()).unwrap();
        assert_eq!(small.attach(|cx| work(cx, 100)), Ok(4950));
    });
    let text = succeeded(&output);
    let said = text.lines().find(|line| line.contains("said: ")).expect("an error");
    assert!(said.contains("RLIMIT_AS") || said.contains("ulimit -v"), "{said}");
}

#[test]
fn eight_threads_share_one_structure_through_cycles() {
    each_way("64m", |way, heap| {
        let (stop, barrier) = (AtomicBool::new(false), Barrier::new(8));
        let root = Arc::new(heap.attach(|cx| {
            let table = cx.alloc_refs::<Link>(8 * 100).unwrap();
            cx.global(table.get(cx))
        }));
        let reads = AtomicU64::new(0);
        std::thread::scope(|threads| {
            let cycles = threads.spawn(|| collect_until(&heap, &stop));
            let all: Vec<_> = (0..8usize)
                .map(|thread| {
                    let (root, heap, barrier, reads) = (&root, &heap, &barrier, &reads);
                    threads.spawn(move || {
                        heap.attach(|cx| {
                            for round in 0..6u64 {
                                for index in 0..100 {
                                    cx.scope(|cx| {
                                        let key = round * 10_000 + (thread * 100 + index) as u64;
                                        let link =
                                            cx.alloc(Link { key, next: Field::null() }).unwrap();
                                        let place = thread * 100 + index;
                                        root.get(cx).store(cx, place, Some(link.get(cx)));
                                    });
                                }
                                cx.blocking(|| barrier.wait());
                                let table = root.get(cx);
                                for index in 0..800 {
                                    let link = table.load(cx, index).expect("all stored");
                                    assert_eq!(link.key, round * 10_000 + index as u64);
                                    reads.fetch_add(1, Ordering::Relaxed);
                                }
                                cx.blocking(|| barrier.wait());
                            }
                        })
                    })
                })
                .collect();
            let ended: Vec<_> = all.into_iter().map(|thread| thread.join()).collect();
            stop.store(true, Ordering::Relaxed);
            cycles.join().unwrap();
            assert!(ended.iter().all(Result::is_ok), "{way}");
        });
        assert_eq!(reads.load(Ordering::Relaxed), 8 * 6 * 800);
    });
}
