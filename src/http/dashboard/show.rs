//! Moments, sizes, states and texts as pages show them.
//!
//! What writes tags of its own escapes what it puts between them, and says so by being [`HtmlSafe`]: templates take it as
//! it is.

use std::fmt;

use askama::filters::{Html, HtmlSafe, escape};

use crate::clock::{Millis, rfc3339};

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A moment, told by how long ago it is; the moment itself is on hover. The script keeps it true.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ago {
    /// The moment.
    pub(super) at: Millis,
    /// When the page is made.
    pub(super) now: Millis,
}

impl HtmlSafe for Ago {}

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = rfc3339(self.at);
        let plain = exact.replacen('T', " ", 1).replacen('Z', " UTC", 1);
        write!(f, r#"<time datetime="{exact}" title="{plain}" data-ago>"#)?;
        write!(f, "{}</time>", relative(self.at, self.now))
    }
}

/// As a person would say it; `app.js` says the same.
fn relative(at: Millis, now: Millis) -> String {
    let away = now.saturating_sub(at);
    let length = away.saturating_abs();
    if length < 5 * SECOND {
        return "just now".to_owned();
    }
    let (count, unit) = match length {
        ..MINUTE => (length / SECOND, "s"),
        MINUTE..HOUR => (length / MINUTE, "min"),
        HOUR..DAY => (length / HOUR, "h"),
        _ => (length / DAY, "d"),
    };
    if away < 0 {
        format!("in {count} {unit}")
    } else {
        format!("{count} {unit} ago")
    }
}

/// A moment as it is, to the second: for lines of a log. How long ago it is is on hover.
#[derive(Debug, Clone, Copy)]
pub(super) struct At(pub(super) Millis);

impl HtmlSafe for At {}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = rfc3339(self.0);
        let (day, time) = exact.split_once('T').unwrap_or((&exact, ""));
        let time = time.get(..8).unwrap_or(time);
        write!(
            f,
            r#"<time datetime="{exact}" title="{exact}">{day} {time}</time>"#
        )
    }
}

/// A number of bytes, in units of 1000 as disks are sold and browsers show them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes(pub(super) i64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unit = 1_i64;
        let mut units = ["kB", "MB", "GB", "TB", "PB"].iter();
        if self.0 < 1_000 {
            return write!(f, "{} B", self.0.max(0));
        }
        let mut name = "B";
        while self.0 / unit >= 1_000 {
            let Some(next) = units.next() else { break };
            (unit, name) = (unit * 1_000, next);
        }
        let tenths = self.0 / (unit / 10);
        if tenths >= 1_000 {
            return write!(f, "{} {name}", tenths / 10);
        }
        write!(f, "{}.{} {name}", tenths / 10, tenths % 10)
    }
}

/// How long something took or plays, from milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Took(pub(super) Millis);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.max(0);
        let (whole, unit, rest, smaller) = match ms {
            ..SECOND => return write!(f, "{ms} ms"),
            SECOND..MINUTE => return write!(f, "{}.{} s", ms / SECOND, ms % SECOND / 100),
            MINUTE..HOUR => (ms / MINUTE, "min", ms % MINUTE / SECOND, "s"),
            HOUR..DAY => (ms / HOUR, "h", ms % HOUR / MINUTE, "min"),
            _ => (ms / DAY, "d", ms % DAY / HOUR, "h"),
        };
        write!(f, "{whole} {unit}")?;
        match rest {
            0 => Ok(()),
            _ => write!(f, " {rest} {smaller}"),
        }
    }
}

/// A number with its thousands apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count(pub(super) i64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.unsigned_abs().to_string();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                // Narrow, and no place to break a line.
                f.write_str("\u{202f}")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// A state, a verdict or another of our words, with its colour and, for those who see none, its shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Badge<'a>(pub(super) &'a str);

impl HtmlSafe for Badge<'_> {}

impl fmt::Display for Badge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tone = match self.0 {
            "succeeded" | "stored" | "accepted" | "ok" => "good",
            "failed" | "rejected" | "error" => "bad",
            "conflict" | "partial" | "paused" | "held" | "needs_url" => "warn",
            "downloading" | "running" => "busy",
            _ => "calm",
        };
        let word = escape(self.0, Html).map_err(|_| fmt::Error)?;
        write!(f, r#"<span class="badge {tone}">{word}</span>"#)
    }
}

/// A button that copies a text; there is none without script.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copy<'a> {
    /// What is copied.
    pub(super) text: &'a str,
    /// What that is, for those who hear the button: "the URL".
    pub(super) what: &'a str,
}

impl HtmlSafe for Copy<'_> {}

impl fmt::Display for Copy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = escape(self.text, Html).map_err(|_| fmt::Error)?;
        let what = escape(self.what, Html).map_err(|_| fmt::Error)?;
        write!(
            f,
            r#"<button type="button" class="copy" data-copy="{text}" aria-label="Copy {what}">Copy</button>"#
        )
    }
}

/// JSON with a line for each member, in its own order and with its own spelling of numbers: it is evidence. What is no
/// JSON stays as it is, and so does what is nested too deeply to be read.
pub(crate) fn pretty(text: &str) -> String {
    if serde_json::from_str::<&serde_json::value::RawValue>(text).is_err() {
        return text.to_owned();
    }
    let mut layout = Layout::default();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if layout.in_text {
            layout.inside(c);
            continue;
        }
        match c {
            '{' | '[' => {
                while chars.next_if(char::is_ascii_whitespace).is_some() {}
                match chars.next_if(|c| matches!(c, '}' | ']')) {
                    Some(end) => layout.out.extend([c, end]),
                    None => layout.open(c),
                }
            }
            '}' | ']' => layout.close(c),
            ',' => {
                layout.out.push(c);
                layout.line();
            }
            ':' => layout.out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => {
                layout.in_text = c == '"';
                layout.out.push(c);
            }
        }
    }
    layout.out
}

/// Levels that are set off from each other; deeper ones stand below one another.
const MAX_INDENT: usize = 32;

#[derive(Default)]
struct Layout {
    out: String,
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Layout {
    fn inside(&mut self, c: char) {
        self.in_text = self.escaped || c != '"';
        self.escaped = !self.escaped && c == '\\';
        self.out.push(c);
    }

    fn open(&mut self, c: char) {
        self.out.push(c);
        self.depth += 1;
        self.line();
    }

    fn close(&mut self, c: char) {
        self.depth -= 1;
        self.line();
        self.out.push(c);
    }

    fn line(&mut self) {
        self.out.push('\n');
        self.out.push_str(&"  ".repeat(self.depth.min(MAX_INDENT)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_as_a_person_would() {
        let told = |away| relative(1_000_000_000, 1_000_000_000 + away);
        assert_eq!(told(0), "just now");
        assert_eq!(told(59 * SECOND), "59 s ago");
        assert_eq!(told(90 * SECOND), "1 min ago");
        assert_eq!(told(23 * HOUR), "23 h ago");
        assert_eq!(told(3 * DAY), "3 d ago");
        assert_eq!(told(-30 * SECOND), "in 30 s");
        assert_eq!(relative(i64::MIN, i64::MAX), relative(0, i64::MAX));
        let at = 1_795_284_446_250;
        let shown = Ago { at, now: at + HOUR }.to_string();
        assert!(
            shown.contains("2026-11-21 18:07:26.250 UTC") && shown.ends_with(">1 h ago</time>"),
            "{shown}"
        );
        assert!(
            At(at).to_string().ends_with(">2026-11-21 18:07:26</time>"),
            "{}",
            At(at)
        );
    }

    #[test]
    fn sizes_lengths_and_counts_are_short() {
        let bytes = |count| Bytes(count).to_string();
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_000), "1.0 kB");
        assert_eq!(bytes(1_048_576), "1.0 MB");
        assert_eq!(bytes(123_456_789), "123 MB");
        assert_eq!(bytes(i64::MAX), "9223 PB");
        let took = |ms| Took(ms).to_string();
        assert_eq!(took(8), "8 ms");
        assert_eq!(took(8_040), "8.0 s");
        assert_eq!(took(83_000), "1 min 23 s");
        assert_eq!(took(26 * HOUR), "1 d 2 h");
        assert_eq!(Count(1_234_567).to_string(), "1\u{202f}234\u{202f}567");
        assert_eq!(Count(-12).to_string(), "-12");
    }

    #[test]
    fn what_strangers_wrote_stays_text() {
        let evil = r#""><script>alert('x')</script>"#;
        let copy = Copy {
            text: evil,
            what: evil,
        };
        for shown in [Badge(evil).to_string(), copy.to_string()] {
            assert!(!shown.contains("<script") && !shown.contains("\">\""), "{shown}");
            assert_eq!(shown.matches('>').count(), 2, "{shown}");
        }
    }

    #[test]
    fn json_is_laid_out_without_a_change_to_what_it_says() {
        assert_eq!(
            pretty(r#"{"b":1.0e5 ,"a":[ ],"t":"x\"{,}:[\\","n":[1,{"z":null}]}"#),
            "{\n  \"b\": 1.0e5,\n  \"a\": [],\n  \"t\": \"x\\\"{,}:[\\\\\",\n  \"n\": [\n    1,\n    {\n      \"z\": null\n    }\n  ]\n}"
        );
        assert_eq!(pretty("not {json"), "not {json");
        assert_eq!(pretty("\"a : b\""), "\"a : b\"");
        let deep = "[".repeat(100_000);
        assert_eq!(pretty(&deep), deep);
    }
}
