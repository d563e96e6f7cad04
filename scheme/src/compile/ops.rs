//! The instructions of the machine.
//!
//! An instruction is a fixnum, so that code is an ordinary array of values: eight low bits 0, then the operation (8
//! bits), and from bit 16 on three operands of 16 bits, *a*, *b* and *c*. Operands are registers (slots of the
//! frame) unless said otherwise; *bc* is one operand of 32 bits, signed.

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, dead_code)]
        #[derive(Clone, Copy)]
        enum Number { $($name),* }
        $($(#[$doc])* pub const $name: u8 = Number::$name as u8;)*
        /// Their names, by number.
        pub const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

operations! {
    /// a = b
    MOVE
    /// a = constant c
    CONST
    /// a = the fixnum bc
    INT
    /// a = captured value b
    FREE
    /// a = contents of the cell b
    CELL_REF
    /// a = contents of the captured cell b
    FREE_CELL_REF
    /// contents of the cell a = b
    CELL_SET
    /// contents of the captured cell a = b
    FREE_CELL_SET
    /// a = a new cell with b in it
    CELL_NEW
    /// a = value of the global at constant c
    GLOBAL
    /// value of the global at constant c = a; it must have one
    GLOBAL_SET
    /// value of the global at constant c = a
    GLOBAL_DEFINE
    /// a = a closure of the code at constant c over b values; as many words follow that say which
    CLOSURE
    /// captured value b of the closure a = c
    CLOSURE_PATCH
    /// Go bc instructions on.
    JUMP
    /// The same, backwards: a loop's end, where the machine looks up now and then.
    LOOP
    /// Go bc on if a is false.
    JUMP_IF_FALSE
    /// Go bc on if a is true.
    JUMP_IF_TRUE
    /// Go bc on if a is the empty list.
    JUMP_IF_NULL
    /// Go bc on unless a is the empty list.
    JUMP_UNLESS_NULL
    /// Go bc on if a is a pair.
    JUMP_IF_PAIR
    /// Go bc on unless a is a pair.
    JUMP_UNLESS_PAIR
    /// Go c on if a and b are the same.
    JUMP_IF_EQ
    /// Go c on unless a and b are the same.
    JUMP_UNLESS_EQ
    /// Go c on if a < b.
    JUMP_IF_LT
    /// Go c on unless a < b.
    JUMP_UNLESS_LT
    /// Go c on if a <= b.
    JUMP_IF_LE
    /// Go c on unless a <= b.
    JUMP_UNLESS_LE
    /// Go c on if a = b.
    JUMP_IF_NUM_EQ
    /// Go c on unless a = b.
    JUMP_UNLESS_NUM_EQ
    /// Go c on if a < the fixnum b.
    JUMP_IF_LT_INT
    /// Go c on unless a < the fixnum b.
    JUMP_UNLESS_LT_INT
    /// Go c on if a > the fixnum b.
    JUMP_IF_GT_INT
    /// Go c on unless a > the fixnum b.
    JUMP_UNLESS_GT_INT
    /// Go c on if a = the fixnum b.
    JUMP_IF_NUM_EQ_INT
    /// Go c on unless a = the fixnum b.
    JUMP_UNLESS_NUM_EQ_INT
    /// Go c on if a and constant b are the same.
    JUMP_IF_EQ_CONST
    /// Go c on unless a and constant b are the same.
    JUMP_UNLESS_EQ_CONST
    /// Call a + 1 with b arguments from a + 2 on; the result goes to a.
    CALL
    /// Call the global at constant c with b arguments from a + 2 on; the result goes to a.
    CALL_GLOBAL
    /// Go on with a, in place of this procedure, with b arguments, which are where its own were: from 2 on.
    TAIL_CALL
    /// The same with the global at constant c.
    TAIL_CALL_GLOBAL
    /// Return a.
    RETURN
    /// a = builtin b of c arguments from a on.
    BUILTIN
    /// a = car of b
    CAR
    /// a = cdr of b
    CDR
    /// a = car of car of b
    CAAR
    /// a = car of cdr of b
    CADR
    /// a = cdr of car of b
    CDAR
    /// a = cdr of cdr of b
    CDDR
    /// a = pair of b and c
    CONS
    /// car of a = b
    SET_CAR
    /// cdr of a = b
    SET_CDR
    /// a = b + c
    ADD
    /// a = b - c
    SUB
    /// a = b * c
    MUL
    /// a = b + the fixnum c
    ADD_INT
    /// a = quotient of b and c
    QUOTIENT
    /// a = remainder of b and c
    REMAINDER
    /// a = b modulo c
    MODULO
    /// a = element c of the vector b
    VECTOR_REF
    /// element b of the vector a = c
    VECTOR_SET
    /// a = length of the vector b
    VECTOR_LENGTH
    /// a = character c of the string b
    STRING_REF
}

/// An instruction.
#[inline(always)]
pub const fn encode(op: u8, a: u16, b: u16, c: u16) -> u64 {
    (op as u64) << 8 | (a as u64) << 16 | (b as u64) << 32 | (c as u64) << 48
}

/// The operation.
#[inline(always)]
pub const fn op(word: u64) -> u8 {
    (word >> 8) as u8
}
/// Operand a.
#[inline(always)]
pub const fn a(word: u64) -> usize {
    (word >> 16) as u16 as usize
}
/// Operand b.
#[inline(always)]
pub const fn b(word: u64) -> usize {
    (word >> 32) as u16 as usize
}
/// Operand c.
#[inline(always)]
pub const fn c(word: u64) -> usize {
    (word >> 48) as usize
}
/// Operand bc.
#[inline(always)]
pub const fn bc(word: u64) -> isize {
    (word as i64 >> 32) as isize
}
/// Operand c as a signed number.
#[inline(always)]
pub const fn signed_c(word: u64) -> isize {
    (word as i64 >> 48) as isize
}
/// Operand b as a signed number.
#[inline(always)]
pub const fn signed_b(word: u64) -> i64 {
    (word >> 32) as u16 as i16 as i64
}

/// A code object is an array: these words, the constants, the instructions.
pub mod code {
    /// Word 0, a fixnum: see [`meta`].
    pub const META: usize = 0;
    /// Word 1: a vector of places: a symbol (the file), then pairs of fixnums: instruction, line and column. A pair with
    /// a symbol says that what follows is in another file.
    pub const PLACES: usize = 1;
    /// Word 2: the procedure's name, a symbol.
    pub const NAME: usize = 2;
    /// Where the constants begin.
    pub const CONSTANTS: usize = 3;

    /// The rest parameter's bit in the arity.
    pub const REST: u16 = 0x8000;
    /// The arity of a procedure that chooses among others by the number of arguments.
    pub const CASE: u16 = 0x7fff;

    /// The bits of word 0: arity (16 bits), frame size (16), first instruction (24).
    pub const fn meta(arity: u16, frame: u16, entry: usize) -> i64 {
        arity as i64 | (frame as i64) << 16 | (entry as i64) << 32
    }
    /// Arity.
    #[inline(always)]
    pub const fn arity(meta: u64) -> u16 {
        (meta >> 3) as u16
    }
    /// Frame size in words.
    #[inline(always)]
    pub const fn frame(meta: u64) -> usize {
        (meta >> 19) as u16 as usize
    }
    /// First instruction.
    #[inline(always)]
    pub const fn entry(meta: u64) -> usize {
        (meta >> 35) as usize
    }
}
