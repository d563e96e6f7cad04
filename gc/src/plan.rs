//! The plan: from the live bitmap to every object's new address.
//!
//! One pass over the blocks below the late region, concurrent with mutators (nobody else writes metadata,
//! and marking has ended). Destinations are running sums of live words; whenever a sum crosses a page
//! boundary, the to-page's start is written down.
//!
//! **Empty pages.** A page without a live word takes part in nothing: its blocks' entries are looked at, not
//! written. What is allocated until the flip counts as live, so a short plan keeps garbage out of the next heap:
//! in a heap of garbage alone, a third to a half as many pages are late.
//!
//! **Dense runs.** From-pages that are live enough, in long enough runs, are not worth sliding word by
//! word: they move as whole pages, keeping their dead words. Such a run must begin at a page that no
//! object straddles into, and gets a destination at a page boundary; the gap before it is less than a
//! page. Where it ends nothing special happens: an object that straddles out goes on contiguously.
//!
//! Pages allocated after marking began (the *late* region) need no plan: they move as whole pages too, all
//! by the same distance.

use firn_heap::layout::Header;
use firn_heap::space::{PageRecord, PageStart, Space};
use firn_heap::{BLOCK_BYTES, BLOCK_WORDS, WORD};

/// Fewest pages in a dense run: below, the gap before it costs too much.
const SHORTEST_RUN: usize = 16;

/// What the plan found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// To-pages needed for marked objects.
    pub marked_pages: usize,
    /// Words of marked objects.
    pub live_words: usize,
    /// From-pages in dense runs.
    pub dense_pages: usize,
}

/// Plans the move of everything marked below from-page `late_page`. Pages at least `dense_percent` live,
/// in runs, become dense.
pub fn plan(space: &Space, late_page: usize, dense_percent: usize) -> Plan {
    let geometry = &space.geometry;
    let per_page = geometry.page_blocks();
    let live_words = count_live(space, late_page);
    let enough = (geometry.page_words * dense_percent).div_ceil(100);
    let mut pass = Pass { space, carry: false, destination: 0, last_start: 0, next_page: 0 };
    let mut dense_pages = 0;
    let mut page = 0;
    while page < late_page {
        let run = if pass.carry { 0 } else { dense_run(space, page, late_page, enough) };
        if run >= SHORTEST_RUN {
            pass.dense(page, run);
            dense_pages += run;
            page += run;
        } else {
            // Nothing forwards through a page without a live word.
            if pass.carry || space.records().live_words(page).is_some_and(|live| live > 0) {
                for block in page * per_page..(page + 1) * per_page {
                    pass.slid(block);
                }
            }
            page += 1;
        }
    }
    let marked_pages = pass.destination.div_ceil(geometry.page_words);
    Plan { marked_pages, live_words, dense_pages }
}

/// Counts each page's live words into its record; returns their sum.
fn count_live(space: &Space, late_page: usize) -> usize {
    let per_page = space.geometry.page_blocks();
    let records = space.records();
    let (mut carry, mut sum) = (false, 0);
    for page in 0..late_page {
        let mut live = 0;
        let blocks = page * per_page..(page + 1) * per_page;
        if !carry && space.blocks.untouched(blocks.clone()) {
            records.set_live_words(page, 0);
            continue;
        }
        for block in blocks {
            // The carry must be in the metadata for the masks to be right.
            space.blocks.set_plan(block, 0, false, carry);
            let view = space.blocks.view(block);
            live += view.live().count_ones() as usize;
            carry = view.carries_out();
        }
        records.set_live_words(page, live);
        sum += live;
    }
    sum
}

/// Length of the run of dense pages that begins at `page`.
fn dense_run(space: &Space, page: usize, end: usize, enough: usize) -> usize {
    let records = space.records();
    (page..end).take_while(|&p| records.live_words(p).is_some_and(|live| live >= enough)).count()
}

struct Pass<'a> {
    space: &'a Space,
    /// The next block begins inside a live object.
    carry: bool,
    /// Where the next live word goes.
    destination: usize,
    /// First word of the last object seen.
    last_start: usize,
    /// The next to-page whose start is not known yet.
    next_page: usize,
}

impl Pass<'_> {
    fn slid(&mut self, block: usize) {
        self.space.blocks.set_plan(block, self.destination, false, self.carry);
        let view = self.space.blocks.view(block);
        let live = view.live();
        let count = live.count_ones() as usize;
        let starts = view.starts();
        let boundary = self.next_page * self.space.geometry.page_words;
        if count > 0 && boundary < self.destination + count {
            debug_assert!(boundary >= self.destination);
            let mut rest = live;
            for _ in self.destination..boundary {
                rest &= rest - 1;
            }
            self.begin_page(block, starts, rest.trailing_zeros() as usize);
        }
        if starts != 0 {
            self.last_start = block * BLOCK_WORDS + 63 - starts.leading_zeros() as usize;
        }
        self.destination += count;
        self.carry = view.carries_out();
    }

    /// To-page `next_page` begins with word `word` of `block`.
    fn begin_page(&mut self, block: usize, starts: u64, word: usize) {
        let here = block * BLOCK_WORDS + word;
        let start = if starts >> word & 1 != 0 {
            PageStart { block, layout: 0, distance: 0 }
        } else {
            let before = starts & ((1 << word) - 1);
            let object = if before != 0 {
                block * BLOCK_WORDS + 63 - before.leading_zeros() as usize
            } else {
                self.last_start
            };
            let address = self.space.current().base() + object * WORD;
            // SAFETY: a live object's header in the current range; headers never change.
            let header = Header(unsafe { (address as *const u64).read() });
            PageStart {
                block,
                layout: header.layout().0,
                distance: (here - object).min(PageRecord::FAR) as u16,
            }
        };
        self.space.set_start(self.next_page, start);
        self.next_page += 1;
    }

    fn dense(&mut self, first: usize, pages: usize) {
        let geometry = &self.space.geometry;
        let per_page = geometry.page_blocks();
        self.destination = self.destination.next_multiple_of(geometry.page_words);
        self.next_page = self.destination / geometry.page_words;
        for page in first..first + pages {
            for index in 0..per_page {
                let block = page * per_page + index;
                let carry = self.carry;
                self.space.blocks.set_plan(block, self.destination, true, carry);
                let view = self.space.blocks.view(block);
                if index == 0 {
                    // A page that no object covers is found by its block alone.
                    let starts = if carry { view.starts() } else { view.starts() | 1 };
                    self.begin_page(block, starts, 0);
                }
                if view.starts() != 0 {
                    let last = 63 - view.starts().leading_zeros() as usize;
                    self.last_start = block * BLOCK_WORDS + last;
                }
                self.destination += BLOCK_WORDS;
                self.carry = view.carries_out();
            }
        }
    }
}

/// The blocks below from-page `page`.
pub fn blocks_below(space: &Space, page: usize) -> usize {
    page * space.geometry.page / BLOCK_BYTES
}
