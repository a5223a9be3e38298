//! What a failed outcome means and what a person can do.

use serde::{Deserialize, Serialize};

/// The class of a failure, decided by the body code; the message only refines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The prompt or input broke a content policy.
    ContentPolicy,
    /// Only English prompts were accepted.
    Language,
    /// An input image could not be fetched.
    ImageFetch,
    /// An input image was judged unsafe.
    UnsafeImage,
    /// Flow refused the request.
    RejectedByFlow,
    /// The provider ran out of time.
    Timeout,
    /// The provider failed inside.
    Internal,
    /// The generation itself failed.
    GenerationFailed,
    /// No callback came, and the provider never told.
    Lost,
    /// Anything else.
    Other,
}

impl FailureKind {
    /// The word in JSON and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ContentPolicy => "content_policy",
            Self::Language => "language",
            Self::ImageFetch => "image_fetch",
            Self::UnsafeImage => "unsafe_image",
            Self::RejectedByFlow => "rejected_by_flow",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
            Self::GenerationFailed => "generation_failed",
            Self::Lost => "lost",
            Self::Other => "other",
        }
    }
}

/// A failed outcome for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Failure {
    /// The class.
    pub kind: FailureKind,
    /// Whether submitting the same again may succeed.
    pub retryable: bool,
    /// One sentence a person can act on.
    pub advice: String,
}

impl Failure {
    /// Classifies a failure by the body's `code`, refined by what was said.
    ///
    /// `said` is the provider's text: `msg`, and whatever else the family says about the reason. It is compared without
    /// case and can only choose among the classes a code allows, so that unknown wording or another language falls to
    /// the code's default. `fail_code` is Market's `failCode` or record-info's `errorCode`: it speaks where the body
    /// code is only a wrapper (200, 501 or none).
    pub fn classify(code: Option<i64>, said: &str, fail_code: Option<&str>) -> Self {
        let said = said.to_lowercase();
        let outer = Verdict::of(code, &said);
        let wrapper = matches!(code, None | Some(200 | 501));
        let inner = fail_code
            .and_then(|text| text.trim().parse().ok())
            .filter(|inner| !matches!(inner, 0 | 200));
        match inner {
            Some(inner) if wrapper && outer.is_default => Verdict::of(Some(inner), &said).failure,
            _ => outer.failure,
        }
    }

    /// No callback came, and the provider never told.
    pub fn lost() -> Self {
        LOST.failure()
    }
}

/// A class with its advice.
struct Meaning {
    kind: FailureKind,
    retryable: bool,
    advice: &'static str,
}

impl Meaning {
    const fn retry(kind: FailureKind, advice: &'static str) -> Self {
        Self {
            kind,
            retryable: true,
            advice,
        }
    }

    const fn change(kind: FailureKind, advice: &'static str) -> Self {
        Self {
            kind,
            retryable: false,
            advice,
        }
    }

    fn failure(&self) -> Failure {
        Failure {
            kind: self.kind,
            retryable: self.retryable,
            advice: self.advice.to_owned(),
        }
    }
}

/// A classification, and whether it is only what the code means by default.
struct Verdict {
    failure: Failure,
    is_default: bool,
}

impl Verdict {
    fn of(code: Option<i64>, said: &str) -> Self {
        let refined = refinements(code)
            .iter()
            .find(|(words, _)| words.iter().any(|word| said.contains(word)));
        let meaning = refined.map_or_else(|| default_meaning(code), |(_, meaning)| meaning);
        Self {
            failure: meaning.failure(),
            is_default: refined.is_none(),
        }
    }
}

/// Words, in lower case, and what they make of a code.
type Refinement = (&'static [&'static str], Meaning);

/// What the text may make of a code; the first whose words occur counts.
fn refinements(code: Option<i64>) -> &'static [Refinement] {
    match code {
        Some(400) => &REFUSALS,
        Some(500) => &BREAKDOWNS,
        None | Some(200 | 501) => &ANY_REASON,
        _ => &[],
    }
}

/// The documented texts of code 400, and the words by which Aleph, Suno and Market refuse.
static REFUSALS: [Refinement; 5] = [
    LANGUAGE_WORDS,
    FETCH_WORDS,
    UNSAFE_WORDS,
    POLICY_WORDS,
    PROCESSING_WORDS,
];
/// The documented texts of code 500.
static BREAKDOWNS: [Refinement; 3] = [(&["4k version"], NO_4K), TIMEOUT_WORDS, POLICY_WORDS];
/// Codes that only say "failed" leave the reason to the text.
static ANY_REASON: [Refinement; 5] = [
    LANGUAGE_WORDS,
    FETCH_WORDS,
    UNSAFE_WORDS,
    POLICY_WORDS,
    TIMEOUT_WORDS,
];

const LANGUAGE_WORDS: Refinement = (&["only english"], LANGUAGE);
const FETCH_WORDS: Refinement = (&["fetch the image", "fetch image", "access limits"], IMAGE_FETCH);
const UNSAFE_WORDS: Refinement = (
    &["unsafe image", "minor upload", "prominent people"],
    UNSAFE_IMAGE,
);
const POLICY_WORDS: Refinement = (
    &[
        "flagged",
        "content polic",
        "violat",
        "moderat",
        "sensitive",
        "copyright",
        "prohibited",
    ],
    CONTENT_POLICY,
);
const PROCESSING_WORDS: Refinement = (&["is processing"], PROCESSING);
const TIMEOUT_WORDS: Refinement = (&["timeout", "timed out", "time out"], TIMEOUT);

/// What a code means whatever was said, from the code tables of all families.
fn default_meaning(code: Option<i64>) -> &'static Meaning {
    match code {
        Some(400) => &REFUSED,
        Some(401) => &UNAUTHORIZED,
        Some(402) => &NO_CREDITS,
        Some(404) => &NOT_FOUND,
        Some(408) => &TIMEOUT,
        Some(413) => &KNOWN_WORK,
        Some(422) => &REJECTED_BY_FLOW,
        Some(429) => &TOO_MANY,
        Some(433) => &KEY_LIMIT,
        Some(451) => &IMAGE_FETCH,
        Some(455) => &MAINTENANCE,
        Some(505) => &DISABLED,
        Some(531) => &REFUNDED,
        None | Some(200 | 501) => &GENERATION_FAILED,
        Some(500..=599) => &INTERNAL,
        Some(_) => &OTHER,
    }
}

const CONTENT_POLICY: Meaning = Meaning::change(
    FailureKind::ContentPolicy,
    "Reword the prompt (or replace the input) so that it keeps to the content policy, then submit it again.",
);
const REFUSED: Meaning = Meaning::change(
    FailureKind::ContentPolicy,
    "The provider refused the prompt or an input: read its message, reword the prompt or replace the input, then submit again.",
);
const LANGUAGE: Meaning = Meaning::change(
    FailureKind::Language,
    "Submit the prompt in English, or ask for its translation (enableTranslation).",
);
const IMAGE_FETCH: Meaning = Meaning::change(
    FailureKind::ImageFetch,
    "Make the input image publicly reachable for the provider (no login, no hot-link protection), then submit again.",
);
const UNSAFE_IMAGE: Meaning = Meaning::change(
    FailureKind::UnsafeImage,
    "Submit another input image: this one was judged unsafe (minors and prominent people are refused as well).",
);
const REJECTED_BY_FLOW: Meaning = Meaning::change(
    FailureKind::RejectedByFlow,
    "Submit the request with another model or a fallback channel, or reword the prompt: Flow refuses it as it is.",
);
const TIMEOUT: Meaning = Meaning::retry(
    FailureKind::Timeout,
    "Submit the same request again: the provider ran out of time.",
);
const INTERNAL: Meaning = Meaning::retry(
    FailureKind::Internal,
    "Submit the same request again in a few minutes: the provider failed inside.",
);
const GENERATION_FAILED: Meaning = Meaning::retry(
    FailureKind::GenerationFailed,
    "Submit the same request again; if it keeps failing, simplify the prompt or choose another model.",
);
const REFUNDED: Meaning = Meaning::retry(
    FailureKind::GenerationFailed,
    "Submit the same request again: the generation failed and its credits were refunded.",
);
const NO_4K: Meaning = Meaning::change(
    FailureKind::GenerationFailed,
    "Use the 1080p or base version: the provider has no 4K version of this video.",
);
const KNOWN_WORK: Meaning = Meaning::change(
    FailureKind::ContentPolicy,
    "Upload other audio: this one matches an existing work.",
);
const PROCESSING: Meaning = Meaning::retry(
    FailureKind::Other,
    "Ask again in a minute or two: the result is still being processed.",
);
const UNAUTHORIZED: Meaning = Meaning::change(
    FailureKind::Other,
    "Check the API key the request was submitted with: the provider did not accept it.",
);
const NO_CREDITS: Meaning = Meaning::change(
    FailureKind::Other,
    "Top up the account's credits, then submit the request again.",
);
const NOT_FOUND: Meaning = Meaning::change(
    FailureKind::Other,
    "Check the task id and the endpoint: the provider does not know what the request refers to.",
);
const TOO_MANY: Meaning = Meaning::retry(
    FailureKind::Other,
    "Submit again more slowly: the account's rate limit was hit and the request was not queued.",
);
const KEY_LIMIT: Meaning = Meaning::change(
    FailureKind::Other,
    "Raise the spending limit of this API key, or use another key, then submit again.",
);
const MAINTENANCE: Meaning = Meaning::retry(
    FailureKind::Other,
    "Submit the same request again later: the provider is under maintenance.",
);
const DISABLED: Meaning = Meaning::change(
    FailureKind::Other,
    "Choose another model or feature: the provider has disabled this one.",
);
const OTHER: Meaning = Meaning::change(
    FailureKind::Other,
    "Read the provider's message; if it does not explain the failure, look up the task in the provider's logs.",
);
const LOST: Meaning = Meaning::retry(
    FailureKind::Lost,
    "Look up the task in the provider's logs; if it is not there, submit the request again.",
);

#[cfg(test)]
mod tests {
    use super::*;
    use FailureKind::{
        ContentPolicy, GenerationFailed, ImageFetch, Internal, Language, Other, RejectedByFlow, Timeout,
        UnsafeImage,
    };

    fn classify(code: i64, said: &str) -> (FailureKind, bool) {
        let failure = Failure::classify(Some(code), said, None);
        (failure.kind, failure.retryable)
    }

    #[test]
    fn documented_messages_are_classified() {
        for (code, said, kind, retryable) in [
            (
                400,
                "Your prompt was flagged by Website as violating content policies.",
                ContentPolicy,
                false,
            ),
            (
                400,
                "Only English prompts are supported at this time.",
                Language,
                false,
            ),
            (
                400,
                "Failed to fetch the image. Kindly verify any access limits set by you or your service provider.",
                ImageFetch,
                false,
            ),
            (400, "Public error: unsafe image upload", UnsafeImage, false),
            (400, "public error minor upload", UnsafeImage, false),
            (
                400,
                "Your prompt was caught by our AI moderator. Please adjust it and try again!",
                ContentPolicy,
                false,
            ),
            (
                400,
                "1080P is processing. It should be ready in 1-2 minutes.",
                Other,
                true,
            ),
            (
                422,
                "Your request was rejected by Flow(Your prompt was flagged by Website as violating content policies).",
                RejectedByFlow,
                false,
            ),
            (451, "The image could not be fetched", ImageFetch, false),
            (500, "Internal Error, Please try again later.", Internal, true),
            (500, "Internal Error - Timeout", Timeout, true),
            (
                500,
                "The 4K version of this video is unavailable. Please try a different video.",
                GenerationFailed,
                false,
            ),
            (
                501,
                "Failed - Video generation task failed",
                GenerationFailed,
                true,
            ),
            (531, "failed, credits refunded", GenerationFailed, true),
        ] {
            assert_eq!(classify(code, said), (kind, retryable), "{code} {said}");
        }
    }

    #[test]
    fn unknown_wording_falls_to_what_the_code_means() {
        for (code, kind, retryable) in [
            (400, ContentPolicy, false),
            (401, Other, false),
            (402, Other, false),
            (404, Other, false),
            (408, Timeout, true),
            (413, ContentPolicy, false),
            (422, RejectedByFlow, false),
            (429, Other, true),
            (433, Other, false),
            (451, ImageFetch, false),
            (455, Other, true),
            (500, Internal, true),
            (501, GenerationFailed, true),
            (503, Internal, true),
            (505, Other, false),
            (531, GenerationFailed, true),
            (0, Other, false),
            (999, Other, false),
        ] {
            assert_eq!(classify(code, "请求失败"), (kind, retryable), "{code}");
        }
    }

    #[test]
    fn the_text_never_overrules_a_code_that_is_clear() {
        assert_eq!(classify(402, "flagged: only english, timeout").0, Other);
        assert_eq!(classify(422, "only english").0, RejectedByFlow);
        assert_eq!(classify(500, "only english").0, Internal);
    }

    #[test]
    fn words_are_found_in_any_case() {
        assert_eq!(classify(400, "ONLY ENGLISH PROMPTS").0, Language);
    }

    #[test]
    fn the_inner_code_speaks_where_the_outer_one_is_a_wrapper() {
        let kind = |code, said, inner| Failure::classify(code, said, Some(inner)).kind;
        assert_eq!(kind(Some(501), "Playground task failed.", "500"), Internal);
        assert_eq!(kind(Some(200), "success", "422"), RejectedByFlow);
        assert_eq!(kind(None, "", " 408 "), Timeout);
        assert_eq!(kind(Some(501), "Your prompt was flagged", "500"), ContentPolicy);
        assert_eq!(kind(Some(400), "", "500"), ContentPolicy);
        for nothing in ["", "0", "200", "E_FAIL"] {
            assert_eq!(kind(Some(501), "", nothing), GenerationFailed, "{nothing:?}");
        }
    }

    #[test]
    fn every_class_has_its_word_in_json_and_one_sentence_of_advice() {
        for code in 0..1000 {
            let failure = Failure::classify(Some(code), "", None);
            assert!(
                failure.advice.ends_with('.') && failure.advice.len() > 30,
                "{code}"
            );
            let json = serde_json::to_value(failure.kind).unwrap();
            assert_eq!(json, failure.kind.as_str());
        }
        assert_eq!(Failure::lost().kind, FailureKind::Lost);
    }
}
