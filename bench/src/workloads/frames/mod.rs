//! `frames` (W4): a user interface that renders at 120 Hz out of a garbage-collected heap. Each
//! frame allocates 2.1 MB, keeps a twentieth of it for 640 frames, and walks 200,000 retained
//! objects; beside it a second thread makes 100 MB of garbage a second.
//!
//! The walks' checksum depends on nothing but the seed and the number of frames, so it is
//! recomputed in native memory after the run and compared, whatever the duration.

mod objects;

use firn::{Field, Local, NoGc, OutOfMemory, RefArray, Scope, Trace, Var};

use self::objects::{Head, alloc, size};
use super::rendezvous::{Meeting, Rendezvous};
use super::rng::{Rng, stream};
use super::{Bench, Check, Outcome, Throughput, WorkloadError, run_mutators};
use crate::clock;
use crate::measure::cpu::{CpuClock, CpuUse};
use crate::measure::frames::{judge_latencies, overruns_of};
use crate::measure::latency::{Discipline, Latency, Percentiles, Recorder};
use crate::measure::notes::NotedFrame;

/// Objects of a frame.
const OBJECTS: usize = 14_560;
/// One object in this many is kept.
const KEEP_EVERY: usize = 20;
/// Kept objects of a frame.
const KEPT: usize = OBJECTS / KEEP_EVERY;
/// Frames that a kept object lives for.
const RING: usize = 640;
/// Retained objects that a frame reads.
const WALK: usize = 200_000;
/// Garbage objects of a tick of the garbage thread.
const GARBAGE: usize = 700;
/// Nanoseconds between its ticks.
const GARBAGE_TICK: u64 = 1_000_000;
/// Frames a second.
const HZ: f64 = 120.0;
const SEED_UI: u64 = 0xF4A3_0000;
const SEED_GARBAGE: u64 = 0xF4A3_0001;

/// Frames of warm-up and of measurement in the specification.
pub const SPEC_FRAMES: (usize, usize) = (600, 7200);
/// The checksum after [`SPEC_FRAMES`].
pub const SPEC_CHECKSUM: i64 = -5_565_196_687_378_295_577;

/// The bytes that the ring keeps alive: 640 frames of 728 objects of 144 bytes and their arrays.
pub const LIVE_BYTES: usize = RING * (KEPT * 144 + KEPT * 8 + 16) + RING * 8;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct FramesParams {
    /// The interface's thread and the garbage threads; the specification's are 2.
    pub threads: usize,
    /// The user's seed; 0 is the specification's.
    pub seed: u64,
    /// Seconds of paced frames before the measurement.
    pub warm_seconds: f64,
    /// Seconds measured.
    pub seconds: f64,
}

/// The globals of a thread.
#[derive(Trace)]
struct Global {
    chain: Field<Head>,
    ring: Field<RefArray<Kept>>,
}

/// The kept objects of a frame.
type Kept = RefArray<Head>;

impl Global {
    fn new() -> Global {
        Global { chain: Field::null(), ring: Field::null() }
    }
}

/// What the interface's thread found.
#[derive(Debug, Default)]
struct Ui {
    latencies: Vec<u64>,
    durations: Vec<u64>,
    sum: u64,
    walked: usize,
    window: (u64, u64),
    cpu: CpuUse,
    partial: bool,
}

/// Runs the workload.
///
/// # Errors
/// [`WorkloadError::OutOfMemory`] when the ring does not fit in the heap.
pub fn run(bench: Bench<'_>, params: FramesParams) -> Result<Outcome, WorkloadError> {
    let start = Rendezvous::new(params.threads);
    let last_frame = crate::progress::Stop::new();
    let mut ran = run_mutators(bench, params.threads, |n, cx| {
        if n == 0 {
            let result = interface(bench, cx, params, &start);
            last_frame.abort();
            result.map(Some)
        } else {
            garbage(bench, cx, params, n, &start, &last_frame).map(|()| None)
        }
    })?;
    let ui = ran.swap_remove(0).expect("the first mutator is the interface");
    Ok(outcome(params, ui))
}

/// The interface's roots and state.
struct Interface<'s> {
    global: Local<'s, Global>,
    kept: Var<'s, Kept>,
    chain: Var<'s, Head>,
    rng: Rng,
    cursor: usize,
    sum: u64,
}

impl<'s> Interface<'s> {
    fn new(cx: &mut Scope<'s>, seed: u64) -> Result<Interface<'s>, OutOfMemory> {
        let ring = cx.alloc_refs::<Kept>(RING)?;
        let global = cx.alloc(Global::new())?;
        global.get(cx).ring.store(cx, Some(ring.get(cx)));
        Ok(Interface {
            global,
            kept: cx.var(),
            chain: cx.var(),
            rng: Rng::new(stream(SEED_UI, seed)),
            cursor: 0,
            sum: 0,
        })
    }

    fn frame(&mut self, cx: &mut Scope<'s>, f: usize, walk: usize) -> Result<(), OutOfMemory> {
        self.allocate(cx)?;
        let global = self.global.get(cx);
        global.chain.store(cx, self.chain.get(cx));
        self.chain.set(cx, None);
        let ring = global.ring.load(cx).expect("made with the interface");
        ring.store(cx, f % RING, self.kept.get(cx));
        self.kept.set(cx, None);
        global.chain.store(cx, None);
        self.walk(cx, walk);
        Ok(())
    }

    fn allocate(&mut self, cx: &mut Scope<'s>) -> Result<(), OutOfMemory> {
        {
            let nogc = cx.reserve(NoGc::size_of_refs(KEPT))?;
            self.kept.set(&nogc, Some(nogc.alloc_refs::<Head>(KEPT)));
        }
        for k in 0..KEPT {
            let draws: [u64; KEEP_EVERY] = std::array::from_fn(|_| self.rng.next_u64());
            let nogc = cx.reserve(draws.iter().map(|&r| size(r)).sum())?;
            let kept = self.kept.get(&nogc).expect("made above");
            let before = if k == 0 { None } else { kept.load(&nogc, k - 1) };
            let first = (k * KEEP_EVERY) as u64;
            kept.store(&nogc, k, Some(alloc(&nogc, draws[0], before, first)));
            let mut last = self.chain.get(&nogc);
            for (id, &r) in (first + 1..).zip(&draws[1..]) {
                last = Some(alloc(&nogc, r, last, id));
            }
            self.chain.set(&nogc, last);
        }
        Ok(())
    }

    /// Reads `left` retained objects, with a safepoint before each slot of the ring.
    fn walk(&mut self, cx: &mut Scope<'s>, mut left: usize) {
        while left > 0 {
            cx.safepoint();
            self.cursor = if self.cursor + 1 == RING { 0 } else { self.cursor + 1 };
            let ring = self.global.get(cx).ring.load(cx).expect("made with the interface");
            let slot = ring.load(cx, self.cursor).expect("the ring is full");
            let n = left.min(KEPT);
            for i in 0..n {
                let object = slot.load(cx, i).expect("the slot is full");
                self.sum = self.sum.wrapping_add(object.v ^ object.id);
            }
            left -= n;
        }
    }
}

fn interface(
    bench: Bench<'_>,
    cx: &mut Scope<'_>,
    params: FramesParams,
    start: &Rendezvous,
) -> Result<Ui, OutOfMemory> {
    bench.progress.stage("filling the ring");
    let mut it = Interface::new(cx, params.seed)?;
    let mut ui = Ui::default();
    for f in 0..RING {
        it.frame(cx, f, 0)?;
    }
    if cx.blocking(|| start.wait(bench.stop)) == Meeting::Stopped {
        return Ok(Ui { partial: true, ..ui });
    }
    let period = 1e9 / HZ;
    let count = |seconds: f64| (seconds * HZ).round() as usize;
    let (warm, measured) = (count(params.warm_seconds), count(params.seconds));
    (ui.latencies, ui.durations) = (Vec::with_capacity(measured), Vec::with_capacity(measured));
    for (frames, record) in [(warm, false), (measured, true)] {
        bench.progress.stage(if record { "rendering, measured" } else { "rendering, warm-up" });
        let cpu = CpuClock::now();
        let s0 = clock::now() + 10_000_000;
        if record {
            ui.window.0 = s0;
            bench.notes.window().begin(s0);
        }
        for i in 0..frames {
            let vsync = s0 + (i as f64 * period) as u64;
            if clock::now() < vsync {
                cx.blocking(|| clock::sleep_until(vsync));
            }
            let begin = clock::now();
            it.frame(cx, RING + ui.walked, WALK)?;
            let end = clock::now();
            ui.walked += 1;
            if record {
                ui.durations.push(end - begin);
                ui.latencies.push(end - vsync);
                let deadline = vsync + period as u64;
                bench.notes.frame(NotedFrame { number: i as u64, vsync, begin, end, deadline });
            }
            bench.progress.share(ui.walked as f64 / (warm + measured) as f64);
            if bench.stop.requested() {
                ui.partial = true;
                break;
            }
        }
        (ui.window.1, ui.cpu) = (clock::now(), cpu.elapsed());
        if ui.partial {
            break;
        }
    }
    ui.sum = it.sum;
    Ok(ui)
}

/// 700 objects every millisecond, each linked to the one before; the last batch stays reachable
/// until the next. No tick is skipped.
fn garbage(
    bench: Bench<'_>,
    cx: &mut Scope<'_>,
    params: FramesParams,
    n: usize,
    start: &Rendezvous,
    last_frame: &crate::progress::Stop,
) -> Result<(), OutOfMemory> {
    let global = cx.alloc(Global::new())?;
    let chain = cx.var::<Head>();
    let mut rng = Rng::new(stream(SEED_GARBAGE + n as u64 - 1, params.seed));
    if cx.blocking(|| start.wait(bench.stop)) == Meeting::Stopped {
        return Ok(());
    }
    let s0 = clock::now();
    for k in 0u64.. {
        let tick = s0 + k * GARBAGE_TICK;
        if clock::now() < tick {
            cx.blocking(|| clock::sleep_until(tick));
        }
        if last_frame.requested() || bench.stop.requested() {
            break;
        }
        for first in (0..GARBAGE).step_by(KEEP_EVERY) {
            let draws: [u64; KEEP_EVERY] = std::array::from_fn(|_| rng.next_u64());
            let nogc = cx.reserve(draws.iter().map(|&r| size(r)).sum())?;
            let mut last = chain.get(&nogc);
            for (id, &r) in (first as u64..).zip(&draws) {
                last = Some(alloc(&nogc, r, last, id));
            }
            chain.set(&nogc, last);
        }
        global.get(cx).chain.store(cx, chain.get(cx));
        chain.set(cx, None);
    }
    Ok(())
}

/// The checksum of `walked` frames, recomputed in native memory.
fn native_checksum(seed: u64, walked: usize) -> i64 {
    let mut rng = Rng::new(stream(SEED_UI, seed));
    let mut ring = vec![0u64; RING * KEPT];
    let (mut cursor, mut sum) = (0, 0u64);
    for f in 0..RING + walked {
        let slot = &mut ring[f % RING * KEPT..][..KEPT];
        for (k, kept) in slot.iter_mut().enumerate() {
            *kept = rng.next_u64() ^ (k * KEEP_EVERY) as u64;
            (1..KEEP_EVERY).for_each(|_| _ = rng.next_u64());
        }
        let mut left = if f < RING { 0 } else { WALK };
        while left > 0 {
            cursor = (cursor + 1) % RING;
            let n = left.min(KEPT);
            let slot = &ring[cursor * KEPT..][..n];
            sum = slot.iter().fold(sum, |sum, x| sum.wrapping_add(*x));
            left -= n;
        }
    }
    sum as i64
}

fn outcome(params: FramesParams, ui: Ui) -> Outcome {
    let seconds = (ui.window.1.saturating_sub(ui.window.0)) as f64 / 1e9;
    let frames = ui.latencies.len() as u64;
    let per_second = frames as f64 / seconds.max(1e-9);
    let latency = Percentiles::of(ui.latencies.iter().copied()).map(|percentiles| Latency {
        mode: Discipline::Paced,
        offered_ops_s: Some(HZ),
        reached_ops_s: per_second,
        saturated: false,
        percentiles,
        recorder: Recorder::of(ui.latencies.iter().copied()),
    });
    let mut checks = Vec::new();
    let sum = ui.sum as i64;
    if ui.walked > 0 {
        let native = native_checksum(params.seed, ui.walked);
        checks.push(Check::equal("checksum", sum, native, "recomputed in native memory"));
    }
    if params.seed == 0 && ui.walked == SPEC_FRAMES.0 + SPEC_FRAMES.1 {
        checks.push(Check::equal("checksum", sum, SPEC_CHECKSUM, "specified"));
    }
    let mut facts = Vec::new();
    if let Some(d) = Percentiles::of(ui.durations.iter().copied()) {
        let ms = |ns: u64| ns as f64 / 1e6;
        facts.push((
            "frame duration",
            format!("p50 {:.2}  p99 {:.2}  max {:.2} ms", ms(d.p50), ms(d.p99), ms(d.max)),
        ));
    }
    Outcome {
        window: ui.window,
        mutators: params.threads as u32,
        cpu: ui.cpu,
        throughput: Throughput { operations: frames, per_second, unit: "frames" },
        latencies: latency.into_iter().collect(),
        frames: judge_latencies(&ui.latencies),
        overruns: overruns_of(&ui.latencies),
        frames_are: "real, paced at 120 Hz; each judged by the three budgets",
        checksum: (ui.walked > 0).then_some(sum),
        digest: None,
        checks,
        facts,
        walls: Vec::new(),
        partial: ui.partial,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_native_walk_gives_the_specified_checksum() {
        assert_eq!(native_checksum(0, SPEC_FRAMES.0 + SPEC_FRAMES.1), SPEC_CHECKSUM);
    }

    #[test]
    fn garbage_ticks_are_whole_batches() {
        assert_eq!(GARBAGE % KEEP_EVERY, 0);
        assert_eq!(OBJECTS % KEEP_EVERY, 0);
    }
}
