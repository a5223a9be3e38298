//! Other ways to receive the same callbacks, beside reelhook and the ceiling in the same run.

use std::path::{Path, PathBuf};

use super::{Bench, FEWER_ROUNDS, Load, USUAL_CONNECTIONS};
use crate::Args;
use crate::load::Measured;
use crate::peer::{PEERS, Peer};
use crate::report::{PeerFigures, Peers, Side};
use crate::rig::progress::Progress;

/// Seconds that installing is expected to take.
const INSTALLING: f64 = 30.0;

pub(super) fn planned(args: &Args) -> f64 {
    let contenders = u8::try_from(PEERS.len()).unwrap_or(u8::MAX) + 2;
    f64::from(contenders) * f64::from(args.rounds.min(FEWER_ROUNDS)) * args.round() + INSTALLING
}

/// A peer that takes part.
struct Contender {
    peer: Peer,
    home: PathBuf,
    version: String,
    rounds: Vec<Measured>,
}

impl Bench<'_> {
    pub(super) async fn peers(&self) -> anyhow::Result<Peers> {
        let mut missing = Vec::new();
        let mut contenders = install(&mut missing);
        self.progress.step(INSTALLING, "peers installed");
        let load = self.args.closed_loop(USUAL_CONNECTIONS);
        let (mut reelhook, mut ceiling) = (Vec::new(), Vec::new());
        for round in 1..=self.args.rounds.min(FEWER_ROUNDS) {
            reelhook.push(self.reelhook(&load).await?);
            self.tell("peers", "reelhook", round, &reelhook);
            let mut remaining = Vec::new();
            for mut contender in contenders {
                match self.peer(&contender, &load).await {
                    Ok(measured) => {
                        contender.rounds.push(measured);
                        self.tell("peers", contender.peer.name, round, &contender.rounds);
                        remaining.push(contender);
                    }
                    Err(error) => leave_out(contender.peer, &error, &mut missing),
                }
            }
            contenders = remaining;
            ceiling.push(self.ceiling(&load).await?);
            self.tell("peers", "ceiling", round, &ceiling);
        }
        Ok(Peers {
            reelhook: Side::of(&reelhook),
            ceiling: Side::of(&ceiling),
            others: contenders.into_iter().map(Contender::figures).collect(),
            missing,
        })
    }

    /// One round of a peer in a directory of its own; what it keeps is counted after it was killed.
    async fn peer(&self, contender: &Contender, load: &Load) -> anyhow::Result<Measured> {
        let dir = tempfile::tempdir_in(self.dir)?;
        let server = contender.peer.serve(&contender.home, dir.path()).await?;
        let measured = load.run(&server, self.silent.port).await?;
        drop(server);
        contender.peer.check(dir.path(), measured.acknowledged).await?;
        Ok(measured)
    }
}

/// Those that can be had on this machine.
fn install(missing: &mut Vec<String>) -> Vec<Contender> {
    let mut contenders = Vec::new();
    for peer in PEERS {
        Progress::note(&format!("installing {} …", peer.name));
        // Kept from run to run.
        let home = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("peers")
            .join(peer.home);
        match peer.install(&home) {
            Ok(version) => contenders.push(Contender {
                peer,
                home,
                version,
                rounds: Vec::new(),
            }),
            Err(error) => leave_out(peer, &error, missing),
        }
    }
    contenders
}

/// A peer that cannot be had, or fails, costs nothing but its own figures.
fn leave_out(peer: Peer, error: &anyhow::Error, missing: &mut Vec<String>) {
    let line = format!("{} is left out: {error:#}", peer.name);
    Progress::note(&line);
    missing.push(line);
}

impl Contender {
    fn figures(self) -> PeerFigures {
        PeerFigures {
            name: self.peer.name.to_owned(),
            version: self.version,
            verifies: self.peer.verifies,
            keeps: self.peer.keeps.to_owned(),
            dedupes: self.peer.dedupes.to_owned(),
            checked: self.peer.durable(),
            side: Side::of(&self.rounds),
        }
    }
}
