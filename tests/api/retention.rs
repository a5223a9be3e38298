//! What goes by age while a server runs.

use std::time::Duration;

use reelhook::clock::Clock;
use serde_json::json;

use crate::support::{Cdn, Setup, TestServer, failure, mp4, success, until};

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
