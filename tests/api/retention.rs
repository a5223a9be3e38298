//! What goes by age while a server runs.

use std::time::Duration;

use reelhook::clock::Clock;
use serde_json::json;

use crate::support::{Cdn, Program, Setup, TestServer, failure, mp4, success, until};

const NOW: i64 = 1_795_284_446_000;
const DAY: Duration = Duration::from_hours(24);

/// A server that looks what is too old at its start, with this retention.
async fn server(clock: &Clock, retention: &str) -> TestServer {
    let toml = format!("egress.allow_cidrs = [\"127.0.0.0/8\"]\n[retention]\n{retention}\n");
    Setup::new(&toml).clock(clock).start().await
}

async fn until_deliveries_are(server: &TestServer, verdict: &str, count: usize) {
    until(&format!("{count} {verdict} deliveries are left"), || async {
        (server.deliveries(verdict).await.len() == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn deliveries_go_and_their_task_and_its_files_stay() {
    let (cdn, clock) = (Cdn::start().await, Clock::manual(NOW));
    let retention = "deliveries = \"90d\"\nrejected = \"30d\"";
    let running = server(&clock, retention).await;
    let body = success("t1", &[cdn.file("/a.mp4", &mp4(1, 1_000))]);
    running.callback(&body).send().await.taken();
    running.wait_settled("t1").await;
    running.callback_of("kie", "no JSON", "").send().await;
    assert_eq!(running.deliveries("rejected").await.len(), 1);
    clock.advance(DAY * 31);
    let running = running.halt().await.start().await;
    until_deliveries_are(&running, "rejected", 0).await;
    assert_eq!(running.deliveries("accepted").await.len(), 1);

    clock.advance(DAY * 60);
    let running = running.halt().await.start().await;
    until_deliveries_are(&running, "accepted", 0).await;
    let task = running.task("t1").await;
    assert_eq!(task["media"], "stored");
    let file = running.get(task["files"][0]["url"].as_str().unwrap()).await;
    assert_eq!(file.body.len(), 1_000);
}

#[tokio::test]
async fn tasks_go_with_their_files_once_nothing_more_is_awaited_of_them() {
    let (cdn, clock) = (Cdn::start().await, Clock::manual(NOW));
    let running = server(&clock, "tasks = \"3d\"").await;
    for id in ["old", "disputed"] {
        let body = success(id, &[cdn.file(&format!("/{id}.mp4"), &mp4(1, 1_000))]);
        running.callback(&body).send().await.taken();
        running.wait_settled(id).await;
    }
    running.callback(&failure("disputed")).send().await.taken();
    running.post("/v1/tasks", &json!({"task_id": "awaited"})).await;
    clock.advance(DAY * 4);
    running.callback(&failure("young")).send().await.taken();

    let running = running.halt().await.start().await;
    until("the old task is gone", || async {
        (running.get("/v1/tasks/old").await.status == 404 && running.files_in("media").len() == 1)
            .then_some(())
    })
    .await;
    for id in ["disputed", "awaited", "young"] {
        running.task(id).await;
    }
}

#[tokio::test]
async fn files_go_by_age_and_their_tasks_stay() {
    let (cdn, clock) = (Cdn::start().await, Clock::manual(NOW));
    let running = server(&clock, "media = \"7d\"").await;
    for id in ["old", "young"] {
        let body = success(id, &[cdn.file(&format!("/{id}.mp4"), &mp4(1, 1_000))]);
        running.callback(&body).send().await.taken();
        running.wait_settled(id).await;
        clock.advance(DAY * 4);
    }
    let running = running.halt().await.start().await;
    until("the old file is gone", || async {
        (running.files_in("media") == ["kie/young/result-0.mp4"]).then_some(())
    })
    .await;
    let task = running.task("old").await;
    let file = &task["files"][0];
    assert_eq!((&file["state"], &file["url"]), (&json!("deleted"), &json!(null)));
    assert_eq!(
        (&task["state"], &task["media"]),
        (&json!("succeeded"), &json!("none"))
    );
    let gone = running.get("/v1/tasks/old/files/result-0.mp4").await;
    assert_eq!(gone.problem(), (410, "file_deleted".to_owned()));
    let stats = running.get("/v1/stats").await.fine();
    assert_eq!(stats["files"], json!({"stored": 1, "deleted": 1}));
    assert_eq!(stats["stored_bytes"], 1_000);
    let queued = running.post("/v1/tasks/old/retry", &json!({})).await;
    assert_eq!(queued.json()["queued"], 0, "it does not come back");
    assert_eq!(cdn.hits("/old.mp4"), 1);
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
fn a_file_whose_deletion_a_crash_cut_in_two_goes_at_the_next_start() {
    let program = Program::new();
    let serving = program.serve(&[]);
    let to = format!("{}/callbacks/kie", serving.url());
    let trigger = ["trigger", "veo.success", "--to", &to, "--task-id", "t1"];
    assert_eq!(program.run(&trigger).code, Some(0));
    let wait = ["tasks", "wait", "t1", "--server", &serving.url()];
    assert_eq!(program.run(&wait).code, Some(0));
    drop(serving);
    let files = || {
        let of_task = std::fs::read_dir(program.path().join("data/media/kie/t1"));
        of_task.map_or(0, Iterator::count)
    };
    assert_eq!(files(), 2);
    program.write("config.toml", b"[retention]\nmedia_bytes = \"30KB\"\n");
    let armed = [("REELHOOK_ABORT_AT", "rows_deleted:1")];
    let ended = program.run_with(&armed, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(ended.err.contains("aborting at rows_deleted"), "{}", ended.err);
    assert_eq!(files(), 2, "the row says deleted, the file is there");
    let mut serving = program.serve(&[]);
    serving.err.wait_for("removed 1 files that were deleted earlier");
    assert_eq!(files(), 1, "the other fits");
    serving.signal("TERM");
    assert_eq!(serving.wait(), Some(0));
    let scrub = program.run(&["scrub", "--offline"]);
    assert_eq!(scrub.code, Some(0), "{}", scrub.out);
    assert!(scrub.out.contains("1 file, 24.8 KiB: all whole"), "{}", scrub.out);
}
