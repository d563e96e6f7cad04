//! Every raw kernel call of the memory interface, and nothing else.
//!
//! Thin, typed wrappers: they say what the kernel answered and leave decisions (retry, fall back,
//! give up) to their callers. What the fault handler uses (userfaultfd's fill operations, futexes,
//! the clock) is async-signal-safe and preserves `errno`.

pub mod futex;
pub mod map;
pub mod probe;
pub mod signal;
pub mod thread;
pub mod uffd;

use std::sync::atomic::{AtomicUsize, Ordering};

/// A kernel error number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident)*) => {
        impl Errno {
            $(#[doc = concat!("`", stringify!($name), "`.")] pub const $name: Errno = Errno(libc::$name);)*

            /// The symbolic name, for the errors this crate meets.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $(libc::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos!(EAGAIN EEXIST ENOENT EBUSY EINVAL ENOMEM EFAULT EPERM ESRCH ENOSPC ENOTTY ENOSYS EINTR EACCES ENODEV EOPNOTSUPP);

impl Errno {
    /// The calling thread's last error.
    pub fn last() -> Errno {
        // SAFETY: the location is valid for the calling thread.
        Errno(unsafe { *libc::__errno_location() })
    }
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl std::fmt::Debug for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::error::Error for Errno {}

/// Turns a libc return value of -1 into the error it stands for.
pub(crate) fn check(result: libc::c_int) -> Result<(), Errno> {
    if result == -1 { Err(Errno::last()) } else { Ok(()) }
}

/// Runs `f` and restores the calling thread's `errno` afterwards: for signal handlers.
pub fn preserve_errno<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: the location is valid for the calling thread.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let saved = unsafe { *location };
    let result = f();
    // SAFETY: as above.
    unsafe { *location = saved };
    result
}

/// The system's page size in bytes; async-signal-safe.
#[inline]
pub fn page_size() -> usize {
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: the value is the same whoever stores it.
    match PAGE.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: sysconf has no preconditions.
            let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
            PAGE.store(page, Ordering::Relaxed);
            page
        }
        page => page,
    }
}

/// Number of processors this process may run on.
pub fn online_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}
