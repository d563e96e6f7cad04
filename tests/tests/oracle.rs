//! The oracle: whatever the back end, the fault delivery, the installation, the number of workers, the batch
//! or the density threshold, a seed gives the same heap after every cycle, and the one that a model in native
//! memory predicts.
//!
//! `FIRN_ORACLE_SEEDS=N` runs N seeds of each kind instead of the default (a few hundred in all).

use firn::{CycleSummary, Event, Heap, Listener, Options};
use firn_bench::selftest::{WAYS, axes};
use firn_bench::workloads::graph::{self, GraphParams};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds to run: what the environment says, or `default`.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let asked = std::env::var("FIRN_ORACLE_SEEDS").ok();
    let count = asked.map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("FIRN_ORACLE_SEEDS={text} is not a number of seeds"))
    });
    0..count
}

/// Sums over all cycles and faults of the runs it listened to: what the runs really exercised.
#[derive(Default)]
struct Seen {
    cycles: AtomicU64,
    copied: AtomicU64,
    moved: AtomicU64,
    dense: AtomicU64,
    by_mutators: AtomicU64,
}

impl Listener for Seen {
    fn event(&self, event: &Event) {
        // Relaxed, all: counts, read after the runs have ended.
        let add = |counter: &AtomicU64, n| counter.fetch_add(n, Ordering::Relaxed);
        if let Event::CycleEnd { summary } = event {
            let CycleSummary { pages_copied, pages_moved, pages_dense, .. } = *summary;
            add(&self.cycles, 1);
            add(&self.copied, pages_copied);
            add(&self.moved, pages_moved);
            add(&self.dense, pages_dense);
            add(&self.by_mutators, summary.pages_by_mutators);
        }
    }
}

impl Seen {
    fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

/// The ways that this machine can run; the reference is always there.
fn ways() -> Vec<&'static str> {
    let works = |way: &&&str| match Heap::new(&options(way, "")) {
        Ok(_) => true,
        Err(error) => {
            println!("left out: {way}: {error}");
            false
        }
    };
    WAYS.iter().filter(works).copied().collect()
}

fn options(way: &str, more: &str) -> Options {
    Options::parse(&format!("heap=32m,{way},{more}")).expect("a valid options string")
}

/// Runs `params` under each of `ways` and compares the digests with those of the reference.
fn compare(ways: &[&str], more: &str, params: &GraphParams, seen: &Arc<Seen>) {
    let run = |way: &str| {
        graph::run(&options(way, more), params, Some(seen.clone()))
            .unwrap_or_else(|error| panic!("seed {}, {way},{more}: {error}", params.seed))
    };
    let want = run(WAYS[0]);
    assert_eq!(want.digests.len(), params.rounds, "every round ends with a digest");
    for way in ways.iter().filter(|way| **way != WAYS[0]) {
        let got = run(way);
        assert_eq!(got.digests, want.digests, "seed {}, {way},{more}", params.seed);
        assert_eq!(got.reachable, want.reachable, "seed {}, {way},{more}", params.seed);
    }
}

#[test]
fn one_mutator_gives_the_same_heap_under_every_back_end_and_axis() {
    let (ways, seen) = (ways(), Arc::<Seen>::default());
    for seed in seeds(120) {
        let params = GraphParams { threads: 1, ..GraphParams::small(seed) };
        compare(&ways, &axes(seed), &params, &seen);
    }
    if ways.len() == WAYS.len() {
        for counter in [&seen.copied, &seen.moved] {
            assert!(Seen::get(counter) > 0, "a way to publish pages was never taken");
        }
    }
}

#[test]
fn two_mutators_with_collections_all_the_time_give_the_same_heap() {
    let (ways, seen) = (ways(), Arc::<Seen>::default());
    for seed in seeds(96) {
        let params = GraphParams {
            threads: 2,
            rounds: 3,
            collect_continuously: true,
            ..GraphParams::small(1_000 + seed)
        };
        compare(&ways, &axes(seed), &params, &seen);
    }
    if ways.len() == WAYS.len() {
        assert!(Seen::get(&seen.by_mutators) > 0, "no mutator ever built a page");
    }
}

#[test]
fn eight_mutators_with_collections_all_the_time_give_the_same_heap() {
    let (ways, seen) = (ways(), Arc::<Seen>::default());
    for seed in seeds(48) {
        let params = GraphParams {
            threads: 8,
            rounds: 3,
            operations: 120,
            collect_continuously: true,
            ..GraphParams::small(2_000 + seed)
        };
        compare(&ways, &axes(seed), &params, &seen);
    }
    if ways.len() == WAYS.len() {
        assert!(Seen::get(&seen.by_mutators) > 0, "no mutator ever built a page");
    }
}

#[test]
fn verification_finds_nothing_wrong() {
    let (ways, seen) = (ways(), Arc::<Seen>::default());
    for seed in seeds(48) {
        let params = GraphParams { rounds: 3, ..GraphParams::small(3_000 + seed) };
        compare(&ways, &format!("{},verify=true", axes(seed)), &params, &seen);
    }
}

#[test]
fn a_collection_at_every_seventh_allocation_changes_nothing() {
    let (ways, seen) = (ways(), Arc::<Seen>::default());
    for seed in seeds(24) {
        let params = GraphParams { rounds: 2, operations: 100, ..GraphParams::small(4_000 + seed) };
        compare(&ways, &format!("{},stress-every=7", axes(seed)), &params, &seen);
    }
    assert!(Seen::get(&seen.cycles) > 100);
}

#[test]
fn dense_runs_that_move_as_whole_pages_change_nothing() {
    let (ways, seen) = (ways(), Arc::<Seen>::default());
    for seed in seeds(8) {
        let params = GraphParams {
            threads: 3,
            rounds: 6,
            operations: 1_500,
            live_bytes: 6 << 20,
            collect_continuously: seed % 2 == 1,
            ..GraphParams::small(5_000 + seed)
        };
        compare(&ways, &format!("workers={},dense=50", 1 + seed % 2), &params, &seen);
    }
    if ways.len() == WAYS.len() {
        assert!(Seen::get(&seen.dense) > 0, "no page was moved as it was");
        assert!(Seen::get(&seen.by_mutators) > 0, "no mutator ever built a page");
    }
}
