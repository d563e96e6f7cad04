//! What the daemon does beside collecting: calling listeners, and getting ready for what comes after a quiet time.

use firn::{Event, Field, Heap, Listener, NoGc, Options, OutOfMemory, Trace};
use firn_heap::sys::uffd::{Injector, Op, Verdict};
use std::cell::Cell;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

/// Longer than anything here takes on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Trace)]
struct Node {
    next: Field<Node>,
    pad: [u64; 14],
}

/// Counts cycles.
#[derive(Default)]
struct Cycles(AtomicUsize);

impl Listener for Cycles {
    fn event(&self, event: &Event) {
        if let Event::CycleEnd { .. } = event {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Adds a listener at the first event it hears.
struct Adds {
    heap: Mutex<Option<Heap>>,
    added: Arc<Cycles>,
}

impl Listener for Adds {
    fn event(&self, _: &Event) {
        if let Some(heap) = self.heap.lock().unwrap().take() {
            heap.add_listener(self.added.clone());
        }
    }
}

#[test]
fn a_listener_may_add_another_one() {
    let heap = Heap::new(&Options::parse("heap=16m,backend=stw").unwrap()).unwrap();
    let added = Arc::<Cycles>::default();
    let adds = Adds { heap: Mutex::new(Some(heap.clone())), added: added.clone() };
    heap.add_listener(Arc::new(adds));
    let (done, ended) = channel();
    std::thread::spawn(move || {
        heap.collect();
        heap.collect();
        let _ = done.send(());
    });
    ended.recv_timeout(PATIENCE).expect("a cycle came to its end");
    assert_eq!(added.0.load(Ordering::SeqCst), 2, "it heard the end of the cycle it was added in");
}

thread_local! {
    static MUTATOR: Cell<bool> = const { Cell::new(false) };
}

/// Counts the pages that the mutator installs itself.
#[derive(Default)]
struct Moves {
    by_mutator: AtomicUsize,
}

impl Injector for Moves {
    fn before(&self, _: Op, _dst: usize, _src: usize, _len: usize) -> Verdict {
        self.by_mutator.fetch_add(MUTATOR.get() as usize, Ordering::SeqCst);
        Verdict::Pass
    }
}

#[test]
fn chunks_are_ready_for_allocation_after_a_quiet_time_too() {
    let heap = match Heap::new(&Options::parse("heap=64m,backend=pingpong").unwrap()) {
        Ok(heap) if heap.setup().install == Some(firn::InstallKind::Move) => heap,
        Ok(_) => return println!("left out: this kernel has no UFFDIO_MOVE"),
        Err(error) if error.is_userfaultfd_refused() => return println!("left out: {error}"),
        Err(error) => panic!("{error}"),
    };
    let moves = Arc::<Moves>::default();
    assert!(heap.core().backend.installer().unwrap().uffd.set_injector(moves.clone()));
    heap.attach(|cx| {
        // Garbage of several times the heap, so that all of it is committed.
        for _ in 0..1_500_000 {
            let nogc = cx.reserve(NoGc::size_of::<Node>())?;
            nogc.alloc(Node { next: Field::null(), pad: [0; 14] });
        }
        Ok::<_, OutOfMemory>(())
    })
    .unwrap();
    heap.collect();
    // A trim gives half of what is free back, some seconds later, and says so to nobody.
    let core = heap.core();
    let committed = core.space.committed();
    let trimmed = committed - (committed - core.in_use()) / 2;
    let begin = Instant::now();
    while core.space.committed() > trimmed {
        assert!(begin.elapsed() < PATIENCE, "no trim: {committed} pages committed, still");
        std::thread::sleep(Duration::from_millis(10));
    }
    heap.attach(|cx| {
        MUTATOR.set(true);
        cx.reserve(NoGc::size_of::<Node>())?.alloc(Node { next: Field::null(), pad: [0; 14] });
        MUTATOR.set(false);
        Ok::<_, OutOfMemory>(())
    })
    .unwrap();
    assert_eq!(moves.by_mutator.load(Ordering::SeqCst), 0, "the mutator installed pages itself");
}

/// Panics on the thread of a mutator that is stopped.
struct Panics;

impl Listener for Panics {
    fn event(&self, event: &Event) {
        assert!(!matches!(event, Event::ThreadStop { .. }), "as a listener must not");
    }
}

#[test]
fn a_listener_that_panics_on_a_mutator_ends_the_process_and_says_why() {
    const CHILD: &str = "FIRN_TEST_PANICKING_LISTENER";
    if std::env::var_os(CHILD).is_some() {
        let heap = Heap::new(&Options::parse("heap=16m,backend=stw").unwrap()).unwrap();
        heap.add_listener(Arc::new(Panics));
        let attached = Barrier::new(2);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                attached.wait();
                heap.collect()
            });
            // Without an end of the process, the cycle would wait for what this thread leaves undone.
            heap.attach(|cx| {
                attached.wait();
                loop {
                    cx.safepoint();
                }
            })
        })
    }
    let name = "a_listener_that_panics_on_a_mutator_ends_the_process_and_says_why";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    // Ends when the child does.
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    let status = child.wait().unwrap();
    assert!(status.signal().is_some(), "{status}: {text}");
    assert!(text.contains("a listener panicked in the middle of a cycle"), "{text}");
}
