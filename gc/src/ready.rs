//! Chunks made ready ahead of allocation: addresses of the current range whose pages are there already.
//!
//! The collector's coordinating thread moves free pages to where allocation is going, many at a time, so
//! that a mutator that needs a chunk takes one from here without a system call. Each call that moves pages
//! interrupts the other processors once to flush their address translations; by runs of 512 pages instead
//! of 64 that cost shrinks accordingly. What is not ready in time, mutators populate themselves: nobody
//! waits for the other.
//!
//! A queue with one producer (the coordinating thread) and any number of consumers. Invariants:
//! `head <= tail`, both only grow; places `head..tail` hold chunks that belong to nobody, all of the same
//! number of pages.
//!
//! **Marking.** Objects allocated after marking began are recognised by their address: at or above the late
//! page. Chunks come out in the order of their addresses; so if the ready chunks are the last addresses handed
//! out, without a gap, the first of them can be the late page ([`ReadyChunks::lowest`]), and they stay ready.
//! If a mutator has populated pages beyond them meanwhile, they are taken back instead.
//!
//! **Flip.** Ready chunks are part of the from-range then. The pause takes all of them out of the queue in one
//! step; the coordinating thread hands their pages back afterwards.

use firn_heap::sys::map::MapError;
use firn_heap::table::Table;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The queue of ready chunks.
pub struct ReadyChunks {
    firsts: Table<AtomicU64>,
    head: AtomicU64,
    tail: AtomicU64,
    /// Place from which on chunks are neighbours. Written by the producer; read in pauses.
    neighbours_from: AtomicU64,
    /// First page behind the last chunk.
    end: AtomicUsize,
    pages: usize,
}

impl ReadyChunks {
    /// For chunks of `pages` pages in a range of `range_pages`.
    pub fn new(range_pages: usize, pages: usize) -> Result<ReadyChunks, MapError> {
        Ok(ReadyChunks {
            firsts: Table::new(range_pages / pages + 1, "firn ready chunks")?,
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            neighbours_from: AtomicU64::new(0),
            end: AtomicUsize::new(0),
            pages,
        })
    }

    /// Pages in all ready chunks. A hint while others take.
    #[inline(always)]
    pub fn count(&self) -> usize {
        // Relaxed: a hint. Saturating: the head may be read later than the tail.
        let tail = self.tail.load(Ordering::Relaxed);
        tail.saturating_sub(self.head.load(Ordering::Relaxed)) as usize * self.pages
    }

    fn place(&self, number: u64) -> &AtomicU64 {
        &self.firsts[number as usize % self.firsts.len()]
    }

    /// Adds the chunk of populated pages that begins with page `first`. Only the coordinating thread may.
    pub fn put(&self, first: usize) {
        // Relaxed, all but the last: only this thread writes them; pauses order them before their readers.
        let tail = self.tail.load(Ordering::Relaxed);
        if first != self.end.load(Ordering::Relaxed) {
            self.neighbours_from.store(tail, Ordering::Relaxed);
        }
        self.end.store(first + self.pages, Ordering::Relaxed);
        // The place is free: fewer chunks than places fit into the range, and a taker that still reads a
        // place of the last round would hold up the flip in between.
        self.place(tail).store(first as u64, Ordering::Relaxed);
        // Release: pairs with the acquire in `take`: the taker sees the place and the pages.
        self.tail.store(tail + 1, Ordering::Release);
    }

    /// Takes a chunk's first page. Never waits; the caller must not reach a safepoint before it has made
    /// the chunk its own.
    pub fn take(&self) -> Option<usize> {
        // Relaxed: the exchange below decides.
        let mut head = self.head.load(Ordering::Relaxed);
        // Acquire: pairs with the release in `put`. The tail only grows, so an old one is only careful.
        while head < self.tail.load(Ordering::Acquire) {
            let taken = self.head.compare_exchange_weak(
                head,
                head + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match taken {
                Ok(_) => return Some(self.place(head).load(Ordering::Relaxed) as usize),
                Err(now) => head = now,
            }
        }
        None
    }

    /// The first page of the ready chunks if they are the last pages handed out, below `top`, without a gap.
    /// Only with the world stopped.
    pub fn lowest(&self, top: usize) -> Option<usize> {
        // Relaxed, all: the world is stopped, and the producer waits for the pause to end.
        let head = self.head.load(Ordering::Relaxed);
        let last = head < self.tail.load(Ordering::Relaxed)
            && head >= self.neighbours_from.load(Ordering::Relaxed)
            && self.end.load(Ordering::Relaxed) == top;
        last.then(|| self.place(head).load(Ordering::Relaxed) as usize)
    }

    /// Takes all chunks out in one step; [`ReadyChunks::withdrawn`] names them. Only with the world stopped.
    pub fn withdraw(&self) -> Range<u64> {
        // Relaxed, both: as in `lowest`.
        let tail = self.tail.load(Ordering::Relaxed);
        self.head.swap(tail, Ordering::Relaxed)..tail
    }

    /// First pages of the chunks that [`ReadyChunks::withdraw`] took out. Only for the coordinating thread,
    /// before it adds others.
    pub fn withdrawn(&self, numbers: Range<u64>) -> impl Iterator<Item = usize> {
        numbers.map(|number| self.place(number).load(Ordering::Relaxed) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_out_in_order_and_once() {
        let ready = ReadyChunks::new(40, 4).unwrap();
        for round in 0..5 {
            for number in 0..10 {
                ready.put(round * 100 + number * 4);
            }
            assert_eq!(ready.count(), 40);
            for number in 0..10 {
                assert_eq!(ready.take(), Some(round * 100 + number * 4));
            }
            assert!(ready.take().is_none() && ready.count() == 0);
        }
    }

    #[test]
    fn only_the_last_pages_without_a_gap_can_be_late() {
        let ready = ReadyChunks::new(400, 4).unwrap();
        assert_eq!(ready.lowest(0), None);
        ready.put(10);
        ready.put(14);
        assert_eq!(ready.lowest(18), Some(10));
        assert_eq!(ready.lowest(20), None, "others were handed pages beyond");
        ready.put(30);
        assert_eq!(ready.lowest(34), None, "a gap before the last chunk");
        assert_eq!((ready.take(), ready.take()), (Some(10), Some(14)));
        assert_eq!(ready.lowest(34), Some(30));
        let numbers = ready.withdraw();
        assert_eq!(ready.take(), None);
        assert_eq!(ready.withdrawn(numbers).collect::<Vec<_>>(), [30]);
        ready.put(0);
        assert_eq!((ready.lowest(4), ready.take()), (Some(0), Some(0)));
    }

    #[test]
    fn takers_beside_the_producer_get_every_chunk_once() {
        const CHUNKS: usize = 40_000;
        let ready = ReadyChunks::new(CHUNKS * 4, 4).unwrap();
        let (taken, sum) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while taken.load(Ordering::Relaxed) < CHUNKS {
                        if let Some(first) = ready.take() {
                            sum.fetch_add(first / 4, Ordering::Relaxed);
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            for number in 0..CHUNKS {
                ready.put(number * 4);
            }
        });
        assert_eq!(sum.into_inner(), CHUNKS * (CHUNKS - 1) / 2);
    }
}
