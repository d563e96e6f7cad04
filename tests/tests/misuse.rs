//! Every misuse of references and scopes that could make an address stale is refused by the compiler.
//!
//! One file in `ui/` for each; the expected messages are beside them, as given by the compiler of the
//! workspace's own Rust version.

#[test]
fn misuse_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
