//! Forwarding: from an address before the flip to the one after it, for a single reference and for all slots of an object.
//!
//! An object's new place is arithmetic on its block's entry (`firn_heap::blocks`); objects allocated since marking began
//! all move by the same distance. Values outside of the from-range stay as they are: null, large objects, and
//! to-addresses where the ranges are disjoint.
//!
//! **Ahead.** The references of an object lead anywhere, and so do the accesses to the block table that forwarding them
//! takes: nearly each one waits for memory, and little of the next one gets done meanwhile. So a slot of the
//! marked part is not forwarded when it is found. The entry is asked for and the slot kept; a batch of sixteen slots is
//! forwarded when the next batch is full, and what is left when the page ends. Objects are found by their headers,
//! which are no slots: that a slot still has its old value disturbs nobody as long as its page is the builder's, and on
//! a page fixed in place either value forwards to the same.
//!
//! For whoever builds or fixes a page ([`crate::build`]), the fault handler too: nothing here allocates or waits.

use crate::build::Builder;
use firn_heap::WORD;
use firn_heap::layout::{Descriptor, Slot};
use std::sync::atomic::{AtomicU64, Ordering};

/// A slot that refers to the from-range.
#[derive(Clone, Copy)]
struct Found {
    place: *const AtomicU64,
    word: u64,
    address: u64,
}

/// Slots whose forwarding waits for the entries of the blocks that they refer to: up to two batches.
pub(crate) struct Ahead {
    found: [[Found; Ahead::BATCH]; 2],
    /// How many came so far.
    count: usize,
}

impl Ahead {
    const BATCH: usize = 16;

    #[inline(always)]
    pub(crate) fn new() -> Ahead {
        let none = Found { place: std::ptr::null(), word: 0, address: 0 };
        Ahead { found: [[none; Ahead::BATCH]; 2], count: 0 }
    }

    /// Adds a slot. Returns the batch before its own, if that is full now.
    #[inline(always)]
    fn push(&mut self, found: Found) -> Option<&[Found]> {
        let (batch, place) = (self.count / Ahead::BATCH, self.count % Ahead::BATCH);
        self.found[batch % 2][place] = found;
        self.count += 1;
        (place == Ahead::BATCH - 1 && batch > 0).then(|| &self.found[(batch + 1) % 2][..])
    }

    /// What is still here.
    #[inline(always)]
    fn rest(&self) -> [&[Found]; 2] {
        let (batch, place) = (self.count / Ahead::BATCH, self.count % Ahead::BATCH);
        let full = if batch > 0 { Ahead::BATCH } else { 0 };
        [&self.found[(batch + 1) % 2][..full], &self.found[batch % 2][..place]]
    }
}

impl Builder<'_> {
    /// Where the object at `value` is now; values outside the from-range stay as they are.
    #[inline(always)]
    pub fn forward(&self, value: u64) -> u64 {
        let offset = (value as usize).wrapping_sub(self.view.old_base);
        if offset >= self.view.old_top {
            return value;
        }
        let page = self.space.geometry.page;
        if offset >= self.view.late_from {
            let late = self.view.marked_pages * page + (offset - self.view.late_from);
            return (self.view.new_base + late) as u64;
        }
        (self.view.new_base + self.space.blocks.forward(offset / WORD) * WORD) as u64
    }

    /// Forwards the slots among words `from..to` of an object whose word `from` is at `at`, some of them later:
    /// whoever made `ahead` settles it before the page is anybody's.
    #[inline(always)]
    pub(crate) fn fix(
        &self,
        ahead: &mut Ahead,
        descriptor: &Descriptor,
        at: *const AtomicU64,
        from: usize,
        to: usize,
    ) {
        descriptor.each_slot(from, to, |word, slot| {
            let place = at.wrapping_add(word - from);
            // SAFETY: the caller gives a buffer or from-page that holds the object's words `from..to`
            // from `at` on. Relaxed: a private buffer, or a from-page whose concurrent readers forward
            // either value to the same.
            let word = unsafe { &*place }.load(Ordering::Relaxed);
            let address = match slot {
                Slot::Ref => word,
                Slot::Tagged if descriptor.rule().is_reference(word) => {
                    descriptor.rule().address_of(word)
                }
                Slot::Tagged => return,
            };
            let found = Found { place, word, address };
            let offset = (address as usize).wrapping_sub(self.view.old_base);
            if offset >= self.view.late_from {
                if offset < self.view.old_top {
                    self.renew(found);
                }
                return;
            }
            self.space.blocks.prefetch(offset / WORD);
            if let Some(oldest) = ahead.push(found) {
                self.renew_all(oldest);
            }
        });
    }

    /// Forwards a slot.
    #[inline(always)]
    fn renew(&self, Found { place, word, address }: Found) {
        let new = self.forward(address);
        if new != address {
            // What is not the address is in other bits, both before and after (`TagRule::is_sound`).
            let renewed = word.wrapping_add(new.wrapping_sub(address));
            // SAFETY: the slot that `fix` read; as there.
            unsafe { &*place }.store(renewed, Ordering::Relaxed);
        }
    }

    /// Forwards slots, out of line: what is inlined into `each_slot` is to be small, and may not use bit operations.
    #[inline(never)]
    fn renew_all(&self, found: &[Found]) {
        #[cfg(target_arch = "x86_64")]
        if has_bit_operations() {
            // SAFETY: the processor has what the function needs.
            return unsafe { renew_with_bit_operations(self, found) };
        }
        self.renew_any(found);
    }

    #[inline(always)]
    fn renew_any(&self, found: &[Found]) {
        found.iter().for_each(|&found| self.renew(found));
    }

    /// Forwards what is still being asked for.
    #[inline(always)]
    pub(crate) fn settle(&self, ahead: Ahead) {
        ahead.rest().into_iter().for_each(|found| self.renew_all(found));
    }
}

/// Whether the processor has POPCNT, BMI1 and BMI2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn has_bit_operations() -> bool {
    std::arch::is_x86_feature_detected!("popcnt")
        && std::arch::is_x86_feature_detected!("bmi1")
        && std::arch::is_x86_feature_detected!("bmi2")
}

/// # Safety
/// On a processor with POPCNT, BMI1 and BMI2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt,bmi1,bmi2")]
unsafe fn renew_with_bit_operations(builder: &Builder<'_>, found: &[Found]) {
    builder.renew_any(found);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_comes_out_once_and_none_before_the_next_batch_is_full() {
        for count in 0..5 * Ahead::BATCH as u64 {
            let (mut ahead, mut out) = (Ahead::new(), Vec::new());
            for number in 0..count {
                let found = Found { place: std::ptr::null(), word: 0, address: number };
                if let Some(batch) = ahead.push(found) {
                    assert_eq!(batch.len(), Ahead::BATCH);
                    out.extend(batch.iter().map(|found| found.address));
                    assert!(number - out[out.len() - 1] == Ahead::BATCH as u64, "{number}");
                }
            }
            out.extend(ahead.rest().into_iter().flatten().map(|found| found.address));
            assert_eq!(out, (0..count).collect::<Vec<_>>());
        }
    }
}
