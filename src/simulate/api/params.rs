//! Parameters of requests, held against what is documented of them. The sentences are ours: of refusals only the code
//! is documented.

use axum::extract::{FromRequest, RawQuery};
use serde_json::{Map, Value};
use url::Url;

use super::{Bytes, FromRequestParts, Parts, Refusal, Request};

/// Parameters by name, from a body or from a query.
#[derive(Debug)]
pub(super) struct Params(pub(super) Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|_| Refusal::new(400, "The request body cannot be read."))?;
        match serde_json::from_slice(&body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            _ => Err(Refusal::new(400, "The request body must be a JSON object.")),
        }
    }
}

/// Those of a query, which are all texts.
#[derive(Debug)]
pub(super) struct Query(pub(super) Params);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let query = RawQuery::from_request_parts(parts, state).await;
        let text = query.ok().and_then(|RawQuery(text)| text).unwrap_or_default();
        let pairs = url::form_urlencoded::parse(text.as_bytes());
        let fields = pairs.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())));
        Ok(Self(Params(fields.collect())))
    }
}

fn invalid(msg: String) -> Refusal {
    Refusal::new(422, msg)
}

impl Params {
    /// What stands under a name; null is nothing.
    fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A text that must be there.
    pub(super) fn needed(&self, name: &str) -> Result<&str, Refusal> {
        match self.text(name)? {
            Some(text) if !text.trim().is_empty() => Ok(text),
            _ => Err(invalid(format!("{name} is required"))),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid(format!("{name} must be a string"))),
        }
    }

    /// One of some words.
    pub(super) fn one_of(&self, name: &str, words: &[&str]) -> Result<(), Refusal> {
        match self.text(name)? {
            Some(text) if !words.contains(&text) => {
                Err(invalid(format!("{name} must be one of {}", words.join(", "))))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<(), Refusal> {
        match self.value(name) {
            None | Some(Value::Bool(_)) => Ok(()),
            Some(_) => Err(invalid(format!("{name} must be true or false"))),
        }
    }

    /// A whole number, which in a query is a text.
    pub(super) fn number(&self, name: &str) -> Result<Option<u32>, Refusal> {
        let number = match self.value(name) {
            None => return Ok(None),
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_u64().and_then(|number| u32::try_from(number).ok()),
        };
        number
            .map(Some)
            .ok_or_else(|| invalid(format!("{name} must be an integer")))
    }

    /// 10000 to 99999.
    pub(super) fn seeds(&self) -> Result<(), Refusal> {
        match self.number("seeds")? {
            Some(seeds) if !(10_000..=99_999).contains(&seeds) => {
                Err(invalid("seeds must be between 10000 and 99999".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Where to call back, if anywhere.
    pub(super) fn callback(&self) -> Result<Option<Url>, Refusal> {
        let Some(text) = self.text("callBackUrl")?.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let url = Url::parse(text).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
        url.map(Some)
            .ok_or_else(|| invalid("callBackUrl must be a valid URL".to_owned()))
    }

    /// How many images are given.
    pub(super) fn images(&self) -> Result<usize, Refusal> {
        match self.value("imageUrls") {
            None => Ok(0),
            Some(Value::Array(urls)) if urls.iter().all(Value::is_string) => Ok(urls.len()),
            Some(_) => Err(invalid("imageUrls must be an array of strings".to_owned())),
        }
    }
}
