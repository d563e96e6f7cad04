//! Reading faults: what a fault thread does when SIGBUS delivery is not used.
//!
//! The faulting thread sleeps in the kernel until the page is installed (or woken by
//! [`Userfaultfd::wake`]); a fault thread reads a message for it. Any number of threads may read
//! from one userfaultfd, each message goes to one of them. To end them, set a flag they look at and
//! call [`Userfaultfd::interrupt`].

use std::{
    io,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use super::{Features, Userfaultfd, abi};
use crate::sys::Errno;

/// A thread touched a missing page and waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The address, rounded down to its page.
    pub addr: usize,
    /// The thread, where the kernel tells ([`Features::THREAD_ID`]).
    pub thread_id: Option<u32>,
    /// Whether it was a write.
    pub write: bool,
}

impl Userfaultfd {
    /// Waits for the next fault, at most `timeout` (for ever if `None`). `Ok(None)` when the time is
    /// over or [`Userfaultfd::interrupt`] was called.
    ///
    /// # Errors
    /// `Unsupported` on a userfaultfd in SIGBUS mode, which has no messages; whatever `ppoll` and
    /// `read` fail with otherwise (a signal is not an error).
    pub fn read_fault(&self, timeout: Option<Duration>) -> io::Result<Option<Fault>> {
        let Some(interrupt) = &self.interrupt else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this userfaultfd delivers faults as SIGBUS and has no messages to read",
            ));
        };
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        loop {
            let mut polled = [
                libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 },
                libc::pollfd { fd: interrupt.as_raw_fd(), events: libc::POLLIN, revents: 0 },
            ];
            if !poll(&mut polled, deadline)? || polled[1].revents != 0 {
                return Ok(None);
            }
            if polled[0].revents & libc::POLLIN == 0 {
                return Err(io::Error::other("the userfaultfd reports an error to poll"));
            }
            if let Some(message) = self.read_message()? {
                return self.fault(message).map(Some);
            }
        }
    }

    /// Makes every [`Userfaultfd::read_fault`], now waiting or called later, return `Ok(None)` at
    /// once, until [`Userfaultfd::resume`]. Does nothing in SIGBUS mode.
    pub fn interrupt(&self) {
        let Some(fd) = &self.interrupt else { return };
        let one = 1u64.to_ne_bytes();
        // SAFETY: writes 8 bytes from a live array, as an eventfd takes them. It fails only if the
        // counter is full, and then it is readable already.
        unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Undoes [`Userfaultfd::interrupt`].
    pub fn resume(&self) {
        let Some(fd) = &self.interrupt else { return };
        let mut count = [0u8; 8];
        // SAFETY: reads at most 8 bytes into a live array. An eventfd that is already zero does not
        // block, because it was opened non-blocking.
        unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    /// The next message, or `None` if another reader was faster.
    fn read_message(&self) -> io::Result<Option<abi::UffdMsg>> {
        let mut message = abi::UffdMsg::default();
        let size = size_of::<abi::UffdMsg>();
        // SAFETY: the kernel writes at most `size` bytes into a live struct of that size, whose
        // fields are integers.
        let n = unsafe {
            libc::read(self.fd.as_raw_fd(), (&raw mut message).cast::<libc::c_void>(), size)
        };
        match n {
            -1 => match Errno::last() {
                Errno::EAGAIN | Errno::EINTR => Ok(None),
                errno => Err(errno.into()),
            },
            n if n as usize == size => Ok(Some(message)),
            n => Err(io::Error::other(format!("a userfaultfd message of {n} bytes, not {size}"))),
        }
    }

    fn fault(&self, message: abi::UffdMsg) -> io::Result<Fault> {
        if message.event != abi::EVENT_PAGEFAULT {
            return Err(io::Error::other(format!(
                "userfaultfd event {:#x}, which was not asked for",
                message.event
            )));
        }
        Ok(Fault {
            addr: message.address as usize,
            thread_id: self.granted.contains(Features::THREAD_ID).then_some(message.ptid),
            write: message.flags & abi::PAGEFAULT_FLAG_WRITE != 0,
        })
    }
}

/// Whether one of the descriptors became ready before the deadline.
fn poll(polled: &mut [libc::pollfd], deadline: Option<Instant>) -> io::Result<bool> {
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let spec = left.map(|left| libc::timespec {
            tv_sec: left.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(left.subsec_nanos() as i32),
        });
        let spec = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let count = polled.len() as libc::nfds_t;
        // SAFETY: `polled` has `count` entries, `spec` is null or points to a live timespec, and no
        // signal mask is given.
        let n = unsafe { libc::ppoll(polled.as_mut_ptr(), count, spec, std::ptr::null()) };
        match n {
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return Err(Errno::last().into()),
            n => return Ok(n > 0),
        }
    }
}
