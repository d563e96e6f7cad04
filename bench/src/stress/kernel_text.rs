//! What the kernel's events say of a run, as a person reads it: the lock by mode and role, where threads were
//! blocked, the worst frames and stalls with their causes, and what measuring cost.

use super::page::{LABEL, Page, WIDTH};
use super::units::{count, signed_time, time};
use crate::perf::histogram::LABELS;
use crate::schema::{BlockedThread, LockMode, LockRow, Run, Source, Worst};

/// Columns of a role's name.
const ROLE: usize = 17;
/// Rows of a table at most; the JSON has them all.
const ROWS: usize = 8;

/// All of it; nothing for what was not measured.
pub fn kernel(page: &mut Page, run: &Run) {
    locks(page, run);
    blocked(page, run);
    for (what, list) in [("worst frames", &run.worst_frames), ("worst stalls", &run.worst_stalls)] {
        worst(page, what, list);
    }
    hiccups(page, run);
    cost(page, run);
}

fn locks(page: &mut Page, run: &Run) {
    let Some(locks) = &run.locks else { return };
    page.blank();
    let heads = ["count", "contended", "total", "mean", "p99", "max"];
    page.head("mmap_lock wait", ROLE + 2, 10, &heads);
    for mode in [LockMode::Write, LockMode::Read] {
        for row in locks.total.iter().filter(|r| r.mode == mode && r.count > 0) {
            lock_row(page, &format!("for {}ing", mode.name().trim_end_matches('e')), row);
        }
        let mut roles: Vec<_> =
            locks.by_role.iter().filter(|r| r.mode == mode && r.count > 0).collect();
        roles.sort_by_key(|r| std::cmp::Reverse(r.wait.fine.total));
        for row in roles.into_iter().take(ROWS) {
            lock_row(page, &format!("  {}", row.role), row);
        }
    }
    if locks.total.iter().all(|r| r.count == 0) {
        page.line("  nobody took it in the window");
        return;
    }
    decades(page, &locks.total);
    let mut by_total: Vec<&LockRow> = locks.by_operation.iter().filter(|r| r.count > 0).collect();
    by_total.sort_by_key(|r| std::cmp::Reverse(r.wait.fine.total));
    page.head("  by operation", OPERATION, 9, &["count", "total", "max", "held", "held max"]);
    for row in by_total.into_iter().take(ROWS) {
        let cells = [
            count(row.count),
            time(row.wait.fine.total),
            time(row.wait.fine.max),
            time(row.hold.fine.total),
            time(row.hold.fine.max),
        ];
        let mark = if row.mode == LockMode::Write { "W" } else { "R" };
        let name = format!("  {mark} {} {}", row.role, row.operation);
        // A name that needs more has a line of its own.
        let fits = name.chars().count() < OPERATION;
        if !fits {
            page.line(&cut(&name, WIDTH));
        }
        page.row(if fits { &name } else { "" }, OPERATION, 9, &cells);
    }
    let q = &locks.quality;
    let mut text = format!("{} records, {} lost", count(q.records), count(q.lost));
    if q.late > 0 || q.damaged_bytes > 0 {
        text += &format!(", {} late, {} bytes damaged", count(q.late), count(q.damaged_bytes));
    }
    if q.lost > 0 || q.damaged_bytes > 0 {
        text += ": counts are too low by as much";
    }
    page.entry("", &text);
}

/// Columns of an operation's name.
const OPERATION: usize = 35;

/// How many waits there were in each decade, by mode.
fn decades(page: &mut Page, total: &[LockRow]) {
    page.head("  waits below", ROLE - 1, 8, &ENDS);
    for mode in [LockMode::Write, LockMode::Read] {
        for row in total.iter().filter(|r| r.mode == mode && r.count > 0) {
            let cells: Vec<_> = row
                .wait
                .decades
                .iter()
                .map(|n| match *n {
                    0 => "-".to_owned(),
                    n if n < 1_000_000 => count(n),
                    n => format!("{:.2}M", n as f64 / 1e6),
                })
                .collect();
            let label = format!("  for {}ing", mode.name().trim_end_matches('e'));
            page.row(&label, ROLE - 1, 8, &cells);
        }
    }
}

/// Where each decade ends; where it begins is the end of the one before.
const ENDS: [&str; LABELS.len()] =
    ["1 us", "10 us", "100 us", "1 ms", "10 ms", "100 ms", "1 s", "(more)"];

fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

fn lock_row(page: &mut Page, label: &str, row: &LockRow) {
    let w = &row.wait.fine;
    let cells = [
        count(row.count),
        row.contended.map_or("-".to_owned(), count),
        time(w.total),
        time(w.mean),
        time(w.p99),
        time(w.max),
    ];
    page.row(&cut(label, ROLE + 1), ROLE + 2, 10, &cells);
}

fn blocked(page: &mut Page, run: &Run) {
    let rows = &run.blocked_by_role;
    if rows.is_empty() {
        return;
    }
    page.blank();
    let heads = ["D sleep", "mmap_lock", "VMA lock", "userfault", "run queue", "longest"];
    page.head("blocked", ROLE + 2, 10, &heads);
    let weight =
        |b: &BlockedThread| b.uninterruptible_ns.unwrap_or(0) + b.run_queue_ns.unwrap_or(0);
    let mut sorted: Vec<_> = rows.iter().collect();
    sorted.sort_by_key(|b| std::cmp::Reverse(weight(b)));
    for b in sorted.into_iter().take(ROWS) {
        let cell = |v: Option<u64>| v.map_or("-".to_owned(), time);
        let cells = [
            cell(b.uninterruptible_ns),
            cell(b.in_mmap_lock_ns),
            cell(b.in_vma_lock_ns),
            cell(b.in_userfault_ns),
            cell(b.run_queue_ns),
            cell(b.run_queue_max_ns),
        ];
        page.row(&cut(&format!("  {}", b.role), ROLE + 1), ROLE + 2, 10, &cells);
    }
    let source = match rows[0].source {
        Source::Tracepoints | Source::Probes => {
            "the kernel's switch events with call chains, all threads of a role together"
        }
        Source::Schedstats => "the scheduler's statistics: what the sleep was for is not known",
        Source::Proc | Source::Program => {
            "/proc/PID/task/TID/schedstat: sleep cannot be told apart (run as root for the rest)"
        }
    };
    page.entry("", &format!("source: {source}"));
    if let Some(missed) = run.locks.as_ref().map(|l| l.quality.missed_switches).filter(|n| *n > 0) {
        let text = format!(
            "{} times a thread came back to a processor unreported (an idle processor emits no events here): sleep \
             outside mmap_lock is too low",
            count(missed)
        );
        page.entry("", &text);
    }
}

fn worst(page: &mut Page, what: &str, list: &[Worst]) {
    if list.is_empty() {
        return;
    }
    page.blank();
    page.line(what);
    for w in list {
        let length = match w.overrun_ns {
            Some(overrun) => format!("{} ({} over)", time(w.ns), signed_time(overrun)),
            None => time(w.ns),
        };
        let mut parts: Vec<String> = Vec::new();
        for c in w.causes.iter().filter(|c| c.ns * 20 >= w.ns).take(3) {
            let mut part = format!("{} {}", c.cause, time(c.ns));
            if !c.operation.is_empty() {
                part = format!("{} ({}) {}", c.cause, c.operation, time(c.ns));
            }
            if let Some(h) = c.holders.first() {
                part += &format!(
                    ", held by {} ({}) for {} of it, {} times",
                    h.name,
                    h.operation,
                    time(h.held_ns),
                    count(h.times)
                );
            }
            parts.push(part);
        }
        page.entry(
            &format!("  {:>2}. ", w.rank),
            &format!("{length}, {}, {}: {}", w.what, w.thread, parts.join("; ")),
        );
    }
}

fn hiccups(page: &mut Page, run: &Run) {
    let Some(h) = &run.hiccups else { return };
    if h.ns.is_empty() {
        return;
    }
    page.blank();
    page.head("hiccups", LABEL, 11, &["p50", "p90", "p99", "p99.9", "p99.99", "max"]);
    let cells = [h.ns.p50, h.ns.p90, h.ns.p99, h.ns.p999, h.ns.p9999, h.ns.max].map(time);
    page.row("  1 kHz probe", LABEL, 11, &cells);
}

fn cost(page: &mut Page, run: &Run) {
    let Some(c) = &run.measuring_cost else { return };
    let flag = if c.flagged { ", MORE THAN 5 %: take the figures with care" } else { "" };
    page.blank();
    let interval = c
        .percent_interval
        .map_or(String::new(), |(low, high)| format!(", {low:.1} to {high:.1} %"));
    page.entry(
        "measuring",
        &format!(
            "cost {:.1} %{interval} of {}{flag} ({}{} records a second)",
            c.percent,
            c.what,
            if c.how.is_empty() { String::new() } else { format!("{}; ", c.how) },
            count(c.events_per_s as u64)
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn the_lock_has_decades_holds_whole_names_and_what_was_lost() {
        let mut run = samples::document(&["art"], 1).runs.remove(0);
        let locks = run.locks.as_mut().unwrap();
        let mut row = locks.by_role[0].clone();
        row.wait.decades = [1_234_567, 0, 3, 0, 0, 0, 0, 9];
        locks.total = vec![row.clone()];
        locks.by_operation = vec![row];
        locks.by_operation[0].role = "HeapTaskDaemon".into();
        locks.by_operation[0].operation = "finish: UFFDIO_UNREGISTER".into();
        let mut page = Page::default();
        kernel(&mut page, &run);
        let text = page.finish();
        for part in [
            "  waits below       1 us   10 us  100 us    1 ms   10 ms  100 ms     1 s  (more)",
            "1.23M       -       3       -       -       -       -       9",
            " HeapTaskDaemon finish: UFFDIO_UNREGISTER\n",
            "held max",
            " lost",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
    }
}
