//! Calls of procedures, and of loops.
//!
//! A call builds the callee's frame on top of the registers in use: a word for the return, the callee, the arguments.
//! The first word of it is where the result lands, so that it is made the register where the result is wanted if
//! that is the topmost one ([`Generator::base`]). A call of a loop moves the arguments to the parameters' registers
//! and jumps; so does a call in tail position, whose arguments take the places of the procedure's own.
//!
//! Invariant: an argument is put into a parameter's register only if no argument that is evaluated later still reads
//! what is there; otherwise it waits in a temporary. While arguments of a tail call are evaluated, their registers are
//! in use.
//!
//! Called by the generator for calls, and for builtins that are about control, which are called as closures are.

use super::ops::*;
use super::{Const, Generator, Place, Result, Target, loops};
use crate::expand::{Expr, VarId};
use crate::syntax::Location;

impl Generator<'_> {
    fn call_loop(&mut self, var: VarId, args: &[Expr]) -> Result<()> {
        let (label, registers) = self.f().loops[&var].clone();
        self.arguments(args, &registers)?;
        let backwards = self.f().labels[label].is_some();
        self.f().jump(if backwards { LOOP } else { JUMP }, 0, label);
        Ok(())
    }

    /// Puts arguments into the registers of parameters, which may hold variables that the arguments read.
    fn arguments(&mut self, args: &[Expr], registers: &[u16]) -> Result<()> {
        // What is the same at any time comes last: the frames that the others' calls build lie the lower for it.
        let (last, first): (Vec<usize>, Vec<usize>) =
            (0..args.len()).partition(|&index| self.is_timeless(&args[index]));
        let order = [first, last].concat();
        let mut moves = Vec::new();
        for (position, &index) in order.iter().enumerate() {
            let (arg, register) = (&args[index], registers[index]);
            if let Expr::Local(var, _) = arg
                && !self.boxed(*var)
                && self.place_of(*var) == Place::Register(register)
            {
                continue;
            }
            let needed_later = order[position + 1..]
                .iter()
                .any(|&later| self.uses_register(&args[later], register))
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
        Ok(())
    }

    /// Whether an expression has the same value at any time and no effect: constants, variables that are never
    /// assigned, sums of them.
    fn is_timeless(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Immediate(_) | Expr::Quote(_) => true,
            Expr::Local(var, _) => !self.boxed(*var),
            Expr::Builtin(number, args, _) => {
                let name = self.compiler.builtins[*number as usize].name;
                matches!(name, "+" | "-" | "*") && args.iter().all(|arg| self.is_timeless(arg))
            }
            _ => false,
        }
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
        let global = match head {
            Expr::Global(global, _) => Some(self.f().constant(Const::Global(*global))),
            _ => None,
        };
        let raises = matches!(head, Expr::Global(global, _)
            if self.compiler.globals[*global as usize].raises);
        if target == Target::Tail && !raises {
            return self.tail_call(head, global, args, at);
        }
        let base = self.base(target);
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
        match global {
            Some(global) => self.f().push(CALL_GLOBAL, base, argc, global),
            None => self.f().push(CALL, base, argc, 0),
        }
        self.deliver(base, target);
        Ok(())
    }

    /// The arguments take the places of this procedure's own.
    fn tail_call(
        &mut self,
        head: &Expr,
        global: Option<u16>,
        args: &[Expr],
        at: Location,
    ) -> Result<()> {
        let registers: Vec<u16> = (2..).take(args.len()).collect();
        let beyond = 2 + args.len() as u16;
        while self.f().next < beyond {
            self.f().register();
        }
        let mut callee = 0;
        if global.is_none() {
            callee = self.operand(head)?;
            if callee < beyond {
                let temporary = self.f().register();
                self.f().push(MOVE, temporary, callee, 0);
                callee = temporary;
            }
        }
        self.arguments(args, &registers)?;
        self.f().place(at);
        match global {
            Some(global) => self.f().push(TAIL_CALL_GLOBAL, 0, args.len() as u16, global),
            None => self.f().push(TAIL_CALL, callee, args.len() as u16, 0),
        }
        self.f().reachable = false;
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
