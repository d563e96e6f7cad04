//! Safepoints: how a collector makes every mutator do something once, with or without stopping them all.
//!
//! A mutator *polls*: one load of its own flag. When the flag is up it takes the slow path, performs its
//! part of the current [`Operations`] request, and either goes on (a handshake) or waits until the world
//! is released (a pause). A mutator in a *blocking* section counts as stopped: the requester holds it and
//! does its part for it.
//!
//! **The last to arrive does the work.** In a pause the request's `world` part is run by whichever thread
//! arrives last, a mutator or the requester: nothing is ever woken up to run the pause, so its length is
//! the work and not a scheduler's latency.
//!
//! After a pause every mutator has an `after` part (rewriting its own roots) before it runs on; for a
//! blocked mutator the requester does it, or the mutator itself if it comes back first. A mutator that comes back
//! waits for the release from a pause, and while a part is being done for it, but for nothing else: not for slower
//! mutators in a handshake, and after a pause not for the parts of others.
//!
//! Invariants: a request is complete when each mutator attached at its start has done `each` exactly once
//! and, after a pause, `after` exactly once; no thread runs mutator code between the last `each` and the
//! release; attaching waits for a pause that is under way. All of it is decided under one lock, which the
//! poll's fast path does not take; `world` runs under the lock, `each` and `after` do not.
//!
//! A request allocates nothing: it is made in the middle of a cycle. What has been done for whom stands in the entries
//! themselves.
//!
//! This file is compiled a second time by the loom model in `tests/`, against loom's primitives.

use crate::sync::{AtomicU32, Condvar, Mutex, MutexGuard, Ordering};
use std::sync::Arc;

/// What a mutator is doing, as far as safepoints go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Running,
    Blocked,
    /// Blocked, and some other thread is doing its part.
    Held,
}

/// What a request consists of; implemented by the collector.
pub trait Operations {
    /// A mutator's own state.
    type Mutator;
    /// The kind of request.
    type Op: Copy + Send;

    /// Whether `op` stops the world.
    fn stops(op: Self::Op) -> bool;
    /// One mutator's part: on its own thread, or on the requester's while the mutator is held.
    fn each(&self, op: Self::Op, mutator: &Self::Mutator);
    /// Done by the requester before it asks, and by each running mutator after its own part: whatever makes `world` take less
    /// time on the thread that arrives last. Nothing that anybody could see: other mutators may be running.
    fn rehearse(&self, _op: Self::Op) {}
    /// The part with every mutator stopped. Runs under the safepoint lock.
    fn world(&self, op: Self::Op, mutators: &[Entry<Self::Mutator>]);
    /// One mutator's part after the release, before it runs any further.
    fn after(&self, op: Self::Op, mutator: &Self::Mutator);
    /// The clock, in nanoseconds.
    fn now(&self) -> u64;
}

/// A mutator as the safepoints know it.
pub struct Slot<M> {
    poll: AtomicU32,
    /// The mutator's own state.
    pub mutator: M,
}

impl<M> Slot<M> {
    /// Whether the slow path must be taken. The fast path of every safepoint.
    #[inline(always)]
    pub fn polled(&self) -> bool {
        // Relaxed: the slow path takes the lock, which orders everything.
        self.poll.load(Ordering::Relaxed) != 0
    }
}

/// An attached mutator, and how far it is with the current request.
pub struct Entry<M> {
    slot: Arc<Slot<M>>,
    mode: Mode,
    /// `each` for the current request has not been done.
    due: bool,
    /// `after` for the current request has not been done.
    after_due: bool,
}

impl<M> Entry<M> {
    /// The mutator's own state.
    pub fn mutator(&self) -> &M {
        &self.slot.mutator
    }
}

struct State<M, Op> {
    entries: Vec<Entry<M>>,
    op: Option<Op>,
    /// Participants that have not arrived: running mutators, and the requester.
    pending: usize,
    /// A pause has been requested and not yet released.
    stopping: bool,
    /// Completed requests (a pause counts when it is released).
    completed: u64,
    times: Times,
}

/// When the parts of a request happened (nanoseconds).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// The request was made.
    pub requested: u64,
    /// The last participant arrived.
    pub stopped: u64,
    /// The first mutator could run again.
    pub released: u64,
    /// Mutators attached.
    pub mutators: u32,
}

/// The meeting point of mutators and collector.
pub struct Safepoints<O: Operations> {
    state: Mutex<State<O::Mutator, O::Op>>,
    /// Mutators wait here: for a release, for the end of being held, for attaching.
    resume: Condvar,
    /// The requester waits here.
    arrived: Condvar,
}

impl<O: Operations> Default for Safepoints<O> {
    fn default() -> Self {
        Self::new()
    }
}

type Guard<'a, O> = MutexGuard<'a, State<<O as Operations>::Mutator, <O as Operations>::Op>>;

impl<O: Operations> Safepoints<O> {
    /// No mutators.
    pub fn new() -> Safepoints<O> {
        let state = State {
            entries: Vec::new(),
            op: None,
            pending: 0,
            stopping: false,
            completed: 0,
            times: Times::default(),
        };
        Safepoints { state: Mutex::new(state), resume: Condvar::new(), arrived: Condvar::new() }
    }

    fn lock(&self) -> Guard<'_, O> {
        self.state.lock().expect("a thread panicked while it held the safepoint lock")
    }

    fn wait<'a>(condition: &Condvar, guard: Guard<'a, O>) -> Guard<'a, O> {
        condition.wait(guard).expect("a thread panicked while it held the safepoint lock")
    }

    /// Adds a mutator, running. `make` runs under the lock, so that what it reads of the collector's
    /// phase cannot change before the mutator takes part.
    pub fn attach(&self, make: impl FnOnce() -> O::Mutator) -> Arc<Slot<O::Mutator>> {
        let mut state = self.lock();
        while state.stopping {
            state = Self::wait(&self.resume, state);
        }
        let slot = Arc::new(Slot { poll: AtomicU32::new(0), mutator: make() });
        state.entries.push(Entry {
            slot: slot.clone(),
            mode: Mode::Running,
            due: false,
            after_due: false,
        });
        slot
    }

    /// Removes the calling thread's mutator; `last` runs under the lock, when nothing is due any more.
    pub fn detach(&self, ops: &O, slot: &Arc<Slot<O::Mutator>>, last: impl FnOnce(&O::Mutator)) {
        loop {
            self.poll_slow(ops, slot);
            let mut state = self.lock();
            let index = Self::index(&state, slot);
            if !state.entries[index].due {
                last(&slot.mutator);
                state.entries.swap_remove(index);
                return;
            }
        }
    }

    /// Number of mutators attached.
    pub fn attached(&self) -> usize {
        self.lock().entries.len()
    }

    fn index(state: &State<O::Mutator, O::Op>, slot: &Arc<Slot<O::Mutator>>) -> usize {
        let found = state.entries.iter().position(|entry| Arc::ptr_eq(&entry.slot, slot));
        found.expect("the mutator is attached")
    }

    /// The poll's slow path: does whatever the current request wants of this mutator.
    pub fn poll_slow(&self, ops: &O, slot: &Arc<Slot<O::Mutator>>) {
        let state = self.lock();
        let index = Self::index(&state, slot);
        if !state.entries[index].due {
            return;
        }
        let op = state.op.expect("a due mutator has a request");
        drop(state);
        ops.each(op, &slot.mutator);
        ops.rehearse(op);
        let mut state = self.lock();
        let index = Self::index(&state, slot);
        state.entries[index].due = false;
        slot.poll.store(0, Ordering::Relaxed);
        let request = state.completed;
        self.arrive(ops, &mut state, op);
        if O::stops(op) {
            while state.completed == request {
                state = Self::wait(&self.resume, state);
            }
            self.finish_after(ops, state, op, slot);
        }
    }

    fn finish_after(&self, ops: &O, state: Guard<'_, O>, op: O::Op, slot: &Arc<Slot<O::Mutator>>) {
        let index = Self::index(&state, slot);
        if state.entries[index].after_due {
            drop(state);
            ops.after(op, &slot.mutator);
            let mut state = self.lock();
            let index = Self::index(&state, slot);
            state.entries[index].after_due = false;
            self.arrived.notify_all();
        }
    }

    /// One participant has arrived; the last one completes the request.
    fn arrive(&self, ops: &O, state: &mut Guard<'_, O>, op: O::Op) {
        state.pending -= 1;
        if state.pending > 0 {
            return;
        }
        if O::stops(op) {
            state.times.stopped = ops.now();
            ops.world(op, &state.entries);
            for entry in &mut state.entries {
                entry.after_due = true;
            }
            state.stopping = false;
            state.times.released = ops.now();
        }
        state.completed += 1;
        self.resume.notify_all();
        self.arrived.notify_all();
    }

    /// Enters a blocking section: from now on the thread must not touch the heap.
    pub fn block(&self, ops: &O, slot: &Arc<Slot<O::Mutator>>) {
        loop {
            self.poll_slow(ops, slot);
            let mut state = self.lock();
            let index = Self::index(&state, slot);
            if !state.entries[index].due {
                state.entries[index].mode = Mode::Blocked;
                return;
            }
        }
    }

    /// Leaves the blocking section; waits while a pause is under way or somebody does its part for it.
    pub fn unblock(&self, ops: &O, slot: &Arc<Slot<O::Mutator>>) {
        let mut state = self.lock();
        loop {
            let index = Self::index(&state, slot);
            if state.entries[index].mode != Mode::Held && !state.stopping {
                state.entries[index].mode = Mode::Running;
                if state.entries[index].after_due {
                    let op = state.op.expect("an after part belongs to a request");
                    self.finish_after(ops, state, op, slot);
                }
                return;
            }
            state = Self::wait(&self.resume, state);
        }
    }

    /// Makes every mutator do its part of `op`, and for a pause runs `world` in between. Returns when
    /// all parts are done. One request at a time; the caller must not be an attached, running mutator.
    pub fn request(&self, ops: &O, op: O::Op) -> Times {
        ops.rehearse(op);
        let mut state = self.lock();
        state.op = Some(op);
        state.stopping = O::stops(op);
        state.times = Times { requested: ops.now(), ..Times::default() };
        state.times.mutators = state.entries.len() as u32;
        state.pending = 1;
        let mut holds = false;
        let State { entries, pending, .. } = &mut *state;
        for entry in entries {
            entry.due = true;
            if entry.mode == Mode::Running {
                // Relaxed: see `polled`.
                entry.slot.poll.store(1, Ordering::Relaxed);
                *pending += 1;
            } else {
                entry.mode = Mode::Held;
                holds = true;
            }
        }
        if holds {
            let next = |entry: &&mut Entry<_>| entry.mode == Mode::Held && entry.due;
            while let Some(entry) = state.entries.iter_mut().find(next) {
                entry.due = false;
                let slot = entry.slot.clone();
                drop(state);
                ops.each(op, &slot.mutator);
                state = self.lock();
            }
            // Who comes back now goes on, or waits for the release like everyone: not for this thread.
            let held = state.entries.iter_mut().filter(|entry| entry.mode == Mode::Held);
            held.for_each(|entry| entry.mode = Mode::Blocked);
            self.resume.notify_all();
        }
        let request = state.completed;
        self.arrive(ops, &mut state, op);
        while state.completed == request && state.pending > 0 {
            state = Self::wait(&self.arrived, state);
        }
        let times = state.times;
        // What is due after a pause to those that were held is done here, unless they have come back: then they do it
        // themselves.
        let next = |entry: &&mut Entry<_>| entry.mode == Mode::Blocked && entry.after_due;
        while let Some(entry) = state.entries.iter_mut().find(next) {
            entry.mode = Mode::Held;
            let slot = entry.slot.clone();
            drop(state);
            ops.after(op, &slot.mutator);
            state = self.lock();
            let index = Self::index(&state, &slot);
            state.entries[index].after_due = false;
            state.entries[index].mode = Mode::Blocked;
            self.resume.notify_all();
        }
        while O::stops(op) && state.entries.iter().any(|entry| entry.after_due) {
            state = Self::wait(&self.arrived, state);
        }
        times
    }
}
