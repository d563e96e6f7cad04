//! Numbers: R7RS 6.2, and the real part of `(scheme inexact)` and `(scheme complex)`.

use super::Builtin;
use crate::mem::Mem;
use crate::numbers::arithmetic::{self, Division, compare_numbers};
use crate::numbers::functions::{self, Function};
use crate::numbers::large::Watch;
use crate::numbers::long::{self, Answer, Length, now, perform};
use crate::numbers::rounding::{self, Rounding};
use crate::numbers::{Number, decode, exact_integer, is_exact_integer, is_number, number, text};
use crate::object::StringObject;
use crate::trap::{Result, TrapKind, error, out_of_range, wrong_type};
use crate::value::Value;
use std::cmp::Ordering;

const MANY: u16 = Builtin::MANY;

fn truth<'m>(value: bool) -> Result<'m> {
    Ok(Value::boolean(value))
}

/// An operation over all arguments. What it comes to on the way stays in native memory: a builtin makes one large
/// object at most.
fn fold<'m>(
    mem: Mem<'m, '_>,
    args: &[Value<'m>],
    two: fn(Mem<'m, '_>, Value<'m>, Value<'m>) -> Result<'m>,
    native: fn(&Watch<'_>, Number, Number) -> arithmetic::Native,
) -> Result<'m> {
    match *args {
        [only] => number(mem, only).map(|_| only),
        [a, b] => two(mem, a, b),
        _ => {
            if long::all(mem, args) == Length::Short {
                let (first, rest) = args.split_first().expect("none and one are special");
                let mut result = number(mem, *first)?;
                for &next in rest {
                    result = now(native(&Watch::NOBODY, result, number(mem, next)?));
                }
                return result.encode(mem);
            }
            let numbers = numbers(mem, args)?;
            perform(mem, Length::Long, move |watch| {
                let mut numbers = numbers.into_iter();
                let mut result = numbers.next().expect("none and one are special");
                for next in numbers {
                    watch.look()?;
                    result = native(watch, result, next)?;
                }
                Ok(result.into())
            })
        }
    }
}

/// `(+ ...)`
fn add<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    if args.is_empty() {
        return Ok(Value::fixnum(0));
    }
    fold(mem, args, |mem, a, b| arithmetic::add(mem, a, b), arithmetic::add_native)
}

/// `(* ...)`
fn mul<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    if args.is_empty() {
        return Ok(Value::fixnum(1));
    }
    fold(mem, args, |mem, a, b| arithmetic::mul(mem, a, b), arithmetic::mul_native)
}

/// `(- a ...)`
fn sub<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    match args {
        [only] => arithmetic::negate(mem, *only),
        _ => fold(mem, args, |mem, a, b| arithmetic::sub(mem, a, b), arithmetic::sub_native),
    }
}

/// `(/ a ...)`
fn div<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    if let [only] = args {
        return arithmetic::div(mem, Value::fixnum(1), *only);
    }
    if args[1..].contains(&Value::fixnum(0)) {
        number(mem, args[0])?;
        return Err(arithmetic::division_by_zero(args[0]));
    }
    fold(mem, args, |mem, a, b| arithmetic::div(mem, a, b), arithmetic::div_native)
}

/// Whether each neighbouring pair compares so. All arguments are checked to be numbers.
fn chain<'m>(
    mem: Mem<'m, '_>,
    args: &[Value<'m>],
    holds: fn(Option<Ordering>) -> bool,
) -> Result<'m> {
    if let [only] = args {
        number(mem, *only)?;
    }
    let mut all = true;
    for pair in args.windows(2) {
        let Some(order) = at_once(arithmetic::compare(mem, pair[0], pair[1]))? else {
            let numbers = numbers(mem, args)?;
            return Err(long::outside(Box::new(move |watch| {
                let mut all = true;
                for pair in numbers.windows(2) {
                    all &= holds(compare_numbers(watch, &pair[0], &pair[1])?);
                }
                Ok(Answer::Truth(all))
            })));
        };
        all &= holds(order);
    }
    truth(all)
}

/// The order of two numbers; `None` if it takes long to know.
fn at_once<'m>(compared: Result<'m, Option<Ordering>>) -> Result<'m, Option<Option<Ordering>>> {
    match compared {
        Err(trap) if matches!(*trap.0, TrapKind::Long { .. }) => Ok(None),
        compared => compared.map(Some),
    }
}

fn numbers<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m, Vec<Number>> {
    args.iter().map(|&arg| number(mem, arg)).collect()
}

fn equal<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    chain(mem, args, |order| order == Some(Ordering::Equal))
}
fn less<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    chain(mem, args, |order| order == Some(Ordering::Less))
}
fn greater<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    chain(mem, args, |order| order == Some(Ordering::Greater))
}
fn not_greater<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    chain(mem, args, |order| matches!(order, Some(Ordering::Less | Ordering::Equal)))
}
fn not_less<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    chain(mem, args, |order| matches!(order, Some(Ordering::Greater | Ordering::Equal)))
}

/// `max` and `min`: inexact if any argument is, NaN if any is.
fn extreme<'m>(mem: Mem<'m, '_>, args: &[Value<'m>], better: Ordering) -> Result<'m> {
    let mut best = args[0];
    let mut inexact = !number(mem, best)?.is_exact();
    for &next in &args[1..] {
        inexact |= next.as_flonum().is_some();
        let Some(order) = at_once(arithmetic::compare(mem, next, best))? else {
            return extreme_of_long(mem, args, better);
        };
        match order {
            Some(order) if order == better => best = next,
            Some(_) => {}
            None if best.as_flonum().is_some_and(f64::is_nan) => {}
            None => best = next,
        }
    }
    if inexact { rounding::inexact(mem, best) } else { Ok(best) }
}

/// The same where comparisons take long: outside of the stretch. Fractions beyond the flonums are among the arguments.
fn extreme_of_long<'m>(mem: Mem<'m, '_>, args: &[Value<'m>], better: Ordering) -> Result<'m> {
    let numbers = numbers(mem, args)?;
    Err(long::outside(Box::new(move |watch| {
        let inexact = numbers.iter().any(|number| !number.is_exact());
        let is_nan = |number: &Number| matches!(number, Number::Flonum(flonum) if flonum.is_nan());
        if let Some(nan) = numbers.iter().find(|number| is_nan(number)) {
            return Ok(nan.clone().into());
        }
        let mut numbers = numbers.into_iter();
        let mut best = numbers.next().expect("at least one argument");
        for next in numbers {
            if compare_numbers(watch, &next, &best)? == Some(better) {
                best = next;
            }
        }
        Ok(if inexact { Number::Flonum(best.to_f64()) } else { best }.into())
    })))
}
fn max<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    extreme(mem, args, Ordering::Greater)
}
fn min<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    extreme(mem, args, Ordering::Less)
}

fn number_p<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    truth(is_number(mem, args[0]))
}
fn rational_p<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    truth(match args[0].as_flonum() {
        Some(flonum) => flonum.is_finite(),
        None => is_number(mem, args[0]),
    })
}
fn integer_p<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    truth(decode(mem, args[0]).is_some_and(|number| number.is_integer()))
}
fn exact_p<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    truth(number(mem, args[0])?.is_exact())
}
fn inexact_p<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    truth(!number(mem, args[0])?.is_exact())
}
fn exact_integer_p<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    truth(is_exact_integer(mem, args[0]))
}
fn exact_rational_p<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    truth(args[0].as_flonum().is_none() && is_number(mem, args[0]))
}
fn finite_p<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    truth(!matches!(number(mem, args[0])?, Number::Flonum(flonum) if !flonum.is_finite()))
}
fn infinite_p<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    truth(matches!(number(mem, args[0])?, Number::Flonum(flonum) if flonum.is_infinite()))
}
fn nan_p<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    truth(matches!(number(mem, args[0])?, Number::Flonum(flonum) if flonum.is_nan()))
}
fn zero_p<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    truth(match number(mem, args[0])? {
        Number::Flonum(flonum) => flonum == 0.0,
        number => number.signum() == 0,
    })
}
fn positive_p<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    truth(number(mem, args[0])?.signum() > 0)
}
fn negative_p<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    truth(number(mem, args[0])?.signum() < 0)
}
fn odd_p<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    truth(arithmetic::is_odd(mem, args[0])?)
}
fn even_p<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    truth(!arithmetic::is_odd(mem, args[0])?)
}

fn abs<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    arithmetic::abs(mem, args[0])
}
fn quotient<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    arithmetic::divide(mem, Division::Quotient, args[0], args[1])
}
fn remainder<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    arithmetic::divide(mem, Division::Remainder, args[0], args[1])
}
fn floor_quotient<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    arithmetic::divide(mem, Division::FloorQuotient, args[0], args[1])
}
fn modulo<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    arithmetic::divide(mem, Division::Modulo, args[0], args[1])
}
fn gcd<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    arithmetic::gcd(mem, args)
}
fn lcm<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    arithmetic::lcm(mem, args)
}

fn exact<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    rounding::exact(mem, args[0])
}
fn inexact<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    rounding::inexact(mem, args[0])
}
fn floor<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    rounding::round(mem, Rounding::Floor, args[0])
}
fn ceiling<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    rounding::round(mem, Rounding::Ceiling, args[0])
}
fn truncate<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    rounding::round(mem, Rounding::Truncate, args[0])
}
fn round<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    rounding::round(mem, Rounding::Round, args[0])
}
fn numerator<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    rounding::part(mem, true, args[0])
}
fn denominator<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    rounding::part(mem, false, args[0])
}
fn rationalize<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    rounding::rationalize(mem, args[0], args[1])
}

fn square<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    arithmetic::mul(mem, args[0], args[0])
}
fn sqrt<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    functions::sqrt(mem, args[0])
}
fn integer_sqrt<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    functions::integer_sqrt(mem, args[0])
}
fn expt<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    functions::expt(mem, args[0], args[1])
}
fn log<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    functions::log(mem, args[0], args.get(1).copied())
}
fn atan<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    match args {
        [y, x] => functions::atan2(mem, *y, *x),
        _ => functions::apply(mem, functions::ATAN, args[0]),
    }
}
fn function<'m>(mem: Mem<'m, '_>, args: &[Value<'m>], function: Function) -> Result<'m> {
    functions::apply(mem, function, args[0])
}
fn exp<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    function(mem, args, functions::EXP)
}
fn sin<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    function(mem, args, functions::SIN)
}
fn cos<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    function(mem, args, functions::COS)
}
fn tan<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    function(mem, args, functions::TAN)
}
fn asin<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    function(mem, args, functions::ASIN)
}
fn acos<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    function(mem, args, functions::ACOS)
}

// (scheme complex), as far as real numbers go.

fn real_part<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    number(mem, args[0]).map(|_| args[0])
}
fn imag_part<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    number(mem, args[0]).map(|_| Value::fixnum(0))
}
fn angle<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let decoded = number(mem, args[0])?;
    match decoded {
        _ if decoded.signum() < 0 => mem.flonum(std::f64::consts::PI),
        Number::Flonum(flonum) if flonum.is_nan() => Ok(args[0]),
        Number::Flonum(flonum) if flonum.is_sign_negative() => mem.flonum(std::f64::consts::PI),
        _ => Ok(Value::fixnum(0)),
    }
}
fn make_rectangular<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    number(mem, args[0])?;
    match number(mem, args[1])? {
        Number::Small(0) => Ok(args[0]),
        _ => Err(error("there are no complex numbers here", args)),
    }
}
fn make_polar<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    make_rectangular(mem, args)
}

// Text.

fn radix<'m>(args: &[Value<'m>]) -> Result<'m, u32> {
    match args.get(1) {
        None => Ok(10),
        Some(value) => match value.as_fixnum() {
            Some(radix @ 2..=36) => Ok(radix as u32),
            Some(_) => Err(out_of_range("radix (2 to 36)", *value)),
            None => Err(wrong_type("a radix", *value)),
        },
    }
}

fn number_to_string<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let radix = radix(args)?;
    if let (Some(fixnum), 10) = (args[0].as_fixnum(), radix) {
        return mem.string(&fixnum.to_string());
    }
    let number = number(mem, args[0])?;
    perform(mem, text::length(&number), move |watch| {
        text::format(watch, &number, radix).map(Answer::Text)
    })
}

fn string_to_number<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let string = mem.object::<StringObject>(args[0]);
    let string = string.ok_or_else(|| wrong_type("a string", args[0]))?;
    let radix = radix(args)?;
    let text = mem.text(string);
    perform(mem, text::length_of_text(&text), move |watch| {
        Ok(text::parse(watch, &text, radix)?.map_or(Answer::Truth(false), Answer::Number))
    })
}

/// Bit operations on exact integers of any size, in two's complement (SRFI 151's names).
fn bitwise<'m>(
    mem: Mem<'m, '_>,
    args: &[Value<'m>],
    start: i64,
    small: fn(i64, i64) -> i64,
    big: fn(num_bigint::BigInt, &num_bigint::BigInt) -> num_bigint::BigInt,
) -> Result<'m> {
    if args.iter().all(|value| value.is_fixnum()) {
        let words = args.iter().map(|value| value.as_fixnum().expect("a fixnum"));
        return crate::numbers::encode_small(mem, words.fold(start, small));
    }
    let mut result = num_bigint::BigInt::from(start);
    for &value in args {
        result = big(result, &exact_integer(mem, value)?);
    }
    crate::numbers::encode_big(mem, &result)
}
fn bitwise_and<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    bitwise(mem, args, -1, |a, b| a & b, |a, b| a & b)
}
fn bitwise_ior<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    bitwise(mem, args, 0, |a, b| a | b, |a, b| a | b)
}
fn bitwise_xor<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    bitwise(mem, args, 0, |a, b| a ^ b, |a, b| a ^ b)
}
fn bitwise_not<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    crate::numbers::encode_big(mem, &!exact_integer(mem, args[0])?)
}
fn arithmetic_shift<'m>(mem: Mem<'m, '_>, args: &[Value<'m>]) -> Result<'m> {
    let integer = exact_integer(mem, args[0])?;
    let Some(shift) = args[1].as_fixnum() else {
        return Err(wrong_type("a fixnum", args[1]));
    };
    if shift <= 0 {
        return crate::numbers::encode_big(mem, &(integer >> shift.unsigned_abs()));
    }
    if integer.bits() + shift as u64 > crate::numbers::most_bits(mem) {
        return Err(crate::numbers::too_large());
    }
    crate::numbers::encode_big(mem, &(integer << shift as u64))
}

/// The builtins of this file.
pub const TABLE: &[Builtin] = &[
    Builtin::new("+", 0, MANY, add),
    Builtin::new("*", 0, MANY, mul),
    Builtin::new("-", 1, MANY, sub),
    Builtin::new("/", 1, MANY, div),
    Builtin::new("=", 1, MANY, equal),
    Builtin::new("<", 1, MANY, less),
    Builtin::new(">", 1, MANY, greater),
    Builtin::new("<=", 1, MANY, not_greater),
    Builtin::new(">=", 1, MANY, not_less),
    Builtin::new("max", 1, MANY, max),
    Builtin::new("min", 1, MANY, min),
    Builtin::new("number?", 1, 1, number_p),
    Builtin::new("complex?", 1, 1, number_p),
    Builtin::new("real?", 1, 1, number_p),
    Builtin::new("rational?", 1, 1, rational_p),
    Builtin::new("integer?", 1, 1, integer_p),
    Builtin::new("exact?", 1, 1, exact_p),
    Builtin::new("inexact?", 1, 1, inexact_p),
    Builtin::new("exact-integer?", 1, 1, exact_integer_p),
    Builtin::new("exact-rational?", 1, 1, exact_rational_p),
    Builtin::new("finite?", 1, 1, finite_p),
    Builtin::new("infinite?", 1, 1, infinite_p),
    Builtin::new("nan?", 1, 1, nan_p),
    Builtin::new("zero?", 1, 1, zero_p),
    Builtin::new("positive?", 1, 1, positive_p),
    Builtin::new("negative?", 1, 1, negative_p),
    Builtin::new("odd?", 1, 1, odd_p),
    Builtin::new("even?", 1, 1, even_p),
    Builtin::new("abs", 1, 1, abs),
    Builtin::new("magnitude", 1, 1, abs),
    Builtin::new("quotient", 2, 2, quotient),
    Builtin::new("remainder", 2, 2, remainder),
    Builtin::new("modulo", 2, 2, modulo),
    Builtin::new("truncate-quotient", 2, 2, quotient),
    Builtin::new("truncate-remainder", 2, 2, remainder),
    Builtin::new("floor-quotient", 2, 2, floor_quotient),
    Builtin::new("floor-remainder", 2, 2, modulo),
    Builtin::new("gcd", 0, MANY, gcd),
    Builtin::new("lcm", 0, MANY, lcm),
    Builtin::new("exact", 1, 1, exact),
    Builtin::new("inexact->exact", 1, 1, exact),
    Builtin::new("inexact", 1, 1, inexact),
    Builtin::new("exact->inexact", 1, 1, inexact),
    Builtin::new("floor", 1, 1, floor),
    Builtin::new("ceiling", 1, 1, ceiling),
    Builtin::new("truncate", 1, 1, truncate),
    Builtin::new("round", 1, 1, round),
    Builtin::new("numerator", 1, 1, numerator),
    Builtin::new("denominator", 1, 1, denominator),
    Builtin::new("rationalize", 2, 2, rationalize),
    Builtin::new("square", 1, 1, square),
    Builtin::new("sqrt", 1, 1, sqrt),
    Builtin::new("%integer-sqrt", 1, 1, integer_sqrt),
    Builtin::new("expt", 2, 2, expt),
    Builtin::new("exp", 1, 1, exp),
    Builtin::new("log", 1, 2, log),
    Builtin::new("sin", 1, 1, sin),
    Builtin::new("cos", 1, 1, cos),
    Builtin::new("tan", 1, 1, tan),
    Builtin::new("asin", 1, 1, asin),
    Builtin::new("acos", 1, 1, acos),
    Builtin::new("atan", 1, 2, atan),
    Builtin::new("real-part", 1, 1, real_part),
    Builtin::new("imag-part", 1, 1, imag_part),
    Builtin::new("angle", 1, 1, angle),
    Builtin::new("make-rectangular", 2, 2, make_rectangular),
    Builtin::new("make-polar", 2, 2, make_polar),
    Builtin::new("number->string", 1, 2, number_to_string),
    Builtin::new("string->number", 1, 2, string_to_number),
    Builtin::new("bitwise-and", 0, MANY, bitwise_and),
    Builtin::new("bitwise-ior", 0, MANY, bitwise_ior),
    Builtin::new("bitwise-xor", 0, MANY, bitwise_xor),
    Builtin::new("bitwise-not", 1, 1, bitwise_not),
    Builtin::new("arithmetic-shift", 2, 2, arithmetic_shift),
];
