//! Progress on a terminal, silence in a pipe, and the one flag that ends a run early.
//!
//! A workload sets a label and a share; a ticker thread draws them ten times a second. Drawing is
//! off unless standard error is a terminal, so that a log or a pipe never sees control characters.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use firn::Heap;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::live::View;
use crate::live::feed::Feed;
use crate::perf::Window;

/// The flag that ends a run early: set by Ctrl-C or SIGTERM, or by a mutator that failed. Polled
/// by every workload's loops; all accesses are relaxed, because it publishes nothing else.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    flags: Arc<StopFlags>,
}

#[derive(Debug, Default)]
struct StopFlags {
    stop: AtomicBool,
    interrupted: AtomicBool,
}

/// A signal that comes sooner after the first is the same wish to end.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

impl Stop {
    /// A flag that nothing has raised.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Whether loops should end.
    #[inline]
    pub fn requested(&self) -> bool {
        self.flags.stop.load(Ordering::Relaxed)
    }

    /// Whether the user asked for the end: the report is then marked partial.
    pub fn interrupted(&self) -> bool {
        self.flags.interrupted.load(Ordering::Relaxed)
    }

    /// Ends the run because a part of it failed.
    pub fn abort(&self) {
        self.flags.stop.store(true, Ordering::Relaxed);
    }

    /// Ends the run because the user asked for it.
    pub fn interrupt(&self) {
        self.flags.interrupted.store(true, Ordering::Relaxed);
        self.abort();
    }

    /// Makes SIGINT and SIGTERM raise the flag; a second signal exits at once with code 130, unless it comes so soon
    /// that nobody can have meant it: `timeout` signals the process that it watches and then its group.
    /// Only one flag of a process can be connected: later calls return false and change nothing.
    pub fn connect_signals(&self) -> bool {
        let stop = self.clone();
        let mut first: Option<Instant> = None;
        ctrlc::set_handler(move || {
            if first.is_some_and(|first| first.elapsed() > SAME_SIGNAL) {
                std::process::exit(130);
            }
            first.get_or_insert_with(Instant::now);
            stop.interrupt();
        })
        .is_ok()
    }
}

/// What a run shows of its advance. Cheap to share: workloads hold `&Progress`.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    done: AtomicU64,
    view: Option<View>,
}

/// Steps of a whole bar.
const STEPS: u64 = 1000;

impl Progress {
    /// A bar on standard error if that is a terminal and `wanted`, otherwise silence.
    pub fn new(wanted: bool) -> Progress {
        Progress::with(wanted && std::io::stderr().is_terminal(), false)
    }

    /// The same, with the running numbers of [`crate::live`] below it if `live`.
    pub fn live(live: bool) -> Progress {
        Progress::with(std::io::stderr().is_terminal(), live)
    }

    fn with(drawn: bool, live: bool) -> Progress {
        let target = || match drawn {
            true => ProgressDrawTarget::stderr_with_hz(10),
            false => ProgressDrawTarget::hidden(),
        };
        let view = (drawn && live).then(|| View::start(target())).flatten();
        let bar = match &view {
            Some(view) => view.add(ProgressBar::new(STEPS)),
            None => ProgressBar::with_draw_target(Some(STEPS), target()),
        };
        let style = ProgressStyle::with_template("{msg:<26} [{bar:30}] {percent:>3} %  {elapsed}")
            .expect("constant template")
            .progress_chars("=> ");
        bar.set_style(style);
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Progress { bar, done: AtomicU64::new(0), view }
    }

    /// A progress that shows nothing, for tests and libraries.
    pub fn silent() -> Progress {
        Progress::new(false)
    }

    /// A run begins: a live view shows what happens in `window`, and on `heap` if there is one.
    pub fn watch(&self, heap: Option<&Heap>, window: &Arc<Window>) {
        if let Some(view) = &self.view {
            let feed = heap.map(|heap| {
                let feed = Arc::new(Feed::default());
                heap.add_listener(feed.clone());
                feed
            });
            view.watch(feed, window.clone());
        }
    }

    /// Names what is going on now.
    pub fn stage(&self, label: &str) {
        if !self.bar.is_hidden() {
            self.bar.set_message(label.to_owned());
        }
    }

    /// Sets the share of the run that is done, from 0 to 1. Cheap when nothing visible changes.
    pub fn share(&self, share: f64) {
        let step = (share.clamp(0.0, 1.0) * STEPS as f64) as u64;
        // Relaxed: only the drawing depends on it.
        if self.done.swap(step, Ordering::Relaxed) != step && !self.bar.is_hidden() {
            self.bar.set_position(step);
        }
    }

    /// Writes a line to standard error, above the bar if there is one. For what a log should have too.
    pub fn note(&self, line: &str) {
        if self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(view) = &self.view {
            view.clear();
        }
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abort_stops_without_counting_as_interrupted() {
        let stop = Stop::new();
        assert!(!stop.requested());
        stop.abort();
        assert!(stop.requested() && !stop.interrupted());
        stop.interrupt();
        assert!(stop.interrupted());
    }

    #[test]
    fn a_silent_progress_accepts_everything() {
        let progress = Progress::silent();
        progress.stage("filling");
        progress.share(2.0);
        progress.share(-1.0);
        progress.finish();
    }
}
