//! Operations on memory that the heap itself never makes, but that its measurement does: the
//! neighbours' side of `mmap_lock`.
//!
//! A census of what each operation costs the kernel has to make each operation, and the buffers that
//! the kernel's events come in are a mapping too. They are here because nothing outside this folder
//! calls the kernel's memory interface; no collection uses them. All of them are thin: one system
//! call, its error, nothing else.

mod abi;

use std::{
    ffi::c_void,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

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

/// `mmap` of `len` bytes of private anonymous memory anywhere, readable and writable if `access`,
/// with the kernel's default behaviour in everything else.
///
/// # Errors
/// `ENOMEM` at a limit.
pub fn map_anonymous(len: usize, access: bool) -> Result<usize, Errno> {
    let prot = if access { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_NONE };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: without MAP_FIXED no existing mapping is touched.
    let p = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
    if p == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(p as usize) }
}

/// `mmap` of the first `len` bytes of `fd` for reading.
///
/// # Errors
/// What the file system says: `ENODEV` where it cannot be mapped.
pub fn map_file(fd: BorrowedFd<'_>, len: usize) -> Result<usize, Errno> {
    // SAFETY: without MAP_FIXED no existing mapping is touched.
    let p = unsafe {
        let flags = libc::MAP_PRIVATE;
        libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, flags, fd.as_raw_fd(), 0)
    };
    if p == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(p as usize) }
}

/// `munmap`.
///
/// # Errors
/// `EINVAL` for an unaligned address, `ENOMEM` when a split exceeds the limit of mappings.
///
/// # Safety
/// The range must be the caller's, and nobody may use it afterwards.
pub unsafe fn unmap(addr: usize, len: usize) -> Result<(), Errno> {
    // SAFETY: the caller owns the range.
    Errno::check(unsafe { libc::munmap(addr as *mut c_void, len) })
}

/// `mremap` to `new_len` bytes in place or, with `may_move`, anywhere; returns the new address.
///
/// # Errors
/// `ENOMEM` where there is no room, `EFAULT` for a hole.
///
/// # Safety
/// The range must be the caller's; what lies beyond a smaller length is lost.
pub unsafe fn remap(
    addr: usize,
    len: usize,
    new_len: usize,
    may_move: bool,
) -> Result<usize, Errno> {
    let flags = if may_move { libc::MREMAP_MAYMOVE } else { 0 };
    // SAFETY: the caller owns the range.
    let p = unsafe { libc::mremap(addr as *mut c_void, len, new_len, flags) };
    if p == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(p as usize) }
}

/// Moves the end of the process's data segment by `delta` bytes, by the kernel's own call, and returns
/// the new end. `0` only asks.
///
/// # Errors
/// `ENOMEM` where the kernel left the end where it was.
///
/// # Safety
/// Nobody else may move it meanwhile (the C library's allocator does, on its main arena): the caller
/// takes back what it added, before anyone allocates there.
pub unsafe fn move_break(delta: isize) -> Result<usize, Errno> {
    // SAFETY: an end below the start is refused, so asking changes nothing.
    let now = unsafe { libc::syscall(libc::SYS_brk, 0usize) } as usize;
    let wanted = now.wrapping_add_signed(delta);
    // SAFETY: the caller vouches for what lies at the end.
    let got = unsafe { libc::syscall(libc::SYS_brk, wanted) } as usize;
    if got == wanted { Ok(got) } else { Err(Errno::ENOMEM) }
}

/// `madvise` with any advice by its number, for those that the heap does not use.
///
/// # Errors
/// `EINVAL` for an advice that the kernel does not know.
///
/// # Safety
/// As for the advice: some destroy contents.
pub unsafe fn advise_raw(addr: usize, len: usize, advice: i32) -> Result<(), Errno> {
    // SAFETY: the caller vouches for the contents of the range.
    Errno::check(unsafe { libc::madvise(addr as *mut c_void, len, advice) })
}

/// `process_madvise(self)` with any advice by its number, on one range.
///
/// # Errors
/// `EINVAL` for an advice that this kernel does not take through this call, `ENOSYS` before 5.10.
///
/// # Safety
/// As for the advice: some destroy contents.
pub unsafe fn process_advise_self(addr: usize, len: usize, advice: i32) -> Result<(), Errno> {
    // SAFETY: takes numbers and returns a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) };
    Errno::check(fd as i32)?;
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let range = libc::iovec { iov_base: addr as *mut c_void, iov_len: len };
    // SAFETY: the kernel reads one live iovec; the caller vouches for the contents of the range.
    let done = unsafe {
        libc::syscall(libc::SYS_process_madvise, fd.as_raw_fd(), &raw const range, 1, advice, 0)
    };
    Errno::check(done as i32)
}

/// `msync(MS_ASYNC)`.
///
/// # Errors
/// `ENOMEM` for a hole.
pub fn sync_async(addr: usize, len: usize) -> Result<(), Errno> {
    // SAFETY: changes no contents.
    Errno::check(unsafe { libc::msync(addr as *mut c_void, len, libc::MS_ASYNC) })
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

/// Writes one byte at `addr`: a write access, and nothing else.
///
/// # Safety
/// The byte must be the caller's to change, and what the access raises must be handled.
#[inline(never)]
pub unsafe fn touch_write(addr: usize) {
    // SAFETY: see the contract.
    unsafe { (addr as *mut u8).write_volatile(1) };
}

/// Reads one byte at `addr`: a read access, and nothing else.
///
/// # Safety
/// The byte must be mapped, and what the access raises must be handled.
#[inline(never)]
pub unsafe fn touch_read(addr: usize) -> u8 {
    // SAFETY: see the contract.
    unsafe { (addr as *const u8).read_volatile() }
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
