//! What a callback is refused for, in which order, and what of it is kept.

use std::time::Duration;

use reelhook::clock::Clock;
use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, KEY, Raw, Setup, TOKEN, TestServer, failure, gzip, until};

const NOW: i64 = 1_795_284_446;

/// A source that wants all there is to want, on a server of little patience.
const STRICT: &str = "
    [ingest]
    max_body = \"1KiB\"
    [sources.kie]
    hmac_keys = [\"test-webhook-hmac-key\"]
    tokens = [\"token-of-the-callback-url_0123456789\"]";

async fn strict() -> TestServer {
    Setup::new(STRICT).clock(&Clock::manual(NOW * 1000)).start().await
}

/// A request to `/callbacks/`: rest of the path, body, and the timestamp that a good key or a bad one signs.
type Wrong<'a> = (&'a str, String, Option<(i64, &'a str)>);

async fn outcome(server: &TestServer, (rest, body, signed): Wrong<'_>) -> (u16, String) {
    let call = server.callback_of(rest, body, "t1");
    let call = match signed {
        Some((timestamp, key)) => call.signed_at(key, timestamp),
        None => call,
    };
    call.send().await.problem()
}

#[tokio::test]
async fn of_several_faults_the_first_in_the_documented_order_is_given() {
    let server = strict().await;
    let (token, bad) = (format!("kie?token={TOKEN}&"), "kie?token=of-nobody&kind=A/B");
    let query = format!("{token}kind=A/B&index=x");
    let (old, other) = (Some((NOW - 301, "another key")), Some((NOW, "another key")));
    let large = "x".repeat(2000);
    let junk = "{\"code\":".to_owned();
    let differ = json!({"taskId": "a/b", "task_id": "c"}).to_string();
    let twice = r#"{"code":1,"code":2,"taskId":"a/b"}"#.to_owned();
    let good = failure("t1").to_string();
    // Each cures the first fault of the one before it and keeps the others.
    let ladder: [(Wrong<'_>, u16, &str); 13] = [
        (("nobody?kind=A/B", large.clone(), None), 404, "unknown_source"),
        (("kie?kind=A/B", large, None), 413, "too_large"),
        (("kie?kind=A/B", junk.clone(), None), 401, "missing_token"),
        ((bad, junk.clone(), None), 401, "bad_token"),
        ((&query, junk.clone(), None), 401, "missing_signature"),
        ((&query, junk.clone(), old), 400, "bad_query"),
        ((&token, junk, old), 400, "not_json"),
        (
            (&token, "{\"code\":1,\"code\":2}".to_owned(), old),
            400,
            "no_task_id",
        ),
        ((&token, differ, old), 400, "task_ids_differ"),
        ((&token, twice, old), 400, "duplicate_key"),
        (
            (&token, "{\"taskId\":\"a/b\"}".to_owned(), old),
            400,
            "bad_task_id",
        ),
        ((&token, good.clone(), old), 401, "stale"),
        ((&token, good.clone(), other), 401, "bad_signature"),
    ];
    for (wrong, status, reason) in ladder.clone() {
        assert_eq!(outcome(&server, wrong).await, (status, reason.to_owned()));
    }
    server
        .callback_of(&token, good, "t1")
        .signed(KEY)
        .send()
        .await
        .taken();

    let recorded: Vec<String> = server
        .deliveries("rejected")
        .await
        .into_iter()
        .map(|(_, reason)| reason)
        .collect();
    let expected: Vec<&str> = ladder
        .iter()
        .filter(|(_, status, _)| matches!(status, 400 | 401))
        .map(|(_, _, reason)| *reason)
        .collect();
    assert_eq!(recorded, expected, "400s and 401s are recorded, and nothing else");
}

#[tokio::test]
async fn a_body_is_unpacked_only_for_a_good_token_and_query() {
    let server = strict().await;
    let bomb = gzip(&vec![b' '; 100_000]);
    let send = |rest: String| server.callback_of(&rest, bomb.clone(), "t1").signed(KEY).send();
    for (query, refused) in [
        ("", (401, "missing_token")),
        (&*format!("?token={TOKEN}&kind=A/B"), (400, "bad_query")),
        (&*format!("?token={TOKEN}"), (413, "too_large")),
    ] {
        let (status, reason) = send(format!("kie{query}")).await.problem();
        assert_eq!((status, &*reason), refused, "{query}");
    }
}

#[tokio::test]
async fn a_callback_is_not_asked_for_a_bearer_token() {
    let server = strict().await;
    let answer = server.callback(&failure("t1")).send().await;
    assert_eq!(answer.problem(), (401, "missing_token".to_owned()));
    assert_eq!(answer.header("www-authenticate"), "");
}

#[tokio::test]
async fn another_method_is_refused_after_the_source_and_before_the_rest() {
    let server = strict().await;
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let known = Answer::of(server.bare(method.clone(), "/callbacks/kie")).await;
        assert_eq!(known.problem(), (405, "method_not_allowed".to_owned()));
        for source in ["nobody", "%FF"] {
            let path = format!("/callbacks/{source}");
            let unknown = Answer::of(server.bare(method.clone(), &path)).await;
            assert_eq!(unknown.problem(), (404, "unknown_source".to_owned()), "{path}");
        }
    }
}

#[tokio::test]
async fn a_body_is_too_large_by_its_length_by_its_chunks_and_unpacked() {
    let server = TestServer::with("ingest.max_body = \"64KiB\"").await;
    let mut announced = Raw::post(server.addr, "content-length: 9000000000").await;
    let answer = announced.answer().await;
    assert!(
        answer.starts_with("HTTP/1.1 413 "),
        "before a byte of it came: {answer}"
    );
    assert!(
        answer.contains("too_large") && answer.contains("connection: close"),
        "{answer}"
    );

    let mut chunked = Raw::post(server.addr, "transfer-encoding: chunked").await;
    let chunk = format!("{:x}\r\n{}\r\n", 8192, "x".repeat(8192));
    for _ in 0..9 {
        chunked.send(chunk.as_bytes()).await;
    }
    let answer = chunked.answer().await;
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && answer.contains("too_large"),
        "{answer}"
    );

    let bomb = gzip(&vec![b' '; 10_000_000]);
    assert!(bomb.len() < 64 * 1024);
    let answer = server.callback_of("kie", bomb, "").send().await;
    assert_eq!(answer.problem(), (413, "too_large".to_owned()));
    assert_eq!(server.number("SELECT count(*) FROM deliveries").await, 0);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_too_slow() {
    let server = TestServer::with("ingest.body_timeout = \"100ms\"").await;
    let mut raw = Raw::post(server.addr, "content-length: 100").await;
    raw.send(b"{\"code\":").await;
    let answer = raw.answer().await;
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("too_slow"),
        "{answer}"
    );
    assert_eq!(server.number("SELECT count(*) FROM deliveries").await, 0);
}

#[tokio::test]
async fn a_head_that_does_not_arrive_ends_the_connection() {
    let server = TestServer::with("ingest.header_timeout = \"100ms\"").await;
    let mut raw = Raw::open(server.addr).await;
    raw.send(b"POST /callbacks/kie HTTP/1.1\r\nhost: ").await;
    let answer = raw.answer().await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 408 "),
        "{answer}"
    );
}

#[tokio::test]
async fn bodies_beyond_the_bound_of_all_together_are_told_to_come_back() {
    let server = TestServer::with("ingest.max_body = \"8KiB\"\ningest.max_inflight = \"8KiB\"").await;
    let body = format!("{}{}", failure("held"), " ".repeat(7000));
    let (most, rest) = body.split_at(body.len() - 10);
    let other = format!("{}{}", failure("other"), " ".repeat(2000));
    let busy = until("a body holds the room that another one needs", || async {
        let mut held = Raw::post(server.addr, &format!("content-length: {}", body.len())).await;
        held.send(most.as_bytes()).await;
        let answer = server.callback_of("kie", other.clone(), "other").send().await;
        held.send(rest.as_bytes()).await;
        // Whichever was read first has the room.
        let held = held.answer().await;
        (answer.status == 503 && held.starts_with("HTTP/1.1 200 ")).then_some(answer)
    })
    .await;
    assert_eq!(
        (busy.problem().1.as_str(), busy.header("retry-after")),
        ("busy", "1")
    );
    let other = server.callback_of("kie", other, "other").send().await;
    other.taken();
}

#[tokio::test]
async fn a_body_in_tiny_chunks_takes_no_more_room_than_its_bytes() {
    let server = TestServer::with("ingest.max_body = \"8KiB\"\ningest.max_inflight = \"8KiB\"").await;
    let body = failure("t1").to_string();
    let chunks: Vec<_> = body.chars().map(|byte| format!("1\r\n{byte}\r\n")).collect();
    let mut raw = Raw::post(server.addr, "transfer-encoding: chunked").await;
    raw.send(format!("{}0\r\n\r\n", chunks.concat()).as_bytes()).await;
    let answer = raw.answer().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_timestamp_may_be_off_by_the_tolerance_in_both_directions() {
    let server = Setup::new(&format!(
        "[sources.kie]\nhmac_keys = [\"{KEY}\"]\ntimestamp_tolerance = \"2m\""
    ))
    .clock(&Clock::manual(NOW * 1000))
    .start()
    .await;
    for (off, status) in [(-121, 401), (-120, 200), (0, 200), (120, 200), (121, 401)] {
        let body = failure(&format!("t{off}"));
        let answer = server.callback(&body).signed_at(KEY, NOW + off).send().await;
        assert_eq!(answer.status.as_u16(), status, "{off} s");
        if status == 401 {
            assert_eq!(answer.problem().1, "stale");
        }
    }
}

#[tokio::test]
async fn the_tolerance_goes_by_the_clock() {
    let clock = Clock::manual(NOW * 1000);
    let server = Setup::new(&format!("[sources.kie]\nhmac_keys = [\"{KEY}\"]"))
        .clock(&clock)
        .start()
        .await;
    let body = failure("t1");
    server.callback(&body).signed_at(KEY, NOW).send().await.taken();
    clock.advance(Duration::from_mins(5));
    server.callback(&body).signed_at(KEY, NOW).send().await.taken();
    clock.advance(Duration::from_millis(1));
    let late = server.callback(&body).signed_at(KEY, NOW).send().await;
    assert_eq!(late.problem(), (401, "stale".to_owned()));
}

#[tokio::test]
async fn every_configured_key_and_token_is_good_and_no_other() {
    let second = "another-token-in-the-url-0123456789";
    let server = TestServer::with(&format!(
        "[sources.kie]\nhmac_keys = [\"old key\", \"new key\"]\ntokens = [\"{TOKEN}\", \"{second}\"]"
    ))
    .await;
    for (token, key, expected) in [
        (TOKEN, "old key", 200),
        (second, "new key", 200),
        (TOKEN, "older key", 401),
        (&TOKEN[1..], "new key", 401),
    ] {
        let body = failure(&format!("{}-{expected}", key.replace(' ', "-")));
        let answer = server
            .callback_to(&format!("kie?token={token}"), &body)
            .signed(key)
            .send()
            .await;
        assert_eq!(answer.status.as_u16(), expected, "{token} {key}");
    }
}

#[tokio::test]
async fn half_a_signature_is_none() {
    let server = strict().await;
    for (name, value) in [
        ("x-webhook-timestamp", "1795284446"),
        ("x-webhook-signature", "AAAA"),
    ] {
        let call = server.callback_to(&format!("kie?token={TOKEN}"), &failure("t1"));
        let answer = call.header(name, value).send().await;
        assert_eq!(answer.problem(), (401, "missing_signature".to_owned()), "{name}");
        assert_eq!(answer.header("www-authenticate"), "");
    }
}

#[tokio::test]
async fn what_senders_get_wrong_harmlessly_is_tolerated() {
    let server = TestServer::start().await;
    let numeric = |id: &str| format!("{{\"code\":501,\"data\":{{\"taskId\":{id}}}}}");
    let bodies: [(&str, &str, Vec<u8>); 6] = [
        (
            "bom",
            "application/json",
            format!("\u{feff}{}", failure("bom")).into_bytes(),
        ),
        (
            "packed",
            "application/json",
            gzip(failure("packed").to_string().as_bytes()),
        ),
        (
            "typed",
            "text/html; charset=latin1",
            failure("typed").to_string().into_bytes(),
        ),
        (
            "odd",
            "not a type at all",
            failure("odd").to_string().into_bytes(),
        ),
        (
            "9007199254740993123",
            "application/json",
            numeric("9007199254740993123").into_bytes(),
        ),
        (
            "1.50",
            "application/x-www-form-urlencoded",
            numeric("1.50").into_bytes(),
        ),
    ];
    for (id, content_type, body) in bodies {
        let call = server
            .callback_of("kie", body, id)
            .header("content-type", content_type);
        call.send().await.taken();
        assert_eq!(
            server.task(id).await["task_id"],
            id,
            "a number by its source text"
        );
    }
    let page = server.get("/v1/tasks/packed/deliveries").await.fine();
    assert_eq!(
        page["deliveries"][0]["body"],
        failure("packed").to_string(),
        "a packed body is shown unpacked"
    );
}

#[tokio::test]
async fn a_rejected_delivery_keeps_what_a_person_needs_to_find_the_fault() {
    let server = strict().await;
    let body = failure("t1");
    let call = server.callback_to(&format!("kie?token={TOKEN}"), &body);
    call.signed_at("another key", NOW)
        .header("cookie", "session=secret")
        .header("user-agent", "kie/1")
        .send()
        .await;
    let page = server.get("/v1/deliveries?verdict=rejected").await.fine();
    let delivery = &page["deliveries"][0];
    assert_eq!(
        (&delivery["reason"], &delivery["task_id"], &delivery["body"]),
        (&json!("bad_signature"), &json!("t1"), &json!(body.to_string()))
    );
    assert_eq!(delivery["remote_addr"], "127.0.0.1");
    assert_eq!(delivery["headers"]["user-agent"], "kie/1");
    assert!(
        delivery["headers"]["cookie"].is_null(),
        "only listed headers are kept"
    );
}
