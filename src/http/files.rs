//! Stored files: whole or by Range, under headers that keep a browser from running what a stranger made.

use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_range_header::{EndPosition, StartPosition};
use serde::Deserialize;
use url::Url;
use utoipa::IntoParams;

use super::App;
use super::openapi::words::{Bytes, TaskId};
use super::problem::{Path, Problem};
use super::tasks::find;
use crate::config::Serve;
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
pub(super) const CACHING: &str = "private, no-cache";

/// How long a URL opens that leads into a bucket.
const OPENS_FOR: Duration = Duration::from_mins(5);

/// What selects one of several sources that share an id, and whether the bytes are to come from here.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Select {
    /// Where two sources share the id: which one.
    #[param(example = "kie")]
    source: Option<String>,
    /// Anything: the bytes come from here, even where files are otherwise handed out by redirect.
    proxy: Option<String>,
}

/// Serves a stored file by its name, or by its name without extension.
///
/// `{name}` is that of the file, or the part before its extension, which never changes. One range is served; of several, or
/// under an `If-Range` of another file, the whole file. Known video, audio and raster images are shown in place by browsers,
/// everything else comes as `application/octet-stream` for download.
#[utoipa::path(
    get,
    path = super::FILE,
    tag = "files",
    operation_id = "download_file",
    params(
        ("task_id" = inline(TaskId), Path, description = "The task.", example = "veo_task_1"),
        ("name" = String, Path, description = "The file.", example = "result-0.mp4"),
        Select,
        ("expires" = Option<i64>, Query, description = "Of a signed link: until when it opens, in Unix seconds."),
        ("range" = Option<String>, Header, description = "One range of bytes.", example = "bytes=0-1023"),
        ("if-range" = Option<String>, Header, description = "The `ETag` that the range is wanted of."),
        ("if-none-match" = Option<String>, Header, description = "`ETag`s that need not be sent again."),
    ),
    responses(
        (
            status = 200,
            description = "The file.",
            content_type = "*/*",
            body = inline(Bytes),
            headers(
                ("ETag" = String, description = "The SHA-256 of the whole file, in quotes."),
                ("Accept-Ranges" = String, description = "`bytes`"),
                ("Content-Disposition" = String, description = "`inline` or `attachment`, and a file name"),
            ),
        ),
        (
            status = 206,
            description = "The range.",
            content_type = "*/*",
            body = inline(Bytes),
            headers(("Content-Range" = String, description = "Which bytes, of how many.")),
        ),
        (
            status = 307,
            description = "Where files are handed out by redirect: a URL of the bucket, which opens for five minutes.",
            headers(("Location" = String, description = "That URL.")),
        ),
        (status = 304, description = "The file is one of those that need not be sent again."),
        (status = 403, description = "link_expired, bad_link"),
        (status = 404, description = "unknown_task, unknown_file, not_stored, file_missing"),
        (status = 409, description = "ambiguous_source"),
        (status = 410, description = "file_deleted"),
        (status = 416, description = "range_not_satisfiable"),
        (status = 500, description = "file_damaged"),
        (status = 503, description = "storage_unavailable"),
    ),
    security(("bearer" = []), ("link" = [])),
)]
pub(super) async fn serve(
    State(app): State<App>,
    Path((task_id, name)): Path<(String, String)>,
    query: Result<Query<Select>, QueryRejection>,
    (method, headers): (Method, HeaderMap),
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
    let opened = app.storage.open_file(key).await;
    let stored = opened.inspect_err(|_| app.meters().unserved.increment())?;
    if file.bytes.and_then(|bytes| u64::try_from(bytes).ok()) != Some(stored.length()) {
        return Err(damaged(&task, file, stored.length()));
    }
    if may_redirect(&app, &method, &headers) && query.proxy.is_none() {
        // Not every kind of credentials can sign: where they cannot, the file comes from here.
        if let Ok(Some(url)) = app.storage.signed_url(key, OPENS_FOR).await {
            return Ok(redirect(&url, &etag));
        }
    }
    let length = stored.length();
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
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        Body::from_stream(stored.read(start..start + count).await?)
    };
    let mut response = body.into_response();
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {start}-{end}/{length}");
        response.headers_mut().insert(header::CONTENT_RANGE, text(&range));
    }
    describe(response.headers_mut(), &task, file, (&etag, count));
    Ok(response)
}

/// Whether a URL of the bucket would do instead of the file. Not to a browser, which tells what it wants a file for: a page
/// takes media from where it came from itself. Nor is a signature for GET good for HEAD.
fn may_redirect(app: &App, method: &Method, headers: &HeaderMap) -> bool {
    app.settings.serve == Serve::Redirect && method == Method::GET && !headers.contains_key("sec-fetch-dest")
}

fn redirect(url: &Url, etag: &str) -> Response {
    let headers = [
        (header::LOCATION, url.as_str()),
        (header::ETAG, etag),
        // The URL lets everybody in who has it.
        (header::CACHE_CONTROL, "no-store"),
    ];
    (StatusCode::TEMPORARY_REDIRECT, headers).into_response()
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
    if file.state == "deleted" {
        return Problem::new(
            StatusCode::GONE,
            "file_deleted",
            format!(
                "{} was stored, and was deleted by age or for lack of room",
                file.name
            ),
        );
    }
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

/// What lies there is not what was stored, and must not go out under its tag.
pub(super) fn damaged(task: &TaskRecord, file: &FileRecord, found: u64) -> Problem {
    let (task_id, name) = (&task.task_id, &file.name);
    tracing::error!(
        task.id = task_id,
        "{name} of task {task_id} is damaged: {found} bytes lie there"
    );
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "file_damaged",
        format!(
            "{found} bytes of {name} lie there where {} were stored; `reelhook scrub --repair` has it fetched again",
            file.bytes.unwrap_or_default()
        ),
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

/// A short video, for `reelhook trigger`.
///
/// Only on a server without any configuration.
#[utoipa::path(
    get,
    path = "/sample.mp4",
    tag = "files",
    operation_id = "download_sample",
    responses(
        (status = 200, description = "The video.", content_type = "video/mp4", body = inline(Bytes)),
        (status = 404, description = "not_found"),
    ),
)]
pub(super) async fn sample(State(app): State<App>) -> Result<Response, Problem> {
    if !app.settings.sample {
        return Err(Problem::not_found(
            "the sample is offered only without a configured source",
        ));
    }
    Ok(([(header::CONTENT_TYPE, "video/mp4")], SAMPLE).into_response())
}
