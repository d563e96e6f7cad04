//! Pairs, lists, equivalence.

use super::{Builtin, args};
use crate::mem::Mem;
use crate::numbers;
use crate::object::*;
use crate::trap::{Result, error, out_of_range, wrong_type};
use crate::value::Value;
use std::collections::HashSet;

/// `eqv?`
#[inline]
pub fn eqv<'m>(mem: Mem<'m, '_>, a: Value<'m>, b: Value<'m>) -> bool {
    if a == b {
        return true;
    }
    // Of what is not the same word only numbers and empty strings can be equivalent.
    let boxed =
        |v: Value<'m>| matches!(v.tag(), crate::value::TAG_FLONUM | crate::value::TAG_OTHER);
    boxed(a) && boxed(b) && numbers::eqv(mem, a, b)
}

/// `equal?`, which ends for circular data too.
pub fn equal<'m>(mem: Mem<'m, '_>, a: Value<'m>, b: Value<'m>) -> bool {
    let mut todo = vec![(a, b)];
    let mut steps = 0usize;
    // After many steps, pairs of objects that have been compared are remembered, and taken to be equal.
    let mut seen: HashSet<(u64, u64)> = HashSet::new();
    while let Some((mut a, mut b)) = todo.pop() {
        loop {
            if eqv(mem, a, b) {
                break;
            }
            steps += 1;
            if steps > 50_000
                && (a.is_pair() || a.as_vector().is_some())
                && !seen.insert((a.bits(), b.bits()))
            {
                break;
            }
            if let (Some(x), Some(y)) = (a.as_pair(), b.as_pair()) {
                todo.push((mem.cdr(x), mem.cdr(y)));
                (a, b) = (mem.car(x), mem.car(y));
                continue;
            }
            if let (Some(x), Some(y)) = (a.as_vector(), b.as_vector()) {
                if x.len() != y.len() {
                    return false;
                }
                todo.extend((0..x.len()).rev().map(|i| (mem.element(x, i), mem.element(y, i))));
                break;
            }
            if let (Some(x), Some(y)) =
                (mem.object::<StringObject>(a), mem.object::<StringObject>(b))
            {
                if x.len() != y.len() || x.compare(y).is_ne() {
                    return false;
                }
                break;
            }
            if let (Some(x), Some(y)) = (mem.object::<BytesObject>(a), mem.object::<BytesObject>(b))
            {
                if x.len() != y.len() || x.compare(y).is_ne() {
                    return false;
                }
                break;
            }
            return false;
        }
    }
    true
}

fn pair<'m>(value: Value<'m>) -> Result<'m, firn::Gc<'m, Pair>> {
    value.as_pair().ok_or_else(|| wrong_type("a pair", value))
}

fn is_list<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> bool {
    let (mut fast, mut slow, mut odd) = (value, value, false);
    while let Some(pair) = fast.as_pair() {
        fast = mem.cdr(pair);
        if odd {
            slow = mem.cdr(slow.as_pair().expect("behind the other"));
            if slow == fast && fast.is_pair() {
                return false;
            }
        }
        odd = !odd;
    }
    fast.is_nil()
}

macro_rules! accessors {
    ($($function:ident $name:literal $path:literal;)*) => {
        $(fn $function<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
            let mut value = args[0];
            for &step in $path.as_bytes().iter().rev() {
                let pair = pair(value)?;
                value = if step == b'a' { mem.car(pair) } else { mem.cdr(pair) };
            }
            Ok(value)
        })*
        const ACCESSORS: &[Builtin] = &[$(Builtin::new($name, 1, 1, $function)),*];
    };
}

accessors! {
    car "car" "a"; cdr "cdr" "d"; caar "caar" "aa"; cadr "cadr" "ad"; cdar "cdar" "da"; cddr "cddr" "dd";
    caaar "caaar" "aaa"; caadr "caadr" "aad"; cadar "cadar" "ada"; caddr "caddr" "add";
    cdaar "cdaar" "daa"; cdadr "cdadr" "dad"; cddar "cddar" "dda"; cdddr "cdddr" "ddd";
    caaaar "caaaar" "aaaa"; caaadr "caaadr" "aaad"; caadar "caadar" "aada"; caaddr "caaddr" "aadd";
    cadaar "cadaar" "adaa"; cadadr "cadadr" "adad"; caddar "caddar" "adda"; cadddr "cadddr" "addd";
    cdaaar "cdaaar" "daaa"; cdaadr "cdaadr" "daad"; cdadar "cdadar" "dada"; cdaddr "cdaddr" "dadd";
    cddaar "cddaar" "ddaa"; cddadr "cddadr" "ddad"; cdddar "cdddar" "ddda"; cddddr "cddddr" "dddd";
}

fn list_tail<'m>(mem: Mem<'m, '_>, list: Value<'m>, count: Value<'m>) -> Result<'m> {
    let mut at = list;
    for _ in 0..args::size(count)? {
        match at.as_pair() {
            Some(pair) => at = mem.cdr(pair),
            None => return Err(out_of_range("list index", count)),
        }
    }
    Ok(at)
}

fn length<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    if !is_list(mem, args[0]) {
        return Err(wrong_type("a list", args[0]));
    }
    let (mut length, mut at) = (0, args[0]);
    while let Some(pair) = at.as_pair() {
        length += 1;
        at = mem.cdr(pair);
    }
    Ok(Value::fixnum(length))
}

fn append<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let Some((&last, first)) = args.split_last() else { return Ok(Value::NIL) };
    if let [one] = first {
        if one.is_nil() {
            return Ok(last);
        }
        return mem.list_with_tail(&args::list(mem, *one)?, last);
    }
    let mut elements = Vec::new();
    for &list in first {
        elements.extend(args::list(mem, list)?);
    }
    mem.list_with_tail(&elements, last)
}

fn list_copy<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let (mut elements, mut at) = (Vec::new(), args[0]);
    while let Some(pair) = at.as_pair() {
        elements.push(mem.car(pair));
        at = mem.cdr(pair);
    }
    mem.list_with_tail(&elements, at)
}

fn find<'m>(
    mem: Mem<'m, '_>,
    list: Value<'m>,
    is: impl Fn(Value<'m>) -> bool,
) -> Result<'m, Option<Value<'m>>> {
    let mut at = list;
    while let Some(pair) = at.as_pair() {
        if is(mem.car(pair)) {
            return Ok(Some(at));
        }
        at = mem.cdr(pair);
    }
    if at.is_nil() { Ok(None) } else { Err(wrong_type("a list", list)) }
}

fn find_entry<'m>(mem: Mem<'m, '_>, list: Value<'m>, is: impl Fn(Value<'m>) -> bool) -> Result<'m> {
    let mut at = list;
    while let Some(link) = at.as_pair() {
        let entry = pair(mem.car(link))?;
        if is(mem.car(entry)) {
            return Ok(mem.car(link));
        }
        at = mem.cdr(link);
    }
    if at.is_nil() { Ok(Value::FALSE) } else { Err(wrong_type("a list", list)) }
}

fn last_pair<'m>(mem: Mem<'m, '_>, list: Value<'m>) -> Result<'m> {
    let mut at = pair(list)?;
    while let Some(next) = mem.cdr(at).as_pair() {
        at = next;
    }
    Ok(Value::pair(at))
}

fn reverse<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let mut elements = args::list(mem, args[0])?;
    elements.reverse();
    mem.list(&elements)
}

/// Builtins of this file.
pub const TABLE: &[Builtin] = &{
    const OTHERS: &[Builtin] = &[
        Builtin::new("eq?", 2, 2, |_, a| Ok(Value::boolean(a[0] == a[1]))),
        Builtin::new("eqv?", 2, 2, |mem, a| Ok(Value::boolean(eqv(mem, a[0], a[1])))),
        Builtin::new("equal?", 2, 2, |mem, a| Ok(Value::boolean(equal(mem, a[0], a[1])))),
        Builtin::new("not", 1, 1, |_, a| Ok(Value::boolean(!a[0].is_true()))),
        Builtin::new("boolean?", 1, 1, |_, a| {
            Ok(Value::boolean(a[0] == Value::TRUE || a[0] == Value::FALSE))
        }),
        Builtin::new("boolean=?", 2, Builtin::MANY, |_, a| {
            for &value in a {
                if value != Value::TRUE && value != Value::FALSE {
                    return Err(wrong_type("a boolean", value));
                }
            }
            Ok(Value::boolean(a.iter().all(|value| *value == a[0])))
        }),
        Builtin::new("cons", 2, 2, |mem, a| mem.cons(a[0], a[1])),
        Builtin::new("set-car!", 2, 2, |mem, a| {
            pair(a[0])?.car.store(mem.scope(), a[1].into());
            Ok(Value::UNSPECIFIED)
        }),
        Builtin::new("set-cdr!", 2, 2, |mem, a| {
            pair(a[0])?.cdr.store(mem.scope(), a[1].into());
            Ok(Value::UNSPECIFIED)
        }),
        Builtin::new("pair?", 1, 1, |_, a| Ok(Value::boolean(a[0].is_pair()))),
        Builtin::new("null?", 1, 1, |_, a| Ok(Value::boolean(a[0].is_nil()))),
        Builtin::new("list?", 1, 1, |mem, a| Ok(Value::boolean(is_list(mem, a[0])))),
        Builtin::new("list", 0, Builtin::MANY, |mem, a| mem.list(a)),
        Builtin::new("cons*", 1, Builtin::MANY, |mem, a| {
            let (last, first) = a.split_last().expect("one at least");
            mem.list_with_tail(first, *last)
        }),
        Builtin::new("make-list", 1, 2, |mem, a| {
            let count = args::size(a[0])?;
            if count > 1 << 32 {
                return Err(out_of_range("size", a[0]));
            }
            mem.list(&vec![a.get(1).copied().unwrap_or(Value::FALSE); count])
        }),
        Builtin::new("length", 1, 1, length),
        Builtin::new("append", 0, Builtin::MANY, append),
        Builtin::new("reverse", 1, 1, reverse),
        Builtin::new("append!", 0, Builtin::MANY, |mem, a| {
            let mut result = Value::NIL;
            for &list in a.iter().rev() {
                if list.is_nil() {
                    continue;
                }
                if !result.is_nil() {
                    let last = last_pair(mem, list)?.as_pair().expect("a pair");
                    last.cdr.store(mem.scope(), result.into());
                }
                result = list;
            }
            Ok(result)
        }),
        Builtin::new("reverse!", 1, 1, |mem, a| {
            let (mut at, mut result) = (a[0], Value::NIL);
            while let Some(pair) = at.as_pair() {
                let next = mem.cdr(pair);
                pair.cdr.store(mem.scope(), result.into());
                result = at;
                at = next;
            }
            Ok(result)
        }),
        Builtin::new("list-copy", 1, 1, list_copy),
        Builtin::new("list-tail", 2, 2, |mem, a| list_tail(mem, a[0], a[1])),
        Builtin::new("list-head", 2, 2, |mem, a| {
            let (mut elements, mut at) = (Vec::new(), a[0]);
            for _ in 0..args::size(a[1])? {
                let pair = pair(at)?;
                elements.push(mem.car(pair));
                at = mem.cdr(pair);
            }
            mem.list(&elements)
        }),
        Builtin::new("list-ref", 2, 2, |mem, a| match list_tail(mem, a[0], a[1])?.as_pair() {
            Some(pair) => Ok(mem.car(pair)),
            None => Err(out_of_range("list index", a[1])),
        }),
        Builtin::new("list-set!", 3, 3, |mem, a| {
            match list_tail(mem, a[0], a[1])?.as_pair() {
                Some(pair) => pair.car.store(mem.scope(), a[2].into()),
                None => return Err(out_of_range("list index", a[1])),
            }
            Ok(Value::UNSPECIFIED)
        }),
        Builtin::new("last-pair", 1, 1, |mem, a| last_pair(mem, a[0])),
        Builtin::new("memq", 2, 2, |mem, a| {
            Ok(find(mem, a[1], |v| v == a[0])?.unwrap_or(Value::FALSE))
        }),
        Builtin::new("memv", 2, 2, |mem, a| {
            Ok(find(mem, a[1], |v| eqv(mem, v, a[0]))?.unwrap_or(Value::FALSE))
        }),
        Builtin::new("%member", 2, 2, |mem, a| {
            Ok(find(mem, a[1], |v| equal(mem, a[0], v))?.unwrap_or(Value::FALSE))
        }),
        Builtin::new("assq", 2, 2, |mem, a| find_entry(mem, a[1], |key| key == a[0])),
        Builtin::new("assv", 2, 2, |mem, a| find_entry(mem, a[1], |key| eqv(mem, key, a[0]))),
        Builtin::new("%assoc", 2, 2, |mem, a| find_entry(mem, a[1], |key| equal(mem, a[0], key))),
        Builtin::new("iota", 1, 3, |mem, a| {
            let count = args::size(a[0])?;
            if a.len() == 1 && count < 1 << 32 {
                let numbers: Vec<_> = (0..count as i64).map(Value::fixnum).collect();
                return mem.list(&numbers);
            }
            let start = a.get(1).copied().unwrap_or(Value::fixnum(0));
            let step = a.get(2).copied().unwrap_or(Value::fixnum(1));
            match (start.as_fixnum(), step.as_fixnum()) {
                (Some(start), Some(step)) if count < 1 << 32 => {
                    let numbers: Vec<_> =
                        (0..count as i64).map(|i| Value::fixnum(start + i * step)).collect();
                    mem.list(&numbers)
                }
                _ => Err(error("start and step must be fixnums", a)),
            }
        }),
    ];
    const COUNT: usize = ACCESSORS.len() + OTHERS.len();
    let mut all = [OTHERS[0]; COUNT];
    let mut index = 0;
    while index < COUNT {
        all[index] = if index < ACCESSORS.len() {
            ACCESSORS[index]
        } else {
            OTHERS[index - ACCESSORS.len()]
        };
        index += 1;
    }
    all
};
