//! Exact and inexact; rounding; the simplest rational.

use super::{Number, encode_big, number, ratio_to_f64};
use crate::mem::Mem;
use crate::trap::{Result, error, wrong_type};
use crate::value::Value;
use num_bigint::BigInt;
use num_integer::Integer;
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
        Number::Ratio(ratio) => encode_big(mem, &round_ratio(&ratio, rounding)),
        _ => Ok(value),
    }
}

fn round_ratio(ratio: &BigRational, rounding: Rounding) -> BigInt {
    let floor = ratio.numer().div_floor(ratio.denom());
    match rounding {
        Rounding::Floor => floor,
        Rounding::Ceiling => -((-ratio.numer()).div_floor(ratio.denom())),
        Rounding::Truncate => ratio.numer() / ratio.denom(),
        Rounding::Round => {
            let twice: BigInt = (ratio.numer() - &floor * ratio.denom()) * 2;
            let up = match twice.cmp(ratio.denom()) {
                std::cmp::Ordering::Less => false,
                std::cmp::Ordering::Greater => true,
                std::cmp::Ordering::Equal => floor.is_odd(),
            };
            if up { floor + BigInt::one() } else { floor }
        }
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
fn simplest(low: &BigRational, high: &BigRational) -> BigRational {
    if low.is_positive() {
        simplest_positive(low.clone(), high.clone())
    } else if high.is_negative() {
        -simplest_positive(-high.clone(), -low.clone())
    } else {
        BigRational::zero()
    }
}

/// Goes down the continued fractions of both ends as long as they agree. A loop, as they may be long.
fn simplest_positive(mut low: BigRational, mut high: BigRational) -> BigRational {
    let mut terms = Vec::new();
    let last = loop {
        let floor = low.numer().div_floor(low.denom());
        if low.is_integer() {
            break floor;
        }
        if floor < high.numer().div_floor(high.denom()) {
            break floor + BigInt::one();
        }
        let whole = BigRational::from_integer(floor.clone());
        let next = ((high - &whole).recip(), (low - &whole).recip());
        terms.push(whole);
        (low, high) = next;
    };
    terms.into_iter().rev().fold(BigRational::from_integer(last), |rest, term| term + rest.recip())
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
    let width = width.abs();
    let result = simplest(&(&center - &width), &(&center + &width));
    if exact { Number::Ratio(result).encode(mem) } else { mem.flonum(ratio_to_f64(&result)) }
}
