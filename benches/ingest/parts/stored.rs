//! Whether anything gets slower with what is stored: ingest, start and queries with many tasks, beside few.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::{Bench, USUAL_CONNECTIONS};
use crate::Args;
use crate::data_dir::DataDir;
use crate::load::{Measured, micros, query};
use crate::report::{Query, Side, Stored};
use crate::rig::numbers::{count, percentile};
use crate::rig::progress::Progress;
use crate::rig::server::{Server, get};
use crate::seed::seed;
use crate::wire::Connection;

/// Tasks beside which the queries are compared: enough to fill every page.
const FEW: u64 = 1000;
/// Starts, of which the slowest counts.
const STARTS: u8 = 5;
/// Tasks seeded in a second, for the estimate.
const SEEDED_PER_SECOND: f64 = 30_000.0;
/// Seconds that starts and queries are expected to take.
const QUERYING: f64 = 20.0;

pub(super) fn planned(args: &Args) -> f64 {
    let each = 3.0 * f64::from(args.rounds) * args.round() + QUERYING;
    args.stored.iter().map(|&tasks| each + seeding(tasks)).sum()
}

/// Seconds that seeding is expected to take.
fn seeding(tasks: u64) -> f64 {
    count(usize::try_from(tasks).unwrap_or(usize::MAX)) / SEEDED_PER_SECOND
}

/// The latencies of one request, in microseconds, sorted.
struct Latencies {
    name: &'static str,
    sorted_us: Vec<u32>,
}

impl Bench<'_> {
    pub(super) async fn stored(&self) -> anyhow::Result<Vec<Stored>> {
        let mut stored = Vec::new();
        for &tasks in &self.args.stored {
            stored.push(self.with_stored(tasks).await?);
        }
        Ok(stored)
    }

    async fn with_stored(&self, tasks: u64) -> anyhow::Result<Stored> {
        Progress::note(&format!("storing {tasks} tasks …"));
        let (few, many) = (DataDir::below(self.dir)?, DataDir::below(self.dir)?);
        let few_ids = seed(&few, FEW).await?;
        let began = Instant::now();
        let many_ids = seed(&many, tasks).await?;
        let seeded_ms = micros(began.elapsed()) / 1000;
        self.progress
            .step(seeding(tasks), &format!("{tasks} tasks stored in {seeded_ms} ms"));
        let database_bytes = many.database_bytes()?;
        let ready_us = starts(&many).await?;
        let (few_queries, _) = queries(&few, FEW, &few_ids).await?;
        let (many_queries, memory) = queries(&many, tasks, &many_ids).await?;
        self.progress.step(QUERYING, &format!("queries of {tasks} tasks"));
        let [without, with, ceiling] = self.with_and_without(&many, tasks).await?;
        Ok(Stored {
            tasks,
            seeded_ms,
            database_bytes,
            resident_memory: memory.resident,
            peak_memory: memory.peak.max(with.peak_memory),
            ready_us,
            queries: compare(&few_queries, &many_queries),
            without,
            with,
            ceiling,
        })
    }

    /// Closed loops on an empty database, on this one, and against the ceiling, in turn.
    async fn with_and_without(&self, data: &DataDir, tasks: u64) -> anyhow::Result<[Side; 3]> {
        let load = self.args.closed_loop(USUAL_CONNECTIONS);
        let (mut without, mut with, mut ceiling) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=self.args.rounds {
            without.push(self.reelhook(&load).await?);
            self.tell("no tasks stored", "reelhook", round, &without);
            let before = data.counts().await?;
            with.push(self.reelhook_on(data, before, &load).await?);
            self.tell(&format!("{tasks} tasks stored"), "reelhook", round, &with);
            ceiling.push(self.ceiling(&load).await?);
            self.tell("no tasks stored", "ceiling", round, &ceiling);
        }
        Ok([without, with, ceiling].map(|rounds: Vec<Measured>| Side::of(&rounds)))
    }
}

/// How long each start took until the server was ready, in microseconds, sorted.
async fn starts(data: &DataDir) -> anyhow::Result<Vec<u32>> {
    let mut ready_us = Vec::new();
    for _ in 0..STARTS {
        let (_server, took): (Server, Duration) = data.serve_until_ready().await?;
        ready_us.push(micros(took));
    }
    ready_us.sort_unstable();
    Ok(ready_us)
}

/// What a server held that was only queried, in bytes.
struct Memory {
    /// Before the first query.
    resident: u64,
    peak: u64,
}

/// The latencies of all queries, on a database that has to look to the server as if it had stored these tasks itself.
async fn queries(data: &DataDir, tasks: u64, ids: &[String]) -> anyhow::Result<(Vec<Latencies>, Memory)> {
    let (server, _) = data.serve_until_ready().await?;
    let resident = server.resident_memory()?;
    let mut connection = Connection::open(server.addr).await?;
    let (_, stats) = get(&mut connection, "/v1/stats").await?;
    let stats: serde_json::Value = serde_json::from_slice(&stats)?;
    ensure!(
        stats["tasks"]["succeeded"] == tasks && stats["files"]["stored"] == tasks,
        "{tasks} tasks were stored by SQL, but the server sees {stats}: adapt benches/ingest/seed.rs"
    );
    let by_prefix = ids.iter().map(|id| format!("/v1/tasks?q={}", &id[..6]));
    let by_id = ids.iter().map(|id| format!("/v1/tasks/{id}"));
    let deliveries = ids.iter().map(|id| format!("/v1/tasks/{id}/deliveries"));
    let all: [(&str, Vec<String>); 7] = [
        ("GET /v1/tasks", vec!["/v1/tasks".to_owned()]),
        ("GET /v1/tasks?limit=200", vec!["/v1/tasks?limit=200".to_owned()]),
        (
            "GET /v1/tasks?state=failed",
            vec!["/v1/tasks?state=failed".to_owned()],
        ),
        ("GET /v1/tasks?q={prefix}", by_prefix.collect()),
        ("GET /v1/tasks/{task_id}", by_id.collect()),
        ("GET /v1/tasks/{task_id}/deliveries", deliveries.collect()),
        ("GET /v1/stats", vec!["/v1/stats".to_owned()]),
    ];
    let mut latencies = Vec::new();
    for (name, paths) in all {
        let sorted_us = query::latencies(&server, &paths).await?;
        latencies.push(Latencies { name, sorted_us });
    }
    let peak = server.peak_memory()?;
    Ok((latencies, Memory { resident, peak }))
}

fn compare(few: &[Latencies], many: &[Latencies]) -> Vec<Query> {
    let pairs = few.iter().zip(many);
    pairs
        .map(|(few, many)| Query {
            name: few.name.to_owned(),
            few_p50_us: percentile(&few.sorted_us, 50.0),
            few_p99_us: percentile(&few.sorted_us, 99.0),
            many_p50_us: percentile(&many.sorted_us, 50.0),
            many_p99_us: percentile(&many.sorted_us, 99.0),
        })
        .collect()
}
