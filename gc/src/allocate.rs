//! Allocation's slow paths: where mutators' pages come from, and where they wait for memory.
//!
//! The fast path is a bump in the mutator's own chunk ([`firn_heap::tlab`]). When that is used up, a chunk
//! comes from those made ready ahead ([`crate::ready`]), or from free pages, which the mutator then moves to
//! their place itself, or fresh from the kernel while the budget lasts. Otherwise allocation fails here, and
//! the runtime climbs its ladder. Nothing here takes a lock that a collector thread could hold while it is
//! descheduled, except the trigger's, once in a cycle, and that of the large-object space, when memory is short and dead
//! large objects have left some, or a large object is made.

use crate::core::Core;
use crate::mutator::Mutator;
use firn_heap::layout::{Header, LayoutId};
use firn_heap::pool::RUN;
use firn_heap::tlab::{Chunk, end_of_objects, record};
use std::sync::atomic::Ordering;

/// Pages made ready by one call: what one flush of address translations is shared by.
const AHEAD: usize = 8 * RUN;
/// Free pages that stay for compaction to build in.
pub(crate) const RESERVE: usize = 4 * RUN;
/// Pages kept ready while compaction runs.
pub(crate) const READY_WHILE_COMPACTING: usize = 2 * AHEAD;

impl Core {
    /// Takes a mutator's buffer away and gives its untouched pages back.
    pub(crate) fn retire(&self, mutator: &Mutator) {
        // SAFETY: called for the mutator's part of a request, or on its own thread.
        let local = unsafe { mutator.local() };
        if let Some(rest) = local.tlab.retire(self.space.geometry.page) {
            self.put_back(rest);
        }
    }

    /// The allocation slow path: a new page, or a new chunk, or nothing if the budget is used up.
    #[inline(never)]
    pub fn allocate_slow(
        &self,
        mutator: &Mutator,
        layout: LayoutId,
        bytes: usize,
    ) -> Option<usize> {
        let page = self.space.geometry.page;
        // SAFETY: the mutator's own running thread; the reference ends with the call.
        let extend =
            || unsafe { mutator.local() }.tlab.extend(self.space.records(), layout, bytes, page);
        if let Some(address) = extend() {
            return Some(address);
        }
        if bytes > self.config.chunk_pages * page / 2 {
            return self.allocate_pages(layout, bytes);
        }
        if !self.refill(mutator, bytes) {
            return None;
        }
        extend()
    }

    /// Sees to it that `bytes` more can be allocated from the buffer without failing.
    pub fn refill(&self, mutator: &Mutator, bytes: usize) -> bool {
        let page = self.space.geometry.page;
        // SAFETY: the mutator's own running thread; the reference ends with the call.
        if bytes <= unsafe { mutator.local() }.tlab.room() {
            return true;
        }
        let wanted = self.config.chunk_pages.max(bytes.div_ceil(page));
        self.retire(mutator);
        let Some(chunk) = self.chunk(wanted) else { return false };
        if chunk.pages * page < bytes {
            self.put_back(chunk);
            return false;
        }
        self.took(chunk.pages);
        // SAFETY: as above.
        let tlab = unsafe { &mut mutator.local().tlab };
        tlab.start(self.space.records(), self.space.current().base(), chunk, page);
        true
    }

    /// A chunk of up to `pages` pages (at most 64).
    fn chunk(&self, pages: usize) -> Option<Chunk> {
        let limit = self.space.geometry.limit_pages;
        // Compaction copies before it recycles, and so exceeds the budget; what has come back makes up for that
        // first. Mutators see to it, a run at a time: it takes `mmap_lock`, which a collector thread of low
        // priority must not hold while it is descheduled.
        let over = self.space.committed().saturating_sub(limit);
        if over > 0 && self.give_up_large(over.min(RUN)) == 0 {
            let spare = self.space.free_pages().saturating_sub(RESERVE);
            self.backend.release(&self.space, over.min(spare).min(RUN));
        }
        let room = limit.saturating_sub(self.in_use());
        let pages = pages.min(64).min(room);
        if pages == 0 {
            return None;
        }
        let ready = if pages == self.config.chunk_pages { self.ready.take() } else { None };
        match ready {
            Some(first) => Some(Chunk { first, pages }),
            None => self.populate(pages),
        }
    }

    /// Makes `pages` pages (at most 64) of the current range usable, or as many as there are.
    fn populate(&self, pages: usize) -> Option<Chunk> {
        let first = self.space.grab(pages)?;
        self.space.records().clear_records(first, pages);
        let have = loop {
            let supplied = self.backend.populate(&self.space, first, pages);
            if supplied > 0 {
                break supplied;
            }
            if !self.dissolve_ready() && self.give_up_large(RUN) == 0 {
                self.space.ungrab(first, pages);
                return None;
            }
        };
        Some(Chunk { first, pages: have })
    }

    /// Makes chunks ready ahead of allocation until there are `most` pages of them, free pages run short, or
    /// `stop` says so. Only for the coordinating thread, and not between the first pause and the flip.
    pub fn make_ready(&self, most: usize, stop: impl Fn() -> bool) {
        let chunk = self.config.chunk_pages;
        let batch = AHEAD.min(self.space.geometry.limit_pages / 16) / RUN * RUN;
        if batch < chunk || !self.backend.moves_ahead() {
            return;
        }
        while self.ready.count() + batch <= most && !stop() {
            // Ready chunks have their addresses for good, and a large array needs neighbouring ones: half of those
            // that are left stay.
            if self.ready.count() + batch > self.space.geometry.pages - self.space.top() {
                return;
            }
            let Some(first) = self.space.grab(batch) else { return };
            self.space.records().clear_records(first, batch);
            let have = self.backend.move_ahead(&self.space, first, batch);
            self.space.ungrab(first + have, batch - have);
            for number in 0..have / chunk {
                self.ready.put(first + number * chunk);
            }
            let rest = have % chunk;
            if rest > 0 {
                self.put_back(Chunk { first: first + have - rest, pages: rest });
            }
            if have < batch {
                return;
            }
        }
    }

    /// Gives up to `pages` free pages back to the kernel; ready chunks last, so that whoever allocates after a quiet
    /// time need not move pages itself.
    pub fn release(&self, pages: usize) {
        let mut left = pages;
        loop {
            left -= self.give_up(left).min(left);
            if left == 0 || !self.dissolve_ready() {
                return;
            }
        }
    }

    /// Gives up to `pages` free pages back to the kernel, those of large objects first: compaction has no use for them.
    /// Returns how many.
    pub fn give_up(&self, pages: usize) -> usize {
        let given_up = self.give_up_large(pages);
        given_up + self.backend.release(&self.space, pages - given_up)
    }

    /// As [`Core::give_up`], of the large-object space only.
    pub(crate) fn give_up_large(&self, pages: usize) -> usize {
        let mut given_up = 0;
        while given_up < pages {
            let done = self.space.large.release(pages - given_up);
            if done == 0 {
                break;
            }
            self.space.uncommit(done);
            given_up += done;
        }
        given_up
    }

    /// Makes free pages of a withdrawn or ready chunk; false if there is none. Any thread that may allocate can.
    fn dissolve_ready(&self) -> bool {
        if self.return_one_withdrawn() {
            return true;
        }
        let Some(first) = self.ready.take() else { return false };
        self.put_back(Chunk { first, pages: self.config.chunk_pages });
        true
    }

    /// Hands back the pages of all withdrawn chunks.
    pub(crate) fn return_withdrawn(&self) {
        while self.return_one_withdrawn() {}
    }

    /// Hands back the pages of a withdrawn chunk; false if there is none. Any thread that may allocate can.
    fn return_one_withdrawn(&self) -> bool {
        let Some((first, flipped)) = self.ready.take_withdrawn() else { return false };
        let pages = self.config.chunk_pages;
        if flipped {
            // SAFETY: the flip has happened.
            self.backend.take_back(&self.space, unsafe { self.view() }, first, pages);
        } else {
            self.put_back(Chunk { first, pages });
        }
        true
    }

    fn put_back(&self, chunk: Chunk) {
        let range = self.space.current_index();
        self.backend.give_back(&self.space, range, chunk.first, chunk.pages);
    }

    fn took(&self, pages: usize) {
        let bytes = (pages * self.space.geometry.page) as u64;
        // Relaxed: a count.
        self.allocated_bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.in_use() >= self.start_at.load(Ordering::Relaxed)
            && !self.triggered.swap(true, Ordering::Relaxed)
            && let Some(trigger) = &*self.trigger.lock().unwrap()
        {
            trigger();
        }
    }

    /// Pages in use, as the start threshold counts them: handed out in the current range since the last
    /// cycle and what that cycle left, and large objects.
    pub fn in_use(&self) -> usize {
        let free = self.space.free_pages() + self.space.large.free_pages() + self.ready.unused();
        self.space.committed().saturating_sub(free)
    }

    /// A token for [`Core::wait_for_memory`], to be taken before the attempt that failed.
    pub fn memory_epoch(&self) -> u32 {
        // Acquire: pairs with the release in `memory_freed`.
        self.memory_epoch.load(Ordering::Acquire)
    }

    /// Sleeps until memory may have become available since `epoch`. The caller must be blocked.
    pub fn wait_for_memory(&self, epoch: u32) {
        // SeqCst: either `memory_freed` sees the waiter, or the futex sees the new epoch.
        self.memory_waiters.fetch_add(1, Ordering::SeqCst);
        firn_heap::sys::futex::wait(&self.memory_epoch, epoch, None);
        self.memory_waiters.fetch_sub(1, Ordering::SeqCst);
    }

    /// Tells waiting mutators that memory may be available, or a cycle is over.
    pub fn memory_freed(&self) {
        // SeqCst: pairs with `wait_for_memory`; includes the release for `memory_epoch`.
        self.memory_epoch.fetch_add(1, Ordering::SeqCst);
        if self.memory_waiters.load(Ordering::SeqCst) > 0 {
            firn_heap::sys::futex::wake_all(&self.memory_epoch);
        }
    }

    /// Allocates an object on pages of its own.
    fn allocate_pages(&self, layout: LayoutId, bytes: usize) -> Option<usize> {
        let page = self.space.geometry.page;
        let pages = bytes.div_ceil(page);
        if self.space.geometry.limit_pages.saturating_sub(self.in_use()) < pages {
            return None;
        }
        let first = self.space.grab(pages)?;
        let base = self.space.current().base();
        let records = self.space.records();
        records.clear_records(first, pages);
        let mut have = 0;
        while have < pages {
            let ask = (pages - have).min(64);
            let got = self.backend.populate(&self.space, first + have, ask);
            have += got;
            if got == 0 && !self.dissolve_ready() && self.give_up_large(ask) == 0 {
                // Not enough after all: what there is becomes free pages of the range.
                for done in (0..have).step_by(RUN) {
                    let pages = RUN.min(have - done);
                    self.put_back(Chunk { first: first + done, pages });
                }
                return None;
            }
        }
        let start = base + first * page;
        for index in 0..pages {
            let entered = start + index * page;
            records.set_record(first + index, record(start, start + bytes, entered, page, layout));
        }
        if !bytes.is_multiple_of(page) {
            // SAFETY: behind the object, in its last page, which only this thread knows.
            unsafe { end_of_objects(start + bytes) };
        }
        self.took(pages);
        Some(start)
    }

    /// Allocates a large object of `words` words that holds no references.
    pub fn allocate_large(&self, header: Header, words: usize) -> Option<usize> {
        let large = &self.space.large;
        let pages = large.pages_for(words);
        let stretch = large.take(pages)?;
        while !self.space.commit(stretch.unmapped()) {
            // Free pages elsewhere count too: give them up first. (The budget may be exceeded already.)
            let wanted = self.space.committed() + stretch.unmapped();
            let over = wanted.saturating_sub(self.space.geometry.limit_pages);
            if self.give_up(over.max(RUN)) == 0 && !self.dissolve_ready() {
                large.put_back(stretch);
                return None;
            }
        }
        // Relaxed: set before the handshake that starts marking; a mutator has seen that.
        let marked = self.large_born_marked.load(Ordering::Relaxed);
        let address = large.place(stretch, header, marked);
        self.took(pages);
        Some(address)
    }
}
