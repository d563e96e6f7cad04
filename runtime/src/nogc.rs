//! [`NoGc`]: allocating in a stretch that cannot collect.
//!
//! [`Scope::reserve`] may collect once and sets memory aside; what it returns allocates without collecting
//! or failing, so that the [`Gc`]s it hands out stay valid beside each other. The fastest way to allocate.

use crate::array::data_layout;
use crate::reference::object_bytes;
use crate::scope::Scope;
use crate::{DataArray, Gc, Object, Plain, RefArray, TaggedArray, Trace, WordRule};
use firn_gc::mutator::MutatorLocal;
use firn_heap::WORD;
use firn_heap::layout::{Header, LayoutId};
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

impl<'a> NoGc<'a, '_> {
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
}
