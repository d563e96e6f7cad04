//! userfaultfd: the kernel object that lets us say what a missing page contains.
//!
//! A [`Userfaultfd`] is opened once for a heap, in one of two modes that cannot be changed later:
//! with `sigbus`, a touch of a missing page raises SIGBUS on the touching thread, which then builds
//! the page itself; without it, the kernel queues a message that a fault thread reads with
//! [`Userfaultfd::read_fault`]. Ranges are put under it by [`Userfaultfd::register_missing`], and
//! pages are put in place by [`copy`], [`move_pages`] and [`zeropage`].
//!
//! Those three are signal-safe: they run in the SIGBUS handler of mutators. They make one system call
//! and report exactly what the kernel said, as an [`Outcome`]. They never retry, because what an
//! error means depends on who asked: `EEXIST` is defeat for a thread that wanted to install its own
//! page and victory for a thread that wanted any page.
//!
//! [`copy`]: Userfaultfd::copy
//! [`move_pages`]: Userfaultfd::move_pages
//! [`zeropage`]: Userfaultfd::zeropage

mod abi;
mod diagnosis;
mod features;
mod inject;
mod open;
mod read;

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

pub use self::{
    abi::range_ioctls,
    diagnosis::{Attempt, DeviceState, OpenError, Sandbox, Stage},
    features::Features,
    inject::{Injector, Op, Verdict},
    read::Fault,
};
use super::{Errno, signal::preserve_errno};

/// By which door the kernel let us in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpenPath {
    /// The system call with `UFFD_USER_MODE_ONLY` (5.11 or newer): open to every process unless a
    /// filter stands before it.
    SyscallUserModeOnly,
    /// `/dev/userfaultfd` (6.1 or newer): open to whoever the file's permissions admit.
    Device,
    /// The system call without `UFFD_USER_MODE_ONLY`: needs `CAP_SYS_PTRACE`, or
    /// `vm.unprivileged_userfaultfd=1`.
    SyscallPrivileged,
}

impl fmt::Display for OpenPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OpenPath::SyscallUserModeOnly => "userfaultfd(UFFD_USER_MODE_ONLY)",
            OpenPath::Device => "/dev/userfaultfd",
            OpenPath::SyscallPrivileged => "userfaultfd()",
        })
    }
}

/// What became of one request to install pages.
///
/// `done` bytes from the start of the request are in place, whatever `error` says. The kernel
/// reports a request that stopped half-way as `EAGAIN` with a count: the page after the last one done
/// is where it stopped, and asking again from there tells the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a request may have done a part only"]
pub struct Outcome {
    /// Bytes completed, from the start of the request: whole pages.
    pub done: usize,
    /// Why not all of it; `None` if all of it.
    pub error: Option<Errno>,
}

impl Outcome {
    /// The whole request of `len` bytes was done.
    pub const fn complete(len: usize) -> Outcome {
        Outcome { done: len, error: None }
    }

    /// Nothing was done, for this reason.
    pub const fn failed(error: Errno) -> Outcome {
        Outcome { done: 0, error: Some(error) }
    }

    /// `done` bytes were done; the kernel's way to say so is `EAGAIN`.
    pub const fn partial(done: usize) -> Outcome {
        Outcome { done, error: Some(Errno::EAGAIN) }
    }

    /// Whether the whole request was done.
    pub const fn is_complete(self) -> bool {
        self.error.is_none()
    }

    /// From an ioctl's result and the field it wrote: a count of bytes, a negative error number, or
    /// the 0 we put there if the kernel gave up before it wrote anything.
    fn from_ioctl(result: nix::Result<libc::c_int>, out: i64, len: usize) -> Outcome {
        match result {
            Ok(_) => Outcome::complete(len),
            Err(_) if out > 0 => Outcome::partial(out as usize),
            Err(_) if out < 0 => Outcome::failed(Errno(out.unsigned_abs() as i32)),
            Err(e) => Outcome::failed(e.into()),
        }
    }
}

/// An open userfaultfd of this process, closed when dropped (which unregisters every range that is
/// still under it, and takes `mmap_lock` for writing).
pub struct Userfaultfd {
    fd: OwnedFd,
    path: OpenPath,
    available: Features,
    granted: Features,
    /// Readable while readers shall not wait; only in fault-thread mode.
    interrupt: Option<OwnedFd>,
    /// Whether `injector` is set: one relaxed load on the fault path. A thread that sees it late
    /// passes a few requests to the kernel uninjected; one that sees it gets the injector through
    /// the `OnceLock`'s own acquire.
    injected: AtomicBool,
    injector: OnceLock<Arc<dyn Injector>>,
}

impl fmt::Debug for Userfaultfd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Userfaultfd")
            .field("fd", &self.fd.as_raw_fd())
            .field("path", &self.path)
            .field("available", &self.available)
            .field("granted", &self.granted)
            .field("injected", &self.injector.get().is_some())
            .finish()
    }
}

impl Userfaultfd {
    /// Opens a userfaultfd, by the least privileged door that is open: the system call for faults
    /// of user mode only, then `/dev/userfaultfd`, then the system call that needs privilege.
    ///
    /// With `sigbus`, missing pages raise SIGBUS on the thread that touches them; without, they are
    /// read with [`Userfaultfd::read_fault`], with the thread's id where the kernel knows it. No
    /// other feature is requested, in particular no event: while an event is unread every
    /// installation returns `EAGAIN`.
    ///
    /// Open it before a sandbox is entered: filters often refuse the system call later.
    ///
    /// # Errors
    /// [`OpenError`], with every attempt, the likely reason and the remedy.
    pub fn open(sigbus: bool) -> Result<Userfaultfd, OpenError> {
        open::open(sigbus)
    }

    /// By which door the kernel let us in.
    pub fn path(&self) -> OpenPath {
        self.path
    }

    /// Everything this kernel could do, asked before anything was requested.
    pub fn features_available(&self) -> Features {
        self.available
    }

    /// What was requested and granted.
    pub fn features_granted(&self) -> Features {
        self.granted
    }

    /// Whether a touch of a missing page raises SIGBUS (else it waits for a fault thread).
    pub fn is_sigbus(&self) -> bool {
        self.granted.contains(Features::SIGBUS)
    }

    /// Puts `[addr, addr + len)` under this userfaultfd: from now on its missing pages are ours to
    /// fill. Present pages stay. Takes `mmap_lock` for writing. Returns the operations that the
    /// kernel offers on the range, as a mask of [`range_ioctls`].
    ///
    /// # Errors
    /// `EINVAL` for a range with a hole or of the wrong kind, `EBUSY` when another userfaultfd has a
    /// part of it, `ENOMEM` at the limit of mappings.
    pub fn register_missing(&self, addr: usize, len: usize) -> Result<u64, Errno> {
        if self.injected.load(Ordering::Relaxed)
            && let Some(outcome) = self.inject_range(Op::Register, addr, len)
        {
            return outcome.error.map_or(Ok(range_ioctls::MISSING_BASIC), Err);
        }
        let mut arg = abi::UffdioRegister {
            range: abi::UffdioRange { start: addr as u64, len: len as u64 },
            mode: abi::REGISTER_MODE_MISSING,
            ioctls: 0,
        };
        // SAFETY: `arg` is the struct this ioctl reads and writes, alive for the call. It changes no
        // contents; a page that stays unfilled raises a signal or blocks, it does not read as garbage.
        unsafe { abi::uffdio_register(self.fd.as_raw_fd(), &mut arg) }?;
        Ok(arg.ioctls)
    }

    /// Takes `[addr, addr + len)` out again: missing pages read as zeros from now on. Takes
    /// `mmap_lock` for writing.
    ///
    /// # Errors
    /// `EINVAL` for a range with a hole or of the wrong kind, `ENOMEM` at the limit of mappings.
    pub fn unregister(&self, addr: usize, len: usize) -> Result<(), Errno> {
        if self.injected.load(Ordering::Relaxed)
            && let Some(outcome) = self.inject_range(Op::Unregister, addr, len)
        {
            return outcome.error.map_or(Ok(()), Err);
        }
        let mut arg = abi::UffdioRange { start: addr as u64, len: len as u64 };
        // SAFETY: `arg` is the struct this ioctl reads, alive for the call.
        unsafe { abi::uffdio_unregister(self.fd.as_raw_fd(), &mut arg) }?;
        Ok(())
    }

    /// Wakes the threads that wait in the kernel for a page of `[addr, addr + len)`: for
    /// installations made with `wake: false` in fault-thread mode. Waking too much is harmless,
    /// threads look again and wait again. Signal-safe.
    ///
    /// # Errors
    /// `EINVAL` for an unaligned or empty range.
    pub fn wake(&self, addr: usize, len: usize) -> Result<(), Errno> {
        let mut arg = abi::UffdioRange { start: addr as u64, len: len as u64 };
        preserve_errno(|| {
            // SAFETY: `arg` is the struct this ioctl reads, alive for the call.
            unsafe { abi::uffdio_wake(self.fd.as_raw_fd(), &mut arg) }?;
            Ok(())
        })
    }

    /// Installs copies of `[src, src + len)` as the missing pages at `dst`, each in one atomic step:
    /// nobody sees a half-filled page. `wake` wakes the threads waiting for them (of no use, but
    /// harmless, in SIGBUS mode). `src` may be any readable memory that does not itself fault on a
    /// userfaultfd. Signal-safe.
    ///
    /// # Outcomes
    /// | error | meaning |
    /// |---|---|
    /// | `EEXIST` | the first page is already there: someone else installed it |
    /// | `EAGAIN`, `done` > 0 | stopped at the page after `done`, for a reason that asking again tells |
    /// | `EAGAIN`, `done` = 0 | the address space is being changed (only with events), or a reference count overflowed: ask again |
    /// | `ENOENT` | `dst` is not registered, not mapped, or the request crosses two mappings |
    /// | `EFAULT` | `src` cannot be read |
    /// | `EINVAL` | unaligned or empty |
    /// | `ENOMEM` | no memory for a page |
    /// | `ENOSPC` | the process's address space is coming down |
    /// | `ESRCH` | the process is exiting |
    #[inline]
    pub fn copy(&self, dst: usize, src: usize, len: usize, wake: bool) -> Outcome {
        let request = Request { op: Op::Copy, dst, src, len, wake, allow_holes: false };
        self.install(request)
    }

    /// Installs the pages of `[src, src + len)` themselves, without copying, as the missing pages at
    /// `dst`; `src` is missing afterwards (6.8 or newer). Both must be private anonymous memory with
    /// equal rights; `dst` must be registered here. With `allow_holes` a page absent at `src`
    /// counts as moved and stays missing at `dst`. It pays in runs only: a call for one page costs
    /// more than a copy of it. Signal-safe.
    ///
    /// # Outcomes
    /// | error | meaning |
    /// |---|---|
    /// | `EEXIST` | the first page is already there: someone else installed it |
    /// | `ENOENT` | the first source page is absent (and `allow_holes` is false), or one of the ranges is not mapped |
    /// | `EBUSY` | the first source page cannot move: shared through fork since its last write, merged, or pinned for I/O. Copy it |
    /// | `EAGAIN`, `done` > 0 | stopped at the page after `done`, for a reason that asking again tells |
    /// | `EAGAIN`, `done` = 0 | the address space is being changed, or a reference count overflowed: ask again |
    /// | `EINVAL` | unaligned, empty, `dst` not registered, a range crosses two mappings, the mappings' kinds or rights differ, or the kernel has no MOVE |
    /// | `ENOTTY` | the kernel has no MOVE |
    /// | `ENOMEM` | no memory for page tables |
    /// | `ESRCH` | the process is exiting |
    #[inline]
    pub fn move_pages(
        &self,
        dst: usize,
        src: usize,
        len: usize,
        allow_holes: bool,
        wake: bool,
    ) -> Outcome {
        self.install(Request { op: Op::Move, dst, src, len, wake, allow_holes })
    }

    /// Installs the shared page of zeros as the missing pages at `dst`: reading costs nothing more,
    /// but the first write to each page is another fault. Signal-safe.
    ///
    /// # Outcomes
    /// As [`Userfaultfd::copy`], without those of a source.
    #[inline]
    pub fn zeropage(&self, dst: usize, len: usize, wake: bool) -> Outcome {
        let request = Request { op: Op::Zeropage, dst, src: 0, len, wake, allow_holes: false };
        self.install(request)
    }

    #[inline]
    fn install(&self, request: Request) -> Outcome {
        if self.injected.load(Ordering::Relaxed) {
            return self.install_injected(request);
        }
        self.ask_kernel(request)
    }

    fn ask_kernel(&self, request: Request) -> Outcome {
        let Request { op, dst, src, len, wake, allow_holes } = request;
        let fd = self.fd.as_raw_fd();
        let dont_wake = if wake { 0 } else { abi::MODE_DONTWAKE };
        let (dst, src, bytes) = (dst as u64, src as u64, len as u64);
        preserve_errno(|| match op {
            Op::Copy => {
                let mut arg = abi::UffdioCopy { dst, src, len: bytes, mode: dont_wake, copy: 0 };
                // SAFETY: `arg` is the struct this ioctl reads and writes, alive for the call. The
                // kernel fills only missing pages, so no memory that anyone has seen changes.
                let result = unsafe { abi::uffdio_copy(fd, &mut arg) };
                Outcome::from_ioctl(result, arg.copy, len)
            }
            Op::Move => {
                let holes = if allow_holes { abi::MOVE_MODE_ALLOW_SRC_HOLES } else { 0 };
                let mode = dont_wake | holes;
                let mut arg = abi::UffdioMove { dst, src, len: bytes, mode, moved: 0 };
                // SAFETY: as for copy; that the source becomes missing is the caller's purpose, and
                // missing memory raises a signal or reads as zeros: it never dangles.
                let result = unsafe { abi::uffdio_move(fd, &mut arg) };
                Outcome::from_ioctl(result, arg.moved, len)
            }
            Op::Zeropage => {
                let range = abi::UffdioRange { start: dst, len: bytes };
                let mut arg = abi::UffdioZeropage { range, mode: dont_wake, zeropage: 0 };
                // SAFETY: as for copy.
                let result = unsafe { abi::uffdio_zeropage(fd, &mut arg) };
                Outcome::from_ioctl(result, arg.zeropage, len)
            }
            // Not installations: they never get here, see `register_missing` and `unregister`.
            Op::Register | Op::Unregister => Outcome::failed(Errno::EINVAL),
        })
    }
}

impl AsFd for Userfaultfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One request to install pages.
#[derive(Clone, Copy)]
struct Request {
    op: Op,
    dst: usize,
    src: usize,
    len: usize,
    wake: bool,
    allow_holes: bool,
}

#[cfg(test)]
mod tests;
