//! Arithmetic on exact fractions, interruptible.
//!
//! As the library's, but with the products, quotients and common divisors of [`super::large`], where nearly all of the
//! time goes. Fractions come and go in lowest terms with a positive denominator.

use super::large;
use super::large::{Stopped, Watch, div_mod, div_rem, gcd, mul, work};
use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed};
use std::cmp::Ordering;

/// The fraction `numerator / denominator`; the denominator is not zero.
pub fn reduced(
    watch: &Watch<'_>,
    numerator: BigInt,
    denominator: BigInt,
) -> Result<BigRational, Stopped> {
    let common = gcd(watch, &numerator, &denominator)?;
    let (mut numerator, mut denominator) = if common.is_one() {
        (numerator, denominator)
    } else {
        (div_rem(watch, &numerator, &common)?.0, div_rem(watch, &denominator, &common)?.0)
    };
    if denominator.is_negative() {
        (numerator, denominator) = (-numerator, -denominator);
    }
    Ok(BigRational::new_raw(numerator, denominator))
}

/// `a + b`
pub fn add(watch: &Watch<'_>, a: &BigRational, b: &BigRational) -> Result<BigRational, Stopped> {
    with_common_denominator(watch, a, b, |a, b| a + b)
}

/// `a - b`
pub fn sub(watch: &Watch<'_>, a: &BigRational, b: &BigRational) -> Result<BigRational, Stopped> {
    with_common_denominator(watch, a, b, |a, b| a - b)
}

/// What the numerators come to, over the common denominator.
fn with_common_denominator(
    watch: &Watch<'_>,
    a: &BigRational,
    b: &BigRational,
    numerators: fn(BigInt, BigInt) -> BigInt,
) -> Result<BigRational, Stopped> {
    let (left, right) = (mul(watch, a.numer(), b.denom())?, mul(watch, b.numer(), a.denom())?);
    reduced(watch, numerators(left, right), mul(watch, a.denom(), b.denom())?)
}

/// `a * b`
pub fn product(
    watch: &Watch<'_>,
    a: &BigRational,
    b: &BigRational,
) -> Result<BigRational, Stopped> {
    let numerator = mul(watch, a.numer(), b.numer())?;
    reduced(watch, numerator, mul(watch, a.denom(), b.denom())?)
}

/// `a / b`; `b` is not zero.
pub fn quotient(
    watch: &Watch<'_>,
    a: &BigRational,
    b: &BigRational,
) -> Result<BigRational, Stopped> {
    let numerator = mul(watch, a.numer(), b.denom())?;
    reduced(watch, numerator, mul(watch, a.denom(), b.numer())?)
}

/// How `a` compares to `b`.
pub fn compare(watch: &Watch<'_>, a: &BigRational, b: &BigRational) -> Result<Ordering, Stopped> {
    if let Some(order) = compare_at_once(a, b) {
        return Ok(order);
    }
    let left = mul(watch, a.numer(), b.denom())?;
    Ok(left.cmp(&mul(watch, b.numer(), a.denom())?))
}

/// The same, unless it takes long: if both are large and nearly equal, but not quite.
pub fn compare_at_once(a: &BigRational, b: &BigRational) -> Option<Ordering> {
    /// Of numbers below this size multiplying is no slower than anything else.
    const SMALL: u64 = large::PRODUCT >> 20;
    let sides = [(a.numer(), b.denom()), (b.numer(), a.denom())];
    let most = sides.iter().map(|(x, y)| work(x.bits(), y.bits())).max();
    let multiplied = || {
        let [(x, y), (z, w)] = sides;
        (x * y).cmp(&(z * w))
    };
    if most <= Some(SMALL) {
        return Some(multiplied());
    }
    let signs = a.numer().sign().cmp(&b.numer().sign());
    if signs != Ordering::Equal {
        return Some(signs);
    }
    // They are in lowest terms.
    if a.numer() == b.numer() && a.denom() == b.denom() {
        return Some(Ordering::Equal);
    }
    let [left, right] = sides.map(|(x, y)| upper(x, y));
    let magnitudes = if left.1 <= right.0 {
        Ordering::Less
    } else if right.1 <= left.0 {
        Ordering::Greater
    } else {
        return (most <= Some(large::PRODUCT)).then(multiplied);
    };
    Some(if a.is_negative() { magnitudes.reverse() } else { magnitudes })
}

/// What the magnitude of a product is not below, and what it is below: by the upper bits of its factors.
fn upper(a: &BigInt, b: &BigInt) -> (BigInt, BigInt) {
    const BITS: u64 = 64;
    let cut = |number: &BigInt| number.bits().saturating_sub(BITS);
    let top = |number: &BigInt| BigInt::from(number.magnitude() >> cut(number));
    let (x, y) = (top(a), top(b));
    let (low, high) = (&x * &y, (x + 1) * (y + 1));
    // As mantissa and exponent, which compare as numbers once the exponent has been put above the mantissa.
    let exponent = cut(a) + cut(b);
    let with_exponent = |number: BigInt| {
        let bits = number.bits();
        let mantissa: BigInt = number << (3 * BITS - bits);
        (BigInt::from(exponent + bits) << (4 * BITS)) + mantissa
    };
    (with_exponent(low), with_exponent(high))
}

/// The integer below, or the one of the fraction if it is one.
pub fn floor(watch: &Watch<'_>, number: &BigRational) -> Result<BigInt, Stopped> {
    Ok(div_mod(watch, number.numer(), number.denom())?.0)
}

/// The nearest integer, ties to even.
pub fn round(watch: &Watch<'_>, number: &BigRational) -> Result<BigInt, Stopped> {
    let (floor, rest) = div_mod(watch, number.numer(), number.denom())?;
    let twice: BigInt = rest << 1;
    let up = match twice.cmp(number.denom()) {
        Ordering::Less => false,
        Ordering::Greater => true,
        Ordering::Equal => floor.is_odd(),
    };
    Ok(if up { floor + 1 } else { floor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_compute_as_those_of_the_library() {
        let watch = Watch::NOBODY;
        let mut state = 7u64;
        let mut some = || {
            let mut next = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                state >> 33
            };
            let (bits, other) = (next() % 40_000 + 1, next() % 40_000 + 1);
            let numerator = (BigInt::one() << bits) - next();
            let numerator = if next() % 2 == 0 { numerator } else { -numerator };
            BigRational::new(numerator, (BigInt::one() << other) + next())
        };
        for _ in 0..20 {
            let (a, b) = (some(), some());
            assert_eq!(add(&watch, &a, &b), Ok(&a + &b));
            assert_eq!(sub(&watch, &a, &b), Ok(&a - &b));
            assert_eq!(product(&watch, &a, &b), Ok(&a * &b));
            assert_eq!(quotient(&watch, &a, &b), Ok(&a / &b));
            assert_eq!(floor(&watch, &a), Ok(a.floor().to_integer()));
            // Nearly equal, equal, and of either sign.
            let step = BigRational::new(BigInt::one(), BigInt::one() << 60_000);
            for other in [&a + &step, &a - step, a.clone(), -&a, b] {
                assert_eq!(compare(&watch, &a, &other), Ok(a.cmp(&other)));
            }
        }
        for (n, d, wanted) in
            [(5, 2, 2), (7, 2, 4), (-5, 2, -2), (-7, 2, -4), (8, 3, 3), (-8, 3, -3)]
        {
            assert_eq!(round(&watch, &BigRational::new(n.into(), d.into())), Ok(wanted.into()));
        }
    }
}
