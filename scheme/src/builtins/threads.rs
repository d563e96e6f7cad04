//! Threads, mutexes, condition variables: SRFI 18 over operating system threads, each a mutator of the one heap.
//!
//! What can be waited for is state in the heap, an atomic word. A builtin that has to wait reads the parking lot's
//! generation *before* it looks at the state, and traps with a blocking action that waits for a later generation;
//! whoever changes such a state begins a new generation. So no wake-up is lost, and nobody sleeps while holding a
//! reference.

use super::control::condition_of;
use super::{Builtin, args};
use crate::mem::Mem;
use crate::object::*;
use crate::port::PATIENCE;
use crate::symbol::Symbol;
use crate::trap::{Result, Trap, TrapKind, error, wrong_type};
use crate::value::{Array, Scheme, Value};
use crate::vm::{Outcome, Vm, register};
use firn::{Gc, Root, TaggedArray};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// States of a thread.
mod state {
    pub const NEW: u64 = 0;
    pub const STARTED: u64 = 1;
    pub const DONE: u64 = 2;
    pub const UNCAUGHT: u64 = 3;
    pub const TERMINATED: u64 = 4;
}

/// Where threads wait.
#[derive(Default)]
pub struct Parking {
    generation: Mutex<u64>,
    changed: Condvar,
    queues: Mutex<Queues>,
    /// Threads that could not so much as begin, and why.
    failed: Mutex<HashMap<u64, String>>,
}

/// Who waits for which condition variable, in the order in which they began to: tickets and threads.
#[derive(Default)]
struct Queues {
    tickets: u64,
    waiting: HashMap<u64, VecDeque<(u64, u64)>>,
}

impl Parking {
    fn now(&self) -> u64 {
        *self.generation.lock().expect("parking is whole")
    }

    fn begin_anew(&self) {
        *self.generation.lock().expect("parking is whole") += 1;
        self.changed.notify_all();
    }

    /// Waits for a later generation, but not for ever: whoever waits looks again at what it waits for.
    fn wait_beyond(&self, generation: u64, until: Option<Instant>) {
        let now = self.generation.lock().expect("parking is whole");
        if *now != generation {
            return;
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let patience = left.map_or(PATIENCE, |left| left.min(PATIENCE));
        drop(self.changed.wait_timeout(now, patience).expect("parking is whole"));
    }

    fn fail(&self, thread: u64, why: String) {
        self.failed.lock().expect("parking is whole").insert(thread, why);
    }

    /// Why the thread could not begin, if that is so.
    fn failure(&self, thread: u64) -> Option<String> {
        self.failed.lock().expect("parking is whole").get(&thread).cloned()
    }

    /// A thread begins to wait for a condition variable; by its ticket it will know that it was signalled.
    fn enqueue(&self, variable: u64, thread: u64) -> u64 {
        let mut queues = self.queues.lock().expect("parking is whole");
        queues.tickets += 1;
        let ticket = queues.tickets;
        queues.waiting.entry(variable).or_default().push_back((ticket, thread));
        ticket
    }

    /// Whether the ticket is still waiting.
    fn is_waiting(&self, variable: u64, ticket: u64) -> bool {
        let queues = self.queues.lock().expect("parking is whole");
        queues.waiting.get(&variable).is_some_and(|queue| queue.iter().any(|w| w.0 == ticket))
    }

    /// Lets go those that `chosen` says of one variable, or of all.
    fn dequeue(&self, variable: Option<u64>, chosen: impl FnMut(usize, (u64, u64)) -> bool) {
        let mut chosen = chosen;
        let mut queues = self.queues.lock().expect("parking is whole");
        queues.waiting.retain(|&of, queue| {
            if variable.is_none_or(|variable| variable == of) {
                let mut place = 0;
                queue.retain(|&waiting| {
                    place += 1;
                    !chosen(place - 1, waiting)
                });
            }
            !queue.is_empty()
        });
    }
}

/// Why a thread ended that did not come back to where it began.
fn left<'m>(mem: Mem<'m, '_>, _: Array<'m>) -> Result<'m> {
    condition_of(
        mem,
        "error",
        "the thread went on in the continuation of another one, to its end",
        &[],
        Value::FALSE,
    )
}

/// A thread that was started.
pub struct Running {
    /// Set to end it.
    pub terminated: Arc<AtomicBool>,
    /// The operating system's thread.
    pub handle: std::thread::JoinHandle<()>,
}

fn wait<'m>(generation: u64, until: Option<Instant>) -> Trap<'m> {
    TrapKind::Block(Box::new(move |world| world.parking.wait_beyond(generation, until))).into()
}

/// A deadline: `#f`, or jiffies since the interpreter was made.
fn deadline<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m, Option<Instant>> {
    if !value.is_true() {
        return Ok(None);
    }
    let jiffies = value.as_index().ok_or_else(|| wrong_type("a time", value))?;
    Ok(Some(mem.world().started + Duration::from_nanos(jiffies as u64)))
}

fn passed(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() >= until)
}

fn thread<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m, Gc<'m, ThreadObject>> {
    mem.object(value).ok_or_else(|| wrong_type("a thread", value))
}
fn mutex<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m, Gc<'m, MutexObject>> {
    mem.object(value).ok_or_else(|| wrong_type("a mutex", value))
}
fn variable<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m, Gc<'m, ConditionVariable>> {
    mem.object(value).ok_or_else(|| wrong_type("a condition variable", value))
}

/// The thread in which programs begin.
const PRIMORDIAL: u64 = 0;

/// States of a mutex; any other is the number of this time that it is locked.
const FREE: u64 = 0;
const CHANGING: u64 = u64::MAX;

/// Whether the thread that locked the mutex has ended.
fn is_abandoned<'m>(mem: Mem<'m, '_>, mutex: Gc<'m, MutexObject>) -> bool {
    let mutex: &MutexObject = &mutex;
    let owner: Option<Gc<'m, ThreadObject>> = mem.object(mutex.owner.load(mem.scope()).into());
    owner.is_some_and(|owner| owner.state.load(Acquire) >= state::DONE)
}

fn next_id(mem: Mem<'_, '_>) -> u64 {
    mem.world().next_id.fetch_add(1, Relaxed)
}

fn make_thread<'m>(mem: Mem<'m, '_>, a: &[Value<'m>]) -> Result<'m> {
    let zero = || firn::Tagged::new(0);
    let empty = ThreadObject {
        id: next_id(mem),
        state: state::NEW.into(),
        thunk: zero(),
        result: zero(),
        name: zero(),
        specific: zero(),
    };
    mem.make(empty, |thread| {
        thread.set(&thread.thunk, a[0].into());
        thread.set(&thread.name, a[1].into());
        thread.set(&thread.result, Value::UNSPECIFIED.into());
        thread.set(&thread.specific, Value::UNSPECIFIED.into());
    })
}

/// `(%thread-start! thread body)`: `body` runs the thread's thunk and notes its result.
fn start<'m>(mem: Mem<'m, '_>, a: &[Value<'m>]) -> Result<'m> {
    let thread = thread(mem, a[0])?;
    let pair = mem.array(2, |index| a[index])?;
    if thread.state.compare_exchange(state::NEW, state::STARTED, AcqRel, Acquire).is_err() {
        return Err(error("the thread has been started already", &[a[0]]));
    }
    let root: Root<TaggedArray<Scheme>> = mem.scope().global(pair);
    let id = thread.id;
    // The world is shared by reference count; the interpreter has the first.
    let world = mem.world().shared();
    let terminated = Arc::new(AtomicBool::new(false));
    let flag = terminated.clone();
    let number = id;
    let body = move || {
        let heap = world.heap.clone();
        let done = heap.try_attach(|cx| {
            let finish = |cx: &firn::Scope<'_>, root: &Root<TaggedArray<Scheme>>, end: u64| {
                let object = Value::from(root.get(cx).load(cx, 0));
                // If the program has not noted an end itself.
                if let Some(thread) = object.as_object::<ThreadObject>(cx)
                    && thread.state.load(Acquire) == state::STARTED
                {
                    thread.result.store(cx, root.get(cx).load(cx, 1));
                    thread.state.store(end, Release);
                }
            };
            let outcome = match Vm::new(cx, world.clone(), flag) {
                Ok(mut vm) => {
                    for (index, slot) in [(0, register::THREAD), (1, register::RESULT)] {
                        let scope: &firn::Scope<'_> = vm.cx;
                        let value = root.get(scope).load(scope, index);
                        vm.registers.get(scope).store(scope, slot, value);
                    }
                    let outcome = vm.run();
                    let reason = match outcome {
                        // Only if a continuation led out of the thread's own.
                        Outcome::Done => {
                            vm.settle(register::RESULT, left).map(|()| register::RESULT)
                        }
                        Outcome::Uncaught { .. } => Ok(register::RESULT),
                        _ => Ok(register::OUT_OF_MEMORY),
                    };
                    let reason = reason.unwrap_or(register::OUT_OF_MEMORY);
                    let scope: &firn::Scope<'_> = vm.cx;
                    let value = vm.registers.get(scope).load(scope, reason);
                    root.get(scope).store(scope, 1, value);
                    outcome
                }
                Err(_) => {
                    world.parking.fail(number, "out of memory".to_string());
                    return;
                }
            };
            match outcome {
                Outcome::Terminated => finish(cx, &root, state::TERMINATED),
                Outcome::Quit(code) => world.quit(code),
                _ => finish(cx, &root, state::UNCAUGHT),
            }
            drop(root);
        });
        if let Err(error) = done {
            world.parking.fail(number, error.to_string());
        }
        world.threads.lock().expect("threads are whole").remove(&number);
        // A signal is not for a thread that was ended while it waited.
        world.parking.dequeue(None, |_, waiting| waiting.1 == number);
        world.parking.begin_anew();
    };
    // The entry must be there before the thread can remove it.
    let mut threads = mem.world().threads.lock().expect("threads are whole");
    let spawned =
        std::thread::Builder::new().name(format!("Mutator-{id}")).stack_size(64 << 20).spawn(body);
    match spawned {
        Ok(handle) => {
            threads.insert(id, Running { terminated, handle });
            Ok(a[0])
        }
        Err(failure) => Err(error(format!("cannot start a thread: {failure}"), &[])),
    }
}

/// Builtins of this file.
pub const TABLE: &[Builtin] = &[
    Builtin::new("%make-thread", 2, 2, make_thread),
    Builtin::new("thread?", 1, 1, |mem, a| {
        Ok(Value::boolean(mem.object::<ThreadObject>(a[0]).is_some()))
    }),
    Builtin::new("%thread-start!", 2, 2, start),
    Builtin::new("%thread-thunk", 1, 1, |mem, a| {
        let thread = thread(mem, a[0])?;
        let thread: &ThreadObject = &thread;
        Ok(thread.thunk.load(mem.scope()).into())
    }),
    Builtin::new("%thread-state", 1, 1, |mem, a| {
        Ok(Value::fixnum(thread(mem, a[0])?.state.load(Acquire) as i64))
    }),
    Builtin::new("%thread-result", 1, 1, |mem, a| {
        let thread = thread(mem, a[0])?;
        let thread: &ThreadObject = &thread;
        Ok(thread.result.load(mem.scope()).into())
    }),
    Builtin::new("%thread-finish!", 3, 3, |mem, a| {
        let thread = thread(mem, a[0])?;
        thread.result.store(mem.scope(), a[2].into());
        thread.state.store(args::size(a[1])? as u64, Release);
        mem.world().parking.begin_anew();
        Ok(Value::UNSPECIFIED)
    }),
    // Whether the thread has ended before the deadline.
    Builtin::new("%thread-wait", 2, 2, |mem, a| {
        let until = deadline(mem, a[1])?;
        let generation = mem.world().parking.now();
        let thread = thread(mem, a[0])?;
        if thread.state.load(Acquire) >= state::DONE {
            return Ok(Value::TRUE);
        }
        if let Some(why) = mem.world().parking.failure(thread.id) {
            let reason = condition_of(
                mem,
                "error",
                &format!("cannot start a thread: {why}"),
                &[],
                Value::FALSE,
            )?;
            thread.result.store(mem.scope(), reason.into());
            thread.state.store(state::UNCAUGHT, Release);
            return Ok(Value::TRUE);
        }
        if passed(until) { Ok(Value::FALSE) } else { Err(wait(generation, until)) }
    }),
    Builtin::new("thread-name", 1, 1, |mem, a| {
        let thread = thread(mem, a[0])?;
        let thread: &ThreadObject = &thread;
        Ok(thread.name.load(mem.scope()).into())
    }),
    Builtin::new("thread-specific", 1, 1, |mem, a| {
        let thread = thread(mem, a[0])?;
        let thread: &ThreadObject = &thread;
        Ok(thread.specific.load(mem.scope()).into())
    }),
    Builtin::new("thread-specific-set!", 2, 2, |mem, a| {
        thread(mem, a[0])?.specific.store(mem.scope(), a[1].into());
        Ok(Value::UNSPECIFIED)
    }),
    // Asks the thread to end; whether it did is seen by its state.
    Builtin::new("%thread-terminate!", 1, 1, |mem, a| {
        let thread = thread(mem, a[0])?;
        if thread.id == PRIMORDIAL {
            return Err(error("the primordial thread ends by exit only", &[a[0]]));
        }
        let _ = thread.state.compare_exchange(state::NEW, state::TERMINATED, AcqRel, Acquire);
        let generation = mem.world().parking.now();
        if thread.state.load(Acquire) == state::STARTED {
            match mem.world().threads.lock().expect("threads are whole").get(&thread.id) {
                Some(running) => running.terminated.store(true, Relaxed),
                // It is just being started, or has just ended.
                None if mem.world().parking.failure(thread.id).is_none() => {
                    return Err(wait(generation, None));
                }
                None => {}
            }
        }
        mem.world().parking.begin_anew();
        Ok(Value::UNSPECIFIED)
    }),
    Builtin::new("thread-yield!", 0, 0, |_, _| {
        std::thread::yield_now();
        Ok(Value::UNSPECIFIED)
    }),
    // Returns whether the time has come; the prelude asks until it has.
    Builtin::new("%sleep-until", 1, 1, |mem, a| {
        let until = deadline(mem, a[0])?;
        if passed(until) {
            return Ok(Value::TRUE);
        }
        Err(TrapKind::Block(Box::new(move |_| {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            std::thread::sleep(left.map_or(PATIENCE, |left| left.min(PATIENCE)));
        }))
        .into())
    }),
    Builtin::new("%make-mutex", 1, 1, |mem, a| {
        let zero = || firn::Tagged::new(0);
        let empty = MutexObject {
            id: next_id(mem),
            state: 0.into(),
            owner: zero(),
            name: zero(),
            specific: zero(),
        };
        mem.make(empty, |mutex| {
            mutex.set(&mutex.owner, Value::FALSE.into());
            mutex.set(&mutex.name, a[0].into());
            mutex.set(&mutex.specific, Value::UNSPECIFIED.into());
        })
    }),
    Builtin::new("mutex?", 1, 1, |mem, a| {
        Ok(Value::boolean(mem.object::<MutexObject>(a[0]).is_some()))
    }),
    Builtin::new("mutex-name", 1, 1, |mem, a| {
        let mutex = mutex(mem, a[0])?;
        let mutex: &MutexObject = &mutex;
        Ok(mutex.name.load(mem.scope()).into())
    }),
    Builtin::new("mutex-specific", 1, 1, |mem, a| {
        let mutex = mutex(mem, a[0])?;
        let mutex: &MutexObject = &mutex;
        Ok(mutex.specific.load(mem.scope()).into())
    }),
    Builtin::new("mutex-specific-set!", 2, 2, |mem, a| {
        mutex(mem, a[0])?.specific.store(mem.scope(), a[1].into());
        Ok(Value::UNSPECIFIED)
    }),
    Builtin::new("%mutex-owner", 1, 1, |mem, a| {
        let mutex = mutex(mem, a[0])?;
        let mutex: &MutexObject = &mutex;
        Ok(mutex.owner.load(mem.scope()).into())
    }),
    Builtin::new("%mutex-locked?", 1, 1, |mem, a| {
        Ok(Value::boolean(mutex(mem, a[0])?.state.load(Acquire) != FREE))
    }),
    // (%mutex-lock! mutex deadline owner): whether it was got before the deadline; `abandoned` if it was got because
    // the thread that had it has ended.
    Builtin::new("%mutex-lock!", 3, 3, |mem, a| {
        let until = deadline(mem, a[1])?;
        if a[2] != Value::FALSE {
            thread(mem, a[2])?;
        }
        let mutex = mutex(mem, a[0])?;
        let generation = mem.world().parking.now();
        // Each time it is locked it has another number, so that of those who find an owner that has ended only one
        // takes its place.
        let number = next_id(mem);
        if mutex.state.compare_exchange(FREE, number, AcqRel, Acquire).is_ok() {
            mutex.owner.store(mem.scope(), a[2].into());
            return Ok(Value::TRUE);
        }
        let locked = mutex.state.load(Acquire);
        if is_abandoned(mem, mutex)
            && locked != FREE
            && locked != CHANGING
            && mutex.state.compare_exchange(locked, CHANGING, AcqRel, Acquire).is_ok()
        {
            mutex.owner.store(mem.scope(), a[2].into());
            mutex.state.store(number, Release);
            return Ok(Value::symbol(Symbol::intern("abandoned")));
        }
        if passed(until) { Ok(Value::FALSE) } else { Err(wait(generation, until)) }
    }),
    Builtin::new("%mutex-unlock!", 1, 1, |mem, a| {
        let mutex = mutex(mem, a[0])?;
        mutex.owner.store(mem.scope(), Value::FALSE.into());
        mutex.state.store(FREE, Release);
        mem.world().parking.begin_anew();
        Ok(Value::UNSPECIFIED)
    }),
    Builtin::new("%make-condition-variable", 1, 1, |mem, a| {
        let zero = || firn::Tagged::new(0);
        let empty = ConditionVariable { id: next_id(mem), name: zero(), specific: zero() };
        mem.make(empty, |variable| {
            variable.set(&variable.name, a[0].into());
            variable.set(&variable.specific, Value::UNSPECIFIED.into());
        })
    }),
    Builtin::new("condition-variable?", 1, 1, |mem, a| {
        Ok(Value::boolean(mem.object::<ConditionVariable>(a[0]).is_some()))
    }),
    Builtin::new("condition-variable-name", 1, 1, |mem, a| {
        let variable = variable(mem, a[0])?;
        let variable: &ConditionVariable = &variable;
        Ok(variable.name.load(mem.scope()).into())
    }),
    Builtin::new("condition-variable-specific", 1, 1, |mem, a| {
        let variable = variable(mem, a[0])?;
        let variable: &ConditionVariable = &variable;
        Ok(variable.specific.load(mem.scope()).into())
    }),
    Builtin::new("condition-variable-specific-set!", 2, 2, |mem, a| {
        variable(mem, a[0])?.specific.store(mem.scope(), a[1].into());
        Ok(Value::UNSPECIFIED)
    }),
    // (%enqueue variable thread): a ticket.
    Builtin::new("%enqueue", 2, 2, |mem, a| {
        let (variable, thread) = (variable(mem, a[0])?, thread(mem, a[1])?);
        Ok(Value::fixnum(mem.world().parking.enqueue(variable.id, thread.id) as i64))
    }),
    Builtin::new("condition-variable-signal!", 1, 1, |mem, a| {
        let parking = &mem.world().parking;
        parking.dequeue(Some(variable(mem, a[0])?.id), |place, _| place == 0);
        parking.begin_anew();
        Ok(Value::UNSPECIFIED)
    }),
    Builtin::new("condition-variable-broadcast!", 1, 1, |mem, a| {
        let parking = &mem.world().parking;
        parking.dequeue(Some(variable(mem, a[0])?.id), |_, _| true);
        parking.begin_anew();
        Ok(Value::UNSPECIFIED)
    }),
    // (%wait-signal variable ticket deadline): whether the signal came before the deadline.
    Builtin::new("%wait-signal", 3, 3, |mem, a| {
        let until = deadline(mem, a[2])?;
        let (id, ticket) = (variable(mem, a[0])?.id, args::size(a[1])? as u64);
        let parking = &mem.world().parking;
        let generation = parking.now();
        if !parking.is_waiting(id, ticket) {
            return Ok(Value::TRUE);
        }
        if passed(until) {
            parking.dequeue(Some(id), |_, waiting| waiting.0 == ticket);
            return Ok(Value::FALSE);
        }
        Err(wait(generation, until))
    }),
];
