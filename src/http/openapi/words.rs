//! The words and ids of the API as types of the document: what the views hold as plain text.

use std::borrow::Cow;

use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::ingest::REASONS;

/// Task states, for `?state=`, too.
pub(in crate::http) const TASK_STATES: [&str; 3] = ["pending", "succeeded", "failed"];
/// Summaries over the files of a task, for `?media=`, too.
pub(in crate::http) const MEDIA: [&str; 6] = ["none", "downloading", "queued", "stored", "failed", "partial"];
/// Verdicts, for `?verdict=`, too.
pub(in crate::http) const VERDICTS: [&str; 4] = ["accepted", "duplicate", "conflict", "rejected"];

/// A type that is only ever named, by `value_type`.
macro_rules! named {
    ($($(#[doc = $doc:literal])+ $name:ident = $schema:expr;)+) => {$(
        $(#[doc = $doc])+
        pub(in crate::http) enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let description = concat!($($doc),+).trim();
                ObjectBuilder::from($schema).description(Some(description)).into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }
    )+};
}

named! {
    /// A task is pending until its end is known.
    TaskState = word(&TASK_STATES);
    /// Over all files of a task: `none` if there are none, else `downloading` if any is, else `queued` if any is queued or
    /// held, else `stored` if all are, `failed` if all are, `partial` otherwise. Deleted files do not count.
    Media = word(&MEDIA);
    /// `held` files wait until the provider's API confirms them.
    FileState = word(&["queued", "held", "downloading", "stored", "failed", "deleted"]);
    /// What a file is to its task: the `result` itself; the `origin` behind a processed one; the `full` film that a clip
    /// extends; an `image`; or `audio`.
    Role = word(&["result", "origin", "full", "image", "audio"]);
    /// How something was heard: by a callback; by asking the provider (`poll`); or as an answer to a client of the provider's
    /// own API (`api`).
    Via = word(&["callback", "poll", "api"]);
    /// What was made of a delivery: it told something; it told what was known; it contradicts what stands; it was refused.
    Verdict = word(&VERDICTS);
    /// Why a delivery was rejected.
    Reason = word(&REASONS);
    /// Why the provider is asked: no final word came (`silent`); deliveries contradict each other; files wait for its
    /// confirmation; a file's link has expired; only its record names the whole film; a callback came too late to be
    /// believed (`stale`); a failure is to be confirmed.
    AskReason = word(&["silent", "conflict", "held", "needs_url", "full", "stale", "unconfirmed"]);
    /// Which result of a task something is about, such as `video` (the base), `4k` or `1080p`.
    Kind = text("^[a-z0-9]{1,16}$");
    /// The provider's id of a task: opaque, and neither `.` nor `..`.
    TaskId = text(r"^(?!\.{1,2}$)[A-Za-z0-9._~:*-]{1,128}$");
    /// `damaged` has other bytes than were stored, `missing` is not there, `unreadable` could not be read just then.
    Wrong = word(&["damaged", "missing", "unreadable"]);
    /// The bytes of a file.
    Bytes = ObjectBuilder::new().schema_type(Type::String).build();
    /// Where the next page of a list begins, as `next_cursor` of the page before says.
    Cursor = text("^[0-9]{1,18}$");
}

fn word(words: &[&'static str]) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(words.iter().copied()))
        .build()
}

fn text(pattern: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(pattern))
        .build()
}
