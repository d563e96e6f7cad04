//! [`NoGc`]: allocating in a stretch that cannot collect.
//!
//! [`Scope::reserve`] may collect once and sets memory aside; what it returns allocates without collecting
//! or failing, so that the [`Gc`]s it hands out stay valid beside each other. The fastest way to allocate.
//!
//! **In registers.** A [`NoGc`] has copies of the allocation buffer's cursor and limit, and its own address goes to
//! nobody (what is not inlined gets the scope and plain values), so that a compiler keeps the copies in registers:
//! read back from memory, each cursor waits for the store of the one before. The buffer's own cursor is written
//! along, so that nothing needs to be done at the end, which `mem::forget` could skip. Invariant: while a `NoGc`
//! lives it is the only one that allocates on its thread, and both cursors are equal.

use crate::array::data_layout;
use crate::reference::{array_bytes, clear, object_bytes};
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
    scope: &'a mut Scope<'s>,
    /// The scope's, at hand: this is the fastest way to allocate.
    local: *mut MutatorLocal,
    /// Where the allocation buffer's next object begins.
    cursor: Cell<usize>,
    /// Where the pages that it has entered end.
    limit: Cell<usize>,
    /// The heap's serial number.
    serial: u64,
    /// What is left of the reservation, for the option `stress-every`, which must not refuse that.
    promised: Cell<usize>,
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
        object_bytes(array_bytes(len, WORD))
    }

    /// Bytes to reserve for a data array.
    #[inline(always)]
    pub const fn size_of_data<E: Plain>(len: usize) -> usize {
        object_bytes(array_bytes(len, size_of::<E>()))
    }
}

impl<'a, 's> NoGc<'a, 's> {
    /// For a scope that has set `promised` bytes aside.
    #[inline(always)]
    pub(crate) fn new(scope: &'a mut Scope<'s>, promised: usize) -> NoGc<'a, 's> {
        let local = scope.local();
        let (cursor, limit) = local.tlab.ready();
        NoGc {
            serial: local.serial,
            local,
            cursor: Cell::new(cursor),
            limit: Cell::new(limit),
            promised: Cell::new(promised),
            scope,
        }
    }

    /// The next `bytes`, if they are ready.
    #[inline(always)]
    fn bump(&self, bytes: usize) -> Option<usize> {
        let start = self.cursor.get();
        if bytes > self.limit.get() - start {
            return None;
        }
        self.cursor.set(start + bytes);
        // SAFETY: as in `Scope::local`.
        unsafe { &mut *self.local }.tlab.set_cursor(start + bytes);
        Some(start)
    }

    /// Takes over what the allocation buffer's slow path has changed.
    #[inline(always)]
    fn extended(&self, address: usize) -> usize {
        // SAFETY: as in `Scope::local`.
        let (cursor, limit) = unsafe { &*self.local }.tlab.ready();
        self.cursor.set(cursor);
        self.limit.set(limit);
        address
    }

    #[inline(always)]
    pub(crate) fn allocate(&self, header: Header, bytes: usize) -> u64 {
        let address = match self.bump(bytes) {
            Some(address) => address,
            None => self.extended(next_page(self.scope, header.layout(), bytes)),
        };
        // SAFETY: as in `Scope::allocate`.
        unsafe { (address as *mut u64).write(header.0) };
        address as u64
    }

    /// An array of `payload` bytes of zeroes.
    #[inline(always)]
    fn allocate_array(&self, header: Header, payload: usize) -> u64 {
        let address = self.allocate(header, object_bytes(payload));
        // SAFETY: fresh memory.
        unsafe { clear(address, payload) };
        address
    }

    /// Allocates a `T`.
    ///
    /// # Panics
    /// If more is allocated than was reserved (and the chunk has no room beyond that by chance).
    #[inline(always)]
    pub fn alloc<T: Trace>(&self, value: T) -> Gc<'a, T> {
        let layout = match T::cell().get(self.serial) {
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
        // SAFETY: zeroes are an array of null references; see `alloc`.
        unsafe { Gc::from_address(self.allocate_array(header, array_bytes(len, WORD))) }
    }

    /// Allocates an array of `len` zeroes.
    ///
    /// # Panics
    /// If more is allocated than was reserved (and the chunk has no room beyond that by chance).
    #[inline(always)]
    pub fn alloc_data<E: Plain>(&self, len: usize) -> Gc<'a, DataArray<E>> {
        let header = Header::new(data_layout::<E>(), len);
        // SAFETY: zeroes are an array of zeroes; see `alloc`.
        unsafe { Gc::from_address(self.allocate_array(header, array_bytes(len, size_of::<E>()))) }
    }

    /// Allocates an array of `len` tagged words of value 0.
    ///
    /// # Panics
    /// If more is allocated than was reserved (and the chunk has no room beyond that by chance).
    #[inline(always)]
    pub fn alloc_tagged<R: WordRule>(&self, len: usize) -> Gc<'a, TaggedArray<R>> {
        let header = Header::new(self.scope.tagged_layout::<R>(), len);
        // SAFETY: zeroes are an array of words of value 0, which no rule takes for a reference; see `alloc`.
        unsafe { Gc::from_address(self.allocate_array(header, array_bytes(len, WORD))) }
    }

    /// Memory for an object without a reservation: `None` when the thread's chunk has no room left. An
    /// interpreter allocates this way for as long as it works, with all its registers in hand, and reserves
    /// anew when it gets nothing.
    #[inline(always)]
    pub(crate) fn try_allocate(&self, header: Header, bytes: usize) -> Option<u64> {
        // SAFETY: as in `Scope::local`.
        if unsafe { &*self.local }.stress_left != 0 {
            self.promised.set(stress_allows(self.scope, self.promised.get(), bytes)?);
        }
        let address = match self.bump(bytes) {
            Some(address) => address,
            None => self.extended(try_next_page(self.scope, header.layout(), bytes)?),
        };
        // SAFETY: as in `Scope::allocate`.
        unsafe { (address as *mut u64).write(header.0) };
        Some(address as u64)
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
        let layout = match T::cell().get(self.serial) {
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
        if len == 0 {
            // SAFETY: fresh memory; an empty array has one word too.
            unsafe { clear(address, 0) };
        }
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
        let payload = len.checked_mul(size_of::<E>())?;
        let address = self.try_allocate(header, object_bytes(payload))?;
        // SAFETY: fresh memory, and zeroes are an array of zeroes; see `alloc`.
        Some(unsafe {
            clear(address, payload);
            Gc::from_address(address)
        })
    }
}

#[cold]
#[inline(never)]
fn next_page(scope: &Scope<'_>, layout: LayoutId, bytes: usize) -> usize {
    try_next_page(scope, layout, bytes).expect("more was allocated than had been reserved")
}

#[cold]
#[inline(never)]
fn try_next_page(scope: &Scope<'_>, layout: LayoutId, bytes: usize) -> Option<usize> {
    let space = &scope.heap().core().space;
    scope.local().tlab.extend(space.records(), layout, bytes, space.geometry.page)
}

/// The option `stress-every`: what was reserved (`promised` bytes are left of it) is given; beyond that each
/// allocation counts, and the one whose turn it is gets nothing, so that the next reservation collects. Returns
/// what is left of the reservation, if `bytes` may be allocated.
#[cold]
#[inline(never)]
fn stress_allows(scope: &Scope<'_>, promised: usize, bytes: usize) -> Option<usize> {
    if bytes <= promised {
        return Some(promised - bytes);
    }
    let left = &mut scope.local().stress_left;
    if *left > 1 {
        *left -= 1;
        return Some(promised);
    }
    None
}
