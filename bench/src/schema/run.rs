//! One run: one scenario (or workload) in one variant under one back end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    BlockedThread, Cycle, Distribution, LockHolder, Locks, SignedDistribution, Source, Spans,
    Timeline,
};

/// Everything that one run found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What identifies the run in other files: `scenario/variant/backend`, or `workload/backend`.
    pub name: String,
    /// The scenario; `None` for `firn stress`.
    pub scenario: Option<String>,
    /// The variant of the scenario (`storm`, `quiet`, ...), empty if it has one only.
    #[serde(default)]
    pub variant: String,
    /// The workload that the mutators ran.
    pub workload: String,
    /// The back end; `none` for a scenario that has no heap.
    pub backend: String,
    /// How faults were delivered, where there were any.
    pub fault: Option<String>,
    /// How pages were installed.
    pub install: Option<String>,
    /// The seed.
    pub seed: u64,
    /// Further options by name: rates, thread counts, sizes, priorities.
    #[serde(default)]
    pub options: BTreeMap<String, Value>,
    /// What the runtime or the measurement had to do differently than asked.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The threads by role.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// `CLOCK_MONOTONIC` at the beginning of the measurement; all other times count from here.
    pub origin_ns: u64,
    /// The window that figures are about: begin and end.
    pub window: (u64, u64),
    /// The run was ended early.
    #[serde(default)]
    pub partial: bool,
    /// What follows from it, in a sentence.
    pub verdict: Verdict,
    /// The figures that this scenario is about, by name: see `docs/scenarios.md`.
    #[serde(default)]
    pub figures: Vec<Figure>,
    /// What was checked; one that failed fails the run.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// Operations a second of all threads.
    pub throughput_ops_s: Option<f64>,
    /// What an operation is, in the plural.
    #[serde(default)]
    pub operation: String,
    /// Latencies of operations.
    #[serde(default)]
    pub latencies: Vec<Latency>,
    /// Frames; `None` where there are none.
    #[serde(default)]
    pub frames: Option<Frames>,
    /// Collections in the window.
    #[serde(default)]
    pub cycles: Vec<Cycle>,
    /// Pauses in the window by kind (`all` but verification, then each): from the last mutator's stop to
    /// the first one's release.
    #[serde(default)]
    pub pauses: Vec<StallKind>,
    /// Times to safepoint by kind of pause.
    #[serde(default)]
    pub safepoints: Vec<StallKind>,
    /// Phases' wall times.
    #[serde(default)]
    pub phases: Vec<StallKind>,
    /// Accesses to missing pages; `None` without a heap.
    #[serde(default)]
    pub faults: Option<Faults>,
    /// Waits for memory.
    #[serde(default)]
    pub allocation: Option<Allocation>,
    /// `mmap_lock`; `None` where it could not be recorded.
    #[serde(default)]
    pub locks: Option<Locks>,
    /// Blocked time by thread.
    #[serde(default)]
    pub blocked: Vec<BlockedThread>,
    /// The same, added up by role (`name` is empty, `tid` 0).
    #[serde(default)]
    pub blocked_by_role: Vec<BlockedThread>,
    /// The 1 kHz probe.
    #[serde(default)]
    pub hiccups: Option<Hiccups>,
    /// Minimum utilisation of each mutator.
    #[serde(default)]
    pub utilization: Vec<Utilization>,
    /// The ten worst frames, worst first.
    #[serde(default)]
    pub worst_frames: Vec<Worst>,
    /// The ten worst stalls of mutators, worst first.
    #[serde(default)]
    pub worst_stalls: Vec<Worst>,
    /// The worst of each 100 ms.
    #[serde(default)]
    pub timeline: Timeline,
    /// Single spans, for traces.
    #[serde(default)]
    pub spans: Spans,
    /// Processor time.
    #[serde(default)]
    pub cpu: Cpu,
    /// Memory.
    #[serde(default)]
    pub memory: Memory,
    /// What the measuring itself cost; `None` where it was not determined.
    #[serde(default)]
    pub measuring_cost: Option<Cost>,
}

/// The threads of a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// The name of its threads, without the number.
    pub role: String,
    /// How many.
    pub threads: usize,
    /// What they do, in a few words.
    pub does: String,
    /// How they are scheduled (`nice 19`, `SCHED_IDLE`, ...); empty if like everybody.
    #[serde(default)]
    pub scheduling: String,
}

/// What follows from a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Verdict {
    /// A sentence.
    pub text: String,
    /// The effect lies inside the noise floor: the sentence claims nothing.
    pub inside_noise: bool,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Its name: words joined by dots and underscores, never renamed.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Its unit: `ns`, `bytes`, `count`, `ratio`, `per second`, ...
    pub unit: String,
    /// What it is, in a few words.
    pub what: String,
    /// Whether less (-1) or more (1) is better, or neither (0).
    pub better: i8,
}

/// Something that a run checked about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was compared.
    pub what: String,
    /// Whether it held.
    pub ok: bool,
    /// What was found.
    pub detail: String,
}

/// Latencies of one kind of operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// What: `operation`, or a scenario's own (`fork`, `mmap`, `read fault`, ...).
    pub name: String,
    /// Whose: a role.
    pub role: String,
    /// `closed`, `metered`, `fixed` or `paced`: how operations were offered.
    pub mode: String,
    /// The offered rate, operations a second.
    pub offered_ops_s: Option<f64>,
    /// The rate reached, operations a second.
    pub reached_ops_s: Option<f64>,
    /// A thread fell so far behind its schedule that it gave up.
    #[serde(default)]
    pub saturated: bool,
    /// How long.
    pub ns: Distribution,
}

/// Frames against their deadlines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frames {
    /// What the frames were.
    pub what: String,
    /// Judged at each display rate.
    pub rates: Vec<FrameRate>,
}

/// Frames at one display rate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameRate {
    /// Frames a second.
    pub hz: u32,
    /// From vsync to deadline.
    pub deadline_ns: u64,
    /// How many were judged.
    pub frames: u64,
    /// How many ended after their deadline.
    pub missed: u64,
    /// The longest run of missed frames.
    pub worst_run: u64,
    /// By how much: negative is early.
    pub overrun_ns: SignedDistribution,
}

/// Durations of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StallKind {
    /// Which kind.
    pub kind: String,
    /// How long.
    pub ns: Distribution,
}

/// A heat map: how many in each cell of time and duration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Heat {
    /// Width of a cell in time, nanoseconds.
    pub interval_ns: u64,
    /// Upper edges of the rows, nanoseconds, ascending (half octaves).
    pub edges: Vec<u64>,
    /// Column (interval), row, count: occupied cells only.
    pub cells: Vec<(u32, u32, u64)>,
}

/// Accesses to missing pages.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Faults {
    /// All of them.
    pub all: Distribution,
    /// By outcome: `built`, `helped`, `waited`, `already mapped`.
    pub by_outcome: Vec<StallKind>,
    /// Not recorded because a buffer was full.
    pub lost: u64,
    /// Over time.
    pub heat: Heat,
}

/// Waits for memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Allocation {
    /// How long.
    pub ns: Distribution,
}

/// The 1 kHz probe: a thread that sleeps a millisecond and looks at the clock. What it sees, every thread
/// of its priority suffers, whatever it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hiccups {
    /// By how much wake-ups came late, with the samples filled in that a late one has missed.
    pub ns: Distribution,
    /// The same of wake-ups as they came.
    pub raw: Distribution,
}

/// Utilisation of one mutator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Utilization {
    /// The mutator's number in the heap.
    pub mutator: u32,
    /// The thread's name.
    pub name: String,
    /// Nanoseconds lost in the window.
    pub lost_ns: u64,
    /// What is counted as lost.
    pub counted: Vec<String>,
    /// The least share left in any window of at least this length.
    pub windows: Vec<WindowUtilization>,
}

/// Utilisation at one window length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowUtilization {
    /// Milliseconds.
    pub window_ms: u64,
    /// From 0 to 1; null if the run was shorter.
    pub utilization: Option<f64>,
}

/// One of the worst frames or stalls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worst {
    /// From 1 on.
    pub rank: u32,
    /// What it was: `frame 1234`, `operation`, `fork`, `fault`, `pause`, ...
    pub what: String,
    /// The kernel's id of the thread.
    pub tid: u32,
    /// The thread's name.
    pub thread: String,
    /// The thread's role.
    pub role: String,
    /// Its begin (of a frame: its vsync).
    pub begin: u64,
    /// Its end.
    pub end: u64,
    /// Its length, `end - begin`.
    pub ns: u64,
    /// For a frame: by how much it overran its deadline.
    pub overrun_ns: Option<i64>,
    /// The main cause: that of `causes` with the most time, or `unknown`.
    pub cause: String,
    /// Everything that took time in it, the most first.
    pub causes: Vec<WorstCause>,
}

/// A cause within a worst frame or stall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorstCause {
    /// `pause`, `fault built by itself`, `waited for a page`, `mmap_lock wait for reading`, `mmap_lock wait
    /// for writing`, `run-queue delay`, `allocation stall`, `uninterruptible sleep`, `own work`, `unknown`.
    pub cause: String,
    /// Nanoseconds of it.
    pub ns: u64,
    /// How many.
    pub count: u64,
    /// For a lock wait: what the lock was wanted for.
    #[serde(default)]
    pub operation: String,
    /// For a lock wait: who held the lock meanwhile, the longest first.
    #[serde(default)]
    pub holders: Vec<LockHolder>,
}

/// Processor time in the window, seconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Cpu {
    /// Of all threads.
    pub process_s: f64,
    /// Of the collector's threads.
    pub collector_s: f64,
    /// Of the measuring threads.
    #[serde(default)]
    pub measuring_s: f64,
}

/// Memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Maximum heap.
    pub heap_bytes: u64,
    /// Most memory that the process ever had resident.
    pub rss_peak_bytes: Option<u64>,
    /// The collector's tables.
    pub side_table_bytes: u64,
    /// Mappings of the process in the middle of the window.
    #[serde(default)]
    pub vmas: Option<u64>,
    /// Threads of the process in the middle of the window.
    #[serde(default)]
    pub threads: Option<u64>,
}

/// What measuring cost: the same work with and without.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// What was compared: operations a second, or processor time of the recording.
    pub what: String,
    /// How it was found out: prices, and what they were paid for.
    #[serde(default)]
    pub how: String,
    /// With measuring.
    pub with: f64,
    /// Without.
    pub without: f64,
    /// The share lost, in percent of `without`; negative where measuring seemed to help (noise).
    pub percent: f64,
    /// The interval that it lies in with 95 %, as far as the price of a record is uncertain.
    #[serde(default)]
    pub percent_interval: Option<(f64, f64)>,
    /// More than 5 %: figures of this run are to be taken with care.
    pub flagged: bool,
    /// Where the two come from.
    pub source: Source,
    /// Kernel events recorded, a second.
    pub events_per_s: f64,
}
