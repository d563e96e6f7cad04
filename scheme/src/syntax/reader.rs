//! The reader: all lexical syntax of R7RS, from any source of characters, without recursion.
//!
//! Every error has a place and says whether more text could mend it, which is what a prompt wants to know
//! ([`super::complete`]). For it alone the reader looks at the structure only ([`Reader::leave_out_atoms`]).
//!
//! A text may be of any length and denote numbers that take long to compute. Whoever reads beside a collector that must not
//! wait ([`crate::builtins`], in a stretch) has the numbers left out ([`Reader::leave_out_long_numbers`]) and reads again where
//! there is time; there a [`Watch`] can end it.

use super::{FileName, Forms, Id, Ident, Location, Node};
use crate::numbers::large::{Unfinished, Watch};
use crate::numbers::long::Length;
use crate::numbers::{Number, text};
use crate::symbol::Symbol;
use std::collections::HashMap;

/// Where characters come from.
pub trait Source {
    /// The next character, without taking it.
    fn peek(&mut self) -> Option<char>;
    /// Takes the next character.
    fn next(&mut self) -> Option<char>;
    /// There is none; but a long text comes in pieces, between which the reader looks whether it is still wanted. Whether
    /// there are more characters now.
    fn more(&mut self) -> bool;
}

/// Bytes or characters in a piece of a text.
pub const PIECE: usize = 64 << 10;

/// Characters of a string.
pub struct Text<'t> {
    piece: std::iter::Peekable<std::str::Chars<'t>>,
    rest: &'t str,
}

impl<'t> Text<'t> {
    /// Reads from `text`.
    pub fn new(text: &'t str) -> Text<'t> {
        Text { piece: "".chars().peekable(), rest: text }
    }
}

impl Source for Text<'_> {
    fn peek(&mut self) -> Option<char> {
        self.piece.peek().copied()
    }
    fn next(&mut self) -> Option<char> {
        self.piece.next()
    }
    fn more(&mut self) -> bool {
        let mut end = PIECE.min(self.rest.len());
        while !self.rest.is_char_boundary(end) {
            end += 1;
        }
        let (piece, rest) = self.rest.split_at(end);
        (self.piece, self.rest) = (piece.chars().peekable(), rest);
        !piece.is_empty()
    }
}

/// A text is no datum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// What is wrong.
    pub message: String,
    /// Where.
    pub at: Location,
    /// Whether more text could mend it.
    pub incomplete: bool,
}

/// There is no datum.
pub type Unread = Unfinished<ReadError>;

type Result<T> = std::result::Result<T, Unread>;

/// What is open while a datum is read.
enum Open {
    List { items: Vec<Id>, tail: Option<Id>, dot: bool, at: Location },
    Vector { items: Vec<Id>, at: Location },
    Bytes { bytes: Vec<u8>, at: Location },
    Quote { name: &'static str, at: Location },
    Label { number: u64, placeholder: Id },
    Comment,
}

enum Token {
    Datum(Node),
    Known(Id),
    Open(Open),
    Close,
    Dot,
    End,
}

/// What is made of numbers and identifiers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Atoms {
    /// What they denote.
    All,
    /// The same, but a 0 of a number that may take long.
    Short,
    /// A 0 of any number, and one identifier of all.
    None,
}

/// Reads data from a source.
pub struct Reader<'w, S> {
    source: S,
    at: Location,
    fold: bool,
    watch: Watch<'w>,
    atoms: Atoms,
    /// Whether there is a 0 in place of a number.
    left_out: bool,
}

/// Whether a character ends a token.
fn is_delimiter(c: char) -> bool {
    c.is_whitespace() || matches!(c, '(' | ')' | '"' | ';' | '\'' | '|')
}

impl<'w, S: Source> Reader<'w, S> {
    /// A reader at the beginning of `source`, for as long as it is wanted.
    pub fn new(watch: Watch<'w>, source: S) -> Reader<'w, S> {
        let at = Location { line: 1, column: 1, ..Location::default() };
        Reader { source, at, fold: false, watch, atoms: Atoms::All, left_out: false }
    }

    /// A reader of a text with a name of its own.
    pub fn named(watch: Watch<'w>, source: S, file: FileName) -> Reader<'w, S> {
        let mut reader = Reader::new(watch, source);
        reader.at.file = file;
        reader
    }

    /// From now on a number that may take long to compute is not: there is a 0 in its place.
    pub fn leave_out_long_numbers(&mut self) {
        self.atoms = Atoms::Short;
    }

    /// From now on no number is computed and no name is kept: the datum's structure is right, and what is wrong with it is
    /// found, but for numbers in bytevectors that are no bytes.
    ///
    /// # Examples
    /// ```
    /// use firn_scheme::numbers::large::Watch;
    /// use firn_scheme::syntax::Forms;
    /// use firn_scheme::syntax::reader::{Reader, Text};
    ///
    /// let mut reader = Reader::new(Watch::NOBODY, Text::new("(#e1e999999 or #e1e-999999)"));
    /// reader.leave_out_atoms();
    /// assert!(reader.read(&mut Forms::new()).is_ok_and(|datum| datum.is_some()));
    /// ```
    pub fn leave_out_atoms(&mut self) {
        self.atoms = Atoms::None;
    }

    /// Whether a number was left out.
    pub fn has_left_out(&self) -> bool {
        self.left_out
    }

    /// Sets whether identifiers are case-folded (`#!fold-case`).
    pub fn set_fold(&mut self, fold: bool) {
        self.fold = fold;
    }

    fn peek(&mut self) -> Option<char> {
        match self.source.peek() {
            None if self.goes_on() => self.source.peek(),
            next => next,
        }
    }

    /// At the end of a piece: whether there is another one, and it is wanted.
    #[cold]
    #[inline(never)]
    fn goes_on(&mut self) -> bool {
        self.watch.look().is_ok() && self.source.more()
    }

    fn next(&mut self) -> Option<char> {
        let c = match self.source.next() {
            None if self.goes_on() => self.source.next(),
            next => next,
        }?;
        if c == '\n' {
            self.at.line += 1;
            self.at.column = 1;
        } else {
            self.at.column += 1;
        }
        Some(c)
    }

    fn error<T>(&self, at: Location, message: impl Into<String>) -> Result<T> {
        Err(Unread::Wrong(ReadError { message: message.into(), at, incomplete: false }))
    }

    fn incomplete<T>(&self, at: Location, message: impl Into<String>) -> Result<T> {
        Err(Unread::Wrong(ReadError { message: message.into(), at, incomplete: true }))
    }

    /// Reads the next datum into `forms`; `None` at the end of the text.
    ///
    /// # Errors
    /// The text is wrong, or its datum is wanted no more.
    pub fn read(&mut self, forms: &mut Forms) -> Result<Option<Id>> {
        let result = self.datum(forms);
        // The text of what is not wanted ends early.
        if !matches!(result, Ok(Some(_))) {
            self.watch.look()?;
        }
        result
    }

    fn datum(&mut self, forms: &mut Forms) -> Result<Option<Id>> {
        let mut open: Vec<Open> = Vec::new();
        let mut labels: HashMap<u64, Id> = HashMap::new();
        loop {
            let in_bytes = matches!(open.last(), Some(Open::Bytes { .. }));
            let (token, at) = self.token(forms, &mut labels)?;
            let mut value = match token {
                Token::Open(frame) => {
                    if in_bytes {
                        return self.error(at, "a bytevector holds exact integers from 0 to 255");
                    }
                    open.push(frame);
                    continue;
                }
                Token::Datum(node) => forms.add(node, at),
                Token::Known(id) => id,
                Token::Dot => {
                    match open.last_mut() {
                        Some(Open::List { items, tail: None, dot, .. })
                            if !items.is_empty() && !*dot =>
                        {
                            *dot = true;
                        }
                        _ => {
                            return self
                                .error(at, "a dot stands only before the last element of a list");
                        }
                    }
                    continue;
                }
                Token::End => {
                    return match open.last() {
                        None => Ok(None),
                        Some(
                            Open::List { at, .. }
                            | Open::Vector { at, .. }
                            | Open::Bytes { at, .. },
                        ) => {
                            let at = *at;
                            self.incomplete(at, "the parenthesis that opens here is never closed")
                        }
                        Some(_) => self.incomplete(at, "the text ends where a datum should follow"),
                    };
                }
                Token::Close => match open.pop() {
                    Some(Open::List { items, tail, dot, at: began }) => {
                        if dot && tail.is_none() {
                            return self.error(at, "a datum must follow the dot");
                        }
                        forms.make_list(&items, tail, began)
                    }
                    Some(Open::Vector { items, at }) => forms.add(Node::Vector(items.into()), at),
                    Some(Open::Bytes { bytes, at }) => forms.add(Node::Bytes(bytes.into()), at),
                    None => return self.error(at, "this parenthesis closes nothing"),
                    Some(_) => return self.error(at, "a datum is missing before this parenthesis"),
                },
            };
            // A datum is complete: it goes to whatever is open, which may become complete by it.
            loop {
                match open.last_mut() {
                    None => return Ok(Some(value)),
                    Some(Open::List { items, tail, dot, .. }) => {
                        if !*dot {
                            items.push(value);
                        } else if tail.is_none() {
                            *tail = Some(value);
                        } else {
                            return self.error(at, "only one datum can follow the dot");
                        }
                        break;
                    }
                    Some(Open::Vector { items, .. }) => {
                        items.push(value);
                        break;
                    }
                    Some(Open::Bytes { bytes, .. }) => {
                        match forms.node(value) {
                            Node::Number(Number::Small(byte @ 0..=255)) => {
                                bytes.push(*byte as u8);
                            }
                            _ => {
                                return self
                                    .error(at, "a bytevector holds exact integers from 0 to 255");
                            }
                        }
                        break;
                    }
                    Some(Open::Quote { name, at }) => {
                        let (name, at) = (*name, *at);
                        let word = forms.add(Node::Ident(Ident::symbol(Symbol::intern(name))), at);
                        value = forms.make_list(&[word, value], None, at);
                        open.pop();
                    }
                    Some(Open::Label { number, placeholder }) => {
                        let (number, placeholder) = (*number, *placeholder);
                        if value == placeholder {
                            return self.error(at, format!("#{number}= labels nothing but itself"));
                        }
                        // The labelled datum takes the place that references inside it already name.
                        let node = forms.node(value).clone();
                        forms.replace(placeholder, node);
                        value = placeholder;
                        open.pop();
                    }
                    Some(Open::Comment) => {
                        open.pop();
                        break;
                    }
                }
            }
            if open.is_empty() {
                // A datum comment at top level: read on.
                continue;
            }
        }
    }

    /// Skips what is between data.
    fn skip(&mut self) -> Result<()> {
        loop {
            match self.peek() {
                Some(c) if c.is_whitespace() => {
                    self.next();
                }
                Some(';') => while self.next().is_some_and(|c| c != '\n') {},
                _ => return Ok(()),
            }
        }
    }

    fn block_comment(&mut self, at: Location) -> Result<()> {
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                None => {
                    return self
                        .incomplete(at, "the block comment that begins here is never closed");
                }
                Some('|') if self.peek() == Some('#') => {
                    self.next();
                    depth -= 1;
                }
                Some('#') if self.peek() == Some('|') => {
                    self.next();
                    depth += 1;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn token(
        &mut self,
        forms: &mut Forms,
        labels: &mut HashMap<u64, Id>,
    ) -> Result<(Token, Location)> {
        loop {
            self.skip()?;
            let at = self.at;
            let Some(c) = self.peek() else { return Ok((Token::End, at)) };
            let token = match c {
                '(' => {
                    self.next();
                    Token::Open(Open::List { items: Vec::new(), tail: None, dot: false, at })
                }
                ')' => {
                    self.next();
                    Token::Close
                }
                '[' | ']' | '{' | '}' => return self.error(at, format!("{c} is reserved")),
                '\'' => {
                    self.next();
                    Token::Open(Open::Quote { name: "quote", at })
                }
                '`' => {
                    self.next();
                    Token::Open(Open::Quote { name: "quasiquote", at })
                }
                ',' => {
                    self.next();
                    let name = if self.peek() == Some('@') {
                        self.next();
                        "unquote-splicing"
                    } else {
                        "unquote"
                    };
                    Token::Open(Open::Quote { name, at })
                }
                '"' => {
                    self.next();
                    Token::Datum(Node::Text(self.delimited('"', at)?.into()))
                }
                '#' => {
                    self.next();
                    match self.hash(forms, labels, at)? {
                        Some(token) => token,
                        None => continue,
                    }
                }
                _ => self.atom(String::new(), at)?,
            };
            return Ok((token, at));
        }
    }

    /// What follows a `#`; `None` for a comment or directive.
    fn hash(
        &mut self,
        forms: &mut Forms,
        labels: &mut HashMap<u64, Id>,
        at: Location,
    ) -> Result<Option<Token>> {
        match self.peek() {
            None => self.incomplete(at, "the text ends after #"),
            Some('(') => {
                self.next();
                Ok(Some(Token::Open(Open::Vector { items: Vec::new(), at })))
            }
            Some('|') => {
                self.next();
                self.block_comment(at)?;
                Ok(None)
            }
            Some(';') => {
                self.next();
                Ok(Some(Token::Open(Open::Comment)))
            }
            Some('\\') => {
                self.next();
                self.character(at).map(|c| Some(Token::Datum(Node::Char(c))))
            }
            Some('!') => {
                self.next();
                let mut word = String::new();
                while let Some(c) = self.peek().filter(|&c| !is_delimiter(c)) {
                    word.push(c);
                    self.next();
                }
                match word.as_str() {
                    "fold-case" => self.fold = true,
                    "no-fold-case" => self.fold = false,
                    "eof" => return Ok(Some(Token::Datum(Node::Eof))),
                    "unspecific" => return Ok(Some(Token::Datum(Node::Unspecified))),
                    // The first line of a script.
                    _ if (at.line, at.column) == (1, 1)
                        && (word.is_empty() || word.starts_with('/')) =>
                    {
                        while self.next().is_some_and(|c| c != '\n') {}
                    }
                    _ => {
                        return self
                            .error(at, format!("#!{word} is not known: fold-case, no-fold-case"));
                    }
                }
                Ok(None)
            }
            Some(c) if c.is_ascii_digit() => {
                let mut number = 0u64;
                while let Some(digit) = self.peek().and_then(|c| c.to_digit(10)) {
                    self.next();
                    number = match number.checked_mul(10).and_then(|n| n.checked_add(digit as u64))
                    {
                        Some(number) => number,
                        None => return self.error(at, "this label is too large"),
                    };
                }
                match self.next() {
                    Some('=') => {
                        let placeholder = forms.add(Node::Unspecified, at);
                        labels.insert(number, placeholder);
                        Ok(Some(Token::Open(Open::Label { number, placeholder })))
                    }
                    Some('#') => match labels.get(&number) {
                        Some(&id) => Ok(Some(Token::Known(id))),
                        None => self.error(at, format!("there is no label #{number}=")),
                    },
                    _ => self.error(at, "a number after # is a label: #0= or #0#"),
                }
            }
            Some(_) => {
                let Token::Datum(node) = self.atom("#".to_string(), at)? else {
                    return self.error(at, "this is no datum");
                };
                if let Node::Unspecified = node {
                    // #u8( : the atom ended before the parenthesis.
                    self.next();
                    return Ok(Some(Token::Open(Open::Bytes { bytes: Vec::new(), at })));
                }
                Ok(Some(Token::Datum(node)))
            }
        }
    }

    fn character(&mut self, at: Location) -> Result<char> {
        let Some(first) = self.next() else {
            return self.incomplete(at, "the text ends after #\\");
        };
        let mut name = String::from(first);
        while let Some(c) = self.peek().filter(|&c| !is_delimiter(c)) {
            name.push(c);
            self.next();
        }
        if name.chars().count() == 1 {
            return Ok(first);
        }
        let folded = if self.fold { name.to_lowercase() } else { name.clone() };
        if let Some(c) = crate::print::char_of_name(&folded) {
            return Ok(c);
        }
        if let Some(digits) = folded.strip_prefix(['x', 'X']) {
            if let Some(c) = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32) {
                return Ok(c);
            }
            return self.error(at, format!("#\\{name} is no Unicode scalar value"));
        }
        self.error(at, format!("there is no character #\\{name}"))
    }

    /// The rest of a string or of a symbol in bars.
    fn delimited(&mut self, end: char, at: Location) -> Result<String> {
        let mut text = String::new();
        loop {
            let place = self.at;
            match self.next() {
                None => {
                    let what = if end == '"' { "string" } else { "symbol" };
                    return self
                        .incomplete(at, format!("the {what} that begins here is never closed"));
                }
                Some(c) if c == end => return Ok(text),
                Some('\\') => match self.next() {
                    Some('a') => text.push('\x07'),
                    Some('b') => text.push('\x08'),
                    Some('t') => text.push('\t'),
                    Some('n') => text.push('\n'),
                    Some('r') => text.push('\r'),
                    Some(c @ ('"' | '\\' | '|')) => text.push(c),
                    Some('x' | 'X') => {
                        let mut digits = String::new();
                        while let Some(c) = self.next().filter(|&c| c != ';') {
                            digits.push(c);
                        }
                        match u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32) {
                            Some(c) => text.push(c),
                            None => {
                                return self.error(
                                    place,
                                    format!("\\x{digits}; is no Unicode scalar value"),
                                );
                            }
                        }
                    }
                    // A line's end with the blanks around it.
                    Some(c) if c.is_whitespace() => {
                        let mut ended = c == '\n';
                        while let Some(c) = self.peek() {
                            if c == '\n' && !ended {
                                ended = true;
                            } else if !(matches!(c, ' ' | '\t') || c == '\r' && !ended) {
                                break;
                            }
                            self.next();
                        }
                        // At the text's end the line's may follow.
                        if !ended && self.peek().is_some() {
                            return self
                                .error(place, "a backslash before blanks must end the line");
                        }
                    }
                    Some(c) => return self.error(place, format!("\\{c} is no escape")),
                    None => {}
                },
                Some('\r') if self.peek() == Some('\n') => {}
                Some(c) => text.push(c),
            }
        }
    }

    /// A number, identifier, boolean; also the `#u8` before a parenthesis, as `Unspecified`.
    fn atom(&mut self, mut text: String, at: Location) -> Result<Token> {
        let mut bars = false;
        let fold = self.fold;
        loop {
            match self.peek() {
                Some('|') if !text.starts_with('#') => {
                    bars = true;
                    self.next();
                    text.push_str(&self.delimited('|', at)?);
                }
                Some(c) if is_delimiter(c) => break,
                Some(c) => {
                    if fold && !bars {
                        text.extend(c.to_lowercase());
                    } else {
                        text.push(c);
                    }
                    self.next();
                }
                None => break,
            }
        }
        if bars {
            return Ok(self.identifier(&text));
        }
        if text == "." {
            return Ok(Token::Dot);
        }
        if text.starts_with('#') {
            match text.to_ascii_lowercase().as_str() {
                "#t" | "#true" => return Ok(Token::Datum(Node::Bool(true))),
                "#f" | "#false" => return Ok(Token::Datum(Node::Bool(false))),
                "#u8" if self.peek() == Some('(') => return Ok(Token::Datum(Node::Unspecified)),
                _ => {}
            }
        }
        let is_left_out = match self.atoms {
            Atoms::All => false,
            Atoms::Short => text::length_of_text(&text) == Length::Long,
            Atoms::None => text::is_number(&text, 10),
        };
        if is_left_out {
            self.left_out = true;
            return Ok(Token::Datum(Node::Number(Number::Small(0))));
        }
        if let Some(number) = text::parse(&self.watch, &text, 10)? {
            // A small number is a small number, whatever its notation.
            let small = match &number {
                Number::Big(big) => i64::try_from(big).ok(),
                Number::Ratio(ratio) if ratio.is_integer() => i64::try_from(ratio.numer()).ok(),
                _ => None,
            };
            let small = small.map(Number::Small);
            return Ok(Token::Datum(Node::Number(small.unwrap_or(number))));
        }
        if text::is_complex(&text) {
            let wrong = format!("{text} is a complex number, and there are none here");
            return self.error(at, wrong);
        }
        if text.starts_with('#') {
            return self.error(at, format!("{text} is no datum"));
        }
        if text.chars().any(|c| c.is_control() || matches!(c, '[' | ']' | '{' | '}')) {
            return self.error(
                at,
                format!("{} is no identifier: write it between bars", text.escape_debug()),
            );
        }
        Ok(self.identifier(&text))
    }

    fn identifier(&self, name: &str) -> Token {
        // Names are never freed.
        let name = if self.atoms == Atoms::None { "_" } else { name };
        Token::Datum(Node::Ident(Ident::symbol(Symbol::intern(name))))
    }
}
