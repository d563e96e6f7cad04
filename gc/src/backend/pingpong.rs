//! Two ranges, registered once at start-up; a cycle moves from one to the other.
//!
//! The to-range has no pages when the flip comes, so the flip needs no system call at all. Pages are
//! built in consumed from-pages and moved to their place in runs of 64; dense and late from-pages are moved
//! as they are. What a cycle leaves over stays mapped in the old from-range and feeds allocation; before
//! that range becomes a to-range again, the rest of it is moved to the parking range. `mmap_lock` is never
//! taken for writing.
//!
//! With `install=copy` (or without MOVE in the kernel) pages are copied from a buffer, and consumed pages
//! are given back to the kernel, as ART did before MOVE.
//!
//! With verification on, the flip moves the from-range's pages to a *vault* (by `mremap`, which does take
//! the lock), so that any use of an old address faults at once.

use super::{Backend, FlipPlan, Source, Staging};
use crate::allocate::RESERVE;
use crate::build::View;
use crate::config::{BackendKind, InstallKind};
use crate::core::CoreError;
use crate::install::{Installed, Installer, low_mask};
use firn_heap::pool::{PagePool, RUN};
use firn_heap::space::{Range, Space};
use firn_heap::sys::Errno;
use firn_heap::sys::map::{Advice, MapError, Reservation, advise, remap_dontunmap};
use firn_heap::table::Table;
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};

/// The default back end.
pub struct PingPong {
    installer: Installer,
    install: InstallKind,
    vault: Option<Reservation>,
    /// Mapped pages in each run of the parking range.
    parked: Table<AtomicU32>,
}

const PARKING: usize = 2;

/// A faulting thread copies until the heap is beyond its limit by this part of it (one in eight); from there on it
/// moves whole from-pages, and builds others in free pages and moves those. A move interrupts the other processors:
/// with two mutators on two of them a fault took 18 to 23 us (median) when whole pages were always moved, and 4 to 5
/// when they were copied, and `lru` did half as much.
const BEYOND: usize = 8;

impl PingPong {
    /// Registers the ranges for ever.
    pub fn new(
        space: &Space,
        installer: Installer,
        install: InstallKind,
        verify: bool,
    ) -> Result<PingPong, CoreError> {
        let bytes = space.geometry.range_bytes();
        for range in [&space.ranges[0], &space.ranges[1], &space.parking] {
            touch(range.base(), space.geometry.page);
            installer
                .uffd
                .register_missing(range.base(), range.len())
                .map_err(|errno| CoreError::Register { bytes: range.len(), errno })?;
        }
        let vault = if verify { Some(vault(bytes)?) } else { None };
        let parked = Table::new(space.geometry.parking_pages() / RUN, "firn parked")?;
        let backend = PingPong { installer, install, vault, parked };
        if install == InstallKind::Move {
            let address = space.parking.base();
            for run in 0..reserve(space) / RUN {
                let run_address = address + run * RUN * space.geometry.page;
                let there = backend.installer.copy(run_address, space.zeroes(), RUN).published;
                // All of it, unless memory is short.
                space.commit_regardless(there.count_ones() as usize);
                backend.parked[run].store(there.count_ones(), Ordering::Relaxed);
                space.parking.pool.put_mask(run, there);
            }
        }
        Ok(backend)
    }

    fn range<'a>(&self, space: &'a Space, pool: usize) -> &'a Range {
        if pool == PARKING { &space.parking } else { &space.ranges[pool] }
    }

    /// The order in which free pages are used: the range that must be empty next goes first.
    fn pools(&self, space: &Space) -> [usize; 3] {
        let current = space.current_index();
        [1 - current, PARKING, current]
    }

    /// Pages that taking a run from `pool` takes from the parking range.
    fn parked_run(&self, pool: usize) -> usize {
        if pool == PARKING { RUN } else { 0 }
    }

    fn left(&self, pool: usize, page: usize, pages: usize) {
        if pool == PARKING {
            // Release: pairs with the acquire in `park`: the run's addresses are free again.
            self.parked[page / RUN].fetch_sub(pages as u32, Ordering::Release);
        }
    }

    /// Moves free pages to the parking range, where they fill one run after the other: what is scattered here
    /// comes out there as whole runs. Gives back to the kernel what finds no place. Ends when the range has none
    /// left, or `most` have been moved.
    fn park(&self, space: &Space, range: usize, most: usize) {
        let page = space.geometry.page;
        let pool = &space.ranges[range].pool;
        let (mut slot, mut filled) = (0, 0);
        let mut wanted = most;
        while wanted > 0
            && let Some(taken) = pool.take(wanted.min(RUN))
        {
            wanted -= taken.mask.count_ones() as usize;
            for (mut first, mut count) in taken.runs() {
                while count > 0 {
                    // Acquire: pairs with the release in `left`.
                    while filled == 0
                        && slot < self.parked.len()
                        && self.parked[slot].load(Ordering::Acquire) != 0
                    {
                        slot += 1;
                    }
                    let part = count.min(RUN - filled);
                    let from = space.ranges[range].base() + first * page;
                    let mut stay = low_mask(part);
                    if slot < self.parked.len() {
                        let to = space.parking.base() + (slot * RUN + filled) * page;
                        let done = self.installer.move_free(to, from, part);
                        expect_absent(to, page, done.present);
                        let moved = done.moved();
                        self.parked[slot].fetch_add(moved.count_ones(), Ordering::Relaxed);
                        space.parking.pool.put_mask(slot, moved << filled);
                        stay &= !moved;
                    }
                    for bit in (0..part).filter(|bit| stay >> bit & 1 != 0) {
                        self.discard(space, from + bit * page, 1);
                    }
                    (first, count) = (first + part, count - part);
                    filled = (filled + part) % RUN;
                    slot += (filled == 0) as usize;
                }
            }
        }
    }

    fn discard(&self, space: &Space, address: usize, pages: usize) {
        // SAFETY: free pages, which nobody reads.
        let gone = unsafe { advise(address, pages * space.geometry.page, Advice::DontNeed) };
        debug_assert!(gone.is_ok());
        space.uncommit(pages);
    }

    /// Takes free pages and moves them to `dst`; returns how many. Leaves `reserve` pages in the parking range.
    fn supply(&self, space: &Space, dst: usize, pages: usize, reserve: usize) -> usize {
        let page = space.geometry.page;
        let mut have = 0;
        for pool in self.pools(space) {
            let range = self.range(space, pool);
            while have < pages && (pool != PARKING || range.pool.count() > reserve) {
                let Some(taken) = range.pool.take(pages - have) else { break };
                for (first, count) in taken.runs() {
                    let source = range.base() + first * page;
                    let done = self.installer.move_free(dst + have * page, source, count);
                    expect_absent(dst + have * page, page, done.present);
                    let moved = done.moved().trailing_ones() as usize;
                    // Refused (pinned, shared by a fork): such a page is of no use to moving. What was
                    // moved beyond it must not stay there, where nobody knows of it.
                    for bit in moved..count {
                        let arrived = done.moved() >> bit & 1 != 0;
                        let place = if arrived { dst + have * page } else { source };
                        self.discard(space, place + bit * page, 1);
                    }
                    self.left(pool, first, count);
                    have += moved;
                }
            }
        }
        have
    }

    /// The flip; or, if it is not to `act`, what of it changes nothing. Never inlined: both are to be the same code.
    #[inline(never)]
    fn turn(&self, space: &Space, plan: &FlipPlan, act: bool) -> Result<View, Errno> {
        let from_range = space.current_index();
        let to_range = 1 - from_range;
        // A thread that took part of a run puts the rest back in a second step, perhaps behind `prepare`'s
        // back. Nobody is in between now, and the count is never below the pages that are there.
        if space.ranges[to_range].pool.count() > 0 && act {
            self.park(space, to_range, usize::MAX);
        }
        let mut read_base = space.ranges[from_range].base();
        if let (Some(vault), true) = (&self.vault, act) {
            space.uncommit(take_all(&space.ranges[from_range].pool));
            // SAFETY: the world is stopped, the vault is empty, and from here on the from-range is
            // read at the vault's addresses only.
            unsafe { remap_dontunmap(read_base, space.geometry.range_bytes(), vault.base())? };
            read_base = vault.base();
        }
        let old_base = space.ranges[from_range].base();
        let ranges = (from_range, to_range);
        Ok(if act {
            plan.switch(space, ranges, old_base, read_base)
        } else {
            plan.view(space, ranges, old_base, read_base)
        })
    }
}

/// Pages that wait in the parking range for compaction to build in.
fn reserve(space: &Space) -> usize {
    RESERVE.min(space.geometry.limit_pages / 4) / RUN * RUN
}

/// Makes a VMA have its anon_vma: the first fault in a VMA without one takes `mmap_lock`.
pub(super) fn touch(address: usize, page: usize) {
    // SAFETY: the first page of a fresh range, which nobody uses yet.
    unsafe {
        (address as *mut u64).write_volatile(0);
        let _ = advise(address, page, Advice::DontNeed);
    }
}

pub(super) fn vault(bytes: usize) -> Result<Reservation, MapError> {
    let vault = Reservation::anonymous(bytes, 1 << 21, "firn vault")?;
    for advice in [Advice::NoHugepage, Advice::DontFork] {
        // SAFETY: touches no contents.
        let _ = unsafe { advise(vault.base(), bytes, advice) };
    }
    Ok(vault)
}

/// Ends the process if one of the pages in the mask `present` was there already, where free pages were to go: to
/// addresses that nobody has in use. Whatever is there, going on would hand it out as fresh memory, or show it as an
/// object later.
fn expect_absent(address: usize, page: usize, present: u64) {
    if present != 0 {
        let place = address + present.trailing_zeros() as usize * page;
        eprintln!(
            "firn: the page at {place:#x} of the heap is present, where none may be: something outside of Firn wrote \
             to an unused address of the heap or mapped memory over it, or this is a bug in Firn; the process cannot \
             go on"
        );
        std::process::abort();
    }
}

fn take_all(pool: &PagePool) -> usize {
    std::iter::from_fn(|| pool.take(RUN)).map(|taken| taken.mask.count_ones() as usize).sum()
}

impl Backend for PingPong {
    fn kind(&self) -> BackendKind {
        BackendKind::PingPong
    }

    fn install(&self) -> Option<InstallKind> {
        Some(self.install)
    }

    fn installer(&self) -> Option<&Installer> {
        Some(&self.installer)
    }

    fn populate(&self, space: &Space, first: usize, pages: usize) -> usize {
        let page = space.geometry.page;
        let dst = space.current().base() + first * page;
        let mut have = self.supply(space, dst, pages, reserve(space));
        let missing = pages - have;
        let ask = missing.min(space.geometry.limit_pages.saturating_sub(space.committed()));
        if ask > 0 && space.commit(ask) {
            let done = self.installer.copy_fresh(dst + have * page, space.zeroes(), ask);
            expect_absent(dst + have * page, page, done.present);
            let copied = done.published.trailing_ones() as usize;
            // What arrived behind a refused page must not stay there, where nobody knows of it.
            let arrived = done.published.count_ones() as usize;
            for bit in (copied..ask).filter(|bit| done.published >> bit & 1 != 0) {
                self.discard(space, dst + (have + bit) * page, 1);
            }
            space.uncommit(ask - arrived);
            have += copied;
        }
        if have < pages {
            have += self.supply(space, dst + have * page, pages - have, 0);
        }
        have
    }

    fn moves_ahead(&self) -> bool {
        self.install == InstallKind::Move
    }

    fn move_ahead(&self, space: &Space, first: usize, pages: usize) -> usize {
        let page = space.geometry.page;
        let current = space.current_index();
        let dst = space.current().base() + first * page;
        let mut have = 0;
        // What compaction builds in stays in the parking range, where it is in nobody's way. What others have taken
        // from there is replaced first.
        let lacking = reserve(space).saturating_sub(space.parking.pool.count());
        if lacking > 0 {
            self.park(space, 1 - current, lacking.next_multiple_of(RUN));
        }
        // The current range's own free pages are few, and moving them within it would gain nothing.
        for pool in [1 - current, PARKING] {
            let range = self.range(space, pool);
            while have < pages
                && space.parking.pool.count() >= reserve(space) + self.parked_run(pool)
            {
                let Some(runs) = range.pool.take_neighbours((pages - have) / RUN) else {
                    break;
                };
                let source = range.base() + runs.start * page;
                let to = dst + have * page;
                let (moved, error) = self.installer.move_neighbours(to, source, runs.len());
                expect_absent(to + moved * page, page, (error == Some(Errno::EEXIST)) as u64);
                have += moved;
                if moved < runs.len() {
                    // A page that cannot be moved (pinned, shared by a fork) is of no use here.
                    self.discard(space, source + moved * page, 1);
                    range.pool.put(runs.start + moved + 1, runs.len() - moved - 1);
                    let end = runs.start + moved + 1;
                    for first in (runs.start..end).step_by(RUN) {
                        self.left(pool, first, RUN.min(end - first));
                    }
                    return have;
                }
                for first in runs.step_by(RUN) {
                    self.left(pool, first, RUN);
                }
            }
        }
        have
    }

    fn take_back(&self, space: &Space, view: &View, first: usize, pages: usize) {
        if self.vault.is_some() {
            // They went to the vault with the rest, and are given back with it.
            space.uncommit(pages);
        } else {
            space.ranges[view.from_range].pool.put(first, pages);
        }
    }

    fn give_back(&self, space: &Space, range: usize, first: usize, pages: usize) {
        if self.install == InstallKind::Move {
            space.ranges[range].pool.put(first, pages);
        } else {
            let address = space.ranges[range].base() + first * space.geometry.page;
            self.discard(space, address, pages);
        }
    }

    fn prepare(&self, space: &Space) {
        self.park(space, 1 - space.current_index(), usize::MAX);
    }

    fn flip(&self, space: &Space, plan: &FlipPlan) -> Result<View, Errno> {
        self.turn(space, plan, true)
    }

    fn rehearse_flip(&self, space: &Space, plan: &FlipPlan) {
        let _ = black_box(self.turn(space, plan, false));
    }

    fn publish(
        &self,
        space: &Space,
        view: &View,
        page: usize,
        source: usize,
        pages: usize,
        kind: Source,
    ) -> Installed {
        let bytes = space.geometry.page;
        let dst = view.new_base + page * bytes;
        if kind == Source::Buffer || self.install == InstallKind::Copy {
            let done = self.installer.copy(dst, source, pages);
            space.commit_regardless(done.published.count_ones() as usize);
            return done;
        }
        super::move_or_copy(&self.installer, space, dst, source, pages)
    }

    fn staging(&self, space: &Space) -> Option<Staging> {
        if self.install == InstallKind::Copy {
            return None;
        }
        let page = space.geometry.page;
        self.pools(space).into_iter().find_map(|pool| {
            let range = self.range(space, pool);
            let taken = range.pool.take_newest_run()?;
            Some(Staging { address: range.base() + taken.first * page, pages: RUN, pool })
        })
    }

    fn builds_around(&self) -> bool {
        // Without MOVE nothing would stop copies from putting the heap beyond its limit.
        self.install == InstallKind::Move
    }

    fn short_of_memory(&self, space: &Space) -> bool {
        let limit = space.geometry.limit_pages;
        self.install == InstallKind::Move && space.committed() > limit + limit / BEYOND
    }

    fn spare_page(&self, space: &Space) -> Option<Staging> {
        if !self.short_of_memory(space) || space.free_pages() <= RESERVE {
            return None;
        }
        let page = space.geometry.page;
        self.pools(space).into_iter().find_map(|pool| {
            let range = self.range(space, pool);
            let (first, ..) = range.pool.take(1)?.runs().next()?;
            Some(Staging { address: range.base() + first * page, pages: 1, pool })
        })
    }

    fn unstage(&self, space: &Space, staging: &Staging, mask: u64) {
        let range = self.range(space, staging.pool);
        let first = (staging.address - range.base()) / space.geometry.page;
        for bit in (0..staging.pages).filter(|bit| mask >> bit & 1 != 0) {
            range.pool.put(first + bit, 1);
        }
    }

    fn moved_out(&self, space: &Space, pool: usize, address: usize, pages: usize) {
        let first = (address - self.range(space, pool).base()) / space.geometry.page;
        self.left(pool, first, pages);
    }

    fn recycle(&self, space: &Space, view: &View, from_page: usize, pages: usize) {
        if self.vault.is_some() {
            // Given back all at once when the cycle ends.
            space.uncommit(pages);
        } else if self.install == InstallKind::Move {
            space.ranges[view.from_range].pool.put(from_page, pages);
        } else {
            let address = view.read_base + from_page * space.geometry.page;
            self.discard(space, address, pages);
        }
    }

    fn finish(&self, _space: &Space, _view: &View) -> usize {
        if let Some(vault) = &self.vault {
            // SAFETY: no page of the from-range is read any more.
            let gone = unsafe { advise(vault.base(), vault.len(), Advice::DontNeed) };
            debug_assert!(gone.is_ok());
        }
        // What is over the limit goes back when mutators next need a chunk, or by trimming: `madvise` takes
        // `mmap_lock`, and a collector thread of low priority that is descheduled with it holds everybody up.
        0
    }

    fn release(&self, space: &Space, pages: usize) -> usize {
        let page = space.geometry.page;
        let mut released = 0;
        for pool in [PARKING, 0, 1] {
            let range = self.range(space, pool);
            while released < pages {
                let Some(taken) = range.pool.take((pages - released).min(RUN)) else { break };
                for (first, count) in taken.runs() {
                    self.discard(space, range.base() + first * page, count);
                    self.left(pool, first, count);
                    released += count;
                }
            }
        }
        released
    }
}
