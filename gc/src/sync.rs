//! The primitives that the handshake is built on, named in one place so that the loom model in `tests/`
//! can compile [`crate::safepoint`] against loom's.

pub use std::sync::atomic::{AtomicU32, Ordering};
pub use std::sync::{Condvar, Mutex, MutexGuard};
