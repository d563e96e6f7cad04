//! Files of `--json`, read back: the one way in for `report` and `compare`.
//!
//! Whatever a file may be instead (missing, empty, cut off in the middle, another program's, a newer
//! version's, damaged in one field), the user gets one line with the file, the place and what to
//! do, and exit code 2. What is read is a [`Document`], whichever version wrote it.

mod legacy;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use serde_json::error::Category;

use crate::exit::Failure;
use crate::schema::{Document, SCENARIO, STRESS};

/// A file and what it holds.
#[derive(Debug, Clone)]
pub struct Results {
    /// Where it was read from.
    pub path: PathBuf,
    /// What it holds; at least one run.
    pub document: Document,
}

impl Results {
    /// Reads a file.
    ///
    /// # Errors
    /// Exit code 2, with the reason in one line.
    pub fn read(path: &Path) -> Result<Results, Failure> {
        let refuse = |why: &str| Failure::usage(format!("{}: {why}", path.display()));
        if path.is_dir() {
            return Err(refuse("is a folder: name the files in it"));
        }
        let bytes = fs::read(path).map_err(|e| refuse(&format!("cannot be read: {e}")))?;
        let document = parse(&bytes).map_err(|why| refuse(&why))?;
        Ok(Results { path: path.to_owned(), document })
    }

    /// Reads all of a list.
    ///
    /// # Errors
    /// As [`Results::read`], of the first that fails.
    pub fn read_all(paths: &[PathBuf]) -> Result<Vec<Results>, Failure> {
        paths.iter().map(|path| Results::read(path)).collect()
    }

    /// The file's name without its folder, for legends.
    pub fn label(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The document in the bytes of a file; why there is none.
pub(crate) fn parse(bytes: &[u8]) -> Result<Document, String> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err("is empty: the run that should have written it did not end; repeat it".into());
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|e| match e.classify() {
        Category::Eof => format!(
            "is cut off (it ends in the middle of a value, at line {}, column {}): repeat the run, \
             or copy the file again",
            e.line(),
            e.column()
        ),
        _ => format!("is not JSON (line {}, column {}): {e}", e.line(), e.column()),
    })?;
    let Some(schema) = value.get("schema").and_then(Value::as_str).map(str::to_owned) else {
        return Err("is JSON, but not a result of firn: there is no `schema` in it; give files \
                    written by `firn stress --json` or `firn scenario --json`"
            .into());
    };
    check(&schema)?;
    let legacy = value.get("runs").is_none();
    if legacy && schema == STRESS {
        return legacy::document(&value).map_err(|place| damaged(&place));
    }
    let document: Document = serde_path_to_error::deserialize(value)
        .map_err(|e| damaged(&format!("{}: {}", e.path(), e.inner())))?;
    if document.runs.is_empty() {
        return Err("holds no run: it was interrupted before the first one ended".into());
    }
    Ok(document)
}

fn damaged(place: &str) -> String {
    format!("is damaged, or was changed by hand, at {place}")
}

/// Refuses what this program cannot read, by the value of `schema`.
fn check(schema: &str) -> Result<(), String> {
    if schema == SCENARIO || schema == STRESS {
        return Ok(());
    }
    let known = [SCENARIO, STRESS];
    let split = |s: &str| {
        let (family, version) = s.rsplit_once('-')?;
        Some((family.to_owned(), version.parse::<u32>().ok()?))
    };
    if let Some((family, version)) = split(schema) {
        for have in known {
            if let Some((ours, reads)) = split(have)
                && ours == family
                && version > reads
            {
                return Err(format!(
                    "was written by a newer firn ({schema}; this one reads {have} and older): use \
                     that version"
                ));
            }
        }
        if let Some(command) = family.strip_prefix("firn-") {
            return Err(format!(
                "is a result of `firn {command}`; only those of `firn stress` and `firn scenario` \
                 can be compared and drawn"
            ));
        }
    }
    Err(format!("is JSON, but not a result of firn: its `schema` is {schema:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Run;

    fn refused(text: &str) -> String {
        parse(text.as_bytes()).expect_err(text)
    }

    fn whole() -> String {
        let document = Document {
            schema: SCENARIO.into(),
            environment: None,
            noise: None,
            runs: vec![crate::report::samples::run("art", 1)],
            partial: false,
            skipped: Vec::new(),
        };
        document.value_with(serde_json::Map::new()).to_string()
    }

    #[test]
    fn a_whole_file_is_read_and_the_same_comes_out() {
        let document = parse(whole().as_bytes()).unwrap();
        assert_eq!(document.value_with(serde_json::Map::new()).to_string(), whole());
    }

    #[test]
    fn a_file_cut_off_anywhere_is_called_cut_off() {
        let text = whole();
        for at in (1..text.len()).step_by(97) {
            assert!(refused(&text[..at]).contains("is cut off"), "{at}");
        }
    }

    #[test]
    fn foreign_empty_newer_and_damaged_files_are_told_apart() {
        assert!(refused("").contains("is empty"));
        assert!(refused(" \n").contains("is empty"));
        assert!(refused("hello").contains("is not JSON (line 1, column"));
        assert!(refused("\u{feff}{}").contains("is not JSON"));
        assert!(refused("[1, 2]").contains("no `schema`"));
        assert!(refused(r#"{"traceEvents": []}"#).contains("no `schema`"));
        assert!(refused(r#"{"schema": 3}"#).contains("no `schema`"));
        assert!(refused(r#"{"schema": "other-1"}"#).contains("\"other-1\""));
        assert!(refused(r#"{"schema": "firn-scenario-99"}"#).contains("a newer firn"));
        assert!(refused(r#"{"schema": "firn-census-1"}"#).contains("`firn census`"));
        assert!(refused(r#"{"schema": "firn-scenario-1", "runs": []}"#).contains("no run"));
        let damaged = refused(&whole().replace("\"window\":[", "\"window\":[null,"));
        assert!(damaged.contains("runs[0].window"), "{damaged}");
    }

    #[test]
    fn a_folder_and_a_missing_file_are_named() {
        for path in ["/", "/no/such/file.json"] {
            let failure = Results::read(Path::new(path)).unwrap_err();
            assert_eq!(failure.exit, crate::exit::Exit::Usage);
            assert!(failure.message.starts_with(path), "{failure}");
        }
    }

    #[test]
    fn files_from_before_runs_were_recorded_are_read() {
        let text = r#"{"schema": "firn-stress-1", "workload": "lru", "backend": "art", "seed": 3,
            "partial": false, "throughput_ops_s": 5.5, "operation": "operations",
            "latency_ns": {"windows": [{"mode": "closed", "offered_ops_s": null,
              "reached_ops_s": 5.5, "saturated": false, "count": 4, "mean": 2, "p50": 2, "p90": 3,
              "p99": 3, "p999": 3, "p9999": 3, "max": 3}]},
            "pauses": {"by_kind": [{"kind": "flip", "pause_ns": {"count": 2, "mean": 5, "p50": 4,
              "p90": 6, "p99": 6, "p999": 6, "p9999": 6, "max": 6}, "time_to_safepoint_ns":
              {"count": 2, "mean": 5, "p50": 4, "p90": 6, "p99": 6, "p999": 6, "p9999": 6,
              "max": 6}, "total_ns": 10}]}, "machine": {"kernel": "6.18", "cpus": 2}}"#;
        let document = parse(text.as_bytes()).unwrap();
        let run: &Run = &document.runs[0];
        assert_eq!((run.name.as_str(), run.seed), ("lru/art", 3));
        assert_eq!(run.latencies[0].ns.p99, 3);
        assert_eq!(run.pauses[0].ns.total, 10);
        assert_eq!(document.environment.unwrap().kernel, "6.18");
        assert!(refused(r#"{"schema": "firn-stress-1"}"#).contains("is damaged"));
    }
}
