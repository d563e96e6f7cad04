//! One thread of `graph`: a register machine whose registers are roots, doing the same random
//! operations to the heap and to its part of the model, and comparing what it reads.
//!
//! Which operation comes next, and on what, depends on the thread's random numbers and on the
//! model alone, never on timing, addresses or the back end; so the model of a seed is always the
//! same, and the heap must be too. A thread changes and looks into only what it owns, looks into
//! what is frozen, and stores references to anything it holds.

use firn::{Gc, NoGc, OutOfMemory, RefArray, Scope, Trace};

use super::GraphError;
use super::kinds::{
    Accepts, Any, Edge, Element, Hub, Kind, Pair, REGISTERS, RegisterFile, Store, Tags, Wide,
    for_element,
};
use super::model::{Handover, Id, Object, Partition, Snapshot, contents};
use super::tagged::{Mixed, TAGGED};
use crate::workloads::rng::Rng;

/// Kinds are drawn from this list, so that hubs and pairs are frequent.
const DRAWN: [Kind; 14] = [
    Kind::Hub,
    Kind::Hub,
    Kind::Hub,
    Kind::Hub,
    Kind::Pair,
    Kind::Pair,
    Kind::Pair,
    Kind::Wide,
    Kind::List,
    Kind::Store,
    Kind::Tags,
    Kind::Words,
    Kind::Weak,
    Kind::Weak,
];

/// A thread's state across rounds.
pub struct Mutator<'s> {
    /// The thread's number.
    pub thread: usize,
    /// How many threads there are.
    pub threads: usize,
    /// Its roots.
    pub registers: RegisterFile<'s>,
    /// Its part of the model.
    pub part: Partition,
    rng: Rng,
    /// Objects made so far; with the thread's number, the next id.
    made: u64,
    /// Reads that were compared with the model.
    pub compared: u64,
    /// Of a thousand arrays, those that are larger than any page or TLAB.
    pub large_per_mille: usize,
}

/// An operation that could not go on.
pub enum Stop {
    /// The heap is too small.
    OutOfMemory(OutOfMemory),
    /// The heap does not hold what the model says.
    Wrong(String),
}

impl From<OutOfMemory> for Stop {
    fn from(error: OutOfMemory) -> Stop {
        Stop::OutOfMemory(error)
    }
}

impl Stop {
    /// The error, with the place where it happened.
    pub fn at(self, round: usize, thread: usize, operation: usize) -> GraphError {
        match self {
            Stop::OutOfMemory(error) => GraphError::OutOfMemory(error),
            Stop::Wrong(what) => GraphError::Wrong { round, thread, operation, what },
        }
    }
}

impl<'s> Mutator<'s> {
    /// A thread that has made nothing yet.
    pub fn new(
        cx: &Scope<'s>,
        thread: usize,
        threads: usize,
        seed: u64,
        segment: usize,
        large_per_mille: usize,
    ) -> Mutator<'s> {
        Mutator {
            thread,
            threads,
            registers: RegisterFile::new(cx),
            part: Partition::new(segment),
            rng: Rng::new(seed),
            made: 0,
            compared: 0,
            large_per_mille,
        }
    }

    /// Does one random operation. `write` and `read` are the shared tables of this round.
    ///
    /// # Errors
    /// The heap is full, or holds something else than the model.
    pub fn operation(
        &mut self,
        cx: &mut Scope<'s>,
        shared: &Snapshot,
        tables: &Tables<'s>,
    ) -> Result<(), Stop> {
        match self.rng.below(100) {
            0..26 => self.make(cx),
            26..58 => self.link(cx),
            58..72 => self.follow(cx, shared),
            72..82 => self.change_word(cx),
            82..88 => self.compare(cx, shared),
            88..91 => {
                self.shuffle(cx);
                Ok(())
            }
            91..94 => {
                self.publish(cx, shared, tables);
                Ok(())
            }
            94..97 => self.import(cx, shared, tables),
            97 => self.litter(cx),
            98 => self.rest(cx),
            _ => self.compare_all(cx, shared),
        }
    }

    /// Lets go of nearly everything: the model has outgrown its limit.
    pub fn shrink(&mut self, cx: &Scope<'s>, shared: &Snapshot, tables: &Tables<'s>) {
        for &kind in Kind::ALL {
            for i in 0..REGISTERS {
                self.registers.clear(cx, kind, i);
                self.part.registers[kind as usize][i] = None;
            }
        }
        let written = shared.round % 2;
        let table = tables.get(cx, written);
        let segment = &mut self.part.segments[written];
        let len = segment.len();
        for (i, slot) in segment.iter_mut().enumerate() {
            *slot = None;
            table.store(cx, self.thread * len + i, None);
        }
    }

    fn register(&mut self) -> (Kind, usize) {
        let kind = if self.rng.chance(70) {
            DRAWN[self.rng.below(DRAWN.len())]
        } else {
            Kind::ALL[self.rng.below(Kind::ALL.len())]
        };
        (kind, self.rng.below(REGISTERS))
    }

    /// What register `i` of a kind holds, in the heap and in the model.
    fn held<'m>(
        &self,
        cx: &'m Scope<'_>,
        kind: Kind,
        i: usize,
    ) -> Result<Option<(Any<'m>, Id)>, Stop> {
        match (self.registers.get(cx, kind, i), self.part.registers[kind as usize][i]) {
            (None, None) => Ok(None),
            (Some(any), Some(id)) => Ok(Some((any, id))),
            (heap, _) => {
                let has = if heap.is_some() { "something" } else { "nothing" };
                Err(Stop::Wrong(format!("register {i} of {kind:?} holds {has}")))
            }
        }
    }

    fn hold(&mut self, cx: &Scope<'_>, i: usize, any: Any<'_>, id: Id) {
        self.registers.set(cx, i, any);
        self.part.registers[any.kind() as usize][i] = Some(id);
    }

    fn next_id(&mut self) -> Id {
        self.made += 1;
        (self.thread as u64) << 40 | self.made
    }

    /// A length: mostly a few, sometimes several pages, rarely a large object.
    fn length(&mut self) -> usize {
        let draw = self.rng.below(1000);
        if draw < self.large_per_mille {
            9_000 + self.rng.below(12_000)
        } else if draw < 60 {
            300 + self.rng.below(1500)
        } else {
            self.rng.below(40)
        }
    }

    /// Makes an object in a random register, and links some of its slots.
    fn make(&mut self, cx: &mut Scope<'s>) -> Result<(), Stop> {
        let (kind, into) = self.register();
        let len = if kind.is_array() { self.length() } else { 0 };
        let id = self.next_id();
        let style = self.rng.below(3);
        let object = Object::new(kind, id, len);
        match kind {
            Kind::Hub => self.allocate(cx, into, style, Hub::new(id))?,
            Kind::Wide => self.allocate(cx, into, style, Wide::new(id))?,
            Kind::Store => self.allocate(cx, into, style, Store::new(id))?,
            Kind::Pair => return self.cons(cx, into, style, object, id),
            Kind::Tags => self.allocate(cx, into, style, Tags::new(id))?,
            Kind::List => self.allocate_list(cx, into, style, len)?,
            Kind::Words => self.allocate_words(cx, into, len)?,
            Kind::Weak => return self.make_weak(cx, into, style, object, id),
            data => self.allocate_data(cx, into, style, data, len, id)?,
        }
        self.part.registers[kind as usize][into] = Some(id);
        let slots = object.slots.len();
        self.part.owned.insert(id, object);
        for _ in 0..slots.min(1 + self.rng.below(6)) {
            let slot = self.rng.below(slots);
            self.link_slot(cx, (kind, into), slot)?;
        }
        Ok(())
    }

    /// Allocates a fixed object into a register, in one of the three ways that there are.
    fn allocate<T>(
        &mut self,
        cx: &mut Scope<'s>,
        into: usize,
        style: usize,
        value: T,
    ) -> Result<(), Stop>
    where
        T: Trace,
        for<'m> Any<'m>: From<Gc<'m, T>>,
    {
        let registers = &self.registers;
        match style {
            0 => {
                let nogc = cx.reserve(NoGc::size_of::<T>())?;
                registers.set(&nogc, into, nogc.alloc(value).into());
            }
            1 => cx.scope(|cx| {
                let local = cx.alloc(value)?;
                registers.set(cx, into, local.get(cx).into());
                Ok::<_, OutOfMemory>(())
            })?,
            _ => cx.scope(|cx| {
                let local = cx.nest(|cx| cx.alloc(value))?;
                cx.safepoint();
                registers.set(cx, into, local.get(cx).into());
                Ok::<_, OutOfMemory>(())
            })?,
        }
        Ok(())
    }

    /// A pair in front of what other registers hold, with its slots set as it is made.
    fn cons(
        &mut self,
        cx: &mut Scope<'s>,
        into: usize,
        style: usize,
        mut object: Object,
        id: Id,
    ) -> Result<(), Stop> {
        let (head, tail) = (self.rng.below(REGISTERS), self.rng.below(REGISTERS));
        let registers = &self.registers;
        fn parts<'m>(
            cx: &'m Scope<'_>,
            registers: &RegisterFile<'_>,
            head: usize,
            tail: usize,
        ) -> (Option<Any<'m>>, Option<Any<'m>>) {
            (registers.get(cx, Kind::Hub, head), registers.get(cx, Kind::Pair, tail))
        }
        if style == 0 {
            let nogc = cx.reserve(NoGc::size_of::<Pair>())?;
            let (head, tail) = parts(&nogc, registers, head, tail);
            let pair = Any::Pair(nogc.alloc(Pair::new(id)));
            pair.set_slot(&nogc, 0, Edge::to(head));
            pair.set_slot(&nogc, 1, Edge::to(tail));
            registers.set(&nogc, into, pair);
        } else {
            cx.scope(|cx| {
                let local = cx.alloc(Pair::new(id))?;
                let (head, tail) = parts(cx, registers, head, tail);
                let pair = Any::Pair(local.get(cx));
                pair.set_slot(cx, 0, Edge::to(head));
                pair.set_slot(cx, 1, Edge::to(tail));
                registers.set(cx, into, pair);
                Ok::<_, OutOfMemory>(())
            })?;
        }
        object.slots[0] = Edge::to(self.part.registers[Kind::Hub as usize][head]);
        object.slots[1] = Edge::to(self.part.registers[Kind::Pair as usize][tail]);
        self.part.registers[Kind::Pair as usize][into] = Some(id);
        self.part.owned.insert(id, object);
        Ok(())
    }

    /// An ephemeron of two hubs in other registers, if there are.
    fn make_weak(
        &mut self,
        cx: &mut Scope<'s>,
        into: usize,
        style: usize,
        mut object: Object,
        id: Id,
    ) -> Result<(), Stop> {
        let places = [0, 1].map(|_| self.rng.below(REGISTERS));
        let ids = places.map(|place| self.part.registers[Kind::Hub as usize][place]);
        let [Some(key_id), Some(value_id)] = ids else { return Ok(()) };
        for place in places {
            self.held(cx, Kind::Hub, place)?;
        }
        let registers = &self.registers;
        let [key, value] = places.map(|place| registers.hub(place));
        if style == 0 {
            let nogc = cx.reserve(NoGc::EPHEMERON)?;
            let (key, value) = (key.get(&nogc), value.get(&nogc));
            let (key, value) = (key.expect("looked at"), value.expect("looked at"));
            registers.set(&nogc, into, nogc.alloc_ephemeron(key, value).into());
        } else {
            cx.scope(|cx| {
                let [key, value] = [key, value].map(|hub| cx.root(hub.get(cx).expect("looked at")));
                let weak = cx.alloc_ephemeron(key, value)?;
                registers.set(cx, into, weak.get(cx).into());
                Ok::<_, OutOfMemory>(())
            })?;
        }
        object.slots = vec![Edge::To(key_id), Edge::To(value_id)];
        self.part.registers[Kind::Weak as usize][into] = Some(id);
        self.part.owned.insert(id, object);
        Ok(())
    }

    /// Looks at an ephemeron. Whether a dead key is still there depends on when collections ran, so nothing is
    /// done with what is found.
    fn look(&mut self, cx: &Scope<'s>, any: Any<'_>, slots: &[Edge<Id>]) -> Result<(), Stop> {
        let Any::Weak(weak) = any else { return Ok(()) };
        self.compared += 1;
        let held = |id| self.part.registers[Kind::Hub as usize].contains(&Some(id));
        let is_held = slots[0].target().is_some_and(held);
        let found = [weak.key(cx), weak.value(cx)];
        if is_held && found.iter().any(Option::is_none) {
            return Err(Stop::Wrong("an ephemeron is broken, but its key is held".into()));
        }
        for (found, want) in found.into_iter().zip(slots) {
            match (found, want) {
                (None, _) => {}
                (Some(hub), &Edge::To(id)) => check_id(Any::Hub(hub), id)?,
                (Some(_), _) => {
                    return Err(Stop::Wrong("a broken ephemeron is whole again".into()));
                }
            }
        }
        Ok(())
    }

    fn allocate_list(
        &mut self,
        cx: &mut Scope<'s>,
        into: usize,
        style: usize,
        len: usize,
    ) -> Result<(), Stop> {
        let registers = &self.registers;
        let bytes = NoGc::size_of_refs(len);
        if style == 0 && bytes <= NoGc::MOST {
            let nogc = cx.reserve(bytes)?;
            registers.set(&nogc, into, Any::List(nogc.alloc_refs::<Hub>(len)));
        } else {
            cx.scope(|cx| {
                let list = cx.alloc_refs::<Hub>(len)?;
                registers.set(cx, into, Any::List(list.get(cx)));
                Ok::<_, OutOfMemory>(())
            })?;
        }
        Ok(())
    }

    fn allocate_words(&mut self, cx: &mut Scope<'s>, into: usize, len: usize) -> Result<(), Stop> {
        let registers = &self.registers;
        cx.scope(|cx| {
            let words = cx.alloc_tagged::<Mixed>(len)?;
            registers.set(cx, into, Any::Words(words.get(cx)));
            Ok::<_, OutOfMemory>(())
        })?;
        Ok(())
    }

    fn allocate_data(
        &mut self,
        cx: &mut Scope<'s>,
        into: usize,
        style: usize,
        kind: Kind,
        len: usize,
        id: Id,
    ) -> Result<(), Stop> {
        let registers = &self.registers;
        for_element!(kind, E => {
            let mut rng = contents(id);
            let values: Vec<E> = (0..len).map(|_| E::make(rng.next_u64())).collect();
            let bytes = NoGc::size_of_data::<E>(len);
            if style == 0 && bytes <= NoGc::MOST {
                let nogc = cx.reserve(bytes)?;
                let array = nogc.alloc_data::<E>(len);
                array.copy_from(0, &values);
                registers.set(&nogc, into, array.into());
            } else {
                cx.scope(|cx| {
                    let array = cx.alloc_data::<E>(len)?;
                    array.get(cx).copy_from(0, &values);
                    registers.set(cx, into, array.get(cx).into());
                    Ok::<_, OutOfMemory>(())
                })?;
            }
        }, else unreachable!("only data arrays come here"));
        Ok(())
    }

    /// Stores into a random slot of an object in a random register, if the thread owns it.
    fn link(&mut self, cx: &mut Scope<'s>) -> Result<(), Stop> {
        let (kind, from) = self.register();
        let Some((_, id)) = self.held(cx, kind, from)? else { return Ok(()) };
        let Some(object) = self.part.owned.get(&id) else { return Ok(()) };
        let slots = object.slots.len();
        if slots == 0 || kind == Kind::Weak {
            return Ok(());
        }
        let slot = self.rng.below(slots);
        self.link_slot(cx, (kind, from), slot)
    }

    /// Stores something random that the slot accepts: one time in ten nothing, one in ten the
    /// object itself where that fits, and into tagged words integers as well.
    fn link_slot(
        &mut self,
        cx: &Scope<'s>,
        (kind, from): (Kind, usize),
        slot: usize,
    ) -> Result<(), Stop> {
        let (draw, to) = (self.rng.below(10), self.rng.below(REGISTERS));
        let (bits, tag) = (self.rng.next_u64(), self.rng.below(TAGGED.len()));
        let Some((object, id)) = self.held(cx, kind, from)? else { return Ok(()) };
        let target = match (draw, kind.slot(slot)) {
            (0, _) => Edge::Null,
            (1, Accepts::Only(accepted)) if accepted == kind => Edge::To((object, id)),
            (1, Accepts::Tagged) => Edge::To((object, id)),
            (_, Accepts::Only(accepted)) => Edge::to(self.held(cx, accepted, to)?),
            (2..5, Accepts::Tagged) => Edge::Int(bits >> 1),
            (_, Accepts::Tagged) => Edge::to(self.held(cx, TAGGED[tag], to)?),
        };
        object.set_slot(cx, slot, target.map(|(any, _)| any));
        let model = self.part.owned.get_mut(&id).expect("callers checked the owner");
        model.slots[slot] = target.map(|(_, id)| id);
        Ok(())
    }

    /// The model of an object, if the thread may look into it.
    fn readable<'a>(&'a self, shared: &'a Snapshot, id: Id) -> Option<&'a Object> {
        self.part.owned.get(&id).or_else(|| shared.frozen.get(&id))
    }

    /// Loads a random slot of an object in a random register into a register.
    fn follow(&mut self, cx: &mut Scope<'s>, shared: &Snapshot) -> Result<(), Stop> {
        let (kind, from) = self.register();
        let (draw, into) = (self.rng.next_u64(), self.rng.below(REGISTERS));
        let cx: &Scope<'s> = cx;
        let Some((any, id)) = self.held(cx, kind, from)? else { return Ok(()) };
        let Some(object) = self.readable(shared, id) else { return Ok(()) };
        if object.slots.is_empty() {
            return Ok(());
        }
        if kind == Kind::Weak {
            let slots = object.slots.clone();
            return self.look(cx, any, &slots);
        }
        let slot = (draw % object.slots.len() as u64) as usize;
        let want = object.slots[slot];
        let got = any.slot(cx, slot);
        self.compared += 1;
        match (got, want) {
            (Edge::To(any), Edge::To(id)) => {
                check_id(any, id)?;
                self.hold(cx, into, any, id);
                Ok(())
            }
            (Edge::Null, Edge::Null) => Ok(()),
            (Edge::Int(x), Edge::Int(y)) if x == y => Ok(()),
            _ => Err(Stop::Wrong(format!(
                "slot {slot} of {kind:?} {id:#x} holds {}, not {want:x?}",
                describe(got)
            ))),
        }
    }

    /// Changes a random data word of an object that the thread owns.
    fn change_word(&mut self, cx: &mut Scope<'s>) -> Result<(), Stop> {
        let (kind, from) = self.register();
        let (draw, bits) = (self.rng.next_u64(), self.rng.next_u64());
        let Some((any, id)) = self.held(cx, kind, from)? else { return Ok(()) };
        let Some(object) = self.part.owned.get_mut(&id) else { return Ok(()) };
        let first = usize::from(kind.has_id());
        if object.words.len() > first {
            let word = first + (draw % (object.words.len() - first) as u64) as usize;
            any.set_word(word, bits);
            object.words[word] = kind.word(bits);
        }
        Ok(())
    }

    /// Compares a random data word of an object.
    fn compare(&mut self, cx: &mut Scope<'s>, shared: &Snapshot) -> Result<(), Stop> {
        let (kind, from) = self.register();
        let draw = self.rng.next_u64();
        let Some((any, id)) = self.held(cx, kind, from)? else { return Ok(()) };
        let Some(object) = self.readable(shared, id) else { return Ok(()) };
        if !object.words.is_empty() {
            let word = (draw % object.words.len() as u64) as usize;
            check_word(any, id, word, object.words[word])?;
            self.compared += 1;
        }
        Ok(())
    }

    /// Compares all data words of an object.
    fn compare_all(&mut self, cx: &mut Scope<'s>, shared: &Snapshot) -> Result<(), Stop> {
        let (kind, from) = self.register();
        let Some((any, id)) = self.held(cx, kind, from)? else { return Ok(()) };
        let Some(object) = self.readable(shared, id) else { return Ok(()) };
        if any.kind().words(any.len()) != object.words.len() {
            return Err(Stop::Wrong(format!("{kind:?} {id:#x} has the length {}", any.len())));
        }
        for (word, &want) in object.words.iter().enumerate() {
            check_word(any, id, word, want)?;
        }
        self.compared += object.words.len() as u64;
        Ok(())
    }

    /// Clears a register, or copies one to another.
    fn shuffle(&mut self, cx: &mut Scope<'s>) {
        let (kind, from) = self.register();
        let to = self.rng.below(REGISTERS);
        let id = self.part.registers[kind as usize][from];
        match (self.registers.get(cx, kind, from), id) {
            (Some(any), Some(id)) if from != to => self.hold(cx, to, any, id),
            _ => {
                self.registers.clear(cx, kind, from);
                self.part.registers[kind as usize][from] = None;
            }
        }
    }

    /// Stores a hub into the shared table that this round writes, and may decide that it changes
    /// hands when the round ends.
    fn publish(&mut self, cx: &mut Scope<'s>, shared: &Snapshot, tables: &Tables<'s>) {
        let from = self.rng.below(REGISTERS);
        let (draw, fate, other) = (self.rng.next_u64(), self.rng.below(4), self.rng.next_u64());
        let Some(Any::Hub(hub)) = self.registers.get(cx, Kind::Hub, from) else { return };
        let Some(id) = self.part.registers[Kind::Hub as usize][from] else { return };
        let written = shared.round % 2;
        let segment = &mut self.part.segments[written];
        let slot = (draw % segment.len() as u64) as usize;
        let table = tables.get(cx, written);
        table.store(cx, self.thread * segment.len() + slot, Some(hub));
        segment[slot] = Some(id);
        if self.part.owned.contains_key(&id) {
            let handover = match fate {
                0 => Handover::Freeze,
                1 => Handover::Give((other % self.threads as u64) as usize),
                _ => return,
            };
            self.part.handovers.push((id, handover));
        }
    }

    /// Loads a hub that any thread published in an earlier round.
    fn import(
        &mut self,
        cx: &mut Scope<'s>,
        shared: &Snapshot,
        tables: &Tables<'s>,
    ) -> Result<(), Stop> {
        let (slot, into) = (self.rng.below(shared.published.len()), self.rng.below(REGISTERS));
        let got = tables.get(cx, (shared.round + 1) % 2).load(cx, slot);
        self.compared += 1;
        match (got, shared.published[slot]) {
            (None, None) => Ok(()),
            (Some(hub), Some(id)) => {
                check_id(Any::Hub(hub), id)?;
                self.hold(cx, into, Any::Hub(hub), id);
                Ok(())
            }
            (got, want) => Err(Stop::Wrong(format!(
                "slot {slot} of the shared table holds {}, not {want:x?}",
                describe(Edge::to(got.map(Any::Hub)))
            ))),
        }
    }

    /// Makes garbage: a chain, a cycle, and an array that nothing refers to.
    fn litter(&mut self, cx: &mut Scope<'s>) -> Result<(), Stop> {
        let (count, bytes) = (1 + self.rng.below(40), self.rng.below(3000));
        cx.scope(|cx| {
            let chain = cx.var::<Pair>();
            for _ in 0..count {
                let nogc = cx.reserve(NoGc::size_of::<Pair>())?;
                let pair = nogc.alloc(Pair::new(0));
                let tail = chain.get(&nogc).map(Any::Pair);
                Any::Pair(pair).set_slot(&nogc, 1, Edge::to(tail));
                chain.set(&nogc, Some(pair));
            }
            let hub = cx.alloc(Hub::new(0))?;
            let me = Any::Hub(hub.get(cx));
            me.set_slot(cx, 0, Edge::To(me));
            cx.alloc_data::<u8>(bytes)?;
            Ok(())
        })
    }

    /// Reaches safepoints of every sort.
    fn rest(&mut self, cx: &mut Scope<'s>) -> Result<(), Stop> {
        cx.safepoint();
        cx.scope(|cx| cx.blocking(|| ()));
        Ok(())
    }
}

/// The shared tables and the global roots, as a thread sees them.
pub struct Tables<'s> {
    /// The two tables, by parity of the round that writes them.
    pub tables: [firn::Local<'s, RefArray<Hub>>; 2],
}

impl Tables<'_> {
    fn get<'m>(&self, cx: &'m Scope<'_>, i: usize) -> Gc<'m, RefArray<Hub>> {
        self.tables[i].get(cx)
    }
}

fn check_id(any: Any<'_>, id: Id) -> Result<(), Stop> {
    if any.kind().has_id() && any.word(0) != id {
        let (kind, got) = (any.kind(), any.word(0));
        return Err(Stop::Wrong(format!("found {kind:?} {got:#x} in the place of {id:#x}")));
    }
    Ok(())
}

fn check_word(any: Any<'_>, id: Id, word: usize, want: u64) -> Result<(), Stop> {
    let got = any.word(word);
    if got == want {
        return Ok(());
    }
    let kind = any.kind();
    Err(Stop::Wrong(format!("word {word} of {kind:?} {id:#x} is {got:#x}, not {want:#x}")))
}

fn describe(edge: Edge<Any<'_>>) -> String {
    match edge {
        Edge::Null => "nothing".into(),
        Edge::Int(x) => format!("the integer {x}"),
        Edge::To(any) if any.kind().has_id() => format!("{:?} {:#x}", any.kind(), any.word(0)),
        Edge::To(any) => format!("{:?} of length {}", any.kind(), any.len()),
    }
}
