//! Going on where a transfer was cut: by what versions are told apart, and which answers continue which file (RFC 9110,
//! sections 13.1.5 and 14).
//!
//! Bytes of two versions must never meet in one file. So a transfer goes on only under a strong validator, only if the
//! answer is 206 for exactly the range that was asked for of a file of the same length, and only if that answer does not
//! contradict the validator itself. Everything else starts from nothing.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{
    CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE, LAST_MODIFIED,
    RANGE,
};

use crate::storage::{Note, Validator};

/// Longest validator that is kept: it goes into a note and into requests.
const LONGEST: usize = 1024;

/// By what a server tells this version of a file from others: a strong `ETag`, else `Last-Modified` of a file whose length is
/// known. `None` if it gives neither.
pub fn validator(headers: &HeaderMap, length: Option<u64>) -> Option<Validator> {
    let etag = text(headers, &ETAG).filter(|etag| is_strong(etag));
    if let Some(etag) = etag {
        return Some(Validator::Etag(etag.to_owned()));
    }
    length?;
    let modified = text(headers, &LAST_MODIFIED)?;
    is_past(modified, text(headers, &DATE)).then(|| Validator::LastModified(modified.to_owned()))
}

fn is_strong(etag: &str) -> bool {
    etag.len() > 2 && etag.len() <= LONGEST && etag.starts_with('"') && etag.ends_with('"')
}

/// Within the second of a change a file may change again under the same `Last-Modified`.
fn is_past(modified: &str, date: Option<&str>) -> bool {
    let parse = |text| httpdate::parse_http_date(text).ok();
    let Some(modified) = parse(modified) else {
        return false;
    };
    date.is_none_or(|date| parse(date).is_some_and(|date| modified + Duration::from_secs(1) <= date))
}

/// The headers that ask for the rest of a file of which so many bytes are there; `None` if nothing can be asked.
pub fn ask_for_rest(note: &Note, bytes: u64) -> Option<HeaderMap> {
    let validator = HeaderValue::from_str(note.validator.as_ref()?.if_range()).ok()?;
    let range = HeaderValue::from_str(&format!("bytes={bytes}-")).ok()?;
    Some(HeaderMap::from_iter([(RANGE, range), (IF_RANGE, validator)]))
}

/// What an answer to [`ask_for_rest`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The rest of the file, whose length in all is this.
    Rest {
        /// The whole file, in bytes.
        total: u64,
        /// How many of them this answer brings.
        brings: u64,
    },
    /// Of no use; the file is to be asked for from its beginning.
    Useless,
    /// Anything but 206 and 416, to be judged like the answer to a plain request: 200 is the whole file.
    Plain,
}

/// Judges the answer to a request for the rest of a file of which so many bytes are there.
pub fn judge(status: StatusCode, headers: &HeaderMap, note: &Note, bytes: u64) -> Answer {
    match status {
        StatusCode::PARTIAL_CONTENT => {}
        StatusCode::RANGE_NOT_SATISFIABLE => return Answer::Useless,
        _ => return Answer::Plain,
    }
    // Parts in an envelope are not the bytes of the file, whichever range they are said to be.
    let is_enveloped = text(headers, &CONTENT_TYPE).is_some_and(|kind| {
        kind.get(..10)
            .is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/"))
    });
    if is_enveloped || headers.get_all(CONTENT_RANGE).iter().count() > 1 {
        return Answer::Useless;
    }
    let continues = |range: &ContentRange| {
        range.first == bytes && note.total.is_none_or(|total| total == range.total) && agrees(headers, note)
    };
    match text(headers, &CONTENT_RANGE).and_then(ContentRange::parse) {
        Some(range) if continues(&range) => Answer::Rest {
            total: range.total,
            brings: range.last - range.first + 1,
        },
        _ => Answer::Useless,
    }
}

/// Whether an answer says nothing else of the version than what is known, and the tag again if there is one.
fn agrees(headers: &HeaderMap, note: &Note) -> bool {
    let same = |name: &HeaderName, known: &str| {
        headers
            .get_all(name)
            .iter()
            .all(|told| told.as_bytes() == known.as_bytes())
    };
    match &note.validator {
        // An answer of 206 has the tag that 200 would have had.
        Some(Validator::Etag(etag)) => headers.contains_key(ETAG) && same(&ETAG, etag),
        // Of this version the server gave no strong tag, or that would be the validator.
        Some(Validator::LastModified(modified)) => {
            same(&LAST_MODIFIED, modified) && !text(headers, &ETAG).is_some_and(is_strong)
        }
        None => false,
    }
}

/// `bytes first-last/total`; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// The first byte.
    pub first: u64,
    /// The last byte.
    pub last: u64,
    /// The length of the whole file.
    pub total: u64,
}

impl ContentRange {
    /// Reads a range of a known length that lies within it; anything else is `None`.
    pub fn parse(value: &str) -> Option<Self> {
        let (unit, range) = value.trim().split_once(' ')?;
        let (range, total) = range.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let parsed = Self {
            first: number(first)?,
            last: number(last)?,
            total: number(total)?,
        };
        let is_sound = parsed.first <= parsed.last && parsed.last < parsed.total;
        (unit.eq_ignore_ascii_case("bytes") && is_sound).then_some(parsed)
    }
}

/// Digits only: no sign, which `parse` would take.
fn number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        };
        pairs.iter().map(pair).collect()
    }

    const THEN: &str = "Sun, 22 Nov 2026 04:00:00 GMT";
    const LATER: &str = "Sun, 22 Nov 2026 04:00:01 GMT";

    #[test]
    fn only_what_tells_versions_apart_for_sure_is_a_validator() {
        let of = |pairs: &[_], length| validator(&headers(pairs), length);
        let etag = || Some(Validator::Etag("\"a\"".to_owned()));
        let modified = || Some(Validator::LastModified(THEN.to_owned()));
        assert_eq!(of(&[("etag", "\"a\""), ("last-modified", THEN)], None), etag());
        for weak in ["W/\"a\"", "a", "\"", "\"\"", ""] {
            assert_eq!(of(&[("etag", weak)], Some(9)), None, "{weak}");
            let with_date = [("etag", weak), ("last-modified", THEN), ("date", LATER)];
            assert_eq!(of(&with_date, Some(9)), modified(), "{weak}");
        }
        assert_eq!(of(&[("last-modified", THEN)], Some(9)), modified());
        assert_eq!(of(&[("last-modified", THEN)], None), None, "no length");
        assert_eq!(
            of(&[("last-modified", THEN), ("date", THEN)], Some(9)),
            None,
            "just changed"
        );
        assert_eq!(of(&[("last-modified", "yesterday")], Some(9)), None);
        assert_eq!(of(&[], Some(9)), None);
    }

    fn note(validator: Validator, total: Option<u64>) -> Note {
        Note {
            source: String::new(),
            task_id: String::new(),
            url: String::new(),
            validator: Some(validator),
            total,
        }
    }

    /// Of a file of which four bytes are there.
    fn judged(note: &Note, status: u16, pairs: &[(&'static str, &str)]) -> Answer {
        judge(StatusCode::from_u16(status).unwrap(), &headers(pairs), note, 4)
    }

    #[test]
    fn only_the_very_rest_of_the_same_version_continues_a_file() {
        let etag = note(Validator::Etag("\"a\"".to_owned()), Some(10));
        let rest = Answer::Rest { total: 10, brings: 6 };
        let (range, same) = (("content-range", "bytes 4-9/10"), ("etag", "\"a\""));
        assert_eq!(judged(&etag, 206, &[range, same]), rest);
        assert_eq!(judged(&etag, 206, &[range]), Answer::Useless, "of which version?");
        let part = ("content-range", "bytes 4-6/10");
        assert_eq!(
            judged(&etag, 206, &[part, same]),
            Answer::Rest { total: 10, brings: 3 }
        );
        for other in [
            "bytes 3-9/10",
            "bytes 5-9/10",
            "bytes 4-9/11",
            "bytes 4-9/*",
            "bytes */10",
            "nonsense",
        ] {
            assert_eq!(
                judged(&etag, 206, &[("content-range", other), same]),
                Answer::Useless,
                "{other}"
            );
        }
        assert_eq!(
            judged(&etag, 206, &[same]),
            Answer::Useless,
            "multipart has no Content-Range"
        );
        for changed in ["\"b\"", "W/\"a\""] {
            assert_eq!(judged(&etag, 206, &[range, ("etag", changed)]), Answer::Useless);
        }
        for envelope in ["multipart/byteranges; boundary=x", "Multipart/Byteranges"] {
            assert_eq!(
                judged(&etag, 206, &[range, same, ("content-type", envelope)]),
                Answer::Useless
            );
        }
        let kind = ("content-type", "video/mp4");
        assert_eq!(judged(&etag, 206, &[range, same, kind]), rest);
        assert_eq!(judged(&etag, 416, &[]), Answer::Useless);
        for plain in [200, 403, 503] {
            assert_eq!(judged(&etag, plain, &[range]), Answer::Plain);
        }
        let unknown = note(Validator::Etag("\"a\"".to_owned()), None);
        assert_eq!(judged(&unknown, 206, &[range, same]), rest);
    }

    #[test]
    fn a_rest_under_another_date_or_a_tag_of_its_own_is_of_another_version() {
        let rest = Answer::Rest { total: 10, brings: 6 };
        let range = ("content-range", "bytes 4-9/10");
        let modified = note(Validator::LastModified(THEN.to_owned()), Some(10));
        assert_eq!(judged(&modified, 206, &[range]), rest);
        assert_eq!(
            judged(&modified, 206, &[range, ("last-modified", LATER)]),
            Answer::Useless
        );
        assert_eq!(
            judged(&modified, 206, &[range, ("etag", "\"new\"")]),
            Answer::Useless
        );
        assert_eq!(judged(&modified, 206, &[range, ("etag", "W/\"a\"")]), rest);
    }

    #[test]
    fn a_content_range_is_read_strictly() {
        let range = |first, last, total| Some(ContentRange { first, last, total });
        assert_eq!(ContentRange::parse("bytes 0-0/1"), range(0, 0, 1));
        assert_eq!(ContentRange::parse(" Bytes 5-6/7 "), range(5, 6, 7));
        for bad in [
            "",
            "bytes",
            "bytes 0-0",
            "bytes 1-0/2",
            "bytes 0-2/2",
            "bytes +0-1/2",
            "bytes 0-1/+2",
            "bytes -1/2",
            "bytes 0-1/99999999999999999999",
            "items 0-1/2",
            "bytes=0-1/2",
            "bytes 0-1/2/3",
            "bytes 0-1,3-4/9",
        ] {
            assert_eq!(ContentRange::parse(bad), None, "{bad}");
        }
    }
}
