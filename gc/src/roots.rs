//! Global roots: references that the embedder holds outside the heap and outside any mutator.
//!
//! A root is one word in a place that never moves: buckets of doubling size, so that reading one needs no
//! lock and adding one moves none. Bit 0 of the word is the *parity*: which of the flips, even or odd, the
//! address belongs to. A flip changes the current parity and nothing else, so its length does not grow with
//! the number of roots. From then on a root whose parity is not the current one is forwarded by whoever needs
//! it first: a mutator that reads it, or the collector, which goes through all of them before it resets the
//! side tables that forwarding reads.
//!
//! Invariants: between two cycles every root has the current parity; a mutator reads and replaces roots only
//! between its safepoints, so the parity stays the same meanwhile; a place that is not in use holds address
//! 0. The lock guards which places are free, and the log. The collector takes it in a pause only, if nobody else
//! has it ([`GlobalRoots::settled`]): no mutator ever waits here for a collector thread.
//!
//! **Marking.** Replacing or removing a root logs what it held, as a store into the heap does. A root may be
//! dropped by a thread that is no mutator and that no pause stops: it clears the place first and then looks
//! whether marking is on, while marking is switched on first and the place read later, all sequentially
//! consistent. So either it logs, or nobody can have read the root since marking began. It does so under the
//! lock; and marking does not end while the lock is taken. A flip that comes between its two steps shows by the
//! parity: the marking it sees is the next cycle's then, which began after the place was cleared, and the address is
//! one of before the flip, where another object may be now (with the `art` back end ranges do not change).

use crate::segments::Log;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

/// Places in the first bucket.
const FIRST: usize = 64;
/// Buckets; the last ends at 2⁴⁰ roots.
const BUCKETS: usize = 34;
/// The bit that tells even flips from odd ones.
const PARITY: u64 = 1;

/// All global roots of a heap.
pub struct GlobalRoots {
    buckets: [OnceLock<Box<[AtomicU64]>>; BUCKETS],
    /// Places that have ever been in use.
    used: AtomicUsize,
    parity: AtomicU64,
    ledger: Mutex<Ledger>,
}

/// What the lock guards.
#[derive(Default)]
struct Ledger {
    /// Places that are not in use.
    free: Vec<usize>,
    /// What roots held that were replaced or removed during marking.
    log: Log,
}

impl Default for GlobalRoots {
    fn default() -> GlobalRoots {
        GlobalRoots {
            buckets: [const { OnceLock::new() }; BUCKETS],
            used: AtomicUsize::new(0),
            parity: AtomicU64::new(0),
            ledger: Mutex::default(),
        }
    }
}

/// Bucket of the place `index`, and where in it.
fn split(index: usize) -> (usize, usize) {
    let bucket = ((index + FIRST) / FIRST).ilog2() as usize;
    (bucket, index + FIRST - (FIRST << bucket))
}

impl GlobalRoots {
    fn place(&self, index: usize) -> &AtomicU64 {
        let (bucket, offset) = split(index);
        let bucket = self.buckets[bucket].get().expect("a root has a place");
        &bucket[offset]
    }

    fn parity(&self) -> u64 {
        // Relaxed: changes only with the world stopped.
        self.parity.load(Ordering::Relaxed)
    }

    /// Adds a root; returns its place. Only for a running mutator.
    pub fn add(&self, address: u64) -> usize {
        let mut ledger = self.ledger.lock().unwrap();
        let index = ledger.free.pop().unwrap_or_else(|| {
            // Relaxed, both: written under the lock; `each` reads it with the order of the buckets.
            let index = self.used.load(Ordering::Relaxed);
            let bucket = split(index).0;
            self.buckets[bucket]
                .get_or_init(|| (0..FIRST << bucket).map(|_| AtomicU64::new(0)).collect());
            // Release: pairs with the acquire in `places`: who sees the number sees the bucket.
            self.used.store(index + 1, Ordering::Release);
            index
        });
        // SeqCst: as all stores to places.
        self.place(index).store(address | self.parity(), Ordering::SeqCst);
        index
    }

    /// The root's address. Only for a running mutator; `forward` gives the address after the last flip.
    #[inline]
    pub fn get(&self, index: usize, forward: impl Fn(u64) -> u64) -> u64 {
        let place = self.place(index);
        loop {
            // SeqCst: see the essay on marking.
            let word = place.load(Ordering::SeqCst);
            if word & PARITY == self.parity() {
                return word & !PARITY;
            }
            self.renew(place, word, &forward);
        }
    }

    /// Forwards the root if it still holds `word`, which is of the other parity.
    fn renew(&self, place: &AtomicU64, word: u64, forward: impl Fn(u64) -> u64) {
        // If another thread has forwarded it meanwhile, the tables may be reset and the result be nonsense;
        // but then the place holds something else, and cannot hold `word` again before the next flip.
        let new = forward(word & !PARITY) | self.parity();
        let _ = place.compare_exchange(word, new, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Replaces the root's address; returns the old one, not forwarded. Only for a running mutator.
    pub fn set(&self, index: usize, address: u64) -> u64 {
        // SeqCst: as all stores to places.
        self.place(index).swap(address | self.parity(), Ordering::SeqCst) & !PARITY
    }

    /// Forgets a root. If `marking` then says that marking is on, calls `keep` with the address it held, before
    /// anybody can think that no removal is under way. Any thread may.
    pub fn remove(
        &self,
        index: usize,
        marking: impl FnOnce() -> bool,
        keep: impl FnOnce(&mut Log, u64),
    ) {
        let mut ledger = self.ledger.lock().unwrap();
        // SeqCst: see the essay on marking.
        let word = self.place(index).swap(0, Ordering::SeqCst);
        if marking() && word & PARITY == self.parity() {
            keep(&mut ledger.log, word & !PARITY);
        }
        ledger.free.push(index);
    }

    /// Calls `write` with the log.
    pub fn log(&self, write: impl FnOnce(&mut Log)) {
        write(&mut self.ledger.lock().unwrap().log);
    }

    /// Calls `settle` with the log if no root is being added or removed just now; otherwise does nothing, and
    /// returns false.
    pub fn settled(&self, settle: impl FnOnce(&mut Log)) -> bool {
        match self.ledger.try_lock() {
            Ok(mut ledger) => {
                settle(&mut ledger.log);
                true
            }
            Err(_) => false,
        }
    }

    /// Looks at what a flip changes, so that it is in this processor's caches.
    #[inline(always)]
    pub fn rehearse_flip(&self) {
        std::hint::black_box(self.parity());
    }

    /// From now on addresses are those after one more flip. Only with the world stopped.
    pub fn flip(&self) {
        // Relaxed: the pause orders it.
        self.parity.store(self.parity() ^ PARITY, Ordering::Relaxed);
    }

    fn places(&self) -> impl Iterator<Item = &AtomicU64> {
        // Acquire: pairs with the release in `add`.
        let used = self.used.load(Ordering::Acquire);
        let buckets = self.buckets.iter().map_while(OnceLock::get);
        buckets.flat_map(|bucket| bucket.iter()).take(used)
    }

    /// Forwards every root that nobody has forwarded since the flip. The collector does so before the tables
    /// that `forward` reads are reset.
    pub fn forward_all(&self, forward: impl Fn(u64) -> u64) {
        for place in self.places() {
            // SeqCst: as in `get`.
            let word = place.load(Ordering::SeqCst);
            if word & !PARITY != 0 && word & PARITY != self.parity() {
                // If this fails, somebody else has forwarded, replaced or removed it: all fine.
                self.renew(place, word, &forward);
            }
        }
    }

    /// Calls `visit` with every root's address. Roots that are added or removed meanwhile may be missed; not
    /// between a flip and the end of its cycle.
    pub fn each(&self, mut visit: impl FnMut(u64)) {
        for place in self.places() {
            // SeqCst: as in `get`.
            let address = place.load(Ordering::SeqCst) & !PARITY;
            if address != 0 {
                visit(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_each_other_through_buckets_of_doubling_size() {
        assert_eq!([0, 63, 64, 191, 192].map(split), [(0, 0), (0, 63), (1, 0), (1, 127), (2, 0)]);
        for index in 1..100_000 {
            let ((bucket, offset), before) = (split(index), split(index - 1));
            let next = before.1 + 1 == offset && before.0 == bucket;
            let first = before == (bucket.wrapping_sub(1), (FIRST << before.0) - 1) && offset == 0;
            assert!(next || first, "{index}");
        }
    }

    #[test]
    fn a_flip_makes_every_root_be_forwarded_once() {
        let roots = GlobalRoots::default();
        let places: Vec<_> = (1..=1000u64).map(|number| roots.add(number * 8)).collect();
        roots.flip();
        let moved = |address| address + 80_000;
        assert_eq!(roots.get(places[6], moved), 7 * 8 + 80_000, "forwarded by its reader");
        assert_eq!(roots.set(places[7], 16), 8 * 8, "replaced before it was forwarded");
        roots.forward_all(moved);
        let never = |_| unreachable!("it is forwarded already");
        assert_eq!(roots.get(places[6], never), 7 * 8 + 80_000);
        assert_eq!(roots.get(places[7], never), 16);
        assert_eq!(roots.get(places[999], never), 8000 + 80_000);
        let mut sum = 0;
        roots.each(|address| sum += address);
        assert_eq!(sum, (1..=1000).map(|n| n * 8 + 80_000).sum::<u64>() - (64 + 80_000) + 16);
    }

    #[test]
    fn a_place_is_used_again_and_shows_nothing_in_between() {
        let roots = GlobalRoots::default();
        let (one, two) = (roots.add(8), roots.add(16));
        let mut kept = 0;
        roots.remove(one, || true, |_, old| kept = old);
        assert_eq!(kept, 8);
        roots.flip();
        roots.forward_all(|address| address + 800);
        let mut seen = Vec::new();
        roots.each(|address| seen.push(address));
        assert_eq!(seen, [816]);
        assert_eq!(roots.add(24), one);
        let never = |_| unreachable!("it is forwarded already");
        assert_eq!((roots.get(one, never), roots.get(two, never)), (24, 816));
    }

    #[test]
    fn marking_is_not_settled_while_a_root_goes() {
        let roots = GlobalRoots::default();
        let index = roots.add(8);
        let settled = || roots.settled(|_| unreachable!("a removal is under way"));
        roots.remove(index, || !settled(), |_, _| assert!(!settled()));
        assert!(roots.settled(|_| ()));
    }

    #[test]
    fn what_a_root_held_before_a_flip_is_no_work_of_the_marking_after_it() {
        let roots = GlobalRoots::default();
        let index = roots.add(8);
        let next_marking = || {
            // The remover has cleared the place, and gets no processor while the flip comes, the cycle ends, and
            // the next one begins to mark.
            roots.flip();
            roots.forward_all(|_| unreachable!("the place is clear"));
            true
        };
        roots.remove(index, next_marking, |_, old| panic!("{old} may be any object now"));
        // The same before the flip has been noticed by this root, and after.
        let (late, early) = (roots.add(16), roots.add(24));
        roots.flip();
        roots.remove(late, || true, |_, old| panic!("{old} has moved"));
        roots.forward_all(|address| address + 80);
        let mut kept = 0;
        roots.remove(early, || true, |_, old| kept = old);
        assert_eq!(kept, 24 + 80);
    }

    #[test]
    fn readers_and_the_collector_agree_while_flips_go_on() {
        // The world stops between two rounds, as it does for a flip: all threads are joined.
        let roots = GlobalRoots::default();
        let places: Vec<_> = (1..=500u64).map(|number| roots.add(number * 8)).collect();
        for round in 1..=20u64 {
            roots.flip();
            let forward = |address: u64| address + 8_000;
            std::thread::scope(|threads| {
                for _ in 0..3 {
                    threads.spawn(|| {
                        for (number, place) in (1..=500u64).zip(&places) {
                            assert_eq!(roots.get(*place, forward), number * 8 + round * 8_000);
                        }
                    });
                }
                roots.forward_all(forward);
            });
        }
    }
}
