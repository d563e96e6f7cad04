//! Operations on memory that the heap itself never makes, but that its measurement does: the
//! neighbours' side of `mmap_lock`.
//!
//! A census of what each operation costs the kernel has to make each operation, and the buffers that
//! the kernel's events come in are a mapping too. They are here because nothing outside this folder
//! calls the kernel's memory interface; no collection uses them. All of them are thin: one system
//! call, its error, nothing else.

mod abi;
mod scratch;
pub mod zerocopy;

use std::{
    ffi::c_void,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

pub use self::scratch::Scratch;
use super::{Errno, uffd::Userfaultfd};

/// A shared mapping of a file or a device, unmapped when dropped.
#[derive(Debug)]
pub struct SharedMapping {
    base: usize,
    len: usize,
}

impl SharedMapping {
    /// Maps the first `len` bytes of `fd`, readable and writable.
    ///
    /// # Errors
    /// What `mmap` says: `EPERM` for a perf buffer beyond `kernel.perf_event_mlock_kb`, `EINVAL` for a
    /// size that the device does not take, `ENOMEM`.
    pub fn of(fd: BorrowedFd<'_>, len: usize) -> Result<SharedMapping, Errno> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: without MAP_FIXED no existing mapping is touched.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, fd.as_raw_fd(), 0)
        };
        if base == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(SharedMapping { base: base as usize, len })
    }

    /// First address.
    pub fn base(&self) -> usize {
        self.base
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Always false: the kernel maps nothing empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for SharedMapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours; whoever drops its owner uses it no more.
        unsafe { libc::munmap(self.base as *mut c_void, self.len) };
    }
}

/// Pages added to the end of the process's data segment by the kernel's own call (`brk`), behind the
/// back of the C library, whose allocators cope with an end that has moved.
///
/// For a process that is taking a census and nothing else: an allocator that moved the end between the
/// two system calls (is it still the last; shrink) would lose what it took. (Allocators other than the C
/// library's main arena, which serves the first thread, do not use it.)
#[derive(Debug)]
pub struct Break {
    before: usize,
    after: usize,
}

impl Break {
    /// Where the data segment ends now.
    pub fn end() -> usize {
        // An end below the start is refused, so this asks.
        set_break(0)
    }

    /// Adds `bytes` bytes, from the end that [`Break::end`] told.
    ///
    /// # Errors
    /// `ENOMEM` where the kernel left the end where it was.
    pub fn grow(end: usize, bytes: usize) -> Result<Break, Errno> {
        let after = set_break(end + bytes);
        if after == end + bytes { Ok(Break { before: end, after }) } else { Err(Errno::ENOMEM) }
    }

    /// Whether they are still the last: nobody has moved the end meanwhile.
    pub fn is_last(&self) -> bool {
        Break::end() == self.after
    }

    /// Takes them away again, in one system call. Ask [`Break::is_last`] right before.
    ///
    /// # Errors
    /// `ENOMEM` where the kernel left the end where it was.
    pub fn shrink(self) -> Result<(), Errno> {
        if set_break(self.before) == self.before { Ok(()) } else { Err(Errno::ENOMEM) }
    }
}

fn set_break(to: usize) -> usize {
    // SAFETY: `Break` asks, grows, or takes back what it added itself and gave to nobody.
    unsafe { libc::syscall(libc::SYS_brk, to) as usize }
}

/// A descriptor that names this process.
///
/// # Errors
/// `ENOSYS` before 5.3.
pub fn pidfd_self() -> Result<OwnedFd, Errno> {
    // SAFETY: takes numbers and returns a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) };
    Errno::check(fd as i32)?;
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Bits of [`query_vma`]: the covering mapping, or the next one.
const PROCMAP_QUERY_COVERING_OR_NEXT: u64 = 0x10;

/// `PROCMAP_QUERY` (6.11) on an open `/proc/PID/maps`: the mapping at `addr`, or the next one, as start
/// and end.
///
/// # Errors
/// `ENOTTY` where the kernel does not have it, `ENOENT` where there is no mapping.
pub fn query_vma(maps: BorrowedFd<'_>, addr: usize) -> Result<(usize, usize), Errno> {
    let mut arg = abi::ProcmapQuery {
        size: size_of::<abi::ProcmapQuery>() as u64,
        query_flags: PROCMAP_QUERY_COVERING_OR_NEXT,
        query_addr: addr as u64,
        ..abi::ProcmapQuery::default()
    };
    // SAFETY: the kernel reads and writes the struct of the size it is told, alive for the call.
    unsafe { abi::procmap_query(maps.as_raw_fd(), &mut arg) }?;
    Ok((arg.vma_start as usize, arg.vma_end as usize))
}

/// `PAGEMAP_SCAN` (6.7) on an open `/proc/PID/pagemap`: how many ranges of present pages lie in
/// `[addr, addr + len)`, up to 8.
///
/// # Errors
/// `ENOTTY` where the kernel does not have it.
pub fn scan_pages(pagemap: BorrowedFd<'_>, addr: usize, len: usize) -> Result<usize, Errno> {
    const PAGE_IS_PRESENT: u64 = 1 << 3;
    let mut out = [[0u64; 3]; 8];
    let mut arg = abi::PmScanArg {
        size: size_of::<abi::PmScanArg>() as u64,
        start: addr as u64,
        end: (addr + len) as u64,
        vec: out.as_mut_ptr() as u64,
        vec_len: out.len() as u64,
        category_mask: PAGE_IS_PRESENT,
        return_mask: PAGE_IS_PRESENT,
        ..abi::PmScanArg::default()
    };
    // SAFETY: the kernel reads and writes the struct of the size it is told and at most `vec_len`
    // entries of 24 bytes at `vec`, all alive for the call.
    Ok(unsafe { abi::pagemap_scan(pagemap.as_raw_fd(), &mut arg) }? as usize)
}

/// Modes of [`register`].
pub mod register_mode {
    /// Faults on missing pages.
    pub const MISSING: u64 = 1 << 0;
    /// Faults on writes to protected pages.
    pub const WP: u64 = 1 << 1;
    /// Faults on pages that are in the file but not in the mapping.
    pub const MINOR: u64 = 1 << 2;
}

fn range_mode(addr: usize, len: usize, mode: u64) -> abi::RangeMode {
    abi::RangeMode { start: addr as u64, len: len as u64, mode, out: 0 }
}

/// `UFFDIO_REGISTER` with the bits of [`register_mode`].
///
/// # Errors
/// `EINVAL` for a mode that the kernel does not offer on this kind of memory, `EBUSY` when another
/// userfaultfd has a part of the range.
pub fn register(uffd: &Userfaultfd, addr: usize, len: usize, mode: u64) -> Result<(), Errno> {
    let mut arg = range_mode(addr, len, mode);
    // SAFETY: `arg` is the struct this ioctl reads and writes, alive for the call.
    unsafe { abi::uffd_register(fd(uffd), &mut arg) }?;
    Ok(())
}

/// `UFFDIO_WRITEPROTECT`: protects or frees the pages of a range registered for it.
///
/// # Errors
/// `ENOENT` for a range that is not registered for it.
pub fn write_protect(uffd: &Userfaultfd, addr: usize, len: usize, on: bool) -> Result<(), Errno> {
    let mut arg = abi::RangeOnly { start: addr as u64, len: len as u64, mode: u64::from(on) };
    // SAFETY: `arg` is the struct this ioctl reads, alive for the call.
    unsafe { abi::uffd_writeprotect(fd(uffd), &mut arg) }?;
    Ok(())
}

/// `UFFDIO_CONTINUE` (5.13): maps the pages that the file already has.
///
/// # Errors
/// `EFAULT` for a page that the file does not have, `EEXIST` for one that is mapped.
pub fn continue_pages(uffd: &Userfaultfd, addr: usize, len: usize) -> Result<(), Errno> {
    let mut arg = range_mode(addr, len, 0);
    // SAFETY: `arg` is the struct this ioctl reads and writes, alive for the call.
    unsafe { abi::uffd_continue(fd(uffd), &mut arg) }?;
    Ok(())
}

/// `UFFDIO_POISON` (6.6): from now on a touch of the missing pages is a SIGBUS for a hardware error.
///
/// # Errors
/// `EINVAL` or `ENOTTY` where the kernel does not have it, `EEXIST` for a page that is there.
pub fn poison(uffd: &Userfaultfd, addr: usize, len: usize) -> Result<(), Errno> {
    let mut arg = range_mode(addr, len, 0);
    // SAFETY: `arg` is the struct this ioctl reads and writes, alive for the call.
    unsafe { abi::uffd_poison(fd(uffd), &mut arg) }?;
    Ok(())
}

fn fd(uffd: &Userfaultfd) -> i32 {
    use std::os::fd::AsFd;
    uffd.as_fd().as_raw_fd()
}

/// `fork` by the kernel's own call, whose child ends at once; returns when it has been reaped. The
/// C library's own `fork` runs handlers and takes allocator locks, which are not wanted here.
///
/// # Errors
/// `EAGAIN` at a limit of processes, `ENOMEM`.
pub fn fork_and_reap(before_reaping: impl FnOnce()) -> Result<(), Errno> {
    // SAFETY: the child makes one system call, which ends it, and touches nothing.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    match child {
        -1 => Err(Errno::last()),
        0 => {
            // SAFETY: ends the child without running anything.
            unsafe { libc::syscall(libc::SYS_exit_group, 0) };
            unreachable!("exit_group returned")
        }
        child => {
            before_reaping();
            // SAFETY: waits for our own child; no status is asked for.
            while unsafe { libc::waitpid(child as i32, std::ptr::null_mut(), 0) } == -1 {
                match Errno::last() {
                    Errno::EINTR => {}
                    errno => return Err(errno),
                }
            }
            Ok(())
        }
    }
}
