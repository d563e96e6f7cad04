//! The control: what a 1 kHz probe sees while nothing of ours runs. An effect is judged against the same
//! statistic of the control, and no verdict is given on one that is not larger.

use std::fs;
use std::sync::Arc;

use crate::clock;
use crate::measure::gather::distribution;
use crate::measure::hiccup::Probe;
use crate::measure::notes::INTERVAL;
use crate::perf::Window;
use crate::progress::Stop;
use crate::schema::Noise;

/// Watches the idle machine for `seconds`, or until `stop`.
pub fn control(seconds: f64, stop: &Stop) -> Noise {
    let window = Arc::new(Window::default());
    let begin = clock::now();
    let (ticks, probe) = (busy_ticks(), Probe::start(window));
    let end = begin + clock::ns(seconds);
    while clock::now() < end && !stop.requested() {
        clock::sleep_until((clock::now() + 20_000_000).min(end));
    }
    let hiccups = probe.map(Probe::stop).unwrap_or_default();
    let elapsed = (clock::now() - begin) as f64 / 1e9;
    let busy = busy_ticks().zip(ticks).map_or(0.0, |(now, then)| {
        // The kernel's ticks of user time are a hundredth of a second by its interface.
        now.saturating_sub(then) as f64 / 100.0 / elapsed.max(1e-9)
    });
    let ns = distribution(&hiccups.filled);
    let length = hiccups.worst.last().map_or(0, |w| (w.0.saturating_sub(begin)) / INTERVAL + 1);
    let mut timeline = vec![0; length as usize];
    for (at, worst) in &hiccups.worst {
        if let Some(slot) = timeline.get_mut((at.saturating_sub(begin) / INTERVAL) as usize) {
            *slot = *worst.max(slot);
        }
    }
    Noise { seconds: elapsed, busy_cpus: busy, floor_ns: ns.p999, hiccups: ns, timeline }
}

/// Processor time that everybody on the machine has used, in ticks.
fn busy_ticks() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let words: Vec<u64> =
        stat.lines().next()?.split_whitespace().skip(1).map_while(|w| w.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    Some(
        words
            .iter()
            .enumerate()
            .filter(|(i, _)| !matches!(i, 3 | 4) && *i < 8)
            .map(|(_, w)| w)
            .sum(),
    )
}

/// Whether an effect of `ns` nanoseconds, seen in medians or in maxima, lies inside the control's noise.
pub fn inside(noise: &Noise, ns: u64, of_maxima: bool) -> bool {
    ns <= if of_maxima { noise.hiccups.max } else { noise.hiccups.p99 }
}
