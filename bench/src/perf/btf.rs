//! Where `mmap_lock` lies in the kernel's `mm_struct`, from the kernel's own type information.
//!
//! A contention event names a lock by its address only. The lock of an address space is the one at a
//! constant distance from its `mm_struct`, and `/sys/kernel/btf/vmlinux` (BTF: type information in
//! a compact form) has the distance for the running kernel. Only as much of the format is read here as
//! is needed to walk to one member of one struct.

use std::fs;

const FILE: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;

/// Bytes from the start of `mm_struct` to its `mmap_lock`; `None` where the kernel does not say.
pub fn mmap_lock_offset() -> Option<u64> {
    member_offset(&fs::read(FILE).ok()?, "mm_struct", "mmap_lock")
}

/// Bytes from the start of `struct name` to its member `member`, which may lie in an unnamed struct
/// inside it.
fn member_offset(data: &[u8], name: &str, member: &str) -> Option<u64> {
    let btf = Btf::parse(data)?;
    let id =
        btf.types.iter().position(|t| t.kind == KIND_STRUCT && btf.name(t.name) == Some(name))?;
    btf.find(id, member, 8).map(|bits| bits / 8)
}

struct Type<'a> {
    name: u32,
    kind: u32,
    /// Whether bit-field sizes are packed into the offsets of members.
    packed: bool,
    /// Members, 12 bytes each, for structs and unions.
    members: &'a [u8],
}

struct Btf<'a> {
    /// By id, from 1; the place of id 0 (`void`) is filled.
    types: Vec<Type<'a>>,
    strings: &'a [u8],
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

impl<'a> Btf<'a> {
    fn parse(data: &'a [u8]) -> Option<Btf<'a>> {
        if u16::from_ne_bytes(data.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let header = u32_at(data, 4)? as usize;
        let part = |offset: u32, len: u32| {
            let start = header.checked_add(offset as usize)?;
            data.get(start..start.checked_add(len as usize)?)
        };
        let types = part(u32_at(data, 8)?, u32_at(data, 12)?)?;
        let strings = part(u32_at(data, 16)?, u32_at(data, 20)?)?;
        let mut list = vec![Type { name: 0, kind: 0, packed: false, members: &[] }];
        let mut at = 0;
        while at < types.len() {
            let info = u32_at(types, at + 4)?;
            let (count, kind) = ((info & 0xffff) as usize, info >> 24 & 0x1f);
            // What follows the 12 common bytes, by kind: see the kernel's Documentation/bpf/btf.rst.
            let more = match kind {
                // INT, VAR, DECL_TAG
                1 | 14 | 17 => 4,
                // ARRAY
                3 => 12,
                KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * count,
                // ENUM, FUNC_PROTO
                6 | 13 => 8 * count,
                // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
                2 | 7..=12 | 16 | 18 => 0,
                _ => return None,
            };
            let end = at + 12 + more;
            let members = types.get(at + 12..end)?;
            list.push(Type { name: u32_at(types, at)?, kind, packed: info >> 31 == 1, members });
            at = end;
        }
        Some(Btf { types: list, strings })
    }

    fn name(&self, at: u32) -> Option<&'a str> {
        let rest = self.strings.get(at as usize..)?;
        std::str::from_utf8(&rest[..rest.iter().position(|&b| b == 0)?]).ok()
    }

    /// Bits from the start of type `id` to `member`, at most `depth` unnamed structs down.
    fn find(&self, id: usize, member: &str, depth: u32) -> Option<u64> {
        let t = self.types.get(id)?;
        if depth == 0 || !matches!(t.kind, KIND_STRUCT | KIND_UNION) {
            return None;
        }
        for m in t.members.chunks_exact(12) {
            let (name, id, offset) = (u32_at(m, 0)?, u32_at(m, 4)?, u32_at(m, 8)?);
            let bits = u64::from(if t.packed { offset & 0xff_ffff } else { offset });
            match self.name(name)? {
                n if n == member => return Some(bits),
                "" => {
                    if let Some(inner) = self.find(id as usize, member, depth - 1) {
                        return Some(bits + inner);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct mm_struct { int a; struct { int b; int mmap_lock; }; }` with members at given bits.
    fn sample() -> Vec<u8> {
        let strings = b"\0mm_struct\0mmap_lock\0a\0int\0";
        let words = |w: &[u32]| w.iter().flat_map(|x| x.to_ne_bytes()).collect::<Vec<u8>>();
        let mut types = words(&[23, 1 << 24, 4, 32]); // 1: int
        types.extend(words(&[0, 4 << 24 | 2, 8, 21, 1, 0, 11, 1, 32])); // 2: unnamed
        types.extend(words(&[1, 4 << 24 | 2, 16, 21, 1, 0, 0, 2, 64])); // 3: mm_struct
        let mut out = vec![];
        out.extend(MAGIC.to_ne_bytes());
        out.extend([1, 0]);
        out.extend(words(&[24, 0, types.len() as u32, types.len() as u32, strings.len() as u32]));
        out.extend(types);
        out.extend(strings);
        out
    }

    #[test]
    fn a_member_of_an_unnamed_struct_is_found_at_the_sum_of_offsets() {
        assert_eq!(member_offset(&sample(), "mm_struct", "mmap_lock"), Some(12));
        assert_eq!(member_offset(&sample(), "mm_struct", "a"), Some(0));
        assert_eq!(member_offset(&sample(), "mm_struct", "b"), None);
        assert_eq!(member_offset(&sample(), "task_struct", "a"), None);
    }

    #[test]
    fn truncated_or_foreign_data_gives_nothing() {
        let data = sample();
        for len in 0..data.len() {
            assert_eq!(member_offset(&data[..len], "mm_struct", "mmap_lock"), None, "{len}");
        }
        assert_eq!(member_offset(b"not type information", "mm_struct", "mmap_lock"), None);
    }
}
