//! Kills the server at random moments under load and while it starts.
//!
//! `REELHOOK_KILL_CYCLES` says how often (20), `REELHOOK_KILL_SEED` repeats the choices of an earlier run; the moments
//! at which the machine's own timing lets the kills fall are never quite the same again.

use std::time::{Duration, Instant};

use crate::harness::Harness;
use crate::server::{Launch, Server};
use crate::{say, seed, variable};

const CYCLES: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_no_acknowledged_callback_and_shows_no_half_file() {
    let began = Instant::now();
    let cycles = variable("REELHOOK_KILL_CYCLES").unwrap_or(CYCLES);
    let mut harness = Harness::new(seed("REELHOOK_KILL_SEED")).await;
    for cycle in 0..cycles {
        harness.kill_under_load().await;
        if cycle % 4 == 3 {
            harness.kill_while_starting().await;
        }
    }
    let files = harness.finish().await;
    say(&format!(
        "killed {cycles} times: {} callbacks acknowledged, {} refused, 0 lost, {files} files stored and whole ({} checks), \
         {:.1} s",
        harness.ledger.acknowledged(),
        harness.ledger.refused(),
        harness.remains.files_checked,
        began.elapsed().as_secs_f64(),
    ));
}

impl Harness {
    /// Starts a server, lets clients call back, kills it at a random moment, and looks at what is left.
    async fn kill_under_load(&mut self) {
        let (server, addr) = self.start().await;
        let load = self.load(addr);
        // A timer, not a condition: that nobody can say what the server is doing right then is the point.
        let moment = Duration::from_millis(20 + self.random.below(680));
        let kill = async {
            tokio::time::sleep(moment).await;
            server.kill();
        };
        tokio::join!(load, kill);
        self.check().await;
    }

    /// Kills a server before, while or shortly after it tidies up behind its predecessor.
    async fn kill_while_starting(&mut self) {
        let (server, _) = Server::spawn(&self.config, &Launch::default());
        tokio::time::sleep(Duration::from_millis(self.random.below(120))).await;
        server.kill();
        self.check().await;
    }
}
