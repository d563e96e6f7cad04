//! The pattern of Android's ART, as a baseline to measure: remap and register in the pause.
//!
//! The heap stays in one range. The flip moves all its pages to a shadow range by
//! `mremap(MREMAP_DONTUNMAP)` and registers the part that compaction will fill; both take `mmap_lock` for
//! writing, with the world stopped. Pages are installed by COPY (or by MOVE, as ART does since 2025), from
//! which `madvise(DONTNEED)` gives consumed pages back; at the end the range is unregistered, again under
//! the lock. Allocation takes ordinary page faults.
//!
//! Like ART, the flip touches a page of the remainder before registering, so that both parts share an
//! anon_vma and merge again later: `mremap` wants one mapping.

use super::stw::{discard, populate_plain};
use super::{Backend, FlipPlan, Source, Staging};
use crate::build::View;
use crate::config::{BackendKind, InstallKind};
use crate::install::{Installed, Installer};
use firn_heap::pool::RUN;
use firn_heap::space::Space;
use firn_heap::sys::Errno;
use firn_heap::sys::map::remap_dontunmap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// ART's way.
pub struct Art {
    installer: Installer,
    install: InstallKind,
    /// Pages of the heap range that are registered now.
    registered: AtomicUsize,
}

const HEAP: usize = 0;
const SHADOW: usize = 1;

impl Art {
    /// ART's way, installing by `install`.
    pub fn new(installer: Installer, install: InstallKind) -> Art {
        Art { installer, install, registered: AtomicUsize::new(0) }
    }

    /// Moves the heap range away; in parts if the mappings did not merge.
    fn remap(&self, space: &Space, top: usize) -> Result<(), Errno> {
        let page = space.geometry.page;
        let (from, to) = (space.ranges[HEAP].base(), space.ranges[SHADOW].base());
        let all = space.geometry.range_bytes();
        // SAFETY: the world is stopped; the shadow range is empty and nobody reads it.
        match unsafe { remap_dontunmap(from, all, to) } {
            Err(Errno::EFAULT | Errno::EINVAL) => {}
            result => return result,
        }
        // The registered part of the last cycle did not merge with the rest: one mapping at a time.
        let split = self.registered.load(Ordering::Relaxed) * page;
        let split = if split == 0 || split >= all { top * page } else { split };
        for (start, end) in [(0, split), (split, all)] {
            if start < end {
                // SAFETY: as above.
                unsafe { remap_dontunmap(from + start, end - start, to + start)? };
            }
        }
        Ok(())
    }
}

impl Backend for Art {
    fn kind(&self) -> BackendKind {
        BackendKind::Art
    }

    fn install(&self) -> Option<InstallKind> {
        Some(self.install)
    }

    fn installer(&self) -> Option<&Installer> {
        Some(&self.installer)
    }

    fn populate(&self, space: &Space, _first: usize, pages: usize) -> usize {
        populate_plain(space, pages)
    }

    fn give_back(&self, space: &Space, _range: usize, _first: usize, pages: usize) {
        space.uncommit(pages);
    }

    fn prepare(&self, _space: &Space) {}

    fn flip(&self, space: &Space, plan: &FlipPlan) -> Result<View, Errno> {
        let page = space.geometry.page;
        self.remap(space, plan.top_page)?;
        let heap = space.ranges[HEAP].base();
        let total = plan.total_pages();
        if total > 0 {
            // A page beyond the registered part, which allocation will want soon anyway. Its zeroes
            // are accounted for when it is handed out.
            if total < space.geometry.pages {
                // SAFETY: an empty page of the heap range that nobody uses yet.
                unsafe { ((heap + total * page) as *mut u64).write_volatile(0) };
            }
            self.installer.uffd.register_missing(heap, total * page)?;
            self.registered.store(total, Ordering::Relaxed);
        }
        Ok(plan.switch(space, (SHADOW, HEAP), heap, space.ranges[SHADOW].base()))
    }

    fn publish(
        &self,
        space: &Space,
        view: &View,
        page: usize,
        source: usize,
        pages: usize,
        kind: Source,
    ) -> Installed {
        let dst = view.new_base + page * space.geometry.page;
        if kind == Source::Staged {
            return super::move_or_copy(&self.installer, space, dst, source, pages);
        }
        let done = self.installer.copy(dst, source, pages);
        space.commit_regardless(done.published.count_ones() as usize);
        done
    }

    fn staging(&self, space: &Space) -> Option<Staging> {
        let shadow = &space.ranges[SHADOW];
        let taken = shadow.pool.take_newest_run()?;
        let address = shadow.base() + taken.first * space.geometry.page;
        Some(Staging { address, pages: RUN, pool: SHADOW })
    }

    fn unstage(&self, space: &Space, staging: &Staging, mask: u64) {
        let shadow = &space.ranges[SHADOW];
        let first = (staging.address - shadow.base()) / space.geometry.page;
        for bit in (0..staging.pages).filter(|bit| mask >> bit & 1 != 0) {
            shadow.pool.put(first + bit, 1);
        }
    }

    fn recycle(&self, space: &Space, view: &View, from_page: usize, pages: usize) {
        if self.install == InstallKind::Move {
            space.ranges[SHADOW].pool.put(from_page, pages);
        } else {
            discard(space, view.read_base + from_page * space.geometry.page, pages);
        }
    }

    fn finish(&self, space: &Space, view: &View) -> usize {
        if view.total_pages > 0 {
            let bytes = view.total_pages * space.geometry.page;
            let done = self.installer.uffd.unregister(view.new_base, bytes);
            debug_assert!(done.is_ok(), "unregister: {done:?}");
        }
        self.release(space, usize::MAX)
    }

    fn release(&self, space: &Space, pages: usize) -> usize {
        let shadow = &space.ranges[SHADOW];
        let mut released = 0;
        while released < pages {
            let Some(taken) = shadow.pool.take((pages - released).min(RUN)) else { break };
            for (first, count) in taken.runs() {
                discard(space, shadow.base() + first * space.geometry.page, count);
                released += count;
            }
        }
        released
    }
}
