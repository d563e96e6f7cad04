//! This machine's apt: where the archive is, which keys sign it, and downloading as apt does.
//!
//! No host is named in this program. The archive is the one that apt's sources name, reached with
//! apt's own methods and proxies through its helper program. On a machine without apt, kernels come
//! by `--deb`, `--image` or `--kernels` of what was fetched before.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::exit::Failure;

/// apt's program for scripts. Not on `PATH`, but at one place wherever there is apt.
const HELPER: &str = "/usr/lib/apt/apt-helper";

/// A Debian repository that apt is configured with, without a suite.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Repository {
    /// What `dists/` and `pool/` are appended to; ends with a slash.
    pub uri: String,
    /// It carries security updates: its suites have another name.
    pub security: bool,
}

fn without_apt(why: impl std::fmt::Display) -> Failure {
    Failure::missing(format!(
        "kernels are fetched with apt's configuration and programs, and {why}: use a Debian system, or \
         give your own kernel with --image FILE or --deb FILE"
    ))
}

fn output(command: &mut Command) -> Result<String, Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| without_apt(format_args!("{program} cannot be run ({e})")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(without_apt(format_args!("{program} failed: {}", said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The Debian repositories among apt's sources.
///
/// # Errors
/// Exit code 3 without apt, or if none of its sources is Debian's archive.
pub fn repositories() -> Result<Vec<Repository>, Failure> {
    let format = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)";
    let text = output(Command::new("apt-get").args(["indextargets", "--format", format]))?;
    let found = parse_targets(&text);
    if found.iter().all(|r| r.security) {
        return Err(without_apt("none of its sources is Debian's archive"));
    }
    Ok(found)
}

/// From apt's list: what says that it is Debian's, or, where apt has not fetched it yet, has a suite
/// of Debian's name.
fn parse_targets(text: &str) -> Vec<Repository> {
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(uri), Some(suite), Some("main")) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let base = suite.split('-').next().unwrap_or(suite).split('/').next().unwrap_or(suite);
        let ours = match words.next() {
            Some(origin) if !origin.starts_with('$') => origin == "Debian",
            _ => super::packages::CODENAMES.contains(&base) || base.ends_with("stable"),
        };
        if ours {
            let uri = format!("{}/", uri.trim_end_matches('/'));
            found.insert(Repository { uri, security: suite.contains("security") });
        }
    }
    found.into_iter().collect()
}

/// One setting of apt.
fn setting(name: &str) -> Option<String> {
    let text = output(Command::new("apt-config").args(["dump", "--format", "%v%n", name])).ok()?;
    text.lines().next().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// Whether a `Release` file that says it is no longer valid is to be refused, as apt is configured.
pub fn checks_validity() -> bool {
    let off = |value: String| matches!(value.as_str(), "false" | "no" | "0" | "off" | "without");
    !setting("Acquire::Check-Valid-Until").is_some_and(off)
}

/// The keys that sign Debian's archive.
///
/// # Errors
/// Exit code 3 if the package with them is not installed.
pub fn keyring() -> Result<PathBuf, Failure> {
    ["pgp", "gpg"]
        .iter()
        .map(|end| PathBuf::from(format!("/usr/share/keyrings/debian-archive-keyring.{end}")))
        .find(|path| path.exists())
        .ok_or_else(|| {
            Failure::missing(
                "the keys of Debian's archive are not installed: `apt-get install \
                 debian-archive-keyring`",
            )
        })
}

/// Why a download failed.
#[derive(Debug)]
pub enum Trouble {
    /// The mirror does not have it.
    Absent,
    /// Anything else, in apt's words.
    Failed(Failure),
}

/// Downloads `uri` to `to`, whose folder exists.
///
/// # Errors
/// [`Trouble::Absent`] if the mirror answers that it does not have it.
pub fn download(uri: &str, to: &Path) -> Result<(), Trouble> {
    let mut command = Command::new(HELPER);
    // Downloads of root would otherwise be made by a user who cannot write to root's cache, which apt
    // warns about each time.
    command.args(["-o", "APT::Sandbox::User=", "-q", "download-file", uri]).arg(to);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    let done = command
        .output()
        .map_err(|e| Trouble::Failed(without_apt(format_args!("{HELPER} cannot be run ({e})"))))?;
    if done.status.success() && to.exists() {
        return Ok(());
    }
    let _ = std::fs::remove_file(to);
    let said = String::from_utf8_lossy(&[&done.stdout[..], &done.stderr[..]].concat()).into_owned();
    if said.contains(" 404 ") || said.contains("File not found") {
        return Err(Trouble::Absent);
    }
    let why: Vec<_> =
        said.lines().filter(|l| l.starts_with("E:") || l.starts_with("Err")).collect();
    Err(Trouble::Failed(Failure::missing(format!(
        "{uri} cannot be downloaded: {}",
        if why.is_empty() { said.trim().to_owned() } else { why.join("; ") }
    ))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_repositories_are_told_from_others() {
        let text = "\
http://mirror.test/debian/ bookworm main Debian
http://mirror.test/debian/ bookworm-updates main Debian
http://mirror.test/debian-security/ bookworm-security main Debian
http://other.test/tools nodistro main Toolmaker
http://unfetched.test/deb trixie main $(ORIGIN)
http://elsewhere.test/apt/ stable contrib Debian
";
        let found = parse_targets(text);
        let shown: Vec<_> = found.iter().map(|r| (r.uri.as_str(), r.security)).collect();
        assert_eq!(
            shown,
            [
                ("http://mirror.test/debian-security/", true),
                ("http://mirror.test/debian/", false),
                ("http://unfetched.test/deb/", false),
            ]
        );
    }
}
