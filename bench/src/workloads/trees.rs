//! `binary-trees` (W2): a deep tree built and dropped, a long-lived one, and very many short-lived
//! trees of each even depth; the checksum counts every node of every tree.
//!
//! Small subtrees are built and counted without a safepoint: one `reserve` for all their nodes,
//! then raw references. Above `LEAP` levels a path from the root is kept in one [`Var`] a level,
//! and every step may stop for a collection; so the time to a safepoint stays at some
//! microseconds however deep the tree is.

use firn::{Field, Gc, NoGc, OutOfMemory, Scope, Trace, Var};

use super::rendezvous::{Meeting, Rendezvous};
use super::{Bench, Check, Outcome, Throughput, WorkloadError, run_mutators};
use crate::clock;
use crate::measure::cpu::CpuClock;

/// Subtrees of this depth or less are handled without a safepoint.
const LEAP: usize = 8;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct TreesParams {
    /// Depth of the long-lived tree; the specification's is 18.
    pub depth: usize,
    /// Threads that share the short-lived trees.
    pub threads: usize,
    /// Repeat until this many seconds have passed; at least one repetition.
    pub seconds: f64,
}

/// The depth of the specification.
pub const SPEC_DEPTH: usize = 18;
/// The checksum of the specification, at [`SPEC_DEPTH`].
pub const SPEC_CHECKSUM: i64 = 68_332_206;

#[derive(Trace)]
struct Node {
    left: Field<Node>,
    right: Field<Node>,
}

/// How many nodes a complete tree has.
const fn nodes(depth: usize) -> u64 {
    (1 << (depth + 1)) - 1
}

/// How many trees of depth `d` there are.
const fn iterations(depth: usize, d: usize) -> usize {
    1 << (depth - d + 4)
}

/// The nodes of all trees of one repetition, which is also its checksum.
pub fn expected_checksum(depth: usize) -> i64 {
    let short: u64 = (4..=depth).step_by(2).map(|d| iterations(depth, d) as u64 * nodes(d)).sum();
    (nodes(depth + 1) + nodes(depth) + short) as i64
}

/// One path from the root: `path[d]` holds the tree of depth `d` under way.
struct Path<'s> {
    path: Vec<Var<'s, Node>>,
}

impl<'s> Path<'s> {
    fn new(cx: &Scope<'s>, depth: usize) -> Path<'s> {
        Path { path: (0..=depth).map(|_| cx.var()).collect() }
    }

    /// Builds a tree of depth `d` into `path[d]`.
    fn make(&self, cx: &mut Scope<'s>, d: usize) -> Result<(), OutOfMemory> {
        if d <= LEAP {
            let nogc = cx.reserve(nodes(d) as usize * NoGc::size_of::<Node>())?;
            let tree = make_small(&nogc, d);
            self.path[d].set(&nogc, Some(tree));
            return Ok(());
        }
        {
            let nogc = cx.reserve(NoGc::size_of::<Node>())?;
            let node = nogc.alloc(Node { left: Field::null(), right: Field::null() });
            self.path[d].set(&nogc, Some(node));
        }
        self.make(cx, d - 1)?;
        let node = self.path[d].get(cx).expect("set above");
        node.left.store(cx, self.path[d - 1].get(cx));
        self.make(cx, d - 1)?;
        let node = self.path[d].get(cx).expect("set above");
        node.right.store(cx, self.path[d - 1].get(cx));
        Ok(())
    }

    /// Counts the nodes of the tree in `path[d]`, which is of depth `d`.
    fn check(&self, cx: &mut Scope<'s>, d: usize) -> u64 {
        if d <= LEAP {
            cx.safepoint();
            return check_small(cx, self.path[d].get(cx).expect("a tree"));
        }
        let left = self.path[d].get(cx).expect("a tree").left.load(cx);
        if left.is_none() {
            return 1;
        }
        self.path[d - 1].set(cx, left);
        let left = self.check(cx, d - 1);
        let right = self.path[d].get(cx).expect("a tree").right.load(cx);
        self.path[d - 1].set(cx, right);
        1 + left + self.check(cx, d - 1)
    }

    /// Drops the references of the path.
    fn clear(&self, cx: &Scope<'s>) {
        self.path.iter().for_each(|var| var.set(cx, None));
    }
}

fn make_small<'a>(nogc: &NoGc<'a, '_>, d: usize) -> Gc<'a, Node> {
    let node = nogc.alloc(Node { left: Field::null(), right: Field::null() });
    if d > 0 {
        node.left.store(nogc, Some(make_small(nogc, d - 1)));
        node.right.store(nogc, Some(make_small(nogc, d - 1)));
    }
    node
}

fn check_small(cx: &Scope<'_>, node: Gc<'_, Node>) -> u64 {
    match (node.left.load(cx), node.right.load(cx)) {
        (Some(left), Some(right)) => 1 + check_small(cx, left) + check_small(cx, right),
        _ => 1,
    }
}

/// Thread `part`'s share of the short-lived trees; `None` when stopped.
fn shorts<'s>(
    bench: Bench<'_>,
    cx: &mut Scope<'s>,
    path: &Path<'s>,
    params: TreesParams,
    part: usize,
) -> Result<Option<u64>, OutOfMemory> {
    let mut sum = 0;
    for d in (4..=params.depth).step_by(2) {
        for _ in (part..iterations(params.depth, d)).step_by(params.threads) {
            path.make(cx, d)?;
            sum += path.check(cx, d);
            if bench.stop.requested() {
                return Ok(None);
            }
        }
        path.clear(cx);
        if part == 0 {
            bench.progress.share((d - 2) as f64 / params.depth as f64);
        }
    }
    Ok(Some(sum))
}

/// Runs the workload.
///
/// # Errors
/// [`WorkloadError::OutOfMemory`] when the long-lived tree and one other do not fit in the heap.
pub fn run(bench: Bench<'_>, params: TreesParams) -> Result<Outcome, WorkloadError> {
    let (cpu, begin) = (CpuClock::now(), clock::now());
    bench.notes.window().begin(begin);
    let (mut walls, mut checksum, mut partial) = (Vec::new(), None, false);
    let want = expected_checksum(params.depth);
    let mut repeats_agree = true;
    bench.progress.stage("trees");
    while !partial && (walls.is_empty() || clock::now() - begin < clock::ns(params.seconds)) {
        let from = clock::now();
        match repetition(bench, params)? {
            Some(sum) => {
                repeats_agree &= checksum.is_none_or(|c| c == sum);
                checksum = Some(sum);
                walls.push((clock::now() - from) as f64 / 1e9);
            }
            None => partial = true,
        }
    }
    let (cpu, end) = (cpu.elapsed(), clock::now());
    let done = walls.len() as u64 * want as u64;
    let mut checks = Vec::new();
    if let Some(sum) = checksum {
        checks.push(if params.depth == SPEC_DEPTH {
            Check::equal("checksum", sum, SPEC_CHECKSUM, "specified")
        } else {
            Check::equal("checksum", sum, want, "the node count of all trees")
        });
        if walls.len() > 1 {
            let sums = if repeats_agree { "the same checksum" } else { "DIFFERENT checksums" };
            let detail = format!("{} with {sums}", walls.len());
            checks.push(Check { what: "repetitions", ok: repeats_agree, detail });
        }
    }
    Ok(Outcome {
        window: (begin, end),
        mutators: (params.threads * (walls.len() + usize::from(partial))) as u32,
        cpu,
        throughput: Throughput {
            operations: done,
            per_second: done as f64 / walls.iter().sum::<f64>().max(1e-9),
            unit: "nodes",
        },
        latencies: Vec::new(),
        frames: Vec::new(),
        overruns: Vec::new(),
        frames_are: "",
        checksum,
        digest: None,
        checks,
        facts: vec![("depth", params.depth.to_string())],
        walls,
        partial,
    })
}

/// One run from the stretch tree to the check of the long-lived one; `None` when stopped.
fn repetition(bench: Bench<'_>, params: TreesParams) -> Result<Option<i64>, WorkloadError> {
    // The other threads start when the first one has its long-lived tree.
    let gate = Rendezvous::new(params.threads);
    let sums = run_mutators(bench, params.threads, |part, cx| {
        let path = Path::new(cx, params.depth + 1);
        let live = cx.var::<Node>();
        let mut sum = 0;
        if part == 0 {
            sum += build_live(cx, &path, &live, params.depth)?;
        }
        if cx.blocking(|| gate.wait(bench.stop)) == Meeting::Stopped {
            return Ok(None);
        }
        let Some(short) = shorts(bench, cx, &path, params, part)? else { return Ok(None) };
        sum += short;
        if part == 0 {
            path.path[params.depth].set(cx, live.get(cx));
            sum += path.check(cx, params.depth);
        }
        Ok::<_, OutOfMemory>(Some(sum))
    })?;
    Ok(sums.into_iter().sum::<Option<u64>>().map(|sum| sum as i64))
}

/// The stretch tree, counted and dropped, and the long-lived tree; returns the count of the first.
fn build_live<'s>(
    cx: &mut Scope<'s>,
    path: &Path<'s>,
    live: &Var<'s, Node>,
    depth: usize,
) -> Result<u64, OutOfMemory> {
    path.make(cx, depth + 1)?;
    let stretch = path.check(cx, depth + 1);
    path.clear(cx);
    path.make(cx, depth)?;
    live.set(cx, path.path[depth].get(cx));
    path.clear(cx);
    Ok(stretch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_the_specification_is_its_node_count() {
        assert_eq!(expected_checksum(SPEC_DEPTH), SPEC_CHECKSUM);
    }
}
