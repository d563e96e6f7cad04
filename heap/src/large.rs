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
//! space again, so that they are used before pages that have no memory; what is given up comes from the end. *Long*
//! objects are no part of this: clearing them would hold up a thread that is on its way to a safepoint. The sweep gives
//! their pages back, and they are made of pages without memory as long as there are enough neighbours of these.

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

/// The longest object, in bytes, that is not long: clearing it takes a millisecond at most.
const CLEARED: usize = 4 << 20;

/// Most pages that are given up by one system call, some 0.4 ms of work: what is given up is neither free nor anybody's
/// meanwhile.
const AT_ONCE: usize = 512;

/// Where to look for free pages.
struct Search {
    /// For an object.
    hint: usize,
    /// For pages with memory: there are none from here on. (Or there are, while a sweep is under way.)
    mapped_end: usize,
}

fn is_free(kind: u8) -> bool {
    matches!(kind, FREE | MAPPED)
}

/// The large-object space.
pub struct LargeSpace {
    memory: Reservation,
    kinds: Table<AtomicU8>,
    marks: Table<AtomicU8>,
    page: usize,
    search: Mutex<Search>,
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
            search: Mutex::new(Search { hint: 0, mapped_end: 0 }),
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
        let mut search = self.search.lock().unwrap();
        let first = if self.is_long(pages) {
            let unmapped = |kind| kind == FREE;
            self.find(0, pages, unmapped).or_else(|| self.find(0, pages, is_free))?
        } else {
            let hint = search.hint;
            let found = self.find(hint, pages, is_free).or_else(|| self.find(0, pages, is_free))?;
            search.hint = found + pages;
            found
        };
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
        let (first, end) = (stretch.first, stretch.first + stretch.pages);
        let mut search = self.search.lock().unwrap();
        search.hint = search.hint.min(first);
        search.mapped_end = search.mapped_end.max(end);
        self.mapped.fetch_add(stretch.mapped, Ordering::Relaxed);
        for kind in &self.kinds[first..end] {
            // Relaxed, both: as in `take`.
            let had = kind.load(Ordering::Relaxed) == STALE;
            kind.store(if had { MAPPED } else { FREE }, Ordering::Relaxed);
        }
    }

    fn is_long(&self, pages: usize) -> bool {
        pages * self.page > CLEARED
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
        let by_kernel = self.is_long(pages)
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

    fn find(&self, from: usize, pages: usize, wanted: impl Fn(u8) -> bool) -> Option<usize> {
        let mut run = 0;
        for page in from..self.kinds.len() {
            // Acquire: pairs with the release in `sweep`: nobody refers to the page any more.
            if wanted(self.kinds[page].load(Ordering::Acquire)) {
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

    /// Gives some free pages, at most `pages`, back to the kernel, by one call. Returns how many: 0 if there are none. The
    /// caller gives them back to the budget at once.
    pub fn release(&self, pages: usize) -> usize {
        let Some(run) = self.take_mapped(pages.min(AT_ONCE)) else { return 0 };
        // SAFETY: free pages that this thread has taken.
        if unsafe { self.discard(run.clone()) } {
            return run.len();
        }
        let mut search = self.search.lock().unwrap();
        search.mapped_end = search.mapped_end.max(run.end);
        self.mapped.fetch_add(run.len(), Ordering::Relaxed);
        // Release: pairs with the acquire in `find`, which others may be inside of.
        self.kinds[run].iter().for_each(|kind| kind.store(MAPPED, Ordering::Release));
        0
    }

    /// Takes the last free pages with memory, neighbours and at most `most`.
    fn take_mapped(&self, most: usize) -> Option<Range<usize>> {
        if most == 0 || self.free_pages() == 0 {
            return None;
        }
        let mut search = self.search.lock().unwrap();
        // Acquire: pairs with the release in `sweep`.
        let is_mapped = |page: &usize| self.kinds[*page].load(Ordering::Acquire) == MAPPED;
        let last = (0..search.mapped_end).rev().find(is_mapped);
        search.mapped_end = last.unwrap_or(0);
        let last = last?;
        let first = (0..last).rev().take_while(is_mapped).take(most - 1).last().unwrap_or(last);
        search.mapped_end = first;
        for kind in &self.kinds[first..=last] {
            // Relaxed: as in `take`.
            kind.store(REST, Ordering::Relaxed);
        }
        self.mapped.fetch_sub(last + 1 - first, Ordering::Relaxed);
        Some(first..last + 1)
    }

    /// Gives pages back to the kernel and frees them; false if it refuses.
    ///
    /// # Safety
    /// Nobody refers to them, and nobody else can take them.
    unsafe fn discard(&self, pages: Range<usize>) -> bool {
        let address = self.memory.base() + pages.start * self.page;
        // SAFETY: the caller's promise.
        let gone = unsafe { advise(address, pages.len() * self.page, Advice::DontNeed) }.is_ok();
        if gone {
            // Release: pairs with the acquire in `find`.
            self.kinds[pages].iter().for_each(|kind| kind.store(FREE, Ordering::Release));
        }
        gone
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

    /// Frees every unmarked object and unmarks the rest. Returns (pages freed, pages live). Pages of long objects go back to
    /// the kernel, and `returned` hears how many; the others stay in the budget.
    pub fn sweep(&self, layouts: &LayoutTable, mut returned: impl FnMut(usize)) -> (usize, usize) {
        let (mut freed, mut live) = (0, 0);
        let mut mapped_end = 0;
        let top = self.top.load(Ordering::Relaxed);
        let mut page = 0;
        while page < top {
            // Acquire: pairs with the release in `place`.
            if self.kinds[page].load(Ordering::Acquire) != START {
                page += 1;
                continue;
            }
            let address = self.memory.base() + page * self.page;
            // SAFETY: a started object has its header; only this sweep frees it.
            let header = Header(unsafe { (address as *const u64).read() });
            let pages = self.pages_for(layouts.get(header.layout()).words(header));
            let end = page + pages;
            // Release: pairs with the acquire in `is_marked`.
            if self.marks[page].swap(0, Ordering::AcqRel) != 0 {
                live += pages;
            } else {
                freed += pages;
                // SAFETY: nothing refers to the object any more, and its pages are not free yet.
                if self.is_long(pages) && unsafe { self.discard(page..end) } {
                    returned(pages);
                } else {
                    self.mapped.fetch_add(pages, Ordering::Relaxed);
                    // Release: pairs with the acquire in `find`.
                    let kinds = self.kinds[page..end].iter();
                    kinds.for_each(|kind| kind.store(MAPPED, Ordering::Release));
                    mapped_end = end;
                }
            }
            page = end;
        }
        if freed > 0 {
            let mut search = self.search.lock().unwrap();
            search.hint = 0;
            search.mapped_end = search.mapped_end.max(mapped_end);
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
mod tests;
