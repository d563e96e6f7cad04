//! Arithmetic on numbers of megabytes, in pieces.
//!
//! The library computes a product, a quotient or a text in one go, which for such numbers takes seconds to hours. Here
//! the same is put together from operations that the library does in some 20 ms each, and between two of them a
//! [`Watch`] is asked whether somebody still wants the result. So whoever computes can end at once, leaves nothing
//! behind that computes on, and needs no thread beside its own.
//!
//! The divisions into pieces are the known ones: Toom and Cook's for products (in three), Burnikel and Ziegler's for
//! quotients, Zimmermann's for roots, halves for texts. What is small enough goes straight to the library; of small
//! numbers only the sizes are looked at.
//!
//! Everything here is in native memory. Callers are the other files of [`super`]; in which part of a program's run
//! they call is [`super::long`]'s business.

use num_bigint::{BigInt, BigUint, Sign};
use num_integer::Integer;
use num_traits::{One, Signed, Zero};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Nobody wants the result any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// There is no result, of what can also be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished<E> {
    /// This is wrong.
    Wrong(E),
    /// Nobody wants it any more.
    Stopped,
}

impl<E> Unfinished<E> {
    /// What is wrong.
    ///
    /// # Errors
    /// If it was stopped.
    ///
    /// # Examples
    /// ```
    /// use firn_scheme::numbers::large::{Stopped, Unfinished};
    ///
    /// assert_eq!(Unfinished::Wrong("a digit").wrong(), Ok("a digit"));
    /// assert_eq!(Unfinished::<&str>::from(Stopped).wrong(), Err(Stopped));
    /// ```
    pub fn wrong(self) -> Result<E, Stopped> {
        match self {
            Unfinished::Wrong(error) => Ok(error),
            Unfinished::Stopped => Err(Stopped),
        }
    }
}

impl<E> From<Stopped> for Unfinished<E> {
    fn from(_: Stopped) -> Unfinished<E> {
        Unfinished::Stopped
    }
}

/// Whoever may end a computation: a flag each.
#[derive(Clone, Copy)]
pub struct Watch<'a>(&'a [&'a AtomicBool]);

impl<'a> Watch<'a> {
    /// Nobody may.
    pub const NOBODY: Watch<'static> = Watch(&[]);

    /// Ends when one of the flags is set.
    pub fn on(flags: &'a [&'a AtomicBool]) -> Watch<'a> {
        Watch(flags)
    }

    /// Asks.
    ///
    /// # Errors
    /// If the computation is to end.
    pub fn look(&self) -> Result<(), Stopped> {
        if self.0.iter().any(|flag| flag.load(Relaxed)) { Err(Stopped) } else { Ok(()) }
    }
}

/// What the library does in one go. Products and quotients: the bits of the one times the bits of the other. Measured
/// with num-bigint 0.4.8 on a machine on which these take 6, 12, 32, 18 and 20 ms.
pub const PRODUCT: u64 = 1 << 38;
/// Divisor and quotient.
pub const QUOTIENT: u64 = 1 << 37;
/// Both numbers.
pub const GCD: u64 = 1 << 32;
/// Bits of a number whose digits are wanted in a radix that is no power of two, or that is made of such.
pub const DIGITS: u64 = 1 << 19;
/// Bits of a number whose root is wanted.
pub const ROOT: u64 = 1 << 18;

/// Bits of one times bits of the other.
pub fn work(a: u64, b: u64) -> u64 {
    a.saturating_mul(b)
}

/// `a * b`
pub fn mul(watch: &Watch<'_>, a: &BigInt, b: &BigInt) -> Result<BigInt, Stopped> {
    let (a, b) = if a.bits() < b.bits() { (b, a) } else { (a, b) };
    if work(a.bits(), b.bits()) <= PRODUCT {
        return Ok(a * b);
    }
    watch.look()?;
    if a.bits() >= 2 * b.bits() {
        let half = a.bits() / 2;
        let (high, low) = halves(a, half);
        return Ok((mul(watch, &high, b)? << half) + mul(watch, &low, b)?);
    }
    let third = a.bits().div_ceil(3);
    let parts = |number: &BigInt| {
        let (rest, p0) = halves(number, third);
        let (p2, p1) = halves(&rest, third);
        [p0, p1, p2]
    };
    // The values at 0, 1, -1, -2 and infinity.
    let points = |[p0, p1, p2]: [BigInt; 3]| {
        let even = &p0 + &p2;
        let minus_one = &even - &p1;
        let minus_two: BigInt = ((&minus_one + &p2) << 1) - &p0;
        [p0, even + p1, minus_one, minus_two, p2]
    };
    let (p, q) = (points(parts(a)), points(parts(b)));
    let at = |index: usize| mul(watch, &p[index], &q[index]);
    let (zero, one, minus_one, minus_two, infinity) = (at(0)?, at(1)?, at(2)?, at(3)?, at(4)?);
    let third_part = (minus_two - &one) / 3;
    let first_part: BigInt = (one - &minus_one) >> 1;
    let second_part = minus_one - &zero;
    let r3 = ((&second_part - third_part) >> 1) + (&infinity << 1);
    let r2 = second_part + &first_part - &infinity;
    let r1 = first_part - &r3;
    let mut product = infinity;
    for part in [r3, r2, r1, zero] {
        product = (product << third) + part;
    }
    Ok(product)
}

/// A number as `high * 2^bits + low`, where `low` has its sign.
fn halves(number: &BigInt, bits: u64) -> (BigInt, BigInt) {
    let (high, low) = cut(number.magnitude(), bits);
    let sign = number.sign();
    (BigInt::from_biguint(sign, high), BigInt::from_biguint(sign, low))
}

fn cut(number: &BigUint, bits: u64) -> (BigUint, BigUint) {
    let high: BigUint = number >> bits;
    // The lowest bits, without a mask of their length.
    let whole = (bits / 32) as usize;
    let mut digits: Vec<u32> = number.iter_u32_digits().take(whole + 1).collect();
    if let Some(last) = digits.get_mut(whole) {
        *last &= (1 << (bits % 32)) - 1;
    }
    (high, BigUint::new(digits))
}

fn natural(number: BigUint) -> BigInt {
    BigInt::from_biguint(Sign::Plus, number)
}

fn mul_natural(watch: &Watch<'_>, a: &BigUint, b: &BigUint) -> Result<BigUint, Stopped> {
    if work(a.bits(), b.bits()) <= PRODUCT {
        return Ok(a * b);
    }
    Ok(mul(watch, &natural(a.clone()), &natural(b.clone()))?.into_parts().1)
}

/// Quotient and remainder, truncated. `b` is not zero.
pub fn div_rem(watch: &Watch<'_>, a: &BigInt, b: &BigInt) -> Result<(BigInt, BigInt), Stopped> {
    if is_quotient_short(a, b) {
        return Ok(a.div_rem(b));
    }
    let (quotient, rest) = divide(watch, a.magnitude().clone(), b.magnitude())?;
    let sign = if a.sign() == b.sign() { Sign::Plus } else { Sign::Minus };
    Ok((BigInt::from_biguint(sign, quotient), BigInt::from_biguint(a.sign(), rest)))
}

/// As [`div_rem`], rounded down.
pub fn div_mod(watch: &Watch<'_>, a: &BigInt, b: &BigInt) -> Result<(BigInt, BigInt), Stopped> {
    let (quotient, rest) = div_rem(watch, a, b)?;
    if !rest.is_zero() && rest.is_negative() != b.is_negative() {
        return Ok((quotient - 1, rest + b));
    }
    Ok((quotient, rest))
}

/// Whether the library divides these in one go.
pub fn is_quotient_short(a: &BigInt, b: &BigInt) -> bool {
    work((a.bits() + 1).saturating_sub(b.bits()), b.bits()) <= QUOTIENT
}

fn divide(watch: &Watch<'_>, a: BigUint, b: &BigUint) -> Result<(BigUint, BigUint), Stopped> {
    if a < *b {
        return Ok((BigUint::ZERO, a));
    }
    let wanted = a.bits() - b.bits() + 1;
    if work(wanted, b.bits()) <= QUOTIENT {
        return Ok(a.div_rem(b));
    }
    watch.look()?;
    if 2 * wanted > b.bits() {
        // The quotient's halves, one after the other.
        let half = wanted / 2;
        let (high, low) = cut(&a, half);
        let (first, rest) = divide(watch, high, b)?;
        let (second, rest) = divide(watch, (rest << half) + low, b)?;
        return Ok(((first << half) + second, rest));
    }
    // The upper bits of both give the quotient, or a little more: less than one for what is cut off the divisor.
    let cut_off = b.bits() - wanted - 1;
    let (a_high, a_low) = cut(&a, cut_off);
    let (b_high, b_low) = cut(b, cut_off);
    let (mut quotient, rest) = divide(watch, a_high, &b_high)?;
    let product = mul_natural(watch, &quotient, &b_low)?;
    let mut rest = natural((rest << cut_off) + a_low) - natural(product);
    while rest.is_negative() {
        quotient -= 1u32;
        rest += natural(b.clone());
    }
    Ok((quotient, rest.into_parts().1))
}

/// The integer part of the root of a number that is not negative.
pub fn sqrt(watch: &Watch<'_>, number: &BigInt) -> Result<BigInt, Stopped> {
    if number.bits() <= ROOT {
        return Ok(number.sqrt());
    }
    Ok(root_and_rest(watch, number)?.0)
}

fn root_and_rest(watch: &Watch<'_>, number: &BigInt) -> Result<(BigInt, BigInt), Stopped> {
    if number.bits() <= ROOT {
        let root = number.sqrt();
        let rest = number - &root * &root;
        return Ok((root, rest));
    }
    watch.look()?;
    let quarter = (number.bits() - 1) / 4;
    let (high, lowest) = halves(number, quarter);
    let (high, low) = halves(&high, quarter);
    let (root, rest) = root_and_rest(watch, &high)?;
    let (quotient, rest) = div_rem(watch, &((rest << quarter) + low), &(&root << 1))?;
    let mut root = (root << quarter) + &quotient;
    let mut rest = (rest << quarter) + lowest - mul(watch, &quotient, &quotient)?;
    while rest.is_negative() {
        root -= 1;
        rest += (&root << 1) + 1;
    }
    Ok((root, rest))
}

/// The greatest common divisor: the binary algorithm, of which each step takes no longer than one pass over the numbers.
pub fn gcd(watch: &Watch<'_>, a: &BigInt, b: &BigInt) -> Result<BigInt, Stopped> {
    /// Where the sizes differ by more, one division spares as many steps.
    const FAR: u64 = 128;
    let (mut a, mut b) = (a.magnitude().clone(), b.magnitude().clone());
    loop {
        if a.bits() < b.bits() {
            (a, b) = (b, a);
        }
        if b.is_zero() {
            return Ok(natural(a));
        }
        if a.bits() - b.bits() <= FAR {
            break;
        }
        (a, b) = (b.clone(), divide(watch, a, &b)?.1);
    }
    if work(a.bits(), b.bits()) <= GCD {
        return Ok(natural(a.gcd(&b)));
    }
    let zeros = |number: &BigUint| number.trailing_zeros().unwrap_or(0);
    let common = zeros(&a).min(zeros(&b));
    a >>= zeros(&a);
    while !b.is_zero() {
        watch.look()?;
        b >>= zeros(&b);
        if a > b {
            std::mem::swap(&mut a, &mut b);
        }
        if a.is_one() {
            break;
        }
        b -= &a;
    }
    Ok(natural(a << common))
}

/// A power. The caller knows that the result is not too large.
pub fn power(watch: &Watch<'_>, base: &BigInt, exponent: u64) -> Result<BigInt, Stopped> {
    /// Of powers with fewer bits the library makes short work.
    const FEW: u64 = 1 << 19;
    if base.is_one() {
        return Ok(BigInt::one());
    }
    if let Ok(exponent) = u32::try_from(exponent)
        && work(base.bits(), exponent.into()) <= FEW
    {
        return Ok(base.pow(exponent));
    }
    let mut result = base.clone();
    for bit in (0..exponent.ilog2()).rev() {
        result = mul(watch, &result, &result)?;
        if exponent >> bit & 1 == 1 {
            result = mul(watch, &result, base)?;
        }
    }
    Ok(result)
}

/// The digits of a number in a radix.
pub fn to_text(watch: &Watch<'_>, number: &BigInt, radix: u32) -> Result<String, Stopped> {
    if radix.is_power_of_two() || number.bits() <= DIGITS {
        return Ok(number.to_str_radix(radix));
    }
    // Powers of the radix, each the square of the one before, up to the root of the number.
    let mut count = (DIGITS as f64 / 2.0 / f64::from(radix).log2()) as usize;
    let mut powers = vec![(count, power(watch, &radix.into(), count as u64)?)];
    while let Some((_, last)) = powers.last()
        && 2 * last.bits() <= number.bits() + 1
    {
        count *= 2;
        let next = mul(watch, last, last)?;
        powers.push((count, next));
    }
    let mut text = String::new();
    if number.is_negative() {
        text.push('-');
    }
    append(watch, number.abs(), radix, &powers, None, &mut text)?;
    Ok(text)
}

/// Appends the digits of a number that is not negative, with zeros before it if it is to have so many.
fn append(
    watch: &Watch<'_>,
    number: BigInt,
    radix: u32,
    powers: &[(usize, BigInt)],
    wanted: Option<usize>,
    text: &mut String,
) -> Result<(), Stopped> {
    let Some(((count, power), smaller)) = powers.split_last() else {
        watch.look()?;
        let digits = number.to_str_radix(radix);
        let missing = wanted.map_or(0, |wanted| wanted - digits.len());
        text.extend(std::iter::repeat_n('0', missing));
        text.push_str(&digits);
        return Ok(());
    };
    if number < *power && wanted.is_none() {
        return append(watch, number, radix, smaller, None, text);
    }
    let (high, low) = div_rem(watch, &number, power)?;
    drop(number);
    append(watch, high, radix, smaller, wanted.map(|wanted| wanted - count), text)?;
    append(watch, low, radix, smaller, Some(*count), text)
}

/// The number of one or more digits of a radix.
pub fn of_digits(watch: &Watch<'_>, text: &str, radix: u32) -> Result<BigInt, Stopped> {
    /// Digits below which it does not pay to split: the library's reading is quadratic.
    const FEW: usize = 2000;
    let whole = |text: &str| BigInt::parse_bytes(text.as_bytes(), radix).expect("digits");
    if text.len() <= FEW || radix.is_power_of_two() {
        return Ok(whole(text));
    }
    // Pieces of equal length and a shorter first one; then pairs of neighbours, and so on.
    let mut ends = text.len();
    let mut pieces = Vec::new();
    while ends > 0 {
        watch.look()?;
        let begins = ends.saturating_sub(FEW);
        pieces.push(whole(&text[begins..ends]));
        ends = begins;
    }
    let mut power = BigInt::from(radix).pow(FEW as u32);
    while pieces.len() > 1 {
        let mut next = Vec::with_capacity(pieces.len().div_ceil(2));
        let mut pairs = pieces.into_iter();
        while let Some(low) = pairs.next() {
            watch.look()?;
            next.push(match pairs.next() {
                Some(high) => mul(watch, &high, &power)? + low,
                None => low,
            });
        }
        pieces = next;
        if pieces.len() > 1 {
            power = mul(watch, &power, &power)?;
        }
    }
    Ok(pieces.pop().expect("at least one digit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of about so many bits: random ones, and those with long runs of equal bits, where carries go far.
    fn some(bits: u64, state: &mut u64) -> BigInt {
        let mut next = || {
            *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *state >> 32
        };
        let kind = next() % 4;
        let digits: Vec<u32> = (0..bits / 32).map(|_| next() as u32).collect();
        let number = match kind {
            0 => natural(BigUint::new(digits)),
            1 => (BigInt::one() << bits) - next(),
            2 => (BigInt::one() << bits) + (BigInt::one() << (next() % bits)),
            _ => (natural(BigUint::new(digits)) >> (bits / 2)) << (bits / 2),
        };
        if next() % 2 == 0 { number } else { -number }
    }

    const WATCH: Watch<'static> = Watch::NOBODY;

    #[test]
    fn products_are_those_of_the_library() {
        let mut state = 1;
        for (a, b) in
            [(1 << 20, 1 << 20), (3 << 20, 1 << 19), (1_234_567, 1_700_001), (1 << 21, 1 << 18)]
        {
            for _ in 0..4 {
                let (a, b) = (some(a, &mut state), some(b, &mut state));
                assert!(mul(&WATCH, &a, &b).expect("nobody stops it") == &a * &b);
            }
        }
    }

    #[test]
    fn quotients_are_those_of_the_library() {
        let mut state = 2;
        for (a, b) in [
            (1 << 21, 1 << 20),
            (1 << 21, 1 << 18),
            (1_500_000, 900_001),
            (1 << 21, (1 << 21) - (1 << 18)),
        ] {
            for _ in 0..6 {
                let (a, b) = (some(a, &mut state), some(b, &mut state));
                assert!(!is_quotient_short(&a, &b) && !b.is_zero());
                assert!(div_rem(&WATCH, &a, &b).expect("nobody stops it") == a.div_rem(&b));
                assert!(div_mod(&WATCH, &a, &b).expect("nobody stops it") == a.div_mod_floor(&b));
                // Just below a multiple, and on it.
                for off in 0..2 {
                    let dividend = &a * &b - off;
                    let (quotient, rest) = div_rem(&WATCH, &dividend, &b).expect("nobody stops it");
                    assert!(&quotient * &b + &rest == dividend && rest.abs() < b.abs());
                    assert!(rest.is_zero() || rest.sign() == dividend.sign());
                }
            }
        }
    }

    #[test]
    fn roots_are_the_largest_whose_square_is_not_larger() {
        let mut state = 3;
        for bits in [ROOT - 1, ROOT + 1, ROOT + 2, ROOT + 3, 1_000_000, 1 << 21] {
            for _ in 0..3 {
                let number = some(bits, &mut state).abs();
                let square = &number * &number;
                for number in [number.clone(), &square - 1, square.clone(), square + &number * 2] {
                    let root = sqrt(&WATCH, &number).expect("nobody stops it");
                    assert!(&root * &root <= number);
                    let next = root + 1;
                    assert!(&next * &next > number);
                }
            }
        }
    }

    #[test]
    fn divisors_are_those_of_the_library() {
        let mut state = 4;
        for (a, b, common) in [(70_000, 70_000, 3_000), (140_000, 70_000, 1), (90_000, 80_000, 40)]
        {
            let common = some(common + 40, &mut state);
            let (a, b) = (some(a, &mut state) * &common, some(b, &mut state) * common);
            assert!(gcd(&WATCH, &a, &b).expect("nobody stops it") == a.gcd(&b));
        }
        let (a, zero) = (some(1 << 20, &mut state), BigInt::zero());
        assert!(gcd(&WATCH, &a, &zero) == Ok(a.abs()) && gcd(&WATCH, &zero, &a) == Ok(a.abs()));
        assert!(gcd(&WATCH, &zero, &zero) == Ok(zero));
    }

    #[test]
    fn texts_are_those_of_the_library_and_read_back() {
        let mut state = 5;
        for bits in [DIGITS - 64, DIGITS + 64, 1_000_001, 3 << 19] {
            for radix in [10, 3, 36] {
                let number = some(bits, &mut state);
                let text = to_text(&WATCH, &number, radix).expect("nobody stops it");
                assert!(text == number.to_str_radix(radix), "{bits} bits in radix {radix}");
                let digits = text.trim_start_matches('-');
                assert!(of_digits(&WATCH, digits, radix) == Ok(number.abs()));
            }
        }
        // Powers of the radix, and one less: all zeros, all nines.
        let power = BigInt::from(10).pow(400_000);
        for number in [power.clone(), power - 1] {
            let text = to_text(&WATCH, &number, 10).expect("nobody stops it");
            assert!(text == number.to_str_radix(10));
            assert!(of_digits(&WATCH, &text, 10) == Ok(number));
        }
    }

    #[test]
    fn whoever_is_not_wanted_any_more_stops() {
        let flag = AtomicBool::new(true);
        let flags = [&AtomicBool::new(false), &flag];
        let watch = Watch::on(&flags);
        let mut state = 6;
        let (a, b) = (some(1 << 21, &mut state).abs(), some(1 << 20, &mut state).abs() + 1);
        assert_eq!(mul(&watch, &a, &b), Err(Stopped));
        assert_eq!(div_rem(&watch, &a, &b), Err(Stopped));
        assert_eq!(sqrt(&watch, &a), Err(Stopped));
        assert_eq!(gcd(&watch, &b, &(&b + 2)), Err(Stopped));
        assert_eq!(to_text(&watch, &a, 10), Err(Stopped));
        assert_eq!(of_digits(&watch, &"7".repeat(1 << 20), 10), Err(Stopped));
        assert_eq!(power(&watch, &7.into(), 1 << 20), Err(Stopped));
    }
}
