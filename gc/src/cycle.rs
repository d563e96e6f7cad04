//! One collection cycle, from the first pause to the reset of the side tables.
//!
//! [`Collector::collect`] is the only driver; it runs on one thread at a time (the daemon's, usually) and
//! reads like the description in the design: start, mark, plan, flip, compact, finish.

use crate::allocate::READY_WHILE_COMPACTING;
use crate::compact::{CompactShared, Compactor, complete};
use crate::core::{Core, CoreError, Op};
use crate::events::{Cause, CycleSummary, Event, PauseKind, Phase};
use crate::mark::{MarkShared, RootQueue};
use crate::plan::{blocks_below, plan};
use crate::safepoint::Times;
use crate::workers::Workers;
use firn_heap::WORD;
use firn_heap::pages::StateCell;
use firn_heap::space::PageRecord;
use firn_heap::sys::thread::{give_way, monotonic_ns};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Rounds of flushing and draining before the final pause is tried.
const ROUNDS: usize = 2;

/// The driver of collection cycles.
pub struct Collector {
    core: Arc<Core>,
    workers: Workers,
    compactors: Vec<Mutex<Compactor>>,
}

impl Collector {
    /// Starts the collector's threads; `set_up` runs first on each.
    pub fn new(
        core: Arc<Core>,
        set_up: impl Fn() + Send + Clone + 'static,
    ) -> Result<Collector, CoreError> {
        let count = core.config.workers;
        let page = core.space.geometry.page;
        let workers = Workers::new(count, set_up).map_err(|error| {
            CoreError::Unsupported(format!("cannot start a GC worker: {error}"))
        })?;
        let compactors = (0..count)
            .map(|_| Ok(Mutex::new(Compactor::new(page)?)))
            .collect::<Result<_, CoreError>>()?;
        Ok(Collector { core, workers, compactors })
    }

    /// The collector's state.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Runs one cycle. The calling thread must not be an attached mutator.
    ///
    /// # Panics
    /// If verification is on and finds a bad reference, or if the kernel refuses the flip.
    pub fn collect(&mut self, cause: Cause) -> CycleSummary {
        let core = self.core.clone();
        let cycle = core.cycle.fetch_add(1, Ordering::Relaxed) + 1;
        let begin = monotonic_ns();
        core.emit(Event::CycleBegin { cycle, cause, at: begin });
        // Most of what must leave the to-range does so now: what is allocated between the first pause and
        // the flip counts as live, so little else should happen in between.
        core.backend.prepare(&core.space);
        core.space.large.forget_marks();
        self.verify(cycle, "before");
        self.pause(cycle, PauseKind::Start, Phase::Start, Op::StartMark);
        core.return_withdrawn();
        let objects = self.mark(cycle);
        let (live_words, large_live, broken) = self.plan(cycle, cause);
        let used_before = core.in_use();
        self.pause(cycle, PauseKind::Flip, Phase::Flip, Op::Flip);
        if let Some(errno) = *core.flip_failed.lock().unwrap() {
            panic!("the kernel refused the flip of the {} back end: {errno}", core.backend.kind());
        }
        core.return_withdrawn();
        self.compact(cycle);
        let released = self.finish(cycle);
        self.verify(cycle, "after");
        let take = |counter: &std::sync::atomic::AtomicU64| counter.swap(0, Ordering::Relaxed);
        let summary = CycleSummary {
            cycle,
            cause,
            begin,
            end: monotonic_ns(),
            live_bytes: live_words * WORD,
            large_live_bytes: large_live * core.space.geometry.page,
            used_before: used_before * core.space.geometry.page,
            used_after: core.in_use() * core.space.geometry.page,
            marked_objects: objects,
            pages_copied: take(&core.counters.copied),
            pages_moved: take(&core.counters.moved),
            pages_dense: take(&core.counters.dense),
            pages_by_collector: take(&core.counters.by_collector),
            pages_by_mutators: take(&core.counters.by_mutators),
            pages_released: released as u64,
            ephemerons_broken: broken,
            guarded_ready: core.guarded.take_ready(),
        };
        core.triggered.store(false, Ordering::Relaxed);
        core.emit(Event::CycleEnd { summary });
        summary
    }

    fn phase<R>(&self, cycle: u64, phase: Phase, work: impl FnOnce() -> R) -> R {
        let begin = monotonic_ns();
        let result = work();
        self.core.emit(Event::Phase { cycle, phase, begin, end: monotonic_ns() });
        result
    }

    fn pause(&self, cycle: u64, kind: PauseKind, phase: Phase, op: Op) {
        let Times { requested, stopped, released, mutators } =
            self.phase(cycle, phase, || self.core.safepoints.request(&*self.core, op));
        self.core.emit(Event::Pause { cycle, kind, requested, stopped, released, mutators });
    }

    fn verify(&self, cycle: u64, when: &str) {
        if self.core.config.verify {
            self.pause(cycle, PauseKind::Verify, Phase::Verify, Op::Verify);
            if let Some(failure) = self.core.verify_failure.lock().unwrap().take() {
                panic!("verification {when} cycle {cycle}: {failure}");
            }
        }
    }

    fn mark(&self, cycle: u64) -> u64 {
        let core = &*self.core;
        let shared = MarkShared::default();
        let mut hold = self.phase(cycle, Phase::Mark, || {
            let mut queue = RootQueue::new(core);
            core.each_global_root(|root| queue.push(root));
            drop(queue);
            self.drain(&shared);
            for _ in 0..ROUNDS {
                core.safepoints.request(core, Op::FlushLogs);
                if core.segments.is_empty() {
                    break;
                }
                self.drain(&shared);
            }
            core.guards_unreached()
        });
        let mut unsettled = 0;
        loop {
            // Relaxed: the request publishes it.
            core.hold_marking.store(hold, Ordering::Relaxed);
            self.pause(cycle, PauseKind::FinalMark, Phase::FinalMark, Op::FinalMark);
            // Relaxed: set in the pause that has just ended.
            if core.mark_ended.load(Ordering::Relaxed) {
                let in_pauses = core.markers[0].lock().unwrap().take_objects();
                return shared.objects.load(Ordering::Relaxed) + in_pauses;
            }
            if !core.roots_settled.load(Ordering::Relaxed) {
                // Who is adding or removing a root may need this very processor, for a moment.
                give_way(unsettled);
                unsettled += 1;
            }
            hold = self.phase(cycle, Phase::Mark, || {
                if core.mark_complete.load(Ordering::Relaxed) {
                    core.markers[0].lock().unwrap().fire(core);
                }
                self.drain(&shared);
                core.guards_unreached()
            });
        }
    }

    /// Marking alone, for the floors: what a cycle does between its first two pauses.
    pub(crate) fn mark_for_measurement(&self) {
        self.mark(0);
        self.break_ephemerons();
    }

    /// Marks everything reachable from what is queued, through ephemerons too.
    fn drain(&self, shared: &MarkShared) {
        let core = &*self.core;
        let count = self.workers.count();
        loop {
            let round = MarkShared::default();
            self.workers.run(&|worker| {
                core.markers[worker].lock().unwrap().drain(core, &round, count);
            });
            shared.objects.fetch_add(round.objects.load(Ordering::Relaxed), Ordering::Relaxed);
            if !core.ephemerons.found_any() || !core.markers[0].lock().unwrap().index(core) {
                return;
            }
        }
    }

    /// Breaks the ephemerons whose keys have died; returns how many.
    fn break_ephemerons(&self) -> u64 {
        let core = &*self.core;
        if core.ephemerons.is_indexed() {
            let cursor = AtomicUsize::new(0);
            self.workers.run(&|_| core.break_ephemerons(&cursor));
        }
        core.ephemerons.end_breaking()
    }

    fn plan(&self, cycle: u64, cause: Cause) -> (usize, usize, u64) {
        let core = &*self.core;
        self.phase(cycle, Phase::Plan, || {
            // Before the sweep, which takes marks away.
            let broken = self.break_ephemerons();
            let returned = |pages| core.space.uncommit(pages);
            let (freed, live) = core.space.large.sweep(&core.space.layouts, returned);
            if freed > 0 {
                core.memory_freed();
            }
            // Relaxed: what is born marked behind the sweep is unmarked when the next cycle begins.
            core.large_born_marked.store(false, Ordering::Relaxed);
            let dense = if cause == Cause::LastResort { 101 } else { core.config.dense_percent };
            let plan = plan(&core.space, core.late_page(), dense);
            core.planned_pages.store(plan.marked_pages, Ordering::Relaxed);
            // What compaction copies has room in the free pages of the moving ranges and in what is left of the budget.
            let space = &core.space;
            let room = space.geometry.limit_pages + space.free_pages();
            let copies = plan.marked_pages + space.top().saturating_sub(core.late_page());
            core.give_up_large((space.committed() + copies).saturating_sub(room));
            core.backend.prepare(&core.space);
            (plan.live_words, live, broken)
        })
    }

    fn compact(&self, cycle: u64) {
        let core = &*self.core;
        if core.backend.builds_in_pause() {
            return;
        }
        self.phase(cycle, Phase::Compact, || {
            core.make_ready(READY_WHILE_COMPACTING, || false);
            let shared = CompactShared::new(core);
            self.workers.run(&|worker| {
                self.compactors[worker].lock().unwrap().work(core, &shared, worker);
            });
            complete(core, &shared);
        });
    }

    fn finish(&self, cycle: u64) -> usize {
        let core = &*self.core;
        self.phase(cycle, Phase::Finish, || {
            core.forward_roots();
            // SAFETY: the flip has happened.
            let view = *unsafe { core.view() };
            let page = core.space.geometry.page;
            for number in 0..view.total_pages {
                StateCell(core.space.state(number)).reset();
                // To-pages count as entered, so that the next cycle recycles them. Pages without content
                // were never populated.
                let builder = crate::build::Builder { space: &core.space, view: &view };
                if builder.kind(number) != crate::build::PageKind::Empty {
                    core.space.records().set_record(number, PageRecord::OBJECT);
                } else {
                    core.space.records().clear_records(number, 1);
                }
            }
            core.space.blocks.reset(0, blocks_below(&core.space, view.late_from / page));
            core.faults.drain(core, cycle);
            if let Some(retries) = core.backend.retries() {
                for (op, errno, count) in retries.take() {
                    core.emit(Event::Retry { cycle, op, errno: errno.0, count });
                }
            }
            core.backend.finish(&core.space, &view)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BackendKind, Config};
    use crate::ephemerons::word;
    use crate::events::Listener;
    use firn_heap::layout::guarded::{GUARDIAN_WORDS, READY, WORDS};
    use firn_heap::layout::{Header, LayoutId};
    use firn_heap::sys::thread::gettid;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{OnceLock, Weak};
    use std::thread::JoinHandle;

    struct Hears<F>(F);

    impl<F: Fn(&Event) + Send + Sync> Listener for Hears<F> {
        fn event(&self, event: &Event) {
            (self.0)(event);
        }
    }

    /// A thread that is in the middle of dropping a root, until `end` says so.
    struct Dropping(JoinHandle<()>);

    impl Dropping {
        fn begin(core: &Arc<Core>, end: impl FnOnce() + Send + 'static) -> Dropping {
            let (core, (has_begun, begun)) = (core.clone(), channel());
            let thread = std::thread::spawn(move || {
                core.roots.log(|_| {
                    has_begun.send(()).unwrap();
                    end();
                });
            });
            begun.recv().unwrap();
            Dropping(thread)
        }

        fn join(self) {
            self.0.join().unwrap();
        }
    }

    fn heap() -> (Arc<Core>, Collector) {
        let config = Config { backend: BackendKind::Stw, limit: 16 << 20, ..Config::default() };
        let core = Core::new(config).unwrap();
        let collector = Collector::new(core.clone(), || {}).unwrap();
        (core, collector)
    }

    fn mark_all(core: &Core, collector: &Collector) {
        core.safepoints.request(core, Op::StartMark);
        collector.mark_for_measurement();
    }

    #[test]
    fn a_final_pause_that_could_not_look_gives_nothing_to_guardians() {
        let (core, collector) = heap();
        let slot = core.attach().unwrap();
        core.safepoints.block(&*core, &slot);
        // A guardian, its note of an object, and the object.
        let base = core.space.current().base();
        let first = base + core.space.grab(1).unwrap() * core.space.geometry.page;
        let guardian = first as u64;
        let note = guardian + (GUARDIAN_WORDS * WORD) as u64;
        let object = note + (WORDS * WORD) as u64;
        let [of_guardian, of_note] =
            [LayoutId::GUARDIAN, LayoutId::GUARDED].map(|layout| Header::new(layout, 0).0);
        let of_object = Header::new(LayoutId::DATA[3], 1).0;
        let words = [of_guardian, note, 0, of_note, object, 0, guardian, 0, of_object, 0];
        for (index, value) in words.into_iter().enumerate() {
            // SAFETY: inside the page taken above, which `stw` maps on demand.
            unsafe { word(guardian, index) }.store(value, Ordering::Relaxed);
        }
        let (held, held_object) = (core.add_root(guardian), core.add_root(object));
        // A cycle that finds nothing to bring back.
        mark_all(&core, &collector);
        core.space.blocks.reset(0, blocks_below(&core.space, core.late_page()));
        // Another one, in which only the guardian and a weak reference know of the object.
        core.remove_root(held_object);
        type Step = (Sender<()>, Dropping);
        let dropping: Mutex<Option<Step>> = Mutex::new(None);
        let (here, reader, read) = (Arc::downgrade(&core), slot.clone(), AtomicBool::new(false));
        core.add_listener(Arc::new(Hears(move |event: &Event| {
            let core = Weak::upgrade(&here).unwrap();
            match event {
                Event::Phase { phase: Phase::Mark, .. } if !read.swap(true, Ordering::Relaxed) => {
                    // The weak reference is read: just before the final pause, and while a root goes.
                    // SAFETY: the mutator is blocked, and no request is under way.
                    let local = unsafe { reader.mutator.local() };
                    core.remember(&mut local.log, object);
                    local.handles.push(object);
                    let (end, ended): (Sender<()>, Receiver<()>) = channel();
                    let drop = Dropping::begin(&core, move || ended.recv().unwrap());
                    *dropping.lock().unwrap() = Some((end, drop));
                }
                Event::Pause { kind: PauseKind::FinalMark, .. } => {
                    if let Some((end, drop)) = dropping.lock().unwrap().take() {
                        end.send(()).unwrap();
                        drop.join();
                    }
                }
                _ => {}
            }
        })));
        mark_all(&core, &collector);
        assert!(!core.unreached(object));
        // SAFETY: the guardian's word, as long as nothing moves.
        let ready = unsafe { word(guardian, READY) }.load(Ordering::Relaxed);
        assert_eq!((ready, core.guarded.take_ready()), (0, 0), "given out, but held");
        core.remove_root(held);
        core.safepoints.unblock(&*core, &slot);
        core.detach(&slot);
    }

    /// Whether the kernel shows the thread as asleep.
    fn sleeps(thread: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().trim_start().starts_with('S')
    }

    #[test]
    fn who_is_dropping_a_root_when_marking_is_to_end_gets_the_processor() {
        /// Final pauses in a row that show that marking never lets go.
        const ENDLESS: usize = 100_000;
        let (core, collector) = heap();
        let pauses = Arc::new(AtomicUsize::new(0));
        let dropping = Arc::new(OnceLock::new());
        let (coordinator, here) = (gettid(), Arc::downgrade(&core));
        let (count, drop) = (pauses.clone(), dropping.clone());
        core.add_listener(Arc::new(Hears(move |event: &Event| match event {
            Event::Phase { phase: Phase::Mark, .. } => {
                drop.get_or_init(|| {
                    let count = count.clone();
                    let end = move || {
                        // A real-time coordinator on the only processor would let this thread run in its sleep only.
                        while count.load(Ordering::Relaxed) < ENDLESS
                            && !(count.load(Ordering::Relaxed) > 0 && sleeps(coordinator))
                        {
                            std::hint::spin_loop();
                        }
                    };
                    Mutex::new(Some(Dropping::begin(&here.upgrade().unwrap(), end)))
                });
            }
            Event::Pause { kind: PauseKind::FinalMark, .. } => {
                count.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        })));
        mark_all(&core, &collector);
        dropping.get().unwrap().lock().unwrap().take().unwrap().join();
        let pauses = pauses.load(Ordering::Relaxed);
        assert!((2..ENDLESS).contains(&pauses), "{pauses} final pauses");
    }
}
