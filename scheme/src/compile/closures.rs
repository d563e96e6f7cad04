//! Procedures: their code, their closures, and those that see each other.
//!
//! A procedure that captures nothing is a constant. Those of a `Fix` that are loops ([`super::loops`]) stand in the
//! frame around them, after its body, each at its label; the others are closures, made in order, and those
//! that capture a later one are patched when all are made.
//!
//! Invariant: a loop's parameters have their registers before its body or any call of it is compiled, since both
//! refer to them.
//!
//! Called by the generator for `lambda`, `case-lambda` and `Fix`.

use super::function::Function;
use super::ops::*;
use super::{Const, Generator, Place, Result, Target, loops};
use crate::expand::{Expr, Lambda, VarId};

impl Generator<'_> {
    /// Compiles a procedure and makes its closure.
    pub(super) fn closure(&mut self, lambda: &Lambda, register: u16) -> Result<Vec<VarId>> {
        let (number, free) = self.function(lambda)?;
        self.make_closure(number, &free, register);
        Ok(free)
    }

    fn make_closure(&mut self, number: usize, free: &[VarId], register: u16) {
        if free.is_empty() {
            let constant = self.f().constant(Const::Closure(number));
            self.f().push(CONST, register, 0, constant);
            return;
        }
        let places: Vec<Place> = free.iter().map(|&var| self.place_of(var)).collect();
        let constant = self.f().constant(Const::Code(number));
        self.f().push(CLOSURE, register, free.len() as u16, constant);
        for place in places {
            match place {
                Place::Register(from) => self.f().push(0, from, 0, 0),
                Place::Free(from) => self.f().push(0, from, 1, 0),
            }
        }
    }

    fn function(&mut self, lambda: &Lambda) -> Result<(usize, Vec<VarId>)> {
        let mut function = Function::new(lambda.name, None);
        function.location = lambda.at;
        for &param in lambda.params.iter().chain(&lambda.rest) {
            let register = function.register();
            function.at.insert(param, Place::Register(register));
            if self.boxed(param) {
                function.push(CELL_NEW, register, register, 0);
            }
        }
        function.place(lambda.at);
        self.functions.push(function);
        self.emit(&lambda.body, Target::Tail)?;
        let function = self.functions.pop().expect("pushed above");
        let free = function.free.clone();
        let rest = if lambda.rest.is_some() { code::REST } else { 0 };
        let code = function.finish(lambda.params.len() as u16 | rest)?;
        self.codes.push(code);
        Ok((self.codes.len() - 1, free))
    }

    pub(super) fn fix(
        &mut self,
        procedures: &[(VarId, Lambda)],
        body: &Expr,
        target: Target,
    ) -> Result<()> {
        let (loops, closures): (Vec<_>, Vec<_>) =
            procedures.iter().partition(|(var, _)| self.loops.is_loop(*var));
        let mut made = Vec::new();
        for (var, _) in &closures {
            let register = self.f().register();
            self.f().at.insert(*var, Place::Register(register));
            made.push(register);
        }
        let mut patches = Vec::new();
        for (index, (_, lambda)) in closures.iter().enumerate() {
            let free = self.closure(lambda, made[index])?;
            for (slot, var) in free.iter().enumerate() {
                if let Some(other) = closures.iter().position(|(v, _)| v == var)
                    && other >= index
                {
                    patches.push((made[index], slot as u16, made[other]));
                }
            }
        }
        for (closure, slot, value) in patches {
            self.f().push(CLOSURE_PATCH, closure, slot, value);
        }
        for (var, lambda) in &loops {
            let label = self.f().label();
            let registers = lambda.params.iter().map(|_| self.f().register()).collect();
            self.f().loops.insert(*var, (label, registers));
        }
        let end = self.f().label();
        self.emit(body, target)?;
        for (var, lambda) in &loops {
            let (label, registers) = self.f().loops[var].clone();
            if !self.f().jumps.iter().any(|&(_, used, _)| used == label) {
                // Nobody has called it so far. (A loop that only a later one calls comes later again.)
                if !self.called_later(*var, &loops) {
                    let here = self.f().code.len();
                    self.f().labels[label] = Some(here);
                    continue;
                }
            }
            if target != Target::Tail {
                self.f().jump(JUMP, 0, end);
            }
            // The entry may be the call that stands right before.
            self.f().bind(label);
            for (&param, &register) in lambda.params.iter().zip(&registers) {
                self.f().at.insert(param, Place::Register(register));
                if self.boxed(param) {
                    self.f().push(CELL_NEW, register, register, 0);
                }
            }
            self.emit(&lambda.body, target)?;
        }
        self.f_bind_if_used(end);
        Ok(())
    }

    fn called_later(&self, var: VarId, loops: &[&(VarId, Lambda)]) -> bool {
        loops.iter().any(|(other, lambda)| *other != var && loops::mentions(&lambda.body, var))
    }
}
