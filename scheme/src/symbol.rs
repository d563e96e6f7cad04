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
        let number = table.names.len() as u32;
        let name: Arc<str> = name.into();
        table.names.push(name.clone());
        table.numbers.insert(name, number);
        Symbol(number)
    }

    /// A symbol that no other is equal to, whatever its name.
    pub fn uninterned(name: &str) -> Symbol {
        let mut table = TABLE.write().expect("the interner is whole");
        table.names.push(name.into());
        Symbol(table.names.len() as u32 - 1)
    }

    /// Its name.
    pub fn name(self) -> Arc<str> {
        TABLE.read().expect("the interner is whole").names[self.0 as usize].clone()
    }
}
