//! The figures of a run: for people, for programs, and for `docs/performance.md`.

use std::path::Path;

use comfy_table::Table;
use reelhook::clock::{Clock, rfc3339};
use serde::{Deserialize, Serialize};

use crate::Args;
use crate::rig::criterion::{self, Criterion, table};
use crate::rig::document;
use crate::rig::machine::Machine;
use crate::rig::numbers::{count, grouped, mebibytes, thousands};
use crate::rig::output::{self, Figures};

/// Of the rate that is set.
const LEAST_RATE: f64 = 0.95;
/// Questions more in a second than the rate says: one that went out late before the next in time, and those of the four
/// under way that arrive late.
const MOST_OVER: usize = 6;
const MOST_GROWTH: u64 = 8 << 20;
/// Of the callbacks a second without the asking.
const LEAST_RATIO: f64 = 0.9;

/// The asking while nothing else happens.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Asking {
    pub(crate) seconds: f64,
    pub(crate) questions: usize,
    pub(crate) most_in_a_second: usize,
    /// Resident, in bytes.
    pub(crate) memory_before: u64,
    pub(crate) memory_after: u64,
    /// Processor time.
    pub(crate) cpu_seconds: f64,
}

impl Asking {
    /// Questions a second.
    pub(crate) fn rate(&self) -> f64 {
        count(self.questions) / self.seconds
    }

    fn grown(&self) -> u64 {
        self.memory_after.saturating_sub(self.memory_before)
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
    limit: u32,
    announced_seconds: f64,
    asking: Asking,
    /// Callbacks a second of each round.
    pub(crate) with: Vec<f64>,
    pub(crate) without: Vec<f64>,
}

impl Report {
    pub(crate) fn new(machine: Machine, args: &Args, (announced_seconds, asking): (f64, Asking)) -> Self {
        Self {
            date: rfc3339(Clock::system().now())[..10].to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            debug_build: cfg!(debug_assertions),
            machine,
            acceptance: Vec::new(),
            tasks: u64::from(args.thousands) * 1_000,
            limit: args.limit,
            announced_seconds,
            asking,
            with: Vec::new(),
            without: Vec::new(),
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
        let (asking, limit) = (&self.asking, f64::from(self.limit));
        let most = usize::try_from(self.limit).unwrap_or(usize::MAX) + MOST_OVER;
        let rate = asking.rate();
        let ratio = median(&self.with) / median(&self.without);
        self.acceptance = vec![
            Criterion::new(
                "questions a second",
                format!("{:.1} to {limit}", LEAST_RATE * limit),
                Some((
                    format!("{rate:.1}"),
                    (LEAST_RATE * limit..=limit + 0.5).contains(&rate),
                )),
            ),
            Criterion::new(
                "most questions in any second",
                format!("≤ {most}"),
                Some((
                    asking.most_in_a_second.to_string(),
                    asking.most_in_a_second <= most,
                )),
            ),
            Criterion::new(
                "growth of memory meanwhile",
                format!("≤ {}", mebibytes(MOST_GROWTH)),
                Some((mebibytes(asking.grown()), asking.grown() <= MOST_GROWTH)),
            ),
            Criterion::new(
                "callbacks a second over those without the asking",
                format!("≥ {LEAST_RATIO}"),
                (!self.debug_build).then(|| (format!("{ratio:.2}"), ratio >= LEAST_RATIO)),
            ),
        ];
    }

    fn tables(&self) -> String {
        format!(
            "{}\n\n{}",
            criterion::acceptance(&self.acceptance),
            self.details()
        )
    }

    fn details(&self) -> Table {
        let asking = &self.asking;
        let mut table = table(&["", "measured"], 1);
        let rates = |rates: &[f64]| {
            let each: Vec<_> = rates.iter().map(|rate| thousands(*rate)).collect();
            each.join(" ")
        };
        table.add_row(["tasks announced and due".to_owned(), grouped(self.tasks)]);
        table.add_row([
            "– announced in".to_owned(),
            format!("{:.1} s", self.announced_seconds),
        ]);
        table.add_row([
            format!("questions in {:.0} s", asking.seconds),
            grouped(u64::try_from(asking.questions).unwrap_or(u64::MAX)),
        ]);
        table.add_row([
            "memory at the beginning".to_owned(),
            mebibytes(asking.memory_before),
        ]);
        table.add_row(["memory at the end".to_owned(), mebibytes(asking.memory_after)]);
        table.add_row([
            "share of one core".to_owned(),
            format!("{:.1} %", 100.0 * asking.cpu_seconds / asking.seconds),
        ]);
        table.add_row(["callbacks a second, each round".to_owned(), rates(&self.with)]);
        table.add_row(["– without the asking".to_owned(), rates(&self.without)]);
        table
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

impl Figures for Report {
    fn for_people(&self) -> String {
        self.tables()
    }

    /// Renews the block of `docs/performance.md`.
    fn write(&self) -> anyhow::Result<()> {
        let machine = self
            .machine
            .sentence(&self.date, &self.version, "the provider, the callers");
        let built = if self.debug_build {
            " It was built without optimisation, and says nothing of the processor's share and of callbacks a second."
        } else {
            ""
        };
        let title = format!("{} tasks that nothing is heard of", grouped(self.tasks));
        let text = format!("## {title}\n\n{machine}{built}\n\n{}\n{METHOD}", self.tables());
        document::renew("reconcile", &text)
    }
}

const METHOD: &str = "
### How the asking is measured

```
cargo bench --bench reconcile                                  # two minutes; prints the tables
cargo bench --bench reconcile -- --write                       # renews this part of the file
cargo bench --bench reconcile -- --json > figures.json         # for programs
cargo bench --bench reconcile -- --from figures.json --write   # this part from those figures
```

The tasks are announced with `POST /v1/tasks`, a thousand at a time, each to be asked about at once. The provider, in the
process of the benchmark, says that it is still at it, and notes when each question comes. `reconcile.max_per_second` is 50
and `api_queries` far above it. Five seconds after the last announcement the resident set (`VmRSS`) and the processor time
are read, and again at the end. Then the server is started anew for each round of callbacks, in turn with the key of the
provider's API and without it, when it asks nobody: 16 connections, each of which sends its next callback once the last one
was answered, to files on a host that stays silent.
";
