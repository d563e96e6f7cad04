//! Building one to-page: the inner loop of compaction.
//!
//! A page is built from the from-range, the live bitmap and the page tables alone, into a private or
//! staged page-sized buffer: nothing else is read, nothing else is written, nothing is allocated. So
//! anyone may build any page, a signal handler too, and two builds of the same page give the same bytes.
//!
//! Three kinds of to-page:
//! - *slid*: live words from one or more blocks, copied together, then walked object by object to
//!   forward their references (`crate::forward`);
//! - *dense*: one from-page as it is, of which the live objects are known from the bitmap;
//! - *late*: one from-page as it is, allocated after marking began, of which all objects are live and are
//!   found from the page's record.
//!
//! Dense and late pages may also be fixed in place, to be moved instead of copied: their slots are
//! rewritten one atomic word at a time, and forwarding leaves to-addresses alone, so that a concurrent
//! private build sees either the old or the new word and forwards both to the same.
//!
//! The hot functions are compiled twice on x86-64: for any processor, and for those with POPCNT and BMI.

use crate::forward::Ahead;
#[cfg(target_arch = "x86_64")]
use crate::forward::has_bit_operations;
use firn_heap::blocks::{BlockView, prefetch};
use firn_heap::layout::{Descriptor, Header, LayoutId};
use firn_heap::space::{Records, Space};
use firn_heap::{BLOCK_BYTES, BLOCK_WORDS, WORD};
use std::sync::atomic::{AtomicU64, Ordering};

/// What stays constant from the flip to the end of the cycle.
#[derive(Clone, Copy, Debug, Default)]
pub struct View {
    /// First address that references to the from-range carry.
    pub old_base: usize,
    /// Where the from-range's contents are read now.
    pub read_base: usize,
    /// First address of the to-range.
    pub new_base: usize,
    /// Bytes from the range's start to the first page allocated after marking began.
    pub late_from: usize,
    /// Bytes from the range's start to the end of allocation at the flip.
    pub old_top: usize,
    /// To-pages that hold marked objects.
    pub marked_pages: usize,
    /// To-pages in all: marked, then late ones.
    pub total_pages: usize,
    /// Index of the from-range among the space's ranges.
    pub from_range: usize,
    /// Index of the from-range's page records.
    pub from_records: usize,
    /// Index of the to-range.
    pub to_range: usize,
}

impl View {
    /// Whether from- and to-addresses are disjoint, so that forwarding twice changes nothing.
    pub fn disjoint(&self) -> bool {
        self.old_base != self.new_base
    }

    /// The from-page that late to-page `page` comes from.
    #[inline(always)]
    pub fn late_from_page(&self, page: usize, page_bytes: usize) -> usize {
        self.late_from / page_bytes + (page - self.marked_pages)
    }
}

/// Everything a build needs, borrowed together.
#[derive(Clone, Copy)]
pub struct Builder<'a> {
    /// Ranges and tables.
    pub space: &'a Space,
    /// The cycle's constants.
    pub view: &'a View,
}

/// Kind of a to-page, with its from-page where it has exactly one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageKind {
    /// Put together from live words.
    Slid,
    /// A from-page whose live objects the bitmap knows.
    Dense(usize),
    /// A from-page of objects allocated after marking began.
    Late(usize),
    /// A page that nothing was ever allocated on.
    Empty,
}

impl PageKind {
    /// Kind of the page `steps` after one of this kind, if the run goes on there: of whole pages, the from-pages are
    /// neighbours too.
    pub(crate) fn after(self, steps: isize) -> PageKind {
        match self {
            PageKind::Dense(from) => PageKind::Dense(from.wrapping_add_signed(steps)),
            PageKind::Late(from) => PageKind::Late(from.wrapping_add_signed(steps)),
            other => other,
        }
    }
}

impl<'a> Builder<'a> {
    /// Lines that a faulting thread asks for.
    pub const SOURCE: usize = 64;
    /// Lines of the next page that are asked for while one is being built.
    pub const NEXT: usize = 24;

    fn old_records(&self) -> &'a Records {
        self.space.records_at(self.view.from_records)
    }

    /// What kind of page to-page `page` is.
    pub fn kind(&self, page: usize) -> PageKind {
        let geometry = &self.space.geometry;
        if page >= self.view.marked_pages {
            let from = self.view.late_from_page(page, geometry.page);
            return match self.old_records().record(from) {
                Some(_) => PageKind::Late(from),
                None => PageKind::Empty,
            };
        }
        let start = self.space.start(page);
        if self.space.blocks.view(start.block).dense() {
            PageKind::Dense(start.block / geometry.page_blocks())
        } else {
            PageKind::Slid
        }
    }

    /// The lowest from-page that building to-page `page` reads.
    pub fn source_page(&self, page: usize) -> usize {
        let geometry = &self.space.geometry;
        if page < self.view.marked_pages {
            self.space.start(page).block / geometry.page_blocks()
        } else {
            self.view.late_from_page(page, geometry.page)
        }
    }

    /// Asks for the memory that building to-page `page` reads, `lines` lines of it.
    ///
    /// A faulting thread asks for 4 KiB ([`Builder::SOURCE`]) before it needs the first word: asking for less and leaving
    /// the rest to the processor cost 0.2 to 0.3 us more, of 1.2 us from the claim to the built page. Who builds page after
    /// page asks for the beginning of the next one ([`Builder::NEXT`]): the processor's own prefetching takes over, and
    /// asking for more delays the page at hand.
    #[inline(always)]
    pub fn prefetch_source(&self, page: usize, lines: usize) {
        const LINE: usize = 64;
        let from = if page < self.view.marked_pages {
            let block = self.space.start(page).block;
            self.space.blocks.prefetch(block * BLOCK_WORDS);
            // The end of the range may be nearer.
            let beyond = (block + 7).min(self.space.blocks.len() - 1);
            self.space.blocks.prefetch(beyond * BLOCK_WORDS);
            self.view.read_base + block * BLOCK_BYTES
        } else {
            self.from_address(self.view.late_from_page(page, self.space.geometry.page))
        };
        for line in 0..lines {
            prefetch((from + line * LINE) as *const u8);
        }
    }

    /// Address at which from-page `page` is read.
    #[inline(always)]
    pub fn from_address(&self, page: usize) -> usize {
        self.view.read_base + page * self.space.geometry.page
    }

    fn layout(&self, id: u16) -> &'a Descriptor {
        // SAFETY: ids in headers of live objects and in page tables come from registered layouts.
        unsafe { self.space.layouts.get_unchecked(LayoutId(id)) }
    }

    /// Builds to-page `page` into the page-sized buffer at `buffer`.
    ///
    /// # Safety
    /// A cycle must be between its flip and its reset; the caller's hazard must cover the page (or the
    /// caller own the whole compaction); `buffer` must be a writable, page-aligned page that nobody else
    /// uses.
    pub unsafe fn build(&self, page: usize, buffer: *mut u64) {
        #[cfg(target_arch = "x86_64")]
        if has_bit_operations() {
            // SAFETY: the processor has what the function needs; the rest is the caller's promise.
            return unsafe { build_with_bit_operations(self, page, buffer) };
        }
        // SAFETY: the caller's promise.
        unsafe { self.build_any(page, buffer) }
    }

    /// # Safety
    /// As [`Builder::build`].
    #[inline(always)]
    unsafe fn build_any(&self, page: usize, buffer: *mut u64) {
        let words = self.space.geometry.page_words;
        match self.kind(page) {
            // SAFETY: the caller's promise.
            PageKind::Slid => unsafe { self.slide(page, buffer) },
            PageKind::Dense(from) | PageKind::Late(from) => {
                // A concurrent in-place fix writes whole words; copying them as such is enough.
                let source = self.from_address(from) as *const AtomicU64;
                for word in 0..words {
                    // SAFETY: the from-page stays mapped under the caller's hazard; the buffer is a
                    // page. Relaxed: either value forwards to the same.
                    unsafe { buffer.add(word).write((*source.add(word)).load(Ordering::Relaxed)) };
                }
                self.fix_whole_page(page, buffer as *const AtomicU64);
            }
            PageKind::Empty => {
                // SAFETY: the buffer is a page.
                unsafe { buffer.write_bytes(0, words) };
            }
        }
    }

    /// Forwards the slots of a dense or late from-page where it is.
    ///
    /// # Safety
    /// As [`Builder::build`]; addresses must be disjoint ([`View::disjoint`]), and the from-page present.
    pub unsafe fn fix_in_place(&self, page: usize) {
        if let PageKind::Dense(from) | PageKind::Late(from) = self.kind(page) {
            self.fix_whole_page(page, self.from_address(from) as *const AtomicU64);
        }
    }

    /// Forwards the slots of a dense or late page's words at `at`.
    #[inline(always)]
    fn fix_whole_page(&self, page: usize, at: *const AtomicU64) {
        let words = self.space.geometry.page_words;
        let mut ahead = Ahead::new();
        if page >= self.view.marked_pages {
            self.fix_late(&mut ahead, page, at, words);
        } else {
            self.fix_dense(&mut ahead, page, at, words);
        }
        self.settle(ahead);
    }

    #[inline(always)]
    fn fix_late(&self, ahead: &mut Ahead, page: usize, at: *const AtomicU64, words: usize) {
        let from = self.view.late_from_page(page, self.space.geometry.page);
        let Some(record) = self.old_records().record(from) else { return };
        if record.layout != 0 {
            let distance = record.distance as usize;
            self.fix(ahead, self.layout(record.layout), at, distance, distance + record.first);
        }
        let mut word = record.first;
        while word < words {
            // SAFETY: inside the page.
            let header = Header(unsafe { (*at.add(word)).load(Ordering::Relaxed) });
            if header.0 == 0 {
                break;
            }
            let descriptor = self.layout(header.layout().0);
            let size = descriptor.words(header);
            self.fix(ahead, descriptor, at.wrapping_add(word), 0, size.min(words - word));
            word += size;
        }
    }

    #[inline(always)]
    fn fix_dense(&self, ahead: &mut Ahead, page: usize, at: *const AtomicU64, words: usize) {
        let start = self.space.start(page);
        let per_page = words / BLOCK_WORDS;
        let first_block = start.block / per_page * per_page;
        if start.layout != 0 {
            let end = self.end_of_cover(first_block, words);
            let distance = start.distance as usize;
            self.fix(ahead, self.layout(start.layout), at, distance, distance + end);
        }
        for index in 0..per_page {
            let mut starts = self.space.blocks.view(first_block + index).starts();
            while starts != 0 {
                let word = index * BLOCK_WORDS + starts.trailing_zeros() as usize;
                starts &= starts - 1;
                // SAFETY: inside the page.
                let header = Header(unsafe { (*at.add(word)).load(Ordering::Relaxed) });
                let descriptor = self.layout(header.layout().0);
                let size = descriptor.words(header);
                self.fix(ahead, descriptor, at.wrapping_add(word), 0, size.min(words - word));
            }
        }
    }

    /// Words from the start of `first_block` that belong to the object that covers it, at most `words`.
    fn end_of_cover(&self, first_block: usize, words: usize) -> usize {
        for index in 0..words / BLOCK_WORDS {
            let bits = self.space.blocks.view(first_block + index).bits;
            if bits != 0 {
                // The first bit in a block that begins inside an object is that object's last word.
                return index * BLOCK_WORDS + bits.trailing_zeros() as usize + 1;
            }
        }
        words
    }

    /// # Safety
    /// As [`Builder::build`].
    #[inline(always)]
    unsafe fn slide(&self, page: usize, buffer: *mut u64) {
        let words = self.space.geometry.page_words;
        let start = self.space.start(page);
        let page_word = page * words;
        let limit_block = self.view.late_from / BLOCK_BYTES;
        let mut block = start.block;
        let mut view = self.space.blocks.view(block);
        // Skip the block's live words that went to the page before.
        let mut live = view.live();
        for _ in view.destination()..page_word {
            live &= live - 1;
        }
        let mut filled = 0;
        'fill: loop {
            let base = self.view.read_base + block * BLOCK_BYTES;
            while live != 0 {
                let first = live.trailing_zeros() as usize;
                let run = (!(live >> first)).trailing_zeros() as usize;
                let run = run.min(BLOCK_WORDS - first).min(words - filled);
                // SAFETY: live words of the from-range, which stay under the caller's hazard; `filled +
                // run` is at most a page.
                unsafe { copy_words((base + first * WORD) as *const u64, buffer.add(filled), run) };
                filled += run;
                if filled == words {
                    break 'fill;
                }
                if first + run == BLOCK_WORDS {
                    break;
                }
                live &= u64::MAX << (first + run);
            }
            block += 1;
            // A dense run begins on its own page; the marked part ends at the late one.
            while block < limit_block {
                view = self.space.blocks.view(block);
                if view.bits != 0 || view.carry() {
                    break;
                }
                block += 1;
            }
            if block >= limit_block || view.dense() {
                break;
            }
            live = view.live();
        }
        // SAFETY: the rest of the buffer's page.
        unsafe { buffer.add(filled).write_bytes(0, words - filled) };
        self.fix_slid(
            start.layout,
            start.distance as usize,
            start.block,
            page_word,
            buffer,
            filled,
        );
    }

    #[inline(always)]
    fn fix_slid(
        &self,
        cover: u16,
        distance: usize,
        block: usize,
        page_word: usize,
        buffer: *mut u64,
        filled: usize,
    ) {
        let at = buffer as *const AtomicU64;
        let mut ahead = Ahead::new();
        let mut word = 0;
        if cover != 0 {
            word = self.cover_length(block, page_word, filled);
            self.fix(&mut ahead, self.layout(cover), at, distance, distance + word);
        }
        while word < filled {
            // SAFETY: inside the filled part of the buffer.
            let header = Header(unsafe { (*at.add(word)).load(Ordering::Relaxed) });
            let descriptor = self.layout(header.layout().0);
            let size = descriptor.words(header);
            if !descriptor.is_leaf() {
                self.fix(&mut ahead, descriptor, at.wrapping_add(word), 0, size.min(filled - word));
            }
            word += size;
        }
        self.settle(ahead);
    }

    /// Words at the page's start that belong to the object that covers it, at most `filled`.
    fn cover_length(&self, block: usize, page_word: usize, filled: usize) -> usize {
        let view = self.space.blocks.view(block);
        // Live words of the block before the page's first one.
        let mut before = view.live();
        for _ in view.destination()..page_word {
            before &= before - 1;
        }
        let first = before.trailing_zeros();
        let ends = view.bits & !view.starts() & (u64::MAX << first);
        if ends != 0 {
            return (ends.trailing_zeros() - first) as usize + 1;
        }
        let mut length = BLOCK_WORDS - first as usize;
        let mut block = block + 1;
        while length < filled {
            let bits = self.space.blocks.view(block).bits;
            if bits != 0 {
                length += bits.trailing_zeros() as usize + 1;
                break;
            }
            length += BLOCK_WORDS;
            block += 1;
        }
        length.min(filled)
    }

    /// The object starts of a block, for verification.
    pub fn block(&self, block: usize) -> BlockView {
        self.space.blocks.view(block)
    }
}

/// # Safety
/// As [`Builder::build`], on a processor with POPCNT, BMI1 and BMI2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt,bmi1,bmi2")]
unsafe fn build_with_bit_operations(builder: &Builder<'_>, page: usize, buffer: *mut u64) {
    // SAFETY: the caller's promise.
    unsafe { builder.build_any(page, buffer) }
}

/// Copies a few words; long runs go to `memcpy`.
///
/// # Safety
/// `from` must be readable and `to` writable for `words` words, without overlap.
#[inline(always)]
unsafe fn copy_words(from: *const u64, to: *mut u64, words: usize) {
    if words <= 16 {
        for word in 0..words {
            // SAFETY: the caller's promise. Volatile keeps the loop a loop: a call costs more.
            unsafe { to.add(word).write(from.add(word).read_volatile()) };
        }
    } else {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from, to, words) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firn_heap::space::PageStart;

    #[test]
    fn a_page_that_comes_from_the_very_end_of_a_full_range_can_be_asked_for() {
        let space = Space::new(1 << 20, false).unwrap();
        let base = space.current().base();
        let view = View { read_base: base, marked_pages: 1, total_pages: 1, ..View::default() };
        let blocks = space.blocks.len();
        for block in [0, blocks - 8, blocks - 7, blocks - 1] {
            space.set_start(0, PageStart { block, layout: 0, distance: 0 });
            Builder { space: &space, view: &view }.prefetch_source(0, Builder::SOURCE);
        }
    }
}
