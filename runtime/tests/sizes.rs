//! Lengths that no memory has: an array of them is refused, wherever it is asked for, and never comes out small.

use firn::*;

struct Low;
impl WordRule for Low {
    const RULE: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 0b1, address: !7 };
}

#[derive(Trace)]
struct Leaf {
    value: u64,
}

/// Lengths whose bytes, or whose words, do not fit into a word; and some that do.
const LENGTHS: [usize; 8] = [
    usize::MAX,
    usize::MAX - 6,
    usize::MAX / 2 + 1,
    (1 << 61) - 1,
    1 << 61,
    (1 << 61) + 1,
    (1 << 60) - 1,
    1 << 48,
];

#[test]
fn an_array_of_a_length_that_no_memory_has_is_refused() {
    let heap = Heap::new(&Options::parse("heap=16m,backend=stw").unwrap()).unwrap();
    let alive = heap.attach(|cx| {
        let leaf = cx.alloc(Leaf { value: 42 })?;
        for len in LENGTHS {
            {
                let nogc = cx.reserve(64)?;
                assert!(nogc.try_alloc_data::<u8>(len).is_none(), "{len:#x} bytes");
                assert!(nogc.try_alloc_data::<f64>(len).is_none(), "{len:#x} numbers");
                let zero = |_| Value::<Low>::immediate(1).expect("no reference");
                assert!(nogc.try_alloc_tagged::<Low>(len, zero).is_none(), "{len:#x} words");
            }
            assert!(cx.alloc_data::<u8>(len).is_err() && cx.alloc_refs::<Leaf>(len).is_err());
            let bytes = [NoGc::size_of_refs(len), NoGc::size_of_data::<u8>(len)];
            assert!(bytes.into_iter().all(|bytes| bytes > 1 << 47), "{len:#x}: {bytes:x?}");
        }
        Ok::<_, OutOfMemory>(leaf.get(cx).value)
    });
    assert_eq!(alive.unwrap(), 42);
}

#[test]
fn an_array_beyond_its_reservation_is_a_panic_however_long_it_is() {
    type Ask = fn(&NoGc<'_, '_>, usize);
    let ways: [Ask; 3] = [
        |nogc, len| _ = nogc.alloc_data::<u8>(len),
        |nogc, len| _ = nogc.alloc_refs::<Leaf>(len),
        |nogc, len| _ = nogc.alloc_tagged::<Low>(len),
    ];
    let heap = Heap::new(&Options::parse("heap=16m,backend=stw").unwrap()).unwrap();
    for ask in ways {
        for len in LENGTHS {
            let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                heap.attach(|cx| ask(&cx.reserve(64).unwrap(), len));
            }));
            let text = *refused.unwrap_err().downcast::<String>().unwrap_or_default();
            assert!(!text.contains("overflow"), "{len:#x}: {text}");
        }
    }
}
