//! The tables, the same for people and in the document.

use comfy_table::Table;

use super::tasks::tasks;
use super::{BurstPair, BurstSide, Closed, Followed, Hostile, Open, Peers, Side, Stored};
use crate::rig::criterion::table;
use crate::rig::numbers::{mebibytes, millis, thousands};

pub(super) fn closed(closed: &[Closed]) -> Table {
    let header = [
        "connections",
        "ratio",
        "",
        "callbacks/s",
        "p50",
        "p99",
        "p99.9",
        "longest",
        "CPU each",
        "memory",
    ];
    let mut table = table(&header, 0);
    for Closed { connections, pair } in closed {
        let (lowest, highest) = pair.ratio_range();
        let ratio = format!("**{:.2}** ({lowest:.2}–{highest:.2})", pair.ratio());
        table.add_row(closed_row(
            [connections.to_string(), ratio],
            "reelhook",
            &pair.reelhook,
        ));
        table.add_row(closed_row(
            [String::new(), String::new()],
            "ceiling",
            &pair.ceiling,
        ));
    }
    table
}

fn closed_row([connections, ratio]: [String; 2], name: &str, side: &Side) -> Vec<String> {
    let mut row = vec![connections, ratio, name.to_owned(), thousands(side.per_second)];
    row.extend(latencies(side));
    row.push(millis(side.max_us));
    row.push(cpu(side));
    row.push(mebibytes(side.peak_memory));
    row
}

fn latencies(side: &Side) -> [String; 3] {
    [side.p50_us, side.p99_us, side.p999_us].map(millis)
}

fn cpu(side: &Side) -> String {
    format!("{:.0} µs", side.cpu_us)
}

pub(super) fn open(open: &[Open]) -> Table {
    let header = [
        "callbacks/s",
        "of the most",
        "",
        "p50",
        "p99",
        "p99.9",
        "longest",
        "CPU each",
    ];
    let mut table = table(&header, 0);
    for Open {
        per_second,
        share,
        pair,
    } in open
    {
        let share = share.map_or_else(|| "–".to_owned(), |share| format!("{share} %"));
        let rate = thousands(f64::from(*per_second));
        table.add_row(open_row([rate, share], "reelhook", &pair.reelhook));
        table.add_row(open_row([String::new(), String::new()], "ceiling", &pair.ceiling));
    }
    table
}

fn open_row([rate, share]: [String; 2], name: &str, side: &Side) -> Vec<String> {
    let mut row = vec![rate, share, name.to_owned()];
    row.extend(latencies(side));
    row.push(millis(side.max_us));
    row.push(cpu(side));
    row
}

pub(super) fn burst(burst: &BurstPair) -> Table {
    let header = [
        "",
        "all answered, median",
        "longest",
        "one callback, p50",
        "p99",
        "memory",
    ];
    let mut table = table(&header, 1);
    table.add_row(burst_row("reelhook", &burst.reelhook));
    table.add_row(burst_row("ceiling", &burst.ceiling));
    table
}

fn burst_row(name: &str, side: &BurstSide) -> Vec<String> {
    vec![
        name.to_owned(),
        millis(side.all_answered_median_us),
        millis(side.all_answered_max_us),
        millis(side.p50_us),
        millis(side.p99_us),
        mebibytes(side.peak_memory),
    ]
}

pub(super) fn hostile(hostile: &Hostile) -> Table {
    let header = ["", "p50", "p99", "p99.9", "longest", "memory"];
    let mut table = table(&header, 1);
    let quiet = ("nobody else", &hostile.quiet);
    let besieged = hostile
        .besieged
        .iter()
        .map(|besieged| (besieged.by.as_str(), &besieged.side));
    for (name, side) in std::iter::once(quiet).chain(besieged) {
        let mut row = vec![name.to_owned()];
        row.extend(latencies(side));
        row.push(millis(side.max_us));
        row.push(mebibytes(side.peak_memory));
        table.add_row(row);
    }
    table
}

pub(super) fn followed(followed: &Followed) -> Table {
    let header = ["", "p50", "p99", "p99.9", "longest", "CPU each", "memory"];
    let mut table = table(&header, 1);
    let many = format!(
        "{} follow, {} of them stalled",
        followed.readers, followed.stalled
    );
    for (name, side) in [
        ("nobody follows", &followed.alone),
        (many.as_str(), &followed.watched),
    ] {
        let mut row = vec![name.to_owned()];
        row.extend(latencies(side));
        row.extend([millis(side.max_us), cpu(side), mebibytes(side.peak_memory)]);
        table.add_row(row);
    }
    table
}

pub(super) fn stored(stored: &Stored) -> Table {
    let header = [
        "64 connections",
        "callbacks/s",
        "over the ceiling",
        "p50",
        "p99",
        "p99.9",
        "memory",
    ];
    let mut table = table(&header, 1);
    let with = format!("{} tasks stored", tasks(stored.tasks));
    let rows = [
        ("no tasks stored", &stored.without),
        (with.as_str(), &stored.with),
        ("ceiling", &stored.ceiling),
    ];
    for (name, side) in rows {
        let ratio = side.per_second / stored.ceiling.per_second;
        let mut row = vec![name.to_owned(), thousands(side.per_second), format!("{ratio:.2}")];
        row.extend(latencies(side));
        row.push(mebibytes(side.peak_memory));
        table.add_row(row);
    }
    table
}

pub(super) fn starts(stored: &Stored) -> Table {
    let header = [
        "database",
        "start to ready, median",
        "longest",
        "memory when ready",
        "after queries and load",
    ];
    let mut table = table(&header, 0);
    let middle = stored.ready_us.get(stored.ready_us.len() / 2);
    table.add_row([
        mebibytes(stored.database_bytes),
        millis(middle.copied().unwrap_or_default()),
        millis(stored.slowest_start_us()),
        mebibytes(stored.resident_memory),
        mebibytes(stored.peak_memory),
    ]);
    table
}

pub(super) fn queries(stored: &Stored) -> Table {
    let many = tasks(stored.tasks);
    let header = ["", "1,000 tasks: p50", "p99", &format!("{many}: p50"), "p99"];
    let mut table = table(&header, 1);
    for query in &stored.queries {
        table.add_row([
            format!("`{}`", query.name),
            millis(query.few_p50_us),
            millis(query.few_p99_us),
            millis(query.many_p50_us),
            millis(query.many_p99_us),
        ]);
    }
    table
}

pub(super) fn peers(peers: &Peers) -> Table {
    let header = [
        "",
        "verifies",
        "durably kept",
        "drops repeats",
        "queues files",
        "callbacks/s",
        "reelhook is",
        "p50",
        "p99",
        "CPU each",
        "memory",
    ];
    let mut table = table(&header, 5);
    let ours = &peers.reelhook;
    let does = ["reelhook", "yes", "delivery, task, outcome", "by row", "yes"].map(str::to_owned);
    table.add_row(peer_row(does, ours, ours));
    for peer in &peers.others {
        let verifies = if peer.verifies { "yes" } else { "no" };
        let does = [&peer.name, verifies, &peer.keeps, &peer.dedupes, "no"].map(str::to_owned);
        table.add_row(peer_row(does, &peer.side, ours));
    }
    let does = ["ceiling", "yes", "nothing", "no", "no"].map(str::to_owned);
    table.add_row(peer_row(does, &peers.ceiling, ours));
    table
}

fn peer_row(does: [String; 5], side: &Side, ours: &Side) -> Vec<String> {
    let faster = ours.per_second / side.per_second;
    let mut row = Vec::from(does);
    row.extend([
        thousands(side.per_second),
        format!("{faster:.2} ×"),
        millis(side.p50_us),
        millis(side.p99_us),
        cpu(side),
        mebibytes(side.peak_memory),
    ]);
    row
}
