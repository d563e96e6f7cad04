//! The machine: one stretch without collection.
//!
//! **The stack is native.** While the machine runs, frames live in an ordinary slice of values, written without
//! any barrier; nothing can be collected meanwhile. When the stretch must end (the thread's chunk is full, the
//! collector asks, a builtin has to block) the live part of the stack is copied into the thread's register array
//! in the heap, and back afterwards: a few hundred words for every 256 KiB allocated.
//!
//! **Continuations.** Frames below the running one that had to leave the stack (it was full, or somebody captured the
//! continuation) lie in *segments*: arrays `[segment below, its top, its return word, frames...]` that are never
//! changed again. The position (segment, top, return word) is the continuation; capturing it moves only the frames
//! that have not been moved before, and returning into a segment copies frames back. Re-entry needs no copy.
//!
//! **Frames.** `[return word, closure, arguments..., variables...]`. The return word is a fixnum: the caller's next
//! instruction, and how far below the caller's frame begins; in the lowest frame it says `UNDERFLOW`.
//!
//! This file has the machine's state, its beginning and its end in a stretch. Beside it: the [`register`]s, the
//! instructions (`execute`), calls in general (`enter`), continuations (`segments`), errors and exits (`traps`). Only
//! [`crate::vm`] calls [`run`].

mod enter;
mod execute;
pub mod register;
mod segments;
mod traps;

pub use enter::multiple;
pub use traps::trace_text;

use crate::compile::ops::{a, code, op, signed_c};
use crate::mem::{Mem, Spare};
use crate::trap::{Large, Trap};
use crate::value::{Array, Slot, Value};
use crate::vm::Outside;
use crate::world::World;
use execute::jumps;
use std::cell::Cell as StdCell;
use std::cmp::Ordering;
use traps::{name_of, with_name};

/// Words of the native stack that frames may use.
pub const STACK: usize = 4096;
/// Words that can be reached from the beginning of a frame: more than any frame has, so that a frame's register is
/// found without asking whether it is there (`execute`), and that there is room for calling the handler of an error.
pub const WINDOW: usize = 2048;
const _: () = assert!(WINDOW.is_power_of_two() && WINDOW > crate::compile::MOST_REGISTERS + 64);

/// What the machine must do before it goes on with the next instruction.
#[allow(missing_docs)] // The fields are named by the variants' comments.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Resume {
    /// Nothing.
    #[default]
    Instruction,
    /// Enter the callee whose frame begins at `frame`.
    Enter { frame: usize, count: usize, tail: bool },
    /// Deliver what was done outside as the result of the call whose frame begins at `frame`.
    Deliver { frame: usize, tail: bool },
    /// Go on from the comparison before the next instruction, which was done outside: what it came to is in RESULT.
    Branch,
    /// Raise an error: the register that holds the error object.
    Raise { register: usize },
}

/// What is kept of the machine between two stretches, besides the registers.
#[derive(Debug, Default)]
pub struct State {
    /// Where the running frame begins.
    pub fp: usize,
    /// The next instruction.
    pub pc: usize,
    /// Words of the stack in use.
    pub live: usize,
    /// What to do first.
    pub resume: Resume,
    /// See [`Spare`].
    pub spare_left: usize,
    /// How many bytes were reserved for what is done first; 0 after that has been done. If it did not suffice,
    /// more will be reserved.
    pub reserved: usize,
}

impl State {
    /// The next stretch begins with raising the error object in a register.
    pub fn raise(&mut self, register: usize) {
        // The place of an error is that of the instruction before the next one.
        self.pc += usize::from(self.resume == Resume::Instruction);
        self.resume = Resume::Raise { register };
        self.reserved = 0;
    }
}

/// Why a stretch ended.
#[allow(missing_docs)] // The fields are named by the variants' comments.
pub enum Exit {
    /// The program has returned; the value is in the register RESULT.
    Done,
    /// So many bytes are needed.
    Reserve(usize),
    /// A large object is needed.
    Large(Large),
    /// Something that may take long.
    Block(Box<dyn FnOnce(&World) + Send>),
    /// Something that needs the heap beyond a stretch; its result is delivered.
    Outside(Outside),
    /// A collection is wanted.
    Collect,
    /// Somebody else wants this thread's attention.
    Poll,
    /// The program ends itself.
    Quit(i32),
    /// Nobody handles the object in RESULT: text for people.
    Uncaught { message: String, trace: Vec<String> },
    /// Ctrl-C.
    Interrupted,
    /// Another thread ended this one.
    Terminated,
}

enum Flow<'m> {
    Go,
    Trap(Trap<'m>),
    Exit(Exit),
}

/// A stretch.
pub struct Machine<'m, 's, 'v> {
    mem: Mem<'m, 's>,
    state: &'v mut State,
    registers: Array<'m>,
    segment: Value<'m>,
    top: usize,
    back: Value<'m>,
    /// Words of frames that come back from a segment together with the topmost one.
    along: usize,
    winders: Value<'m>,
    handlers: Value<'m>,
    parameters: Value<'m>,
    fp: usize,
    pc: usize,
    code: Code<'m>,
    spare: &'m StdCell<Option<Spare<'m>>>,
    terminated: &'v std::sync::atomic::AtomicBool,
}

type Stack<'a, 'm> = &'a mut [Value<'m>; STACK + WINDOW];

/// The words of a code object.
type Code<'m> = &'m [Slot];

/// Runs until the stretch must end.
pub fn run<'m, 's>(
    mem: Mem<'m, 's>,
    registers: Array<'m>,
    spare: &'m StdCell<Option<Spare<'m>>>,
    state: &mut State,
    terminated: &std::sync::atomic::AtomicBool,
) -> Exit {
    let mut stack: Box<[Value<'m>; STACK + WINDOW]> =
        vec![Value::FALSE; STACK + WINDOW].try_into().expect("it is as long as this");
    let get = |index| mem.element(registers, index);
    for (index, word) in stack[..state.live].iter_mut().enumerate() {
        *word = get(register::FRAMES + index);
    }
    let held = get(register::SPARE);
    spare.set((held != Value::UNBOUND).then_some(Spare { value: held, left: state.spare_left }));
    // A callee that is about to be entered in the lowest frame's place need not be a closure.
    let running = Some(stack[state.fp + 1]).filter(|value| value.as_closure().is_some());
    let code = code_of(mem, running.unwrap_or_else(|| get(register::IDLE)));
    let mut machine = Machine {
        mem,
        segment: get(register::SEGMENT),
        top: get(register::TOP).as_index().unwrap_or(0),
        back: get(register::BACK),
        along: 0,
        winders: get(register::WINDERS),
        handlers: get(register::HANDLERS),
        parameters: get(register::PARAMETERS),
        fp: state.fp,
        pc: state.pc,
        state,
        registers,
        code,
        spare,
        terminated,
    };
    let exit = machine.go(&mut stack);
    machine.save(&*stack);
    exit
}

/// The code of a closure.
#[inline(always)]
fn code_of<'m>(mem: Mem<'m, '_>, closure: Value<'m>) -> Code<'m> {
    match closure.as_closure().and_then(|closure| mem.element(closure, 0).as_vector()) {
        Some(code) => code.elements(),
        None => no_code(),
    }
}

#[cold]
#[inline(never)]
fn no_code() -> ! {
    panic!("a frame holds no closure: the machine is broken")
}

/// Word `index` of a code object.
#[inline(always)]
fn word<'m>(mem: Mem<'m, '_>, code: Code<'m>, index: usize) -> Value<'m> {
    code[index].load(mem.scope()).into()
}

impl<'m> Machine<'m, '_, '_> {
    fn save(&mut self, stack: &[Value<'m>]) {
        let scope = self.mem.scope();
        let set = |index: usize, value: Value<'m>| self.registers.store(scope, index, value.into());
        set(register::SEGMENT, self.segment);
        set(register::TOP, Value::fixnum(self.top as i64));
        set(register::BACK, self.back);
        set(register::WINDERS, self.winders);
        set(register::HANDLERS, self.handlers);
        set(register::PARAMETERS, self.parameters);
        match self.spare.take() {
            Some(spare) => {
                set(register::SPARE, spare.value);
                self.state.spare_left = spare.left;
            }
            None => set(register::SPARE, Value::UNBOUND),
        }
        let frame = self.frame_size();
        let mut live = self.fp + frame;
        if let Resume::Enter { frame, count, .. } = self.state.resume {
            live = live.max(frame + 2 + count);
        }
        if let Resume::Deliver { frame, .. } = self.state.resume {
            live = live.max(frame + 2);
        }
        for (index, &word) in stack[..live].iter().enumerate() {
            set(register::FRAMES + index, word);
        }
        // What lies above from earlier would be kept alive for nothing.
        for index in live..self.state.live {
            set(register::FRAMES + index, Value::FALSE);
        }
        self.state.live = live;
        self.state.fp = self.fp;
        self.state.pc = self.pc;
    }

    fn go(&mut self, stack: Stack<'_, 'm>) -> Exit {
        match std::mem::take(&mut self.state.resume) {
            Resume::Instruction => {
                // One instruction by itself: if it needs room again, what was reserved was not enough.
                if self.state.reserved > 0
                    && let Some(exit) = self.go_on::<true>(stack)
                {
                    return exit;
                }
            }
            Resume::Enter { frame, count, tail } => {
                if let Some(exit) = self.enter_or_handle(stack, frame, count, tail) {
                    return exit;
                }
            }
            Resume::Deliver { frame, tail } => {
                let value = self.mem.element(self.registers, register::RESULT);
                if let Some(exit) = self.deliver(stack, frame, tail, value) {
                    return exit;
                }
            }
            Resume::Branch => {
                let order = self.mem.element(self.registers, register::RESULT);
                let order = order.as_fixnum().expect("a comparison left it").cmp(&0);
                let instruction = word(self.mem, self.code, self.pc - 1).bits();
                if jumps(op(instruction), order).expect("it is a comparison") {
                    self.pc = self.pc.wrapping_add_signed(signed_c(instruction));
                }
            }
            Resume::Raise { register } => {
                let object = self.mem.element(self.registers, register);
                self.note_trace(stack, object);
                if let Some(exit) = self.raise(stack, object, self.fp + self.frame_size()) {
                    return exit;
                }
            }
        }
        self.state.reserved = 0;
        loop {
            if let Some(exit) = self.go_on::<false>(stack) {
                return exit;
            }
        }
    }

    /// Executes instructions until an exit, an error or, if `ONCE`, after one.
    fn go_on<const ONCE: bool>(&mut self, stack: Stack<'_, 'm>) -> Option<Exit> {
        {
            let trap = match self.execute::<ONCE>(stack) {
                Flow::Go => return None,
                Flow::Exit(exit) => return Some(exit),
                Flow::Trap(trap) => trap,
            };
            // The instruction is done again, unless an error takes its place.
            self.pc -= 1;
            let instruction = word(self.mem, self.code, self.pc).bits();
            let deliver = match jumps(op(instruction), Ordering::Equal) {
                Some(_) => Resume::Branch,
                None => Resume::Deliver { frame: self.fp + a(instruction), tail: false },
            };
            let trap = match name_of(op(instruction)) {
                Some(name) => with_name(name, trap),
                None => trap,
            };
            self.handle(stack, trap, Resume::Instruction, deliver, true)
        }
    }

    fn frame_size(&self) -> usize {
        code::frame(word(self.mem, self.code, code::META).bits())
    }
}
