//! Everything in the pause, without userfaultfd: the oracle, and the fallback where it is refused.
//!
//! Two plain ranges; pages are built at their place in the to-range while the world is stopped, and
//! consumed from-pages are given back to the kernel as the slide goes on, so that the budget holds.

use super::{Backend, FlipPlan, Source};
use crate::build::View;
use crate::config::{BackendKind, InstallKind};
use crate::install::{Installed, low_mask};
use firn_heap::space::Space;
use firn_heap::sys::Errno;
use firn_heap::sys::map::{Advice, advise};

/// The stop-the-world back end.
pub struct Stw;

/// Lets allocation fault its pages in by itself: fresh pages of a plain mapping are zeroes.
pub(super) fn populate_plain(space: &Space, pages: usize) -> usize {
    let ask = pages.min(space.geometry.limit_pages.saturating_sub(space.committed()));
    if ask > 0 && space.commit(ask) { ask } else { 0 }
}

/// Gives pages back to the kernel and to the budget.
pub(super) fn discard(space: &Space, address: usize, pages: usize) {
    if pages > 0 {
        // SAFETY: callers give pages that nobody reads any more.
        let gone = unsafe { advise(address, pages * space.geometry.page, Advice::DontNeed) };
        debug_assert!(gone.is_ok());
        space.uncommit(pages);
    }
}

impl Backend for Stw {
    fn kind(&self) -> BackendKind {
        BackendKind::Stw
    }

    fn install(&self) -> Option<InstallKind> {
        None
    }

    fn populate(&self, space: &Space, _first: usize, pages: usize) -> usize {
        populate_plain(space, pages)
    }

    fn give_back(&self, space: &Space, _range: usize, _first: usize, pages: usize) {
        // Never entered, so never faulted in.
        space.uncommit(pages);
    }

    fn prepare(&self, _space: &Space) {}

    fn flip(&self, space: &Space, plan: &FlipPlan) -> Result<View, Errno> {
        let from_range = space.current_index();
        let to_range = 1 - from_range;
        let base = space.ranges[from_range].base();
        Ok(plan.switch(space, (from_range, to_range), base, base))
    }

    fn builds_in_pause(&self) -> bool {
        true
    }

    fn publish(
        &self,
        space: &Space,
        view: &View,
        page: usize,
        source: usize,
        pages: usize,
        _kind: Source,
    ) -> Installed {
        let bytes = space.geometry.page;
        // SAFETY: the world is stopped; the to-pages lie in a plain mapping that nobody else uses now.
        unsafe {
            std::ptr::copy_nonoverlapping(
                source as *const u8,
                (view.new_base + page * bytes) as *mut u8,
                pages * bytes,
            )
        };
        space.commit_regardless(pages);
        Installed { published: low_mask(pages), ..Installed::default() }
    }

    fn recycle(&self, space: &Space, view: &View, from_page: usize, pages: usize) {
        discard(space, view.read_base + from_page * space.geometry.page, pages);
    }

    fn finish(&self, _space: &Space, _view: &View) -> usize {
        0
    }
}
