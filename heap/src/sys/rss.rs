//! How much memory the process has resident, now and at most.
//!
//! From `/proc/self/status`, which takes no lock of the address space. A page that is mapped at two
//! addresses is counted twice there, as by every tool that users would compare with. The peak is kept
//! by counters that may lag some pages behind for each processor, so it can be a little less than a
//! value of [`rss_bytes`] seen before.

use std::{fs, io};

/// Bytes resident now.
///
/// # Errors
/// Where `/proc` is not mounted or does not tell.
pub fn rss_bytes() -> io::Result<u64> {
    status_bytes("VmRSS:")
}

/// The most bytes that were resident at any time, or since [`reset_peak_rss`].
///
/// # Errors
/// Where `/proc` is not mounted or does not tell.
pub fn peak_rss_bytes() -> io::Result<u64> {
    status_bytes("VmHWM:")
}

/// Starts the peak over from what is resident now. Takes `mmap_lock` for writing for a moment.
///
/// # Errors
/// Where `/proc` is read-only or the kernel is built without `clear_refs`.
pub fn reset_peak_rss() -> io::Result<()> {
    fs::write("/proc/self/clear_refs", "5")
}

fn status_bytes(key: &str) -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    parse_kib(&status, key)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no {key} in status")))
}

/// The value of a line such as `VmRSS:     1234 kB`, in bytes.
pub(super) fn parse_kib(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Reservation, page_size};

    #[test]
    fn values_are_found_by_their_whole_name() {
        let text = "VmHWM:\t     10 kB\nVmRSS:\t       7 kB\n";
        assert_eq!(parse_kib(text, "VmRSS:"), Some(7 << 10));
        assert_eq!(parse_kib(text, "VmSwap:"), None);
    }

    #[test]
    fn the_peak_stays_after_the_memory_is_gone_until_it_is_reset() {
        let len = 32 << 20;
        let range = Reservation::anonymous(len, page_size(), "firn: test").unwrap();
        for at in (range.base()..range.end()).step_by(page_size()) {
            // SAFETY: fresh memory of ours.
            unsafe { (at as *mut u8).write_volatile(1) };
        }
        let full = rss_bytes().unwrap();
        drop(range);
        // The kernel keeps the peak from counters that lag behind by some pages for each processor.
        assert!(peak_rss_bytes().unwrap() + len as u64 / 2 >= full);
        // Other tests run at the same time, so only that it can be reset is certain.
        reset_peak_rss().unwrap();
    }
}
