//! Reference fields and tagged words: the mutable edges of the object graph, and the write barrier.
//!
//! A field is one atomic word without a lifetime. Loading attaches the borrow of the scope, storing erases
//! it. A field can be *made* only empty: a value that is not in the heap yet is invisible to the collector,
//! so it must not hold a reference; store it once the object exists.
//!
//! The barrier is snapshot-at-the-beginning: while marking is on, the overwritten reference is logged.

use crate::scope::Scope;
use crate::{Downcast, Gc, Object, TagRule};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// A reference to a `T`, or null, inside a heap object.
///
/// ```
/// # use firn::*;
/// #[derive(Trace)]
/// struct Node { key: u64, next: Field<Node> }
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// let node = cx.alloc(Node { key: 1, next: Field::null() })?; // made empty
/// let node = node.get(cx);
/// node.next.store(cx, Some(node)); // a cycle: no harm to a tracing collector
/// let next = node.next.load(cx).expect("stored above");
/// assert_eq!(next.key, 1);
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Field<T: ?Sized> {
    word: AtomicU64,
    object: PhantomData<fn() -> *const T>,
}

impl<T: ?Sized> Default for Field<T> {
    fn default() -> Self {
        Field::null()
    }
}

impl<T: ?Sized> Field<T> {
    /// An empty field.
    #[inline(always)]
    pub const fn null() -> Field<T> {
        Field { word: AtomicU64::new(0), object: PhantomData }
    }
}

impl<T: Object + ?Sized> Field<T> {
    /// The object it refers to.
    #[inline(always)]
    pub fn load<'m>(&self, _scope: &'m Scope<'_>) -> Option<Gc<'m, T>> {
        // Acquire: pairs with the release in `store`: a published object is seen initialised.
        // SAFETY: a field in the heap holds null or a `T` of the same heap (see `store`); a field outside
        // is empty.
        unsafe { Gc::from_nullable(self.word.load(Ordering::Acquire)) }
    }

    /// Makes it refer to `value`, of the same heap as the field (a thread works with one heap at a time).
    ///
    /// # Panics
    /// If the field is not in the heap: the collector would not see what it holds.
    #[inline(always)]
    pub fn store(&self, scope: &Scope<'_>, value: Option<Gc<'_, T>>) {
        let new = value.map_or(0, Gc::address);
        store_word(&self.word, scope, new, new, |old| old);
    }
}

/// Stores a word, which refers to the object at `target` (0: none), logging the reference it held.
#[inline(always)]
pub(crate) fn store_word(
    word: &AtomicU64,
    scope: &Scope<'_>,
    new: u64,
    target: u64,
    reference: impl Fn(u64) -> u64,
) {
    scope.check_store(word, target);
    if scope.marking() {
        // An exchange, so that of two racing stores each logs what it overwrote. AcqRel: the release
        // pairs with the loads.
        let old = reference(word.swap(new, Ordering::AcqRel));
        if old != 0 {
            scope.log_overwritten(old);
        }
    } else {
        // Release: pairs with the acquire in `load`.
        word.store(new, Ordering::Release);
    }
}

/// How a language's words tell references from immediates; a constant, see [`TagRule`].
///
/// ```
/// use firn::{TagRule, WordRule};
/// /// Low tag 001: a fixnum; low tag 000: a reference.
/// struct Lisp;
/// impl WordRule for Lisp {
///     const RULE: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 0b1, address: !7 };
/// }
/// ```
pub trait WordRule: Send + Sync + 'static {
    /// The rule.
    const RULE: TagRule;
}

/// A tagged word as read from the heap: an immediate, or a reference valid until the next safepoint.
///
/// ```
/// # use firn::*;
/// # struct Lisp;
/// # impl WordRule for Lisp {
/// #     const RULE: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 0b1, address: !7 };
/// # }
/// #[derive(Trace)]
/// struct Pair { head: Tagged<Lisp>, tail: Tagged<Lisp> }
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// let number = Value::<Lisp>::immediate(42 << 3 | 1).expect("the tag is no reference's");
/// assert_eq!(number.bits() >> 3, 42);
/// let pair = cx.alloc(Pair { head: Tagged::new(1), tail: Tagged::new(1) })?.get(cx);
/// let value = Value::<Lisp>::reference(pair, 0).expect("tag 000 is a reference");
/// assert!(value.is_reference() && value.downcast::<Pair>(cx).is_some());
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Value<'m, R: WordRule> {
    bits: u64,
    scope: PhantomData<&'m R>,
    thread: PhantomData<*const ()>,
}

impl<R: WordRule> Clone for Value<'_, R> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: WordRule> Copy for Value<'_, R> {}

impl<'m, R: WordRule> Value<'m, R> {
    /// An immediate; `None` if the rule takes these bits for a reference.
    #[inline(always)]
    pub fn immediate(bits: u64) -> Option<Value<'m, R>> {
        (!R::RULE.is_reference(bits)).then(|| Value::from_bits(bits))
    }

    /// A reference with the bits of `tag` added to its address; `None` if the rule does not take the
    /// result for a reference to the same place.
    #[inline(always)]
    pub fn reference<T: Object + ?Sized>(gc: Gc<'m, T>, tag: u64) -> Option<Value<'m, R>> {
        let bits = gc.address() | tag;
        let kept = R::RULE.is_reference(bits) && R::RULE.address_of(bits) == gc.address();
        kept.then(|| Value::from_bits(bits))
    }

    #[inline(always)]
    fn from_bits(bits: u64) -> Value<'m, R> {
        Value { bits, scope: PhantomData, thread: PhantomData }
    }

    /// All bits. Of a reference only the tag is stable.
    #[inline(always)]
    pub fn bits(self) -> u64 {
        self.bits
    }

    /// Whether it is a reference.
    #[inline(always)]
    pub fn is_reference(self) -> bool {
        R::RULE.is_reference(self.bits)
    }

    /// The object it refers to, if that is a `T`.
    #[inline(always)]
    pub fn downcast<T: Downcast>(self, scope: &'m Scope<'_>) -> Option<Gc<'m, T>> {
        if !self.is_reference() {
            return None;
        }
        let address = R::RULE.address_of(self.bits);
        // SAFETY: a reference in a tagged word leads to an object, whose header says what it is.
        let layout =
            unsafe { Gc::<'m, crate::RefArray<()>>::from_address(address) }.header().layout();
        // SAFETY: the layout is `T`'s.
        (T::layout(scope) == layout).then(|| unsafe { Gc::from_address(address) })
    }
}

/// A tagged word inside a heap object.
///
/// ```
/// # use firn::*;
/// # struct Lisp;
/// # impl WordRule for Lisp {
/// #     const RULE: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 0b1, address: !7 };
/// # }
/// #[derive(Trace)]
/// struct Cell { value: Tagged<Lisp> }
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// let cell = cx.alloc(Cell { value: Tagged::new(7 << 3 | 1) })?.get(cx);
/// assert_eq!(cell.value.load(cx).bits() >> 3, 7);
/// let itself = Value::reference(cell, 0).expect("tag 000 is a reference");
/// cell.value.store(cx, itself);
/// assert!(cell.value.load(cx).downcast::<Cell>(cx).is_some());
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Tagged<R: WordRule> {
    word: AtomicU64,
    rule: PhantomData<fn() -> R>,
}

impl<R: WordRule> Tagged<R> {
    /// A word with an immediate in it.
    ///
    /// # Panics
    /// If the rule takes these bits for a reference: store references once the object exists.
    #[inline(always)]
    pub fn new(immediate: u64) -> Tagged<R> {
        assert!(!R::RULE.is_reference(immediate), "{immediate:#x} would be a reference");
        Tagged { word: AtomicU64::new(immediate), rule: PhantomData }
    }

    /// What it holds.
    #[inline(always)]
    pub fn load<'m>(&self, _scope: &'m Scope<'_>) -> Value<'m, R> {
        // Acquire: pairs with the release in `store`.
        Value::from_bits(self.word.load(Ordering::Acquire))
    }

    /// Replaces what it holds.
    ///
    /// # Panics
    /// If the word is not in the heap: the collector would not see what it holds.
    #[inline(always)]
    pub fn store(&self, scope: &Scope<'_>, value: Value<'_, R>) {
        let new = if value.is_reference() { R::RULE.address_of(value.bits) } else { 0 };
        store_word(&self.word, scope, value.bits, new, |old| {
            if R::RULE.is_reference(old) { R::RULE.address_of(old) } else { 0 }
        });
    }
}
