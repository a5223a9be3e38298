//! How many callbacks a second are durably acknowledged, beside the most that the same HTTP stack can answer.
//!
//! Two servers take the same callbacks in turn (A B A B …), each started fresh as a child process: the real program as it
//! is delivered, and the fixed minimal program in [`ceiling`] that stores nothing. The load comes from this process, on
//! one thread. After every round the database is counted and held against the callbacks that were answered 200.
//!
//! A run has parts, [`parts::Part`]; what they showed is a [`report::Report`]. `cargo bench --bench ingest`, with
//! `-- --help` for what can be set; `-- --peers --write` renews `docs/performance.md`.

mod ceiling;
mod data_dir;
#[path = "../../tests/media/mod.rs"]
mod files;
mod load;
mod media;
mod parts;
mod peer;
mod report;
#[path = "../rig/mod.rs"]
mod rig;
mod seed;
#[path = "../../tests/wire/mod.rs"]
mod wire;

use anyhow::bail;
use clap::Parser as _;

use parts::Part;
use report::Report;
use rig::output::Output;

/// Durable callbacks a second, beside the same HTTP stack without storage
#[derive(Debug, clap::Parser)]
#[command(name = "ingest")]
struct Args {
    /// Only these parts of a run
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    only: Vec<Part>,
    /// Also measure other receivers, and install them below target/ where they can be had
    #[arg(long)]
    peers: bool,
    /// Connections of the closed loop
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256", value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: Vec<u16>,
    /// Callbacks a second of the open loop, beside shares of what the closed loop reached
    #[arg(long, value_delimiter = ',', default_value = "1000", value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    rates: Vec<u32>,
    /// Tasks stored beforehand, e.g. 1000000,5000000
    #[arg(long, value_delimiter = ',', default_value = "1000000", value_parser = clap::value_parser!(u64).range(1000..=10_000_000))]
    stored: Vec<u64>,
    /// Readers of the live events, where there are any
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=1000))]
    readers: u16,
    /// Those of them who take nothing
    #[arg(long, default_value_t = 20)]
    stalled: u16,
    /// Measured seconds of each round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=60))]
    seconds: u8,
    /// Rounds of each server, where figures are demanded; at most 3 elsewhere. The median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=25))]
    rounds: u8,
    #[command(flatten)]
    output: Output,
    /// Be a server: how this program starts its child
    #[arg(long, hide = true)]
    server: Option<Role>,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// A server that this program can be.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Role {
    Ceiling,
}

impl Args {
    /// The parts to run, in this order.
    fn parts(&self) -> Vec<Part> {
        let wanted = |part: &Part| match part {
            _ if !self.only.is_empty() => self.only.contains(part),
            Part::Peers => self.peers,
            _ => true,
        };
        let mut parts = vec![
            Part::Closed,
            Part::Open,
            Part::Burst,
            Part::Hostile,
            Part::Followed,
            Part::Stored,
            Part::Peers,
        ];
        parts.retain(wanted);
        parts
    }
}

/// Measures, unless somebody has had enough: then everything below `target` that was made is removed again.
async fn measure(args: &Args) -> anyhow::Result<Report> {
    tokio::select! {
        report = parts::measure(args) => report,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(Role::Ceiling) = args.server {
        // As many threads as reelhook has.
        return tokio::runtime::Runtime::new()?.block_on(ceiling::serve());
    }
    let report = match &args.output.from {
        Some(path) => Report::read(path)?,
        // One thread: the load generator takes its turn on the cores and leaves the rest to the server.
        None => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(measure(&args))?,
    };
    args.output.put_out(&report)
}
