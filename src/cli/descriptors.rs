//! Open files: as many as the system lets us have, shared out so that connections never take what the database needs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Kept for the database, its readers, the log, signals and the listeners themselves.
const RESERVED: usize = 96;
/// What one download may have open: a connection, its file, and the look-up of a name.
const OF_A_DOWNLOAD: usize = 4;
/// What one connection may have open: its own socket, and a stored file that it is sent.
const OF_A_CONNECTION: usize = 2;
/// A server that can hold fewer is of no use; then the system has the last word.
const FEWEST: usize = 16;

/// Raises the limit of open files as far as we may without privileges. Many systems start a program at 1,024, so that those
/// which wait for events with `select` do not break; we do not.
fn raise() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() {
        maximum
    } else {
        current
    };
    current.map_or(usize::MAX, |current| {
        usize::try_from(current).unwrap_or(usize::MAX)
    })
}

/// Connections that each listener may hold: those of the configuration, as far as the limit of open files allows.
pub(super) fn connections(config: &Config) -> usize {
    let wanted = config.ingest.max_connections;
    let files = raise();
    let listeners = 1 + usize::from(config.admin_listen.is_some()) + usize::from(config.tls.acme.is_on());
    let possible = possible(files, config.downloads.concurrency, listeners);
    if possible < wanted {
        tracing::warn!(
            "of ingest.max_connections = {wanted} only {possible} can be open, as this process may open only {files} \
             files: raise that (systemd: LimitNOFILE=, Docker: --ulimit nofile=, a shell: ulimit -n)"
        );
    }
    wanted.min(possible)
}

fn possible(files: usize, downloads: usize, listeners: usize) -> usize {
    let reserved = RESERVED + OF_A_DOWNLOAD * downloads;
    (files.saturating_sub(reserved) / OF_A_CONNECTION / listeners).max(FEWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_open_files_for_everything_else() {
        assert_eq!(possible(1024, 8, 1), 448);
        assert_eq!(possible(1024, 8, 2), 224);
        assert_eq!(possible(100, 8, 1), FEWEST);
        assert!(possible(usize::MAX, 8, 3) > 1_000_000);
    }
}
