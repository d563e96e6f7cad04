//! Guardians: objects that are registered with one come out of it, alive again, once nothing else keeps them.
//!
//! This is what finalization is made of here. No code runs in the collector or on a thread of its own: the program
//! asks a [`Guardian`] when it likes, and gets an object that it can use, close, drop, or register again. A guardian
//! is a heap object. One that dies forgets what it watches; what it watches dies with it, if nothing else keeps that.
//!
//! An object comes out once for each time it was registered, after a collection that began when nothing held it any more
//! but guardians and weak references. It counts as live until then, with all that it refers to: weak references
//! to it are not broken before it has come out and been dropped.

use crate::array::sealed::Sealed;
use crate::heap::TaggedKind;
use crate::reference::object_bytes;
use crate::scope::Scope;
use crate::weak::{fill, word};
use crate::{Downcast, Gc, Local, NoGc, Object, OutOfMemory, Value, WordRule};
use firn_heap::WORD;
use firn_heap::layout::guarded::{GUARDIAN_WORDS, NEXT, OBJECT, READY, WAITING, WORDS};
use firn_heap::layout::{Header, LayoutId};
use std::marker::PhantomData;
use std::sync::atomic::Ordering;

/// A queue of objects that nothing else keeps.
///
/// ```
/// # use firn::*;
/// #[derive(Trace)]
/// struct Port { descriptor: i32 }
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// let lost = cx.alloc_guardian::<Port>()?;
/// cx.scope(|cx| {
///     let port = cx.alloc(Port { descriptor: 3 })?;
///     cx.guard(lost, port)
/// })?;
/// cx.collect();
/// while let Some(port) = lost.get(cx).poll(cx) {
///     assert_eq!(port.descriptor, 3); // to be closed
/// }
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Guardian<T: ?Sized>(PhantomData<fn() -> *const T>);

/// A guardian of what tagged words refer to. Immediates are never given out.
///
/// ```
/// # use firn::*;
/// # struct Lisp;
/// # impl WordRule for Lisp {
/// #     const RULE: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 0b1, address: !7 };
/// # }
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// let nogc = cx.reserve(NoGc::GUARDIAN + NoGc::GUARDED + NoGc::size_of_data::<u8>(1))?;
/// let guardian = nogc.try_alloc_tagged_guardian::<Lisp>().expect("reserved");
/// let value = Value::reference(nogc.alloc_data::<u8>(1), 0).expect("tag 000 is a reference");
/// guardian.try_register(&nogc, value).expect("reserved");
/// assert!(guardian.poll(&nogc).is_none(), "not before a collection");
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct TaggedGuardian<R>(PhantomData<fn() -> R>);

impl<T: ?Sized + 'static> Sealed for Guardian<T> {}
impl<R: WordRule> Sealed for TaggedGuardian<R> {}

impl<T: ?Sized + 'static> Object for Guardian<T> {
    #[inline(always)]
    fn layout(_scope: &Scope<'_>) -> LayoutId {
        LayoutId::GUARDIAN
    }
}

impl<R: WordRule> Object for TaggedGuardian<R> {
    #[inline(always)]
    fn layout(scope: &Scope<'_>) -> LayoutId {
        TaggedKind::Guardian.of(scope.tagged_layout::<R>())
    }
}

impl<R: WordRule> Downcast for TaggedGuardian<R> {}

/// The words of a guardian whose lists are empty.
const EMPTY: [u64; GUARDIAN_WORDS - 1] = [0; GUARDIAN_WORDS - 1];

/// Completes the fresh note at `note` and puts it in front of those that wait.
fn wait<T: Object + ?Sized>(scope: &Scope<'_>, guardian: Gc<'_, T>, note: u64, object: u64) {
    let waiting = word(guardian, WAITING);
    let mut first = waiting.load(Ordering::Relaxed);
    loop {
        // SAFETY: fresh, with these words: the object, the next note, the guardian, the collector's link.
        unsafe { fill(note, [object, first, guardian.address(), 0]) };
        // Release: pairs with the acquires of the collector. A failure says that another thread, or the collector,
        // has been faster.
        match waiting.compare_exchange(first, note, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => break,
            Err(now) => first = now,
        }
    }
    // The note is new and not visited in this cycle: what it took over is logged, as any overwritten reference.
    if scope.marking() && first != 0 {
        scope.log_overwritten(first);
    }
}

/// Takes the object of a note that is ready.
fn take<T: Object + ?Sized>(scope: &Scope<'_>, guardian: Gc<'_, T>) -> Option<u64> {
    let ready = word(guardian, READY);
    // Acquire: pairs with the release of the collector, which made the note ready, here and below.
    let mut first = ready.load(Ordering::Acquire);
    loop {
        if first == 0 {
            return None;
        }
        // SAFETY: the list has notes only; they stay where they are until this thread's next safepoint.
        let note: Gc<'_, crate::RefArray<()>> = unsafe { Gc::from_address(first) };
        // Once it is in this list the collector does not change the note; it never comes back to it: no ABA.
        let next = word(note, NEXT).load(Ordering::Acquire);
        match ready.compare_exchange(first, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                if scope.marking() {
                    scope.log_overwritten(first);
                }
                return Some(word(note, OBJECT).load(Ordering::Acquire));
            }
            Err(now) => first = now,
        }
    }
}

impl<'m, T: Object + ?Sized> Gc<'m, Guardian<T>> {
    /// Registers an object: it will come out when nothing else keeps it. Takes [`NoGc::GUARDED`] bytes.
    ///
    /// # Panics
    /// As [`NoGc::alloc`].
    pub fn register(self, nogc: &NoGc<'_, '_>, object: Gc<'_, T>) {
        nogc.check_target(object.address());
        let note = nogc.allocate(Header::new(LayoutId::GUARDED, 0), NoGc::GUARDED);
        wait(nogc, self, note, object.address());
    }

    /// An object that nothing else kept, if there is one; each once for each time it was registered. In no
    /// particular order.
    pub fn poll<'a>(self, scope: &'a Scope<'_>) -> Option<Gc<'a, T>> {
        // SAFETY: a note of this guardian watches a `T`, which a ready one has kept.
        take(scope, self).map(|address| unsafe { Gc::from_address(address) })
    }
}

impl<'m, R: WordRule> Gc<'m, TaggedGuardian<R>> {
    /// Registers what a word refers to, if there is room for that without collecting, as [`NoGc::try_alloc_with`]
    /// has it. Takes [`NoGc::GUARDED`] bytes. An immediate is ignored.
    pub fn try_register(self, nogc: &NoGc<'_, '_>, value: Value<'_, R>) -> Option<()> {
        if value.is_reference() {
            nogc.check_value::<R>(value.bits());
            let layout = TaggedKind::Guarded.of(nogc.tagged_layout::<R>());
            let note = nogc.try_allocate(Header::new(layout, 0), NoGc::GUARDED)?;
            wait(nogc, self, note, value.bits());
        }
        Some(())
    }

    /// A word that refers to something nothing else kept, if there is one: as it was registered, with its tag.
    pub fn poll<'a>(self, scope: &'a Scope<'_>) -> Option<Value<'a, R>> {
        take(scope, self).map(Value::from_bits)
    }
}

impl<'s> Scope<'s> {
    /// Allocates a guardian. May collect. See [`Guardian`].
    ///
    /// # Errors
    /// As [`Scope::alloc`].
    pub fn alloc_guardian<T: Object + ?Sized>(
        &mut self,
    ) -> Result<Local<'s, Guardian<T>>, OutOfMemory> {
        let address = self.allocate(Header::new(LayoutId::GUARDIAN, 0), NoGc::GUARDIAN)?;
        // SAFETY: fresh, with these words: two empty lists.
        unsafe { fill(address, EMPTY) };
        Ok(self.handle(address))
    }

    /// Registers an object with a guardian. May collect. See [`Guardian`].
    ///
    /// # Errors
    /// As [`Scope::alloc`].
    pub fn guard<T: Object + ?Sized>(
        &mut self,
        guardian: Local<'_, Guardian<T>>,
        object: Local<'_, T>,
    ) -> Result<(), OutOfMemory> {
        let nogc = self.reserve(NoGc::GUARDED)?;
        guardian.get(&nogc).register(&nogc, object.get(&nogc));
        Ok(())
    }
}

impl NoGc<'_, '_> {
    /// Bytes to reserve for a guardian.
    pub const GUARDIAN: usize = object_bytes((GUARDIAN_WORDS - 1) * WORD);
    /// Bytes to reserve for registering an object with a guardian.
    pub const GUARDED: usize = object_bytes((WORDS - 1) * WORD);
}

impl<'a> NoGc<'a, '_> {
    /// Allocates a guardian.
    ///
    /// # Panics
    /// As [`NoGc::alloc`].
    pub fn alloc_guardian<T: Object + ?Sized>(&self) -> Gc<'a, Guardian<T>> {
        let address = self.allocate(Header::new(LayoutId::GUARDIAN, 0), NoGc::GUARDIAN);
        // SAFETY: fresh, with these words: two empty lists; complete; see `alloc`.
        unsafe {
            fill(address, EMPTY);
            Gc::from_address(address)
        }
    }

    /// Allocates a guardian of tagged words, if there is room without collecting: see [`NoGc::try_alloc_with`].
    pub fn try_alloc_tagged_guardian<R: WordRule>(&self) -> Option<Gc<'a, TaggedGuardian<R>>> {
        let layout = TaggedKind::Guardian.of(self.tagged_layout::<R>());
        let address = self.try_allocate(Header::new(layout, 0), NoGc::GUARDIAN)?;
        // SAFETY: fresh, with these words: two empty lists; complete; see `alloc`.
        Some(unsafe {
            fill(address, EMPTY);
            Gc::from_address(address)
        })
    }
}
