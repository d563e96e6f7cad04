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
use crate::compile::ops::*;
use crate::mem::Mem;
use crate::object::{Cell, Condition};
use crate::trap::{Trap, TrapKind, error_of};
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
        let trace = self.trace(stack);
        self.registers.store(self.mem.scope(), register::RESULT, object.into());
        Exit::Uncaught { message, trace }
    }

    /// Names and places of the innermost frames.
    pub(super) fn trace(&self, stack: &[Value<'m>]) -> Vec<String> {
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
                    fp -= frame_below(word as usize);
                }
                _ => break,
            }
        }
        let (mut segment, mut top, mut back) = (self.segment, self.top, self.back);
        while let (Some(frames), Some(word)) = (segment.as_vector(), back.as_fixnum()) {
            let base = top - frame_below(word as usize);
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
pub(super) fn with_name<'m>(name: &str, mut trap: Trap<'m>) -> Trap<'m> {
    if let TrapKind::Error { message, .. } = &mut *trap.0 {
        let name = name.strip_prefix('%').unwrap_or(name);
        *message = format!("{name}: {message}");
    }
    trap
}

/// Where instruction `pc` of a code object (or the one before it) comes from.
fn place_of<'m>(mem: Mem<'m, '_>, code: Array<'m>, pc: usize) -> Option<String> {
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
