//! New objects are what they were asked to be, whatever their memory contained before: allocation zeroes nothing ahead.

use firn::{
    DataArray, Gc, Guardian, Heap, NoGc, OutOfMemory, RefArray, Scope, TagRule, TaggedArray,
    TaggedGuardian, WordRule,
};
use std::sync::atomic::{AtomicBool, Ordering};

#[path = "support/ways.rs"]
mod ways;
use ways::each_way;

struct Lisp;

impl WordRule for Lisp {
    const RULE: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 0b1, address: !7 };
}

/// Words that are no header of any layout.
const JUNK: u64 = 0xffff_ffff_ffff_ffff;

/// Fills memory that is about to be garbage: as much as four heaps, so that each page is used again.
fn litter(cx: &mut Scope<'_>, bytes: usize) -> Result<(), OutOfMemory> {
    const WORDS: usize = 500;
    for _ in 0..bytes / (WORDS * 8) {
        cx.scope(|cx| {
            let words = cx.alloc_data::<u64>(WORDS)?.get(cx);
            (0..WORDS).for_each(|index| words.set(index, JUNK));
            Ok::<_, OutOfMemory>(())
        })?;
    }
    Ok(())
}

fn all_null(cx: &Scope<'_>, array: Gc<'_, RefArray<DataArray<u8>>>) -> bool {
    (0..array.len()).all(|index| array.load(cx, index).is_none())
}

fn all_zero(array: Gc<'_, DataArray<u8>>) -> bool {
    (0..array.len()).all(|index| array.get(index) == 0)
}

fn all_immediate_zero(cx: &Scope<'_>, array: Gc<'_, TaggedArray<Lisp>>) -> bool {
    (0..array.len()).all(|index| array.load(cx, index).bits() == 0)
}

/// One of each kind whose contents nobody gives, of `len` elements, in both manners of allocating.
fn allocate(cx: &mut Scope<'_>, len: usize) -> Result<(), OutOfMemory> {
    let refs = cx.alloc_refs::<DataArray<u8>>(len)?;
    assert!(all_null(cx, refs.get(cx)), "references, {len}");
    let data = cx.alloc_data::<u8>(len)?;
    assert!(all_zero(data.get(cx)), "data, {len}");
    let tagged = cx.alloc_tagged::<Lisp>(len)?;
    assert!(all_immediate_zero(cx, tagged.get(cx)), "tagged words, {len}");
    let guardian: firn::Local<'_, Guardian<DataArray<u8>>> = cx.alloc_guardian()?;
    assert!(guardian.get(cx).poll(cx).is_none(), "a guardian");
    let len = len.min(1000);
    let most = 2 * NoGc::size_of_refs(len) + 2 * NoGc::size_of_data::<u8>(len) + 2 * NoGc::GUARDIAN;
    let nogc = cx.reserve(most)?;
    assert!(all_null(&nogc, nogc.alloc_refs(len)), "references, {len}, reserved");
    assert!(all_zero(nogc.alloc_data(len)), "data, {len}, reserved");
    assert!(all_immediate_zero(&nogc, nogc.alloc_tagged(len)), "tagged words, {len}, reserved");
    assert!(all_zero(nogc.try_alloc_data(len).expect("reserved")), "data, {len}, tried");
    let guardian: Gc<'_, Guardian<DataArray<u8>>> = nogc.alloc_guardian();
    assert!(guardian.poll(&nogc).is_none(), "a guardian, reserved");
    let guardian: Gc<'_, TaggedGuardian<Lisp>> =
        nogc.try_alloc_tagged_guardian().expect("reserved");
    assert!(guardian.poll(&nogc).is_none(), "a guardian of tagged words, reserved");
    Ok(())
}

#[test]
fn arrays_and_guardians_are_empty_in_memory_that_was_full() {
    each_way("heap=16m", |heap: &Heap, way| {
        heap.attach(|cx| {
            litter(cx, 64 << 20)?;
            for round in 0..40 {
                litter(cx, 1 << 20)?;
                for len in [0, 1, 2, 7, 63, 511, 512, 513, 3000, 9000, 200_000] {
                    cx.scope(|cx| allocate(cx, len + round % 3))?;
                }
            }
            Ok::<_, OutOfMemory>(())
        })
        .unwrap_or_else(|error| panic!("{way}: {error}"));
        assert!(heap.stats().cycles >= 4, "{way}: memory was used again");
    });
}

#[test]
fn what_lies_behind_the_last_object_of_a_page_is_nobodys() {
    each_way("heap=16m", |heap: &Heap, way| {
        let done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            // Allocates small objects while others collect: at each flip it has a page that it has used in part.
            threads.spawn(|| {
                heap.attach(|cx| {
                    let mut len = 0;
                    while !done.load(Ordering::Relaxed) {
                        len = (len + 1) % 90;
                        litter(cx, 1 << 12).unwrap();
                        cx.scope(|cx| cx.alloc_refs::<DataArray<u8>>(len).map(|_| ())).unwrap();
                    }
                });
            });
            heap.attach(|cx| {
                for _ in 0..60 {
                    cx.collect();
                }
            });
            done.store(true, Ordering::Relaxed);
        });
        assert!(heap.stats().cycles >= 60, "{way}");
    });
}

/// Fills memory that is about to be garbage with addresses inside of itself, where no object begins.
fn litter_with_addresses(cx: &mut Scope<'_>, bytes: usize) -> Result<(), OutOfMemory> {
    const WORDS: usize = 500;
    for _ in 0..bytes / (WORDS * 8) {
        cx.scope(|cx| {
            let words = cx.alloc_data::<u64>(WORDS)?.get(cx);
            let middle = words.address_now() as u64 + 8 * 9;
            (0..WORDS).for_each(|index| words.set(index, middle));
            Ok::<_, OutOfMemory>(())
        })?;
    }
    Ok(())
}

#[test]
fn the_word_that_an_empty_array_has_is_no_reference() {
    const COUNT: usize = 3000;
    each_way("heap=16m", |heap: &Heap, way| {
        heap.attach(|cx| {
            let empty = cx.alloc_refs::<RefArray<DataArray<u8>>>(COUNT)?;
            let tagged = cx.alloc_refs::<TaggedArray<Lisp>>(2 * COUNT)?;
            litter_with_addresses(cx, 64 << 20)?;
            for _ in 0..8 {
                litter_with_addresses(cx, 8 << 20)?;
                for index in 0..COUNT {
                    cx.scope(|cx| {
                        let array = cx.alloc_refs::<DataArray<u8>>(0)?;
                        empty.get(cx).store(cx, index, Some(array.get(cx)));
                        let array = cx.alloc_tagged::<Lisp>(0)?;
                        tagged.get(cx).store(cx, 2 * index, Some(array.get(cx)));
                        let nogc = cx.reserve(NoGc::size_of_refs(0))?;
                        let array = nogc.try_alloc_tagged::<Lisp>(0, |_| unreachable!());
                        tagged.get(&nogc).store(&nogc, 2 * index + 1, array);
                        Ok::<_, OutOfMemory>(())
                    })?;
                }
                cx.collect();
            }
            Ok::<_, OutOfMemory>(())
        })
        .unwrap_or_else(|error| panic!("{way}: {error}"));
    });
}
