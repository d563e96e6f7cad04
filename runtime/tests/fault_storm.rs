//! More threads than there are fault slots fault at the same moment: some have to wait for a slot, and all get their
//! page.

use firn::{Heap, Options};
use firn_gc::core::Core;
use firn_heap::pages::{PageState, StateCell};
use firn_heap::sys::uffd::{Injector, Op, Verdict};
use firn_heap::sys::{futex, page_size};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Threads that can serve a fault at the same time.
const SLOTS: u32 = 64;
const THREADS: u32 = SLOTS + 8;
const PATIENCE: Duration = Duration::from_secs(60);

thread_local! {
    static MUTATOR: Cell<bool> = const { Cell::new(false) };
}

/// Holds everybody who publishes a page: the daemon first, then faulting threads.
struct HoldAll {
    core: Weak<Core>,
    armed: AtomicBool,
    daemon: AtomicBool,
    faulting: AtomicU32,
    go: AtomicU32,
}

impl Injector for HoldAll {
    fn before(&self, op: Op, dst: usize, _src: usize, _len: usize) -> Verdict {
        let core = self.core.upgrade().expect("whoever installs pages holds the core");
        let page = dst.wrapping_sub(core.space.current().base()) / page_size();
        let publishes = matches!(op, Op::Copy | Op::Move)
            && page < core.space.geometry.pages
            && matches!(
                StateCell(core.space.state(page)).get(),
                PageState::Claimed | PageState::Moving
            );
        if !publishes || !self.armed.load(Ordering::SeqCst) {
            return Verdict::Pass;
        }
        if MUTATOR.get() {
            self.faulting.fetch_add(1, Ordering::SeqCst);
        } else {
            self.daemon.store(true, Ordering::SeqCst);
        }
        while self.go.load(Ordering::SeqCst) == 0 {
            futex::wait(&self.go, 0, None);
        }
        Verdict::Pass
    }
}

#[test]
fn threads_beyond_the_fault_slots_wait_for_one_and_go_on() {
    let options = "heap=96m,backend=pingpong,concurrent=false,dense=101,batch=1,workers=1";
    let heap = match Heap::new(&Options::parse(options).unwrap()) {
        Ok(heap) => heap,
        Err(error) if error.is_userfaultfd_refused() => return println!("left out: {error}"),
        Err(error) => panic!("{error}"),
    };
    let hold = Arc::new(HoldAll {
        core: Arc::downgrade(heap.core()),
        armed: AtomicBool::new(false),
        daemon: AtomicBool::new(false),
        faulting: AtomicU32::new(0),
        go: AtomicU32::new(0),
    });
    assert!(heap.core().backend.installer().unwrap().uffd.set_injector(hold.clone()));
    // Two pages each, so that no two threads need the same one.
    let len = 2 * page_size() / 8;
    let made = AtomicU32::new(0);
    std::thread::scope(|threads| {
        for number in 0..THREADS {
            let (heap, hold, made) = (&heap, &hold, &made);
            threads.spawn(move || {
                heap.attach(|cx| {
                    let data = cx.alloc_data::<u64>(len).unwrap();
                    data.get(cx).set(len / 2, number as u64);
                    made.fetch_add(1, Ordering::SeqCst);
                    cx.blocking(|| {
                        while !hold.daemon.load(Ordering::SeqCst) {
                            std::thread::yield_now();
                        }
                    });
                    MUTATOR.set(true);
                    assert_eq!(data.get(cx).get(len / 2), number as u64);
                    MUTATOR.set(false);
                });
            });
        }
        let begin = Instant::now();
        let wait_for = |what: &str, reached: &dyn Fn() -> bool| {
            while !reached() && begin.elapsed() < PATIENCE {
                std::thread::yield_now();
            }
            if !reached() {
                // Nobody may be left behind by a failure.
                hold.armed.store(false, Ordering::SeqCst);
                hold.daemon.store(true, Ordering::SeqCst);
            }
            (reached(), what.to_owned())
        };
        let mut results = vec![wait_for("objects", &|| made.load(Ordering::SeqCst) == THREADS)];
        hold.armed.store(true, Ordering::SeqCst);
        let collection = threads.spawn(|| heap.collect());
        results.push(wait_for("faults", &|| hold.faulting.load(Ordering::SeqCst) == SLOTS));
        hold.go.store(1, Ordering::SeqCst);
        futex::wake_all(&hold.go);
        collection.join().unwrap();
        assert!(results.iter().all(|result| result.0), "{results:?}");
    });
}
