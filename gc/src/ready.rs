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
//! **Flip.** Ready chunks are part of the from-range then. The pause withdraws all of them in one step, which
//! makes them a second queue: the coordinating thread, or a mutator that finds no memory before it comes to
//! that, takes them out and hands their pages back ([`ReadyChunks::take_withdrawn`]).

use firn_heap::sys::map::MapError;
use firn_heap::table::Table;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// The queue of ready chunks.
pub struct ReadyChunks {
    firsts: Table<AtomicU64>,
    head: AtomicU64,
    tail: AtomicU64,
    /// Place from which on chunks are neighbours. Written by the producer; read in pauses.
    neighbours_from: AtomicU64,
    /// Places `returned..withdrawn_to` hold withdrawn chunks.
    returned: AtomicU64,
    withdrawn_to: AtomicU64,
    /// Whether those are in the from-range of a flip.
    flipped: AtomicBool,
    /// First page behind the last chunk.
    end: AtomicUsize,
    pages: usize,
}

impl ReadyChunks {
    /// For chunks of `pages` pages in a range of `range_pages`.
    pub fn new(range_pages: usize, pages: usize) -> Result<ReadyChunks, MapError> {
        Ok(ReadyChunks {
            // Twice: withdrawn chunks of one range, and new ones of the other.
            firsts: Table::new(2 * (range_pages / pages + 1), "firn ready chunks")?,
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            neighbours_from: AtomicU64::new(0),
            returned: AtomicU64::new(0),
            withdrawn_to: AtomicU64::new(0),
            flipped: AtomicBool::new(false),
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

    /// Pages in all chunks that belong to nobody, withdrawn ones included. A hint while others take.
    #[inline(always)]
    pub fn unused(&self) -> usize {
        // Relaxed: a hint; as in `count`.
        let to = self.withdrawn_to.load(Ordering::Relaxed);
        let withdrawn = to.saturating_sub(self.returned.load(Ordering::Relaxed));
        self.count() + withdrawn as usize * self.pages
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
        self.take_from(&self.head, &self.tail)
    }

    /// Takes a withdrawn chunk's first page, and whether it is in the from-range of a flip. As
    /// [`ReadyChunks::take`].
    pub fn take_withdrawn(&self) -> Option<(usize, bool)> {
        let first = self.take_from(&self.returned, &self.withdrawn_to)?;
        // Relaxed: changes only in pauses.
        Some((first, self.flipped.load(Ordering::Relaxed)))
    }

    fn take_from(&self, next: &AtomicU64, end: &AtomicU64) -> Option<usize> {
        // Relaxed: the exchange below decides.
        let mut number = next.load(Ordering::Relaxed);
        // Acquire: pairs with the release in `put`. The end only grows, so an old one is only careful.
        while number < end.load(Ordering::Acquire) {
            let taken = next.compare_exchange_weak(
                number,
                number + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match taken {
                Ok(_) => return Some(self.place(number).load(Ordering::Relaxed) as usize),
                Err(now) => number = now,
            }
        }
        None
    }

    /// The first page of the ready chunks if they are the last pages handed out, below `top`, without a gap.
    /// Only with the world stopped, or for a rehearsal, which has no use for the answer.
    pub fn lowest(&self, top: usize) -> Option<usize> {
        // Relaxed, all: the world is stopped (or the answer is of no use), and the producer waits for the pause to end.
        let head = self.head.load(Ordering::Relaxed);
        let last = head < self.tail.load(Ordering::Relaxed)
            && head >= self.neighbours_from.load(Ordering::Relaxed)
            && self.end.load(Ordering::Relaxed) == top;
        last.then(|| self.place(head).load(Ordering::Relaxed) as usize)
    }

    /// Withdraws all chunks; `flipped` if they are in the from-range of a flip from now on. Only with the world
    /// stopped, when everything withdrawn before has been returned.
    pub fn withdraw(&self, flipped: bool) {
        // Relaxed, all: as in `lowest`; the release from the pause publishes them.
        debug_assert!(
            self.returned.load(Ordering::Relaxed) == self.withdrawn_to.load(Ordering::Relaxed)
        );
        let tail = self.tail.load(Ordering::Relaxed);
        self.flipped.store(flipped, Ordering::Relaxed);
        self.returned.store(self.head.swap(tail, Ordering::Relaxed), Ordering::Relaxed);
        self.withdrawn_to.store(tail, Ordering::Relaxed);
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
        ready.withdraw(true);
        assert_eq!((ready.take(), ready.count(), ready.unused()), (None, 0, 4));
        assert_eq!((ready.take_withdrawn(), ready.take_withdrawn()), (Some((30, true)), None));
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
