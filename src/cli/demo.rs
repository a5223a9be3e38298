//! `demo`: a server and a simulated provider in one process, to watch how callbacks that come late, twice or never end well.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::answers::{Task, TaskPage};
use super::client::Server;
use super::human::{self, FAINT, STRONG, painted};
use super::instance::Instance;
use super::simulate::{Stop, Target, Trickle, duration, next_event, random_seed};
use super::{Exit, Session};
use crate::config::{Config, Egress, Reconcile, Secret, Source, SourceName};
use crate::shutdown::Tasks;
use crate::simulate::{Faults, Links, Settings, Simulator};
use crate::telemetry;

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address and port of the server, on this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where database and files lie [default: a directory of its own, removed at the end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Keep that directory
    #[arg(long)]
    keep: bool,
    /// Time between two tasks
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    every: Duration,
    /// Decides what goes wrong, task by task [default: a random one]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

/// How often the server is asked what became of the tasks.
const LOOK: Duration = Duration::from_millis(500);
/// How long what is under way may take when it ends.
const GRACE: Duration = Duration::from_secs(5);

/// Runs both until interrupted.
pub(super) async fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let listen = with_port(args.listen)?;
    let _logs = telemetry::init(telemetry::Format::Text, "warn").context("log lines cannot be set up")?;
    let mut stop = Stop::install()?;
    let (data_dir, is_ours) = match args.data_dir {
        Some(data_dir) => (data_dir, false),
        None => (own_directory()?, !args.keep),
    };
    let seed = args.seed.map_or_else(random_seed, Ok)?;
    let done = async {
        let demo = Demo::start(listen, &data_dir, seed, session).await?;
        session.print(&demo.banner(&data_dir, is_ours))?;
        session.flush()?;
        let ended = demo.until(&mut stop, args.every, session).await;
        demo.end(session).await.and(ended)
    };
    let done = done.await;
    if is_ours {
        let removed = std::fs::remove_dir_all(&data_dir);
        removed.with_context(|| format!("cannot remove {}", data_dir.display()))?;
    }
    done.map(|()| Exit::Fine)
}

/// The address with a port that can be told beforehand, as URLs have to name it.
fn with_port(listen: SocketAddr) -> anyhow::Result<SocketAddr> {
    if !listen.ip().is_loopback() {
        anyhow::bail!("--listen must be on this machine, such as 127.0.0.1:8080: nobody needs a token here");
    }
    let free = TcpListener::bind(listen).and_then(|listener| listener.local_addr());
    free.with_context(|| format!("cannot listen on {listen}; --listen 127.0.0.1:0 takes a free port"))
}

/// A directory that nobody else has.
fn own_directory() -> anyhow::Result<PathBuf> {
    let random = getrandom::u64().map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    let path = std::env::temp_dir().join(format!("reelhook-demo-{random:016x}"));
    std::fs::create_dir(&path)
        .with_context(|| format!("cannot make {}; name a --data-dir", path.display()))?;
    Ok(path)
}

fn settings(seed: u64, hmac_key: &Secret) -> Settings {
    Settings {
        hmac_key: Some(hmac_key.clone()),
        seed,
        takes: Duration::from_secs(4),
        film_bytes: 256 << 10,
        faults: Faults {
            drop: 0.2,
            duplicate: 0.2,
            fail: 0.1,
            reorder: Duration::from_secs(2),
        },
        links: Links {
            // So that links of results that have to be asked for are sometimes dead.
            expire: Duration::from_secs(15),
            ..Links::default()
        },
        ..Settings::default()
    }
}

/// The server's configuration, with short waits: a person is watching.
fn config(
    listen: SocketAddr,
    data_dir: &Path,
    simulator: &Simulator,
    hmac_key: Secret,
) -> anyhow::Result<Config> {
    let source = Source {
        hmac_keys: vec![hmac_key],
        api_url: simulator.url().parse()?,
        api_key: Some(simulator.key().clone()),
        ..Source::default()
    };
    let config = Config {
        listen,
        public_url: Some(format!("http://{listen}").parse()?),
        data_dir: data_dir.to_owned(),
        shutdown_grace: GRACE,
        sources: [(SourceName::kie(), source)].into(),
        egress: Egress {
            allow_cidrs: vec!["127.0.0.0/8".parse()?],
            ..Egress::default()
        },
        reconcile: Reconcile {
            after: Duration::from_secs(10),
            every: Duration::from_secs(5),
            ..Reconcile::default()
        },
        ..Config::default()
    };
    Ok(config)
}

/// Everything that runs.
struct Demo {
    simulator: Simulator,
    /// What the simulator runs on.
    tasks: Tasks,
    instance: Instance,
    server: Server,
    url: String,
}

impl Demo {
    async fn start(
        listen: SocketAddr,
        data_dir: &Path,
        seed: u64,
        session: &Session,
    ) -> anyhow::Result<Self> {
        let mut key = [0; 24];
        getrandom::fill(&mut key).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
        let hmac_key = Secret::new(hex::encode(key));
        let tasks = Tasks::new();
        let clock = session.clock.clone();
        let simulator = Simulator::start(settings(seed, &hmac_key), clock.clone(), tasks.clone())
            .await
            .context("the simulated provider cannot listen on loopback")?;
        let config = config(listen, data_dir, &simulator, hmac_key)?;
        let instance = Instance::start(&config, clock).await?;
        Ok(Self {
            simulator,
            tasks,
            instance,
            server: Server::of(&config)?,
            url: format!("http://{listen}"),
        })
    }

    fn banner(&self, data_dir: &Path, is_ours: bool) -> String {
        let (url, program) = (&self.url, human::program());
        let fate = if is_ours { ", removed at the end" } else { "" };
        format!(
            "reelhook demo: a server, and a simulated provider (seed {}) that loses callbacks, sends them twice, in any \
             order, fails, and lets links expire\n\n  look      {url}/v1/tasks\n  try       {program} tasks list \
             --server {url}\n  compare   {}/_sim/ledger, what really became of each task\n  data      {}{fate}\n\n\
             A task every few seconds, and a line once it is settled. Ctrl-C ends it.\n",
            self.simulator.settings().seed,
            self.simulator.url(),
            data_dir.display(),
        )
    }

    /// Submits to the server, as a client does that was written for the provider: with another base URL.
    fn trickle(&self) -> anyhow::Result<Trickle> {
        Trickle::new(Target {
            api: self.url.clone(),
            key: self.simulator.key().clone(),
            callback: None,
        })
    }

    /// Submits and shows until it is told to stop.
    async fn until(&self, stop: &mut Stop, every: Duration, session: &mut Session) -> anyhow::Result<()> {
        let mut trickle = self.trickle()?;
        let mut events = self.simulator.events();
        let mut submit = unhurried(every);
        let mut look = unhurried(LOOK);
        let mut shown = Shown::default();
        loop {
            let submitted = tokio::select! {
                () = stop.signal() => return Ok(()),
                () = self.instance.broke() => anyhow::bail!("the database writer failed; see the log above"),
                _ = look.tick() => {
                    for line in shown.changes(self.settled().await?) {
                        session.print(&line)?;
                    }
                    continue;
                }
                _ = submit.tick() => trickle.next().await,
                Some(event) = next_event(&mut events) => trickle.follow(&event).await,
            };
            if let Err(error) = submitted {
                session.note(&format!("not submitted: {error:#}"));
            }
        }
    }

    /// The newest tasks of which nothing more is awaited, oldest first.
    async fn settled(&self) -> anyhow::Result<Vec<Task>> {
        let page = self.server.get(&["v1", "tasks"], &[("limit", "200")]).await?;
        let mut tasks = page.read::<TaskPage>()?.tasks;
        tasks.retain(|task| {
            task.is_settled() && task.outcomes.iter().all(|outcome| outcome.state != "pending")
        });
        tasks.reverse();
        Ok(tasks)
    }

    /// Stops both, and sums up.
    async fn end(self, session: &mut Session) -> anyhow::Result<()> {
        let summary = self.summary().await;
        self.instance.stop().await;
        self.tasks.drain(GRACE).await;
        session.print(&summary?)?;
        Ok(())
    }

    async fn summary(&self) -> anyhow::Result<String> {
        let stats: serde_json::Value = self.server.get(&["v1", "stats"], &[]).await?.read()?;
        let [tasks, files] = [&stats["tasks"], &stats["files"]];
        let count = |of: &serde_json::Value, name: &str| of[name].as_u64().unwrap_or_default();
        Ok(format!(
            "\n{} succeeded, {} failed, {} not finished; {} stored, {} not (yet). {} had to be asked for, as no \
             callback came.",
            human::counted(count(tasks, "succeeded"), "task"),
            count(tasks, "failed"),
            count(tasks, "pending"),
            human::counted(count(files, "stored"), "file"),
            count(files, "queued") + count(files, "downloading") + count(files, "failed"),
            count(&stats, "repaired"),
        ))
    }
}

/// Ticks that are not made up for.
fn unhurried(every: Duration) -> Interval {
    let mut ticks = interval(every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The line that was printed last for each of the newest tasks.
#[derive(Debug, Default)]
struct Shown(HashMap<String, String>);

impl Shown {
    /// The lines of tasks that are settled, and were not or not in this way.
    fn changes(&mut self, settled: Vec<Task>) -> Vec<String> {
        let mut lines = Vec::new();
        let mut shown = HashMap::new();
        for task in settled {
            let line = line(&task);
            let before = self.0.remove(&task.task_id);
            if before.as_ref() != Some(&line) {
                lines.push(line.clone());
            }
            shown.insert(task.task_id, line);
        }
        self.0 = shown;
        lines
    }
}

/// What became of a task.
fn line(task: &Task) -> String {
    let bytes: u64 = task.files.iter().filter_map(|file| file.bytes).sum();
    let files = human::counted(task.files.len() as u64, "file");
    let what = match &task.failure {
        Some(failure) => human::clean(&failure.kind),
        None => format!("{files}, {}", human::size(bytes)),
    };
    let kinds: Vec<String> = task
        .outcomes
        .iter()
        .map(|outcome| human::clean(&outcome.kind))
        .collect();
    let asked = task
        .outcomes
        .iter()
        .any(|outcome| outcome.via.as_deref() == Some("poll"));
    let how = if asked { "asked for" } else { "called back" };
    let state = if task.is_stored() { "stored" } else { &task.state };
    format!(
        "{}  {}  {}  {what}  {}",
        painted(STRONG, &human::clean(&task.task_id)),
        human::state(state),
        kinds.join(" + "),
        painted(FAINT, how)
    )
}
