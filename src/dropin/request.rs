//! The body of a submission: what it asks for, and the same with our callback URL.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::provider::payload::MAX_TEXT_BYTES;

/// Where the caller's own callback URL stands.
const CALLBACK: &str = "callBackUrl";
/// Longest callback URL of a caller that is kept, in bytes.
const MAX_CALLBACK_BYTES: usize = 8 * 1024;

/// A JSON object, its values undecoded: what is passed on is what was written, unknown fields and long numbers too.
#[derive(Debug)]
pub(super) struct Body<'a> {
    fields: Vec<(String, &'a RawValue)>,
}

impl<'a> Body<'a> {
    /// Reads an object with nothing after it, or says what is wrong with it.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let body = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        serde_json::from_slice(body).map_err(|error| format!("the body is no JSON object: {error}"))
    }

    /// The body with `url` in the place of the caller's callback URL, however often and as what that stood there.
    pub(super) fn calling_back(&self, url: &str) -> String {
        let ours = text(url);
        let mut json = String::from("{");
        let mut placed = false;
        for (name, value) in &self.fields {
            let value = match (name.as_str(), placed) {
                (CALLBACK, true) => continue,
                (CALLBACK, false) => {
                    placed = true;
                    ours.as_str()
                }
                _ => value.get(),
            };
            push(&mut json, name, value);
        }
        if !placed {
            push(&mut json, CALLBACK, &ours);
        }
        json.push('}');
        json
    }

    /// The caller's own callback URL, if there is one.
    pub(super) fn callback_url(&self) -> Option<String> {
        let url: String = self.read(CALLBACK)?;
        (!url.is_empty() && url.len() <= MAX_CALLBACK_BYTES).then_some(url)
    }

    /// The text under a name.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.read(name)
    }

    /// Which of several results is asked for; the first, unless it says so.
    pub(super) fn index(&self) -> u32 {
        self.read("index")
            .or_else(|| self.text("index")?.parse().ok())
            .unwrap_or(0)
    }

    /// The prompt, here or in the `input` of a Market job; as much of it as is kept.
    pub(super) fn prompt(&self) -> Option<String> {
        let mut prompt = self.text("prompt").or_else(|| {
            let input = Self::parse(self.value("input")?.get().as_bytes()).ok()?;
            input.text("prompt")
        })?;
        prompt.truncate(prompt.floor_char_boundary(MAX_TEXT_BYTES));
        Some(prompt)
    }

    /// The last of that name counts, as most parsers have it.
    fn value(&self, name: &str) -> Option<&'a RawValue> {
        let mut named = self.fields.iter().rev().filter(|(field, _)| field == name);
        named.next().map(|(_, value)| *value)
    }

    fn read<T: Deserialize<'a>>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.value(name)?.get()).ok()
    }
}

/// The prompt in a request to the provider, if there is one; as much of it as is kept.
pub fn prompt_of(request: &str) -> Option<String> {
    Body::parse(request.as_bytes()).ok()?.prompt()
}

fn push(json: &mut String, name: &str, value: &str) {
    if json.len() > 1 {
        json.push(',');
    }
    json.extend([text(name).as_str(), ":", value]);
}

fn text(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

impl<'de: 'a, 'a> Deserialize<'de> for Body<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Body<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Body { fields })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "https://hooks.example.com/callbacks/kie?kind=video&index=0&ref=r";

    fn passed_on(body: &str) -> String {
        Body::parse(body.as_bytes()).unwrap().calling_back(OURS)
    }

    #[test]
    fn everything_but_the_callback_url_is_passed_on_as_it_was_written() {
        assert_eq!(
            passed_on(
                r#"{ "seeds": 1.230e+2, "callBackUrl": "https://mine", "big": 123456789012345678901, "Z": [ 1 ], "a": null, "a": "\u00e9" }"#
            ),
            format!(
                r#"{{"seeds":1.230e+2,"callBackUrl":"{OURS}","big":123456789012345678901,"Z":[ 1 ],"a":null,"a":"\u00e9"}}"#
            )
        );
    }

    #[test]
    fn there_is_one_callback_url_and_it_is_ours() {
        let only = format!(r#"{{"callBackUrl":"{OURS}"}}"#);
        for body in [
            "{}",
            r#"{"callBackUrl":null}"#,
            r#"{"callBackUrl":["https://mine"]}"#,
            r#"{"callBackUrl":"https://mine","callBackUrl":"https://other"}"#,
            r#"{"\u0063allBackUrl":"https://mine"}"#,
        ] {
            assert_eq!(passed_on(body), only, "{body}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in ["", "null", "[]", "{", "{}{}", "\u{0}", r#"{"a":1,}"#, r#""{}""#] {
            assert!(Body::parse(body.as_bytes()).is_err(), "{body}");
        }
        assert!(Body::parse(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn the_prompt_is_found_in_both_shapes() {
        let prompt = |body: &str| Body::parse(body.as_bytes()).unwrap().prompt();
        assert_eq!(prompt(r#"{"prompt":"a dog"}"#).as_deref(), Some("a dog"));
        assert_eq!(
            prompt(r#"{"model":"m","input":{"prompt":"a cat"}}"#).as_deref(),
            Some("a cat")
        );
        assert_eq!(prompt(r#"{"prompt":7,"input":"x"}"#), None);
    }

    #[test]
    fn an_index_may_be_a_text_and_is_0_otherwise() {
        let index = |body: &str| Body::parse(body.as_bytes()).unwrap().index();
        assert_eq!(index(r#"{"index":2}"#), 2);
        assert_eq!(index(r#"{"index":"3"}"#), 3);
        for odd in ["{}", r#"{"index":-1}"#, r#"{"index":1.5}"#, r#"{"index":null}"#] {
            assert_eq!(index(odd), 0, "{odd}");
        }
    }
}
