//! Parse, dispatch, exit code. Nothing else.

use std::process::ExitCode;

/// Events become many small strings on several threads, which the system's allocator makes wait for one another.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tillstream::cli::main()
}
