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
pub mod numbers;
pub mod strings;

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
}

impl Builtin {
    /// No limit on the number of arguments.
    pub const MANY: u16 = u16::MAX;

    /// A builtin of `least` to `most` arguments.
    pub const fn new(name: &'static str, least: u16, most: u16, native: Native) -> Builtin {
        Builtin { name, least, most, native }
    }
}
