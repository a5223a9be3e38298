//! The client against a real HTTP server on loopback.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderValue, Method, StatusCode};
use tokio::time::{Instant, timeout};

use super::*;
use server::{KEY, Provider, Reply, settings};

mod reading;
mod server;

fn task() -> TaskId {
    "t1".parse().unwrap()
}

fn submission(path: &str) -> Call<'_> {
    Call {
        method: Method::POST,
        path,
        query: None,
        body: Bytes::from_static(br#"{"prompt":"a dog"}"#),
        content_type: None,
    }
}

async fn record(api: &ProviderApi) -> Result<Answer, ApiError> {
    api.record(Family::Veo, &task()).await
}

/// Asks until it is refused unsent; the errors before that.
async fn ask_until_paused(api: &ProviderApi) -> Vec<ApiError> {
    let mut errors = Vec::new();
    loop {
        match record(api).await.unwrap_err() {
            ApiError::Paused { .. } => return errors,
            error => errors.push(error),
        }
        assert!(errors.len() < 100, "nothing ever pauses: {errors:?}");
    }
}

#[tokio::test]
async fn each_question_goes_to_its_endpoint_with_the_key() {
    let provider = Provider::always(Reply::code(500)).await;
    let api = provider.api_with(|settings| settings.base.set_path("/proxy/"));
    let odd: TaskId = "a*b:c~d".parse().unwrap();
    drop(api.record(Family::Veo, &odd).await);
    drop(api.record(Family::Market, &task()).await);
    drop(api.get_4k_video(&task(), 2).await);
    drop(api.get_1080p_video(&task(), 1).await);
    drop(api.download_url("https://x/1?a=b").await);
    drop(api.credit().await);
    let asked = provider.asked();
    for (request, line) in asked.iter().zip([
        "GET /proxy/api/v1/veo/record-info?taskId=a*b%3Ac%7Ed HTTP/1.1",
        "GET /proxy/api/v1/jobs/recordInfo?taskId=t1 HTTP/1.1",
        "POST /proxy/api/v1/veo/get-4k-video HTTP/1.1",
        "GET /proxy/api/v1/veo/get-1080p-video?taskId=t1&index=1 HTTP/1.1",
        "POST /proxy/api/v1/common/download-url HTTP/1.1",
        "GET /proxy/api/v1/chat/credit HTTP/1.1",
    ]) {
        assert_eq!(request.lines().next(), Some(line));
        assert!(request.contains(&format!("authorization: Bearer {KEY}\r\n")));
        assert!(request.contains(concat!(
            "user-agent: reelhook/",
            env!("CARGO_PKG_VERSION"),
            "\r\n"
        )));
    }
    assert_eq!(asked.len(), 6);
    assert!(asked[2].ends_with(r#"{"index":2,"taskId":"t1"}"#), "{}", asked[2]);
    assert!(asked[4].ends_with(r#"{"url":"https://x/1?a=b"}"#), "{}", asked[4]);
    assert!(asked[4].contains("content-type: application/json\r\n"));
}

#[tokio::test]
async fn every_code_of_an_answer_has_its_class() {
    use Class::{Auth, Credits, Final, Maintenance, Retry, Wait};
    for (code, class, word, arrived) in [
        (400, Final, "refused", false),
        (401, Auth, "unauthorized", false),
        (402, Credits, "no_credits", false),
        (404, Final, "not_found", false),
        (408, Retry, "provider_failed", true),
        (422, Final, "refused", false),
        (429, Wait, "rate_limited", false),
        (433, Credits, "key_limit", false),
        (451, Final, "refused", false),
        (455, Maintenance, "maintenance", false),
        (500, Retry, "provider_failed", true),
        (501, Retry, "provider_failed", false),
        (505, Maintenance, "disabled", false),
    ] {
        let provider = Provider::always(Reply::code(code)).await;
        let api = provider.api();
        let answer = api.pass(submission("veo/generate")).await.unwrap();
        assert_eq!((answer.status, answer.code), (StatusCode::OK, Some(code)));
        let error = answer.error().unwrap();
        assert_eq!((error.class(), error.code()), (class, word), "{code}");
        assert_eq!(error.may_have_arrived(), arrived, "{code}");
        assert_eq!(api.pause().is_some(), !matches!(class, Retry | Final), "{code}");
        assert_eq!(error.retry_after().is_some(), api.pause().is_some(), "{code}");
        let balance = provider.api().credit().await.unwrap_err();
        assert_eq!((balance.class(), balance.code()), (class, word), "{code}");
    }
}

#[tokio::test]
async fn a_request_passed_on_comes_back_as_it_was_answered() {
    let body = r#"{"code":200, "msg":"success","data":{"taskId":"veo_task_1"}}"#;
    let provider = Provider::always(Reply::json(body)).await;
    let answer = provider
        .api()
        .pass(Call {
            query: Some("a=b%20c"),
            content_type: Some(&HeaderValue::from_static("application/json; charset=utf-8")),
            ..submission("veo/generate")
        })
        .await
        .unwrap();
    assert_eq!(answer.body, body.as_bytes());
    assert_eq!(answer.content_type.unwrap(), "application/json;charset=UTF-8");
    let asked = provider.asked().remove(0);
    assert!(
        asked.starts_with("POST /api/v1/veo/generate?a=b%20c HTTP/1.1\r\n"),
        "{asked}"
    );
    assert!(
        asked.contains("content-type: application/json; charset=utf-8\r\n"),
        "{asked}"
    );
    assert!(asked.ends_with(r#"{"prompt":"a dog"}"#), "{asked}");
}

#[tokio::test]
async fn a_path_leads_nowhere_else() {
    let provider = Provider::always(Reply::code(200)).await;
    for path in [
        "",
        "/",
        "../x",
        "veo/../../x",
        "veo//x",
        "veo/%2e%2e/x",
        "veo?x",
        "veo#x",
        "veo\\x",
        "./veo",
        "veo/",
        "a b",
    ] {
        let error = provider.api().pass(submission(path)).await.unwrap_err();
        assert!(matches!(error, ApiError::Unfit { .. }), "{path}: {error:?}");
        assert!(!error.may_have_arrived());
    }
    assert_eq!(provider.asked().len(), 0);
}

#[tokio::test]
async fn what_is_not_the_apis_voice_is_to_be_asked_again() {
    let html = "<html><body>502 Bad Gateway</body></html>";
    let json = "content-type: application/json\r\n";
    let huge = format!("HTTP/1.1 200 X\r\n{json}content-length: {}\r\n\r\n", 5 << 20);
    let endless = [
        b"HTTP/1.1 200 X\r\nconnection: close\r\n\r\n{\"msg\":\"".as_slice(),
        &vec![b'a'; 5 << 20],
    ];
    for (reply, code, said) in [
        (
            Reply::whole(502, "content-type: text/html\r\n", html),
            "provider_gateway",
            "HTML (502)",
        ),
        (Reply::whole(200, json, html), "provider_gateway", "HTML (200)"),
        (Reply::whole(504, "", ""), "provider_gateway", "nothing (504)"),
        (Reply::whole(200, json, " "), "provider_gateway", "nothing (200)"),
        (
            Reply::whole(403, "", "error code: 1020"),
            "provider_gateway",
            "no JSON (403)",
        ),
        (
            Reply::whole(503, json, r#"{"error":"x"}"#),
            "provider_gateway",
            "without a code (503)",
        ),
        (
            Reply::whole(200, json, "[1]"),
            "provider_garbled",
            "no JSON object",
        ),
        (
            Reply::whole(200, json, r#"{"code":200,"da"#),
            "provider_garbled",
            "no JSON object",
        ),
        (
            Reply::whole(200, json, "{}"),
            "provider_garbled",
            "neither a code nor a record",
        ),
        (
            Reply::Bytes(huge.into_bytes()),
            "provider_garbled",
            "larger than 4 MiB",
        ),
        (
            Reply::Bytes(endless.concat()),
            "provider_garbled",
            "larger than 4 MiB",
        ),
    ] {
        let provider = Provider::always(reply).await;
        let error = record(&provider.api()).await.unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Retry, code), "{error}");
        assert!(error.to_string().contains(said), "{error}");
        assert!(error.may_have_arrived(), "{error}");
        assert_eq!(provider.asked().len(), 1, "{error}");
    }
}

#[tokio::test]
async fn an_answer_counts_whatever_its_type_is_called() {
    let body = r#"{"code":200,"msg":"ok","data":{"taskId":"t1","successFlag":0}}"#;
    let provider = Provider::always(Reply::whole(200, "content-type: text/plain\r\n", body)).await;
    assert!(matches!(
        record(&provider.api()).await,
        Ok(Answer::Running { .. })
    ));
}

#[tokio::test]
async fn a_gateway_may_refuse_the_key_or_the_pace_without_words() {
    for (status, class) in [(401, Class::Auth), (429, Class::Wait)] {
        let provider = Provider::always(Reply::whole(status, "retry-after: 90\r\n", "<html>")).await;
        let api = provider.api();
        let error = record(&api).await.unwrap_err();
        assert_eq!(error.class(), class);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(90)));
        assert_eq!(api.pause().unwrap().class, class);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_gets_no_key() {
    let elsewhere = Provider::always(Reply::code(200)).await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("location: {}\r\n", elsewhere.base);
        let provider = Provider::always(Reply::whole(status, &location, "")).await;
        let error = record(&provider.api()).await.unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Retry, "provider_gateway"));
        assert!(
            error.to_string().contains("a redirect") && error.to_string().contains("api_url"),
            "{error}"
        );
    }
    assert_eq!(elsewhere.asked().len(), 0);
}

#[tokio::test]
async fn a_slow_provider_is_waited_for_only_so_long() {
    let head = b"HTTP/1.1 200 X\r\ncontent-length: 50\r\n\r\n{\"code\":200,".to_vec();
    for reply in [Reply::Stall(Vec::new()), Reply::Stall(head)] {
        let provider = Provider::always(reply).await;
        let api = provider.api_with(|settings| settings.timeout = Duration::from_millis(200));
        let error = timeout(Duration::from_secs(10), record(&api))
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Retry, "provider_slow"));
        assert!(error.may_have_arrived());
        assert_eq!(provider.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_question_is_sent_again_once_and_a_submission_never() {
    let cut = b"HTTP/1.1 200 X\r\ncontent-length: 50\r\n\r\n{\"code\":200,".to_vec();
    for reply in [Reply::Cut, Reply::Bytes(cut)] {
        let provider = Provider::always(reply.clone()).await;
        let error = record(&provider.api()).await.unwrap_err();
        assert_eq!(
            (error.class(), error.code()),
            (Class::Retry, "provider_unreachable")
        );
        assert_eq!(provider.asked().len(), 2);

        let provider = Provider::always(reply.clone()).await;
        let error = provider.api().pass(submission("veo/generate")).await.unwrap_err();
        assert!(error.may_have_arrived(), "{error}");
        assert_eq!(provider.asked().len(), 1);

        let provider = Provider::always(reply).await;
        assert!(provider.api().get_4k_video(&task(), 0).await.is_err());
        assert_eq!(provider.asked().len(), 1);
    }
}

#[tokio::test]
async fn the_second_try_may_bring_the_answer() {
    let running = r#"{"code":200,"msg":"ok","data":{"taskId":"t1","successFlag":0}}"#;
    let provider = Provider::start(move |n| if n == 0 { Reply::Cut } else { Reply::json(running) }).await;
    assert!(matches!(
        record(&provider.api()).await,
        Ok(Answer::Running { .. })
    ));
}

#[tokio::test]
async fn a_name_that_is_gone_and_a_closed_port_took_nothing() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    for base in [
        "http://api.provider.invalid".to_owned(),
        format!("http://127.0.0.1:{port}"),
    ] {
        let base: Url = base.parse().unwrap();
        let api = ProviderApi::new(settings(base.clone()), Clock::system()).unwrap();
        let error = api.pass(submission("veo/generate")).await.unwrap_err();
        assert_eq!(
            (error.class(), error.code()),
            (Class::Retry, "provider_unreachable")
        );
        assert!(!error.may_have_arrived(), "{error}");
        assert!(error.to_string().contains(base.host_str().unwrap()), "{error}");
    }
}

#[tokio::test]
async fn a_provider_that_is_gone_is_soon_left_alone() {
    let provider = Provider::always(Reply::whole(502, "", "<html>")).await;
    let api = provider.api();
    assert_eq!(ask_until_paused(&api).await.len(), 5);
    for _ in 0..1_000 {
        let error = record(&api).await.unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Retry, "provider_gateway"));
        assert!(!error.may_have_arrived() && error.retry_after().is_some());
    }
    assert_eq!(provider.asked().len(), 5);
}

#[tokio::test]
async fn a_refused_key_is_tried_once_however_often_it_is_asked_for() {
    let provider = Provider::always(Reply::code(401)).await;
    let api = provider.api();
    assert_eq!(ask_until_paused(&api).await.len(), 1);
    let clones: Vec<ProviderApi> = (0..50).map(|_| api.clone()).collect();
    for error in join_all(clones.iter().map(record)).await {
        assert_eq!(error.unwrap_err().class(), Class::Auth);
    }
    let error = api.pass(submission("veo/generate")).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Auth, "unauthorized"));
    assert!(error.retry_after().unwrap() > Duration::from_secs(30));
    assert!(error.to_string().contains("api_key"), "{error}");
    assert_eq!(provider.asked().len(), 1);
}

#[tokio::test]
async fn too_many_questions_make_everybody_wait_and_then_go_on() {
    let running = r#"{"code":200,"msg":"ok","data":{"taskId":"t1","successFlag":0}}"#;
    let limited = Reply::whole(429, "retry-after: 1\r\n", r#"{"code":429,"msg":"slow down"}"#);
    let provider = Provider::start(move |n| {
        if n == 0 {
            limited.clone()
        } else {
            Reply::json(running)
        }
    })
    .await;
    let api = provider.api();
    let began = Instant::now();
    let first = record(&api).await.unwrap_err();
    assert_eq!((first.class(), first.code()), (Class::Wait, "rate_limited"));
    assert!(first.retry_after().unwrap() >= Duration::from_secs(1));
    for _ in 0..100 {
        let refused = api.clone().pass(submission("veo/generate")).await.unwrap_err();
        assert_eq!(refused.class(), Class::Wait);
    }
    assert_eq!(provider.asked().len(), 1);
    while let Err(error) = record(&api).await {
        tokio::time::sleep(error.retry_after().unwrap()).await;
    }
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(provider.asked().len(), 2);
    assert_eq!(api.pause(), None);
}

#[tokio::test]
async fn questions_and_submissions_keep_within_their_own_limits() {
    let provider = Provider::always(Reply::code(422)).await;
    let api = provider.api_with(|settings| {
        settings.queries_per_second = 5;
        settings.submissions_per_10s = 3;
        settings.timeout = Duration::from_secs(2);
    });
    let orders = join_all((0..10).map(|_| api.pass(submission("veo/generate"))));
    let questions = join_all((0..10).map(|_| api.credit()));
    let (orders, questions) = tokio::join!(orders, questions);
    let questions_came = provider.arrivals("GET");
    for six in questions_came.windows(6) {
        assert!(six[5] - six[0] >= Duration::from_secs(1), "{six:?}");
    }
    assert_eq!((questions_came.len(), provider.arrivals("POST").len()), (10, 3));
    assert!(
        questions
            .iter()
            .all(|answer| matches!(answer, Err(ApiError::Said { code: 422, .. })))
    );
    let sent = orders.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(sent, 3, "in two seconds");
    for error in orders.into_iter().filter_map(Result::err) {
        assert!(matches!(error, ApiError::Busy { .. }), "{error:?}");
        assert_eq!((error.class(), error.may_have_arrived()), (Class::Wait, false));
    }
}

#[tokio::test]
async fn the_key_shows_nowhere() {
    let echo = Reply::json(&format!(r#"{{"code":401,"msg":"bad key {KEY}"}}"#));
    let provider = Provider::always(echo).await;
    let api = provider.api();
    let errors = [record(&api).await.unwrap_err(), record(&api).await.unwrap_err()];
    let answer = provider.api().pass(submission("veo/generate")).await.unwrap();
    let shown = format!(
        "{api:?} {:?} {errors:?} {} {} {:?} {} {:?}",
        settings(provider.base.clone()),
        errors[0],
        errors[1],
        api.pause(),
        answer.msg,
        answer.error()
    );
    assert!(
        shown.contains("bad key [redacted]") && !shown.contains(KEY),
        "{shown}"
    );
}

#[test]
fn settings_that_cannot_work_are_refused_with_what_to_change() {
    let good: Url = "http://127.0.0.1:1".parse().unwrap();
    let mut bad_key = settings(good);
    bad_key.key = Secret::new("line\nbreak");
    for (settings, named) in [
        (settings("mailto:a@b".parse().unwrap()), "api_url"),
        (bad_key, "api_key"),
    ] {
        let error = ProviderApi::new(settings, Clock::system()).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
        assert!(!error.to_string().contains("line"), "{error}");
    }
}

#[test]
fn families_go_by_the_names_people_give() {
    for (name, family) in [
        ("veo", Family::Veo),
        ("Market", Family::Market),
        ("jobs", Family::Market),
    ] {
        assert_eq!(name.parse(), Ok(family));
        assert_eq!(family.as_str().parse(), Ok(family));
    }
    assert_eq!("suno".parse::<Family>(), Err(UnknownFamily));
}
