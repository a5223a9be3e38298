//! JSON objects as lists of undecoded fields: nothing is built for what nobody asks for.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// How many fields of one object are kept; no documented object has more than about thirty.
const MAX_FIELDS: usize = 256;
/// How many of the fields that decide identity and outcome are kept in addition, however many fields precede them.
const MAX_DECISIVE: usize = 64;
/// The fields which must not be given twice, since two parsers could disagree on which one counts.
pub(super) const DECISIVE: [&str; 4] = ["data", "taskId", "task_id", "code"];

/// The fields of one object, undecoded, in the order of the text.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    entries: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// The [`mark`]s of all names: most of those that are asked for are in no object, and few of them get past this.
    marks: u64,
}

/// One of 64 bits, by length and first letter.
fn mark(name: &str) -> u64 {
    let first = name.bytes().next().unwrap_or_default();
    1 << ((usize::from(first) * 7 + name.len()) % 64)
}

impl<'a> Fields<'a> {
    /// Reads `text`, which must be one JSON object and nothing after it.
    pub(super) fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Reads an object around one object called `inner` in one pass: the fields beside `inner`, and its own.
    ///
    /// `None` if `text` is anything else, be it no JSON, or is so unusual that it has to be read with more care: more
    /// fields than are kept, or control characters in their names.
    pub(super) fn parse_enclosing(text: &'a str, inner: &'static str) -> Option<(Self, Self)> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let both = deserializer.deserialize_map(EnclosingVisitor { inner }).ok()?;
        deserializer.end().ok()?;
        Some(both)
    }

    /// The fields of `raw`, unless it is something else than an object.
    pub(super) fn of(raw: &'a RawValue) -> Option<Self> {
        if !is_object(raw) {
            return None;
        }
        Self::parse(raw.get()).ok()
    }

    fn push(&mut self, name: Cow<'a, str>, raw: &'a RawValue) {
        self.marks |= mark(&name);
        self.entries.push((name, raw));
    }

    /// Every occurrence of `name`, nulls included.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &'a RawValue> {
        let entries = if self.marks & mark(name) == 0 {
            &[]
        } else {
            self.entries.as_slice()
        };
        entries
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, raw)| *raw)
    }

    /// The names, in the order of the text.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.entries.iter().map(|(key, raw)| (key.as_ref(), *raw))
    }

    /// Whether `name` is there, even as null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// The value of `name` (of the last one, as most parsers have it), unless it is missing or null.
    pub(super) fn value(&self, name: &str) -> Option<&'a RawValue> {
        self.all(name).last().filter(|raw| raw.get() != "null")
    }

    /// The string under `name`, trimmed, unless it is missing, blank or no string.
    pub(super) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.value(name)
            .and_then(string)
            .map(trimmed)
            .filter(|text| !text.is_empty())
    }

    /// The string or number under `name` as text, unless missing or blank.
    pub(super) fn scalar(&self, name: &str) -> Option<Cow<'a, str>> {
        let raw = self.value(name)?;
        if is_number(raw) {
            return Some(Cow::Borrowed(raw.get()));
        }
        self.text(name)
    }

    /// The whole number under `name`, be it written `200`, `200.0` or `"200"`.
    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        whole_number(&self.scalar(name)?)
    }

    /// The finite number under `name`, be it a number or a numeric string.
    pub(super) fn float(&self, name: &str) -> Option<f64> {
        self.scalar(name)?
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite())
    }

    /// The truth value under `name`, be it a literal or its word.
    pub(super) fn truth(&self, name: &str) -> Option<bool> {
        let raw = self.value(name)?;
        raw.get().trim_matches('"').to_ascii_lowercase().parse().ok()
    }
}

/// Whether `raw` is an object.
pub(super) fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

/// Whether `raw` is an array.
pub(super) fn is_array(raw: &RawValue) -> bool {
    raw.get().starts_with('[')
}

/// Whether `raw` is a number.
pub(super) fn is_number(raw: &RawValue) -> bool {
    raw.get()
        .starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// The string `raw` stands for, unless it is no string. Lone surrogates become replacement characters.
pub(super) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let quoted = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if !quoted.contains('\\') {
        return Some(Cow::Borrowed(quoted));
    }
    serde_json::from_str(raw.get()).ok().map(|Text(text)| text)
}

/// Calls `visit` with the elements of the array `raw`, one at a time.
pub(super) fn for_each_element<'a>(raw: &'a RawValue, visit: impl FnMut(&'a RawValue)) {
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    // `raw` is valid JSON; what can fail is only that it is no array, which has no elements.
    let _ = deserializer.deserialize_seq(Elements(visit));
}

/// Calls `visit` with the fields of `raw`: an object, or a string that holds an object, as the provider encodes some.
/// Whatever else it is, is passed over.
pub(super) fn with_object<T>(raw: &RawValue, visit: impl FnOnce(&Fields<'_>) -> Option<T>) -> Option<T> {
    if is_object(raw) {
        return visit(&Fields::of(raw)?);
    }
    let mut text = string(raw)?;
    if text.trim_start().starts_with('"') {
        // Encoded once more, as a string within the string.
        text = Cow::Owned(serde_json::from_str::<Text<'_>>(&text).ok()?.0.into_owned());
    }
    visit(&Fields::parse(&text).ok()?)
}

/// `text` up to `max` bytes, cut between characters.
pub(super) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) if text.trim().len() == text.len() => Cow::Owned(text),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    }
}

fn whole_number(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let number: f64 = text.parse().ok()?;
    if !number.is_finite() || number.fract() != 0.0 {
        return None;
    }
    format!("{number:.0}").parse().ok()
}

/// A string, read as bytes because the provider's strings need not be valid Unicode once unescaped.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(TextVisitor).map(Self)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        // What is valid is found to be so much faster by `from_utf8`.
        Ok(std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        let text = std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed);
        Ok(Cow::Owned(text.into_owned()))
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        let mut decisive = 0;
        while let Some((Text(key), raw)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
            if DECISIVE.contains(&key.as_ref()) && decisive < MAX_DECISIVE {
                decisive += 1;
            } else if fields.entries.len() >= MAX_FIELDS + decisive {
                continue;
            }
            fields.push(key, raw);
        }
        Ok(fields)
    }
}

struct EnclosingVisitor {
    inner: &'static str,
}

impl EnclosingVisitor {
    /// Whether `fields` are all there were, and named as JSON permits: names are read without looking for control
    /// characters.
    fn is_usual(fields: &Fields<'_>) -> bool {
        let is_plain = |name: &str| !name.bytes().any(|byte| byte.is_ascii_control());
        fields.entries.len() < MAX_FIELDS && fields.entries().all(|(name, _)| is_plain(name))
    }
}

impl<'de> Visitor<'de> for EnclosingVisitor {
    type Value = (Fields<'de>, Fields<'de>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object around one {}", self.inner)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut outer, mut inner) = (Fields::default(), None);
        while let Some(Text(name)) = map.next_key()? {
            if name == self.inner {
                if inner.replace(map.next_value()?).is_some() {
                    return Err(A::Error::duplicate_field(self.inner));
                }
            } else if outer.entries.len() < MAX_FIELDS {
                outer.push(name, map.next_value()?);
            } else {
                return Err(A::Error::invalid_length(MAX_FIELDS, &self));
            }
        }
        inner
            .filter(|inner| Self::is_usual(&outer) && Self::is_usual(inner))
            .map(|inner| (outer, inner))
            .ok_or_else(|| A::Error::custom("another shape"))
    }
}

struct Elements<F>(F);

impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for Elements<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some(raw) = elements.next_element::<&'de RawValue>()? {
            (self.0)(raw);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_every_spelling() {
        let fields =
            Fields::parse(r#"{"a":200,"b":"200","c":200.0,"d":" 200 ","e":2e2,"f":"x","g":true,"h":1e99}"#)
                .unwrap();
        for name in ["a", "b", "c", "d", "e"] {
            assert_eq!(fields.integer(name), Some(200), "{name}");
        }
        for name in ["f", "g", "h", "missing"] {
            assert_eq!(fields.integer(name), None, "{name}");
        }
    }

    #[test]
    fn keys_are_compared_unescaped_and_the_last_one_counts() {
        let fields = Fields::parse(r#"{"a\u0062":1,"ab":2,"\ud800":3}"#).unwrap();
        assert_eq!(fields.all("ab").count(), 2);
        assert_eq!(fields.integer("ab"), Some(2));
    }

    #[test]
    fn strings_with_lone_surrogates_are_still_read() {
        let fields = Fields::parse(r#"{"msg":"a\ud800b"}"#).unwrap();
        let text = fields.text("msg").unwrap();
        assert!(text.starts_with('a') && text.ends_with('b'), "{text:?}");
    }

    #[test]
    fn decisive_fields_are_found_behind_any_number_of_others() {
        let filler = "\"k\":0,".repeat(1000);
        let text = format!("{{{filler}\"taskId\":\"a\",\"x\":1,\"taskId\":\"b\"}}");
        let fields = Fields::parse(&text).unwrap();
        assert_eq!(fields.all("taskId").count(), 2);
        assert!(fields.entries().count() <= MAX_FIELDS + MAX_DECISIVE);
    }

    #[test]
    fn an_object_around_another_is_read_in_one_pass() {
        let (outer, inner) = Fields::parse_enclosing(r#"{"a":1,"in":{"b":[2],"in":3},"a":4}"#, "in").unwrap();
        assert_eq!(
            outer.entries().map(|(name, _)| name).collect::<Vec<_>>(),
            ["a", "a"]
        );
        assert_eq!(
            inner.entries().map(|(name, _)| name).collect::<Vec<_>>(),
            ["b", "in"]
        );
        assert_eq!((outer.integer("a"), inner.integer("in")), (Some(4), Some(3)));
    }

    #[test]
    fn what_wants_more_care_is_left_to_another() {
        let many = "\"k\":0,".repeat(MAX_FIELDS);
        for text in [
            "{}",
            "[]",
            r#"{"a":1}"#,
            r#"{"in":null}"#,
            r#"{"in":[{}]}"#,
            r#"{"in":{},"in":{}}"#,
            r#"{"in":{},"\u0069n":{}}"#,
            r#"{"in":{}} x"#,
            r#"{"in":{},}"#,
            "{\"in\":{},\"line\nbreak\":1}",
            "{\"in\":{\"line\nbreak\":1}}",
            &format!(r#"{{{many}"in":{{}},"x":1}}"#),
            &format!("{{\"in\":{{{many}\"line\nbreak\":1}}}}"),
        ] {
            assert!(Fields::parse_enclosing(text, "in").is_none(), "{text:?}");
        }
    }

    #[test]
    fn cutting_never_splits_a_character() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("a", 9), "a");
    }
}
