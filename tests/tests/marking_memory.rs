//! What marking remembers is bounded by the heap, not by what the program does meanwhile: a program may overwrite
//! the same reference for ever, hold millions of handles and roots of one object, and come and go, all while the
//! collector gets no processor.
//!
//! The daemon is held by a listener right behind the pause that switches marking on, so that nothing of what is
//! queued is worked off before the program has done its worst.

use firn::events::PauseKind;
use firn::{Event, Field, Heap, Listener, Options, OutOfMemory, Scope, Trace};
use std::sync::{Arc, Barrier, Condvar, Mutex};

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
}

/// More than the addresses that marking's segments have room for in a heap of 16 MiB.
const MANY: usize = 3_500_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Daemon {
    Free,
    Held,
    Released,
}

/// Holds the daemon once, when marking has begun.
struct HoldMarking {
    daemon: Mutex<Daemon>,
    changed: Condvar,
}

impl HoldMarking {
    fn of(heap: &Heap) -> Arc<HoldMarking> {
        let hold = HoldMarking { daemon: Mutex::new(Daemon::Free), changed: Condvar::new() };
        let hold = Arc::new(hold);
        heap.add_listener(hold.clone());
        hold
    }

    fn held(&self) -> bool {
        *self.daemon.lock().unwrap() == Daemon::Held
    }

    /// Waits until it is held, or has been.
    fn wait(&self) {
        let daemon = self.daemon.lock().unwrap();
        drop(self.changed.wait_while(daemon, |daemon| *daemon == Daemon::Free).unwrap());
    }

    fn release(&self) {
        *self.daemon.lock().unwrap() = Daemon::Released;
        self.changed.notify_all();
    }
}

impl Listener for HoldMarking {
    fn event(&self, event: &Event) {
        if !matches!(event, Event::Pause { kind: PauseKind::Start, .. }) {
            return;
        }
        let mut daemon = self.daemon.lock().unwrap();
        if *daemon == Daemon::Free {
            *daemon = Daemon::Held;
            self.changed.notify_all();
            drop(self.changed.wait_while(daemon, |daemon| *daemon == Daemon::Held).unwrap());
        }
    }
}

/// Ends the hold however the test ends, or a failure would hang.
struct Release<'a>(&'a HoldMarking);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

fn small_heap() -> (Heap, Arc<HoldMarking>) {
    let options = "heap=16m,backend=stw,concurrent=false,daemon-policy=idle";
    let heap = Heap::new(&Options::parse(options).unwrap()).unwrap();
    let hold = HoldMarking::of(&heap);
    (heap, hold)
}

/// Starts a collection beside the calling mutator, and calls `body` while the marker is held.
fn while_the_marker_is_held(
    heap: &Heap,
    hold: &HoldMarking,
    cx: &mut Scope<'_>,
    body: impl FnOnce(&mut Scope<'_>),
) {
    std::thread::scope(|threads| {
        let release = Release(hold);
        let collection = threads.spawn(|| heap.collect());
        while !hold.held() {
            cx.safepoint();
        }
        body(cx);
        drop(release);
        cx.blocking(|| collection.join().unwrap());
    });
}

#[test]
fn the_same_references_can_be_overwritten_for_ever() {
    let (heap, hold) = small_heap();
    heap.attach(|cx| {
        let [holder, one, other] = [0, 1, 2].map(|key| {
            let node = cx.alloc(Node { key, next: Field::null() }).unwrap().get(cx);
            cx.global(node)
        });
        while_the_marker_is_held(&heap, &hold, cx, |cx| {
            let (holder, one, other) = (holder.get(cx), one.get(cx), other.get(cx));
            for _ in 0..MANY / 2 {
                holder.next.store(cx, Some(one));
                holder.next.store(cx, Some(other));
            }
        });
        let last = holder.get(cx).next.load(cx).expect("stored last");
        assert_eq!((last.key, one.get(cx).key, other.get(cx).key), (2, 1, 2));
    });
}

#[test]
fn threads_that_come_and_go_leave_little_behind() {
    let (heap, hold) = small_heap();
    let nodes: Vec<_> = heap.attach(|cx| {
        let node = |key| {
            cx.scope(|cx| {
                let node = cx.alloc(Node { key, next: Field::null() })?;
                let next = cx.alloc(Node { key: key + 1, next: Field::null() })?;
                node.get(cx).next.store(cx, Some(next.get(cx)));
                Ok::<_, OutOfMemory>(cx.global(node.get(cx)))
            })
        };
        (0..8_000).map(node).collect::<Result<_, _>>().unwrap()
    });
    std::thread::scope(|threads| {
        let _release = Release(&hold);
        threads.spawn(|| heap.collect());
        hold.wait();
        for node in &nodes {
            heap.attach(|cx| {
                let node = node.get(cx);
                let next = node.next.load(cx);
                node.next.store(cx, None);
                node.next.store(cx, next);
            });
        }
    });
    heap.attach(|cx| {
        for (key, node) in (0..).zip(&nodes) {
            let next = node.get(cx).next.load(cx).expect("put back");
            assert_eq!((node.get(cx).key, next.key), (key, key + 1));
        }
    });
}

#[test]
fn handles_of_one_object_count_once() {
    let (heap, hold) = small_heap();
    heap.attach(|cx| {
        let node = cx.alloc(Node { key: 7, next: Field::null() }).unwrap();
        let node = cx.global(node.get(cx));
        let ready = Barrier::new(3);
        std::thread::scope(|threads| {
            let (heap, node, hold, ready) = (&heap, &node, &hold, &ready);
            // A thread can hold two million handles.
            let holders = [0, 1].map(|_| {
                threads.spawn(move || {
                    heap.attach(|cx| {
                        let handles: Vec<_> =
                            (0..MANY / 2).map(|_| cx.root(node.get(cx))).collect();
                        cx.blocking(|| ready.wait());
                        cx.blocking(|| hold.wait());
                        assert!(handles.iter().all(|handle| handle.get(cx).key == 7));
                    })
                })
            });
            cx.blocking(|| ready.wait());
            while_the_marker_is_held(heap, hold, cx, |_| {});
            cx.blocking(|| holders.into_iter().for_each(|thread| thread.join().unwrap()));
        });
        assert_eq!(node.get(cx).key, 7);
    });
}

#[test]
fn roots_of_one_object_count_once() {
    let (heap, hold) = small_heap();
    heap.attach(|cx| {
        let node = cx.alloc(Node { key: 7, next: Field::null() }).unwrap();
        let roots: Vec<_> = (0..MANY).map(|_| cx.global(node.get(cx))).collect();
        while_the_marker_is_held(&heap, &hold, cx, |_| {});
        assert!(roots.iter().all(|root| root.get(cx).key == 7));
    });
}
