//! How results leave a guest: frames on a serial port of their own, each with its length and checksum.
//!
//! A serial port needs no module and no driver that a stock kernel lacks; the second one carries nothing
//! but frames, so kernel messages, which go to the first, cannot fall into them. Contents are compressed,
//! because the port moves a byte at a time. A frame is a line of text, then the compressed bytes:
//!
//! ```text
//! firn-frame KIND LENGTH SHA256-OF-THE-COMPRESSED-BYTES
//! ```
//!
//! The reader skips whatever stands before a frame (firmware that greets on every port), and accepts
//! nothing whose checksum is wrong: an emulated port can lose bytes on a busy host. Each frame is answered,
//! with [`TAKEN`] or [`AGAIN`], and sent again until it is taken, a few times at most.

use std::io::{self, BufRead, Read, Write};

use super::debian::sha256;

/// The answer to a frame that arrived whole.
pub const TAKEN: u8 = b'+';
/// The answer to a damaged one.
pub const AGAIN: u8 = b'-';

/// What a frame begins with.
const MAGIC: &str = "firn-frame";
/// Longest compressed contents that a reader accepts.
const LONGEST: usize = 1 << 30;
/// Longest line that can be a header.
const HEADER: u64 = 200;
/// The fastest compression: it costs less than sending more.
const PRESET: u32 = 1;

/// One message of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is: a word.
    pub kind: String,
    /// Its contents.
    pub bytes: Vec<u8>,
}

/// Sends one frame.
///
/// # Errors
/// The port cannot be written.
pub fn send(mut port: impl Write, kind: &str, bytes: &[u8]) -> io::Result<()> {
    let mut packer = liblzma::write::XzEncoder::new(Vec::new(), PRESET);
    packer.write_all(bytes)?;
    let packed = packer.finish()?;
    // A line of its own, whatever was sent before.
    writeln!(port, "\n{MAGIC} {kind} {} {}", packed.len(), sha256(&packed))?;
    port.write_all(&packed)?;
    port.flush()
}

/// Receives the next frame; nothing at the end.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] for a frame that is damaged, [`io::ErrorKind::UnexpectedEof`] for one
/// that was cut off.
pub fn receive(port: &mut impl BufRead) -> io::Result<Option<Frame>> {
    loop {
        let mut line = Vec::new();
        if port.by_ref().take(HEADER).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&line);
        let Some(header) = text.trim().strip_prefix(MAGIC) else { continue };
        let words: Vec<_> = header.split_whitespace().collect();
        let &[kind, length, sum] = &words[..] else {
            return Err(damaged(format!("a header that cannot be read: {header}")));
        };
        let length: usize =
            length.parse().map_err(|_| damaged(format!("a length that is no number: {length}")))?;
        if length > LONGEST {
            return Err(damaged(format!("a frame of {length} bytes")));
        }
        let mut packed = vec![0; length];
        port.read_exact(&mut packed)?;
        if sha256(&packed) != sum {
            return Err(damaged(format!("the checksum of the frame {kind} is wrong")));
        }
        let mut bytes = Vec::new();
        liblzma::read::XzDecoder::new(&packed[..]).read_to_end(&mut bytes)?;
        return Ok(Some(Frame { kind: kind.to_owned(), bytes }));
    }
}

fn damaged(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(mut bytes: &[u8]) -> io::Result<Vec<Frame>> {
        std::iter::from_fn(|| receive(&mut bytes).transpose()).collect()
    }

    #[test]
    fn frames_arrive_whole_whatever_stands_between_them() {
        let large: Vec<u8> =
            (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut wire = b"SeaBIOS (version)\r\nno newline".to_vec();
        send(&mut wire, "hello", b"{}").unwrap();
        wire.extend_from_slice(b"[   12.3] a message that lost its way\r\n");
        send(&mut wire, "report", &large).unwrap();
        send(&mut wire, "end", b"").unwrap();
        let got = frames(&wire).unwrap();
        assert_eq!(
            got.iter().map(|f| f.kind.as_str()).collect::<Vec<_>>(),
            ["hello", "report", "end"]
        );
        assert!(got[1].bytes == large);
    }

    #[test]
    fn a_damaged_or_cut_frame_is_an_error() {
        let mut wire = Vec::new();
        send(&mut wire, "report", &[7; 1000]).unwrap();
        for i in [wire.len() - 1, wire.len() - 20] {
            let mut damaged = wire.clone();
            damaged[i] ^= 1;
            assert_eq!(frames(&damaged).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        let cut = frames(&wire[..wire.len() - 1]).unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        assert!(frames(b"\nfirn-frame report many abc\n").is_err());
        assert!(frames(b"\nfirn-frame report\n").is_err());
    }
}
