//! What the kernel does under us: its tracepoints, through `perf_event_open`.
//!
//! The measurement commands need to know how often `mmap_lock` was taken, in which mode, and how long
//! threads waited for it and held it. Only the kernel knows, and its tracepoints tell: in *counting*
//! mode an event is a number that the kernel increments (its cost is lost in the noise), in *ring
//! buffer* mode every event is a record with a time.
//!
//! | module | what it holds |
//! |---|---|
//! | [`tracefs`] | where events are described: ids and field offsets, read and never assumed |
//! | [`event`] | one open perf event, and everything unsafe about it |
//! | [`counter`] | [`LockCounter`]: how often the lock was taken |
//! | [`kprobes`] | the same on a kernel without the lock's tracepoints |
//! | [`btf`] | where in the kernel's structures the lock lies |
//! | [`ring`] | buffers that the kernel fills with records |
//! | [`record`] | the layout of those records |
//! | [`pair`] | from records to waits and holds |
//! | [`histogram`] | decade histograms |
//! | [`symbols`], [`syscalls`] | where a thread sleeps, and what it was doing |
//! | [`analysis`] | from records in order of time to what each thread did |
//! | [`sampler`] | [`Sampler`]: the recording of all of it |
//!
//! Whatever is missing on the machine comes back as [`Unavailable`], which names it and its remedy;
//! nothing here mounts, writes to sysctls, or pretends.

pub mod analysis;
pub mod btf;
pub mod counter;
pub mod event;
mod formats;
pub mod histogram;
pub mod kprobes;
pub mod pair;
pub mod record;
pub mod registers;
pub mod ring;
pub mod sampler;
pub mod symbols;
pub mod syscalls;
pub mod tracefs;
mod unavailable;

pub use analysis::Window;
pub use counter::{LockCounter, LockCounts};
pub use sampler::{Recording, Sampler};
pub use unavailable::Unavailable;
