//! Calls of builtins: those that are instructions, and the others.
//!
//! The expander has checked that the name means the builtin and that it takes so many arguments. What the machine has
//! an instruction for becomes one, with a small constant in it where there is room; a test becomes a branch
//! ([`super::branches`]) and, where its value is wanted, one between `#t` and `#f`; everything else is the
//! instruction that calls the builtin by its number, with the arguments in consecutive registers.
//!
//! Invariant: a result may go to the register of an operand only by the instruction that reads it last.
//!
//! Called by the generator for each call of a builtin.

use super::branches::is_test;
use super::ops::*;
use super::{Const, Generator, Result, Target};
use crate::expand::{Expr, Immediate};
use crate::syntax::Location;

impl Generator<'_> {
    pub(super) fn builtin(
        &mut self,
        number: u32,
        args: &[Expr],
        at: Location,
        target: Target,
    ) -> Result<()> {
        let builtin = &self.compiler.builtins[number as usize];
        if builtin.control.is_some() {
            let head = Expr::Immediate(Immediate::Primitive(number));
            return self.call(&head, args, at, target);
        }
        let name = builtin.name;
        let fixnum = |expr: &Expr| match expr {
            Expr::Immediate(Immediate::Fixnum(n)) => i16::try_from(*n).ok(),
            _ => None,
        };
        if is_test(name, args.len()) {
            // A truth value, by way of a branch.
            if target == Target::Effect {
                // For its errors.
                let end = self.f().label();
                self.test(name, args, at, end, false)?;
                self.f().bind(end);
                return Ok(());
            }
            let register = self.result(target);
            let (no, end) = (self.f().label(), self.f().label());
            let next = self.f().next;
            self.test(name, args, at, no, false)?;
            self.f().next = next;
            let yes = self.f().constant(Const::Immediate(Immediate::True));
            self.f().push(CONST, register, 0, yes);
            if target == Target::Tail {
                self.deliver(register, target);
            } else {
                self.f().jump(JUMP, 0, end);
            }
            self.f().bind(no);
            let nope = self.f().constant(Const::Immediate(Immediate::False));
            self.f().push(CONST, register, 0, nope);
            self.deliver(register, target);
            self.f_bind_if_used(end);
            return Ok(());
        }
        let unary = match (name, args.len()) {
            ("car", 1) => Some(CAR),
            ("cdr", 1) => Some(CDR),
            ("caar", 1) => Some(CAAR),
            ("cadr", 1) => Some(CADR),
            ("cdar", 1) => Some(CDAR),
            ("cddr", 1) => Some(CDDR),
            ("vector-length", 1) => Some(VECTOR_LENGTH),
            _ => None,
        };
        if let Some(op) = unary {
            let register = self.result(target);
            let operand = self.operand(&args[0])?;
            self.f().place(at);
            self.f().push(op, register, operand, 0);
            self.deliver(register, target);
            return Ok(());
        }
        let binary = match (name, args.len()) {
            ("cons", 2) => Some(CONS),
            ("+", 2) => Some(ADD),
            ("-", 2) => Some(SUB),
            ("*", 2) => Some(MUL),
            ("quotient" | "truncate-quotient", 2) => Some(QUOTIENT),
            ("remainder" | "truncate-remainder", 2) => Some(REMAINDER),
            ("modulo" | "floor-remainder", 2) => Some(MODULO),
            ("vector-ref", 2) => Some(VECTOR_REF),
            ("string-ref", 2) => Some(STRING_REF),
            _ => None,
        };
        if let Some(op) = binary {
            let register = self.result(target);
            let immediate = match (op, fixnum(&args[0]), fixnum(&args[1])) {
                (ADD, _, Some(n)) => Some((&args[0], n)),
                (ADD, Some(n), None) => Some((&args[1], n)),
                (SUB, _, Some(n)) if n != i16::MIN => Some((&args[0], -n)),
                _ => None,
            };
            if let Some((other, number)) = immediate {
                let operand = self.operand(other)?;
                self.f().place(at);
                self.f().push(ADD_INT, register, operand, number as u16);
            } else {
                let (first, second) = self.two(&args[0], &args[1])?;
                self.f().place(at);
                self.f().push(op, register, first, second);
            }
            self.deliver(register, target);
            return Ok(());
        }
        match (name, args.len()) {
            ("set-car!" | "set-cdr!", 2) => {
                let (pair, value) = self.two(&args[0], &args[1])?;
                self.f().place(at);
                self.f().push(if name == "set-car!" { SET_CAR } else { SET_CDR }, pair, value, 0);
                self.unspecified(target);
                return Ok(());
            }
            ("vector-set!", 3) => {
                let vector = self.operand(&args[0])?;
                let index = self.operand(&args[1])?;
                let value = self.operand(&args[2])?;
                self.f().place(at);
                self.f().push(VECTOR_SET, vector, index, value);
                self.unspecified(target);
                return Ok(());
            }
            // Sums and products of many are made of two each; of one or none they are left to the builtin.
            ("+" | "*", 3..) => {
                let register = self.result(target);
                let sum = self.f().register();
                let op = if name == "+" { ADD } else { MUL };
                let (first, second) = self.two(&args[0], &args[1])?;
                self.f().place(at);
                self.f().push(op, sum, first, second);
                for (index, arg) in args[2..].iter().enumerate() {
                    let next = self.f().next;
                    let operand = self.operand(arg)?;
                    self.f().place(at);
                    let to = if index + 3 == args.len() { register } else { sum };
                    self.f().push(op, to, sum, operand);
                    self.f().next = next;
                }
                self.deliver(register, target);
                return Ok(());
            }
            _ => {}
        }
        // The arguments begin where the result goes, unless one of them still needs what is there.
        let base = match target {
            Target::Register(register)
                if args.iter().skip(1).any(|arg| self.uses_register(arg, register)) =>
            {
                self.f().register()
            }
            _ => self.base(target),
        };
        self.f().next = base;
        for arg in args {
            let register = self.f().register();
            self.emit(arg, Target::Register(register))?;
        }
        if args.is_empty() {
            self.f().register();
        }
        self.f().place(at);
        self.f().push(BUILTIN, base, number as u16, args.len() as u16);
        self.deliver(base, target);
        Ok(())
    }

    pub(super) fn two(&mut self, first: &Expr, second: &Expr) -> Result<(u16, u16)> {
        let first = self.operand(first)?;
        let second = self.operand(second)?;
        Ok((first, second))
    }
}
