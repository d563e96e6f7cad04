//! Firn's collector: concurrent marking, and compaction while the program runs.
//!
//! | module | what it holds |
//! |---|---|
//! | [`core`](mod@core) | the collector's state, allocation's slow paths, what each request means |
//! | [`safepoint`] | how mutators are made to do something once, with or without stopping them all |
//! | [`mutator`] | a mutator's buffer, handles and log |
//! | [`segments`], `stack`, [`mark`] | marking work, and marking |
//! | [`ephemerons`], `guardians` | what marking holds weakly, and what it brings back |
//! | [`mod@plan`] | from the live bitmap to new addresses |
//! | [`build`] | one to-page from its from-pages |
//! | `forward` | a reference's new address, and all of an object's |
//! | [`compact`], [`fault`] | building all of them; building those that mutators touch |
//! | `around` | what a faulting thread builds together with its page |
//! | `in_place`, `publish` | from-pages that become to-pages as they are; pages that are built elsewhere |
//! | [`install`], [`backend`] | what to do about each of the kernel's answers; the four back ends |
//! | [`cycle`], [`workers`] | the driver and its threads |
//! | [`events`] | what all reports are made of |

mod allocate;
mod around;
pub mod backend;
pub mod build;
pub mod compact;
pub mod config;
pub mod core;
pub mod cycle;
pub mod ephemerons;
pub mod events;
pub mod fault;
#[doc(hidden)]
pub mod floor;
mod forward;
mod guardians;
mod in_place;
pub mod install;
pub mod mark;
pub mod mutator;
pub mod plan;
mod publish;
mod ready;
mod roots;
pub mod safepoint;
pub mod segments;
mod stack;
mod sync;
mod verify;
pub mod workers;
