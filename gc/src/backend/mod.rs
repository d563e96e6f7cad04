//! The four ways to make to-pages missing and to install them, behind one trait.
//!
//! A back end answers for memory: where allocation's pages come from, how the to-range comes to have no
//! pages, how a finished page is published, and what happens to a from-page that nobody reads any more.
//! It knows nothing about marking or about objects. All back ends must produce identical heaps.

mod art;
mod mprotect;
mod pingpong;
mod stw;

pub use art::Art;
pub use mprotect::Mprotect;
pub use pingpong::PingPong;
pub use stw::Stw;

use crate::build::View;
use crate::config::{BackendKind, InstallKind};
use crate::install::{Installed, Installer, Retries};
use firn_heap::space::Space;
use firn_heap::sys::Errno;

/// Where the pages to be published are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// In a private buffer, which stays the caller's.
    Buffer,
    /// In recycled pages (a range's, from this page on), which may be moved away.
    Staged,
    /// They are from-pages with their final content, which may be moved away.
    InPlace,
}

/// What the plan tells a back end about the flip.
#[derive(Clone, Copy, Debug)]
pub struct FlipPlan {
    /// To-pages with marked objects.
    pub marked_pages: usize,
    /// First from-page allocated after marking began.
    pub late_page: usize,
    /// End of allocation in the from-range, in pages.
    pub top_page: usize,
}

impl FlipPlan {
    /// To-pages in all.
    pub fn total_pages(&self) -> usize {
        // Saturating: a rehearsal does not stop the world, and may see an end of another moment.
        self.marked_pages + self.top_page.saturating_sub(self.late_page)
    }

    /// Makes range `to_range` current and describes the compaction that follows. Its contents were seen at
    /// `old_base` and are now read at `read_base`, in (or on behalf of) range `from_range`.
    fn switch(
        &self,
        space: &Space,
        ranges: (usize, usize),
        old_base: usize,
        read_base: usize,
    ) -> View {
        debug_assert!(self.top_page >= self.late_page, "{self:?}");
        let view = self.view(space, ranges, old_base, read_base);
        space.set_current(view.to_range, self.total_pages());
        view
    }

    /// The compaction that follows, as [`FlipPlan::switch`] describes it.
    fn view(
        &self,
        space: &Space,
        (from_range, to_range): (usize, usize),
        old_base: usize,
        read_base: usize,
    ) -> View {
        let page = space.geometry.page;
        View {
            old_base,
            read_base,
            new_base: space.ranges[to_range].base(),
            late_from: self.late_page * page,
            old_top: self.top_page * page,
            marked_pages: self.marked_pages,
            total_pages: self.total_pages(),
            from_range,
            from_records: space.records_index(),
            to_range,
        }
    }
}

/// A run of recycled pages that a collector thread builds in.
#[derive(Clone, Copy, Debug)]
pub struct Staging {
    /// Address of the first page.
    pub address: usize,
    /// Pages left.
    pub pages: usize,
    /// Which pool it came from (the back end's own numbering).
    pub pool: usize,
}

/// A back end.
pub trait Backend: Send + Sync {
    /// Its name in options.
    fn kind(&self) -> BackendKind;

    /// How it installs pages.
    fn install(&self) -> Option<InstallKind>;

    /// The descriptor and the counters, if it uses userfaultfd.
    fn installer(&self) -> Option<&Installer> {
        None
    }

    /// Counts of incomplete operations.
    fn retries(&self) -> Option<&Retries> {
        self.installer().map(|installer| &installer.retries)
    }

    /// Makes up to `pages` pages (at most 64) of the current range, from `first` on, usable. Returns how
    /// many; 0 if there is no memory left in the budget. What they contain is nobody's: allocation writes every
    /// word that will be read.
    fn populate(&self, space: &Space, first: usize, pages: usize) -> usize;

    /// Whether [`Backend::move_ahead`] does anything.
    fn moves_ahead(&self) -> bool {
        false
    }

    /// Moves free pages to the current range, `pages` from `first` on, many at a time; returns how many have
    /// arrived. The rest of the addresses stay without pages.
    fn move_ahead(&self, _space: &Space, _first: usize, _pages: usize) -> usize {
        0
    }

    /// After the flip: takes back pages that were moved ahead in what is the from-range now.
    fn take_back(&self, _space: &Space, _view: &View, _first: usize, _pages: usize) {}

    /// Takes back populated pages of range `range` that were never entered.
    fn give_back(&self, space: &Space, range: usize, first: usize, pages: usize);

    /// Before the flip, concurrently: sees to it that the to-range will have no pages.
    fn prepare(&self, space: &Space);

    /// In the pause: makes the to-pages missing and the other range current.
    fn flip(&self, space: &Space, plan: &FlipPlan) -> Result<View, Errno>;

    /// Before the pause, on any number of threads: goes through what [`Backend::flip`] does as far as that changes
    /// nothing, so that it is in the processor's caches.
    fn rehearse_flip(&self, _space: &Space, _plan: &FlipPlan) {}

    /// Whether all pages are to be built in the pause.
    fn builds_in_pause(&self) -> bool {
        false
    }

    /// Publishes `pages` pages from to-page `page` on with the contents at `source`. Afterwards all of
    /// them are present. Safe in the fault handler.
    fn publish(
        &self,
        space: &Space,
        view: &View,
        page: usize,
        source: usize,
        pages: usize,
        kind: Source,
    ) -> Installed;

    /// Recycled pages to build in: 64 neighbours. `None`: build in a buffer and copy.
    fn staging(&self, _space: &Space) -> Option<Staging> {
        None
    }

    /// Whether a faulting thread builds the missing pages around its own, too (`fault-around`). Safe in the fault handler.
    fn builds_around(&self) -> bool {
        false
    }

    /// Whether faulting threads had better move pages than copy them: the heap is further beyond its limit than a
    /// compaction may put it. Safe in the fault handler.
    fn short_of_memory(&self, _space: &Space) -> bool {
        false
    }

    /// A recycled page for a faulting thread to build in, if it had better not copy. Safe in the fault handler.
    fn spare_page(&self, _space: &Space) -> Option<Staging> {
        None
    }

    /// Takes back what is left of a staging run, or those pages of it that were not moved (`mask`).
    fn unstage(&self, _space: &Space, _staging: &Staging, _mask: u64) {}

    /// Notes that `pages` pages of a staging run were moved away.
    fn moved_out(&self, _space: &Space, _pool: usize, _address: usize, _pages: usize) {}

    /// Takes from-pages that nobody reads any more.
    fn recycle(&self, space: &Space, view: &View, from_page: usize, pages: usize);

    /// After the last page: undoes what the flip set up. Returns pages given back to the kernel.
    fn finish(&self, space: &Space, view: &View) -> usize;

    /// Gives up to `pages` free pages back to the kernel; returns how many.
    fn release(&self, _space: &Space, _pages: usize) -> usize {
        0
    }
}

/// Moves a run, and copies the pages of it that refuse to be moved.
fn move_or_copy(
    installer: &Installer,
    space: &Space,
    dst: usize,
    src: usize,
    pages: usize,
) -> Installed {
    let bytes = space.geometry.page;
    let mut done = installer.move_run(dst, src, pages);
    let refused = std::mem::take(&mut done.refused);
    for bit in (0..pages).filter(|bit| refused >> bit & 1 != 0) {
        let copied = installer.copy(dst + bit * bytes, src + bit * bytes, 1);
        space.commit_regardless(copied.published as usize);
        // Neither published nor refused: somebody else was faster after all, perhaps by a move.
        done.copied |= copied.published << bit;
        done.refused |= copied.refused << bit;
    }
    done
}
