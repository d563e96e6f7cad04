//! Where a long operation runs: outside of the stretch, in a blocking section.
//!
//! In a stretch the thread holds up every collection, and nobody can interrupt it. That does not matter to an
//! operation of some milliseconds, which is done there and then. One that may take longer, by the sizes of its
//! operands, has them copied to native memory, as any operation on them has, and leaves the stretch with them
//! ([`TrapKind::Long`]); [`Vm::compute`] does it on the same thread while the thread counts as stopped, and makes
//! the result the value of the builtin. Collections go on meanwhile. Ctrl-C and the end of the thread are looked for
//! between the pieces of which [`super::large`] puts the operation together, some 20 ms each: whoever is interrupted
//! leaves nothing behind that computes on.
//!
//! What stays in the stretch whatever its size takes one pass over the digits (sums, shifts, comparisons, bit
//! operations, hashes): 8 MB at most. Texts of programs and long data are read outside as a whole, and so are the numbers
//! in them.

use super::large::{Stopped, Watch, work};
use super::{Number, large};
use crate::mem::Mem;
use crate::object::{BignumObject, Ratnum};
use crate::trap::{Result, Trap, TrapKind};
use crate::value::{Slot, Value};
use crate::vm::{Failure, Vm, register};

/// What an operation comes to.
pub enum Answer {
    /// A number.
    Number(Number),
    /// A text.
    Text(String),
    /// A truth value.
    Truth(bool),
}

impl Answer {
    fn encode<'m>(&self, mem: Mem<'m, '_>) -> Result<'m> {
        match self {
            Answer::Number(number) => number.encode(mem),
            Answer::Text(text) => mem.string(text),
            Answer::Truth(truth) => Ok(Value::boolean(*truth)),
        }
    }
}

impl From<Number> for Answer {
    fn from(number: Number) -> Answer {
        Answer::Number(number)
    }
}

impl From<num_bigint::BigInt> for Answer {
    fn from(number: num_bigint::BigInt) -> Answer {
        Answer::Number(Number::Big(number))
    }
}

/// An operation, with its operands.
pub type Work = Box<dyn FnOnce(&Watch<'_>) -> std::result::Result<Answer, Stopped> + Send>;

/// How long an operation may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Length {
    /// Some 20 ms at most.
    Short,
    /// Nobody knows.
    Long,
}

/// [`Length::Long`] if it is so.
pub fn long_if(is_long: bool) -> Length {
    if is_long { Length::Long } else { Length::Short }
}

/// Does an operation: at once if it is short.
///
/// # Errors
/// The operation's, or the trap that does it outside of the stretch.
pub fn perform<'m>(
    mem: Mem<'m, '_>,
    length: Length,
    operation: impl FnOnce(&Watch<'_>) -> std::result::Result<Answer, Stopped> + Send + 'static,
) -> Result<'m> {
    match length {
        Length::Short => now(operation(&Watch::NOBODY)).encode(mem),
        Length::Long => Err(outside(Box::new(operation))),
    }
}

/// What an operation that nobody watched came to.
pub fn now<T>(result: std::result::Result<T, Stopped>) -> T {
    result.expect("nobody stops it")
}

/// The trap that does an operation outside of the stretch.
#[cold]
#[inline(never)]
pub fn outside<'m>(work: Work) -> Trap<'m> {
    TrapKind::Long { work, name: None }.into()
}

/// Of a product. That of fractions ends with a division by the common divisor, as all operations on fractions do.
pub fn product(a: &Number, b: &Number) -> Length {
    match (a, b) {
        (Number::Flonum(_), _) | (_, Number::Flonum(_)) => Length::Short,
        (Number::Ratio(_), _) | (_, Number::Ratio(_)) => fraction(a.bits() + b.bits()),
        _ => long_if(work(a.bits(), b.bits()) > large::PRODUCT),
    }
}

/// Of a sum: only of fractions it takes more than a pass.
pub fn sum(a: &Number, b: &Number) -> Length {
    match (a, b) {
        (Number::Ratio(_), _) | (_, Number::Ratio(_)) => product(a, b),
        _ => Length::Short,
    }
}

/// Of an exact quotient.
pub fn ratio(a: &Number, b: &Number) -> Length {
    match (a, b) {
        (Number::Flonum(_), _) | (_, Number::Flonum(_)) => Length::Short,
        _ => fraction(a.bits() + b.bits()),
    }
}

/// Of reducing a fraction whose parts have so many bits together.
pub fn fraction(bits: u64) -> Length {
    long_if(work(bits, bits) > large::GCD)
}

/// Of an operation on all of these numbers, one after the other.
pub fn all<'m>(mem: Mem<'m, '_>, numbers: &[Value<'m>]) -> Length {
    let integer = |value: Value<'m>| mem.object::<BignumObject>(value).map_or(1, |big| big.len());
    let (mut words, mut are_fractions) = (0, false);
    for &value in numbers {
        words += match mem.object::<Ratnum>(value) {
            Some(ratio) => {
                are_fractions = true;
                let ratio: &Ratnum = &ratio;
                let part = |slot: &Slot| integer(slot.load(mem.scope()).into());
                part(&ratio.numerator) + part(&ratio.denominator)
            }
            None => integer(value),
        };
    }
    let bits = 64 * words as u64;
    if are_fractions {
        return long_if(work(work(bits, bits), numbers.len() as u64) > large::GCD);
    }
    long_if(work(bits, bits) > large::PRODUCT)
}

impl Vm<'_, '_> {
    /// Does a long operation of the builtin `name`; its result goes to the register RESULT. If it was interrupted there is
    /// none, and whoever runs the machine sees why.
    ///
    /// # Errors
    /// The operation's, and the end of memory.
    pub fn compute(
        &mut self,
        work: Work,
        name: Option<&'static str>,
    ) -> std::result::Result<(), Failure> {
        let Ok(answer) = self.watched(work) else { return Ok(()) };
        self.settle(register::RESULT, |mem, _| answer.encode(mem)).map_err(|failure| {
            match (failure, name) {
                (Failure::Error(kind, message), Some(name)) => {
                    Failure::Error(kind, crate::trap::named(name, &message))
                }
                (failure, _) => failure,
            }
        })
    }

    /// Runs what touches no heap while the thread counts as stopped, until it is through or somebody ends it.
    pub(crate) fn watched<R: Send>(
        &mut self,
        work: impl FnOnce(&Watch<'_>) -> std::result::Result<R, Stopped> + Send,
    ) -> std::result::Result<R, Stopped> {
        let (world, terminated) = (self.world.clone(), self.terminated.clone());
        self.cx.blocking(move || work(&Watch::on(&[&*world.interrupted, &*terminated])))
    }
}
