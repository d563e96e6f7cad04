//! Guardians: queues that objects come out of, alive, once nothing else keeps them.
//!
//! A guardian is an object with two lists of *notes*: those that wait and those that are ready. A note of role
//! [`Guarded`](firn_heap::layout::Role::Guarded) holds the object that it watches weakly while it waits, and like
//! any reference once it is ready. Nothing is known outside the heap: a guardian that dies takes its notes along, and
//! what it watched dies too, if nothing else keeps it. No code of the program runs in the collector; the program asks
//! the guardian when it likes. (Guardians are Dybvig's, Bruggeman's and Eby's; Scheme knows them from Chez.)
//!
//! **When.** A marker that comes to a waiting note whose object is not marked puts the note on a list, as it does with
//! ephemerons. When nothing is left to trace and there are such notes, the final pause does not end marking: it
//! only makes sure that everything the program could reach is marked. After it, all objects
//! of listed notes that are still unmarked are marked with what they reach, and their notes move to their guardians'
//! ready lists; marking goes on, and its next final pause, usually, ends it. If what was brought back leads to
//! further guardians, there is one more pause for each generation of them. Objects are chosen before any of them is
//! marked: of two that refer to each other both come out.
//!
//! **Weak references** to a watched object are not broken by this, as in Chez Scheme: ephemerons are
//! broken when marking has ended, and the object is marked then. They break when the object has been taken out of its
//! guardian and dropped. A weak read between the pause and the marking of the object gives the object, too, which may
//! then come out of the guardian as well: it was unreachable when the pause looked.
//!
//! **Threads.** The program adds notes at the front of the waiting list and takes them from the front of the ready
//! list, by exchanges that log what they overwrite, as every store does while marking is on. The collector alone takes
//! notes out of the waiting list, and alone adds ready ones. A note never comes back to a list that it
//! has left, and addresses do not change while a thread is in the middle of an exchange: there is no ABA. A note that
//! was made while marking is on is not visited; its object lives through the cycle, because the thread that made the
//! note held it. All of the collector's part ends before the flip.

use crate::core::Core;
use crate::ephemerons::{Chain, target, word};
use crate::mark::{Marker, Reach};
use firn_heap::layout::guarded::{GUARDIAN, LINK, NEXT, OBJECT, READY, WAITING};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bit of a note's link: it is ready, and its object is held.
const IS_READY: u64 = 1;
/// Bit of a note's link: it has left the list of those that wait.
const HAS_LEFT: u64 = 2;

/// The waiting notes of the cycle under way whose objects have not been found.
#[derive(Default)]
pub(crate) struct Guarded {
    waiting: Mutex<Chain>,
    ready: AtomicU64,
}

impl Guarded {
    /// Takes over what a marker has found.
    pub fn gather(&self, found: &mut Chain) {
        if !found.is_empty() {
            self.waiting.lock().unwrap().append(found, LINK);
        }
    }

    /// How many notes became ready since this was asked last.
    pub fn take_ready(&self) -> u64 {
        self.ready.swap(0, Ordering::Relaxed)
    }
}

/// The watched object of a note.
fn object(core: &Core, note: u64) -> Option<u64> {
    target(core, note, OBJECT)
}

impl Core {
    /// Whether a note waits for an object that has not been marked. Forgets the notes before it whose objects have.
    pub(crate) fn guards_unreached(&self) -> bool {
        let mut waiting = self.guarded.waiting.lock().unwrap();
        while let Some(note) = waiting.pop(LINK) {
            if object(self, note).is_some_and(|object| self.unreached(object)) {
                waiting.push(note, LINK);
                return true;
            }
        }
        false
    }
}

impl Marker {
    /// A note is visited; returns whether it is ready, and all of it to be traced.
    #[cold]
    #[inline(never)]
    pub(crate) fn note<const SHARED: bool, const CHECKED: bool>(
        &mut self,
        reach: Reach<'_>,
        note: u64,
    ) -> bool {
        // SAFETY: a note has these words. Relaxed, the link: only the collector writes it, and no trace is under way
        // then. Acquire: pairs with the release that published what is referred to.
        let (link, next, guardian) = unsafe {
            (
                word(note, LINK).load(Ordering::Relaxed),
                word(note, NEXT).load(Ordering::Acquire),
                word(note, GUARDIAN).load(Ordering::Acquire),
            )
        };
        if link & IS_READY != 0 {
            return true;
        }
        self.consider::<SHARED, CHECKED>(reach, next);
        self.consider::<SHARED, CHECKED>(reach, guardian);
        if object(reach.core, note).is_some_and(|object| reach.core.unreached(object)) {
            self.guarded.push(note, LINK);
        }
        false
    }

    /// Makes every waiting note ready whose object has not been marked, and queues these objects for tracing. Only
    /// while no marker runs, and after a final pause that found nothing left to mark.
    pub(crate) fn fire(&mut self, core: &Core) {
        let reach = Reach::of(core);
        let mut waiting = std::mem::take(&mut *core.guarded.waiting.lock().unwrap());
        let mut chosen = Chain::default();
        while let Some(note) = waiting.pop(LINK) {
            if object(core, note).is_some_and(|object| core.unreached(object)) {
                chosen.push(note, LINK);
            }
        }
        let mut at = chosen.first();
        while at != 0 {
            // SAFETY: a note's word. Relaxed: the exchange that makes the note ready publishes it.
            let link = unsafe { word(at, LINK) };
            let next = link.load(Ordering::Relaxed);
            link.store(next | IS_READY, Ordering::Relaxed);
            if let Some(object) = object(core, at) {
                if core.ephemerons.is_indexed() {
                    self.consider::<true, true>(reach, object);
                } else {
                    self.consider::<true, false>(reach, object);
                }
            }
            at = next;
        }
        let mut at = chosen.first();
        while at != 0 {
            // SAFETY: a note's words.
            let (link, guardian) = unsafe { (word(at, LINK), word(at, GUARDIAN)) };
            let link = link.load(Ordering::Relaxed);
            if link & HAS_LEFT == 0 {
                move_ready(guardian.load(Ordering::Acquire));
            }
            at = link & !(IS_READY | HAS_LEFT);
        }
        core.guarded.ready.fetch_add(chosen.len() as u64, Ordering::Relaxed);
    }
}

/// Moves the ready ones among a guardian's waiting notes to its other list.
fn move_ready(guardian: u64) {
    // SAFETY: a note's guardian has both lists.
    let (waiting, ready) = unsafe { (word(guardian, WAITING), word(guardian, READY)) };
    // Acquire: pairs with the release of whoever added the note, here and below.
    let mut at = waiting.load(Ordering::Acquire);
    let mut before = None;
    while at != 0 {
        // SAFETY: the list has notes only, and nobody else changes their words once they are in it.
        let (link, next) = unsafe { (word(at, LINK), word(at, NEXT)) };
        let behind = next.load(Ordering::Acquire);
        let bits = link.load(Ordering::Relaxed);
        if bits & IS_READY == 0 {
            before = Some(next);
        } else {
            before = unlink(waiting, before, at, behind);
            link.store(bits | HAS_LEFT, Ordering::Relaxed);
            let mut first = ready.load(Ordering::Relaxed);
            loop {
                next.store(first, Ordering::Relaxed);
                // Release: pairs with the acquire of who takes the note.
                match ready.compare_exchange_weak(first, at, Ordering::Release, Ordering::Relaxed) {
                    Ok(_) => break,
                    Err(now) => first = now,
                }
            }
        }
        at = behind;
    }
}

/// Takes the note at `at`, which lies behind the word `before` or at the front, out of a waiting list. Returns the
/// word that it lay behind, if that is not the list itself.
fn unlink<'a>(
    waiting: &AtomicU64,
    before: Option<&'a AtomicU64>,
    at: u64,
    behind: u64,
) -> Option<&'a AtomicU64> {
    let before = match before {
        Some(before) => before,
        // AcqRel: takes the place of a store that published the note behind.
        None => match waiting.compare_exchange(at, behind, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return None,
            Err(mut newer) => loop {
                // Notes have been added in front meanwhile.
                // SAFETY: the list has notes only.
                let next: &'a AtomicU64 = unsafe { word(newer, NEXT) };
                let following = next.load(Ordering::Acquire);
                if following == at {
                    break next;
                }
                newer = following;
            },
        },
    };
    before.store(behind, Ordering::Release);
    Some(before)
}
