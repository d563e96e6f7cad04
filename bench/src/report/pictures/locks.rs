//! Waits for `mmap_lock` by role and decade.

use serde_json::json;

use super::Picture;
use crate::perf::histogram::{DECADES, LABELS};
use crate::report::model::Section;
use crate::report::tables::Table;
use crate::schema::{Distribution, LockMode};
use crate::stress::units;

pub(super) fn decades(section: &Section<'_>) -> Option<Picture> {
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
