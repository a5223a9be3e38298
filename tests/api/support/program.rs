//! The program as people run it.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use tempfile::TempDir;

use super::PATIENCE;

/// A working directory in which the program is run.
pub(crate) struct Program {
    dir: TempDir,
    /// More than that it may not have open, and it cannot raise that.
    pub(crate) files: Option<u16>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Program {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            files: None,
        }
    }

    /// With this `config.toml` in the working directory.
    pub(crate) fn configured(config: &str) -> Self {
        let program = Self::new();
        program.write("config.toml", config.as_bytes());
        program
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.dir.path().join(name), content).unwrap();
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        ended(self.command(arguments))
    }

    /// The same in an environment with these variables.
    pub(crate) fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
        let mut command = self.command(arguments);
        command.envs(variables.iter().copied());
        ended(command)
    }

    /// Runs a shell script that finds the program in `$0`.
    pub(crate) fn run_in_shell(&self, script: &str) -> Ended {
        let mut command = Command::new("sh");
        command
            .current_dir(self.dir.path())
            .env_clear()
            .args(["-c", script, env!("CARGO_BIN_EXE_reelhook")]);
        ended(command)
    }

    /// Runs `serve`, which must refuse to start; gives what it says on standard error.
    #[track_caller]
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let mut serving = self.spawn(arguments);
        let code = serving.wait();
        assert_eq!(code, Some(1), "{}{}", serving.out.text(), serving.err.text());
        serving.err.text()
    }

    /// Runs `serve` on a free port until it is up.
    pub(crate) fn serve(&self, arguments: &[&str]) -> Serving {
        self.up(&[&["--listen", "127.0.0.1:0"], arguments].concat())
    }

    /// The same in an environment with these variables.
    pub(crate) fn serve_with(&self, variables: &[(&str, &str)]) -> Serving {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.envs(variables.iter().copied());
        listening(spawned(command))
    }

    /// Runs `serve` where its configuration says, until it is up.
    pub(crate) fn serve_as_configured(&self) -> Serving {
        self.up(&[])
    }

    fn up(&self, arguments: &[&str]) -> Serving {
        listening(self.spawn(arguments))
    }

    fn spawn(&self, arguments: &[&str]) -> Serving {
        self.start(&[&["serve"], arguments].concat())
    }

    /// Runs a command that takes its time.
    pub(crate) fn start(&self, arguments: &[&str]) -> Serving {
        spawned(self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_reelhook");
        let mut command = Command::new(if self.files.is_some() { "sh" } else { program });
        if let Some(files) = self.files {
            command.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\""), program]);
        }
        command
            .current_dir(self.dir.path())
            .env_clear()
            .env("NO_COLOR", "1")
            .args(arguments);
        command
    }
}

fn spawned(mut command: Command) -> Serving {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Serving {
        addr: SocketAddr::from(([0; 4], 0)),
        out: Lines::of(child.stdout.take().unwrap()),
        err: Lines::of(child.stderr.take().unwrap()),
        child,
    }
}

/// One that is up, and says where.
fn listening(mut serving: Serving) -> Serving {
    let line = serving.err.wait_for("listening on ");
    let addr = line.rsplit("listening on ").next().unwrap_or_default();
    let addr: String = addr
        .chars()
        .take_while(|c| c.is_ascii_digit() || ".:".contains(*c))
        .collect();
    serving.addr = addr.parse().unwrap_or_else(|_| panic!("no address in {line:?}"));
    serving
}

fn ended(mut command: Command) -> Ended {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A running `serve`; killed when dropped.
pub(crate) struct Serving {
    pub(crate) addr: SocketAddr,
    pub(crate) out: Lines,
    pub(crate) err: Lines,
    child: Child,
}

impl Serving {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        // The shell's own `kill`: it is there wherever there is a shell.
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.child.id())])
            .status();
        assert!(sent.unwrap().success());
    }

    /// The exit code, once it ended, and all it wrote is read.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        // Both streams end with the process.
        self.out.wait_for_end();
        self.err.wait_for_end();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process wrote so far, line by line.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<(Mutex<Written>, Condvar)>);

#[derive(Default)]
struct Written {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let all = Self::default();
        let lines = all.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let line = line.unwrap_or_else(|error| format!("not text: {error}"));
                lines.0.0.lock().unwrap().lines.push(line);
                lines.0.1.notify_all();
            }
            lines.0.0.lock().unwrap().ended = true;
            lines.0.1.notify_all();
        });
        all
    }

    pub(crate) fn text(&self) -> String {
        self.0.0.lock().unwrap().lines.join("\n")
    }

    /// The first line that contains this.
    pub(crate) fn wait_for(&self, part: &str) -> String {
        let find = |written: &Written| written.lines.iter().find(|line| line.contains(part)).cloned();
        self.wait(part, find)
    }

    fn wait_for_end(&self) {
        self.wait("its end", |written| written.ended.then_some(()));
    }

    fn wait<T>(&self, what: &str, find: impl Fn(&Written) -> Option<T>) -> T {
        let started = Instant::now();
        let mut written = self.0.0.lock().unwrap();
        loop {
            if let Some(found) = find(&written) {
                return found;
            }
            let left = PATIENCE.saturating_sub(started.elapsed());
            if left.is_zero() || written.ended {
                drop(written);
                panic!("waited in vain for {what:?}: {}", self.text());
            }
            written = self.0.1.wait_timeout(written, left).unwrap().0;
        }
    }
}
