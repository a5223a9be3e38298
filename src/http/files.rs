//! Stored files: whole or by Range, under headers that keep a browser from running what a stranger made.

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_range_header::{EndPosition, StartPosition};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::App;
use super::problem::{Path, Problem};
use super::tasks::{Select, find};
use crate::store::tasks::{FileRecord, TaskRecord};

/// Our own small video, for the walk-through. `assets/README.md` tells how it was made.
const SAMPLE: &[u8] = include_bytes!("../../assets/sample.mp4");

/// Types that a browser may show in place: sound, video and raster images, by content. Never SVG, XML or HTML.
const INLINE: [&str; 16] = [
    "video/mp4",
    "video/quicktime",
    "video/webm",
    "video/x-matroska",
    "video/ogg",
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/gif",
    "image/avif",
    "audio/mpeg",
    "audio/mp4",
    "audio/wav",
    "audio/flac",
    "audio/ogg",
    "audio/aac",
];

/// The same name may later carry another file: each use asks, and is told 304.
const CACHING: &str = "private, no-cache";

/// Bytes read from disk at a time.
const CHUNK: usize = 256 * 1024;

/// Serves a stored file by its name, or by its name without extension.
pub(super) async fn serve(
    State(app): State<App>,
    Path((task_id, name)): Path<(String, String)>,
    query: Result<Query<Select>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let task = find(&app, &task_id, query.source.as_deref()).await?;
    let file = named(&task, &name)?;
    let stored = file.storage_key.as_ref().filter(|_| file.state == "stored");
    let (Some(key), Some(sha256)) = (stored, &file.sha256) else {
        return Err(not_stored(file));
    };
    let etag = format!("\"{}\"", hex::encode(sha256));
    if not_modified(&headers, &etag) {
        let unchanged = [(header::ETAG, etag), (header::CACHE_CONTROL, CACHING.to_owned())];
        return Ok((StatusCode::NOT_MODIFIED, unchanged).into_response());
    }
    let (mut stored, length) = app.storage.open_file(key).await?;
    let range = match requested(&headers, &etag, length) {
        Requested::Whole => None,
        Requested::Part(start, end) => Some((start, end)),
        Requested::Unsatisfiable => {
            let range = [(header::CONTENT_RANGE, format!("bytes */{length}"))];
            let problem = Problem::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "range_not_satisfiable",
                format!("the file has {length} bytes"),
            );
            return Ok((range, problem).into_response());
        }
    };
    let (start, end) = range.unwrap_or((0, length.saturating_sub(1)));
    let count = if length == 0 { 0 } else { end - start + 1 };
    stored
        .seek(std::io::SeekFrom::Start(start))
        .await
        .map_err(|error| Problem::internal(&error))?;
    let body = Body::from_stream(ReaderStream::with_capacity(stored.take(count), CHUNK));
    let mut response = body.into_response();
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {start}-{end}/{length}");
        response.headers_mut().insert(header::CONTENT_RANGE, text(&range));
    }
    describe(response.headers_mut(), &task, file, (&etag, count));
    Ok(response)
}

fn named<'t>(task: &'t TaskRecord, name: &str) -> Result<&'t FileRecord, Problem> {
    let stem = |file: &FileRecord| file.name.rsplit_once('.').is_some_and(|(stem, _)| stem == name);
    task.files
        .iter()
        .find(|file| file.name == name || stem(file))
        .ok_or_else(|| {
            Problem::new(
                StatusCode::NOT_FOUND,
                "unknown_file",
                format!("task {} has no file {name}", task.task_id),
            )
        })
}

fn not_stored(file: &FileRecord) -> Problem {
    let why = file
        .error
        .as_ref()
        .map_or(String::new(), |(_, detail)| format!(": {detail}"));
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_stored",
        format!("{} is {}{why}", file.name, file.state),
    )
}

fn not_modified(headers: &HeaderMap, etag: &str) -> bool {
    let Some(known) = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    known
        .split(',')
        .map(|known| known.trim().trim_start_matches("W/"))
        .any(|known| known == etag || known == "*")
}

enum Requested {
    Whole,
    /// First and last byte, inclusive.
    Part(u64, u64),
    Unsatisfiable,
}

/// One range is served; of several, or under an `If-Range` of another file, the whole (as RFC 9110 allows).
fn requested(headers: &HeaderMap, etag: &str, length: u64) -> Requested {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(range) = text(header::RANGE) else {
        return Requested::Whole;
    };
    if text(header::IF_RANGE).is_some_and(|validator| validator != etag) {
        return Requested::Whole;
    }
    let Ok(parsed) = http_range_header::parse_range_header(range) else {
        // Another unit, or malformed: to be ignored.
        return Requested::Whole;
    };
    let [only] = parsed.ranges.as_slice() else {
        return Requested::Whole;
    };
    let last = length.saturating_sub(1);
    let (start, end) = match (only.start, only.end) {
        (StartPosition::FromLast(count), _) => (length.saturating_sub(count), last),
        (StartPosition::Index(start), EndPosition::LastByte) => (start, last),
        // Backwards is malformed.
        (StartPosition::Index(start), EndPosition::Index(end)) if end < start => return Requested::Whole,
        (StartPosition::Index(start), EndPosition::Index(end)) => (start, end.min(last)),
    };
    if start < length {
        Requested::Part(start, end)
    } else {
        Requested::Unsatisfiable
    }
}

fn describe(headers: &mut HeaderMap, task: &TaskRecord, file: &FileRecord, (etag, count): (&str, u64)) {
    let known = file
        .content_type
        .as_deref()
        .and_then(|found| INLINE.into_iter().find(|inline| *inline == found));
    let disposition = if known.is_some() { "inline" } else { "attachment" };
    let fixed = [
        (header::CONTENT_TYPE, known.unwrap_or("application/octet-stream")),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'"),
        (header::ACCEPT_RANGES, "bytes"),
        (header::CACHE_CONTROL, CACHING),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::ETAG, text(etag));
    headers.insert(header::CONTENT_LENGTH, count.into());
    // Ids and names hold no quotes and no control characters: they were checked when they came in.
    let disposition = format!("{disposition}; filename=\"{}-{}\"", task.task_id, file.name);
    headers.insert(header::CONTENT_DISPOSITION, text(&disposition));
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The sample that `trigger` names unless told otherwise; only offered without any configuration.
pub(super) async fn sample(State(app): State<App>) -> Result<Response, Problem> {
    if !app.settings.sample {
        return Err(Problem::not_found(
            "the sample is offered only without a configured source",
        ));
    }
    Ok(([(header::CONTENT_TYPE, "video/mp4")], SAMPLE).into_response())
}
