//! The page states of a compaction, and the hazards that keep a page's sources in place.
//!
//! Each to-page has a one-byte state. Whoever wants to build a page claims it; but a claim is only a
//! hint that saves double work: nobody ever *waits* for a claim's holder. Building reads immutable
//! from-pages, so a second thread may build the same page privately, and the kernel decides who
//! publishes it (`EEXIST` for the loser).
//!
//! ```text
//!                claim                   published (COPY, or MOVE of a staged run)
//!   Missing ──────────────► Claimed ───────────────────────────────► Mapped
//!                            │  ▲  ▲                                   ▲
//!                   closing  │  │  └ veto by a reader, or by the owner │ consumed (MOVE of the
//!                            ▼  │    itself when it finds a hazard     │ from-page itself)
//!                          Closing ──────────────► Moving ─────────────┘
//! ```
//!
//! Two things would pull the rug from under a private build: recycling the from-pages it reads, and
//! moving a from-page to its destination as it is. Both are guarded by **hazards** (after Michael's
//! hazard pointers): a builder first announces the to-pages it is about to build, then looks at the
//! state again; whoever wants to take from-pages away first changes the state, then looks at the
//! hazards. Both sides use sequentially consistent operations, so at least one of them sees the other
//! (Dekker's argument). A descheduled builder therefore holds back a few pages from being recycled,
//! and nobody else.
//!
//! `Closing` exists because taking a page away takes two looks: the owner closes the page, looks for
//! hazards, and only then moves on to `Moving`; a builder that arrives in between vetoes by putting the
//! state back to `Claimed`, and the owner copies instead. In `Moving` the content is final in its
//! from-page, and *anyone* may issue the move: there, too, nobody waits.
//!
//! This file is compiled a second time by the loom models in `tests/`, against loom's atomics.

use crate::sync::{AtomicU8, AtomicU64, Ordering};

/// State of one to-page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PageState {
    /// Nobody has started on it.
    Missing = 0,
    /// Somebody builds it from its from-pages, which stay in place while a hazard names it.
    Claimed = 1,
    /// Its owner wants to move the from-page itself and is looking for readers.
    Closing = 2,
    /// Its from-page holds the final content and may be moved to its place by anyone.
    Moving = 3,
    /// Present in the to-range; its from-pages are spent but still mapped.
    Mapped = 4,
    /// Present in the to-range, by the move of its from-page: there is nothing left to recycle.
    Consumed = 5,
}

impl PageState {
    fn from_byte(byte: u8) -> PageState {
        match byte {
            0 => PageState::Missing,
            1 => PageState::Claimed,
            2 => PageState::Closing,
            3 => PageState::Moving,
            4 => PageState::Mapped,
            _ => PageState::Consumed,
        }
    }

    /// Whether the page is present in the to-range.
    #[inline(always)]
    pub fn is_published(self) -> bool {
        matches!(self, PageState::Mapped | PageState::Consumed)
    }
}

/// What a builder may do with a page it has announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Its from-pages stay where they are until the hazard is withdrawn: build it.
    Read,
    /// Its from-page holds the final content: move it.
    Move,
    /// It is there already.
    Published,
}

/// Operations on one page's state byte.
pub struct StateCell<'a>(pub &'a AtomicU8);

impl StateCell<'_> {
    /// The current state.
    #[inline(always)]
    pub fn get(&self) -> PageState {
        // SeqCst: the second half of Dekker's argument; pairs with the state changes below.
        PageState::from_byte(self.0.load(Ordering::SeqCst))
    }

    fn change(&self, from: PageState, to: PageState) -> bool {
        // SeqCst: pairs with `get` after a hazard was announced, and with `Hazard::announce`.
        self.0.compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Missing → Claimed; true if this thread is now its owner.
    #[inline(always)]
    pub fn claim(&self) -> bool {
        self.change(PageState::Missing, PageState::Claimed)
    }

    /// Claimed → Closing → Moving, if `hazard` (looked at in between) finds no reader and none vetoes.
    /// On false the page is `Claimed` (or already published by someone else) and must be copied.
    pub fn close(&self, hazard: impl FnOnce() -> bool) -> bool {
        if !self.change(PageState::Claimed, PageState::Closing) {
            return false;
        }
        if hazard() {
            // A failure means that a reader vetoed already, with the same result.
            self.change(PageState::Closing, PageState::Claimed);
            return false;
        }
        self.change(PageState::Closing, PageState::Moving)
    }

    /// What the caller, whose hazard names this page, may do. Never waits.
    #[inline(always)]
    pub fn access(&self) -> Access {
        loop {
            match self.get() {
                PageState::Missing | PageState::Claimed => return Access::Read,
                PageState::Closing => {
                    if self.change(PageState::Closing, PageState::Claimed) {
                        return Access::Read;
                    }
                }
                PageState::Moving => return Access::Move,
                PageState::Mapped | PageState::Consumed => return Access::Published,
            }
        }
    }

    /// Records that the page is present in the to-range, its from-pages being spent but mapped.
    #[inline(always)]
    pub fn set_mapped(&self) {
        // SeqCst: pairs with the hazard scan that precedes recycling. A plain store would do for the
        // owner of a claim; it may also come second to another publisher, with the same value.
        self.0.store(PageState::Mapped as u8, Ordering::SeqCst);
    }

    /// Records that the page is present by the move of its from-page. Only from `Moving`.
    #[inline(always)]
    pub fn set_consumed(&self) {
        self.0.store(PageState::Consumed as u8, Ordering::SeqCst);
    }

    /// Back to `Missing`, at a cycle's end.
    pub fn reset(&self) {
        // Relaxed: nobody looks between two cycles; the next flip orders it.
        self.0.store(PageState::Missing as u8, Ordering::Relaxed);
    }
}

/// One builder's announcement: a run of to-pages whose from-pages must stay.
pub struct Hazard(AtomicU64);

impl Default for Hazard {
    fn default() -> Hazard {
        Hazard::new()
    }
}

impl Hazard {
    /// No announcement.
    pub fn new() -> Hazard {
        Hazard(AtomicU64::new(0))
    }

    /// Announces that `pages` to-pages from `first` on are about to be built. The caller must look at
    /// their states *after* this.
    #[inline(always)]
    pub fn announce(&self, first: usize, pages: usize) {
        // SeqCst: the first half of Dekker's argument; pairs with `covers`.
        self.0.store((pages as u64) << 40 | first as u64, Ordering::SeqCst);
    }

    /// Takes the announcement back.
    #[inline(always)]
    pub fn withdraw(&self) {
        // Release: pairs with the SeqCst load in `covers`: whoever recycles the pages sees the reads
        // made under the hazard as done.
        self.0.store(0, Ordering::Release);
    }

    /// The announced to-pages, as (first, count).
    #[inline(always)]
    pub fn announced(&self) -> Option<(usize, usize)> {
        // SeqCst: pairs with `announce`.
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            word => Some(((word & ((1 << 40) - 1)) as usize, (word >> 40) as usize)),
        }
    }

    /// Whether the announcement meets the `pages` to-pages from `first` on.
    #[inline(always)]
    pub fn covers(&self, first: usize, pages: usize) -> bool {
        self.announced().is_some_and(|(from, count)| from < first + pages && first < from + count)
    }
}
