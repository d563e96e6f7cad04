//! The machine that a report was made on: figures without it cannot be judged.

use firn_heap::sys::probe::{ByRelease, Fact, Machine};
use serde::Serialize;

/// What reports say of the machine.
#[derive(Debug, Clone, Serialize)]
pub struct MachineReport {
    /// Kernel release.
    pub kernel: String,
    /// Processors that the process may use.
    pub cpus: usize,
    /// The processor's name.
    pub cpu_model: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Page size in bytes.
    pub page_bytes: usize,
    /// Mode of transparent huge pages.
    pub transparent_huge_pages: String,
    /// How userfaultfd was opened; `None` if it could not be.
    pub userfaultfd: Option<String>,
    /// The features that the kernel grants, by name; why there are none if it could not be opened.
    pub features: String,
    /// Whether `UFFDIO_MOVE` works.
    pub uffdio_move: bool,
    /// Whether SIGBUS faults on a missing page avoid `mmap_lock` (by release).
    pub per_vma_locks: bool,
    /// Whether installing pages avoids `mmap_lock` (by release).
    pub per_vma_userfaultfd: bool,
}

impl MachineReport {
    /// Looks at the machine; a few milliseconds.
    pub fn probe() -> MachineReport {
        MachineReport::of(Machine::probe())
    }

    /// What reports say of a machine that was probed.
    pub fn of(machine: Machine) -> MachineReport {
        let unknown = || "unknown".to_owned();
        let (userfaultfd, features) = match &machine.uffd {
            Ok(uffd) => (Some(uffd.path.to_string()), uffd.features.to_string()),
            Err(why) => (None, why.clone()),
        };
        let expected = |fact: &Fact<ByRelease>| fact.as_ref().is_ok_and(|f| f.expected);
        MachineReport {
            kernel: machine.kernel.unwrap_or_else(|_| unknown()),
            cpus: machine.cpus_allowed.unwrap_or(machine.cpus_online),
            cpu_model: cpu_model().unwrap_or_else(unknown),
            memory_bytes: machine.memory_bytes.unwrap_or(0),
            page_bytes: machine.page_size,
            transparent_huge_pages: machine.thp.unwrap_or_else(|_| unknown()),
            userfaultfd,
            features,
            uffdio_move: machine.move_pages.is_ok(),
            per_vma_locks: expected(&machine.uffd_fault_per_vma),
            per_vma_userfaultfd: expected(&machine.uffd_ops_per_vma),
        }
    }
}

/// The processor's name, where the kernel tells it (not on every architecture).
fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
