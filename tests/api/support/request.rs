//! Requests and answers in the words of the tests.

use reelhook::provider::signature::sign;
use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.expect("the server answers");
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.expect("the answer is whole").to_vec();
        Self {
            status,
            headers,
            body,
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status and code of a problem document; an answer that is none has the code `-`.
    pub(crate) fn problem(&self) -> (u16, String) {
        let code = if self.header("content-type") == "application/problem+json" {
            let document = self.json();
            assert_eq!(document["status"], self.status.as_u16(), "{document}");
            document["code"].as_str().expect("a code").to_owned()
        } else {
            "-".to_owned()
        };
        (self.status.as_u16(), code)
    }

    /// The answer, which must be the one that every callback gets which was taken.
    #[track_caller]
    pub(crate) fn taken(self) -> Self {
        assert_eq!(
            (self.status.as_u16(), self.text().as_str()),
            (200, r#"{"code":200,"msg":"success"}"#)
        );
        self
    }

    /// The JSON of a 200.
    #[track_caller]
    pub(crate) fn fine(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        self.json()
    }
}

/// A callback to be sent.
pub(crate) struct Call {
    request: RequestBuilder,
    task_id: String,
    now: i64,
}

impl Call {
    pub(super) fn new(request: RequestBuilder, task_id: &str, now: i64) -> Self {
        Self {
            request,
            task_id: task_id.to_owned(),
            now,
        }
    }

    /// Signed now, as the server sees it.
    pub(crate) fn signed(self, key: &str) -> Self {
        let now = self.now;
        self.signed_at(key, now)
    }

    /// Signed at another second.
    pub(crate) fn signed_at(self, key: &str, second: i64) -> Self {
        let timestamp = second.to_string();
        let signature = sign(key, &self.task_id, &timestamp);
        self.header("x-webhook-timestamp", &timestamp)
            .header("x-webhook-signature", &signature)
    }

    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        Self {
            request: self.request.header(name, value),
            ..self
        }
    }

    pub(crate) async fn send(self) -> Answer {
        Answer::of(self.request).await
    }
}
