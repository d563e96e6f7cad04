//! Object headers and declarative layouts.
//!
//! Every object starts with a one-word [`Header`]: a layout id and, for objects with a tail, the
//! number of tail elements. The id indexes the [`LayoutTable`], which lives in native memory that
//! never moves: a page can be compacted, marked, verified or digested by whoever holds it, in a signal
//! handler too, without touching any other object. There are no trace callbacks for movable objects;
//! a layout *is* the description: which words of the fixed part hold references, which hold tagged
//! words, and what the tail is made of. Two [`Role`]s tell marking to treat some slots weakly; compaction
//! treats these as any other.
//!
//! Invariants: id 0 is never a layout, so a zero header means "no object here"; entries are
//! append-only and published by the release store of the count; an object's size follows from its
//! header and its layout alone, and is at least two words (so that its first and last word differ in
//! the live bitmap).

use crate::WORD;
pub use crate::role::{Role, ephemeron, guarded};
use crate::sys::map::{MapError, Reservation};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Index of a layout in its heap's [`LayoutTable`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct LayoutId(pub u16);

/// Layouts that every heap has, registered under fixed ids.
impl LayoutId {
    /// An array of references.
    pub const REFS: LayoutId = LayoutId(1);
    /// Plain data of 1, 2, 4 and 8-byte elements.
    pub const DATA: [LayoutId; 4] = [LayoutId(2), LayoutId(3), LayoutId(4), LayoutId(5)];
    /// An ephemeron of two references.
    pub const EPHEMERON: LayoutId = LayoutId(6);
    /// A reference that a guardian watches.
    pub const GUARDED: LayoutId = LayoutId(7);
    /// A guardian of such references.
    pub const GUARDIAN: LayoutId = LayoutId(8);
    /// The first id that embedders get.
    pub const FIRST_FREE: u16 = 9;
}

/// The first word of every object: layout id (16 bits) and tail length (48 bits).
///
/// ```
/// use firn_heap::layout::{Header, LayoutId};
/// let header = Header::new(LayoutId::REFS, 12);
/// assert_eq!(header.layout(), LayoutId::REFS);
/// assert_eq!(header.len(), 12);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Header(pub u64);

impl Header {
    /// A header for an object of `layout` with `len` tail elements (0 where the layout has no tail).
    #[inline(always)]
    pub const fn new(layout: LayoutId, len: usize) -> Header {
        Header((len as u64) << 16 | layout.0 as u64)
    }

    /// The object's layout.
    #[inline(always)]
    pub const fn layout(self) -> LayoutId {
        LayoutId(self.0 as u16)
    }

    /// Number of tail elements.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(self) -> usize {
        (self.0 >> 16) as usize
    }
}

/// How to tell a reference from an immediate in a tagged word. A constant chosen by the embedder.
///
/// A word is a reference if `word & mask == pattern`, its low three bits are in the set `low_tags`
/// (bit *t* of `low_tags` admits tag *t*), and `word & address` is not 0; its object then lies at
/// `word & address`. When the object moves, the other bits stay as they are. Both usual schemes fit:
///
/// ```
/// use firn_heap::layout::TagRule;
/// // Low-bit tags: 000 and 111 are pointers, the rest immediates.
/// const LISP: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 0b1000_0001, address: !7 };
/// assert!(LISP.is_reference(0x1000) && LISP.is_reference(0x1007));
/// assert!(!LISP.is_reference(0x1001) && !LISP.is_reference(0));
/// // NaN boxing: pointers have all of the upper 16 bits 0xfffc.
/// const NAN: TagRule = TagRule {
///     mask: 0xffff << 48, pattern: 0xfffc << 48, low_tags: 0xff, address: (1 << 48) - 8,
/// };
/// assert!(NAN.is_reference(0xfffc_0000_0000_1000));
/// assert!(!NAN.is_reference(1.5f64.to_bits()));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TagRule {
    /// Bits that must match.
    pub mask: u64,
    /// What they must match.
    pub pattern: u64,
    /// Set of admitted low three-bit tags.
    pub low_tags: u8,
    /// Bits of the word that make the address; must not include the low three bits.
    pub address: u64,
}

impl TagRule {
    /// A rule under which no word is a reference.
    pub const NEVER: TagRule = TagRule { mask: 0, pattern: 1, low_tags: 0, address: 0 };

    /// Whether references survive a move: the address bits are all that addresses can differ in, and none of
    /// them tells references from constants.
    pub const fn is_sound(&self) -> bool {
        /// Bits in which addresses of user space can differ.
        const ADDRESSES: u64 = (1 << 47) - 8;
        let never = self.mask == 0 && self.pattern != 0;
        never
            || (self.address & 7 == 0
                && self.address & ADDRESSES == ADDRESSES
                && self.mask & self.address == 0)
    }

    /// Whether `word` refers to an object.
    #[inline(always)]
    pub const fn is_reference(&self, word: u64) -> bool {
        word & self.mask == self.pattern
            && self.low_tags >> (word & 7) & 1 == 1
            && word & self.address != 0
    }

    /// The address in `word`; meaningful only if [`TagRule::is_reference`].
    #[inline(always)]
    pub const fn address_of(&self, word: u64) -> u64 {
        word & self.address
    }

    /// `word` with its address replaced and its tag kept.
    #[inline(always)]
    pub const fn with_address(&self, word: u64, address: u64) -> u64 {
        word & !self.address | address
    }
}

/// What follows an object's fixed part, `len` times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    /// Nothing.
    None,
    /// References, one word each.
    Refs,
    /// Tagged words.
    Tagged,
    /// Plain data; elements of `1 << shift` bytes, `shift` at most 3.
    Data {
        /// Binary logarithm of the element's bytes.
        shift: u8,
    },
}

/// A layout as an embedder describes it. Word numbers count from the first word *after* the header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// A name for dumps and error messages.
    pub name: &'static str,
    /// Words of the fixed part, header not included; at most [`Layout::MAX_FIXED_WORDS`].
    pub fixed_words: usize,
    /// Words of the fixed part that hold references.
    pub refs: Vec<u16>,
    /// Words of the fixed part that hold tagged words.
    pub tagged: Vec<u16>,
    /// What follows the fixed part.
    pub tail: Tail,
    /// The rule for tagged words, of the fixed part and of the tail.
    pub rule: TagRule,
    /// What marking does with the slots.
    pub role: Role,
}

/// Why a layout was refused.
#[derive(thiserror::Error, Debug, Clone, PartialEq, Eq)]
pub enum LayoutError {
    /// The fixed part is too long.
    #[error("layout `{name}`: {words} words of fixed part; at most {max} are allowed (put the rest in a tail or an array)", max = Layout::MAX_FIXED_WORDS)]
    TooLong {
        /// The layout's name.
        name: &'static str,
        /// Words asked for.
        words: usize,
    },
    /// A slot lies outside the fixed part or is named twice.
    #[error("layout `{name}`: slot {slot} lies outside its {words} words, or is named twice")]
    BadSlot {
        /// The layout's name.
        name: &'static str,
        /// The offending slot.
        slot: u16,
        /// Words of the fixed part.
        words: usize,
    },
    /// The rule's address bits include tag bits, or a tail's shift is above 3.
    #[error(
        "layout `{name}`: the tag rule's address bits must be bits 3 to 46 at least, without the low three and without those of its mask, and data elements have 1, 2, 4 or 8 bytes"
    )]
    BadRule {
        /// The layout's name.
        name: &'static str,
    },
    /// The slots are not those of the role.
    #[error(
        "layout `{name}`: not the slots of its role (see `Layout::ephemeron` and `Layout::guarded`)"
    )]
    BadRole {
        /// The layout's name.
        name: &'static str,
    },
    /// The table is full.
    #[error("layout `{name}`: a heap has room for {max} layouts", max = LayoutTable::CAPACITY)]
    TooMany {
        /// The layout's name.
        name: &'static str,
    },
}

impl Layout {
    /// Longest fixed part in words: a page that begins in the middle of an object remembers the
    /// distance to its start in 16 bits.
    pub const MAX_FIXED_WORDS: usize = 60_000;

    /// A layout without reference slots; add to it as needed.
    pub fn plain(name: &'static str, fixed_words: usize) -> Layout {
        Layout {
            name,
            fixed_words,
            refs: Vec::new(),
            tagged: Vec::new(),
            tail: Tail::None,
            rule: TagRule::NEVER,
            role: Role::Ordinary,
        }
    }

    fn check(&self) -> Result<(), LayoutError> {
        let name = self.name;
        if self.fixed_words > Layout::MAX_FIXED_WORDS {
            return Err(LayoutError::TooLong { name, words: self.fixed_words });
        }
        let mut seen = vec![false; self.fixed_words];
        for &slot in self.refs.iter().chain(&self.tagged) {
            match seen.get_mut(slot as usize) {
                Some(taken @ false) => *taken = true,
                _ => return Err(LayoutError::BadSlot { name, slot, words: self.fixed_words }),
            }
        }
        if !self.rule.is_sound() || matches!(self.tail, Tail::Data { shift: 4.. }) {
            return Err(LayoutError::BadRule { name });
        }
        let rule = (!self.tagged.is_empty()).then_some(self.rule);
        let fits = match self.role {
            Role::Ordinary => true,
            Role::Ephemeron => *self == Layout::ephemeron(name, rule),
            Role::Guarded => *self == Layout::guarded(name, rule),
        };
        if fits { Ok(()) } else { Err(LayoutError::BadRole { name }) }
    }
}

/// What marking does with an object, as its inner loop asks: first of all whether it is the common case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Tracing {
    /// Follow every slot.
    Slots,
    /// There is none.
    Leaf,
    /// See [`Role::Ephemeron`].
    Ephemeron,
    /// See [`Role::Guarded`].
    Guarded,
}

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// A reference or null.
    Ref,
    /// A word to be read by the layout's [`TagRule`].
    Tagged,
}

/// A layout as the collector reads it: sizes and slot maps in the form its loops want.
///
/// Word numbers here count from the header (word 0), as everything that walks objects does.
#[derive(Debug)]
pub struct Descriptor {
    /// Words of header and fixed part.
    fixed: u32,
    /// 0 none, 1 refs, 2 tagged, 3 data.
    tail: u8,
    /// log2 of the tail's element bytes.
    shift: u8,
    /// What marking does.
    tracing: Tracing,
    /// Bit *i*: word *i* is a reference, for the first 64 words.
    refs: u64,
    /// Bit *i*: word *i* is a tagged word, for the first 64 words.
    tagged: u64,
    rule: TagRule,
    /// Slots beyond the first 64 words, ascending.
    wide: Box<[(u16, Slot)]>,
    name: &'static str,
}

impl Descriptor {
    fn new(layout: &Layout) -> Descriptor {
        let (mut refs, mut tagged, mut wide) = (0, 0, Vec::new());
        for (slots, map, kind) in
            [(&layout.refs, &mut refs, Slot::Ref), (&layout.tagged, &mut tagged, Slot::Tagged)]
        {
            for &slot in slots {
                let word = slot + 1;
                if word < 64 {
                    *map |= 1u64 << word;
                } else {
                    wide.push((word, kind));
                }
            }
        }
        wide.sort_by_key(|&(word, _)| word);
        let leaf = refs | tagged == 0
            && wide.is_empty()
            && matches!(layout.tail, Tail::None | Tail::Data { .. });
        let tracing = match layout.role {
            Role::Ordinary if leaf => Tracing::Leaf,
            Role::Ordinary => Tracing::Slots,
            Role::Ephemeron => Tracing::Ephemeron,
            Role::Guarded => Tracing::Guarded,
        };
        let (tail, shift) = match layout.tail {
            Tail::None => (0, 0),
            Tail::Refs => (1, 3),
            Tail::Tagged => (2, 3),
            Tail::Data { shift } => (3, shift),
        };
        Descriptor {
            fixed: layout.fixed_words as u32 + 1,
            tail,
            shift,
            tracing,
            refs,
            tagged,
            rule: layout.rule,
            wide: wide.into(),
            name: layout.name,
        }
    }

    /// The layout's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Words of an object with this header, header included; at least 2.
    #[inline(always)]
    pub fn words(&self, header: Header) -> usize {
        let tail = if self.tail == 0 { 0 } else { (header.len() << self.shift).div_ceil(WORD) };
        (self.fixed as usize + tail).max(2)
    }

    /// Words of header and fixed part: where the tail begins.
    #[inline(always)]
    pub fn fixed_words(&self) -> usize {
        self.fixed as usize
    }

    /// Whether objects of this layout never hold references.
    #[inline(always)]
    pub fn is_leaf(&self) -> bool {
        self.tracing == Tracing::Leaf
    }

    /// What marking does with objects of this layout.
    #[inline(always)]
    pub fn tracing(&self) -> Tracing {
        self.tracing
    }

    /// The address that `value` refers to as the content of word `word` (one of the first 64), if it refers to
    /// an object.
    #[inline]
    pub fn target(&self, word: usize, value: u64) -> Option<u64> {
        if self.refs >> word & 1 != 0 {
            (value != 0).then_some(value)
        } else {
            let tagged = self.tagged >> word & 1 != 0 && self.rule.is_reference(value);
            tagged.then(|| self.rule.address_of(value))
        }
    }

    /// The rule of this layout's tagged words.
    #[inline(always)]
    pub fn rule(&self) -> &TagRule {
        &self.rule
    }

    /// What the tail holds, if it holds slots.
    #[inline(always)]
    pub fn tail_slot(&self) -> Option<Slot> {
        match self.tail {
            1 => Some(Slot::Ref),
            2 => Some(Slot::Tagged),
            _ => None,
        }
    }

    /// Whether the tail is plain data.
    pub fn tail_is_data(&self) -> bool {
        self.tail == 3
    }

    /// Calls `visit` for each slot among the object's words `from..to`, ascending within the fixed
    /// part and within the tail. `to` must not be beyond the object's end.
    #[inline(always)]
    pub fn each_slot(&self, from: usize, to: usize, mut visit: impl FnMut(usize, Slot)) {
        if self.is_leaf() {
            return;
        }
        let fixed = self.fixed as usize;
        if from < fixed {
            let end = to.min(fixed);
            if from < 64 {
                let window = (u64::MAX << from) & if end >= 64 { u64::MAX } else { (1 << end) - 1 };
                let mut map = self.refs & window;
                while map != 0 {
                    visit(map.trailing_zeros() as usize, Slot::Ref);
                    map &= map - 1;
                }
                let mut map = self.tagged & window;
                while map != 0 {
                    visit(map.trailing_zeros() as usize, Slot::Tagged);
                    map &= map - 1;
                }
            }
            if !self.wide.is_empty() {
                for &(word, kind) in &self.wide {
                    if (from..end).contains(&(word as usize)) {
                        visit(word as usize, kind);
                    }
                }
            }
        }
        match self.tail {
            1 => (from.max(fixed)..to).for_each(|word| visit(word, Slot::Ref)),
            2 => (from.max(fixed)..to).for_each(|word| visit(word, Slot::Tagged)),
            _ => {}
        }
    }
}

/// All layouts of a heap, readable from anywhere without a lock.
pub struct LayoutTable {
    memory: Reservation,
    count: AtomicUsize,
    grow: Mutex<()>,
}

impl LayoutTable {
    /// Most layouts a heap can have.
    pub const CAPACITY: usize = 1 << 16;

    /// A table with the layouts every heap has.
    pub fn new() -> Result<LayoutTable, MapError> {
        let page = crate::sys::page_size();
        let bytes = (Self::CAPACITY * size_of::<Descriptor>()).next_multiple_of(page);
        let memory = Reservation::anonymous(bytes, page, "firn layouts")?;
        let table = LayoutTable { memory, count: AtomicUsize::new(1), grow: Mutex::new(()) };
        let with_tail = |name, tail| Layout { tail, ..Layout::plain(name, 0) };
        let built_in = [
            with_tail("reference array", Tail::Refs),
            with_tail("data array of 1-byte elements", Tail::Data { shift: 0 }),
            with_tail("data array of 2-byte elements", Tail::Data { shift: 1 }),
            with_tail("data array of 4-byte elements", Tail::Data { shift: 2 }),
            with_tail("data array of 8-byte elements", Tail::Data { shift: 3 }),
            Layout::ephemeron("ephemeron", None),
            Layout::guarded("guarded reference", None),
            Layout::guardian("guardian"),
        ];
        for layout in built_in {
            table.register(&layout).expect("the built-in layouts are well-formed");
        }
        Ok(table)
    }

    /// Adds a layout and returns its id. Ids are never reused.
    pub fn register(&self, layout: &Layout) -> Result<LayoutId, LayoutError> {
        layout.check()?;
        let _one_at_a_time = self.grow.lock().unwrap();
        // Relaxed: only holders of the lock write the count.
        let id = self.count.load(Ordering::Relaxed);
        if id >= Self::CAPACITY {
            return Err(LayoutError::TooMany { name: layout.name });
        }
        let entry = self.memory.base() as *mut Descriptor;
        // SAFETY: `id` is below the capacity the reservation was sized for, and no reader looks at an
        // entry before the count below covers it.
        unsafe { entry.add(id).write(Descriptor::new(layout)) };
        // Release: pairs with the acquire load in `get`.
        self.count.store(id + 1, Ordering::Release);
        Ok(LayoutId(id as u16))
    }

    /// The layout with this id.
    ///
    /// # Panics
    /// If no such layout was registered: the header it came from is not a header.
    pub fn get(&self, id: LayoutId) -> &Descriptor {
        // Acquire: pairs with the release store in `register`.
        let count = self.count.load(Ordering::Acquire);
        assert!(id.0 != 0 && (id.0 as usize) < count, "no layout {}: not an object", id.0);
        // SAFETY: checked against the published count.
        unsafe { self.get_unchecked(id) }
    }

    /// Whether `id` names a layout.
    pub fn contains(&self, id: LayoutId) -> bool {
        // Acquire: pairs with the release store in `register`.
        id.0 != 0 && (id.0 as usize) < self.count.load(Ordering::Acquire)
    }

    /// The layout with this id, without looking whether there is one.
    ///
    /// # Safety
    /// `id` must come from the header of an object of this heap (its allocation happened after the
    /// layout's registration, and publishing the object published the entry too).
    #[inline(always)]
    pub unsafe fn get_unchecked(&self, id: LayoutId) -> &Descriptor {
        debug_assert!(self.contains(id), "no layout {}: not an object", id.0);
        // SAFETY: by the caller's promise the entry was written, and entries never change or move.
        unsafe { &*(self.memory.base() as *const Descriptor).add(id.0 as usize) }
    }
}

impl Drop for LayoutTable {
    fn drop(&mut self) {
        let entries = self.memory.base() as *mut Descriptor;
        for id in 1..*self.count.get_mut() {
            // SAFETY: entries 1..count were written by `register` and are dropped once, here.
            unsafe { entries.add(id).drop_in_place() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(descriptor: &Descriptor, from: usize, to: usize) -> Vec<(usize, Slot)> {
        let mut seen = Vec::new();
        descriptor.each_slot(from, to, |word, slot| seen.push((word, slot)));
        seen.sort_by_key(|&(word, _)| word);
        seen
    }

    #[test]
    fn slots_are_found_in_any_window_of_the_object() {
        let layout = Layout {
            refs: vec![0, 5, 62, 63, 90],
            tagged: vec![1, 100],
            tail: Tail::Refs,
            rule: TagRule { mask: 0, pattern: 0, low_tags: 1, address: !7 },
            ..Layout::plain("window", 120)
        };
        let table = LayoutTable::new().unwrap();
        let id = table.register(&layout).unwrap();
        let descriptor = table.get(id);
        let header = Header::new(id, 10);
        let words = descriptor.words(header);
        assert_eq!(words, 131);
        let all = slots(descriptor, 0, words);
        assert_eq!(all.len(), 7 + 10);
        for from in 0..words {
            for to in from..=words {
                let expected: Vec<_> =
                    all.iter().copied().filter(|&(word, _)| (from..to).contains(&word)).collect();
                assert_eq!(slots(descriptor, from, to), expected, "window {from}..{to}");
            }
        }
    }

    #[test]
    fn sizes_round_up_to_words_and_to_two() {
        let table = LayoutTable::new().unwrap();
        let empty = table.register(&Layout::plain("empty", 0)).unwrap();
        assert_eq!(table.get(empty).words(Header::new(empty, 0)), 2);
        let bytes = table.get(LayoutId::DATA[0]);
        assert_eq!(bytes.words(Header::new(LayoutId::DATA[0], 0)), 2);
        assert_eq!(bytes.words(Header::new(LayoutId::DATA[0], 9)), 3);
        assert_eq!(table.get(LayoutId::DATA[3]).words(Header::new(LayoutId::DATA[3], 9)), 10);
    }

    #[test]
    fn malformed_layouts_are_refused_by_name() {
        let table = LayoutTable::new().unwrap();
        let twice = Layout { refs: vec![1], tagged: vec![1], ..Layout::plain("twice", 3) };
        assert!(table.register(&twice).unwrap_err().to_string().contains("twice"));
        let outside = Layout { refs: vec![3], ..Layout::plain("outside", 3) };
        assert!(matches!(table.register(&outside), Err(LayoutError::BadSlot { slot: 3, .. })));
        let long = Layout::plain("long", Layout::MAX_FIXED_WORDS + 1);
        assert!(matches!(table.register(&long), Err(LayoutError::TooLong { .. })));
    }

    /// Where an object may be: anywhere in user space, at a multiple of a word.
    const PLACES: [u64; 6] =
        [8, 0x1000, 0x5555_5555_5550, 0x2aaa_aaaa_aaa8, 0x7fff_ffff_fff8, 0x4000_0000_0000];

    /// Whether a reference under `rule` is still one, to the same place and with the same tag, after its object
    /// has moved from any place to any other.
    fn survives_moves(rule: TagRule) -> bool {
        let tags = (0..8).filter(|tag| rule.low_tags >> tag & 1 != 0);
        let words = tags.flat_map(|tag| PLACES.map(|place| (place, place | tag | rule.pattern)));
        let mut references = words
            .filter(|&(place, word)| rule.is_reference(word) && rule.address_of(word) == place)
            .peekable();
        assert!(references.peek().is_some(), "a rule without references proves nothing");
        references.all(|(_, word)| {
            PLACES.iter().all(|&to| {
                let moved = rule.with_address(word, to);
                rule.is_reference(moved)
                    && rule.address_of(moved) == to
                    && moved & !rule.address == word & !rule.address
            })
        })
    }

    #[test]
    fn tag_rules_are_refused_if_a_move_could_break_their_references() {
        let table = LayoutTable::new().unwrap();
        let low = TagRule { mask: 0, pattern: 0, low_tags: 0b10, address: !7 };
        let high = TagRule {
            mask: 0xffff << 48,
            pattern: 0xfffc << 48,
            low_tags: 0xff,
            address: (1 << 48) - 8,
        };
        let sound = [low, high, TagRule { address: (1 << 47) - 8, ..high }];
        // Without one of the bits in which addresses differ; with one that tells references from constants; with
        // one of the tag's.
        let missing = (3..47).map(|bit| TagRule { address: high.address & !(1 << bit), ..high });
        let masked = (3..47).map(|bit| TagRule { mask: high.mask | 1 << bit, ..high });
        let set = (3..47).map(|bit| {
            let bit = 1 << bit;
            TagRule { mask: high.mask | bit, pattern: high.pattern | bit, ..high }
        });
        let tags = (0..3).map(|bit| TagRule { address: high.address | 1 << bit, ..high });
        let accepted = |rule| {
            let layout = Layout { tagged: vec![0], rule, ..Layout::plain("ruled", 1) };
            match table.register(&layout) {
                Ok(_) => true,
                Err(LayoutError::BadRule { name: "ruled" }) => false,
                Err(error) => panic!("{error}"),
            }
        };
        for rule in sound {
            assert!(accepted(rule) && survives_moves(rule), "{rule:x?}");
        }
        for rule in missing.chain(masked).chain(set) {
            assert!(!accepted(rule), "{rule:x?}");
            assert!(!survives_moves(rule), "refused without need: {rule:x?}");
        }
        // References with the tag in question would not even lead to their objects.
        for rule in tags {
            assert!(!accepted(rule), "{rule:x?}");
        }
    }
}
