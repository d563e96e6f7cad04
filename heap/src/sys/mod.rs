//! Every raw kernel call of the memory interface: userfaultfd, mmap and its relatives, signals,
//! futexes, thread attributes, and what the machine can do.
//!
//! Nothing else in the tree calls the kernel's memory interface, so whoever asks "which system calls
//! does a collection make, and which lock do they take" reads this folder and no other. The modules
//! are thin on purpose: each function is one kernel operation with its errors kept apart. Policy
//! (what to retry, what to fall back to) belongs to the callers, because only they know whether they
//! run in a signal handler, in a pause, or in the background.
//!
//! What may be called inside the fault handler says so in its documentation ("signal-safe"): it
//! allocates nothing, takes no lock and leaves `errno` as it was.

pub mod errno;
pub mod futex;
pub mod map;
pub mod ops;
pub mod probe;
pub mod rss;
pub mod signal;
pub mod thread;
pub mod uffd;

pub use errno::Errno;
pub use map::{Advice, MapError, Protection, Reservation};
pub use uffd::{OpenError, Outcome, Userfaultfd};

use std::sync::atomic::{AtomicUsize, Ordering};

/// Zero until the first call of [`page_size`]: no machine has pages of zero bytes.
static PAGE_SIZE: AtomicUsize = AtomicUsize::new(0);

/// Bytes in a page of this system: 4, 16 or 64 KiB, as the kernel was built.
///
/// Signal-safe. The value is fixed for the life of the system, so whichever thread computes it
/// first, all store the same number and no ordering is needed.
#[inline]
pub fn page_size() -> usize {
    match PAGE_SIZE.load(Ordering::Relaxed) {
        0 => ask_page_size(),
        known => known,
    }
}

#[cold]
fn ask_page_size() -> usize {
    // SAFETY: sysconf with a constant name reads no memory of ours.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // The kernel hands the page size to every process in its auxiliary vector; there is no errno
    // for its absence, and nothing in this crate could work without it.
    assert!(size > 0, "the system does not tell its page size");
    let size = size as usize;
    assert!(size.is_power_of_two(), "a page size that is not a power of two");
    PAGE_SIZE.store(size, Ordering::Relaxed);
    size
}

/// Processors that are online now, at least 1. Not what this thread may use: see
/// [`thread::affinity`] for that.
pub fn online_cpus() -> usize {
    // SAFETY: sysconf with a constant name reads no memory of ours.
    let n = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(n).unwrap_or(1).max(1)
}

/// `bytes` rounded up to whole pages; `None` if that does not fit the address space.
pub fn round_up_to_pages(bytes: usize) -> Option<usize> {
    bytes.checked_next_multiple_of(page_size())
}

/// A number of bytes as people read it: `512 bytes`, `64 KiB`, `1.5 GiB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let unit = (bytes.ilog2() / 10) as usize;
    let one = 1u64 << (10 * unit);
    let name = UNITS[unit - 1];
    if bytes.is_multiple_of(one) {
        format!("{} {name}", bytes / one)
    } else {
        format!("{:.1} {name}", bytes as f64 / one as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_size_is_a_power_of_two_and_stays_the_same() {
        let first = page_size();
        assert!(first >= 4 << 10 && first.is_power_of_two());
        assert_eq!(first, page_size());
    }

    #[test]
    fn rounding_to_pages_never_wraps() {
        assert_eq!(round_up_to_pages(0), Some(0));
        assert_eq!(round_up_to_pages(1), Some(page_size()));
        assert_eq!(round_up_to_pages(page_size()), Some(page_size()));
        assert_eq!(round_up_to_pages(usize::MAX), None);
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(human_bytes(0), "0 bytes");
        assert_eq!(human_bytes(1023), "1023 bytes");
        assert_eq!(human_bytes(1024), "1 KiB");
        assert_eq!(human_bytes(3 << 29), "1.5 GiB");
        assert_eq!(human_bytes(64 << 20), "64 MiB");
        assert_eq!(human_bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn at_least_one_processor_is_online() {
        assert!(online_cpus() >= 1);
    }
}
