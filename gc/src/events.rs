//! The event stream: everything the collector tells about itself, and the only source of every report.
//!
//! Times are `CLOCK_MONOTONIC` nanoseconds. Events are delivered on the thread that collects, that
//! waited for memory or that was stopped, never in the fault handler: faults are written to a preallocated buffer
//! there and delivered at the end of the cycle.

use crate::config::{FaultOutcome, InstallKind};

/// Receives events. Called with no lock of the heap held, on the collecting, the waiting or the stopped thread; it
/// may add another listener, but not use the heap otherwise, and what it spends is spent inside the cycle. If it
/// panics, the process ends: whoever is called is in the middle of a cycle's work, which nobody else would finish.
pub trait Listener: Send + Sync {
    /// One event.
    fn event(&self, event: &Event);
}

/// Why a cycle was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Allocation reached the start threshold.
    Threshold,
    /// Somebody asked for it.
    Explicit,
    /// An allocation failed.
    Allocation,
    /// The same, the second time: everything is compacted, nothing is left where it is.
    LastResort,
    /// The program went to the background.
    Background,
    /// The stress option asked for it.
    Stress,
}

/// A part of a cycle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Phase {
    /// Walking the heap to check it.
    Verify,
    /// Switching the write barrier on and taking roots.
    Start,
    /// Tracing.
    Mark,
    /// The pause that ends marking.
    FinalMark,
    /// Breaking ephemerons whose keys died, computing destinations, sweeping large objects, emptying the to-range.
    Plan,
    /// The pause in which addresses change.
    Flip,
    /// Building the to-range.
    Compact,
    /// Forwarding the global roots that nobody has read, resetting side tables, giving memory back.
    Finish,
}

/// A kind of stop-the-world pause.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum PauseKind {
    /// The start of marking.
    Start,
    /// The end of marking.
    FinalMark,
    /// The flip (with the `stw` back end, all of compaction).
    Flip,
    /// Verification.
    Verify,
}

/// What a cycle did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CycleSummary {
    /// Number of the cycle, from 1 on.
    pub cycle: u64,
    /// Why it ran.
    pub cause: Cause,
    /// Its begin.
    pub begin: u64,
    /// Its end.
    pub end: u64,
    /// Bytes of marked objects in the moving range.
    pub live_bytes: usize,
    /// Bytes of live large objects.
    pub large_live_bytes: usize,
    /// Bytes of pages in use at the flip, before.
    pub used_before: usize,
    /// Bytes of pages in use at the flip, after (late allocation included).
    pub used_after: usize,
    /// Objects marked.
    pub marked_objects: u64,
    /// To-pages published by COPY or by copying.
    pub pages_copied: u64,
    /// To-pages published by MOVE from a staging run.
    pub pages_moved: u64,
    /// To-pages published by moving the from-page itself.
    pub pages_dense: u64,
    /// To-pages published by collector threads.
    pub pages_by_collector: u64,
    /// To-pages published by faulting mutators.
    pub pages_by_mutators: u64,
    /// Pages given back to the kernel.
    pub pages_released: u64,
    /// Ephemerons (weak references) broken because their keys had died.
    pub ephemerons_broken: u64,
    /// Objects that guardians can give out since this cycle.
    pub guarded_ready: u64,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A cycle begins.
    CycleBegin {
        /// Number of the cycle.
        cycle: u64,
        /// Why.
        cause: Cause,
        /// When.
        at: u64,
    },
    /// A phase has ended.
    Phase {
        /// Number of the cycle.
        cycle: u64,
        /// Which phase.
        phase: Phase,
        /// Its begin.
        begin: u64,
        /// Its end.
        end: u64,
    },
    /// The world was stopped.
    Pause {
        /// Number of the cycle.
        cycle: u64,
        /// What for.
        kind: PauseKind,
        /// When the stop was requested.
        requested: u64,
        /// When the last mutator had stopped.
        stopped: u64,
        /// When the first one could go on.
        released: u64,
        /// Mutators attached.
        mutators: u32,
    },
    /// One mutator was interrupted by a safepoint, from arriving until it went on.
    ThreadStop {
        /// The mutator.
        thread: u32,
        /// When it arrived.
        begin: u64,
        /// When it went on.
        end: u64,
    },
    /// A thread touched a missing page.
    Fault {
        /// Number of the cycle.
        cycle: u64,
        /// The mutator, or `u32::MAX` for a thread that is none.
        thread: u32,
        /// When the handler began.
        begin: u64,
        /// When it ended.
        end: u64,
        /// What it did.
        outcome: FaultOutcome,
        /// The to-page.
        page: u32,
        /// To-pages that the thread has published, those around it included.
        published: u32,
    },
    /// Faults that found the buffer full.
    FaultsLost {
        /// How many.
        count: u64,
    },
    /// A kernel operation did not complete at the first attempt.
    Retry {
        /// Number of the cycle.
        cycle: u64,
        /// Which operation.
        op: InstallKind,
        /// The error number.
        errno: i32,
        /// How often.
        count: u64,
    },
    /// A mutator had to wait for memory.
    AllocStall {
        /// The mutator.
        thread: u32,
        /// Since when.
        begin: u64,
        /// Until when.
        end: u64,
        /// Bytes it wanted.
        bytes: usize,
    },
    /// A cycle has ended.
    CycleEnd {
        /// What it did.
        summary: CycleSummary,
    },
}
