//! One code object in the making: its instructions, constants, registers and labels.
//!
//! Registers are given out like a stack: whoever takes some sets `next` back when their values are no longer needed.
//! Instructions that nothing can reach are not written (`reachable`); a label makes what follows it reachable again,
//! and a jump to the next instruction is taken back when its label is bound. Jumps get their offsets at the end
//! ([`Function::finish`]), when every label must be bound; what does not fit its field by then is reported as a
//! procedure that is too large, at its place.
//!
//! Used by the generator alone, which has one of these for each procedure that it is in the middle of.

use super::ops::*;
use super::{Code, Const, Place, Result, TooLarge, Uncompiled};
use crate::expand::VarId;
use crate::symbol::Symbol;
use crate::syntax::Location;
use std::collections::HashMap;

/// Most registers of a frame.
pub const MOST_REGISTERS: usize = 1500;

/// A place in the code that jumps lead to: an index of [`Function::labels`].
pub(super) type Label = usize;

/// Code in the making.
pub(super) struct Function {
    pub(super) name: Symbol,
    pub(super) code: Vec<u64>,
    pub(super) consts: Vec<Const>,
    pub(super) places: Vec<(usize, Location)>,
    pub(super) at: HashMap<VarId, Place>,
    pub(super) free: Vec<VarId>,
    /// The next register that is not in use.
    pub(super) next: u16,
    pub(super) most: u16,
    pub(super) labels: Vec<Option<usize>>,
    /// (instruction, label, short)
    pub(super) jumps: Vec<(usize, Label, bool)>,
    pub(super) last_bound: usize,
    pub(super) reachable: bool,
    pub(super) too_large: Option<Location>,
    /// Loops being compiled: label, registers of the parameters.
    pub(super) loops: HashMap<VarId, (Label, Vec<u16>)>,
    pub(super) location: Location,
}

impl Function {
    pub(super) fn new(name: Symbol, _parent: Option<()>) -> Function {
        Function {
            name,
            code: Vec::new(),
            consts: Vec::new(),
            places: Vec::new(),
            at: HashMap::new(),
            free: Vec::new(),
            next: 2,
            most: 2,
            labels: Vec::new(),
            jumps: Vec::new(),
            last_bound: usize::MAX,
            reachable: true,
            too_large: None,
            loops: HashMap::new(),
            location: Location::default(),
        }
    }

    pub(super) fn register(&mut self) -> u16 {
        let register = self.next;
        self.next += 1;
        if self.next > self.most {
            self.most = self.next;
        }
        if self.next as usize > MOST_REGISTERS {
            self.too_large = Some(self.location);
            self.next = 2;
        }
        register
    }

    pub(super) fn push(&mut self, op: u8, a: u16, b: u16, c: u16) {
        if self.reachable {
            self.code.push(encode(op, a, b, c));
        }
    }

    pub(super) fn push_long(&mut self, op: u8, a: u16, bc: i32) {
        self.push(op, a, bc as u16, (bc >> 16) as u16);
    }

    /// Notes where the next instruction comes from.
    pub(super) fn place(&mut self, at: Location) {
        if at.line > 0 && self.reachable {
            self.places.push((self.code.len(), at));
            self.location = at;
        }
    }

    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        self.labels.len() - 1
    }

    pub(super) fn bind(&mut self, label: Label) {
        // A jump to the next instruction is none.
        if let Some(&(at, target, false)) = self.jumps.last()
            && target == label
            && at + 1 == self.code.len()
            && self.last_bound != self.code.len()
            && matches!(op(self.code[at]), JUMP | LOOP)
            && !self.reachable
        {
            self.jumps.pop();
            self.code.pop();
            while self.places.last().is_some_and(|&(place, _)| place > at) {
                self.places.pop();
            }
        }
        self.labels[label] = Some(self.code.len());
        self.last_bound = self.code.len();
        self.reachable = true;
    }

    pub(super) fn jump(&mut self, op: u8, a: u16, label: Label) {
        if self.reachable {
            self.jumps.push((self.code.len(), label, false));
            self.push(op, a, 0, 0);
        }
        if matches!(op, JUMP | LOOP) {
            self.reachable = false;
        }
    }

    pub(super) fn jump_short(&mut self, op: u8, a: u16, b: u16, label: Label) {
        if self.reachable {
            self.jumps.push((self.code.len(), label, true));
            self.push(op, a, b, 0);
        }
    }

    pub(super) fn constant(&mut self, constant: Const) -> u16 {
        let index = match self.consts.iter().position(|known| *known == constant) {
            Some(index) => index,
            None => {
                self.consts.push(constant);
                self.consts.len() - 1
            }
        };
        let index = code::CONSTANTS + index;
        if index > 65_000 {
            self.too_large = Some(self.location);
        }
        index as u16
    }

    /// Whether it still fits. The rest of one that does not is not even looked at: it may be very long.
    pub(super) fn check(&self) -> Result<()> {
        self.too_large.map_or(Ok(()), |at| Err(Uncompiled::Wrong(TooLarge(at))))
    }

    pub(super) fn finish(mut self, arity: u16) -> Result<Code> {
        for &(at, label, short) in &self.jumps {
            let target = self.labels[label].expect("every label is bound") as i64;
            let offset = target - (at as i64 + 1);
            let word = self.code[at];
            self.code[at] = if short {
                if i16::try_from(offset).is_err() {
                    self.too_large = Some(self.location);
                }
                word & !(0xffff << 48) | (offset as u16 as u64) << 48
            } else {
                word & 0xffff_ffff | (offset as u32 as u64) << 32
            };
        }
        self.check()?;
        Ok(Code {
            name: self.name,
            arity,
            frame: self.most + 1,
            consts: self.consts,
            instructions: self.code,
            places: self.places,
        })
    }
}
