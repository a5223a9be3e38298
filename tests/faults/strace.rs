//! The program under `strace`, which shows its system calls or lets some of them fail.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

use crate::server::Launch;
use crate::skip;

/// Runs the program under `strace` from its first moment; its report goes into this file.
///
/// The tracer is a grandchild (`-D`): the program stays our own child, to be killed like any other. Only the calls in
/// question stop it (`--seccomp-bpf`), so that it is hardly slower than without.
pub(crate) fn launch(log: &Path, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Launch {
    let mut through: Vec<OsString> = ["strace", "-D", "-f", "-q", "--seccomp-bpf", "-o"]
        .map(OsString::from)
        .into();
    through.push(log.into());
    through.extend(arguments.into_iter().map(Into::into));
    Launch {
        through,
        ..Launch::default()
    }
}

/// Whether there is a `strace` that may trace here; says so if not.
pub(crate) fn is_there() -> bool {
    let mut trial = Command::new("strace");
    trial.args(["-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "true"]);
    let trial = trial
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let works = trial.status().is_ok_and(|status| status.success());
    if !works {
        skip("there is no strace, or it may not trace here");
    }
    works
}

/// How many calls it has made fail so far.
pub(crate) fn injected(log: &Path) -> usize {
    match fs::read(log) {
        Ok(text) => String::from_utf8_lossy(&text).matches("(INJECTED)").count(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => panic!("{}: {error}", log.display()),
    }
}

/// Where it writes what happens beside this configuration.
pub(crate) fn log_beside(config: &Path) -> PathBuf {
    config.with_file_name("strace.log")
}
