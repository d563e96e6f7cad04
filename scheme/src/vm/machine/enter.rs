//! Calls, the general way: every kind of callee, any number of arguments.
//!
//! The instructions that call enter a closure of the right number of arguments themselves ([`super::execute`]);
//! everything else comes here: procedures with rest parameters or several clauses, builtins, continuations,
//! parameters, a stack that is full, and the builtins that are about control (`apply`, `call/cc`, ...).
//!
//! The caller has put the callee at `frame + 1` and the arguments behind it. Invariant: when it traps, `frame`, `count`,
//! `tail` and the stack say what is still to be entered, and it is tried again from there; so each step allocates
//! whatever it needs before it changes anything.
//!
//! Called by the instructions, when a stretch begins with a call, and for the procedure that raises errors.

use super::execute::{cell_value, return_word};
use super::traps::with_name;
use super::{Exit, Flow, Machine, Resume, STACK, Stack, code_of, register, word};
use crate::builtins::Control;
use crate::compile::ops::code;
use crate::mem::{Mem, Spare};
use crate::object::{Continuation, MultipleValues, Parameter};
use crate::trap::{Trap, error, error_of, wrong_type};
use crate::value::Value;

const NATIVE_RESULT: usize = usize::MAX - 1;

impl<'m> Machine<'m, '_, '_> {
    pub(super) fn enter_or_handle(
        &mut self,
        stack: Stack<'_, 'm>,
        frame: usize,
        count: usize,
        tail: bool,
    ) -> Option<Exit> {
        let (mut frame, mut count, mut tail) = (frame, count, tail);
        match self.enter(stack, &mut frame, &mut count, &mut tail) {
            Flow::Go => None,
            Flow::Exit(exit) => Some(exit),
            Flow::Trap(trap) => {
                let retry = Resume::Enter { frame, count, tail };
                self.handle(stack, trap, retry, Resume::Deliver { frame, tail }, false)
            }
        }
    }

    /// The result of a call whose frame would begin at `frame`.
    pub(super) fn deliver(
        &mut self,
        stack: Stack<'_, 'm>,
        frame: usize,
        tail: bool,
        value: Value<'m>,
    ) -> Option<Exit> {
        if !tail {
            stack[frame] = value;
            return None;
        }
        self.return_value(stack, value)
    }

    /// Enters the callee at `frame + 1` with `count` arguments behind it: the general way, for all kinds of callees.
    /// The three are up to date when it traps, so that it can be tried again.
    #[inline(never)]
    fn enter(
        &mut self,
        stack: Stack<'_, 'm>,
        frame: &mut usize,
        count: &mut usize,
        tail: &mut bool,
    ) -> Flow<'m> {
        macro_rules! check {
            ($result:expr) => {
                match $result {
                    Ok(value) => value,
                    Err(trap) => return Flow::Trap(trap),
                }
            };
        }
        macro_rules! deliver {
            ($value:expr) => {{
                let value = $value;
                return match self.deliver(stack, *frame, *tail, value) {
                    None => Flow::Go,
                    Some(exit) => Flow::Exit(exit),
                };
            }};
        }
        let mem = self.mem;
        loop {
            let nf = *frame;
            let callee = stack[nf + 1];
            if let Some(closure) = callee.as_closure() {
                let code = code_of(mem, callee);
                let meta = word(mem, code, code::META).bits();
                let arity = code::arity(meta);
                if arity == code::CASE {
                    let chosen = (1..closure.len()).map(|index| mem.element(closure, index)).find(
                        |&clause| {
                            let code = code_of(mem, clause);
                            accepts(code::arity(word(mem, code, code::META).bits()), *count)
                        },
                    );
                    match chosen {
                        Some(clause) => stack[nf + 1] = clause,
                        None => return Flow::Trap(wrong_count(mem, callee, *count)),
                    }
                    continue;
                }
                if !accepts(arity, *count) {
                    return Flow::Trap(wrong_count(mem, callee, *count));
                }
                let least = (arity & !code::REST) as usize;
                let rest = if arity & code::REST != 0 {
                    Some(check!(mem.list(&stack[nf + 2 + least..nf + 2 + *count])))
                } else {
                    None
                };
                let size = code::frame(meta);
                let words = 2 + least + usize::from(rest.is_some());
                let target = if *tail { self.fp } else { nf };
                let back = if *tail { stack[self.fp] } else { return_word(self.pc, nf - self.fp) };
                let mut at = target;
                if target + size > STACK {
                    if back != Value::UNDERFLOW {
                        check!(self.spill(stack, target, back));
                    }
                    at = 0;
                    stack[0] = Value::UNDERFLOW;
                } else {
                    stack[target] = back;
                }
                if let Some(rest) = rest {
                    stack[nf + 2 + least] = rest;
                }
                stack.copy_within(nf + 1..nf + words, at + 1);
                self.fp = at;
                self.code = code;
                self.pc = code::entry(meta);
                return Flow::Go;
            }
            if let Some(number) = callee.as_primitive() {
                let builtin = &mem.world().builtins()[number];
                if !builtin.takes(*count) {
                    return Flow::Trap(error_of(
                        "arity",
                        format!("{}: {}, not {}", builtin.name, builtin.wants(), *count),
                        &[],
                    ));
                }
                let Some(control) = builtin.control else {
                    let value = check!(
                        (builtin.native)(mem, &stack[nf + 2..nf + 2 + *count])
                            .map_err(|trap| with_name(builtin.name, trap))
                    );
                    deliver!(value);
                };
                match control {
                    Control::Apply => {
                        let last = stack[nf + 1 + *count];
                        let Some(spread) = mem.elements(last) else {
                            return Flow::Trap(wrong_type("a list", last));
                        };
                        let fixed = *count - 2;
                        let total = fixed + spread.len();
                        if nf + 2 + total > STACK {
                            let far =
                                check!(self.apply_many(stack, nf, fixed, &spread, frame, tail));
                            *count = far;
                            if let Some(done) = self.take_native_result() {
                                deliver!(done);
                            }
                            continue;
                        }
                        stack[nf + 1] = stack[nf + 2];
                        stack.copy_within(nf + 3..nf + 3 + fixed, nf + 2);
                        stack[nf + 2 + fixed..nf + 2 + total].copy_from_slice(&spread);
                        *count = total;
                    }
                    Control::ApplyValues => {
                        let (consumer, values) = (stack[nf + 2], stack[nf + 3]);
                        stack[nf + 1] = consumer;
                        if let Some(many) = mem.object::<MultipleValues>(values) {
                            let many: &MultipleValues = &many;
                            let list = many.list.load(mem.scope()).into();
                            let spread = mem.elements(list).expect("values are a list");
                            if nf + 2 + spread.len() > STACK {
                                return Flow::Trap(error("too many values", &[]));
                            }
                            stack[nf + 2..nf + 2 + spread.len()].copy_from_slice(&spread);
                            *count = spread.len();
                        } else {
                            stack[nf + 2] = values;
                            *count = 1;
                        }
                    }
                    Control::CallCc => {
                        let (base, back) = if *tail {
                            (self.fp, stack[self.fp])
                        } else {
                            (nf, return_word(self.pc, nf - self.fp))
                        };
                        // Both objects first, then the change: this may be done again.
                        let (segment, top, back) = if back == Value::UNDERFLOW {
                            (self.segment, self.top, self.back)
                        } else if base == 0 {
                            (self.segment, self.top, back)
                        } else {
                            (check!(self.make_segment(stack, base)), base + 3, back)
                        };
                        let zero = || firn::Tagged::new(0);
                        let empty = Continuation {
                            segment: zero(),
                            top,
                            back: zero(),
                            winders: zero(),
                            handlers: zero(),
                            parameters: zero(),
                        };
                        let this = &*self;
                        let continuation = check!(mem.make(empty, |k| {
                            k.set(&k.segment, segment.into());
                            k.set(&k.back, back.into());
                            k.set(&k.winders, this.winders.into());
                            k.set(&k.handlers, this.handlers.into());
                            k.set(&k.parameters, this.parameters.into());
                        }));
                        (self.segment, self.top, self.back) = (segment, top, back);
                        self.along = 0;
                        let receiver = stack[nf + 2];
                        // The callee's frame is the lowest from here on, and replaces none.
                        stack[0] = Value::UNDERFLOW;
                        self.fp = 0;
                        *frame = 0;
                        *tail = true;
                        let nf = 0;
                        stack[nf + 2] = receiver;
                        stack[nf + 1] = stack[nf + 2];
                        stack[nf + 2] = continuation;
                        *count = 1;
                    }
                    Control::Throw => {
                        // (%throw continuation list): no winding.
                        let (k, values) = (stack[nf + 2], stack[nf + 3]);
                        let Some(values) = mem.elements(values) else {
                            return Flow::Trap(wrong_type("a list", values));
                        };
                        let Some(k) = mem.object::<Continuation>(k) else {
                            return Flow::Trap(wrong_type("a continuation", k));
                        };
                        let value = check!(multiple(mem, &values));
                        return match self.throw(stack, k, value) {
                            None => Flow::Go,
                            Some(exit) => Flow::Exit(exit),
                        };
                    }
                    Control::Winders => deliver!(self.winders),
                    Control::SetWinders => {
                        self.winders = stack[nf + 2];
                        deliver!(Value::UNSPECIFIED)
                    }
                    Control::Handlers => deliver!(self.handlers),
                    Control::SetHandlers => {
                        self.handlers = stack[nf + 2];
                        deliver!(Value::UNSPECIFIED)
                    }
                    Control::Parameters => deliver!(self.parameters),
                    Control::SetParameters => {
                        self.parameters = stack[nf + 2];
                        deliver!(Value::UNSPECIFIED)
                    }
                    Control::CurrentThread => {
                        deliver!(mem.element(self.registers, register::THREAD))
                    }
                    Control::Uncaught => {
                        let object = stack[nf + 2];
                        return Flow::Exit(self.uncaught(stack, object));
                    }
                    Control::Trace => {
                        deliver!(check!(self.trace(stack, self.pc)))
                    }
                }
                continue;
            }
            if let Some(k) = mem.object::<Continuation>(callee) {
                let winders: Value<'m> = {
                    let k: &Continuation = &k;
                    k.winders.load(mem.scope()).into()
                };
                if winders == self.winders {
                    let value = check!(multiple(mem, &stack[nf + 2..nf + 2 + *count]));
                    return match self.throw(stack, k, value) {
                        None => Flow::Go,
                        Some(exit) => Flow::Exit(exit),
                    };
                }
                let list = check!(mem.list(&stack[nf + 2..nf + 2 + *count]));
                stack[nf + 1] = self.hook(register::REWIND);
                stack[nf + 2] = callee;
                stack[nf + 3] = list;
                *count = 2;
                continue;
            }
            if let Some(parameter) = mem.object::<Parameter>(callee) {
                if *count != 0 {
                    return Flow::Trap(error("a parameter takes no arguments", &[]));
                }
                let mut bindings = self.parameters;
                while let Some(pair) = bindings.as_pair() {
                    if let Some(binding) = mem.car(pair).as_pair()
                        && mem.car(binding) == callee
                    {
                        deliver!(cell_value(mem, mem.cdr(binding)));
                    }
                    bindings = mem.cdr(pair);
                }
                let parameter: &Parameter = &parameter;
                let value: Value<'m> = parameter.value.load(mem.scope()).into();
                deliver!(value);
            }
            return Flow::Trap(error_of("type", "not a procedure", &[callee]));
        }
    }

    fn hook(&self, register: usize) -> Value<'m> {
        cell_value(self.mem, self.mem.element(self.registers, register))
    }

    fn take_native_result(&mut self) -> Option<Value<'m>> {
        match self.spare.take() {
            Some(Spare { value, left: NATIVE_RESULT }) => Some(value),
            other => {
                self.spare.set(other);
                None
            }
        }
    }

    /// `apply` with more arguments than the stack has room for: a builtin takes them from a list made here, a
    /// closure with a rest parameter gets that list.
    fn apply_many(
        &mut self,
        stack: Stack<'_, 'm>,
        nf: usize,
        fixed: usize,
        spread: &[Value<'m>],
        frame: &mut usize,
        tail: &mut bool,
    ) -> crate::trap::Result<'m, usize> {
        let mem = self.mem;
        let callee = stack[nf + 2];
        let mut all = stack[nf + 3..nf + 3 + fixed].to_vec();
        all.extend_from_slice(spread);
        if let Some(number) = callee.as_primitive() {
            let builtin = &mem.world().builtins()[number];
            if builtin.control.is_none() && builtin.takes(all.len()) {
                let value =
                    (builtin.native)(mem, &all).map_err(|trap| with_name(builtin.name, trap))?;
                self.spare.set(Some(Spare { value, left: NATIVE_RESULT }));
                return Ok(all.len());
            }
        }
        if callee.as_closure().is_some() {
            let code = code_of(mem, callee);
            let meta = word(mem, code, code::META).bits();
            let arity = code::arity(meta);
            let least = (arity & !code::REST) as usize;
            if arity != code::CASE && arity & code::REST != 0 && least < 100 && all.len() >= least {
                // The frame is made here: the general way would want the arguments on the stack.
                let rest = mem.list(&all[least..])?;
                let back = if *tail { stack[self.fp] } else { return_word(self.pc, nf - self.fp) };
                let base = if *tail { self.fp } else { nf };
                if back != Value::UNDERFLOW {
                    self.spill(stack, base, back)?;
                }
                stack[0] = Value::UNDERFLOW;
                stack[1] = callee;
                stack[2..2 + least].copy_from_slice(&all[..least]);
                stack[2 + least] = rest;
                self.fp = 0;
                self.code = code;
                self.pc = code::entry(meta);
                // Entered already: what remains to be done is a call of something that returns at once.
                *frame = code::frame(meta);
                *tail = false;
                let here = *frame;
                stack[here + 1] = Value::primitive(mem.world().number_of("void") as u32);
                return Ok(0);
            }
        }
        Err(error("apply: too many arguments", &[callee]))
    }
}

fn accepts(arity: u16, count: usize) -> bool {
    let least = (arity & !code::REST) as usize;
    if arity & code::REST != 0 { count >= least } else { count == least }
}

#[cold]
#[inline(never)]
fn wrong_count<'m>(mem: Mem<'m, '_>, callee: Value<'m>, count: usize) -> Trap<'m> {
    let code = code_of(mem, callee);
    let name = word(mem, code, code::NAME).as_symbol().map(|name| name.name().to_string());
    let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| "a procedure".to_string());
    let arity = code::arity(word(mem, code, code::META).bits());
    let least = (arity & !code::REST) as usize;
    let wants = match arity {
        code::CASE => "has no clause for so many arguments".to_string(),
        _ if arity & code::REST != 0 => format!("takes {least} or more arguments"),
        _ => format!("takes {least} argument{}", if least == 1 { "" } else { "s" }),
    };
    error_of("arity", format!("{name}: {wants}, not {count}"), &[])
}

/// One value as itself, several as an object.
pub fn multiple<'m>(mem: Mem<'m, '_>, values: &[Value<'m>]) -> crate::trap::Result<'m> {
    if let [value] = values {
        return Ok(*value);
    }
    let list = mem.list(values)?;
    mem.make(MultipleValues { list: firn::Tagged::new(0) }, |many| {
        many.set(&many.list, list.into())
    })
}
