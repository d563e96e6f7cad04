//! `read`: the reader over what a port has.
//!
//! The reader gets the characters that are there. If it comes to their end before the datum's, more is read and all of
//! it is looked at again, twice as much each time; nothing is taken from the port before the datum is complete. The
//! datum is made in the heap between two stretches ([`crate::datum`]), because it may be of any size.
//!
//! Called by the table of [`super::ports`].

use super::ports::{decode, fill_first, is_stream, stream, text_in};
use super::strings::room_for_symbols;
use crate::mem::Mem;
use crate::syntax::Forms;
use crate::syntax::reader::{Reader, Source};
use crate::trap::{Result, error_of};
use crate::value::Value;
use std::sync::atomic::Ordering::Relaxed;

/// Characters from a place in a text, for the reader.
struct Chars<'t> {
    next: &'t mut dyn FnMut(usize) -> Option<(char, usize)>,
    at: usize,
    hit_end: bool,
}

impl Source for Chars<'_> {
    fn peek(&mut self) -> Option<char> {
        let next = (self.next)(self.at);
        self.hit_end |= next.is_none();
        next.map(|(c, _)| c)
    }
    fn next(&mut self) -> Option<char> {
        let next = (self.next)(self.at);
        self.hit_end |= next.is_none();
        let (c, len) = next?;
        self.at += len;
        Some(c)
    }
}

struct Borrowed<'a, 't>(&'a mut Chars<'t>);

impl Source for Borrowed<'_, '_> {
    fn peek(&mut self) -> Option<char> {
        self.0.peek()
    }
    fn next(&mut self) -> Option<char> {
        self.0.next()
    }
}

pub(super) fn read<'m>(mem: Mem<'m, '_>, a: &[Value<'m>]) -> Result<'m> {
    let port = text_in(mem, a[0])?;
    room_for_symbols(mem)?;
    let mut forms = Forms::new();
    let parse = |chars: &mut Chars<'_>, forms: &mut Forms| Reader::new(Borrowed(chars)).read(forms);
    let (result, consumed) = if is_stream(port) {
        let mut guard = stream(mem, port)?;
        let ended = guard.ended();
        let held = guard.available().len();
        let (result, at, hit_end) = {
            let bytes = guard.available();
            let mut next =
                |at: usize| if at < bytes.len() { decode(&bytes[at..], ended) } else { None };
            let mut chars = Chars { next: &mut next, at: 0, hit_end: false };
            let result = parse(&mut chars, &mut forms);
            (result, chars.at, chars.hit_end)
        };
        if hit_end && !ended {
            return Err(fill_first(mem, port, held));
        }
        guard.consume(at);
        (result, 0)
    } else {
        let text = port.text.load(mem.scope()).expect("a string port has text");
        let end = port.end.load(Relaxed);
        let mut next =
            |at: usize| (at < end).then(|| (char::from_u32(text.get(at)).unwrap_or('\u{fffd}'), 1));
        let mut chars = Chars { next: &mut next, at: port.position.load(Relaxed), hit_end: false };
        let result = parse(&mut chars, &mut forms);
        (result, chars.at)
    };
    if !is_stream(port) {
        port.position.store(consumed, Relaxed);
    }
    match result {
        Ok(None) => Ok(Value::EOF),
        Ok(Some(id)) => Err(crate::datum::deliver(forms, id)),
        Err(wrong) => {
            let place =
                format!("line {}, column {}: {}", wrong.at.line, wrong.at.column, wrong.message);
            Err(error_of("read", place, &[]))
        }
    }
}
