//! Recording against operations whose locks are known, on the real kernel. Where the machine refuses
//! the events, each test says what is missing and stops.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use firn_heap::sys::ops::Scratch;
use firn_heap::sys::{Reservation, page_size};

use super::super::analysis::{Kept, Thread};
use super::super::counter::LockCounter;
use super::*;

fn sampler() -> Option<Sampler> {
    Sampler::start(Options::default(), Arc::default())
        .inspect_err(|e| println!("skipped: {e}"))
        .ok()
}

/// The one thread with this name.
fn named<'a>(recording: &'a Recording, name: &str) -> (u32, &'a Thread) {
    let mut with = recording.analysis.threads.iter().filter(|(_, t)| t.name == name);
    let found = with.next().unwrap_or_else(|| panic!("no thread {name}"));
    assert!(with.next().is_none(), "two threads {name}");
    (*found.0, found.1)
}

#[test]
fn what_is_recorded_agrees_with_what_is_counted() {
    let Some(sampler) = sampler() else { return };
    let counts = thread::Builder::new()
        .name("Agreement-7".into())
        .spawn(|| {
            let counter = LockCounter::this_thread().unwrap();
            counter.resume().unwrap();
            for _ in 0..200 {
                drop(Reservation::anonymous(page_size(), page_size(), "firn: test").unwrap());
            }
            counter.pause().unwrap();
            counter.counts().unwrap()
        })
        .unwrap()
        .join()
        .unwrap();
    let recording = sampler.stop();
    let quality = recording.quality;
    assert_eq!((quality.lost, quality.damaged_bytes), (0, 0));
    let usage = &named(&recording, "Agreement-7").1.usage;
    let writes = |f: &dyn Fn(&crate::perf::analysis::Usage) -> u64| -> u64 {
        usage.iter().filter(|(k, _)| k.0).map(|(_, u)| f(u)).sum()
    };
    let taken = writes(&|u| u.wait.decades.count);
    assert!(counts.write >= 600 && counts.downgraded == 200, "{counts:?}");
    // The thread's own beginning and end, and opening the counter, take locks that are not counted.
    assert!(taken >= counts.write && taken < counts.write + 50, "{taken}, {counts:?}");
    assert!((200..220).contains(&writes(&|u| u.downgraded)));
    assert_eq!(writes(&|u| u.hold.decades.count), taken);
    if recording.calls_known {
        // Each operation under its own name: one `munmap` a reservation.
        let unmapped = usage[&(true, "munmap")].wait.decades.count;
        assert!((200..220).contains(&unmapped), "{unmapped}");
    }
}

#[test]
fn a_long_hold_is_kept_with_who_held_the_lock_and_who_waited_for_it() {
    let Some(sampler) = sampler() else { return };
    // Several, as the waiter may be off its processor during one.
    let (pages, start) = ((64 << 20) / page_size(), clock::now());
    let ranges: Vec<_> = (0..4).map(|_| Scratch::anonymous(pages).unwrap()).collect();
    ranges.iter().for_each(Scratch::fill);
    let (unmapped, both_run) = (AtomicBool::new(false), Barrier::new(2));
    thread::scope(|scope| {
        let named = |name: &str| thread::Builder::new().name(name.into());
        named("Waiter")
            .spawn_scoped(scope, || {
                both_run.wait();
                // Relaxed: only the number of rounds depends on it.
                while !unmapped.load(Ordering::Relaxed) {
                    drop(Reservation::anonymous(page_size(), page_size(), "firn: test").unwrap());
                }
            })
            .unwrap();
        named("Unmapper")
            .spawn_scoped(scope, || {
                both_run.wait();
                drop(ranges);
                unmapped.store(true, Ordering::Relaxed);
            })
            .unwrap();
    });
    let end = clock::now();
    let recording = sampler.stop();
    let ((unmapper, _), (waiter, stats)) =
        (named(&recording, "Unmapper"), named(&recording, "Waiter"));
    let analysis = &recording.analysis;
    // Giving back that many pages holds the lock, after the downgrade for reading, for long.
    let long = analysis.kept.iter().filter(|k| k.span.tid == unmapper && !k.span.write);
    let held = long.max_by_key(|k| k.span.released - k.span.acquired).unwrap();
    let span = held.span;
    assert!(span.released - span.acquired >= 1_000_000, "{held:?}");
    assert!(start <= span.start && span.released <= end, "{held:?}");
    // A writer that came meanwhile waited, and knows whom for. The longest comes first; other tests' threads hold this
    // process's lock, too.
    let waits = analysis.kept.iter().filter(|k| k.span.tid == waiter && k.span.write);
    let holders =
        |wait: &Kept| &analysis.holders[wait.holders.0 as usize..][..wait.holders.1 as usize];
    let its = |wait: &Kept| holders(wait).iter().position(|h| h.tid == unmapper);
    let known = waits.filter_map(|wait| its(wait).map(|place| (wait, place)));
    let (wait, place) =
        known.max_by_key(|&(wait, place)| holders(wait)[place].held).expect("nobody waited for it");
    let (before, its) = (&holders(wait)[..place], holders(wait)[place]);
    assert!(
        its.held >= 1_000_000 && its.held <= wait.span.acquired - wait.span.start,
        "{its:?} {wait:?}"
    );
    assert!(before.iter().all(|h| h.held >= its.held && h.tid != waiter), "{its:?} {before:?}");
    if recording.calls_known {
        assert_eq!(its.operation, "munmap");
    }
    if recording.contention_known {
        assert!(stats.usage.values().any(|u| u.contended >= 1), "{stats:?}");
    }
    if recording.switches_known {
        let blocked = stats.blocked;
        assert!(blocked.in_mmap_lock > 0, "{blocked:?}");
        assert!(blocked.in_mmap_lock <= blocked.uninterruptible, "{blocked:?}");
    }
}

#[test]
fn threads_that_end_keep_their_ids_and_names() {
    let Some(sampler) = sampler() else { return };
    for n in 0..20 {
        let named = thread::Builder::new().name(format!("Ending-{n}"));
        let thread = named.spawn(|| drop(Scratch::anonymous(1).unwrap())).unwrap();
        thread.join().unwrap();
    }
    let recording = sampler.stop();
    let threads = &recording.analysis.threads;
    assert!(!threads.contains_key(&NO_TID), "{:?}", threads[&NO_TID]);
    for n in 0..20 {
        let (tid, thread) = named(&recording, &format!("Ending-{n}"));
        // Its end is the last that was seen of it.
        assert!(
            recording.analysis.off.iter().all(|off| off.tid != tid || off.end < recording.span.1)
        );
        assert!(thread.blocked.running < recording.span.1 - recording.span.0, "{thread:?}");
    }
}

#[test]
fn roles_are_names_without_numbers() {
    for (name, expected) in [
        ("Mutator-3", "Mutator"),
        ("GcWorker-12", "GcWorker"),
        ("HeapTaskDaemon", "HeapTaskDaemon"),
        ("kworker/0:1", "kworker/0"),
        ("-3", "-3"),
        ("x-y", "x-y"),
    ] {
        assert_eq!(role(name), expected);
    }
}

#[test]
fn lists_of_processors_are_read_as_the_kernel_writes_them() {
    assert_eq!(parse_cpus("0-1\n"), [0, 1]);
    assert_eq!(parse_cpus("0,2-4,9\n"), [0, 2, 3, 4, 9]);
    assert!(parse_cpus("").is_empty());
    assert!(!online_cpus().is_empty());
}
