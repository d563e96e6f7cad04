//! **Firn**: a managed heap for Linux that compacts while the program runs, through userfaultfd.
//!
//! Embed it in a language runtime or a program with many objects: describe heap types by
//! `#[derive(Trace)]`, attach threads, allocate. A daemon thread collects and compacts concurrently; mutators
//! keep running, without a read barrier, and build the pages they need themselves.
//!
//! ```
//! use firn::{Heap, Options, Trace};
//!
//! #[derive(Trace)]
//! struct Point { x: f64, y: f64 }
//!
//! let heap = Heap::new(&Options::parse("heap=32m")?)?;
//! heap.attach(|cx| {
//!     let point = cx.alloc(Point { x: 3.0, y: 4.0 })?;
//!     cx.collect(); // the point moves; the `Local` follows
//!     let point = point.get(cx);
//!     assert_eq!(point.x.hypot(point.y), 5.0);
//!     Ok::<_, firn::OutOfMemory>(())
//! })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! The rule that makes it safe: a **shared** borrow of the [`Scope`] cannot collect, an **exclusive** one may.
//! [`Gc`] is an address between two safepoints, [`Local`] a root in a scope, [`Root`] a root for ever.

// The derive names this crate by its public name, here too.
extern crate self as firn;

mod array;
mod daemon;
mod elements;
mod field;
mod guardian;
mod heap;
mod nogc;
mod options;
mod policy;
mod reference;
mod root;
mod scope;
mod trace;
mod weak;

pub use array::{DataArray, Downcast, Object, Plain, RefArray, TaggedArray};
pub use field::{Field, Tagged, TypedTag, Value, WordRule};
pub use firn_derive::Trace;
pub use firn_gc::config::{BackendKind, FaultMode, FaultOutcome, InstallKind};
pub use firn_gc::events;
pub use firn_gc::events::{CycleSummary, Event, Listener};
#[doc(hidden)]
pub use firn_gc::floor;
pub use firn_heap::layout::TagRule;
pub use firn_heap::sys::thread::Policy as SchedulingPolicy;
pub use guardian::{Guardian, TaggedGuardian};
pub use heap::{AttachError, Heap, HeapError, OutOfMemory, Setup, Stats};
pub use nogc::{Fresh, NoGc};
pub use options::{OPTIONS, OptionSpec, Options, OptionsError, parse_size};
pub use reference::{Gc, Local, Var};
pub use root::Root;
pub use scope::Scope;
pub use trace::{Extends, HeapField, LayoutCell, Slots, Trace};
pub use weak::{Ephemeron, TaggedEphemeron, Weak};
