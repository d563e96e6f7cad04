//! Numbers as text: all of the external representations that R7RS gives to real numbers, in radix 2 to 36.
//!
//! Decimal flonums are read by the standard library (correctly rounded) and written with the fewest digits that read
//! back as the same flonum. In other radices reading goes through exact fractions, and writing through the
//! free-format algorithm of Steele and White on exact integers: also shortest, and also exact when read back.

use super::{Number, decode, ratio_to_f64};
use crate::mem::Mem;
use crate::value::Value;
use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, ToPrimitive, Zero};

/// Decimal exponents beyond this are not made exact: the number would fill memory.
const MOST_EXACT_EXPONENT: i64 = 1_000_000;

/// Digits below which reading an integer does not pay to be split.
const SPLIT_DIGITS: usize = 2000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Exactness {
    Exact,
    Inexact,
    AsWritten,
}

/// The number that `text` denotes, in `radix` unless it has a prefix; `None` if it denotes none.
pub fn parse(text: &str, radix: u32) -> Option<Number> {
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
    parse_real(rest, radix, exactness)
}

fn parse_real(text: &str, radix: u32, exactness: Exactness) -> Option<Number> {
    let (negative, unsigned) = match text.as_bytes().first()? {
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
            return (exactness != Exactness::Exact).then_some(number);
        }
    }
    if let Some((numerator, denominator)) = unsigned.split_once('/') {
        let numerator = parse_digits(numerator, radix)?;
        let denominator = parse_digits(denominator, radix)?;
        if denominator.is_zero() {
            return None;
        }
        let ratio = BigRational::new(if negative { -numerator } else { numerator }, denominator);
        return Some(match exactness {
            Exactness::Inexact => Number::Flonum(signed_zero(ratio_to_f64(&ratio), negative)),
            _ => Number::Ratio(ratio),
        });
    }
    // The common case: a small decimal integer.
    if radix == 10
        && exactness != Exactness::Inexact
        && unsigned.len() <= 18
        && unsigned.bytes().all(|byte| byte.is_ascii_digit())
    {
        let small: i64 = unsigned.parse().ok()?;
        return Some(Number::Small(if negative { -small } else { small }));
    }
    if let Some(integer) = parse_digits(unsigned, radix) {
        let integer = if negative { -integer } else { integer };
        return Some(match exactness {
            Exactness::Inexact => {
                Number::Flonum(signed_zero(super::big_to_f64(&integer), negative))
            }
            _ => Number::Big(integer),
        });
    }
    parse_decimal(unsigned, negative, radix, exactness)
}

fn signed_zero(number: f64, negative: bool) -> f64 {
    if number == 0.0 && negative { -0.0 } else { number }
}

/// One or more digits.
fn parse_digits(text: &str, radix: u32) -> Option<BigInt> {
    if text.is_empty() || !text.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    Some(digits_value(text, radix))
}

/// Divide and conquer: the library's reading is quadratic.
fn digits_value(text: &str, radix: u32) -> BigInt {
    if text.len() <= SPLIT_DIGITS || radix.is_power_of_two() {
        return BigInt::parse_bytes(text.as_bytes(), radix).expect("digits of the radix");
    }
    let low = text.len() / 2;
    let (head, tail) = text.split_at(text.len() - low);
    let power = BigInt::from(radix).pow(low as u32);
    digits_value(head, radix) * power + digits_value(tail, radix)
}

/// Digits with a point, an exponent (radix 10 only), or both.
fn parse_decimal(text: &str, negative: bool, radix: u32, exactness: Exactness) -> Option<Number> {
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
    if exactness != Exactness::Exact && radix == 10 {
        let magnitude: f64 = text.parse().ok()?;
        return Some(Number::Flonum(if negative { -magnitude } else { magnitude }));
    }
    let places = exponent - fraction.len() as i64;
    let digits = format!("{whole}{fraction}");
    let value = parse_digits(&digits, radix)?;
    if value.is_zero() {
        return Some(match exactness {
            Exactness::Exact => Number::Small(0),
            _ => Number::Flonum(signed_zero(0.0, negative)),
        });
    }
    if places.abs() > MOST_EXACT_EXPONENT {
        return None;
    }
    let scale = BigInt::from(radix).pow(places.unsigned_abs() as u32);
    let ratio = match places >= 0 {
        true => BigRational::from_integer(value * scale),
        false => BigRational::new(value, scale),
    };
    let ratio = if negative { -ratio } else { ratio };
    Some(match exactness {
        Exactness::Exact => Number::Ratio(ratio),
        _ => Number::Flonum(ratio_to_f64(&ratio)),
    })
}

/// The number as text; `None` if `value` is no number.
pub fn write<'m>(mem: Mem<'m, '_>, value: Value<'m>, radix: u32) -> Option<String> {
    if let (Some(number), 10) = (value.as_fixnum(), radix) {
        return Some(number.to_string());
    }
    Some(format(&decode(mem, value)?, radix))
}

/// The number as text.
pub fn format(number: &Number, radix: u32) -> String {
    match number {
        Number::Small(number) if radix == 10 => number.to_string(),
        Number::Small(number) => BigInt::from(*number).to_str_radix(radix),
        Number::Big(number) => number.to_str_radix(radix),
        Number::Ratio(ratio) if ratio.is_integer() => ratio.numer().to_str_radix(radix),
        Number::Ratio(ratio) => {
            format!("{}/{}", ratio.numer().to_str_radix(radix), ratio.denom().to_str_radix(radix))
        }
        Number::Flonum(number) => format_flonum(*number, radix),
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
