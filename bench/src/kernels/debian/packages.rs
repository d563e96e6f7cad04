//! A suite's package index, and the kernels in it.

use serde::{Deserialize, Serialize};

use super::version;

/// Debian's releases that may have a kernel, oldest first.
pub const CODENAMES: [&str; 5] = ["bullseye", "bookworm", "trixie", "forky", "sid"];

/// The flavour that is used: small, and bootable in a virtual machine without any module.
const FLAVOUR: &str = "-cloud-amd64";

/// The suites to look at, in a repository of the usual kind or of security updates.
pub fn suites(security: bool) -> Vec<String> {
    let released = || CODENAMES.iter().filter(|name| **name != "sid");
    if security {
        return released().map(|name| format!("{name}-security")).collect();
    }
    let mut all: Vec<_> =
        released().flat_map(|name| [(*name).to_owned(), format!("{name}-backports")]).collect();
    all.push("sid".to_owned());
    all
}

/// What is needed of one package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where it lies below the repository.
    pub filename: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its checksum.
    pub sha256: String,
    /// What it depends on: for each dependency the first alternative, without its version.
    pub depends: Vec<String>,
}

impl Package {
    /// The kernel's release that a package with an image, or that depends on one, is named after, as
    /// `6.1.0-50-cloud-amd64`. An unsigned image is as good here, and there before the signed one.
    pub fn image_of(&self) -> Option<&str> {
        let name = self.name.strip_suffix("-unsigned").unwrap_or(&self.name);
        let release = ["linux-image-", "linux-binary-unsigned-"]
            .iter()
            .find_map(|kind| name.strip_prefix(kind))?;
        let numbered = release.starts_with(|c: char| c.is_ascii_digit());
        // `linux-image-6.1-cloud-amd64` is a metapackage that depends on the image.
        let meta = release.strip_suffix(FLAVOUR).is_some_and(|r| r.split('.').count() < 3)
            && self.depends.iter().any(|d| d.starts_with("linux-image-"));
        (numbered && release.ends_with(FLAVOUR) && !meta).then_some(release)
    }

    /// Whether the image of another package belongs to this one: what it depends on, or its modules.
    pub fn belongs_to(&self, image: &Package) -> bool {
        let modules = image.image_of().map(|release| format!("linux-modules-{release}"));
        self.version == image.version
            && self.name != image.name
            && (image.depends.contains(&self.name) || modules.as_ref() == Some(&self.name))
    }
}

/// The kernel packages of an index: images, and what images depend on.
pub fn parse(index: &str) -> Vec<Package> {
    index.split("\n\n").filter_map(stanza).collect()
}

fn stanza(text: &str) -> Option<Package> {
    let text = text.trim_start_matches('\n');
    let name = text.strip_prefix("Package: ")?.lines().next()?.trim();
    let kind = ["linux-image-", "linux-binary-", "linux-base-", "linux-modules-"];
    if !name.trim_end_matches("-unsigned").ends_with(FLAVOUR)
        || !kind.iter().any(|k| name.starts_with(k))
    {
        return None;
    }
    let field = |wanted: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            (key == wanted).then_some(value.trim())
        })
    };
    let depends = field("Depends").unwrap_or("").split(',').filter_map(|dependency| {
        dependency.split('|').next()?.split_whitespace().next().map(str::to_owned)
    });
    Some(Package {
        name: name.to_owned(),
        version: field("Version")?.to_owned(),
        filename: field("Filename")?.to_owned(),
        size: field("Size")?.parse().ok()?,
        sha256: field("SHA256")?.to_owned(),
        depends: depends.collect(),
    })
}

/// The series of a release: `6.1` of `6.1.0-50-cloud-amd64`.
pub fn series(release: &str) -> Option<String> {
    firn_heap::sys::probe::Release::parse(release).map(|r| r.to_string())
}

/// Whether a release is what was asked for: a series as `6.1`, or the beginning of a release that
/// ends at a separator, as `6.1.0-50` or `6.12.107`.
pub fn asked_for(release: &str, wanted: &str) -> bool {
    series(release).as_deref() == Some(wanted)
        || release
            .strip_prefix(wanted)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '+', '.']))
}

/// Of kernels by version, the newest.
pub fn newest<'a, T>(all: impl Iterator<Item = (&'a Package, T)>) -> Option<(&'a Package, T)> {
    all.reduce(|best, next| {
        // Of equals the signed one, then the first: suites are listed from old to new.
        let order = version::compare(&next.0.version, &best.0.version);
        let signed = |package: &Package| !package.name.contains("-unsigned");
        let better = order.then_with(|| signed(next.0).cmp(&signed(best.0)));
        if better.is_gt() { next } else { best }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "\
Package: linux-image-6.12.107+deb13-cloud-amd64
Source: linux-signed-amd64 (6.12.107+1)
Version: 6.12.107-1
Depends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool
Filename: pool/main/l/linux-signed-amd64/linux-image-6.12.107_amd64.deb
Size: 100
SHA256: aa

Package: linux-image-6.12-cloud-amd64
Version: 6.12.107-1
Depends: linux-image-6.12.107+deb13-cloud-amd64 (= 6.12.107-1)
Filename: pool/main/l/linux/meta.deb
Size: 1
SHA256: bb

Package: linux-image-7.2.13+deb14-cloud-amd64
Version: 7.2.13-1
Depends: dracut | initramfs-tools, linux-base-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), \
linux-binary-7.2.13+deb14-cloud-amd64 (= 7.2.13-1)
Filename: pool/main/l/image.deb
Size: 2
SHA256: cc

Package: linux-image-6.12.107+deb13-amd64
Version: 6.12.107-1
Filename: pool/other-flavour.deb
Size: 3
SHA256: dd

Package: linux-binary-unsigned-7.2.13+deb14-cloud-amd64
Version: 7.2.13-1
Depends: linux-base-7.2.13+deb14-cloud-amd64 (= 7.2.13-1)
Filename: pool/main/l/unsigned.deb
Size: 2
SHA256: ff

Package: linux-modules-7.2.13+deb14-cloud-amd64
Version: 7.2.13-1
Depends: kmod
Filename: pool/main/l/modules.deb
Size: 2
SHA256: 11

Package: linux-image-7.3-cloud-amd64
Version: 7.3-1~exp1
Depends: linux-binary-7.3-cloud-amd64 (= 7.3-1~exp1)
Filename: pool/main/l/73.deb
Size: 2
SHA256: ee
";

    #[test]
    fn kernels_are_found_and_metapackages_are_not() {
        let packages = parse(INDEX);
        let images: Vec<_> = packages.iter().filter_map(Package::image_of).collect();
        assert_eq!(
            images,
            [
                "6.12.107+deb13-cloud-amd64",
                "7.2.13+deb14-cloud-amd64",
                "7.2.13+deb14-cloud-amd64",
                "7.3-cloud-amd64"
            ]
        );
        let seven = &packages[2];
        assert_eq!(
            seven.depends,
            [
                "dracut",
                "linux-base-7.2.13+deb14-cloud-amd64",
                "linux-binary-7.2.13+deb14-cloud-amd64"
            ]
        );
    }

    #[test]
    fn the_signed_image_is_preferred_and_either_brings_its_modules() {
        let packages = parse(INDEX);
        let images = packages.iter().filter(|p| p.image_of().is_some_and(|r| r.starts_with("7.2")));
        let (best, ()) = newest(images.clone().rev().map(|p| (p, ()))).unwrap();
        assert_eq!(best.name, "linux-image-7.2.13+deb14-cloud-amd64");
        let modules = packages.iter().find(|p| p.name.starts_with("linux-modules-")).unwrap();
        assert!(images.into_iter().all(|image| modules.belongs_to(image)));
    }

    #[test]
    fn a_series_or_the_beginning_of_a_release_selects() {
        let release = "6.1.0-50-cloud-amd64";
        assert!(asked_for(release, "6.1") && asked_for(release, "6.1.0-50"));
        assert!(asked_for(release, "6.1.0"));
        assert!(!asked_for(release, "6.12") && !asked_for(release, "6.1.0-5"));
        assert!(asked_for("6.12.107+deb13-cloud-amd64", "6.12.107"));
        assert!(!asked_for("6.12.107+deb13-cloud-amd64", "6.1"));
    }

    #[test]
    fn every_suite_from_bullseye_to_sid_is_looked_at() {
        let suites = suites(false);
        for suite in ["bullseye", "bookworm-backports", "trixie", "trixie-backports", "sid"] {
            assert!(suites.iter().any(|s| s == suite), "{suite}");
        }
        assert!(super::suites(true).iter().all(|s| s.ends_with("-security")));
    }
}
