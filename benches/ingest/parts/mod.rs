//! The parts of a run. Each starts its servers afresh, round for round, in turn with the ceiling.

mod burst;
mod closed;
mod followed;
mod hostile;
mod open;
mod peers;
mod stored;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::Args;
use crate::data_dir::{Counts, DataDir};
use crate::load::{ClosedLoop, Measured, OpenLoop};
use crate::media::MediaHost;
use crate::report::{Pair, Report, Side};
use crate::rig::disk;
use crate::rig::machine::Machine;
use crate::rig::progress::Progress;
use crate::rig::server::Server;

/// Measured seconds begin once the connections, caches and allocators are warm.
const WARM_UP: Duration = Duration::from_millis(500);
/// What starting, killing and checking a server takes, in seconds: for the estimate only.
const AROUND: f64 = 0.5;
/// The rounds of what is no matter of acceptance, at most.
const FEWER_ROUNDS: u8 = 3;
/// The number of connections where only one is tried.
const USUAL_CONNECTIONS: u16 = 64;

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    Closed,
    Open,
    Burst,
    Hostile,
    Followed,
    Stored,
    Peers,
}

/// What all parts share.
struct Bench<'a> {
    args: &'a Args,
    /// Under `target`, where a disk is: /tmp may be memory, and syncing memory is no feat.
    dir: &'a Path,
    silent: MediaHost,
    progress: Progress,
}

/// What a server is put under.
#[derive(Debug, Clone, Copy)]
enum Load {
    Closed(ClosedLoop),
    Open(OpenLoop),
}

/// Runs the chosen parts.
pub(crate) async fn measure(args: &Args) -> anyhow::Result<Report> {
    let machine = Machine::this();
    let parts = args.parts();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut report = Report::new(machine, disk::measure(dir.path())?, args.seconds);
    let bench = Bench {
        args,
        dir: dir.path(),
        silent: MediaHost::silent().await?,
        progress: Progress::new(parts.iter().map(|&part| planned(part, args)).sum()),
    };
    for part in parts {
        match part {
            Part::Closed => report.closed = bench.closed().await?,
            Part::Open => report.open = bench.open(&report.closed).await?,
            Part::Burst => report.burst = Some(bench.burst().await?),
            Part::Hostile => report.hostile = Some(bench.hostile().await?),
            Part::Followed => report.followed = Some(bench.followed().await?),
            Part::Stored => report.stored = bench.stored().await?,
            Part::Peers => report.peers = Some(bench.peers().await?),
        }
    }
    report.judge();
    Ok(report)
}

/// How many seconds a part is expected to take.
fn planned(part: Part, args: &Args) -> f64 {
    match part {
        Part::Closed => closed::planned(args),
        Part::Open => open::planned(args),
        Part::Burst => burst::planned(),
        Part::Hostile => hostile::planned(args),
        Part::Followed => followed::planned(args),
        Part::Stored => stored::planned(args),
        Part::Peers => peers::planned(args),
    }
}

impl Args {
    /// Seconds that one round is expected to take.
    fn round(&self) -> f64 {
        WARM_UP.as_secs_f64() + f64::from(self.seconds) + AROUND
    }

    fn measured(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    fn closed_loop(&self, connections: u16) -> Load {
        Load::Closed(ClosedLoop {
            connections,
            warm_up: WARM_UP,
            measured: self.measured(),
        })
    }
}

impl Bench<'_> {
    /// `rounds` of reelhook and the ceiling in turn.
    async fn pair(&self, load: &Load, name: &str, rounds: u8) -> anyhow::Result<Pair> {
        let (mut reelhook, mut ceiling) = (Vec::new(), Vec::new());
        for round in 1..=rounds {
            reelhook.push(self.reelhook(load).await?);
            self.tell(name, "reelhook", round, &reelhook);
            ceiling.push(self.ceiling(load).await?);
            self.tell(name, "ceiling", round, &ceiling);
        }
        Ok(Pair {
            reelhook: Side::of(&reelhook),
            ceiling: Side::of(&ceiling),
        })
    }

    /// One round of the real program on a fresh data directory.
    async fn reelhook(&self, load: &Load) -> anyhow::Result<Measured> {
        let data = DataDir::below(self.dir)?;
        self.reelhook_on(&data, Counts::default(), load).await
    }

    /// One round of the real program on a data directory whose database holds `before`.
    async fn reelhook_on(&self, data: &DataDir, before: Counts, load: &Load) -> anyhow::Result<Measured> {
        let server = data.serve()?;
        let measured = load.run(&server, self.silent.port).await?;
        // Killed, not stopped: what counts is what was on disk when the answers left.
        drop(server);
        data.check(before, measured.acknowledged).await?;
        Ok(measured)
    }

    async fn ceiling(&self, load: &Load) -> anyhow::Result<Measured> {
        load.run(&ceiling()?, self.silent.port).await
    }

    fn tell(&self, name: &str, server: &str, round: u8, rounds: &[Measured]) {
        let per_second = rounds.last().map_or(0.0, Measured::per_second);
        let text = format!("{name}, round {round}: {server} {per_second:.0} callbacks/s");
        self.progress.step(self.args.round(), &text);
    }
}

impl Load {
    async fn run(&self, server: &Server, media_port: u16) -> anyhow::Result<Measured> {
        match self {
            Self::Closed(load) => load.run(server, media_port).await,
            Self::Open(load) => load.run(server, media_port).await,
        }
    }
}

/// The minimal program: this one, started again.
fn ceiling() -> anyhow::Result<Server> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--server", "ceiling"]);
    Server::told(command)
}
