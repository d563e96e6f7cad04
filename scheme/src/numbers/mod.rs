//! The numeric tower: fixnums, bignums, exact fractions, flonums.
//!
//! The representation is chosen by the value alone: an integer in fixnum range is a fixnum, any other exact integer
//! a bignum, a fraction is in lowest terms with a denominator above 1. So equal exact numbers have equal
//! representations, and [`eqv`] compares contents.
//!
//! The arithmetic of large numbers is `num-bigint`'s. Their digits live in the managed heap as plain data; an
//! operation copies them out ([`decode`]), computes in native memory, and copies the result in
//! ([`Number::encode`]). Operations that may take long do so in pieces ([`large`]) and outside of the stretch ([`long`]). What matters for speed are the first lines of each function: fixnums and flonums never get
//! that far.
//!
//! There are no complex numbers: where the result would be one, as in `(sqrt -1)`, it is `+nan.0`.

pub mod arithmetic;
pub mod fractions;
pub mod functions;
pub mod large;
pub mod long;
pub mod rounding;
pub mod text;

pub use arithmetic::{add, compare, div, modulo, mul, negate, quotient, remainder, sub};

use crate::mem::Mem;
use crate::object::{BignumObject, Ratnum};
use crate::trap::{Result, error_of, wrong_type};
use crate::value::Value;
use num_bigint::{BigInt, BigUint, Sign};
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

/// Most bits of an exact integer. More is refused as out of memory, before native memory is filled, and so is what the
/// heap is too small for.
pub fn most_bits(mem: Mem<'_, '_>) -> u64 {
    (1 << 26).min(8 * mem.world().most_text as u64)
}

/// Payload bytes up to which two bignums may be made by one builtin: see [`Mem::words`].
const PART_BYTES: usize = 16 << 10;

/// A number in native memory.
#[derive(Clone, Debug, PartialEq)]
pub enum Number {
    /// An exact integer that a word holds. Not necessarily in fixnum range.
    Small(i64),
    /// Any other exact integer (or a small one: [`Number::encode`] normalises).
    Big(BigInt),
    /// An exact rational, possibly an integer.
    Ratio(BigRational),
    /// An inexact number.
    Flonum(f64),
}

/// The number that `value` is, if it is one.
pub fn decode<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Option<Number> {
    if let Some(number) = value.as_fixnum() {
        return Some(Number::Small(number));
    }
    if let Some(number) = value.as_flonum() {
        return Some(Number::Flonum(number));
    }
    if let Some(big) = mem.object::<BignumObject>(value) {
        return Some(Number::Big(big_of(big)));
    }
    let ratio = mem.object::<Ratnum>(value)?;
    let part = |slot: &crate::value::Slot| match decode(mem, slot.load(mem.scope()).into()) {
        Some(Number::Small(number)) => BigInt::from(number),
        Some(Number::Big(number)) => number,
        _ => unreachable!("parts of a fraction are exact integers"),
    };
    let ratio: &Ratnum = &ratio;
    Some(Number::Ratio(BigRational::new_raw(part(&ratio.numerator), part(&ratio.denominator))))
}

/// As [`decode`], or the error that `value` is no number.
pub fn number<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m, Number> {
    decode(mem, value).ok_or_else(|| wrong_type("a number", value))
}

/// Whether `value` is a number.
pub fn is_number<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> bool {
    value.is_fixnum()
        || value.as_flonum().is_some()
        || mem.object::<BignumObject>(value).is_some()
        || mem.object::<Ratnum>(value).is_some()
}

/// Whether `value` is an exact integer.
pub fn is_exact_integer<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> bool {
    value.is_fixnum() || mem.object::<BignumObject>(value).is_some()
}

/// The exact integer that `value` is, or the error that it is none.
pub fn exact_integer<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m, BigInt> {
    match decode(mem, value) {
        Some(Number::Small(number)) => Ok(number.into()),
        Some(Number::Big(number)) => Ok(number),
        _ => Err(wrong_type("an exact integer", value)),
    }
}

fn big_of(big: firn::Gc<'_, BignumObject>) -> BigInt {
    let mut halves = Vec::with_capacity(2 * (big.len() - 1));
    for index in 1..big.len() {
        let word = big.get(index);
        halves.extend([word as u32, (word >> 32) as u32]);
    }
    let sign = if big.get(0) == 0 { Sign::Plus } else { Sign::Minus };
    BigInt::from_biguint(sign, BigUint::new(halves))
}

/// The value of an exact integer.
pub fn encode_big<'m>(mem: Mem<'m, '_>, number: &BigInt) -> Result<'m> {
    if let Some(fixnum) = number.to_i64().and_then(Value::try_fixnum) {
        return Ok(fixnum);
    }
    if number.bits() > most_bits(mem) {
        return Err(too_large());
    }
    let words = mem.words(words_of(number))?;
    fill(words, number);
    Ok(Value::object(words))
}

/// Words of a bignum: its sign and its digits.
fn words_of(number: &BigInt) -> usize {
    number.magnitude().iter_u64_digits().len() + 1
}

fn fill(words: firn::Gc<'_, BignumObject>, number: &BigInt) {
    words.set(0, (number.sign() == Sign::Minus) as u64);
    for (index, digit) in number.magnitude().iter_u64_digits().enumerate() {
        words.set(index + 1, digit);
    }
}

/// The error of a result that is too large to be computed.
pub fn too_large<'m>() -> crate::trap::Trap<'m> {
    error_of("out-of-memory", "the result has too many digits", &[])
}

fn encode_ratio<'m>(mem: Mem<'m, '_>, ratio: &BigRational) -> Result<'m> {
    if ratio.denom().is_one() {
        return encode_big(mem, ratio.numer());
    }
    let is_large = |part: &BigInt| part.bits() as usize / 8 > PART_BYTES;
    let (numerator, denominator) = if is_large(ratio.numer()) && is_large(ratio.denom()) {
        if ratio.numer().bits().max(ratio.denom().bits()) > most_bits(mem) {
            return Err(too_large());
        }
        let parts = [ratio.numer(), ratio.denom()];
        let [numerator, denominator] = mem.two_words(parts.map(words_of))?;
        fill(numerator, ratio.numer());
        fill(denominator, ratio.denom());
        (Value::object(numerator), Value::object(denominator))
    } else {
        (encode_big(mem, ratio.numer())?, encode_big(mem, ratio.denom())?)
    };
    let empty = Ratnum { numerator: firn::Tagged::new(0), denominator: firn::Tagged::new(0) };
    mem.make(empty, |ratnum| {
        ratnum.set(&ratnum.numerator, numerator.into());
        ratnum.set(&ratnum.denominator, denominator.into());
    })
}

/// The value of a fixnum-sized integer.
#[inline(always)]
pub fn encode_small<'m>(mem: Mem<'m, '_>, number: i64) -> Result<'m> {
    match Value::try_fixnum(number) {
        Some(value) => Ok(value),
        None => encode_big(mem, &BigInt::from(number)),
    }
}

impl Number {
    /// The value in the heap.
    pub fn encode<'m>(&self, mem: Mem<'m, '_>) -> Result<'m> {
        match self {
            Number::Small(number) => encode_small(mem, *number),
            Number::Big(number) => encode_big(mem, number),
            Number::Ratio(ratio) => encode_ratio(mem, ratio),
            Number::Flonum(number) => mem.flonum(*number),
        }
    }

    /// Bits of it, of a fraction those of both parts.
    pub fn bits(&self) -> u64 {
        match self {
            Number::Small(_) | Number::Flonum(_) => 64,
            Number::Big(big) => big.bits(),
            Number::Ratio(ratio) => ratio.numer().bits() + ratio.denom().bits(),
        }
    }

    /// Whether it is exact.
    pub fn is_exact(&self) -> bool {
        !matches!(self, Number::Flonum(_))
    }

    /// Whether it is an integer, exact or not.
    pub fn is_integer(&self) -> bool {
        match self {
            Number::Small(_) | Number::Big(_) => true,
            Number::Ratio(ratio) => ratio.is_integer(),
            Number::Flonum(number) => number.fract() == 0.0,
        }
    }

    /// The nearest flonum.
    pub fn to_f64(&self) -> f64 {
        match self {
            Number::Small(number) => *number as f64,
            Number::Big(number) => big_to_f64(number),
            Number::Ratio(ratio) => ratio_to_f64(ratio),
            Number::Flonum(number) => *number,
        }
    }

    /// The exact number of the same value; `None` for infinities and NaN.
    pub fn to_ratio(&self) -> Option<BigRational> {
        match self {
            Number::Small(number) => Some(BigRational::from_integer((*number).into())),
            Number::Big(number) => Some(BigRational::from_integer(number.clone())),
            Number::Ratio(ratio) => Some(ratio.clone()),
            Number::Flonum(number) => BigRational::from_float(*number),
        }
    }

    /// The integer of the same value; `None` if there is none.
    pub fn to_integer(&self) -> Option<BigInt> {
        match self {
            Number::Small(number) => Some((*number).into()),
            Number::Big(number) => Some(number.clone()),
            _ => {
                let ratio = self.to_ratio()?;
                ratio.is_integer().then(|| ratio.numer().clone())
            }
        }
    }

    /// -1, 0 or 1; 0 for NaN.
    pub fn signum(&self) -> i32 {
        match self {
            Number::Small(number) => number.signum() as i32,
            Number::Big(number) => number.signum().to_i32().expect("-1, 0 or 1"),
            Number::Ratio(ratio) => ratio.numer().signum().to_i32().expect("-1, 0 or 1"),
            Number::Flonum(number) => (*number > 0.0) as i32 - (*number < 0.0) as i32,
        }
    }
}

/// The nearest flonum of an exact integer, ties to even.
pub fn big_to_f64(number: &BigInt) -> f64 {
    number.to_f64().unwrap_or(f64::NAN)
}

/// The nearest flonum of a fraction, ties to even, subnormals included.
pub fn ratio_to_f64(ratio: &BigRational) -> f64 {
    let (numerator, denominator) = (ratio.numer().magnitude(), ratio.denom().magnitude());
    if numerator.is_zero() {
        return 0.0;
    }
    // A quotient of 64 or 65 bits, its last bit standing for all that are cut off: rounding is then that of an
    // integer. Where the result is subnormal, fewer bits are kept, so that it is rounded once.
    let exponent = numerator.bits() as i64 - denominator.bits() as i64;
    if exponent > 1030 {
        return if ratio.is_negative() { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    if exponent < -1080 {
        return if ratio.is_negative() { -0.0 } else { 0.0 };
    }
    // Value = quotient * 2^-shift; a flonum's last place is at least 2^-1074.
    let shift = (64 - exponent).min(1076);
    let (scaled, divisor) = if shift >= 0 {
        (numerator << shift, denominator.clone())
    } else {
        (numerator.clone(), denominator << -shift)
    };
    let quotient = &scaled / &divisor;
    let rest = scaled - &quotient * divisor;
    let mut bits = quotient.to_u128().expect("65 bits at most");
    if !rest.is_zero() {
        bits |= 1;
    }
    // `bits` has a sticky bit far below the rounding position, unless subnormal: then two bits below it.
    let significant = 128 - bits.leading_zeros() as i64;
    let lowest = (significant - 53).max(shift - 1074).max(0);
    let kept = bits >> lowest;
    let cut = bits & ((1u128 << lowest) - 1);
    let half = if lowest == 0 { 0 } else { 1u128 << (lowest - 1) };
    let rounded = kept + (lowest > 0 && (cut > half || cut == half && kept & 1 == 1)) as u128;
    let magnitude = scale(rounded as f64, lowest - shift);
    if ratio.is_negative() { -magnitude } else { magnitude }
}

/// `number * 2^exponent`, exact as long as the result is representable.
pub fn scale(mut number: f64, mut exponent: i64) -> f64 {
    let power = |exponent: i64| f64::from_bits(((exponent + 1023) as u64) << 52);
    while exponent > 1000 {
        number *= power(1000);
        exponent -= 1000;
    }
    while exponent < -1000 {
        number *= power(-1000);
        exponent += 1000;
    }
    number * power(exponent)
}

/// `eqv?` of two values of which neither is the same word as the other: true for equal numbers of equal exactness.
pub fn eqv<'m>(mem: Mem<'m, '_>, a: Value<'m>, b: Value<'m>) -> bool {
    if let (Some(a), Some(b)) = (a.as_flonum(), b.as_flonum()) {
        return a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    }
    if let (Some(a), Some(b)) = (mem.object::<BignumObject>(a), mem.object::<BignumObject>(b)) {
        return a.len() == b.len() && (0..a.len()).all(|index| a.get(index) == b.get(index));
    }
    if let (Some(a), Some(b)) = (mem.object::<Ratnum>(a), mem.object::<Ratnum>(b)) {
        let (a, b): (&Ratnum, &Ratnum) = (&a, &b);
        let same = |a: &crate::value::Slot, b: &crate::value::Slot| {
            let (a, b): (Value<'m>, Value<'m>) =
                (a.load(mem.scope()).into(), b.load(mem.scope()).into());
            a == b || eqv(mem, a, b)
        };
        return same(&a.numerator, &b.numerator) && same(&a.denominator, &b.denominator);
    }
    false
}

/// A hash that is equal for numbers that are `eqv?`; `None` if the value is no number.
pub fn hash<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Option<u64> {
    let mix =
        |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    if let Some(number) = value.as_fixnum() {
        return Some(mix(1, number as u64));
    }
    if let Some(number) = value.as_flonum() {
        return Some(mix(2, if number.is_nan() { f64::NAN } else { number }.to_bits()));
    }
    if let Some(big) = mem.object::<BignumObject>(value) {
        return Some((0..big.len()).fold(3, |hash, index| mix(hash, big.get(index))));
    }
    let ratio = mem.object::<Ratnum>(value)?;
    let ratio: &Ratnum = &ratio;
    let part = |slot: &crate::value::Slot| hash(mem, slot.load(mem.scope()).into());
    Some(mix(part(&ratio.numerator)?, part(&ratio.denominator)?))
}
