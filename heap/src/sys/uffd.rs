//! `userfaultfd`: opening it, registering ranges, filling pages.
//!
//! The fill operations report exactly what the kernel did and never retry. The kernel's convention: an
//! operation that got somewhere before it failed returns `EAGAIN` and the bytes done; one that got
//! nowhere returns the error itself.
//!
//! | error | COPY | MOVE |
//! |---|---|---|
//! | `EEXIST` | the destination page is present | the same |
//! | `ENOENT` | the destination is not in one registered VMA | a source page is missing |
//! | `EBUSY` | – | a source page is shared (fork, KSM) or pinned |
//! | `EINVAL` | bad range | VMAs differ in lock or protection, or a range crosses a VMA |
//! | `EAGAIN` with 0 bytes | the mappings are changing: try again | the same |
//! | `ENOMEM` | no page to be had | no page table to be had |
//! | `ESRCH` | the address space is being torn down | the same |
//!
//! The fill operations are async-signal-safe and preserve `errno`: the fault handler calls them.
//! No event features are ever asked for: they would make every operation return `EAGAIN` until the
//! event is read.

use super::{Errno, preserve_errno};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, OnceLock};

/// Feature bits of the interface; unknown bits are kept.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(pub u64);

macro_rules! features {
    ($($name:ident = $bit:expr),* $(,)?) => {
        impl Features {
            $(#[doc = concat!("`UFFD_FEATURE_", stringify!($name), "`.")]
            pub const $name: Features = Features(1 << $bit);)*
            const NAMES: &[(&str, u64)] = &[$((stringify!($name), 1 << $bit)),*];
        }
    };
}

features! {
    PAGEFAULT_FLAG_WP = 0, EVENT_FORK = 1, EVENT_REMAP = 2, EVENT_REMOVE = 3, MISSING_HUGETLBFS = 4,
    MISSING_SHMEM = 5, EVENT_UNMAP = 6, SIGBUS = 7, THREAD_ID = 8, MINOR_HUGETLBFS = 9,
    MINOR_SHMEM = 10, EXACT_ADDRESS = 11, WP_HUGETLBFS_SHMEM = 12, WP_UNPOPULATED = 13, POISON = 14,
    WP_ASYNC = 15, MOVE = 16, RWP = 17, RWP_ASYNC = 18,
}

impl Features {
    /// Whether all of `other`'s bits are set.
    pub fn contains(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::fmt::Display for Features {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rest = self.0;
        let mut separator = "";
        for &(name, bit) in Features::NAMES {
            if self.0 & bit != 0 {
                write!(f, "{separator}{name}")?;
                separator = " ";
                rest &= !bit;
            }
        }
        if rest != 0 || self.0 == 0 {
            write!(f, "{separator}{rest:#x}")?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Features {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// How the descriptor was obtained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenPath {
    /// The system call with `UFFD_USER_MODE_ONLY`: needs no privilege.
    UserModeOnly,
    /// `/dev/userfaultfd`.
    Device,
    /// The system call without restriction (needs privilege, or a sysctl of 1).
    Unrestricted,
}

impl std::fmt::Display for OpenPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            OpenPath::UserModeOnly => "userfaultfd(UFFD_USER_MODE_ONLY)",
            OpenPath::Device => "/dev/userfaultfd",
            OpenPath::Unrestricted => "userfaultfd(0)",
        })
    }
}

/// No userfaultfd could be opened, or it lacks what was asked for.
#[derive(Debug, Clone, thiserror::Error)]
#[error("userfaultfd is not available: {diagnosis}")]
pub struct OpenError {
    /// Each way that was tried, and what the kernel answered.
    pub attempts: Vec<(OpenPath, Errno)>,
    diagnosis: String,
}

/// What an operation achieved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Bytes completed, from the start of the range on.
    pub done: usize,
    /// Why it stopped before the end, if it did.
    pub error: Option<Errno>,
}

impl Outcome {
    /// Everything was done.
    pub fn complete(len: usize) -> Outcome {
        Outcome { done: len, error: None }
    }

    /// Nothing was done.
    pub fn failed(errno: Errno) -> Outcome {
        Outcome { done: 0, error: Some(errno) }
    }
}

/// An operation, for [`Injector`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Op {
    /// `UFFDIO_COPY`.
    Copy,
    /// `UFFDIO_MOVE`.
    Move,
    /// `UFFDIO_ZEROPAGE`.
    Zeropage,
    /// `UFFDIO_REGISTER`.
    Register,
    /// `UFFDIO_UNREGISTER`.
    Unregister,
}

/// What an [`Injector`] decides about an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Let the kernel do it.
    Pass,
    /// Do not ask the kernel; answer this.
    Return(Outcome),
    /// Let the kernel do only this many bytes, then answer `EAGAIN`.
    Shorten(usize),
}

/// A test's hook before each operation. Called in the fault handler too: it must be lock-free and must
/// not allocate.
pub trait Injector: Send + Sync {
    /// Decides about `op` on `len` bytes from `src` to `dst`.
    fn before(&self, op: Op, dst: usize, src: usize, len: usize) -> Verdict;
}

const fn ioctl(direction: u64, number: u64, size: usize) -> libc::c_ulong {
    (direction << 30 | (size as u64) << 16 | 0xAA << 8 | number) as libc::c_ulong
}
const READ_WRITE: u64 = 3;
const READ: u64 = 2;

#[repr(C)]
struct ApiArg {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct RegisterArg {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct RangeArg {
    start: u64,
    len: u64,
}

/// COPY and MOVE share this shape.
#[repr(C)]
struct FillArg {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    done: i64,
}

#[repr(C)]
struct ZeropageArg {
    start: u64,
    len: u64,
    mode: u64,
    done: i64,
}

#[repr(C)]
struct Message {
    event: u8,
    reserved: [u8; 7],
    flags: u64,
    address: u64,
    thread: u32,
    padding: u32,
}
const _: () = assert!(size_of::<FillArg>() == 40 && size_of::<Message>() == 32);

const API: libc::c_ulong = ioctl(READ_WRITE, 0x3F, size_of::<ApiArg>());
const REGISTER: libc::c_ulong = ioctl(READ_WRITE, 0x00, size_of::<RegisterArg>());
const UNREGISTER: libc::c_ulong = ioctl(READ, 0x01, size_of::<RangeArg>());
const WAKE: libc::c_ulong = ioctl(READ, 0x02, size_of::<RangeArg>());
const COPY: libc::c_ulong = ioctl(READ_WRITE, 0x03, size_of::<FillArg>());
const ZEROPAGE: libc::c_ulong = ioctl(READ_WRITE, 0x04, size_of::<ZeropageArg>());
const MOVE: libc::c_ulong = ioctl(READ_WRITE, 0x05, size_of::<FillArg>());
const NEW: libc::c_ulong = 0xAA00;

/// A page fault read from the descriptor (fault-thread delivery).
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The faulting address (rounded to its page by kernels without `EXACT_ADDRESS`).
    pub address: usize,
    /// The faulting thread's kernel id.
    pub thread: u32,
}

/// An open userfaultfd.
pub struct Userfaultfd {
    fd: OwnedFd,
    stop: OwnedFd,
    path: OpenPath,
    available: Features,
    granted: Features,
    injector: OnceLock<Arc<dyn Injector>>,
}

impl Userfaultfd {
    /// Opens one, with `SIGBUS` delivery or (without) for a fault thread, by the least privileged way
    /// that works.
    pub fn open(sigbus: bool) -> Result<Userfaultfd, OpenError> {
        let mut attempts = Vec::new();
        for path in [OpenPath::UserModeOnly, OpenPath::Device, OpenPath::Unrestricted] {
            match Self::open_by(path, sigbus) {
                Ok(uffd) => return Ok(uffd),
                Err(Refusal::Errno(errno)) => attempts.push((path, errno)),
                Err(Refusal::Lacks(diagnosis)) => return Err(OpenError { attempts, diagnosis }),
            }
        }
        let diagnosis = diagnose(&attempts);
        Err(OpenError { attempts, diagnosis })
    }

    fn open_by(path: OpenPath, sigbus: bool) -> Result<Userfaultfd, Refusal> {
        // Features can be asked for only once per descriptor, so the first one is for looking.
        let available = handshake(&descriptor(path)?, Features(0))?;
        let wanted = if sigbus { Features::SIGBUS } else { Features::THREAD_ID };
        if !available.contains(wanted) {
            return Err(Refusal::Lacks(format!(
                "this kernel's userfaultfd lacks {wanted} (it has: {available}); {} works without",
                if sigbus { "`--fault thread` (or `--backend stw`)" } else { "`--fault sigbus`" }
            )));
        }
        let fd = descriptor(path)?;
        let granted = handshake(&fd, wanted)?;
        // SAFETY: no preconditions.
        let stop = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if stop < 0 {
            return Err(Refusal::Errno(Errno::last()));
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let stop = unsafe { OwnedFd::from_raw_fd(stop) };
        Ok(Userfaultfd { fd, stop, path, available, granted, injector: OnceLock::new() })
    }

    /// How it was opened.
    pub fn path(&self) -> OpenPath {
        self.path
    }

    /// What the kernel offers.
    pub fn features_available(&self) -> Features {
        self.available
    }

    /// What the kernel answered to the features asked for.
    pub fn features_granted(&self) -> Features {
        self.granted
    }

    /// Installs a test's hook; only the first call has an effect.
    pub fn set_injector(&self, injector: Arc<dyn Injector>) {
        let _ = self.injector.set(injector);
    }

    #[inline(always)]
    fn verdict(&self, op: Op, dst: usize, src: usize, len: usize) -> Verdict {
        match self.injector.get() {
            None => Verdict::Pass,
            Some(injector) => injector.before(op, dst, src, len),
        }
    }

    /// Registers a range for missing faults. Takes `mmap_lock` for writing.
    pub fn register_missing(&self, address: usize, len: usize) -> Result<u64, Errno> {
        if let Verdict::Return(Outcome { error: Some(errno), .. }) =
            self.verdict(Op::Register, address, 0, len)
        {
            return Err(errno);
        }
        let mut arg = RegisterArg { start: address as u64, len: len as u64, mode: 1, ioctls: 0 };
        self.call(REGISTER, (&raw mut arg).cast())?;
        Ok(arg.ioctls)
    }

    /// Takes a range's registration back. Takes `mmap_lock` for writing.
    pub fn unregister(&self, address: usize, len: usize) -> Result<(), Errno> {
        if let Verdict::Return(Outcome { error: Some(errno), .. }) =
            self.verdict(Op::Unregister, address, 0, len)
        {
            return Err(errno);
        }
        let mut arg = RangeArg { start: address as u64, len: len as u64 };
        self.call(UNREGISTER, (&raw mut arg).cast())
    }

    /// Wakes threads that wait for a page of the range (fault-thread delivery).
    pub fn wake(&self, address: usize, len: usize) -> Result<(), Errno> {
        let mut arg = RangeArg { start: address as u64, len: len as u64 };
        self.call(WAKE, (&raw mut arg).cast())
    }

    /// Fills missing pages at `dst` with copies of those at `src`.
    pub fn copy(&self, dst: usize, src: usize, len: usize, wake: bool) -> Outcome {
        self.fill(Op::Copy, COPY, dst, src, len, if wake { 0 } else { 1 })
    }

    /// Moves the pages at `src` to the missing pages at `dst`; the source is missing afterwards.
    pub fn move_pages(
        &self,
        dst: usize,
        src: usize,
        len: usize,
        allow_holes: bool,
        wake: bool,
    ) -> Outcome {
        let mode = if wake { 0 } else { 1 } | if allow_holes { 2 } else { 0 };
        self.fill(Op::Move, MOVE, dst, src, len, mode)
    }

    /// Maps the zero page at missing pages.
    pub fn zeropage(&self, dst: usize, len: usize, wake: bool) -> Outcome {
        match self.verdict(Op::Zeropage, dst, 0, len) {
            Verdict::Return(outcome) => outcome,
            verdict => {
                let ask = if let Verdict::Shorten(bytes) = verdict { bytes.min(len) } else { len };
                let mut arg = ZeropageArg {
                    start: dst as u64,
                    len: ask as u64,
                    mode: if wake { 0 } else { 1 },
                    done: 0,
                };
                let result = self.call(ZEROPAGE, (&raw mut arg).cast());
                outcome(result, arg.done, ask, len)
            }
        }
    }

    #[inline]
    fn fill(
        &self,
        op: Op,
        number: libc::c_ulong,
        dst: usize,
        src: usize,
        len: usize,
        mode: u64,
    ) -> Outcome {
        match self.verdict(op, dst, src, len) {
            Verdict::Return(outcome) => outcome,
            verdict => {
                let ask = if let Verdict::Shorten(bytes) = verdict { bytes.min(len) } else { len };
                let mut arg =
                    FillArg { dst: dst as u64, src: src as u64, len: ask as u64, mode, done: 0 };
                let result = self.call(number, (&raw mut arg).cast());
                outcome(result, arg.done, ask, len)
            }
        }
    }

    fn call(&self, number: libc::c_ulong, arg: *mut libc::c_void) -> Result<(), Errno> {
        preserve_errno(|| {
            // SAFETY: every caller passes the argument block that belongs to the ioctl's number. What
            // the operation does to memory is confined to ranges the caller gave.
            super::check(unsafe { libc::ioctl(self.fd.as_raw_fd(), number, arg) })
        })
    }

    /// Waits for the next fault; `None` after [`Userfaultfd::stop_reading`].
    pub fn read_fault(&self) -> Result<Option<Fault>, Errno> {
        loop {
            let poll = |fd: &OwnedFd| libc::pollfd {
                fd: fd.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            let mut fds = [poll(&self.fd), poll(&self.stop)];
            // SAFETY: two valid entries.
            if unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) } < 0 {
                match Errno::last() {
                    Errno::EINTR => continue,
                    errno => return Err(errno),
                }
            }
            if fds[1].revents != 0 {
                return Ok(None);
            }
            // SAFETY: an all-zero message is valid.
            let mut message: Message = unsafe { std::mem::zeroed() };
            // SAFETY: the buffer has the size given.
            let read = unsafe {
                libc::read(
                    self.fd.as_raw_fd(),
                    (&raw mut message).cast(),
                    size_of::<Message>(),
                )
            };
            if read < 0 {
                match Errno::last() {
                    Errno::EAGAIN | Errno::EINTR => continue,
                    errno => return Err(errno),
                }
            }
            const PAGEFAULT: u8 = 0x12;
            if read as usize == size_of::<Message>() && message.event == PAGEFAULT {
                return Ok(Some(Fault {
                    address: message.address as usize,
                    thread: message.thread,
                }));
            }
        }
    }

    /// Makes [`Userfaultfd::read_fault`] return `None` from now on.
    pub fn stop_reading(&self) {
        let one = 1u64;
        // SAFETY: eight valid bytes; an eventfd accepts them.
        unsafe { libc::write(self.stop.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}

fn outcome(result: Result<(), Errno>, done: i64, asked: usize, len: usize) -> Outcome {
    let error = match result {
        Ok(()) => None,
        Err(errno) if done < 0 && errno == Errno::EAGAIN => Some(Errno(-done as i32)),
        Err(errno) => Some(errno),
    };
    let done = if error.is_none() { asked } else { done.max(0) as usize };
    let cut_short = asked < len && error.is_none();
    Outcome { done, error: if cut_short { Some(Errno::EAGAIN) } else { error } }
}

enum Refusal {
    Errno(Errno),
    Lacks(String),
}

fn descriptor(path: OpenPath) -> Result<OwnedFd, Refusal> {
    const USER_MODE_ONLY: i32 = 1;
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    let fd = match path {
        // SAFETY: no preconditions.
        OpenPath::UserModeOnly => unsafe {
            libc::syscall(libc::SYS_userfaultfd, flags | USER_MODE_ONLY) as i32
        },
        // SAFETY: no preconditions.
        OpenPath::Unrestricted => unsafe {
            libc::syscall(libc::SYS_userfaultfd, flags) as i32
        },
        OpenPath::Device => {
            let device = std::fs::File::open("/dev/userfaultfd")
                .map_err(|e| Refusal::Errno(Errno(e.raw_os_error().unwrap_or(libc::EIO))))?;
            // SAFETY: a valid descriptor; the argument is the flags themselves.
            unsafe { libc::ioctl(device.as_raw_fd(), NEW, flags) }
        }
    };
    if fd < 0 {
        return Err(Refusal::Errno(Errno::last()));
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn handshake(fd: &OwnedFd, features: Features) -> Result<Features, Refusal> {
    let mut arg = ApiArg { api: 0xAA, features: features.0, ioctls: 0 };
    // SAFETY: the block belongs to UFFDIO_API.
    match super::check(unsafe { libc::ioctl(fd.as_raw_fd(), API, &raw mut arg) }) {
        Ok(()) => Ok(Features(arg.features)),
        Err(errno) => Err(Refusal::Errno(errno)),
    }
}

fn diagnose(attempts: &[(OpenPath, Errno)]) -> String {
    let tried = attempts
        .iter()
        .map(|(path, errno)| format!("{path}: {errno}"))
        .collect::<Vec<_>>()
        .join(", ");
    let errno_of = |path| attempts.iter().find(|(p, _)| *p == path).map(|(_, errno)| *errno);
    let cause = match errno_of(OpenPath::UserModeOnly) {
        _ if super::probe::seccomp_mode() == Some(2) => {
            "this process runs under a seccomp filter that refuses it (Docker's default profile does): add `userfaultfd` to the profile's allowed calls, or run with --security-opt seccomp=unconfined".to_owned()
        }
        Some(Errno::ENOSYS) => {
            "the kernel was built without CONFIG_USERFAULTFD: use another kernel".to_owned()
        }
        _ => {
            let sysctl = std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd");
            let value = sysctl.as_deref().map_or("absent", str::trim);
            format!(
                "kernels before 5.11 know no unprivileged kind: set vm.unprivileged_userfaultfd=1 (now {value}), give the user access to /dev/userfaultfd (6.1 or newer), or CAP_SYS_PTRACE"
            )
        }
    };
    format!("{cause}. Tried {tried}. `--backend stw` works without userfaultfd")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_follow_the_kernels_convention() {
        let whole = outcome(Ok(()), 8192, 8192, 8192);
        assert_eq!(whole, Outcome::complete(8192));
        let partial = outcome(Err(Errno::EAGAIN), 4096, 8192, 8192);
        assert_eq!(partial, Outcome { done: 4096, error: Some(Errno::EAGAIN) });
        let none = outcome(Err(Errno::EEXIST), -(libc::EEXIST as i64), 8192, 8192);
        assert_eq!(none, Outcome::failed(Errno::EEXIST));
        let shortened = outcome(Ok(()), 4096, 4096, 8192);
        assert_eq!(shortened, Outcome { done: 4096, error: Some(Errno::EAGAIN) });
    }

    #[test]
    fn the_diagnosis_names_the_remedy() {
        let text = diagnose(&[
            (OpenPath::UserModeOnly, Errno::EPERM),
            (OpenPath::Device, Errno::ENOENT),
            (OpenPath::Unrestricted, Errno::EPERM),
        ]);
        assert!(text.contains("--backend stw") && text.contains("EPERM"), "{text}");
    }
}
