//! Stored files in a bucket, by way of the whole server and a real S3 API.

use std::time::Duration;

use reelhook::clock::Clock;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Answer, Asked, Bucket, Cdn, Fault, Moto, Program, SECRET_KEY, Setup, TestServer, client, loopback, mp4,
    skip, success, until,
};

const MIB: usize = 1 << 20;
const KEY: &str = "videos/kie/t1/result-0.mp4";

/// A server that keeps its files in the bucket.
fn setup(bucket: &Bucket, toml: &str) -> Setup {
    let toml = format!("egress.allow_cidrs = [\"127.0.0.0/8\"]\nstorage.url = \"s3://media/videos\"\n{toml}");
    Setup::new(&toml).variables(bucket.access(SECRET_KEY))
}

async fn stored(server: &TestServer, cdn: &Cdn, content: &[u8]) -> Value {
    let url = cdn.file("/a.mp4", content);
    server.callback(&success("t1", &[url])).send().await.taken();
    let task = settled(server).await;
    assert_eq!(task["media"], "stored", "{task}");
    task
}

/// `t1` once nothing more is awaited of it. Tens of mebibytes through debug builds of both sides take their time.
async fn settled(server: &TestServer) -> Value {
    for _ in 0..4 {
        let task = server.get("/v1/tasks/t1?wait=15s").await.fine();
        if !matches!(task["media"].as_str(), Some("queued" | "downloading")) {
            return task;
        }
    }
    panic!("waited in vain for t1");
}

#[tokio::test]
async fn a_file_goes_into_the_bucket_is_served_by_range_and_deleted() {
    let (bucket, cdn) = (Bucket::start().await, Cdn::start().await);
    let server = setup(&bucket, "").start().await;
    let content = mp4(1, 100_000);
    let task = stored(&server, &cdn, &content).await;
    assert_eq!(bucket.objects(), [KEY]);
    assert!(bucket.content(KEY) == content);
    assert_eq!(server.files_in("spool"), [""; 0]);

    let url = task["files"][0]["url"].as_str().unwrap();
    assert!(server.get(url).await.body == content);
    let part = server.get_with(url, &[("range", "bytes=10-19")]).await;
    assert_eq!(part.status, 206);
    assert_eq!(part.headers["content-range"], "bytes 10-19/100000");
    assert!(part.body == content[10..20]);
    let last = server.get_with(url, &[("range", "bytes=-5")]).await;
    assert!(last.body == content[99_995..]);
    let archive = server.get("/v1/tasks/t1/files.zip").await;
    assert_eq!(archive.header("content-length"), archive.body.len().to_string());
    assert!(archive.body.windows(content.len()).any(|part| part == content));
    let beyond = server.get_with(url, &[("range", "bytes=100000-")]).await;
    assert_eq!(beyond.status, 416);
    let head = Answer::of(server.request(Method::HEAD, url)).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), "100000");

    assert_eq!(server.delete("/v1/tasks/t1").await.status, 204);
    assert_eq!(bucket.objects(), [""; 0]);
    assert_eq!(server.number("SELECT count(*) FROM doomed_keys").await, 0);
}

#[tokio::test]
async fn a_file_that_is_gone_from_the_bucket_is_missing() {
    let (bucket, cdn) = (Bucket::start().await, Cdn::start().await);
    let server = setup(&bucket, "storage.serve = \"redirect\"").start().await;
    let task = stored(&server, &cdn, &mp4(1, 1_000)).await;
    bucket.lose(KEY);
    let missing = server.get(task["files"][0]["url"].as_str().unwrap()).await;
    assert_eq!(missing.problem(), (404, "file_missing".to_owned()));
}

#[tokio::test]
async fn a_bucket_that_cannot_be_asked_is_no_missing_file() {
    let (bucket, cdn) = (Bucket::start().await, Cdn::start().await);
    let server = setup(&bucket, "").start().await;
    let task = stored(&server, &cdn, &mp4(1, 1_000)).await;
    bucket.fail_always(Asked::Head, Some(Fault::Status(403)));
    let refused = server.get(task["files"][0]["url"].as_str().unwrap()).await;
    assert_eq!(refused.problem(), (503, "storage_unavailable".to_owned()));
    assert_eq!(refused.header("retry-after"), "10");
}

#[tokio::test]
async fn programs_are_sent_to_the_bucket_and_browsers_are_not() {
    let (bucket, cdn) = (Bucket::start().await, Cdn::start().await);
    let server = setup(&bucket, "storage.serve = \"redirect\"").start().await;
    let content = mp4(1, 100_000);
    let task = stored(&server, &cdn, &content).await;
    let url = task["files"][0]["url"].as_str().unwrap();

    let there = server.get_without_following(url).await;
    assert_eq!(there.status, 307);
    assert_eq!(there.header("cache-control"), "no-store");
    let location = there.headers["location"].to_str().unwrap();
    assert!(
        location.starts_with(&format!("http://{}/media/{KEY}?", bucket.addr)),
        "{location}"
    );
    assert!(location.contains("X-Amz-Expires=300"), "{location}");
    assert!(!location.contains(SECRET_KEY));
    let part = Answer::of(client().get(location).header("range", "bytes=10-19")).await;
    assert_eq!(part.status, 206);
    assert!(part.body == content[10..20]);

    let proxied = format!("{url}&proxy=1");
    for (url, headers) in [
        (url, [("sec-fetch-dest", "video"), ("range", "bytes=0-9")]),
        (&proxied, [("accept", "*/*"), ("range", "bytes=0-9")]),
    ] {
        let part = server.get_with(url, &headers).await;
        assert_eq!((part.status.as_u16(), part.body.len()), (206, 10));
    }
    let head = Answer::of(server.request(Method::HEAD, url)).await;
    assert_eq!(head.status, 200);
}

#[tokio::test]
async fn a_large_file_goes_in_parts() {
    let (bucket, cdn) = (Bucket::start().await, Cdn::start().await);
    let server = setup(&bucket, "").start().await;
    let content = mp4(1, 21 * MIB + 1);
    stored(&server, &cdn, &content).await;
    assert!(bucket.content(KEY) == content);
    assert_eq!((bucket.count(Asked::Begin), bucket.count(Asked::Part)), (1, 3));
    assert_eq!(bucket.unfinished(), [""; 0]);
    assert_eq!(server.files_in("uploads"), [""; 0]);
}

#[tokio::test]
async fn a_bucket_that_fails_in_the_middle_gets_the_file_in_the_end() {
    let (bucket, cdn) = (Bucket::start().await, Cdn::start().await);
    bucket.fail(Asked::Begin, [Fault::Status(503)]);
    bucket.fail(Asked::Part, [Fault::Status(500), Fault::Cut, Fault::Status(503)]);
    bucket.fail(Asked::Complete, [Fault::Status(500), Fault::Cut]);
    bucket.fail(Asked::Head, [Fault::Cut]);
    let server = setup(&bucket, "").start().await;
    let content = mp4(1, 21 * MIB);
    let task = stored(&server, &cdn, &content).await;
    assert_eq!(task["files"][0]["attempts"], 1, "{task}");
    assert!(bucket.content(KEY) == content);
    assert_eq!(bucket.count(Asked::Part), 6);
    assert_eq!(bucket.unfinished(), [""; 0]);
    assert_eq!(server.files_in("uploads"), [""; 0]);
}

#[tokio::test]
async fn an_answer_that_is_lost_is_no_file_that_is_lost() {
    let (bucket, cdn) = (Bucket::start().await, Cdn::start().await);
    bucket.fail(Asked::Complete, [Fault::Lost]);
    let server = setup(&bucket, "").start().await;
    let content = mp4(1, 9 * MIB);
    let task = stored(&server, &cdn, &content).await;
    assert_eq!(task["files"][0]["attempts"], 1, "{task}");
    assert_eq!(
        (bucket.count(Asked::Begin), bucket.count(Asked::Complete)),
        (1, 2)
    );
    assert!(bucket.content(KEY) == content);
    assert_eq!(server.files_in("uploads"), [""; 0]);
}

#[tokio::test]
async fn an_upload_that_is_refused_is_aborted_and_costs_no_attempt() {
    let (bucket, cdn) = (Bucket::start().await, Cdn::start().await);
    bucket.fail_always(Asked::Part, Some(Fault::Status(403)));
    let clock = Clock::manual(1_795_284_446_000);
    let server = setup(&bucket, "").clock(&clock).start().await;
    let content = mp4(1, 21 * MIB);
    let body = success("t1", &[cdn.file("/a.mp4", &content)]);
    server.callback(&body).send().await.taken();
    let file = waits_for_this_machine(&server).await;
    let detail = file["error"]["detail"].as_str().unwrap();
    assert!(
        detail.contains("could not send a part of a file: s3://media/videos: "),
        "{detail}"
    );
    assert!(
        detail.contains("403") && detail.contains("(Scripted)"),
        "{detail}"
    );
    assert!(!detail.contains("http://"), "{detail}");
    until("it is aborted", async || {
        bucket.unfinished().is_empty().then_some(())
    })
    .await;

    bucket.fail_always(Asked::Part, None);
    clock.advance(Duration::from_mins(5));
    let server = server.halt().await.start().await;
    let task = settled(&server).await;
    assert_eq!(
        (&task["media"], &task["files"][0]["attempts"]),
        (&json!("stored"), &json!(1))
    );
    assert!(bucket.content(KEY) == content);
    assert_eq!(server.files_in("uploads"), [""; 0]);
}

/// The file of `t1`, once it was tried and waits for something here to be mended.
async fn waits_for_this_machine(server: &TestServer) -> Value {
    until("the file waits", async || {
        let file = server.task("t1").await["files"][0].clone();
        (file["state"] == "queued" && file["error"]["code"] == "local" && file["attempts"] == 0)
            .then_some(file)
    })
    .await
}

#[tokio::test]
async fn with_a_wrong_secret_callbacks_are_taken_and_files_wait() {
    let (bucket, cdn) = (Bucket::start().await, Cdn::start().await);
    let clock = Clock::manual(1_795_284_446_000);
    let locked_out = setup(&bucket, "").variables(bucket.access("not-the-secret-at-all"));
    let server = locked_out.clock(&clock).start().await;
    let content = mp4(1, 1_000);
    let body = success("t1", &[cdn.file("/a.mp4", &content)]);
    server.callback(&body).send().await.taken();
    let file = waits_for_this_machine(&server).await;
    let detail = file["error"]["detail"].as_str().unwrap();
    assert!(
        detail.contains("check the credentials") && detail.contains("SignatureDoesNotMatch"),
        "{detail}"
    );
    assert!(!detail.contains("not-the-secret"), "{detail}");
    assert_eq!(bucket.objects(), [""; 0]);

    clock.advance(Duration::from_mins(5));
    let server = server
        .halt()
        .await
        .variables(bucket.access(SECRET_KEY))
        .start()
        .await;
    assert_eq!(settled(&server).await["media"], "stored");
    assert!(bucket.content(KEY) == content);
}

#[tokio::test]
async fn files_stay_where_another_layout_put_them() {
    let (bucket, cdn) = (Bucket::start().await, Cdn::start().await);
    let server = setup(&bucket, "").start().await;
    let content = mp4(1, 1_000);
    stored(&server, &cdn, &content).await;
    let server = server
        .halt()
        .await
        .layout("{name}/of-{task_id}/{source}")
        .start()
        .await;
    let body = success("t2", &[cdn.file("/b.mp4", &content)]);
    server.callback(&body).send().await.taken();
    server.wait_settled("t2").await;
    assert_eq!(bucket.objects(), [KEY, "videos/result-0.mp4/of-t2/kie"]);
    for task in ["t1", "t2"] {
        let file = server.get(&format!("/v1/tasks/{task}/files/result-0.mp4")).await;
        assert!(file.body == content);
        assert_eq!(server.delete(&format!("/v1/tasks/{task}")).await.status, 204);
    }
    assert_eq!(bucket.objects(), [""; 0]);
}

#[tokio::test]
async fn what_a_killed_server_had_sent_is_aborted_by_the_next() {
    let (bucket, cdn) = (Bucket::start().await, Cdn::start().await);
    let listen = format!("{}:8080", loopback());
    let program = Program::configured(&format!(
        "listen = \"{listen}\"\negress.allow_cidrs = [\"127.0.0.0/8\"]\nstorage.url = \"s3://media/videos\"\n\
         sources.kie.allow_unverified = true\n"
    ));
    let body = success("t1", &[cdn.file("/a.mp4", &mp4(1, 9 * MIB))]);
    let data = program.path().join("data");
    let variables = bucket.variables(SECRET_KEY);
    let killed = tokio::task::spawn_blocking(move || {
        let mut variables: Vec<(&str, &str)> = variables
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        variables.push(("REELHOOK_ABORT_AT", "file_staged:1"));
        let ended = program.run_with(&variables, &["serve"]);
        (program, ended)
    });
    let url = format!("http://{listen}/callbacks/kie");
    until("the callback is taken", async || {
        let sent = client().post(&url).body(body.to_string()).send().await.ok()?;
        (sent.status() == 200).then_some(())
    })
    .await;
    let (_program, ended) = killed.await.unwrap();
    assert_eq!(ended.code, None, "{}", ended.err);
    assert!(!bucket.unfinished().is_empty());
    assert_eq!(std::fs::read_dir(data.join("uploads")).unwrap().count(), 1);

    let server = setup(&bucket, "").data_dir(&data).start().await;
    assert_eq!(settled(&server).await["media"], "stored");
    until("nothing is left of the first", async || {
        (bucket.unfinished().is_empty() && server.files_in("uploads").is_empty()).then_some(())
    })
    .await;
    assert_eq!(bucket.objects(), [KEY]);
}

/// Another S3 API, by other people: `moto_server`, which `.ci/run` installs.
#[tokio::test]
async fn another_s3_api_agrees() {
    let Some(moto) = Moto::start().await else {
        skip("there is no moto_server; pip install 'moto[s3,server]' brings it");
        return;
    };
    let cdn = Cdn::start().await;
    let toml = "egress.allow_cidrs = [\"127.0.0.0/8\"]\nstorage.url = \"s3://media/videos\"";
    let server = Setup::new(toml).variables(moto.access()).start().await;
    let (small, large) = (mp4(1, 1_000), mp4(2, 17 * MIB));
    let body = success("t1", &[cdn.file("/a.mp4", &small), cdn.file("/b.mp4", &large)]);
    server.callback(&body).send().await.taken();
    let task = settled(&server).await;
    assert_eq!(task["media"], "stored", "{task}");
    for (n, content) in [(0, &small), (1, &large)] {
        let url = task["files"][n]["url"].as_str().unwrap();
        assert!(server.get(url).await.body == *content);
        let part = server.get_with(url, &[("range", "bytes=500-599")]).await;
        assert!(part.status == 206 && part.body == content[500..600]);
    }
    let head = moto.ask(Method::HEAD, "/media/videos/kie/t1/result-1.mp4").await;
    assert_eq!(head.header("content-type"), "video/mp4");
    assert_eq!(head.header("x-amz-meta-sha256"), task["files"][1]["sha256"]);
    assert!(
        !moto
            .ask(Method::GET, "/media?uploads")
            .await
            .text()
            .contains("<Upload>")
    );
    assert_eq!(server.delete("/v1/tasks/t1").await.status, 204);
    assert!(
        !moto
            .ask(Method::GET, "/media?list-type=2")
            .await
            .text()
            .contains("<Key>")
    );

    let program = Program::configured("storage.url = \"s3://other\"\n");
    let variables = moto.access();
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (name, value.expose()))
        .collect();
    let check = program.run_with(&variables, &["check"]);
    assert!(
        check.err.contains("failed files: ") && check.err.contains("NoSuchBucket"),
        "{}",
        check.err
    );
}

#[tokio::test]
async fn check_tells_whether_the_bucket_can_be_used() {
    let bucket = Bucket::start().await;
    let program = Program::configured("storage.url = \"s3://media/videos\"\n");
    let check = |secret: &str| {
        let variables = bucket.variables(secret);
        let variables: Vec<(&str, &str)> = variables
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let ended = program.run_with(&variables, &["check"]);
        let shown = format!("{}{}", ended.out, ended.err);
        assert!(!shown.contains(secret), "{shown}");
        (ended.code, ended.err)
    };
    let (code, said) = check(SECRET_KEY);
    assert!(
        said.contains("ok files: s3://media/videos takes files and removes them"),
        "{said}"
    );
    assert_eq!(code, Some(0));
    assert_eq!(bucket.objects(), [""; 0]);
    let (code, said) = check("not-the-secret-at-all");
    assert!(
        said.contains("failed files: ") && said.contains("check the credentials"),
        "{said}"
    );
    assert_eq!(code, Some(1));
}
