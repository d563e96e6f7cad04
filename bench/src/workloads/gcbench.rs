//! `gcbench` (W3), after the public-domain GCBench of Ellis, Kovac and Boehm: a long-lived tree
//! and array of doubles, and trees of each even depth built top-down (stores of young objects
//! into older ones) and bottom-up.
//!
//! As in `binary-trees`, small subtrees are built without a safepoint out of one reservation, and
//! larger ones keep their path in one [`Var`] a level. With more than one thread, each runs the
//! whole program on data of its own.

use std::sync::atomic::{AtomicI32, Ordering};

use firn::{DataArray, Field, Gc, Local, NoGc, OutOfMemory, Scope, Trace, Var};

use super::{Bench, Check, Outcome, Throughput, WorkloadError, run_mutators};
use crate::clock;
use crate::measure::cpu::CpuClock;

/// Subtrees of this depth or less are built without a safepoint.
const LEAP: usize = 8;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct GcBenchParams {
    /// Depth of the long-lived tree and of the largest short-lived ones; the specification's is 18.
    pub depth: usize,
    /// Elements of the long-lived array; the specification's are 2,000,000.
    pub array: usize,
    /// Threads, each with a whole program of its own; the specification's is 1.
    pub threads: usize,
    /// Repeat until this many seconds have passed; at least one repetition.
    pub seconds: f64,
}

/// The depth of the specification.
pub const SPEC_DEPTH: usize = 18;
/// The array length of the specification.
pub const SPEC_ARRAY: usize = 2_000_000;

#[derive(Trace)]
struct Node {
    left: Field<Node>,
    right: Field<Node>,
    /// Unused by the program; it is part of the node's size.
    #[allow(dead_code)]
    i: AtomicI32,
    j: AtomicI32,
}

impl Node {
    fn empty() -> Node {
        Node {
            left: Field::null(),
            right: Field::null(),
            i: AtomicI32::new(0),
            j: AtomicI32::new(0),
        }
    }
}

/// The global that every finished tree is published in.
#[derive(Trace)]
struct Global {
    keep: Field<Node>,
}

const fn tree_size(d: usize) -> usize {
    (1 << (d + 1)) - 1
}

/// How many trees of depth `d` are built each way.
const fn iterations(depth: usize, d: usize) -> usize {
    2 * tree_size(depth + 2) / tree_size(d)
}

/// The nodes that one run allocates.
pub fn nodes(depth: usize) -> u64 {
    let short: usize =
        (4..=depth).step_by(2).map(|d| 2 * iterations(depth, d) * tree_size(d)).sum();
    (2 * tree_size(depth) + short) as u64
}

/// One thread's roots.
struct Program<'s> {
    /// The node being populated, or the left subtree being kept, at each depth.
    path: Vec<Var<'s, Node>>,
    /// The tree that a bottom-up construction has just finished.
    done: Var<'s, Node>,
    global: Local<'s, Global>,
}

impl<'s> Program<'s> {
    fn new(cx: &mut Scope<'s>, depth: usize) -> Result<Program<'s>, OutOfMemory> {
        let global = cx.alloc(Global { keep: Field::null() })?;
        Ok(Program { path: (0..=depth).map(|_| cx.var()).collect(), done: cx.var(), global })
    }

    /// Grows the node in `path[d]` to a tree of depth `d`, top-down.
    fn populate(&self, cx: &mut Scope<'s>, d: usize) -> Result<(), OutOfMemory> {
        if d <= LEAP {
            let nogc = cx.reserve((tree_size(d) - 1) * NoGc::size_of::<Node>())?;
            populate_small(&nogc, self.path[d].get(&nogc).expect("a node"), d);
            return Ok(());
        }
        {
            let nogc = cx.reserve(2 * NoGc::size_of::<Node>())?;
            let node = self.path[d].get(&nogc).expect("a node");
            let left = nogc.alloc(Node::empty());
            let right = nogc.alloc(Node::empty());
            node.left.store(&nogc, Some(left));
            node.right.store(&nogc, Some(right));
            node.j.store(d as i32, Ordering::Relaxed);
            self.path[d - 1].set(&nogc, Some(left));
        }
        self.populate(cx, d - 1)?;
        let right = self.path[d].get(cx).expect("a node").right.load(cx);
        self.path[d - 1].set(cx, right);
        self.populate(cx, d - 1)
    }

    /// Builds a tree of depth `d` bottom-up into `done`.
    fn make(&self, cx: &mut Scope<'s>, d: usize) -> Result<(), OutOfMemory> {
        if d <= LEAP {
            let nogc = cx.reserve(tree_size(d) * NoGc::size_of::<Node>())?;
            let tree = make_small(&nogc, d);
            self.done.set(&nogc, Some(tree));
            return Ok(());
        }
        self.make(cx, d - 1)?;
        self.path[d].set(cx, self.done.get(cx));
        self.make(cx, d - 1)?;
        let nogc = cx.reserve(NoGc::size_of::<Node>())?;
        let (left, right) = (self.path[d].get(&nogc), self.done.get(&nogc));
        let node = joined(&nogc, left, right, d);
        self.done.set(&nogc, Some(node));
        self.path[d].set(&nogc, None);
        Ok(())
    }

    /// A tree of depth `d` top-down, from one node.
    fn grow(&self, cx: &mut Scope<'s>, d: usize) -> Result<(), OutOfMemory> {
        let nogc = cx.reserve(NoGc::size_of::<Node>())?;
        let node = nogc.alloc(Node::empty());
        self.path[d].set(&nogc, Some(node));
        self.populate(cx, d)
    }

    /// Publishes a tree in the global, and clears the global.
    fn publish(&self, cx: &Scope<'s>, tree: &Var<'s, Node>) {
        let global = self.global.get(cx);
        global.keep.store(cx, tree.get(cx));
        tree.set(cx, None);
        global.keep.store(cx, None);
    }

    fn clear(&self, cx: &Scope<'s>) {
        self.path.iter().for_each(|var| var.set(cx, None));
    }
}

fn populate_small(nogc: &NoGc<'_, '_>, node: Gc<'_, Node>, d: usize) {
    if d == 0 {
        return;
    }
    let left = nogc.alloc(Node::empty());
    let right = nogc.alloc(Node::empty());
    node.left.store(nogc, Some(left));
    node.right.store(nogc, Some(right));
    node.j.store(d as i32, Ordering::Relaxed);
    populate_small(nogc, left, d - 1);
    populate_small(nogc, right, d - 1);
}

fn make_small<'a>(nogc: &NoGc<'a, '_>, d: usize) -> Gc<'a, Node> {
    if d == 0 {
        return nogc.alloc(Node::empty());
    }
    let left = make_small(nogc, d - 1);
    let right = make_small(nogc, d - 1);
    joined(nogc, Some(left), Some(right), d)
}

/// The node above two subtrees.
#[inline]
fn joined<'a>(
    nogc: &NoGc<'a, '_>,
    left: Option<Gc<'_, Node>>,
    right: Option<Gc<'_, Node>>,
    d: usize,
) -> Gc<'a, Node> {
    let node = nogc.alloc(Node { j: AtomicI32::new(d as i32), ..Node::empty() });
    node.left.store(nogc, left);
    node.right.store(nogc, right);
    node
}

/// The whole program on one thread; `None` when stopped, otherwise whether the long-lived data
/// was intact.
fn program(
    bench: Bench<'_>,
    cx: &mut Scope<'_>,
    params: GcBenchParams,
    report: bool,
) -> Result<Option<bool>, OutOfMemory> {
    let depth = params.depth;
    let p = Program::new(cx, depth)?;
    // Stretch.
    p.make(cx, depth)?;
    p.publish(cx, &p.done);
    // Long-lived.
    p.grow(cx, depth)?;
    let live = cx.root(p.path[depth].get(cx).expect("just grown"));
    p.clear(cx);
    let array = cx.alloc_data::<f64>(params.array)?;
    fill(cx, &array);
    for d in (4..=depth).step_by(2) {
        let count = iterations(depth, d);
        for _ in 0..count {
            p.grow(cx, d)?;
            p.clear_below(cx, d);
            p.publish(cx, &p.path[d]);
            if bench.stop.requested() {
                return Ok(None);
            }
        }
        for _ in 0..count {
            p.make(cx, d)?;
            p.publish(cx, &p.done);
            if bench.stop.requested() {
                return Ok(None);
            }
        }
        if report {
            bench.progress.share((d - 2) as f64 / depth as f64);
        }
    }
    let tree_ok = live.get(cx).j.load(Ordering::Relaxed) == depth as i32;
    let array = array.get(cx);
    let probe = 1000.min(params.array / 2 - 1);
    Ok(Some(tree_ok && array.get(probe) == 1.0 / probe as f64))
}

impl<'s> Program<'s> {
    /// Drops the path below depth `d`, which a top-down construction leaves behind.
    fn clear_below(&self, cx: &Scope<'s>, d: usize) {
        for var in &self.path[LEAP.min(d)..d] {
            var.set(cx, None);
        }
    }
}

/// `a[i]` = 1/i for the first half, in slices with a safepoint between them.
fn fill(cx: &mut Scope<'_>, array: &Local<'_, DataArray<f64>>) {
    let half = array.get(cx).len() / 2;
    let mut slice = [0.0; 512];
    let mut at = 1;
    while at < half {
        let n = slice.len().min(half - at);
        for (k, x) in slice[..n].iter_mut().enumerate() {
            *x = 1.0 / (at + k) as f64;
        }
        array.get(cx).copy_from(at, &slice[..n]);
        cx.safepoint();
        at += n;
    }
}

/// Runs the workload.
///
/// # Errors
/// [`WorkloadError::OutOfMemory`] when the long-lived data and one tree do not fit in the heap.
///
/// # Panics
/// If the array has fewer than 4 elements or the depth is below 4.
pub fn run(bench: Bench<'_>, params: GcBenchParams) -> Result<Outcome, WorkloadError> {
    assert!(params.array >= 4 && params.depth >= 4, "gcbench needs an array and a tree");
    let (cpu, begin) = (CpuClock::now(), clock::now());
    bench.notes.window().begin(begin);
    let (mut walls, mut partial, mut intact) = (Vec::new(), false, true);
    bench.progress.stage("gcbench");
    while !partial && (walls.is_empty() || clock::now() - begin < clock::ns(params.seconds)) {
        let from = clock::now();
        let done = run_mutators(bench, params.threads, |n, cx| program(bench, cx, params, n == 0))?;
        match done.into_iter().collect::<Option<Vec<bool>>>() {
            Some(oks) => {
                intact &= oks.into_iter().all(|ok| ok);
                walls.push((clock::now() - from) as f64 / 1e9);
            }
            None => partial = true,
        }
    }
    let (cpu, end) = (cpu.elapsed(), clock::now());
    let operations = walls.len() as u64 * params.threads as u64 * nodes(params.depth);
    let mut checks = Vec::new();
    if !walls.is_empty() {
        checks.push(Check {
            what: "long-lived data",
            ok: intact,
            detail: format!("tree and array {}", if intact { "intact" } else { "changed" }),
        });
    }
    Ok(Outcome {
        window: (begin, end),
        mutators: (params.threads * (walls.len() + usize::from(partial))) as u32,
        cpu,
        throughput: Throughput {
            operations,
            per_second: operations as f64 / walls.iter().sum::<f64>().max(1e-9),
            unit: "nodes",
        },
        latencies: Vec::new(),
        frames: Vec::new(),
        overruns: Vec::new(),
        frames_are: "",
        // The peers' program prints whether both long-lived structures are intact, and no sum.
        checksum: (!walls.is_empty()).then_some(i64::from(intact)),
        digest: None,
        checks,
        facts: vec![("depth", params.depth.to_string()), ("array", params.array.to_string())],
        walls,
        partial,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_allocates_about_two_gibibytes() {
        let bytes = nodes(SPEC_DEPTH) * 32 + SPEC_ARRAY as u64 * 8;
        assert!((2.0..2.3).contains(&(bytes as f64 / f64::from(1 << 30))), "{bytes}");
    }
}
