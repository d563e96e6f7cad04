//! `firn kernels` from outside: what happens to guests that do not boot, hang, or are interrupted, and what
//! the recipes say. The guests here are images of a few bytes, so nothing is downloaded; `.ci/run` boots
//! real kernels.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

/// What the first instructions of an image do.
#[derive(Clone, Copy)]
enum Does {
    /// Nothing, for ever.
    Hang,
    /// Resets the machine.
    Reset,
}

/// A folder with everything a test needs, removed at its end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let name = format!("{}-kernels-{name}", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// An image that a boot loader accepts: a boot sector with the header of the boot protocol, and one
    /// sector of setup code.
    fn image(&self, does: Does) -> String {
        let mut bytes = vec![0u8; 0x600];
        bytes[0x1f1] = 1;
        bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x206..0x208].copy_from_slice(&0x020cu16.to_le_bytes());
        bytes[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
        bytes[0x211] = 1;
        // The highest address of an initramfs.
        bytes[0x22c..0x230].copy_from_slice(&0x37ff_ffffu32.to_le_bytes());
        let version = b"9.9.9-test (nobody) #1\0";
        bytes[0x300..0x300 + version.len()].copy_from_slice(version);
        match does {
            // jmp .
            Does::Hang => bytes[0x200..0x202].copy_from_slice(&[0xeb, 0xfe]),
            Does::Reset => {
                // jmp 0x268. There: interrupts off, an interrupt table of no length, and an interrupt.
                bytes[0x200..0x202].copy_from_slice(&[0xeb, 0x66]);
                let code = [0xfa, 0x2e, 0x0f, 0x01, 0x1e, 0x80, 0x00, 0xcc];
                bytes[0x268..0x268 + code.len()].copy_from_slice(&code);
            }
        }
        let path = self.path(match does {
            Does::Hang => "hangs",
            Does::Reset => "resets",
        });
        fs::write(&path, bytes).unwrap();
        path
    }

    /// What counts as a static program: a header without anything behind it. These guests never start it.
    fn guest(&self) -> String {
        let mut bytes = vec![0u8; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let path = self.path("static");
        fs::write(&path, bytes).unwrap();
        path
    }

    /// `firn kernels …` with a cache of its own.
    fn kernels(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firn"));
        command.arg("kernels").args(args).args(["--cache", &self.path("cache")]);
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, does: Does, more: &[&str]) -> Command {
        let (image, guest) = (self.image(does), self.guest());
        let mut args = vec!["run", "--accel", "tcg", "--image", &image, "--guest", &guest];
        args.extend(["--boot-timeout", "6", "--memory", "256m"]);
        args.extend(more);
        let mut command = self.kernels(&args);
        command.args(["--", "census"]);
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Whether there is a qemu; says so if not.
fn qemu() -> bool {
    let found = Command::new("qemu-system-x86_64").arg("--version").output().is_ok();
    if !found {
        println!("skipped: qemu-system-x86_64 is not installed (apt-get install qemu-system-x86)");
    }
    found
}

/// Processes that have `text` on their command line.
fn processes_with(text: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let id: i32 = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let qemu = line.starts_with(b"qemu-system");
            (qemu && String::from_utf8_lossy(&line).contains(text)).then_some(id)
        })
        .collect()
}

/// Waits for something that another process does.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_guest_that_hangs_is_reported_and_the_set_is_written() {
    if !qemu() {
        return;
    }
    let place = Place::new("hang");
    let out = place.path("set.json");
    let output = place.run(Does::Hang, &["--runs", "2", "-o", &out]).output().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("did not boot in time"), "{text}");
    let set: Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    let boots = set["boots"].as_array().unwrap();
    assert_eq!(boots.len(), 2);
    assert!(boots.iter().all(|boot| boot["outcome"]["kind"] == "boot-timeout"), "{set}");
    assert_eq!(set["kernels"][0]["label"], "9.9.9-test");
    assert!(processes_with(&place.path("hangs")).is_empty());
}

#[test]
fn a_guest_that_ends_without_a_word_is_told_from_one_that_hangs() {
    if !qemu() {
        return;
    }
    let place = Place::new("reset");
    let output = place.run(Does::Reset, &[]).output().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("the guest ended: without a result"), "{text}");
}

#[test]
fn neither_an_interruption_nor_a_killing_leaves_a_qemu() {
    if !qemu() {
        return;
    }
    for (signal, code) in [(Signal::SIGINT, Some(130)), (Signal::SIGKILL, None)] {
        let place = Place::new(&format!("{signal}"));
        let (image, guest) = (place.image(Does::Hang), place.guest());
        let args = ["run", "--accel", "tcg", "--image", &image, "--guest", &guest, "--", "census"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_firn"));
        command.args(["kernels", "--cache", &place.path("cache")]).args(args);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("qemu never ran", || !processes_with(&image).is_empty());
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), code, "{signal}");
        until("a qemu is left", || processes_with(&image).is_empty());
    }
}

#[test]
fn without_qemu_the_package_is_named() {
    let place = Place::new("without");
    let output = place.run(Does::Hang, &[]).env("PATH", "/nonexistent").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output).contains("apt-get install --no-install-recommends qemu-system-x86"));
}

#[test]
fn bad_usage_is_told_before_anything_boots() {
    let place = Place::new("usage");
    let image = place.image(Does::Hang);
    let guest = place.guest();
    for (args, part) in [
        (&["run", "--", "census"][..], "--kernels"),
        (&["run", "--image", "/no/such/file", "--", "census"], "cannot be read"),
        (&["run", "--image", &guest, "--", "census"], "no bootable kernel"),
        (&["run", "--image", &image, "--", "dance"], "not for guests"),
        (&["run", "--image", &image, "--", "stress", "--bakend", "art"], "--bakend"),
        (&["run", "--image", &image, "--shard", "3/2", "--", "census"], "I/N"),
        (&["run", "--image", &image, "--memory", "1", "--", "census"], "1536m"),
        (&["run", "--image", &image, "-o", "/no/such/folder/x", "--", "census"], "--out"),
        (&["compare", &image], "is not JSON"),
        (&["gather", "-o", &image, &image], "is not JSON"),
    ] {
        if args[0] == "run" && !qemu() {
            return;
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_firn"));
        let cache = place.path("cache");
        let output = command.args(["kernels", "--cache", &cache]).args(args).output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(part), "{args:?}: {text}");
    }
}

#[test]
fn a_gate_skips_what_does_not_boot_and_ends_the_bisection_for_bad_usage() {
    if !qemu() {
        return;
    }
    let place = Place::new("gate");
    // A baseline as `run -o` writes it, with a census that was not made here.
    let out = place.path("base.json");
    place.run(Does::Hang, &["-o", &out]).output().unwrap();
    let mut set: Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    set["boots"][0]["outcome"] = serde_json::json!({ "kind": "ran", "code": 0 });
    set["boots"][0]["report"] = serde_json::json!({
        "schema": "firn-census-1",
        "operations": [{ "name": "UFFDIO_COPY", "cell": "v", "read": 0, "write": 0, "downgraded": 0 }],
    });
    fs::write(&out, set.to_string()).unwrap();
    let (hangs, resets) = (place.image(Does::Hang), place.image(Does::Reset));
    let (guest, cache) = (place.guest(), place.path("cache"));
    let good = "census.UFFDIO_COPY.read <= base";
    let gate = |image: &str, gate: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firn"));
        command.args(["kernels", "gate", "--image", image, "--guest", &guest, "--gate", gate]);
        command.args(["--boot-timeout", "3", "--baseline", &out]).args(more);
        command.env("XDG_CACHE_HOME", &cache);
        command
    };
    let ends = |mut command: Command, code: i32, part: &str| {
        let output = command.output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {text}");
        assert!(text.contains(part), "{command:?}: {text}");
    };
    // Of this commit: skipped.
    ends(gate(&hangs, good, &[]), 125, "did not boot in time");
    ends(gate(&resets, good, &[]), 125, "the guest ended: without a result");
    // Of the command or the machine: the bisection ends. No other code below 128 would do.
    ends(gate(&hangs, "census.UFFDIO_COPPY.read <= base", &[]), 128, "UFFDIO_COPPY");
    ends(gate(&guest, good, &[]), 128, "no bootable kernel");
    ends(gate(&hangs, good, &["--bogus"]), 128, "--bogus");
    ends(gate(&hangs, good, &["-o", "/no/such/folder/x"]), 128, "--out");
    let mut lost = gate(&hangs, good, &[]);
    lost.env_remove("XDG_CACHE_HOME").env_remove("HOME");
    ends(lost, 128, "--cache");
    let mut without = gate(&hangs, good, &[]);
    without.env("PATH", "/nonexistent");
    ends(without, 128, "apt-get install --no-install-recommends qemu-system-x86");
}

/// The recipes of the documentation.
fn recipe(name: &str) -> (String, Yaml) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/recipes").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let yaml = YamlLoader::load_from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
    (text, yaml.into_iter().next().unwrap())
}

/// The text with a 1 for everything between two marks.
fn filled(text: &str, begin: &str, end: &str) -> String {
    let mut parts = text.split(begin);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push('1');
        out.push_str(part.split_once(end).map_or("", |(_, rest)| rest));
    }
    out
}

/// Checks every command of firn in a text with the program's own parser.
fn check_commands(name: &str, text: &str) {
    // Numbers that the service or the shell fills in.
    let filled = filled(&filled(text, "${{", "}}"), "$((", "))");
    let joined = filled.replace("\\\n", " ");
    let mut found = 0;
    for line in joined.lines() {
        let Some(at) = line.find("firn ") else { continue };
        // Where a command can begin.
        let before = line[..at].trim_end();
        let begins = before.is_empty()
            || ["-", "$", "&&", "|", "--", ":", "./", "sudo", "{", "sudo ./"]
                .iter()
                .any(|b| before.ends_with(b));
        if !begins {
            continue;
        }
        let end =
            ["&&", " |", ";", " #", " }"].iter().filter_map(|stop| line[at..].find(stop)).min();
        let command = &line[at..end.map_or(line.len(), |end| at + end)];
        let words: Vec<_> = command
            .split_whitespace()
            .skip(1)
            .map(|word| word.trim_matches(['"', '\'']))
            .map(str::to_owned)
            .collect();
        firn_bench::cli::check(&words).unwrap_or_else(|e| panic!("{name}: {command}: {e}"));
        found += 1;
    }
    assert!(found > 0, "{name} has no command of firn");
}

fn number(yaml: &Yaml) -> i64 {
    yaml.as_i64().unwrap_or_else(|| panic!("{yaml:?} is no number"))
}

#[test]
fn the_matrix_of_the_ci_recipe_is_every_shard_once() {
    let (text, yaml) = recipe("github-actions.yaml");
    check_commands("github-actions.yaml", &text);
    let shards = yaml["jobs"]["boot"]["strategy"]["matrix"]["shard"].as_vec().unwrap();
    let numbers: Vec<_> = shards.iter().map(number).collect();
    assert_eq!(numbers, (1..=shards.len() as i64).collect::<Vec<_>>());
    assert!(text.contains(&format!("--shard ${{{{ matrix.shard }}}}/{}", shards.len())));
    assert_eq!(yaml["jobs"]["compare"]["needs"].as_str(), Some("boot"));
}

#[test]
fn the_kubernetes_recipe_has_as_many_shards_as_completions() {
    let (text, yaml) = recipe("kubernetes-indexed-job.yaml");
    check_commands("kubernetes-indexed-job.yaml", &text);
    assert_eq!(yaml["apiVersion"].as_str(), Some("batch/v1"));
    assert_eq!(yaml["kind"].as_str(), Some("Job"));
    let spec = &yaml["spec"];
    assert_eq!(spec["completionMode"].as_str(), Some("Indexed"));
    let completions = number(&spec["completions"]);
    assert!(number(&spec["parallelism"]) <= completions);
    // The index counts from 0, shards from 1.
    assert!(text.contains(&format!("--shard $((JOB_COMPLETION_INDEX + 1))/{completions}")));
    assert!(spec["template"]["spec"]["containers"][0]["image"].as_str().is_some());
    assert_eq!(spec["template"]["spec"]["restartPolicy"].as_str(), Some("Never"));
}

#[test]
fn the_lava_recipe_is_a_job_definition() {
    let (text, yaml) = recipe("lava-job.yaml");
    check_commands("lava-job.yaml", &text);
    for key in ["job_name", "device_type", "visibility", "priority"] {
        assert!(yaml[key].as_str().is_some(), "{key}");
    }
    assert!(!yaml["timeouts"]["job"].is_badvalue());
    let actions = yaml["actions"].as_vec().unwrap();
    let has = |what: &str| actions.iter().any(|action| !action[what].is_badvalue());
    assert!(has("deploy") && has("boot") && has("test"));
    let test = actions.iter().find(|action| !action["test"].is_badvalue()).unwrap();
    let definition = &test["test"]["definitions"][0];
    assert_eq!(definition["from"].as_str(), Some("inline"));
    assert!(!definition["repository"]["run"]["steps"].is_badvalue());
}

#[test]
fn the_commands_of_the_documentation_are_understood() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kernels.md");
    let text = fs::read_to_string(path).unwrap();
    let blocks: Vec<_> =
        text.split("```sh\n").skip(1).filter_map(|b| b.split("```").next()).collect();
    assert!(blocks.len() >= 5);
    let commands: String = blocks.concat();
    check_commands("docs/kernels.md", &commands);
}
