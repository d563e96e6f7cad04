//! Vectors and records.

use super::{Builtin, args};
use crate::mem::Mem;
use crate::object::*;
use crate::trap::{Result, error_of, wrong_type};
use crate::value::{Array, Value};

fn slice<'m>(mem: Mem<'m, '_>, a: &[Value<'m>], at: usize) -> Result<'m, Vec<Value<'m>>> {
    let vector = args::vector(a[at])?;
    let (start, end) = args::range(a, at + 1, vector.len())?;
    Ok((start..end).map(|index| mem.element(vector, index)).collect())
}

fn vector_copy_to<'m>(mem: Mem<'m, '_>, a: &[Value<'m>]) -> Result<'m> {
    let to = args::vector(a[0])?;
    let at = args::size(a[1])?;
    let from = args::vector(a[2])?;
    let (start, end) = args::range(a, 3, from.len())?;
    if at > to.len() || end - start > to.len() - at {
        return Err(crate::trap::out_of_range("vector index", a[1]));
    }
    let copy =
        |index: usize| to.store(mem.scope(), at + index, mem.element(from, start + index).into());
    if at <= start {
        (0..end - start).for_each(copy)
    } else {
        (0..end - start).rev().for_each(copy)
    }
    Ok(Value::UNSPECIFIED)
}

/// A record of this type: the array, or the error.
fn record<'m>(mem: Mem<'m, '_>, value: Value<'m>, kind: Value<'m>) -> Result<'m, Array<'m>> {
    if let Some(record) = mem.object::<RecordObject>(value)
        && mem.element(record, 0) == kind
    {
        return Ok(record);
    }
    Err(not_a_record(mem, value, kind))
}

#[cold]
fn not_a_record<'m>(mem: Mem<'m, '_>, value: Value<'m>, kind: Value<'m>) -> crate::trap::Trap<'m> {
    let name = mem.object::<RecordType>(kind).and_then(|kind| {
        let kind: &RecordType = &kind;
        Value::from(kind.name.load(mem.scope())).as_symbol()
    });
    let name =
        name.map_or_else(|| "of this record type".to_string(), |name| format!("a {}", name.name()));
    error_of("type", format!("not {name}"), &[value])
}

/// Builtins of this file.
pub const TABLE: &[Builtin] = &[
    Builtin::new("vector?", 1, 1, |_, a| Ok(Value::boolean(a[0].as_vector().is_some()))),
    Builtin::new("make-vector", 1, 2, |mem, a| {
        let len = args::size(a[0])?;
        mem.make_vector(len, a.get(1).copied().unwrap_or(Value::FALSE))
    }),
    Builtin::new("vector", 0, Builtin::MANY, |mem, a| mem.vector(a)),
    Builtin::new("vector-length", 1, 1, |_, a| Ok(Value::fixnum(args::vector(a[0])?.len() as i64))),
    Builtin::new("vector-ref", 2, 2, |mem, a| {
        let vector = args::vector(a[0])?;
        Ok(mem.element(vector, args::index(a[1], vector.len())?))
    }),
    Builtin::new("vector-set!", 3, 3, |mem, a| {
        let vector = args::vector(a[0])?;
        vector.store(mem.scope(), args::index(a[1], vector.len())?, a[2].into());
        Ok(Value::UNSPECIFIED)
    }),
    Builtin::new("vector->list", 1, 3, |mem, a| mem.list(&slice(mem, a, 0)?)),
    Builtin::new("list->vector", 1, 1, |mem, a| mem.vector(&args::list(mem, a[0])?)),
    Builtin::new("vector-copy", 1, 3, |mem, a| mem.vector(&slice(mem, a, 0)?)),
    Builtin::new("subvector", 3, 3, |mem, a| mem.vector(&slice(mem, a, 0)?)),
    Builtin::new("vector-grow", 2, 2, |mem, a| {
        let vector = args::vector(a[0])?;
        let len = args::size(a[1])?;
        let get =
            |index| if index < vector.len() { mem.element(vector, index) } else { Value::FALSE };
        mem.array(len.max(vector.len()), get).map(Value::vector)
    }),
    Builtin::new("vector-append", 0, Builtin::MANY, |mem, a| {
        let mut all = Vec::new();
        for &vector in a {
            let vector = args::vector(vector)?;
            all.extend((0..vector.len()).map(|index| mem.element(vector, index)));
        }
        mem.vector(&all)
    }),
    Builtin::new("vector-copy!", 3, 5, vector_copy_to),
    Builtin::new("vector-fill!", 2, 4, |mem, a| {
        let vector = args::vector(a[0])?;
        let (start, end) = args::range(a, 2, vector.len())?;
        (start..end).for_each(|index| vector.store(mem.scope(), index, a[1].into()));
        Ok(Value::UNSPECIFIED)
    }),
    Builtin::new("%make-record-type", 2, 2, |mem, a| {
        let zero = || firn::Tagged::new(0);
        mem.make(RecordType { name: zero(), fields: zero() }, |kind| {
            kind.set(&kind.name, a[0].into());
            kind.set(&kind.fields, a[1].into());
        })
    }),
    Builtin::new("%record", 1, Builtin::MANY, |mem, a| {
        if mem.object::<RecordType>(a[0]).is_none() {
            return Err(wrong_type("a record type", a[0]));
        }
        mem.array(a.len(), |index| a[index]).map(Value::object)
    }),
    Builtin::new("%record-is?", 2, 2, |mem, a| {
        let record = mem.object::<RecordObject>(a[0]);
        Ok(Value::boolean(record.is_some_and(|record| mem.element(record, 0) == a[1])))
    }),
    Builtin::new("%record-ref", 3, 3, |mem, a| {
        let record = record(mem, a[0], a[1])?;
        Ok(mem.element(record, args::index(a[2], record.len())?))
    }),
    Builtin::new("%record-set!", 4, 4, |mem, a| {
        let record = record(mem, a[0], a[1])?;
        record.store(mem.scope(), args::index(a[2], record.len())?, a[3].into());
        Ok(Value::UNSPECIFIED)
    }),
];
