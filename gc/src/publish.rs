//! Pages that are built elsewhere and then published: by COPY from a buffer, or by MOVE of the free pages that they were
//! built in.
//!
//! One function for collector threads and faulting ones: it builds a run, asks the kernel, and settles who has
//! published what, which pages are spent, and the counts. Safe in the fault handler.

use crate::backend::{Source, Staging};
use crate::build::Builder;
use crate::core::Core;
use crate::install::Installed;
use firn_heap::pages::StateCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a run is built: memory of the builder's own.
pub(crate) enum Place {
    /// A buffer, which stays the builder's.
    Buffer(usize),
    /// Free pages, which are moved: as many as the run has.
    Free(Staging),
}

impl Core {
    /// Builds a run of to-pages at `place` and publishes it. Returns which of its pages the kernel refused: those are
    /// not there.
    ///
    /// # Safety
    /// As [`Builder::build`], for each page of the run and of the place.
    pub(crate) unsafe fn build_and_publish(
        &self,
        builder: &Builder<'_>,
        pages: Range<usize>,
        place: Place,
        count: &AtomicU64,
    ) -> u64 {
        let bytes = self.space.geometry.page;
        let (source, kind) = match &place {
            Place::Buffer(address) => (*address, Source::Buffer),
            Place::Free(staging) => (staging.address, Source::Staged),
        };
        for page in pages.clone() {
            let place = source + (page - pages.start) * bytes;
            if page + 1 < pages.end {
                // The processor's own prefetching ends with each page of the from-range.
                builder.prefetch_source(page + 1, Builder::NEXT);
            }
            // SAFETY: the caller's promise.
            unsafe { builder.build(page, place as *mut u64) };
        }
        let (first, length) = (pages.start, pages.len());
        let mut done = self.backend.publish(&self.space, builder.view, first, source, length, kind);
        if kind == Source::Staged {
            done = self.look_again(done, first, length, source);
        }
        for index in (0..length).filter(|index| done.refused >> index & 1 == 0) {
            StateCell(self.space.state(first + index)).set_mapped();
        }
        // Nobody else can move what this thread has built.
        let moved = done.moved().count_ones() as u64;
        let copied = done.copied.count_ones() as u64;
        let counter = match &place {
            Place::Buffer(_) => &self.counters.copied,
            Place::Free(staging) => {
                self.unstage(staging, done);
                &self.counters.moved
            }
        };
        // Relaxed: counts.
        counter.fetch_add(moved, Ordering::Relaxed);
        self.counters.copied.fetch_add(copied, Ordering::Relaxed);
        count.fetch_add(moved + copied, Ordering::Relaxed);
        done.refused
    }

    /// Tells to-pages that somebody else has published from those that this thread has moved from `source` although the
    /// kernel denies it.
    pub(crate) fn look_again(
        &self,
        done: Installed,
        first: usize,
        pages: usize,
        source: usize,
    ) -> Installed {
        let (true, Some(installer)) = (done.present != 0, self.backend.installer()) else {
            return done;
        };
        let unsaid =
            |index: &usize| !StateCell(self.space.state(first + index)).get().is_published();
        let doubtful = (0..pages).filter(unsaid).fold(0, |mask, index| mask | 1 << index);
        installer.look_again(done, source, doubtful)
    }

    /// Settles the account of recycled pages that were built in and published with the outcome `done`.
    fn unstage(&self, staging: &Staging, done: Installed) {
        let gone = done.gone();
        self.backend.unstage(&self.space, staging, !gone);
        let moved = gone.count_ones() as usize;
        self.backend.moved_out(&self.space, staging.pool, staging.address, moved);
    }
}
