//! The registers of a thread: slots of an array in the heap, by name.
//!
//! The array is the one root of a thread of the interpreter: whatever the machine must find again after a stretch is
//! in it when the stretch ends. The slots below [`FRAMES`] have a meaning each; from there on lies the native stack
//! between two stretches. The machine reads its registers when a stretch begins and writes them when it ends; what
//! is done between stretches uses them by the same names, through [`crate::vm::register`].

/// Segment of the continuation.
pub const SEGMENT: usize = 0;
/// Words of it in use.
pub const TOP: usize = 1;
/// Return word of the frame on top of it.
pub const BACK: usize = 2;
/// `dynamic-wind` entries.
pub const WINDERS: usize = 3;
/// Exception handlers.
pub const HANDLERS: usize = 4;
/// Parameter bindings.
pub const PARAMETERS: usize = 5;
/// What a builtin had made before it was interrupted.
pub const SPARE: usize = 6;
/// The result of what was done outside, or of the whole run.
pub const RESULT: usize = 7;
/// The running thread's object.
pub const THREAD: usize = 8;
/// The cell of the procedure that raises the machine's errors.
pub const RAISE: usize = 9;
/// The cell of the procedure that leaves and enters `dynamic-wind`s.
pub const REWIND: usize = 10;
/// The error object for the end of memory.
pub const OUT_OF_MEMORY: usize = 11;
/// Memory that is given up when there is none left, so that the handler can run.
pub const RAINY_DAY: usize = 12;
/// Anything that the interpreter needs between two stretches.
pub const SCRATCH: usize = 13;
/// A closure that does nothing.
pub const IDLE: usize = 14;
/// What is being printed between two stretches.
pub const PRINTED: usize = 16;
/// Where the stack is kept between two stretches.
pub const FRAMES: usize = 17;
