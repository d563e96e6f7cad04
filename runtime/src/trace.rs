//! What can live in the heap: [`Trace`] types, and the fields they are made of.
//!
//! A heap type is a plain struct whose fields are plain data, atomics, [`Field`](crate::Field)s,
//! [`Tagged`](crate::Tagged) words, arrays of those, or structs of those; `#[derive(Trace)]` proves it and
//! produces the layout. There is no trace *function*: the layout is data, read by collector threads and by
//! the fault handler alike.

use crate::{Field, Object, TagRule, Tagged, WordRule};
use firn_gc::core::Core;
use firn_heap::WORD;
use firn_heap::layout::{Layout, LayoutError, LayoutId, Role, Tail};
use std::sync::atomic::*;

/// Collects where a type's references lie. Used by `#[derive(Trace)]`.
#[derive(Default, Debug)]
pub struct Slots {
    refs: Vec<u16>,
    tagged: Vec<u16>,
    rule: Option<TagRule>,
}

impl Slots {
    fn word(at: usize) -> u16 {
        assert!(at.is_multiple_of(WORD), "reference fields are word-aligned");
        u16::try_from(at / WORD).expect("a heap type is at most Layout::MAX_FIXED_WORDS long")
    }

    /// A reference at byte `at`.
    pub fn reference(&mut self, at: usize) {
        self.refs.push(Self::word(at));
    }

    /// A tagged word at byte `at`.
    ///
    /// # Panics
    /// If the type already has tagged words of another rule.
    pub fn tagged(&mut self, at: usize, rule: TagRule) {
        assert!(
            self.rule.is_none_or(|known| known == rule),
            "all tagged words of a heap type must follow the same rule"
        );
        self.rule = Some(rule);
        self.tagged.push(Self::word(at));
    }
}

/// A type that can be a field of a heap type.
///
/// # Safety
/// `slots` must report every reference in a value of the type, and nothing else; such words must be
/// accessed atomically only.
pub unsafe trait HeapField: 'static {
    /// Reports the references of a field that begins at byte `at` of its object.
    fn slots(at: usize, slots: &mut Slots);
}

/// A struct that can be a heap object; implemented by `#[derive(Trace)]` only.
///
/// ```
/// use firn::{Field, Trace};
/// use std::sync::atomic::AtomicU32;
///
/// #[derive(Trace)]
/// struct Node {
///     key: u64,
///     hits: AtomicU32,
///     next: Field<Node>,
/// }
/// ```
///
/// # Safety
/// [`HeapField::slots`] must describe the type completely; it must not need `Drop`, and its alignment must
/// not exceed a word's. The derive checks all of it.
pub unsafe trait Trace: HeapField + Sized {
    /// The type's name in dumps.
    const NAME: &'static str;

    /// The cache of the type's layout id.
    #[doc(hidden)]
    fn cell() -> &'static LayoutCell;
}

/// A struct that begins with a value of another, so that a reference to it can stand for a reference to
/// that: `#[derive(Trace)] #[trace(extends)] #[repr(C)] struct Derived { base: Base, ... }`.
///
/// ```
/// use firn::{Field, Trace};
///
/// #[derive(Trace)]
/// struct Shape { id: u64 }
///
/// #[derive(Trace)]
/// #[trace(extends)]
/// #[repr(C)]
/// struct Circle { shape: Shape, radius: f64 }
///
/// #[derive(Trace)]
/// struct Drawing { shape: Field<Shape> } // holds circles, too: `circle.upcast()`
/// ```
///
/// # Safety
/// A `Base` lies at offset 0 of every value of the type. The derive checks it.
pub unsafe trait Extends<Base: Trace>: Trace {}

/// A per-type cache: which id the type has in the heap that asked last.
///
/// A heap's serial number and the id share one word, so that several heaps can use a type in turn.
#[derive(Debug)]
pub struct LayoutCell(AtomicU64);

impl Default for LayoutCell {
    fn default() -> LayoutCell {
        LayoutCell::new()
    }
}

impl LayoutCell {
    /// An empty cache.
    pub const fn new() -> LayoutCell {
        LayoutCell(AtomicU64::new(0))
    }

    /// The id, if the heap with this serial number asked last.
    #[inline(always)]
    pub(crate) fn get(&self, serial: u64) -> Option<LayoutId> {
        // Relaxed: id and serial are one word, and the layout was published before the heap's own map
        // gave the id to anyone.
        let word = self.0.load(Ordering::Relaxed);
        (word >> 16 == serial).then_some(LayoutId(word as u16))
    }

    pub(crate) fn set(&self, serial: u64, id: LayoutId) {
        self.0.store(serial << 16 | id.0 as u64, Ordering::Relaxed);
    }
}

/// Registers `T`'s layout.
pub(crate) fn register<T: Trace>(core: &Core) -> Result<LayoutId, LayoutError> {
    let mut slots = Slots::default();
    T::slots(0, &mut slots);
    core.space.layouts.register(&Layout {
        name: T::NAME,
        fixed_words: size_of::<T>().div_ceil(WORD),
        refs: slots.refs,
        tagged: slots.tagged,
        tail: Tail::None,
        rule: slots.rule.unwrap_or(TagRule::NEVER),
        role: Role::Ordinary,
    })
}

macro_rules! plain_fields {
    ($($type:ty)*) => {
        $(
            // SAFETY: no references.
            unsafe impl HeapField for $type {
                #[inline]
                fn slots(_at: usize, _slots: &mut Slots) {}
            }
        )*
    };
}

plain_fields! {
    u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64 bool char
    AtomicU8 AtomicU16 AtomicU32 AtomicU64 AtomicUsize
    AtomicI8 AtomicI16 AtomicI32 AtomicI64 AtomicIsize AtomicBool
}

// SAFETY: reports itself; accessed atomically by its methods only.
unsafe impl<T: Object + ?Sized> HeapField for Field<T> {
    fn slots(at: usize, slots: &mut Slots) {
        slots.reference(at);
    }
}

// SAFETY: reports itself; accessed atomically by its methods only.
unsafe impl<R: WordRule> HeapField for Tagged<R> {
    fn slots(at: usize, slots: &mut Slots) {
        slots.tagged(at, R::RULE);
    }
}

// SAFETY: reports each element.
unsafe impl<F: HeapField, const N: usize> HeapField for [F; N] {
    fn slots(at: usize, slots: &mut Slots) {
        (0..N).for_each(|index| F::slots(at + index * size_of::<F>(), slots));
    }
}
