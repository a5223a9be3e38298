//! Lets every kind of system call on the data directory fail, once, for a while, or from some moment on for good.
//!
//! `REELHOOK_IO_ROUNDS` says how often each kind (2), `REELHOOK_IO_SEED` repeats the choices of an earlier run: which call,
//! which error, how long, and whether the server is killed or stopped afterwards. `REELHOOK_IO_KIND` picks one kind by its
//! number. `strace` counts the calls of each thread by itself, so that "the third" is the third of any thread.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::harness::{Api, Harness};
use crate::random::Random;
use crate::remains::next_in_spool;
use crate::server::Server;
use crate::{PATIENCE, say, seed, strace, until, variable};

const ROUNDS: u64 = 2;
/// Callbacks that a server has to take after a fault that passed, to be believed to have recovered.
const RECOVERED: i64 = 30;
/// Refusals after which a server under a lasting fault is believed to go on refusing.
const REFUSED: u64 = 8;

/// A kind of call that can fail.
struct Kind {
    calls: &'static str,
    on: On,
    errors: &'static [&'static str],
    /// The last of a thread's calls that is tried. Where a start makes some, most of the tries lie beyond those; where
    /// only a start does, all of them within.
    last: u64,
}

/// Files that the calls in question are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    /// SQLite's.
    Database,
    /// Those being fetched.
    Spool,
    /// The directory in which those of the tasks lie.
    Stored,
    /// All, the program's own shared libraries included.
    Anything,
}

const DISK: &[&str] = &["EIO", "ENOSPC", "EDQUOT"];
const OPEN: &[&str] = &["EIO", "EMFILE", "EACCES"];

#[rustfmt::skip]
const KINDS: &[Kind] = &[
    Kind { calls: "fsync,fdatasync", on: On::Database, errors: DISK, last: 40 },
    Kind { calls: "fsync,fdatasync", on: On::Spool, errors: DISK, last: 2 },
    Kind { calls: "fsync,fdatasync", on: On::Stored, errors: DISK, last: 2 },
    Kind { calls: "pwrite64", on: On::Database, errors: DISK, last: 300 },
    Kind { calls: "write", on: On::Spool, errors: DISK, last: 2 },
    Kind { calls: "pread64", on: On::Database, errors: &["EIO"], last: 12 },
    Kind { calls: "openat", on: On::Database, errors: OPEN, last: 1 },
    Kind { calls: "openat", on: On::Spool, errors: &["EIO", "EMFILE", "ENOSPC", "EDQUOT"], last: 1 },
    Kind { calls: "openat", on: On::Stored, errors: OPEN, last: 2 },
    Kind { calls: "?rename,renameat,renameat2", on: On::Anything, errors: &["EIO", "ENOSPC", "EROFS"], last: 3 },
    Kind { calls: "?mkdir,mkdirat", on: On::Anything, errors: DISK, last: 7 },
    Kind { calls: "?unlink,unlinkat", on: On::Anything, errors: &["EIO", "EROFS"], last: 2 },
    Kind { calls: "getdents64", on: On::Anything, errors: &["EIO"], last: 2 },
    Kind { calls: "ftruncate", on: On::Database, errors: DISK, last: 1 },
    Kind { calls: "?fstat,?newfstatat,statx", on: On::Database, errors: &["EIO"], last: 6 },
    Kind { calls: "mmap", on: On::Database, errors: &["ENOMEM", "EIO"], last: 1 },
    Kind { calls: "flock", on: On::Anything, errors: &["EIO", "ENOLCK"], last: 1 },
    LOCKS,
];

/// Locks of SQLite's. Not in the sample: it tries for ten seconds and more before it gives one up.
const LOCKS: Kind = Kind {
    calls: "fcntl",
    on: On::Database,
    errors: &["EIO", "ENOLCK"],
    last: 200,
};

/// For how long it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Span {
    Once,
    Ten,
    ForGood,
}

/// What became of a server under a fault.
#[derive(Default)]
struct Tally {
    recovered: u64,
    refusing: u64,
    unstarted: u64,
    errors: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_meets_io_errors_acknowledges_nothing_unrecorded_and_recovers() {
    if !strace::is_there() {
        return;
    }
    let began = Instant::now();
    let rounds = variable("REELHOOK_IO_ROUNDS").unwrap_or(ROUNDS);
    let mut harness = Harness::new(seed("REELHOOK_IO_SEED")).await;
    let mut tally = Tally::default();
    let kinds = match variable("REELHOOK_IO_KIND") {
        Some(only) => &KINDS[usize::try_from(only).unwrap()..][..1],
        None if rounds <= ROUNDS => &KINDS[..KINDS.len() - 1],
        None => KINDS,
    };
    for _ in 0..rounds {
        for kind in kinds {
            harness.fail(kind, &mut tally).await;
        }
    }
    let files = harness.finish().await;
    say(&format!(
        "{} faults of {} kinds ({} failed calls): {} recovered, {} kept refusing, {} kept it from starting; \
         {} callbacks acknowledged, {} refused, 0 lost, {files} files stored and whole, {:.1} s",
        rounds * kinds.len() as u64,
        kinds.len(),
        tally.errors,
        tally.recovered,
        tally.refusing,
        tally.unstarted,
        harness.ledger.acknowledged(),
        harness.ledger.refused(),
        began.elapsed().as_secs_f64(),
    ));
}

impl Harness {
    /// Runs a server that meets one fault, and looks at what is left.
    async fn fail(&mut self, kind: &Kind, tally: &mut Tally) {
        let log = strace::log_beside(&self.config);
        let _ = fs::remove_file(&log);
        let span = [Span::Once, Span::Ten, Span::ForGood][self.random.index(3)];
        let arguments = arguments(kind, span, &mut self.random, &self.remains.data).await;
        // Shown if what follows fails.
        println!("{} {:?}", arguments.last().expect("what to inject"), kind.on);
        let (mut server, listening) = Server::spawn(&self.config, &strace::launch(&log, &arguments));
        let listening = timeout(PATIENCE, listening)
            .await
            .expect("it listens or ends in time");
        if let Ok(addr) = listening {
            // SQLite takes a lock that it could not release for held: one failure may do for good.
            let may_stand = span == Span::ForGood || kind.calls == LOCKS.calls;
            self.go_on_under(may_stand, (addr, &log), tally).await;
            if self.random.below(2) == 0 {
                server.kill_despite_errors();
            } else {
                server.terminate();
                assert_eq!(server.ended().await.code(), Some(0));
            }
        } else {
            assert_eq!(server.ended().await.code(), Some(1));
            tally.unstarted += 1;
        }
        let said = server.said_beside_its_log();
        assert!(!said.contains("panicked"), "{said}");
        let errors = strace::injected(&log);
        assert!(errors > 0, "no call failed");
        tally.errors += errors;
        self.check().await;
    }

    /// Calls back until the fault was met, and then until it is clear that the server gets over it, or refuses soundly.
    async fn go_on_under(&mut self, may_stand: bool, (addr, log): (SocketAddr, &Path), tally: &mut Tally) {
        let (load, ledger) = (self.load(addr), &self.ledger);
        let reading = read(addr);
        let outcome = async {
            until("a call fails", async || (strace::injected(log) > 0).then_some(())).await;
            let (taken, refused) = (ledger.acknowledged(), ledger.refused());
            let outcome = async || {
                let over_it = ledger.acknowledged() >= taken + RECOVERED;
                let stands = may_stand && ledger.refused() >= refused + REFUSED;
                (over_it || stands).then_some(over_it)
            };
            until("it takes callbacks, or refuses them for good", outcome).await
        };
        let recovers = tokio::select! {
            () = load => panic!("the server broke off"),
            () = reading => unreachable!("reading has no end"),
            recovers = outcome => recovers,
        };
        if recovers {
            tally.recovered += 1;
        } else {
            tally.refusing += 1;
        }
    }
}

/// Asks for lists for ever, whatever comes back: a fault may well lie there.
async fn read(addr: SocketAddr) {
    let mut api = Api::of(addr).await;
    loop {
        if api.ask("GET", "/v1/tasks?limit=5").await.is_err() {
            api = Api::of(addr).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What makes `strace` bring the fault about.
async fn arguments(kind: &Kind, span: Span, random: &mut Random, data: &Path) -> Vec<String> {
    let error = kind.errors[random.index(kind.errors.len())];
    let first = 1 + random.below(kind.last);
    let when = match span {
        Span::Once => format!("{first}"),
        Span::Ten => format!("{first}..{}", first + 9),
        Span::ForGood => format!("{first}+"),
    };
    let mut arguments: Vec<String> = paths(kind.on, data)
        .await
        .iter()
        .flat_map(|path| ["-P".to_owned(), path.display().to_string()])
        .collect();
    arguments.push(format!("--trace={}", kind.calls));
    arguments.push(format!("--inject={}:error={error}:when={when}", kind.calls));
    arguments
}

async fn paths(on: On, data: &Path) -> Vec<PathBuf> {
    match on {
        On::Database => ["", "-wal", "-shm", "-journal"]
            .map(|end| data.join(format!("reelhook.db{end}")))
            .into(),
        On::Spool => {
            let names = next_in_spool(data).await;
            names.iter().map(|name| data.join("spool").join(name)).collect()
        }
        On::Stored => vec![data.join("media/kie")],
        On::Anything => Vec::new(),
    }
}
