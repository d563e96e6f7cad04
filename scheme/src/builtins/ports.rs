//! Ports: over strings and bytevectors in the heap, over native streams.
//!
//! Reading from a stream looks at what is buffered; when that is not enough, the builtin traps with a blocking
//! action that reads more, and is called again. Nothing is taken from the buffer before the answer is complete.

use super::files::open_file;
use super::read::read;
use super::{Builtin, args};
use crate::mem::Mem;
use crate::object::*;
use crate::port::{Busy, Stream, flag};
use crate::print::{Mode, Texts, Unprinted, to_string};
use crate::trap::{Result, Trap, TrapKind, error, error_of, wrong_type};
use crate::value::Value;
use crate::vm::{Failure, register};
use firn::{Field, Gc};
use std::sync::MutexGuard;
use std::sync::atomic::Ordering::Relaxed;

fn port<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m, Gc<'m, Port>> {
    mem.object(value).ok_or_else(|| wrong_type("a port", value))
}

/// A port with these flags, open.
pub(super) fn open_port<'m>(
    mem: Mem<'m, '_>,
    value: Value<'m>,
    wanted: u64,
) -> Result<'m, Gc<'m, Port>> {
    let port = port(mem, value)?;
    let flags = port.flags.load(Relaxed);
    if flags & wanted != wanted {
        let what = match (wanted & flag::INPUT != 0, wanted & flag::BINARY != 0) {
            (true, true) => "a binary input port",
            (true, false) => "a textual input port",
            (false, true) => "a binary output port",
            (false, false) => "a textual output port",
        };
        return Err(wrong_type(what, value));
    }
    if flags & flag::OPEN == 0 {
        return Err(error("the port is closed", &[value]));
    }
    Ok(port)
}

/// The port's stream. If another thread is at it, perhaps waiting for input, this one waits outside the stretch.
#[inline]
pub(super) fn stream<'m>(
    mem: Mem<'m, '_>,
    port: Gc<'m, Port>,
) -> Result<'m, MutexGuard<'m, Stream>> {
    let handle = port.stream;
    match mem.world().streams.try_lock(handle) {
        Ok(Some(stream)) => Ok(stream),
        Ok(None) => Err(error("the port is closed", &[])),
        Err(Busy) => Err(TrapKind::Block(Box::new(move |world| {
            drop(world.streams.lock(handle));
        }))
        .into()),
    }
}

pub(super) fn is_stream(port: Gc<'_, Port>) -> bool {
    port.flags.load(Relaxed) & flag::STREAM != 0
}

/// More input is needed than the `held` bytes that are there. They are in native memory, which has no end of its own: so
/// the heap's is theirs.
#[cold]
pub(super) fn fill_first<'m>(mem: Mem<'m, '_>, port: Gc<'m, Port>, held: usize) -> Trap<'m> {
    if held > mem.world().most_text {
        return too_long();
    }
    let handle = port.stream;
    TrapKind::Block(Box::new(move |world| {
        if let Some(mut stream) = world.streams.lock(handle) {
            stream.fill();
        }
    }))
    .into()
}

/// A new port.
pub(super) fn make_port<'m>(mem: Mem<'m, '_>, flags: u64, stream: usize) -> Result<'m> {
    let empty = Port {
        flags: (flags | flag::OPEN).into(),
        text: Field::null(),
        bytes: Field::null(),
        position: 0.into(),
        end: 0.into(),
        stream,
    };
    mem.make(empty, |_| {})
}

/// The first character of UTF-8 bytes and its length; `None` if they are the beginning of one.
pub(super) fn decode(bytes: &[u8], ended: bool) -> Option<(char, usize)> {
    let len = match bytes[0] {
        0..0x80 => return Some((bytes[0] as char, 1)),
        0xc2..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..0xf5 => 4,
        _ => return Some(('\u{fffd}', 1)),
    };
    if bytes.len() < len && !ended {
        return None;
    }
    match bytes.get(..len).map(std::str::from_utf8) {
        Some(Ok(text)) => Some((text.chars().next().expect("not empty"), len)),
        _ => Some(('\u{fffd}', 1)),
    }
}

/// Takes characters for as long as `wanted` says; the answer is complete before anything is taken. `wanted` gets each
/// character and says whether it belongs to the answer and whether to go on.
fn take_chars<'m>(
    mem: Mem<'m, '_>,
    port: Gc<'m, Port>,
    mut wanted: impl FnMut(char) -> (bool, bool),
) -> Result<'m, Vec<char>> {
    let mut taken = Vec::new();
    if !is_stream(port) {
        let text = port.text.load(mem.scope()).expect("a string port has text");
        let end = port.end.load(Relaxed);
        let mut at = port.position.load(Relaxed);
        while at < end {
            let c = character(text.get(at));
            let (take, go_on) = wanted(c);
            if take {
                taken.push(c);
                at += 1;
            }
            if !go_on {
                break;
            }
        }
        port.position.store(at, Relaxed);
        return Ok(taken);
    }
    let mut guard = stream(mem, port)?;
    let bytes = guard.available();
    let mut at = 0;
    loop {
        if at == bytes.len() {
            if guard.ended() {
                break;
            }
            return Err(fill_first(mem, port, at));
        }
        let Some((c, len)) = decode(&bytes[at..], guard.ended()) else {
            return Err(fill_first(mem, port, at));
        };
        let (take, go_on) = wanted(c);
        if take {
            taken.push(c);
            at += len;
        }
        if !go_on {
            break;
        }
    }
    guard.consume(at);
    match guard.take_failure() {
        Some(failure) => Err(error_of("file", failure, &[])),
        None => Ok(taken),
    }
}

pub(super) fn text_in<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m, Gc<'m, Port>> {
    open_port(mem, value, flag::INPUT | flag::TEXT)
}

/// Whether reading from the port would answer at once; `whole` says whether the bytes begin with an answer.
fn is_ready<'m>(mem: Mem<'m, '_>, port: Gc<'m, Port>, whole: impl Fn(&[u8]) -> bool) -> Result<'m> {
    Ok(Value::boolean(!is_stream(port) || stream(mem, port)?.is_ready(whole)))
}

/// The next character, if there is one.
fn next_char<'m>(mem: Mem<'m, '_>, value: Value<'m>, take: bool) -> Result<'m> {
    let port = text_in(mem, value)?;
    if !is_stream(port) {
        let at = port.position.load(Relaxed);
        if at >= port.end.load(Relaxed) {
            return Ok(Value::EOF);
        }
        let text = port.text.load(mem.scope()).expect("a string port has text");
        if take {
            port.position.store(at + 1, Relaxed);
        }
        return Ok(Value::char(character(text.get(at))));
    }
    let mut guard = stream(mem, port)?;
    if let Some(failure) = guard.take_failure() {
        return Err(error_of("file", failure, &[]));
    }
    let ended = guard.ended();
    let bytes = guard.available();
    if bytes.is_empty() && ended {
        return Ok(Value::EOF);
    }
    match (!bytes.is_empty()).then(|| decode(bytes, ended)).flatten() {
        Some((c, len)) => {
            if take {
                guard.consume(len);
            }
            Ok(Value::char(c))
        }
        None => Err(fill_first(mem, port, 0)),
    }
}

fn read_char<'m>(mem: Mem<'m, '_>, a: &[Value<'m>]) -> Result<'m> {
    next_char(mem, a[0], true)
}

fn peek_char<'m>(mem: Mem<'m, '_>, a: &[Value<'m>]) -> Result<'m> {
    next_char(mem, a[0], false)
}

fn string_of<'m>(mem: Mem<'m, '_>, chars: &[char]) -> Result<'m> {
    let string = mem.chars(chars.len())?;
    chars.iter().enumerate().for_each(|(index, &c)| string.set(index, c as u32));
    Ok(Value::object(string))
}

/// A string port's position, to go back to when the string cannot be allocated yet.
fn or_go_back<'m>(port: Gc<'m, Port>, before: usize, result: Result<'m>) -> Result<'m> {
    if result.is_err() {
        port.position.store(before, Relaxed);
    }
    result
}

fn read_line<'m>(mem: Mem<'m, '_>, a: &[Value<'m>]) -> Result<'m> {
    // Room for the answer comes first: what is taken from a stream cannot be put back.
    let port = text_in(mem, a[0])?;
    let before = port.position.load(Relaxed);
    let mut count = 0;
    let mut ended = false;
    look(mem, port, |c| {
        ended = c == '\n';
        count += usize::from(!ended);
        !ended
    })?;
    if count == 0 && !ended {
        return Ok(Value::EOF);
    }
    let string = mem.chars(count)?;
    let taken = take_chars(mem, port, |c| (true, c != '\n'))?;
    taken.iter().take(count).enumerate().for_each(|(index, &c)| string.set(index, c as u32));
    or_go_back(port, before, Ok(Value::object(string)))
}

/// Looks at characters without taking them, for as long as `on` says.
fn look<'m>(
    mem: Mem<'m, '_>,
    port: Gc<'m, Port>,
    mut on: impl FnMut(char) -> bool,
) -> Result<'m, ()> {
    if !is_stream(port) {
        let before = port.position.load(Relaxed);
        take_chars(mem, port, |c| (true, on(c)))?;
        port.position.store(before, Relaxed);
        return Ok(());
    }
    let guard = stream(mem, port)?;
    let bytes = guard.available();
    let mut at = 0;
    loop {
        let next = if at < bytes.len() { decode(&bytes[at..], guard.ended()) } else { None };
        let Some((c, len)) = next else {
            if guard.ended() {
                return Ok(());
            }
            return Err(fill_first(mem, port, at));
        };
        at += len;
        if !on(c) {
            return Ok(());
        }
    }
}

fn read_string<'m>(mem: Mem<'m, '_>, a: &[Value<'m>]) -> Result<'m> {
    let wanted = args::size(a[0])?;
    let port = text_in(mem, a[1])?;
    if wanted == 0 {
        return string_of(mem, &[]);
    }
    let mut count = 0;
    look(mem, port, |_| {
        count += 1;
        count < wanted
    })?;
    if count == 0 {
        return Ok(Value::EOF);
    }
    let string = mem.chars(count)?;
    let mut left = count;
    let taken = take_chars(mem, port, |_| {
        left -= 1;
        (true, left > 0)
    })?;
    taken.iter().enumerate().for_each(|(index, &c)| string.set(index, c as u32));
    Ok(Value::object(string))
}

/// Takes up to `most` bytes; the buffer is complete unless the input has ended.
fn with_bytes<'m, R>(
    mem: Mem<'m, '_>,
    port: Gc<'m, Port>,
    most: usize,
    take: bool,
    use_them: impl FnOnce(&mut dyn FnMut(usize) -> u8, usize) -> Result<'m, R>,
) -> Result<'m, R> {
    if !is_stream(port) {
        let bytes = port.bytes.load(mem.scope()).expect("a bytevector port has bytes");
        let at = port.position.load(Relaxed);
        let count = most.min(port.end.load(Relaxed) - at);
        let result = use_them(&mut |index| bytes.get(at + index), count)?;
        if take {
            port.position.store(at + count, Relaxed);
        }
        return Ok(result);
    }
    let mut guard = stream(mem, port)?;
    if guard.available().len() < most && !guard.ended() {
        return Err(fill_first(mem, port, guard.available().len()));
    }
    let count = most.min(guard.available().len());
    let result = use_them(&mut |index| guard.available()[index], count)?;
    if take {
        guard.consume(count);
    }
    Ok(result)
}

fn bytes_in<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m, Gc<'m, Port>> {
    open_port(mem, value, flag::INPUT | flag::BINARY)
}

fn one_byte<'m>(mem: Mem<'m, '_>, value: Value<'m>, take: bool) -> Result<'m> {
    with_bytes(mem, bytes_in(mem, value)?, 1, take, |byte, count| {
        Ok(if count == 0 { Value::EOF } else { Value::fixnum(byte(0) as i64) })
    })
}

fn read_bytevector<'m>(mem: Mem<'m, '_>, a: &[Value<'m>]) -> Result<'m> {
    let most = args::size(a[0])?;
    with_bytes(mem, bytes_in(mem, a[1])?, most, true, |byte, count| {
        if count == 0 && most > 0 {
            return Ok(Value::EOF);
        }
        let made = mem.bytes(count)?;
        (0..count).for_each(|index| made.set(index, byte(index)));
        Ok(Value::object(made))
    })
}

fn read_bytevector_to<'m>(mem: Mem<'m, '_>, a: &[Value<'m>]) -> Result<'m> {
    let to = args::bytes(mem, a[0])?;
    let (start, end) = args::range(a, 2, to.len())?;
    with_bytes(mem, bytes_in(mem, a[1])?, end - start, true, |byte, count| {
        if count == 0 && end > start {
            return Ok(Value::EOF);
        }
        (0..count).for_each(|index| to.set(start + index, byte(index)));
        Ok(Value::fixnum(count as i64))
    })
}

/// Writes text to a port.
pub(super) fn put<'m>(mem: Mem<'m, '_>, target: Value<'m>, text: &str) -> Result<'m> {
    let port = open_port(mem, target, flag::OUTPUT | flag::TEXT)?;
    if is_stream(port) {
        return put_stream(mem, port, text.as_bytes());
    }
    let count = text.chars().count();
    let end = port.end.load(Relaxed);
    let old = port.text.load(mem.scope());
    let room = old.map_or(0, |old| old.len());
    let array = if end + count > room {
        let grown = mem.chars((2 * room).max(end + count).max(32))?;
        if let Some(old) = old {
            grown.copy_array(0, old, 0..end);
        }
        port.text.store(mem.scope(), Some(grown));
        grown
    } else {
        old.expect("there is room")
    };
    text.chars().enumerate().for_each(|(index, c)| array.set(end + index, c as u32));
    port.end.store(end + count, Relaxed);
    Ok(Value::UNSPECIFIED)
}

/// Writes an object to a port. The text is made when nothing is in the way of the writing any more, since it may be long.
fn put_object<'m>(mem: Mem<'m, '_>, a: &[Value<'m>], mode: Mode) -> Result<'m> {
    let port = open_port(mem, a[1], flag::OUTPUT | flag::TEXT)?;
    if is_stream(port) && stream(mem, port)?.waiting() > Stream::FULL {
        return Err(flush_first(port));
    }
    match to_string(mem, a[0], mode, mem.world().most_text, &Texts::new()) {
        Ok(text) => put(mem, a[1], &text),
        Err(Unprinted::TooLong(_)) => Err(too_long()),
        Err(Unprinted::Number(number)) => {
            mem.keep(mem.cons(a[0], a[1])?);
            Err(super::long_text::put(number, mode))
        }
    }
}

fn put_stream<'m>(mem: Mem<'m, '_>, port: Gc<'m, Port>, bytes: &[u8]) -> Result<'m> {
    let mut guard = stream(mem, port)?;
    if guard.waiting() > Stream::FULL {
        return Err(flush_first(port));
    }
    guard.put(bytes);
    match guard.take_failure() {
        Some(failure) => Err(error_of("file", failure, &[])),
        // Writing may have to wait for whoever reads: not in this stretch.
        None if guard.wants_flush() => Err(flush(port)),
        None => Ok(Value::UNSPECIFIED),
    }
}

/// Writes out what waits; that is the whole of what remains to be done.
#[cold]
fn flush<'m>(port: Gc<'m, Port>) -> Trap<'m> {
    let handle = port.stream;
    TrapKind::Outside(Box::new(move |vm| {
        let world = vm.world.clone();
        let failure = vm.cx.blocking(|| {
            let mut stream = world.streams.lock(handle)?;
            stream.flush();
            stream.take_failure()
        });
        vm.set(register::RESULT, |_| Value::UNSPECIFIED);
        failure.map_or(Ok(()), |failure| Err(Failure::Error("file", failure)))
    }))
    .into()
}

pub(super) const TOO_LONG: &str = "the text is longer than the heap is large";

/// The error of a text that is longer than the heap is large.
#[cold]
fn too_long<'m>() -> Trap<'m> {
    error_of("out-of-memory", TOO_LONG, &[])
}

#[cold]
fn flush_first<'m>(port: Gc<'m, Port>) -> Trap<'m> {
    let handle = port.stream;
    TrapKind::Block(Box::new(move |world| {
        if let Some(mut stream) = world.streams.lock(handle) {
            stream.flush();
        }
    }))
    .into()
}

fn put_bytes<'m>(mem: Mem<'m, '_>, target: Value<'m>, bytes: &[u8]) -> Result<'m> {
    let port = open_port(mem, target, flag::OUTPUT | flag::BINARY)?;
    if is_stream(port) {
        return put_stream(mem, port, bytes);
    }
    let end = port.end.load(Relaxed);
    let old = port.bytes.load(mem.scope());
    let room = old.map_or(0, |old| old.len());
    let array = if end + bytes.len() > room {
        let grown = mem.bytes((2 * room).max(end + bytes.len()).max(64))?;
        if let Some(old) = old {
            grown.copy_array(0, old, 0..end);
        }
        port.bytes.store(mem.scope(), Some(grown));
        grown
    } else {
        old.expect("there is room")
    };
    array.copy_from(end, bytes);
    port.end.store(end + bytes.len(), Relaxed);
    Ok(Value::UNSPECIFIED)
}

fn close<'m>(mem: Mem<'m, '_>, value: Value<'m>, which: u64) -> Result<'m> {
    let port = port(mem, value)?;
    let flags = port.flags.load(Relaxed);
    if flags & which == 0 {
        return Err(wrong_type(
            if which == flag::INPUT { "an input port" } else { "an output port" },
            value,
        ));
    }
    if flags & flag::OPEN != 0 {
        if flags & flag::STREAM != 0
            && flags & flag::OUTPUT != 0
            && stream(mem, port)?.waiting() > 0
        {
            return Err(flush_first(port));
        }
        port.flags.store(flags & !flag::OPEN, Relaxed);
        if flags & flag::STREAM != 0
            && let Some(failure) = mem.world().streams.close(port.stream)
        {
            return Err(error_of("file", failure, &[value]));
        }
    }
    Ok(Value::UNSPECIFIED)
}

fn has<'m>(mem: Mem<'m, '_>, value: Value<'m>, wanted: u64) -> Result<'m> {
    let port = mem.object::<Port>(value);
    Ok(Value::boolean(port.is_some_and(|port| port.flags.load(Relaxed) & wanted == wanted)))
}

fn is_open<'m>(mem: Mem<'m, '_>, value: Value<'m>, wanted: u64) -> Result<'m> {
    let flags = port(mem, value)?.flags.load(Relaxed);
    if flags & wanted == 0 {
        return Err(wrong_type(
            if wanted == flag::INPUT { "an input port" } else { "an output port" },
            value,
        ));
    }
    Ok(Value::boolean(flags & flag::OPEN != 0))
}

/// Builtins of this file.
pub const TABLE: &[Builtin] = &[
    Builtin::new("eof-object", 0, 0, |_, _| Ok(Value::EOF)),
    Builtin::new("eof-object?", 1, 1, |_, a| Ok(Value::boolean(a[0] == Value::EOF))),
    Builtin::new("port?", 1, 1, |mem, a| Ok(Value::boolean(mem.object::<Port>(a[0]).is_some()))),
    Builtin::new("input-port?", 1, 1, |mem, a| has(mem, a[0], flag::INPUT)),
    Builtin::new("output-port?", 1, 1, |mem, a| has(mem, a[0], flag::OUTPUT)),
    Builtin::new("textual-port?", 1, 1, |mem, a| has(mem, a[0], flag::TEXT)),
    Builtin::new("binary-port?", 1, 1, |mem, a| has(mem, a[0], flag::BINARY)),
    Builtin::new("input-port-open?", 1, 1, |mem, a| is_open(mem, a[0], flag::INPUT)),
    Builtin::new("output-port-open?", 1, 1, |mem, a| is_open(mem, a[0], flag::OUTPUT)),
    Builtin::new("close-port", 1, 1, |mem, a| close(mem, a[0], flag::INPUT | flag::OUTPUT)),
    Builtin::new("close-input-port", 1, 1, |mem, a| close(mem, a[0], flag::INPUT)),
    Builtin::new("close-output-port", 1, 1, |mem, a| close(mem, a[0], flag::OUTPUT)),
    Builtin::new("%standard-port", 1, 1, |mem, a| {
        let number = args::size(a[0])?;
        let way = if number == 0 { flag::INPUT } else { flag::OUTPUT };
        make_port(mem, way | flag::TEXT | flag::STREAM, number)
    }),
    Builtin::new("open-input-file", 1, 1, |mem, a| {
        open_file(mem, "open-input-file", a[0], flag::INPUT | flag::TEXT)
    }),
    Builtin::new("open-output-file", 1, 1, |mem, a| {
        open_file(mem, "open-output-file", a[0], flag::OUTPUT | flag::TEXT)
    }),
    Builtin::new("open-binary-input-file", 1, 1, |mem, a| {
        open_file(mem, "open-binary-input-file", a[0], flag::INPUT | flag::BINARY)
    }),
    Builtin::new("open-binary-output-file", 1, 1, |mem, a| {
        open_file(mem, "open-binary-output-file", a[0], flag::OUTPUT | flag::BINARY)
    }),
    Builtin::new("open-input-string", 1, 1, |mem, a| {
        let string = args::string(mem, a[0])?;
        let copy = mem.chars(string.len())?;
        copy.copy_array(0, string, 0..string.len());
        let value = make_port(mem, flag::INPUT | flag::TEXT, 0)?;
        let made = port(mem, value)?;
        made.text.store(mem.scope(), Some(copy));
        made.end.store(string.len(), Relaxed);
        Ok(value)
    }),
    Builtin::new("open-output-string", 0, 0, |mem, _| make_port(mem, flag::OUTPUT | flag::TEXT, 0)),
    Builtin::new("open-input-bytevector", 1, 1, |mem, a| {
        let bytes = args::bytes(mem, a[0])?;
        let copy = mem.bytes(bytes.len())?;
        copy.copy_array(0, bytes, 0..bytes.len());
        let value = make_port(mem, flag::INPUT | flag::BINARY, 0)?;
        let made = port(mem, value)?;
        made.bytes.store(mem.scope(), Some(copy));
        made.end.store(bytes.len(), Relaxed);
        Ok(value)
    }),
    Builtin::new("open-output-bytevector", 0, 0, |mem, _| {
        make_port(mem, flag::OUTPUT | flag::BINARY, 0)
    }),
    Builtin::new("get-output-string", 1, 1, |mem, a| {
        let port = port(mem, a[0])?;
        let flags = port.flags.load(Relaxed);
        if flags & (flag::OUTPUT | flag::TEXT | flag::STREAM) != flag::OUTPUT | flag::TEXT {
            return Err(wrong_type("a string output port", a[0]));
        }
        let end = port.end.load(Relaxed);
        let made = mem.chars(end)?;
        if let Some(text) = port.text.load(mem.scope()) {
            made.copy_array(0, text, 0..end);
        }
        Ok(Value::object(made))
    }),
    Builtin::new("get-output-bytevector", 1, 1, |mem, a| {
        let port = port(mem, a[0])?;
        let flags = port.flags.load(Relaxed);
        if flags & (flag::OUTPUT | flag::BINARY | flag::STREAM) != flag::OUTPUT | flag::BINARY {
            return Err(wrong_type("a bytevector output port", a[0]));
        }
        let end = port.end.load(Relaxed);
        let made = mem.bytes(end)?;
        if let Some(bytes) = port.bytes.load(mem.scope()) {
            made.copy_array(0, bytes, 0..end);
        }
        Ok(Value::object(made))
    }),
    Builtin::new("%read-char", 1, 1, read_char),
    Builtin::new("%peek-char", 1, 1, peek_char),
    Builtin::new("%read-line", 1, 1, read_line),
    Builtin::new("%read-string", 2, 2, read_string),
    Builtin::new("%read", 1, 1, read),
    Builtin::new("%char-ready?", 1, 1, |mem, a| {
        let port = text_in(mem, a[0])?;
        is_ready(mem, port, |bytes| decode(bytes, false).is_some())
    }),
    Builtin::new("%read-u8", 1, 1, |mem, a| one_byte(mem, a[0], true)),
    Builtin::new("%peek-u8", 1, 1, |mem, a| one_byte(mem, a[0], false)),
    Builtin::new("%u8-ready?", 1, 1, |mem, a| {
        let port = bytes_in(mem, a[0])?;
        is_ready(mem, port, |_| true)
    }),
    Builtin::new("%read-bytevector", 2, 2, read_bytevector),
    Builtin::new("%read-bytevector!", 2, 4, read_bytevector_to),
    Builtin::new("%write", 2, 2, |mem, a| put_object(mem, a, Mode::Write)),
    Builtin::new("%write-shared", 2, 2, |mem, a| put_object(mem, a, Mode::Shared)),
    Builtin::new("%write-simple", 2, 2, |mem, a| put_object(mem, a, Mode::Simple)),
    Builtin::new("%display", 2, 2, |mem, a| put_object(mem, a, Mode::Display)),
    Builtin::new("%write-char", 2, 2, |mem, a| {
        let mut buffer = [0; 4];
        put(mem, a[1], args::char(a[0])?.encode_utf8(&mut buffer))
    }),
    Builtin::new("%write-string", 2, 4, |mem, a| {
        let string = args::string(mem, a[0])?;
        let (start, end) = args::range(a, 2, string.len())?;
        put(mem, a[1], &mem.text_of(string, start..end))
    }),
    Builtin::new("%write-u8", 2, 2, |mem, a| put_bytes(mem, a[1], &[args::byte(a[0])?])),
    Builtin::new("%write-bytevector", 2, 4, |mem, a| {
        let bytes = args::bytes(mem, a[0])?;
        let (start, end) = args::range(a, 2, bytes.len())?;
        let mut copy = vec![0; end - start];
        bytes.copy_to(start, &mut copy);
        put_bytes(mem, a[1], &copy)
    }),
    Builtin::new("%flush", 1, 1, |mem, a| {
        let port = port(mem, a[0])?;
        if !is_stream(port) {
            return Ok(Value::UNSPECIFIED);
        }
        if stream(mem, port)?.waiting() > 0 {
            return Err(flush(port));
        }
        Ok(Value::UNSPECIFIED)
    }),
];
