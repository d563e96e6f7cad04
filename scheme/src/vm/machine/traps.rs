//! What cannot be done at once: the ends of stretches, and errors.
//!
//! A trap leaves the machine as it was before the instruction or the call that trapped. [`Machine::handle`] makes of
//! it either an exit, after which the same is done again or the result of what was done outside is delivered, or an
//! error object, with which the procedure that raises errors is called. Nothing here runs in a program that is neither
//! wrong nor out of room, so all of it may be slow; it must not lose the place of the error, which is that of the
//! instruction before the next one.
//!
//! Called by the machine where it executes and enters; the traces also by the builtin procedures for them.

use super::execute::frame_below;
use super::{Exit, Machine, Resume, Stack, register};
use crate::builtins::control::condition_of;
use crate::compile::ops::*;
use crate::mem::Mem;
use crate::object::{Cell, Condition};
use crate::trap::{Trap, TrapKind, error_of, named, shortened};
use crate::value::{Array, Value};

impl<'m> Machine<'m, '_, '_> {
    /// What a trap means: an exit after which `retry` is done, or an error to be raised.
    pub(super) fn handle(
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
            TrapKind::Long { work, name } => {
                self.pc += usize::from(at_instruction);
                self.state.resume = deliver;
                Some(Exit::Outside(Box::new(move |vm| vm.compute(work, name))))
            }
            TrapKind::Exit(exit) => Some(Exit::Quit(exit)),
            TrapKind::Raise(object) => {
                self.pc += usize::from(at_instruction);
                self.raise(stack, object, free)
            }
            TrapKind::Error { kind, message, irritants } => {
                let pc = self.pc + usize::from(at_instruction);
                match self.condition(stack, pc, kind, &message, &irritants) {
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
        stack: &[Value<'m>],
        pc: usize,
        kind: &str,
        message: &str,
        irritants: &[Value<'m>],
    ) -> crate::trap::Result<'m> {
        let trace = self.trace(stack, pc)?;
        condition_of(self.mem, kind, &shortened(message), irritants, trace)
    }

    /// Notes where an error object comes from that was made outside of the machine. If there is no room it goes without.
    pub(super) fn note_trace(&self, stack: &[Value<'m>], object: Value<'m>) {
        let end_of_memory = self.mem.element(self.registers, register::OUT_OF_MEMORY);
        if object != end_of_memory
            && let Some(condition) = self.mem.object::<Condition>(object)
            && let Ok(trace) = self.trace(stack, self.pc)
        {
            condition.trace.store(self.mem.scope(), trace.into());
        }
    }

    /// Calls the procedure that raises errors, with a frame at `free`.
    pub(super) fn raise(
        &mut self,
        stack: Stack<'_, 'm>,
        object: Value<'m>,
        free: usize,
    ) -> Option<Exit> {
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
    pub(super) fn uncaught(&mut self, stack: &[Value<'m>], object: Value<'m>) -> Exit {
        let message = crate::print::describe_error(self.mem, object);
        let mut trace = Vec::new();
        // What ended another thread comes first: that is where the error is.
        for object in [reason(self.mem, object), Some(object)].into_iter().flatten() {
            if let Some(condition) = self.mem.object::<Condition>(object) {
                let condition: &Condition = &condition;
                trace.extend(trace_text(self.mem, condition.trace.load(self.mem.scope()).into()));
            }
        }
        if trace.is_empty() {
            let frames = self.frames(stack, self.pc);
            trace = frames.into_iter().filter_map(|(code, pc)| line(self.mem, code, pc)).collect();
        }
        self.registers.store(self.mem.scope(), register::RESULT, object.into());
        Exit::Uncaught { message, trace }
    }

    /// The innermost frames, as a vector of code and next instruction: [`trace_text`] makes words of it.
    pub(super) fn trace(&self, stack: &[Value<'m>], pc: usize) -> crate::trap::Result<'m> {
        let frames = self.frames(stack, pc);
        let array = self.mem.array(2 * frames.len(), |index| match frames[index / 2] {
            (code, _) if index % 2 == 0 => Value::vector(code),
            (_, pc) => Value::fixnum(pc as i64),
        })?;
        Ok(Value::vector(array))
    }

    /// Code and next instruction of the innermost frames.
    fn frames(&self, stack: &[Value<'m>], pc: usize) -> Vec<(Array<'m>, usize)> {
        const MOST: usize = 24;
        let mut frames = Vec::new();
        let mut note = |closure: Value<'m>, pc: usize| {
            let code = closure.as_closure().and_then(|c| self.mem.element(c, 0).as_vector());
            frames.extend(code.map(|code| (code, pc)));
        };
        let (mut fp, mut pc) = (self.fp, pc);
        let mut count = 0;
        loop {
            note(stack[fp + 1], pc);
            count += 1;
            match stack[fp].as_fixnum() {
                Some(word) if count < MOST => {
                    pc = word as usize >> 16;
                    fp -= frame_below(word as usize);
                }
                _ => break,
            }
        }
        let (mut segment, mut top, mut back) = (self.segment, self.top, self.back);
        while let (Some(frames), Some(word)) = (segment.as_vector(), back.as_fixnum()) {
            if count >= MOST {
                break;
            }
            let base = top - frame_below(word as usize);
            note(self.mem.element(frames, base + 1), word as usize >> 16);
            count += 1;
            let below = self.mem.element(frames, base);
            if below.is_fixnum() {
                (top, back) = (base, below);
            } else {
                segment = self.mem.element(frames, 0);
                top = self.mem.element(frames, 1).as_index().unwrap_or(0);
                back = self.mem.element(frames, 2);
            }
        }
        frames
    }
}

/// What ended the thread, if `object` says that one was ended by an uncaught exception.
fn reason<'m>(mem: Mem<'m, '_>, object: Value<'m>) -> Option<Value<'m>> {
    let condition = mem.object::<Condition>(object)?;
    let condition: &Condition = &condition;
    let kind: Value<'m> = condition.kind.load(mem.scope()).into();
    let irritants: Value<'m> = condition.irritants.load(mem.scope()).into();
    let uncaught = crate::symbol::Symbol::intern("uncaught");
    kind.as_symbol()
        .filter(|&kind| kind == uncaught)
        .and(irritants.as_pair())
        .map(|pair| mem.car(pair))
}

/// A trace in words: a line for each frame, but for those of the prelude.
pub fn trace_text<'m>(mem: Mem<'m, '_>, trace: Value<'m>) -> Vec<String> {
    let Some(trace) = trace.as_vector() else { return Vec::new() };
    let frame = |index| {
        let code = mem.element(trace, 2 * index).as_vector()?;
        line(mem, code, mem.element(trace, 2 * index + 1).as_index()?)
    };
    (0..trace.len() / 2).filter_map(frame).collect()
}

/// Name and place of a frame, if it is none of the prelude's.
fn line<'m>(mem: Mem<'m, '_>, code: Array<'m>, pc: usize) -> Option<String> {
    let name = mem.element(code, code::NAME).as_symbol().map(|s| s.name());
    let name = name.as_deref().filter(|name| !name.is_empty()).unwrap_or("(anonymous)");
    match place_of(mem, code, pc) {
        Some(place) if place.starts_with("prelude/") => None,
        Some(place) => Some(format!("{name} at {place}")),
        None => Some(name.to_string()),
    }
}

#[cold]
#[inline(never)]
pub(super) fn unbound<'m>(mem: Mem<'m, '_>, cell: Value<'m>) -> Trap<'m> {
    let name = cell.as_cell().and_then(|cell| {
        let cell: &Cell = &cell;
        Value::from(cell.name.load(mem.scope())).as_symbol()
    });
    let name = name.map_or_else(|| "?".to_string(), |name| name.name().to_string());
    error_of("unbound", format!("unbound variable: {name}"), &[])
}

/// The procedure that an instruction is, for messages.
pub(super) fn name_of(op: u8) -> Option<&'static str> {
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
pub(super) fn with_name<'m>(builtin: &'static str, mut trap: Trap<'m>) -> Trap<'m> {
    match &mut *trap.0 {
        TrapKind::Error { message, .. } => *message = named(builtin, message),
        TrapKind::Long { name, .. } => *name = Some(builtin),
        _ => {}
    }
    trap
}

/// Where instruction `pc` of a code object (or the one before it) comes from.
fn place_of<'m>(mem: Mem<'m, '_>, code: Array<'m>, pc: usize) -> Option<String> {
    let places = mem.element(code, code::PLACES).as_vector()?;
    let mut file = mem.element(places, 0).as_symbol()?;
    let mut found = None;
    for index in (1..places.len().saturating_sub(1)).step_by(2) {
        if mem.element(places, index).as_index()? >= pc {
            break;
        }
        match mem.element(places, index + 1).as_symbol() {
            Some(other) => file = other,
            None => found = mem.element(places, index + 1).as_index().map(|at| (file, at)),
        }
    }
    let (file, at) = found?;
    Some(format!("{}:{}:{}", file.name(), at >> 16, at & 0xffff))
}
