//! The burst: nothing for a while, then many callbacks at the same instant, each on a connection of its own.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::{Caller, micros};
use crate::rig::server::Server;
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

impl Burst {
    /// Applies the load to `server`; the files that the callbacks announce lie on `media_port`.
    pub(crate) async fn run(&self, server: &Server, media_port: u16) -> anyhow::Result<Bursts> {
        let (mut callers, mut answers) = Caller::all(self.size, server, media_port).await?;
        let mut all_answered_us = Vec::with_capacity(self.times.into());
        for _ in 0..self.times {
            tokio::time::sleep(self.quiet).await;
            // Made beforehand, so that sending is all that is left to do.
            let ready: Vec<_> = callers
                .iter_mut()
                .map(|caller| (&mut caller.connection, caller.callbacks.next()))
                .collect();
            let began = Instant::now();
            let sent = ready
                .into_iter()
                .map(|(connection, request)| send(connection, request, began));
            let statuses = try_join_all(sent).await?;
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

/// The status of the answer, and how long after `began` it was here.
async fn send(
    connection: &mut Connection,
    request: &[u8],
    began: Instant,
) -> std::io::Result<(u16, Duration)> {
    let status = connection.status_of(request).await?;
    connection.body().await?;
    Ok((status, began.elapsed()))
}
