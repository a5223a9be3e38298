//! The signature covers neither body nor path: one captured header pair must be worth nothing.

use std::time::Duration;

use reelhook::clock::Clock;
use serde_json::{Value, json};

use crate::support::{Cdn, KEY, Setup, TestServer, failure, mp4, success};

const TWO_SOURCES: &str = "[sources.kie]\nhmac_keys = [\"test-webhook-hmac-key\"]\n\
                           [sources.apikley]\nhmac_keys = [\"test-webhook-hmac-key\"]\n";
const NOW: i64 = 1_795_284_446;

async fn two_sources() -> TestServer {
    two_sources_at(&Clock::manual(NOW * 1000)).await
}

async fn two_sources_at(clock: &Clock) -> TestServer {
    Setup::new(&format!("egress.allow_cidrs = [\"127.0.0.0/8\"]\n{TWO_SOURCES}"))
        .clock(clock)
        .start()
        .await
}

#[tokio::test]
async fn whatever_is_put_under_a_captured_signature_downloads_nothing() {
    let (cdn, server) = (Cdn::start().await, two_sources().await);
    let genuine = success("t1", &[cdn.file("/genuine.mp4", &mp4(1, 2_000))]);
    server.callback(&genuine).signed(KEY).send().await.taken();
    assert_eq!(server.wait_settled("t1").await["media"], "stored");

    let forged = cdn.file("/forged.mp4", &mp4(2, 2_000));
    let changed = success("t1", std::slice::from_ref(&forged));
    let four_k = json!({"code": 200, "msg": "4K Video generated successfully.", "data": {
        "taskId": "t1", "info": {"resultUrls": [forged], "imageUrls": [cdn.file("/forged.jpg", &mp4(3, 2_000))]}}});
    let abuses: [(&str, &Value); 8] = [
        ("kie", &changed),
        ("kie", &four_k),
        ("kie?kind=4k", &genuine),
        ("kie?kind=4k", &changed),
        ("kie?index=1", &genuine),
        ("kie?index=7", &changed),
        ("apikley", &genuine),
        ("apikley?kind=4k&index=3", &changed),
    ];
    for (rest, body) in abuses {
        server.callback_to(rest, body).signed(KEY).send().await.taken();
    }
    let conflicts = server.deliveries("conflict").await;
    let expected = ("t1".to_owned(), "signature_reused".to_owned());
    assert_eq!(conflicts, vec![expected; abuses.len()]);
    let task = server.task("t1").await;
    assert_eq!((&task["conflicts"], &task["deliveries"]), (&json!(8), &json!(9)));
    assert_eq!(task["files"].as_array().unwrap().len(), 1);
    assert_eq!(server.number("SELECT count(*) FROM downloads").await, 1);
    assert_eq!((cdn.hits("/genuine.mp4"), cdn.all_hits()), (1, 1));
}

#[tokio::test]
async fn the_same_callback_again_is_a_duplicate() {
    let (cdn, server) = (Cdn::start().await, two_sources().await);
    let genuine = success("t1", &[cdn.file("/genuine.mp4", &mp4(1, 2_000))]);
    for _ in 0..3 {
        server.callback(&genuine).signed(KEY).send().await.taken();
    }
    let task = server.wait_settled("t1").await;
    assert_eq!((&task["deliveries"], &task["conflicts"]), (&json!(3), &json!(0)));
    assert_eq!(cdn.all_hits(), 1);
}

#[tokio::test]
async fn a_signature_of_its_own_makes_a_4k_body_an_outcome_of_its_own() {
    let (cdn, server) = (Cdn::start().await, two_sources().await);
    let video = success("t1", &[cdn.file("/video.mp4", &mp4(1, 2_000))]);
    server.callback(&video).signed(KEY).send().await.taken();
    let four_k = json!({"code": 200, "msg": "4K Video generated successfully.", "data": {
        "taskId": "t1", "info": {"resultUrls": [cdn.file("/4k.mp4", &mp4(2, 3_000))],
            "imageUrls": [cdn.file("/4k.jpg", include_bytes!("../../fuzz/corpus/media/preview.jpg"))]}}});
    server
        .callback(&four_k)
        .signed_at(KEY, NOW + 1)
        .send()
        .await
        .taken();
    let task = server.wait_settled("t1").await;
    let names: Vec<&Value> = task["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| &file["name"])
        .collect();
    assert_eq!(names, ["result-0.mp4", "4k-0-result-0.mp4", "4k-0-image-0.jpg"]);
    assert_eq!(
        (&task["media"], &task["conflicts"]),
        (&json!("stored"), &json!(0))
    );
}

#[tokio::test]
async fn a_signature_is_bound_to_its_first_use_for_as_long_as_it_would_be_accepted() {
    let (cdn, clock) = (Cdn::start().await, Clock::manual(NOW * 1000));
    let server = two_sources_at(&clock).await;
    let genuine = success("t1", &[cdn.file("/genuine.mp4", &mp4(1, 2_000))]);
    let changed = success("t1", &[cdn.file("/forged.mp4", &mp4(2, 2_000))]);
    server.callback(&genuine).signed_at(KEY, NOW).send().await.taken();
    let halted = server.halt().await;
    clock.advance(Duration::from_mins(5));
    // The last moment, and after a restart.
    let server = halted.start().await;
    server.callback(&changed).signed_at(KEY, NOW).send().await.taken();
    assert_eq!(server.deliveries("conflict").await[0].1, "signature_reused");
    clock.advance(Duration::from_millis(1));
    let late = server.callback(&changed).signed_at(KEY, NOW).send().await;
    assert_eq!(late.problem().1, "stale");
    server.wait_settled("t1").await;
    assert_eq!(cdn.hits("/forged.mp4"), 0);
}

#[tokio::test]
async fn the_binding_of_a_deleted_task_is_kept_until_it_is_void() {
    let clock = Clock::manual(NOW * 1000);
    let server = two_sources_at(&clock).await;
    server
        .callback(&failure("t1"))
        .signed_at(KEY, NOW)
        .send()
        .await
        .taken();
    let bindings = "SELECT count(*) FROM bindings";
    assert_eq!(server.number(bindings).await, 0, "the delivery says it");
    server.delete("/v1/tasks/t1").await;
    assert_eq!(server.number(bindings).await, 1);
    clock.advance(Duration::from_mins(65));
    server.callback(&failure("t2")).signed(KEY).send().await.taken();
    assert_eq!(server.number(bindings).await, 1, "clocks are set");
    clock.advance(Duration::from_mins(1));
    server.callback(&failure("t3")).signed(KEY).send().await.taken();
    assert_eq!(server.number(bindings).await, 0, "what is void is forgotten");
}
