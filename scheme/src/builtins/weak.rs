//! Ephemerons (SRFI 124), weak boxes, hash tables with weak keys, and what guardians are made of.
//!
//! A weak table compares its keys with `eqv?`, and hashes them by address: what is in them may change. Addresses change
//! when the heap is compacted; the heap says so by a number ([`firn::Scope::address_epoch`]), and the first use of
//! a table after that puts its entries into their new buckets, and drops those that are broken. Only links are turned
//! over, nothing is allocated. An entry is an ephemeron; a new value for a known key takes a new one. Looking a key up
//! compares words and reads no other key, so it keeps none of them.

use super::Builtin;
use crate::mem::Mem;
use crate::numbers;
use crate::object::*;
use crate::trap::{Result, wrong_type};
use crate::value::Value;
use firn::Gc;
use std::sync::atomic::Ordering::Relaxed;

type Entry<'m> = Gc<'m, EphemeronObject>;

/// A hash table with weak keys, in use.
pub struct Weak<'m, 's> {
    mem: Mem<'m, 's>,
    table: Gc<'m, WeakTable>,
}

/// Of keys that `eqv?` takes for the same though they are not: their contents.
fn by_contents<'m>(mem: Mem<'m, '_>, key: Value<'m>) -> Option<u64> {
    let empty = mem.object::<StringObject>(key).is_some_and(|text| text.len() == 0);
    if empty { Some(0) } else { numbers::hash(mem, key) }
}

impl<'m, 's> Weak<'m, 's> {
    /// The table, if `value` is one, with its entries where they belong now.
    pub fn of(mem: Mem<'m, 's>, value: Value<'m>) -> Option<Weak<'m, 's>> {
        let weak = Weak { mem, table: mem.object(value)? };
        if weak.table.epoch.load(Relaxed) != mem.scope().address_epoch() {
            let buckets = weak.buckets();
            weak.fill_again(buckets, buckets);
            weak.table.epoch.store(mem.scope().address_epoch(), Relaxed);
        }
        Some(weak)
    }

    fn buckets(&self) -> crate::value::Array<'m> {
        let table: &WeakTable = &self.table;
        Value::from(table.buckets.load(self.mem.scope())).as_vector().expect("a table has buckets")
    }

    fn entry(&self, link: Gc<'m, Pair>) -> Entry<'m> {
        self.mem.object(self.mem.car(link)).expect("an entry is an ephemeron")
    }

    fn bucket(&self, key: Value<'m>, buckets: usize) -> usize {
        let word = by_contents(self.mem, key).unwrap_or(key.bits());
        (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24) as usize % buckets
    }

    /// Moves the links of all whole entries from `old` to where they belong in `new`, which may be the same.
    fn fill_again(&self, old: crate::value::Array<'m>, new: crate::value::Array<'m>) {
        let mem = self.mem;
        // All links in one list first.
        let mut all = Value::NIL;
        for index in 0..old.len() {
            let mut at = mem.element(old, index);
            while let Some(link) = at.as_pair() {
                let next = mem.cdr(link);
                link.cdr.store(mem.scope(), all.into());
                all = at;
                at = next;
            }
            old.store(mem.scope(), index, Value::NIL.into());
        }
        let mut count = 0;
        while let Some(link) = all.as_pair() {
            let here = all;
            all = mem.cdr(link);
            let Some(key) = self.entry(link).key(mem.scope()) else { continue };
            let index = self.bucket(key.into(), new.len());
            link.cdr.store(mem.scope(), mem.element(new, index).into());
            new.store(mem.scope(), index, here.into());
            count += 1;
        }
        self.table.count.store(count, Relaxed);
    }

    /// The bucket of a key, and its link there.
    fn find(&self, key: Value<'m>) -> (usize, Option<Gc<'m, Pair>>) {
        let (mem, buckets) = (self.mem, self.buckets());
        let index = self.bucket(key, buckets.len());
        let contents = by_contents(mem, key).is_some();
        let mut at = mem.element(buckets, index);
        while let Some(link) = at.as_pair() {
            let entry = self.entry(link);
            let same = entry.key_is(key.into())
                || contents
                    && entry
                        .key(mem.scope())
                        .is_some_and(|other| super::lists::eqv(mem, other.into(), key));
            if same {
                return (index, Some(link));
            }
            at = mem.cdr(link);
        }
        (index, None)
    }

    /// The value of a key.
    pub fn get(&self, key: Value<'m>) -> Option<Value<'m>> {
        let link = self.find(key).1?;
        self.entry(link).value(self.mem.scope()).map(Value::from)
    }

    /// Gives a key a value.
    pub fn set(&self, key: Value<'m>, value: Value<'m>) -> Result<'m> {
        let mem = self.mem;
        let entry = mem.ephemeron(key, value)?;
        if let Some(link) = self.find(key).1 {
            link.car.store(mem.scope(), entry.into());
            return Ok(Value::UNSPECIFIED);
        }
        let mut buckets = self.buckets();
        let link = mem.cons(entry, Value::NIL)?;
        if self.table.count.load(Relaxed) >= buckets.len() {
            let grown = mem.array(buckets.len() * 2 + 1, |_| Value::NIL)?;
            self.fill_again(buckets, grown);
            self.table.buckets.store(mem.scope(), Value::vector(grown).into());
            buckets = grown;
        }
        let index = self.bucket(key, buckets.len());
        let pair = link.as_pair().expect("just made");
        pair.cdr.store(mem.scope(), mem.element(buckets, index).into());
        buckets.store(mem.scope(), index, link.into());
        self.table.count.fetch_add(1, Relaxed);
        Ok(Value::UNSPECIFIED)
    }

    /// Forgets a key.
    pub fn delete(&self, key: Value<'m>) {
        let mem = self.mem;
        let (index, Some(found)) = self.find(key) else { return };
        let buckets = self.buckets();
        let rest = mem.cdr(found);
        let mut at = mem.element(buckets, index).as_pair().expect("the link is here");
        if at.address_now() == found.address_now() {
            buckets.store(mem.scope(), index, rest.into());
        } else {
            while mem.cdr(at) != Value::pair(found) {
                at = mem.cdr(at).as_pair().expect("the link is here");
            }
            at.cdr.store(mem.scope(), rest.into());
        }
        self.table.count.fetch_sub(1, Relaxed);
    }

    /// Keys and values of whole entries in turn.
    pub fn entries(&self) -> Vec<Value<'m>> {
        let (mem, buckets) = (self.mem, self.buckets());
        let mut entries = Vec::new();
        for index in 0..buckets.len() {
            let mut at = mem.element(buckets, index);
            while let Some(link) = at.as_pair() {
                let entry = self.entry(link);
                // The key first: while it is held, the value is there.
                if let Some(key) = entry.key(mem.scope())
                    && let Some(value) = entry.value(mem.scope())
                {
                    entries.extend([Value::from(key), Value::from(value)]);
                }
                at = mem.cdr(link);
            }
        }
        entries
    }

    /// Forgets everything.
    pub fn clear(&self) -> Result<'m> {
        let buckets = self.mem.make_vector(7, Value::NIL)?;
        self.table.buckets.store(self.mem.scope(), buckets.into());
        self.table.count.store(0, Relaxed);
        Ok(Value::UNSPECIFIED)
    }
}

fn ephemeron<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m, Entry<'m>> {
    mem.object(value).ok_or_else(|| wrong_type("an ephemeron", value))
}

fn guardian<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> Result<'m, Gc<'m, GuardianObject>> {
    mem.object(value).ok_or_else(|| wrong_type("a guardian", value))
}

/// Builtins of this file.
pub const TABLE: &[Builtin] = &[
    Builtin::new("make-ephemeron", 2, 2, |mem, a| mem.ephemeron(a[0], a[1])),
    Builtin::new("ephemeron?", 1, 1, |mem, a| {
        Ok(Value::boolean(mem.object::<EphemeronObject>(a[0]).is_some()))
    }),
    Builtin::new("ephemeron-broken?", 1, 1, |mem, a| {
        Ok(Value::boolean(ephemeron(mem, a[0])?.key(mem.scope()).is_none()))
    }),
    Builtin::new("ephemeron-key", 1, 1, |mem, a| {
        Ok(ephemeron(mem, a[0])?.key(mem.scope()).map_or(Value::FALSE, Value::from))
    }),
    Builtin::new("ephemeron-datum", 1, 1, |mem, a| {
        Ok(ephemeron(mem, a[0])?.value(mem.scope()).map_or(Value::FALSE, Value::from))
    }),
    // An argument is held until the call is made: that is all there is to do.
    Builtin::new("reference-barrier", 1, 1, |_, _| Ok(Value::UNSPECIFIED)),
    Builtin::new("make-weak-box", 1, 1, |mem, a| {
        let ephemeron = mem.ephemeron(a[0], Value::FALSE)?;
        let empty = WeakBox { ephemeron: firn::Tagged::new(0) };
        mem.make(empty, |weak| weak.set(&weak.ephemeron, ephemeron.into()))
    }),
    Builtin::new("weak-box?", 1, 1, |mem, a| {
        Ok(Value::boolean(mem.object::<WeakBox>(a[0]).is_some()))
    }),
    Builtin::new("weak-box-value", 1, 2, |mem, a| {
        let weak: Gc<'_, WeakBox> =
            mem.object(a[0]).ok_or_else(|| wrong_type("a weak box", a[0]))?;
        let weak: &WeakBox = &weak;
        let ephemeron = ephemeron(mem, weak.ephemeron.load(mem.scope()).into())?;
        let gone = a.get(1).copied().unwrap_or(Value::FALSE);
        Ok(ephemeron.key(mem.scope()).map_or(gone, Value::from))
    }),
    Builtin::new("make-weak-hash-table", 0, 0, |mem, _| {
        let buckets = mem.make_vector(7, Value::NIL)?;
        let epoch = mem.scope().address_epoch().into();
        let empty = WeakTable { buckets: firn::Tagged::new(0), count: Default::default(), epoch };
        mem.make(empty, |table| table.set(&table.buckets, buckets.into()))
    }),
    Builtin::new("weak-hash-table?", 1, 1, |mem, a| {
        Ok(Value::boolean(mem.object::<WeakTable>(a[0]).is_some()))
    }),
    Builtin::new("%weak-table-entries", 1, 1, |mem, a| {
        let weak = Weak::of(mem, a[0]).ok_or_else(|| wrong_type("a weak hash table", a[0]))?;
        mem.vector(&weak.entries())
    }),
    Builtin::new("%make-guardian", 0, 0, |mem, _| mem.guardian()),
    Builtin::new("%guardian-register!", 2, 2, |mem, a| {
        mem.guard(guardian(mem, a[0])?, a[1])?;
        Ok(Value::UNSPECIFIED)
    }),
    Builtin::new("%guardian-poll", 1, 1, |mem, a| {
        Ok(guardian(mem, a[0])?.poll(mem.scope()).map_or(Value::FALSE, Value::from))
    }),
];
