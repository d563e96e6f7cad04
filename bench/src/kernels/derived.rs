//! Metrics that are comparable between kernels of unequal speed: counts for each page, and shares of time.
//!
//! A window of so many seconds holds fewer pages on a slow machine, so a number of locks says little beside
//! another machine's. Locks for each page that was compacted, and the share of time that threads were blocked
//! in the lock, say the same under TCG and on hardware.

use crate::compare::metrics::{Better, Metric, Unit, part};
use crate::schema::{LockMode, Run};

/// Roles of the collector's own threads.
const COLLECTOR: [&str; 2] = ["HeapTaskDaemon", "GcWorker"];
/// What operations begin with in the phase in which pages are built and published.
const COMPACT: &str = "compact";

/// The derived metrics of a run.
pub fn of(run: &Run) -> Vec<Metric> {
    let mut found = Vec::new();
    let mut push = |name: String, value: f64, unit: Unit| {
        if value.is_finite() {
            found.push(Metric { name, value, unit, better: Better::Less, headline: true });
        }
    };
    let pages = collector_pages(run) as f64;
    if let (Some(locks), true) = (&run.locks, pages > 0.0) {
        for (mode, name) in [(LockMode::Read, "read"), (LockMode::Write, "write")] {
            let rows = locks
                .by_operation
                .iter()
                .filter(|row| row.mode == mode && row.operation.starts_with(COMPACT));
            let ours = rows.filter(|row| COLLECTOR.contains(&row.role.as_str()));
            let count: u64 = ours.map(|row| row.count).sum();
            push(format!("per_page.compact.{name}_locks"), count as f64 / pages, Unit::Plain);
        }
    }
    let window = (run.window.1.saturating_sub(run.window.0)) as f64;
    let mut all = (0.0, 0.0);
    for row in &run.blocked_by_role {
        let threads = run.roles.iter().find(|r| r.role == row.role).map_or(1, |r| r.threads.max(1));
        let time = window * threads as f64;
        let Some(blocked) = row.in_mmap_lock_ns else { continue };
        all = (all.0 + blocked as f64, all.1 + time);
        push(
            format!("share.{}.blocked_in_mmap_lock", part(&row.role)),
            blocked as f64 / time,
            Unit::Share,
        );
    }
    push("share.all.blocked_in_mmap_lock".to_owned(), all.0 / all.1, Unit::Share);
    found
}

/// Pages that the collector published itself.
fn collector_pages(run: &Run) -> u64 {
    let of = |c: &crate::schema::Cycle| {
        (c.pages_copied + c.pages_moved).saturating_sub(c.pages_by_mutators)
    };
    run.cycles.iter().map(of).sum()
}
