//! Metrics that are comparable between kernels of unequal speed: counts for each page, and shares of time.
//!
//! A window of so many seconds holds fewer pages on a slow machine, so a number of locks says little beside
//! another machine's. Locks for each page that was compacted, and the share of time that threads were blocked
//! in the lock, say the same under TCG and on hardware.

use crate::compare::metrics::{Better, Metric, Unit, part};
use crate::measure::gather::INSTALLING;
use crate::schema::{Cycle, CycleLocks, LockMode, Run};

/// Roles of the collector's own threads.
const COLLECTOR: [&str; 3] = ["HeapTaskDaemon", "GcWorker", "FaultThread"];
/// What a faulting mutator did when it installed the page itself.
const INSTALLED: [&str; 2] = ["built", "helped"];

/// The derived metrics of a run.
///
/// | metric | what it divides |
/// |---|---|
/// | `per_page.compact.read_locks` | locks for reading that the collector's threads took while they compacted, by the pages that they published; whole collections only |
/// | `per_page.compact.install_read_locks` | of these, the ones of `UFFDIO_COPY` and `UFFDIO_MOVE`: one for each call, which may be of up to 64 pages |
/// | `per_fault.install_read_locks` | locks for reading in these calls of mutators, by the faults whose page the mutator installed: one call a page |
/// | `share.ROLE.blocked_in_mmap_lock` | uninterruptible sleep in the lock, by the time of all threads of the role |
pub fn of(run: &Run) -> Vec<Metric> {
    let mut found = Vec::new();
    let mut push = |name: String, value: f64, unit: Unit| {
        if value.is_finite() {
            found.push(Metric { name, value, unit, better: Better::Less, headline: true });
        }
    };
    let counted: Vec<_> = run.cycles.iter().filter_map(|c| Some((c, c.locks?))).collect();
    let pages: u64 = counted.iter().map(|(c, _)| by_collector(c)).sum();
    for (name, of) in [
        ("read", (|l| l.compact_read) as fn(&CycleLocks) -> u64),
        ("install_read", |l| l.install_read),
    ] {
        let locks: u64 = counted.iter().map(|(_, locks)| of(locks)).sum();
        let value = locks as f64 / pages as f64;
        push(format!("per_page.compact.{name}_locks"), value, Unit::Plain);
    }
    if let (Some(locks), Some(faults)) = (&run.locks, &run.faults) {
        let installs = locks.by_operation.iter().filter(|row| {
            row.mode == LockMode::Read
                && INSTALLING.contains(&row.operation.as_str())
                && !COLLECTOR.contains(&row.role.as_str())
        });
        let outcomes = faults.by_outcome.iter();
        let installed = outcomes.filter(|o| INSTALLED.contains(&o.kind.as_str()));
        let installed: u64 = installed.map(|o| o.ns.count).sum();
        let value = installs.map(|row| row.count).sum::<u64>() as f64 / installed as f64;
        push("per_fault.install_read_locks".to_owned(), value, Unit::Plain);
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
fn by_collector(c: &Cycle) -> u64 {
    (c.pages_copied + c.pages_moved).saturating_sub(c.pages_by_mutators)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn only_whole_collections_count_by_page_and_a_fault_has_its_own_lock() {
        let mut run = samples::document(&["art"], 1).runs.remove(0);
        let locks = CycleLocks { write: 3, read: 60, compact_read: 40, install_read: 20 };
        let mut half = run.cycles[0].clone();
        half.locks = None;
        let whole = Cycle {
            locks: Some(locks),
            pages_copied: 90,
            pages_moved: 20,
            pages_by_mutators: 10,
            ..half.clone()
        };
        run.cycles = vec![half, whole];
        let built = run.faults.as_ref().unwrap().by_outcome[0].ns.count;
        let section = run.locks.as_mut().unwrap();
        let mut row = section.by_role[0].clone();
        (row.mode, row.role) = (LockMode::Read, "Mutator".into());
        (row.operation, row.count) = ("UFFDIO_COPY".into(), built);
        section.by_operation = vec![row];
        let found = of(&run);
        let value = |name: &str| found.iter().find(|m| m.name == name).map(|m| m.value);
        assert_eq!(value("per_page.compact.read_locks"), Some(0.4));
        assert_eq!(value("per_page.compact.install_read_locks"), Some(0.2));
        assert_eq!(value("per_fault.install_read_locks"), Some(1.0));
        run.cycles.pop();
        let none = of(&run);
        assert!(
            none.iter().all(|m| !m.name.starts_with("per_page")),
            "no whole collection, no figure"
        );
    }
}
