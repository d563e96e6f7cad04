//! One perf event: `perf_event_open` and the calls on what it returns. With [`super::ring`], all of
//! this folder's unsafe code.
//!
//! The attributes' struct is written by hand: the kernel has promised its layout, takes any size that
//! it has ever had, and the generators need a C compiler's library at build time. The size used is
//! that of 4.1 (`PERF_ATTR_SIZE_VER5`); later bits lie in its flag word.

use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use firn_heap::sys::Errno;
use nix::libc;

use super::tracefs::Format;
use super::{Unavailable, registers};

/// `struct perf_event_attr` as of `PERF_ATTR_SIZE_VER5`.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
struct Attr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    breakpoint_type: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clockid: i32,
    sample_regs_intr: u64,
    aux_watermark: u32,
    sample_max_stack: u16,
    reserved: u16,
}

const _: () = assert!(size_of::<Attr>() == 112);

const TYPE_TRACEPOINT: u32 = 2;
/// `PERF_SAMPLE_TID | TIME | CPU | RAW`, and `CALLCHAIN`, in the order they have in a record.
const SAMPLE_RAW: u64 = 1 << 1 | 1 << 2 | 1 << 7 | 1 << 10;
const SAMPLE_CALLCHAIN: u64 = 1 << 5;
const SAMPLE_REGS_USER: u64 = 1 << 12;
const FLAG_DISABLED: u64 = 1 << 0;
const FLAG_INHERIT: u64 = 1 << 1;
const FLAG_COMM: u64 = 1 << 9;
const FLAG_WATERMARK: u64 = 1 << 14;
const FLAG_SAMPLE_ID_ALL: u64 = 1 << 18;
const FLAG_NO_USER_CHAIN: u64 = 1 << 22;
const FLAG_USE_CLOCKID: u64 = 1 << 25;
/// Only threads inherit, not child processes (5.13 or newer).
const FLAG_INHERIT_THREAD: u64 = 1 << 35;
const OPEN_CLOEXEC: libc::c_ulong = 1 << 3;

const IOC_ENABLE: libc::c_ulong = 0x2400;
const IOC_DISABLE: libc::c_ulong = 0x2401;
const IOC_RESET: libc::c_ulong = 0x2403;
const IOC_SET_OUTPUT: libc::c_ulong = 0x2405;
const IOC_SET_FILTER: libc::c_ulong = nix::request_code_write!(b'$', 6, size_of::<usize>()) as _;
const IOC_FLAG_GROUP: libc::c_ulong = 1;

/// Whose occurrences of an event are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Those of one thread, by the kernel's id.
    Thread(i32),
    /// Those of one thread and of the threads it starts from now on.
    ThreadAndItsThreads(i32),
    /// Those of everyone on one processor.
    Cpu(i32),
}

/// What the kernel shall do at each occurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Count it.
    Count,
    /// Write a record with thread, monotonic time, processor and the event's fields into a ring
    /// buffer, and wake the reader when `wakeup_bytes` are waiting.
    Record {
        /// Whether the kernel's call chain is recorded too, at ten times the cost.
        callchain: bool,
        /// Whether new names of threads (of any process) are recorded too.
        names: bool,
        /// Whether the thread's registers are recorded too: those of [`registers::WANTED`].
        registers: bool,
        /// Bytes that wake the reader.
        wakeup_bytes: u32,
    },
}

/// An open event, disabled at first; closed when dropped.
#[derive(Debug)]
pub struct Event {
    fd: OwnedFd,
    name: String,
}

impl Event {
    /// Opens the tracepoint that `format` describes, in the group of `leader` if there is one, and
    /// restricted to the records for which `filter` holds (the kernel's filter language; empty for
    /// all).
    ///
    /// # Errors
    /// [`Unavailable`] with what the kernel refused, and the remedy.
    pub fn open(
        format: &Format,
        target: Target,
        mode: Mode,
        leader: Option<&Event>,
        filter: &str,
    ) -> Result<Event, Unavailable> {
        let mut attr = Attr {
            kind: TYPE_TRACEPOINT,
            size: size_of::<Attr>() as u32,
            config: format.id,
            // A group runs as its leader does; a member that is disabled itself would stay so.
            flags: if leader.is_some() { 0 } else { FLAG_DISABLED },
            ..Attr::default()
        };
        let (pid, cpu) = match target {
            Target::Thread(tid) => (tid, -1),
            Target::ThreadAndItsThreads(tid) => {
                attr.flags |= FLAG_INHERIT | FLAG_INHERIT_THREAD;
                (tid, -1)
            }
            Target::Cpu(cpu) => (-1, cpu),
        };
        if let Mode::Record { callchain, names, registers, wakeup_bytes } = mode {
            attr.sample_period = 1;
            attr.sample_type = SAMPLE_RAW;
            attr.flags |= FLAG_WATERMARK | FLAG_USE_CLOCKID | FLAG_SAMPLE_ID_ALL;
            if names {
                attr.flags |= FLAG_COMM;
            }
            if registers && registers::WANTED != 0 {
                attr.sample_type |= SAMPLE_REGS_USER;
                attr.sample_regs_user = registers::WANTED;
            }
            attr.wakeup = wakeup_bytes;
            attr.clockid = libc::CLOCK_MONOTONIC;
            if callchain {
                attr.sample_type |= SAMPLE_CALLCHAIN;
                attr.flags |= FLAG_NO_USER_CHAIN;
            }
        }
        let group = leader.map_or(-1, |l| l.fd.as_raw_fd());
        let fd = open(&mut attr, pid, cpu, group)
            .map_err(|errno| Unavailable::refused(&format.event, errno))?;
        let event = Event { fd, name: format.event.clone() };
        if !filter.is_empty() {
            let text = CString::new(filter).expect("filters are built here and have no NUL");
            // SAFETY: the kernel copies the NUL-terminated text, which outlives the call.
            event.ioctl("PERF_EVENT_IOC_SET_FILTER", IOC_SET_FILTER, text.as_ptr() as _)?;
        }
        Ok(event)
    }

    /// Enables the event and all others of its group.
    ///
    /// # Errors
    /// [`Unavailable::Call`]; none is known for an event of ours.
    pub fn enable_group(&self) -> Result<(), Unavailable> {
        self.ioctl("PERF_EVENT_IOC_ENABLE", IOC_ENABLE, IOC_FLAG_GROUP)
    }

    /// Disables the event and all others of its group.
    ///
    /// # Errors
    /// [`Unavailable::Call`]; none is known for an event of ours.
    pub fn disable_group(&self) -> Result<(), Unavailable> {
        self.ioctl("PERF_EVENT_IOC_DISABLE", IOC_DISABLE, IOC_FLAG_GROUP)
    }

    /// Sets the counts of the event and all others of its group to zero. (The kernel keeps those of
    /// inherited events that have ended.)
    ///
    /// # Errors
    /// [`Unavailable::Call`]; none is known for an event of ours.
    pub fn reset_group(&self) -> Result<(), Unavailable> {
        self.ioctl("PERF_EVENT_IOC_RESET", IOC_RESET, IOC_FLAG_GROUP)
    }

    /// Writes this event's records into the buffer of `other`, on the same processor.
    ///
    /// # Errors
    /// [`Unavailable::Call`], `EINVAL` for events of different processors.
    pub fn redirect_to(&self, other: &Event) -> Result<(), Unavailable> {
        let fd = other.fd.as_raw_fd() as libc::c_ulong;
        self.ioctl("PERF_EVENT_IOC_SET_OUTPUT", IOC_SET_OUTPUT, fd)
    }

    /// Occurrences so far, those in inheriting threads included.
    ///
    /// # Errors
    /// [`Unavailable::Call`]; none is known for an event of ours.
    pub fn count(&self) -> Result<u64, Unavailable> {
        let mut bytes = [0; 8];
        // A file that reads this descriptor without owning it: `Event` closes it.
        let mut file = std::mem::ManuallyDrop::new(
            // SAFETY: the descriptor is open as long as `self`, and `ManuallyDrop` never closes it.
            unsafe { std::fs::File::from_raw_fd(self.fd.as_raw_fd()) },
        );
        file.read_exact(&mut bytes)
            .map_err(|e| self.failed("read", Errno(e.raw_os_error().unwrap_or(libc::EIO))))?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// `system:name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn failed(&self, call: &'static str, errno: Errno) -> Unavailable {
        Unavailable::Call { call, event: self.name.clone(), errno }
    }

    fn ioctl(
        &self,
        call: &'static str,
        request: libc::c_ulong,
        argument: libc::c_ulong,
    ) -> Result<(), Unavailable> {
        // SAFETY: the requests of this file take a number, or a text that the kernel copies and the
        // caller keeps alive; none writes to our memory.
        match unsafe { libc::ioctl(self.fd.as_raw_fd(), request as _, argument) } {
            -1 => Err(self.failed(call, Errno::last())),
            _ => Ok(()),
        }
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open(attr: &mut Attr, pid: i32, cpu: i32, group: i32) -> Result<OwnedFd, Errno> {
    let attr: *mut Attr = attr;
    // SAFETY: the kernel reads `size` bytes of a live struct of that size, and writes its own size
    // there where it refuses ours; the rest are numbers.
    let fd =
        unsafe { libc::syscall(libc::SYS_perf_event_open, attr, pid, cpu, group, OPEN_CLOEXEC) };
    match fd {
        -1 => Err(Errno::last()),
        // SAFETY: the kernel just gave us this descriptor and nobody else has it.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
    }
}
