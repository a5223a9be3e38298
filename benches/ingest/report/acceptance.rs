//! What the figures must show, and whether they do.

use super::tasks::tasks;
use super::{Besieged, Closed, Report, Side, Stored};
use crate::rig::criterion::Criterion;
use crate::rig::numbers::{mebibytes, millis};

const LEAST_RATIO: f64 = 0.5;
const LEAST_KEPT_RATE: f64 = 0.85;
const MEMORY: u64 = 120 << 20;
const LONGEST_START_US: u32 = 300_000;
const AUDIENCE_LIMIT: &str = "≤ 1.5 × that without + 2 ms";
const SIEGE_LIMIT: &str = "≤ 2 × the quiet one + 10 ms";
/// The demands on speed hold for this many stored tasks, those on the start for so many.
const MANY: u64 = 1_000_000;
const VERY_MANY: u64 = 5_000_000;

pub(super) fn criteria(report: &Report) -> Vec<Criterion> {
    let mut criteria = vec![
        ratio(report, 64),
        ratio(report, 256),
        latency(report),
        kept_rate(report),
        memory(report),
        start(report),
    ];
    criteria.extend(under_siege(report));
    criteria.push(before_an_audience(report));
    criteria
}

fn ratio(report: &Report, connections: u16) -> Criterion {
    let verdict = report.closed_at(connections).map(|closed| {
        let ratio = closed.pair.ratio();
        (format!("{ratio:.2}"), ratio >= LEAST_RATIO)
    });
    Criterion::new(
        format!("rate over the ceiling's, {connections} connections"),
        format!("≥ {LEAST_RATIO}"),
        verdict,
    )
}

fn latency(report: &Report) -> Criterion {
    let fsync = report.fsync.p99_us;
    let limit = |closed: &Closed| 4 * closed.pair.ceiling.p99_us + 10 * fsync;
    let closed = report.closed_at(64);
    let verdict = closed.map(|closed| {
        let p99 = closed.pair.reelhook.p99_us;
        (millis(p99), p99 <= limit(closed))
    });
    let mut text = "≤ 4 × ceiling's p99 + 10 × fsync's p99".to_owned();
    if let Some(closed) = closed {
        text = format!("{text} = {}", millis(limit(closed)));
    }
    Criterion::new("p99, 64 connections", text, verdict)
}

/// One for each kind of outsiders that was tried.
fn under_siege(report: &Report) -> Vec<Criterion> {
    let Some(hostile) = &report.hostile else {
        return vec![Criterion::new("p99 under attack", SIEGE_LIMIT, None)];
    };
    let limit = 2 * hostile.quiet.p99_us + 10_000;
    let of = |besieged: &Besieged| {
        let p99 = besieged.side.p99_us;
        Criterion::new(
            format!("p99 of good callbacks, {}", besieged.by),
            format!("{SIEGE_LIMIT} = {}", millis(limit)),
            Some((millis(p99), p99 <= limit)),
        )
    };
    hostile.besieged.iter().map(of).collect()
}

fn before_an_audience(report: &Report) -> Criterion {
    let verdict = report.followed.as_ref().map(|followed| {
        let (p99, limit) = (followed.watched.p99_us, followed.alone.p99_us * 3 / 2 + 2_000);
        (millis(p99), p99 <= limit)
    });
    Criterion::new("p99 while others watch", AUDIENCE_LIMIT, verdict)
}

fn kept_rate(report: &Report) -> Criterion {
    let measured = report.stored.iter().find(|stored| stored.tasks == MANY);
    let verdict = measured.map(|stored| {
        let kept = stored.kept_rate();
        (format!("{kept:.3}"), kept >= LEAST_KEPT_RATE)
    });
    Criterion::new(
        format!("rate with {} tasks stored over that with none", tasks(MANY)),
        format!("≥ {LEAST_KEPT_RATE}"),
        verdict,
    )
}

/// Over all rounds of all parts.
fn memory(report: &Report) -> Criterion {
    let pairs = report
        .closed
        .iter()
        .map(|closed| &closed.pair)
        .chain(report.open.iter().map(|open| &open.pair))
        .map(|pair| &pair.reelhook);
    let without = report.stored.iter().map(|stored| &stored.without);
    let peers = report.peers.iter().map(|peers| &peers.reelhook);
    let rounds = pairs
        .chain(without)
        .chain(peers)
        .map(|side: &Side| side.peak_memory);
    let burst = report.burst.iter().map(|burst| burst.reelhook.peak_memory);
    let stored = report.stored.iter().map(|stored: &Stored| stored.peak_memory);
    let besieged = report.hostile.iter().flat_map(|hostile| &hostile.besieged);
    let besieged = besieged.map(|besieged| besieged.side.peak_memory);
    let followed = report
        .followed
        .iter()
        .map(|followed| followed.watched.peak_memory);
    let besieged = besieged.chain(followed);
    let peak = rounds.chain(burst).chain(stored).chain(besieged).max();
    let verdict = peak.map(|peak| (mebibytes(peak), peak < MEMORY));
    Criterion::new(
        "most memory of all rounds",
        format!("< {}", mebibytes(MEMORY)),
        verdict,
    )
}

fn start(report: &Report) -> Criterion {
    let measured = report.stored.iter().find(|stored| stored.tasks >= VERY_MANY);
    let verdict = measured.map(|stored| {
        let slowest = stored.slowest_start_us();
        (millis(slowest), slowest < LONGEST_START_US)
    });
    Criterion::new(
        format!("start to ready, {} tasks stored", tasks(VERY_MANY)),
        format!("< {}", millis(LONGEST_START_US)),
        verdict,
    )
}
