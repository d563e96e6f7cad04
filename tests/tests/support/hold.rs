//! Stops the collector in the middle of publishing pages: inside its MOVE or COPY call.

use firn_gc::core::Core;
use firn_heap::pages::{PageState, StateCell};
use firn_heap::sys::page_size;
use firn_heap::sys::uffd::{Injector, Op, Verdict};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

/// Longer than any machine needs to read the heap.
const PATIENCE: Duration = Duration::from_secs(20);

/// Holds the daemon in one of its calls.
pub struct Hold {
    core: Weak<Core>,
    /// Calls of the compaction to let pass before the hold; `usize::MAX`: never hold.
    skip: AtomicUsize,
    held: AtomicBool,
    released: Mutex<bool>,
    changed: Condvar,
}

impl Hold {
    /// For the heap of `core`; holds nothing until it is armed.
    pub fn new(core: &Arc<Core>) -> Arc<Hold> {
        Arc::new(Hold {
            core: Arc::downgrade(core),
            skip: AtomicUsize::new(usize::MAX),
            held: AtomicBool::new(false),
            released: Mutex::new(false),
            changed: Condvar::new(),
        })
    }

    /// Holds the daemon the next time it publishes pages, after `skip` such calls.
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

/// Whether the calling thread is the collector's. Signal-safe.
fn on_the_daemon() -> bool {
    let mut name = [0u8; 16];
    // SAFETY: the kernel writes at most 16 bytes.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name.starts_with(b"HeapTaskDaemon\0")
}

impl Injector for Hold {
    fn before(&self, op: Op, dst: usize, _: usize, _: usize) -> Verdict {
        let publishing = matches!(op, Op::Copy | Op::Move) && on_the_daemon();
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
