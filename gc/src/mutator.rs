//! A mutator's state: allocation buffer, handles, and the write barrier's log.
//!
//! [`Mutator`] belongs to its thread while that runs, and to whoever performs its part of a request
//! while it is stopped or held ([`crate::safepoint`]). Both reach the state through [`Mutator::local`],
//! whose safety condition says exactly this.

use crate::segments::Log;
use firn_heap::sys::map::{MapError, Reservation};
use firn_heap::tlab::Tlab;
use std::cell::UnsafeCell;

/// A mutator.
pub struct Mutator {
    /// Its number, in order of attaching.
    pub id: u32,
    local: UnsafeCell<MutatorLocal>,
}

// SAFETY: `local` is reached only under the rule of `Mutator::local`.
unsafe impl Sync for Mutator {}
// SAFETY: plain data and owned reservations; nothing is tied to a thread.
unsafe impl Send for Mutator {}

impl Mutator {
    /// A mutator with an empty handle stack.
    pub fn new(id: u32, marking: bool) -> Result<Mutator, MapError> {
        let local = MutatorLocal {
            tlab: Tlab::empty(),
            marking,
            weak_reads: marking,
            flips: 0,
            log: Log::default(),
            handles: HandleStack::new()?,
            range: (0, 0),
            serial: 0,
            stress_left: 0,
            stop_began: 0,
        };
        Ok(Mutator { id, local: UnsafeCell::new(local) })
    }

    /// The state.
    ///
    /// # Safety
    /// The caller must be the mutator's running thread, or do the mutator's part of a request while it
    /// is stopped, blocked or held; and must not keep two references at a time.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn local(&self) -> &mut MutatorLocal {
        // SAFETY: exclusive by the caller's promise.
        unsafe { &mut *self.local.get() }
    }

    /// The state, as a pointer for the owner's fast paths.
    #[inline(always)]
    pub fn local_ptr(&self) -> *mut MutatorLocal {
        self.local.get()
    }
}

/// What a mutator's thread works with.
pub struct MutatorLocal {
    /// Allocation buffer.
    pub tlab: Tlab,
    /// The write barrier is on.
    pub marking: bool,
    /// Reading a weak reference takes more than a load ([`crate::ephemerons`]).
    pub weak_reads: bool,
    /// Flips so far: addresses are good while this stays the same.
    pub flips: u64,
    /// References that the thread has overwritten during marking.
    pub log: Log,
    /// Addresses that the thread holds across safepoints.
    pub handles: HandleStack,
    /// First address of the range that mutators see now, and its length: where fields may be written.
    pub range: (usize, usize),
    /// The heap's serial number, for the embedder's layout caches.
    pub serial: u64,
    /// Allocations until the next forced collection; 0: never.
    pub stress_left: u32,
    /// When the current stop began (0: none).
    pub stop_began: u64,
}

/// The precise shadow stack: one word a handle, at a place that does not change while it is in use.
pub struct HandleStack {
    memory: Reservation,
    top: usize,
}

impl HandleStack {
    /// Most handles a thread can have at a time.
    pub const CAPACITY: usize = 1 << 21;

    fn new() -> Result<HandleStack, MapError> {
        let page = firn_heap::sys::page_size();
        Ok(HandleStack {
            memory: Reservation::anonymous(Self::CAPACITY * 8, page, "firn handles")?,
            top: 0,
        })
    }

    /// Number of handles in use.
    #[inline(always)]
    pub fn top(&self) -> usize {
        self.top
    }

    /// Drops all handles above `top`.
    #[inline(always)]
    pub fn truncate(&mut self, top: usize) {
        debug_assert!(top <= self.top);
        self.top = top;
    }

    /// Adds a handle; returns the place of its word.
    ///
    /// # Panics
    /// If the stack is full.
    #[inline(always)]
    pub fn push(&mut self, address: u64) -> *mut u64 {
        assert!(
            self.top < Self::CAPACITY,
            "a thread holds {} handles: use nested scopes, so that they end sooner",
            Self::CAPACITY
        );
        let place = (self.memory.base() as *mut u64).wrapping_add(self.top);
        // SAFETY: inside the reservation by the assertion.
        unsafe { place.write(address) };
        self.top += 1;
        place
    }

    /// The handles in use.
    pub fn words(&mut self) -> &mut [u64] {
        // SAFETY: the first `top` words were written by `push`; exclusive through `self`.
        unsafe { std::slice::from_raw_parts_mut(self.memory.base() as *mut u64, self.top) }
    }
}
