//! The machine between stretches: [`Vm`], one for each thread.
//!
//! [`machine`] runs in stretches without collection. Each time a stretch ends, this file does what it ended for:
//! makes room, allocates something large, blocks, compiles, collects. The values of the thread live in the register
//! array meanwhile, which is the one root it needs.

pub mod load;
pub mod machine;

use crate::builtins::control::condition_of;
use crate::mem::{Mem, Spare};
use crate::port::PATIENCE;
use crate::trap::{self, Large, TrapKind};
use crate::value::{Array, Scheme, Value};
use crate::world::World;
use firn::{Local, NoGc, OutOfMemory, Scope, TaggedArray};
use machine::{Exit, Resume, State};
use std::cell::Cell as StdCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The registers by name; see [`machine::register`].
pub mod register {
    pub use super::machine::register::*;
    /// The objects that the forms being compiled came with: a vector.
    pub const ORIGINS: usize = 15;
}

/// Something that a builtin wants done between two stretches; it leaves its result in the register RESULT.
pub type Outside = Box<dyn for<'v, 's> FnOnce(&mut Vm<'v, 's>) -> Result<(), Failure>>;

/// Something went wrong between two stretches: an error to be raised.
#[derive(Clone, Debug)]
pub enum Failure {
    /// An error object of this kind and message.
    Error(&'static str, String),
    /// There is no memory left.
    OutOfMemory,
}

impl From<OutOfMemory> for Failure {
    fn from(_: OutOfMemory) -> Failure {
        Failure::OutOfMemory
    }
}

impl From<crate::expand::SyntaxError> for Failure {
    fn from(error: crate::expand::SyntaxError) -> Failure {
        Failure::Error("syntax", error.to_string())
    }
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It returned; the value is in the register RESULT.
    Done,
    /// It called `exit`.
    Quit(i32),
    /// An object was raised that nobody handled.
    Uncaught {
        /// The object in words.
        message: String,
        /// The innermost procedures and their places.
        trace: Vec<String>,
    },
    /// Ctrl-C.
    Interrupted,
    /// Another thread ended it.
    Terminated,
    /// Not even the handler of the end of memory had memory.
    OutOfMemory,
}

/// A thread of the interpreter.
pub struct Vm<'v, 's> {
    /// The thread's access to the heap.
    pub cx: &'v mut Scope<'s>,
    /// What the threads share.
    pub world: Arc<World>,
    /// The registers.
    pub registers: Local<'s, TaggedArray<Scheme>>,
    pub(crate) state: State,
    pub(crate) terminated: Arc<AtomicBool>,
    spare_left: usize,
}

impl<'v, 's> Vm<'v, 's> {
    /// A machine for the calling thread.
    ///
    /// # Errors
    /// If the heap is full.
    pub fn new(
        cx: &'v mut Scope<'s>,
        world: Arc<World>,
        terminated: Arc<AtomicBool>,
    ) -> Result<Vm<'v, 's>, Failure> {
        let words = register::FRAMES + machine::STACK + machine::WINDOW;
        let registers = cx.alloc_tagged::<Scheme>(words)?;
        let mut vm =
            Vm { cx, world, registers, state: State::default(), terminated, spare_left: 0 };
        for slot in 0..register::FRAMES {
            vm.set(slot, |_| Value::FALSE);
        }
        vm.set(register::SPARE, |_| Value::UNBOUND);
        vm.set(register::WINDERS, |_| Value::NIL);
        vm.set(register::HANDLERS, |_| Value::NIL);
        vm.set(register::PARAMETERS, |_| Value::NIL);
        vm.settle(register::IDLE, |mem, _| {
            use crate::compile::ops::{RETURN, code, encode};
            let words = [
                Value::fixnum(code::meta(0, 4, code::CONSTANTS)),
                Value::FALSE,
                Value::FALSE,
                Value::from_fixnum_bits(encode(RETURN, 1, 0, 0)),
            ];
            let code = mem.array(words.len(), |index| words[index])?;
            mem.array(1, |_| Value::vector(code)).map(Value::closure)
        })?;
        vm.settle(register::OUT_OF_MEMORY, |mem, _| {
            condition_of(mem, "out-of-memory", "out of memory", &[], Value::FALSE)
        })?;
        vm.save_for_a_rainy_day();
        vm.find_hooks();
        Ok(vm)
    }

    /// Does something in a nested scope, so that what it roots is let go at its end.
    pub fn nested<R>(&mut self, f: impl for<'w, 'i> FnOnce(&mut Vm<'w, 'i>) -> R) -> R {
        let (world, terminated) = (self.world.clone(), self.terminated.clone());
        let state = std::mem::take(&mut self.state);
        let (registers, spare_left) = (self.registers, self.spare_left);
        let (result, state) = self.cx.scope(|cx| {
            let registers = cx.root(registers.get(cx));
            let mut vm = Vm { cx, world, registers, state, terminated, spare_left };
            let result = f(&mut vm);
            (result, vm.state)
        });
        self.state = state;
        result
    }

    /// How the program, or this thread of it, is to end, if somebody wants that.
    pub(crate) fn wanted_end(&self) -> Option<Outcome> {
        if self.world.interrupted.load(Relaxed) {
            return Some(Outcome::Interrupted);
        }
        self.terminated.load(Relaxed).then_some(Outcome::Terminated)
    }

    /// Whether the program, or this thread of it, is to end.
    pub(crate) fn is_to_end(&self) -> bool {
        self.wanted_end().is_some()
    }

    /// Sets a register.
    pub fn set(&mut self, slot: usize, value: impl for<'m> FnOnce(&'m Scope<'s>) -> Value<'m>) {
        let scope: &Scope<'s> = self.cx;
        let value = value(scope);
        self.registers.get(scope).store(scope, slot, value.into());
    }

    /// A register's value.
    pub fn get(&self, slot: usize) -> Value<'_> {
        let scope: &Scope<'s> = self.cx;
        self.registers.get(scope).load(scope, slot).into()
    }

    /// The register that holds what a builtin kept ([`Mem::keep`]) for what is done outside; it is emptied by the
    /// next thing that allocates, so it is to be copied first.
    pub fn kept(&mut self) -> usize {
        register::SPARE
    }

    /// Copies a register.
    pub fn copy_register(&mut self, from: usize, to: usize) {
        let scope: &Scope<'s> = self.cx;
        let registers = self.registers.get(scope);
        registers.store(scope, to, registers.load(scope, from));
        if from == register::SPARE {
            registers.store(scope, from, Value::UNBOUND.into());
        }
    }

    /// Memory for the handler of the end of memory, if there is plenty.
    fn save_for_a_rainy_day(&mut self) {
        let stats = self.world.heap.stats();
        let bytes = (stats.limit_bytes / 32).clamp(128 << 10, 4 << 20);
        if stats.used_bytes + 4 * bytes > stats.limit_bytes {
            return;
        }
        let registers = self.registers;
        let _ = self.cx.scope(|cx| -> Result<(), OutOfMemory> {
            let array = cx.alloc_data::<u8>(bytes)?;
            let value = Value::object(array.get(cx));
            registers.get(cx).store(cx, register::RAINY_DAY, value.into());
            Ok(())
        });
    }

    /// An array of so many values, rooted in the thread's scope.
    pub(crate) fn alloc_array(
        &mut self,
        len: usize,
    ) -> Result<Local<'s, TaggedArray<Scheme>>, Failure> {
        Ok(self.cx.alloc_tagged::<Scheme>(len)?)
    }

    /// Runs `make` in stretches until it is through; its value goes to the register `slot`. As a builtin, it is
    /// called again from the start when it wants memory.
    ///
    /// # Errors
    /// What `make` raises, and the end of memory.
    pub fn settle(
        &mut self,
        slot: usize,
        mut make: impl for<'m> FnMut(Mem<'m, 's>, Array<'m>) -> trap::Result<'m>,
    ) -> Result<(), Failure> {
        let mut bytes = 4096;
        loop {
            let wanted = {
                let nogc = self.cx.reserve(bytes)?;
                let spare = StdCell::new(None);
                let registers = self.registers.get(&nogc);
                let mem = Mem::new(&nogc, &self.world, &spare);
                let held = mem.element(registers, register::SPARE);
                if held != Value::UNBOUND {
                    spare.set(Some(Spare { value: held, left: self.spare_left }));
                }
                let result = make(mem, registers);
                let kept = match spare.take() {
                    Some(spare) => {
                        self.spare_left = spare.left;
                        spare.value
                    }
                    None => Value::UNBOUND,
                };
                registers.store(&nogc, register::SPARE, kept.into());
                match result {
                    Ok(value) => {
                        registers.store(&nogc, slot, value.into());
                        registers.store(&nogc, register::SPARE, Value::UNBOUND.into());
                        return Ok(());
                    }
                    Err(trap) => match *trap.0 {
                        TrapKind::Reserve(more) => {
                            bytes = more.max(2 * bytes).min(NoGc::MOST);
                            None
                        }
                        TrapKind::Large(large) => Some(large),
                        TrapKind::Error { kind, message, .. } => {
                            return Err(Failure::Error(kind, message));
                        }
                        _ => {
                            return Err(Failure::Error(
                                "error",
                                "this cannot be done here".to_string(),
                            ));
                        }
                    },
                }
            };
            if let Some(large) = wanted {
                self.make_large(large)?;
                self.spare_left = Spare::WHOLE;
            }
        }
    }

    /// Allocates what a builtin needs and leaves it as the spare.
    fn make_large(&mut self, large: Large) -> Result<(), OutOfMemory> {
        let registers = self.registers;
        self.cx.scope(|cx| {
            let keep = |cx: &Scope<'_>, value: Value<'_>| {
                registers.get(cx).store(cx, register::SPARE, value.into());
            };
            match large {
                Large::Values(len) => {
                    let made = cx.alloc_tagged::<Scheme>(len)?;
                    keep(cx, Value::vector(made.get(cx)));
                }
                Large::Bytes(len) => {
                    let made = cx.alloc_data::<u8>(len)?;
                    keep(cx, Value::object(made.get(cx)));
                }
                Large::Chars(len) => {
                    let made = cx.alloc_data::<u32>(len)?;
                    keep(cx, Value::object(made.get(cx)));
                }
                Large::Words(len) => {
                    let made = cx.alloc_data::<u64>(len)?;
                    keep(cx, Value::object(made.get(cx)));
                }
                Large::TwoWords(lens) => {
                    let both = cx.alloc_tagged::<Scheme>(2)?;
                    for (index, len) in lens.into_iter().enumerate() {
                        let made = cx.alloc_data::<u64>(len)?;
                        both.get(cx).store(cx, index, Value::object(made.get(cx)).into());
                    }
                    keep(cx, Value::vector(both.get(cx)));
                }
            }
            Ok(())
        })
    }

    /// Runs the closure of no arguments in the register RESULT, with an empty continuation.
    pub fn run(&mut self) -> Outcome {
        self.set(register::SEGMENT, |_| Value::FALSE);
        self.set(register::WINDERS, |_| Value::NIL);
        self.set(register::HANDLERS, |_| Value::NIL);
        let cx: &Scope<'s> = self.cx;
        let registers = self.registers.get(cx);
        registers.store(cx, register::FRAMES, Value::UNDERFLOW.into());
        registers.store(cx, register::FRAMES + 1, registers.load(cx, register::RESULT));
        self.state = State {
            live: 2,
            resume: Resume::Enter { frame: 0, count: 0, tail: true },
            ..State::default()
        };
        self.go()
    }

    fn go(&mut self) -> Outcome {
        /// How long who waited for something waits for memory, too: it is another thread that takes all there is, and
        /// that one is to be told.
        const WAITS_FOR_ROOM: u32 = 40;
        let mut bytes = 2048;
        let mut waits_left = 0;
        loop {
            let is_patient = waits_left > 0 && !self.is_to_end();
            let exit = {
                let reserved = self.cx.reserve(bytes.clamp(2048, NoGc::MOST));
                match reserved {
                    Ok(nogc) => {
                        let spare = StdCell::new(None);
                        let registers = self.registers.get(&nogc);
                        let mem = Mem::new(&nogc, &self.world, &spare);
                        machine::run(mem, registers, &spare, &mut self.state, &self.terminated)
                    }
                    Err(_) if is_patient => {
                        waits_left -= 1;
                        self.cx.blocking(|| std::thread::sleep(PATIENCE));
                        continue;
                    }
                    Err(_) => {
                        if !self.out_of_memory() {
                            return Outcome::OutOfMemory;
                        }
                        bytes = 0;
                        continue;
                    }
                }
            };
            bytes = 0;
            waits_left = 0;
            let done = match exit {
                Exit::Done => return Outcome::Done,
                Exit::Quit(code) => return Outcome::Quit(code),
                Exit::Uncaught { message, trace } => return Outcome::Uncaught { message, trace },
                Exit::Interrupted => return Outcome::Interrupted,
                Exit::Terminated => return Outcome::Terminated,
                Exit::Reserve(wanted) => {
                    bytes = wanted;
                    Ok(())
                }
                Exit::Large(large) => {
                    self.state.spare_left = Spare::WHOLE;
                    self.make_large(large).map_err(Failure::from)
                }
                Exit::Block(action) => {
                    let world = self.world.clone();
                    self.cx.blocking(move || action(&world));
                    waits_left = WAITS_FOR_ROOM;
                    Ok(())
                }
                Exit::Outside(action) => self.nested(|vm| action(vm)),
                Exit::Collect => {
                    self.cx.collect();
                    self.set(register::RESULT, |_| Value::UNSPECIFIED);
                    Ok(())
                }
                Exit::Poll => {
                    self.cx.safepoint();
                    Ok(())
                }
            };
            // In a stretch it is looked at now and then; there may be many short ones. What waits comes back now and then,
            // and is not through: see `port::PATIENCE`.
            if let Some(end) = self.wanted_end() {
                return end;
            }
            match done {
                Ok(()) => {}
                Err(Failure::OutOfMemory) => {
                    if !self.out_of_memory() {
                        return Outcome::OutOfMemory;
                    }
                }
                Err(Failure::Error(kind, message)) => {
                    if self.raise_later(kind, &message).is_err() && !self.out_of_memory() {
                        return Outcome::OutOfMemory;
                    }
                }
            }
            if self.get(register::RAINY_DAY) == Value::FALSE {
                self.save_for_a_rainy_day();
            }
        }
    }

    /// The next stretch begins with an error.
    fn raise_later(&mut self, kind: &'static str, message: &str) -> Result<(), Failure> {
        let message = trap::shortened(message);
        self.settle(register::SCRATCH, |mem, _| {
            condition_of(mem, kind, &message, &[], Value::FALSE)
        })?;
        self.state.raise(register::SCRATCH);
        Ok(())
    }

    /// Gives up what was saved, and lets the next stretch begin with the error. False if nothing was saved and
    /// nothing else is left.
    fn out_of_memory(&mut self) -> bool {
        let saved = self.get(register::RAINY_DAY) != Value::FALSE;
        self.set(register::RAINY_DAY, |_| Value::FALSE);
        self.set(register::SPARE, |_| Value::UNBOUND);
        if !saved && self.cx.reserve(NoGc::MOST / 2).is_err() {
            return false;
        }
        self.state.raise(register::OUT_OF_MEMORY);
        true
    }
}
