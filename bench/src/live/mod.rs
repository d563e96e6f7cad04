//! `--live`: the running numbers on a terminal, redrawn five times a second.
//!
//! The view never changes the terminal's state: it draws lines at the bottom of the ordinary screen and
//! removes them when the run ends, with the cursor visible, echo on, and no other screen. So there is
//! nothing to be restored: a panic, Ctrl-C, or even SIGKILL leaves a terminal that works, with at
//! most the last lines still standing.
//!
//! What is shown comes from the collector's events ([`feed`]) and from running totals that the measuring
//! threads keep anyway ([`tally`]); reports are never made from it. A thread named `firn-live` draws.

pub mod feed;
pub mod lines;
pub mod tally;

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::feed::Feed;
use self::lines::{LINES, Moment};
use crate::clock;
use crate::exit::Failure;
use crate::perf::Window;

/// How a measuring command shows itself beside its report.
#[derive(Debug, Clone, Default, Args)]
pub struct ShowArgs {
    /// Show the running numbers on the terminal while it runs
    #[arg(long)]
    pub live: bool,
    /// Also write the single events as a timeline for Perfetto: protobuf, or Chrome's JSON if the
    /// name ends in `.json`
    #[arg(long, value_name = "FILE.pftrace")]
    pub trace: Option<PathBuf>,
}

impl ShowArgs {
    /// Finds out before the run whether what is asked for can be done.
    ///
    /// # Errors
    /// Exit code 2 if there is no terminal to show anything on, or the trace cannot be written.
    pub fn check(&self) -> Result<(), Failure> {
        if self.live && !std::io::stderr().is_terminal() {
            return Err(Failure::usage(
                "--live: standard error is no terminal; leave --live out, or do not redirect it",
            ));
        }
        self.trace.as_deref().map_or(Ok(()), crate::trace::check)
    }
}

/// Looks that the line of longest stalls holds.
const HISTORY: usize = 50;
/// Between two drawings.
const PERIOD: Duration = Duration::from_millis(200);

/// What is watched at the moment.
#[derive(Debug)]
struct Watched {
    feed: Option<Arc<Feed>>,
    window: Arc<Window>,
    bars: Vec<ProgressBar>,
    before: Moment,
    recent: VecDeque<u64>,
}

#[derive(Debug)]
struct Shared {
    multi: MultiProgress,
    watched: Mutex<Option<Watched>>,
}

impl Shared {
    fn watched(&self) -> MutexGuard<'_, Option<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The view; it is gone when this is dropped.
#[derive(Debug)]
pub struct View {
    shared: Arc<Shared>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl View {
    /// Begins to draw on `target`: nothing, until something is watched. `None` if no thread can be
    /// started; a run is worth more than its view.
    pub fn start(target: ProgressDrawTarget) -> Option<View> {
        let multi = MultiProgress::with_draw_target(target);
        let shared = Arc::new(Shared { multi, watched: Mutex::new(None) });
        let (stop, stopped) = channel();
        let drawn = shared.clone();
        let builder = std::thread::Builder::new().name("firn-live".to_owned());
        let thread = builder
            .spawn(move || {
                while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                    draw(&drawn);
                }
            })
            .ok()?;
        Some(View { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Puts a bar above the lines.
    pub fn add(&self, bar: ProgressBar) -> ProgressBar {
        self.shared.multi.add(bar)
    }

    /// From now on the numbers are those of `window`, and of the heap that the feed listens to.
    pub fn watch(&self, feed: Option<Arc<Feed>>, window: Arc<Window>) {
        let mut watched = self.shared.watched();
        let bars = match watched.take() {
            Some(old) => old.bars,
            None => (0..LINES).map(|_| self.line()).collect(),
        };
        let before = moment(feed.as_deref(), &window);
        *watched = Some(Watched { feed, window, bars, before, recent: VecDeque::new() });
    }

    fn line(&self) -> ProgressBar {
        let style = ProgressStyle::with_template("{wide_msg}").expect("constant template");
        self.shared.multi.add(ProgressBar::new(1).with_style(style))
    }

    /// Removes the lines until something is watched again.
    pub fn clear(&self) {
        if let Some(watched) = self.shared.watched().take() {
            for bar in watched.bars {
                bar.finish_and_clear();
                self.shared.multi.remove(&bar);
            }
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed.
            let _ = thread.join();
        }
        self.clear();
        let _ = self.shared.multi.clear();
    }
}

fn moment(feed: Option<&Feed>, window: &Window) -> Moment {
    let tally = window.tally();
    let now = clock::now();
    Moment {
        now,
        collected: feed.map(Feed::read),
        read: tally.read_waits.seen(),
        write: tally.write_waits.seen(),
        hiccups: tally.hiccups.seen(),
        frames: tally.frames.seen(),
        operations: tally.operations.seen(),
        late: tally.late.load(Ordering::Relaxed),
        measuring: window.get().0 <= now,
    }
}

fn draw(shared: &Shared) {
    // Held while drawing, so that nothing is drawn after the lines were removed.
    let mut watched = shared.watched();
    let Some(watched) = watched.as_mut() else { return };
    let now = moment(watched.feed.as_deref(), &watched.window);
    let tally = watched.window.tally();
    let stall = now.collected.as_ref().map_or(0, |c| c.recent);
    let waits = tally.read_waits.recent().max(tally.write_waits.recent());
    watched.recent.push_back(stall.max(waits));
    if watched.recent.len() > HISTORY {
        watched.recent.pop_front();
    }
    let text = lines::lines(&watched.before, &now, watched.recent.make_contiguous());
    for (bar, line) in watched.bars.iter().zip(text) {
        bar.set_message(line);
    }
    watched.before = now;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_view_draws_what_is_watched_and_takes_it_away() {
        let terminal = indicatif::InMemoryTerm::new(20, 80);
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let view = View::start(target).unwrap();
        assert_eq!(terminal.contents(), "");
        let window = Arc::new(Window::default());
        view.watch(None, window.clone());
        window.tally().lock(true, 5_000_000);
        draw(&view.shared);
        // The terminal is redrawn at a limited rate.
        let mut text = terminal.contents();
        for _ in 0..50 {
            if text.contains("longest 5.00 ms") {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
            draw(&view.shared);
            text = terminal.contents();
        }
        assert!(text.contains("mmap_lock  write: 1") && text.contains("longest 5.00 ms"), "{text}");
        view.clear();
        assert_eq!(terminal.contents(), "");
        view.watch(None, window);
        draw(&view.shared);
        drop(view);
        assert_eq!(terminal.contents(), "");
    }
}
