//! `read`: the reader over what a port has.
//!
//! The reader gets the characters that are there. If it comes to their end before the datum's, more is read and all of
//! it is looked at again, twice as much each time; nothing is taken from the port before the datum is complete. The
//! datum is made in the heap between two stretches ([`crate::datum`]), because it may be of any size.
//!
//! A short datum is read in the stretch. One that is longer, or has a number in it that may take long to compute, is read
//! outside: a copy of what the port has is looked at in a blocking section, first for where the datum ends, without its
//! numbers, then with them. It is taken from the port if that still begins with it: another thread may have read meanwhile.
//!
//! Called by the table of [`super::ports`].

use super::ports::{TOO_LONG, decode, fill_first, is_stream, stream, text_in};
use super::strings::room_for_symbols;
use crate::mem::Mem;
use crate::numbers::large::{Stopped, Watch};
use crate::numbers::text::SHORT_TEXT;
use crate::object::character;
use crate::syntax::reader::{PIECE, ReadError, Reader, Source};
use crate::syntax::{Forms, Id};
use crate::trap::{Result, Trap, TrapKind, error_of, named};
use crate::value::Value;
use crate::vm::{Failure, Vm, register};
use std::sync::atomic::Ordering::Relaxed;

/// Bytes or characters that are looked at in a stretch: a millisecond or two.
const AT_ONCE: usize = PIECE;
const _: () =
    assert!(AT_ONCE <= SHORT_TEXT, "digits that are looked at at once are computed at once");

/// The character at a place, and how long it is.
type Next<'t> = &'t mut dyn FnMut(usize) -> Option<(char, usize)>;

/// Characters from a place in a text, for the reader.
struct Chars<'t> {
    next: Next<'t>,
    at: usize,
    /// Where the piece ends.
    end: usize,
    hit_end: bool,
}

impl Chars<'_> {
    fn here(&mut self) -> Option<(char, usize)> {
        if self.at >= self.end {
            return None;
        }
        let next = (self.next)(self.at);
        self.hit_end |= next.is_none();
        next
    }
}

impl Source for &mut Chars<'_> {
    fn peek(&mut self) -> Option<char> {
        self.here().map(|(c, _)| c)
    }
    fn next(&mut self) -> Option<char> {
        let (c, len) = self.here()?;
        self.at += len;
        Some(c)
    }
    fn more(&mut self) -> bool {
        self.end = self.at + PIECE;
        self.here().is_some()
    }
}

/// What a look at a text has shown.
struct Looked {
    forms: Forms,
    result: std::result::Result<Option<Id>, ReadError>,
    /// Where the reader has stopped.
    at: usize,
    hit_end: bool,
    has_left_out: bool,
}

/// Reads from `begins` on; unless it `computes`, long numbers are left out.
fn look(
    watch: &Watch<'_>,
    computes: bool,
    begins: usize,
    next: Next<'_>,
) -> std::result::Result<Looked, Stopped> {
    let mut forms = Forms::new();
    let mut chars = Chars { next, at: begins, end: begins + PIECE, hit_end: false };
    let mut reader = Reader::new(*watch, &mut chars);
    if !computes {
        reader.leave_out_long_numbers();
    }
    let result = match reader.read(&mut forms) {
        Ok(datum) => Ok(datum),
        Err(unread) => Err(unread.wrong()?),
    };
    let has_left_out = reader.has_left_out();
    Ok(Looked { forms, result, at: chars.at, hit_end: chars.hit_end, has_left_out })
}

fn look_at_once(begins: usize, next: Next<'_>) -> Looked {
    look(&Watch::NOBODY, false, begins, next).expect("nobody stops it")
}

fn byte_text(bytes: &[u8], ended: bool) -> impl FnMut(usize) -> Option<(char, usize)> {
    move |at| if at < bytes.len() { decode(&bytes[at..], ended) } else { None }
}

/// What is wrong, and where, if the text begins after so many lines and so many characters of the last one.
fn message(wrong: &ReadError, (lines, columns): (u32, u32)) -> String {
    let first = if wrong.at.line == 1 { columns } else { 0 };
    let (line, column) = (wrong.at.line + lines, wrong.at.column + first);
    format!("line {line}, column {column}: {}", wrong.message)
}

/// Lines and characters of the last one in the text before a place.
fn place_of(codes: impl Iterator<Item = u32>) -> (u32, u32) {
    codes.fold((0, 0), |(lines, columns), code| match code == u32::from('\n') {
        true => (lines + 1, 0),
        false => (lines, columns + 1),
    })
}

pub(super) fn read<'m>(mem: Mem<'m, '_>, a: &[Value<'m>]) -> Result<'m> {
    let port = text_in(mem, a[0])?;
    room_for_symbols(mem)?;
    // Where the datum begins counts only if it is wrong.
    let (looked, place) = if is_stream(port) {
        let mut guard = stream(mem, port)?;
        let held = guard.available().len();
        let piece = held.min(AT_ONCE);
        let is_all = guard.ended() && piece == held;
        let looked = look_at_once(0, &mut byte_text(&guard.available()[..piece], is_all));
        let wants_more = looked.hit_end && !is_all;
        if wants_more && piece == held {
            return Err(fill_first(mem, port, held));
        }
        if wants_more || looked.has_left_out {
            return Err(outside(mem, a[0]));
        }
        let place = guard.place();
        guard.consume(looked.at);
        (looked, place)
    } else {
        let text = port.text.load(mem.scope()).expect("a string port has text");
        let (begins, ends) = (port.position.load(Relaxed), port.end.load(Relaxed));
        let end = ends.min(begins + AT_ONCE);
        let mut next = |at: usize| (at < end).then(|| (character(text.get(at)), 1));
        let looked = look_at_once(begins, &mut next);
        if looked.hit_end && end < ends || looked.has_left_out {
            return Err(outside(mem, a[0]));
        }
        port.position.store(looked.at, Relaxed);
        let before = if looked.result.is_err() { begins } else { 0 };
        (looked, place_of((0..before).map(|at| text.get(at))))
    };
    match looked.result {
        Ok(None) => Ok(Value::EOF),
        Ok(Some(id)) => Err(crate::datum::deliver(looked.forms, id)),
        Err(wrong) => Err(error_of("read", message(&wrong, place), &[])),
    }
}

/// A copy of what a port has, from where it is read.
enum Held {
    /// A stream: the first bytes that wait; whether there are no more of them, and whether none will follow.
    Bytes { handle: usize, bytes: Vec<u8>, is_all: bool, ended: bool },
    /// A string: characters from a place on, and whether they are all.
    Chars { begins: usize, codes: Vec<u32>, is_all: bool },
}

impl Held {
    fn look(&self, watch: &Watch<'_>, computes: bool) -> std::result::Result<Looked, Stopped> {
        match self {
            Held::Bytes { bytes, .. } => {
                look(watch, computes, 0, &mut byte_text(bytes, self.is_whole()))
            }
            Held::Chars { codes, .. } => {
                let mut next = |at: usize| codes.get(at).map(|&code| (character(code), 1));
                look(watch, computes, 0, &mut next)
            }
        }
    }

    /// Whether nothing follows.
    fn is_whole(&self) -> bool {
        match self {
            Held::Bytes { is_all, ended, .. } => *is_all && *ended,
            Held::Chars { is_all, .. } => *is_all,
        }
    }
}

/// Reads outside of the stretch.
#[cold]
fn outside<'m>(mem: Mem<'m, '_>, port: Value<'m>) -> Trap<'m> {
    mem.keep(port);
    TrapKind::Outside(Box::new(|vm| {
        let kept = vm.kept();
        vm.copy_register(kept, register::RESULT);
        match read_outside(vm) {
            Err(Failure::Error(kind, message)) => {
                Err(Failure::Error(kind, named("read", &message)))
            }
            done => done,
        }
    }))
    .into()
}

/// Reads from the port in the register RESULT; there the datum is left. If it is interrupted there is none, and whoever runs the
/// machine sees why.
fn read_outside(vm: &mut Vm<'_, '_>) -> std::result::Result<(), Failure> {
    let mut most = 2 * AT_ONCE;
    loop {
        let held = held(vm, most)?;
        let Ok(mut looked) = vm.watched(|watch| held.look(watch, false)) else { return Ok(()) };
        if looked.hit_end && !held.is_whole() {
            match &held {
                Held::Bytes { handle, bytes, is_all: true, .. } => {
                    if bytes.len() > vm.world.most_text {
                        return Err(Failure::Error("out-of-memory", TOO_LONG.into()));
                    }
                    most = most.max(2 * bytes.len());
                    fill(vm, *handle);
                    if vm.is_to_end() {
                        return Ok(());
                    }
                }
                _ => most *= 2,
            }
            continue;
        }
        if looked.has_left_out {
            let Ok(again) = vm.watched(|watch| held.look(watch, true)) else { return Ok(()) };
            looked = again;
        }
        let Some(place) = take(vm, &held, &looked)? else { continue };
        return match looked.result {
            Ok(None) => {
                vm.set(register::RESULT, |_| Value::EOF);
                Ok(())
            }
            Ok(Some(id)) => crate::datum::deliver_now(vm, &looked.forms, id),
            Err(wrong) => Err(Failure::Error("read", message(&wrong, place))),
        };
    }
}

fn closed() -> Failure {
    Failure::Error("error", "the port is closed".into())
}

/// Copies so much of what the port in the register RESULT has.
fn held(vm: &mut Vm<'_, '_>, most: usize) -> std::result::Result<Held, Failure> {
    let (mut handle, mut held) = (0, None);
    vm.settle(register::SCRATCH, |mem, registers| {
        let port = text_in(mem, mem.element(registers, register::RESULT))?;
        if is_stream(port) {
            handle = port.stream;
            return Ok(Value::FALSE);
        }
        let text = port.text.load(mem.scope()).expect("a string port has text");
        let (begins, ends) = (port.position.load(Relaxed), port.end.load(Relaxed));
        let end = ends.min(begins + most);
        let mut codes = vec![0; end.saturating_sub(begins)];
        text.copy_to(begins, &mut codes);
        held = Some(Held::Chars { begins, codes, is_all: end == ends });
        Ok(Value::FALSE)
    })?;
    if let Some(held) = held {
        return Ok(held);
    }
    let world = vm.world.clone();
    let copied = vm.cx.blocking(|| {
        let stream = world.streams.lock(handle)?;
        let waiting = stream.available();
        let bytes = waiting[..waiting.len().min(most)].to_vec();
        let is_all = bytes.len() == waiting.len();
        Some(Held::Bytes { handle, bytes, is_all, ended: stream.ended() })
    });
    copied.ok_or_else(closed)
}

/// More of a stream is to wait.
fn fill(vm: &mut Vm<'_, '_>, handle: usize) {
    let world = vm.world.clone();
    vm.cx.blocking(|| {
        if let Some(mut stream) = world.streams.lock(handle) {
            stream.fill();
        }
    });
}

/// Takes what was read from the port in the register RESULT: where it began. `None` if it is not there any more.
fn take(
    vm: &mut Vm<'_, '_>,
    held: &Held,
    looked: &Looked,
) -> std::result::Result<Option<(u32, u32)>, Failure> {
    let mut place = None;
    match held {
        Held::Chars { begins, .. } => vm.settle(register::SCRATCH, |mem, registers| {
            let port = text_in(mem, mem.element(registers, register::RESULT))?;
            let text = port.text.load(mem.scope()).expect("a string port has text");
            if port.position.load(Relaxed) == *begins {
                port.position.store(begins + looked.at, Relaxed);
                let before = if looked.result.is_err() { *begins } else { 0 };
                place = Some(place_of((0..before).map(|at| text.get(at))));
            }
            Ok(Value::FALSE)
        })?,
        Held::Bytes { handle, bytes, .. } => {
            let world = vm.world.clone();
            let taken = vm.cx.blocking(|| {
                let mut stream = world.streams.lock(*handle)?;
                let is_there = stream.available().starts_with(&bytes[..looked.at]);
                let began = stream.place();
                if is_there {
                    stream.consume(looked.at);
                }
                Some(is_there.then_some(began))
            });
            place = taken.ok_or_else(closed)?;
        }
    }
    Ok(place)
}
