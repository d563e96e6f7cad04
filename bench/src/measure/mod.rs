//! Everything that turns raw observations into the figures of a report: latencies of operations,
//! frames against their deadlines, the collector's event stream, and the share of time that
//! mutators were left with. Nothing here runs a workload or prints.

pub mod collect;
pub mod cpu;
pub mod frames;
pub mod latency;
pub mod machine;
pub mod mmu;
