//! Streams of records with known waits, holds and sleeps.

use super::super::formats::NO_TID;
use super::*;

const MM: u64 = 77;
const ARGUMENTS: Arguments = Arguments { first: 0x7000, second: 4096 };

fn analysis() -> Analysis {
    let mut a = Analysis::new(Limits::default(), Arc::default(), MM, true);
    for (tid, name) in [(1, "VmaWriter-0"), (2, "Mutator-0"), (3, "HeapTaskDaemon")] {
        a.named(tid, name, true);
        a.identify(tid, tid as i32 + 100);
    }
    a
}

fn lock(a: &mut Analysis, time: u64, tid: u32, what: What) {
    a.seen(time, tid, Seen::Lock(LockEvent { time, tid, mm: MM, what }, Within::Unknown), None);
}

fn taken(a: &mut Analysis, tid: u32, write: bool, times: [u64; 3]) {
    lock(a, times[0], tid, What::Start { write });
    lock(a, times[1], tid, What::Acquired { write, success: true });
    lock(a, times[2], tid, What::Released { write });
}

#[test]
fn a_long_wait_knows_who_held_the_lock_and_what_for() {
    let mut a = analysis();
    a.seen(5, 1, Seen::Enter("munmap", ARGUMENTS), None);
    taken(&mut a, 1, true, [10, 20, 400_000]);
    taken(&mut a, 1, true, [400_100, 400_200, 900_000]);
    a.seen(900_001, 1, Seen::Exit, None);
    taken(&mut a, 2, false, [100_000, 900_500, 900_600]);
    let wait = a.kept.last().unwrap();
    assert_eq!((wait.span.tid, wait.operation), (2, PAGE_FAULT));
    let holders = &a.holders[wait.holders.0 as usize..][..wait.holders.1 as usize];
    assert_eq!(holders.len(), 1);
    let h = holders[0];
    assert_eq!((h.tid, h.write, h.operation, h.times), (1, true, "munmap", 2));
    assert_eq!(h.held, 300_000 + 499_800);
}

#[test]
fn sleep_and_the_way_to_the_processor_are_told_apart() {
    let mut a = analysis();
    // The writer sleeps in the lock's slow path, is woken, and waits for a processor.
    lock(&mut a, 1_000, 1, What::Start { write: true });
    a.seen(2_000, 1, Seen::Switch { state: 2, next: 102 }, Some(Place::Semaphore));
    a.seen(50_000, 2, Seen::Wake(101), None);
    a.seen(70_000, 2, Seen::Switch { state: 0, next: 101 }, None);
    lock(&mut a, 71_000, 1, What::Acquired { write: true, success: true });
    // It is preempted while it holds the lock.
    a.seen(80_000, 1, Seen::Switch { state: 256, next: 102 }, None);
    a.seen(180_000, 2, Seen::Switch { state: 1, next: 101 }, Some(Place::Userfault));
    lock(&mut a, 181_000, 1, What::Released { write: true });
    a.close(200_000);
    let (writer, mutator) = (&a.threads[&1].blocked, &a.threads[&2].blocked);
    assert_eq!((writer.uninterruptible, writer.in_mmap_lock), (48_000, 48_000));
    assert_eq!((writer.run_queue, writer.run_queue_max), (120_000, 100_000));
    assert_eq!((writer.off_holding, writer.preempted), (100_000, 1));
    assert_eq!((mutator.in_userfault, mutator.interruptible), (20_000, 0));
    assert_eq!(a.kept.last().unwrap().off, 100_000);
}

#[test]
fn a_way_back_that_was_not_reported_is_inferred_from_what_the_thread_does_next() {
    let mut a = analysis();
    // In the lock: woken by the holder, back by an idle processor's switch, which is missing.
    lock(&mut a, 1_000, 1, What::Start { write: false });
    a.seen(2_000, 1, Seen::Switch { state: 2, next: 0 }, Some(Place::Semaphore));
    a.seen(50_000, 2, Seen::Wake(101), None);
    lock(&mut a, 53_000, 1, What::Acquired { write: false, success: true });
    lock(&mut a, 54_000, 1, What::Released { write: false });
    // Without the wake-up too.
    lock(&mut a, 61_000, 1, What::Start { write: false });
    a.seen(62_000, 1, Seen::Switch { state: 2, next: 0 }, Some(Place::Semaphore));
    lock(&mut a, 72_000, 1, What::Acquired { write: false, success: true });
    lock(&mut a, 73_000, 1, What::Released { write: false });
    let b = a.threads[&1].blocked;
    assert_eq!((b.in_mmap_lock, b.run_queue), (48_000 + 10_000, 3_000));
    // Other sleep: until the wake-up, or not at all.
    a.seen(80_000, 1, Seen::Switch { state: 1, next: 0 }, None);
    a.seen(90_000, 2, Seen::Wake(101), None);
    a.seen(99_000, 1, Seen::Switch { state: 1, next: 0 }, None);
    a.seen(200_000, 1, Seen::Enter("munmap", ARGUMENTS), None);
    a.close(300_000);
    let b = a.threads[&1].blocked;
    assert_eq!((b.interruptible, b.run_queue, b.off_holding), (10_000, 3_000, 0));
    assert_eq!(a.missed_switches, 4);
}

#[test]
fn a_thread_that_ends_leaves_its_processor_for_ever() {
    let mut a = analysis();
    a.seen(1_000, 2, Seen::Switch { state: 1, next: 101 }, None);
    // On its way out it is preempted once, when it has no id any more already; then it is gone.
    let gone = |state: u64, next: i32| Seen::Gone { global: 101, state, next };
    a.seen(5_000, NO_TID, gone(256, 102), None);
    a.seen(7_000, 2, Seen::Switch { state: 0, next: 101 }, None);
    a.seen(8_000, NO_TID, gone(0x10, 0), None);
    // Another process's thread gets its id.
    a.seen(20_000, 50, Seen::Switch { state: 1, next: 101 }, None);
    // And so ends one of which nothing was seen.
    a.seen(21_000, NO_TID, Seen::Gone { global: 199, state: 0x10, next: 103 }, None);
    a.close(30_000);
    let ended = &a.threads[&1].blocked;
    assert_eq!((ended.running, ended.run_queue, ended.preempted), (5_000, 2_000, 1));
    assert_eq!((ended.interruptible, ended.uninterruptible), (0, 0));
    assert_eq!(a.threads[&3].blocked.running, 9_000);
    assert!(!a.knows(NO_TID));
}

#[test]
fn a_call_without_an_end_is_told_from_what_comes_after_it() {
    let entered = Some(("munmap", ARGUMENTS));
    assert_eq!(operation(entered, Within::Call(ARGUMENTS)), "munmap");
    assert_eq!(operation(entered, Within::UserCode), PAGE_FAULT);
    // A call that is not followed: an `ioctl` of known request, or a fault while the kernel copies for another.
    let ioctl = Arguments { first: 3, second: 0x8010_aa01 };
    assert_eq!(operation(entered, Within::Call(ioctl)), "UFFDIO_UNREGISTER");
    let write = Arguments { first: 1, second: 0x8000 };
    assert_eq!(operation(entered, Within::Call(write)), PAGE_FAULT);
    // Without registers, the call lasts until its end is seen.
    assert_eq!(operation(entered, Within::Unknown), "munmap");
    assert_eq!(operation(None, Within::Unknown), PAGE_FAULT);
}

#[test]
fn only_the_window_counts() {
    let mut a = analysis();
    a.window.begin(100);
    taken(&mut a, 1, true, [10, 20, 30]);
    taken(&mut a, 1, true, [110, 120, 130]);
    a.window.end(200);
    taken(&mut a, 1, true, [210, 220, 230]);
    assert_eq!(a.threads[&1].usage[&(true, PAGE_FAULT)].wait.decades.count, 1);
}

#[test]
fn a_downgrade_is_no_acquisition_for_reading() {
    let mut a = analysis();
    lock(&mut a, 0, 1, What::Start { write: true });
    lock(&mut a, 5, 1, What::Acquired { write: true, success: true });
    lock(&mut a, 50, 1, What::Acquired { write: false, success: true });
    lock(&mut a, 900, 1, What::Released { write: false });
    let usage = &a.threads[&1].usage;
    let (w, r) = (&usage[&(true, PAGE_FAULT)], &usage[&(false, PAGE_FAULT)]);
    assert_eq!((w.wait.decades.count, w.downgraded, r.wait.decades.count), (1, 1, 0));
    assert_eq!(r.hold.decades.total, 850);
}
