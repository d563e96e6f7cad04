//! The `firn` command. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    firn_bench::cli::main()
}
