//! The command `bcai`. Everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    bcai::cli::main()
}
