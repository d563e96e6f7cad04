//! Kernels from Debian's archive: which there are, and how one gets here without root and without
//! trusting the way.
//!
//! The chain is the archive's own: a suite's `Release` file is signed ([`release`]), names the
//! checksum of its package index ([`packages`]), which names the checksum of each package, which is
//! unpacked here ([`deb`]). Nothing is used before its link of the chain has been checked. Where
//! the archive is and how it is reached is what this machine's apt is configured with ([`apt`]).

pub mod apt;
pub mod deb;
pub mod packages;
pub mod release;
pub mod version;

/// The SHA-256 of some bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_the_published_one() {
        // The first example of FIPS 180-4.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(super::sha256(b"abc"), expected);
    }
}
