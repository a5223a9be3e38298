//! The sentences and figures a delivery carries: message, reason of a failure, prompt, resolution.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::fields::{Fields, for_each_element, is_array, with_object};
use super::{MAX_RESOLUTION_BYTES, cut_text, cut_to};
use crate::provider::OutcomeClass;

/// The provider's sentence. Old Market pages call the field `message`. Where a failure has a reason of its own beside
/// it ([`detail`]), that is added, since Market's sentence is only ever "Playground task failed."; it stands alone where
/// the sentence is missing or says "success" (state `fail` under code 200).
pub(super) fn msg(class: OutcomeClass, top: &Fields<'_>, data: &Fields<'_>) -> String {
    let said = top.text("msg").or_else(|| top.text("message"));
    let reason = if class == OutcomeClass::Failure {
        detail(data)
    } else {
        None
    };
    let told = match (said, reason) {
        (Some(said), Some(reason)) if said.eq_ignore_ascii_case("success") => reason,
        // A bare state, such as `SENSITIVE_WORD_ERROR`, would add nothing to a sentence.
        (Some(said), Some(reason)) if !said.contains(&*reason) && reason.contains(' ') => {
            format!("{said} {reason}").into()
        }
        (Some(said), _) => said,
        (None, reason) => reason.unwrap_or_default(),
    };
    cut_text(&told)
}

/// Why it failed, in the fields that the families have for it beside `msg`.
pub(super) fn detail<'a>(data: &Fields<'a>) -> Option<Cow<'a, str>> {
    let direct = ["failMsg", "errorMessage", "error"]
        .into_iter()
        .find_map(|name| data.text(name));
    // Suno's record-info may give no other reason than its state, such as `SENSITIVE_WORD_ERROR`.
    let state = || data.text("status");
    direct
        .or_else(|| first_track_error(data).map(Cow::Owned))
        .or_else(state)
}

/// Suno's lyrics carry one message per text.
fn first_track_error(data: &Fields<'_>) -> Option<String> {
    let tracks = data.value("data").filter(|raw| is_array(raw))?;
    let mut first = None;
    for_each_element(tracks, |track| {
        if first.is_none() {
            first = Fields::of(track).and_then(|fields| fields.text("error_message").map(Cow::into_owned));
        }
    });
    first
}

/// The prompt, from whichever echo of the request is there and intact: Veo's `promptJson`, Market's `param` with its
/// `input`, record-info's `paramJson`. Each is an object or a string that holds one, Market's `input` even a string
/// within that string.
pub(super) fn prompt(data: &Fields<'_>) -> Option<String> {
    let echoed = ["promptJson", "param", "paramJson"]
        .into_iter()
        .find_map(|name| echoed_prompt(data.value(name)?));
    echoed.or_else(|| data.text("prompt").map(|text| cut_text(&text)))
}

fn echoed_prompt(request: &RawValue) -> Option<String> {
    with_object(request, |fields| {
        let nested = fields
            .value("input")
            .and_then(|input| with_object(input, own_prompt));
        nested.or_else(|| own_prompt(fields))
    })
}

fn own_prompt(fields: &Fields<'_>) -> Option<String> {
    fields.text("prompt").map(|text| cut_text(&text))
}

/// Such as `1080p`, wherever the media stand.
pub(super) fn resolution(data: &Fields<'_>) -> Option<String> {
    let of = |fields: &Fields<'_>| {
        fields
            .text("resolution")
            .map(|text| cut_to(&text, MAX_RESOLUTION_BYTES))
    };
    let nested = ["info", "response"]
        .into_iter()
        .find_map(|name| with_object(data.value(name)?, of));
    nested.or_else(|| of(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> Fields<'_> {
        Fields::parse(json).unwrap()
    }

    #[test]
    fn the_prompt_is_found_in_every_echo() {
        for data in [
            r#"{"promptJson":{"prompt":"a dog"}}"#,
            r#"{"promptJson":"{\"prompt\":\"a dog\"}"}"#,
            r#"{"param":"{\"input\":{\"prompt\":\"a dog\"}}"}"#,
            r#"{"param":"{\"input\":\"{\\\"prompt\\\":\\\"a dog\\\"}\"}"}"#,
            r#"{"param":{"input":{"prompt":"a dog"}}}"#,
            r#"{"paramJson":"{\"prompt\":\"a dog\"}"}"#,
            r#"{"promptJson":"\"{\\\"prompt\\\":\\\"a dog\\\"}\""}"#,
            r#"{"prompt":"a dog"}"#,
            r#"{"promptJson":"{broken","paramJson":"{\"prompt\":\"a dog\"}"}"#,
        ] {
            assert_eq!(prompt(&fields(data)).as_deref(), Some("a dog"), "{data}");
        }
    }

    #[test]
    fn a_broken_echo_is_no_prompt() {
        // The illegal escape of the documented example, which does not parse.
        let data = r#"{"promptJson":"{\"callBackUrl\":\"\\https://x\",\"prompt\":\"a dog\"}"}"#;
        assert_eq!(prompt(&fields(data)), None);
        assert_eq!(
            prompt(&fields(r#"{"promptJson":7,"param":[],"paramJson":null}"#)),
            None
        );
    }

    #[test]
    fn no_text_holds_a_nul_however_it_was_written() {
        let data = fields(r#"{"resolution":"10\u000080p","promptJson":{"prompt":"a\u0000dog"}}"#);
        let said = msg(OutcomeClass::Success, &fields(r#"{"msg":"f\u0000ine"}"#), &data);
        assert_eq!(said, "f\u{fffd}ine");
        assert_eq!(resolution(&data).as_deref(), Some("10\u{fffd}80p"));
        assert_eq!(prompt(&data).as_deref(), Some("a\u{fffd}dog"));
    }

    #[test]
    fn a_failure_without_a_sentence_is_told_in_the_next_best_words() {
        let failed = |top, data| msg(OutcomeClass::Failure, &fields(top), &fields(data));
        let all = r#"{"failMsg":"f","errorMessage":"m","error":"e","data":[{"error_message":"t"}]}"#;
        assert_eq!(failed(r#"{"msg":"own"}"#, all), "own");
        let market = r#"{"failMsg":"Internal server error"}"#;
        assert_eq!(
            failed(r#"{"msg":"Playground task failed."}"#, market),
            "Playground task failed. Internal server error"
        );
        assert_eq!(failed(r#"{"msg":"Success"}"#, all), "f");
        assert_eq!(
            failed(r#"{"msg":""}"#, r#"{"failMsg":null,"errorMessage":"m"}"#),
            "m"
        );
        assert_eq!(failed("{}", r#"{"error":"e"}"#), "e");
        assert_eq!(failed("{}", r#"{"data":[{},{"error_message":"t"}]}"#), "t");
        assert_eq!(
            failed(r#"{"msg":"success"}"#, r#"{"status":"SENSITIVE_WORD_ERROR"}"#),
            "SENSITIVE_WORD_ERROR"
        );
        assert_eq!(failed(r#"{"msg":"success"}"#, "{}"), "success");
        assert_eq!(failed(r#"{"message":"old"}"#, "{}"), "old");
        assert_eq!(
            msg(
                OutcomeClass::Success,
                &fields(r#"{"msg":"success"}"#),
                &fields(all)
            ),
            "success"
        );
    }
}
