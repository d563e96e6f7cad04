//! Programs as data outside the heap: the reader's result, what the expander works on.
//!
//! [`Forms`] is an arena of nodes with locations; nodes refer to each other by number, so that data may be deep,
//! shared or circular, and is dropped without recursion. Heap data becomes forms for `eval`, forms become heap data
//! for `read` and `quote` ([`crate::datum`]).

pub mod complete;
pub mod reader;

use crate::numbers::Number;
use crate::symbol::Symbol;

/// A node's number in its arena.
pub type Id = u32;

/// An identifier: a symbol, or an alias that a macro's expansion made for one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ident(pub u32);

impl Ident {
    const ALIAS: u32 = 1 << 31;

    /// The identifier that a program writes as this symbol.
    pub fn symbol(symbol: Symbol) -> Ident {
        Ident(symbol.0)
    }

    /// The alias with this number.
    pub fn alias(number: usize) -> Ident {
        Ident(Self::ALIAS | number as u32)
    }

    /// Its number, if it is an alias.
    pub fn as_alias(self) -> Option<usize> {
        (self.0 & Self::ALIAS != 0).then_some((self.0 & !Self::ALIAS) as usize)
    }

    /// The symbol, if it is one.
    pub fn as_symbol(self) -> Option<Symbol> {
        (self.0 & Self::ALIAS == 0).then_some(Symbol(self.0))
    }
}

/// A place in a source text: line and column, from 1; 0 where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Location {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
    /// In which text.
    pub file: FileName,
}

/// The name of a source text: a symbol. By default the text that is being loaded; another one where forms came in by
/// `include` or from a library's file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FileName(u32);

impl FileName {
    /// The text with this name.
    pub fn new(name: &str) -> FileName {
        FileName(Symbol::intern(name).0 + 1)
    }

    /// Its name, if it is not the text that is being loaded.
    pub fn symbol(self) -> Option<Symbol> {
        self.0.checked_sub(1).map(Symbol)
    }
}

/// A datum.
#[derive(Clone, Debug)]
pub enum Node {
    /// `()`
    Nil,
    /// `#t`, `#f`
    Bool(bool),
    /// A character.
    Char(char),
    /// A number.
    Number(Number),
    /// A string.
    Text(Box<str>),
    /// A bytevector.
    Bytes(Box<[u8]>),
    /// A symbol or alias.
    Ident(Ident),
    /// A pair.
    Pair(Id, Id),
    /// A vector.
    Vector(Box<[Id]>),
    /// The end-of-file object, the unspecified value.
    Eof,
    /// What has no value.
    Unspecified,
    /// Any other object: its number in the vector of objects that accompanies the forms.
    Object(u32),
}

/// An arena of nodes.
#[derive(Clone, Default, Debug)]
pub struct Forms {
    nodes: Vec<Node>,
    locations: Vec<Location>,
    /// For nodes made from heap data: the object it was, by number. Parallel to `nodes`, or shorter.
    origins: Vec<u32>,
}

impl Forms {
    /// An empty arena.
    pub fn new() -> Forms {
        Forms::default()
    }

    /// Adds a node.
    pub fn add(&mut self, node: Node, at: Location) -> Id {
        self.nodes.push(node);
        self.locations.push(at);
        self.nodes.len() as Id - 1
    }

    /// A node.
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    /// Replaces a node.
    pub fn replace(&mut self, id: Id, node: Node) {
        self.nodes[id as usize] = node;
    }

    /// Where a node was read.
    pub fn at(&self, id: Id) -> Location {
        self.locations[id as usize]
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Forgets all nodes but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.nodes.truncate(len);
        self.locations.truncate(len);
        self.origins.truncate(len);
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Notes that a node is the heap object of this number.
    pub fn set_origin(&mut self, id: Id, object: u32) {
        if self.origins.len() <= id as usize {
            self.origins.resize(id as usize + 1, u32::MAX);
        }
        self.origins[id as usize] = object;
    }

    /// The number of the heap object that a node is.
    pub fn origin(&self, id: Id) -> Option<u32> {
        self.origins.get(id as usize).copied().filter(|&object| object != u32::MAX)
    }

    /// A pair's halves.
    pub fn pair(&self, id: Id) -> Option<(Id, Id)> {
        match self.nodes[id as usize] {
            Node::Pair(car, cdr) => Some((car, cdr)),
            _ => None,
        }
    }

    /// An identifier.
    pub fn ident(&self, id: Id) -> Option<Ident> {
        match self.nodes[id as usize] {
            Node::Ident(ident) => Some(ident),
            _ => None,
        }
    }

    /// Whether it is `()`.
    pub fn is_nil(&self, id: Id) -> bool {
        matches!(self.nodes[id as usize], Node::Nil)
    }

    /// The elements of a proper list; `None` if it is improper or circular.
    pub fn list(&self, mut id: Id) -> Option<Vec<Id>> {
        let mut elements = Vec::new();
        while let Some((car, cdr)) = self.pair(id) {
            elements.push(car);
            id = cdr;
            if elements.len() > self.nodes.len() {
                return None;
            }
        }
        self.is_nil(id).then_some(elements)
    }

    /// A list of these elements, with this tail.
    pub fn make_list(&mut self, elements: &[Id], tail: Option<Id>, at: Location) -> Id {
        let mut list = tail.unwrap_or_else(|| self.add(Node::Nil, at));
        for &element in elements.iter().rev() {
            let place = self.at(element);
            list = self.add(Node::Pair(element, list), place);
        }
        if !elements.is_empty() {
            self.locations[list as usize] = at;
        }
        list
    }
}
