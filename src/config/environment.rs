//! The environment: the one place that reads it, and the variables that set keys.

use std::collections::BTreeMap;
use std::ffi::OsString;

use toml::Value;

use super::bucket::{Scheme, Variables};
use super::error::Place;
use super::keys::{self, Node, Shape};
use super::load::Draft;

/// What our variables start with.
const PREFIX: &str = "REELHOOK_";
/// What the variables of object stores start with.
const OF_BUCKETS: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// Variables with our prefix that are not keys of the configuration. The last one arms a failpoint, which release builds
/// do not have.
#[cfg(not(debug_assertions))]
const NOT_KEYS: [&str; 3] = ["REELHOOK_CONFIG", "REELHOOK_SERVER", "REELHOOK_API_TOKEN"];
#[cfg(debug_assertions)]
const NOT_KEYS: [&str; 4] = [
    "REELHOOK_CONFIG",
    "REELHOOK_SERVER",
    "REELHOOK_API_TOKEN",
    "REELHOOK_ABORT_AT",
];

/// The process's environment, or what a test puts in its place. `Debug` shows names only: values may be secrets.
#[derive(Clone, Default)]
pub struct Environment {
    /// `None` where the value is not UTF-8.
    variables: BTreeMap<String, Option<String>>,
}

impl Environment {
    /// The environment of this process, as far as it is ours or about buckets.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one home of the environment"
    )]
    pub fn of_process() -> Self {
        // Not `vars()`: it panics on the first variable that is not UTF-8, be it ours or not.
        Self::new(std::env::vars_os())
    }

    /// An environment of the given variables.
    pub fn new<N: Into<OsString>, V: Into<OsString>>(variables: impl IntoIterator<Item = (N, V)>) -> Self {
        let variables = variables.into_iter().filter_map(|(name, value)| {
            let name = name.into().into_string().ok().filter(|name| {
                name.starts_with(PREFIX) || OF_BUCKETS.iter().any(|of| name.starts_with(of))
            })?;
            Some((name, value.into().into_string().ok()))
        });
        Self {
            variables: variables.collect(),
        }
    }

    /// How to get into a bucket of that kind.
    pub(super) fn of_bucket(&self, scheme: Scheme) -> Variables {
        let of_bucket = self
            .variables
            .iter()
            .filter(|(name, _)| name.starts_with(scheme.variables()));
        Variables::new(of_bucket.filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?))))
    }

    /// The value of one variable, if it is set and is text.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.variables.get(name)?.as_deref()
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

/// Takes all variables that set keys into the draft, and warns of those that set nothing.
pub(super) fn settings(environment: &Environment, draft: &mut Draft) {
    for (variable, value) in &environment.variables {
        let Some(key) = variable.strip_prefix(PREFIX).map(str::to_ascii_lowercase) else {
            continue;
        };
        let path: Vec<&str> = key.split("__").collect();
        if NOT_KEYS.contains(&variable.as_str()) {
            continue;
        }
        if !keys::is_top_level(path[0]) {
            draft.warn(format!(
                "environment variable {variable} sets no key of the configuration and is ignored"
            ));
            continue;
        }
        let place = Place::Variable(variable.clone());
        match (keys::node(&path), value) {
            (Node::Key(_), None) => draft.problem(&path, place, "the value is not UTF-8 text".to_owned()),
            (Node::Key(shape), Some(text)) => set(draft, &path, shape, text, place),
            (Node::Section, _) => draft.problem(
                &path,
                place,
                format!(
                    "this is a section: set a key in it, such as {}",
                    example_below(&path)
                ),
            ),
            (Node::Unknown, _) => draft.problem(&path, place, keys::advice(&path)),
        }
    }
}

fn set(draft: &mut Draft, path: &[&str], shape: Shape, text: &str, place: Place) {
    let sections = path.split_last().map_or(&[][..], |(_, sections)| sections);
    for end in 1..=sections.len() {
        if !draft.enter(&path[..end], &place) {
            return;
        }
    }
    match value(shape, text.trim()) {
        Ok(value) => draft.set(path, value, place),
        Err(wanted) => draft.problem(path, place, format!("expected {wanted}")),
    }
}

/// Reads a variable's text in the shape its key wants; else says what that is.
fn value(shape: Shape, text: &str) -> Result<Value, &'static str> {
    let items = || text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let integer = |text: &str| text.parse().ok().map(Value::Integer);
    match shape {
        Shape::Text => Ok(Value::String(text.to_owned())),
        Shape::List => Ok(Value::Array(
            items().map(|item| Value::String(item.to_owned())).collect(),
        )),
        Shape::Flag => text.parse().map(Value::Boolean).map_err(|_| "true or false"),
        Shape::Integer => integer(text).ok_or("a whole number"),
        Shape::Integers => items()
            .map(integer)
            .collect::<Option<_>>()
            .map(Value::Array)
            .ok_or("whole numbers separated by commas"),
    }
}

/// A variable that sets the first key below a section.
fn example_below(path: &[&str]) -> String {
    let below = keys::KEYS
        .iter()
        .find(|(key, _)| key.split('.').next() == Some(path[0]));
    let key = below
        .map_or("", |(key, _)| key)
        .replace('*', path.get(1).unwrap_or(&"kie"));
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}
