//! Whoever needs a mapping looked up: by a fault, a system call on memory, or a look into `/proc`.

use firn_heap::sys::ops::{Scratch, query_vma, zerocopy};
use firn_heap::sys::{Userfaultfd, page_size};
use nix::libc;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{IoSliceMut, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use super::Pace;
use crate::scenario::stage::{Log, Stage};

/// Pages of a neighbour's memory.
const PAGES: usize = 256;
/// Faults of a neighbour in a batch.
const FAULTS: usize = 16;
/// Rounds a second of a neighbour or reader.
const RATE: u64 = 1000;

/// Faults on memory whose mapping never changes: gives pages back and touches them again, by turns in one
/// call and page by page.
pub fn neighbour(stage: &Stage) {
    let Ok(memory) = Scratch::anonymous(PAGES) else {
        return stage.trouble("Neighbour: mmap failed".to_owned());
    };
    // The first fault needs the mapping's anon_vma, and so the lock; the others do not.
    memory.fill();
    let (mut faults, mut gives) = (stage.log("fault"), stage.log("madvise"));
    let mut pace = Pace::new(RATE);
    let mut at = 0;
    while !stage.over() {
        pace.wait();
        at = (at + FAULTS) % (PAGES - FAULTS);
        if let Err(e) = gives.time(|| memory.advise(at, FAULTS, libc::MADV_DONTNEED)) {
            stage.trouble(format!("Neighbour: madvise failed with {e}"));
        }
        for page in at..at + FAULTS {
            faults.time(|| memory.write(page));
        }
    }
}

/// A connection of this process with itself, and a mapping of its receiving end.
struct Socket {
    sender: TcpStream,
    receiver: TcpStream,
    window: Scratch,
}

impl Socket {
    fn open() -> Option<Socket> {
        let listener = TcpListener::bind("127.0.0.1:0").ok()?;
        let sender = TcpStream::connect(listener.local_addr().ok()?).ok()?;
        let (receiver, _) = listener.accept().ok()?;
        let window = Scratch::of_file(receiver.as_fd(), 16, false).ok()?;
        Some(Socket { sender, receiver, window })
    }

    /// Sends a page and receives it: mapped as far as the kernel does that, and by copying.
    fn round(&mut self, log: &mut Log<'_>) -> Result<(), String> {
        let mut page = vec![1; page_size()];
        self.sender.write_all(&page).map_err(|e| e.to_string())?;
        let received = log.time(|| zerocopy::receive(self.receiver.as_fd(), &self.window));
        let mapped = received.map_err(|e| e.to_string())?.mapped;
        page.truncate(page.len() - mapped.min(page.len()));
        self.receiver.read_exact(&mut page).map_err(|e| e.to_string())
    }
}

/// Needs mappings looked up in every way, one after the other.
pub fn reader(stage: &Stage) {
    let Ok(memory) = Scratch::anonymous(PAGES) else {
        return stage.trouble("VmaReader: mmap failed".to_owned());
    };
    memory.fill();
    let uffd = Userfaultfd::open(true).ok();
    let registered = Scratch::anonymous(64).ok().filter(|range| {
        range.write(0);
        uffd.as_ref().is_some_and(|u| u.register_missing(range.base(), range.len()).is_ok())
    });
    if registered.is_none() {
        stage.trouble("VmaReader: no userfaultfd: its calls are left out".to_owned());
    }
    let maps = File::open("/proc/self/maps").ok();
    let mut query = maps.as_ref().is_some_and(|m| query_vma(m.as_fd(), memory.base()).is_ok());
    if !query {
        stage.trouble("VmaReader: no PROCMAP_QUERY (Linux 6.11): it is left out".to_owned());
    }
    let mut socket = Socket::open();
    if socket.is_none() {
        stage.trouble("VmaReader: no mapping of sockets: zero-copy receive is left out".to_owned());
    }
    let (mut fault, mut first) = (stage.log("fault"), stage.log("first fault"));
    let (mut give, mut fill) = (stage.log("madvise"), stage.log("UFFDIO_ZEROPAGE"));
    let (mut readv, mut whole) = (stage.log("process_vm_readv"), stage.log("maps"));
    let (mut ask, mut receive) = (stage.log("PROCMAP_QUERY"), stage.log("zero-copy receive"));
    let me = Pid::this();
    let mut pace = Pace::new(RATE);
    let mut text = Vec::new();
    for round in 0usize.. {
        if stage.over() {
            break;
        }
        pace.wait();
        let at = round % (PAGES - 1);
        if let Err(e) = give.time(|| memory.advise(at, 1, libc::MADV_DONTNEED)) {
            stage.trouble(format!("VmaReader: madvise failed with {e}"));
        }
        fault.time(|| memory.write(at));
        if let Ok(fresh) = Scratch::anonymous(2) {
            first.time(|| fresh.write(0));
        }
        if let (Some(uffd), Some(range)) = (&uffd, &registered) {
            let page = 1 + round % (range.pages() - 1);
            if page == 1 {
                // What has been filled is given back, so that it can be filled again.
                let _ = range.advise(1, range.pages() - 1, libc::MADV_DONTNEED);
            }
            let filled = fill.time(|| uffd.zeropage(range.page(page), page_size(), false));
            if let Some(e) = filled.error {
                stage.trouble(format!("VmaReader: UFFDIO_ZEROPAGE failed with {e}"));
            }
        }
        let mut out = [0u8; 64];
        let remote = [RemoteIoVec { base: memory.page(at), len: out.len() }];
        let read = readv.time(|| process_vm_readv(me, &mut [IoSliceMut::new(&mut out)], &remote));
        if let Err(e) = read {
            stage.trouble(format!("VmaReader: process_vm_readv failed with {e}"));
        }
        if let Some(maps) = &maps
            && query
        {
            query = ask.time(|| query_vma(maps.as_fd(), memory.base())).is_ok();
        }
        if round % 16 == 0
            && let Some(mut maps) = maps.as_ref()
        {
            text.clear();
            whole.time(|| {
                let _ = maps.seek(SeekFrom::Start(0)).and_then(|_| maps.read_to_end(&mut text));
            });
        }
        if let Some(open) = &mut socket
            && let Err(e) = open.round(&mut receive)
        {
            stage.trouble(format!("VmaReader: zero-copy receive is left out: {e}"));
            socket = None;
        }
    }
}
