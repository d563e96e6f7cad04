//! Strings and the names of symbols: R7RS 6.7 and 6.5.
//!
//! `string-map` and `string-for-each` take procedures, so they are in the prelude.

use super::chars::foldcase_text;
use super::{Builtin, args};
use crate::mem::Mem;
use crate::object::{StringObject, character};
use crate::symbol::Symbol;
use crate::trap::Result;
use crate::value::Value;
use firn::Gc;
use std::cmp::Ordering;

const MANY: u16 = Builtin::MANY;

/// Names of symbols are kept for ever, outside the heap. There is an end to that where the heap would have its own.
pub(super) fn room_for_symbols<'m>(mem: Mem<'m, '_>) -> Result<'m, ()> {
    if Symbol::bytes() > mem.world().most_text {
        let why = "the names of symbols, which are never freed, are longer than the heap is large";
        return Err(crate::trap::error_of("out-of-memory", why, &[]));
    }
    Ok(())
}

fn string_p<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    Ok(Value::boolean(mem.object::<StringObject>(args[0]).is_some()))
}

fn make_string<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let fill = args.get(1).map_or(Ok(' '), |&fill| args::char(fill))?;
    let string = mem.chars(args::size(args[0])?)?;
    string.fill(0..string.len(), fill as u32);
    Ok(Value::object(string))
}

fn string<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let code = |&value: &Value<'m>| args::char(value).map(|c| c as u32);
    let chars: Vec<u32> = args.iter().map(code).collect::<Result<'m, _>>()?;
    let string = mem.chars(chars.len())?;
    string.copy_from(0, &chars);
    Ok(Value::object(string))
}

fn string_length<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    Ok(Value::fixnum(args::string(mem, args[0])?.len() as i64))
}

fn string_ref<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let string = args::string(mem, args[0])?;
    let index = args::index(args[1], string.len())?;
    Ok(char_at(string, index))
}

fn char_at<'m>(string: Gc<'m, StringObject>, index: usize) -> Value<'m> {
    Value::char(character(string.get(index)))
}

fn string_set<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let string = args::string(mem, args[0])?;
    let index = args::index(args[1], string.len())?;
    string.set(index, args::char(args[2])? as u32);
    Ok(Value::UNSPECIFIED)
}

fn compare<'m>(mem: Mem<'m, '_>, args: &[Value<'m>], holds: fn(Ordering) -> bool) -> Result<'m> {
    let mut all = true;
    let mut last = args::string(mem, args[0])?;
    for &next in &args[1..] {
        let next = args::string(mem, next)?;
        all &= holds(last.compare(next));
        last = next;
    }
    Ok(Value::boolean(all))
}

fn compare_ci<'m>(mem: Mem<'m, '_>, args: &[Value<'m>], holds: fn(Ordering) -> bool) -> Result<'m> {
    let mut all = true;
    let folded = |value: Value<'m>| -> Result<'m, String> {
        Ok(foldcase_text(&mem.text(args::string(mem, value)?)))
    };
    let mut last = folded(args[0])?;
    for &next in &args[1..] {
        let next = folded(next)?;
        // The order of UTF-8 is that of scalar values.
        all &= holds(last.cmp(&next));
        last = next;
    }
    Ok(Value::boolean(all))
}

macro_rules! comparisons {
    ($($plain:ident $folded:ident $holds:path;)*) => {
        $(
            fn $plain<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
                compare(mem, args, $holds)
            }
            fn $folded<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
                compare_ci(mem, args, $holds)
            }
        )*
    };
}

comparisons! {
    equal equal_ci Ordering::is_eq;
    less less_ci Ordering::is_lt;
    greater greater_ci Ordering::is_gt;
    not_greater not_greater_ci Ordering::is_le;
    not_less not_less_ci Ordering::is_ge;
}

fn string_copy<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let string = args::string(mem, args[0])?;
    let (start, end) = args::range(args, 1, string.len())?;
    let result = mem.chars(end - start)?;
    result.copy_array(0, string, start..end);
    Ok(Value::object(result))
}

fn string_append<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let mut len = 0;
    for &part in args {
        len += args::string(mem, part)?.len();
    }
    let result = mem.chars(len)?;
    let mut at = 0;
    for &part in args {
        let part = args::string(mem, part)?;
        result.copy_array(at, part, 0..part.len());
        at += part.len();
    }
    Ok(Value::object(result))
}

fn string_to_list<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let string = args::string(mem, args[0])?;
    let (start, end) = args::range(args, 1, string.len())?;
    let chars: Vec<_> = (start..end).map(|index| char_at(string, index)).collect();
    mem.list(&chars)
}

fn list_to_string<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    string(mem, &args::list(mem, args[0])?)
}

fn string_to_vector<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let string = args::string(mem, args[0])?;
    let (start, end) = args::range(args, 1, string.len())?;
    mem.array(end - start, |index| char_at(string, start + index)).map(Value::vector)
}

fn vector_to_string<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let vector = args::vector(args[0])?;
    let (start, end) = args::range(args, 1, vector.len())?;
    let chars: Vec<_> = (start..end).map(|index| mem.element(vector, index)).collect();
    string(mem, &chars)
}

fn string_copy_to<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let to = args::string(mem, args[0])?;
    let (at, _) = args::range(&args[..2], 1, to.len())?;
    let from = args::string(mem, args[2])?;
    let (start, end) = args::range(args, 3, from.len())?;
    if end - start > to.len() - at {
        return Err(crate::trap::out_of_range("index", args[1]));
    }
    to.copy_array(at, from, start..end);
    Ok(Value::UNSPECIFIED)
}

fn string_fill<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let string = args::string(mem, args[0])?;
    let fill = args::char(args[1])?;
    let (start, end) = args::range(args, 2, string.len())?;
    string.fill(start..end, fill as u32);
    Ok(Value::UNSPECIFIED)
}

fn map_text<'m>(mem: Mem<'m, '_>, value: Value<'m>, f: fn(&str) -> String) -> Result<'m> {
    mem.string(&f(&mem.text(args::string(mem, value)?)))
}
fn string_upcase<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    map_text(mem, args[0], str::to_uppercase)
}
fn string_downcase<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    map_text(mem, args[0], str::to_lowercase)
}
fn string_foldcase<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    map_text(mem, args[0], foldcase_text)
}

fn symbol_p<'m>(_: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    Ok(Value::boolean(args[0].as_symbol().is_some()))
}
fn symbol_to_string<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    mem.string(&args::symbol(args[0])?.name())
}
fn string_to_symbol<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    room_for_symbols(mem)?;
    Ok(Value::symbol(Symbol::intern(&mem.text(args::string(mem, args[0])?))))
}
fn symbol_equal<'m>(_: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    for &value in args {
        args::symbol(value)?;
    }
    Ok(Value::boolean(args.windows(2).all(|pair| pair[0] == pair[1])))
}

/// The builtins of this file.
pub const TABLE: &[Builtin] = &[
    Builtin::new("string?", 1, 1, string_p),
    Builtin::new("make-string", 1, 2, make_string),
    Builtin::new("string", 0, MANY, string),
    Builtin::new("string-length", 1, 1, string_length),
    Builtin::new("string-ref", 2, 2, string_ref),
    Builtin::new("string-set!", 3, 3, string_set),
    Builtin::new("string=?", 1, MANY, equal),
    Builtin::new("string<?", 1, MANY, less),
    Builtin::new("string>?", 1, MANY, greater),
    Builtin::new("string<=?", 1, MANY, not_greater),
    Builtin::new("string>=?", 1, MANY, not_less),
    Builtin::new("string-ci=?", 1, MANY, equal_ci),
    Builtin::new("string-ci<?", 1, MANY, less_ci),
    Builtin::new("string-ci>?", 1, MANY, greater_ci),
    Builtin::new("string-ci<=?", 1, MANY, not_greater_ci),
    Builtin::new("string-ci>=?", 1, MANY, not_less_ci),
    Builtin::new("substring", 3, 3, string_copy),
    Builtin::new("string-copy", 1, 3, string_copy),
    Builtin::new("string-append", 0, MANY, string_append),
    Builtin::new("string->list", 1, 3, string_to_list),
    Builtin::new("list->string", 1, 1, list_to_string),
    Builtin::new("string->vector", 1, 3, string_to_vector),
    Builtin::new("vector->string", 1, 3, vector_to_string),
    Builtin::new("string-copy!", 3, 5, string_copy_to),
    Builtin::new("string-fill!", 2, 4, string_fill),
    Builtin::new("string-upcase", 1, 1, string_upcase),
    Builtin::new("string-downcase", 1, 1, string_downcase),
    Builtin::new("string-foldcase", 1, 1, string_foldcase),
    Builtin::new("symbol?", 1, 1, symbol_p),
    Builtin::new("symbol->string", 1, 1, symbol_to_string),
    Builtin::new("string->symbol", 1, 1, string_to_symbol),
    Builtin::new("symbol=?", 1, MANY, symbol_equal),
];
