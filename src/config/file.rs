//! The configuration file: finding it, and taking it apart into settings that know their line.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::error::{Error, Place};
use super::keys::{self, Node};
use super::load::{Draft, Inputs};

/// A file's name and text.
pub(super) struct File {
    pub(super) path: PathBuf,
    text: String,
}

/// Reads the file named by flag or environment, else the one that lies in the usual place, if any.
pub(super) fn read(inputs: &Inputs) -> Result<Option<File>, Error> {
    let (path, named_by) = if let Some(path) = &inputs.file {
        (path.clone(), "--config")
    } else if let Some(path) = inputs
        .environment
        .value("REELHOOK_CONFIG")
        .filter(|path| !path.is_empty())
    {
        (PathBuf::from(path), "REELHOOK_CONFIG")
    } else {
        (inputs.default_file.clone(), "the default")
    };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound && named_by == "the default" => {
            return Ok(None);
        }
        Err(cause) => {
            return Err(Error::Unreadable {
                path,
                named_by,
                cause,
            });
        }
    };
    match String::from_utf8(bytes) {
        // Some editors put a byte order mark in front; it says nothing here.
        Ok(text) => Ok(Some(File {
            path,
            text: text.trim_start_matches('\u{feff}').to_owned(),
        })),
        Err(error) => {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + String::from_utf8_lossy(valid).matches('\n').count();
            Err(Error::NotUtf8 { path, line })
        }
    }
}

/// Takes a file apart into the draft: every value with its line, every unknown key as a problem.
pub(super) fn settings(file: &File, draft: &mut Draft) -> Result<(), Error> {
    let syntax = |error: toml::de::Error| {
        let (line, column) = position(&file.text, error.span());
        Error::Syntax {
            path: file.path.clone(),
            line,
            column,
            message: error.message().replace('\n', ", "),
        }
    };
    let spans = DeTable::parse(&file.text).map_err(syntax)?;
    let table: Table = toml::from_str(&file.text).map_err(syntax)?;
    Walk { file, draft }.table(spans.get_ref(), &table, &mut Vec::new());
    Ok(())
}

/// Visits all keys of a file. The spans come from one tree, the values from another; both have the same keys.
struct Walk<'a> {
    file: &'a File,
    draft: &'a mut Draft,
}

impl Walk<'_> {
    fn table(&mut self, spans: &DeTable<'_>, values: &Table, path: &mut Vec<String>) {
        for (key, span) in spans {
            let Some(value) = values.get(key.get_ref().as_ref()) else {
                continue;
            };
            path.push(key.get_ref().to_string());
            self.entry(key.span(), span, value, path);
            path.pop();
        }
    }

    fn entry(
        &mut self,
        key: Range<usize>,
        span: &Spanned<DeValue<'_>>,
        value: &Value,
        path: &mut Vec<String>,
    ) {
        let (line, _) = position(&self.file.text, Some(key));
        let place = Place::File {
            path: self.file.path.clone(),
            line,
        };
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        match (keys::node(&names), span.get_ref(), value) {
            (Node::Section, DeValue::Table(inner), Value::Table(values)) => {
                if self.draft.enter(&names, &place) {
                    self.table(inner, values, path);
                }
            }
            (Node::Section, ..) => {
                let section = names.join(".");
                self.draft
                    .problem(&names, place, format!("this is a section: write [{section}]"));
            }
            (Node::Key(_), _, value) => self.draft.set(&names, value.clone(), place),
            (Node::Unknown, ..) => self.draft.problem(&names, place, keys::advice(&names)),
        }
    }
}

/// Line and character, from 1, of the start of a span.
fn position(text: &str, span: Option<Range<usize>>) -> (usize, usize) {
    let start = span.map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..start).unwrap_or(text);
    let line = 1 + before.matches('\n').count();
    let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count();
    (line, column)
}

/// Where a configuration file is looked for if nobody names one.
pub(super) fn default_path() -> PathBuf {
    Path::new("config.toml").to_owned()
}
