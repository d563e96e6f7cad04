//! One run: makes the heap, starts the measurement and the threads, opens and closes the window, and puts the
//! [`Run`] together.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use firn::{BackendKind, Heap, Options};
use firn_heap::sys::probe::peak_rss_bytes;
use serde_json::Value;

use super::catalog::Scenario;
use super::options::Plan;
use super::stage::{Scheduling, Stage};
use crate::clock;
use crate::exit::Failure;
use crate::measure::collect::Collector;
use crate::measure::cost::{self, Price};
use crate::measure::cpu::{CpuClock, CpuUse};
use crate::measure::frames::{RATES, period_ns};
use crate::measure::gather::{Fill, Gather, Gathered, Want, distribution};
use crate::measure::notes::Notes;
use crate::perf::Window;
use crate::progress::{Progress, Stop};
use crate::schema::{Cpu, Distribution, Frames, Latency, Memory, Role, Run};
use crate::stress::measured;
use crate::stress::run::no_heap;
use crate::workloads::{Bench, Outcome, WorkloadError};

/// Spans of each kind in a run of a scenario; a file has many runs.
const SPANS: usize = 2_000;

/// Seconds that a window may become longer by for each collection that is to begin and end in it.
const LONGER: f64 = 10.0;

/// What a thread does.
pub type Body<'a> = Box<dyn Fn(&Heap, &Stage, usize) + Send + Sync + 'a>;

/// The threads of a role.
pub struct Member<'a> {
    /// Their name, without the number.
    pub role: &'static str,
    /// How many.
    pub count: usize,
    /// What they do, in a few words.
    pub does: &'static str,
    /// How they are scheduled.
    pub scheduling: Scheduling,
    /// Whether they prepare something first, and say when they have.
    pub prepares: bool,
    /// What they do.
    pub body: Body<'a>,
}

impl<'a> Member<'a> {
    /// Threads that begin at once, scheduled like everybody.
    pub fn new(
        role: &'static str,
        count: usize,
        does: &'static str,
        body: impl Fn(&Heap, &Stage, usize) + Send + Sync + 'a,
    ) -> Member<'a> {
        let scheduling = Scheduling::default();
        Member { role, count, does, scheduling, prepares: false, body: Box::new(body) }
    }
}

/// A workload of `firn stress` as the mutators of a scenario.
pub type Driver<'a> = Box<dyn FnOnce(Bench<'_>) -> Result<Outcome, WorkloadError> + 'a>;

/// What is done before anything runs.
pub type Prepare<'a> = Box<dyn Fn(&Heap, &Stage) + 'a>;

/// What a run consists of.
pub struct Setup<'a> {
    /// The scenario.
    pub scenario: Scenario,
    /// The variant.
    pub variant: &'static str,
    /// The mutators' workload, in a word.
    pub workload: &'static str,
    /// Options of the heap, with its back end.
    pub options: Options,
    /// Who plays.
    pub members: Vec<Member<'a>>,
    /// A workload that runs instead of a window of fixed length.
    pub driver: Option<Driver<'a>>,
    /// Roles whose stalls count.
    pub victims: &'static [&'static str],
    /// Called with the heap before anything else runs.
    pub prepare: Prepare<'a>,
}

/// A run, and what only the figures need.
pub struct Done {
    /// The run, without figures and verdict.
    pub run: Run,
    /// How long each flip waited for the lock, nanoseconds.
    pub flip_waits: Option<Vec<u64>>,
    /// What could not be done.
    pub skipped: Vec<String>,
}

/// Carries a setup out.
///
/// # Errors
/// Exit code 3 where the heap cannot be made, 2 where it is too small.
pub fn perform(
    setup: Setup<'_>,
    plan: &Plan,
    price: Option<Price>,
    stop: &Stop,
    progress: &Progress,
) -> Result<Done, Failure> {
    let window = Arc::new(Window::closed());
    let notes = Arc::new(Notes::new(window.clone()));
    let stage = Stage::new(window.clone(), notes.clone(), plan.seed);
    let heap = Heap::new(&setup.options).map_err(|e| no_heap(&e))?;
    let collector = Arc::new(Collector::new());
    heap.add_listener(collector.clone());
    progress.watch(Some(&heap), &window);
    (setup.prepare)(&heap, &stage);
    let want = Want { events: plan.measure, probe: true };
    let label = format!("{} {} {}", setup.scenario.name(), setup.variant, setup.options.backend);
    progress.stage(&label);

    let mut cpu = (CpuClock::now(), CpuUse::default());
    let mut outcome = None;
    let mut crowd = (None, None);
    let gathered = std::thread::scope(|s| {
        let (first, rest): (Vec<&Member<'_>>, Vec<_>) =
            setup.members.iter().partition(|m| m.prepares);
        first.iter().for_each(|m| spawn(s, m, &heap, &stage));
        let preparing: usize = first.iter().map(|m| m.count).sum();
        while stage.arrived() < preparing && !stop.requested() && stage.troubles().is_empty() {
            clock::sleep_until(clock::now() + 2_000_000);
        }
        let gather = Gather::start_on(window.clone(), notes.clone(), want);
        rest.iter().for_each(|m| spawn(s, m, &heap, &stage));
        match setup.driver {
            Some(driver) => {
                let bench = Bench { heap: &heap, stop, progress, notes: &notes };
                outcome = Some(driver(bench));
                let end = match &outcome {
                    Some(Ok(outcome)) => outcome.window.1,
                    _ => clock::now(),
                };
                if window.get().0 == u64::MAX {
                    window.begin(end);
                }
                window.end(end);
            }
            None => {
                wait(stop, clock::now() + clock::ns(plan.warm_seconds()), None);
                let begin = clock::now();
                window.begin(begin);
                cpu.0 = CpuClock::now();
                wait(stop, begin + clock::ns(plan.seconds), Some((progress, plan.seconds)));
                // Figures of a cycle are those of whole ones, and a run without any says little.
                let collects = setup.members.iter().any(|m| m.role == "Requester");
                let latest = clock::now() + clock::ns(LONGER * plan.cycles as f64);
                let enough = || collector.cycles_since(begin) >= plan.cycles;
                while collects && !enough() && clock::now() < latest {
                    if stop.requested() {
                        break;
                    }
                    wait(stop, clock::now() + 20_000_000, None);
                }
                window.end(clock::now());
                cpu.1 = cpu.0.elapsed();
            }
        }
        crowd = (count_lines("/proc/self/maps"), count_threads());
        stage.end();
        gather.stop()
    });
    let outcome = match outcome {
        Some(Err(e)) => {
            return Err(Failure::usage(format!(
                "{}: {e}; give --heap more",
                setup.scenario.name()
            )));
        }
        Some(Ok(outcome)) => Some(outcome),
        None => None,
    };
    let mut run = assemble(
        &setup.options,
        plan,
        &stage,
        &heap,
        &gathered,
        &collector,
        &setup_of(setup.scenario, setup.variant, setup.workload, setup.victims, &setup.members),
    );
    run.cpu = Cpu {
        process_s: cpu.1.process_s,
        collector_s: cpu.1.collector_s,
        measuring_s: gathered.recording.as_ref().map_or(0.0, |r| r.cpu_ns as f64 / 1e9),
    };
    if let Some(outcome) = &outcome {
        measured::outcome(&mut run, outcome);
        run.cpu.measuring_s = gathered.recording.as_ref().map_or(0.0, |r| r.cpu_ns as f64 / 1e9);
    }
    let seconds = window.get().1.saturating_sub(window.get().0) as f64 / 1e9;
    let calls = cost::let_go(&collector, window.get());
    run.measuring_cost = cost::of(&gathered, price, calls, run.cpu.process_s, seconds);
    run.partial = stop.interrupted();
    (run.memory.vmas, run.memory.threads) = crowd;
    let flip_waits = gathered.lock_waits_in_flips(&collector, window.get());
    let mut skipped = stage.troubles();
    skipped.extend(gathered.missing.iter().cloned());
    skipped.extend(heap.setup().notes.iter().cloned());
    run.notes = skipped.clone();
    Ok(Done { run, flip_waits, skipped })
}

/// Starts the threads of a role.
fn spawn<'scope>(
    s: &'scope std::thread::Scope<'scope, '_>,
    member: &'scope Member<'_>,
    heap: &'scope Heap,
    stage: &'scope Stage,
) {
    let (role, scheduling) = (member.role, member.scheduling);
    for n in 0..member.count {
        let builder = std::thread::Builder::new().name(format!("{role}-{n}"));
        let started = builder.spawn_scoped(s, move || {
            scheduling.apply(stage, role);
            (member.body)(heap, stage, n);
        });
        if let Err(e) = started {
            stage.trouble(format!("{role}: a thread could not be started: {e}"));
            stage.arrive();
        }
    }
}

/// What of a setup the run says.
struct Described {
    scenario: Scenario,
    variant: &'static str,
    workload: &'static str,
    victims: &'static [&'static str],
    roles: Vec<Role>,
}

fn setup_of(
    scenario: Scenario,
    variant: &'static str,
    workload: &'static str,
    victims: &'static [&'static str],
    members: &[Member<'_>],
) -> Described {
    let roles = members.iter().map(|m| Role {
        role: m.role.to_owned(),
        threads: m.count,
        does: m.does.to_owned(),
        scheduling: m.scheduling.label(),
    });
    Described { scenario, variant, workload, victims, roles: roles.collect() }
}

fn assemble(
    options: &Options,
    plan: &Plan,
    stage: &Stage,
    heap: &Heap,
    gathered: &Gathered,
    collector: &Collector,
    what: &Described,
) -> Run {
    let (backend, scenario) = (options.backend.to_string(), what.scenario.name());
    let name = [scenario, what.variant, &backend].into_iter().filter(|p| !p.is_empty());
    let name = name.collect::<Vec<_>>().join("/");
    let mut run = measured::empty(name, what.workload.to_owned(), backend, plan.seed);
    run.scenario = Some(scenario.to_owned());
    run.variant = what.variant.to_owned();
    let setup = heap.setup();
    let uffd = matches!(setup.backend, BackendKind::Art | BackendKind::PingPong);
    run.fault = uffd.then(|| setup.fault.to_string());
    run.install = setup.install.map(|i| i.to_string());
    run.options = described(plan);
    run.roles = what.roles.clone();
    if !what.roles.iter().any(|r| r.role.ends_with("Mutator")) {
        run.roles.push(Role {
            role: "Mutator".to_owned(),
            threads: gathered.mutators.len(),
            does: format!("the workload {}", what.workload),
            scheduling: String::new(),
        });
    }
    run.roles.push(Role {
        role: "HeapTaskDaemon".to_owned(),
        threads: 1,
        does: "collects".to_owned(),
        scheduling: options
            .describe()
            .iter()
            .filter(|(k, v)| k.starts_with("daemon-") && v != "unset")
            .map(|(k, v)| format!("{k}={v}"))
            .collect::<Vec<_>>()
            .join(", "),
    });
    let window = stage.window.get();
    gathered.fill(&mut run, Some(collector), Fill { window, victims: what.victims, spans: SPANS });
    let seconds = window.1.saturating_sub(window.0) as f64 / 1e9;
    for ((role, name), logged) in stage.logs() {
        let ns = distribution(&logged.recorder);
        if !ns.is_empty() {
            run.latencies.push(Latency {
                name: name.to_owned(),
                role,
                mode: "closed".to_owned(),
                offered_ops_s: None,
                reached_ops_s: Some(ns.count as f64 / seconds.max(1e-9)),
                saturated: false,
                ns,
            });
        }
    }
    let inside = |f: &&(u32, crate::measure::notes::NotedFrame)| {
        f.1.vsync >= window.0 && f.1.end <= window.1
    };
    let frames: Vec<_> = gathered.frames.iter().filter(inside).map(|f| f.1).collect();
    if !frames.is_empty() {
        let rate = |hz: u32| {
            let overrun = |f: &crate::measure::notes::NotedFrame| {
                f.end as i64 - (f.vsync + period_ns(hz)) as i64
            };
            measured::rate(hz, &frames.iter().map(overrun).collect::<Vec<_>>())
        };
        run.frames = Some(Frames {
            what: "real, paced at 120 Hz; each judged by the three budgets".to_owned(),
            rates: RATES.iter().map(|&hz| rate(hz)).collect(),
        });
    }
    run.memory = Memory {
        heap_bytes: options.heap as u64,
        rss_peak_bytes: peak_rss_bytes().ok(),
        side_table_bytes: heap.stats().side_table_bytes as u64,
        ..Memory::default()
    };
    run
}

/// The options that shape a run.
fn described(plan: &Plan) -> BTreeMap<String, Value> {
    [
        ("seconds", Value::from(plan.seconds)),
        ("whole_cycles", Value::from(plan.cycles)),
        ("heap", Value::from(plan.options.heap as u64)),
        ("mutators", Value::from(plan.mutators)),
        ("writers", Value::from(plan.writers)),
        ("writer_pages", Value::from(plan.writer_pages)),
        ("writer_held", Value::from(plan.writer_held)),
        ("writer_rate", Value::from(plan.writer_rate)),
        ("readers", Value::from(plan.readers)),
        ("register_rate", Value::from(plan.register_rate)),
        ("hogs", Value::from(plan.hogs)),
        ("vmas", Value::from(plan.vmas)),
        ("touched", Value::from(plan.touched)),
        ("daemon_idle", Value::from(plan.daemon_idle)),
        ("quick", Value::from(plan.quick)),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v))
    .collect()
}

/// Waits until `end` or a request to stop.
fn wait(stop: &Stop, end: u64, progress: Option<(&Progress, f64)>) {
    loop {
        let now = clock::now();
        if now >= end || stop.requested() {
            return;
        }
        if let Some((progress, seconds)) = progress {
            progress.share(1.0 - (end - now) as f64 / 1e9 / seconds);
        }
        clock::sleep_until((now + 20_000_000).min(end));
    }
}

fn count_lines(path: &str) -> Option<u64> {
    Some(fs::read_to_string(path).ok()?.lines().count() as u64)
}

fn count_threads() -> Option<u64> {
    Some(fs::read_dir("/proc/self/task").ok()?.count() as u64)
}

/// The latencies of an operation of a role.
pub fn latency<'a>(run: &'a Run, role: &str, name: &str) -> Option<&'a Distribution> {
    run.latencies.iter().find(|l| l.role == role && l.name == name).map(|l| &l.ns)
}
