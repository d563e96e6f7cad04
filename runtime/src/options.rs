//! Options: one table for the parser, the help text and the documentation.
//!
//! An options string is `name=value,name=value,…`; sizes take `k`, `m` or `g` (powers of 1024).

use firn_gc::config::{BackendKind, Config, FaultMode, InstallKind};
use firn_heap::sys;
use firn_heap::sys::thread::Policy;
use std::fmt::Write;

/// One option: a row of the table.
pub struct OptionSpec {
    /// Its name.
    pub name: &'static str,
    /// What values it takes.
    pub values: &'static str,
    /// One line of help.
    pub help: &'static str,
    set: fn(&mut Options, &str) -> Result<(), String>,
    show: fn(&Options) -> String,
}

/// An option was refused.
///
/// ```
/// use firn::{Options, OptionsError};
/// let error = Options::parse("heap=5").unwrap_err();
/// assert!(matches!(error, OptionsError::Value { name: "heap", .. }));
/// assert_eq!(error.to_string(), "option `heap`: `5` is out of range (allowed: 1m to 1t)");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// There is no such option.
    #[error("unknown option `{name}`; there are: {known}")]
    Unknown {
        /// What was written.
        name: String,
        /// What could have been.
        known: String,
    },
    /// The value is not allowed.
    #[error("option `{name}`: {reason} (allowed: {allowed})")]
    Value {
        /// The option.
        name: &'static str,
        /// What is wrong with the value.
        reason: String,
        /// What would be right.
        allowed: &'static str,
    },
    /// Two options exclude each other.
    #[error("{0}")]
    Conflict(String),
    /// A part of the string is not `name=value`.
    #[error("`{0}` is not of the form name=value")]
    Form(String),
}

/// How a heap is set up. Made by [`Options::default`] and changed field by field, or by name.
///
/// ```
/// use firn::Options;
/// let options = Options::parse("heap=64m,backend=pingpong,verify=true")?;
/// assert_eq!(options.heap, 64 << 20);
/// assert!(Options::parse("heap=1").unwrap_err().to_string().contains("heap"));
/// println!("{}", Options::help());
/// # Ok::<_, firn::OptionsError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// Hard maximum of the heap in bytes: both ranges, large objects and free pages together.
    pub heap: usize,
    /// Back end.
    pub backend: BackendKind,
    /// Fault delivery.
    pub fault: FaultMode,
    /// Installation; `None`: MOVE where the back end and the kernel have it.
    pub install: Option<InstallKind>,
    /// Pages installed by one call at most.
    pub batch: usize,
    /// Pages that a faulting thread publishes together, with `pingpong` and MOVE.
    pub fault_around: usize,
    /// Collector threads, the daemon included; 0: a quarter of the processors, at least one.
    pub workers: usize,
    /// Nice value of the daemon and the GC workers; `None`: inherited.
    pub daemon_nice: Option<i32>,
    /// Scheduling class of the daemon and the GC workers; `None`: inherited.
    pub daemon_policy: Option<Policy>,
    /// Processors of the daemon and the GC workers; empty: inherited.
    pub daemon_cpus: Vec<usize>,
    /// Share of the heap that is live right after a cycle, as aimed at.
    pub utilization: f64,
    /// Least free bytes aimed at after a cycle.
    pub min_free: usize,
    /// Most free bytes aimed at after a cycle.
    pub max_free: usize,
    /// The program is in the background: save memory rather than time.
    pub background: bool,
    /// Start cycles when allocation reaches the threshold.
    pub concurrent: bool,
    /// Give memory back to the kernel some time after a cycle.
    pub trim: bool,
    /// Pages at least this live, in percent, in runs, move without a copy; above 100: never.
    pub dense: usize,
    /// Bytes of an allocation chunk.
    pub tlab: usize,
    /// Plain data of at least this many bytes does not move.
    pub large_object: usize,
    /// Walk the heap before and after each cycle, and make the from-range inaccessible in between.
    pub verify: bool,
    /// Collect at every Nth allocation of each thread; 0: never.
    pub stress_every: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            heap: 256 << 20,
            backend: BackendKind::PingPong,
            fault: FaultMode::Sigbus,
            install: None,
            batch: 64,
            fault_around: 16,
            workers: 0,
            daemon_nice: None,
            daemon_policy: None,
            daemon_cpus: Vec::new(),
            utilization: 0.4,
            min_free: 32 << 20,
            max_free: usize::MAX,
            background: false,
            concurrent: true,
            trim: true,
            dense: 95,
            tlab: 256 << 10,
            large_object: 64 << 10,
            verify: false,
            stress_every: 0,
        }
    }
}

macro_rules! option {
    ($name:literal, $values:literal, $help:literal, $set:expr, $show:expr) => {
        OptionSpec { name: $name, values: $values, help: $help, set: $set, show: $show }
    };
}

fn optional<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| "unset".into(), T::to_string)
}

/// All options.
///
/// ```
/// for option in firn::OPTIONS {
///     println!("{}: {}", option.name, option.help);
/// }
/// ```
pub const OPTIONS: &[OptionSpec] = &[
    option!(
        "heap",
        "1m to 1t",
        "hard maximum of the heap",
        |o, v| size(v, 1 << 20, 1 << 40).map(|v| o.heap = v),
        |o| show_size(o.heap)
    ),
    option!(
        "backend",
        "pingpong, art, stw, mprotect",
        "how pages become missing and are installed",
        |o, v| v.parse().map(|v| o.backend = v),
        |o| o.backend.to_string()
    ),
    option!(
        "fault",
        "sigbus, thread",
        "who serves a fault: the faulting thread, or a fault thread",
        |o, v| v.parse().map(|v| o.fault = v),
        |o| o.fault.to_string()
    ),
    option!(
        "install",
        "move, copy",
        "what installs a page; unset: move for pingpong where the kernel has it",
        |o, v| v.parse().map(|v| o.install = Some(v)),
        |o| optional(&o.install)
    ),
    option!(
        "batch",
        "1 to 64",
        "pages installed by one call at most",
        |o, v| number(v, 1, 64).map(|v| o.batch = v as usize),
        |o| o.batch.to_string()
    ),
    option!(
        "fault-around",
        "1 to 64",
        "pages that a faulting thread publishes together; pingpong with move",
        |o, v| number(v, 1, 64).map(|v| o.fault_around = v as usize),
        |o| o.fault_around.to_string()
    ),
    option!(
        "workers",
        "0 to 64",
        "collector threads, the daemon included; 0: a quarter of the processors",
        |o, v| number(v, 0, 64).map(|v| o.workers = v as usize),
        |o| o.workers.to_string()
    ),
    option!(
        "daemon-nice",
        "-20 to 19",
        "nice value of the collector's threads",
        |o, v| number(v, -20, 19).map(|v| o.daemon_nice = Some(v as i32)),
        |o| optional(&o.daemon_nice)
    ),
    option!(
        "daemon-policy",
        "other, batch, idle, fifo:1-99, rr:1-99",
        "scheduling class of the collector's threads",
        |o, v| policy(v).map(|v| o.daemon_policy = Some(v)),
        |o| o.daemon_policy.map_or("unset".into(), show_policy)
    ),
    option!(
        "daemon-cpus",
        "list such as 0+2-3",
        "processors of the collector's threads",
        |o, v| cpus(v).map(|v| o.daemon_cpus = v),
        |o| if o.daemon_cpus.is_empty() { "unset".into() } else { show_cpus(&o.daemon_cpus) }
    ),
    option!(
        "utilization",
        "0.05 to 0.95",
        "live share of the heap aimed at after a cycle",
        |o, v| fraction(v, 0.05, 0.95).map(|v| o.utilization = v),
        |o| o.utilization.to_string()
    ),
    option!(
        "min-free",
        "0 to 1t",
        "least free memory aimed at after a cycle",
        |o, v| size(v, 0, 1 << 40).map(|v| o.min_free = v),
        |o| show_size(o.min_free)
    ),
    option!(
        "max-free",
        "0 to 1t",
        "most free memory aimed at after a cycle",
        |o, v| size(v, 0, 1 << 40).map(|v| o.max_free = v),
        |o| show_size(o.max_free)
    ),
    option!(
        "background",
        "true, false",
        "save memory rather than time",
        |o, v| truth(v).map(|v| o.background = v),
        |o| o.background.to_string()
    ),
    option!(
        "concurrent",
        "true, false",
        "start cycles when allocation reaches the threshold",
        |o, v| truth(v).map(|v| o.concurrent = v),
        |o| o.concurrent.to_string()
    ),
    option!(
        "trim",
        "true, false",
        "give memory back some time after a cycle",
        |o, v| truth(v).map(|v| o.trim = v),
        |o| o.trim.to_string()
    ),
    option!(
        "dense",
        "50 to 101",
        "pages at least this live (percent), in runs, move without a copy; 101: never",
        |o, v| number(v, 50, 101).map(|v| o.dense = v as usize),
        |o| o.dense.to_string()
    ),
    option!(
        "tlab",
        "64k to 256k",
        "bytes of an allocation chunk",
        |o, v| size(v, 64 << 10, 256 << 10).map(|v| o.tlab = v),
        |o| show_size(o.tlab)
    ),
    option!(
        "large-object",
        "4k to 1g",
        "plain data of at least this size does not move",
        |o, v| size(v, 4 << 10, 1 << 30).map(|v| o.large_object = v),
        |o| show_size(o.large_object)
    ),
    option!(
        "verify",
        "true, false",
        "walk the heap around each cycle; make the from-range inaccessible",
        |o, v| truth(v).map(|v| o.verify = v),
        |o| o.verify.to_string()
    ),
    option!(
        "stress-every",
        "0 to 4294967295",
        "collect at every Nth allocation of each thread; 0: never",
        |o, v| number(v, 0, u32::MAX as i64).map(|v| o.stress_every = v as u32),
        |o| o.stress_every.to_string()
    ),
];

impl Options {
    /// The defaults, changed by an options string.
    ///
    /// # Errors
    /// The first thing that is wrong with the string.
    pub fn parse(text: &str) -> Result<Options, OptionsError> {
        let mut options = Options::default();
        options.apply(text)?;
        options.check()?;
        Ok(options)
    }

    /// Applies an options string.
    ///
    /// ```
    /// let mut options = firn::Options::default();
    /// options.apply("heap=1g,daemon-nice=10")?;
    /// assert_eq!(options.daemon_nice, Some(10));
    /// # Ok::<_, firn::OptionsError>(())
    /// ```
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn apply(&mut self, text: &str) -> Result<(), OptionsError> {
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (name, value) =
                part.split_once('=').ok_or_else(|| OptionsError::Form(part.into()))?;
            self.set(name.trim(), value.trim())?;
        }
        Ok(())
    }

    /// Sets one option by name.
    ///
    /// ```
    /// let mut options = firn::Options::default();
    /// options.set("batch", "16")?;
    /// assert!(options.set("batch", "1000").unwrap_err().to_string().contains("1 to 64"));
    /// # Ok::<_, firn::OptionsError>(())
    /// ```
    ///
    /// # Errors
    /// If there is no such option, or the value is not allowed.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), OptionsError> {
        let spec = OPTIONS.iter().find(|spec| spec.name == name).ok_or_else(|| {
            let known: Vec<_> = OPTIONS.iter().map(|spec| spec.name).collect();
            OptionsError::Unknown { name: name.into(), known: known.join(", ") }
        })?;
        (spec.set)(self, value).map_err(|reason| OptionsError::Value {
            name: spec.name,
            reason,
            allowed: spec.values,
        })
    }

    /// Checks what single options cannot: that they go together.
    ///
    /// ```
    /// let mut options = firn::Options::default();
    /// options.apply("backend=stw,install=move")?; // each is allowed
    /// assert!(options.check().is_err()); // together they are not
    /// # Ok::<_, firn::OptionsError>(())
    /// ```
    ///
    /// # Errors
    /// The options that exclude each other.
    pub fn check(&self) -> Result<(), OptionsError> {
        // Fields can be set without the parser: each must be a value that the parser would take.
        let mut copy = self.clone();
        // What is as it was made needs no second look, and not all of it can be written down ("unset").
        for ((name, shown), (_, default)) in
            self.describe().into_iter().zip(Options::default().describe())
        {
            if shown != default {
                copy.set(name, &shown)?;
            }
        }
        let uffd = matches!(self.backend, BackendKind::PingPong | BackendKind::Art);
        if !uffd && (self.install.is_some() || self.fault == FaultMode::Thread) {
            return Err(OptionsError::Conflict(format!(
                "backend={} does not use userfaultfd: `fault=thread` and `install` have no meaning with it",
                self.backend
            )));
        }
        if self.min_free > self.max_free {
            return Err(OptionsError::Conflict("min-free is larger than max-free".into()));
        }
        Ok(())
    }

    /// The help text: every option with its values, its default and what it does.
    pub fn help() -> String {
        let defaults = Options::default();
        let mut text = String::new();
        for spec in OPTIONS {
            let _ = writeln!(
                text,
                "{}={}  (default {})\n    {}",
                spec.name,
                spec.values,
                (spec.show)(&defaults),
                spec.help
            );
        }
        text
    }

    /// Every option's value, in the form that [`Options::set`] takes or "unset".
    ///
    /// ```
    /// let described = firn::Options::default().describe();
    /// assert!(described.contains(&("backend", "pingpong".to_string())));
    /// ```
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        OPTIONS.iter().map(|spec| (spec.name, (spec.show)(self))).collect()
    }

    pub(crate) fn config(&self) -> Config {
        let page = sys::page_size();
        let workers = if self.workers == 0 { sys::online_cpus() / 4 } else { self.workers };
        // A chunk is at most a 64th of the heap, so that threads do not starve each other.
        let chunk = (self.tlab / page).min(self.heap / page / 64).clamp(16, 64);
        Config {
            limit: self.heap,
            backend: self.backend,
            fault: self.fault,
            install: self.install,
            batch: self.batch,
            fault_around: self.fault_around,
            workers: workers.max(1),
            dense_percent: self.dense,
            verify: self.verify,
            chunk_pages: chunk,
            large_object: self.large_object,
        }
    }

    /// Applies the collector threads' scheduling to the calling thread; returns what was refused.
    pub(crate) fn schedule(&self) -> Vec<String> {
        let mut refused = Vec::new();
        let mut note = |what: String, result: Result<(), sys::Errno>| {
            if let Err(errno) = result {
                refused.push(format!("{what}: {errno} (needs privilege, or is out of range here)"));
            }
        };
        if let Some(nice) = self.daemon_nice {
            note(format!("daemon-nice={nice}"), sys::thread::set_nice(0, nice));
        }
        if let Some(policy) = self.daemon_policy {
            note(format!("daemon-policy={policy:?}"), sys::thread::set_scheduler(policy));
        }
        if !self.daemon_cpus.is_empty() {
            note(
                format!("daemon-cpus={:?}", self.daemon_cpus),
                sys::thread::set_affinity(&self.daemon_cpus),
            );
        }
        refused
    }
}

/// Parses a size such as `64k`, `512m` or `1g`.
///
/// ```
/// assert_eq!(firn::parse_size("64k"), Some(65_536));
/// assert_eq!(firn::parse_size("2GiB"), Some(2 << 30));
/// assert_eq!(firn::parse_size("much"), None);
/// ```
pub fn parse_size(text: &str) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or(lower.strip_suffix('b')).unwrap_or(&lower);
    let (digits, shift) = match lower.chars().last()? {
        'k' => (&lower[..lower.len() - 1], 10),
        'm' => (&lower[..lower.len() - 1], 20),
        'g' => (&lower[..lower.len() - 1], 30),
        't' => (&lower[..lower.len() - 1], 40),
        _ => (lower, 0),
    };
    digits.parse::<usize>().ok()?.checked_mul(1 << shift)
}

fn show_policy(policy: Policy) -> String {
    match policy {
        Policy::Other => "other".into(),
        Policy::Batch => "batch".into(),
        Policy::Idle => "idle".into(),
        Policy::Fifo(priority) => format!("fifo:{priority}"),
        Policy::RoundRobin(priority) => format!("rr:{priority}"),
    }
}

fn show_cpus(cpus: &[usize]) -> String {
    cpus.iter().map(usize::to_string).collect::<Vec<_>>().join("+")
}

fn show_size(bytes: usize) -> String {
    match bytes {
        usize::MAX => "unlimited".into(),
        0 => "0".into(),
        b if b.is_multiple_of(1 << 30) => format!("{}g", b >> 30),
        b if b.is_multiple_of(1 << 20) => format!("{}m", b >> 20),
        b if b.is_multiple_of(1 << 10) => format!("{}k", b >> 10),
        b => b.to_string(),
    }
}

fn size(text: &str, least: usize, most: usize) -> Result<usize, String> {
    match parse_size(text) {
        Some(bytes) if (least..=most).contains(&bytes) => Ok(bytes),
        Some(_) => Err(format!("`{text}` is out of range")),
        None => Err(format!("`{text}` is not a size")),
    }
}

fn number(text: &str, least: i64, most: i64) -> Result<i64, String> {
    match text.parse::<i64>() {
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        Ok(_) => Err(format!("`{text}` is out of range")),
        Err(_) => Err(format!("`{text}` is not a whole number")),
    }
}

fn fraction(text: &str, least: f64, most: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        Ok(_) => Err(format!("`{text}` is out of range")),
        Err(_) => Err(format!("`{text}` is not a number")),
    }
}

fn truth(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("`{text}` is neither true nor false"))
}

fn policy(text: &str) -> Result<Policy, String> {
    let priority = |text: &str| number(text, 1, 99).map(|p| p as i32);
    match text.split_once(':') {
        None => match text {
            "other" => Ok(Policy::Other),
            "batch" => Ok(Policy::Batch),
            "idle" => Ok(Policy::Idle),
            _ => Err(format!("`{text}` is no scheduling class")),
        },
        Some(("fifo", p)) => priority(p).map(|p| Policy::Fifo(p as _)),
        Some(("rr", p)) => priority(p).map(|p| Policy::RoundRobin(p as _)),
        Some(_) => Err(format!("`{text}` is no scheduling class")),
    }
}

/// Processors that a mask of the kernel's interface has room for.
const PROCESSORS: usize = 1024;

fn cpus(text: &str) -> Result<Vec<usize>, String> {
    let one = |text: &str| match text.parse::<usize>() {
        Ok(number) if number < PROCESSORS => Ok(number),
        _ => Err(format!("`{text}` is no processor")),
    };
    let mut list = Vec::new();
    for part in text.split('+') {
        match part.split_once('-') {
            Some((first, last)) => list.extend(one(first)?..=one(last)?),
            None => list.push(one(part)?),
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_held_to_the_ranges_of_the_parser() {
        let refused = |options: Options, name: &str| {
            let error = options.check().expect_err(name).to_string();
            assert!(error.contains(name), "{error}");
        };
        refused(Options { batch: 100, ..Options::default() }, "batch");
        refused(Options { batch: 0, ..Options::default() }, "batch");
        refused(Options { heap: 4 << 40, ..Options::default() }, "heap");
        refused(Options { heap: usize::MAX, ..Options::default() }, "heap");
        for range in ["0-18446744073709551615", "1024", "7-4294967296"] {
            let error = Options::parse(&format!("daemon-cpus={range}")).unwrap_err().to_string();
            assert!(error.contains("daemon-cpus") && error.contains("is no processor"), "{error}");
        }
        let set = Options::parse("daemon-policy=fifo:3,daemon-cpus=0+1").unwrap();
        assert!(set.describe().contains(&("daemon-policy", "fifo:3".into())));
        assert!(set.describe().contains(&("daemon-cpus", "0+1".into())));
    }

    #[test]
    fn every_default_is_accepted_by_its_own_parser() {
        let mut options = Options::default();
        for (name, value) in Options::default().describe() {
            if value != "unset" && value != "unlimited" {
                options.set(name, &value).unwrap_or_else(|e| panic!("{name}={value}: {e}"));
            }
        }
    }

    #[test]
    fn errors_name_option_value_and_range() {
        for (text, words) in [
            ("heep=1g", ["heep", "heap"]),
            ("heap=5", ["heap", "1m to 1t"]),
            ("batch=100", ["batch", "1 to 64"]),
            ("backend=zgc", ["zgc", "mprotect"]),
            ("daemon-nice=50", ["daemon-nice", "-20 to 19"]),
            ("backend=stw,install=move", ["stw", "install"]),
            ("verify", ["verify", "name=value"]),
        ] {
            let error = Options::parse(text).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
        }
    }
}
