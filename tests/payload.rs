//! What the reader makes of every documented body, and that nothing can upset it.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use reelhook::provider::payload::{
    Document, LIFETIME, MAX_MEDIA, MAX_RESOLUTION_BYTES, MAX_TEXT_BYTES, MAX_URL_BYTES,
};
use reelhook::provider::{Event, Media, OutcomeClass};
use serde_json::Value;

/// One `name.json` per documented body.
const BODIES: &str = "tests/fixtures/callbacks";
/// What is to be read from each of them, in the format of [`describe`].
const EXPECTED: &str = "tests/fixtures/callbacks.expected";

#[test]
fn every_documented_body_is_read_as_expected() {
    let expected = fs::read_to_string(root().join(EXPECTED)).unwrap();
    let mut unread: Vec<&str> = expected.split("\n\n").map(str::trim).collect();
    for (name, body) in bodies() {
        let actual = describe(&name, &body);
        let title = format!("{name}\n");
        let place = unread.iter().position(|block| block.starts_with(&title));
        let wanted = place.map(|place| unread.remove(place)).unwrap_or_default();
        assert_eq!(actual.trim(), wanted, "{name}");
    }
    assert_eq!(unread, [] as [&str; 0], "expectations without a body");
}

#[test]
fn every_documented_body_is_read_the_same_when_compact() {
    for (name, body) in bodies() {
        if let Ok(value) = serde_json::from_slice::<Value>(&body) {
            let compact = serde_json::to_vec(&value).unwrap();
            assert_eq!(describe(&name, &compact), describe(&name, &body), "{name}");
        }
    }
}

#[test]
fn long_texts_are_cut_between_characters() {
    let long = "é".repeat(MAX_TEXT_BYTES);
    let body = format!(
        r#"{{"code":200,"msg":"a{long}","data":{{"taskId":"t","promptJson":{{"prompt":"a{long}"}},"resolution":"a{long}"}}}}"#
    );
    let event = Document::parse(body.as_bytes()).unwrap().event();
    assert_eq!(event.msg.len(), MAX_TEXT_BYTES - 1);
    assert_eq!(event.prompt.unwrap().len(), MAX_TEXT_BYTES - 1);
    assert_eq!(event.resolution.unwrap().len(), MAX_RESOLUTION_BYTES - 1);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_upset_the_reader(body in proptest::collection::vec(any::<u8>(), 0..512)) {
        read_within_bounds(&body);
    }

    #[test]
    fn arbitrary_json_never_upsets_the_reader(data in json(), rest in json()) {
        let body = serde_json::json!({"taskId": "t", "code": rest, "msg": rest, "data": data});
        read_within_bounds(body.to_string().as_bytes());
    }

    #[test]
    fn documented_bodies_with_one_value_replaced_are_read_within_bounds(
        body in any::<prop::sample::Index>(), place in any::<prop::sample::Index>(), value in json(),
    ) {
        let bodies = bodies();
        let (_, body) = body.get(&bodies);
        if let Ok(mut document) = serde_json::from_slice::<Value>(body) {
            let mut left = place.index(count_values(&document));
            replace_value(&mut document, &mut left, &value);
            read_within_bounds(document.to_string().as_bytes());
        }
    }

    #[test]
    fn documented_bodies_with_damaged_bytes_are_read_within_bounds(
        body in any::<prop::sample::Index>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bodies = bodies();
        let at = body.index(bodies.len());
        let mut body = bodies.swap_remove(at).1;
        for (place, byte) in damage {
            *place.get_mut(&mut body) = byte;
        }
        read_within_bounds(&body);
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documented bodies with their names, in order.
fn bodies() -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(root().join(BODIES)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let named = |path: PathBuf| {
        (
            path.file_stem().unwrap().to_str().unwrap().to_owned(),
            fs::read(path).unwrap(),
        )
    };
    paths.into_iter().map(named).collect()
}

/// The name, what is read, line by line, and the files. Unsaid things have no line, the usual lifetime no mention.
fn describe(name: &str, body: &[u8]) -> String {
    let document = match Document::parse(body) {
        Ok(document) => document,
        Err(error) => return format!("{name}\nrefused: {}\n", error.reason()),
    };
    let Event {
        class,
        code,
        msg,
        failure,
        resolution,
        fallback,
        prompt,
        credits,
        media,
        kind_by_shape,
    } = document.event();
    let class = format!("{class:?}").to_lowercase();
    let code = code.map_or("without code".to_owned(), |code| code.to_string());
    let mut text = format!("{name}\n{} {class} {code}: {msg}\n", document.task_id());
    if let Some(failure) = failure {
        writeln!(
            text,
            "failure {}, {}",
            failure.kind.as_str(),
            if failure.retryable { "retryable" } else { "final" }
        )
        .unwrap();
    }
    let lines = [
        kind_by_shape.map(|kind| format!("kind {kind}")),
        resolution.map(|resolution| format!("resolution {resolution}")),
        fallback.map(|fallback| format!("fallback {fallback}")),
        prompt.map(|prompt| format!("prompt {prompt}")),
        credits.map(|credits| format!("credits {credits}")),
    ];
    let files = media.iter().map(describe_file);
    for line in lines.into_iter().flatten().chain(files) {
        writeln!(text, "{line}").unwrap();
    }
    text
}

fn describe_file(file: &Media) -> String {
    assert_eq!(file.fault, None);
    let line = format!("{}-{} {}", file.role.as_str(), file.n, file.url);
    if file.lifetime == LIFETIME {
        line
    } else {
        format!("{line} (kept {} min)", file.lifetime.as_secs() / 60)
    }
}

fn read_within_bounds(body: &[u8]) {
    let Ok(document) = Document::parse(body) else {
        return;
    };
    let event = document.event();
    assert!(event.msg.len() <= MAX_TEXT_BYTES);
    assert!(event.prompt.is_none_or(|prompt| prompt.len() <= MAX_TEXT_BYTES));
    assert!(
        event
            .resolution
            .is_none_or(|resolution| resolution.len() <= MAX_RESOLUTION_BYTES)
    );
    assert!(event.credits.is_none_or(f64::is_finite));
    assert_eq!(event.failure.is_some(), event.class == OutcomeClass::Failure);
    assert!(event.media.is_empty() || event.class == OutcomeClass::Success);
    assert!(event.media.len() <= MAX_MEDIA + 1);
    let mut names = HashSet::new();
    for file in &event.media {
        assert!(!file.url.trim().is_empty() && file.url.len() <= MAX_URL_BYTES);
        assert!(
            names.insert((file.role, file.n)),
            "two files named {:?} {}",
            file.role,
            file.n
        );
        assert!(
            file.n == 0 || names.contains(&(file.role, file.n - 1)),
            "a gap before {:?} {}",
            file.role,
            file.n
        );
    }
}

/// Any JSON, with the words and spellings that the reader looks for being likely.
fn json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        ".{0,12}",
        "\\[[\"', a-z:/\\]]{0,16}",
        Just("https://cdn.example/a".to_owned()),
        Just("[https://cdn.example/a, https://cdn.example/b]".to_owned()),
        Just(r#"{"resultUrls":["https://cdn.example/a"],"prompt":"a"}"#.to_owned()),
        Just("success".to_owned()),
        Just("fail".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(Value::from(200)),
        text.prop_map(Value::from),
    ];
    let key = prop_oneof![
        prop::sample::select(vec![
            "taskId",
            "task_id",
            "code",
            "data",
            "info",
            "response",
            "resultUrls",
            "imageUrls",
            "image_url",
            "audio_url",
            "resultJson",
            "vocal_separation_info",
            "vocal_url",
            "state",
            "status",
            "successFlag",
            "callbackType",
            "sunoData",
            "promptJson",
            "param",
            "input",
            "prompt",
            "failCode",
            "failMsg",
            "resolution",
            "creditsConsumed",
            "resultUrl",
        ])
        .prop_map(str::to_owned),
        ".{0,4}",
    ];
    leaf.prop_recursive(5, 48, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            proptest::collection::vec((key.clone(), inner.clone()), 0..8)
                .prop_map(|fields| fields.into_iter().collect()),
            inner.prop_map(|value| Value::from(value.to_string())),
        ]
    })
}

fn count_values(value: &Value) -> usize {
    let children: usize = match value {
        Value::Array(elements) => elements.iter().map(count_values).sum(),
        Value::Object(fields) => fields.values().map(count_values).sum(),
        _ => 0,
    };
    1 + children
}

/// Replaces the value that `left` others precede.
fn replace_value(value: &mut Value, left: &mut usize, by: &Value) -> bool {
    if *left == 0 {
        *value = by.clone();
        return true;
    }
    *left -= 1;
    match value {
        Value::Array(elements) => elements
            .iter_mut()
            .any(|element| replace_value(element, left, by)),
        Value::Object(fields) => fields.values_mut().any(|field| replace_value(field, left, by)),
        _ => false,
    }
}
