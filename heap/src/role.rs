//! Objects whose slots marking does not follow like any other's: ephemerons, and guardians' notes.
//!
//! A [`Role`] is part of a layout. It fixes the places of an object's words, so that the collector finds them
//! without looking anything up, and it matters to marking only: when marking has ended, every slot of such an
//! object holds nothing or leads to something live, and compaction and verification treat it like any other.
//! Each object has a word of its own for the collector's lists, which therefore need no memory elsewhere.

use crate::layout::{Layout, TagRule};

/// What marking does with an object's slots. Compaction and verification treat all slots alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Role {
    /// Every slot keeps what it refers to.
    #[default]
    Ordinary,
    /// The key keeps nothing; the value is kept while the key is live.
    Ephemeron,
    /// A guardian's note of an object: keeps it only once nothing else does.
    Guarded,
}

/// Places in objects of role [`Role::Ephemeron`], counted from the header.
pub mod ephemeron {
    /// The key: a reference or a tagged word.
    pub const KEY: usize = 1;
    /// The value, of the same sort.
    pub const VALUE: usize = 2;
    /// Plain: the collector's link while it marks, and [`BROKEN`] for ever after it has broken the ephemeron.
    pub const LINK: usize = 3;
    /// Words in all.
    pub const WORDS: usize = 4;
    /// What [`LINK`] holds in a broken ephemeron: no address of an object.
    pub const BROKEN: u64 = 1;
}

/// Places in objects of role [`Role::Guarded`], and in the guardian that they belong to, from the header.
pub mod guarded {
    /// The watched object: a reference or a tagged word.
    pub const OBJECT: usize = 1;
    /// The next note of the same list.
    pub const NEXT: usize = 2;
    /// The guardian.
    pub const GUARDIAN: usize = 3;
    /// Plain: the collector's link, and its low bits.
    pub const LINK: usize = 4;
    /// Words in all.
    pub const WORDS: usize = 5;
    /// A guardian's list of notes whose objects something else keeps.
    pub const WAITING: usize = 1;
    /// A guardian's list of notes whose objects nothing else kept.
    pub const READY: usize = 2;
    /// Words of a guardian.
    pub const GUARDIAN_WORDS: usize = 3;
}

impl Layout {
    /// An ephemeron of two references, or of two words under `rule`.
    pub fn ephemeron(name: &'static str, rule: Option<TagRule>) -> Layout {
        let slots = vec![ephemeron::KEY as u16 - 1, ephemeron::VALUE as u16 - 1];
        let plain = Layout::plain(name, ephemeron::WORDS - 1);
        let (refs, tagged) = if rule.is_some() { (Vec::new(), slots) } else { (slots, Vec::new()) };
        let rule = rule.unwrap_or(TagRule::NEVER);
        Layout { refs, tagged, rule, role: Role::Ephemeron, ..plain }
    }

    /// A guardian's note of an object, which a reference leads to, or a word under `rule`.
    pub fn guarded(name: &'static str, rule: Option<TagRule>) -> Layout {
        let mut refs = vec![guarded::NEXT as u16 - 1, guarded::GUARDIAN as u16 - 1];
        let mut tagged = Vec::new();
        if rule.is_some() { &mut tagged } else { &mut refs }.push(guarded::OBJECT as u16 - 1);
        let plain = Layout::plain(name, guarded::WORDS - 1);
        let rule = rule.unwrap_or(TagRule::NEVER);
        Layout { refs, tagged, rule, role: Role::Guarded, ..plain }
    }

    /// A guardian.
    pub fn guardian(name: &'static str) -> Layout {
        let refs = vec![guarded::WAITING as u16 - 1, guarded::READY as u16 - 1];
        Layout { refs, ..Layout::plain(name, guarded::GUARDIAN_WORDS - 1) }
    }
}
