//! The non-moving space for large plain data.
//!
//! Objects without references that are large enough are not worth moving. They live here, each on its
//! own pages, in an ordinary mapping that no userfaultfd knows: giving pages back takes no lock of the
//! whole address space where the kernel has per-VMA locks, and system calls may use them as buffers.
//!
//! One byte of mark and one of page kind for each page; the object's header says its size. Allocation
//! is first fit under a lock: large objects are rare, and the lock is never held across a kernel call,
//! a sweep or the clearing of memory.
//!
//! **Pages of dead objects stay mapped**: a page fault and the kernel's clearing of a page take several times as long as
//! clearing it here, just before it is written. They count as free memory, as those in the moving ranges' pools do,
//! and are given up where those are: [`LargeSpace::release`]. After a sweep the search begins at the start of the
//! space again, so that they are used before pages that have no memory; what is given up comes from the end.

use crate::WORD;
use crate::layout::{Header, LayoutTable};
use crate::space::Geometry;
use crate::sys::map::{Advice, MapError, Reservation, advise};
use crate::table::Table;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// Free, without memory: reads as zeroes when it is first touched.
const FREE: u8 = 0;
/// The first page of an object.
const START: u8 = 1;
/// A further page of an object, or one of a stretch that a thread has taken for itself.
const REST: u8 = 2;
/// Free and mapped, with the contents of a dead object.
const MAPPED: u8 = 3;
/// As `REST`, for an object that is being made: to be cleared.
const STALE: u8 = 4;

/// The longest object, in bytes, whose pages are cleared here: a millisecond at most. For longer ones the kernel does it,
/// page by page, when they are touched, so that a thread on its way to a safepoint is not held up.
const CLEARED: usize = 4 << 20;

/// The large-object space.
pub struct LargeSpace {
    memory: Reservation,
    kinds: Table<AtomicU8>,
    marks: Table<AtomicU8>,
    page: usize,
    search: Mutex<usize>,
    top: AtomicUsize,
    /// Pages that are `MAPPED`.
    mapped: AtomicUsize,
}

/// A stretch of pages that the calling thread has taken.
pub struct Stretch {
    first: usize,
    pages: usize,
    /// How many of them have memory already.
    mapped: usize,
}

impl Stretch {
    /// Pages that have no memory yet: what must be taken from the budget.
    pub fn unmapped(&self) -> usize {
        self.pages - self.mapped
    }
}

impl LargeSpace {
    /// Reserves a space as large as a moving range.
    pub fn new(geometry: &Geometry) -> Result<LargeSpace, MapError> {
        let bytes = geometry.range_bytes();
        let memory = Reservation::anonymous(bytes, 1 << 21, "firn large objects")?;
        // SAFETY: touches no contents.
        let _ = unsafe { advise(memory.base(), bytes, Advice::DontFork) };
        Ok(LargeSpace {
            memory,
            kinds: Table::new(geometry.pages, "firn large kinds")?,
            marks: Table::new(geometry.pages, "firn large marks")?,
            page: geometry.page,
            search: Mutex::new(0),
            top: AtomicUsize::new(0),
            mapped: AtomicUsize::new(0),
        })
    }

    /// Bytes of the tables.
    pub fn table_bytes(&self) -> usize {
        self.kinds.bytes() + self.marks.bytes()
    }

    /// Whether `address` lies in this space.
    #[inline(always)]
    pub fn contains(&self, address: usize) -> bool {
        self.memory.contains(address)
    }

    /// First address of the space.
    pub fn base(&self) -> usize {
        self.memory.base()
    }

    /// Pages that an object of `words` words takes.
    pub fn pages_for(&self, words: usize) -> usize {
        (words * WORD).div_ceil(self.page)
    }

    /// Free pages that have memory.
    pub fn free_pages(&self) -> usize {
        // Relaxed: a hint.
        self.mapped.load(Ordering::Relaxed)
    }

    /// Takes `pages` pages for an object. `None` if no stretch is long enough. Ends with [`LargeSpace::place`] or
    /// [`LargeSpace::put_back`].
    pub fn take(&self, pages: usize) -> Option<Stretch> {
        let mut hint = self.search.lock().unwrap();
        let first = self.find(*hint, pages).or_else(|| self.find(0, pages))?;
        *hint = first + pages;
        let mut mapped = 0;
        for kind in &self.kinds[first..first + pages] {
            // Relaxed, all: kinds of pages that are free change under the lock, and the sweeper reads starts only. It
            // must not read the header before it is there.
            let had = kind.load(Ordering::Relaxed) == MAPPED;
            kind.store(if had { STALE } else { REST }, Ordering::Relaxed);
            mapped += had as usize;
        }
        // Relaxed: a count; the sweep has added these pages before it said that they are free.
        self.mapped.fetch_sub(mapped, Ordering::Relaxed);
        // Relaxed: the sweeper takes it as a bound; `START` is what it acts on.
        self.top.fetch_max(first + pages, Ordering::Relaxed);
        Some(Stretch { first, pages, mapped })
    }

    /// Frees a stretch that was taken.
    pub fn put_back(&self, stretch: Stretch) {
        let _search = self.search.lock().unwrap();
        self.mapped.fetch_add(stretch.mapped, Ordering::Relaxed);
        for kind in &self.kinds[stretch.first..stretch.first + stretch.pages] {
            // Relaxed, both: as in `take`.
            let had = kind.load(Ordering::Relaxed) == STALE;
            kind.store(if had { MAPPED } else { FREE }, Ordering::Relaxed);
        }
    }

    /// Makes an object of zeroes with `header` in `stretch`, marked from birth if `marked`, and returns its address. The
    /// caller has taken the pages without memory from the budget.
    pub fn place(&self, stretch: Stretch, header: Header, marked: bool) -> usize {
        let Stretch { first, pages, mapped } = stretch;
        let address = self.memory.base() + first * self.page;
        if mapped > 0 {
            self.clear(first, pages);
        }
        // Release: pairs with the acquire in `is_marked`: who takes the mark for one of the object that was here before
        // sees that this one is gone.
        self.marks[first].store(marked as u8, Ordering::Release);
        // SAFETY: the pages were free and are now this caller's alone; mapped, writable, zero.
        unsafe { (address as *mut u64).write(header.0) };
        // Release: pairs with the acquire in `sweep`: whoever sees the start sees header and mark.
        self.kinds[first].store(START, Ordering::Release);
        address
    }

    /// Clears the stale pages of a stretch that the caller has taken.
    fn clear(&self, first: usize, pages: usize) {
        let address = self.memory.base() + first * self.page;
        let by_kernel = pages * self.page > CLEARED
            // SAFETY: nobody else knows these pages.
            && unsafe { advise(address, pages * self.page, Advice::DontNeed) }.is_ok();
        for page in first..first + pages {
            // Relaxed, both: the caller's own.
            if self.kinds[page].load(Ordering::Relaxed) == STALE {
                if !by_kernel {
                    let address = self.memory.base() + page * self.page;
                    // SAFETY: as above; mapped and writable.
                    unsafe { (address as *mut u8).write_bytes(0, self.page) };
                }
                self.kinds[page].store(REST, Ordering::Relaxed);
            }
        }
    }

    fn find(&self, from: usize, pages: usize) -> Option<usize> {
        let mut run = 0;
        for page in from..self.kinds.len() {
            // Acquire: pairs with the release in `sweep`: nobody refers to the page any more.
            if matches!(self.kinds[page].load(Ordering::Acquire), FREE | MAPPED) {
                run += 1;
                if run == pages {
                    return Some(page + 1 - pages);
                }
            } else {
                run = 0;
            }
        }
        None
    }

    /// Gives up to `pages` free pages back to the kernel, and returns how many; the caller gives them back to the budget.
    pub fn release(&self, pages: usize) -> usize {
        let mut released = 0;
        let mut end = self.top.load(Ordering::Relaxed);
        while released < pages && self.free_pages() > 0 {
            let Some(run) = self.take_mapped(end, pages - released) else { break };
            let address = self.memory.base() + run.start * self.page;
            // SAFETY: free pages that nobody else can take. On failure they stay what they were.
            let gone = unsafe { advise(address, run.len() * self.page, Advice::DontNeed) }.is_ok();
            let _search = self.search.lock().unwrap();
            if !gone {
                self.mapped.fetch_add(run.len(), Ordering::Relaxed);
            }
            for kind in &self.kinds[run.clone()] {
                // Relaxed: as in `take`.
                kind.store(if gone { FREE } else { MAPPED }, Ordering::Relaxed);
            }
            released += if gone { run.len() } else { 0 };
            end = run.start;
        }
        released
    }

    /// Takes the last free mapped pages before `end`, neighbours and at most `most`.
    fn take_mapped(&self, end: usize, most: usize) -> Option<Range<usize>> {
        let _search = self.search.lock().unwrap();
        // Acquire: pairs with the release in `sweep`.
        let is_mapped = |page: &usize| self.kinds[*page].load(Ordering::Acquire) == MAPPED;
        let last = (0..end).rev().find(is_mapped)?;
        let start = (0..last).rev().take_while(is_mapped).take(most - 1).last().unwrap_or(last);
        for kind in &self.kinds[start..=last] {
            // Relaxed, both: as in `take`.
            kind.store(REST, Ordering::Relaxed);
        }
        self.mapped.fetch_sub(last + 1 - start, Ordering::Relaxed);
        Some(start..last + 1)
    }

    /// Marks the object at `address`; returns whether it was unmarked.
    #[inline]
    pub fn mark(&self, address: usize) -> bool {
        let page = (address - self.memory.base()) / self.page;
        // Relaxed: marking's end is a handshake.
        self.marks[page].swap(1, Ordering::Relaxed) == 0
    }

    /// Whether the object at `address` is marked, or was when a sweep last came by.
    #[inline]
    pub fn is_marked(&self, address: usize) -> bool {
        let page = (address - self.memory.base()) / self.page;
        // Acquire: pairs with the release in `sweep`: who sees that the sweep has been here sees what the collector
        // did before it.
        self.marks[page].load(Ordering::Acquire) != 0
    }

    /// Unmarks everything: what was made while a sweep was under way, and marked for it, may have kept that.
    /// Before marking begins.
    pub fn forget_marks(&self) {
        // Relaxed, all: marking begins with a pause.
        for mark in &self.marks[..self.top.load(Ordering::Relaxed)] {
            mark.store(0, Ordering::Relaxed);
        }
    }

    /// Frees every unmarked object and unmarks the rest. Returns (pages freed, pages live); what is freed stays in the
    /// budget, as free memory.
    pub fn sweep(&self, layouts: &LayoutTable) -> (usize, usize) {
        let (mut freed, mut live) = (0, 0);
        let top = self.top.load(Ordering::Relaxed);
        let mut page = 0;
        while page < top {
            // Acquire: pairs with the release in `allocate`.
            if self.kinds[page].load(Ordering::Acquire) != START {
                page += 1;
                continue;
            }
            let address = self.memory.base() + page * self.page;
            // SAFETY: a started object has its header; only this sweep frees it.
            let header = Header(unsafe { (address as *const u64).read() });
            let pages = self.pages_for(layouts.get(header.layout()).words(header));
            // Release: pairs with the acquire in `is_marked`.
            if self.marks[page].swap(0, Ordering::AcqRel) != 0 {
                live += pages;
            } else {
                freed += pages;
                self.mapped.fetch_add(pages, Ordering::Relaxed);
                for kind in &self.kinds[page..page + pages] {
                    // Release: pairs with the acquire in `find`.
                    kind.store(MAPPED, Ordering::Release);
                }
            }
            page += pages;
        }
        if freed > 0 {
            *self.search.lock().unwrap() = 0;
        }
        (freed, live)
    }

    /// Calls `visit` with the address of each object. For verification, with the mutators stopped.
    pub fn each(&self, mut visit: impl FnMut(usize)) {
        for page in 0..self.top.load(Ordering::Relaxed) {
            if self.kinds[page].load(Ordering::Acquire) == START {
                visit(self.memory.base() + page * self.page);
            }
        }
    }

    /// Whether `address` is the start of an object.
    pub fn is_object(&self, address: usize) -> bool {
        let offset = address - self.memory.base();
        offset.is_multiple_of(self.page)
            && self.kinds[offset / self.page].load(Ordering::Acquire) == START
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::LayoutId;
    use crate::sys::map::resident_pages;
    use std::ptr::NonNull;

    struct Fixture {
        space: LargeSpace,
        layouts: LayoutTable,
        page: usize,
    }

    impl Fixture {
        fn new() -> Fixture {
            let geometry = Geometry::new(16 << 20);
            let space = LargeSpace::new(&geometry).unwrap();
            Fixture { space, layouts: LayoutTable::new().unwrap(), page: geometry.page }
        }

        /// An object that fills `pages` pages, and how many of them had no memory.
        fn object(&self, pages: usize, marked: bool) -> (usize, usize) {
            let header = Header::new(LayoutId::DATA[0], pages * self.page - WORD);
            let words = self.layouts.get(header.layout()).words(header);
            assert_eq!(self.space.pages_for(words), pages);
            let stretch = self.space.take(pages).unwrap();
            let unmapped = stretch.unmapped();
            (self.space.place(stretch, header, marked), unmapped)
        }

        /// Writes `value` to all words behind an object's header.
        fn fill(&self, object: usize, pages: usize, value: u64) {
            // SAFETY: inside an object of so many pages, which nobody else looks at.
            unsafe { self.words(object, pages).as_mut().fill(value) };
        }

        /// Whether all of these words are `value`.
        fn is_filled(&self, object: usize, pages: usize, value: u64) -> bool {
            // SAFETY: as above.
            unsafe { self.words(object, pages).as_ref() }.iter().all(|word| *word == value)
        }

        fn words(&self, object: usize, pages: usize) -> NonNull<[u64]> {
            let first = NonNull::new((object + WORD) as *mut u64).unwrap();
            NonNull::slice_from_raw_parts(first, pages * self.page / WORD - 1)
        }

        fn sweep(&self) -> (usize, usize) {
            self.space.sweep(&self.layouts)
        }

        fn resident(&self) -> usize {
            let top = self.space.top.load(Ordering::Relaxed);
            resident_pages(self.space.base(), top * self.page)
                .unwrap()
                .iter()
                .filter(|r| **r)
                .count()
        }
    }

    #[test]
    fn unmarked_objects_are_freed_and_their_pages_are_used_again_cleared() {
        let heap = Fixture::new();
        let ((a, new), (b, _)) = (heap.object(4, false), heap.object(4, false));
        assert_eq!(new, 4);
        heap.fill(a, 4, 9);
        assert!(heap.space.mark(b) && !heap.space.mark(b));
        assert_eq!(heap.sweep(), (4, 4));
        assert!(!heap.space.is_object(a) && heap.space.is_object(b));
        assert_eq!((heap.space.free_pages(), heap.resident()), (4, 5), "of b only the header");
        assert_eq!(heap.object(4, true), (a, 0));
        assert!(heap.is_filled(a, 4, 0));
        assert_eq!(heap.space.free_pages(), 0);
        assert_eq!(heap.sweep(), (4, 4), "b lost its mark, `a` was born with one");
    }

    #[test]
    fn free_pages_are_given_up_from_the_end_and_need_memory_again() {
        let heap = Fixture::new();
        let objects: Vec<usize> = (0..4).map(|_| heap.object(3, false).0).collect();
        objects.iter().for_each(|&object| heap.fill(object, 3, 9));
        heap.space.mark(objects[2]);
        assert_eq!(heap.sweep(), (9, 3));
        assert_eq!((heap.space.free_pages(), heap.resident()), (9, 12));
        assert_eq!(heap.space.release(4), 4);
        assert_eq!((heap.space.free_pages(), heap.resident()), (5, 8));
        assert!(heap.is_filled(objects[2], 3, 9), "alive");
        assert_eq!(heap.object(6, false), (objects[0], 1));
        assert!(heap.is_filled(objects[0], 6, 0));
        assert_eq!(heap.space.release(usize::MAX), 0);
        assert_eq!(heap.sweep(), (6 + 3, 0));
        assert_eq!(heap.space.release(usize::MAX), 9);
        assert_eq!((heap.space.free_pages(), heap.resident()), (0, 0));
    }

    #[test]
    fn a_stretch_that_is_put_back_is_what_it_was() {
        let heap = Fixture::new();
        heap.fill(heap.object(2, false).0, 2, 9);
        heap.sweep();
        let stretch = heap.space.take(5).unwrap();
        assert_eq!((stretch.unmapped(), heap.space.free_pages()), (3, 0));
        heap.space.put_back(stretch);
        assert_eq!(heap.space.free_pages(), 2);
        heap.sweep();
        let (object, unmapped) = heap.object(3, false);
        assert_eq!(unmapped, 3, "the search goes on behind");
        assert!(heap.is_filled(object, 3, 0));
        assert_eq!(heap.space.free_pages(), 2);
    }

    #[test]
    fn long_stretches_are_cleared_by_the_kernel() {
        let heap = Fixture::new();
        let pages = CLEARED / heap.page + 1;
        let (object, _) = heap.object(pages, false);
        heap.fill(object, pages, 9);
        heap.sweep();
        assert_eq!(heap.object(pages, false), (object, 0));
        assert_eq!(heap.resident(), 1);
        assert!(heap.is_filled(object, pages, 0));
    }
}
