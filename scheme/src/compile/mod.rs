//! From expressions to code: a register for each variable, no instruction that a register could save.
//!
//! A frame is `[return word, closure, arguments..., variables and temporaries...]`. Registers are given out like a
//! stack. A call builds the callee's frame at the top of the caller's, and the result lands where its first word
//! was, which the compiler makes the place where it is wanted.
//!
//! Loops cost no calls: a procedure of a `Fix` all of whose uses are calls in one continuation ([`loops`]) becomes
//! a label, and a call of it a few moves and a jump.

pub mod loops;
pub mod ops;

use crate::expand::{Compiler, Expr, GlobalId, Immediate, Lambda, Var, VarId};
use crate::symbol::Symbol;
use crate::syntax::{Id, Location};
use loops::Loops;
use ops::*;
use std::collections::HashMap;

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

/// A unit that cannot be compiled: what is too large, and where.
pub type Result<T> = std::result::Result<T, (String, Location)>;

/// Most registers of a frame.
const MOST_REGISTERS: usize = 3000;

/// Compiles expressions to be run one after the other; the result's last code object is the unit's.
pub fn compile(compiler: &Compiler, vars: &[Var], body: &Expr) -> Result<Vec<Code>> {
    let loops = loops::find(vars.len(), body);
    let mut unit = Generator { compiler, vars, loops, codes: Vec::new(), functions: Vec::new() };
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

type Label = usize;

struct Function {
    name: Symbol,
    code: Vec<u64>,
    consts: Vec<Const>,
    places: Vec<(usize, Location)>,
    at: HashMap<VarId, Place>,
    free: Vec<VarId>,
    /// The next register that is not in use.
    next: u16,
    most: u16,
    labels: Vec<Option<usize>>,
    /// (instruction, label, short)
    jumps: Vec<(usize, Label, bool)>,
    last_bound: usize,
    reachable: bool,
    too_large: Option<Location>,
    /// Loops being compiled: label, registers of the parameters.
    loops: HashMap<VarId, (Label, Vec<u16>)>,
    location: Location,
}

impl Function {
    fn new(name: Symbol, _parent: Option<()>) -> Function {
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

    fn register(&mut self) -> u16 {
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

    fn push(&mut self, op: u8, a: u16, b: u16, c: u16) {
        if self.reachable {
            self.code.push(encode(op, a, b, c));
        }
    }

    fn push_long(&mut self, op: u8, a: u16, bc: i32) {
        self.push(op, a, bc as u16, (bc >> 16) as u16);
    }

    /// Notes where the next instruction comes from.
    fn place(&mut self, at: Location) {
        if at.line > 0 && self.reachable {
            self.places.push((self.code.len(), at));
            self.location = at;
        }
    }

    fn label(&mut self) -> Label {
        self.labels.push(None);
        self.labels.len() - 1
    }

    fn bind(&mut self, label: Label) {
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

    fn jump(&mut self, op: u8, a: u16, label: Label) {
        if self.reachable {
            self.jumps.push((self.code.len(), label, false));
            self.push(op, a, 0, 0);
        }
        if matches!(op, JUMP | LOOP) {
            self.reachable = false;
        }
    }

    fn jump_short(&mut self, op: u8, a: u16, b: u16, label: Label) {
        if self.reachable {
            self.jumps.push((self.code.len(), label, true));
            self.push(op, a, b, 0);
        }
    }

    fn constant(&mut self, constant: Const) -> u16 {
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

    fn finish(mut self, arity: u16) -> Result<Code> {
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
        if let Some(at) = self.too_large {
            return Err(("this procedure is too large: divide it".to_string(), at));
        }
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

struct Generator<'a> {
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

    /// Compiles a procedure and makes its closure.
    fn closure(&mut self, lambda: &Lambda, register: u16) -> Result<Vec<VarId>> {
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

    fn fix(&mut self, procedures: &[(VarId, Lambda)], body: &Expr, target: Target) -> Result<()> {
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
    fn uses_register(&self, expr: &Expr, register: u16) -> bool {
        let at = &self.functions.last().expect("there is a function").at;
        loops::any_variable(expr, &mut |var| at.get(&var) == Some(&Place::Register(register)))
    }

    fn call(&mut self, head: &Expr, args: &[Expr], at: Location, target: Target) -> Result<()> {
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
    fn base(&mut self, target: Target) -> u16 {
        match target {
            Target::Register(register) if register + 1 == self.f().next => register,
            _ => self.f().register(),
        }
    }

    fn builtin(&mut self, number: u32, args: &[Expr], at: Location, target: Target) -> Result<()> {
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

    fn two(&mut self, first: &Expr, second: &Expr) -> Result<(u16, u16)> {
        let first = self.operand(first)?;
        let second = self.operand(second)?;
        Ok((first, second))
    }

    /// Goes to `label` if the truth of `test` is `wanted`; goes on otherwise.
    fn branch(&mut self, test: &Expr, label: Label, wanted: bool) -> Result<()> {
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

    fn test(
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
fn is_test(name: &str, args: usize) -> bool {
    match name {
        "not" | "null?" | "pair?" | "zero?" | "positive?" | "negative?" => args == 1,
        "eq?" | "<" | ">" | "<=" | ">=" | "=" => args == 2,
        _ => false,
    }
}
