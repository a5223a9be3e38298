//! `/v1/tasks/{task_id}/files.zip`: all stored files of a task as one archive.
//!
//! It is made while it is sent: no more of it is in memory than the piece that is on its way, and it ends where its reader
//! goes away. Nothing is compressed, which media are already; so its length is known beforehand, and an archive that breaks
//! off cannot be taken for a whole one.

use std::collections::VecDeque;
use std::io;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Crc;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};

use super::App;
use super::files::{CACHING, damaged};
use super::openapi::words::{self, TaskId};
use super::problem::{Path, Problem};
use super::tasks::{Select, find};
use crate::storage::Storage;
use crate::store::tasks::{FileRecord, TaskRecord};

mod zip;

use zip::{Entry, Written};

/// Files of a bucket that are looked for at one time, before anything is sent.
const LOOKS: usize = 8;

/// Serves all stored files of a task in one ZIP archive.
///
/// It is made while it is sent.
#[utoipa::path(
    get,
    path = "/v1/tasks/{task_id}/files.zip",
    tag = "files",
    operation_id = "download_files",
    params(("task_id" = inline(TaskId), Path, description = "The task.", example = "veo_task_1"), Select),
    responses(
        (
            status = 200,
            description = "The archive.",
            content_type = "application/zip",
            body = inline(words::Bytes),
            headers(("Content-Disposition" = String, description = "`attachment`, and a file name")),
        ),
        (status = 404, description = "unknown_task, not_stored, file_missing"),
        (status = 409, description = "ambiguous_source"),
        (status = 500, description = "file_damaged"),
        (status = 503, description = "storage_unavailable"),
    ),
)]
pub(super) async fn serve(
    State(app): State<App>,
    Path(task_id): Path<String>,
    query: Result<Query<Select>, QueryRejection>,
    method: Method,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let task = find(&app, &task_id, query.source.as_deref()).await?;
    let files: Vec<Stored> = task.files.iter().filter_map(Stored::of).collect();
    if files.is_empty() {
        return Err(nothing_stored(&task));
    }
    look_for(&app.storage, &task).await?;
    let entries: Vec<Entry> = files.iter().map(|file| file.entry.clone()).collect();
    let length = zip::length(&entries);
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        Body::from_stream(archive(app.storage.clone(), task.task_id.clone(), files))
    };
    let mut response = (StatusCode::OK, body).into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "application/zip"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'"),
        (header::CACHE_CONTROL, CACHING),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CONTENT_LENGTH, length.into());
    let disposition = format!("attachment; filename=\"{}\"", archive_name(&task.task_id));
    let disposition = HeaderValue::from_str(&disposition).map_err(|error| Problem::internal(&error))?;
    headers.insert(header::CONTENT_DISPOSITION, disposition);
    Ok(response)
}

/// A file name for any file system: of the characters of ids, `~`, `:` and `*` are not everywhere taken, and a dot in front
/// hides a file.
fn archive_name(task_id: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '_'
        }
    };
    let name: String = task_id.chars().map(plain).collect();
    let name = name.trim_start_matches('.');
    format!("{}.zip", if name.is_empty() { "task" } else { name })
}

/// A file that belongs into the archive.
#[derive(Debug)]
struct Stored {
    key: String,
    entry: Entry,
}

impl Stored {
    fn of(file: &FileRecord) -> Option<Self> {
        let key = file.storage_key.clone().filter(|_| file.state == "stored")?;
        let entry = Entry {
            name: file.name.clone(),
            bytes: u64::try_from(file.bytes?).ok()?,
            modified_at: file.updated_at,
        };
        Some(Self { key, entry })
    }
}

fn nothing_stored(task: &TaskRecord) -> Problem {
    let states: Vec<String> = (task.files.iter())
        .take(3)
        .map(|file| format!("{} is {}", file.name, file.state))
        .collect();
    let why = match (states.as_slice(), task.files.len() - states.len()) {
        ([], _) => format!("it has {} and announced no files", task.state.as_str()),
        (shown, 0) => shown.join(", "),
        (shown, more) => format!("{}, and {more} more", shown.join(", ")),
    };
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_stored",
        format!("no file of task {} is stored: {why}", task.task_id),
    )
}

/// Looks whether all files are there and whole, while that can still be answered in words.
async fn look_for(storage: &Storage, task: &TaskRecord) -> Result<(), Problem> {
    let stored = task.files.iter().filter(|file| file.state == "stored");
    let looks = stored.filter_map(|file| {
        let key = file.storage_key.as_deref()?;
        Some(async move {
            let found = storage.open_file(key).await?.length();
            if file.bytes.and_then(|bytes| u64::try_from(bytes).ok()) == Some(found) {
                return Ok(());
            }
            Err(damaged(task, file, found))
        })
    });
    let looks: Vec<_> = looks.collect();
    stream::iter(looks).buffered(LOOKS).try_collect().await
}

/// The archive, piece by piece. A file that is gone or short when its turn comes is an error, which cuts the transfer off.
fn archive(
    storage: Storage,
    task_id: String,
    files: Vec<Stored>,
) -> impl Stream<Item = io::Result<Bytes>> + use<> {
    let archive = Archive {
        storage,
        files: files.into(),
        at: 0,
        written: Vec::new(),
        stage: Stage::Between,
    };
    stream::try_unfold(archive, Archive::go_on).inspect_err(move |error| {
        tracing::error!(
            task.id = task_id, %error,
            "an archive of task {task_id} was broken off, a file could not be read: {error}"
        );
    })
}

/// An archive that is being sent.
struct Archive {
    storage: Storage,
    /// Those to come.
    files: VecDeque<Stored>,
    /// Bytes that were sent.
    at: u64,
    written: Vec<Written>,
    stage: Stage,
}

/// What comes next.
enum Stage {
    /// The header of the next file, or the directory.
    Between,
    /// More of a file.
    Within(Box<Open>),
    Over,
}

/// The file that is being sent.
struct Open {
    entry: Entry,
    offset: u64,
    content: BoxStream<'static, io::Result<Bytes>>,
    crc: Crc,
    left: u64,
}

impl Archive {
    async fn go_on(mut self) -> io::Result<Option<(Bytes, Self)>> {
        let piece = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Between => match self.files.pop_front() {
                Some(file) => self.begin(file).await?,
                None => zip::directory(&self.written, self.at).into(),
            },
            Stage::Within(open) => self.read(open).await?,
            Stage::Over => return Ok(None),
        };
        self.at += piece.len() as u64;
        Ok(Some((piece, self)))
    }

    /// Opens the next file; its header.
    async fn begin(&mut self, Stored { key, entry }: Stored) -> io::Result<Bytes> {
        let stored = self.storage.open_file(&key).await;
        let stored = stored.map_err(|error| io::Error::other(error.sentence()))?;
        if stored.length() != entry.bytes {
            return Err(cut_off(&entry.name));
        }
        let content = stored.read(0..entry.bytes).await;
        let header = zip::local_header(&entry);
        self.stage = Stage::Within(Box::new(Open {
            offset: self.at,
            content: content.map_err(|error| io::Error::other(error.sentence()))?,
            crc: Crc::new(),
            left: entry.bytes,
            entry,
        }));
        Ok(header.into())
    }

    /// The next piece of a file, or what follows it.
    async fn read(&mut self, mut open: Box<Open>) -> io::Result<Bytes> {
        match open.content.try_next().await? {
            Some(piece) => {
                open.crc.update(&piece);
                open.left =
                    (open.left.checked_sub(piece.len() as u64)).ok_or_else(|| cut_off(&open.entry.name))?;
                self.stage = Stage::Within(open);
                Ok(piece)
            }
            None if open.left > 0 => Err(cut_off(&open.entry.name)),
            None => {
                let crc = open.crc.sum();
                let descriptor = zip::descriptor(&open.entry, crc);
                self.written.push(Written::new(open.entry, crc, open.offset));
                self.stage = Stage::Between;
                Ok(descriptor.into())
            }
        }
    }
}

fn cut_off(name: &str) -> io::Error {
    io::Error::other(format!("{name} has another length than was stored"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_a_name_that_every_file_system_takes() {
        for (id, name) in [
            ("veo_task-1.2", "veo_task-1.2.zip"),
            ("a:b*c~d", "a_b_c_d.zip"),
            ("..hidden", "hidden.zip"),
            ("...", "task.zip"),
        ] {
            assert_eq!(archive_name(id), name);
        }
    }
}
