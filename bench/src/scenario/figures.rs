//! Figures that several scenarios have. Their names are an interface: gates and comparisons use them.

use super::rig::Done;
use crate::schema::{Distribution, Figure, LockMode, Run};

/// Adds a figure; `better` is -1 where less is better, 1 where more is, 0 for neither.
pub fn add(run: &mut Run, name: &str, value: f64, unit: &str, what: &str, better: i8) {
    run.figures.push(Figure {
        name: name.to_owned(),
        value,
        unit: unit.to_owned(),
        what: what.to_owned(),
        better,
    });
}

/// A figure's value.
pub fn get(run: &Run, name: &str) -> Option<f64> {
    run.figures.iter().find(|f| f.name == name).map(|f| f.value)
}

/// `NAME.p50`, `.p99`, `.max` of durations.
pub fn durations(run: &mut Run, name: &str, what: &str, ns: &Distribution) {
    if ns.is_empty() {
        return;
    }
    for (suffix, value) in [("p50", ns.p50), ("p99", ns.p99), ("max", ns.max)] {
        add(run, &format!("{name}.{suffix}"), value as f64, "ns", &format!("{what}, {suffix}"), -1);
    }
}

/// The same of an operation that the run logged.
pub fn operation(run: &mut Run, name: &str, what: &str, role: &str, operation: &str) {
    if let Some(ns) = super::rig::latency(run, role, operation).cloned() {
        durations(run, name, what, &ns);
    }
}

/// What every scenario with a heap has.
pub fn common(done: &mut Done) {
    let run = &mut done.run;
    let whole =
        run.cycles.iter().filter(|c| c.begin >= run.window.0 && c.end <= run.window.1).count();
    add(run, "cycles", whole as f64, "count", "collections that began and ended in the window", 0);
    let walls = Distribution::of(run.cycles.iter().map(|c| c.end - c.begin));
    durations(run, "cycle_ns", "wall time of a collection", &walls);
    let phase = |run: &Run, name: &str| {
        run.phases.iter().find(|p| p.kind == name).map(|p| p.ns.clone()).unwrap_or_default()
    };
    let compact = phase(run, "compact");
    durations(run, "compact_ns", "wall time of compaction", &compact);
    let flip = run.pauses.iter().find(|p| p.kind == "flip").map(|p| p.ns.clone());
    durations(run, "flip_ns", "the pause in which addresses change", &flip.unwrap_or_default());
    if let Some(waits) = &done.flip_waits {
        let waits = Distribution::of(waits.iter().copied());
        durations(run, "flip_lock_wait_ns", "of a flip, waiting for mmap_lock", &waits);
    }
    let counted: Vec<_> = run.cycles.iter().filter_map(|c| c.locks).collect();
    if !counted.is_empty() {
        let each = counted.iter().map(|l| l.write).sum::<u64>() as f64 / counted.len() as f64;
        let what = "mmap_lock taken for writing by collection, for each cycle";
        add(run, "write_locks_per_cycle", each, "count", what, -1);
    }
    let asleep = |f: &dyn Fn(&crate::schema::BlockedThread) -> Option<u64>, run: &Run| {
        let ours = run.blocked.iter().filter(|b| !b.role.starts_with("firn"));
        ours.map(f).sum::<Option<u64>>().filter(|_| !run.blocked.is_empty())
    };
    if let Some(d) = asleep(&|b| b.uninterruptible_ns, run) {
        let what = "uninterruptible sleep of all threads together";
        add(run, "uninterruptible_ns", d as f64, "ns", what, -1);
        if let Some(lock) = asleep(&|b| b.in_mmap_lock_ns, run) {
            add(run, "in_mmap_lock_ns", lock as f64, "ns", "of that, in mmap_lock", -1);
        }
        if let Some(vma) = asleep(&|b| b.in_vma_lock_ns, run) {
            add(run, "in_vma_lock_ns", vma as f64, "ns", "of that, waiting for users of a VMA", -1);
        }
    }
    for mode in [LockMode::Write, LockMode::Read] {
        let Some(row) = run.locks.as_ref().and_then(|l| l.of_mode(mode)).cloned() else { continue };
        let name = mode.name();
        let what = format!("mmap_lock taken for {name} by anybody");
        add(run, &format!("lock.{name}.count"), row.count as f64, "count", &what, -1);
        let what = format!("waiting for mmap_lock ({name}), everybody");
        add(
            run,
            &format!("lock.{name}.wait_total_ns"),
            row.wait.fine.total as f64,
            "ns",
            &what,
            -1,
        );
    }
}

/// The longest wait of a role for the lock, in either mode, and in all.
pub fn lock_waits(run: &mut Run, name: &str, what: &str, role: &str) {
    let Some(locks) = &run.locks else { return };
    let rows: Vec<_> = locks.by_role.iter().filter(|r| r.role == role).collect();
    let worst = rows.iter().map(|r| r.wait.fine.max).max().unwrap_or(0);
    let total: u64 = rows.iter().map(|r| r.wait.fine.total).sum();
    let of = |mode| rows.iter().find(|r| r.mode == mode).map_or(0, |r| r.wait.fine.max);
    let (read, write) = (of(LockMode::Read), of(LockMode::Write));
    for (suffix, value, kind) in [
        ("worst_ns", worst, "the longest"),
        ("worst_read_ns", read, "the longest for reading"),
        ("worst_write_ns", write, "the longest for writing"),
        ("total_ns", total, "in all"),
    ] {
        add(run, &format!("{name}.{suffix}"), value as f64, "ns", &format!("{what}, {kind}"), -1);
    }
}
