//! The static `firn` that goes into guests.
//!
//! A guest has no libraries, so the program must have none. If the running `firn` is static, it is the
//! one. If it was built in a source tree that is still there, a static one is built beside it (a matter
//! of a minute once, of nothing after that). Otherwise the user names one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::exit::Failure;

/// Where guests are built for. Its C library can be linked statically.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The cargo profile: as `release`, without debugging information, which a guest cannot use.
const PROFILE: &str = "guest";

/// Finds or makes the program.
///
/// # Errors
/// Exit code 2 if `chosen` is not a static program, 3 if there is none and none can be built.
pub fn find(chosen: Option<&Path>, tell: &dyn Fn(&str)) -> Result<PathBuf, Failure> {
    if let Some(path) = chosen {
        return match is_static(path) {
            Ok(true) => Ok(path.to_owned()),
            Ok(false) => Err(Failure::usage(format!(
                "--guest {}: is linked dynamically, and a guest has no libraries: {HOW}",
                path.display()
            ))),
            Err(e) => {
                Err(Failure::usage(format!("--guest {}: is no program: {e}", path.display())))
            }
        };
    }
    let this = std::env::current_exe()
        .map_err(|e| Failure::missing(format!("the path of the running firn is unknown: {e}")))?;
    if is_static(&this).unwrap_or(false) {
        return Ok(this);
    }
    build(&this, tell)
}

const HOW: &str = "`cargo guest` in the source tree builds a static one";

/// Builds in the tree that this program comes from, into the folder that it lies in.
fn build(this: &Path, tell: &dyn Fn(&str)) -> Result<PathBuf, Failure> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let folder = this.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    let (Some(folder), true) = (folder, manifest.exists()) else {
        return Err(Failure::missing(format!(
            "this firn is linked dynamically and the tree it was built in is gone: give a static one with \
             --guest FILE ({HOW})"
        )));
    };
    tell("building a static firn for the guests, if it is not up to date");
    let done = Command::new("cargo")
        .args(["build", "--quiet", "--profile", PROFILE, "--bin", "firn", "--target", TARGET])
        .args(["--config", &static_linking(), "--manifest-path"])
        .arg(&manifest)
        .arg("--target-dir")
        .arg(folder)
        // What a build script of ours, or `cargo test`, set for this process is not for that build.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output();
    match done {
        Ok(output) if output.status.success() => Ok(folder.join(TARGET).join(PROFILE).join("firn")),
        Ok(output) => Err(Failure::missing(format!(
            "the static firn for the guests cannot be built: {}",
            String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ")
        ))),
        Err(e) => Err(Failure::missing(format!(
            "the static firn for the guests cannot be built, since cargo cannot be run ({e}): give one \
             with --guest FILE"
        ))),
    }
}

/// The configuration of cargo that links statically, for the target only: programs that run during
/// the build cannot be static.
fn static_linking() -> String {
    format!("target.{TARGET}.rustflags=[\"-C\",\"target-feature=+crt-static\"]")
}

/// Whether an ELF program asks for no interpreter, which is what loads libraries.
fn is_static(path: &Path) -> std::io::Result<bool> {
    let bytes = std::fs::read(path)?;
    has_interpreter(&bytes)
        .map(|has| !has)
        .ok_or_else(|| std::io::Error::other("no ELF program for x86-64"))
}

/// Looks for a `PT_INTERP` among the program headers of a 64-bit little-endian ELF file.
fn has_interpreter(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let u16_at = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let table = u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?) as usize;
    let (size, count) = (usize::from(u16_at(54)?), usize::from(u16_at(56)?));
    for i in 0..count {
        let at = table.checked_add(i * size)?;
        let kind = u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?);
        if kind == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_told_from_other_files() {
        // The test itself is linked dynamically, as cargo does by default.
        let this = std::env::current_exe().unwrap();
        assert!(!is_static(&this).unwrap());
        assert!(is_static(Path::new(file!())).is_err() || !Path::new(file!()).exists());
        assert_eq!(has_interpreter(b"#!/bin/sh\n"), None);
        let failure = find(Some(&this), &|_| ()).unwrap_err();
        assert_eq!(failure.exit, crate::exit::Exit::Usage);
        assert!(failure.message.contains("cargo guest"), "{failure}");
    }

    #[test]
    fn the_alias_in_the_tree_builds_what_is_built_here() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cargo/config.toml");
        let text = std::fs::read_to_string(file).unwrap();
        for part in [PROFILE, TARGET, "target-feature=+crt-static"] {
            assert!(text.contains(part), "{part}");
        }
    }
}
