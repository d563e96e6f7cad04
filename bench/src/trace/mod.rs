//! Timelines for Perfetto (ui.perfetto.dev opens both forms; chrome://tracing the JSON).
//!
//! A run's single events, as its file has them ([`crate::schema::Spans`]), become tracks: the cycles,
//! phases and pauses of the collector; for each thread its frames, faults, waits and holds of
//! `mmap_lock`, and times off the processor; and for each of the worst frames and stalls a track of
//! its own, so that it is found by its name. Times are `CLOCK_MONOTONIC`, as `perf record -k mono` has
//! them.
//!
//! A file has only the longest events of each kind; how many were left out stands in the name of
//! the run's process.

pub mod chrome;
pub mod model;
pub mod perfetto;

use std::path::Path;

use crate::exit::Failure;
use crate::schema::Run;

/// Writes the runs' timeline: Chrome's JSON if the name ends in `.json`, else Perfetto's protobuf.
///
/// # Errors
/// Exit code 2 if the file cannot be written.
pub fn write(path: &Path, runs: &[&Run]) -> Result<(), Failure> {
    let processes = model::processes(runs);
    let bytes = match path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
        true => chrome::encode(&processes).into_bytes(),
        false => perfetto::encode(&processes),
    };
    std::fs::write(path, bytes)
        .map_err(|e| Failure::usage(format!("--trace {}: cannot be written: {e}", path.display())))
}

/// Finds out before a run whether its timeline can be written after it.
///
/// # Errors
/// Exit code 2 if not.
pub fn check(path: &Path) -> Result<(), Failure> {
    let opened = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path);
    opened
        .map(drop)
        .map_err(|e| Failure::usage(format!("--trace {}: cannot be written: {e}", path.display())))
}
