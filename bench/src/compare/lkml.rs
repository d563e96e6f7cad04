//! The comparison as kernel mailing lists have it: plain text of at most 72 columns, no tabs, ready
//! to paste. Count, total and average wait of `mmap_lock` before and after, how the waits spread over
//! the decades, uninterruptible sleep and the part of it in the lock, and the wall time of
//! compaction.
//!
//! The figures of the lock are those of an average run: sums over all runs of a side divided by
//! their number, so that the decades add up to the count. What they do not say, how sure a change
//! is, stands below the tables.

use std::fmt::Write;

use super::Made;
use super::groups::Group;
use super::text::{change, shown_interval};
use crate::perf::histogram::{DECADES, LABELS};
use crate::results::Results;
use crate::schema::{BlockedThread, Environment, LockMode, LockRow, Run};
use crate::stress::page::wrap;
use crate::stress::units;

/// Columns of a line.
pub const WIDTH: usize = 72;
const NAME: usize = 30;
const CELL: usize = 16;
const CHANGE: usize = 10;

/// The whole comparison.
pub fn text(made: &Made<'_>) -> String {
    let mut out = String::new();
    for (i, group) in made.groups.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        header(&mut out, group);
        for mode in [LockMode::Write, LockMode::Read] {
            lock(&mut out, group, mode);
        }
        roles(&mut out, group);
        sleep(&mut out, group);
        evidence(&mut out, group);
    }
    notes(&mut out, made);
    out
}

fn paragraph(out: &mut String, indent: &str, text: &str) {
    for (i, line) in wrap(text, WIDTH - indent.len()).iter().enumerate() {
        let lead = if i == 0 { "" } else { indent };
        let _ = writeln!(out, "{lead}{line}");
    }
}

fn header(out: &mut String, group: &Group<'_>) {
    let _ = writeln!(out, "{}", group.name);
    for (label, runs, files) in [
        ("before:", &group.before, group.files_before),
        ("after: ", &group.after, group.files_after),
    ] {
        let backend = runs.first().map_or("", |(_, run)| run.backend.as_str());
        let machine = environment(runs).map_or_else(String::new, machine);
        let plural = if files == 1 { "run" } else { "runs" };
        paragraph(out, "        ", &format!("{label} {files} {plural}, {backend}{machine}"));
    }
    out.push('\n');
}

fn environment<'a>(runs: &[(&'a Results, &Run)]) -> Option<&'a Environment> {
    runs.first()?.0.document.environment.as_ref()
}

fn machine(e: &Environment) -> String {
    format!(
        ", Linux {}, {} CPUs ({}), {}, pages of {}, THP {}",
        e.kernel,
        e.cpus,
        e.cpu_model,
        units::bytes(e.memory_bytes),
        units::bytes(e.page_bytes as u64),
        e.transparent_huge_pages
    )
}

fn heads(out: &mut String, title: &str) {
    let _ =
        writeln!(out, "{title:<NAME$}{:>CELL$}{:>CELL$}{:>CHANGE$}", "before", "after", "change");
}

fn row(out: &mut String, name: &str, was: Option<f64>, is: Option<f64>, decimals: usize) {
    let show = |x: Option<f64>| x.map_or_else(|| "n/a".to_owned(), |x| number(x, decimals));
    let change = match (was, is) {
        (Some(was), Some(is)) if was == is => "0.0%".to_owned(),
        (Some(was), Some(is)) if was > 0.0 => {
            let percent = (is / was - 1.0) * 100.0;
            match percent {
                p if p >= 900.0 => format!("x{:.1}", is / was),
                p => format!("{p:+.1}%"),
            }
        }
        (Some(_), Some(_)) => "from 0".to_owned(),
        _ => String::new(),
    };
    let line = format!("{name:<NAME$}{:>CELL$}{:>CELL$}{change:>CHANGE$}", show(was), show(is));
    let _ = writeln!(out, "{}", line.trim_end());
}

fn number(x: f64, decimals: usize) -> String {
    let text = format!("{x:.decimals$}");
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let whole = units::count(whole.parse().unwrap_or(0));
    if part.is_empty() { whole } else { format!("{whole}.{part}") }
}

/// The sum over the lock rows of a side that `of` finds, and the number of files; `None` if a run has no
/// record of the lock.
struct Sum {
    count: f64,
    contended: Option<f64>,
    total_us: f64,
    max_us: f64,
    decades: [f64; DECADES],
}

fn sum<'a>(
    runs: &[(&'a Results, &'a Run)],
    files: usize,
    of: impl Fn(&'a Run) -> Option<&'a LockRow>,
) -> Option<Sum> {
    let mut sum = Sum {
        count: 0.0,
        contended: Some(0.0),
        total_us: 0.0,
        max_us: 0.0,
        decades: [0.0; DECADES],
    };
    let files = files.max(1) as f64;
    for (_, run) in runs {
        run.locks.as_ref()?;
        // A run in which nobody took it so has no row.
        let Some(row) = of(run) else { continue };
        sum.count += row.count as f64 / files;
        sum.contended = sum.contended.zip(row.contended).map(|(s, n)| s + n as f64 / files);
        sum.total_us += row.wait.fine.total as f64 / 1e3 / files;
        sum.max_us = sum.max_us.max(row.wait.fine.max as f64 / 1e3);
        for (s, &n) in sum.decades.iter_mut().zip(&row.wait.decades) {
            *s += n as f64 / files;
        }
    }
    Some(sum)
}

fn lock(out: &mut String, group: &Group<'_>, mode: LockMode) {
    let of = |run| Run::lock_row(run, mode);
    let before = sum(&group.before, group.files_before, of);
    let after = sum(&group.after, group.files_after, of);
    if before.is_none() && after.is_none() {
        if mode == LockMode::Write {
            paragraph(out, "", "mmap_lock was not recorded (that needs root and tracefs).");
            out.push('\n');
        }
        return;
    }
    heads(out, &format!("mmap_lock {}, a run", mode.name()));
    let mut put = |name: &str, get: &dyn Fn(&Sum) -> Option<f64>, decimals| {
        let get = |sum: &Option<Sum>| sum.as_ref().and_then(get);
        row(out, name, get(&before), get(&after), decimals);
    };
    put("  acquisitions", &|s| Some(s.count), 0);
    put("  contended", &|s| s.contended, 0);
    put("  total wait (us)", &|s| Some(s.total_us), 0);
    put("  average wait (us)", &|s| (s.count > 0.0).then(|| s.total_us / s.count), 2);
    put("  longest wait (us)", &|s| (s.count > 0.0).then_some(s.max_us), 0);
    for (i, label) in LABELS.iter().enumerate() {
        let lead = if i == 0 { "  waits of " } else { "           " };
        put(&format!("{lead}{label}"), &|s| Some(s.decades[i]), 0);
    }
    out.push('\n');
}

fn roles(out: &mut String, group: &Group<'_>) {
    let all = group.before.iter().chain(&group.after);
    let mut roles: Vec<&str> = all
        .filter_map(|(_, run)| run.locks.as_ref())
        .flat_map(|locks| locks.by_role.iter().map(|row| row.role.as_str()))
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() {
        return;
    }
    heads(out, "total wait by role (us), a run");
    for role in roles {
        for mode in [LockMode::Write, LockMode::Read] {
            let of = |run| Run::role_row(run, mode, role);
            let before = sum(&group.before, group.files_before, of);
            let after = sum(&group.after, group.files_after, of);
            let get = |s: &Option<Sum>| s.as_ref().map(|s| s.total_us);
            if [&before, &after].iter().any(|s| s.as_ref().is_some_and(|s| s.count > 0.0)) {
                let role: String = role.chars().take(NAME - 9).collect();
                row(out, &format!("  {role} {}", mode.name()), get(&before), get(&after), 0);
            }
        }
    }
    out.push('\n');
}

fn sleep(out: &mut String, group: &Group<'_>) {
    type Get = fn(&BlockedThread) -> Option<u64>;
    let side = |runs: &[(&Results, &Run)], files: usize, get: Get| -> Option<f64> {
        let mut sum = 0.0;
        for (_, run) in runs {
            if run.blocked_by_role.is_empty() {
                return None;
            }
            for row in &run.blocked_by_role {
                sum += get(row)? as f64 / 1e6;
            }
        }
        Some(sum / files.max(1) as f64)
    };
    let median = |metric: &str, before: bool| {
        let line = group.line(metric)?;
        super::stats::median(if before { &line.before } else { &line.after }).map(|ns| ns / 1e6)
    };
    heads(out, "all threads, a run");
    let kinds: [(&str, Get); 3] = [
        ("  uninterruptible sleep (ms)", |b| b.uninterruptible_ns),
        ("    of it in mmap_lock (ms)", |b| b.in_mmap_lock_ns),
        ("  run-queue delay (ms)", |b| b.run_queue_ns),
    ];
    for (name, get) in kinds {
        let was = side(&group.before, group.files_before, get);
        let is = side(&group.after, group.files_after, get);
        if was.is_some() || is.is_some() {
            row(out, name, was, is, 1);
        }
    }
    for (name, metric) in [
        ("  compaction, median (ms)", "phase.compact.p50"),
        ("  pause, median (ms)", "pause.all.p50"),
        ("  pause, longest (ms)", "pause.all.max"),
        ("  fault stall, p99 (ms)", "fault.p99"),
        ("  fault stall, longest (ms)", "fault.max"),
    ] {
        if group.line(metric).is_some() {
            row(out, name, median(metric, true), median(metric, false), 3);
        }
    }
    out.push('\n');
}

/// Whose change is tested below the tables.
const TESTED: [(&str, &str); 6] = [
    ("lock.write.wait.total", "total write wait"),
    ("lock.read.wait.total", "total read wait"),
    ("lock.write.wait.p99", "write wait, p99"),
    ("blocked.uninterruptible", "uninterruptible sleep"),
    ("phase.compact.p50", "compaction"),
    ("pause.all.max", "longest pause"),
];

fn evidence(out: &mut String, group: &Group<'_>) {
    if group.files_before.min(group.files_after) < 2 {
        paragraph(out, "", "One run on a side: whether a change is chance cannot be said.");
        return;
    }
    let title = "medians over runs";
    let _ = writeln!(
        out,
        "{title:<NAME$}{:>10}{:>15}{:>7}{:>8}",
        "change", "95% interval", "delta", "p"
    );
    for (metric, name) in TESTED {
        let Some(line) = group.line(metric) else { continue };
        let Some(c) = &line.comparison else { continue };
        let p = if c.test.p < 0.001 { "<0.001".into() } else { format!("{:.3}", c.test.p) };
        let _ = writeln!(
            out,
            "  {name:<28}{:>10}{:>15}{:>7}{p:>8}",
            change(line, c).replace(' ', ""),
            shown_interval(line, c),
            format!("{:+.2}", c.delta),
        );
    }
    let few = group.files_before.min(group.files_after) < 6;
    let range = if few { " ~ marks the range of fewer than six runs." } else { "" };
    paragraph(
        out,
        "",
        &format!(
            "Bootstrap intervals, Cliff's delta, exact two-sided Mann-Whitney test, {} and {} \
             runs.{range}",
            group.files_before, group.files_after
        ),
    );
}

fn notes(out: &mut String, made: &Made<'_>) {
    if !(made.differences.is_empty() && made.cautions.is_empty() && made.gates.is_empty()) {
        out.push('\n');
    }
    for d in &made.differences {
        paragraph(
            out,
            "  ",
            &format!("differs: {}: {} before, {} after", d.what, d.before, d.after),
        );
    }
    for caution in &made.cautions {
        paragraph(out, "  ", &format!("caution: {caution}"));
    }
    for gate in &made.gates {
        let held = if gate.holds() { "holds" } else { "FAILS" };
        paragraph(out, "  ", &format!("gate {held}: {}", gate.said()));
    }
}

impl Run {
    /// Everybody's use of the lock in a mode.
    fn lock_row(&self, mode: LockMode) -> Option<&LockRow> {
        self.locks.as_ref()?.of_mode(mode)
    }

    /// A role's.
    fn role_row<'a>(&'a self, mode: LockMode, role: &str) -> Option<&'a LockRow> {
        self.locks.as_ref()?.of_role(mode, role)
    }
}
