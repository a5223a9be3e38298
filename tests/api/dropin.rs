//! The provider's own API, spoken by us: what a client that was written for the provider sees.

use std::collections::HashSet;
use std::time::Duration;

use reelhook::clock::Clock;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{
    API_KEY, Answer, Cdn, KEY, Program, Question, Raw, Reply, Says, ScriptedProvider, Setup, TOKEN,
    TestServer, client, failure, generating, mp4, record, success, until,
};

const API_TOKEN: &str = "token-of-the-api-0123456789-abcdef";
const NOW: i64 = 1_795_284_446_000;

/// The request on the provider's page about generating a video, with every field that it lists.
const GENERATE: &str = r#"{
    "prompt": "A dog playing in a park",
    "imageUrls": ["http://example.com/image1.jpg"],
    "model": "veo3",
    "watermark": "MyBrand",
    "aspectRatio": "16:9",
    "seeds": 12345,
    "callBackUrl": "http://your-callback-url.com/complete",
    "enableFallback": false
}"#;

fn config(upstream: &ScriptedProvider) -> String {
    format!(
        "public_url = \"http://localhost:1/reel\"\negress.allow_cidrs = [\"127.0.0.0/8\"]\napi.tokens = [\"{API_TOKEN}\"]\n\
         [sources.kie]\napi_url = \"http://{}\"\napi_key = \"{API_KEY}\"\nhmac_keys = [\"{KEY}\"]\ntokens = [\"{TOKEN}\"]\n",
        upstream.addr
    )
}

/// A server before a provider.
async fn pair() -> (TestServer, ScriptedProvider) {
    let upstream = ScriptedProvider::start().await;
    let server = Setup::new(&config(&upstream))
        .clock(&Clock::manual(NOW))
        .start()
        .await;
    (server, upstream)
}

fn made(task_id: &str) -> Value {
    json!({"code": 200, "msg": "success", "data": {"taskId": task_id}})
}

/// A request of a client that knows the key alone.
fn of_client(server: &TestServer, method: Method, path: &str) -> RequestBuilder {
    let request = server.bare(method, &format!("/api/v1/{path}"));
    request.bearer_auth(API_KEY)
}

async fn ask(server: &TestServer, path: &str) -> Answer {
    Answer::of(of_client(server, Method::GET, path)).await
}

fn submission(server: &TestServer, path: &str, body: &str) -> RequestBuilder {
    let request = of_client(server, Method::POST, path);
    request
        .header("content-type", "application/json")
        .body(body.to_owned())
}

async fn submit(server: &TestServer, path: &str, body: &str) -> Answer {
    Answer::of(submission(server, path, body)).await
}

async fn submit_as(server: &TestServer, key: &str, body: &str) -> Answer {
    Answer::of(submission(server, "veo/generate", body).header("idempotency-key", key)).await
}

/// Status, code in the body, and what it says.
fn said(answer: &Answer) -> (u16, i64, String) {
    let json = answer.json();
    let msg = json["msg"].as_str().expect("a sentence").to_owned();
    (
        answer.status.as_u16(),
        json["code"].as_i64().expect("a code"),
        msg,
    )
}

/// A request to the provider, once it was made.
async fn nth(upstream: &ScriptedProvider, path: &str, n: usize) -> Question {
    upstream.wait_asked(path, n).await;
    upstream.asked(path)[n - 1].clone()
}

/// Where the provider is to call back, below `/callbacks/`.
fn callback_in(asked: &Question) -> String {
    let url = asked.body["callBackUrl"].as_str().unwrap();
    let (_, rest) = url.split_once("/callbacks/").expect("our callback URL");
    rest.to_owned()
}

async fn callback_of(upstream: &ScriptedProvider, path: &str, n: usize) -> String {
    callback_in(&nth(upstream, path, n).await)
}

/// Path and query of a link to a file, as it is reached here.
fn link(url: &Value) -> String {
    let url = url.as_str().expect("a URL");
    let path = url
        .strip_prefix("http://localhost:1/reel")
        .expect("a link of ours");
    path.to_owned()
}

#[tokio::test]
async fn a_client_of_the_provider_needs_only_another_base_url() {
    let (server, upstream) = pair().await;
    upstream.says("veo/generate", [made("veo_task_abcdef123456")]);
    let answer = submit(&server, "veo/generate", GENERATE).await;
    assert_eq!(answer.fine(), made("veo_task_abcdef123456"));
    assert_eq!(answer.header("content-type"), "application/json;charset=UTF-8");
    let mut sent = nth(&upstream, "veo/generate", 1).await.body;
    let mut given: Value = serde_json::from_str(GENERATE).unwrap();
    let ours = sent["callBackUrl"].take();
    given["callBackUrl"].take();
    assert_eq!(sent, given, "all else is passed on");
    let wanted = format!("http://localhost:1/reel/callbacks/kie?token={TOKEN}&kind=video&index=0&ref=");
    assert!(ours.as_str().unwrap().starts_with(&wanted), "{ours}");
    let task = server.task("veo_task_abcdef123456").await;
    assert_eq!(
        (&task["state"], &task["prompt"]),
        (&json!("pending"), &json!("A dog playing in a park"))
    );
    let body = r#"{"taskId":"veo_task_abcdef123456","prompt":"on","seeds":10000,"model":"fast"}"#;
    upstream.says("veo/extend", [made("veo_extend_task_xyz789")]);
    assert_eq!(
        submit(&server, "veo/extend", body).await.fine(),
        made("veo_extend_task_xyz789")
    );
    assert_eq!(server.task("veo_extend_task_xyz789").await["state"], "pending");
    upstream.says(
        "chat/credit",
        [json!({"code": 200, "msg": "success", "data": 5916.25})],
    );
    assert_eq!(ask(&server, "chat/credit").await.fine()["data"], 5916.25);
}

/// A task that was submitted through the server, and its one file where the provider has it.
async fn stored(server: &TestServer, upstream: &ScriptedProvider, (task_id, film): (&str, &[u8])) -> String {
    let cdn = Cdn::start().await;
    let url = cdn.script("/video.mp4", [Reply::Whole(film.to_vec())]);
    upstream.says("veo/generate", [made(task_id)]);
    submit(server, "veo/generate", GENERATE).await.fine();
    let callback = callback_of(upstream, "veo/generate", 1).await;
    let called = server.callback_to(&callback, &success(task_id, std::slice::from_ref(&url)));
    called.signed(KEY).send().await.taken();
    assert_eq!(server.wait_settled(task_id).await["media"], "stored");
    url
}

#[tokio::test]
async fn record_info_tells_what_is_stored_as_the_provider_would() {
    let (server, upstream) = pair().await;
    let content = mp4(1, 3_000);
    let url = stored(&server, &upstream, ("t1", &content)).await;
    let record = ask(&server, "veo/record-info?taskId=t1").await.fine();
    let mut wanted = json!({"code": 200, "msg": "success", "data": {
        "taskId": "t1", "paramJson": GENERATE, "completeTime": "2026-11-21 18:07:26",
        "response": {"taskId": "t1", "resultUrls": record["data"]["response"]["resultUrls"],
            "originUrls": null, "fullResultUrls": null, "resolution": "1080p"},
        "successFlag": 1, "errorCode": null, "errorMessage": "",
        "createTime": "2026-11-21 18:07:26", "fallbackFlag": false}});
    assert_eq!(record, wanted);
    let ours = link(&record["data"]["response"]["resultUrls"][0]);
    let opened = Answer::of(server.bare(Method::GET, &ours)).await;
    assert_eq!((opened.status.as_u16(), opened.body), (200, content));
    wanted["data"]["response"]["resultUrls"] = json!([url]);
    let record = ask(&server, "veo/record-info?taskId=t1&urls=provider")
        .await
        .fine();
    assert_eq!(record, wanted);
    assert!(upstream.asked("veo/record-info").is_empty(), "nobody was asked");
}

#[tokio::test]
async fn who_knows_a_stored_file_by_any_url_gets_one_that_opens() {
    let (server, upstream) = pair().await;
    let url = stored(&server, &upstream, ("t1", &mp4(1, 3_000))).await;
    let record = ask(&server, "veo/record-info?taskId=t1").await.fine();
    let ours = record["data"]["response"]["resultUrls"][0]
        .as_str()
        .unwrap()
        .to_owned();
    let download_url = async |query: &str, url: &str| {
        let path = format!("common/download-url{query}");
        submit(&server, &path, &json!({"url": url}).to_string())
            .await
            .fine()
    };
    for known_by in [&url, &ours] {
        let fresh = link(&download_url("", known_by).await["data"]);
        assert_eq!(Answer::of(server.bare(Method::GET, &fresh)).await.status, 200);
    }
    assert!(upstream.asked("common/download-url").is_empty());
    let theirs = json!({"code": 200, "msg": "success", "data": "https://tempfile.example/x"});
    upstream.says("common/download-url", [theirs.clone()]);
    for known_by in [&url, &ours] {
        assert_eq!(download_url("?urls=provider", known_by).await, theirs);
        assert_eq!(
            upstream.asked("common/download-url").last().unwrap().body["url"],
            json!(url)
        );
    }
    assert_eq!(download_url("", "https://example.com/x").await, theirs);
    let asked = upstream.asked("common/download-url").len();
    for dead in [
        ours.replace("t1", "t2"),
        ours.replace("source=kie", "source=other"),
        "http://localhost:1/reel/v1/elsewhere".to_owned(),
    ] {
        assert_eq!(download_url("", &dead).await["msg"], "url is wrong", "{dead}");
    }
    assert_eq!(
        upstream.asked("common/download-url").len(),
        asked,
        "nobody else is given our links"
    );
}

#[tokio::test]
async fn what_the_provider_tells_of_a_job_that_runs_is_recorded() {
    let (server, upstream) = pair().await;
    let cdn = Cdn::start().await;
    let url = cdn.script("/job.mp4", [Reply::Whole(mp4(1, 2_000))]);
    let job =
        r#"{"model":"google/nano-banana","callBackUrl":"https://mine/","input":{"prompt":"a cat","n":1.0}}"#;
    upstream.says("jobs/createTask", [made("job1")]);
    assert_eq!(submit(&server, "jobs/createTask", job).await.fine(), made("job1"));
    let sent = nth(&upstream, "jobs/createTask", 1).await;
    assert!(sent.text.contains(r#""n":1.0"#), "{}", sent.text);
    assert_eq!(server.task("job1").await["prompt"], "a cat");

    let record = json!({"code": 200, "msg": "success", "data": {"taskId": "job1", "model": "google/nano-banana",
        "state": "success", "param": "{}", "resultJson": json!({"resultUrls": [url]}).to_string(),
        "failCode": null, "failMsg": null, "costTime": 8, "completeTime": 1_755_599_644_000_i64,
        "createTime": 1_755_599_634_000_i64}});
    upstream.says("jobs/recordInfo", [record.clone()]);
    let asked = "jobs/recordInfo?taskId=job1";
    assert_eq!(ask(&server, asked).await.fine(), record);
    let task = server.wait_settled("job1").await;
    assert_eq!(
        (&task["state"], &task["outcomes"][0]["via"]),
        (&json!("succeeded"), &json!("api"))
    );
    let told = ask(&server, asked).await.fine();
    assert_eq!(
        upstream.asked("jobs/recordInfo").len(),
        1,
        "from then on we know it"
    );
    let result = told["data"]["resultJson"].as_str().unwrap();
    let wanted = json!({"code": 200, "msg": "success", "data": {"taskId": "job1", "model": "google/nano-banana",
        "state": "success", "param": job, "resultJson": result, "failCode": null, "failMsg": null, "costTime": 0,
        "completeTime": NOW, "createTime": NOW}});
    assert_eq!(told, wanted);
    let result: Value = serde_json::from_str(result).unwrap();
    let opened = Answer::of(server.bare(Method::GET, &link(&result["resultUrls"][0]))).await;
    assert_eq!(opened.status, 200);
}

#[tokio::test]
async fn what_a_job_made_besides_its_results_is_told_by_the_provider() {
    let (server, upstream) = pair().await;
    let cdn = Cdn::start().await;
    let [film, frame] =
        ["/film.mp4", "/frame.mp4"].map(|name| cdn.script(name, [Reply::Whole(mp4(1, 2_000))]));
    let result = json!({"resultUrls": [film], "lastFrameUrl": [frame]});
    let told = json!({"code": 200, "msg": "success", "data": {"taskId": "job1", "model": "m", "state": "success",
        "param": "{}", "resultJson": result.to_string(), "failCode": null, "failMsg": null}});
    upstream.says("jobs/recordInfo", [told.clone()]);
    for _ in 0..3 {
        assert_eq!(ask(&server, "jobs/recordInfo?taskId=job1").await.fine(), told);
        server.wait_settled("job1").await;
    }
    assert_eq!(upstream.asked("jobs/recordInfo").len(), 3);
    assert_eq!(server.task("job1").await["deliveries"], 1, "once is enough");
}

#[tokio::test]
async fn a_task_in_dispute_is_told_by_the_provider() {
    let (server, upstream) = pair().await;
    stored(&server, &upstream, ("t1", &mp4(1, 3_000))).await;
    let told = generating("t1");
    upstream.says("veo/record-info", [told.clone()]);
    let callback = callback_of(&upstream, "veo/generate", 1).await;
    let doubt = server.callback_to(&callback, &failure("t1"));
    doubt.signed_at(KEY, NOW / 1000 + 1).send().await.taken();
    assert_eq!(server.task("t1").await["conflicts"], 1);
    assert_eq!(ask(&server, "veo/record-info?taskId=t1").await.fine(), told);
}

#[tokio::test]
async fn a_1080p_version_is_asked_for_until_it_is_stored() {
    let (server, upstream) = pair().await;
    let cdn = Cdn::start().await;
    let url = cdn.script("/1080.mp4", [Reply::Whole(mp4(1, 2_000))]);
    let ready = json!({"code": 200, "msg": "success", "data": {"resultUrl": url}});
    let not_ready = json!({"code": 400, "msg": "1080P is processing. It should be ready in 1-2 minutes."});
    upstream.says("veo/get-1080p-video", [not_ready.clone(), ready.clone()]);
    let asked = "veo/get-1080p-video?taskId=t1&index=1";
    assert_eq!(ask(&server, asked).await.fine(), not_ready);
    assert_eq!(ask(&server, asked).await.fine(), ready);
    assert_eq!(upstream.asked("veo/get-1080p-video")[0].path, asked);
    let task = server.wait_settled("t1").await;
    assert_eq!(task["files"][0]["name"], "1080p-1-result-0.mp4");
    let told = ask(&server, asked).await.fine();
    let opened = Answer::of(server.bare(Method::GET, &link(&told["data"]["resultUrl"]))).await;
    assert_eq!(opened.status, 200);
    assert_eq!(upstream.asked("veo/get-1080p-video").len(), 2);
}

#[tokio::test]
async fn a_4k_version_is_awaited_and_one_that_was_made_before_is_taken() {
    let (server, upstream) = pair().await;
    let cdn = Cdn::start().await;
    let none = |code: i64, msg: &str| json!({"code": code, "msg": msg, "data": {"taskId": "t1", "resultUrls": null, "imageUrls": null}});
    let ordered = none(200, "success");
    let running = none(
        422,
        "4k is processing. It should be ready in 5-10 minutes. Please check back shortly.",
    );
    let url = cdn.script("/4k.mp4", [Reply::Whole(mp4(1, 2_000))]);
    let finished = json!({"code": 422, "msg": "The video has been generated successfully",
        "data": {"taskId": "t1", "resultUrls": [url], "imageUrls": null}});
    upstream.says(
        "veo/get-4k-video",
        [ordered.clone(), running.clone(), finished.clone()].map(Says::Json),
    );
    let body = r#"{"taskId":"t1","index":2,"callBackUrl":"https://mine/"}"#;

    assert_eq!(submit(&server, "veo/get-4k-video", body).await.fine(), ordered);
    let callback = callback_of(&upstream, "veo/get-4k-video", 1).await;
    assert!(callback.contains("&kind=4k&index=2&ref="), "{callback}");
    let outcome = |task: &Value| {
        let outcome = &task["outcomes"][0];
        (
            outcome["kind"].clone(),
            outcome["index"].clone(),
            outcome["state"].clone(),
        )
    };
    let pending = (json!("4k"), json!(2), json!("pending"));
    assert_eq!(outcome(&server.task("t1").await), pending);
    assert_eq!(submit(&server, "veo/get-4k-video", body).await.fine(), running);
    assert_eq!(outcome(&server.task("t1").await), pending);
    assert_eq!(submit(&server, "veo/get-4k-video", body).await.fine(), finished);
    let task = server.wait_settled("t1").await;
    assert_eq!(outcome(&task), (json!("4k"), json!(2), json!("succeeded")));
    assert_eq!(
        (&task["files"][0]["name"], &task["media"]),
        (&json!("4k-2-result-0.mp4"), &json!("stored"))
    );
}

/// Kind, index and state of the first outcome of a task.
fn outcome_of(task: &Value) -> [Value; 3] {
    ["kind", "index", "state"].map(|field| task["outcomes"][0][field].clone())
}

#[tokio::test]
async fn an_upgrade_that_was_paid_for_is_awaited_though_its_answer_was_lost() {
    let (server, upstream) = pair().await;
    upstream.says("veo/get-4k-video", [Says::Breaks]);
    let body = r#"{"taskId":"t1","index":1}"#;
    assert_eq!(submit(&server, "veo/get-4k-video", body).await.status, 502);
    let task = server.task("t1").await;
    assert_eq!(outcome_of(&task), [json!("4k"), json!(1), json!("pending")]);
    assert_eq!(task["asking"][0]["reason"], "silent");
    let callback = callback_of(&upstream, "veo/get-4k-video", 1).await;
    let other = server.callback_to(&callback, &failure("n1"));
    other.signed(KEY).send().await.taken();
    let ordered = "SELECT count(*) FROM outcomes WHERE ordered = 1";
    assert_eq!(server.number(ordered).await, 2, "both that it may go by");
    let own = "SELECT count(*) FROM tasks WHERE task_id = 'n1' AND family = 'veo-4k'";
    assert_eq!(server.number(own).await, 1);
}

#[tokio::test]
async fn an_upgrade_with_an_id_of_its_own_is_a_task_of_its_own() {
    let (server, upstream) = pair().await;
    upstream.says("veo/get-4k-video", [made("n1"), made("t1")]);
    for _ in 0..2 {
        submit(&server, "veo/get-4k-video", r#"{"taskId":"t1"}"#)
            .await
            .fine();
    }
    let families = "SELECT count(*) FROM tasks
                    WHERE task_id = 'n1' AND family = 'veo-4k' OR task_id = 't1' AND family = 'veo'";
    assert_eq!(server.number(families).await, 2);
}

#[tokio::test]
async fn what_the_provider_took_is_noted_once_the_database_can() {
    let (server, upstream) = pair().await;
    upstream.says("veo/generate", [made("t1")]);
    server
        .sabotage(
            "CREATE TRIGGER broken BEFORE UPDATE ON submissions BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END",
        )
        .await;
    assert_eq!(submit_as(&server, "k", "{}").await.fine(), made("t1"));
    assert_eq!(server.get("/v1/tasks/t1").await.status, 404);
    server.sabotage("DROP TRIGGER broken").await;
    until("its task is known", async || {
        let answer = server.get("/v1/tasks/t1").await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(submit_as(&server, "k", "{}").await.fine(), made("t1"));
    assert_eq!(upstream.asked("veo/generate").len(), 1);
}

#[tokio::test]
async fn the_record_of_a_video_is_not_taken_for_the_upgrade_that_goes_by_its_id() {
    let (server, upstream) = pair().await;
    let cdn = Cdn::start().await;
    let url = |name: &str| cdn.script(name, [Reply::Whole(mp4(1, 2_000))]);
    let (base, upgraded) = (url("/base.mp4"), url("/4k.mp4"));
    let finished = json!({"code": 422, "msg": "The video has been generated successfully",
        "data": {"taskId": "t1", "resultUrls": [upgraded], "imageUrls": null}});
    upstream.says("veo/get-4k-video", [finished]);
    submit(&server, "veo/get-4k-video", r#"{"taskId":"t1"}"#)
        .await
        .fine();
    assert_eq!(server.wait_settled("t1").await["files"][0]["kind"], "4k");

    let told = record("t1", &[base]);
    upstream.says("veo/record-info", [told.clone()]);
    assert_eq!(ask(&server, "veo/record-info?taskId=t1").await.fine(), told);
    let task = server.wait_settled("t1").await;
    let kinds: Vec<_> = task["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| &file["kind"])
        .collect();
    assert_eq!(kinds, ["4k", "video"]);
    assert_eq!(task["conflicts"], 0);
    let ours = ask(&server, "veo/record-info?taskId=t1").await.fine();
    assert!(link(&ours["data"]["response"]["resultUrls"][0]).contains("/files/result-0.mp4?"));
    assert_eq!(upstream.asked("veo/record-info").len(), 1);
}

#[tokio::test]
async fn failures_and_running_tasks_are_told_as_the_provider_does() {
    let (server, upstream) = pair().await;
    upstream.says("veo/generate", [made("t1")]);
    submit(&server, "veo/generate", r#"{"prompt":"p"}"#).await.fine();
    // The provider cannot be asked: then what we know is told.
    let html = || Says::Text(502, "text/html", "<html>bad gateway</html>".to_owned());
    for path in ["veo/record-info", "jobs/recordInfo"] {
        upstream.says(path, [html()]);
    }
    let record = ask(&server, "veo/record-info?taskId=t1").await.fine();
    assert_eq!(
        (&record["data"]["successFlag"], &record["data"]["response"]),
        (&json!(0), &Value::Null)
    );
    assert_eq!(record["data"]["completeTime"], Value::Null);
    let record = ask(&server, "jobs/recordInfo?taskId=t1").await.fine();
    assert_eq!(
        (&record["data"]["state"], &record["data"]["resultJson"]),
        (&json!("generating"), &Value::Null)
    );
    let unknown = ask(&server, "veo/record-info?taskId=other").await;
    assert_eq!((said(&unknown).0, said(&unknown).1), (502, 502));

    let callback = callback_of(&upstream, "veo/generate", 1).await;
    server
        .callback_to(&callback, &failure("t1"))
        .signed(KEY)
        .send()
        .await
        .taken();
    let record = ask(&server, "veo/record-info?taskId=t1").await.fine();
    assert_eq!(
        (
            &record["data"]["successFlag"],
            &record["data"]["errorCode"],
            &record["data"]["errorMessage"]
        ),
        (
            &json!(2),
            &json!(501),
            &json!("Failed - Video generation task failed")
        )
    );
    let record = ask(&server, "jobs/recordInfo?taskId=t1").await.fine();
    assert_eq!(
        (
            &record["data"]["state"],
            &record["data"]["failCode"],
            &record["data"]["failMsg"]
        ),
        (
            &json!("fail"),
            &json!("501"),
            &json!("Failed - Video generation task failed")
        )
    );
}

#[tokio::test]
async fn only_a_key_or_a_token_lets_in_and_the_key_selects_its_source() {
    let (one, other) = (
        ScriptedProvider::wanting("key-one-0123456789").await,
        ScriptedProvider::wanting("key-other-0123456789").await,
    );
    let source = |name: &str, upstream: &ScriptedProvider, key: &str| {
        format!(
            "[sources.{name}]\napi_url = \"http://{}\"\napi_key = \"{key}\"\nhmac_keys = [\"{KEY}\"]\n",
            upstream.addr
        )
    };
    let both = source("one", &one, "key-one-0123456789") + &source("other", &other, "key-other-0123456789");
    let public = "public_url = \"http://localhost:1\"\n";
    let credit = |n: i64| json!({"code": 200, "msg": "success", "data": n});
    one.says("chat/credit", [credit(1)]);
    other.says("chat/credit", [credit(2)]);
    let ask = async |server: &TestServer, token: Option<&str>| {
        let request = server.bare(Method::GET, "/api/v1/chat/credit");
        Answer::of(match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
        .await
    };
    let refused = (200, 401, "You do not have access permissions".to_owned());

    // Without tokens of the API, on this machine, too.
    let server = Setup::new(&format!("{public}{both}")).start().await;
    for token in [None, Some(""), Some("key-one"), Some(API_TOKEN)] {
        assert_eq!(said(&ask(&server, token).await), refused, "{token:?}");
    }
    assert_eq!(ask(&server, Some("key-one-0123456789")).await.fine(), credit(1));
    assert_eq!(ask(&server, Some("key-other-0123456789")).await.fine(), credit(2));
    drop(server);

    let tokens = format!("api.tokens = [\"{API_TOKEN}\"]\n");
    let server = Setup::new(&format!("{tokens}{public}{both}")).start().await;
    let (status, code, msg) = said(&ask(&server, Some(API_TOKEN)).await);
    assert!(
        (status, code) == (503, 503) && msg.contains("dropin.source"),
        "{msg}"
    );
    drop(server);

    let chosen = format!("dropin.source = \"other\"\n{tokens}{public}{both}");
    let server = Setup::new(&chosen).start().await;
    assert_eq!(ask(&server, Some(API_TOKEN)).await.fine(), credit(2));
    drop(server);

    let server = Setup::new(&format!("{tokens}{}", source("one", &one, "key-one-0123456789")))
        .start()
        .await;
    let (status, code, msg) = said(&ask(&server, Some(API_TOKEN)).await);
    assert!(
        (status, code) == (503, 503) && msg.contains("public_url"),
        "{msg}"
    );
    drop(server);

    let server = Setup::new(&format!("{tokens}{public}")).start().await;
    let (status, code, msg) = said(&ask(&server, Some(API_TOKEN)).await);
    assert!((status, code) == (503, 503) && msg.contains("api_key"), "{msg}");
}

#[tokio::test]
async fn of_a_strangers_body_nothing_is_awaited() {
    let (server, _upstream) = pair().await;
    for path in ["veo/generate", "common/download-url"] {
        let mut raw = Raw::open(server.addr).await;
        let head = format!(
            "POST /api/v1/{path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer wrong\r\ncontent-length: 1000000\r\n\r\n{{",
            server.addr
        );
        raw.send(head.as_bytes()).await;
        let answer = raw.answer().await;
        assert!(answer.contains("\"code\":401"), "{path}: {answer}");
    }
}

/// Nothing of a submission is left but, if its outcome is unknown, its note.
async fn left(server: &TestServer) -> (i64, i64) {
    (
        server.number("SELECT count(*) FROM tasks").await,
        server
            .number("SELECT count(*) FROM submissions WHERE state = 'sent'")
            .await,
    )
}

#[tokio::test]
async fn a_provider_that_gives_no_answer_leaves_nothing_half_registered() {
    let (server, upstream) = pair().await;
    let raw = |status: u16, kind: &'static str, body: &str| Says::Text(status, kind, body.to_owned());
    let body = r#"{"prompt":"p"}"#;
    let mut in_doubt = 0;
    for says in [
        raw(502, "text/html", "<html><body>Bad Gateway</body></html>"),
        raw(200, "text/html", "<html>maintenance</html>"),
        raw(200, "application/json", "{\"code\":200"),
        raw(200, "application/json", ""),
        Says::Breaks,
    ] {
        upstream.says("veo/generate", [says.clone()]);
        let answer = submit(&server, "veo/generate", body).await;
        let (status, code, msg) = said(&answer);
        assert!(
            (status, code) == (502, 502) && msg.contains("may have taken it"),
            "{says:?}: {answer:?}"
        );
        in_doubt += 1;
        assert_eq!(left(&server).await, (0, in_doubt), "{says:?}");
    }
    for (code, sentence) in [
        (
            400,
            "Your prompt was flagged by Website as violating content policies.",
        ),
        (402, "Insufficient credits"),
        (422, "Validation Error"),
        (429, "Rate limited"),
        (455, "maintenance"),
    ] {
        let refused = json!({"code": code, "msg": sentence, "data": null});
        let fresh = ScriptedProvider::start().await;
        let server = Setup::new(&config(&fresh)).start().await;
        fresh.says("veo/generate", [refused.clone()]);
        assert_eq!(
            submit(&server, "veo/generate", body).await.fine(),
            refused,
            "as it came"
        );
        assert_eq!(left(&server).await, (0, 0), "{code}");
    }
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_leaves_no_note() {
    for url in ["http://no-such-host.invalid", "http://127.0.0.1:9"] {
        let toml = format!(
            "public_url = \"http://localhost:1\"\n[sources.kie]\napi_url = \"{url}\"\napi_key = \"{API_KEY}\"\n\
             hmac_keys = [\"{KEY}\"]"
        );
        let server = Setup::new(&toml).start().await;
        let answer = submit(&server, "veo/generate", r#"{"prompt":"p"}"#).await;
        assert_eq!((said(&answer).0, said(&answer).1), (502, 502), "{answer:?}");
        assert_eq!(
            server.number("SELECT count(*) FROM submissions").await,
            0,
            "{url}"
        );
        assert_eq!(server.number("SELECT count(*) FROM tasks").await, 0);
    }
}

#[tokio::test]
async fn under_one_key_one_submission_is_sent_and_one_answer_given() {
    let (server, upstream) = pair().await;
    upstream.says("veo/generate", [Says::Json(made("t1")), Says::Json(made("t2"))]);
    let body = r#"{"prompt":"p"}"#;
    for _ in 0..2 {
        assert_eq!(submit_as(&server, "key-1", body).await.fine(), made("t1"));
    }
    let (status, code, msg) = said(&submit_as(&server, "key-1", r#"{"prompt":"q"}"#).await);
    assert!(
        (status, code) == (422, 422) && msg.contains("another request"),
        "{msg}"
    );
    assert_eq!(upstream.asked("veo/generate").len(), 1);
    assert_eq!(submit_as(&server, "key-2", body).await.fine(), made("t2"));

    // Across a restart, and for a day.
    let clock = Clock::manual(NOW);
    let server = server.halt().await.clock(&clock).start().await;
    assert_eq!(submit_as(&server, "key-1", body).await.fine(), made("t1"));
    clock.advance(Duration::from_hours(24) - Duration::from_millis(1));
    assert_eq!(submit_as(&server, "key-1", body).await.fine(), made("t1"));
    clock.advance(Duration::from_secs(1));
    upstream.says("veo/generate", [made("t3")]);
    assert_eq!(submit_as(&server, "key-1", body).await.fine(), made("t3"));
}

#[tokio::test]
async fn what_was_refused_for_now_may_be_tried_again_and_what_was_refused_for_good_is_not() {
    let (server, upstream) = pair().await;
    let for_now = json!({"code": 501, "msg": "Failed", "data": null});
    let for_good = json!({"code": 422, "msg": "Validation Error", "data": null});
    upstream.says(
        "veo/generate",
        [for_now.clone(), for_good.clone(), made("t1")].map(Says::Json),
    );
    let body = r#"{"prompt":"p"}"#;
    assert_eq!(submit_as(&server, "k", body).await.fine(), for_now);
    for _ in 0..2 {
        assert_eq!(submit_as(&server, "k", body).await.fine(), for_good);
    }
    assert_eq!(upstream.asked("veo/generate").len(), 2);
}

#[tokio::test]
async fn of_what_was_refused_little_is_kept() {
    let (server, upstream) = pair().await;
    let refused = |msg: &str| json!({"code": 422, "msg": msg, "data": null});
    let long = refused(&"x".repeat(100_000));
    upstream.says("veo/generate", [refused("no"), long.clone(), long.clone()]);
    let body = json!({"prompt": "p".repeat(100_000)}).to_string();
    for _ in 0..2 {
        assert_eq!(submit_as(&server, "short", &body).await.fine(), refused("no"));
    }
    assert_eq!(upstream.asked("veo/generate").len(), 1);
    for _ in 0..2 {
        assert_eq!(submit_as(&server, "long", &body).await.fine(), long);
    }
    assert_eq!(upstream.asked("veo/generate").len(), 3, "its answer was not kept");
    let kept =
        "SELECT sum(COALESCE(length(body), 0) + COALESCE(length(prompt), 0) + COALESCE(length(answer), 0))
                FROM submissions";
    assert!(server.number(kept).await < 1_000);
}

#[tokio::test]
async fn what_keeps_from_paying_twice_is_kept_however_many_come() {
    let (server, upstream) = pair().await;
    upstream.says(
        "veo/generate",
        [Says::Json(made("t1")), Says::Json(made("t2")), Says::Breaks],
    );
    submit_as(&server, "k", "{}").await.fine();
    submit(&server, "veo/generate", "{}").await.fine();
    assert_eq!(submit(&server, "veo/generate", "{}").await.status, 502);
    server.sabotage("UPDATE submissions SET id = id - 1000000").await;
    server
        .sabotage(
            "INSERT INTO submissions
                (id, ref, source, path, family, kind, idx, state, task_id, body_sha256, created_at, keep_until)
             SELECT 1, 'x', source, path, family, kind, idx, state, task_id, body_sha256, created_at, keep_until
             FROM submissions WHERE state = 'accepted' LIMIT 1",
        )
        .await;
    upstream.says("veo/generate", [made("t4")]);
    submit(&server, "veo/generate", "{}").await.fine();
    let old = "SELECT count(*) FROM submissions WHERE id < 0";
    assert_eq!(
        server.number(old).await,
        2,
        "the one with a key, the one in doubt"
    );
}

#[tokio::test]
async fn of_twenty_who_send_the_same_at_once_one_is_passed_on() {
    let (server, upstream) = pair().await;
    upstream.says("veo/generate", [Says::Held(made("t1"))]);
    let body = r#"{"prompt":"p"}"#;
    let requests = (0..20).map(|_| submit_as(&server, "k", body));
    let all = futures_util::future::join_all(requests);
    let release = async {
        nth(&upstream, "veo/generate", 1).await;
        upstream.release();
    };
    let (answers, ()) = futures_util::future::join(all, release).await;
    let given: HashSet<String> = answers.iter().map(Answer::text).collect();
    assert_eq!(given, HashSet::from([made("t1").to_string()]));
    assert_eq!(upstream.asked("veo/generate").len(), 1);
}

#[tokio::test]
async fn a_submission_in_doubt_is_not_sent_twice_and_its_callback_tells() {
    let (server, upstream) = pair().await;
    upstream.says("veo/generate", [Says::Breaks]);
    let body = r#"{"prompt":"a lost one"}"#;
    let first = submit_as(&server, "k", body).await;
    assert_eq!(first.status, 502);
    for _ in 0..2 {
        let (status, code, msg) = said(&submit_as(&server, "k", body).await);
        assert!(
            (status, code) == (409, 409) && msg.starts_with("in_doubt"),
            "{msg}"
        );
    }
    assert_eq!(upstream.asked("veo/generate").len(), 1);
    let callback = callback_of(&upstream, "veo/generate", 1).await;
    server
        .callback_to(&callback, &failure("t1"))
        .signed(KEY)
        .send()
        .await
        .taken();
    assert_eq!(submit_as(&server, "k", body).await.fine(), made("t1"));
    assert_eq!(upstream.asked("veo/generate").len(), 1);
    let task = server.task("t1").await;
    assert_eq!(
        (&task["prompt"], &task["state"]),
        (&json!("a lost one"), &json!("failed"))
    );
    let record = ask(&server, "veo/record-info?taskId=t1").await.fine();
    assert_eq!(record["data"]["paramJson"], body);
}

#[tokio::test]
async fn a_caller_that_goes_away_loses_nothing() {
    let (server, upstream) = pair().await;
    upstream.says("veo/generate", [Says::Held(made("t1"))]);
    let impatient =
        submission(&server, "veo/generate", r#"{"prompt":"p"}"#).timeout(Duration::from_millis(200));
    assert!(impatient.send().await.unwrap_err().is_timeout());
    upstream.release();
    until("its task is known", async || {
        let answer = server.get("/v1/tasks/t1").await;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_callback_that_comes_before_the_answer_binds_the_submission() {
    let (server, upstream) = pair().await;
    upstream.says("veo/generate", [Says::Held(made("t1"))]);
    let answered = submit(&server, "veo/generate", GENERATE);
    let called = async {
        let heard = nth(&upstream, "veo/generate", 1).await;
        let callback = server.callback_to(&callback_in(&heard), &failure("t1"));
        callback.signed(KEY).send().await.taken();
        assert_eq!(server.task("t1").await["prompt"], "A dog playing in a park");
        upstream.release();
    };
    let (answer, ()) = futures_util::future::join(answered, called).await;
    assert_eq!(answer.fine(), made("t1"));
    let task = server.task("t1").await;
    assert_eq!(
        (&task["state"], task["outcomes"].as_array().unwrap().len()),
        (&json!("failed"), 1)
    );
}

#[tokio::test]
async fn the_whole_film_of_an_extension_is_asked_for_though_its_callback_came_first() {
    let (server, upstream) = pair().await;
    let cdn = Cdn::start().await;
    let clip = cdn.script("/clip.mp4", [Reply::Whole(mp4(1, 2_000))]);
    let film = cdn.script("/film.mp4", [Reply::Whole(mp4(2, 3_000))]);
    let id = "2b1b13eca3e8b8bbd5a88610d29dfd51";
    let mut whole = record(id, std::slice::from_ref(&clip));
    whole["data"]["response"]["fullResultUrls"] = json!([film]);
    upstream.says("veo/record-info", [whole]);
    upstream.says("veo/extend", [Says::Breaks]);
    let lost = submit(&server, "veo/extend", r#"{"taskId":"t0","prompt":"p"}"#).await;
    assert_eq!(lost.status, 502);
    let callback = callback_of(&upstream, "veo/extend", 1).await;
    let called = server.callback_to(&callback, &success(id, &[clip]));
    called.signed(KEY).send().await.taken();
    until("the film is stored", async || {
        let task = server.wait_settled(id).await;
        (task["files"][1]["role"] == "full").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_ref_says_what_the_query_leaves_open_and_nothing_about_other_tasks() {
    let (server, upstream) = pair().await;
    upstream.says(
        "veo/get-4k-video",
        [json!({"code": 200, "msg": "success", "data": {"taskId": "t1", "resultUrls": null}})],
    );
    submit(&server, "veo/get-4k-video", r#"{"taskId":"t1","index":1}"#)
        .await
        .fine();
    let callback = callback_of(&upstream, "veo/get-4k-video", 1).await;
    let (_, reference) = callback.split_once("ref=").unwrap();
    let bare = format!("kie?token={TOKEN}&ref={reference}");
    server
        .callback_to(&bare, &failure("t2"))
        .signed(KEY)
        .send()
        .await
        .taken();
    server
        .callback_to(&bare, &failure("t1"))
        .signed(KEY)
        .send()
        .await
        .taken();
    let outcome = |task: &Value| {
        (
            task["outcomes"][0]["kind"].clone(),
            task["outcomes"][0]["index"].clone(),
        )
    };
    assert_eq!(outcome(&server.task("t1").await), (json!("4k"), json!(1)));
    assert_eq!(
        outcome(&server.task("t2").await),
        (json!("video"), json!(0)),
        "the ref is not its own"
    );
}

#[tokio::test]
async fn of_an_unsigned_source_a_known_ref_stands_in_for_the_token() {
    let upstream = ScriptedProvider::start().await;
    let toml = config(&upstream).replace(&format!("hmac_keys = [\"{KEY}\"]\n"), "confirm = false\n")
        + &format!("[sources.other]\ntokens = [\"{TOKEN}\"]\n");
    let server = Setup::new(&toml).start().await;
    upstream.says("veo/generate", [Says::Json(made("t1")), Says::Breaks]);
    submit(&server, "veo/generate", r#"{"prompt":"p"}"#).await.fine();
    submit(&server, "veo/generate", r#"{"prompt":"p"}"#).await;
    let reference = |heard: &str| heard.split_once("ref=").unwrap().1.to_owned();
    let bound = reference(&callback_of(&upstream, "veo/generate", 1).await);
    let unbound = reference(&callback_of(&upstream, "veo/generate", 2).await);
    let call = async |rest: String, task_id: &str| server.callback_to(&rest, &failure(task_id)).send().await;
    for (rest, task_id, refused) in [
        (format!("kie?ref={bound}"), "t2", "missing_token"),
        (format!("kie?token=wrong&ref={bound}"), "t2", "bad_token"),
        ("kie?ref=unknown".to_owned(), "t1", "missing_token"),
        (format!("other?ref={bound}"), "t1", "missing_token"),
        (format!("kie?ref={bound}%20"), "t1", "missing_token"),
    ] {
        let answer = call(rest.clone(), task_id).await;
        assert_eq!(answer.problem(), (401, refused.to_owned()), "{rest}");
    }
    call(format!("kie?ref={bound}"), "t1").await.taken();
    call(format!("kie?token=wrong&ref={unbound}"), "t9").await.taken();
    assert_eq!(call(format!("kie?ref={unbound}"), "t10").await.problem().0, 401);
    assert_eq!(server.task("t9").await["state"], "failed");
}

#[tokio::test]
async fn a_signature_is_wanted_whatever_ref_is_known() {
    let (server, upstream) = pair().await;
    upstream.says("veo/generate", [made("t1")]);
    submit(&server, "veo/generate", r#"{"prompt":"p"}"#).await.fine();
    let callback = callback_of(&upstream, "veo/generate", 1).await;
    let unsigned = server.callback_to(&callback, &failure("t1")).send().await;
    assert_eq!(unsigned.problem(), (401, "missing_signature".to_owned()));
    let (_, reference) = callback.split_once("ref=").unwrap();
    let call = server.callback_to(&format!("kie?ref={reference}"), &failure("t1"));
    assert_eq!(
        call.signed(KEY).send().await.problem(),
        (401, "missing_token".to_owned())
    );
}

#[tokio::test]
async fn hostile_requests_are_refused_in_the_providers_shape() {
    let (server, upstream) = pair().await;
    upstream.says("veo/generate", [made("t1")]);
    for body in ["", "null", "[]", "{", "\"x\"", "{}x", "<html>"] {
        let (status, code, _) = said(&submit(&server, "veo/generate", body).await);
        assert_eq!((status, code), (200, 422), "{body}");
    }
    let huge = format!(r#"{{"prompt":"{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(said(&submit(&server, "veo/generate", &huge).await).0, 413);
    let deep = format!(r#"{{"prompt":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    submit(&server, "veo/generate", &deep).await;
    let key = "k".repeat(256);
    assert_eq!(said(&submit_as(&server, &key, "{}").await).1, 422);
    for (method, path, status) in [
        (Method::GET, "veo/generate", 405),
        (Method::DELETE, "veo/record-info", 405),
        (Method::POST, "no/such", 404),
        (Method::GET, "veo/../../v1/tasks", 404),
    ] {
        let answer = Answer::of(of_client(&server, method, path)).await;
        // A client resolves what leads upwards itself.
        if !path.contains("..") {
            assert_eq!(
                (said(&answer).0, said(&answer).1),
                (status, status.into()),
                "{path}"
            );
        }
    }
    let before = upstream.asked("veo/generate").len();
    for body in [
        r#"{"callBackUrl":"https://one/","callBackUrl":"https://two/"}"#,
        r#"{"callBackUrl":null}"#,
        r#"{"callBackUrl":{"a":1}}"#,
    ] {
        submit(&server, "veo/generate", body).await.fine();
    }
    for heard in &upstream.asked("veo/generate")[before..] {
        assert_eq!(heard.text.matches("callBackUrl").count(), 1);
        assert!(callback_in(heard).starts_with("kie?token="), "{}", heard.text);
    }
}

#[tokio::test]
async fn an_answer_that_echoes_our_callback_url_shows_no_token() {
    let (server, upstream) = pair().await;
    let echoed = json!({"code": 200, "msg": "success", "data": {"taskId": "t1", "successFlag": 0,
        "paramJson": format!("{{\"callBackUrl\":\"https://x/callbacks/kie?token={TOKEN}\"}}")}});
    upstream.says("veo/record-info", [echoed]);
    let shown = ask(&server, "veo/record-info?taskId=t1").await.text();
    assert!(!shown.contains(TOKEN) && shown.contains("[redacted]"), "{shown}");
}

/// Dies between the provider's acceptance and the answer: what was paid for is found, and nothing is paid for twice.
#[cfg(debug_assertions)]
#[tokio::test]
async fn a_submission_whose_answer_died_with_us_is_found_by_its_callback() {
    let upstream = ScriptedProvider::start().await;
    upstream.says("veo/generate", [made("t1")]);
    let program = Program::configured(&config(&upstream));
    let body = r#"{"prompt":"paid for"}"#;
    let send = async |url: &str| {
        let request = client()
            .post(format!("{url}/api/v1/veo/generate"))
            .bearer_auth(API_KEY);
        request.header("idempotency-key", "k").body(body).send().await
    };
    let mut serving = program.serve_with(&[("REELHOOK_ABORT_AT", "submission_accepted:1")]);
    assert!(send(&serving.url()).await.is_err(), "it died before it answered");
    serving.wait();
    let heard = nth(&upstream, "veo/generate", 1).await;

    let serving = program.serve(&[]);
    let answer = send(&serving.url()).await.unwrap();
    assert_eq!(answer.status(), 409);
    let text = answer.text().await.unwrap();
    assert!(text.contains("in_doubt"), "{text}");
    let url = format!("{}/callbacks/{}", serving.url(), callback_in(&heard));
    let now = Clock::system().now() / 1000;
    let signature = reelhook::provider::signature::sign(KEY, "t1", &now.to_string());
    let called = client()
        .post(url)
        .header("x-webhook-timestamp", now.to_string())
        .header("x-webhook-signature", signature)
        .body(failure("t1").to_string());
    Answer::of(called).await.taken();
    let answer = send(&serving.url()).await.unwrap().text().await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), made("t1"));
    assert_eq!(upstream.asked("veo/generate").len(), 1, "sent once");
    let task = client()
        .get(format!("{}/v1/tasks/t1", serving.url()))
        .bearer_auth(API_TOKEN);
    assert_eq!(Answer::of(task).await.fine()["prompt"], "paid for");
}

#[tokio::test]
async fn an_upgrade_whose_answer_died_with_us_is_awaited() {
    let upstream = ScriptedProvider::start().await;
    upstream.says("veo/get-4k-video", [made("t1")]);
    let program = Program::configured(&config(&upstream));
    let mut serving = program.serve_with(&[("REELHOOK_ABORT_AT", "submission_accepted:1")]);
    let order = client()
        .post(format!("{}/api/v1/veo/get-4k-video", serving.url()))
        .bearer_auth(API_KEY)
        .body(r#"{"taskId":"t1"}"#);
    assert!(order.send().await.is_err(), "it died before it answered");
    serving.wait();

    let serving = program.serve(&[]);
    let task = client()
        .get(format!("{}/v1/tasks/t1", serving.url()))
        .bearer_auth(API_TOKEN);
    let task = Answer::of(task).await.fine();
    assert_eq!(outcome_of(&task), [json!("4k"), json!(0), json!("pending")]);
}
