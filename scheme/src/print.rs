//! The printer: `display`, `write`, `write-shared`, `write-simple`, error messages.
//!
//! Without recursion: data may be nested a million levels deep. Datum labels are looked for only when a first walk
//! over the object does not end soon, since most of what programs print is a small tree.

use crate::mem::Mem;
use crate::numbers::large::Watch;
use crate::numbers::long::{Length, now};
use crate::numbers::{self, Number};
use crate::object::*;
use crate::symbol::Symbol;
use crate::syntax::{Forms, Id, Ident, Node};
use crate::value::Value;
use crate::vm::{Failure, Vm, register};
use rustc_hash::FxHashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write;

/// How objects are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Strings and characters as themselves; labels for cycles.
    Display,
    /// As data that can be read; labels for cycles.
    Write,
    /// Labels for everything that is shared.
    Shared,
    /// No labels.
    Simple,
}

const CHARACTER_NAMES: &[(&str, char)] = &[
    ("alarm", '\x07'),
    ("backspace", '\x08'),
    ("delete", '\x7f'),
    ("escape", '\x1b'),
    ("newline", '\n'),
    ("null", '\0'),
    ("return", '\r'),
    ("space", ' '),
    ("tab", '\t'),
    ("nul", '\0'),
    ("altmode", '\x1b'),
    ("linefeed", '\n'),
    ("page", '\x0c'),
    ("rubout", '\x7f'),
];

/// The character that a name after `#\` stands for.
pub fn char_of_name(name: &str) -> Option<char> {
    CHARACTER_NAMES.iter().find(|(known, _)| *known == name).map(|&(_, c)| c)
}

fn write_char(out: &mut String, c: char) {
    out.push_str("#\\");
    match CHARACTER_NAMES.iter().find(|&&(_, known)| known == c) {
        Some((name, _)) => out.push_str(name),
        None if c.is_control() || (c.is_whitespace() && c != ' ') => {
            let _ = write!(out, "x{:x}", c as u32);
        }
        None => out.push(c),
    }
}

fn write_text(out: &mut String, text: impl Iterator<Item = char>) {
    out.push('"');
    for c in text {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:x};", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A symbol as `write` has it: between bars where it would not be read as the same symbol.
pub fn write_symbol(out: &mut String, name: &str) {
    let plain = !name.is_empty()
        && name != "."
        && !numbers::text::is_number(name, 10)
        && !numbers::text::is_complex(name)
        && !name.starts_with('#')
        && name.chars().all(|c| {
            !c.is_whitespace()
                && !c.is_control()
                && !matches!(
                    c,
                    '(' | ')' | '"' | ';' | '\'' | '|' | '`' | ',' | '[' | ']' | '{' | '}' | '\\'
                )
        });
    if plain {
        out.push_str(name);
        return;
    }
    out.push('|');
    for c in name.chars() {
        match c {
            '|' => out.push_str("\\|"),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:x};", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('|');
}

fn is_record<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> bool {
    mem.object::<RecordObject>(value).is_some()
}

/// Children of an object that the printer descends into.
fn children<'m>(mem: Mem<'m, '_>, value: Value<'m>, mut each: impl FnMut(Value<'m>)) -> bool {
    if let Some(pair) = value.as_pair() {
        each(mem.cdr(pair));
        each(mem.car(pair));
        true
    } else if let Some(vector) = value.as_vector() {
        (0..vector.len()).rev().for_each(|index| each(mem.element(vector, index)));
        true
    } else if let Some(record) = mem.object::<RecordObject>(value) {
        (1..record.len()).rev().for_each(|index| each(mem.element(record, index)));
        true
    } else {
        false
    }
}

/// The objects that need labels, each with no number so far.
fn labels<'m>(mem: Mem<'m, '_>, value: Value<'m>, mode: Mode) -> FxHashMap<u64, Option<usize>> {
    let mut labels = FxHashMap::default();
    if mode == Mode::Simple {
        return labels;
    }
    if mode != Mode::Shared {
        // A walk that ends has met no cycle.
        let mut budget = 10_000;
        let mut todo = vec![value];
        while let Some(value) = todo.pop() {
            children(mem, value, |child| todo.push(child));
            budget -= 1;
            if budget == 0 || todo.len() > 100_000 {
                break;
            }
        }
        if todo.is_empty() {
            return labels;
        }
    }
    // Depth first, with the objects on the way down marked: one that is met again while it is marked is on a cycle.
    #[derive(PartialEq)]
    enum Mark {
        Open,
        Done,
    }
    let mut marks: FxHashMap<u64, Mark> = FxHashMap::default();
    let mut todo = vec![(value, false)];
    while let Some((value, leave)) = todo.pop() {
        if leave {
            marks.insert(value.bits(), Mark::Done);
            continue;
        }
        let is_compound = value.is_pair() || value.as_vector().is_some() || is_record(mem, value);
        if !is_compound {
            continue;
        }
        match marks.entry(value.bits()) {
            Entry::Vacant(mark) => {
                mark.insert(Mark::Open);
                todo.push((value, true));
                children(mem, value, |child| todo.push((child, false)));
            }
            Entry::Occupied(mark) => {
                if *mark.get() == Mark::Open || mode == Mode::Shared {
                    labels.insert(value.bits(), None);
                }
            }
        }
    }
    labels
}

enum Step<'m> {
    Datum(Value<'m>),
    Tail(Value<'m>),
    Element(Value<'m>, usize),
    Text(&'static str),
}

/// Why an object has no text.
#[derive(Debug)]
pub enum Unprinted {
    /// It is longer than what was allowed: how it begins.
    TooLong(String),
    /// A number in it has so many digits that they cannot be computed in a stretch; then the caller does that outside
    /// (`Vm::text_of`).
    Number(Number),
}

/// Numbers of many digits, as text.
pub type Texts = Vec<(Number, String)>;

/// An object as text, in which numbers of many digits are taken from `texts`.
///
/// # Errors
/// If it is longer than `most` bytes, which it may be by far if the object shares parts of itself, or if the text of a
/// number is missing.
pub fn to_string<'m>(
    mem: Mem<'m, '_>,
    value: Value<'m>,
    mode: Mode,
    most: usize,
    texts: &Texts,
) -> Result<String, Unprinted> {
    let mut out = String::new();
    let mut labels = labels(mem, value, mode);
    let mut next = 0;
    let mut todo = vec![Step::Datum(value)];
    while let Some(step) = todo.pop() {
        if out.len() > most {
            return Err(Unprinted::TooLong(out));
        }
        let value = match step {
            Step::Text(text) => {
                out.push_str(text);
                continue;
            }
            Step::Element(array, index) => {
                let array_of = array.as_vector().or_else(|| mem.object::<RecordObject>(array));
                let elements = array_of.expect("pushed for an array");
                if index < elements.len() {
                    if !out.ends_with('(') {
                        out.push(' ');
                    }
                    todo.push(Step::Element(array, index + 1));
                    todo.push(Step::Datum(mem.element(elements, index)));
                } else {
                    out.push_str(if array.as_vector().is_some() { ")" } else { ">" });
                }
                continue;
            }
            Step::Tail(value) => {
                let labelled = labels.contains_key(&value.bits());
                if let Some(pair) = value.as_pair().filter(|_| !labelled) {
                    out.push(' ');
                    todo.push(Step::Tail(mem.cdr(pair)));
                    todo.push(Step::Datum(mem.car(pair)));
                } else if value.is_nil() {
                    out.push(')');
                } else {
                    out.push_str(" . ");
                    todo.push(Step::Text(")"));
                    todo.push(Step::Datum(value));
                }
                continue;
            }
            Step::Datum(value) => value,
        };
        if let Some(label) = labels.get_mut(&value.bits()) {
            match label {
                Some(number) => {
                    let _ = write!(out, "#{number}#");
                    continue;
                }
                None => {
                    *label = Some(next);
                    let _ = write!(out, "#{next}=");
                    next += 1;
                }
            }
        }
        if let Some(pair) = value.as_pair() {
            // 'x, `x, ,x and ,@x
            if let Some(prefix) = mem.car(pair).as_symbol().and_then(prefix_of)
                && let Some(rest) = mem.cdr(pair).as_pair()
                && mem.cdr(rest).is_nil()
                && !labels.contains_key(&mem.cdr(pair).bits())
            {
                out.push_str(prefix);
                todo.push(Step::Datum(mem.car(rest)));
                continue;
            }
            out.push('(');
            todo.push(Step::Tail(mem.cdr(pair)));
            todo.push(Step::Datum(mem.car(pair)));
        } else if value.as_vector().is_some() {
            out.push_str("#(");
            todo.push(Step::Element(value, 0));
        } else if let Some(record) = mem.object::<RecordObject>(value) {
            out.push_str("#<");
            out.push_str(&record_name(mem, mem.element(record, 0)));
            todo.push(Step::Element(value, 1));
        } else {
            atom(mem, value, mode, &mut out, texts)?;
        }
    }
    Ok(out)
}

impl Vm<'_, '_> {
    /// The text of the object in a register, if it is not longer than `most` bytes: between two stretches, where numbers
    /// may have any number of digits. `texts` are those that are known.
    ///
    /// # Errors
    /// The end of memory.
    pub(crate) fn text_of(
        &mut self,
        register: usize,
        mode: Mode,
        most: usize,
        mut texts: Texts,
    ) -> Result<Printed, Failure> {
        loop {
            let mut done = None;
            self.settle(register::SCRATCH, |mem, registers| {
                let value = mem.element(registers, register);
                done = Some(to_string(mem, value, mode, most, &texts));
                Ok(Value::FALSE)
            })?;
            match done.expect("settled") {
                Ok(text) => return Ok(Printed::Whole(text)),
                Err(Unprinted::TooLong(begins)) => return Ok(Printed::Begins(begins)),
                Err(Unprinted::Number(number)) => {
                    let text = self.watched(|watch| numbers::text::format(watch, &number, 10));
                    let Ok(text) = text else { return Ok(Printed::Stopped) };
                    texts.push((number, text));
                }
            }
        }
    }
}

/// What [`Vm::text_of`] comes to.
pub(crate) enum Printed {
    /// The text.
    Whole(String),
    /// How it begins: it is too long.
    Begins(String),
    /// Somebody ended it.
    Stopped,
}

fn prefix_of(symbol: Symbol) -> Option<&'static str> {
    match &*symbol.name() {
        "quote" => Some("'"),
        "quasiquote" => Some("`"),
        "unquote" => Some(","),
        "unquote-splicing" => Some(",@"),
        _ => None,
    }
}

fn record_name<'m>(mem: Mem<'m, '_>, kind: Value<'m>) -> String {
    match mem.object::<RecordType>(kind) {
        Some(kind) => {
            let kind: &RecordType = &kind;
            symbol_name(kind.name.load(mem.scope()).into())
        }
        None => "record".to_string(),
    }
}

fn symbol_name(value: Value<'_>) -> String {
    value.as_symbol().map_or_else(String::new, |symbol| symbol.name().to_string())
}

fn procedure_name<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> String {
    let code = value.as_closure().and_then(|closure| mem.element(closure, 0).as_vector());
    let name = code.map(|code| symbol_name(mem.element(code, crate::compile::ops::code::NAME)));
    match name {
        Some(name) if !name.is_empty() => format!("#<procedure {name}>"),
        _ => "#<procedure>".to_string(),
    }
}

fn atom<'m>(
    mem: Mem<'m, '_>,
    value: Value<'m>,
    mode: Mode,
    out: &mut String,
    texts: &Texts,
) -> Result<(), Unprinted> {
    if let Some(number) = value.as_fixnum() {
        let _ = write!(out, "{number}");
    } else if let Some(c) = value.as_char() {
        if mode == Mode::Display { out.push(c) } else { write_char(out, c) }
    } else if let Some(symbol) = value.as_symbol() {
        let name = symbol.name();
        if mode == Mode::Display { out.push_str(&name) } else { write_symbol(out, &name) }
    } else if let Some(text) = mem.object::<StringObject>(value) {
        let chars = (0..text.len()).map(|i| character(text.get(i)));
        if mode == Mode::Display { out.extend(chars) } else { write_text(out, chars) }
    } else if let Some(bytes) = mem.object::<BytesObject>(value) {
        out.push_str("#u8(");
        for index in 0..bytes.len() {
            let space = if index == 0 { "" } else { " " };
            let _ = write!(out, "{space}{}", bytes.get(index));
        }
        out.push(')');
    } else if let Some(number) = numbers::decode(mem, value) {
        if let Some((_, text)) = texts.iter().find(|(known, _)| *known == number) {
            out.push_str(text);
        } else if numbers::text::length(&number) == Length::Long {
            return Err(Unprinted::Number(number));
        } else {
            out.push_str(&now(numbers::text::format(&Watch::NOBODY, &number, 10)));
        }
    } else if let Some(number) = value.as_primitive() {
        let _ = write!(out, "#<procedure {}>", mem.world().builtins()[number].name);
    } else if value.as_closure().is_some() {
        out.push_str(&procedure_name(mem, value));
    } else if let Some(kind) = mem.object::<RecordType>(value) {
        let kind: &RecordType = &kind;
        let _ = write!(out, "#<record-type {}>", symbol_name(kind.name.load(mem.scope()).into()));
    } else if mem.object::<Condition>(value).is_some() {
        let _ = write!(out, "#<condition {}>", describe_error(mem, value));
    } else {
        out.push_str(kind_of(mem, value));
    }
    Ok(())
}

fn kind_of<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> &'static str {
    let constants = [
        (Value::FALSE, "#f"),
        (Value::TRUE, "#t"),
        (Value::NIL, "()"),
        (Value::UNSPECIFIED, "#<unspecified>"),
        (Value::EOF, "#<eof>"),
        (Value::DEFAULT, "#<default>"),
        (Value::UNBOUND, "#<unbound>"),
    ];
    if let Some((_, text)) = constants.iter().find(|(constant, _)| *constant == value) {
        return text;
    }
    if value.as_environment().is_some() {
        return "#<environment>";
    }
    macro_rules! kinds {
        ($($kind:ty, $text:expr;)*) => {
            $(if mem.object::<$kind>(value).is_some() { return $text; })*
        };
    }
    kinds! {
        Continuation, "#<continuation>";
        Parameter, "#<parameter>";
        Promise, "#<promise>";
        Port, "#<port>";
        ThreadObject, "#<thread>";
        MutexObject, "#<mutex>";
        ConditionVariable, "#<condition-variable>";
        HashTable, "#<hash-table>";
        WeakTable, "#<weak-hash-table>";
        WeakBox, "#<weak-box>";
        EphemeronObject, "#<ephemeron>";
        GuardianObject, "#<guardian>";
        MultipleValues, "#<values>";
    }
    "#<object>"
}

/// An uncaught object in words: of an error object, its message and irritants.
pub fn describe_error<'m>(mem: Mem<'m, '_>, object: Value<'m>) -> String {
    let Some(condition) = mem.object::<Condition>(object) else {
        return format!("uncaught object: {}", shortened(mem, object));
    };
    let condition: &Condition = &condition;
    let message: Value<'m> = condition.message.load(mem.scope()).into();
    let mut out = match mem.object::<StringObject>(message) {
        Some(text) => mem.text(text),
        None => shortened(mem, message),
    };
    let irritants = condition.irritants.load(mem.scope()).into();
    let irritants = mem.elements(irritants).unwrap_or_default();
    for (index, irritant) in irritants.into_iter().enumerate() {
        out.push_str(if index == 0 { ": " } else { " " });
        out.push_str(&shortened(mem, irritant));
    }
    out
}

/// What a message has for a number of so many digits that they are not computed in a stretch.
fn instead_of_digits(number: &Number) -> String {
    format!("#<number of {} bits>", number.bits())
}

/// An object as `write` has it, or how that begins.
fn shortened<'m>(mem: Mem<'m, '_>, object: Value<'m>) -> String {
    const MOST: usize = 400;
    let mut texts = Texts::new();
    let text = loop {
        match to_string(mem, object, Mode::Write, 4 * MOST, &texts) {
            Ok(text) | Err(Unprinted::TooLong(text)) => break text,
            Err(Unprinted::Number(number)) => {
                let text = instead_of_digits(&number);
                texts.push((number, text));
            }
        }
    };
    if text.chars().count() <= MOST {
        return text;
    }
    text.chars().take(MOST).chain("...".chars()).collect()
}

/// A form as text of at most about `most` characters, for error messages.
pub fn form_to_string(
    forms: &Forms,
    id: Id,
    resolve: &dyn Fn(Ident) -> Symbol,
    most: usize,
) -> String {
    enum Part {
        Form(Id),
        Tail(Id),
        Text(&'static str),
    }
    let mut out = String::new();
    let mut todo = vec![Part::Form(id)];
    while let Some(part) = todo.pop() {
        if out.chars().count() > most {
            out.push_str("...");
            break;
        }
        let id = match part {
            Part::Text(text) => {
                out.push_str(text);
                continue;
            }
            Part::Tail(id) => {
                match forms.node(id) {
                    Node::Nil => out.push(')'),
                    Node::Pair(car, cdr) => {
                        out.push(' ');
                        todo.push(Part::Tail(*cdr));
                        todo.push(Part::Form(*car));
                    }
                    _ => {
                        out.push_str(" . ");
                        todo.push(Part::Text(")"));
                        todo.push(Part::Form(id));
                    }
                }
                continue;
            }
            Part::Form(id) => id,
        };
        match forms.node(id) {
            Node::Nil => out.push_str("()"),
            Node::Bool(true) => out.push_str("#t"),
            Node::Bool(false) => out.push_str("#f"),
            Node::Char(c) => write_char(&mut out, *c),
            Node::Number(number) if numbers::text::length(number) == Length::Long => {
                out.push_str(&instead_of_digits(number));
            }
            Node::Number(number) => {
                out.push_str(&now(numbers::text::format(&Watch::NOBODY, number, 10)));
            }
            Node::Text(text) => write_text(&mut out, text.chars()),
            Node::Bytes(_) => out.push_str("#u8(...)"),
            Node::Ident(ident) => write_symbol(&mut out, &resolve(*ident).name()),
            Node::Pair(car, cdr) => {
                out.push('(');
                todo.push(Part::Tail(*cdr));
                todo.push(Part::Form(*car));
            }
            Node::Vector(items) => {
                out.push_str("#(");
                todo.push(Part::Text(")"));
                for (index, &item) in items.iter().enumerate().rev() {
                    todo.push(Part::Form(item));
                    if index > 0 {
                        todo.push(Part::Text(" "));
                    }
                }
            }
            Node::Eof => out.push_str("#!eof"),
            Node::Unspecified => out.push_str("#!unspecific"),
            Node::Object(_) => out.push_str("#<object>"),
        }
    }
    out
}
