//! A server under test: a child process, so that it shares nothing with the load but the machine.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use crate::wire::Connection;

/// Clock ticks a second in `/proc`: 100 on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    child: Child,
    /// Kept, for a server that has more to say than its address.
    stdout: Option<BufReader<ChildStdout>>,
}

impl Server {
    /// The real program, configured by the file `config`.
    pub(crate) fn reelhook(config: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reelhook"));
        command.arg("serve").arg("--config").arg(config);
        Self::told(command)
    }

    /// One of ours, which says where it listens.
    pub(crate) fn told(mut command: Command) -> anyhow::Result<Self> {
        command.env_clear().stdout(Stdio::piped());
        let mut server = Self::start(command)?;
        let stdout = server.child.stdout.take().expect("it is piped");
        let stdout = server.stdout.insert(BufReader::new(stdout));
        let mut lines = stdout.by_ref().lines().map_while(Result::ok);
        server.addr = lines
            .find_map(|line| callback_addr(&line))
            .context("the server ended before it listened")?;
        Ok(server)
    }

    /// Whether it is gone.
    pub(crate) fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Starts a program that has not said yet where it listens.
    pub(crate) fn start(mut command: Command) -> anyhow::Result<Self> {
        let child = command
            .stdin(Stdio::null())
            // Log lines are made and written, only nobody keeps them.
            .stderr(Stdio::null())
            .spawn()
            .context("the server cannot be started")?;
        // From here on a failure kills the child.
        Ok(Self {
            addr: ([0, 0, 0, 0], 0).into(),
            child,
            stdout: None,
        })
    }

    /// The processor time that it has used.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // The name in parentheses may hold spaces. From the 12th field after it: user and system time, and those of
        // children that ended.
        let fields = stat.rsplit_once(") ").context("no process name")?.1;
        let ticks: u32 = fields
            .split(' ')
            .skip(11)
            .take(4)
            .map(str::parse::<u32>)
            .sum::<Result<_, _>>()?;
        Ok(TICK * ticks)
    }

    /// The most memory it ever held, in bytes.
    pub(crate) fn peak_memory(&self) -> anyhow::Result<u64> {
        self.memory("VmHWM:")
    }

    /// The memory it holds now, in bytes.
    pub(crate) fn resident_memory(&self) -> anyhow::Result<u64> {
        self.memory("VmRSS:")
    }

    /// What the system calls it.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn memory(&self, name: &str) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line
            .context("no such line in its status")?
            .trim_end_matches(" kB");
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

/// Status and body.
pub(crate) async fn get(connection: &mut Connection, path: &str) -> std::io::Result<(u16, Vec<u8>)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    let status = connection.status_of(request.as_bytes()).await?;
    Ok((status, connection.body().await?.to_vec()))
}
