//! `firn doctor`: what this machine can do for a heap that compacts while the program runs, and
//! for each thing that is missing, what it costs and the exact remedy.

use std::fmt::Write;

use clap::Args;
use firn_heap::sys::probe::Machine;
use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
use crate::measure::machine::MachineReport;
use crate::stress::page::{WIDTH, wrap};
use crate::stress::report_json::Sink;
use crate::stress::units::bytes;

/// `firn doctor`.
#[derive(Debug, Clone, Default, Args)]
pub struct DoctorArgs {
    /// Also write the findings as JSON; `-` writes JSON alone to standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<std::path::PathBuf>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    /// As it should be.
    Good,
    /// Works, but slower or with less to measure.
    Lesser,
    /// The default back end does not work.
    Broken,
}

/// One thing that was looked at.
#[derive(Debug)]
struct Finding {
    what: &'static str,
    severity: Severity,
    /// What was found.
    found: String,
    /// What to do about it, unless it is good.
    remedy: Option<String>,
}

fn good(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { what, severity: Severity::Good, found: found.into(), remedy: None }
}

fn lacking(
    what: &'static str,
    severity: Severity,
    found: impl Into<String>,
    remedy: impl Into<String>,
) -> Finding {
    Finding { what, severity, found: found.into(), remedy: Some(remedy.into()) }
}

/// Looks at the machine and prints what it found.
///
/// # Errors
/// `--json` names a file that cannot be written (exit code 2).
pub fn run(args: &DoctorArgs, print: impl Fn(&str)) -> Result<Exit, Failure> {
    let sink = args.json.as_deref().map(Sink::open).transpose()?;
    let machine = Machine::probe();
    let findings = examine(&machine);
    if !matches!(sink, Some(Sink::Stdout)) {
        print(&text(&findings));
    }
    if let Some(sink) = sink {
        sink.write(&value(&machine, &findings))
            .map_err(|e| Failure::missing(format!("--json: could not be written: {e}")))?;
    }
    Ok(if worst(&findings) == Severity::Broken { Exit::Missing } else { Exit::Done })
}

fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|f| f.severity).max().unwrap_or(Severity::Good)
}

fn examine(m: &Machine) -> Vec<Finding> {
    let report = MachineReport::of(m.clone());
    let mut findings = vec![good(
        "machine",
        format!(
            "Linux {}, {} CPUs ({}), {}, pages of {}",
            report.kernel,
            report.cpus,
            report.cpu_model,
            bytes(report.memory_bytes),
            bytes(m.page_size as u64)
        ),
    )];
    findings.extend(userfaultfd(m));
    findings.push(locks(m));
    findings.push(match &m.remap_dontunmap {
        Ok(()) => good("mremap", "MREMAP_DONTUNMAP moved a page: the art back end can run"),
        Err(why) => lacking(
            "mremap",
            Severity::Lesser,
            format!("MREMAP_DONTUNMAP does not work, so no art back end: {why}"),
            "use a kernel from 5.7 on; pingpong does not need it",
        ),
    });
    findings.extend(limits(m));
    findings.push(huge_pages(m));
    findings.extend(tracing(m));
    findings
}

fn userfaultfd(m: &Machine) -> Vec<Finding> {
    let uffd = match &m.uffd {
        Ok(uffd) => uffd,
        Err(why) => {
            let seccomp = match m.seccomp {
                Ok(2) => {
                    "; this process runs under a seccomp filter, as in a container: allow \
                     userfaultfd(2) in its profile"
                }
                _ => "",
            };
            return vec![lacking(
                "userfaultfd",
                Severity::Broken,
                why.clone(),
                format!(
                    "use a kernel from 5.11 on, or run `sysctl vm.unprivileged_userfaultfd=1` as \
                     root, or give this user access to /dev/userfaultfd{seccomp}; until then \
                     --backend stw and mprotect work"
                ),
            )];
        }
    };
    let mut findings = vec![
        good("userfaultfd", format!("opened by {}", uffd.path)),
        good("features", uffd.features.to_string()),
    ];
    findings.push(match &m.sigbus {
        Ok(()) => good("sigbus", "a thread that hit a missing page built it: --fault sigbus"),
        Err(why) => lacking(
            "sigbus",
            Severity::Broken,
            format!("UFFD_FEATURE_SIGBUS does not work: {why}"),
            "use a kernel from 4.14 on, or --fault thread, where each fault wakes another thread",
        ),
    });
    findings.push(match &m.move_pages {
        Ok(()) => good("move", "UFFDIO_MOVE moved a page: pages are installed without a copy"),
        Err(why) => lacking(
            "move",
            Severity::Lesser,
            format!("UFFDIO_MOVE does not work, so pages are installed by copying: {why}"),
            "use a kernel from 6.8 on (6.18 for full speed)",
        ),
    });
    findings
}

fn locks(m: &Machine) -> Finding {
    let facts = [
        ("faults", &m.per_vma_locks),
        ("SIGBUS faults on missing pages", &m.uffd_fault_per_vma),
        ("installing pages", &m.uffd_ops_per_vma),
    ];
    let mut said = Vec::new();
    let mut all = true;
    for (what, fact) in facts {
        match fact {
            Ok(by_release) => {
                all &= by_release.expected;
                said.push(format!("{what}: {by_release}"));
            }
            Err(why) => {
                all = false;
                said.push(format!("{what}: unknown ({why})"));
            }
        }
    }
    let found = format!("without mmap_lock: {}", said.join("; "));
    if all {
        good("locks", found)
    } else {
        lacking(
            "locks",
            Severity::Lesser,
            found,
            "use a kernel from 6.9 on: neighbours that map memory delay every fault here",
        )
    }
}

fn limits(m: &Machine) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(match m.address_space_limit {
        None => good("address space", "unlimited"),
        Some(limit) => lacking(
            "address space",
            Severity::Lesser,
            format!("limited to {} (RLIMIT_AS)", bytes(limit)),
            "`ulimit -v unlimited`: a heap reserves more than twice its size in addresses",
        ),
    });
    findings.push(match &m.overcommit_memory {
        Ok(2) => lacking(
            "overcommit",
            Severity::Lesser,
            "vm.overcommit_memory is 2: reserving addresses counts as using memory",
            "`sysctl vm.overcommit_memory=0` as root",
        ),
        Ok(mode) => good("overcommit", format!("vm.overcommit_memory is {mode}")),
        Err(why) => good("overcommit", format!("not known: {why}")),
    });
    findings.push(match &m.max_map_count {
        Ok(n) if *n < 4096 => lacking(
            "mappings",
            Severity::Lesser,
            format!("vm.max_map_count is {n}"),
            "`sysctl vm.max_map_count=65530` as root: a verified heap splits mappings",
        ),
        Ok(n) => good("mappings", format!("vm.max_map_count is {n}")),
        Err(why) => good("mappings", format!("not known: {why}")),
    });
    findings
}

fn huge_pages(m: &Machine) -> Finding {
    match &m.thp {
        Ok(mode) => {
            good("huge pages", format!("THP {mode}; moving ranges switch it off for themselves"))
        }
        Err(why) => good("huge pages", format!("none: {why}")),
    }
}

fn tracing(m: &Machine) -> Vec<Finding> {
    let lock_events = m.tracing.as_ref().map_err(String::clone).and_then(|tracing| {
        let mount = tracing.mount.display();
        tracing.mmap_lock_events.clone().map(|()| format!("mmap_lock can be counted: {mount}"))
    });
    let tracepoints = match lock_events {
        Ok(found) => good("tracing", found),
        Err(why) => lacking(
            "tracing",
            Severity::Lesser,
            format!("mmap_lock cannot be counted: {why}"),
            "run as root on a kernel from 5.11 on with tracefs mounted; nothing else needs it",
        ),
    };
    let perf = match &m.perf_event_paranoid {
        Ok(level) if *level <= 1 => good("perf", format!("perf_event_paranoid is {level}")),
        Ok(level) => lacking(
            "perf",
            Severity::Lesser,
            format!("perf_event_paranoid is {level}: only root may count kernel events"),
            "`sysctl kernel.perf_event_paranoid=1` as root, to count without being root",
        ),
        Err(why) => lacking(
            "perf",
            Severity::Lesser,
            format!("no perf events: {why}"),
            "use a kernel with CONFIG_PERF_EVENTS; nothing else needs it",
        ),
    };
    vec![tracepoints, perf]
}

/// The findings, with a verdict before them.
fn text(findings: &[Finding]) -> String {
    let lesser = findings.iter().filter(|f| f.severity == Severity::Lesser).count();
    let mut out = match worst(findings) {
        Severity::Broken => {
            "This machine cannot run the default back end; see `needed` below.\n".to_owned()
        }
        Severity::Lesser => format!(
            "This machine runs the default back end; {lesser} thing{} could be better.\n",
            if lesser == 1 { "" } else { "s" }
        ),
        Severity::Good => "This machine can do everything.\n".to_owned(),
    };
    out.push('\n');
    for f in findings {
        let mark = match f.severity {
            Severity::Good => "ok",
            Severity::Lesser => "lesser",
            Severity::Broken => "needed",
        };
        entry(&mut out, &format!("{mark:<8}{:<15}", f.what), &f.found);
        if let Some(remedy) = &f.remedy {
            entry(&mut out, &" ".repeat(23), &format!("remedy: {remedy}"));
        }
    }
    out
}

/// A label, and text that is wrapped beside it in what is left of 80 columns.
fn entry(out: &mut String, label: &str, text: &str) {
    for (i, line) in wrap(text, WIDTH - label.len()).iter().enumerate() {
        let blank = " ".repeat(label.len());
        let _ = writeln!(out, "{}{line}", if i == 0 { label } else { &blank });
    }
}

fn value(m: &Machine, findings: &[Finding]) -> Value {
    json!({
        "schema": "firn-doctor-1",
        "default_backend_works": worst(findings) != Severity::Broken,
        "machine": MachineReport::of(m.clone()),
        "findings": findings.iter().map(|f| json!({
            "what": f.what,
            "severity": match f.severity {
                Severity::Good => "ok",
                Severity::Lesser => "lesser",
                Severity::Broken => "needed",
            },
            "found": f.found,
            "remedy": f.remedy,
        })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use firn_heap::sys::probe::{ByRelease, Release, Tracing};

    use super::*;

    /// A machine on which everything works, whatever this one is.
    fn machine() -> Machine {
        let mut m = Machine::probe();
        let release = |major, minor| {
            let since = Release { major, minor };
            Ok(ByRelease { expected: true, since })
        };
        m.per_vma_locks = release(6, 4);
        m.uffd_fault_per_vma = release(6, 6);
        m.uffd_ops_per_vma = release(6, 9);
        m.remap_dontunmap = Ok(());
        m.address_space_limit = None;
        m.overcommit_memory = Ok(0);
        m.max_map_count = Ok(65_530);
        m.tracing = Ok(Tracing { mount: "/tracing".into(), mmap_lock_events: Ok(()) });
        m.perf_event_paranoid = Ok(1);
        m
    }

    #[test]
    fn a_refused_userfaultfd_is_the_verdict_and_names_stw() {
        let mut m = machine();
        m.uffd = Err("userfaultfd is not available: EPERM".into());
        m.seccomp = Ok(2);
        let findings = examine(&m);
        assert_eq!(worst(&findings), Severity::Broken);
        let text = text(&findings);
        assert!(text.starts_with("This machine cannot run the default back end"));
        for part in ["--backend stw", "vm.unprivileged_userfaultfd=1", "seccomp"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn everything_that_is_missing_has_a_remedy() {
        let mut m = machine();
        m.uffd_ops_per_vma =
            Ok(ByRelease { expected: false, since: Release { major: 6, minor: 9 } });
        m.remap_dontunmap = Err("ENOSYS".into());
        m.address_space_limit = Some(1 << 30);
        m.overcommit_memory = Ok(2);
        m.max_map_count = Ok(100);
        m.tracing = Err("tracefs is not readable".into());
        m.perf_event_paranoid = Err("not readable".into());
        let findings = examine(&m);
        let lesser: Vec<_> = findings.iter().filter(|f| f.severity == Severity::Lesser).collect();
        let named: Vec<_> = lesser.iter().map(|f| f.what).collect();
        for what in
            ["locks", "mremap", "address space", "overcommit", "mappings", "tracing", "perf"]
        {
            assert!(named.contains(&what), "{what} in {named:?}");
        }
        assert!(lesser.iter().all(|f| f.remedy.is_some()));
    }

    #[test]
    fn no_line_is_wider_than_the_page() {
        let mut m = machine();
        m.uffd = Err("word ".repeat(100));
        for line in text(&examine(&m)).lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
