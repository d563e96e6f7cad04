//! **Firn Scheme**: a small R7RS Scheme on a Firn heap, and the living example of embedding one.
//!
//! Only the public API of `firn` is used, and no unsafe code. Read in this order: [`value`] (what a word means),
//! [`object`] (what lies in the heap), [`mem`] (how builtins allocate), [`vm::machine`] (how the machine keeps its
//! registers out of the collector's way), [`vm`] (what happens between two stretches).
//!
//! ```
//! let scheme = firn_scheme::Interpreter::new(&firn::Options::parse("heap=32m")?)?;
//! assert_eq!(scheme.eval_to_string("(let loop ((i 0)) (if (< i 10) (loop (+ i 1)) i))").unwrap(), "10");
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub mod builtins;
pub mod compile;
pub mod datum;
pub mod expand;
pub mod interpreter;
pub mod mem;
pub mod numbers;
pub mod object;
pub mod port;
pub mod print;
pub mod standard;
pub mod symbol;
pub mod syntax;
pub mod trap;
pub mod value;
pub mod vm;
pub mod world;

pub use interpreter::{Interpreter, StartError};

/// Native stack that recursion over nested expressions finds at each level, and what it gets when that is not there.
const RED_ZONE: usize = 512 << 10;
const MORE_STACK: usize = 8 << 20;

/// One level of a recursion over nested expressions. Their nesting is limited
/// ([`expand::Unit::DEEPEST`]), but a thread's stack may be small.
pub(crate) fn deep<R>(level: impl FnOnce() -> R) -> R {
    stacker::maybe_grow(RED_ZONE, MORE_STACK, level)
}
