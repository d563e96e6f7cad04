//! Fault signals: installing a handler in front of the one that was there, and chaining to it.
//!
//! The handler runs with `SA_ONSTACK` (Rust's threads have an alternate stack; [`AltStack`] gives a
//! roomier, pre-touched one) and without `SA_NODEFER`: a fault inside the fault handler is a bug, and
//! the kernel then ends the process with the signal's default action instead of recursing.

use std::cell::UnsafeCell;

/// The signals this crate handles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Signal {
    /// Delivered by userfaultfd for a missing page.
    Bus = libc::SIGBUS,
    /// Delivered for an access that the page's protection forbids.
    Segv = libc::SIGSEGV,
}

/// A handler in the form the kernel calls.
pub type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

/// What was installed before.
pub struct Previous(UnsafeCell<libc::sigaction>);

// SAFETY: written once before it is shared, then only read.
unsafe impl Sync for Previous {}
// SAFETY: plain data.
unsafe impl Send for Previous {}

/// Installs `handler` and returns what was there.
///
/// # Safety
/// `handler` must be async-signal-safe and must pass faults that are not its own to [`chain`].
pub unsafe fn install(signal: Signal, handler: Handler) -> Result<Previous, super::Errno> {
    // SAFETY: an all-zero sigaction is valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: as above.
    let previous = Previous(UnsafeCell::new(unsafe { std::mem::zeroed() }));
    // SAFETY: both blocks are valid; the handler's promise is the caller's.
    super::check(unsafe { libc::sigaction(signal as i32, &action, previous.0.get()) })?;
    Ok(previous)
}

/// Whether `handler` is the one installed for `signal` right now.
pub fn is_installed(signal: Signal, handler: Handler) -> bool {
    // SAFETY: an all-zero sigaction is valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action only asks.
    let result = unsafe { libc::sigaction(signal as i32, std::ptr::null(), &mut action) };
    result == 0 && action.sa_sigaction == handler as *const () as usize
}

/// The address a fault signal is about, and whether the kernel raised it for a real access.
///
/// # Safety
/// `info` must be what the kernel passed to a handler.
#[inline(always)]
pub unsafe fn fault_address(info: *const libc::siginfo_t) -> Option<usize> {
    // SAFETY: by the caller's promise.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    (code > 0).then_some(address)
}

/// Does what would have happened without our handler.
///
/// # Safety
/// To be called from a handler, with the arguments the kernel gave it.
pub unsafe fn chain(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
    previous: &Previous,
) {
    // SAFETY: written before it was shared.
    let action = unsafe { &*previous.0.get() };
    match action.sa_sigaction {
        libc::SIG_DFL => default_action(signal, info),
        libc::SIG_IGN => {
            // The kernel does not honour "ignore" for a fault of the thread's own; an asynchronous
            // signal is dropped.
            // SAFETY: by the caller's promise.
            if unsafe { (*info).si_code } > 0 {
                default_action(signal, info);
            }
        }
        handler if action.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the previous owner installed it as a three-argument handler.
            let handler: Handler = unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: the previous owner installed it as a one-argument handler.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

fn default_action(signal: libc::c_int, info: *mut libc::siginfo_t) {
    // SAFETY: restoring the default disposition; on return a synchronous fault repeats and takes it.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: called from a handler with the kernel's block.
    if unsafe { (*info).si_code } <= 0 {
        // SAFETY: raised again for the default action; delivered when the handler returns.
        unsafe { libc::raise(signal) };
    }
}

/// A pre-touched alternate signal stack of the current thread, with a guard page below it. Taken
/// away again when dropped, on the same thread.
///
/// Pre-touched, because writing a signal frame to an untouched page is itself a fault, in kernel mode,
/// that takes `mmap_lock`.
pub struct AltStack {
    memory: usize,
    len: usize,
    previous: libc::stack_t,
}

impl AltStack {
    /// Installs one on the calling thread.
    pub fn install() -> Result<AltStack, super::Errno> {
        let page = super::page_size();
        const AT_MINSIGSTKSZ: libc::c_ulong = 51;
        // SAFETY: no preconditions; 0 if unknown.
        let minimum = unsafe { libc::getauxval(AT_MINSIGSTKSZ) } as usize;
        let len = (64 * 1024 + minimum).next_multiple_of(page) + page;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: a fresh mapping disturbs nothing.
        let memory = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0)
        };
        if memory == libc::MAP_FAILED {
            return Err(super::Errno::last());
        }
        // SAFETY: the lowest page of the fresh mapping; an overflow then faults instead of spilling.
        unsafe { libc::mprotect(memory, page, libc::PROT_NONE) };
        let stack = libc::stack_t {
            ss_sp: (memory as usize + page) as *mut _,
            ss_flags: 0,
            ss_size: len - page,
        };
        // SAFETY: an all-zero stack_t is valid.
        let mut previous: libc::stack_t = unsafe { std::mem::zeroed() };
        // SAFETY: the new stack is mapped and stays so until `drop`.
        let result = super::check(unsafe { libc::sigaltstack(&stack, &mut previous) });
        match result {
            Ok(()) => Ok(AltStack { memory: memory as usize, len, previous }),
            Err(errno) => {
                // SAFETY: nobody uses it.
                unsafe { libc::munmap(memory, len) };
                Err(errno)
            }
        }
    }
}

impl Drop for AltStack {
    fn drop(&mut self) {
        // SAFETY: puts back what was there; our stack is not in use, as this is not a handler.
        unsafe {
            libc::sigaltstack(&self.previous, std::ptr::null_mut());
            libc::munmap(self.memory as *mut _, self.len);
        }
    }
}
