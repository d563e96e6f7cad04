//! The `firn` program: workloads, measurement and reports over the `firn` runtime.
//!
//! The library holds everything that the binary does, so that tests call the same code: a
//! workload runs on a heap and returns what it found ([`workloads`]), measurement turns raw
//! observations into figures ([`measure`]), `firn stress` puts the two together and prints
//! ([`stress`]). Only [`cli`] prints errors and chooses exit codes.

pub mod census;
pub mod cli;
pub mod clock;
pub mod compare;
pub mod doctor;
pub mod exit;
pub mod kernels;
pub mod live;
pub mod measure;
pub mod micro;
pub mod perf;
pub mod progress;
pub mod report;
pub mod results;
pub mod scenario;
pub mod schema;
pub mod scheme_cmd;
pub mod scheme_compare;
pub mod selftest;
pub mod stress;
pub mod trace;
pub mod workloads;
