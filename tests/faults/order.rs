//! The order of system calls: what is on disk before what is said and shown.
//!
//! A loss of power cannot be brought about here, but what it would take away can be seen: whatever no sync covers.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::harness::{Api, Harness};
use crate::server::{Launch, Server};
use crate::trace::{Call, parse};
use crate::wire::Connection;
use crate::{say, seed, strace, until};

const CALLS: &str = "--trace=fsync,fdatasync,pwrite64,pwritev,?rename,renameat,renameat2,\
                     read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg";
const INCOMING: &[&str] = &["read", "readv", "recvfrom", "recvmsg"];
const OUTGOING: &[&str] = &["write", "writev", "sendto", "sendmsg"];
const RENAMES: &[&str] = &["rename", "renameat", "renameat2"];
/// Files fetched, and callbacks without files answered, one after the other.
const EACH: usize = 10;
/// Callbacks answered under load.
const LOADED: i64 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_answered_or_shown_before_it_is_synced() {
    if !strace::is_there() {
        return;
    }
    let mut harness = Harness::new(seed("REELHOOK_ORDER_SEED")).await;
    let data = harness.remains.data.clone();

    // A settlement is told from other commits by there being no others.
    let calls = harness.traced(async |harness, addr| {
        let mut api = Api::of(addr).await;
        let mut connection = Connection::open(addr).await.unwrap();
        let mut provider = harness.provider();
        for _ in 0..EACH {
            for files in [&["result-0.mp4"][..], &[]] {
                let callback = provider.callback_about(files);
                assert_eq!(provider.send(&mut connection, &callback).await.unwrap(), 200);
                api.json(&format!("/v1/tasks/{}?wait=30s", callback.task_id))
                    .await;
            }
        }
    });
    let calls = calls.await;
    let answers = Answers { wal: &wal(&data) };
    let files = Files { data: &data };
    assert_eq!(answers.check(&calls), Ok(2 * EACH));
    assert_eq!(files.check(&calls), Ok(EACH));
    answers.check_the_check(&calls);
    files.check_the_check(&calls);

    let calls = harness.traced(async |harness, addr| {
        let (load, ledger) = (harness.load(addr), &harness.ledger);
        let before = ledger.acknowledged();
        let enough = until("enough is answered", async || {
            (ledger.acknowledged() >= before + LOADED).then_some(())
        });
        tokio::select! {
            () = load => panic!("the server broke off"),
            () = enough => {}
        }
    });
    let loaded = answers.check(&calls.await);
    assert!(loaded.as_ref().is_ok_and(|count| *count >= 200), "{loaded:?}");
    say(&format!(
        "order of system calls: {EACH} files and {} answers, each synced before",
        2 * EACH + loaded.unwrap()
    ));
}

fn wal(data: &Path) -> String {
    data.join("reelhook.db-wal").display().to_string()
}

impl Harness {
    /// What the server did while this was done with it.
    async fn traced(&mut self, what: impl AsyncFnOnce(&mut Self, SocketAddr)) -> Vec<Call> {
        let log = strace::log_beside(&self.config);
        let launch: Launch = strace::launch(&log, ["-tt", "-y", "-s", "64", CALLS]);
        let (mut server, addr) = Server::start(&self.config, &launch).await;
        what(self, addr).await;
        let last = format!("{} ", server.process());
        server.kill_despite_errors();
        let report = until("strace has written it all", async || {
            let report = fs::read(&log).ok()?;
            let report = String::from_utf8_lossy(&report).into_owned();
            let is_last = |line: &str| line.starts_with(&last) && line.contains("+++ killed by SIGKILL");
            report.lines().any(is_last).then_some(report)
        });
        let report = report.await;
        self.check().await;
        parse(&report)
    }
}

/// Request read → write-ahead log written → synced → answered 200.
struct Answers<'a> {
    wal: &'a str,
}

impl Answers<'_> {
    /// How many answers were in order, or the first that was not.
    fn check(&self, calls: &[Call]) -> Result<usize, String> {
        let writes: Vec<&Call> = calls
            .iter()
            .filter(|call| call.is(&["pwrite64", "pwritev"]) && call.file() == Some(self.wal))
            .collect();
        let syncs: Vec<&Call> = calls.iter().filter(|call| call.syncs(self.wal)).collect();
        let mut count = 0;
        for (at, answer) in calls.iter().enumerate() {
            if !answer.is(OUTGOING) || !begins(answer, "HTTP/1.1 200") {
                continue;
            }
            let Some(request) = calls[..at].iter().rev().find(|call| {
                let has_read = call.is(INCOMING) && !call.result.starts_with('-') && call.result != "0";
                has_read && call.file() == answer.file()
            }) else {
                continue;
            };
            if !begins(request, "POST /callbacks/") {
                continue;
            }
            // One thread writes the log: what it writes first after the request is the first that can hold it.
            let first = writes.partition_point(|write| write.began <= request.ended);
            let is_synced = writes.get(first).is_some_and(|write| {
                let from = syncs.partition_point(|sync| sync.began <= write.ended);
                syncs[from..].iter().any(|sync| sync.ended < answer.began)
            });
            if !is_synced {
                return Err(format!("answered before anything was synced: {answer:?}"));
            }
            count += 1;
        }
        Ok(count)
    }

    /// Disturbs a report that is in order, and expects that to be noticed.
    fn check_the_check(&self, calls: &[Call]) {
        let without = |is_gone: &dyn Fn(&Call) -> bool| self.check(&without(calls, is_gone));
        without(&|call| call.syncs(self.wal)).expect_err("no sync at all");
        without(&|call| call.is(&["pwrite64"])).expect_err("nothing was written");
        let mut late = calls.to_vec();
        for call in late.iter_mut().filter(|call| call.syncs(self.wal)) {
            call.ended = usize::MAX;
        }
        self.check(&late).expect_err("syncs that end after the answer");
        let mut failed = calls.to_vec();
        for call in failed.iter_mut().filter(|call| call.syncs(self.wal)) {
            "-1 EIO (Input/output error)".clone_into(&mut call.result);
        }
        self.check(&failed).expect_err("syncs that failed");
    }
}

/// The report, had some calls never been made.
fn without(calls: &[Call], is_gone: &dyn Fn(&Call) -> bool) -> Vec<Call> {
    calls.iter().filter(|call| !is_gone(call)).cloned().collect()
}

fn begins(call: &Call, with: &str) -> bool {
    call.texts().first().is_some_and(|text| text.starts_with(with))
}

/// File synced → renamed → its directory and those above synced → commit written → synced.
struct Files<'a> {
    data: &'a Path,
}

impl Files<'_> {
    /// How many files were published in order, or the first that was not.
    fn check(&self, calls: &[Call]) -> Result<usize, String> {
        let wal = wal(self.data);
        let mut count = 0;
        for renamed in calls.iter().filter(|call| call.is(RENAMES)) {
            let [from, to] = renamed.texts()[..] else {
                return Err(format!("a rename of something else: {renamed:?}"));
            };
            let directory = PathBuf::from(to).parent().expect("it lies in one").to_owned();
            // What tries whether files can be renamed, and notes beside what is being fetched, are not visible.
            if directory.ends_with(".incoming") || directory.ends_with("spool") {
                continue;
            }
            if !Path::new(from).starts_with(self.data.join("spool")) {
                return Err(format!("not out of the spool: {from}"));
            }
            if !calls
                .iter()
                .any(|sync| sync.syncs(from) && sync.ended < renamed.began)
            {
                return Err(format!("renamed before it was synced: {to}"));
            }
            let written = calls
                .iter()
                .find(|call| {
                    call.is(&["pwrite64", "pwritev"])
                        && call.file() == Some(&wal)
                        && call.began > renamed.began
                })
                .ok_or_else(|| format!("never committed: {to}"))?;
            for directory in [
                &*directory,
                &self.data.join("media/kie"),
                &self.data.join("media"),
            ] {
                let directory = directory.display().to_string();
                let in_order = |sync: &Call| renamed.ended < sync.began && sync.ended < written.began;
                if !calls.iter().any(|sync| sync.syncs(&directory) && in_order(sync)) {
                    return Err(format!("committed before {directory} was synced: {to}"));
                }
            }
            if !calls
                .iter()
                .any(|sync| sync.syncs(&wal) && sync.began > written.ended)
            {
                return Err(format!("the commit was never synced: {to}"));
            }
            count += 1;
        }
        Ok(count)
    }

    /// Disturbs a report that is in order, and expects that to be noticed.
    fn check_the_check(&self, calls: &[Call]) {
        let without = |is_gone: &dyn Fn(&Call) -> bool| self.check(&without(calls, is_gone));
        let file = |call: &Call| call.file().map(PathBuf::from).unwrap_or_default();
        let media = self.data.join("media");
        without(&|call| file(call).starts_with(self.data.join("spool"))).expect_err("files not synced");
        without(&|call| file(call) == media.join("kie")).expect_err("a directory not synced");
        without(&|call| file(call).parent() == Some(&media.join("kie")))
            .expect_err("the task's directory not synced");
        without(&|call| call.syncs(&wal(self.data))).expect_err("commits not synced");
        let mut early = calls.to_vec();
        for call in early.iter_mut().filter(|call| file(call).starts_with(&media)) {
            call.began = 0;
        }
        self.check(&early)
            .expect_err("directories synced before the rename");
        let mut late = calls.to_vec();
        for call in late.iter_mut().filter(|call| file(call).starts_with(&media)) {
            call.ended = usize::MAX;
        }
        self.check(&late)
            .expect_err("directories synced after the commit");
    }
}
