//! `write` and its like for objects in which a number has so many digits that they are not computed in a stretch.
//!
//! The digits are computed, and what a stream gets is written, in blocking sections; the text of the object is made in
//! a stretch between them, of the digits that are known by then. Called by the table of [`super::ports`].

use super::ports;
use crate::numbers::Number;
use crate::numbers::text::format;
use crate::port::flag;
use crate::print::{Mode, Printed};
use crate::trap::{Trap, TrapKind};
use crate::value::Value;
use crate::vm::{Failure, register};

/// Writes the object that was kept, with its port, in which this number is of many digits: between two stretches.
#[cold]
pub(super) fn put<'m>(number: Number, mode: Mode) -> Trap<'m> {
    TrapKind::Outside(Box::new(move |vm| {
        let kept = vm.kept();
        vm.copy_register(kept, register::RESULT);
        vm.settle(register::PRINTED, |mem, registers| {
            let kept = mem.element(registers, register::RESULT).as_pair().expect("kept");
            Ok(mem.car(kept))
        })?;
        let Ok(text) = vm.watched(|watch| format(watch, &number, 10)) else { return Ok(()) };
        let most = vm.world.most_text;
        let printed = vm.text_of(register::PRINTED, mode, most, vec![(number, text)])?;
        vm.set(register::PRINTED, |_| Value::FALSE);
        let text = match printed {
            Printed::Whole(text) => text,
            Printed::Begins(_) => {
                return Err(Failure::Error("out-of-memory", ports::TOO_LONG.into()));
            }
            Printed::Stopped => return Ok(()),
        };
        let mut handle = None;
        vm.settle(register::RESULT, |mem, registers| {
            let kept = mem.element(registers, register::RESULT).as_pair().expect("kept");
            let port = ports::open_port(mem, mem.cdr(kept), flag::OUTPUT | flag::TEXT)?;
            if ports::is_stream(port) {
                handle = Some(port.stream);
                return Ok(Value::UNSPECIFIED);
            }
            ports::put(mem, mem.cdr(kept), &text)
        })?;
        let Some(handle) = handle else { return Ok(()) };
        let world = vm.world.clone();
        let failure = vm.cx.blocking(|| {
            let mut stream = world.streams.lock(handle)?;
            stream.put(text.as_bytes());
            if stream.wants_flush() {
                stream.flush();
            }
            stream.take_failure()
        });
        failure.map_or(Ok(()), |failure| Err(Failure::Error("file", failure)))
    }))
    .into()
}
