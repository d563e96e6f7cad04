//! Arguments of builtins: the checks that many of them share.

use crate::mem::Mem;
use crate::object::{BytesObject, StringObject};
use crate::trap::{Result, out_of_range, wrong_type};
use crate::value::{Array, Value};
use firn::Gc;

/// The string that `value` is.
#[inline]
pub fn string<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m, Gc<'m, StringObject>> {
    mem.object(value).ok_or_else(|| wrong_type("a string", value))
}

/// The bytevector that `value` is.
#[inline]
pub fn bytes<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m, Gc<'m, BytesObject>> {
    mem.object(value).ok_or_else(|| wrong_type("a bytevector", value))
}

/// The vector that `value` is.
#[inline]
pub fn vector<'m>(value: Value<'m>) -> Result<'m, Array<'m>> {
    value.as_vector().ok_or_else(|| wrong_type("a vector", value))
}

/// The character that `value` is.
#[inline]
pub fn char<'m>(value: Value<'m>) -> Result<'m, char> {
    value.as_char().ok_or_else(|| wrong_type("a character", value))
}

/// The byte that `value` is.
#[inline]
pub fn byte<'m>(value: Value<'m>) -> Result<'m, u8> {
    let byte = value.as_fixnum().and_then(|number| u8::try_from(number).ok());
    byte.ok_or_else(|| wrong_type("a byte (0 to 255)", value))
}

/// The symbol that `value` is.
#[inline]
pub fn symbol<'m>(value: Value<'m>) -> Result<'m, crate::symbol::Symbol> {
    value.as_symbol().ok_or_else(|| wrong_type("a symbol", value))
}

/// The elements of the list that `value` is.
pub fn list<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m, Vec<Value<'m>>> {
    mem.elements(value).ok_or_else(|| wrong_type("a list", value))
}

/// A size that something to be made shall have.
#[inline]
pub fn size<'m>(value: Value<'m>) -> Result<'m, usize> {
    value.as_index().ok_or_else(|| wrong_type("a size", value))
}

/// An index below `len`.
#[inline]
pub fn index<'m>(value: Value<'m>, len: usize) -> Result<'m, usize> {
    match value.as_index() {
        Some(index) if index < len => Ok(index),
        _ if value.is_fixnum() => Err(out_of_range("index", value)),
        _ => Err(wrong_type("an index", value)),
    }
}

/// The optional arguments `start` and `end`, at `args[at]` and after it, of something of length `len`.
#[inline]
pub fn range<'m>(args: &[Value<'m>], at: usize, len: usize) -> Result<'m, (usize, usize)> {
    let bound = |at: usize, default: usize, least: usize| match args.get(at) {
        None => Ok(default),
        Some(&value) => match value.as_index() {
            Some(index) if (least..=len).contains(&index) => Ok(index),
            _ if value.is_fixnum() => Err(out_of_range("index", value)),
            _ => Err(wrong_type("an index", value)),
        },
    };
    let start = bound(at, 0, 0)?;
    Ok((start, bound(at + 1, len, start)?))
}
