//! `mmap_lock` and blocked time, as a file has them.

use serde::{Deserialize, Serialize};

use super::{Distribution, Source};
use crate::perf::histogram::{DECADES, Decades};

/// For reading or for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
}

impl LockMode {
    /// `read` or `write`.
    pub fn name(self) -> &'static str {
        match self {
            LockMode::Read => "read",
            LockMode::Write => "write",
        }
    }
}

/// Durations, both in the decades of kernel mailing lists and finely.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Times {
    /// How many lie in `[0, 1)` µs, `[1, 10)` µs, ... `[100, 1000)` ms, `[1 s, ∞)`.
    pub decades: [u64; DECADES],
    /// The same durations as a distribution.
    #[serde(flatten)]
    pub fine: Distribution,
}

impl Times {
    /// Of a list of durations.
    pub fn of(durations: impl IntoIterator<Item = u64> + Clone) -> Times {
        let mut decades = Decades::default();
        durations.clone().into_iter().for_each(|ns| decades.add(ns));
        Times { decades: decades.buckets, fine: Distribution::of(durations) }
    }

    /// All of several, as one.
    pub fn merged<'a>(parts: impl IntoIterator<Item = &'a Times> + Clone) -> Times {
        let mut decades = [0; DECADES];
        for part in parts.clone() {
            for (sum, n) in decades.iter_mut().zip(part.decades) {
                *sum += n;
            }
        }
        Times { decades, fine: Distribution::merged(parts.into_iter().map(|t| &t.fine)) }
    }
}

/// How the threads of one role used the lock in one mode for one operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRow {
    /// For reading or for writing.
    pub mode: LockMode,
    /// The threads' role: a thread's name without its number (`HeapTaskDaemon`, `GcWorker`, `Mutator`,
    /// `VmaWriter`, ...); `""` in rows that add up all roles.
    pub role: String,
    /// What the lock was taken for: a phase of the cycle (`flip`, `compact`, ... for the collector's own
    /// threads), a system call (`mmap`, `munmap`, `ioctl`, ...) or `page fault`; `""` in rows that add up
    /// all operations.
    pub operation: String,
    /// Acquisitions.
    pub count: u64,
    /// Acquisitions that met the lock taken and waited in the kernel's slow path (a writer that only spun
    /// is not among them); `None` where that cannot be known.
    pub contended: Option<u64>,
    /// From the first attempt to having it: one for each acquisition, most of them next to zero.
    pub wait: Times,
    /// From having it to the release, or the downgrade.
    pub hold: Times,
    /// Holds for writing that were turned into ones for reading.
    #[serde(default)]
    pub downgraded: u64,
    /// Attempts that did not wait and failed.
    #[serde(default)]
    pub failed: u64,
}

/// How good the record is: what is not zero may be missing elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LockQuality {
    /// Events recorded.
    pub records: u64,
    /// Events that the kernel dropped because a buffer was full.
    pub lost: u64,
    /// Events without their counterpart (a few at the beginning and the end are normal).
    pub unpaired: u64,
    /// Events that came out of order.
    pub late: u64,
    /// Bytes that were no records.
    pub damaged_bytes: u64,
    /// Times that a thread of the process came back to a processor without a record of it: the idle threads of some
    /// processors emit none. Sleep ends with the wake-up then, or with the acquisition of the lock that it was in;
    /// where neither is known it is not counted.
    pub missed_switches: u64,
}

/// `mmap_lock` of the process, during the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locks {
    /// [`Source::Tracepoints`] or [`Source::Probes`]; a run without either has no `locks`.
    pub source: Source,
    /// How good the record is.
    pub quality: LockQuality,
    /// Everybody, by mode: two rows.
    pub total: Vec<LockRow>,
    /// By mode and role.
    pub by_role: Vec<LockRow>,
    /// By mode, role and operation.
    pub by_operation: Vec<LockRow>,
}

impl Locks {
    /// Everybody's row of a mode.
    pub fn of_mode(&self, mode: LockMode) -> Option<&LockRow> {
        self.total.iter().find(|row| row.mode == mode)
    }

    /// A role's row of a mode.
    pub fn of_role(&self, mode: LockMode, role: &str) -> Option<&LockRow> {
        self.by_role.iter().find(|row| row.mode == mode && row.role == role)
    }
}

/// One long acquisition, for traces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockSpan {
    /// The kernel's id of the thread.
    pub tid: u32,
    /// For reading or for writing.
    pub mode: LockMode,
    /// What for, as in [`LockRow::operation`].
    pub operation: String,
    /// When the thread began to take it.
    pub start: u64,
    /// When it had it.
    pub acquired: u64,
    /// When it gave it back.
    pub released: u64,
}

/// Who had the lock while somebody waited for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// The kernel's id of the thread.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: String,
    /// How it held it.
    pub mode: LockMode,
    /// What for.
    pub operation: String,
    /// For how long during the wait, nanoseconds.
    pub held_ns: u64,
    /// How many times it had it during the wait.
    pub times: u64,
    /// Nanoseconds of that during which the holder itself was off the processor (preempted or asleep);
    /// `None` where scheduling was not recorded.
    pub off_cpu_ns: Option<u64>,
}

/// Time in which a thread did not run, by reason, during the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedThread {
    /// The kernel's id.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: String,
    /// Where the numbers come from; what the source does not know is null.
    pub source: Source,
    /// Uninterruptible (D) sleep, nanoseconds.
    pub uninterruptible_ns: Option<u64>,
    /// How often it went into uninterruptible sleep.
    pub uninterruptible_count: Option<u64>,
    /// The longest uninterruptible sleep.
    pub uninterruptible_max_ns: Option<u64>,
    /// The part of it inside the acquisition of `mmap_lock`, by call chain (tracepoints).
    pub in_mmap_lock_ns: Option<u64>,
    /// The part of it in which a writer waits for the readers of a VMA, by call chain.
    pub in_vma_lock_ns: Option<u64>,
    /// Interruptible sleep inside the handling of userfaults, by call chain.
    pub in_userfault_ns: Option<u64>,
    /// Other interruptible sleep: the thread waits for something of its own accord.
    pub interruptible_ns: Option<u64>,
    /// Runnable, but not running.
    pub run_queue_ns: Option<u64>,
    /// The longest time runnable but not running.
    pub run_queue_max_ns: Option<u64>,
    /// Running.
    pub running_ns: Option<u64>,
    /// How often it was taken off the processor while it could have run on.
    pub preempted_count: Option<u64>,
    /// Nanoseconds it was off the processor (preempted or asleep) while it held `mmap_lock`.
    pub off_cpu_holding_ns: Option<u64>,
}
