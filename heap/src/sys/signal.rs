//! Fault signals: a process-wide handler for SIGBUS or SIGSEGV that does as if it were not there for
//! every fault that is not ours, and the stack it runs on.
//!
//! There is one action for a signal in a process, and others want it too: Rust's own handler for
//! stack overflow, an embedder's crash reporter. So [`install`] keeps the action it replaces, and the
//! handler passes what is not its own to [`chain`].
//!
//! **How the handler runs.** With `SA_ONSTACK`, because the fault may be the overflow of the stack; with
//! `SA_RESTART`, as system calls see no difference between a fault and none; **without `SA_NODEFER`**,
//! because a handler that faults again on the same signal has a bug, and the kernel's answer to a
//! blocked fault (death by that signal, at that instruction) is the clearest report of it. All
//! asynchronous signals are blocked meanwhile: an embedder's handler that interrupts ours could hold a
//! claimed page for as long as it likes, or touch the heap and so fault with the signal blocked.
//! [`chain`] gives the handler before ours the mask it would have had.
//!
//! Everything called from a handler here is signal-safe.

use std::{
    io,
    marker::PhantomData,
    mem::MaybeUninit,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicPtr, Ordering},
    },
};

use libc::{c_int, c_void, siginfo_t};

use super::{Errno, MapError, Protection, Reservation, map, page_size};

/// A signal handler as the kernel calls it: signal, its cause, the interrupted context.
pub type Handler = unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// A handler of the older kind, which gets the signal's number only.
type PlainHandler = unsafe extern "C" fn(c_int);

/// Runs `f` and leaves the thread's `errno` as it was: for everything a signal handler calls.
#[inline]
pub fn preserve_errno<R>(f: impl FnOnce() -> R) -> R {
    let saved = nix::errno::Errno::last_raw();
    let result = f();
    nix::errno::Errno::set_raw(saved);
    result
}

/// Signals that the calling thread had blocked, let through until the value is dropped. The kernel ends a process for a
/// synchronous signal that is blocked, handler or not; programs that wait for signals in one thread (`sigwait`,
/// `signalfd`) block all of them in the others.
pub struct Unblocked {
    /// Those that were blocked, if any.
    blocked: Option<libc::sigset_t>,
    /// The mask is the thread's own.
    thread: PhantomData<*mut ()>,
}

impl Unblocked {
    /// Lets `signals` through to the calling thread.
    pub fn new(signals: &[c_int]) -> Unblocked {
        // SAFETY: live sets, initialised by `sigemptyset` before they are read; the calls cannot fail for the numbers of
        // signals.
        unsafe {
            let (mut wanted, mut before, mut blocked) =
                (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed());
            libc::sigemptyset(&raw mut wanted);
            libc::sigemptyset(&raw mut before);
            libc::sigemptyset(&raw mut blocked);
            for signal in signals {
                libc::sigaddset(&raw mut wanted, *signal);
            }
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const wanted, &raw mut before);
            let mut any = false;
            for signal in signals {
                if libc::sigismember(&raw const before, *signal) == 1 {
                    libc::sigaddset(&raw mut blocked, *signal);
                    any = true;
                }
            }
            Unblocked { blocked: any.then_some(blocked), thread: PhantomData }
        }
    }
}

impl Drop for Unblocked {
    fn drop(&mut self) {
        if let Some(blocked) = &self.blocked {
            // SAFETY: a set that `new` made.
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, blocked, std::ptr::null_mut()) };
        }
    }
}

/// The action for a signal that [`install`] replaced.
pub struct Previous {
    action: libc::sigaction,
    /// Whether a one-shot action (`SA_RESETHAND`) has been used up. Relaxed: it is a mere flag, and
    /// the kernel gives no order between handlers on two threads either.
    spent: AtomicBool,
}

// SAFETY: plain data (an address of a function, flags, a mask), written once before it is shared.
unsafe impl Send for Previous {}
// SAFETY: as above; the only part that changes is atomic.
unsafe impl Sync for Previous {}

impl Previous {
    /// The address of the handler, or `SIG_DFL` or `SIG_IGN`.
    fn handler(&self) -> usize {
        if self.spent.load(Ordering::Relaxed) { libc::SIG_DFL } else { self.action.sa_sigaction }
    }

    fn flag(&self, flag: c_int) -> bool {
        self.action.sa_flags & flag != 0
    }
}

/// Makes `handler` the process's action for `signal`, and keeps the one before it in `slot`.
///
/// The slot is filled before the handler can run, so that the handler can always rely on it. If
/// `handler` is the action already, nothing happens. Two threads that change the same signal's action
/// at once can lose one of the changes, as always with `sigaction`.
///
/// # Errors
/// `EINVAL` for a signal that cannot be handled; `EEXIST` if the slot is in use and the action is
/// nevertheless another one: someone has installed a handler over ours, and only they can undo that.
///
/// # Safety
/// `handler` must be signal-safe, and must pass what is not its own to [`chain`] with this slot.
pub unsafe fn install(
    signal: c_int,
    handler: Handler,
    slot: &'static OnceLock<Previous>,
) -> Result<(), Errno> {
    let before = current(signal)?;
    let ours = handler as *const () as usize;
    if before.sa_sigaction == ours {
        return Ok(());
    }
    slot.set(Previous { action: before, spent: AtomicBool::new(false) })
        .map_err(|_| Errno::EEXIST)?;
    // SAFETY: the caller's promise.
    unsafe { set(signal, handler) }
}

/// A handler that is in front of the others for a while only: dropped, it puts back what it replaced.
pub struct Replaced {
    signal: c_int,
    previous: &'static Previous,
}

impl Replaced {
    /// Makes `handler` the process's action for `signal` until the value is dropped, and leaves the action
    /// before it in `slot`. What it replaced is never freed, as a handler may still be using it: some two
    /// hundred bytes a time.
    ///
    /// # Errors
    /// `EINVAL` for a signal that cannot be handled.
    ///
    /// # Safety
    /// `handler` must be signal-safe, and must pass what is not its own to [`chain`] with what is in the slot.
    /// Nobody else may change the signal's action meanwhile.
    pub unsafe fn new(
        signal: c_int,
        handler: Handler,
        slot: &AtomicPtr<Previous>,
    ) -> Result<Replaced, Errno> {
        let action = current(signal)?;
        let previous: &'static Previous =
            Box::leak(Box::new(Previous { action, spent: AtomicBool::new(false) }));
        // Release: pairs with the acquire in the handler.
        slot.store(ptr::from_ref(previous).cast_mut(), Ordering::Release);
        // SAFETY: the caller's promise.
        unsafe { set(signal, handler)? };
        Ok(Replaced { signal, previous })
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        // SAFETY: the action that was there.
        unsafe { libc::sigaction(self.signal, &self.previous.action, ptr::null_mut()) };
    }
}

/// # Safety
/// As [`install`].
unsafe fn set(signal: c_int, handler: Handler) -> Result<(), Errno> {
    // SAFETY: all-zero is a valid sigaction: default action, empty mask, no flags.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: fills and edits the mask of a live sigaction. The synchronous signals stay unblocked:
    // blocked, they would turn a bug in the handler into a death by the wrong signal.
    unsafe {
        libc::sigfillset(&mut action.sa_mask);
        for synchronous in
            [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGABRT]
        {
            libc::sigdelset(&mut action.sa_mask, synchronous);
        }
    }
    // SAFETY: a complete sigaction; the caller vouches for the handler.
    Errno::check(unsafe { libc::sigaction(signal, &action, ptr::null_mut()) })
}

/// The process's action for `signal`.
fn current(signal: c_int) -> Result<libc::sigaction, Errno> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: changes nothing; the kernel fills the struct, of which all-zero is valid too.
    Errno::check(unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) })?;
    // SAFETY: filled above.
    Ok(unsafe { action.assume_init() })
}

/// Does with a signal that is not ours what would have happened without our handler.
///
/// - A handler before ours is called, with its own kind of arguments and under the mask it would
///   have had. (It runs on the alternate stack even if it did not ask for that: a handler cannot
///   change stacks half-way.)
/// - For the default action, it is restored; then a fault happens again when we return, and kills the
///   process at the instruction that is to blame, while a signal sent by someone is sent again.
/// - An ignored signal is ignored if someone sent it. A fault cannot be ignored: the kernel treats it
///   as the default action, and so do we.
///
/// # Safety
/// Call it from the handler for `signal` only, with the arguments that the kernel gave to it, as the
/// last thing the handler does: the handler before ours may not return.
pub unsafe fn chain(
    signal: c_int,
    info: *mut siginfo_t,
    context: *mut c_void,
    previous: &Previous,
) {
    // SAFETY: the kernel gave us `info`.
    let synchronous = unsafe { is_synchronous(info) };
    match previous.handler() {
        libc::SIG_IGN if !synchronous => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: all-zero is the default action.
            let default: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
            // SAFETY: a complete sigaction. The signal is blocked while we handle it, so the one we
            // send is delivered when we return.
            unsafe {
                libc::sigaction(signal, &default, ptr::null_mut());
                if !synchronous {
                    libc::raise(signal);
                }
            }
        }
        // SAFETY: neither default nor ignore, so it is the address of a function.
        handler => unsafe { call(handler, signal, info, context, previous) },
    }
}

/// # Safety
/// As for [`chain`]; `handler` must be the handler of `previous`.
unsafe fn call(
    handler: usize,
    signal: c_int,
    info: *mut siginfo_t,
    context: *mut c_void,
    previous: &Previous,
) {
    if previous.flag(libc::SA_RESETHAND) && previous.spent.swap(true, Ordering::Relaxed) {
        // Another thread's fault has used it up since we looked: now it is the default action.
        // SAFETY: the same arguments, and `spent` now makes it a default action.
        return unsafe { chain(signal, info, context, previous) };
    }
    // SAFETY: the kernel gave us `context`, and the mask is live. Ours need not come back: we are the
    // last thing the handler does, and the kernel restores the interrupted mask when it returns.
    unsafe {
        let mask = mask_for(signal, context, previous);
        libc::pthread_sigmask(libc::SIG_SETMASK, &mask, ptr::null_mut());
    }
    if previous.flag(libc::SA_SIGINFO) {
        // SAFETY: the kernel would have called this address so.
        unsafe { std::mem::transmute::<usize, Handler>(handler)(signal, info, context) };
    } else {
        // SAFETY: the kernel would have called this address so.
        unsafe { std::mem::transmute::<usize, PlainHandler>(handler)(signal) };
    }
}

/// The mask the kernel would have given the handler before ours: what was blocked when the signal
/// came, what the action blocks, and the signal itself.
///
/// # Safety
/// `context` must be the kernel's.
unsafe fn mask_for(signal: c_int, context: *mut c_void, previous: &Previous) -> libc::sigset_t {
    /// The kernel's mask has one bit for each of 64 signals; the C library's type has room for more,
    /// which the kernel does not fill.
    const KERNEL_MASK: usize = 64 / 8;
    // SAFETY: all-zero is an empty mask.
    let mut mask: libc::sigset_t = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the context is the kernel's ucontext, whose mask has `KERNEL_MASK` bytes at the least;
    // both masks are live and do not overlap. sigaddset and sigismember work on live masks.
    unsafe {
        let before = &raw const (*context.cast::<libc::ucontext_t>()).uc_sigmask;
        ptr::copy_nonoverlapping(before.cast::<u8>(), (&raw mut mask).cast::<u8>(), KERNEL_MASK);
        for other in 1..64 {
            if libc::sigismember(&previous.action.sa_mask, other) == 1 {
                libc::sigaddset(&mut mask, other);
            }
        }
        if !previous.flag(libc::SA_NODEFER) {
            libc::sigaddset(&mut mask, signal);
        }
    }
    mask
}

/// The address whose access raised the signal.
///
/// # Safety
/// `info` must come from the kernel, for SIGBUS or SIGSEGV.
pub unsafe fn fault_address(info: *const siginfo_t) -> usize {
    // SAFETY: see the contract.
    unsafe { (*info).si_addr() as usize }
}

/// Whether a fault raised the signal, and not someone who sent it.
///
/// # Safety
/// `info` must come from the kernel.
pub unsafe fn is_synchronous(info: *const siginfo_t) -> bool {
    // SAFETY: see the contract.
    unsafe { (*info).si_code > 0 }
}

/// Whether a SIGBUS says that there is no memory behind a mapped address: what userfaultfd raises
/// for a missing page. (So does a file that was truncated: the address decides.)
///
/// # Safety
/// `info` must come from the kernel, for SIGBUS.
pub unsafe fn is_bus_adrerr(info: *const siginfo_t) -> bool {
    // SAFETY: see the contract.
    unsafe { (*info).si_code == libc::BUS_ADRERR }
}

/// Whether a SIGSEGV says that the rights of a mapping forbid the access: what `mprotect` causes.
///
/// # Safety
/// `info` must come from the kernel, for SIGSEGV.
pub unsafe fn is_segv_accerr(info: *const siginfo_t) -> bool {
    /// `SEGV_ACCERR`, the same on every architecture of Linux.
    const SEGV_ACCERR: c_int = 2;
    // SAFETY: see the contract.
    unsafe { (*info).si_code == SEGV_ACCERR }
}

/// An alternate signal stack for one thread, with an inaccessible page below it.
///
/// Its pages are touched beforehand: the kernel writes the signal frame itself, and a fault it takes
/// there goes through `mmap_lock`, inside every first fault of a thread. Rust gives its threads an
/// alternate stack of their own, but of the minimal size; it comes back when this one is dropped.
///
/// It stays on the thread that made it.
#[derive(Debug)]
pub struct AltStack {
    /// Guard page and stack.
    range: Reservation,
    before: libc::stack_t,
    not_send: PhantomData<*mut ()>,
}

/// Why a thread got no alternate stack.
#[derive(Debug, thiserror::Error)]
pub enum AltStackError {
    /// No memory for it.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A system call failed.
    #[error("cannot set an alternate signal stack: {call} failed with {errno}")]
    Refused {
        /// Which one.
        call: &'static str,
        /// Its error: `EPERM` means that the thread runs on an alternate stack at this moment.
        errno: Errno,
    },
}

impl From<AltStackError> for io::Error {
    fn from(e: AltStackError) -> io::Error {
        io::Error::other(e)
    }
}

impl AltStack {
    /// Bytes for what runs on it, beside what the processor's state takes.
    pub const ROOM: usize = 64 << 10;

    /// Gives the calling thread an alternate stack, until the value is dropped.
    ///
    /// # Errors
    /// [`AltStackError`].
    pub fn install() -> Result<AltStack, AltStackError> {
        // What one signal frame takes here: with wide vector registers, more than MINSIGSTKSZ.
        // SAFETY: reads the process's auxiliary vector; 0 if the kernel does not tell.
        let frame = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
        let page = page_size();
        let size = (AltStack::ROOM + frame.max(libc::MINSIGSTKSZ)).next_multiple_of(page);
        let range = Reservation::anonymous(page + size, page, "firn: signal stack")?;
        let (guard, stack) = (range.base(), range.base() + page);
        // SAFETY: fresh memory of ours, which nobody else knows.
        unsafe {
            map::protect(guard, page, Protection::None)
                .map_err(|errno| AltStackError::Refused { call: "mprotect", errno })?;
            for at in (stack..range.end()).step_by(page) {
                (at as *mut u8).write_volatile(0);
            }
        }
        let ours = libc::stack_t { ss_sp: stack as *mut c_void, ss_flags: 0, ss_size: size };
        let mut before = MaybeUninit::<libc::stack_t>::zeroed();
        // SAFETY: the stack is mapped until `drop` has taken it away from the kernel again; the
        // kernel fills `before`, of which all-zero is valid too.
        let before = unsafe {
            Errno::check(libc::sigaltstack(&ours, before.as_mut_ptr()))
                .map_err(|errno| AltStackError::Refused { call: "sigaltstack", errno })?;
            before.assume_init()
        };
        Ok(AltStack { range, before, not_send: PhantomData })
    }

    /// Bytes that handlers can use.
    pub fn size(&self) -> usize {
        self.range.len() - page_size()
    }

    /// Whether `addr` lies on the stack or its guard page.
    pub fn contains(&self, addr: usize) -> bool {
        self.range.contains(addr)
    }
}

impl Drop for AltStack {
    fn drop(&mut self) {
        let mut now = MaybeUninit::<libc::stack_t>::zeroed();
        // SAFETY: asks only; the kernel fills `now`, of which all-zero is valid too.
        let now = unsafe {
            libc::sigaltstack(ptr::null(), now.as_mut_ptr());
            now.assume_init()
        };
        // If it is not ours any more, whoever changed it knows better: late in a thread's exit, Rust
        // has already disabled alternate stacks and unmapped the one we would restore.
        if now.ss_flags & libc::SS_DISABLE == 0 && self.contains(now.ss_sp as usize) {
            let mut before = self.before;
            before.ss_flags &= libc::SS_DISABLE;
            // SAFETY: the stack that was there when ours was installed, or none; we are not on ours.
            let result = unsafe { libc::sigaltstack(&before, ptr::null_mut()) };
            debug_assert_eq!(result, 0, "sigaltstack: {}", Errno::last());
        }
    }
}
