//! What the figures must show, and whether they do.

use std::path::Path;

use comfy_table::Table;
use reelhook::clock::{Clock, rfc3339};
use serde::{Deserialize, Serialize};

use crate::rig::criterion::{self, Criterion, table};
use crate::rig::document;
use crate::rig::machine::Machine;
use crate::rig::numbers::{grouped, mebibytes, millis, percentile, thousands};
use crate::rig::output::{self, Figures};

/// What the overview may take with a million tasks stored, in microseconds.
const MOST_US: u32 = 50_000;

/// One page, of both databases.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Page {
    name: String,
    path: String,
    pub(crate) few: Side,
    pub(crate) many: Side,
}

/// One page of one database.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Side {
    /// The first request after the start.
    pub(crate) first_us: u32,
    pub(crate) times_us: Vec<u32>,
    pub(crate) bytes: usize,
}

impl Side {
    fn percentile(&self, percent: f64) -> u32 {
        let mut sorted = self.times_us.clone();
        sorted.sort_unstable();
        percentile(&sorted, percent)
    }
}

impl Page {
    pub(crate) fn new(name: &str, path: &str) -> Self {
        Self {
            name: name.to_owned(),
            path: path.to_owned(),
            few: Side::default(),
            many: Side::default(),
        }
    }

    /// What it showed, for the progress.
    pub(crate) fn line(&self) -> String {
        let [few, many] = [&self.few, &self.many].map(|side| millis(side.percentile(50.0)));
        format!("{}: {many}, with few tasks {few}", self.name)
    }
}

/// Everything that a run showed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    date: String,
    version: String,
    /// Whether the program was built without optimisation: then its speed says nothing.
    debug_build: bool,
    machine: Machine,
    acceptance: Vec<Criterion>,
    tasks: u64,
    requests: u16,
    pub(crate) pages: Vec<Page>,
    /// Of the server with many tasks, in bytes.
    pub(crate) peak_memory: u64,
}

impl Report {
    pub(crate) fn new(machine: Machine, tasks: u64, requests: u16) -> Self {
        Self {
            date: rfc3339(Clock::system().now())[..10].to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            debug_build: cfg!(debug_assertions),
            machine,
            acceptance: Vec::new(),
            tasks,
            requests,
            pages: Vec::new(),
            peak_memory: 0,
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
        let overview = self.pages.iter().find(|page| page.path == "/");
        let verdict = overview.map(|page| {
            let p99 = page.many.percentile(99.0);
            (millis(p99), p99 < MOST_US)
        });
        let demand = format!("the overview with {} tasks, p99", grouped(self.tasks));
        let verdict = verdict.filter(|_| !self.debug_build);
        self.acceptance = vec![Criterion::new(demand, format!("< {}", millis(MOST_US)), verdict)];
    }

    fn details(&self) -> Table {
        let mut table = table(
            &[
                "",
                "bytes",
                "p50",
                "p99",
                "first",
                "p50 with 1,000 tasks",
                "ratio",
            ],
            1,
        );
        for page in &self.pages {
            let (many, few) = (page.many.percentile(50.0), page.few.percentile(50.0));
            table.add_row([
                page.name.clone(),
                thousands(f64::from(u32::try_from(page.many.bytes).unwrap_or(u32::MAX))),
                millis(many),
                millis(page.many.percentile(99.0)),
                millis(page.many.first_us),
                millis(few),
                format!("{:.1}", f64::from(many) / f64::from(few.max(1))),
            ]);
        }
        table
    }

    fn tables(&self) -> String {
        format!(
            "{}\n\n{}\n\nMost memory that the server held: {}.",
            criterion::acceptance(&self.acceptance),
            self.details(),
            mebibytes(self.peak_memory)
        )
    }
}

impl Figures for Report {
    fn for_people(&self) -> String {
        self.tables()
    }

    /// Renews the block of `docs/performance.md`.
    fn write(&self) -> anyhow::Result<()> {
        let machine = self.machine.sentence(&self.date, &self.version, "whoever asked");
        let built = if self.debug_build {
            " It was built without optimisation, so that the times say nothing."
        } else {
            ""
        };
        let title = format!("What people wait for, with {} tasks stored", grouped(self.tasks));
        let text = format!("## {title}\n\n{machine}{built}\n\n{}\n{METHOD}", self.tables());
        document::renew("pages", &text)
    }
}

const METHOD: &str = "
### How pages are measured

```
cargo bench --bench pages                                  # two minutes; prints the tables
cargo bench --bench pages -- --write                       # renews this part of the file
cargo bench --bench pages -- --json > figures.json         # for programs
cargo bench --bench pages -- --from figures.json --write   # this part from those figures
```

Two databases are filled, one with a thousand tasks, the other with very many, each with a stored film, a prompt and what
arrived; one in 997 has failed. A server runs on each. Every request is a connection of its own, and they go to the one and
to the other in turn; *first* is the first for that page after the start. Nothing is compressed.
";
