//! The forwarding arithmetic (bitmap, carries, prefix sums, page starts, dense runs) against a naive model that
//! moves objects one by one, for random layouts of objects.

use firn_gc::build::{Builder, PageKind, View};
use firn_gc::plan::plan;
use firn_heap::blocks::prefix_xor;
use firn_heap::layout::{Header, LayoutId};
use firn_heap::pool::{PagePool, RUN};
use firn_heap::space::{PageRecord, Space};
use firn_heap::{BLOCK_WORDS, WORD};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// An object of so many words, after a gap of dead ones.
#[derive(Clone, Copy, Debug)]
struct Object {
    gap: usize,
    words: usize,
}

/// Objects of all sizes: most are small, some span blocks, a few span pages; gaps of up to several pages.
fn objects() -> impl Strategy<Value = Vec<Object>> {
    let words = prop_oneof![6 => 2..12usize, 3 => 12..200usize, 1 => 200..3000usize];
    let gap = prop_oneof![5 => Just(0usize), 4 => 1..40usize, 1 => 40..3000usize];
    let some =
        prop::collection::vec((gap, words).prop_map(|(gap, words)| Object { gap, words }), 1..60);
    // Stretches without gaps, long enough to become dense runs.
    let full = (10_000..16_000usize, 2..700usize)
        .prop_map(|(total, words)| vec![Object { gap: 0, words }; total / words]);
    prop::collection::vec(prop_oneof![3 => some, 1 => full], 1..6).prop_map(|parts| parts.concat())
}

/// A space whose current range holds the objects, marked; and where each begins.
fn lay_out(objects: &[Object]) -> (Space, Vec<(usize, usize)>, usize) {
    let space = Space::new(16 << 20, false).unwrap();
    let mut placed = Vec::new();
    let mut word = 0;
    for object in objects {
        word += object.gap;
        placed.push((word, object.words));
        word += object.words;
    }
    let pages = word.div_ceil(space.geometry.page_words);
    assert!(pages <= space.geometry.pages, "the strategy makes heaps that fit");
    for page in 0..pages {
        space.records().set_record(page, PageRecord::OBJECT);
    }
    for &(word, words) in &placed {
        let address = space.current().base() + word * WORD;
        let header = Header::new(LayoutId::DATA[3], words - 1);
        // SAFETY: inside the space's range, which nobody else uses; one header a live object.
        unsafe { (address as *mut u64).write(header.0) };
        assert!(space.blocks.mark::<false>(word, words), "marked twice");
        assert!(!space.blocks.mark::<true>(word, words), "marking twice is noticed");
        assert!(space.blocks.is_marked(word));
    }
    (space, placed, pages)
}

/// The naive model: objects slide together in order, but pages of dense runs stay whole and start at a page.
fn slide(
    placed: &[(usize, usize)],
    pages: usize,
    page_words: usize,
    dense_pages: &BTreeSet<usize>,
) -> Vec<Option<usize>> {
    let mut live = vec![false; pages * page_words];
    for &(word, words) in placed {
        live[word..word + words].fill(true);
    }
    let mut to = 0;
    let mut places = vec![None; live.len()];
    for page in 0..pages {
        let dense = dense_pages.contains(&page);
        if dense && !(page > 0 && dense_pages.contains(&(page - 1))) {
            to = usize::next_multiple_of(to, page_words);
        }
        for word in page * page_words..(page + 1) * page_words {
            if live[word] {
                places[word] = Some(to);
            }
            to += (live[word] || dense) as usize;
        }
    }
    places
}

fn view(space: &Space, pages: usize, marked_pages: usize) -> View {
    let page = space.geometry.page;
    View {
        old_base: space.ranges[0].base(),
        read_base: space.ranges[0].base(),
        new_base: space.ranges[1].base(),
        late_from: pages * page,
        old_top: pages * page,
        marked_pages,
        total_pages: marked_pages,
        from_range: 0,
        from_records: space.records_index(),
        to_range: 1,
    }
}

fn check(objects: &[Object], dense_percent: usize) {
    let (space, placed, pages) = lay_out(objects);
    let page_words = space.geometry.page_words;
    let plan = plan(&space, pages, dense_percent);
    assert_eq!(plan.live_words, placed.iter().map(|object| object.1).sum::<usize>());
    let per_page = space.geometry.page_blocks();
    let dense: BTreeSet<usize> =
        (0..pages).filter(|page| space.blocks.view(page * per_page).dense()).collect();
    assert_eq!(dense.len(), plan.dense_pages);
    assert!(dense_percent <= 100 || dense.is_empty(), "above 100 percent nothing is dense");

    // Bitmap: exactly the live words, exactly the starts.
    let mut live = BTreeSet::new();
    let mut starts = Vec::new();
    for block in 0..pages * per_page {
        let view = space.blocks.view(block);
        for bit in 0..BLOCK_WORDS {
            let word = block * BLOCK_WORDS + bit;
            if view.live() >> bit & 1 != 0 {
                live.insert(word);
            }
            if view.starts() >> bit & 1 != 0 {
                starts.push(word);
            }
        }
    }
    let want: BTreeSet<usize> = placed.iter().flat_map(|&(at, words)| at..at + words).collect();
    assert_eq!(live, want);
    assert_eq!(starts, placed.iter().map(|object| object.0).collect::<Vec<_>>());
    for page in 0..pages {
        let words = (page * page_words..(page + 1) * page_words).filter(|w| live.contains(w));
        assert_eq!(space.records().live_words(page), Some(words.count()), "page {page}");
    }

    // Places: word by word as in the model; every object stays in one piece, in order.
    let places = slide(&placed, pages, page_words, &dense);
    for &word in &live {
        let view = space.blocks.view(word / BLOCK_WORDS);
        let forward = view.forward((word % BLOCK_WORDS) as u32);
        assert_eq!(Some(forward), places[word], "word {word}");
    }
    let end = live.last().map_or(0, |&last| places[last].expect("live") + 1);
    assert!(plan.marked_pages * page_words >= end && plan.marked_pages <= pages + dense.len());

    // Page starts: the first word that each to-page holds, and the object that covers it.
    let built_view = view(&space, pages, plan.marked_pages);
    let builder = Builder { space: &space, view: &built_view };
    let mut first = vec![None; plan.marked_pages];
    for &word in &live {
        let place = places[word].expect("live");
        first[place / page_words].get_or_insert((word, place));
    }
    for (page, first) in first.iter().enumerate() {
        let Some((word, place)) = *first else { continue };
        let start = space.start(page);
        if let PageKind::Dense(from) = builder.kind(page) {
            assert!(dense.contains(&from));
            assert_eq!(word / page_words, from, "a dense page comes from one page");
            continue;
        }
        assert_eq!(place, page * page_words, "a slid page begins with a live word");
        assert_eq!(start.block, word / BLOCK_WORDS, "to-page {page}");
        let object = placed.iter().rfind(|object| object.0 <= word).expect("live");
        let covered = object.0 < word;
        assert_eq!(start.layout != 0, covered, "to-page {page}");
        if covered {
            assert_eq!(start.distance as usize, (word - object.0).min(PageRecord::FAR));
        }
    }

    // Built pages: every object arrives with its header at its place.
    let mut buffer = vec![0u64; plan.marked_pages * page_words + page_words];
    let aligned = buffer.as_ptr().align_offset(space.geometry.page);
    for page in 0..plan.marked_pages {
        let place = buffer[aligned.min(page_words) + page * page_words..].as_mut_ptr();
        // SAFETY: nothing else uses the space or this part of the buffer, which is a page long.
        unsafe { builder.build(page, place) };
    }
    for &(word, words) in &placed {
        let arrived = buffer[aligned.min(page_words) + places[word].expect("live")];
        assert_eq!(arrived, Header::new(LayoutId::DATA[3], words - 1).0, "object at word {word}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn sliding_is_what_a_naive_model_does(objects in objects()) {
        check(&objects, 101);
    }

    #[test]
    fn dense_runs_move_as_whole_pages_and_the_rest_slides(objects in objects(), percent in 50..100usize) {
        check(&objects, percent);
    }

    #[test]
    fn prefix_xor_is_the_running_parity(bits in any::<u64>()) {
        let mut parity = 0;
        for bit in 0..64 {
            parity ^= bits >> bit & 1;
            prop_assert_eq!(prefix_xor(bits) >> bit & 1, parity);
        }
    }

    #[test]
    fn a_pool_hands_out_what_it_was_given(
        stretches in prop::collection::vec((0..40usize, 1..200usize), 1..12),
        most in 1..=RUN,
    ) {
        let total = stretches.iter().map(|s| s.0 + s.1).sum::<usize>();
        let pool = PagePool::new(total).unwrap();
        let mut given = BTreeSet::new();
        let mut at = 0;
        for (gap, pages) in stretches {
            at += gap;
            pool.put(at, pages);
            given.extend(at..at + pages);
            at += pages;
        }
        prop_assert_eq!(pool.count(), given.len());
        let mut taken = BTreeSet::new();
        while let Some(part) = pool.take_full_run().or_else(|| pool.take(most)) {
            for (first, count) in part.runs() {
                prop_assert_eq!(first / RUN, (first + count - 1) / RUN, "a run lies in one word");
                for page in first..first + count {
                    prop_assert!(taken.insert(page), "page {} came out twice", page);
                }
            }
        }
        prop_assert_eq!(taken, given);
        prop_assert_eq!(pool.count(), 0);
    }
}

#[test]
fn the_strategies_do_make_dense_runs() {
    // 40 whole pages of small objects between two stretches of garbage.
    let mut objects = vec![Object { gap: 294, words: 10 }];
    objects.extend(vec![Object { gap: 0, words: 16 }; 40 * 32]);
    objects.extend(vec![Object { gap: 30, words: 10 }; 200]);
    check(&objects, 95);
    let (space, _, pages) = lay_out(&objects);
    assert!(plan(&space, pages, 95).dense_pages >= 16);
}
