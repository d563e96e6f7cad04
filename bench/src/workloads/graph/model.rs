//! The shadow model: what the heap must hold, in native memory, by ids instead of addresses.
//!
//! An object belongs to one thread, which alone may change or look into it, or it is frozen:
//! nobody changes it and everybody may look. Ownership changes only between rounds. So within a
//! round each thread has its own objects in a map of its own, and the frozen ones in a map that
//! all share, and no lock is needed.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::kinds::{Edge, Kind, REGISTERS};
use crate::workloads::rng::{Rng, fin};

/// An object's name: never used again, the same under every back end.
pub type Id = u64;

/// Hashes ids, which need only be spread.
#[derive(Debug, Default, Clone)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(u64::from(b));
        }
    }

    fn write_u64(&mut self, x: u64) {
        self.0 = fin(self.0 ^ x);
    }

    fn write_usize(&mut self, x: usize) {
        self.write_u64(x as u64);
    }
}

/// A map from ids (or addresses).
pub type IdMap<V> = HashMap<u64, V, BuildHasherDefault<IdHasher>>;

/// One object of the model.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// What each slot holds.
    pub slots: Vec<Edge<Id>>,
    /// Its data words; word 0 of a kind with an id is the id.
    pub words: Vec<u64>,
}

impl Object {
    /// A new object with empty slots. The words of data arrays are random, given by the id.
    pub fn new(kind: Kind, id: Id, len: usize) -> Object {
        let mut words = vec![0; kind.words(len)];
        if kind.has_id() {
            words[0] = id;
        } else {
            let mut rng = contents(id);
            words.iter_mut().for_each(|w| *w = kind.word(rng.next_u64()));
        }
        Object { kind, slots: vec![Edge::Null; kind.slots(len)], words }
    }

    /// About how much heap the object takes.
    fn bytes(&self) -> usize {
        24 + (self.slots.len() + self.words.len()) * 8
    }
}

/// The random numbers that the data array `id` is filled with.
pub fn contents(id: Id) -> Rng {
    Rng::new(fin(id))
}

/// Objects by id.
pub type Objects = IdMap<Object>;

/// What becomes of a published object (and what it leads to) when the round ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover {
    /// Nobody changes it any more.
    Freeze,
    /// It belongs to this thread.
    Give(usize),
}

/// A thread's part of the model.
#[derive(Debug)]
pub struct Partition {
    /// The objects that it owns.
    pub owned: Objects,
    /// What its registers hold, by kind and index.
    pub registers: Vec<[Option<Id>; REGISTERS]>,
    /// Its segments of the two shared tables.
    pub segments: [Vec<Option<Id>>; 2],
    /// Which objects change hands when the round ends, in the order in which that was decided.
    pub handovers: Vec<(Id, Handover)>,
}

impl Partition {
    /// A thread that has nothing.
    pub fn new(segment: usize) -> Partition {
        Partition {
            owned: Objects::default(),
            registers: vec![[None; REGISTERS]; Kind::ALL.len()],
            segments: [vec![None; segment], vec![None; segment]],
            handovers: Vec::new(),
        }
    }
}

/// What all threads may read in a round.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The round's number, from 0.
    pub round: usize,
    /// Frozen objects.
    pub frozen: Arc<Objects>,
    /// The shared table that nobody writes in this round.
    pub published: Arc<Vec<Option<Id>>>,
    /// The model has grown beyond its limit: every thread lets go of its registers.
    pub shrink: bool,
}

/// The whole model, between rounds.
pub struct Model<'a> {
    /// Every thread's part, by thread.
    pub partitions: Vec<&'a mut Partition>,
    /// The frozen objects.
    pub frozen: &'a mut Objects,
}

impl Model<'_> {
    /// The roots in their canonical order: the registers by thread, kind and index, then the two
    /// shared tables.
    pub fn roots(&self) -> Vec<Edge<Id>> {
        let registers = self.partitions.iter().flat_map(|p| p.registers.iter().flatten().copied());
        let tables = (0..2)
            .flat_map(|t| self.partitions.iter().flat_map(move |p| p.segments[t].iter().copied()));
        registers.chain(tables).map(Edge::to).collect()
    }

    /// Looks an object up, whoever owns it.
    pub fn find(&self, id: Id) -> &Object {
        self.partitions
            .iter()
            .map(|p| &p.owned)
            .chain([&*self.frozen])
            .find_map(|objects| objects.get(&id))
            .expect("every edge of the model leads to an object of the model")
    }

    /// Forgets everything but the objects given, which are those that can be reached. Returns
    /// about how many bytes of heap they take.
    pub fn retain(&mut self, reached: &IdMap<u32>) -> usize {
        let mut bytes = 0;
        let maps = self.partitions.iter_mut().map(|p| &mut p.owned).chain([&mut *self.frozen]);
        for objects in maps {
            objects.retain(|id, object| {
                let keep = reached.contains_key(id);
                bytes += if keep { object.bytes() } else { 0 };
                // Dead keys are gone for ever.
                let dead = |key: Id| !reached.contains_key(&key);
                if object.kind == Kind::Weak && object.slots[0].target().is_none_or(dead) {
                    object.slots.fill(Edge::Null);
                }
                keep
            });
        }
        bytes
    }

    /// Carries the handovers of the round out, by thread and in order. What an object leads to
    /// goes with it, as far as it belongs to the same thread, up to `limit` objects.
    pub fn hand_over(&mut self, limit: usize) {
        for giver in 0..self.partitions.len() {
            for (id, handover) in std::mem::take(&mut self.partitions[giver].handovers) {
                let mut moving = vec![id];
                let mut at = 0;
                while at < moving.len() {
                    let id = moving[at];
                    at += 1;
                    let Some(object) = self.partitions[giver].owned.remove(&id) else { continue };
                    if moving.len() < limit {
                        moving.extend(object.slots.iter().filter_map(|e| e.target()).take(limit));
                    }
                    let to = match handover {
                        Handover::Freeze => &mut *self.frozen,
                        Handover::Give(thread) => &mut self.partitions[thread].owned,
                    };
                    to.insert(id, object);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(head: Option<Id>) -> Object {
        let mut object = Object::new(Kind::Hub, 9, 0);
        object.slots[0] = Edge::to(head);
        object
    }

    #[test]
    fn what_is_given_takes_what_it_leads_to_along_but_not_what_belongs_to_others() {
        let (mut a, mut b) = (Partition::new(0), Partition::new(0));
        let mut frozen = Objects::default();
        a.owned.insert(1, pair(Some(2)));
        a.owned.insert(2, pair(Some(3)));
        b.owned.insert(3, pair(None));
        a.owned.insert(4, pair(None));
        a.handovers = vec![(1, Handover::Give(1)), (4, Handover::Freeze)];
        let mut model = Model { partitions: vec![&mut a, &mut b], frozen: &mut frozen };
        model.hand_over(10);
        let mut of_b: Vec<_> = b.owned.keys().copied().collect();
        of_b.sort_unstable();
        assert_eq!(of_b, [1, 2, 3]);
        assert!(a.owned.is_empty());
        assert!(frozen.contains_key(&4));
    }

    #[test]
    fn an_object_given_twice_goes_to_the_first() {
        let mut parts = [Partition::new(0), Partition::new(0), Partition::new(0)];
        parts[0].owned.insert(1, pair(Some(1)));
        parts[0].handovers = vec![(1, Handover::Give(1)), (1, Handover::Give(2))];
        let mut frozen = Objects::default();
        let mut model = Model { partitions: parts.iter_mut().collect(), frozen: &mut frozen };
        model.hand_over(10);
        assert!(parts[1].owned.contains_key(&1) && parts[2].owned.is_empty());
    }

    #[test]
    fn data_arrays_have_contents_that_follow_from_their_id() {
        let (a, b) = (Object::new(Kind::I16, 7, 50), Object::new(Kind::I16, 7, 50));
        assert_eq!(a.words, b.words);
        assert_ne!(a.words, Object::new(Kind::I16, 8, 50).words);
        // Sign extension shows that the words are those of the element type.
        assert!(a.words.iter().all(|&w| w as i64 == i64::from(w as i16)));
    }
}
