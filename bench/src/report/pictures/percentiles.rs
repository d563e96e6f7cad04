//! Percentile curves: of which quantities, with the noise floor.

use serde_json::{Value, json};

use super::Picture;
use crate::report::curves;
use crate::report::model::Section;
use crate::report::tables;
use crate::schema::{Distribution, Latency, LockMode, Run};

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
    // What a mutator's own work took, then what else it did, then what went on beside it.
    let mut latencies: Vec<&Latency> =
        section.members().flat_map(|member| &member.run.latencies).collect();
    latencies.sort_by_key(|latency| {
        let work = ["frame", "operation"].contains(&latency.name.as_str());
        (!latency.role.ends_with("Mutator"), !work)
    });
    for latency in latencies {
        let label = format!("latency: {}, {} ({})", latency.name, latency.role, latency.mode);
        let key = format!("{}\0{}\0{}", latency.name, latency.role, latency.mode);
        put(
            label,
            |run, key| {
                let is = |l: &&Latency| format!("{}\0{}\0{}", l.name, l.role, l.mode) == key;
                run.latencies.iter().find(is).map(|l| l.ns.clone())
            },
            key,
        );
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

pub(super) fn percentiles(section: &Section<'_>) -> Option<Picture> {
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
