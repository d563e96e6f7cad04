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
    // Where the datum begins counts only if it is wrong.
    let (result, (lines, columns)) = if is_stream(port) {
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
        let begins = guard.place();
        guard.consume(at);
        (result, begins)
    } else {
        let text = port.text.load(mem.scope()).expect("a string port has text");
        let end = port.end.load(Relaxed);
        let mut next =
            |at: usize| (at < end).then(|| (char::from_u32(text.get(at)).unwrap_or('\u{fffd}'), 1));
        let begins = port.position.load(Relaxed);
        let mut chars = Chars { next: &mut next, at: begins, hit_end: false };
        let result = parse(&mut chars, &mut forms);
        port.position.store(chars.at, Relaxed);
        let place = |(lines, columns), at| match text.get(at) == u32::from('\n') {
            true => (lines + 1, 0),
            false => (lines, columns + 1),
        };
        let before = if result.is_err() { begins } else { 0 };
        (result, (0..before).fold((0, 0), place))
    };
    match result {
        Ok(None) => Ok(Value::EOF),
        Ok(Some(id)) => Err(crate::datum::deliver(forms, id)),
        Err(wrong) => {
            let first = if wrong.at.line == 1 { columns } else { 0 };
            let place = format!(
                "line {}, column {}: {}",
                wrong.at.line + lines,
                wrong.at.column + first,
                wrong.message
            );
            Err(error_of("read", place, &[]))
        }
    }
}
