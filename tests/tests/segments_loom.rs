//! Loom models of `gc/src/stack.rs`, the stacks that marking's segments travel through: in every interleaving a
//! number has one holder at a time, who sees what the holders before wrote, and none is lost.
//!
//! The source file itself is compiled here, against loom's atomics. What a number stands for is a loom cell, so two
//! holders at a time, or a handing over that publishes nothing, fail the model by themselves.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread::{self, JoinHandle};
use stack::Stack;

#[allow(dead_code)]
#[path = "../../gc/src/stack.rs"]
mod stack;

/// What `stack.rs` takes its atomics from.
mod sync {
    pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}

/// Segments, and the stacks that they travel through, as `gc/src/segments.rs` has them.
struct Segments {
    links: Vec<sync::AtomicU32>,
    /// Addresses in each.
    contents: Vec<UnsafeCell<u32>>,
    open: Stack,
    free: Stack,
}

impl Segments {
    /// With `open` segments of one address each, the lowest number on top, and `free` empty ones above them.
    fn new(open: u32, free: u32) -> Arc<Segments> {
        let all = 0..open + free;
        let segments = Segments {
            links: all.clone().map(|_| sync::AtomicU32::new(0)).collect(),
            contents: all.clone().map(|number| UnsafeCell::new((number < open) as u32)).collect(),
            open: Stack::new(),
            free: Stack::new(),
        };
        for number in all.rev() {
            let stack = if number < open { &segments.open } else { &segments.free };
            stack.push(&segments.links, number);
        }
        Arc::new(segments)
    }

    /// Changes the addresses in a segment that the caller holds.
    fn change(&self, number: u32, change: impl FnOnce(u32) -> u32) {
        // SAFETY: the holder's alone; loom fails the model if it is not.
        self.contents[number as usize].with_mut(|len| unsafe { *len = change(*len) });
    }

    fn take(&self, stack: &Stack) -> Option<u32> {
        stack.pop(&self.links)
    }

    /// A mutator logs a reference and hands its segment over.
    fn log(&self) {
        let held = self.take(&self.open).or_else(|| self.take(&self.free));
        let number = held.expect("there is one for each thread");
        self.change(number, |len| len + 1);
        self.open.push(&self.links, number);
    }

    /// A marker takes a segment and empties it; returns how many addresses it had, if there was one.
    fn mark(&self) -> Option<u32> {
        let number = self.take(&self.open)?;
        let mut found = 0;
        self.change(number, |len| {
            found = len;
            0
        });
        assert!(found > 0, "an open segment has something in it");
        self.free.push(&self.links, number);
        Some(found)
    }

    /// When all threads have ended: each segment is in one stack; returns the addresses in all of them.
    fn end(&self) -> u32 {
        let mut sum = 0;
        let mut seen = vec![false; self.links.len()];
        for stack in [&self.open, &self.free] {
            while let Some(number) = self.take(stack) {
                assert!(!std::mem::replace(&mut seen[number as usize], true), "{number} twice");
                self.change(number, |len| {
                    sum += len;
                    len
                });
            }
            assert!(stack.is_empty());
        }
        assert!(seen.into_iter().all(|seen| seen), "a segment is lost");
        sum
    }
}

fn spawn<R: 'static>(
    segments: &Arc<Segments>,
    body: impl FnOnce(&Segments) -> R + 'static,
) -> JoinHandle<R> {
    let segments = segments.clone();
    thread::spawn(move || body(&segments))
}

fn model(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

#[test]
fn a_number_that_comes_back_does_not_deceive_who_was_about_to_take_it() {
    model(3, || {
        let segments = Segments::new(3, 0);
        // The top comes back while what was below it is held.
        let other = spawn(&segments, |segments| {
            let held = [(); 2].map(|()| segments.take(&segments.open).expect("two are left"));
            segments.open.push(&segments.links, held[0]);
            segments.change(held[1], |len| len);
            segments.open.push(&segments.links, held[1]);
        });
        let number = segments.take(&segments.open).expect("one is left");
        segments.change(number, |len| len);
        segments.open.push(&segments.links, number);
        other.join().unwrap();
        assert_eq!(segments.end(), 3);
    });
}

#[test]
fn a_number_that_comes_back_by_way_of_another_stack_does_not_either() {
    model(3, || {
        let segments = Segments::new(2, 1);
        // Emptied, and filled again: through the free ones, which share the links.
        let other = spawn(&segments, |segments| {
            let found = segments.mark();
            segments.log();
            found.unwrap_or(0)
        });
        let found = segments.mark().unwrap_or(0) + other.join().unwrap();
        assert_eq!(found + segments.end(), 3);
    });
}

#[test]
fn what_two_threads_log_is_seen_by_a_marker_and_counted_once() {
    model(3, || {
        let segments = Segments::new(0, 2);
        let others = [(); 2].map(|()| spawn(&segments, Segments::log));
        let found = segments.mark().unwrap_or(0);
        for thread in others {
            thread.join().unwrap();
        }
        assert_eq!(found + segments.end(), 2);
    });
}

#[test]
fn two_markers_share_what_there_is() {
    model(3, || {
        let segments = Segments::new(2, 1);
        let logs = spawn(&segments, Segments::log);
        let marks = spawn(&segments, |segments| segments.mark().unwrap_or(0));
        let found = segments.mark().unwrap_or(0);
        logs.join().unwrap();
        let found = found + marks.join().unwrap();
        assert_eq!(found + segments.end(), 3);
    });
}

#[test]
fn an_empty_stack_gives_nothing_and_says_so() {
    model(2, || {
        let segments = Segments::new(0, 1);
        assert!(segments.open.is_empty() && segments.mark().is_none());
        segments.log();
        assert!(segments.free.is_empty() && !segments.open.is_empty());
        assert_eq!((segments.mark(), segments.mark()), (Some(1), None));
        assert_eq!(segments.end(), 0);
    });
}
