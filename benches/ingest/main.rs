//! How many callbacks a second are durably acknowledged, beside the most that the same HTTP stack can answer.
//!
//! Two servers take the same callbacks in turn (A B A B …), each started fresh as a child process: the real program as it
//! is delivered, and the fixed minimal program in [`ceiling`] that stores nothing. The load comes from this process, on
//! one thread, in a closed loop over keep-alive connections. Afterwards the deliveries in the database are counted and
//! held against the callbacks that were answered 200.
//!
//! `cargo bench --bench ingest`, with `-- --help` for what can be set; `-- --write` renews `docs/performance.md`.

mod callback;
mod ceiling;
mod disk;
mod load;
mod report;
mod server;
#[path = "../../tests/wire/mod.rs"]
mod wire;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser as _;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::net::TcpListener;

use load::{Load, Measured};
use report::{Machine, Report, Side, Sides};
use server::Server;

/// Measured seconds begin once the connections, caches and allocators are warm.
const WARM_UP: Duration = Duration::from_millis(500);

/// Durable callbacks a second, beside the same HTTP stack without storage
#[derive(Debug, clap::Parser)]
#[command(name = "ingest")]
struct Args {
    /// Connections that call back at the same time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Measured seconds of each round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=60))]
    seconds: u8,
    /// Rounds of each server; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=25))]
    rounds: u8,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Also write docs/performance.md
    #[arg(long)]
    write: bool,
    /// Be a server: how this program starts its child
    #[arg(long, hide = true)]
    server: Option<Role>,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// A server that this program can be.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Role {
    Ceiling,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(Role::Ceiling) = args.server {
        // As many threads as reelhook has.
        return tokio::runtime::Runtime::new()?.block_on(ceiling::serve());
    }
    // One thread: the load generator takes its turn on the cores and leaves the rest to the server.
    let report = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(measure(&args))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", report.for_people());
    }
    if args.write {
        report.write()?;
    }
    Ok(())
}

async fn measure(args: &Args) -> anyhow::Result<Report> {
    let machine = Machine::this();
    // Under `target`, where a disk is: /tmp may be memory, and syncing memory is no feat.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let fsync = disk::measure(dir.path())?;
    let load = Load {
        connections: args.connections,
        warm_up: WARM_UP,
        measured: Duration::from_secs(args.seconds.into()),
    };
    let silent = SilentHost::start().await?;
    let (mut reelhook, mut ceiling) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        let data = dir.path().join(format!("round-{round}"));
        reelhook.push(measure_reelhook(&load, &data, &silent).await?);
        progress("reelhook", round, reelhook.last());
        ceiling.push(measure_ceiling(&load, &silent).await?);
        progress("ceiling", round, ceiling.last());
    }
    let sides = Sides {
        reelhook: Side::of(&reelhook),
        ceiling: Side::of(&ceiling),
    };
    Ok(Report::new(machine, &load, fsync, sides))
}

fn progress(name: &str, round: u8, measured: Option<&Measured>) {
    if let Some(measured) = measured {
        eprintln!(
            "round {round}: {name:<8} {:>8.0} callbacks/s",
            measured.per_second()
        );
    }
}

/// One round of the real program on a fresh data directory.
async fn measure_reelhook(load: &Load, data: &Path, silent: &SilentHost) -> anyhow::Result<Measured> {
    let server = Server::reelhook(data)?;
    let measured = load.run(&server, silent.port).await?;
    // Killed, not stopped: what counts is what was on disk when the answers left.
    drop(server);
    check_deliveries(data, measured.acknowledged).await?;
    std::fs::remove_dir_all(data)?;
    Ok(measured)
}

async fn measure_ceiling(load: &Load, silent: &SilentHost) -> anyhow::Result<Measured> {
    load.run(&Server::ceiling()?, silent.port).await
}

/// The database must hold exactly what was answered 200, with a task and a queued download each.
async fn check_deliveries(data: &Path, acknowledged: u64) -> anyhow::Result<()> {
    let options = SqliteConnectOptions::new().filename(data.join("reelhook.db"));
    let mut database = options.connect().await?;
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM deliveries WHERE verdict = 'accepted'), (SELECT count(*) FROM tasks),
                (SELECT count(*) FROM downloads)",
    )
    .fetch_one(&mut database)
    .await?;
    database.close().await?;
    for (at, table) in ["deliveries", "tasks", "downloads"].into_iter().enumerate() {
        let found: i64 = row.try_get(at)?;
        ensure!(
            u64::try_from(found) == Ok(acknowledged),
            "{acknowledged} callbacks were answered 200, but {found} {table} are in the database"
        );
    }
    Ok(())
}

/// The host that all announced files lie on: it takes every connection and never says a word.
///
/// The one download that the server is allowed then waits for ever, and all others stay queued. So the whole of ingest is
/// measured, queueing included, and no fetching.
struct SilentHost {
    port: u16,
    _accepting: tokio::task::JoinSet<()>,
}

impl SilentHost {
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("no loopback port")?;
        let port = listener.local_addr()?.port();
        let mut accepting = tokio::task::JoinSet::new();
        accepting.spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                held.push(stream);
            }
        });
        Ok(Self {
            port,
            _accepting: accepting,
        })
    }
}
