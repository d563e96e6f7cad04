//! Memory: a spike goes back to the kernel, idle and background heaps keep little, requests for a collection
//! are merged, and whoever asks for one waits for one that begins after the question.

use firn::events::Cause;
use firn::{DataArray, Event, Field, Heap, Listener, NoGc, Options, OutOfMemory, Scope, Trace};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

#[path = "support/heap.rs"]
mod heaps;
#[allow(dead_code)] // Each test uses a part of it.
#[path = "support/stream.rs"]
mod stream;
mod support;
use heaps::heap;
use stream::Stream;
use support::{in_child, succeeded};

const MIB: usize = 1 << 20;
/// Longest wait for something that nobody announces.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of the heap's ranges that are resident, as the kernel says.
fn resident(heap: &Heap) -> usize {
    let space = &heap.core().space;
    let page = space.geometry.page;
    let ranges = [&space.ranges[0], &space.ranges[1], &space.parking];
    let mut pages = 0;
    for range in ranges {
        let mut present = vec![0u8; range.len() / page];
        // SAFETY: the kernel writes one byte for each page of a mapping of the heap.
        let done =
            unsafe { libc::mincore(range.base() as *mut _, range.len(), present.as_mut_ptr()) };
        assert_eq!(done, 0, "mincore: {}", std::io::Error::last_os_error());
        pages += present.iter().filter(|byte| *byte & 1 != 0).count();
    }
    pages * page
}

/// Waits until `done` says so; nothing tells when the daemon's work after a cycle is over.
fn until(what: &str, mut done: impl FnMut() -> Result<(), String>) {
    let begin = Instant::now();
    while let Err(now) = done() {
        assert!(begin.elapsed() < PATIENCE, "{what}: still {now}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[derive(Trace)]
struct Link {
    next: Field<Link>,
    data: Field<DataArray<u8>>,
}

/// Keeps `bytes` alive in objects of 4,000 bytes, then lets go of them.
fn spike(cx: &mut Scope<'_>, bytes: usize) -> Result<(), OutOfMemory> {
    spike_seen(cx, bytes, |_| ())
}

/// As [`spike`]; `look` is called while all of it is alive.
fn spike_seen<R>(
    cx: &mut Scope<'_>,
    bytes: usize,
    look: impl FnOnce(&mut Scope<'_>) -> R,
) -> Result<R, OutOfMemory> {
    cx.scope(|cx| {
        let list = cx.var::<Link>();
        for _ in 0..bytes / 4_000 {
            cx.scope(|cx| {
                let data = cx.alloc_data::<u8>(4_000)?;
                let nogc = cx.reserve(NoGc::size_of::<Link>())?;
                let link = nogc.alloc(Link { next: Field::null(), data: Field::null() });
                link.next.store(&nogc, list.get(&nogc));
                link.data.store(&nogc, Some(data.get(&nogc)));
                list.set(&nogc, Some(link));
                Ok(())
            })?;
        }
        Ok(look(cx))
    })
}

#[test]
fn a_spikes_memory_is_given_back_within_two_cycles() {
    for way in [
        "backend=pingpong",
        "backend=pingpong,install=copy",
        "backend=pingpong,fault=thread",
        "backend=pingpong,verify=true",
        "backend=art",
        "backend=art,install=move",
        "backend=stw",
        "backend=mprotect",
    ] {
        let Some(heap) = heap(&format!("heap=256m,min-free=4m,trim=true,{way}")) else { continue };
        // After a cycle, because in the middle of one a part may be elsewhere (in verification's vault).
        let look = |cx: &mut Scope<'_>| {
            cx.collect();
            resident(&heap)
        };
        let high = heap.attach(|cx| spike_seen(cx, 120 * MIB, look)).unwrap();
        assert!(high > 110 * MIB, "{way}: {} MiB", high / MIB);
        heap.collect();
        heap.collect();
        let mut low = resident(&heap);
        until(way, || {
            low = resident(&heap);
            (low < 16 * MIB).then_some(()).ok_or(format!("{} MiB", low / MIB))
        });
        println!("{way}: {} MiB, after two cycles {} MiB", high / MIB, low / MIB);
    }
}

#[test]
fn the_process_shrinks_after_a_spike_of_large_and_small_objects() {
    let output = in_child("the_process_shrinks_after_a_spike_of_large_and_small_objects", || {
        let Some(heap) = heap("heap=256m,min-free=4m") else { return };
        let before = rss();
        heap.attach(|cx| {
            spike(cx, 60 * MIB)?;
            cx.scope(|cx| {
                let mut kept = Vec::new();
                for _ in 0..60 {
                    let large = cx.alloc_data::<u8>(MIB)?;
                    // Memory that is never written is never resident.
                    (0..MIB).step_by(512).for_each(|index| large.get(cx).set(index, 1));
                    kept.push(large);
                }
                println!("at its height: {} MiB", (rss() - before) / MIB);
                Ok::<_, OutOfMemory>(())
            })
        })
        .unwrap();
        heap.collect();
        heap.collect();
        until("resident memory of the process", || {
            let more = rss().saturating_sub(before);
            (more < 24 * MIB).then_some(()).ok_or(format!("{} MiB more", more / MIB))
        });
        println!("shrank");
    });
    let text = succeeded(&output);
    if text.contains("left out: ") {
        println!("{text}");
        return;
    }
    let line = text.lines().find_map(|line| line.split_once("at its height: ")).expect("a height");
    let height: usize = line.1.split(' ').next().unwrap().parse().unwrap();
    assert!(height >= 60 && text.contains("shrank"), "{text}");
}

/// Resident memory of the process in bytes.
fn rss() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc");
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * firn_heap::sys::page_size()
}

#[test]
fn the_budget_counts_exactly_the_pages_that_are_resident() {
    for way in [
        "backend=pingpong",
        "backend=pingpong,dense=50,workers=2",
        "backend=pingpong,install=copy",
        "backend=pingpong,fault=thread",
    ] {
        let Some(heap) = heap(&format!("heap=48m,min-free=4m,{way}")) else { continue };
        let stop = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let two: Vec<_> = (0..2)
                .map(|_| {
                    threads.spawn(|| heap.attach(|cx| (0..12).try_for_each(|_| spike(cx, 8 * MIB))))
                })
                .collect();
            threads.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    heap.collect();
                }
            });
            let ended: Vec<_> = two.into_iter().map(|thread| thread.join()).collect();
            stop.store(true, Ordering::Relaxed);
            assert!(ended.into_iter().all(|end| matches!(end, Ok(Ok(())))), "{way}");
        });
        heap.collect();
        // The daemon goes on moving pages for a while after a cycle.
        until(way, || {
            let (counted, present) = (heap.stats().footprint_bytes, resident(&heap));
            let still = heap.stats().footprint_bytes == counted;
            let says = format!("{counted} bytes counted and {present} resident");
            (still && counted == present).then_some(()).ok_or(says)
        });
    }
}

#[test]
fn an_idle_heap_gives_half_of_its_free_memory_back_after_a_while() {
    let Some(one) = heap("heap=128m,min-free=64m") else { return };
    let Some(other) = heap("heap=128m,min-free=64m,trim=false") else { return };
    for heap in [&one, &other] {
        heap.attach(|cx| spike(cx, 60 * MIB)).unwrap();
        heap.collect();
    }
    let kept = other.stats().footprint_bytes;
    assert!(one.stats().footprint_bytes > 50 * MIB, "the target is far above");
    until("trim", || {
        let now = resident(&one);
        (now < 36 * MIB).then_some(()).ok_or(format!("{} MiB", now / MIB))
    });
    assert_eq!(one.stats().cycles, 1, "it took no cycle");
    assert_eq!(other.stats().footprint_bytes, kept, "trim=false keeps what there is");
    one.attach(|cx| spike(cx, 60 * MIB)).unwrap();
}

#[test]
fn going_to_the_background_collects_and_keeps_nothing_free() {
    for way in ["backend=pingpong", "backend=pingpong,install=copy", "backend=art", "backend=stw"] {
        let Some(heap) = heap(&format!("heap=128m,min-free=32m,{way}")) else { continue };
        let stream = Stream::of(&heap);
        heap.attach(|cx| spike(cx, 30 * MIB)).unwrap();
        assert!(resident(&heap) > 28 * MIB, "{way}");
        heap.set_background(true);
        stream.wait_for(
            |event| matches!(event, Event::CycleEnd { summary } if summary.cause == Cause::Background),
        );
        until(way, || {
            let now = resident(&heap);
            (now < 2 * MIB).then_some(()).ok_or(format!("{} MiB", now / MIB))
        });
        // It still works, there and back in the foreground.
        heap.attach(|cx| spike(cx, 30 * MIB)).unwrap();
        heap.set_background(false);
        heap.attach(|cx| spike(cx, 60 * MIB)).unwrap();
    }
}

/// Holds the first cycle at its begin.
#[derive(Default)]
struct Gate {
    /// Whether the cycle has begun, and whether it may go on.
    reached: Mutex<[bool; 2]>,
    changed: Condvar,
}

const BEGUN: usize = 0;
const OPEN: usize = 1;

impl Gate {
    fn wait(&self, what: usize) {
        let guard = self.reached.lock().unwrap();
        let (_guard, wait) =
            self.changed.wait_timeout_while(guard, PATIENCE, |reached| !reached[what]).unwrap();
        assert!(!wait.timed_out(), "the test hangs");
    }

    fn set(&self, what: usize) {
        self.reached.lock().unwrap()[what] = true;
        self.changed.notify_all();
    }
}

impl Listener for Gate {
    fn event(&self, event: &Event) {
        if let Event::CycleBegin { cycle: 1, .. } = event {
            self.set(BEGUN);
            self.wait(OPEN);
        }
    }
}

/// Whether the thread sleeps in the kernel.
fn sleeps(tid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).expect("a thread");
    // The name, in parentheses, may hold anything.
    stat.rsplit_once(") ").expect("a state").1.starts_with('S')
}

#[test]
fn requests_made_during_a_cycle_are_served_by_one_more() {
    let heap = heap("heap=16m,backend=stw").unwrap();
    let gate = Arc::new(Gate::default());
    heap.add_listener(gate.clone());
    let stream = Stream::of(&heap);
    std::thread::scope(|threads| {
        let first = threads.spawn(|| heap.collect());
        gate.wait(BEGUN);
        let (sender, ids) = mpsc::channel();
        let eight: Vec<_> = (0..8)
            .map(|_| {
                let (sender, heap) = (sender.clone(), &heap);
                threads.spawn(move || {
                    // SAFETY: no arguments, no effect.
                    sender.send(unsafe { libc::gettid() }).unwrap();
                    let asked = firn_heap::sys::thread::monotonic_ns();
                    (asked, heap.collect())
                })
            })
            .collect();
        // All have asked when all of them sleep: there is nothing else to wait for.
        for tid in ids.iter().take(8) {
            until("asking", || sleeps(tid).then_some(()).ok_or("awake".into()));
        }
        assert!(!first.is_finished() && eight.iter().all(|thread| !thread.is_finished()));
        gate.set(OPEN);
        first.join().unwrap();
        for thread in eight {
            let (asked, summary) = thread.join().unwrap();
            assert_eq!(summary.cycle, 2, "the cycle under way does not count");
            assert!(summary.begin >= asked, "it begins after the question");
        }
    });
    assert_eq!(heap.stats().cycles, 2);
    assert_eq!(stream.summaries().len(), 2);
}

#[test]
fn a_collection_from_an_attached_thread_waits_while_others_run_on() {
    let Some(heap) = heap("heap=32m,backend=pingpong") else { return };
    let (barrier, stop) = (Barrier::new(2), AtomicBool::new(false));
    std::thread::scope(|threads| {
        let (heap, barrier, stop) = (&heap, &barrier, &stop);
        let other = threads.spawn(move || {
            heap.attach(|cx| {
                barrier.wait();
                let mut spikes = 0;
                while !stop.load(Ordering::Relaxed) {
                    spike(cx, 100_000).unwrap();
                    spikes += 1;
                }
                spikes
            })
        });
        barrier.wait();
        heap.attach(|cx| {
            for _ in 0..20 {
                let before = cx.heap().stats().cycles;
                let asked = firn_heap::sys::thread::monotonic_ns();
                let summary = cx.collect();
                assert!(summary.begin >= asked && cx.heap().stats().cycles > before);
            }
        });
        stop.store(true, Ordering::Relaxed);
        assert!(other.join().unwrap() > 0);
    });
}

/// Holds the daemon when it has planned a cycle, until a mutator has gone on.
#[derive(Default)]
struct HoldPlanned {
    gone_on: Mutex<bool>,
    changed: Condvar,
    late: AtomicBool,
}

impl Listener for HoldPlanned {
    fn event(&self, event: &Event) {
        if let Event::Phase { phase: firn::events::Phase::Plan, .. } = event {
            let gone_on = self.gone_on.lock().unwrap();
            let wait = self.changed.wait_timeout_while(gone_on, PATIENCE, |gone_on| !*gone_on);
            self.late.fetch_or(wait.unwrap().1.timed_out(), Ordering::SeqCst);
        }
    }
}

#[test]
fn who_waits_for_memory_gets_that_of_large_objects_when_they_are_swept() {
    let options = "heap=16m,backend=stw,concurrent=false,large-object=4k";
    let heap = Heap::new(&Options::parse(options).unwrap()).unwrap();
    let hold = Arc::<HoldPlanned>::default();
    heap.add_listener(hold.clone());
    heap.attach(|cx| {
        while heap.stats().bytes_allocated <= 20 << 20 {
            cx.scope(|cx| cx.alloc_data::<u64>(8_000).map(|_| ())).unwrap();
        }
    });
    *hold.gone_on.lock().unwrap() = true;
    hold.changed.notify_all();
    assert!(!hold.late.load(Ordering::SeqCst), "it waited for the end of the cycle");
    heap.collect();
    assert!(heap.stats().cycles > 0);
}
