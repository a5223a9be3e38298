//! Taking over a changed configuration while the server runs.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::Config;
use super::error::Error;
use super::load::refuse_if_any;

impl Config {
    /// This configuration, which is in force, with the sources and API tokens of a fresh one.
    ///
    /// # Errors
    ///
    /// What stands alone in the fresh one may not stand under the `listen` and `public_url` in force: sources without
    /// keys, say, once the fresh file is back on loopback. And a file that is gone takes nothing with it.
    pub fn renewed(&self, fresh: Self) -> Result<Self, Error> {
        if let (Some(path), None) = (&self.origin.file, &fresh.origin.file) {
            return Err(Error::Gone { path: path.clone() });
        }
        let renewed = Self {
            sources: fresh.sources,
            api: fresh.api,
            origin: fresh.origin,
            ..self.clone()
        };
        refuse_if_any(renewed.check())?;
        Ok(renewed)
    }

    /// The keys in which a fresh configuration differs from this one and that only a restart takes over.
    pub fn waiting_for_restart(&self, fresh: &Self) -> Vec<String> {
        let (ours, theirs) = (values(self), values(fresh));
        let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        keys.into_iter()
            .filter(|key| ours.get(*key) != theirs.get(*key))
            .cloned()
            .collect()
    }
}

/// Every value that a reload leaves alone, by its dotted key.
fn values(config: &Config) -> BTreeMap<String, Value> {
    let table = Table::try_from(config).expect("every field has a TOML form");
    let mut values = BTreeMap::new();
    for (key, value) in table {
        match value {
            Value::Table(_) if matches!(&*key, "sources" | "api") => {}
            Value::Table(section) => {
                let dotted = |(name, value)| (format!("{key}.{name}"), value);
                values.extend(section.into_iter().map(dotted));
            }
            value => drop(values.insert(key, value)),
        }
    }
    values
}
