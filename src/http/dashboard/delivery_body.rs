//! A raw body as evidence: laid out, coloured, and with a mark on what its signature covers.

use std::fmt;

use askama::filters::{Html, HtmlSafe, escape};

use super::show::pretty;

/// Bytes that are coloured and shown; the API has the rest.
const MAX_SHOWN: usize = 64 * 1024;

/// A body for people. It writes tags of its own and escapes what is between them.
#[derive(Debug)]
pub(super) struct Evidence {
    text: String,
    is_json: bool,
    covered: Option<String>,
}

impl Evidence {
    /// Of a text; `covered` is the task id, if there is a signature that holds: it covers that and the timestamp.
    pub(super) fn of(text: &str, covered: Option<&str>) -> Self {
        let is_json = serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
        let mut text = if is_json { pretty(text) } else { text.to_owned() };
        text.truncate(text.floor_char_boundary(MAX_SHOWN));
        Self {
            text,
            is_json,
            covered: covered.map(str::to_owned),
        }
    }

    /// Whether only the beginning is shown.
    pub(super) fn is_cut(&self) -> bool {
        self.text.len() + 4 > MAX_SHOWN
    }

    /// Whether a text stands in a place that names the task, and is the id that the signature covers.
    fn is_covered(&self, member: &str, token: &str) -> bool {
        matches!(member, "taskId" | "task_id") && self.covered.as_deref() == Some(token.trim_matches('"'))
    }
}

impl HtmlSafe for Evidence {}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_json {
            return write(f, &self.text);
        }
        let (mut rest, mut member) = (self.text.as_str(), "");
        while !rest.is_empty() {
            let (token, after) = rest.split_at(length_of_token(rest));
            rest = after;
            match token.as_bytes()[0] {
                b'"' if rest.starts_with(':') => {
                    member = token.trim_matches('"');
                    tagged(f, "i", "name", token)?;
                }
                _ if self.is_covered(member, token) => {
                    f.write_str(r#"<mark title="covered by the signature">"#)?;
                    write(f, token)?;
                    f.write_str("</mark>")?;
                }
                b'"' => tagged(f, "i", "text", token)?,
                b'-' | b'0'..=b'9' | b'a'..=b'z' => tagged(f, "i", "number", token)?,
                _ => write(f, token)?,
            }
        }
        Ok(())
    }
}

/// Of a text, of a number or word, or of what stands between them. Never 0 of what is not empty.
fn length_of_token(text: &str) -> usize {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.');
    let first = text.chars().next().unwrap_or_default();
    if first == '"' {
        let mut escaped = false;
        let end = text.char_indices().skip(1).find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        return end.map_or(text.len(), |(at, _)| at + 1);
    }
    let other = if is_word(first) {
        text.find(|c| !is_word(c))
    } else {
        text.find(|c| c == '"' || is_word(c))
    };
    other.unwrap_or(text.len())
}

fn tagged(f: &mut fmt::Formatter<'_>, tag: &str, class: &str, text: &str) -> fmt::Result {
    write!(f, r#"<{tag} class="{class}">"#)?;
    write(f, text)?;
    write!(f, "</{tag}>")
}

fn write(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, "{}", escape(text, Html).map_err(|_| fmt::Error)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_signature_covers_is_marked_and_nothing_else() {
        let body = r#"{"msg":"t1","data":{"taskId":"t1","n":-1.5e3,"x":[null,"a\"b"]}}"#;
        let shown = Evidence::of(body, Some("t1")).to_string();
        assert_eq!(shown.matches("<mark").count(), 1, "{shown}");
        assert!(
            shown.contains(r#"<mark title="covered by the signature">&#34;t1&#34;</mark>"#),
            "{shown}"
        );
        assert!(shown.contains(r#"<i class="number">-1.5e3</i>"#), "{shown}");
        assert!(
            shown.contains(r#"<i class="text">&#34;a\&#34;b&#34;</i>"#),
            "{shown}"
        );
        assert!(!Evidence::of(body, None).to_string().contains("<mark"));
        let number = Evidence::of(r#"{"taskId":17}"#, Some("17")).to_string();
        assert!(number.contains("<mark"), "{number}");
    }

    #[test]
    fn hostile_bodies_stay_text_and_are_bounded() {
        let evil = r#"{"</pre><script>alert(1)</script>":"<img src=x onerror=alert(1)>"}"#;
        for body in [evil, "<script>alert(1)</script>", "\"", "{\"a\":\"\\"] {
            let shown = Evidence::of(body, Some("<b>")).to_string();
            assert!(!shown.contains("<script") && !shown.contains("<img"), "{shown}");
        }
        let long = format!("[{}1]", "1,".repeat(1_000_000));
        let evidence = Evidence::of(&long, None);
        assert!(evidence.is_cut() && evidence.to_string().len() < 2_000_000);
        let wide = "ü".repeat(MAX_SHOWN);
        assert!(Evidence::of(&wide, None).is_cut());
        assert!(!Evidence::of("{}", None).is_cut());
    }
}
