//! The way before userfaultfd: `mprotect(PROT_NONE)` in the pause, SIGSEGV, and a second view.
//!
//! Both ranges are memory files mapped twice. Mutators use one view; pages are filled through the other
//! (the alias) and then made accessible one run at a time. Every `mprotect` takes `mmap_lock` for writing
//! and may split a mapping: that is what the comparison shows.
//!
//! **What this back end cannot do:** there is no atomic "install this page unless it is there". Between
//! filling the alias and opening the page, a second builder must not write to the same page, because a
//! mutator may already have changed it. So publishing takes a per-page lock bit for the length of one page
//! copy and one system call; a thread that is descheduled right there does hold up others. Building itself
//! is helped as everywhere.

use super::stw::populate_plain;
use super::{Backend, FlipPlan, Source};
use crate::build::View;
use crate::config::{BackendKind, InstallKind};
use crate::install::{Installed, low_mask};
use firn_heap::space::Space;
use firn_heap::sys::Errno;
use firn_heap::sys::map::{MapError, Protection, protect, punch_hole};
use firn_heap::sys::thread::give_way;
use firn_heap::table::Table;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering};

/// The mprotect back end.
pub struct Mprotect {
    /// For each to-page: 0 missing, 1 being published, 2 published.
    published: Table<AtomicU8>,
}

impl Mprotect {
    /// Needs a space with shared ranges.
    pub fn new(space: &Space) -> Result<Mprotect, MapError> {
        Ok(Mprotect { published: Table::new(space.geometry.pages, "firn published pages")? })
    }

    fn discard(&self, space: &Space, range: usize, page: usize, pages: usize) {
        let bytes = space.geometry.page;
        if let Some((_, file)) = space.ranges[range].alias() {
            // SAFETY: callers give pages that nobody reads any more.
            let gone = unsafe { punch_hole(file.as_fd(), page * bytes, pages * bytes) };
            debug_assert!(gone.is_ok());
        }
        space.uncommit(pages);
    }
}

impl Backend for Mprotect {
    fn kind(&self) -> BackendKind {
        BackendKind::Mprotect
    }

    fn install(&self) -> Option<InstallKind> {
        None
    }

    fn populate(&self, space: &Space, _first: usize, pages: usize) -> usize {
        populate_plain(space, pages)
    }

    fn give_back(&self, space: &Space, _range: usize, _first: usize, pages: usize) {
        space.uncommit(pages);
    }

    fn prepare(&self, _space: &Space) {}

    fn flip(&self, space: &Space, plan: &FlipPlan) -> Result<View, Errno> {
        let from_range = space.current_index();
        let to_range = 1 - from_range;
        let page = space.geometry.page;
        let total = plan.total_pages();
        if total > 0 {
            // SAFETY: the to-range is empty, and every access to it from now on goes through the
            // fault handler until the page is published.
            unsafe { protect(space.ranges[to_range].base(), total * page, Protection::None)? };
        }
        let base = space.ranges[from_range].base();
        Ok(plan.switch(space, (from_range, to_range), base, base))
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
        let alias = space.ranges[view.to_range].alias().expect("shared ranges").0;
        let mut done = Installed::default();
        for bit in 0..pages {
            // Acquire: pairs with the release below.
            let lock = &self.published[page + bit];
            match lock.compare_exchange(0, 1, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => {
                    // SAFETY: the lock bit makes this thread the only writer; the page is not open yet.
                    unsafe {
                        std::ptr::copy_nonoverlapping(
                            (source + bit * bytes) as *const u8,
                            (alias + (page + bit) * bytes) as *mut u8,
                            bytes,
                        )
                    };
                    done.published |= 1 << bit;
                }
                Err(1) => {
                    let published = || lock.load(Ordering::Acquire) != 1;
                    (0..).take_while(|_| !published()).for_each(give_way);
                }
                Err(_) => {}
            }
        }
        space.commit_regardless(done.published.count_ones() as usize);
        let mut bit = 0;
        while bit < pages {
            let run = (!(done.published >> bit)).trailing_zeros() as usize;
            let run = run.min(pages - bit);
            if run > 0 {
                let address = view.new_base + (page + bit) * bytes;
                // SAFETY: the pages have their content. ENOMEM (too many mappings) passes when
                // neighbours are opened and mappings merge.
                let open = || unsafe { protect(address, run * bytes, Protection::ReadWrite) };
                (0..).take_while(|_| open().is_err()).for_each(give_way);
                for lock in &self.published[page + bit..page + bit + run] {
                    // Release: pairs with the acquire of those who wait.
                    lock.store(2, Ordering::Release);
                }
            }
            bit += run.max(1);
        }
        debug_assert_eq!(done.published & !low_mask(pages), 0);
        done
    }

    fn recycle(&self, space: &Space, view: &View, from_page: usize, pages: usize) {
        self.discard(space, view.from_range, from_page, pages);
    }

    fn finish(&self, space: &Space, view: &View) -> usize {
        // Pages without content were never published. They must not stay closed: two flips from now
        // allocation may get their addresses.
        let bytes = space.geometry.page;
        let closed = |page: usize| self.published[page].load(Ordering::Relaxed) == 0;
        let mut page = 0;
        while page < view.total_pages {
            let run = (page..view.total_pages).take_while(|&p| closed(p)).count();
            if run > 0 {
                let address = view.new_base + page * bytes;
                // SAFETY: empty pages that nobody uses yet. For the retry see `publish`.
                let open = || unsafe { protect(address, run * bytes, Protection::ReadWrite) };
                (0..).take_while(|_| open().is_err()).for_each(give_way);
            }
            page += run.max(1);
        }
        for lock in &self.published[..view.total_pages] {
            lock.store(0, Ordering::Relaxed);
        }
        0
    }
}
