//! How long people wait for a page: what the dashboard and the API answer with a million tasks stored, and with a thousand.
//!
//! The real program, as it is delivered, on two databases; requests go one after the other, in turn to the one and to the
//! other. `cargo bench --bench pages`, with `-- --help` for what can be set; `-- --write` renews its block of
//! `docs/performance.md`.

#[expect(dead_code, reason = "nothing here is counted after a round")]
#[path = "../ingest/data_dir.rs"]
mod data_dir;
#[path = "../../tests/media/mod.rs"]
mod files;
#[expect(dead_code, reason = "files are given here, never withheld")]
#[path = "../ingest/media.rs"]
mod media;
mod report;
#[expect(dead_code, reason = "no plots are drawn, and no disk is timed")]
#[path = "../rig/mod.rs"]
mod rig;
mod rounds;
#[path = "../ingest/seed.rs"]
mod seed;
#[path = "../../tests/wire/mod.rs"]
mod wire;

use anyhow::bail;
use clap::Parser as _;

use report::Report;
use rig::output::Output;

/// Pages and answers with very many tasks stored
#[derive(Debug, clap::Parser)]
#[command(name = "pages")]
struct Args {
    /// Tasks of the large database, in thousands
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    thousands: u32,
    /// Requests for each page, of each database
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(10..=10_000))]
    requests: u16,
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
