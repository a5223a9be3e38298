//! Downloads from a CDN that is slow, broken or lying.

use std::time::Duration;

use reelhook::clock::Clock;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Cdn, Reply, Setup, TestServer, mp4, success, until};

/// Tries three times in quick succession.
const THRICE: &str = "
    shutdown_grace = \"100ms\"
    [downloads]
    max_attempts = 3
    retry_base = \"1ms\"";
const NOW: i64 = 1_795_284_446_000;

/// What becomes of a file that the CDN offers so.
async fn fetched(config: &str, replies: impl IntoIterator<Item = Reply>) -> (Value, usize) {
    let (cdn, server) = (Cdn::start().await, TestServer::with(config).await);
    let url = cdn.script("/a.mp4", replies);
    server.callback(&success("t1", &[url])).send().await.taken();
    let task = server.wait_settled("t1").await;
    if task["media"] == "failed" {
        assert!(
            server.files_in("media").is_empty(),
            "of a failed file nothing is visible"
        );
    }
    (task["files"][0].clone(), cdn.hits("/a.mp4"))
}

#[tokio::test]
async fn a_stored_file_tells_how_long_and_how_large_it_plays() {
    let (file, _) = fetched("", [Reply::Whole(mp4(1, 20_000))]).await;
    assert_eq!(file["state"], "stored");
    let shape = ["duration_ms", "width", "height", "codec"].map(|field| &file[field]);
    assert_eq!(shape, [&json!(8_000), &json!(1280), &json!(720), &json!("h264")]);
    let (file, _) = fetched("", [Reply::Whole(b"\x01unheard of".to_vec())]).await;
    assert_eq!(file["content_type"], "application/octet-stream");
    let shape = ["duration_ms", "width", "height", "codec"].map(|field| &file[field]);
    assert_eq!(shape, [&json!(null); 4]);
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_then_given_up() {
    let file = mp4(1, 20_000);
    let status = |status| Reply::Status(status, Vec::new());
    for (reply, code) in [
        (status(404), "expired"),
        (status(410), "expired"),
        (status(500), "http_status"),
        (status(429), "http_status"),
        (status(204), "http_status"),
        (Reply::Cut(file.clone()), "truncated"),
        (Reply::Html, "not_media"),
        (Reply::Whole(br#"{"error":"expired"}"#.to_vec()), "not_media"),
        (Reply::Whole(Vec::new()), "not_media"),
        (Reply::Whole(b"File not found".to_vec()), "not_media"),
        (Reply::Whole([&file[..24], &[0xfe; 999]].concat()), "not_media"),
        (Reply::Whole(file[..10_000].to_vec()), "truncated"),
    ] {
        let (failed, hits) = fetched(THRICE, [reply]).await;
        assert_eq!(
            (&failed["state"], &failed["error"]["code"]),
            (&json!("failed"), &json!(code))
        );
        assert_eq!((&failed["attempts"], hits), (&json!(3), 3), "{code}");
    }
}

#[tokio::test]
async fn what_will_not_pass_is_not_tried_again() {
    for (config, reply, code) in [
        ("", Reply::Status(401, Vec::new()), "http_status"),
        (
            "downloads.max_size = \"10KB\"",
            Reply::Whole(mp4(1, 10_001)),
            "too_large",
        ),
        (
            "downloads.max_size = \"1KB\"\nshutdown_grace = \"100ms\"",
            Reply::Drip,
            "too_large",
        ),
    ] {
        let (failed, hits) = fetched(config, [reply]).await;
        assert_eq!(
            (&failed["state"], &failed["error"]["code"]),
            (&json!("failed"), &json!(code))
        );
        assert_eq!((&failed["attempts"], hits), (&json!(0), 1), "{code}");
    }
}

#[tokio::test]
async fn a_file_that_shows_up_at_the_third_attempt_is_stored() {
    let file = mp4(1, 20_000);
    let replies = [
        Reply::Cut(file.clone()),
        Reply::Status(503, Vec::new()),
        Reply::Whole(file.clone()),
    ];
    let (stored, hits) = fetched(THRICE, replies).await;
    assert_eq!(
        (&stored["state"], &stored["attempts"]),
        (&json!("stored"), &json!(3))
    );
    assert_eq!(stored["sha256"], hex::encode(Sha256::digest(&file)));
    assert_eq!((hits, &stored["error"]), (3, &Value::Null));
}

#[tokio::test]
async fn a_transfer_that_stands_still_or_crawls_is_broken_off() {
    let once = "shutdown_grace = \"100ms\"\n[downloads]\nmax_attempts = 1\n";
    let stalled = [Reply::Stalled(mp4(1, 20_000))];
    let (failed, _) = fetched(&format!("{once}idle_timeout = \"100ms\""), stalled).await;
    assert_eq!(failed["error"]["code"], "network", "{failed}");
    let (failed, _) = fetched(&format!("{once}total_timeout = \"200ms\""), [Reply::Drip]).await;
    assert_eq!(failed["error"]["code"], "network", "{failed}");
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let (cdn, clock) = (Cdn::start().await, Clock::manual(NOW));
    let server = Setup::new(&format!("egress.allow_cidrs = [\"127.0.0.0/8\"]\n{THRICE}"))
        .clock(&clock)
        .start()
        .await;
    let wait = vec![("retry-after", "120".to_owned())];
    let url = cdn.script("/a.mp4", [Reply::Status(429, wait), Reply::Whole(mp4(1, 2_000))]);
    server.callback(&success("t1", &[url])).send().await.taken();
    let file = until("the first attempt is over", || async {
        let file = server.task("t1").await["files"][0].clone();
        (file["attempts"] == 1).then_some(file)
    })
    .await;
    assert_eq!(
        (&file["state"], &file["next_attempt_at"], &file["error"]["code"]),
        (
            &json!("queued"),
            &json!("2026-11-21T18:09:26.000Z"),
            &json!("http_status")
        )
    );
    clock.advance(Duration::from_millis(119_999));
    let other = Cdn::on("127.0.0.2").await;
    let same_host = cdn.file("/b.mp4", &mp4(2, 2_000));
    server.callback(&success("t2", &[same_host])).send().await.taken();
    wake(&server, &other, "early").await;
    assert_eq!(cdn.all_hits(), 1, "the host as a whole is left alone");
    clock.advance(Duration::from_millis(1));
    wake(&server, &cdn, "due").await;
    for id in ["t1", "t2"] {
        assert_eq!(server.wait_settled(id).await["media"], "stored");
    }
    assert_eq!(cdn.hits("/a.mp4"), 2);
}

/// Another task's file, from queue to disk: the queue was looked at meanwhile, by the clock as it stands.
async fn wake(server: &TestServer, cdn: &Cdn, id: &str) {
    let url = cdn.file(&format!("/{id}.mp4"), &mp4(9, 1_000));
    server.callback(&success(id, &[url])).send().await.taken();
    assert_eq!(server.wait_settled(id).await["media"], "stored");
}

#[tokio::test]
async fn one_host_takes_no_more_than_its_share() {
    let (slow, fast) = (Cdn::start().await, Cdn::on("127.0.0.2").await);
    let server = TestServer::with("downloads.per_host = 2").await;
    let urls: Vec<String> = (0..6)
        .map(|n| slow.script(&format!("/{n}.mp4"), [Reply::Held(mp4(n, 2_000))]))
        .collect();
    server.callback(&success("slow", &urls)).send().await.taken();
    slow.until_busy_with(2).await;
    wake(&server, &fast, "fast").await;
    let stats = server.get("/v1/stats").await.fine();
    assert_eq!(
        stats["files"],
        json!({"downloading": 2, "queued": 4, "stored": 1})
    );
    slow.release(6);
    assert_eq!(server.wait_settled("slow").await["media"], "stored");
    assert_eq!((slow.all_hits(), slow.most_at_once()), (6, 2));
}

#[tokio::test]
async fn a_stop_in_mid_download_costs_no_attempt_and_the_next_start_completes_it() {
    let (cdn, content) = (Cdn::start().await, mp4(1, 50_000));
    let server = TestServer::start().await;
    let replies = [Reply::Stalled(content.clone()), Reply::Whole(content.clone())];
    let url = cdn.script("/a.mp4", replies);
    server.callback(&success("t1", &[url])).send().await.taken();
    cdn.until_busy_with(1).await;
    let spooled = || async { (!server.files_in("spool").is_empty()).then_some(()) };
    until("something is in the spool", spooled).await;

    let halted = server.halt().await;
    assert!(halted.spool_is_empty());
    let server = halted.start().await;
    let task = server.wait_settled("t1").await;
    let file = &task["files"][0];
    assert_eq!((&file["state"], &file["attempts"]), (&json!("stored"), &json!(1)));
    assert_eq!(file["sha256"], hex::encode(Sha256::digest(&content)));
}

#[tokio::test]
async fn what_a_killed_process_left_behind_is_tidied_up() {
    let (cdn, content) = (Cdn::start().await, mp4(1, 5_000));
    let server = TestServer::start().await;
    let replies = [Reply::Status(404, Vec::new()), Reply::Whole(content.clone())];
    let url = cdn.script("/a.mp4", replies);
    server.callback(&success("t1", &[url])).send().await.taken();
    until("the first attempt is over", || async {
        (server.task("t1").await["files"][0]["attempts"] == 1).then_some(())
    })
    .await;
    // As if it had died in the middle of the second.
    server
        .sabotage(
            "UPDATE downloads SET state = 'downloading', lease_token = 7, lease_until = 9000000000000;
             UPDATE tasks SET media = 'downloading'",
        )
        .await;
    let data_dir = server.data_dir();
    let halted = server.halt().await;
    std::fs::write(data_dir.join("spool/16777216-7.part"), b"half").unwrap();
    std::fs::write(data_dir.join("media/.incoming/16777216-6.part"), b"staged").unwrap();
    // Renamed, but its settlement never committed: nobody ever sees it.
    std::fs::create_dir_all(data_dir.join("media/kie/t1")).unwrap();
    std::fs::write(data_dir.join("media/kie/t1/result-0.mp4"), b"older").unwrap();
    let server = halted.start().await;
    assert!(!server.files_in("spool").contains(&"16777216-7.part".to_owned()));
    assert!(
        !server
            .files_in("media")
            .contains(&".incoming/16777216-6.part".to_owned())
    );
    let task = server.wait_settled("t1").await;
    assert_eq!(
        (&task["media"], &task["files"][0]["attempts"]),
        (&json!("stored"), &json!(2))
    );
    let file = server.get("/v1/tasks/t1/files/result-0.mp4").await;
    assert!(
        file.body == content,
        "what the dead process published is replaced"
    );
}

#[tokio::test]
async fn a_lost_lease_settles_nothing() {
    let (cdn, clock) = (Cdn::start().await, Clock::manual(NOW));
    let server = Setup::new("egress.allow_cidrs = [\"127.0.0.0/8\"]")
        .clock(&clock)
        .start()
        .await;
    let (late, in_time) = (mp4(1, 5_000), mp4(2, 6_000));
    let replies = [Reply::Held(late), Reply::Whole(in_time.clone())];
    let url = cdn.script("/a.mp4", replies);
    server.callback(&success("t1", &[url])).send().await.taken();
    cdn.until_busy_with(1).await;
    clock.advance(Duration::from_mins(2));
    wake(&server, &cdn, "other").await;
    let task = server.wait_settled("t1").await;
    assert_eq!(task["files"][0]["sha256"], hex::encode(Sha256::digest(&in_time)));

    cdn.release(1);
    cdn.until_busy_with(0).await;
    let let_go = || async { server.files_in("spool").is_empty().then_some(()) };
    until("the late one let go", let_go).await;
    wake(&server, &cdn, "another").await;
    assert_eq!(server.task("t1").await["files"], task["files"]);
    let file = server.get("/v1/tasks/t1/files/result-0.mp4").await;
    assert!(file.body == in_time, "what was settled is what is served");
}

#[tokio::test]
async fn only_the_allowed_hosts_of_a_source_are_asked() {
    let (cdn, other) = (Cdn::start().await, Cdn::on("127.0.0.2").await);
    let server = TestServer::with("sources.kie.allowed_hosts = [\"127.0.0.1\"]").await;
    let urls = [
        cdn.file("/a.mp4", &mp4(1, 2_000)),
        other.file("/b.mp4", &mp4(2, 2_000)),
    ];
    server.callback(&success("t1", &urls)).send().await.taken();
    let task = server.wait_settled("t1").await;
    assert_eq!(
        (&task["media"], &task["files"][1]["error"]["code"]),
        (&json!("partial"), &json!("blocked"))
    );
    assert_eq!((cdn.all_hits(), other.all_hits()), (1, 0));
}

#[tokio::test]
async fn how_a_file_came_is_told_with_what_to_do() {
    let file = mp4(1, 20_000);
    let (cdn, server) = (Cdn::start().await, TestServer::with(THRICE).await);
    let replies = [
        Reply::Cut(file.clone()),
        Reply::Status(404, Vec::new()),
        Reply::Whole(file),
    ];
    let url = cdn.script("/a.mp4", replies);
    server.callback(&success("t1", &[url])).send().await.taken();
    assert_eq!(server.wait_settled("t1").await["media"], "stored");
    let told = server.get("/v1/tasks/t1/attempts").await.json();
    let steps = told["attempts"].as_array().unwrap();
    let outcomes: Vec<_> = steps
        .iter()
        .map(|step| step["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["truncated", "expired", "stored"]);
    assert_eq!(
        (&steps[2]["name"], &steps[2]["bytes"]),
        (&json!("result-0.mp4"), &json!(20_000))
    );
    assert!(steps[0]["bytes"].as_i64().unwrap() < 20_000, "{told}");
    assert!(steps[1]["remedy"].as_str().unwrap().contains("api_key"), "{told}");
    assert_eq!(steps[2]["remedy"], Value::Null);
    assert!(steps[0]["began_at"].as_str() <= steps[0]["ended_at"].as_str());
    assert_eq!(
        server.get("/v1/tasks/t2/attempts").await.problem().1,
        "unknown_task"
    );
}
