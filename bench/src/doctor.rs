//! `firn doctor`: what this machine can do for a heap that compacts while the program runs, and
//! for each thing that is missing, what it costs and the exact remedy.

use std::fmt::Write;

use clap::Args;
use firn_heap::sys::probe::{Machine, UffdFacts};
use firn_heap::sys::uffd::Features;
use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
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
    let mut findings = vec![
        good(
            "machine",
            format!(
                "Linux {}, {} CPUs ({}), {}, pages of {}",
                m.kernel,
                m.cpus,
                m.cpu_model,
                bytes(m.memory_bytes),
                bytes(m.page_size as u64)
            ),
        ),
        userfaultfd(m),
    ];
    if let Ok(facts) = &m.userfaultfd {
        findings.extend(features(facts, m));
    }
    findings.push(locks(m));
    findings.push(if m.remap_dontunmap {
        good("mremap", "MREMAP_DONTUNMAP works: the art back end can run")
    } else {
        lacking(
            "mremap",
            Severity::Lesser,
            "MREMAP_DONTUNMAP does not work: no art back end",
            "use a kernel from 5.7 on; pingpong does not need it",
        )
    });
    findings.extend(limits(m));
    findings.push(huge_pages(m));
    findings.extend(tracing(m));
    findings
}

fn userfaultfd(m: &Machine) -> Finding {
    match &m.userfaultfd {
        Ok(facts) => good("userfaultfd", format!("opened by {}", facts.path)),
        Err(why) => {
            let seccomp = match m.seccomp {
                Some(2) => {
                    "; this process runs under a seccomp filter, as in a container: \
                            allow userfaultfd(2) in its profile"
                }
                _ => "",
            };
            lacking(
                "userfaultfd",
                Severity::Broken,
                why.clone(),
                format!(
                    "use a kernel from 5.11 on, or run `sysctl vm.unprivileged_userfaultfd=1` as \
                     root, or give this user access to /dev/userfaultfd{seccomp}; until then \
                     --backend stw and mprotect work"
                ),
            )
        }
    }
}

fn features(facts: &UffdFacts, m: &Machine) -> Vec<Finding> {
    let mut findings = vec![good("features", facts.features.to_string())];
    findings.push(if facts.features.contains(Features::SIGBUS) {
        good("sigbus", "a faulting thread builds its page itself: --fault sigbus")
    } else {
        lacking(
            "sigbus",
            Severity::Broken,
            "UFFD_FEATURE_SIGBUS is missing",
            "use a kernel from 4.14 on, or --fault thread, where each fault wakes another thread",
        )
    });
    findings.push(if facts.move_works {
        good("move", "UFFDIO_MOVE moved a page: pages can be installed without a copy")
    } else {
        let why = if m.kernel_version >= (6, 8) { "refused" } else { "not in this kernel" };
        lacking(
            "move",
            Severity::Lesser,
            format!("UFFDIO_MOVE is {why}: pages are installed by copying"),
            "use a kernel from 6.8 on (6.18 for full speed)",
        )
    });
    findings
}

fn locks(m: &Machine) -> Finding {
    if m.per_vma_locks && m.per_vma_userfaultfd {
        good("locks", "by its release, faults and userfaultfd take per-VMA locks, not mmap_lock")
    } else if m.per_vma_locks {
        lacking(
            "locks",
            Severity::Lesser,
            "by its release, faults take per-VMA locks, but userfaultfd takes mmap_lock",
            "use a kernel from 6.9 on: neighbours that map memory delay every page install here",
        )
    } else {
        lacking(
            "locks",
            Severity::Lesser,
            "by its release, faults and userfaultfd take mmap_lock",
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
    findings.push(match m.overcommit_memory {
        Some(2) => lacking(
            "overcommit",
            Severity::Lesser,
            "vm.overcommit_memory is 2: reserving addresses counts as using memory",
            "`sysctl vm.overcommit_memory=0` as root",
        ),
        Some(mode) => good("overcommit", format!("vm.overcommit_memory is {mode}")),
        None => good("overcommit", "vm.overcommit_memory is not readable"),
    });
    findings.push(match m.max_map_count {
        Some(n) if n < 4096 => lacking(
            "mappings",
            Severity::Lesser,
            format!("vm.max_map_count is {n}"),
            "`sysctl vm.max_map_count=65530` as root: a verified heap splits mappings",
        ),
        Some(n) => good("mappings", format!("vm.max_map_count is {n}")),
        None => good("mappings", "vm.max_map_count is not readable"),
    });
    findings
}

fn huge_pages(m: &Machine) -> Finding {
    let mode = &m.transparent_huge_pages;
    good("huge pages", format!("THP {mode}; moving ranges switch it off for themselves"))
}

fn tracing(m: &Machine) -> Vec<Finding> {
    let tracepoints = match &m.mmap_lock_tracepoints {
        Ok(()) => good("tracing", "the mmap_lock tracepoints can be read: locks can be counted"),
        Err(why) => lacking(
            "tracing",
            Severity::Lesser,
            format!("mmap_lock cannot be counted: {why}"),
            "run as root on a kernel with CONFIG_FTRACE (5.11 or later); nothing else needs it",
        ),
    };
    let perf = match m.perf_event_paranoid {
        Some(level) if level <= 1 => good("perf", format!("perf_event_paranoid is {level}")),
        Some(level) => lacking(
            "perf",
            Severity::Lesser,
            format!("perf_event_paranoid is {level}: only root may count kernel events"),
            "`sysctl kernel.perf_event_paranoid=1` as root, to count without being root",
        ),
        None => lacking(
            "perf",
            Severity::Lesser,
            "perf_event_paranoid is not readable: no perf events",
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
        "machine": crate::measure::machine::MachineReport::of(m.clone()),
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
    use super::*;

    /// A machine on which everything works, whatever this one is.
    fn machine() -> Machine {
        let mut m = Machine::probe();
        m.per_vma_locks = true;
        m.per_vma_userfaultfd = true;
        m.remap_dontunmap = true;
        m.address_space_limit = None;
        m.overcommit_memory = Some(0);
        m.max_map_count = Some(65_530);
        m.mmap_lock_tracepoints = Ok(());
        m.perf_event_paranoid = Some(1);
        m
    }

    #[test]
    fn a_refused_userfaultfd_is_the_verdict_and_names_stw() {
        let mut m = machine();
        m.userfaultfd = Err("userfaultfd is not available: EPERM".into());
        m.seccomp = Some(2);
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
        m.per_vma_userfaultfd = false;
        m.remap_dontunmap = false;
        m.address_space_limit = Some(1 << 30);
        m.overcommit_memory = Some(2);
        m.max_map_count = Some(100);
        m.mmap_lock_tracepoints = Err("tracefs is not readable".into());
        m.perf_event_paranoid = Some(3);
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
        m.userfaultfd = Err("word ".repeat(100));
        for line in text(&examine(&m)).lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
