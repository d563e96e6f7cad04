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
///
/// An object that holds references cannot be lent to another thread, which may work with another heap:
///
/// ```compile_fail
/// # use firn::Field;
/// fn lend<T: Sync>(_: &T) {}
/// lend(&Field::<firn::DataArray<u8>>::null());
/// ```
pub struct Field<T: ?Sized> {
    word: AtomicU64,
    /// Neither `Send` nor `Sync`: a reference to an object that holds references must not be lent to a thread
    /// that works with another heap.
    object: PhantomData<*const T>,
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

    /// Set of low tags that belong to one type each (bit *t*: tag *t* does), so that the tag alone says what a
    /// word refers to: see [`TypedTag`].
    const TYPED: u8 = 0;
}

/// Gives the low tag `TAG` of a rule to one type: a word with this tag refers to a `Target`, which
/// [`Value::as_typed`] knows without looking at the object.
///
/// The rule must name the tag in [`WordRule::TYPED`], admit it in `low_tags`, and have all of a word but the
/// low three bits for the address; tag 0 cannot be had. All of it is checked when the program is compiled.
///
/// ```
/// # use firn::*;
/// struct Lisp;
/// impl WordRule for Lisp {
///     const RULE: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 0b10, address: !7 };
///     const TYPED: u8 = 0b10;
/// }
/// impl TypedTag<1> for Lisp {
///     type Target = Pair;
/// }
/// #[derive(Trace)]
/// struct Pair { car: Tagged<Lisp>, cdr: Tagged<Lisp> }
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// let pair = cx.alloc(Pair { car: Tagged::new(0), cdr: Tagged::new(0) })?.get(cx);
/// let value = Value::<Lisp>::typed::<1>(pair);
/// pair.car.store(cx, value);
/// let car = pair.car.load(cx).as_typed::<1>().expect("stored above"); // no look at a header
/// assert!(Gc::ptr_eq(car, pair));
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub trait TypedTag<const TAG: u8>: WordRule {
    /// The type of all objects that words with the tag refer to.
    type Target: Object;
}

/// What [`TypedTag`] promises, checked.
struct TypedTagCheck<R, const TAG: u8>(PhantomData<R>);

impl<R: WordRule, const TAG: u8> TypedTagCheck<R, TAG> {
    const SOUND: () = assert!(
        TAG != 0
            && TAG < 8
            && R::TYPED >> TAG & 1 == 1
            && R::RULE.low_tags >> TAG & 1 == 1
            && R::RULE.mask == 0
            && R::RULE.pattern == 0
            && R::RULE.address == !7,
        "a typed tag is 1 to 7, named in TYPED and low_tags, and its rule has only low tags"
    );
}

/// Whether a word's low tag is one that belongs to a type.
#[inline(always)]
const fn has_typed_tag<R: WordRule>(bits: u64) -> bool {
    R::TYPED >> (bits & 7) & 1 == 1
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
    /// An immediate; `None` if the rule takes these bits for a reference, or their tag belongs to a type.
    #[inline(always)]
    pub const fn immediate(bits: u64) -> Option<Value<'m, R>> {
        if R::RULE.is_reference(bits) || has_typed_tag::<R>(bits) {
            return None;
        }
        Some(Value::from_bits(bits))
    }

    /// A reference with the tag of its type.
    #[inline(always)]
    pub fn typed<const TAG: u8>(gc: Gc<'m, R::Target>) -> Value<'m, R>
    where
        R: TypedTag<TAG>,
    {
        const { TypedTagCheck::<R, TAG>::SOUND }
        Value::from_bits(gc.address() | TAG as u64)
    }

    /// The object it refers to, if it has this tag. Does not look at the object.
    #[inline(always)]
    pub fn as_typed<const TAG: u8>(self) -> Option<Gc<'m, R::Target>>
    where
        R: TypedTag<TAG>,
    {
        const { TypedTagCheck::<R, TAG>::SOUND }
        if self.bits & 7 != TAG as u64 {
            return None;
        }
        // SAFETY: only `typed` makes words with this tag (immediates with it are refused everywhere), of
        // references to a `Target`; objects are aligned to words.
        Some(unsafe { Gc::from_address(self.bits.wrapping_sub(TAG as u64)) })
    }

    /// A reference with the bits of `tag` added to its address; `None` if the rule does not take the
    /// result for a reference to the same place, or the tag belongs to a type.
    #[inline(always)]
    pub fn reference<T: Object + ?Sized>(gc: Gc<'m, T>, tag: u64) -> Option<Value<'m, R>> {
        let bits = gc.address() | tag;
        let kept = R::RULE.is_reference(bits)
            && R::RULE.address_of(bits) == gc.address()
            && !has_typed_tag::<R>(bits);
        kept.then(|| Value::from_bits(bits))
    }

    #[inline(always)]
    pub(crate) const fn from_bits(bits: u64) -> Value<'m, R> {
        Value { bits, scope: PhantomData, thread: PhantomData }
    }

    /// The address that it refers to.
    #[inline(always)]
    pub(crate) fn target(self) -> Option<u64> {
        self.is_reference().then(|| R::RULE.address_of(self.bits))
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
    /// Neither `Send` nor `Sync`, as [`Field`].
    rule: PhantomData<*const R>,
}

impl<R: WordRule> Tagged<R> {
    /// A word with an immediate in it.
    ///
    /// # Panics
    /// If the rule takes these bits for a reference: store references once the object exists.
    #[inline(always)]
    pub fn new(immediate: u64) -> Tagged<R> {
        assert!(
            !R::RULE.is_reference(immediate) && !has_typed_tag::<R>(immediate),
            "{immediate:#x} would be a reference"
        );
        Tagged { word: AtomicU64::new(immediate), rule: PhantomData }
    }

    /// Stores into an object that nobody else has seen: no barrier.
    #[inline(always)]
    pub(crate) fn fill(&self, scope: &Scope<'_>, value: Value<'_, R>) {
        scope.check_value::<R>(value.bits);
        // SAFETY: the word of an object that was allocated a moment ago and that no other thread knows:
        // a plain store, so that the compiler merges it with the one that made the field.
        unsafe { self.word.as_ptr().write(value.bits) };
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
