//! A thread that sleeps a millisecond and looks at the clock: what it sees late, every thread of its
//! priority suffers, whatever it does. On the idle machine it gives the noise floor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::latency::Recorder;
use super::notes::INTERVAL;
use crate::clock;
use crate::perf::Window;

/// The probe's period, nanoseconds.
pub const PERIOD: u64 = 1_000_000;

/// What the probe saw within its window.
#[derive(Debug, Clone, Default)]
pub struct Hiccups {
    /// Lateness of each wake-up.
    pub raw: Recorder,
    /// The same, with the samples that a late one has missed filled in: a probe that is a hundred
    /// milliseconds late stands for a hundred probes.
    pub filled: Recorder,
    /// Worst of each interval, with the interval's beginning on the monotonic clock.
    pub worst: Vec<(u64, u64)>,
}

impl Hiccups {
    fn add(&mut self, at: u64, late: u64) {
        self.raw.record(late);
        let mut left = late;
        loop {
            self.filled.record(left);
            if left < PERIOD {
                break;
            }
            left -= PERIOD;
        }
        let interval = at / INTERVAL * INTERVAL;
        match self.worst.last_mut() {
            Some((begin, worst)) if *begin == interval => *worst = late.max(*worst),
            _ => self.worst.push((interval, late)),
        }
    }
}

/// The running probe.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Hiccups>>,
}

impl Probe {
    /// Starts it; only wake-ups that were due in `window` count. `None` if no thread can be started.
    pub fn start(window: Arc<Window>) -> Option<Probe> {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let builder = std::thread::Builder::new().name("HiccupProbe".to_owned());
        let thread = builder.spawn(move || watch(&window, &seen)).ok()?;
        Some(Probe { stop, thread: Some(thread) })
    }

    /// Ends it and returns what it saw.
    pub fn stop(mut self) -> Hiccups {
        // Relaxed: the join orders everything.
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("stopped once only, here");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn watch(window: &Window, stop: &AtomicBool) -> Hiccups {
    let mut hiccups = Hiccups::default();
    let mut due = clock::now() + PERIOD;
    while !stop.load(Ordering::Relaxed) {
        clock::sleep_until(due);
        let now = clock::now();
        let (begin, end) = window.get();
        if due >= begin && due <= end {
            hiccups.add(due, now - due);
            window.tally().hiccups.add(now - due);
        }
        due += PERIOD * (1 + (now - due) / PERIOD);
    }
    hiccups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_wake_up_stands_for_those_it_missed() {
        let mut h = Hiccups::default();
        h.add(5, 3_500_000);
        assert_eq!((h.raw.count(), h.filled.count(), h.filled.max()), (1, 4, 3_500_000));
        h.add(6, 10);
        assert_eq!(h.worst, [(0, 3_500_000)]);
    }

    #[test]
    fn the_probe_wakes_about_a_thousand_times_a_second() {
        let window = Arc::new(Window::default());
        let probe = Probe::start(window).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        let seen = probe.stop();
        // Missed ones are filled in, so the number holds on a busy machine too.
        assert!((100..=220).contains(&seen.filled.count()), "{}", seen.filled.count());
    }
}
