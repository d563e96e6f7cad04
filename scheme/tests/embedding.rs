//! `docs/embedding.md` compiles and runs: its pieces of code are one program, which this file is made of.

#![allow(missing_docs)]

// The build script of the page: its Rust pieces, one after the other, as one module.
mod page {
    include!(concat!(env!("OUT_DIR"), "/embedding.rs"));

    #[test]
    fn the_program_of_the_embedding_page_runs() {
        main().expect("the program runs");
    }
}
