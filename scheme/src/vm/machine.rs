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
//! that have not been moved before, and returning into a segment copies one frame back. Re-entry needs no copy.
//!
//! **Frames.** `[return word, closure, arguments..., variables...]`. The return word is a fixnum: the caller's next
//! instruction, and how far below the caller's frame begins; in the lowest frame it says `UNDERFLOW`.

use crate::builtins::Control;
use crate::compile::ops::*;
use crate::mem::{Mem, Spare};
use crate::numbers;
use crate::object::*;
use crate::trap::{Large, Trap, TrapKind, error, error_of, out_of_range, wrong_type};
use crate::value::{Array, Value};
use crate::vm::Outside;
use crate::world::World;
use std::cell::Cell as StdCell;
use std::cmp::Ordering;

/// Words of the native stack that frames may use.
pub const STACK: usize = 4096;
/// And some for calling the handler of an error.
const SLACK: usize = 64;

/// The thread's registers in the heap: an array.
pub mod register {
    /// Segment of the continuation.
    pub const SEGMENT: usize = 0;
    /// Words of it in use.
    pub const TOP: usize = 1;
    /// Return word of the frame on top of it.
    pub const BACK: usize = 2;
    /// `dynamic-wind` entries.
    pub const WINDERS: usize = 3;
    /// Exception handlers.
    pub const HANDLERS: usize = 4;
    /// Parameter bindings.
    pub const PARAMETERS: usize = 5;
    /// What a builtin had made before it was interrupted.
    pub const SPARE: usize = 6;
    /// The result of what was done outside, or of the whole run.
    pub const RESULT: usize = 7;
    /// The running thread's object.
    pub const THREAD: usize = 8;
    /// The cell of the procedure that raises the machine's errors.
    pub const RAISE: usize = 9;
    /// The cell of the procedure that leaves and enters `dynamic-wind`s.
    pub const REWIND: usize = 10;
    /// The error object for the end of memory.
    pub const OUT_OF_MEMORY: usize = 11;
    /// Memory that is given up when there is none left, so that the handler can run.
    pub const RAINY_DAY: usize = 12;
    /// Anything that the interpreter needs between two stretches.
    pub const SCRATCH: usize = 13;
    /// A closure that does nothing.
    pub const IDLE: usize = 14;
    /// Where the stack is kept between two stretches.
    pub const FRAMES: usize = 16;
}

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
    winders: Value<'m>,
    handlers: Value<'m>,
    parameters: Value<'m>,
    fp: usize,
    pc: usize,
    code: Array<'m>,
    spare: &'m StdCell<Option<Spare<'m>>>,
    terminated: &'v std::sync::atomic::AtomicBool,
}

type Stack<'a, 'm> = &'a mut [Value<'m>];

fn return_word<'m>(pc: usize, delta: usize) -> Value<'m> {
    Value::fixnum((pc << 16 | delta) as i64)
}

/// Runs until the stretch must end.
pub fn run<'m, 's>(
    mem: Mem<'m, 's>,
    registers: Array<'m>,
    spare: &'m StdCell<Option<Spare<'m>>>,
    state: &mut State,
    terminated: &std::sync::atomic::AtomicBool,
) -> Exit {
    let mut stack = vec![Value::FALSE; STACK + SLACK];
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
    machine.save(&stack);
    exit
}

/// The code of a closure.
#[inline(always)]
fn code_of<'m>(mem: Mem<'m, '_>, closure: Value<'m>) -> Array<'m> {
    match closure.as_closure().and_then(|closure| mem.element(closure, 0).as_vector()) {
        Some(code) => code,
        None => no_code(),
    }
}

#[cold]
#[inline(never)]
fn no_code() -> ! {
    panic!("a frame holds no closure: the machine is broken")
}

impl<'m, 's> Machine<'m, 's, '_> {
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
        let frame = code::frame(self.mem.element(self.code, code::META).bits());
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
            Resume::Raise { register } => {
                let object = self.mem.element(self.registers, register);
                // The place of an error is that of the instruction before the next one.
                self.pc += 1;
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
            let word = self.mem.element(self.code, self.pc).bits();
            let deliver = Resume::Deliver { frame: self.fp + a(word), tail: false };
            let trap = match name_of(op(word)) {
                Some(name) => with_name(name, trap),
                None => trap,
            };
            self.handle(stack, trap, Resume::Instruction, deliver, true)
        }
    }

    fn frame_size(&self) -> usize {
        code::frame(self.mem.element(self.code, code::META).bits())
    }

    /// What a trap means: an exit after which `retry` is done, or an error to be raised.
    fn handle(
        &mut self,
        stack: Stack<'_, 'm>,
        trap: Trap<'m>,
        retry: Resume,
        deliver: Resume,
        at_instruction: bool,
    ) -> Option<Exit> {
        let free = match retry {
            Resume::Enter { frame, count, .. } => {
                (self.fp + self.frame_size()).max(frame + 2 + count)
            }
            _ => self.fp + self.frame_size(),
        };
        match *trap.0 {
            TrapKind::Reserve(bytes) => {
                self.state.resume = retry;
                Some(self.more(bytes))
            }
            TrapKind::Large(large) => {
                self.state.resume = retry;
                Some(Exit::Large(large))
            }
            TrapKind::Block(action) => {
                self.state.resume = retry;
                Some(Exit::Block(action))
            }
            TrapKind::Collect => {
                self.pc += usize::from(at_instruction);
                self.state.resume = deliver;
                Some(Exit::Collect)
            }
            TrapKind::Outside(action) => {
                self.pc += usize::from(at_instruction);
                self.state.resume = deliver;
                Some(Exit::Outside(action))
            }
            TrapKind::Exit(exit) => Some(Exit::Quit(exit)),
            TrapKind::Raise(object) => {
                self.pc += usize::from(at_instruction);
                self.raise(stack, object, free)
            }
            TrapKind::Error { kind, message, irritants } => {
                match self.condition(kind, &message, &irritants) {
                    Ok(condition) => {
                        self.pc += usize::from(at_instruction);
                        self.raise(stack, condition, free)
                    }
                    Err(trap) => match *trap.0 {
                        TrapKind::Reserve(bytes) => {
                            self.state.resume = retry;
                            Some(self.more(bytes))
                        }
                        TrapKind::Large(large) => {
                            self.state.resume = retry;
                            Some(Exit::Large(large))
                        }
                        _ => unreachable!("an allocation fails for want of memory only"),
                    },
                }
            }
        }
    }

    fn more(&mut self, bytes: usize) -> Exit {
        let bytes = bytes.max(2 * self.state.reserved).min(firn::NoGc::MOST);
        self.state.reserved = bytes;
        Exit::Reserve(bytes)
    }

    /// An error object.
    fn condition(
        &self,
        kind: &str,
        message: &str,
        irritants: &[Value<'m>],
    ) -> crate::trap::Result<'m> {
        // The message may be long, as texts of programs are.
        let message: String = message.chars().take(2000).collect();
        let irritants = self.mem.list(irritants)?;
        let message = self.mem.string(&message)?;
        let kind = Value::symbol(crate::symbol::Symbol::intern(kind));
        let zero = || firn::Tagged::new(0);
        let empty = Condition { kind: zero(), message: zero(), irritants: zero(), trace: zero() };
        self.mem.make(empty, |condition| {
            condition.set(&condition.kind, kind.into());
            condition.set(&condition.message, message.into());
            condition.set(&condition.irritants, irritants.into());
            condition.set(&condition.trace, Value::FALSE.into());
        })
    }

    /// Calls the procedure that raises errors, with a frame at `free`.
    fn raise(&mut self, stack: Stack<'_, 'm>, object: Value<'m>, free: usize) -> Option<Exit> {
        let cell = self.mem.element(self.registers, register::RAISE);
        let hook = cell.as_cell().map(|cell| {
            let cell: &Cell = &cell;
            Value::from(cell.value.load(self.mem.scope()))
        });
        let Some(hook) = hook.filter(|hook| hook.as_closure().is_some()) else {
            return Some(self.uncaught(stack, object));
        };
        stack[free + 1] = hook;
        stack[free + 2] = object;
        self.enter_or_handle(stack, free, 1, false)
    }

    /// Ends the program: nobody handles `object`.
    fn uncaught(&mut self, stack: &[Value<'m>], object: Value<'m>) -> Exit {
        let message = crate::print::describe_error(self.mem, object);
        let trace = self.trace(stack);
        self.registers.store(self.mem.scope(), register::RESULT, object.into());
        Exit::Uncaught { message, trace }
    }

    /// Names and places of the innermost frames.
    fn trace(&self, stack: &[Value<'m>]) -> Vec<String> {
        const MOST: usize = 24;
        let mut lines: Vec<String> = Vec::new();
        let mut note = |closure: Value<'m>, pc: usize| {
            let Some(code) = closure.as_closure().and_then(|c| self.mem.element(c, 0).as_vector())
            else {
                return;
            };
            let name = self.mem.element(code, code::NAME).as_symbol().map(|s| s.name());
            let place = place_of(self.mem, code, pc);
            let name = name.as_deref().unwrap_or("").to_string();
            if place.as_deref().is_some_and(|place| place.starts_with("prelude")) {
                return;
            }
            let name = if name.is_empty() { "(anonymous)".to_string() } else { name };
            lines.push(match place {
                Some(place) => format!("{name} at {place}"),
                None => name,
            });
        };
        let (mut fp, mut pc) = (self.fp, self.pc);
        let mut count = 0;
        loop {
            note(stack[fp + 1], pc);
            count += 1;
            match stack[fp].as_fixnum() {
                Some(word) if count < MOST => {
                    pc = word as usize >> 16;
                    fp -= word as usize & 0xffff;
                }
                _ => break,
            }
        }
        let (mut segment, mut top, mut back) = (self.segment, self.top, self.back);
        while let (Some(frames), Some(word)) = (segment.as_vector(), back.as_fixnum()) {
            let delta = word as usize & 0xffff;
            let base = top - delta;
            note(self.mem.element(frames, base + 1), word as usize >> 16);
            count += 1;
            if count >= MOST {
                break;
            }
            let below = self.mem.element(frames, base);
            if below.is_fixnum() {
                (top, back) = (base, below);
            } else {
                segment = self.mem.element(frames, 0);
                top = self.mem.element(frames, 1).as_index().unwrap_or(0);
                back = self.mem.element(frames, 2);
            }
        }
        lines
    }

    /// Moves the frames below `base` into a segment; `back` is the return word of the frame at `base`. Afterwards
    /// that frame's return word must be `UNDERFLOW` and the frame be moved to 0.
    fn spill(
        &mut self,
        stack: &[Value<'m>],
        base: usize,
        back: Value<'m>,
    ) -> crate::trap::Result<'m, ()> {
        if base == 0 {
            return Ok(());
        }
        self.segment = self.make_segment(stack, base)?;
        self.top = base + 3;
        self.back = back;
        Ok(())
    }

    fn make_segment(&self, stack: &[Value<'m>], base: usize) -> crate::trap::Result<'m> {
        let head = [self.segment, Value::fixnum(self.top as i64), self.back];
        let segment = self
            .mem
            .array(base + 3, |index| if index < 3 { head[index] } else { stack[index - 3] })?;
        Ok(Value::vector(segment))
    }

    fn enter_or_handle(
        &mut self,
        stack: Stack<'_, 'm>,
        frame: usize,
        count: usize,
        tail: bool,
    ) -> Option<Exit> {
        let (mut frame, mut count, mut tail) = (frame, count, tail);
        match self.enter(stack, &mut frame, &mut count, &mut tail) {
            Flow::Go => None,
            Flow::Exit(exit) => Some(exit),
            Flow::Trap(trap) => {
                let retry = Resume::Enter { frame, count, tail };
                self.handle(stack, trap, retry, Resume::Deliver { frame, tail }, false)
            }
        }
    }

    /// The result of a call whose frame would begin at `frame`.
    fn deliver(
        &mut self,
        stack: Stack<'_, 'm>,
        frame: usize,
        tail: bool,
        value: Value<'m>,
    ) -> Option<Exit> {
        if !tail {
            stack[frame] = value;
            return None;
        }
        self.return_value(stack, value)
    }

    /// Returns from the running frame.
    fn return_value(&mut self, stack: Stack<'_, 'm>, value: Value<'m>) -> Option<Exit> {
        let back = stack[self.fp];
        if let Some(word) = back.as_fixnum() {
            stack[self.fp] = value;
            self.fp -= word as usize & 0xffff;
            self.pc = word as usize >> 16;
            self.code = code_of(self.mem, stack[self.fp + 1]);
            return None;
        }
        self.underflow(stack, value)
    }

    /// Returns into the topmost frame of the segments.
    #[inline(never)]
    fn underflow(&mut self, stack: Stack<'_, 'm>, value: Value<'m>) -> Option<Exit> {
        let Some(frames) = self.segment.as_vector() else {
            self.registers.store(self.mem.scope(), register::RESULT, value.into());
            return Some(Exit::Done);
        };
        let word = self.back.as_fixnum().expect("a segment has a frame on top") as usize;
        let delta = word & 0xffff;
        let base = self.top - delta;
        for (index, word) in stack[..delta].iter_mut().enumerate() {
            *word = self.mem.element(frames, base + index);
        }
        let below = stack[0];
        if below.is_fixnum() {
            self.top = base;
            self.back = below;
        } else {
            self.segment = self.mem.element(frames, 0);
            self.top = self.mem.element(frames, 1).as_index().expect("a top");
            self.back = self.mem.element(frames, 2);
        }
        stack[0] = Value::UNDERFLOW;
        stack[delta] = value;
        self.fp = 0;
        self.pc = word >> 16;
        self.code = code_of(self.mem, stack[1]);
        None
    }

    /// Enters the callee at `frame + 1` with `count` arguments behind it: the general way, for all kinds of callees.
    /// The three are up to date when it traps, so that it can be tried again.
    #[inline(never)]
    fn enter(
        &mut self,
        stack: Stack<'_, 'm>,
        frame: &mut usize,
        count: &mut usize,
        tail: &mut bool,
    ) -> Flow<'m> {
        macro_rules! check {
            ($result:expr) => {
                match $result {
                    Ok(value) => value,
                    Err(trap) => return Flow::Trap(trap),
                }
            };
        }
        macro_rules! deliver {
            ($value:expr) => {{
                let value = $value;
                return match self.deliver(stack, *frame, *tail, value) {
                    None => Flow::Go,
                    Some(exit) => Flow::Exit(exit),
                };
            }};
        }
        let mem = self.mem;
        loop {
            let nf = *frame;
            let callee = stack[nf + 1];
            if let Some(closure) = callee.as_closure() {
                let code = code_of(mem, callee);
                let meta = mem.element(code, code::META).bits();
                let arity = code::arity(meta);
                if arity == code::CASE {
                    let chosen = (1..closure.len()).map(|index| mem.element(closure, index)).find(
                        |&clause| {
                            let code = code_of(mem, clause);
                            accepts(code::arity(mem.element(code, code::META).bits()), *count)
                        },
                    );
                    match chosen {
                        Some(clause) => stack[nf + 1] = clause,
                        None => return Flow::Trap(wrong_count(mem, callee, *count)),
                    }
                    continue;
                }
                if !accepts(arity, *count) {
                    return Flow::Trap(wrong_count(mem, callee, *count));
                }
                let least = (arity & !code::REST) as usize;
                let rest = if arity & code::REST != 0 {
                    Some(check!(mem.list(&stack[nf + 2 + least..nf + 2 + *count])))
                } else {
                    None
                };
                let size = code::frame(meta);
                let words = 2 + least + usize::from(rest.is_some());
                let target = if *tail { self.fp } else { nf };
                let back = if *tail { stack[self.fp] } else { return_word(self.pc, nf - self.fp) };
                let mut at = target;
                if target + size > STACK {
                    if back != Value::UNDERFLOW {
                        check!(self.spill(stack, target, back));
                    }
                    at = 0;
                    stack[0] = Value::UNDERFLOW;
                } else {
                    stack[target] = back;
                }
                if let Some(rest) = rest {
                    stack[nf + 2 + least] = rest;
                }
                stack.copy_within(nf + 1..nf + words, at + 1);
                self.fp = at;
                self.code = code;
                self.pc = code::entry(meta);
                return Flow::Go;
            }
            if let Some(number) = callee.as_primitive() {
                let builtin = &mem.world().builtins()[number];
                if !builtin.takes(*count) {
                    return Flow::Trap(error_of(
                        "arity",
                        format!("{}: {}, not {}", builtin.name, builtin.wants(), *count),
                        &[],
                    ));
                }
                let Some(control) = builtin.control else {
                    let value = check!(
                        (builtin.native)(mem, &stack[nf + 2..nf + 2 + *count])
                            .map_err(|trap| with_name(builtin.name, trap))
                    );
                    deliver!(value);
                };
                match control {
                    Control::Apply => {
                        let last = stack[nf + 1 + *count];
                        let Some(spread) = mem.elements(last) else {
                            return Flow::Trap(wrong_type("a list", last));
                        };
                        let fixed = *count - 2;
                        let total = fixed + spread.len();
                        if nf + 2 + total > STACK {
                            let far =
                                check!(self.apply_many(stack, nf, fixed, &spread, frame, tail));
                            *count = far;
                            if let Some(done) = self.take_native_result() {
                                deliver!(done);
                            }
                            continue;
                        }
                        stack[nf + 1] = stack[nf + 2];
                        stack.copy_within(nf + 3..nf + 3 + fixed, nf + 2);
                        stack[nf + 2 + fixed..nf + 2 + total].copy_from_slice(&spread);
                        *count = total;
                    }
                    Control::ApplyValues => {
                        let (consumer, values) = (stack[nf + 2], stack[nf + 3]);
                        stack[nf + 1] = consumer;
                        if let Some(many) = mem.object::<MultipleValues>(values) {
                            let many: &MultipleValues = &many;
                            let list = many.list.load(mem.scope()).into();
                            let spread = mem.elements(list).expect("values are a list");
                            if nf + 2 + spread.len() > STACK {
                                return Flow::Trap(error("too many values", &[]));
                            }
                            stack[nf + 2..nf + 2 + spread.len()].copy_from_slice(&spread);
                            *count = spread.len();
                        } else {
                            stack[nf + 2] = values;
                            *count = 1;
                        }
                    }
                    Control::CallCc => {
                        let (base, back) = if *tail {
                            (self.fp, stack[self.fp])
                        } else {
                            (nf, return_word(self.pc, nf - self.fp))
                        };
                        // Both objects first, then the change: this may be done again.
                        let (segment, top, back) = if back == Value::UNDERFLOW {
                            (self.segment, self.top, self.back)
                        } else if base == 0 {
                            (self.segment, self.top, back)
                        } else {
                            (check!(self.make_segment(stack, base)), base + 3, back)
                        };
                        let zero = || firn::Tagged::new(0);
                        let empty = Continuation {
                            segment: zero(),
                            top,
                            back: zero(),
                            winders: zero(),
                            handlers: zero(),
                            parameters: zero(),
                        };
                        let this = &*self;
                        let continuation = check!(mem.make(empty, |k| {
                            k.set(&k.segment, segment.into());
                            k.set(&k.back, back.into());
                            k.set(&k.winders, this.winders.into());
                            k.set(&k.handlers, this.handlers.into());
                            k.set(&k.parameters, this.parameters.into());
                        }));
                        (self.segment, self.top, self.back) = (segment, top, back);
                        let receiver = stack[nf + 2];
                        // The callee's frame is the lowest from here on, and replaces none.
                        stack[0] = Value::UNDERFLOW;
                        self.fp = 0;
                        *frame = 0;
                        *tail = true;
                        let nf = 0;
                        stack[nf + 2] = receiver;
                        stack[nf + 1] = stack[nf + 2];
                        stack[nf + 2] = continuation;
                        *count = 1;
                    }
                    Control::Throw => {
                        // (%throw continuation list): no winding.
                        let (k, values) = (stack[nf + 2], stack[nf + 3]);
                        let Some(values) = mem.elements(values) else {
                            return Flow::Trap(wrong_type("a list", values));
                        };
                        let Some(k) = mem.object::<Continuation>(k) else {
                            return Flow::Trap(wrong_type("a continuation", k));
                        };
                        let value = check!(multiple(mem, &values));
                        return match self.throw(stack, k, value) {
                            None => Flow::Go,
                            Some(exit) => Flow::Exit(exit),
                        };
                    }
                    Control::Winders => deliver!(self.winders),
                    Control::SetWinders => {
                        self.winders = stack[nf + 2];
                        deliver!(Value::UNSPECIFIED)
                    }
                    Control::Handlers => deliver!(self.handlers),
                    Control::SetHandlers => {
                        self.handlers = stack[nf + 2];
                        deliver!(Value::UNSPECIFIED)
                    }
                    Control::Parameters => deliver!(self.parameters),
                    Control::SetParameters => {
                        self.parameters = stack[nf + 2];
                        deliver!(Value::UNSPECIFIED)
                    }
                    Control::CurrentThread => {
                        deliver!(mem.element(self.registers, register::THREAD))
                    }
                    Control::Uncaught => {
                        let object = stack[nf + 2];
                        return Flow::Exit(self.uncaught(stack, object));
                    }
                    Control::Trace => {
                        let lines = self.trace(stack);
                        let mut strings = Vec::new();
                        for line in &lines {
                            strings.push(check!(mem.string(line)));
                        }
                        deliver!(check!(mem.list(&strings)))
                    }
                }
                continue;
            }
            if let Some(k) = mem.object::<Continuation>(callee) {
                let winders: Value<'m> = {
                    let k: &Continuation = &k;
                    k.winders.load(mem.scope()).into()
                };
                if winders == self.winders {
                    let value = check!(multiple(mem, &stack[nf + 2..nf + 2 + *count]));
                    return match self.throw(stack, k, value) {
                        None => Flow::Go,
                        Some(exit) => Flow::Exit(exit),
                    };
                }
                let list = check!(mem.list(&stack[nf + 2..nf + 2 + *count]));
                stack[nf + 1] = self.hook(register::REWIND);
                stack[nf + 2] = callee;
                stack[nf + 3] = list;
                *count = 2;
                continue;
            }
            if let Some(parameter) = mem.object::<Parameter>(callee) {
                if *count != 0 {
                    return Flow::Trap(error("a parameter takes no arguments", &[]));
                }
                let mut bindings = self.parameters;
                while let Some(pair) = bindings.as_pair() {
                    if let Some(binding) = mem.car(pair).as_pair()
                        && mem.car(binding) == callee
                    {
                        deliver!(cell_value(mem, mem.cdr(binding)));
                    }
                    bindings = mem.cdr(pair);
                }
                let parameter: &Parameter = &parameter;
                let value: Value<'m> = parameter.value.load(mem.scope()).into();
                deliver!(value);
            }
            return Flow::Trap(error_of("type", "not a procedure", &[callee]));
        }
    }

    fn hook(&self, register: usize) -> Value<'m> {
        cell_value(self.mem, self.mem.element(self.registers, register))
    }

    fn take_native_result(&mut self) -> Option<Value<'m>> {
        match self.spare.take() {
            Some(Spare { value, left: NATIVE_RESULT }) => Some(value),
            other => {
                self.spare.set(other);
                None
            }
        }
    }

    /// `apply` with more arguments than the stack has room for: a builtin takes them from a list made here, a
    /// closure with a rest parameter gets that list.
    fn apply_many(
        &mut self,
        stack: Stack<'_, 'm>,
        nf: usize,
        fixed: usize,
        spread: &[Value<'m>],
        frame: &mut usize,
        tail: &mut bool,
    ) -> crate::trap::Result<'m, usize> {
        let mem = self.mem;
        let callee = stack[nf + 2];
        let mut all = stack[nf + 3..nf + 3 + fixed].to_vec();
        all.extend_from_slice(spread);
        if let Some(number) = callee.as_primitive() {
            let builtin = &mem.world().builtins()[number];
            if builtin.control.is_none() && builtin.takes(all.len()) {
                let value =
                    (builtin.native)(mem, &all).map_err(|trap| with_name(builtin.name, trap))?;
                self.spare.set(Some(Spare { value, left: NATIVE_RESULT }));
                return Ok(all.len());
            }
        }
        if callee.as_closure().is_some() {
            let code = code_of(mem, callee);
            let meta = mem.element(code, code::META).bits();
            let arity = code::arity(meta);
            let least = (arity & !code::REST) as usize;
            if arity != code::CASE && arity & code::REST != 0 && least < 100 && all.len() >= least {
                // The frame is made here: the general way would want the arguments on the stack.
                let rest = mem.list(&all[least..])?;
                let back = if *tail { stack[self.fp] } else { return_word(self.pc, nf - self.fp) };
                let base = if *tail { self.fp } else { nf };
                if back != Value::UNDERFLOW {
                    self.spill(stack, base, back)?;
                }
                stack[0] = Value::UNDERFLOW;
                stack[1] = callee;
                stack[2..2 + least].copy_from_slice(&all[..least]);
                stack[2 + least] = rest;
                self.fp = 0;
                self.code = code;
                self.pc = code::entry(meta);
                // Entered already: what remains to be done is a call of something that returns at once.
                *frame = code::frame(meta);
                *tail = false;
                let here = *frame;
                stack[here + 1] = Value::primitive(mem.world().number_of("void") as u32);
                return Ok(0);
            }
        }
        Err(error("apply: too many arguments", &[callee]))
    }

    /// Makes `k` the continuation, and returns `value` to it.
    fn throw(
        &mut self,
        stack: Stack<'_, 'm>,
        k: firn::Gc<'m, Continuation>,
        value: Value<'m>,
    ) -> Option<Exit> {
        let k: &Continuation = &k;
        let scope = self.mem.scope();
        self.segment = k.segment.load(scope).into();
        self.top = k.top;
        self.back = k.back.load(scope).into();
        self.winders = k.winders.load(scope).into();
        self.handlers = k.handlers.load(scope).into();
        self.parameters = k.parameters.load(scope).into();
        self.underflow(stack, value)
    }

    /// Looks up: has anybody else a wish?
    #[cold]
    #[inline(never)]
    fn attention(&self) -> Option<Exit> {
        use std::sync::atomic::Ordering::Relaxed;
        if self.mem.world().interrupted.load(Relaxed) {
            return Some(Exit::Interrupted);
        }
        if self.terminated.load(Relaxed) {
            return Some(Exit::Terminated);
        }
        self.mem.safepoint_wanted().then_some(Exit::Poll)
    }

    /// Executes instructions. Whatever is not usual is left to the slow ways above.
    fn execute<const ONCE: bool>(&mut self, stack: Stack<'_, 'm>) -> Flow<'m> {
        let mem = self.mem;
        let mut done = false;
        let mut fp = self.fp;
        let mut pc = self.pc;
        let mut code = self.code;
        let mut fuel = FUEL;
        macro_rules! r {
            ($index:expr) => {
                stack[fp + $index]
            };
        }
        macro_rules! store {
            () => {
                self.fp = fp;
                self.pc = pc;
                self.code = code;
            };
        }
        macro_rules! load {
            () => {
                fp = self.fp;
                pc = self.pc;
                code = self.code;
            };
        }
        macro_rules! trap {
            ($trap:expr) => {{
                let trap = $trap;
                store!();
                return Flow::Trap(trap);
            }};
        }
        macro_rules! check {
            ($result:expr) => {
                match $result {
                    Ok(value) => value,
                    Err(trap) => trap!(trap),
                }
            };
        }
        macro_rules! jump {
            ($offset:expr) => {
                pc = pc.wrapping_add_signed($offset)
            };
        }
        macro_rules! look_up {
            () => {
                fuel -= 1;
                if fuel == 0 {
                    fuel = FUEL;
                    if let Some(exit) = self.attention() {
                        store!();
                        return Flow::Exit(exit);
                    }
                }
            };
        }
        macro_rules! slow_call {
            ($nf:expr, $count:expr, $tail:expr) => {{
                store!();
                if let Some(exit) = self.enter_or_handle(stack, $nf, $count, $tail) {
                    return Flow::Exit(exit);
                }
                load!();
            }};
        }
        macro_rules! call {
            ($callee:expr, $word:expr) => {{
                let callee: Value<'m> = $callee;
                let (base, count) = (a($word), b($word));
                let nf = fp + base;
                stack[nf + 1] = callee;
                if let Some(closure) = callee.as_closure()
                    && let Some(target) = mem.element(closure, 0).as_vector()
                {
                    let meta = mem.element(target, code::META).bits();
                    if code::arity(meta) as usize == count && nf + code::frame(meta) <= STACK {
                        stack[nf] = return_word(pc, base);
                        fp = nf;
                        code = target;
                        pc = code::entry(meta);
                        look_up!();
                        continue;
                    }
                }
                slow_call!(nf, count, false);
            }};
        }
        macro_rules! tail_call {
            ($callee:expr, $word:expr) => {{
                let callee: Value<'m> = $callee;
                let (base, count) = (a($word), b($word));
                let nf = fp + base;
                stack[nf + 1] = callee;
                if let Some(closure) = callee.as_closure()
                    && let Some(target) = mem.element(closure, 0).as_vector()
                {
                    let meta = mem.element(target, code::META).bits();
                    if code::arity(meta) as usize == count && fp + code::frame(meta) <= STACK {
                        stack[fp + 1] = callee;
                        for index in 0..count {
                            stack[fp + 2 + index] = stack[nf + 2 + index];
                        }
                        code = target;
                        pc = code::entry(meta);
                        look_up!();
                        continue;
                    }
                }
                slow_call!(nf, count, true);
            }};
        }
        macro_rules! arithmetic {
            ($word:expr, $checked:ident, $float:tt, $general:path) => {{
                let (x, y) = (r!(b($word)), r!(c($word)));
                let value = if (x.bits() | y.bits()) & 7 == 0
                    && let Some(sum) = (x.bits() as i64).$checked(y.bits() as i64)
                {
                    Value::from_fixnum_bits(sum as u64)
                } else if let (Some(x), Some(y)) = (x.as_flonum(), y.as_flonum()) {
                    check!(mem.flonum(x $float y))
                } else {
                    check!($general(mem, x, y))
                };
                r!(a($word)) = value;
            }};
        }
        macro_rules! compare {
            ($word:expr, $x:expr, $y:expr, $op:tt, $ordering:pat, $wanted:expr) => {{
                let (x, y): (Value<'m>, Value<'m>) = ($x, $y);
                let holds = if (x.bits() | y.bits()) & 7 == 0 {
                    (x.bits() as i64) $op (y.bits() as i64)
                } else if let (Some(x), Some(y)) = (x.as_flonum(), y.as_flonum()) {
                    x $op y
                } else {
                    matches!(check!(numbers::compare(mem, x, y)), Some($ordering))
                };
                if holds == $wanted {
                    jump!(signed_c($word));
                }
            }};
        }
        macro_rules! pair {
            ($value:expr) => {{
                let value: Value<'m> = $value;
                match value.as_pair() {
                    Some(pair) => pair,
                    None => trap!(wrong_type("a pair", value)),
                }
            }};
        }
        loop {
            if ONCE {
                if done {
                    store!();
                    return Flow::Go;
                }
                done = true;
            }
            let word = mem.element(code, pc).bits();
            pc += 1;
            match op(word) {
                MOVE => r!(a(word)) = r!(b(word)),
                CONST => r!(a(word)) = mem.element(code, c(word)),
                INT => r!(a(word)) = Value::fixnum(bc(word) as i64),
                FREE => {
                    if let Some(closure) = r!(1).as_closure() {
                        r!(a(word)) = mem.element(closure, b(word) + 1);
                    }
                }
                CELL_REF | FREE_CELL_REF => {
                    let cell = if op(word) == CELL_REF {
                        r!(b(word))
                    } else if let Some(closure) = r!(1).as_closure() {
                        mem.element(closure, b(word) + 1)
                    } else {
                        Value::UNBOUND
                    };
                    let value = cell_value(mem, cell);
                    if value == Value::UNBOUND {
                        trap!(error("a variable is used before its definition", &[]));
                    }
                    r!(a(word)) = value;
                }
                CELL_SET | FREE_CELL_SET => {
                    let cell = if op(word) == CELL_SET {
                        r!(a(word))
                    } else if let Some(closure) = r!(1).as_closure() {
                        mem.element(closure, a(word) + 1)
                    } else {
                        Value::UNBOUND
                    };
                    if let Some(cell) = cell.as_cell() {
                        cell.value.store(mem.scope(), r!(b(word)).into());
                    }
                }
                CELL_NEW => r!(a(word)) = check!(mem.cell(r!(b(word)), Value::FALSE)),
                GLOBAL => {
                    let cell = mem.element(code, c(word));
                    let value = cell_value(mem, cell);
                    if value == Value::UNBOUND {
                        trap!(unbound(mem, cell));
                    }
                    r!(a(word)) = value;
                }
                GLOBAL_SET | GLOBAL_DEFINE => {
                    let cell = mem.element(code, c(word));
                    if op(word) == GLOBAL_SET && cell_value(mem, cell) == Value::UNBOUND {
                        trap!(unbound(mem, cell));
                    }
                    if let Some(cell) = cell.as_cell() {
                        cell.value.store(mem.scope(), r!(a(word)).into());
                    }
                }
                CLOSURE => {
                    let count = b(word);
                    let captured = |index: usize| {
                        let which = mem.element(code, pc + index - 1).bits();
                        if b(which) == 0 {
                            stack[fp + a(which)]
                        } else {
                            match stack[fp + 1].as_closure() {
                                Some(closure) => mem.element(closure, a(which) + 1),
                                None => Value::UNBOUND,
                            }
                        }
                    };
                    let target = mem.element(code, c(word));
                    let made =
                        mem.array(
                            count + 1,
                            |index| if index == 0 { target } else { captured(index) },
                        );
                    r!(a(word)) = Value::closure(check!(made));
                    pc += count;
                }
                CLOSURE_PATCH => {
                    if let Some(closure) = r!(a(word)).as_closure() {
                        closure.store(mem.scope(), b(word) + 1, r!(c(word)).into());
                    }
                }
                JUMP => jump!(bc(word)),
                LOOP => {
                    jump!(bc(word));
                    look_up!();
                }
                JUMP_IF_FALSE => {
                    if !r!(a(word)).is_true() {
                        jump!(bc(word));
                    }
                }
                JUMP_IF_TRUE => {
                    if r!(a(word)).is_true() {
                        jump!(bc(word));
                    }
                }
                JUMP_IF_NULL => {
                    if r!(a(word)).is_nil() {
                        jump!(bc(word));
                    }
                }
                JUMP_UNLESS_NULL => {
                    if !r!(a(word)).is_nil() {
                        jump!(bc(word));
                    }
                }
                JUMP_IF_PAIR => {
                    if r!(a(word)).is_pair() {
                        jump!(bc(word));
                    }
                }
                JUMP_UNLESS_PAIR => {
                    if !r!(a(word)).is_pair() {
                        jump!(bc(word));
                    }
                }
                JUMP_IF_EQ => {
                    if r!(a(word)) == r!(b(word)) {
                        jump!(signed_c(word));
                    }
                }
                JUMP_UNLESS_EQ => {
                    if r!(a(word)) != r!(b(word)) {
                        jump!(signed_c(word));
                    }
                }
                JUMP_IF_EQ_CONST => {
                    if r!(a(word)) == mem.element(code, b(word)) {
                        jump!(signed_c(word));
                    }
                }
                JUMP_UNLESS_EQ_CONST => {
                    if r!(a(word)) != mem.element(code, b(word)) {
                        jump!(signed_c(word));
                    }
                }
                JUMP_IF_LT => compare!(word, r!(a(word)), r!(b(word)), <, Ordering::Less, true),
                JUMP_UNLESS_LT => {
                    compare!(word, r!(a(word)), r!(b(word)), <, Ordering::Less, false)
                }
                JUMP_IF_LE => {
                    compare!(word, r!(a(word)), r!(b(word)), <=, Ordering::Less | Ordering::Equal, true);
                }
                JUMP_UNLESS_LE => {
                    compare!(word, r!(a(word)), r!(b(word)), <=, Ordering::Less | Ordering::Equal, false);
                }
                JUMP_IF_NUM_EQ => {
                    compare!(word, r!(a(word)), r!(b(word)), ==, Ordering::Equal, true)
                }
                JUMP_UNLESS_NUM_EQ => {
                    compare!(word, r!(a(word)), r!(b(word)), ==, Ordering::Equal, false)
                }
                JUMP_IF_LT_INT => {
                    compare!(word, r!(a(word)), Value::fixnum(signed_b(word)), <, Ordering::Less, true);
                }
                JUMP_UNLESS_LT_INT => {
                    compare!(word, r!(a(word)), Value::fixnum(signed_b(word)), <, Ordering::Less, false);
                }
                JUMP_IF_GT_INT => {
                    compare!(word, r!(a(word)), Value::fixnum(signed_b(word)), >, Ordering::Greater, true);
                }
                JUMP_UNLESS_GT_INT => {
                    compare!(word, r!(a(word)), Value::fixnum(signed_b(word)), >, Ordering::Greater, false);
                }
                JUMP_IF_NUM_EQ_INT => {
                    compare!(word, r!(a(word)), Value::fixnum(signed_b(word)), ==, Ordering::Equal, true);
                }
                JUMP_UNLESS_NUM_EQ_INT => {
                    compare!(word, r!(a(word)), Value::fixnum(signed_b(word)), ==, Ordering::Equal, false);
                }
                CALL => call!(r!(a(word) + 1), word),
                CALL_GLOBAL => {
                    let cell = mem.element(code, c(word));
                    let callee = cell_value(mem, cell);
                    if callee == Value::UNBOUND {
                        trap!(unbound(mem, cell));
                    }
                    call!(callee, word);
                }
                TAIL_CALL => tail_call!(r!(a(word) + 1), word),
                TAIL_CALL_GLOBAL => {
                    let cell = mem.element(code, c(word));
                    let callee = cell_value(mem, cell);
                    if callee == Value::UNBOUND {
                        trap!(unbound(mem, cell));
                    }
                    tail_call!(callee, word);
                }
                RETURN => {
                    let value = r!(a(word));
                    let back = stack[fp];
                    if let Some(back) = back.as_fixnum() {
                        stack[fp] = value;
                        fp -= back as usize & 0xffff;
                        pc = back as usize >> 16;
                        if let Some(closure) = stack[fp + 1].as_closure()
                            && let Some(caller) = mem.element(closure, 0).as_vector()
                        {
                            code = caller;
                        }
                    } else {
                        if let Some(exit) = self.underflow(stack, value) {
                            // The frame is done with; what is saved of it does not matter.
                            return Flow::Exit(exit);
                        }
                        load!();
                    }
                }
                BUILTIN => {
                    let builtin = &mem.world().builtins()[b(word)];
                    let at = fp + a(word);
                    match (builtin.native)(mem, &stack[at..at + c(word)]) {
                        Ok(value) => stack[at] = value,
                        Err(trap) => trap!(with_name(builtin.name, trap)),
                    }
                }
                CAR => r!(a(word)) = mem.car(pair!(r!(b(word)))),
                CDR => r!(a(word)) = mem.cdr(pair!(r!(b(word)))),
                CAAR => r!(a(word)) = mem.car(pair!(mem.car(pair!(r!(b(word)))))),
                CADR => r!(a(word)) = mem.car(pair!(mem.cdr(pair!(r!(b(word)))))),
                CDAR => r!(a(word)) = mem.cdr(pair!(mem.car(pair!(r!(b(word)))))),
                CDDR => r!(a(word)) = mem.cdr(pair!(mem.cdr(pair!(r!(b(word)))))),
                CONS => r!(a(word)) = check!(mem.cons(r!(b(word)), r!(c(word)))),
                SET_CAR => pair!(r!(a(word))).car.store(mem.scope(), r!(b(word)).into()),
                SET_CDR => pair!(r!(a(word))).cdr.store(mem.scope(), r!(b(word)).into()),
                ADD => arithmetic!(word, checked_add, +, numbers::add),
                SUB => arithmetic!(word, checked_sub, -, numbers::sub),
                MUL => {
                    let (x, y) = (r!(b(word)), r!(c(word)));
                    let value = if (x.bits() | y.bits()) & 7 == 0
                        && let Some(product) = (x.bits() as i64 >> 3).checked_mul(y.bits() as i64)
                    {
                        Value::from_fixnum_bits(product as u64)
                    } else if let (Some(x), Some(y)) = (x.as_flonum(), y.as_flonum()) {
                        check!(mem.flonum(x * y))
                    } else {
                        check!(numbers::mul(mem, x, y))
                    };
                    r!(a(word)) = value;
                }
                ADD_INT => {
                    let x = r!(b(word));
                    let y = Value::fixnum(signed_c(word) as i64);
                    let value = if x.is_fixnum()
                        && let Some(sum) = (x.bits() as i64).checked_add(y.bits() as i64)
                    {
                        Value::from_fixnum_bits(sum as u64)
                    } else if let Some(x) = x.as_flonum() {
                        check!(mem.flonum(x + signed_c(word) as f64))
                    } else {
                        check!(numbers::add(mem, x, y))
                    };
                    r!(a(word)) = value;
                }
                QUOTIENT | REMAINDER | MODULO => {
                    let (x, y) = (r!(b(word)), r!(c(word)));
                    let value = if let (Some(x), Some(y)) = (x.as_fixnum(), y.as_fixnum())
                        && y != 0
                        && y != -1
                    {
                        Value::fixnum(match op(word) {
                            QUOTIENT => x / y,
                            REMAINDER => x % y,
                            _ => {
                                let remainder = x % y;
                                if remainder != 0 && (remainder < 0) != (y < 0) {
                                    remainder + y
                                } else {
                                    remainder
                                }
                            }
                        })
                    } else {
                        check!(match op(word) {
                            QUOTIENT => numbers::quotient(mem, x, y),
                            REMAINDER => numbers::remainder(mem, x, y),
                            _ => numbers::modulo(mem, x, y),
                        })
                    };
                    r!(a(word)) = value;
                }
                VECTOR_REF => {
                    let (vector, index) = (r!(b(word)), r!(c(word)));
                    let Some(array) = vector.as_vector() else {
                        trap!(wrong_type("a vector", vector))
                    };
                    match index.as_fixnum() {
                        Some(at) if (at as usize) < array.len() => {
                            r!(a(word)) = mem.element(array, at as usize)
                        }
                        Some(_) => trap!(out_of_range("vector index", index)),
                        None => trap!(wrong_type("an index", index)),
                    }
                }
                VECTOR_SET => {
                    let (vector, index) = (r!(a(word)), r!(b(word)));
                    let Some(array) = vector.as_vector() else {
                        trap!(wrong_type("a vector", vector))
                    };
                    match index.as_fixnum() {
                        Some(at) if (at as usize) < array.len() => {
                            array.store(mem.scope(), at as usize, r!(c(word)).into());
                        }
                        Some(_) => trap!(out_of_range("vector index", index)),
                        None => trap!(wrong_type("an index", index)),
                    }
                }
                VECTOR_LENGTH => {
                    let vector = r!(b(word));
                    let Some(array) = vector.as_vector() else {
                        trap!(wrong_type("a vector", vector))
                    };
                    r!(a(word)) = Value::fixnum(array.len() as i64);
                }
                STRING_REF => {
                    let (string, index) = (r!(b(word)), r!(c(word)));
                    let Some(text) = mem.object::<StringObject>(string) else {
                        trap!(wrong_type("a string", string))
                    };
                    match index.as_fixnum() {
                        Some(at) if (at as usize) < text.len() => {
                            r!(a(word)) = Value::char(
                                char::from_u32(text.get(at as usize)).unwrap_or('\u{fffd}'),
                            );
                        }
                        Some(_) => trap!(out_of_range("string index", index)),
                        None => trap!(wrong_type("an index", index)),
                    }
                }
                other => bad_instruction(other),
            }
        }
    }
}

/// Calls and loop rounds between two looks at what others want.
const FUEL: u32 = 256;

const NATIVE_RESULT: usize = usize::MAX - 1;

#[cold]
#[inline(never)]
fn bad_instruction(op: u8) -> ! {
    panic!("{op} is no instruction: the compiler is broken")
}

#[inline(always)]
fn cell_value<'m>(mem: Mem<'m, '_>, cell: Value<'m>) -> Value<'m> {
    match cell.as_cell() {
        Some(cell) => {
            let cell: &Cell = &cell;
            cell.value.load(mem.scope()).into()
        }
        None => Value::UNBOUND,
    }
}

fn accepts(arity: u16, count: usize) -> bool {
    let least = (arity & !code::REST) as usize;
    if arity & code::REST != 0 { count >= least } else { count == least }
}

#[cold]
#[inline(never)]
fn unbound<'m>(mem: Mem<'m, '_>, cell: Value<'m>) -> Trap<'m> {
    let name = cell.as_cell().and_then(|cell| {
        let cell: &Cell = &cell;
        Value::from(cell.name.load(mem.scope())).as_symbol()
    });
    let name = name.map_or_else(|| "?".to_string(), |name| name.name().to_string());
    error_of("unbound", format!("unbound variable: {name}"), &[])
}

#[cold]
#[inline(never)]
fn wrong_count<'m>(mem: Mem<'m, '_>, callee: Value<'m>, count: usize) -> Trap<'m> {
    let code = code_of(mem, callee);
    let name = mem.element(code, code::NAME).as_symbol().map(|name| name.name().to_string());
    let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| "a procedure".to_string());
    let arity = code::arity(mem.element(code, code::META).bits());
    let least = (arity & !code::REST) as usize;
    let wants = match arity {
        code::CASE => "has no clause for so many arguments".to_string(),
        _ if arity & code::REST != 0 => format!("takes {least} or more arguments"),
        _ => format!("takes {least} argument{}", if least == 1 { "" } else { "s" }),
    };
    error_of("arity", format!("{name}: {wants}, not {count}"), &[])
}

/// The procedure that an instruction is, for messages.
fn name_of(op: u8) -> Option<&'static str> {
    Some(match op {
        CAR => "car",
        CDR => "cdr",
        CAAR => "caar",
        CADR => "cadr",
        CDAR => "cdar",
        CDDR => "cddr",
        SET_CAR => "set-car!",
        SET_CDR => "set-cdr!",
        ADD | ADD_INT => "+",
        SUB => "-",
        MUL => "*",
        QUOTIENT => "quotient",
        REMAINDER => "remainder",
        MODULO => "modulo",
        VECTOR_REF => "vector-ref",
        VECTOR_SET => "vector-set!",
        VECTOR_LENGTH => "vector-length",
        STRING_REF => "string-ref",
        _ => return None,
    })
}

/// Puts the builtin's name before an error's message.
#[cold]
#[inline(never)]
fn with_name<'m>(name: &str, mut trap: Trap<'m>) -> Trap<'m> {
    if let TrapKind::Error { message, .. } = &mut *trap.0 {
        let name = name.strip_prefix('%').unwrap_or(name);
        *message = format!("{name}: {message}");
    }
    trap
}

/// One value as itself, several as an object.
pub fn multiple<'m>(mem: Mem<'m, '_>, values: &[Value<'m>]) -> crate::trap::Result<'m> {
    if let [value] = values {
        return Ok(*value);
    }
    let list = mem.list(values)?;
    mem.make(MultipleValues { list: firn::Tagged::new(0) }, |many| {
        many.set(&many.list, list.into())
    })
}

/// Where instruction `pc` of a code object (or the one before it) comes from.
pub fn place_of<'m>(mem: Mem<'m, '_>, code: Array<'m>, pc: usize) -> Option<String> {
    let places = mem.element(code, code::PLACES).as_vector()?;
    let file = mem.element(places, 0).as_symbol()?.name();
    let mut found = None;
    for index in (1..places.len().saturating_sub(1)).step_by(2) {
        let at = mem.element(places, index).as_index()?;
        if at >= pc {
            break;
        }
        found = mem.element(places, index + 1).as_index();
    }
    let found = found?;
    Some(format!("{file}:{}:{}", found >> 16, found & 0xffff))
}
