//! `firn micro`: the collector's parts, each as a ratio against a floor measured in the same run.
//!
//! A floor is the least that the mechanism could cost on this machine (a plain loop over the same data, or a
//! bare system call); absolute times say little about a machine one does not know. Every figure has a bar;
//! missing it is reported and sets exit code 1.

mod compaction;
mod mutator;
mod pauses;

use crate::exit::{Exit, Failure};
use crate::progress::Progress;
use firn::{Heap, Options};
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `firn micro`.
#[derive(clap::Args, Debug, Clone)]
pub struct MicroArgs {
    /// Write the figures as JSON to FILE
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Smaller heaps: ends in seconds, and says less
    #[arg(long)]
    pub quick: bool,
    /// Only the figures whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Its name: part of the interface.
    pub name: &'static str,
    /// What was measured.
    pub value: f64,
    /// In which unit.
    pub unit: &'static str,
    /// What it is compared with, in the same unit (0: nothing).
    pub floor: f64,
    /// The figure the bar is about.
    pub ratio: f64,
    /// What `ratio` must reach.
    pub bar: String,
    /// Whether it does; `None`: it could not be measured.
    pub pass: Option<bool>,
    /// How, or why not.
    pub note: String,
}

/// A bar that a ratio must reach or keep under.
#[derive(Clone, Copy)]
pub(crate) enum Bar {
    /// At least.
    AtLeast(f64),
    /// At most.
    AtMost(f64),
}

impl Figure {
    pub(crate) fn new(
        name: &'static str,
        (value, unit): (f64, &'static str),
        floor: f64,
        ratio: f64,
        bar: Bar,
        note: impl Into<String>,
    ) -> Figure {
        let (bar, pass) = match bar {
            Bar::AtLeast(least) => (format!(">= {least}"), ratio >= least),
            Bar::AtMost(most) => (format!("<= {most}"), ratio <= most),
        };
        Figure { name, value, unit, floor, ratio, bar, pass: Some(pass), note: note.into() }
    }

    pub(crate) fn unmeasured(name: &'static str, why: impl Into<String>) -> Figure {
        Figure {
            name,
            value: 0.0,
            unit: "",
            floor: 0.0,
            ratio: 0.0,
            bar: String::new(),
            pass: None,
            note: why.into(),
        }
    }
}

/// Sizes of a run.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// Heap of the compaction figures in MiB.
    pub heap_mib: usize,
    /// Cycles of the pause figures.
    pub cycles: usize,
    /// The large live set in MiB.
    pub large_mib: usize,
    /// Seconds of the allocation figure.
    pub alloc_seconds: f64,
}

pub(crate) fn heap(options: &str) -> Result<Heap, Failure> {
    let options = Options::parse(options).map_err(|error| Failure::usage(error.to_string()))?;
    Heap::new(&options).map_err(|error| Failure::missing(error.to_string()))
}

pub(crate) fn median(values: &mut [u64]) -> f64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0) as f64
}

/// The value that `percent` of the values do not exceed.
pub(crate) fn percentile(values: &mut [u64], percent: f64) -> f64 {
    values.sort_unstable();
    let rank = (values.len() as f64 * percent / 100.0).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(0) as f64
}

type Group = (&'static [&'static str], fn(Sizes) -> Result<Vec<Figure>, Failure>);

const GROUPS: &[Group] = &[
    (&["compaction_vs_slide", "compaction_vs_art", "mark_vs_traversal"], compaction::figures),
    (&["flip_pause_p99_us", "flip_pause_growth", "final_mark_p99_us"], pauses::figures),
    (&["alloc_ns", "alloc_faults_per_1000_pages"], mutator::allocation),
    (&["mmap_write_locks_per_cycle"], mutator::write_locks),
    (&["side_table_percent"], mutator::side_tables),
    // Last: its floor's signal handler stays in front of the collector's.
    (&["fault_vs_floor"], mutator::fault),
];

/// Runs it.
///
/// # Errors
/// If a heap cannot be made or the JSON not be written.
pub fn run(args: &MicroArgs, print: fn(&str)) -> Result<Exit, Failure> {
    let sizes = if args.quick {
        Sizes { heap_mib: 128, cycles: 40, large_mib: 512, alloc_seconds: 0.5 }
    } else {
        Sizes { heap_mib: 512, cycles: 200, large_mib: 4096, alloc_seconds: 3.0 }
    };
    let wanted = |name: &str| args.only.as_ref().is_none_or(|text| name.contains(text.as_str()));
    let groups: Vec<_> =
        GROUPS.iter().filter(|(names, _)| names.iter().any(|name| wanted(name))).collect();
    let progress = Progress::new(true);
    let total = groups.len() as f64;
    let mut figures = Vec::new();
    for (index, (names, measure)) in groups.into_iter().enumerate() {
        progress.stage(names[0]);
        progress.share(index as f64 / total);
        figures.extend(measure(sizes)?.into_iter().filter(|figure| wanted(figure.name)));
    }
    progress.finish();
    print(&table(&figures));
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&figures).expect("figures are plain data");
        std::fs::write(path, text + "\n")
            .map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())))?;
    }
    let failed = figures.iter().any(|figure| figure.pass == Some(false));
    Ok(if failed { Exit::GateFailed } else { Exit::Done })
}

fn table(figures: &[Figure]) -> String {
    let failed = figures.iter().filter(|figure| figure.pass == Some(false)).count();
    let missing = figures.iter().filter(|figure| figure.pass.is_none()).count();
    let mut text = match (failed, missing) {
        (0, 0) => format!("All {} figures reach their bars.\n\n", figures.len()),
        _ => format!(
            "{failed} of {} figures miss their bars; {missing} could not be measured.\n\n",
            figures.len()
        ),
    };
    let head = format!("{:<28}{:>12}{:>12}{:>9}{:>11}", "figure", "value", "floor", "ratio", "bar");
    text += &head;
    text += "\n";
    for f in figures {
        let verdict = match f.pass {
            Some(true) => "ok",
            Some(false) => "MISSED",
            None => "-",
        };
        let number = |value: f64| if value == 0.0 { "-".into() } else { format!("{value:.4}") };
        let cell = |text: String| text.chars().take(9).collect::<String>();
        text += &format!(
            "{:<28}{:>9} {:<2}{:>12}{:>9.3}{:>9} {verdict}\n",
            f.name,
            cell(number(f.value)),
            f.unit,
            cell(number(f.floor)),
            f.ratio,
            f.bar,
        );
        if !f.note.is_empty() {
            text += &format!("    {}\n", f.note);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_bar_shows_and_an_unmeasured_figure_is_no_pass() {
        let missed = Figure::new("a", (2.0, "us"), 1.0, 2.0, Bar::AtMost(1.5), "");
        assert_eq!(missed.pass, Some(false));
        assert!(table(&[missed]).contains("MISSED"));
        let unknown = Figure::unmeasured("b", "no tracefs");
        assert!(table(&[unknown]).starts_with("0 of 1 figures miss their bars; 1 could not"));
    }

    #[test]
    fn percentiles_are_the_smallest_value_that_covers_them() {
        let mut values: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&mut values, 99.0), 99.0);
        assert_eq!(median(&mut values), 51.0);
    }
}
