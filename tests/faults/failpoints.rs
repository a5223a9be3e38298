//! Lets the server die at each of its named steps.
//!
//! `REELHOOK_FAILPOINT_ROUNDS` says how often at each (2): the first time it is reached, and then at one of the next, which
//! `REELHOOK_FAILPOINT_SEED` repeats.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Instant;

use reelhook::failpoint::{self, Step};
use serde_json::Value;
use tokio::time::timeout;

use crate::harness::{Api, Harness};
use crate::server::{Launch, Server};
use crate::{PATIENCE, say, seed, until, variable};

const ROUNDS: u64 = 2;
/// The number of the signal that `abort` raises.
const SIGABRT: i32 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_at_any_named_step_loses_no_acknowledged_callback_and_shows_no_half_file() {
    let began = Instant::now();
    let rounds = variable("REELHOOK_FAILPOINT_ROUNDS").unwrap_or(ROUNDS);
    let mut harness = Harness::new(seed("REELHOOK_FAILPOINT_SEED")).await;
    for round in 0..rounds {
        // `tests/api/dropin.rs` lets it die at that of submissions, for which a provider is needed.
        let steps = Step::ALL.iter().filter(|step| **step != Step::SubmissionAccepted);
        for &step in steps {
            harness.die_at(step, round).await;
        }
    }
    let files = harness.finish().await;
    say(&format!(
        "died {rounds} times at each of {} steps: {} callbacks acknowledged, 0 lost, {files} files stored and whole, {:.1} s",
        Step::ALL.len() - 1,
        harness.ledger.acknowledged(),
        began.elapsed().as_secs_f64(),
    ));
}

impl Harness {
    /// Gives the server a reason to come by the step until it dies there. That it does is part of what is tested.
    async fn die_at(&mut self, step: Step, round: u64) {
        let most = match step {
            _ if round == 0 => 1,
            // There is one in the life of a server.
            Step::SpoolSwept | Step::LeasesReleased => 1,
            Step::BatchTaken | Step::RowsWritten | Step::CommitReturned | Step::CallbackRecorded => 60,
            _ => 6,
        };
        let count = 1 + self.random.below(most);
        let launch = Launch {
            variables: vec![(failpoint::VARIABLE, format!("{}:{count}", step.name()))],
            ..Launch::default()
        };
        let (mut server, listening) = Server::spawn(&self.config, &launch);
        let mut deleted = Vec::new();
        let listening = timeout(PATIENCE, listening)
            .await
            .expect("it listens or dies in time");
        // If it never listens, it died while starting.
        if let Ok(addr) = listening {
            if [Step::RowsDeleted, Step::FilesRemoved].contains(&step) {
                deleted = self.delete(addr, count).await;
            } else {
                timeout(PATIENCE, self.load(addr))
                    .await
                    .unwrap_or_else(|_| panic!("{step:?} is not reached {count} times"));
            }
        }
        let status = server.ended().await;
        assert_eq!(status.signal(), Some(SIGABRT), "{step:?}: {status}");
        let said = server.said_beside_its_log();
        assert_eq!(said, format!("aborting at {}", step.name()));
        self.check().await;
        self.check_deleted(&deleted).await;
    }

    /// Deletes tasks that have stored files until the server dies, and says which.
    async fn delete(&mut self, addr: SocketAddr, count: u64) -> Vec<String> {
        let wanted = usize::try_from(count).unwrap();
        let mut api = Api::of(addr).await;
        let stored = async {
            until("there is something to delete", async || {
                let page = api.json("/v1/tasks?media=stored&limit=200").await;
                let tasks = page["tasks"].as_array().unwrap();
                let ids = tasks
                    .iter()
                    .map(|task| task["task_id"].as_str().unwrap().to_owned());
                (tasks.len() >= wanted).then(|| ids.take(wanted).collect::<Vec<_>>())
            })
            .await
        };
        let doomed = tokio::select! {
            () = self.load(addr) => panic!("the server died before anything was deleted"),
            doomed = stored => doomed,
        };
        for (at, task_id) in doomed.iter().enumerate() {
            self.ledger.forget(task_id);
            let answer = api.ask("DELETE", &format!("/v1/tasks/{task_id}")).await;
            assert_eq!(
                answer.is_ok(),
                at + 1 < wanted,
                "only the last of them is not answered: {answer:?}"
            );
        }
        doomed
    }

    /// After the next start nothing is left of what was deleted, answered or not: its rows went first.
    async fn check_deleted(&mut self, deleted: &[String]) {
        if deleted.is_empty() {
            return;
        }
        let (server, addr) = self.start().await;
        let mut api = Api::of(addr).await;
        for task_id in deleted {
            let (status, body) = api.ask("GET", &format!("/v1/tasks/{task_id}")).await.unwrap();
            let problem: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                (status, &problem["code"]),
                (404, &"unknown_task".into()),
                "{problem:#}"
            );
            until("the files of a deleted task are gone", async || {
                (!self.remains.has_files_of(task_id)).then_some(())
            })
            .await;
        }
        server.kill();
    }
}
