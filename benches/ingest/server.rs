//! A server under test: a child process, so that it shares nothing with the load but the machine.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::net::TcpStream;

/// Clock ticks a second in `/proc`: 100 on every Linux.
const TICK: Duration = Duration::from_millis(10);
/// What a peer may take until it listens.
const LONGEST_START: Duration = Duration::from_secs(20);

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
        Self::spawn(command)
    }

    /// The minimal program: this one, started again.
    pub(crate) fn ceiling() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--server", "ceiling"]);
        Self::spawn(command)
    }

    /// One of ours, which says where it listens.
    fn spawn(mut command: Command) -> anyhow::Result<Self> {
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

    /// One that is told to listen on `port` of this machine, once it does.
    pub(crate) async fn peer(mut command: Command, port: u16) -> anyhow::Result<Self> {
        command.stdout(Stdio::null());
        let mut server = Self::start(command)?;
        server.addr.set_ip([127, 0, 0, 1].into());
        server.addr.set_port(port);
        let deadline = Instant::now() + LONGEST_START;
        while TcpStream::connect(server.addr).await.is_err() {
            let ended = server.child.try_wait()?;
            ensure!(ended.is_none(), "it ended before it listened");
            ensure!(Instant::now() < deadline, "it does not listen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(server)
    }

    fn start(mut command: Command) -> anyhow::Result<Self> {
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
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
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

    fn memory(&self, name: &str) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
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
