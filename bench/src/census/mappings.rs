//! Making, changing and giving back mappings, and fork.

use firn_heap::sys::ops::{self, Break, Scratch};
use firn_heap::sys::{Protection, page_size};

use super::faults::prepared;
use super::known::Known;
use super::{Bench, Operation, Trouble};

const WRITE: Known = Known::always("W");
const DOWN: Known = Known::always("W↓");
/// Both locks that fork takes for writing, the parent's and the child's, and the copy of a page of its
/// stack that the thread makes as soon as it is back: visible where faults take the lock.
const FORKED: Known = Known::since("R+W+W", 6, 4, "W+W");
/// The operation that takes the lock of another address space.
pub(super) const FORK: &str = "fork, and a first write";
/// What can be seen of it by who sees only one's own lock.
pub(super) const FORK_OWN: &str = "R+W";

pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "mmap", since: (0, 0), known: WRITE, run: mmap },
    Operation { name: "mprotect", since: (0, 0), known: WRITE, run: mprotect },
    Operation { name: "mremap, moving", since: (0, 0), known: WRITE, run: mremap },
    Operation { name: "mremap, DONTUNMAP", since: (5, 7), known: WRITE, run: dontunmap },
    Operation { name: "mremap, growing", since: (0, 0), known: WRITE, run: grow },
    Operation { name: "mremap, shrinking", since: (0, 0), known: DOWN, run: shrink },
    Operation { name: "munmap", since: (0, 0), known: DOWN, run: munmap },
    Operation { name: "brk, growing", since: (0, 0), known: WRITE, run: brk_grow },
    Operation { name: "brk, shrinking", since: (0, 0), known: DOWN, run: brk_shrink },
    Operation { name: FORK, since: (0, 0), known: FORKED, run: fork },
];

fn mmap(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let mut made = None;
        bench.count(|_| {
            made = Some(Scratch::anonymous(4)?);
            Ok(())
        })
    })
}

fn mprotect(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let memory = prepared(4)?;
        bench.count(|_| memory.protect(0, 4, Protection::Read))
    })
}

fn mremap(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let (mut memory, place) = (prepared(4)?, Scratch::anonymous(4)?);
        bench.count(|_| memory.move_onto(place))
    })
}

fn dontunmap(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let memory = prepared(4)?;
        let mut moved = None;
        bench.count(|_| {
            moved = Some(memory.move_pages_away()?);
            Ok(())
        })
    })
}

fn grow(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let mut memory = prepared(8)?;
        memory.unmap_tail(4)?;
        bench.count(|_| memory.resize(8))
    })
}

fn shrink(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let mut memory = prepared(8)?;
        bench.count(|_| memory.resize(4))
    })
}

fn munmap(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let mut memory = prepared(4)?;
        bench.count(|_| memory.unmap_tail(4))
    })
}

fn brk_grow(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let end = Break::end();
        let mut added = None;
        bench.count(|_| {
            added = Some(Break::grow(end, page_size())?);
            Ok(())
        })?;
        added.map_or(Ok(()), take_back)
    })
}

fn brk_shrink(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    bench.repeat(|bench| {
        let added = Break::grow(Break::end(), page_size())?;
        if !added.is_last() {
            return Err(Trouble::Failed(MOVED.to_owned()));
        }
        bench.count(|_| added.shrink())
    })
}

const MOVED: &str = "an allocator moved the end of the data segment meanwhile";

fn take_back(added: Break) -> Result<(), Trouble> {
    match added.is_last() {
        true => Ok(added.shrink()?),
        false => Err(Trouble::Failed(MOVED.to_owned())),
    }
}

/// On kernels whose copy-on-write faults take the lock (before 6.4) the parent's first writes after
/// the fork count too, a few reads that belong to its stack.
fn fork(bench: &mut Bench<'_>) -> Result<(), Trouble> {
    bench.repeat(|bench| bench.count(|stop| ops::fork_and_reap(stop)))
}
