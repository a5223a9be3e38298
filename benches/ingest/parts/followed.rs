//! What those who follow the events cost a callback: the open loop with them and without.

use std::sync::atomic::Ordering;

use super::{Bench, FEWER_ROUNDS, Load, WARM_UP};
use crate::Args;
use crate::data_dir::{Counts, DataDir};
use crate::load::{Audience, Measured, OpenLoop};
use crate::report::{Followed, Side};

/// Callbacks a second.
const PER_SECOND: u32 = 1_000;

pub(super) fn planned(args: &Args) -> f64 {
    2.0 * f64::from(args.rounds.min(FEWER_ROUNDS)) * args.round()
}

impl Bench<'_> {
    pub(super) async fn followed(&self) -> anyhow::Result<Followed> {
        let audience = Audience {
            readers: self.args.readers,
            stalled: self.args.stalled.min(self.args.readers.saturating_sub(1)),
        };
        let (mut alone, mut followed) = (Vec::new(), Vec::new());
        let (mut bytes, mut events) = (0, 0);
        for round in 1..=self.args.rounds.min(FEWER_ROUNDS) {
            alone.push(self.followed_by(None).await?.0);
            self.tell("nobody follows", "reelhook", round, &alone);
            let (measured, heard) = self.followed_by(Some(audience)).await?;
            followed.push(measured);
            bytes += heard.0;
            events += heard.1;
            self.tell(
                &format!("{} follow", audience.readers),
                "reelhook",
                round,
                &followed,
            );
        }
        Ok(Followed {
            per_second: PER_SECOND,
            readers: audience.readers,
            stalled: audience.stalled,
            bytes,
            events,
            alone: Side::of(&alone),
            watched: Side::of(&followed),
        })
    }

    /// One round, and how many bytes and events were heard in all.
    async fn followed_by(&self, audience: Option<Audience>) -> anyhow::Result<(Measured, (u64, u64))> {
        let data = DataDir::below(self.dir)?;
        let server = data.serve()?;
        let seated = match audience {
            Some(audience) => Some(audience.seat(server.addr).await?),
            None => None,
        };
        let load = Load::Open(OpenLoop {
            per_second: PER_SECOND,
            warm_up: WARM_UP,
            measured: self.args.measured(),
        });
        let measured = load.run(&server, self.silent.port).await?;
        let heard = match seated {
            Some(seated) => {
                let heard = seated.end()?;
                (
                    heard.bytes.load(Ordering::Relaxed),
                    heard.events.load(Ordering::Relaxed),
                )
            }
            None => (0, 0),
        };
        drop(server);
        data.check(Counts::default(), measured.acknowledged).await?;
        Ok((measured, heard))
    }
}
