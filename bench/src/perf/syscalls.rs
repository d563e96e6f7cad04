//! What a thread was doing when it took the lock: the system call it was in, or else a page fault.
//!
//! Only calls that may take `mmap_lock` themselves are followed; the filter that says so is part of the
//! event, so that the others cost nothing but a test. An `ioctl` is named by its request; where the thread's registers
//! tell it ([`registers::WANTED`]), it is not followed either.

use nix::libc;

use super::registers;

/// What the lock is taken for outside of any followed call.
pub const PAGE_FAULT: &str = "page fault";

/// Calls that change the heap's mappings: when a mutator carries out a pause, they are the collection's. All of them
/// are kept by [`super::analysis`].
pub const COLLECTORS_CALLS: [&str; 3] = ["mremap", "UFFDIO_REGISTER", "UFFDIO_UNREGISTER"];

/// Followed calls by number.
const CALLS: [(libc::c_long, &str); 20] = [
    (libc::SYS_mmap, "mmap"),
    (libc::SYS_mprotect, "mprotect"),
    (libc::SYS_munmap, "munmap"),
    (libc::SYS_brk, "brk"),
    (libc::SYS_mremap, "mremap"),
    (libc::SYS_msync, "msync"),
    (libc::SYS_mincore, "mincore"),
    (libc::SYS_madvise, "madvise"),
    (libc::SYS_mlock, "mlock"),
    (libc::SYS_munlock, "munlock"),
    (libc::SYS_process_madvise, "process_madvise"),
    (libc::SYS_process_vm_readv, "process_vm_readv"),
    (libc::SYS_process_vm_writev, "process_vm_writev"),
    (libc::SYS_clone, "clone"),
    (libc::SYS_clone3, "clone3"),
    (libc::SYS_execve, "execve"),
    (libc::SYS_exit, "exit"),
    (libc::SYS_prctl, "prctl"),
    (libc::SYS_getsockopt, "getsockopt"),
    (libc::SYS_pread64, "pread"),
];

/// The call whose request is looked at.
const IOCTL: libc::c_long = libc::SYS_ioctl;
const READ: libc::c_long = libc::SYS_read;

/// Requests by the two low bytes (type and number).
const REQUESTS: [(u64, &str); 10] = [
    (0xaa3f, "UFFDIO_API"),
    (0xaa00, "UFFDIO_REGISTER"),
    (0xaa01, "UFFDIO_UNREGISTER"),
    (0xaa02, "UFFDIO_WAKE"),
    (0xaa03, "UFFDIO_COPY"),
    (0xaa04, "UFFDIO_ZEROPAGE"),
    (0xaa05, "UFFDIO_MOVE"),
    (0xaa06, "UFFDIO_WRITEPROTECT"),
    (0xaa07, "UFFDIO_CONTINUE"),
    (0x6611, "PROCMAP_QUERY"),
];

/// The filter on the events' field `id` that lets followed calls through.
pub fn filter() -> String {
    let numbers = CALLS.iter().map(|c| c.0).chain([READ]);
    let followed = numbers.map(|n| format!("id == {n}")).collect::<Vec<_>>().join(" || ");
    match registers::WANTED {
        0 => format!("id == {IOCTL} || {followed}"),
        // The most frequent call is let go by the first test.
        _ => format!("id != {IOCTL} && ({followed})"),
    }
}

/// The name of a followed call, given its number and its second argument.
pub fn name(number: i64, second: u64) -> &'static str {
    if number == IOCTL {
        return request(second).unwrap_or("ioctl");
    }
    if number == READ {
        return "read";
    }
    CALLS.iter().find(|c| c.0 == number).map_or("system call", |c| c.1)
}

/// The name of an `ioctl`'s request, if it is one that may take the lock.
pub fn request(code: u64) -> Option<&'static str> {
    // Type and number, of a request of 32 bits that has data to be read or written.
    let has_data = code & 0xc000_0000 != 0 && code >> 32 == 0;
    REQUESTS.iter().find(|r| has_data && r.0 == code & 0xffff).map(|r| r.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_requests_have_names() {
        assert_eq!(name(libc::SYS_munmap, 0), "munmap");
        // _IOWR(0xAA, 0x00, struct uffdio_register), 32 bytes.
        assert_eq!(name(libc::SYS_ioctl, 0xc020_aa00), "UFFDIO_REGISTER");
        assert_eq!(name(libc::SYS_ioctl, 0x1234), "ioctl");
        assert_eq!(name(libc::SYS_read, 0), "read");
    }

    #[test]
    fn the_filter_names_every_followed_call() {
        let filter = filter();
        assert!(filter.contains(&format!("id == {}", libc::SYS_munmap)));
        assert_eq!(filter.matches("id").count(), CALLS.len() + 2);
    }
}
