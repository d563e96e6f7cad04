//! Ephemerons: a key that is held weakly, and a value that is kept while both the ephemeron and the key live.
//!
//! Weak boxes are ephemerons without a value, weak tables are tables of ephemerons. Key and value are set when the
//! ephemeron is made and never change, but that the collector may *break* it, which empties both.
//!
//! **Marking.** A marker that comes to an ephemeron marks its value if the key is marked. If it is not, the
//! ephemeron is put on the marker's list of *found* ones, linked through a word of the ephemerons themselves: no
//! memory is needed, however many there are. Tracing knows no more than that, and a program without ephemerons pays
//! for nothing but one more value in the dispatch on the object's kind.
//!
//! **The fixpoint.** When the markers are out of work and something was found, the coordinator indexes it by key:
//! values whose keys have been marked meanwhile are marked, the other ephemerons go to a hash table whose chains run
//! through the same word. From then on, for the rest of the cycle, marking is *checked*: who visits an object looks
//! up its ephemerons and marks their values. So each step along a chain of ephemerons costs one look-up,
//! whichever order they are found in. Ephemerons found in a checked trace go to the table at once. Its size is a
//! power of two that cannot change under the markers; when it holds twice as many as it has buckets,
//! further ones wait on the list, and the next indexing at least doubles it. So the number of indexings grows with the
//! logarithm of the number of ephemerons, and all of it takes time linear in that. The table is reserved for the
//! heap's size, as the segments are; of it becomes real what was used, and nothing can run out.
//!
//! *The race in it:* one marker inserts an ephemeron because its key is unmarked, another marks the key and looks
//! up what depends on it. The first one looks at the key again after inserting, the second one looks up after
//! marking, each with a sequentially consistent fence in between: one of them sees the other. (With one marker there
//! is nothing to order.) Large objects are marked by whoever finds a reference, mutators too; who marks one first
//! queues its address, so that a marker gets to look it up. Thus at the end of each
//! trace no ephemeron in the table has a marked key, unless its value is marked too; and the final pause, which
//! makes sure that nothing is queued, has nothing to do for ephemerons.
//!
//! **Reading.** While marking is on, reading a key or a value logs it, as if it had been overwritten: the reader
//! holds it now, so it lives through this cycle. That is the only way to a reference that the snapshot did not
//! hold strongly; so an ephemeron allocated during marking needs no work: key and value are new, in the
//! snapshot, or logged. A reader can make the final pause find something in the logs. A few objects are traced in
//! the pause, and only more than that sends the cycle back to concurrent marking: a program that reads one dying key
//! after the other does not keep marking from ending.
//!
//! Once the final pause is over, a key that was not marked is dead, and reads as gone: nobody can bring it back.
//! Mutators look at the mark for that until the flip, and only if there was anything to break. The
//! collector breaks such ephemerons meanwhile, before it plans, so that from the flip on keys and
//! values are slots like all others. The one mark that changes before the flip is a large object's: it is swept after
//! the breaking. So a reader that sees no mark looks whether breaking is still under way: if not, its key is
//! dead exactly if it has been taken out of the ephemeron. And as soon as a dead large object is swept, another one can
//! be made at its address, with a mark from birth. So a reader that sees a mark looks, too, whether the ephemeron still
//! has the key.

use crate::core::Core;
use crate::mark::{Marker, Reach};
use crate::mutator::Mutator;
use firn_heap::WORD;
use firn_heap::layout::ephemeron::{BROKEN, KEY, LINK, VALUE};
use firn_heap::layout::{Descriptor, Header};
use firn_heap::space::Space;
use firn_heap::sys::map::MapError;
use firn_heap::table::Table;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

/// Buckets of the smallest index.
const SMALLEST: usize = 1 << 10;
/// Ephemerons in the index for each bucket before it has to grow.
const LOAD: usize = 2;
/// Bytes of the moving range for each bucket of the largest index: eight ephemerons, had they no keys.
const BYTES_PER_BUCKET: usize = 256;
/// Buckets that are cleared at a time.
const SLICE: usize = 512;

/// Word `index` of the object at `address`.
///
/// # Safety
/// The object must be one in the current range, with so many words, and the caller must not keep the word beyond
/// the flip.
#[inline(always)]
pub(crate) unsafe fn word<'a>(address: u64, index: usize) -> &'a AtomicU64 {
    // SAFETY: the caller's promise. Such words are only ever accessed atomically.
    unsafe { &*(address as *const AtomicU64).add(index) }
}

/// A list of objects through a word of each.
#[derive(Default)]
pub(crate) struct Chain {
    first: u64,
    last: u64,
    len: usize,
}

impl Chain {
    pub fn is_empty(&self) -> bool {
        self.first == 0
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn first(&self) -> u64 {
        self.first
    }

    /// Adds the object at `address`, whose word `link` nobody else uses now.
    #[inline]
    pub fn push(&mut self, address: u64, link: usize) {
        // SAFETY: markers put objects of a role here, which have the word. Relaxed: lists change hands under a lock.
        unsafe { word(address, link) }.store(self.first, Ordering::Relaxed);
        if self.first == 0 {
            self.last = address;
        }
        self.first = address;
        self.len += 1;
    }

    /// Takes the newest object.
    pub fn pop(&mut self, link: usize) -> Option<u64> {
        if self.first == 0 {
            return None;
        }
        let address = self.first;
        // SAFETY: as in `push`.
        self.first = unsafe { word(address, link) }.load(Ordering::Relaxed);
        self.len -= 1;
        Some(address)
    }

    /// Moves everything in `other` to this list.
    pub fn append(&mut self, other: &mut Chain, link: usize) {
        let other = std::mem::take(other);
        if other.first == 0 {
            return;
        }
        // SAFETY: as in `push`.
        unsafe { word(other.last, link) }.store(self.first, Ordering::Relaxed);
        if self.first == 0 {
            self.last = other.last;
        }
        self.first = other.first;
        self.len += other.len;
    }
}

/// The ephemerons of the cycle under way whose keys have not been found.
pub struct Ephemerons {
    /// First ephemeron of each bucket.
    heads: Table<AtomicU64>,
    /// Buckets in use, a power of two; 0: marking is not checked.
    buckets: AtomicUsize,
    /// Ephemerons in them.
    indexed: AtomicUsize,
    /// Ephemerons that are not in the index.
    found: Mutex<Chain>,
    /// The final pause is over, and ephemerons are being broken.
    breaking: AtomicBool,
    broken: AtomicU64,
    indexings: AtomicU64,
    steps: AtomicU64,
}

impl Ephemerons {
    /// For a heap whose moving ranges are as in `space`.
    pub(crate) fn new(space: &Space) -> Result<Ephemerons, MapError> {
        let most = (space.geometry.range_bytes() / BYTES_PER_BUCKET).next_power_of_two();
        Ok(Ephemerons {
            heads: Table::new(most.max(SMALLEST), "firn ephemerons")?,
            buckets: AtomicUsize::new(0),
            indexed: AtomicUsize::new(0),
            found: Mutex::default(),
            breaking: AtomicBool::new(false),
            broken: AtomicU64::new(0),
            indexings: AtomicU64::new(0),
            steps: AtomicU64::new(0),
        })
    }

    /// Whether marking is checked in this cycle.
    pub(crate) fn is_indexed(&self) -> bool {
        // Relaxed: set by the coordinator between two traces, read by those it starts.
        self.buckets.load(Ordering::Relaxed) != 0
    }

    /// Indexings since the heap was made, and ephemerons that they and checked traces looked at.
    #[doc(hidden)]
    pub fn work(&self) -> (u64, u64) {
        (self.indexings.load(Ordering::Relaxed), self.steps.load(Ordering::Relaxed))
    }

    /// Takes over what a marker has found, and has looked at.
    pub(crate) fn gather(&self, found: &mut Chain, steps: u64) {
        self.steps.fetch_add(steps, Ordering::Relaxed);
        if !found.is_empty() {
            self.found.lock().unwrap().append(found, LINK);
        }
    }

    /// Whether something was found that is not in the index.
    pub(crate) fn found_any(&self) -> bool {
        !self.found.lock().unwrap().is_empty()
    }

    #[inline]
    fn bucket(&self, key: u64) -> &AtomicU64 {
        // Relaxed: as in `is_indexed`.
        let bits = self.buckets.load(Ordering::Relaxed).trailing_zeros();
        // Fibonacci hashing of the word's number. The smallest index has ten bits: the shift is below 64.
        let hash = (key / WORD as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - bits);
        &self.heads[hash as usize]
    }

    /// Adds an ephemeron to the index, if that has room.
    fn insert(&self, key: u64, ephemeron: u64) -> bool {
        // Relaxed, both: a limit that need not be exact.
        let buckets = self.buckets.load(Ordering::Relaxed);
        if self.indexed.fetch_add(1, Ordering::Relaxed) >= LOAD * buckets
            && buckets < self.heads.len()
        {
            return false;
        }
        let head = self.bucket(key);
        // SAFETY: a marker has just visited it.
        let link = unsafe { word(ephemeron, LINK) };
        let mut first = head.load(Ordering::Relaxed);
        loop {
            link.store(first, Ordering::Relaxed);
            // Release: pairs with the acquire in `chain`: who sees the ephemeron sees its link.
            match head.compare_exchange_weak(first, ephemeron, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => first = now,
            }
        }
    }

    /// The ephemerons in the bucket of `key`.
    fn chain(&self, key: u64) -> impl Iterator<Item = u64> {
        // Acquire: pairs with the release in `insert`.
        let mut next = self.bucket(key).load(Ordering::Acquire);
        std::iter::from_fn(move || {
            let ephemeron = next;
            if ephemeron == 0 {
                return None;
            }
            // SAFETY: the chain has ephemerons only; links of those in the index do not change.
            next = unsafe { word(ephemeron, LINK) }.load(Ordering::Relaxed);
            Some(ephemeron)
        })
    }

    /// The length of the chain that holds what depends on `key`, as far as `most`.
    pub(crate) fn chain_len(&self, key: u64, most: usize) -> usize {
        self.chain(key).take(most + 1).count()
    }

    /// Whether there is anything to break, which is what the final pause asks: readers look at marks from now on.
    pub(crate) fn begin_breaking(&self) -> bool {
        let any = self.is_indexed();
        // Relaxed: the release from the pause publishes it.
        self.breaking.store(any, Ordering::Relaxed);
        any
    }

    /// Takes the index apart, with `each` for every ephemeron in it; several threads may, with one `cursor`.
    fn dismantle(&self, cursor: &AtomicUsize, mut each: impl FnMut(u64)) {
        let buckets = self.buckets.load(Ordering::Relaxed);
        loop {
            // Relaxed: only uniqueness matters.
            let from = cursor.fetch_add(SLICE, Ordering::Relaxed);
            if from >= buckets {
                return;
            }
            for head in &self.heads[from..(from + SLICE).min(buckets)] {
                // Relaxed: the traces that wrote it are over.
                let mut next = head.swap(0, Ordering::Relaxed);
                while next != 0 {
                    let ephemeron = next;
                    // SAFETY: the chain has ephemerons only.
                    next = unsafe { word(ephemeron, LINK) }.load(Ordering::Relaxed);
                    each(ephemeron);
                }
            }
        }
    }

    /// Ends what [`Ephemerons::begin_breaking`] began; returns how many have been broken.
    pub(crate) fn end_breaking(&self) -> u64 {
        self.buckets.store(0, Ordering::Relaxed);
        self.indexed.store(0, Ordering::Relaxed);
        // Release: pairs with the acquire in `Core::read_weakly`: who sees it sees what was broken.
        self.breaking.store(false, Ordering::Release);
        self.broken.swap(0, Ordering::Relaxed)
    }
}

fn descriptor(core: &Core, object: u64) -> &Descriptor {
    // SAFETY: the object was visited by a marker; headers never change.
    let header = Header(unsafe { (object as *const u64).read() });
    // SAFETY: the header is an object's.
    unsafe { core.space.layouts.get_unchecked(header.layout()) }
}

/// What word `index` of the object refers to.
pub(crate) fn target(core: &Core, object: u64, index: usize) -> Option<u64> {
    // SAFETY: callers give a word of an object of a role. Acquire: pairs with the release that published what it
    // refers to.
    let value = unsafe { word(object, index) }.load(Ordering::Acquire);
    descriptor(core, object).target(index, value)
}

impl Core {
    /// Whether the object at `address` is one that marking covers and has not marked.
    pub(crate) fn unreached(&self, address: u64) -> bool {
        let offset = (address as usize).wrapping_sub(self.space.current().base());
        if offset < self.late_page() * self.space.geometry.page {
            !self.space.blocks.is_marked(offset / WORD)
        } else {
            let large = &self.space.large;
            large.contains(address as usize) && !large.is_marked(address as usize)
        }
    }

    /// A weak read between the start of marking and the flip: of the object at `target`, from an ephemeron whose
    /// key lies in the word `place`, reads as `word` and refers to `key`. Returns whether the object is there.
    #[cold]
    #[inline(never)]
    pub fn read_weakly(
        &self,
        mutator: &Mutator,
        target: u64,
        (place, word, key): (&AtomicU64, u64, u64),
    ) -> bool {
        // SAFETY: the mutator's own running thread.
        let local = unsafe { mutator.local() };
        if local.marking {
            self.remember(&mut local.log, target);
            return true;
        }
        // The mark first, and then whether it could have been swept: see the essay. Acquire: pairs with the release
        // in `end_breaking`.
        if self.unreached(key) && self.ephemerons.breaking.load(Ordering::Acquire) {
            return false;
        }
        // Even of a key with a mark. Acquire: as the load that gave `word`.
        place.load(Ordering::Acquire) == word
    }

    /// Breaks the ephemerons whose keys were not marked; several threads may, with one `cursor`.
    pub(crate) fn break_ephemerons(&self, cursor: &AtomicUsize) {
        let mut broken = 0;
        self.ephemerons.dismantle(cursor, |ephemeron| {
            let dead = target(self, ephemeron, KEY).is_some_and(|key| self.unreached(key));
            if dead {
                // SAFETY: an ephemeron has these words. Release, of the key: who reads it as empty sees the rest.
                unsafe {
                    word(ephemeron, LINK).store(BROKEN, Ordering::Relaxed);
                    word(ephemeron, VALUE).store(0, Ordering::Relaxed);
                    word(ephemeron, KEY).store(0, Ordering::Release);
                }
                broken += 1;
            }
        });
        // Relaxed: read after the threads have been joined.
        self.ephemerons.broken.fetch_add(broken, Ordering::Relaxed);
    }
}

impl Marker {
    /// An ephemeron is visited.
    #[cold]
    #[inline(never)]
    pub(crate) fn ephemeron<const SHARED: bool, const CHECKED: bool>(
        &mut self,
        reach: Reach<'_>,
        ephemeron: u64,
    ) {
        let core = reach.core;
        if let Some(key) = target(core, ephemeron, KEY)
            && core.unreached(key)
        {
            if !CHECKED || !core.ephemerons.insert(key, ephemeron) {
                self.found.push(ephemeron, LINK);
                return;
            }
            if SHARED {
                // SeqCst: pairs with the fence in `resolve`; see the essay.
                fence(Ordering::SeqCst);
            }
            if core.unreached(key) {
                return;
            }
        }
        if let Some(value) = target(core, ephemeron, VALUE) {
            self.consider::<SHARED, CHECKED>(reach, value);
        }
    }

    /// The object at `key` has been marked: marks what depends on it.
    #[inline]
    pub(crate) fn resolve<const SHARED: bool>(&mut self, reach: Reach<'_>, key: u64) {
        if SHARED {
            // SeqCst: pairs with the fence in `ephemeron`.
            fence(Ordering::SeqCst);
        }
        let core = reach.core;
        let mut steps = 0;
        for ephemeron in core.ephemerons.chain(key) {
            steps += 1;
            if target(core, ephemeron, KEY) == Some(key)
                && let Some(value) = target(core, ephemeron, VALUE)
            {
                self.consider::<SHARED, true>(reach, value);
            }
        }
        self.steps += steps;
    }

    /// Indexes what has been found; returns whether there is something to trace. Only while no marker runs.
    pub(crate) fn index(&mut self, core: &Core) -> bool {
        let reach = Reach::of(core);
        let ephemerons = &core.ephemerons;
        let mut found = std::mem::take(&mut *ephemerons.found.lock().unwrap());
        let buckets = ephemerons.buckets.load(Ordering::Relaxed);
        ephemerons.dismantle(&AtomicUsize::new(0), |ephemeron| found.push(ephemeron, LINK));
        let wanted = found.len().next_power_of_two().max(2 * buckets).max(SMALLEST);
        // Relaxed, all: no marker runs.
        ephemerons.buckets.store(wanted.min(ephemerons.heads.len()), Ordering::Relaxed);
        ephemerons.indexed.store(0, Ordering::Relaxed);
        ephemerons.indexings.fetch_add(1, Ordering::Relaxed);
        ephemerons.steps.fetch_add(found.len() as u64, Ordering::Relaxed);
        while let Some(ephemeron) = found.pop(LINK) {
            self.ephemeron::<true, true>(reach, ephemeron);
        }
        ephemerons.gather(&mut self.found, std::mem::take(&mut self.steps));
        self.has_work() || !core.segments.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BackendKind, Config};
    use crate::core::Op;
    use crate::cycle::Collector;
    use firn_heap::layout::{Layout, LayoutId};

    const WORDS: usize = 4;

    /// An object: its number is its place.
    #[derive(Clone, Copy)]
    enum Thing {
        Plain([Option<usize>; 2]),
        Ephemeron(usize, usize),
    }

    /// What is live: everything that can be reached, by going round until nothing changes.
    fn live(things: &[Thing], roots: &[usize]) -> Vec<bool> {
        let mut live = vec![false; things.len()];
        roots.iter().for_each(|&root| live[root] = true);
        loop {
            let before = live.clone();
            for (number, thing) in things.iter().enumerate() {
                match *thing {
                    _ if !live[number] => {}
                    Thing::Plain(slots) => slots.iter().flatten().for_each(|&to| live[to] = true),
                    Thing::Ephemeron(key, value) => live[value] |= live[key],
                }
            }
            if live == before {
                return live;
            }
        }
    }

    /// Writes the words of an object of four, of which the last one is the collector's.
    ///
    /// # Safety
    /// They must lie in memory that only the caller knows.
    unsafe fn write(address: u64, layout: LayoutId, slots: [u64; 2]) {
        let all = [Header::new(layout, 0).0, slots[0], slots[1], 0];
        for (index, value) in all.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { word(address, index) }.store(value, Ordering::Relaxed);
        }
    }

    fn random(state: &mut u64, below: usize) -> usize {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*state >> 33) as usize % below
    }

    #[test]
    fn a_dead_key_does_not_read_as_the_object_that_has_its_address_now() {
        let config = Config { backend: BackendKind::Stw, limit: 64 << 20, ..Config::default() };
        let core = Core::new(config).unwrap();
        let collector = Collector::new(core.clone(), || {}).unwrap();
        let slot = core.attach().unwrap();
        core.safepoints.block(&*core, &slot);
        // Too long to lie beside another one: what is made when it is gone lies where it was.
        let words = core.space.geometry.limit_pages * core.space.geometry.page / WORD / 5 * 3;
        let header = Header::new(LayoutId::DATA[3], words - 1);
        let key = core.allocate_large(header, words).unwrap() as u64;
        let pages = core.space.grab(1).unwrap();
        let ephemeron = (core.space.current().base() + pages * core.space.geometry.page) as u64;
        // SAFETY: inside the page taken above, which `stw` maps on demand.
        unsafe { write(ephemeron, LayoutId::EPHEMERON, [key, key]) };
        let root = core.add_root(ephemeron);
        // SAFETY: a word of the ephemeron, as long as nothing moves.
        let place = unsafe { word(ephemeron, KEY) };
        core.safepoints.request(&*core, Op::StartMark);
        // What a reader has loaded that gets no processor until the key is gone and its place taken.
        let loaded = place.load(Ordering::Acquire);
        collector.mark_for_measurement();
        core.space.large.sweep(&core.space.layouts, |pages| core.space.uncommit(pages));
        assert_eq!(core.allocate_large(header, words), Some(key as usize));
        assert!(core.space.large.is_marked(key as usize), "born with a mark");
        core.safepoints.unblock(&*core, &slot);
        assert!(!core.read_weakly(&slot.mutator, loaded, (place, loaded, key)));
        core.remove_root(root);
        core.detach(&slot);
    }

    #[test]
    fn a_large_key_made_while_the_last_sweep_was_under_way_dies_like_others() {
        let config = Config { backend: BackendKind::Stw, limit: 16 << 20, ..Config::default() };
        let core = Core::new(config).unwrap();
        let mut collector = Collector::new(core.clone(), || {}).unwrap();
        let slot = core.attach().unwrap();
        // Behind the sweep, which is over but has not said so.
        core.large_born_marked.store(true, Ordering::Relaxed);
        let words = 2 * core.space.geometry.page_words;
        let header = Header::new(LayoutId::DATA[3], words - 1);
        let key = core.allocate_large(header, words).unwrap() as u64;
        core.large_born_marked.store(false, Ordering::Relaxed);
        let bytes = firn_heap::layout::ephemeron::WORDS * WORD;
        let place = core.allocate_slow(&slot.mutator, LayoutId::EPHEMERON, bytes).unwrap() as u64;
        // SAFETY: the object just allocated.
        unsafe { write(place, LayoutId::EPHEMERON, [key, key]) };
        let root = core.add_root(place);
        core.safepoints.block(&*core, &slot);
        let summary = collector.collect(crate::events::Cause::Explicit);
        assert_eq!((summary.ephemerons_broken, summary.large_live_bytes), (1, 0));
        core.safepoints.unblock(&*core, &slot);
        core.remove_root(root);
        core.detach(&slot);
    }

    #[test]
    fn what_is_marked_and_broken_is_what_going_round_finds() {
        for workers in [1, 2] {
            let (backend, limit) = (BackendKind::Stw, 64 << 20);
            let core = Core::new(Config { workers, backend, limit, ..Config::default() }).unwrap();
            let plain = Layout { refs: vec![0, 1], ..Layout::plain("plain", WORDS - 1) };
            let plain = core.space.layouts.register(&plain).unwrap();
            let collector = Collector::new(core.clone(), || {}).unwrap();
            let (pages, page) = (64, core.space.geometry.page);
            let base = core.space.current().base() + core.space.grab(pages).unwrap() * page;
            let address = |number: usize| (base + number * WORDS * WORD) as u64;
            let room = pages * page / (WORDS * WORD);
            for seed in 0..60u64 {
                let state = &mut (seed + 1);
                let count = [20, 300, 5000, room][seed as usize % 4];
                let things: Vec<_> = (0..count)
                    .map(|number| match random(state, 4) {
                        0 => Thing::Plain(
                            [0, 1].map(|_| (random(state, 3) == 0).then(|| random(state, count))),
                        ),
                        // Chains in both directions, and others.
                        1 => Thing::Ephemeron((number + 1) % count, number.saturating_sub(1)),
                        2 => Thing::Ephemeron(number.saturating_sub(1), (number + 1) % count),
                        _ => Thing::Ephemeron(random(state, count), random(state, count)),
                    })
                    .collect();
                let roots: Vec<_> = (0..1 + count / 8).map(|_| random(state, count)).collect();
                for (number, thing) in things.iter().enumerate() {
                    let (layout, words) = match *thing {
                        Thing::Plain(slots) => (plain, slots.map(|to| to.map_or(0, address))),
                        Thing::Ephemeron(key, value) => {
                            (LayoutId::EPHEMERON, [address(key), address(value)])
                        }
                    };
                    // SAFETY: inside the pages taken above, which `stw` maps on demand.
                    unsafe { write(address(number), layout, words) };
                }
                let places: Vec<_> = roots.iter().map(|&to| core.add_root(address(to))).collect();
                core.safepoints.request(&*core, Op::StartMark);
                collector.mark_for_measurement();
                let expected = live(&things, &roots);
                for (number, thing) in things.iter().enumerate() {
                    let marked = !core.unreached(address(number));
                    assert_eq!(marked, expected[number], "{seed}, {workers} workers: {number}");
                    if let (&Thing::Ephemeron(key, _), true) = (thing, marked) {
                        // SAFETY: as above.
                        let whole = unsafe { word(address(number), KEY) }.load(Ordering::Relaxed);
                        assert_eq!(
                            whole != 0,
                            expected[key],
                            "{seed}, {workers} workers: {number}"
                        );
                    }
                }
                places.into_iter().for_each(|place| core.remove_root(place));
                let blocks = crate::plan::blocks_below(&core.space, core.late_page());
                core.space.blocks.reset(0, blocks);
            }
        }
    }
}
