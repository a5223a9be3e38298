//! How fast announced files are fetched, checked and safely stored, beside the usual tools.
//!
//! Two parts, [`Part`]: one large file, and many small ones. In each the real program, started afresh, and a downloader
//! followed by `sha256sum` and `sync` take turns (A B A B …) on the same disk, with the same host, whose answers cost next
//! to nothing. `cargo bench --bench downloads`, with `-- --help` for what can be set; `-- --write` renews its block of
//! `docs/performance.md`.

#[expect(dead_code, reason = "no film here is made whole")]
#[path = "../../tests/media/mod.rs"]
mod files;
mod film;
mod host;
mod peer;
mod report;
#[path = "../rig/mod.rs"]
mod rig;
mod rounds;
#[path = "../../tests/wire/mod.rs"]
mod wire;

use anyhow::bail;
use bytesize::ByteSize;
use clap::Parser as _;

use report::Report;
use rig::output::Output;

/// Files fetched, hashed and synced, beside curl and aria2c
#[derive(Debug, clap::Parser)]
#[command(name = "downloads")]
struct Args {
    /// Only these parts of a run
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    only: Vec<Part>,
    /// A small run: 64 MiB, 32 files, one round, unless said otherwise
    #[arg(long)]
    quick: bool,
    /// The length of the large file [default: 2GiB]
    #[arg(long, value_parser = length)]
    bytes: Option<u64>,
    /// How many small files, of 2 MiB each [default: 500]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    files: Option<u16>,
    /// Rounds of each side; the median counts [default: 5]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=25))]
    rounds: Option<u8>,
    #[command(flatten)]
    output: Output,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// One file of `--bytes`
    Large,
    /// `--files` of 2 MiB, 16 at once
    Many,
}

/// A length such as `2GiB`, for which the film's index has room.
fn length(text: &str) -> Result<u64, String> {
    let ByteSize(bytes) = text.parse()?;
    if (1 << 20..1 << 32).contains(&bytes) {
        return Ok(bytes);
    }
    Err("at least 1MiB and less than 4GiB".to_owned())
}

impl Args {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// What was asked for, else the value of a small run or of a usual one.
    fn or<T>(&self, asked: Option<T>, quick: T, usual: T) -> T {
        asked.unwrap_or(if self.quick { quick } else { usual })
    }
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
