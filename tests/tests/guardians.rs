//! Guardians give out what nothing else keeps, whole and once, and nothing else.

use firn::Weak;
use firn::{Ephemeron, Field, Gc, Guardian, Heap, NoGc, OutOfMemory, RefArray, Root, Scope, Trace};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

#[path = "support/ways.rs"]
mod ways;
use ways::each_way;

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
    guardian: Field<Guardian<Node>>,
}

impl Node {
    fn new(key: u64) -> Node {
        Node { key, next: Field::null(), guardian: Field::null() }
    }
}

fn guardian(cx: &mut Scope<'_>) -> Root<Guardian<Node>> {
    cx.scope(|cx| cx.alloc_guardian().map(|guardian| cx.global(guardian.get(cx)))).unwrap()
}

/// A node registered with `guardian`, which nothing else holds when the root is dropped.
fn guarded(cx: &mut Scope<'_>, guardian: &Root<Guardian<Node>>, key: u64) -> Root<Node> {
    let nogc = cx.reserve(NoGc::size_of::<Node>() + NoGc::GUARDED).unwrap();
    let node = nogc.alloc(Node::new(key));
    guardian.get(&nogc).register(&nogc, node);
    nogc.global(node)
}

/// Takes all that a guardian has; sorted.
fn keys(cx: &Scope<'_>, guardian: &Root<Guardian<Node>>) -> Vec<u64> {
    let mut keys: Vec<_> =
        std::iter::from_fn(|| guardian.get(cx).poll(cx).map(|node| node.key)).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn objects_come_out_once_for_each_registration_and_not_before_they_are_lost() {
    each_way("heap=16m,concurrent=false", |heap, way| {
        heap.attach(|cx| {
            let guardian = guardian(cx);
            let held: Vec<_> = (0..100).map(|key| guarded(cx, &guardian, key)).collect();
            for node in held.iter().step_by(10) {
                cx.scope(|cx| {
                    let (node, guardian) = (cx.root(node.get(cx)), cx.root(guardian.get(cx)));
                    cx.guard(guardian, node)
                })
                .unwrap();
            }
            cx.collect();
            assert_eq!(keys(cx, &guardian), [0; 0], "{way}: they are held");
            let (held, lost): (Vec<_>, Vec<_>) =
                held.into_iter().enumerate().partition(|(index, _)| index % 4 == 0);
            drop(lost);
            assert_eq!(cx.collect().guarded_ready, 75 + 5, "{way}");
            let mut expected: Vec<_> = (0..100).filter(|key| key % 4 != 0).collect();
            expected.extend((0..100).step_by(10).filter(|key| key % 4 != 0));
            expected.sort_unstable();
            // They wait for as long as nobody asks.
            cx.collect();
            cx.collect();
            assert_eq!(keys(cx, &guardian), expected, "{way}");
            cx.collect();
            assert_eq!(keys(cx, &guardian), [0; 0], "{way}: each once");
            drop(held);
            cx.collect();
            assert_eq!(keys(cx, &guardian).len(), 25 + 5, "{way}");
        });
    });
}

#[test]
fn weak_references_outlast_the_guardian_and_break_when_the_object_is_dropped() {
    each_way("heap=16m,concurrent=false", |heap, way| {
        heap.attach(|cx| {
            let guardian = guardian(cx);
            let node = guarded(cx, &guardian, 5);
            type Entry = Ephemeron<Node, Node>;
            let (weak, entry): (Root<Weak<Node>>, Root<Entry>) = cx.scope(|cx| {
                let node = cx.root(node.get(cx));
                let weak = cx.alloc_weak(node).unwrap();
                let value = cx.alloc(Node::new(6)).unwrap();
                let entry = cx.alloc_ephemeron(node, value).unwrap();
                (cx.global(weak.get(cx)), cx.global(entry.get(cx)))
            });
            drop(node);
            cx.collect();
            assert_eq!(weak.get(cx).target(cx).map(|node| node.key), Some(5), "{way}");
            assert_eq!(entry.get(cx).value(cx).map(|node| node.key), Some(6), "{way}");
            assert_eq!(keys(cx, &guardian), [5], "{way}");
            cx.collect();
            assert!(weak.get(cx).target(cx).is_none(), "{way}");
            assert!(entry.get(cx).value(cx).is_none(), "{way}");
        });
    });
}

#[test]
fn what_refers_to_each_other_comes_out_together_with_what_it_holds() {
    each_way("heap=16m,concurrent=false", |heap, way| {
        heap.attach(|cx| {
            let guardian = guardian(cx);
            let (one, two) = (guarded(cx, &guardian, 1), guarded(cx, &guardian, 2));
            cx.scope(|cx| {
                let plain = cx.alloc(Node::new(3)).unwrap();
                one.get(cx).next.store(cx, Some(two.get(cx)));
                two.get(cx).next.store(cx, Some(plain.get(cx)));
                plain.get(cx).next.store(cx, Some(one.get(cx)));
            });
            drop((one, two));
            cx.collect();
            let mut out = Vec::new();
            while let Some(node) = guardian.get(cx).poll(cx) {
                let next = node.next.load(cx).expect("kept");
                let after = next.next.load(cx).expect("kept");
                out.push([node.key, next.key, after.key]);
            }
            out.sort_unstable();
            assert_eq!(out, [[1, 2, 3], [2, 3, 1]], "{way}");
        });
    });
}

#[test]
fn a_guardian_that_dies_lets_go_and_one_that_is_brought_back_does_its_work() {
    each_way("heap=16m,concurrent=false", |heap, way| {
        heap.attach(|cx| {
            // Known to the object that it watches only: both die.
            let lonely = guardian(cx);
            let node = guarded(cx, &lonely, 1);
            node.get(cx).guardian.store(cx, Some(lonely.get(cx)));
            let weak = cx.scope(|cx| {
                let node = cx.root(node.get(cx));
                cx.alloc_weak(node).map(|weak| cx.global(weak.get(cx))).unwrap()
            });
            drop((lonely, node));
            assert_eq!(cx.collect().guarded_ready, 0, "{way}");
            assert!(weak.get(cx).target(cx).is_none(), "{way}");
            // A chain of guardians, each known to what the one before watches.
            let first = guardian(cx);
            let mut last = None;
            for key in (0..5).rev() {
                let outer = if key == 0 { None } else { Some(guardian(cx)) };
                let node = guarded(cx, outer.as_ref().unwrap_or(&first), key);
                let inner = last.as_ref().map(|last: &Root<Guardian<Node>>| last.get(cx));
                node.get(cx).guardian.store(cx, inner);
                last = outer;
            }
            drop(last);
            assert_eq!(cx.collect().guarded_ready, 5, "{way}");
            let mut queue = vec![first];
            let mut out = Vec::new();
            while let Some(guardian) = queue.pop() {
                while let Some(node) = guardian.get(cx).poll(cx) {
                    out.push(node.key);
                    queue.extend(node.guardian.load(cx).map(|inner| cx.global(inner)));
                }
            }
            assert_eq!(out, [0, 1, 2, 3, 4], "{way}");
        });
    });
}

#[test]
fn what_came_out_can_be_registered_again() {
    each_way("heap=16m,concurrent=false", |heap, way| {
        heap.attach(|cx| {
            let guardian = guardian(cx);
            drop(guarded(cx, &guardian, 9));
            for turn in 0..3 {
                cx.collect();
                let node = guardian.get(cx).poll(cx).unwrap_or_else(|| panic!("{way}, {turn}"));
                let node = cx.global(node);
                cx.scope(|cx| {
                    let (node, guardian) = (cx.root(node.get(cx)), cx.root(guardian.get(cx)));
                    cx.guard(guardian, node).unwrap();
                });
            }
        });
    });
}

/// Registers numbered objects with guardians that all threads share, drops them, and asks the guardians.
fn work(
    cx: &mut Scope<'_>,
    guardians: &Root<RefArray<Guardian<Node>>>,
    thread: u64,
    out: &Mutex<Vec<u64>>,
) -> Result<(), OutOfMemory> {
    for number in 0..4000u64 {
        let key = thread << 32 | number;
        let which =
            (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60) as usize % guardians.get(cx).len();
        let nogc = cx.reserve(2 * NoGc::size_of::<Node>() + NoGc::GUARDED)?;
        let guardian = guardians.get(&nogc).load(&nogc, which).expect("made");
        let (node, held) = (nogc.alloc(Node::new(key)), nogc.alloc(Node::new(!key)));
        node.next.store(&nogc, Some(held));
        guardian.register(&nogc, node);
        let asked = guardians.get(cx).load(cx, number as usize % 3).expect("made");
        if let Some(node) = asked.poll(cx) {
            take(cx, node, out);
        }
        cx.safepoint();
    }
    Ok(())
}

fn take(cx: &Scope<'_>, node: Gc<'_, Node>, out: &Mutex<Vec<u64>>) {
    let held = node.next.load(cx).expect("kept with the node");
    assert_eq!(held.key, !node.key);
    out.lock().unwrap().push(node.key);
}

fn all_come_out(heap: &Heap, way: &str, threads: u64) {
    let guardians = heap.attach(|cx| {
        let guardians = cx.alloc_refs::<Guardian<Node>>(3).unwrap();
        for index in 0..3 {
            let guardian = cx.alloc_guardian().unwrap();
            guardians.get(cx).store(cx, index, Some(guardian.get(cx)));
        }
        cx.global(guardians.get(cx))
    });
    let (out, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (guardians, out) = (&guardians, &out);
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || heap.attach(|cx| work(cx, guardians, thread, out).unwrap()))
            })
            .collect();
        let collector = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                heap.collect();
            }
        });
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        stop.store(true, Ordering::Relaxed);
        collector.join().unwrap();
        assert!(ended.into_iter().all(|result| result.is_ok()), "{way}, {threads}");
    });
    heap.collect();
    heap.attach(|cx| {
        for index in 0..3 {
            while let Some(node) = guardians.get(cx).load(cx, index).expect("made").poll(cx) {
                take(cx, node, &out);
            }
        }
    });
    let mut out = out.into_inner().unwrap();
    out.sort_unstable();
    let expected: Vec<_> = (0..threads)
        .flat_map(|thread| (0..4000).map(move |number| thread << 32 | number))
        .collect();
    assert!(out == expected, "{way}, {threads}: {} of {}", out.len(), expected.len());
}

#[test]
fn each_object_comes_out_once_beside_collections_all_the_time() {
    for threads in [1, 2, 8] {
        each_way("heap=32m,min-free=2m", |heap, way| all_come_out(heap, way, threads));
    }
}
