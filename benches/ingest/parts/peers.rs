//! Other ways to receive the same callbacks, beside reelhook and the ceiling in the same run.

use std::path::Path;

use super::{Bench, FEWER_ROUNDS, USUAL_CONNECTIONS};
use crate::Args;
use crate::load::Measured;
use crate::peer::{PEERS, Peer};
use crate::progress::Progress;
use crate::report::{PeerFigures, Peers, Side};

/// Seconds that installing is expected to take.
const INSTALLING: f64 = 30.0;

pub(super) fn planned(args: &Args) -> f64 {
    let contenders = u8::try_from(PEERS.len()).unwrap_or(u8::MAX) + 2;
    f64::from(contenders) * f64::from(args.rounds.min(FEWER_ROUNDS)) * args.round() + INSTALLING
}

impl Bench<'_> {
    pub(super) async fn peers(&self) -> anyhow::Result<Peers> {
        let (mut installed, mut missing) = (Vec::new(), Vec::new());
        for peer in PEERS {
            Progress::note(&format!("installing {} …", peer.name));
            // Kept from run to run.
            let home = Path::new(env!("CARGO_TARGET_TMPDIR"))
                .join("peers")
                .join(peer.home);
            match peer.install(&home) {
                Ok(version) => installed.push((peer, home, version)),
                Err(error) => missing.push(format!("{} is left out: {error:#}", peer.name)),
            }
        }
        self.progress.step(INSTALLING, "peers installed");
        let load = self.args.closed_loop(USUAL_CONNECTIONS);
        let (mut reelhook, mut ceiling) = (Vec::new(), Vec::new());
        let mut rounds: Vec<Vec<Measured>> = installed.iter().map(|_| Vec::new()).collect();
        for round in 1..=self.args.rounds.min(FEWER_ROUNDS) {
            reelhook.push(self.reelhook(&load).await?);
            self.tell("peers", "reelhook", round, &reelhook);
            for ((peer, home, _), rounds) in installed.iter().zip(&mut rounds) {
                rounds.push(self.peer(peer, home).await?);
                self.tell("peers", peer.name, round, rounds);
            }
            ceiling.push(self.ceiling(&load).await?);
            self.tell("peers", "ceiling", round, &ceiling);
        }
        let figures = installed
            .iter()
            .zip(&rounds)
            .map(|((peer, _, version), rounds)| PeerFigures {
                name: peer.name.to_owned(),
                version: version.clone(),
                verifies: peer.verifies,
                keeps: peer.keeps.to_owned(),
                dedupes: peer.dedupes.to_owned(),
                checked: peer.durable(),
                side: Side::of(rounds),
            });
        Ok(Peers {
            reelhook: Side::of(&reelhook),
            ceiling: Side::of(&ceiling),
            others: figures.collect(),
            missing,
        })
    }

    /// One round of a peer in a directory of its own; what it keeps is counted after it was killed.
    async fn peer(&self, peer: &Peer, home: &Path) -> anyhow::Result<Measured> {
        let dir = tempfile::tempdir_in(self.dir)?;
        let server = peer.serve(home, dir.path()).await?;
        let load = self.args.closed_loop(USUAL_CONNECTIONS);
        let measured = load.run(&server, self.silent.port).await?;
        drop(server);
        peer.check(dir.path(), measured.acknowledged).await?;
        Ok(measured)
    }
}
