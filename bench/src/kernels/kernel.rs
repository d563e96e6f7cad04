//! A kernel that can be booted: an image, where it comes from, and how it was configured.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cache::{Cache, temporary};
use super::debian::{deb, sha256};
use crate::exit::Failure;

/// A kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kernel {
    /// What reports call it: the release that its package or file is named after, without the flavour.
    pub label: String,
    /// `6.1`, where it is known before it is booted.
    pub series: Option<String>,
    /// The version of its package.
    pub version: Option<String>,
    /// Where it comes from: a package and its suite, or a file.
    pub origin: String,
    /// The SHA-256 of the image.
    pub image_sha256: String,
    /// The image that is booted.
    pub image: PathBuf,
    /// Its configuration, if the package has it.
    pub config: Option<PathBuf>,
    /// Its modules (a folder with `modules.dep`), if there are any.
    pub modules: Option<PathBuf>,
}

/// Options of the kernel's configuration that make two kernels unequal ground, and that reports
/// show.
const TELLING: [&str; 12] = [
    "CONFIG_PREEMPT",
    "CONFIG_PREEMPT_VOLUNTARY",
    "CONFIG_PREEMPT_LAZY",
    "CONFIG_PREEMPT_DYNAMIC",
    "CONFIG_HZ",
    "CONFIG_NO_HZ_FULL",
    "CONFIG_PER_VMA_LOCK",
    "CONFIG_PER_VMA_LOCK_STATS",
    "CONFIG_PROVE_LOCKING",
    "CONFIG_LOCK_STAT",
    "CONFIG_KASAN",
    "CONFIG_DEBUG_VM",
];

impl Kernel {
    /// A developer's own image.
    ///
    /// # Errors
    /// Exit code 2 if it cannot be read, or is no kernel for x86.
    pub fn from_image(image: &Path, modules: Option<&Path>) -> Result<Kernel, Failure> {
        let unreadable =
            |e| Failure::usage(format!("--image {}: cannot be read: {e}", image.display()));
        let bytes = fs::read(image).map_err(unreadable)?;
        let Some(version) = boot_version(&bytes) else {
            return Err(Failure::usage(format!(
                "--image {}: is no bootable kernel (of a kernel tree take arch/x86/boot/bzImage, not \
                 vmlinux)",
                image.display()
            )));
        };
        let config = image.with_file_name("config");
        Ok(Kernel {
            series: super::debian::packages::series(&version),
            label: version.split(' ').next().unwrap_or(&version).to_owned(),
            version: Some(version),
            origin: format!("--image {}", image.display()),
            image_sha256: sha256(&bytes),
            image: fs::canonicalize(image).map_err(unreadable)?,
            config: config.exists().then_some(config),
            modules: modules.map(Path::to_owned),
        })
    }

    /// From a package, which is unpacked into the cache. The package's bytes must be trusted.
    ///
    /// # Errors
    /// Exit code 3 if there is no kernel image in it, or if the cache cannot be written.
    pub fn from_packages(
        cache: &Cache,
        files: &[PathBuf],
        origin: String,
        version: Option<String>,
    ) -> Result<Kernel, Failure> {
        let staging = temporary(&cache.folder("kernels")?.join("unpacking"));
        let _ = fs::remove_dir_all(&staging);
        let unpacked = files.iter().try_for_each(|file| unpack(file, &staging));
        let made = unpacked.and_then(|()| settle(cache, &staging, origin, version));
        let _ = fs::remove_dir_all(&staging);
        made
    }

    /// The telling options of its configuration.
    pub fn configuration(&self) -> BTreeMap<String, String> {
        let text = self.config.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let mut found = BTreeMap::new();
        for line in text.as_deref().unwrap_or("").lines() {
            if let Some((name, value)) = line.split_once('=')
                && TELLING.contains(&name)
            {
                found.insert(name.to_owned(), value.to_owned());
            }
        }
        found
    }
}

/// The version that a bzImage says it has, by the x86 boot protocol: `HdrS` at 0x202, and at 0x20e
/// where the text begins, counted from 0x200.
fn boot_version(image: &[u8]) -> Option<String> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let offset = u16::from_le_bytes(image.get(0x20e..0x210)?.try_into().ok()?);
    let text = image.get(usize::from(offset) + 0x200..)?;
    let text = &text[..text.iter().position(|&b| b == 0)?];
    std::str::from_utf8(text).ok().filter(|t| !t.is_empty()).map(str::to_owned)
}

/// Unpacks what a guest can use: the image, its configuration, its modules.
fn unpack(package: &Path, into: &Path) -> Result<(), Failure> {
    let wanted = |path: &Path| {
        let under = |folder: &str| path.starts_with(folder);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        (under("boot") && (name.starts_with("vmlinuz-") || name.starts_with("config-")))
            || under("lib/modules")
            || under("usr/lib/modules")
    };
    let read = fs::File::open(package).map(std::io::BufReader::new).and_then(|file| {
        deb::files(file, |path, content| {
            if !wanted(path) {
                return Ok(());
            }
            let to = into.join(path.strip_prefix("usr").unwrap_or(path));
            fs::create_dir_all(to.parent().unwrap_or(into))?;
            std::io::copy(content, &mut fs::File::create(to)?).map(drop)
        })
    });
    read.map_err(|e| Failure::missing(format!("{}: cannot be unpacked: {e}", package.display())))
}

/// The release of what was unpacked: `boot/vmlinuz-RELEASE`, or from 6.19 on
/// `lib/modules/RELEASE/vmlinuz`.
fn release(staging: &Path) -> Option<String> {
    let names = |folder: &str| {
        let entries = fs::read_dir(staging.join(folder)).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let old = names("boot").into_iter().find_map(|n| n.strip_prefix("vmlinuz-").map(str::to_owned));
    let new = |release: &String| {
        let folder = staging.join("lib/modules").join(release);
        IMAGES.iter().any(|image| folder.join(image).exists())
    };
    old.or_else(|| names("lib/modules").into_iter().find(new))
}

/// Names of an image among the modules; the second is of packages that are not signed yet.
const IMAGES: [&str; 2] = ["vmlinuz", "vmlinuz.unsigned"];

/// Gives what was unpacked its place in the cache.
fn settle(
    cache: &Cache,
    staging: &Path,
    origin: String,
    version: Option<String>,
) -> Result<Kernel, Failure> {
    let broken = |e: std::io::Error| {
        Failure::missing(format!("{origin}: the kernel cannot be put into the cache: {e}"))
    };
    let Some(release) = release(staging) else {
        return Err(Failure::missing(format!(
            "{origin}: there is no kernel image in it (from Linux 6.19 on, Debian's image is in the package \
             linux-binary-…)"
        )));
    };
    let folder = cache.folder("kernels")?.join(&release);
    let _ = fs::remove_dir_all(&folder);
    fs::rename(staging, &folder).map_err(broken)?;
    let modules = folder.join("lib/modules").join(&release);
    let either = |name: &str| {
        let old = folder.join("boot").join(format!("{name}-{release}"));
        if old.exists() { old } else { modules.join(name) }
    };
    let (mut image, config) = (either(IMAGES[0]), either("config"));
    if !image.exists() {
        image = modules.join(IMAGES[1]);
    }
    let kernel = Kernel {
        label: release.trim_end_matches("-cloud-amd64").to_owned(),
        series: super::debian::packages::series(&release),
        version,
        image_sha256: sha256(&fs::read(&image).map_err(broken)?),
        config: config.exists().then_some(config),
        modules: modules.join("kernel").exists().then_some(modules),
        origin,
        image,
    };
    cache.store(Path::new("kernels").join(&release).join("kernel.json"), &kernel)?;
    Ok(kernel)
}

/// The kernels that are in the cache.
pub fn cached(cache: &Cache) -> Vec<Kernel> {
    let entries = fs::read_dir(cache.path("kernels")).into_iter().flatten().flatten();
    let name =
        |entry: fs::DirEntry| Path::new("kernels").join(entry.file_name()).join("kernel.json");
    let all = entries.filter_map(|entry| cache.load::<Kernel>(name(entry)));
    let mut all: Vec<_> = all.filter(|kernel| kernel.image.exists()).collect();
    all.sort_by(|a, b| super::debian::version::compare(&a.label, &b.label));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_an_image_is_read_by_the_boot_protocol() {
        let mut image = vec![0; 0x300];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x40u16.to_le_bytes());
        let text = b"6.12.107 (somebody@somewhere) #1 SMP\0";
        image[0x240..0x240 + text.len()].copy_from_slice(text);
        assert_eq!(boot_version(&image).unwrap(), "6.12.107 (somebody@somewhere) #1 SMP");
        assert_eq!(boot_version(b"\x7fELF"), None);
        assert_eq!(boot_version(&[0; 0x300]), None);
    }
}
