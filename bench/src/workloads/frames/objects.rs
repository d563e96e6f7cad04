//! The objects of `frames` (W4): a common head of 32 bytes and fillers of 0 to 224 bytes more, so
//! that sizes are 32, 64, ..., 256 bytes with the header, and each holds one reference. References
//! are to the head, whatever the size behind it.

use firn::{Field, Gc, NoGc, Trace};

/// What every object begins with, and the smallest object.
#[derive(Trace)]
pub struct Head {
    /// The kept object before, or the garbage object before.
    pub next: Field<Head>,
    /// The object's number in its frame or tick.
    pub id: u64,
    /// The random number that its size was chosen by.
    pub v: u64,
}

macro_rules! sizes {
    ($($tag:literal $name:ident $words:literal;)*) => {
        $(
            #[derive(Trace)]
            #[trace(extends)]
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
            next: Option<Gc<'_, Head>>,
            id: u64,
        ) -> Gc<'a, Head> {
            let head = Head { next: Field::null(), id, v: r };
            let object = match r >> 61 {
                $($tag => nogc.alloc($name { head, filler: [0; $words] }).upcast(),)*
                _ => nogc.alloc(head),
            };
            object.next.store(nogc, next);
            object
        }

        #[cfg(test)]
        const SIZES: [usize; 8] = [NoGc::size_of::<Head>(), $(NoGc::size_of::<$name>()),*];
    };
}

sizes! {
    1 N64 4;
    2 N96 8;
    3 N128 12;
    4 N160 16;
    5 N192 20;
    6 N224 24;
    7 N256 28;
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
