//! The collector's event stream, gathered, and what a report says of it.
//!
//! [`Collector`] is a [`Listener`]: it keeps what it is told, in order, behind one lock a sort of
//! event, and computes nothing until [`Collector::report`] is asked for the figures of a window.
//! It is called by the daemon and by allocating threads that stall, so it must be quick, and it
//! never calls into the heap.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};

use firn::FaultOutcome;
use firn::events::{CycleSummary, Event, Listener, PauseKind, Phase};
use firn_heap::sys::{Errno, page_size};
use serde::Serialize;

use super::latency::Percentiles;
use super::mmu::{Interval, ThreadMmu, of_thread};

/// A stop of all mutators.
#[derive(Debug, Clone)]
pub struct Pause {
    /// Number of the cycle.
    pub cycle: u64,
    /// `start`, `final mark`, `flip`, `verify`.
    pub kind: &'static str,
    /// When it was asked for.
    pub requested: u64,
    /// When the last mutator had stopped.
    pub stopped: u64,
    /// When the first one could go on.
    pub released: u64,
}

/// Something that kept one mutator from its work.
#[derive(Debug, Clone, Copy)]
pub struct Stall {
    /// The mutator's number; `u32::MAX` for a thread that is none.
    pub thread: u32,
    /// Its begin.
    pub begin: u64,
    /// Its end.
    pub end: u64,
}

/// What has been told so far, in the order of telling; times are monotonic nanoseconds.
#[derive(Debug, Default, Clone)]
pub struct Log {
    /// Stops of all mutators.
    pub pauses: Vec<Pause>,
    /// Stops of single ones.
    pub stops: Vec<Stall>,
    /// Accesses to missing pages by outcome.
    pub faults: BTreeMap<String, Vec<Stall>>,
    /// Accesses that were not recorded.
    pub faults_lost: u64,
    /// Waits for memory.
    pub waits: Vec<Stall>,
    /// Phases by place in the cycle and name.
    pub phases: BTreeMap<(u8, &'static str), Vec<Interval>>,
    /// The same with the number of the cycle.
    pub cycle_phases: Vec<(u64, &'static str, Interval)>,
    retries: BTreeMap<(String, i32), u64>,
    /// Cycles that have ended.
    pub cycles: Vec<CycleSummary>,
}

/// Gathers the events of a heap.
#[derive(Debug)]
pub struct Collector {
    log: Mutex<Log>,
}

impl Default for Collector {
    fn default() -> Collector {
        Collector::new()
    }
}

/// Events of each sort for which there is room from the beginning. The lists grow on the collector's own
/// threads, and growing takes `mmap_lock` for writing: the very thing that is being counted.
const ROOM: usize = 1 << 16;
/// The same for faults that built a page, which are the most.
const FAULT_ROOM: usize = 1 << 20;

impl Collector {
    /// A collector that has seen nothing. Its memory is reserved, and used as events come.
    pub fn new() -> Collector {
        let faults = [("already mapped", ROOM), ("built", FAULT_ROOM), ("helped", ROOM)]
            .into_iter()
            .chain([("waited", ROOM)])
            .map(|(outcome, room)| (outcome.to_owned(), Vec::with_capacity(room)))
            .collect();
        let phases = PHASES
            .into_iter()
            .map(|phase| ((position(phase), phase_name(phase)), Vec::with_capacity(ROOM / 16)));
        let log = Log {
            pauses: Vec::with_capacity(ROOM),
            stops: Vec::with_capacity(ROOM),
            faults,
            waits: Vec::with_capacity(ROOM),
            phases: phases.collect(),
            cycle_phases: Vec::with_capacity(ROOM),
            cycles: Vec::with_capacity(ROOM / 16),
            ..Log::default()
        };
        Collector { log: Mutex::new(log) }
    }

    /// A copy of everything told so far.
    pub fn snapshot(&self) -> Log {
        self.log().clone()
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of an enum's value as reports have it: words in lower case.
pub fn label(value: &impl Debug) -> String {
    let mut name = String::new();
    for c in format!("{value:?}").chars() {
        if c.is_uppercase() && !name.is_empty() {
            name.push(' ');
        }
        name.extend(c.to_lowercase());
    }
    name
}

/// All phases.
const PHASES: [Phase; 8] = [
    Phase::Verify,
    Phase::Start,
    Phase::Mark,
    Phase::FinalMark,
    Phase::Plan,
    Phase::Flip,
    Phase::Compact,
    Phase::Finish,
];

/// A phase's name.
fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Verify => "verify",
        Phase::Start => "start",
        Phase::Mark => "mark",
        Phase::FinalMark => "final mark",
        Phase::Plan => "plan",
        Phase::Flip => "flip",
        Phase::Compact => "compact",
        Phase::Finish => "finish",
    }
}

/// A pause's name.
fn pause_name(kind: PauseKind) -> &'static str {
    match kind {
        PauseKind::Start => "start",
        PauseKind::FinalMark => "final mark",
        PauseKind::Flip => "flip",
        PauseKind::Verify => "verify",
    }
}

/// Where a phase stands in a cycle.
fn position(phase: Phase) -> u8 {
    match phase {
        Phase::Verify => 0,
        Phase::Start => 1,
        Phase::Mark => 2,
        Phase::FinalMark => 3,
        Phase::Plan => 4,
        Phase::Flip => 5,
        Phase::Compact => 6,
        Phase::Finish => 7,
    }
}

impl Listener for Collector {
    fn event(&self, event: &Event) {
        let mut log = self.log();
        match event {
            Event::CycleBegin { .. } => {}
            Event::Phase { phase, begin, end, cycle } => {
                let key = (position(*phase), phase_name(*phase));
                log.cycle_phases.push((*cycle, key.1, (*begin, *end)));
                log.phases.entry(key).or_default().push((*begin, *end));
            }
            Event::Pause { kind, requested, stopped, released, cycle, .. } => {
                log.pauses.push(Pause {
                    cycle: *cycle,
                    kind: pause_name(*kind),
                    requested: *requested,
                    stopped: *stopped,
                    released: *released,
                })
            }
            Event::ThreadStop { thread, begin, end, .. } => {
                log.stops.push(Stall { thread: *thread, begin: *begin, end: *end });
            }
            Event::Fault { thread, begin, end, outcome, .. } => {
                let stall = Stall { thread: *thread, begin: *begin, end: *end };
                // Ten thousands a cycle: the name is looked up, not made.
                let name = match outcome {
                    FaultOutcome::AlreadyMapped => "already mapped",
                    FaultOutcome::Built => "built",
                    FaultOutcome::Helped => "helped",
                    FaultOutcome::Waited => "waited",
                };
                match log.faults.get_mut(name) {
                    Some(list) => list.push(stall),
                    None => _ = log.faults.insert(name.to_owned(), vec![stall]),
                }
            }
            Event::FaultsLost { count } => log.faults_lost += count,
            Event::Retry { op, errno, count, .. } => {
                *log.retries.entry((label(op), *errno)).or_default() += count;
            }
            Event::AllocStall { thread, begin, end, .. } => {
                log.waits.push(Stall { thread: *thread, begin: *begin, end: *end });
            }
            Event::CycleEnd { summary } => log.cycles.push(*summary),
        }
    }
}

/// The pauses of one kind, or of all.
#[derive(Debug, Clone, Serialize)]
pub struct PauseFigures {
    /// `final mark`, `flip` (with `stw`, all of compaction), `verify`, or `all`, which is all but verification: that is a check
    /// that the user asked for, not a cost of collecting.
    pub kind: String,
    /// From the last mutator's stop to the first one's release.
    pub pause_ns: Percentiles,
    /// From the request to the last mutator's stop.
    pub time_to_safepoint_ns: Percentiles,
    /// The sum of the pauses, nanoseconds.
    pub total_ns: u64,
}

/// The stalls of one sort.
#[derive(Debug, Clone, Serialize)]
pub struct StallFigures {
    /// A fault's outcome (`built`, `helped`, `waited`, `already mapped`), or `allocation`.
    pub kind: String,
    /// How long.
    pub stall_ns: Percentiles,
}

/// All stalls.
#[derive(Debug, Clone, Serialize)]
pub struct Stalls {
    /// Of all faults, whatever their outcome.
    pub faults: Option<Percentiles>,
    /// Faults on missing pages, by outcome.
    pub by_outcome: Vec<StallFigures>,
    /// Faults that were not recorded because a thread's ring was full.
    pub faults_lost: u64,
    /// Waits for memory.
    pub allocation: Option<Percentiles>,
}

/// One phase over all cycles.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseFigures {
    /// The phase's name.
    pub phase: String,
    /// Wall time of each run of it.
    pub wall_ns: Percentiles,
    /// Wall time in all, nanoseconds.
    pub total_ns: u64,
}

/// Retries of one operation for one reason.
#[derive(Debug, Clone, Serialize)]
pub struct RetryFigures {
    /// The operation.
    pub op: String,
    /// The kernel's answer, by name.
    pub errno: String,
    /// How often.
    pub count: u64,
}

/// What moved, over all cycles that ended in the window.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Moved {
    /// Pages installed by copying.
    pub pages_by_copy: u64,
    /// Pages built in recycled memory and installed by remapping.
    pub pages_by_move: u64,
    /// Pages of dense runs: the old page itself was remapped, without a copy of its contents.
    pub pages_dense: u64,
    /// Pages installed by the collector's threads.
    pub pages_by_collector: u64,
    /// Pages installed by faulting mutators.
    pub pages_by_mutators: u64,
    /// Bytes of the pages installed by copying.
    pub bytes_by_copy: u64,
    /// Bytes of the pages installed by remapping, dense ones included.
    pub bytes_by_move: u64,
    /// Bytes of the pages installed by the collector's threads.
    pub bytes_by_collector: u64,
    /// Bytes of the pages installed by faulting mutators.
    pub bytes_by_mutators: u64,
    /// Pages given back to the kernel.
    pub pages_released: u64,
    /// Bytes by which collections reduced the pages in use.
    pub bytes_freed: u64,
    /// Live bytes found by the last collection, large objects included.
    pub live_bytes_last: u64,
}

/// What a report says of the collector.
#[derive(Debug, Clone, Serialize)]
pub struct GcReport {
    /// Cycles of the whole run.
    pub cycles_total: usize,
    /// Cycles that ended in the window.
    pub cycles: usize,
    /// Pauses in the window: of all kinds, then by kind.
    pub pauses: Vec<PauseFigures>,
    /// Stalls in the window.
    pub stalls: Stalls,
    /// Phases in the window, in the order of a cycle.
    pub phases: Vec<PhaseFigures>,
    /// What moved.
    pub moved: Moved,
    /// Retries of the whole run.
    pub retries: Vec<RetryFigures>,
    /// Minimum utilisation of each mutator.
    pub mmu: Vec<ThreadMmu>,
}

impl Collector {
    /// How many cycles that began at `begin` or later have ended.
    pub fn cycles_since(&self, begin: u64) -> usize {
        self.log().cycles.iter().rev().take_while(|c| c.begin >= begin).count()
    }

    /// The figures of what overlaps `window`, for mutators `0..mutators`.
    pub fn report(&self, window: Interval, mutators: u32) -> GcReport {
        let log = self.log();
        let within = |begin: u64, end: u64| end >= window.0 && begin <= window.1;
        let pauses: Vec<&Pause> =
            log.pauses.iter().filter(|p| within(p.requested, p.released)).collect();
        let waits = || log.waits.iter().filter(|s| within(s.begin, s.end));
        let faults = |list: &[Stall]| {
            let lengths = list.iter().filter(|s| within(s.begin, s.end)).map(length);
            Percentiles::of(lengths)
        };
        GcReport {
            cycles_total: log.cycles.len(),
            cycles: log.cycles.iter().filter(|c| within(c.end, c.end)).count(),
            pauses: pause_figures(&pauses),
            stalls: Stalls {
                faults: Percentiles::of(
                    log.faults.values().flatten().filter(|s| within(s.begin, s.end)).map(length),
                ),
                by_outcome: log
                    .faults
                    .iter()
                    .filter_map(|(kind, list)| {
                        let stall_ns = faults(list)?;
                        Some(StallFigures { kind: kind.clone(), stall_ns })
                    })
                    .collect(),
                faults_lost: log.faults_lost,
                allocation: Percentiles::of(waits().map(length)),
            },
            phases: log
                .phases
                .iter()
                .filter_map(|((_, phase), list)| {
                    let list = || list.iter().filter(|(b, e)| within(*b, *e)).map(|(b, e)| e - b);
                    let total_ns = list().sum();
                    Some(PhaseFigures {
                        phase: (*phase).to_owned(),
                        wall_ns: Percentiles::of(list())?,
                        total_ns,
                    })
                })
                .collect(),
            moved: moved(log.cycles.iter().filter(|c| within(c.end, c.end))),
            retries: log
                .retries
                .iter()
                .map(|((op, errno), &count)| RetryFigures {
                    op: op.clone(),
                    errno: Errno(*errno).to_string(),
                    count,
                })
                .collect(),
            mmu: (0..mutators).map(|thread| mmu(&log, thread, window)).collect(),
        }
    }
}

fn length(stall: &Stall) -> u64 {
    stall.end.saturating_sub(stall.begin)
}

fn pause_figures(pauses: &[&Pause]) -> Vec<PauseFigures> {
    let mut kinds: Vec<&str> = pauses.iter().map(|p| p.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let of = |name: &str, filter: &dyn Fn(&Pause) -> bool| {
        let chosen: Vec<_> = pauses.iter().filter(|p| filter(p)).collect();
        let pause = |p: &&&Pause| p.released.saturating_sub(p.stopped);
        Some(PauseFigures {
            kind: name.to_owned(),
            pause_ns: Percentiles::of(chosen.iter().map(pause))?,
            time_to_safepoint_ns: Percentiles::of(
                chosen.iter().map(|p| p.stopped.saturating_sub(p.requested)),
            )?,
            total_ns: chosen.iter().map(pause).sum(),
        })
    };
    let by_kind = kinds.iter().filter_map(|&kind| of(kind, &|p| p.kind == kind));
    of("all", &|p| p.kind != "verify").into_iter().chain(by_kind).collect()
}

/// Everything that kept a mutator from its work. A pause counts for every mutator, also for one
/// that happened to be blocked: the figure is a lower bound.
fn mmu(log: &Log, thread: u32, window: Interval) -> ThreadMmu {
    let own = |s: &&Stall| s.thread == thread;
    let stalls = log.stops.iter().chain(log.faults.values().flatten()).chain(&log.waits);
    let lost = stalls
        .filter(own)
        .map(|s| (s.begin, s.end))
        .chain(log.pauses.iter().map(|p| (p.stopped, p.released)))
        .collect();
    of_thread(thread, lost, window)
}

fn moved<'a>(cycles: impl Iterator<Item = &'a CycleSummary>) -> Moved {
    let mut sum = Moved::default();
    for c in cycles {
        sum.pages_by_copy += c.pages_copied;
        sum.pages_by_move += c.pages_moved;
        sum.pages_dense += c.pages_dense;
        sum.pages_by_collector += c.pages_by_collector;
        sum.pages_by_mutators += c.pages_by_mutators;
        sum.pages_released += c.pages_released;
        sum.bytes_freed += c.used_before.saturating_sub(c.used_after) as u64;
        sum.live_bytes_last = (c.live_bytes + c.large_live_bytes) as u64;
    }
    let page = page_size() as u64;
    sum.bytes_by_copy = sum.pages_by_copy * page;
    sum.bytes_by_move = (sum.pages_by_move + sum.pages_dense) * page;
    sum.bytes_by_collector = sum.pages_by_collector * page;
    sum.bytes_by_mutators = sum.pages_by_mutators * page;
    sum
}

#[cfg(test)]
mod tests {
    use firn::InstallKind;

    use super::*;

    const MS: u64 = 1_000_000;

    fn fault(thread: u32, begin: u64, end: u64, outcome: FaultOutcome) -> Event {
        Event::Fault { cycle: 1, thread, begin, end, outcome, page: 0, published: 1 }
    }

    fn pause(kind: PauseKind, requested: u64, stopped: u64, released: u64) -> Event {
        Event::Pause { cycle: 1, kind, requested, stopped, released, mutators: 2 }
    }

    #[test]
    fn pauses_are_told_apart_by_kind_and_from_the_time_to_safepoint() {
        let c = Collector::new();
        c.event(&pause(PauseKind::Flip, 10, 40, 90));
        c.event(&pause(PauseKind::FinalMark, 200, 210, 230));
        let report = c.report((0, 1000), 0);
        let kinds: Vec<_> = report
            .pauses
            .iter()
            .map(|p| (p.kind.as_str(), p.pause_ns.max, p.time_to_safepoint_ns.max, p.total_ns))
            .collect();
        assert_eq!(kinds, [("all", 50, 30, 70), ("final mark", 20, 10, 20), ("flip", 50, 30, 50)]);
    }

    #[test]
    fn what_lies_outside_the_window_does_not_count() {
        let c = Collector::new();
        c.event(&fault(0, 10, 20, FaultOutcome::Built));
        c.event(&fault(0, 500, 520, FaultOutcome::Built));
        c.event(&fault(1, 530, 560, FaultOutcome::AlreadyMapped));
        let stalls = c.report((100, 1000), 2).stalls;
        assert_eq!(stalls.faults.unwrap().count, 2);
        let kinds: Vec<_> = stalls.by_outcome.iter().map(|f| f.kind.as_str()).collect();
        assert_eq!(kinds, ["already mapped", "built"]);
    }

    #[test]
    fn utilization_counts_pauses_stops_faults_and_waits_once_each() {
        let c = Collector::new();
        c.event(&pause(PauseKind::Flip, 0, 0, MS));
        // The thread's own stop around the pause, half of it the pause itself.
        c.event(&Event::ThreadStop { thread: 0, begin: 0, end: 2 * MS });
        c.event(&fault(0, 5 * MS, 6 * MS, FaultOutcome::Waited));
        c.event(&Event::AllocStall { thread: 1, begin: 10 * MS, end: 13 * MS, bytes: 8 });
        let mmu = c.report((0, 100 * MS), 2).mmu;
        assert_eq!((mmu[0].lost_ns, mmu[1].lost_ns), (3 * MS, 4 * MS));
        assert_eq!(mmu[0].windows[0].utilization, Some(0.0));
        assert!((mmu[1].windows[6].utilization.unwrap() - 0.96).abs() < 1e-9);
    }

    #[test]
    fn phases_come_in_the_order_of_a_cycle_and_retries_add_up() {
        let c = Collector::new();
        c.event(&Event::Phase { cycle: 1, phase: Phase::Compact, begin: 50, end: 90 });
        c.event(&Event::Phase { cycle: 1, phase: Phase::Mark, begin: 10, end: 50 });
        for _ in 0..2 {
            let (op, errno) = (InstallKind::Move, Errno::EAGAIN.0);
            c.event(&Event::Retry { cycle: 1, op, errno, count: 3 });
        }
        let report = c.report((0, 100), 0);
        let phases: Vec<_> = report.phases.iter().map(|p| p.phase.as_str()).collect();
        assert_eq!(phases, ["mark", "compact"]);
        assert_eq!((report.retries[0].errno.as_str(), report.retries[0].count), ("EAGAIN (11)", 6));
    }

    #[test]
    fn labels_are_words() {
        assert_eq!(label(&FaultOutcome::AlreadyMapped), "already mapped");
        assert_eq!(label(&PauseKind::FinalMark), "final mark");
    }
}
