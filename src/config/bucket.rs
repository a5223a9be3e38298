//! Buckets of object stores, and the variables by which their tools are usually told how to get in.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::layout::is_plain;
use super::secret::Secret;

/// Shorter values than this are not looked for in what is shown: they would be found everywhere.
const MIN_SECRET: usize = 8;

/// Whose object store it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `s3`: Amazon S3 and all that speaks like it.
    S3,
    /// `gs`: Google Cloud Storage.
    Gs,
    /// `az`: Azure Blob Storage.
    Az,
}

impl Scheme {
    /// As it stands in front of `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gs => "gs",
            Self::Az => "az",
        }
    }

    /// That of a URL.
    pub fn of(url: &str) -> Option<Self> {
        let (scheme, _) = url.split_once("://")?;
        [Self::S3, Self::Gs, Self::Az]
            .into_iter()
            .find(|known| known.as_str() == scheme)
    }

    /// What the names of its variables begin with.
    pub fn variables(self) -> &'static str {
        match self {
            Self::S3 => "AWS_",
            Self::Gs => "GOOGLE_",
            Self::Az => "AZURE_",
        }
    }
}

/// A bucket (Azure: a container), and what the names of all objects in it begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Whose.
    pub scheme: Scheme,
    /// Its name.
    pub name: String,
    /// Empty, or parts with a slash after each.
    pub prefix: String,
}

/// Not the URL of a bucket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a bucket is written s3://BUCKET, gs://BUCKET or az://CONTAINER, perhaps with a /prefix of letters, digits, . _ and -"
)]
pub struct BadBucket;

impl FromStr for Bucket {
    type Err = BadBucket;

    fn from_str(text: &str) -> Result<Self, BadBucket> {
        let scheme = Scheme::of(text).ok_or(BadBucket)?;
        let (_, rest) = text.split_once("://").ok_or(BadBucket)?;
        let mut parts = rest.strip_suffix('/').unwrap_or(rest).split('/');
        let name = parts.next().unwrap_or_default();
        let prefix: Vec<&str> = parts.collect();
        let is_sound = |part: &&str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_plain);
        if !is_sound(&name) || !prefix.iter().all(is_sound) {
            return Err(BadBucket);
        }
        Ok(Self {
            scheme,
            name: name.to_owned(),
            prefix: prefix.iter().flat_map(|part| [part, "/"]).collect(),
        })
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, prefix) = (self.scheme.as_str(), self.prefix.trim_end_matches('/'));
        let slash = if prefix.is_empty() { "" } else { "/" };
        write!(f, "{scheme}://{}{slash}{prefix}", self.name)
    }
}

/// What the environment says about getting into the bucket, by the names of its variables. Any may be a secret, so that
/// none is shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variables(BTreeMap<String, Secret>);

impl Variables {
    /// Takes over names and values.
    pub fn new<'v>(variables: impl Iterator<Item = (&'v str, &'v str)>) -> Self {
        let variables = variables.map(|(name, value)| (name.to_owned(), Secret::new(value)));
        Self(variables.collect())
    }

    /// Names, as they stand in the environment, and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Those that let somebody in.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let is_secret = |name: &str| {
            ["SECRET", "TOKEN", "KEY", "SAS"]
                .iter()
                .any(|word| name.contains(word))
                && !["_ID", "_FILE", "_ENABLED", "_URL", "_URI"]
                    .iter()
                    .any(|end| name.ends_with(end))
        };
        self.iter()
            .filter(move |(name, value)| is_secret(name) && value.expose().len() >= MIN_SECRET)
            .map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_reads_as_it_was_written() {
        for (text, name, prefix) in [
            ("s3://media", "media", ""),
            ("gs://my.media_1/a/b-c", "my.media_1", "a/b-c/"),
            ("az://container/x", "container", "x/"),
        ] {
            let bucket: Bucket = text.parse().unwrap();
            assert_eq!((bucket.name.as_str(), bucket.prefix.as_str()), (name, prefix));
            assert_eq!(bucket.to_string(), text);
        }
        assert_eq!("s3://media/".parse::<Bucket>().unwrap().to_string(), "s3://media");
    }

    #[test]
    fn what_holds_more_or_less_than_a_bucket_is_refused() {
        for text in [
            "s3://",
            "s3:///x",
            "s3:media",
            "http://media",
            "s3://key:secret@media",
            "s3://media//x",
            "s3://media/../x",
            "s3://media/.x",
            "s3://media/x?region=y",
            "s3://media/a b",
        ] {
            assert_eq!(text.parse::<Bucket>(), Err(BadBucket), "{text}");
        }
    }

    #[test]
    fn secrets_are_known_by_their_names_and_none_is_shown() {
        let variables = Variables::new(
            [
                ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7"),
                ("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2"),
                ("AWS_SESSION_TOKEN", "hunter2-session"),
                ("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/hunter2-token"),
                ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000"),
                ("AWS_TOKEN", "short"),
            ]
            .into_iter(),
        );
        let secrets: Vec<&str> = variables.secrets().map(Secret::expose).collect();
        assert_eq!(secrets, ["hunter2-hunter2", "hunter2-session"]);
        assert!(!format!("{variables:?}").contains("hunter2"));
    }
}
