//! Under which keys files are stored: a template that gives different files different keys.

use std::fmt;
use std::str::FromStr;

/// Longest literal text beside a placeholder, before and after it together, in bytes: with what a placeholder becomes it stays a file name.
const LONGEST: usize = 32;

/// `storage.layout`: parts with a slash between them, each of literal text and at most one placeholder.
///
/// One, because two in the same part could run into each other: `a-b` might be `a` and `b`, or `a-b` and nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    before: String,
    placeholder: Option<Placeholder>,
    after: String,
}

/// What differs from file to file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder {
    /// `{source}`.
    Source,
    /// `{task_id}`.
    TaskId,
    /// `{name}`, with its extension.
    Name,
}

impl Placeholder {
    const ALL: [Self; 3] = [Self::Source, Self::TaskId, Self::Name];

    fn text(self) -> &'static str {
        match self {
            Self::Source => "{source}",
            Self::TaskId => "{task_id}",
            Self::Name => "{name}",
        }
    }
}

/// Why a text is no layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLayout {
    /// Files of different tasks, sources or names would share a key.
    #[error(
        "lacks {0}; {{source}}, {{task_id}} and {{name}} must each stand in it, or files would share a place"
    )]
    Lacks(&'static str),
    /// Used twice.
    #[error("has {0} more than once")]
    Twice(&'static str),
    /// Anything else in braces.
    #[error("has a placeholder that is not {{source}}, {{task_id}} or {{name}}: {0:?}")]
    Unknown(String),
    /// Two in one part could run into each other.
    #[error("has two placeholders without a slash between them in {0:?}")]
    Joined(String),
    /// Empty, hidden, leading elsewhere, or with characters that mean something to some storage.
    #[error(
        "has the part {0:?}; a part must begin with a letter, digit, _ or -, and have at most {LONGEST} of those and . beside a placeholder"
    )]
    Unsound(String),
}

impl Layout {
    /// The key, where `value` says what stands for each placeholder: never empty, never with a slash or a dot in front.
    pub fn fill(&self, value: impl Fn(Placeholder) -> String) -> String {
        let parts = self.parts.iter().map(|part| {
            let value = part.placeholder.map(&value).unwrap_or_default();
            format!("{}{value}{}", part.before, part.after)
        });
        parts.collect::<Vec<_>>().join("/")
    }
}

impl Default for Layout {
    fn default() -> Self {
        let part = |placeholder| Part {
            before: String::new(),
            placeholder: Some(placeholder),
            after: String::new(),
        };
        Self {
            parts: Placeholder::ALL.map(part).into(),
        }
    }
}

impl FromStr for Layout {
    type Err = BadLayout;

    fn from_str(text: &str) -> Result<Self, BadLayout> {
        let parts = text.split('/').map(Part::parse).collect::<Result<Vec<_>, _>>()?;
        for placeholder in Placeholder::ALL {
            let is_it = |part: &&Part| part.placeholder == Some(placeholder);
            match parts.iter().filter(is_it).count() {
                0 => return Err(BadLayout::Lacks(placeholder.text())),
                1 => {}
                _ => return Err(BadLayout::Twice(placeholder.text())),
            }
        }
        Ok(Self { parts })
    }
}

impl Part {
    fn parse(text: &str) -> Result<Self, BadLayout> {
        let unsound = || BadLayout::Unsound(text.to_owned());
        let (before, placeholder, after) = match text.split_once('{') {
            None => (text, None, ""),
            Some((before, rest)) => {
                let (name, after) = rest.split_once('}').ok_or_else(unsound)?;
                let known = |known: &Placeholder| known.text() == format!("{{{name}}}");
                let placeholder = Placeholder::ALL.into_iter().find(known);
                let placeholder = placeholder.ok_or_else(|| BadLayout::Unknown(format!("{{{name}}}")))?;
                (before, Some(placeholder), after)
            }
        };
        if after.contains('{') {
            return Err(BadLayout::Joined(text.to_owned()));
        }
        let is_long = before.len() + after.len() > LONGEST;
        let is_plain = |text: &str| text.bytes().all(is_plain);
        let is_empty = text.is_empty() || text.starts_with('.');
        if is_empty || is_long || !is_plain(before) || !is_plain(after) {
            return Err(unsound());
        }
        Ok(Self {
            before: before.to_owned(),
            placeholder,
            after: after.to_owned(),
        })
    }
}

/// What stands for itself in keys, on disk and in buckets alike.
pub(super) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fill(|placeholder| placeholder.text().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_reads_as_it_was_written() {
        assert_eq!(Layout::default().to_string(), "{source}/{task_id}/{name}");
        for text in [
            "{source}/{task_id}/{name}",
            "{task_id}/{source}/{name}",
            "media/by-{source}/t.{task_id}.d/_{name}",
        ] {
            assert_eq!(text.parse::<Layout>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn files_that_could_meet_or_lie_elsewhere_are_refused() {
        let long = format!("{{source}}/{{task_id}}{}/{{name}}", "x".repeat(33));
        let around = format!("{{source}}/{0}{{task_id}}{0}x/{{name}}", "x".repeat(16));
        for (text, why) in [
            ("", "part \"\""),
            ("{task_id}/{name}", "lacks {source}"),
            ("{source}/{name}", "lacks {task_id}"),
            ("{source}/{task_id}", "lacks {name}"),
            ("{source}/{task_id}/{name}/{name}", "{name} more than once"),
            ("{source}/{task_id}-{name}", "two placeholders"),
            ("{source}/{task}/{name}", "\"{task}\""),
            ("/{source}/{task_id}/{name}", "part \"\""),
            ("{source}//{task_id}/{name}", "part \"\""),
            ("{source}/{task_id}/{name}/", "part \"\""),
            ("../{source}/{task_id}/{name}", "part \"..\""),
            ("./{source}/{task_id}/{name}", "part \".\""),
            (".x{source}/{task_id}/{name}", "part \".x{source}\""),
            ("{source}/{task_id}/{name", "part \"{name\""),
            ("a b/{source}/{task_id}/{name}", "part \"a b\""),
            ("%2E/{source}/{task_id}/{name}", "part \"%2E\""),
            ("a\\b/{source}/{task_id}/{name}", "part \"a\\\\b\""),
            ("{source}}/{task_id}/{name}", "part \"{source}}\""),
            (long.as_str(), "has the part"),
            (around.as_str(), "has the part"),
        ] {
            let refused = text.parse::<Layout>().unwrap_err().to_string();
            assert!(refused.contains(why), "{text:?}: {refused}");
        }
    }
}
