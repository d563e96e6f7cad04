//! [`Trap`]: why a builtin did not return a value.
//!
//! Either the program is at fault (an error is raised), or the machine has to do something outside the stretch
//! without collection (make room, block) and then calls the builtin again with the same arguments.

use crate::value::Value;
use crate::world::World;

/// The result of a builtin.
pub type Result<'m, T = Value<'m>> = std::result::Result<T, Trap<'m>>;

/// Why a builtin did not return. One word.
pub struct Trap<'m>(pub Box<TrapKind<'m>>);

/// See [`Trap`].
pub enum TrapKind<'m> {
    /// Raise an error object of this kind, message and irritants. The machine puts the procedure's name before
    /// the message.
    Error {
        /// Becomes a symbol; `error`, `file` and `read` are what R7RS can ask for.
        kind: &'static str,
        /// What went wrong.
        message: String,
        /// With what.
        irritants: Vec<Value<'m>>,
    },
    /// Raise this object, not continuably.
    Raise(Value<'m>),
    /// Make room for so many bytes, then call again.
    Reserve(usize),
    /// Allocate a big object, leave it as the spare, then call again.
    Large(Large),
    /// Run this while the thread counts as stopped, then call again.
    Block(Box<dyn FnOnce(&World) + Send>),
    /// Do something that needs the heap for longer than a stretch; what it leaves is the builtin's value.
    Outside(crate::vm::Outside),
    /// Compute this in native memory, which may take long; what it comes to is the builtin's value.
    Long {
        /// The operation.
        work: crate::numbers::long::Work,
        /// The procedure's name, for the message of an error.
        name: Option<&'static str>,
    },
    /// Collect, then return an unspecified value.
    Collect,
    /// End the program with this exit code.
    Exit(i32),
}

/// A big object to be allocated: see [`TrapKind::Large`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Large {
    /// A vector of fixnums 0.
    Values(usize),
    /// Zero bytes.
    Bytes(usize),
    /// Zero characters.
    Chars(usize),
    /// Zero words.
    Words(usize),
    /// A vector of two arrays of zero words.
    TwoWords([usize; 2]),
}

impl std::fmt::Debug for Trap<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.0 {
            TrapKind::Error { kind, message, irritants } => {
                write!(f, "{kind}: {message} {irritants:?}")
            }
            TrapKind::Raise(value) => write!(f, "raise {value:?}"),
            TrapKind::Reserve(bytes) => write!(f, "reserve {bytes}"),
            TrapKind::Large(large) => write!(f, "allocate {large:?}"),
            TrapKind::Block(_) => write!(f, "block"),
            TrapKind::Outside(_) => write!(f, "outside"),
            TrapKind::Long { name, .. } => write!(f, "compute {name:?}"),
            TrapKind::Collect => write!(f, "collect"),
            TrapKind::Exit(code) => write!(f, "exit {code}"),
        }
    }
}

impl<'m> From<TrapKind<'m>> for Trap<'m> {
    fn from(kind: TrapKind<'m>) -> Self {
        Trap(Box::new(kind))
    }
}

/// An error with this message and these irritants.
#[cold]
#[inline(never)]
pub fn error<'m>(message: impl Into<String>, irritants: &[Value<'m>]) -> Trap<'m> {
    error_of("error", message, irritants)
}

/// An error of a kind.
#[cold]
#[inline(never)]
pub fn error_of<'m>(
    kind: &'static str,
    message: impl Into<String>,
    irritants: &[Value<'m>],
) -> Trap<'m> {
    TrapKind::Error { kind, message: message.into(), irritants: irritants.to_vec() }.into()
}

/// An error's message with the name of the builtin before it.
pub fn named(name: &str, message: &str) -> String {
    format!("{}: {message}", name.strip_prefix('%').unwrap_or(name))
}

/// The beginning of an error's message, which may be long, as texts of programs are: what is made of it fits into a stretch.
pub fn shortened(message: &str) -> String {
    message.chars().take(2000).collect()
}

/// An argument is not of the type that is needed. `what` names it with its article: "a pair".
#[cold]
#[inline(never)]
pub fn wrong_type<'m>(what: &str, value: Value<'m>) -> Trap<'m> {
    error_of("type", format!("not {what}"), &[value])
}

/// An argument is outside the range that is allowed.
#[cold]
#[inline(never)]
pub fn out_of_range<'m>(what: &str, value: Value<'m>) -> Trap<'m> {
    error_of("range", format!("{what} out of range"), &[value])
}
