//! The `reelhook` program: see the library for everything.

use std::process::ExitCode;

use clap::Parser as _;
use mimalloc::MiMalloc;
use reelhook::cli::Cli;

/// A callback is read on one thread and recorded on another: an allocator whose threads need no lock to free each
/// other's memory.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(cli.run()),
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            ExitCode::FAILURE
        }
    }
}
