//! The workloads on real heaps, under every back end that this machine has: their checksums do not
//! depend on it.

use std::collections::HashSet;

use firn::{Heap, Options};
use firn_bench::measure::latency::Discipline;
use firn_bench::progress::{Progress, Stop};
use firn_bench::workloads::rng::{Rng, mix};
use firn_bench::workloads::{Bench, Outcome, frames, gcbench, graph, lru, trees, zipf};

/// Runs `body` on a heap of `mib` MiB under each back end that works here.
fn on_every_back_end(mib: usize, body: impl Fn(Bench<'_>)) {
    for backend in ["stw", "pingpong", "art", "mprotect"] {
        let options = Options::parse(&format!("heap={mib}m,backend={backend}")).unwrap();
        let heap = match Heap::new(&options) {
            Ok(heap) => heap,
            Err(error) if error.is_userfaultfd_refused() => {
                println!("{backend} was left out: {error}");
                continue;
            }
            Err(error) => panic!("{backend}: {error}"),
        };
        println!("{backend}");
        let (stop, progress) = (Stop::new(), Progress::silent());
        body(Bench::new(&heap, &stop, &progress));
    }
}

fn held(outcome: &Outcome) {
    assert!(!outcome.partial);
    assert!(!outcome.checks.is_empty());
    for check in &outcome.checks {
        assert!(check.ok, "{}: {}", check.what, check.detail);
    }
}

/// The specification of `lru`, with a list of keys in order of use in the place of the cache.
fn native_lru(capacity: usize, ops: u64) -> lru::Verified {
    let table = zipf::table(2 * capacity, zipf::THETA);
    let mut newest_first: Vec<u64> = (0..capacity as u64).collect();
    let mut held: HashSet<u64> = newest_first.iter().copied().collect();
    let mut rng = Rng::new(mix(0x5EED_0000));
    let (mut fresh, mut hits, mut misses, mut sum) = (2 * capacity as u64, 0, 0, 0u64);
    for _ in 0..ops {
        let r = rng.next_u64();
        let looked_up = (r & 0xFFFF) < 52_429;
        let key = if looked_up {
            zipf::sample(table.len(), rng.next_u64(), |i| table[i])
        } else {
            fresh += 1;
            fresh - 1
        };
        if looked_up && held.contains(&key) {
            hits += 1;
            let at = newest_first.iter().position(|&k| k == key).unwrap();
            newest_first.remove(at);
            let bytes = i64::from(key as i8) + i64::from((key >> 8) as i8);
            sum = sum.wrapping_add(bytes as u64);
        } else {
            misses += u64::from(looked_up);
            held.remove(&newest_first.pop().unwrap());
            held.insert(key);
        }
        newest_first.insert(0, key);
        for i in 0..8 {
            sum = sum.wrapping_add(r.wrapping_add(i)).wrapping_add(i);
        }
    }
    lru::Verified { hits, misses, sum: sum as i64 }
}

#[test]
fn lru_does_what_a_list_of_keys_does() {
    let want = native_lru(700, 30_000);
    on_every_back_end(8, |bench| {
        let (got, _) = lru::verify(bench, 700, 0, 30_000).unwrap();
        assert_eq!(got, Some(want));
    });
}

#[test]
fn lru_gives_the_specified_checksum() {
    on_every_back_end(400, |bench| {
        let (_, outcome) = lru::verify(bench, lru::SPEC_CAPACITY, 0, lru::SPEC_OPS).unwrap();
        assert_eq!(outcome.checks.len(), 3);
        held(&outcome);
    });
}

#[test]
fn lru_runs_closed_and_metered_windows() {
    let stage = |mode, measured| lru::Stage { mode, seconds: 0.15, rate: None, measured };
    use Discipline::{Closed, Metered};
    let params = lru::LruParams {
        threads: 2,
        capacity: 2_000,
        seed: 9,
        stages: vec![
            stage(Closed, false),
            stage(Closed, true),
            stage(Metered, false),
            stage(Metered, true),
        ],
    };
    on_every_back_end(16, |bench| {
        let outcome = lru::run(bench, &params).unwrap();
        let modes: Vec<_> = outcome.latencies.iter().map(|l| l.mode).collect();
        assert_eq!(modes, [Closed, Metered]);
        let [closed, metered] = &outcome.latencies[..] else { panic!("two windows") };
        assert!(closed.percentiles.count > 1_000);
        let offered = metered.offered_ops_s.unwrap();
        // The calibration is the warm-up or the window before; both are the same loop.
        assert!(offered > closed.reached_ops_s * 0.3 && offered < closed.reached_ops_s * 0.7);
        assert_eq!(outcome.frames.len(), 3);
        assert!(!outcome.partial);
    });
}

#[test]
fn binary_trees_counts_every_node() {
    on_every_back_end(24, |bench| {
        let params = trees::TreesParams { depth: 12, threads: 2, seconds: 0.0 };
        let outcome = trees::run(bench, params).unwrap();
        assert_eq!(outcome.checksum, Some(trees::expected_checksum(12)));
        held(&outcome);
    });
}

#[test]
fn gcbench_keeps_its_long_lived_data() {
    on_every_back_end(24, |bench| {
        let params = gcbench::GcBenchParams { depth: 12, array: 20_000, threads: 2, seconds: 0.0 };
        held(&gcbench::run(bench, params).unwrap());
    });
}

#[test]
fn frames_reads_what_it_wrote() {
    on_every_back_end(256, |bench| {
        let params = frames::FramesParams { threads: 2, seed: 3, warm_seconds: 0.1, seconds: 0.4 };
        let outcome = frames::run(bench, params).unwrap();
        assert_eq!(outcome.throughput.operations, 48);
        held(&outcome);
    });
}

#[test]
fn a_stop_request_ends_every_workload_early_and_says_partial() {
    let options = Options::parse("heap=256m,backend=stw").unwrap();
    let heap = Heap::new(&options).unwrap();
    let (stop, progress) = (Stop::new(), Progress::silent());
    stop.interrupt();
    let bench = Bench::new(&heap, &stop, &progress);
    let outcomes = [
        trees::run(bench, trees::TreesParams { depth: 10, threads: 2, seconds: 0.0 }).unwrap(),
        gcbench::run(
            bench,
            gcbench::GcBenchParams { depth: 10, array: 1000, threads: 1, seconds: 0.0 },
        )
        .unwrap(),
        frames::run(
            bench,
            frames::FramesParams { threads: 2, seed: 0, warm_seconds: 0.1, seconds: 1.0 },
        )
        .unwrap(),
        graph::repeat(bench, &graph::GraphParams::small(1), 0.0).unwrap(),
    ];
    for outcome in outcomes {
        assert!(outcome.partial);
    }
}

#[test]
fn graph_has_one_list_of_digests_under_every_back_end_and_axis() {
    let axes = [
        "backend=stw",
        "backend=pingpong",
        "backend=pingpong,install=copy",
        "backend=pingpong,fault=thread",
        "backend=art",
        "backend=art,install=move,fault=thread",
        "backend=mprotect",
    ];
    for seed in 0..8 {
        let params = graph::GraphParams {
            threads: 1 + seed as usize % 3,
            collect_continuously: seed % 2 == 1,
            ..graph::GraphParams::small(seed)
        };
        let mut of_stw = None;
        for axis in axes {
            let options = Options::parse(&format!("heap=32m,{axis}")).unwrap();
            let ran = match graph::run(&options, &params, None) {
                Err(graph::GraphError::Heap(e)) if e.is_userfaultfd_refused() => continue,
                ran => ran.unwrap_or_else(|e| panic!("{axis}, seed {seed}: {e}")),
            };
            let want = of_stw.get_or_insert_with(|| ran.digests.clone());
            assert_eq!(&ran.digests, want, "{axis}, seed {seed}");
        }
    }
}
