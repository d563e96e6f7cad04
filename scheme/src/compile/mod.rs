//! From expressions to code: a register for each variable, no instruction that a register could save.
//!
//! A frame is `[return word, closure, arguments..., variables and temporaries...]`. Registers are given out like a
//! stack. A call builds the callee's frame at the top of the caller's, and the result lands where its first word
//! was, which the compiler makes the place where it is wanted.
//!
//! Loops cost no calls: a procedure of a `Fix` all of whose uses are calls in one continuation ([`loops`]) becomes
//! a label, and a call of it a few moves and a jump.
//!
//! This file has what a unit is compiled to, and the generator's way through the kinds of expressions. Beside it: one
//! code object in the making (`function`), procedures (`closures`), `calls`, `builtins` and tests (`branches`).
//! Only [`crate::vm::load`] calls [`compile`], with what the expander made.

mod branches;
mod builtins;
mod calls;
mod closures;
mod function;
pub mod loops;
pub mod ops;

use crate::expand::{Compiler, Expr, GlobalId, Immediate, Var, VarId};
use crate::numbers::large::{Unfinished, Watch};
use crate::symbol::Symbol;
use crate::syntax::{Id, Location};
pub use function::MOST_REGISTERS;
use function::{Function, Label};
use loops::Loops;
use ops::*;

/// A constant of a code object.
#[derive(Clone, Debug, PartialEq)]
pub enum Const {
    /// Fits a word.
    Immediate(Immediate),
    /// A datum: a node of the unit's forms.
    Quote(Id),
    /// A global's cell.
    Global(GlobalId),
    /// Code of this unit.
    Code(usize),
    /// A closure of code that captures nothing.
    Closure(usize),
}

/// A code object before it is in the heap.
#[derive(Debug)]
pub struct Code {
    /// Its name.
    pub name: Symbol,
    /// Required arguments, with [`code::REST`]; or [`code::CASE`].
    pub arity: u16,
    /// Words of its frame.
    pub frame: u16,
    /// Constants.
    pub consts: Vec<Const>,
    /// Instructions.
    pub instructions: Vec<u64>,
    /// Where instructions come from: index, place.
    pub places: Vec<(usize, Location)>,
}

/// The procedure at this place does not fit the instructions' operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge(pub Location);

/// There is no code.
pub type Uncompiled = Unfinished<TooLarge>;

/// The result of compiling.
pub type Result<T> = std::result::Result<T, Uncompiled>;

/// Compiles expressions to be run one after the other, for as long as that is wanted; the result's last code object is
/// the unit's.
pub fn compile(
    watch: &Watch<'_>,
    compiler: &Compiler,
    vars: &[Var],
    body: &Expr,
) -> Result<Vec<Code>> {
    let loops = loops::find(vars.len(), body);
    let (codes, functions) = (Vec::new(), Vec::new());
    let mut unit = Generator { watch, compiler, vars, loops, codes, functions };
    unit.functions.push(Function::new(Symbol::intern("top level"), None));
    unit.emit(body, Target::Tail)?;
    let function = unit.functions.pop().expect("pushed above");
    let code = function.finish(0)?;
    unit.codes.push(code);
    Ok(unit.codes)
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Target {
    Register(u16),
    Tail,
    Effect,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Place {
    Register(u16),
    Free(u16),
}

struct Generator<'a> {
    watch: &'a Watch<'a>,
    compiler: &'a Compiler,
    vars: &'a [Var],
    loops: Loops,
    codes: Vec<Code>,
    functions: Vec<Function>,
}

impl Generator<'_> {
    fn f(&mut self) -> &mut Function {
        self.functions.last_mut().expect("there is a function")
    }

    fn boxed(&self, var: VarId) -> bool {
        self.vars[var as usize].boxed
    }

    /// Where a variable is in the function at `level`; captures it on the way if need be.
    fn find(&mut self, var: VarId, level: usize) -> Place {
        if let Some(&place) = self.functions[level].at.get(&var) {
            return place;
        }
        assert!(
            level > 0,
            "the variable {} is in no function",
            self.vars[var as usize].name.name()
        );
        self.find(var, level - 1);
        let function = &mut self.functions[level];
        let place = Place::Free(function.free.len() as u16);
        function.free.push(var);
        function.at.insert(var, place);
        place
    }

    fn place_of(&mut self, var: VarId) -> Place {
        self.find(var, self.functions.len() - 1)
    }

    fn emit_all(&mut self, exprs: &[Expr], target: Target) -> Result<()> {
        let (last, first) = exprs.split_last().expect("a sequence is not empty");
        for expr in first {
            self.emit(expr, Target::Effect)?;
        }
        self.emit(last, target)
    }

    /// Code that leaves the value of `expr` in some register.
    fn operand(&mut self, expr: &Expr) -> Result<u16> {
        if let Expr::Local(var, _) = expr
            && !self.boxed(*var)
            && let Place::Register(register) = self.place_of(*var)
        {
            return Ok(register);
        }
        let register = self.f().register();
        self.emit(expr, Target::Register(register))?;
        Ok(register)
    }

    /// The value in a register goes where it is wanted.
    fn deliver(&mut self, register: u16, target: Target) {
        match target {
            Target::Register(wanted) if wanted != register => {
                self.f().push(MOVE, wanted, register, 0)
            }
            Target::Register(_) | Target::Effect => {}
            Target::Tail => {
                self.f().push(RETURN, register, 0, 0);
                self.f().reachable = false;
            }
        }
    }

    /// A register for a value that is delivered afterwards: the wanted one, or a temporary.
    fn result(&mut self, target: Target) -> u16 {
        match target {
            Target::Register(register) => register,
            _ => self.f().register(),
        }
    }

    fn emit(&mut self, expr: &Expr, target: Target) -> Result<()> {
        self.watch.look()?;
        self.f().check()?;
        let next = self.f().next;
        crate::deep(|| self.emit_inner(expr, target))?;
        self.f().next = next;
        Ok(())
    }

    fn emit_inner(&mut self, expr: &Expr, target: Target) -> Result<()> {
        match expr {
            Expr::Immediate(immediate) => {
                if target == Target::Effect {
                    return Ok(());
                }
                let register = self.result(target);
                match immediate {
                    Immediate::Fixnum(number) if i32::try_from(*number).is_ok() => {
                        self.f().push_long(INT, register, *number as i32);
                    }
                    _ => {
                        let constant = self.f().constant(Const::Immediate(*immediate));
                        self.f().push(CONST, register, 0, constant);
                    }
                }
                self.deliver(register, target);
            }
            Expr::Quote(id) => {
                if target == Target::Effect {
                    return Ok(());
                }
                let register = self.result(target);
                let constant = self.f().constant(Const::Quote(*id));
                self.f().push(CONST, register, 0, constant);
                self.deliver(register, target);
            }
            Expr::Local(var, at) => {
                let boxed = self.boxed(*var);
                let place = self.place_of(*var);
                match place {
                    Place::Register(register) if !boxed => self.deliver(register, target),
                    _ => {
                        let register = self.result(target);
                        self.f().place(*at);
                        match (place, boxed) {
                            (Place::Register(from), _) => {
                                self.f().push(CELL_REF, register, from, 0)
                            }
                            (Place::Free(from), true) => {
                                self.f().push(FREE_CELL_REF, register, from, 0)
                            }
                            (Place::Free(from), false) => self.f().push(FREE, register, from, 0),
                        }
                        self.deliver(register, target);
                    }
                }
            }
            Expr::Global(global, at) => {
                let register = self.result(target);
                let constant = self.f().constant(Const::Global(*global));
                self.f().place(*at);
                self.f().push(GLOBAL, register, 0, constant);
                self.deliver(register, target);
            }
            Expr::SetLocal(var, value) => {
                let value = self.operand(value)?;
                match self.place_of(*var) {
                    Place::Register(cell) => self.f().push(CELL_SET, cell, value, 0),
                    Place::Free(cell) => self.f().push(FREE_CELL_SET, cell, value, 0),
                }
                self.unspecified(target);
            }
            Expr::SetGlobal(global, value, at) => {
                let value = self.operand(value)?;
                let constant = self.f().constant(Const::Global(*global));
                self.f().place(*at);
                self.f().push(GLOBAL_SET, value, 0, constant);
                self.unspecified(target);
            }
            Expr::DefineGlobal(global, value) => {
                let value = self.operand(value)?;
                let constant = self.f().constant(Const::Global(*global));
                self.f().push(GLOBAL_DEFINE, value, 0, constant);
                self.unspecified(target);
            }
            Expr::If(parts) => {
                let (test, then, other) = &**parts;
                let otherwise = self.f().label();
                let end = self.f().label();
                self.branch(test, otherwise, false)?;
                self.emit(then, target)?;
                if target != Target::Tail {
                    self.f().jump(JUMP, 0, end);
                }
                self.f().bind(otherwise);
                self.emit(other, target)?;
                self.f_bind_if_used(end);
            }
            Expr::Seq(exprs) => self.emit_all(exprs, target)?,
            Expr::Let(bindings, body) => {
                for (var, value) in bindings {
                    let register = self.f().register();
                    self.emit(value, Target::Register(register))?;
                    if self.boxed(*var) {
                        self.f().push(CELL_NEW, register, register, 0);
                    }
                    self.f().at.insert(*var, Place::Register(register));
                }
                self.emit(body, target)?;
            }
            Expr::Fix(procedures, body) => self.fix(procedures, body, target)?,
            Expr::Lambda(lambda) => {
                if target == Target::Effect {
                    return Ok(());
                }
                let register = self.result(target);
                self.closure(lambda, register)?;
                self.deliver(register, target);
            }
            Expr::CaseLambda(clauses, name) => {
                // A closure over the clauses' closures.
                let base = self.f().next;
                let mut made = Vec::new();
                for clause in clauses {
                    let register = self.f().register();
                    self.closure(clause, register)?;
                    made.push(register);
                }
                let _ = base;
                self.codes.push(Code {
                    name: *name,
                    arity: code::CASE,
                    frame: 4,
                    consts: Vec::new(),
                    instructions: Vec::new(),
                    places: Vec::new(),
                });
                let number = self.codes.len() - 1;
                let constant = self.f().constant(Const::Code(number));
                let register = self.result(target);
                self.f().push(CLOSURE, register, made.len() as u16, constant);
                for from in made {
                    self.f().push(0, from, 0, 0);
                }
                self.deliver(register, target);
            }
            Expr::Call(head, args, at) => self.call(head, args, *at, target)?,
            Expr::Builtin(number, args, at) => self.builtin(*number, args, *at, target)?,
        }
        Ok(())
    }

    /// Binds a label that perhaps no jump leads to: then what is unreachable stays so.
    fn f_bind_if_used(&mut self, label: Label) {
        if self.f().jumps.iter().any(|&(_, target, _)| target == label) {
            self.f().bind(label);
        }
    }

    fn unspecified(&mut self, target: Target) {
        if target != Target::Effect {
            let register = self.result(target);
            let constant = self.f().constant(Const::Immediate(Immediate::Unspecified));
            self.f().push(CONST, register, 0, constant);
            self.deliver(register, target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expand::{Unexpanded, Unit};
    use crate::syntax::{Forms, Node};
    use std::sync::atomic::AtomicBool;

    #[test]
    fn what_nobody_wants_is_neither_expanded_nor_compiled() {
        let (nobody, somebody) = (AtomicBool::new(false), AtomicBool::new(true));
        for flags in [[&nobody, &somebody], [&somebody, &nobody]] {
            let watch = Watch::on(&flags);
            let mut compiler = Compiler::new(Vec::new());
            let mut forms = Forms::new();
            let form = forms.add(Node::Bool(true), Location::default());
            let mut unit = Unit::new(&mut compiler, forms, "nowhere".into(), watch);
            let expanded = unit.top_level(form, 0, &mut Vec::new());
            assert!(matches!(expanded, Err(Unexpanded::Stopped)));
            drop(unit);
            let compiled = compile(&watch, &compiler, &[], &Expr::Immediate(Immediate::True));
            assert_eq!(compiled.err(), Some(Uncompiled::Stopped));
        }
    }
}
