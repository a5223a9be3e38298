//! The name of a source: a word in URLs, in file paths and in the database.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A source's name, `[a-z0-9_]{1,32}`: it receives `POST /callbacks/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceName(String);

/// A name outside `[a-z0-9_]{1,32}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a source's name is 1 to 32 characters of a-z 0-9 _, such as kie or kie_test")]
pub struct BadSourceName;

impl SourceName {
    /// The source of a configuration that names none.
    pub fn kie() -> Self {
        Self("kie".to_owned())
    }

    /// The name as it stands in URLs.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// So that a map by name can be asked with a plain text.
impl Borrow<str> for SourceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for SourceName {
    type Err = BadSourceName;

    fn from_str(text: &str) -> Result<Self, BadSourceName> {
        let permitted = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if text.is_empty() || text.len() > 32 || !text.bytes().all(permitted) {
            return Err(BadSourceName);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for SourceName {
    type Error = BadSourceName;

    fn try_from(text: String) -> Result<Self, BadSourceName> {
        text.parse()
    }
}

impl From<SourceName> for String {
    fn from(name: SourceName) -> Self {
        name.0
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_lower_case_words() {
        for bad in ["", "Kie", "kie-test", "a/b", "..", "é", &"x".repeat(33)] {
            assert_eq!(bad.parse::<SourceName>(), Err(BadSourceName), "{bad:?}");
        }
        for good in ["kie", "kie_2", "_", &"x".repeat(32)] {
            assert_eq!(good.parse::<SourceName>().unwrap().to_string(), good);
        }
    }
}
