//! A field outside the heap cannot be made to hold a reference: the collector would not see it.

use firn::{Field, Heap, Options, TagRule, Tagged, Trace, Value, WordRule};

#[derive(Trace)]
struct Node {
    next: Field<Node>,
}

struct Low;

impl WordRule for Low {
    const RULE: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 1, address: !7 };
}

#[test]
#[should_panic(expected = "not in the heap")]
fn a_field_on_the_stack_takes_no_reference() {
    let heap = Heap::new(&Options::parse("heap=16m,backend=stw").unwrap()).unwrap();
    heap.attach(|cx| {
        let node = cx.alloc(Node { next: Field::null() }).unwrap();
        let stray = Field::<Node>::null();
        stray.store(cx, Some(node.get(cx)));
    });
}

#[test]
#[should_panic(expected = "not in the heap")]
fn a_tagged_word_on_the_stack_takes_no_reference() {
    let heap = Heap::new(&Options::parse("heap=16m,backend=stw").unwrap()).unwrap();
    heap.attach(|cx| {
        let node = cx.alloc(Node { next: Field::null() }).unwrap();
        let stray = Tagged::<Low>::new(1);
        stray.store(cx, Value::reference(node.get(cx), 0).unwrap());
    });
}
