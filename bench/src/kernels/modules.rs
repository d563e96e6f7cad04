//! Modules for a guest: each with what it depends on, in the order in which the kernel takes them.
//!
//! Debian's kernels need none to run `firn`. `--module NAME` is for what a workload needs (a disk, a file
//! system) and for a kernel of one's own with little built in.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use super::kernel::Kernel;
use crate::exit::Failure;

/// The modules `wanted` by name: their paths in the guest in loading order, and the files.
///
/// # Errors
/// Exit code 2 if the kernel has no such module.
#[expect(clippy::type_complexity, reason = "two lists that go to two places")]
pub fn load(
    kernel: &Kernel,
    wanted: &[String],
) -> Result<(Vec<String>, Vec<(String, Vec<u8>)>), Failure> {
    if wanted.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let Some(folder) = &kernel.modules else {
        return Err(Failure::usage(format!(
            "{} has no modules here, so none can be loaded: give --modules DIR (the folder with \
             modules.dep)",
            kernel.label
        )));
    };
    let unreadable = |path: &Path, e: &dyn std::fmt::Display| {
        Failure::usage(format!("{}: cannot be read: {e}", path.display()))
    };
    let list = folder.join("modules.dep");
    let files = match std::fs::read_to_string(&list) {
        Ok(text) => dependencies(&text),
        // A package has no list: `depmod` makes it when the package is installed.
        Err(_) => BTreeMap::new(),
    };
    let files = if files.is_empty() { by_depmod(folder)? } else { files };
    let mut order = Vec::new();
    for name in wanted {
        for file in resolve(&files, name)
            .map_err(|why| Failure::usage(format!("--module {name}: {why} ({})", kernel.label)))?
        {
            if !order.contains(&file) {
                order.push(file);
            }
        }
    }
    let mut contents = Vec::new();
    let mut names = Vec::new();
    for (i, file) in order.iter().enumerate() {
        let path = folder.join(file);
        let bytes = read(&path).map_err(|e| unreadable(&path, &e))?;
        let name = format!("/modules/{i:03}-{}.ko", module_name(file));
        names.push(name.clone());
        contents.push((name, bytes));
    }
    Ok((names, contents))
}

/// From `modules.dep`: each file and what it depends on, as the list has it.
fn dependencies(text: &str) -> BTreeMap<String, Vec<String>> {
    let line = |line: &str| {
        let (file, needs) = line.split_once(':')?;
        Some((file.to_owned(), needs.split_whitespace().map(str::to_owned).collect()))
    };
    text.lines().filter_map(line).collect()
}

/// Asks `depmod` for the list, without writing it.
fn by_depmod(folder: &Path) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::missing(format!(
            "{}: has no modules.dep, and depmod cannot make it ({why}): `apt-get install kmod`",
            folder.display()
        ))
    };
    // …/lib/modules/RELEASE
    let (Some(release), Some(base)) = (folder.file_name(), folder.ancestors().nth(3)) else {
        return Err(failed(&"the folder is not named lib/modules/RELEASE"));
    };
    let output = std::process::Command::new("depmod")
        .arg("-n")
        .arg("-b")
        .arg(base)
        .arg(release)
        .output()
        .map_err(|e| failed(&e))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // `-n` prints all of its files, one after the other; the lines of this one have paths.
    Ok(dependencies(&text).into_iter().filter(|(file, _)| file.contains(".ko")).collect())
}

/// `virtio_blk` of `kernel/drivers/block/virtio_blk.ko.xz`. Names with `-` and `_` are the same.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

/// A module and what it needs, what is needed first.
fn resolve(files: &BTreeMap<String, Vec<String>>, name: &str) -> Result<Vec<String>, String> {
    let wanted = name.replace('-', "_");
    let (file, needs) = files
        .iter()
        .find(|(file, _)| module_name(file) == wanted)
        .ok_or_else(|| "the kernel has no such module, or has it built in".to_owned())?;
    // The list has the nearest first, and all of them: what they need themselves stands behind them.
    let mut order: Vec<_> = needs.iter().rev().cloned().collect();
    order.push(file.clone());
    Ok(order)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let bytes = std::fs::read(path)?;
    let mut plain = Vec::new();
    match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => {
            liblzma::read::XzDecoder::new(&bytes[..]).read_to_end(&mut plain)?;
        }
        Some("gz") => {
            flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain)?;
        }
        Some("zst") => {
            ruzstd::decoding::StreamingDecoder::new(&bytes[..])
                .map_err(std::io::Error::other)?
                .read_to_end(&mut plain)?;
        }
        _ => return Ok(bytes),
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
kernel/fs/mbcache.ko.xz:
kernel/fs/jbd2/jbd2.ko.xz:
kernel/lib/crc16.ko.xz:
kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz kernel/fs/mbcache.ko.xz
kernel/drivers/block/virtio_blk.ko.xz:
";

    #[test]
    fn what_a_module_needs_comes_before_it() {
        let files = dependencies(LIST);
        let order = resolve(&files, "ext4").unwrap();
        let names: Vec<_> = order.iter().map(|f| module_name(f)).collect();
        assert_eq!(names, ["mbcache", "crc16", "jbd2", "ext4"]);
        assert_eq!(resolve(&files, "virtio-blk").unwrap().len(), 1);
        assert!(resolve(&files, "btrfs").unwrap_err().contains("no such module"));
    }
}
