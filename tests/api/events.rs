//! Live events: what is told, to whom, and that nothing is left out.

use std::collections::BTreeMap;

use reqwest::{Method, Version};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;

use crate::support::{
    Answer, Asked, Authority, Bucket, Cdn, Fault, Follower, Reply, SECRET_KEY, Setup, TOKEN, TestServer,
    Told, failure, mp4, success, until, web_client,
};

/// What an event is about.
fn task_of(told: &Told) -> &str {
    told.data["task_id"].as_str().expect("a task's id")
}

/// Announces a task.
async fn expect(server: &TestServer, id: &str) {
    let answer = server.post("/v1/tasks", &json!({"task_id": id})).await;
    assert!(answer.status.is_success(), "{}", answer.text());
}

#[tokio::test]
async fn a_callback_is_followed_from_its_arrival_to_the_stored_file() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let mut follower = server.follow("", None).await;
    let url = cdn.script("/a.mp4", [Reply::Held(mp4(1, 10_000))]);
    server.callback(&success("t1", &[url])).send().await.taken();
    // What happens in quick succession is told as one.
    let mut told = vec![follower.next().await.expect("the stream goes on")];
    cdn.release(1);
    while told
        .last()
        .is_none_or(|told: &Told| told.data["media"] != "stored")
    {
        told.push(follower.next().await.expect("the stream goes on"));
    }
    let updated = told.first().unwrap();
    assert_eq!((updated.name.as_str(), task_of(updated)), ("task.updated", "t1"));
    assert_eq!(updated.data["state"], "succeeded");
    let stored = told.iter().find(|told| told.name == "file.stored").unwrap();
    assert_eq!((task_of(stored), &stored.data["source"]), ("t1", &json!("kie")));
    assert_eq!(stored.data["file"]["name"], "result-0.mp4");
    let task = server.task("t1").await;
    assert_eq!(stored.data["file"], task["files"][0]);
    assert_eq!(told.last().unwrap().data, task, "the task as everywhere");
    let ids: Vec<_> = told.iter().filter_map(|told| told.id).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}

#[tokio::test]
async fn a_file_that_fails_for_good_is_told_and_so_is_how_far_one_is() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let mut follower = server.follow("", None).await;
    let stalled = cdn.script("/a.mp4", [Reply::Stalled(mp4(1, 10_000))]);
    let urls = [stalled, "ftp://127.0.0.1/b.mp4".to_owned()];
    server.callback(&success("t1", &urls)).send().await.taken();
    let failed = follower.next_of("file.failed").await;
    assert_eq!(failed.data["file"]["error"]["code"], "blocked");
    let progress = follower.next_of("file.progress").await;
    assert_eq!(progress.id, None);
    assert!(progress.data["bytes"].as_u64().unwrap() <= 5_000, "{progress:?}");
    assert_eq!(
        (task_of(&progress), &progress.data["name"]),
        ("t1", &json!("result-0.mp4"))
    );
    let again = follower.next_of("file.progress").await;
    assert_eq!(
        (&again.data["bytes"], &again.data["total"]),
        (&json!(5_000), &Value::Null)
    );
    assert!(again.data["bytes_per_second"].is_u64());
    // The transfer would go on for as long as the stop lets it.
    server.halt().await;
}

/// Reads until a task comes up, breaking off and coming back at random; what was told, in this order.
async fn follow_brokenly(server: &TestServer, last: &str) -> Vec<Told> {
    let mut all: Vec<Told> = Vec::new();
    let mut seen = 0;
    loop {
        let mut follower = server.follow("", Some(&seen.to_string())).await;
        let mut random = [0];
        getrandom::fill(&mut random).unwrap();
        for _ in 0..random[0] % 24 {
            let told = follower.next().await.expect("the stream goes on");
            assert_eq!(told.name, "task.updated", "{told:?}");
            let is_last = task_of(&told) == last;
            all.push(told);
            if is_last {
                return all;
            }
        }
        seen = follower.last_id.unwrap_or(seen);
    }
}

#[tokio::test]
async fn whoever_comes_back_has_missed_nothing_and_sees_nothing_twice() {
    const TASKS: usize = 130;
    let server = TestServer::start().await;
    let write = async {
        for round in 0..3 {
            for task in 0..TASKS {
                let id = format!("t{task}");
                match (round + task) % 3 {
                    0 => expect(&server, &id).await,
                    _ => drop(server.callback(&failure(&id)).send().await.taken()),
                }
            }
        }
        expect(&server, "last").await;
    };
    let (told, more, ()) = tokio::join!(
        follow_brokenly(&server, "last"),
        follow_brokenly(&server, "last"),
        write
    );
    let afterwards = follow_brokenly(&server, "last").await;
    assert_eq!(afterwards.len(), TASKS + 1, "each task once");
    for told in [told, more, afterwards] {
        let ids: Vec<_> = told.iter().map(|told| told.id.expect("an id")).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        let seen: BTreeMap<&str, &Value> = told.iter().map(|told| (task_of(told), &told.data)).collect();
        assert_eq!(seen.len(), TASKS + 1);
        for (id, seen) in seen {
            assert_eq!(*seen, server.task(id).await, "the last word about {id}");
        }
    }
}

#[tokio::test]
async fn what_was_missed_is_told_as_it_is_now_and_each_thing_once() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let follower = server.follow("", None).await;
    let before = follower.last_id.expect("an id to come back with").to_string();
    drop(follower);
    let url = cdn.file("/a.mp4", &mp4(1, 10_000));
    for id in ["t1", "t2"] {
        server
            .callback(&success(id, std::slice::from_ref(&url)))
            .send()
            .await
            .taken();
        server.wait_settled(id).await;
    }
    let mut all = Vec::new();
    let mut follower = server.follow("", Some(&before)).await;
    for _ in 0..4 {
        let told = follower.next().await.unwrap();
        all.push((told.name.clone(), task_of(&told).to_owned()));
    }
    let of = |name: &str, id: &str| (name.to_owned(), id.to_owned());
    assert_eq!(
        all,
        [
            of("file.stored", "t1"),
            of("task.updated", "t1"),
            of("file.stored", "t2"),
            of("task.updated", "t2")
        ]
    );
    for query in ["?task_id=t2", "?task_id=t9,t2&source=kie"] {
        let mut follower = server
            .follow(&format!("{query}&last_event_id={before}"), None)
            .await;
        for _ in 0..2 {
            assert_eq!(task_of(&follower.next().await.unwrap()), "t2");
        }
    }
}

#[tokio::test]
async fn a_follower_of_some_tasks_hears_of_no_others() {
    let server = Setup::new("sources.kie = {}\nsources.other = {}").start().await;
    let mut of_task = server.follow("?task_id=a,b", None).await;
    let mut of_source = server.follow("?source=other", None).await;
    for (id, source) in [("x", "kie"), ("a", "kie"), ("y", "other"), ("b", "other")] {
        server
            .post("/v1/tasks", &json!({"task_id": id, "source": source}))
            .await;
    }
    for wanted in ["a", "b"] {
        assert_eq!(task_of(&of_task.next().await.unwrap()), wanted);
    }
    for wanted in ["y", "b"] {
        assert_eq!(task_of(&of_source.next().await.unwrap()), wanted);
    }
}

#[tokio::test]
async fn what_cannot_be_told_any_more_is_a_reset() {
    let server = TestServer::start().await;
    expect(&server, "t1").await;
    let last = server.follow("", None).await.last_id.unwrap();
    for id in ["999999", "-1", "what", "0x1", "\u{e9}"] {
        let mut follower = server.follow("", Some(id)).await;
        let told = follower.next().await.unwrap();
        assert_eq!((told.name.as_str(), told.id), ("reset", Some(last)), "{id}");
        assert_eq!(told.data, json!({}));
    }
    let server = server.halt().await.start().await;
    let mut outdated = server.follow("", Some(&(last - 1).to_string())).await;
    let told = outdated.next().await.unwrap();
    assert_eq!(
        (told.name.as_str(), told.id),
        ("reset", Some(last)),
        "unknown after a restart"
    );
    let mut complete = server.follow("", Some(&last.to_string())).await;
    expect(&server, "t2").await;
    for follower in [&mut outdated, &mut complete] {
        let told = follower.next().await.unwrap();
        assert_eq!((told.name.as_str(), task_of(&told)), ("task.updated", "t2"));
    }
}

#[tokio::test]
async fn the_stop_ends_every_stream_at_once() {
    let mut server = TestServer::start().await;
    let mut followers = [server.follow("", None).await, server.follow("", None).await];
    let stopped = server.begin_stop();
    for follower in &mut followers {
        assert!(follower.next().await.is_none());
    }
    assert!(stopped.await.unwrap(), "nothing had to be cut short");
}

#[tokio::test]
async fn new_tokens_end_every_stream() {
    let server = TestServer::with(&format!("[api]\ntokens = [\"{TOKEN}\"]")).await;
    let mut follower = server.follow("", None).await;
    server.look_again();
    assert!(follower.next().await.is_none());
    let mut follower = server.follow("", None).await;
    expect(&server, "t1").await;
    assert_eq!(task_of(&follower.next().await.unwrap()), "t1");
}

/// A body of which the task's JSON has 32 KiB.
fn wordy(id: &str) -> Value {
    let mut body = failure(id);
    body["msg"] = Value::from("x".repeat(16_000));
    body
}

#[tokio::test]
async fn who_stalls_is_let_go_and_nobody_else_notices() {
    // Two may follow at one time.
    let server = TestServer::with("[ingest]\nmax_connections = 8\nwrite_timeout = \"500ms\"").await;
    let mut follower = server.follow("", None).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stalled = socket.connect(server.addr).await.unwrap();
    let request = format!("GET /v1/events HTTP/1.1\r\nhost: {}\r\n\r\n", server.addr);
    stalled.write_all(request.as_bytes()).await.unwrap();
    let third = || async { server.get("/v1/events").await.problem() };
    until("the second seat is taken", || async {
        let request = server.request(Method::HEAD, "/v1/events");
        (Answer::of(request).await.status == 503).then_some(())
    })
    .await;
    assert_eq!(third().await, (503, "too_many_readers".to_owned()));
    // In vain for as long as the connection of the one who follows may last.
    for step in 0.. {
        let ids: Vec<String> = (0..16).map(|n| format!("t{step}-{n}")).collect();
        for id in &ids {
            server.callback(&wordy(id)).send().await.taken();
        }
        for id in &ids {
            let told = follower.next().await.expect("nobody else is cut off");
            assert_eq!(
                (told.name.as_str(), task_of(&told)),
                ("task.updated", id.as_str())
            );
        }
        let request = server.request(Method::HEAD, "/v1/events");
        if Answer::of(request).await.status == 200 {
            break;
        }
    }
    drop(stalled);
}

#[tokio::test]
async fn a_silence_is_broken_by_signs_of_life_and_none_is_taken_for_dead() {
    let toml = "[ingest]\nwrite_timeout = \"300ms\"\nheader_timeout = \"300ms\"";
    let server = TestServer::with(toml).await;
    let mut follower = server.follow("?task_id=t2", None).await;
    follower.comments(2).await;
    expect(&server, "t1").await;
    let before = follower.last_id;
    while follower.last_id == before {
        follower.comments(follower.comments + 1).await;
    }
    // Longer than a peer may take nothing of an answer.
    follower.comments(follower.comments + 8).await;
}

// The client's end of HTTP/2 must be alive to let the server stop, which the end of the test waits for.
#[tokio::test(flavor = "multi_thread")]
async fn a_silence_is_broken_over_http_2_as_well() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.issue(&["hooks.localhost"], 2100).put(dir.path());
    let path = dir.path().display();
    let server = Setup::new(&format!(
        "[ingest]\nwrite_timeout = \"300ms\"\nheader_timeout = \"300ms\"\n
         [tls]\ncert_file = \"{path}/cert.pem\"\nkey_file = \"{path}/key.pem\""
    ))
    .start()
    .await;
    let client = web_client(authority.root(), "hooks.localhost", server.addr)
        .build()
        .unwrap();
    let url = |path: &str| format!("https://hooks.localhost:{}{path}", server.addr.port());
    let mut follower = Follower::of(client.get(url("/v1/events"))).await;
    follower.comments(8).await;
    let body = json!({"task_id": "t1"}).to_string();
    let request = client
        .post(url("/v1/tasks"))
        .header("content-type", "application/json");
    let answer = request.body(body).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.version()),
        (201, Version::HTTP_2)
    );
    assert_eq!(task_of(&follower.next().await.unwrap()), "t1");
}

#[tokio::test]
async fn the_queue_is_told_to_pause_and_to_go_on() {
    let (bucket, cdn) = (Bucket::start().await, Cdn::start().await);
    let setup = Setup::new("egress.allow_cidrs = [\"127.0.0.0/8\"]\nstorage.url = \"s3://media/videos\"");
    let server = setup.variables(bucket.access(SECRET_KEY)).start().await;
    bucket.fail_always(Asked::Put, Some(Fault::Status(403)));
    let mut early = server.follow("", None).await;
    let url = cdn.file("/a.mp4", &mp4(1, 10_000));
    server.callback(&success("t1", &[url])).send().await.taken();
    let paused = early.next_of("queue.paused").await;
    assert_eq!((paused.id, &paused.data["code"]), (None, &json!("storage")));
    let mut late = server.follow("?task_id=nobody", None).await;
    let at_once = late.next().await.unwrap();
    assert_eq!(
        (at_once.name.as_str(), &at_once.data),
        ("queue.paused", &paused.data)
    );
    bucket.fail_always(Asked::Put, None);
    assert_eq!(early.next_of("queue.resumed").await.data, json!({}));
    assert_eq!(
        late.next().await.unwrap().name,
        "queue.resumed",
        "and it is told once"
    );
    server.wait_settled("t1").await;
}

#[tokio::test]
async fn only_who_may_use_the_api_may_follow() {
    let server = TestServer::with(&format!("[api]\ntokens = [\"{TOKEN}\"]")).await;
    let stranger = Answer::of(server.bare(Method::GET, "/v1/events")).await;
    assert_eq!(stranger.problem(), (401, "missing_token".to_owned()));
    let posted = server.post("/v1/events", &json!({})).await;
    assert_eq!(posted.problem(), (405, "method_not_allowed".to_owned()));
    let head = Answer::of(server.request(Method::HEAD, "/v1/events")).await;
    assert_eq!(
        (head.status.as_u16(), head.header("content-type")),
        (200, "text/event-stream")
    );
    let open = TestServer::start().await;
    let foreign = open.get_with("/v1/events", &[("host", "evil.example")]).await;
    assert_eq!(foreign.problem(), (403, "loopback_only".to_owned()));
}

#[tokio::test]
async fn no_event_has_a_secret() {
    let server = TestServer::with(&format!("[sources.kie]\ntokens = [\"{TOKEN}\"]")).await;
    let mut follower = server.follow("", None).await;
    let mut body = failure("t1");
    body["msg"] = Value::from(format!("cannot reach https://x/?token={TOKEN}"));
    let callback = server.callback_to(&format!("kie?token={TOKEN}"), &body);
    callback.send().await.taken();
    let told = follower.next().await.unwrap();
    assert_eq!(told.data["msg"], "cannot reach https://x/?token=[redacted]");
}
