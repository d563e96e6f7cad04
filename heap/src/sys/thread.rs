//! The calling thread: name, priority, processors, clocks.

use super::{Errno, check};

/// Names the calling thread (15 bytes at most are kept).
pub fn set_name(name: &str) {
    let mut bytes = [0u8; 16];
    let len = name.len().min(15);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    // SAFETY: a zero-terminated name.
    unsafe { libc::prctl(libc::PR_SET_NAME, bytes.as_ptr()) };
}

/// The calling thread's kernel id.
pub fn gettid() -> i32 {
    // SAFETY: no preconditions.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// Sets the calling thread's nice value (-20 to 19; below 0 needs privilege).
pub fn set_nice(nice: i32) -> Result<(), Errno> {
    // SAFETY: no preconditions. 0 names the calling thread.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })
}

/// A scheduling class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// The normal class.
    Other,
    /// Normal, but assumed to be long-running.
    Batch,
    /// Only when nothing else wants the processor.
    Idle,
    /// Real time, first in first out, with this priority (1 to 99; needs privilege).
    Fifo(i32),
    /// Real time, round robin, with this priority (1 to 99; needs privilege).
    RoundRobin(i32),
}

/// Sets the calling thread's scheduling class.
pub fn set_scheduler(policy: Policy) -> Result<(), Errno> {
    let (policy, priority) = match policy {
        Policy::Other => (libc::SCHED_OTHER, 0),
        Policy::Batch => (libc::SCHED_BATCH, 0),
        Policy::Idle => (libc::SCHED_IDLE, 0),
        Policy::Fifo(priority) => (libc::SCHED_FIFO, priority),
        Policy::RoundRobin(priority) => (libc::SCHED_RR, priority),
    };
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: a valid parameter block; 0 names the calling thread.
    check(unsafe { libc::sched_setscheduler(0, policy, &param) })
}

/// Restricts the calling thread to these processors.
pub fn set_affinity(cpus: &[usize]) -> Result<(), Errno> {
    // SAFETY: an all-zero set is a valid, empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        if cpu >= 8 * size_of::<libc::cpu_set_t>() {
            return Err(Errno::EINVAL);
        }
        // SAFETY: the index was checked against the set's size.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: a valid set of the size given; 0 names the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) })
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place to write to; these clocks always exist.
    unsafe { libc::clock_gettime(id, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// `CLOCK_MONOTONIC` in nanoseconds; async-signal-safe.
#[inline]
pub fn monotonic_ns() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// Processor time of the calling thread in nanoseconds.
pub fn thread_cpu_time_ns() -> u64 {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Lets another thread run.
pub fn yield_now() {
    // SAFETY: no preconditions.
    unsafe { libc::sched_yield() };
}
