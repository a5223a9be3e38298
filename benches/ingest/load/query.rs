//! Requests of the query API, one after the other on one connection.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::micros;
use crate::rig::server::{Server, get};
use crate::wire::Connection;

const MOST: usize = 500;
const LONGEST: Duration = Duration::from_secs(2);

/// How long each answer took, in microseconds, sorted: of at most 500, for at most two seconds.
pub(crate) async fn latencies(server: &Server, paths: &[String]) -> anyhow::Result<Vec<u32>> {
    let mut connection = Connection::open(server.addr).await?;
    let mut latencies_us = Vec::with_capacity(MOST);
    let began = Instant::now();
    for path in paths.iter().cycle().take(MOST) {
        let sent = Instant::now();
        ensure!(get(&mut connection, path).await?.0 == 200, "GET {path} failed");
        latencies_us.push(micros(sent.elapsed()));
        if began.elapsed() > LONGEST {
            break;
        }
    }
    latencies_us.sort_unstable();
    Ok(latencies_us)
}
