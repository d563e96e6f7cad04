//! `graph` as `firn stress` runs it: the same run again and again until the time is up, each time
//! with the same digests.

use super::{GraphError, GraphOutcome, GraphParams, run_on};
use crate::clock;
use crate::measure::cpu::CpuClock;
use crate::workloads::{Bench, Check, Outcome, Throughput};

/// Repeats a run on one heap until `seconds` have passed; at least one run.
///
/// # Errors
/// As [`super::run`].
pub fn repeat(bench: Bench<'_>, params: &GraphParams, seconds: f64) -> Result<Outcome, GraphError> {
    let (cpu, begin) = (CpuClock::now(), clock::now());
    bench.notes.window().begin(begin);
    let mut runs: Vec<GraphOutcome> = Vec::new();
    let mut walls = Vec::new();
    bench.progress.stage("graph");
    while runs.is_empty() || clock::now() - begin < clock::ns(seconds) {
        let from = clock::now();
        let run = run_on(bench, params)?;
        let partial = run.partial;
        runs.push(run);
        if partial {
            break;
        }
        walls.push((clock::now() - from) as f64 / 1e9);
    }
    let (cpu, end) = (cpu.elapsed(), clock::now());
    let whole: Vec<_> = runs.iter().filter(|run| !run.partial).collect();
    let operations = runs.iter().map(|run| run.operations).sum();
    let rounds: usize = runs.iter().map(|run| run.digests.len()).sum();
    let mut checks = Vec::new();
    if rounds > 0 {
        // A difference would have ended the run with an error.
        checks.push(Check {
            what: "digests",
            ok: true,
            detail: format!("{rounds} rounds, heap and model equal twice in each"),
        });
    }
    if let [first, rest @ ..] = &whole[..]
        && !rest.is_empty()
    {
        let agree = rest.iter().all(|run| run.digests == first.digests);
        let what = if agree { "with the same digests" } else { "with DIFFERENT digests" };
        let detail = format!("{} {what}", whole.len());
        checks.push(Check { what: "repetitions", ok: agree, detail });
    }
    Ok(Outcome {
        window: (begin, end),
        mutators: (params.threads * runs.len()) as u32,
        cpu,
        throughput: Throughput {
            operations,
            per_second: operations as f64 / ((end - begin) as f64 / 1e9).max(1e-9),
            unit: "ops",
        },
        latencies: Vec::new(),
        frames: Vec::new(),
        overruns: Vec::new(),
        frames_are: "",
        checksum: None,
        digest: whole.first().map(|run| run.digest()),
        checks,
        facts: vec![
            ("reads compared", runs.iter().map(|run| run.compared).sum::<u64>().to_string()),
            (
                "reachable objects",
                runs.iter().flat_map(|r| &r.reachable).max().unwrap_or(&0).to_string() + " at most",
            ),
        ],
        walls,
        partial: runs.iter().any(|run| run.partial),
    })
}
