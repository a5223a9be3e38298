//! The simulated provider answers as the provider is documented to, and its ledger tells the truth.

use std::time::Duration;

use reelhook::clock::Clock;
use reelhook::simulate::Settings;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Answer, Provider, TestServer};

/// 2026-11-21T18:07:26Z
const NOW: i64 = 1_795_284_446_000;

fn in_time(settings: Settings, takes: Duration) -> Settings {
    Settings {
        takes,
        jitter: 0.0,
        ..settings
    }
}

/// A provider whose time stands still, and that time: a task takes five seconds.
async fn standing_still() -> (Provider, Clock) {
    let clock = Clock::manual(NOW);
    let settings = in_time(Provider::quick(), Duration::from_secs(5));
    (Provider::with_clock(settings, &clock).await, clock)
}

fn refused(code: u16, msg: &str) -> Value {
    json!({ "code": code, "msg": msg, "data": null })
}

fn urls(list: &Value) -> Vec<String> {
    let all = list.as_array().unwrap_or_else(|| panic!("a list, not {list}"));
    all.iter().map(|url| url.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_task_is_generating_until_its_time_and_then_has_its_urls() {
    let (provider, clock) = standing_still().await;
    let id = provider.generate(&json!({"aspect_ratio": "9:16"})).await;
    assert!(
        id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit()),
        "{id}"
    );
    let record = format!("veo/record-info?taskId={id}");
    let running = provider.get(&record).await;
    assert_eq!(running["code"], 200);
    assert_eq!(running["data"]["successFlag"], 0);
    assert_eq!(running["data"]["response"], Value::Null);
    assert_eq!(running["data"]["createTime"], "2026-11-21 18:07:26");
    assert_eq!(running["data"]["completeTime"], Value::Null);
    clock.advance(Duration::from_secs(5));
    let done = provider.get(&record).await["data"].clone();
    assert_eq!(done["successFlag"], 1);
    assert_eq!(done["completeTime"], "2026-11-21 18:07:31");
    let parameters: Value = serde_json::from_str(done["paramJson"].as_str().unwrap()).unwrap();
    assert_eq!(parameters["aspect_ratio"], "9:16");
    assert_eq!(urls(&done["response"]["resultUrls"]).len(), 1);
    assert_eq!(urls(&done["response"]["originUrls"]).len(), 1);
    assert_eq!(done["response"]["fullResultUrls"], Value::Null);
    let again = provider.get(&record).await["data"].clone();
    assert_eq!(again["response"], done["response"], "the same URLs every time");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_by_the_code_in_its_body() {
    let (provider, _) = standing_still().await;
    for (endpoint, body) in [
        ("veo/generate", json!({})),
        ("veo/generate", json!({"prompt": " "})),
        ("veo/generate", json!({"prompt": 7})),
        ("veo/generate", json!({"prompt": "x", "seeds": 9_999})),
        ("veo/generate", json!({"prompt": "x", "seeds": 100_000})),
        ("veo/generate", json!({"prompt": "x", "model": "veo2"})),
        ("veo/generate", json!({"prompt": "x", "aspectRatio": "4:3"})),
        ("veo/generate", json!({"prompt": "x", "aspect_ratio": "4:3"})),
        ("veo/generate", json!({"prompt": "x", "callBackUrl": "not a url"})),
        (
            "veo/generate",
            json!({"prompt": "x", "generationType": "TEXT_2_VIDEO", "imageUrls": ["http://a"]}),
        ),
        ("jobs/createTask", json!({"input": {}})),
        ("jobs/createTask", json!({"model": "veo-3-1"})),
        ("veo/get-4k-video", json!({})),
    ] {
        let answer = provider.post(endpoint, &body).await;
        assert_eq!(
            (&answer["code"], &answer["data"]),
            (&json!(422), &Value::Null),
            "{endpoint} {body}"
        );
    }
    let broken = provider.request(Method::POST, "veo/generate").body("{");
    assert_eq!(Answer::of(broken).await.json()["code"], 400);
    for seeds in [10_000, 99_999] {
        provider
            .generate(&json!({"seeds": seeds, "aspectRatio": "16:9"}))
            .await;
    }
}

#[tokio::test]
async fn what_it_does_not_know_it_says_in_the_words_of_the_documentation() {
    let (provider, _) = standing_still().await;
    let id = provider.generate(&json!({})).await;
    let unfinished = refused(422, "record status is not success.");
    for (endpoint, said) in [
        ("veo/record-info?taskId=nobody", refused(422, "record is null.")),
        (
            "veo/get-1080p-video?taskId=nobody",
            refused(422, "record is null."),
        ),
        (&format!("veo/get-1080p-video?taskId={id}"), unfinished.clone()),
        (
            "jobs/recordInfo?taskId=nobody",
            refused(422, "Record does not exist"),
        ),
    ] {
        assert_eq!(provider.get(endpoint).await, said, "{endpoint}");
    }
    assert_eq!(
        provider.post("veo/get-4k-video", &json!({"taskId": id})).await,
        unfinished
    );
    let wrong = provider
        .post(
            "common/download-url",
            &json!({"url": "https://example.com/a.mp4"}),
        )
        .await;
    assert_eq!(wrong, refused(422, "url is wrong"));
    let missing = provider
        .post("veo/extend", &json!({"taskId": "nobody", "prompt": "x"}))
        .await;
    assert_eq!(missing["code"], 404);
}

#[tokio::test]
async fn without_the_key_nothing_is_done() {
    let (provider, _) = standing_still().await;
    let refusal = json!({ "code": 401, "msg": "You do not have access permissions" });
    for request in [
        provider.bare(Method::GET, "chat/credit"),
        provider.bare(Method::GET, "chat/credit").bearer_auth("another"),
        provider
            .bare(Method::POST, "veo/generate")
            .body("{\"prompt\": \"x\"}"),
    ] {
        let answer = Answer::of(request).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, refusal.clone()));
    }
    assert_eq!(provider.simulator.ledger().tasks, []);
}

#[tokio::test]
async fn credits_go_down_until_nothing_can_be_paid_for() {
    let (provider, _) = standing_still().await;
    provider.simulator.set_credits(100.25);
    assert_eq!(provider.get("chat/credit").await["data"], 100.25);
    provider.generate(&json!({})).await;
    assert_eq!(provider.get("chat/credit").await["data"], 39.75);
    let refusal = provider.post("veo/generate", &json!({"prompt": "x"})).await;
    assert_eq!(refusal["code"], 402);
    assert_eq!(provider.simulator.ledger().tasks.len(), 1);
}

#[tokio::test]
async fn rates_are_those_of_the_documentation_and_what_is_too_much_is_not_queued() {
    let clock = Clock::manual(NOW);
    let settings = Settings {
        account: Settings::default().account,
        ..Provider::quick()
    };
    let provider = Provider::with_clock(settings, &clock).await;
    let codes = async |count: usize| {
        let mut codes = Vec::new();
        for _ in 0..count {
            codes.push(provider.post("veo/generate", &json!({"prompt": "x"})).await["code"].clone());
        }
        codes
    };
    let mut expected = vec![json!(200); 20];
    expected.push(json!(429));
    assert_eq!(codes(21).await, expected);
    assert_eq!(provider.simulator.ledger().tasks.len(), 20);
    for nth in 0..11 {
        let answer = provider.get("chat/credit").await;
        assert_eq!(answer["code"], if nth < 10 { 200 } else { 429 });
    }
    clock.advance(Duration::from_secs(10));
    assert_eq!(codes(1).await, [json!(200)]);
}

#[tokio::test]
async fn a_4k_upgrade_is_ordered_once_and_told_as_an_error_with_urls() {
    let (provider, clock) = standing_still().await;
    let id = provider.generate(&json!({})).await;
    clock.advance(Duration::from_secs(5));
    let ask = async || {
        provider
            .post("veo/get-4k-video", &json!({"taskId": id, "index": 0}))
            .await
    };
    let nothing = json!({"taskId": id, "resultUrls": null, "imageUrls": null});
    assert_eq!(
        ask().await,
        json!({"code": 200, "msg": "success", "data": nothing})
    );
    let processing = "4k is processing. It should be ready in 5-10 minutes. Please check back shortly.";
    assert_eq!(
        ask().await,
        json!({"code": 422, "msg": processing, "data": nothing})
    );
    clock.advance(Duration::from_secs(5));
    let done = ask().await;
    assert_eq!(done["code"], 422);
    assert_eq!(done["msg"], "The video has been generated successfully");
    let result = provider.file(&urls(&done["data"]["resultUrls"])[0], &[]).await;
    assert_eq!(result.header("content-type"), "video/mp4");
    let image = provider.file(&urls(&done["data"]["imageUrls"])[0], &[]).await;
    assert_eq!(image.header("content-type"), "image/png");
    let none = provider
        .post("veo/get-4k-video", &json!({"taskId": id, "index": 1}))
        .await;
    assert_eq!(none, refused(422, "record result data not exist."));
}

#[tokio::test]
async fn a_1080p_version_is_not_ready_until_it_is() {
    let (provider, clock) = standing_still().await;
    let id = provider.generate(&json!({})).await;
    clock.advance(Duration::from_secs(5));
    let ask = async || {
        provider
            .get(&format!("veo/get-1080p-video?taskId={id}&index=0"))
            .await
    };
    let processing = "1080P is processing. It should be ready in 1-2 minutes. Please check back shortly.";
    assert_eq!(ask().await, refused(400, processing));
    clock.advance(Duration::from_secs(5));
    let done = ask().await;
    assert_eq!(done["code"], 200);
    let url = done["data"]["resultUrl"].as_str().expect("one URL");
    assert_eq!(provider.file(url, &[]).await.status, 200);
    let extended = provider
        .post("veo/extend", &json!({"taskId": id, "prompt": "x"}))
        .await;
    assert_eq!(extended["code"], 422, "what was upgraded cannot be extended");
}

#[tokio::test]
async fn an_extension_is_a_task_of_its_own_with_the_whole_film_in_its_record() {
    let receiver = TestServer::start().await;
    let provider = Provider::start(Provider::quick()).await;
    let id = provider.generate(&json!({})).await;
    provider.settled().await;
    let callback = format!("http://{}/callbacks/kie", receiver.addr);
    let body = json!({"taskId": id, "prompt": "and then", "callBackUrl": callback});
    let extension = provider.submit("veo/extend", &body).await;
    assert_ne!(extension, id);
    provider.settled().await;
    let task = receiver.wait_settled(&extension).await;
    let names: Vec<&str> = task["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["result-0.mp4"],
        "the callback does not tell of the whole film"
    );
    let record = provider.get(&format!("veo/record-info?taskId={extension}")).await;
    assert_eq!(urls(&record["data"]["response"]["fullResultUrls"]).len(), 1);
}

#[tokio::test]
async fn a_market_job_speaks_the_way_of_the_market() {
    let (provider, clock) = standing_still().await;
    let body = json!({"model": "veo-3-1", "input": {"prompt": "A fox"}});
    let id = provider.submit("jobs/createTask", &body).await;
    let record = async || provider.get(&format!("jobs/recordInfo?taskId={id}")).await["data"].clone();
    let states = async |wait: u64| {
        clock.advance(Duration::from_secs(wait));
        record().await["state"].clone()
    };
    assert_eq!(
        [states(0).await, states(1).await, states(2).await, states(2).await],
        ["waiting", "queuing", "generating", "success"]
    );
    let done = record().await;
    let result: Value = serde_json::from_str(done["resultJson"].as_str().expect("a text")).unwrap();
    assert_eq!(urls(&result["resultUrls"]).len(), 1);
    let param: Value = serde_json::from_str(done["param"].as_str().expect("a text")).unwrap();
    let input: Value = serde_json::from_str(param["input"].as_str().expect("a text in it")).unwrap();
    assert_eq!(input["prompt"], "A fox");
    assert_eq!(
        (&done["failCode"], &done["failMsg"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!((&done["costTime"], &done["createTime"]), (&json!(5), &json!(NOW)));
    let of_veo = provider.get(&format!("veo/record-info?taskId={id}")).await;
    assert_eq!(of_veo, refused(422, "record is null."));
}

#[tokio::test]
async fn records_and_media_are_gone_after_14_days() {
    let (provider, clock) = standing_still().await;
    let id = provider.generate(&json!({})).await;
    clock.advance(Duration::from_secs(5));
    let record = format!("veo/record-info?taskId={id}");
    let url = urls(&provider.get(&record).await["data"]["response"]["resultUrls"]).swap_remove(0);
    clock.advance(Duration::from_hours(14 * 24));
    assert_eq!(
        provider.get(&record).await,
        refused(422, "Temporarily supports records within 14 days.")
    );
    assert_eq!(
        provider.post("common/download-url", &json!({"url": url})).await["code"],
        422
    );
}

#[tokio::test]
async fn an_expired_link_is_renewed_for_a_while() {
    let clock = Clock::manual(NOW);
    let mut settings = in_time(Provider::quick(), Duration::from_secs(5));
    settings.links.expire = Duration::from_secs(20);
    let provider = Provider::with_clock(settings, &clock).await;
    let id = provider.generate(&json!({})).await;
    clock.advance(Duration::from_secs(5));
    let record = provider.get(&format!("veo/record-info?taskId={id}")).await;
    let url = urls(&record["data"]["response"]["resultUrls"]).swap_remove(0);
    let original = provider.file(&url, &[]).await;
    assert_eq!(original.status, 200);
    clock.advance(Duration::from_secs(20));
    let expired = provider.file(&url, &[]).await.status.as_u16();
    assert!(matches!(expired, 403 | 404), "{expired}");
    let fresh = provider.post("common/download-url", &json!({"url": url})).await;
    assert_eq!(fresh["msg"], "success");
    let fresh = fresh["data"].as_str().expect("data is a text");
    assert_eq!(provider.file(fresh, &[]).await.body, original.body);
    clock.advance(Duration::from_mins(20));
    assert_ne!(provider.file(fresh, &[]).await.status, 200);
    let guessed = url.replace("-result-", "-origin-");
    assert_eq!(provider.file(&guessed, &[]).await.status, 404, "not given out");
}

#[tokio::test]
async fn a_file_comes_in_parts_under_its_validators() {
    let (provider, clock) = standing_still().await;
    let id = provider.generate(&json!({})).await;
    clock.advance(Duration::from_secs(5));
    let record = provider.get(&format!("veo/record-info?taskId={id}")).await;
    let url = urls(&record["data"]["response"]["resultUrls"]).swap_remove(0);
    let whole = provider.file(&url, &[]).await;
    let ledger = provider.simulator.ledger();
    let known = &ledger.tasks[0].parts[0].files[0];
    assert_eq!(known.sha256, hex::encode(Sha256::digest(&whole.body)));
    assert_eq!(known.bytes, whole.body.len() as u64);
    assert_eq!(whole.header("content-length"), known.bytes.to_string());
    assert_eq!(whole.header("last-modified"), "Sat, 21 Nov 2026 18:07:31 GMT");
    let etag = whole.header("etag").to_owned();
    for (if_range, status) in [
        (etag.as_str(), 206),
        ("Sat, 21 Nov 2026 18:07:31 GMT", 206),
        ("\"other\"", 200),
    ] {
        let part = provider
            .file(&url, &[("range", "bytes=1000-"), ("if-range", if_range)])
            .await;
        assert_eq!(part.status, status, "{if_range}");
        let from = if status == 206 { 1_000 } else { 0 };
        assert_eq!(part.body, whole.body[from..]);
    }
    let past = provider.file(&url, &[("range", "bytes=9999999-")]).await;
    assert_eq!(past.status, 416);
}

#[tokio::test]
async fn a_slow_host_takes_its_time() {
    let mut settings = Provider::quick();
    settings.links.speed = Some(64 << 10);
    let provider = Provider::start(settings).await;
    let id = provider.generate(&json!({})).await;
    provider.settled().await;
    let record = provider.get(&format!("veo/record-info?taskId={id}")).await;
    let url = urls(&record["data"]["response"]["resultUrls"]).swap_remove(0);
    let began = std::time::Instant::now();
    assert_eq!(provider.file(&url, &[]).await.body.len(), 16 << 10);
    assert!(
        began.elapsed() >= Duration::from_millis(200),
        "{:?}",
        began.elapsed()
    );
}
