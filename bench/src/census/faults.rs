//! Page faults of plain memory: anonymous, huge, of files, and from inside the kernel.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use firn_heap::sys::ops::Scratch;
use firn_heap::sys::{Reservation, page_size};
use nix::libc;

use super::known::Known;
use super::{Bench, Operation, Trouble};

const PER_VMA: Known = Known::since("R", 6, 4, "v");
const FILES: Known = Known::since("R", 6, 6, "v");

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "anonymous fault", since: (0, 0), known: PER_VMA, run: anonymous },
    Operation { name: "huge page fault", since: (0, 0), known: PER_VMA, run: huge },
    Operation { name: "write after zero page", since: (0, 0), known: PER_VMA, run: zero_page },
    Operation {
        name: "first write in a VMA",
        since: (0, 0),
        known: Known::always("R"),
        run: first_write,
    },
    Operation {
        name: "first write after zero page",
        since: (0, 0),
        known: Known::always("R"),
        run: first_copy_on_write,
    },
    Operation { name: "file fault, reading", since: (0, 0), known: FILES, run: file },
    Operation { name: "memfd fault, reading", since: (0, 0), known: FILES, run: memfd },
    Operation {
        name: "fault inside a system call",
        since: (0, 0),
        known: Known::always("R"),
        run: in_kernel,
    },
];

/// Memory whose VMA has its `anon_vma`: the first write, which creates it, is made.
pub(super) fn prepared(pages: usize) -> Result<Scratch, Trouble> {
    let memory = Scratch::anonymous(pages)?;
    // Kernels without transparent huge pages refuse, and do not need it.
    let _ = memory.advise(0, pages, libc::MADV_NOHUGEPAGE);
    memory.write(0);
    Ok(memory)
}

fn anonymous(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let memory = prepared(4)?;
        bench.count(|_| {
            memory.write(2);
            Ok(())
        })
    })
}

fn huge(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    match setting {
        Ok(text) if !text.contains("[never]") => {}
        Ok(_) => {
            let remedy = "transparent huge pages are off: as root, `echo madvise > \
                          /sys/kernel/mm/transparent_hugepage/enabled`";
            return Err(Trouble::Skipped(remedy.to_owned()));
        }
        Err(_) => return Err(Trouble::Absent("no transparent huge pages".to_owned())),
    }
    bench.repeat(|bench| {
        // The first creates the `anon_vma`.
        let memory = Scratch::huge(2)?;
        let pages = memory.pages();
        memory.advise(0, pages, libc::MADV_HUGEPAGE)?;
        memory.write(0);
        bench.count(|_| {
            memory.write(pages / 2);
            Ok(())
        })?;
        // With a huge page, all of its pages are there; otherwise it was no such fault.
        match memory.resident(pages - 1)? {
            true => Ok(()),
            false => Err(Trouble::Skipped("there was no huge page to be had".to_owned())),
        }
    })
}

fn zero_page(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let memory = prepared(4)?;
        memory.read(2);
        bench.count(|_| {
            memory.write(2);
            Ok(())
        })
    })
}

fn first_write(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let memory = alone(4)?;
        bench.count(|_| {
            memory.write(2);
            Ok(())
        })
    })
}

fn first_copy_on_write(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let memory = alone(4)?;
        memory.read(2);
        bench.count(|_| {
            memory.write(2);
            Ok(())
        })
    })
}

/// Memory in a VMA of its own, without an `anon_vma`: a neighbour that it was merged with could have
/// one.
pub(super) fn alone(pages: usize) -> Result<Scratch, Trouble> {
    let memory = Scratch::anonymous(pages)?;
    // A flag that the neighbours do not have keeps it from being merged with them.
    memory.advise(0, pages, libc::MADV_DONTDUMP)?;
    memory.advise(0, pages, libc::MADV_SEQUENTIAL)?;
    let _ = memory.advise(0, pages, libc::MADV_NOHUGEPAGE);
    Ok(memory)
}

fn file(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    let program = File::open("/proc/self/exe")?;
    bench.repeat(|bench| {
        let memory = Scratch::of_file(program.as_fd(), 4, false)?;
        bench.count(|_| {
            memory.read(2);
            Ok(())
        })
    })
}

fn memfd(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    let file = filled_memfd(4)?;
    bench.repeat(|bench| {
        let memory = Scratch::of_file(file.as_fd(), 4, true)?;
        bench.count(|_| {
            memory.read(2);
            Ok(())
        })
    })
}

/// A file of memory whose pages are all there.
pub(super) fn filled_memfd(pages: usize) -> Result<File, Trouble> {
    let bytes = pages * page_size();
    let (_, _, fd) = Reservation::memfd(bytes, page_size(), "firn: census")
        .map_err(|e| Trouble::Failed(e.to_string()))?;
    let mut file = File::from(fd);
    file.write_all(&vec![1; bytes])?;
    Ok(file)
}

fn in_kernel(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let memory = prepared(4)?;
        bench.count(|_| memory.kernel_write(2))
    })
}
