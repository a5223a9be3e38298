//! A callback arrives: recorded before it is answered, downloaded, served.

use futures_util::future::join_all;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::{Cdn, KEY, Raw, TestServer, failure, mp4, success, until};

/// Makes every commit fail that writes a task: a constraint that is only looked at when it is too late.
const COMMITS_FAIL: &str = "
    CREATE TABLE parent (id INTEGER PRIMARY KEY);
    CREATE TABLE child (id INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);
    CREATE TRIGGER orphan AFTER INSERT ON tasks BEGIN INSERT INTO child VALUES (1); END";

#[tokio::test]
async fn a_callback_ends_as_a_stored_file_with_its_checksum() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let content = mp4(1, 300_000);
    let url = cdn.file("/v/a.mp4", &content);
    server
        .callback(&success("t1", std::slice::from_ref(&url)))
        .send()
        .await
        .taken();

    let task = server.wait_settled("t1").await;
    let file = &task["files"][0];
    assert_eq!(
        (&task["state"], &task["media"], &task["resolution"]),
        (&json!("succeeded"), &json!("stored"), &json!("1080p"))
    );
    assert_eq!(file["sha256"], hex::encode(Sha256::digest(&content)));
    assert_eq!(file["provider_url"], url);
    assert_eq!((&file["bytes"], &file["attempts"]), (&json!(300_000), &json!(1)));
    let answer = server.get(file["url"].as_str().unwrap()).await;
    assert!(answer.body == content, "the bytes that are served are the CDN's");
}

#[tokio::test]
async fn a_callback_is_acknowledged_only_after_commit() {
    let server = TestServer::start().await;
    server.sabotage(COMMITS_FAIL).await;
    let refused = server.callback(&failure("t1")).send().await;
    assert_eq!(refused.problem(), (503, "store_unavailable".to_owned()));
    assert_eq!(refused.header("retry-after"), "1");
    assert!(
        !refused.text().contains("constraint"),
        "the cause is for the log: {}",
        refused.text()
    );
    assert_eq!(
        server.get("/v1/tasks/t1").await.problem(),
        (404, "unknown_task".to_owned())
    );

    server.sabotage("DROP TRIGGER orphan").await;
    server.callback(&failure("t1")).send().await.taken();
    let task = server.task("t1").await;
    assert_eq!(
        (&task["state"], &task["deliveries"]),
        (&json!("failed"), &json!(1))
    );
}

#[tokio::test]
async fn one_poisoned_callback_harms_no_other() {
    let server = TestServer::start().await;
    server
        .sabotage(
            "CREATE TRIGGER poison BEFORE INSERT ON deliveries WHEN NEW.task_id = 'poison'
             BEGIN SELECT RAISE(ABORT, 'poisoned'); END",
        )
        .await;
    let ids: Vec<String> = (0..40)
        .map(|n| {
            if n == 20 {
                "poison".to_owned()
            } else {
                format!("t{n}")
            }
        })
        .collect();
    let answers = join_all(ids.iter().map(|id| server.callback(&failure(id)).send())).await;
    for (id, answer) in ids.iter().zip(answers) {
        let expected = if id == "poison" { 503 } else { 200 };
        assert_eq!(answer.status.as_u16(), expected, "{id}");
    }
    assert_eq!(server.number("SELECT count(*) FROM tasks").await, 39);
}

#[tokio::test]
async fn two_hundred_identical_callbacks_give_one_task_and_one_download() {
    let cdn = Cdn::start().await;
    let server = TestServer::with(&format!("sources.kie.hmac_keys = [\"{KEY}\"]")).await;
    let result = cdn.file("/result.mp4", &mp4(1, 5_000));
    let origin = cdn.file("/origin.mp4", &mp4(2, 5_000));
    let body = json!({"code": 200, "msg": "ok", "data": {"taskId": "t1", "info": {
        "resultUrls": [result.clone(), result], "originUrls": [origin]}}});
    let calls = (0..200).map(|_| server.callback(&body).signed_at(KEY, now()).send());
    for answer in join_all(calls).await {
        answer.taken();
    }
    let task = server.wait_settled("t1").await;
    assert_eq!(
        (&task["deliveries"], &task["conflicts"]),
        (&json!(200), &json!(0))
    );
    assert_eq!(task["media"], "stored");
    assert_eq!(server.number("SELECT count(*) FROM tasks").await, 1);
    assert_eq!(task["files"].as_array().unwrap().len(), 2, "{task}");
    assert_eq!((cdn.hits("/result.mp4"), cdn.hits("/origin.mp4")), (1, 1));
}

/// The second in which the test runs, the same for all its callbacks.
fn now() -> i64 {
    reelhook::clock::Clock::system().now() / 1000
}

#[tokio::test]
async fn requests_in_flight_are_answered_when_the_server_stops() {
    let mut server = TestServer::start().await;
    let body = failure("t1").to_string();
    let (first, rest) = body.split_at(10);
    let lines = format!("content-length: {}", body.len());
    let mut raw = Raw::post(server.addr, &lines).await;
    raw.send(first.as_bytes()).await;
    // Only a request whose head was read is in flight.
    server.callback(&failure("other")).send().await.taken();
    let stopping = server.begin_stop();
    let addr = server.addr;
    until("the server accepts nothing more", || async move {
        tokio::net::TcpStream::connect(addr).await.is_err().then_some(())
    })
    .await;
    raw.send(rest.as_bytes()).await;
    let answer = raw.answer().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(stopping.await.unwrap(), "nothing had to be cut short");
    assert_eq!(
        server
            .number("SELECT count(*) FROM tasks WHERE task_id = 't1'")
            .await,
        1
    );
}

#[tokio::test]
async fn hostile_ids_are_refused_and_odd_ones_stay_inside_the_storage() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 2_000));
    let long = "x".repeat(129);
    for hostile in [
        ".",
        "..",
        "../x",
        "../../etc/passwd",
        "a/b",
        "a\\b",
        "/etc",
        "%2e%2e",
        "a b",
        "a\0b",
        "é",
        "a\n",
        &long,
    ] {
        let answer = server
            .callback(&success(hostile, std::slice::from_ref(&url)))
            .send()
            .await;
        assert_eq!(answer.problem(), (400, "bad_task_id".to_owned()), "{hostile:?}");
    }
    assert_eq!(cdn.all_hits(), 0);

    let longest = "*".repeat(128);
    for odd in ["...", "..a", "-rf", "~", "*", "a:b", "CON", ".hidden", &longest] {
        server
            .callback(&success(odd, std::slice::from_ref(&url)))
            .send()
            .await
            .taken();
        let path = format!("/v1/tasks/{odd}?wait=15s");
        let task = server.get(&path).await.fine();
        assert_eq!(
            (&task["task_id"], &task["media"]),
            (&json!(odd), &json!("stored"))
        );
    }
    let outside: Vec<String> = server
        .files_in("..")
        .into_iter()
        .filter(|file| !file.starts_with("data/"))
        .collect();
    assert!(outside.is_empty(), "{outside:?}");
    assert_eq!(server.files_in("media").len(), 9);
}
