//! Recording against operations whose locks are known, on the real kernel. Where the machine refuses
//! the events, each test says what is missing and stops.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use firn_heap::sys::ops::Scratch;

use super::super::counter::LockCounter;
use super::*;

fn recorder() -> Option<LockRecorder> {
    LockRecorder::start(Options::default()).inspect_err(|e| println!("skipped: {e}")).ok()
}

/// The figures of the one thread with this name.
fn named<'a>(report: &'a LockReport, name: &str) -> &'a ThreadLocks {
    let mut with = report.threads.iter().filter(|t| t.name == name);
    let found = with.next().unwrap_or_else(|| panic!("no thread {name} in {:?}", report.threads));
    assert!(with.next().is_none(), "two threads {name}");
    found
}

#[test]
fn what_is_recorded_agrees_with_what_is_counted() {
    let Some(recorder) = recorder() else { return };
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
    let report = recorder.stop();
    assert_eq!((report.quality.lost, report.quality.damaged_bytes), (0, 0));
    let stats = named(&report, "Agreement-7").stats;
    assert!(counts.write >= 600 && counts.downgraded == 200, "{counts:?}");
    // The thread's own beginning and end, and opening the counter, take locks that are not counted.
    assert!(stats.write.wait.count >= counts.write, "{stats:?}, {counts:?}");
    assert!(stats.write.wait.count < counts.write + 50, "{stats:?}, {counts:?}");
    assert!((200..220).contains(&stats.downgraded), "{stats:?}");
    assert_eq!(stats.write.hold.count, stats.write.wait.count);
    let role = report.by_role().into_iter().find(|(r, _)| r == "Agreement").unwrap();
    assert_eq!(role.1, stats);
}

#[test]
fn a_long_hold_is_kept_with_who_held_the_lock_and_who_waited_for_it() {
    let Some(recorder) = recorder() else { return };
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
    let report = recorder.stop();
    let (unmapper, waiter) = (named(&report, "Unmapper"), named(&report, "Waiter"));
    // Giving back that many pages holds the lock, after the downgrade for reading, for long.
    let long = |tid, write| report.long.iter().filter(move |s| s.tid == tid && s.write == write);
    let held = long(unmapper.tid, false).max_by_key(|s| s.released - s.acquired).unwrap();
    assert!(held.released - held.acquired >= 1_000_000, "{held:?}");
    assert!(start <= held.start && held.start <= held.acquired && held.released <= end, "{held:?}");
    assert_eq!(unmapper.stats.read.hold.max, held.released - held.acquired);
    // A writer that comes meanwhile gets it only after it has been given back.
    let overlapping: Vec<_> = long(unmapper.tid, false)
        .flat_map(|held| long(waiter.tid, true).map(move |waited| (held, waited)))
        .filter(|(held, waited)| waited.start < held.released && waited.acquired > held.acquired)
        .collect();
    assert!(!overlapping.is_empty(), "nobody waited: {:?}", report.long);
    for (held, waited) in overlapping {
        assert!(waited.acquired >= held.released, "{waited:?} {held:?}");
    }
    if report.contention_known {
        assert!(waiter.stats.write.contended >= 1, "{:?}", waiter.stats);
    }
}

#[test]
fn the_kernel_says_where_its_lock_lies() {
    let Some((_, filter)) = own_contention() else {
        println!("skipped: no type information, no contention event, or no right to use them");
        return;
    };
    assert!(filter.starts_with("lock_addr == 0xffff"), "{filter}");
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
