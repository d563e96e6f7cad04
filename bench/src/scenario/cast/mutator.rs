//! Mutators: a table of entries, half of each operation reading, half replacing; paced, so that the
//! processors are not theirs alone and what they suffer is not for want of a core.

use firn::{DataArray, Field, Heap, Local, NoGc, OutOfMemory, RefArray, Scope, Trace};
use firn_heap::sys::ops::Scratch;

use super::Pace;
use crate::clock;
use crate::measure::notes::NotedFrame;
use crate::scenario::stage::Stage;
use crate::workloads::rng::Rng;

/// Bytes of the entries of all mutators together.
pub const LIVE_BYTES: usize = 48 << 20;
/// Bytes of an entry on average, headers and slot included.
const ENTRY: usize = 16 + 24 + 8 + 16 + 512;
/// Operations of a batch; a batch falls due every millisecond.
const BATCH: usize = 32;
/// Entries that an operation reads.
const READS: usize = 8;
/// Operations of a frame of the interface.
const FRAME: usize = 256;
/// Pages that the interface maps, touches and unmaps in a frame.
const FRAME_PAGES: usize = 4;
const HZ: u64 = 120;

#[derive(Trace)]
struct Entry {
    key: u64,
    body: Field<DataArray<u64>>,
}

/// The table of one mutator.
struct Table<'s> {
    entries: Local<'s, RefArray<Entry>>,
    len: usize,
    rng: Rng,
    sum: u64,
}

impl<'s> Table<'s> {
    fn new(cx: &mut Scope<'s>, len: usize, seed: u64) -> Result<Table<'s>, OutOfMemory> {
        let entries = cx.alloc_refs::<Entry>(len)?;
        let mut table = Table { entries, len, rng: Rng::new(seed), sum: 0 };
        for i in 0..len {
            table.replace(cx, i)?;
        }
        Ok(table)
    }

    fn replace(&mut self, cx: &mut Scope<'s>, at: usize) -> Result<(), OutOfMemory> {
        // 256 to 768 bytes.
        let words = 32 + (self.rng.next_u64() % 64) as usize;
        let key = self.rng.next_u64();
        let nogc = cx.reserve(NoGc::size_of::<Entry>() + NoGc::size_of_data::<u64>(words))?;
        let body = nogc.alloc_data::<u64>(words);
        body.set(0, key);
        let entry = nogc.alloc(Entry { key, body: Field::null() });
        entry.body.store(&nogc, Some(body));
        self.entries.get(&nogc).store(&nogc, at, Some(entry));
        Ok(())
    }

    /// Reads some entries and replaces one.
    fn operation(&mut self, cx: &mut Scope<'s>) -> Result<(), OutOfMemory> {
        let entries = self.entries.get(cx);
        for _ in 0..READS {
            let at = (self.rng.next_u64() % self.len as u64) as usize;
            let entry = entries.load(cx, at).expect("the table is full");
            let body = entry.body.load(cx).expect("every entry has a body");
            assert_eq!(body.get(0), entry.key, "an entry and its body belong together");
            self.sum = self.sum.wrapping_add(entry.key);
        }
        let at = (self.rng.next_u64() % self.len as u64) as usize;
        self.replace(cx, at)
    }
}

/// A mutator that keeps `bytes` alive: `operation` is one operation, `batch` the time from a batch's due time to its
/// end.
pub fn mutator(heap: &Heap, stage: &Stage, n: usize, bytes: usize) {
    let len = bytes / ENTRY;
    let ran = heap.attach(|cx| {
        stage.notes.mutator(cx.mutator_id());
        let mut table = Table::new(cx, len, stage.seed ^ (n as u64 + 1))?;
        let (mut operations, mut batches) = (stage.log("operation"), stage.log("batch"));
        stage.arrive();
        let mut pace = Pace::new(1000);
        while !stage.over() {
            let due = pace.due();
            cx.blocking(|| clock::sleep_until(due));
            let mut begin = clock::now();
            for _ in 0..BATCH {
                table.operation(cx)?;
                let end = clock::now();
                operations.add(begin, end);
                begin = end;
            }
            batches.add(due, begin);
        }
        Ok::<_, OutOfMemory>(())
    });
    if let Err(e) = ran {
        stage.trouble(format!("a mutator stopped: {e}; give --heap more"));
    }
}

/// The interface: in each frame it maps, touches and unmaps some pages, as a renderer does with its buffers (the
/// lock for writing, for reading at the first fault of a mapping, and for writing), and then works on a table
/// of `bytes` bytes of its own.
pub fn interface(heap: &Heap, stage: &Stage, bytes: usize) {
    let len = bytes / ENTRY;
    let period = 1_000_000_000 / HZ;
    let ran = heap.attach(|cx| {
        stage.notes.mutator(cx.mutator_id());
        let mut table = Table::new(cx, len, stage.seed ^ 0x55)?;
        let (mut maps, mut faults) = (stage.log("mmap"), stage.log("first fault"));
        let (mut unmaps, mut frames) = (stage.log("munmap"), stage.log("frame"));
        stage.arrive();
        let mut pace = Pace::new(HZ);
        for number in 0.. {
            if stage.over() {
                break;
            }
            let vsync = pace.due();
            let mut begin = vsync;
            // In native code, as far as the heap is concerned: a collection may go on meanwhile, and hold the
            // lock in its pause.
            cx.blocking(|| {
                clock::sleep_until(vsync);
                begin = clock::now();
                match maps.time(|| Scratch::anonymous(FRAME_PAGES)) {
                    Ok(buffer) => {
                        faults.time(|| buffer.write(0));
                        (1..FRAME_PAGES).for_each(|page| buffer.write(page));
                        unmaps.time(|| drop(buffer));
                    }
                    Err(e) => stage.trouble(format!("UiMutator: mmap failed with {e}")),
                }
            });
            for _ in 0..FRAME {
                table.operation(cx)?;
            }
            let end = clock::now();
            frames.add(vsync, end);
            let window = stage.window.get();
            if vsync >= window.0 && end <= window.1 {
                let deadline = vsync + period;
                stage.notes.frame(NotedFrame { number, vsync, begin, end, deadline });
            }
        }
        Ok::<_, OutOfMemory>(())
    });
    if let Err(e) = ran {
        stage.trouble(format!("the interface stopped: {e}; give --heap more"));
    }
}

/// Asks for one collection after the other, `every` nanoseconds apart; `collection` is one, from the request.
pub fn requester(heap: &Heap, stage: &Stage, every: u64) {
    let mut log = stage.log("collection");
    while !stage.over() {
        log.time(|| heap.collect());
        let end = clock::now() + every;
        while clock::now() < end && !stage.over() {
            clock::sleep_until((clock::now() + 10_000_000).min(end));
        }
    }
}

/// Computes in bursts of 5 to 40 ms, with a millisecond or two between them: in the gaps the collector gets on,
/// and at the next burst it is preempted wherever it is.
pub fn hog(stage: &Stage, n: usize) {
    let mut rng = Rng::new(stage.seed ^ (0x409 + n as u64));
    while !stage.over() {
        let end = clock::now() + 5_000_000 + rng.next_u64() % 35_000_000;
        while clock::now() < end && !stage.over() {
            (0..1000).for_each(|_| _ = std::hint::black_box(rng.next_u64()));
        }
        clock::sleep_until(clock::now() + 1_000_000 + rng.next_u64() % 1_000_000);
    }
}
