//! `graph`: seeded random mutation of a shared object graph, checked against a shadow model.
//!
//! Several threads mutate objects of every kind, with references across threads, while
//! collections go on; each keeps a model of what it does in native memory. The run is divided
//! into rounds. Within a round a thread changes only what it owns, and may store references to
//! whatever it holds, which includes what others published in earlier rounds; between rounds
//! objects change hands. So the model follows from the seed alone, whatever the timing and the
//! back end.
//!
//! When a round ends, all threads meet, and one of them compares the heap with the model by their
//! digests: once as it is, perhaps in the middle of a collection, and once after a collection
//! that it forces. The digests are the result: runs of one seed must give the same
//! list under every back end, fault delivery and installation. The second one says which ephemerons are
//! broken, too: the model knows which keys are dead.

mod digest;
mod kinds;
mod model;
mod mutator;
mod repeat;
mod tagged;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use firn::events::Listener;
use firn::{Field, Gc, Heap, Options, OutOfMemory, RefArray, Root, Scope, Trace};

use self::digest::{HeapView, first_difference, heap_roots};
use self::kinds::{Edge, Hub, Registers};
use self::model::{Model, Objects, Partition, Snapshot};
use self::mutator::{Mutator, Tables};
pub use self::repeat::repeat;
use super::rendezvous::{Meeting, Rendezvous};
use super::rng::mix;
use super::{Bench, run_mutators};
use crate::progress::{Progress, Stop};

/// What to run. The digests depend on `seed`, `threads`, `rounds`, `operations`, `large_per_mille`
/// and `live_bytes`; on nothing else.
#[derive(Debug, Clone)]
pub struct GraphParams {
    /// Chooses every operation.
    pub seed: u64,
    /// Mutator threads.
    pub threads: usize,
    /// Rounds; each ends with a forced collection and a comparison.
    pub rounds: usize,
    /// Operations of each thread in a round.
    pub operations: usize,
    /// Of a thousand arrays, those with 9,000 to 21,000 elements.
    pub large_per_mille: usize,
    /// About how many bytes may live before the threads let go of their registers.
    pub live_bytes: usize,
    /// Whether a further thread collects over and over while the rounds run.
    pub collect_continuously: bool,
}

impl GraphParams {
    /// A small case, a few milliseconds long.
    pub fn small(seed: u64) -> GraphParams {
        GraphParams {
            seed,
            threads: 2,
            rounds: 4,
            operations: 250,
            large_per_mille: 4,
            live_bytes: 2 << 20,
            collect_continuously: false,
        }
    }
}

/// What a run that found no difference did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphOutcome {
    /// The digest at the end of each round.
    pub digests: Vec<u64>,
    /// Operations of all threads.
    pub operations: u64,
    /// Reads that threads compared with the model as they went.
    pub compared: u64,
    /// Objects that could be reached at the end of each round.
    pub reachable: Vec<usize>,
    /// Collections that the run itself asked for.
    pub collections: u64,
    /// The run was stopped before all rounds were done.
    pub partial: bool,
}

impl GraphOutcome {
    /// All digests in one.
    pub fn digest(&self) -> u64 {
        self.digests.iter().fold(0, |all, &d| mix(all ^ d))
    }
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The heap could not be made.
    #[error("{0}")]
    Heap(#[from] firn::HeapError),
    /// The live objects do not fit in the heap.
    #[error("{0}")]
    OutOfMemory(OutOfMemory),
    /// The heap and the model have different digests at the end of a round.
    #[error(
        "round {round}, {when}: heap {heap:016x}, model {model:016x}; first difference at {first}"
    )]
    Differs {
        /// The round, from 0.
        round: usize,
        /// Before or after the forced collection.
        when: &'static str,
        /// The heap's digest.
        heap: u64,
        /// The model's digest.
        model: u64,
        /// The path to the first difference and what each has there.
        first: String,
    },
    /// A thread read something else than the model has.
    #[error("round {round}, thread {thread}, operation {operation}: {what}")]
    Wrong {
        /// The round, from 0.
        round: usize,
        /// The thread, from 0.
        thread: usize,
        /// The operation of the round, from 0.
        operation: usize,
        /// What was found, and what should have been.
        what: String,
    },
}

/// Slots of each thread in a shared table.
const SEGMENT: usize = 8;
/// Most objects that change hands with one that was published.
const HANDOVER: usize = 24;

/// The roots that threads share.
#[derive(Trace)]
struct Globals {
    registers: Field<RefArray<Registers>>,
    tables: [Field<RefArray<Hub>>; 2],
}

/// Makes a heap and runs on it.
///
/// # Errors
/// The heap cannot be made or is too small, or the heap and the model differ.
pub fn run(
    options: &Options,
    params: &GraphParams,
    listener: Option<Arc<dyn Listener>>,
) -> Result<GraphOutcome, GraphError> {
    let heap = Heap::new(options)?;
    if let Some(listener) = listener {
        heap.add_listener(listener);
    }
    let (stop, progress) = (Stop::new(), Progress::silent());
    run_on(Bench::new(&heap, &stop, &progress), params)
}

/// What the threads of a run share outside the heap.
struct Shared<'a> {
    bench: Bench<'a>,
    params: &'a GraphParams,
    globals: OnceLock<Root<Globals>>,
    meeting: Rendezvous,
    /// Every thread's part of the model, while all are met.
    parts: Vec<Mutex<Option<Partition>>>,
    /// What the next round may read.
    snapshot: Mutex<Snapshot>,
    collections: AtomicU64,
}

/// Runs on a heap that exists. Threads whose run is stopped end between operations.
///
/// # Errors
/// As [`run`].
pub fn run_on(bench: Bench<'_>, params: &GraphParams) -> Result<GraphOutcome, GraphError> {
    assert!(params.threads > 0, "graph needs a thread");
    let shared = Shared {
        bench,
        params,
        globals: OnceLock::new(),
        meeting: Rendezvous::new(params.threads),
        parts: (0..params.threads).map(|_| Mutex::new(None)).collect(),
        snapshot: Mutex::new(Snapshot {
            published: Arc::new(vec![None; params.threads * SEGMENT]),
            ..Snapshot::default()
        }),
        collections: AtomicU64::new(0),
    };
    let done = AtomicBool::new(false);
    let ran = std::thread::scope(|s| {
        if params.collect_continuously {
            let collector = || {
                // Relaxed: the flag publishes nothing.
                while !done.load(Ordering::Relaxed) {
                    bench.heap.collect();
                    shared.collections.fetch_add(1, Ordering::Relaxed);
                }
            };
            std::thread::Builder::new()
                .name("Collections".into())
                .spawn_scoped(s, collector)
                .expect("a thread can be created");
        }
        let _end = SetOnDrop(&done);
        run_mutators(bench, params.threads, |n, cx| thread(&shared, n, cx))
    })?;
    let leader = &ran[0];
    Ok(GraphOutcome {
        digests: leader.digests.clone(),
        operations: ran.iter().map(|r| r.operations).sum(),
        compared: ran.iter().map(|r| r.compared).sum(),
        reachable: leader.reachable.clone(),
        collections: shared.collections.load(Ordering::Relaxed),
        partial: leader.digests.len() < params.rounds,
    })
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What one thread did; only the first has digests.
#[derive(Debug, Default)]
struct Ran {
    digests: Vec<u64>,
    reachable: Vec<usize>,
    operations: u64,
    compared: u64,
}

fn thread<'s>(shared: &Shared<'_>, n: usize, cx: &mut Scope<'s>) -> Result<Ran, GraphError> {
    let (bench, params) = (shared.bench, shared.params);
    let mut ran = Ran::default();
    if n == 0 {
        let globals = make_globals(cx, params.threads).map_err(GraphError::OutOfMemory)?;
        shared.globals.set(globals).ok().expect("only the first thread makes the globals");
    }
    let met =
        |cx: &mut Scope<'s>| cx.blocking(|| shared.meeting.wait(bench.stop)) != Meeting::Stopped;
    if !met(cx) {
        return Ok(ran);
    }
    let globals = shared.globals.get().expect("made before the meeting");
    let tables = Tables {
        tables: [0, 1].map(|i| {
            let table = globals.get(cx).tables[i].load(cx).expect("made with the globals");
            cx.root(table)
        }),
    };
    let seed = mix(mix(params.seed) ^ n as u64);
    let mut mutator = Mutator::new(cx, n, params.threads, seed, SEGMENT, params.large_per_mille);
    for round in 0..params.rounds {
        let snapshot = lock(&shared.snapshot).clone();
        if snapshot.shrink {
            mutator.shrink(cx, &snapshot, &tables);
        }
        for operation in 0..params.operations {
            mutator
                .operation(cx, &snapshot, &tables)
                .map_err(|stop| stop.at(round, n, operation))?;
            if operation % 64 == 0 && bench.stop.requested() {
                return Ok(ran);
            }
        }
        ran.operations += params.operations as u64;
        let registers = globals.get(cx).registers.load(cx).expect("made with the globals");
        mutator.registers.dump(cx, registers.load(cx, n).expect("made with the globals"));
        drop(snapshot);
        *lock(&shared.parts[n]) =
            Some(std::mem::replace(&mut mutator.part, Partition::new(SEGMENT)));
        if !met(cx) {
            break;
        }
        if n == 0 {
            let (digest, reachable) = end_of_round(shared, cx, globals, round)?;
            ran.digests.push(digest);
            ran.reachable.push(reachable);
            bench.progress.share((round + 1) as f64 / params.rounds as f64);
        }
        if !met(cx) {
            break;
        }
        mutator.part = lock(&shared.parts[n]).take().expect("left here before the meeting");
    }
    ran.compared = mutator.compared;
    Ok(ran)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn make_globals(cx: &mut Scope<'_>, threads: usize) -> Result<Root<Globals>, OutOfMemory> {
    let globals =
        cx.alloc(Globals { registers: Field::null(), tables: [Field::null(), Field::null()] })?;
    for i in 0..2 {
        let table = cx.alloc_refs::<Hub>(threads * SEGMENT)?;
        globals.get(cx).tables[i].store(cx, Some(table.get(cx)));
    }
    let all = cx.alloc_refs::<Registers>(threads)?;
    for thread in 0..threads {
        let registers = cx.alloc(Registers::empty())?;
        all.get(cx).store(cx, thread, Some(registers.get(cx)));
    }
    globals.get(cx).registers.store(cx, Some(all.get(cx)));
    Ok(cx.global(globals.get(cx)))
}

const BEFORE: &str = "before the forced collection";
const AFTER: &str = "after the forced collection";

/// Compares, collects, compares again, and prepares the next round. All threads are met.
fn end_of_round(
    shared: &Shared<'_>,
    cx: &mut Scope<'_>,
    globals: &Root<Globals>,
    round: usize,
) -> Result<(u64, usize), GraphError> {
    let mut parts: Vec<_> = shared.parts.iter().map(lock).collect();
    let mut snapshot = lock(&shared.snapshot);
    let mut frozen: Objects =
        Arc::try_unwrap(std::mem::take(&mut snapshot.frozen)).expect("all threads dropped theirs");
    let partitions =
        parts.iter_mut().map(|p| p.as_mut().expect("every thread left its part")).collect();
    let mut model = Model { partitions, frozen: &mut frozen };
    let roots = model.roots();
    let before = digest::digest(&model, &roots, false);
    compare(cx, globals, &model, before.value, round, BEFORE)?;
    cx.collect();
    shared.collections.fetch_add(1, Ordering::Relaxed);
    let want = digest::digest(&model, &roots, true);
    compare(cx, globals, &model, want.value, round, AFTER)?;
    let bytes = model.retain(&want.reached);
    model.hand_over(HANDOVER);
    let published =
        model.partitions.iter().flat_map(|p| p.segments[round % 2].iter().copied()).collect();
    *snapshot = Snapshot {
        round: round + 1,
        frozen: Arc::new(frozen),
        published: Arc::new(published),
        shrink: bytes > shared.params.live_bytes,
    };
    Ok((want.value, want.reached.len()))
}

/// Compares the heap's digest with the model's; on a difference finds out where it is.
fn compare(
    cx: &Scope<'_>,
    globals: &Root<Globals>,
    model: &Model<'_>,
    want: u64,
    round: usize,
    when: &'static str,
) -> Result<(), GraphError> {
    let object: Gc<'_, Globals> = globals.get(cx);
    let registers = object.registers.load(cx).expect("made with the globals");
    let tables = [0, 1].map(|i| object.tables[i].load(cx).expect("made with the globals"));
    let roots = heap_roots(cx, registers, tables);
    let view = HeapView { cx };
    let got = digest::digest(&view, &roots, when == AFTER).value;
    if got == want {
        return Ok(());
    }
    let of_model: Vec<Edge<_>> = model.roots();
    let first = first_difference((&view, &roots, "the heap"), (model, &of_model, "the model"))
        .unwrap_or_else(|| "none among live objects: an ephemeron is whole that must be broken, or the other way round".into());
    Err(GraphError::Differs { round, when, heap: got, model: want, first })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_small(seed: u64, threads: usize) -> GraphOutcome {
        let options = Options::parse("heap=64m,backend=stw").unwrap();
        run(&options, &GraphParams { threads, ..GraphParams::small(seed) }, None).unwrap()
    }

    #[test]
    fn the_digests_follow_from_the_seed_alone() {
        for threads in [1, 2, 3] {
            let (one, two) = (run_small(1, threads), run_small(1, threads));
            assert_eq!(one, two);
            assert_eq!(one.digests.len(), 4);
            assert_ne!(one.digests, run_small(2, threads).digests);
        }
    }

    #[test]
    fn a_run_compares_and_reaches_something() {
        let ran = run_small(3, 2);
        assert!(ran.compared > 100 && ran.reachable.iter().all(|&n| n > 20), "{ran:?}");
    }

    #[test]
    fn the_live_objects_stay_bounded() {
        let options = Options::parse("heap=64m,backend=stw").unwrap();
        let params = GraphParams {
            rounds: 60,
            operations: 400,
            live_bytes: 256 << 10,
            ..GraphParams::small(5)
        };
        let ran = run(&options, &params, None).unwrap();
        let (early, late) = ran.reachable.split_at(30);
        assert!(
            late.iter().max() < Some(&(4 * early.iter().max().unwrap())),
            "{:?}",
            ran.reachable
        );
    }
}
