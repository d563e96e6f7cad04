//! Measurement: latencies and their percentiles, frames and their deadlines, the collector's
//! event stream, the share of time that mutators were left with, and what the kernel's events say
//! of locks and sleep. Nothing here runs a workload or prints.

pub mod causes;
pub mod collect;
pub mod cost;
pub mod cpu;
pub mod environment;
pub mod frames;
pub mod gather;
pub mod hiccup;
pub mod latency;
pub mod machine;
pub mod mmu;
pub mod notes;
pub mod proc;
pub mod rows;
