//! Memory to try operations on: nobody keeps a reference into it, so anything may happen to it.
//!
//! A [`Scratch`] owns one mapping and never lends its contents: reading and writing go through its
//! methods, one byte at a time, by page. That is what makes operations that elsewhere are unsafe (giving
//! pages back, hiding them, moving them away) safe here: the worst they do is change a byte that nobody
//! relies on, or raise a fault that [`Scratch::trapping`] catches.

use std::{
    ffi::c_void,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicPtr, AtomicU32, Ordering},
    },
};

use libc::{c_int, siginfo_t};

use crate::sys::{Errno, Protection, map, page_size, signal, thread};

/// One mapping for experiments, unmapped when dropped.
#[derive(Debug)]
pub struct Scratch {
    base: usize,
    len: usize,
}

const READ_WRITE: c_int = libc::PROT_READ | libc::PROT_WRITE;
const ANONYMOUS: c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

impl Scratch {
    /// `pages` pages of private anonymous memory.
    ///
    /// # Errors
    /// `ENOMEM` at a limit.
    pub fn anonymous(pages: usize) -> Result<Scratch, Errno> {
        Scratch::map(pages * page_size(), READ_WRITE, ANONYMOUS, -1)
    }

    /// Private anonymous memory of the size of `count` huge pages, at a multiple of that size.
    ///
    /// # Errors
    /// `ENOMEM` at a limit.
    pub fn huge(count: usize) -> Result<Scratch, Errno> {
        let (huge, size) = (huge_page_size(), count * huge_page_size());
        let whole = Scratch::map(size + huge, READ_WRITE, ANONYMOUS, -1)?;
        let base = whole.base.next_multiple_of(huge);
        let (start, end) = (whole.base, whole.base + whole.len);
        std::mem::forget(whole);
        for (from, to) in [(start, base), (base + size, end)] {
            // An empty piece is none.
            drop((to > from).then_some(Scratch { base: from, len: to - from }));
        }
        Ok(Scratch { base, len: size })
    }

    /// The first `pages` pages of a file: for reading, or `shared` and for writing too.
    ///
    /// # Errors
    /// What the file system says.
    pub fn of_file(fd: BorrowedFd<'_>, pages: usize, shared: bool) -> Result<Scratch, Errno> {
        let (prot, flags) = match shared {
            true => (READ_WRITE, libc::MAP_SHARED),
            false => (libc::PROT_READ, libc::MAP_PRIVATE),
        };
        Scratch::map(pages * page_size(), prot, flags, fd.as_raw_fd())
    }

    fn map(len: usize, prot: c_int, flags: c_int, fd: c_int) -> Result<Scratch, Errno> {
        // SAFETY: without MAP_FIXED no existing mapping is touched.
        let p = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, fd, 0) };
        if p == libc::MAP_FAILED {
            Err(Errno::last())
        } else {
            Ok(Scratch { base: p as usize, len })
        }
    }

    /// First address.
    pub fn base(&self) -> usize {
        self.base
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Pages.
    pub fn pages(&self) -> usize {
        self.len / page_size()
    }

    /// The address of a page.
    ///
    /// # Panics
    /// If there is no such page.
    pub fn page(&self, page: usize) -> usize {
        assert!(page < self.pages(), "page {page} of {}", self.pages());
        self.base + page * page_size()
    }

    /// Writes the first byte of a page.
    pub fn write(&self, page: usize) {
        // SAFETY: a byte of our mapping, to which no reference exists.
        unsafe { (self.page(page) as *mut u8).write_volatile(1) };
    }

    /// Reads the first byte of a page.
    pub fn read(&self, page: usize) -> u8 {
        // SAFETY: a byte of our mapping.
        unsafe { (self.page(page) as *const u8).read_volatile() }
    }

    /// Writes to every page.
    pub fn fill(&self) {
        (0..self.pages()).for_each(|page| self.write(page));
    }

    /// Lets the kernel write the first byte of a page, as a system call with a buffer there does.
    ///
    /// # Errors
    /// `EFAULT` where the page cannot be written.
    pub fn kernel_write(&self, page: usize) -> Result<(), Errno> {
        let at = self.page(page) as *mut u8;
        // The system call rather than the C library's function, which may not make one.
        // SAFETY: the kernel writes one byte of our mapping, to which no reference exists.
        Errno::check(unsafe { libc::syscall(libc::SYS_getrandom, at, 1usize, 0u32) } as c_int)
    }

    /// The part from page `first`, `pages` long, as an address and a length.
    fn part(&self, first: usize, pages: usize) -> (usize, usize) {
        assert!(first + pages <= self.pages(), "pages {first}+{pages} of {}", self.pages());
        (self.base + first * page_size(), pages * page_size())
    }

    /// `madvise` with any advice by its number, on `pages` pages from page `first`.
    ///
    /// # Errors
    /// `EINVAL` for an advice that the kernel does not know.
    pub fn advise(&self, first: usize, pages: usize, advice: i32) -> Result<(), Errno> {
        let (at, len) = self.part(first, pages);
        // SAFETY: nobody relies on the contents.
        Errno::check(unsafe { libc::madvise(at as *mut c_void, len, advice) })
    }

    /// `process_madvise` on the process that `pidfd` names, which must be this one.
    ///
    /// # Errors
    /// `EINVAL` for an advice that the kernel does not take by this call, `ENOSYS` before 5.10.
    pub fn process_advise(&self, pidfd: BorrowedFd<'_>, advice: i32) -> Result<(), Errno> {
        let range = libc::iovec { iov_base: self.base as *mut c_void, iov_len: self.len };
        let call = libc::SYS_process_madvise;
        // SAFETY: the kernel reads one live iovec; nobody relies on the contents of the range.
        let done =
            unsafe { libc::syscall(call, pidfd.as_raw_fd(), &raw const range, 1, advice, 0) };
        Errno::check(done as c_int)
    }

    /// `mprotect` of `pages` pages from page `first`.
    ///
    /// # Errors
    /// `ENOMEM` at the limit of mappings.
    pub fn protect(&self, first: usize, pages: usize, access: Protection) -> Result<(), Errno> {
        let (at, len) = self.part(first, pages);
        // SAFETY: no reference into the range exists.
        unsafe { map::protect(at, len, access) }
    }

    /// `msync(MS_ASYNC)` of everything.
    ///
    /// # Errors
    /// `ENOMEM` for a hole.
    pub fn sync(&self) -> Result<(), Errno> {
        // SAFETY: changes no contents.
        Errno::check(unsafe { libc::msync(self.base as *mut c_void, self.len, libc::MS_ASYNC) })
    }

    /// `mincore` of one page.
    ///
    /// # Errors
    /// `ENOMEM` for a hole.
    pub fn resident(&self, page: usize) -> Result<bool, Errno> {
        map::resident_page(self.page(page))
    }

    /// `munmap` of the last `pages` pages.
    ///
    /// # Errors
    /// `ENOMEM` at the limit of mappings.
    pub fn unmap_tail(&mut self, pages: usize) -> Result<(), Errno> {
        let (at, len) = self.part(self.pages() - pages, pages);
        // SAFETY: no reference into the range exists, and it is taken from ours.
        Errno::check(unsafe { libc::munmap(at as *mut c_void, len) })?;
        self.len -= len;
        Ok(())
    }

    /// `mremap` to `pages` pages in the same place.
    ///
    /// # Errors
    /// `ENOMEM` where there is no room behind it.
    pub fn resize(&mut self, pages: usize) -> Result<(), Errno> {
        let new = pages * page_size();
        // SAFETY: the mapping is ours; what lies behind a smaller length is relied on by nobody.
        let p = unsafe { libc::mremap(self.base as *mut c_void, self.len, new, 0) };
        if p == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        self.len = new;
        Ok(())
    }

    /// `mremap` onto another scratch of the same size, which is replaced.
    ///
    /// # Errors
    /// What the kernel says; then the other one is gone all the same, and this one is where it was.
    pub fn move_onto(&mut self, other: Scratch) -> Result<(), Errno> {
        let to = other.base;
        assert_eq!(self.len, other.len, "moving onto one of another size");
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: both mappings are ours.
        let p = unsafe {
            libc::mremap(self.base as *mut c_void, self.len, self.len, flags, to as *mut c_void)
        };
        if p == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        // What was there has been replaced by what is ours now.
        std::mem::forget(other);
        self.base = to;
        Ok(())
    }

    /// `mremap(MREMAP_DONTUNMAP)` to a place that the kernel chooses: the pages are in the scratch that
    /// is returned, and this one is empty memory.
    ///
    /// # Errors
    /// `EINVAL` on kernels without it.
    pub fn move_pages_away(&self) -> Result<Scratch, Errno> {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
        // SAFETY: the mapping is ours, nobody relies on its contents, and without MREMAP_FIXED no
        // other mapping is touched.
        let p = unsafe {
            let anywhere = ptr::null_mut::<c_void>();
            libc::mremap(self.base as *mut c_void, self.len, self.len, flags, anywhere)
        };
        if p == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Scratch { base: p as usize, len: self.len })
    }

    /// Runs `body` on this thread while every SIGBUS that its touching of this scratch raises is
    /// answered by `answer`, which must make the touched page accessible. One such call can be under way
    /// in a process; another one waits.
    ///
    /// `answer` runs in a signal handler. The interrupted code is one of this type's own methods, at its
    /// only access to memory, so it holds no lock and is in the middle of nothing; `answer` may
    /// do what it likes but unwind (which ends the process).
    ///
    /// # Errors
    /// Those of [`signal::install`].
    pub fn trapping<R>(
        &self,
        answer: &(dyn Fn() + '_),
        body: impl FnOnce() -> R,
    ) -> Result<R, Errno> {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the handler is signal-safe but for `answer`, see above, and passes on what is not
        // its own, with this slot.
        unsafe { signal::install(libc::SIGBUS, on_sigbus, &PREVIOUS) }?;
        let armed = Armed {
            tid: thread::gettid(),
            base: self.base,
            len: self.len,
            answer,
            left: AtomicU32::new(ANSWERS),
        };
        // The lifetime is forgotten here and kept by `Disarm`, which is dropped before `armed`.
        let erased = (&raw const armed).cast::<Armed<'static>>().cast_mut();
        // Release: pairs with the acquire in the handler, which runs on this very thread.
        ARMED.store(erased, Ordering::Release);
        let _disarm = Disarm;
        Ok(body())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: the mapping is ours, and no reference into it exists.
            let result = unsafe { libc::munmap(self.base as *mut c_void, self.len) };
            debug_assert_eq!(result, 0, "munmap: {}", Errno::last());
        }
    }
}

/// What a page table of the lowest level covers: the size of a transparent huge page.
fn huge_page_size() -> usize {
    page_size() * (page_size() / size_of::<usize>())
}

/// How many faults of one [`Scratch::trapping`] are answered. An answer that does not help would be
/// asked for ever.
const ANSWERS: u32 = 1024;

struct Armed<'a> {
    tid: u32,
    base: usize,
    len: usize,
    answer: &'a (dyn Fn() + 'a),
    left: AtomicU32,
}

static ALONE: Mutex<()> = Mutex::new(());
static PREVIOUS: OnceLock<signal::Previous> = OnceLock::new();
static ARMED: AtomicPtr<Armed<'static>> = AtomicPtr::new(ptr::null_mut());

struct Disarm;

impl Drop for Disarm {
    fn drop(&mut self) {
        ARMED.store(ptr::null_mut(), Ordering::Release);
    }
}

unsafe extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let armed = ARMED.load(Ordering::Acquire);
    // SAFETY: the kernel calls this with its own info and context. A pointer that is there is alive as
    // long as the thread that armed it is in `trapping`; for any other thread only the id is at stake,
    // and no such thread raises SIGBUS while this process takes a census.
    unsafe {
        if !armed.is_null() && (*armed).tid == thread::gettid() {
            let at = signal::fault_address(info);
            let ours = at.wrapping_sub((*armed).base) < (*armed).len;
            // Relaxed: only this thread counts.
            if ours && (*armed).left.fetch_sub(1, Ordering::Relaxed) > 0 {
                signal::preserve_errno(|| ((*armed).answer)());
                return;
            }
            ARMED.store(ptr::null_mut(), Ordering::Release);
        }
        if let Some(previous) = PREVIOUS.get() {
            signal::chain(signal, info, context, previous);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Userfaultfd;

    #[test]
    fn parts_grow_shrink_and_move() {
        let mut a = Scratch::anonymous(8).unwrap();
        a.fill();
        a.unmap_tail(4).unwrap();
        assert_eq!((a.pages(), a.resident(3)), (4, Ok(true)));
        a.resize(6).unwrap();
        assert_eq!((a.resident(3), a.resident(5)), (Ok(true), Ok(false)));
        a.resize(2).unwrap();
        let there = Scratch::anonymous(2).unwrap();
        let to = there.base();
        a.move_onto(there).unwrap();
        assert_eq!((a.base(), a.read(1)), (to, 1));
        let b = a.move_pages_away().unwrap();
        assert_eq!((a.read(1), b.read(1)), (0, 1));
        b.kernel_write(0).unwrap();
        b.protect(0, 1, Protection::None).unwrap();
        assert_eq!(b.kernel_write(0), Err(Errno::EFAULT));
    }

    #[test]
    fn a_huge_one_is_aligned_to_its_size() {
        let huge = Scratch::huge(3).unwrap();
        assert!(huge.base().is_multiple_of(huge_page_size()));
        assert_eq!(huge.len(), 3 * huge_page_size());
        huge.write(huge.pages() - 1);
    }

    #[test]
    fn a_trapped_touch_goes_on_after_the_answer() {
        let Ok(uffd) = Userfaultfd::open(true).inspect_err(|e| println!("skipped: {e}")) else {
            return;
        };
        let memory = Scratch::anonymous(4).unwrap();
        uffd.register_missing(memory.base(), memory.len()).unwrap();
        let answered = AtomicU32::new(0);
        let answer = || {
            answered.fetch_add(1, Ordering::Relaxed);
            assert!(uffd.zeropage(memory.page(2), page_size(), false).is_complete());
        };
        memory.trapping(&answer, || memory.write(2)).unwrap();
        assert_eq!((answered.into_inner(), memory.read(2)), (1, 1));
    }
}
