//! Zero-copy receive (`TCP_ZEROCOPY_RECEIVE`): the kernel maps received pages into a mapping of the socket,
//! which needs the mapping looked up, and so the lock that this program is about.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Errno, Scratch};

/// `TCP_ZEROCOPY_RECEIVE` of `linux/tcp.h`.
const OPTION: libc::c_int = 35;

/// The first fields of `struct tcp_zerocopy_receive`, which the kernel takes at this length too.
#[repr(C)]
#[derive(Debug, Default)]
struct Receive {
    address: u64,
    length: u32,
    skip: u32,
}

const _: () = assert!(size_of::<Receive>() == 16);

/// What one call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes that were mapped.
    pub mapped: usize,
    /// Bytes that must be read by copying, because they do not fill pages.
    pub copy: usize,
}

/// Receives into `window`, a mapping of `socket` made by [`Scratch::of_file`].
///
/// # Errors
/// `ENOPROTOOPT` where the kernel does not have it, `EINVAL` for a mapping of something else.
pub fn receive(socket: BorrowedFd<'_>, window: &Scratch) -> Result<Received, Errno> {
    let mut arg = Receive { address: window.base() as u64, length: window.len() as u32, skip: 0 };
    let mut len = size_of::<Receive>() as libc::socklen_t;
    // SAFETY: the kernel reads and writes the struct of the length it is told; what it maps lies within
    // the scratch, to whose contents no reference exists.
    let done = unsafe {
        let arg = (&raw mut arg).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, OPTION, arg, &mut len)
    };
    Errno::check(done)?;
    Ok(Received { mapped: arg.length as usize, copy: arg.skip as usize })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_was_sent_is_mapped_or_left_to_be_copied() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut receiver, _) = listener.accept().unwrap();
        let Ok(window) = Scratch::of_file(receiver.as_fd(), 16, false) else {
            println!("skipped: sockets cannot be mapped");
            return;
        };
        sender.write_all(&[7; 100]).unwrap();
        let mut one = [0; 1];
        receiver.read_exact(&mut one).unwrap();
        match receive(receiver.as_fd(), &window) {
            // Less than a page is never mapped.
            Ok(received) => assert_eq!(received, Received { mapped: 0, copy: 99 }),
            Err(errno) => println!("skipped: no zero-copy receive ({errno})"),
        }
    }
}
