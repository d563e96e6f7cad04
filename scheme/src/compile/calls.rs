//! Calls of procedures, and of loops.
//!
//! A call builds the callee's frame on top of the registers in use: a word for the return, the callee, the arguments.
//! The first word of it is where the result lands, so that it is made the register where the result is wanted if
//! that is the topmost one ([`Generator::base`]). A call of a loop moves the arguments to the parameters' registers
//! and jumps.
//!
//! Invariant: an argument of a loop is put into its parameter's register only if no later argument still reads what
//! is there; otherwise it waits in a temporary.
//!
//! Called by the generator for calls, and for builtins that are about control, which are called as closures are.

use super::ops::*;
use super::{Const, Generator, Place, Result, Target, loops};
use crate::expand::{Expr, VarId};
use crate::syntax::Location;

impl Generator<'_> {
    fn call_loop(&mut self, var: VarId, args: &[Expr]) -> Result<()> {
        let (label, registers) = self.f().loops[&var].clone();
        // Arguments that stay as they are, and those that can be made in place.
        let mut moves = Vec::new();
        for (index, arg) in args.iter().enumerate() {
            let register = registers[index];
            if let Expr::Local(var, _) = arg
                && !self.boxed(*var)
                && self.place_of(*var) == Place::Register(register)
            {
                continue;
            }
            let needed_later =
                args[index + 1..].iter().any(|later| self.uses_register(later, register))
                    || matches!(arg, Expr::Let(..) | Expr::Fix(..))
                        && self.uses_register(arg, register);
            if needed_later {
                let temporary = self.f().register();
                self.emit(arg, Target::Register(temporary))?;
                moves.push((register, temporary));
            } else {
                self.emit(arg, Target::Register(register))?;
            }
        }
        for (to, from) in moves {
            self.f().push(MOVE, to, from, 0);
        }
        let backwards = self.f().labels[label].is_some();
        self.f().jump(if backwards { LOOP } else { JUMP }, 0, label);
        Ok(())
    }

    /// Whether evaluating `expr` reads a variable that is in this register.
    pub(super) fn uses_register(&self, expr: &Expr, register: u16) -> bool {
        let at = &self.functions.last().expect("there is a function").at;
        loops::any_variable(expr, &mut |var| at.get(&var) == Some(&Place::Register(register)))
    }

    pub(super) fn call(
        &mut self,
        head: &Expr,
        args: &[Expr],
        at: Location,
        target: Target,
    ) -> Result<()> {
        if let Expr::Local(var, _) = head
            && self.loops.is_loop(*var)
        {
            return self.call_loop(*var, args);
        }
        let base = self.base(target);
        let global = match head {
            Expr::Global(global, _) => Some(self.f().constant(Const::Global(*global))),
            _ => None,
        };
        let closure = self.f().register();
        if global.is_none() {
            self.emit(head, Target::Register(closure))?;
        }
        for arg in args {
            let register = self.f().register();
            self.emit(arg, Target::Register(register))?;
        }
        let argc = args.len() as u16;
        self.f().place(at);
        match (global, target) {
            (Some(global), Target::Tail) => self.f().push(TAIL_CALL_GLOBAL, base, argc, global),
            (None, Target::Tail) => self.f().push(TAIL_CALL, base, argc, 0),
            (Some(global), _) => self.f().push(CALL_GLOBAL, base, argc, global),
            (None, _) => self.f().push(CALL, base, argc, 0),
        }
        match target {
            Target::Tail => self.f().reachable = false,
            _ => self.deliver(base, target),
        }
        Ok(())
    }

    /// The first register of a call: the wanted one, if it is the topmost in use.
    pub(super) fn base(&mut self, target: Target) -> u16 {
        match target {
            Target::Register(register) if register + 1 == self.f().next => register,
            _ => self.f().register(),
        }
    }
}
