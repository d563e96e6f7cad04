//! Opening a userfaultfd: three doors, and a handshake in two steps behind each.
//!
//! The handshake can be made once for a descriptor, and asking for a feature that the kernel lacks
//! fails it, so the first descriptor only asks what there is and is closed; the second requests what
//! is wanted. What the kernel answers to the second lists everything it *could* have granted, so what
//! was granted is what was requested.

use std::{
    fs::OpenOptions,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    sync::{OnceLock, atomic::AtomicBool},
};

use super::{
    Attempt, Features, OpenError, OpenPath, Sandbox, Stage, Userfaultfd, abi, diagnosis::DEVICE,
};
use crate::sys::Errno;

const DOORS: [OpenPath; 3] =
    [OpenPath::SyscallUserModeOnly, OpenPath::Device, OpenPath::SyscallPrivileged];

pub(super) fn open(sigbus: bool) -> Result<Userfaultfd, OpenError> {
    let mut attempts = Vec::new();
    for path in DOORS {
        match open_by(path, sigbus) {
            Ok(uffd) => return Ok(uffd),
            Err((stage, errno)) => attempts.push(Attempt { path, stage, errno }),
        }
    }
    Err(OpenError { attempts, sandbox: Sandbox::look() })
}

fn open_by(path: OpenPath, sigbus: bool) -> Result<Userfaultfd, (Stage, Errno)> {
    let available = {
        let probe = create(path)?;
        handshake(&probe, Features::NONE).map_err(|errno| (Stage::Handshake, errno))?
    };
    // Without SIGBUS there is no way to have the touching thread build the page; the thread's id in
    // messages is only for reports.
    let (must, wish) = if sigbus {
        (Features::SIGBUS, Features::NONE)
    } else {
        (Features::NONE, Features::THREAD_ID)
    };
    let missing = must.difference(available);
    if !missing.is_empty() {
        return Err((Stage::Features(missing), Errno::EINVAL));
    }
    let granted = must.union(wish.intersection(available));
    let fd = create(path)?;
    handshake(&fd, granted).map_err(|errno| (Stage::Handshake, errno))?;
    let interrupt = if sigbus { None } else { Some(eventfd()?) };
    Ok(Userfaultfd {
        fd,
        path,
        available,
        granted,
        interrupt,
        injected: AtomicBool::new(false),
        injector: OnceLock::new(),
    })
}

fn create(path: OpenPath) -> Result<OwnedFd, (Stage, Errno)> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    let fd = match path {
        OpenPath::SyscallUserModeOnly => syscall(flags | abi::USER_MODE_ONLY),
        OpenPath::SyscallPrivileged => syscall(flags),
        OpenPath::Device => {
            let device = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_CLOEXEC)
                .open(DEVICE)
                .map_err(|e| (Stage::OpenDevice, Errno(e.raw_os_error().unwrap_or(0))))?;
            // Faults of user mode only here too: a heap must not behave differently by the door
            // through which its descriptor came.
            let flags = flags | abi::USER_MODE_ONLY;
            // SAFETY: this ioctl takes flags by value and touches no memory of ours.
            unsafe { libc::ioctl(device.as_raw_fd(), abi::IOC_NEW, flags) }
        }
    };
    if fd == -1 {
        return Err((Stage::Create, Errno::last()));
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn syscall(flags: libc::c_int) -> libc::c_int {
    // SAFETY: userfaultfd takes one integer and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_userfaultfd, flags) as libc::c_int }
}

/// Requests `features`; returns everything that the kernel has.
fn handshake(fd: &OwnedFd, features: Features) -> Result<Features, Errno> {
    let mut arg = abi::UffdioApi { api: abi::UFFD_API, features: features.0, ioctls: 0 };
    // SAFETY: `arg` is the struct this ioctl reads and writes, alive for the call.
    unsafe { abi::uffdio_api(fd.as_raw_fd(), &mut arg) }?;
    Ok(Features(arg.features))
}

fn eventfd() -> Result<OwnedFd, (Stage, Errno)> {
    // SAFETY: plain system call that returns a new descriptor.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd == -1 {
        return Err((Stage::Create, Errno::last()));
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
