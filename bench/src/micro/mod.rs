//! `firn micro`: the collector's parts, each as a ratio against a floor measured in the same run.
//!
//! A floor is the least that the mechanism could cost on this machine (a plain loop over the same data, or a
//! bare system call); absolute times say little about a machine one does not know. Every figure has a bar, and
//! missing it is reported and sets exit code 1; but for the workloads', which stand beside other runtimes' (`peers.rs`).

mod compaction;
mod mutator;
mod pauses;
mod peers;

use crate::exit::{Exit, Failure};
use crate::progress::Progress;
use firn::{Heap, Options};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

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
    /// What it is compared with, in the same unit (0: nothing): a floor, or the best of others.
    pub floor: f64,
    /// The figure the bar is about.
    pub ratio: f64,
    /// What `ratio` must reach.
    pub bar: String,
    /// Whether it does; `None`: it could not be measured, or has no bar.
    pub pass: Option<bool>,
    /// How, or why not.
    pub note: String,
}

/// In place of the bar of a figure that has none.
const NO_BAR: &str = "none";

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

    /// A figure without a bar, beside the best that somebody else reached.
    pub(crate) fn beside(
        name: &'static str,
        (value, unit): (f64, &'static str),
        best: f64,
        note: impl Into<String>,
    ) -> Figure {
        let (ratio, bar) = (value / best, NO_BAR.into());
        Figure { name, value, unit, floor: best, ratio, bar, pass: None, note: note.into() }
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
    /// Only what ends in seconds.
    pub quick: bool,
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
    (&["fault_vs_floor"], mutator::fault),
    (peers::NAMES, peers::figures),
];

/// Runs it.
///
/// # Errors
/// If a heap cannot be made or the JSON not be written.
pub fn run(args: &MicroArgs, print: fn(&str)) -> Result<Exit, Failure> {
    let sizes = if args.quick {
        Sizes { heap_mib: 128, cycles: 40, large_mib: 512, alloc_seconds: 0.5, quick: true }
    } else {
        Sizes { heap_mib: 512, cycles: 200, large_mib: 4096, alloc_seconds: 3.0, quick: false }
    };
    let wanted = |name: &str| args.only.as_ref().is_none_or(|text| name.contains(text.as_str()));
    let groups: Vec<_> =
        GROUPS.iter().filter(|(names, _)| names.iter().any(|name| wanted(name))).collect();
    let progress = Progress::new(true);
    let total = groups.len() as f64;
    let figures = Arc::new(Mutex::new(Vec::new()));
    // A group can take minutes: an interruption does not wait for it. Only one handler can be had in a process.
    let (so_far, path) = (figures.clone(), args.json.clone());
    let _ = ctrlc::set_handler(move || {
        let figures = so_far.lock().unwrap_or_else(PoisonError::into_inner);
        print(&format!("Interrupted: a part only. {}", table(&figures)));
        if let Err(failure) = write(&figures, path.as_deref()) {
            eprintln!("firn: {failure}");
        }
        std::process::exit(i32::from(Exit::Interrupted.code()));
    });
    for (index, (names, measure)) in groups.into_iter().enumerate() {
        progress.stage(names[0]);
        progress.share(index as f64 / total);
        let found = measure(sizes)?.into_iter().filter(|figure| wanted(figure.name));
        figures.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
    }
    progress.finish();
    // Held to the end: what is printed here is not printed by an interruption again.
    let figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
    print(&table(&figures));
    write(&figures, args.json.as_deref())?;
    let failed = figures.iter().any(|figure| figure.pass == Some(false));
    Ok(if failed { Exit::GateFailed } else { Exit::Done })
}

fn write(figures: &[Figure], path: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(figures).expect("figures are plain data");
    std::fs::write(path, text + "\n")
        .map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())))
}

fn table(figures: &[Figure]) -> String {
    let failed = figures.iter().filter(|figure| figure.pass == Some(false)).count();
    let (beside, barred): (Vec<_>, Vec<_>) = figures.iter().partition(|f| f.bar == NO_BAR);
    let missing = barred.iter().filter(|figure| figure.pass.is_none()).count();
    let all = barred.len();
    let mut text = match (failed, missing, all) {
        (.., 0) => "No figure with a bar.\n\n".into(),
        (0, 0, _) => format!("All {all} figures reach their bars.\n\n"),
        _ => format!(
            "{failed} of {all} figures miss their bars; {missing} could not be measured.\n\n"
        ),
    };
    let head = format!("{:<28}{:>12}{:>12}{:>9}{:>11}", "figure", "value", "floor", "ratio", "bar");
    text += &head;
    text += "\n";
    for (number, f) in barred.into_iter().chain(beside.iter().copied()).enumerate() {
        if number == all {
            text += "\nworkloads: value, the best of other runtimes, ratio\n";
        }
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
        let reached = Figure::new("c", (2.0, "us"), 1.0, 2.0, Bar::AtMost(2.5), "");
        let beside = Figure::beside("d", (900.0, "k/s"), 1000.0, "");
        let text = table(&[beside, reached]);
        assert!(
            text.starts_with("All 1 figures reach") && text.contains("0.900     none -"),
            "{text}"
        );
    }

    #[test]
    fn percentiles_are_the_smallest_value_that_covers_them() {
        let mut values: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&mut values, 99.0), 99.0);
        assert_eq!(median(&mut values), 51.0);
    }
}
