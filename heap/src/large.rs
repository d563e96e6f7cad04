//! The non-moving space for large plain data.
//!
//! Objects without references that are large enough are not worth moving. They live here, each on its
//! own pages, in an ordinary mapping that no userfaultfd knows: giving pages back takes no lock of the
//! whole address space where the kernel has per-VMA locks, and system calls may use them as buffers.
//!
//! One byte of mark and one of page kind for each page; the object's header says its size. Allocation
//! is first fit under a lock: large objects are rare, and the lock is never held across a kernel call
//! or a sweep. Pages given back read as zeroes when used again.

use crate::WORD;
use crate::layout::{Header, LayoutTable};
use crate::space::Geometry;
use crate::sys::map::{Advice, MapError, Reservation, advise};
use crate::table::Table;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

const FREE: u8 = 0;
const START: u8 = 1;
const REST: u8 = 2;

/// The large-object space.
pub struct LargeSpace {
    memory: Reservation,
    kinds: Table<AtomicU8>,
    marks: Table<AtomicU8>,
    page: usize,
    search: Mutex<usize>,
    top: AtomicUsize,
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

    /// Allocates `pages` pages of zeroes and writes `header` at their start; marked from birth if
    /// `marked`. `None` if no stretch is long enough. The caller has taken the pages from the budget.
    pub fn allocate(&self, pages: usize, header: Header, marked: bool) -> Option<usize> {
        let first = {
            let mut hint = self.search.lock().unwrap();
            let first = self.find(*hint, pages).or_else(|| self.find(0, pages))?;
            *hint = first + pages;
            for page in first + 1..first + pages {
                // Relaxed: kinds of other pages are read under the lock, or by the sweeper at starts.
                self.kinds[page].store(REST, Ordering::Relaxed);
            }
            // Reserved but not yet an object: the sweeper must not read its header before it is there.
            self.kinds[first].store(REST, Ordering::Relaxed);
            // Relaxed: the sweeper takes it as a bound; `START` below is what it acts on.
            self.top.fetch_max(first + pages, Ordering::Relaxed);
            first
        };
        let address = self.memory.base() + first * self.page;
        // Release: pairs with the acquire in `is_marked`: who takes the mark for one of the object that was here before
        // sees that this one is gone.
        self.marks[first].store(marked as u8, Ordering::Release);
        // SAFETY: the pages were free and are now this caller's alone; mapped, writable, zero.
        unsafe { (address as *mut u64).write(header.0) };
        // Release: pairs with the acquire in `sweep`: whoever sees the start sees header and mark.
        self.kinds[first].store(START, Ordering::Release);
        Some(address)
    }

    fn find(&self, from: usize, pages: usize) -> Option<usize> {
        let mut run = 0;
        for page in from..self.kinds.len() {
            // Acquire: pairs with the release in `sweep`: the page was given back before.
            if self.kinds[page].load(Ordering::Acquire) == FREE {
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

    /// Frees every unmarked object and unmarks the rest. Returns (pages freed, pages live).
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
                // SAFETY: nothing refers to the object any more. On failure the pages keep stale
                // contents, which must not be handed out as zeroes: keep them out of use then.
                let gone = unsafe { advise(address, pages * self.page, Advice::DontNeed) };
                if gone.is_ok() {
                    freed += pages;
                    for page in page..page + pages {
                        // Release: pairs with the acquire in `find`.
                        self.kinds[page].store(FREE, Ordering::Release);
                    }
                }
            }
            page += pages;
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

    #[test]
    fn unmarked_objects_are_freed_and_their_pages_come_back_zeroed() {
        let geometry = Geometry::new(16 << 20);
        let layouts = LayoutTable::new().unwrap();
        let space = LargeSpace::new(&geometry).unwrap();
        let header = Header::new(LayoutId::DATA[0], 3 * geometry.page);
        let pages = space.pages_for(layouts.get(header.layout()).words(header));
        let a = space.allocate(pages, header, false).unwrap();
        let b = space.allocate(pages, header, false).unwrap();
        // SAFETY: inside the object just allocated.
        unsafe { (a as *mut u64).add(1).write(9) };
        assert!(space.mark(b) && !space.mark(b));
        assert_eq!(space.sweep(&layouts), (pages, pages));
        assert!(!space.is_object(a) && space.is_object(b));
        *space.search.lock().unwrap() = 0;
        let again = space.allocate(pages, header, true).unwrap();
        assert_eq!(again, a);
        // SAFETY: as above.
        assert_eq!(unsafe { (a as *const u64).add(1).read() }, 0);
        assert_eq!(
            space.sweep(&layouts),
            (pages, pages),
            "b lost its mark, `again` was born with one"
        );
    }
}
