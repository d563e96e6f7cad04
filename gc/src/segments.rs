//! Segments: the currency in which marking work changes hands.
//!
//! A segment is an array of up to 511 addresses in reserved memory. Segments travel between mutators
//! (roots and overwritten references) and markers (surplus work) through three lock-free stacks (`crate::stack`): of
//! full, of open (partly filled) and of free ones. Nothing is ever allocated from the system: growing a heap or an
//! arena in the middle of a cycle would take `mmap_lock` for writing.
//!
//! **They never run out**, whatever the program does and however long the markers get no processor:
//!
//! - An object is queued at most twice at a time: once *unclaimed*, as a root or an overwritten reference
//!   (`BlockTable::queue_once` decides, for all threads), and once *claimed*, by the marker that set its mark bit.
//! - Claimed addresses travel in full segments only.
//! - Who has a partly filled segment to hand over makes it open, and who needs one continues an open one. So the
//!   partly filled segments are never more than the threads that held one at the same moment, however many threads
//!   come and go.
//!
//! Hence twice the objects that the heap has room for, and a segment for each thread, are enough.

use crate::stack::Stack;
use firn_heap::sys::map::{MapError, Reservation};
use firn_heap::table::Table;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Addresses in a segment.
pub const CAPACITY: usize = 511;
const WORDS: usize = CAPACITY + 1;

/// A segment's number; whoever holds it owns the segment.
#[derive(Debug, PartialEq, Eq)]
pub struct Segment(u32);

/// All segments of a heap.
pub struct Segments {
    memory: Reservation,
    links: Table<AtomicU32>,
    full: Stack,
    open: Stack,
    free: Stack,
    fresh: AtomicUsize,
    count: usize,
}

impl Segments {
    /// Enough for a heap of `objects` objects, and `threads` threads that hold a segment at the same time.
    pub fn new(objects: usize, threads: usize) -> Result<Segments, MapError> {
        let page = firn_heap::sys::page_size();
        let count = (2 * objects).div_ceil(CAPACITY) + threads;
        let bytes = (count * WORDS * 8).next_multiple_of(page);
        Ok(Segments {
            memory: Reservation::anonymous(bytes, page, "firn marking")?,
            links: Table::new(count, "firn marking links")?,
            full: Stack::new(),
            open: Stack::new(),
            free: Stack::new(),
            fresh: AtomicUsize::new(0),
            count,
        })
    }

    /// An empty segment.
    ///
    /// # Panics
    /// If all are in use, which the head of this file rules out.
    pub fn acquire(&self) -> Segment {
        if let Some(segment) = self.free.pop(&self.links) {
            return Segment(segment);
        }
        // Relaxed: only uniqueness matters.
        let index = self.fresh.fetch_add(1, Ordering::Relaxed);
        assert!(index < self.count, "marking ran out of segments");
        Segment(index as u32)
    }

    /// Gives an empty segment back.
    pub fn release(&self, segment: Segment) {
        self.free.push(&self.links, segment.0);
    }

    /// Queues a segment full of addresses; `claimed` if their first mark bits are set already.
    pub fn submit(&self, segment: Segment, claimed: bool) {
        self.describe(&segment, CAPACITY, claimed);
        self.full.push(&self.links, segment.0);
    }

    /// Queues the first `len` addresses of a segment, which are not claimed; whoever has more adds to it.
    fn leave_open(&self, segment: Segment, len: usize) {
        self.describe(&segment, len, false);
        self.open.push(&self.links, segment.0);
    }

    /// A segment that is not full, and the number of addresses in it.
    fn acquire_open(&self) -> (Segment, usize) {
        match self.open.pop(&self.links) {
            Some(segment) => {
                let segment = Segment(segment);
                let len = self.description(&segment).0;
                (segment, len)
            }
            None => (self.acquire(), 0),
        }
    }

    /// Takes a queued segment, the number of addresses in it, and whether they are claimed.
    pub fn take(&self) -> Option<(Segment, usize, bool)> {
        let taken = self.full.pop(&self.links).or_else(|| self.open.pop(&self.links))?;
        let segment = Segment(taken);
        let (len, claimed) = self.description(&segment);
        Some((segment, len, claimed))
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.full.is_empty() && self.open.is_empty()
    }

    fn describe(&self, segment: &Segment, len: usize, claimed: bool) {
        let word = (len as u64) << 1 | claimed as u64;
        // SAFETY: the holder owns the segment, and it has `WORDS` words.
        unsafe { self.words(segment).add(CAPACITY).write(word) };
    }

    fn description(&self, segment: &Segment) -> (usize, bool) {
        // SAFETY: the holder owns the segment, which was described before it was queued.
        let word = unsafe { self.words(segment).add(CAPACITY).read() };
        ((word >> 1) as usize, word & 1 != 0)
    }

    /// A segment's first word.
    #[inline(always)]
    pub fn words(&self, segment: &Segment) -> *mut u64 {
        (self.memory.base() as *mut u64).wrapping_add(segment.0 as usize * WORDS)
    }
}

/// References on their way to the markers, not claimed: a mutator's, or a set of roots.
#[derive(Default)]
pub struct Log {
    segment: Option<Segment>,
    len: usize,
}

impl Log {
    /// Adds an address. The caller has seen to it that no other log gets the same one in this cycle.
    #[inline]
    pub fn push(&mut self, segments: &Segments, address: u64) {
        if self.segment.is_none() {
            let (segment, len) = segments.acquire_open();
            (self.segment, self.len) = (Some(segment), len);
        }
        let Some(segment) = &self.segment else { unreachable!("acquired above") };
        // SAFETY: the segment is held and has room: a full one is submitted at once.
        unsafe { segments.words(segment).add(self.len).write(address) };
        self.len += 1;
        if self.len == CAPACITY
            && let Some(full) = self.segment.take()
        {
            segments.submit(full, false);
        }
    }

    /// Queues what has been added.
    pub fn flush(&mut self, segments: &Segments) {
        if let Some(segment) = self.segment.take() {
            segments.leave_open(segment, self.len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    /// Everything in `segments`, which is empty then.
    fn drain(segments: &Segments) -> Vec<u64> {
        let mut all = Vec::new();
        while let Some((segment, len, claimed)) = segments.take() {
            assert!(!claimed && (1..=CAPACITY).contains(&len));
            // SAFETY: this thread holds the segment.
            let words = unsafe { std::slice::from_raw_parts(segments.words(&segment), len) };
            all.extend_from_slice(words);
            segments.release(segment);
        }
        assert!(segments.is_empty());
        all
    }

    #[test]
    fn logs_that_are_flushed_early_share_segments() {
        let segments = Segments::new(1, 3).unwrap();
        // Ten times as many addresses as there are segments, one at a time, nobody draining.
        for address in 1..=40 {
            let mut log = Log::default();
            log.push(&segments, address);
            log.flush(&segments);
        }
        let mut all = drain(&segments);
        all.sort_unstable();
        assert_eq!(all, (1..=40).collect::<Vec<_>>());
    }

    #[test]
    fn every_object_twice_and_a_partly_filled_segment_for_each_thread_fit() {
        const OBJECTS: u64 = 20_000;
        const THREADS: u64 = 6;
        let segments = Segments::new(OBJECTS as usize, THREADS as usize).unwrap();
        for round in 0..20u64 {
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    let segments = &segments;
                    scope.spawn(move || {
                        let mut log = Log::default();
                        for object in (thread..OBJECTS).step_by(THREADS as usize) {
                            // Once as a root or an overwritten reference, and once as a claimed object.
                            log.push(segments, object * 2);
                            log.push(segments, object * 2 + 1);
                            if (object * 31 + round) % (3 + round * round) == 0 {
                                log.flush(segments);
                            }
                        }
                        log.flush(segments);
                    });
                }
            });
            let mut all = drain(&segments);
            all.sort_unstable();
            assert_eq!(all, (0..2 * OBJECTS).collect::<Vec<_>>(), "round {round}");
        }
    }

    #[test]
    fn addresses_survive_the_trip_through_many_threads() {
        let segments = Segments::new(4, 8).unwrap();
        let sum = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (segments, sum) = (&segments, &sum);
                scope.spawn(move || {
                    for turn in 0..5_000 {
                        let mut log = Log::default();
                        log.push(segments, thread * 5_000 + turn);
                        log.flush(segments);
                        if let Some((segment, len, _)) = segments.take() {
                            // SAFETY: this thread holds the segment.
                            let words = unsafe {
                                std::slice::from_raw_parts(segments.words(&segment), len)
                            };
                            sum.fetch_add(words.iter().sum(), Ordering::Relaxed);
                            segments.release(segment);
                        }
                    }
                });
            }
        });
        sum.fetch_add(drain(&segments).iter().sum(), Ordering::Relaxed);
        assert_eq!(sum.into_inner(), (0..20_000u64).sum());
    }
}
