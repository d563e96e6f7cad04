//! `firn selftest`: the heap's own correctness on the machine, or the kernel, that it runs on.
//!
//! The oracle: `graph` with a seed, once under `stw` and once under every other way to compact (back ends,
//! fault deliveries, installations), with the other axes (workers, batch, dense runs, pages a fault moves) taken in turn. Every
//! digest must be that of `stw`, which the workload itself compares with a model in native memory. Two
//! layouts of ranges take part: two ranges registered for ever (`pingpong`) and one that is remapped each
//! cycle (`art`). What the kernel lacks is left out with a line that says so: MOVE before 6.8.
//!
//! Needs nothing but the program, so that it can run as the first program of a guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use firn::{CycleSummary, Event, Heap, Listener, Options};
use firn_heap::pool::RUN;
use firn_heap::sys::page_size;
use serde::Serialize;
use serde_json::json;

use crate::exit::{Exit, Failure};
use crate::measure::machine::MachineReport;
use crate::progress::{Progress, Stop};
use crate::stress::page::Page;
use crate::stress::report_json::Sink;
use crate::workloads::graph::{self, GraphParams};

/// The version of the JSON.
pub const SCHEMA: &str = "firn-selftest-1";

/// The way that all others are compared with.
pub const REFERENCE: &str = "backend=stw";

/// Back ends with fault delivery and installation; the first is the reference.
pub const WAYS: [&str; 10] = [
    REFERENCE,
    "backend=pingpong,fault=sigbus,install=move",
    "backend=pingpong,fault=sigbus,install=copy",
    "backend=pingpong,fault=thread,install=move",
    "backend=pingpong,fault=thread,install=copy",
    "backend=art,fault=sigbus,install=copy",
    "backend=art,fault=sigbus,install=move",
    "backend=art,fault=thread,install=copy",
    "backend=art,fault=thread,install=move",
    "backend=mprotect",
];

/// The axes that cross with every way: each seed takes the next combination.
pub fn axes(seed: u64) -> String {
    let workers = [1, 2][seed as usize % 2];
    let batch = [1, 7, 64][seed as usize / 2 % 3];
    let dense = [101, 50][seed as usize / 6 % 2];
    let around = [16, 1, 5][seed as usize / 12 % 3];
    format!("workers={workers},batch={batch},dense={dense},fault-around={around}")
}

/// `firn selftest`.
#[derive(Debug, Clone, Default, Args)]
pub struct SelftestArgs {
    /// Seeds of each kind of case [default: 24; 6 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub seeds: Option<u64>,
    /// The first seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub first_seed: u64,
    /// Few seeds
    #[arg(long)]
    pub quick: bool,
    /// Also write the result as JSON; `-` writes JSON alone to standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<std::path::PathBuf>,
}

/// A kind of case: how the workload runs, and what is added to the options.
struct Kind {
    name: &'static str,
    threads: usize,
    rounds: usize,
    operations: usize,
    live_bytes: usize,
    /// Least runs of 64 pages that are live, whatever their size: of fewer none may come free as a whole, to be
    /// built in and moved.
    live_runs: usize,
    collect_continuously: bool,
    /// Added to the heap's options.
    more: &'static str,
    /// One in how many seeds is run: long cases are rarer.
    every: u64,
}

const SMALL: usize = 2 << 20;
/// The heap's maximum, where pages are small.
const HEAP: usize = 32 << 20;

const KINDS: [Kind; 6] = [
    Kind {
        name: "one mutator",
        threads: 1,
        rounds: 4,
        operations: 250,
        live_bytes: SMALL,
        live_runs: 0,
        collect_continuously: false,
        more: "",
        every: 1,
    },
    Kind {
        name: "two mutators, collecting all the time",
        threads: 2,
        rounds: 3,
        operations: 250,
        live_bytes: SMALL,
        live_runs: 0,
        collect_continuously: true,
        more: "",
        every: 1,
    },
    Kind {
        name: "eight mutators, collecting all the time",
        threads: 8,
        rounds: 3,
        operations: 120,
        live_bytes: SMALL,
        live_runs: 0,
        collect_continuously: true,
        more: "",
        every: 2,
    },
    Kind {
        name: "verified cycles",
        threads: 2,
        rounds: 3,
        operations: 250,
        live_bytes: SMALL,
        live_runs: 0,
        collect_continuously: false,
        more: ",verify=true",
        every: 2,
    },
    Kind {
        name: "a collection at every seventh allocation",
        threads: 2,
        rounds: 2,
        operations: 100,
        live_bytes: SMALL,
        live_runs: 0,
        collect_continuously: false,
        more: ",stress-every=7",
        every: 3,
    },
    Kind {
        name: "dense runs that move whole",
        threads: 3,
        rounds: 6,
        operations: 1500,
        live_bytes: 6 << 20,
        live_runs: 24,
        collect_continuously: true,
        more: ",dense=50",
        every: 6,
    },
];

/// What was really exercised under one way.
#[derive(Debug, Default)]
struct Seen {
    cycles: AtomicU64,
    copied: AtomicU64,
    moved: AtomicU64,
    by_mutators: AtomicU64,
}

impl Listener for Seen {
    fn event(&self, event: &Event) {
        if let Event::CycleEnd { summary } = event {
            let CycleSummary { pages_copied, pages_moved, pages_by_mutators, .. } = *summary;
            let counts = [
                (&self.cycles, 1),
                (&self.copied, pages_copied),
                (&self.moved, pages_moved),
                (&self.by_mutators, pages_by_mutators),
            ];
            // Relaxed: read after the runs have ended.
            for (counter, n) in counts {
                counter.fetch_add(n, Ordering::Relaxed);
            }
        }
    }
}

/// One way's result.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The options.
    pub way: String,
    /// Why it could not be tried; nothing if it was.
    pub left_out: Option<String>,
    /// Cases run.
    pub cases: u64,
    /// Cases whose heap was not that of the reference, or that failed.
    pub failures: Vec<String>,
    /// Cycles in all.
    pub cycles: u64,
    /// Pages built and copied.
    pub pages_copied: u64,
    /// Pages moved.
    pub pages_moved: u64,
    /// Pages that mutators published.
    pub pages_by_mutators: u64,
}

/// Options of one case.
fn options(heap: usize, way: &str, more: &str) -> Options {
    Options::parse(&format!("heap={}m,{way},{more}", heap >> 20)).expect("a valid options string")
}

/// Does what the command line says.
///
/// # Errors
/// Exit code 2 for a file that cannot be written, 3 if not even the reference can run.
pub fn run(args: &SelftestArgs, print: impl Fn(&str)) -> Result<Exit, Failure> {
    let sink = args.json.as_deref().map(Sink::open).transpose()?;
    let stop = Stop::new();
    stop.connect_signals();
    let progress = Progress::new(true);
    let seeds = args.seeds.unwrap_or(if args.quick { 6 } else { 24 });
    let rows = take(args.first_seed..args.first_seed + seeds, &stop, &progress)?;
    progress.finish();
    let machine = MachineReport::probe();
    let failed = rows.iter().any(|row| !row.failures.is_empty());
    if !matches!(sink, Some(Sink::Stdout)) {
        print(&text(&rows, &machine.kernel));
    }
    if let Some(sink) = sink {
        let value = json!({
            "schema": SCHEMA,
            "machine": machine,
            "seeds": { "first": args.first_seed, "count": seeds },
            "partial": stop.interrupted(),
            "passed": !failed,
            "cases": rows.iter().map(|row| row.cases).sum::<u64>(),
            "failures": rows.iter().map(|row| row.failures.len()).sum::<usize>(),
            "ways_tried": rows.iter().filter(|row| row.left_out.is_none()).count(),
            "cycles": rows.iter().map(|row| row.cycles).sum::<u64>(),
            "pages_copied": rows.iter().map(|row| row.pages_copied).sum::<u64>(),
            "pages_moved": rows.iter().map(|row| row.pages_moved).sum::<u64>(),
            "ways": rows,
        });
        sink.write(&value)
            .map_err(|e| Failure::missing(format!("--json: could not be written: {e}")))?;
    }
    Ok(match (failed, stop.interrupted()) {
        (true, _) => Exit::GateFailed,
        (false, true) => Exit::Interrupted,
        (false, false) => Exit::Done,
    })
}

/// Runs all cases of `seeds` under all ways.
///
/// # Errors
/// Exit code 3 if the reference cannot run.
pub fn take(
    seeds: std::ops::Range<u64>,
    stop: &Stop,
    progress: &Progress,
) -> Result<Vec<Row>, Failure> {
    let mut rows: Vec<_> = WAYS.iter().map(|way| Row::new(way)).collect();
    let seen: Vec<_> = WAYS.iter().map(|_| Arc::<Seen>::default()).collect();
    if let Some(why) = &rows[0].left_out {
        return Err(Failure::missing(format!("selftest: not even {REFERENCE} can run: {why}")));
    }
    let cases: Vec<_> = KINDS
        .iter()
        .flat_map(|kind| seeds.clone().filter(move |s| s % kind.every == 0).map(move |s| (kind, s)))
        .collect();
    for (done, (kind, seed)) in cases.iter().enumerate() {
        progress.stage(kind.name);
        progress.share(done as f64 / cases.len() as f64);
        let live_bytes = kind.live_bytes.max(kind.live_runs * RUN * page_size());
        let heap = HEAP.max(4 * live_bytes);
        let params = GraphParams {
            threads: kind.threads,
            rounds: kind.rounds,
            operations: kind.operations * (live_bytes / kind.live_bytes),
            live_bytes,
            collect_continuously: kind.collect_continuously,
            ..GraphParams::small(*seed)
        };
        let more = format!("{}{}", axes(*seed), kind.more);
        let mut want = None;
        for (row, seen) in rows.iter_mut().zip(&seen) {
            if stop.requested() {
                break;
            }
            if row.left_out.is_some() {
                continue;
            }
            row.cases += 1;
            let case = format!("{}, seed {seed}, {},{more}", kind.name, row.way);
            match graph::run(&options(heap, &row.way, &more), &params, Some(seen.clone())) {
                Err(error) => row.failures.push(format!("{case}: {error}")),
                Ok(got) => {
                    let got = (got.digests, got.reachable);
                    let want = want.get_or_insert_with(|| got.clone());
                    if *want != got {
                        row.failures.push(format!("{case}: not the heap of {REFERENCE}"));
                    }
                }
            }
        }
    }
    for (row, seen) in rows.iter_mut().zip(&seen) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        row.cycles = get(&seen.cycles);
        row.pages_copied = get(&seen.copied);
        row.pages_moved = get(&seen.moved);
        row.pages_by_mutators = get(&seen.by_mutators);
        row.check_exercise(stop.requested());
    }
    Ok(rows)
}

impl Row {
    fn new(way: &str) -> Row {
        Row {
            way: way.to_owned(),
            left_out: Heap::new(&options(HEAP, way, "")).err().map(|error| error.to_string()),
            cases: 0,
            failures: Vec::new(),
            cycles: 0,
            pages_copied: 0,
            pages_moved: 0,
            pages_by_mutators: 0,
        }
    }

    /// A way that was never really taken has shown nothing.
    fn check_exercise(&mut self, stopped: bool) {
        if self.left_out.is_some() || stopped || self.cases == 0 {
            return;
        }
        let asked_to_move = self.way.contains("install=move");
        let concurrent = self.way.contains("fault=");
        for (lacking, what) in [
            (self.cycles == 0, "no cycle ran"),
            (asked_to_move && self.pages_moved == 0, "no page was moved"),
            (concurrent && self.pages_copied + self.pages_moved == 0, "no page was published"),
        ] {
            if lacking {
                self.failures.push(format!("{}: {what}", self.way));
            }
        }
    }
}

fn text(rows: &[Row], kernel: &str) -> String {
    let mut page = Page::default();
    let failures: usize = rows.iter().map(|row| row.failures.len()).sum();
    let left_out = rows.iter().filter(|row| row.left_out.is_some()).count();
    let cases: u64 = rows.iter().map(|row| row.cases).sum();
    page.paragraph(&match failures {
        0 => format!(
            "On {kernel}, {cases} cases under {} ways to compact gave the same heaps as {REFERENCE} and the \
             model.",
            rows.len() - left_out
        ),
        n => format!("On {kernel}, {n} of {cases} cases FAILED."),
    });
    page.blank();
    page.head("way", 44, 8, &["cases", "cycles", "pages", "failed"]);
    for row in rows.iter().filter(|row| row.left_out.is_none()) {
        let pages = row.pages_copied + row.pages_moved;
        let cells = [row.cases, row.cycles, pages, row.failures.len() as u64];
        page.row(&row.way, 44, 8, &cells.map(|n| n.to_string()));
    }
    for row in rows {
        if let Some(why) = &row.left_out {
            page.paragraph(&format!("left out: {}: {why}", row.way));
        }
        row.failures.iter().for_each(|failure| page.paragraph(&format!("FAILED: {failure}")));
    }
    page.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_seeds_pass_here_and_every_way_is_accounted_for() {
        let rows = take(0..1, &Stop::new(), &Progress::silent()).unwrap();
        assert_eq!(rows.len(), WAYS.len());
        for row in &rows {
            // The exercise of a single seed may be too little; the heaps must be right.
            let wrong: Vec<_> = row.failures.iter().filter(|f| f.contains("seed")).collect();
            assert!(wrong.is_empty(), "{wrong:?}");
            assert!(row.left_out.is_some() || row.cases as usize == KINDS.len(), "{row:?}");
        }
    }

    #[test]
    fn a_way_that_was_never_taken_fails() {
        let mut row = Row::new(REFERENCE);
        (row.cases, row.way) = (1, "backend=pingpong,fault=sigbus,install=move".to_owned());
        row.check_exercise(false);
        assert_eq!(row.failures.len(), 3, "{:?}", row.failures);
        assert!(text(&[row], "x").contains("FAILED"));
    }

    #[test]
    fn the_axes_of_twelve_seeds_are_all_combinations() {
        let mut all: Vec<_> = (0..12).map(axes).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 12);
    }
}
