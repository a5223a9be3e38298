//! What becomes of a benchmark's figures.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What becomes of the figures.
#[derive(Debug, clap::Args)]
pub(crate) struct Output {
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Also renew its block of docs/performance.md, with its plots
    #[arg(long)]
    pub(crate) write: bool,
    /// Measure nothing: take the figures that an earlier run printed with --json
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
}

/// The figures of a benchmark.
pub(crate) trait Figures: Serialize {
    /// Tables.
    fn for_people(&self) -> String;
    /// Renews its block of docs/performance.md.
    fn write(&self) -> anyhow::Result<()>;
}

impl Output {
    /// Prints the figures, and renews the document if that was asked for.
    pub(crate) fn put_out(&self, figures: &impl Figures) -> anyhow::Result<()> {
        if self.json {
            println!("{}", serde_json::to_string_pretty(figures)?);
        } else {
            println!("{}", figures.for_people());
        }
        if self.write {
            figures.write()?;
        }
        Ok(())
    }
}

/// The figures of an earlier run, as they were printed for programs.
pub(crate) fn figures<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    serde_json::from_slice(&text).context("these are not the figures of a run")
}
