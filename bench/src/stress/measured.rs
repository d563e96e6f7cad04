//! `firn stress` as a [`Run`] of the common schema: what the workload found, and what the sampling layer saw
//! meanwhile.

use super::Report;
use crate::measure::collect::Collector;
use crate::measure::cost::{self, Price};
use crate::measure::frames::judge;
use crate::measure::gather::{Fill, Gathered, distribution};
use crate::schema::{
    Check, Cpu, FrameRate, Frames, Latency, Memory, Role, Run, SignedDistribution, Verdict,
};
use crate::workloads::Outcome;

/// Spans of each kind in a file of one run.
const SPANS: usize = 20_000;

/// An empty run of this name.
pub fn empty(name: String, workload: String, backend: String, seed: u64) -> Run {
    Run {
        name,
        scenario: None,
        variant: String::new(),
        workload,
        backend,
        fault: None,
        install: None,
        seed,
        options: Default::default(),
        notes: Vec::new(),
        roles: Vec::new(),
        origin_ns: 0,
        window: (0, 0),
        partial: false,
        verdict: Verdict::default(),
        figures: Vec::new(),
        checks: Vec::new(),
        throughput_ops_s: None,
        operation: String::new(),
        latencies: Vec::new(),
        frames: None,
        cycles: Vec::new(),
        pauses: Vec::new(),
        safepoints: Vec::new(),
        phases: Vec::new(),
        faults: None,
        allocation: None,
        locks: None,
        blocked: Vec::new(),
        blocked_by_role: Vec::new(),
        hiccups: None,
        utilization: Vec::new(),
        worst_frames: Vec::new(),
        worst_stalls: Vec::new(),
        timeline: Default::default(),
        spans: Default::default(),
        cpu: Cpu::default(),
        memory: Memory::default(),
        measuring_cost: None,
    }
}

/// What a workload found, in a run.
pub fn outcome(run: &mut Run, outcome: &Outcome) {
    run.partial |= outcome.partial;
    run.throughput_ops_s = Some(outcome.throughput.per_second);
    run.operation = outcome.throughput.unit.to_owned();
    run.latencies.extend(outcome.latencies.iter().map(|l| Latency {
        name: "operation".to_owned(),
        role: "Mutator".to_owned(),
        mode: l.mode.label().to_owned(),
        offered_ops_s: l.offered_ops_s,
        reached_ops_s: Some(l.reached_ops_s),
        saturated: l.saturated,
        ns: distribution(&l.recorder),
    }));
    if !outcome.overruns.is_empty() {
        run.frames = Some(Frames {
            what: outcome.frames_are.to_owned(),
            rates: outcome.overruns.iter().map(|(hz, o)| rate(*hz, o)).collect(),
        });
    }
    run.checks.extend(outcome.checks.iter().map(|c| Check {
        what: c.what.to_owned(),
        ok: c.ok,
        detail: c.detail.clone(),
    }));
    run.cpu.process_s = outcome.cpu.process_s;
    run.cpu.collector_s = outcome.cpu.collector_s;
}

/// Frames judged at one rate, from their signed overruns.
pub fn rate(hz: u32, overruns: &[i64]) -> FrameRate {
    let judged = judge(hz, &[overruns.to_vec()]);
    FrameRate {
        hz,
        deadline_ns: crate::measure::frames::period_ns(hz),
        frames: overruns.len() as u64,
        missed: judged.as_ref().map_or(0, |j| j.missed),
        worst_run: judged.as_ref().map_or(0, |j| j.worst_run),
        overrun_ns: SignedDistribution::of(overruns.iter().copied()),
    }
}

/// The run of a report.
pub fn run(
    report: &Report,
    gathered: &Gathered,
    collector: &Collector,
    price: Option<Price>,
    verdict: String,
) -> Run {
    let setup = &report.setup;
    let name = format!("{}/{}", report.workload, setup.backend);
    let mut run = empty(name, report.workload.to_string(), setup.backend.clone(), report.seed);
    run.fault = setup.fault.clone();
    run.install = setup.install.clone();
    run.notes = setup.notes.iter().chain(&gathered.missing).cloned().collect();
    run.roles = vec![
        Role {
            role: "Mutator".to_owned(),
            threads: report.outcome.mutators as usize,
            does: format!("the workload {}", report.workload),
            scheduling: String::new(),
        },
        Role {
            role: "HeapTaskDaemon".to_owned(),
            threads: 1,
            does: "collects".to_owned(),
            scheduling: String::new(),
        },
    ];
    outcome(&mut run, &report.outcome);
    let fill = Fill { window: report.outcome.window, victims: &["Mutator"], spans: SPANS };
    gathered.fill(&mut run, Some(collector), fill);
    run.memory = Memory {
        heap_bytes: setup.heap_bytes as u64,
        rss_peak_bytes: report.rss_peak_bytes,
        side_table_bytes: report.side_table_bytes,
        ..Memory::default()
    };
    run.cpu.measuring_s = gathered.recording.as_ref().map_or(0.0, |r| r.cpu_ns as f64 / 1e9);
    let window = report.outcome.window;
    let seconds = window.1.saturating_sub(window.0) as f64 / 1e9;
    let calls = cost::let_go(collector, window);
    run.measuring_cost = cost::of(gathered, price, calls, report.outcome.cpu.process_s, seconds);
    run.verdict = Verdict { text: verdict, inside_noise: false };
    run
}
