//! Many callbacks after a silence: how long until all of them are acknowledged.

use std::time::Duration;

use super::Bench;
use crate::data_dir::{Counts, DataDir};
use crate::load::{Burst, Bursts};
use crate::report::{BurstPair, BurstSide};

const BURST: Burst = Burst {
    size: 512,
    times: 20,
    quiet: Duration::from_millis(500),
};
/// Seconds that all bursts at one server are expected to take.
const SECONDS: f64 = 12.0;

pub(super) fn planned() -> f64 {
    2.0 * SECONDS
}

impl Bench<'_> {
    pub(super) async fn burst(&self) -> anyhow::Result<BurstPair> {
        let data = DataDir::below(self.dir)?;
        let server = data.serve()?;
        let reelhook = BURST.run(&server, self.silent.port).await?;
        drop(server);
        data.check(Counts::default(), reelhook.acknowledged).await?;
        self.tell_burst("reelhook", &reelhook);
        let ceiling = BURST.run(&super::ceiling()?, self.silent.port).await?;
        self.tell_burst("ceiling", &ceiling);
        Ok(BurstPair {
            size: BURST.size,
            times: BURST.times,
            reelhook: BurstSide::of(&reelhook),
            ceiling: BurstSide::of(&ceiling),
        })
    }

    fn tell_burst(&self, server: &str, bursts: &Bursts) {
        let longest = bursts.all_answered_us.last().copied().unwrap_or_default() / 1000;
        let text = format!("bursts of {}: {server} {longest} ms at most", BURST.size);
        self.progress.step(SECONDS, &text);
    }
}
