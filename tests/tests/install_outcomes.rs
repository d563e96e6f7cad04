//! Every outcome that the kernel may give for installing a page, given in a seeded share of calls: whatever it says, the
//! heap stays intact (the oracle compares it with its model after every cycle), and the event stream reports it.
//!
//! Outcomes that say something about the world are not just claimed but brought about: where `EEXIST` is to
//! come, the page is really installed first by another call, and where `ENOENT` is to come, its source is
//! really moved away.

use firn::{BackendKind, Event, Heap, HeapError, InstallKind, Listener, Options};
use firn_bench::progress::{Progress, Stop};
use firn_bench::workloads::Bench;
use firn_bench::workloads::graph::{self, GraphParams};
use firn_gc::core::Core;
use firn_gc::install::Installer;
use firn_heap::pages::{PageState, StateCell};
use firn_heap::space::Space;
use firn_heap::sys::uffd::{Injector, Op, Outcome, Userfaultfd, Verdict};
use firn_heap::sys::{Errno, page_size};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

mod support;
use support::in_child;

/// What happens to a call that was chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    /// The kernel does a part only.
    Partial,
    /// Nothing is done, for this reason.
    Refused(Errno),
    /// Another call installs the first page, with the same content, before this one.
    Exists,
    /// Another call moves the first page before this one.
    Gone,
    /// The first pages are moved, and the kernel says that they were there before.
    Denied,
}

thread_local! {
    /// The injector's own operations are not injected.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Does `what` to a seeded share of the `op` operations.
struct Share {
    what: What,
    op: Op,
    /// One call of so many.
    one_in: u64,
    seed: u64,
    calls: AtomicU64,
    done: AtomicU64,
    core: Weak<Core>,
}

impl Share {
    fn number(&self, call: u64) -> u64 {
        let mut x = (call ^ self.seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x ^= x >> 29;
        x.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32
    }

    /// Installs the first page of the request as somebody else would; false if this request is none that
    /// this can happen to.
    fn precede(&self, dst: usize, src: usize) -> bool {
        let page = page_size();
        let core = self.core.upgrade().expect("whoever installs pages holds the core");
        let Some(installer) = core.backend.installer() else { return false };
        let number = dst.wrapping_sub(core.space.current().base()) / page;
        if number >= core.space.geometry.pages {
            return false;
        }
        let state = StateCell(core.space.state(number)).get();
        match self.what {
            // A page that is being built may be published by a second builder, by COPY.
            What::Exists if state == PageState::Claimed => {
                let copied = installer.uffd.copy(dst, src, page, installer.wake);
                if copied.done > 0 {
                    core.space.commit_regardless(1);
                }
                copied.done > 0
            }
            // A page whose from-page is final may be moved by anyone.
            What::Gone if state == PageState::Moving => {
                let moved = installer.uffd.move_pages(dst, src, page, false, installer.wake);
                if moved.done > 0 {
                    StateCell(core.space.state(number)).set_consumed();
                }
                moved.done > 0
            }
            _ => false,
        }
    }
}

impl Injector for Share {
    fn before(&self, op: Op, dst: usize, src: usize, len: usize) -> Verdict {
        if op != self.op || INSIDE.get() {
            return Verdict::Pass;
        }
        // Relaxed: only uniqueness matters.
        let number = self.number(self.calls.fetch_add(1, Ordering::Relaxed));
        if !number.is_multiple_of(self.one_in) {
            return Verdict::Pass;
        }
        let (verdict, done) = match self.what {
            What::Partial => {
                let pages = len / page_size();
                let part = (number / self.one_in) as usize % pages;
                (Verdict::Shorten(part * page_size()), true)
            }
            What::Refused(errno) => (Verdict::Return(Outcome::failed(errno)), true),
            What::Denied => {
                let core = self.core.upgrade().expect("whoever installs pages holds the core");
                let installer = core.backend.installer().expect("it installs pages");
                let pages = (1 + number as usize % 5) * page_size();
                INSIDE.set(true);
                let moved =
                    installer.uffd.move_pages(dst, src, pages.min(len), false, installer.wake);
                INSIDE.set(false);
                match moved.done {
                    0 => (Verdict::Pass, false),
                    _ => (Verdict::Return(Outcome::failed(Errno::EEXIST)), true),
                }
            }
            What::Exists | What::Gone => {
                INSIDE.set(true);
                let done = self.precede(dst, src);
                INSIDE.set(false);
                (Verdict::Pass, done)
            }
        };
        self.done.fetch_add(done as u64, Ordering::Relaxed);
        verdict
    }
}

/// Counts what the events say about retries.
#[derive(Default)]
struct Retries(Mutex<Vec<(InstallKind, i32, u64)>>);

impl Listener for Retries {
    fn event(&self, event: &Event) {
        if let Event::Retry { op, errno, count, .. } = *event {
            self.0.lock().unwrap().push((op, errno, count));
        }
    }
}

impl Retries {
    fn count(&self, op: InstallKind, errno: Errno) -> u64 {
        let all = self.0.lock().unwrap();
        all.iter().filter(|r| r.0 == op && r.1 == errno.0).map(|r| r.2).sum()
    }
}

/// Runs the oracle's workload with the outcome injected, on each of `ways`; returns what was injected.
fn survives(ways: &[&str], what: What, op: Op, one_in: u64, reported: Errno) {
    let kind = if op == Op::Move { InstallKind::Move } else { InstallKind::Copy };
    for way in ways {
        let mut injected = 0;
        let mut retries = 0;
        for seed in 0..4 {
            let text = format!("heap=32m,{way},workers={},dense=50", 1 + seed % 2);
            let heap = match Heap::new(&Options::parse(&text).unwrap()) {
                Ok(heap) => heap,
                Err(error) => {
                    println!("left out: {way}: {error}");
                    return;
                }
            };
            let events = Arc::<Retries>::default();
            heap.add_listener(events.clone());
            let share = Arc::new(Share {
                what,
                op,
                one_in,
                seed,
                calls: AtomicU64::new(0),
                done: AtomicU64::new(0),
                core: Arc::downgrade(heap.core()),
            });
            let uffd = &heap.core().backend.installer().unwrap().uffd;
            assert!(uffd.set_injector(share.clone()), "the first injector");
            let params = GraphParams {
                threads: 2,
                rounds: 4,
                operations: 3_000,
                live_bytes: 12 << 20,
                collect_continuously: seed % 2 == 1,
                ..GraphParams::small(seed)
            };
            let (stop, progress) = (Stop::new(), Progress::silent());
            let bench = Bench::new(&heap, &stop, &progress);
            let ran = graph::run_on(bench, &params);
            ran.unwrap_or_else(|error| panic!("{what:?} for {op:?}, {text}, seed {seed}: {error}"));
            // The counts are reported with the cycle that follows.
            heap.collect();
            injected += share.done.load(Ordering::Relaxed);
            retries += events.count(kind, reported);
        }
        assert!(injected > 0, "{what:?} never happened to {op:?} with {way}");
        assert!(retries > 0, "{what:?} for {op:?} with {way} is not in the event stream");
    }
}

const MOVING: &[&str] = &["backend=pingpong", "backend=pingpong,fault=thread"];
const COPYING: &[&str] =
    &["backend=pingpong,install=copy", "backend=pingpong,install=copy,fault=thread", "backend=art"];

#[test]
fn a_move_that_denies_itself_has_moved_the_pages() {
    survives(MOVING, What::Denied, Op::Move, 3, Errno::EEXIST);
    survives(&["backend=art,install=move"], What::Denied, Op::Move, 3, Errno::EEXIST);
}

#[test]
fn partial_moves_go_on_behind_what_was_done() {
    survives(MOVING, What::Partial, Op::Move, 2, Errno::EAGAIN);
    survives(&["backend=art,install=move"], What::Partial, Op::Move, 2, Errno::EAGAIN);
}

#[test]
fn partial_copies_go_on_behind_what_was_done() {
    survives(COPYING, What::Partial, Op::Copy, 2, Errno::EAGAIN);
}

#[test]
fn an_address_space_under_change_is_asked_again() {
    survives(MOVING, What::Refused(Errno::EAGAIN), Op::Move, 3, Errno::EAGAIN);
    survives(COPYING, What::Refused(Errno::EAGAIN), Op::Copy, 3, Errno::EAGAIN);
}

#[test]
fn a_page_that_another_thread_published_is_skipped() {
    survives(MOVING, What::Exists, Op::Move, 2, Errno::EEXIST);
    survives(COPYING, What::Exists, Op::Copy, 2, Errno::EEXIST);
}

#[test]
fn a_from_page_that_another_thread_moved_is_skipped() {
    // The destination is looked at first: it is there.
    survives(MOVING, What::Gone, Op::Move, 2, Errno::EEXIST);
}

#[test]
fn pages_that_cannot_be_moved_are_copied() {
    for errno in [Errno::EBUSY, Errno::EINVAL, Errno::ESRCH] {
        survives(MOVING, What::Refused(errno), Op::Move, 3, errno);
    }
    survives(&["backend=art,install=move"], What::Refused(Errno::EBUSY), Op::Move, 3, Errno::EBUSY);
}

#[test]
fn a_kernel_that_never_moves_a_page_costs_copies_only() {
    survives(MOVING, What::Refused(Errno::EBUSY), Op::Move, 1, Errno::EBUSY);
}

#[test]
fn a_page_that_is_refused_once_is_asked_for_again() {
    survives(COPYING, What::Refused(Errno::EINVAL), Op::Copy, 3, Errno::EINVAL);
    survives(COPYING, What::Refused(Errno::ENOENT), Op::Copy, 3, Errno::ENOENT);
}

/// Refuses two of three copies.
struct Reluctant(AtomicU64);

impl Injector for Reluctant {
    fn before(&self, op: Op, _: usize, _: usize, _: usize) -> Verdict {
        // Relaxed: only uniqueness matters.
        match op {
            Op::Copy if !self.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) => {
                Verdict::Return(Outcome::failed(Errno::EINVAL))
            }
            _ => Verdict::Pass,
        }
    }
}

#[test]
fn fresh_pages_that_are_refused_for_the_moment_cost_no_collection() {
    for way in COPYING {
        let heap = match Heap::new(&Options::parse(&format!("heap=64m,{way}")).unwrap()) {
            Ok(heap) => heap,
            Err(error) => {
                println!("left out: {way}: {error}");
                continue;
            }
        };
        let injector = Arc::new(Reluctant(AtomicU64::new(1)));
        heap.core().backend.installer().unwrap().uffd.set_injector(injector.clone());
        heap.attach(|cx| {
            for _ in 0..100 {
                cx.alloc_data::<u8>(5000).unwrap();
            }
        });
        assert_eq!(heap.stats().cycles, 0, "{way}");
        assert!(
            way.contains("art") || injector.0.load(Ordering::Relaxed) > 3,
            "{way}: none asked for"
        );
    }
}

/// Refuses every page from the first collection on.
struct NoCopy(AtomicU64);

impl Injector for NoCopy {
    fn before(&self, op: Op, _: usize, _: usize, _: usize) -> Verdict {
        match op {
            Op::Copy if self.0.load(Ordering::SeqCst) > 0 => {
                Verdict::Return(Outcome::failed(Errno::EINVAL))
            }
            _ => Verdict::Pass,
        }
    }
}

fn refused_for_good(test: &str, fault: &str) {
    let output = in_child(test, || {
        let options = format!("heap=16m,backend=pingpong,install=copy,fault={fault}");
        let heap = Heap::new(&Options::parse(&options).unwrap()).unwrap();
        let injector = Arc::new(NoCopy(AtomicU64::new(0)));
        heap.core().backend.installer().unwrap().uffd.set_injector(injector.clone());
        heap.attach(|cx| {
            let data = cx.alloc_data::<u8>(100).unwrap();
            injector.0.store(1, Ordering::SeqCst);
            cx.collect();
            data.get(cx).get(0)
        });
    });
    let text = support::text(&output);
    if text.contains("userfaultfd(") && text.contains("cannot be opened") {
        println!("left out: {text}");
        return;
    }
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("keeps refusing to install"), "{text}");
}

#[test]
fn pages_refused_for_good_end_the_process_and_say_why() {
    refused_for_good("pages_refused_for_good_end_the_process_and_say_why", "sigbus");
}

#[test]
fn pages_refused_for_good_to_the_fault_thread_end_the_process_and_say_why() {
    refused_for_good(
        "pages_refused_for_good_to_the_fault_thread_end_the_process_and_say_why",
        "thread",
    );
}

#[test]
fn a_passing_lack_of_memory_is_waited_out() {
    survives(MOVING, What::Refused(Errno::ENOMEM), Op::Move, 3, Errno::ENOMEM);
    survives(COPYING, What::Refused(Errno::ENOMEM), Op::Copy, 3, Errno::ENOMEM);
}

/// Refuses registration.
struct NoRegister;

impl Injector for NoRegister {
    fn before(&self, op: Op, _: usize, _: usize, _: usize) -> Verdict {
        match op {
            Op::Register => Verdict::Return(Outcome::failed(Errno::EPERM)),
            _ => Verdict::Pass,
        }
    }
}

#[test]
fn a_refused_registration_is_diagnosed() {
    let Ok(uffd) = Userfaultfd::open(true) else {
        println!("left out: no userfaultfd");
        return;
    };
    uffd.set_injector(Arc::new(NoRegister));
    let space = Space::new(16 << 20, false).unwrap();
    let installer = Installer::new(uffd, false);
    let error = firn_gc::backend::PingPong::new(&space, installer, InstallKind::Move, false);
    let error = HeapError::from(error.err().expect("registration was refused"));
    assert!(error.is_userfaultfd_refused());
    let text = error.to_string();
    for part in ["MiB", "EPERM", "stw"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[test]
fn a_registration_refused_in_the_pause_ends_the_process_and_says_why() {
    let output =
        in_child("a_registration_refused_in_the_pause_ends_the_process_and_says_why", || {
            let heap = Heap::new(&Options::parse("heap=16m,backend=art").unwrap()).unwrap();
            assert_eq!(heap.setup().backend, BackendKind::Art);
            heap.core().backend.installer().unwrap().uffd.set_injector(Arc::new(NoRegister));
            heap.attach(|cx| {
                let data = cx.alloc_data::<u8>(100).unwrap();
                cx.collect();
                data.get(cx).get(0)
            });
        });
    let text = support::text(&output);
    if text.contains("userfaultfd(") && text.contains("cannot be opened") {
        println!("left out: {text}");
        return;
    }
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("refused the flip") && text.contains("EPERM"), "{text}");
}
