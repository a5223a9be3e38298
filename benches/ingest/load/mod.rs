//! What is sent to a server under test, and what came of it. All load comes from one thread of this process.

mod audience;
mod burst;
mod closed;
mod open;
pub(crate) mod query;
mod siege;

pub(crate) use audience::Audience;
pub(crate) use burst::{Burst, Bursts};
pub(crate) use closed::ClosedLoop;
pub(crate) use open::OpenLoop;
pub(crate) use siege::Outsiders;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;

use crate::rig::callback::Callbacks;
use crate::rig::numbers::count;
use crate::rig::server::Server;
use crate::wire::Connection;

/// The answers that one connection, or several, had.
#[derive(Debug, Default)]
struct Answers {
    acknowledged: u64,
    refused: u64,
    /// Of the callbacks in the measured time, in microseconds.
    latencies_us: Vec<u32>,
}

impl Answers {
    /// Counts one answer; `latency` is that of a callback in the measured time.
    fn add(&mut self, status: u16, latency: Option<Duration>) {
        if status == 200 {
            self.acknowledged += 1;
        } else {
            self.refused += 1;
        }
        self.latencies_us.extend(latency.map(micros));
    }

    /// These, and those of all connections once they have ended.
    async fn and_of_all(mut self, mut connections: JoinSet<std::io::Result<Self>>) -> anyhow::Result<Self> {
        while let Some(ended) = connections.join_next().await {
            let answers = ended?.context("a connection broke; is the server still there?")?;
            self.acknowledged += answers.acknowledged;
            self.refused += answers.refused;
            self.latencies_us.extend(answers.latencies_us);
        }
        Ok(self)
    }

    fn ensure_none_refused(&self) -> anyhow::Result<()> {
        ensure!(
            self.refused == 0,
            "{} of {} callbacks were refused: the figures would be those of refusing",
            self.refused,
            self.acknowledged + self.refused
        );
        Ok(())
    }
}

/// A connection, and what it sends.
struct Caller {
    connection: Connection,
    callbacks: Callbacks,
}

impl Caller {
    /// Opens `count` connections to `server`, and has a callback answered on each before it opens the next: a queue of
    /// connections to accept may be as short as 128, and what overflows it loses seconds or breaks.
    async fn all(count: u16, server: &Server, media_port: u16) -> anyhow::Result<(Vec<Self>, Answers)> {
        let (mut callers, mut answers) = (Vec::with_capacity(count.into()), Answers::default());
        for _ in 0..count {
            let mut connection = Connection::open(server.addr).await?;
            let mut callbacks = Callbacks::new(getrandom::u64()?, media_port);
            answers.add(connection.status_of(callbacks.next()).await?, None);
            connection.body().await?;
            callers.push(Self {
                connection,
                callbacks,
            });
        }
        Ok((callers, answers))
    }
}

/// What one round of one server showed.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Callbacks answered 200, the warm-up included.
    pub(crate) acknowledged: u64,
    /// How long each callback sent in the measured time took, in microseconds, sorted.
    pub(crate) latencies_us: Vec<u32>,
    /// From the end of the warm-up to the last answer.
    pub(crate) took: Duration,
    /// Processor time of the server for one callback, in microseconds.
    pub(crate) cpu_us: f64,
    /// The most memory that the server held, in bytes.
    pub(crate) peak_memory: u64,
}

impl Measured {
    /// Ends a round whose measured time began at `measured_from`; a refused callback makes it worthless.
    fn since(measured_from: Instant, answers: Answers, server: &Server) -> anyhow::Result<Self> {
        let took = measured_from.elapsed();
        answers.ensure_none_refused()?;
        let mut latencies_us = answers.latencies_us;
        latencies_us.sort_unstable();
        let answered = usize::try_from(answers.acknowledged)?.max(1);
        Ok(Self {
            acknowledged: answers.acknowledged,
            latencies_us,
            took,
            cpu_us: server.cpu_time()?.as_secs_f64() * 1e6 / count(answered),
            peak_memory: server.peak_memory()?,
        })
    }

    pub(crate) fn per_second(&self) -> f64 {
        count(self.latencies_us.len()) / self.took.as_secs_f64()
    }
}

/// Whole microseconds.
pub(crate) fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
