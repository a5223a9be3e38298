//! Moments as the provider writes them, which differ between its endpoints and between editions of its pages.

use serde_json::Value;

use crate::clock::{Millis, parse_rfc3339};

/// Numbers above this are milliseconds, those up to it seconds: 5138 in seconds, 1973 in milliseconds.
const MOST_SECONDS: f64 = 1e11;
/// The end of the year 9999; later moments are no moments.
const LATEST: Millis = 253_402_300_799_999;

/// Reads a moment: a number of seconds or milliseconds since 1970, also written as a string, RFC 3339, or
/// `YYYY-MM-DD HH:MM:SS`. `None` if it is null, zero, blank or anything else.
///
/// The form without a zone is taken as UTC: the provider says of no page which zone it means.
pub fn read(value: &Value) -> Option<Millis> {
    match value {
        Value::Number(number) => from_number(number.as_f64()?),
        Value::String(text) => read_text(text.trim()),
        _ => None,
    }
}

fn read_text(text: &str) -> Option<Millis> {
    if let Ok(number) = text.parse() {
        return from_number(number);
    }
    let zoneless = || text.parse::<jiff::civil::DateTime>().ok();
    let in_utc = || zoneless()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    parse_rfc3339(text)
        .or_else(|| Some(in_utc()?.timestamp().as_millisecond()))
        .filter(|at| (1..=LATEST).contains(at))
}

fn from_number(number: f64) -> Option<Millis> {
    let millis = if number > MOST_SECONDS {
        number
    } else {
        number * 1000.0
    };
    if !millis.is_finite() || millis < 1.0 {
        return None;
    }
    // By way of text: there is no lossless conversion, and `as` would hide what does not fit.
    let at: Millis = format!("{millis:.0}").parse().ok()?;
    (at <= LATEST).then_some(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// 2025-06-06 10:30:00 UTC.
    const AT: Millis = 1_749_205_800_000;

    #[test]
    fn every_documented_form_is_read() {
        for value in [
            json!(1_749_205_800),
            json!(1_749_205_800.0),
            json!(1_749_205_800_000_i64),
            json!("1749205800"),
            json!("1749205800000"),
            json!("2025-06-06T10:30:00Z"),
            json!("2025-06-06T10:30:00.000Z"),
            json!("2025-06-06T18:30:00+08:00"),
            json!("2025-06-06 10:30:00"),
            json!("2025-06-06T10:30:00"),
            json!(" 2025-06-06 10:30:00 "),
        ] {
            assert_eq!(read(&value), Some(AT), "{value}");
        }
        assert_eq!(read(&json!("2025-06-06 10:30:00.5")), Some(AT + 500));
        assert_eq!(read(&json!(1_749_205_800.25)), Some(AT + 250));
    }

    #[test]
    fn what_is_no_moment_is_none() {
        for value in [
            json!(null),
            json!(0),
            json!(-1),
            json!(1e300),
            json!(true),
            json!([1]),
            json!({}),
            json!(""),
            json!("0"),
            json!("NaN"),
            json!("inf"),
            json!("yesterday"),
            json!("2025-06-06 25:30:00"),
            json!("2025-13-06"),
            json!("-009999-01-01T00:00:00Z"),
        ] {
            assert_eq!(read(&value), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn nothing_upsets_the_reader(text in ".{0,40}", number in any::<f64>()) {
            let read_as = |value: Value| read(&value).is_none_or(|at| (1..=LATEST).contains(&at));
            prop_assert!(read_as(json!(text)));
            prop_assert!(read_as(json!(number)));
        }
    }
}
