//! Keeps the event stream, and checks what must hold in any stream, whatever the heap did.

use firn::events::{PauseKind, Phase};
use firn::{BackendKind, CycleSummary, Event, FaultOutcome, Heap, Listener};
use firn_gc::core::Core;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

/// Longest wait for an event that must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// One event, and what a cycle's end can be compared with at that moment.
pub struct Entry {
    /// The event.
    pub event: Event,
    /// With a cycle's end: to-pages that have any content.
    pages: Option<u64>,
}

/// Everything that was heard of a heap.
pub struct Stream {
    core: Weak<Core>,
    entries: Mutex<Vec<Entry>>,
    came: Condvar,
}

impl Stream {
    /// Listens to `heap` from now on.
    pub fn of(heap: &Heap) -> Arc<Stream> {
        let stream = Arc::new(Stream {
            core: Arc::downgrade(heap.core()),
            entries: Mutex::default(),
            came: Condvar::new(),
        });
        heap.add_listener(stream.clone());
        stream
    }

    /// Waits until an event that satisfies `what` has come.
    pub fn wait_for(&self, what: impl Fn(&Event) -> bool) {
        let entries = self.entries.lock().unwrap();
        let missing = |entries: &mut Vec<Entry>| !entries.iter().any(|entry| what(&entry.event));
        let (_entries, wait) = self.came.wait_timeout_while(entries, PATIENCE, missing).unwrap();
        assert!(!wait.timed_out(), "an event did not come");
    }

    /// Waits until every cycle that has begun has ended too: whoever waited for memory goes on as soon as there is
    /// some, which is before the end of the cycle that found it.
    pub fn wait_for_the_end(&self) {
        let begins = |entry: &Entry| matches!(entry.event, Event::CycleBegin { .. });
        let ends = |entry: &Entry| matches!(entry.event, Event::CycleEnd { .. });
        let under_way = |entries: &mut Vec<Entry>| {
            entries.iter().rposition(begins) > entries.iter().rposition(ends)
        };
        let entries = self.entries.lock().unwrap();
        let (_entries, wait) = self.came.wait_timeout_while(entries, PATIENCE, under_way).unwrap();
        assert!(!wait.timed_out(), "a cycle did not end");
    }

    /// Whether some event satisfies `what`.
    pub fn any(&self, what: impl Fn(&Event) -> bool) -> bool {
        self.entries.lock().unwrap().iter().any(|entry| what(&entry.event))
    }

    /// Calls `visit` with every event.
    pub fn each(&self, mut visit: impl FnMut(&Event)) {
        self.entries.lock().unwrap().iter().for_each(|entry| visit(&entry.event));
    }

    /// Faults with this outcome.
    pub fn faults(&self, wanted: FaultOutcome) -> usize {
        let is = |entry: &&Entry| matches!(entry.event, Event::Fault { outcome, .. } if outcome == wanted);
        self.entries.lock().unwrap().iter().filter(is).count()
    }

    /// Summaries of the cycles that have ended.
    pub fn summaries(&self) -> Vec<CycleSummary> {
        let summary = |entry: &Entry| match entry.event {
            Event::CycleEnd { summary } => Some(summary),
            _ => None,
        };
        self.entries.lock().unwrap().iter().filter_map(summary).collect()
    }
}

impl Listener for Stream {
    fn event(&self, event: &Event) {
        let ends = matches!(event, Event::CycleEnd { .. });
        let pages = self.core.upgrade().filter(|_| ends).map(|core| {
            // SAFETY: a cycle has ended, so a flip has happened; listeners run inside the cycle.
            let total = unsafe { core.view() }.total_pages;
            let records = core.space.records();
            (0..total).filter(|&page| records.record(page).is_some()).count() as u64
        });
        self.entries.lock().unwrap().push(Entry { event: event.clone(), pages });
        self.came.notify_all();
    }
}

/// What is known of the cycle under way while the stream is read.
struct Open {
    cycle: u64,
    begin: u64,
    /// End of what was reported last.
    last: u64,
    phases: Vec<Phase>,
    /// The last phase, in which a pause must lie.
    phase: (u64, u64),
    released: u64,
    compacted: u64,
    /// Pages published by faulting threads.
    published: u64,
    /// Faults that found no room for their record.
    lost: u64,
    faults: Vec<(u64, u64)>,
}

/// A pause: requested, stopped, released, mutators.
type Stop = (u64, u64, u64, u32);

/// Checks that times and counts of the stream up to the end of the last cycle fit together. No thread may be
/// attached. Returns the number of cycles.
///
/// # Panics
/// If they do not.
pub fn consistent(way: &str, backend: BackendKind, stream: &Stream) -> u64 {
    let entries = stream.entries.lock().unwrap();
    let (mut open, mut cycles): (Option<Open>, u64) = (None, 0);
    let mut ended = 0;
    let (mut pauses, mut stops, mut marks) = (Vec::<Stop>::new(), Vec::new(), Vec::new());
    let end = |entry: &Entry| matches!(entry.event, Event::CycleEnd { .. });
    let heard = entries.iter().rposition(end).map_or(0, |last| last + 1);
    for Entry { event, pages } in &entries[..heard] {
        match *event {
            Event::CycleBegin { cycle, at, .. } => {
                assert!(open.is_none(), "{way}: cycle {cycle} begins inside another");
                assert!(cycle == cycles + 1 && at >= ended, "{way}: cycle {cycle} after {cycles}");
                open = Some(Open {
                    cycle,
                    begin: at,
                    last: at,
                    phases: Vec::new(),
                    phase: (0, 0),
                    released: u64::MAX,
                    compacted: 0,
                    published: 0,
                    lost: 0,
                    faults: Vec::new(),
                });
            }
            Event::Phase { cycle, phase, begin, end } => {
                let open = open.as_mut().expect("a phase belongs to a cycle");
                assert!(
                    cycle == open.cycle && open.last <= begin && begin <= end,
                    "{way}: {event:?}"
                );
                (open.last, open.phase) = (end, (begin, end));
                open.phases.push(phase);
                match phase {
                    Phase::Compact => open.compacted = end,
                    Phase::Mark => marks.push((begin, end)),
                    _ => {}
                }
            }
            Event::Pause { cycle, kind, requested, stopped, released, mutators } => {
                let open = open.as_mut().expect("a pause belongs to a cycle");
                let (begin, end) = open.phase;
                let in_order = [begin, requested, stopped, released, end].is_sorted();
                assert!(cycle == open.cycle && in_order, "{way}: {event:?} in {:?}", open.phase);
                let phase = match kind {
                    PauseKind::Start => Phase::Start,
                    PauseKind::FinalMark => Phase::FinalMark,
                    PauseKind::Flip => Phase::Flip,
                    PauseKind::Verify => Phase::Verify,
                };
                assert_eq!(open.phases.last(), Some(&phase), "{way}: {event:?}");
                if kind == PauseKind::Flip {
                    open.released = released;
                }
                pauses.push((requested, stopped, released, mutators));
            }
            Event::Fault { cycle, begin, end, outcome, page, published, .. } => {
                let open = open.as_mut().expect("faults are told with their cycle");
                assert!(cycle == open.cycle && begin <= end && page < u32::MAX, "{way}: {event:?}");
                open.faults.push((begin, end));
                let there = outcome == FaultOutcome::AlreadyMapped;
                assert!(!there || published == 0, "{way}: {event:?}");
                open.published += published as u64;
            }
            Event::Retry { cycle, count, errno, .. } => {
                assert!(open.as_ref().is_some_and(|open| open.cycle == cycle), "{way}: {event:?}");
                assert!(count > 0 && errno >= 0, "{way}: {event:?}");
            }
            Event::FaultsLost { count } => {
                assert!(open.is_some() && count > 0, "{way}: {event:?}");
                open.as_mut().unwrap().lost += count;
            }
            Event::ThreadStop { begin, end, .. } => {
                assert!(begin > 0 && begin <= end, "{way}: {event:?}");
                stops.push((begin, end));
            }
            Event::AllocStall { begin, end, bytes, .. } => {
                assert!(begin <= end && bytes > 0, "{way}: {event:?}");
            }
            Event::CycleEnd { summary } => {
                let open = open.take().expect("an end has a begin");
                ended_well(way, backend, &open, &summary, pages.expect("the heap was there"));
                (cycles, ended) = (open.cycle, summary.end);
            }
        }
    }
    assert!(open.is_none(), "{way}: a cycle has not ended");
    stopped_threads(way, &pauses, stops, &marks);
    cycles
}

fn ended_well(way: &str, backend: BackendKind, open: &Open, summary: &CycleSummary, pages: u64) {
    let CycleSummary { cycle, begin, end, .. } = *summary;
    assert!(cycle == open.cycle && begin == open.begin && end >= open.last, "{way}: {summary:?}");
    // Every page that has any content was published once, by one way and by one kind of thread.
    let by_way = summary.pages_copied + summary.pages_moved + summary.pages_dense;
    let by_thread = summary.pages_by_collector + summary.pages_by_mutators;
    assert_eq!((by_way, by_thread), (pages, pages), "{way}: {summary:?}");
    // Faults that found no room for their record may have published pages.
    let told = if open.lost == 0 { open.published } else { summary.pages_by_mutators };
    assert!(open.published <= told && told == summary.pages_by_mutators, "{way}: {summary:?}");
    assert!(
        summary.live_bytes + summary.large_live_bytes <= summary.used_before,
        "{way}: {summary:?}"
    );
    for &(begin, end) in &open.faults {
        assert!(open.released <= begin, "{way}: a fault before the flip of cycle {cycle} was over");
        assert!(end <= open.compacted, "{way}: a fault after the compaction of cycle {cycle}");
    }
    let mut phases = open.phases.iter().copied().peekable();
    let walked = phases.next_if_eq(&Phase::Verify).is_some();
    assert_eq!(phases.next(), Some(Phase::Start), "{way}: {:?}", open.phases);
    while phases.next_if_eq(&Phase::Mark).is_some() {
        assert_eq!(phases.next(), Some(Phase::FinalMark), "{way}: {:?}", open.phases);
    }
    let mut rest = vec![Phase::Plan, Phase::Flip, Phase::Compact, Phase::Finish, Phase::Verify];
    rest.retain(|phase| match phase {
        Phase::Compact => backend != BackendKind::Stw,
        Phase::Verify => walked,
        _ => true,
    });
    assert_eq!(phases.collect::<Vec<_>>(), rest, "{way}: {:?}", open.phases);
}

/// Each pause stops each mutator once, around the pause; whatever else stops a thread is a handshake of marking.
fn stopped_threads(way: &str, pauses: &[Stop], mut stops: Vec<(u64, u64)>, marks: &[(u64, u64)]) {
    for pause @ &(requested, stopped, released, mutators) in pauses {
        let before = stops.len();
        stops.retain(|&(begin, end)| !((requested..=stopped).contains(&begin) && end >= released));
        assert_eq!(before - stops.len(), mutators as usize, "{way}: stops for {pause:?}");
    }
    for stop in stops {
        let marking = |mark: &(u64, u64)| mark.0 <= stop.0 && stop.1 <= mark.1;
        assert!(marks.iter().any(marking), "{way}: a stop without a reason: {stop:?}");
    }
}
