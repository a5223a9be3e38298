//! What is made of each documented answer, without a network.

use bytes::Bytes;
use http::StatusCode;
use proptest::prelude::*;

use super::super::{Answer, ApiError, Class, Family, RawAnswer, answer};
use crate::provider::payload::{Envelope, MARKET_LIFETIME};
use crate::provider::{FailureKind, Kind, OutcomeClass, Role, TaskId};

fn asked() -> TaskId {
    "t1".parse().unwrap()
}

fn raw(status: u16, body: &str) -> RawAnswer {
    let envelope = Envelope::parse(body.as_bytes());
    RawAnswer {
        status: StatusCode::from_u16(status).unwrap(),
        content_type: None,
        code: envelope.as_ref().and_then(Envelope::code),
        msg: envelope.map(|envelope| envelope.msg()).unwrap_or_default(),
        retry_after: None,
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

fn record(family: Family, body: &str) -> Result<Answer, ApiError> {
    answer::record(family, &asked(), &raw(200, body))
}

fn four_k(body: &str) -> Result<Answer, ApiError> {
    answer::upgrade_4k(&asked(), &raw(200, body))
}

fn full_hd(body: &str) -> Result<Answer, ApiError> {
    answer::upgrade_1080p(&asked(), &raw(200, body))
}

/// One word for what came out, and what it carries.
fn told(answer: &Result<Answer, ApiError>) -> String {
    match answer {
        Ok(Answer::Ended { event, .. }) => match (&event.class, &event.failure) {
            (_, Some(failure)) => format!("failed {}", failure.kind.as_str()),
            (class, None) => {
                let media = event.media.iter();
                let files: Vec<String> = media
                    .map(|file| format!("{}={}", file.role.as_str(), file.url))
                    .collect();
                format!("{class:?} {}", files.join(" ")).trim().to_owned()
            }
        },
        Ok(Answer::Running { .. }) => "running".to_owned(),
        Ok(Answer::Unknown { forever, .. }) => format!("unknown {forever}"),
        Err(error) => format!("{:?} {}", error.class(), error.code()),
    }
}

/// The documented record of a finished Veo task, with `change` applied to its text.
fn veo(change: impl FnOnce(String) -> String) -> String {
    change(
        r#"{"code":200,"msg":"success","data":{"taskId":"t1","paramJson":"{\"prompt\":\"A city.\"}",
        "completeTime":"2025-06-06 10:30:00","response":{"taskId":"t1","resultUrls":["https://x/1"],
        "originUrls":["https://x/o"],"fullResultUrls":["https://x/f"],"resolution":"1080p"},"successFlag":1,
        "errorCode":null,"errorMessage":"","createTime":"2025-06-06 10:25:00","fallbackFlag":false}}"#
            .to_owned(),
    )
}

#[test]
fn the_record_of_a_finished_video_tells_all() {
    let body = veo(|body| body);
    let Ok(Answer::Ended {
        event,
        completed_at,
        body: kept,
    }) = record(Family::Veo, &body)
    else {
        panic!("not ended")
    };
    assert_eq!(event.class, OutcomeClass::Success);
    let files: Vec<_> = event.media.iter().map(|m| (m.role, m.url.as_str())).collect();
    let expected = [
        (Role::Result, "https://x/1"),
        (Role::Origin, "https://x/o"),
        (Role::Full, "https://x/f"),
    ];
    assert_eq!(files, expected);
    assert_eq!(event.resolution.as_deref(), Some("1080p"));
    assert_eq!(event.prompt.as_deref(), Some("A city."));
    assert_eq!(completed_at, Some(1_749_205_800_000));
    assert_eq!(kept, body.as_bytes());
}

#[test]
fn the_flag_of_a_veo_record_decides_as_documented() {
    let flag = |flag: &str| veo(|body| body.replace("\"successFlag\":1", &format!("\"successFlag\":{flag}")));
    let bare = |flag: &str| {
        format!(r#"{{"code":200,"data":{{"taskId":"t1","successFlag":{flag},"response":null}}}}"#)
    };
    for (body, expected) in [
        (flag("0"), "running"),
        (flag("2"), "failed generation_failed"),
        (flag("3"), "failed generation_failed"),
        (
            flag("4"),
            "Success result=https://x/1 origin=https://x/o full=https://x/f",
        ),
        (
            flag("9"),
            "Success result=https://x/1 origin=https://x/o full=https://x/f",
        ),
        (bare("0"), "running"),
        (bare("1"), "running"),
        (bare("2"), "failed generation_failed"),
        (bare("4"), "failed generation_failed"),
        (bare("null"), "running"),
    ] {
        assert_eq!(told(&record(Family::Veo, &body)), expected, "{body}");
    }
}

#[test]
fn a_failed_record_gives_its_own_reason() {
    for (code, message, kind) in [
        (
            "400",
            "Your prompt was flagged by Website as violating content policies.",
            FailureKind::ContentPolicy,
        ),
        (
            "\"400\"",
            "Only English prompts are supported at this time.",
            FailureKind::Language,
        ),
        ("500", "Internal Error - Timeout", FailureKind::Timeout),
        (
            "501",
            "Failed - Video generation task failed",
            FailureKind::GenerationFailed,
        ),
    ] {
        let body = format!(
            r#"{{"code":200,"msg":"success","data":{{"taskId":"t1","successFlag":3,"errorCode":{code},"errorMessage":"{message}"}}}}"#
        );
        let Ok(Answer::Ended { event, .. }) = record(Family::Veo, &body) else {
            panic!("not ended: {body}")
        };
        assert_eq!(event.failure.unwrap().kind, kind, "{body}");
        assert_eq!(event.msg, message);
        assert_eq!(event.media, []);
    }
}

#[test]
fn market_records_are_read_by_their_state() {
    let of = |rest: &str| {
        format!(
            r#"{{"code":200,"message":"success","data":{{"taskId":"t1","model":"veo-3-1","completeTime":1755599644000,"param":"{{\"input\":\"{{}}\"}}",{rest}}}}}"#
        )
    };
    for (rest, expected) in [
        (r#""state":"waiting""#, "running"),
        (r#""state":"queuing""#, "running"),
        (r#""state":"generating","resultJson":"""#, "running"),
        (
            r#""state":"success","resultJson":"{\"resultUrls\":[\"https://x/1\"]}","failCode":null"#,
            "Success result=https://x/1",
        ),
        (
            r#""state":"success","resultJson":"{\"resultObject\":{}}""#,
            "Success",
        ),
        (
            r#""state":"fail","failCode":"500","failMsg":"Internal server error""#,
            "failed internal",
        ),
        (
            r#""state":"fail","failCode":"422","failMsg":"no""#,
            "failed rejected_by_flow",
        ),
        (r#""progress":12"#, "running"),
    ] {
        assert_eq!(told(&record(Family::Market, &of(rest))), expected, "{rest}");
    }
    let done = of(r#""state":"success","resultJson":"{\"resultUrls\":[\"https://x/1\"]}""#);
    let Ok(Answer::Ended {
        event, completed_at, ..
    }) = record(Family::Market, &done)
    else {
        panic!("not ended")
    };
    assert_eq!(event.media[0].lifetime, MARKET_LIFETIME);
    assert_eq!(completed_at, Some(1_755_599_644_000));
}

/// Code, message and data of an answer, and what is made of it.
type Case = (i64, &'static str, &'static str, &'static str);

const RECORD_CODES: &[Case] = &[
    (200, "success", "null", "unknown false"),
    (200, "success", "[]", "unknown false"),
    (404, "Not Found", "null", "unknown false"),
    (422, "record is null.", "null", "unknown false"),
    (422, "Record does not exist", "null", "unknown false"),
    (
        422,
        "Temporarily supports records within 14 days.",
        "null",
        "unknown true",
    ),
    (422, "record result data is blank.", "null", "running"),
    (422, "record status is not success.", "null", "running"),
    (422, "record result data not exist.", "null", "running"),
    (
        422,
        "record result data is empty.",
        r#"{"taskId":"t1"}"#,
        "running",
    ),
    (
        400,
        "Your prompt was flagged by Website as violating content policies.",
        "null",
        "failed content_policy",
    ),
    (
        400,
        "Public error: unsafe image upload",
        "null",
        "failed unsafe_image",
    ),
    (
        422,
        "in the queue",
        r#"{"taskId":"t1","successFlag":0}"#,
        "running",
    ),
    (
        422,
        "no",
        r#"{"taskId":"t1","state":"fail"}"#,
        "failed rejected_by_flow",
    ),
    (400, "taskId cannot be empty", "null", "Final refused"),
    (
        451,
        "The image could not be fetched",
        "null",
        "failed image_fetch",
    ),
    (501, "generation failed", "null", "failed generation_failed"),
    (
        500,
        "Internal Error, Please try again later.",
        "null",
        "Retry provider_failed",
    ),
    (
        500,
        "failed",
        r#"{"taskId":"t1","successFlag":3,"errorCode":500}"#,
        "failed internal",
    ),
    (
        500,
        "busy",
        r#"{"taskId":"t1","successFlag":0}"#,
        "Retry provider_failed",
    ),
    (408, "timeout", "null", "Retry provider_failed"),
    (
        401,
        "You do not have access permissions",
        "null",
        "Auth unauthorized",
    ),
    (402, "no", "null", "Credits no_credits"),
    (433, "no", "null", "Credits key_limit"),
    (429, "no", "null", "Wait rate_limited"),
    (455, "no", "null", "Maintenance maintenance"),
    (505, "no", "null", "Maintenance disabled"),
    (418, "no", "null", "Final refused"),
    (201, "no", "null", "Final refused"),
];

#[test]
fn the_codes_of_record_info_each_mean_their_own() {
    for (code, msg, data, expected) in RECORD_CODES {
        let body = format!(r#"{{"code":{code},"msg":"{msg}","data":{data}}}"#);
        assert_eq!(told(&record(Family::Veo, &body)), *expected, "{body}");
    }
}

const DONE: &str = r#"{"taskId":"t1","resultUrls":["https://x/4k"],"imageUrls":["https://x/i"]}"#;
const PENDING: &str = r#"{"taskId":"t1","resultUrls":null,"imageUrls":null}"#;
const BOTH: &str = "Success result=https://x/4k image=https://x/i";

const FOUR_K_ANSWERS: &[Case] = &[
    (200, "success", PENDING, "running"),
    (200, "success", DONE, BOTH),
    (422, "The video has been generated successfully", DONE, BOTH),
    (422, "anything else", DONE, BOTH),
    (
        422,
        "done",
        r#"{"taskId":"t1","resultUrls":["https://x/4k"]}"#,
        "Success result=https://x/4k",
    ),
    (
        422,
        "4k is processing. It should be ready in 5-10 minutes. Please check back shortly.",
        PENDING,
        "running",
    ),
    (
        422,
        "stills only",
        r#"{"taskId":"t1","resultUrls":[],"imageUrls":["https://x/i"]}"#,
        "running",
    ),
    (422, "record is null.", "null", "unknown false"),
    (
        422,
        "Temporarily supports records within 14 days.",
        "null",
        "unknown true",
    ),
    (
        500,
        "The 4K version of this video is unavailable. Please try a different video.",
        r#"{"taskId":"t1"}"#,
        "failed generation_failed",
    ),
    (
        422,
        "The 4K version of this video is unavailable.",
        PENDING,
        "failed generation_failed",
    ),
    (422, "index out of range", "null", "Final refused"),
    (500, "Internal Error", "null", "Retry provider_failed"),
    (402, "no", "null", "Credits no_credits"),
    (
        200,
        "success",
        r#"{"taskId":"t2","resultUrls":null,"imageUrls":null}"#,
        "Final provider_garbled",
    ),
];

#[test]
fn a_4k_request_is_read_by_its_urls() {
    for (code, msg, data, expected) in FOUR_K_ANSWERS {
        let body = format!(r#"{{"code":{code},"msg":"{msg}","data":{data}}}"#);
        let answer = four_k(&body);
        assert_eq!(told(&answer), *expected, "{body}");
        if let Ok(Answer::Ended { event, .. }) = answer {
            assert_eq!(event.kind_by_shape, Some(Kind::four_k()), "{body}");
            assert_eq!(event.code, Some(*code));
        }
    }
}

#[test]
fn a_1080p_request_has_one_url_or_is_not_ready() {
    for (code, msg, data, expected) in [
        (
            200,
            "success",
            r#"{"resultUrl":"https://x/hd"}"#,
            "Success result=https://x/hd",
        ),
        (
            200,
            "success",
            r#"{"taskId":"t1","resultUrl":"https://x/hd"}"#,
            "Success result=https://x/hd",
        ),
        (
            200,
            "success",
            r#"{"taskId":"t2","resultUrl":"https://x/hd"}"#,
            "Retry provider_garbled",
        ),
        (200, "success", r#"{"resultUrl":null}"#, "running"),
        (200, "success", "null", "running"),
        (
            400,
            "1080P is processing. It should be ready in 1-2 minutes. Please check back shortly.",
            "null",
            "running",
        ),
        (422, "the video is not ready", "null", "running"),
        (422, "record status is not success.", "null", "running"),
        (422, "record is null.", "null", "unknown false"),
        (404, "no such task", "null", "unknown false"),
        (422, "not for fallback videos", "null", "Final refused"),
        (500, "Internal Error", "null", "Retry provider_failed"),
        (455, "processing", "null", "Maintenance maintenance"),
    ] {
        let body = format!(r#"{{"code":{code},"msg":"{msg}","data":{data}}}"#);
        assert_eq!(told(&full_hd(&body)), expected, "{body}");
    }
}

#[test]
fn an_answer_about_another_task_is_never_a_record() {
    for body in [
        veo(|body| body.replacen("\"taskId\":\"t1\"", "\"taskId\":\"t2\"", 1)),
        r#"{"code":200,"taskId":"t2","data":{"taskId":"t1","successFlag":2}}"#.to_owned(),
        r#"{"code":501,"data":{"taskId":"t2","state":"fail"}}"#.to_owned(),
    ] {
        assert_eq!(
            told(&record(Family::Veo, &body)),
            "Retry provider_garbled",
            "{body}"
        );
    }
}

#[test]
fn what_names_no_task_finishes_none_under_code_200() {
    for data in [
        r#"{"successFlag":1,"response":{"resultUrls":["https://x/1"]}}"#,
        r#"{"successFlag":2}"#,
        r#"{"taskId":null,"state":"success","resultJson":"{\"resultUrls\":[\"u\"]}"}"#,
    ] {
        let body = format!(r#"{{"code":200,"msg":"success","data":{data}}}"#);
        assert_eq!(
            told(&record(Family::Market, &body)),
            "Retry provider_garbled",
            "{body}"
        );
    }
}

#[test]
fn a_status_counts_where_the_body_has_no_code_or_contradicts_it() {
    let gone = r#"{"timestamp":1,"status":404,"error":"Not Found","path":"/x"}"#;
    for (status, body, expected) in [
        (404, gone, "Retry provider_gateway"),
        (200, gone, "Retry provider_garbled"),
        (503, r#"{"error":"busy"}"#, "Retry provider_gateway"),
        (401, r#"{"error":"who"}"#, "Auth unauthorized"),
        (429, r#"{"code":200,"data":{}}"#, "Wait rate_limited"),
        (
            500,
            r#"{"code":200,"data":{"taskId":"t1","successFlag":0}}"#,
            "Retry provider_failed",
        ),
        (404, r#"{"code":404,"msg":"none"}"#, "unknown false"),
        (400, r#"{"code":422,"msg":"record is null."}"#, "unknown false"),
        (200, r#"{"data":{"taskId":"t1","successFlag":0}}"#, "running"),
    ] {
        let answer = answer::record(Family::Veo, &asked(), &raw(status, body));
        assert_eq!(told(&answer), expected, "{status} {body}");
    }
}

#[test]
fn links_and_balances_are_read() {
    let link = |body: &str| answer::link(&raw(200, body));
    let good = link(r#"{"code":200,"msg":"success","data":"https://tempfile.example/a?b=c"}"#);
    assert_eq!(good.unwrap(), "https://tempfile.example/a?b=c");
    let foreign = link(r#"{"code":422,"msg":"url is wrong","data":null}"#).unwrap_err();
    assert_eq!(foreign.class(), Class::Final);
    assert!(foreign.to_string().contains("url is wrong"));
    for data in ["null", "7", r#"{"url":"https://x"}"#, r#""soon""#] {
        let body = format!(r#"{{"code":200,"data":{data}}}"#);
        assert_eq!(link(&body).unwrap_err().code(), "provider_garbled", "{body}");
    }
    let credit = |body: &str| answer::credit(&raw(200, body));
    assert_eq!(
        credit(r#"{"code":200,"msg":"success","data":5916.25}"#),
        Ok(5916.25)
    );
    assert_eq!(credit(r#"{"code":200,"msg":"success","data":100}"#), Ok(100.0));
    assert!(credit(r#"{"code":200,"data":null}"#).is_err());
    assert_eq!(
        credit(r#"{"code":401,"data":9}"#).unwrap_err().class(),
        Class::Auth
    );
}

#[test]
fn every_error_is_a_sentence_that_says_where_it_stands() {
    for code in [
        0, 201, 400, 401, 402, 404, 408, 422, 429, 433, 451, 455, 500, 501, 505, 531, 999,
    ] {
        let body = format!(r#"{{"code":{code},"msg":"no\r\nluck.","data":null}}"#);
        let error = raw(200, &body).error().unwrap();
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("the provider answered {code}")),
            "{text}"
        );
        assert!(!text.ends_with('.'), "{text}");
    }
    assert_eq!(raw(200, r#"{"code":200}"#).error(), None);
}

/// Holds whatever the answer is: what is not ended has no event at all, and what ended is consistent.
fn check(answer: Result<Answer, ApiError>) -> Result<(), TestCaseError> {
    match answer {
        Ok(Answer::Ended { event, .. }) => {
            prop_assert_ne!(event.class, OutcomeClass::Progress);
            prop_assert_eq!(event.failure.is_some(), event.class == OutcomeClass::Failure);
            prop_assert!(event.class == OutcomeClass::Success || event.media.is_empty());
        }
        Ok(Answer::Running { msg, .. } | Answer::Unknown { msg, .. }) => prop_assert!(msg.len() <= 16 * 1024),
        Err(error) => prop_assert!(!error.to_string().is_empty()),
    }
    Ok(())
}

fn check_all(status: u16, body: &[u8]) -> Result<(), TestCaseError> {
    let text = String::from_utf8_lossy(body);
    let raw = raw(status, &text);
    check(answer::record(Family::Veo, &asked(), &raw))?;
    check(answer::record(Family::Market, &asked(), &raw))?;
    check(answer::upgrade_4k(&asked(), &raw))?;
    check(answer::upgrade_1080p(&asked(), &raw))?;
    drop((answer::link(&raw), answer::credit(&raw)));
    Ok(())
}

/// Values that mean something somewhere in an answer.
const VALUES: &[&str] = &[
    "null",
    "0",
    "1",
    "2",
    "3",
    "4",
    "200",
    "422",
    "-1",
    "1e400",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"t1\"",
    "\"t2\"",
    "\"success\"",
    "\"fail\"",
    "\"generating\"",
    "\"https://x/1\"",
    "[\"https://x/1\"]",
    "\"[https://x/1]\"",
    "\"{\\\"resultUrls\\\":[\\\"u\\\"]}\"",
    "\"record is null.\"",
    "\"4K is processing\"",
    "\"within 14 days\"",
    "\"unavailable\"",
    "\"2025-06-06 10:30:00\"",
    "1755599644000",
    "{\"resultUrls\":[\"https://x/2\"]}",
];

fn value() -> impl Strategy<Value = String> {
    proptest::sample::select(VALUES).prop_map(str::to_owned)
}

fn object(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    let entry =
        (proptest::sample::select(names), value()).prop_map(|(name, value)| format!("\"{name}\":{value}"));
    proptest::collection::vec(entry, 0..8).prop_map(|entries| format!("{{{}}}", entries.join(",")))
}

const IN_DATA: &[&str] = &[
    "taskId",
    "task_id",
    "successFlag",
    "state",
    "status",
    "response",
    "info",
    "resultUrls",
    "imageUrls",
    "resultUrl",
    "resultJson",
    "errorCode",
    "errorMessage",
    "failCode",
    "failMsg",
    "completeTime",
    "fallbackFlag",
];

proptest! {
    #[test]
    fn arbitrary_bytes_never_upset_a_reader(status in 200_u16..600, body in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_all(status, &body)?;
    }

    #[test]
    fn no_answer_whatever_upsets_a_reader(
        status in proptest::sample::select(vec![200_u16, 400, 404, 422, 429, 500, 502]),
        code in prop_oneof![value(), (190_i64..560).prop_map(|code| code.to_string())],
        msg in value(),
        data in prop_oneof![3 => object(IN_DATA), 1 => value()],
    ) {
        check_all(status, format!(r#"{{"code":{code},"msg":{msg},"data":{data}}}"#).as_bytes())?;
    }
}
