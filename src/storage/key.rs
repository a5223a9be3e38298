//! Keys of stored files: from names that strangers chose to paths that stay inside.

use sha2::{Digest, Sha256};

use crate::config::{Layout, Placeholder};

/// The key of a file in a layout: source, task id and name, each percent-encoded so that different ones stay different and
/// none is hidden, `.` or `..`. They must not be empty.
pub fn object_key(layout: &Layout, (source, task_id, name): (&str, &str, &str)) -> String {
    layout.fill(|placeholder| {
        encode_part(match placeholder {
            Placeholder::Source => source,
            Placeholder::TaskId => task_id,
            Placeholder::Name => name,
        })
    })
}

/// What the keys of all files of a task began with before there were layouts: `{source}/{task_id}`, encoded alike.
pub(super) fn task_directory(source: &str, task_id: &str) -> String {
    format!("{}/{}", encode_part(source), encode_part(task_id))
}

/// Whether a layout can have made the key: then it stays inside and names nothing hidden.
pub(super) fn is_sound(key: &str) -> bool {
    let plain = |byte: u8| is_plain(byte) || byte == b'%';
    let sound = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
    key.split('/').all(sound)
}

fn encode_part(part: &str) -> String {
    /// Shorter than what file systems take (255), with room for what an operator's tools append.
    const LONGEST: usize = 220;
    let mut encoded = String::with_capacity(part.len());
    for (place, byte) in part.bytes().enumerate() {
        if is_plain(byte) && !(place == 0 && byte == b'.') {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&hex::encode_upper([byte]));
        }
    }
    if encoded.len() <= LONGEST {
        return encoded;
    }
    // 128 characters of which each takes three: a digest stands for the rest. `%%` is in no encoded part, so a
    // shortened one is never equal to another.
    let digest = hex::encode(Sha256::digest(part));
    format!("{}%%{digest}", &encoded[..LONGEST - 2 - digest.len()])
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}
