//! The figures of a run: for people, for programs, and for `docs/performance.md`.

use std::fmt::Write as _;
use std::path::Path;

use comfy_table::Table;
use reelhook::clock::{Clock, rfc3339};
use serde::{Deserialize, Serialize};

use crate::rig::criterion::{self, Criterion, Verdict, table};
use crate::rig::disk::Fsync;
use crate::rig::document;
use crate::rig::machine::Machine;
use crate::rig::numbers::{grouped, mebibytes};
use crate::rig::output::{self, Figures};

/// Of the speed of curl, `sha256sum` and `sync`.
const LEAST_SPEED: f64 = 0.8;
/// Of the time that aria2c, `sha256sum` and `sync` take.
const MOST_TIME: f64 = 1.1;
const MOST_GROWTH: u64 = 24 << 20;

/// A round of reelhook.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ours {
    pub(crate) seconds: f64,
    /// Processor time.
    pub(crate) cpu_seconds: f64,
    /// By how much its memory grew at most, in bytes.
    pub(crate) grown: u64,
}

/// A round of a downloader, `sha256sum` and `sync`, in seconds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Theirs {
    pub(crate) fetch: f64,
    pub(crate) hash: f64,
    pub(crate) sync: f64,
}

impl Theirs {
    pub(crate) fn seconds(&self) -> f64 {
        self.fetch + self.hash + self.sync
    }
}

/// Both sides, whose rounds took turns.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pair {
    files: u16,
    /// Of each file.
    bytes: u64,
    /// The other side's name and version; none if it could not be had.
    peer: Option<String>,
    pub(crate) ours: Vec<Ours>,
    pub(crate) theirs: Vec<Theirs>,
}

impl Pair {
    pub(crate) fn of(files: u16, bytes: u64, peer: Option<String>) -> Self {
        Self {
            files,
            bytes,
            peer,
            ours: Vec::new(),
            theirs: Vec::new(),
        }
    }

    fn our_seconds(&self) -> f64 {
        median(self.ours.iter().map(|round| round.seconds))
    }

    /// Our time over theirs.
    fn time_ratio(&self) -> Option<f64> {
        let theirs = (!self.theirs.is_empty()).then(|| median(self.theirs.iter().map(Theirs::seconds)))?;
        Some(self.our_seconds() / theirs)
    }

    /// The lowest and the highest of two rounds in a row.
    fn time_ratio_range(&self) -> (f64, f64) {
        let rounds = self.ours.iter().zip(&self.theirs);
        let ratios = rounds.map(|(ours, theirs)| ours.seconds / theirs.seconds());
        ratios.fold((f64::INFINITY, 0.0), |(low, high), ratio| {
            (ratio.min(low), ratio.max(high))
        })
    }

    fn grown(&self) -> u64 {
        self.ours
            .iter()
            .map(|round| round.grown)
            .max()
            .unwrap_or_default()
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Everything that a run showed; what it left out is empty.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    date: String,
    version: String,
    machine: Machine,
    fsync: Fsync,
    acceptance: Vec<Criterion>,
    pub(crate) large: Option<Pair>,
    pub(crate) many: Option<Pair>,
}

impl Report {
    /// One without any figures but those of the disk.
    pub(crate) fn new(machine: Machine, fsync: Fsync) -> Self {
        Self {
            date: rfc3339(Clock::system().now())[..10].to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine,
            fsync,
            acceptance: Vec::new(),
            large: None,
            many: None,
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
        let (large, many) = (self.large.as_ref(), self.many.as_ref());
        let speed: Verdict = large.and_then(Pair::time_ratio).map(|time| {
            let speed = 1.0 / time;
            (format!("{speed:.2}"), speed >= LEAST_SPEED)
        });
        let growth: Verdict = large.map(|pair| (mebibytes(pair.grown()), pair.grown() <= MOST_GROWTH));
        let time: Verdict = many
            .and_then(Pair::time_ratio)
            .map(|time| (format!("{time:.2}"), time <= MOST_TIME));
        self.acceptance = vec![
            Criterion::new(
                "one large file: speed over that of curl + sha256sum + sync",
                format!("≥ {LEAST_SPEED}"),
                speed,
            ),
            Criterion::new(
                "one large file: growth of memory",
                format!("≤ {}", mebibytes(MOST_GROWTH)),
                growth,
            ),
            Criterion::new(
                "many files, 16 at once: time over that of aria2c -j16 + sha256sum + sync",
                format!("≤ {MOST_TIME}"),
                time,
            ),
        ];
    }
}

impl Figures for Report {
    /// Tables, and at the end whether they show what they must.
    fn for_people(&self) -> String {
        let parts = self
            .parts()
            .map(|pair| format!("{}\n{}", title(pair), rounds(pair)));
        let parts: Vec<_> = parts.collect();
        format!(
            "{}\n\n{}",
            parts.join("\n\n"),
            criterion::acceptance(&self.acceptance)
        )
    }

    /// Renews the block of `docs/performance.md`.
    fn write(&self) -> anyhow::Result<()> {
        let machine = self
            .machine
            .sentence(&self.date, &self.version, "the host of the files");
        let mut text = format!(
            "## Downloads\n\n{machine} {}\n\n{}\n",
            self.fsync.sentence(),
            criterion::acceptance(&self.acceptance)
        );
        for pair in self.parts() {
            let _ = writeln!(text, "\n### {}\n\n{}", title(pair), rounds(pair));
        }
        text.push_str(METHOD);
        document::renew("downloads", &text)
    }
}

impl Report {
    fn parts(&self) -> impl Iterator<Item = &Pair> {
        self.large.iter().chain(&self.many)
    }
}

fn title(pair: &Pair) -> String {
    let length = mebibytes(pair.bytes);
    let what = match pair.files {
        1 => format!("One file of {length}"),
        files => format!("{} files of {length}, 16 at once", grouped(files.into())),
    };
    let Some(ratio) = pair.time_ratio() else {
        return what;
    };
    let (lowest, highest) = pair.time_ratio_range();
    format!("{what}: {ratio:.2} of the time ({lowest:.2} to {highest:.2})")
}

fn rounds(pair: &Pair) -> Table {
    let mut table = table(&["", "median", "rounds", "CPU", "memory grew"], 1);
    let each = |seconds: &mut dyn Iterator<Item = f64>| {
        let each: Vec<_> = seconds.map(|seconds| format!("{seconds:.2}")).collect();
        each.join(" ")
    };
    table.add_row([
        "reelhook".to_owned(),
        format!("{:.2} s", pair.our_seconds()),
        each(&mut pair.ours.iter().map(|round| round.seconds)),
        format!("{:.2} s", median(pair.ours.iter().map(|round| round.cpu_seconds))),
        mebibytes(pair.grown()),
    ]);
    let Some(peer) = &pair.peer else {
        return table;
    };
    let mut row = |name: &str, part: fn(&Theirs) -> f64| {
        table.add_row([
            name.to_owned(),
            format!("{:.2} s", median(pair.theirs.iter().map(part))),
            each(&mut pair.theirs.iter().map(part)),
        ]);
    };
    row(&format!("{peer} + sha256sum + sync"), Theirs::seconds);
    row(&format!("– {peer}"), |round| round.fetch);
    row("– sha256sum", |round| round.hash);
    row("– sync", |round| round.sync);
    table
}

const METHOD: &str = "
### How downloads are measured

```
cargo bench --bench downloads                                  # some minutes; prints the tables
cargo bench --bench downloads -- --write                       # renews this part of the file
cargo bench --bench downloads -- --quick                       # less of everything
cargo bench --bench downloads -- --json > figures.json         # for programs
cargo bench --bench downloads -- --from figures.json --write   # this part from those figures
```

reelhook, as it is delivered and started afresh, and the other side take turns, on the same disk, below the same
directory, with the same host: threads of the benchmark that send a sound MP4 from memory by `sendfile`. Before each round
`sync -f` leaves nothing to be written. reelhook's time runs from the callback's 200 (with many files from the first
callback, the callbacks included) until `/v1/stats` counts all files as stored: fetched, hashed, looked into, synced,
renamed, committed. Then it is killed, and its database must name every file with the right SHA-256. The other side's
time is that of the downloader, then `sha256sum` of all files, then `sync -f` of the file system. Memory is the peak of
the resident set (`VmHWM`) less what was resident just before the callback.
";
