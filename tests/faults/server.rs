//! The real program as a child process.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

/// How long a start may take, on a busy machine and after any crash.
const START: Duration = Duration::from_secs(30);
/// Log lines shown when something went wrong.
const TAIL: usize = 40;

/// A running `reelhook serve`. Dropping it kills it, so that a failing test leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    log: Arc<Log>,
}

/// What the child wrote to standard error.
#[derive(Debug, Default)]
struct Log {
    tail: Mutex<VecDeque<String>>,
    faults: Mutex<Vec<String>>,
}

impl Server {
    /// Starts the program and waits until it listens.
    pub(crate) async fn start(config: &Path) -> (Self, SocketAddr) {
        let (server, listening) = Self::spawn(config);
        match tokio::time::timeout(START, listening).await {
            Ok(Ok(addr)) => (server, addr),
            outcome => panic!("the server did not start ({outcome:?}):\n{}", server.log.tail()),
        }
    }

    /// Starts the program and waits for nothing.
    pub(crate) fn spawn(config: &Path) -> (Self, oneshot::Receiver<SocketAddr>) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_reelhook"))
            .arg("serve")
            .arg("--config")
            .arg(config)
            // Nothing but the file configures it, least of all our own REELHOOK_KILL_… variables.
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = child.stderr.take().expect("it is piped");
        let log = Arc::new(Log::default());
        let (sender, listening) = oneshot::channel();
        let noted = Arc::clone(&log);
        thread::spawn(move || noted.follow(stderr, sender));
        (Self { child, log }, listening)
    }

    /// Kills it with SIGKILL. It must have been running until then, and without faults.
    pub(crate) fn kill(mut self) {
        let ended = self.child.try_wait().expect("the child is ours");
        assert!(
            ended.is_none(),
            "the server ended by itself ({ended:?}):\n{}",
            self.log.tail()
        );
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
        let faults = self.log.faults.lock().unwrap();
        assert!(
            faults.is_empty(),
            "the server logged faults:\n{}",
            faults.join("\n")
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Log {
    fn follow(&self, stderr: ChildStderr, listening: oneshot::Sender<SocketAddr>) {
        let mut listening = Some(listening);
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let record: Value = serde_json::from_str(&line).unwrap_or_default();
            let addr = record["listen"].as_str().and_then(|addr| addr.parse().ok());
            if let (Some(addr), Some(sender)) = (addr, listening.take_if(|_| addr.is_some())) {
                let _ = sender.send(addr);
            }
            // What is no JSON is a panic, or somebody who prints past the log.
            if record.is_null() || record["level"] == "ERROR" {
                self.faults.lock().unwrap().push(line.clone());
            }
            let mut tail = self.tail.lock().unwrap();
            tail.push_back(line);
            if tail.len() > TAIL {
                tail.pop_front();
            }
        }
    }

    fn tail(&self) -> String {
        let tail = self.tail.lock().unwrap();
        let lines: Vec<_> = tail.iter().map(String::as_str).collect();
        lines.join("\n")
    }
}
