//! `lru` (W1): caches under a Zipf load, one a thread, that share nothing but the Zipf table.
//!
//! The threads fill in parallel, meet, and run a list of [`Stage`]s whose times are fixed in
//! advance, so that no clock is waited for within a window. A closed stage runs operations one
//! after the other; a metered one offers them on a schedule of 500 us ticks and counts each from
//! its tick. [`verify`] runs a fixed number of operations on one cache instead, without a clock,
//! for comparison with other implementations.

mod cache;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use firn::{OutOfMemory, Scope};

use self::cache::{Cache, ZipfTable, share_zipf};
use super::rendezvous::{Meeting, Rendezvous};
use super::rng::stream;
use super::{Bench, Check, Outcome, Throughput, WorkloadError, run_mutators};
use crate::clock;
use crate::measure::cpu::{CpuClock, CpuUse};
use crate::measure::frames::{RATES, VirtualRenderer, judge};
use crate::measure::latency::{Discipline, Latency, Recorder};
use crate::measure::notes::Slow;

/// Entries of a cache in the specification.
pub const SPEC_CAPACITY: usize = 213_000;
/// Base of the threads' seeds in the specification.
const SPEC_SEED: u64 = 0x5EED_0000;
/// The number of operations whose results the specification gives, for its capacity and seed.
pub const SPEC_OPS: u64 = 2_000_000;
/// Hits, misses and checksum of [`SPEC_OPS`] operations.
pub const SPEC_RESULT: (u64, u64, i64) = (1_379_482, 221_413, 7_465_970_225_685_823_761);
/// Metered: a batch of operations falls due at every tick.
const TICK: u64 = 500_000;
/// Metered: a thread this far behind the end of its window gives up.
const GIVE_UP: u64 = 20_000_000_000;

/// A part of a run.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    /// How operations are offered; `Paced` is not for this workload.
    pub mode: Discipline,
    /// How long.
    pub seconds: f64,
    /// Offered rate of all threads together, operations a second; `None` in a metered stage means
    /// half the rate that the thread reached in the closed stage before.
    pub rate: Option<f64>,
    /// Whether the stage is part of the result or a warm-up.
    pub measured: bool,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct LruParams {
    /// Threads, each with a cache of its own.
    pub threads: usize,
    /// Entries of a cache.
    pub capacity: usize,
    /// The user's seed; 0 is the specification's.
    pub seed: u64,
    /// What happens after the fill.
    pub stages: Vec<Stage>,
}

/// The bytes that a cache of `capacity` entries keeps alive, headers included: nodes of 48 bytes,
/// payloads of 64 to 1024 bytes, 544 on average, and a bucket array.
pub fn live_bytes(capacity: usize) -> usize {
    capacity * (48 + 16 + 544 + 4) + capacity.next_power_of_two() * 8
}

/// One stage of one thread.
#[derive(Debug, Default)]
struct Part {
    recorder: Recorder,
    seconds: f64,
    saturated: bool,
    overruns: [Vec<i64>; RATES.len()],
    hits: u64,
    misses: u64,
}

/// One thread's results.
#[derive(Debug, Default)]
struct Ran {
    parts: Vec<Part>,
    sum: u64,
    first: u64,
    last: u64,
    /// Of the whole process; only the first thread reads it.
    cpu: CpuUse,
    partial: bool,
}

/// What the threads of a run share.
struct Shared<'a> {
    bench: Bench<'a>,
    params: &'a LruParams,
    zipf: OnceLock<ZipfTable>,
    meeting: Rendezvous,
    /// When the stage about to run begins; written by the last to arrive at the meeting.
    begin: AtomicU64,
}

/// Runs the workload.
///
/// # Errors
/// [`WorkloadError::OutOfMemory`] when the caches do not fit in the heap.
pub fn run(bench: Bench<'_>, params: &LruParams) -> Result<Outcome, WorkloadError> {
    let shared = Shared {
        bench,
        params,
        zipf: OnceLock::new(),
        meeting: Rendezvous::new(params.threads),
        begin: AtomicU64::new(0),
    };
    bench.progress.stage("filling the caches");
    let ran = run_mutators(bench, params.threads, |n, cx| thread(&shared, n, cx))?;
    Ok(outcome(params, ran))
}

fn thread<'s>(shared: &Shared<'_>, n: usize, cx: &mut Scope<'s>) -> Result<Ran, OutOfMemory> {
    let (bench, params) = (shared.bench, shared.params);
    let mut ran = Ran::default();
    if n == 0 {
        let table = share_zipf(cx, params.capacity)?;
        shared.zipf.set(table).ok().expect("only the first thread makes the table");
    }
    if !meet(shared, cx) {
        return Ok(Ran { partial: true, ..ran });
    }
    let zipf = shared.zipf.get().expect("made before the meeting");
    let seed = stream(SPEC_SEED + n as u64, params.seed);
    let mut cache = Cache::new(cx, params.capacity, zipf, seed)?;
    for i in 0..params.capacity {
        cache.fill_one(cx)?;
        if i % 1024 == 0 && bench.stop.requested() {
            return Ok(Ran { partial: true, ..ran });
        }
    }
    let total: f64 = params.stages.iter().map(|s| s.seconds).sum();
    let (mut closed_rate, mut elapsed) = (0.0, 0.0);
    let (mut end, mut cpu) = (0, None);
    for (i, &stage) in params.stages.iter().enumerate() {
        // A stage follows the one before without a stop; only a change of the way in which
        // operations are offered is a new beginning for all threads.
        let joined = i > 0 && params.stages[i - 1].mode == stage.mode;
        if !joined {
            if !meet(shared, cx) {
                ran.partial = true;
                break;
            }
            // Acquire in `meet` and its release order this read after the last thread's write.
            end = shared.begin.load(Ordering::Relaxed);
        }
        let begin = end;
        end = begin + clock::ns(stage.seconds);
        if n == 0 {
            let kind = if stage.measured { "measuring" } else { "warming up" };
            bench.progress.stage(&format!("{kind}, {} loop", stage.mode.label()));
            bench.progress.share(elapsed / total);
        }
        if stage.measured && n == 0 {
            if cpu.is_none() {
                bench.notes.window().begin(begin);
            }
            cpu.get_or_insert_with(CpuClock::now);
        }
        let (hits, misses) = (cache.hits, cache.misses);
        let bounds = Window { begin, end, total, elapsed, reporter: n == 0 };
        let mut part = match stage.mode {
            Discipline::Closed => closed(bench, cx, &mut cache, bounds, stage, closed_rate)?,
            _ => {
                let rate =
                    stage.rate.map_or(closed_rate / 2.0, |rate| rate / params.threads as f64);
                metered(bench, cx, &mut cache, bounds, stage, rate)?
            }
        };
        elapsed += stage.seconds;
        part.hits = cache.hits - hits;
        part.misses = cache.misses - misses;
        if stage.mode == Discipline::Closed && part.seconds > 0.0 {
            closed_rate = part.recorder.count() as f64 / part.seconds;
        }
        if stage.measured {
            ran.first = if ran.first == 0 { begin } else { ran.first };
            ran.last = clock::now();
            ran.cpu = cpu.as_ref().map(CpuClock::elapsed).unwrap_or_default();
        }
        ran.partial = bench.stop.requested();
        ran.parts.push(part);
        if ran.partial {
            break;
        }
    }
    ran.sum = cache.sum;
    Ok(ran)
}

/// Waits for the other threads, and lets the last one set the beginning of the next stage a
/// little ahead, so that all begin together. False when the run is being stopped.
fn meet(shared: &Shared<'_>, cx: &mut Scope<'_>) -> bool {
    let stop = shared.bench.stop;
    cx.blocking(|| {
        if shared.meeting.wait(stop) == Meeting::Last {
            shared.begin.store(clock::now() + 20_000_000, Ordering::Relaxed);
        }
        // The second meeting orders the store before everybody's load.
        let met = shared.meeting.wait(stop) != Meeting::Stopped;
        clock::sleep_until(shared.begin.load(Ordering::Relaxed));
        met
    })
}

/// When a stage runs, and where in the whole run it lies.
#[derive(Clone, Copy)]
struct Window {
    begin: u64,
    end: u64,
    total: f64,
    elapsed: f64,
    reporter: bool,
}

impl Window {
    fn report(&self, bench: Bench<'_>, now: u64) {
        if self.reporter {
            let here = now.saturating_sub(self.begin) as f64 / 1e9;
            bench.progress.share((self.elapsed + here) / self.total);
        }
    }
}

/// Operations one after the other until the window ends. Every one is recorded, in a warm-up too:
/// its rate decides how large the frames of the virtual renderer are, and what half of it is.
fn closed<'s>(
    bench: Bench<'_>,
    cx: &mut Scope<'s>,
    cache: &mut Cache<'s>,
    window: Window,
    stage: Stage,
    warm_rate: f64,
) -> Result<Part, OutOfMemory> {
    let mut recorder = Recorder::new();
    let mut renderer = (stage.measured && warm_rate > 0.0)
        .then(|| VirtualRenderer::new(window.begin, stage.seconds, warm_rate));
    let mut slow = match stage.measured {
        true => Slow::shown("operation", bench.notes.window()),
        false => Slow::new("operation"),
    };
    let from = clock::now();
    let mut a = from;
    while a < window.end && !bench.stop.requested() {
        // The progress is told every few thousand operations.
        for _ in 0..4096 {
            cache.op(cx)?;
            let b = clock::now();
            recorder.record(b - a);
            slow.offer(a, b);
            if let Some(renderer) = &mut renderer {
                renderer.operation(b);
            }
            a = b;
            if b >= window.end {
                break;
            }
        }
        window.report(bench, a);
    }
    if stage.measured {
        bench.notes.slow(slow);
    }
    Ok(Part {
        recorder,
        seconds: (a - from) as f64 / 1e9,
        overruns: renderer.map(VirtualRenderer::into_overruns).unwrap_or_default(),
        ..Part::default()
    })
}

/// Operations on a schedule, `rate` a second, each counted from the tick at which it fell due.
/// Ticks are never skipped. A warm-up ends with its time; a measured window ends when everything
/// that fell due in it is done, or gives up when hopelessly behind.
fn metered<'s>(
    bench: Bench<'_>,
    cx: &mut Scope<'s>,
    cache: &mut Cache<'s>,
    window: Window,
    stage: Stage,
    rate: f64,
) -> Result<Part, OutOfMemory> {
    let mut part = Part::default();
    let mut slow = match stage.measured {
        true => Slow::shown("operation", bench.notes.window()),
        false => Slow::new("operation"),
    };
    let mut done = 0u64;
    let mut now = clock::now();
    'ticks: for k in 0u64.. {
        let tick = window.begin + k * TICK;
        if tick >= window.end || bench.stop.requested() {
            break;
        }
        if now < tick {
            cx.blocking(|| clock::sleep_until(tick));
        }
        let due = ((k + 1) as f64 * rate * TICK as f64 / 1e9) as u64;
        while done < due {
            let begin = now;
            cache.op(cx)?;
            done += 1;
            now = clock::now();
            slow.offer(begin, now);
            part.recorder.record(now - tick);
            if !stage.measured && now > window.end {
                break 'ticks;
            }
        }
        now = clock::now();
        if now > window.end + GIVE_UP {
            part.saturated = true;
            break;
        }
        if k % 64 == 0 {
            window.report(bench, now);
        }
    }
    part.seconds = (clock::now().max(window.begin + 1) - window.begin) as f64 / 1e9;
    if stage.measured {
        bench.notes.slow(slow);
    }
    Ok(part)
}

fn outcome(params: &LruParams, ran: Vec<Ran>) -> Outcome {
    let partial = ran.iter().any(|r| r.partial);
    let (mut latencies, mut throughput, mut frames) = (Vec::new(), None, Vec::new());
    let mut overruns = Vec::new();
    let (mut hits, mut misses) = (0, 0);
    for (i, stage) in params.stages.iter().enumerate().filter(|(_, s)| s.measured) {
        let parts: Vec<&Part> = ran.iter().filter_map(|r| r.parts.get(i)).collect();
        let mut all = Recorder::new();
        parts.iter().for_each(|p| all.merge(&p.recorder));
        let Some(percentiles) = all.percentiles() else { continue };
        let reached = parts.iter().map(|p| p.recorder.count() as f64 / p.seconds).sum();
        let offered = (stage.mode != Discipline::Closed)
            .then(|| stage.rate.unwrap_or_else(|| half_of_closed(params, &ran, i)));
        latencies.push(Latency {
            mode: stage.mode,
            offered_ops_s: offered,
            reached_ops_s: reached,
            saturated: parts.iter().any(|p| p.saturated),
            percentiles,
            recorder: all.clone(),
        });
        throughput.get_or_insert(Throughput {
            operations: all.count(),
            per_second: reached,
            unit: "ops",
        });
        hits += parts.iter().map(|p| p.hits).sum::<u64>();
        misses += parts.iter().map(|p| p.misses).sum::<u64>();
        if stage.mode == Discipline::Closed {
            frames = RATES
                .iter()
                .enumerate()
                .filter_map(|(r, &hz)| {
                    let lists: Vec<_> = parts.iter().map(|p| p.overruns[r].clone()).collect();
                    overruns.push((hz, lists.concat()));
                    judge(hz, &lists)
                })
                .collect();
        }
    }
    let first = ran.iter().map(|r| r.first).filter(|&t| t > 0).min().unwrap_or(0);
    let last = ran.iter().map(|r| r.last).max().unwrap_or(0).max(first);
    let ratio = hits as f64 / (hits + misses).max(1) as f64;
    let mut facts = vec![("hit ratio", format!("{ratio:.4}"))];
    if params.capacity != SPEC_CAPACITY {
        facts.push(("entries a cache", params.capacity.to_string()));
    }
    Outcome {
        window: (first, last),
        mutators: params.threads as u32,
        cpu: ran.first().map(|r| r.cpu).unwrap_or_default(),
        throughput: throughput.unwrap_or(Throughput {
            operations: 0,
            per_second: 0.0,
            unit: "ops",
        }),
        latencies,
        frames,
        overruns,
        frames_are: "virtual: the operations a thread does in half a period, closed loop",
        checksum: Some(ran.iter().fold(0u64, |sum, r| sum.wrapping_add(r.sum)) as i64),
        digest: None,
        checks: Vec::new(),
        facts,
        walls: Vec::new(),
        partial,
    }
}

/// The rate that a metered stage without a rate of its own offered: half of what the threads
/// reached in the last closed stage before it.
fn half_of_closed(params: &LruParams, ran: &[Ran], stage: usize) -> f64 {
    let before = params.stages[..stage].iter().rposition(|s| s.mode == Discipline::Closed);
    let rate = |p: &Part| p.recorder.count() as f64 / p.seconds.max(1e-9);
    before.map_or(0.0, |i| ran.iter().filter_map(|r| r.parts.get(i)).map(rate).sum::<f64>() / 2.0)
}

/// What a fixed number of operations on one cache found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Lookups that found their key.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// The checksum.
    pub sum: i64,
}

/// Fills one cache with the seed of thread 0 and runs `ops` operations on it.
///
/// # Errors
/// The cache does not fit in the heap. Stopping early is not an error: the result is `None`.
pub fn verify(
    bench: Bench<'_>,
    capacity: usize,
    seed: u64,
    ops: u64,
) -> Result<(Option<Verified>, Outcome), WorkloadError> {
    bench.progress.stage("a fixed number of operations");
    let mut ran = run_mutators(bench, 1, |_, cx| {
        let zipf = share_zipf(cx, capacity)?;
        let mut cache = Cache::new(cx, capacity, &zipf, stream(SPEC_SEED, seed))?;
        for _ in 0..capacity {
            cache.fill_one(cx)?;
        }
        let (cpu, begin) = (CpuClock::now(), clock::now());
        bench.notes.window().begin(begin);
        for n in 0..ops {
            cache.op(cx)?;
            if n % 4096 == 0 {
                bench.progress.share(n as f64 / ops as f64);
                if bench.stop.requested() {
                    return Ok((None, (begin, clock::now()), n, cpu.elapsed()));
                }
            }
        }
        let verified = Verified { hits: cache.hits, misses: cache.misses, sum: cache.sum as i64 };
        Ok::<_, OutOfMemory>((Some(verified), (begin, clock::now()), ops, cpu.elapsed()))
    })?;
    let (verified, window, done, cpu) = ran.pop().expect("one mutator ran");
    let mut checks = Vec::new();
    if let Some(v) = verified.filter(|_| capacity == SPEC_CAPACITY && seed == 0 && ops == SPEC_OPS)
    {
        let (hits, misses, sum) = SPEC_RESULT;
        checks.push(Check::equal("hits", v.hits as i64, hits as i64, "specified"));
        checks.push(Check::equal("misses", v.misses as i64, misses as i64, "specified"));
        checks.push(Check::equal("checksum", v.sum, sum, "specified"));
    }
    let seconds = (window.1 - window.0) as f64 / 1e9;
    let outcome = Outcome {
        window,
        mutators: 1,
        cpu,
        throughput: Throughput {
            operations: done,
            per_second: done as f64 / seconds.max(1e-9),
            unit: "ops",
        },
        latencies: Vec::new(),
        frames: Vec::new(),
        overruns: Vec::new(),
        frames_are: "",
        checksum: verified.map(|v| v.sum),
        digest: None,
        checks,
        facts: verified.map_or_else(Vec::new, |v| {
            vec![("hits", v.hits.to_string()), ("misses", v.misses.to_string())]
        }),
        walls: vec![seconds],
        partial: verified.is_none(),
    };
    Ok((verified, outcome))
}
