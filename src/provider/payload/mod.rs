//! The reader of callback bodies and record-info answers, for every family that shares the envelope
//! `{code, msg, data}`.
//!
//! It reads in two steps. [`Document::parse`] settles which task the body is about, which the signature needs and which
//! is the only thing that can be wrong with a body. [`Document::event`] then reads what it says, tolerantly: no
//! family is detected, every documented place is looked at, and what is missing is simply not said.

use std::borrow::Cow;
use std::str::FromStr as _;
use std::time::Duration;

use serde_json::value::RawValue;

use super::{Event, Failure, Kind, OutcomeClass, TaskId, times};
use crate::clock::Millis;
use fields::{DECISIVE, Fields, cut};

mod envelope;
mod fields;
mod media;
mod outcome;
mod texts;
mod urls;

pub use envelope::Envelope;

/// Longest URL that is fetched, in bytes.
pub const MAX_URL_BYTES: usize = 8 * 1024;
/// Most files one delivery may announce; the next one is listed as failed and stands for the rest.
pub const MAX_MEDIA: usize = 64;
/// Longest text kept of a message or prompt, in bytes.
pub const MAX_TEXT_BYTES: usize = 16 * 1024;
/// Longest text kept of a resolution, in bytes.
pub const MAX_RESOLUTION_BYTES: usize = 32;

/// How long the provider keeps generated media, as its getting-started page promises.
pub const LIFETIME: Duration = Duration::from_hours(14 * 24);
/// How long result URLs of Market jobs last: "typically" a day, by the Market page.
pub const MARKET_LIFETIME: Duration = Duration::from_hours(24);
/// How long Flux's `originImageUrl` lasts, by its callback page.
pub const FLUX_ORIGIN_LIFETIME: Duration = Duration::from_mins(10);

/// Why a body cannot be taken as a callback: it does not say, beyond doubt, which task it is about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Not one JSON object in UTF-8.
    #[error("the body is not a JSON object ({detail}); send the provider's callback unchanged")]
    NotJson {
        /// What is wrong and where; never a piece of the body.
        detail: String,
    },
    /// None of the four places holds an id.
    #[error("there is no task id; put it into data.taskId, data.task_id, taskId or task_id")]
    NoTaskId,
    /// Two places hold different ids, so that the one verified might not be the one meant.
    #[error(
        "the body names different task ids; all of data.taskId, data.task_id, taskId and task_id must agree"
    )]
    TaskIdsDiffer,
    /// A field that decides identity or outcome is given twice, and parsers disagree on which one counts.
    #[error("the field {0} is given twice in one object; send it once")]
    DuplicateKey(&'static str),
    /// The id is no string or number, or outside what [`TaskId`] permits.
    #[error("the task id is not usable; it must be 1 to 128 characters of A-Z a-z 0-9 . _ ~ : * -")]
    BadTaskId,
}

impl PayloadError {
    /// The stable code of this error in answers and records.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotJson { .. } => "not_json",
            Self::NoTaskId => "no_task_id",
            Self::TaskIdsDiffer => "task_ids_differ",
            Self::DuplicateKey(_) => "duplicate_key",
            Self::BadTaskId => "bad_task_id",
        }
    }

    fn not_json(detail: &impl ToString) -> Self {
        let detail = detail.to_string();
        Self::NotJson { detail }
    }
}

/// A body about one task. Holds on to the text it was parsed from; values are decoded when asked for.
#[derive(Debug)]
pub struct Document<'a> {
    task_id: TaskId,
    top: Fields<'a>,
    /// The fields of `data`; none if it is null, missing or no object, as in Aleph's failures.
    data: Fields<'a>,
}

impl<'a> Document<'a> {
    /// Reads `body` as far as the task id. A UTF-8 byte order mark is tolerated.
    ///
    /// The id may stand in any of `data.taskId`, `data.task_id`, `taskId` and `task_id` (the families differ); those
    /// that are neither null nor empty must agree, a number by its source text. Of several errors the first in the
    /// order of [`PayloadError`] is given.
    pub fn parse(body: &'a [u8]) -> Result<Self, PayloadError> {
        let (top, mut datas) = Self::objects(body)?;
        let task_id = settle_task_id(&top, &datas)?;
        let data = datas.pop().unwrap_or_default();
        Ok(Self { task_id, top, data })
    }

    /// Reads the answer to a question about `asked`: it need not name a task, but must not name another one.
    pub fn about(asked: &TaskId, body: &'a [u8]) -> Result<Self, PayloadError> {
        let (top, mut datas) = Self::objects(body)?;
        let task_id = match settle_task_id(&top, &datas) {
            Err(PayloadError::NoTaskId) => refuse_twins(&top, &datas).map(|()| asked.clone())?,
            settled => settled?,
        };
        if task_id != *asked {
            return Err(PayloadError::TaskIdsDiffer);
        }
        let data = datas.pop().unwrap_or_default();
        Ok(Self { task_id, top, data })
    }

    fn objects(body: &'a [u8]) -> Result<(Fields<'a>, Vec<Fields<'a>>), PayloadError> {
        let text = text_of(body).map_err(|error| PayloadError::not_json(&error))?;
        match Fields::parse_enclosing(text, "data") {
            Some((top, data)) => Ok((top, vec![data])),
            None => Self::parse_unusual(text),
        }
    }

    /// The fields of `text` and of every object called `data` in it, or what is wrong with it.
    fn parse_unusual(text: &'a str) -> Result<(Fields<'a>, Vec<Fields<'a>>), PayloadError> {
        let whole: &RawValue = serde_json::from_str(text).map_err(|error| PayloadError::not_json(&error))?;
        let top =
            Fields::of(whole).ok_or_else(|| PayloadError::not_json(&"the top level is something else"))?;
        let datas = top.all("data").filter_map(Fields::of).collect();
        Ok((top, datas))
    }

    /// The id on which all places agree. Verify this one, and use no other afterwards.
    pub fn task_id(&self) -> &TaskId {
        &self.task_id
    }

    /// Whether the body names its task itself; otherwise it is only known what was asked about.
    pub fn names_its_task(&self) -> bool {
        let named = [&self.top, &self.data].into_iter();
        let mut ids = named.flat_map(|fields| [fields.scalar("taskId"), fields.scalar("task_id")]);
        ids.any(|id| id.is_some())
    }

    /// What the body says. Whatever is missing, malformed or unknown is left out; nothing makes this fail.
    pub fn event(&self) -> Event {
        self.event_by(self.code())
    }

    /// The body code.
    pub fn code(&self) -> Option<i64> {
        self.top.integer("code")
    }

    /// What the state fields say by themselves, whatever the code; `None` if there are none.
    pub fn state(&self) -> Option<OutcomeClass> {
        outcome::state(&self.data)
    }

    /// Whether any file is announced, whatever came of the task.
    pub fn has_media(&self) -> bool {
        !media::announced(&self.data).is_empty()
    }

    /// When the task ended, as record-info tells (`completeTime`).
    pub fn completed_at(&self) -> Option<Millis> {
        let raw = self.data.value("completeTime")?;
        times::read(&serde_json::from_str(raw.get()).ok()?)
    }

    /// What the body says if its code is taken to mean `deciding`: for answers whose code tells of the request instead of
    /// the task, such as the 422 of a repeated one. The event keeps the code that was written.
    pub fn event_by(&self, deciding: Option<i64>) -> Event {
        let (top, data, code) = (&self.top, &self.data, self.code());
        let mut media = media::announced(data);
        let class = outcome::class(deciding, data, !media.is_empty());
        if class != OutcomeClass::Success {
            media.clear();
        }
        let msg = texts::msg(class, top, data);
        let is_4k = outcome::is_4k(deciding, class, &msg, data);
        Event {
            class,
            // Under 200 a record tells of a failure inside.
            code: match code {
                None | Some(200) if class == OutcomeClass::Failure => fail_code(data).or(code),
                code => code,
            },
            failure: (class == OutcomeClass::Failure).then(|| failure(deciding, &msg, data)),
            resolution: texts::resolution(data),
            fallback: data.truth("fallbackFlag"),
            prompt: texts::prompt(data),
            credits: data
                .float("creditsConsumed")
                .or_else(|| data.float("consumeCredits")),
            media,
            kind_by_shape: is_4k.then(Kind::four_k),
            msg,
        }
    }
}

/// The code of the failure itself, where the family has one.
fn fail_code(data: &Fields<'_>) -> Option<i64> {
    let text = data.scalar("failCode").or_else(|| data.scalar("errorCode"))?;
    text.trim().parse().ok().filter(|code| !matches!(code, 0 | 200))
}

fn failure(code: Option<i64>, msg: &str, data: &Fields<'_>) -> Failure {
    let fail_code = data.scalar("failCode").or_else(|| data.scalar("errorCode"));
    let said = [Some(Cow::Borrowed(msg)), texts::detail(data), data.text("status")];
    let said: Vec<Cow<'_, str>> = said.into_iter().flatten().collect();
    Failure::classify(code, &said.join("\n"), fail_code.as_deref())
}

fn settle_task_id(top: &Fields<'_>, datas: &[Fields<'_>]) -> Result<TaskId, PayloadError> {
    let places = datas.iter().chain([top]);
    let named = places.flat_map(|fields| {
        ["taskId", "task_id"]
            .into_iter()
            .flat_map(|name| fields.all(name))
    });
    let candidates: Vec<Candidate<'_>> = named.filter_map(Candidate::of).collect();

    let first = candidates.first().ok_or(PayloadError::NoTaskId)?;
    if candidates.iter().any(|other| other.text != first.text) {
        return Err(PayloadError::TaskIdsDiffer);
    }
    refuse_twins(top, datas)?;
    if candidates.iter().any(|candidate| !candidate.is_scalar) {
        return Err(PayloadError::BadTaskId);
    }
    TaskId::from_str(&first.text).map_err(|_| PayloadError::BadTaskId)
}

/// Refuses a body that gives a decisive field twice.
fn refuse_twins(top: &Fields<'_>, datas: &[Fields<'_>]) -> Result<(), PayloadError> {
    for name in DECISIVE {
        if datas
            .iter()
            .chain([top])
            .any(|fields| fields.all(name).count() > 1)
        {
            return Err(PayloadError::DuplicateKey(name));
        }
    }
    Ok(())
}

/// The text of a body, without the byte order mark that some write before it.
fn text_of(body: &[u8]) -> Result<&str, std::str::Utf8Error> {
    std::str::from_utf8(body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body))
}

/// What stands in one of the places of the id.
struct Candidate<'a> {
    /// The string, or the source text of anything else.
    text: Cow<'a, str>,
    /// Whether it is a string or a number.
    is_scalar: bool,
}

impl<'a> Candidate<'a> {
    /// `None` if `raw` is null or the empty string, which count as absent.
    fn of(raw: &'a RawValue) -> Option<Self> {
        let string = fields::string(raw);
        let is_scalar = string.is_some() || fields::is_number(raw);
        let text = string.unwrap_or(Cow::Borrowed(raw.get()));
        let absent = text.is_empty() || raw.get() == "null";
        (!absent).then_some(Self { text, is_scalar })
    }
}

/// `text` up to the length kept of messages and prompts.
fn cut_text(text: &str) -> String {
    cut_to(text, MAX_TEXT_BYTES)
}

/// A text that a database takes: without NUL, which nobody misses, and no longer than `max` bytes.
fn cut_to(text: &str, max: usize) -> String {
    if text.contains('\0') {
        return cut(&text.replace('\0', "\u{fffd}"), max).to_owned();
    }
    cut(text, max).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(body: &str) -> &'static str {
        Document::parse(body.as_bytes()).map_or_else(|error| error.reason(), |_| "accepted")
    }

    #[test]
    fn bodies_that_are_no_json_object_are_refused() {
        for body in [
            "",
            " ",
            "\u{feff}",
            "null",
            "7",
            r#""taskId""#,
            r#"[{"taskId":"a"}]"#,
            r#"{"taskId":"a"}}"#,
            r#"{"taskId":"a"} x"#,
            r#"{"taskId":"a",}"#,
            r#"{"taskId":"a""#,
            r#"{"taskId":'a'}"#,
            "{\"taskId\":\"a\",\"msg\":\"line\nbreak\"}",
            "{\"taskId\":\"a\",\"line\nbreak\":1,\"data\":{}}",
            "{\"taskId\":\"a\",\"data\":{\"line\nbreak\":1}}",
        ] {
            assert_eq!(reason(body), "not_json", "{body:?}");
        }
        let invalid_utf8 = Document::parse(b"{\"taskId\":\"a\",\"msg\":\"\xff\"}").unwrap_err();
        assert_eq!(invalid_utf8.reason(), "not_json");
    }

    #[test]
    fn a_byte_order_mark_and_white_space_are_tolerated() {
        let document = Document::parse("\u{feff} {\"taskId\":\"a\"}\r\n".as_bytes()).unwrap();
        assert_eq!(document.task_id().as_str(), "a");
    }

    #[test]
    fn the_id_is_found_in_each_of_its_places() {
        for body in [
            r#"{"data":{"taskId":"a"}}"#,
            r#"{"data":{"task_id":"a"}}"#,
            r#"{"taskId":"a","data":null}"#,
            r#"{"task_id":"a"}"#,
            r#"{"taskId":"a","data":{"task_id":"a"}}"#,
            r#"{"taskId":null,"task_id":"","data":{"taskId":"a"}}"#,
            r#"{"\u0074askId":"\u0061"}"#,
            r#"{"taskId":"a","data":[{"taskId":"b"}]}"#,
        ] {
            let document = Document::parse(body.as_bytes()).unwrap();
            assert_eq!(document.task_id().as_str(), "a", "{body}");
        }
    }

    #[test]
    fn a_numeric_id_counts_by_its_source_text() {
        let document = Document::parse(
            br#"{"taskId":12345678901234567890123,"data":{"task_id":"12345678901234567890123"}}"#,
        );
        assert_eq!(document.unwrap().task_id().as_str(), "12345678901234567890123");
        assert_eq!(reason(r#"{"taskId":1.0,"task_id":1}"#), "task_ids_differ");
    }

    #[test]
    fn the_first_error_that_applies_is_given() {
        for (body, expected) in [
            ("{}", "no_task_id"),
            (r#"{"code":200,"code":200}"#, "no_task_id"),
            (r#"{"data":{"taskId":"","task_id":null}}"#, "no_task_id"),
            (r#"{"code":200,"data":null}"#, "no_task_id"),
            (r#"{"taskId":"a","data":{"taskId":"b"}}"#, "task_ids_differ"),
            (r#"{"taskId":"a","taskId":"b"}"#, "task_ids_differ"),
            (
                r#"{"taskId":"a","task_id":true,"code":1,"code":1}"#,
                "task_ids_differ",
            ),
            (
                r#"{"data":{"taskId":"a"},"data":{"taskId":"b"}}"#,
                "task_ids_differ",
            ),
            (r#"{"taskId":"a","taskId":"a"}"#, "duplicate_key"),
            (r#"{"taskId":"a","\u0074askId":"a"}"#, "duplicate_key"),
            (r#"{"taskId":"a","taskId":null}"#, "duplicate_key"),
            (r#"{"taskId":"/","code":200,"code":500}"#, "duplicate_key"),
            (r#"{"taskId":"a","data":{},"data":null}"#, "duplicate_key"),
            (r#"{"data":{"taskId":"a","code":1,"code":2}}"#, "duplicate_key"),
            (r#"{"data":{"taskId":"a","data":[],"data":[]}}"#, "duplicate_key"),
            (r#"{"taskId":true}"#, "bad_task_id"),
            (r#"{"taskId":{}}"#, "bad_task_id"),
            (r#"{"taskId":["a"]}"#, "bad_task_id"),
            (r#"{"taskId":" a"}"#, "bad_task_id"),
            (r#"{"taskId":"../a"}"#, "bad_task_id"),
            (
                r#"{"taskId":"a","msg":1,"msg":2,"data":{"info":{"code":1,"code":2}}}"#,
                "accepted",
            ),
        ] {
            assert_eq!(reason(body), expected, "{body}");
        }
    }

    #[test]
    fn errors_say_what_to_do_and_repeat_nothing_of_the_body() {
        let errors = [
            Document::parse(br#"{"taskId":"a","secret"#).unwrap_err(),
            Document::parse(br#""secret""#).unwrap_err(),
            Document::parse(br#"{"taskId":"secret","data":{"taskId":"a"}}"#).unwrap_err(),
            Document::parse(br#"{"taskId":["secret"]}"#).unwrap_err(),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(!text.contains("secret") && !text.ends_with('.'), "{text}");
        }
    }

    #[test]
    fn nesting_as_deep_as_the_body_is_long_is_no_trouble() {
        let deep = |open: &str, close: &str| format!("{}{}", open.repeat(200_000), close.repeat(200_000));
        for value in [deep("[", "]"), deep("{\"data\":[", "]}")] {
            let body = format!(
                r#"{{"taskId":"a","code":200,"data":{{"info":{value},"resultUrls":{value},"data":{value}}}}}"#
            );
            let event = Document::parse(body.as_bytes()).unwrap().event();
            assert_eq!(event.media, []);
        }
    }
}
