//! `firn stress`: a workload on real mutator threads while the collector compacts their heap, and
//! a report of what it cost them.
//!
//! [`options`] turns the command line into a plan, [`run`](mod@self::run) carries it out and
//! returns a [`Report`], and [`report_text`] and [`report_json`] present that. Every figure of
//! the collector comes from its event stream.

pub mod kernel_text;
pub mod measured;
pub mod options;
pub mod page;
pub mod report_json;
pub mod report_text;
pub mod run;
pub mod units;

use crate::measure::collect::GcReport;
use crate::measure::machine::MachineReport;
use crate::schema::{Measuring, Run};
use crate::workloads::{Outcome, Workload};

/// Everything that one run found.
#[derive(Debug, Clone)]
pub struct Report {
    /// What ran.
    pub workload: Workload,
    /// The heap as it was set up.
    pub setup: SetupReport,
    /// The user's seed.
    pub seed: u64,
    /// `--quick` was given: the windows are short.
    pub quick: bool,
    /// What the workload found.
    pub outcome: Outcome,
    /// What the collector did.
    pub gc: GcReport,
    /// Most memory that the process ever had resident, in bytes. Both heap ranges count, and so
    /// do side tables, stacks and the program itself.
    /// `None` where `/proc` does not tell.
    pub rss_peak_bytes: Option<u64>,
    /// Bytes of the collector's tables beside the heap.
    pub side_table_bytes: u64,
    /// Where it ran.
    pub machine: MachineReport,
    /// The same run in the common schema, with what the kernel's events said.
    pub run: Run,
    /// By which means it was measured.
    pub measuring: Measuring,
}

/// The heap as it was set up, by the names of the options.
#[derive(Debug, Clone)]
pub struct SetupReport {
    /// The back end.
    pub backend: String,
    /// How faults are delivered; `None` where there is no userfaultfd.
    pub fault: Option<String>,
    /// How pages are really installed; `None` where there is no userfaultfd.
    pub install: Option<String>,
    /// Maximum heap, bytes.
    pub heap_bytes: usize,
    /// Collector threads.
    pub workers: usize,
    /// Whether every cycle was verified.
    pub verify: bool,
    /// What the runtime had to do differently than asked.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether everything that was checked held.
    pub fn passed(&self) -> bool {
        self.outcome.checks.iter().all(|check| check.ok)
    }
}
