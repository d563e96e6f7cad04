//! Numbers as text: all of the external representations that R7RS gives to real numbers, in radix 2 to 36.
//!
//! Decimal flonums are read by the standard library (correctly rounded) and written with the fewest digits that read
//! back as the same flonum. In other radices reading goes through exact fractions, and writing through the
//! free-format algorithm of Steele and White on exact integers: also shortest, and also exact when read back.

use super::large::{self, Stopped, Watch};
use super::long::{Length, long_if};
use super::{Number, fractions, ratio_to_f64};
use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, ToPrimitive, Zero};

/// Decimal exponents beyond this are not made exact: the number would fill memory.
const MOST_EXACT_EXPONENT: i64 = 1_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Exactness {
    Exact,
    Inexact,
    AsWritten,
}

/// The number that `text` denotes, in `radix` unless it has a prefix; `None` if it denotes none.
///
/// # Errors
/// If it was stopped.
pub fn parse(watch: &Watch<'_>, text: &str, radix: u32) -> Result<Option<Number>, Stopped> {
    let Some((radix, exactness, rest)) = prefixes(text, radix) else { return Ok(None) };
    parse_real(watch, rest, radix, exactness)
}

/// How long it may take to read a number in this text: so many digits are as many bits as can be read in one go. A short
/// text may be that of a long number, by its exponent.
pub fn length_of_text(text: &str) -> Length {
    let most = large::DIGITS as usize / 4;
    let exponent = || text.rsplit(['e', 'E']).next().and_then(|digits| digits.parse::<i64>().ok());
    let is_far =
        text.starts_with('#') && exponent().is_some_and(|exponent| exponent.abs() > 10_000);
    long_if(text.len() > most || is_far)
}

/// As [`parse`], however long it takes.
pub fn parse_now(text: &str, radix: u32) -> Option<Number> {
    parse(&Watch::NOBODY, text, radix).expect("nobody stops it")
}

/// Radix and exactness that the prefixes of `text` say, and what comes after them.
fn prefixes(text: &str, radix: u32) -> Option<(u32, Exactness, &str)> {
    let mut radix = radix;
    let mut exactness = Exactness::AsWritten;
    let (mut radix_seen, mut rest) = (false, text);
    while let Some(tail) = rest.strip_prefix('#') {
        let mark = tail.chars().next()?;
        rest = &tail[mark.len_utf8()..];
        match mark.to_ascii_lowercase() {
            'e' | 'i' if exactness == Exactness::AsWritten => {
                let exact = mark.eq_ignore_ascii_case(&'e');
                exactness = if exact { Exactness::Exact } else { Exactness::Inexact };
            }
            mark @ ('b' | 'o' | 'd' | 'x') if !radix_seen => {
                radix_seen = true;
                radix = match mark {
                    'b' => 2,
                    'o' => 8,
                    'd' => 10,
                    _ => 16,
                };
            }
            _ => return None,
        }
    }
    Some((radix, exactness, rest))
}

fn parse_real(
    watch: &Watch<'_>,
    text: &str,
    radix: u32,
    exactness: Exactness,
) -> Result<Option<Number>, Stopped> {
    let Some(first) = text.as_bytes().first() else { return Ok(None) };
    let (negative, unsigned) = match first {
        b'+' => (false, &text[1..]),
        b'-' => (true, &text[1..]),
        _ => (false, text),
    };
    if unsigned.len() < text.len() {
        let special = match () {
            () if unsigned.eq_ignore_ascii_case("inf.0") => Some(f64::INFINITY),
            () if unsigned.eq_ignore_ascii_case("nan.0") => Some(f64::NAN),
            () => None,
        };
        if let Some(special) = special {
            let number = Number::Flonum(if negative { -special } else { special });
            return Ok((exactness != Exactness::Exact).then_some(number));
        }
    }
    if let Some((numerator, denominator)) = unsigned.split_once('/') {
        if !are_digits(numerator, radix) || !are_digits(denominator, radix) {
            return Ok(None);
        }
        let numerator = large::of_digits(watch, numerator, radix)?;
        let denominator = large::of_digits(watch, denominator, radix)?;
        if denominator.is_zero() {
            return Ok(None);
        }
        let numerator = if negative { -numerator } else { numerator };
        let ratio = fractions::reduced(watch, numerator, denominator)?;
        return Ok(Some(match exactness {
            Exactness::Inexact => Number::Flonum(signed_zero(ratio_to_f64(&ratio), negative)),
            _ => Number::Ratio(ratio),
        }));
    }
    // The common case: a small decimal integer.
    if radix == 10
        && exactness != Exactness::Inexact
        && unsigned.len() <= 18
        && unsigned.bytes().all(|byte| byte.is_ascii_digit())
    {
        let small: Option<i64> = unsigned.parse().ok();
        return Ok(small.map(|small| Number::Small(if negative { -small } else { small })));
    }
    if are_digits(unsigned, radix) {
        let integer = large::of_digits(watch, unsigned, radix)?;
        let integer = if negative { -integer } else { integer };
        return Ok(Some(match exactness {
            Exactness::Inexact => {
                Number::Flonum(signed_zero(super::big_to_f64(&integer), negative))
            }
            _ => Number::Big(integer),
        }));
    }
    match decimal(unsigned, radix) {
        Some(decimal) => parse_decimal(watch, unsigned, decimal, negative, radix, exactness),
        None => Ok(None),
    }
}

fn signed_zero(number: f64, negative: bool) -> f64 {
    if number == 0.0 && negative { -0.0 } else { number }
}

/// Whether it is one or more digits.
fn are_digits(text: &str, radix: u32) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_digit(radix))
}

/// Digits with a point, an exponent (radix 10 only), or both: those before and after the point, and the exponent.
fn decimal(text: &str, radix: u32) -> Option<(&str, &str, i64)> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) if radix == 10 => (&text[..at], Some(&text[at + 1..])),
        _ => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty()
        || !whole.chars().chain(fraction.chars()).all(|c| c.is_digit(radix))
    {
        return None;
    }
    let exponent = match exponent {
        Some(text) => {
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            let magnitude = digits.parse::<i64>().unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
            if text.starts_with('-') { -magnitude } else { magnitude }
        }
        None if mantissa.len() == whole.len() => return None,
        None => 0,
    };
    Some((whole, fraction, exponent))
}

fn parse_decimal(
    watch: &Watch<'_>,
    text: &str,
    (whole, fraction, exponent): (&str, &str, i64),
    negative: bool,
    radix: u32,
    exactness: Exactness,
) -> Result<Option<Number>, Stopped> {
    if exactness != Exactness::Exact && radix == 10 {
        let magnitude: Option<f64> = text.parse().ok();
        return Ok(magnitude
            .map(|magnitude| Number::Flonum(if negative { -magnitude } else { magnitude })));
    }
    let places = exponent - fraction.len() as i64;
    let digits = format!("{whole}{fraction}");
    let value = large::of_digits(watch, &digits, radix)?;
    if value.is_zero() {
        return Ok(Some(match exactness {
            Exactness::Exact => Number::Small(0),
            _ => Number::Flonum(signed_zero(0.0, negative)),
        }));
    }
    if places.abs() > MOST_EXACT_EXPONENT {
        return Ok(None);
    }
    let scale = large::power(watch, &radix.into(), places.unsigned_abs())?;
    let ratio = match places >= 0 {
        true => BigRational::from_integer(large::mul(watch, &value, &scale)?),
        false => fractions::reduced(watch, value, scale)?,
    };
    let ratio = if negative { -ratio } else { ratio };
    Ok(Some(match exactness {
        Exactness::Exact => Number::Ratio(ratio),
        _ => Number::Flonum(ratio_to_f64(&ratio)),
    }))
}

/// How long it may take to write a number.
pub fn length(number: &Number) -> Length {
    long_if(!matches!(number, Number::Flonum(_)) && number.bits() > large::DIGITS)
}

/// The number as text.
///
/// # Errors
/// If it was stopped.
pub fn format(watch: &Watch<'_>, number: &Number, radix: u32) -> Result<String, Stopped> {
    let text = |integer: &BigInt| large::to_text(watch, integer, radix);
    match number {
        Number::Small(number) if radix == 10 => Ok(number.to_string()),
        Number::Small(number) => text(&(*number).into()),
        Number::Big(number) => text(number),
        Number::Ratio(ratio) if ratio.is_integer() => text(ratio.numer()),
        Number::Ratio(ratio) => Ok(format!("{}/{}", text(ratio.numer())?, text(ratio.denom())?)),
        Number::Flonum(number) => Ok(format_flonum(*number, radix)),
    }
}

/// Decimal exponents within which a flonum is written without one.
const PLAIN: std::ops::Range<i64> = -7..21;

fn format_flonum(number: f64, radix: u32) -> String {
    if number.is_nan() {
        return "+nan.0".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+inf.0".into() } else { "-inf.0".into() };
    }
    let sign = if number.is_sign_negative() { "-" } else { "" };
    if number == 0.0 {
        return format!("{sign}0.0");
    }
    // Digits, and the exponent of the first one.
    let (digits, exponent) = match radix {
        10 => {
            let text = format!("{:e}", number.abs());
            let (mantissa, exponent) = text.split_once('e').expect("the format has an exponent");
            (mantissa.replace('.', ""), exponent.parse::<i64>().expect("a number"))
        }
        _ => shortest_digits(number.abs(), radix),
    };
    // Radices other than ten have no exponents.
    if radix == 10 && !PLAIN.contains(&exponent) {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        return format!("{sign}{first}{point}{rest}e{exponent}");
    }
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat(-exponent as usize - 1));
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        return format!("{sign}{digits}{}.0", "0".repeat(whole - digits.len()));
    }
    format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
}

/// The fewest digits that lie nearer to the positive `number` than to any other flonum, and the exponent of the
/// first one.
fn shortest_digits(number: f64, radix: u32) -> (String, i64) {
    let bits = number.to_bits();
    let field = (bits >> 52) as i64;
    let fraction = bits & ((1 << 52) - 1);
    let (mantissa, exponent) =
        if field == 0 { (fraction, -1074) } else { (fraction | 1 << 52, field - 1075) };
    // number = r / s; its neighbours are m_high / s above and m_low / s below, halved.
    let narrow_below = fraction == 0 && field > 1;
    let factor = if narrow_below { 4 } else { 2 };
    let (mut r, mut s) = (BigInt::from(mantissa) * factor, BigInt::from(factor));
    let (mut high, mut low) = (BigInt::from(factor / 2), BigInt::one());
    if exponent >= 0 {
        r <<= exponent as u64;
        high <<= exponent as u64;
        low <<= exponent as u64;
    } else {
        s <<= -exponent as u64;
    }
    let even = mantissa % 2 == 0;
    let radix_big = BigInt::from(radix);
    let mut first = 0;
    let reaches = |r: &BigInt, high: &BigInt, s: &BigInt| {
        if even { r + high >= *s } else { r + high > *s }
    };
    while reaches(&r, &high, &s) {
        s *= &radix_big;
        first += 1;
    }
    loop {
        let (next, next_high) = (&r * &radix_big, &high * &radix_big);
        if reaches(&next, &next_high, &s) {
            break;
        }
        (r, high) = (next, next_high);
        low *= &radix_big;
        first -= 1;
    }
    let mut digits = String::new();
    loop {
        let (digit, rest) = (r * &radix_big).div_rem(&s);
        r = rest;
        high *= &radix_big;
        low *= &radix_big;
        let mut digit = digit.to_u32().expect("a digit");
        let low_enough = if even { r <= low } else { r < low };
        let high_enough = reaches(&r, &high, &s);
        if low_enough || high_enough {
            let up = if low_enough && high_enough { &r * 2 >= s } else { high_enough };
            digit += up as u32;
            digits.push(char::from_digit(digit, radix).expect("a digit"));
            return (digits, first - 1);
        }
        digits.push(char::from_digit(digit, radix).expect("a digit"));
    }
}

#[cfg(test)]
mod tests {
    use super::parse_now as parse;
    use super::*;

    fn flonum(text: &str) -> f64 {
        match parse(text, 10) {
            Some(Number::Flonum(number)) => number,
            other => panic!("{text} is {other:?}"),
        }
    }

    #[test]
    fn decimals_read_back_as_the_same_flonum() {
        let mut bits = 0x3ff0_0000_0000_0001u64;
        for _ in 0..20_000 {
            bits = bits.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let number = f64::from_bits(bits);
            if number.is_finite() {
                for radix in [2, 10, 16, 36] {
                    if radix != 10 && number.abs().log2().abs() > 200.0 {
                        continue;
                    }
                    let text = format_flonum(number, radix);
                    let Some(Number::Flonum(back)) = parse(&text, radix) else { panic!("{text}") };
                    assert_eq!(back.to_bits(), number.to_bits(), "{text} in radix {radix}");
                }
            }
        }
    }

    #[test]
    fn fractions_round_to_the_nearest_flonum() {
        // Against the standard library, which rounds decimals correctly: the same number as a fraction.
        let mut state = 12345u64;
        for _ in 0..5_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let digits = state >> (state % 40);
            let exponent = (state >> 33) as i64 % 650 - 325;
            let text = format!("{digits}e{exponent}");
            let expected: f64 = text.parse().expect("a float");
            let Some(Number::Ratio(ratio)) = parse(&format!("#e{text}"), 10) else {
                assert_eq!(digits, 0);
                continue;
            };
            assert_eq!(ratio_to_f64(&ratio).to_bits(), expected.to_bits(), "{text}");
        }
    }

    #[test]
    fn the_syntax_of_numbers() {
        for (text, expected) in [
            ("1.5", 1.5),
            (".5", 0.5),
            ("1.", 1.0),
            ("-1e3", -1000.0),
            ("1E-2", 0.01),
            ("#i1/4", 0.25),
            ("#x#i10", 16.0),
            ("#i#b101", 5.0),
            ("1e400", f64::INFINITY),
            ("5e-324", 5e-324),
            ("+inf.0", f64::INFINITY),
            ("-Inf.0", f64::NEG_INFINITY),
        ] {
            assert_eq!(flonum(text), expected, "{text}");
        }
        for text in [
            "", "+", "-", ".", "e5", "1e", "1e+", "1/0", "1/", "/2", "1.2.3", "#", "#x", "#xg",
            "#e+inf.0", "#e#e1", "1+", "--1", "1/2/3", "1e1.5", "#b2", "+5+", "1/2e3", "#d#x10",
            "inf.0", "+inf", "1 2",
        ] {
            assert!(parse(text, 10).is_none(), "{text}");
        }
    }
}
