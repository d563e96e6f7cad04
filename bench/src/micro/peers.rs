//! The workloads' figures beside the best that another runtime reached on them: no bars, only places to look.
//!
//! The others' figures come from runs of the same specification on a machine with two processors (Xeon, 2.0 GHz nominal)
//! and Linux 6.18, each collector as its makers set it up: OpenJDK 25 and 17 and Go 1.27 have the best. The
//! machine is not this one, and its own speed changed by a fifth from one round to the next: a ratio near 1 says nothing.

use super::{Figure, Sizes};
use crate::exit::Failure;
use crate::progress::{Progress, Stop};
use crate::stress::options::StressArgs;
use crate::stress::{self, Report};
use clap::Parser;

/// A workload, and the best that is known of it.
struct Known {
    name: &'static str,
    /// As on the command line of `firn stress`.
    run: &'static str,
    unit: &'static str,
    best: f64,
    whose: &'static str,
    figure: fn(&Report) -> Option<f64>,
}

fn operations(report: &Report) -> Option<f64> {
    Some(report.outcome.throughput.per_second / 1e3)
}

fn fixed_p999(report: &Report) -> Option<f64> {
    Some(report.outcome.latencies.first()?.percentiles.p999 as f64 / 1e6)
}

fn wall(report: &Report) -> Option<f64> {
    report.outcome.walls.first().copied()
}

/// Of those that may take as long as a display with 120 Hz shows a picture.
fn late(report: &Report) -> Option<f64> {
    let frames = report.outcome.frames.iter().find(|frames| frames.hz == 120)?;
    Some(frames.missed as f64 / frames.frames as f64 * 100.0)
}

pub(super) const NAMES: &[&str] = &[
    "lru_closed_512m",
    "lru_closed_1g",
    "lru_fixed_512m_p999",
    "lru_fixed_1g_p999",
    "binary_trees_1",
    "binary_trees_2",
    "gcbench_102m",
    "frames_late_percent",
];

const KNOWN: [Known; NAMES.len()] = [
    Known {
        name: NAMES[0],
        run: "--workload lru --mode closed --heap 512m --duration 10",
        unit: "k/s",
        best: 1156.0,
        whose: "Go 1.27",
        figure: operations,
    },
    Known {
        name: NAMES[1],
        run: "--workload lru --mode closed --heap 1g --duration 10",
        unit: "k/s",
        best: 1708.0,
        whose: "Go 1.27",
        figure: operations,
    },
    Known {
        name: NAMES[2],
        run: "--workload lru --mode fixed --heap 512m --duration 10",
        unit: "ms",
        best: 1.507,
        whose: "OpenJDK 17, ZGC",
        figure: fixed_p999,
    },
    Known {
        name: NAMES[3],
        run: "--workload lru --mode fixed --heap 1g --duration 10",
        unit: "ms",
        best: 0.487,
        whose: "OpenJDK 17, ZGC",
        figure: fixed_p999,
    },
    Known {
        name: NAMES[4],
        run: "--workload binary-trees --mutators 1",
        unit: "s",
        best: 0.59,
        whose: "OpenJDK 25, G1",
        figure: wall,
    },
    Known {
        name: NAMES[5],
        run: "--workload binary-trees --mutators 2",
        unit: "s",
        best: 0.39,
        whose: "OpenJDK 25, G1",
        figure: wall,
    },
    Known {
        name: NAMES[6],
        run: "--workload gcbench --heap 102m",
        unit: "s",
        best: 0.55,
        whose: "OpenJDK 25, G1",
        figure: wall,
    },
    Known {
        name: NAMES[7],
        run: "--workload frames --warmup 2 --duration 20",
        unit: "%",
        best: 89.0 / 72.0,
        whose: "OpenJDK 25, ZGC",
        figure: late,
    },
];

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    stress: StressArgs,
}

fn plan(run: &str) -> Result<stress::options::Plan, Failure> {
    let words = ["stress", "--measure", "off"].into_iter().chain(run.split(' '));
    let line = Line::try_parse_from(words).map_err(|error| Failure::gate(error.to_string()))?;
    line.stress.plan()
}

/// Runs them; not if only a quick look is wanted.
pub(super) fn figures(sizes: Sizes) -> Result<Vec<Figure>, Failure> {
    if sizes.quick {
        return Ok(Vec::new());
    }
    let mut figures = Vec::new();
    for known in KNOWN {
        let report = stress::run::run(&plan(known.run)?, &Stop::new(), &Progress::new(false))?;
        let checked = if report.passed() { "" } else { "; A CHECK OF THE WORKLOAD FAILED" };
        let note = format!("stress {}; beside {}{checked}", known.run, known.whose);
        figures.push(match (known.figure)(&report) {
            Some(value) => Figure::beside(known.name, (value, known.unit), known.best, note),
            None => Figure::unmeasured(known.name, note),
        });
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_can_be_planned() {
        for known in KNOWN {
            let plan = plan(known.run).unwrap_or_else(|e| panic!("{}: {e}", known.run));
            assert!(!plan.measure, "{}", known.name);
        }
    }
}
