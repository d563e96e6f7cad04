//! What the kernel knows about a thread: name, id, priority, processors, and the clocks.
//!
//! Priorities matter to a concurrent collector: the daemon's nice value or class decides who waits
//! for whom when there are fewer processors than threads, and it is what users report about. All
//! setters are for the calling thread, except [`set_nice`], and say what the kernel refused.

use std::{ffi::CString, mem::MaybeUninit};

use super::{Errno, signal::preserve_errno};

/// Names the calling thread, as `/proc` and tools show it. The kernel keeps 15 bytes; a longer name
/// is cut there, and ends at a NUL.
///
/// # Errors
/// None on current kernels.
pub fn set_name(name: &str) -> Result<(), Errno> {
    let bytes: Vec<u8> = name.bytes().take_while(|&b| b != 0).take(15).collect();
    let name = CString::new(bytes).unwrap_or_default();
    // SAFETY: the kernel copies at most 16 bytes of the NUL-terminated name.
    Errno::check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr() as libc::c_ulong, 0, 0, 0) })
}

/// The kernel's id of the calling thread. Signal-safe.
pub fn gettid() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::gettid() as u32 }
}

/// Sets the nice value, -20 (most favoured) to 19, of the thread `tid`; 0 means the calling one.
///
/// # Errors
/// `EACCES` or `EPERM` for a value below what `RLIMIT_NICE` allows, `ESRCH` for no such thread. A
/// value out of range is clamped by the kernel.
pub fn set_nice(tid: u32, nice: i32) -> Result<(), Errno> {
    // SAFETY: plain system call. On Linux PRIO_PROCESS with a thread's id means that thread only.
    Errno::check(unsafe { libc::setpriority(libc::PRIO_PROCESS, tid, nice) })
}

/// The nice value of the calling thread.
pub fn nice() -> i32 {
    // SAFETY: plain system call; it cannot fail for the calling thread, so its -1 is a value.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// Lets other threads run while the caller waits, for the `turn`th time (from 0) in a row, for something that nobody
/// announces. Yields at first; from the 16th turn on it sleeps for 50 µs, because yielding lets no thread of a lower
/// scheduling class run, and that one may be who is waited for. Signal-safe; keeps `errno`.
pub fn give_way(turn: u32) {
    const YIELDS: u32 = 16;
    preserve_errno(|| {
        // SAFETY: plain system calls; the time is a live timespec, and an interrupted sleep ends early.
        unsafe {
            if turn < YIELDS {
                libc::sched_yield();
            } else {
                let time = libc::timespec { tv_sec: 0, tv_nsec: 50_000 };
                libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &time, std::ptr::null_mut());
            }
        }
    });
}

/// Scheduling classes: see `sched(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// `SCHED_OTHER`: the default, governed by nice values.
    Other,
    /// `SCHED_BATCH`: as the default, but wakes up without preempting.
    Batch,
    /// `SCHED_IDLE`: only what nobody else wants.
    Idle,
    /// `SCHED_FIFO` at this priority, 1 to 99: runs until it blocks.
    Fifo(u8),
    /// `SCHED_RR` at this priority, 1 to 99: as FIFO, with time slices among equals.
    RoundRobin(u8),
}

/// Sets the scheduling class of the calling thread.
///
/// # Errors
/// `EINVAL` for a priority out of range, `EPERM` for a real-time class above `RLIMIT_RTPRIO` without
/// `CAP_SYS_NICE`.
pub fn set_scheduler(policy: Policy) -> Result<(), Errno> {
    let (class, priority) = match policy {
        Policy::Other => (libc::SCHED_OTHER, 0),
        Policy::Batch => (libc::SCHED_BATCH, 0),
        Policy::Idle => (libc::SCHED_IDLE, 0),
        Policy::Fifo(p) => (libc::SCHED_FIFO, p),
        Policy::RoundRobin(p) => (libc::SCHED_RR, p),
    };
    // SAFETY: all-zero is valid (some C libraries have more fields than the priority).
    let mut param: libc::sched_param = unsafe { MaybeUninit::zeroed().assume_init() };
    param.sched_priority = priority.into();
    // The kernel's own call rather than the C library's: musl's refuses to set one thread.
    // SAFETY: the kernel reads the priority from a live struct; 0 means the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, class, &raw const param) };
    Errno::check(result as libc::c_int)
}

/// Restricts the calling thread to these processors.
///
/// # Errors
/// `EINVAL` if none of them exists and is allowed to this process, or a number is too large for the
/// kernel's interface.
pub fn set_affinity(cpus: &[usize]) -> Result<(), Errno> {
    // SAFETY: all-zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { MaybeUninit::zeroed().assume_init() };
    for &cpu in cpus {
        if cpu >= libc::CPU_SETSIZE as usize {
            return Err(Errno::EINVAL);
        }
        // SAFETY: `cpu` is within the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: the kernel reads a live set of the size given; 0 means the calling thread.
    Errno::check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) })
}

/// The processors that the calling thread may use.
///
/// # Errors
/// `EINVAL` on a machine with more than 1024 processors.
pub fn affinity() -> Result<Vec<usize>, Errno> {
    // SAFETY: all-zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the kernel fills a live set of the size given; 0 means the calling thread.
    Errno::check(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) })?;
    let all = 0..libc::CPU_SETSIZE as usize;
    // SAFETY: every number is within the set.
    Ok(all.filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect())
}

/// Nanoseconds of processor time that the calling thread has used. Signal-safe; a system call.
pub fn thread_cpu_time_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Nanoseconds of a clock that never goes back, from an arbitrary start, without a system call where
/// the kernel shares its clock (vDSO). Signal-safe.
#[inline]
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

#[inline]
fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills a live timespec; neither clock can fail.
    unsafe { libc::clock_gettime(clock, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, thread};

    /// Attributes of a thread are changed on a thread of its own.
    fn apart(f: impl FnOnce() + Send + 'static) {
        thread::spawn(f).join().expect("the thread's own assertions");
    }

    #[test]
    fn a_name_is_shown_by_proc_and_cut_at_fifteen_bytes() {
        apart(|| {
            let read = || fs::read_to_string(format!("/proc/self/task/{}/comm", gettid())).unwrap();
            set_name("HeapTaskDaemon").unwrap();
            assert_eq!(read(), "HeapTaskDaemon\n");
            set_name("a name that is too long").unwrap();
            assert_eq!(read(), "a name that is \n");
        });
    }

    #[test]
    fn a_thread_may_make_itself_nicer() {
        apart(|| {
            let target = (nice() + 3).min(19);
            set_nice(0, target).unwrap();
            assert_eq!(nice(), target);
            assert_eq!(set_nice(u32::MAX >> 1, 0), Err(Errno::ESRCH));
        });
    }

    #[test]
    fn scheduling_classes_are_set_or_refused_by_name() {
        apart(|| {
            set_scheduler(Policy::Batch).unwrap();
            set_scheduler(Policy::Idle).unwrap();
            assert_eq!(set_scheduler(Policy::Fifo(0)), Err(Errno::EINVAL));
            match set_scheduler(Policy::Fifo(1)) {
                Ok(()) => set_scheduler(Policy::Other).unwrap(),
                Err(errno) => assert_eq!(errno, Errno::EPERM),
            }
        });
    }

    #[test]
    fn affinity_is_what_was_set() {
        apart(|| {
            let allowed = affinity().unwrap();
            set_affinity(&allowed[..1]).unwrap();
            assert_eq!(affinity().unwrap(), allowed[..1]);
            assert_eq!(set_affinity(&[]), Err(Errno::EINVAL));
            assert_eq!(set_affinity(&[usize::MAX]), Err(Errno::EINVAL));
        });
    }

    #[test]
    fn clocks_advance() {
        let (wall, cpu) = (monotonic_ns(), thread_cpu_time_ns());
        while thread_cpu_time_ns() == cpu {}
        assert!(monotonic_ns() > wall);
    }
}
