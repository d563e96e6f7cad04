//! Mappings: reserving aligned ranges, advising, protecting and remapping them.
//!
//! A [`Reservation`] owns its range and unmaps it when dropped; everything else works on addresses,
//! because a collector works on parts of ranges. Reservations are `MAP_NORESERVE`: they cost address
//! space until touched.

use super::{Errno, check};
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A reservation failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot reserve {} MiB of address space for {what}: {errno}{hint}", len >> 20)]
pub struct MapError {
    /// What the range was for.
    pub what: String,
    /// Bytes asked for.
    pub len: usize,
    /// What the kernel answered.
    pub errno: Errno,
    hint: String,
}

impl MapError {
    fn last(what: &str, len: usize) -> MapError {
        let errno = Errno::last();
        let hint = if errno == Errno::ENOMEM { out_of_address_space() } else { String::new() };
        MapError { what: what.to_owned(), len, errno, hint }
    }
}

/// The address-space limit of this process in bytes, if there is one.
pub fn address_space_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place to write to.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) };
    (result == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

fn out_of_address_space() -> String {
    match address_space_limit() {
        Some(limit) => format!(
            "; RLIMIT_AS allows this process {} MiB of address space: raise it (`ulimit -v`, systemd LimitAS=) or choose a smaller heap (firn reserves about 4.3 times the heap's maximum)",
            limit >> 20
        ),
        None => "; no RLIMIT_AS is set: look at vm.overcommit_memory (2 refuses large reservations) and vm.max_map_count".to_owned(),
    }
}

/// An owned, mapped range of addresses.
#[derive(Debug)]
pub struct Reservation {
    base: usize,
    len: usize,
}

impl Reservation {
    /// Reserves `len` bytes of private anonymous memory, readable and writable, at a multiple of `align`.
    pub fn anonymous(len: usize, align: usize, name: &str) -> Result<Reservation, MapError> {
        let reservation = Reservation::aligned(len, align, name)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        reservation.replace(flags, -1, name)?;
        set_name(reservation.base, len, name);
        Ok(reservation)
    }

    /// Two shared views of the same fresh memory file: (view, alias, file).
    pub fn memfd(
        len: usize,
        align: usize,
        name: &str,
    ) -> Result<(Reservation, Reservation, OwnedFd), MapError> {
        let c_name = CString::new(name).unwrap_or_default();
        // SAFETY: the name is a valid C string.
        let fd = unsafe { libc::memfd_create(c_name.as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(MapError::last(name, len));
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: a valid descriptor.
        if unsafe { libc::ftruncate(fd, len as libc::off_t) } != 0 {
            return Err(MapError::last(name, len));
        }
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE | libc::MAP_FIXED;
        let view = Reservation::aligned(len, align, name)?;
        view.replace(flags, fd, name)?;
        let alias = Reservation::aligned(len, align, name)?;
        alias.replace(flags, fd, name)?;
        Ok((view, alias, file))
    }

    /// Reserves inaccessible address space at the alignment asked for.
    fn aligned(len: usize, align: usize, name: &str) -> Result<Reservation, MapError> {
        let page = super::page_size();
        let align = align.max(page);
        assert!(len.is_multiple_of(page) && align.is_power_of_two() && len > 0);
        let slop = align - page;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping where the kernel likes it disturbs nothing.
        let raw = unsafe {
            libc::mmap(std::ptr::null_mut(), len + slop, libc::PROT_NONE, flags, -1, 0)
        };
        if raw == libc::MAP_FAILED {
            return Err(MapError::last(name, len + slop));
        }
        let raw = raw as usize;
        let base = raw.next_multiple_of(align);
        for (from, to) in [(raw, base), (base + len, raw + len + slop)] {
            if from < to {
                // SAFETY: both stretches belong to the mapping just made and are not handed out.
                unsafe { libc::munmap(from as *mut _, to - from) };
            }
        }
        Ok(Reservation { base, len })
    }

    fn replace(&self, flags: i32, fd: i32, name: &str) -> Result<(), MapError> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: MAP_FIXED over a range that this reservation owns and nobody uses yet.
        let result = unsafe {
            libc::mmap(self.base as *mut _, self.len, protection, flags, fd, 0)
        };
        if result == libc::MAP_FAILED { Err(MapError::last(name, self.len)) } else { Ok(()) }
    }

    /// First address.
    #[inline(always)]
    pub fn base(&self) -> usize {
        self.base
    }

    /// Length in bytes.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether `address` lies inside.
    #[inline(always)]
    pub fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.base) < self.len
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the range is owned; users of its addresses must have ended before (they borrow it or
        // are owned beside it).
        unsafe { libc::munmap(self.base as *mut _, self.len) };
    }
}

fn set_name(base: usize, len: usize, name: &str) {
    const PR_SET_VMA: libc::c_int = 0x53564d41;
    const PR_SET_VMA_ANON_NAME: libc::c_ulong = 0;
    if let Ok(name) = CString::new(name) {
        // SAFETY: names an owned range; failure (kernels before 5.17) changes nothing.
        unsafe { libc::prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, base, len, name.as_ptr()) };
    }
}

/// What to tell the kernel about a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// Give the pages back now; they read as zeroes (or are missing, if registered) afterwards.
    DontNeed,
    /// Give the pages back when memory is short.
    Free,
    /// Never use transparent huge pages here.
    NoHugepage,
    /// Leave the range out of forked children.
    DontFork,
    /// Fault the pages in, writable (5.14).
    PopulateWrite,
    /// Fault the pages in for reading (5.14).
    PopulateRead,
    /// Punch a hole into the file behind a shared mapping.
    Remove,
    /// Leave the range out of core dumps.
    DontDump,
}

/// `madvise`.
///
/// # Safety
/// `DontNeed` and `Remove` throw contents away: nobody may rely on them.
pub unsafe fn advise(address: usize, len: usize, advice: Advice) -> Result<(), Errno> {
    let advice = match advice {
        Advice::DontNeed => libc::MADV_DONTNEED,
        Advice::Free => libc::MADV_FREE,
        Advice::NoHugepage => libc::MADV_NOHUGEPAGE,
        Advice::DontFork => libc::MADV_DONTFORK,
        Advice::PopulateWrite => libc::MADV_POPULATE_WRITE,
        Advice::PopulateRead => libc::MADV_POPULATE_READ,
        Advice::Remove => libc::MADV_REMOVE,
        Advice::DontDump => libc::MADV_DONTDUMP,
    };
    // SAFETY: passed on to the caller.
    check(unsafe { libc::madvise(address as *mut _, len, advice) })
}

/// Access rights of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protection {
    /// No access.
    None,
    /// Reading.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// `mprotect`.
///
/// # Safety
/// Nobody may access the range in a way that the new rights forbid, unless the fault is handled.
pub unsafe fn protect(address: usize, len: usize, to: Protection) -> Result<(), Errno> {
    let bits = match to {
        Protection::None => libc::PROT_NONE,
        Protection::Read => libc::PROT_READ,
        Protection::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
    };
    // SAFETY: passed on to the caller.
    check(unsafe { libc::mprotect(address as *mut _, len, bits) })
}

/// Moves the pages of `from..from + len` to `to` and leaves `from` mapped and empty.
///
/// # Safety
/// Whatever was mapped at `to` is lost; nobody may rely on it, nor on `from`'s contents.
pub unsafe fn remap_dontunmap(from: usize, len: usize, to: usize) -> Result<(), Errno> {
    const DONTUNMAP: i32 = 4;
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | DONTUNMAP;
    // SAFETY: passed on to the caller.
    let result =
        unsafe { libc::mremap(from as *mut _, len, len, flags, to as *mut libc::c_void) };
    if result == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(()) }
}

/// Gives back the pages of a memory file.
///
/// # Safety
/// The contents are lost in every view of the file.
pub unsafe fn punch_hole(file: &OwnedFd, offset: usize, len: usize) -> Result<(), Errno> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: a valid descriptor; losing the contents is the caller's promise.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, len as i64) })
}

/// Which pages of the range are in memory.
pub fn resident_pages(address: usize, len: usize) -> Result<Vec<bool>, Errno> {
    let mut pages = vec![0u8; len.div_ceil(super::page_size())];
    // SAFETY: the vector has a byte for each page of the range.
    check(unsafe { libc::mincore(address as *mut _, len, pages.as_mut_ptr()) })?;
    Ok(pages.into_iter().map(|byte| byte & 1 != 0).collect())
}
