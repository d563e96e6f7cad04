//! Which accelerator works here: by trial, since `/dev/kvm` may be there and no stock kernel boot under
//! it. The answer is remembered until the host's kernel or qemu changes.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::boot::{Booter, Patience};
use super::cache::Cache;
use super::guest::Job;
use super::qemu::{Accelerator, Machine};
use crate::exit::Failure;
use crate::progress::Stop;

/// A guest under KVM says hello within two or three seconds.
const TRIAL: Duration = Duration::from_secs(20);
const REMEMBERED: &str = "accelerator.json";

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The one to use.
    pub accelerator: Accelerator,
    /// Why.
    pub why: String,
    /// What the answer holds for: the host's kernel and qemu.
    host: String,
    /// When it was found, in seconds since 1970.
    found_at: u64,
}

/// The accelerator to use: the one that was asked for, or what a trial shows, or showed.
///
/// # Errors
/// As [`Booter::boot`].
pub fn choose(
    cache: &Cache,
    asked: Option<Accelerator>,
    image: &Path,
    base: &[u8],
    stop: &Stop,
    tell: &dyn Fn(&str),
) -> Result<(Accelerator, String), Failure> {
    if let Some(accelerator) = asked {
        return Ok((accelerator, "asked for".to_owned()));
    }
    let kernel = crate::census::kernel().unwrap_or_default();
    let host = format!("{kernel}, qemu {}", super::qemu::version()?);
    if let Some(found) = cache.load::<Finding>(REMEMBERED)
        && found.host == host
    {
        return Ok((found.accelerator, found.why));
    }
    let (accelerator, why) = if !Path::new("/dev/kvm").exists() {
        (Accelerator::Tcg, "there is no /dev/kvm".to_owned())
    } else {
        tell("trying whether a guest boots under KVM (once, 20 s at most)");
        match trial(image, base, stop)? {
            Ok(seconds) => (Accelerator::Kvm, format!("a trial boot took {seconds:.1} s")),
            Err(why) => (Accelerator::Tcg, format!("/dev/kvm is there, but {why}")),
        }
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let found_at = now.map_or(0, |d| d.as_secs());
    if !stop.requested() {
        cache.store(REMEMBERED, &Finding { accelerator, why: why.clone(), host, found_at })?;
    }
    Ok((accelerator, why))
}

/// Boots once under KVM: how long it took, or why it did not work.
fn trial(image: &Path, base: &[u8], stop: &Stop) -> Result<Result<f64, String>, Failure> {
    let machine = Machine {
        accelerator: Accelerator::Kvm,
        vcpus: 2,
        memory_mib: 512,
        preempt: "full".to_owned(),
        mitigations: "auto".to_owned(),
        append: String::new(),
    };
    let patience = Patience { boot: TRIAL, command: TRIAL };
    let booter =
        Booter { machine: &machine, base, patience, show_console: false, keep: false, stop };
    let job = Job {
        command: [super::initramfs::PROGRAM_PATH, "--version"].map(str::to_owned).into(),
        modules: Vec::new(),
        timeout_s: TRIAL.as_secs(),
        to_console: false,
    };
    // That qemu refuses KVM (no permission, no virtualization) is an answer too.
    Ok(match booter.boot(image, &job, &[]) {
        Err(failure) => Err(failure.message),
        Ok((boot, _)) => match (boot.outcome.code(), boot.boot_s) {
            (Some(0), Some(seconds)) => Ok(seconds),
            _ => Err(format!("a stock kernel does not run: {}", boot.outcome.text())),
        },
    })
}
