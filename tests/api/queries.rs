//! What the API tells about tasks and deliveries, and what a person can do with them.

use std::time::{Duration, Instant};

use reelhook::clock::Clock;
use serde_json::{Value, json};

use crate::support::{Cdn, KEY, Reply, Setup, TestServer, failure, mp4, success, until};

const NOW: i64 = 1_795_284_446_000;

/// The ids on a page, and the cursor of the next.
fn ids(page: &Value) -> (Vec<&str>, Option<&str>) {
    let tasks = page["tasks"].as_array().unwrap();
    let ids = tasks.iter().map(|task| task["task_id"].as_str().unwrap());
    (ids.collect(), page["next_cursor"].as_str())
}

#[tokio::test]
async fn tasks_are_listed_by_state_media_source_id_and_time() {
    let (cdn, clock) = (Cdn::start().await, Clock::manual(NOW));
    let server = Setup::new("egress.allow_cidrs = [\"127.0.0.0/8\"]\n[sources.kie]\n[sources.apikley]")
        .clock(&clock)
        .start()
        .await;
    let file = cdn.file("/a.mp4", &mp4(1, 1_000));
    server
        .callback(&success("a-stored", &[file]))
        .send()
        .await
        .taken();
    server.wait_settled("a-stored").await;
    clock.advance(Duration::from_mins(1));
    let expected = json!({"task_id": "a-awaited", "source": "kie"});
    assert_eq!(server.post("/v1/tasks", &expected).await.status, 201);
    clock.advance(Duration::from_mins(1));
    let failed = failure("b-failed");
    server.callback_to("apikley", &failed).send().await.taken();

    for (query, expected) in [
        ("", vec!["b-failed", "a-awaited", "a-stored"]),
        ("?state=pending", vec!["a-awaited"]),
        ("?state=succeeded&media=stored", vec!["a-stored"]),
        ("?state=failed&media=stored", vec![]),
        ("?media=none", vec!["b-failed", "a-awaited"]),
        ("?source=apikley", vec!["b-failed"]),
        ("?source=nobody", vec![]),
        ("?q=a-", vec!["a-awaited", "a-stored"]),
        ("?q=-", vec![]),
        ("?q=%25", vec![]),
        ("?since=2026-11-21T18:08:26Z", vec!["b-failed", "a-awaited"]),
        ("?until=2026-11-21T18:08:26Z", vec!["a-stored"]),
        (
            "?since=2026-11-21T19:08:26%2B01:00&until=2026-11-21T18:08:27Z",
            vec!["a-awaited"],
        ),
    ] {
        let page = server.get(&format!("/v1/tasks{query}")).await.fine();
        assert_eq!(ids(&page), (expected, None), "{query}");
    }
}

#[tokio::test]
async fn bad_queries_are_refused_and_say_what_would_be_good() {
    let server = TestServer::start().await;
    for (query, word) in [
        ("tasks?state=done", "pending"),
        ("tasks?media=done", "partial"),
        ("tasks?limit=0", "200"),
        ("tasks?limit=201", "200"),
        ("tasks?limit=x", "200"),
        ("tasks?cursor=x", "next_cursor"),
        ("tasks?since=yesterday", "2026"),
        ("tasks?until=1795284446", "2026"),
        ("tasks/t1?wait=soon", "30s"),
        ("deliveries?verdict=good", "conflict"),
        ("deliveries?limit=-1", "200"),
    ] {
        let answer = server.get(&format!("/v1/{query}")).await;
        assert_eq!(answer.problem(), (400, "bad_request".to_owned()), "{query}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(word), "{query}: {detail}");
    }
}

#[tokio::test]
async fn pages_hold_every_task_once_while_others_arrive() {
    let server = TestServer::start().await;
    for n in 0..25 {
        server.callback(&failure(&format!("old{n}"))).send().await.taken();
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/tasks?limit=7{cursor}");
        let page = server.get(&path).await.fine();
        let (found, next) = ids(&page);
        seen.extend(found.into_iter().map(str::to_owned));
        let Some(next) = next else { break };
        cursor = format!("&cursor={next}");
        let newer = failure(&format!("new{}", seen.len()));
        server.callback(&newer).send().await.taken();
    }
    let expected: Vec<String> = (0..25).rev().map(|n| format!("old{n}")).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn wait_answers_when_the_media_settle() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let url = cdn.script("/a.mp4", [Reply::Held(mp4(1, 2_000))]);
    let body = success("t1", &[url]);
    // Not even known when the wait begins.
    let wait = server.get("/v1/tasks/t1?wait=15s");
    let rest = async {
        server.callback(&body).send().await.taken();
        cdn.until_busy_with(1).await;
        assert_eq!(server.task("t1").await["media"], "downloading");
        cdn.release(1);
    };
    let (answer, ()) = tokio::join!(wait, rest);
    assert_eq!(answer.fine()["media"], "stored");
}

#[tokio::test]
async fn wait_answers_at_the_time_out_with_what_is_known() {
    let server = TestServer::start().await;
    server.post("/v1/tasks", &json!({"task_id": "t1"})).await;
    let started = Instant::now();
    let answer = server.get("/v1/tasks/t1?wait=300ms").await.fine();
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(answer["state"], "pending");
    let unknown = server.get("/v1/tasks/t2?wait=100ms").await;
    assert_eq!(unknown.problem(), (404, "unknown_task".to_owned()));
}

#[tokio::test]
async fn an_id_of_two_sources_has_to_be_told_apart() {
    let (cdn, server) = (
        Cdn::start().await,
        TestServer::with("[sources.kie]\n[sources.apikley]").await,
    );
    let body = success("t1", &[cdn.file("/a.mp4", &mp4(1, 1_000))]);
    server.callback(&body).send().await.taken();
    server.callback_to("apikley", &body).send().await.taken();
    for path in [
        "/v1/tasks/t1",
        "/v1/tasks/t1/deliveries",
        "/v1/tasks/t1/files/result-0.mp4",
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.problem(), (409, "ambiguous_source".to_owned()), "{path}");
        assert!(answer.text().contains("apikley, kie"), "{}", answer.text());
    }
    let retry = server.post("/v1/tasks/t1/retry", &Value::Null).await;
    assert_eq!(retry.status, 409);
    assert_eq!(server.delete("/v1/tasks/t1").await.status, 409);

    for source in ["kie", "apikley"] {
        let path = format!("/v1/tasks/t1?source={source}&wait=15s");
        let task = server.get(&path).await.fine();
        assert_eq!(
            (&task["source"], &task["media"]),
            (&json!(source), &json!("stored"))
        );
        // Every URL we emit says which one it means.
        let file = server.get(task["files"][0]["url"].as_str().unwrap()).await;
        assert_eq!(file.status, 200);
    }
    let one = server.get("/v1/tasks/t1/deliveries?source=kie").await.fine();
    assert_eq!(one["deliveries"].as_array().unwrap().len(), 1);
    assert_eq!(server.delete("/v1/tasks/t1?source=kie").await.status, 204);
    assert_eq!(server.task("t1").await["source"], "apikley");
}

#[tokio::test]
async fn what_is_unknown_is_404_with_a_code() {
    let server = TestServer::start().await;
    for (path, code) in [
        ("/v1/tasks/t1", "unknown_task"),
        ("/v1/tasks/t1/deliveries", "unknown_task"),
        ("/v1/tasks/t1/files/result-0.mp4", "unknown_task"),
        ("/v1/deliveries/1", "unknown_delivery"),
        ("/v1/deliveries/x", "unknown_delivery"),
        ("/v2/tasks", "not_found"),
        ("/nothing", "not_found"),
        ("/sample.mp4", "not_found"),
    ] {
        assert_eq!(server.get(path).await.problem(), (404, code.to_owned()), "{path}");
    }
    for path in [
        "/v1/tasks/%FF",
        "/v1/tasks/%FF/deliveries",
        "/v1/tasks/t1/files/%FF",
        "/v1/deliveries/%FF",
    ] {
        let malformed = server.get(path).await.problem();
        assert_eq!(malformed, (400, "bad_request".to_owned()), "{path}");
    }
    let wrong = server.delete("/v1/tasks").await;
    assert_eq!(wrong.problem(), (405, "method_not_allowed".to_owned()));
}

#[tokio::test]
async fn tasks_can_be_expected() {
    let server = TestServer::start().await;
    let full = json!({"task_id": "t1", "source": "kie", "kind": "4k", "index": 2, "family": "veo",
        "params": {"prompt": "a cat", "model": "veo3"}});
    let created = server.post("/v1/tasks", &full).await;
    assert_eq!(created.status, 201);
    let task = created.json();
    assert_eq!(
        (&task["state"], &task["prompt"]),
        (&json!("pending"), &json!("a cat"))
    );
    let outcome = &task["outcomes"][0];
    assert_eq!((&outcome["kind"], &outcome["index"]), (&json!("4k"), &json!(2)));
    assert_eq!(
        (&task["received_at"], &task["deliveries"]),
        (&Value::Null, &json!(0))
    );
    assert_eq!(server.post("/v1/tasks", &full).await.status, 200, "known by now");

    let many: Vec<Value> = (0..1000).map(|n| json!({"task_id": format!("m{n}")})).collect();
    let answer = server.post("/v1/tasks", &json!(many)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["created"].clone()),
        (201, json!(1000))
    );
    let answer = server.post("/v1/tasks", &json!(many[..10])).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["known"].clone()),
        (200, json!(10))
    );

    let body = failure("t1");
    server
        .callback_to("kie?kind=4k&index=2", &body)
        .send()
        .await
        .taken();
    assert_eq!(server.task("t1").await["state"], "failed");
}

#[tokio::test]
async fn what_cannot_be_expected_is_refused_whole() {
    let server = TestServer::with("[sources.kie]\n[sources.apikley]").await;
    let one = json!({"task_id": "t1", "source": "kie"});
    let too_many = vec![one.clone(); 1001];
    for (body, status, code) in [
        (json!({}), 400, "bad_request"),
        (json!([]), 400, "bad_request"),
        (json!("t1"), 400, "bad_request"),
        (json!(too_many), 400, "bad_request"),
        (json!({"task_id": "../x", "source": "kie"}), 400, "bad_request"),
        (
            json!({"task_id": "t1", "source": "kie", "kind": "A/B"}),
            400,
            "bad_request",
        ),
        (
            json!({"task_id": "t1", "source": "kie", "index": -1}),
            400,
            "bad_request",
        ),
        (
            json!({"task_id": "t1", "source": "kie", "surprise": 1}),
            400,
            "bad_request",
        ),
        (json!([one, {"task_id": ""}]), 400, "bad_request"),
        (json!({"task_id": "t1"}), 422, "unknown_source"),
        (
            json!({"task_id": "t1", "source": "nobody"}),
            422,
            "unknown_source",
        ),
    ] {
        let answer = server.post("/v1/tasks", &body).await;
        let shown: String = body.to_string().chars().take(80).collect();
        assert_eq!(answer.problem(), (status, code.to_owned()), "{shown}");
    }
    let request = server.request(reqwest::Method::POST, "/v1/tasks");
    let request = request.header("content-type", "application/json").body("{");
    let answer = crate::support::Answer::of(request).await;
    assert_eq!(answer.problem(), (400, "bad_request".to_owned()));
    assert_eq!(server.number("SELECT count(*) FROM tasks").await, 0);
}

#[tokio::test]
async fn a_failed_download_can_be_tried_again_with_fresh_attempts() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let good = cdn.file("/good.mp4", &mp4(1, 1_000));
    let url = cdn.script(
        "/a.mp4",
        [Reply::Status(401, Vec::new()), Reply::Whole(mp4(1, 2_000))],
    );
    server.callback(&success("t1", &[good, url])).send().await.taken();
    assert_eq!(server.wait_settled("t1").await["media"], "partial");

    let answer = server.post("/v1/tasks/t1/retry", &Value::Null).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (202, json!({"queued": 1}))
    );
    let task = server.wait_settled("t1").await;
    let file = &task["files"][1];
    assert_eq!((&task["media"], &file["attempts"]), (&json!("stored"), &json!(1)));
    assert_eq!(cdn.hits("/good.mp4"), 1);
    let answer = server.post("/v1/tasks/t1/retry", &Value::Null).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (202, json!({"queued": 0}))
    );
}

#[tokio::test]
async fn a_deleted_task_is_gone_and_a_late_callback_does_not_revive_it() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let urls = [
        cdn.file("/a.mp4", &mp4(1, 1_000)),
        cdn.file("/b.mp4", &mp4(2, 1_000)),
    ];
    let body = success("t1", &urls);
    server.callback(&body).send().await.taken();
    server.wait_settled("t1").await;
    assert_eq!(server.files_in("media").len(), 2);

    assert_eq!(server.delete("/v1/tasks/t1").await.status, 204);
    assert_eq!(server.get("/v1/tasks/t1").await.problem().1, "unknown_task");
    assert_eq!(server.files_in("media"), [""; 0]);
    assert_eq!(server.delete("/v1/tasks/t1").await.problem().1, "unknown_task");

    server.callback(&body).send().await.taken();
    let other = success("t1", &[cdn.file("/c.mp4", &mp4(3, 1_000))]);
    server.callback_to("kie?kind=4k", &other).send().await.taken();
    assert_eq!(server.get("/v1/tasks/t1").await.problem().1, "unknown_task");
    let late = ("t1".to_owned(), "deleted".to_owned());
    assert_eq!(server.deliveries("duplicate").await, [late.clone(), late]);
    assert_eq!(cdn.all_hits(), 2);

    let expected = server.post("/v1/tasks", &json!({"task_id": "t1"})).await;
    assert_eq!(expected.status, 201, "unless somebody expects it again");
    server.callback(&body).send().await.taken();
    assert_eq!(server.wait_settled("t1").await["media"], "stored");
}

#[tokio::test]
async fn a_task_deleted_in_mid_download_leaves_nothing_behind() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let url = cdn.script("/a.mp4", [Reply::Held(mp4(1, 1_000))]);
    server.callback(&success("t1", &[url])).send().await.taken();
    cdn.until_busy_with(1).await;
    assert_eq!(server.delete("/v1/tasks/t1").await.status, 204);
    cdn.release(1);
    cdn.until_busy_with(0).await;
    let empty = || async { server.files_in("spool").is_empty().then_some(()) };
    until("the spool is empty", empty).await;
    assert_eq!(server.number("SELECT count(*) FROM downloads").await, 0);
}

#[tokio::test]
async fn deleting_a_task_removes_what_an_attempt_published_and_did_not_settle() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    server.callback(&success("t1", &[url])).send().await.taken();
    server.wait_settled("t1").await;
    // As if an attempt had died between rename and commit, and the next had found another extension.
    std::fs::write(server.data_dir().join("media/kie/t1/result-0.mov"), b"x").unwrap();
    server
        .sabotage("INSERT INTO doomed_keys (task_id, source, storage_key) VALUES ('t1', 'kie', 'kie/t1/result-0.mov')")
        .await;
    assert_eq!(server.delete("/v1/tasks/t1").await.status, 204);
    assert_eq!(server.files_in("media"), [""; 0]);
    assert_eq!(server.number("SELECT count(*) FROM doomed_keys").await, 0);
}

#[tokio::test]
async fn a_task_deleted_and_sent_again_and_again_leaves_what_its_rows_say() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let body = success("t1", &[cdn.file("/a.mp4", &mp4(1, 100_000))]);
    for round in 0..30 {
        server.post("/v1/tasks", &json!({"task_id": "t1"})).await;
        server.callback(&body).send().await.taken();
        if round % 3 == 0 {
            server.wait_settled("t1").await;
        }
        assert_eq!(server.delete("/v1/tasks/t1").await.status, 204);
    }
    server.post("/v1/tasks", &json!({"task_id": "t1"})).await;
    server.callback(&body).send().await.taken();
    assert_eq!(server.wait_settled("t1").await["media"], "stored");
    // Dropping the server compares files and rows.
}

#[tokio::test]
async fn what_a_deletion_left_is_removed_after_the_next_start() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let content = mp4(1, 1_000);
    let url = cdn.file("/a.mp4", &content);
    server.callback(&success("t1", &[url])).send().await.taken();
    server.wait_settled("t1").await;
    // As if files had resisted, or the process had died, before t1 was expected and stored again.
    server
        .sabotage(
            "INSERT INTO doomed_keys (task_id, source, storage_key) VALUES ('t1', 'kie', 'kie/t1/result-0.mov'), ('t2', 'kie', 'kie/t2/result-0.mp4'),
                                            ('t3', 'kie', 'kie/t3/result-0.mp4')",
        )
        .await;
    let media = server.data_dir().join("media/kie");
    std::fs::write(media.join("t1/result-0.mov"), b"x").unwrap();
    std::fs::create_dir_all(media.join("t2/result-0.mp4")).unwrap();
    std::fs::write(
        media.join("t2/result-0.mp4/x"),
        b"a directory where a file is expected",
    )
    .unwrap();
    std::fs::create_dir(media.join("t3")).unwrap();
    std::fs::write(media.join("t3/result-0.mp4"), b"x").unwrap();

    let server = server.halt().await.start().await;
    let left = "SELECT count(*) FROM doomed_keys";
    until("all but one are forgotten", || async {
        (server.number(left).await == 1).then_some(())
    })
    .await;
    assert_eq!(
        server.files_in("media"),
        ["kie/t1/result-0.mp4", "kie/t2/result-0.mp4/x"]
    );
    assert!(!media.join("t3").exists(), "an empty directory is not left");
    let file = server.get("/v1/tasks/t1/files/result-0.mp4").await;
    assert!(file.body == content);
    let kept = "SELECT count(*) FROM doomed_keys WHERE task_id = 't2'";
    assert_eq!(server.number(kept).await, 1, "kept for another try");
    std::fs::remove_dir_all(media.join("t2")).unwrap();
}

#[tokio::test]
async fn what_an_earlier_version_doomed_goes_but_for_files_of_a_successor() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    server.callback(&success("t1", &[url])).send().await.taken();
    server.wait_settled("t1").await;
    server
        .sabotage("INSERT INTO doomed_keys (task_id, source, storage_key) VALUES ('t1', 'kie', ''), ('t3', 'kie', '')")
        .await;
    let media = server.data_dir().join("media/kie");
    std::fs::write(media.join("t1/result-0.mov"), b"x").unwrap();
    std::fs::create_dir(media.join("t3")).unwrap();
    std::fs::write(media.join("t3/result-0.mp4"), b"x").unwrap();

    let server = server.halt().await.start().await;
    until("they are forgotten", || async {
        (server.number("SELECT count(*) FROM doomed_keys").await == 0).then_some(())
    })
    .await;
    assert_eq!(server.files_in("media"), ["kie/t1/result-0.mp4"]);
}

#[tokio::test]
async fn deliveries_of_a_task_are_listed_newest_first_and_shown_whole() {
    let server = TestServer::start().await;
    let body = failure("t1");
    for other in ["t0", "t1", "t1", "t2"] {
        server.callback(&failure(other)).send().await.taken();
    }
    server.callback_of("kie", "not JSON", "").send().await;
    let page = server.get("/v1/tasks/t1/deliveries").await.fine();
    let deliveries = page["deliveries"].as_array().unwrap();
    let verdicts: Vec<_> = deliveries.iter().map(|delivery| &delivery["verdict"]).collect();
    assert_eq!(verdicts, ["duplicate", "accepted"]);
    let id = deliveries[1]["id"].as_str().unwrap();
    let one = server.get(&format!("/v1/deliveries/{id}")).await.fine();
    assert_eq!(
        (&one["body"], &one["via"], &one["kind"], &one["index"]),
        (
            &json!(body.to_string()),
            &json!("callback"),
            &json!("video"),
            &json!(0)
        )
    );
    let all = server.get("/v1/deliveries?limit=3").await.fine();
    assert_eq!(all["deliveries"][0]["verdict"], "rejected");
    let cursor = all["next_cursor"].as_str().unwrap();
    let rest = server
        .get(&format!("/v1/deliveries?limit=3&cursor={cursor}"))
        .await
        .fine();
    assert_eq!(rest["deliveries"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_person_settles_a_conflict() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let first = success("t1", &[cdn.file("/a.mp4", &mp4(1, 1_000))]);
    server.callback(&first).send().await.taken();
    server.wait_settled("t1").await;
    let second = success("t1", &[cdn.file("/b.mp4", &mp4(2, 1_000))]);
    server.callback(&second).send().await.taken();
    server.callback(&failure("t1")).send().await.taken();
    let task = server.task("t1").await;
    assert_eq!(
        (&task["state"], &task["conflicts"]),
        (&json!("succeeded"), &json!(2))
    );
    assert_eq!(cdn.hits("/b.mp4"), 0, "a conflict fetches nothing");

    let page = server.get("/v1/deliveries?verdict=conflict").await.fine();
    let id = page["deliveries"][1]["id"].as_str().unwrap();
    let accept = format!("/v1/deliveries/{id}/accept");
    let answer = server.post(&accept, &Value::Null).await.fine();
    assert_eq!(
        (&answer["verdict"], &answer["reason"]),
        (&json!("accepted"), &json!("accepted_by_person"))
    );
    let task = server.wait_settled("t1").await;
    assert_eq!(
        (&task["conflicts"], &task["media"]),
        (&json!(0), &json!("stored"))
    );
    assert_eq!(
        server.files_in("media"),
        ["kie/t1/result-0.mp4", "kie/t1/result-1.mp4"]
    );

    let again = server.post(&accept, &Value::Null).await;
    assert_eq!(again.problem(), (409, "not_a_conflict".to_owned()));
    let unknown = server.post("/v1/deliveries/99/accept", &Value::Null).await;
    assert_eq!(unknown.problem(), (404, "unknown_delivery".to_owned()));
}

#[tokio::test]
async fn stats_count_tasks_files_and_bytes() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let urls = [
        cdn.file("/a.mp4", &mp4(1, 1_000)),
        cdn.script("/b.mp4", [Reply::Status(401, Vec::new())]),
    ];
    server.callback(&success("t1", &urls)).send().await.taken();
    server.callback(&failure("t2")).send().await.taken();
    server.wait_settled("t1").await;
    let stats = server.get("/v1/stats").await.fine();
    assert_eq!(
        stats,
        json!({"tasks": {"succeeded": 1, "failed": 1}, "files": {"stored": 1, "failed": 1},
            "oldest_queued_at": null, "stored_bytes": 1000, "paused": null, "paused_code": null, "paused_since": null, "repaired": 0, "asks": {"open": {}, "paused": {}}, "scrub": null})
    );
}

/// What reconciling leaves: an open question about each of two tasks, one of which nobody can be asked about.
const ASKS: &str = "
    INSERT INTO asks (task, kind, idx, source, reason, since, ask_at, asks, asked_at, note_code, note)
    SELECT id, 'video', 0, source, 'silent', 1000, 4000000000000, 3, 2000, 'unauthorized', 'the API refuses the key'
    FROM tasks WHERE task_id IN ('asked', 'mute')
    ON CONFLICT DO UPDATE SET reason = 'silent', since = 1000, ask_at = 4000000000000, asks = 3, asked_at = 2000,
        note_code = excluded.note_code, note = excluded.note;
    UPDATE asks SET reason = 'held' WHERE source = 'mute'";

#[tokio::test]
async fn what_the_provider_is_asked_is_shown_and_why_nobody_can_be() {
    let server = TestServer::with(&format!(
        "[sources.mute]\nhmac_keys = [\"{KEY}\"]\n\
         [sources.paid]\nhmac_keys = [\"{KEY}\"]\napi_key = \"sk-0123456789abcdef\"\napi_url = \"http://127.0.0.1:9\"\n"
    ))
    .await;
    for (task_id, source, ask) in [("asked", "paid", "now"), ("mute", "mute", "later")] {
        let expected = json!({"task_id": task_id, "source": source, "ask": ask});
        assert_eq!(server.post("/v1/tasks", &expected).await.status, 201);
    }
    let done = server.callback_to("mute", &failure("done"));
    done.signed(KEY).send().await.taken();
    server.sabotage(ASKS).await;
    assert_eq!(
        server.task("asked").await["asking"],
        json!([{"kind": "video", "index": 0, "reason": "silent", "since": "1970-01-01T00:00:01.000Z", "asks": 3,
                "asked_at": "1970-01-01T00:00:02.000Z", "next_ask_at": "2096-10-02T07:06:40.000Z",
                "note": {"code": "unauthorized", "detail": "the API refuses the key"}}])
    );
    let mute = &server.task("mute").await["asking"][0];
    let sentence = "source mute has no api_key: nobody can be asked; set sources.mute.api_key";
    assert_eq!(mute["note"], json!({"code": "no_api_key", "detail": sentence}));
    assert_eq!((&mute["next_ask_at"], &mute["asks"]), (&Value::Null, &json!(3)));
    let listed = server.get("/v1/tasks?q=asked").await.fine();
    assert_eq!(listed["tasks"][0]["asking"][0]["reason"], "silent");
    assert_eq!(server.task("done").await["asking"], json!([]));
    let stats = server.get("/v1/stats").await.fine();
    assert_eq!(
        stats["asks"],
        json!({"open": {"silent": 1, "held": 1}, "paused": {}})
    );
    for (task_id, source) in [("asked", "paid"), ("mute", "mute")] {
        let told = server.callback_to(source, &failure(task_id));
        told.signed(KEY).send().await.taken();
    }
    assert_eq!(
        server.get("/v1/stats").await.fine()["asks"],
        json!({"open": {}, "paused": {}})
    );
}

#[tokio::test]
async fn whether_to_ask_at_once_is_one_of_two_words() {
    let server = TestServer::start().await;
    let refused = server
        .post("/v1/tasks", &json!({"task_id": "a", "ask": "soon"}))
        .await;
    assert_eq!(refused.problem(), (400, "bad_request".to_owned()));
    assert!(refused.text().contains("`later`"), "{}", refused.text());
}
