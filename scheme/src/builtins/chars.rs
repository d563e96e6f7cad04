//! Characters: R7RS 6.6. A character is a Unicode scalar value.

use super::{Builtin, args};
use crate::mem::Mem;
use crate::trap::{Result, out_of_range, wrong_type};
use crate::value::Value;

/// The digits 0 of Unicode's decimal digits (general category Nd); nine others follow each.
const ZEROES: [u32; 66] = [
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66,
    0xde6, 0xe50, 0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90,
    0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
    0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650,
    0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50,
    0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];

/// The value of a decimal digit of any script.
pub fn digit_value(c: char) -> Option<u32> {
    let at = ZEROES.partition_point(|&zero| zero <= c as u32);
    let value = c as u32 - ZEROES.get(at.checked_sub(1)?)?;
    (value < 10).then_some(value)
}

fn single(mut mapping: impl Iterator<Item = char>, otherwise: char) -> char {
    match (mapping.next(), mapping.next()) {
        (Some(c), None) => c,
        _ => otherwise,
    }
}

/// Simple upper case: one character for one.
pub fn upcase(c: char) -> char {
    single(c.to_uppercase(), c)
}

/// Simple lower case.
pub fn downcase(c: char) -> char {
    single(c.to_lowercase(), c)
}

/// Simple case folding.
pub fn foldcase(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    let folded = unicode_case_mapping::case_folded(c);
    folded.and_then(|folded| char::from_u32(folded.get())).unwrap_or(c)
}

/// Full case folding: what has no simple folding but upper case of several characters folds to their lower case,
/// as `ß` does to `ss`.
pub fn foldcase_text(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        let simple = foldcase(c);
        let several = simple == c && c.to_uppercase().count() > 1;
        if several {
            folded.extend(c.to_uppercase().flat_map(char::to_lowercase));
        } else {
            folded.push(simple);
        }
    }
    folded
}

fn char_p<'m>(_: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    Ok(Value::boolean(args[0].as_char().is_some()))
}
fn char_to_integer<'m>(_: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    Ok(Value::fixnum(args::char(args[0])? as i64))
}
fn integer_to_char<'m>(_: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let Some(number) = args[0].as_fixnum() else {
        return Err(wrong_type("an integer", args[0]));
    };
    let c = u32::try_from(number).ok().and_then(char::from_u32);
    c.map(Value::char).ok_or_else(|| out_of_range("Unicode scalar value", args[0]))
}

fn upcase_<'m>(_: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    Ok(Value::char(upcase(args::char(args[0])?)))
}
fn downcase_<'m>(_: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    Ok(Value::char(downcase(args::char(args[0])?)))
}
fn foldcase_<'m>(_: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    Ok(Value::char(foldcase(args::char(args[0])?)))
}
fn digit_value_<'m>(_: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let value = digit_value(args::char(args[0])?);
    Ok(value.map_or(Value::FALSE, |value| Value::fixnum(value.into())))
}

macro_rules! classes {
    ($($name:ident: $test:expr;)*) => {
        $(
            fn $name<'m>(_: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
                let test: fn(char) -> bool = $test;
                Ok(Value::boolean(test(args::char(args[0])?)))
            }
        )*
    };
}

classes! {
    alphabetic_p: char::is_alphabetic;
    numeric_p: |c| digit_value(c).is_some();
    whitespace_p: char::is_whitespace;
    upper_case_p: char::is_uppercase;
    lower_case_p: char::is_lowercase;
}

fn compare<'m>(
    args: &[Value<'m>],
    key: fn(char) -> char,
    holds: fn(&char, &char) -> bool,
) -> Result<'m> {
    let mut all = true;
    let mut last = key(args::char(args[0])?);
    for &next in &args[1..] {
        let next = key(args::char(next)?);
        all &= holds(&last, &next);
        last = next;
    }
    Ok(Value::boolean(all))
}

macro_rules! comparisons {
    ($($plain:ident $folded:ident $holds:path;)*) => {
        $(
            fn $plain<'m>(_: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
                compare(args, |c| c, $holds)
            }
            fn $folded<'m>(_: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
                compare(args, foldcase, $holds)
            }
        )*
    };
}

comparisons! {
    equal equal_ci char::eq;
    less less_ci char::lt;
    greater greater_ci char::gt;
    not_greater not_greater_ci char::le;
    not_less not_less_ci char::ge;
}

const MANY: u16 = Builtin::MANY;

/// The builtins of this file.
pub const TABLE: &[Builtin] = &[
    Builtin::new("char?", 1, 1, char_p),
    Builtin::new("char->integer", 1, 1, char_to_integer),
    Builtin::new("integer->char", 1, 1, integer_to_char),
    Builtin::new("char-upcase", 1, 1, upcase_),
    Builtin::new("char-downcase", 1, 1, downcase_),
    Builtin::new("char-foldcase", 1, 1, foldcase_),
    Builtin::new("digit-value", 1, 1, digit_value_),
    Builtin::new("char-alphabetic?", 1, 1, alphabetic_p),
    Builtin::new("char-numeric?", 1, 1, numeric_p),
    Builtin::new("char-whitespace?", 1, 1, whitespace_p),
    Builtin::new("char-upper-case?", 1, 1, upper_case_p),
    Builtin::new("char-lower-case?", 1, 1, lower_case_p),
    Builtin::new("char=?", 1, MANY, equal),
    Builtin::new("char<?", 1, MANY, less),
    Builtin::new("char>?", 1, MANY, greater),
    Builtin::new("char<=?", 1, MANY, not_greater),
    Builtin::new("char>=?", 1, MANY, not_less),
    Builtin::new("char-ci=?", 1, MANY, equal_ci),
    Builtin::new("char-ci<?", 1, MANY, less_ci),
    Builtin::new("char-ci>?", 1, MANY, greater_ci),
    Builtin::new("char-ci<=?", 1, MANY, not_greater_ci),
    Builtin::new("char-ci>=?", 1, MANY, not_less_ci),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_are_in_order_and_their_digits_are_numeric() {
        assert!(ZEROES.windows(2).all(|pair| pair[0] + 9 < pair[1]));
        for zero in ZEROES {
            for value in 0..10 {
                let digit = char::from_u32(zero + value).expect("a character");
                assert!(digit.is_numeric(), "{zero:x}");
                assert_eq!(digit_value(digit), Some(value));
            }
        }
        assert_eq!(digit_value('/'), None);
        assert_eq!(digit_value(':'), None);
        assert_eq!(digit_value('½'), None);
    }

    #[test]
    fn folding_knows_the_special_cases() {
        assert_eq!(foldcase('Σ'), 'σ');
        assert_eq!(foldcase('ς'), 'σ');
        assert_eq!(foldcase('ı'), 'ı');
        assert_eq!(foldcase_text("Straße ΑΣ"), "strasse ασ");
    }
}
