//! The cache of `lru` (W1): a hash table of chains and a circular list in order of use, all in
//! the heap, written as an embedder who cares for speed writes it. Every operation reserves what
//! it allocates, works on raw references, and keeps no root but the cache object itself.

use firn::{DataArray, Field, Gc, Local, NoGc, OutOfMemory, RefArray, Root, Scope, Trace};

use crate::workloads::rng::{Rng, mix};
use crate::workloads::zipf;

/// Of 65,536 operations, those that look a key up; the others insert a fresh key.
const LOOKUPS: u64 = 52_429;
/// Temporaries that each operation makes.
const TEMPORARIES: u64 = 8;

/// An entry. The sentinel of the circular list is one too.
#[derive(Trace)]
struct Node {
    key: u64,
    hash_next: Field<Node>,
    prev: Field<Node>,
    next: Field<Node>,
    payload: Field<DataArray<u8>>,
}

/// A temporary of 48 bytes, header included.
#[derive(Trace)]
struct Temporary {
    next: Field<Temporary>,
    a: u64,
    /// Unused by the program, as `c`; they are part of the specified size.
    #[allow(dead_code)]
    b: u64,
    #[allow(dead_code)]
    c: u64,
    d: u64,
}

/// The cache object.
#[derive(Trace)]
struct Core {
    table: Field<RefArray<Node>>,
    /// `sentinel.next` is the newest entry, `sentinel.prev` the oldest.
    sentinel: Field<Node>,
    zipf: Field<DataArray<u64>>,
    scratch: Field<Temporary>,
}

/// The Zipf table in the heap, made by one thread and shared by all.
pub type ZipfTable = Root<DataArray<u64>>;

/// Puts the Zipf table for caches of `capacity` entries into the heap.
///
/// # Errors
/// The heap is too small.
pub fn share_zipf(cx: &mut Scope<'_>, capacity: usize) -> Result<ZipfTable, OutOfMemory> {
    let table = zipf::table(2 * capacity, zipf::THETA);
    let array = cx.alloc_data::<u64>(table.len())?;
    array.get(cx).copy_from(0, &table);
    Ok(cx.global(array.get(cx)))
}

/// A cache, its random numbers and its counters; one a thread.
pub struct Cache<'s> {
    core: Local<'s, Core>,
    capacity: usize,
    ranks: usize,
    mask: usize,
    size: usize,
    rng: Rng,
    fresh: u64,
    /// Lookups that found their key.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// The checksum so far.
    pub sum: u64,
}

impl<'s> Cache<'s> {
    /// An empty cache for `capacity` entries.
    ///
    /// # Errors
    /// The heap is too small.
    pub fn new(
        cx: &mut Scope<'s>,
        capacity: usize,
        zipf: &ZipfTable,
        seed: u64,
    ) -> Result<Cache<'s>, OutOfMemory> {
        let buckets = capacity.next_power_of_two();
        let core = cx.alloc(Core {
            table: Field::null(),
            sentinel: Field::null(),
            zipf: Field::null(),
            scratch: Field::null(),
        })?;
        let table = cx.alloc_refs::<Node>(buckets)?;
        let nogc = cx.reserve(NoGc::size_of::<Node>())?;
        let sentinel = nogc.alloc(Node {
            key: 0,
            hash_next: Field::null(),
            prev: Field::null(),
            next: Field::null(),
            payload: Field::null(),
        });
        sentinel.prev.store(&nogc, Some(sentinel));
        sentinel.next.store(&nogc, Some(sentinel));
        let object = core.get(&nogc);
        object.table.store(&nogc, Some(table.get(&nogc)));
        object.sentinel.store(&nogc, Some(sentinel));
        object.zipf.store(&nogc, Some(zipf.get(&nogc)));
        Ok(Cache {
            core,
            capacity,
            ranks: 2 * capacity,
            mask: buckets - 1,
            size: 0,
            rng: Rng::new(seed),
            fresh: 2 * capacity as u64,
            hits: 0,
            misses: 0,
            sum: 0,
        })
    }

    /// Inserts the key of one more entry of the fill: `capacity - 1` first, 0 last.
    ///
    /// # Errors
    /// The heap is too small.
    ///
    /// # Panics
    /// If the cache is full already.
    pub fn fill_one(&mut self, cx: &mut Scope<'s>) -> Result<(), OutOfMemory> {
        assert!(self.size < self.capacity, "the fill ends with the last entry");
        self.insert(cx, (self.capacity - 1 - self.size) as u64)
    }

    #[inline]
    fn bucket(&self, hash: u64) -> usize {
        (hash >> 40) as usize & self.mask
    }

    fn insert(&mut self, cx: &mut Scope<'s>, key: u64) -> Result<(), OutOfMemory> {
        if self.size == self.capacity {
            self.evict(cx)
        } else {
            self.size += 1
        }
        let hash = mix(key);
        let len = 64 + (hash % 961) as usize;
        let bytes = NoGc::size_of::<Node>() + NoGc::size_of_data::<u8>(len);
        let nogc = cx.reserve(bytes)?;
        let core = self.core.get(&nogc);
        let table = core.table.load(&nogc).expect("made with the cache");
        let sentinel = core.sentinel.load(&nogc).expect("made with the cache");
        let bucket = self.bucket(hash);
        let newest = sentinel.next.load(&nogc).expect("the list is circular");
        let node = nogc.alloc(Node {
            key,
            hash_next: Field::null(),
            prev: Field::null(),
            next: Field::null(),
            payload: Field::null(),
        });
        let payload = nogc.alloc_data::<u8>(len);
        payload.set(0, key as u8);
        payload.set(len - 1, (key >> 8) as u8);
        node.payload.store(&nogc, Some(payload));
        node.hash_next.store(&nogc, table.load(&nogc, bucket));
        node.prev.store(&nogc, Some(sentinel));
        node.next.store(&nogc, Some(newest));
        table.store(&nogc, bucket, Some(node));
        newest.prev.store(&nogc, Some(node));
        sentinel.next.store(&nogc, Some(node));
        Ok(())
    }

    /// Takes the oldest entry out of the list and out of its bucket.
    fn evict(&self, cx: &Scope<'s>) {
        let core = self.core.get(cx);
        let table = core.table.load(cx).expect("made with the cache");
        let sentinel = core.sentinel.load(cx).expect("made with the cache");
        let victim = sentinel.prev.load(cx).expect("the list is circular");
        unlink(cx, victim);
        let bucket = self.bucket(mix(victim.key));
        let mut at = table.load(cx, bucket).expect("the victim is in its bucket");
        if Gc::ptr_eq(at, victim) {
            table.store(cx, bucket, victim.hash_next.load(cx));
            return;
        }
        loop {
            let next = at.hash_next.load(cx).expect("the victim is in its bucket");
            if Gc::ptr_eq(next, victim) {
                at.hash_next.store(cx, victim.hash_next.load(cx));
                return;
            }
            at = next;
        }
    }

    /// The entry of `key`, made the newest; its payload's share of the checksum.
    #[inline]
    fn hit(&self, cx: &Scope<'s>, key: u64) -> Option<u64> {
        let core = self.core.get(cx);
        let table = core.table.load(cx).expect("made with the cache");
        let mut at = table.load(cx, self.bucket(mix(key)));
        while let Some(node) = at {
            if node.key == key {
                let sentinel = core.sentinel.load(cx).expect("made with the cache");
                unlink(cx, node);
                push_front(cx, sentinel, node);
                let payload = node.payload.load(cx).expect("every entry has one");
                let (first, last) = (payload.get(0), payload.get(payload.len() - 1));
                return Some(i64::from(first as i8).wrapping_add(i64::from(last as i8)) as u64);
            }
            at = node.hash_next.load(cx);
        }
        None
    }

    /// One operation of the workload.
    ///
    /// # Errors
    /// The heap is too small.
    #[inline]
    pub fn op(&mut self, cx: &mut Scope<'s>) -> Result<(), OutOfMemory> {
        let r = self.rng.next_u64();
        if (r & 0xFFFF) < LOOKUPS {
            let draw = self.rng.next_u64();
            let zipf = self.core.get(cx).zipf.load(cx).expect("made with the cache");
            let key = zipf::sample(self.ranks, draw, |i| zipf.get(i));
            match self.hit(cx, key) {
                Some(sum) => {
                    self.hits += 1;
                    self.sum = self.sum.wrapping_add(sum);
                }
                None => {
                    self.misses += 1;
                    self.insert(cx, key)?;
                }
            }
        } else {
            self.insert(cx, self.fresh)?;
            self.fresh += 1;
        }
        self.temporaries(cx, r)
    }

    /// A chain of short-lived objects, published in the cache object and walked from there.
    #[inline]
    fn temporaries(&mut self, cx: &mut Scope<'s>, r: u64) -> Result<(), OutOfMemory> {
        let nogc = cx.reserve(TEMPORARIES as usize * NoGc::size_of::<Temporary>())?;
        let mut newest = None;
        for i in 0..TEMPORARIES {
            let one = nogc.alloc(Temporary {
                next: Field::null(),
                a: r.wrapping_add(i),
                b: 0,
                c: 0,
                d: i,
            });
            one.next.store(&nogc, newest);
            newest = Some(one);
        }
        let core = self.core.get(&nogc);
        core.scratch.store(&nogc, newest);
        let mut at = core.scratch.load(&nogc);
        while let Some(t) = at {
            self.sum = self.sum.wrapping_add(t.a).wrapping_add(t.d);
            at = t.next.load(&nogc);
        }
        Ok(())
    }
}

#[inline]
fn unlink<'m>(cx: &'m Scope<'_>, node: Gc<'m, Node>) {
    let prev = node.prev.load(cx).expect("the list is circular");
    let next = node.next.load(cx).expect("the list is circular");
    prev.next.store(cx, Some(next));
    next.prev.store(cx, Some(prev));
}

#[inline]
fn push_front<'m>(cx: &'m Scope<'_>, sentinel: Gc<'m, Node>, node: Gc<'m, Node>) {
    let newest = sentinel.next.load(cx).expect("the list is circular");
    node.next.store(cx, Some(newest));
    node.prev.store(cx, Some(sentinel));
    newest.prev.store(cx, Some(node));
    sentinel.next.store(cx, Some(node));
}
