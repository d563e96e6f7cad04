//! The nine scenarios: who plays, in which variants, which figures they are about, and what follows.

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;

use firn::{BackendKind, Options};
use firn_heap::sys::thread::Policy;

use super::cast::{files, forks, mutator, readers, writers};
use super::cgroup::Cap;
use super::figures;
use super::options::Plan;
use super::rig::{self, Done, Member, Setup};
use super::stage::Scheduling;
use super::verdict;
use crate::exit::Failure;
use crate::measure::cost::Price;
use crate::measure::latency::Discipline;
use crate::progress::{Progress, Stop};
use crate::schema::{Document, Run};
use crate::workloads::{frames, lru};

/// A scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Compaction while other threads map and unmap.
    CompactVsWriters,
    /// Sub-ranges registered and unregistered at a rate.
    RegisterStorm,
    /// A collector of low priority, hogs, and an interface that needs the lock.
    PriorityInversion,
    /// The same heap traffic with mappings that change every cycle, or never.
    VolatileRegion,
    /// Everybody who needs a mapping looked up against writers.
    LookupVsWriters,
    /// Mappings unmapped, split and merged beside faulting neighbours.
    MunmapChurn,
    /// Forks of a large process while threads fault.
    ForkVsFault,
    /// Faults that read from disk against writers.
    FileFault,
    /// Frames and caches with the collector at work and writers behind.
    GcFrames,
}

impl Scenario {
    /// All, in the order of the help.
    pub const ALL: [Scenario; 9] = [
        Scenario::CompactVsWriters,
        Scenario::RegisterStorm,
        Scenario::PriorityInversion,
        Scenario::VolatileRegion,
        Scenario::LookupVsWriters,
        Scenario::MunmapChurn,
        Scenario::ForkVsFault,
        Scenario::FileFault,
        Scenario::GcFrames,
    ];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::CompactVsWriters => "compact-vs-writers",
            Scenario::RegisterStorm => "register-storm",
            Scenario::PriorityInversion => "priority-inversion",
            Scenario::VolatileRegion => "volatile-region",
            Scenario::LookupVsWriters => "lookup-vs-writers",
            Scenario::MunmapChurn => "munmap-churn",
            Scenario::ForkVsFault => "fork-vs-fault",
            Scenario::FileFault => "file-fault",
            Scenario::GcFrames => "gc-frames",
        }
    }

    /// What happens in it.
    pub fn does(self) -> &'static str {
        match self {
            Scenario::CompactVsWriters => {
                "The heap is compacted again and again, first alone, then while other threads map, \
                 split and unmap."
            }
            Scenario::RegisterStorm => {
                "A thread registers and unregisters parts of a range with userfaultfd at a rate, while \
                 mutators work and neighbours fault and map."
            }
            Scenario::PriorityInversion => {
                "The collector has the lowest priority and hogs keep the processors busy; an interface \
                 of high priority needs mmap_lock for reading and for writing in each frame."
            }
            Scenario::VolatileRegion => {
                "The same heap traffic, with mappings that change in every cycle (art) or never \
                 (pingpong), beside neighbours whose own mappings never change."
            }
            Scenario::LookupVsWriters => {
                "Threads that need a mapping looked up (faults, userfaultfd, madvise, \
                 process_vm_readv, /proc/self/maps, zero-copy receive), without and with writers."
            }
            Scenario::MunmapChurn => {
                "Mappings are split, merged and unmapped beside neighbours that fault; the tail of \
                 munmap itself, which waits for those who use a VMA."
            }
            Scenario::ForkVsFault => {
                "A large process with many mappings forks while threads fault, first faults included."
            }
            Scenario::FileFault => {
                "Faults on a file that must be read from disk, without and with writers of mappings."
            }
            Scenario::GcFrames => {
                "The whole system: a UI at 120 Hz, then caches, on a collected heap, with writers of \
                 mappings in the background."
            }
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(name: &str) -> Result<Scenario, String> {
        Scenario::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| {
            let names: Vec<_> = Scenario::ALL.iter().map(|s| s.name()).collect();
            format!("there is no scenario '{name}'; there are {}", names.join(", "))
        })
    }
}

/// Nanoseconds between two collections of a scenario.
const BETWEEN: u64 = 5_000_000;
/// The roles whose stalls are explained.
const VICTIMS: &[&str] =
    &["Mutator", "UiMutator", "Neighbour", "VmaReader", "FileFaulter", "Forker"];

fn mutators<'a>(count: usize) -> Member<'a> {
    mutators_of(count, mutator::LIVE_BYTES / count)
}

fn mutators_of<'a>(count: usize, bytes: usize) -> Member<'a> {
    let body = move |heap: &firn::Heap, stage: &super::stage::Stage, n: usize| {
        mutator::mutator(heap, stage, n, bytes);
    };
    let member = Member::new("Mutator", count, "reads and replaces entries, paced", body);
    Member { prepares: true, ..member }
}

fn requester<'a>() -> Member<'a> {
    Member::new("Requester", 1, "asks for one collection after the other", |heap, stage, _| {
        mutator::requester(heap, stage, BETWEEN);
    })
}

fn habits(plan: &Plan) -> writers::Habits {
    writers::Habits { pages: plan.writer_pages, held: plan.writer_held, rate: plan.writer_rate }
}

fn storm<'a>(plan: &Plan) -> Member<'a> {
    let habits = habits(plan);
    Member::new("VmaWriter", plan.writers, "maps, touches, splits, unmaps", move |_, stage, _| {
        writers::writer(stage, habits);
    })
}

fn neighbours<'a>(count: usize) -> Member<'a> {
    Member::new("Neighbour", count, "faults on mappings that never change", |_, stage, _| {
        readers::neighbour(stage);
    })
}

fn with_backend(plan: &Plan, backend: BackendKind) -> Options {
    Options { backend, ..plan.options.clone() }
}

fn setup<'a>(
    scenario: Scenario,
    variant: &'static str,
    options: Options,
    members: Vec<Member<'a>>,
) -> Setup<'a> {
    Setup {
        scenario,
        variant,
        workload: "entries",
        options,
        members,
        driver: None,
        victims: VICTIMS,
        prepare: Box::new(|_, _| ()),
    }
}

/// Runs a scenario in all its variants under all back ends, and adds the runs to the document.
///
/// # Errors
/// Exit code 3 where a heap cannot be made, 2 where it is too small.
pub fn perform(
    scenario: Scenario,
    plan: &Plan,
    price: Option<Price>,
    stop: &Stop,
    progress: &Progress,
    document: &mut Document,
) -> Result<(), Failure> {
    let variants: &[&'static str] = match scenario {
        Scenario::PriorityInversion => &[""],
        Scenario::GcFrames => &["frames", "lru"],
        _ => &["quiet", "storm"],
    };
    let mut runs = Vec::new();
    for &variant in variants {
        for &backend in &plan.backends {
            if stop.requested() {
                break;
            }
            let options = with_backend(plan, backend);
            let play = Play { plan, price, stop, progress };
            let done = variant_of(scenario, variant, options, play);
            match done {
                Ok(mut done) => {
                    own_figures(scenario, &mut done);
                    document.skipped.append(&mut done.skipped);
                    if let Some(e) = &mut document.environment
                        && e.measuring.locks.is_none()
                    {
                        e.measuring.locks = done.run.locks.as_ref().map(|l| l.source);
                        e.measuring.blocked = done.run.blocked.first().map(|b| b.source);
                    }
                    runs.push(done.run);
                }
                Err(Trouble::Skipped(line)) => {
                    document.skipped.push(line);
                }
                Err(Trouble::Failed(failure)) => return Err(failure),
            }
        }
    }
    let noise = document.noise.as_ref();
    for i in 0..runs.len() {
        runs[i].verdict = verdict::of(scenario, &runs, i, noise);
    }
    document.runs.append(&mut runs);
    Ok(())
}

/// What all runs have in common.
#[derive(Clone, Copy)]
struct Play<'a> {
    plan: &'a Plan,
    price: Option<Price>,
    stop: &'a Stop,
    progress: &'a Progress,
}

/// Why a run did not happen.
enum Trouble {
    /// The machine cannot play it: a line for the report.
    Skipped(String),
    /// The command ends.
    Failed(Failure),
}

fn variant_of(
    scenario: Scenario,
    variant: &'static str,
    options: Options,
    play: Play<'_>,
) -> Result<Done, Trouble> {
    let Play { plan, price, stop, progress } = play;
    let stormy = variant == "storm";
    let go = |setup: Setup<'_>| {
        rig::perform(setup, plan, price, stop, progress).map_err(Trouble::Failed)
    };
    match scenario {
        Scenario::CompactVsWriters => {
            let mut members = vec![mutators(plan.mutators), requester()];
            members.extend(stormy.then(|| storm(plan)));
            go(setup(scenario, variant, options, members))
        }
        Scenario::RegisterStorm => {
            let rate = plan.register_rate;
            let mut members = vec![mutators(plan.mutators), requester(), neighbours(plan.readers)];
            members.extend(stormy.then(|| {
                Member::new(
                    "Registrar",
                    1,
                    "registers and unregisters parts of a range",
                    move |_, stage, _| writers::registrar(stage, rate),
                )
            }));
            go(setup(scenario, variant, options, members))
        }
        Scenario::PriorityInversion => go(inversion(plan, options)),
        Scenario::VolatileRegion => {
            let mut members = vec![mutators(plan.mutators), requester(), neighbours(plan.readers)];
            members.extend(stormy.then(|| storm(plan)));
            go(setup(scenario, variant, options, members))
        }
        Scenario::LookupVsWriters => {
            let reader = Member::new(
                "VmaReader",
                plan.readers,
                "needs mappings looked up in every way",
                |_, stage, _| readers::reader(stage),
            );
            let mut members = vec![mutators(1), requester(), reader];
            members.extend(stormy.then(|| storm(plan)));
            go(setup(scenario, variant, options, members))
        }
        Scenario::MunmapChurn => {
            let pages = 8 * plan.writer_pages;
            let mut members = vec![mutators(1), requester(), neighbours(plan.readers)];
            let churners = if stormy { plan.writers } else { 1 };
            members.push(Member::new(
                "Churner",
                churners,
                "splits, merges and unmaps",
                move |_, stage, _| writers::churner(stage, pages),
            ));
            go(setup(scenario, variant, options, members))
        }
        Scenario::ForkVsFault => {
            // Quiet is a small process; the storm is the large one.
            let (touched, vmas) = if stormy { (plan.touched, plan.vmas) } else { (4 << 20, 16) };
            let ballast = Mutex::new(None);
            let members = vec![
                mutators(1),
                requester(),
                Member::new(
                    "Neighbour",
                    plan.readers,
                    "faults, first faults included",
                    |_, s, _| {
                        forks::fresh(s);
                    },
                ),
                Member::new("Forker", 1, "forks five times a second", |_, s, _| forks::forker(s)),
            ];
            let mut setup = setup(scenario, variant, options, members);
            setup.prepare = Box::new(|_, stage| match forks::Ballast::make(touched, vmas) {
                Ok(made) => *ballast.lock().unwrap() = Some(made),
                Err(e) => stage.trouble(e),
            });
            go(setup)
        }
        Scenario::FileFault => {
            let cold = files::Cold::make(&plan.folder).map_err(Trouble::Skipped)?;
            let mut members = vec![
                mutators(1),
                requester(),
                Member::new(
                    "FileFaulter",
                    plan.readers,
                    "touches pages of a file that must be read",
                    |_, stage, n| files::faulter(stage, &cold, n),
                ),
            ];
            members.extend(stormy.then(|| storm(plan)));
            go(setup(scenario, variant, options, members))
        }
        Scenario::GcFrames => go(whole_system(variant, plan, options)),
    }
}

/// Bytes that each mutator of `priority-inversion` keeps alive: a collector that gets little of the processors
/// shall still flip many times, for it is at a flip that it may be preempted with the lock held.
const LITTLE: usize = 4 << 20;

/// The collector as low as asked for, hogs, and an interface as high as allowed.
fn inversion<'a>(plan: &'a Plan, options: Options) -> Setup<'a> {
    let mut options = options;
    let lowest = match plan.daemon_idle {
        true => ("daemon-policy", "idle"),
        false => ("daemon-nice", "19"),
    };
    options.set(lowest.0, lowest.1).expect("a valid option");
    // Room for what a starved collector leaves lying: going over the budget makes it give memory back, under the
    // lock.
    options.heap = options.heap.max(512 << 20);
    let high = Scheduling { nice: Some(-15), policy: None };
    let hogs = Scheduling { nice: None, policy: Some(Policy::Other) };
    let members = vec![
        mutators_of(1, LITTLE),
        Member {
            scheduling: high,
            prepares: true,
            ..Member::new(
                "UiMutator",
                1,
                "renders at 120 Hz, maps and unmaps in each frame",
                |heap, stage, _| mutator::interface(heap, stage, LITTLE),
            )
        },
        requester(),
        Member {
            scheduling: hogs,
            ..Member::new("CpuHog", plan.hogs, "computes in bursts", |_, stage, n| {
                mutator::hog(stage, n);
            })
        },
    ];
    let mut setup = setup(Scenario::PriorityInversion, "", options, members);
    setup.victims = &["UiMutator"];
    if let Some(percent) = plan.daemon_cap {
        // Kept as long as the setup, and so longer than the heap.
        let cap = Mutex::new(None);
        setup.prepare = Box::new(move |_, stage| match Cap::collector(percent) {
            Ok(made) => *cap.lock().unwrap() = Some(made),
            Err(line) => stage.trouble(line),
        });
    }
    setup
}

fn whole_system<'a>(variant: &'static str, plan: &'a Plan, options: Options) -> Setup<'a> {
    let mut options = options;
    // A writer that paces itself: a background, not a storm.
    let usual = habits(plan);
    let rate = if usual.rate == 0 { 100 } else { usual.rate };
    let habits = writers::Habits { rate, held: plan.background_held, ..usual };
    let writers = Member::new(
        "VmaWriter",
        plan.writers,
        "maps, touches, splits, unmaps, at a rate",
        move |_, stage, _| writers::writer(stage, habits),
    );
    let seconds = plan.seconds;
    let threads = plan.mutators.max(2);
    let seed = plan.seed;
    let driver: rig::Driver<'a> = match variant {
        "frames" => {
            options.heap = options.heap.max(256 << 20);
            Box::new(move |bench| {
                let warm_seconds = seconds / 4.0;
                frames::run(bench, frames::FramesParams { threads, seed, warm_seconds, seconds })
            })
        }
        _ => {
            let capacity = lru::SPEC_CAPACITY / 4;
            options.heap = options.heap.max(2 * threads * lru::live_bytes(capacity));
            Box::new(move |bench| {
                let stages =
                    [(seconds / 4.0, false), (seconds, true)].map(|(seconds, measured)| {
                        lru::Stage {
                            mode: Discipline::Fixed,
                            seconds,
                            rate: Some(200_000.0),
                            measured,
                        }
                    });
                lru::run(
                    bench,
                    &lru::LruParams { threads, capacity, seed, stages: stages.to_vec() },
                )
            })
        }
    };
    let mut setup = setup(Scenario::GcFrames, variant, options, vec![writers]);
    setup.workload = variant;
    setup.driver = Some(driver);
    setup
}

/// The figures that a scenario is about, behind those that all have.
fn own_figures(scenario: Scenario, done: &mut Done) {
    figures::common(done);
    let run = &mut done.run;
    figures::operation(run, "operation_ns", "an operation of a mutator", "Mutator", "operation");
    match scenario {
        Scenario::CompactVsWriters => {
            figures::operation(run, "writer_mmap_ns", "a writer's mmap", "VmaWriter", "mmap");
        }
        Scenario::RegisterStorm => {
            figures::operation(run, "register_ns", "UFFDIO_REGISTER", "Registrar", "register");
            let what = "UFFDIO_UNREGISTER";
            figures::operation(run, "unregister_ns", what, "Registrar", "unregister");
            let seconds = run.window.1.saturating_sub(run.window.0) as f64 / 1e9;
            let calls = super::rig::latency(run, "Registrar", "register").map(|ns| ns.count);
            if let Some(calls) = calls {
                let what = "UFFDIO_REGISTER calls a second that were reached";
                figures::add(run, "registers_per_s", calls as f64 / seconds, "per s", what, 0);
            }
            neighbour(run);
        }
        Scenario::PriorityInversion => {
            figures::lock_waits(run, "ui_wait", "the interface's waits for mmap_lock", "UiMutator");
            for (name, operation) in
                [("ui_mmap_ns", "mmap"), ("ui_fault_ns", "first fault"), ("ui_munmap_ns", "munmap")]
            {
                let what = format!("the interface's {operation}");
                figures::operation(run, name, &what, "UiMutator", operation);
            }
            frames_missed(run);
        }
        Scenario::VolatileRegion => neighbour(run),
        Scenario::LookupVsWriters => {
            for operation in [
                "fault",
                "first fault",
                "madvise",
                "UFFDIO_ZEROPAGE",
                "process_vm_readv",
                "maps",
                "PROCMAP_QUERY",
                "zero-copy receive",
            ] {
                let name = operation.replace([' ', '-'], "_").to_lowercase() + "_ns";
                figures::operation(run, &name, operation, "VmaReader", operation);
            }
            figures::lock_waits(
                run,
                "reader_wait",
                "the readers' waits for mmap_lock",
                "VmaReader",
            );
        }
        Scenario::MunmapChurn => {
            figures::operation(run, "munmap_ns", "munmap", "Churner", "munmap");
            figures::operation(run, "split_ns", "a split by mprotect", "Churner", "split");
            neighbour(run);
        }
        Scenario::ForkVsFault => {
            figures::operation(run, "fork_ns", "fork", "Forker", "fork");
            let (first, later) = ("first fault", "copy-on-write fault");
            figures::operation(
                run,
                "first_fault_ns",
                "the first fault of a mapping",
                "Neighbour",
                first,
            );
            figures::operation(
                run,
                "cow_fault_ns",
                "a fault on a page that a fork shared",
                "Neighbour",
                later,
            );
            for (name, value) in [("vmas", run.memory.vmas), ("threads", run.memory.threads)] {
                if let Some(n) = value {
                    let what = format!("{name} of the process");
                    figures::add(run, name, n as f64, "count", &what, 0);
                }
            }
        }
        Scenario::FileFault => {
            let what = "a fault that reads from disk";
            figures::operation(run, "file_fault_ns", what, "FileFaulter", "file fault");
            figures::operation(run, "writer_mmap_ns", "a writer's mmap", "VmaWriter", "mmap");
            figures::lock_waits(
                run,
                "writer_wait",
                "the writers' waits for mmap_lock",
                "VmaWriter",
            );
        }
        Scenario::GcFrames => {
            frames_missed(run);
            let all = run.latencies.iter().find(|l| l.role == "Mutator").map(|l| l.ns.clone());
            figures::durations(
                run,
                "latency_ns",
                "latency from the due time",
                &all.unwrap_or_default(),
            );
        }
    }
}

fn neighbour(run: &mut Run) {
    let what = "a neighbour's fault on a mapping that never changes";
    figures::operation(run, "neighbour_fault_ns", what, "Neighbour", "fault");
    figures::operation(
        run,
        "neighbour_madvise_ns",
        "a neighbour's madvise",
        "Neighbour",
        "madvise",
    );
    figures::lock_waits(run, "neighbour_wait", "the neighbours' waits for mmap_lock", "Neighbour");
}

fn frames_missed(run: &mut Run) {
    let Some(rate) = run.frames.as_ref().and_then(|f| f.rates.iter().find(|r| r.hz == 120)) else {
        return;
    };
    let (missed, frames, overrun) = (rate.missed, rate.frames, rate.overrun_ns.clone());
    figures::add(run, "frames_missed", missed as f64, "count", "frames late at 120 Hz", -1);
    figures::add(run, "frames", frames as f64, "count", "frames", 0);
    for (name, value) in [("p50", overrun.p50), ("p99", overrun.p99), ("max", overrun.max)] {
        let what = format!("overrun of a frame, {name} (negative: early)");
        figures::add(run, &format!("overrun_ns.{name}"), value as f64, "ns", &what, -1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_known_by_its_own_name() {
        for scenario in Scenario::ALL {
            assert_eq!(scenario.name().parse(), Ok(scenario));
        }
        assert!("compact".parse::<Scenario>().unwrap_err().contains("compact-vs-writers"));
    }
}
