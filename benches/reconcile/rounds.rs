//! The asking watched for a while, and then callbacks in turn with and without it, all on one data directory.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures_util::future::try_join_all;
use serde_json::json;

use crate::Args;
use crate::provider::{Asked, Provider};
use crate::report::{Asking, Report};
use crate::rig::callback::{Callbacks, KEY};
use crate::rig::machine::Machine;
use crate::rig::numbers::count;
use crate::rig::progress::Progress;
use crate::rig::server::{Server, get};
use crate::wire::Connection;

/// A server that takes longer to be ready is stuck.
const LONGEST_START: Duration = Duration::from_mins(1);
/// What a server that has just begun to ask still takes.
const SETTLING: Duration = Duration::from_secs(5);
/// Connections that call back.
const CONNECTIONS: u64 = 16;
/// Each round of callbacks, and the load before it.
const MEASURED: Duration = Duration::from_secs(4);
const WARM_UP: Duration = Duration::from_millis(500);
/// The seconds that a thousand announcements are expected to take, for the estimate only.
const PER_THOUSAND: f64 = 0.1;

/// Runs everything.
pub(crate) async fn measure(args: &Args) -> anyhow::Result<Report> {
    let provider = Provider::start().await?;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let bench = Bench {
        dir: dir.path(),
        api: provider.addr,
        asked: provider.asked.clone(),
        media: TcpListener::bind(("127.0.0.1", 0))?,
        args,
    };
    tokio::select! {
        report = bench.run() => report,
        ended = provider.answer() => {
            ended?;
            bail!("the provider answers no more")
        }
    }
}

struct Bench<'a> {
    /// Under `target`, where a disk is: /tmp may be memory.
    dir: &'a Path,
    api: SocketAddr,
    asked: Asked,
    /// The host of the announced files takes connections and says nothing: downloads stay out of the picture.
    media: TcpListener,
    args: &'a Args,
}

impl Bench<'_> {
    async fn run(&self) -> anyhow::Result<Report> {
        let machine = Machine::this();
        let rounds = f64::from(self.args.rounds);
        let round = (WARM_UP + MEASURED).as_secs_f64();
        let watched = (SETTLING + Duration::from_secs(self.args.seconds)).as_secs_f64();
        let announcing = PER_THOUSAND * f64::from(self.args.thousands);
        let progress = Progress::new(announcing + watched + 2.0 * rounds * round);

        let server = self.serve(true).await?;
        let announced = self.announce(&server).await?;
        progress.step(announcing, &format!("announced in {announced:.1} s"));
        let asking = self.watch(&server).await?;
        drop(server);
        progress.step(watched, &format!("{:.1} questions a second", asking.rate()));
        let mut report = Report::new(machine, self.args, (announced, asking));
        for n in 1..=self.args.rounds {
            for asks in [true, false] {
                let rate = self.callbacks(asks, n.into()).await?;
                let how = if asks { "with" } else { "without" };
                progress.step(
                    round,
                    &format!("round {n}: {rate:.0} callbacks a second {how} the asking"),
                );
                let side = if asks {
                    &mut report.with
                } else {
                    &mut report.without
                };
                side.push(rate);
            }
        }
        report.judge();
        Ok(report)
    }

    /// A server that is ready, with a key of the provider's API or without.
    async fn serve(&self, asks: bool) -> anyhow::Result<Server> {
        let key = if asks { "api_key = \"key\"" } else { "" };
        let text = format!(
            "listen = \"127.0.0.1:0\"\ndata_dir = '{}'\n\
             [sources.kie]\nhmac_keys = [\"{KEY}\"]\napi_url = \"http://{}\"\napi_queries = 1000\n{key}\n\
             [reconcile]\nmax_per_second = {}\n[egress]\nallow_cidrs = [\"127.0.0.0/8\"]\n\
             [downloads]\nconcurrency = 1\nper_host = 1\nidle_timeout = \"10m\"\n",
            self.dir.join("data").display(),
            self.api,
            self.args.limit,
        );
        let config = self.dir.join("config.toml");
        std::fs::write(&config, text)?;
        let server = Server::reelhook(&config)?;
        let began = Instant::now();
        let mut connection = Connection::open(server.addr).await?;
        while get(&mut connection, "/readyz").await?.0 != 200 {
            ensure!(began.elapsed() < LONGEST_START, "the server is not ready");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(server)
    }

    /// Announces all tasks, each due at once; the seconds that it took.
    async fn announce(&self, server: &Server) -> anyhow::Result<f64> {
        let mut connection = Connection::open(server.addr).await?;
        let began = Instant::now();
        for thousand in 0..self.args.thousands {
            let task = |n| json!({"task_id": format!("{thousand}-{n}"), "family": "veo", "ask": "now"});
            let body = json!((0..1_000).map(task).collect::<Vec<_>>()).to_string();
            let request = format!(
                "POST /v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let status = connection.status_of(request.as_bytes()).await?;
            ensure!(status == 201, "an announcement was answered {status}");
            connection.body().await?;
        }
        Ok(began.elapsed().as_secs_f64())
    }

    async fn watch(&self, server: &Server) -> anyhow::Result<Asking> {
        tokio::time::sleep(SETTLING).await;
        let (memory_before, cpu_before) = (server.resident_memory()?, server.cpu_time()?);
        let began = Instant::now();
        tokio::time::sleep(Duration::from_secs(self.args.seconds)).await;
        let ended = Instant::now();
        let cpu = server.cpu_time()?.saturating_sub(cpu_before);
        Ok(Asking {
            seconds: (ended - began).as_secs_f64(),
            questions: self.asked.between(began, ended),
            most_in_a_second: self.asked.most_in_a_second(),
            memory_before,
            memory_after: server.resident_memory()?,
            cpu_seconds: cpu.as_secs_f64(),
        })
    }

    /// Callbacks a second that a server acknowledges while it asks, or while it does not.
    async fn callbacks(&self, asks: bool, round: u64) -> anyhow::Result<f64> {
        let server = self.serve(asks).await?;
        let port = self.media.local_addr()?.port();
        let began = Instant::now() + WARM_UP;
        let caller = |n| {
            let seed = (round * 2 + u64::from(asks)) * CONNECTIONS + n;
            call_back(server.addr, Callbacks::new(seed, port), began)
        };
        let acknowledged: usize = try_join_all((0..CONNECTIONS).map(caller)).await?.iter().sum();
        let asked = self.asked.between(began, began + MEASURED);
        ensure!(asks == (asked > 0), "{asked} questions were asked");
        Ok(count(acknowledged) / MEASURED.as_secs_f64())
    }
}

/// Sends one callback after the other; how many were acknowledged in the measured time.
async fn call_back(addr: SocketAddr, mut callbacks: Callbacks, from: Instant) -> anyhow::Result<usize> {
    let mut connection = Connection::open(addr).await?;
    let mut acknowledged = 0;
    while Instant::now() < from + MEASURED {
        let status = connection.status_of(callbacks.next()).await;
        let status = status.context("a connection broke; is the server still there?")?;
        ensure!(status == 200, "a callback was answered {status}");
        connection.body().await?;
        acknowledged += usize::from(Instant::now() >= from);
    }
    Ok(acknowledged)
}
