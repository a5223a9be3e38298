//! The figures of a run: for people, for programs, and for `docs/performance.md` with its plots.

mod acceptance;
mod document;
mod figures;
mod numbers;
mod plots;
mod svg;
mod tables;

pub(crate) use acceptance::Criterion;
pub(crate) use figures::{
    Besieged, BurstPair, BurstSide, Closed, Hostile, Open, Pair, PeerFigures, Peers, Query, Side, Stored,
};

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use reelhook::clock::{Clock, rfc3339};
use serde::{Deserialize, Serialize};

use crate::disk::Fsync;

/// Everything that a run showed; what it left out is empty.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    date: String,
    version: String,
    machine: Machine,
    fsync: Fsync,
    /// Measured seconds of each round.
    seconds: u8,
    acceptance: Vec<Criterion>,
    pub(crate) closed: Vec<Closed>,
    pub(crate) open: Vec<Open>,
    pub(crate) burst: Option<BurstPair>,
    #[serde(default)]
    pub(crate) hostile: Option<Hostile>,
    pub(crate) stored: Vec<Stored>,
    pub(crate) peers: Option<Peers>,
}

/// Where it was measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    cores: usize,
    cpu: String,
    kernel: String,
    /// The load average of the last minute when the run began: what else the machine had to do.
    load_before: f64,
}

impl Report {
    /// One without any figures but those of the disk.
    pub(crate) fn new(machine: Machine, fsync: Fsync, seconds: u8) -> Self {
        Self {
            date: rfc3339(Clock::system().now())[..10].to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine,
            fsync,
            seconds,
            acceptance: Vec::new(),
            closed: Vec::new(),
            open: Vec::new(),
            burst: None,
            hostile: None,
            stored: Vec::new(),
            peers: None,
        }
    }

    /// The report of an earlier run, as it was printed for programs.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let mut report: Self = serde_json::from_slice(&text).context("these are not the figures of a run")?;
        report.judge();
        Ok(report)
    }

    /// Holds the figures against what is demanded of them.
    pub(crate) fn judge(&mut self) {
        self.acceptance = acceptance::criteria(self);
    }

    /// Tables, and at the end whether they show what they must.
    pub(crate) fn for_people(&self) -> String {
        let sections: Vec<_> = document::sections(self)
            .into_iter()
            .map(|section| section.for_people())
            .collect();
        format!(
            "{}\n\n{}",
            sections.join("\n\n"),
            tables::acceptance(&self.acceptance)
        )
    }

    /// Writes `docs/performance.md`, and the plots to `docs/performance/`.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        let plots = docs.join("performance");
        fs::create_dir_all(&plots)?;
        for (name, svg) in plots::all(self) {
            fs::write(plots.join(name), svg).with_context(|| format!("{name} cannot be written"))?;
        }
        fs::write(docs.join("performance.md"), document::document(self))
            .context("docs/performance.md cannot be written")
    }

    /// The closed loop at this number of connections.
    fn closed_at(&self, connections: u16) -> Option<&Closed> {
        self.closed
            .iter()
            .find(|closed| closed.connections == connections)
    }
}

impl Machine {
    /// This one, as it is now.
    pub(crate) fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo")
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or_else(|| "unknown".to_owned(), |(_, model)| model.trim().to_owned());
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or_default(),
        }
    }
}
