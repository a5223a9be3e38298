//! The burst: nothing for a while, then many callbacks at the same instant, each on a connection of its own.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::{Answers, micros};
use crate::callback::Callbacks;
use crate::server::Server;
use crate::wire::Connection;

/// How the load is applied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Burst {
    /// Callbacks at once.
    pub(crate) size: u16,
    pub(crate) times: u16,
    /// How long it is quiet before each.
    pub(crate) quiet: Duration,
}

/// What the bursts at one server showed.
#[derive(Debug)]
pub(crate) struct Bursts {
    pub(crate) acknowledged: u64,
    /// Until the last callback of each burst was answered, in microseconds, sorted.
    pub(crate) all_answered_us: Vec<u32>,
    /// Until each callback was answered, in microseconds, sorted.
    pub(crate) latencies_us: Vec<u32>,
    pub(crate) peak_memory: u64,
}

/// A connection, and the request that it will send.
struct Ready {
    connection: Connection,
    callbacks: Callbacks,
    request: Vec<u8>,
}

impl Burst {
    /// Applies the load to `server`; the files that the callbacks announce lie on `media_port`.
    pub(crate) async fn run(&self, server: &Server, media_port: u16) -> anyhow::Result<Bursts> {
        let mut all = Vec::with_capacity(self.size.into());
        for _ in 0..self.size {
            all.push(Ready {
                connection: Connection::open(server.addr).await?,
                callbacks: Callbacks::new(getrandom::u64()?, media_port),
                request: Vec::new(),
            });
        }
        let mut answers = Answers::default();
        let mut all_answered_us = Vec::with_capacity(self.times.into());
        for _ in 0..self.times {
            for ready in &mut all {
                ready.request = ready.callbacks.next().to_vec();
            }
            tokio::time::sleep(self.quiet).await;
            let began = Instant::now();
            let statuses = try_join_all(all.iter_mut().map(|ready| ready.send(began))).await?;
            all_answered_us.push(micros(began.elapsed()));
            for (status, latency) in statuses {
                answers.add(status, Some(latency));
            }
        }
        answers.ensure_none_refused()?;
        all_answered_us.sort_unstable();
        answers.latencies_us.sort_unstable();
        Ok(Bursts {
            acknowledged: answers.acknowledged,
            all_answered_us,
            latencies_us: answers.latencies_us,
            peak_memory: server.peak_memory()?,
        })
    }
}

impl Ready {
    /// The status of the answer, and how long after `began` it was here.
    async fn send(&mut self, began: Instant) -> std::io::Result<(u16, Duration)> {
        let status = self.connection.status_of(&self.request).await?;
        self.connection.body().await?;
        Ok((status, began.elapsed()))
    }
}
