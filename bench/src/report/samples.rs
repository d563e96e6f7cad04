//! Made-up runs for tests: every part of the schema occupied, the same numbers for the same seed.
//! Nothing here is a measurement, and nothing outside tests sees it.

use serde_json::{Map, Value, json};

use crate::schema::{Distribution, Document, Run, SCENARIO, SignedDistribution, Times};
use crate::workloads::rng::Rng;

/// A file as `firn scenario --json` writes it, with one run for each back end.
pub fn document(backends: &[&str], seed: u64) -> Document {
    Document {
        schema: SCENARIO.into(),
        environment: Some(
            serde_json::from_value(json!({
                "firn_version": "0.1.0", "build": "release",
                "command": ["scenario", "compact-vs-writers"],
                "kernel": "6.18.0", "cpus": 2, "cpu_model": "A processor <&\"'> of the tests",
                "memory_bytes": 8_589_934_592_u64, "page_bytes": 16_384,
                "transparent_huge_pages": "madvise", "root": true,
                "measuring": { "locks": "tracepoints", "blocked": "tracepoints", "missing": [] },
                "settings": { "kernel.sched_schedstats": "0" },
            }))
            .unwrap(),
        ),
        noise: Some(
            serde_json::from_value(json!({
                "seconds": 1.0, "hiccups": Distribution::of(10_000..11_000),
                "busy_cpus": 0.01, "floor_ns": 70_000, "timeline": [80_000, 60_000],
            }))
            .unwrap(),
        ),
        runs: backends.iter().map(|backend| run(backend, seed)).collect(),
        partial: false,
        skipped: Vec::new(),
    }
}

/// The text of such a file.
pub fn text(backends: &[&str], seed: u64) -> String {
    document(backends, seed).value_with(Map::new()).to_string()
}

/// A duration with a long tail, around `median`.
fn tail(rng: &mut Rng, median: f64) -> u64 {
    let u = ((rng.next_u64() >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
    (median * u.powf(-0.7)).min(8e9) as u64
}

fn times(rng: &mut Rng, n: usize, median: f64) -> Times {
    let all: Vec<u64> = (0..n).map(|_| tail(rng, median)).collect();
    Times::of(all)
}

/// One run of ten cycles in four seconds. `art` waits long for the lock, other back ends do not.
pub fn run(backend: &str, seed: u64) -> Run {
    let mut rng = Rng::new(seed.wrapping_mul(77) + 1);
    let slow = if backend == "art" { 400.0 } else { 1.0 };
    let window = 4_000_000_000u64;
    let mut cycles = Vec::new();
    for number in 1..=10u64 {
        let begin = number * 380_000_000 - 300_000_000;
        let flip = begin + 120_000_000;
        let released = flip + 4_000 + tail(&mut rng, 20_000.0 * slow);
        let end = released + 90_000_000;
        let span =
            |name: &str, begin: u64, end: u64| json!({"name": name, "begin": begin, "end": end});
        cycles.push(json!({
            "number": number, "cause": "threshold", "begin": begin, "end": end,
            "phases": [
                span("start", begin, begin + 30_000), span("mark", begin + 30_000, flip - 40_000),
                span("final mark", flip - 40_000, flip - 20_000), span("plan", flip - 20_000, flip),
                span("flip", flip, released), span("compact", released, end - 50_000),
                span("finish", end - 50_000, end),
            ],
            "pauses": [
                {"kind": "start", "requested": begin, "stopped": begin + 10_000, "released": begin + 12_000},
                {"kind": "flip", "requested": flip, "stopped": flip + 4_000, "released": released},
            ],
            "stalls": [
                ["built", 900 + rng.below(100), tail(&mut rng, 4_000_000.0)],
                ["waited", 3, tail(&mut rng, 90_000.0)],
                ["pause", 2, released - flip],
                ["allocation", 1, tail(&mut rng, 900_000.0)],
                ["mmap_lock write", 4, tail(&mut rng, 5_000.0 * slow)],
            ],
            "live_bytes": 1_000_000, "pages_copied": 5, "pages_moved": 300, "pages_by_mutators": 40,
        }));
    }
    let flips: Vec<u64> = cycles
        .iter()
        .map(|c| {
            c["pauses"][1]["released"].as_u64().unwrap()
                - c["pauses"][1]["stopped"].as_u64().unwrap()
        })
        .collect();
    let mut rows = Vec::new();
    for (role, n, median) in [
        ("HeapTaskDaemon", 40, 30_000.0 * slow),
        ("Mutator", 900, 700.0),
        ("VmaWriter", 5_000, 3_000.0),
    ] {
        for mode in ["read", "write"] {
            let n = if role == "HeapTaskDaemon" && mode == "write" && slow == 1.0 { 0 } else { n };
            let mut row = json!({
                "mode": mode, "role": role, "operation": "", "count": n, "contended": n / 10,
                "downgraded": 0, "failed": 0,
            });
            row["wait"] = json!(times(&mut rng, n, median));
            row["hold"] = json!(times(&mut rng, n, 2_000.0));
            rows.push(row);
        }
    }
    let total: Vec<Value> = ["read", "write"]
        .iter()
        .map(|mode| {
            let of = |part: &str| {
                let all: Vec<Times> = rows
                    .iter()
                    .filter(|row| row["mode"] == *mode)
                    .map(|row| serde_json::from_value(row[part].clone()).unwrap())
                    .collect();
                json!(Times::merged(&all))
            };
            let wait = of("wait");
            json!({
                "mode": mode, "role": "", "operation": "", "count": wait["count"],
                "contended": wait["count"].as_u64().unwrap() / 10, "wait": wait, "hold": of("hold"),
            })
        })
        .collect();
    let latencies: Vec<u64> = (0..20_000).map(|_| tail(&mut rng, 900.0)).collect();
    let overruns: Vec<i64> =
        (0..480).map(|_| tail(&mut rng, 1_500_000.0) as i64 - 8_333_333).collect();
    let rate = |hz: u64| {
        let shift = 8_333_333 - 1_000_000_000 / hz as i64;
        let overrun = SignedDistribution::of(overruns.iter().map(|o| o + shift));
        json!({
            "hz": hz, "deadline_ns": 1_000_000_000 / hz, "frames": overruns.len(),
            "missed": overruns.iter().filter(|o| **o + shift > 0).count(), "worst_run": 3,
            "overrun_ns": overrun,
        })
    };
    let faults: Vec<u64> = (0..9_000).map(|_| tail(&mut rng, 3_500.0)).collect();
    let edges: Vec<u64> = (0..40).map(|i| (500.0 * 2f64.powf(f64::from(i) / 2.0)) as u64).collect();
    let mut cells = std::collections::BTreeMap::new();
    for &ns in &faults {
        let row = edges.partition_point(|&e| e < ns).min(edges.len() - 1) as u32;
        *cells.entry((rng.below(40) as u32, row)).or_insert(0u64) += 1;
    }
    let cells: Vec<(u32, u32, u64)> = cells.into_iter().map(|((c, r), n)| (c, r, n)).collect();
    let track = |name: &str, rng: &mut Rng, median: f64| {
        let worst: Vec<Option<i64>> =
            (0..40).map(|i| (i != 7).then(|| tail(rng, median) as i64)).collect();
        json!({"name": name, "worst": worst})
    };
    let worst = |what: &str, rank: u64, overrun: Option<i64>| {
        let begin = 300_000_000 * rank;
        json!({
            "rank": rank, "what": what, "tid": 101, "thread": "Mutator-1", "role": "Mutator",
            "begin": begin, "end": begin + 30_000_000 / rank, "ns": 30_000_000 / rank,
            "overrun_ns": overrun, "cause": "mmap_lock wait for writing",
            "causes": [{
                "cause": "mmap_lock wait for writing", "ns": 20_000_000 / rank, "count": 1,
                "operation": "mmap",
                "holders": [{
                    "tid": 103, "name": "VmaWriter-1", "role": "VmaWriter", "mode": "write",
                    "operation": "munmap", "held_ns": 18_000_000 / rank, "times": 1,
                    "off_cpu_ns": 0,
                }],
            }, {"cause": "own work", "ns": 10_000_000 / rank, "count": 1}],
        })
    };
    let kind = |kind: &str, ns: Distribution| json!({"kind": kind, "ns": ns});
    let frames: Vec<Value> = (0..20u64)
        .map(|n| {
            let vsync = n * 8_333_333;
            json!({"number": n, "tid": 101, "vsync": vsync, "begin": vsync + 5_000,
                   "end": vsync + 4_000_000 + n * 400_000, "deadline": vsync + 8_333_333})
        })
        .collect();
    let mut all = json!({
        "name": format!("compact-vs-writers/{backend}"), "scenario": "compact-vs-writers",
        "variant": "", "workload": "lru", "backend": backend, "fault": "sigbus", "install": "move",
        "seed": seed, "options": {"writers": 2}, "origin_ns": 5_000_000_000u64,
        "window": [0, window],
        "verdict": {"text": "The daemon waits <for> the lock.", "inside_noise": false},
        "figures": [{"name": "pause_wait_p50", "value": 20_000.0 * slow, "unit": "ns",
                     "what": "median wait for mmap_lock in the pause", "better": -1}],
        "checks": [{"what": "write locks a cycle", "ok": true, "detail": "0"}],
        "throughput_ops_s": 500_000.0 + rng.below(9_000) as f64, "operation": "operations",
        "latencies": [{"name": "operation", "role": "Mutator", "mode": "closed",
                       "offered_ops_s": null, "reached_ops_s": 5e5, "saturated": false,
                       "ns": Distribution::of(latencies)}],
        "frames": {"what": "virtual frames", "rates": [rate(60), rate(90), rate(120)]},
        "pauses": [kind("all", Distribution::of(flips.clone())), kind("flip", Distribution::of(flips))],
        "safepoints": [kind("flip", Distribution::of((0..10).map(|n| 3_000 + n * 100)))],
        "phases": [kind("compact", Distribution::of((0..10).map(|n| 90_000_000 + n * 1000)))],
        "faults": {"all": Distribution::of(faults.clone()),
                   "by_outcome": [kind("built", Distribution::of(faults))],
                   "lost": 0, "heat": {"interval_ns": 100_000_000, "edges": edges, "cells": cells}},
        "allocation": {"ns": Distribution::of([900_000, 2_000_000])},
    });
    let rest = json!({
        "cycles": cycles,
        "locks": {"source": "tracepoints", "quality": {"records": 100_000, "lost": 0},
                  "total": total, "by_role": rows, "by_operation": []},
        "blocked_by_role": [{
            "tid": 0, "name": "", "role": "HeapTaskDaemon", "source": "tracepoints",
            "uninterruptible_ns": (9_000_000.0 * slow) as u64, "uninterruptible_count": 40,
            "in_mmap_lock_ns": (8_000_000.0 * slow) as u64, "run_queue_ns": 5_000_000,
            "running_ns": 900_000_000,
        }],
        "hiccups": {"ns": Distribution::of(20_000..24_000), "raw": Distribution::of(20_000..24_000)},
        "utilization": [{
            "mutator": 0, "name": "Mutator-1", "lost_ns": 90_000_000, "counted": ["pause", "fault"],
            "windows": [
                {"window_ms": 1, "utilization": 0.1}, {"window_ms": 10, "utilization": 0.7},
                {"window_ms": 100, "utilization": 0.93}, {"window_ms": 10_000, "utilization": null},
            ],
        }],
        "worst_frames": [worst("frame 12", 1, Some(21_000_000)), worst("frame 3", 2, Some(7_000_000))],
        "worst_stalls": [worst("fault", 1, None)],
        "timeline": {"interval_ns": 100_000_000, "tracks": [
            track("operation", &mut rng, 90_000.0), track("hiccup", &mut rng, 50_000.0),
            track("mmap_lock write wait", &mut rng, 9_000.0 * slow),
        ]},
        "spans": {
            "pid": 99,
            "threads": [
                {"tid": 100, "name": "HeapTaskDaemon", "role": "HeapTaskDaemon", "mutator": null},
                {"tid": 101, "name": "Mutator-1", "role": "Mutator", "mutator": 0},
                {"tid": 103, "name": "VmaWriter-1", "role": "VmaWriter", "mutator": null},
            ],
            "faults": [{"mutator": 0, "begin": 210_000_000, "end": 210_004_000, "outcome": "built"}],
            "locks": [
                {"tid": 103, "mode": "write", "operation": "munmap", "start": 379_000_000,
                 "acquired": 380_000_000, "released": 400_200_000},
                {"tid": 101, "mode": "write", "operation": "mmap", "start": 381_000_000,
                 "acquired": 400_250_000, "released": 400_251_000},
            ],
            "switches": [{"tid": 101, "begin": 400_000_000, "woken": 400_200_000,
                          "end": 400_300_000, "state": "uninterruptible", "wait": "mmap_lock"}],
            "frames": frames, "dropped": 4,
        },
        "cpu": {"process_s": 6.5, "collector_s": 1.5, "measuring_s": 0.1},
        "memory": {"heap_bytes": 536_870_912, "rss_peak_bytes": 700_000_000,
                   "side_table_bytes": 20_000_000, "vmas": 300, "threads": 9},
        "measuring_cost": {"what": "operations a second", "with": 99.0, "without": 100.0,
                           "percent": 1.0, "flagged": false, "source": "program",
                           "events_per_s": 25_000.0},
    });
    if let (Value::Object(all), Value::Object(rest)) = (&mut all, rest) {
        all.extend(rest);
    }
    serde_json::from_value(all).unwrap()
}
