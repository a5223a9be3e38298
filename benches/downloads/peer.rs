//! What the same files take with the usual tools: a downloader, then `sha256sum`, then `sync`.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::report::Theirs;

/// Which downloader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Curl,
    Aria2,
}

impl Tool {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Curl => "curl",
            Self::Aria2 => "aria2c",
        }
    }

    /// What it calls itself; an error says how to get it.
    pub(crate) fn version(self) -> anyhow::Result<String> {
        let package = match self {
            Self::Curl => "curl",
            Self::Aria2 => "aria2",
        };
        let told = output(Command::new(self.name()).arg("--version"))
            .with_context(|| format!("`apt-get install {package}` brings it"))?;
        let words: Vec<_> = told.lines().next().unwrap_or_default().split(' ').collect();
        let number = words
            .iter()
            .find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
        Ok(format!("{} {}", self.name(), number.unwrap_or(&"")))
    }

    /// Fetches `count` files into `dir`, hashes them and has them on the disk; each must hash to `sha256`.
    pub(crate) fn run(
        self,
        host: SocketAddr,
        count: u16,
        sha256: &[u8; 32],
        dir: &Path,
    ) -> anyhow::Result<Theirs> {
        let mut fetching = self.command(host, count, dir)?;
        let began = Instant::now();
        output(&mut fetching)?;
        let fetched = Instant::now();
        let sums = output(
            Command::new("sh")
                .args(["-c", "sha256sum *.mp4"])
                .current_dir(dir),
        )?;
        let hashed = Instant::now();
        sync(dir)?;
        let theirs = Theirs {
            fetch: (fetched - began).as_secs_f64(),
            hash: (hashed - fetched).as_secs_f64(),
            sync: hashed.elapsed().as_secs_f64(),
        };
        let expected = hex::encode(sha256);
        let right = sums.lines().filter(|line| line.starts_with(&expected)).count();
        ensure!(right == usize::from(count), "{right} of {count} files came right");
        Ok(theirs)
    }

    fn command(self, host: SocketAddr, count: u16, dir: &Path) -> anyhow::Result<Command> {
        let url = |n| format!("http://{host}/{n}.mp4");
        let mut command = Command::new(self.name());
        command.current_dir(dir);
        match self {
            Self::Curl => command.args(["--silent", "--fail", "--output", "0.mp4", &url(0)]),
            Self::Aria2 => {
                let list: Vec<_> = (0..count).map(url).collect();
                fs::write(dir.join("list"), list.join("\n"))?;
                command.args([
                    "--no-conf",
                    "--quiet",
                    "--max-concurrent-downloads=16",
                    "--input-file=list",
                ])
            }
        };
        Ok(command)
    }
}

/// Has everything on the disk that was written to the file system of `dir`.
pub(crate) fn sync(dir: &Path) -> anyhow::Result<()> {
    output(Command::new("sync").arg("--file-system").arg(dir)).map(drop)
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().display().to_string();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{name} is not there"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed: {}", told.trim_end());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
