//! Chromium, driven by playwright-core: one for all tests of this program, told what to do in lines of JSON.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::support::variable;

/// How long one thing may take that a page is told to do, with the start of the browser. The driver gives up earlier and
/// says at what.
const PATIENCE: Duration = Duration::from_secs(90);

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Value, String>>>>>;

/// The driver, which lives as long as this process: it ends when its standard input does.
pub(crate) struct Driver {
    orders: Mutex<ChildStdin>,
    waiting: Waiting,
    numbers: AtomicU64,
    _process: Child,
}

/// The one browser, or why there is none.
pub(crate) fn driver() -> Result<&'static Driver, &'static str> {
    static DRIVER: OnceLock<Result<Driver, String>> = OnceLock::new();
    let started = DRIVER.get_or_init(|| what_is_missing().map_or_else(|| Ok(Driver::start()), Err));
    started.as_ref().map_err(String::as_str)
}

fn what_is_missing() -> Option<String> {
    let answers = |program: &str| {
        let said = Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        said.is_ok_and(|status| status.success())
    };
    if !Path::new(&chromium()).exists() || !answers("node") {
        return Some("chromium or node is missing: apt install chromium nodejs npm".to_owned());
    }
    let modules = here().join("node_modules");
    let is_there = |module| modules.join(module).join("package.json").exists();
    (!is_there("playwright-core") || !is_there("axe-core"))
        .then(|| "playwright-core or axe-core is missing: npm ci --prefix tests/browser".to_owned())
}

/// Where Debian puts it, unless the machine has it elsewhere.
fn chromium() -> String {
    variable("REELHOOK_CHROMIUM").unwrap_or_else(|| "/usr/bin/chromium".to_owned())
}

/// Where scripts, and what npm brings, are.
fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser")
}

impl Driver {
    fn start() -> Self {
        let mut process = Command::new("node")
            .arg(here().join("driver.mjs"))
            .arg(chromium())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts");
        let orders = process.stdin.take().expect("piped");
        let answers = process.stdout.take().expect("piped");
        let waiting = Waiting::default();
        let hears = waiting.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(answers).lines() {
                hear(&hears, &line.expect("lines of text"));
            }
            // Whoever still waits sees that nobody will answer.
            hears.lock().unwrap().clear();
        });
        Self {
            orders: Mutex::new(orders),
            waiting,
            numbers: AtomicU64::new(1),
            _process: process,
        }
    }

    /// A number that nothing else has.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Has a page do something; gives what it says.
    pub(crate) async fn order(&self, page: u64, verb: &str, how: Value) -> Result<Value, String> {
        let (id, mut order) = (self.number(), how);
        order["id"] = json!(id);
        order["page"] = json!(page);
        order["verb"] = json!(verb);
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap().insert(id, sender);
        writeln!(self.orders.lock().unwrap(), "{order}")
            .map_err(|error| format!("the driver is gone: {error}"))?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err("the driver ended".to_owned()),
            Err(_) => Err("the driver does not answer".to_owned()),
        }
    }
}

fn hear(waiting: &Waiting, line: &str) {
    let mut answer: Value = serde_json::from_str(line).expect("the driver says JSON");
    let id = answer["id"].as_u64().expect("an id");
    let said = match answer["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(answer["value"].take()),
    };
    if let Some(sender) = waiting.lock().unwrap().remove(&id) {
        // A test that failed meanwhile does not listen any more.
        let _ = sender.send(said);
    }
}
