//! The interner: names of symbols.
//!
//! A symbol is a number, its name lives here for ever. Process-wide, as symbols of two interpreters may be
//! compared without harm.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, RwLock};

/// A symbol: the number of its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Symbol(pub u32);

#[derive(Default)]
struct Table {
    names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
    bytes: usize,
}

impl Table {
    fn add(&mut self, name: Arc<str>) -> Symbol {
        // Its entries in both tables, and the counts of the string.
        const WITH_A_NAME: usize = 64;
        self.bytes += name.len() + WITH_A_NAME;
        self.names.push(name);
        Symbol(self.names.len() as u32 - 1)
    }
}

static TABLE: LazyLock<RwLock<Table>> = LazyLock::new(RwLock::default);

impl Symbol {
    /// The symbol with this name.
    pub fn intern(name: &str) -> Symbol {
        if let Some(&number) = TABLE.read().expect("the interner is whole").numbers.get(name) {
            return Symbol(number);
        }
        let mut table = TABLE.write().expect("the interner is whole");
        if let Some(&number) = table.numbers.get(name) {
            return Symbol(number);
        }
        let name: Arc<str> = name.into();
        let symbol = table.add(name.clone());
        table.numbers.insert(name, symbol.0);
        symbol
    }

    /// Bytes that the names take, about.
    pub fn bytes() -> usize {
        TABLE.read().expect("the interner is whole").bytes
    }

    /// A symbol that no other is equal to, whatever its name.
    pub fn uninterned(name: &str) -> Symbol {
        TABLE.write().expect("the interner is whole").add(name.into())
    }

    /// Its name.
    pub fn name(self) -> Arc<str> {
        TABLE.read().expect("the interner is whole").names[self.0 as usize].clone()
    }
}
