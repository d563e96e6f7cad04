//! [`Root`]: a reference that is independent of scopes and threads.

use crate::scope::Scope;
use crate::{Gc, Heap, Object};
use std::marker::PhantomData;

/// A long-lived root: keeps its object alive until dropped. Can be sent to other threads of the same heap.
///
/// ```
/// # use firn::*;
/// #[derive(Trace)]
/// struct Config { level: u64 }
/// let heap = Heap::new(&Options::default())?;
/// let root = heap.attach(|cx| {
///     let config = cx.alloc(Config { level: 3 })?;
///     Ok::<_, OutOfMemory>(cx.global(config.get(cx)))
/// })?;
/// heap.collect();
/// heap.attach(|cx| assert_eq!(root.get(cx).level, 3));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Root<T: Object + ?Sized> {
    heap: Heap,
    place: usize,
    object: PhantomData<fn() -> *const T>,
}

impl<T: Object + ?Sized> Root<T> {
    pub(crate) fn new(heap: &Heap, gc: Gc<'_, T>) -> Root<T> {
        let place = heap.core().add_root(gc.address());
        Root { heap: heap.clone(), place, object: PhantomData }
    }

    fn check(&self, scope: &Scope<'_>) {
        assert!(self.heap == *scope.heap(), "a root was used with another heap than its own");
    }

    /// The object, until the next safepoint.
    ///
    /// # Panics
    /// If the scope belongs to another heap.
    pub fn get<'m>(&self, scope: &'m Scope<'_>) -> Gc<'m, T> {
        self.check(scope);
        // SAFETY: the collector keeps the address of a `T` of this heap; no pause can happen while the
        // scope is borrowed.
        unsafe { Gc::from_address(self.heap.core().root(self.place)) }
    }

    /// Makes it refer to another object.
    ///
    /// ```
    /// # use firn::*;
    /// # #[derive(Trace)]
    /// # struct Node { key: u64, next: Field<Node> }
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let first = cx.alloc(Node { key: 1, next: Field::null() })?;
    /// let second = cx.alloc(Node { key: 2, next: Field::null() })?;
    /// let root = cx.global(first.get(cx));
    /// root.set(cx, second.get(cx));
    /// assert_eq!(root.get(cx).key, 2);
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If the scope belongs to another heap.
    pub fn set(&self, scope: &Scope<'_>, gc: Gc<'_, T>) {
        self.check(scope);
        self.heap.core().set_root(self.place, gc.address());
    }
}

impl<T: Object + ?Sized> Drop for Root<T> {
    fn drop(&mut self) {
        self.heap.core().remove_root(self.place);
    }
}
