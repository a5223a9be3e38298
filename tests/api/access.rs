//! Who is let in, and what nobody is ever shown.

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Answer, Cdn, KEY, Reply, TOKEN, TestServer, failure, gzip, mp4, success};

const API_TOKEN: &str = "token-of-the-api-0123456789-abcdef";

/// Every route that tells or changes something.
const ROUTES: [(Method, &str); 17] = [
    (Method::GET, "/v1/tasks"),
    (Method::POST, "/v1/tasks"),
    (Method::GET, "/v1/tasks/t1"),
    (Method::DELETE, "/v1/tasks/t1"),
    (Method::GET, "/v1/tasks/t1/deliveries"),
    (Method::POST, "/v1/tasks/t1/retry"),
    (Method::GET, "/v1/tasks/t1/files/result-0.mp4"),
    (Method::GET, "/v1/deliveries"),
    (Method::GET, "/v1/deliveries/1"),
    (Method::POST, "/v1/deliveries/1/accept"),
    (Method::GET, "/v1/stats"),
    (Method::GET, "/v1/events"),
    (Method::GET, "/v1/tasks/t1/attempts"),
    (Method::GET, "/v1/tasks/t1/files.zip"),
    (Method::POST, "/v1/deliveries/1/reverify"),
    (Method::POST, "/v1/deliveries/reverify"),
    (Method::GET, "/metrics"),
];

#[tokio::test]
async fn where_tokens_are_set_every_route_wants_one() {
    let server = TestServer::with(&format!("api.tokens = [\"{API_TOKEN}\"]")).await;
    server.callback(&failure("t1")).send().await.taken();
    for (method, path) in ROUTES {
        let request = || server.bare(method.clone(), path);
        for (refused, code) in [
            (request(), "missing_token"),
            (request().bearer_auth(&API_TOKEN[1..]), "bad_token"),
            (request().bearer_auth(""), "missing_token"),
            (request().basic_auth("user", Some(API_TOKEN)), "missing_token"),
        ] {
            let answer = Answer::of(refused).await;
            assert_eq!(answer.problem(), (401, code.to_owned()), "{method} {path}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    assert_eq!(server.task("t1").await["state"], "failed", "nothing was deleted");
    for open in ["/healthz", "/readyz"] {
        assert_eq!(
            Answer::of(server.bare(Method::GET, open)).await.status,
            200,
            "{open}"
        );
    }
}

/// What shows that a request does not come from this machine by its own name.
const FROM_ELSEWHERE: [(&str, &str); 8] = [
    ("host", "hooks.example.com"),
    ("host", "localhost.example.com"),
    ("x-forwarded-for", "127.0.0.1"),
    ("forwarded", "for=127.0.0.1"),
    ("x-real-ip", "127.0.0.1"),
    ("via", "1.1 proxy"),
    ("origin", "https://example.com"),
    ("sec-fetch-site", "cross-site"),
];

#[tokio::test]
async fn without_tokens_only_this_machine_is_served() {
    let server = TestServer::start().await;
    server.callback(&failure("t1")).send().await.taken();
    for (method, path) in ROUTES {
        for (name, value) in FROM_ELSEWHERE {
            let request = server.bare(method.clone(), path).header(name, value);
            let answer = Answer::of(request).await;
            assert_eq!(
                answer.problem(),
                (403, "loopback_only".to_owned()),
                "{method} {path} {name}"
            );
        }
    }
    for path in ["/openapi.json", "/docs", "/login"] {
        for (name, value) in FROM_ELSEWHERE {
            let answer = server.get_with(path, &[(name, value)]).await;
            assert_eq!(
                answer.status, 403,
                "{path} {name}: it tells strangers nothing either"
            );
        }
        assert!(server.get(path).await.status.as_u16() < 400, "{path}");
    }
    for host in ["localhost:1234", "127.0.0.1", "[::1]:80"] {
        let answer = server.get_with("/v1/tasks/t1", &[("host", host)]).await;
        assert_eq!(answer.status, 200, "{host}");
    }
}

#[tokio::test]
async fn an_unverified_source_takes_callbacks_from_this_machine_only() {
    let server = TestServer::with(&format!(
        "[sources.kie]\n[sources.open]\nallow_unverified = true\n[sources.signed]\nhmac_keys = [\"{KEY}\"]"
    ))
    .await;
    for (name, value) in FROM_ELSEWHERE {
        let call = |source: &str| {
            let call = server.callback_to(source, &failure("t1"));
            call.signed(KEY).header(name, value)
        };
        let refused = call("kie").send().await;
        assert_eq!(
            refused.problem(),
            (403, "loopback_only".to_owned()),
            "{name}: {value}"
        );
        call("open").send().await.taken();
        call("signed").send().await.taken();
    }
    let sources = "SELECT count(*) FROM deliveries WHERE source = 'kie'";
    assert_eq!(server.number(sources).await, 0);
}

#[tokio::test]
async fn no_answer_holds_a_secret() {
    let api_key = "sk-api-key-of-the-provider";
    let key = "hmac/key+with=signs";
    let cdn = Cdn::start().await;
    let server = TestServer::with(&format!(
        "api.tokens = [\"{API_TOKEN}\"]\n[sources.kie]\nhmac_keys = [\"{key}\"]\ntokens = [\"{TOKEN}\"]\n\
         api_key = \"{api_key}\"\napi_url = \"http://127.0.0.1:9\""
    ))
    .await;
    let url = cdn.script(&format!("/{TOKEN}"), [Reply::Status(401, Vec::new())]);
    let echo = json!({"prompt": format!("a cat {key} {API_TOKEN}"),
        "callBackUrl": format!("https://hooks.example.com/callbacks/kie?token={TOKEN}"), "key": api_key});
    let body = json!({"code": 200, "msg": format!("done {key}"), "data": {
        "taskId": "t1", "info": {"resultUrls": [format!("{url}?key={api_key}")]}, "promptJson": echo.to_string()}});
    let rest = format!("kie?token={TOKEN}");
    server.callback_to(&rest, &body).signed(key).send().await.taken();
    let other = failure("t1");
    server.callback_to(&rest, &other).signed(key).send().await.taken();
    let mut binary = b"\xff\xfe ".to_vec();
    binary.extend_from_slice(TOKEN.as_bytes());
    server.callback_of(&rest, binary, "t1").signed(key).send().await;
    server.wait_settled("t1").await;

    let mut answers = Vec::new();
    for path in [
        "/v1/tasks",
        "/v1/tasks/t1",
        "/v1/tasks/t1/deliveries",
        "/v1/tasks/t1/files/result-0.mp4",
        "/v1/deliveries",
        "/v1/deliveries?verdict=rejected",
        "/v1/deliveries/1",
        "/v1/deliveries/2",
        "/v1/deliveries/3",
        "/v1/stats",
    ] {
        answers.push((path, server.get(path).await.text()));
    }
    answers.push((
        "accept",
        server.post("/v1/deliveries/2/accept", &Value::Null).await.text(),
    ));
    for (path, answer) in &answers {
        let answer = answer.replace("\\/", "/");
        for secret in [key, TOKEN, API_TOKEN, api_key] {
            assert!(!answer.contains(secret), "{path} shows {secret}: {answer}");
        }
    }
    let bodies = server.get("/v1/deliveries/3").await.json();
    let shown = bodies["body_base64"].as_str().unwrap();
    let shown = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, shown).unwrap();
    assert_eq!(shown, b"\xff\xfe [redacted]");
}

#[tokio::test]
async fn a_secret_is_hidden_in_the_spellings_that_providers_use() {
    let key = "hmac/key+with=signs";
    let server = TestServer::with(&format!("sources.kie.hmac_keys = [\"{key}\"]")).await;
    // PHP escapes slashes in JSON; URLs escape nearly everything.
    let spellings = ["hmac\\/key+with=signs", "hmac%2Fkey%2Bwith%3Dsigns"];
    let body = format!(
        "{{\"data\":{{\"taskId\":\"t1\"}},\"msg\":\"{}\"}}",
        spellings.join(" ")
    );
    let call = server.callback_of("kie", body, "t1").signed(key);
    call.send().await.taken();
    let page = server.get("/v1/deliveries").await.fine();
    let shown = page["deliveries"][0]["body"].as_str().unwrap();
    for spelling in spellings {
        assert!(!shown.contains(spelling), "{shown}");
    }
    let task = server.task("t1").await.to_string();
    assert!(!task.contains("signs"), "{task}");
}

#[tokio::test]
async fn a_secret_does_not_begin_where_a_list_cuts() {
    let server = TestServer::with(&format!("sources.kie.tokens = [\"{TOKEN}\"]")).await;
    let start = r#"{"code":501,"data":{"taskId":"t1"},"msg":""#;
    let padding = "x".repeat(64 * 1024 - start.len() - 20);
    let body = format!("{start}{padding}{TOKEN} and more\"}}");
    for body in [gzip(body.as_bytes()), body.into_bytes()] {
        let rest = format!("kie?token={TOKEN}");
        server.callback_of(&rest, body, "t1").send().await.taken();
        let page = server.get("/v1/deliveries").await.fine();
        let listed = &page["deliveries"][0];
        assert_eq!(listed["body_truncated"], true);
        let shown = listed["body"].as_str().unwrap();
        assert!(
            shown.ends_with('x') && shown.len() == start.len() + padding.len(),
            "{}",
            shown.len()
        );
        let id = listed["id"].as_str().unwrap();
        let whole = server.get(&format!("/v1/deliveries/{id}")).await.fine();
        assert!(
            whole["body"]
                .as_str()
                .unwrap()
                .ends_with("x[redacted] and more\"}")
        );
        assert_eq!(whole["body_truncated"], false);
    }
}

#[tokio::test]
async fn of_gzip_that_cannot_be_unpacked_nothing_is_shown() {
    let server = TestServer::with(&format!("sources.kie.tokens = [\"{TOKEN}\"]")).await;
    let rest = format!("kie?token={TOKEN}");
    // Hardly to be compressed, so that a list has only a part of it.
    let noise: String = (0_u32..8_000)
        .map(|n| hex::encode(Sha256::digest(n.to_le_bytes())))
        .collect();
    let long = format!("{{\"code\":501,\"data\":{{\"taskId\":\"t1\"}},\"msg\":\"{TOKEN}{noise}\"}}");
    server
        .callback_of(&rest, gzip(long.as_bytes()), "t1")
        .send()
        .await
        .taken();
    let mut broken = gzip(b"{}");
    broken.extend_from_slice(TOKEN.as_bytes());
    let length = broken.len();
    let answer = server.callback_of(&rest, broken, "").send().await;
    assert_eq!(answer.problem(), (400, "not_json".to_owned()));

    let page = server.get("/v1/deliveries").await.fine();
    let [broken, long] = page["deliveries"].as_array().unwrap().as_slice() else {
        panic!("{page}");
    };
    assert_eq!(
        (&broken["body_bytes"], &broken["body_truncated"]),
        (&json!(length), &json!(false))
    );
    assert_eq!(long["body_truncated"], true);
    assert!(
        broken["body"].is_null() && broken["body_base64"].is_null(),
        "{broken}"
    );
    let beginning = long["body"].as_str().unwrap();
    assert!(
        beginning.contains("[redacted]") && !beginning.contains(TOKEN),
        "as far as it can be unpacked"
    );
    let whole = server.get("/v1/deliveries/1").await.fine();
    assert!(whole["body"].as_str().unwrap().contains("[redacted]"));
}

#[tokio::test]
async fn a_task_is_not_shown_to_another_site_by_way_of_its_files() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    server.callback(&success("t1", &[url])).send().await.taken();
    server.wait_settled("t1").await;
    let file = server.get("/v1/tasks/t1/files/result-0.mp4").await;
    assert_eq!(file.header("cross-origin-resource-policy"), "same-origin");
    assert_eq!(file.header("access-control-allow-origin"), "");
}
