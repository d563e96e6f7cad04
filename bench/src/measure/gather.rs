//! One measurement, from its start to the fields of a [`Run`]: the kernel's events (or `/proc` where they
//! are refused), the hiccup probe, the collector's events, and what threads noted of themselves, all in one
//! window on one clock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::causes::{Causes, FLIP_CALLS};
use super::collect::{Collector, Log, label};
use super::hiccup::{Hiccups, Probe};
use super::mmu::of_thread;
use super::notes::{INTERVAL, Mutator, NotedFrame, Notes, Slow};
use super::proc::Watch;
use super::rows::{self, Phases};
use crate::clock;
use crate::perf::analysis::{State, is_collector, overlap};
use crate::perf::sampler::{self, role};
use crate::perf::syscalls::COLLECTORS_CALLS;
use crate::perf::{Recording, Sampler, Window};
use crate::schema::{
    self, BlockedThread, Cycle, CycleLocks, Distribution, Fault, Faults, Frame, Heat, PhaseSpan,
    Run, Source, Spans, StallKind, Switch, ThreadName, Timeline, Track, Utilization,
    WindowUtilization, Worst,
};

/// Calls that publish pages.
pub const INSTALLING: [&str; 2] = ["UFFDIO_COPY", "UFFDIO_MOVE"];

/// How many of the worst are explained.
const WORST: usize = 10;

/// A measurement under way.
#[derive(Debug)]
pub struct Gather {
    window: Arc<Window>,
    notes: Arc<Notes>,
    sampler: Option<Sampler>,
    watch: Option<Watch>,
    probe: Option<Probe>,
    missing: Vec<String>,
    origin: u64,
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    /// The kernel's events, where they are to be had.
    pub events: bool,
    /// The hiccup probe.
    pub probe: bool,
}

/// What a measurement found; times are monotonic nanoseconds.
#[derive(Debug)]
pub struct Gathered {
    /// The beginning of the interval in which it began.
    pub origin: u64,
    /// The kernel's events.
    pub recording: Option<Recording>,
    /// Blocked time from `/proc`, where there are no events.
    pub watched: Vec<BlockedThread>,
    /// The probe.
    pub hiccups: Option<Hiccups>,
    /// Who the mutators were.
    pub mutators: Vec<Mutator>,
    /// Their frames.
    pub frames: Vec<(u32, NotedFrame)>,
    /// Slow operations.
    pub slow: Vec<Slow>,
    /// What could not be had, with remedies.
    pub missing: Vec<String>,
}

impl Gather {
    /// Begins; nothing counts before the window does.
    pub fn start(want: Want) -> Gather {
        let window = Arc::new(Window::closed());
        let notes = Arc::new(Notes::new(window.clone()));
        Gather::start_on(window, notes, want)
    }

    /// Begins with a window and notes that threads have already.
    pub fn start_on(window: Arc<Window>, notes: Arc<Notes>, want: Want) -> Gather {
        let (mut missing, mut sampler) = (Vec::new(), None);
        if want.events {
            match Sampler::start(sampler::Options::default(), window.clone()) {
                Ok(started) => sampler = Some(started),
                Err(e) => missing.push(format!("locks and sleep are not traced: {e}")),
            }
        }
        let watch = match sampler {
            None if want.events => Watch::start(window.clone()),
            _ => None,
        };
        let probe = if want.probe { Probe::start(window.clone()) } else { None };
        // The clock's own intervals are what everybody keeps their worst by, so an interval's beginning is one of the
        // report's points in time.
        let origin = clock::now() / INTERVAL * INTERVAL;
        Gather { window, notes, sampler, watch, probe, missing, origin }
    }

    /// What threads tell.
    pub fn notes(&self) -> &Arc<Notes> {
        &self.notes
    }

    /// The window.
    pub fn window(&self) -> &Arc<Window> {
        &self.window
    }

    /// The recording under way, to find out what it costs.
    pub fn sampler(&self) -> Option<&Sampler> {
        self.sampler.as_ref()
    }

    /// Ends.
    pub fn stop(mut self) -> Gathered {
        let recording = self.sampler.take().map(Sampler::stop);
        if let Some(r) = &recording {
            self.missing.extend(r.missing.iter().cloned());
        }
        Gathered {
            origin: self.origin,
            recording,
            watched: self.watch.take().map(Watch::stop).unwrap_or_default(),
            hiccups: self.probe.take().map(Probe::stop),
            mutators: self.notes.mutators(),
            frames: self.notes.frames(),
            slow: self.notes.all_slow(),
            missing: self.missing,
        }
    }
}

/// How a run is filled in.
#[derive(Debug, Clone, Copy)]
pub struct Fill<'a> {
    /// The window, monotonic nanoseconds.
    pub window: (u64, u64),
    /// Roles whose stalls count among the worst.
    pub victims: &'a [&'a str],
    /// Spans of each kind that are kept.
    pub spans: usize,
}

impl Gathered {
    /// Where each sort of figure comes from.
    pub fn measuring(&self) -> schema::Measuring {
        schema::Measuring {
            locks: self.recording.as_ref().map(|r| r.locks_from),
            blocked: match &self.recording {
                Some(r) if r.switches_known => Some(Source::Tracepoints),
                _ => self.watched.first().map(|w| w.source),
            },
            missing: self.missing.clone(),
        }
    }

    /// For each flip in `window`: how long whoever carried it out waited for `mmap_lock` meanwhile, nanoseconds
    /// (waits of 20 us or more; zero is a flip that did not wait). `None` where locks were not recorded.
    pub fn lock_waits_in_flips(
        &self,
        collector: &Collector,
        window: (u64, u64),
    ) -> Option<Vec<u64>> {
        let kept = &self.recording.as_ref()?.analysis.kept;
        let log = collector.snapshot();
        let mutators: Vec<u32> = self.mutators.iter().map(|m| m.tid).collect();
        let carries_out = |tid: u32| mutators.contains(&tid) || is_collector(&self.name(tid));
        let waits: Vec<_> = kept
            .iter()
            .filter(|k| FLIP_CALLS.contains(&k.operation) && carries_out(k.span.tid))
            .map(|k| (k.span.start, k.span.acquired))
            .collect();
        let flips = log.pauses.iter().filter(|p| p.kind == "flip");
        let inside = flips.filter(|p| p.stopped >= window.0 && p.released <= window.1);
        let waited = |p: &super::collect::Pause| {
            waits.iter().map(|w| overlap(*w, (p.stopped, p.released))).sum()
        };
        Some(inside.map(waited).collect())
    }

    /// Fills in everything that does not depend on the scenario.
    pub fn fill(&self, run: &mut Run, collector: Option<&Collector>, fill: Fill<'_>) {
        let log = collector.map(Collector::snapshot).unwrap_or_default();
        let at = |t: u64| t.saturating_sub(self.origin);
        let phases = Phases::new(
            log.cycle_phases.iter().map(|(_, name, when)| (*when, (*name).to_owned())).collect(),
        );
        run.origin_ns = self.origin;
        run.window = (at(fill.window.0), at(fill.window.1));
        if let Some(recording) = &self.recording {
            run.locks = Some(rows::locks(recording, &phases));
            run.blocked = rows::blocked(recording);
        }
        if run.blocked.is_empty() {
            run.blocked = self.watched.clone();
        }
        run.blocked_by_role = rows::by_role(&run.blocked);
        run.hiccups = self
            .hiccups
            .as_ref()
            .map(|h| schema::Hiccups { ns: distribution(&h.filled), raw: distribution(&h.raw) });
        self.collector(run, &log, &phases, fill);
        let mutators: HashMap<u32, u32> = self.mutators.iter().map(|m| (m.tid, m.id)).collect();
        let causes = Causes::new(&log, self.recording.as_ref(), &phases, &mutators);
        run.worst_frames = self.worst_frames(&causes, fill);
        run.worst_stalls = self.worst_stalls(&log, &causes, fill);
        run.timeline = self.timeline(&log, fill);
        run.spans = self.spans(&log, &phases, fill);
        run.utilization = self.utilization(&log, fill);
    }

    fn collector(&self, run: &mut Run, log: &Log, phases: &Phases, fill: Fill<'_>) {
        let at = |t: u64| t.saturating_sub(self.origin);
        let within = |b: u64, e: u64| e >= fill.window.0 && b <= fill.window.1;
        let pauses: Vec<_> =
            log.pauses.iter().filter(|p| within(p.requested, p.released)).collect();
        let kinds = |f: &dyn Fn(&super::collect::Pause) -> u64| {
            let mut by_kind: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
            for p in &pauses {
                by_kind.entry(p.kind).or_default().push(f(p));
            }
            let all = pauses.iter().filter(|p| p.kind != "verify").map(|p| f(p));
            let all = (!pauses.is_empty())
                .then(|| StallKind { kind: "all".to_owned(), ns: Distribution::of(all) });
            let each = by_kind.into_iter().map(|(kind, list)| StallKind {
                kind: kind.to_owned(),
                ns: Distribution::of(list),
            });
            all.into_iter().chain(each).collect::<Vec<_>>()
        };
        run.pauses = kinds(&|p| p.released.saturating_sub(p.stopped));
        run.safepoints = kinds(&|p| p.stopped.saturating_sub(p.requested));
        run.phases = log
            .phases
            .iter()
            .map(|((_, name), list)| StallKind {
                kind: (*name).to_owned(),
                ns: Distribution::of(
                    list.iter().filter(|(b, e)| within(*b, *e)).map(|(b, e)| e - b),
                ),
            })
            .filter(|p| !p.ns.is_empty())
            .collect();
        run.faults = Some(faults(log, fill.window, self.origin));
        let waits = log.waits.iter().filter(|s| within(s.begin, s.end));
        let waits = Distribution::of(waits.map(|s| s.end - s.begin));
        run.allocation = (!waits.is_empty()).then_some(schema::Allocation { ns: waits });
        let cycles: Vec<_> = log.cycles.iter().filter(|c| within(c.begin, c.end)).collect();
        let spans: Vec<_> = cycles.iter().map(|c| (c.begin, c.end)).collect();
        let locks = self.locks_of_cycles(&spans, fill.window, phases);
        run.cycles = cycles
            .into_iter()
            .zip(locks)
            .map(|(c, locks)| Cycle {
                locks,
                number: c.cycle,
                cause: label(&c.cause),
                begin: at(c.begin),
                end: at(c.end),
                phases: log
                    .cycle_phases
                    .iter()
                    .filter(|p| p.0 == c.cycle)
                    .map(|(_, name, (b, e))| PhaseSpan {
                        name: (*name).to_owned(),
                        begin: at(*b),
                        end: at(*e),
                    })
                    .collect(),
                pauses: log
                    .pauses
                    .iter()
                    .filter(|p| p.cycle == c.cycle)
                    .map(|p| schema::Pause {
                        kind: p.kind.to_owned(),
                        requested: at(p.requested),
                        stopped: at(p.stopped),
                        released: at(p.released),
                    })
                    .collect(),
                stalls: self.stalls_of_cycle(log, (c.begin, c.end)),
                live_bytes: (c.live_bytes + c.large_live_bytes) as u64,
                pages_copied: c.pages_copied,
                pages_moved: c.pages_moved + c.pages_dense,
                pages_by_mutators: c.pages_by_mutators,
            })
            .collect();
    }

    /// What each of the cycles took `mmap_lock` for; they are in order of time.
    fn locks_of_cycles(
        &self,
        cycles: &[(u64, u64)],
        window: (u64, u64),
        phases: &Phases,
    ) -> Vec<Option<CycleLocks>> {
        let inside = |c: &(u64, u64)| c.0 >= window.0 && c.1 <= window.1;
        let mut found: Vec<_> =
            cycles.iter().map(|c| inside(c).then(CycleLocks::default)).collect();
        let Some(recording) = &self.recording else { return vec![None; cycles.len()] };
        let analysis = &recording.analysis;
        if recording.quality.lost > 0 || analysis.dropped_always > 0 {
            return vec![None; cycles.len()];
        }
        let mutators: Vec<u32> = self.mutators.iter().map(|m| m.tid).collect();
        let its: HashMap<u32, bool> = analysis
            .threads
            .iter()
            .map(|(tid, t)| (*tid, t.ours && is_collector(&t.name)))
            .collect();
        for k in &analysis.kept {
            let (span, call) = (&k.span, k.operation);
            let carried_out = COLLECTORS_CALLS.contains(&call) && mutators.contains(&span.tid);
            // What a downgrade began was not acquired.
            let acquired = span.write || !span.downgrade;
            if !acquired || !(carried_out || its.get(&span.tid) == Some(&true)) {
                continue;
            }
            let Some(at) = cycles.partition_point(|c| c.0 <= span.start).checked_sub(1) else {
                continue;
            };
            let Some(Some(locks)) = found.get_mut(at).filter(|_| span.start <= cycles[at].1) else {
                continue;
            };
            if span.write {
                locks.write += 1;
                continue;
            }
            locks.read += 1;
            if phases.at(span.start) == Some("compact") {
                locks.compact_read += 1;
                locks.install_read += u64::from(INSTALLING.contains(&call));
            }
        }
        found
    }

    /// What a cycle cost mutators, by cause.
    fn stalls_of_cycle(&self, log: &Log, cycle: (u64, u64)) -> Vec<(String, u64, u64)> {
        let inside = |b: u64, e: u64| b < cycle.1 && e > cycle.0;
        let sum = |name: &str, list: &mut dyn Iterator<Item = (u64, u64)>| {
            let (count, ns) = list.fold((0, 0), |(n, ns), (b, e)| (n + 1, ns + (e - b)));
            (count > 0).then(|| (name.to_owned(), count, ns))
        };
        let mut all = Vec::new();
        for (outcome, list) in &log.faults {
            let faults = list.iter().map(|s| (s.begin, s.end));
            all.extend(sum(outcome, &mut faults.filter(|s| inside(s.0, s.1))));
        }
        let stops = log.stops.iter().map(|s| (s.begin, s.end));
        all.extend(sum("stop", &mut stops.filter(|s| inside(s.0, s.1))));
        let waits = log.waits.iter().map(|s| (s.begin, s.end));
        all.extend(sum("allocation", &mut waits.filter(|s| inside(s.0, s.1))));
        if let Some(recording) = &self.recording {
            let mutators: Vec<u32> = self.mutators.iter().map(|m| m.tid).collect();
            for (write, name) in [(false, "mmap_lock read"), (true, "mmap_lock write")] {
                let kept = recording.analysis.kept.iter();
                let waits = kept
                    .filter(|k| k.span.write == write && mutators.contains(&k.span.tid))
                    .map(|k| (k.span.start, k.span.acquired))
                    .filter(|w| w.1 > w.0 && inside(w.0, w.1));
                all.extend(sum(name, &mut { waits }));
            }
        }
        all
    }

    fn name(&self, tid: u32) -> String {
        let mutator = self.mutators.iter().find(|m| m.tid == tid).map(|m| m.name.clone());
        let traced = || {
            let threads = &self.recording.as_ref()?.analysis.threads;
            threads.get(&tid).map(|t| t.name.clone())
        };
        mutator.or_else(traced).unwrap_or_default()
    }

    fn worst(&self, causes: &Causes<'_>, tid: u32, what: String, span: (u64, u64)) -> Worst {
        let name = self.name(tid);
        let causes = causes.of(tid, span);
        Worst {
            rank: 0,
            what,
            tid,
            role: role(&name).to_owned(),
            thread: name,
            begin: span.0.saturating_sub(self.origin),
            end: span.1.saturating_sub(self.origin),
            ns: span.1 - span.0,
            overrun_ns: None,
            cause: causes.first().map_or("unknown", |c| c.cause.as_str()).to_owned(),
            causes,
        }
    }

    fn worst_frames(&self, causes: &Causes<'_>, fill: Fill<'_>) -> Vec<Worst> {
        let inside =
            |f: &&(u32, NotedFrame)| f.1.end >= fill.window.0 && f.1.vsync <= fill.window.1;
        let mut frames: Vec<_> = self.frames.iter().filter(inside).collect();
        let overrun = |f: &NotedFrame| f.end as i64 - f.deadline as i64;
        frames.sort_by_key(|(_, f)| std::cmp::Reverse(overrun(f)));
        let worst = frames.into_iter().take(WORST).map(|(tid, f)| {
            let what = format!("frame {}", f.number);
            let worst = self.worst(causes, *tid, what, (f.vsync, f.end));
            Worst { overrun_ns: Some(overrun(f)), ..worst }
        });
        ranked(worst.collect())
    }

    fn worst_stalls(&self, log: &Log, causes: &Causes<'_>, fill: Fill<'_>) -> Vec<Worst> {
        let victim = |tid: u32| fill.victims.contains(&role(&self.name(tid)));
        let tid_of: HashMap<u32, u32> = self.mutators.iter().map(|m| (m.id, m.tid)).collect();
        let mut all: Vec<((u64, u64), u32, String)> = Vec::new();
        for slow in self.slow.iter().filter(|s| victim(s.tid)) {
            all.extend(slow.longest().map(|span| (span, slow.tid, slow.what.to_owned())));
        }
        let mut mutator_stalls = |list: &[super::collect::Stall], what: &str| {
            let mut list: Vec<_> = list.iter().collect();
            list.sort_by_key(|s| std::cmp::Reverse(s.end.saturating_sub(s.begin)));
            for s in list.into_iter().take(4 * WORST) {
                if let Some(&tid) = tid_of.get(&s.thread) {
                    all.push(((s.begin, s.end), tid, what.to_owned()));
                }
            }
        };
        log.faults.values().for_each(|list| mutator_stalls(list, "fault"));
        mutator_stalls(&log.waits, "wait for memory");
        mutator_stalls(&log.stops, "stop");
        if let Some(recording) = &self.recording {
            for k in recording.analysis.kept.iter().filter(|k| victim(k.span.tid)) {
                let wait = (k.span.start, k.span.acquired);
                all.push((wait, k.span.tid, format!("{} (mmap_lock)", k.operation)));
            }
        }
        all.retain(|(s, ..)| s.1 > s.0 && s.1 >= fill.window.0 && s.0 <= fill.window.1);
        all.sort_by_key(|(s, ..)| std::cmp::Reverse(s.1 - s.0));
        let mut chosen: Vec<((u64, u64), u32, String)> = Vec::new();
        for candidate in all {
            let ((begin, end), tid, _) = &candidate;
            // A wait inside a slow operation is its cause, not another stall.
            let overlaps =
                |c: &((u64, u64), u32, String)| c.1 == *tid && c.0.0 < *end && *begin < c.0.1;
            if !chosen.iter().any(overlaps) {
                chosen.push(candidate);
                if chosen.len() == WORST {
                    break;
                }
            }
        }
        ranked(chosen.into_iter().map(|(span, tid, w)| self.worst(causes, tid, w, span)).collect())
    }

    fn timeline(&self, log: &Log, fill: Fill<'_>) -> Timeline {
        let mut tracks: BTreeMap<&str, BTreeMap<u64, i64>> = BTreeMap::new();
        let origin = self.origin / INTERVAL;
        let mut note = |track: &'static str, at: u64, value: i64| {
            if at >= fill.window.0 && at <= fill.window.1 + INTERVAL {
                let index = (at / INTERVAL).saturating_sub(origin);
                let worst = tracks.entry(track).or_default().entry(index).or_insert(value);
                *worst = value.max(*worst);
            }
        };
        for slow in &self.slow {
            // All operations of one name are one track.
            slow.worst().for_each(|(at, ns)| note(slow.what, at, ns as i64));
        }
        for (_, f) in &self.frames {
            note("frame overrun", f.end, f.end as i64 - f.deadline as i64);
        }
        for (at, ns) in self.hiccups.iter().flat_map(|h| &h.worst) {
            note("hiccup", *at, *ns as i64);
        }
        for s in log.faults.values().flatten() {
            note("fault", s.end, (s.end - s.begin) as i64);
        }
        if let Some(recording) = &self.recording {
            for k in &recording.analysis.kept {
                let name = self.name(k.span.tid);
                if fill.victims.contains(&role(&name)) || is_collector(&name) {
                    let (track, wait) = (
                        if k.span.write { "mmap_lock write wait" } else { "mmap_lock read wait" },
                        k.span.acquired - k.span.start,
                    );
                    note(track, k.span.acquired, wait as i64);
                }
            }
        }
        let length = tracks.values().filter_map(|t| t.keys().last()).max().map_or(0, |&i| i + 1);
        Timeline {
            interval_ns: INTERVAL,
            tracks: tracks
                .into_iter()
                .map(|(name, values)| Track {
                    name: name.to_owned(),
                    worst: (0..length).map(|i| values.get(&i).copied()).collect(),
                })
                .collect(),
        }
    }

    fn spans(&self, log: &Log, phases: &Phases, fill: Fill<'_>) -> Spans {
        let at = |t: u64| t.saturating_sub(self.origin);
        let within = |b: u64, e: u64| e >= fill.window.0 && b <= fill.window.1;
        let mut dropped = log.faults_lost;
        let mut spans = Spans { pid: Some(std::process::id()), ..Spans::default() };
        let faults = log.faults.iter().flat_map(|(outcome, list)| {
            list.iter()
                .filter(|s| within(s.begin, s.end))
                .map(move |s| (s.begin, s.end, (s, outcome)))
        });
        for (begin, end, (s, outcome)) in longest(faults.collect(), fill.spans, &mut dropped) {
            spans.faults.push(Fault {
                mutator: (s.thread != u32::MAX).then_some(s.thread),
                begin: at(begin),
                end: at(end),
                outcome: outcome.clone(),
            });
        }
        let frames = self.frames.iter().filter(|(_, f)| within(f.vsync, f.end));
        let frames = frames.map(|(tid, f)| (f.vsync, f.end, (*tid, f)));
        for (_, _, (tid, f)) in longest(frames.collect(), fill.spans, &mut dropped) {
            spans.frames.push(Frame {
                number: f.number,
                tid,
                vsync: at(f.vsync),
                begin: at(f.begin),
                end: at(f.end),
                deadline: at(f.deadline),
            });
        }
        if let Some(recording) = &self.recording {
            let analysis = &recording.analysis;
            dropped += analysis.dropped;
            let kept = analysis.kept.iter().map(|k| (k.span.start, k.span.released, k));
            for (_, _, k) in longest(kept.collect(), fill.spans, &mut dropped) {
                spans.locks.push(rows::span(recording, k, phases, self.origin));
            }
            let off = analysis.off.iter().map(|o| (o.begin, o.end, o));
            for (_, _, o) in longest(off.collect(), fill.spans, &mut dropped) {
                spans.switches.push(Switch {
                    tid: o.tid,
                    begin: at(o.begin),
                    woken: at(o.woken),
                    end: at(o.end),
                    state: match o.state {
                        State::Preempted => "preempted",
                        State::Interruptible => "interruptible",
                        State::Uninterruptible => "uninterruptible",
                    }
                    .to_owned(),
                    wait: match o.place {
                        None => "",
                        Some(crate::perf::analysis::Sleep::MmapLock) => "mmap_lock",
                        Some(crate::perf::analysis::Sleep::VmaLock) => "vma lock",
                        Some(crate::perf::analysis::Sleep::Userfault) => "userfault",
                    }
                    .to_owned(),
                });
            }
        }
        let mut threads: BTreeMap<u32, ThreadName> = BTreeMap::new();
        let traced = self.recording.iter().flat_map(|r| &r.analysis.threads);
        let held = |tid: u32| spans.locks.iter().any(|lock| lock.tid == tid);
        let traced = traced
            .filter(|(tid, t)| t.ours || held(**tid))
            .map(|(tid, t)| (*tid, t.name.clone(), !t.ours));
        let noted = self.mutators.iter().map(|m| (m.tid, m.name.clone(), false));
        for (tid, name, foreign) in traced.chain(noted) {
            let mutator = self.mutators.iter().find(|m| m.tid == tid).map(|m| m.id);
            let role = role(&name).to_owned();
            threads.insert(tid, ThreadName { tid, name, role, mutator, foreign });
        }
        spans.threads = threads.into_values().collect();
        spans.dropped = dropped;
        spans
    }

    fn utilization(&self, log: &Log, fill: Fill<'_>) -> Vec<Utilization> {
        let mut counted: Vec<String> =
            ["pauses", "own stops", "missing pages", "waits for memory"].map(String::from).into();
        if self.recording.is_some() {
            counted.push("mmap_lock waits of 20 us or more".to_owned());
        }
        let of = |m: &Mutator| {
            let own = |s: &&super::collect::Stall| s.thread == m.id;
            let stalls = log.stops.iter().chain(log.faults.values().flatten()).chain(&log.waits);
            let mut lost: Vec<(u64, u64)> = stalls
                .filter(own)
                .map(|s| (s.begin, s.end))
                .chain(log.pauses.iter().map(|p| (p.stopped, p.released)))
                .collect();
            if let Some(recording) = &self.recording {
                let kept = recording.analysis.kept.iter().filter(|k| k.span.tid == m.tid);
                lost.extend(kept.map(|k| (k.span.start, k.span.acquired)));
            }
            let mmu = of_thread(m.id, lost, fill.window);
            Utilization {
                mutator: m.id,
                name: m.name.clone(),
                lost_ns: mmu.lost_ns,
                counted: counted.clone(),
                windows: mmu
                    .windows
                    .iter()
                    .map(|w| WindowUtilization {
                        window_ms: w.window_ms,
                        utilization: w.utilization,
                    })
                    .collect(),
            }
        };
        self.mutators.iter().map(of).collect()
    }
}

/// A recorder's latencies as a file has them.
pub fn distribution(recorder: &super::latency::Recorder) -> Distribution {
    Distribution::from_parts(recorder.buckets(), recorder.total(), recorder.max())
}

fn ranked(mut worst: Vec<Worst>) -> Vec<Worst> {
    worst.iter_mut().zip(1..).for_each(|(w, rank)| w.rank = rank);
    worst
}

/// The `most` longest, in order of time.
fn longest<T>(mut all: Vec<(u64, u64, T)>, most: usize, dropped: &mut u64) -> Vec<(u64, u64, T)> {
    if all.len() > most {
        all.sort_by_key(|(b, e, _)| std::cmp::Reverse(e.saturating_sub(*b)));
        *dropped += (all.len() - most) as u64;
        all.truncate(most);
    }
    all.sort_by_key(|&(b, ..)| b);
    all
}

fn faults(log: &Log, window: (u64, u64), origin: u64) -> Faults {
    let within = |s: &&super::collect::Stall| s.end >= window.0 && s.begin <= window.1;
    let length = |s: &super::collect::Stall| s.end.saturating_sub(s.begin);
    let edges: Vec<u64> = (14..70).map(|i| 2f64.powf(f64::from(i) / 2.0) as u64).collect();
    let mut cells: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    for s in log.faults.values().flatten().filter(within) {
        let row = edges.partition_point(|&e| e < length(s)).min(edges.len() - 1);
        let column = s.end.saturating_sub(origin) / INTERVAL;
        *cells.entry((column as u32, row as u32)).or_default() += 1;
    }
    Faults {
        all: Distribution::of(log.faults.values().flatten().filter(within).map(length)),
        by_outcome: log
            .faults
            .iter()
            .map(|(outcome, list)| StallKind {
                kind: outcome.clone(),
                ns: Distribution::of(list.iter().filter(within).map(length)),
            })
            .filter(|k| !k.ns.is_empty())
            .collect(),
        lost: log.faults_lost,
        heat: Heat {
            interval_ns: INTERVAL,
            edges,
            cells: cells.into_iter().map(|((c, r), n)| (c, r, n)).collect(),
        },
    }
}
