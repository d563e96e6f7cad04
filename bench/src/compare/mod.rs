//! `firn compare`: what is different between two groups of runs, and how sure that is.

pub mod gate;
pub mod rank;
pub mod stats;
