//! The digest of a graph: structure and contents, nothing of addresses.
//!
//! Objects are numbered in the order in which a breadth-first walk from the roots first meets
//! them, slots in ascending order. The digest absorbs what the walk sees, with numbers in the
//! place of references. The heap and the model are walked by the same code ([`View`]), so equal
//! graphs have equal digests and, but for a 64-bit collision, only they. When two differ,
//! [`first_difference`] walks both in step and says where.
//!
//! An ephemeron is followed once its key has been reached otherwise, however long that takes; so the
//! walk finds out by itself which keys are dead. What a dead one still holds counts only if it must have
//! been broken: after a collection that nothing ran beside.

use firn::{Gc, RefArray, Scope};

use super::kinds::{Any, Edge, Hub, Kind, REGISTERS, Registers};
use super::model::{Id, IdMap, Model};
use crate::workloads::rng::fin;

/// A graph that can be walked.
pub trait View {
    /// Names an object.
    type Node: Copy;
    /// Distinguishes objects within this view.
    fn key(&self, node: Self::Node) -> u64;
    /// The object's kind.
    fn kind(&self, node: Self::Node) -> Kind;
    /// How many slots it has.
    fn slots(&self, node: Self::Node) -> usize;
    /// What slot `i` holds.
    fn slot(&self, node: Self::Node, i: usize) -> Edge<Self::Node>;
    /// How many data words it has.
    fn words(&self, node: Self::Node) -> usize;
    /// Data word `i`.
    fn word(&self, node: Self::Node, i: usize) -> u64;
    /// How many of its slots an ephemeron whose key is dead still fills after a collection.
    fn kept_by_dead(&self, node: Self::Node) -> u64;
}

/// The heap. No collection can happen while it exists, so addresses identify objects.
pub struct HeapView<'m, 's> {
    /// The borrow that keeps collections off.
    pub cx: &'m Scope<'s>,
}

impl<'m> View for HeapView<'m, '_> {
    type Node = Any<'m>;

    fn key(&self, node: Any<'m>) -> u64 {
        node.address()
    }
    fn kind(&self, node: Any<'m>) -> Kind {
        node.kind()
    }
    fn slots(&self, node: Any<'m>) -> usize {
        node.kind().slots(node.len())
    }
    fn slot(&self, node: Any<'m>, i: usize) -> Edge<Any<'m>> {
        node.slot(self.cx, i)
    }
    fn words(&self, node: Any<'m>) -> usize {
        node.kind().words(node.len())
    }
    fn word(&self, node: Any<'m>, i: usize) -> u64 {
        node.word(i)
    }
    fn kept_by_dead(&self, node: Any<'m>) -> u64 {
        (0..self.slots(node)).filter(|&i| node.slot(self.cx, i).target().is_some()).count() as u64
    }
}

/// The roots of the heap in their canonical order, as [`Model::roots`] has them.
pub fn heap_roots<'m>(
    cx: &'m Scope<'_>,
    registers: Gc<'m, RefArray<Registers>>,
    tables: [Gc<'m, RefArray<Hub>>; 2],
) -> Vec<Edge<Any<'m>>> {
    let mut roots = Vec::new();
    for thread in 0..registers.len() {
        let of_thread = registers.load(cx, thread).expect("every thread has registers");
        for &kind in Kind::ALL {
            roots.extend((0..REGISTERS).map(|i| Edge::to(of_thread.get(cx, kind, i))));
        }
    }
    for table in tables {
        roots.extend((0..table.len()).map(|i| Edge::to(table.load(cx, i).map(Any::Hub))));
    }
    roots
}

impl View for Model<'_> {
    type Node = Id;

    fn key(&self, node: Id) -> u64 {
        node
    }
    fn kind(&self, node: Id) -> Kind {
        self.find(node).kind
    }
    fn slots(&self, node: Id) -> usize {
        self.find(node).slots.len()
    }
    fn slot(&self, node: Id, i: usize) -> Edge<Id> {
        self.find(node).slots[i]
    }
    fn words(&self, node: Id) -> usize {
        self.find(node).words.len()
    }
    fn word(&self, node: Id, i: usize) -> u64 {
        self.find(node).words[i]
    }
    fn kept_by_dead(&self, _node: Id) -> u64 {
        0
    }
}

/// What a walk found.
#[derive(Debug)]
pub struct Digest {
    /// The digest itself.
    pub value: u64,
    /// The objects that were reached, by key, with their numbers.
    pub reached: IdMap<u32>,
}

/// Absorbs one word; every bit of both inputs reaches the high half of the result.
#[inline]
fn absorb(digest: u64, word: u64) -> u64 {
    (digest ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

/// A walk under way.
struct Walk<'a, V: View> {
    view: &'a V,
    reached: IdMap<u32>,
    queue: Vec<V::Node>,
    value: u64,
}

impl<V: View> Walk<'_, V> {
    fn absorb(&mut self, word: u64) {
        self.value = absorb(self.value, word);
    }

    fn edge(&mut self, edge: Edge<V::Node>) {
        match edge {
            Edge::Null => self.absorb(0),
            Edge::Int(x) => [1, x].into_iter().for_each(|word| self.absorb(word)),
            Edge::To(node) => {
                let next = self.queue.len() as u32;
                let number = *self.reached.entry(self.view.key(node)).or_insert(next);
                if number == next {
                    self.queue.push(node);
                }
                [2, u64::from(number)].into_iter().for_each(|word| self.absorb(word));
            }
        }
    }

    fn slots(&mut self, node: V::Node) {
        let slots = self.view.slots(node);
        self.absorb(slots as u64);
        for i in 0..slots {
            self.edge(self.view.slot(node, i));
        }
    }
}

/// Walks everything that `roots` reach and digests it; `broken`: with the state of ephemerons whose keys are dead,
/// which is known after a collection.
pub fn digest<V: View>(view: &V, roots: &[Edge<V::Node>], broken: bool) -> Digest {
    let mut walk = Walk { view, reached: IdMap::default(), queue: Vec::new(), value: 0 };
    for &root in roots {
        walk.edge(root);
    }
    let (mut at, mut waiting) = (0, Vec::new());
    loop {
        while at < walk.queue.len() {
            let node = walk.queue[at];
            at += 1;
            walk.absorb(view.kind(node) as u64);
            if view.kind(node) == Kind::Weak {
                waiting.push(node);
                continue;
            }
            walk.slots(node);
            let words = view.words(node);
            walk.absorb(words as u64);
            for i in 0..words {
                walk.absorb(view.word(node, i));
            }
        }
        waiting.retain(|&node| {
            let key = view.slot(node, 0).target();
            let live = key.is_some_and(|key| walk.reached.contains_key(&view.key(key)));
            if live {
                walk.slots(node);
            }
            !live
        });
        if at == walk.queue.len() {
            break;
        }
    }
    if broken {
        waiting.into_iter().for_each(|node| walk.absorb(view.kept_by_dead(node)));
    }
    Digest { value: fin(walk.value), reached: walk.reached }
}

/// Walks two graphs in step and says where they first differ: the path from the root, and what
/// each has there. `None` if they are equal.
pub fn first_difference<A: View, B: View>(
    (a, roots_a, name_a): (&A, &[Edge<A::Node>], &str),
    (b, roots_b, name_b): (&B, &[Edge<B::Node>], &str),
) -> Option<String> {
    let mut walk = Pairs { a_to_b: IdMap::default(), b_to_a: IdMap::default(), queue: Vec::new() };
    let said = |what: &str, of_a: String, of_b: String| {
        format!("{what}: {name_a} has {of_a}, {name_b} has {of_b}")
    };
    if roots_a.len() != roots_b.len() {
        return Some(said("roots", roots_a.len().to_string(), roots_b.len().to_string()));
    }
    for (i, (&of_a, &of_b)) in roots_a.iter().zip(roots_b).enumerate() {
        if let Err((of_a, of_b)) = walk.step(a, b, of_a, of_b, (usize::MAX, i)) {
            return Some(said(&format!("root {i}"), of_a, of_b));
        }
    }
    let mut at = 0;
    while at < walk.queue.len() {
        let Pair { of_a, of_b, .. } = walk.queue[at];
        let (slots, words) = (a.slots(of_a), a.words(of_a));
        let shape = |kind: Kind, slots, words| format!("{kind:?} of {slots} slots, {words} words");
        let (one, two) =
            (shape(a.kind(of_a), slots, words), shape(b.kind(of_b), b.slots(of_b), b.words(of_b)));
        if one != two {
            return Some(said(&walk.path(at), one, two));
        }
        for i in 0..words {
            let (x, y) = (a.word(of_a, i), b.word(of_b, i));
            if x != y {
                let place = format!("{} ({one}), word {i}", walk.path(at));
                return Some(said(&place, format!("{x:#x}"), format!("{y:#x}")));
            }
        }
        let weak = a.kind(of_a) == Kind::Weak;
        for i in 0..slots {
            // One that may be dead is broken in the heap and whole in the model.
            if weak && (a.slot(of_a, i).target().is_none() || b.slot(of_b, i).target().is_none()) {
                continue;
            }
            if let Err((x, y)) = walk.step(a, b, a.slot(of_a, i), b.slot(of_b, i), (at, i)) {
                return Some(said(&format!("{} ({one}), slot {i}", walk.path(at)), x, y));
            }
        }
        at += 1;
    }
    None
}

/// Two objects that must be one, and the slot that led to them.
#[derive(Clone, Copy)]
struct Pair<A, B> {
    of_a: A,
    of_b: B,
    from: (usize, usize),
}

/// A walk of two graphs in step.
struct Pairs<A, B> {
    a_to_b: IdMap<u64>,
    b_to_a: IdMap<u64>,
    queue: Vec<Pair<A, B>>,
}

impl<A: Copy, B: Copy> Pairs<A, B> {
    /// Follows an edge in both graphs; `Err` says what each has, if that differs.
    fn step(
        &mut self,
        a: &impl View<Node = A>,
        b: &impl View<Node = B>,
        of_a: Edge<A>,
        of_b: Edge<B>,
        from: (usize, usize),
    ) -> Result<(), (String, String)> {
        match (of_a, of_b) {
            (Edge::Null, Edge::Null) => Ok(()),
            (Edge::Int(x), Edge::Int(y)) if x == y => Ok(()),
            (Edge::To(x), Edge::To(y)) => {
                let (key_a, key_b) = (a.key(x), b.key(y));
                match (self.a_to_b.get(&key_a), self.b_to_a.get(&key_b)) {
                    (None, None) => {
                        self.a_to_b.insert(key_a, key_b);
                        self.b_to_a.insert(key_b, key_a);
                        self.queue.push(Pair { of_a: x, of_b: y, from });
                        Ok(())
                    }
                    (Some(&known), _) if known == key_b => Ok(()),
                    _ => Err((
                        format!("{:?} {key_a:#x}", a.kind(x)),
                        format!("{:?} {key_b:#x}, which is another object", b.kind(y)),
                    )),
                }
            }
            _ => Err((describe(of_a, |n| a.kind(n)), describe(of_b, |n| b.kind(n)))),
        }
    }

    /// How the walk came to pair `at`.
    fn path(&self, mut at: usize) -> String {
        let mut steps = Vec::new();
        while at != usize::MAX {
            let (parent, slot) = self.queue[at].from;
            steps.push(slot.to_string());
            at = parent;
        }
        steps.reverse();
        format!("root {}", steps.join(" -> slot "))
    }
}

fn describe<N: Copy>(edge: Edge<N>, kind: impl Fn(N) -> Kind) -> String {
    match edge {
        Edge::Null => "nothing".into(),
        Edge::Int(x) => format!("the integer {x}"),
        Edge::To(n) => format!("{:?}", kind(n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::graph::model::{Object, Objects, Partition};

    /// A model of hubs whose first slots form `edges`, with one root.
    fn hubs(edges: &[(Id, [Option<Id>; 3])]) -> (Partition, Objects) {
        let mut part = Partition::new(1);
        for &(id, slots) in edges {
            let mut object = Object::new(Kind::Hub, 0, 0);
            for (i, slot) in slots.into_iter().enumerate() {
                object.slots[i] = Edge::to(slot);
            }
            part.owned.insert(id, object);
        }
        part.segments[0][0] = Some(edges[0].0);
        (part, Objects::default())
    }

    fn of(mut graph: (Partition, Objects)) -> (u64, usize) {
        let model = Model { partitions: vec![&mut graph.0], frozen: &mut graph.1 };
        let digest = digest(&model, &model.roots(), true);
        (digest.value, digest.reached.len())
    }

    #[test]
    fn names_do_not_matter_and_garbage_does_not_count() {
        let a = hubs(&[(1, [Some(2), Some(1), None]), (2, [None; 3])]);
        let b = hubs(&[(8, [Some(5), Some(8), None]), (5, [None; 3]), (6, [Some(8); 3])]);
        assert_eq!(of(a), of(b));
    }

    #[test]
    fn sharing_is_not_the_same_as_equal_copies() {
        let shared = || hubs(&[(1, [Some(2), Some(2), None]), (2, [None; 3])]);
        let copies = || hubs(&[(1, [Some(2), Some(3), None]), (2, [None; 3]), (3, [None; 3])]);
        assert_eq!((of(shared()).1, of(copies()).1), (2, 3));
        assert_ne!(of(shared()).0, of(copies()).0);
        let (mut a, mut b) = (shared(), copies());
        let one = Model { partitions: vec![&mut a.0], frozen: &mut a.1 };
        let two = Model { partitions: vec![&mut b.0], frozen: &mut b.1 };
        let where_ = first_difference((&one, &one.roots(), "one"), (&two, &two.roots(), "two"));
        assert!(where_.unwrap().contains("slot 1"), "the second slot leads to another object");
    }

    #[test]
    fn a_changed_word_changes_the_digest_and_is_found() {
        let (mut a, mut b) = (hubs(&[(1, [None; 3])]), hubs(&[(1, [None; 3])]));
        b.0.owned.get_mut(&1).unwrap().words[1] = 77;
        let one = Model { partitions: vec![&mut a.0], frozen: &mut a.1 };
        let two = Model { partitions: vec![&mut b.0], frozen: &mut b.1 };
        let value = |model: &Model<'_>| digest(model, &model.roots(), true).value;
        assert_ne!(value(&one), value(&two));
        let said = first_difference((&one, &one.roots(), "heap"), (&two, &two.roots(), "model"));
        let said = said.unwrap();
        assert!(said.contains("word 1") && said.contains("0x4d"), "{said}");
    }

    #[test]
    fn ephemerons_are_followed_when_their_keys_are_reached_in_whatever_order() {
        let graph = |root: Option<Id>| {
            // Hub 1 holds ephemeron 8, of hub 2, whose value 3 holds ephemeron 9, of the root, whose value is 2.
            let mut graph = hubs(&[(1, [root, None, None]), (2, [None; 3]), (3, [None; 3])]);
            let mut weak = |id, holder: Id, key, value| {
                let mut object = Object::new(Kind::Weak, id, 0);
                object.slots = vec![Edge::To(key), Edge::To(value)];
                graph.0.owned.insert(id, object);
                let slots = &mut graph.0.owned.get_mut(&holder).unwrap().slots;
                *slots.last_mut().unwrap() = Edge::To(id);
            };
            weak(8, 1, 2, 3);
            weak(9, 3, 1, 2);
            graph
        };
        // The root, the ephemeron; nothing leads to its key.
        assert_eq!(of(graph(None)).1, 2);
        // With the key, everything.
        assert_eq!(of(graph(Some(2))).1, 5);
        // With its value, that leads to the key by way of the other ephemeron.
        assert_eq!(of(graph(Some(3))).1, 5);
    }

    #[test]
    fn equal_graphs_have_no_difference() {
        let (mut a, mut b) =
            (hubs(&[(1, [Some(1), None, Some(1)])]), hubs(&[(4, [Some(4), None, Some(4)])]));
        let one = Model { partitions: vec![&mut a.0], frozen: &mut a.1 };
        let two = Model { partitions: vec![&mut b.0], frozen: &mut b.1 };
        assert_eq!(first_difference((&one, &one.roots(), "1"), (&two, &two.roots(), "2")), None);
    }
}
