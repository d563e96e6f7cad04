//! Looking at mappings: the files of `/proc`, their ioctls, mincore and msync.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use firn_heap::sys::{Errno, ops, page_size};

use super::faults::prepared;
use super::known::Known;
use super::{Bench, Operation, Trouble};

const READ: Known = Known::always("R");
/// `pagemap_read` strips the tag from the address under a lock of its own, then walks under another
/// ("mm: Introduce untagged_addr_remote()", 6.4).
const PAGEMAP: Known = Known::since("R", 6, 4, "2R");

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "/proc/PID/maps",
        since: (0, 0),
        known: Known::since("R", 6, 17, "v"),
        run: maps,
    },
    Operation {
        name: "PROCMAP_QUERY",
        since: (6, 11),
        known: Known::since("R", 6, 18, "v"),
        run: query,
    },
    Operation {
        name: "/proc/PID/smaps",
        since: (0, 0),
        known: Known::since("R", 7, 2, "v"),
        run: smaps,
    },
    Operation { name: "/proc/PID/smaps_rollup", since: (0, 0), known: READ, run: rollup },
    Operation { name: "/proc/PID/pagemap", since: (0, 0), known: PAGEMAP, run: pagemap },
    Operation { name: "PAGEMAP_SCAN", since: (6, 7), known: READ, run: scan },
    Operation { name: "/proc/PID/statm", since: (0, 0), known: Known::always("v"), run: statm },
    Operation { name: "/proc/PID/status", since: (0, 0), known: Known::always("v"), run: status },
    Operation { name: "mincore", since: (0, 0), known: READ, run: mincore },
    Operation { name: "msync", since: (0, 0), known: READ, run: msync },
];

/// Counts one `pread` of at most a page from the file's start.
fn count_read(bench: &mut Bench<'_>, path: &str) -> Result<(), Trouble> {
    let file = File::open(path)?;
    // Written to, hence there: the kernel must not fault when it fills it.
    let mut buffer = vec![1; page_size()];
    bench.repeat(|bench| {
        bench.count(|_| match file.read_at(&mut buffer, 0) {
            Ok(_) => Ok(()),
            Err(e) => Err(Errno(e.raw_os_error().unwrap_or(0))),
        })
    })
}

fn maps(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_read(bench, "/proc/self/maps")
}

fn smaps(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_read(bench, "/proc/self/smaps")
}

fn rollup(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_read(bench, "/proc/self/smaps_rollup")
}

fn statm(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_read(bench, "/proc/self/statm")
}

fn status(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_read(bench, "/proc/self/status")
}

fn query(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    let file = File::open("/proc/self/maps")?;
    let memory = prepared(4)?;
    bench.repeat(|bench| bench.count(|_| ops::query_vma(file.as_fd(), memory.base()).map(drop)))
}

fn pagemap(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    let file = File::open("/proc/self/pagemap")?;
    let memory = prepared(4)?;
    let entry = (memory.base() / page_size() * size_of::<u64>()) as u64;
    let mut buffer = [1; size_of::<u64>()];
    bench.repeat(|bench| {
        bench.count(|_| match file.read_at(&mut buffer, entry) {
            Ok(_) => Ok(()),
            Err(e) => Err(Errno(e.raw_os_error().unwrap_or(0))),
        })
    })
}

fn scan(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    let file = File::open("/proc/self/pagemap")?;
    let memory = prepared(4)?;
    bench.repeat(|bench| {
        bench.count(|_| ops::scan_pages(file.as_fd(), memory.base(), memory.len()).map(drop))
    })
}

fn mincore(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    let memory = prepared(4)?;
    bench.repeat(|bench| bench.count(|_| memory.resident(2).map(drop)))
}

fn msync(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    let memory = prepared(4)?;
    bench.repeat(|bench| bench.count(|_| memory.sync()))
}
