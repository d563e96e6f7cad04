//! What is drawn: for each picture its data, ready for the script, and the tables behind it.
//!
//! A picture for which no run has data is not drawn; its name and the reason are listed instead, so
//! that a missing picture is never taken for a good result.

use serde_json::{Value, json};

use super::curves;
use super::model::{Member, Section};
use super::tables::{self, Table};
use crate::perf::histogram::{DECADES, LABELS};
use crate::schema::{Distribution, LockMode, Run, SignedDistribution};
use crate::stress::units;

/// A picture.
#[derive(Debug)]
pub struct Picture {
    /// What the script draws it as.
    pub kind: &'static str,
    /// Its title.
    pub title: &'static str,
    /// How to read it.
    pub about: String,
    /// What the script draws: a list of `choices`, of which one is shown at a time.
    pub data: Value,
    /// The same in numbers.
    pub tables: Vec<Table>,
}

/// A picture that is not there.
#[derive(Debug)]
pub struct Missing {
    /// Its title.
    pub title: &'static str,
    /// Why.
    pub why: &'static str,
}

/// All pictures of a section.
pub fn of(section: &Section<'_>) -> (Vec<Picture>, Vec<Missing>) {
    type Draw = fn(&Section<'_>) -> Option<Picture>;
    let all: [(Draw, &'static str, &'static str); 7] = [
        (percentiles, "Percentile curves", "no distribution with buckets was recorded"),
        (overrun, "Frame overrun", "the workload has no frames"),
        (timeline, "Worst of each 100 ms", "nothing was followed over time"),
        (
            utilization,
            "Mutator utilisation",
            "the runs have no mutators, or were shorter than a window",
        ),
        (stalls, "Stalls by cause and cycle", "no collection ran in the window"),
        (heat, "Fault latency over time", "no mutator touched a missing page"),
        (decades, "Lock waits by role", "mmap_lock was not recorded (that needs root and tracefs)"),
    ];
    let (mut pictures, mut missing) = (Vec::new(), Vec::new());
    for (draw, title, why) in all {
        match draw(section) {
            Some(picture) => pictures.push(picture),
            None => missing.push(Missing { title, why }),
        }
    }
    (pictures, missing)
}

/// A name for each run: its series, and its file where the series has several.
fn runs<'a>(section: &'a Section<'a>) -> Vec<(String, &'a Run)> {
    let mut list = Vec::new();
    for series in &section.series {
        for Member { file, run } in &series.members {
            let label = match series.members.len() {
                1 => series.name.clone(),
                _ => format!("{} – {}", series.name, file.results.label()),
            };
            list.push((label, *run));
        }
    }
    list
}

/// A quantity of which runs have a distribution.
type Quantity = (String, fn(&Run, &str) -> Option<Distribution>, String);

/// The quantities that any run of the section has a distribution of, the most telling first.
fn quantities(section: &Section<'_>) -> Vec<Quantity> {
    let mut all: Vec<Quantity> = Vec::new();
    let mut put = |label: String, get: fn(&Run, &str) -> Option<Distribution>, key: String| {
        if !all.iter().any(|(known, ..)| *known == label) {
            all.push((label, get, key));
        }
    };
    for Member { run, .. } in section.members() {
        for latency in &run.latencies {
            let label = format!("latency: {}, {} ({})", latency.name, latency.role, latency.mode);
            let key = format!("{}\0{}\0{}", latency.name, latency.role, latency.mode);
            put(
                label,
                |run, key| {
                    let is = |l: &&crate::schema::Latency| {
                        format!("{}\0{}\0{}", l.name, l.role, l.mode) == key
                    };
                    run.latencies.iter().find(is).map(|l| l.ns.clone())
                },
                key,
            );
        }
    }
    put(
        "stalls in missing pages".into(),
        |r, _| Some(r.faults.as_ref()?.all.clone()),
        String::new(),
    );
    for kind in ["all", "flip"] {
        put(
            format!("pauses: {kind}"),
            |run, kind| run.pauses.iter().find(|p| p.kind == kind).map(|p| p.ns.clone()),
            kind.into(),
        );
    }
    put(
        "time to safepoint".into(),
        |run, _| {
            let all: Vec<&Distribution> = run.safepoints.iter().map(|s| &s.ns).collect();
            let whole = run.safepoints.iter().find(|s| s.kind == "all").map(|s| s.ns.clone());
            whole.or_else(|| (!all.is_empty()).then(|| Distribution::merged(all)))
        },
        String::new(),
    );
    for mode in [LockMode::Write, LockMode::Read] {
        put(
            format!("mmap_lock: wait, {}", mode.name()),
            |run, mode| {
                let locks = run.locks.as_ref()?;
                locks
                    .total
                    .iter()
                    .find(|row| row.mode.name() == mode)
                    .map(|row| row.wait.fine.clone())
            },
            mode.name().into(),
        );
    }
    put("waits for memory".into(), |r, _| Some(r.allocation.as_ref()?.ns.clone()), String::new());
    put(
        "hiccups of an idle thread".into(),
        |r, _| Some(r.hiccups.as_ref()?.ns.clone()),
        String::new(),
    );
    all
}

fn percentiles(section: &Section<'_>) -> Option<Picture> {
    let floor = section
        .members()
        .filter_map(|member| Some(member.file.results.document.noise.as_ref()?.floor_ns))
        .max();
    let (mut choices, mut behind) = (Vec::new(), Vec::new());
    for (label, get, key) in quantities(section) {
        let (mut curves, mut rows) = (Vec::new(), Vec::new());
        for (color, series) in section.series.iter().enumerate() {
            let parts: Vec<Distribution> = series
                .members
                .iter()
                .filter_map(|member| get(member.run, &key))
                .filter(|d| !d.is_empty())
                .collect();
            let parts: Vec<&Distribution> = parts.iter().collect();
            if let Some(curve) = curves::curve(&parts) {
                let singles: Vec<Value> = match parts.len() {
                    0 | 1 => Vec::new(),
                    _ => parts
                        .iter()
                        .filter_map(|part| curves::curve(&[part]))
                        .map(|c| json!({"x": c.x, "y": c.y}))
                        .collect(),
                };
                curves.push(json!({
                    "name": series.name, "color": color, "x": curve.x, "y": curve.y,
                    "low": curve.low, "high": curve.high, "singles": singles,
                }));
            }
            if !parts.is_empty() {
                rows.push((series.name.clone(), parts.into_iter().cloned().collect::<Vec<_>>()));
            }
        }
        let rows: Vec<(String, Vec<&Distribution>)> =
            rows.iter().map(|(name, parts)| (name.clone(), parts.iter().collect())).collect();
        if !rows.is_empty() {
            behind.push(tables::percentiles(&label, &rows));
        }
        if !curves.is_empty() {
            choices.push(json!({"label": label, "curves": curves, "floor": floor}));
        }
    }
    (!choices.is_empty()).then(|| Picture {
        kind: "percentiles",
        title: "Percentile curves",
        about: "How long the slowest part took: each further nine to the right is ten times rarer. Runs \
                of a series are merged into the thick line; thin lines are single runs, the shaded band is \
                where the line lies in 95 % of bootstrap resamples of the runs (with fewer than six runs, \
                their range). The dotted line is the noise floor of the idle machine."
            .into(),
        data: json!({ "choices": choices }),
        tables: behind,
    })
}

fn timeline(section: &Section<'_>) -> Option<Picture> {
    let (mut choices, mut behind) = (Vec::new(), Vec::new());
    for (label, run) in runs(section) {
        let timeline = &run.timeline;
        let tracks: Vec<_> = timeline
            .tracks
            .iter()
            .filter(|track| track.worst.iter().any(Option::is_some))
            .collect();
        if tracks.is_empty() || timeline.interval_ns == 0 {
            continue;
        }
        let mut phases = Vec::new();
        let mut pauses = Vec::new();
        for cycle in &run.cycles {
            for phase in cycle.phases.iter().filter(|p| p.name == "mark" || p.name == "compact") {
                phases.push(json!([phase.name, phase.begin, phase.end]));
            }
            pauses.extend(cycle.pauses.iter().map(|p| json!([p.kind, p.requested, p.released])));
        }
        choices.push(json!({
            "label": label, "interval": timeline.interval_ns, "phases": phases, "pauses": pauses,
            "tracks": tracks.iter().map(|t| json!({"name": t.name, "worst": t.worst})).collect::<Vec<_>>(),
        }));
        let heads = std::iter::once("from").chain(tracks.iter().map(|track| track.name.as_str()));
        let mut table = Table::new(format!("{label}: worst of each interval"), heads);
        let intervals = tracks.iter().map(|track| track.worst.len()).max().unwrap_or(0);
        for i in 0..intervals {
            let from = i as u64 * timeline.interval_ns;
            let mut row = vec![format!("{:.1} s", from as f64 / 1e9)];
            row.extend(tracks.iter().map(|track| match track.worst.get(i).copied().flatten() {
                Some(ns) if track.name.contains("overrun") => units::signed_time(ns),
                Some(ns) => units::time(ns.unsigned_abs()),
                None => "–".into(),
            }));
            table.rows.push(row);
        }
        behind.push(table);
    }
    (!choices.is_empty()).then(|| Picture {
        kind: "timeline",
        title: "Worst of each 100 ms",
        about: "The longest of each kind in each interval, on a logarithmic scale; frames that were early \
                are not drawn. Behind: when the collector marked and compacted (both run beside the \
                mutators), and the pauses as ticks at the top."
            .into(),
        data: json!({ "choices": choices }),
        tables: behind,
    })
}

fn utilization(section: &Section<'_>) -> Option<Picture> {
    let mut windows: Vec<u64> = section
        .members()
        .flat_map(|m| m.run.utilization.iter().flat_map(|u| u.windows.iter().map(|w| w.window_ms)))
        .collect();
    windows.sort_unstable();
    windows.dedup();
    let least = |run: &Run, ms: u64| {
        run.utilization
            .iter()
            .filter_map(|u| u.windows.iter().find(|w| w.window_ms == ms)?.utilization)
            .min_by(f64::total_cmp)
    };
    let heads: Vec<String> = windows.iter().map(|ms| format!("{ms} ms")).collect();
    let heads = std::iter::once("").chain(heads.iter().map(String::as_str));
    let mut table =
        Table::new("Least share of any window (the worst mutator of the worst run)", heads);
    let mut counted: Vec<&str> = Vec::new();
    let mut curves = Vec::new();
    for (color, series) in section.series.iter().enumerate() {
        let mut points: Vec<(u64, f64)> = Vec::new();
        let mut row = vec![series.name.clone()];
        for &ms in &windows {
            let worst =
                series.members.iter().filter_map(|m| least(m.run, ms)).min_by(f64::total_cmp);
            points.extend(worst.map(|share| (ms, share)));
            row.push(worst.map_or_else(|| "–".into(), units::percent));
        }
        let singles: Vec<Value> = match series.members.len() {
            1 => Vec::new(),
            _ => series
                .members
                .iter()
                .map(|member| {
                    let points: Vec<(u64, f64)> = windows
                        .iter()
                        .filter_map(|&ms| Some((ms, least(member.run, ms)?)))
                        .collect();
                    let (x, y): (Vec<u64>, Vec<f64>) = points.into_iter().unzip();
                    json!({"x": x, "y": y})
                })
                .collect(),
        };
        for what in series.members.iter().flat_map(|m| &m.run.utilization).flat_map(|u| &u.counted)
        {
            if !counted.contains(&what.as_str()) {
                counted.push(what);
            }
        }
        if !points.is_empty() {
            let (x, y): (Vec<u64>, Vec<f64>) = points.into_iter().unzip();
            curves.push(
                json!({"name": series.name, "color": color, "x": x, "y": y, "singles": singles}),
            );
            table.rows.push(row);
        }
    }
    let what = if counted.is_empty() {
        String::new()
    } else {
        format!(" Lost time is: {}.", counted.join(", "))
    };
    (!curves.is_empty()).then(|| Picture {
        kind: "utilization",
        title: "Mutator utilisation",
        about: format!(
            "Bounded minimum mutator utilisation: in every window at least this long, the mutator that \
             fared worst had at least this share to itself.{what}"
        ),
        data: json!({ "choices": [{"label": "", "curves": curves}] }),
        tables: vec![table],
    })
}

fn overrun(section: &Section<'_>) -> Option<Picture> {
    let mut rates: Vec<u32> = section
        .members()
        .filter_map(|m| m.run.frames.as_ref())
        .flat_map(|frames| frames.rates.iter().map(|rate| rate.hz))
        .collect();
    rates.sort_unstable_by(|a, b| b.cmp(a));
    rates.dedup();
    // 120 Hz is what the workloads pace themselves by.
    rates.sort_by_key(|&hz| hz != 120);
    let (mut choices, mut behind) = (Vec::new(), Vec::new());
    for hz in rates {
        let heads = ["", "frames", "missed", "worst run", "p50", "p90", "p99", "p99.9", "max"];
        let mut table = Table::new(format!("{hz} Hz: overrun (negative: early)"), heads);
        let mut curves = Vec::new();
        for (color, series) in section.series.iter().enumerate() {
            let parts: Vec<_> = series
                .members
                .iter()
                .filter_map(|m| m.run.frames.as_ref()?.rates.iter().find(|rate| rate.hz == hz))
                .filter(|rate| rate.frames > 0)
                .collect();
            for (i, rate) in parts.iter().enumerate() {
                let name = match parts.len() {
                    1 => series.name.clone(),
                    _ => format!("{}, run {}", series.name, i + 1),
                };
                let o = &rate.overrun_ns;
                let mut row = vec![
                    name,
                    units::count(rate.frames),
                    format!(
                        "{} ({})",
                        units::count(rate.missed),
                        units::percent(rate.missed as f64 / rate.frames as f64)
                    ),
                    units::count(rate.worst_run),
                ];
                row.extend([o.p50, o.p90, o.p99, o.p999, o.max].map(units::signed_time));
                table.rows.push(row);
            }
            let overruns: Vec<&SignedDistribution> =
                parts.iter().map(|rate| &rate.overrun_ns).collect();
            if let Some((x, y)) = later_than(&overruns) {
                curves.push(json!({"name": series.name, "color": color, "x": x, "y": y}));
            }
        }
        if !table.rows.is_empty() {
            behind.push(table);
        }
        if !curves.is_empty() {
            choices.push(json!({"label": format!("{hz} Hz"), "curves": curves}));
        }
    }
    (!choices.is_empty()).then(|| Picture {
        kind: "overrun",
        title: "Frame overrun",
        about: "The share of frames that ended later than so long after their deadline; left of zero, early (linear within a millisecond, logarithmic beyond). \
                Where a curve crosses the zero line is the share of missed frames."
            .into(),
        data: json!({ "choices": choices }),
        tables: behind,
    })
}

/// The share of frames whose overrun is at least `x` (milliseconds), for each bucket's edge.
fn later_than(parts: &[&SignedDistribution]) -> Option<(Vec<f64>, Vec<f64>)> {
    let mut buckets = std::collections::BTreeMap::new();
    for &&(edge, n) in parts.iter().flat_map(|p| &p.buckets).collect::<Vec<_>>().iter() {
        *buckets.entry(edge).or_insert(0u64) += n;
    }
    let count: u64 = buckets.values().sum();
    let ms = |ns: i64| ns as f64 / 1e6;
    let least = parts.iter().filter(|p| !p.buckets.is_empty()).map(|p| p.min).min()?;
    let greatest = parts.iter().filter(|p| !p.buckets.is_empty()).map(|p| p.max).max()?;
    let (mut x, mut y) = (vec![ms(least)], vec![1.0]);
    let mut left = count;
    for (edge, n) in buckets {
        left -= n;
        if left > 0 {
            x.push(ms(edge));
            y.push(left as f64 / count as f64);
        }
    }
    // The last one ends where the latest frame ended.
    x.push(ms(greatest).max(*x.last()?));
    y.push(1.0 / count as f64);
    Some((x, y))
}

fn stalls(section: &Section<'_>) -> Option<Picture> {
    let (mut choices, mut behind) = (Vec::new(), Vec::new());
    for (label, run) in runs(section) {
        let mut causes: Vec<(&str, u64)> = Vec::new();
        for (name, _, ns) in run.cycles.iter().flat_map(|cycle| &cycle.stalls) {
            match causes.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += ns,
                None => causes.push((name, *ns)),
            }
        }
        causes.retain(|(_, sum)| *sum > 0);
        causes.sort_by_key(|(_, sum)| std::cmp::Reverse(*sum));
        if causes.is_empty() {
            continue;
        }
        let of = |cycle: &crate::schema::Cycle, cause: &str| -> (u64, u64) {
            let found = cycle.stalls.iter().filter(|(name, ..)| name == cause);
            found.fold((0, 0), |(count, sum), (_, n, ns)| (count + n, sum + ns))
        };
        choices.push(json!({
            "label": label,
            "cycles": run.cycles.iter().map(|cycle| cycle.number).collect::<Vec<_>>(),
            "causes": causes.iter().map(|(cause, _)| json!({
                "name": cause,
                "ns": run.cycles.iter().map(|cycle| of(cycle, cause).1).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        }));
        let heads = std::iter::once("cycle").chain(causes.iter().map(|(cause, _)| *cause));
        let mut table = Table::new(format!("{label}: time lost by mutators (how often)"), heads);
        for cycle in &run.cycles {
            let mut row = vec![format!("{} ({})", cycle.number, cycle.cause)];
            row.extend(causes.iter().map(|(cause, _)| match of(cycle, cause) {
                (0, _) => "–".to_owned(),
                (count, ns) => format!("{} ({})", units::time(ns), units::count(count)),
            }));
            table.rows.push(row);
        }
        behind.push(table);
    }
    (!choices.is_empty()).then(|| Picture {
        kind: "stalls",
        title: "Stalls by cause and cycle",
        about: "What each collection cost all mutators together, by cause; a cycle's bar is the sum. Faults \
                are named by what the thread did: built the page, helped, waited for it."
            .into(),
        data: json!({ "choices": choices }),
        tables: behind,
    })
}

fn heat(section: &Section<'_>) -> Option<Picture> {
    let (mut choices, mut behind) = (Vec::new(), Vec::new());
    for (label, run) in runs(section) {
        let Some(faults) = &run.faults else { continue };
        let map = &faults.heat;
        if map.cells.is_empty() {
            continue;
        }
        choices.push(json!({
            "label": label, "interval": map.interval_ns, "edges": map.edges, "cells": map.cells,
        }));
        let mut table =
            Table::new(format!("{label}: stalls by length"), ["up to", "stalls", "share"]);
        let all: u64 = map.cells.iter().map(|cell| cell.2).sum();
        for (row, &edge) in map.edges.iter().enumerate() {
            let n: u64 =
                map.cells.iter().filter(|cell| cell.1 as usize == row).map(|cell| cell.2).sum();
            if n > 0 {
                let share = units::percent(n as f64 / all as f64);
                table.rows.push(vec![units::time(edge), units::count(n), share]);
            }
        }
        behind.push(table);
    }
    (!choices.is_empty()).then(|| Picture {
        kind: "heat",
        title: "Fault latency over time",
        about: "Each cell counts the stalls in missing pages of that length in that interval: the darker, \
                the more, on a logarithmic scale."
            .into(),
        data: json!({ "choices": choices }),
        tables: behind,
    })
}

fn decades(section: &Section<'_>) -> Option<Picture> {
    let (mut choices, mut behind) = (Vec::new(), Vec::new());
    for mode in [LockMode::Write, LockMode::Read] {
        let mut names: Vec<&str> = section
            .members()
            .filter_map(|m| m.run.locks.as_ref())
            .flat_map(|locks| &locks.by_role)
            .filter(|row| row.mode == mode && row.count > 0)
            .map(|row| row.role.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        let heads = ["role", "series", "count", "total wait", "mean", "p99", "max"];
        let heads = heads.into_iter().chain(LABELS.iter().copied());
        let mut table = Table::new(format!("Waits for {}, a run", mode.name()), heads);
        let mut roles = Vec::new();
        for role in names {
            let mut bars = Vec::new();
            for (color, series) in section.series.iter().enumerate() {
                let rows: Vec<_> = series
                    .members
                    .iter()
                    .filter_map(|m| m.run.locks.as_ref()?.of_role(mode, role))
                    .collect();
                let recorded = series.members.iter().filter(|m| m.run.locks.is_some()).count();
                if recorded == 0 {
                    continue;
                }
                let mut counts = [0u64; DECADES];
                for row in &rows {
                    counts.iter_mut().zip(row.wait.decades).for_each(|(sum, n)| *sum += n);
                }
                let a_run = |n: u64| n as f64 / recorded as f64;
                let wait = Distribution::merged(rows.iter().map(|row| &row.wait.fine));
                let mut cells = vec![
                    role.to_owned(),
                    series.name.clone(),
                    units::count(a_run(wait.count).round() as u64),
                    units::time(a_run(wait.total) as u64),
                ];
                let figures = [wait.mean, wait.p99, wait.max];
                cells.extend(
                    figures.map(|ns| if wait.is_empty() { "–".into() } else { units::time(ns) }),
                );
                cells.extend(counts.map(|n| units::count(a_run(n).round() as u64)));
                table.rows.push(cells);
                bars.push(
                    json!({"name": series.name, "color": color, "counts": counts.map(a_run)}),
                );
            }
            roles.push(json!({"role": role, "series": bars}));
        }
        if !roles.is_empty() {
            let label = if mode == LockMode::Write { "for writing" } else { "for reading" };
            choices.push(json!({"label": label, "decades": LABELS, "roles": roles}));
            behind.push(table);
        }
    }
    (!choices.is_empty()).then(|| Picture {
        kind: "decades",
        title: "Lock waits by role",
        about: "How many waits for mmap_lock of each role of threads fall into each decade, in an average \
                run, on a logarithmic scale. Most acquisitions do not wait and lie at the left."
            .into(),
        data: json!({ "choices": choices }),
        tables: behind,
    })
}
