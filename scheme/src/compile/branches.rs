//! Tests: code that goes to a label or goes on, and makes no truth value.
//!
//! A test is compiled for what it decides ([`Generator::branch`]): `and`, `or`, `not` and nested conditions become
//! jumps, comparisons the instructions that compare and jump, with a small constant in them where there is room.
//!
//! Invariants: after [`Generator::branch`] as many registers are in use as before. A test that is known when it is
//! compiled leaves either nothing or a jump. What counts as a test ([`is_test`]) is exactly what [`Generator::test`]
//! compiles.
//!
//! Called by the generator for `if`, and for a test whose value is wanted.

use super::function::Label;
use super::ops::*;
use super::{Const, Generator, Place, Result, Target};
use crate::expand::{Expr, Immediate};
use crate::syntax::Location;

impl Generator<'_> {
    /// Goes to `label` if the truth of `test` is `wanted`; goes on otherwise.
    pub(super) fn branch(&mut self, test: &Expr, label: Label, wanted: bool) -> Result<()> {
        let next = self.f().next;
        self.branch_inner(test, label, wanted)?;
        self.f().next = next;
        Ok(())
    }

    fn branch_inner(&mut self, test: &Expr, label: Label, wanted: bool) -> Result<()> {
        let is = |expr: &Expr, immediate: Immediate| matches!(expr, Expr::Immediate(i) if *i == immediate);
        match test {
            Expr::Immediate(immediate) => {
                if (*immediate != Immediate::False) == wanted {
                    self.f().jump(JUMP, 0, label);
                }
                Ok(())
            }
            Expr::Let(bindings, body) if matches!(**body, Expr::If(_)) => {
                for (var, value) in bindings {
                    let register = self.f().register();
                    self.emit(value, Target::Register(register))?;
                    if self.boxed(*var) {
                        self.f().push(CELL_NEW, register, register, 0);
                    }
                    self.f().at.insert(*var, Place::Register(register));
                }
                self.branch(body, label, wanted)
            }
            Expr::Seq(exprs) => {
                let (last, first) = exprs.split_last().expect("a sequence is not empty");
                for expr in first {
                    self.emit(expr, Target::Effect)?;
                }
                self.branch(last, label, wanted)
            }
            Expr::If(parts) => {
                let (condition, then, other) = &**parts;
                let same =
                    matches!((condition, then), (Expr::Local(a, _), Expr::Local(b, _)) if a == b);
                if is(other, Immediate::False) {
                    // and
                    if wanted {
                        let skip = self.f().label();
                        self.branch(condition, skip, false)?;
                        self.branch(then, label, true)?;
                        self.f().bind(skip);
                    } else {
                        self.branch(condition, label, false)?;
                        self.branch(then, label, false)?;
                    }
                } else if is(then, Immediate::True) || same {
                    // or
                    if wanted {
                        self.branch(condition, label, true)?;
                        self.branch(other, label, true)?;
                    } else {
                        let skip = self.f().label();
                        self.branch(condition, skip, true)?;
                        self.branch(other, label, false)?;
                        self.f().bind(skip);
                    }
                } else {
                    let (otherwise, end) = (self.f().label(), self.f().label());
                    self.branch(condition, otherwise, false)?;
                    self.branch(then, label, wanted)?;
                    self.f().jump(JUMP, 0, end);
                    self.f().bind(otherwise);
                    self.branch(other, label, wanted)?;
                    self.f().bind(end);
                }
                Ok(())
            }
            Expr::Builtin(number, args, at) => {
                let name = self.compiler.builtins[*number as usize].name;
                if is_test(name, args.len()) {
                    return self.test(name, args, *at, label, wanted);
                }
                self.branch_on_value(test, label, wanted)
            }
            _ => self.branch_on_value(test, label, wanted),
        }
    }

    fn branch_on_value(&mut self, test: &Expr, label: Label, wanted: bool) -> Result<()> {
        let register = self.operand(test)?;
        self.f().jump(if wanted { JUMP_IF_TRUE } else { JUMP_IF_FALSE }, register, label);
        Ok(())
    }

    pub(super) fn test(
        &mut self,
        name: &str,
        args: &[Expr],
        at: Location,
        label: Label,
        wanted: bool,
    ) -> Result<()> {
        let fixnum = |expr: &Expr| match expr {
            Expr::Immediate(Immediate::Fixnum(n)) => i16::try_from(*n).ok(),
            _ => None,
        };
        let choose = |if_so: u8, unless: u8| if wanted { if_so } else { unless };
        match name {
            "not" => return self.branch(&args[0], label, !wanted),
            "null?" => {
                let register = self.operand(&args[0])?;
                self.f().jump(choose(JUMP_IF_NULL, JUMP_UNLESS_NULL), register, label);
            }
            "pair?" => {
                let register = self.operand(&args[0])?;
                self.f().jump(choose(JUMP_IF_PAIR, JUMP_UNLESS_PAIR), register, label);
            }
            "eof-object?" => {
                let register = self.operand(&args[0])?;
                let constant = self.f().constant(Const::Immediate(Immediate::Eof));
                let op = choose(JUMP_IF_EQ_CONST, JUMP_UNLESS_EQ_CONST);
                self.f().jump_short(op, register, constant, label);
            }
            "eq?" => {
                let constant = |expr: &Expr| match expr {
                    Expr::Immediate(immediate) => Some(Const::Immediate(*immediate)),
                    _ => None,
                };
                let pair = match (constant(&args[0]), constant(&args[1])) {
                    (_, Some(c)) => Some((&args[0], c)),
                    (Some(c), _) => Some((&args[1], c)),
                    _ => None,
                };
                if let Some((other, constant)) = pair {
                    let register = self.operand(other)?;
                    let constant = self.f().constant(constant);
                    let op = choose(JUMP_IF_EQ_CONST, JUMP_UNLESS_EQ_CONST);
                    self.f().jump_short(op, register, constant, label);
                } else {
                    let (first, second) = self.two(&args[0], &args[1])?;
                    self.f().jump_short(choose(JUMP_IF_EQ, JUMP_UNLESS_EQ), first, second, label);
                }
            }
            "zero?" => {
                let register = self.operand(&args[0])?;
                self.f().place(at);
                let op = choose(JUMP_IF_NUM_EQ_INT, JUMP_UNLESS_NUM_EQ_INT);
                self.f().jump_short(op, register, 0, label);
            }
            "positive?" | "negative?" => {
                let register = self.operand(&args[0])?;
                self.f().place(at);
                let op = if name == "positive?" {
                    choose(JUMP_IF_GT_INT, JUMP_UNLESS_GT_INT)
                } else {
                    choose(JUMP_IF_LT_INT, JUMP_UNLESS_LT_INT)
                };
                self.f().jump_short(op, register, 0, label);
            }
            _ => {
                // A comparison. `a > b` is `b < a`.
                let (lt, gt) = (
                    choose(JUMP_IF_LT_INT, JUMP_UNLESS_LT_INT),
                    choose(JUMP_IF_GT_INT, JUMP_UNLESS_GT_INT),
                );
                let equal = choose(JUMP_IF_NUM_EQ_INT, JUMP_UNLESS_NUM_EQ_INT);
                let immediate = match (name, fixnum(&args[0]), fixnum(&args[1])) {
                    ("<", _, Some(n)) => Some((&args[0], n, lt)),
                    (">", _, Some(n)) => Some((&args[0], n, gt)),
                    ("<", Some(n), _) => Some((&args[1], n, gt)),
                    (">", Some(n), _) => Some((&args[1], n, lt)),
                    ("=", _, Some(n)) => Some((&args[0], n, equal)),
                    ("=", Some(n), _) => Some((&args[1], n, equal)),
                    _ => None,
                };
                if let Some((other, number, op)) = immediate {
                    let register = self.operand(other)?;
                    self.f().place(at);
                    self.f().jump_short(op, register, number as u16, label);
                    return Ok(());
                }
                let (first, second) = self.two(&args[0], &args[1])?;
                self.f().place(at);
                let (op, first, second) = match name {
                    "<" => (choose(JUMP_IF_LT, JUMP_UNLESS_LT), first, second),
                    ">" => (choose(JUMP_IF_LT, JUMP_UNLESS_LT), second, first),
                    "<=" => (choose(JUMP_IF_LE, JUMP_UNLESS_LE), first, second),
                    ">=" => (choose(JUMP_IF_LE, JUMP_UNLESS_LE), second, first),
                    _ => (choose(JUMP_IF_NUM_EQ, JUMP_UNLESS_NUM_EQ), first, second),
                };
                self.f().jump_short(op, first, second, label);
            }
        }
        Ok(())
    }
}

/// Whether a builtin is a test that the machine branches on.
pub(super) fn is_test(name: &str, args: usize) -> bool {
    match name {
        "not" | "null?" | "pair?" | "zero?" | "positive?" | "negative?" | "eof-object?" => {
            args == 1
        }
        "eq?" | "<" | ">" | "<=" | ">=" | "=" => args == 2,
        _ => false,
    }
}
