//! The figures of a run: for people, for programs, and for `docs/performance.md` with its plots.

mod acceptance;
mod document;
mod figures;
mod plots;
mod svg;
mod tables;
mod tasks;

pub(crate) use figures::{
    Besieged, BurstPair, BurstSide, Closed, Followed, Hostile, Open, Pair, PeerFigures, Peers, Query, Side,
    Stored,
};

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use reelhook::clock::{Clock, rfc3339};
use serde::{Deserialize, Serialize};

use crate::rig;
use crate::rig::criterion::{self, Criterion};
use crate::rig::disk::Fsync;
use crate::rig::machine::Machine;
use crate::rig::output::{self, Figures};

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
    #[serde(default)]
    pub(crate) followed: Option<Followed>,
    pub(crate) stored: Vec<Stored>,
    pub(crate) peers: Option<Peers>,
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
            followed: None,
            stored: Vec::new(),
            peers: None,
        }
    }

    /// The report of an earlier run, as it was printed for programs.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let mut report: Self = output::figures(path)?;
        report.judge();
        Ok(report)
    }

    /// Holds the figures against what is demanded of them.
    pub(crate) fn judge(&mut self) {
        self.acceptance = acceptance::criteria(self);
    }
}

impl Figures for Report {
    /// Tables, and at the end whether they show what they must.
    fn for_people(&self) -> String {
        let sections: Vec<_> = document::sections(self)
            .into_iter()
            .map(|section| section.for_people())
            .collect();
        format!(
            "{}\n\n{}",
            sections.join("\n\n"),
            criterion::acceptance(&self.acceptance)
        )
    }

    /// Writes `docs/performance.md`, and the plots to `docs/performance/`.
    fn write(&self) -> anyhow::Result<()> {
        let plots = rig::document::directory().join("performance");
        fs::create_dir_all(&plots)?;
        for (name, svg) in plots::all(self) {
            fs::write(plots.join(name), svg).with_context(|| format!("{name} cannot be written"))?;
        }
        rig::document::renew("ingest", &document::document(self))
    }
}

impl Report {
    /// The closed loop at this number of connections.
    fn closed_at(&self, connections: u16) -> Option<&Closed> {
        self.closed
            .iter()
            .find(|closed| closed.connections == connections)
    }
}
