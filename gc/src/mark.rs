//! Marking: concurrent, parallel, snapshot-at-the-beginning.
//!
//! Everything reachable when marking began gets marked: roots are taken in a handshake, mutators log each
//! reference they overwrite, and what they allocate meanwhile lies in the late region, which is live as a
//! whole and never visited. So the final pause has nothing to trace: it finds the logs empty, or lets
//! marking go on.
//!
//! **The end.** A round flushes every mutator's log by a handshake and drains what came. Once a round finds
//! nothing to drain, hardly any unmarked object of the snapshot can be left: each such object was reachable
//! through unmarked ones from a queued or logged reference, there was none queued before the round, and each log
//! was found empty at a moment after that. The final pause makes the check where mutators stand still,
//! and switches the barrier off. Its work is one buffer for each mutator, whatever the heap's size or the
//! rate of mutation.
//!
//! **What is logged.** A reference is logged unless its object is marked or in some log of this cycle already,
//! whoever's that is (`Core::remember`): so what all logs hold is bounded by the number of objects, however often
//! the program overwrites them while the markers get no processor. Who skips an object because another thread
//! has logged it may come out of a round with an empty log while the object waits in the other's: it is the final
//! pause, where all logs are flushed at one moment, that proves them empty.
//!
//! **The loop.** A reference found in a slot waits in a ring while the entry with its mark bit is being fetched, until
//! some more have been found or there is nothing else to do; then the object is claimed by its first mark bit, and queued
//! by the claimer. (All other references, roots among them, are claimed at once.) Before its header is looked at (for
//! the size, hence the last bit, and the slots) it spends some turns in a second ring while the header is being
//! fetched. With one marker there are no atomic read-modify-writes. Nothing waits in either ring when a marker takes
//! a segment, gets idle, or has drained.
//!
//! **Weakly held objects** are [`crate::ephemerons`]' and `crate::guardians`': this file calls them for objects of
//! their kinds, and, once there is something to be looked up for visited objects, in a variant of the loop of its
//! own. They are also why the final pause traces a little (`finish`): reading a weak reference
//! logs it, and a program that does so all the time must not keep marking from ending.

use crate::core::Core;
use crate::ephemerons::Chain;
use crate::segments::{CAPACITY, Log};
use firn_heap::WORD;
use firn_heap::blocks::prefetch;
use firn_heap::layout::{Header, LayoutId, Slot, Tracing};
use firn_heap::space::Space;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Claimed objects whose headers are being fetched at a time.
const RING: usize = 16;
/// References whose mark bits are being fetched at a time.
const AHEAD: usize = 32;
/// Surplus addresses that make a marker share some when others are idle.
const SHARE: usize = 2 * CAPACITY;
/// Addresses a marker keeps to itself at most.
const LOCAL: usize = 32 * CAPACITY;
/// Work done in the final pause at most, in slots looked at: some tens of microseconds.
const PAUSE: usize = 512;
/// In the pause keys of large objects never fill a segment, which would be queued and not looked at.
const _: () = assert!(PAUSE <= CAPACITY + 1);
/// What an object costs beside its slots.
const OBJECT: usize = 4;

/// What markers share in one marking.
#[derive(Default)]
pub struct MarkShared {
    /// Markers without work.
    idle: AtomicUsize,
    /// Objects marked.
    pub objects: AtomicU64,
}

/// One marker's state. Memory is kept from cycle to cycle.
pub struct Marker {
    stack: Vec<u64>,
    /// References found, not looked at: the newest `pending` before place `next`, counted around.
    ahead: [u64; AHEAD],
    next: usize,
    pending: usize,
    objects: u64,
    /// Large objects that have been marked, and whose ephemerons have not been looked up: those of a segment, and as
    /// many as have come since. More go to segments.
    keys: Vec<u64>,
    /// Ephemerons whose keys are not marked, and that are not in the index.
    pub(crate) found: Chain,
    /// Guardians' notes whose objects are not marked.
    pub(crate) guarded: Chain,
    /// Ephemerons looked at.
    pub(crate) steps: u64,
}

impl Default for Marker {
    fn default() -> Marker {
        Marker {
            stack: Vec::with_capacity(LOCAL + 1),
            ahead: [0; AHEAD],
            next: 0,
            pending: 0,
            objects: 0,
            keys: Vec::with_capacity(2 * CAPACITY),
            found: Chain::default(),
            guarded: Chain::default(),
            steps: 0,
        }
    }
}

/// What of the heap a marker looks at.
#[derive(Clone, Copy)]
pub(crate) struct Reach<'a> {
    pub(crate) core: &'a Core,
    space: &'a Space,
    base: usize,
    /// Bytes from the base on that are to be marked.
    marked_bytes: usize,
}

impl<'a> Reach<'a> {
    /// The marking under way.
    pub(crate) fn of(core: &'a Core) -> Reach<'a> {
        let space = &core.space;
        let marked_bytes = core.late_page() * space.geometry.page;
        Reach { core, space, base: space.current().base(), marked_bytes }
    }

    /// Whether `address` is in the part of the range that is being marked.
    #[inline(always)]
    fn covers(&self, address: u64) -> bool {
        (address as usize).wrapping_sub(self.base) < self.marked_bytes
    }

    /// Slots of the object at `address`, at most.
    fn slots(&self, address: u64) -> usize {
        // SAFETY: a claimed object; headers never change.
        let header = Header(unsafe { (address as *const u64).read() });
        let descriptor = self.space.layouts.get(header.layout());
        if descriptor.is_leaf() { 0 } else { descriptor.words(header) }
    }
}

impl Marker {
    /// Marks everything reachable from what is queued, together with `markers - 1` others that run the
    /// same. Returns when all are out of work.
    pub fn drain(&mut self, core: &Core, shared: &MarkShared, markers: usize) {
        match (markers == 1, core.ephemerons.is_indexed()) {
            (true, false) => self.drain_as::<false, false>(core, shared, 1),
            (true, true) => self.drain_as::<false, true>(core, shared, 1),
            (false, false) => self.drain_as::<true, false>(core, shared, markers),
            (false, true) => self.drain_as::<true, true>(core, shared, markers),
        }
        debug_assert_eq!(self.pending, 0, "a reference has not been looked at");
        core.ephemerons.gather(&mut self.found, std::mem::take(&mut self.steps));
        core.guarded.gather(&mut self.guarded);
        // Relaxed: read after the markers have been joined.
        shared.objects.fetch_add(self.take_objects(), Ordering::Relaxed);
    }

    /// Objects visited since this was asked last.
    pub(crate) fn take_objects(&mut self) -> u64 {
        std::mem::take(&mut self.objects)
    }

    /// Whether something waits to be visited.
    pub(crate) fn has_work(&self) -> bool {
        !self.stack.is_empty() || !self.keys.is_empty() || self.pending > 0
    }

    /// In the final pause: traces what is queued, if that is little. Returns whether marking is complete; if
    /// not, what is left waits for a drain. Only one marker may do this at a time.
    pub(crate) fn finish(&mut self, core: &Core) -> bool {
        if core.ephemerons.is_indexed() {
            self.finish_as::<true>(core)
        } else {
            self.finish_as::<false>(core)
        }
    }

    fn finish_as<const CHECKED: bool>(&mut self, core: &Core) -> bool {
        let reach = Reach::of(core);
        let mut left = PAUSE;
        loop {
            if left == 0 && !core.segments.is_empty() {
                return false;
            }
            let queued = self.refill::<false, CHECKED>(core, reach);
            left = left.saturating_sub(queued);
            while let Some(key) = self.keys.pop() {
                let cost = core.ephemerons.chain_len(key, left);
                if cost > left {
                    self.keys.push(key);
                    return false;
                }
                left -= cost;
                self.resolve::<false>(reach, key);
            }
            while let Some(address) = self.stack.pop() {
                let chain = if CHECKED { core.ephemerons.chain_len(address, left) } else { 0 };
                let cost = reach.slots(address) + OBJECT + chain;
                if cost > left {
                    self.stack.push(address);
                    return false;
                }
                left -= cost;
                self.visit::<false, CHECKED>(reach, address);
                self.settle::<false>(reach);
            }
            if queued == 0 && self.keys.is_empty() {
                return self.found.is_empty() && self.guarded.is_empty();
            }
        }
    }

    fn drain_as<const SHARED: bool, const CHECKED: bool>(
        &mut self,
        core: &Core,
        shared: &MarkShared,
        markers: usize,
    ) {
        let reach = Reach::of(core);
        loop {
            if CHECKED {
                while let Some(key) = self.keys.pop() {
                    self.resolve::<SHARED>(reach, key);
                }
            }
            if self.stack.is_empty() && self.refill::<SHARED, CHECKED>(core, reach) == 0 {
                if markers == 1 || !self.wait(core, shared, markers) {
                    return;
                }
                continue;
            }
            self.trace::<SHARED, CHECKED>(core, reach, shared);
        }
    }

    /// Takes a queued segment into the local stack, of which the last addresses may stay with `keys`; returns how
    /// many there were. There is room in both: the stack is empty, and of keys there are no more than `consider` leaves.
    fn refill<const SHARED: bool, const CHECKED: bool>(
        &mut self,
        core: &Core,
        reach: Reach<'_>,
    ) -> usize {
        debug_assert_eq!(self.pending, 0, "a reference has not been looked at");
        let Some((segment, len, claimed)) = core.segments.take() else { return 0 };
        // SAFETY: this thread holds the segment, whose first `len` words were written.
        let words = unsafe { std::slice::from_raw_parts(core.segments.words(&segment), len) };
        if claimed {
            self.stack.extend_from_slice(words);
        } else {
            // Others are no work of this cycle, wherever they come from; they must not index the table.
            let keys = &mut self.keys;
            let fresh = |address: &u64| {
                if !reach.covers(*address) {
                    // Marked by who queued it.
                    if CHECKED && reach.space.large.contains(*address as usize) {
                        keys.push(*address);
                    }
                    return false;
                }
                let word = (*address as usize - reach.base) / WORD;
                reach.space.blocks.mark_start::<SHARED>(word)
            };
            self.stack.extend(words.iter().copied().filter(fresh));
        }
        core.segments.release(segment);
        len
    }

    /// Out of work: waits for somebody to share; false when all are out of work.
    fn wait(&mut self, core: &Core, shared: &MarkShared, markers: usize) -> bool {
        // SeqCst: the last one to go idle must see every segment submitted by the others before.
        let mut idle = shared.idle.fetch_add(1, Ordering::SeqCst) + 1;
        loop {
            if !core.segments.is_empty() {
                shared.idle.fetch_sub(1, Ordering::SeqCst);
                return true;
            }
            if idle == markers {
                return false;
            }
            std::thread::yield_now();
            idle = shared.idle.load(Ordering::SeqCst);
        }
    }

    fn trace<const SHARED: bool, const CHECKED: bool>(
        &mut self,
        core: &Core,
        reach: Reach<'_>,
        shared: &MarkShared,
    ) {
        let mut ring = [0u64; RING];
        let mut turn = 0;
        let mut waiting = 0;
        loop {
            let place = turn % RING;
            let ready = std::mem::take(&mut ring[place]);
            if let Some(next) = self.stack.pop() {
                prefetch(next as *const u8);
                ring[place] = next;
                waiting += 1;
            }
            if ready != 0 {
                waiting -= 1;
                self.visit::<SHARED, CHECKED>(reach, ready);
                if SHARED {
                    // Relaxed: a hint.
                    let idle = SHARED && shared.idle.load(Ordering::Relaxed) > 0;
                    if idle && self.stack.len() > SHARE {
                        self.hand_over(core);
                    }
                }
            } else if waiting == 0 && !self.settle::<SHARED>(reach) {
                return;
            }
            turn += 1;
        }
    }

    /// Completes the mark of a claimed object and queues what it refers to.
    #[inline(always)]
    fn visit<const SHARED: bool, const CHECKED: bool>(&mut self, reach: Reach<'_>, address: u64) {
        let word = (address as usize - reach.base) / WORD;
        // SAFETY: a reference found in the heap or the roots leads to an object; headers never change.
        let header = Header(unsafe { (address as *const u64).read() });
        if header.layout() == LayoutId(0) {
            missing_object(address, header);
        }
        // SAFETY: the header is an object's.
        let descriptor = unsafe { reach.space.layouts.get_unchecked(header.layout()) };
        let words = descriptor.words(header);
        reach.space.blocks.mark_end::<SHARED>(word + words - 1);
        self.objects += 1;
        if CHECKED {
            self.resolve::<SHARED>(reach, address);
        }
        match descriptor.tracing() {
            Tracing::Slots => {}
            Tracing::Leaf => return,
            Tracing::Ephemeron => return self.ephemeron::<SHARED, CHECKED>(reach, address),
            Tracing::Guarded if self.note::<SHARED, CHECKED>(reach, address) => {}
            Tracing::Guarded => return,
        }
        let slots = address as *const AtomicU64;
        descriptor.each_slot(0, words, |index, slot| {
            // SAFETY: a slot of the object. Acquire: pairs with the release store of the reference, so
            // that the header of an object published after the snapshot is seen too.
            let value = unsafe { &*slots.add(index) }.load(Ordering::Acquire);
            match slot {
                Slot::Ref => self.look_ahead::<SHARED, CHECKED>(reach, value),
                Slot::Tagged if descriptor.rule().is_reference(value) => {
                    self.look_ahead::<SHARED, CHECKED>(reach, descriptor.rule().address_of(value));
                }
                Slot::Tagged => {}
            }
        });
    }

    /// Has the mark bits of the object at `address` fetched, and claims the object that was asked for longest ago.
    #[inline(always)]
    fn look_ahead<const SHARED: bool, const CHECKED: bool>(
        &mut self,
        reach: Reach<'_>,
        address: u64,
    ) {
        if !reach.covers(address) {
            return self.consider::<SHARED, CHECKED>(reach, address);
        }
        reach.space.blocks.prefetch((address as usize - reach.base) / WORD);
        let place = self.next % AHEAD;
        self.next = place + 1;
        let oldest = std::mem::replace(&mut self.ahead[place], address);
        if self.pending == AHEAD {
            self.claim::<SHARED>(reach, oldest);
        } else {
            self.pending += 1;
        }
    }

    /// Claims what is still being asked for; returns whether there was something.
    fn settle<const SHARED: bool>(&mut self, reach: Reach<'_>) -> bool {
        let pending = std::mem::take(&mut self.pending);
        for number in 0..pending {
            let oldest = self.ahead[(self.next + AHEAD - pending + number) % AHEAD];
            self.claim::<SHARED>(reach, oldest);
        }
        pending > 0
    }

    /// Claims an object by its first mark bit, and queues it if it was unmarked: each object is queued once.
    #[inline(always)]
    fn claim<const SHARED: bool>(&mut self, reach: Reach<'_>, address: u64) {
        let word = (address as usize - reach.base) / WORD;
        if !reach.space.blocks.mark_start::<SHARED>(word) {
            return;
        }
        if self.stack.len() >= LOCAL {
            self.hand_over(reach.core);
        }
        self.stack.push(address);
    }

    /// Marks the object at `address` and sees to it that what it refers to gets marked too.
    #[inline(always)]
    pub(crate) fn consider<const SHARED: bool, const CHECKED: bool>(
        &mut self,
        reach: Reach<'_>,
        address: u64,
    ) {
        if reach.covers(address) {
            self.claim::<SHARED>(reach, address);
        } else if reach.space.large.contains(address as usize)
            && reach.space.large.mark(address as usize)
            && CHECKED
        {
            // Not looked up here: large objects can be each other's values, as deep as the heap has room for.
            if self.keys.len() >= CAPACITY {
                queue_newest(reach.core, &mut self.keys, false);
            }
            self.keys.push(address);
        }
    }

    /// Hands the newest addresses over: to idle markers, or because there are too many. (The oldest would
    /// make better shares, but taking them means moving all the others.)
    #[cold]
    fn hand_over(&mut self, core: &Core) {
        queue_newest(core, &mut self.stack, true);
    }
}

/// Queues the last addresses of a list, as many as fill a segment; `claimed` as in `Segments::submit`.
#[cold]
fn queue_newest(core: &Core, list: &mut Vec<u64>, claimed: bool) {
    let segment = core.segments.acquire();
    let keep = list.len() - CAPACITY;
    // SAFETY: this thread holds the segment, which has `CAPACITY` words, and the list at least as many.
    unsafe {
        let words = core.segments.words(&segment);
        std::ptr::copy_nonoverlapping(list.as_ptr().add(keep), words, CAPACITY);
    }
    list.truncate(keep);
    core.segments.submit(segment, claimed);
}

#[cold]
#[inline(never)]
fn missing_object(address: u64, header: Header) -> ! {
    panic!(
        "the reference {address:#x} leads to no object (header {header:?}): a root was missed, or memory was overwritten"
    )
}

/// Collects root addresses into segments.
pub struct RootQueue<'a> {
    core: &'a Core,
    log: Log,
}

impl<'a> RootQueue<'a> {
    /// An empty queue.
    pub fn new(core: &'a Core) -> RootQueue<'a> {
        RootQueue { core, log: Log::default() }
    }

    /// Queues the object at `address`, if it is one that gets marked.
    pub fn push(&mut self, address: u64) {
        self.core.remember(&mut self.log, address);
    }
}

impl Drop for RootQueue<'_> {
    fn drop(&mut self) {
        self.log.flush(&self.core.segments);
    }
}
