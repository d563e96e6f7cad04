//! Hash tables.
//!
//! Objects move, so that an address is no hash: keys are hashed by contents (numbers, characters, symbols, strings,
//! and pairs and vectors to a certain depth), whatever the test. A table is a vector of association lists; it
//! grows when it holds more entries than buckets. The builtins take tables with weak keys, too ([`super::weak`]).

use super::lists::{equal, eqv};
use super::weak::Weak;
use super::{Builtin, args};
use crate::mem::Mem;
use crate::numbers;
use crate::object::*;
use crate::trap::{Result, wrong_type};
use crate::value::Value;
use std::sync::atomic::Ordering::Relaxed;

fn hash<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add =
        |word: u64| hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    let mut todo = vec![value];
    let mut budget = 64;
    while let Some(value) = todo.pop() {
        budget -= 1;
        if budget == 0 {
            break;
        }
        if matches!(value.tag(), 0 | crate::value::TAG_IMMEDIATE) {
            add(value.bits());
        } else if let Some(pair) = value.as_pair() {
            add(1);
            todo.push(mem.cdr(pair));
            todo.push(mem.car(pair));
        } else if let Some(vector) = value.as_vector() {
            add(vector.len() as u64);
            todo.extend((0..vector.len().min(16)).map(|index| mem.element(vector, index)));
        } else if let Some(text) = mem.object::<StringObject>(value) {
            (0..text.len()).for_each(|index| add(text.get(index) as u64));
        } else if let Some(number) = numbers::hash(mem, value) {
            add(number);
        } else if let Some(bytes) = mem.object::<BytesObject>(value) {
            (0..bytes.len()).for_each(|index| add(bytes.get(index) as u64));
        } else {
            add(value.tag() as u64);
        }
    }
    hash
}

struct Table<'m, 's> {
    mem: Mem<'m, 's>,
    table: firn::Gc<'m, HashTable>,
}

impl<'m, 's> Table<'m, 's> {
    fn of(mem: Mem<'m, 's>, value: Value<'m>) -> Result<'m, Table<'m, 's>> {
        let table = mem.object(value).ok_or_else(|| wrong_type("a hash table", value))?;
        Ok(Table { mem, table })
    }

    fn buckets(&self) -> crate::value::Array<'m> {
        let table: &HashTable = &self.table;
        Value::from(table.buckets.load(self.mem.scope())).as_vector().expect("a table has buckets")
    }

    fn same(&self, a: Value<'m>, b: Value<'m>) -> bool {
        if self.table.test == 0 { equal(self.mem, a, b) } else { eqv(self.mem, a, b) }
    }

    fn find(&self, key: Value<'m>) -> (usize, Option<firn::Gc<'m, Pair>>) {
        let buckets = self.buckets();
        let index = (hash(self.mem, key) >> 16) as usize % buckets.len();
        let mut at = self.mem.element(buckets, index);
        while let Some(link) = at.as_pair() {
            let entry = self.mem.car(link).as_pair().expect("an entry is a pair");
            if self.same(self.mem.car(entry), key) {
                return (index, Some(entry));
            }
            at = self.mem.cdr(link);
        }
        (index, None)
    }

    fn set(&self, key: Value<'m>, value: Value<'m>) -> Result<'m> {
        let mem = self.mem;
        let (_, entry) = self.find(key);
        if let Some(entry) = entry {
            entry.cdr.store(mem.scope(), value.into());
            return Ok(Value::UNSPECIFIED);
        }
        let mut buckets = self.buckets();
        if self.table.count.load(Relaxed) >= buckets.len() {
            // The new buckets are complete before the table sees them. Links are made anew: nothing of the old
            // ones changes before everything is allocated.
            let grown = mem.array(buckets.len() * 2 + 1, |_| Value::NIL)?;
            for index in 0..buckets.len() {
                let mut at = mem.element(buckets, index);
                while let Some(link) = at.as_pair() {
                    let entry = mem.car(link);
                    let key = mem.car(entry.as_pair().expect("an entry is a pair"));
                    let place = (hash(mem, key) >> 16) as usize % grown.len();
                    let link_value = at;
                    at = mem.cdr(link);
                    link.cdr.store(mem.scope(), mem.element(grown, place).into());
                    grown.store(mem.scope(), place, link_value.into());
                }
            }
            self.table.buckets.store(mem.scope(), Value::vector(grown).into());
            buckets = grown;
        }
        let index = (hash(mem, key) >> 16) as usize % buckets.len();
        let entry = mem.cons(key, value)?;
        let link = mem.cons(entry, mem.element(buckets, index))?;
        buckets.store(mem.scope(), index, link.into());
        self.table.count.fetch_add(1, Relaxed);
        Ok(Value::UNSPECIFIED)
    }

    fn delete(&self, key: Value<'m>) {
        let mem = self.mem;
        let (index, entry) = self.find(key);
        let Some(entry) = entry else { return };
        let buckets = self.buckets();
        let (mut at, mut before) = (mem.element(buckets, index), None::<firn::Gc<'m, Pair>>);
        while let Some(link) = at.as_pair() {
            let next = mem.cdr(link);
            if mem.car(link) == Value::pair(entry) {
                match before {
                    Some(before) => before.cdr.store(mem.scope(), next.into()),
                    None => buckets.store(mem.scope(), index, next.into()),
                }
                self.table.count.fetch_sub(1, Relaxed);
                return;
            }
            before = Some(link);
            at = next;
        }
    }

    fn entries(&self) -> Vec<Value<'m>> {
        let buckets = self.buckets();
        let mut entries = Vec::new();
        for index in 0..buckets.len() {
            let mut at = self.mem.element(buckets, index);
            while let Some(link) = at.as_pair() {
                entries.push(self.mem.car(link));
                at = self.mem.cdr(link);
            }
        }
        entries
    }
}

fn make<'m>(mem: Mem<'m, '_>, test: u64) -> Result<'m> {
    let buckets = mem.make_vector(7, Value::NIL)?;
    let empty = HashTable { buckets: firn::Tagged::new(0), count: Default::default(), test };
    mem.make(empty, |table| table.set(&table.buckets, buckets.into()))
}

fn count<'m>(mem: Mem<'m, '_>, table: Value<'m>) -> Result<'m> {
    let count = match Weak::of(mem, table) {
        Some(weak) => weak.entries().len() / 2,
        None => Table::of(mem, table)?.table.count.load(Relaxed),
    };
    Ok(Value::fixnum(count as i64))
}

/// Builtins of this file.
pub const TABLE: &[Builtin] = &[
    Builtin::new("make-hash-table", 0, Builtin::MANY, |mem, a| {
        let builtin = |name: &str| Value::primitive(mem.world().number_of(name) as u32);
        let by_identity =
            a.first().is_some_and(|&test| test == builtin("eq?") || test == builtin("eqv?"));
        make(mem, u64::from(by_identity))
    }),
    Builtin::new("make-equal-hashtable", 0, 1, |mem, _| make(mem, 0)),
    Builtin::new("hash-table?", 1, 1, |mem, a| {
        let weak = mem.object::<WeakTable>(a[0]).is_some();
        Ok(Value::boolean(weak || mem.object::<HashTable>(a[0]).is_some()))
    }),
    Builtin::new("hash-table-ref/default", 3, 3, |mem, a| {
        if let Some(weak) = Weak::of(mem, a[0]) {
            return Ok(weak.get(a[1]).unwrap_or(a[2]));
        }
        Ok(Table::of(mem, a[0])?.find(a[1]).1.map_or(a[2], |entry| mem.cdr(entry)))
    }),
    Builtin::new("hash-table-exists?", 2, 2, |mem, a| {
        if let Some(weak) = Weak::of(mem, a[0]) {
            return Ok(Value::boolean(weak.get(a[1]).is_some()));
        }
        Ok(Value::boolean(Table::of(mem, a[0])?.find(a[1]).1.is_some()))
    }),
    Builtin::new("hash-table-set!", 3, 3, |mem, a| match Weak::of(mem, a[0]) {
        Some(weak) => weak.set(a[1], a[2]),
        None => Table::of(mem, a[0])?.set(a[1], a[2]),
    }),
    Builtin::new("hash-table-delete!", 2, 2, |mem, a| {
        match Weak::of(mem, a[0]) {
            Some(weak) => weak.delete(a[1]),
            None => Table::of(mem, a[0])?.delete(a[1]),
        }
        Ok(Value::UNSPECIFIED)
    }),
    Builtin::new("hash-table-count", 1, 1, |mem, a| count(mem, a[0])),
    Builtin::new("hash-table-size", 1, 1, |mem, a| count(mem, a[0])),
    Builtin::new("%hash-table-entries", 1, 1, |mem, a| {
        let entries = Table::of(mem, a[0])?.entries();
        mem.vector(&entries)
    }),
    Builtin::new("hash-table-clear!", 1, 1, |mem, a| {
        if let Some(weak) = Weak::of(mem, a[0]) {
            return weak.clear();
        }
        let table = Table::of(mem, a[0])?;
        let buckets = mem.make_vector(7, Value::NIL)?;
        table.table.buckets.store(mem.scope(), buckets.into());
        table.table.count.store(0, Relaxed);
        Ok(Value::UNSPECIFIED)
    }),
    Builtin::new("hash", 1, 2, |mem, a| {
        let hash = (hash(mem, a[0]) >> 8) as i64;
        match a.get(1) {
            Some(&bound) => Ok(Value::fixnum(hash % args::size(bound)?.max(1) as i64)),
            None => Ok(Value::fixnum(hash)),
        }
    }),
];
