//! The records that the kernel writes into a ring buffer.
//!
//! Each begins with a type, flags and its size. A sample's body has what was asked for, in the kernel's
//! fixed order: thread, time, processor, call chain, the tracepoint's own record, whose
//! fields lie where the event's `format` file says, and the thread's registers. Every other type ends with thread, time and
//! processor (`sample_id_all`), which puts a loss at its place in time.

/// One record, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// An event happened.
    Sample(Sample<'a>),
    /// The buffer was full: `lost` records were dropped up to this time.
    Lost {
        /// How many.
        lost: u64,
        /// Monotonic nanoseconds.
        time: u64,
    },
    /// A thread has a new name.
    Comm {
        /// Its process.
        pid: u32,
        /// The thread.
        tid: u32,
        /// The name.
        name: &'a str,
    },
    /// A type that is of no use here.
    Other,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample<'a> {
    /// The process of the thread in which it happened.
    pub pid: u32,
    /// The thread in which it happened.
    pub tid: u32,
    /// Monotonic nanoseconds.
    pub time: u64,
    /// The processor.
    pub cpu: u32,
    /// Kernel addresses, the innermost first, if call chains were asked for.
    pub chain: &'a [u8],
    /// The tracepoint's record.
    pub raw: &'a [u8],
    /// The thread's registers, if the event was opened for them: see [`super::registers`].
    pub registers: &'a [u8],
}

const TYPE_LOST: u32 = 2;
const TYPE_COMM: u32 = 3;
const TYPE_SAMPLE: u32 = 9;
/// Type, flags, size.
const HEADER: usize = 8;
/// Process and thread, time, processor and a reserved word.
const SAMPLE_ID: usize = 24;

/// Reads words one after another.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_ne_bytes(self.bytes(8)?.try_into().ok()?))
    }
}

/// Bytes of the record at the start of `data`, header included; `None` if it is damaged or not all
/// there.
pub fn size(data: &[u8]) -> Option<usize> {
    let size = u16::from_ne_bytes(data.get(6..8)?.try_into().ok()?) as usize;
    (size >= HEADER && size <= data.len()).then_some(size)
}

/// Parses one whole record; `chains` says whether call chains were asked for. `None` if it is damaged.
pub fn parse(data: &[u8], chains: bool) -> Option<Record<'_>> {
    let mut at = Cursor(data.get(..size(data)?)?);
    let kind = at.u32()?;
    at.u32()?;
    match kind {
        TYPE_SAMPLE => {
            let (pid, tid, time, cpu) = (at.u32()?, at.u32()?, at.u64()?, at.u32()?);
            at.u32()?;
            let chain = match chains {
                true => {
                    let n = usize::try_from(at.u64()?).ok()?;
                    at.bytes(n.checked_mul(8)?)?
                }
                false => &[],
            };
            let n = at.u32()? as usize;
            let raw = at.bytes(n)?;
            Some(Record::Sample(Sample { pid, tid, time, cpu, chain, raw, registers: at.0 }))
        }
        TYPE_LOST => {
            at.u64()?;
            let lost = at.u64()?;
            at.u64()?;
            Some(Record::Lost { lost, time: at.u64()? })
        }
        TYPE_COMM => {
            let (pid, tid) = (at.u32()?, at.u32()?);
            let name = at.bytes(at.0.len().checked_sub(SAMPLE_ID)?)?;
            let name = name.split(|&b| b == 0).next()?;
            Some(Record::Comm { pid, tid, name: std::str::from_utf8(name).unwrap_or("?") })
        }
        _ => Some(Record::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, body: &[&[u8]]) -> Vec<u8> {
        let body = body.concat();
        let mut out = kind.to_ne_bytes().to_vec();
        out.extend([0, 0]);
        out.extend((HEADER as u16 + body.len() as u16).to_ne_bytes());
        out.extend(body);
        out
    }

    fn id(pid: u32, tid: u32, time: u64, cpu: u32) -> Vec<u8> {
        [
            &pid.to_ne_bytes()[..],
            &tid.to_ne_bytes(),
            &time.to_ne_bytes(),
            &cpu.to_ne_bytes(),
            &[0; 4],
        ]
        .concat()
    }

    #[test]
    fn a_sample_is_taken_apart_with_and_without_a_call_chain() {
        let raw = [&8u32.to_ne_bytes()[..], b"abcdefgh", &[0; 4]].concat();
        let plain = record(TYPE_SAMPLE, &[&id(7, 8, 99, 1), &raw]);
        let raw_only = b"abcdefgh";
        let expected = Sample {
            pid: 7,
            tid: 8,
            time: 99,
            cpu: 1,
            chain: &[],
            raw: raw_only,
            registers: &[0; 4],
        };
        assert_eq!(parse(&plain, false), Some(Record::Sample(expected.clone())));
        let chain = [1u64, 2].map(u64::to_ne_bytes).concat();
        let with = record(TYPE_SAMPLE, &[&id(7, 8, 99, 1), &2u64.to_ne_bytes(), &chain, &raw]);
        let expected = Sample { chain: &chain, ..expected };
        assert_eq!(parse(&with, true), Some(Record::Sample(expected)));
    }

    #[test]
    fn losses_have_their_time_and_names_their_thread() {
        let lost =
            record(TYPE_LOST, &[&5u64.to_ne_bytes(), &42u64.to_ne_bytes(), &id(1, 2, 77, 0)]);
        assert_eq!(parse(&lost, false), Some(Record::Lost { lost: 42, time: 77 }));
        let who = [7u32, 8].map(u32::to_ne_bytes).concat();
        let comm = record(TYPE_COMM, &[&who, b"Mutator-1\0\0\0\0\0\0\0", &id(7, 8, 1, 0)]);
        assert_eq!(parse(&comm, false), Some(Record::Comm { pid: 7, tid: 8, name: "Mutator-1" }));
        assert_eq!(parse(&record(77, &[]), false), Some(Record::Other));
    }

    #[test]
    fn damaged_records_are_refused() {
        let raw = [&8u32.to_ne_bytes()[..], b"abcdefgh", &[0; 4]].concat();
        let whole = record(TYPE_SAMPLE, &[&id(7, 8, 99, 1), &raw]);
        for len in 0..whole.len() {
            assert_eq!(parse(&whole[..len], false), None, "{len}");
        }
        let too_long = record(TYPE_SAMPLE, &[&id(7, 8, 99, 1), &80u32.to_ne_bytes()]);
        assert_eq!(parse(&too_long, false), None);
        assert_eq!(size(&[0; 8]), None);
    }
}
