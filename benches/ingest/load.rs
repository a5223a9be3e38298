//! The load: a closed loop, every connection sending its next callback once the last one was answered.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;

use crate::callback::Callbacks;
use crate::server::Server;
use crate::wire::Connection;

/// How the load is applied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) connections: u16,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
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
    pub(crate) fn per_second(&self) -> f64 {
        count(self.latencies_us.len()) / self.took.as_secs_f64()
    }
}

/// A count as a number to divide.
#[expect(clippy::cast_precision_loss, reason = "no count here reaches 2^52")]
pub(crate) fn count(count: usize) -> f64 {
    count as f64
}

/// The value that `percent` of the sorted values do not exceed; 0 for none at all.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the place lies within the slice"
)]
pub(crate) fn percentile(sorted: &[u32], percent: f64) -> u32 {
    let place = (count(sorted.len()) * percent / 100.0).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or_default()
}

impl Load {
    /// Applies the load to `server`; the files that the callbacks announce lie on `media_port`.
    pub(crate) async fn run(&self, server: &Server, media_port: u16) -> anyhow::Result<Measured> {
        let began = Instant::now();
        let measured_from = began + self.warm_up;
        let until = measured_from + self.measured;
        let mut connections = JoinSet::new();
        for _ in 0..self.connections {
            let driver = Driver {
                callbacks: Callbacks::new(getrandom::u64()?, media_port),
                measured_from,
                until,
            };
            connections.spawn(driver.run(server.addr));
        }
        let (mut acknowledged, mut refused, mut latencies_us) = (0, 0, Vec::new());
        while let Some(ended) = connections.join_next().await {
            let driven = ended?.context("a connection broke; is the server still there?")?;
            acknowledged += driven.acknowledged;
            refused += driven.refused;
            latencies_us.extend(driven.latencies_us);
        }
        let took = measured_from.elapsed();
        ensure!(
            refused == 0,
            "{refused} of {} callbacks were refused: the figures would be those of refusing",
            acknowledged + refused
        );
        latencies_us.sort_unstable();
        let answered = usize::try_from(acknowledged)?.max(1);
        Ok(Measured {
            acknowledged,
            latencies_us,
            took,
            cpu_us: server.cpu_time()?.as_secs_f64() * 1e6 / count(answered),
            peak_memory: server.peak_memory()?,
        })
    }
}

/// One connection.
struct Driver {
    callbacks: Callbacks,
    measured_from: Instant,
    until: Instant,
}

#[derive(Default)]
struct Driven {
    acknowledged: u64,
    refused: u64,
    latencies_us: Vec<u32>,
}

impl Driver {
    async fn run(mut self, addr: SocketAddr) -> std::io::Result<Driven> {
        let mut connection = Connection::open(addr).await?;
        let mut driven = Driven::default();
        loop {
            let request = self.callbacks.next();
            let sent = Instant::now();
            if sent >= self.until {
                return Ok(driven);
            }
            let status = connection.status_of(request).await?;
            connection.body().await?;
            if status == 200 {
                driven.acknowledged += 1;
            } else {
                driven.refused += 1;
            }
            if sent >= self.measured_from {
                let latency = sent.elapsed().as_micros();
                driven
                    .latencies_us
                    .push(u32::try_from(latency).unwrap_or(u32::MAX));
            }
        }
    }
}
