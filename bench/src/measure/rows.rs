//! From a recording to the rows of a file: `mmap_lock` by mode, role and operation, and blocked time by
//! thread and role.
//!
//! What the collector's own threads took the lock for is told by the phase of the cycle and the system
//! call (`flip: mremap`); everybody else's by the system call, or `page fault`.

use std::collections::BTreeMap;

use crate::perf::Recording;
use crate::perf::analysis::{Blocked, Kept, Usage, is_collector};
use crate::perf::sampler::role;
use crate::schema::{
    BlockedThread, Distribution, LockHolder, LockMode, LockRow, LockSpan, Locks, Source, Times,
};

/// Phases of cycles: when, and which; in order of time.
#[derive(Debug, Default)]
pub struct Phases(Vec<((u64, u64), String)>);

impl Phases {
    /// From phases in any order.
    pub fn new(mut phases: Vec<((u64, u64), String)>) -> Phases {
        phases.sort();
        Phases(phases)
    }

    /// The phase at a time: the innermost, if several overlap.
    pub fn at(&self, time: u64) -> Option<&str> {
        let before = self.0.partition_point(|p| p.0.0 <= time);
        let near = self.0[..before].iter().rev().take(8);
        near.filter(|p| time <= p.0.1).min_by_key(|p| p.0.1 - p.0.0).map(|p| p.1.as_str())
    }
}

fn mode(write: bool) -> LockMode {
    if write { LockMode::Write } else { LockMode::Read }
}

/// What a thread took the lock for.
pub fn operation(name: &str, call: &str, time: u64, phases: &Phases) -> String {
    match phases.at(time) {
        Some(phase) if is_collector(name) => format!("{phase}: {call}"),
        _ => call.to_owned(),
    }
}

fn times(d: &crate::perf::analysis::Durations) -> Times {
    let fine = d.fine.as_ref().map_or_else(Distribution::default, |fine| {
        Distribution::from_parts(fine.buckets(), d.decades.total, d.decades.max)
    });
    Times { decades: d.decades.buckets, fine }
}

type Key = (LockMode, String, String);

fn row((mode, role, operation): Key, usage: &Usage, contended: bool) -> LockRow {
    LockRow {
        mode,
        role,
        operation,
        count: usage.wait.decades.count,
        contended: contended.then_some(usage.contended),
        wait: times(&usage.wait),
        hold: times(&usage.hold),
        downgraded: usage.downgraded,
        failed: 0,
    }
}

/// The whole section.
pub fn locks(recording: &Recording, phases: &Phases) -> Locks {
    let analysis = &recording.analysis;
    let known = recording.contention_known;
    let mut fine: BTreeMap<Key, Usage> = BTreeMap::new();
    let mut failed: BTreeMap<String, u64> = BTreeMap::new();
    for (tid, thread) in &analysis.threads {
        let who = role(&thread.name).to_owned();
        *failed.entry(who.clone()).or_default() += recording.failed.get(tid).unwrap_or(&0);
        // Their acquisitions are all kept, and know their phase.
        let by_phase = thread.ours && is_collector(&thread.name) && analysis.dropped_always == 0;
        if !by_phase {
            for ((write, call), usage) in &thread.usage {
                let key = (mode(*write), who.clone(), (*call).to_owned());
                fine.entry(key).or_default().merge(usage);
            }
        }
    }
    for kept in &analysis.kept {
        let Some(thread) = analysis.threads.get(&kept.span.tid) else { continue };
        if thread.ours && is_collector(&thread.name) && analysis.dropped_always == 0 {
            let what = operation(&thread.name, kept.operation, kept.span.start, phases);
            let key = (mode(kept.span.write), role(&thread.name).to_owned(), what);
            fine.entry(key).or_default().add(&kept.span);
        }
    }
    let mut by_role: BTreeMap<Key, Usage> = BTreeMap::new();
    let mut total: BTreeMap<Key, Usage> = BTreeMap::new();
    for mode in [LockMode::Read, LockMode::Write] {
        total.insert((mode, String::new(), String::new()), Usage::default());
    }
    for ((mode, role, _), usage) in &fine {
        by_role.entry((*mode, role.clone(), String::new())).or_default().merge(usage);
        total.entry((*mode, String::new(), String::new())).or_default().merge(usage);
    }
    let rows = |map: BTreeMap<Key, Usage>| {
        map.into_iter().map(|(k, u)| row(k, &u, known)).collect::<Vec<_>>()
    };
    let mut by_role = rows(by_role);
    // A failed attempt does not say its mode here; nearly all are for reading.
    for row in &mut by_role {
        if row.mode == LockMode::Read {
            row.failed = failed.get(&row.role).copied().unwrap_or(0);
        }
    }
    let mut total = rows(total);
    total[0].failed = failed.values().sum();
    Locks {
        source: recording.locks_from,
        quality: recording.quality,
        total,
        by_role,
        by_operation: rows(fine),
    }
}

/// Who had the lock during a kept wait.
pub fn holders(recording: &Recording, kept: &Kept, phases: &Phases) -> Vec<LockHolder> {
    let analysis = &recording.analysis;
    let (first, number) = kept.holders;
    let found = analysis.holders.iter().skip(first as usize).take(number as usize);
    found
        .map(|h| {
            let name = analysis.threads.get(&h.tid).map_or("", |t| t.name.as_str());
            LockHolder {
                tid: h.tid,
                name: name.to_owned(),
                role: role(name).to_owned(),
                mode: mode(h.write),
                operation: operation(name, h.operation, kept.span.start, phases),
                held_ns: h.held,
                times: h.times,
                off_cpu_ns: recording.switches_known.then_some(h.off),
            }
        })
        .collect()
}

/// A kept acquisition as a span, its times counted from `origin`.
pub fn span(recording: &Recording, kept: &Kept, phases: &Phases, origin: u64) -> LockSpan {
    let name = recording.analysis.threads.get(&kept.span.tid).map_or("", |t| t.name.as_str());
    let at = |t: u64| t.saturating_sub(origin);
    LockSpan {
        tid: kept.span.tid,
        mode: mode(kept.span.write),
        operation: operation(name, kept.operation, kept.span.start, phases),
        start: at(kept.span.start),
        acquired: at(kept.span.acquired),
        released: at(kept.span.released),
    }
}

/// Blocked time of each thread of this process.
pub fn blocked(recording: &Recording) -> Vec<BlockedThread> {
    if !recording.switches_known {
        return Vec::new();
    }
    let known = recording.analysis.places_known;
    let mut rows: Vec<_> = recording
        .analysis
        .threads
        .iter()
        .filter(|(_, t)| t.ours && t.blocked != Blocked::default())
        .map(|(&tid, t)| {
            let b = &t.blocked;
            BlockedThread {
                tid,
                name: t.name.clone(),
                role: role(&t.name).to_owned(),
                source: Source::Tracepoints,
                uninterruptible_ns: Some(b.uninterruptible),
                uninterruptible_count: Some(b.uninterruptible_count),
                uninterruptible_max_ns: Some(b.uninterruptible_max),
                in_mmap_lock_ns: Some(b.in_mmap_lock),
                in_vma_lock_ns: known.then_some(b.in_vma_lock),
                in_userfault_ns: known.then_some(b.in_userfault),
                interruptible_ns: Some(b.interruptible),
                run_queue_ns: Some(b.run_queue),
                run_queue_max_ns: Some(b.run_queue_max),
                running_ns: Some(b.running),
                preempted_count: Some(b.preempted),
                off_cpu_holding_ns: Some(b.off_holding),
            }
        })
        .collect();
    rows.sort_by(|a, b| (&a.role, a.tid).cmp(&(&b.role, b.tid)));
    rows
}

/// The same, added up by role.
pub fn by_role(threads: &[BlockedThread]) -> Vec<BlockedThread> {
    let mut roles: BTreeMap<&str, BlockedThread> = BTreeMap::new();
    for t in threads {
        let Some(sum) = roles.get_mut(t.role.as_str()) else {
            roles.insert(&t.role, BlockedThread { tid: 0, name: String::new(), ..t.clone() });
            continue;
        };
        let add = |a: &mut Option<u64>, b: Option<u64>| *a = a.zip(b).map(|(a, b)| a + b);
        let most = |a: &mut Option<u64>, b: Option<u64>| *a = a.zip(b).map(|(a, b)| a.max(b));
        add(&mut sum.uninterruptible_ns, t.uninterruptible_ns);
        add(&mut sum.uninterruptible_count, t.uninterruptible_count);
        most(&mut sum.uninterruptible_max_ns, t.uninterruptible_max_ns);
        add(&mut sum.in_mmap_lock_ns, t.in_mmap_lock_ns);
        add(&mut sum.in_vma_lock_ns, t.in_vma_lock_ns);
        add(&mut sum.in_userfault_ns, t.in_userfault_ns);
        add(&mut sum.interruptible_ns, t.interruptible_ns);
        add(&mut sum.run_queue_ns, t.run_queue_ns);
        most(&mut sum.run_queue_max_ns, t.run_queue_max_ns);
        add(&mut sum.running_ns, t.running_ns);
        add(&mut sum.preempted_count, t.preempted_count);
        add(&mut sum.off_cpu_holding_ns, t.off_cpu_holding_ns);
    }
    roles.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_phase_names_what_the_collector_took_the_lock_for() {
        let phases = Phases::new(vec![
            ((10, 100), "compact".into()),
            ((20, 30), "flip".into()),
            ((200, 300), "mark".into()),
        ]);
        assert_eq!(phases.at(25), Some("flip"));
        assert_eq!((phases.at(50), phases.at(150)), (Some("compact"), None));
        assert_eq!(operation("GcWorker-1", "mremap", 25, &phases), "flip: mremap");
        assert_eq!(operation("Mutator-1", "mremap", 25, &phases), "mremap");
        assert_eq!(operation("HeapTaskDaemon", "mmap", 150, &phases), "mmap");
    }
}
