//! The report as JSON, for scripts and for comparisons.
//!
//! The names at the top level are an interface: they are only ever added to, and `schema` changes
//! when the meaning of one does. Times are in nanoseconds, sizes in bytes. A figure that a run
//! does not have is null, never zero.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::Report;
use crate::exit::Failure;
use crate::measure::environment;
use crate::schema::Document;

pub use crate::schema::STRESS as SCHEMA;

/// The report as one JSON object.
pub fn value(report: &Report) -> Value {
    let (outcome, gc) = (&report.outcome, &report.gc);
    let pauses = |kind: &str| gc.pauses.iter().find(|p| p.kind == kind);
    let all = pauses("all");
    let flat = json!({
        "workload": report.workload.name(),
        "backend": report.setup.backend,
        "fault": report.setup.fault,
        "install": report.setup.install,
        "heap_bytes": report.setup.heap_bytes,
        "mutators": outcome.mutators,
        "workers": report.setup.workers,
        "verify": report.setup.verify,
        "notes": report.setup.notes,
        "seed": report.seed,
        "quick": report.quick,
        "passed": report.passed(),
        "digest": outcome.digest.map(|d| format!("{d:016x}")),
        "checksum": outcome.checksum,
        "checks": outcome.checks.iter().map(|check| json!({
            "what": check.what, "ok": check.ok, "detail": check.detail,
        })).collect::<Vec<_>>(),
        "facts": outcome.facts.iter().map(|(name, value)| {
            (name.replace(' ', "_"), Value::from(value.as_str()))
        }).collect::<serde_json::Map<_, _>>(),
        "window_s": (outcome.window.1 - outcome.window.0) as f64 / 1e9,
        "wall_s": outcome.walls,
        "operations": outcome.throughput.operations,
        "operation": outcome.throughput.unit,
        "throughput_ops_s": outcome.throughput.per_second,
        // The first window's percentiles at this level; every window's under `windows`.
        "latency_ns": outcome.latencies.first().map(|first| {
            let mut latency = json!(first);
            latency["windows"] = json!(outcome.latencies);
            latency
        }),
        "frames": (!outcome.frames.is_empty()).then(|| json!({
            "what": outcome.frames_are,
            "rates": outcome.frames,
        })),
        "cycles": gc.cycles_total,
        "cycles_in_window": gc.cycles,
        "pauses": {
            "count": all.map_or(0, |p| p.pause_ns.count),
            "total_ns": all.map_or(0, |p| p.total_ns),
            "pause_ns": all.map(|p| p.pause_ns),
            "time_to_safepoint_ns": all.map(|p| p.time_to_safepoint_ns),
            "by_kind": gc.pauses.iter().filter(|p| p.kind != "all").collect::<Vec<_>>(),
        },
        "stalls": gc.stalls,
        "phases": gc.phases,
        "moved": gc.moved,
        "retries": gc.retries,
        "mmu": gc.mmu,
        "cpu_s": outcome.cpu.process_s,
        "gc_cpu_s": outcome.cpu.collector_s,
        "rss_peak_bytes": report.rss_peak_bytes,
        "side_table_bytes": report.side_table_bytes,
        "machine": report.machine,
    });
    let Value::Object(flat) = flat else { unreachable!("an object was written") };
    let document = Document {
        schema: SCHEMA.to_owned(),
        environment: Some(environment::probe(report.measuring.clone())),
        noise: None,
        runs: vec![report.run.clone()],
        partial: outcome.partial,
        skipped: report.measuring.missing.clone(),
    };
    document.value_with(flat)
}

/// Where JSON goes. Opened before the run, so that a path that cannot be written is found out
/// before the time is spent.
#[derive(Debug)]
pub enum Sink {
    /// A file.
    File(std::fs::File),
    /// Standard output, for the path `-`.
    Stdout,
}

impl Sink {
    /// Opens `path`; an existing file is replaced.
    ///
    /// # Errors
    /// Exit code 2 if it cannot be written.
    pub fn open(path: &Path) -> Result<Sink, Failure> {
        if path.as_os_str() == "-" {
            return Ok(Sink::Stdout);
        }
        std::fs::File::create(path).map(Sink::File).map_err(|e| {
            Failure::usage(format!("--json {}: cannot be written: {e}", path.display()))
        })
    }

    /// Writes one JSON value on one line, and a newline: most of it are lists of numbers, which nobody reads
    /// one a line.
    ///
    /// # Errors
    /// The disk is full, or similar.
    pub fn write(self, value: &Value) -> std::io::Result<()> {
        let text = serde_json::to_string(value).map_err(std::io::Error::other)? + "\n";
        match self {
            Sink::File(mut file) => file.write_all(text.as_bytes()),
            Sink::Stdout => std::io::stdout().write_all(text.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report_text::tests::example;
    use super::*;

    #[test]
    fn the_documented_names_are_at_the_top_level() {
        let value = value(&example());
        for name in [
            "schema",
            "workload",
            "backend",
            "fault",
            "install",
            "seed",
            "digest",
            "cycles",
            "throughput_ops_s",
            "latency_ns",
            "pauses",
            "stalls",
            "frames",
            "rss_peak_bytes",
            "checksum",
            "phases",
            "retries",
            "moved",
            "mmu",
            "machine",
            "partial",
        ] {
            assert!(value.get(name).is_some(), "{name}");
        }
        for name in ["p50", "p90", "p99", "p999", "p9999", "max", "mode"] {
            assert!(value["latency_ns"].get(name).is_some(), "latency_ns.{name}");
        }
        assert_eq!(value["frames"]["rates"][2]["hz"], 120);
        assert!(value["pauses"]["pause_ns"]["p99"].is_u64());
    }

    #[test]
    fn a_path_that_cannot_be_written_is_bad_usage() {
        let failure = Sink::open(Path::new("/no/such/folder/out.json")).unwrap_err();
        assert_eq!(failure.exit, crate::exit::Exit::Usage);
        assert!(failure.message.contains("/no/such/folder/out.json"));
    }
}
