//! Trying the kernel's operations on throw-away ranges.
//!
//! A feature bit says that a kernel knows an operation; that it works here, past filters and security
//! modules, only trying shows. Each trial builds its own ranges and leaves nothing behind.
//!
//! The trial of SIGBUS delivery needs a handler, and a process has one only, which may be a running
//! heap's. So it runs in a child that shares the memory (and so the userfaultfd's ranges) but has its
//! own table of handlers: `clone(CLONE_VM | CLONE_VFORK)`, what `posix_spawn` does.

use std::{
    mem::MaybeUninit,
    ptr,
    sync::{
        Mutex,
        atomic::{AtomicPtr, Ordering},
    },
};

use libc::{c_int, c_void, siginfo_t};

use super::Fact;
use crate::sys::{
    Advice, Errno, Reservation, Userfaultfd, map, page_size, signal, thread::give_way,
    uffd::Features,
};

/// What the trials write and expect to find again.
const PATTERN: u64 = 0x5EED_F19A_5EED_F19A;

fn page(name: &str) -> Fact<Reservation> {
    let range =
        Reservation::anonymous(page_size(), page_size(), name).map_err(|e| e.to_string())?;
    // SAFETY: fresh memory of ours. Kernels without huge pages refuse the advice and need it not.
    let _ = unsafe { map::advise(range.base(), range.len(), Advice::NoHugepage) };
    Ok(range)
}

fn read(range: &Reservation) -> u64 {
    // SAFETY: memory of ours, aligned to a page, present or readable as zeros.
    unsafe { (range.base() as *const u64).read_volatile() }
}

fn write(range: &Reservation, value: u64) {
    // SAFETY: memory of ours, aligned to a page, that nobody else knows.
    unsafe { (range.base() as *mut u64).write_volatile(value) }
}

/// Moves a page between two ranges.
pub(super) fn move_pages() -> Fact<()> {
    let uffd = Userfaultfd::open(true).map_err(|e| e.to_string())?;
    let have = uffd.features_available();
    if !have.contains(Features::MOVE) {
        return Err(
            "this kernel has no UFFDIO_MOVE (6.8 or newer has it): pages are copied instead"
                .to_owned(),
        );
    }
    moves_a_page(&uffd)
}

/// Tries whether `UFFDIO_MOVE` really moves a page, by this descriptor, on throw-away pages.
///
/// # Errors
/// What went wrong. No refusal for the moment is taken for one for ever.
pub fn moves_a_page(uffd: &Userfaultfd) -> Fact<()> {
    asked_again(TRIES, || {
        let (from, to) = (page("firn: move trial, from")?, page("firn: move trial, to")?);
        write(&from, PATTERN);
        uffd.register_missing(to.base(), to.len()).map_err(|e| format!("register: {e}"))?;
        let outcome = uffd.move_pages(to.base(), from.base(), to.len(), false, false);
        Ok(match outcome.error {
            Some(errno) => Err(errno),
            None if read(&to) != PATTERN => {
                return Err("a moved page has other contents".to_owned());
            }
            None => Ok(()),
        })
    })
}

/// Attempts at moving a page.
const TRIES: u32 = 20;

/// Makes `attempt`, on fresh pages, until the kernel does not refuse it for the moment: a page that is locked or being
/// migrated (`EAGAIN`; or `EEXIST`, where it has been moved at the second try), or shared with a child that another
/// thread forks (`EBUSY`), or a signal (`EINTR`) says nothing about what the kernel can do.
fn asked_again(tries: u32, mut attempt: impl FnMut() -> Fact<Result<(), Errno>>) -> Fact<()> {
    let passes =
        |errno| matches!(errno, Errno::EAGAIN | Errno::EEXIST | Errno::EBUSY | Errno::EINTR);
    for turn in 1.. {
        match attempt()? {
            Ok(()) => break,
            Err(errno) if !passes(errno) => {
                return Err(format!("moving a page failed with {errno}"));
            }
            Err(errno) if turn == tries => {
                return Err(format!("moving a page was refused with {errno}, {tries} times"));
            }
            Err(_) => give_way(turn),
        }
    }
    Ok(())
}

/// Moves a page by `mremap(MREMAP_DONTUNMAP)`.
pub(super) fn remap_dontunmap() -> Fact<()> {
    let (from, to) = (page("firn: remap trial, from")?, page("firn: remap trial, to")?);
    write(&from, PATTERN);
    // SAFETY: both ranges are ours and nobody else knows them.
    unsafe { map::remap_dontunmap(from.base(), from.len(), to.base()) }
        .map_err(|e| format!("mremap(MREMAP_DONTUNMAP) failed with {e}: 5.7 or newer has it"))?;
    match (read(&from), read(&to)) {
        (0, PATTERN) => Ok(()),
        (from, to) => Err(format!("remapping left {from:#x} and brought {to:#x}")),
    }
}

/// What the child works on.
struct Trial {
    uffd: Userfaultfd,
    missing: Reservation,
    filled: Reservation,
}

/// The trial that the child's handler belongs to. Stored before the child exists and read by it
/// alone; the parent is suspended meanwhile, so nothing needs ordering.
static TRIAL: AtomicPtr<Trial> = AtomicPtr::new(ptr::null_mut());

/// One trial at a time, because of `TRIAL`.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Exit codes of the child.
const WORKS: c_int = 0;
const NO_HANDLER: c_int = 10;
const OTHER_SIGNAL: c_int = 11;
const OTHER_ADDRESS: c_int = 12;
const COPY_FAILED: c_int = 13;
const OTHER_CONTENTS: c_int = 14;

/// Bytes of the child's stack: it holds two calls and a signal frame.
const CHILD_STACK: usize = 256 << 10;

/// Touches a missing page; the SIGBUS that follows installs it.
pub(super) fn sigbus() -> Fact<()> {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let uffd = Userfaultfd::open(true).map_err(|e| e.to_string())?;
    let trial =
        Trial { uffd, missing: page("firn: missing page")?, filled: page("firn: filled page")? };
    write(&trial.filled, PATTERN);
    trial
        .uffd
        .register_missing(trial.missing.base(), trial.missing.len())
        .map_err(|e| format!("register: {e}"))?;
    let stack_len = CHILD_STACK.next_multiple_of(page_size());
    let stack = Reservation::anonymous(stack_len, page_size(), "firn: trial stack")
        .map_err(|e| e.to_string())?;
    TRIAL.store((&raw const trial).cast_mut(), Ordering::Relaxed);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the child runs on a stack of its own, calls only what is signal-safe, and ends by
    // `_exit`; CLONE_VFORK suspends this thread until then, so everything it uses stays alive.
    let child = unsafe { libc::clone(touch, stack.end() as *mut c_void, flags, ptr::null_mut()) };
    TRIAL.store(ptr::null_mut(), Ordering::Relaxed);
    if child == -1 {
        return Err(format!("cannot start the trial's process: {}", Errno::last()));
    }
    let mut status = 0;
    // SAFETY: waits for our own child; the kernel fills a live integer.
    while unsafe { libc::waitpid(child, &mut status, 0) } == -1 {
        if Errno::last() != Errno::EINTR {
            return Err(format!("cannot wait for the trial's process: {}", Errno::last()));
        }
    }
    if libc::WIFSIGNALED(status) {
        return Err(format!("the trial's process died by signal {}", libc::WTERMSIG(status)));
    }
    match libc::WEXITSTATUS(status) {
        WORKS => Ok(()),
        NO_HANDLER => Err("the trial could not set its signal handler".to_owned()),
        OTHER_SIGNAL => Err("touching a missing page raised SIGSEGV, not SIGBUS".to_owned()),
        OTHER_ADDRESS => Err("SIGBUS came with another address than the one touched".to_owned()),
        COPY_FAILED => Err("the handler could not install the page".to_owned()),
        OTHER_CONTENTS => Err("the installed page has other contents".to_owned()),
        other => Err(format!("the trial's process ended with {other}")),
    }
}

/// The child: touches the page, and says by its exit code what happened.
extern "C" fn touch(_: *mut c_void) -> c_int {
    let trial = TRIAL.load(Ordering::Relaxed);
    // SAFETY: all-zero is a valid sigaction and mask. Handlers and mask are the child's own, as it
    // was cloned without CLONE_SIGHAND. SIGSEGV is handled too, so that the child never dumps core,
    // which would end every process that shares the memory; the alarm ends a child that hangs, and
    // its default action dumps nothing.
    let code = unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = install_page as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        let none: libc::sigset_t = MaybeUninit::zeroed().assume_init();
        let mut dfl: libc::sigaction = MaybeUninit::zeroed().assume_init();
        dfl.sa_sigaction = libc::SIG_DFL;
        let set = libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) == 0
            && libc::sigaction(libc::SIGSEGV, &action, ptr::null_mut()) == 0
            && libc::sigaction(libc::SIGALRM, &dfl, ptr::null_mut()) == 0
            && libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut()) == 0;
        if set {
            libc::alarm(5);
            if read(&(*trial).missing) == PATTERN { WORKS } else { OTHER_CONTENTS }
        } else {
            NO_HANDLER
        }
    };
    // SAFETY: ends the child without running anything of the parent's.
    unsafe { libc::_exit(code) }
}

/// The child's handler for SIGBUS and SIGSEGV.
unsafe extern "C" fn install_page(which: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the parent is suspended with the trial on its stack.
    let trial = unsafe { &*TRIAL.load(Ordering::Relaxed) };
    // SAFETY: the kernel gave us `info`, for one of two signals that carry an address.
    let address = unsafe { signal::fault_address(info) };
    let code = if which != libc::SIGBUS {
        OTHER_SIGNAL
    } else if address != trial.missing.base() {
        OTHER_ADDRESS
    } else {
        let (to, from) = (&trial.missing, &trial.filled);
        if trial.uffd.copy(to.base(), from.base(), to.len(), false).is_complete() {
            return;
        }
        COPY_FAILED
    };
    // SAFETY: ends the child without running anything of the parent's.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_for_the_moment_is_asked_again_but_not_for_ever() {
        for errno in [Errno::EAGAIN, Errno::EEXIST, Errno::EBUSY, Errno::EINTR] {
            let mut attempts = 0;
            let third = asked_again(5, || {
                attempts += 1;
                Ok(if attempts < 3 { Err(errno) } else { Ok(()) })
            });
            assert_eq!((third, attempts), (Ok(()), 3));
            let mut attempts = 0;
            let never = asked_again(5, || {
                attempts += 1;
                Ok(Err(errno))
            });
            let why = never.unwrap_err();
            assert!(why.contains(&errno.to_string()) && why.contains("5 times"), "{why}");
            assert_eq!(attempts, 5);
        }
        let mut attempts = 0;
        let other = asked_again(5, || {
            attempts += 1;
            Ok(Err(Errno::EINVAL))
        });
        assert_eq!((other.unwrap_err().contains("EINVAL"), attempts), (true, 1));
    }
}
