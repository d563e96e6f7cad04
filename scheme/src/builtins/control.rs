//! Procedures, continuations, conditions, parameters, promises, evaluation.

use super::{Builtin, Control, args};
use crate::mem::Mem;
use crate::object::*;
use crate::symbol::Symbol;
use crate::trap::{Result, TrapKind, wrong_type};
use crate::value::Value;
use crate::vm::machine::{multiple, trace_text};

fn is_procedure<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> bool {
    value.as_closure().is_some()
        || value.as_primitive().is_some()
        || mem.object::<Continuation>(value).is_some()
        || mem.object::<Parameter>(value).is_some()
}

fn condition<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m, firn::Gc<'m, Condition>> {
    mem.object(value).ok_or_else(|| wrong_type("an error object", value))
}

fn is_kind<'m>(mem: Mem<'m, '_>, value: Value<'m>, name: &str) -> bool {
    mem.object::<Condition>(value).is_some_and(|condition| {
        let condition: &Condition = &condition;
        let kind = Value::from(condition.kind.load(mem.scope()));
        kind.as_symbol() == Some(Symbol::intern(name))
    })
}

/// An error object. `trace` is what [`Control::Trace`] gives, or `#f`.
pub fn condition_of<'m>(
    mem: Mem<'m, '_>,
    kind: &str,
    message: &str,
    irritants: &[Value<'m>],
    trace: Value<'m>,
) -> Result<'m> {
    let irritants = mem.list(irritants)?;
    let message = mem.string(message)?;
    make_condition(mem, [trace, Value::symbol(Symbol::intern(kind)), message, irritants])
}

fn make_condition<'m>(mem: Mem<'m, '_>, parts: [Value<'m>; 4]) -> Result<'m> {
    let zero = || firn::Tagged::new(0);
    let empty = Condition { kind: zero(), message: zero(), irritants: zero(), trace: zero() };
    mem.make(empty, |condition| {
        let slots = [&condition.trace, &condition.kind, &condition.message, &condition.irritants];
        for (slot, part) in slots.into_iter().zip(parts) {
            condition.set(slot, part.into());
        }
    })
}

fn promise<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m, firn::Gc<'m, Promise>> {
    mem.object(value).ok_or_else(|| wrong_type("a promise", value))
}

/// Builtins of this file.
pub const TABLE: &[Builtin] = &[
    Builtin::control("apply", 2, Builtin::MANY, Control::Apply),
    Builtin::control("%apply-values", 2, 2, Control::ApplyValues),
    Builtin::control("call-with-current-continuation", 1, 1, Control::CallCc),
    Builtin::control("call/cc", 1, 1, Control::CallCc),
    Builtin::control("%throw", 2, 2, Control::Throw),
    Builtin::control("%winders", 0, 0, Control::Winders),
    Builtin::control("%set-winders!", 1, 1, Control::SetWinders),
    Builtin::control("%handlers", 0, 0, Control::Handlers),
    Builtin::control("%set-handlers!", 1, 1, Control::SetHandlers),
    Builtin::control("%parameters", 0, 0, Control::Parameters),
    Builtin::control("%set-parameters!", 1, 1, Control::SetParameters),
    Builtin::control("%uncaught", 1, 1, Control::Uncaught),
    Builtin::control("%trace", 0, 0, Control::Trace),
    Builtin::control("current-thread", 0, 0, Control::CurrentThread),
    Builtin::new("%continuation-winders", 1, 1, |mem, a| {
        let k =
            mem.object::<Continuation>(a[0]).ok_or_else(|| wrong_type("a continuation", a[0]))?;
        let k: &Continuation = &k;
        Ok(k.winders.load(mem.scope()).into())
    }),
    Builtin::new("values", 0, Builtin::MANY, multiple),
    Builtin::new("procedure?", 1, 1, |mem, a| Ok(Value::boolean(is_procedure(mem, a[0])))),
    Builtin::new("void", 0, Builtin::MANY, |_, _| Ok(Value::UNSPECIFIED)),
    Builtin::new("%compile", 1, 2, crate::vm::load::compile_builtin),
    Builtin::new("%compile-file", 2, 2, |mem, a| {
        let name = mem.text(args::string(mem, a[0])?);
        let env = a[1].as_environment().ok_or_else(|| wrong_type("an environment", a[1]))?;
        Err(TrapKind::Outside(Box::new(move |vm| vm.compile_file(&name, env))).into())
    }),
    // (%make-condition trace kind message irritant ...)
    Builtin::new("%make-condition", 3, Builtin::MANY, |mem, a| {
        let irritants = mem.list(&a[3..])?;
        make_condition(mem, [a[0], a[1], a[2], irritants])
    }),
    Builtin::new("error-object?", 1, 1, |mem, a| {
        Ok(Value::boolean(mem.object::<Condition>(a[0]).is_some()))
    }),
    Builtin::new("error-object-message", 1, 1, |mem, a| {
        let condition = condition(mem, a[0])?;
        let condition: &Condition = &condition;
        Ok(condition.message.load(mem.scope()).into())
    }),
    Builtin::new("error-object-irritants", 1, 1, |mem, a| {
        let condition = condition(mem, a[0])?;
        let condition: &Condition = &condition;
        Ok(condition.irritants.load(mem.scope()).into())
    }),
    Builtin::new("%condition-kind", 1, 1, |mem, a| {
        let condition = condition(mem, a[0])?;
        let condition: &Condition = &condition;
        Ok(condition.kind.load(mem.scope()).into())
    }),
    // Procedures and places, innermost first, as text.
    Builtin::new("error-object-trace", 1, 1, |mem, a| {
        let condition = condition(mem, a[0])?;
        let condition: &Condition = &condition;
        let mut lines = Vec::new();
        for line in trace_text(mem, condition.trace.load(mem.scope()).into()) {
            lines.push(mem.string(&line)?);
        }
        mem.list(&lines)
    }),
    Builtin::new("read-error?", 1, 1, |mem, a| Ok(Value::boolean(is_kind(mem, a[0], "read")))),
    Builtin::new("file-error?", 1, 1, |mem, a| Ok(Value::boolean(is_kind(mem, a[0], "file")))),
    Builtin::new("condition-report-string", 1, 1, |mem, a| {
        mem.string(&crate::print::describe_error(mem, a[0]))
    }),
    Builtin::new("%make-parameter", 2, 2, |mem, a| {
        let zero = || firn::Tagged::new(0);
        mem.make(Parameter { value: zero(), converter: zero() }, |parameter| {
            parameter.set(&parameter.value, a[0].into());
            parameter.set(&parameter.converter, a[1].into());
        })
    }),
    Builtin::new("%parameter-converter", 1, 1, |mem, a| {
        let parameter =
            mem.object::<Parameter>(a[0]).ok_or_else(|| wrong_type("a parameter", a[0]))?;
        let parameter: &Parameter = &parameter;
        Ok(parameter.converter.load(mem.scope()).into())
    }),
    Builtin::new("%make-cell", 1, 1, |mem, a| mem.cell(a[0], Value::FALSE)),
    Builtin::new("box", 1, 1, |mem, a| mem.cell(a[0], Value::FALSE)),
    Builtin::new("box?", 1, 1, |_, a| Ok(Value::boolean(a[0].as_cell().is_some()))),
    Builtin::new("unbox", 1, 1, |mem, a| {
        let cell = a[0].as_cell().ok_or_else(|| wrong_type("a box", a[0]))?;
        let cell: &Cell = &cell;
        Ok(cell.value.load(mem.scope()).into())
    }),
    Builtin::new("set-box!", 2, 2, |mem, a| {
        let cell = a[0].as_cell().ok_or_else(|| wrong_type("a box", a[0]))?;
        cell.value.store(mem.scope(), a[1].into());
        Ok(Value::UNSPECIFIED)
    }),
    Builtin::new("%make-promise", 2, 2, |mem, a| {
        let state = mem.cons(a[0], a[1])?;
        mem.make(Promise { state: firn::Tagged::new(0) }, |promise| {
            promise.set(&promise.state, state.into());
        })
    }),
    Builtin::new("promise?", 1, 1, |mem, a| {
        Ok(Value::boolean(mem.object::<Promise>(a[0]).is_some()))
    }),
    Builtin::new("%promise-state", 1, 1, |mem, a| {
        let promise = promise(mem, a[0])?;
        let promise: &Promise = &promise;
        Ok(promise.state.load(mem.scope()).into())
    }),
    Builtin::new("%promise-share!", 2, 2, |mem, a| {
        promise(mem, a[0])?.state.store(mem.scope(), a[1].into());
        Ok(Value::UNSPECIFIED)
    }),
    Builtin::new("interaction-environment", 0, 0, |mem, _| {
        Ok(Value::environment(mem.world().program.load(std::sync::atomic::Ordering::Relaxed)))
    }),
    Builtin::new("%environment?", 1, 1, |_, a| Ok(Value::boolean(a[0].as_environment().is_some()))),
    Builtin::new("%new-environment", 0, 0, |_, _| {
        Err(TrapKind::Outside(Box::new(|vm| {
            let env = vm.with_compiler(|compiler| {
                let env = compiler.new_env();
                compiler.import_import(env);
                env
            });
            vm.set(crate::vm::register::RESULT, |_| Value::environment(env));
            Ok(())
        }))
        .into())
    }),
    Builtin::new("gensym", 0, 1, |mem, a| {
        let prefix = match a.first() {
            Some(&prefix) => match prefix.as_symbol() {
                Some(symbol) => symbol.name().to_string(),
                None => mem.text(args::string(mem, prefix)?),
            },
            None => "g".to_string(),
        };
        super::strings::room_for_symbols(mem)?;
        let number = mem.world().next_id.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(Value::symbol(Symbol::uninterned(&format!("{prefix}{number}"))))
    }),
];
