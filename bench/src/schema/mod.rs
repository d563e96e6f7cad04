//! What a measuring command writes with `--json`, as types: the contract between what measures
//! (`stress`, `scenario`) and what shows (`report`, `compare`, traces, and everybody's scripts).
//!
//! A file is one [`Document`]: where it was made, how noisy the machine was, and a list of
//! [`Run`]s, each one workload under one back end with everything needed to redraw any picture of it.
//! `firn stress` writes the same document with a single run, and beside it the flat fields that it has
//! always had; reading it as a [`Document`] skips those.
//!
//! Rules that hold for all of it:
//!
//! - Times are nanoseconds. A point in time is counted from [`Run::origin_ns`], the beginning of the
//!   run's measurement; what happened before is left out, or clipped.
//! - Sizes are bytes. Shares go from 0 to 1.
//! - What was not measured is null or an empty list, never zero; `source` fields say where a number comes
//!   from when there is more than one possibility.
//! - Fields are only ever added, each with a default, so that files of older programs stay readable. The
//!   number at the end of `schema` changes when the meaning of a field does.
//!
//! `docs/json-schema.md` describes the same for readers without the source.

mod distribution;
mod environment;
mod locks;
mod run;
mod timeline;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use distribution::{Distribution, SignedDistribution};
pub use environment::{Environment, Measuring, Source};
pub use locks::{
    BlockedThread, LockHolder, LockMode, LockQuality, LockRow, LockSpan, Locks, Times,
};
pub use run::{
    Allocation, Check, Cost, Cpu, Faults, Figure, FrameRate, Frames, Heat, Hiccups, Latency,
    Memory, Role, Run, StallKind, Utilization, Verdict, WindowUtilization, Worst, WorstCause,
};
pub use timeline::{
    Cycle, CycleLocks, Fault, Frame, Pause, PhaseSpan, Spans, Switch, ThreadName, Timeline, Track,
};

/// The value of `schema` in a file of `firn scenario`.
pub const SCENARIO: &str = "firn-scenario-1";
/// The value of `schema` in a file of `firn stress`.
pub const STRESS: &str = "firn-stress-1";

/// A whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Which command wrote it, and the version of the meaning of its fields: [`SCENARIO`] or [`STRESS`].
    pub schema: String,
    /// Where and with what it was made; `None` in files from before runs were recorded.
    #[serde(default)]
    pub environment: Option<Environment>,
    /// The idle machine, measured before the runs.
    #[serde(default)]
    pub noise: Option<Noise>,
    /// One run for each scenario, variant and back end, in the order in which they ran.
    #[serde(default)]
    pub runs: Vec<Run>,
    /// The measurement was ended before it had done everything: what is here is valid, but not all.
    #[serde(default)]
    pub partial: bool,
    /// What was left out, and why: one line each (`SCHED_IDLE needs ...: skipped`).
    #[serde(default)]
    pub skipped: Vec<String>,
}

/// The noise floor: what a 1 kHz probe saw on the idle machine. An effect that is not larger than this
/// is no effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// How long the idle machine was watched.
    pub seconds: f64,
    /// By how much the probe's wake-ups came late.
    pub hiccups: Distribution,
    /// Processors' worth of work that others did meanwhile.
    pub busy_cpus: f64,
    /// The figure against which effects are judged: the probe's 99.9th percentile.
    pub floor_ns: u64,
    /// Worst hiccup in each interval of 100 ms.
    pub timeline: Vec<u64>,
}

impl Document {
    /// A document as JSON, with the further fields of `also` beside its own (its own win).
    ///
    /// # Panics
    /// Never: all keys are text and all numbers finite or null.
    pub fn value_with(&self, also: serde_json::Map<String, Value>) -> Value {
        let mut all = also;
        match serde_json::to_value(self).expect("keys are text") {
            Value::Object(own) => all.extend(own),
            other => unreachable!("a struct is an object, not {other}"),
        }
        Value::Object(all)
    }
}
