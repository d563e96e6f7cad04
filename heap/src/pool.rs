//! Free pages that are still mapped: a bitmap in which one word is a run of 64 pages.
//!
//! `UFFDIO_MOVE` pays only in runs, so free pages are kept and handed out by runs: a taker claims a
//! whole 64-bit word of the bitmap by one atomic exchange and owns up to 64 pages, most often all 64 and
//! contiguous. Nothing here waits, allocates or can suffer from ABA, so a collector thread that is
//! descheduled in the middle of giving pages back holds up nobody: that is why this is not a list
//! behind a lock.
//!
//! Invariants: a set bit means the page is mapped, belongs to nobody and is read by nobody, whatever it contains;
//! the count is a hint (it may lag behind the bitmap).

use crate::sys::map::MapError;
use crate::table::Table;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Pages in a run: the bits of a word.
pub const RUN: usize = 64;
/// Runs below the newest that are looked at before all others.
const NEAR: usize = 7;

/// Free pages taken from a [`PagePool`]: up to 64 neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Number of the page that bit 0 of the mask stands for.
    pub first: usize,
    /// Which of the 64 pages were taken.
    pub mask: u64,
}

impl Taken {
    /// The contiguous runs in it, as (page, count).
    pub fn runs(self) -> impl Iterator<Item = (usize, usize)> {
        let mut rest = self.mask;
        std::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let start = rest.trailing_zeros();
            let count = (!(rest >> start)).trailing_zeros().min(64 - start);
            let run = if count == 64 { u64::MAX } else { ((1 << count) - 1) << start };
            rest &= !run;
            Some((self.first + start as usize, count as usize))
        })
    }
}

/// The free pages of one range.
pub struct PagePool {
    free: Table<AtomicU64>,
    count: AtomicUsize,
    cursor: AtomicUsize,
    /// The run that became full last.
    newest: AtomicUsize,
}

impl PagePool {
    /// A pool for a range of `pages` pages, empty.
    pub fn new(pages: usize) -> Result<PagePool, MapError> {
        let words = pages.div_ceil(RUN);
        Ok(PagePool {
            free: Table::new(words, "firn free pages")?,
            count: AtomicUsize::new(0),
            cursor: AtomicUsize::new(0),
            newest: AtomicUsize::new(0),
        })
    }

    /// Bytes of the bitmap.
    pub fn bytes(&self) -> usize {
        self.free.bytes()
    }

    /// About how many pages are free.
    #[inline(always)]
    pub fn count(&self) -> usize {
        // Relaxed: a hint.
        self.count.load(Ordering::Relaxed)
    }

    /// Gives `pages` mapped pages from `first` on to the pool.
    pub fn put(&self, first: usize, pages: usize) {
        let mut page = first;
        let end = first + pages;
        while page < end {
            let (word, bit) = (page / RUN, page % RUN);
            let count = (RUN - bit).min(end - page);
            let mask = if count == RUN { u64::MAX } else { ((1 << count) - 1) << bit };
            self.put_mask(word, mask);
            page += count;
        }
    }

    /// Gives the pages of `mask` in run `word` to the pool.
    pub fn put_mask(&self, word: usize, mask: u64) {
        if mask == 0 {
            return;
        }
        // The count goes up first so that it never underflows. Relaxed: a hint.
        self.count.fetch_add(mask.count_ones() as usize, Ordering::Relaxed);
        // Release: pairs with the acquire in `take`: the taker sees the pages' last writes.
        let before = self.free[word].fetch_or(mask, Ordering::Release);
        debug_assert_eq!(before & mask, 0, "a page was freed twice");
        if before | mask == u64::MAX {
            // Relaxed: a hint.
            self.newest.store(word, Ordering::Relaxed);
        }
    }

    /// Takes up to 64 neighbouring free pages, at most `most`, preferring full runs; `None` if there
    /// are none.
    pub fn take(&self, most: usize) -> Option<Taken> {
        if self.count() == 0 {
            return None;
        }
        let words = self.free.len();
        // Relaxed: where to look first is a hint.
        let start = self.cursor.load(Ordering::Relaxed);
        for step in 0..words {
            let word = (start + step) % words;
            if self.free[word].load(Ordering::Relaxed) == 0 {
                continue;
            }
            // Acquire: pairs with the release in `put_mask`.
            let mut mask = self.free[word].swap(0, Ordering::Acquire);
            if mask == 0 {
                continue;
            }
            let mut spare = 0;
            while (mask ^ spare).count_ones() as usize > most {
                spare |= 1 << (63 - (mask ^ spare).leading_zeros());
            }
            mask ^= spare;
            if spare != 0 {
                // Release: keeps what `put_mask` published for the next taker.
                self.free[word].fetch_or(spare, Ordering::Release);
            }
            self.count.fetch_sub(mask.count_ones() as usize, Ordering::Relaxed);
            self.cursor.store(word, Ordering::Relaxed);
            return Some(Taken { first: word * RUN, mask });
        }
        None
    }

    /// Takes a run of 64 free pages that are all there, if some word has one.
    pub fn take_full_run(&self) -> Option<Taken> {
        if self.count() < RUN {
            return None;
        }
        let words = self.free.len();
        // Relaxed: where to look first is a hint.
        let start = self.cursor.load(Ordering::Relaxed);
        (0..words).find_map(|step| self.take_if_full((start + step) % words))
    }

    /// As [`PagePool::take_full_run`], but preferring the run that became full last, or one just below: of all
    /// free pages those are the ones that are most likely to be in a cache still.
    pub fn take_newest_run(&self) -> Option<Taken> {
        if self.count() < RUN {
            return None;
        }
        // Relaxed: a hint.
        let newest = self.newest.load(Ordering::Relaxed);
        let mut near = (newest.saturating_sub(NEAR)..=newest).rev();
        near.find_map(|word| self.take_if_full(word)).or_else(|| self.take_full_run())
    }

    fn take_if_full(&self, word: usize) -> Option<Taken> {
        let free = &self.free[word];
        if free.load(Ordering::Relaxed) != u64::MAX {
            return None;
        }
        // Acquire: pairs with the release in `put_mask`.
        free.compare_exchange(u64::MAX, 0, Ordering::Acquire, Ordering::Relaxed).ok()?;
        self.count.fetch_sub(RUN, Ordering::Relaxed);
        Some(Taken { first: word * RUN, mask: u64::MAX })
    }

    /// Takes up to `most` neighbouring runs of 64 free pages that are all there; returns the page numbers.
    pub fn take_neighbours(&self, most: usize) -> Option<Range<usize>> {
        if most == 0 {
            return None;
        }
        let first = self.take_full_run()?.first;
        let mut end = first + RUN;
        while end < first + most * RUN && end / RUN < self.free.len() {
            if self.take_if_full(end / RUN).is_none() {
                break;
            }
            end += RUN;
        }
        self.cursor.store(end / RUN % self.free.len(), Ordering::Relaxed);
        Some(first..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn runs_split_at_gaps() {
        let taken = Taken { first: 64, mask: 0b1111_0110 };
        let runs: Vec<_> = taken.runs().collect();
        assert_eq!(runs, [(65, 2), (68, 4)]);
        let full = Taken { first: 0, mask: u64::MAX };
        assert_eq!(full.runs().collect::<Vec<_>>(), [(0, 64)]);
    }

    #[test]
    fn every_page_comes_out_exactly_once() {
        let pool = PagePool::new(1000).unwrap();
        pool.put(3, 900);
        pool.put(950, 20);
        assert_eq!(pool.count(), 920);
        let mut seen = BTreeSet::new();
        while let Some(taken) = pool.take(10) {
            assert!(taken.mask.count_ones() <= 10);
            for (page, count) in taken.runs() {
                for page in page..page + count {
                    assert!(seen.insert(page), "page {page} twice");
                }
            }
        }
        assert_eq!(seen.len(), 920);
        assert_eq!(pool.count(), 0);
    }

    #[test]
    fn the_run_that_became_full_last_comes_out_before_older_ones() {
        let pool = PagePool::new(64 * 40).unwrap();
        pool.put(64 * 20, 64 * 4);
        pool.put(64 * 2, 64);
        pool.put(64 * 30, 63);
        let first = |taken: Option<Taken>| taken.map(|taken| taken.first / RUN);
        assert_eq!(first(pool.take_newest_run()), Some(2));
        pool.put(64 * 30 + 63, 1);
        pool.put(64 * 33, 64 * 2 + 5);
        // The two newest, then whatever there is; never one that is not full.
        for expected in [34, 33, 30] {
            assert_eq!(first(pool.take_newest_run()), Some(expected));
        }
        let mut rest: Vec<_> = std::iter::from_fn(|| first(pool.take_newest_run())).collect();
        rest.sort_unstable();
        assert_eq!(rest, [20, 21, 22, 23]);
        assert_eq!(pool.count(), 5);
    }

    #[test]
    fn neighbouring_runs_come_out_together_up_to_a_gap() {
        let pool = PagePool::new(64 * 10).unwrap();
        pool.put(64, 64 * 5);
        pool.put(64 * 7, 63);
        assert_eq!(pool.take_neighbours(2), Some(64..192));
        assert_eq!(pool.take_neighbours(8), Some(192..384));
        assert_eq!(pool.take_neighbours(8), None, "a run that is not full stays");
        assert_eq!(pool.count(), 63);
    }

    #[test]
    fn threads_that_take_and_put_never_share_a_page() {
        let pool = PagePool::new(64 * 8).unwrap();
        let owners = Table::<AtomicU64>::new(64 * 8, "owners").unwrap();
        pool.put(0, 64 * 8);
        std::thread::scope(|scope| {
            for thread in 1..=4u64 {
                let (pool, owners) = (&pool, &owners);
                scope.spawn(move || {
                    for turn in 0..20_000 {
                        let taken = match turn % 3 {
                            0 => pool.take_full_run(),
                            1 => pool.take_newest_run(),
                            _ => pool.take(7),
                        };
                        let Some(taken) = taken else { continue };
                        for (page, count) in taken.runs() {
                            for page in page..page + count {
                                assert_eq!(owners[page].swap(thread, Ordering::SeqCst), 0);
                            }
                            for page in page..page + count {
                                assert_eq!(owners[page].swap(0, Ordering::SeqCst), thread);
                            }
                            pool.put(page, count);
                        }
                    }
                });
            }
        });
        assert_eq!(pool.count(), 64 * 8);
    }
}
