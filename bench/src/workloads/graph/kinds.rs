//! The kinds of object in `graph`, and one type that stands for a reference to any of them.
//!
//! References in the heap are typed, so [`Any`] is an enum of typed references; it lets the
//! mutators, the digest and the comparison treat every kind alike: a number of slots, each null,
//! an integer (tagged words only) or a reference, and a number of data words. Which kinds a slot
//! accepts is [`Kind::slot`]. The kinds cover what the collector treats differently: few slots
//! and many, slots among data, slots on many pages, weak slots, data of every element size, below and
//! above the large-object threshold.

use std::sync::atomic::{AtomicU64, Ordering};

use firn::{
    DataArray, Ephemeron, Field, Gc, Plain, RefArray, Scope, Tagged, TaggedArray, Trace, Var,
};

use super::tagged::{Mixed, decode, encode};

/// Registers of each kind that a thread has.
pub const REGISTERS: usize = 3;
/// Slots of the common objects by kind, see [`Kind::slot`].
const HUB_HUBS: usize = 3;
/// Lanes of a [`Wide`] object.
const LANES: usize = 12;
/// References to hubs in a lane.
const LANE_HUBS: usize = 4;
/// Slots and data words of a lane.
const LANE_SLOTS: usize = LANE_HUBS + 1;
const LANE_WORDS: usize = 3;

/// The common object: references of every sort between data words.
#[derive(Trace)]
pub struct Hub {
    id: u64,
    hubs: [Field<Hub>; HUB_HUBS],
    stamp: AtomicU64,
    pair: Field<Pair>,
    wide: Field<Wide>,
    list: Field<RefArray<Hub>>,
    store: Field<Store>,
    tags: Field<Tags>,
    words: Field<TaggedArray<Mixed>>,
    weak: Field<Weak>,
}

/// An ephemeron: a hub held weakly, and one that is kept as long as that and the ephemeron live.
pub type Weak = Ephemeron<Hub, Hub>;

/// A list cell: long chains, the shape that a marker handles worst.
#[derive(Trace)]
pub struct Pair {
    head: Field<Hub>,
    tail: Field<Pair>,
    id: u64,
}

/// Eight words of a [`Wide`] object.
#[derive(Trace)]
struct Lane {
    hubs: [Field<Hub>; LANE_HUBS],
    data: [AtomicU64; LANE_WORDS],
    pair: Field<Pair>,
}

/// An object of more than 64 words, so that its slot map does not fit in one.
#[derive(Trace)]
pub struct Wide {
    id: u64,
    lanes: [Lane; LANES],
}

/// Words before and after the data of a [`Tags`] object.
const TAGS_BEFORE: usize = 2;
const TAGS_AFTER: usize = 3;

/// An object of tagged words around plain data.
#[derive(Trace)]
pub struct Tags {
    before: [Tagged<Mixed>; TAGS_BEFORE],
    id: u64,
    stamp: AtomicU64,
    after: [Tagged<Mixed>; TAGS_AFTER],
}

/// Arrays of plain data of every element type.
#[derive(Trace)]
pub struct Store {
    id: u64,
    u8s: Field<DataArray<u8>>,
    i8s: Field<DataArray<i8>>,
    u16s: Field<DataArray<u16>>,
    i16s: Field<DataArray<i16>>,
    u32s: Field<DataArray<u32>>,
    i32s: Field<DataArray<i32>>,
    u64s: Field<DataArray<u64>>,
    i64s: Field<DataArray<i64>>,
    f32s: Field<DataArray<f32>>,
    f64s: Field<DataArray<f64>>,
}

impl Hub {
    /// A hub without references.
    pub fn new(id: u64) -> Hub {
        Hub {
            id,
            hubs: std::array::from_fn(|_| Field::null()),
            stamp: AtomicU64::new(0),
            pair: Field::null(),
            wide: Field::null(),
            list: Field::null(),
            store: Field::null(),
            tags: Field::null(),
            words: Field::null(),
            weak: Field::null(),
        }
    }
}

impl Tags {
    /// An object whose tagged words are all null.
    pub fn new(id: u64) -> Tags {
        let word = |_| Tagged::new(0);
        Tags {
            before: std::array::from_fn(word),
            id,
            stamp: AtomicU64::new(0),
            after: std::array::from_fn(word),
        }
    }
}

impl Pair {
    /// A cell without references.
    pub fn new(id: u64) -> Pair {
        Pair { head: Field::null(), tail: Field::null(), id }
    }
}

impl Wide {
    /// A wide object without references.
    pub fn new(id: u64) -> Wide {
        let lane = |_| Lane {
            hubs: std::array::from_fn(|_| Field::null()),
            data: std::array::from_fn(|_| AtomicU64::new(0)),
            pair: Field::null(),
        };
        Wide { id, lanes: std::array::from_fn(lane) }
    }
}

impl Store {
    /// A store without arrays.
    pub fn new(id: u64) -> Store {
        Store {
            id,
            u8s: Field::null(),
            i8s: Field::null(),
            u16s: Field::null(),
            i16s: Field::null(),
            u32s: Field::null(),
            i32s: Field::null(),
            u64s: Field::null(),
            i64s: Field::null(),
            f32s: Field::null(),
            f64s: Field::null(),
        }
    }
}

/// An element type, seen as 64 bits.
pub trait Element: Plain {
    /// The element that stands for the random bits `r`. Floats are made from integers, so that
    /// no NaN is among them.
    fn make(r: u64) -> Self;
    /// The element's bits.
    fn bits(self) -> u64;
}

macro_rules! elements {
    ($($t:ident: $r:ident => $make:expr, $x:ident => $bits:expr;)*) => { $(
        impl Element for $t {
            fn make($r: u64) -> $t {
                $make
            }
            fn bits(self) -> u64 {
                let $x = self;
                $bits
            }
        }
    )* };
}

elements! {
    u8: r => r as u8, x => u64::from(x);
    i8: r => r as i8, x => x as u64;
    u16: r => r as u16, x => u64::from(x);
    i16: r => r as i16, x => x as u64;
    u32: r => r as u32, x => u64::from(x);
    i32: r => r as i32, x => x as u64;
    u64: r => r, x => x;
    i64: r => r as i64, x => x as u64;
    f32: r => (r as i32) as f32, x => u64::from(x.to_bits());
    f64: r => (r as i64) as f64, x => x.to_bits();
}

/// What a slot holds. `N` stands for an object: a reference in the heap, an id in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge<N> {
    /// Nothing.
    Null,
    /// An integer of 63 bits, in a tagged word.
    Int(u64),
    /// An object.
    To(N),
}

impl<N> Edge<N> {
    /// The object, if there is one.
    pub fn target(self) -> Option<N> {
        match self {
            Edge::Null | Edge::Int(_) => None,
            Edge::To(n) => Some(n),
        }
    }

    /// The same edge to something else.
    pub fn map<M>(self, f: impl FnOnce(N) -> M) -> Edge<M> {
        match self {
            Edge::Null => Edge::Null,
            Edge::Int(x) => Edge::Int(x),
            Edge::To(n) => Edge::To(f(n)),
        }
    }

    /// The edge to an optional object.
    pub fn to(target: Option<N>) -> Edge<N> {
        target.map_or(Edge::Null, Edge::To)
    }
}

/// Defines everything that exists once a kind: the enums, the registers on the stack and in the
/// heap, and the conversions between them.
macro_rules! kinds {
    ($($kind:ident $field:ident $type:ty,)*) => {
        /// A kind of object.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind {
            $(#[doc = concat!("`", stringify!($type), "`")] $kind,)*
        }

        impl Kind {
            /// All kinds; a kind's position is its number in digests.
            pub const ALL: &'static [Kind] = &[$(Kind::$kind),*];
        }

        /// A reference to an object of any kind.
        #[derive(Clone, Copy)]
        pub enum Any<'m> {
            $(#[doc = concat!("`", stringify!($type), "`")] $kind(Gc<'m, $type>),)*
        }

        $(impl<'m> From<Gc<'m, $type>> for Any<'m> {
            fn from(gc: Gc<'m, $type>) -> Any<'m> {
                Any::$kind(gc)
            }
        })*

        impl Any<'_> {
            /// The object's kind.
            pub fn kind(&self) -> Kind {
                match self { $(Any::$kind(_) => Kind::$kind,)* }
            }

            /// Where the object is now: its identity until the next safepoint.
            pub fn address(&self) -> u64 {
                match self { $(Any::$kind(gc) => gc.address_now() as u64,)* }
            }
        }

        /// A thread's registers, on its stack of roots.
        pub struct RegisterFile<'s> {
            $($field: [Var<'s, $type>; REGISTERS],)*
        }

        impl<'s> RegisterFile<'s> {
            /// Registers that hold nothing.
            pub fn new(cx: &Scope<'s>) -> RegisterFile<'s> {
                RegisterFile { $($field: std::array::from_fn(|_| cx.var()),)* }
            }

            /// What register `i` of a kind holds.
            pub fn get<'m>(&self, cx: &'m Scope<'_>, kind: Kind, i: usize) -> Option<Any<'m>> {
                match kind { $(Kind::$kind => self.$field[i].get(cx).map(Any::$kind),)* }
            }

            /// Puts an object into register `i` of its kind.
            pub fn set(&self, cx: &Scope<'_>, i: usize, any: Any<'_>) {
                match any { $(Any::$kind(gc) => self.$field[i].set(cx, Some(gc)),)* }
            }

            /// Empties register `i` of a kind.
            pub fn clear(&self, cx: &Scope<'_>, kind: Kind, i: usize) {
                match kind { $(Kind::$kind => self.$field[i].set(cx, None),)* }
            }

            /// Copies all registers into the heap, where another thread can walk them.
            pub fn dump(&self, cx: &Scope<'_>, to: Gc<'_, Registers>) {
                $(for (var, field) in self.$field.iter().zip(&to.$field) {
                    field.store(cx, var.get(cx));
                })*
            }
        }

        /// A thread's registers as they were at the end of a round, in the heap.
        #[derive(Trace)]
        pub struct Registers {
            $($field: [Field<$type>; REGISTERS],)*
        }

        impl Registers {
            /// Registers that hold nothing.
            pub fn empty() -> Registers {
                Registers { $($field: std::array::from_fn(|_| Field::null()),)* }
            }

            /// What register `i` of a kind held.
            pub fn get<'m>(&self, cx: &'m Scope<'_>, kind: Kind, i: usize) -> Option<Any<'m>> {
                match kind { $(Kind::$kind => self.$field[i].load(cx).map(Any::$kind),)* }
            }
        }
    };
}

kinds! {
    Hub hub Hub,
    Pair pair Pair,
    Wide wide Wide,
    List list RefArray<Hub>,
    Store store Store,
    Tags tags Tags,
    Words words TaggedArray<Mixed>,
    Weak weak Weak,
    U8 u8s DataArray<u8>,
    I8 i8s DataArray<i8>,
    U16 u16s DataArray<u16>,
    I16 i16s DataArray<i16>,
    U32 u32s DataArray<u32>,
    I32 i32s DataArray<i32>,
    U64 u64s DataArray<u64>,
    I64 i64s DataArray<i64>,
    F32 f32s DataArray<f32>,
    F64 f64s DataArray<f64>,
}

impl<'s> RegisterFile<'s> {
    /// Register `i` of hubs.
    pub fn hub(&self, i: usize) -> Var<'s, Hub> {
        self.hub[i]
    }
}

/// Does the same for the data array of any element type; `$array` is a `Gc<DataArray<E>>`.
macro_rules! for_data {
    ($any:expr, $array:ident => $body:expr, else $other:expr) => {
        match $any {
            Any::U8($array) => $body,
            Any::I8($array) => $body,
            Any::U16($array) => $body,
            Any::I16($array) => $body,
            Any::U32($array) => $body,
            Any::I32($array) => $body,
            Any::U64($array) => $body,
            Any::I64($array) => $body,
            Any::F32($array) => $body,
            Any::F64($array) => $body,
            _ => $other,
        }
    };
}

/// Does the same for the element type `$E` of any kind of data array.
macro_rules! for_element {
    ($kind:expr, $E:ident => $body:expr, else $other:expr) => {
        match $kind {
            Kind::U8 => {
                type $E = u8;
                $body
            }
            Kind::I8 => {
                type $E = i8;
                $body
            }
            Kind::U16 => {
                type $E = u16;
                $body
            }
            Kind::I16 => {
                type $E = i16;
                $body
            }
            Kind::U32 => {
                type $E = u32;
                $body
            }
            Kind::I32 => {
                type $E = i32;
                $body
            }
            Kind::U64 => {
                type $E = u64;
                $body
            }
            Kind::I64 => {
                type $E = i64;
                $body
            }
            Kind::F32 => {
                type $E = f32;
                $body
            }
            Kind::F64 => {
                type $E = f64;
                $body
            }
            _ => $other,
        }
    };
}
pub(super) use for_element;

/// What a slot may hold besides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepts {
    /// References to objects of one kind.
    Only(Kind),
    /// Integers, and references to objects of the [`TAGGED`](super::tagged::TAGGED) kinds.
    Tagged,
}

impl Tags {
    /// Tagged word `i`.
    fn word(&self, i: usize) -> &Tagged<Mixed> {
        if i < TAGS_BEFORE { &self.before[i] } else { &self.after[i - TAGS_BEFORE] }
    }
}

impl Kind {
    /// Whether objects of this kind differ in length.
    pub fn is_array(self) -> bool {
        !matches!(self, Kind::Hub | Kind::Pair | Kind::Wide | Kind::Store | Kind::Tags | Kind::Weak)
    }

    /// Whether data word 0 is the object's id, which never changes.
    pub fn has_id(self) -> bool {
        !self.is_array() && self != Kind::Weak
    }

    /// How many slots an object of this kind has; `len` is its length if it is an array.
    pub fn slots(self, len: usize) -> usize {
        match self {
            Kind::Hub => HUB_HUBS + 7,
            Kind::Pair | Kind::Weak => 2,
            Kind::Wide => LANES * LANE_SLOTS,
            Kind::Store => 10,
            Kind::Tags => TAGS_BEFORE + TAGS_AFTER,
            Kind::List | Kind::Words => len,
            _ => 0,
        }
    }

    /// How many data words an object of this kind has; `len` is its length if it is an array.
    pub fn words(self, len: usize) -> usize {
        match self {
            Kind::Hub | Kind::Tags => 2,
            Kind::Pair | Kind::Store => 1,
            Kind::Wide => 1 + LANES * LANE_WORDS,
            Kind::List | Kind::Words | Kind::Weak => 0,
            _ => len,
        }
    }

    /// What slot `i` may hold.
    pub fn slot(self, i: usize) -> Accepts {
        let others =
            [Kind::Pair, Kind::Wide, Kind::List, Kind::Store, Kind::Tags, Kind::Words, Kind::Weak];
        Accepts::Only(match self {
            Kind::Hub if i < HUB_HUBS => Kind::Hub,
            Kind::Hub => others[i - HUB_HUBS],
            Kind::Pair => [Kind::Hub, Kind::Pair][i],
            Kind::Wide if i % LANE_SLOTS < LANE_HUBS => Kind::Hub,
            Kind::Wide => Kind::Pair,
            Kind::Store => Kind::ALL[Kind::U8 as usize + i],
            Kind::Tags | Kind::Words => return Accepts::Tagged,
            _ => Kind::Hub,
        })
    }

    /// The value that data word `i` takes for the random bits `r`.
    pub fn word(self, r: u64) -> u64 {
        for_element!(self, E => E::make(r).bits(), else r)
    }
}

impl<'m> Any<'m> {
    /// The length of an array; 0 for other kinds.
    pub fn len(&self) -> usize {
        match self {
            Any::List(list) => list.len(),
            Any::Words(words) => words.len(),
            any => for_data!(any, array => array.len(), else 0),
        }
    }

    /// What slot `i` holds.
    pub fn slot(&self, cx: &'m Scope<'_>, i: usize) -> Edge<Any<'m>> {
        Edge::to(match self {
            Any::Tags(tags) => return decode(cx, tags.word(i).load(cx)),
            Any::Words(words) => return decode(cx, words.load(cx, i)),
            Any::Hub(hub) => match i {
                0..HUB_HUBS => hub.hubs[i].load(cx).map(Any::Hub),
                3 => hub.pair.load(cx).map(Any::Pair),
                4 => hub.wide.load(cx).map(Any::Wide),
                5 => hub.list.load(cx).map(Any::List),
                6 => hub.store.load(cx).map(Any::Store),
                7 => hub.tags.load(cx).map(Any::Tags),
                8 => hub.words.load(cx).map(Any::Words),
                _ => hub.weak.load(cx).map(Any::Weak),
            },
            Any::Pair(pair) => match i {
                0 => pair.head.load(cx).map(Any::Hub),
                _ => pair.tail.load(cx).map(Any::Pair),
            },
            Any::Wide(wide) => {
                let lane = &wide.lanes[i / LANE_SLOTS];
                match i % LANE_SLOTS {
                    LANE_HUBS => lane.pair.load(cx).map(Any::Pair),
                    i => lane.hubs[i].load(cx).map(Any::Hub),
                }
            }
            Any::List(list) => list.load(cx, i).map(Any::Hub),
            Any::Weak(weak) if i == 0 => weak.key(cx).map(Any::Hub),
            Any::Weak(weak) => weak.value(cx).map(Any::Hub),
            Any::Store(store) => match i {
                0 => store.u8s.load(cx).map(Any::U8),
                1 => store.i8s.load(cx).map(Any::I8),
                2 => store.u16s.load(cx).map(Any::U16),
                3 => store.i16s.load(cx).map(Any::I16),
                4 => store.u32s.load(cx).map(Any::U32),
                5 => store.i32s.load(cx).map(Any::I32),
                6 => store.u64s.load(cx).map(Any::U64),
                7 => store.i64s.load(cx).map(Any::I64),
                8 => store.f32s.load(cx).map(Any::F32),
                _ => store.f64s.load(cx).map(Any::F64),
            },
            _ => None,
        })
    }

    /// Makes slot `i` hold `edge`.
    ///
    /// # Panics
    /// If the slot does not accept an object of that kind ([`Kind::slot`]).
    pub fn set_slot(&self, cx: &Scope<'_>, i: usize, edge: Edge<Any<'_>>) {
        macro_rules! store {
            ($kind:ident, $field:expr) => {
                $field.store(cx, edge.target().map(|any| typed!($kind, any)))
            };
        }
        macro_rules! typed {
            ($kind:ident, $any:expr) => {
                match $any {
                    Any::$kind(gc) => gc,
                    any => panic!("slot {i} of {:?} refused {:?}", self.kind(), any.kind()),
                }
            };
        }
        match self {
            Any::Tags(tags) => tags.word(i).store(cx, encode(edge)),
            Any::Words(words) => words.store(cx, i, encode(edge)),
            Any::Hub(hub) => match i {
                0..HUB_HUBS => store!(Hub, hub.hubs[i]),
                3 => store!(Pair, hub.pair),
                4 => store!(Wide, hub.wide),
                5 => store!(List, hub.list),
                6 => store!(Store, hub.store),
                7 => store!(Tags, hub.tags),
                8 => store!(Words, hub.words),
                _ => store!(Weak, hub.weak),
            },
            Any::Pair(pair) => match i {
                0 => store!(Hub, pair.head),
                _ => store!(Pair, pair.tail),
            },
            Any::Wide(wide) => {
                let lane = &wide.lanes[i / LANE_SLOTS];
                match i % LANE_SLOTS {
                    LANE_HUBS => store!(Pair, lane.pair),
                    i => store!(Hub, lane.hubs[i]),
                }
            }
            Any::List(list) => {
                list.store(cx, i, edge.target().map(|any| typed!(Hub, any)));
            }
            Any::Store(store) => match i {
                0 => store!(U8, store.u8s),
                1 => store!(I8, store.i8s),
                2 => store!(U16, store.u16s),
                3 => store!(I16, store.i16s),
                4 => store!(U32, store.u32s),
                5 => store!(I32, store.i32s),
                6 => store!(U64, store.u64s),
                7 => store!(I64, store.i64s),
                8 => store!(F32, store.f32s),
                _ => store!(F64, store.f64s),
            },
            other => panic!("{:?} has no slot {i}", other.kind()),
        }
    }

    /// Data word `i`.
    pub fn word(&self, i: usize) -> u64 {
        // Relaxed: a data word is only read by its owner, or after a rendezvous.
        match self {
            Any::Hub(hub) if i == 0 => hub.id,
            Any::Hub(hub) => hub.stamp.load(Ordering::Relaxed),
            Any::Tags(tags) if i == 0 => tags.id,
            Any::Tags(tags) => tags.stamp.load(Ordering::Relaxed),
            Any::Pair(pair) => pair.id,
            Any::Store(store) => store.id,
            Any::Wide(wide) if i == 0 => wide.id,
            Any::Wide(wide) => {
                wide.lanes[(i - 1) / LANE_WORDS].data[(i - 1) % LANE_WORDS].load(Ordering::Relaxed)
            }
            any => for_data!(any, array => array.get(i).bits(), else 0),
        }
    }

    /// Makes data word `i` what [`Kind::word`] says for `r`. Word 0 of an object with an id stays.
    ///
    /// # Panics
    /// If the word is an id or does not exist.
    pub fn set_word(&self, i: usize, r: u64) {
        match self {
            Any::Hub(hub) if i == 1 => hub.stamp.store(r, Ordering::Relaxed),
            Any::Tags(tags) if i == 1 => tags.stamp.store(r, Ordering::Relaxed),
            Any::Wide(wide) if i > 0 => wide.lanes[(i - 1) / LANE_WORDS].data[(i - 1) % LANE_WORDS]
                .store(r, Ordering::Relaxed),
            any => for_data!(any, array => array.set(i, Element::make(r)), else {
                panic!("word {i} of {:?} never changes", any.kind())
            }),
        }
    }
}
