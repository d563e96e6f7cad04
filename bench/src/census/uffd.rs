//! userfaultfd: its faults, and its ioctls.

use std::os::fd::AsFd;

use firn_heap::sys::ops::{self, Scratch, register_mode};
use firn_heap::sys::uffd::Features;
use firn_heap::sys::{Errno, Outcome, Userfaultfd, page_size};

use super::faults::{alone, filled_memfd, prepared};
use super::known::Known;
use super::{Bench, Operation, Trouble};

const FAULT: Known = Known::since("R", 6, 6, "v");
const FILL: Known = Known::since("R", 6, 9, "v");
const READ: Known = Known::always("R");
const WRITE: Known = Known::always("W");

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "missing fault, SIGBUS", since: (0, 0), known: FAULT, run: missing },
    Operation { name: "write-protect fault, SIGBUS", since: (0, 0), known: FAULT, run: protected },
    Operation { name: "minor fault, SIGBUS", since: (5, 14), known: FAULT, run: minor },
    Operation {
        name: "missing fault, fault thread",
        since: (0, 0),
        known: Known(["2R", "2R", "v+R", "v+R", "v+R", "v+R", "v+R", "v+R", "v+R"]),
        run: by_thread,
    },
    Operation { name: "UFFDIO_COPY", since: (0, 0), known: FILL, run: copy },
    Operation { name: "UFFDIO_ZEROPAGE", since: (0, 0), known: FILL, run: zeropage },
    Operation { name: "UFFDIO_CONTINUE", since: (5, 14), known: FILL, run: continue_ },
    Operation { name: "UFFDIO_POISON", since: (6, 6), known: FILL, run: poison },
    Operation {
        name: "UFFDIO_MOVE",
        since: (6, 8),
        known: Known(["-", "-", "-", "R", "v", "v", "v", "v", "v"]),
        run: move_,
    },
    Operation { name: "COPY, first in a VMA", since: (0, 0), known: READ, run: first_copy },
    Operation { name: "ZEROPAGE, first in a VMA", since: (0, 0), known: READ, run: first_zeropage },
    Operation { name: "MOVE, first in a VMA", since: (6, 8), known: READ, run: first_move },
    Operation { name: "UFFDIO_WRITEPROTECT", since: (0, 0), known: READ, run: write_protect },
    Operation { name: "UFFDIO_REGISTER", since: (0, 0), known: WRITE, run: register },
    Operation { name: "UFFDIO_UNREGISTER", since: (0, 0), known: WRITE, run: unregister },
    Operation { name: "close(userfaultfd)", since: (0, 0), known: WRITE, run: close },
];

fn open(sigbus: bool) -> Result<Userfaultfd, Trouble> {
    Userfaultfd::open(sigbus).map_err(|e| Trouble::Skipped(e.to_string()))
}

fn open_with(feature: Features) -> Result<Userfaultfd, Trouble> {
    let uffd = open(true)?;
    match uffd.features_available().contains(feature) {
        true => Ok(uffd),
        false => Err(Trouble::Absent(format!("no feature {feature}"))),
    }
}

fn all(outcome: Outcome) -> Result<(), Errno> {
    outcome.error.map_or(Ok(()), Err)
}

/// Counts `touch` of `memory` up to the moment at which the handler of its SIGBUS runs, which then
/// has `answer` make the page accessible.
fn count_trapped(
    bench: &mut Bench<'_>,
    memory: &Scratch,
    touch: impl FnOnce(),
    answer: impl Fn() -> Result<(), Errno>,
) -> Result<(), Trouble> {
    let trapped = std::cell::Cell::new(false);
    bench.count(|stop| {
        let handler = || {
            stop();
            trapped.set(answer().is_ok());
        };
        memory.trapping(&handler, touch)
    })?;
    match trapped.get() {
        true => Ok(()),
        false => Err(Trouble::Failed("there was no SIGBUS, or it could not be answered".into())),
    }
}

fn missing(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    let uffd = open(true)?;
    bench.repeat(|bench| {
        let memory = prepared(4)?;
        uffd.register_missing(memory.base(), memory.len())?;
        let answer = || all(uffd.zeropage(memory.page(2), page_size(), false));
        count_trapped(bench, &memory, || memory.write(2), answer)
    })
}

fn protected(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    let uffd = open_with(Features::WP)?;
    bench.repeat(|bench| {
        let memory = prepared(4)?;
        memory.write(2);
        ops::register(&uffd, memory.base(), memory.len(), register_mode::WP)?;
        ops::write_protect(&uffd, memory.page(2), page_size(), true)?;
        let answer = || ops::write_protect(&uffd, memory.page(2), page_size(), false);
        count_trapped(bench, &memory, || memory.write(2), answer)
    })
}

fn minor(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    let uffd = open_with(Features::MINOR_SHMEM)?;
    let file = filled_memfd(4)?;
    bench.repeat(|bench| {
        let memory = Scratch::of_file(file.as_fd(), 4, true)?;
        ops::register(&uffd, memory.base(), memory.len(), register_mode::MINOR)?;
        let answer = || ops::continue_pages(&uffd, memory.page(2), page_size());
        count_trapped(bench, &memory, || memory.write(2), answer)
    })
}

fn by_thread(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    let uffd = open(false)?;
    std::thread::scope(|scope| {
        let server = scope.spawn(|| -> Result<(), Trouble> {
            while let Some(fault) = uffd.read_fault(None)? {
                all(uffd.zeropage(fault.addr, page_size(), true))?;
            }
            Ok(())
        });
        let done = bench.repeat(|bench| {
            let memory = prepared(4)?;
            uffd.register_missing(memory.base(), memory.len())?;
            bench.count(|_| {
                memory.write(2);
                Ok(())
            })
        });
        uffd.interrupt();
        let served = server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        done.and(served)
    })
}

/// Counts `fill` of a page in a registered scratch, given a page to take from.
fn count_fill(
    bench: &mut Bench<'_>,
    feature: Features,
    first: bool,
    fill: impl Fn(&Userfaultfd, &Scratch, &Scratch) -> Result<(), Errno>,
) -> Result<(), Trouble> {
    let uffd = open_with(feature)?;
    bench.repeat(|bench| {
        let source = prepared(4)?;
        source.fill();
        let memory = if first { alone(4)? } else { prepared(4)? };
        uffd.register_missing(memory.base(), memory.len())?;
        bench.count(|_| fill(&uffd, &memory, &source))
    })
}

fn do_copy(uffd: &Userfaultfd, memory: &Scratch, source: &Scratch) -> Result<(), Errno> {
    all(uffd.copy(memory.page(2), source.page(2), page_size(), false))
}

fn do_zeropage(uffd: &Userfaultfd, memory: &Scratch, _: &Scratch) -> Result<(), Errno> {
    all(uffd.zeropage(memory.page(2), page_size(), false))
}

fn do_move(uffd: &Userfaultfd, memory: &Scratch, source: &Scratch) -> Result<(), Errno> {
    all(uffd.move_pages(memory.page(2), source.page(2), page_size(), false, false))
}

fn copy(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_fill(bench, Features::NONE, false, do_copy)
}

fn first_copy(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_fill(bench, Features::NONE, true, do_copy)
}

fn zeropage(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_fill(bench, Features::NONE, false, do_zeropage)
}

fn first_zeropage(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_fill(bench, Features::NONE, true, do_zeropage)
}

fn poison(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_fill(bench, Features::POISON, false, |uffd, memory, _| {
        ops::poison(uffd, memory.page(2), page_size())
    })
}

fn move_(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    count_fill(bench, Features::MOVE, false, do_move)
}

fn first_move(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    let uffd = open_with(Features::MOVE)?;
    bench.repeat(|bench| {
        let (source, memory) = (prepared(4)?, alone(4)?);
        source.fill();
        uffd.register_missing(memory.base(), memory.len())?;
        bench.count(|_| do_move(&uffd, &memory, &source))
    })
}

fn continue_(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    let uffd = open_with(Features::MINOR_SHMEM)?;
    let file = filled_memfd(4)?;
    bench.repeat(|bench| {
        let memory = Scratch::of_file(file.as_fd(), 4, true)?;
        ops::register(&uffd, memory.base(), memory.len(), register_mode::MINOR)?;
        bench.count(|_| ops::continue_pages(&uffd, memory.page(2), page_size()))
    })
}

fn write_protect(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    let uffd = open_with(Features::WP)?;
    bench.repeat(|bench| {
        let memory = prepared(4)?;
        memory.write(2);
        ops::register(&uffd, memory.base(), memory.len(), register_mode::WP)?;
        bench.count(|_| ops::write_protect(&uffd, memory.page(2), page_size(), true))
    })
}

fn register(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    let uffd = open(true)?;
    bench.repeat(|bench| {
        let memory = prepared(4)?;
        bench.count(|_| uffd.register_missing(memory.base(), memory.len()).map(drop))
    })
}

fn unregister(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    let uffd = open(true)?;
    bench.repeat(|bench| {
        let memory = prepared(4)?;
        uffd.register_missing(memory.base(), memory.len())?;
        bench.count(|_| uffd.unregister(memory.base(), memory.len()))
    })
}

fn close(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let (uffd, memory) = (open(true)?, prepared(4)?);
        uffd.register_missing(memory.base(), memory.len())?;
        bench.count(|_| {
            drop(uffd);
            Ok(())
        })
    })
}
