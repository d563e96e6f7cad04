//! Tables of a page: what is behind each picture, and what has no picture.

use super::model::{Member, Section, Series};
use crate::compare::metrics::{self, Metric};
use crate::compare::stats;
use crate::schema::{Distribution, Worst};
use crate::stress::units;

/// A table of texts.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// What it is.
    pub caption: String,
    /// The heads of its columns. The first column names its rows.
    pub heads: Vec<String>,
    /// Its rows, as wide as the heads.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new<'a>(caption: impl Into<String>, heads: impl IntoIterator<Item = &'a str>) -> Table {
        Table {
            caption: caption.into(),
            heads: heads.into_iter().map(str::to_owned).collect(),
            rows: Vec::new(),
        }
    }
}

/// The percentiles of each series, merged.
pub fn percentiles(caption: &str, series: &[(String, Vec<&Distribution>)]) -> Table {
    let heads = ["", "runs", "count", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
    let mut table = Table::new(caption, heads);
    for (name, parts) in series {
        let merged = match parts[..] {
            // A file of an old program has percentiles, but no buckets to merge.
            [one] => one.clone(),
            _ => Distribution::merged(parts.iter().copied()),
        };
        let mut row = vec![name.clone(), parts.len().to_string(), units::count(merged.count)];
        let figures = [merged.p50, merged.p90, merged.p99, merged.p999, merged.p9999, merged.max];
        row.extend(figures.map(|ns| if merged.is_empty() { "–".into() } else { units::time(ns) }));
        table.rows.push(row);
    }
    table
}

/// The figures that matter most, one column a series: the median over its runs, with their range.
pub fn headlines(section: &Section<'_>) -> Table {
    let heads = std::iter::once("").chain(section.series.iter().map(|s| s.name.as_str()));
    let mut table = Table::new("Figures: median over runs (range)", heads);
    let of: Vec<Vec<Vec<Metric>>> = section
        .series
        .iter()
        .map(|series| series.members.iter().map(|member| metrics::of(member.run)).collect())
        .collect();
    let mut names: Vec<&str> = Vec::new();
    for metric in of.iter().flatten().flatten().filter(|metric| metric.headline) {
        if !names.contains(&metric.name.as_str()) {
            names.push(&metric.name);
        }
    }
    for name in names {
        let mut row = vec![name.to_owned()];
        for members in &of {
            let found: Vec<&Metric> = members
                .iter()
                .filter_map(|m| m.iter().find(|metric| metric.name == name))
                .collect();
            let values: Vec<f64> = found.iter().map(|metric| metric.value).collect();
            row.push(match (stats::median(&values), found.first()) {
                (Some(median), Some(metric)) if values.len() > 1 => {
                    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
                    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let unit = metric.unit;
                    format!("{} ({} – {})", unit.show(median), unit.show(low), unit.show(high))
                }
                (Some(median), Some(metric)) => metric.unit.show(median),
                _ => "–".into(),
            });
        }
        table.rows.push(row);
    }
    table
}

/// The worst frames or stalls of a run, with what took the time.
pub fn worst(caption: &str, list: &[Worst]) -> Table {
    let mut table =
        Table::new(caption, ["what", "at", "length", "overrun", "thread", "cause", "made up of"]);
    for worst in list {
        let parts: Vec<String> = worst
            .causes
            .iter()
            .map(|cause| {
                let mut text = format!("{} {}", units::time(cause.ns), cause.cause);
                if cause.count > 1 {
                    text += &format!(" (×{})", cause.count);
                }
                if !cause.operation.is_empty() {
                    text += &format!(" in {}", cause.operation);
                }
                let holders: Vec<String> = cause
                    .holders
                    .iter()
                    .map(|holder| {
                        let off = match holder.off_cpu_ns {
                            Some(ns) if ns > 0 => {
                                format!(", {} of it off the processor", units::time(ns))
                            }
                            _ => String::new(),
                        };
                        format!(
                            "{} held it for {} {} in {}{off}",
                            holder.name,
                            match holder.mode {
                                crate::schema::LockMode::Read => "reading",
                                crate::schema::LockMode::Write => "writing",
                            },
                            units::time(holder.held_ns),
                            holder.operation,
                        )
                    })
                    .collect();
                if !holders.is_empty() {
                    text += &format!(": {}", holders.join("; "));
                }
                text
            })
            .collect();
        table.rows.push(vec![
            format!("{}. {}", worst.rank, worst.what),
            format!("{:.3} s", worst.begin as f64 / 1e9),
            units::time(worst.ns),
            worst.overrun_ns.map_or_else(String::new, units::signed_time),
            worst.thread.clone(),
            worst.cause.clone(),
            parts.join(" · "),
        ]);
    }
    table
}

/// What each series ran: options, threads, checks, notes.
pub fn setup(section: &Section<'_>) -> Table {
    let mut table =
        Table::new("What ran", ["series", "runs", "how", "threads", "checks and notes"]);
    for Series { name, members } in &section.series {
        let Some(Member { run, .. }) = members.first() else { continue };
        let mut how = vec![format!("{} on {}", run.workload, run.backend)];
        how.extend(run.fault.iter().map(|fault| format!("faults by {fault}")));
        how.extend(run.install.iter().map(|install| format!("pages by {install}")));
        how.push(format!("heap {}", units::bytes(run.memory.heap_bytes)));
        how.extend(run.options.iter().map(|(name, value)| format!("{name} {value}")));
        let threads: Vec<String> = run
            .roles
            .iter()
            .map(|role| {
                let scheduling = match role.scheduling.as_str() {
                    "" => String::new(),
                    how => format!(", {how}"),
                };
                format!("{} × {} ({}{scheduling})", role.threads, role.role, role.does)
            })
            .collect();
        let mut said = Vec::new();
        for Member { run, .. } in members {
            for check in &run.checks {
                let ok = if check.ok { "ok" } else { "FAILED" };
                said.push(format!("{ok}: {}: {}", check.what, check.detail));
            }
            said.extend(run.notes.iter().cloned());
            if let Some(cost) = &run.measuring_cost {
                let flag = if cost.flagged { ", flagged" } else { "" };
                said.push(format!("measuring cost {:.1} % of {}{flag}", cost.percent, cost.what));
            }
            if let Some(locks) = &run.locks
                && locks.quality.lost > 0
            {
                said.push(format!("{} lock events lost", units::count(locks.quality.lost)));
            }
        }
        said.dedup();
        table.rows.push(vec![
            name.clone(),
            members.len().to_string(),
            how.join(", "),
            threads.join(", "),
            said.join(" · "),
        ]);
    }
    table
}
