//! The memory under Firn: address ranges, side tables, object layouts, allocation, and every raw
//! kernel call.
//!
//! This crate knows how memory is laid out and how it is handed out; it does not know what a
//! collection cycle is. Dependencies point downwards only: `firn-gc` drives these parts through a
//! cycle, `firn` shows them to an embedder.
//!
//! | module | what it holds |
//! |---|---|
//! | [`sys`] | userfaultfd, mmap, madvise, signals, futexes, scheduling: nothing else calls the kernel's memory interface |
//! | [`layout`] | object headers and the declarative layouts that describe where references lie, and the roles that marking knows |
//! | [`blocks`] | the live bitmap and the forwarding arithmetic, one 16-byte entry for 512 bytes |
//! | [`pages`] | the page states of a compaction, and the hazards that keep a page's sources in place |
//! | [`pool`] | free, still mapped pages: a bitmap in which a word is a run |
//! | [`space`] | the ranges, their side tables and the page budget |
//! | [`large`] | the non-moving space for large plain data |
//! | [`tlab`] | thread-local bump allocation |
//! | [`table`] | zero-initialised arrays outside the heap |

pub mod blocks;
pub mod large;
pub mod layout;
pub mod pages;
pub mod pool;
mod role;
pub mod space;
mod sync;
pub mod sys;
pub mod table;
pub mod tlab;

/// Bytes in a heap word: the unit of the live bitmap, of references and of object sizes.
pub const WORD: usize = 8;

/// Words in a block, the unit of forwarding: one 64-bit word of the live bitmap.
pub const BLOCK_WORDS: usize = 64;

/// Bytes in a block.
pub const BLOCK_BYTES: usize = WORD * BLOCK_WORDS;
