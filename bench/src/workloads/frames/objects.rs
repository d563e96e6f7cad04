//! The objects of `frames` (W4): a common head of 32 bytes and fillers of 0 to 224 bytes more, so
//! that sizes are 32, 64, ..., 256 bytes with the header. References are to the head, whatever
//! the size behind it.

use firn::{Field, Gc, NoGc, Scope, Trace};

/// The head that every object begins with, and the smallest object.
#[derive(Trace)]
#[repr(C)]
pub struct Head {
    /// The kept object before, or the garbage object before.
    pub next: Field<Head>,
    /// The object's number in its frame or tick.
    pub id: u64,
    /// The random number that its size was chosen by.
    pub v: u64,
}

macro_rules! sizes {
    ($($name:ident $words:literal),*) => { $(
        #[derive(Trace)]
        #[repr(C)]
        #[trace(extends = Head)]
        struct $name {
            head: Head,
            #[allow(dead_code)]
            filler: [u64; $words],
        }
    )* };
}

sizes!(N64 4, N96 8, N128 12, N160 16, N192 20, N224 24, N256 28);

/// The size of the object that the random number `r` selects, header included.
#[inline]
pub fn size(r: u64) -> usize {
    32 * (1 + (r >> 61) as usize)
}

/// Allocates the object that `r` selects; [`size`] bytes of the reservation are used.
#[inline]
pub fn alloc<'a>(nogc: &NoGc<'a, '_>, r: u64, next: Option<Gc<'a, Head>>, id: u64) -> Gc<'a, Head> {
    let cx: &Scope<'_> = nogc;
    let head = Head { next: Field::from_option(cx, next), id, v: r };
    macro_rules! filled {
        ($name:ident $words:literal) => {
            nogc.alloc($name { head, filler: [0; $words] }).upcast()
        };
    }
    match r >> 61 {
        0 => nogc.alloc(head),
        1 => filled!(N64 4),
        2 => filled!(N96 8),
        3 => filled!(N128 12),
        4 => filled!(N160 16),
        5 => filled!(N192 20),
        6 => filled!(N224 24),
        _ => filled!(N256 28),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_the_sizes_of_the_specification() {
        let sizes = [
            NoGc::size_of::<Head>(),
            NoGc::size_of::<N64>(),
            NoGc::size_of::<N96>(),
            NoGc::size_of::<N128>(),
            NoGc::size_of::<N160>(),
            NoGc::size_of::<N192>(),
            NoGc::size_of::<N224>(),
            NoGc::size_of::<N256>(),
        ];
        for (k, got) in sizes.into_iter().enumerate() {
            assert_eq!(got, 32 * (k + 1));
            assert_eq!(got, size((k as u64) << 61));
        }
    }
}
