//! How single values are written: each reader says what to write instead of what it found.
//!
//! None of them lets serde describe a wrong value itself: serde quotes the value, and the value may be a secret.

#![expect(
    clippy::ref_option,
    reason = "serde hands a serializer a reference to the field as it is"
)]

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use jiff::SpanRelativeTo;
use jiff::fmt::friendly::{SpanParser, SpanPrinter};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::Value;
use url::Url;

use super::secret::Secret;
use super::{Layout, Serve};

/// Reads text by `parse`; `wanted` completes "expected …".
fn text_as<'de, D, T>(deserializer: D, wanted: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    match Value::deserialize(deserializer)? {
        Value::String(text) => {
            parse(&text).ok_or_else(|| D::Error::custom(format!("expected {wanted}, found {text:?}")))
        }
        other => Err(mismatch(wanted, &other)),
    }
}

/// Reads a list of texts, each by `parse`.
fn list_of<'de, D, T>(
    deserializer: D,
    wanted: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
{
    match Value::deserialize(deserializer)? {
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::String(text) => parse(text).ok_or_else(|| {
                    D::Error::custom(format!("expected {wanted}, found {text:?} in the list"))
                }),
                other => Err(mismatch(&format!("{wanted} with quoted texts in it"), other)),
            })
            .collect(),
        other => Err(mismatch(wanted, &other)),
    }
}

/// Names the type found, never the value.
fn mismatch<E: serde::de::Error>(wanted: &str, found: &Value) -> E {
    let found = match found {
        Value::String(_) => "a text",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date or time",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
    };
    E::custom(format!("expected {wanted}, found {found}"))
}

/// `"30s"`, `"5m"`, `"1h 30m"`.
pub(super) mod duration {
    use super::{Deserializer, Duration, Serializer, SpanParser, SpanPrinter, SpanRelativeTo, text_as};

    const DAY: u64 = 24 * 60 * 60;

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        text_as(d, "a duration such as \"30s\", \"5m\" or \"1h 30m\"", parse)
    }

    pub(super) fn parse(text: &str) -> Option<Duration> {
        let span = SpanParser::new().parse_span(text.trim()).ok()?;
        let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
        Duration::try_from(duration).ok()
    }

    pub(in super::super) fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        if value.subsec_nanos() == 0 && value.as_secs().is_multiple_of(DAY) && !value.is_zero() {
            return s.collect_str(&format_args!("{}d", value.as_secs() / DAY));
        }
        s.serialize_str(&SpanPrinter::new().unsigned_duration_to_string(value))
    }
}

/// An age such as `"90d"`, where `"off"` means that nothing is ever too old.
pub(super) mod age {
    use super::{Deserializer, Duration, Serializer, duration, text_as};

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Duration>, D::Error> {
        text_as(d, "an age such as \"90d\" or \"12h\", or \"off\"", |text| {
            if text.trim() == "off" {
                return Some(None);
            }
            duration::parse(text).map(Some)
        })
    }

    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            None => s.serialize_str("off"),
            Some(age) => duration::serialize(age, s),
        }
    }
}

/// `"4MiB"`, `"500MB"`, or a plain number of bytes.
pub(super) mod size {
    use super::{ByteSize, Deserialize, Deserializer, Serializer, Value, mismatch};
    use serde::de::Error as _;

    const WANTED: &str = "a size such as \"4MiB\" (binary), \"4MB\" (decimal) or a number of bytes";

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        match Value::deserialize(d)? {
            Value::Integer(bytes) => u64::try_from(bytes)
                .map_err(|_| D::Error::custom(format!("expected {WANTED}, found a negative number"))),
            Value::String(text) => text
                .trim()
                .parse()
                .map(|ByteSize(bytes)| bytes)
                .map_err(|_| D::Error::custom(format!("expected {WANTED}, found {text:?}"))),
            other => Err(mismatch(WANTED, &other)),
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
    pub(in super::super) fn serialize<S: Serializer>(value: &u64, s: S) -> Result<S::Ok, S::Error> {
        const UNITS: [(&str, u64); 4] = [
            ("TiB", 1 << 40),
            ("GiB", 1 << 30),
            ("MiB", 1 << 20),
            ("KiB", 1 << 10),
        ];
        let exact = UNITS
            .iter()
            .find(|(_, unit)| *value > 0 && value.is_multiple_of(*unit));
        s.serialize_str(&match exact {
            Some((name, unit)) => format!("{}{name}", value / unit),
            None => format!("{value}B"),
        })
    }
}

/// A size, or `"auto"` for none.
pub(super) mod auto_size {
    use super::{Deserializer, Serializer, show_size_or, size_or};

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
        size_or("auto", d)
    }

    pub(in super::super) fn serialize<S: Serializer>(value: &Option<u64>, s: S) -> Result<S::Ok, S::Error> {
        show_size_or("auto", *value, s)
    }
}

/// A size, or `"off"` for no bound.
pub(super) mod bound {
    use super::{Deserializer, Serializer, show_size_or, size_or};

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
        size_or("off", d)
    }

    pub(in super::super) fn serialize<S: Serializer>(value: &Option<u64>, s: S) -> Result<S::Ok, S::Error> {
        show_size_or("off", *value, s)
    }
}

/// A size, or none where this word stands.
fn size_or<'de, D: Deserializer<'de>>(word: &str, d: D) -> Result<Option<u64>, D::Error> {
    let value = Value::deserialize(d)?;
    if value.as_str().map(str::trim) == Some(word) {
        return Ok(None);
    }
    size::deserialize(value)
        .map(Some)
        .map_err(|error| D::Error::custom(format!("{error}; or {word:?}")))
}

fn show_size_or<S: Serializer>(word: &str, value: Option<u64>, s: S) -> Result<S::Ok, S::Error> {
    match value {
        None => s.serialize_str(word),
        Some(bytes) => size::serialize(&bytes, s),
    }
}

/// A text where `""` means none.
pub(super) mod blank {
    use super::{Deserializer, Display, FromStr, Serializer, text_as};

    pub(in super::super) fn deserialize<'de, D, T>(d: D) -> Result<Option<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: FromStr,
    {
        text_as(d, "a text in quotes", |text| {
            if text.trim().is_empty() {
                Some(None)
            } else {
                text.trim().parse().ok().map(Some)
            }
        })
    }

    pub(in super::super) fn serialize<S, T>(value: &Option<T>, s: S) -> Result<S::Ok, S::Error>
    where
        S: Serializer,
        T: Display,
    {
        match value {
            Some(value) => s.collect_str(value),
            None => s.serialize_str(""),
        }
    }
}

/// A path where `""` means none.
pub(super) mod blank_path {
    use super::{Deserializer, PathBuf, Serializer, text_as};

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        text_as(d, "a path in quotes", |text| {
            Some((!text.is_empty()).then(|| PathBuf::from(text)))
        })
    }

    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<PathBuf>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        let path = value.as_deref().map(|path| path.to_string_lossy());
        s.serialize_str(&path.unwrap_or_default())
    }
}

/// Reads an optional URL; `""` means none.
pub(super) fn blank_url<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Url>, D::Error> {
    text_as(
        d,
        "an absolute URL such as \"https://hooks.example.com\"",
        |text| match text.trim() {
            "" => Some(None),
            text => text.parse().ok().map(Some),
        },
    )
}

/// Reads an absolute URL.
pub(super) fn url<'de, D: Deserializer<'de>>(d: D) -> Result<Url, D::Error> {
    text_as(d, "an absolute URL such as \"https://api.kie.ai\"", |text| {
        text.trim().parse().ok()
    })
}

/// Reads an address with its port.
pub(super) fn address<'de, D: Deserializer<'de>>(d: D) -> Result<SocketAddr, D::Error> {
    text_as(
        d,
        "an IP address and a port such as \"127.0.0.1:8080\" or \"[::]:8080\"",
        |text| text.trim().parse().ok(),
    )
}

/// Reads an optional address with its port; `""` means none.
pub(super) fn blank_address<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SocketAddr>, D::Error> {
    text_as(
        d,
        "an IP address and a port such as \"127.0.0.1:8081\", or \"\" for none",
        |text| match text.trim() {
            "" => Some(None),
            text => text.parse().ok().map(Some),
        },
    )
}

/// Reads a list of networks; a bare address is the network of that one address.
pub(super) fn networks<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<IpNet>, D::Error> {
    list_of(
        d,
        "a list of networks or addresses such as [\"10.0.0.0/8\", \"::1\"]",
        |text| {
            let text = text.trim();
            text.parse()
                .ok()
                .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
        },
    )
}

/// Reads a path; an empty one is refused.
pub(super) fn path<'de, D: Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
    text_as(d, "a path such as \"data\" or \"/var/lib/reelhook\"", |text| {
        (!text.trim().is_empty()).then(|| PathBuf::from(text))
    })
}

/// Reads any text.
pub(super) fn text<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    text_as(d, "a text in quotes", |text| Some(text.trim().to_owned()))
}

/// Reads a list of texts.
pub(super) fn texts<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    list_of(d, "a list such as [\"one\", \"two\"]", |text| {
        Some(text.trim().to_owned())
    })
}

/// Reads a list of secrets.
pub(super) fn secrets<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Secret>, D::Error> {
    list_of(d, "a list such as [\"one\", \"two\"]", |text| {
        Some(Secret::new(text))
    })
}

/// An optional secret, where `""` means none.
pub(super) mod blank_secret {
    use super::{Deserializer, Secret, Serialize, Serializer, text_as};

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Secret>, D::Error> {
        text_as(d, "a text in quotes", |text| {
            Some((!text.is_empty()).then(|| Secret::new(text)))
        })
    }

    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<Secret>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(secret) => secret.serialize(s),
            None => s.serialize_str(""),
        }
    }
}

/// Reads `true` or `false`.
pub(super) fn flag<'de, D: Deserializer<'de>>(d: D) -> Result<bool, D::Error> {
    match Value::deserialize(d)? {
        Value::Boolean(flag) => Ok(flag),
        other => Err(mismatch("true or false, without quotes", &other)),
    }
}

/// Reads `true` or `false` where absence means something of its own.
pub(super) fn choice<'de, D: Deserializer<'de>>(d: D) -> Result<Option<bool>, D::Error> {
    flag(d).map(Some)
}

/// Reads a number of things, at least one.
pub(super) fn count<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64>,
{
    const WANTED: &str = "a whole number, 1 or more";
    match Value::deserialize(d)? {
        Value::Integer(number) => (number > 0)
            .then(|| T::try_from(number).ok())
            .flatten()
            .ok_or_else(|| D::Error::custom(format!("expected {WANTED}, found {number}"))),
        other => Err(mismatch(WANTED, &other)),
    }
}

/// Reads a list of ports.
pub(super) fn ports<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u16>, D::Error> {
    const WANTED: &str = "a list of ports from 1 to 65535 such as [80, 443]";
    let Value::Array(items) = Value::deserialize(d)? else {
        return Err(D::Error::custom(format!("expected {WANTED}")));
    };
    let port = |item: &Value| {
        item.as_integer()
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0)
    };
    items
        .iter()
        .map(|item| port(item).ok_or_else(|| D::Error::custom(format!("expected {WANTED}, found {item}"))))
        .collect()
}

/// Reads a layout of keys.
pub(super) fn layout<'de, D: Deserializer<'de>>(d: D) -> Result<Layout, D::Error> {
    match Value::deserialize(d)? {
        Value::String(text) => text.trim().parse().map_err(D::Error::custom),
        other => Err(mismatch("a layout such as \"{source}/{task_id}/{name}\"", &other)),
    }
}

/// Reads how files are handed out.
pub(super) fn serve<'de, D: Deserializer<'de>>(d: D) -> Result<Serve, D::Error> {
    text_as(d, "\"proxy\" or \"redirect\"", |text| match text.trim() {
        "proxy" => Some(Serve::Proxy),
        "redirect" => Some(Serve::Redirect),
        _ => None,
    })
}

/// Writes what reads as it was written.
pub(super) mod display {
    use super::{Display, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(value: &impl Display, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }
}

/// Reads the format of log lines.
pub(super) fn log_format<'de, D: Deserializer<'de>>(d: D) -> Result<super::LogFormat, D::Error> {
    text_as(d, "\"text\" or \"json\"", |text| text.trim().parse().ok())
}
