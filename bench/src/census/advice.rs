//! madvise, in all its flavours.

use std::os::fd::AsFd;

use firn_heap::sys::ops::{self, Scratch};
use firn_heap::sys::{Protection, Userfaultfd};
use nix::libc;

use super::faults::prepared;
use super::known::Known;
use super::{Bench, Operation, Trouble};

const READ: Known = Known::always("R");
const WRITE: Known = Known::always("W");
const GIVE_BACK: Known = Known::since("R", 6, 17, "v");
const GUARD: Known = Known(["-", "-", "-", "-", "R", "R", "R", "v", "v"]);

/// `MADV_GUARD_INSTALL`, which the C library's headers do not have everywhere.
const GUARD_INSTALL: i32 = 102;
/// `MADV_GUARD_REMOVE`.
const GUARD_REMOVE: i32 = 103;
/// `MADV_COLLAPSE`.
const COLLAPSE: i32 = 25;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "DONTNEED, one plain VMA", since: (0, 0), known: GIVE_BACK, run: dontneed },
    Operation { name: "FREE, one plain VMA", since: (0, 0), known: GIVE_BACK, run: free },
    Operation { name: "DONTNEED, registered VMA", since: (0, 0), known: READ, run: registered },
    Operation { name: "DONTNEED, two VMAs", since: (0, 0), known: READ, run: two_vmas },
    Operation {
        name: "process_madvise(self, DONTNEED)",
        since: (6, 13),
        known: GIVE_BACK,
        run: by_process,
    },
    Operation { name: "GUARD_INSTALL", since: (6, 13), known: GUARD, run: guard_install },
    Operation { name: "GUARD_REMOVE", since: (6, 13), known: GUARD, run: guard_remove },
    Operation { name: "POPULATE_READ", since: (5, 14), known: READ, run: populate_read },
    Operation { name: "POPULATE_WRITE", since: (5, 14), known: READ, run: populate_write },
    Operation { name: "COLD", since: (5, 4), known: READ, run: cold },
    Operation { name: "PAGEOUT", since: (5, 4), known: READ, run: pageout },
    Operation { name: "WILLNEED", since: (0, 0), known: READ, run: willneed },
    Operation { name: "COLLAPSE", since: (6, 1), known: Known::always("3R+W"), run: collapse },
    Operation { name: "HUGEPAGE", since: (0, 0), known: WRITE, run: hugepage },
    Operation { name: "DONTFORK", since: (0, 0), known: WRITE, run: dontfork },
    Operation { name: "SEQUENTIAL", since: (0, 0), known: WRITE, run: sequential },
];

/// Counts one advice on four pages that are there.
fn count_advice(bench: &mut Bench<'_>, advice: i32) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let memory = prepared(4)?;
        memory.fill();
        bench.count(|_| memory.advise(0, 4, advice))
    })
}

fn dontneed(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_advice(bench, libc::MADV_DONTNEED)
}

fn free(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_advice(bench, libc::MADV_FREE)
}

fn registered(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    let uffd = Userfaultfd::open(true).map_err(|e| Trouble::Skipped(e.to_string()))?;
    bench.repeat(|bench| {
        let memory = prepared(4)?;
        memory.fill();
        uffd.register_missing(memory.base(), memory.len())?;
        bench.count(|_| memory.advise(0, 4, libc::MADV_DONTNEED))
    })
}

fn two_vmas(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let memory = prepared(4)?;
        memory.fill();
        memory.protect(0, 2, Protection::Read)?;
        bench.count(|_| memory.advise(0, 4, libc::MADV_DONTNEED))
    })
}

fn by_process(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    let this = ops::pidfd_self()?;
    bench.repeat(|bench| {
        let memory = prepared(4)?;
        memory.fill();
        bench.count(|_| memory.process_advise(this.as_fd(), libc::MADV_DONTNEED))
    })
}

fn guard_install(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_advice(bench, GUARD_INSTALL)
}

fn guard_remove(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let memory = prepared(4)?;
        // Where it is refused, so is the removal.
        let _ = memory.advise(0, 4, GUARD_INSTALL);
        bench.count(|_| memory.advise(0, 4, GUARD_REMOVE))
    })
}

/// As [`count_advice`], with pages that are not there.
fn count_populate(bench: &mut Bench<'_>, advice: i32) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let memory = prepared(4)?;
        bench.count(|_| memory.advise(1, 3, advice))
    })
}

fn populate_read(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_populate(bench, libc::MADV_POPULATE_READ)
}

fn populate_write(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_populate(bench, libc::MADV_POPULATE_WRITE)
}

fn cold(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_advice(bench, libc::MADV_COLD)
}

fn pageout(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_advice(bench, libc::MADV_PAGEOUT)
}

fn willneed(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_advice(bench, libc::MADV_WILLNEED)
}

fn collapse(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let memory = Scratch::huge(1)?;
        let pages = memory.pages();
        // Small pages first, whatever the machine's default is, then leave to collapse them.
        if memory.advise(0, pages, libc::MADV_NOHUGEPAGE).is_err() {
            return Err(Trouble::Absent("no transparent huge pages".to_owned()));
        }
        memory.fill();
        memory.advise(0, pages, libc::MADV_HUGEPAGE)?;
        bench.count(|_| memory.advise(0, pages, COLLAPSE))
    })
}

fn hugepage(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_advice(bench, libc::MADV_HUGEPAGE)
}

fn dontfork(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_advice(bench, libc::MADV_DONTFORK)
}

fn sequential(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_advice(bench, libc::MADV_SEQUENTIAL)
}
