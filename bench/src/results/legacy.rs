//! Files of `firn stress` from before it recorded runs: the flat fields, as a run.
//!
//! They have percentiles but no buckets, so figures can be compared but no curve drawn. What they
//! do not have is left out.

use serde_json::{Value, json};

use crate::schema::{
    Cpu, Distribution, Document, Environment, Faults, Frames, Latency, Memory, Run, STRESS,
    StallKind,
};

/// The document; the path of the first field that is missing or of another kind.
pub fn document(value: &Value) -> Result<Document, String> {
    let text = |name: &str| {
        let found = value.get(name).and_then(Value::as_str);
        found.map(str::to_owned).ok_or_else(|| format!("{name}: text is missing"))
    };
    let (workload, backend) = (text("workload")?, text("backend")?);
    let seed = value.get("seed").and_then(Value::as_u64).ok_or("seed: a number is missing")?;
    // Every field that is not named here has its default, as in any older file.
    let mut run: Run = serde_json::from_value(json!({
        "name": format!("{workload}/{backend}"),
        "workload": workload,
        "backend": backend,
        "fault": text("fault").ok(),
        "install": text("install").ok(),
        "seed": seed,
        "partial": flag(value, "partial"),
        "origin_ns": 0,
        "window": [0, 0],
        "verdict": { "text": "", "inside_noise": false },
        "throughput_ops_s": value.get("throughput_ops_s"),
        "operation": text("operation").unwrap_or_default(),
    }))
    .map_err(|e| e.to_string())?;
    run.latencies = list(value.pointer("/latency_ns/windows"))
        .iter()
        .filter_map(|window| {
            Some(Latency {
                name: "operation".into(),
                role: "Mutator".into(),
                mode: window.get("mode")?.as_str()?.to_owned(),
                offered_ops_s: window.get("offered_ops_s").and_then(Value::as_f64),
                reached_ops_s: window.get("reached_ops_s").and_then(Value::as_f64),
                saturated: flag(window, "saturated"),
                ns: percentiles(window)?,
            })
        })
        .collect();
    if let Some(all) = value.pointer("/pauses/pause_ns").and_then(percentiles) {
        run.pauses.push(StallKind { kind: "all".into(), ns: all });
    }
    for kind in list(value.pointer("/pauses/by_kind")) {
        let Some(name) = kind.get("kind").and_then(Value::as_str) else { continue };
        if let Some(mut ns) = kind.get("pause_ns").and_then(percentiles) {
            ns.total = kind.get("total_ns").and_then(Value::as_u64).unwrap_or(ns.total);
            run.pauses.push(StallKind { kind: name.into(), ns });
        }
        if let Some(ns) = kind.get("time_to_safepoint_ns").and_then(percentiles) {
            run.safepoints.push(StallKind { kind: name.into(), ns });
        }
    }
    run.faults = value.pointer("/stalls/faults").and_then(percentiles).map(|all| Faults {
        all,
        by_outcome: kinds(value.pointer("/stalls/by_outcome"), "kind", "stall_ns"),
        lost: value.pointer("/stalls/faults_lost").and_then(Value::as_u64).unwrap_or(0),
        ..Faults::default()
    });
    run.allocation = value
        .pointer("/stalls/allocation")
        .and_then(percentiles)
        .map(|ns| crate::schema::Allocation { ns });
    run.phases = kinds(value.get("phases"), "phase", "wall_ns");
    run.frames = value.get("frames").and_then(frames);
    run.cpu = Cpu {
        process_s: value.get("cpu_s").and_then(Value::as_f64).unwrap_or(0.0),
        collector_s: value.get("gc_cpu_s").and_then(Value::as_f64).unwrap_or(0.0),
        ..Cpu::default()
    };
    run.memory = Memory {
        heap_bytes: value.get("heap_bytes").and_then(Value::as_u64).unwrap_or(0),
        rss_peak_bytes: value.get("rss_peak_bytes").and_then(Value::as_u64),
        side_table_bytes: value.get("side_table_bytes").and_then(Value::as_u64).unwrap_or(0),
        ..Memory::default()
    };
    // The machine's fields have the names that the environment gave them later.
    let environment = value
        .get("machine")
        .and_then(|machine| serde_json::from_value::<Environment>(machine.clone()).ok());
    Ok(Document {
        schema: STRESS.into(),
        environment,
        noise: None,
        partial: run.partial,
        runs: vec![run],
        skipped: Vec::new(),
    })
}

fn flag(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Percentiles as a distribution without buckets.
fn percentiles(value: &Value) -> Option<Distribution> {
    let get = |name: &str| value.get(name).and_then(Value::as_u64);
    let (count, mean) = (get("count")?, get("mean")?);
    Some(Distribution {
        count,
        mean,
        total: mean.saturating_mul(count),
        p50: get("p50")?,
        p90: get("p90")?,
        p99: get("p99")?,
        p999: get("p999")?,
        p9999: get("p9999")?,
        max: get("max")?,
        buckets: Vec::new(),
    })
}

fn kinds(value: Option<&Value>, name: &str, figures: &str) -> Vec<StallKind> {
    list(value)
        .iter()
        .filter_map(|item| {
            Some(StallKind {
                kind: item.get(name)?.as_str()?.to_owned(),
                ns: percentiles(item.get(figures)?)?,
            })
        })
        .collect()
}

fn frames(value: &Value) -> Option<Frames> {
    let mut value = value.clone();
    // What a rate has not, it had not then: its period is its deadline, its least overrun unknown.
    for rate in value.get_mut("rates")?.as_array_mut()? {
        let rate = rate.as_object_mut()?;
        let hz = rate.get("hz")?.as_u64()?;
        rate.insert("deadline_ns".into(), (1_000_000_000 / hz.max(1)).into());
        let count = rate.get("frames")?.clone();
        let overrun = rate.get_mut("overrun_ns")?.as_object_mut()?;
        overrun.insert("count".into(), count);
        overrun.insert("buckets".into(), Value::Array(Vec::new()));
        for (missing, from) in [("min", "p50"), ("p95", "p90")] {
            let known = overrun.get(from)?.clone();
            overrun.insert(missing.into(), known);
        }
    }
    serde_json::from_value(value).ok()
}
