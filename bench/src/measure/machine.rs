//! The machine that a report was made on: figures without it cannot be judged.

use firn_heap::sys::probe::Machine;
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
    /// Whether page faults take the per-VMA lock (by release).
    pub per_vma_locks: bool,
    /// Whether userfaultfd's operations take the per-VMA lock (by release).
    pub per_vma_userfaultfd: bool,
}

impl MachineReport {
    /// Looks at the machine; a few milliseconds.
    pub fn probe() -> MachineReport {
        MachineReport::of(Machine::probe())
    }

    /// What reports say of a machine that was probed.
    pub fn of(machine: Machine) -> MachineReport {
        let (userfaultfd, features, uffdio_move) = match machine.userfaultfd {
            Ok(facts) => {
                (Some(facts.path.to_string()), facts.features.to_string(), facts.move_works)
            }
            Err(why) => (None, why, false),
        };
        MachineReport {
            kernel: machine.kernel,
            cpus: machine.cpus,
            cpu_model: machine.cpu_model,
            memory_bytes: machine.memory_bytes,
            page_bytes: machine.page_size,
            transparent_huge_pages: machine.transparent_huge_pages,
            userfaultfd,
            features,
            uffdio_move,
            per_vma_locks: machine.per_vma_locks,
            per_vma_userfaultfd: machine.per_vma_userfaultfd,
        }
    }
}
