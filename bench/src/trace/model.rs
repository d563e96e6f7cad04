//! A timeline before it is encoded: processes, tracks, slices.
//!
//! Slices of a track never overlap. What would overlap (the lock held while a frame is drawn is
//! on another track; two faults of threads that are no mutators are not) goes to a further track of
//! the same name. What took no time because nothing was waited for is no slice; what happened within a
//! nanosecond is one.
//!
//! Whoever reads a timeline keeps one fact for a name, one process for a number, and a counter's value
//! until the next: so the names of a slice's facts differ, a run's number is its own, and a counter has a
//! value for each interval.

use std::collections::HashSet;

use crate::schema::{Run, Track as Followed, Worst};
use crate::stress::units;

/// Runs that have no number of their own are counted from here on: no process of Linux has a number so large
/// (`PID_MAX_LIMIT`).
const NO_PID: u32 = 1 << 22;

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// The run's name.
    pub name: String,
    /// The kernel's id of the process; where that is not known or another run has it, a number that no process
    /// has. Its first thread has the same, as readers expect.
    pub pid: u32,
    /// The first thread's name.
    pub first_thread: String,
    /// Its threads, and what is in no thread.
    pub tracks: Vec<Track>,
    /// Values over time.
    pub counters: Vec<Counter>,
}

/// Slices in order of time, none overlapping another.
#[derive(Debug, Clone, PartialEq)]
pub struct Track {
    /// Its name.
    pub name: String,
    /// The thread that it belongs to: the kernel's id and its name. The first thread has its process's
    /// [`Process::pid`].
    pub thread: Option<(u32, String)>,
    /// What happened.
    pub slices: Vec<Slice>,
}

/// Something that took time.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// What.
    pub name: String,
    /// The sort: `gc`, `pause`, `frame`, `fault`, `mmap_lock`, `scheduling`, `worst`.
    pub category: &'static str,
    /// Its begin, nanoseconds of `CLOCK_MONOTONIC`.
    pub begin: u64,
    /// Its end.
    pub end: u64,
    /// Further facts: name and text. No name is there twice.
    pub facts: Vec<(String, String)>,
}

impl Slice {
    /// Adds a fact. If there is one of this name, it is numbered: `part`, `part 2`, `part 3`.
    fn fact(&mut self, name: &str, text: String) {
        let known = |key: &str| self.facts.iter().any(|(name, _)| name == key);
        let numbered = (2..).map(|n| format!("{name} {n}"));
        let key = std::iter::once(name.to_owned()).chain(numbered).find(|key| !known(key));
        self.facts.push((key.expect("there is always a next number"), text));
    }
}

/// A value over time.
#[derive(Debug, Clone, PartialEq)]
pub struct Counter {
    /// Its name.
    pub name: String,
    /// Time and nanoseconds; each value lasts until the next.
    pub values: Vec<(u64, i64)>,
}

/// The timelines of runs.
pub fn processes(runs: &[&Run]) -> Vec<Process> {
    let mut taken = HashSet::new();
    let number = |(run, beyond): (&&Run, u32)| {
        let own = run.spans.pid.filter(|pid| taken.insert(*pid));
        own.unwrap_or(beyond)
    };
    let pids: Vec<u32> = runs.iter().zip(NO_PID..).map(number).collect();
    runs.iter().zip(pids).map(|(run, pid)| process(run, pid)).collect()
}

/// Collects the tracks of a run; all times are moved to the machine's clock here.
struct Builder<'a> {
    run: &'a Run,
    pid: u32,
    tracks: Vec<Track>,
}

impl Builder<'_> {
    fn slice(&self, name: String, category: &'static str, begin: u64, end: u64) -> Slice {
        let at = |t: u64| self.run.origin_ns + t;
        Slice { name, category, begin: at(begin), end: at(end.max(begin)), facts: Vec::new() }
    }

    /// Adds slices as tracks of a name: as many as it takes for none to overlap.
    fn put(&mut self, name: &str, thread: Option<(u32, String)>, mut slices: Vec<Slice>) {
        slices.sort_by_key(|slice| (slice.begin, slice.end));
        let mut lanes: Vec<Vec<Slice>> = Vec::new();
        for slice in slices {
            let free =
                lanes.iter_mut().find(|lane| lane.last().is_none_or(|l| l.end <= slice.begin));
            match free {
                Some(lane) => lane.push(slice),
                None => lanes.push(vec![slice]),
            }
        }
        for slices in lanes {
            self.tracks.push(Track { name: name.to_owned(), thread: thread.clone(), slices });
        }
    }
}

fn process(run: &Run, pid: u32) -> Process {
    let mut builder = Builder { run, pid, tracks: Vec::new() };
    collector(&mut builder);
    worst(&mut builder, "worst frame", &run.worst_frames);
    worst(&mut builder, "worst stall", &run.worst_stalls);
    threads(&mut builder);
    let left_out = match run.spans.dropped {
        0 => String::new(),
        n => format!(" (the {} shortest events left out)", units::count(n)),
    };
    // Where nothing was recorded of the first thread, its name is the program's.
    let first = run.spans.threads.iter().find(|t| Some(t.tid) == run.spans.pid);
    Process {
        name: format!("{}{left_out}", run.name),
        pid,
        first_thread: first.map_or("firn", |t| t.name.as_str()).to_owned(),
        tracks: builder.tracks,
        counters: counters(run),
    }
}

/// The worst of each interval, 0 where there was nothing, and 0 after the last one: readers draw a value until the
/// next. They draw nothing before the first, so what comes before it is left out: a timeline that began there would be
/// empty for as long as the run warmed up.
fn counters(run: &Run) -> Vec<Counter> {
    let timeline = &run.timeline;
    let begin = |i: usize| run.origin_ns + i as u64 * timeline.interval_ns;
    let counter = |track: &Followed| {
        let first = track.worst.iter().position(Option::is_some)?;
        let worst = track.worst.iter().map(|worst| worst.unwrap_or(0)).chain([0]);
        Some(Counter {
            name: format!("worst of interval: {}", track.name),
            values: worst.enumerate().skip(first).map(|(i, ns)| (begin(i), ns)).collect(),
        })
    };
    timeline.tracks.iter().filter_map(counter).collect()
}

fn collector(builder: &mut Builder<'_>) {
    let (mut cycles, mut phases, mut pauses) = (Vec::new(), Vec::new(), Vec::new());
    for cycle in &builder.run.cycles {
        let mut slice =
            builder.slice(format!("cycle {}", cycle.number), "gc", cycle.begin, cycle.end);
        slice.fact("cause", cycle.cause.clone());
        slice.fact("live", units::bytes(cycle.live_bytes));
        slice.fact("pages copied", cycle.pages_copied.to_string());
        slice.fact("pages moved", cycle.pages_moved.to_string());
        slice.fact("pages by mutators", cycle.pages_by_mutators.to_string());
        cycles.push(slice);
        phases.extend(
            cycle.phases.iter().map(|p| builder.slice(p.name.clone(), "gc", p.begin, p.end)),
        );
        for pause in &cycle.pauses {
            let name = format!("pause: {}", pause.kind);
            let mut slice = builder.slice(name, "pause", pause.requested, pause.released);
            let stopping = pause.stopped.saturating_sub(pause.requested);
            slice.fact("cycle", cycle.number.to_string());
            slice.fact("time to safepoint", units::time(stopping));
            slice.fact("stopped", units::time(pause.released.saturating_sub(pause.stopped)));
            pauses.push(slice);
        }
    }
    builder.put("GC cycles", None, cycles);
    builder.put("GC phases", None, phases);
    builder.put("GC pauses", None, pauses);
}

fn worst(builder: &mut Builder<'_>, what: &str, list: &[Worst]) {
    for worst in list {
        let name = format!("{what} {}: {}", worst.rank, worst.what);
        let mut slice = builder.slice(name.clone(), "worst", worst.begin, worst.end);
        slice.fact("cause", worst.cause.clone());
        slice.fact("thread", worst.thread.clone());
        if let Some(overrun) = worst.overrun_ns {
            slice.fact("overrun", units::signed_time(overrun));
        }
        for cause in &worst.causes {
            let mut text = format!("{} {}", units::time(cause.ns), cause.cause);
            for holder in &cause.holders {
                text += &format!(
                    ", held by {} ({}) for {}",
                    holder.name,
                    holder.operation,
                    units::time(holder.held_ns)
                );
            }
            slice.fact("part", text);
        }
        builder.put(&name, None, vec![slice]);
    }
}

fn threads(builder: &mut Builder<'_>) {
    let run = builder.run;
    let spans = &run.spans;
    for thread in &spans.threads {
        let tid = if Some(thread.tid) == spans.pid { builder.pid } else { thread.tid };
        let (id, label) = match thread.foreign {
            false => (Some((tid, thread.name.clone())), thread.name.clone()),
            // Its tracks belong to the run, it does not belong to the process.
            true => (None, format!("{} (of another process)", thread.name)),
        };
        let mut frames = Vec::new();
        for frame in spans.frames.iter().filter(|f| f.tid == thread.tid) {
            let late = frame.end as i64 - frame.deadline as i64;
            let name = match late {
                1.. => format!("frame {} late {}", frame.number, units::time(late as u64)),
                _ => format!("frame {}", frame.number),
            };
            let mut slice = builder.slice(name, "frame", frame.begin, frame.end);
            slice.fact("overrun", units::signed_time(late));
            let waited = frame.begin.saturating_sub(frame.vsync);
            slice.fact("began after vsync", units::time(waited));
            frames.push(slice);
        }
        let mut faults = Vec::new();
        for fault in
            spans.faults.iter().filter(|f| f.mutator.is_some() && f.mutator == thread.mutator)
        {
            let name = format!("fault: {}", fault.outcome);
            faults.push(builder.slice(name, "fault", fault.begin, fault.end));
        }
        let (mut waits, mut holds) = (Vec::new(), Vec::new());
        for lock in spans.locks.iter().filter(|lock| lock.tid == thread.tid) {
            let mode = lock.mode.name();
            let suffix = if lock.operation.is_empty() {
                String::new()
            } else {
                format!(" for {}", lock.operation)
            };
            // A lock that was free was taken without a wait.
            if lock.acquired > lock.start {
                let wait = format!("mmap_lock wait, {mode}{suffix}");
                waits.push(builder.slice(wait, "mmap_lock", lock.start, lock.acquired));
            }
            let hold = format!("mmap_lock held, {mode}{suffix}");
            holds.push(builder.slice(hold, "mmap_lock", lock.acquired, lock.released));
        }
        let mut off = Vec::new();
        for switch in spans.switches.iter().filter(|switch| switch.tid == thread.tid) {
            let at =
                if switch.wait.is_empty() { String::new() } else { format!(" in {}", switch.wait) };
            if switch.woken > switch.begin {
                let name = format!("{}{at}", switch.state);
                off.push(builder.slice(name, "scheduling", switch.begin, switch.woken));
            }
            // Whoever was woken on an idle processor did not queue for it.
            if switch.end > switch.woken {
                let name = if switch.woken > switch.begin { "runnable" } else { "preempted" };
                off.push(builder.slice(name.into(), "scheduling", switch.woken, switch.end));
            }
        }
        for (what, slices) in [
            ("frames", frames),
            ("faults", faults),
            ("mmap_lock waits", waits),
            ("mmap_lock holds", holds),
            ("off the processor", off),
        ] {
            builder.put(&format!("{label}: {what}"), id.clone(), slices);
        }
    }
    // Faults of threads that are no mutators have no thread to stand with.
    let known = |m: Option<u32>| m.is_some() && spans.threads.iter().any(|t| t.mutator == m);
    let others: Vec<Slice> = spans
        .faults
        .iter()
        .filter(|fault| !known(fault.mutator))
        .map(|f| builder.slice(format!("fault: {}", f.outcome), "fault", f.begin, f.end))
        .collect();
    builder.put("faults of other threads", None, others);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn everything_of_a_run_is_on_a_track() {
        let run = samples::run("art", 1);
        let processes = processes(&[&run]);
        let names: Vec<&str> = processes[0].tracks.iter().map(|t| t.name.as_str()).collect();
        for name in [
            "GC cycles",
            "GC phases",
            "GC pauses",
            "worst frame 1: frame 12",
            "worst stall 1: fault",
            "Mutator-1: frames",
            "Mutator-1: faults",
            "Mutator-1: mmap_lock waits",
            "VmaWriter-1: mmap_lock holds",
            "Mutator-1: off the processor",
        ] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        let of = |name: &str| {
            processes[0]
                .tracks
                .iter()
                .filter(move |t| t.name == name)
                .map(|t| t.slices.len())
                .sum::<usize>()
        };
        assert_eq!(of("GC cycles"), run.cycles.len());
        assert_eq!(of("Mutator-1: frames"), run.spans.frames.len());
        let wait =
            processes[0].tracks.iter().find(|t| t.name == "Mutator-1: mmap_lock waits").unwrap();
        assert_eq!(wait.slices[0].begin, run.origin_ns + 381_000_000);
        assert!(processes[0].name.contains("4 shortest events left out"));
    }

    #[test]
    fn facts_of_a_slice_have_different_names() {
        let run = samples::run("art", 1);
        let processes = processes(&[&run]);
        let slices = processes[0].tracks.iter().flat_map(|t| &t.slices);
        let names = |slice: &Slice| slice.facts.iter().map(|f| f.0.clone()).collect::<Vec<_>>();
        for slice in slices.clone() {
            let names = names(slice);
            assert_eq!(names.len(), names.iter().collect::<HashSet<_>>().len(), "{names:?}");
        }
        let worst = slices.clone().find(|s| s.name == "worst frame 1: frame 12").unwrap();
        assert_eq!(names(worst), ["cause", "thread", "overrun", "part", "part 2"]);
        let mut slice = worst.clone();
        slice.fact("part", String::new());
        slice.fact("part", String::new());
        assert_eq!(names(&slice)[5..], ["part 3", "part 4"]);
    }

    #[test]
    fn a_counter_falls_to_nothing_where_there_was_nothing_and_at_the_end() {
        let mut run = samples::run("art", 1);
        for track in &mut run.timeline.tracks {
            track.worst[..2].fill(None);
        }
        run.timeline.tracks.last_mut().unwrap().worst.fill(None);
        let (timeline, counters) = (&run.timeline, &processes(&[&run])[0].counters);
        assert_eq!(counters.len(), timeline.tracks.len() - 1);
        for (track, counter) in timeline.tracks.iter().zip(counters) {
            assert!(track.worst[7].is_none() && track.worst[6].is_some());
            let begin = |i: usize| run.origin_ns + i as u64 * timeline.interval_ns;
            assert_eq!(counter.values[0], (begin(2), track.worst[2].unwrap()));
            assert_eq!(counter.values[5], (begin(7), 0));
            let end = track.worst.len();
            assert_eq!(counter.values[end - 2..], [(begin(end), 0)]);
        }
    }

    #[test]
    fn what_took_no_time_because_nothing_was_waited_for_is_no_slice() {
        let mut run = samples::run("art", 1);
        let wait = &mut run.spans.locks[0];
        wait.start = wait.acquired;
        let (asleep, mut preempted) =
            (run.spans.switches[0].clone(), run.spans.switches[0].clone());
        preempted.woken = preempted.begin;
        run.spans.switches = vec![asleep, preempted];
        run.spans.switches[0].woken = run.spans.switches[0].end;
        let processes = processes(&[&run]);
        let of = |name: &str| -> Vec<&str> {
            let tracks = processes[0].tracks.iter().filter(|t| t.name == name);
            tracks.flat_map(|t| &t.slices).map(|s| s.name.as_str()).collect()
        };
        assert!(of("VmaWriter-1: mmap_lock waits").is_empty());
        assert_eq!(of("VmaWriter-1: mmap_lock holds").len(), 1);
        assert_eq!(of("Mutator-1: mmap_lock waits").len(), 1);
        let off = of("Mutator-1: off the processor");
        assert_eq!(off, ["uninterruptible in mmap_lock", "preempted"]);
        let slices = processes[0].tracks.iter().flat_map(|t| &t.slices);
        assert!(slices.clone().all(|s| s.end > s.begin));
    }

    #[test]
    fn who_takes_the_lock_from_outside_is_shown_but_is_no_thread_of_the_process() {
        let mut run = samples::run("art", 1);
        run.spans.threads[2].name = "khugepaged".into();
        run.spans.threads[2].foreign = true;
        let processes = processes(&[&run]);
        let name = "khugepaged (of another process): mmap_lock holds";
        let track = processes[0].tracks.iter().find(|t| t.name == name).unwrap();
        assert_eq!((&track.thread, track.slices.len()), (&None, 1));
    }

    #[test]
    fn a_run_has_its_process_s_number_unless_another_one_has_it() {
        let mut run = samples::run("art", 1);
        run.spans.threads[0].tid = 99;
        run.spans.switches[0].tid = 99;
        let mut old = run.clone();
        old.spans.pid = None;
        let processes = processes(&[&run, &run, &old]);
        let pids: Vec<u32> = processes.iter().map(|p| p.pid).collect();
        assert_eq!(pids, [99, NO_PID + 1, NO_PID + 2]);
        let names: Vec<&str> = processes.iter().map(|p| p.first_thread.as_str()).collect();
        assert_eq!(names, ["HeapTaskDaemon", "HeapTaskDaemon", "firn"]);
        let thread = |process: &Process| {
            let mut tracks = process.tracks.iter().filter_map(|t| t.thread.clone());
            tracks.find(|t| t.1 == "HeapTaskDaemon").unwrap().0
        };
        // The first thread goes with its process; where that is not known, no thread is the first.
        assert_eq!(processes.iter().map(thread).collect::<Vec<_>>(), [99, NO_PID + 1, 99]);
    }

    #[test]
    fn slices_of_a_track_never_overlap_and_none_is_lost() {
        let mut run = samples::run("art", 1);
        for frame in &mut run.spans.frames {
            frame.end += 9_000_000;
        }
        let processes = processes(&[&run]);
        for track in &processes[0].tracks {
            assert!(track.slices.windows(2).all(|w| w[0].end <= w[1].begin), "{}", track.name);
        }
        let frames = processes[0].tracks.iter().filter(|t| t.name == "Mutator-1: frames");
        assert_eq!(frames.map(|t| t.slices.len()).sum::<usize>(), run.spans.frames.len());
    }
}
