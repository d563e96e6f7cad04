//! Compaction: building all to-pages, while mutators build those they need at once.
//!
//! Collector threads take runs of to-pages in ascending order: first the late region, whose pages mostly
//! move as they are and are what mutators touch next, then the marked part. A run is built in recycled pages
//! and moved to its place by one call (or copied from a buffer).
//!
//! **Recycling.** From-pages are spent in ascending order too. Everything below the source of the first
//! unpublished to-page (the *frontier*) is read by nobody any more, except by late builders of pages that
//! somebody else has published meanwhile; their hazards say what they read. What lies below both goes to the
//! back end at once: it is the memory that the next runs are built in, and that mutators allocate from.

use crate::allocate::READY_WHILE_COMPACTING;
use crate::backend::Staging;
use crate::build::{Builder, PageKind};
use crate::config::FaultOutcome;
use crate::core::{Core, phase};
use crate::fault::FaultSlot;
use crate::install::low_mask;
use crate::publish::Place;
use firn_heap::pages::{PageState, StateCell};
use firn_heap::sys::map::{MapError, Reservation};
use firn_heap::sys::thread::give_way;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What collector threads share in one compaction.
pub struct CompactShared {
    /// Next late to-page to take.
    late: AtomicUsize,
    /// Next marked to-page to take.
    marked: AtomicUsize,
    frontier: Mutex<Frontier>,
}

struct Frontier {
    /// First marked to-page that was not published when last looked at.
    marked: usize,
    /// First from-page not yet recycled.
    from: usize,
    /// The same for the late region, in to-pages.
    late: usize,
}

impl CompactShared {
    /// For the compaction that the core's view describes.
    pub fn new(core: &Core) -> CompactShared {
        // SAFETY: called after the flip.
        let view = unsafe { core.view() };
        CompactShared {
            late: AtomicUsize::new(view.marked_pages),
            marked: AtomicUsize::new(0),
            frontier: Mutex::new(Frontier { marked: 0, from: 0, late: view.marked_pages }),
        }
    }
}

/// A collector thread's means.
pub struct Compactor {
    /// Buffers for runs that are copied.
    buffer: Reservation,
    staging: Option<Staging>,
}

impl Compactor {
    /// With room for a run.
    pub fn new(page: usize) -> Result<Compactor, MapError> {
        Ok(Compactor {
            buffer: Reservation::anonymous(64 * page, page, "firn run buffer")?,
            staging: None,
        })
    }

    /// Builds to-pages until none is left to take.
    pub fn work(&mut self, core: &Core, shared: &CompactShared, worker: usize) {
        // SAFETY: called after the flip.
        let view = unsafe { core.view() };
        let slot = core.faults.worker(worker);
        let batch = core.config.batch;
        for (cursor, end) in [(&shared.late, view.total_pages), (&shared.marked, view.marked_pages)]
        {
            loop {
                // Relaxed: only uniqueness matters.
                let first = cursor.fetch_add(batch, Ordering::Relaxed);
                if first >= end {
                    break;
                }
                self.run(core, slot, first, batch.min(end - first));
                recycle(core, shared);
                if worker == 0 && core.ready.count() < READY_WHILE_COMPACTING / 4 {
                    core.make_ready(READY_WHILE_COMPACTING, || false);
                }
            }
        }
        if let Some(staging) = self.staging.take() {
            core.backend.unstage(&core.space, &staging, low_mask(staging.pages));
        }
    }

    /// Builds the pages of a run that nobody else has claimed.
    fn run(&mut self, core: &Core, slot: &FaultSlot, first: usize, pages: usize) {
        slot.hazard.announce(first, pages);
        let mut claimed = 0u64;
        for index in 0..pages {
            claimed |= (StateCell(core.space.state(first + index)).claim() as u64) << index;
        }
        if claimed == 0 {
            return slot.hazard.withdraw();
        }
        // No more than that: it would keep others from moving what they own.
        let (lowest, highest) = (claimed.trailing_zeros(), claimed.ilog2());
        slot.hazard.announce(first + lowest as usize, (highest - lowest) as usize + 1);
        // SAFETY: called after the flip.
        let builder = unsafe { core.builder() };
        let in_place = core.moves_in_place(&builder);
        let mut index = 0;
        while index < pages {
            if claimed >> index & 1 == 0 {
                index += 1;
                continue;
            }
            let kind = builder.kind(first + index);
            // Whole pages make one run only if their from-pages are neighbours too: between two dense
            // runs whose to-pages are neighbours there may be from-pages without a live word.
            let expected = |i: usize| kind.after((i - index) as isize);
            let same = |i: usize| claimed >> i & 1 != 0 && builder.kind(first + i) == expected(i);
            let run = (index..pages).take_while(|&i| same(i)).count();
            let run = first + index..first + index + run;
            index += run.len();
            match kind {
                PageKind::Empty => {
                    // Nobody can refer to it; allocation never entered it and never will.
                    for page in run {
                        StateCell(core.space.state(page)).set_consumed();
                    }
                }
                PageKind::Dense(_) | PageKind::Late(_) if in_place => {
                    self.whole_pages(core, slot, &builder, run);
                }
                _ => self.built(core, &builder, run),
            }
        }
        slot.hazard.withdraw();
    }

    /// Fixes from-pages in place and moves them; copies those that somebody is reading.
    fn whole_pages(
        &mut self,
        core: &Core,
        slot: &FaultSlot,
        builder: &Builder<'_>,
        pages: Range<usize>,
    ) {
        let moving = core.close_in_place(builder, pages.clone(), slot);
        // What is refused stays `Moving`; `complete` tries it again.
        core.move_or_build(pages, moving, &core.counters.by_collector, |page| {
            self.built(core, builder, page..page + 1);
        });
    }

    /// Builds claimed pages in recycled memory, or in a buffer, and publishes them.
    fn built(&mut self, core: &Core, builder: &Builder<'_>, pages: Range<usize>) {
        let place = match self.stage(core, pages.len()) {
            Some(staging) => Place::Free(staging),
            None => Place::Buffer(self.buffer.base()),
        };
        // SAFETY: the pages are claimed under this thread's hazard; the place is this thread's own.
        // What the kernel refused stays claimed; `complete` tries it again.
        unsafe { core.build_and_publish(builder, pages, place, &core.counters.by_collector) };
    }

    /// `pages` recycled neighbours to build in, if there are any.
    fn stage(&mut self, core: &Core, pages: usize) -> Option<Staging> {
        let bytes = core.space.geometry.page;
        if let Some(held) = self.staging.take() {
            if held.pages >= pages {
                let rest = held.pages - pages;
                if rest > 0 {
                    let address = held.address + pages * bytes;
                    self.staging = Some(Staging { address, pages: rest, ..held });
                }
                return Some(Staging { pages, ..held });
            }
            core.backend.unstage(&core.space, &held, low_mask(held.pages));
        }
        self.staging = core.backend.staging(&core.space);
        self.staging.is_some().then(|| self.stage(core, pages)).flatten()
    }
}

/// Hands spent from-pages to the back end. Skipped while another thread is at it.
fn recycle(core: &Core, shared: &CompactShared) {
    let Ok(mut frontier) = shared.frontier.try_lock() else { return };
    // SAFETY: called after the flip.
    let builder = unsafe { core.builder() };
    let view = builder.view;
    let published = |page: usize| StateCell(core.space.state(page)).get().is_published();
    while frontier.marked < view.marked_pages && published(frontier.marked) {
        frontier.marked += 1;
    }
    let late_page = view.late_from / core.space.geometry.page;
    let spent = if frontier.marked == view.marked_pages {
        late_page
    } else {
        builder.source_page(frontier.marked)
    };
    let limit = held_back(core, &builder, spent, view.marked_pages);
    give_back(core, &builder, &mut frontier.from, limit);
    core.memory_freed();
    let late_before = frontier.late;
    while frontier.late < view.total_pages && published(frontier.late) {
        let page = frontier.late;
        let held = core.faults.slots.iter().any(|slot| slot.hazard.covers(page, 1));
        if held && late_page_remains(core, &builder, page) {
            break;
        }
        frontier.late += 1;
    }
    for page in late_before..frontier.late {
        if late_page_remains(core, &builder, page) {
            let from = view.late_from_page(page, core.space.geometry.page);
            core.backend.recycle(&core.space, view, from, 1);
        }
    }
}

fn late_page_remains(core: &Core, builder: &Builder<'_>, page: usize) -> bool {
    let consumed = StateCell(core.space.state(page)).get() == PageState::Consumed;
    !consumed && builder.kind(page) != PageKind::Empty
}

/// The lowest from-page below `spent` that some builder of an already published page may still read.
fn held_back(core: &Core, builder: &Builder<'_>, spent: usize, marked_pages: usize) -> usize {
    core.faults
        .slots
        .iter()
        .filter_map(|slot| slot.hazard.announced())
        .filter(|&(first, _)| first < marked_pages)
        .map(|(first, _)| builder.source_page(first))
        .fold(spent, usize::min)
}

/// Recycles the from-pages from `*from` up to `limit` that were entered and not moved away.
fn give_back(core: &Core, builder: &Builder<'_>, from: &mut usize, limit: usize) {
    let view = builder.view;
    let records = core.space.records_at(view.from_records);
    let per_page = core.space.geometry.page_blocks();
    let words = core.space.geometry.page_words;
    let remains = |page: usize| {
        let block = core.space.blocks.view(page * per_page);
        records.live_words(page).is_some()
            && !(block.dense()
                && StateCell(core.space.state(block.destination() / words)).get()
                    == PageState::Consumed)
    };
    let mut page = *from;
    while page < limit {
        let run = (page..limit).take_while(|&p| remains(p)).count();
        if run > 0 {
            core.backend.recycle(&core.space, view, page, run);
        }
        page += run.max(1);
    }
    *from = (*from).max(limit);
}

/// How often a page may turn out to be there without anybody saying so.
const STRANGE: usize = 1000;

/// Ends the process: the page at `address` is there, but it was no thread of this heap that put it there.
fn foreign_page(address: usize) -> ! {
    eprintln!(
        "firn: the page at {address:#x} of the heap was present before its content was: something outside of Firn mapped \
         memory over the heap, or this is a bug in Firn; the process cannot go on"
    );
    std::process::abort();
}

/// After all collector threads are out of work: publishes what is left (pages whose claimers have not
/// finished, or that the kernel refused), closes the compaction to faults, waits for the last handler to leave,
/// and recycles the rest.
pub fn complete(core: &Core, shared: &CompactShared) {
    // SAFETY: called after the flip.
    let view = unsafe { core.view() };
    let slot = core.faults.worker(0);
    for page in 0..view.total_pages {
        let published = || StateCell(core.space.state(page)).get().is_published();
        let (mut refusals, mut strange) = (0, 0);
        while !published() {
            match core.ensure(page, slot, &core.counters.by_collector) {
                // Refused for now; the kernel does not say when to ask again.
                FaultOutcome::Waited => {
                    give_way(refusals);
                    refusals += 1;
                }
                // A handler has moved it and is just about to say so.
                _ => {
                    core.faults.await_departures(|| published() || !core.faults.occupied());
                    // Another one may have come and done the same, but not over and over.
                    strange += 1;
                    if strange > STRANGE && !published() {
                        foreign_page(view.new_base + page * core.space.geometry.page);
                    }
                }
            }
        }
    }
    // SeqCst: either a handler sees this, or `occupied` sees the handler.
    core.phase.store(phase::IDLE, Ordering::SeqCst);
    core.faults.await_departures(|| !core.faults.occupied());
    recycle(core, shared);
}

/// The whole compaction with the world stopped, for the back end that works so.
pub fn compact_in_pause(core: &Core, compactor: &mut Compactor) {
    let shared = CompactShared::new(core);
    compactor.work(core, &shared, 0);
    recycle(core, &shared);
}
