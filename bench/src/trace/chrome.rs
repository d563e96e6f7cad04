//! Chrome's trace events as JSON: an older form than Perfetto's own, but every tool reads it.
//!
//! A process a run, a "thread" a track: the form has no other tracks. Times are microseconds.

use serde_json::{Map, Value, json};

use super::model::Process;

/// The timeline as JSON text.
pub fn encode(processes: &[Process]) -> String {
    let mut events = Vec::new();
    for (i, process) in processes.iter().enumerate() {
        let pid = i + 1;
        events.push(json!({
            "ph": "M", "name": "process_name", "pid": pid, "args": {"name": process.name},
        }));
        for (k, track) in process.tracks.iter().enumerate() {
            let tid = k + 1;
            events.push(json!({
                "ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": track.name},
            }));
            events.push(json!({
                "ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": {"sort_index": tid},
            }));
            for slice in &track.slices {
                // A name that occurs several times (the parts of a cause) is numbered.
                let mut args = Map::new();
                for (name, text) in &slice.facts {
                    let mut key = (*name).to_owned();
                    let mut n = 1;
                    while args.contains_key(&key) {
                        n += 1;
                        key = format!("{name} {n}");
                    }
                    args.insert(key, Value::from(text.as_str()));
                }
                events.push(json!({
                    "ph": "X", "name": slice.name, "cat": slice.category, "pid": pid, "tid": tid,
                    "ts": slice.begin as f64 / 1e3, "dur": (slice.end - slice.begin) as f64 / 1e3,
                    "args": args,
                }));
            }
        }
        for counter in &process.counters {
            for &(at, ns) in &counter.values {
                events.push(json!({
                    "ph": "C", "name": counter.name, "pid": pid, "ts": at as f64 / 1e3,
                    "args": {"us": ns as f64 / 1e3},
                }));
            }
        }
    }
    json!({"displayTimeUnit": "ns", "traceEvents": events}).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::model;
    use super::*;
    use crate::report::samples;

    #[test]
    fn every_slice_is_an_event_with_its_place() {
        let runs = [samples::run("art", 1), samples::run("pingpong", 2)];
        let processes = model::processes(&[&runs[0], &runs[1]]);
        let value: Value = serde_json::from_str(&encode(&processes)).unwrap();
        let events = value["traceEvents"].as_array().unwrap();
        let slices: usize = processes.iter().flat_map(|p| &p.tracks).map(|t| t.slices.len()).sum();
        assert_eq!(events.iter().filter(|e| e["ph"] == "X").count(), slices);
        let worst = events.iter().find(|e| e["name"] == "worst frame 1: frame 12").unwrap();
        assert_eq!(worst["dur"], 30_000.0);
        assert_eq!(worst["args"]["cause"], "mmap_lock wait for writing");
        assert!(worst["args"]["part 2"].is_string());
    }
}
