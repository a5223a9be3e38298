//! What every answer of the provider's API has in common, whichever endpoint gave it: `{code, msg, data}`.

use std::borrow::Cow;

use super::fields::{Fields, is_object};
use super::{cut_text, text_of};

/// An answer of the API, before anybody asks what its `data` is about.
#[derive(Debug)]
pub struct Envelope<'a>(Fields<'a>);

impl<'a> Envelope<'a> {
    /// Reads `body`; `None` unless it is one JSON object.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        Fields::parse(text_of(body).ok()?).ok().map(Self)
    }

    /// The body code, be it a number or a numeric string.
    pub fn code(&self) -> Option<i64> {
        self.0.integer("code")
    }

    /// The provider's sentence (old Market pages call it `message`), cut to [`super::MAX_TEXT_BYTES`]; empty if there is none.
    pub fn msg(&self) -> String {
        let said = self.0.text("msg").or_else(|| self.0.text("message"));
        said.map(|text| cut_text(&text)).unwrap_or_default()
    }

    /// Whether `data` is there and not null.
    pub fn has_data(&self) -> bool {
        self.0.value("data").is_some()
    }

    /// Whether `data` is an object, as it is wherever it is about a task.
    pub fn has_object(&self) -> bool {
        self.0.value("data").is_some_and(is_object)
    }

    /// `data` where it is a string by itself, as download-url has it.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        self.0.text("data")
    }

    /// `data` where it is a number by itself, as the balance of credits is, a fraction on the wire.
    pub fn number(&self) -> Option<f64> {
        self.0.float("data")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_answers_are_read() {
        let read = |body: &'static str| Envelope::parse(body.as_bytes()).unwrap();
        let link = read(r#"{"code":200,"msg":"success","data":"https://tempfile.example/a"}"#);
        assert_eq!(link.text().as_deref(), Some("https://tempfile.example/a"));
        assert_eq!((link.code(), link.number()), (Some(200), None));
        let credit = read(r#"{"code":200,"msg":"success","data":5916.25}"#);
        assert_eq!((credit.number(), credit.text()), (Some(5916.25), None));
        let refused = read(r#"{"code":422,"msg":"url is wrong","data":null}"#);
        assert!(!refused.has_data() && !refused.has_object());
        assert_eq!(refused.msg(), "url is wrong");
        assert_eq!(read(r#"{"message":"old"}"#).msg(), "old");
        assert!(read(r#"{"data":{}}"#).has_object());
    }

    #[test]
    fn what_is_no_object_is_no_answer() {
        for body in ["", "null", "[]", "<html>", r#"{"code":200"#] {
            assert!(Envelope::parse(body.as_bytes()).is_none(), "{body}");
        }
        assert!(Envelope::parse(b"{\"msg\":\"\xff\"}").is_none());
    }
}
