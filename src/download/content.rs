//! Whether what arrived may be stored, and as what: nobody's word is taken for it, neither the URL's nor the server's.

use std::fs::File;

use super::failure::FetchError;
use crate::media::{self, Facts, Flaw};
use crate::provider::naming::{UNKNOWN_EXTENSION, media_extension};
use crate::storage::{Finished, StorageError};

/// Why a body is not stored as media.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotMedia {
    /// Nothing came.
    #[error("the answer was empty")]
    Empty,
    /// A page, a message or an archive came in place of the file.
    #[error("the answer was {kind} and not media; it begins with \"{beginning}\"")]
    Other {
        /// What it was, with its article if it needs one.
        kind: &'static str,
        /// The first bytes, with everything but printable ASCII escaped.
        beginning: String,
    },
    /// It begins like media and does not go on like that.
    #[error("{flaw}; it begins with \"{beginning}\"")]
    Damaged {
        /// What is wrong, as a sentence.
        flaw: String,
        /// The first bytes, with everything but printable ASCII escaped.
        beginning: String,
    },
}

/// How much of a refused body is shown.
const SHOWN_BYTES: usize = 80;

/// Decides whether a file in the spool may be stored, and as what; `url` says where it came from.
///
/// The file is read on a blocking thread, which a caller that goes away does not wait for.
pub async fn examine(file: &Finished, url: &str) -> Result<Facts, FetchError> {
    let (path, bytes) = (file.path().to_owned(), file.bytes);
    let (head, url) = (file.head.clone(), url.to_owned());
    let judged = tokio::task::spawn_blocking(move || {
        let file = File::open(path).map_err(Flaw::Unreadable);
        judge(file.and_then(|file| media::examine(file, bytes)), &head, &url)
    });
    judged.await.unwrap_or(Err(FetchError::Panicked))
}

/// What follows from the structure of a file and its first bytes.
///
/// Unknown bytes are stored as `application/octet-stream`, under the extension of the URL if that is one of media: providers
/// add formats faster than we learn them.
fn judge(structure: Result<Option<Facts>, Flaw>, head: &[u8], url: &str) -> Result<Facts, FetchError> {
    let beginning = || head[..head.len().min(SHOWN_BYTES)].escape_ascii().to_string();
    match (structure, other_kind(head)) {
        (Ok(Some(facts)), _) => Ok(facts),
        (Ok(None), _) if head.is_empty() => Err(NotMedia::Empty.into()),
        (Ok(None), Some(kind)) => {
            let beginning = beginning();
            Err(NotMedia::Other { kind, beginning }.into())
        }
        (Ok(None), None) => {
            let extension = media_extension(url).unwrap_or(UNKNOWN_EXTENSION);
            Ok(Facts::of("application/octet-stream", extension))
        }
        (Err(Flaw::Truncated(detail)), _) => Err(FetchError::Truncated { detail }),
        (Err(flaw @ Flaw::Malformed(_)), _) => {
            let (flaw, beginning) = (flaw.to_string(), beginning());
            Err(NotMedia::Damaged { flaw, beginning }.into())
        }
        (Err(Flaw::Unreadable(source)), _) => {
            let action = "read a file in the spool";
            Err(StorageError::Io { action, source }.into())
        }
    }
}

/// What these bytes are the beginning of, if that is something that never is media but stands in its place.
fn other_kind(head: &[u8]) -> Option<&'static str> {
    if head.starts_with(b"\x1f\x8b") {
        return Some("compressed with gzip, which was not asked for,");
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace())?;
    // Binary files may begin with such a byte by chance, and soon have others.
    let is_control = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    if text.iter().any(is_control) {
        return None;
    }
    match first {
        b'<' => Some("HTML or XML"),
        b'{' | b'[' => Some("JSON"),
        _ if is_utf8(text) => Some("plain text"),
        _ => None,
    }
}

/// Whether it is UTF-8, perhaps cut inside a character.
fn is_utf8(text: &[u8]) -> bool {
    match std::str::from_utf8(text) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && error.valid_up_to() > 0,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn judged(body: &[u8], url: &str) -> Result<Facts, FetchError> {
        judge(media::examine(Cursor::new(body), body.len() as u64), body, url)
    }

    #[test]
    fn unknown_bytes_keep_an_extension_of_media_and_no_other() {
        let facts = |body: &[u8], path: &str| judged(body, &format!("https://a.example/{path}")).unwrap();
        let unknown = |extension| Facts::of("application/octet-stream", extension);
        assert_eq!(facts(b"\x01\x02{}\x03", "x.WAV?y"), unknown("wav"));
        assert_eq!(facts(b"\x01\x02{}\x03", "x.html"), unknown("bin"));
        for binary in [&b"\xff\xff\xff\xff"[..], b"{\x00\x01", b"\xe9t\xe9", b"\xc3"] {
            assert_eq!(facts(binary, "x"), unknown("bin"), "{}", binary.escape_ascii());
        }
    }

    #[test]
    fn what_stands_in_the_place_of_media_is_refused_and_shown() {
        let refusal = |body: &[u8]| {
            let failure = judged(body, "https://a.example/x.mp4").unwrap_err();
            assert_eq!(failure.code(), "not_media", "{failure}");
            failure.to_string()
        };
        assert_eq!(
            refusal(b"\xef\xbb\xbf \r\n<!DOCTYPE html><title>\xc3\xa9"),
            "the answer was HTML or XML and not media; it begins with \
             \"\\xef\\xbb\\xbf \\r\\n<!DOCTYPE html><title>\\xc3\\xa9\""
        );
        for (body, kind) in [
            ("<?xml version=\"1.0\"?><Error><Code>AccessDenied", "XML"),
            ("<svg xmlns=", "XML"),
            ("{\"code\":404}", "JSON"),
            (" [1,2]", "JSON"),
            ("Too many requests", "plain text"),
            ("Zu viele Zugriffe f\u{fc}r heute", "plain text"),
        ] {
            assert!(refusal(body.as_bytes()).contains(kind), "{body}");
        }
        assert!(refusal(b"\x1f\x8b\x08\0\0").contains("gzip"));
        assert!(refusal(&[b'<'; 512]).len() < 160);
        assert_eq!(refusal(b""), "the answer was empty");
        assert_eq!(
            refusal(b"\0\0\0\x0cftypisom\xff\xff\xff\xff\xff\xff\xff\xff"),
            "the file is damaged: there is no box at byte 12; it begins with \
             \"\\x00\\x00\\x00\\x0cftypisom\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\""
        );
    }

    #[test]
    fn what_is_cut_off_is_truncated() {
        let failure = judged(b"\0\0\0\x14ftypisom\0\0\0\0isom", "https://a.example/x").unwrap_err();
        assert_eq!(failure.code(), "truncated");
        assert_eq!(
            failure.to_string(),
            "the file is cut off: its index (moov) is missing"
        );
    }
}
