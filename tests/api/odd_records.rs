//! Records as a broken or hostile provider would answer, and what happens meanwhile: each task ends right or waits.

use std::time::Duration;

use reelhook::clock::Clock;
use serde_json::{Value, json};

use crate::support::{API_KEY, Cdn, Says, ScriptedProvider, Setup, TestServer, mp4, record, success, until};

const RECORD: &str = "veo/record-info";
const QUICK: &str = "egress.allow_cidrs = [\"127.0.0.0/8\"]\nreconcile.after = \"100ms\"\n\
                     reconcile.every = \"100ms\"\nreconcile.max_per_second = 100\ndownloads.retry_base = \"1ms\"\n";
const DAY: Duration = Duration::from_hours(24);

async fn server(provider: &ScriptedProvider) -> TestServer {
    Setup::new(&format!("{QUICK}{}", provider.source())).start().await
}

async fn expect(server: &TestServer, id: &str) {
    let task = json!({"task_id": id, "family": "veo"});
    assert_eq!(server.post("/v1/tasks", &task).await.status, 201);
}

/// The note of the open question about a task, once it was asked so often.
async fn note(server: &TestServer, id: &str, asks: i64) -> Value {
    until("the question was asked", || async {
        let ask = server.task(id).await["asking"][0].clone();
        (ask["asks"].as_i64() >= Some(asks)).then(|| ask["note"].clone())
    })
    .await
}

#[tokio::test]
async fn an_answer_that_cannot_be_meant_is_not_believed_and_asked_for_again() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let right = record("t1", &[cdn.file("/a.mp4", &mp4(1, 1_000))]);
    let mut long = right.clone();
    long["msg"] = json!("x".repeat(5 << 20));
    let mut twice = right.to_string();
    twice.insert_str(1, "\"code\":404,");
    let json = |text: String| Says::Text(200, "application/json", text);
    let deep = format!(
        "{{\"code\":200,\"data\":{}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let odd = [
        (
            "provider_garbled",
            Says::Json(record("t2", &["https://other.example/b.mp4".to_owned()])),
        ),
        ("provider_gateway", Says::Text(302, "text/html", String::new())),
        ("provider_garbled", Says::Json(long)),
        ("provider_garbled", json(twice)),
        ("unknown", json(deep)),
        ("provider_garbled", json("\u{1f}\u{8b}not JSON".to_owned())),
        (
            "unknown",
            Says::Json(json!({"code": 200, "msg": "success", "data": []})),
        ),
        (
            "running",
            Says::Json(json!({"code": "two hundred", "data": {"taskId": "t1", "successFlag": 1}})),
        ),
        ("provider_unreachable", Says::Breaks),
    ];
    let server = server(&provider).await;
    for (n, (code, says)) in odd.into_iter().enumerate() {
        provider.says(RECORD, [says]);
        expect(&server, "t1").await;
        let note = note(&server, "t1", 1).await;
        assert!(note["detail"].as_str().unwrap().len() < 1_000, "{note}");
        assert_eq!(note["code"], code, "{n}: {note}");
        assert_eq!(server.task("t1").await["state"], "pending", "{n}: {note}");
        assert_eq!(server.delete("/v1/tasks/t1").await.status, 204);
    }
    provider.says(RECORD, [right]);
    expect(&server, "t1").await;
    assert_eq!(server.wait_settled("t1").await["media"], "stored");
}

#[tokio::test]
async fn a_record_that_says_it_oddly_is_understood() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    let mut text = record("t1", std::slice::from_ref(&url));
    text["code"] = json!("200");
    text["data"]["successFlag"] = json!("1");
    text["data"]["response"]["resultUrls"] = json!(json!([url]).to_string());
    let mut nul = record("t2", std::slice::from_ref(&url));
    nul["msg"] = json!("su\0ccess");
    nul["data"]["paramJson"] = json!("{\"prompt\":\"A\\u0000dog\"}");
    nul["data"]["response"]["resultUrls"] = json!([url, "\0"]);
    nul["data"]["response"]["resolution"] = json!("1080p\0");
    let server = server(&provider).await;
    for (id, says) in [("t1", text), ("t2", nul)] {
        provider.says(RECORD, [says]);
        expect(&server, id).await;
        let task = server.wait_settled(id).await;
        assert_eq!(
            (&task["state"], &task["files"][0]["state"]),
            (&json!("succeeded"), &json!("stored")),
            "{task:#}"
        );
        assert_eq!(task["asking"], json!([]), "{task:#}");
    }
    let listed = server.get("/v1/deliveries?limit=200").await.fine();
    assert_eq!(listed["deliveries"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_record_of_ten_thousand_files_is_cut_to_what_one_callback_may_announce() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let url = |n| cdn.file(&format!("/{n}.mp4"), &mp4(n, 700));
    let mut urls: Vec<String> = (0..64).map(url).collect();
    urls.extend((64..10_000).map(|n| format!("http://127.0.0.1:1/{n}.mp4")));
    provider.says(RECORD, [record("t1", &urls)]);
    let server = server(&provider).await;
    expect(&server, "t1").await;
    let task = server.wait_settled("t1").await;
    let files = task["files"].as_array().unwrap();
    let stored = files.iter().filter(|file| file["state"] == "stored").count();
    assert_eq!((files.len(), stored), (65, 64));
    assert_eq!(files[64]["error"]["code"], "too_many_files");
    assert_eq!(task["asking"], json!([]));
    assert_eq!(provider.all_asked(), 1);
}

#[tokio::test]
async fn an_api_below_another_path_is_asked_there() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    let path = "/gateway/of/kie/api/v1/veo/record-info";
    provider.says(path, [record("t1", &[url])]);
    let source = provider
        .source()
        .replace("\"\napi_key", "/gateway/of/kie/\"\napi_key");
    let server = Setup::new(&format!("{QUICK}{source}")).start().await;
    expect(&server, "t1").await;
    assert_eq!(server.wait_settled("t1").await["media"], "stored");
    assert_eq!(provider.asked(path)[0].path, format!("{path}?taskId=t1"));
}

#[tokio::test]
async fn questions_of_a_source_that_is_gone_wait_until_it_is_back() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    let server = server(&provider).await;
    expect(&server, "t1").await;
    note(&server, "t1", 1).await;
    let data_dir = server.data_dir();
    let first = server.halt().await;
    let other = format!(
        "{QUICK}[sources.other]\nallow_unverified = true\napi_url = \"http://{}\"\napi_key = \"{API_KEY}\"\n",
        provider.addr
    );
    let server = Setup::new(&other).data_dir(&data_dir).start().await;
    let asked = provider.all_asked();
    let awaited = json!({"task_id": "t2", "family": "veo", "source": "other"});
    assert_eq!(server.post("/v1/tasks", &awaited).await.status, 201);
    note(&server, "t2", 2).await;
    let questions = provider.asked(RECORD).split_off(asked);
    assert!(
        questions.iter().all(|question| question.path.ends_with("=t2")),
        "{questions:?}"
    );
    assert_eq!(server.task("t1").await["asking"][0]["note"]["code"], "no_source");
    let second = server.halt().await;
    provider.says(RECORD, [record("t1", &[url])]);
    let server = Setup::new(&format!("{QUICK}{}", provider.source()))
        .data_dir(&data_dir)
        .start()
        .await;
    assert_eq!(server.wait_settled("t1").await["media"], "stored");
    drop(server);
    drop((first, second));
}

#[tokio::test]
async fn a_clock_that_is_set_back_a_day_puts_no_question_off() {
    let provider = ScriptedProvider::start().await;
    let clock = Clock::manual(1_795_284_446_000);
    let config = format!(
        "reconcile.after = \"1h\"\nreconcile.every = \"1h\"\n{}",
        provider.source()
    );
    let server = Setup::new(&config).clock(&clock).start().await;
    expect(&server, "t1").await;
    clock.set(1_795_284_446_000 - 86_400_000);
    // Each rings.
    expect(&server, "t2").await;
    until("the questions followed the clock", || async {
        let next = server.task("t1").await["asking"][0]["next_ask_at"].clone();
        (next.as_str() < Some("2026-11-21T12")).then_some(())
    })
    .await;
    clock.advance(Duration::from_mins(61));
    expect(&server, "t3").await;
    provider.wait_asked(RECORD, 2).await;
    // And what was asked before it is set back again is asked no later than that.
    note(&server, "t1", 1).await;
    clock.set(clock.now() - i64::try_from(DAY.as_millis()).unwrap());
    expect(&server, "t4").await;
    until("the questions followed the clock again", || async {
        let next = server.task("t1").await["asking"][0]["next_ask_at"].clone();
        (next.as_str() < Some("2026-11-20T12")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_task_that_is_deleted_while_it_is_asked_about_stays_deleted() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    provider.says(
        RECORD,
        [
            Says::Held(record("t1", std::slice::from_ref(&url))),
            Says::Json(record("t2", &[url])),
        ],
    );
    let server = server(&provider).await;
    expect(&server, "t1").await;
    provider.wait_asked(RECORD, 1).await;
    assert_eq!(server.delete("/v1/tasks/t1").await.status, 204);
    provider.release();
    until("the answer came too late", || async {
        let late = server.deliveries("duplicate").await;
        late.contains(&("t1".to_owned(), "deleted".to_owned()))
            .then_some(())
    })
    .await;
    assert_eq!(server.get("/v1/tasks/t1").await.status, 404);
    // The next one is asked about as ever.
    expect(&server, "t2").await;
    assert_eq!(server.wait_settled("t2").await["media"], "stored");
    assert_eq!(server.get("/v1/tasks/t1").await.status, 404);
    assert_eq!(server.files_in("media").len(), 1);
}

#[tokio::test]
async fn a_callback_that_overtakes_the_answer_wins_and_nothing_stays_open() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    for (id, late) in [
        ("t1", crate::support::generating("t1")),
        ("t2", crate::support::failed_record("t2")),
    ] {
        let provider = if id == "t1" {
            &provider
        } else {
            &ScriptedProvider::start().await
        };
        provider.says(RECORD, [Says::Held(late)]);
        let server = server(provider).await;
        expect(&server, id).await;
        provider.wait_asked(RECORD, 1).await;
        server
            .callback(&success(id, std::slice::from_ref(&url)))
            .send()
            .await
            .taken();
        server.wait_settled(id).await;
        provider.release();
        expect(&server, "last").await;
        note(&server, "last", 1).await;
        let task = server.task(id).await;
        assert_eq!(
            (&task["state"], &task["media"]),
            (&json!("succeeded"), &json!("stored")),
            "{task:#}"
        );
        assert_eq!(task["asking"], json!([]), "{task:#}");
        assert_eq!(server.get("/v1/stats").await.fine()["repaired"], 0);
    }
}
