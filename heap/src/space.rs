//! The ranges of the moving heap, their side tables, and the page budget.
//!
//! A [`Space`] has two moving ranges of equal size. One is *current*: mutators see only its addresses,
//! and allocation goes upwards in it, by whole pages. A cycle relocates what lives in the current range
//! (then called from-range) into the other one (to-range), and they swap roles at the flip. A third,
//! *parking* range holds free mapped pages that have no other place to be.
//!
//! **Budget.** `committed` counts the physical pages in all three ranges and in the large-object space;
//! it is what the heap's maximum limits. Moving a page between ranges leaves it unchanged.
//!
//! **Page records** ([`PageRecord`]), one per page of each moving range, are written by allocation as it
//! goes: what object covers the page's start, and where the first object begins. They let a collector
//! find its way into a page of objects that were never marked, because they were allocated after marking
//! began.
//!
//! **Page starts** ([`PageStart`]), one per to-page, are written by the plan: in which block of the
//! from-range the page's first word lies and what object covers it.
//!
//! Page numbers count from a range's start, and the same number means the same place in both ranges.

use crate::blocks::{BlockTable, prefetch};
use crate::large::LargeSpace;
use crate::layout::LayoutTable;
use crate::pool::PagePool;
use crate::sys::map::{Advice, MapError, Reservation, advise};
use crate::table::Table;
use crate::{BLOCK_BYTES, WORD, sys};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// How a page of never-marked objects begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRecord {
    /// Words from the page's start to the first object that begins in it; the page's length if none does.
    pub first: usize,
    /// Layout of the object that covers the page's start (0 if an object begins there).
    pub layout: u16,
    /// Words from that object's start to the page's start, or [`PageRecord::FAR`] if more.
    pub distance: u16,
}

impl PageRecord {
    /// Distances this long or longer: beyond every layout's fixed part, so inside the tail.
    pub const FAR: usize = u16::MAX as usize;

    /// A page that begins with an object.
    pub const OBJECT: PageRecord = PageRecord { first: 0, layout: 0, distance: 0 };

    fn pack(self) -> u64 {
        // 0 must mean "no record", so `first` is stored plus one.
        (self.first as u64 + 1) << 32 | (self.layout as u64) << 16 | self.distance as u64
    }

    fn unpack(word: u64) -> Option<PageRecord> {
        (word != 0).then(|| PageRecord {
            first: (word >> 32) as usize - 1,
            layout: (word >> 16) as u16,
            distance: word as u16,
        })
    }
}

/// Where a to-page's content begins in the from-range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageStart {
    /// The block that holds the page's first word.
    pub block: usize,
    /// Layout of the object that covers that word from before (0 if an object begins there).
    pub layout: u16,
    /// Words from that object's start to that word, or [`PageRecord::FAR`] if more.
    pub distance: u16,
}

/// Sizes of a space; constant.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Bytes in a page.
    pub page: usize,
    /// Words in a page.
    pub page_words: usize,
    /// Pages in each moving range: the budget and some slack for unused stretches.
    pub pages: usize,
    /// Pages that may be committed at most.
    pub limit_pages: usize,
}

impl Geometry {
    /// The geometry for a heap of at most `limit` bytes.
    pub fn new(limit: usize) -> Geometry {
        let page = sys::page_size();
        let limit_pages = limit / page;
        let slack = limit_pages / 32 + 1024;
        let pages = (limit_pages + slack).next_multiple_of(64);
        Geometry { page, page_words: page / WORD, pages, limit_pages }
    }

    /// Bytes of a moving range.
    pub fn range_bytes(&self) -> usize {
        self.pages * self.page
    }

    /// Pages in the parking range. What faulting threads build is beyond the limit for a while, up to a
    /// range's worth if nobody else compacts, and runs that are only partly used up are places lost.
    pub fn parking_pages(&self) -> usize {
        2 * self.pages
    }

    /// Blocks in a page.
    pub fn page_blocks(&self) -> usize {
        self.page / BLOCK_BYTES
    }
}

/// One moving range, or the parking range.
pub struct Range {
    memory: Reservation,
    /// Free, still mapped pages of the range.
    pub pool: PagePool,
    /// The second view and the file, where the back end writes through an alias.
    alias: Option<(Reservation, OwnedFd)>,
}

impl Range {
    fn new(page: usize, pages: usize, name: &str, shared: bool) -> Result<Range, MapError> {
        let bytes = page * pages;
        // 1 GiB alignment lets `mremap` move whole page-table pages; small ranges gain nothing from
        // more than 2 MiB and would only scatter.
        let align = if bytes >= 1 << 30 { 1 << 30 } else { 1 << 21 };
        let (memory, alias) = if shared {
            let (view, alias, file) = Reservation::memfd(bytes, align, name)?;
            (view, Some((alias, file)))
        } else {
            (Reservation::anonymous(bytes, align, name)?, None)
        };
        for advice in [Advice::NoHugepage, Advice::DontFork] {
            // SAFETY: neither advice touches contents. A refusal (a kernel without THP) is harmless.
            let _ = unsafe { advise(memory.base(), bytes, advice) };
        }
        Ok(Range { memory, pool: PagePool::new(pages)?, alias })
    }

    /// First address.
    #[inline(always)]
    pub fn base(&self) -> usize {
        self.memory.base()
    }

    /// Length in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Whether `address` lies in the range.
    #[inline(always)]
    pub fn contains(&self, address: usize) -> bool {
        self.memory.contains(address)
    }

    /// Where the alias view begins, and the file, for a shared range.
    pub fn alias(&self) -> Option<(usize, &OwnedFd)> {
        self.alias.as_ref().map(|(view, file)| (view.base(), file))
    }
}

/// The page records of one generation of allocation: each flip starts on the other table, so that
/// compaction can read the old ones while allocation writes new ones.
pub struct Records(Table<AtomicU64>);

impl Records {
    /// The record of page `page`, if allocation has put anything there.
    #[inline(always)]
    pub fn record(&self, page: usize) -> Option<PageRecord> {
        // Relaxed: written by the page's allocator; the flip orders it before collectors' reads.
        PageRecord::unpack(self.0[page].load(Ordering::Relaxed))
    }

    /// Writes the record of page `page`.
    #[inline(always)]
    pub fn set_record(&self, page: usize, record: PageRecord) {
        self.0[page].store(record.pack(), Ordering::Relaxed);
    }

    /// Forgets the records of `pages` pages from `first` on.
    pub fn clear_records(&self, first: usize, pages: usize) {
        for record in &self.0[first..first + pages] {
            record.store(0, Ordering::Relaxed);
        }
    }

    /// Replaces the record of a from-page whose live objects are all marked by its count of live words,
    /// if the page was ever entered.
    pub fn set_live_words(&self, page: usize, words: usize) {
        if self.0[page].load(Ordering::Relaxed) != 0 {
            self.0[page].store(words as u64 + 1, Ordering::Relaxed);
        }
    }

    /// What [`Records::set_live_words`] stored; `None` for a page that was never entered.
    #[inline(always)]
    pub fn live_words(&self, page: usize) -> Option<usize> {
        (self.0[page].load(Ordering::Relaxed) as usize).checked_sub(1)
    }
}

/// The moving ranges, the large-object space, and everything that describes them.
pub struct Space {
    /// Sizes.
    pub geometry: Geometry,
    /// The moving ranges.
    pub ranges: [Range; 2],
    /// Free mapped pages without another place.
    pub parking: Range,
    /// Live bitmap and forwarding.
    pub blocks: BlockTable,
    /// Object layouts.
    pub layouts: LayoutTable,
    /// Large plain data.
    pub large: LargeSpace,
    records: [Records; 2],
    records_index: AtomicUsize,
    starts: Table<AtomicU64>,
    states: Table<AtomicU8>,
    current: AtomicUsize,
    top: AtomicUsize,
    committed: AtomicUsize,
    /// The most that `committed` has ever been.
    most_committed: AtomicUsize,
    zero: Reservation,
}

impl Space {
    /// Reserves a space for at most `limit` bytes; `shared` backs the moving ranges with memory files.
    pub fn new(limit: usize, shared: bool) -> Result<Space, MapError> {
        let geometry = Geometry::new(limit);
        let zero = Reservation::anonymous(64 * geometry.page, geometry.page, "firn zeroes")?;
        // Reading maps the kernel's zero page 64 times: a source of zeroes that stays in the cache.
        // SAFETY: no contents are touched; before 5.14 the pages fault in when first read instead.
        let _ = unsafe { advise(zero.base(), zero.len(), Advice::PopulateRead) };
        Ok(Space {
            ranges: [
                Range::new(geometry.page, geometry.pages, "firn range 0", shared)?,
                Range::new(geometry.page, geometry.pages, "firn range 1", shared)?,
            ],
            parking: Range::new(geometry.page, geometry.parking_pages(), "firn parking", false)?,
            blocks: BlockTable::new(geometry.pages * geometry.page_blocks())?,
            layouts: LayoutTable::new()?,
            large: LargeSpace::new(&geometry)?,
            records: [
                Records(Table::new(geometry.pages, "firn page records")?),
                Records(Table::new(geometry.pages, "firn page records")?),
            ],
            records_index: AtomicUsize::new(0),
            starts: Table::new(geometry.pages, "firn page starts")?,
            states: Table::new(geometry.pages, "firn page states")?,
            current: AtomicUsize::new(0),
            top: AtomicUsize::new(0),
            committed: AtomicUsize::new(0),
            most_committed: AtomicUsize::new(0),
            zero,
            geometry,
        })
    }

    /// Bytes of side tables for a heap of the maximum size.
    pub fn side_table_bytes(&self) -> usize {
        let per_capacity = self.blocks.bytes()
            + self.starts.bytes()
            + self.states.bytes()
            + self.ranges.iter().map(|r| r.pool.bytes()).sum::<usize>()
            + self.records.iter().map(|r| r.0.bytes()).sum::<usize>()
            + self.parking.pool.bytes()
            + self.large.table_bytes();
        // The tables are as long as the ranges, which have slack; only entries of pages in use count.
        (per_capacity as u128 * self.geometry.limit_pages as u128 / self.geometry.pages as u128)
            as usize
    }

    /// Index of the current range.
    #[inline(always)]
    pub fn current_index(&self) -> usize {
        // Relaxed: changes only in the flip, which orders it.
        self.current.load(Ordering::Relaxed)
    }

    /// The range that mutators see.
    #[inline(always)]
    pub fn current(&self) -> &Range {
        &self.ranges[self.current_index()]
    }

    /// The other range.
    #[inline(always)]
    pub fn other(&self) -> &Range {
        &self.ranges[1 - self.current_index()]
    }

    /// The records that allocation writes now.
    #[inline(always)]
    pub fn records(&self) -> &Records {
        &self.records[self.records_index()]
    }

    /// Index of the records that allocation writes now.
    #[inline(always)]
    pub fn records_index(&self) -> usize {
        // Relaxed: changes only in the flip, which orders it.
        self.records_index.load(Ordering::Relaxed)
    }

    /// The records with this index.
    #[inline(always)]
    pub fn records_at(&self, index: usize) -> &Records {
        &self.records[index]
    }

    /// Makes range `index` current, with allocation going on at page `top`, on fresh records. Only in
    /// the flip.
    pub fn set_current(&self, index: usize, top: usize) {
        self.records_index.store(1 - self.records_index(), Ordering::Relaxed);
        self.current.store(index, Ordering::Relaxed);
        self.top.store(top, Ordering::Relaxed);
    }

    /// First page of the current range that was never handed out.
    #[inline(always)]
    pub fn top(&self) -> usize {
        // Acquire: pairs with the release in `grab`.
        self.top.load(Ordering::Acquire)
    }

    /// Hands out `pages` pages of addresses in the current range; `None` when the range is full.
    pub fn grab(&self, pages: usize) -> Option<usize> {
        // AcqRel: pairs with `top`.
        self.top
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |top| {
                (top + pages <= self.geometry.pages).then_some(top + pages)
            })
            .ok()
    }

    /// Where to-page `page`'s content begins.
    #[inline(always)]
    pub fn start(&self, page: usize) -> PageStart {
        // Relaxed: written by the plan; the flip orders it.
        let word = self.starts[page].load(Ordering::Relaxed);
        PageStart {
            block: (word >> 32) as usize,
            layout: (word >> 16) as u16,
            distance: word as u16,
        }
    }

    /// Writes where to-page `page`'s content begins. Only the plan does.
    pub fn set_start(&self, page: usize, start: PageStart) {
        let word = (start.block as u64) << 32 | (start.layout as u64) << 16 | start.distance as u64;
        self.starts[page].store(word, Ordering::Relaxed);
    }

    /// State byte of to-page `page`.
    #[inline(always)]
    pub fn state(&self, page: usize) -> &AtomicU8 {
        &self.states[page]
    }

    /// Asks for what is known of to-page `page`, to be read soon.
    #[inline(always)]
    pub fn prefetch_page(&self, page: usize) {
        prefetch(std::ptr::from_ref(&self.starts[page]).cast());
        prefetch(std::ptr::from_ref(&self.states[page]).cast());
    }

    /// Physical pages in use: all ranges and large objects.
    pub fn committed(&self) -> usize {
        self.committed.load(Ordering::Relaxed)
    }

    /// Takes the last `pages` handed-out pages, from `first` on, back, if nobody has been handed any since.
    pub fn ungrab(&self, first: usize, pages: usize) {
        // AcqRel: pairs with `grab`. A failure only wastes addresses until the next cycle.
        let _ =
            self.top.compare_exchange(first + pages, first, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Takes `pages` pages from the budget, if it has them.
    pub fn commit(&self, pages: usize) -> bool {
        // Relaxed: a count; nothing is published through it.
        let before = self.committed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            (now + pages <= self.geometry.limit_pages).then_some(now + pages)
        });
        if let Ok(before) = before {
            self.note_most(before + pages);
        }
        before.is_ok()
    }

    fn note_most(&self, now: usize) {
        // Relaxed, both: a count. It rarely changes, so it is looked at first.
        if now > self.most_committed.load(Ordering::Relaxed) {
            self.most_committed.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// The most pages that were ever committed at a time.
    pub fn most_committed(&self) -> usize {
        self.most_committed.load(Ordering::Relaxed)
    }

    /// Takes pages from the budget even beyond its end: for compaction, which gives them back soon.
    pub fn commit_regardless(&self, pages: usize) {
        let before = self.committed.fetch_add(pages, Ordering::Relaxed);
        self.note_most(before + pages);
    }

    /// Gives pages back to the budget (they are no longer mapped).
    pub fn uncommit(&self, pages: usize) {
        let before = self.committed.fetch_sub(pages, Ordering::Relaxed);
        debug_assert!(before >= pages, "more pages given back than taken");
    }

    /// Address of 64 readable pages of zeroes.
    pub fn zeroes(&self) -> usize {
        self.zero.base()
    }

    /// Free mapped pages, in all ranges.
    pub fn free_pages(&self) -> usize {
        self.ranges[0].pool.count() + self.ranges[1].pool.count() + self.parking.pool.count()
    }
}
