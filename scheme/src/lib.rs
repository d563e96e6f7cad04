//! **Firn Scheme**: a small R7RS Scheme on a Firn heap, and the living example of embedding one.
//!
//! Only the public API of `firn` is used, and no unsafe code. Read in this order: [`value`] (what a word means),
//! [`object`] (what lies in the heap), [`mem`] (how builtins allocate).

#![forbid(unsafe_code)]

pub mod builtins;
pub mod mem;
pub mod numbers;
pub mod object;
pub mod symbol;
pub mod trap;
pub mod value;
pub mod world;
