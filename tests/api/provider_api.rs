//! The client of the provider's API against the simulated provider: the two were written apart, by the same documents.

use std::time::Duration;

use bytes::Bytes;
use reelhook::clock::{Clock, parse_rfc3339};
use reelhook::config::Secret;
use reelhook::provider::{Event, OutcomeClass, Role, TaskId};
use reelhook::provider_api::{Answer, ApiError, Call, Class, Family, ProviderApi, RawAnswer, Settings};
use reelhook::simulate::{self, Faults, Trouble};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::Provider;

/// 2026-11-21T18:07:26Z
const NOW: i64 = 1_795_284_446_000;
const TAKES: Duration = Duration::from_secs(5);

fn settings(provider: &Provider) -> Settings {
    Settings {
        base: provider.simulator.url().parse().unwrap(),
        key: provider.simulator.key().clone(),
        queries_per_second: 1_000,
        submissions_per_10s: 1_000,
        timeout: Duration::from_secs(20),
    }
}

fn api(provider: &Provider) -> ProviderApi {
    ProviderApi::new(settings(provider), Clock::system()).unwrap()
}

/// A provider whose time stands still, that time, and its client.
async fn scene(change: impl FnOnce(&mut simulate::Settings)) -> (Provider, Clock, ProviderApi) {
    let clock = Clock::manual(NOW);
    let mut settings = Provider::quick();
    (settings.takes, settings.jitter) = (TAKES, 0.0);
    change(&mut settings);
    let provider = Provider::with_clock(settings, &clock).await;
    let api = api(&provider);
    (provider, clock, api)
}

async fn submit(api: &ProviderApi, path: &str, body: &Value) -> RawAnswer {
    let call = Call {
        method: Method::POST,
        path,
        query: None,
        body: body.to_string().into(),
        content_type: Some(&"application/json".parse().unwrap()),
    };
    api.pass(call).await.unwrap()
}

async fn submitted(api: &ProviderApi, path: &str, body: &Value) -> TaskId {
    let answer = submit(api, path, body).await;
    assert_eq!(answer.error(), None, "{}", answer.msg);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    body["data"]["taskId"].as_str().unwrap().parse().unwrap()
}

#[track_caller]
fn ended(answer: Result<Answer, ApiError>) -> (Event, Option<i64>, Bytes) {
    match answer {
        Ok(Answer::Ended {
            event,
            completed_at,
            body,
        }) => (event, completed_at, body),
        other => panic!("not ended: {other:?}"),
    }
}

#[track_caller]
fn assert_running(answer: &Result<Answer, ApiError>) {
    assert!(matches!(answer, Ok(Answer::Running { .. })), "{answer:?}");
}

#[tokio::test]
async fn a_task_of_either_family_is_followed_to_its_end() {
    let (_provider, clock, api) = scene(|_| {}).await;
    let veo = submitted(&api, "veo/generate", &json!({"prompt": "A red fox"})).await;
    let job = json!({"model": "veo-3-1", "input": {"prompt": "A red fox"}});
    let market = submitted(&api, "jobs/createTask", &job).await;
    for (family, id) in [(Family::Veo, &veo), (Family::Market, &market)] {
        assert_running(&api.record(family, id).await);
    }
    clock.advance(TAKES);
    for (family, id) in [(Family::Veo, &veo), (Family::Market, &market)] {
        let (event, completed_at, _) = ended(api.record(family, id).await);
        assert_eq!(event.class, OutcomeClass::Success);
        assert!(event.media.iter().any(|file| file.role == Role::Result));
        assert_eq!(event.prompt.as_deref(), Some("A red fox"));
        assert_eq!(completed_at, parse_rfc3339("2026-11-21T18:07:31Z"), "{family:?}");
    }
    let nobody: TaskId = "0123456789abcdef0123456789abcdef".parse().unwrap();
    for family in [Family::Veo, Family::Market] {
        let answer = api.record(family, &nobody).await;
        assert!(
            matches!(answer, Ok(Answer::Unknown { forever: false, .. })),
            "{answer:?}"
        );
    }
    clock.advance(Duration::from_hours(15 * 24));
    let answer = api.record(Family::Veo, &veo).await;
    assert!(
        matches!(answer, Ok(Answer::Unknown { forever: true, .. })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn an_extended_video_has_the_whole_film_too() {
    let (_provider, clock, api) = scene(|_| {}).await;
    let base = submitted(&api, "veo/generate", &json!({"prompt": "A red fox"})).await;
    clock.advance(TAKES);
    let more = json!({"taskId": base.as_str(), "prompt": "and then"});
    let longer = submitted(&api, "veo/extend", &more).await;
    clock.advance(TAKES);
    let (event, ..) = ended(api.record(Family::Veo, &longer).await);
    assert!(
        event.media.iter().any(|file| file.role == Role::Full),
        "{:?}",
        event.media
    );
}

#[tokio::test]
async fn a_failed_task_says_why() {
    let (_provider, clock, api) = scene(|settings| {
        settings.faults = Faults {
            fail: 1.0,
            ..Faults::default()
        };
    })
    .await;
    for (family, path) in [(Family::Veo, "veo/generate"), (Family::Market, "jobs/createTask")] {
        for _ in 0..8 {
            let body = json!({"prompt": "x", "model": "veo3", "input": {"prompt": "x"}});
            let id = submitted(&api, path, &body).await;
            clock.advance(TAKES);
            let (event, ..) = ended(api.record(family, &id).await);
            assert_eq!(event.class, OutcomeClass::Failure);
            assert!(event.failure.is_some() && !event.msg.is_empty() && event.msg != "success");
        }
    }
}

#[tokio::test]
async fn upgrades_links_and_the_balance_are_had() {
    let (provider, clock, api) = scene(|_| {}).await;
    let id = submitted(&api, "veo/generate", &json!({"prompt": "A red fox"})).await;
    clock.advance(TAKES);
    let before = api.credit().await.unwrap();
    assert_running(&api.get_4k_video(&id, 0).await);
    assert_running(&api.get_4k_video(&id, 0).await);
    let answer = api.get_1080p_video(&id, 0).await;
    assert_running(&answer);
    clock.advance(Duration::from_hours(1));
    for (answer, kind) in [
        (api.get_4k_video(&id, 0).await, Some("4k")),
        (api.get_1080p_video(&id, 0).await, None),
    ] {
        let (event, _, body) = ended(answer);
        assert_eq!(event.class, OutcomeClass::Success);
        assert_eq!(event.media[0].role, Role::Result);
        assert_eq!(
            event.kind_by_shape.as_ref().map(reelhook::provider::Kind::as_str),
            kind
        );
        assert!(String::from_utf8_lossy(&body).contains(&event.media[0].url));
        let fresh = api.download_url(&event.media[0].url).await.unwrap();
        assert_eq!(provider.file(&fresh, &[]).await.status, 200);
    }
    let spent = before - api.credit().await.unwrap();
    assert!(spent > 0.0, "one upgrade was paid for, once: {spent}");
    let foreign = api
        .download_url("https://elsewhere.example/a.mp4")
        .await
        .unwrap_err();
    assert_eq!(foreign.class(), Class::Final);
}

#[tokio::test]
async fn a_wrong_key_and_an_empty_account_are_told_apart() {
    let (provider, _clock, api) = scene(|_| {}).await;
    let mut wrong = settings(&provider);
    wrong.key = Secret::new("another-key");
    let stranger = ProviderApi::new(wrong, Clock::system()).unwrap();
    assert_eq!(stranger.credit().await.unwrap_err().class(), Class::Auth);
    provider.simulator.set_credits(0.0);
    let answer = submit(&api, "veo/generate", &json!({"prompt": "x"})).await;
    assert_eq!(answer.error().unwrap().class(), Class::Credits);
    assert_eq!(api.credit().await, Ok(0.0));
}

#[tokio::test]
async fn the_limits_of_the_account_are_never_met() {
    let provider = Provider::start(simulate::Settings {
        account: simulate::Account {
            submissions: Some(20),
            queries: Some(10),
            ..simulate::Account::default()
        },
        ..Provider::quick()
    })
    .await;
    let mut as_documented = settings(&provider);
    (
        as_documented.queries_per_second,
        as_documented.submissions_per_10s,
    ) = (10, 20);
    let api = ProviderApi::new(as_documented, Clock::system()).unwrap();
    let questions = futures_util::future::join_all((0..31).map(|_| api.credit()));
    let prompt = json!({"prompt": "x"});
    let orders = futures_util::future::join_all((0..20).map(|_| submit(&api, "veo/generate", &prompt)));
    let (questions, orders) = tokio::join!(questions, orders);
    assert!(questions.iter().all(Result::is_ok), "{questions:?}");
    assert!(orders.iter().all(|answer| answer.error().is_none()));
    assert_eq!(provider.simulator.ledger().answers.get(&429), None);
}

#[tokio::test]
async fn each_trouble_has_its_class_and_asking_on_makes_no_hot_loop() {
    for (trouble, class, sent, most) in [
        (Trouble::Maintenance, Class::Maintenance, false, 1),
        (Trouble::TooManyRequests, Class::Wait, false, 1),
        (Trouble::KeyRevoked, Class::Auth, false, 1),
        (Trouble::Gateway, Class::Retry, true, 5),
        (Trouble::Hang, Class::Retry, true, 5),
        (Trouble::AnswersLost, Class::Retry, true, 5),
    ] {
        let (provider, _clock, _) = scene(|_| {}).await;
        let mut hasty = settings(&provider);
        hasty.timeout = Duration::from_millis(300);
        let api = ProviderApi::new(hasty, Clock::system()).unwrap();
        provider.simulator.set_trouble(Some(trouble));
        let id: TaskId = "t1".parse().unwrap();
        let first = api.record(Family::Veo, &id).await.unwrap_err();
        assert_eq!(
            (first.class(), first.may_have_arrived()),
            (class, sent),
            "{trouble:?}: {first}"
        );
        // Nobody takes so many questions in so short a time, unless most are refused unsent.
        for _ in 0..500 {
            let error = api.record(Family::Veo, &id).await.unwrap_err();
            assert_eq!(error.class(), class, "{trouble:?}: {error}");
        }
        let asked = provider.simulator.ledger().requests_to("veo/record-info");
        assert!(
            (1..=2 * most).contains(&asked),
            "{trouble:?}: asked {asked} times"
        );
        let pause = api.pause().unwrap();
        assert_eq!(pause.class, class, "{trouble:?}");
        assert!(!pause.detail.contains(provider.simulator.key().expose()));
    }
}
