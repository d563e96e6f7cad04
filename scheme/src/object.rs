//! The objects in the heap.
//!
//! Under tag 110 ([`Value::object`](crate::value::Value::object)) lie, told apart by their headers:
//!
//! - **strings**: plain-data arrays of `u32`, one Unicode scalar value each, so that `string-ref` and
//!   `string-set!` take constant time ([`StringObject`]);
//! - **bytevectors**: plain-data arrays of `u8` ([`BytesObject`]);
//! - **bignums**: plain-data arrays of `u64` ([`BignumObject`]): word 0 is the sign (0 or 1 for negative), then the
//!   magnitude, least significant word first, without leading zeroes, never within the fixnum range;
//! - **records**: arrays of values ([`RecordObject`]): word 0 is the [`RecordType`], then the fields;
//! - the structs of this file.
//!
//! Their layouts are data that `#[derive(Trace)]` produces; fields that hold values are [`Slot`]s.

use crate::value::{Scheme, Slot};
use firn::{DataArray, Field, TaggedArray, Trace};
use std::sync::atomic::{AtomicU64, AtomicUsize};

/// A string.
pub type StringObject = DataArray<u32>;

/// What an element of a string is. (Strings hold characters only.)
#[inline(always)]
pub fn character(element: u32) -> char {
    char::from_u32(element).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// A bytevector.
pub type BytesObject = DataArray<u8>;
/// A bignum: sign word, magnitude.
pub type BignumObject = DataArray<u64>;
/// A record: type, fields.
pub type RecordObject = TaggedArray<Scheme>;

/// A pair (tag 001).
#[derive(Trace)]
pub struct Pair {
    /// First.
    pub car: Slot,
    /// Second.
    pub cdr: Slot,
}

/// A floating-point number (tag 010).
#[derive(Trace)]
pub struct Flonum {
    /// The number.
    pub value: f64,
}

/// A variable outside frames (tag 101): a global, or one that is both captured and assigned.
#[derive(Trace)]
pub struct Cell {
    /// Its value, or [`UNBOUND`](crate::value::Value::UNBOUND).
    pub value: Slot,
    /// Its name: a symbol.
    pub name: Slot,
}

/// An exact fraction in lowest terms; the denominator is above 1.
#[derive(Trace)]
pub struct Ratnum {
    /// Numerator: fixnum or bignum.
    pub numerator: Slot,
    /// Denominator: fixnum or bignum.
    pub denominator: Slot,
}

/// Several values on their way to `call-with-values`.
#[derive(Trace)]
pub struct MultipleValues {
    /// A list.
    pub list: Slot,
}

/// A continuation: a position in the chain of stack segments, and the dynamic environment.
#[derive(Trace)]
pub struct Continuation {
    /// The segment, or `#f` for the empty stack.
    pub segment: Slot,
    /// Words in use of the segment.
    pub top: usize,
    /// Return word of the frame that was on top.
    pub back: Slot,
    /// `dynamic-wind` entries, innermost first.
    pub winders: Slot,
    /// Exception handlers, innermost first.
    pub handlers: Slot,
    /// Parameter bindings, innermost first.
    pub parameters: Slot,
}

/// A parameter object.
#[derive(Trace)]
pub struct Parameter {
    /// The value outside any `parameterize`.
    pub value: Slot,
    /// The converter, or `#f`.
    pub converter: Slot,
}

/// A type of records.
#[derive(Trace)]
pub struct RecordType {
    /// A symbol.
    pub name: Slot,
    /// A vector of symbols.
    pub fields: Slot,
}

/// An error object, of `error` and of the machine itself.
#[derive(Trace)]
pub struct Condition {
    /// A symbol: `error`, `file`, `read`, or what went wrong in the machine, such as `out-of-memory`.
    pub kind: Slot,
    /// A string.
    pub message: Slot,
    /// A list.
    pub irritants: Slot,
    /// Where it was raised: a list of strings, innermost first, or `#f`.
    pub trace: Slot,
}

/// A promise: a box shared by promises that `delay-force` chained together.
#[derive(Trace)]
pub struct Promise {
    /// A pair: whether it is done, and the value or the thunk.
    pub state: Slot,
}

/// A port. Text ports over memory hold characters, binary ones bytes; ports on files keep a native stream.
#[derive(Trace)]
pub struct Port {
    /// Bits of [`crate::port`]'s flags.
    pub flags: AtomicU64,
    /// Characters of a string port.
    pub text: Field<DataArray<u32>>,
    /// Bytes of a bytevector port.
    pub bytes: Field<DataArray<u8>>,
    /// Where the next character or byte is read.
    pub position: AtomicUsize,
    /// How many there are.
    pub end: AtomicUsize,
    /// Number of the native stream, for ports on files.
    pub stream: usize,
}

/// A thread.
#[derive(Trace)]
pub struct ThreadObject {
    /// Its number.
    pub id: u64,
    /// 0 new, 1 started, 2 done, 3 ended by an uncaught exception, 4 terminated.
    pub state: AtomicU64,
    /// What it runs.
    pub thunk: Slot,
    /// Its result or its uncaught exception.
    pub result: Slot,
    /// Its name.
    pub name: Slot,
    /// The program's own.
    pub specific: Slot,
}

/// A mutex.
#[derive(Trace)]
pub struct MutexObject {
    /// Its number.
    pub id: u64,
    /// Whether it is locked: see [`crate::builtins::threads`].
    pub state: AtomicU64,
    /// The thread that holds it, or `#f`.
    pub owner: Slot,
    /// Its name.
    pub name: Slot,
    /// The program's own.
    pub specific: Slot,
}

/// A condition variable.
#[derive(Trace)]
pub struct ConditionVariable {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: Slot,
    /// The program's own.
    pub specific: Slot,
}

/// An ephemeron.
pub type EphemeronObject = firn::TaggedEphemeron<Scheme>;
/// A guardian, inside the procedure that programs see.
pub type GuardianObject = firn::TaggedGuardian<Scheme>;

/// A weak box.
#[derive(Trace)]
pub struct WeakBox {
    /// An ephemeron whose key is what the box holds.
    pub ephemeron: Slot,
}

/// A hash table with weak keys, which are hashed by address.
#[derive(Trace)]
pub struct WeakTable {
    /// A vector of lists of ephemerons.
    pub buckets: Slot,
    /// Number of ephemerons, broken ones included.
    pub count: AtomicUsize,
    /// When the addresses were those by which the keys are in their buckets.
    pub epoch: AtomicU64,
}

/// A hash table.
#[derive(Trace)]
pub struct HashTable {
    /// A vector of association lists.
    pub buckets: Slot,
    /// Number of entries.
    pub count: AtomicUsize,
    /// 0 `equal?`, 1 `eqv?` (keys are hashed by contents in either case).
    pub test: u64,
}
