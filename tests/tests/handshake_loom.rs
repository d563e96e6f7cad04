//! Loom models of `gc/src/safepoint.rs`: in every interleaving of mutators that run, block, attach or detach and
//! a collector that makes requests, each part of a request is done exactly once, and nobody touches a
//! mutator's state while somebody else may.
//!
//! Nor does anybody wait who need not: loom reports a deadlock then. And no rehearsal of a pause overlaps with a pause.
//!
//! The source file itself is compiled here, against loom's primitives. What a mutator owns is a loom cell, so two
//! accesses that the handshake does not order fail the model by themselves.

use loom::cell::UnsafeCell;
use loom::thread;
use safepoint::{Entry, Operations, Safepoints, Slot, Times};
use std::cell::{Cell, RefCell};
use std::sync::Arc;

#[allow(dead_code)]
#[path = "../../gc/src/safepoint.rs"]
mod safepoint;

/// What `safepoint.rs` takes its primitives from.
mod sync {
    pub use loom::sync::atomic::{AtomicU32, Ordering};
    pub use loom::sync::{Condvar, Mutex, MutexGuard};
}

/// What was done to or by one mutator.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Done {
    each: u32,
    worlds: u32,
    after: u32,
    work: u32,
}

#[derive(Default)]
struct State(UnsafeCell<Done>, Option<Arc<Gate>>);

/// Closed until somebody opens it.
#[derive(Default)]
struct Gate(sync::Mutex<bool>, sync::Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn pass(&self) {
        let mut open = self.0.lock().unwrap();
        while !*open {
            open = self.1.wait(open).unwrap();
        }
    }
}

impl State {
    fn change<R>(&self, change: impl FnOnce(&mut Done) -> R) -> R {
        // SAFETY: exclusive by the handshake; loom fails the model if it is not.
        self.0.with_mut(|done| change(unsafe { &mut *done }))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
    Handshake,
    Pause,
}

std::thread_local! {
    /// `after` parts done in this run of the model, all threads of which share one thread of the system.
    static AFTERS: Cell<u32> = const { Cell::new(0) };
    /// What pauses change and their rehearsals look at, in this run of the model.
    static WORLD: RefCell<Arc<UnsafeCell<u32>>> = panic!("a meeting makes it");
}

fn world() -> Arc<UnsafeCell<u32>> {
    WORLD.with_borrow(Arc::clone)
}

struct Ops;

impl Operations for Ops {
    type Mutator = State;
    type Op = Op;

    fn stops(op: Op) -> bool {
        op == Op::Pause
    }

    fn each(&self, _: Op, mutator: &State) {
        mutator.change(|done| {
            done.each += 1;
            assert_eq!(done.each, done.after.max(done.worlds) + 1, "`each` twice for one request");
        });
    }

    fn rehearse(&self, op: Op) {
        if Self::stops(op) {
            // SAFETY: only read, and written by pauses alone; loom fails the model if one may be under way.
            world().with(|pauses| unsafe { pauses.read() });
        }
    }

    fn world(&self, _: Op, mutators: &[Entry<State>]) {
        // SAFETY: a pause is alone; loom fails the model if it is not.
        world().with_mut(|pauses| unsafe { *pauses += 1 });
        for entry in mutators {
            entry.mutator().change(|done| {
                done.worlds += 1;
                assert_eq!(done.worlds, done.each, "the world was stopped without this mutator");
            });
        }
    }

    fn after(&self, _: Op, mutator: &State) {
        if let Some(gate) = &mutator.1 {
            gate.pass();
        }
        mutator.change(|done| {
            done.after += 1;
            assert_eq!(done.after, done.worlds, "`after` without a pause, or twice");
        });
        AFTERS.set(AFTERS.get() + 1);
    }

    fn now(&self) -> u64 {
        0
    }
}

type Meeting = Arc<Safepoints<Ops>>;

// Loom's threads share one thread of the system, and loom checks the accesses.
#[allow(clippy::arc_with_non_send_sync)]
fn meeting() -> Meeting {
    AFTERS.set(0);
    WORLD.set(Arc::new(UnsafeCell::new(0)));
    Arc::new(Safepoints::new())
}

fn attach(meeting: &Meeting) -> Arc<Slot<State>> {
    meeting.attach(State::default)
}

/// A mutator's life: it works, passes a safepoint, works, and ends. Returns what was done to it.
fn live(meeting: &Meeting, slot: &Arc<Slot<State>>) -> Done {
    slot.mutator.change(|done| done.work += 1);
    if slot.polled() {
        meeting.poll_slow(&Ops, slot);
    }
    slot.mutator.change(|done| done.work += 1);
    end(meeting, slot)
}

fn end(meeting: &Meeting, slot: &Arc<Slot<State>>) -> Done {
    let mut last = Done::default();
    meeting.detach(&Ops, slot, |state| last = state.change(|done| *done));
    last
}

fn spawn(
    meeting: &Meeting,
    body: impl FnOnce(&Meeting) -> Done + 'static,
) -> thread::JoinHandle<Done> {
    let meeting = meeting.clone();
    thread::spawn(move || body(&meeting))
}

fn model(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

/// Of the mutators that ended as `all`, as many as the request counted took part in it, once each.
fn took_part(all: &[Done], times: Times, pause: bool) {
    let each = all.iter().map(|done| done.each).sum::<u32>();
    assert_eq!(each, times.mutators, "attached mutators and parts done differ: {all:?}");
    for done in all {
        let paused = if pause { done.each } else { 0 };
        assert_eq!((done.worlds, done.after), (paused, paused), "{done:?}");
    }
}

fn two_mutators(op: Op) {
    let meeting = meeting();
    let threads = [0, 1].map(|_| {
        let slot = attach(&meeting);
        spawn(&meeting, move |meeting| live(meeting, &slot))
    });
    let times = meeting.request(&Ops, op);
    let want = if op == Op::Pause { times.mutators } else { 0 };
    assert_eq!(AFTERS.get(), want, "the request returned before all parts were done");
    let all = threads.map(|thread| thread.join().unwrap());
    took_part(&all, times, op == Op::Pause);
    assert_eq!(meeting.attached(), 0);
}

#[test]
fn each_mutator_does_its_part_of_a_handshake_once() {
    model(2, || two_mutators(Op::Handshake));
}

#[test]
fn each_mutator_does_its_parts_of_a_pause_once_and_nobody_runs_meanwhile() {
    model(2, || two_mutators(Op::Pause));
}

#[test]
fn a_blocked_mutators_parts_are_done_for_it_or_by_itself_but_once() {
    for op in [Op::Handshake, Op::Pause] {
        model(3, move || {
            let meeting = meeting();
            let slot = attach(&meeting);
            let thread = spawn(&meeting, move |meeting| {
                meeting.block(&Ops, &slot);
                meeting.unblock(&Ops, &slot);
                slot.mutator.change(|done| done.work += 1);
                end(meeting, &slot)
            });
            let times = meeting.request(&Ops, op);
            took_part(&[thread.join().unwrap()], times, op == Op::Pause);
        });
    }
}

#[test]
fn a_mutator_that_comes_back_during_a_pause_waits_for_its_end() {
    model(2, || {
        let meeting = meeting();
        let (running, blocked) = (attach(&meeting), attach(&meeting));
        meeting.block(&Ops, &blocked);
        let running = spawn(&meeting, move |meeting| live(meeting, &running));
        let blocked = spawn(&meeting, move |meeting| {
            meeting.unblock(&Ops, &blocked);
            blocked.mutator.change(|done| done.work += 1);
            end(meeting, &blocked)
        });
        let times = meeting.request(&Ops, Op::Pause);
        took_part(&[running.join().unwrap(), blocked.join().unwrap()], times, true);
    });
}

#[test]
fn a_mutator_attached_during_a_pause_takes_no_part_in_it_and_does_not_run_meanwhile() {
    model(3, || {
        let meeting = meeting();
        let slot = attach(&meeting);
        let early = spawn(&meeting, move |meeting| live(meeting, &slot));
        let late = spawn(&meeting, |meeting| {
            let slot = attach(meeting);
            live(meeting, &slot)
        });
        let times = meeting.request(&Ops, Op::Pause);
        took_part(&[early.join().unwrap(), late.join().unwrap()], times, true);
    });
}

#[test]
fn a_mutator_that_comes_back_in_a_handshake_does_not_wait_for_the_others() {
    model(3, || {
        let meeting = meeting();
        let (running, blocked) = (attach(&meeting), attach(&meeting));
        meeting.block(&Ops, &blocked);
        let gate = Arc::<Gate>::default();
        let back = gate.clone();
        let blocked = spawn(&meeting, move |meeting| {
            meeting.unblock(&Ops, &blocked);
            blocked.mutator.change(|done| done.work += 1);
            back.open();
            end(meeting, &blocked)
        });
        // Its next safepoint is far away.
        let running = spawn(&meeting, move |meeting| {
            gate.pass();
            live(meeting, &running)
        });
        let times = meeting.request(&Ops, Op::Handshake);
        took_part(&[running.join().unwrap(), blocked.join().unwrap()], times, false);
    });
}

#[test]
fn a_mutator_that_comes_back_after_a_pause_does_not_wait_for_the_requester() {
    model(3, || {
        let meeting = meeting();
        let gate = Arc::<Gate>::default();
        // The requester gets no further than this one's part until the gate opens.
        let first = meeting.attach(|| State(UnsafeCell::default(), Some(gate.clone())));
        let second = attach(&meeting);
        meeting.block(&Ops, &first);
        meeting.block(&Ops, &second);
        let second = spawn(&meeting, move |meeting| {
            meeting.unblock(&Ops, &second);
            second.mutator.change(|done| done.work += 1);
            gate.open();
            end(meeting, &second)
        });
        let times = meeting.request(&Ops, Op::Pause);
        meeting.unblock(&Ops, &first);
        took_part(&[end(&meeting, &first), second.join().unwrap()], times, true);
    });
}

#[test]
fn requests_in_a_row_do_not_mix() {
    model(3, || {
        let meeting = meeting();
        let slot = attach(&meeting);
        let thread = spawn(&meeting, move |meeting| live(meeting, &slot));
        let first = meeting.request(&Ops, Op::Pause);
        let second = meeting.request(&Ops, Op::Pause);
        let done = thread.join().unwrap();
        assert_eq!(done.each, first.mutators + second.mutators);
        assert_eq!((done.worlds, done.after), (done.each, done.each));
    });
}

#[test]
fn a_request_without_mutators_is_done_at_once() {
    model(2, || {
        let meeting = meeting();
        assert_eq!(meeting.request(&Ops, Op::Pause).mutators, 0);
        assert_eq!(meeting.request(&Ops, Op::Handshake).mutators, 0);
    });
}
