//! The fault handlers of a process: ours for our pages, everyone else's as if ours were not there.

mod sys_support;

use std::{
    cell::RefCell,
    fs::File,
    mem::MaybeUninit,
    os::fd::AsRawFd,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use firn_heap::sys::{
    Reservation, Userfaultfd, page_size,
    signal::{self, AltStack, Previous},
};
use libc::{c_int, c_void, siginfo_t};
use sys_support::{in_child, killed_by, succeeded};

static PREVIOUS_BUS: OnceLock<Previous> = OnceLock::new();
static PREVIOUS_SEGV: OnceLock<Previous> = OnceLock::new();
/// What our handler works with: set before anything is touched.
static UFFD: OnceLock<Userfaultfd> = OnceLock::new();
static MISSING: AtomicUsize = AtomicUsize::new(0);
static FILLED: AtomicUsize = AtomicUsize::new(0);
static BUILT: AtomicUsize = AtomicUsize::new(0);
/// Where the handler's own frame was.
static FRAME: AtomicUsize = AtomicUsize::new(0);
/// What the handler of the embedder saw.
static FOREIGN: AtomicUsize = AtomicUsize::new(0);
static FOREIGN_MASK: AtomicUsize = AtomicUsize::new(0);

/// Ours: builds missing pages, and passes on the rest.
unsafe extern "C" fn ours(which: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let here = 0u8;
    FRAME.store((&raw const here) as usize, Ordering::Relaxed);
    let (missing, page) = (MISSING.load(Ordering::Relaxed), page_size());
    // SAFETY: the kernel gave us `info`, and calls us for these two signals only.
    let (addr, missing_page) =
        unsafe { (signal::fault_address(info), signal::is_bus_adrerr(info)) };
    if which == libc::SIGBUS && missing_page && addr.wrapping_sub(missing) < 64 * page {
        let uffd = UFFD.get().expect("set before a page was touched");
        let dst = addr & !(page - 1);
        let outcome = uffd.copy(dst, FILLED.load(Ordering::Relaxed), page, false);
        // The page may be there by now: then the access succeeds as well.
        if outcome.is_complete() {
            BUILT.fetch_add(1, Ordering::Relaxed);
        }
        return;
    }
    let previous = if which == libc::SIGBUS { &PREVIOUS_BUS } else { &PREVIOUS_SEGV };
    let previous = previous.get().expect("kept before the handler was installed");
    // SAFETY: the kernel's own arguments, and the last thing we do.
    unsafe { signal::chain(which, info, context, previous) };
}

fn install_ours() {
    // SAFETY: `ours` is signal-safe and chains with these slots.
    unsafe {
        signal::install(libc::SIGBUS, ours, &PREVIOUS_BUS).unwrap();
        signal::install(libc::SIGSEGV, ours, &PREVIOUS_SEGV).unwrap();
    }
}

/// What an embedder does before us.
fn set_action(signal: c_int, handler: usize, flags: c_int, also_block: &[c_int]) {
    // SAFETY: all-zero is a valid sigaction; the handlers given here are functions of this file, or
    // SIG_DFL and SIG_IGN.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        for &s in also_block {
            libc::sigaddset(&mut action.sa_mask, s);
        }
        assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
    }
}

fn action_of(signal: c_int) -> usize {
    // SAFETY: asks only, into a live struct.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        assert_eq!(libc::sigaction(signal, ptr::null(), &mut action), 0);
        action.sa_sigaction
    }
}

/// Which of some signals this thread blocks, as bits.
fn blocked() -> usize {
    // SAFETY: asks only, into a live mask.
    unsafe {
        let mut mask: libc::sigset_t = MaybeUninit::zeroed().assume_init();
        libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut mask);
        [libc::SIGUSR1, libc::SIGUSR2, libc::SIGBUS, libc::SIGTERM]
            .iter()
            .enumerate()
            .map(|(i, &s)| ((libc::sigismember(&mask, s) == 1) as usize) << i)
            .sum()
    }
}

/// The embedder's: repairs the fault by mapping memory there, and remembers under which mask it ran.
unsafe extern "C" fn repair(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    FOREIGN.fetch_add(1, Ordering::Relaxed);
    FOREIGN_MASK.store(blocked(), Ordering::Relaxed);
    let page = page_size();
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: the kernel gave us `info`; the page belongs to this test, which just failed to read it.
    unsafe {
        let at = signal::fault_address(info) & !(page - 1);
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(at as *mut c_void, page, rights, flags, -1, 0);
    }
}

/// The same kind of handler without arguments.
unsafe extern "C" fn count(_: c_int) {
    FOREIGN.fetch_add(1, Ordering::Relaxed);
}

/// A mapping of a file that has no such page: touching it raises SIGBUS, BUS_ADRERR, as a missing
/// page does.
fn beyond_a_file() -> usize {
    let page = page_size();
    let path = std::env::temp_dir().join(format!("firn-beyond-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    // SAFETY: a fresh mapping at a place that the kernel chooses.
    let at = unsafe {
        libc::mmap(ptr::null_mut(), page, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
    };
    assert_ne!(at, libc::MAP_FAILED);
    at as usize
}

fn touch(addr: usize) -> u8 {
    // SAFETY: that the access faults is the purpose; a handler repairs it or the process dies.
    unsafe { (addr as *const u8).read_volatile() }
}

/// A userfaultfd with 64 missing pages. False if the machine refuses.
fn missing_pages() -> bool {
    let uffd = match Userfaultfd::open(true) {
        Ok(uffd) => uffd,
        Err(error) => {
            println!("skipped: {error}");
            return false;
        }
    };
    let page = page_size();
    let missing = Reservation::anonymous(64 * page, page, "firn: missing").unwrap();
    let filled = Reservation::anonymous(page, page, "firn: filled").unwrap();
    // SAFETY: memory of ours.
    unsafe { (filled.base() as *mut u8).write_bytes(7, page) };
    uffd.register_missing(missing.base(), missing.len()).unwrap();
    MISSING.store(missing.base(), Ordering::Relaxed);
    FILLED.store(filled.base(), Ordering::Relaxed);
    // For the rest of the process's life.
    std::mem::forget((missing, filled));
    UFFD.set(uffd).is_ok()
}

#[test]
fn touched_pages_are_built_by_the_threads_that_touch_them() {
    let output = in_child("touched_pages_are_built_by_the_threads_that_touch_them", || {
        if !missing_pages() {
            return;
        }
        install_ours();
        let base = MISSING.load(Ordering::Relaxed);
        thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    let stack = AltStack::install().unwrap();
                    for i in 0..64 {
                        assert_eq!(touch(base + i * page_size() + i), 7);
                    }
                    assert!(stack.size() >= AltStack::ROOM);
                });
            }
        });
        // Every page was built once, whoever came first.
        assert_eq!(BUILT.load(Ordering::Relaxed), 64);
    });
    succeeded(&output);
}

#[test]
fn a_fault_of_someone_else_goes_to_the_handler_before_ours() {
    let output = in_child("a_fault_of_someone_else_goes_to_the_handler_before_ours", || {
        let flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        set_action(libc::SIGBUS, repair as *const () as usize, flags, &[libc::SIGUSR1]);
        install_ours();
        install_ours();
        let at = beyond_a_file();
        assert_eq!(touch(at), 0);
        assert_eq!(FOREIGN.load(Ordering::Relaxed), 1);
        // SIGUSR1 by its sa_mask and SIGBUS itself, but nothing of what only our handler blocks.
        assert_eq!(FOREIGN_MASK.load(Ordering::Relaxed), 0b0101);
        assert_eq!(blocked(), 0, "the mask is back");
        assert_eq!(action_of(libc::SIGBUS), ours as *const () as usize, "ours is still there");
    });
    succeeded(&output);
}

#[test]
fn a_handler_that_wanted_its_signal_open_gets_it_open() {
    let output = in_child("a_handler_that_wanted_its_signal_open_gets_it_open", || {
        let flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        set_action(libc::SIGBUS, repair as *const () as usize, flags, &[]);
        install_ours();
        // SAFETY: a live mask; blocks SIGUSR2 on this thread, before the fault.
        unsafe {
            let mut mask: libc::sigset_t = MaybeUninit::zeroed().assume_init();
            libc::sigaddset(&mut mask, libc::SIGUSR2);
            libc::pthread_sigmask(libc::SIG_BLOCK, &mask, ptr::null_mut());
        }
        touch(beyond_a_file());
        assert_eq!(FOREIGN_MASK.load(Ordering::Relaxed), 0b0010);
    });
    succeeded(&output);
}

#[test]
fn a_handler_without_arguments_and_one_that_is_used_once() {
    let output = in_child("a_handler_without_arguments_and_one_that_is_used_once", || {
        set_action(libc::SIGBUS, count as *const () as usize, libc::SA_RESETHAND, &[]);
        install_ours();
        // SAFETY: sends a signal to this thread.
        unsafe { libc::raise(libc::SIGBUS) };
        assert_eq!(FOREIGN.load(Ordering::Relaxed), 1);
        println!("once");
        // SAFETY: as above: now it is the default action.
        unsafe { libc::raise(libc::SIGBUS) };
    });
    assert!(killed_by(&output, libc::SIGBUS).contains("once"));
}

#[test]
fn without_a_handler_before_a_fault_kills_by_its_own_signal() {
    let name = "without_a_handler_before_a_fault_kills_by_its_own_signal";
    let output = in_child(name, || {
        set_action(libc::SIGBUS, libc::SIG_DFL, 0, &[]);
        install_ours();
        touch(beyond_a_file());
    });
    killed_by(&output, libc::SIGBUS);
}

#[test]
fn a_wild_pointer_kills_by_sigsegv_past_rusts_own_handler() {
    let output = in_child("a_wild_pointer_kills_by_sigsegv_past_rusts_own_handler", || {
        install_ours();
        touch(page_size() / 2);
    });
    killed_by(&output, libc::SIGSEGV);
}

#[test]
fn an_ignored_signal_is_ignored_when_sent_and_fatal_as_a_fault() {
    let output = in_child("an_ignored_signal_is_ignored_when_sent_and_fatal_as_a_fault", || {
        set_action(libc::SIGBUS, libc::SIG_IGN, 0, &[]);
        install_ours();
        // SAFETY: sends a signal to this thread.
        unsafe { libc::raise(libc::SIGBUS) };
        println!("ignored");
        touch(beyond_a_file());
    });
    assert!(killed_by(&output, libc::SIGBUS).contains("ignored"));
}

#[test]
fn a_sent_signal_kills_where_the_default_was() {
    let output = in_child("a_sent_signal_kills_where_the_default_was", || {
        set_action(libc::SIGBUS, libc::SIG_DFL, 0, &[]);
        install_ours();
        // SAFETY: sends a signal to this process, whichever thread gets it, and waits for the end
        // (a process that survives ends by the alarm, with another signal).
        unsafe {
            libc::kill(libc::getpid(), libc::SIGBUS);
            loop {
                libc::pause();
            }
        }
    });
    killed_by(&output, libc::SIGBUS);
}

#[allow(unconditional_recursion)]
fn overflow(depth: usize) -> usize {
    let frame = std::hint::black_box([depth; 512]);
    overflow(depth + 1) + frame[depth % 512]
}

#[test]
fn rusts_own_report_of_a_stack_overflow_still_appears() {
    let output = in_child("rusts_own_report_of_a_stack_overflow_still_appears", || {
        install_ours();
        let thread = thread::Builder::new().name("Mutator-7".to_owned());
        let thread = thread.spawn(|| {
            let _stack = AltStack::install().unwrap();
            println!("{}", overflow(0));
        });
        let _ = thread.unwrap().join();
    });
    let text = killed_by(&output, libc::SIGABRT);
    assert!(text.contains("'Mutator-7'") && text.contains("overflowed its stack"), "{text}");
}

#[test]
fn an_overflow_of_the_alternate_stack_hits_its_guard() {
    let output = in_child("an_overflow_of_the_alternate_stack_hits_its_guard", || {
        let stack = AltStack::install().unwrap();
        // SAFETY: asks only, into a live struct.
        let lowest = unsafe {
            let mut now: libc::stack_t = MaybeUninit::zeroed().assume_init();
            assert_eq!(libc::sigaltstack(ptr::null(), &mut now), 0);
            now.ss_sp as usize
        };
        assert!(stack.contains(lowest) && stack.contains(lowest - 1));
        assert_eq!(touch(lowest), 0);
        println!("the stack is there");
        touch(lowest - 1);
    });
    assert!(killed_by(&output, libc::SIGSEGV).contains("the stack is there"));
}

#[test]
fn handlers_run_on_the_alternate_stack_and_the_old_one_comes_back() {
    let output = in_child("handlers_run_on_the_alternate_stack_and_the_old_one_comes_back", || {
        if !missing_pages() {
            return;
        }
        install_ours();
        let base = MISSING.load(Ordering::Relaxed);
        thread::spawn(move || {
            let stack = AltStack::install().unwrap();
            touch(base);
            assert!(stack.contains(FRAME.load(Ordering::Relaxed)));
            let inner = AltStack::install().unwrap();
            touch(base + page_size());
            assert!(inner.contains(FRAME.load(Ordering::Relaxed)));
            drop(inner);
            touch(base + 2 * page_size());
            assert!(stack.contains(FRAME.load(Ordering::Relaxed)));
            drop(stack);
            touch(base + 3 * page_size());
            assert_eq!(BUILT.load(Ordering::Relaxed), 4);
        })
        .join()
        .unwrap();
    });
    succeeded(&output);
}

thread_local! {
    static LATE: RefCell<Option<AltStack>> = const { RefCell::new(None) };
}

#[test]
fn a_stack_that_outlives_its_threads_rust_stack_is_dropped_in_peace() {
    let name = "a_stack_that_outlives_its_threads_rust_stack_is_dropped_in_peace";
    let output = in_child(name, || {
        for _ in 0..8 {
            thread::spawn(|| LATE.set(Some(AltStack::install().unwrap()))).join().unwrap();
        }
    });
    succeeded(&output);
}
