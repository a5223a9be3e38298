//! The program that is attacked, and what the attackers send.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reelhook::clock::Clock;
use reelhook::provider::signature::sign;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::PATIENCE;
use crate::program::{Program, Serving};
use crate::wire::Connection;

const KEY: &str = "test-webhook-hmac-key";

/// One test at a time.
static TURN: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);

/// A server that takes signed callbacks from proxies on this machine.
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    program: Program,
    serving: Serving,
    _turn: MutexGuard<'static, ()>,
}

impl Target {
    /// With this under `[ingest]`.
    pub(crate) fn start(ingest: &str) -> Self {
        Self::run(|| Self::program(ingest))
    }

    /// The same where it may not have more files open than this.
    pub(crate) fn start_with_files(files: u16) -> Self {
        Self::run(|| {
            let mut program = Self::program("");
            program.files = Some(files);
            program
        })
    }

    fn program(ingest: &str) -> Program {
        Program::configured(&format!(
            "trusted_proxies = [\"127.0.0.0/8\"]\n[sources.kie]\nhmac_keys = [\"{KEY}\"]\n[ingest]\n{ingest}"
        ))
    }

    fn run(program: impl FnOnce() -> Program) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let program = program();
        let serving = program.serve(&["--log-level", "warn,reelhook::cli=info"]);
        Self {
            addr: serving.addr,
            program,
            serving,
            _turn: turn,
        }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.expect("the server accepts")
    }

    /// How long a good callback on a connection of its own takes to be answered 200.
    pub(crate) async fn good(&self) -> Duration {
        let started = Instant::now();
        let answered = async {
            let mut connection = Connection::open(self.addr).await?;
            connection.status_of(&callback("good", Signed::Well, "")).await
        };
        let answered = tokio::time::timeout(PATIENCE, answered);
        assert_eq!(answered.await.expect("an answer in time").unwrap(), 200);
        started.elapsed()
    }

    /// The most memory it ever had, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.serving.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Stops it; gives its log and its database.
    pub(crate) fn stop(mut self) -> (String, PathBuf, Program) {
        self.serving.signal("TERM");
        assert_eq!(self.serving.wait(), Some(0));
        let log = self.serving.err.text();
        (log, self.program.path().join("data/reelhook.db"), self.program)
    }
}

/// How a callback is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signed {
    Well,
    Badly,
}

/// A callback about `task_id`, with more header lines, each ending in CR LF.
pub(crate) fn callback(task_id: &str, signed: Signed, lines: &str) -> Vec<u8> {
    let body = format!(r#"{{"code":501,"msg":"Failed","data":{{"taskId":"{task_id}"}}}}"#);
    let head = head(task_id, signed, lines);
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The head of a callback as far as before its length.
pub(crate) fn head(task_id: &str, signed: Signed, lines: &str) -> String {
    let timestamp = (Clock::system().now() / 1000).to_string();
    let key = if signed == Signed::Well {
        KEY
    } else {
        "another key"
    };
    let signature = sign(key, task_id, &timestamp);
    format!(
        "POST /callbacks/kie HTTP/1.1\r\nhost: localhost\r\n\
         x-webhook-timestamp: {timestamp}\r\nx-webhook-signature: {signature}\r\n{lines}"
    )
}

/// All that comes until the other side closes or breaks off.
pub(crate) async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let read = async {
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            all.extend_from_slice(&buffer[..length]);
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("it ends");
    all
}

/// Writes as much as the other side lets us.
pub(crate) async fn push(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let pushed = tokio::time::timeout(PATIENCE, stream.write_all(bytes));
    pushed.await.expect("it is taken or refused in time")
}

/// Statuses of the answers in what came.
pub(crate) fn statuses(answers: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answers);
    let statuses = text.split("HTTP/1.1 ").skip(1);
    statuses
        .filter_map(|answer| answer.get(..3)?.parse().ok())
        .collect()
}
