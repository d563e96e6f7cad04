//! [`World`]: what all threads of an interpreter share outside the heap.

/// See the module.
#[derive(Default)]
pub struct World {}
