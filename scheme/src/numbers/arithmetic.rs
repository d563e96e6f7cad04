//! Arithmetic and comparison of two values of any kinds.
//!
//! Each function looks for two fixnums, then for two flonums, and leaves the rest to a slow path out of line that
//! works on [`Number`]s. Mixed comparison is exact: a flonum is compared by its exact value, so that `=` and `<`
//! are transitive.

use super::{Number, encode_big, encode_small, number};
use crate::mem::Mem;
use crate::trap::{Result, Trap, error_of, wrong_type};
use crate::value::Value;
use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};
use std::cmp::Ordering;

/// Two numbers brought to one kind.
enum Pair {
    Small(i64, i64),
    Big(BigInt, BigInt),
    Ratio(BigRational, BigRational),
    Flonum(f64, f64),
}

fn ratio(number: Number) -> BigRational {
    match number {
        Number::Ratio(ratio) => ratio,
        other => other.to_ratio().expect("exact"),
    }
}

fn pair(a: Number, b: Number) -> Pair {
    match (a, b) {
        (Number::Small(a), Number::Small(b)) => Pair::Small(a, b),
        (Number::Flonum(a), b) => Pair::Flonum(a, b.to_f64()),
        (a, Number::Flonum(b)) => Pair::Flonum(a.to_f64(), b),
        (Number::Big(a), Number::Big(b)) => Pair::Big(a, b),
        (Number::Big(a), Number::Small(b)) => Pair::Big(a, b.into()),
        (Number::Small(a), Number::Big(b)) => Pair::Big(a.into(), b),
        (a, b) => Pair::Ratio(ratio(a), ratio(b)),
    }
}

macro_rules! operation {
    ($(#[$doc:meta])* $name:ident, $native:ident, $slow:ident, $checked:ident, $op:tt) => {
        $(#[$doc])*
        #[inline]
        pub fn $name<'m>(mem: Mem<'m, '_>, a: Value<'m>, b: Value<'m>) -> Result<'m> {
            if let (Some(a), Some(b)) = (a.as_fixnum(), b.as_fixnum())
                && let Some(result) = a.$checked(b)
            {
                return encode_small(mem, result);
            }
            if let (Some(a), Some(b)) = (a.as_flonum(), b.as_flonum()) {
                return mem.flonum(a $op b);
            }
            $slow(mem, a, b)
        }

        #[cold]
        #[inline(never)]
        fn $slow<'m>(mem: Mem<'m, '_>, a: Value<'m>, b: Value<'m>) -> Result<'m> {
            $native(number(mem, a)?, number(mem, b)?).encode(mem)
        }

        /// The same in native memory.
        pub fn $native(a: Number, b: Number) -> Number {
            match pair(a, b) {
                Pair::Small(a, b) => match a.$checked(b) {
                    Some(result) => Number::Small(result),
                    None => Number::Big(BigInt::from(a) $op BigInt::from(b)),
                },
                Pair::Big(a, b) => Number::Big(a $op b),
                Pair::Ratio(a, b) => Number::Ratio(a $op b),
                Pair::Flonum(a, b) => Number::Flonum(a $op b),
            }
        }
    };
}

operation!(
    /// `(+ a b)`
    add, add_native, add_slow, checked_add, +
);
operation!(
    /// `(- a b)`
    sub, sub_native, sub_slow, checked_sub, -
);
operation!(
    /// `(* a b)`
    mul, mul_native, mul_slow, checked_mul, *
);

/// The error of a division by zero.
pub fn division_by_zero<'m>(dividend: Value<'m>) -> Trap<'m> {
    error_of("division-by-zero", "division by zero", &[dividend])
}

/// `(/ a b)`. Division by an exact zero is an error, also of a flonum.
pub fn div<'m>(mem: Mem<'m, '_>, a: Value<'m>, b: Value<'m>) -> Result<'m> {
    if let (Some(a), Some(b)) = (a.as_flonum(), b.as_flonum()) {
        return mem.flonum(a / b);
    }
    if let (Some(a), Some(b)) = (a.as_fixnum(), b.as_fixnum())
        && b != 0
        && a % b == 0
    {
        return encode_small(mem, a / b);
    }
    if b.as_fixnum() == Some(0) {
        number(mem, a)?;
        return Err(division_by_zero(a));
    }
    div_native(number(mem, a)?, number(mem, b)?).encode(mem)
}

/// The same in native memory. The divisor is no exact zero.
pub fn div_native(a: Number, b: Number) -> Number {
    match pair(a, b) {
        Pair::Small(a, b) if a % b == 0 => Number::Small(a / b),
        Pair::Small(a, b) => Number::Ratio(BigRational::new(a.into(), b.into())),
        Pair::Big(a, b) => Number::Ratio(BigRational::new(a, b)),
        Pair::Ratio(a, b) => Number::Ratio(a / b),
        Pair::Flonum(a, b) => Number::Flonum(a / b),
    }
}

/// `(- a)`; keeps the sign of a flonum zero, unlike subtraction from 0.
pub fn negate<'m>(mem: Mem<'m, '_>, a: Value<'m>) -> Result<'m> {
    match number(mem, a)? {
        Number::Small(a) => encode_small(mem, -a),
        Number::Big(a) => encode_big(mem, &-a),
        Number::Ratio(a) => Number::Ratio(-a).encode(mem),
        Number::Flonum(a) => mem.flonum(-a),
    }
}

/// `(abs a)`
pub fn abs<'m>(mem: Mem<'m, '_>, a: Value<'m>) -> Result<'m> {
    match number(mem, a)? {
        Number::Small(a) => encode_small(mem, a.abs()),
        Number::Big(a) => encode_big(mem, &a.abs()),
        Number::Ratio(a) => Number::Ratio(a.abs()).encode(mem),
        Number::Flonum(a) => mem.flonum(a.abs()),
    }
}

/// How `a` compares to `b`; `None` if one of them is NaN.
#[inline]
pub fn compare<'m>(mem: Mem<'m, '_>, a: Value<'m>, b: Value<'m>) -> Result<'m, Option<Ordering>> {
    if let (Some(a), Some(b)) = (a.as_fixnum(), b.as_fixnum()) {
        return Ok(Some(a.cmp(&b)));
    }
    if let (Some(a), Some(b)) = (a.as_flonum(), b.as_flonum()) {
        return Ok(a.partial_cmp(&b));
    }
    Ok(compare_numbers(&number(mem, a)?, &number(mem, b)?))
}

/// Integers up to this size convert to flonums without loss.
const EXACT_IN_FLONUM: i64 = 1 << 53;

/// As [`compare`], in native memory.
pub fn compare_numbers(a: &Number, b: &Number) -> Option<Ordering> {
    match (a, b) {
        (Number::Small(a), Number::Small(b)) => Some(a.cmp(b)),
        (Number::Big(a), Number::Big(b)) => Some(a.cmp(b)),
        (Number::Small(a), Number::Big(b)) => Some(BigInt::from(*a).cmp(b)),
        (Number::Big(a), Number::Small(b)) => Some(a.cmp(&BigInt::from(*b))),
        (Number::Flonum(a), b) => compare_flonum(*a, b),
        (a, Number::Flonum(b)) => compare_flonum(*b, a).map(Ordering::reverse),
        (a, b) => Some(a.to_ratio().expect("exact").cmp(&b.to_ratio().expect("exact"))),
    }
}

fn compare_flonum(a: f64, b: &Number) -> Option<Ordering> {
    match b {
        Number::Flonum(b) => a.partial_cmp(b),
        Number::Small(b) if b.abs() <= EXACT_IN_FLONUM => a.partial_cmp(&(*b as f64)),
        _ if a.is_nan() => None,
        _ if a.is_infinite() => Some(if a > 0.0 { Ordering::Greater } else { Ordering::Less }),
        b => Number::Flonum(a).to_ratio()?.partial_cmp(&b.to_ratio()?),
    }
}

/// `(= a b)`
#[inline]
pub fn equal<'m>(mem: Mem<'m, '_>, a: Value<'m>, b: Value<'m>) -> Result<'m, bool> {
    Ok(compare(mem, a, b)? == Some(Ordering::Equal))
}

/// `(< a b)`
#[inline]
pub fn less<'m>(mem: Mem<'m, '_>, a: Value<'m>, b: Value<'m>) -> Result<'m, bool> {
    Ok(compare(mem, a, b)? == Some(Ordering::Less))
}

/// Integer division, exact or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Division {
    /// `truncate-quotient`, `quotient`
    Quotient,
    /// `truncate-remainder`, `remainder`
    Remainder,
    /// `floor-quotient`
    FloorQuotient,
    /// `floor-remainder`, `modulo`
    Modulo,
}

/// The integer of a number that may be a flonum, and whether it was one.
fn integer<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m, (BigInt, bool)> {
    let number = number(mem, value)?;
    let integer = number.to_integer().ok_or_else(|| wrong_type("an integer", value))?;
    Ok((integer, !number.is_exact()))
}

/// Integer division of any integers.
#[inline]
pub fn divide<'m>(mem: Mem<'m, '_>, division: Division, a: Value<'m>, b: Value<'m>) -> Result<'m> {
    if let (Some(x), Some(y)) = (a.as_fixnum(), b.as_fixnum()) {
        if y == 0 {
            return Err(division_by_zero(a));
        }
        // Fixnums have 61 bits: no quotient overflows.
        return match division {
            Division::Quotient => encode_small(mem, x / y),
            Division::Remainder => Ok(Value::fixnum(x % y)),
            Division::FloorQuotient => encode_small(mem, Integer::div_floor(&x, &y)),
            Division::Modulo => Ok(Value::fixnum(Integer::mod_floor(&x, &y))),
        };
    }
    divide_slow(mem, division, a, b)
}

#[cold]
#[inline(never)]
fn divide_slow<'m>(mem: Mem<'m, '_>, division: Division, a: Value<'m>, b: Value<'m>) -> Result<'m> {
    let (x, x_inexact) = integer(mem, a)?;
    let (y, y_inexact) = integer(mem, b)?;
    if y.is_zero() {
        return Err(division_by_zero(a));
    }
    let result = match division {
        Division::Quotient => x / y,
        Division::Remainder => x % y,
        Division::FloorQuotient => x.div_floor(&y),
        Division::Modulo => x.mod_floor(&y),
    };
    if x_inexact || y_inexact {
        return mem.flonum(super::big_to_f64(&result));
    }
    encode_big(mem, &result)
}

/// `(quotient a b)`
#[inline]
pub fn quotient<'m>(mem: Mem<'m, '_>, a: Value<'m>, b: Value<'m>) -> Result<'m> {
    divide(mem, Division::Quotient, a, b)
}

/// `(remainder a b)`
#[inline]
pub fn remainder<'m>(mem: Mem<'m, '_>, a: Value<'m>, b: Value<'m>) -> Result<'m> {
    divide(mem, Division::Remainder, a, b)
}

/// `(modulo a b)`
#[inline]
pub fn modulo<'m>(mem: Mem<'m, '_>, a: Value<'m>, b: Value<'m>) -> Result<'m> {
    divide(mem, Division::Modulo, a, b)
}

/// Folds integers by `f`, inexact if one of them is.
fn fold_integers<'m>(
    mem: Mem<'m, '_>,
    values: &[Value<'m>],
    start: i64,
    f: impl Fn(&BigInt, &BigInt) -> BigInt,
) -> Result<'m> {
    let (mut result, mut inexact) = (BigInt::from(start), false);
    for &value in values {
        let (integer, was_inexact) = integer(mem, value)?;
        result = f(&result, &integer);
        inexact |= was_inexact;
    }
    if inexact { mem.flonum(super::big_to_f64(&result)) } else { encode_big(mem, &result) }
}

/// `(gcd a ...)`
pub fn gcd<'m>(mem: Mem<'m, '_>, values: &[Value<'m>]) -> Result<'m> {
    if let [a, b] = values
        && let (Some(a), Some(b)) = (a.as_fixnum(), b.as_fixnum())
    {
        return encode_small(mem, a.gcd(&b));
    }
    fold_integers(mem, values, 0, |a, b| a.gcd(b))
}

/// `(lcm a ...)`
pub fn lcm<'m>(mem: Mem<'m, '_>, values: &[Value<'m>]) -> Result<'m> {
    fold_integers(mem, values, 1, |a, b| a.lcm(b).abs())
}

/// Whether an integer is odd.
pub fn is_odd<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m, bool> {
    if let Some(number) = value.as_fixnum() {
        return Ok(number & 1 == 1);
    }
    Ok(integer(mem, value)?.0.is_odd())
}

/// The exact integer as a shift or an index, if it is small.
pub fn to_i64(number: &BigInt) -> Option<i64> {
    number.to_i64()
}
