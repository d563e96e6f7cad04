//! Exact and inexact; rounding; the simplest rational.

use super::large::{Stopped, Watch, div_mod, div_rem, is_quotient_short, mul};
use super::long::{self, long_if, perform};
use super::{Number, encode_big, fractions, number, ratio_to_f64};
use crate::mem::Mem;
use crate::trap::{Result, error, wrong_type};
use crate::value::Value;
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

/// `(exact z)`
pub fn exact<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m> {
    match number(mem, value)? {
        Number::Flonum(flonum) => {
            if flonum.fract() == 0.0 && flonum.abs() < 1e15 {
                return Ok(Value::fixnum(flonum as i64));
            }
            let ratio = Number::Flonum(flonum).to_ratio();
            let ratio = ratio.ok_or_else(|| error("no exact number has this value", &[value]))?;
            Number::Ratio(ratio).encode(mem)
        }
        _ => Ok(value),
    }
}

/// `(inexact z)`
pub fn inexact<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m> {
    if let Some(fixnum) = value.as_fixnum() {
        return mem.flonum(fixnum as f64);
    }
    match number(mem, value)? {
        Number::Flonum(_) => Ok(value),
        other => mem.flonum(other.to_f64()),
    }
}

/// A way to round to an integer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rounding {
    /// Down.
    Floor,
    /// Up.
    Ceiling,
    /// Towards zero.
    Truncate,
    /// To the nearest, ties to even.
    Round,
}

/// `(floor x)` and its like.
pub fn round<'m>(mem: Mem<'m, '_>, rounding: Rounding, value: Value<'m>) -> Result<'m> {
    if value.is_fixnum() {
        return Ok(value);
    }
    match number(mem, value)? {
        Number::Flonum(flonum) => mem.flonum(match rounding {
            Rounding::Floor => flonum.floor(),
            Rounding::Ceiling => flonum.ceil(),
            Rounding::Truncate => flonum.trunc(),
            Rounding::Round => flonum.round_ties_even(),
        }),
        Number::Ratio(ratio) => {
            let length = long_if(!is_quotient_short(ratio.numer(), ratio.denom()));
            perform(mem, length, move |watch| Ok(round_ratio(watch, &ratio, rounding)?.into()))
        }
        _ => Ok(value),
    }
}

fn round_ratio(
    watch: &Watch<'_>,
    ratio: &BigRational,
    rounding: Rounding,
) -> std::result::Result<BigInt, Stopped> {
    match rounding {
        Rounding::Floor => fractions::floor(watch, ratio),
        Rounding::Ceiling => fractions::floor(watch, &-ratio).map(|floor| -floor),
        Rounding::Truncate => Ok(div_rem(watch, ratio.numer(), ratio.denom())?.0),
        Rounding::Round => fractions::round(watch, ratio),
    }
}

/// `(numerator q)` or `(denominator q)`
pub fn part<'m>(mem: Mem<'m, '_>, numerator: bool, value: Value<'m>) -> Result<'m> {
    let decoded = number(mem, value)?;
    let ratio = decoded.to_ratio().ok_or_else(|| wrong_type("a rational number", value))?;
    let part = if numerator { ratio.numer() } else { ratio.denom() };
    if decoded.is_exact() { encode_big(mem, part) } else { mem.flonum(super::big_to_f64(part)) }
}

/// The rational with the least denominator, then the least numerator, in [low, high].
fn simplest(
    watch: &Watch<'_>,
    low: BigRational,
    high: BigRational,
) -> std::result::Result<BigRational, Stopped> {
    if low.is_positive() {
        simplest_positive(watch, low, high)
    } else if high.is_negative() {
        Ok(-simplest_positive(watch, -high, -low)?)
    } else {
        Ok(BigRational::zero())
    }
}

/// Goes down the continued fractions of both ends as long as they agree. A loop, as they may be long.
fn simplest_positive(
    watch: &Watch<'_>,
    mut low: BigRational,
    mut high: BigRational,
) -> std::result::Result<BigRational, Stopped> {
    // What remains of a number without its integer part, upside down: still in lowest terms.
    let rest =
        |number: &BigRational, rest: BigInt| BigRational::new_raw(number.denom().clone(), rest);
    let mut terms = Vec::new();
    let last = loop {
        watch.look()?;
        let (floor, low_rest) = div_mod(watch, low.numer(), low.denom())?;
        if low.is_integer() {
            break floor;
        }
        let (high_floor, high_rest) = div_mod(watch, high.numer(), high.denom())?;
        if floor < high_floor {
            break floor + BigInt::one();
        }
        (low, high) = (rest(&high, high_rest), rest(&low, low_rest));
        terms.push(floor);
    };
    // term + 1 / (n / d) = (term * n + d) / n, in lowest terms if n / d is.
    let (mut numerator, mut denominator) = (last, BigInt::one());
    for term in terms.into_iter().rev() {
        watch.look()?;
        let next = mul(watch, &term, &numerator)? + &denominator;
        (numerator, denominator) = (next, numerator);
    }
    Ok(BigRational::new_raw(numerator, denominator))
}

/// `(rationalize x y)`
pub fn rationalize<'m>(mem: Mem<'m, '_>, x: Value<'m>, y: Value<'m>) -> Result<'m> {
    let (a, b) = (number(mem, x)?, number(mem, y)?);
    let exact = a.is_exact() && b.is_exact();
    let (Some(center), Some(width)) = (a.to_ratio(), b.to_ratio()) else {
        let (a, b) = (a.to_f64(), b.to_f64());
        return mem.flonum(match (a.is_infinite(), b.is_infinite()) {
            (true, false) if !b.is_nan() => a,
            (false, true) if !a.is_nan() => 0.0,
            _ => f64::NAN,
        });
    };
    let length = long::fraction(a.bits() + b.bits());
    perform(mem, length, move |watch| {
        let width = width.abs();
        let low = fractions::sub(watch, &center, &width)?;
        let high = fractions::add(watch, &center, &width)?;
        let result = simplest(watch, low, high)?;
        let inexact = (!exact).then(|| Number::Flonum(ratio_to_f64(&result)));
        Ok(inexact.unwrap_or(Number::Ratio(result)).into())
    })
}
