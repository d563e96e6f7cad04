//! The workloads of `firn stress`. `lru`, `binary-trees`, `gcbench` and `frames` are those of the
//! peers' specification (`shared/peers/README.md`), so that their checksums and times can be laid
//! beside other runtimes'; `graph` checks the collector against a model in native memory.
//!
//! A workload gets a [`Bench`] (the heap, the stop flag, progress), runs its mutator threads, and
//! returns an [`Outcome`]; it neither prints nor decides exit codes. Threads are named
//! `Mutator-N`, and only they attach, so mutator ids are below their number.

pub mod frames;
pub mod gcbench;
pub mod graph;
pub mod lru;
pub mod rendezvous;
pub mod rng;
pub mod trees;
pub mod zipf;

use std::fmt;
use std::str::FromStr;

use firn::{Heap, OutOfMemory, Scope};

use crate::measure::cpu::CpuUse;
use crate::measure::frames::FrameStats;
use crate::measure::latency::Latency;
use crate::measure::mmu::Interval;
use crate::measure::notes::Notes;
use crate::progress::{Progress, Stop};

/// Which program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Least-recently-used caches, one a thread, hit and missed by a Zipf distribution.
    Lru,
    /// Many short-lived complete binary trees beside a long-lived one.
    BinaryTrees,
    /// The classic GCBench: trees built top-down and bottom-up, a long-lived tree and array.
    GcBench,
    /// A user interface at 120 Hz beside a thread that makes garbage.
    Frames,
    /// Seeded random mutation of a shared graph of all object kinds, checked against a model.
    Graph,
}

impl Workload {
    /// All of them, in the order of the help.
    pub const ALL: [Workload; 5] = [
        Workload::Lru,
        Workload::BinaryTrees,
        Workload::GcBench,
        Workload::Frames,
        Workload::Graph,
    ];

    /// The name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Lru => "lru",
            Workload::BinaryTrees => "binary-trees",
            Workload::GcBench => "gcbench",
            Workload::Frames => "frames",
            Workload::Graph => "graph",
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(name: &str) -> Result<Workload, String> {
        Workload::ALL.into_iter().find(|w| w.name() == name).ok_or_else(|| {
            let names: Vec<_> = Workload::ALL.iter().map(|w| w.name()).collect();
            format!("there is no workload '{name}'; there are {}", names.join(", "))
        })
    }
}

/// What a workload runs on.
#[derive(Clone, Copy)]
pub struct Bench<'a> {
    /// The heap, with whatever listener its report is computed from.
    pub heap: &'a Heap,
    /// Polled by every loop.
    pub stop: &'a Stop,
    /// Told how far the run is.
    pub progress: &'a Progress,
    /// Told who the mutators are, when the window begins, and what took long.
    pub notes: &'a Notes,
}

impl<'a> Bench<'a> {
    /// A run that nobody takes notes of.
    pub fn new(heap: &'a Heap, stop: &'a Stop, progress: &'a Progress) -> Bench<'a> {
        Bench { heap, stop, progress, notes: Notes::nobody() }
    }
}

/// How much was done in how long, in the measured window.
#[derive(Debug, Clone, Copy)]
pub struct Throughput {
    /// Operations of all threads.
    pub operations: u64,
    /// Operations a second: the sum of the threads' own rates.
    pub per_second: f64,
    /// What an operation is, in the plural.
    pub unit: &'static str,
}

/// Something that a workload checked about itself.
#[derive(Debug, Clone)]
pub struct Check {
    /// What was compared.
    pub what: &'static str,
    /// Whether it held.
    pub ok: bool,
    /// What was found and, if it did not hold, what should have been.
    pub detail: String,
}

impl Check {
    /// Compares a checksum with the one it must be.
    pub fn equal(what: &'static str, got: i64, want: i64, whence: &str) -> Check {
        let detail = if got == want {
            format!("{got}, as {whence}")
        } else {
            format!("{got} instead of {want} ({whence})")
        };
        Check { what, ok: got == want, detail }
    }
}

/// What a workload found.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The measured window, nanoseconds on the monotonic clock.
    pub window: Interval,
    /// How many mutators were attached one after the other or at once; their ids are below this.
    pub mutators: u32,
    /// Processor time within the window.
    pub cpu: CpuUse,
    /// How much was done.
    pub throughput: Throughput,
    /// Latencies of operations; empty where an operation is no unit of service.
    pub latencies: Vec<Latency>,
    /// Frames judged by each display rate; empty where there are none.
    pub frames: Vec<FrameStats>,
    /// Every frame's signed overrun in nanoseconds, by display rate.
    pub overruns: Vec<(u32, Vec<i64>)>,
    /// What the frames were, for the report.
    pub frames_are: &'static str,
    /// The workload's own checksum, as the peers print it.
    pub checksum: Option<i64>,
    /// For `graph`: the digest of the final heap.
    pub digest: Option<u64>,
    /// What was checked; a check that failed fails the run.
    pub checks: Vec<Check>,
    /// Further figures for the report, as name and value.
    pub facts: Vec<(&'static str, String)>,
    /// Seconds of each repetition, where the workload is one run from begin to end.
    pub walls: Vec<f64>,
    /// The run was ended before it had done everything.
    pub partial: bool,
}

/// Why a workload ended without an outcome.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// What must live does not fit in the heap.
    #[error("{0}")]
    OutOfMemory(#[from] OutOfMemory),
    /// The heap and the model differ: the collector lost or changed something.
    #[error("{0}")]
    Graph(#[from] graph::GraphError),
}

/// Runs `threads` mutators, each attached to the heap on a thread of its own called `Mutator-N`,
/// and waits for them. The first failure stops the others and is returned.
///
/// # Panics
/// Continues a mutator's panic after all threads have ended.
pub fn run_mutators<R: Send, E: Send>(
    bench: Bench<'_>,
    threads: usize,
    body: impl Fn(usize, &mut Scope<'_>) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let body = &body;
    let joined: Vec<_> = std::thread::scope(|s| {
        let spawned: Vec<_> = (0..threads)
            .map(|n| {
                // Small on purpose: recursion here is bounded, and the signal handler has a stack
                // of its own.
                std::thread::Builder::new()
                    .name(format!("Mutator-{n}"))
                    .spawn_scoped(s, move || {
                        let _abort_on_panic = AbortOnPanic(bench.stop);
                        let result = bench.heap.attach(|cx| {
                            bench.notes.mutator(cx.mutator_id());
                            body(n, cx)
                        });
                        if result.is_err() {
                            bench.stop.abort();
                        }
                        result
                    })
                    .expect("a thread can be created")
            })
            .collect();
        spawned.into_iter().map(|t| t.join()).collect()
    });
    let mut results = Vec::with_capacity(threads);
    let mut panic = None;
    for one in joined {
        match one {
            Ok(result) => results.push(result),
            Err(payload) => panic = Some(payload),
        }
    }
    if let Some(payload) = panic {
        std::panic::resume_unwind(payload);
    }
    results.into_iter().collect()
}

struct AbortOnPanic<'a>(&'a Stop);

impl Drop for AbortOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_is_known_by_its_own_name() {
        for workload in Workload::ALL {
            assert_eq!(workload.name().parse(), Ok(workload));
        }
    }

    #[test]
    fn an_unknown_workload_names_the_known_ones() {
        let error = "lur".parse::<Workload>().unwrap_err();
        assert!(error.contains("'lur'") && error.contains("lru, binary-trees"));
    }
}
