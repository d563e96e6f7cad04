//! Perfetto's own form: a `Trace` of `TracePacket`s in protobuf.
//!
//! Only what a timeline needs is encoded, by hand: two wire types, a dozen fields. Their numbers are
//! those of `protos/perfetto/trace/trace_packet.proto`, `clock_snapshot.proto`, `track_event/track_descriptor.proto`
//! and `track_event/track_event.proto`; they are part of a stable format and never change. Each slice is a
//! begin and an end; all packets belong to one sequence and carry absolute times.
//!
//! The first packet says which clock these are of. Perfetto's own default is `CLOCK_BOOTTIME`, which also runs
//! while the machine sleeps; without a word, times of `CLOCK_MONOTONIC` would be taken for it.

use std::collections::HashMap;

use super::model::Process;

/// Numbers of fields, by message.
mod field {
    pub const TRACE_PACKET: u32 = 1;

    pub mod packet {
        pub const CLOCK_SNAPSHOT: u32 = 6;
        pub const TIMESTAMP: u32 = 8;
        pub const SEQUENCE: u32 = 10;
        pub const TRACK_EVENT: u32 = 11;
        pub const SEQUENCE_FLAGS: u32 = 13;
        pub const DEFAULTS: u32 = 59;
        pub const TRACK_DESCRIPTOR: u32 = 60;
    }

    pub mod snapshot {
        pub const CLOCK: u32 = 1;
        pub const TRACE_CLOCK: u32 = 2;
    }

    pub mod clock {
        pub const ID: u32 = 1;
        pub const TIMESTAMP: u32 = 2;
    }

    pub mod defaults {
        pub const CLOCK: u32 = 58;
    }

    pub mod descriptor {
        pub const UUID: u32 = 1;
        pub const NAME: u32 = 2;
        pub const PROCESS: u32 = 3;
        pub const THREAD: u32 = 4;
        pub const PARENT: u32 = 5;
        pub const COUNTER: u32 = 8;
        pub const CHILD_ORDERING: u32 = 11;
        pub const RANK: u32 = 12;
    }

    pub mod process {
        pub const PID: u32 = 1;
        pub const NAME: u32 = 6;
    }

    pub mod thread {
        pub const PID: u32 = 1;
        pub const TID: u32 = 2;
        pub const NAME: u32 = 5;
    }

    pub mod counter {
        pub const UNIT: u32 = 3;
    }

    pub mod event {
        pub const ANNOTATION: u32 = 4;
        pub const TYPE: u32 = 9;
        pub const TRACK: u32 = 11;
        pub const CATEGORY: u32 = 22;
        pub const NAME: u32 = 23;
        pub const COUNTER_VALUE: u32 = 30;
    }

    pub mod annotation {
        pub const TEXT: u32 = 6;
        pub const NAME: u32 = 10;
    }
}

/// `TrackEvent.Type`.
const BEGIN: u64 = 1;
const END: u64 = 2;
const COUNTER: u64 = 4;
/// `TrackDescriptor.ChildTracksOrdering`: by rank.
const EXPLICIT: u64 = 3;
/// `CounterDescriptor.Unit`: nanoseconds.
const TIME_NS: u64 = 1;
/// `BuiltinClock`: `CLOCK_MONOTONIC`.
const MONOTONIC: u64 = 3;
/// `TracePacket.SequenceFlags`: nothing before this packet is needed to read it.
const INCREMENTAL_STATE_CLEARED: u64 = 1;
/// All packets are of one writer.
const SEQUENCE: u64 = 1;

/// A protobuf message under construction.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A number. Negative ones are what their 64 bits say unsigned.
    fn number(&mut self, field: u32, value: u64) -> &mut Message {
        self.varint(u64::from(field) << 3);
        self.varint(value);
        self
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) -> &mut Message {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, field: u32, text: &str) -> &mut Message {
        self.bytes(field, text.as_bytes())
    }

    fn message(&mut self, field: u32, message: &Message) -> &mut Message {
        self.bytes(field, &message.0)
    }
}

/// Gives out track ids and collects packets.
struct Writer {
    trace: Message,
    uuid: u64,
    first: bool,
}

impl Writer {
    fn packet(&mut self, mut packet: Message) {
        packet.number(field::packet::SEQUENCE, SEQUENCE);
        if std::mem::take(&mut self.first) {
            packet.number(field::packet::SEQUENCE_FLAGS, INCREMENTAL_STATE_CLEARED);
        }
        self.trace.message(field::TRACE_PACKET, &packet);
    }

    /// Says that times are of `CLOCK_MONOTONIC`, of which `now` is one: they are shown as they are, and nothing has
    /// to be known of any other clock.
    fn clock(&mut self, now: u64) {
        let (mut clock, mut snapshot, mut defaults) =
            (Message::default(), Message::default(), Message::default());
        clock.number(field::clock::ID, MONOTONIC).number(field::clock::TIMESTAMP, now);
        snapshot
            .message(field::snapshot::CLOCK, &clock)
            .number(field::snapshot::TRACE_CLOCK, MONOTONIC);
        defaults.number(field::defaults::CLOCK, MONOTONIC);
        let mut packet = Message::default();
        packet
            .message(field::packet::CLOCK_SNAPSHOT, &snapshot)
            .message(field::packet::DEFAULTS, &defaults);
        self.packet(packet);
    }

    /// Describes a thread, and that its tracks are in order of their ranks. Returns its id.
    fn thread(&mut self, process: u64, pid: u32, tid: u32, name: &str) -> u64 {
        self.track(|d| {
            let mut t = Message::default();
            t.number(field::thread::PID, u64::from(pid))
                .number(field::thread::TID, u64::from(tid))
                .text(field::thread::NAME, name);
            d.message(field::descriptor::THREAD, &t)
                .number(field::descriptor::PARENT, process)
                .number(field::descriptor::CHILD_ORDERING, EXPLICIT);
        })
    }

    /// Describes a track; `more` adds what it is. Returns its id.
    fn track(&mut self, more: impl FnOnce(&mut Message)) -> u64 {
        self.uuid += 1;
        let mut descriptor = Message::default();
        descriptor.number(field::descriptor::UUID, self.uuid);
        more(&mut descriptor);
        let mut packet = Message::default();
        packet.message(field::packet::TRACK_DESCRIPTOR, &descriptor);
        self.packet(packet);
        self.uuid
    }

    fn event(&mut self, at: u64, track: u64, kind: u64, more: impl FnOnce(&mut Message)) {
        let mut event = Message::default();
        event.number(field::event::TYPE, kind).number(field::event::TRACK, track);
        more(&mut event);
        let mut packet = Message::default();
        packet.number(field::packet::TIMESTAMP, at).message(field::packet::TRACK_EVENT, &event);
        self.packet(packet);
    }
}

/// The timeline as bytes.
pub fn encode(processes: &[Process]) -> Vec<u8> {
    let mut writer = Writer { trace: Message::default(), uuid: 0, first: true };
    let slices = processes.iter().flat_map(|p| &p.tracks).flat_map(|t| &t.slices);
    let values = processes.iter().flat_map(|p| &p.counters).flat_map(|c| &c.values);
    let times = slices.map(|s| s.begin).chain(values.map(|v| v.0));
    writer.clock(times.min().unwrap_or(0));
    for process in processes {
        let pid = process.pid;
        let root = writer.track(|d| {
            let mut p = Message::default();
            p.number(field::process::PID, u64::from(pid)).text(field::process::NAME, &process.name);
            d.message(field::descriptor::PROCESS, &p)
                .number(field::descriptor::CHILD_ORDERING, EXPLICIT);
        });
        // The first thread is there even if it has no track: Perfetto knows that every process has one, and would
        // make up one without a name.
        let first = writer.thread(root, pid, pid, &process.first_thread);
        let mut threads = HashMap::from([(pid, first)]);
        for (rank, track) in process.tracks.iter().enumerate() {
            let parent = match &track.thread {
                None => root,
                Some((tid, name)) => {
                    *threads.entry(*tid).or_insert_with(|| writer.thread(root, pid, *tid, name))
                }
            };
            let id = writer.track(|d| {
                d.text(field::descriptor::NAME, &track.name)
                    .number(field::descriptor::PARENT, parent)
                    .number(field::descriptor::RANK, rank as u64);
            });
            for slice in &track.slices {
                writer.event(slice.begin, id, BEGIN, |event| {
                    for (name, text) in &slice.facts {
                        let mut fact = Message::default();
                        fact.text(field::annotation::NAME, name)
                            .text(field::annotation::TEXT, text);
                        event.message(field::event::ANNOTATION, &fact);
                    }
                    event
                        .text(field::event::CATEGORY, slice.category)
                        .text(field::event::NAME, &slice.name);
                });
                writer.event(slice.end, id, END, |_| {});
            }
        }
        for counter in &process.counters {
            let id = writer.track(|d| {
                let mut c = Message::default();
                c.number(field::counter::UNIT, TIME_NS);
                d.text(field::descriptor::NAME, &counter.name)
                    .number(field::descriptor::PARENT, root)
                    .message(field::descriptor::COUNTER, &c);
            });
            for &(at, ns) in &counter.values {
                writer.event(at, id, COUNTER, |event| {
                    event.number(field::event::COUNTER_VALUE, ns as u64);
                });
            }
        }
    }
    writer.trace.0
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::model;
    use super::*;
    use crate::report::samples;

    /// A field that was read: its number, its value if a number, its bytes if not.
    type Read<'a> = (u32, u64, &'a [u8]);

    fn read(mut bytes: &[u8]) -> Vec<Read<'_>> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    return value;
                }
            }
        }
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let number = (tag >> 3) as u32;
            match tag & 7 {
                0 => fields.push((number, varint(&mut bytes), &[][..])),
                2 => {
                    let length = varint(&mut bytes) as usize;
                    fields.push((number, 0, &bytes[..length]));
                    bytes = &bytes[length..];
                }
                other => panic!("wire type {other}"),
            }
        }
        fields
    }

    fn one<'a>(fields: &[Read<'a>], number: u32) -> Option<Read<'a>> {
        fields.iter().copied().find(|f| f.0 == number)
    }

    #[test]
    fn what_is_written_can_be_read_and_is_whole() {
        let run = samples::run("art", 1);
        let processes = model::processes(&[&run]);
        let bytes = encode(&processes);
        let (mut tracks, mut open, mut ended, mut counted) = (HashMap::new(), HashMap::new(), 0, 0);
        let (mut ordered, mut threads) = (HashMap::new(), Vec::new());
        let mut worst = None;
        for (i, (number, _, packet)) in read(&bytes).into_iter().enumerate() {
            assert_eq!(number, field::TRACE_PACKET);
            let packet = read(packet);
            if i == 0 {
                let snapshot = read(one(&packet, field::packet::CLOCK_SNAPSHOT).unwrap().2);
                assert_eq!(one(&snapshot, field::snapshot::TRACE_CLOCK).unwrap().1, MONOTONIC);
                let defaults = read(one(&packet, field::packet::DEFAULTS).unwrap().2);
                assert_eq!(one(&defaults, field::defaults::CLOCK).unwrap().1, MONOTONIC);
                continue;
            }
            assert_eq!(one(&packet, field::packet::SEQUENCE).unwrap().1, SEQUENCE);
            if let Some((.., descriptor)) = one(&packet, field::packet::TRACK_DESCRIPTOR) {
                let d = read(descriptor);
                let parent = one(&d, field::descriptor::PARENT).map(|p| p.1);
                let order = one(&d, field::descriptor::CHILD_ORDERING).map(|o| o.1);
                if let Some(parent) = parent
                    && one(&d, field::descriptor::RANK).is_some()
                {
                    assert_eq!(ordered.get(&parent), Some(&Some(EXPLICIT)), "ranks count");
                }
                ordered.insert(one(&d, field::descriptor::UUID).unwrap().1, order);
                if let Some((.., thread)) = one(&d, field::descriptor::THREAD) {
                    threads.push(one(&read(thread), field::thread::TID).unwrap().1);
                }
                assert!(parent.is_none_or(|p| tracks.contains_key(&p)), "parents come first");
                let name = one(&d, field::descriptor::NAME)
                    .map(|n| String::from_utf8(n.2.to_vec()).unwrap());
                tracks.insert(one(&d, field::descriptor::UUID).unwrap().1, name);
                continue;
            }
            let at = one(&packet, field::packet::TIMESTAMP).unwrap().1;
            let event = read(one(&packet, field::packet::TRACK_EVENT).unwrap().2);
            let track = one(&event, field::event::TRACK).unwrap().1;
            assert!(tracks.contains_key(&track));
            match one(&event, field::event::TYPE).unwrap().1 {
                BEGIN => {
                    assert_eq!(open.insert(track, at), None);
                    let name = one(&event, field::event::NAME).unwrap().2;
                    if name == b"worst frame 1: frame 12" {
                        let facts = event.iter().filter(|f| f.0 == field::event::ANNOTATION);
                        let names: HashSet<&[u8]> = facts
                            .map(|f| one(&read(f.2), field::annotation::NAME).unwrap().2)
                            .collect();
                        worst = Some((at, names.len()));
                    }
                }
                END => {
                    assert!(open.remove(&track).unwrap() <= at);
                    ended += 1;
                }
                COUNTER => counted += 1,
                other => panic!("type {other}"),
            }
        }
        assert!(open.is_empty());
        // The process's first thread, and those with tracks, once each.
        assert_eq!(threads, [99, 101, 103]);
        let slices: usize = processes[0].tracks.iter().map(|t| t.slices.len()).sum();
        assert_eq!(ended, slices);
        assert_eq!(counted, processes[0].counters.iter().map(|c| c.values.len()).sum::<usize>());
        assert_eq!(worst, Some((run.origin_ns + 300_000_000, 5)));
    }

    #[test]
    fn numbers_are_encoded_as_the_format_says() {
        let mut m = Message::default();
        m.number(1, 150).text(2, "testing").number(3, -1i64 as u64);
        let expected = [
            &[0x08, 0x96, 0x01, 0x12, 0x07][..],
            b"testing",
            &[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        ];
        assert_eq!(m.0, expected.concat());
    }
}
