//! What a Scheme value is: one tagged word.
//!
//! | low bits | what | the rest of the word |
//! |---|---|---|
//! | 000 | fixnum | 61 bits of two's complement, shifted left by three |
//! | 001 | pair | address of a [`Pair`] |
//! | 010 | flonum | address of a [`Flonum`] |
//! | 011 | closure | address of a tagged array: code, captured values |
//! | 100 | vector | address of a tagged array (code objects of the compiler are vectors too, never shown to programs) |
//! | 101 | cell | address of a [`Cell`]: a global, or a captured variable that is assigned |
//! | 110 | other object | address; the object's header says which type: see [`crate::object`] |
//! | 111 | immediate | bits 3–7 say which kind: constant, character, symbol, builtin procedure, environment; payload from bit 8 on |
//!
//! The five typed tags are a promise that the heap's API keeps ([`firn::TypedTag`]): a word with tag 001 leads to
//! a `Pair`, so `car` tests three bits and loads. Tag 110 takes one look at the header.
//!
//! **Lifetimes are the whole memory discipline.** A `Value<'m>` is good while its [`Mem<'m, '_>`](crate::mem::Mem) is
//! borrowed, that is, in a stretch in which nothing can be collected or moved. Builtin procedures run in such a
//! stretch from beginning to end and hold values in ordinary Rust variables and `Vec`s. When memory runs out in the
//! middle they return a [`Trap`](crate::trap::Trap) with `?`, the machine makes room, and calls them again from
//! the start. So the one rule for a builtin is: *allocate first, then change things.*
//!
//! Zeroed memory is the fixnum 0. Symbols are immediates: the number of a name in the interner
//! ([`crate::symbol`]), so `eq?` on them is the comparison of two words and they never move.

use crate::object::{Cell, Flonum, Pair};
use firn::{Downcast, Gc, Object, Scope, TagRule, Tagged, TaggedArray, TypedTag, WordRule};

/// The word rule of Scheme values.
#[derive(Debug)]
pub struct Scheme;

impl WordRule for Scheme {
    const RULE: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 0b0111_1110, address: !7 };
    const TYPED: u8 = 0b0011_1110;
}

/// Low tag of pairs.
pub const TAG_PAIR: u8 = 1;
/// Low tag of flonums.
pub const TAG_FLONUM: u8 = 2;
/// Low tag of closures.
pub const TAG_CLOSURE: u8 = 3;
/// Low tag of vectors.
pub const TAG_VECTOR: u8 = 4;
/// Low tag of cells.
pub const TAG_CELL: u8 = 5;
/// Low tag of all other objects.
pub const TAG_OTHER: u8 = 6;
/// Low tag of immediates.
pub const TAG_IMMEDIATE: u8 = 7;

impl TypedTag<TAG_PAIR> for Scheme {
    type Target = Pair;
}
impl TypedTag<TAG_FLONUM> for Scheme {
    type Target = Flonum;
}
impl TypedTag<TAG_CLOSURE> for Scheme {
    type Target = TaggedArray<Scheme>;
}
impl TypedTag<TAG_VECTOR> for Scheme {
    type Target = TaggedArray<Scheme>;
}
impl TypedTag<TAG_CELL> for Scheme {
    type Target = Cell;
}

/// An array of values: what vectors, closures and records are made of.
pub type Array<'m> = Gc<'m, TaggedArray<Scheme>>;

/// A word in a heap object that holds a value.
pub type Slot = Tagged<Scheme>;

/// A Scheme value, good until the next collection. One word, `Copy`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Value<'m>(firn::Value<'m, Scheme>);

const KIND_CONSTANT: u64 = 0;
const KIND_CHAR: u64 = 1;
const KIND_SYMBOL: u64 = 2;
const KIND_PRIMITIVE: u64 = 3;
const KIND_ENVIRONMENT: u64 = 4;

const fn immediate_bits(kind: u64, payload: u64) -> u64 {
    payload << 8 | kind << 3 | TAG_IMMEDIATE as u64
}

/// Bits of `#f`.
pub const FALSE_BITS: u64 = immediate_bits(KIND_CONSTANT, 0);

impl<'m> From<firn::Value<'m, Scheme>> for Value<'m> {
    #[inline(always)]
    fn from(value: firn::Value<'m, Scheme>) -> Self {
        Value(value)
    }
}

impl<'m> From<Value<'m>> for firn::Value<'m, Scheme> {
    #[inline(always)]
    fn from(value: Value<'m>) -> Self {
        value.0
    }
}

impl std::fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Value({:#x})", self.bits())
    }
}

impl PartialEq for Value<'_> {
    /// `eq?`.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.bits() == other.bits()
    }
}

impl<'m> Value<'m> {
    /// `#f`
    pub const FALSE: Value<'m> = Value::constant(0);
    /// `#t`
    pub const TRUE: Value<'m> = Value::constant(1);
    /// `()`
    pub const NIL: Value<'m> = Value::constant(2);
    /// What procedures return that have nothing to say.
    pub const UNSPECIFIED: Value<'m> = Value::constant(3);
    /// The end-of-file object.
    pub const EOF: Value<'m> = Value::constant(4);
    /// What an optional parameter without argument holds. Never seen by programs.
    pub const DEFAULT: Value<'m> = Value::constant(5);
    /// What a variable without value holds. Never seen by programs.
    pub const UNBOUND: Value<'m> = Value::constant(6);
    /// The return word of the lowest frame in the machine's stack. Never seen by programs.
    pub const UNDERFLOW: Value<'m> = Value::constant(7);

    /// Smallest fixnum.
    pub const FIXNUM_MIN: i64 = i64::MIN >> 3;
    /// Largest fixnum.
    pub const FIXNUM_MAX: i64 = i64::MAX >> 3;

    const fn constant(number: u64) -> Value<'m> {
        Value::immediate(immediate_bits(KIND_CONSTANT, number))
    }

    #[inline(always)]
    const fn immediate(bits: u64) -> Value<'m> {
        match firn::Value::immediate(bits) {
            Some(value) => Value(value),
            None => unreachable!(),
        }
    }

    /// All bits. Of references only the tag is stable.
    #[inline(always)]
    pub fn bits(self) -> u64 {
        self.0.bits()
    }

    /// The low tag.
    #[inline(always)]
    pub fn tag(self) -> u8 {
        (self.bits() & 7) as u8
    }

    /// `#t` or `#f`.
    #[inline(always)]
    pub fn boolean(value: bool) -> Value<'m> {
        if value { Value::TRUE } else { Value::FALSE }
    }

    /// Whether it counts as true: everything but `#f` does.
    #[inline(always)]
    pub fn is_true(self) -> bool {
        self.bits() != FALSE_BITS
    }

    /// Whether it is `()`.
    #[inline(always)]
    pub fn is_nil(self) -> bool {
        self == Value::NIL
    }

    /// A fixnum from a number that is known to fit; the upper three bits are lost.
    #[inline(always)]
    pub const fn fixnum(number: i64) -> Value<'m> {
        Value::immediate((number as u64) << 3)
    }

    /// A fixnum, if the number fits.
    #[inline(always)]
    pub fn try_fixnum(number: i64) -> Option<Value<'m>> {
        (Self::FIXNUM_MIN..=Self::FIXNUM_MAX).contains(&number).then(|| Value::fixnum(number))
    }

    /// A fixnum from its bits as they stand in the word.
    #[inline(always)]
    pub fn from_fixnum_bits(bits: u64) -> Value<'m> {
        Value::immediate(bits & !7)
    }

    /// Whether it is a fixnum.
    #[inline(always)]
    pub fn is_fixnum(self) -> bool {
        self.bits() & 7 == 0
    }

    /// The fixnum's number.
    #[inline(always)]
    pub fn as_fixnum(self) -> Option<i64> {
        self.is_fixnum().then_some(self.bits() as i64 >> 3)
    }

    /// The fixnum as an index: not negative.
    #[inline(always)]
    pub fn as_index(self) -> Option<usize> {
        usize::try_from(self.as_fixnum()?).ok()
    }

    /// A character.
    #[inline(always)]
    pub fn char(c: char) -> Value<'m> {
        Value::immediate(immediate_bits(KIND_CHAR, c as u64))
    }

    /// The character.
    #[inline(always)]
    pub fn as_char(self) -> Option<char> {
        if self.bits() & 0xff != immediate_bits(KIND_CHAR, 0) {
            return None;
        }
        char::from_u32((self.bits() >> 8) as u32)
    }

    /// A symbol, from its number in the interner.
    #[inline(always)]
    pub fn symbol(symbol: crate::symbol::Symbol) -> Value<'m> {
        Value::immediate(immediate_bits(KIND_SYMBOL, symbol.0 as u64))
    }

    /// The symbol.
    #[inline(always)]
    pub fn as_symbol(self) -> Option<crate::symbol::Symbol> {
        if self.bits() & 0xff != immediate_bits(KIND_SYMBOL, 0) {
            return None;
        }
        Some(crate::symbol::Symbol((self.bits() >> 8) as u32))
    }

    /// A builtin procedure, from its number in the world's table.
    #[inline(always)]
    pub fn primitive(number: u32) -> Value<'m> {
        Value::immediate(immediate_bits(KIND_PRIMITIVE, number as u64))
    }

    /// The builtin procedure's number.
    #[inline(always)]
    pub fn as_primitive(self) -> Option<usize> {
        (self.bits() & 0xff == immediate_bits(KIND_PRIMITIVE, 0))
            .then_some((self.bits() >> 8) as usize)
    }

    /// An environment of `eval`, from its number in the world's table.
    #[inline(always)]
    pub fn environment(number: u32) -> Value<'m> {
        Value::immediate(immediate_bits(KIND_ENVIRONMENT, number as u64))
    }

    /// The environment's number.
    #[inline(always)]
    pub fn as_environment(self) -> Option<u32> {
        (self.bits() & 0xff == immediate_bits(KIND_ENVIRONMENT, 0))
            .then_some((self.bits() >> 8) as u32)
    }

    /// A pair.
    #[inline(always)]
    pub fn pair(pair: Gc<'m, Pair>) -> Value<'m> {
        Value(firn::Value::typed::<TAG_PAIR>(pair))
    }

    /// The pair.
    #[inline(always)]
    pub fn as_pair(self) -> Option<Gc<'m, Pair>> {
        self.0.as_typed::<TAG_PAIR>()
    }

    /// Whether it is a pair.
    #[inline(always)]
    pub fn is_pair(self) -> bool {
        self.tag() == TAG_PAIR
    }

    /// A flonum.
    #[inline(always)]
    pub fn flonum(flonum: Gc<'m, Flonum>) -> Value<'m> {
        Value(firn::Value::typed::<TAG_FLONUM>(flonum))
    }

    /// The flonum's number.
    #[inline(always)]
    pub fn as_flonum(self) -> Option<f64> {
        self.0.as_typed::<TAG_FLONUM>().map(|flonum| flonum.value)
    }

    /// A closure: its code first, then what it captured.
    #[inline(always)]
    pub fn closure(closure: Array<'m>) -> Value<'m> {
        Value(firn::Value::typed::<TAG_CLOSURE>(closure))
    }

    /// The closure.
    #[inline(always)]
    pub fn as_closure(self) -> Option<Array<'m>> {
        self.0.as_typed::<TAG_CLOSURE>()
    }

    /// A vector.
    #[inline(always)]
    pub fn vector(vector: Array<'m>) -> Value<'m> {
        Value(firn::Value::typed::<TAG_VECTOR>(vector))
    }

    /// The vector.
    #[inline(always)]
    pub fn as_vector(self) -> Option<Array<'m>> {
        self.0.as_typed::<TAG_VECTOR>()
    }

    /// A cell.
    #[inline(always)]
    pub fn cell(cell: Gc<'m, Cell>) -> Value<'m> {
        Value(firn::Value::typed::<TAG_CELL>(cell))
    }

    /// The cell.
    #[inline(always)]
    pub fn as_cell(self) -> Option<Gc<'m, Cell>> {
        self.0.as_typed::<TAG_CELL>()
    }

    /// An object that its header describes: a string, a bignum, a record, a port...
    #[inline(always)]
    pub fn object<T: Object + ?Sized>(object: Gc<'m, T>) -> Value<'m> {
        match firn::Value::reference(object, TAG_OTHER as u64) {
            Some(value) => Value(value),
            None => unreachable!("tag 110 is a reference"),
        }
    }

    /// The object, if it is a `T`.
    #[inline(always)]
    pub fn as_object<T: Downcast>(self, scope: &'m Scope<'_>) -> Option<Gc<'m, T>> {
        if self.tag() != TAG_OTHER {
            return None;
        }
        self.0.downcast(scope)
    }
}
