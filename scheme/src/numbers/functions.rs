//! Powers, roots, exponentials, logarithms, trigonometry.
//!
//! An exact argument gives an exact result where there is one that needs no search: powers, roots of squares,
//! `(exp 0)`, `(sin 0)` and their like.

use super::large::{self, Stopped, Watch};
use super::long::{Answer, long_if, perform};
use super::{Number, big_to_f64, exact_integer, most_bits, number};
use crate::mem::Mem;
use crate::trap::{Result, wrong_type};
use crate::value::Value;
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};

/// The root of an exact number that is a square.
fn exact_root(watch: &Watch<'_>, number: &BigInt) -> std::result::Result<Option<BigInt>, Stopped> {
    if number.is_negative() {
        return Ok(None);
    }
    let root = large::sqrt(watch, number)?;
    Ok((large::mul(watch, &root, &root)? == *number).then_some(root))
}

/// `(sqrt z)`: exact for squares of exact numbers.
pub fn sqrt<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m> {
    if let Some(flonum) = value.as_flonum() {
        return mem.flonum(flonum.sqrt());
    }
    let number = number(mem, value)?;
    perform(mem, long_if(number.bits() > large::ROOT), move |watch| Ok(root(watch, number)?.into()))
}

fn root(watch: &Watch<'_>, number: Number) -> std::result::Result<Number, Stopped> {
    Ok(match number {
        Number::Flonum(flonum) => Number::Flonum(flonum.sqrt()),
        Number::Ratio(ratio) => {
            match (exact_root(watch, ratio.numer())?, exact_root(watch, ratio.denom())?) {
                (Some(numerator), Some(denominator)) => {
                    Number::Ratio(BigRational::new_raw(numerator, denominator))
                }
                _ => Number::Flonum(super::ratio_to_f64(&ratio).sqrt()),
            }
        }
        other => {
            let integer = other.to_integer().expect("an exact integer");
            match exact_root(watch, &integer)? {
                Some(root) => Number::Big(root),
                None if integer.is_negative() => Number::Flonum(f64::NAN),
                // Beyond the range of flonums the root is not: its integer part has more bits than a flonum.
                None if integer.bits() > 128 => {
                    Number::Flonum(big_to_f64(&large::sqrt(watch, &integer)?))
                }
                None => Number::Flonum(big_to_f64(&integer).sqrt()),
            }
        }
    })
}

/// The first value of `(exact-integer-sqrt k)`.
pub fn integer_sqrt<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m> {
    let integer = exact_integer(mem, value)?;
    if integer.is_negative() {
        return Err(wrong_type("an exact non-negative integer", value));
    }
    perform(mem, long_if(integer.bits() > large::ROOT), move |watch| {
        Ok(large::sqrt(watch, &integer)?.into())
    })
}

/// Bits of `base` to the power of a non-negative integer, or a few less.
fn bits_of_power(base: &BigInt, exponent: u64) -> u64 {
    base.bits().saturating_sub(1).saturating_mul(exponent)
}

/// `(expt z1 z2)`
pub fn expt<'m>(mem: Mem<'m, '_>, base: Value<'m>, exponent: Value<'m>) -> Result<'m> {
    let (b, e) = (number(mem, base)?, number(mem, exponent)?);
    let integer_exponent = match &e {
        Number::Small(_) | Number::Big(_) => e.to_integer(),
        _ => None,
    };
    match (&b, integer_exponent) {
        (Number::Flonum(b), Some(e)) => {
            let result = match e.to_i32() {
                Some(e) => power_of_flonum(*b, e),
                None => b.powf(big_to_f64(&e)),
            };
            mem.flonum(result)
        }
        (_, Some(e)) => {
            let ratio = b.to_ratio().expect("exact");
            let magnitude = match e.magnitude().to_u64() {
                Some(magnitude) => magnitude,
                // Too large for anything but the powers of 0, 1 and -1.
                None => 2 + (e.magnitude() % 2u32).to_u64().expect("0 or 1") + (1 << 62),
            };
            if ratio.is_zero() {
                return match e.sign() {
                    num_bigint::Sign::NoSign => Ok(Value::fixnum(1)),
                    num_bigint::Sign::Plus => Ok(Value::fixnum(0)),
                    num_bigint::Sign::Minus => Err(super::arithmetic::division_by_zero(base)),
                };
            }
            let bits = [ratio.numer(), ratio.denom()].map(|part| bits_of_power(part, magnitude));
            let most = bits[0].max(bits[1]);
            if most > most_bits(mem) {
                return Err(super::too_large());
            }
            let is_inverse = e.is_negative();
            // The last product is of two numbers of half as many bits.
            let length = long_if(large::work(most / 2, most / 2) > large::PRODUCT);
            perform(mem, length, move |watch| {
                let numerator = large::power(watch, ratio.numer(), magnitude)?;
                if ratio.is_integer() && !is_inverse {
                    return Ok(numerator.into());
                }
                let denominator = large::power(watch, ratio.denom(), magnitude)?;
                let result = match (is_inverse, numerator.is_negative()) {
                    (false, _) => BigRational::new_raw(numerator, denominator),
                    (true, false) => BigRational::new_raw(denominator, numerator),
                    (true, true) => BigRational::new_raw(-denominator, -numerator),
                };
                Ok(Answer::Number(Number::Ratio(result)))
            })
        }
        (_, None) => {
            // (expt 4 1/2) is exact where the root is.
            if let (true, Number::Ratio(e)) = (b.is_exact(), &e)
                && *e == BigRational::new_raw(1.into(), 2.into())
            {
                return sqrt(mem, base);
            }
            if !e.is_exact() && b == Number::Small(0) {
                return if e.to_f64() > 0.0 {
                    Ok(Value::fixnum(0))
                } else {
                    mem.flonum(0f64.powf(e.to_f64()))
                };
            }
            mem.flonum(b.to_f64().powf(e.to_f64()))
        }
    }
}

/// A flonum to an integer power: `powf` is the more exact one where both are exact integers.
fn power_of_flonum(base: f64, exponent: i32) -> f64 {
    base.powf(exponent as f64)
}

/// The natural logarithm of a positive exact integer, however large.
fn ln_of_big(number: &BigInt) -> f64 {
    let shift = number.bits().saturating_sub(1000);
    let top: BigInt = number >> shift;
    big_to_f64(&top).ln() + shift as f64 * std::f64::consts::LN_2
}

fn ln(number: &Number) -> f64 {
    match number {
        Number::Big(big) if big.is_positive() => ln_of_big(big),
        Number::Ratio(ratio) if ratio.is_positive() => {
            let value = super::ratio_to_f64(ratio);
            if value.is_normal() {
                value.ln()
            } else {
                ln_of_big(ratio.numer()) - ln_of_big(ratio.denom())
            }
        }
        other => other.to_f64().ln(),
    }
}

/// `(log z)` or `(log z base)`
pub fn log<'m>(mem: Mem<'m, '_>, value: Value<'m>, base: Option<Value<'m>>) -> Result<'m> {
    let number_ = number(mem, value)?;
    let Some(base) = base else {
        if number_ == Number::Small(1) {
            return Ok(Value::fixnum(0));
        }
        return mem.flonum(ln(&number_));
    };
    let base = number(mem, base)?;
    let result = match base.to_f64() {
        2.0 if matches!(number_, Number::Small(_) | Number::Flonum(_)) => number_.to_f64().log2(),
        10.0 if matches!(number_, Number::Small(_) | Number::Flonum(_)) => number_.to_f64().log10(),
        _ => ln(&number_) / ln(&base),
    };
    mem.flonum(result)
}

/// A function of one variable: its native form, and its exact value at one exact place.
#[derive(Clone, Copy)]
pub struct Function {
    native: fn(f64) -> f64,
    exact: (i64, i64),
}

/// `(exp z)`
pub const EXP: Function = Function { native: f64::exp, exact: (0, 1) };
/// `(sin z)`
pub const SIN: Function = Function { native: f64::sin, exact: (0, 0) };
/// `(cos z)`
pub const COS: Function = Function { native: f64::cos, exact: (0, 1) };
/// `(tan z)`
pub const TAN: Function = Function { native: f64::tan, exact: (0, 0) };
/// `(asin z)`
pub const ASIN: Function = Function { native: f64::asin, exact: (0, 0) };
/// `(acos z)`
pub const ACOS: Function = Function { native: f64::acos, exact: (1, 0) };
/// `(atan z)`
pub const ATAN: Function = Function { native: f64::atan, exact: (0, 0) };

/// Applies a function.
pub fn apply<'m>(mem: Mem<'m, '_>, function: Function, value: Value<'m>) -> Result<'m> {
    if let Some(flonum) = value.as_flonum() {
        return mem.flonum((function.native)(flonum));
    }
    if value.as_fixnum() == Some(function.exact.0) {
        return Ok(Value::fixnum(function.exact.1));
    }
    mem.flonum((function.native)(number(mem, value)?.to_f64()))
}

/// `(atan y x)`
pub fn atan2<'m>(mem: Mem<'m, '_>, y: Value<'m>, x: Value<'m>) -> Result<'m> {
    let (a, b) = (number(mem, y)?, number(mem, x)?);
    if a == Number::Small(0) && b.is_exact() {
        if b.signum() > 0 {
            return Ok(Value::fixnum(0));
        }
        if b.signum() == 0 {
            return Err(super::arithmetic::division_by_zero(y));
        }
    }
    mem.flonum(a.to_f64().atan2(b.to_f64()))
}
