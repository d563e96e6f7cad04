//! [`NoGc`]: allocating in a stretch that cannot collect.
//!
//! [`Scope::reserve`] may collect once and sets memory aside; what it returns allocates without collecting
//! or failing, so that the [`Gc`]s it hands out stay valid beside each other. The fastest way to allocate.

use crate::array::data_layout;
use crate::reference::object_bytes;
use crate::scope::Scope;
use crate::{DataArray, Gc, Object, Plain, RefArray, Tagged, TaggedArray, Trace, Value, WordRule};
use firn_gc::mutator::MutatorLocal;
use firn_heap::WORD;
use firn_heap::layout::{Header, LayoutId};
use std::cell::Cell;
use std::ops::Deref;

/// A stretch that cannot collect, with memory set aside. Derefs to the scope, for loads and stores.
///
/// ```
/// # use firn::*;
/// #[derive(Trace)]
/// struct Text { bytes: Field<DataArray<u8>> }
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// let bytes = NoGc::size_of::<Text>() + NoGc::size_of_data::<u8>(5);
/// let nogc = cx.reserve(bytes)?; // may collect here, and only here
/// let bytes = nogc.alloc_data::<u8>(5);
/// bytes.copy_from(0, b"hello");
/// let text = nogc.alloc(Text { bytes: Field::null() });
/// text.bytes.store(&nogc, Some(bytes)); // both are `Gc`s: no root is needed in between
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct NoGc<'a, 's> {
    pub(crate) scope: &'a mut Scope<'s>,
    /// The scope's, at hand: this is the fastest way to allocate.
    pub(crate) local: *mut MutatorLocal,
    /// What is left of the reservation, for the option `stress-every`, which must not refuse that.
    pub(crate) promised: Cell<usize>,
}

/// An object that has just been allocated and that nobody knows yet: its words can be filled without a barrier.
/// Given by [`NoGc::try_alloc_with`].
pub struct Fresh<'f, 's, T: Trace> {
    object: &'f T,
    scope: &'f Scope<'s>,
}

impl<T: Trace> Deref for Fresh<'_, '_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        self.object
    }
}

impl<T: Trace> Fresh<'_, '_, T> {
    /// Fills a tagged word of the object.
    ///
    /// # Panics
    /// If the word is not one of this object's.
    #[inline(always)]
    pub fn set<R: WordRule>(&self, word: &Tagged<R>, value: Value<'_, R>) {
        let offset = std::ptr::from_ref(word).addr().wrapping_sub(self.object_address());
        assert!(offset < size_of::<T>(), "only words of the fresh object itself can be filled");
        word.fill(self.scope, value);
    }

    #[inline(always)]
    fn object_address(&self) -> usize {
        std::ptr::from_ref(self.object).addr()
    }
}

impl<'s> Deref for NoGc<'_, 's> {
    type Target = Scope<'s>;

    #[inline(always)]
    fn deref(&self) -> &Scope<'s> {
        self.scope
    }
}

impl NoGc<'_, '_> {
    /// Most bytes that can be reserved at once.
    pub const MOST: usize = 64 << 10;

    /// Bytes to reserve for a `T`.
    #[inline(always)]
    pub const fn size_of<T: Trace>() -> usize {
        object_bytes(size_of::<T>())
    }

    /// Bytes to reserve for an array of `len` references.
    #[inline(always)]
    pub const fn size_of_refs(len: usize) -> usize {
        object_bytes(len * WORD)
    }

    /// Bytes to reserve for a data array.
    #[inline(always)]
    pub const fn size_of_data<E: Plain>(len: usize) -> usize {
        object_bytes(len * size_of::<E>())
    }
}

impl<'a, 's> NoGc<'a, 's> {
    #[inline(always)]
    fn allocate(&self, header: Header, bytes: usize) -> u64 {
        // SAFETY: as in `Scope::local`.
        let address = match unsafe { &mut *self.local }.tlab.bump(bytes) {
            Some(address) => address,
            None => self.next_page(header.layout(), bytes),
        };
        // SAFETY: as in `Scope::allocate`.
        unsafe { (address as *mut u64).write(header.0) };
        address as u64
    }

    #[cold]
    #[inline(never)]
    fn next_page(&self, layout: LayoutId, bytes: usize) -> usize {
        let space = &self.scope.heap().core().space;
        let tlab = &mut self.scope.local().tlab;
        tlab.extend(space.records(), layout, bytes, space.geometry.page)
            .expect("more was allocated than had been reserved")
    }

    /// Allocates a `T`.
    ///
    /// # Panics
    /// If more is allocated than was reserved (and the chunk has no room beyond that by chance).
    #[inline(always)]
    pub fn alloc<T: Trace>(&self, value: T) -> Gc<'a, T> {
        // SAFETY: as in `Scope::local`.
        let layout = match T::cell().get(unsafe { &*self.local }.serial) {
            Some(id) => id,
            None => self.scope.heap().register::<T>(),
        };
        let address = self.allocate(Header::new(layout, 0), object_bytes(size_of::<T>()));
        // SAFETY: fresh memory of the right size and alignment; the object is complete when the
        // reference appears, and stays where it is as long as the scope is borrowed.
        unsafe {
            (address as *mut u64).add(1).cast::<T>().write(value);
            Gc::from_address(address)
        }
    }

    /// Allocates an array of `len` null references.
    ///
    /// # Panics
    /// If more is allocated than was reserved (and the chunk has no room beyond that by chance).
    #[inline(always)]
    pub fn alloc_refs<T: Object + ?Sized>(&self, len: usize) -> Gc<'a, RefArray<T>> {
        let header = Header::new(LayoutId::REFS, len);
        let address = self.allocate(header, object_bytes(len * WORD));
        // SAFETY: zeroed memory is an array of null references; see `alloc`.
        unsafe { Gc::from_address(address) }
    }

    /// Allocates an array of `len` zeroes.
    ///
    /// # Panics
    /// If more is allocated than was reserved (and the chunk has no room beyond that by chance).
    #[inline(always)]
    pub fn alloc_data<E: Plain>(&self, len: usize) -> Gc<'a, DataArray<E>> {
        let header = Header::new(data_layout::<E>(), len);
        let address = self.allocate(header, object_bytes(len * size_of::<E>()));
        // SAFETY: zeroed memory is an array of zeroes; see `alloc`.
        unsafe { Gc::from_address(address) }
    }

    /// Allocates an array of `len` tagged words of value 0.
    ///
    /// # Panics
    /// If more is allocated than was reserved (and the chunk has no room beyond that by chance).
    #[inline(always)]
    pub fn alloc_tagged<R: WordRule>(&self, len: usize) -> Gc<'a, TaggedArray<R>> {
        let header = Header::new(self.scope.tagged_layout::<R>(), len);
        let address = self.allocate(header, object_bytes(len * WORD));
        // SAFETY: zeroed memory is an array of words of value 0, which no rule takes for a reference; see
        // `alloc`.
        unsafe { Gc::from_address(address) }
    }

    /// Memory for an object without a reservation: `None` when the thread's chunk has no room left. An
    /// interpreter allocates this way for as long as it works, with all its registers in hand, and reserves
    /// anew when it gets nothing.
    #[inline(always)]
    fn try_allocate(&self, header: Header, bytes: usize) -> Option<u64> {
        // SAFETY: as in `Scope::local`.
        let local = unsafe { &mut *self.local };
        if local.stress_left != 0 && !self.stress_allows(bytes) {
            return None;
        }
        let address = match local.tlab.bump(bytes) {
            Some(address) => address,
            None => self.try_next_page(header.layout(), bytes)?,
        };
        // SAFETY: as in `Scope::allocate`.
        unsafe { (address as *mut u64).write(header.0) };
        Some(address as u64)
    }

    #[cold]
    #[inline(never)]
    fn try_next_page(&self, layout: LayoutId, bytes: usize) -> Option<usize> {
        let space = &self.scope.heap().core().space;
        let tlab = &mut self.scope.local().tlab;
        tlab.extend(space.records(), layout, bytes, space.geometry.page)
    }

    /// The option `stress-every`: what was reserved is given; beyond that each allocation counts, and the
    /// one whose turn it is gets nothing, so that the next reservation collects.
    #[cold]
    #[inline(never)]
    fn stress_allows(&self, bytes: usize) -> bool {
        let promised = self.promised.get();
        if bytes <= promised {
            self.promised.set(promised - bytes);
            return true;
        }
        let left = &mut self.scope.local().stress_left;
        if *left > 1 {
            *left -= 1;
            return true;
        }
        false
    }

    /// Allocates a `T` if there is room without collecting; `fill` gets it to fill its words. What was
    /// reserved is always given; `None` says that it is time to end this stretch and to reserve anew.
    ///
    /// ```
    /// # use firn::*;
    /// # struct Lisp;
    /// # impl WordRule for Lisp {
    /// #     const RULE: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 0b1, address: !7 };
    /// # }
    /// #[derive(Trace)]
    /// struct Pair { car: Tagged<Lisp>, cdr: Tagged<Lisp> }
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let nogc = cx.reserve(1000)?;
    /// let mut list = Value::<Lisp>::immediate(7).expect("the tag is no reference's");
    /// for _ in 0..10 {
    ///     let empty = Pair { car: Tagged::new(7), cdr: Tagged::new(7) };
    ///     let pair = nogc.try_alloc_with(empty, |pair| pair.set(&pair.cdr, list)).expect("reserved");
    ///     list = Value::reference(pair, 0).expect("tag 000 is a reference");
    /// }
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn try_alloc_with<T: Trace>(
        &self,
        value: T,
        fill: impl FnOnce(&Fresh<'_, 's, T>),
    ) -> Option<Gc<'a, T>> {
        // SAFETY: as in `Scope::local`.
        let layout = match T::cell().get(unsafe { &*self.local }.serial) {
            Some(id) => id,
            None => self.scope.heap().register::<T>(),
        };
        let address = self.try_allocate(Header::new(layout, 0), object_bytes(size_of::<T>()))?;
        // SAFETY: fresh memory of the right size and alignment; the object is complete when the
        // reference appears, and stays where it is as long as the scope is borrowed.
        let gc: Gc<'a, T> = unsafe {
            (address as *mut u64).add(1).cast::<T>().write(value);
            Gc::from_address(address)
        };
        fill(&Fresh { object: &gc, scope: self.scope });
        Some(gc)
    }

    /// Allocates an array of `len` tagged words, the *i*th being `element(i)`, if there is room without
    /// collecting: see [`NoGc::try_alloc_with`].
    #[inline(always)]
    pub fn try_alloc_tagged<R: WordRule>(
        &self,
        len: usize,
        mut element: impl FnMut(usize) -> Value<'a, R>,
    ) -> Option<Gc<'a, TaggedArray<R>>> {
        let header = Header::new(self.scope.tagged_layout::<R>(), len);
        let address = self.try_allocate(header, object_bytes(len.checked_mul(WORD)?))?;
        let words = (address as *mut u64).wrapping_add(1);
        for index in 0..len {
            let bits = element(index).bits();
            self.scope.check_value::<R>(bits);
            // SAFETY: a word of the fresh array, which nobody else knows: a plain store without barrier.
            unsafe { words.add(index).write(bits) };
        }
        // SAFETY: the array is complete; see `alloc`.
        Some(unsafe { Gc::from_address(address) })
    }

    /// Allocates an array of `len` zeroes, if there is room without collecting: see
    /// [`NoGc::try_alloc_with`].
    #[inline(always)]
    pub fn try_alloc_data<E: Plain>(&self, len: usize) -> Option<Gc<'a, DataArray<E>>> {
        let header = Header::new(data_layout::<E>(), len);
        let bytes = object_bytes(len.checked_mul(size_of::<E>())?);
        let address = self.try_allocate(header, bytes)?;
        // SAFETY: zeroed memory is an array of zeroes; see `alloc`.
        Some(unsafe { Gc::from_address(address) })
    }
}
