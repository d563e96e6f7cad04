//! Ephemerons and weak boxes: exact after a collection that nothing runs beside, and never wrong beside any number of
//! them.

use firn::events::PauseKind;
use firn::{DataArray, Ephemeron, Event, Field, Gc, Heap, Listener, NoGc, Options, OutOfMemory};
use firn::{RefArray, Root, Scope, TagRule, Tagged, TaggedArray, TaggedEphemeron, Trace, Value};
use firn::{Weak, WordRule};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

#[path = "support/ways.rs"]
mod ways;
use ways::each_way;

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
    data: Field<DataArray<u64>>,
}

impl Node {
    fn new(key: u64) -> Node {
        Node { key, next: Field::null(), data: Field::null() }
    }
}

type Chain = RefArray<Ephemeron<Node, Node>>;

/// A table of ephemerons of nodes: the value of number `i` is the key of number `next(i)`.
fn ephemerons(
    cx: &mut Scope<'_>,
    nodes: &Root<RefArray<Node>>,
    next: impl Fn(usize) -> usize,
) -> Result<Root<Chain>, OutOfMemory> {
    let count = nodes.get(cx).len();
    let table = cx.alloc_refs::<Ephemeron<Node, Node>>(count)?;
    for index in 0..count {
        let nogc = cx.reserve(NoGc::EPHEMERON)?;
        let node = |at| nodes.get(&nogc).load(&nogc, at).expect("all are there");
        let ephemeron = nogc.alloc_ephemeron(node(index), node(next(index)));
        table.get(&nogc).store(&nogc, index, Some(ephemeron));
    }
    Ok(cx.global(table.get(cx)))
}

fn nodes(cx: &mut Scope<'_>, count: usize) -> Result<Root<RefArray<Node>>, OutOfMemory> {
    let table = cx.alloc_refs::<Node>(count)?;
    for index in 0..count {
        let nogc = cx.reserve(NoGc::size_of::<Node>())?;
        table.get(&nogc).store(&nogc, index, Some(nogc.alloc(Node::new(index as u64))));
    }
    Ok(cx.global(table.get(cx)))
}

/// Which of the ephemerons are whole; checks that they hold what they were made with.
fn whole(cx: &Scope<'_>, table: &Root<Chain>, next: impl Fn(usize) -> usize) -> Vec<usize> {
    let table = table.get(cx);
    let is_whole = |&index: &usize| {
        let ephemeron = table.load(cx, index).expect("all are there");
        let (key, value) = (ephemeron.key(cx), ephemeron.value(cx));
        assert_eq!(key.is_some(), value.is_some(), "both at once");
        assert!(key.is_none_or(|key| key.key == index as u64));
        assert!(value.is_none_or(|value| value.key == next(index) as u64));
        key.is_some()
    };
    (0..table.len()).filter(is_whole).collect()
}

#[test]
fn a_chain_of_large_objects_that_are_each_others_keys_is_marked_to_its_end() {
    const COUNT: usize = 24_000;
    type Numbers = DataArray<u64>;
    // Longer than a page, so large.
    let words = 600;
    for way in ["backend=stw", "backend=pingpong,workers=2"] {
        let options = format!("heap=512m,concurrent=false,large-object=4k,{way}");
        let heap = match Heap::new(&Options::parse(&options).unwrap()) {
            Ok(heap) => heap,
            Err(error) if error.is_userfaultfd_refused() => {
                println!("left out: {way}: {error}");
                continue;
            }
            Err(error) => panic!("{way}: {error}"),
        };
        heap.attach(|cx| {
            let table = cx.alloc_refs::<Ephemeron<Numbers, Numbers>>(COUNT)?;
            let table = cx.global(table.get(cx));
            let before = cx.var::<Numbers>();
            // From the last one to the first, which alone is held when all are there.
            for index in (0..COUNT).rev() {
                let numbers = cx.alloc_data::<u64>(words)?;
                let nogc = cx.reserve(NoGc::EPHEMERON)?;
                let key = numbers.get(&nogc);
                key.set(0, index as u64);
                if let Some(value) = before.get(&nogc) {
                    let ephemeron = nogc.alloc_ephemeron(key, value);
                    table.get(&nogc).store(&nogc, index, Some(ephemeron));
                }
                before.set(&nogc, Some(key));
            }
            cx.collect();
            let table = table.get(cx);
            for index in 0..COUNT - 1 {
                let ephemeron = table.load(cx, index).expect("held by the table");
                let value = ephemeron.value(cx).expect("the chain leads to it");
                assert_eq!((value.get(0), value.len()), (index as u64 + 1, words), "{way}");
            }
            Ok::<_, OutOfMemory>(())
        })
        .unwrap();
    }
}

#[test]
fn dead_keys_are_gone_and_live_ones_stay() {
    const COUNT: usize = 3000;
    each_way("heap=32m,concurrent=false", |heap, way| {
        heap.attach(|cx| {
            let nodes = nodes(cx, COUNT).unwrap();
            // The values are live anyhow: only keys matter.
            let values: Vec<_> =
                (0..7).map(|key| nodes.get(cx).load(cx, key).map(|node| cx.global(node))).collect();
            let table = cx.scope(|cx| ephemerons(cx, &nodes, |index| index % 7)).unwrap();
            cx.collect();
            assert_eq!(whole(cx, &table, |index| index % 7).len(), COUNT, "{way}");
            for index in (0..COUNT).filter(|index| index % 3 != 0) {
                nodes.get(cx).store(cx, index, None);
            }
            let broken = cx.collect().ephemerons_broken;
            let left: Vec<_> = (0..COUNT).filter(|index| index % 3 == 0 || *index < 7).collect();
            assert_eq!(whole(cx, &table, |index| index % 7), left, "{way}");
            assert_eq!(broken as usize, COUNT - left.len(), "{way}");
            assert_eq!(cx.collect().ephemerons_broken, 0, "{way}: broken once");
            assert_eq!(values.len(), 7);
        });
    });
}

#[test]
fn chains_and_cycles_live_and_die_as_a_whole() {
    const COUNT: usize = 2000;
    let directions: [fn(usize) -> usize; 3] = [
        |index| (index + 1).min(COUNT - 1),
        |index| index.saturating_sub(1),
        // One cycle through all.
        |index| (index + 7) % COUNT,
    ];
    each_way("heap=32m,concurrent=false", |heap, way| {
        heap.attach(|cx| {
            for (number, next) in directions.into_iter().enumerate() {
                let nodes = cx.scope(|cx| nodes(cx, COUNT)).unwrap();
                let table = cx.scope(|cx| ephemerons(cx, &nodes, next)).unwrap();
                // One end of the chain, which leads through all values.
                let end = if number == 1 { COUNT - 1 } else { 0 };
                let end = nodes.get(cx).load(cx, end).map(|node| cx.global(node));
                drop(nodes);
                cx.collect();
                assert_eq!(whole(cx, &table, next).len(), COUNT, "{way}, {number}");
                drop(end);
                assert_eq!(cx.collect().ephemerons_broken as usize, COUNT, "{way}, {number}");
                assert_eq!(whole(cx, &table, next).len(), 0, "{way}, {number}");
            }
        });
    });
}

#[test]
fn a_value_that_refers_to_its_key_does_not_keep_it() {
    each_way("heap=16m,concurrent=false", |heap, way| {
        heap.attach(|cx| {
            let (table, key) = cx
                .scope(|cx| {
                    let (key, value) = (cx.alloc(Node::new(1))?, cx.alloc(Node::new(2))?);
                    value.get(cx).next.store(cx, Some(key.get(cx)));
                    let table = cx.alloc_refs::<Ephemeron<Node, Node>>(2)?;
                    let one = cx.alloc_ephemeron(key, value)?;
                    let same = cx.alloc_ephemeron(key, key)?;
                    table.get(cx).store(cx, 0, Some(one.get(cx)));
                    table.get(cx).store(cx, 1, Some(same.get(cx)));
                    Ok::<_, OutOfMemory>((cx.global(table.get(cx)), cx.global(key.get(cx))))
                })
                .unwrap();
            let read = |cx: &Scope<'_>, index| {
                let ephemeron = table.get(cx).load(cx, index).expect("stored");
                let (key, value) = (ephemeron.key(cx), ephemeron.value(cx));
                key.zip(value).map(|(key, value)| (key.key, value.key))
            };
            cx.collect();
            assert_eq!([read(cx, 0), read(cx, 1)], [Some((1, 2)), Some((1, 1))], "{way}");
            drop(key);
            cx.collect();
            assert_eq!([read(cx, 0), read(cx, 1)], [None, None], "{way}");
        });
    });
}

#[test]
fn large_objects_and_arrays_are_keys_like_others() {
    each_way("heap=32m,concurrent=false,large-object=64k", |heap, way| {
        heap.attach(|cx| {
            let mut held = Vec::new();
            let mut all = Vec::new();
            for turn in 0..12u64 {
                cx.scope(|cx| {
                    let key = cx.alloc_data::<u64>(if turn % 2 == 0 { 20_000 } else { 20 })?;
                    key.get(cx).set(3, turn);
                    let value = cx.alloc(Node::new(turn))?;
                    let ephemeron = cx.alloc_ephemeron(key, value)?;
                    all.push(cx.global(ephemeron.get(cx)));
                    if turn % 3 == 0 {
                        held.push(cx.global(key.get(cx)));
                    }
                    Ok::<_, OutOfMemory>(())
                })
                .unwrap();
            }
            for _ in 0..2 {
                cx.collect();
                for (turn, ephemeron) in (0..).zip(&all) {
                    let (key, value) = (ephemeron.get(cx).key(cx), ephemeron.get(cx).value(cx));
                    assert_eq!(key.is_some(), turn % 3 == 0, "{way}: {turn}");
                    assert_eq!(value.map(|value| value.key), key.map(|key| key.get(3)), "{way}");
                }
            }
        });
    });
}

struct Lisp;

impl WordRule for Lisp {
    const RULE: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 0b10_0001, address: !7 };
}

#[derive(Trace)]
struct Cell {
    value: Tagged<Lisp>,
}

#[test]
fn tagged_words_keep_their_tags_and_immediate_keys_never_die() {
    each_way("heap=16m,concurrent=false", |heap, way| {
        heap.attach(|cx| {
            let cell = cx
                .scope(|cx| cx.alloc(Cell { value: Tagged::new(2) }).map(|c| cx.global(c.get(cx))));
            let cell = cell.unwrap();
            let table = cx.scope(|cx| {
                let table = cx.alloc_tagged::<Lisp>(4)?;
                let nogc = cx.reserve(4 * NoGc::EPHEMERON + NoGc::size_of::<Cell>())?;
                let zero = Value::<Lisp>::immediate(0).unwrap();
                let number = Value::<Lisp>::immediate(42 << 3 | 1).unwrap();
                let held = Value::reference(cell.get(&nogc), 5).unwrap();
                let lost = nogc.alloc(Cell { value: Tagged::new(2) });
                let lost = Value::reference(lost, 5).unwrap();
                let pairs = [(zero, held), (number, lost), (held, number), (lost, number)];
                for (index, (key, value)) in pairs.into_iter().enumerate() {
                    let ephemeron = nogc.try_alloc_tagged_ephemeron(key, value).unwrap();
                    let word = Value::reference(ephemeron, 0).unwrap();
                    table.get(&nogc).store(&nogc, index, word);
                }
                Ok::<_, OutOfMemory>(cx.global(table.get(cx)))
            });
            let table: Root<TaggedArray<Lisp>> = table.unwrap();
            let read = |cx: &Scope<'_>, index| {
                let word = table.get(cx).load(cx, index);
                let ephemeron = word.downcast::<TaggedEphemeron<Lisp>>(cx).expect("that type");
                let tag = |value: Value<'_, Lisp>| (value.is_reference(), value.bits() & 7);
                (ephemeron.key(cx).map(tag), ephemeron.value(cx).map(tag))
            };
            let (reference, number) = (Some((true, 5)), Some((false, 1)));
            cx.collect();
            // The cell that only the value of an immediate key holds is live.
            assert_eq!(read(cx, 0), (Some((false, 0)), reference), "{way}");
            assert_eq!(read(cx, 1), (number, reference), "{way}");
            assert_eq!([read(cx, 2), read(cx, 3)], [(reference, number); 2], "{way}");
            table.get(cx).store(cx, 1, Value::immediate(0).unwrap());
            cx.collect();
            assert_eq!([read(cx, 2), read(cx, 3)], [(reference, number), (None, None)], "{way}");
        });
    });
}

const SLOTS: usize = 512;

/// Words that follow from a key, as the contents of what was made with it.
fn contents(key: u64, index: usize) -> u64 {
    key.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ index as u64
}

fn check(cx: &Scope<'_>, node: Gc<'_, Node>) {
    let data = node.data.load(cx).expect("every node has data");
    assert_eq!(data.len() as u64, 2 + node.key % 9);
    for index in 0..data.len() {
        assert_eq!(data.get(index), contents(node.key, index), "broken contents of {}", node.key);
    }
}

#[derive(Trace)]
struct Shared {
    strong: Field<RefArray<Node>>,
    weak: Field<RefArray<Weak<Node>>>,
    ephemerons: Field<RefArray<Ephemeron<Node, DataArray<u64>>>>,
}

/// Makes, holds, drops and reads nodes through weak boxes and ephemerons of its own and of others.
fn mutate(
    cx: &mut Scope<'_>,
    mine: &Root<Shared>,
    others: &[Root<Shared>],
    seed: u64,
    (stop, turns): (&AtomicBool, &AtomicU64),
) -> Result<(), OutOfMemory> {
    let mut state = seed;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let mut made = seed << 40;
    let kept = cx.var::<Node>();
    while !stop.load(Ordering::Relaxed) {
        made += 1;
        cx.safepoint();
        if let Some(node) = kept.get(cx) {
            check(cx, node);
        }
        turns.fetch_add(1, Ordering::Relaxed);
        let len = 2 + (made % 9) as usize;
        let bytes = NoGc::size_of::<Node>() + NoGc::size_of_data::<u64>(len) + 2 * NoGc::EPHEMERON;
        let (slot, draw, other) = (random(SLOTS), random(8), random(others.len()));
        let nogc = cx.reserve(bytes)?;
        let shared = mine.get(&nogc);
        let strong = shared.strong.load(&nogc).expect("made");
        let weak = shared.weak.load(&nogc).expect("made");
        let ephemerons = shared.ephemerons.load(&nogc).expect("made");
        // What is held cannot be gone, and its ephemeron's value neither.
        if let Some(node) = strong.load(&nogc, slot) {
            check(&nogc, node);
            let again = weak.load(&nogc, slot).expect("as old").target(&nogc);
            assert!(again.is_some_and(|again| Gc::ptr_eq(again, node)), "gone, but held");
            let value = ephemerons.load(&nogc, slot).expect("as old").value(&nogc);
            assert_eq!(value.expect("its key is held").get(0), contents(node.key, 0));
        }
        if draw < 3 {
            let data = nogc.alloc_data::<u64>(len);
            (0..len).for_each(|index| data.set(index, contents(made, index)));
            let node = nogc.alloc(Node::new(made));
            node.data.store(&nogc, Some(data));
            weak.store(&nogc, slot, Some(nogc.alloc_weak(node)));
            ephemerons.store(&nogc, slot, Some(nogc.alloc_ephemeron(node, data)));
            strong.store(&nogc, slot, Some(node));
        } else if draw < 6 {
            strong.store(&nogc, slot, None);
        }
        // Somebody's weak box: what it gives is whole, and can be held. Half of them are not read: reading them all, all
        // the time, would keep everything.
        if !slot.is_multiple_of(2) {
            continue;
        }
        let theirs = others[other].get(&nogc);
        let weak = theirs.weak.load(&nogc).expect("made");
        if let Some(node) = weak.load(&nogc, slot).and_then(|weak| weak.target(&nogc)) {
            check(&nogc, node);
            if draw == 7 {
                kept.set(&nogc, Some(node));
            }
        }
        let theirs = others[other].get(cx).ephemerons.load(cx).expect("made");
        if let Some(ephemeron) = theirs.load(cx, slot) {
            // The value may go before the key is read, but not while the key is held.
            if let Some(key) = ephemeron.key(cx) {
                let value = ephemeron.value(cx).expect("the key is held");
                assert_eq!(value.get(1), contents(key.key, 1));
            }
        }
        if made.is_multiple_of(4096) {
            cx.blocking(|| ());
        }
    }
    Ok(())
}

#[test]
fn what_is_read_is_whole_beside_collections_all_the_time() {
    for threads in [1usize, 2, 8] {
        each_way("heap=32m,min-free=2m", |heap, way| {
            let shared: Vec<Root<Shared>> = heap.attach(|cx| {
                let one = |_| {
                    cx.scope(|cx| {
                        let shared = cx.alloc(Shared {
                            strong: Field::null(),
                            weak: Field::null(),
                            ephemerons: Field::null(),
                        })?;
                        let strong = cx.alloc_refs(SLOTS)?;
                        let weak = cx.alloc_refs(SLOTS)?;
                        let ephemerons = cx.alloc_refs(SLOTS)?;
                        let at = shared.get(cx);
                        at.strong.store(cx, Some(strong.get(cx)));
                        at.weak.store(cx, Some(weak.get(cx)));
                        at.ephemerons.store(cx, Some(ephemerons.get(cx)));
                        Ok::<_, OutOfMemory>(cx.global(at))
                    })
                };
                (0..threads).map(one).collect::<Result<_, _>>().unwrap()
            });
            let (stop, turns) = (AtomicBool::new(false), AtomicU64::new(0));
            let broken: u64 = std::thread::scope(|scope| {
                let (shared, stop, turns) = (&shared, &stop, &turns);
                for (seed, mine) in (1..).zip(shared) {
                    scope.spawn(move || {
                        heap.attach(|cx| mutate(cx, mine, shared, seed, (stop, turns)).unwrap());
                    });
                }
                let _end = StopOnDrop(stop);
                let (mut cycles, mut broken, mut seen) = (0, 0, 0);
                // Only cycles count between which the mutators have had the time to lose something.
                while cycles < 8 {
                    broken += heap.collect().ephemerons_broken;
                    let now = turns.load(Ordering::Relaxed);
                    if now >= seen + 1000 {
                        (cycles, seen) = (cycles + 1, now);
                    }
                }
                broken
            });
            assert!(broken > 0, "{way}, {threads}: nothing was ever broken");
        });
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_chain_of_a_hundred_thousand_takes_linear_time_in_either_direction() {
    const COUNT: usize = 100_000;
    for workers in [1, 2] {
        let options = format!("heap=64m,backend=stw,concurrent=false,workers={workers}");
        let heap = Heap::new(&Options::parse(&options).unwrap()).unwrap();
        heap.attach(|cx| {
            for (name, up) in [("as found", true), ("against the order", false)] {
                let next = |index: usize| match up {
                    true => (index + 1).min(COUNT - 1),
                    false => index.saturating_sub(1),
                };
                let nodes = cx.scope(|cx| nodes(cx, COUNT)).unwrap();
                let table = cx.scope(|cx| ephemerons(cx, &nodes, next)).unwrap();
                let end = nodes.get(cx).load(cx, if up { 0 } else { COUNT - 1 });
                let end = end.map(|node| cx.global(node));
                drop(nodes);
                let before = heap.core().ephemerons.work();
                let begin = Instant::now();
                cx.collect();
                let took = begin.elapsed();
                let after = heap.core().ephemerons.work();
                let (indexings, steps) = (after.0 - before.0, after.1 - before.1);
                println!(
                    "{workers} workers, {name}: {took:.1?}, {indexings} indexings, {steps} steps"
                );
                assert_eq!(whole(cx, &table, next).len(), COUNT);
                assert!(steps < 4 * COUNT as u64 && indexings <= 10, "{steps}, {indexings}");
                // The same, found one after the other: each ephemeron is the value of the one before.
                drop((end, table));
                nested(cx, COUNT, &heap);
            }
        });
    }
}

/// A chain of ephemerons of which each is known only once the one before has given its value.
fn nested(cx: &mut Scope<'_>, count: usize, heap: &Heap) {
    type Link = Ephemeron<Node, Outer>;
    #[derive(Trace)]
    struct Outer {
        key: Field<Node>,
        inner: Field<Ephemeron<Node, Outer>>,
    }
    let (first, key): (Root<Link>, Root<Node>) = cx.scope(|cx| {
        let (last, keys) = (cx.var::<Link>(), cx.var::<Node>());
        let bytes = 3 * NoGc::size_of::<Node>() + NoGc::size_of::<Outer>() + NoGc::EPHEMERON;
        for number in 0..count {
            let nogc = cx.reserve(bytes).unwrap();
            let [key, near, far] = [0, 1, 2].map(|_| nogc.alloc(Node::new(number as u64)));
            let outer = nogc.alloc(Outer { key: Field::null(), inner: Field::null() });
            // The next key lies further away than the next ephemeron, which is visited before it.
            outer.inner.store(&nogc, last.get(&nogc));
            outer.key.store(&nogc, Some(near));
            near.next.store(&nogc, Some(far));
            far.next.store(&nogc, keys.get(&nogc));
            last.set(&nogc, Some(nogc.alloc_ephemeron(key, outer)));
            keys.set(&nogc, Some(key));
        }
        let (last, key) = (last.get(cx).expect("made"), keys.get(cx).expect("made"));
        (cx.global(last), cx.global(key))
    });
    let before = heap.core().ephemerons.work();
    let begin = Instant::now();
    cx.collect();
    let (after, took) = (heap.core().ephemerons.work(), begin.elapsed());
    let (indexings, steps) = (after.0 - before.0, after.1 - before.1);
    println!("  one inside the other: {took:.1?}, {indexings} indexings, {steps} steps");
    let (mut length, mut at) = (0, Some(first.get(cx)));
    while let Some(link) = at {
        length += 1;
        at = link.value(cx).expect("the whole chain is live").inner.load(cx);
    }
    assert_eq!(length, count);
    // Five objects for each link are looked up, in buckets of two at most in the mean, and each link once more.
    assert!(steps < 12 * count as u64 && indexings <= 12, "{steps}, {indexings}");
    drop(key);
    assert_eq!(cx.collect().ephemerons_broken, 1, "the first one; nothing leads to the others");
}

/// Lengths of final pauses.
#[derive(Default)]
struct Ends(Mutex<Vec<u64>>);

impl Listener for Ends {
    fn event(&self, event: &Event) {
        if let Event::Pause { kind: PauseKind::FinalMark, stopped, released, .. } = event {
            self.0.lock().unwrap().push(released - stopped);
        }
    }
}

#[test]
fn the_final_pause_does_not_know_how_many_ephemerons_there_are() {
    const COUNT: usize = 1_000_000;
    let heap =
        Heap::new(&Options::parse("heap=256m,backend=stw,concurrent=false").unwrap()).unwrap();
    let ends = Arc::new(Ends::default());
    heap.add_listener(ends.clone());
    heap.attach(|cx| {
        let nodes = nodes(cx, COUNT).unwrap();
        let table = cx.scope(|cx| ephemerons(cx, &nodes, |index| index ^ 1)).unwrap();
        for round in 0..8 {
            // An eighth of the keys dies in each round.
            for index in (0..COUNT).filter(|index| index / 2 % 8 == round) {
                nodes.get(cx).store(cx, index, None);
            }
            let broken = cx.collect().ephemerons_broken as usize;
            assert_eq!(broken, COUNT / 8, "round {round}");
        }
        assert!(whole(cx, &table, |index| index ^ 1).is_empty());
    });
    let mut ends = ends.0.lock().unwrap().clone();
    ends.sort_unstable();
    let (median, longest) = (ends[ends.len() / 2], ends[ends.len() - 1]);
    println!("{} final pauses: median {median} ns, longest {longest} ns", ends.len());
    assert_eq!(ends.len(), 8, "one in each cycle");
    assert!(median < 200_000, "median {median} ns");
}

#[test]
fn reading_dying_keys_for_ever_does_not_keep_marking_from_ending() {
    const COUNT: usize = 100_000;
    let heap =
        Heap::new(&Options::parse("heap=64m,backend=stw,concurrent=false").unwrap()).unwrap();
    let ends = Arc::new(Ends::default());
    let table = heap.attach(|cx| {
        let nodes = nodes(cx, COUNT).unwrap();
        ephemerons(cx, &nodes, |index| index).unwrap()
    });
    heap.add_listener(ends.clone());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (table, stop, heap) = (&table, &stop, &heap);
        scope.spawn(move || {
            heap.attach(|cx| {
                let mut at = 0;
                while !stop.load(Ordering::Relaxed) {
                    // A few microseconds for each key.
                    for turn in 0..2000 {
                        std::hint::black_box(turn);
                    }
                    let ephemeron = table.get(cx).load(cx, at).expect("all are there");
                    if let Some(key) = ephemeron.key(cx) {
                        assert_eq!(key.key, at as u64);
                    }
                    at = (at + 1) % COUNT;
                    cx.safepoint();
                }
            });
        });
        let _stop = StopOnDrop(stop);
        heap.collect();
        heap.collect();
    });
    let count = ends.0.lock().unwrap().len();
    println!("{count} final pauses in two cycles");
    assert!(count <= 20, "{count} final pauses");
}
