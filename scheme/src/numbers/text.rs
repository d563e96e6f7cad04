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
use num_traits::{One, ToPrimitive};

/// Decimal exponents beyond this are not made exact: the number would fill memory.
const MOST_EXACT_EXPONENT: i64 = 1_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Exactness {
    Exact,
    Inexact,
    AsWritten,
}

/// A number as it is written. That it is one is known; what it comes to may take long to compute.
struct Written<'t> {
    magnitude: Magnitude<'t>,
    negative: bool,
    radix: u32,
    exactness: Exactness,
}

enum Magnitude<'t> {
    /// An infinity, NaN, or a decimal that is no exact number.
    Flonum(f64),
    Integer(&'t str),
    /// Numerator and denominator, which is not zero.
    Fraction(&'t str, &'t str),
    /// The digits before and after the point, and the power of the radix that they are to be multiplied by.
    Scaled(&'t str, &'t str, i64),
}

/// The number that `text` denotes, in `radix` unless it has a prefix; `None` if it denotes none.
///
/// # Errors
/// If it was stopped.
pub fn parse(watch: &Watch<'_>, text: &str, radix: u32) -> Result<Option<Number>, Stopped> {
    written(text, radix).map(|written| value(watch, &written)).transpose()
}

/// Whether `text` denotes a number, which is known without computing it.
pub fn is_number(text: &str, radix: u32) -> bool {
    written(text, radix).is_some()
}

/// Whether `text` denotes a complex number that is not real, in decimal. There are none here, but they are no identifiers.
pub fn is_complex(text: &str) -> bool {
    let real = |part: &str| is_number(part, 10);
    if let Some((magnitude, angle)) = text.split_once('@') {
        return real(magnitude) && real(angle);
    }
    let Some(parts) = text.strip_suffix(['i', 'I']) else { return false };
    let signs = parts.match_indices(['+', '-']).map(|(at, _)| parts.split_at(at));
    let imaginary = |part: &str| part.len() == 1 || real(part);
    signs.into_iter().any(|(first, second)| (first.is_empty() || real(first)) && imaginary(second))
}

/// How long it may take to read a number in this text: so many digits are as many bits as can be read in one go. A short
/// text may be that of a long number, by its exponent; many of those may follow each other.
pub fn length_of_text(text: &str) -> Length {
    const FAR: i64 = 1000;
    let exponent = || text.rsplit(['e', 'E']).next().and_then(|digits| digits.parse::<i64>().ok());
    let is_far = text.starts_with('#') && exponent().is_some_and(|exponent| exponent.abs() > FAR);
    long_if(text.len() > SHORT_TEXT || is_far)
}

/// Digits that are read in one go.
pub const SHORT_TEXT: usize = large::DIGITS as usize / 4;

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

/// What is known of the number that `text` denotes in one pass over it; `None` if it denotes none.
fn written(text: &str, radix: u32) -> Option<Written<'_>> {
    let (radix, exactness, text) = prefixes(text, radix)?;
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'+' => (false, &text[1..]),
        b'-' => (true, &text[1..]),
        _ => (false, text),
    };
    let magnitude = magnitude(unsigned, radix, exactness, unsigned.len() < text.len())?;
    Some(Written { magnitude, negative, radix, exactness })
}

fn magnitude(
    text: &str,
    radix: u32,
    exactness: Exactness,
    has_sign: bool,
) -> Option<Magnitude<'_>> {
    if has_sign {
        let special = match () {
            () if text.eq_ignore_ascii_case("inf.0") => Some(f64::INFINITY),
            () if text.eq_ignore_ascii_case("nan.0") => Some(f64::NAN),
            () => None,
        };
        if let Some(special) = special {
            return (exactness != Exactness::Exact).then_some(Magnitude::Flonum(special));
        }
    }
    // Most words are names.
    text.chars().next().filter(|&first| first == '.' || first.is_digit(radix))?;
    if are_digits(text, radix) {
        return Some(Magnitude::Integer(text));
    }
    if let Some((numerator, denominator)) = text.split_once('/') {
        let is_fraction = are_digits(numerator, radix) && are_digits(denominator, radix);
        return (is_fraction && !are_zeros(denominator))
            .then_some(Magnitude::Fraction(numerator, denominator));
    }
    let (whole, fraction, exponent) = decimal(text, radix)?;
    if exactness != Exactness::Exact && radix == 10 {
        return text.parse().ok().map(Magnitude::Flonum);
    }
    let places = exponent - fraction.len() as i64;
    if are_zeros(whole) && are_zeros(fraction) {
        return Some(Magnitude::Scaled("0", "", 0));
    }
    (places.abs() <= MOST_EXACT_EXPONENT).then_some(Magnitude::Scaled(whole, fraction, places))
}

/// What a number comes to.
fn value(watch: &Watch<'_>, written: &Written<'_>) -> Result<Number, Stopped> {
    let &Written { ref magnitude, negative, radix, exactness } = written;
    let ratio = match *magnitude {
        Magnitude::Flonum(flonum) => {
            return Ok(Number::Flonum(if negative { -flonum } else { flonum }));
        }
        Magnitude::Integer(digits) => {
            let inexact = exactness == Exactness::Inexact;
            // The common case: a small decimal integer.
            if radix == 10 && !inexact && digits.len() <= 18 {
                let small: i64 = digits.parse().expect("so few digits");
                return Ok(Number::Small(if negative { -small } else { small }));
            }
            let integer = large::of_digits(watch, digits, radix)?;
            let integer = if negative { -integer } else { integer };
            return Ok(match inexact {
                true => Number::Flonum(signed_zero(super::big_to_f64(&integer), negative)),
                false => Number::Big(integer),
            });
        }
        Magnitude::Fraction(numerator, denominator) => {
            let numerator = large::of_digits(watch, numerator, radix)?;
            let denominator = large::of_digits(watch, denominator, radix)?;
            fractions::reduced(watch, numerator, denominator)?
        }
        Magnitude::Scaled(whole, fraction, places) => {
            let value = large::of_digits(watch, &format!("{whole}{fraction}"), radix)?;
            let scale = large::power(watch, &radix.into(), places.unsigned_abs())?;
            match places >= 0 {
                true => BigRational::from_integer(large::mul(watch, &value, &scale)?),
                false => fractions::reduced(watch, value, scale)?,
            }
        }
    };
    let ratio = if negative { -ratio } else { ratio };
    Ok(match exactness {
        Exactness::Inexact => Number::Flonum(signed_zero(ratio_to_f64(&ratio), negative)),
        // A point makes a flonum in any radix.
        Exactness::AsWritten if matches!(magnitude, Magnitude::Scaled(..)) => {
            Number::Flonum(signed_zero(ratio_to_f64(&ratio), negative))
        }
        _ => Number::Ratio(ratio),
    })
}

fn signed_zero(number: f64, negative: bool) -> f64 {
    if number == 0.0 && negative { -0.0 } else { number }
}

/// Whether it is one or more digits.
fn are_digits(text: &str, radix: u32) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_digit(radix))
}

fn are_zeros(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'0')
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
    use super::*;

    fn parse(text: &str, radix: u32) -> Option<Number> {
        let number = super::parse(&Watch::NOBODY, text, radix).expect("nobody stops it");
        assert_eq!(number.is_some(), is_number(text, radix), "{text}");
        number
    }

    fn flonum(text: &str) -> f64 {
        match parse(text, 10) {
            Some(Number::Flonum(number)) => number,
            other => panic!("{text} is {other:?}"),
        }
    }

    #[test]
    fn complex_numbers_are_told_from_identifiers() {
        for text in
            ["+i", "-I", "1+i", "-1.0-0.5i", "1e-5+2i", "+inf.0i", "-1/2+nan.0i", "1@2", "-0.5@1e3"]
        {
            assert!(is_complex(text) && !is_number(text, 10), "{text}");
        }
        for text in
            ["i", "+", "-", "-x+i", "a@b", "1+", "hi", "-hi", "+-i", "1i", "@", "1@", "ünd-i", ""]
        {
            assert!(!is_complex(text), "{text}");
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
