//! What to do about a delivery that was rejected, or contradicts another: one sentence for each stable reason.

use std::collections::BTreeMap;

use super::Sources;
use crate::clock::Millis;

/// The reasons for which deliveries are rejected, in the order in which they are looked for.
pub const REASONS: [&str; 11] = [
    "missing_token",
    "bad_token",
    "missing_signature",
    "bad_query",
    "not_json",
    "no_task_id",
    "task_ids_differ",
    "duplicate_key",
    "bad_task_id",
    "stale",
    "bad_signature",
];

/// The delivery that a remedy is wanted for.
#[derive(Debug, Clone, Copy)]
pub struct Ailing<'a> {
    /// The source's name.
    pub source: &'a str,
    /// Its verdict; only `rejected` and `conflict` have remedies.
    pub verdict: &'a str,
    /// The stable reason of that.
    pub reason: &'a str,
    /// When it was read completely.
    pub received_at: Millis,
    /// The kept headers, a JSON object.
    pub headers: &'a str,
}

/// A sentence that says what to do; `None` where there is nothing to do.
pub fn remedy(sources: &Sources, delivery: &Ailing<'_>) -> Option<String> {
    let source = delivery.source;
    match delivery.verdict {
        "rejected" if !sources.contains_key(source) => Some(unknown_source(source)),
        "rejected" if delivery.reason == "stale" => Some(stale(sources, delivery)),
        "rejected" => Some(of_rejected(source, delivery.reason)),
        "conflict" => Some(of_conflict(delivery.reason)),
        _ => None,
    }
}

fn unknown_source(source: &str) -> String {
    format!(
        "No source is called {source} any more: put [sources.{source}] back with its key, then verify it again."
    )
}

fn stale(sources: &Sources, delivery: &Ailing<'_>) -> String {
    let source = delivery.source;
    let tolerance = sources.get(source).map(|source| source.timestamp_tolerance);
    let seconds = tolerance.unwrap_or_default().as_secs();
    let beyond = format!("sources.{source}.timestamp_tolerance ({})", span(seconds));
    let off = match age_in_seconds(delivery) {
        Some(age) if age < 0 => format!("It was signed {} after it came,", span(age.unsigned_abs())),
        Some(age) => format!("It was signed {} before it came,", span(age.unsigned_abs())),
        None => "It was signed long before or after it came,".to_owned(),
    };
    format!(
        "{off} beyond {beyond}: check this machine's clock (`reelhook check`); if that is right, the callback was held up on \
         its way, or somebody repeats an old one. A wider tolerance lets it pass when it is verified again."
    )
}

/// How far its timestamp lies behind its arrival, in seconds.
fn age_in_seconds(delivery: &Ailing<'_>) -> Option<i64> {
    let headers: BTreeMap<String, String> = serde_json::from_str(delivery.headers).ok()?;
    let signed_at: i64 = headers.get("x-webhook-timestamp")?.trim().parse().ok()?;
    Some((delivery.received_at / 1000).saturating_sub(signed_at))
}

/// The one or two units that matter.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn of_rejected(source: &str, reason: &str) -> String {
    match reason {
        "bad_signature" => format!(
            "No key in sources.{source}.hmac_keys made this signature: copy the webhook HMAC key from the provider's settings, \
             reload, then verify it again."
        ),
        "missing_signature" => format!(
            "The provider did not sign it: generate a webhook HMAC key in the provider's settings, or verify by \
             sources.{source}.tokens and take hmac_keys out; then verify it again."
        ),
        "missing_token" | "bad_token" => format!(
            "Its URL lacks the right token: give the provider the URL that `reelhook url {source}` prints. Accept this one only if \
             you know that the provider sent it."
        ),
        "bad_query" => format!(
            "The kind or index in its URL is malformed: give the provider the URL that `reelhook url {source}` prints."
        ),
        "not_json" => "Its body is no JSON object: something on the way changed or cut it, or the sender is not the provider."
            .to_owned(),
        "no_task_id" => "Its body names no task: the sender is not the provider, or speaks another dialect.".to_owned(),
        "task_ids_differ" => {
            "Its body names several tasks, so that nobody can tell which one the signature is about: the provider does not send \
             that, so find out who does."
                .to_owned()
        }
        "duplicate_key" => {
            "Its body says a field twice that decides what it means: the provider does not send that, so find out who does."
                .to_owned()
        }
        "bad_task_id" => {
            "Its task id has characters or a length that no provider's has: the sender is probably not the provider.".to_owned()
        }
        "body_not_kept" => "It was longer than 64 KiB, and of such only the digest is kept: announce its task with POST /v1/tasks, so \
                            that the provider is asked for it."
            .to_owned(),
        "loopback_only" => format!(
            "The source verifies nothing: set sources.{source}.hmac_keys or tokens, or allow_unverified if anybody may call."
        ),
        _ => "Look at what arrived; nothing of it was believed.".to_owned(),
    }
}

fn of_conflict(reason: &str) -> String {
    match reason {
        "signature_reused" => {
            "Another callback was sent under the same signature before, which covers only task and time: this one is probably \
             forged. Accept it only if you know that it is genuine."
        }
        "different_media" => {
            "It names other files than those that stand. Compare the two; accept this one if it is right, else leave it."
        }
        "failure_after_success" => {
            "It says that a task failed which had succeeded. What is stored stays; accept it only if the success was wrong."
        }
        "settled" => "Somebody accepted another delivery of this outcome: nothing to do, unless that was wrong.",
        _ => "It contradicts what stands. Accept it if it is right, else leave it.",
    }
    .to_owned()
}
