//! The instructions: the loop that fetches, decodes and executes them.
//!
//! The frame, the next instruction and the code are in local variables here, and in the machine only while something
//! else is called that needs them: `store!` before, `load!` after. What a program does all the time is written out in
//! the loop (fixnums and flonums, pairs, vectors, calls of closures with the right number of arguments); everything
//! else is left to functions that are not inlined. The small functions that the loop inlines are in this file too.
//!
//! Invariants: an instruction that traps has changed neither a register nor the heap, because it is done again. Calls
//! and loop rounds look up every [`FUEL`]th time ([`Machine::attention`]), so that no program can keep the others
//! from a collection.
//!
//! Called by the machine alone, at the beginning of a stretch and after each error.

use super::traps::{unbound, with_name};
use super::{Code, Exit, Flow, Machine, STACK, Stack, WINDOW, code_of, word as word_of};
use crate::compile::ops::*;
use crate::mem::Mem;
use crate::numbers;
use crate::object::{Cell, StringObject, character};
use crate::trap::{error, out_of_range, wrong_type};
use crate::value::Value;

use std::cmp::Ordering;

/// Calls and loop rounds between two looks at what others want.
const FUEL: u32 = 256;

impl<'m> Machine<'m, '_, '_> {
    /// Looks up: has anybody else a wish?
    #[cold]
    #[inline(never)]
    fn attention(&self) -> Option<Exit> {
        use std::sync::atomic::Ordering::Relaxed;
        if self.mem.world().interrupted.load(Relaxed) {
            return Some(Exit::Interrupted);
        }
        if self.terminated.load(Relaxed) {
            return Some(Exit::Terminated);
        }
        self.mem.safepoint_wanted().then_some(Exit::Poll)
    }

    /// Executes instructions. Whatever is not usual is left to the slow ways beside.
    pub(super) fn execute<const ONCE: bool>(&mut self, stack: Stack<'_, 'm>) -> Flow<'m> {
        let mem = self.mem;
        let mut done = false;
        let mut fp = self.fp;
        let mut pc = self.pc;
        let mut code = self.code;
        let mut frame = window(stack, fp);
        let mut fuel = FUEL;
        macro_rules! r {
            ($index:expr) => {
                frame[$index % WINDOW]
            };
        }
        macro_rules! store {
            () => {
                self.fp = fp;
                self.pc = pc;
                self.code = code;
            };
        }
        macro_rules! load {
            () => {
                fp = self.fp;
                pc = self.pc;
                code = self.code;
                frame = window(stack, fp);
            };
        }
        macro_rules! trap {
            ($trap:expr) => {{
                let trap = $trap;
                store!();
                return Flow::Trap(trap);
            }};
        }
        macro_rules! check {
            ($result:expr) => {
                match $result {
                    Ok(value) => value,
                    Err(trap) => trap!(trap),
                }
            };
        }
        macro_rules! jump {
            ($offset:expr) => {
                pc = pc.wrapping_add_signed($offset)
            };
        }
        macro_rules! look_up {
            () => {
                fuel -= 1;
                if fuel == 0 {
                    fuel = FUEL;
                    if let Some(exit) = self.attention() {
                        store!();
                        return Flow::Exit(exit);
                    }
                }
            };
        }
        macro_rules! slow_call {
            ($nf:expr, $count:expr, $tail:expr) => {{
                store!();
                if let Some(exit) = self.enter_or_handle(stack, $nf, $count, $tail) {
                    return Flow::Exit(exit);
                }
                load!();
            }};
        }
        // The callee, the instruction, and the cell that the callee came from.
        macro_rules! call {
            ($callee:expr, $word:expr $(, $cell:expr)?) => {{
                let callee: Value<'m> = $callee;
                let (base, count) = (a($word), b($word));
                let nf = fp + base;
                r!(base + 1) = callee;
                if let Some(closure) = callee.as_closure()
                    && let Some(target) = mem.element(closure, 0).as_vector()
                {
                    let target = target.elements();
                    let meta = instruction(mem, target, code::META);
                    if code::arity(meta) as usize == count && nf + code::frame(meta) <= STACK {
                        r!(base) = return_word(pc, base);
                        fp = nf;
                        frame = window(stack, fp);
                        code = target;
                        pc = code::entry(meta);
                        look_up!();
                        continue;
                    }
                }
                $(
                    if callee == Value::UNBOUND {
                        trap!(unbound(mem, $cell));
                    }
                )?
                slow_call!(nf, count, false);
            }};
        }
        macro_rules! tail_call {
            ($callee:expr, $word:expr $(, $cell:expr)?) => {{
                let callee: Value<'m> = $callee;
                let count = b($word);
                if let Some(closure) = callee.as_closure()
                    && let Some(target) = mem.element(closure, 0).as_vector()
                {
                    let target = target.elements();
                    let meta = instruction(mem, target, code::META);
                    if code::arity(meta) as usize == count && fp + code::frame(meta) <= STACK {
                        r!(1) = callee;
                        code = target;
                        pc = code::entry(meta);
                        look_up!();
                        continue;
                    }
                }
                $(
                    if callee == Value::UNBOUND {
                        trap!(unbound(mem, $cell));
                    }
                )?
                // The general way wants the call above the frame, which is still needed if this is an error.
                let nf = fp + code::frame(instruction(mem, code, code::META));
                stack[nf + 1] = callee;
                stack.copy_within(fp + 2..fp + 2 + count, nf + 2);
                slow_call!(nf, count, true);
            }};
        }
        macro_rules! arithmetic {
            ($word:expr, $checked:ident, $float:tt, $general:path) => {{
                let (x, y) = (r!(b($word)), r!(c($word)));
                let value = if (x.bits() | y.bits()) & 7 == 0
                    && let Some(sum) = (x.bits() as i64).$checked(y.bits() as i64)
                {
                    Value::from_fixnum_bits(sum as u64)
                } else if let (Some(x), Some(y)) = (x.as_flonum(), y.as_flonum()) {
                    check!(mem.flonum(x $float y))
                } else {
                    check!($general(mem, x, y))
                };
                r!(a($word)) = value;
            }};
        }
        macro_rules! compare {
            ($word:expr, $x:expr, $y:expr, $op:tt, $ordering:pat, $wanted:expr) => {{
                let (x, y): (Value<'m>, Value<'m>) = ($x, $y);
                let holds = if (x.bits() | y.bits()) & 7 == 0 {
                    (x.bits() as i64) $op (y.bits() as i64)
                } else if let (Some(x), Some(y)) = (x.as_flonum(), y.as_flonum()) {
                    x $op y
                } else {
                    matches!(check!(numbers::compare(mem, x, y)), Some($ordering))
                };
                if holds == $wanted {
                    jump!(signed_c($word));
                }
            }};
        }
        macro_rules! pair {
            ($value:expr) => {{
                let value: Value<'m> = $value;
                match value.as_pair() {
                    Some(pair) => pair,
                    None => trap!(wrong_type("a pair", value)),
                }
            }};
        }
        loop {
            if ONCE {
                if done {
                    store!();
                    return Flow::Go;
                }
                done = true;
            }
            let word = instruction(mem, code, pc);
            pc += 1;
            match op(word) {
                MOVE => r!(a(word)) = r!(b(word)),
                CONST => r!(a(word)) = word_of(mem, code, c(word)),
                INT => r!(a(word)) = Value::fixnum(bc(word) as i64),
                FREE => {
                    if let Some(closure) = r!(1).as_closure() {
                        r!(a(word)) = mem.element(closure, b(word) + 1);
                    }
                }
                CELL_REF | FREE_CELL_REF => {
                    let cell = if op(word) == CELL_REF {
                        r!(b(word))
                    } else if let Some(closure) = r!(1).as_closure() {
                        mem.element(closure, b(word) + 1)
                    } else {
                        Value::UNBOUND
                    };
                    let value = cell_value(mem, cell);
                    if value == Value::UNBOUND {
                        trap!(error("a variable is used before its definition", &[]));
                    }
                    r!(a(word)) = value;
                }
                CELL_SET | FREE_CELL_SET => {
                    let cell = if op(word) == CELL_SET {
                        r!(a(word))
                    } else if let Some(closure) = r!(1).as_closure() {
                        mem.element(closure, a(word) + 1)
                    } else {
                        Value::UNBOUND
                    };
                    if let Some(cell) = cell.as_cell() {
                        cell.value.store(mem.scope(), r!(b(word)).into());
                    }
                }
                CELL_NEW => r!(a(word)) = check!(mem.cell(r!(b(word)), Value::FALSE)),
                GLOBAL => {
                    let cell = word_of(mem, code, c(word));
                    let value = cell_value(mem, cell);
                    if value == Value::UNBOUND {
                        trap!(unbound(mem, cell));
                    }
                    r!(a(word)) = value;
                }
                GLOBAL_SET | GLOBAL_DEFINE => {
                    let cell = word_of(mem, code, c(word));
                    if op(word) == GLOBAL_SET && cell_value(mem, cell) == Value::UNBOUND {
                        trap!(unbound(mem, cell));
                    }
                    if let Some(cell) = cell.as_cell() {
                        cell.value.store(mem.scope(), r!(a(word)).into());
                    }
                }
                CLOSURE => {
                    let count = b(word);
                    let captured = |index: usize| {
                        let which = instruction(mem, code, pc + index - 1);
                        if b(which) == 0 {
                            r!(a(which))
                        } else {
                            match r!(1).as_closure() {
                                Some(closure) => mem.element(closure, a(which) + 1),
                                None => Value::UNBOUND,
                            }
                        }
                    };
                    let target = word_of(mem, code, c(word));
                    let made =
                        mem.array(
                            count + 1,
                            |index| if index == 0 { target } else { captured(index) },
                        );
                    r!(a(word)) = Value::closure(check!(made));
                    pc += count;
                }
                CLOSURE_PATCH => {
                    if let Some(closure) = r!(a(word)).as_closure() {
                        closure.store(mem.scope(), b(word) + 1, r!(c(word)).into());
                    }
                }
                JUMP => jump!(bc(word)),
                LOOP => {
                    jump!(bc(word));
                    look_up!();
                }
                JUMP_IF_FALSE => {
                    if !r!(a(word)).is_true() {
                        jump!(bc(word));
                    }
                }
                JUMP_IF_TRUE => {
                    if r!(a(word)).is_true() {
                        jump!(bc(word));
                    }
                }
                JUMP_IF_NULL => {
                    if r!(a(word)).is_nil() {
                        jump!(bc(word));
                    }
                }
                JUMP_UNLESS_NULL => {
                    if !r!(a(word)).is_nil() {
                        jump!(bc(word));
                    }
                }
                JUMP_IF_PAIR => {
                    if r!(a(word)).is_pair() {
                        jump!(bc(word));
                    }
                }
                JUMP_UNLESS_PAIR => {
                    if !r!(a(word)).is_pair() {
                        jump!(bc(word));
                    }
                }
                JUMP_IF_EQ => {
                    if r!(a(word)) == r!(b(word)) {
                        jump!(signed_c(word));
                    }
                }
                JUMP_UNLESS_EQ => {
                    if r!(a(word)) != r!(b(word)) {
                        jump!(signed_c(word));
                    }
                }
                JUMP_IF_EQ_CONST => {
                    if r!(a(word)) == word_of(mem, code, b(word)) {
                        jump!(signed_c(word));
                    }
                }
                JUMP_UNLESS_EQ_CONST => {
                    if r!(a(word)) != word_of(mem, code, b(word)) {
                        jump!(signed_c(word));
                    }
                }
                JUMP_IF_LT => compare!(word, r!(a(word)), r!(b(word)), <, Ordering::Less, true),
                JUMP_UNLESS_LT => {
                    compare!(word, r!(a(word)), r!(b(word)), <, Ordering::Less, false)
                }
                JUMP_IF_LE => {
                    compare!(word, r!(a(word)), r!(b(word)), <=, Ordering::Less | Ordering::Equal, true);
                }
                JUMP_UNLESS_LE => {
                    compare!(word, r!(a(word)), r!(b(word)), <=, Ordering::Less | Ordering::Equal, false);
                }
                JUMP_IF_NUM_EQ => {
                    compare!(word, r!(a(word)), r!(b(word)), ==, Ordering::Equal, true)
                }
                JUMP_UNLESS_NUM_EQ => {
                    compare!(word, r!(a(word)), r!(b(word)), ==, Ordering::Equal, false)
                }
                JUMP_IF_LT_INT => {
                    compare!(word, r!(a(word)), Value::fixnum(signed_b(word)), <, Ordering::Less, true);
                }
                JUMP_UNLESS_LT_INT => {
                    compare!(word, r!(a(word)), Value::fixnum(signed_b(word)), <, Ordering::Less, false);
                }
                JUMP_IF_GT_INT => {
                    compare!(word, r!(a(word)), Value::fixnum(signed_b(word)), >, Ordering::Greater, true);
                }
                JUMP_UNLESS_GT_INT => {
                    compare!(word, r!(a(word)), Value::fixnum(signed_b(word)), >, Ordering::Greater, false);
                }
                JUMP_IF_NUM_EQ_INT => {
                    compare!(word, r!(a(word)), Value::fixnum(signed_b(word)), ==, Ordering::Equal, true);
                }
                JUMP_UNLESS_NUM_EQ_INT => {
                    compare!(word, r!(a(word)), Value::fixnum(signed_b(word)), ==, Ordering::Equal, false);
                }
                CALL => call!(r!(a(word) + 1), word),
                CALL_GLOBAL => {
                    let cell = word_of(mem, code, c(word));
                    call!(cell_value(mem, cell), word, cell);
                }
                TAIL_CALL => tail_call!(r!(a(word)), word),
                TAIL_CALL_GLOBAL => {
                    let cell = word_of(mem, code, c(word));
                    tail_call!(cell_value(mem, cell), word, cell);
                }
                RETURN => {
                    let value = r!(a(word));
                    let back = r!(0);
                    if let Some(back) = back.as_fixnum() {
                        r!(0) = value;
                        fp -= frame_below(back as usize);
                        pc = back as usize >> 16;
                        frame = window(stack, fp);
                        code = code_of(mem, r!(1));
                    } else {
                        if let Some(exit) = self.underflow(stack, value) {
                            // The frame is done with; what is saved of it does not matter.
                            return Flow::Exit(exit);
                        }
                        load!();
                    }
                }
                BUILTIN => {
                    let builtin = &mem.world().builtins()[b(word)];
                    let at = a(word) % WINDOW;
                    match (builtin.native)(mem, &frame[at..][..c(word)]) {
                        Ok(value) => frame[at] = value,
                        Err(trap) => trap!(with_name(builtin.name, trap)),
                    }
                }
                CAR => r!(a(word)) = mem.car(pair!(r!(b(word)))),
                CDR => r!(a(word)) = mem.cdr(pair!(r!(b(word)))),
                CAAR => r!(a(word)) = mem.car(pair!(mem.car(pair!(r!(b(word)))))),
                CADR => r!(a(word)) = mem.car(pair!(mem.cdr(pair!(r!(b(word)))))),
                CDAR => r!(a(word)) = mem.cdr(pair!(mem.car(pair!(r!(b(word)))))),
                CDDR => r!(a(word)) = mem.cdr(pair!(mem.cdr(pair!(r!(b(word)))))),
                CONS => r!(a(word)) = check!(mem.cons(r!(b(word)), r!(c(word)))),
                SET_CAR => pair!(r!(a(word))).car.store(mem.scope(), r!(b(word)).into()),
                SET_CDR => pair!(r!(a(word))).cdr.store(mem.scope(), r!(b(word)).into()),
                ADD => arithmetic!(word, checked_add, +, numbers::add),
                SUB => arithmetic!(word, checked_sub, -, numbers::sub),
                MUL => {
                    let (x, y) = (r!(b(word)), r!(c(word)));
                    let value = if (x.bits() | y.bits()) & 7 == 0
                        && let Some(product) = (x.bits() as i64 >> 3).checked_mul(y.bits() as i64)
                    {
                        Value::from_fixnum_bits(product as u64)
                    } else if let (Some(x), Some(y)) = (x.as_flonum(), y.as_flonum()) {
                        check!(mem.flonum(x * y))
                    } else {
                        check!(numbers::mul(mem, x, y))
                    };
                    r!(a(word)) = value;
                }
                ADD_INT => {
                    let x = r!(b(word));
                    let y = Value::fixnum(signed_c(word) as i64);
                    let value = if x.is_fixnum()
                        && let Some(sum) = (x.bits() as i64).checked_add(y.bits() as i64)
                    {
                        Value::from_fixnum_bits(sum as u64)
                    } else if let Some(x) = x.as_flonum() {
                        check!(mem.flonum(x + signed_c(word) as f64))
                    } else {
                        check!(numbers::add(mem, x, y))
                    };
                    r!(a(word)) = value;
                }
                QUOTIENT | REMAINDER | MODULO => {
                    let (x, y) = (r!(b(word)), r!(c(word)));
                    let value = if let (Some(x), Some(y)) = (x.as_fixnum(), y.as_fixnum())
                        && y != 0
                        && y != -1
                    {
                        Value::fixnum(match op(word) {
                            QUOTIENT => x / y,
                            REMAINDER => x % y,
                            _ => {
                                let remainder = x % y;
                                if remainder != 0 && (remainder < 0) != (y < 0) {
                                    remainder + y
                                } else {
                                    remainder
                                }
                            }
                        })
                    } else {
                        check!(match op(word) {
                            QUOTIENT => numbers::quotient(mem, x, y),
                            REMAINDER => numbers::remainder(mem, x, y),
                            _ => numbers::modulo(mem, x, y),
                        })
                    };
                    r!(a(word)) = value;
                }
                VECTOR_REF => {
                    let (vector, index) = (r!(b(word)), r!(c(word)));
                    let Some(array) = vector.as_vector() else {
                        trap!(wrong_type("a vector", vector))
                    };
                    match index.as_fixnum() {
                        Some(at) if (at as usize) < array.len() => {
                            r!(a(word)) = mem.element(array, at as usize)
                        }
                        Some(_) => trap!(out_of_range("vector index", index)),
                        None => trap!(wrong_type("an index", index)),
                    }
                }
                VECTOR_SET => {
                    let (vector, index) = (r!(a(word)), r!(b(word)));
                    let Some(array) = vector.as_vector() else {
                        trap!(wrong_type("a vector", vector))
                    };
                    match index.as_fixnum() {
                        Some(at) if (at as usize) < array.len() => {
                            array.store(mem.scope(), at as usize, r!(c(word)).into());
                        }
                        Some(_) => trap!(out_of_range("vector index", index)),
                        None => trap!(wrong_type("an index", index)),
                    }
                }
                VECTOR_LENGTH => {
                    let vector = r!(b(word));
                    let Some(array) = vector.as_vector() else {
                        trap!(wrong_type("a vector", vector))
                    };
                    r!(a(word)) = Value::fixnum(array.len() as i64);
                }
                STRING_REF => {
                    let (string, index) = (r!(b(word)), r!(c(word)));
                    let Some(text) = mem.object::<StringObject>(string) else {
                        trap!(wrong_type("a string", string))
                    };
                    match index.as_fixnum() {
                        Some(at) if (at as usize) < text.len() => {
                            r!(a(word)) = Value::char(character(text.get(at as usize)));
                        }
                        Some(_) => trap!(out_of_range("string index", index)),
                        None => trap!(wrong_type("an index", index)),
                    }
                }
                other => bad_instruction(other),
            }
        }
    }
}

/// Whether a comparison jumps if what it compares are in this order; `None` if the instruction is no comparison.
pub(super) fn jumps(op: u8, order: Ordering) -> Option<bool> {
    Some(match op {
        JUMP_IF_LT | JUMP_IF_LT_INT => order.is_lt(),
        JUMP_UNLESS_LT | JUMP_UNLESS_LT_INT => !order.is_lt(),
        JUMP_IF_LE => order.is_le(),
        JUMP_UNLESS_LE => !order.is_le(),
        JUMP_IF_GT_INT => order.is_gt(),
        JUMP_UNLESS_GT_INT => !order.is_gt(),
        JUMP_IF_NUM_EQ | JUMP_IF_NUM_EQ_INT => order.is_eq(),
        JUMP_UNLESS_NUM_EQ | JUMP_UNLESS_NUM_EQ_INT => !order.is_eq(),
        _ => return None,
    })
}

pub(super) fn return_word<'m>(pc: usize, delta: usize) -> Value<'m> {
    Value::fixnum((pc << 16 | delta) as i64)
}

/// The frame that begins at `fp`, and what lies above it.
#[inline(always)]
fn window<'a, 'm>(
    stack: &'a mut [Value<'m>; STACK + WINDOW],
    fp: usize,
) -> &'a mut [Value<'m>; WINDOW] {
    if fp > STACK {
        beyond();
    }
    stack[fp..].first_chunk_mut().expect("checked above")
}

#[inline(always)]
fn instruction<'m>(mem: Mem<'m, '_>, code: Code<'m>, index: usize) -> u64 {
    word_of(mem, code, index).bits()
}

/// What a return word says of how far below the caller's frame begins.
#[inline(always)]
pub(super) fn frame_below(word: usize) -> usize {
    word & 0xffff
}

#[cold]
#[inline(never)]
fn beyond() -> ! {
    panic!("a frame begins beyond the stack: the machine is broken")
}

#[cold]
#[inline(never)]
fn bad_instruction(op: u8) -> ! {
    panic!("{op} is no instruction: the compiler is broken")
}

#[inline(always)]
pub(super) fn cell_value<'m>(mem: Mem<'m, '_>, cell: Value<'m>) -> Value<'m> {
    match cell.as_cell() {
        Some(cell) => {
            let cell: &Cell = &cell;
            cell.value.load(mem.scope()).into()
        }
        None => Value::UNBOUND,
    }
}
