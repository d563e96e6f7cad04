//! A timeline before it is encoded: processes, tracks, slices.
//!
//! Slices of a track never overlap. What would overlap (the lock held while a frame is drawn is
//! on another track; two faults of threads that are no mutators are not) goes to a further track of
//! the same name.

use crate::schema::{Run, Worst};
use crate::stress::units;

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// The run's name.
    pub name: String,
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
    /// The thread that it belongs to: the kernel's id and its name.
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
    /// Further facts: name and text.
    pub facts: Vec<(&'static str, String)>,
}

/// A value over time.
#[derive(Debug, Clone, PartialEq)]
pub struct Counter {
    /// Its name.
    pub name: String,
    /// Time and nanoseconds.
    pub values: Vec<(u64, i64)>,
}

/// The timelines of runs.
pub fn processes(runs: &[&Run]) -> Vec<Process> {
    runs.iter().map(|run| process(run)).collect()
}

/// Collects the tracks of a run; all times are moved to the machine's clock here.
struct Builder<'a> {
    run: &'a Run,
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

fn process(run: &Run) -> Process {
    let mut builder = Builder { run, tracks: Vec::new() };
    collector(&mut builder);
    worst(&mut builder, "worst frame", &run.worst_frames);
    worst(&mut builder, "worst stall", &run.worst_stalls);
    threads(&mut builder);
    let timeline = &run.timeline;
    let counters = timeline
        .tracks
        .iter()
        .map(|track| Counter {
            name: format!("worst of interval: {}", track.name),
            values: track
                .worst
                .iter()
                .enumerate()
                .filter_map(|(i, worst)| {
                    Some((run.origin_ns + i as u64 * timeline.interval_ns, (*worst)?))
                })
                .collect(),
        })
        .collect();
    let left_out = match run.spans.dropped {
        0 => String::new(),
        n => format!(" (the {} shortest events left out)", units::count(n)),
    };
    Process { name: format!("{}{left_out}", run.name), tracks: builder.tracks, counters }
}

fn collector(builder: &mut Builder<'_>) {
    let (mut cycles, mut phases, mut pauses) = (Vec::new(), Vec::new(), Vec::new());
    for cycle in &builder.run.cycles {
        let mut slice =
            builder.slice(format!("cycle {}", cycle.number), "gc", cycle.begin, cycle.end);
        slice.facts = vec![
            ("cause", cycle.cause.clone()),
            ("live", units::bytes(cycle.live_bytes)),
            ("pages copied", cycle.pages_copied.to_string()),
            ("pages moved", cycle.pages_moved.to_string()),
            ("pages by mutators", cycle.pages_by_mutators.to_string()),
        ];
        cycles.push(slice);
        phases.extend(
            cycle.phases.iter().map(|p| builder.slice(p.name.clone(), "gc", p.begin, p.end)),
        );
        for pause in &cycle.pauses {
            let name = format!("pause: {}", pause.kind);
            let mut slice = builder.slice(name, "pause", pause.requested, pause.released);
            slice.facts = vec![
                ("cycle", cycle.number.to_string()),
                ("time to safepoint", units::time(pause.stopped.saturating_sub(pause.requested))),
                ("stopped", units::time(pause.released.saturating_sub(pause.stopped))),
            ];
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
        slice.facts = vec![("cause", worst.cause.clone()), ("thread", worst.thread.clone())];
        if let Some(overrun) = worst.overrun_ns {
            slice.facts.push(("overrun", units::signed_time(overrun)));
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
            slice.facts.push(("part", text));
        }
        builder.put(&name, None, vec![slice]);
    }
}

fn threads(builder: &mut Builder<'_>) {
    let run = builder.run;
    let spans = &run.spans;
    for thread in &spans.threads {
        let id = Some((thread.tid, thread.name.clone()));
        let mut frames = Vec::new();
        for frame in spans.frames.iter().filter(|f| f.tid == thread.tid) {
            let late = frame.end as i64 - frame.deadline as i64;
            let name = match late {
                1.. => format!("frame {} late {}", frame.number, units::time(late as u64)),
                _ => format!("frame {}", frame.number),
            };
            let mut slice = builder.slice(name, "frame", frame.begin, frame.end);
            slice.facts = vec![
                ("overrun", units::signed_time(late)),
                ("began after vsync", units::time(frame.begin.saturating_sub(frame.vsync))),
            ];
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
            let wait = format!("mmap_lock wait, {mode}{suffix}");
            waits.push(builder.slice(wait, "mmap_lock", lock.start, lock.acquired));
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
            let name = if switch.woken > switch.begin { "runnable" } else { "preempted" };
            off.push(builder.slice(name.into(), "scheduling", switch.woken, switch.end));
        }
        for (what, slices) in [
            ("frames", frames),
            ("faults", faults),
            ("mmap_lock waits", waits),
            ("mmap_lock holds", holds),
            ("off the processor", off),
        ] {
            builder.put(&format!("{}: {what}", thread.name), id.clone(), slices);
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
