//! Where and with what a file was made: figures without it cannot be judged, and runs whose environments
//! differ are compared only with a warning that names the difference.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The machine, the kernel, the program and how it was called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Environment {
    /// Version of the `firn` program.
    pub firn_version: String,
    /// `release` or `debug`: the latter's times mean nothing.
    pub build: String,
    /// The arguments of the program.
    pub command: Vec<String>,
    /// When it began, in seconds since 1970 (UTC).
    pub started_unix_s: u64,
    /// Kernel release, as `uname -r`.
    pub kernel: String,
    /// Kernel build, as `uname -v` (its preemption model is in it).
    pub kernel_build: String,
    /// Instruction set, as `uname -m`.
    pub architecture: String,
    /// Processors that the process may use.
    pub cpus: usize,
    /// Processors that are online.
    pub cpus_online: usize,
    /// The processor's name.
    pub cpu_model: String,
    /// Frequency governor of the first processor; `None` where there is none (virtual machines).
    pub governor: Option<String>,
    /// The hypervisor, as far as the processor tells; `None` on bare metal or unknown.
    pub hypervisor: Option<String>,
    /// The kernel's clock source.
    pub clock_source: Option<String>,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Page size in bytes.
    pub page_bytes: usize,
    /// Mode of transparent huge pages.
    pub transparent_huge_pages: String,
    /// Load averages over 1, 5 and 15 minutes when it began.
    pub load_average: Option<[f64; 3]>,
    /// How userfaultfd was opened; `None` if it could not be.
    pub userfaultfd: Option<String>,
    /// The features that the kernel grants, by name; why there are none if it could not be opened.
    pub features: String,
    /// Whether `UFFDIO_MOVE` works.
    pub uffdio_move: bool,
    /// Whether SIGBUS faults on a missing page avoid `mmap_lock` (by release).
    pub per_vma_locks: bool,
    /// Whether installing pages avoids `mmap_lock` (by release).
    pub per_vma_userfaultfd: bool,
    /// Whether the program ran as root.
    pub root: bool,
    /// What could be measured with which means.
    pub measuring: Measuring,
    /// The kernel's settings that matter here, by path below `/proc/sys`, `/sys`: as they were read.
    pub settings: BTreeMap<String, String>,
}

/// Where a number comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Kernel tracepoints through `perf_event_open`.
    Tracepoints,
    /// Probes on the kernel's functions, through `perf_event_open`, where it has no tracepoints of the lock.
    Probes,
    /// The scheduler's statistics, `/proc/PID/task/TID/sched` with `kernel.sched_schedstats=1`.
    Schedstats,
    /// `/proc/PID/task/TID/{schedstat,stat,status}`.
    Proc,
    /// Clock readings in the program itself.
    Program,
}

/// Which means of measuring were to be had.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Measuring {
    /// For `mmap_lock`: [`Source::Tracepoints`], [`Source::Probes`], or nothing.
    pub locks: Option<Source>,
    /// For blocked time.
    pub blocked: Option<Source>,
    /// What is missing, each with its remedy.
    pub missing: Vec<String>,
}
