//! Whole from-pages: fixed where they are, and moved to their place.
//!
//! A dense or late to-page is one from-page. Its references are rewritten where they stand, and `UFFDIO_MOVE` changes
//! the page's address: nothing is copied, and no other page is needed to build in. The page's state goes through
//! `Closing` and `Moving` meanwhile (see `firn_heap::pages`): whoever is reading the from-page vetoes, and then the
//! page is built elsewhere, like any other.
//!
//! For collector threads ([`crate::compact`]) and the fault handler ([`crate::fault`]), whose rules hold here.

use crate::backend::Source;
use crate::build::{Builder, PageKind};
use crate::config::InstallKind;
use crate::core::Core;
use crate::fault::FaultSlot;
use firn_heap::pages::StateCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

impl Core {
    /// Whether whole from-pages may be fixed where they are and moved.
    pub(crate) fn moves_in_place(&self, builder: &Builder<'_>) -> bool {
        builder.view.disjoint() && self.backend.install() == Some(InstallKind::Move)
    }

    /// Makes whole from-pages hold their final content. Returns which of the to-pages from `first` on are `Moving` now; the
    /// others are being read by somebody, or there already. The caller owns their claims and has announced them in
    /// `slot`.
    pub(crate) fn close_in_place(
        &self,
        builder: &Builder<'_>,
        pages: Range<usize>,
        slot: &FaultSlot,
    ) -> u64 {
        let mut moving = 0;
        for page in pages.clone() {
            if page + 1 < pages.end {
                builder.prefetch_source(page + 1, Builder::NEXT);
            }
            // SAFETY: claimed by this thread under its hazard; addresses are disjoint.
            unsafe { builder.fix_in_place(page) };
            let read_by_others = || self.faults.read_by_others(page, slot);
            let closed = StateCell(self.space.state(page)).close(read_by_others);
            moving |= (closed as u64) << (page - pages.start);
        }
        moving
    }

    /// Moves those of a run of to-pages that are `Moving`, and has the others built, unless they are there. What the
    /// kernel refuses stays `Moving`; returned is which of those are not there. (What `build` could not publish, it knows.)
    pub(crate) fn move_or_build(
        &self,
        pages: Range<usize>,
        moving: u64,
        count: &AtomicU64,
        mut build: impl FnMut(usize),
    ) -> u64 {
        let (mut index, mut refused) = (0, 0);
        while index < pages.len() {
            let page = pages.start + index;
            let run = ((!(moving >> index)).trailing_zeros() as usize).min(pages.len() - index);
            if run > 0 {
                refused |= self.move_in_place(page, run, count) << index;
            } else if !StateCell(self.space.state(page)).get().is_published() {
                build(page);
            }
            index += run.max(1);
        }
        refused
    }

    /// Moves from-pages that hold their final content (state `Moving`). Anyone may. Returns which
    /// of them the kernel refused: those are not there.
    pub(crate) fn move_in_place(&self, first: usize, pages: usize, count: &AtomicU64) -> u64 {
        // SAFETY: called after the flip.
        let builder = unsafe { self.builder() };
        let (PageKind::Dense(from) | PageKind::Late(from)) = builder.kind(first) else {
            unreachable!("only whole from-pages are moved in place")
        };
        let source = builder.from_address(from);
        let done =
            self.backend.publish(&self.space, builder.view, first, source, pages, Source::InPlace);
        let done = self.look_again(done, first, pages, source);
        for index in 0..pages {
            let cell = StateCell(self.space.state(first + index));
            // Only who took the page away, or found it gone, knows that nothing is left to recycle; only
            // who copied it, that something is. Whoever merely finds it present leaves the state to them.
            if done.gone() >> index & 1 != 0 {
                cell.set_consumed();
            } else if done.copied >> index & 1 != 0 {
                cell.set_mapped();
            }
        }
        let published = done.published.count_ones() as u64;
        let copied = done.copied.count_ones() as u64;
        // Relaxed: counts.
        self.counters.dense.fetch_add(published, Ordering::Relaxed);
        self.counters.copied.fetch_add(copied, Ordering::Relaxed);
        count.fetch_add(published + copied, Ordering::Relaxed);
        done.refused
    }
}
