//! Arrays: of references, of tagged words, of plain data; and [`Object`], all that a reference can lead to.

use crate::elements;
use crate::field::store_word;
use crate::scope::Scope;
use crate::{Gc, Tagged, Trace, Value, WordRule};
use firn_heap::layout::{Header, LayoutId};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

pub(crate) mod sealed {
    pub trait Sealed {}
}
use sealed::Sealed;

/// Whatever a [`Gc`] can refer to: [`Trace`] structs and the array types. Sealed.
///
/// ```
/// # use firn::*;
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// fn identity<T: Object + ?Sized>(gc: Gc<'_, T>) -> usize {
///     gc.address_now()
/// }
/// let bytes = cx.alloc_data::<u8>(3)?;
/// let table = cx.alloc_refs::<DataArray<u8>>(3)?;
/// assert_ne!(identity(bytes.get(cx)), identity(table.get(cx)));
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub trait Object: Sealed + 'static {
    /// The layout id in the scope's heap.
    #[doc(hidden)]
    fn layout(scope: &Scope<'_>) -> LayoutId;
}

/// What a tagged word can be asked to be: types whose layout says which they are. (All reference arrays
/// share one layout, so what they refer to cannot be found out.)
///
/// ```
/// # use firn::*;
/// # struct Lisp;
/// # impl WordRule for Lisp {
/// #     const RULE: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 0b1, address: !7 };
/// # }
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// let text = cx.alloc_data::<u8>(3)?.get(cx);
/// let value = Value::<Lisp>::reference(text, 0).expect("tag 000 is a reference");
/// assert!(value.downcast::<DataArray<u8>>(cx).is_some());
/// assert!(value.downcast::<DataArray<u64>>(cx).is_none());
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub trait Downcast: Object {}

impl<T: Trace> Downcast for T {}
impl<R: WordRule> Downcast for TaggedArray<R> {}
// Data arrays of equal element size share a layout; any bits are a valid element.
impl<E: Plain> Downcast for DataArray<E> {}

impl<T: Trace> Sealed for T {}

impl<T: Trace> Object for T {
    #[inline(always)]
    fn layout(scope: &Scope<'_>) -> LayoutId {
        scope.layout_of::<T>()
    }
}

/// An array of references, each possibly null.
///
/// ```
/// # use firn::*;
/// # #[derive(Trace)]
/// # struct Node { key: u64, next: Field<Node> }
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// let table = cx.alloc_refs::<Node>(16)?;
/// let node = cx.alloc(Node { key: 3, next: Field::null() })?;
/// let table = table.get(cx);
/// table.store(cx, 5, Some(node.get(cx)));
/// assert!(table.load(cx, 4).is_none());
/// assert_eq!(table.load(cx, 5).expect("stored above").key, 3);
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct RefArray<T: ?Sized>(PhantomData<fn() -> *const T>);
/// An array of tagged words.
///
/// ```
/// # use firn::*;
/// # struct Lisp;
/// # impl WordRule for Lisp {
/// #     const RULE: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 0b1, address: !7 };
/// # }
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// let stack = cx.alloc_tagged::<Lisp>(8)?.get(cx);
/// let one = Value::immediate(1 << 3 | 1).expect("the tag is no reference's");
/// stack.store(cx, 0, one);
/// assert_eq!(stack.load(cx, 0).bits(), 9);
/// assert_eq!(stack.load(cx, 1).bits(), 0);
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct TaggedArray<R>(PhantomData<fn() -> R>);
/// An array of plain data.
///
/// ```
/// # use firn::*;
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// let samples = cx.alloc_data::<f64>(4)?.get(cx);
/// samples.set(0, 1.5);
/// samples.copy_from(1, &[2.5, 3.5]);
/// let mut copy = [0.0; 4];
/// samples.copy_to(0, &mut copy);
/// assert_eq!(copy, [1.5, 2.5, 3.5, 0.0]);
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct DataArray<E>(PhantomData<fn() -> E>);

impl<T: ?Sized + 'static> Sealed for RefArray<T> {}
impl<R: WordRule> Sealed for TaggedArray<R> {}
impl<E: Plain> Sealed for DataArray<E> {}

impl<T: ?Sized + 'static> Object for RefArray<T> {
    #[inline(always)]
    fn layout(_scope: &Scope<'_>) -> LayoutId {
        LayoutId::REFS
    }
}

impl<R: WordRule> Object for TaggedArray<R> {
    #[inline(always)]
    fn layout(scope: &Scope<'_>) -> LayoutId {
        scope.tagged_layout::<R>()
    }
}

impl<E: Plain> Object for DataArray<E> {
    #[inline(always)]
    fn layout(_scope: &Scope<'_>) -> LayoutId {
        data_layout::<E>()
    }
}

/// The layout of data arrays of `E`.
#[inline(always)]
pub(crate) fn data_layout<E: Plain>() -> LayoutId {
    LayoutId::DATA[size_of::<E>().trailing_zeros() as usize]
}

impl<'m, T: crate::Object + ?Sized> Gc<'m, T> {
    /// Address of payload word `index`.
    #[inline(always)]
    pub(crate) fn word(self, index: usize) -> *const AtomicU64 {
        ((self.address() as usize) as *const AtomicU64).wrapping_add(1 + index)
    }
}

#[inline(always)]
fn check(index: usize, header: Header) {
    if index >= header.len() {
        out_of_bounds(index, header.len());
    }
}

#[cold]
#[inline(never)]
fn out_of_bounds(index: usize, len: usize) -> ! {
    panic!("index {index} is out of bounds of a heap array of {len}")
}

impl<'m, T: Object + ?Sized> Gc<'m, RefArray<T>> {
    /// Number of elements.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> usize {
        self.header().len()
    }

    /// Element `index`.
    ///
    /// # Panics
    /// If the index is out of bounds.
    #[inline(always)]
    pub fn load<'a>(self, _scope: &'a Scope<'_>, index: usize) -> Option<Gc<'a, T>> {
        check(index, self.header());
        // SAFETY: a slot of the array, which holds null or a `T`. Acquire: pairs with `store`.
        unsafe { Gc::from_nullable((*self.word(index)).load(Ordering::Acquire)) }
    }

    /// Replaces element `index`.
    ///
    /// # Panics
    /// If the index is out of bounds.
    #[inline(always)]
    pub fn store(self, scope: &Scope<'_>, index: usize, value: Option<Gc<'_, T>>) {
        check(index, self.header());
        // SAFETY: a slot of the array.
        let word = unsafe { &*self.word(index) };
        let new = value.map_or(0, Gc::address);
        store_word(word, scope, new, new, |old| old);
    }
}

impl<'m, R: WordRule> Gc<'m, TaggedArray<R>> {
    /// Number of elements.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> usize {
        self.header().len()
    }

    /// All elements at once: for loops over an array, and for an interpreter's code, which then look up its length
    /// once and not at each element.
    ///
    /// ```
    /// # use firn::*;
    /// # struct Lisp;
    /// # impl WordRule for Lisp {
    /// #     const RULE: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 0b1, address: !7 };
    /// # }
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let array = cx.alloc_tagged::<Lisp>(8)?.get(cx);
    /// assert_eq!(array.elements().iter().map(|word| word.load(cx).bits()).sum::<u64>(), 0);
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn elements(self) -> &'m [Tagged<R>] {
        // SAFETY: so many words follow the header, initialised since the array was allocated; they are only ever
        // accessed as atomic words, and the array stays where it is for as long as the reference is good.
        unsafe { std::slice::from_raw_parts(self.word(0).cast::<Tagged<R>>(), self.len()) }
    }

    #[inline(always)]
    fn element(self, index: usize) -> &'m Tagged<R> {
        check(index, self.header());
        // SAFETY: a tagged word of the array, which is only ever accessed as an atomic word.
        unsafe { &*self.word(index).cast::<Tagged<R>>() }
    }

    /// Element `index`.
    ///
    /// # Panics
    /// If the index is out of bounds.
    #[inline(always)]
    pub fn load<'a>(self, scope: &'a Scope<'_>, index: usize) -> Value<'a, R>
    where
        'm: 'a,
    {
        self.element(index).load(scope)
    }

    /// Replaces element `index`.
    ///
    /// # Panics
    /// If the index is out of bounds.
    #[inline(always)]
    pub fn store(self, scope: &Scope<'_>, index: usize, value: Value<'_, R>) {
        self.element(index).store(scope, value);
    }
}

/// Element types of data arrays.
///
/// ```
/// # use firn::*;
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// fn fill<E: Plain>(array: Gc<'_, DataArray<E>>, value: E) {
///     (0..array.len()).for_each(|index| array.set(index, value));
/// }
/// let numbers = cx.alloc_data::<u32>(10)?.get(cx);
/// fill(numbers, 7);
/// assert_eq!(numbers.get(9), 7);
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # Safety
/// Any bit pattern must be a valid value, and the size 1, 2, 4 or 8 bytes; `load` and `store` must be single
/// atomic accesses.
pub unsafe trait Plain: Copy + Send + Sync + 'static {
    /// Reads an element.
    ///
    /// # Safety
    /// `at` must be an aligned element of a live array.
    unsafe fn load(at: *const Self) -> Self;
    /// Writes an element.
    ///
    /// # Safety
    /// As `load`.
    unsafe fn store(at: *mut Self, value: Self);
}

macro_rules! plain {
    ($($type:ty, $atomic:ty, $to:expr, $from:expr;)*) => {
        $(
            // SAFETY: numbers; one relaxed atomic access of the same size.
            unsafe impl Plain for $type {
                #[inline(always)]
                unsafe fn load(at: *const Self) -> Self {
                    // SAFETY: the caller's promise. Relaxed: data carries no order.
                    $from(unsafe { &*at.cast::<$atomic>() }.load(Ordering::Relaxed))
                }
                #[inline(always)]
                unsafe fn store(at: *mut Self, value: Self) {
                    // SAFETY: as above.
                    unsafe { &*at.cast::<$atomic>() }.store($to(value), Ordering::Relaxed);
                }
            }
        )*
    };
}

plain! {
    u8, AtomicU8, |v| v, |v| v;
    i8, AtomicU8, |v| v as u8, |v| v as i8;
    u16, AtomicU16, |v| v, |v| v;
    i16, AtomicU16, |v| v as u16, |v| v as i16;
    u32, AtomicU32, |v| v, |v| v;
    i32, AtomicU32, |v| v as u32, |v| v as i32;
    f32, AtomicU32, f32::to_bits, f32::from_bits;
    u64, AtomicU64, |v| v, |v| v;
    i64, AtomicU64, |v| v as u64, |v| v as i64;
    f64, AtomicU64, f64::to_bits, f64::from_bits;
}

impl<'m, E: Plain> Gc<'m, DataArray<E>> {
    /// Number of elements.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> usize {
        self.header().len()
    }

    #[inline(always)]
    fn at(self, index: usize) -> *mut E {
        (self.word(0) as *mut E).wrapping_add(index)
    }

    /// Element `index`.
    ///
    /// # Panics
    /// If the index is out of bounds.
    #[inline(always)]
    pub fn get(self, index: usize) -> E {
        check(index, self.header());
        // SAFETY: an element of the array.
        unsafe { E::load(self.at(index)) }
    }

    /// Replaces element `index`.
    ///
    /// # Panics
    /// If the index is out of bounds.
    #[inline(always)]
    pub fn set(self, index: usize, value: E) {
        check(index, self.header());
        // SAFETY: an element of the array.
        unsafe { E::store(self.at(index), value) };
    }

    /// Where the run of `len` elements from `first` on begins.
    #[inline]
    fn run(self, first: usize, len: usize) -> *mut E {
        assert!(
            first <= self.len() && len <= self.len() - first,
            "{len} elements from {first} on are out of bounds of a heap array of {}",
            self.len()
        );
        self.at(first)
    }

    /// Copies elements from `from` on out to `to`: the way to hand heap data to a system call, which would
    /// get `EFAULT` for a page that is not built yet.
    ///
    /// # Panics
    /// If the range is out of bounds.
    pub fn copy_to(self, from: usize, to: &mut [E]) {
        // SAFETY: elements of the array; the slice is the caller's.
        unsafe { elements::copy(self.run(from, to.len()), to.as_mut_ptr(), to.len()) };
    }

    /// Copies `from` into the elements from `to` on.
    ///
    /// # Panics
    /// If the range is out of bounds.
    pub fn copy_from(self, to: usize, from: &[E]) {
        // SAFETY: as above; the slice is only read, and no heap array lies in it.
        unsafe { elements::copy(from.as_ptr(), self.run(to, from.len()), from.len()) };
    }

    /// Copies the elements in `range` of another array, or of this one, to those from `to` on. The two may overlap.
    ///
    /// ```
    /// # use firn::*;
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let text = cx.alloc_data::<u8>(8)?.get(cx);
    /// text.copy_from(0, b"snowfall");
    /// text.copy_array(2, text, 0..4);
    /// let mut copy = [0; 8];
    /// text.copy_to(0, &mut copy);
    /// assert_eq!(&copy, b"snsnowll");
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If a range is out of bounds.
    pub fn copy_array(self, to: usize, from: Gc<'_, DataArray<E>>, range: Range<usize>) {
        let len = range.len();
        // SAFETY: elements of the arrays.
        unsafe { elements::copy(from.run(range.start, len), self.run(to, len), len) };
    }

    /// Makes all elements in `range` the same.
    ///
    /// ```
    /// # use firn::*;
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let samples = cx.alloc_data::<f64>(1000)?.get(cx);
    /// samples.fill(10..1000, 1.5);
    /// assert_eq!((samples.get(9), samples.get(10), samples.get(999)), (0.0, 1.5, 1.5));
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If the range is out of bounds.
    pub fn fill(self, range: Range<usize>, value: E) {
        // SAFETY: elements of the array.
        unsafe { elements::fill(self.run(range.start, range.len()), range.len(), value) };
    }

    /// Compares two arrays as slices are compared.
    ///
    /// ```
    /// # use firn::*;
    /// # use std::cmp::Ordering;
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let (a, b) = (cx.alloc_data::<u8>(3)?, cx.alloc_data::<u8>(4)?);
    /// let (a, b) = (a.get(cx), b.get(cx));
    /// assert_eq!(a.compare(b), Ordering::Less);
    /// a.set(2, 1);
    /// assert_eq!(a.compare(b), Ordering::Greater);
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn compare(self, other: Gc<'_, DataArray<E>>) -> std::cmp::Ordering
    where
        E: Ord,
    {
        let both = self.len().min(other.len());
        // SAFETY: elements of the arrays.
        let pair = |index| unsafe { (E::load(self.at(index)), E::load(other.at(index))) };
        let order = (0..both).map(pair).find_map(|(a, b)| (a != b).then(|| a.cmp(&b)));
        order.unwrap_or_else(|| self.len().cmp(&other.len()))
    }
}
