//! Waiting for a word to change, and waking who waits: futexes private to this process.
//!
//! The building block of safepoints, handshakes and parking in the collector, where the state is one
//! atomic word anyway. All three are signal-safe as far as the kernel goes, but a fault handler must
//! not wait.

use std::{ptr, sync::atomic::AtomicU32, time::Duration};

use super::{Errno, signal::preserve_errno};

/// Sleeps while `word` is `expected`, at most `timeout`. False if the time is over; true otherwise,
/// which can mean a wake-up, a value other than `expected`, or a signal: look at the word again.
///
/// The kernel compares and falls asleep in one step with respect to wakers, so a waker that stores
/// and then wakes is never missed. It orders nothing else: what the word's value promises is loaded
/// with acquire by the waiter and stored with release by the waker.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> bool {
    let spec = timeout.map(|t| libc::timespec {
        tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: t.subsec_nanos() as libc::c_long,
    });
    let spec = spec.as_ref().map_or(ptr::null(), ptr::from_ref);
    let op = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    preserve_errno(|| {
        // SAFETY: the word is alive for the call, and the timeout is null or a live timespec.
        let result = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, expected, spec) };
        result == 0 || Errno::last() != Errno(libc::ETIMEDOUT)
    })
}

/// Wakes one thread that waits for `word`. True if there was one.
pub fn wake_one(word: &AtomicU32) -> bool {
    wake(word, 1) > 0
}

/// Wakes all threads that wait for `word`; how many there were.
pub fn wake_all(word: &AtomicU32) -> usize {
    wake(word, i32::MAX)
}

fn wake(word: &AtomicU32, count: i32) -> usize {
    let op = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    preserve_errno(|| {
        // SAFETY: the kernel uses the word's address as a key only.
        let woken = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, count) };
        usize::try_from(woken).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::atomic::Ordering, thread, time::Instant};

    #[test]
    fn a_different_value_does_not_wait() {
        let word = AtomicU32::new(1);
        assert!(wait(&word, 0, None));
    }

    #[test]
    fn the_timeout_ends_the_wait() {
        let word = AtomicU32::new(0);
        let start = Instant::now();
        assert!(!wait(&word, 0, Some(Duration::from_millis(5))));
        assert!(start.elapsed() >= Duration::from_millis(5));
    }

    #[test]
    fn a_waker_that_stores_first_is_never_missed() {
        let word = AtomicU32::new(0);
        thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    while word.load(Ordering::Acquire) == 0 {
                        wait(&word, 0, None);
                    }
                });
            }
            word.store(1, Ordering::Release);
            wake_all(&word);
        });
        assert!(!wake_one(&word));
    }

    #[test]
    fn errno_survives() {
        let word = AtomicU32::new(1);
        nix::errno::Errno::set_raw(libc::EDOM);
        wait(&word, 0, None);
        assert_eq!(Errno::last(), Errno(libc::EDOM));
    }
}
