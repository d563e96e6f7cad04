//! Builtin procedures: native functions over values.
//!
//! A builtin runs in a stretch without collection ([`Mem`]) and returns a value or a trap. It may be called again
//! from the start after a trap, so it allocates before it changes anything. It never calls back into the machine:
//! procedures that take procedures are written in Scheme (`prelude/`).
//!
//! Each file of builtins ends in a table, `pub const TABLE: &[Builtin]`; the tables together are the builtins.

pub mod args;
pub mod bytevectors;
pub mod chars;
pub mod control;
mod files;
pub mod lists;
mod long_text;
pub mod numbers;
pub mod ports;
mod read;
pub mod strings;
pub mod system;
pub mod tables;
pub mod threads;
pub mod vectors;
pub mod weak;

use crate::mem::Mem;
use crate::trap::Result;
use crate::value::Value;

/// A native function.
pub type Native = for<'m, 's> fn(Mem<'m, 's>, &[Value<'m>]) -> Result<'m>;

/// A builtin procedure.
#[derive(Clone, Copy)]
pub struct Builtin {
    /// Its name; names that begin with `%` are for the prelude only.
    pub name: &'static str,
    /// Fewest arguments.
    pub least: u16,
    /// Most arguments; [`Builtin::MANY`] for any number. The machine checks the number before it calls.
    pub most: u16,
    /// The function.
    pub native: Native,
    /// What the machine does instead of calling a function.
    pub control: Option<Control>,
}

/// Builtins that change where the machine is: it carries them out itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Control {
    Apply,
    ApplyValues,
    CallCc,
    Throw,
    Winders,
    SetWinders,
    Handlers,
    SetHandlers,
    Parameters,
    SetParameters,
    CurrentThread,
    Uncaught,
    Trace,
}

fn by_the_machine<'m>(_mem: Mem<'m, '_>, _args: &[Value<'m>]) -> Result<'m> {
    Err(crate::trap::error("this builtin is the machine's", &[]))
}

impl Builtin {
    /// No limit on the number of arguments.
    pub const MANY: u16 = u16::MAX;

    /// A builtin of `least` to `most` arguments.
    pub const fn new(name: &'static str, least: u16, most: u16, native: Native) -> Builtin {
        Builtin { name, least, most, native, control: None }
    }

    /// A builtin that the machine carries out.
    pub const fn control(name: &'static str, least: u16, most: u16, control: Control) -> Builtin {
        Builtin { name, least, most, native: by_the_machine, control: Some(control) }
    }

    /// Whether it takes so many arguments.
    #[inline]
    pub fn takes(&self, count: usize) -> bool {
        count >= self.least as usize && (count <= self.most as usize || self.most == Self::MANY)
    }

    /// How many arguments it takes, in words.
    pub fn wants(&self) -> String {
        let plural = |n: u16| if n == 1 { "" } else { "s" };
        match (self.least, self.most) {
            (least, Self::MANY) => format!("takes {least} or more arguments"),
            (least, most) if least == most => format!("takes {least} argument{}", plural(least)),
            (least, most) => format!("takes {least} to {most} arguments"),
        }
    }

    /// Whether its value is always a boolean.
    pub fn is_predicate(&self) -> bool {
        self.control.is_none()
            && (self.name.ends_with('?')
                || matches!(self.name, "not" | "<" | ">" | "=" | "<=" | ">="))
            && !self.name.starts_with('%')
    }
}

/// Procedures of the prelude that do with an argument for each optional parameter, and nothing else, what the builtin of
/// the same name with `%` does: the compiler calls the builtin then.
pub const STAND_INS: &[&str] = &[
    "assoc",
    "char-ready?",
    "display",
    "member",
    "peek-char",
    "peek-u8",
    "read",
    "read-bytevector",
    "read-bytevector!",
    "read-char",
    "read-line",
    "read-string",
    "read-u8",
    "u8-ready?",
    "write",
    "write-bytevector",
    "write-char",
    "write-shared",
    "write-simple",
    "write-string",
    "write-u8",
];

/// All builtins.
pub fn all() -> Vec<Builtin> {
    let tables: &[&[Builtin]] = &[
        lists::TABLE,
        vectors::TABLE,
        control::TABLE,
        ports::TABLE,
        system::TABLE,
        tables::TABLE,
        threads::TABLE,
        numbers::TABLE,
        chars::TABLE,
        strings::TABLE,
        bytevectors::TABLE,
        weak::TABLE,
    ];
    tables.concat()
}
