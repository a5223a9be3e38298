//! Tests of loading and checking, from what an operator writes to what the operator reads.

use std::path::{Path, PathBuf};

use super::*;

mod checks;
mod environments;
mod example;
mod files;
mod reloads;
mod secrets;

const TOKEN: &str = "tttttttttttttttttttttttt";
const API_TOKEN: &str = "aaaaaaaaaaaaaaaaaaaaaaaa";

/// A directory with at most one configuration file, and an environment.
struct Setup {
    directory: tempfile::TempDir,
    inputs: Inputs,
}

impl Setup {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let default_file = directory.path().join("config.toml");
        Self {
            directory,
            inputs: Inputs {
                default_file,
                ..Inputs::default()
            },
        }
    }

    fn file(self, text: impl AsRef<[u8]>) -> Self {
        std::fs::write(&self.inputs.default_file, text).unwrap();
        self
    }

    fn env<const N: usize>(mut self, variables: [(&str, &str); N]) -> Self {
        self.inputs.environment = Environment::new(variables);
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn load(&self) -> Result<Config, Error> {
        Config::load(&self.inputs)
    }

    fn loaded(&self) -> Config {
        self.load().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The error's text, with the directory's name taken out.
    fn refused(&self) -> String {
        let error = self.load().expect_err("must be refused").to_string();
        error.replace(&format!("{}/", self.directory.path().display()), "")
    }
}

fn source<'a>(config: &'a Config, name: &str) -> &'a Source {
    &config.sources[&name.parse::<SourceName>().unwrap()]
}

fn exposed(secrets: &[Secret]) -> Vec<&str> {
    secrets.iter().map(Secret::expose).collect()
}

fn write(path: &Path, text: &str) -> String {
    std::fs::write(path, text).unwrap();
    path.to_str().unwrap().to_owned()
}
