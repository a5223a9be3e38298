//! What must hold of any input, one function per fuzz target. The same functions replay the corpora under `cargo test`.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::{Component, Path};
use std::time::Duration;

use reelhook::config::Layout;
use reelhook::config::{Config, Inputs, Secret};
use reelhook::media::{Facts, Flaw, examine};
use reelhook::provider::encoding::{beginning, decoded};
use reelhook::provider::naming::{file_name, guess_extension};
use reelhook::provider::payload::{Document, MAX_MEDIA, MAX_RESOLUTION_BYTES, MAX_TEXT_BYTES, MAX_URL_BYTES};
use reelhook::provider::signature::{Signed, sign, verify};
use reelhook::provider::{Kind, OutcomeClass, Role, TaskId};
use reelhook::storage::object_key;

/// The body of a callback: it is read within bounds, and twice alike.
pub fn payload(data: &[u8]) {
    let Ok(document) = Document::parse(data) else {
        return;
    };
    let id = document.task_id();
    assert_eq!(
        id.as_str().parse::<TaskId>().as_ref(),
        Ok(id),
        "an id that is none"
    );
    let event = document.event();
    assert!(event.msg.len() <= MAX_TEXT_BYTES);
    assert!(
        event
            .prompt
            .as_ref()
            .is_none_or(|prompt| prompt.len() <= MAX_TEXT_BYTES)
    );
    assert!(
        event
            .resolution
            .as_ref()
            .is_none_or(|resolution| resolution.len() <= MAX_RESOLUTION_BYTES)
    );
    assert!(event.credits.is_none_or(f64::is_finite));
    assert_eq!(event.failure.is_some(), event.class == OutcomeClass::Failure);
    assert!(event.media.is_empty() || event.class == OutcomeClass::Success);
    assert!(event.media.len() <= MAX_MEDIA + 1);
    let mut places = HashSet::new();
    for file in &event.media {
        assert!(!file.url.trim().is_empty() && file.url.len() <= MAX_URL_BYTES);
        assert!(places.insert((file.role, file.n)), "two files in one place");
        assert!(
            file.n == 0 || places.contains(&(file.role, file.n - 1)),
            "a gap between files"
        );
    }
    assert_eq!(
        format!("{:?}", document.event()),
        format!("{event:?}"),
        "read once more"
    );
}

/// Three lines (task id, timestamp, signature; without the last, the right one is put in): what is believed was signed
/// with the key within the tolerance, and what was is believed.
pub fn signature(data: &[u8]) {
    const KEY: &str = "fuzz-hmac-key";
    const NOW: i64 = 1_769_670_760_000;
    const TOLERANCE: Duration = Duration::from_mins(5);
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(3, '\n');
    let (task_id, timestamp) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let right = sign(KEY, task_id, timestamp.trim());
    let signature = lines.next().unwrap_or(&right);
    let signed = Signed {
        task_id,
        timestamp,
        signature,
    };
    let verified = verify(["", KEY], &signed, NOW, TOLERANCE);
    let seconds: Option<i64> = timestamp.trim().parse().ok();
    let is_digits = timestamp.trim().bytes().all(|byte| byte.is_ascii_digit());
    let is_near = seconds.is_some_and(|seconds| (NOW / 1000).abs_diff(seconds) <= TOLERANCE.as_secs());
    assert_eq!(
        verified.is_ok(),
        is_digits && is_near && signature.trim() == right,
        "{signed:?}: {verified:?}"
    );
    assert!(
        verify(["another key"], &signed, NOW, TOLERANCE).is_err(),
        "any key will do"
    );
}

/// A configuration file: it is taken or refused with a reason, and shows no secret when it is printed.
pub fn config(data: &[u8]) {
    // Files that it names would be read, `/dev/zero` among them.
    if data.windows(5).any(|part| part == b"_file") {
        return;
    }
    let path = std::env::temp_dir().join(format!("reelhook-fuzz-{}.toml", std::process::id()));
    fs::write(&path, data).expect("there is room for a small file");
    let loaded = Config::load(&Inputs {
        file: Some(path.clone()),
        ..Inputs::default()
    });
    fs::remove_file(&path).expect("it was just written");
    match loaded {
        Ok(config) => {
            let shown = config.redacted_toml();
            let is_shown = |secret: &Secret| secret.expose().len() >= 16 && shown.contains(secret.expose());
            // A short one, or one that is a word of the format, may well stand there for itself.
            let is_random = |secret: &Secret| secret.expose().bytes().any(|byte| byte.is_ascii_uppercase());
            assert!(
                !config
                    .secrets()
                    .iter()
                    .any(|secret| is_random(secret) && is_shown(secret)),
                "{shown}"
            );
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Six lines, two times source, task id and name or URL: their keys stay inside the storage, and are equal only if all
/// three are.
pub fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines: Vec<&str> = text.splitn(6, '\n').collect();
    let usual = Layout::default();
    let keys: Vec<(&[&str], String)> = lines
        .chunks_exact(3)
        .filter(|parts| parts.iter().all(|part| !part.is_empty()))
        .map(|parts| (parts, object_key(&usual, (parts[0], parts[1], parts[2]))))
        .collect();
    for (parts, key) in &keys {
        let components: Vec<Component<'_>> = Path::new(key).components().collect();
        assert_eq!(components.len(), 3, "{key}");
        for component in components {
            let Component::Normal(part) = component else {
                panic!("{key} leads elsewhere")
            };
            let part = part.to_str().expect("keys are text");
            assert!(!part.starts_with('.') && part.len() <= 255, "{key}");
        }
        assert!(key.bytes().all(|byte| byte.is_ascii_graphic()), "{key}");
        let extension = guess_extension(parts[2], Role::Result);
        let name = file_name(&Kind::four_k(), 7, Role::Result, 1, extension);
        assert!(
            object_key(&usual, ("kie", "t", &name)).ends_with(&name),
            "our own names stay as they are: {name}"
        );
    }
    if let [(one, key), (other, other_key)] = &keys[..] {
        assert_eq!(one == other, key == other_key, "{one:?} {other:?}");
    }
}

/// A body that may be gzip: what it unpacks to is bounded, and its beginning is a beginning of it.
pub fn gzip(data: &[u8]) {
    const LIMIT: u64 = 64 * 1024;
    let is_gzip = data.starts_with(&[0x1f, 0x8b]);
    let whole = decoded(data, LIMIT);
    match &whole {
        Ok(plain) => assert!(!is_gzip && **plain == *data || is_gzip && plain.len() as u64 <= LIMIT),
        Err(_) => assert!(is_gzip, "a plain body is itself"),
    }
    for most in [0, 1, 100, LIMIT] {
        if let (Ok((first, more)), Ok(whole)) = (beginning(data, most), &whole) {
            assert!(whole.starts_with(&first) && first.len() as u64 <= most);
            assert_eq!(more, first.len() < whole.len());
        }
    }
}

/// A file: it is read within bounds, and what is told of it can be stored and shown.
pub fn media(data: &[u8]) {
    let mut file = Counted {
        file: Cursor::new(data),
        reads: 0,
    };
    let length = data.len() as u64;
    let found = examine(&mut file, length);
    assert!(
        file.reads <= 64 + 2 * length,
        "{} reads of {length} bytes",
        file.reads
    );
    match found {
        Ok(None) => {}
        Ok(Some(facts)) => {
            let Facts {
                extension,
                duration_ms,
                width,
                height,
                codec,
                ..
            } = facts;
            assert!(extension.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            assert!(width != Some(0) && height != Some(0));
            assert!(duration_ms.is_none_or(|ms| ms > 0 && i64::try_from(ms).is_ok()));
            let is_name =
                |name: &String| name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_graphic());
            assert!(codec.as_ref().is_none_or(is_name), "{codec:?}");
        }
        Err(Flaw::Unreadable(error)) => panic!("{error}"),
        Err(flaw) => assert!(
            flaw.to_string().is_ascii() && flaw.to_string().len() < 200,
            "{flaw}"
        ),
    }
}

/// Counts how often a file is read.
struct Counted<'a> {
    file: Cursor<&'a [u8]>,
    reads: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        self.file.read(buffer)
    }
}

impl Seek for Counted<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
