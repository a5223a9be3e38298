//! Other receivers of callbacks: what they are, how they are installed and started, and what they keep.
//!
//! Their sources are in `peers/`. Each is what a careful person would write with that tool in an hour, in one process, at
//! the tool's defaults for production, and none of them has to queue files as reelhook does.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::net::TcpStream;

use crate::rig::callback::KEY;
use crate::rig::server::Server;

const PACKAGE_JSON: &str = include_str!("peers/package.json");
const EXPRESS: &str = include_str!("peers/express.mjs");
const EXPRESS_SQLITE: &str = include_str!("peers/express_sqlite.mjs");
const REQUIREMENTS: &str = include_str!("peers/requirements.txt");
const FASTAPI_SQLITE: &str = include_str!("peers/fastapi_sqlite.py");
const HOOKS: &str = include_str!("peers/hooks.json");
const KEEP: &str = include_str!("peers/keep.sh");

const NODE: &str = "node_modules/node/bin/node";

/// What a peer may take until it listens.
const LONGEST_START: Duration = Duration::from_secs(20);

/// Which program a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Express,
    ExpressSqlite,
    FastApi,
    Webhook,
}

/// A receiver, and what it does for a callback.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Its directory among the installed ones.
    pub(crate) home: &'static str,
    pub(crate) verifies: bool,
    /// What is left of a callback after a crash.
    pub(crate) keeps: &'static str,
    pub(crate) dedupes: &'static str,
    kind: Kind,
}

pub(crate) const PEERS: [Peer; 4] = [
    Peer {
        name: "Express, as documented",
        home: "node",
        verifies: false,
        keeps: "nothing",
        dedupes: "in memory",
        kind: Kind::Express,
    },
    Peer {
        name: "Express + SQLite",
        home: "node",
        verifies: true,
        keeps: "row",
        dedupes: "by row",
        kind: Kind::ExpressSqlite,
    },
    Peer {
        name: "FastAPI + SQLite",
        home: "python",
        verifies: true,
        keeps: "row",
        dedupes: "by row",
        kind: Kind::FastApi,
    },
    Peer {
        name: "webhook + shell",
        home: "webhook",
        verifies: false,
        keeps: "file",
        dedupes: "by file name",
        kind: Kind::Webhook,
    },
];

impl Peer {
    /// Installs it in `home` unless it is there; returns its version.
    pub(crate) fn install(&self, home: &Path) -> anyhow::Result<String> {
        fs::create_dir_all(home)?;
        match self.kind {
            Kind::Express | Kind::ExpressSqlite => install_node(home),
            Kind::FastApi => install_python(home),
            Kind::Webhook => install_webhook(home),
        }
    }

    /// Starts it; whatever it keeps goes to `dir`.
    pub(crate) async fn serve(&self, home: &Path, dir: &Path) -> anyhow::Result<Server> {
        // Free now, and nobody else on this machine is expected to take it meanwhile.
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?
            .local_addr()?
            .port();
        let mut command = match self.kind {
            Kind::Express => node(home, "express.mjs"),
            Kind::ExpressSqlite => node(home, "express_sqlite.mjs"),
            Kind::FastApi => {
                let mut command = Command::new(home.join("bin/python"));
                command.arg(home.join("fastapi_sqlite.py"));
                command
            }
            Kind::Webhook => {
                fs::write(dir.join("keep.sh"), KEEP)?;
                fs::write(dir.join("hooks.json"), HOOKS)?;
                let mut command = Command::new(home.join("usr/bin/webhook"));
                command.args(["-hooks", "hooks.json", "-urlprefix", "callbacks"]);
                command.args(["-ip", "127.0.0.1", "-port", &port.to_string()]);
                command
            }
        };
        command
            .current_dir(dir)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("NODE_ENV", "production")
            .env("PORT", port.to_string())
            .env("HMAC_KEY", KEY);
        listening(command, port).await
    }

    /// Whether it keeps something that can be counted.
    pub(crate) fn durable(&self) -> bool {
        self.kind != Kind::Express
    }

    /// Fails unless it kept as many callbacks in `dir` as it acknowledged.
    pub(crate) async fn check(&self, dir: &Path, acknowledged: u64) -> anyhow::Result<()> {
        let kept = match self.kind {
            Kind::Express => return Ok(()),
            Kind::ExpressSqlite | Kind::FastApi => rows(dir).await?,
            Kind::Webhook => files(dir)?,
        };
        ensure!(
            kept == acknowledged,
            "{acknowledged} callbacks were answered 200, but {kept} were kept"
        );
        Ok(())
    }
}

/// A server that is told to listen on `port` of this machine, once it does.
async fn listening(mut command: Command, port: u16) -> anyhow::Result<Server> {
    command.stdout(Stdio::null());
    let mut server = Server::start(command)?;
    server.addr = ([127, 0, 0, 1], port).into();
    let deadline = Instant::now() + LONGEST_START;
    while TcpStream::connect(server.addr).await.is_err() {
        ensure!(!server.ended(), "it ended before it listened");
        ensure!(Instant::now() < deadline, "it does not listen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(server)
}

fn node(home: &Path, script: &str) -> Command {
    let mut command = Command::new(home.join(NODE));
    command.arg(home.join(script));
    command
}

async fn rows(dir: &Path) -> anyhow::Result<u64> {
    let options = SqliteConnectOptions::new().filename(dir.join("callbacks.db"));
    let mut database = options.connect().await?;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM callbacks")
        .fetch_one(&mut database)
        .await?;
    database.close().await?;
    Ok(u64::try_from(rows)?)
}

fn files(dir: &Path) -> anyhow::Result<u64> {
    let kept = fs::read_dir(dir.join("kept"))?;
    Ok(u64::try_from(kept.count())?)
}

/// Node itself comes as a package too: the machine's own may be years old.
fn install_node(home: &Path) -> anyhow::Result<String> {
    fs::write(home.join("express.mjs"), EXPRESS)?;
    fs::write(home.join("express_sqlite.mjs"), EXPRESS_SQLITE)?;
    once(home, PACKAGE_JSON, || {
        fs::write(home.join("package.json"), PACKAGE_JSON)?;
        run(home, "npm", &["install", "--no-audit", "--no-fund"])
    })?;
    let node = output(home, NODE, &["--version"])?;
    let express = fs::read(home.join("node_modules/express/package.json"))?;
    let express: serde_json::Value = serde_json::from_slice(&express)?;
    let version = express["version"].as_str().context("Express has no version")?;
    Ok(format!("Express {version}, Node {}", node.trim()))
}

fn install_python(home: &Path) -> anyhow::Result<String> {
    fs::write(home.join("fastapi_sqlite.py"), FASTAPI_SQLITE)?;
    once(home, REQUIREMENTS, || {
        fs::write(home.join("requirements.txt"), REQUIREMENTS)?;
        run(home, "python3", &["-m", "venv", "."])?;
        run(home, "bin/pip", &["install", "-q", "-r", "requirements.txt"])
    })?;
    let python = output(home, "bin/python", &["--version"])?;
    let packages = REQUIREMENTS.lines().filter(|line| !line.is_empty());
    Ok(format!(
        "{}, {}",
        packages.collect::<Vec<_>>().join(", ").replace("==", " "),
        python.trim()
    ))
}

/// Debian's package, unpacked and not installed, which needs no rights.
fn install_webhook(home: &Path) -> anyhow::Result<String> {
    once(home, "webhook", || {
        run(home, "apt-get", &["download", "-q", "webhook"])?;
        run(home, "sh", &["-c", "dpkg-deb -x webhook_*.deb ."])
    })?;
    let version = output(home, "usr/bin/webhook", &["-version"])?;
    Ok(version.trim().to_owned())
}

/// Installs unless that was done for the same `recipe`.
fn once(home: &Path, recipe: &str, install: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let done = home.join("installed");
    if fs::read_to_string(&done).is_ok_and(|earlier| earlier == recipe) {
        return Ok(());
    }
    install()?;
    Ok(fs::write(done, recipe)?)
}

fn run(home: &Path, program: &str, args: &[&str]) -> anyhow::Result<()> {
    output(home, program, args).map(drop)
}

/// What a program prints that ran in `home`; a relative path to it counts from there.
fn output(home: &Path, program: &str, args: &[&str]) -> anyhow::Result<String> {
    let local = home.join(program);
    let path = if program.contains('/') {
        local.as_path()
    } else {
        Path::new(program)
    };
    let output = Command::new(path)
        .args(args)
        .current_dir(home)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{program} is not there"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    let last = told.trim_end().lines().next_back().unwrap_or_default();
    ensure!(output.status.success(), "{program} failed: {last}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
