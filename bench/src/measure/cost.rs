//! What recording costs: found out on this machine, by doing the same thing with and without.
//!
//! A thread maps and unmaps a page some thousand times, and sleeps for a moment some hundred times, in slices in
//! which events are recorded and slices in which they are not, by turns; its processor time (which
//! neighbours on the machine do not disturb) says what a record costs, with and without a call chain. A
//! run's cost is then its records at that price, and the processor time of the thread that read them.

use std::sync::Arc;

use firn_heap::sys::ops::Scratch;
use firn_heap::sys::thread::thread_cpu_time_ns;

use super::gather::Gathered;
use crate::perf::sampler::Options;
use crate::perf::{Sampler, Window};
use crate::schema::{Cost, Source};

/// Nanoseconds of processor time for a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// Without a call chain.
    pub plain: f64,
    /// With one, and what else a sleep causes.
    pub chained: f64,
}

/// Slices of each kind.
const SLICES: usize = 6;
/// Mappings in a slice.
const ROUNDS: usize = 1_000;
/// Records of a mapping and its end: lock, system calls, downgrade.
const RECORDS: f64 = 11.0;
/// Sleeps in a slice.
const SLEEPS: usize = 60;

impl Price {
    /// Finds it out; some two hundred milliseconds. `None` where nothing can be recorded.
    pub fn find() -> Option<Price> {
        let sampler = Sampler::start(Options::default(), Arc::new(Window::default())).ok()?;
        let map = || {
            for _ in 0..ROUNDS {
                drop(Scratch::anonymous(1));
            }
        };
        let sleep = || {
            for _ in 0..SLEEPS {
                std::thread::sleep(std::time::Duration::from_micros(1));
            }
        };
        let plain = difference(&sampler, &map) / (ROUNDS as f64 * RECORDS);
        let chained = difference(&sampler, &sleep) / SLEEPS as f64;
        Some(Price { plain: plain.max(0.0), chained: chained.max(0.0) })
    }
}

/// Processor time of `work` with recording less that without, in nanoseconds: of the medians.
fn difference(sampler: &Sampler, work: &dyn Fn()) -> f64 {
    let mut times = [Vec::new(), Vec::new()];
    work();
    for i in 0..2 * SLICES {
        // On, off, off, on: a trend weighs on both alike.
        let on = matches!(i % 4, 0 | 3);
        sampler.enable(on);
        let before = thread_cpu_time_ns();
        work();
        times[usize::from(on)].push(thread_cpu_time_ns() - before);
    }
    let [without, with] = times.map(|mut t| {
        t.sort_unstable();
        t[t.len() / 2] as f64
    });
    with - without
}

/// The cost of a measurement during which the process used `cpu_s` seconds of processor time in `seconds`
/// seconds.
pub fn of(gathered: &Gathered, price: Option<Price>, cpu_s: f64, seconds: f64) -> Option<Cost> {
    let (recording, price) = (gathered.recording.as_ref()?, price?);
    let span = recording.span.1.saturating_sub(recording.span.0) as f64 / 1e9;
    let (records, chained) = (recording.quality.records as f64, recording.chained as f64);
    let spent =
        (records - chained) * price.plain + chained * price.chained + recording.cpu_ns as f64;
    let part = spent / 1e9 / span.max(1e-9) * seconds;
    let percent = 100.0 * part / (cpu_s - part).max(1e-9);
    Some(Cost {
        what: format!(
            "processor seconds of the process in the window; a record costs {:.0} ns here, with a call \
             chain {:.0} ns, and {:.2} s went into reading them",
            price.plain,
            price.chained,
            recording.cpu_ns as f64 / 1e9
        ),
        with: cpu_s,
        without: cpu_s - part,
        percent,
        flagged: percent > 5.0,
        source: Source::Program,
        events_per_s: records / span.max(1e-9),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_costs_less_than_ten_microseconds_and_more_than_nothing() {
        let Some(price) = Price::find() else {
            println!("skipped: the kernel's events cannot be recorded here");
            return;
        };
        assert!(price.plain > 0.0 && price.plain < 10_000.0, "{price:?}");
        assert!(price.chained < 100_000.0, "{price:?}");
    }
}
