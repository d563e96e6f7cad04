//! Injected results: how tests make the kernel say what it says once in a million calls.
//!
//! Partial progress, `EAGAIN`, `EBUSY` and the others cannot be produced on demand by a real kernel,
//! but the code that answers them must be shown to work. An [`Injector`] sees each operation before
//! the kernel does and may answer in its place, or let the kernel do a part only. Without one, the
//! cost is one relaxed load and a branch that is never taken.

use std::sync::{Arc, atomic::Ordering};

use super::{Errno, Outcome, Request, Userfaultfd};

/// A kernel operation on a userfaultfd, as injectors and reports name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// [`Userfaultfd::copy`].
    Copy,
    /// [`Userfaultfd::move_pages`].
    Move,
    /// [`Userfaultfd::zeropage`].
    Zeropage,
    /// [`Userfaultfd::register_missing`].
    Register,
    /// [`Userfaultfd::unregister`].
    Unregister,
}

/// What an [`Injector`] wants done with an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Ask the kernel.
    Pass,
    /// Do not ask the kernel: this is the result. For `Register` and `Unregister` only the error
    /// counts.
    Return(Outcome),
    /// Ask the kernel for the first so many bytes only (whole pages) and report the rest as the
    /// kernel reports partial progress: `EAGAIN` with a count. With 0, the kernel is not asked. A
    /// length not less than the request's is [`Verdict::Pass`], as is any for `Register` and
    /// `Unregister`, which have no partial results.
    Shorten(usize),
}

/// Decides about operations before the kernel sees them.
///
/// It is called in the SIGBUS handler of mutators too, so it must be signal-safe: atomics only, no
/// allocation, no lock, no output.
pub trait Injector: Send + Sync {
    /// What shall become of `op` on `len` bytes at `dst` (from `src`, 0 where there is none).
    fn before(&self, op: Op, dst: usize, src: usize, len: usize) -> Verdict;
}

impl Userfaultfd {
    /// Sets the injector, for tests. It cannot be changed or removed, because fault handlers may be
    /// in it at any time: returns false, and changes nothing, if there is one already.
    pub fn set_injector(&self, injector: Arc<dyn Injector>) -> bool {
        let first = self.injector.set(injector).is_ok();
        // Relaxed is enough: whoever reads true takes the injector out of the OnceLock, whose
        // acquire load pairs with the release of `set` above.
        self.injected.store(true, Ordering::Relaxed);
        first
    }

    #[cold]
    pub(super) fn install_injected(&self, request: Request) -> Outcome {
        let Request { op, dst, src, len, .. } = request;
        match self.verdict(op, dst, src, len) {
            Verdict::Return(outcome) => outcome,
            Verdict::Shorten(0) if len > 0 => Outcome::failed(Errno::EAGAIN),
            Verdict::Shorten(less) if less < len => {
                let outcome = self.ask_kernel(Request { len: less, ..request });
                if outcome.is_complete() { Outcome::partial(outcome.done) } else { outcome }
            }
            Verdict::Pass | Verdict::Shorten(_) => self.ask_kernel(request),
        }
    }

    /// The injected result of an operation on a range; `None` to ask the kernel.
    #[cold]
    pub(super) fn inject_range(&self, op: Op, addr: usize, len: usize) -> Option<Outcome> {
        match self.verdict(op, addr, 0, len) {
            Verdict::Return(outcome) => Some(outcome),
            Verdict::Pass | Verdict::Shorten(_) => None,
        }
    }

    fn verdict(&self, op: Op, dst: usize, src: usize, len: usize) -> Verdict {
        // The flag may be seen before the lock's contents: then there is nothing to inject yet.
        self.injector.get().map_or(Verdict::Pass, |i| i.before(op, dst, src, len))
    }
}
