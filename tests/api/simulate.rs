//! The simulated provider answers as the provider is documented to, and its ledger tells the truth.

use std::path::Path;
use std::time::Duration;

use reelhook::clock::Clock;
use reelhook::config::Secret;
use reelhook::provider::signature::{Signed, verify};
use reelhook::simulate::{CallbackState, Event, Faults, Kind, LedgerTask, Settings, TaskState, Trouble};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Answer, Called, Hook, KEY, Program, Provider, Serving, TestServer, client};

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

/// The one callback that was asked for, as the ledger knows it.
fn callback_of(provider: &Provider) -> (CallbackState, Vec<Vec<Option<u16>>>) {
    let callback = provider.simulator.ledger().tasks[0].parts[0].callback.clone();
    (callback.state, callback.attempts)
}

#[tokio::test]
async fn callbacks_are_signed_and_echo_the_request() {
    let hook = Hook::answering(&[]).await;
    let settings = Settings {
        hmac_key: Some(Secret::new(KEY)),
        ..Provider::quick()
    };
    let provider = Provider::start(settings).await;
    let id = provider
        .generate(&json!({"aspect_ratio": "9:16", "callBackUrl": hook.url}))
        .await;
    provider.settled().await;
    let [called] = <[Called; 1]>::try_from(hook.called()).expect("one callback");
    let signed = Signed {
        task_id: &id,
        timestamp: called.header("x-webhook-timestamp"),
        signature: called.header("x-webhook-signature"),
    };
    let verified = verify([KEY], &signed, Clock::system().now(), Duration::from_mins(1));
    assert!(verified.is_ok(), "{verified:?}");
    let record = provider.get(&format!("veo/record-info?taskId={id}")).await;
    let (told, response) = (&called.body["data"], &record["data"]["response"]);
    assert_eq!(called.body["msg"], "Veo3.1 video generated successfully.");
    assert_eq!(told["info"]["resultUrls"], response["resultUrls"]);
    assert_eq!(told["info"]["originUrls"], response["originUrls"]);
    assert_eq!(told["promptJson"]["aspectRatio"], "9:16");
    assert_eq!(told["promptJson"]["callBackUrl"], hook.url);
}

#[tokio::test]
async fn what_is_not_answered_200_is_sent_again_and_given_up_after_the_retries() {
    let hook = Hook::answering(&[500, 202]).await;
    let provider = Provider::start(Provider::quick()).await;
    provider.generate(&json!({"callBackUrl": hook.url})).await;
    provider.settled().await;
    let answers = vec![vec![Some(500), Some(202), Some(200)]];
    assert_eq!(callback_of(&provider), (CallbackState::Answered, answers));
    let hook = Hook::answering(&[401; 9]).await;
    let provider = Provider::start(Provider::quick()).await;
    provider.generate(&json!({"callBackUrl": hook.url})).await;
    provider.settled().await;
    assert_eq!(
        callback_of(&provider),
        (CallbackState::Failed, vec![vec![Some(401); 4]])
    );
    assert_eq!(hook.called().len(), 4);
}

#[tokio::test]
async fn a_receiver_that_is_not_there_is_tried_as_often() {
    let provider = Provider::start(Provider::quick()).await;
    // Nobody listens on the port for discarding.
    provider
        .generate(&json!({"callBackUrl": "http://127.0.0.1:9/"}))
        .await;
    provider.settled().await;
    assert_eq!(
        callback_of(&provider),
        (CallbackState::Failed, vec![vec![None; 4]])
    );
}

#[tokio::test]
async fn retries_are_signed_anew_or_not_as_it_is_set() {
    for resign in [true, false] {
        let hook = Hook::answering(&[500]).await;
        let mut settings = Provider::quick();
        settings.hmac_key = Some(Secret::new(KEY));
        settings.callbacks.resign = resign;
        settings.callbacks.spacing = Duration::from_millis(1_001);
        let provider = Provider::start(settings).await;
        provider.generate(&json!({"callBackUrl": hook.url})).await;
        provider.settled().await;
        let called = hook.called();
        let of = |header| [called[0].header(header), called[1].header(header)];
        let [first, second] = of("x-webhook-timestamp");
        assert_eq!(first != second, resign);
        let [first, second] = of("x-webhook-signature");
        assert_eq!(first != second, resign);
    }
}

#[tokio::test]
async fn a_4k_upgrade_calls_back_under_the_same_id_with_a_picture() {
    let hook = Hook::answering(&[]).await;
    let provider = Provider::start(Provider::quick()).await;
    let id = provider.generate(&json!({})).await;
    provider.settled().await;
    let order = json!({"taskId": id, "callBackUrl": hook.url});
    assert_eq!(provider.post("veo/get-4k-video", &order).await["code"], 200);
    let ledger = provider.settled().await;
    let [called] = <[Called; 1]>::try_from(hook.called()).expect("one callback");
    assert_eq!(called.task_id(), id);
    assert_eq!(urls(&called.body["data"]["info"]["imageUrls"]).len(), 1);
    let part = ledger.tasks[0].part(Kind::Uhd, 0).expect("an upgrade");
    assert_eq!((part.state, part.files.len()), (TaskState::Succeeded, 2));
}

#[tokio::test]
async fn several_results_are_several_different_films() {
    let provider = Provider::start(Settings {
        results: 3,
        ..Provider::quick()
    })
    .await;
    provider.generate(&json!({})).await;
    let ledger = provider.settled().await;
    let mut sums: Vec<&str> = ledger.tasks[0].parts[0]
        .files
        .iter()
        .map(|file| file.sha256.as_str())
        .collect();
    sums.sort_unstable();
    sums.dedup();
    assert_eq!(sums.len(), 3);
}

/// What forty tasks with every fault come to, in the order of their numbers.
async fn fates(seed: u64) -> Vec<(String, TaskState, Option<u16>, CallbackState, usize)> {
    let hook = Hook::answering(&[]).await;
    let faults = Faults {
        drop: 0.3,
        duplicate: 0.3,
        fail: 0.3,
        reorder: Duration::from_millis(100),
    };
    let provider = Provider::start(Settings {
        seed,
        faults,
        ..Provider::quick()
    })
    .await;
    for _ in 0..40 {
        provider.generate(&json!({"callBackUrl": hook.url})).await;
    }
    let ledger = provider.settled().await;
    let fate = |task: LedgerTask| {
        let part = &task.parts[0];
        let copies = part.callback.attempts.len();
        (task.task_id, part.state, part.code, part.callback.state, copies)
    };
    let fates: Vec<_> = ledger.tasks.into_iter().map(fate).collect();
    let called: usize = fates.iter().map(|fate| fate.4).sum();
    assert_eq!(hook.called().len(), called, "what the ledger says was sent came");
    let sent: Vec<String> = hook
        .called()
        .iter()
        .map(|called| called.task_id().to_owned())
        .collect();
    let made: Vec<&String> = fates
        .iter()
        .filter(|fate| fate.4 > 0)
        .map(|fate| &fate.0)
        .collect();
    let mut firsts: Vec<&String> = Vec::new();
    for id in &sent {
        if !firsts.contains(&id) {
            firsts.push(id);
        }
    }
    assert_ne!(firsts, made, "they come in another order");
    fates
}

#[tokio::test]
async fn a_seed_decides_what_becomes_of_each_task() {
    let (first, again, other) = (fates(7).await, fates(7).await, fates(8).await);
    assert_eq!(first, again);
    assert_ne!(first, other);
    for seen in [CallbackState::Dropped, CallbackState::Answered] {
        assert!(first.iter().any(|fate| fate.3 == seen), "{seen:?}: {first:?}");
    }
    for seen in [TaskState::Succeeded, TaskState::Failed] {
        assert!(first.iter().any(|fate| fate.1 == seen), "{seen:?}: {first:?}");
    }
    assert!(first.iter().any(|fate| fate.4 == 2), "some are sent twice");
}

#[tokio::test]
async fn a_failure_is_told_alike_by_callback_and_record() {
    let hook = Hook::answering(&[]).await;
    let faults = Faults {
        fail: 1.0,
        ..Faults::default()
    };
    let provider = Provider::start(Settings {
        faults,
        ..Provider::quick()
    })
    .await;
    for _ in 0..20 {
        provider.generate(&json!({"callBackUrl": hook.url})).await;
    }
    let credits = provider.get("chat/credit").await["data"].clone();
    assert_eq!(
        credits,
        Settings::default().account.credits,
        "what fails costs nothing"
    );
    provider.settled().await;
    let mut codes = Vec::new();
    for called in hook.called() {
        let record = provider
            .get(&format!("veo/record-info?taskId={}", called.task_id()))
            .await;
        let (code, said) = (called.body["code"].as_u64().unwrap(), &record["data"]);
        assert!([400, 422, 500, 501].contains(&code), "{code}");
        assert_eq!(said["errorMessage"], called.body["msg"]);
        assert_eq!(said["successFlag"], if code == 501 { 3 } else { 2 });
        assert_eq!(said["response"], Value::Null);
        codes.push(code);
    }
    codes.sort_unstable();
    codes.dedup();
    assert!(codes.len() > 2, "more than one way to fail: {codes:?}");
}

#[tokio::test]
async fn trouble_is_the_same_for_everybody_until_it_is_over() {
    let provider = Provider::start(Provider::quick()).await;
    for (trouble, code) in [
        (Trouble::Maintenance, 455),
        (Trouble::TooManyRequests, 429),
        (Trouble::KeyRevoked, 401),
        (Trouble::Internal, 500),
    ] {
        provider.simulator.set_trouble(Some(trouble));
        assert_eq!(provider.get("chat/credit").await["code"], code, "{trouble:?}");
    }
    provider.simulator.set_trouble(Some(Trouble::Gateway));
    let page = Answer::of(provider.request(Method::GET, "chat/credit")).await;
    assert_eq!(page.status, 502);
    assert!(page.text().starts_with("<html>"), "{}", page.text());
    provider.simulator.set_trouble(None);
    assert_eq!(provider.get("chat/credit").await["code"], 200);
    let ledger = provider.simulator.ledger();
    assert_eq!(ledger.requests_to("chat/credit"), 6, "all are counted");
    assert_eq!(ledger.answers[&455], 1);
}

#[tokio::test]
async fn an_answer_can_get_lost_after_the_work_is_done() {
    let provider = Provider::start(Provider::quick()).await;
    for (trouble, tasks) in [(Trouble::Hang, 0), (Trouble::AnswersLost, 1)] {
        provider.simulator.set_trouble(Some(trouble));
        let request = provider
            .request(Method::POST, "veo/generate")
            .body("{\"prompt\": \"x\"}");
        let answer = request.timeout(Duration::from_millis(300)).send().await;
        assert!(answer.is_err_and(|error| error.is_timeout()), "{trouble:?}");
        assert_eq!(provider.simulator.ledger().tasks.len(), tasks, "{trouble:?}");
    }
}

#[tokio::test]
async fn whoever_watches_is_told_what_happens() {
    let hook = Hook::answering(&[]).await;
    let provider = Provider::start(Provider::quick()).await;
    let mut events = provider.simulator.events();
    let id = provider.generate(&json!({"callBackUrl": hook.url})).await;
    provider.settled().await;
    let mut words = Vec::new();
    while let Ok(event) = events.try_recv() {
        words.push(match event {
            Event::Accepted { task_id, .. } if task_id == id => "accepted",
            Event::Finished {
                task_id, code: 200, ..
            } if task_id == id => "finished",
            Event::Called {
                task_id,
                status: Some(200),
                attempt: 1,
                ..
            } if task_id == id => "called",
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(words, ["accepted", "finished", "called"]);
}

#[tokio::test]
async fn the_ledger_can_be_read_over_http() {
    let provider = Provider::start(Provider::quick()).await;
    let id = provider.generate(&json!({})).await;
    let settled = provider.settled().await;
    let url = format!("{}/_sim/ledger", provider.simulator.url());
    let ledger = Answer::of(client().get(url)).await.json();
    assert_eq!(ledger["tasks"][0]["task_id"], id);
    assert_eq!(ledger["requests"]["veo/generate"], 1);
    assert_eq!(ledger, serde_json::to_value(settled).unwrap());
}

#[tokio::test]
async fn a_task_of_the_simulator_ends_in_the_receiver_as_the_ledger_says() {
    let receiver = TestServer::start().await;
    let provider = Provider::start(Settings {
        results: 2,
        ..Provider::quick()
    })
    .await;
    let callback = format!("http://{}/callbacks/kie", receiver.addr);
    let id = provider
        .generate(&json!({"callBackUrl": callback, "aspect_ratio": "9:16"}))
        .await;
    let ledger = provider.settled().await;
    let task = receiver.wait_settled(&id).await;
    assert_eq!(task["media"], "stored");
    let stored: Vec<_> = task["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| {
            (
                file["role"].clone(),
                file["n"].clone(),
                file["sha256"].clone(),
                file["bytes"].clone(),
            )
        })
        .collect();
    let known: Vec<_> = ledger.tasks[0].parts[0]
        .files
        .iter()
        .map(|file| {
            (
                json!(file.role),
                json!(file.n),
                json!(file.sha256),
                json!(file.bytes),
            )
        })
        .collect();
    assert_eq!(stored, known);
}
/// What the program prints on its line of this event.
fn told(simulating: &Serving, event: &str) -> Value {
    let line = simulating.out.wait_for(&format!("\"event\":\"{event}\""));
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn the_program_simulates_until_it_is_interrupted_and_sums_up() {
    let program = Program::new();
    let hook = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(Hook::answering(&[]));
    let flags =
        "simulate --listen 127.0.0.1:0 --seed 7 --takes 50ms --json --submit 4 --every 10ms --callback-url";
    let words: Vec<&str> = flags.split(' ').chain([hook.url.as_str()]).collect();
    let mut simulating = program.start(&words);
    let listening = told(&simulating, "listening");
    assert_eq!(
        (&listening["seed"], &listening["key"]),
        (&json!(7), &json!("sim-key"))
    );
    assert_eq!(told(&simulating, "accepted")["family"], "veo");
    assert_eq!(told(&simulating, "finished")["code"], 200);
    assert_eq!(told(&simulating, "called")["status"], 200);
    // The third task is upgraded once it is there.
    simulating.out.wait_for("\"event\":\"called\",\"task_id\":\"");
    simulating
        .out
        .wait_for("\"kind\":\"4k\",\"index\":0,\"copy\":0,\"attempt\":1,\"status\":200");
    simulating.signal("INT");
    assert_eq!(simulating.wait(), Some(0), "{}", simulating.err.text());
    let ended = told(&simulating, "ended");
    assert_eq!(ended["tasks"], 4);
    assert_eq!(ended["callbacks"]["answered"], 5);
}

#[test]
fn the_program_says_where_it_is_and_how_a_server_finds_it() {
    let program = Program::new();
    let mut simulating = program.start(&["simulate", "--listen", "127.0.0.1:0", "--hmac-key", KEY]);
    let first = simulating.out.wait_for("simulated provider at http://127.0.0.1:");
    assert!(first.contains(", key sim-key, seed "), "{first}");
    simulating.out.wait_for("ledger at http://");
    let printed = simulating.out.text();
    let lines: Vec<&str> = printed.lines().filter(|line| line.starts_with("  ")).collect();
    let snippet = lines.join("\n");
    let config: reelhook::config::Config =
        toml::from_str(&snippet).unwrap_or_else(|error| panic!("{error}: {snippet}"));
    assert_eq!(config.sources["kie"].hmac_keys, [Secret::new(KEY)]);
    simulating.signal("TERM");
    assert_eq!(simulating.wait(), Some(0));
    simulating.out.wait_for("results succeeded");
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    let program = Program::new();
    for flags in [&["--drop", "2"][..], &["--submit", "3"], &["--takes", "soon"]] {
        let ended = program.run(&[&["simulate"], flags].concat());
        assert_eq!(ended.code, Some(2), "{flags:?}: {}", ended.err);
    }
}

#[test]
fn the_demo_shows_a_task_that_ends_well_and_leaves_nothing_behind() {
    let program = Program::new();
    let mut demo = program.start(&[
        "demo",
        "--listen",
        "127.0.0.1:0",
        "--seed",
        "5",
        "--every",
        "800ms",
    ]);
    let line = demo.out.wait_for("  data      ");
    let data_dir = line
        .split_whitespace()
        .nth(1)
        .expect("a path")
        .trim_end_matches(',')
        .to_owned();
    assert!(Path::new(&data_dir).join("reelhook.db").exists(), "{data_dir}");
    demo.out.wait_for("  stored  video  ");
    demo.signal("INT");
    assert_eq!(demo.wait(), Some(0), "{}", demo.err.text());
    demo.out.wait_for("succeeded, ");
    assert_eq!(demo.err.text(), "", "nothing went wrong on the way");
    assert!(!Path::new(&data_dir).exists(), "{data_dir} is left");
}

#[test]
fn the_demo_stays_on_this_machine_and_keeps_a_directory_that_was_named() {
    let program = Program::new();
    let ended = program.run(&["demo", "--listen", "0.0.0.0:0"]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.err.contains("--listen must be on this machine"),
        "{}",
        ended.err
    );
    let mut demo = program.start(&["demo", "--listen", "127.0.0.1:0", "--data-dir", "here"]);
    demo.out.wait_for("Ctrl-C ends it.");
    demo.signal("TERM");
    assert_eq!(demo.wait(), Some(0), "{}", demo.err.text());
    assert!(program.path().join("here/reelhook.db").exists());
}
