//! Stops a thread in the middle of publishing pages: the collector, or one of a given name, inside its MOVE or COPY
//! call.

use firn::{Heap, Scope};
use firn_gc::core::Core;
use firn_heap::pages::{PageState, StateCell};
use firn_heap::sys::page_size;
use firn_heap::sys::uffd::{Injector, Op, Verdict};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

/// Longer than any machine needs to read the heap.
const PATIENCE: Duration = Duration::from_secs(20);

/// Holds a thread in one of its calls.
pub struct Hold {
    core: Weak<Core>,
    /// The thread's name.
    who: &'static str,
    /// Its calls of the compaction to let pass before the hold; `usize::MAX`: never hold.
    skip: AtomicUsize,
    held: AtomicBool,
    released: Mutex<bool>,
    changed: Condvar,
}

impl Hold {
    /// For the collector of `core`; holds nothing until it is armed.
    pub fn new(core: &Arc<Core>) -> Arc<Hold> {
        Hold::thread(core, "HeapTaskDaemon")
    }

    /// For a thread of this name, of at most 15 bytes, that uses the heap of `core`.
    #[allow(dead_code)] // Some tests hold the collector alone.
    pub fn thread(core: &Arc<Core>, who: &'static str) -> Arc<Hold> {
        Arc::new(Hold {
            core: Arc::downgrade(core),
            who,
            skip: AtomicUsize::new(usize::MAX),
            held: AtomicBool::new(false),
            released: Mutex::new(false),
            changed: Condvar::new(),
        })
    }

    /// Holds the thread the next time it publishes pages, after `skip` such calls.
    pub fn arm(&self, skip: usize) {
        *self.released.lock().unwrap() = false;
        self.held.store(false, Ordering::SeqCst);
        self.skip.store(skip, Ordering::SeqCst);
    }

    /// Whether it is held now, or was.
    pub fn held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    /// Lets it go on.
    pub fn release(&self) {
        *self.released.lock().unwrap() = true;
        self.changed.notify_all();
    }

    /// Collects beside the attached thread, which does `work` while the collector, armed before, is held.
    #[allow(dead_code)] // Some tests hold in other ways.
    pub fn collect_meanwhile(
        &self,
        heap: &Heap,
        cx: &mut Scope<'_>,
        work: impl FnOnce(&mut Scope<'_>),
    ) {
        std::thread::scope(|threads| {
            let collection = threads.spawn(|| heap.collect());
            while !self.held() {
                cx.safepoint();
                std::hint::spin_loop();
            }
            let watchdog = threads.spawn(|| self.watch());
            work(cx);
            self.release();
            assert!(!watchdog.join().unwrap(), "the mutator waited for the collector");
            cx.blocking(|| collection.join().unwrap());
        });
    }

    /// Waits for the release; ends the hold by itself when patience ends, and says so.
    pub fn watch(&self) -> bool {
        let released = self.released.lock().unwrap();
        let (released, wait) =
            self.changed.wait_timeout_while(released, PATIENCE, |released| !*released).unwrap();
        drop(released);
        if wait.timed_out() {
            self.release();
        }
        wait.timed_out()
    }

    /// Whether the call publishes pages that the caller has claimed.
    fn publishes(&self, dst: usize) -> bool {
        let core = self.core.upgrade().expect("whoever installs pages holds the core");
        let page = dst.wrapping_sub(core.space.current().base()) / page_size();
        page < core.space.geometry.pages
            && matches!(
                StateCell(core.space.state(page)).get(),
                PageState::Claimed | PageState::Moving
            )
    }
}

/// Whether this is the calling thread's name. Signal-safe.
fn named(who: &str) -> bool {
    let mut name = [0u8; 16];
    // SAFETY: the kernel writes at most 16 bytes.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name.split(|byte| *byte == 0).next() == Some(who.as_bytes())
}

impl Injector for Hold {
    fn before(&self, op: Op, dst: usize, _: usize, _: usize) -> Verdict {
        let publishing = matches!(op, Op::Copy | Op::Move) && named(self.who);
        if !publishing || !self.publishes(dst) {
            return Verdict::Pass;
        }
        let skip = self.skip.load(Ordering::SeqCst);
        if skip == 0 {
            self.skip.store(usize::MAX, Ordering::SeqCst);
            self.held.store(true, Ordering::SeqCst);
            let mut released = self.released.lock().unwrap();
            while !*released {
                released = self.changed.wait(released).unwrap();
            }
        } else if skip != usize::MAX {
            self.skip.store(skip - 1, Ordering::SeqCst);
        }
        Verdict::Pass
    }
}
