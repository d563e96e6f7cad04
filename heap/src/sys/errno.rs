//! A kernel error number as a value.
//!
//! `std::io::Error` would do outside signal handlers, but the fault path compares and passes these
//! by the million, so a plain copyable number with a readable name is what the whole folder uses.

use std::{fmt, io};

/// An `errno` value of the kernel. `Errno(0)` is not used: success is the absence of one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(
    /// The number as the kernel gives it, positive.
    pub i32,
);

impl Errno {
    /// Try again: partial progress of a userfaultfd operation, or the address space is changing.
    pub const EAGAIN: Errno = Errno(libc::EAGAIN);
    /// The page is already there.
    pub const EEXIST: Errno = Errno(libc::EEXIST);
    /// No page, no mapping, or no file at that place.
    pub const ENOENT: Errno = Errno(libc::ENOENT);
    /// The page cannot be moved now (shared by fork, or pinned), or the range belongs to another.
    pub const EBUSY: Errno = Errno(libc::EBUSY);
    /// The kernel does not accept these arguments, or does not know the operation.
    pub const EINVAL: Errno = Errno(libc::EINVAL);
    /// No memory, no address space, or too many mappings.
    pub const ENOMEM: Errno = Errno(libc::ENOMEM);
    /// An address that cannot be read or written.
    pub const EFAULT: Errno = Errno(libc::EFAULT);
    /// Not permitted to this process.
    pub const EPERM: Errno = Errno(libc::EPERM);
    /// Not permitted by file permissions or a security module.
    pub const EACCES: Errno = Errno(libc::EACCES);
    /// The process whose memory was meant is gone.
    pub const ESRCH: Errno = Errno(libc::ESRCH);
    /// No space left.
    pub const ENOSPC: Errno = Errno(libc::ENOSPC);
    /// The kernel does not know this ioctl.
    pub const ENOTTY: Errno = Errno(libc::ENOTTY);
    /// The kernel, or a filter in front of it, does not know this system call.
    pub const ENOSYS: Errno = Errno(libc::ENOSYS);
    /// Interrupted by a signal.
    pub const EINTR: Errno = Errno(libc::EINTR);
    /// The operation is not supported for this kind of object.
    pub const EOPNOTSUPP: Errno = Errno(libc::EOPNOTSUPP);
    /// The process has too many files open.
    pub const EMFILE: Errno = Errno(libc::EMFILE);

    /// The calling thread's `errno`. Signal-safe.
    #[inline]
    pub fn last() -> Errno {
        Errno(nix::errno::Errno::last_raw())
    }

    /// `Err` with the calling thread's `errno` if a C function returned -1. Signal-safe.
    #[inline]
    pub(crate) fn check(result: libc::c_int) -> Result<(), Errno> {
        if result == -1 { Err(Errno::last()) } else { Ok(()) }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match nix::errno::Errno::from_raw(self.0) {
            nix::errno::Errno::UnknownErrno => write!(f, "errno {}", self.0),
            known => write!(f, "{known:?} ({})", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Errno {}

impl From<nix::errno::Errno> for Errno {
    fn from(e: nix::errno::Errno) -> Errno {
        Errno(e as i32)
    }
}

impl From<Errno> for io::Error {
    fn from(e: Errno) -> io::Error {
        io::Error::from_raw_os_error(e.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_has_the_name_and_the_number() {
        assert_eq!(Errno::EAGAIN.to_string(), format!("EAGAIN ({})", libc::EAGAIN));
        assert_eq!(Errno(9999).to_string(), "errno 9999");
    }
}
