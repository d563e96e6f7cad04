//! Counts against operations whose locks are known. Where the machine refuses the events, each test
//! says what is missing and stops.

use std::sync::mpsc;
use std::thread;

use firn_heap::sys::{Reservation, page_size};

use super::*;

fn counter() -> Option<LockCounter> {
    LockCounter::start().inspect_err(|e| println!("skipped: {e}")).ok()
}

/// One mapping made and given back: mmap twice (reserving, then mapping over it) and munmap.
fn map_and_unmap() {
    drop(Reservation::anonymous(page_size(), page_size(), "firn: test").unwrap());
}

#[test]
fn one_thread_alone_is_counted_exactly() {
    let Ok(counter) = LockCounter::this_thread().inspect_err(|e| println!("skipped: {e}")) else {
        return;
    };
    // The first time also pays for the allocator's own first pages.
    map_and_unmap();
    for _ in 0..3 {
        counter.reset().unwrap();
        counter.resume().unwrap();
        counter.pause().unwrap();
        let none = counter.counts().unwrap();
        assert_eq!((none.read, none.write, none.downgraded, none.failed), (0, 0, 0, 0));
        counter.resume().unwrap();
        let range = Reservation::anonymous(page_size(), page_size(), "firn: test").unwrap();
        counter.pause().unwrap();
        let mapped = counter.counts().unwrap();
        assert!(mapped.write >= 2 && mapped.read == 0 && mapped.downgraded == 0, "{mapped:?}");
        counter.resume().unwrap();
        drop(range);
        counter.pause().unwrap();
        let both = counter.counts().unwrap();
        // munmap takes the lock for writing and downgrades it: that is no lock taken for reading.
        assert_eq!((both.write, both.read, both.downgraded), (mapped.write + 1, 0, 1));
    }
}

#[test]
fn threads_of_before_and_after_the_start_count_and_dead_ones_are_kept() {
    const EACH: u64 = 50;
    let (go, wait) = mpsc::channel::<()>();
    let early = thread::spawn(move || {
        let _ = wait.recv();
        (0..EACH).for_each(|_| map_and_unmap());
    });
    let Some(counter) = counter() else { return };
    go.send(()).unwrap();
    early.join().unwrap();
    thread::spawn(|| {
        (0..EACH).for_each(|_| map_and_unmap());
        thread::spawn(|| (0..EACH).for_each(|_| map_and_unmap())).join().unwrap();
    })
    .join()
    .unwrap();
    let counts = counter.stop().unwrap();
    // Three threads; each mapping is three writes at least, one of them downgraded. Other tests of
    // this process may add theirs.
    assert!(counts.write >= 9 * EACH, "{counts:?}");
    assert!(counts.downgraded >= 3 * EACH, "{counts:?}");
}
