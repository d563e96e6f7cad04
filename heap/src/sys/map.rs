//! Address ranges: reserving them, advising the kernel about them, and moving or hiding them.
//!
//! A [`Reservation`] owns one mapping and gives it back when dropped; everything the heap keeps
//! (ranges, side tables, stacks) lies in one. The free functions below it work on any part of a
//! range and are `unsafe`, because they change what the memory behind existing pointers is.
//!
//! What each takes of the kernel's `mmap_lock` decides where it may be used. Reserving, dropping a
//! reservation, [`protect`], [`remap_dontunmap`] and the advices that set a flag of the mapping
//! (`NoHugepage`, `Hugepage`, `DontFork`, `DontDump`) take it for writing: they do not belong into a collection
//! cycle that promises not to. Populating, `Remove` and [`resident_pages`] take it for reading;
//! so do `DontNeed` and `Free` before 6.17, or on a range registered with userfaultfd.

mod error;

use std::{
    ffi::{CString, c_void},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

pub use self::error::{Diagnosis, MapError, address_space_limit};
use super::{Errno, page_size};

/// One mapping of this process, `[base, base + len)`, unmapped when dropped.
///
/// It is only an address range: it gives out no references, so sharing and sending it is harmless.
/// Who may touch which part when is the business of the code that builds spaces from it.
#[derive(Debug)]
pub struct Reservation {
    base: usize,
    len: usize,
}

impl Reservation {
    /// Reserves `len` bytes of private zero-filled memory, readable and writable, at a multiple of
    /// `align`. No memory is used before it is touched, and none is promised
    /// (`MAP_NORESERVE`). `name` is what `/proc/PID/maps` shows, where the kernel can.
    ///
    /// `len` must be a positive number of whole pages and `align` a power of two (less than a page
    /// counts as a page). For a moment up to `len + align` bytes of address space are taken; where
    /// that much is refused, `len` bytes alone are tried at aligned addresses.
    ///
    /// # Errors
    /// [`MapError`], which says what was asked for and which limit to raise.
    pub fn anonymous(len: usize, align: usize, name: &str) -> Result<Reservation, MapError> {
        let range = Reservation::aligned(len, align, name)?;
        // A fresh mapping over our own PROT_NONE one rather than mprotect: it stays one mapping with
        // exactly these flags, whatever the kernel made of the trimmed slop.
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: the range is ours, was reserved just now, and nobody has its address yet.
        unsafe { map_unlocked(range.base, len, flags, -1) }
            .map_err(|errno| MapError::refused(name, len, "mmap", errno))?;
        set_name(range.base, len, name);
        Ok(range)
    }

    /// Two shared views of one `memfd` of `len` bytes, and the file: the same memory at two
    /// addresses, so that one may be protected while the other is written. `len` and `align` as in
    /// [`Reservation::anonymous`]. Pages given back must be punched out of the file
    /// ([`punch_hole`]); `DontNeed` alone frees nothing.
    ///
    /// # Errors
    /// [`MapError`], which says what was asked for and which limit to raise.
    pub fn memfd(
        len: usize,
        align: usize,
        name: &str,
    ) -> Result<(Reservation, Reservation, OwnedFd), MapError> {
        let first = Reservation::aligned(len, align, name)?;
        let alias = Reservation::aligned(len, align, name)?;
        let label = label(name);
        // SAFETY: the name is a NUL-terminated string that outlives the call.
        let fd = unsafe { libc::memfd_create(label.as_ptr(), libc::MFD_CLOEXEC) };
        if fd == -1 {
            return Err(MapError::refused(name, len, "memfd_create", Errno::last()));
        }
        // SAFETY: memfd_create gave us this descriptor and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let size = libc::off_t::try_from(len)
            .map_err(|_| MapError::refused(name, len, "ftruncate", Errno(libc::EFBIG)))?;
        // SAFETY: plain system call on a descriptor we own.
        Errno::check(unsafe { libc::ftruncate(fd.as_raw_fd(), size) })
            .map_err(|errno| MapError::refused(name, len, "ftruncate", errno))?;
        for view in [&first, &alias] {
            let flags = libc::MAP_SHARED | libc::MAP_NORESERVE | libc::MAP_FIXED;
            // SAFETY: both ranges are ours, were reserved just now, and nobody has their addresses.
            unsafe { map_unlocked(view.base, len, flags, fd.as_raw_fd()) }
                .map_err(|errno| MapError::refused(name, len, "mmap of the memfd", errno))?;
        }
        Ok((first, alias, fd))
    }

    /// An inaccessible range of exactly `len` bytes at a multiple of `align`.
    fn aligned(len: usize, align: usize, name: &str) -> Result<Reservation, MapError> {
        let page = page_size();
        if len == 0 || !len.is_multiple_of(page) || !align.is_power_of_two() {
            return Err(MapError::BadRequest { name: name.to_owned(), len, align, page });
        }
        let align = align.max(page);
        let padded = len
            .checked_add(align - page)
            .ok_or_else(|| MapError::refused(name, len, "mmap", Errno::ENOMEM))?;
        match Reservation::inaccessible(0, padded, 0) {
            Ok(whole) => Ok(whole.trim(len, align)),
            Err(Errno::ENOMEM) if padded > len => Reservation::aligned_exact(len, align)
                .map_err(|errno| MapError::refused(name, len, "mmap", errno)),
            Err(errno) => Err(MapError::refused(name, len, "mmap", errno)),
        }
    }

    /// Finds an aligned place without taking more than `len` bytes at any time, for processes whose
    /// RLIMIT_AS has room for the range but not for the alignment.
    fn aligned_exact(len: usize, align: usize) -> Result<Reservation, Errno> {
        // Where the kernel itself would put it tells where the free space is; below that, the
        // address space is usually empty.
        let hint = Reservation::inaccessible(0, len, 0)?;
        let mut at = hint.base & !(align - 1);
        if at == hint.base {
            return Ok(hint);
        }
        drop(hint);
        for _ in 0..MAX_ALIGNED_TRIES {
            match Reservation::inaccessible(at, len, libc::MAP_FIXED_NOREPLACE) {
                // Kernels before 4.17 take the address as a mere hint.
                Ok(range) if range.base == at => return Ok(range),
                Ok(_) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
            at = match at.checked_sub(align) {
                Some(lower) if lower > 0 => lower,
                _ => break,
            };
        }
        Err(Errno::ENOMEM)
    }

    fn inaccessible(at: usize, len: usize, extra_flags: i32) -> Result<Reservation, Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | extra_flags;
        // SAFETY: without MAP_FIXED the kernel replaces no existing mapping (MAP_FIXED_NOREPLACE
        // refuses instead of replacing).
        let base = unsafe { map(at, len, libc::PROT_NONE, flags, -1) }?;
        Ok(Reservation { base, len })
    }

    /// Gives back what lies outside the first aligned `len` bytes.
    fn trim(self, len: usize, align: usize) -> Reservation {
        let start = self.base.next_multiple_of(align);
        let end = start + len;
        let (whole_base, whole_end) = (self.base, self.base + self.len);
        std::mem::forget(self);
        for (from, to) in [(whole_base, start), (end, whole_end)] {
            if to > from {
                // SAFETY: both pieces are parts of our own fresh reservation that nobody uses.
                unsafe { unmap(from, to - from) };
            }
        }
        Reservation { base: start, len }
    }

    /// First address of the range.
    #[inline]
    pub fn base(&self) -> usize {
        self.base
    }

    /// Bytes in the range.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Always false: an empty range cannot be reserved.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// First address after the range.
    #[inline]
    pub fn end(&self) -> usize {
        self.base + self.len
    }

    /// Whether `addr` lies in the range.
    #[inline]
    pub fn contains(&self, addr: usize) -> bool {
        addr.wrapping_sub(self.base) < self.len
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the range is ours alone; whoever drops it vouches that no pointer into it is used
        // any more, as with any owner of memory.
        unsafe { unmap(self.base, self.len) };
    }
}

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// How many aligned places to try before giving up. Only reached under RLIMIT_AS, where the address
/// space below the first hint is nearly empty.
const MAX_ALIGNED_TRIES: usize = 4096;

/// # Safety
/// With `MAP_FIXED` in `flags`, whatever is mapped at `[at, at + len)` is lost.
unsafe fn map(at: usize, len: usize, prot: i32, flags: i32, fd: i32) -> Result<usize, Errno> {
    // SAFETY: see the function's contract; without MAP_FIXED no existing mapping is touched.
    let p = unsafe { libc::mmap(at as *mut c_void, len, prot, flags, fd, 0) };
    if p == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(p as usize) }
}

/// As [`map`] for reading and writing, but never locked into memory: after `mlockall(MCL_FUTURE)` the kernel would put a
/// page everywhere at once, where none may be before it is asked for.
///
/// # Safety
/// As [`map`].
unsafe fn map_unlocked(at: usize, len: usize, flags: i32, fd: i32) -> Result<usize, Errno> {
    // SAFETY: see the function's contract. Without access nothing is put there, and the lock is gone before there is
    // access; where it cannot be taken away, there was none.
    unsafe {
        let base = map(at, len, libc::PROT_NONE, flags, fd)?;
        libc::munlock(base as *const c_void, len);
        Errno::check(libc::mprotect(base as *mut c_void, len, READ_WRITE))?;
        Ok(base)
    }
}

/// # Safety
/// Nobody may use the range afterwards.
unsafe fn unmap(base: usize, len: usize) {
    // SAFETY: see the function's contract.
    let result = unsafe { libc::munmap(base as *mut c_void, len) };
    // It can fail only for an unaligned address, or when splitting a mapping exceeds the limit of
    // mappings; then the range stays reserved and unused, which nothing depends on.
    debug_assert_eq!(result, 0, "munmap: {}", Errno::last());
}

/// `name` with what the kernel refuses in names left out.
fn label(name: &str) -> CString {
    let clean: Vec<u8> = name
        .bytes()
        .map(|b| if (b' '..=b'~').contains(&b) && !b"[]\\$`".contains(&b) { b } else { b'_' })
        .take(79)
        .collect();
    CString::new(clean).unwrap_or_default()
}

/// Best effort: kernels before 5.17, or built without names for anonymous memory, refuse.
fn set_name(base: usize, len: usize, name: &str) {
    let label = label(name);
    let (option, what) = (libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME as libc::c_ulong);
    // SAFETY: the kernel only copies the NUL-terminated name, which outlives the call; a refusal
    // changes nothing.
    unsafe {
        libc::prctl(
            option,
            what,
            base as libc::c_ulong,
            len as libc::c_ulong,
            label.as_ptr() as libc::c_ulong,
        );
    }
}

/// What the kernel is told about a range: see `madvise(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Advice {
    /// Give the pages back now; private memory reads as zeros (or is missing again) afterwards.
    DontNeed,
    /// Give the pages back when memory is short.
    Free,
    /// No transparent huge pages here.
    NoHugepage,
    /// Use transparent huge pages here where possible.
    Hugepage,
    /// A child of fork does not get this range.
    DontFork,
    /// Make all pages present and writable (5.14 or newer). `EFAULT` where a page is missing in a
    /// range registered with userfaultfd.
    PopulateWrite,
    /// Make all pages present for reading (5.14 or newer).
    PopulateRead,
    /// Give pages of shared memory back, in the file too.
    Remove,
    /// Leave the range out of core dumps.
    DontDump,
}

impl Advice {
    fn raw(self) -> libc::c_int {
        match self {
            Advice::DontNeed => libc::MADV_DONTNEED,
            Advice::Free => libc::MADV_FREE,
            Advice::NoHugepage => libc::MADV_NOHUGEPAGE,
            Advice::Hugepage => libc::MADV_HUGEPAGE,
            Advice::DontFork => libc::MADV_DONTFORK,
            Advice::PopulateWrite => libc::MADV_POPULATE_WRITE,
            Advice::PopulateRead => libc::MADV_POPULATE_READ,
            Advice::Remove => libc::MADV_REMOVE,
            Advice::DontDump => libc::MADV_DONTDUMP,
        }
    }
}

/// `madvise`: tells the kernel `advice` about `[addr, addr + len)`. Signal-safe but for `errno`.
///
/// # Errors
/// `EINVAL` also for an advice that the kernel does not know, `EAGAIN` when memory for it is short
/// at the moment, `EFAULT` for a populate that met a missing page or a bus error, `ENOMEM` for a
/// range with a hole.
///
/// # Safety
/// `DontNeed`, `Free` and `Remove` destroy contents: nobody may rely on what the range held.
pub unsafe fn advise(addr: usize, len: usize, advice: Advice) -> Result<(), Errno> {
    // SAFETY: the caller vouches for the contents of the range.
    Errno::check(unsafe { libc::madvise(addr as *mut c_void, len, advice.raw()) })
}

/// Access rights of a range: see `mprotect(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protection {
    /// No access: every touch is a SIGSEGV.
    None,
    /// Reading only.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// `mprotect`: sets the access rights of `[addr, addr + len)`. Signal-safe but for `errno`.
///
/// # Errors
/// `ENOMEM` for a hole in the range or when the split would exceed the limit of mappings
/// (`vm.max_map_count`), `EINVAL` for an unaligned address.
///
/// # Safety
/// Whoever still accesses the range against the new rights gets SIGSEGV; no reference to it may be
/// alive unless a handler resolves that.
pub unsafe fn protect(addr: usize, len: usize, protection: Protection) -> Result<(), Errno> {
    let prot = match protection {
        Protection::None => libc::PROT_NONE,
        Protection::Read => libc::PROT_READ,
        Protection::ReadWrite => READ_WRITE,
    };
    // SAFETY: the caller vouches for the users of the range.
    Errno::check(unsafe { libc::mprotect(addr as *mut c_void, len, prot) })
}

/// `mremap(MREMAP_DONTUNMAP)`: moves the pages of `[from, from + len)` to `to`, replacing what was
/// mapped there, and leaves `from` mapped and empty (5.7 or newer).
///
/// # Errors
/// `EINVAL` on kernels without it, for overlapping ranges, or a range of more than one mapping;
/// `EFAULT` for a hole; `ENOMEM` at a limit.
///
/// # Safety
/// Both ranges must belong to the caller, and nobody may rely on what either held where.
pub unsafe fn remap_dontunmap(from: usize, len: usize, to: usize) -> Result<(), Errno> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    // SAFETY: the caller owns both ranges.
    let p = unsafe { libc::mremap(from as *mut c_void, len, len, flags, to as *mut c_void) };
    if p == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(()) }
}

/// Gives back the pages of `[offset, offset + len)` of a file of memory, whose size stays.
///
/// # Errors
/// `EINVAL`, `EOPNOTSUPP` for a file that cannot; `EINTR`.
///
/// # Safety
/// The contents are destroyed in every mapping of the file: nobody may rely on them.
pub unsafe fn punch_hole(fd: BorrowedFd<'_>, offset: usize, len: usize) -> Result<(), Errno> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let (Ok(offset), Ok(len)) = (libc::off_t::try_from(offset), libc::off_t::try_from(len)) else {
        return Err(Errno::EINVAL);
    };
    // SAFETY: the caller vouches for the contents; the descriptor is alive.
    Errno::check(unsafe { libc::fallocate(fd.as_raw_fd(), mode, offset, len) })
}

/// Which pages of `[addr, addr + len)` are in memory, by `mincore`. For tests and reports: it takes
/// `mmap_lock` for reading and allocates.
///
/// # Errors
/// `ENOMEM` if a part is not mapped, `EINVAL` if `addr` is not the address of a page.
pub fn resident_pages(addr: usize, len: usize) -> io::Result<Vec<bool>> {
    let mut out = vec![0u8; len.div_ceil(page_size())];
    // SAFETY: the vector has one byte for each page; the range itself is only looked up.
    Errno::check(unsafe { libc::mincore(addr as *mut c_void, len, out.as_mut_ptr()) })?;
    Ok(out.into_iter().map(|b| b & 1 != 0).collect())
}

/// Whether the page at `addr` is in memory, as [`resident_mask`].
///
/// # Errors
/// As there.
pub fn resident_page(addr: usize) -> Result<bool, Errno> {
    Ok(resident_mask(addr, 1)? != 0)
}

/// Which of the `pages` pages from `addr` on, at most 64, are in memory: a bit for each, the first the lowest. One
/// `mincore`, which takes `mmap_lock` for reading. Signal-safe but for `errno`.
///
/// # Errors
/// `ENOMEM` if a part is not mapped, `EINVAL` if `addr` is not the address of a page.
pub fn resident_mask(addr: usize, pages: usize) -> Result<u64, Errno> {
    assert!(pages <= 64, "{pages} pages in a mask of 64");
    let mut out = [0u8; 64];
    // SAFETY: the kernel writes one byte for each page; the range itself is only looked up.
    let result =
        unsafe { libc::mincore(addr as *mut c_void, pages * page_size(), out.as_mut_ptr()) };
    Errno::check(result)?;
    Ok(out[..pages].iter().enumerate().fold(0, |mask, (bit, b)| mask | u64::from(b & 1) << bit))
}

#[cfg(test)]
mod tests;
