//! Roots dropped by a thread that no pause stops, beside collections: a drop at the moment of the final marking
//! pause must not leave an address queued, which the next cycle would take for one of the new range.

use firn::{Heap, Options, OutOfMemory, Root, Trace};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Trace)]
struct Node {
    key: u64,
}

#[test]
fn roots_dropped_beside_collections_leave_nothing_queued() {
    let heap = Heap::new(&Options::parse("heap=16m").unwrap()).unwrap();
    let (send, receive) = std::sync::mpsc::sync_channel::<Vec<Root<Node>>>(2);
    let done = AtomicBool::new(false);
    // The mutator's own collection comes first: afterwards no cycle runs but the one waited for.
    let collected = Barrier::new(2);
    std::thread::scope(|threads| {
        let dropper = threads.spawn(move || receive.into_iter().for_each(drop));
        threads.spawn(|| {
            heap.attach(|cx| {
                let node = cx.alloc(Node { key: 7 })?;
                cx.collect();
                collected.wait();
                for _ in 0..400 {
                    let roots = (0..20_000).map(|_| cx.global(node.get(cx))).collect();
                    let send = &send;
                    cx.blocking(move || send.send(roots).unwrap());
                    assert_eq!(node.get(cx).key, 7);
                }
                Ok::<_, OutOfMemory>(())
            })
            .unwrap();
            drop(send);
        });
        threads.spawn(|| {
            collected.wait();
            while !done.load(Ordering::Relaxed) {
                heap.collect();
                assert!(heap.core().segments.is_empty(), "marking work is left over");
            }
        });
        dropper.join().unwrap();
        done.store(true, Ordering::Relaxed);
    });
}
