//! Carries a [`Plan`] out: makes the heap, listens to its events, runs the workload, and puts the
//! [`Report`] together.

use std::sync::Arc;

use firn::{BackendKind, Heap, HeapError};
use firn_heap::sys::probe::peak_rss_bytes;

use super::options::{Plan, Program};
use super::{Report, SetupReport, measured, report_text};
use crate::exit::Failure;
use crate::measure::collect::Collector;
use crate::measure::cost::Price;
use crate::measure::gather::{Gather, Want};
use crate::measure::machine::MachineReport;
use crate::progress::{Progress, Stop};
use crate::workloads::graph::{self, GraphError};
use crate::workloads::{Bench, Outcome, WorkloadError, frames, gcbench, lru, trees};

/// Runs.
///
/// # Errors
/// Exit code 2 if the heap is too small for the workload, 3 if the heap cannot be made on this
/// machine, 1 if the heap and the model of `graph` differ.
pub fn run(plan: &Plan, stop: &Stop, progress: &Progress) -> Result<Report, Failure> {
    let machine = MachineReport::probe();
    let heap = Heap::new(&plan.options).map_err(|error| no_heap(&error))?;
    let collector = Arc::new(Collector::new());
    heap.add_listener(collector.clone());
    let price = if plan.measure { Price::find() } else { None };
    let gather = Gather::start(Want { events: plan.measure, probe: plan.measure });
    progress.watch(Some(&heap), gather.window());
    let notes = gather.notes().clone();
    let bench = Bench { heap: &heap, stop, progress, notes: &notes };
    let outcome = workload(bench, plan);
    progress.finish();
    let outcome = outcome.map_err(|error| failure(error, plan))?;
    gather.window().end(outcome.window.1);
    let gathered = gather.stop();
    let setup = heap.setup();
    let uffd = matches!(setup.backend, BackendKind::Art | BackendKind::PingPong);
    let mut report = Report {
        workload: plan.workload,
        setup: SetupReport {
            backend: setup.backend.to_string(),
            fault: uffd.then(|| setup.fault.to_string()),
            install: setup.install.map(|install| install.to_string()),
            heap_bytes: plan.options.heap,
            workers: setup.workers,
            verify: plan.options.verify,
            notes: setup.notes.clone(),
        },
        seed: plan.seed,
        quick: plan.quick,
        gc: collector.report(outcome.window, outcome.mutators),
        outcome,
        rss_peak_bytes: peak_rss_bytes().ok(),
        side_table_bytes: heap.stats().side_table_bytes as u64,
        machine,
        run: measured::empty(String::new(), String::new(), String::new(), plan.seed),
        measuring: gathered.measuring(),
    };
    report.run =
        measured::run(&report, &gathered, &collector, price, report_text::verdict(&report));
    Ok(report)
}

fn workload(bench: Bench<'_>, plan: &Plan) -> Result<Outcome, WorkloadError> {
    match &plan.program {
        Program::Lru(params) => lru::run(bench, params),
        Program::LruOps { ops } => {
            lru::verify(bench, lru::SPEC_CAPACITY, plan.seed, *ops).map(|(_, outcome)| outcome)
        }
        Program::Trees(params) => trees::run(bench, *params),
        Program::GcBench(params) => gcbench::run(bench, *params),
        Program::Frames(params) => frames::run(bench, *params),
        Program::Graph(params, seconds) => Ok(graph::repeat(bench, params, *seconds)?),
    }
}

/// What a heap that cannot be made means for the user.
pub fn no_heap(error: &HeapError) -> Failure {
    let mut message = error.to_string();
    if error.is_userfaultfd_refused() && !message.contains("--backend stw") {
        message +=
            "\n`firn stress --backend stw` works without userfaultfd; `firn doctor` says more";
    }
    Failure::missing(message)
}

fn failure(error: WorkloadError, plan: &Plan) -> Failure {
    match error {
        WorkloadError::OutOfMemory(e) | WorkloadError::Graph(GraphError::OutOfMemory(e)) => {
            let (workload, mib) = (plan.workload, plan.options.heap >> 20);
            Failure::usage(format!("a heap of {mib} MiB is too small for {workload}: {e}"))
        }
        WorkloadError::Graph(GraphError::Heap(e)) => no_heap(&e),
        WorkloadError::Graph(e) => Failure::gate(format!("graph, seed {}: {e}", plan.seed)),
    }
}
