//! Which kernels there are, and getting one: indexes of all suites, a day long from the cache, and
//! packages with what they depend on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::cache::{Cache, temporary};
use super::debian::apt::{self, Trouble};
use super::debian::packages::{self, Package};
use super::debian::release::{self, Release};
use super::debian::sha256;
use super::kernel::{self, Kernel};
use crate::exit::{Exit, Failure};

/// How long an index from the cache is good.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);
/// The index file of a suite.
const INDEX: &str = "main/binary-amd64/Packages.xz";

/// The kernel packages of one suite.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Suite {
    /// Its name, as `trixie-backports`.
    pub name: String,
    /// The repository's address.
    uri: String,
    /// When the archive signed it, in its own words.
    pub date: String,
    packages: Vec<Package>,
}

/// All suites that the mirror has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Catalog {
    suites: Vec<Suite>,
}

/// A kernel that can be fetched.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// The suite that has it.
    pub suite: &'a Suite,
    /// The image's package.
    pub package: &'a Package,
}

impl Offer<'_> {
    /// The release without the flavour, as `6.1.0-50`.
    pub fn label(&self) -> &str {
        let release = self.package.image_of().unwrap_or(&self.package.name);
        release.trim_end_matches("-cloud-amd64")
    }
}

impl Catalog {
    /// Reads the indexes, from the cache where they are fresh unless `refresh`. `tell` gets a line for
    /// each download.
    ///
    /// # Errors
    /// Exit code 3 without apt or without network, 1 if a signature or a checksum is wrong.
    pub fn load(cache: &Cache, refresh: bool, tell: &dyn Fn(&str)) -> Result<Catalog, Failure> {
        let stored = Path::new("catalog.json");
        let age = fs::metadata(cache.path(stored)).and_then(|m| m.modified());
        let fresh = age.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < FRESH));
        let known = cache.load::<Catalog>(stored);
        match known {
            Some(catalog) if fresh && !refresh => Ok(catalog),
            known => match Catalog::download(cache, tell) {
                Ok(catalog) => {
                    cache.store(stored, &catalog)?;
                    Ok(catalog)
                }
                // Without network what is known is better than nothing; without a valid signature it
                // is not.
                Err(failure) if failure.exit == Exit::Missing && !refresh => {
                    let catalog = known.ok_or_else(|| failure.clone())?;
                    tell(&format!("{failure}; going on with the list of an earlier day"));
                    Ok(catalog)
                }
                Err(failure) => Err(failure),
            },
        }
    }

    fn download(cache: &Cache, tell: &dyn Fn(&str)) -> Result<Catalog, Failure> {
        let keyring = apt::keyring()?;
        let (mut suites, mut refused) = (Vec::new(), None);
        for repository in apt::repositories()? {
            for name in packages::suites(repository.security) {
                let folder = cache.folder(Path::new("indexes").join(&name))?;
                match suite(&repository.uri, &name, &folder, &keyring, tell) {
                    Ok(Some(suite)) => suites.push(suite),
                    Ok(None) => {}
                    // Of a suite that cannot be trusted nothing is used; the others are as good as ever.
                    Err(failure) if failure.exit == Exit::GateFailed => {
                        tell(&format!("left out: {failure}"));
                        refused = Some(failure);
                    }
                    Err(failure) => return Err(failure),
                }
            }
        }
        if suites.is_empty() {
            return Err(refused.unwrap_or_else(|| {
                Failure::missing(
                    "the mirror that apt is configured with has none of Debian's suites from bullseye on",
                )
            }));
        }
        Ok(Catalog { suites })
    }

    /// All kernels.
    pub fn offers(&self) -> impl Iterator<Item = Offer<'_>> {
        self.suites.iter().flat_map(|suite| {
            suite
                .packages
                .iter()
                .filter(|package| package.image_of().is_some())
                .map(move |package| Offer { suite, package })
        })
    }

    /// The newest kernel of each series, oldest series first.
    pub fn by_series(&self) -> Vec<(String, Offer<'_>)> {
        let mut groups = BTreeMap::<_, (String, Vec<Offer<'_>>)>::new();
        for offer in self.offers() {
            let release = offer.package.image_of().unwrap_or_default();
            if let Some(key) = firn_heap::sys::probe::Release::parse(release) {
                let group = groups.entry((key.major, key.minor));
                group.or_insert_with(|| (key.to_string(), Vec::new())).1.push(offer);
            }
        }
        groups.into_values().filter_map(|(series, all)| Some((series, newest(all)?))).collect()
    }

    /// What was asked for: a series, a release, `oldest` or `newest`.
    ///
    /// # Errors
    /// Exit code 2, with what there is.
    pub fn find(&self, wanted: &str) -> Result<Offer<'_>, Failure> {
        let series = self.by_series();
        let found = match wanted {
            "oldest" => series.first().map(|(_, offer)| *offer),
            "newest" => series.last().map(|(_, offer)| *offer),
            _ => newest(self.offers().filter(|offer| {
                packages::asked_for(offer.package.image_of().unwrap_or_default(), wanted)
            })),
        };
        found.ok_or_else(|| {
            let names: Vec<_> = series.iter().map(|(name, _)| name.as_str()).collect();
            Failure::usage(format!(
                "kernel {wanted}: none of Debian's suites has it; there are {}, oldest and newest \
                 (`firn kernels list` has the releases; --image FILE boots your own)",
                names.join(", ")
            ))
        })
    }

    /// Fetches a kernel into the cache.
    ///
    /// # Errors
    /// Exit code 3 if it cannot be downloaded or unpacked, 1 if its checksum is wrong.
    pub fn fetch(
        &self,
        cache: &Cache,
        offer: Offer<'_>,
        tell: &dyn Fn(&str),
    ) -> Result<Kernel, Failure> {
        let folder = cache.folder("downloads")?;
        let mut files = Vec::new();
        let fetched = with_parts(offer).into_iter().try_for_each(|package| {
            let size = crate::stress::units::bytes(package.size);
            tell(&format!("fetching {} {} ({size})", package.name, package.version));
            let name = format!("{}_{}.deb", package.name, package.version);
            let to = temporary(&folder.join(name));
            files.push(to.clone());
            let uri = format!("{}{}", offer.suite.uri, package.filename);
            get(&uri, &to)?.ok_or_else(|| {
                Failure::missing(format!(
                    "{uri}: the mirror no longer has this package: `firn kernels list --refresh`"
                ))
            })?;
            check(&to, &package.name, &package.sha256, package.size).map(drop)
        });
        let origin = format!("{} of {}", offer.package.name, offer.suite.name);
        let version = Some(offer.package.version.clone());
        let kernel = fetched.and_then(|()| Kernel::from_packages(cache, &files, origin, version));
        files.iter().for_each(|file| drop(fs::remove_file(file)));
        kernel
    }
}

fn newest<'a>(offers: impl IntoIterator<Item = Offer<'a>>) -> Option<Offer<'a>> {
    packages::newest(offers.into_iter().map(|offer| (offer.package, offer.suite)))
        .map(|(package, suite)| Offer { package, suite })
}

/// An image's package and those of the same suite that it depends on: from 6.19 on the image itself,
/// the configuration and the modules are packages of their own.
fn with_parts(offer: Offer<'_>) -> Vec<&Package> {
    let parts = offer.suite.packages.iter().filter(|package| package.belongs_to(offer.package));
    std::iter::once(offer.package).chain(parts).collect()
}

/// Downloads; nothing if the mirror does not have it.
fn get(uri: &str, to: &Path) -> Result<Option<()>, Failure> {
    match apt::download(uri, to) {
        Ok(()) => Ok(Some(())),
        Err(Trouble::Absent) => Ok(None),
        Err(Trouble::Failed(failure)) => Err(failure),
    }
}

/// Reads a download and compares it with what the link before it in the chain says.
fn check(file: &Path, what: &str, sum: &str, size: u64) -> Result<Vec<u8>, Failure> {
    let bytes = fs::read(file)
        .map_err(|e| Failure::missing(format!("{}: cannot be read: {e}", file.display())))?;
    let found = sha256(&bytes);
    if found != sum || bytes.len() as u64 != size {
        return Err(Failure::gate(format!(
            "{what}: what was downloaded has SHA-256 {found} and {} bytes, and the archive says {sum} and \
             {size}: the mirror is damaged or being updated; try again later or use another",
            bytes.len()
        )));
    }
    Ok(bytes)
}

/// Downloads and checks the index of a suite; nothing if the mirror does not have the suite. Exit code 1 if
/// it is not what the archive signed.
fn suite(
    uri: &str,
    name: &str,
    folder: &Path,
    keyring: &Path,
    tell: &dyn Fn(&str),
) -> Result<Option<Suite>, Failure> {
    let base = format!("{uri}dists/{name}/");
    let signed = folder.join("InRelease");
    if get(&format!("{base}InRelease"), &signed)?.is_none() {
        return Ok(None);
    }
    let release = Release::parse(&release::verified_text(&signed, keyring)?);
    if ![release.field("Suite"), release.field("Codename")].contains(&Some(name)) {
        return Err(Failure::gate(format!(
            "the mirror answers for {name} with the Release file of {}",
            release.field("Codename").unwrap_or("something else")
        )));
    }
    if apt::checks_validity() {
        release.check_validity(SystemTime::now(), name)?;
    }
    let Some((sum, size)) = release.checksum(INDEX) else { return Ok(None) };
    let date = release.field("Date").unwrap_or("unknown").to_owned();
    let index = folder.join("Packages.xz");
    tell(&format!("fetching the index of {name} ({})", crate::stress::units::bytes(size)));
    if get(&format!("{base}{INDEX}"), &index)?.is_none() {
        return Ok(None);
    }
    let packed = check(&index, &format!("the index of {name}"), sum, size)?;
    let _ = fs::remove_file(&index);
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut liblzma::read::XzDecoder::new(&packed[..]), &mut plain)
        .map_err(|e| Failure::missing(format!("the index of {name} cannot be unpacked: {e}")))?;
    let packages = packages::parse(&String::from_utf8_lossy(&plain));
    Ok(Some(Suite { name: name.to_owned(), uri: uri.to_owned(), date, packages }))
}

/// Gets what was asked for: from the cache if something there fits, else from the archive.
///
/// # Errors
/// As [`Catalog::load`], [`Catalog::find`] and [`Catalog::fetch`].
pub fn obtain(
    cache: &Cache,
    wanted: &[String],
    refresh: bool,
    tell: &dyn Fn(&str),
) -> Result<Vec<Kernel>, Failure> {
    let here = kernel::cached(cache);
    let mut catalog = None;
    let mut kernels = Vec::new();
    for name in wanted {
        let cached = here.iter().rfind(|kernel| packages::asked_for(&kernel.label, name));
        if let Some(kernel) = cached
            && !refresh
        {
            kernels.push(kernel.clone());
            continue;
        }
        let catalog = match &mut catalog {
            Some(catalog) => catalog,
            none => none.insert(Catalog::load(cache, refresh, tell)?),
        };
        let offer = catalog.find(name)?;
        let kernel = match here.iter().find(|kernel| kernel.label == offer.label()) {
            Some(kernel) => kernel.clone(),
            None => catalog.fetch(cache, offer, tell)?,
        };
        kernels.push(kernel);
    }
    Ok(kernels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, depends: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            filename: String::new(),
            size: 0,
            sha256: String::new(),
            depends: depends.iter().map(|d| (*d).to_owned()).collect(),
        }
    }

    fn catalog() -> Catalog {
        let suite = |name: &str, packages| Suite {
            name: name.to_owned(),
            uri: "http://mirror.test/".to_owned(),
            date: String::new(),
            packages,
        };
        Catalog {
            suites: vec![
                suite(
                    "bullseye",
                    vec![
                        package("linux-image-5.10.0-30-cloud-amd64", "5.10.218-1", &[]),
                        package("linux-image-5.10.0-32-cloud-amd64", "5.10.223-1", &[]),
                    ],
                ),
                suite(
                    "sid",
                    vec![
                        package("linux-binary-7.2.13+deb14-cloud-amd64", "7.2.13-1", &[]),
                        package("linux-binary-7.2.12+deb14-cloud-amd64", "7.2.12-1", &[]),
                        package(
                            "linux-image-7.2.13+deb14-cloud-amd64",
                            "7.2.13-1",
                            &["kmod", "linux-binary-7.2.13+deb14-cloud-amd64"],
                        ),
                    ],
                ),
            ],
        }
    }

    #[test]
    fn a_download_that_is_not_what_the_index_says_is_refused() {
        let file = std::env::temp_dir().join(format!("firn-package-{}", std::process::id()));
        fs::write(&file, b"a kernel").unwrap();
        let sum = sha256(b"a kernel");
        assert_eq!(check(&file, "linux-image", &sum, 8).unwrap(), b"a kernel");
        for (bytes, size) in [(&b"a Kernel"[..], 8), (b"a kernel", 9)] {
            fs::write(&file, bytes).unwrap();
            let failure = check(&file, "linux-image", &sum, size).unwrap_err();
            assert_eq!(failure.exit, crate::exit::Exit::GateFailed, "{failure}");
            assert!(failure.message.contains("linux-image"), "{failure}");
        }
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn a_series_gives_its_newest_release_and_the_names_of_the_ends_work() {
        let catalog = catalog();
        for (wanted, label) in [
            ("5.10", "5.10.0-32"),
            ("5.10.0-30", "5.10.0-30"),
            ("7.2", "7.2.13+deb14"),
            ("oldest", "5.10.0-32"),
            ("newest", "7.2.13+deb14"),
        ] {
            assert_eq!(catalog.find(wanted).unwrap().label(), label);
        }
        let failure = catalog.find("4.19").unwrap_err();
        assert!(failure.message.contains("5.10, 7.2") && failure.message.contains("4.19"));
    }

    #[test]
    fn the_image_itself_comes_along_where_it_is_a_package_of_its_own() {
        let catalog = catalog();
        let names = |wanted| -> Vec<String> {
            let parts = with_parts(catalog.find(wanted).unwrap());
            parts.into_iter().map(|p| p.name.clone()).collect()
        };
        assert_eq!(
            names("7.2"),
            ["linux-image-7.2.13+deb14-cloud-amd64", "linux-binary-7.2.13+deb14-cloud-amd64"]
        );
        assert_eq!(names("5.10"), ["linux-image-5.10.0-32-cloud-amd64"]);
    }
}
