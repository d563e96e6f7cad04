//! Installing pages through userfaultfd: what to do about every outcome.
//!
//! The kernel may stop a fill operation anywhere, for many reasons; this file is the one place that
//! decides what each of them means. After [`Installer::copy`] and [`Installer::move_run`] every page asked
//! for is either present (by us or by somebody else) or reported as refused, so that the caller can take
//! another way. Masks have one bit for each page of the run, at most 64. Safe in the fault handler.
//!
//! | outcome | COPY | MOVE |
//! |---|---|---|
//! | partial progress, `EAGAIN` | go on behind it | the same |
//! | `EEXIST` | somebody was faster: skip the page | the same, its source stays; but if that is gone, it has been moved |
//! | `ENOENT` | the range is not registered (any more): refused | the source is gone: somebody moved it: skip |
//! | `EBUSY`, `EINVAL`, others | refused | refused: copy it instead |
//! | `ENOMEM` | yield, try again a bounded number of times, then refused | the same |
//! | `ESRCH` | the process is ending: refused | the same |
//!
//! **A MOVE that denies itself.** Since it moves pages in batches (6.18), `move_pages` in the kernel's `mm/userfaultfd.c` keeps
//! the `EAGAIN` of a page that was being migrated, moves it and its neighbours at the second try, takes that
//! `EAGAIN` for the outcome, tries a third time, and answers `EEXIST`: they are there because it has put them there.
//! The kernel migrates pages whenever it compacts its memory (`echo 1 > /proc/sys/vm/compact_memory` does it at once). So
//! where nobody says that he has published the page, the source is looked at: if it is gone, the page has been
//! moved ([`Installer::look_again`]). (A source in swap looks as if it were gone.)

use crate::config::InstallKind;
use firn_heap::sys::Errno;
use firn_heap::sys::map::{resident_mask, resident_page};
use firn_heap::sys::thread::give_way;
use firn_heap::sys::uffd::{Outcome, Userfaultfd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Errors that are counted one by one; any other shares the last place.
pub const COUNTED: [Errno; 8] = [
    Errno::EAGAIN,
    Errno::EEXIST,
    Errno::ENOENT,
    Errno::EBUSY,
    Errno::EINVAL,
    Errno::ENOMEM,
    Errno::ESRCH,
    Errno(0),
];

/// How often an operation that found no memory is tried again.
const MEMORY_ATTEMPTS: u32 = 100;

/// How often fresh pages that were refused are asked for again.
const REFUSALS: u32 = 8;

/// Counts of incomplete operations, by operation and error.
#[derive(Default)]
pub struct Retries([[AtomicU64; COUNTED.len()]; 2]);

impl Retries {
    fn note(&self, kind: InstallKind, errno: Errno) {
        let index = COUNTED.iter().position(|e| *e == errno).unwrap_or(COUNTED.len() - 1);
        // Relaxed: a count.
        self.0[kind as usize][index].fetch_add(1, Ordering::Relaxed);
    }

    /// Takes all counts that are not zero: (operation, error, count). Allocates nothing: a cycle does this.
    pub fn take(&self) -> impl Iterator<Item = (InstallKind, Errno, u64)> + '_ {
        [InstallKind::Move, InstallKind::Copy].into_iter().flat_map(|kind| {
            COUNTED.into_iter().zip(&self.0[kind as usize]).filter_map(move |(errno, counter)| {
                let count = counter.swap(0, Ordering::Relaxed);
                (count > 0).then_some((kind, errno, count))
            })
        })
    }
}

/// What became of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Installed {
    /// Pages that this call published.
    pub published: u64,
    /// Pages that are not present, and that the kernel would not publish.
    pub refused: u64,
    /// Pages that refused to be moved and were published by a copy: their source is still where it was.
    pub copied: u64,
    /// Pages that were there already (`EEXIST`): somebody was faster, or they must not be there.
    pub present: u64,
    /// Pages whose source is no longer where it was although this call did not move it.
    pub vanished: u64,
    /// Pages that were there already, and whose source is gone: another thread has moved them, or this call and the
    /// kernel denies it. If nobody else can move the source, this call has.
    pub arrived: u64,
}

impl Installed {
    /// Pages that are there by a call of this thread, if nobody else can have moved their sources.
    pub fn moved(&self) -> u64 {
        self.published | self.arrived
    }

    /// Pages whose source is no longer where it was.
    pub fn gone(&self) -> u64 {
        self.published | self.vanished | self.arrived
    }
}

/// Installs pages into a registered range.
pub struct Installer {
    /// The descriptor.
    pub uffd: Userfaultfd,
    /// Whether installing must wake threads that wait in the kernel.
    pub wake: bool,
    /// Counts for the reports.
    pub retries: Retries,
    page: usize,
}

/// The lowest `count` bits.
#[inline(always)]
pub fn low_mask(count: usize) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

impl Installer {
    /// An installer; `wake` for fault-thread delivery.
    pub fn new(uffd: Userfaultfd, wake: bool) -> Installer {
        let page = firn_heap::sys::page_size();
        Installer { uffd, wake, retries: Retries::default(), page }
    }

    /// Publishes `pages` pages at `dst` with the contents at `src`.
    pub fn copy(&self, dst: usize, src: usize, pages: usize) -> Installed {
        self.run(InstallKind::Copy, dst, src, pages)
    }

    /// As [`Installer::copy`], for fresh pages: those that are refused are asked for again, so that what the kernel
    /// refuses for the moment costs no collection.
    pub fn copy_fresh(&self, dst: usize, src: usize, pages: usize) -> Installed {
        let mut result = self.copy(dst, src, pages);
        for turn in 0..REFUSALS {
            if result.refused == 0 {
                break;
            }
            give_way(turn);
            for bit in (0..pages).filter(|bit| result.refused >> bit & 1 != 0) {
                let again = self.copy(dst + bit * self.page, src + bit * self.page, 1);
                result.published |= again.published << bit;
                result.present |= again.present << bit;
            }
            result.refused &= !(result.published | result.present);
        }
        result
    }

    /// Moves `pages` pages from `src`, which nobody else can move, to missing ones at `dst`.
    pub fn move_free(&self, dst: usize, src: usize, pages: usize) -> Installed {
        self.look_again(self.move_run(dst, src, pages), src, u64::MAX)
    }

    /// Looks at the sources of those pages of a run, moved from `src` with the outcome `done`, that were there already
    /// and are in the mask `doubtful`: if they are gone, the pages count as arrived. Takes `mmap_lock` for
    /// reading, so it is only for pages of which nobody says that they are published: a collector thread of low priority
    /// may be descheduled with the lock.
    pub fn look_again(&self, mut done: Installed, src: usize, doubtful: u64) -> Installed {
        let left = done.present & doubtful;
        if left == 0 {
            return done;
        }
        // One look for all of them.
        let first = left.trailing_zeros() as usize;
        let pages = 64 - left.leading_zeros() as usize - first;
        if let Ok(there) = resident_mask(src + first * self.page, pages) {
            let gone = left & !(there << first);
            done.present &= !gone;
            done.arrived |= gone;
        }
        done
    }

    /// Publishes `pages` pages at `dst` by moving those at `src`.
    pub fn move_run(&self, dst: usize, src: usize, pages: usize) -> Installed {
        self.run(InstallKind::Move, dst, src, pages)
    }

    /// Moves any number of pages, which nobody else can move, to missing ones; returns how many, from the first on, have arrived. The first
    /// page that cannot be moved ends it; the error says why.
    pub fn move_neighbours(&self, dst: usize, src: usize, pages: usize) -> (usize, Option<Errno>) {
        let (mut done, mut attempts, mut turn) = (0, 0, 0);
        while done < pages {
            let (offset, left) = (done * self.page, (pages - done) * self.page);
            let outcome = self.operate(InstallKind::Move, dst + offset, src + offset, left);
            done += outcome.done / self.page;
            let Some(errno) = outcome.error else { continue };
            self.retries.note(InstallKind::Move, errno);
            match errno {
                Errno::EAGAIN | Errno::EINTR => {
                    give_way(turn);
                    turn += 1;
                }
                Errno::EEXIST if source_gone(src + done * self.page) => done += 1,
                Errno::ENOMEM if attempts < MEMORY_ATTEMPTS => {
                    give_way(attempts);
                    attempts += 1;
                }
                _ => return (done, Some(errno)),
            }
        }
        (done, None)
    }

    #[inline(always)]
    fn operate(&self, kind: InstallKind, dst: usize, src: usize, len: usize) -> Outcome {
        match kind {
            InstallKind::Copy => self.uffd.copy(dst, src, len, self.wake),
            InstallKind::Move => self.uffd.move_pages(dst, src, len, false, self.wake),
        }
    }

    fn run(&self, kind: InstallKind, dst: usize, src: usize, pages: usize) -> Installed {
        let mut result = Installed::default();
        let mut done = 0;
        let (mut attempts, mut turn) = (0, 0);
        while done < pages {
            let offset = done * self.page;
            let left = (pages - done) * self.page;
            let outcome = self.operate(kind, dst + offset, src + offset, left);
            let advanced = outcome.done / self.page;
            result.published |= low_mask(advanced) << done;
            done += advanced;
            let Some(errno) = outcome.error else { continue };
            self.retries.note(kind, errno);
            if done == pages || (errno == Errno::EAGAIN && advanced > 0) {
                continue;
            }
            let here = 1u64 << done;
            match errno {
                Errno::EAGAIN | Errno::EINTR => {
                    give_way(turn);
                    turn += 1;
                }
                Errno::EEXIST => {
                    if self.wake {
                        let _ = self.uffd.wake(dst + done * self.page, self.page);
                    }
                    result.present |= here;
                    done += 1;
                }
                Errno::ENOENT if kind == InstallKind::Move => {
                    result.vanished |= here;
                    done += 1;
                }
                Errno::ENOMEM if attempts < MEMORY_ATTEMPTS => {
                    give_way(attempts);
                    attempts += 1;
                }
                _ => {
                    result.refused |= here;
                    done += 1;
                }
            }
        }
        result
    }
}

/// Whether the page that was to be moved from `address` is there no more.
fn source_gone(address: usize) -> bool {
    resident_page(address) == Ok(false)
}
