//! References: [`Gc`] within a stretch without collection, [`Local`] and [`Var`] across collections.
//!
//! An object changes address only at a safepoint, and a safepoint needs an exclusive borrow of the
//! [`Scope`]. So a [`Gc`], which borrows the scope shared, is a plain address that cannot survive a
//! collection; a [`Local`] is the place of an address that the collector keeps up to date, and lives as long
//! as its scope. Functions that may collect take and return `Local`s; functions that cannot take and return
//! `Gc`s.

use crate::scope::Scope;
use crate::{Extends, Object, Trace};
use firn_heap::WORD;
use firn_heap::layout::Header;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

/// A reference to a heap object, valid until the next safepoint. One word, `Copy`.
///
/// ```
/// use firn::{Heap, Options, Trace};
/// #[derive(Trace)]
/// struct Point { x: u64, y: u64 }
/// let heap = Heap::new(&Options::default())?;
/// heap.attach(|cx| {
///     let point = cx.alloc(Point { x: 1, y: 2 })?;
///     let gc = point.get(cx);
///     assert_eq!(gc.x + gc.y, 3);
///     Ok::<_, firn::OutOfMemory>(())
/// })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[repr(transparent)]
pub struct Gc<'m, T: Object + ?Sized> {
    object: NonNull<u64>,
    scope: PhantomData<&'m T>,
    /// Not `Send`: another thread's safepoints are its own.
    thread: PhantomData<*const ()>,
}

impl<T: Object + ?Sized> Clone for Gc<'_, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Object + ?Sized> Copy for Gc<'_, T> {}

impl<'m, T: Object + ?Sized> Gc<'m, T> {
    /// # Safety
    /// `address` must be a `T`'s in this thread's heap, and stay so for `'m`.
    #[inline(always)]
    pub(crate) unsafe fn from_address(address: u64) -> Gc<'m, T> {
        Gc {
            // SAFETY: an object's address is not null.
            object: unsafe { NonNull::new_unchecked(address as *mut u64) },
            scope: PhantomData,
            thread: PhantomData,
        }
    }

    /// # Safety
    /// As [`Gc::from_address`], unless `address` is 0.
    #[inline(always)]
    pub(crate) unsafe fn from_nullable(address: u64) -> Option<Gc<'m, T>> {
        // SAFETY: the caller's promise.
        (address != 0).then(|| unsafe { Gc::from_address(address) })
    }

    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.object.as_ptr() as u64
    }

    #[inline(always)]
    pub(crate) fn header(self) -> Header {
        // SAFETY: the object's first word; it never changes.
        Header(unsafe { self.object.as_ptr().read() })
    }

    /// The object's address now: an identity until the next safepoint, for hashing and printing.
    ///
    /// ```
    /// # use firn::*;
    /// # #[derive(Trace)]
    /// # struct Node { key: u64, next: Field<Node> }
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let node = cx.alloc(Node { key: 1, next: Field::null() })?;
    /// let mut seen = std::collections::HashSet::new();
    /// assert!(seen.insert(node.get(cx).address_now())); // good until `cx` is borrowed exclusively
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn address_now(self) -> usize {
        self.address() as usize
    }

    /// Whether two references lead to the same object.
    ///
    /// ```
    /// # use firn::*;
    /// # #[derive(Trace)]
    /// # struct Node { key: u64, next: Field<Node> }
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let node = cx.alloc(Node { key: 1, next: Field::null() })?;
    /// let twin = cx.alloc(Node { key: 1, next: Field::null() })?;
    /// assert!(Gc::ptr_eq(node.get(cx), node.get(cx)));
    /// assert!(!Gc::ptr_eq(node.get(cx), twin.get(cx)));
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn ptr_eq(a: Self, b: Self) -> bool {
        a.object == b.object
    }
}

impl<'m, T: Trace> Gc<'m, T> {
    /// The same object as one of the type that it begins with.
    ///
    /// ```
    /// # use firn::*;
    /// #[derive(Trace)]
    /// struct Shape { id: u64 }
    /// #[derive(Trace)]
    /// #[trace(extends)]
    /// #[repr(C)]
    /// struct Circle { shape: Shape, radius: f64 }
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let circle = cx.alloc(Circle { shape: Shape { id: 4 }, radius: 1.0 })?.get(cx);
    /// assert_eq!(circle.upcast::<Shape>().id, 4);
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn upcast<B: Trace>(self) -> Gc<'m, B>
    where
        T: Extends<B>,
    {
        // SAFETY: a `B` lies behind the header; whoever needs size or slots takes them from the
        // header's layout, which remains `T`'s.
        unsafe { Gc::from_address(self.address()) }
    }
}

impl<T: Trace> Deref for Gc<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the object is a `T` behind its header, and the shared borrow of the scope keeps it
        // where it is. Heap objects are only ever borrowed shared.
        unsafe { &*(self.object.as_ptr().add(1) as *const T) }
    }
}

impl<T: Object + ?Sized> std::fmt::Debug for Gc<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gc({:#x})", self.address())
    }
}

/// A rooted reference that lives as long as its scope and follows its object. `Copy`.
///
/// ```
/// # use firn::*;
/// # #[derive(Trace)]
/// # struct Node { key: u64, next: Field<Node> }
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// let node = cx.alloc(Node { key: 1, next: Field::null() })?; // a `Local`
/// cx.collect(); // moves the node
/// assert_eq!(node.get(cx).key, 1); // the `Local` knows where to
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Local<'s, T: Object + ?Sized> {
    place: *mut u64,
    scope: PhantomData<fn(&'s ()) -> &'s ()>,
    object: PhantomData<*const T>,
}

impl<T: Object + ?Sized> Clone for Local<'_, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Object + ?Sized> Copy for Local<'_, T> {}

impl<'s, T: Object + ?Sized> Local<'s, T> {
    #[inline(always)]
    pub(crate) fn new(place: *mut u64) -> Local<'s, T> {
        Local { place, scope: PhantomData, object: PhantomData }
    }

    /// The object, until the next safepoint.
    #[inline(always)]
    pub fn get<'m>(self, _scope: &'m Scope<'_>) -> Gc<'m, T> {
        // SAFETY: the place belongs to a scope that is still open ('s outlives this call), on this
        // thread (`Local` is not `Send`); the collector keeps a `T`'s address in it.
        unsafe { Gc::from_address(self.place.read()) }
    }
}

/// A rooted variable: null or a reference, assignable, as long-lived as its scope.
///
/// ```
/// # use firn::*;
/// # #[derive(Trace)]
/// # struct Node { key: u64, next: Field<Node> }
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// let last = cx.var::<Node>();
/// assert!(last.get(cx).is_none());
/// for key in 0..3 {
///     let nogc = cx.reserve(NoGc::size_of::<Node>())?;
///     last.set(&nogc, Some(nogc.alloc(Node { key, next: Field::null() })));
/// }
/// cx.collect();
/// assert_eq!(last.get(cx).expect("set above").key, 2);
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Var<'s, T: Object + ?Sized> {
    place: *mut u64,
    scope: PhantomData<fn(&'s ()) -> &'s ()>,
    object: PhantomData<*const T>,
}

impl<T: Object + ?Sized> Clone for Var<'_, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Object + ?Sized> Copy for Var<'_, T> {}

impl<'s, T: Object + ?Sized> Var<'s, T> {
    #[inline(always)]
    pub(crate) fn new(place: *mut u64) -> Var<'s, T> {
        Var { place, scope: PhantomData, object: PhantomData }
    }

    /// What it holds, until the next safepoint.
    #[inline(always)]
    pub fn get<'m>(self, _scope: &'m Scope<'_>) -> Option<Gc<'m, T>> {
        // SAFETY: as in `Local::get`; 0 is null.
        unsafe { Gc::from_nullable(self.place.read()) }
    }

    /// Replaces what it holds.
    #[inline(always)]
    pub fn set(self, _scope: &Scope<'_>, value: Option<Gc<'_, T>>) {
        // SAFETY: the place is this thread's and in use as long as 's.
        unsafe { self.place.write(value.map_or(0, Gc::address)) };
    }
}

/// Bytes of an object with a payload of `payload` bytes, header included. More than there can be for a payload that no
/// object can have: what does not fit must not come out small.
#[inline(always)]
pub(crate) const fn object_bytes(payload: usize) -> usize {
    let words = 1 + payload.div_ceil(WORD);
    if words < 2 { 2 * WORD } else { words.saturating_mul(WORD) }
}

/// Bytes of `len` elements of `size` bytes; as [`object_bytes`].
#[inline(always)]
pub(crate) const fn array_bytes(len: usize, size: usize) -> usize {
    len.saturating_mul(size)
}

/// Zeroes a fresh array of `payload` bytes at `address`: all that follows its header, for an empty array too has a
/// word there, which the collector takes for an element.
///
/// # Safety
/// The memory must be the calling thread's own and nobody else's yet, [`object_bytes`] of it.
#[inline(always)]
pub(crate) unsafe fn clear(address: u64, payload: usize) {
    // SAFETY: by the contract.
    unsafe { (address as *mut u8).add(WORD).write_bytes(0, object_bytes(payload) - WORD) };
}
