//! Loading: defaults, file, environment and flags laid over each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use toml::{Table, Value};
use url::Url;

use super::bucket::Scheme;
use super::error::{Error, Place, Problem};
use super::sections::{LogFormat, Source};
use super::{Config, Environment, Origin, SourceName, environment, file, secret_files};

/// What a configuration is made from.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The file named by `--config`. Else `REELHOOK_CONFIG` names it, else `default_file` is read if it exists.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: Environment,
    /// What stood on the command line.
    pub overrides: Overrides,
    /// `config.toml` in the working directory.
    pub default_file: PathBuf,
}

impl Default for Inputs {
    /// No flags and an empty environment.
    fn default() -> Self {
        Self {
            file: None,
            environment: Environment::default(),
            overrides: Overrides::default(),
            default_file: file::default_path(),
        }
    }
}

/// Values from the command line, which win over everything else.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--listen`.
    pub listen: Option<SocketAddr>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--public-url`.
    pub public_url: Option<Url>,
    /// `--log-format`.
    pub log_format: Option<LogFormat>,
    /// `--log-level`.
    pub log_level: Option<String>,
}

impl Config {
    /// Reads the configuration, and the secrets that lie in files of their own, and checks all of it.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is not TOML is reported alone. Else all unknown keys and ill-formed values are
    /// reported together; once there are none, all values that cannot stand together are.
    pub fn load(inputs: &Inputs) -> Result<Self, Error> {
        let mut draft = Draft::default();
        let file = file::read(inputs)?;
        if let Some(file) = &file {
            file::settings(file, &mut draft)?;
        }
        environment::settings(&inputs.environment, &mut draft);
        let mut config = draft.finish()?;
        config.origin.file = file.map(|file| file.path);
        config.apply(&inputs.overrides);
        if config.sources.is_empty() {
            config.sources.insert(SourceName::kie(), Source::default());
            config.origin.configless = true;
        }
        if let Some(scheme) = config.storage.url.as_deref().and_then(Scheme::of) {
            config.storage.variables = inputs.environment.of_bucket(scheme);
        }
        refuse_if_any(secret_files::read(&mut config))?;
        refuse_if_any(config.check())?;
        Ok(config)
    }

    fn apply(&mut self, overrides: &Overrides) {
        let Overrides {
            listen,
            data_dir,
            public_url,
            log_format,
            log_level,
        } = overrides.clone();
        let places = &mut self.origin.places;
        let mut note = |key: &str, flag| places.insert(key.to_owned(), Place::Flag(flag));
        if let Some(listen) = listen {
            self.listen = listen;
            note("listen", "--listen");
        }
        if let Some(data_dir) = data_dir {
            self.data_dir = data_dir;
            note("data_dir", "--data-dir");
        }
        if let Some(public_url) = public_url {
            self.public_url = Some(public_url);
            note("public_url", "--public-url");
        }
        if let Some(format) = log_format {
            self.log.format = format;
            note("log.format", "--log-format");
        }
        if let Some(level) = log_level {
            self.log.level = level;
            note("log.level", "--log-level");
        }
    }
}

pub(super) fn refuse_if_any(problems: Vec<Problem>) -> Result<(), Error> {
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid { problems })
    }
}

/// A configuration being put together from settings, each of which is checked as it comes in.
#[derive(Default)]
pub(super) struct Draft {
    table: Table,
    places: BTreeMap<String, Place>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Draft {
    /// Sets one key, over what was set before.
    pub(super) fn set(&mut self, path: &[&str], value: Value, place: Place) {
        // Alone in a document, so that whatever serde objects to is this value.
        match Config::deserialize(Value::Table(nested(path, value.clone()))) {
            Ok(_) => {
                lay_over(&mut self.table, nested(path, value));
                self.places.insert(path.join("."), place);
            }
            Err(error) => self.problem(path, place, error.message().to_owned()),
        }
    }

    /// Notes that a section was opened: an empty `[sources.x]` is a source. `false` if it must not be.
    pub(super) fn enter(&mut self, path: &[&str], place: &Place) -> bool {
        if let ["sources", name] = path {
            if let Err(error) = name.parse::<SourceName>() {
                self.problem(path, place.clone(), error.to_string());
                return false;
            }
            self.places.insert(path.join("."), place.clone());
        }
        lay_over(&mut self.table, nested(path, Value::Table(Table::new())));
        true
    }

    /// Notes a problem with a key.
    pub(super) fn problem(&mut self, path: &[&str], place: Place, message: String) {
        self.problems.push(Problem {
            key: path.join("."),
            place: Some(place),
            message,
        });
    }

    /// Notes a warning.
    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    fn finish(self) -> Result<Config, Error> {
        refuse_if_any(self.problems)?;
        let mut config = Config::deserialize(Value::Table(self.table))
            .expect("a document of values that were each accepted is accepted");
        config.origin = Origin {
            places: self.places,
            warnings: self.warnings,
            ..Origin::default()
        };
        Ok(config)
    }
}

/// A document of one value.
fn nested(path: &[&str], value: Value) -> Table {
    let (first, rest) = path.split_first().expect("a path has a name");
    let value = if rest.is_empty() {
        value
    } else {
        Value::Table(nested(rest, value))
    };
    Table::from_iter([((*first).to_owned(), value)])
}

/// Lays one document over another: sections join, values replace.
fn lay_over(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => lay_over(under, over),
            (_, value) => drop(under.insert(key, value)),
        }
    }
}
