//! What can be wrong with a configuration, and where.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read at all.
    #[error("cannot read the configuration file {} ({named_by}): {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What made us read it, such as `--config`.
        named_by: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// The file is not text.
    #[error("{}:{line}: the file is not UTF-8 text from here on; save it as UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line of the first byte that is not.
        line: usize,
    },
    /// The file is not TOML.
    #[error("{}:{line}:{column}: not TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The character in that line, from 1.
        column: usize,
        /// What the parser missed.
        message: String,
    },
    /// The file that the server was started with is no longer there.
    #[error("there is no {} any more; put it back, or restart to run without it", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// Keys or values that cannot stand; all of them at once.
    #[error("{}", lines(problems))]
    Invalid {
        /// At least one.
        problems: Vec<Problem>,
    },
}

/// One thing wrong, with the key to change. Never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, dotted: `sources.kie.hmac_keys`.
    pub key: String,
    /// Where it was set, if it was.
    pub place: Option<Place>,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the file.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// In an environment variable.
    Variable(String),
    /// On the command line.
    Flag(&'static str),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}: {}", self.key, self.message)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(Problem::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}
