//! Time as every measurement here has it: CLOCK_MONOTONIC in nanoseconds, the clock of the
//! collector's events, so that operations and collections can be laid over each other.

use std::time::Duration;

/// Nanoseconds on the monotonic clock.
#[inline]
pub fn now() -> u64 {
    firn_heap::sys::thread::monotonic_ns()
}

/// Nanoseconds in `seconds`.
pub fn ns(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// Sleeps until `deadline` (nanoseconds on the monotonic clock): a loop of timed waits, never
/// spinning, so that the idle share of the cores is really free for a concurrent collector. A
/// mutator must call it inside `blocking`.
pub fn sleep_until(deadline: u64) {
    loop {
        let left = deadline.saturating_sub(now());
        if left == 0 {
            return;
        }
        std::thread::sleep(Duration::from_nanos(left));
    }
}
