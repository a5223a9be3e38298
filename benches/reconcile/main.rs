//! A hundred thousand tasks that nothing is heard of: how fast the provider is asked, and what that costs.
//!
//! The real program, as it is delivered, asks a provider that says "still generating" to everything and counts; beside it,
//! callbacks are taken with and without the asking. `cargo bench --bench reconcile`, with `-- --help` for what can be set;
//! `-- --write` renews its block of `docs/performance.md`.

mod provider;
mod report;
#[expect(dead_code, reason = "nothing here is timed by the disk or by percentiles")]
#[path = "../rig/mod.rs"]
mod rig;
mod rounds;
#[path = "../../tests/wire/mod.rs"]
mod wire;

use anyhow::bail;
use clap::Parser as _;

use report::Report;
use rig::output::Output;

/// The provider asked about very many tasks at a limited rate
#[derive(Debug, clap::Parser)]
#[command(name = "reconcile")]
struct Args {
    /// Tasks that are announced, all due at once, in thousands
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    thousands: u32,
    /// `reconcile.max_per_second`
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// Seconds for which the asking is watched
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Rounds of callbacks with and without the asking; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=25))]
    rounds: u8,
    #[command(flatten)]
    output: Output,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// Measures, unless somebody has had enough: then everything below `target` that was made is removed again.
async fn measure(args: &Args) -> anyhow::Result<Report> {
    tokio::select! {
        report = rounds::measure(args) => report,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let report = match &args.output.from {
        Some(path) => Report::read(path)?,
        None => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(measure(&args))?,
    };
    args.output.put_out(&report)
}
