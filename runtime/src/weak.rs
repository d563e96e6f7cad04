//! Weak references: ephemerons, of references and of tagged words, and weak boxes.
//!
//! An [`Ephemeron`] holds its key weakly, and its value for as long as both it and the key are live: what a weak
//! table is made of, since a value that refers to its own key does not keep it. A [`Weak`] is an ephemeron without a
//! value. All of them are heap objects that are complete when they are made and never change, except that
//! a collection *breaks* them when the key has died: then key and value are gone for ever, both at once.
//!
//! What a read returns is an ordinary reference and keeps the object like any other. A broken ephemeron is exact: if
//! a key is dead when a collection begins, it is gone when that collection has ended. Beside a running
//! collection a key that is read in time lives on; no thread sees it gone before another still reads it, unless
//! that one has kept the reference.
//!
//! A value that is to change goes into an object of its own: the ephemeron's value is that object.

use crate::array::sealed::Sealed;
use crate::heap::TaggedKind;
use crate::reference::object_bytes;
use crate::scope::Scope;
use crate::{Downcast, Gc, Local, NoGc, Object, OutOfMemory, Value, WordRule};
use firn_heap::WORD;
use firn_heap::layout::ephemeron::{BROKEN, KEY, LINK, VALUE, WORDS};
use firn_heap::layout::{Header, LayoutId};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// A key held weakly, and a value that is kept while the key is live.
///
/// ```
/// # use firn::*;
/// #[derive(Trace)]
/// struct Name { hash: u64 }
/// #[derive(Trace)]
/// struct Info { of: Field<Name>, uses: std::sync::atomic::AtomicU64 }
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// // A root that can be dropped.
/// let name = cx.scope(|cx| cx.alloc(Name { hash: 7 }).map(|name| cx.global(name.get(cx))))?;
/// let info = cx.scope(|cx| {
///     let key = cx.root(name.get(cx));
///     let value = cx.alloc(Info { of: Field::null(), uses: 0.into() })?;
///     value.get(cx).of.store(cx, Some(key.get(cx))); // the value refers to the key: no harm
///     let info = cx.alloc_ephemeron(key, value)?;
///     Ok::<_, OutOfMemory>(cx.global(info.get(cx)))
/// })?;
/// cx.collect();
/// assert_eq!(info.get(cx).key(cx).expect("the name is live").hash, 7);
/// assert!(info.get(cx).key_is(name.get(cx)));
/// assert!(info.get(cx).value(cx).is_some());
/// drop(name);
/// cx.collect();
/// assert!(info.get(cx).key(cx).is_none() && info.get(cx).value(cx).is_none());
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Ephemeron<K: ?Sized, V: ?Sized>(PhantomData<fn() -> (*const K, *const V)>);

/// A weak box: refers to an object without keeping it.
///
/// ```
/// # use firn::*;
/// #[derive(Trace)]
/// struct Node { key: u64 }
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// let weak = cx.nest(|cx| {
///     let node = cx.alloc(Node { key: 1 })?;
///     let weak = cx.alloc_weak(node)?;
///     assert_eq!(weak.get(cx).target(cx).expect("`node` holds it").key, 1);
///     Ok::<_, OutOfMemory>(weak)
/// })?;
/// cx.collect();
/// assert!(weak.get(cx).target(cx).is_none());
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Weak<T: ?Sized>(PhantomData<fn() -> *const T>);

/// An ephemeron of tagged words. A key that is no reference never dies.
///
/// ```
/// # use firn::*;
/// # struct Lisp;
/// # impl WordRule for Lisp {
/// #     const RULE: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 0b1, address: !7 };
/// # }
/// # #[derive(Trace)]
/// # struct Cell { value: Tagged<Lisp> }
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// let nogc = cx.reserve(NoGc::size_of::<Cell>() + NoGc::EPHEMERON)?;
/// let cell = nogc.alloc(Cell { value: Tagged::new(1) });
/// let key = Value::<Lisp>::reference(cell, 0).expect("tag 000 is a reference");
/// let value = Value::<Lisp>::immediate(42 << 3 | 1).expect("the tag is no reference's");
/// let ephemeron = nogc.try_alloc_tagged_ephemeron(key, value).expect("reserved");
/// assert_eq!(ephemeron.key(&nogc).expect("just made").bits(), key.bits());
/// assert_eq!(ephemeron.value(&nogc).expect("just made").bits() >> 3, 42);
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct TaggedEphemeron<R>(PhantomData<fn() -> R>);

impl<K: ?Sized + 'static, V: ?Sized + 'static> Sealed for Ephemeron<K, V> {}
impl<T: ?Sized + 'static> Sealed for Weak<T> {}
impl<R: WordRule> Sealed for TaggedEphemeron<R> {}

impl<K: ?Sized + 'static, V: ?Sized + 'static> Object for Ephemeron<K, V> {
    #[inline(always)]
    fn layout(_scope: &Scope<'_>) -> LayoutId {
        LayoutId::EPHEMERON
    }
}

impl<T: ?Sized + 'static> Object for Weak<T> {
    #[inline(always)]
    fn layout(_scope: &Scope<'_>) -> LayoutId {
        LayoutId::EPHEMERON
    }
}

impl<R: WordRule> Object for TaggedEphemeron<R> {
    #[inline(always)]
    fn layout(scope: &Scope<'_>) -> LayoutId {
        TaggedKind::Ephemeron.of(scope.tagged_layout::<R>())
    }
}

impl<R: WordRule> Downcast for TaggedEphemeron<R> {}

/// The word `index` of the object at `gc`, counted from the header.
#[inline(always)]
pub(crate) fn word<'m, T: Object + ?Sized>(gc: Gc<'m, T>, index: usize) -> &'m AtomicU64 {
    // SAFETY: callers give one of the words of the object's layout, which is accessed atomically only, and the object
    // stays where it is for as long as the reference is good.
    unsafe { &*gc.word(index - 1) }
}

/// Fills the words of a fresh object from the one behind its header on.
///
/// # Safety
/// The object must be this thread's alone and have so many words.
#[inline(always)]
pub(crate) unsafe fn fill<const N: usize>(address: u64, words: [u64; N]) {
    for (index, value) in words.into_iter().enumerate() {
        // SAFETY: the caller's promise. Plain stores: whoever gets the reference gets it through a release store.
        unsafe { (address as *mut u64).add(1 + index).write(value) };
    }
}

/// Reads word `index`, a reference, of an ephemeron of references; 0 if it is broken.
#[inline(always)]
fn read<T: Object + ?Sized>(scope: &Scope<'_>, gc: Gc<'_, T>, index: usize) -> u64 {
    let place = word(gc, KEY);
    // Acquire, both: pairs with the release store that published the ephemeron, and with the breaking.
    let key = place.load(Ordering::Acquire);
    let target = word(gc, index).load(Ordering::Acquire);
    if key == 0 || target == 0 || !scope.reads(target, (place, key, key)) { 0 } else { target }
}

impl<'m, K: Object + ?Sized, V: Object + ?Sized> Gc<'m, Ephemeron<K, V>> {
    /// Whether the key is `object`, which the caller holds: unlike reading the key, looking does not keep it.
    #[inline]
    pub fn key_is(self, object: Gc<'_, K>) -> bool {
        // Acquire: pairs with the breaking.
        word(self, KEY).load(Ordering::Acquire) == object.address()
    }

    /// The key, unless it has died.
    #[inline]
    pub fn key<'a>(self, scope: &'a Scope<'_>) -> Option<Gc<'a, K>> {
        // SAFETY: the key is a `K` of this heap, and held from now on.
        unsafe { Gc::from_nullable(read(scope, self, KEY)) }
    }

    /// The value, unless the key has died.
    #[inline]
    pub fn value<'a>(self, scope: &'a Scope<'_>) -> Option<Gc<'a, V>> {
        // SAFETY: the value is a `V` of this heap, and held from now on.
        unsafe { Gc::from_nullable(read(scope, self, VALUE)) }
    }
}

impl<'m, T: Object + ?Sized> Gc<'m, Weak<T>> {
    /// The object, unless it has died.
    #[inline]
    pub fn target<'a>(self, scope: &'a Scope<'_>) -> Option<Gc<'a, T>> {
        // SAFETY: the key is a `T` of this heap, and held from now on.
        unsafe { Gc::from_nullable(read(scope, self, KEY)) }
    }
}

impl<'m, R: WordRule> Gc<'m, TaggedEphemeron<R>> {
    #[inline]
    fn read<'a>(self, scope: &'a Scope<'_>, index: usize) -> Option<Value<'a, R>> {
        let place = word(self, KEY);
        // Acquire, both: as in `read` for references.
        let key = Value::<R>::from_bits(place.load(Ordering::Acquire));
        let found = Value::<R>::from_bits(word(self, index).load(Ordering::Acquire));
        match (key.target(), found.target()) {
            // Relaxed: written before the key was emptied.
            (None, _) if word(self, LINK).load(Ordering::Relaxed) == BROKEN => None,
            // An immediate key keeps the value as an ordinary field would.
            (None, _) => Some(found),
            // Between the final pause and the flip a dead key is gone even if the value is an immediate.
            (Some(key_at), target) => {
                let target = target.unwrap_or(key_at);
                scope.reads(target, (place, key.bits(), key_at)).then_some(found)
            }
        }
    }

    /// Whether the key is `value`, which the caller holds: unlike reading the key, looking does not keep it.
    #[inline]
    pub fn key_is(self, value: Value<'_, R>) -> bool {
        // Acquire: pairs with the breaking. What the caller holds is not dead; a broken key is 0.
        let key = word(self, KEY).load(Ordering::Acquire);
        key == value.bits() && (key != 0 || word(self, LINK).load(Ordering::Relaxed) != BROKEN)
    }

    /// The key, unless it has died.
    #[inline]
    pub fn key<'a>(self, scope: &'a Scope<'_>) -> Option<Value<'a, R>> {
        self.read(scope, KEY)
    }

    /// The value, unless the key has died.
    #[inline]
    pub fn value<'a>(self, scope: &'a Scope<'_>) -> Option<Value<'a, R>> {
        self.read(scope, VALUE)
    }
}

impl<'s> Scope<'s> {
    #[inline]
    fn ephemeron<T: Object + ?Sized>(
        &mut self,
        words: impl FnOnce(&Self) -> [u64; 2],
    ) -> Result<Local<'s, T>, OutOfMemory> {
        let address = self.allocate(Header::new(LayoutId::EPHEMERON, 0), NoGc::EPHEMERON)?;
        let [key, value] = words(self);
        // SAFETY: fresh, with these words.
        unsafe { fill(address, [key, value, 0]) };
        Ok(self.handle(address))
    }

    /// Allocates an ephemeron. May collect. See [`Ephemeron`].
    ///
    /// # Errors
    /// As [`Scope::alloc`].
    pub fn alloc_ephemeron<K: Object + ?Sized, V: Object + ?Sized>(
        &mut self,
        key: Local<'_, K>,
        value: Local<'_, V>,
    ) -> Result<Local<'s, Ephemeron<K, V>>, OutOfMemory> {
        self.ephemeron(|cx| [key.get(cx).address(), value.get(cx).address()])
    }

    /// Allocates a weak box. May collect. See [`Weak`].
    ///
    /// # Errors
    /// As [`Scope::alloc`].
    pub fn alloc_weak<T: Object + ?Sized>(
        &mut self,
        target: Local<'_, T>,
    ) -> Result<Local<'s, Weak<T>>, OutOfMemory> {
        self.ephemeron(|cx| [target.get(cx).address(), 0])
    }
}

impl NoGc<'_, '_> {
    /// Bytes to reserve for an ephemeron or a weak box.
    pub const EPHEMERON: usize = object_bytes((WORDS - 1) * WORD);
}

impl<'a> NoGc<'a, '_> {
    #[inline(always)]
    fn ephemeron(&self, key: u64, value: u64) -> u64 {
        self.check_target(key);
        self.check_target(value);
        let address = self.allocate(Header::new(LayoutId::EPHEMERON, 0), NoGc::EPHEMERON);
        // SAFETY: fresh, with these words.
        unsafe { fill(address, [key, value, 0]) };
        address
    }

    /// Allocates an ephemeron. See [`Ephemeron`].
    ///
    /// ```
    /// # use firn::*;
    /// # #[derive(Trace)]
    /// # struct Node { key: u64 }
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let nogc = cx.reserve(2 * NoGc::size_of::<Node>() + NoGc::EPHEMERON)?;
    /// let (one, two) = (nogc.alloc(Node { key: 1 }), nogc.alloc(Node { key: 2 }));
    /// let ephemeron = nogc.alloc_ephemeron(one, two);
    /// assert_eq!(ephemeron.value(&nogc).expect("just made").key, 2);
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// As [`NoGc::alloc`].
    #[inline]
    pub fn alloc_ephemeron<K: Object + ?Sized, V: Object + ?Sized>(
        &self,
        key: Gc<'_, K>,
        value: Gc<'_, V>,
    ) -> Gc<'a, Ephemeron<K, V>> {
        // SAFETY: complete; see `alloc`.
        unsafe { Gc::from_address(self.ephemeron(key.address(), value.address())) }
    }

    /// Allocates a weak box. See [`Weak`].
    ///
    /// # Panics
    /// As [`NoGc::alloc`].
    #[inline]
    pub fn alloc_weak<T: Object + ?Sized>(&self, target: Gc<'_, T>) -> Gc<'a, Weak<T>> {
        // SAFETY: complete; see `alloc`.
        unsafe { Gc::from_address(self.ephemeron(target.address(), 0)) }
    }

    /// Allocates an ephemeron of tagged words, if there is room without collecting: see
    /// [`NoGc::try_alloc_with`]. See [`TaggedEphemeron`].
    #[inline]
    pub fn try_alloc_tagged_ephemeron<R: WordRule>(
        &self,
        key: Value<'_, R>,
        value: Value<'_, R>,
    ) -> Option<Gc<'a, TaggedEphemeron<R>>> {
        self.check_value::<R>(key.bits());
        self.check_value::<R>(value.bits());
        let layout = TaggedKind::Ephemeron.of(self.tagged_layout::<R>());
        let address = self.try_allocate(Header::new(layout, 0), NoGc::EPHEMERON)?;
        // SAFETY: fresh, with these words; complete; see `alloc`.
        unsafe {
            fill(address, [key.bits(), value.bits(), 0]);
            Some(Gc::from_address(address))
        }
    }
}
