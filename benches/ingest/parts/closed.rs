//! The most that can be had: the closed loop at several numbers of connections.

use super::{Bench, FEWER_ROUNDS};
use crate::Args;
use crate::report::Closed;

/// From here on a server is at its limit, and its figures are those of acceptance.
const MANY: u16 = 64;

pub(super) fn planned(args: &Args) -> f64 {
    let rounds: u8 = args.connections.iter().map(|&count| rounds(args, count)).sum();
    2.0 * f64::from(rounds) * args.round()
}

fn rounds(args: &Args, connections: u16) -> u8 {
    if connections >= MANY {
        args.rounds
    } else {
        args.rounds.min(FEWER_ROUNDS)
    }
}

impl Bench<'_> {
    pub(super) async fn closed(&self) -> anyhow::Result<Vec<Closed>> {
        let mut closed = Vec::new();
        for &connections in &self.args.connections {
            let name = format!("closed loop, connections {connections}");
            let load = self.args.closed_loop(connections);
            let pair = self.pair(&load, &name, rounds(self.args, connections)).await?;
            closed.push(Closed { connections, pair });
        }
        Ok(closed)
    }
}
