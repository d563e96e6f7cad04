//! Why a frame was late or an operation slow: what each nanosecond of an interval on one thread went to.
//!
//! Everything that is known of the thread is laid over the interval, the certain before the general, and
//! each nanosecond counts once:
//!
//! 1. runnable without a processor, whatever for; 2. waiting for memory; 3. waiting for `mmap_lock`, with who
//!    held it; 4. a pause of the world, with the lock waits of whoever carried it out; 5. the thread's own stop
//!    around a pause; 6. other uninterruptible sleep; 7. building a missing page; 8. sleep of its own accord;
//!    9. what is left is its own work, if switches were recorded, and unknown otherwise.

use std::collections::HashMap;

use super::collect::Log;
use super::rows::{Phases, holders};
use crate::perf::Recording;
use crate::perf::analysis::{Kept, OffCpu, Sleep, State};
use crate::schema::{LockHolder, WorstCause};

/// Everything that causes are looked up in; times are monotonic nanoseconds.
#[derive(Debug)]
pub struct Causes<'a> {
    log: &'a Log,
    recording: Option<&'a Recording>,
    phases: &'a Phases,
    mutators: &'a HashMap<u32, u32>,
    kept: HashMap<u32, Vec<&'a Kept>>,
    off: HashMap<u32, Vec<&'a OffCpu>>,
}

/// The part of an interval that no cause has claimed yet: pieces in order, none overlapping.
struct Free(Vec<(u64, u64)>);

impl Free {
    /// Takes `claim` out; returns how much of it was still free. A long frame has ten thousands of claims (each fault
    /// is one), so only the pieces that are met are looked at.
    fn claim(&mut self, claim: (u64, u64)) -> u64 {
        if claim.0 >= claim.1 {
            return 0;
        }
        let first = self.0.partition_point(|piece| piece.1 <= claim.0);
        let met = self.0[first..].partition_point(|piece| piece.0 < claim.1);
        let pieces = &self.0[first..first + met];
        let (Some(&(begin, _)), Some(&(_, end))) = (pieces.first(), pieces.last()) else {
            return 0;
        };
        let taken = pieces.iter().map(|p| p.1.min(claim.1).saturating_sub(p.0.max(claim.0))).sum();
        let left = [(begin, claim.0), (claim.1, end)].into_iter().filter(|(from, to)| from < to);
        self.0.splice(first..first + met, left);
        taken
    }

    fn rest(&self) -> u64 {
        self.0.iter().map(|(b, e)| e - b).sum()
    }
}

/// What was found so far.
#[derive(Default)]
struct Found(Vec<WorstCause>);

impl Found {
    fn add(&mut self, cause: &str, ns: u64, operation: &str, holders: Vec<LockHolder>) {
        if ns == 0 {
            return;
        }
        let same = |c: &&mut WorstCause| c.cause == cause && c.operation == operation;
        match self.0.iter_mut().find(same) {
            Some(c) => {
                c.ns += ns;
                c.count += 1;
                merge(&mut c.holders, holders);
            }
            None => self.0.push(WorstCause {
                cause: cause.to_owned(),
                ns,
                count: 1,
                operation: operation.to_owned(),
                holders,
            }),
        }
    }
}

fn merge(into: &mut Vec<LockHolder>, more: Vec<LockHolder>) {
    for h in more {
        let same =
            |a: &&mut LockHolder| (a.tid, a.mode, &a.operation) == (h.tid, h.mode, &h.operation);
        match into.iter_mut().find(same) {
            Some(a) => {
                a.held_ns += h.held_ns;
                a.times += h.times;
                a.off_cpu_ns = a.off_cpu_ns.zip(h.off_cpu_ns).map(|(a, b)| a + b);
            }
            None => into.push(h),
        }
    }
    into.sort_by_key(|h| std::cmp::Reverse(h.held_ns));
    into.truncate(4);
}

/// Calls by which a collector changes mappings while the world stands.
pub const FLIP_CALLS: [&str; 6] =
    ["mremap", "UFFDIO_REGISTER", "UFFDIO_UNREGISTER", "mprotect", "madvise", "munmap"];

impl<'a> Causes<'a> {
    /// `mutators` has the number in the heap by thread.
    pub fn new(
        log: &'a Log,
        recording: Option<&'a Recording>,
        phases: &'a Phases,
        mutators: &'a HashMap<u32, u32>,
    ) -> Causes<'a> {
        let mut kept: HashMap<u32, Vec<&Kept>> = HashMap::new();
        let mut off: HashMap<u32, Vec<&OffCpu>> = HashMap::new();
        if let Some(recording) = recording {
            for k in &recording.analysis.kept {
                kept.entry(k.span.tid).or_default().push(k);
            }
            for o in &recording.analysis.off {
                off.entry(o.tid).or_default().push(o);
            }
        }
        Causes { log, recording, phases, mutators, kept, off }
    }

    /// What `interval` on the thread `tid` went to, the most first.
    pub fn of(&self, tid: u32, interval: (u64, u64)) -> Vec<WorstCause> {
        let mut free = Free(vec![interval]);
        let mut found = Found::default();
        let mutator = self.mutators.get(&tid).copied();
        let mine = |thread: u32| mutator == Some(thread);
        let near = |b: u64, e: u64| b < interval.1 && e > interval.0;
        for off in self.off.get(&tid).into_iter().flatten() {
            if near(off.woken, off.end) {
                found.add("run-queue delay", free.claim((off.woken, off.end)), "", Vec::new());
            }
        }
        for s in self.log.waits.iter().filter(|s| mine(s.thread) && near(s.begin, s.end)) {
            found.add("allocation stall", free.claim((s.begin, s.end)), "", Vec::new());
        }
        if let Some(recording) = self.recording {
            for kept in self.kept.get(&tid).into_iter().flatten() {
                let wait = (kept.span.start, kept.span.acquired);
                if wait.1 > wait.0 && near(wait.0, wait.1) {
                    let cause = if kept.span.write {
                        "mmap_lock wait for writing"
                    } else {
                        "mmap_lock wait for reading"
                    };
                    let who = holders(recording, kept, self.phases);
                    found.add(cause, free.claim(wait), kept.operation, who);
                }
            }
        }
        if mutator.is_some() {
            for p in self.log.pauses.iter().filter(|p| near(p.stopped, p.released)) {
                let claimed = free.claim((p.stopped, p.released));
                let who = self.blockers((p.stopped, p.released));
                found.add("pause", claimed, p.kind, who);
            }
        }
        for s in self.log.stops.iter().filter(|s| mine(s.thread) && near(s.begin, s.end)) {
            found.add("pause", free.claim((s.begin, s.end)), "own stop", Vec::new());
        }
        for off in self.off.get(&tid).into_iter().flatten() {
            if off.state == State::Uninterruptible && near(off.begin, off.woken) {
                let place = match off.place {
                    Some(Sleep::VmaLock) => "vma lock",
                    Some(Sleep::Userfault) => "userfault",
                    Some(Sleep::MmapLock) => "mmap_lock",
                    None => "",
                };
                let claimed = free.claim((off.begin, off.woken));
                found.add("uninterruptible sleep", claimed, place, Vec::new());
            }
        }
        for (outcome, faults) in &self.log.faults {
            let cause = match outcome.as_str() {
                "built" | "helped" => "fault built by itself",
                _ => "waited for a page",
            };
            for s in faults.iter().filter(|s| mine(s.thread) && near(s.begin, s.end)) {
                found.add(cause, free.claim((s.begin, s.end)), "", Vec::new());
            }
        }
        for off in self.off.get(&tid).into_iter().flatten() {
            if off.state == State::Interruptible && near(off.begin, off.woken) {
                let cause = match off.place {
                    Some(Sleep::Userfault) => "waited for a page",
                    _ => "interruptible sleep",
                };
                found.add(cause, free.claim((off.begin, off.woken)), "", Vec::new());
            }
        }
        let known = self.recording.is_some_and(|r| r.switches_known);
        let rest = if known { "own work" } else { "unknown" };
        found.add(rest, free.rest(), "", Vec::new());
        let mut causes = found.0;
        causes.sort_by_key(|c| std::cmp::Reverse(c.ns));
        causes
    }

    /// Who held the lock while whoever carried out a pause waited for it.
    fn blockers(&self, pause: (u64, u64)) -> Vec<LockHolder> {
        let Some(recording) = self.recording else { return Vec::new() };
        let mut all = Vec::new();
        for kept in self.kept.values().flatten() {
            let wait = (kept.span.start, kept.span.acquired);
            let name = recording.analysis.threads.get(&kept.span.tid).map_or("", |t| &t.name);
            let carries_out = crate::perf::analysis::is_collector(name)
                || self.mutators.contains_key(&kept.span.tid);
            if carries_out
                && FLIP_CALLS.contains(&kept.operation)
                && wait.0 < pause.1
                && wait.1 > pause.0
            {
                merge(&mut all, holders(recording, kept, self.phases));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::collect::{Pause, Stall};
    use super::*;

    #[test]
    fn a_claim_takes_what_is_left_of_it_and_leaves_the_rest() {
        let mut free = Free(vec![(10, 100)]);
        assert_eq!((free.claim((30, 40)), free.claim((30, 40)), free.claim((20, 50))), (10, 0, 20));
        assert_eq!(free.0, [(10, 20), (50, 100)]);
        // Over both pieces, over an edge, outside, and nothing.
        assert_eq!((free.claim((15, 60)), free.claim((90, 200))), (15, 10));
        assert_eq!((free.claim((0, 10)), free.claim((300, 400)), free.claim((70, 70))), (0, 0, 0));
        assert_eq!((free.rest(), free.claim((0, 500)), free.rest()), (35, 35, 0));
    }

    #[test]
    fn each_nanosecond_counts_for_one_cause() {
        let mut log = Log::default();
        log.waits.push(Stall { thread: 4, begin: 100, end: 200 });
        log.pauses.push(Pause {
            cycle: 1,
            kind: "flip",
            requested: 140,
            stopped: 150,
            released: 260,
        });
        log.stops.push(Stall { thread: 4, begin: 240, end: 280 });
        log.faults.entry("built".into()).or_default().push(Stall {
            thread: 4,
            begin: 290,
            end: 320,
        });
        let (phases, mutators) = (Phases::default(), HashMap::from([(11, 4)]));
        let causes = Causes::new(&log, None, &phases, &mutators);
        let found = causes.of(11, (50, 300));
        let list: Vec<_> =
            found.iter().map(|c| (c.cause.as_str(), c.operation.as_str(), c.ns)).collect();
        assert_eq!(
            list,
            [
                ("allocation stall", "", 100),
                ("pause", "flip", 60),
                ("unknown", "", 60),
                ("pause", "own stop", 20),
                ("fault built by itself", "", 10),
            ]
        );
        assert_eq!(found.iter().map(|c| c.ns).sum::<u64>(), 250);
        // Another thread, which is no mutator, has none of that.
        assert_eq!(causes.of(12, (50, 300))[0].cause, "unknown");
    }
}
