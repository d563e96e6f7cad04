//! The atomics and threads that the model-checked modules use.
//!
//! [`crate::pages`] and the safepoint handshake of `firn-gc` name their atomics through `crate::sync`
//! only, so that the loom models in `tests/` can compile the very same source files against loom's
//! types: there, `crate::sync` is loom.

pub use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
