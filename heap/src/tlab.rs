//! Thread-local bump allocation.
//!
//! A mutator allocates by bumping a cursor through its own chunk: a few to 64 neighbouring pages of the
//! current range that are *already populated*, so that allocation takes no page fault.
//!
//! **Nothing is zeroed here.** What the memory contained before is still in it; whoever allocates an object writes
//! all words of it that will ever be read, arrays included, before its next safepoint. Zeroing pages ahead would
//! write each line twice. Instead each allocation asks for a line some way ahead of the cursor: memory
//! that was last written a whole heap ago is cold, and this way it is fetched while objects are being filled.
//!
//! Each time the cursor enters a new page, the page's [`PageRecord`] is written; that is all the
//! bookkeeping allocation does, once in a page. When the buffer is retired, a word of zero behind the last object
//! ends its page for those who walk it from its record.
//!
//! Invariants: `cursor <= limit <= end`; the pages below `limit` have their records; `limit` is a page boundary.
//! In a page of a retired buffer objects follow each other from the record's first one to the page's end or to a word
//! that is zero, which no header is.

use crate::WORD;
use crate::blocks::prefetch_for_write;
use crate::layout::LayoutId;
use crate::space::{PageRecord, Records};

/// Bytes from the cursor to what is asked for: far enough that the line is there when the cursor arrives, and not so far
/// that it is gone again.
pub const AHEAD: usize = 4096;

/// A stretch of populated pages, ready to allocate from.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    /// Number of the first page in the current range.
    pub first: usize,
    /// Pages, at most 64.
    pub pages: usize,
}

/// A mutator's allocation buffer.
#[derive(Debug)]
#[repr(C)]
pub struct Tlab {
    cursor: usize,
    limit: usize,
    end: usize,
    base: usize,
    chunk: Chunk,
}

impl Default for Tlab {
    fn default() -> Tlab {
        Tlab::empty()
    }
}

impl Tlab {
    /// A buffer without a chunk: the first allocation takes the slow path.
    pub const fn empty() -> Tlab {
        Tlab { cursor: 0, limit: 0, end: 0, base: 0, chunk: Chunk { first: 0, pages: 0 } }
    }

    /// Bytes that can still be allocated from the chunk.
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.end - self.cursor
    }

    /// The next object's address, if `bytes` more are ready: the allocation fast path.
    #[inline(always)]
    pub fn bump(&mut self, bytes: usize) -> Option<usize> {
        let start = self.cursor;
        if bytes <= self.limit - start {
            self.set_cursor(start + bytes);
            Some(start)
        } else {
            None
        }
    }

    /// Where the next object begins, and where the pages that have been entered end: all that allocating within them
    /// takes.
    #[inline(always)]
    pub fn ready(&self) -> (usize, usize) {
        (self.cursor, self.limit)
    }

    /// Says that what lay before `cursor`, which is in the stretch of [`Tlab::ready`], has been allocated, and asks for
    /// memory that soon will be.
    #[inline(always)]
    pub fn set_cursor(&mut self, cursor: usize) {
        debug_assert!((self.cursor..=self.limit).contains(&cursor));
        self.cursor = cursor;
        prefetch_for_write((cursor + AHEAD) as *const u8);
    }

    /// Starts on `chunk` of the current range, which begins at `base`.
    pub fn start(&mut self, records: &Records, base: usize, chunk: Chunk, page: usize) {
        records.clear_records(chunk.first, chunk.pages);
        self.base = base;
        self.cursor = base + chunk.first * page;
        self.limit = self.cursor;
        self.end = self.cursor + chunk.pages * page;
        self.chunk = chunk;
    }

    /// Allocates `bytes` for an object of `layout` beyond the limit: writes the records of the pages it enters.
    /// `None` if the chunk has not enough room.
    #[inline(never)]
    pub fn extend(
        &mut self,
        records: &Records,
        layout: LayoutId,
        bytes: usize,
        page: usize,
    ) -> Option<usize> {
        if bytes > self.room() {
            return None;
        }
        let start = self.cursor;
        let object_end = start + bytes;
        while self.limit < object_end {
            let entered = self.limit;
            let number = (entered - self.base) / page;
            records.set_record(number, record(start, object_end, entered, page, layout));
            self.limit = entered + page;
        }
        self.cursor = object_end;
        Some(start)
    }

    /// Gives the chunk up. Returns the whole pages that were never entered.
    pub fn retire(&mut self, page: usize) -> Option<Chunk> {
        if self.chunk.pages == 0 {
            return None;
        }
        let entered = (self.limit - self.base) / page;
        let unused = (self.end - self.limit) / page;
        if self.cursor < self.limit {
            // SAFETY: behind the last object, in a page that this buffer has entered.
            unsafe { end_of_objects(self.cursor) };
        }
        *self = Tlab::empty();
        (unused > 0).then_some(Chunk { first: entered, pages: unused })
    }
}

/// Ends the objects of a page before `address`.
///
/// # Safety
/// `address` must lie in a populated page that only the caller knows, and behind its last object.
#[inline(always)]
pub unsafe fn end_of_objects(address: usize) {
    // SAFETY: writable, by the contract.
    unsafe { (address as *mut u64).write(0) };
}

/// The record of the page at `entered`, which the object `start..end` of `layout` is the first to enter.
pub fn record(
    start: usize,
    end: usize,
    entered: usize,
    page: usize,
    layout: LayoutId,
) -> PageRecord {
    if start == entered {
        return PageRecord::OBJECT;
    }
    PageRecord {
        first: (end.min(entered + page) - entered) / WORD,
        layout: layout.0,
        distance: ((entered - start) / WORD).min(PageRecord::FAR) as u16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::Space;
    use crate::sys::page_size;

    #[test]
    fn a_retired_buffer_ends_its_objects_and_returns_what_it_has_not_entered() {
        const JUNK: u64 = u64::MAX;
        let page = page_size();
        let space = Space::new(256 * page, false).unwrap();
        let base = space.current().base();
        let words = page / WORD;
        // Sizes after which the page is used in part, almost, and to its end.
        for size in [3 * WORD, page - WORD, page, page + 2 * WORD] {
            // SAFETY: the first pages of a range that only this thread knows; they fault in.
            let memory = unsafe { std::slice::from_raw_parts_mut(base as *mut u64, 4 * words) };
            memory.fill(JUNK);
            let mut tlab = Tlab::empty();
            tlab.start(space.records(), base, Chunk { first: 0, pages: 4 }, page);
            let start = tlab.extend(space.records(), LayoutId::REFS, size, page);
            assert_eq!(start, Some(base));
            let entered = size.div_ceil(page);
            let rest = tlab.retire(page).expect("there are four pages");
            assert_eq!((rest.first, rest.pages), (entered, 4 - entered));
            let behind = memory[size / WORD];
            assert_eq!(behind == 0, !size.is_multiple_of(page), "size {size}");
            assert!(memory[size / WORD + 1..].iter().all(|&word| word == JUNK));
            assert!(
                (0..4).all(|number| space.records().record(number).is_some() == (number < entered))
            );
        }
    }
}
