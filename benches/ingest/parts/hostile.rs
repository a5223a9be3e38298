//! What outsiders cost a good callback: the open loop while they hold the server up or flood it, beside a quiet one.

use super::{Bench, FEWER_ROUNDS, Load, WARM_UP};
use crate::Args;
use crate::data_dir::{Counts, DataDir};
use crate::load::{Measured, OpenLoop, Outsiders};
use crate::report::{Besieged, Hostile, Side};

/// Good callbacks a second.
const PER_SECOND: u32 = 500;

pub(super) fn planned(args: &Args) -> f64 {
    4.0 * f64::from(args.rounds.min(FEWER_ROUNDS)) * args.round()
}

impl Bench<'_> {
    pub(super) async fn hostile(&self) -> anyhow::Result<Hostile> {
        let mut quiet = Vec::new();
        let mut besieged = Outsiders::ALL.map(|outsiders| (outsiders, Vec::new()));
        for round in 1..=self.args.rounds.min(FEWER_ROUNDS) {
            quiet.push(self.besieged_by(None).await?);
            self.tell("good callbacks, quiet", "reelhook", round, &quiet);
            for (outsiders, rounds) in &mut besieged {
                rounds.push(self.besieged_by(Some(*outsiders)).await?);
                let name = format!("good callbacks, {}", outsiders.name());
                self.tell(&name, "reelhook", round, rounds);
            }
        }
        Ok(Hostile {
            per_second: PER_SECOND,
            quiet: Side::of(&quiet),
            besieged: besieged
                .iter()
                .map(|(outsiders, rounds)| Besieged {
                    by: outsiders.name(),
                    side: Side::of(rounds),
                })
                .collect(),
        })
    }

    async fn besieged_by(&self, outsiders: Option<Outsiders>) -> anyhow::Result<Measured> {
        let data = DataDir::behind_proxies(self.dir)?;
        let server = data.serve()?;
        let siege = outsiders
            .map(|outsiders| outsiders.besiege(server.addr))
            .transpose()?;
        let load = Load::Open(OpenLoop {
            per_second: PER_SECOND,
            warm_up: WARM_UP,
            measured: self.args.measured(),
        });
        let measured = load.run(&server, self.silent.port).await?;
        if let Some(siege) = siege {
            siege.end()?;
        }
        drop(server);
        data.check(Counts::default(), measured.acknowledged).await?;
        Ok(measured)
    }
}
