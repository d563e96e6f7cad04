//! Tags that belong to a type, and allocation that may be refused: what they promise.

use firn::{
    Gc, Heap, NoGc, Options, OutOfMemory, TagRule, Tagged, TaggedArray, Trace, TypedTag, Value,
    WordRule,
};

struct Lisp;
impl WordRule for Lisp {
    const RULE: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 0b110, address: !7 };
    const TYPED: u8 = 0b10;
}
impl TypedTag<1> for Lisp {
    type Target = Pair;
}

#[derive(Trace)]
struct Pair {
    car: Tagged<Lisp>,
    cdr: Tagged<Lisp>,
}

fn empty() -> Pair {
    Pair { car: Tagged::new(0), cdr: Tagged::new(0) }
}

fn in_heap<R>(options: &str, f: impl FnOnce(&mut firn::Scope<'_>) -> R) -> R {
    Heap::new(&Options::parse(options).unwrap()).unwrap().attach(f)
}

#[test]
fn nothing_but_the_type_gets_its_tag() {
    // Not even with a null address, which would be an immediate.
    assert!(Value::<Lisp>::immediate(1).is_none());
    assert!(Value::<Lisp>::immediate(2).is_some());
    assert!(std::panic::catch_unwind(|| Tagged::<Lisp>::new(1)).is_err());
    in_heap("heap=16m", |cx| {
        let array = cx.alloc_tagged::<Lisp>(1).unwrap().get(cx);
        assert!(Value::<Lisp>::reference(array, 1).is_none());
        let other = Value::<Lisp>::reference(array, 2).expect("tag 010 is anyone's");
        assert!(other.as_typed::<1>().is_none());
        assert!(other.downcast::<TaggedArray<Lisp>>(cx).is_some());
        let pair = cx.alloc(empty()).unwrap().get(cx);
        assert!(Value::<Lisp>::reference(pair, 1).is_none(), "only `typed` makes it");
        let typed = Value::<Lisp>::typed::<1>(pair);
        assert!(Gc::ptr_eq(typed.as_typed::<1>().expect("a pair"), pair));
        assert!(typed.downcast::<Pair>(cx).is_some());
    });
}

#[test]
fn a_word_of_another_object_cannot_be_filled() {
    in_heap("heap=16m", |cx| {
        let nogc = cx.reserve(1000).unwrap();
        let first = nogc.try_alloc_with(empty(), |_| {}).unwrap();
        let filled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let nil = Value::immediate(0).unwrap();
            nogc.try_alloc_with(empty(), |pair| pair.set(&first.car, nil))
        }));
        assert!(filled.is_err());
    });
}

/// Builds a list in stretches; returns its length and how many stretches it took.
fn build(options: &str, len: usize) -> (usize, usize) {
    in_heap(options, |cx| -> Result<_, OutOfMemory> {
        let home = cx.alloc(empty())?;
        let (mut made, mut stretches) = (0, 0);
        while made < len {
            stretches += 1;
            let nogc = cx.reserve(NoGc::size_of::<Pair>())?;
            let mut list = home.get(&nogc).car.load(&nogc);
            while made < len {
                let Some(pair) = nogc.try_alloc_with(empty(), |pair| pair.set(&pair.cdr, list))
                else {
                    break;
                };
                list = Value::typed::<1>(pair);
                made += 1;
            }
            home.get(&nogc).car.store(&nogc, list);
        }
        let (mut at, mut length) = (home.get(cx).car.load(cx), 0);
        while let Some(pair) = at.as_typed::<1>() {
            length += 1;
            let pair: &Pair = &pair;
            at = pair.cdr.load(cx);
        }
        Ok((length, stretches))
    })
    .unwrap()
}

#[test]
fn refused_allocation_goes_on_after_a_reservation() {
    for backend in ["pingpong", "art", "stw", "mprotect"] {
        let (length, stretches) = build(&format!("heap=32m,backend={backend}"), 200_000);
        assert_eq!(length, 200_000);
        assert!(stretches > 10, "{stretches}");
    }
}

#[test]
fn stress_reaches_allocation_inside_a_stretch_and_always_gives_what_was_reserved() {
    // Every allocation collects, and still each stretch gets its one pair.
    assert_eq!(build("heap=16m,stress-every=1", 50), (50, 50));
    let (length, stretches) = build("heap=16m,stress-every=10,verify=true", 1000);
    assert_eq!(length, 1000);
    assert!(stretches >= 100, "{stretches}");
}
