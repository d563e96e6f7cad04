//! A collector thread that is stopped in the middle of publishing pages stops nobody: a mutator that needs one of the
//! pages it has claimed builds the page itself.
//!
//! The collector is held inside its MOVE or COPY call until the mutator has read every object of the heap. If the
//! mutator waited for the claim's holder instead, it would wait for ever: a watchdog then ends the hold, and the
//! test fails.

use firn::{DataArray, Event, FaultOutcome, Heap, Listener, Local, Options, RefArray, Scope};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[path = "support/hold.rs"]
mod hold;
use hold::Hold;

const OBJECTS: usize = 20_000;
const LEN: usize = 30;

/// Counts pages that mutators built although somebody else had claimed them.
#[derive(Default)]
struct Helped(AtomicU64);

impl Listener for Helped {
    fn event(&self, event: &Event) {
        if let Event::Fault { outcome: FaultOutcome::Helped, .. } = event {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

type Table<'s> = Local<'s, RefArray<DataArray<u64>>>;

/// Replaces every third object, so that pages are partly dead and others whole.
fn change(cx: &mut Scope<'_>, table: Table<'_>, round: usize) {
    for index in (round % 3..OBJECTS).step_by(if round == 0 { 1 } else { 3 }) {
        cx.scope(|cx| {
            let data = cx.alloc_data::<u64>(LEN).expect("room");
            data.get(cx).set(0, index as u64);
            data.get(cx).set(LEN - 1, !(index as u64));
            table.get(cx).store(cx, index, Some(data.get(cx)));
        });
    }
}

fn read_all(cx: &Scope<'_>, table: Table<'_>) {
    let table = table.get(cx);
    for index in 0..OBJECTS {
        let data = table.load(cx, index).expect("stored");
        assert_eq!((data.len(), data.get(0)), (LEN, index as u64));
        assert_eq!(data.get(LEN - 1), !(index as u64));
    }
}

/// Holds the collector at several of its calls, cycle after cycle; returns how many pages were helped.
fn hold_and_read(way: &str) -> u64 {
    let heap = match Heap::new(&Options::parse(&format!("heap=64m,{way}")).unwrap()) {
        Ok(heap) => heap,
        Err(error) if error.is_userfaultfd_refused() => {
            println!("left out: {way}: {error}");
            return u64::MAX;
        }
        Err(error) => panic!("{way}: {error}"),
    };
    let helped = Arc::<Helped>::default();
    heap.add_listener(helped.clone());
    let hold = Hold::new(heap.core());
    assert!(heap.core().backend.installer().unwrap().uffd.set_injector(hold.clone()));
    let mut holds = 0;
    heap.attach(|cx| {
        let table = cx.alloc_refs::<DataArray<u64>>(OBJECTS).expect("room");
        for round in 0..6 {
            change(cx, table, round);
            hold.arm(round % 3);
            std::thread::scope(|threads| {
                let collection = threads.spawn(|| heap.collect());
                // The cycle needs this thread at its safepoints; then either the daemon is held, or the
                // cycle has fewer calls than the hold skips.
                while !hold.held() && !collection.is_finished() {
                    cx.safepoint();
                    std::hint::spin_loop();
                }
                if hold.held() {
                    holds += 1;
                    let watchdog = threads.spawn(|| hold.watch());
                    read_all(cx, table);
                    hold.release();
                    let late = watchdog.join().unwrap();
                    assert!(!late, "{way}: the mutator waited for the collector's claimed page");
                }
                cx.blocking(|| collection.join().unwrap());
            });
            read_all(cx, table);
        }
    });
    assert!(holds >= 4, "{way}: the collector was held {holds} times only");
    // The last cycle's faults are reported with it.
    helped.0.load(Ordering::Relaxed)
}

#[test]
fn a_collector_held_in_a_move_stops_no_mutator() {
    assert!(hold_and_read("backend=pingpong") > 0, "no page was helped");
    assert!(hold_and_read("backend=pingpong,dense=50") > 0, "no page was helped");
    assert!(hold_and_read("backend=pingpong,dense=101") > 0, "no page was helped");
}

#[test]
fn a_collector_held_in_a_copy_stops_no_mutator() {
    assert!(hold_and_read("backend=pingpong,install=copy") > 0, "no page was helped");
    assert!(hold_and_read("backend=art") > 0, "no page was helped");
    assert!(hold_and_read("backend=art,install=move") > 0, "no page was helped");
}

#[test]
fn a_collector_held_under_a_fault_thread_stops_no_mutator() {
    assert!(hold_and_read("backend=pingpong,fault=thread") > 0, "no page was helped");
    assert!(hold_and_read("backend=art,fault=thread") > 0, "no page was helped");
}

#[test]
fn a_collector_held_under_verification_stops_no_mutator() {
    assert!(hold_and_read("backend=pingpong,verify=true") > 0, "no page was helped");
}
