//! Verification: a walk through everything reachable, with the world stopped.
//!
//! Checks that every reference leads to the start of an object in the current range or the large space, with
//! a registered layout and a plausible size. Slow on purpose (a set of all addresses seen); only with
//! `verify=true`.

use crate::core::Core;
use crate::mutator::Mutator;
use crate::safepoint::Entry;
use firn_heap::WORD;
use firn_heap::layout::{Header, Slot as SlotKind};
use std::collections::HashSet;

/// Walks the heap; says what is wrong with the first bad reference. The world must be stopped.
pub(crate) fn walk(core: &Core, mutators: &[Entry<Mutator>]) -> Result<usize, String> {
    let mut stack = Vec::new();
    core.each_global_root(|root| stack.push(("a global root", root)));
    for entry in mutators {
        // SAFETY: the world is stopped.
        let local = unsafe { entry.mutator().local() };
        stack.extend(local.handles.words().iter().map(|word| ("a handle", *word)));
    }
    let mut seen = HashSet::new();
    while let Some((holder, address)) = stack.pop() {
        if address == 0 || !seen.insert(address) {
            continue;
        }
        let (header, words) = object(core, holder, address)?;
        let descriptor = core.space.layouts.get(header.layout());
        descriptor.each_slot(0, words, |index, kind| {
            // SAFETY: inside the object, whose extent was checked.
            let value = unsafe { (address as *const u64).add(index).read() };
            match kind {
                SlotKind::Ref => stack.push((descriptor.name(), value)),
                SlotKind::Tagged if descriptor.rule().is_reference(value) => {
                    stack.push((descriptor.name(), descriptor.rule().address_of(value)));
                }
                SlotKind::Tagged => {}
            }
        });
    }
    Ok(seen.len())
}

fn object(core: &Core, holder: &str, address: u64) -> Result<(Header, usize), String> {
    let space = &core.space;
    let place = address as usize;
    let base = space.current().base();
    let top = base + space.top() * space.geometry.page;
    let end = if (base..top).contains(&place) && place.is_multiple_of(WORD) {
        top
    } else if space.large.contains(place) && space.large.is_object(place) {
        usize::MAX
    } else {
        return Err(format!("{holder} refers to {address:#x}, which is no place for an object"));
    };
    // SAFETY: inside the allocated part of the range, or the start of a large object.
    let header = Header(unsafe { (place as *const u64).read() });
    if !space.layouts.contains(header.layout()) {
        return Err(format!("{holder} refers to {address:#x}, where {header:?} is no header"));
    }
    let words = space.layouts.get(header.layout()).words(header);
    if words > (end - place) / WORD {
        return Err(format!("the object at {address:#x} ({header:?}) is longer than the heap"));
    }
    Ok((header, words))
}
