//! `firn scheme --bench DIR`: the programs of a directory under Firn's Scheme and under the interpreters of the
//! distribution, side by side in one run.
//!
//! Each round runs each program once under each system, one after the other, in an order that turns from round
//! to round, so that a machine that gets slower slows all of them. The best time of the rounds counts: what
//! disturbs a run only ever makes it longer. A program that reports its own time (`Elapsed time: ... seconds`,
//! as the r7rs benchmarks do) is taken at its word; otherwise the time of the process counts.
//!
//! Guile compiles to bytecode before the clock starts: its interpreter for uncompiled source is no rival.

mod child;
mod programs;
mod report;
mod rivals;
mod stall;

use crate::exit::{Exit, Failure};
use crate::progress::{Progress, Stop};
use programs::Program;
use rivals::System;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to compare, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory of programs: `*.scm`, each with its input in `NAME.input` if it reads any; or the layout of
    /// the r7rs benchmarks (`src/`, `inputs/`).
    pub directory: PathBuf,
    /// Only these programs; all if empty.
    pub only: Vec<String>,
    /// How often each program runs under each system.
    pub rounds: u32,
    /// When a run is given up.
    pub timeout: Duration,
    /// The collector's options for Firn.
    pub gc: Option<String>,
    /// Whether to measure the longest stalls, too.
    pub stalls: bool,
    /// MiB of the live set whose stalls are measured.
    pub live_mib: u32,
    /// Where to write the results as JSON.
    pub json: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            directory: PathBuf::from("."),
            only: Vec::new(),
            rounds: 3,
            timeout: Duration::from_secs(300),
            gc: None,
            stalls: false,
            live_mib: 1024,
            json: None,
        }
    }
}

/// How a program ended under a system.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    /// Seconds.
    Done(f64),
    /// The first line of what went wrong.
    Failed(String),
    /// It was given up.
    TimedOut,
}

/// A program's outcomes, best first round wins, in the order of the systems.
#[derive(Debug, Clone)]
struct Row {
    name: String,
    outcomes: Vec<Option<Outcome>>,
}

/// Runs the comparison.
///
/// # Errors
/// No programs (2), or no system to compare with (3).
pub fn run(options: &Options, stop: &Stop, print: impl Fn(&str)) -> Result<Exit, Failure> {
    let programs = programs::find(options)?;
    let work = programs::WorkDirectory::new()?;
    let stage = work.stage(&programs[0].directory)?;
    let (systems, missing) = rivals::find(options, work.path())?;
    let progress = Progress::new(true);
    let mut rows = Vec::new();
    let total = programs.len() * options.rounds as usize * systems.len();
    let mut done = 0;
    'programs: for program in &programs {
        let mut row = Row { name: program.name.clone(), outcomes: vec![None; systems.len()] };
        for round in 0..options.rounds as usize {
            for turn in 0..systems.len() {
                let index = (turn + round) % systems.len();
                let system = &systems[index];
                progress.stage(&format!("{} under {}", program.name, system.name));
                progress.share(done as f64 / total as f64);
                // What failed once fails again.
                if !matches!(row.outcomes[index], Some(Outcome::Failed(_) | Outcome::TimedOut)) {
                    let first = round == 0;
                    let outcome = run_once(program, system, options, first, &work, &stage, stop)?;
                    let Some(outcome) = outcome else {
                        rows.push(row);
                        break 'programs;
                    };
                    keep_better(&mut row.outcomes[index], outcome);
                }
                done += 1;
            }
        }
        rows.push(row);
    }
    let stalls = match options.stalls && !stop.requested() {
        true => stall::measure(&systems, options, &work, &progress, stop)?,
        false => Vec::new(),
    };
    progress.finish();
    let report =
        report::Report { systems: &systems, missing, rows, stalls, partial: stop.interrupted() };
    print(&report.text());
    if let Some(path) = &options.json {
        report.write_json(path)?;
    }
    Ok(match () {
        () if report.partial => Exit::Interrupted,
        () if report.failed() => Exit::GateFailed,
        () => Exit::Done,
    })
}

/// Runs a program; nothing if the user ended the comparison meanwhile.
fn run_once(
    program: &Program,
    system: &System,
    options: &Options,
    first: bool,
    work: &programs::WorkDirectory,
    stage: &Path,
    stop: &Stop,
) -> Result<Option<Outcome>, Failure> {
    let file = work.prepare(program, system, first)?;
    if first && let Err(why) = system.compile(&file, options.timeout, stop) {
        return Ok((!stop.requested()).then_some(Outcome::Failed(why)));
    }
    let mut command = system.command(&file, &[]);
    command.current_dir(stage);
    let end = child::run(command, program.input.as_deref(), options.timeout, stop)?;
    Ok(Some(match end {
        child::End::Interrupted => return Ok(None),
        child::End::TimedOut => Outcome::TimedOut,
        child::End::Exited { success, seconds, output, errors } => {
            if !success || output.contains("ERROR:") {
                Outcome::Failed(child::complaint(&errors, &output))
            } else {
                Outcome::Done(elapsed(&output).unwrap_or(seconds))
            }
        }
    }))
}

fn keep_better(kept: &mut Option<Outcome>, new: Outcome) {
    match (kept.as_ref(), &new) {
        (Some(Outcome::Done(old)), Outcome::Done(seconds)) if old <= seconds => {}
        _ => *kept = Some(new),
    }
}

/// The time that a program reports of itself.
fn elapsed(output: &str) -> Option<f64> {
    let after = output.split("Elapsed time: ").nth(1)?;
    after.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_taken_at_its_word() {
        assert_eq!(elapsed("Running fib\nElapsed time: 1.25 seconds (1.3) for fib\n"), Some(1.25));
        assert_eq!(elapsed("Elapsed time: 6.0e-4 seconds for x"), Some(6.0e-4));
        assert_eq!(elapsed("no time here"), None);
    }

    #[test]
    fn the_best_round_counts_and_a_failure_stays() {
        let mut kept = None;
        keep_better(&mut kept, Outcome::Done(2.0));
        keep_better(&mut kept, Outcome::Done(1.0));
        keep_better(&mut kept, Outcome::Done(3.0));
        assert_eq!(kept, Some(Outcome::Done(1.0)));
        keep_better(&mut kept, Outcome::TimedOut);
        assert_eq!(kept, Some(Outcome::TimedOut));
    }
}
