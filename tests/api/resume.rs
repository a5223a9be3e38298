//! Transfers that are cut, changed under way, or answered wrongly: what is stored is one version of the file, whole, or
//! nothing is, for the right reason. Every host here is scripted to the byte.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    LONG_AGO, Origin, Program, Scripted as Reply, ScriptedProvider, TestServer, Then, Version, client, mp4,
    record, success, until,
};

/// Tries again in quick succession.
const QUICK: &str = "
    shutdown_grace = \"100ms\"
    [downloads]
    retry_base = \"1ms\"
    retry_cap = \"2ms\"
    ";
const LENGTH: usize = 40_000;
const MIDDLE: usize = 20_000;

fn file() -> Version {
    Version::tagged("\"one\"", mp4(1, LENGTH))
}

/// What became of a file, and where the requests for it wanted it to begin.
#[derive(Debug)]
struct Outcome {
    file: Value,
    ranges: Vec<Option<usize>>,
}

impl Outcome {
    /// Of a file whose host answers so, one after the other; the last answer stays.
    async fn of(config: &str, replies: impl IntoIterator<Item = Reply>) -> Self {
        let (origin, server) = (
            Origin::start().await,
            TestServer::with(&format!("{QUICK}{config}")).await,
        );
        let url = origin.script("/a.mp4", replies);
        server.callback(&success("t1", &[url])).send().await.taken();
        let task = server.wait_settled("t1").await;
        if task["media"] == "failed" {
            assert!(
                server.files_in("media").is_empty(),
                "of a failed file nothing is visible"
            );
        }
        Self {
            file: task["files"][0].clone(),
            ranges: origin.ranges("/a.mp4"),
        }
    }

    #[track_caller]
    fn is(&self, version: &Version, case: &str) {
        assert_eq!(self.file["state"], "stored", "{case}: {self:?}");
        assert_eq!(self.file["sha256"], version.sha256(), "{case}: {self:?}");
        assert_eq!(self.file["bytes"], version.content.len(), "{case}");
    }

    /// It failed so, after so many attempts that counted.
    #[track_caller]
    fn failed(&self, code: &str, attempts: u32) {
        let shown = (
            &self.file["state"],
            &self.file["error"]["code"],
            &self.file["attempts"],
        );
        assert_eq!(
            shown,
            (&json!("failed"), &json!(code), &json!(attempts)),
            "{self:?}"
        );
    }
}

#[tokio::test]
async fn a_cut_transfer_goes_on_at_the_very_byte() {
    let (origin, server) = (Origin::start().await, TestServer::with(QUICK).await);
    let cuts = [0, 1, 15, 16, MIDDLE, LENGTH - 1];
    for by in [Then::Fin, Then::Reset] {
        for cut in cuts {
            let path = format!("/{by:?}-{cut}.mp4");
            let url = origin.script(&path, [Reply::of(&file()).until(cut, by), Reply::of(&file())]);
            let id = format!("{by:?}-{cut}");
            server.callback(&success(&id, &[url])).send().await.taken();
            let stored = server.wait_settled(&id).await["files"][0].clone();
            assert_eq!(
                (&stored["state"], &stored["attempts"]),
                (&json!("stored"), &json!(2)),
                "{id}"
            );
            assert_eq!(stored["sha256"], file().sha256(), "{id}");
            let kept = (cut > 0).then_some(cut);
            assert_eq!(origin.ranges(&path), [None, kept], "{id}");
            let condition = kept.map(|_| "\"one\"");
            assert_eq!(origin.asked(&path)[1].header("if-range"), condition, "{id}");
        }
    }
}

#[tokio::test]
async fn a_transfer_that_is_cut_three_times_goes_on_three_times() {
    for by in [Then::Fin, Then::Reset] {
        let cut = || Reply::of(&file()).until(10_000, by);
        let outcome = Outcome::of("", [cut(), cut(), cut(), Reply::of(&file())]).await;
        outcome.is(&file(), "cut three times");
        assert_eq!(outcome.ranges, [None, Some(10_000), Some(20_000), Some(30_000)]);
        assert_eq!(outcome.file["attempts"], 4);
    }
}

#[tokio::test]
async fn the_date_of_a_file_of_known_length_tells_versions_apart() {
    let dated = Version::bare(mp4(1, LENGTH)).modified(LONG_AGO);
    let weak = Version::tagged("W/\"one\"", mp4(1, LENGTH)).modified(LONG_AGO);
    for version in [dated, weak] {
        let (origin, server) = (Origin::start().await, TestServer::with(QUICK).await);
        let url = origin.script(
            "/a.mp4",
            [Reply::of(&version).until(MIDDLE, Then::Fin), Reply::of(&version)],
        );
        server.callback(&success("t1", &[url])).send().await.taken();
        let task = server.wait_settled("t1").await;
        assert_eq!(task["files"][0]["sha256"], version.sha256());
        let asked = &origin.asked("/a.mp4")[1];
        assert_eq!(
            (asked.from(), asked.header("if-range")),
            (Some(MIDDLE), Some(LONG_AGO))
        );
    }
}

#[tokio::test]
async fn what_nothing_tells_from_another_version_starts_anew() {
    let bare = Version::bare(mp4(1, LENGTH));
    let weak = Version::tagged("W/\"one\"", mp4(1, LENGTH));
    let dated = bare.clone().modified(LONG_AGO);
    for (case, cut) in [
        ("no validator", Reply::of(&bare)),
        ("a weak tag", Reply::of(&weak)),
        ("a date without a length", Reply::chunked(&dated)),
        (
            "changed the second it was sent",
            Reply::of(&dated).but("\r\n", format!("\r\nDate: {LONG_AGO}\r\n")),
        ),
    ] {
        let outcome = Outcome::of("", [cut.until(MIDDLE, Then::Fin), Reply::whole(&bare)]).await;
        outcome.is(&bare, case);
        assert_eq!(outcome.ranges, [None, None], "{case}");
    }
}

#[tokio::test]
async fn versions_are_never_spliced() {
    let old = file();
    let changed = Version::tagged("\"two\"", mp4(2, LENGTH));
    let grown = Version::tagged("\"one\"", mp4(3, LENGTH + 5_000));
    let right = |from: usize| format!("bytes {from}-{}/{LENGTH}", LENGTH - 1);
    let wrong = |range: fn(usize) -> String| Reply::part_as(&changed, range);
    let useless = vec![None, Some(MIDDLE), None];
    let whole = vec![None, Some(MIDDLE)];
    let cases = [
        ("200 with another version", &changed, Reply::of(&changed), &whole),
        ("200 with the same version", &old, Reply::whole(&old), &whole),
        (
            "206 under another tag",
            &changed,
            Reply::part_as(&changed, right),
            &useless,
        ),
        (
            "206 under a weak tag",
            &changed,
            Reply::part_as(&changed, right).but("\"two\"", "W/\"one\""),
            &useless,
        ),
        (
            "206 of a longer file",
            &grown,
            Reply::part_as(&grown, |from| format!("bytes {from}-44999/45000")),
            &useless,
        ),
        (
            "206 from one byte later",
            &changed,
            wrong(|from| format!("bytes {}-39999/40000", from + 1)),
            &useless,
        ),
        (
            "206 from one byte earlier",
            &changed,
            wrong(|from| format!("bytes {}-39999/40000", from - 1)),
            &useless,
        ),
        (
            "206 from the start",
            &changed,
            wrong(|_| "bytes 0-39999/40000".to_owned()),
            &useless,
        ),
        (
            "206 of an unknown length",
            &changed,
            wrong(|from| format!("bytes {from}-39999/*")),
            &useless,
        ),
        (
            "206 in other units",
            &changed,
            wrong(|from| format!("frames {from}-39999/40000")),
            &useless,
        ),
        (
            "206 of no range",
            &changed,
            Reply::part_as(&changed, right).but("Content-Range", "X-Range"),
            &useless,
        ),
        (
            "416",
            &changed,
            Reply::status(416, "Content-Range: bytes */40000\r\n"),
            &useless,
        ),
    ];
    for (case, expected, answer, ranges) in cases {
        let cut = Reply::of(&old).until(MIDDLE, Then::Fin);
        let outcome = Outcome::of("", [cut, answer, Reply::of(expected)]).await;
        outcome.is(expected, case);
        assert_eq!(&outcome.ranges, ranges, "{case}");
    }
}

#[tokio::test]
async fn a_range_that_contradicts_itself_is_not_believed() {
    let (old, changed) = (file(), Version::tagged("\"two\"", mp4(2, LENGTH)));
    let right = format!("Content-Range: bytes {MIDDLE}-{}/{LENGTH}\r\n", LENGTH - 1);
    let body = changed.content[MIDDLE..].to_vec();
    let head = |lines: &str| {
        let length = body.len();
        format!("HTTP/1.1 206 Partial Content\r\nContent-Length: {length}\r\n{lines}")
    };
    for lines in [
        format!("{right}Content-Type: multipart/byteranges; boundary=x\r\n"),
        format!("{right}Content-Range: bytes 0-19999/40000\r\n"),
        format!("{right}ETag: \"one\"\r\nETag: \"two\"\r\n"),
        // Less than what the body brings.
        format!("Content-Range: bytes {MIDDLE}-{}/{LENGTH}\r\n", LENGTH - 2),
    ] {
        let cut = Reply::of(&old).until(MIDDLE, Then::Fin);
        let lying = Reply::raw(head(&lines), body.clone());
        let outcome = Outcome::of("", [cut, lying, Reply::of(&changed)]).await;
        outcome.is(&changed, &lines);
    }
}

#[tokio::test]
async fn chunks_without_a_length_are_a_file_only_with_their_end() {
    let outcome = Outcome::of("", [Reply::chunked(&file())]).await;
    outcome.is(&file(), "ended");
    for by in [Then::Fin, Then::Reset] {
        let cut = Reply::chunked(&file()).until(MIDDLE, by);
        let outcome = Outcome::of("max_attempts = 2", [cut.clone()]).await;
        let code = if by == Then::Fin { "truncated" } else { "network" };
        outcome.failed(code, 2);
        let outcome = Outcome::of("", [cut, Reply::of(&file())]).await;
        outcome.is(&file(), "cut");
        assert!(outcome.ranges[1].is_some_and(|from| from < MIDDLE), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_length_that_is_not_kept_is_a_broken_file() {
    let announced = |length: usize| {
        Reply::whole(&file())
            .but(
                format!("Content-Length: {LENGTH}"),
                format!("Content-Length: {length}"),
            )
            .then(Then::Fin)
    };
    let outcome = Outcome::of("max_attempts = 2", [announced(LENGTH + 1)]).await;
    outcome.failed("truncated", 2);
    let outcome = Outcome::of("", [announced(LENGTH + 1), Reply::of(&file())]).await;
    outcome.is(&file(), "a length that was one too long");
    // Whole by the length, or by the end of the connection, and yet not the whole film.
    let endless = Reply::raw("HTTP/1.1 200 OK\r\n", file().content.to_vec());
    for short in [announced(LENGTH - 1), endless.until(MIDDLE, Then::Fin)] {
        let outcome = Outcome::of("max_attempts = 2", [short.clone()]).await;
        outcome.failed("truncated", 2);
        let outcome = Outcome::of("", [short, Reply::of(&file())]).await;
        outcome.is(&file(), "cut where nobody could tell by the length");
    }
}

#[tokio::test]
async fn a_transfer_that_crawls_is_cut_and_gone_on_with() {
    const WATCHED: &str = "min_speed = \"100KB\"\nstall_timeout = \"200ms\"\n";
    let byte_by_byte = Then::Drip(Duration::from_millis(2));
    for crawl in [Then::Silence, byte_by_byte] {
        let slow = || Reply::of(&file()).until(MIDDLE, crawl);
        let outcome = Outcome::of(&format!("{WATCHED}max_attempts = 1"), [slow()]).await;
        outcome.failed("stalled", 1);
        let outcome = Outcome::of(WATCHED, [slow(), Reply::of(&file())]).await;
        outcome.is(&file(), "after a crawl");
        assert_eq!(outcome.file["attempts"], 2);
        assert!(
            outcome.ranges[1].is_some_and(|from| from >= MIDDLE),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn a_body_that_does_not_end_is_not_waited_for() {
    let endless = Reply::chunked(&Version::bare(mp4(1, 300_000))).until(200_000, Then::Silence);
    let outcome = Outcome::of("max_size = \"100KB\"", [endless]).await;
    outcome.failed("too_large", 0);
}

#[tokio::test]
async fn a_packed_answer_is_refused_as_a_whole_and_as_a_rest() {
    let packed = |reply: Reply| reply.but("Content-Type", "Content-Encoding: gzip\r\nContent-Type");
    let outcome = Outcome::of("", [packed(Reply::of(&file()))]).await;
    outcome.failed("not_media", 0);
    let cut = Reply::of(&file()).until(MIDDLE, Then::Fin);
    let outcome = Outcome::of("", [cut, packed(Reply::of(&file()))]).await;
    assert_eq!(outcome.file["error"]["code"], "not_media", "{outcome:?}");
    assert_eq!(outcome.ranges, [None, Some(MIDDLE)]);
}

#[tokio::test]
async fn a_host_that_breaks_off_before_its_answer_is_asked_again() {
    for by in [Then::Fin, Then::Reset] {
        let silent = || Reply::raw("HTTP/1.1 200 OK\r\nContent-Le", "").then(by);
        let outcome = Outcome::of("max_attempts = 2", [silent()]).await;
        outcome.failed("network", 2);
        let outcome = Outcome::of("", [silent(), Reply::of(&file())]).await;
        outcome.is(&file(), "after a broken head");
    }
}

#[tokio::test]
async fn a_rest_is_asked_for_through_redirects_which_carry_no_secrets() {
    let (origin, other) = (Origin::start().await, Origin::on("127.0.0.2").await);
    let server = TestServer::with(QUICK).await;
    let goal = other.script(
        "/goal.mp4",
        [Reply::of(&file()).until(MIDDLE, Then::Fin), Reply::of(&file())],
    );
    let lines = format!("Location: {goal}\r\nSet-Cookie: a=b\r\nWWW-Authenticate: Basic\r\n");
    let url = origin.script("/a.mp4", [Reply::status(302, &lines)]);
    server.callback(&success("t1", &[url])).send().await.taken();
    let task = server.wait_settled("t1").await;
    assert_eq!(task["files"][0]["sha256"], file().sha256());
    assert_eq!(other.ranges("/goal.mp4"), [None, Some(MIDDLE)]);
    assert_eq!(origin.ranges("/a.mp4"), [None, Some(MIDDLE)]);
    for asked in [origin.asked("/a.mp4"), other.asked("/goal.mp4")].concat() {
        for secret in ["authorization", "cookie", "referer", "proxy-authorization"] {
            assert_eq!(asked.header(secret), None, "{asked:?}");
        }
        assert_eq!(asked.header("accept-encoding"), Some("identity"));
    }
}

#[tokio::test]
async fn redirects_in_a_circle_come_to_an_end() {
    let (origin, server) = (
        Origin::start().await,
        TestServer::with(&format!("{QUICK}max_attempts = 2")).await,
    );
    let (there, back) = (format!("http://{}/b.mp4", origin.addr), "/a.mp4");
    let url = origin.script("/a.mp4", [Reply::found(&there)]);
    origin.script("/b.mp4", [Reply::found(back)]);
    server.callback(&success("t1", &[url])).send().await.taken();
    let task = server.wait_settled("t1").await;
    let failed = &task["files"][0];
    assert_eq!(
        (&failed["state"], &failed["error"]["code"], &failed["attempts"]),
        (&json!("failed"), &json!("network"), &json!(2))
    );
}

#[tokio::test]
async fn a_link_that_expires_on_the_way_leaves_what_is_there() {
    for status in [403, 404, 410] {
        let cut = Reply::of(&file()).until(MIDDLE, Then::Fin);
        let gone = || Reply::status(status, "");
        let outcome = Outcome::of("", [cut.clone(), gone(), gone(), Reply::of(&file())]).await;
        outcome.is(&file(), "back again");
        assert_eq!(outcome.ranges, [None, Some(MIDDLE), Some(MIDDLE), Some(MIDDLE)]);
        let outcome = Outcome::of("max_attempts = 3", [cut, gone()]).await;
        outcome.failed("expired", 3);
    }
}

#[tokio::test]
async fn with_an_api_key_an_expired_link_waits_for_another() {
    let (origin, provider) = (Origin::start().await, ScriptedProvider::start().await);
    let quick = format!("reconcile.every = \"20ms\"\n{QUICK}");
    let server = TestServer::with(&format!("{quick}{}", provider.source())).await;
    let url = origin.script("/a.mp4", [Reply::status(410, "")]);
    provider.says("veo/record-info", [record("t1", std::slice::from_ref(&url))]);
    provider.says("common/download-url", [json!({"code": 500, "msg": "Timeout"})]);
    server.callback(&success("t1", &[url])).send().await.taken();
    let waiting = "SELECT count(*) FROM downloads WHERE state = 'needs_url'";
    provider.wait_asked("common/download-url", 2).await;
    assert_eq!(server.number(waiting).await, 1);
    let shown = server.task("t1").await["files"][0].clone();
    assert_eq!(
        (&shown["state"], &shown["error"]["code"]),
        (&json!("queued"), &json!("expired"))
    );
    let fresh = origin.script("/b.mp4", [Reply::of(&file())]);
    provider.says(
        "common/download-url",
        [json!({"code": 200, "msg": "success", "data": fresh})],
    );
    let stored = server.wait_settled("t1").await["files"][0].clone();
    assert_eq!(stored["sha256"], file().sha256());
    assert_eq!(
        origin.asked("/a.mp4").len(),
        1,
        "what is known to be dead is not tried"
    );
}

#[tokio::test]
async fn a_page_of_maintenance_does_not_end_a_download() {
    let page = Reply::raw(
        "HTTP/1.1 200 OK\r\nContent-Length: 23\r\n",
        "<html>Back soon.</html>",
    );
    let empty = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", "");
    let cut = Reply::of(&file()).until(MIDDLE, Then::Fin);
    let outcome = Outcome::of("", [cut, page, empty, Reply::of(&file())]).await;
    outcome.is(&file(), "after a page and nothing");
    assert_eq!(outcome.file["attempts"], 4);
}

#[tokio::test]
async fn a_transfer_that_gets_on_costs_no_attempt_however_often_it_is_cut() {
    const MEBIBYTE: usize = 1 << 20;
    let large = Version::tagged("\"large\"", mp4(1, 3 * MEBIBYTE));
    let cut = |bytes| Reply::of(&large).until(bytes, Then::Fin);
    let replies = [cut(MEBIBYTE), cut(MEBIBYTE + 1), Reply::of(&large)];
    let outcome = Outcome::of("max_attempts = 1", replies).await;
    outcome.is(&large, "in three connections");
    assert_eq!(outcome.ranges, [None, Some(MEBIBYTE), Some(2 * MEBIBYTE + 1)]);
    assert_eq!(outcome.file["attempts"], 1);

    let replies = [cut(MEBIBYTE - 1), Reply::of(&large)];
    Outcome::of("max_attempts = 1", replies)
        .await
        .failed("truncated", 1);
}

#[tokio::test]
async fn a_stop_leaves_what_is_there_to_the_next_start() {
    let (origin, server) = (Origin::start().await, TestServer::with(QUICK).await);
    let replies = [
        Reply::of(&file()).until(MIDDLE, Then::Silence),
        Reply::of(&file()),
    ];
    let url = origin.script("/a.mp4", replies);
    server.callback(&success("t1", &[url])).send().await.taken();
    until("the half is there", || async {
        let progress = server.task("t1").await["files"][0]["progress"].clone();
        (progress["bytes"] == MIDDLE).then_some(())
    })
    .await;
    let server = server.halt().await.start().await;
    let task = server.wait_settled("t1").await;
    assert_eq!(task["files"][0]["sha256"], file().sha256());
    assert_eq!(task["files"][0]["attempts"], 1, "a stop is nobody's fault");
    assert_eq!(origin.ranges("/a.mp4"), [None, Some(MIDDLE)]);
}

#[tokio::test]
async fn a_killed_process_leaves_what_lay_in_the_spool_to_the_next() {
    const MEBIBYTE: usize = 1 << 20;
    let large = Version::tagged("\"large\"", mp4(1, 64 * MEBIBYTE));
    let held = 41 * MEBIBYTE + 12_345;
    let origin = Origin::start().await;
    let url = origin.script(
        "/a.mp4",
        [Reply::of(&large).until(held, Then::Silence), Reply::of(&large)],
    );
    let program = Program::configured(
        "data_dir = \"data\"\n[egress]\nallow_cidrs = [\"127.0.0.0/8\"]\n[sources.kie]\nallow_unverified = true\n",
    );
    let spool = program.path().join("data/spool");
    let lengths = || -> Vec<u64> {
        let entries = std::fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap());
        let parts = entries.filter(|entry| entry.path().extension().is_some_and(|it| it == "part"));
        parts.map(|part| part.metadata().unwrap().len()).collect()
    };
    let mut serving = program.serve(&[]);
    let callback = client()
        .post(format!("{}/callbacks/kie", serving.url()))
        .body(success("t1", &[url]).to_string());
    assert_eq!(callback.send().await.unwrap().status(), 200);
    until("most of what came is in the spool", || async {
        (lengths().iter().sum::<u64>() >= 41 * MEBIBYTE as u64 - 1).then_some(())
    })
    .await;
    serving.signal("KILL");
    serving.wait();
    let lay_there = lengths();
    let serving = program.serve(&[]);
    let task = client()
        .get(format!("{}/v1/tasks/t1?wait=15s", serving.url()))
        .send()
        .await
        .unwrap();
    let task: Value = serde_json::from_str(&task.text().await.unwrap()).unwrap();
    assert_eq!(task["files"][0]["sha256"], large.sha256(), "{task}");
    let asked: Vec<_> = origin.ranges("/a.mp4").into_iter().flatten().collect();
    assert_eq!(
        asked.iter().map(|from| *from as u64).collect::<Vec<_>>(),
        lay_there
    );
    assert!(asked[0] <= held);
}

#[tokio::test]
async fn ten_thousand_files_of_a_silent_host_do_not_hold_up_another() {
    let (silent, fast) = (Origin::start().await, Origin::on("127.0.0.2").await);
    let server = TestServer::with("shutdown_grace = \"100ms\"").await;
    let silence = Reply::of(&file()).until(0, Then::Silence);
    for callback in 0..157 {
        let url = |n| silent.script(&format!("/{callback}/{n}.mp4"), [silence.clone()]);
        let urls: Vec<_> = (0..64).map(url).collect();
        let id = format!("silent-{callback}");
        server.callback(&success(&id, &urls)).send().await.taken();
    }
    let url = fast.script("/a.mp4", [Reply::of(&file())]);
    server.callback(&success("fast", &[url])).send().await.taken();
    assert_eq!(server.wait_settled("fast").await["media"], "stored");
    let stats = server.get("/v1/stats").await.fine();
    assert_eq!(
        stats["files"],
        json!({"downloading": 4, "queued": 157 * 64 - 4, "stored": 1})
    );
}
