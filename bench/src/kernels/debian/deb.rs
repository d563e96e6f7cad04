//! Unpacking a Debian package without root: an `ar` archive with a compressed `tar` in it.
//!
//! Only plain files that the caller selects are read, into memory or into a folder that the caller
//! names; owners, modes, links and scripts of the package are ignored, so a package cannot do
//! anything here. The package must have been checked before.

use std::io::{self, Read};
use std::path::{Component, Path};

/// Calls `take` with each plain file of the package: its path without a leading `./`, its contents.
///
/// # Errors
/// What is no Debian package, or is compressed in a way that is not known; whatever `take` returns.
pub fn files(
    package: impl Read,
    mut take: impl FnMut(&Path, &mut dyn Read) -> io::Result<()>,
) -> io::Result<()> {
    let mut archive = ar::Archive::new(package);
    while let Some(member) = archive.next_entry() {
        let member = member?;
        let name = String::from_utf8_lossy(member.header().identifier()).into_owned();
        let Some(compression) = name.trim_end_matches('/').strip_prefix("data.tar") else {
            continue;
        };
        let plain: Box<dyn Read> = match compression {
            "" => Box::new(member),
            ".xz" => Box::new(liblzma::read::XzDecoder::new(member)),
            ".gz" => Box::new(flate2::read::GzDecoder::new(member)),
            ".zst" => {
                Box::new(ruzstd::decoding::StreamingDecoder::new(member).map_err(io::Error::other)?)
            }
            other => {
                return Err(io::Error::other(format!(
                    "the package's data is compressed as {other}"
                )));
            }
        };
        let mut tar = tar::Archive::new(plain);
        for entry in tar.entries()? {
            let mut entry = entry?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = entry.path()?.into_owned();
            let path: std::path::PathBuf = path
                .components()
                .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
                .collect();
            if path.components().any(|part| part == Component::ParentDir) {
                return Err(io::Error::other("the package has a path that leaves its folder"));
            }
            take(&path, &mut entry)?;
        }
        return Ok(());
    }
    Err(io::Error::other("it has no data, so it is no Debian package"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A package as the tools make it, with a data archive compressed by `pack`.
    fn package(end: &str, pack: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, text) in [("./boot/vmlinuz-1", "kernel"), ("./etc/x", "other")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        let data = pack(tar.into_inner().unwrap());
        let mut ar = ar::Builder::new(Vec::new());
        for (name, bytes) in
            [("debian-binary".to_owned(), b"2.0\n".to_vec()), (end.to_owned(), data)]
        {
            let header = ar::Header::new(name.into_bytes(), bytes.len() as u64);
            ar.append(&header, &bytes[..]).unwrap();
        }
        ar.into_inner().unwrap()
    }

    fn paths(bytes: &[u8]) -> io::Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        files(bytes, |path, content| {
            let mut text = String::new();
            content.read_to_string(&mut text)?;
            found.push((path.display().to_string(), text));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn every_usual_compression_is_read() {
        let xz = |data: Vec<u8>| {
            let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
            out.write_all(&data).unwrap();
            out.finish().unwrap()
        };
        let gz = |data: Vec<u8>| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(&data).unwrap();
            out.finish().unwrap()
        };
        let zst = |data: Vec<u8>| {
            ruzstd::encoding::compress_to_vec(
                &data[..],
                ruzstd::encoding::CompressionLevel::Fastest,
            )
        };
        let expected = [("boot/vmlinuz-1", "kernel"), ("etc/x", "other")]
            .map(|(path, text)| (path.to_owned(), text.to_owned()));
        for bytes in [
            package("data.tar", |data| data),
            package("data.tar.xz", xz),
            package("data.tar.gz", gz),
            package("data.tar.zst", zst),
        ] {
            assert_eq!(paths(&bytes).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_no_package_is_an_error() {
        assert!(paths(b"not a package").is_err());
        assert!(paths(&package("control.tar.xz", |data| data)).is_err());
        assert!(paths(&package("data.tar.lz4", |data| data)).is_err());
    }
}
