//! What a delivery says happened: progress, failure or success, and of which kind of result.
//!
//! Decided by `code` and by the documented state words, never by `msg`, whose text changes with edition and language.

use super::fields::{Fields, for_each_element, is_array};
use super::urls::has_url;
use crate::provider::OutcomeClass;

/// Fields of which the answer to a 4K request has none.
const NOT_IN_A_4K_ANSWER: [&str; 8] = [
    "info",
    "response",
    "resultJson",
    "state",
    "status",
    "successFlag",
    "callbackType",
    "fallbackFlag",
];

/// What one state field says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Failed,
    Running,
    Done,
    /// Done if there are files: the generation went well and something else may not have (Luma's flag 4, Suno's
    /// `CALLBACK_EXCEPTION`), or the word is not documented.
    Files,
}

/// The class of a delivery. `files` tells whether any are announced.
///
/// A `code` other than 200 is a failure, with one exception: the answer to a repeated 4K request is a 422 which
/// carries the finished video. It is known by its shape ([`is_4k_answer`]): with files it is a success, without them the
/// upgrade is still running, whatever the code. Otherwise the state fields decide; failed outweighs running, running
/// outweighs done. A delivery without any of them is a success if its code is 200 or, lacking a code, if it announces
/// files.
pub(super) fn class(code: Option<i64>, data: &Fields<'_>, files: bool) -> OutcomeClass {
    if is_4k_answer(data) && matches!(code, None | Some(200 | 422)) {
        let finished = data.value("resultUrls").is_some_and(has_url);
        return if finished {
            OutcomeClass::Success
        } else {
            OutcomeClass::Progress
        };
    }
    if code.is_some_and(|code| code != 200) {
        return OutcomeClass::Failure;
    }
    let signs: Vec<Sign> = signs(data).collect();
    if signs.contains(&Sign::Failed) {
        OutcomeClass::Failure
    } else if signs.contains(&Sign::Running) {
        OutcomeClass::Progress
    } else if signs.contains(&Sign::Done) || files {
        OutcomeClass::Success
    } else if signs.contains(&Sign::Files) || code.is_none() {
        OutcomeClass::Failure
    } else {
        OutcomeClass::Success
    }
}

/// What the state fields say by themselves; `None` if there are none, or none that is known.
pub(super) fn state(data: &Fields<'_>) -> Option<OutcomeClass> {
    let signs: Vec<Sign> = signs(data).collect();
    let classes = [
        (Sign::Failed, OutcomeClass::Failure),
        (Sign::Running, OutcomeClass::Progress),
        (Sign::Done, OutcomeClass::Success),
    ];
    let said = |(sign, class)| signs.contains(&sign).then_some(class);
    classes.into_iter().find_map(said)
}

/// Whether the body can only be about a 4K upgrade, which shares the id of its base video and bears no mark.
///
/// Two success shapes are documented: stills in `info` beside the results but no `resolution`, `originUrls` or
/// `fallbackFlag`; and `media_ids` with `image_urls` directly under `data`. So is the shape of the request's own
/// answer. The failure shape is an id and nothing else, which other families share, so there `msg` has to speak of
/// 4K. That cannot turn one outcome into another: it only keeps a failed upgrade from being filed under the video
/// it was made from.
pub(super) fn is_4k(code: Option<i64>, class: OutcomeClass, msg: &str, data: &Fields<'_>) -> bool {
    match class {
        OutcomeClass::Failure => is_4k_failure(code, msg, data),
        OutcomeClass::Progress | OutcomeClass::Success => is_4k_answer(data) || is_4k_result(data),
    }
}

fn is_4k_result(data: &Fields<'_>) -> bool {
    let other_family = [
        "fallbackFlag",
        "state",
        "successFlag",
        "callbackType",
        "resultJson",
        "response",
    ];
    if other_family.iter().any(|name| data.has(name)) {
        return false;
    }
    let filled = |fields: &Fields<'_>, name: &str| fields.value(name).is_some_and(has_url);
    match data.value("info").and_then(Fields::of) {
        Some(info) => {
            let base = ["resolution", "originUrls"].iter().any(|name| info.has(name));
            !base && filled(&info, "resultUrls") && filled(&info, "imageUrls")
        }
        None => data.has("media_ids") && filled(data, "result_urls") && filled(data, "image_urls"),
    }
}

/// `resultUrls` and `imageUrls` directly under `data`, both always there and null until the upgrade is done.
fn is_4k_answer(data: &Fields<'_>) -> bool {
    data.has("resultUrls") && data.has("imageUrls") && !NOT_IN_A_4K_ANSWER.iter().any(|name| data.has(name))
}

fn is_4k_failure(code: Option<i64>, msg: &str, data: &Fields<'_>) -> bool {
    let bare = data
        .entries()
        .all(|(name, _)| matches!(name, "taskId" | "task_id" | "creditsConsumed"));
    // The codes of the 4K callback, by its page and by its schema.
    bare && matches!(code, Some(400 | 500)) && mentions_4k(msg)
}

fn mentions_4k(msg: &str) -> bool {
    let mut words = msg.split(|c: char| !c.is_ascii_alphanumeric());
    words.any(|word| word.eq_ignore_ascii_case("4k"))
}

fn signs(data: &Fields<'_>) -> impl Iterator<Item = Sign> {
    let words = ["state", "status", "callbackType"]
        .into_iter()
        .filter_map(|name| {
            let word = data.text(name)?;
            // Only here, and only for Suno: `first` and `text` are stages.
            let stage = name == "callbackType" && matches!(word.as_ref(), "text" | "first");
            if stage {
                Some(Sign::Running)
            } else {
                word_sign(&word)
            }
        });
    words
        .chain(flag_sign(data))
        .chain(all_tracks_failed(data).then_some(Sign::Failed))
}

/// The words of Market (`state`), Suno's record-info and voice tasks (`status`) and callbacks (`callbackType`).
fn word_sign(word: &str) -> Option<Sign> {
    let word = word.to_ascii_lowercase();
    let ends = |endings: &[&str]| endings.iter().any(|end| word.ends_with(end));
    let starts = |starts: &[&str]| starts.iter().any(|start| word.starts_with(start));
    if word == "callback_exception" {
        Some(Sign::Files)
    } else if ends(&["fail", "failed", "failure", "error"]) {
        Some(Sign::Failed)
    } else if matches!(word.as_str(), "success" | "complete" | "completed") {
        Some(Sign::Done)
    } else if starts(&["wait", "queu", "generating", "pending", "processing", "running"])
        || matches!(word.as_str(), "text_success" | "first_success")
    {
        Some(Sign::Running)
    } else {
        None
    }
}

/// `successFlag` of the record-info family: 0 generating, 1 success, 2 and 3 failed. Luma's 4 is a finished video whose
/// callback failed; an unknown number is taken the same way. Some siblings write a word instead.
fn flag_sign(data: &Fields<'_>) -> Option<Sign> {
    match data.integer("successFlag") {
        Some(0) => Some(Sign::Running),
        Some(1) => Some(Sign::Done),
        Some(2 | 3) => Some(Sign::Failed),
        Some(_) => Some(Sign::Files),
        None => word_sign(&data.text("successFlag")?),
    }
}

/// Lyrics may come with code 200 while each single text failed.
fn all_tracks_failed(data: &Fields<'_>) -> bool {
    let Some(tracks) = data.value("data").filter(|raw| is_array(raw)) else {
        return false;
    };
    let (mut any, mut all) = (false, true);
    for_each_element(tracks, |track| {
        let status = Fields::of(track).and_then(|fields| fields.text("status"));
        any = true;
        all &= status.and_then(|word| word_sign(&word)) == Some(Sign::Failed);
    });
    any && all
}

#[cfg(test)]
mod tests {
    use super::*;
    use OutcomeClass::{Failure, Progress, Success};

    fn class_of(code: Option<i64>, data: &str, files: bool) -> OutcomeClass {
        class(code, &Fields::parse(data).unwrap(), files)
    }

    #[test]
    fn success_flag_is_read_as_documented_for_veo_and_luma() {
        for (flag, without, with) in [
            ("0", Progress, Progress),
            ("1", Success, Success),
            ("2", Failure, Failure),
            ("3", Failure, Failure),
            ("4", Failure, Success),
            ("9", Failure, Success),
            ("\"1\"", Success, Success),
            ("\"PENDING\"", Progress, Progress),
            ("\"GENERATE_AUDIO_FAILED\"", Failure, Failure),
        ] {
            let data = format!(r#"{{"successFlag":{flag}}}"#);
            assert_eq!(class_of(Some(200), &data, false), without, "{flag}");
            assert_eq!(class_of(None, &data, true), with, "{flag}");
        }
    }

    #[test]
    fn state_words_are_read_in_their_own_fields() {
        for (data, expected) in [
            (r#"{"state":"waiting"}"#, Progress),
            (r#"{"state":"queuing"}"#, Progress),
            (r#"{"state":"generating"}"#, Progress),
            (r#"{"state":"success"}"#, Success),
            (r#"{"state":"fail"}"#, Failure),
            (r#"{"callbackType":"text"}"#, Progress),
            (r#"{"callbackType":"first"}"#, Progress),
            (r#"{"callbackType":"complete"}"#, Success),
            (r#"{"callbackType":"error"}"#, Failure),
            (r#"{"callbackType":"task_completed"}"#, Success),
            (r#"{"status":"PENDING"}"#, Progress),
            (r#"{"status":"TEXT_SUCCESS"}"#, Progress),
            (r#"{"status":"FIRST_SUCCESS"}"#, Progress),
            (r#"{"status":"SUCCESS"}"#, Success),
            (r#"{"status":"CREATE_TASK_FAILED"}"#, Failure),
            (r#"{"status":"SENSITIVE_WORD_ERROR"}"#, Failure),
            (r#"{"status":"CALLBACK_EXCEPTION"}"#, Failure),
            (r#"{"status":"wait_validating"}"#, Progress),
            (r#"{"status":"processing_validate_fail"}"#, Failure),
            (r#"{"data":[{"status":"failed"},{"status":"failed"}]}"#, Failure),
            (r#"{"data":[{"status":"failed"},{"status":"complete"}]}"#, Success),
            (r#"{"data":[]}"#, Success),
        ] {
            assert_eq!(class_of(Some(200), data, false), expected, "{data}");
        }
        assert_eq!(
            class_of(Some(200), r#"{"status":"CALLBACK_EXCEPTION"}"#, true),
            Success
        );
    }

    #[test]
    fn unlisted_codes_are_failures_even_with_files() {
        for code in [0, -1, 201, 202, 299, 400, 422, 500, 531, 999] {
            assert_eq!(
                class_of(Some(code), r#"{"info":{"resultUrls":["u"]}}"#, true),
                Failure,
                "{code}"
            );
        }
    }

    #[test]
    fn without_a_code_files_decide() {
        assert_eq!(class_of(None, "{}", true), Success);
        assert_eq!(class_of(None, "{}", false), Failure);
        assert_eq!(class_of(None, r#"{"state":"generating"}"#, false), Progress);
    }

    #[test]
    fn code_422_is_a_success_only_in_the_shape_of_the_4k_answer() {
        for (data, expected) in [
            (r#"{"resultUrls":["u"],"imageUrls":["i"]}"#, Success),
            (r#"{"resultUrls":["u"],"imageUrls":null}"#, Success),
            (r#"{"resultUrls":null,"imageUrls":null}"#, Progress),
            (r#"{"resultUrls":["u"]}"#, Failure),
            (r#"{"info":{"resultUrls":["u"],"imageUrls":["i"]}}"#, Failure),
            (
                r#"{"resultUrls":["u"],"imageUrls":["i"],"state":"fail"}"#,
                Failure,
            ),
            (
                r#"{"resultUrls":["u"],"imageUrls":["i"],"successFlag":3}"#,
                Failure,
            ),
        ] {
            assert_eq!(class_of(Some(422), data, true), expected, "{data}");
        }
        assert_eq!(
            class_of(Some(500), r#"{"resultUrls":["u"],"imageUrls":["i"]}"#, true),
            Failure
        );
    }

    #[test]
    fn failures_are_4k_only_if_bare_and_so_named() {
        let told = "The 4K version of this video is unavailable.";
        for (code, msg, data, expected) in [
            (500, told, r#"{"taskId":"a"}"#, true),
            (400, "该视频的4K版本不可用", r#"{"taskId":"a"}"#, true),
            (500, told, "{}", true),
            (501, told, r#"{"taskId":"a"}"#, false),
            (500, told, r#"{"taskId":"a","fallbackFlag":false}"#, false),
            (500, told, r#"{"taskId":"a","promptJson":"{}"}"#, false),
            (
                500,
                "Internal Error, Please try again later.",
                r#"{"taskId":"a"}"#,
                false,
            ),
            (400, "flagged: x4kids", r#"{"taskId":"a"}"#, false),
        ] {
            let data = Fields::parse(data).unwrap();
            assert_eq!(is_4k(Some(code), Failure, msg, &data), expected, "{msg}");
        }
    }
}
