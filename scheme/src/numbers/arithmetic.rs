//! Arithmetic and comparison of two values of any kinds.
//!
//! Each function looks for two fixnums, then for two flonums, and leaves the rest to a slow path out of line that
//! works on [`Number`]s, outside of the stretch if they are so large that it may take long ([`super::long`]). Mixed comparison is exact: a flonum is compared by its exact value, so that `=` and `<`
//! are transitive.

use super::large::{self, Stopped, Watch};
use super::long::{self, Length, now, perform};
use super::{Number, encode_big, encode_small, fractions, most_bits, number};
use crate::mem::Mem;
use crate::trap::{Result, Trap, error_of, wrong_type};
use crate::value::Value;
use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};
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

/// The result of an operation in native memory.
pub type Native = std::result::Result<Number, Stopped>;

// By value: sums take the place of an operand.
fn add_big(_: &Watch<'_>, a: BigInt, b: BigInt) -> std::result::Result<BigInt, Stopped> {
    Ok(a + b)
}
fn sub_big(_: &Watch<'_>, a: BigInt, b: BigInt) -> std::result::Result<BigInt, Stopped> {
    Ok(a - b)
}

fn mul_big(watch: &Watch<'_>, a: BigInt, b: BigInt) -> std::result::Result<BigInt, Stopped> {
    large::mul(watch, &a, &b)
}

/// The error of a product that is known to be too large before it is computed.
fn refuse_hopeless<'m>(mem: Mem<'m, '_>, a: &Number, b: &Number) -> Result<'m, ()> {
    match (a, b) {
        (Number::Big(a), Number::Big(b)) if a.bits() + b.bits() - 1 > most_bits(mem) => {
            Err(super::too_large())
        }
        _ => Ok(()),
    }
}

macro_rules! operation {
    ($(#[$doc:meta])* $name:ident, $native:ident, $slow:ident, $checked:ident, $op:tt, $length:path, $big:path, $ratio:path) => {
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
            let (a, b) = (number(mem, a)?, number(mem, b)?);
            if $length(&a, &b) == Length::Short {
                return now($native(&Watch::NOBODY, a, b)).encode(mem);
            }
            refuse_hopeless(mem, &a, &b)?;
            perform(mem, Length::Long, move |watch| Ok($native(watch, a, b)?.into()))
        }

        /// The same in native memory.
        pub fn $native(watch: &Watch<'_>, a: Number, b: Number) -> Native {
            Ok(match pair(a, b) {
                Pair::Small(a, b) => match a.$checked(b) {
                    Some(result) => Number::Small(result),
                    None => Number::Big(BigInt::from(a) $op BigInt::from(b)),
                },
                Pair::Big(a, b) => Number::Big($big(watch, a, b)?),
                Pair::Ratio(a, b) => Number::Ratio($ratio(watch, &a, &b)?),
                Pair::Flonum(a, b) => Number::Flonum(a $op b),
            })
        }
    };
}

operation!(
    /// `(+ a b)`
    add, add_native, add_slow, checked_add, +, long::sum, add_big, fractions::add
);
operation!(
    /// `(- a b)`
    sub, sub_native, sub_slow, checked_sub, -, long::sum, sub_big, fractions::sub
);
operation!(
    /// `(* a b)`
    mul, mul_native, mul_slow, checked_mul, *, long::product, mul_big, fractions::product
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
    let (a, b) = (number(mem, a)?, number(mem, b)?);
    perform(mem, long::ratio(&a, &b), move |watch| Ok(div_native(watch, a, b)?.into()))
}

/// The same in native memory. The divisor is no exact zero.
pub fn div_native(watch: &Watch<'_>, a: Number, b: Number) -> Native {
    Ok(match pair(a, b) {
        Pair::Small(a, b) if a % b == 0 => Number::Small(a / b),
        Pair::Small(a, b) => Number::Ratio(BigRational::new(a.into(), b.into())),
        Pair::Big(a, b) => Number::Ratio(fractions::reduced(watch, a, b)?),
        Pair::Ratio(a, b) => Number::Ratio(fractions::quotient(watch, &a, &b)?),
        Pair::Flonum(a, b) => Number::Flonum(a / b),
    })
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
///
/// # Errors
/// One of them is no number; or it takes long, then the trap is [`TrapKind::Long`], and what it comes to is -1, 0 or 1.
///
/// [`TrapKind::Long`]: crate::trap::TrapKind::Long
#[inline]
pub fn compare<'m>(mem: Mem<'m, '_>, a: Value<'m>, b: Value<'m>) -> Result<'m, Option<Ordering>> {
    if let (Some(a), Some(b)) = (a.as_fixnum(), b.as_fixnum()) {
        return Ok(Some(a.cmp(&b)));
    }
    if let (Some(a), Some(b)) = (a.as_flonum(), b.as_flonum()) {
        return Ok(a.partial_cmp(&b));
    }
    compare_slow(mem, a, b)
}

#[cold]
#[inline(never)]
fn compare_slow<'m>(mem: Mem<'m, '_>, a: Value<'m>, b: Value<'m>) -> Result<'m, Option<Ordering>> {
    let (a, b) = (number(mem, a)?, number(mem, b)?);
    compare_by(&a, &b, |a, b| fractions::compare_at_once(a, b).ok_or(TakesLong)).map_err(
        |TakesLong| {
            long::outside(Box::new(move |watch| {
                let order = compare_numbers(watch, &a, &b)?.expect("large ones are no NaN");
                Ok(Number::Small(order as i64).into())
            }))
        },
    )
}

/// Two fractions are not compared in one go.
struct TakesLong;

/// Integers up to this size convert to flonums without loss.
const EXACT_IN_FLONUM: i64 = 1 << 53;

/// As [`compare`], in native memory.
pub fn compare_numbers(
    watch: &Watch<'_>,
    a: &Number,
    b: &Number,
) -> std::result::Result<Option<Ordering>, Stopped> {
    compare_by(a, b, |a, b| fractions::compare(watch, a, b))
}

/// As [`compare_numbers`], where fractions are compared so.
fn compare_by<E>(
    a: &Number,
    b: &Number,
    ratios: impl Fn(&BigRational, &BigRational) -> std::result::Result<Ordering, E>,
) -> std::result::Result<Option<Ordering>, E> {
    Ok(match (a, b) {
        (Number::Small(a), Number::Small(b)) => Some(a.cmp(b)),
        (Number::Big(a), Number::Big(b)) => Some(a.cmp(b)),
        (Number::Small(a), Number::Big(b)) => Some(BigInt::from(*a).cmp(b)),
        (Number::Big(a), Number::Small(b)) => Some(a.cmp(&BigInt::from(*b))),
        (Number::Flonum(a), b) => compare_flonum(*a, b, ratios)?,
        (a, Number::Flonum(b)) => compare_flonum(*b, a, ratios)?.map(Ordering::reverse),
        (Number::Ratio(a), Number::Ratio(b)) => Some(ratios(a, b)?),
        (a, b) => {
            let (a, b) = (a.to_ratio().expect("exact"), b.to_ratio().expect("exact"));
            Some(ratios(&a, &b)?)
        }
    })
}

fn compare_flonum<E>(
    a: f64,
    b: &Number,
    ratios: impl Fn(&BigRational, &BigRational) -> std::result::Result<Ordering, E>,
) -> std::result::Result<Option<Ordering>, E> {
    Ok(match b {
        Number::Flonum(b) => a.partial_cmp(b),
        Number::Small(b) if b.abs() <= EXACT_IN_FLONUM => a.partial_cmp(&(*b as f64)),
        _ if a.is_nan() => None,
        _ if a.is_infinite() => Some(if a > 0.0 { Ordering::Greater } else { Ordering::Less }),
        b => match (Number::Flonum(a).to_ratio(), b.to_ratio()) {
            (Some(a), Some(b)) => Some(ratios(&a, &b)?),
            _ => None,
        },
    })
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
    let inexact = x_inexact || y_inexact;
    if large::is_quotient_short(&x, &y) {
        let result = match division {
            Division::Quotient => x / y,
            Division::Remainder => x % y,
            Division::FloorQuotient => x.div_floor(&y),
            Division::Modulo => x.mod_floor(&y),
        };
        return integer_result(result, inexact).encode(mem);
    }
    perform(mem, Length::Long, move |watch| {
        let result = match division {
            Division::Quotient => large::div_rem(watch, &x, &y)?.0,
            Division::Remainder => large::div_rem(watch, &x, &y)?.1,
            Division::FloorQuotient => large::div_mod(watch, &x, &y)?.0,
            Division::Modulo => large::div_mod(watch, &x, &y)?.1,
        };
        Ok(integer_result(result, inexact).into())
    })
}

fn integer_result(result: BigInt, inexact: bool) -> Number {
    if inexact { Number::Flonum(super::big_to_f64(&result)) } else { Number::Big(result) }
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
    f: fn(&Watch<'_>, &BigInt, &BigInt) -> std::result::Result<BigInt, Stopped>,
) -> Result<'m> {
    let mut inexact = false;
    let mut integers = Vec::with_capacity(values.len());
    for &value in values {
        let (integer, was_inexact) = integer(mem, value)?;
        integers.push(integer);
        inexact |= was_inexact;
    }
    let bits: u64 = integers.iter().map(BigInt::bits).sum();
    perform(mem, long::fraction(bits), move |watch| {
        let mut result = BigInt::from(start);
        for integer in integers {
            watch.look()?;
            result = f(watch, &result, &integer)?;
        }
        Ok(integer_result(result, inexact).into())
    })
}

/// `(gcd a ...)`
pub fn gcd<'m>(mem: Mem<'m, '_>, values: &[Value<'m>]) -> Result<'m> {
    if let [a, b] = values
        && let (Some(a), Some(b)) = (a.as_fixnum(), b.as_fixnum())
    {
        return encode_small(mem, a.gcd(&b));
    }
    fold_integers(mem, values, 0, large::gcd)
}

/// `(lcm a ...)`
pub fn lcm<'m>(mem: Mem<'m, '_>, values: &[Value<'m>]) -> Result<'m> {
    fold_integers(mem, values, 1, |watch, a, b| {
        if a.is_zero() || b.is_zero() {
            return Ok(BigInt::zero());
        }
        let common = large::gcd(watch, a, b)?;
        let a = if common.is_one() { a.clone() } else { large::div_rem(watch, a, &common)?.0 };
        Ok(large::mul(watch, &a, b)?.abs())
    })
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
