//! Running totals, for whoever watches a measurement while it is under way.
//!
//! Written by the threads that measure (the sampler's reader, the hiccup probe, a mutator that finished a
//! frame), read a few times a second. All accesses are relaxed: each number stands for itself, and
//! one that is a moment older than its neighbour does no harm on a screen. No report is made from
//! these.

use std::sync::atomic::{AtomicU64, Ordering};

/// Events of one kind with a duration.
#[derive(Debug, Default)]
pub struct Running {
    count: AtomicU64,
    total: AtomicU64,
    longest: AtomicU64,
    /// The longest since somebody looked.
    recent: AtomicU64,
}

/// The same, read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many.
    pub count: u64,
    /// Their sum, nanoseconds.
    pub total: u64,
    /// The longest, nanoseconds.
    pub longest: u64,
}

impl Running {
    /// One more, of `ns` nanoseconds.
    pub fn add(&self, ns: u64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(ns, Ordering::Relaxed);
        self.longest.fetch_max(ns, Ordering::Relaxed);
        self.recent.fetch_max(ns, Ordering::Relaxed);
    }

    /// `count` more, of `total` nanoseconds together, the longest of `longest`.
    pub fn add_all(&self, Seen { count, total, longest }: Seen) {
        self.count.fetch_add(count, Ordering::Relaxed);
        self.total.fetch_add(total, Ordering::Relaxed);
        self.longest.fetch_max(longest, Ordering::Relaxed);
        self.recent.fetch_max(longest, Ordering::Relaxed);
    }

    /// What there is so far.
    pub fn seen(&self) -> Seen {
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        Seen { count: get(&self.count), total: get(&self.total), longest: get(&self.longest) }
    }

    /// The longest since the last call, nanoseconds; 0 if there was none.
    pub fn recent(&self) -> u64 {
        self.recent.swap(0, Ordering::Relaxed)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Tally {
    /// Waits for `mmap_lock` for reading.
    pub read_waits: Running,
    /// Waits for `mmap_lock` for writing.
    pub write_waits: Running,
    /// How late the hiccup probe woke up.
    pub hiccups: Running,
    /// Frames, by how late they were: 0 if in time.
    pub frames: Running,
    /// Frames that were late.
    pub late: AtomicU64,
    /// Operations, where a workload has such; a thread tells some together.
    pub operations: Running,
}

impl Tally {
    /// An acquisition of the lock.
    pub fn lock(&self, write: bool, wait_ns: u64) {
        if write { &self.write_waits } else { &self.read_waits }.add(wait_ns);
    }

    /// A frame that ended at `end` and was due at `deadline`.
    pub fn frame(&self, end: u64, deadline: u64) {
        self.frames.add(end.saturating_sub(deadline));
        if end > deadline {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_is_kept_and_the_recent_one_forgotten_when_read() {
        let running = Running::default();
        [5, 90, 7].iter().for_each(|&ns| running.add(ns));
        assert_eq!(running.seen(), Seen { count: 3, total: 102, longest: 90 });
        assert_eq!((running.recent(), running.recent()), (90, 0));
        running.add(3);
        assert_eq!((running.recent(), running.seen().longest), (3, 90));
        running.add_all(Seen { count: 2, total: 8, longest: 6 });
        assert_eq!(running.seen(), Seen { count: 6, total: 113, longest: 90 });
    }

    #[test]
    fn a_frame_is_late_after_its_deadline() {
        let tally = Tally::default();
        tally.frame(10, 20);
        tally.frame(25, 20);
        assert_eq!(tally.frames.seen(), Seen { count: 2, total: 5, longest: 5 });
        assert_eq!(tally.late.load(Ordering::Relaxed), 1);
    }
}
