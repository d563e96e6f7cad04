//! What recording costs: found out on this machine, by doing the same thing with and without.
//!
//! A thread maps and unmaps a page some thousand times, and sleeps for a moment some hundred times, in slices in
//! which events are recorded and slices in which they are not, by turns; its processor time (from which neighbours on
//! the machine take less than from the time of day) says what a record costs, with and without a call chain. A price is
//! the median of the differences within pairs of slices, and has the interval that such a median has by its ranks,
//! whatever the distribution. A system call that is let go by the filter has a price, too: the `ioctl`s that install pages
//! are let go, by thousands. A run's cost is then its records at their price, a call for each page that was installed (an
//! upper bound: one call may install many), and the processor time of the thread that read the records. What is
//! not in it: other calls that are let go, of which there are few.

use std::io::IsTerminal;
use std::sync::Arc;

use firn_heap::sys::ops::Scratch;
use firn_heap::sys::thread::thread_cpu_time_ns;

use super::collect::Collector;
use super::gather::Gathered;
use crate::perf::analysis::overlap;
use crate::perf::registers;
use crate::perf::sampler::Options;
use crate::perf::{Sampler, Window};
use crate::schema::{Cost, Source};

/// A number and the interval that it lies in with 95 %.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// From.
    pub low: f64,
    /// To.
    pub high: f64,
}

/// Nanoseconds of processor time for a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// Without a call chain.
    pub plain: Estimate,
    /// With one, and what else a sleep causes.
    pub chained: Estimate,
    /// A system call that is not followed.
    pub let_go: Estimate,
}

/// Pairs of slices.
const PAIRS: usize = 32;
/// Mappings in a slice.
const ROUNDS: usize = 200;
/// Records of a mapping and its end: lock, downgrade, beginnings of the calls (and their ends, where those are followed).
const RECORDS: f64 = if registers::WANTED == 0 { 11.0 } else { 9.0 };
/// Sleeps in a slice.
const SLEEPS: usize = 20;
/// Calls that are not followed, in a slice.
const CALLS: usize = 2000;

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
        let call = || {
            for _ in 0..CALLS {
                // An `ioctl` whatever standard input is.
                std::hint::black_box(std::io::stdin().is_terminal());
            }
        };
        Some(Price {
            plain: difference(&sampler, &map, ROUNDS as f64 * RECORDS),
            chained: difference(&sampler, &sleep, SLEEPS as f64),
            let_go: difference(&sampler, &call, CALLS as f64),
        })
    }
}

/// Processor time of `work` with recording less that without, in nanoseconds, for each of `parts` parts.
fn difference(sampler: &Sampler, work: &dyn Fn(), parts: f64) -> Estimate {
    let slice = |on: bool| {
        sampler.enable(on);
        let before = thread_cpu_time_ns();
        work();
        thread_cpu_time_ns() as f64 - before as f64
    };
    work();
    let pair = |i: usize| {
        // On, off, off, on: a trend weighs on both alike.
        let on_first = i.is_multiple_of(2);
        let (first, second) = (slice(on_first), slice(!on_first));
        (if on_first { first - second } else { second - first }) / parts
    };
    median((0..PAIRS).map(pair).collect())
}

/// The median, never below zero, with its interval.
fn median(mut differences: Vec<f64>) -> Estimate {
    differences.sort_by(f64::total_cmp);
    let n = differences.len();
    // Ranks of the binomial distribution with 95 %, by its normal approximation.
    let reach = 0.98 * (n as f64).sqrt();
    let low = (n as f64 / 2.0 - reach).floor().max(1.0) as usize - 1;
    let at = |i: usize| differences[i.min(n - 1)].max(0.0);
    Estimate { value: at(n / 2), low: at(low), high: at(n - 1 - low) }
}

/// System calls that are not followed, at most: one for each page that was installed by cycles that reach into `window`.
pub fn let_go(collector: &Collector, window: (u64, u64)) -> u64 {
    let cycles = collector.snapshot().cycles;
    let within = cycles.iter().filter(|c| overlap((c.begin, c.end), window) > 0);
    let pages = within.map(|c| c.pages_copied + c.pages_moved + c.pages_dense).sum();
    if registers::WANTED == 0 { 0 } else { pages }
}

/// The cost of a measurement during which `calls` system calls were let go and the process used `cpu_s` seconds of processor time in `seconds`
/// seconds.
pub fn of(
    gathered: &Gathered,
    price: Option<Price>,
    calls: u64,
    cpu_s: f64,
    seconds: f64,
) -> Option<Cost> {
    let (recording, price) = (gathered.recording.as_ref()?, price?);
    let span = recording.span.1.saturating_sub(recording.span.0) as f64 / 1e9;
    let (records, chained) = (recording.quality.records as f64, recording.chained as f64);
    // Seconds in the window, at these prices.
    let part = |of: &dyn Fn(&Estimate) -> f64| {
        let plain = (records - chained) * of(&price.plain);
        let spent = plain + chained * of(&price.chained) + recording.cpu_ns as f64;
        (spent / span.max(1e-9) * seconds + calls as f64 * of(&price.let_go)) / 1e9
    };
    let percent = |part: f64| 100.0 * part / (cpu_s - part).max(1e-9);
    let (plain, chain, call) = (price.plain, price.chained, price.let_go);
    let spent = part(&|e| e.value);
    Some(Cost {
        what: "processor seconds of the process in the window".to_owned(),
        how: format!(
            "a record costs {:.0} ns here ({:.0} to {:.0}), with a call chain {:.0} ns ({:.0} to {:.0}), {:.0} % of \
             them are of system calls; one that is not recorded costs {:.0} ns, of which there were {calls} at most; \
             {:.2} s went into reading",
            plain.value,
            plain.low,
            plain.high,
            chain.value,
            chain.low,
            chain.high,
            100.0 * recording.calls as f64 / records.max(1.0),
            call.value,
            recording.cpu_ns as f64 / 1e9
        ),
        with: cpu_s,
        without: cpu_s - spent,
        percent: percent(spent),
        percent_interval: Some((percent(part(&|e| e.low)), percent(part(&|e| e.high)))),
        flagged: percent(spent) > 5.0,
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
        let Estimate { value, low, high } = price.plain;
        assert!(value > 0.0 && value < 10_000.0, "{price:?}");
        assert!(low <= value && value <= high, "{price:?}");
        assert!(price.chained.value < 100_000.0, "{price:?}");
        // What is let go costs less than what is recorded: a beginning, and the lock's records.
        assert!(price.let_go.value < price.plain.value, "{price:?}");
    }

    #[test]
    fn an_outlier_moves_neither_a_price_nor_its_interval() {
        let mut all: Vec<f64> = (1..=32).map(f64::from).collect();
        all[31] = 1e9;
        let Estimate { value, low, high } = median(all);
        assert_eq!((low, value, high), (10.0, 17.0, 23.0));
        assert_eq!(median(vec![-3.0]).value, 0.0);
    }
}
