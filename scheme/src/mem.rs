//! [`Mem`]: the heap as builtins see it, in a stretch without collection.
//!
//! All allocation functions return a [`Trap`] when there is no room; `?` passes it on, and the machine calls the
//! builtin again when it has made room. Nothing a builtin has allocated before that is visible to anyone, so it may
//! simply be forgotten.

use crate::object::*;
use crate::trap::{Large, Result, Trap, TrapKind};
use crate::value::{Array, Scheme, Value};
use crate::world::World;
use firn::{Gc, NoGc, Scope};
use std::cell::Cell as StdCell;
use std::ops::{Deref, Range};

/// Arrays with more payload bytes than this are allocated by the machine, between two stretches.
const LARGE: usize = 32 << 10;
/// Characters that are converted at a time.
const PIECE: usize = 256;

/// What a builtin asked for, or had done, before it was interrupted.
#[derive(Clone, Copy, Debug)]
pub struct Spare<'m> {
    /// A large object, or the end of a list.
    pub value: Value<'m>,
    /// How many elements of the list are still missing, or [`Spare::WHOLE`].
    pub left: usize,
}

impl Spare<'_> {
    /// The spare is not a list in the making.
    pub const WHOLE: usize = usize::MAX;
}

/// The heap in a stretch without collection. Derefs to the scope, for loads and stores.
#[derive(Clone, Copy)]
pub struct Mem<'m, 's> {
    nogc: &'m NoGc<'m, 's>,
    world: &'m World,
    spare: &'m StdCell<Option<Spare<'m>>>,
}

impl<'s> Deref for Mem<'_, 's> {
    type Target = Scope<'s>;

    #[inline(always)]
    fn deref(&self) -> &Scope<'s> {
        self.nogc
    }
}

#[cold]
#[inline(never)]
fn no_room<'m>(bytes: usize) -> Trap<'m> {
    TrapKind::Reserve(bytes + 64).into()
}

impl<'m, 's> Mem<'m, 's> {
    /// For the machine.
    pub fn new(
        nogc: &'m NoGc<'m, 's>,
        world: &'m World,
        spare: &'m StdCell<Option<Spare<'m>>>,
    ) -> Mem<'m, 's> {
        Mem { nogc, world, spare }
    }

    /// The scope, for as long as values are good.
    #[inline(always)]
    pub fn scope(self) -> &'m Scope<'s> {
        self.nogc
    }

    /// What all threads of the interpreter share.
    #[inline(always)]
    pub fn world(self) -> &'m World {
        self.world
    }

    /// The object of type `T` that `value` is, if it is one.
    #[inline(always)]
    pub fn object<T: firn::Downcast>(self, value: Value<'m>) -> Option<Gc<'m, T>> {
        value.as_object(self.scope())
    }

    /// A pair.
    #[inline(always)]
    pub fn cons(self, car: Value<'m>, cdr: Value<'m>) -> Result<'m> {
        match self.try_cons(car, cdr) {
            Some(pair) => Ok(pair),
            None => Err(no_room(NoGc::size_of::<Pair>())),
        }
    }

    /// A pair, if there is room.
    #[inline(always)]
    pub fn try_cons(self, car: Value<'m>, cdr: Value<'m>) -> Option<Value<'m>> {
        let empty = Pair { car: firn::Tagged::new(0), cdr: firn::Tagged::new(0) };
        let pair = self.nogc.try_alloc_with(empty, |pair| {
            pair.set(&pair.car, car.into());
            pair.set(&pair.cdr, cdr.into());
        })?;
        Some(Value::pair(pair))
    }

    /// A flonum.
    #[inline(always)]
    pub fn flonum(self, value: f64) -> Result<'m> {
        match self.nogc.try_alloc_with(Flonum { value }, |_| {}) {
            Some(flonum) => Ok(Value::flonum(flonum)),
            None => Err(no_room(NoGc::size_of::<Flonum>())),
        }
    }

    /// A cell.
    #[inline(always)]
    pub fn cell(self, value: Value<'m>, name: Value<'m>) -> Result<'m> {
        let empty = Cell { value: firn::Tagged::new(0), name: firn::Tagged::new(0) };
        let cell = self.nogc.try_alloc_with(empty, |cell| {
            cell.set(&cell.value, value.into());
            cell.set(&cell.name, name.into());
        });
        cell.map(Value::cell).ok_or_else(|| no_room(NoGc::size_of::<Cell>()))
    }

    /// An array of `len` values, the *i*th being `element(i)`.
    #[inline(always)]
    pub fn array(
        self,
        len: usize,
        mut element: impl FnMut(usize) -> Value<'m>,
    ) -> Result<'m, Array<'m>> {
        let bytes = NoGc::size_of_refs(len.min(1 << 40));
        if bytes > LARGE {
            let array = self
                .spare_of(Large::Values(len))?
                .as_vector()
                .expect("the spare is what was asked for");
            for index in 0..len {
                array.store(self.scope(), index, element(index).into());
            }
            return Ok(array);
        }
        self.nogc.try_alloc_tagged(len, |index| element(index).into()).ok_or_else(|| no_room(bytes))
    }

    /// A vector of `len` times `fill`.
    pub fn make_vector(self, len: usize, fill: Value<'m>) -> Result<'m> {
        self.array(len, |_| fill).map(Value::vector)
    }

    /// A vector with these elements.
    pub fn vector(self, elements: &[Value<'m>]) -> Result<'m> {
        self.array(elements.len(), |index| elements[index]).map(Value::vector)
    }

    /// A list with these elements.
    pub fn list(self, elements: &[Value<'m>]) -> Result<'m> {
        self.list_with_tail(elements, Value::NIL)
    }

    /// These elements in front of `tail`. A list may be longer than what can be reserved at once: what there is
    /// of it is left as the spare, and the next call goes on from there. So a builtin that makes a long list must
    /// make it of the same elements when called again.
    pub fn list_with_tail(self, elements: &[Value<'m>], tail: Value<'m>) -> Result<'m> {
        let (mut list, mut left) = match self.spare.take() {
            Some(Spare { value, left }) if left <= elements.len() => (value, left),
            _ => (tail, elements.len()),
        };
        while left > 0 {
            match self.try_cons(elements[left - 1], list) {
                Some(pair) => list = pair,
                None => {
                    if left < elements.len() {
                        self.spare.set(Some(Spare { value: list, left }));
                    }
                    return Err(no_room((left * NoGc::size_of::<Pair>()).min(LARGE)));
                }
            }
            left -= 1;
        }
        Ok(list)
    }

    /// A string of `len` characters 0.
    #[inline]
    pub fn chars(self, len: usize) -> Result<'m, Gc<'m, StringObject>> {
        let bytes = NoGc::size_of_data::<u32>(len.min(1 << 40));
        if bytes > LARGE {
            let spare = self.spare_of(Large::Chars(len))?;
            return Ok(self.object(spare).expect("the spare is what was asked for"));
        }
        self.nogc.try_alloc_data(len).ok_or_else(|| no_room(bytes))
    }

    /// A bytevector of `len` zeroes.
    #[inline]
    pub fn bytes(self, len: usize) -> Result<'m, Gc<'m, BytesObject>> {
        let bytes = NoGc::size_of_data::<u8>(len.min(1 << 40));
        if bytes > LARGE {
            let spare = self.spare_of(Large::Bytes(len))?;
            return Ok(self.object(spare).expect("the spare is what was asked for"));
        }
        self.nogc.try_alloc_data(len).ok_or_else(|| no_room(bytes))
    }

    /// `len` words 0, for a bignum.
    #[inline]
    pub fn words(self, len: usize) -> Result<'m, Gc<'m, BignumObject>> {
        let bytes = NoGc::size_of_data::<u64>(len.min(1 << 40));
        if bytes > LARGE {
            let spare = self.spare_of(Large::Words(len))?;
            return Ok(self.object(spare).expect("the spare is what was asked for"));
        }
        self.nogc.try_alloc_data(len).ok_or_else(|| no_room(bytes))
    }

    /// As [`Mem::words`], two arrays.
    pub fn two_words(self, lens: [usize; 2]) -> Result<'m, [Gc<'m, BignumObject>; 2]> {
        let both = self.spare_of(Large::TwoWords(lens))?.as_vector().expect("what was asked for");
        let words = |index| self.object(self.element(both, index)).expect("what was asked for");
        Ok([words(0), words(1)])
    }

    /// The spare, if it is what is asked for; else a trap that makes it so. At most one large object in a
    /// builtin: a second one would find the spare taken, for ever.
    #[cold]
    fn spare_of(self, large: Large) -> Result<'m> {
        let fits = |value: Value<'m>| match large {
            Large::Values(len) => value.as_vector().is_some_and(|a| a.len() == len),
            Large::Bytes(len) => self.object::<BytesObject>(value).is_some_and(|a| a.len() == len),
            Large::Chars(len) => self.object::<StringObject>(value).is_some_and(|a| a.len() == len),
            Large::Words(len) => self.object::<BignumObject>(value).is_some_and(|a| a.len() == len),
            Large::TwoWords(lens) => value.as_vector().is_some_and(|both| {
                both.len() == 2
                    && (0..2).all(|index| {
                        let words = self.object::<BignumObject>(self.element(both, index));
                        words.is_some_and(|words| words.len() == lens[index])
                    })
            }),
        };
        match self.spare.take() {
            Some(spare) if spare.left == Spare::WHOLE && fits(spare.value) => Ok(spare.value),
            _ => Err(TrapKind::Large(large).into()),
        }
    }

    /// Leaves a value for what is done outside the stretch: see [`Vm::kept`](crate::vm::Vm::kept).
    pub fn keep(self, value: Value<'m>) {
        self.spare.set(Some(Spare { value, left: Spare::WHOLE }));
    }

    /// A string.
    pub fn string(self, text: &str) -> Result<'m> {
        let string = self.chars(text.chars().count())?;
        let (mut chars, mut piece, mut at) = (text.chars(), [0; PIECE], 0);
        while at < string.len() {
            let count = PIECE.min(string.len() - at);
            piece.iter_mut().zip(&mut chars).for_each(|(place, c)| *place = c as u32);
            string.copy_from(at, &piece[..count]);
            at += count;
        }
        Ok(Value::object(string))
    }

    /// The text of a string.
    pub fn text(self, string: Gc<'m, StringObject>) -> String {
        self.text_of(string, 0..string.len())
    }

    /// The text of a part of a string.
    pub fn text_of(self, string: Gc<'m, StringObject>, part: Range<usize>) -> String {
        let mut text = String::with_capacity(part.len());
        let (mut piece, mut at) = ([0; PIECE], part.start);
        while at < part.end {
            let count = PIECE.min(part.end - at);
            string.copy_to(at, &mut piece[..count]);
            text.extend(piece[..count].iter().map(|&c| character(c)));
            at += count;
        }
        text
    }

    /// An ephemeron.
    pub fn ephemeron(self, key: Value<'m>, datum: Value<'m>) -> Result<'m> {
        let made = self.nogc.try_alloc_tagged_ephemeron::<Scheme>(key.into(), datum.into());
        made.map(Value::object).ok_or_else(|| no_room(NoGc::EPHEMERON))
    }

    /// A guardian.
    pub fn guardian(self) -> Result<'m> {
        let made = self.nogc.try_alloc_tagged_guardian::<Scheme>();
        made.map(Value::object).ok_or_else(|| no_room(NoGc::GUARDIAN))
    }

    /// Registers a value with a guardian.
    pub fn guard(self, guardian: Gc<'m, GuardianObject>, value: Value<'m>) -> Result<'m, ()> {
        guardian.try_register(self.nogc, value.into()).ok_or_else(|| no_room(NoGc::GUARDED))
    }

    /// A struct of the heap whose words `fill` sets.
    #[inline]
    pub fn make<T: firn::Trace>(
        self,
        empty: T,
        fill: impl FnOnce(&firn::Fresh<'_, 's, T>),
    ) -> Result<'m> {
        match self.nogc.try_alloc_with(empty, fill) {
            Some(object) => Ok(Value::object(object)),
            None => Err(no_room(NoGc::size_of::<T>())),
        }
    }

    /// First of a pair.
    #[inline(always)]
    pub fn car(self, pair: Gc<'m, Pair>) -> Value<'m> {
        // The pair lives as long as the stretch, not as long as this borrow.
        let pair: &Pair = &pair;
        pair.car.load(self.scope()).into()
    }

    /// Second of a pair.
    #[inline(always)]
    pub fn cdr(self, pair: Gc<'m, Pair>) -> Value<'m> {
        let pair: &Pair = &pair;
        pair.cdr.load(self.scope()).into()
    }

    /// Element `index` of an array.
    #[inline(always)]
    pub fn element(self, array: Array<'m>, index: usize) -> Value<'m> {
        array.load(self.scope(), index).into()
    }

    /// The elements of a proper list; `None` if it is improper or circular.
    pub fn elements(self, list: Value<'m>) -> Option<Vec<Value<'m>>> {
        let mut elements = Vec::new();
        let (mut at, mut slow) = (list, list);
        while let Some(pair) = at.as_pair() {
            elements.push(self.car(pair));
            at = self.cdr(pair);
            if elements.len() % 2 == 0 {
                slow = self.cdr(slow.as_pair().expect("behind the other"));
                if slow == at {
                    return None;
                }
            }
        }
        at.is_nil().then_some(elements)
    }
}
