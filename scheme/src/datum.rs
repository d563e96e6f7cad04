//! Forms to heap data and back: `quote`, `read`, `eval`. Both ways without recursion, with sharing and cycles.

use crate::mem::Mem;
use crate::numbers;
use crate::object::*;
use crate::syntax::{Forms, Id, Ident, Location, Node};
use crate::trap;
use crate::value::Value;
use crate::vm::{Failure, Vm, register};
use firn::{Local, TaggedArray};
use rustc_hash::FxHashMap;

/// Where the data of forms is once it is in the heap: an array, and which node is where in it.
pub struct Placed {
    index: FxHashMap<Id, usize>,
}

impl Placed {
    /// A node's place.
    pub fn place(&self, id: Id) -> usize {
        self.index[&id]
    }
}

/// Makes heap data of these nodes and everything they refer to: the array holds it afterwards.
pub fn to_heap<'s>(
    vm: &mut Vm<'_, 's>,
    forms: &Forms,
    roots: &[Id],
) -> Result<(Local<'s, TaggedArray<crate::value::Scheme>>, Placed), Failure> {
    let mut index: FxHashMap<Id, usize> = FxHashMap::default();
    let mut order: Vec<Id> = Vec::new();
    let mut todo: Vec<Id> = roots.to_vec();
    while let Some(id) = todo.pop() {
        if index.contains_key(&id) {
            continue;
        }
        index.insert(id, order.len());
        order.push(id);
        if forms.origin(id).is_some() {
            continue;
        }
        match forms.node(id) {
            Node::Pair(car, cdr) => todo.extend([*cdr, *car]),
            Node::Vector(items) => todo.extend(items.iter().copied()),
            _ => {}
        }
    }
    let made = vm.alloc_array(order.len())?;
    // First the objects, then what they refer to, so that cycles need no care.
    let mut at = 0;
    while at < order.len() {
        vm.settle(register::SCRATCH, |mem, registers| {
            let made = made.get(mem.scope());
            let objects = mem.element(registers, register::ORIGINS).as_vector();
            while at < order.len() {
                let id = order[at];
                let value = match forms.origin(id) {
                    Some(origin) => mem.element(
                        objects.expect("forms with origins have objects"),
                        origin as usize,
                    ),
                    None => object(mem, forms.node(id), objects)?,
                };
                made.store(mem.scope(), at, value.into());
                at += 1;
            }
            Ok(Value::FALSE)
        })?;
    }
    let mut at = 0;
    while at < order.len() {
        let end = order.len().min(at + 20_000);
        vm.settle(register::SCRATCH, |mem, _| {
            let made = made.get(mem.scope());
            for &id in &order[at..end] {
                if forms.origin(id).is_some() {
                    continue;
                }
                let value = mem.element(made, index[&id]);
                match forms.node(id) {
                    Node::Pair(car, cdr) => {
                        let pair = value.as_pair().expect("made above");
                        let (car, cdr) =
                            (mem.element(made, index[car]), mem.element(made, index[cdr]));
                        pair.car.store(mem.scope(), car.into());
                        pair.cdr.store(mem.scope(), cdr.into());
                    }
                    Node::Vector(items) => {
                        let vector = value.as_vector().expect("made above");
                        for (place, item) in items.iter().enumerate() {
                            vector.store(mem.scope(), place, mem.element(made, index[item]).into());
                        }
                    }
                    _ => {}
                }
            }
            Ok(Value::FALSE)
        })?;
        at = end;
    }
    Ok((made, Placed { index }))
}

/// A trap whose result is the datum of a node, of whatever size.
pub fn deliver<'m>(forms: Forms, id: Id) -> trap::Trap<'m> {
    trap::TrapKind::Outside(Box::new(move |vm| deliver_now(vm, &forms, id))).into()
}

/// Leaves the datum of a node in the register RESULT.
///
/// # Errors
/// The end of memory.
pub fn deliver_now(vm: &mut Vm<'_, '_>, forms: &Forms, id: Id) -> Result<(), Failure> {
    let (made, placed) = to_heap(vm, forms, &[id])?;
    let place = placed.place(id);
    let cx: &firn::Scope<'_> = vm.cx;
    let value = made.get(cx).load(cx, place);
    vm.registers.get(cx).store(cx, register::RESULT, value);
    Ok(())
}

/// The object of a node, without what it refers to.
fn object<'m>(
    mem: Mem<'m, '_>,
    node: &Node,
    objects: Option<crate::value::Array<'m>>,
) -> trap::Result<'m> {
    match node {
        Node::Nil => Ok(Value::NIL),
        Node::Bool(value) => Ok(Value::boolean(*value)),
        Node::Char(c) => Ok(Value::char(*c)),
        Node::Number(number) => number.encode(mem),
        Node::Text(text) => mem.string(text),
        Node::Bytes(bytes) => {
            let made = mem.bytes(bytes.len())?;
            made.copy_from(0, bytes);
            Ok(Value::object(made))
        }
        Node::Ident(ident) => Ok(ident.as_symbol().map_or(Value::UNSPECIFIED, Value::symbol)),
        Node::Pair(..) => mem.cons(Value::FALSE, Value::FALSE),
        Node::Vector(items) => mem.make_vector(items.len(), Value::FALSE),
        Node::Eof => Ok(Value::EOF),
        Node::Unspecified => Ok(Value::UNSPECIFIED),
        Node::Object(number) => {
            Ok(mem.element(objects.expect("forms with objects have them"), *number as usize))
        }
    }
}

/// Forms of heap data. The objects that forms keep as they are, or that quoted forms must remain, are returned
/// beside it, by number.
pub fn from_heap<'m>(mem: Mem<'m, '_>, value: Value<'m>) -> (Forms, Id, Vec<Value<'m>>) {
    let mut forms = Forms::new();
    let mut objects: Vec<Value<'m>> = Vec::new();
    let mut known: FxHashMap<u64, Id> = FxHashMap::default();
    let at = Location::default();
    // Each value gets a node at once; compound ones are filled when their turn comes.
    let mut todo: Vec<(Value<'m>, Id)> = Vec::new();
    let mut node_of =
        |forms: &mut Forms, todo: &mut Vec<(Value<'m>, Id)>, value: Value<'m>| -> Id {
            if let Some(&id) = known.get(&value.bits()) {
                return id;
            }
            let compound = value.is_pair() || value.as_vector().is_some();
            let node = if compound {
                Node::Unspecified
            } else if let Some(symbol) = value.as_symbol() {
                Node::Ident(Ident::symbol(symbol))
            } else if let Some(c) = value.as_char() {
                Node::Char(c)
            } else if let Some(number) = numbers::decode(mem, value) {
                Node::Number(number)
            } else {
                let constants = [
                    (Value::NIL, Node::Nil),
                    (Value::TRUE, Node::Bool(true)),
                    (Value::FALSE, Node::Bool(false)),
                    (Value::EOF, Node::Eof),
                    (Value::UNSPECIFIED, Node::Unspecified),
                ];
                match constants.into_iter().find(|(constant, _)| *constant == value) {
                    Some((_, node)) => node,
                    None => match mem.object::<StringObject>(value) {
                        Some(text) => Node::Text(mem.text(text).into()),
                        None => Node::Object(u32::MAX),
                    },
                }
            };
            let kept = matches!(node, Node::Object(_));
            let text = matches!(node, Node::Text(_));
            let id = forms.add(node, at);
            if kept {
                forms.replace(id, Node::Object(objects.len() as u32));
                objects.push(value);
            } else if compound || text {
                forms.set_origin(id, objects.len() as u32);
                objects.push(value);
            }
            if compound {
                known.insert(value.bits(), id);
                todo.push((value, id));
            }
            id
        };
    let root = node_of(&mut forms, &mut todo, value);
    while let Some((value, id)) = todo.pop() {
        if let Some(pair) = value.as_pair() {
            let car = node_of(&mut forms, &mut todo, mem.car(pair));
            let cdr = node_of(&mut forms, &mut todo, mem.cdr(pair));
            forms.replace(id, Node::Pair(car, cdr));
        } else if let Some(vector) = value.as_vector() {
            let items = (0..vector.len())
                .map(|index| node_of(&mut forms, &mut todo, mem.element(vector, index)))
                .collect();
            forms.replace(id, Node::Vector(items));
        }
    }
    (forms, root, objects)
}
