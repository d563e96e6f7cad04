//! Tagged words of `graph`: an integer, null, or a reference whose tag says to which kind it leads.

use firn::{Gc, Object, Scope, TagRule, Value, WordRule};

use super::kinds::{Any, Edge, Kind};

/// The rule of tagged words here: the top bit makes an integer of the other 63, everything else
/// but 0 is a reference, and its low three bits say to which of the [`TAGGED`] kinds.
pub struct Mixed;

impl WordRule for Mixed {
    const RULE: TagRule =
        TagRule { mask: INTEGER, pattern: 0, low_tags: 0xFF, address: !INTEGER & !7 };
}

/// The bit of a tagged word that makes it an integer.
const INTEGER: u64 = 1 << 63;

/// The kinds that tagged words may lead to, by tag: those that a word can be asked for.
pub const TAGGED: [Kind; 8] =
    [Kind::Hub, Kind::Pair, Kind::Wide, Kind::U8, Kind::Store, Kind::Tags, Kind::Words, Kind::F64];

/// The tagged word that refers to an object.
fn word<T: Object + ?Sized>(gc: Gc<'_, T>, tag: u64) -> Value<'_, Mixed> {
    Value::reference(gc, tag).expect("every tag is a reference's")
}

/// What a tagged word holds.
pub fn decode<'m>(cx: &'m Scope<'_>, value: Value<'m, Mixed>) -> Edge<Any<'m>> {
    let bits = value.bits();
    if bits & INTEGER != 0 {
        return Edge::Int(bits & !INTEGER);
    }
    if bits == 0 {
        return Edge::Null;
    }
    let kind = TAGGED[(bits & 7) as usize];
    let any = match kind {
        Kind::Hub => value.downcast(cx).map(Any::Hub),
        Kind::Pair => value.downcast(cx).map(Any::Pair),
        Kind::Wide => value.downcast(cx).map(Any::Wide),
        Kind::U8 => value.downcast(cx).map(Any::U8),
        Kind::Store => value.downcast(cx).map(Any::Store),
        Kind::Tags => value.downcast(cx).map(Any::Tags),
        Kind::Words => value.downcast(cx).map(Any::Words),
        _ => value.downcast(cx).map(Any::F64),
    };
    Edge::To(any.unwrap_or_else(|| panic!("a word tagged {kind:?} leads to another kind")))
}

/// The tagged word that holds `edge`.
pub fn encode<'m>(edge: Edge<Any<'m>>) -> Value<'m, Mixed> {
    let immediate = |bits| Value::immediate(bits).expect("integers and null are no references");
    match edge {
        Edge::Null => immediate(0),
        Edge::Int(x) => immediate(INTEGER | x),
        Edge::To(any) => {
            let tag = TAGGED.iter().position(|&kind| kind == any.kind());
            let tag = tag.unwrap_or_else(|| panic!("no tag for {:?}", any.kind())) as u64;
            match any {
                Any::Hub(gc) => word(gc, tag),
                Any::Pair(gc) => word(gc, tag),
                Any::Wide(gc) => word(gc, tag),
                Any::U8(gc) => word(gc, tag),
                Any::Store(gc) => word(gc, tag),
                Any::Tags(gc) => word(gc, tag),
                Any::Words(gc) => word(gc, tag),
                Any::F64(gc) => word(gc, tag),
                other => panic!("no tag for {:?}", other.kind()),
            }
        }
    }
}
