//! Shares of time and of frames: mutator utilisation, frame overrun.

use serde_json::{Value, json};

use super::Picture;
use crate::report::model::Section;
use crate::report::tables::Table;
use crate::schema::{Run, SignedDistribution};
use crate::stress::units;

pub(super) fn utilization(section: &Section<'_>) -> Option<Picture> {
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

pub(super) fn overrun(section: &Section<'_>) -> Option<Picture> {
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
