//! What a faulting thread builds together with the page that it needs: the missing pages of the group around it.
//!
//! A fault costs a signal and two system calls, and a MOVE ends with an interrupt to every other processor on which the
//! program runs, which takes longer than moving a dozen pages. So a thread that owns the claim on its page claims the
//! neighbours of the same kind, too, up to the borders of an aligned group of `fault-around` pages, and publishes
//! them by one call. What is left over are groups, not single pages, so the collector's calls are long as well.
//!
//! - Whole from-pages are moved where that is possible: that needs no memory.
//! - Others are built in a wide buffer and copied. There is one for each processor, preallocated; who finds none free, or
//!   would put the heap further beyond its limit than it may be, builds the page alone.
//!
//! **Invariants.** Nobody waits for a group: its pages are claimed one by one, and whoever needs one of them builds it a
//! second time, as any claimed page. The hazard grows with each claim and never covers more, because it keeps others
//! from moving what they own.
//!
//! For the fault handler, whose rules hold here ([`crate::fault`]).

use crate::build::{Builder, PageKind};
use crate::core::Core;
use crate::fault::{FaultSlot, populated};
use crate::publish::Place;
use firn_heap::pages::{PageState, StateCell};
use firn_heap::sys::map::{MapError, Reservation};
use firn_heap::sys::online_cpus;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whole pages that are worth a MOVE. Fewer are copied: that takes no more time than the interrupt at the end of a MOVE, and
/// nobody else's.
const WORTH_A_MOVE: usize = 4;

/// Buffers of as many pages as are built together.
pub(crate) struct Wide {
    busy: Vec<AtomicBool>,
    pages: usize,
    buffers: Reservation,
}

impl Wide {
    /// Buffers of `pages` pages of `page` bytes; none if that is one page.
    pub(crate) fn new(page: usize, pages: usize) -> Result<Wide, MapError> {
        let count = if pages > 1 { online_cpus() } else { 0 };
        let buffers = populated((count * pages * page).max(page), page, "firn groups")?;
        Ok(Wide { busy: (0..count).map(|_| AtomicBool::new(false)).collect(), pages, buffers })
    }

    /// Takes a free buffer, if there is one.
    fn claim(&self) -> Option<usize> {
        // Acquire: pairs with the release in `put_back`.
        self.busy.iter().position(|busy| !busy.swap(true, Ordering::Acquire))
    }

    fn address(&self, index: usize, page: usize) -> usize {
        self.buffers.base() + index * self.pages * page
    }

    fn put_back(&self, index: usize) {
        // Release: pairs with the acquire in `claim`.
        self.busy[index].store(false, Ordering::Release);
    }
}

impl Core {
    /// Builds to-page `page`, and those of its group that are missing. The caller owns the claim on `page` and has
    /// announced it in `slot`. Returns whether the kernel has refused `page`.
    pub(crate) fn build_around(
        &self,
        builder: &Builder<'_>,
        page: usize,
        slot: &FaultSlot,
        count: &AtomicU64,
    ) -> bool {
        let kind = builder.kind(page);
        let whole =
            matches!(kind, PageKind::Dense(_) | PageKind::Late(_)) && self.moves_in_place(builder);
        let short = self.backend.short_of_memory(&self.space);
        // Nothing was allocated on an empty page: who touches it has no reference to it, and gets it alone.
        let together = self.config.fault_around > 1 && kind != PageKind::Empty;
        let wide = if together && !short { self.faults.wide.claim() } else { None };
        let pages = if together && (whole || wide.is_some()) {
            self.claim_around(builder, page, slot)
        } else {
            page..page + 1
        };
        let bit = 1 << (page - pages.start);
        let mut refused = false;
        let mut alone = |other: usize| {
            refused |= self.build_alone(builder, other, slot, count) && other == page;
        };
        if whole && (short || pages.len() >= WORTH_A_MOVE) {
            let moving = self.close_in_place(builder, pages.clone(), slot);
            let kept = self.move_or_build(pages.clone(), moving, count, alone);
            refused |= kept & bit != 0;
        } else if let Some(index) = wide
            && pages.len() > 1
        {
            let place = Place::Buffer(self.faults.wide.address(index, self.space.geometry.page));
            // SAFETY: the pages are claimed under this thread's hazard; the buffer is claimed too, and has a group's
            // pages.
            refused = unsafe { self.build_and_publish(builder, pages, place, count) & bit != 0 };
        } else {
            pages.for_each(&mut alone);
        }
        if let Some(index) = wide {
            self.faults.wide.put_back(index);
        }
        refused
    }

    /// Builds to-page `page` in a free page or in the slot's buffer, and publishes it. The caller has announced the
    /// page in `slot`. Returns whether the kernel has refused it.
    pub(crate) fn build_alone(
        &self,
        builder: &Builder<'_>,
        page: usize,
        slot: &FaultSlot,
        count: &AtomicU64,
    ) -> bool {
        let spare = self.backend.spare_page(&self.space);
        let place = spare.map_or(Place::Buffer(slot.buffer), Place::Free);
        // SAFETY: a compaction is under way, the hazard covers the page, and the buffer is the slot's, which this
        // thread holds, or a free page that it has taken.
        unsafe { self.build_and_publish(builder, page..page + 1, place, count) != 0 }
    }

    /// Claims the missing neighbours of to-page `page` in its group that belong to the same run of pages of a kind; returns all
    /// of them. The caller owns the claim on `page` and has announced it in `slot`, which announces all of them afterwards.
    fn claim_around(&self, builder: &Builder<'_>, page: usize, slot: &FaultSlot) -> Range<usize> {
        self.extend(builder, page, |next, wider, before| {
            let cell = StateCell(self.space.state(next));
            if cell.get() != PageState::Missing || self.faults.read_by_others(next, slot) {
                return false;
            }
            // Before the claim: what is published without this thread's help must not be recycled under its hands.
            slot.hazard.announce(wider.start, wider.len());
            let mine = cell.claim();
            if !mine {
                slot.hazard.announce(before.start, before.len());
            }
            mine
        })
    }

    /// Moves to-page `page`, whose from-page holds its final content, and those around it of which that is true: somebody is
    /// at a run and has not come to moving it. Returns whether the kernel has refused `page`.
    pub(crate) fn move_around(
        &self,
        builder: &Builder<'_>,
        page: usize,
        count: &AtomicU64,
    ) -> bool {
        let pages = self.extend(builder, page, |next, _, _| {
            StateCell(self.space.state(next)).get() == PageState::Moving
        });
        let refused = self.move_in_place(pages.start, pages.len(), count);
        refused >> (page - pages.start) & 1 != 0
    }

    /// The longest run of pages of one kind around to-page `page`, in its group, each of which `take` has taken; that is
    /// given the page, the run with it, and the run before.
    fn extend(
        &self,
        builder: &Builder<'_>,
        page: usize,
        take: impl Fn(usize, Range<usize>, &Range<usize>) -> bool,
    ) -> Range<usize> {
        let kind = builder.kind(page);
        let view = builder.view;
        let (region, end) = if page < view.marked_pages {
            (0, view.marked_pages)
        } else {
            (view.marked_pages, view.total_pages)
        };
        let around = self.config.fault_around;
        // Groups begin where the collector's runs do.
        let lowest = region + (page - region) / around * around;
        let end = end.min(lowest + around);
        let same = |next: usize| builder.kind(next) == kind.after(next as isize - page as isize);
        let mut run = page..page + 1;
        while run.end < end && same(run.end) && take(run.end, run.start..run.end + 1, &run) {
            run.end += 1;
        }
        while run.start > lowest
            && same(run.start - 1)
            && take(run.start - 1, run.start - 1..run.end, &run)
        {
            run.start -= 1;
        }
        run
    }
}
