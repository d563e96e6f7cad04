//! The objects of `frames` (W4): a common head of 32 bytes and fillers of 0 to 224 bytes more, so
//! that sizes are 32, 64, ..., 256 bytes with the header, and each holds one reference.
//!
//! A reference may lead to an object of any size, so it is a tagged word whose tag is the size,
//! and reading an object is a branch on the tag and a comparison of the layout.

use firn::{Gc, NoGc, Scope, TagRule, Tagged, Trace, Value, WordRule};

/// References whose low three bits are the size class, and null, which is 0.
pub struct BySize;

impl WordRule for BySize {
    const RULE: TagRule = TagRule { mask: 0, pattern: 0, low_tags: 0xFF, address: !7 };
}

/// A reference to an object of any size.
pub type Any<'m> = Value<'m, BySize>;

/// What every object begins with.
#[derive(Trace)]
struct Head {
    /// The kept object before, or the garbage object before.
    next: Tagged<BySize>,
    /// The object's number in its frame or tick.
    id: u64,
    /// The random number that its size was chosen by.
    v: u64,
}

macro_rules! sizes {
    ($($tag:literal $name:ident $words:literal;)*) => {
        $(
            #[derive(Trace)]
            #[repr(C)]
            struct $name {
                head: Head,
                #[allow(dead_code)]
                filler: [u64; $words],
            }
        )*

        /// Allocates the object that `r` selects; [`size`] bytes of the reservation are used.
        #[inline]
        pub fn alloc<'a>(
            nogc: &NoGc<'a, '_>,
            r: u64,
            next: Option<Any<'_>>,
            id: u64,
        ) -> Any<'a> {
            let head = Head { next: Tagged::new(0), id, v: r };
            match r >> 61 {
                $($tag => {
                    let object = nogc.alloc($name { head, filler: [0; $words] });
                    if let Some(next) = next {
                        object.head.next.store(nogc, next);
                    }
                    any(object, $tag)
                })*
                _ => unreachable!("three bits"),
            }
        }

        /// `v ^ id` of an object.
        #[inline]
        pub fn read(cx: &Scope<'_>, object: Any<'_>) -> u64 {
            match object.bits() & 7 {
                $($tag => object.downcast::<$name>(cx).map(|o| o.head.v ^ o.head.id),)*
                _ => None,
            }
            .expect("the tag says what the object is")
        }

        #[cfg(test)]
        const SIZES: [usize; 8] = [$(NoGc::size_of::<$name>()),*];
    };
}

sizes! {
    0 N32 0;
    1 N64 4;
    2 N96 8;
    3 N128 12;
    4 N160 16;
    5 N192 20;
    6 N224 24;
    7 N256 28;
}

#[inline]
fn any<T: Trace>(object: Gc<'_, T>, tag: u64) -> Any<'_> {
    Value::reference(object, tag).expect("every tag is a reference's")
}

/// The size of the object that the random number `r` selects, header included.
#[inline]
pub fn size(r: u64) -> usize {
    32 * (1 + (r >> 61) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_the_sizes_of_the_specification() {
        for (k, got) in SIZES.into_iter().enumerate() {
            assert_eq!(got, 32 * (k + 1));
            assert_eq!(got, size((k as u64) << 61));
        }
    }
}
