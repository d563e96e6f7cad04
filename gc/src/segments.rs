//! Segments: the currency in which marking work changes hands.
//!
//! A segment is an array of up to 511 addresses in reserved memory. Full segments travel between
//! mutators (overwritten references) and markers (surplus work) through two lock-free stacks, of full and
//! of free ones. Nothing is ever allocated from the system: growing a heap or an arena in the middle of a
//! cycle would take `mmap_lock` for writing.
//!
//! The stacks are Treiber's, with a counter beside the head index against ABA.

use firn_heap::sys::map::{MapError, Reservation};
use firn_heap::table::Table;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Addresses in a segment.
pub const CAPACITY: usize = 511;
const WORDS: usize = CAPACITY + 1;

/// A segment's number; whoever holds it owns the segment.
#[derive(Debug, PartialEq, Eq)]
pub struct Segment(u32);

struct Stack {
    head: AtomicU64,
}

/// All segments of a heap.
pub struct Segments {
    memory: Reservation,
    next: Table<AtomicU32>,
    full: Stack,
    free: Stack,
    fresh: AtomicUsize,
    count: usize,
}

impl Segments {
    /// Room for `addresses` addresses at the same time.
    pub fn new(addresses: usize) -> Result<Segments, MapError> {
        let page = firn_heap::sys::page_size();
        let count = addresses.div_ceil(CAPACITY) + 256;
        let bytes = (count * WORDS * 8).next_multiple_of(page);
        Ok(Segments {
            memory: Reservation::anonymous(bytes, page, "firn marking")?,
            next: Table::new(count, "firn marking links")?,
            full: Stack { head: AtomicU64::new(0) },
            free: Stack { head: AtomicU64::new(0) },
            fresh: AtomicUsize::new(0),
            count,
        })
    }

    /// An empty segment.
    ///
    /// # Panics
    /// If all are in use, which the sizing rules out: each slot of the heap is queued at most once.
    pub fn acquire(&self) -> Segment {
        if let Some(segment) = self.pop(&self.free) {
            return segment;
        }
        // Relaxed: only uniqueness matters.
        let index = self.fresh.fetch_add(1, Ordering::Relaxed);
        assert!(index < self.count, "marking ran out of segments");
        Segment(index as u32)
    }

    /// Gives an empty segment back.
    pub fn release(&self, segment: Segment) {
        self.push(&self.free, segment);
    }

    /// Queues the first `len` addresses of a segment; `claimed` if their first mark bits are set already.
    pub fn submit(&self, segment: Segment, len: usize, claimed: bool) {
        let word = (len as u64) << 1 | claimed as u64;
        // SAFETY: the holder owns the segment, and it has `WORDS` words.
        unsafe { self.words(&segment).add(CAPACITY).write(word) };
        self.push(&self.full, segment);
    }

    /// Takes a queued segment, the number of addresses in it, and whether they are claimed.
    pub fn take(&self) -> Option<(Segment, usize, bool)> {
        let segment = self.pop(&self.full)?;
        // SAFETY: as in `submit`.
        let word = unsafe { self.words(&segment).add(CAPACITY).read() };
        Some((segment, (word >> 1) as usize, word & 1 != 0))
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        // SeqCst: read by the marking's end, after a handshake; see `mark`.
        self.full.head.load(Ordering::SeqCst) as u32 == 0
    }

    /// A segment's first word.
    #[inline(always)]
    pub fn words(&self, segment: &Segment) -> *mut u64 {
        (self.memory.base() as *mut u64).wrapping_add(segment.0 as usize * WORDS)
    }

    fn push(&self, stack: &Stack, segment: Segment) {
        let index = segment.0;
        // Relaxed: the exchange below publishes.
        let mut head = stack.head.load(Ordering::Relaxed);
        loop {
            self.next[index as usize].store(head as u32, Ordering::Relaxed);
            let new = (head >> 32).wrapping_add(1) << 32 | (index as u64 + 1);
            // AcqRel: the release pairs with the acquire in `pop`; contents and link are visible.
            match stack.head.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    fn pop(&self, stack: &Stack) -> Option<Segment> {
        // Acquire: pairs with the release in `push`.
        let mut head = stack.head.load(Ordering::Acquire);
        loop {
            let index = (head as u32).checked_sub(1)?;
            let next = self.next[index as usize].load(Ordering::Relaxed);
            let new = (head >> 32).wrapping_add(1) << 32 | next as u64;
            match stack.head.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(Segment(index)),
                Err(now) => head = now,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_trip_through_many_threads() {
        let segments = Segments::new(100_000).unwrap();
        let sum = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (segments, sum) = (&segments, &sum);
                scope.spawn(move || {
                    for turn in 0..5_000 {
                        let segment = segments.acquire();
                        // SAFETY: this thread holds the segment.
                        unsafe { segments.words(&segment).write(thread * 5_000 + turn) };
                        segments.submit(segment, 1, false);
                        if let Some((segment, len, _)) = segments.take() {
                            assert_eq!(len, 1);
                            // SAFETY: this thread holds the segment.
                            let value = unsafe { segments.words(&segment).read() };
                            sum.fetch_add(value, Ordering::Relaxed);
                            segments.release(segment);
                        }
                    }
                });
            }
        });
        while let Some((segment, ..)) = segments.take() {
            // SAFETY: this thread holds the segment.
            sum.fetch_add(unsafe { segments.words(&segment).read() }, Ordering::Relaxed);
        }
        assert!(segments.is_empty());
        assert_eq!(sum.into_inner(), (0..20_000u64).sum());
    }
}
