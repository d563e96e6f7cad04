//! Weak references and guardians beside cycles that never stop, with what makes marking's end hard: roots dropped by
//! threads that no pause stops, and large keys, whose addresses are used again in the middle of a cycle.

use firn::{DataArray, Ephemeron, Field, Heap, NoGc, OutOfMemory, RefArray, Root, Scope};
use firn::{Trace, Weak};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

#[path = "support/ways.rs"]
mod ways;
use ways::each_way;

#[derive(Trace)]
struct Node {
    key: u64,
    data: Field<DataArray<u64>>,
}

const SLOTS: usize = 256;
/// Cycles that each test lasts.
const CYCLES: u64 = 12;

struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % below
    }
}

/// Collects until `turns` shows that each of `CYCLES` cycles had mutators at work beside it.
fn collect(heap: &Heap, turns: &AtomicU64) -> u64 {
    let (mut cycles, mut seen, mut found) = (0, 0, 0);
    while cycles < CYCLES {
        let summary = heap.collect();
        found += summary.ephemerons_broken + summary.guarded_ready;
        let now = turns.load(Ordering::Relaxed);
        if now >= seen + 500 {
            (cycles, seen) = (cycles + 1, now);
        }
    }
    found
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Registers nodes, moves them between a table and its stack, and drops them. What the guardian gives out must not be
/// among what it holds.
fn guard_and_hold(
    cx: &mut Scope<'_>,
    seed: u64,
    roots: &SyncSender<Vec<Root<Node>>>,
    (stop, turns): (&AtomicBool, &AtomicU64),
) -> Result<(), OutOfMemory> {
    let guardian = cx.alloc_guardian::<Node>()?;
    let table = cx.alloc_refs::<Node>(SLOTS)?;
    let (mut random, mut made) = (Random(seed), seed << 40);
    let mut held = [0u64; SLOTS];
    let mut batch = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        turns.fetch_add(1, Ordering::Relaxed);
        let slot = random.below(SLOTS);
        match random.below(24) {
            0 => {
                made += 1;
                let nogc = cx.reserve(NoGc::size_of::<Node>() + NoGc::GUARDED)?;
                let node = nogc.alloc(Node { key: made, data: Field::null() });
                guardian.get(&nogc).register(&nogc, node);
                table.get(&nogc).store(&nogc, slot, Some(node));
                batch.push(nogc.global(node));
                held[slot] = made;
            }
            1 => {
                table.get(cx).store(cx, slot, None);
                held[slot] = 0;
            }
            _ => {
                // Known to the stack only, for a while.
                cx.scope(|cx| {
                    let Some(node) = table.get(cx).load(cx, slot).map(|node| cx.root(node)) else {
                        return;
                    };
                    table.get(cx).store(cx, slot, None);
                    for _ in 0..random.below(20) {
                        cx.safepoint();
                    }
                    assert_eq!(node.get(cx).key, held[slot]);
                    table.get(cx).store(cx, slot, Some(node.get(cx)));
                });
            }
        }
        if batch.len() == 64 {
            // Dropped by somebody else, or here if they are busy.
            let _ = roots.try_send(std::mem::take(&mut batch));
        }
        while let Some(node) = guardian.get(cx).poll(cx) {
            let key = node.key;
            assert!(!held.contains(&key), "{key} was given out, but it is held");
        }
        cx.safepoint();
    }
    Ok(())
}

#[test]
fn what_is_held_is_not_given_out_however_many_roots_go_meanwhile() {
    each_way("heap=32m,min-free=2m", |heap, way| {
        let (stop, turns) = (AtomicBool::new(false), AtomicU64::new(0));
        let found = std::thread::scope(|threads| {
            let (stop, turns) = (&stop, &turns);
            for seed in 1..3 {
                let (sender, receiver): (_, Receiver<Vec<Root<Node>>>) = sync_channel(64);
                threads.spawn(move || receiver.into_iter().for_each(drop));
                threads.spawn(move || {
                    heap.attach(|cx| guard_and_hold(cx, seed, &sender, (stop, turns)).unwrap());
                });
            }
            let _stop = StopOnDrop(stop);
            collect(heap, turns)
        });
        assert!(found > 0, "{way}: nothing was ever given out");
    });
}

type Numbers = DataArray<u64>;

#[derive(Trace)]
struct Shared {
    /// Keys, while they are held.
    strong: Field<RefArray<Numbers>>,
    weak: Field<RefArray<Weak<Numbers>>>,
    ephemerons: Field<RefArray<Ephemeron<Numbers, Node>>>,
}

/// Makes and drops keys of its own, of several lengths, and reads everybody's.
fn keys_of_all_sizes(
    cx: &mut Scope<'_>,
    mine: &Root<Shared>,
    others: &[Root<Shared>],
    seed: u64,
    (stop, turns): (&AtomicBool, &AtomicU64),
) {
    const OWN: usize = 48;
    let (mut random, mut made) = (Random(seed), seed << 40);
    while !stop.load(Ordering::Relaxed) {
        turns.fetch_add(1, Ordering::Relaxed);
        cx.safepoint();
        let (slot, other) = (random.below(OWN), random.below(others.len()));
        if random.below(8) == 0 {
            made += 1;
            // One to four pages, and the length says which key it is.
            let len = 520 + (made % 1500) as usize;
            // An allocation may fail if the others are always faster: that is not what this is about.
            let _ = cx.scope(|cx| {
                let key = cx.alloc_data::<u64>(len)?;
                key.get(cx).set(0, made);
                key.get(cx).set(len - 1, made);
                let nogc = cx.reserve(NoGc::size_of::<Node>() + 2 * NoGc::EPHEMERON)?;
                let key = key.get(&nogc);
                let node = nogc.alloc(Node { key: made, data: Field::null() });
                let shared = mine.get(&nogc);
                let ephemeron = nogc.alloc_ephemeron(key, node);
                let load = "made with the shared object";
                shared.weak.load(&nogc).expect(load).store(&nogc, slot, Some(nogc.alloc_weak(key)));
                shared.ephemerons.load(&nogc).expect(load).store(&nogc, slot, Some(ephemeron));
                shared.strong.load(&nogc).expect(load).store(&nogc, slot, Some(key));
                Ok::<_, OutOfMemory>(())
            });
        } else if random.below(4) == 0 {
            mine.get(cx).strong.load(cx).expect("made").store(cx, slot, None);
        }
        let check = |key: firn::Gc<'_, Numbers>| {
            let number = key.get(0);
            assert_eq!(key.len(), 520 + (number % 1500) as usize, "not what it was made as");
            assert_eq!(key.get(key.len() - 1), number, "not what it was made as");
            number
        };
        // Every other one is left alone, or nothing would ever die.
        if slot % 2 == 0 {
            let theirs = others[other].get(cx);
            let weak = theirs.weak.load(cx).expect("made").load(cx, slot);
            if let Some(key) = weak.and_then(|weak| weak.target(cx)) {
                check(key);
            }
            let ephemeron = theirs.ephemerons.load(cx).expect("made").load(cx, slot);
            if let Some((ephemeron, key)) = ephemeron.and_then(|e| Some((e, e.key(cx)?))) {
                let value = ephemeron.value(cx).expect("the key is held");
                assert_eq!(value.key, check(key));
            }
        }
    }
}

#[test]
fn large_keys_read_as_what_they_were_although_their_places_are_used_again() {
    each_way("heap=32m,min-free=2m,large-object=4k", |heap, way| {
        let shared: Vec<Root<Shared>> = heap.attach(|cx| {
            let one = |_| {
                cx.scope(|cx| {
                    let (strong, weak, all) =
                        (cx.alloc_refs(SLOTS)?, cx.alloc_refs(SLOTS)?, cx.alloc_refs(SLOTS)?);
                    let shared = cx.alloc(Shared {
                        strong: Field::null(),
                        weak: Field::null(),
                        ephemerons: Field::null(),
                    })?;
                    let at = shared.get(cx);
                    at.strong.store(cx, Some(strong.get(cx)));
                    at.weak.store(cx, Some(weak.get(cx)));
                    at.ephemerons.store(cx, Some(all.get(cx)));
                    Ok::<_, OutOfMemory>(cx.global(at))
                })
            };
            (0..4).map(one).collect::<Result<_, _>>().unwrap()
        });
        let (stop, turns) = (AtomicBool::new(false), AtomicU64::new(0));
        let found = std::thread::scope(|threads| {
            let (shared, stop, turns) = (&shared, &stop, &turns);
            for (seed, mine) in (1..).zip(shared) {
                threads.spawn(move || {
                    let flags = (stop, turns);
                    heap.attach(|cx| keys_of_all_sizes(cx, mine, shared, seed, flags));
                });
            }
            let _stop = StopOnDrop(stop);
            collect(heap, turns)
        });
        assert!(found > 0, "{way}: nothing was ever broken");
    });
}
