//! The file that a matrix of boots ends in: `firn-kernels-1`.
//!
//! One JSON file with everything: the conditions, the kernels, and each boot with its report inside, in
//! the order in which they were made. It is written anew after every boot, so that what was measured
//! survives whatever happens next. Sets of several machines, or of shards, merge by laying their boots
//! together; see [`Set::merge`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::boot::Boot;
use super::cache::temporary;
use super::kernel::Kernel;
use super::qemu::Machine;
use crate::exit::Failure;

/// The value of `schema`.
pub const SCHEMA: &str = "firn-kernels-1";

/// A part of a matrix, for one of several machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Which, from 1.
    pub index: usize,
    /// Of how many.
    pub count: usize,
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let parts = text.split_once('/').and_then(|(index, count)| {
            Some(Shard { index: index.parse().ok()?, count: count.parse().ok()? })
        });
        match parts {
            Some(shard) if shard.index >= 1 && shard.index <= shard.count => Ok(shard),
            _ => Err(format!("{text} is no shard: give I/N with I from 1 to N, as 2/4")),
        }
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

/// The host of some boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its kernel.
    pub kernel: String,
    /// Its processor.
    pub cpu_model: String,
    /// Its processors.
    pub cpus: usize,
    /// Its qemu; nothing if the runs were made without.
    pub qemu: Option<String>,
}

/// What all boots of a set have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// The command that each guest ran.
    pub command: Vec<String>,
    /// The virtual machine; nothing for reports that were made without one.
    pub machine: Option<Machine>,
    /// Why it has this accelerator.
    pub accelerator_because: String,
    /// The program: its version, and the SHA-256 of the file that ran.
    pub firn: String,
    /// As above.
    pub program_sha256: String,
    /// The host; nothing for reports that were made without a virtual machine.
    pub host: Option<Host>,
}

/// A kernel of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetKernel {
    /// Its name in this set.
    pub label: String,
    /// `6.1`.
    pub series: Option<String>,
    /// Its package's version.
    pub version: Option<String>,
    /// Where it is from.
    pub origin: String,
    /// The SHA-256 of its image.
    pub image_sha256: String,
    /// Telling options of its configuration.
    pub configuration: BTreeMap<String, String>,
}

impl SetKernel {
    /// Of a kernel.
    pub fn of(kernel: &Kernel) -> SetKernel {
        SetKernel {
            label: kernel.label.clone(),
            series: kernel.series.clone(),
            version: kernel.version.clone(),
            origin: kernel.origin.clone(),
            image_sha256: kernel.image_sha256.clone(),
            configuration: kernel.configuration(),
        }
    }
}

/// One boot of a set.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetBoot {
    /// The kernel's label.
    pub kernel: String,
    /// Which run of this kernel, from 1.
    pub run: usize,
    /// Its place in the order of all boots, from 0, shards included.
    pub place: usize,
    /// What came of it.
    #[serde(flatten)]
    pub boot: Boot,
    /// Boots before this one that a fault of the emulator ended ([`Boot::emulators_fault`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repeated: Vec<Boot>,
}

/// A whole set.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Set {
    /// [`SCHEMA`].
    pub schema: String,
    /// Conditions, one for each host that contributed; the first is of the first file of a merge.
    pub conditions: Vec<Conditions>,
    /// The kernels, oldest first.
    pub kernels: Vec<SetKernel>,
    /// Runs of each kernel that were asked for.
    pub runs: usize,
    /// The part of the matrix that this is, if it is one.
    pub shard: Option<Shard>,
    /// Boots that were asked for and not made.
    pub missing: usize,
    /// The boots.
    pub boots: Vec<SetBoot>,
}

impl Set {
    /// Whether a file says that it is a set: its schema stands first.
    pub fn is_one(path: &Path) -> bool {
        use std::io::Read;
        let mut begin = [0; 64];
        let read = std::fs::File::open(path).and_then(|mut file| file.read(&mut begin));
        read.is_ok_and(|n| String::from_utf8_lossy(&begin[..n]).contains("\"firn-kernels-"))
    }

    /// Reads a set.
    ///
    /// # Errors
    /// Exit code 2 for what is no set, or of a newer version.
    pub fn read(path: &Path) -> Result<Set, Failure> {
        let wrong = |why: String| Failure::usage(format!("{}: {why}", path.display()));
        let text = std::fs::read(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
        let value: serde_json::Value = serde_json::from_slice(&text)
            .map_err(|e| wrong(format!("is not JSON, or was cut off ({e})")))?;
        match value["schema"].as_str() {
            Some(SCHEMA) => {}
            Some(other) if other.starts_with("firn-kernels-") => {
                return Err(wrong(format!(
                    "is of the version {other}, and this firn reads {SCHEMA}: use a newer firn"
                )));
            }
            Some(other) if other.starts_with("firn-") => {
                return Err(wrong(format!(
                    "is a {other} file, no set of kernels: `firn compare` reads it"
                )));
            }
            _ => return Err(wrong("is not a file of `firn kernels run`".to_owned())),
        }
        serde_json::from_value(value).map_err(|e| wrong(format!("is damaged: {e}")))
    }

    /// Writes it, so that there is a whole file at any moment.
    ///
    /// # Errors
    /// Exit code 3 if it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let other = temporary(path);
        let written = serde_json::to_vec(self)
            .map_err(std::io::Error::other)
            .and_then(|text| std::fs::write(&other, text))
            .and_then(|()| std::fs::rename(&other, path));
        written.map_err(|e| {
            let _ = std::fs::remove_file(&other);
            Failure::missing(format!("{}: cannot be written: {e}", path.display()))
        })
    }

    /// Lays sets together: shards of one matrix, or the same matrix of several machines.
    ///
    /// # Errors
    /// Exit code 2 if they ran different commands, or if a shard comes twice.
    pub fn merge(sets: Vec<Set>) -> Result<Set, Failure> {
        let mut sets = sets.into_iter();
        let mut all = sets.next().ok_or_else(|| Failure::usage("there is no set to compare"))?;
        let mut shards: Vec<_> = all.shard.into_iter().collect();
        for set in sets {
            let command = |set: &Set| set.conditions.first().map(|c| c.command.join(" "));
            if command(&all) != command(&set) {
                return Err(Failure::usage(format!(
                    "the sets are of different commands, `{}` and `{}`: compare them one by one",
                    command(&all).unwrap_or_default(),
                    command(&set).unwrap_or_default()
                )));
            }
            if let Some(shard) = set.shard {
                if shards.contains(&shard) {
                    return Err(Failure::usage(format!("shard {shard} is given twice")));
                }
                shards.push(shard);
            }
            for conditions in set.conditions {
                if !all.conditions.contains(&conditions) {
                    all.conditions.push(conditions);
                }
            }
            for kernel in set.kernels {
                if !all.kernels.iter().any(|k| k.label == kernel.label) {
                    all.kernels.push(kernel);
                }
            }
            all.missing += set.missing;
            all.runs = all.runs.max(set.runs);
            all.boots.extend(set.boots);
        }
        let lacking = shards.first().map_or(0, |shard| shard.count).saturating_sub(shards.len());
        all.shard = match lacking {
            0 => None,
            _ => all.shard,
        };
        all.boots.sort_by_key(|boot| boot.place);
        all.kernels
            .sort_by(|a, b| super::debian::version::compare(order(&a.label), order(&b.label)));
        Ok(all)
    }

    /// A set of plain reports, made without a virtual machine: on bare metal, or under another tool. Each is
    /// a run of the kernel that it names.
    ///
    /// # Errors
    /// Exit code 2 for what is no report, or if the reports are not of one kind.
    pub fn gather(files: &[PathBuf]) -> Result<Set, Failure> {
        let mut set = Set {
            schema: SCHEMA.to_owned(),
            conditions: Vec::new(),
            kernels: Vec::new(),
            runs: 0,
            shard: None,
            missing: 0,
            boots: Vec::new(),
        };
        for (place, path) in files.iter().enumerate() {
            let wrong = |why: String| Failure::usage(format!("{}: {why}", path.display()));
            let text = std::fs::read(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
            let report: serde_json::Value = serde_json::from_slice(&text)
                .map_err(|e| wrong(format!("is not JSON, or was cut off ({e})")))?;
            let text = |pointer: &str| report.pointer(pointer)?.as_str().map(str::to_owned);
            let (Some(schema), Some(kernel)) =
                (text("/schema"), text("/environment/kernel").or_else(|| text("/machine/kernel")))
            else {
                return Err(wrong(
                    "is no report of firn: it names no schema or no kernel".to_owned(),
                ));
            };
            let conditions = Conditions {
                command: vec![schema],
                machine: None,
                accelerator_because: "made without a virtual machine".to_owned(),
                firn: env!("CARGO_PKG_VERSION").to_owned(),
                program_sha256: String::new(),
                host: None,
            };
            match set.conditions.first() {
                None => set.conditions.push(conditions),
                Some(first) if *first == conditions => {}
                Some(first) => {
                    return Err(wrong(format!(
                        "is a {} file, and the one before is {}: gather reports of one kind",
                        conditions.command[0], first.command[0]
                    )));
                }
            }
            let label = kernel.trim_end_matches("-cloud-amd64").to_owned();
            if set.of(&label).next().is_none() {
                set.kernels.push(SetKernel {
                    series: super::debian::packages::series(&label),
                    label: label.clone(),
                    version: None,
                    origin: "a report".to_owned(),
                    image_sha256: String::new(),
                    configuration: BTreeMap::new(),
                });
            }
            let run = set.of(&label).count() + 1;
            set.runs = set.runs.max(run);
            let boot = Boot::of_report(report);
            set.boots.push(SetBoot { kernel: label, run, place, boot, repeated: Vec::new() });
        }
        set.kernels
            .sort_by(|a, b| super::debian::version::compare(order(&a.label), order(&b.label)));
        Ok(set)
    }

    /// The boots of a kernel.
    pub fn of<'a>(&'a self, label: &'a str) -> impl Iterator<Item = &'a SetBoot> {
        self.boots.iter().filter(move |boot| boot.kernel == label)
    }

    /// Whether times are evidence: no boot of it was under TCG.
    pub fn times_are_evidence(&self) -> bool {
        use super::qemu::Accelerator::Tcg;
        let under_tcg = |c: &Conditions| c.machine.as_ref().is_some_and(|m| m.accelerator == Tcg);
        !self.conditions.iter().any(under_tcg)
    }
}

/// What labels are ordered by: the number they begin with.
fn order(label: &str) -> &str {
    label.split(['+', '-']).next().unwrap_or(label)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::boot::Outcome;
    use super::super::qemu::Accelerator;
    use super::*;
    use crate::exit::Exit;

    /// A set of a made-up census, for tests.
    pub fn example(labels: &[&str], shard: Option<Shard>) -> Set {
        let machine = Machine {
            accelerator: Accelerator::Tcg,
            vcpus: 2,
            memory_mib: 1024,
            preempt: "full".into(),
            mitigations: "auto".into(),
            append: String::new(),
        };
        let host = Host { kernel: "1".into(), cpu_model: "x".into(), cpus: 2, qemu: None };
        let kernel = |label: &&str| SetKernel {
            label: (*label).to_owned(),
            series: super::super::debian::packages::series(label),
            version: None,
            origin: "test".into(),
            image_sha256: String::new(),
            configuration: BTreeMap::new(),
        };
        let boots = labels.iter().enumerate().map(|(place, label)| SetBoot {
            kernel: (*label).to_owned(),
            run: 1,
            place,
            boot: Boot {
                outcome: Outcome::Ran { code: 0 },
                guest: None,
                boot_s: Some(3.0),
                wall_s: 5.0,
                command_ms: Some(2000),
                report: None,
                stdout: String::new(),
                stderr: String::new(),
                complaints: Vec::new(),
                console_tail: Vec::new(),
            },
            repeated: Vec::new(),
        });
        Set {
            schema: SCHEMA.to_owned(),
            conditions: vec![Conditions {
                command: vec!["census".into()],
                machine: Some(machine),
                accelerator_because: "asked for".into(),
                firn: "0".into(),
                program_sha256: "0".into(),
                host: Some(host),
            }],
            kernels: labels.iter().map(kernel).collect(),
            runs: 1,
            shard,
            missing: 0,
            boots: boots.collect(),
        }
    }

    #[test]
    fn shards_are_read_and_nonsense_is_refused() {
        assert_eq!("2/4".parse(), Ok(Shard { index: 2, count: 4 }));
        for wrong in ["0/4", "5/4", "2", "a/b", "/", "1/0"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_set_is_read_as_it_was_written() {
        let path = std::env::temp_dir().join(format!("firn-set-{}.json", std::process::id()));
        let set = example(&["6.1.0-50", "6.12.107+deb13"], None);
        set.write(&path).unwrap();
        let back = Set::read(&path).unwrap();
        assert_eq!(serde_json::to_value(&back).unwrap(), serde_json::to_value(&set).unwrap());
        for (text, why) in [
            ("{\"schema\": \"firn-kernels-1\", \"boots\": 3}", "damaged"),
            ("{\"schema\": \"firn-kernels-2\"}", "newer firn"),
            ("{\"schema\": \"firn-stress-1\"}", "firn compare"),
            ("{\"schema\": \"firn-kern", "cut off"),
            ("{}", "firn kernels run"),
        ] {
            std::fs::write(&path, text).unwrap();
            let failure = Set::read(&path).unwrap_err();
            assert!(failure.message.contains(why) && failure.exit == Exit::Usage, "{failure}");
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn plain_reports_become_a_set_by_the_kernel_they_name() {
        let folder = std::env::temp_dir().join(format!("firn-gather-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let report = |kernel: &str| {
            format!("{{\"schema\": \"firn-census-1\", \"machine\": {{\"kernel\": \"{kernel}\"}}}}")
        };
        let new = file("a", &report("6.12.1"));
        let (old, again) = (file("b", &report("6.1.9")), file("c", &report("6.12.1")));
        let set = Set::gather(&[new.clone(), old, again]).unwrap();
        let labels: Vec<_> = set.kernels.iter().map(|k| k.label.as_str()).collect();
        assert_eq!((labels, set.runs), (vec!["6.1.9", "6.12.1"], 2));
        assert!(set.times_are_evidence());
        let other = file("d", "{\"schema\": \"firn-doctor-1\", \"machine\": {\"kernel\": \"6\"}}");
        assert!(Set::gather(&[new, other]).unwrap_err().message.contains("one kind"));
        assert!(Set::gather(&[file("e", "{}")]).unwrap_err().message.contains("no report"));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn shards_merge_once_and_in_order() {
        let shard = |index| Some(Shard { index, count: 2 });
        let (mut one, mut two) =
            (example(&["6.1.0-50"], shard(1)), example(&["5.10.0-32"], shard(2)));
        one.boots[0].place = 1;
        two.boots[0].place = 0;
        let all = Set::merge(vec![one.clone(), two]).unwrap();
        assert_eq!(all.shard, None);
        let labels: Vec<_> = all.kernels.iter().map(|k| k.label.as_str()).collect();
        assert_eq!(labels, ["5.10.0-32", "6.1.0-50"]);
        assert_eq!(all.boots[0].kernel, "5.10.0-32");
        assert!(Set::merge(vec![one.clone(), one]).unwrap_err().message.contains("twice"));
    }
}
