//! The real program as a child process.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::{PATIENCE, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_reelhook");
/// Log lines shown when something went wrong.
const TAIL: usize = 40;

/// What the program is started with, besides its configuration.
#[derive(Debug, Default)]
pub(crate) struct Launch {
    /// The program that runs ours, with its arguments. It must become our program, not stay its parent.
    pub(crate) through: Vec<OsString>,
    /// The environment.
    pub(crate) variables: Vec<(&'static str, String)>,
}

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
    /// Lines of level `ERROR`.
    errors: Mutex<Vec<String>>,
    /// What is no JSON: a panic, or somebody who prints past the log.
    panics: Mutex<Vec<String>>,
    has_ended: AtomicBool,
}

impl Server {
    /// Starts the program and waits until it listens.
    pub(crate) async fn start(config: &Path, launch: &Launch) -> (Self, SocketAddr) {
        let (server, listening) = Self::spawn(config, launch);
        match tokio::time::timeout(PATIENCE, listening).await {
            Ok(Ok(addr)) => (server, addr),
            outcome => panic!("the server did not start ({outcome:?}):\n{}", server.log.tail()),
        }
    }

    /// Starts the program and waits for nothing.
    pub(crate) fn spawn(config: &Path, launch: &Launch) -> (Self, oneshot::Receiver<SocketAddr>) {
        let mut words = launch.through.iter().cloned().chain([PROGRAM.into()]);
        let mut child = Command::new(words.next().expect("at least our own"))
            .args(words)
            .arg("serve")
            .arg("--config")
            .arg(config)
            // Nothing but the file configures it, least of all our own REELHOOK_KILL_… variables.
            .env_clear()
            .env(
                "PATH",
                "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
            )
            .envs(launch.variables.iter().map(|(name, value)| (name, value)))
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
        self.kill_now();
        let (errors, panics) = (self.log.errors.lock().unwrap(), self.log.panics.lock().unwrap());
        assert!(
            errors.is_empty() && panics.is_empty(),
            "the server logged faults:\n{}\n{}",
            errors.join("\n"),
            panics.join("\n"),
        );
    }

    /// Kills it with SIGKILL, whatever it logged. It must have been running until then.
    pub(crate) fn kill_despite_errors(&mut self) {
        self.kill_now();
    }

    /// The last lines that it logged.
    pub(crate) fn log(&self) -> String {
        self.log.tail()
    }

    /// What the program prints when it is asked for something over the API.
    pub(crate) fn command(addr: SocketAddr, args: &[&str]) -> String {
        let output = Command::new(PROGRAM)
            .args(args)
            .args(["--server", &format!("http://{addr}")])
            .env_clear()
            .output()
            .expect("the program starts");
        String::from_utf8(output.stdout).expect("it prints text")
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to stop in an orderly way.
    pub(crate) fn terminate(&self) {
        // The shell's own `kill`: it is there wherever there is a shell.
        let kill = format!("kill -TERM {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end, which is its own doing.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let status = until("the server ends", async || {
            self.child.try_wait().expect("the child is ours")
        })
        .await;
        // What it said last is read by then.
        until("its log ends", async || {
            self.log.has_ended.load(Ordering::SeqCst).then_some(())
        })
        .await;
        status
    }

    /// What it wrote besides its log: a panic, or why it aborts.
    pub(crate) fn said_beside_its_log(&self) -> String {
        self.log.panics.lock().unwrap().join("\n")
    }

    fn kill_now(&mut self) {
        let ended = self.child.try_wait().expect("the child is ours");
        assert!(
            ended.is_none(),
            "the server ended by itself ({ended:?}):\n{}",
            self.log.tail()
        );
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            println!("the server's log ends with:\n{}", self.log.tail());
        }
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
            if record.is_null() {
                self.panics.lock().unwrap().push(line.clone());
            } else if record["level"] == "ERROR" {
                self.errors.lock().unwrap().push(line.clone());
            }
            let mut tail = self.tail.lock().unwrap();
            tail.push_back(line);
            if tail.len() > TAIL {
                tail.pop_front();
            }
        }
        self.has_ended.store(true, Ordering::SeqCst);
    }

    fn tail(&self) -> String {
        let tail = self.tail.lock().unwrap();
        let lines: Vec<_> = tail.iter().map(String::as_str).collect();
        lines.join("\n")
    }
}
