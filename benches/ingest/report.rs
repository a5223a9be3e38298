//! The figures: for people, for programs, and for `docs/performance.md`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use reelhook::clock::{Clock, rfc3339};
use serde::Serialize;

use crate::disk::Fsync;
use crate::load::{Load, Measured, count, percentile};

/// Everything that a run showed.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Durable callbacks a second over those of the ceiling: the median of one over the median of the other.
    ratio: f64,
    /// The lowest and the highest ratio of two rounds that followed each other.
    ratio_range: (f64, f64),
    connections: u16,
    seconds: u64,
    reelhook: Side,
    ceiling: Side,
    fsync: Fsync,
    machine: Machine,
    date: String,
    version: &'static str,
}

/// One server: the medians over its rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Side {
    per_second: f64,
    p50_us: u32,
    p99_us: u32,
    p999_us: u32,
    cpu_us: f64,
    peak_memory: u64,
    /// All callbacks answered 200; for reelhook, each was found in its database afterwards.
    acknowledged: u64,
    rounds: Vec<f64>,
}

/// Both servers.
#[derive(Debug)]
pub(crate) struct Sides {
    pub(crate) reelhook: Side,
    pub(crate) ceiling: Side,
}

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cores: usize,
    cpu: String,
    kernel: String,
    /// The load average of the last minute when the run began: what else the machine had to do.
    load_before: f64,
}

impl Side {
    pub(crate) fn of(rounds: &[Measured]) -> Self {
        let at = |percent| {
            median(
                rounds
                    .iter()
                    .map(|round| percentile(&round.latencies_us, percent)),
            )
        };
        Self {
            per_second: median_f64(rounds.iter().map(Measured::per_second)),
            p50_us: at(50.0),
            p99_us: at(99.0),
            p999_us: at(99.9),
            cpu_us: median_f64(rounds.iter().map(|round| round.cpu_us)),
            peak_memory: rounds
                .iter()
                .map(|round| round.peak_memory)
                .max()
                .unwrap_or_default(),
            acknowledged: rounds.iter().map(|round| round.acknowledged).sum(),
            rounds: rounds.iter().map(Measured::per_second).collect(),
        }
    }

    fn row(&self, name: &str) -> Vec<String> {
        vec![
            name.to_owned(),
            thousands(self.per_second),
            millis(self.p50_us),
            millis(self.p99_us),
            millis(self.p999_us),
            format!("{:.0} µs", self.cpu_us),
            format!("{} MiB", self.peak_memory >> 20),
        ]
    }
}

impl Report {
    pub(crate) fn new(machine: Machine, load: &Load, fsync: Fsync, sides: Sides) -> Self {
        let Sides { reelhook, ceiling } = sides;
        let pairs = || {
            reelhook
                .rounds
                .iter()
                .zip(&ceiling.rounds)
                .map(|(ours, theirs)| ours / theirs)
        };
        Self {
            ratio: reelhook.per_second / ceiling.per_second,
            ratio_range: (pairs().fold(f64::MAX, f64::min), pairs().fold(0.0, f64::max)),
            connections: load.connections,
            seconds: load.measured.as_secs(),
            fsync,
            machine,
            date: rfc3339(Clock::system().now())[..10].to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            reelhook,
            ceiling,
        }
    }

    /// The ratio, the table, the disk.
    pub(crate) fn for_people(&self) -> String {
        format!("{}\n\n{}\n\n{}", self.headline(), self.table(), self.disk())
    }

    /// Writes `docs/performance.md`.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
        fs::create_dir_all(path.parent().expect("it has one"))?;
        fs::write(&path, self.document()).context("docs/performance.md cannot be written")
    }

    fn headline(&self) -> String {
        let (lowest, highest) = self.ratio_range;
        format!(
            "Ratio {:.2} ({lowest:.2} to {highest:.2}): {} callbacks a second durably acknowledged, where the same \
             HTTP stack without storage answers {}.",
            self.ratio,
            thousands(self.reelhook.per_second),
            thousands(self.ceiling.per_second)
        )
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        let header = [
            "",
            "callbacks/s",
            "p50",
            "p99",
            "p99.9",
            "CPU each",
            "peak memory",
        ];
        table.set_header(header);
        table.add_row(self.reelhook.row("reelhook, durable"));
        table.add_row(self.ceiling.row("ceiling, no storage"));
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    fn disk(&self) -> String {
        format!(
            "The disk takes {} (p99 {}) for 4 KiB appended with fdatasync.",
            millis(self.fsync.p50_us),
            millis(self.fsync.p99_us)
        )
    }

    fn document(&self) -> String {
        let Machine {
            cores,
            cpu,
            kernel,
            load_before,
        } = &self.machine;
        let mut text = String::from("# Performance\n\n");
        let _ = writeln!(text, "{}\n\n{}\n", self.headline(), self.table());
        let _ = writeln!(text, "{}\n", self.disk());
        let _ = writeln!(
            text,
            "Measured on {} with reelhook {} on {cores} cores ({cpu}), shared with the load generator and with \
             whatever else ran (load average {load_before} before the run); Linux {kernel}.\n",
            self.date, self.version
        );
        let _ = writeln!(
            text,
            "{} connections in a closed loop for {} s, median of {} rounds in turn with the ceiling's: {} callbacks \
             answered 200, and as many deliveries, tasks and queued downloads found in the databases after SIGKILL.\n",
            self.connections,
            self.seconds,
            self.reelhook.rounds.len(),
            thousands(count(
                usize::try_from(self.reelhook.acknowledged).unwrap_or(usize::MAX)
            ))
        );
        text.push_str(METHOD);
        text
    }
}

const METHOD: &str = "\
## How it is measured

```
cargo bench --bench ingest              # prints the table
cargo bench --bench ingest -- --json    # the same for programs
cargo bench --bench ingest -- --write   # renews this file
```

Both servers are child processes and get the same requests over loopback: signed Veo callbacks of about 700 bytes, each
about a new task with one file to fetch. reelhook runs as it is delivered, logs included (written, not kept). The host of
the files takes one connection and stays silent, so every callback is recorded with its task, its outcome and its queued
download, and no fetching disturbs the measurement. The ceiling (`benches/ingest/ceiling.rs`) parses, verifies and answers
on the same axum, hyper and tokio, and stores nothing; it stays as it is, so that its ratio can be compared over time
and machines. Absolute figures depend on the machine, the ratio much less.
";

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

fn median(values: impl Iterator<Item = u32>) -> u32 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn median_f64(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// `12,345`.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Microseconds as milliseconds with two digits.
fn millis(us: u32) -> String {
    format!("{:.2} ms", f64::from(us) / 1000.0)
}
