//! Traces, as a collector receives them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::{Cdn, KEY, RUNTIME, Reply, Setup, TestServer, mp4, success, until};

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Value>>>,
    raw: Arc<Mutex<String>>,
}

impl Collector {
    async fn start() -> (Self, SocketAddr) {
        let collector = Self::default();
        let routes = Router::new()
            .route("/v1/traces", post(Self::take))
            .with_state(collector.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let listener = listener.into_std().unwrap();
        RUNTIME.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            axum::serve(listener, routes).await.unwrap();
        });
        (collector, addr)
    }

    async fn take(State(collector): State<Self>, request: Request) -> StatusCode {
        if request.headers().get("x-team").is_none_or(|team| team != "films") {
            return StatusCode::UNAUTHORIZED;
        }
        let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let sent: Value = serde_json::from_str(&text).unwrap();
        let resource = &sent["resourceSpans"][0];
        assert_eq!(
            resource["resource"]["attributes"][0]["value"]["stringValue"],
            "reelhook"
        );
        let spans = resource["scopeSpans"][0]["spans"].as_array().unwrap();
        collector.spans.lock().unwrap().extend(spans.iter().cloned());
        collector.raw.lock().unwrap().push_str(&text);
        StatusCode::OK
    }

    /// The spans of a name, once there are so many.
    async fn named(&self, name: &str, count: usize) -> Vec<Value> {
        until(&format!("{count} spans {name}"), || async {
            let spans = self.spans.lock().unwrap();
            let named = spans.iter().filter(|span| span["name"] == name);
            let named: Vec<Value> = named.cloned().collect();
            (named.len() >= count).then_some(named)
        })
        .await
    }
}

fn config(collector: SocketAddr, more: &str) -> String {
    format!(
        "{more}
         [egress]\nallow_cidrs = [\"127.0.0.0/8\"]
         [telemetry]\notlp_endpoint = \"http://{collector}\"\notlp_headers = [\"X-Team: films\"]\n"
    )
}

fn attribute<'s>(span: &'s Value, key: &str) -> &'s str {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["key"] == key);
    let value = &found.unwrap_or_else(|| panic!("no {key} in {span}"))["value"];
    value["stringValue"]
        .as_str()
        .or(value["intValue"].as_str())
        .unwrap()
}

fn nanos(span: &Value, key: &str) -> u64 {
    span[key].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn one_trace_leads_from_the_callback_to_the_stored_file() {
    let ((collector, addr), cdn) = (Collector::start().await, Cdn::start().await);
    let server = Setup::new(&config(addr, &format!("sources.kie.hmac_keys = [\"{KEY}\"]")))
        .start()
        .await;
    let url = cdn.script(
        "/a.mp4",
        [Reply::Status(503, Vec::new()), Reply::Whole(mp4(1, 20_000))],
    );
    let body = success("t1", &[format!("{url}?token=SECRET-OF-THE-URL")]);
    server.callback(&body).signed(KEY).send().await.taken();
    server.wait_settled("t1").await;

    let (callback, downloads) = (
        collector.named("callback", 1).await,
        collector.named("download", 2).await,
    );
    let callback = &callback[0];
    assert_eq!(attribute(callback, "reelhook.task_id"), "t1");
    assert_eq!(attribute(callback, "reelhook.verdict"), "accepted");
    assert_eq!(
        (&callback["kind"], callback.get("parentSpanId")),
        (&Value::from(2), None)
    );
    let mut parts = collector.named("verify", 1).await;
    parts.extend(collector.named("commit", 1).await);
    for part in &parts {
        assert_eq!(part["traceId"], callback["traceId"]);
        assert_eq!(part["parentSpanId"], callback["spanId"]);
        assert!(nanos(part, "startTimeUnixNano") >= nanos(callback, "startTimeUnixNano"));
        assert!(nanos(part, "endTimeUnixNano") <= nanos(callback, "endTimeUnixNano"));
    }
    let results: Vec<&str> = downloads
        .iter()
        .map(|span| attribute(span, "reelhook.result"))
        .collect();
    assert_eq!(results, ["retry", "stored"]);
    assert_eq!(downloads[0]["status"]["message"], "http_status");
    for download in &downloads {
        assert_eq!(download["traceId"], callback["traceId"]);
        assert_eq!(download["parentSpanId"], callback["spanId"]);
    }
    assert_ne!(downloads[0]["spanId"], downloads[1]["spanId"]);

    let raw = collector.raw.lock().unwrap();
    for secret in ["SECRET-OF-THE-URL", "?token", KEY, "films"] {
        assert!(!raw.contains(secret), "{secret} was sent: {raw}");
    }
}

#[tokio::test]
async fn a_download_finds_its_trace_after_a_restart() {
    let ((collector, addr), cdn) = (Collector::start().await, Cdn::start().await);
    let config = config(
        addr,
        "shutdown_grace = \"100ms\"\n[downloads]\nretry_base = \"1ms\"",
    );
    let server = Setup::new(&config).start().await;
    let url = cdn.script(
        "/a.mp4",
        [Reply::Stalled(mp4(1, 20_000)), Reply::Whole(mp4(1, 20_000))],
    );
    server.callback(&success("t1", &[url])).send().await.taken();
    until("the download runs", || async {
        (server.task("t1").await["media"] == "downloading").then_some(())
    })
    .await;
    let setup = server.halt().await;
    // What waited was sent before it ended.
    let callback = collector.named("callback", 1).await[0].clone();
    let server = setup.start().await;
    server.wait_settled("t1").await;
    let stored = until("the file is told of", || async {
        let downloads = collector.named("download", 1).await;
        downloads
            .into_iter()
            .find(|span| attribute(span, "reelhook.result") == "stored")
    })
    .await;
    assert_eq!(stored["traceId"], callback["traceId"]);
    assert_eq!(stored["parentSpanId"], callback["spanId"]);
}

#[tokio::test]
async fn a_forged_callback_is_told_of_with_its_reason_and_an_unreadable_one_not_at_all() {
    let (collector, addr) = Collector::start().await;
    let server = Setup::new(&config(addr, &format!("sources.kie.hmac_keys = [\"{KEY}\"]")))
        .start()
        .await;
    let forged = server
        .callback(&success("t1", &[]))
        .signed("another-key-than-theirs")
        .send()
        .await;
    assert_eq!(forged.problem(), (401, "bad_signature".to_owned()));
    let unreadable = server
        .callback_of("kie", "no JSON", "t2")
        .signed(KEY)
        .send()
        .await;
    assert_eq!(unreadable.problem(), (400, "not_json".to_owned()));
    let told = collector.named("callback", 1).await;
    assert_eq!(told.len(), 1);
    assert_eq!(attribute(&told[0], "reelhook.reason"), "bad_signature");
    assert_eq!(told[0]["status"]["code"], 2);
}

#[tokio::test]
async fn a_collector_that_hangs_or_refuses_holds_nothing_up() {
    // It takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for (collector, sent) in [
        (silent.local_addr().unwrap(), false),
        ("127.0.0.1:1".parse().unwrap(), true),
    ] {
        let mut server: TestServer = Setup::new(&config(collector, "")).start().await;
        for n in 0..50 {
            server
                .callback(&success(&format!("t{n}"), &[]))
                .send()
                .await
                .taken();
        }
        if sent {
            until("spans were dropped", || async {
                let page = server.get("/metrics").await.text();
                let dropped = page
                    .lines()
                    .find_map(|line| line.strip_prefix("reelhook_spans_total{result=\"dropped\"} "));
                (dropped != Some("0")).then_some(())
            })
            .await;
        }
        let began = Instant::now();
        assert!(server.begin_stop().await.unwrap(), "all work was done");
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "the stop waits for no collector"
        );
    }
}
