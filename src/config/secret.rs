//! A configured secret, which prints as `[redacted]` wherever it is not asked for by name.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, Serializer};
use subtle::ConstantTimeEq;

/// What stands in the place of a secret in everything a person or a program may see.
pub const REDACTED: &str = "[redacted]";

/// A key or token. Its memory is wiped when it is dropped; `Debug`, `Display` and serde show [`REDACTED`].
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes over a secret's text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The secret itself: for computing and comparing, never for showing.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether someone presented exactly this secret. The time taken tells nothing but the length.
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.expose().as_bytes().ct_eq(presented).into()
    }

    /// Whether someone presented one of these. All are compared, so that the time taken does not tell which one was
    /// close.
    pub fn any_matches(secrets: &[Self], presented: &[u8]) -> bool {
        secrets.iter().filter(|secret| secret.matches(presented)).count() > 0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.expose().as_bytes())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_itself_to_nobody() {
        let secret = Secret::new("hunter2-hunter2");
        let shown = format!("{secret} {secret:?} {:?}", vec![secret.clone()]);
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"[redacted]\"");
        assert_eq!(secret.expose(), "hunter2-hunter2");
    }

    #[test]
    fn only_the_whole_secret_matches() {
        let secret = Secret::new("abc");
        assert!(secret.matches(b"abc"));
        assert!(!secret.matches(b"ab"));
        assert!(!secret.matches(b"abcd"));
        assert!(!secret.matches(b""));
        let secrets = [Secret::new("abc"), Secret::new("def")];
        assert!(Secret::any_matches(&secrets, b"def"));
        assert!(!Secret::any_matches(&secrets, b"abcdef"));
        assert!(!Secret::any_matches(&[], b""));
    }
}
