//! What happened when: cycles, the worst of each interval, and bounded lists of single spans for traces.

use serde::{Deserialize, Serialize};

use super::LockSpan;

/// One collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cycle {
    /// Its number, from 1 on.
    pub number: u64,
    /// Why it ran.
    pub cause: String,
    /// Its begin.
    pub begin: u64,
    /// Its end.
    pub end: u64,
    /// Its phases in order of time.
    pub phases: Vec<PhaseSpan>,
    /// Its pauses in order of time.
    pub pauses: Vec<Pause>,
    /// What it cost mutators, by cause: name, count, nanoseconds in all. Names are the fault outcomes
    /// (`built`, `helped`, `waited`, `already mapped`), `pause`, `stop`, `allocation`, `mmap_lock read`,
    /// `mmap_lock write`.
    pub stalls: Vec<(String, u64, u64)>,
    /// Live bytes that it found.
    pub live_bytes: u64,
    /// Pages published by copying.
    pub pages_copied: u64,
    /// Pages published by remapping, dense ones included.
    pub pages_moved: u64,
    /// Pages published by faulting mutators.
    pub pages_by_mutators: u64,
    /// `mmap_lock` taken by this collection; `None` where it was not recorded without loss from the collection's begin
    /// to its end, or where that is not inside the window.
    #[serde(default)]
    pub locks: Option<CycleLocks>,
}

/// How often one collection took `mmap_lock`: the collector's threads, and mutators that carried out a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CycleLocks {
    /// For writing.
    pub write: u64,
    /// For reading.
    pub read: u64,
    /// Of those for reading, while pages were built and published.
    pub compact_read: u64,
    /// Of these, to install pages (`UFFDIO_COPY`, `UFFDIO_MOVE`).
    pub install_read: u64,
}

/// One phase of a cycle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseSpan {
    /// `start`, `mark`, `final mark`, `plan`, `flip`, `compact`, `finish`, `verify`.
    pub name: String,
    /// Its begin.
    pub begin: u64,
    /// Its end.
    pub end: u64,
}

/// One stop of all mutators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// `start`, `final mark`, `flip`, `verify`.
    pub kind: String,
    /// When it was asked for.
    pub requested: u64,
    /// When the last mutator had stopped.
    pub stopped: u64,
    /// When the first one could go on.
    pub released: u64,
}

/// The worst of each interval.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timeline {
    /// Length of an interval, nanoseconds.
    pub interval_ns: u64,
    /// What was followed.
    pub tracks: Vec<Track>,
}

/// One thing followed over time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    /// `operation`, `frame overrun`, `hiccup`, `fault`, `mmap_lock read wait`, `mmap_lock write wait`.
    pub name: String,
    /// Worst value of the interval that begins at `index * interval_ns`, nanoseconds; null where there was
    /// nothing. Overruns are signed.
    pub worst: Vec<Option<i64>>,
}

/// A thread that spans refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadName {
    /// The kernel's id.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: String,
    /// The mutator's number in the heap, where it is one.
    pub mutator: Option<u32>,
    /// It is no thread of this process, but took its `mmap_lock`: the kernel's own `khugepaged`, or somebody who reads
    /// `/proc`.
    #[serde(default)]
    pub foreign: bool,
}

/// One access to a missing page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The mutator's number; null for a thread that is none.
    pub mutator: Option<u32>,
    /// When the handler began.
    pub begin: u64,
    /// When it ended.
    pub end: u64,
    /// `built`, `helped`, `waited`, `already mapped`.
    pub outcome: String,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Its number.
    pub number: u64,
    /// The thread that made it: the kernel's id.
    pub tid: u32,
    /// When it should have begun.
    pub vsync: u64,
    /// When it began.
    pub begin: u64,
    /// When it ended.
    pub end: u64,
    /// When it should have ended.
    pub deadline: u64,
}

/// Time off a processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// The kernel's id.
    pub tid: u32,
    /// When the thread was taken off.
    pub begin: u64,
    /// When it was woken; equal to `begin` if it was preempted.
    pub woken: u64,
    /// When it ran again.
    pub end: u64,
    /// `preempted`, `interruptible`, `uninterruptible`.
    pub state: String,
    /// Where it slept, by call chain: `mmap_lock`, `vma lock`, `userfault`, or empty.
    pub wait: String,
}

/// Single spans, bounded in number: the longest of each kind, in order of time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Spans {
    /// The kernel's id of the process that they are of, which is its first thread's, too; null in older files.
    pub pid: Option<u32>,
    /// Who the spans belong to.
    pub threads: Vec<ThreadName>,
    /// Accesses to missing pages.
    pub faults: Vec<Fault>,
    /// Acquisitions of `mmap_lock` whose wait or hold was long.
    pub locks: Vec<LockSpan>,
    /// Times off a processor.
    pub switches: Vec<Switch>,
    /// Frames, all of them as far as there is room.
    pub frames: Vec<Frame>,
    /// How many spans of any kind were left out.
    pub dropped: u64,
}
