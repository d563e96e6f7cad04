//! What making chunks ready, floors and the ladder of a failed allocation do to each other.

use firn::{Field, Heap, Options, OutOfMemory, Root, Trace};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(Trace)]
struct Node {
    key: u64,
    next: Field<Node>,
    pad: [u64; 13],
}

#[derive(Default)]
struct Stalls(AtomicU64);
impl firn::Listener for Stalls {
    fn event(&self, event: &firn::Event) {
        if let firn::Event::AllocStall { .. } = event {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn list(heap: &Heap, nodes: u64) -> Root<Node> {
    heap.attach(|cx| {
        let list = cx.var::<Node>();
        for key in 0..nodes {
            cx.scope(|cx| {
                let node = cx.alloc(Node { key, next: Field::null(), pad: [key; 13] })?;
                node.get(cx).next.store(cx, list.get(cx));
                list.set(cx, Some(node.get(cx)));
                Ok::<_, OutOfMemory>(())
            })?;
        }
        Ok::<_, OutOfMemory>(cx.global(list.get(cx).unwrap()))
    })
    .unwrap()
}

/// Uses the heap up, so that its pages are committed.
fn churn(heap: &Heap) {
    heap.attach(|cx| {
        for _ in 0..2_000_000 {
            cx.scope(|cx| {
                cx.alloc(Node { key: 0, next: Field::null(), pad: [0; 13] }).map(|_| ())
            })?;
        }
        Ok::<_, OutOfMemory>(())
    })
    .unwrap();
}

fn check(heap: &Heap, root: &Root<Node>, nodes: u64) {
    heap.attach(|cx| {
        let (mut at, mut seen) = (Some(root.get(cx)), 0);
        while let Some(node) = at {
            seen += 1;
            assert_eq!(node.key, nodes - seen);
            assert!(node.pad.iter().all(|&word| word == node.key));
            at = node.next.load(cx);
        }
        assert_eq!(seen, nodes);
    });
}

/// Waits until the daemon has nothing left to make ready.
fn settle(heap: &Heap) {
    let (mut top, mut since) = (0, Instant::now());
    while since.elapsed() < Duration::from_millis(300) {
        if heap.core().space.top() != top {
            (top, since) = (heap.core().space.top(), Instant::now());
        }
        std::thread::yield_now();
    }
}

/// `floors` starts marking, which withdraws ready chunks with a gap between them (chunks of 48 pages do not
/// divide a batch), and nobody returns them.
#[test]
fn floors_leave_no_pages_behind() {
    let heap = Heap::new(&Options::parse("heap=64m,tlab=192k,trim=false").unwrap()).unwrap();
    let root = list(&heap, 100_000);
    churn(&heap);
    heap.collect();
    settle(&heap);
    let before = heap.stats();
    heap.floors().unwrap();
    let after = heap.stats();
    println!("used before floors {}, after {}", before.used_bytes, after.used_bytes);
    for _ in 0..6 {
        heap.collect();
        check(&heap, &root, 100_000);
        println!("used {} of {}", heap.stats().used_bytes, heap.stats().footprint_bytes);
    }
    assert!(after.used_bytes < before.used_bytes + (1 << 20), "the ready chunks are lost");
}

/// Most of the heap is free, but its pages have addresses already.
#[test]
fn a_large_array_finds_addresses_when_memory_is_free() {
    let heap = Heap::new(&Options::parse("heap=64m,trim=false").unwrap()).unwrap();
    let stalls = Arc::new(Stalls::default());
    heap.add_listener(stalls.clone());
    let root = list(&heap, 80_000);
    heap.collect();
    // Use the heap up once so that pages are committed, then let the daemon make them ready.
    churn(&heap);
    heap.collect();
    settle(&heap);
    let before = heap.stats();
    println!("top {} pages of {}", heap.core().space.top(), heap.core().space.geometry.pages);
    let earlier = stalls.0.load(Ordering::Relaxed);
    heap.attach(|cx| cx.alloc_refs::<Node>((24 << 20) / 8).map(|_| ())).unwrap();
    println!(
        "used {} MiB, top {} pages of {}",
        before.used_bytes >> 20,
        heap.core().space.top(),
        heap.core().space.geometry.pages
    );
    check(&heap, &root, 80_000);
    assert_eq!(
        stalls.0.load(Ordering::Relaxed),
        earlier,
        "a stall: 24 MiB of 64 were wanted, {} used",
        before.used_bytes >> 20
    );
}

/// Every wake-up of a thread that waits on the ladder's last rungs asks for one more full cycle.
#[test]
fn the_ladder_asks_for_a_few_cycles_only() {
    let heap = Heap::new(&Options::parse("heap=32m,batch=4").unwrap()).unwrap();
    let before = heap.attach(|cx| {
        let mut kept = Vec::new();
        while let Ok(array) = cx.alloc_refs::<Node>(200) {
            kept.push(array);
        }
        println!("the allocation failed after {} cycles", heap.stats().cycles);
        heap.stats().cycles
    });
    // An explicit collection waits behind whatever is still queued.
    heap.collect();
    let after = heap.stats().cycles;
    assert!(after <= before + 3, "{} cycles after the failure, which nobody needs", after - before);
}
