//! What a callback waits at a given rate: the open loop, from a modest rate to most of what the closed loop reached.

use super::{Bench, FEWER_ROUNDS, Load, USUAL_CONNECTIONS, WARM_UP};
use crate::Args;
use crate::load::OpenLoop;
use crate::report::{Closed, Open};

/// Per cent of reelhook's rate in the closed loop.
const SHARES: [u8; 3] = [25, 50, 75];

pub(super) fn planned(args: &Args) -> f64 {
    let rates = args.rates.len() + SHARES.len();
    let rates = u8::try_from(rates).unwrap_or(u8::MAX);
    2.0 * f64::from(rates) * f64::from(args.rounds.min(FEWER_ROUNDS)) * args.round()
}

impl Bench<'_> {
    pub(super) async fn open(&self, closed: &[Closed]) -> anyhow::Result<Vec<Open>> {
        let most = self.closed_rate(closed).await?;
        let absolute = self.args.rates.iter().map(|&rate| (None, rate));
        let shares = SHARES.map(|share| (Some(share), rate(most, share)));
        let mut open = Vec::new();
        for (share, per_second) in absolute.chain(shares) {
            let name = format!("open loop, {per_second} callbacks/s");
            let load = Load::Open(OpenLoop {
                per_second,
                warm_up: WARM_UP,
                measured: self.args.measured(),
            });
            let pair = self
                .pair(&load, &name, self.args.rounds.min(FEWER_ROUNDS))
                .await?;
            open.push(Open {
                per_second,
                share,
                pair,
            });
        }
        Ok(open)
    }

    /// What reelhook reached in the closed loop of this run; one round is measured if there was none.
    async fn closed_rate(&self, closed: &[Closed]) -> anyhow::Result<f64> {
        let usual = closed
            .iter()
            .find(|closed| closed.connections == USUAL_CONNECTIONS);
        if let Some(closed) = usual {
            return Ok(closed.pair.reelhook.per_second);
        }
        let load = self.args.closed_loop(USUAL_CONNECTIONS);
        Ok(self.reelhook(&load).await?.per_second())
    }
}

/// A share of a rate, to the hundred.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are positive and below 2^32"
)]
fn rate(most: f64, share: u8) -> u32 {
    let hundreds = (most * f64::from(share) / 100.0 / 100.0).round();
    (hundreds as u32).max(1) * 100
}
