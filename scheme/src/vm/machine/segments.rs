//! Frames that left the stack: continuations, and returns into them.
//!
//! A *segment* is an array `[segment below, its top, its return word, frames...]` that is never changed after it is
//! made; so a continuation is only a position in one, (segment, top, return word), and any number of them may share
//! what lies below. Frames are moved out ([`Machine::spill`]) when the stack is full or the continuation is captured,
//! and come back, copied, when the lowest frame of the stack returns ([`Machine::underflow`]): one at first, then
//! twice as many each time, until somebody captures again. So a deep recursion comes back at the cost of a copy, and a
//! program that captures all the time does not move frames to and fro.
//!
//! Invariants: the lowest frame of the stack begins at 0 and has `UNDERFLOW` for its return word; `segment`,
//! `top` and `back` of the machine are changed together, and only after the allocations that can fail, because what
//! trapped is done again.
//!
//! Called by the ways in and out of procedures ([`super::enter`]) and by the instruction that returns.

use super::execute::frame_below;
use super::{Exit, Machine, Stack, code_of, register};
use crate::object::Continuation;
use crate::value::Value;

/// Most words of frames that come back at once: what is copied should be used before the stretch ends.
const MOST_ALONG: usize = 512;

impl<'m> Machine<'m, '_, '_> {
    /// Moves the frames below `base` into a segment; `back` is the return word of the frame at `base`. Afterwards
    /// that frame's return word must be `UNDERFLOW` and the frame be moved to 0.
    pub(super) fn spill(
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

    pub(super) fn make_segment(&self, stack: &[Value<'m>], base: usize) -> crate::trap::Result<'m> {
        let head = [self.segment, Value::fixnum(self.top as i64), self.back];
        let segment = self
            .mem
            .array(base + 3, |index| if index < 3 { head[index] } else { stack[index - 3] })?;
        Ok(Value::vector(segment))
    }

    /// Returns from the running frame.
    pub(super) fn return_value(&mut self, stack: Stack<'_, 'm>, value: Value<'m>) -> Option<Exit> {
        let back = stack[self.fp];
        if let Some(word) = back.as_fixnum() {
            stack[self.fp] = value;
            self.fp -= frame_below(word as usize);
            self.pc = word as usize >> 16;
            self.code = code_of(self.mem, stack[self.fp + 1]);
            return None;
        }
        self.underflow(stack, value)
    }

    /// Returns into the topmost frame of the segments.
    #[inline(never)]
    pub(super) fn underflow(&mut self, stack: Stack<'_, 'm>, value: Value<'m>) -> Option<Exit> {
        let Some(frames) = self.segment.as_vector() else {
            self.registers.store(self.mem.scope(), register::RESULT, value.into());
            return Some(Exit::Done);
        };
        let frames = frames.elements();
        let element = |index: usize| Value::from(frames[index].load(self.mem.scope()));
        let word = self.back.as_fixnum().expect("a segment has a frame on top") as usize;
        let base = self.top - frame_below(word);
        // The frames below it come along, more each time, as long as nobody captures.
        let mut lowest = base;
        let mut below = element(lowest);
        while let Some(word) = below.as_fixnum()
            && self.top - lowest + frame_below(word as usize) <= self.along
        {
            lowest -= frame_below(word as usize);
            below = element(lowest);
        }
        self.along = (2 * self.along).clamp(16, MOST_ALONG);
        for (word, kept) in stack.iter_mut().zip(&frames[lowest..self.top]) {
            *word = kept.load(self.mem.scope()).into();
        }
        self.fp = base - lowest;
        stack[self.top - lowest] = value;
        stack[0] = Value::UNDERFLOW;
        if below.is_fixnum() {
            self.top = lowest;
            self.back = below;
        } else {
            self.segment = element(0);
            self.top = element(1).as_index().expect("a top");
            self.back = element(2);
        }
        self.pc = word >> 16;
        self.code = code_of(self.mem, stack[self.fp + 1]);
        None
    }

    /// Makes `k` the continuation, and returns `value` to it.
    pub(super) fn throw(
        &mut self,
        stack: Stack<'_, 'm>,
        k: firn::Gc<'m, Continuation>,
        value: Value<'m>,
    ) -> Option<Exit> {
        let k: &Continuation = &k;
        let scope = self.mem.scope();
        self.along = 0;
        self.segment = k.segment.load(scope).into();
        self.top = k.top;
        self.back = k.back.load(scope).into();
        self.winders = k.winders.load(scope).into();
        self.handlers = k.handlers.load(scope).into();
        self.parameters = k.parameters.load(scope).into();
        self.underflow(stack, value)
    }
}
