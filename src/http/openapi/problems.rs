//! Error answers in the document: handlers name their codes, and what each means stands here once.
//!
//! Where a handler's annotation says `(status = 404, description = "unknown_task, unknown_file")`, the document gets an answer of
//! that status whose `code` is one of the two.

use axum::http::StatusCode;
use serde_json::json;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, Type};
use utoipa::openapi::{
    Components, Content, ContentBuilder, Header, Ref, RefOr, Response, ResponseBuilder, SecurityRequirement,
};

/// Every code that an operation may name, with what it means.
const MEANINGS: &[(&str, &str)] = &[
    (
        "ambiguous_source",
        "several sources have a task of that id: add `?source=`",
    ),
    (
        "bad_link",
        "a signed link that was never given out: something in its path or query was changed",
    ),
    ("bad_query", "`kind` or `index` is malformed"),
    (
        "bad_request",
        "a parameter, the path or the body is malformed; `detail` says what is expected",
    ),
    ("bad_signature", "no configured key made the signature"),
    ("bad_task_id", "the task id has other characters or is too long"),
    ("bad_token", "the token is none of those configured"),
    (
        "body_not_kept",
        "the body of the delivery is no longer kept, or was too long to be",
    ),
    ("busy", "more arrives than can be recorded"),
    (
        "cross_site",
        "the request came with a session of the dashboard, and not from its own pages",
    ),
    ("draining", "the server is shutting down"),
    (
        "duplicate_key",
        "`data`, `taskId`, `task_id` or `code` stands twice in one object",
    ),
    (
        "file_damaged",
        "the stored file has another length than its record says",
    ),
    (
        "file_deleted",
        "the file was stored, and went by age or for lack of room",
    ),
    (
        "file_missing",
        "the file is stored by its record, and is not there",
    ),
    ("internal", "something failed inside; the log has the cause"),
    (
        "link_expired",
        "a signed link that opens no more; asking for the task again gives a fresh one",
    ),
    (
        "loopback_only",
        "nothing is configured that would prove who asks, and the request does not plainly come from this machine",
    ),
    ("method_not_allowed", "the route takes another method"),
    (
        "missing_signature",
        "the source has keys, and a signature header is missing",
    ),
    ("missing_token", "a token is wanted"),
    ("no_scrub", "no scrub is under way"),
    ("no_task_id", "no task id stands in any of the four places"),
    (
        "not_a_conflict",
        "the delivery is no conflict, or its body is no longer kept",
    ),
    ("not_found", "there is no such route here"),
    (
        "not_json",
        "the body is not one JSON object in UTF-8, or broken gzip",
    ),
    (
        "not_stored",
        "the file is announced and not stored (yet); `detail` tells its state and last error",
    ),
    (
        "range_not_satisfiable",
        "the range lies beyond the file; `Content-Range` has its length",
    ),
    ("scrub_running", "a scrub is under way already"),
    (
        "stale",
        "the timestamp is further from our clock than `timestamp_tolerance`",
    ),
    (
        "storage_unavailable",
        "the bucket that holds the file cannot be asked",
    ),
    ("store_unavailable", "the database does not answer"),
    ("task_ids_differ", "two places hold different task ids"),
    ("too_large", "the body is too large"),
    ("too_slow", "the body did not arrive in time"),
    (
        "too_many_readers",
        "as many follow the events as may do so at one time",
    ),
    ("unknown_delivery", "there is no delivery of that id"),
    ("unknown_file", "the task has no file of that name"),
    ("unknown_source", "no source of that name is configured"),
    (
        "unknown_task",
        "there is no task of that id, or not of that source",
    ),
    (
        "unsupported_media_type",
        "the request lacks `Content-Type: application/json`",
    ),
];

/// What every operation of the API may answer: the name of the answer, its status and its codes.
const COMMON: [(&str, StatusCode, &str); 5] = [
    ("BadRequest", StatusCode::BAD_REQUEST, "bad_request"),
    (
        "Unauthorized",
        StatusCode::UNAUTHORIZED,
        "missing_token, bad_token",
    ),
    ("Forbidden", StatusCode::FORBIDDEN, "loopback_only, cross_site"),
    ("Internal", StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    ("Unavailable", StatusCode::SERVICE_UNAVAILABLE, "busy, draining"),
];

/// What several of them may answer besides.
const SHARED: [(&str, StatusCode, &str); 5] = [
    ("UnknownTask", StatusCode::NOT_FOUND, "unknown_task"),
    ("UnknownDelivery", StatusCode::NOT_FOUND, "unknown_delivery"),
    ("AmbiguousSource", StatusCode::CONFLICT, "ambiguous_source"),
    ("TooLarge", StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
    (
        "UnsupportedMediaType",
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
    ),
];

/// Describes the error answers that operations have in common.
pub(super) fn describe_common(components: &mut Components) {
    for (name, status, codes) in COMMON.into_iter().chain(SHARED) {
        let response = response(status, &words(codes)).into();
        components.responses.insert(name.to_owned(), response);
    }
}

/// Gives an operation of the API the common answers and what lets one in.
pub(super) fn add_common(operation: &mut Operation) {
    let bearer = || vec![SecurityRequirement::new::<_, [&str; 0], &str>("bearer", [])];
    operation.security.get_or_insert_with(bearer);
    let takes_anything = operation.parameters.is_some() || operation.request_body.is_some();
    for (name, status, codes) in COMMON {
        if status == StatusCode::BAD_REQUEST && !takes_anything {
            continue;
        }
        let answers = &mut operation.responses.responses;
        if let Some(RefOr::T(own)) = answers.get_mut(status.as_str()) {
            own.description = format!("{}, {codes}", own.description);
        } else {
            let shared = Ref::from_response_name(name).into();
            answers.insert(status.as_str().to_owned(), shared);
        }
    }
}

/// Writes out the error answers of an operation that say nothing but their codes.
pub(super) fn write_out(operation: &mut Operation) {
    for (status, answer) in &mut operation.responses.responses {
        let status = StatusCode::from_bytes(status.as_bytes()).unwrap_or_default();
        let RefOr::T(named) = answer else { continue };
        if named.content.is_empty() && (status.is_client_error() || status.is_server_error()) {
            let codes = &named.description;
            let shared = SHARED
                .iter()
                .find(|shared| (shared.1, shared.2) == (status, codes));
            *answer = match shared {
                Some((name, ..)) => Ref::from_response_name(*name).into(),
                None => response(status, &words(codes)).into(),
            };
        }
    }
}

fn words(codes: &str) -> Vec<&str> {
    codes.split(", ").collect()
}

fn response(status: StatusCode, codes: &[&str]) -> Response {
    let lines: Vec<_> = codes
        .iter()
        .map(|code| format!("- `{code}`: {}", meaning(code)))
        .collect();
    let mut response = ResponseBuilder::new()
        .description(lines.join("\n"))
        .content("application/problem+json", content(status, codes));
    if status == StatusCode::UNAUTHORIZED && codes.contains(&"missing_token") {
        response = response.header(
            "WWW-Authenticate",
            header("`Bearer`, where a bearer token is wanted"),
        );
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response = response.header("Retry-After", header("in how many seconds to try again"));
    }
    response.build()
}

fn content(status: StatusCode, codes: &[&str]) -> Content {
    let code = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(codes.iter().copied()));
    let of_these = ObjectBuilder::new().property("code", code);
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name("Problem"))
        .item(of_these);
    let examples = codes.iter().map(|code| {
        let value = json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "code": code,
            "detail": meaning(code),
        });
        (*code, RefOr::T(ExampleBuilder::new().value(Some(value)).build()))
    });
    ContentBuilder::new()
        .schema(Some(schema))
        .examples_from_iter(examples)
        .build()
}

pub(super) fn header(description: &str) -> Header {
    let text = ObjectBuilder::new().schema_type(Type::String);
    HeaderBuilder::new()
        .schema(Some(text))
        .description(Some(description))
        .build()
}

/// What a code means. A test finds those that are missing here.
fn meaning(code: &str) -> &'static str {
    let known = MEANINGS.iter().find(|(known, _)| *known == code);
    known.map_or(UNEXPLAINED, |(_, meaning)| meaning)
}

/// What stands in the document where a code is missing above.
pub(super) const UNEXPLAINED: &str = "not explained";
