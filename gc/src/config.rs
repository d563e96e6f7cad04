//! What can be chosen about a collector: the back end and the axes of comparison.

use std::str::FromStr;

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// All values, in the order of the documentation.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// The name in options and reports.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<$name, String> {
                $name::ALL.iter().copied().find(|v| v.name() == text).ok_or_else(|| {
                    let names: Vec<_> = $name::ALL.iter().map(|v| v.name()).collect();
                    format!("`{text}` is not one of {}", names.join(", "))
                })
            }
        }
    };
}

choice! {
    /// How to-pages become missing and how they are installed.
    BackendKind {
        /// Two ranges registered for ever; a cycle moves from one to the other.
        PingPong = "pingpong",
        /// `mremap(DONTUNMAP)` and registration in the pause, as ART does.
        Art = "art",
        /// Everything in the pause, without userfaultfd.
        Stw = "stw",
        /// `mprotect(PROT_NONE)` and SIGSEGV.
        Mprotect = "mprotect",
    }
}

choice! {
    /// Who serves a fault.
    FaultMode {
        /// The faulting thread itself, in a SIGBUS handler.
        Sigbus = "sigbus",
        /// A thread that reads faults from the descriptor.
        Thread = "thread",
    }
}

choice! {
    /// What installs a page.
    InstallKind {
        /// `UFFDIO_MOVE` of pages built in recycled memory.
        Move = "move",
        /// `UFFDIO_COPY` from a buffer.
        Copy = "copy",
    }
}

choice! {
    /// What a faulting thread did.
    FaultOutcome {
        /// It built the page.
        Built = "built it",
        /// Somebody else had claimed the page; it built or moved it nevertheless.
        Helped = "helped",
        /// Somebody else published the page while it spun.
        Waited = "waited",
        /// The page was there before the handler looked.
        AlreadyMapped = "already mapped",
    }
}

/// A collector's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The heap's maximum in bytes.
    pub limit: usize,
    /// Back end.
    pub backend: BackendKind,
    /// Fault delivery.
    pub fault: FaultMode,
    /// Installation; `None`: MOVE where the kernel has it.
    pub install: Option<InstallKind>,
    /// Most pages installed by one call (1 to 64).
    pub batch: usize,
    /// Pages that a faulting thread publishes together, where the back end does that (1 to 64).
    pub fault_around: usize,
    /// Collector threads, the daemon included.
    pub workers: usize,
    /// Pages at least this live, in percent, in long enough runs move without a copy; above 100: never.
    pub dense_percent: usize,
    /// Walk the heap before and after each cycle, and make the from-range inaccessible in between.
    pub verify: bool,
    /// Pages in an allocation chunk (1 to 64).
    pub chunk_pages: usize,
    /// Plain data objects of at least this many bytes do not move.
    pub large_object: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            limit: 256 << 20,
            backend: BackendKind::PingPong,
            fault: FaultMode::Sigbus,
            install: None,
            batch: 64,
            fault_around: 16,
            workers: 1,
            dense_percent: 95,
            verify: false,
            chunk_pages: 64,
            large_object: 64 << 10,
        }
    }
}
