//! The primitives that the handshake and the stacks of marking work are built on, named in one place so that the loom
//! models in `tests/` can compile [`crate::safepoint`] and [`crate::stack`] against loom's.

pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
pub use std::sync::{Condvar, Mutex, MutexGuard};
