//! A server under test: a child process, so that it shares nothing with the load but the machine.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use crate::callback::KEY;

/// Clock ticks a second in `/proc`: 100 on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    child: Child,
    /// Kept, for a server that has more to say than its address.
    stdout: BufReader<ChildStdout>,
}

impl Server {
    /// The real program on the data directory `data`, which has to be new.
    ///
    /// Everything is at its default, logs included, but for what keeps downloads out of the picture.
    pub(crate) fn reelhook(data: &Path) -> anyhow::Result<Self> {
        fs::create_dir(data)?;
        let config = data.join("config.toml");
        let text = format!(
            "listen = \"127.0.0.1:0\"\ndata_dir = '{}'\n[sources.kie]\nhmac_keys = [\"{KEY}\"]\n\
             [egress]\nallow_cidrs = [\"127.0.0.0/8\"]\n\
             [downloads]\nconcurrency = 1\nper_host = 1\nidle_timeout = \"10m\"\n",
            data.display()
        );
        fs::write(&config, text)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_reelhook"));
        command.arg("serve").arg("--config").arg(config);
        Self::spawn(command)
    }

    /// The minimal program: this one, started again.
    pub(crate) fn ceiling() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--server", "ceiling"]);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Log lines are made and written, only nobody keeps them.
            .stderr(Stdio::null())
            .spawn()
            .context("the server cannot be started")?;
        let stdout = child.stdout.take().expect("it is piped");
        let unbound = ([0, 0, 0, 0], 0).into();
        // From here on a failure kills the child.
        let mut server = Self {
            addr: unbound,
            child,
            stdout: BufReader::new(stdout),
        };
        let mut lines = server.stdout.by_ref().lines().map_while(Result::ok);
        server.addr = lines
            .find_map(|line| callback_addr(&line))
            .context("the server ended before it listened")?;
        Ok(server)
    }

    /// The processor time that it has used.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in parentheses may hold spaces; user and system time are the 12th and 13th field after it.
        let fields = stat.rsplit_once(") ").context("no process name")?.1;
        let ticks: u32 = fields
            .split(' ')
            .skip(11)
            .take(2)
            .map(str::parse::<u32>)
            .sum::<Result<_, _>>()?;
        Ok(TICK * ticks)
    }

    /// The most memory it ever held, in bytes.
    pub(crate) fn peak_memory(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.context("no VmHWM")?.trim().trim_end_matches(" kB");
        Ok(kib.trim().parse::<u64>()? * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in `POST http://127.0.0.1:8080/callbacks/kie`.
fn callback_addr(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("POST http://")?;
    rest.split_once("/callbacks/")?.0.parse().ok()
}
