//! A collector at a real-time priority shares its only processor with the mutators: it never burns that while it
//! waits for one of them, which could not run meanwhile.
//!
//! The mutator is in the middle of serving a fault when the daemon takes the processor from it: at the start of the
//! call that publishes the page, or right behind a move that it has not recorded yet. The daemon then completes the
//! compaction and has to wait for the mutator. A waiting thread uses no processor time, a spinning one uses it
//! until the kernel's throttle for real-time threads steps in, most of a second later.

use firn::{DataArray, Event, Heap, Listener, Options};
use firn_gc::core::Core;
use firn_heap::pages::{PageState, StateCell};
use firn_heap::sys::futex;
use firn_heap::sys::page_size;
use firn_heap::sys::thread::{affinity, set_affinity, thread_cpu_time_ns};
use firn_heap::sys::uffd::{Injector, Op, Verdict};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

const OBJECTS: usize = 8_000;
const LEN: usize = 62;
/// Far more processor time than a cycle of this heap takes, and far less than the throttle leaves to a spin.
const MOST_CPU_NS: u64 = 500_000_000;

thread_local! {
    /// The mutator's handler is to be interrupted on this thread.
    static MUTATOR: Cell<bool> = const { Cell::new(false) };
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Where the mutator loses the processor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the call that publishes the page.
    Call(Op),
    /// After the page was moved, before anybody says so.
    Moved,
}

/// Lets the daemon wait at its first call of a compaction, until the mutator is where it is to be interrupted.
struct Interrupt {
    core: Weak<Core>,
    at: At,
    armed: AtomicBool,
    held: AtomicBool,
    go: AtomicU32,
    interrupted: AtomicU32,
}

impl Interrupt {
    fn state_of(&self, core: &Core, dst: usize) -> Option<PageState> {
        let page = dst.wrapping_sub(core.space.current().base()) / page_size();
        let known = page < core.space.geometry.pages;
        known.then(|| StateCell(core.space.state(page)).get())
    }

    /// Wakes the daemon, which takes the processor at once.
    fn let_go(&self) {
        self.interrupted.fetch_add(1, Ordering::SeqCst);
        self.go.store(1, Ordering::SeqCst);
        futex::wake_all(&self.go);
    }
}

impl Injector for Interrupt {
    fn before(&self, op: Op, dst: usize, src: usize, len: usize) -> Verdict {
        if INSIDE.get() || !matches!(op, Op::Copy | Op::Move) {
            return Verdict::Pass;
        }
        let core = self.core.upgrade().expect("whoever installs pages holds the core");
        let publishes =
            matches!(self.state_of(&core, dst), Some(PageState::Claimed | PageState::Moving));
        if !publishes || !self.armed.load(Ordering::SeqCst) {
            return Verdict::Pass;
        }
        if !MUTATOR.get() {
            // The daemon.
            self.held.store(true, Ordering::SeqCst);
            while self.go.load(Ordering::SeqCst) == 0 {
                futex::wait(&self.go, 0, None);
            }
            return Verdict::Pass;
        }
        if self.go.load(Ordering::SeqCst) != 0 {
            return Verdict::Pass;
        }
        match self.at {
            At::Call(wanted) if wanted == op => {
                self.let_go();
                Verdict::Pass
            }
            At::Moved if op == Op::Move => {
                INSIDE.set(true);
                let installer = core.backend.installer().expect("it asked this injector");
                let outcome = installer.uffd.move_pages(dst, src, len, false, installer.wake);
                INSIDE.set(false);
                self.let_go();
                Verdict::Return(outcome)
            }
            _ => Verdict::Pass,
        }
    }
}

/// Adds up the processor time that the daemon uses in cycles.
#[derive(Default)]
struct DaemonTime {
    begin: AtomicU64,
    most: AtomicU64,
}

impl Listener for DaemonTime {
    fn event(&self, event: &Event) {
        match event {
            Event::CycleBegin { .. } => self.begin.store(thread_cpu_time_ns(), Ordering::SeqCst),
            Event::CycleEnd { .. } => {
                let time = thread_cpu_time_ns() - self.begin.load(Ordering::SeqCst);
                self.most.fetch_max(time, Ordering::SeqCst);
            }
            _ => {}
        }
    }
}

fn completes_without_burning_the_processor(way: &str, at: At) {
    let cpu = affinity().unwrap()[0];
    // This thread and all that it starts.
    set_affinity(&[cpu]).unwrap();
    let options = format!("heap=64m,concurrent=false,workers=1,daemon-policy=fifo:10,{way}");
    let heap = match Heap::new(&Options::parse(&options).unwrap()) {
        Ok(heap) => heap,
        Err(error) if error.is_userfaultfd_refused() => {
            println!("left out: {way}: {error}");
            return;
        }
        Err(error) => panic!("{way}: {error}"),
    };
    if !heap.setup().notes.is_empty() {
        println!("left out: {way}: {}", heap.setup().notes.join("; "));
        return;
    }
    let time = Arc::<DaemonTime>::default();
    heap.add_listener(time.clone());
    let interrupt = Arc::new(Interrupt {
        core: Arc::downgrade(heap.core()),
        at,
        armed: AtomicBool::new(false),
        held: AtomicBool::new(false),
        go: AtomicU32::new(0),
        interrupted: AtomicU32::new(0),
    });
    if let Some(installer) = heap.core().backend.installer() {
        assert!(installer.uffd.set_injector(interrupt.clone()));
    }
    heap.attach(|cx| {
        MUTATOR.set(true);
        let table = cx.alloc_refs::<DataArray<u64>>(OBJECTS).unwrap();
        for index in 0..OBJECTS {
            cx.scope(|cx| {
                let data = cx.alloc_data::<u64>(LEN).unwrap();
                data.get(cx).set(LEN - 1, index as u64);
                table.get(cx).store(cx, index, Some(data.get(cx)));
            });
        }
        interrupt.armed.store(true, Ordering::SeqCst);
        std::thread::scope(|threads| {
            let collection = threads.spawn(|| heap.collect());
            while !interrupt.held.load(Ordering::SeqCst) {
                assert!(!collection.is_finished(), "{way}: the daemon published nothing");
                // Yields, so that the collecting thread gets the processor.
                cx.blocking(std::thread::yield_now);
            }
            // From the end, far from where the daemon is.
            let table = table.get(cx);
            for index in (0..OBJECTS).rev() {
                let data = table.load(cx, index).expect("stored above");
                assert_eq!(data.get(LEN - 1), index as u64);
            }
            cx.blocking(|| collection.join().unwrap());
        });
    });
    assert_eq!(
        interrupt.interrupted.load(Ordering::SeqCst),
        1,
        "{way}: no handler was interrupted"
    );
    let most = time.most.load(Ordering::SeqCst);
    assert!(most < MOST_CPU_NS, "{way}: the daemon burnt {} ms in a cycle", most / 1_000_000);
}

#[test]
fn a_daemon_that_waits_for_a_handler_to_leave_sleeps() {
    completes_without_burning_the_processor("dense=101", At::Call(Op::Copy));
    completes_without_burning_the_processor("install=copy", At::Call(Op::Copy));
    completes_without_burning_the_processor("backend=art", At::Call(Op::Copy));
}

#[test]
fn a_daemon_that_waits_for_a_move_to_be_recorded_sleeps() {
    completes_without_burning_the_processor("dense=50", At::Moved);
}
