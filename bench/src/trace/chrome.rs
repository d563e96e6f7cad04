//! Chrome's trace events as JSON: an older form than Perfetto's own, but every tool reads it.
//!
//! A process a run, a "thread" a track: the form has no other tracks. They are numbered from the process's own
//! number on, which is its first thread's; so that one is named, too.
//!
//! Times are microseconds. The form's `displayTimeUnit` is not written: it is about what is shown, but older
//! versions of Perfetto take `ns` for the unit of the numbers.

use serde_json::{Map, Value, json};

use super::model::Process;

/// The timeline as JSON text.
pub fn encode(processes: &[Process]) -> String {
    let mut events = Vec::new();
    for process in processes {
        let pid = process.pid;
        events.push(json!({
            "ph": "M", "name": "process_name", "pid": pid, "args": {"name": process.name},
        }));
        let named = |tid: u32, name: &str| {
            json!({
                "ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name},
            })
        };
        events.push(named(pid, &process.first_thread));
        for (tid, track) in (pid + 1..).zip(&process.tracks) {
            events.push(named(tid, &track.name));
            events.push(json!({
                "ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": {"sort_index": tid},
            }));
            for slice in &track.slices {
                let facts = slice.facts.iter();
                let args: Map<String, Value> =
                    facts.map(|(name, text)| (name.clone(), Value::from(text.as_str()))).collect();
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
    json!({"traceEvents": events}).to_string()
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
        assert_eq!(value.as_object().unwrap().keys().collect::<Vec<_>>(), ["traceEvents"]);
    }

    #[test]
    fn every_thread_of_a_process_has_a_name_its_first_one_included() {
        let runs = [samples::run("art", 1), samples::run("pingpong", 2)];
        let processes = model::processes(&[&runs[0], &runs[1]]);
        let value: Value = serde_json::from_str(&encode(&processes)).unwrap();
        let events = value["traceEvents"].as_array().unwrap();
        let id = |e: &Value| (e["pid"].as_u64().unwrap(), e["tid"].as_u64());
        let named: Vec<_> = events.iter().filter(|e| e["name"] == "thread_name").map(id).collect();
        for (i, at) in named.iter().enumerate() {
            assert!(!named[..i].contains(at), "{at:?} has two names");
        }
        for process in &processes {
            let pid = u64::from(process.pid);
            assert!(named.contains(&(pid, Some(pid))), "{pid}: {named:?}");
        }
        assert!(events.iter().filter(|e| e["ph"] == "X").all(|e| named.contains(&id(e))));
    }
}
