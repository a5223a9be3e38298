//! Keeps configured secrets out of answers: providers echo callback URLs, and with them tokens, in what they send.

use std::borrow::Cow;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::problem::Problem;
use crate::config::{REDACTED, Secret};

/// Shorter texts are no secrets: replacing them would only shred the answers.
const SHORTEST: usize = 6;

/// Replaces every occurrence of any secret.
#[derive(Debug)]
pub(super) struct Redactor {
    /// Each secret as it is and, where that differs, as it stands inside a JSON string, in a URL and in HTML.
    needles: Vec<Secret>,
}

impl Redactor {
    pub(super) fn new(secrets: &[Secret]) -> Self {
        let mut needles = Vec::new();
        for secret in secrets.iter().filter(|secret| secret.expose().len() >= SHORTEST) {
            needles.push(secret.clone());
            let plain = secret.expose();
            let quoted = serde_json::to_string(plain).expect("a text is JSON");
            let in_json = quoted.trim_matches('"');
            // PHP and its kin escape slashes, too.
            let in_php = in_json.replace('/', "\\/");
            let in_url: String = url::form_urlencoded::byte_serialize(plain.as_bytes()).collect();
            let in_html = html(plain);
            for spelling in [in_json, &in_php, &in_url, &in_html] {
                if !needles.iter().any(|needle| needle.expose() == spelling) {
                    needles.push(Secret::new(spelling));
                }
            }
        }
        Self { needles }
    }

    fn occurs_in(&self, text: &str) -> bool {
        self.needles.iter().any(|needle| text.contains(needle.expose()))
    }

    /// The text without secrets.
    pub(super) fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut clean = Cow::Borrowed(text);
        for needle in &self.needles {
            if clean.contains(needle.expose()) {
                clean = Cow::Owned(clean.replace(needle.expose(), REDACTED));
            }
        }
        clean
    }

    /// The beginning of something longer, without the beginning of a secret that may go on where it was cut.
    pub(super) fn without_torn_end<'t>(&self, bytes: &'t [u8]) -> &'t [u8] {
        let torn = |needle: &Secret| {
            let needle = needle.expose().as_bytes();
            (1..needle.len())
                .rev()
                .find(|length| bytes.ends_with(&needle[..*length]))
        };
        let torn = self.needles.iter().filter_map(torn).max().unwrap_or(0);
        &bytes[..bytes.len() - torn]
    }

    /// The bytes without secrets.
    pub(super) fn bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let mut clean = bytes.to_vec();
        for needle in self.needles.iter().map(|needle| needle.expose().as_bytes()) {
            let mut from = 0;
            while let Some(at) = clean[from..]
                .windows(needle.len())
                .position(|window| window == needle)
            {
                let at = from + at;
                clean.splice(at..at + needle.len(), REDACTED.bytes());
                // Onwards, in case the replacement itself contains a secret.
                from = at + REDACTED.len();
            }
        }
        clean
    }

    /// A JSON answer without secrets in any of its texts.
    pub(super) fn json<T: Serialize>(&self, status: StatusCode, answer: &T) -> Response {
        match self.serialised(answer) {
            Ok(json) => (status, [(header::CONTENT_TYPE, "application/json")], json).into_response(),
            Err(error) => Problem::internal(&error).into_response(),
        }
    }

    /// JSON without secrets in any of its texts.
    pub(super) fn serialised<T: Serialize>(&self, answer: &T) -> Result<String, serde_json::Error> {
        let json = serde_json::to_string(answer)?;
        if !self.occurs_in(&json) {
            return Ok(json);
        }
        let mut value = serde_json::to_value(answer)?;
        self.walk(&mut value);
        serde_json::to_string(&value)
    }

    fn walk(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(clean) = self.text(text) {
                    *text = clean;
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.walk(value)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.walk(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// As our templates write it.
fn html(text: &str) -> String {
    askama::filters::escape(text, askama::filters::Html)
        .map_or_else(|never| match never {}, |escaped| escaped.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_cut_shows_nothing_of_itself() {
        let redactor = Redactor::new(&[Secret::new("abcabcabd"), Secret::new("xxabcab_")]);
        for (cut, shown) in [
            ("..abcabcab", ".."),
            ("..abcabcabcab", "..abc"),
            ("..xxabcab", ".."),
            ("..a", ".."),
            ("..abcabcabd", "..abcabcabd"),
            ("..", ".."),
        ] {
            assert_eq!(
                redactor.without_torn_end(cut.as_bytes()),
                shown.as_bytes(),
                "{cut}"
            );
        }
    }

    #[test]
    fn a_secret_is_replaced_wherever_it_hides() {
        let redactor = Redactor::new(&[Secret::new("tok-en_0123456789"), Secret::new("quo\"te-secret")]);
        let answer = serde_json::json!({
            "body": "{\"callBackUrl\":\"https://x/?token=tok-en_0123456789\"}",
            "nested": [{"deep": "a quo\"te-secret and quo\\\"te-secret and quo&#34;te-secret"}],
        });
        let shown = redactor.serialised(&answer).unwrap();
        assert!(
            !shown.contains("0123456789") && !shown.contains("te-secret"),
            "{shown}"
        );
        assert_eq!(
            redactor.bytes(b"\xff tok-en_0123456789 \xff"),
            b"\xff [redacted] \xff"
        );
    }
}
