//! `docs/performance.md`: the ratios first, then part for part, then how it was measured.

use std::fmt::Write as _;

use comfy_table::Table;

use super::tasks::tasks;
use super::{BurstPair, Closed, Followed, Hostile, Open, Peers, Report, Stored, plots, tables};
use crate::rig::criterion;
use crate::rig::numbers::{grouped, mebibytes, millis, thousands};

/// What one part showed.
pub(super) struct Section {
    title: String,
    /// The plot's file, and what it shows in words.
    plot: Option<(&'static str, &'static str)>,
    before: String,
    tables: Vec<Table>,
    after: String,
}

impl Section {
    pub(super) fn for_people(&self) -> String {
        let mut blocks = vec![self.title.clone()];
        blocks.extend(self.tables.iter().map(Table::to_string));
        blocks.join("\n")
    }

    fn for_the_document(&self) -> String {
        let mut blocks = vec![format!("## {}", self.title)];
        if !self.before.is_empty() {
            blocks.push(self.before.clone());
        }
        if let Some((file, words)) = self.plot {
            blocks.push(format!("![{words}](performance/{file})"));
        }
        blocks.extend(self.tables.iter().map(Table::to_string));
        if !self.after.is_empty() {
            blocks.push(self.after.clone());
        }
        blocks.join("\n\n")
    }
}

/// Of all parts that were run.
pub(super) fn sections(report: &Report) -> Vec<Section> {
    let mut sections = Vec::new();
    if !report.closed.is_empty() {
        sections.push(closed(&report.closed));
    }
    if !report.open.is_empty() {
        sections.push(open(&report.open));
    }
    sections.extend(report.burst.as_ref().map(burst));
    sections.extend(report.hostile.as_ref().map(hostile));
    sections.extend(report.followed.as_ref().map(followed));
    sections.extend(report.stored.iter().map(stored));
    sections.extend(report.peers.as_ref().map(peers));
    sections
}

pub(super) fn document(report: &Report) -> String {
    let mut text = String::new();
    for headline in headlines(report) {
        let _ = writeln!(text, "- {headline}");
    }
    let machine = report
        .machine
        .sentence(&report.date, &report.version, "the load generator");
    let _ = writeln!(text, "\n{machine} {}\n", report.fsync.sentence());
    let _ = writeln!(text, "{}\n", criterion::acceptance(&report.acceptance));
    for section in sections(report) {
        let _ = writeln!(text, "{}\n", section.for_the_document());
    }
    text.push_str(METHOD);
    text
}

fn headlines(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(closed) = report.closed_at(64) {
        let (lowest, highest) = closed.pair.ratio_range();
        lines.push(format!(
            "**Ratio {:.2}** ({lowest:.2} to {highest:.2}): at 64 connections {} callbacks a second are durably \
             acknowledged, where the same HTTP stack without storage answers {}.",
            closed.pair.ratio(),
            thousands(closed.pair.reelhook.per_second),
            thousands(closed.pair.ceiling.per_second)
        ));
    }
    for stored in &report.stored {
        lines.push(format!(
            "**{:.2} of that rate** with {} tasks stored; ready {} after the start.",
            stored.kept_rate(),
            tasks(stored.tasks),
            millis(stored.slowest_start_us())
        ));
    }
    if let Some(peers) = &report.peers {
        let durable = peers.others.iter().filter(|peer| peer.checked);
        let faster = durable.map(|peer| {
            let times = peers.reelhook.per_second / peer.side.per_second;
            format!("{times:.1} times {}", peer.name)
        });
        let faster: Vec<_> = faster.collect();
        if !faster.is_empty() {
            lines.push(format!("**Among the durable:** {}.", faster.join(", ")));
        }
    }
    lines
}

fn closed(closed: &[Closed]) -> Section {
    let acknowledged = closed
        .iter()
        .map(|closed| closed.pair.reelhook.acknowledged)
        .sum();
    Section {
        title: "The most that can be had".to_owned(),
        plot: Some((plots::THROUGHPUT, "Callbacks a second by connections, reelhook beside the ceiling")),
        before: "Closed loop: every connection sends its next callback once the last one was answered. Medians over the \
                 rounds; the ratio is that of the medians, in parentheses the extremes of two rounds in a row."
            .to_owned(),
        tables: vec![tables::closed(closed)],
        after: format!(
            "{} callbacks were answered 200, and as many deliveries, tasks and queued downloads were in the databases \
             after SIGKILL.",
            grouped(acknowledged)
        ),
    }
}

fn open(open: &[Open]) -> Section {
    Section {
        title: "What a callback waits".to_owned(),
        plot: Some((plots::LATENCY, "Latency percentiles by rate, reelhook beside the ceiling")),
        before: "Open loop: callbacks are due at a fixed rate whether or not earlier ones were answered, and latency \
                 counts from the instant a callback was due. The shares are those of reelhook's own rate in the closed \
                 loop at 64 connections."
            .to_owned(),
        tables: vec![tables::open(open)],
        after: String::new(),
    }
}

fn burst(burst: &BurstPair) -> Section {
    Section {
        title: format!("{} at once", burst.size),
        plot: None,
        before: format!(
            "Silence, then {} callbacks at the same instant, each on a connection of its own; {} times.",
            burst.size, burst.times
        ),
        tables: vec![tables::burst(burst)],
        after: String::new(),
    }
}

fn hostile(hostile: &Hostile) -> Section {
    Section {
        title: "Under attack".to_owned(),
        plot: None,
        before: format!(
            "Open loop, {} good callbacks a second, while outsiders hold sockets open (a third idle, a third with half a \
             head, a third with all but the last byte of a body; new ones for those that are closed), or send badly signed \
             callbacks on 64 connections as fast as they are refused.",
            hostile.per_second
        ),
        tables: vec![tables::hostile(hostile)],
        after: String::new(),
    }
}

fn followed(followed: &Followed) -> Section {
    Section {
        title: "While others watch".to_owned(),
        plot: None,
        before: format!(
            "Open loop, {} callbacks a second, while {} read the live events on this machine, {} of whom take nothing; and while \
             nobody does, in turn.",
            followed.per_second, followed.readers, followed.stalled
        ),
        tables: vec![tables::followed(followed)],
        after: format!(
            "**Ratio {:.2}** of the p99. The readers were told {} events in all, {} each of the {} who read.",
            followed.ratio(),
            grouped(followed.events),
            mebibytes(followed.bytes / u64::from(followed.readers - followed.stalled)),
            followed.readers - followed.stalled
        ),
    }
}

fn stored(stored: &Stored) -> Section {
    Section {
        title: format!("With {} tasks stored", tasks(stored.tasks)),
        plot: None,
        before: "Each task with its delivery, body, outcome and stored file; ready when `/readyz` answers 200 for the first \
                 time, with the database in the page cache."
            .to_owned(),
        tables: vec![tables::stored(stored), tables::starts(stored), tables::queries(stored)],
        after: String::new(),
    }
}

fn peers(peers: &Peers) -> Section {
    let mut after = String::from(
        "Peers that keep something were killed and counted like reelhook. All are one process with the tool's defaults for \
         production, reelhook included; each commit of theirs is one callback, as their libraries suggest. What they are \
         spared: state, repeats that differ, and the queue of files. Their sources are in `benches/ingest/peers/`; memory is \
         that of the process without its children.\n",
    );
    for peer in &peers.others {
        let _ = write!(after, "\n- {}: {}", peer.name, peer.version);
    }
    for missing in &peers.missing {
        let _ = write!(after, "\n- {missing}");
    }
    Section {
        title: "Beside other receivers".to_owned(),
        plot: Some((plots::PEERS, "Callbacks a second of reelhook and other receivers")),
        before: "The same callbacks in the same run, closed loop, 64 connections.".to_owned(),
        tables: vec![tables::peers(peers)],
        after,
    }
}

const METHOD: &str = "\
## How it is measured

```
cargo bench --bench ingest                                  # about ten minutes; prints the tables
cargo bench --bench ingest -- --peers --write               # with the other receivers; renews this file and its plots
cargo bench --bench ingest -- --only closed --rounds 3      # a part
cargo bench --bench ingest -- --json > figures.json         # for programs
cargo bench --bench ingest -- --from figures.json --write   # this file from those figures
```

All servers are child processes and get the same requests over loopback, from one thread of the benchmark: signed Veo
callbacks of about 700 bytes, each about a new task with one file to fetch. Every round starts its server afresh, and
rounds of different servers take turns. Each connection has a callback answered before the round begins, and half a second
of load passes before the measured time does. reelhook runs as it is delivered, logs included (written, not kept). The host of
the files takes one connection and stays silent, so every callback is recorded with its task, its outcome and its queued
download, and no fetching disturbs the measurement. After every round the server is killed, and its database must hold
exactly what was answered 200.

The ceiling (`benches/ingest/ceiling.rs`) parses, verifies and answers on the same axum, hyper and tokio, and stores
nothing; it stays as it is, so that its ratio can be compared over time and machines. Absolute figures depend on the
machine, the ratio much less.

Stored tasks are seeded by SQL after the pattern of one that the server received and downloaded itself, with random ids.
";
