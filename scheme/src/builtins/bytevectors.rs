//! Bytevectors: R7RS 6.9.

use super::{Builtin, args};
use crate::mem::Mem;
use crate::object::BytesObject;
use crate::trap::{Result, error, out_of_range};
use crate::value::Value;

const MANY: u16 = Builtin::MANY;

/// A bytevector of these bytes.
pub fn of_bytes<'m>(mem: Mem<'m, '_>, bytes: &[u8]) -> Result<'m> {
    let object = mem.bytes(bytes.len())?;
    object.copy_from(0, bytes);
    Ok(Value::object(object))
}

fn bytes_of<'m>(mem: Mem<'m, '_>, args: &[Value<'m>], at: usize) -> Result<'m, Vec<u8>> {
    let object = args::bytes(mem, args[at])?;
    let (start, end) = args::range(args, at + 1, object.len())?;
    let mut bytes = vec![0; end - start];
    object.copy_to(start, &mut bytes);
    Ok(bytes)
}

fn bytevector_p<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    Ok(Value::boolean(mem.object::<BytesObject>(args[0]).is_some()))
}

fn make_bytevector<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let fill = args.get(1).map_or(Ok(0), |&fill| args::byte(fill))?;
    let object = mem.bytes(args::size(args[0])?)?;
    if fill != 0 {
        object.fill(0..object.len(), fill);
    }
    Ok(Value::object(object))
}

fn bytevector<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let bytes: Vec<u8> = args.iter().map(|&byte| args::byte(byte)).collect::<Result<'m, _>>()?;
    of_bytes(mem, &bytes)
}

fn length<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    Ok(Value::fixnum(args::bytes(mem, args[0])?.len() as i64))
}

fn u8_ref<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let object = args::bytes(mem, args[0])?;
    let index = args::index(args[1], object.len())?;
    Ok(Value::fixnum(object.get(index).into()))
}

fn u8_set<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let object = args::bytes(mem, args[0])?;
    let index = args::index(args[1], object.len())?;
    object.set(index, args::byte(args[2])?);
    Ok(Value::UNSPECIFIED)
}

fn copy<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let object = args::bytes(mem, args[0])?;
    let (start, end) = args::range(args, 1, object.len())?;
    let result = mem.bytes(end - start)?;
    result.copy_array(0, object, start..end);
    Ok(Value::object(result))
}

fn copy_to<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let to = args::bytes(mem, args[0])?;
    let (at, _) = args::range(&args[..2], 1, to.len())?;
    let from = args::bytes(mem, args[2])?;
    let (start, end) = args::range(args, 3, from.len())?;
    if end - start > to.len() - at {
        return Err(out_of_range("index", args[1]));
    }
    to.copy_array(at, from, start..end);
    Ok(Value::UNSPECIFIED)
}

fn append<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let mut len = 0;
    for &part in args {
        len += args::bytes(mem, part)?.len();
    }
    let result = mem.bytes(len)?;
    let mut at = 0;
    for &part in args {
        let part = args::bytes(mem, part)?;
        result.copy_array(at, part, 0..part.len());
        at += part.len();
    }
    Ok(Value::object(result))
}

fn fill<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let object = args::bytes(mem, args[0])?;
    let fill = args::byte(args[1])?;
    let (start, end) = args::range(args, 2, object.len())?;
    object.fill(start..end, fill);
    Ok(Value::UNSPECIFIED)
}

fn utf8_to_string<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let bytes = bytes_of(mem, args, 0)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => mem.string(text),
        Err(why) => Err(error(format!("not UTF-8 from byte {} on", why.valid_up_to()), &args[..1])),
    }
}

fn string_to_utf8<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let string = args::string(mem, args[0])?;
    let (start, end) = args::range(args, 1, string.len())?;
    of_bytes(mem, mem.text_of(string, start..end).as_bytes())
}

/// The builtins of this file.
pub const TABLE: &[Builtin] = &[
    Builtin::new("bytevector?", 1, 1, bytevector_p),
    Builtin::new("make-bytevector", 1, 2, make_bytevector),
    Builtin::new("bytevector", 0, MANY, bytevector),
    Builtin::new("bytevector-length", 1, 1, length),
    Builtin::new("bytevector-u8-ref", 2, 2, u8_ref),
    Builtin::new("bytevector-u8-set!", 3, 3, u8_set),
    Builtin::new("bytevector-copy", 1, 3, copy),
    Builtin::new("bytevector-copy!", 3, 5, copy_to),
    Builtin::new("bytevector-append", 0, MANY, append),
    Builtin::new("bytevector-fill!", 2, 4, fill),
    Builtin::new("utf8->string", 1, 3, utf8_to_string),
    Builtin::new("string->utf8", 1, 3, string_to_utf8),
];
