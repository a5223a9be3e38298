//! Sends spans to a collector, in OTLP over HTTP as JSON.
//!
//! The protocol is small, and the crates for it bring a thread, a blocking client and ids that are made up at random;
//! ours are computed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, StatusCode, Url};
use serde_json::{Value as Json, json};

use super::{Sent, Span, Value, Waiting};
use crate::telemetry::Sparse;

/// Most spans in one request.
const BATCH: usize = 512;
/// How long spans wait for others.
const GATHER: Duration = Duration::from_secs(1);
/// How long a collector may take for one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where spans are sent.
#[derive(Debug)]
pub struct Collector {
    /// What asks. It should follow no redirects: the headers are for this collector alone.
    pub client: Client,
    /// The whole URL, with its path.
    pub url: Url,
    /// Such as those by which it knows us.
    pub headers: HeaderMap,
}

/// Sends what waits.
#[derive(Debug)]
pub struct Exporter {
    waiting: Waiting,
    collector: Collector,
    sent: Arc<Sent>,
    failures: Sparse,
}

impl Exporter {
    /// Sends what waits to the collector; `sent` counts what becomes of it.
    pub fn new(waiting: Waiting, collector: Collector, sent: Arc<Sent>) -> Self {
        Self {
            waiting,
            collector,
            sent,
            failures: Sparse::default(),
        }
    }

    /// Sends until `ending` resolves, and then what is left.
    pub async fn run(mut self, ending: impl Future<Output = ()>) {
        let mut ending = std::pin::pin!(ending);
        let mut spans = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                received = self.waiting.0.recv_many(&mut spans, BATCH) => if received == 0 {
                    return;
                },
                () = &mut ending => break,
            }
            let gathered = tokio::time::sleep(GATHER);
            let mut gathered = std::pin::pin!(gathered);
            while spans.len() < BATCH {
                let room = BATCH - spans.len();
                tokio::select! {
                    received = self.waiting.0.recv_many(&mut spans, room) => if received == 0 {
                        break;
                    },
                    () = &mut gathered => break,
                    () = &mut ending => {
                        self.send(&mut spans).await;
                        return self.finish(spans).await;
                    }
                }
            }
            self.send(&mut spans).await;
        }
        self.finish(spans).await;
    }

    /// Sends what is left.
    async fn finish(mut self, mut spans: Vec<Span>) {
        self.waiting.0.close();
        while self.waiting.0.recv_many(&mut spans, BATCH).await > 0 {
            self.send(&mut spans).await;
        }
    }

    /// One request, never repeated: what a collector does not take is no reason to hold back what comes next.
    async fn send(&mut self, spans: &mut Vec<Span>) {
        if spans.is_empty() {
            return;
        }
        let count = spans.len() as u64;
        let body = request(spans).to_string();
        spans.clear();
        match self.post(body).await {
            Ok(()) => self.sent.sent.add(count),
            Err(error) => {
                self.sent.dropped.add(count);
                if self.failures.say(Instant::now()).is_some() {
                    tracing::warn!(
                        error,
                        "{count} spans were dropped: the collector in telemetry.otlp_endpoint did not take them: {error}"
                    );
                }
            }
        }
    }

    async fn post(&self, body: String) -> Result<(), String> {
        let request = self
            .collector
            .client
            .post(self.collector.url.clone())
            .headers(self.collector.headers.clone())
            .header(CONTENT_TYPE, "application/json")
            .timeout(TIMEOUT)
            .body(body);
        // A URL may hold a key of the collector's.
        let answer = request
            .send()
            .await
            .map_err(|error| chain(&error.without_url()))?;
        match answer.status() {
            StatusCode::OK => Ok(()),
            status => Err(format!("it answered {status}")),
        }
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// An `ExportTraceServiceRequest`, in the JSON mapping of OTLP: ids in hexadecimal, 64-bit numbers as text.
fn request(spans: &[Span]) -> Json {
    let resource = [
        ("service.name", "reelhook"),
        ("service.version", env!("CARGO_PKG_VERSION")),
    ];
    let resource = resource.map(|(key, value)| attribute(key, &value.into()));
    json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{
            "scope": {"name": "reelhook"},
            "spans": spans.iter().map(span).collect::<Vec<_>>(),
        }],
    }]})
}

fn span(Span { trace, work }: &Span) -> Json {
    let attributes = work.attributes.iter();
    let attributes: Vec<Json> = attributes.map(|(key, value)| attribute(key, value)).collect();
    let mut span = json!({
        "traceId": trace.to_string(),
        "spanId": work.id.to_string(),
        "name": work.name,
        "kind": work.kind as u8,
        "startTimeUnixNano": work.began.as_nanos().to_string(),
        "endTimeUnixNano": work.ended.as_nanos().to_string(),
        "attributes": attributes,
    });
    if let Some(parent) = work.parent {
        span["parentSpanId"] = parent.to_string().into();
    }
    if let Some(error) = work.error {
        span["status"] = json!({"code": 2, "message": error});
    }
    span
}

fn attribute(key: &str, value: &Value) -> Json {
    let value = match value {
        Value::Text(text) => json!({"stringValue": text}),
        Value::Number(number) => json!({"intValue": number.to_string()}),
    };
    json!({"key": key, "value": value})
}
