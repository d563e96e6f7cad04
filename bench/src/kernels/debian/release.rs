//! A suite's `Release` file: its signature, its validity, and the checksums that it vouches for.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use crate::exit::Failure;

/// Checks a signed `Release` file (`InRelease`, with the signature around the text) with whichever verifier
/// the system has, and returns the text that is signed, which may be less than the file holds.
///
/// # Errors
/// Exit code 1 if no key of the keyring signed the text, 3 if there is no verifier.
pub fn verified_text(signed: &Path, keyring: &Path) -> Result<String, Failure> {
    let text = signed.with_extension("verified");
    let _ = std::fs::remove_file(&text);
    verify(signed, &text, keyring)?;
    let read = std::fs::read_to_string(&text);
    let _ = std::fs::remove_file(&text);
    read.map_err(|e| bad(signed, &format!("the signed text cannot be read: {e}")))
}

fn verify(signed: &Path, text: &Path, keyring: &Path) -> Result<(), Failure> {
    let gpgv = Command::new("gpgv")
        .args(["--status-fd", "1"])
        .args(["--output".as_ref(), text, "--keyring".as_ref(), keyring, signed])
        .stdin(Stdio::null())
        .output();
    if let Ok(done) = gpgv {
        let status = String::from_utf8_lossy(&done.stdout).into_owned();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        return judge(&status)
            .map_err(|why| bad(signed, &format!("{why}: {}", said.replace('\n', " "))));
    }
    let sqv = Command::new("sqv")
        .args(["--cleartext".as_ref(), "--output".as_ref(), text])
        .args(["--keyring".as_ref(), keyring, signed])
        .stdin(Stdio::null())
        .output();
    match sqv {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(bad(signed, &String::from_utf8_lossy(&done.stderr).replace('\n', " "))),
        Err(_) => Err(Failure::missing(
            "neither gpgv nor sqv is installed, and without them nothing that is downloaded can be \
             trusted: `apt-get install gpgv`",
        )),
    }
}

fn bad(signed: &Path, why: &str) -> Failure {
    Failure::gate(format!("{} is not signed by Debian's archive: {}", signed.display(), why.trim()))
}

/// What gpgv's status lines amount to: one valid signature is enough, since a suite is signed with
/// the keys of several releases, of which a keyring may have some; one bad signature is too many.
fn judge(status: &str) -> Result<(), &'static str> {
    let has = |what: &str| {
        let mut lines = status.lines().filter_map(|line| line.strip_prefix("[GNUPG:] "));
        lines.any(|line| line.split(' ').next() == Some(what))
    };
    if has("BADSIG") {
        return Err("a signature does not fit the file");
    }
    match has("VALIDSIG") {
        true => Ok(()),
        false => Err("no valid signature by a known key"),
    }
}

/// A parsed `Release` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    text: String,
}

impl Release {
    /// From text whose signature has been checked.
    pub fn parse(text: &str) -> Release {
        Release { text: text.to_owned() }
    }

    /// A field on one line.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key == name).then_some(value.trim())
        })
    }

    /// The SHA-256 and the size in bytes of one of the suite's files.
    pub fn checksum(&self, path: &str) -> Option<(&str, u64)> {
        let section = self.text.lines().skip_while(|line| line.trim_end() != "SHA256:").skip(1);
        section.take_while(|line| line.starts_with(' ')).find_map(|line| {
            let mut words = line.split_whitespace();
            let (sum, size, name) = (words.next()?, words.next()?, words.next()?);
            (name == path).then_some((sum, size.parse().ok()?))
        })
    }

    /// Refuses a file that is past its `Valid-Until`: somebody may be replaying an old one.
    ///
    /// # Errors
    /// Exit code 1, with how apt's own check is switched off.
    pub fn check_validity(&self, now: SystemTime, suite: &str) -> Result<(), Failure> {
        let Some(text) = self.field("Valid-Until") else { return Ok(()) };
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        match seconds_since_epoch(text) {
            Some(until) if until >= seconds => Ok(()),
            Some(_) => Err(Failure::gate(format!(
                "the mirror's {suite} is stale: its Release file was valid until {text}. Use another \
                 mirror; if this one is meant to be frozen, say so to apt with \
                 `Acquire::Check-Valid-Until \"false\";`"
            ))),
            None => Err(Failure::gate(format!(
                "the Release file of {suite} has a date that cannot be read: Valid-Until: {text}"
            ))),
        }
    }
}

/// `Fri, 06 Nov 2026 08:08:01 UTC` in seconds since 1970.
fn seconds_since_epoch(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_once(',')?.1.split_whitespace();
    let day: i64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|m| *m == month)? as i64 + 1;
    let year: i64 = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':').map(|n| n.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if !matches!(words.next(), Some("UTC" | "GMT")) {
        return None;
    }
    // Days of the civil calendar, with years that begin in March so that the leap day is the last.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    u64::try_from(days * 86_400 + hour * 3_600 + minute * 60 + second).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TEXT: &str = "\
Origin: Debian
Suite: unstable
Valid-Until: Fri, 06 Nov 2026 08:08:01 UTC
MD5Sum:
 d41d8cd98f00b204e9800998ecf8427e 7 main/binary-amd64/Packages.xz
SHA256:
 0000000000000000000000000000000000000000000000000000000000000001 12 main/Contents
 0000000000000000000000000000000000000000000000000000000000000002 34 main/binary-amd64/Packages.xz
";

    #[test]
    fn checksums_are_those_of_the_sha256_section() {
        let release = Release::parse(TEXT);
        let (sum, size) = release.checksum("main/binary-amd64/Packages.xz").unwrap();
        assert!(sum.ends_with('2') && sum.len() == 64 && size == 34);
        assert_eq!(release.checksum("main/binary-arm64/Packages.xz"), None);
        assert_eq!(release.field("Suite"), Some("unstable"));
    }

    #[test]
    fn a_stale_file_is_refused_with_the_remedy() {
        let release = Release::parse(TEXT);
        // `date -u -d '2026-11-06 08:08:01' +%s`
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(1_793_952_481);
        release.check_validity(until, "sid").unwrap();
        let failure = release.check_validity(until + Duration::from_secs(1), "sid").unwrap_err();
        assert!(failure.message.contains("Check-Valid-Until"), "{failure}");
        let never = Release::parse("Origin: Debian\n");
        never.check_validity(until + Duration::from_secs(1), "bookworm").unwrap();
    }

    /// With the system's own lists, which apt has verified before: changed, they must be refused.
    #[test]
    fn a_changed_file_is_refused() {
        let lists = std::fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
        let signed = lists
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().ends_with("_bookworm_InRelease"));
        let (Some(signed), Ok(keyring)) = (signed, super::super::apt::keyring()) else {
            println!("skipped: apt has no verified list of bookworm here (`apt-get update`)");
            return;
        };
        let folder = std::env::temp_dir().join(format!("firn-release-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let copy = folder.join("InRelease");
        let text = std::fs::read_to_string(signed).unwrap();
        std::fs::write(&copy, &text).unwrap();
        match verified_text(&copy, &keyring) {
            Ok(plain) => {
                let release = Release::parse(&plain);
                assert_eq!(release.field("Codename"), Some("bookworm"));
                std::fs::write(&copy, text.replacen("Origin: Debian", "Origin: debian", 1))
                    .unwrap();
                let failure = verified_text(&copy, &keyring).unwrap_err();
                assert_eq!(failure.exit, crate::exit::Exit::GateFailed, "{failure}");
            }
            Err(failure) if failure.exit == crate::exit::Exit::Missing => {
                println!("skipped: {failure}")
            }
            Err(failure) => panic!("{failure}"),
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn one_valid_signature_is_enough_and_one_bad_one_too_many() {
        let valid = "[GNUPG:] NEWSIG\n[GNUPG:] VALIDSIG ABC 2026\n";
        let unknown = "[GNUPG:] ERRSIG 123 1 8 00 9\n[GNUPG:] NO_PUBKEY 123\n";
        assert!(judge(valid).is_ok());
        assert!(judge(&format!("{unknown}{valid}")).is_ok());
        assert!(judge(unknown).is_err());
        assert!(judge(&format!("{valid}[GNUPG:] BADSIG 123 Somebody\n")).is_err());
        assert!(judge("").is_err());
    }
}
