//! Parse, dispatch, exit code. Nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    tillstream::cli::main()
}
