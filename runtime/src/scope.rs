//! A thread's access to the heap: [`Scope`].
//!
//! **The rule.** A shared borrow of the scope cannot collect; an exclusive one may. Everything that
//! allocates, polls or blocks therefore takes `&mut Scope` and invalidates all [`Gc`]s, by the borrow checker.
//!
//! **Scopes nest** by closures, never by guards: a leaked guard could not close its scope. Each closure gets a
//! scope of a fresh, invariant lifetime, so that its `Local`s cannot leave it and scopes cannot be swapped.

use crate::array::data_layout;
use crate::heap::{Heap, OutOfMemory};
use crate::nogc::NoGc;
use crate::reference::{clear, object_bytes};
use crate::root::Root;
use crate::{DataArray, Gc, Local, Object, Plain, RefArray, TaggedArray, Trace, Var, WordRule};
use firn_gc::events::{Cause, CycleSummary};
use firn_gc::mutator::{Mutator, MutatorLocal};
use firn_gc::safepoint::Slot;
use firn_heap::WORD;
use firn_heap::layout::{Header, LayoutId};
use std::any::TypeId;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A mutator's access to its heap. See the module's essay for what its borrows mean.
///
/// ```
/// # use firn::*;
/// #[derive(Trace)]
/// struct Node { key: u64, next: Field<Node> }
/// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
/// # heap.attach(|cx| {
/// fn sum(cx: &Scope<'_>, list: Option<Gc<'_, Node>>) -> u64 {
///     // Shared: cannot collect, so `Gc`s stay good.
///     let (mut sum, mut at) = (0, list);
///     while let Some(node) = at {
///         sum += node.key;
///         at = node.next.load(cx);
///     }
///     sum
/// }
/// fn push<'s>(cx: &mut Scope<'s>, list: Local<'s, Node>, key: u64) -> Result<Local<'s, Node>, OutOfMemory> {
///     // Exclusive: may collect, so it takes and returns `Local`s.
///     let node = cx.alloc(Node { key, next: Field::null() })?;
///     node.get(cx).next.store(cx, Some(list.get(cx)));
///     Ok(node)
/// }
/// let list = cx.alloc(Node { key: 1, next: Field::null() })?;
/// let list = push(cx, list, 2)?;
/// assert_eq!(sum(cx, Some(list.get(cx))), 3);
/// # Ok::<_, OutOfMemory>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Scope<'s> {
    heap: *const Heap,
    slot: *const Arc<Slot<Mutator>>,
    local: *mut MutatorLocal,
    /// The word rule whose arrays were allocated last, and their layout.
    tagged: Cell<Option<(TypeId, LayoutId)>>,
    /// Invariant in 's, neither `Send` nor `Sync`.
    brand: PhantomData<*mut &'s ()>,
}

impl<'s> Scope<'s> {
    /// # Safety
    /// `heap` and `slot` must outlive 's, the slot being the calling thread's own.
    pub(crate) unsafe fn new(heap: &Heap, slot: &Arc<Slot<Mutator>>) -> Scope<'s> {
        Scope {
            heap,
            slot,
            local: slot.mutator.local_ptr(),
            tagged: Cell::new(None),
            brand: PhantomData,
        }
    }

    /// The heap.
    #[inline(always)]
    pub fn heap(&self) -> &Heap {
        // SAFETY: outlives 's by the constructor's contract.
        unsafe { &*self.heap }
    }

    #[inline(always)]
    fn slot(&self) -> &Arc<Slot<Mutator>> {
        // SAFETY: as above.
        unsafe { &*self.slot }
    }

    /// The mutator's state.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) fn local(&self) -> &mut MutatorLocal {
        // SAFETY: this is the mutator's running thread, the reference is never kept across a call, and
        // `Scope` is neither `Send` nor `Sync`.
        unsafe { &mut *self.local }
    }

    #[inline(always)]
    pub(crate) fn marking(&self) -> bool {
        self.local().marking
    }

    /// Checks a store of the object at `value` (or null) to `word`: both must be this heap's. The second
    /// half closes a roundabout way: `&T` of one heap can be lent to a thread of another.
    ///
    /// # Panics
    /// If one of them is not.
    #[inline(always)]
    pub(crate) fn check_store(&self, word: &AtomicU64, value: u64) {
        let (base, len) = self.local().range;
        if (std::ptr::from_ref(word) as usize).wrapping_sub(base) >= len {
            outside();
        }
        if (value as usize).wrapping_sub(base) >= len && value != 0 {
            self.check_large(value);
        }
    }

    #[cold]
    #[inline(never)]
    fn check_large(&self, value: u64) {
        let large = &self.heap().core().space.large;
        assert!(
            large.contains(value as usize),
            "a reference was stored in another heap than its own"
        );
    }

    /// Checks a reference that is about to be written into an object of this heap: see [`Scope::check_store`].
    ///
    /// # Panics
    /// If it refers to an object of another heap.
    #[inline(always)]
    pub(crate) fn check_target(&self, address: u64) {
        let (base, len) = self.local().range;
        if (address as usize).wrapping_sub(base) >= len && address != 0 {
            self.check_large(address);
        }
    }

    /// Whether a weak read gives what it found: `target`, from an object whose key lies in the word `place`,
    /// read as `word` and refers to `key`.
    #[inline(always)]
    pub(crate) fn reads(&self, target: u64, (place, word, key): (&AtomicU64, u64, u64)) -> bool {
        !self.local().weak_reads
            || self.heap().core().read_weakly(&self.slot().mutator, target, (place, word, key))
    }

    pub(crate) fn log_overwritten(&self, old: u64) {
        self.heap().core().log_overwritten(&self.slot().mutator, old);
    }

    /// The layout id of `T` in this heap.
    #[inline(always)]
    pub(crate) fn layout_of<T: Trace>(&self) -> LayoutId {
        match T::cell().get(self.local().serial) {
            Some(id) => id,
            None => self.heap().register::<T>(),
        }
    }

    #[inline(always)]
    pub(crate) fn tagged_layout<R: WordRule>(&self) -> LayoutId {
        match self.tagged.get() {
            Some((rule, id)) if rule == TypeId::of::<R>() => id,
            _ => self.find_tagged_layout::<R>(),
        }
    }

    #[cold]
    #[inline(never)]
    fn find_tagged_layout<R: WordRule>(&self) -> LayoutId {
        let id = self.heap().register_tagged::<R>();
        self.tagged.set(Some((TypeId::of::<R>(), id)));
        id
    }

    /// Checks a word that is about to be written into an object of this heap.
    ///
    /// # Panics
    /// If it refers to an object of another heap: see [`Scope::check_store`].
    #[inline(always)]
    pub(crate) fn check_value<R: WordRule>(&self, bits: u64) {
        if !R::RULE.is_reference(bits) {
            return;
        }
        let (base, len) = self.local().range;
        let address = R::RULE.address_of(bits);
        if (address as usize).wrapping_sub(base) >= len {
            self.check_large(address);
        }
    }

    /// Allocates and writes the header; the caller writes the rest before anything else.
    #[inline(always)]
    pub(crate) fn allocate(&mut self, header: Header, bytes: usize) -> Result<u64, OutOfMemory> {
        if self.local().stress_left != 0 {
            self.stress();
        }
        let address = match self.local().tlab.bump(bytes) {
            Some(address) => address,
            None => self.allocate_slow(header.layout(), bytes)?,
        };
        // SAFETY: fresh memory of this thread. A plain store: whoever gets the reference gets it through
        // a release store, and collectors walk such memory only after a pause.
        unsafe { (address as *mut u64).write(header.0) };
        Ok(address as u64)
    }

    #[cold]
    #[inline(never)]
    fn allocate_slow(&mut self, layout: LayoutId, bytes: usize) -> Result<usize, OutOfMemory> {
        self.safepoint();
        let core = self.heap().core().clone();
        let slot = self.slot().clone();
        self.heap()
            .clone()
            .with_ladder(&slot, bytes, || core.allocate_slow(&slot.mutator, layout, bytes))
    }

    #[inline(always)]
    pub(crate) fn handle<T: Object + ?Sized>(&self, address: u64) -> Local<'s, T> {
        Local::new(self.local().handles.push(address))
    }

    /// Allocates a `T`. May collect.
    ///
    /// ```
    /// # use firn::*;
    /// # #[derive(Trace)]
    /// # struct Node { key: u64, next: Field<Node> }
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let node = cx.alloc(Node { key: 5, next: Field::null() })?;
    /// assert_eq!(node.get(cx).key, 5);
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`OutOfMemory`] when the heap is full of live objects; nothing is lost.
    #[inline(always)]
    pub fn alloc<T: Trace>(&mut self, value: T) -> Result<Local<'s, T>, OutOfMemory> {
        let header = Header::new(self.layout_of::<T>(), 0);
        let address = self.allocate(header, object_bytes(size_of::<T>()))?;
        // SAFETY: fresh memory of the right size and alignment behind the header. The value's fields are
        // empty (nothing else can be made outside the heap), so it holds no reference that the
        // allocation could have made stale.
        unsafe { (address as *mut u64).add(1).cast::<T>().write(value) };
        Ok(self.handle(address))
    }

    fn alloc_array<T: Object + ?Sized>(
        &mut self,
        layout: LayoutId,
        len: usize,
        payload: usize,
    ) -> Result<Local<'s, T>, OutOfMemory> {
        let address = self.allocate(Header::new(layout, len), object_bytes(payload))?;
        // SAFETY: fresh memory; zeroes are a valid element of every kind of array.
        unsafe { clear(address, payload) };
        Ok(self.handle(address))
    }

    /// Allocates an array of `len` null references. May collect.
    ///
    /// ```
    /// # use firn::*;
    /// # #[derive(Trace)]
    /// # struct Node { key: u64, next: Field<Node> }
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let table = cx.alloc_refs::<Node>(1000)?;
    /// assert!(table.get(cx).load(cx, 999).is_none());
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Scope::alloc`].
    pub fn alloc_refs<T: Object + ?Sized>(
        &mut self,
        len: usize,
    ) -> Result<Local<'s, RefArray<T>>, OutOfMemory> {
        let payload = self.payload(len, WORD)?;
        self.alloc_array(LayoutId::REFS, len, payload)
    }

    /// Allocates an array of `len` tagged words of value 0. May collect.
    ///
    /// ```
    /// # use firn::*;
    /// # struct Lisp;
    /// # impl WordRule for Lisp {
    /// #     const RULE: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 0b1, address: !7 };
    /// # }
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let frame = cx.alloc_tagged::<Lisp>(10)?;
    /// assert_eq!(frame.get(cx).load(cx, 9).bits(), 0);
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Scope::alloc`].
    pub fn alloc_tagged<R: WordRule>(
        &mut self,
        len: usize,
    ) -> Result<Local<'s, TaggedArray<R>>, OutOfMemory> {
        let payload = self.payload(len, WORD)?;
        let layout = self.tagged_layout::<R>();
        self.alloc_array(layout, len, payload)
    }

    /// Allocates an array of `len` zeroes. May collect.
    ///
    /// ```
    /// # use firn::*;
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let bytes = cx.alloc_data::<u8>(100_000)?;
    /// assert_eq!(bytes.get(cx).get(99_999), 0);
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Scope::alloc`].
    pub fn alloc_data<E: Plain>(
        &mut self,
        len: usize,
    ) -> Result<Local<'s, DataArray<E>>, OutOfMemory> {
        let payload = self.payload(len, size_of::<E>())?;
        let layout = data_layout::<E>();
        if payload < self.heap().large_threshold() {
            return self.alloc_array(layout, len, payload);
        }
        if self.local().stress_left != 0 {
            self.stress();
        }
        self.safepoint();
        let header = Header::new(layout, len);
        let words = object_bytes(payload) / WORD;
        let core = self.heap().core().clone();
        let slot = self.slot().clone();
        let address = self
            .heap()
            .clone()
            .with_ladder(&slot, words * WORD, || core.allocate_large(header, words))?;
        Ok(self.handle(address as u64))
    }

    /// The stress option: counts down to the next forced collection.
    #[cold]
    fn stress(&mut self) {
        let left = &mut self.local().stress_left;
        *left -= 1;
        if *left == 0 {
            *left = self.heap().stress_every();
            self.collect_because(Cause::Stress);
        }
    }

    /// Bytes of `len` elements, if the heap could ever hold them.
    fn payload(&self, len: usize, element: usize) -> Result<usize, OutOfMemory> {
        let limit = self.heap().core().config.limit;
        match len.checked_mul(element) {
            Some(bytes) if bytes <= limit => Ok(bytes),
            _ => Err(self.heap().out_of_memory(len.saturating_mul(element))),
        }
    }

    /// Sees to it that up to `bytes` can be allocated without collecting. May collect once, now.
    ///
    /// ```
    /// # use firn::*;
    /// #[derive(Trace)]
    /// struct Cell { value: u64, next: Field<Cell> }
    /// # let heap = Heap::new(&Options::default())?;
    /// # heap.attach(|cx| {
    /// let nogc = cx.reserve(2 * NoGc::size_of::<Cell>())?;
    /// let last = nogc.alloc(Cell { value: 2, next: Field::null() });
    /// let first = nogc.alloc(Cell { value: 1, next: Field::null() });
    /// first.next.store(&nogc, Some(last));
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Scope::alloc`].
    ///
    /// # Panics
    /// If `bytes` is more than [`NoGc::MOST`].
    #[inline(always)]
    pub fn reserve(&mut self, bytes: usize) -> Result<NoGc<'_, 's>, OutOfMemory> {
        if self.local().stress_left != 0 {
            self.stress();
        }
        if self.local().tlab.room() < bytes || self.slot().polled() {
            self.reserve_slow(bytes)?;
        }
        Ok(NoGc::new(self, bytes))
    }

    #[cold]
    #[inline(never)]
    fn reserve_slow(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        assert!(bytes <= NoGc::MOST, "at most {} bytes can be reserved, not {bytes}", NoGc::MOST);
        self.safepoint();
        let core = self.heap().core().clone();
        let slot = self.slot().clone();
        self.heap()
            .clone()
            .with_ladder(&slot, bytes, || core.refill(&slot.mutator, bytes).then_some(()))
    }

    /// Runs `f` in a scope of its own: its `Local`s end with it. May collect inside.
    ///
    /// ```
    /// # use firn::*;
    /// # #[derive(Trace)]
    /// # struct Node { key: u64, next: Field<Node> }
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// for key in 0..1000 {
    ///     cx.scope(|cx| {
    ///         let node = cx.alloc(Node { key, next: Field::null() })?;
    ///         assert_eq!(node.get(cx).key, key);
    ///         Ok::<_, OutOfMemory>(()) // the node is garbage from here on
    ///     })?;
    /// }
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn scope<R>(&mut self, f: impl for<'i> FnOnce(&mut Scope<'i>) -> R) -> R {
        let close = Close { local: self.local, top: self.local().handles.top() };
        // SAFETY: as for `self`; the fresh lifetime cannot leave the closure.
        let mut inner = unsafe { Scope::new(self.heap(), self.slot()) };
        let result = f(&mut inner);
        drop(close);
        result
    }

    /// As [`Scope::scope`], and one `Local` comes out.
    ///
    /// ```
    /// # use firn::*;
    /// #[derive(Trace)]
    /// struct Tree { left: Field<Tree>, right: Field<Tree> }
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let root = cx.nest(|cx| {
    ///     let left = cx.alloc(Tree { left: Field::null(), right: Field::null() })?;
    ///     let right = cx.alloc(Tree { left: Field::null(), right: Field::null() })?;
    ///     let root = cx.alloc(Tree { left: Field::null(), right: Field::null() })?;
    ///     root.get(cx).left.store(cx, Some(left.get(cx)));
    ///     root.get(cx).right.store(cx, Some(right.get(cx)));
    ///     Ok::<_, OutOfMemory>(root)
    /// })?;
    /// assert!(root.get(cx).left.load(cx).is_some());
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Whatever `f` returns.
    #[inline(always)]
    pub fn nest<T: Object + ?Sized, E>(
        &mut self,
        f: impl for<'i> FnOnce(&mut Scope<'i>) -> Result<Local<'i, T>, E>,
    ) -> Result<Local<'s, T>, E> {
        let close = Close { local: self.local, top: self.local().handles.top() };
        // SAFETY: as for `self`; the fresh lifetime cannot leave the closure but through the result.
        let mut inner = unsafe { Scope::new(self.heap(), self.slot()) };
        let address = f(&mut inner)?.get(&inner).address();
        drop(close);
        Ok(self.handle(address))
    }

    /// Roots a reference for the rest of this scope.
    ///
    /// ```
    /// # use firn::*;
    /// # #[derive(Trace)]
    /// # struct Node { key: u64, next: Field<Node> }
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let node = cx.alloc(Node { key: 1, next: Field::null() })?;
    /// node.get(cx).next.store(cx, Some(node.get(cx)));
    /// let next = node.get(cx).next.load(cx).expect("stored above"); // a `Gc`
    /// let next = cx.root(next); // a `Local`
    /// cx.collect();
    /// assert_eq!(next.get(cx).key, 1);
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn root<T: Object + ?Sized>(&self, gc: Gc<'_, T>) -> Local<'s, T> {
        self.handle(gc.address())
    }

    /// A rooted variable, null at first.
    ///
    /// ```
    /// # use firn::*;
    /// # #[derive(Trace)]
    /// # struct Node { key: u64, next: Field<Node> }
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let current = cx.var::<Node>();
    /// let node = cx.alloc(Node { key: 1, next: Field::null() })?;
    /// current.set(cx, Some(node.get(cx)));
    /// current.set(cx, None);
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn var<T: Object + ?Sized>(&self) -> Var<'s, T> {
        Var::new(self.local().handles.push(0))
    }

    /// Roots a reference independently of scopes and threads.
    ///
    /// ```
    /// # use firn::*;
    /// # #[derive(Trace)]
    /// # struct Node { key: u64, next: Field<Node> }
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let node = cx.alloc(Node { key: 1, next: Field::null() })?;
    /// let root: Root<Node> = cx.global(node.get(cx)); // may outlive scope and thread
    /// assert_eq!(root.get(cx).key, 1);
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn global<T: Object + ?Sized>(&self, gc: Gc<'_, T>) -> Root<T> {
        Root::new(self.heap(), gc)
    }

    /// Does what the collector wants of this thread, if it wants something. Loops without allocation
    /// should call it now and then: everyone waits for the slowest.
    ///
    /// ```
    /// # use firn::*;
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let mut sum = 0u64;
    /// for number in 0..100_000u64 {
    ///     sum = sum.wrapping_add(number * number);
    ///     if number % 1024 == 0 {
    ///         cx.safepoint();
    ///     }
    /// }
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn safepoint(&mut self) {
        if self.slot().polled() {
            self.heap().core().safepoints.poll_slow(self.heap().core(), self.slot());
        }
    }

    /// Whether the collector wants something of this thread: a stretch without collection that is not short
    /// should end soon when it does, since everyone waits for the slowest.
    ///
    /// ```
    /// # use firn::*;
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let nogc = cx.reserve(1000)?;
    /// let mut rounds = 0;
    /// while rounds < 1000 && !nogc.safepoint_wanted() {
    ///     rounds += 1; // with `Gc`s in hand
    /// }
    /// cx.safepoint(); // no `Gc` is in hand here
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn safepoint_wanted(&self) -> bool {
        self.slot().polled()
    }

    /// Runs `f`, which cannot touch the heap, while this thread counts as stopped: for I/O, sleeping,
    /// joining.
    ///
    /// ```
    /// # use firn::*;
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let thread = std::thread::spawn(|| 6 * 7);
    /// let answer = cx.blocking(|| thread.join()); // collections go on meanwhile
    /// assert_eq!(answer.ok(), Some(42));
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn blocking<R: Send>(&mut self, f: impl FnOnce() -> R + Send) -> R {
        struct Unblock<'a>(&'a Heap, &'a Arc<Slot<Mutator>>);
        impl Drop for Unblock<'_> {
            fn drop(&mut self) {
                self.0.core().safepoints.unblock(self.0.core(), self.1);
            }
        }
        let core = self.heap().core();
        core.safepoints.block(core, self.slot());
        let _unblock = Unblock(self.heap(), self.slot());
        f()
    }

    /// The mutator's number, as events name it: in order of attaching, from 0.
    ///
    /// ```
    /// # use firn::*;
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// assert_eq!(cx.mutator_id(), 0); // the first thread to attach
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn mutator_id(&self) -> u32 {
        self.slot().mutator.id
    }

    /// A number that changes whenever objects may have changed address: what a table that hashes by
    /// [`Gc::address_now`] remembers, to know when it has to hash anew.
    ///
    /// ```
    /// # use firn::*;
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let before = cx.address_epoch();
    /// cx.collect();
    /// assert_ne!(cx.address_epoch(), before);
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn address_epoch(&self) -> u64 {
        self.local().flips
    }

    /// Collects now and waits for the end of the cycle.
    ///
    /// ```
    /// # use firn::*;
    /// # let heap = Heap::new(&Options::parse("heap=16m")?)?;
    /// # heap.attach(|cx| {
    /// let before = cx.collect().cycle;
    /// assert_eq!(cx.collect().cycle, before + 1);
    /// # Ok::<_, OutOfMemory>(()) })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn collect(&mut self) -> CycleSummary {
        self.collect_because(Cause::Explicit)
    }

    pub(crate) fn collect_because(&mut self, cause: Cause) -> CycleSummary {
        let heap = self.heap().clone();
        self.blocking(move || heap.daemon().collect(cause))
    }
}

#[cold]
#[inline(never)]
fn outside() -> ! {
    panic!("a field that is not in the heap was assigned a reference: allocate the object first")
}

/// Ends a scope, also when the closure unwinds.
struct Close {
    local: *mut MutatorLocal,
    top: usize,
}

impl Drop for Close {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the running thread's own state; no reference to it is held here.
        unsafe { (*self.local).handles.truncate(self.top) };
    }
}
