//! The files that `backfill` reads: one id a line, CSV or JSON lines.
//!
//! Whatever a file holds, no more of it is in memory than one entry of at most [`MAX_ENTRY`] bytes.

use std::cell::Cell;
use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::rc::Rc;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::human;
use crate::config::SourceName;
use crate::provider::{Kind, TaskId};

/// Longest line, or row of a CSV file: a thousand of the usual fit into one request many times over.
const MAX_ENTRY: u64 = 1024 * 1024;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// One id a line
    Lines,
    /// Comma-, semicolon- or tab-separated, with a header or with the id first
    Csv,
    /// One JSON object a line, as POST /v1/tasks takes them
    Jsonl,
}

/// A task to be announced, in the words of `POST /v1/tasks`.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    pub(super) task_id: TaskId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<SourceName>,
    pub(super) kind: Kind,
    pub(super) index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    family: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<Box<RawValue>>,
    ask: &'static str,
}

/// What is meant where a file does not say.
#[derive(Debug)]
pub(super) struct Defaults {
    pub(super) source: Option<SourceName>,
    pub(super) kind: Kind,
    pub(super) index: u32,
    pub(super) family: Option<String>,
}

/// What a file says of a task, before anything of it is believed.
#[derive(Debug, Default)]
struct Said {
    task_id: String,
    source: Option<String>,
    kind: Option<String>,
    index: Option<String>,
    family: Option<String>,
    params: Option<Box<RawValue>>,
}

impl Said {
    fn entry(self, defaults: &Defaults) -> anyhow::Result<Entry> {
        Ok(Entry {
            task_id: parsed("task id", &self.task_id)?,
            source: match self.source {
                Some(source) => Some(parsed("source", &source)?),
                None => defaults.source.clone(),
            },
            kind: match self.kind {
                Some(kind) => parsed("kind", &kind)?,
                None => defaults.kind.clone(),
            },
            index: match self.index {
                Some(index) => parsed("index", &index)?,
                None => defaults.index,
            },
            family: self.family.or_else(|| defaults.family.clone()),
            params: self.params,
            ask: "now",
        })
    }
}

fn parsed<T: FromStr<Err: Display>>(what: &str, text: &str) -> anyhow::Result<T> {
    text.parse()
        .map_err(|error| anyhow::anyhow!("{:?} is no {what}: {error}", human::brief(text, 60)))
}

/// A file to be read.
pub(super) struct Input<'a> {
    /// What it is called in messages.
    pub(super) name: &'a str,
    /// `None`: told by its first line that is neither blank nor a comment.
    pub(super) format: Option<Format>,
    pub(super) defaults: &'a Defaults,
}

impl Input<'_> {
    /// Hands over every entry in its order. An error names the line that it is about.
    pub(super) fn read(
        &self,
        from: impl Read,
        take: &mut dyn FnMut(Entry) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut lines = Lines::new(BufReader::new(from));
        let mut first = Vec::new();
        while lines
            .next(&mut first)
            .map_err(|error| self.at(lines.number, error))?
        {
            if is_empty(&first) {
                continue;
            }
            if first.starts_with(b"\xff\xfe") || first.starts_with(b"\xfe\xff") {
                return Err(self.at(lines.number, "this is UTF-16: save the file as UTF-8"));
            }
            let before = lines.number - 1;
            // Read once more, by whom it is for.
            let again = Cursor::new(first.clone()).chain(lines.from);
            return match self.format.unwrap_or_else(|| told_by(&first)) {
                Format::Csv => self.csv(Csv::of(again, &first), before, take),
                Format::Lines => self.lines(Lines::after(again, before), take, |line| Ok(by_line(line))),
                Format::Jsonl => self.lines(Lines::after(again, before), take, by_json),
            };
        }
        Ok(())
    }

    fn lines(
        &self,
        mut lines: Lines<impl BufRead>,
        take: &mut dyn FnMut(Entry) -> anyhow::Result<()>,
        read: fn(&str) -> anyhow::Result<Said>,
    ) -> anyhow::Result<()> {
        let mut line = Vec::new();
        while lines
            .next(&mut line)
            .map_err(|error| self.at(lines.number, error))?
        {
            // Old systems end lines by a carriage return alone.
            for part in line.split(|byte| *byte == b'\r').filter(|part| !is_empty(part)) {
                let entry = text(part)
                    .and_then(read)
                    .and_then(|said| said.entry(self.defaults));
                take(entry.map_err(|error| self.at(lines.number, error))?)?;
            }
        }
        Ok(())
    }

    fn csv(
        &self,
        mut csv: Csv<impl Read>,
        before: u64,
        take: &mut dyn FnMut(Entry) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (mut columns, mut row) = (None, csv::ByteRecord::new());
        let mut line = before;
        loop {
            // Of a row that cannot be read it is only known where it may begin.
            let next = before + csv.line();
            if !csv.next(&mut row).map_err(|error| self.at(next, error))? {
                break;
            }
            line = before + row.position().map_or(1, csv::Position::line);
            let said = Columns::read(&mut columns, &row).map_err(|error| self.at(line, error))?;
            let Some(said) = said else { continue };
            let entry = said.entry(self.defaults);
            take(entry.map_err(|error| self.at(line, error))?)?;
        }
        if csv.is_open() {
            let open = "a quote is never closed, in this row or one above: double it (\"\") if it is meant";
            return Err(self.at(line, open));
        }
        Ok(())
    }

    fn at(&self, line: u64, error: impl Display) -> anyhow::Error {
        anyhow::anyhow!("{}:{line}: {error:#}", self.name)
    }
}

/// A line as text, without the mark that some programs begin a file with.
fn text(line: &[u8]) -> anyhow::Result<&str> {
    let text = std::str::from_utf8(line).context("this is not UTF-8: save the file as UTF-8")?;
    Ok(text.trim_start_matches('\u{feff}').trim())
}

/// Whether a line says nothing: blank, or a comment.
fn is_empty(line: &[u8]) -> bool {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
    line.is_empty() || line.starts_with(b"#")
}

/// The format of a file that begins so.
fn told_by(line: &[u8]) -> Format {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
    if line.starts_with(b"{") || line.starts_with(b"[") {
        return Format::Jsonl;
    }
    let is_header =
        std::str::from_utf8(line).is_ok_and(|word| Column::named(word).is_some_and(Column::is_id));
    if is_header || line.iter().any(|byte| b",;\t\"".contains(byte)) {
        return Format::Csv;
    }
    Format::Lines
}

fn by_line(line: &str) -> Said {
    Said {
        task_id: line.to_owned(),
        ..Said::default()
    }
}

/// Objects as `POST /v1/tasks` takes them, and the provider's own: `taskId`, or its whole answer to a submission. Other
/// fields are left alone, as other columns are.
fn by_json(line: &str) -> anyhow::Result<Said> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Word {
        Text(String),
        Number(serde_json::Number),
    }
    impl Word {
        fn text(self) -> String {
            match self {
                Self::Text(text) => text,
                Self::Number(number) => number.to_string(),
            }
        }
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Data {
        #[serde(rename = "taskId")]
        task_id: Option<Word>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Object {
        task_id: Option<Word>,
        #[serde(rename = "taskId")]
        by_provider: Option<Word>,
        data: Option<Data>,
        id: Option<Word>,
        source: Option<String>,
        kind: Option<String>,
        index: Option<Word>,
        family: Option<String>,
        params: Option<Box<RawValue>>,
        prompt: Option<String>,
    }
    if line.starts_with('[') {
        bail!("write one JSON object a line, no array; jq -c '.[]' makes them of one");
    }
    let object: Object = serde_json::from_str(line).context("write one JSON object a line")?;
    let in_data = object.data.and_then(|data| data.task_id);
    let id = object.task_id.or(object.by_provider).or(in_data).or(object.id);
    Ok(Said {
        task_id: id.context("the object has no task_id")?.text(),
        source: object.source,
        kind: object.kind,
        index: object.index.map(Word::text),
        family: object.family,
        params: object.params.or_else(|| object.prompt.as_deref().map(as_params)),
    })
}

/// A prompt where requests have it.
fn as_params(prompt: &str) -> Box<RawValue> {
    serde_json::value::to_raw_value(&serde_json::json!({"prompt": prompt})).expect("a text is JSON")
}

/// Lines of a bounded length.
struct Lines<R> {
    from: R,
    /// Of the last one read.
    number: u64,
}

impl<R: BufRead> Lines<R> {
    fn new(from: R) -> Self {
        Self::after(from, 0)
    }

    fn after(from: R, number: u64) -> Self {
        Self { from, number }
    }

    /// Reads the next line, if there is one.
    fn next(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        line.clear();
        self.number += 1;
        let length = (&mut self.from).take(MAX_ENTRY + 1).read_until(b'\n', line)?;
        if length as u64 > MAX_ENTRY {
            return Err(io::Error::other(too_long()));
        }
        Ok(length > 0)
    }
}

fn too_long() -> String {
    format!("longer than {}: is this the right file?", human::size(MAX_ENTRY))
}

/// Rows of a bounded length.
struct Csv<R> {
    reader: csv::Reader<Watched<R>>,
    watch: Watch,
}

/// What passed since somebody last looked.
#[derive(Clone, Default)]
struct Watch {
    bytes: Rc<Cell<u64>>,
    /// Whether it ended within quotes; this one from the beginning.
    is_quoted: Rc<Cell<bool>>,
}

/// A reader that says so where a row does not end.
struct Watched<R> {
    from: R,
    watch: Watch,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.watch.bytes.get() > MAX_ENTRY {
            return Err(io::Error::other(format!(
                "{} Or is a quote never closed?",
                too_long()
            )));
        }
        let length = self.from.read(buffer)?;
        for _ in buffer[..length].iter().filter(|byte| **byte == b'"') {
            self.watch.is_quoted.set(!self.watch.is_quoted.get());
        }
        self.watch.bytes.set(self.watch.bytes.get() + length as u64);
        Ok(length)
    }
}

impl<R: Read> Csv<R> {
    /// `first` is its first row, which tells what separates columns.
    fn of(from: R, first: &[u8]) -> Self {
        let watch = Watch::default();
        let separator = first.iter().copied().find(|byte| b",;\t".contains(byte));
        let reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .comment(Some(b'#'))
            .delimiter(separator.unwrap_or(b','))
            .from_reader(Watched {
                from,
                watch: watch.clone(),
            });
        Self { reader, watch }
    }

    /// The line that the next row begins on.
    fn line(&self) -> u64 {
        self.reader.position().line()
    }

    fn next(&mut self, row: &mut csv::ByteRecord) -> anyhow::Result<bool> {
        self.watch.bytes.set(0);
        self.reader
            .read_byte_record(row)
            .map_err(|error| match error.into_kind() {
                csv::ErrorKind::Io(error) => error.into(),
                other => anyhow::anyhow!("this is no CSV: {other:?}"),
            })
    }

    /// Whether the rows ended within quotes.
    fn is_open(&self) -> bool {
        self.watch.is_quoted.get()
    }
}

/// A column that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    TaskId,
    /// Counts only where no other column is the task's id: tables have ids of their own.
    Id,
    Source,
    Kind,
    Index,
    Family,
    Prompt,
}

impl Column {
    fn is_id(self) -> bool {
        matches!(self, Self::TaskId | Self::Id)
    }

    /// By its header, in any spelling: `task_id`, `taskId`, `Task ID`.
    fn named(header: &str) -> Option<Self> {
        let letters = header.chars().filter(char::is_ascii_alphanumeric);
        let word: String = letters.map(|letter| letter.to_ascii_lowercase()).collect();
        Some(match word.as_str() {
            "taskid" => Self::TaskId,
            "id" => Self::Id,
            "source" => Self::Source,
            "kind" => Self::Kind,
            "index" => Self::Index,
            "family" => Self::Family,
            "prompt" => Self::Prompt,
            _ => return None,
        })
    }
}

/// What the columns of a file mean.
#[derive(Debug)]
struct Columns(Vec<Option<Column>>);

impl Columns {
    /// What a row says; nothing if it is empty, or the header. The first row tells what the columns are.
    fn read(columns: &mut Option<Self>, row: &csv::ByteRecord) -> anyhow::Result<Option<Said>> {
        if row.iter().all(<[u8]>::is_empty) {
            return Ok(None);
        }
        if let Some(columns) = columns {
            return columns.said(row).map(Some);
        }
        let (found, is_header) = Self::of(row)?;
        let found = columns.insert(found);
        if is_header {
            return Ok(None);
        }
        found.said(row).map(Some)
    }

    /// By the first row; whether that is a header.
    fn of(row: &csv::ByteRecord) -> anyhow::Result<(Self, bool)> {
        let named = |field: &[u8]| text(field).ok().and_then(Column::named);
        let mut columns: Vec<Option<Column>> = row.iter().map(named).collect();
        if columns.contains(&Some(Column::TaskId)) {
            return Ok((Self(columns), true));
        }
        if let Some(id) = columns.iter_mut().find(|column| **column == Some(Column::Id)) {
            *id = Some(Column::TaskId);
            return Ok((Self(columns), true));
        }
        if columns.iter().any(Option::is_some) {
            bail!("the header names no column task_id (or taskId, or id)");
        }
        // No header: the id comes first, and nothing says what else there is.
        Ok((Self(vec![Some(Column::TaskId)]), false))
    }

    fn said(&self, row: &csv::ByteRecord) -> anyhow::Result<Said> {
        let mut said = Said::default();
        for (column, field) in self.0.iter().zip(row) {
            let Some(column) = column else { continue };
            let field = text(field)?;
            let given = Some(field.to_owned()).filter(|field| !field.is_empty());
            match column {
                Column::TaskId => field.clone_into(&mut said.task_id),
                Column::Source => said.source = given,
                Column::Kind => said.kind = given,
                Column::Index => said.index = given,
                Column::Family => said.family = given,
                Column::Prompt => said.params = given.as_deref().map(as_params),
                Column::Id => {}
            }
        }
        Ok(said)
    }
}
