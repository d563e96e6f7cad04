//! The metrics of a run: one number each, with a name that gates and scripts use.
//!
//! Names are paths from the general to the particular (`lock.write.wait.p99`,
//! `lock.HeapTaskDaemon.write.wait.p99`). A part that comes from the run, as a role or a kind of
//! pause, is written as the run has it, with `_` for what is neither letter nor digit. A run
//! lacks the metrics that it did not measure; it never has them as zero.

use crate::schema::{BlockedThread, Distribution, LockMode, LockRow, Run, StallKind};
use crate::stress::units;

/// What a metric's number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Time,
    /// Nanoseconds with a sign.
    SignedTime,
    /// Bytes.
    Bytes,
    /// A number of things.
    Count,
    /// A share from 0 to 1.
    Share,
    /// Things a second.
    PerSecond,
    /// Whatever else; the number stands alone.
    Plain,
}

impl Unit {
    /// The number with its unit, for people: three significant digits.
    pub fn show(self, x: f64) -> String {
        let whole = x.abs().round() as u64;
        let minus = if x <= -0.5 { "-" } else { "" };
        match self {
            Unit::Time => format!("{minus}{}", units::time(whole)),
            Unit::SignedTime => units::signed_time(x.round() as i64),
            Unit::Bytes => format!("{minus}{}", units::bytes(rounded(whole))),
            Unit::Count => format!("{minus}{}", units::count(whole)),
            Unit::Share => units::percent(x),
            Unit::PerSecond => format!("{minus}{}/s", units::count(whole)),
            Unit::Plain if x.abs() >= 1000.0 => format!("{minus}{}", units::count(whole)),
            Unit::Plain => format!("{x:.3}"),
        }
    }

    /// The unit of the plain number, for tables of machines.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Time | Unit::SignedTime => "ns",
            Unit::Bytes => "bytes",
            Unit::Count => "count",
            Unit::Share => "share",
            Unit::PerSecond => "per second",
            Unit::Plain => "",
        }
    }

    /// The unit that a scenario's own figure names.
    fn of_figure(name: &str) -> Unit {
        match name {
            "ns" => Unit::Time,
            "bytes" => Unit::Bytes,
            "count" => Unit::Count,
            "per second" => Unit::PerSecond,
            _ => Unit::Plain,
        }
    }
}

/// Bytes to whole KiB from 1 MiB on: a median of sizes need not show single bytes.
fn rounded(bytes: u64) -> u64 {
    if bytes < 1 << 20 { bytes } else { bytes >> 10 << 10 }
}

/// Which direction is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Less.
    Less,
    /// More.
    More,
    /// Neither.
    Neither,
}

/// One metric of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// What the value counts.
    pub unit: Unit,
    /// Which direction is good.
    pub better: Better,
    /// Whether tables show it without being asked.
    pub headline: bool,
}

/// The families of metrics, for `firn compare --metrics`: pattern and meaning. A test checks that
/// every metric of a run fits one of them.
pub const FAMILIES: &[(&str, &str)] = &[
    ("throughput", "operations a second of all threads"),
    ("latency.ROLE.NAME.MODE.STAT", "latency of operations (STAT below)"),
    ("frames.HZhz.missed", "share of frames that ended after their deadline"),
    ("frames.HZhz.worst_run", "longest run of missed frames"),
    ("frames.HZhz.overrun.P", "signed distance to the deadline; P: p50 p90 p99 p999 max"),
    ("cycles", "collections in the window"),
    ("pause.KIND.STAT", "stops of all mutators; KIND: all start final_mark flip"),
    ("safepoint.KIND.STAT", "time from the request of a pause to the last mutator's stop"),
    ("phase.NAME.STAT", "wall time of a phase of the cycle (phase.compact.p50)"),
    ("fault.STAT", "stalls of mutators in missing pages"),
    ("fault.OUTCOME.STAT", "the same, by what the thread did: built helped waited"),
    ("allocation.STAT", "waits for memory"),
    ("lock.MODE.count", "acquisitions of mmap_lock; MODE: read write"),
    ("lock.MODE.contended", "of those, the ones that waited in the kernel's slow path"),
    ("lock.MODE.wait.STAT", "wait for mmap_lock"),
    ("lock.MODE.hold.STAT", "hold of mmap_lock"),
    ("lock.ROLE.MODE.…", "the same for one role of threads, as it is named in the run"),
    (
        "blocked.KIND",
        "time of all threads together; KIND: uninterruptible in_mmap_lock in_vma_lock in_userfault run_queue",
    ),
    ("blocked.ROLE.KIND", "the same for one role"),
    ("hiccup.STAT", "lateness of a thread that sleeps 1 ms at a time"),
    ("utilization.Nms", "least share left to any mutator in any window of N ms or more"),
    ("cpu.process", "processor time of the process"),
    ("cpu.collector", "processor time of the collector's threads"),
    ("memory.rss_peak", "most memory that was resident"),
    ("memory.side_tables", "the collector's tables"),
    ("figure.NAME", "the figures that a scenario is about"),
];

/// The names of statistics of a distribution.
pub const STATS: &str = "count total mean p50 p90 p99 p999 p9999 max";

/// Text as a part of a name.
pub fn part(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// All metrics of a run, in the order of a report.
pub fn of(run: &Run) -> Vec<Metric> {
    let mut list = List::default();
    for figure in &run.figures {
        let better = match figure.better {
            ..0 => Better::Less,
            0 => Better::Neither,
            1.. => Better::More,
        };
        let unit = Unit::of_figure(&figure.unit);
        list.push(
            format!("figure.{}", part(&figure.name).replace("__", "_")),
            figure.value,
            unit,
            better,
            true,
        );
    }
    if let Some(per_second) = run.throughput_ops_s {
        list.push("throughput".into(), per_second, Unit::PerSecond, Better::More, true);
    }
    for (i, latency) in run.latencies.iter().enumerate() {
        let name = format!(
            "latency.{}.{}.{}",
            part(&latency.role),
            part(&latency.name),
            part(&latency.mode)
        );
        let heads: &[&str] = if i == 0 { &["p50", "p99", "p999", "max"] } else { &[] };
        list.distribution(&name, &latency.ns, heads);
    }
    frames(run, &mut list);
    if !run.cycles.is_empty() {
        list.push("cycles".into(), run.cycles.len() as f64, Unit::Count, Better::Neither, true);
    }
    list.kinds(
        "pause",
        &run.pauses,
        |kind| if kind == "all" { &["p50", "p99", "max"] } else { &[] },
    );
    list.kinds("safepoint", &run.safepoints, |_| &[]);
    list.kinds("phase", &run.phases, |kind| if kind == "compact" { &["p50"] } else { &[] });
    if let Some(faults) = &run.faults {
        list.distribution("fault", &faults.all, &["count", "p99", "max"]);
        list.kinds("fault", &faults.by_outcome, |_| &[]);
    }
    if let Some(allocation) = &run.allocation {
        list.distribution("allocation", &allocation.ns, &["total"]);
    }
    if let Some(locks) = &run.locks {
        locks.total.iter().for_each(|row| list.lock("lock", row, true));
        for row in &locks.by_role {
            list.lock(&format!("lock.{}", part(&row.role)), row, false);
        }
    }
    blocked(run, &mut list);
    if let Some(hiccups) = &run.hiccups {
        list.distribution("hiccup", &hiccups.ns, &["p99", "max"]);
    }
    utilization(run, &mut list);
    if run.cpu.process_s > 0.0 {
        list.push("cpu.process".into(), run.cpu.process_s * 1e9, Unit::Time, Better::Less, false);
        list.push(
            "cpu.collector".into(),
            run.cpu.collector_s * 1e9,
            Unit::Time,
            Better::Less,
            true,
        );
    }
    if let Some(bytes) = run.memory.rss_peak_bytes {
        list.push("memory.rss_peak".into(), bytes as f64, Unit::Bytes, Better::Less, true);
    }
    if run.memory.side_table_bytes > 0 {
        let bytes = run.memory.side_table_bytes as f64;
        list.push("memory.side_tables".into(), bytes, Unit::Bytes, Better::Less, false);
    }
    list.metrics
}

fn frames(run: &Run, list: &mut List) {
    let Some(frames) = &run.frames else { return };
    for rate in frames.rates.iter().filter(|rate| rate.frames > 0) {
        let name = format!("frames.{}hz", rate.hz);
        let head = rate.hz == 120;
        let share = rate.missed as f64 / rate.frames as f64;
        list.push(format!("{name}.missed"), share, Unit::Share, Better::Less, head);
        list.push(
            format!("{name}.worst_run"),
            rate.worst_run as f64,
            Unit::Count,
            Better::Less,
            false,
        );
        let o = &rate.overrun_ns;
        for (stat, value, shown) in [
            ("p50", o.p50, false),
            ("p90", o.p90, false),
            ("p99", o.p99, true),
            ("p999", o.p999, false),
            ("max", o.max, true),
        ] {
            let name = format!("{name}.overrun.{stat}");
            list.push(name, value as f64, Unit::SignedTime, Better::Less, head && shown);
        }
    }
}

fn blocked(run: &Run, list: &mut List) {
    type Get = fn(&BlockedThread) -> Option<u64>;
    let kinds: [(&str, Get, bool); 5] = [
        ("uninterruptible", |b| b.uninterruptible_ns, true),
        ("in_mmap_lock", |b| b.in_mmap_lock_ns, true),
        ("in_vma_lock", |b| b.in_vma_lock_ns, false),
        ("in_userfault", |b| b.in_userfault_ns, false),
        ("run_queue", |b| b.run_queue_ns, false),
    ];
    for (kind, get, head) in kinds {
        // A sum that lacks a part is no sum.
        let all: Option<Vec<u64>> = run.blocked_by_role.iter().map(get).collect();
        if let Some(all) = all.filter(|all| !all.is_empty()) {
            let sum: u64 = all.iter().sum();
            list.push(format!("blocked.{kind}"), sum as f64, Unit::Time, Better::Less, head);
        }
    }
    for row in &run.blocked_by_role {
        for (kind, get, _) in kinds {
            if let Some(ns) = get(row) {
                let name = format!("blocked.{}.{kind}", part(&row.role));
                list.push(name, ns as f64, Unit::Time, Better::Less, false);
            }
        }
    }
}

fn utilization(run: &Run, list: &mut List) {
    let mut windows: Vec<u64> =
        run.utilization.iter().flat_map(|u| u.windows.iter().map(|w| w.window_ms)).collect();
    windows.sort_unstable();
    windows.dedup();
    for ms in windows {
        let least = run
            .utilization
            .iter()
            .filter_map(|u| u.windows.iter().find(|w| w.window_ms == ms)?.utilization)
            .min_by(f64::total_cmp);
        if let Some(least) = least {
            let name = format!("utilization.{ms}ms");
            list.push(name, least, Unit::Share, Better::More, matches!(ms, 10 | 100));
        }
    }
}

#[derive(Default)]
struct List {
    metrics: Vec<Metric>,
}

impl List {
    fn push(&mut self, name: String, value: f64, unit: Unit, better: Better, headline: bool) {
        if value.is_finite() {
            self.metrics.push(Metric { name, value, unit, better, headline });
        }
    }

    /// A distribution's statistics. How often something happened is there even if it never did;
    /// how long it took is not.
    fn distribution(&mut self, name: &str, d: &Distribution, heads: &[&str]) {
        let head = |stat: &str| heads.contains(&stat);
        let count = d.count as f64;
        self.push(format!("{name}.count"), count, Unit::Count, Better::Neither, head("count"));
        self.push(format!("{name}.total"), d.total as f64, Unit::Time, Better::Less, head("total"));
        if d.is_empty() {
            return;
        }
        for (stat, ns) in [
            ("mean", d.mean),
            ("p50", d.p50),
            ("p90", d.p90),
            ("p99", d.p99),
            ("p999", d.p999),
            ("p9999", d.p9999),
            ("max", d.max),
        ] {
            self.push(format!("{name}.{stat}"), ns as f64, Unit::Time, Better::Less, head(stat));
        }
    }

    fn kinds(
        &mut self,
        family: &str,
        kinds: &[StallKind],
        heads: impl Fn(&str) -> &'static [&'static str],
    ) {
        for kind in kinds {
            self.distribution(
                &format!("{family}.{}", part(&kind.kind)),
                &kind.ns,
                heads(&kind.kind),
            );
        }
    }

    fn lock(&mut self, prefix: &str, row: &LockRow, head: bool) {
        let mode = match row.mode {
            LockMode::Read => "read",
            LockMode::Write => "write",
        };
        let name = format!("{prefix}.{mode}");
        self.push(format!("{name}.count"), row.count as f64, Unit::Count, Better::Less, head);
        if let Some(contended) = row.contended {
            self.push(
                format!("{name}.contended"),
                contended as f64,
                Unit::Count,
                Better::Less,
                false,
            );
        }
        let heads: &[&str] = if head { &["total", "mean", "p99", "max"] } else { &[] };
        // The number of waits is the number of acquisitions.
        for (what, times, heads) in [("wait", &row.wait, heads), ("hold", &row.hold, &[])] {
            let from = self.metrics.len();
            self.distribution(&format!("{name}.{what}"), &times.fine, heads);
            let counted = format!("{name}.{what}.count");
            if self.metrics.get(from).is_some_and(|m| m.name == counted) {
                self.metrics.remove(from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn names_are_unique_and_every_one_fits_a_listed_family() {
        let metrics = of(&samples::run("art", 1));
        let mut names: Vec<&str> = metrics.iter().map(|m| m.name.as_str()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(all > 100, "{all}");
        let variable =
            |part: &str| part.chars().next().is_some_and(|c| c.is_ascii_uppercase() || c == '…');
        for name in names {
            let parts: Vec<&str> = name.split('.').collect();
            let fits = FAMILIES.iter().any(|(pattern, _)| {
                let pattern: Vec<&str> = pattern.split('.').collect();
                let open = pattern.last() == Some(&"…");
                (pattern.len() == parts.len() || open && parts.len() >= pattern.len())
                    && pattern.iter().zip(&parts).all(|(p, q)| {
                        variable(p) && (!p.ends_with("hz") || q.ends_with("hz")) || p == q
                    })
            });
            assert!(fits, "{name} is in no family");
        }
    }

    #[test]
    fn the_values_are_the_runs() {
        let run = samples::run("art", 2);
        let metrics = of(&run);
        let get = |name: &str| {
            metrics.iter().find(|m| m.name == name).unwrap_or_else(|| panic!("{name}")).value
        };
        let locks = run.locks.as_ref().unwrap();
        let write = locks.of_mode(LockMode::Write).unwrap();
        assert_eq!(get("lock.write.wait.p99"), write.wait.fine.p99 as f64);
        let daemon = locks.of_role(LockMode::Write, "HeapTaskDaemon").unwrap();
        assert_eq!(get("lock.HeapTaskDaemon.write.wait.max"), daemon.wait.fine.max as f64);
        assert_eq!(get("utilization.10ms"), 0.7);
        assert_eq!(get("cpu.collector"), 1.5e9);
        assert_eq!(get("figure.pause_wait_p50"), 8_000_000.0);
        assert!(get("frames.120hz.overrun.p50") < 0.0);
        assert!(!metrics.iter().any(|m| m.name == "utilization.10000ms"), "was null");
    }

    #[test]
    fn what_was_not_measured_has_no_metric_and_what_never_happened_no_duration() {
        let mut run = samples::run("pingpong", 1);
        run.locks.as_mut().unwrap().by_role.retain(|row| row.role == "HeapTaskDaemon");
        let names: Vec<String> = of(&run).into_iter().map(|m| m.name).collect();
        assert!(names.iter().any(|n| n == "lock.HeapTaskDaemon.write.count"));
        assert!(!names.iter().any(|n| n == "lock.HeapTaskDaemon.write.wait.p99"));
        run.locks = None;
        run.blocked_by_role[0].in_mmap_lock_ns = None;
        let names: Vec<String> = of(&run).into_iter().map(|m| m.name).collect();
        assert!(!names.iter().any(|n| n.starts_with("lock.") || n.contains("in_mmap_lock")));
    }

    #[test]
    fn numbers_are_shown_with_their_units() {
        assert_eq!(Unit::Time.show(1_234_000.0), "1.23 ms");
        assert_eq!(Unit::SignedTime.show(-4_200_000.0), "-4.20 ms");
        assert_eq!(Unit::Share.show(0.125), "12.5 %");
        assert_eq!(Unit::PerSecond.show(547_141.2), "547,141/s");
        assert_eq!(Unit::Bytes.show(536_870_912.0), "512 MiB");
        assert_eq!(Unit::Plain.show(1.5), "1.500");
    }
}
