//! t
pub mod clock;
pub mod exit;
pub mod measure;
pub mod progress;
pub mod workloads;
