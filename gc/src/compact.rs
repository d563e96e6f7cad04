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
use crate::backend::{Source, Staging};
use crate::build::{Builder, PageKind};
use crate::config::FaultOutcome;
use crate::core::{Core, phase};
use crate::fault::FaultSlot;
use crate::install::{Installed, low_mask};
use firn_heap::pages::{PageState, StateCell};
use firn_heap::sys::map::{MapError, Reservation};
use firn_heap::sys::thread::give_way;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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
            // Neighbours of the same kind; whole pages only while their from-pages are neighbours too.
            let expected = |step: usize| match kind {
                PageKind::Dense(from) => PageKind::Dense(from + step),
                PageKind::Late(from) => PageKind::Late(from + step),
                kind => kind,
            };
            let same =
                |i: usize| claimed >> i & 1 != 0 && builder.kind(first + i) == expected(i - index);
            let run = (index..pages).take_while(|&i| same(i)).count();
            match kind {
                PageKind::Empty => {
                    // Nobody can refer to it; allocation never entered it and never will.
                    for page in first + index..first + index + run {
                        StateCell(core.space.state(page)).set_consumed();
                    }
                }
                PageKind::Dense(_) | PageKind::Late(_) if in_place => {
                    self.whole_pages(core, slot, &builder, first + index, run);
                }
                _ => self.built(core, &builder, first + index, run),
            }
            index += run;
        }
        slot.hazard.withdraw();
    }

    /// Fixes from-pages in place and moves them; copies those that somebody is reading.
    fn whole_pages(
        &mut self,
        core: &Core,
        slot: &FaultSlot,
        builder: &Builder<'_>,
        first: usize,
        pages: usize,
    ) {
        let mut moving = 0u64;
        for index in 0..pages {
            let page = first + index;
            // SAFETY: claimed by this thread under its hazard; addresses are disjoint.
            unsafe { builder.fix_in_place(page) };
            let read_by_others = || core.faults.read_by_others(page, slot);
            moving |= (StateCell(core.space.state(page)).close(read_by_others) as u64) << index;
        }
        let mut index = 0;
        while index < pages {
            let run = (!(moving >> index)).trailing_zeros() as usize;
            let run = run.min(pages - index);
            if run > 0 {
                // What is refused stays `Moving`; `complete` tries it again.
                core.move_in_place(first + index, run, &core.counters.by_collector);
                index += run;
            } else {
                self.built(core, builder, first + index, 1);
                index += 1;
            }
        }
    }

    /// Builds claimed pages in recycled memory, or in a buffer, and publishes them.
    fn built(&mut self, core: &Core, builder: &Builder<'_>, first: usize, pages: usize) {
        let bytes = core.space.geometry.page;
        let staging = self.stage(core, pages);
        let source = staging.map_or(self.buffer.base(), |staging| staging.address);
        for index in 0..pages {
            let place = source + index * bytes;
            // SAFETY: the pages are claimed under this thread's hazard; the place is this thread's own.
            unsafe { builder.build(first + index, place as *mut u64) };
        }
        let kind = if staging.is_some() { Source::Staged } else { Source::Buffer };
        let done = core.backend.publish(&core.space, builder.view, first, source, pages, kind);
        let done =
            if staging.is_some() { core.look_again(done, first, pages, source) } else { done };
        // What the kernel refused stays claimed; `complete` tries it again.
        for index in (0..pages).filter(|index| done.refused >> index & 1 == 0) {
            StateCell(core.space.state(first + index)).set_mapped();
        }
        // Nobody else can move what this thread has built.
        let count = done.moved().count_ones() as u64;
        let copied = done.copied.count_ones() as u64;
        if let Some(staging) = &staging {
            core.unstage(staging, done);
        }
        let counter = if staging.is_some() { &core.counters.moved } else { &core.counters.copied };
        // Relaxed: counts.
        counter.fetch_add(count, Ordering::Relaxed);
        core.counters.copied.fetch_add(copied, Ordering::Relaxed);
        core.counters.by_collector.fetch_add(count + copied, Ordering::Relaxed);
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

impl Core {
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
    pub(crate) fn unstage(&self, staging: &Staging, done: Installed) {
        let gone = done.gone();
        self.backend.unstage(&self.space, staging, !gone);
        let moved = gone.count_ones() as usize;
        self.backend.moved_out(&self.space, staging.pool, staging.address, moved);
    }

    /// Moves from-pages that hold their final content (state `Moving`). Anyone may. Returns which
    /// of them the kernel refused: those are not there.
    pub(crate) fn move_in_place(&self, first: usize, pages: usize, count: &AtomicU64) -> u64 {
        // SAFETY: called after the flip.
        let builder = unsafe { self.builder() };
        let (PageKind::Dense(from) | PageKind::Late(from)) = builder.kind(first) else {
            unreachable!("only whole from-pages are moved in place")
        };
        let source = builder.from_address(from);
        let done =
            self.backend.publish(&self.space, builder.view, first, source, pages, Source::InPlace);
        let done = self.look_again(done, first, pages, source);
        for index in 0..pages {
            let cell = StateCell(self.space.state(first + index));
            // Only who took the page away, or found it gone, knows that nothing is left to recycle; only
            // who copied it, that something is. Whoever merely finds it present leaves the state to them.
            if done.gone() >> index & 1 != 0 {
                cell.set_consumed();
            } else if done.copied >> index & 1 != 0 {
                cell.set_mapped();
            }
        }
        let published = done.published.count_ones() as u64;
        let copied = done.copied.count_ones() as u64;
        // Relaxed: counts.
        self.counters.dense.fetch_add(published, Ordering::Relaxed);
        self.counters.copied.fetch_add(copied, Ordering::Relaxed);
        count.fetch_add(published + copied, Ordering::Relaxed);
        done.refused
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
