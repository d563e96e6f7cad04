//! `firn census`: how each memory operation takes `mmap_lock` on the kernel that is running.
//!
//! Each operation is made a number of times on a thread that does nothing else, with the kernel's own
//! events counting for this thread only and for the operation only: preparation, the answer to a
//! fault, and cleaning up happen while the counters are stopped. The fewest locks that enough runs agree on are the
//! answer; how many agree is shown. The runs of an operation are spread over several passes through all of them: a
//! neighbour that waits for the lock, and gets no processor to take it, can disturb any number of runs in a
//! row (`smaps_rollup` lets the lock go after each mapping while somebody waits for it). Beside it stands what is known of this kernel's release ([`known`]), so
//! that a kernel that differs (a backport, a regression, a new release) stands out.
//!
//! An operation that is neither in the lock's events nor refused went by the VMA's own lock, or by none:
//! `v`. (VMA locks emit no events; which operations need the mapping at all is known from the
//! table.) So the first attempt of a fault that is then retried under `mmap_lock` is not visible: a
//! fault that waits for a fault thread counts `R` where `known` has `v+R`.

mod advice;
mod bench;
mod faults;
pub mod known;
mod mappings;
mod proc;
pub mod report;
mod uffd;

use clap::Args;
use firn_heap::sys::probe::Release;
use firn_heap::sys::signal::AltStack;

use crate::exit::{Exit, Failure};
use crate::measure::machine::MachineReport;
use crate::perf::{LockCounter, Unavailable};
use crate::progress::Progress;
use crate::stress::report_json::Sink;

pub use self::bench::{Bench, Counted, Trouble};
use self::known::{Column, Known};
use self::report::{Census, Row};

/// `firn census`.
#[derive(Debug, Clone, Args)]
pub struct CensusArgs {
    /// How often each operation is made
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// Only the operations whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Five runs of each
    #[arg(long)]
    pub quick: bool,
    /// Also write the census as JSON; `-` writes JSON alone to standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<std::path::PathBuf>,
}

/// One operation of the census.
pub struct Operation {
    /// What the table calls it.
    pub name: &'static str,
    /// The release it came with, as far as kernels are concerned that have the lock's events.
    pub since: (u32, u32),
    /// What is known of it.
    pub known: Known,
    /// Makes it as often as the bench asks.
    pub run: fn(&mut Bench<'_>) -> Result<(), Trouble>,
}

/// All operations, in the order of the table.
pub fn operations() -> Vec<Operation> {
    [
        faults::OPERATIONS,
        uffd::OPERATIONS,
        mappings::OPERATIONS,
        advice::OPERATIONS,
        proc::OPERATIONS,
    ]
    .into_iter()
    .flatten()
    .map(|&Operation { name, since, known, run }| Operation { name, since, known, run })
    .collect()
}

/// Passes through all operations that the runs are spread over.
const PASSES: u32 = 4;

/// Takes the census: `runs` times each operation whose name contains `only`, calling `progress`
/// with each name.
///
/// # Errors
/// [`Unavailable`] where the kernel does not tell, with the remedy.
pub fn take(
    runs: u32,
    only: Option<&str>,
    progress: impl Fn(&str) + Sync,
) -> Result<Vec<Row>, Unavailable> {
    let column = kernel().and_then(|k| Release::parse(&k));
    let body = || {
        let counter = LockCounter::this_thread()?;
        // The kernel writes signal frames: on pages that it has to fault in, that would count.
        let _stack = AltStack::install().ok();
        let selected = |o: &Operation| only.is_none_or(|text| o.name.contains(text));
        let mut all: Vec<_> = operations()
            .into_iter()
            .filter(selected)
            .map(|operation| (operation, Bench::new(&counter, 0), Ok(())))
            .collect();
        let passes = runs.min(PASSES);
        for pass in 0..passes {
            for (operation, bench, done) in all.iter_mut().filter(|(.., done)| done.is_ok()) {
                progress(operation.name);
                bench.runs = runs / passes + u32::from(pass < runs % passes);
                *done = (operation.run)(bench);
            }
        }
        Ok(all
            .into_iter()
            .map(|(operation, bench, done)| {
                let found = done.and_then(|()| bench.answer());
                let expected = column.and_then(|release| {
                    let since = Release { major: operation.since.0, minor: operation.since.1 };
                    match operation.known.of(release) {
                        _ if release < since => Some("-"),
                        _ if operation.name == mappings::FORK && counter.sees_own_only() => {
                            Some(mappings::FORK_OWN)
                        }
                        cell => cell,
                    }
                });
                Row::new(operation.name, found, expected)
            })
            .collect())
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("Census".to_owned());
        match thread.spawn_scoped(scope, body) {
            Ok(handle) => handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(e) => Err(Unavailable::Call {
                call: "clone",
                event: "the census thread".to_owned(),
                errno: firn_heap::sys::Errno(e.raw_os_error().unwrap_or(0)),
            }),
        }
    })
}

/// The running kernel's release, as `uname` says it.
pub fn kernel() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|s| s.trim().to_owned())
}

/// Does what the command line says.
///
/// # Errors
/// Exit code 2 for a file that cannot be written or a name that fits nothing, 3 where the kernel does
/// not tell about its lock.
pub fn run(args: &CensusArgs, print: impl Fn(&str)) -> Result<Exit, Failure> {
    if let Some(only) = &args.only
        && !operations().iter().any(|o| o.name.contains(only.as_str()))
    {
        return Err(Failure::usage(format!(
            "--only {only}: no operation has this in its name (`firn census` lists them)"
        )));
    }
    let sink = args.json.as_deref().map(Sink::open).transpose()?;
    let runs = if args.quick { args.runs.min(5) } else { args.runs };
    let progress = Progress::new(true);
    let taken = take(runs, args.only.as_deref(), |name| progress.stage(name));
    progress.finish();
    let rows = taken.map_err(|why| Failure::missing(format!("census: {why}")))?;
    let machine = MachineReport::probe();
    let release = Release::parse(&machine.kernel);
    let column = release.map(Column::of).map(Column::label);
    let census = Census { runs, column: column.map(str::to_owned), machine, rows };
    if !matches!(sink, Some(Sink::Stdout)) {
        print(&report::text(&census));
    }
    if let Some(sink) = sink {
        sink.write(&report::json(&census)).map_err(|e| {
            Failure::missing(format!("--json: the census could not be written: {e}"))
        })?;
    }
    Ok(if census.differing() == 0 { Exit::Done } else { Exit::GateFailed })
}

#[cfg(test)]
mod tests;
