//! What a person can do about a file that was not fetched.

use crate::store::downloads::NEVER_RETRIED;

/// One sentence to act on for an error code of a file; `None` for a word that is none.
///
/// It holds whether the file is still tried by itself or has failed for good: "again" is then `retry`.
pub fn remedy(code: &str) -> Option<&'static str> {
    Some(match code {
        "network" => {
            "Check that this machine reaches the provider's file host; once it does, retry the task, or let it be tried again by itself."
        }
        "stalled" => {
            "Retry when the connection is better, or lower downloads.min_speed if this speed is all there is."
        }
        "truncated" => {
            "Retry: the transfer broke off; if every attempt ends so, the provider's own copy is cut off, and the video has to be generated again."
        }
        "expired" => {
            "Set the source's api_key, so that the provider is asked for a fresh link, and retry; after 14 days the provider has deleted the file."
        }
        "http_status" => {
            "Retry later; if the status stays, open the provider's URL yourself to see whether it still serves the file."
        }
        "internal" => {
            "Look into reelhook's log for the cause, then retry; please report it if it comes again."
        }
        "local" => {
            "Repair what the sentence names on this machine (disk, storage, network, open files): downloads then go on by themselves."
        }
        "blocked" => {
            "If the host is one you trust, permit it (sources.*.allowed_hosts, egress.allow_cidrs, egress.ports) and retry; else leave it blocked."
        }
        "not_media" => {
            "Open the provider's URL to see what it serves in the file's place; retry once it is the file, or generate it again."
        }
        "too_large" => "Raise downloads.max_size above the size of the file, restart, and retry.",
        "url_too_long" => "Fetch the file yourself: the raw delivery has its whole URL.",
        "too_many_files" => "Fetch the further files yourself: the raw delivery has all their URLs.",
        "unconfirmed" => {
            "Check the source's api_key and the task in the provider's logs; then retry to fetch the files without its word."
        }
        "damaged" => {
            "Retry while the provider still has the file; if it has not, restore the file from a backup."
        }
        "superseded" => {
            "Nothing is to be done: another delivery was accepted in place of the one that named this file."
        }
        _ => return None,
    })
}

/// Whether `retry` queues a file that failed with this code.
pub fn is_retryable(code: &str) -> bool {
    !NEVER_RETRIED.contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_of_what_is_never_retried_does_not_say_retry() {
        for code in NEVER_RETRIED {
            let remedy = remedy(code).unwrap();
            assert!(
                !is_retryable(code) && !remedy.to_lowercase().contains("retry"),
                "{code}"
            );
        }
        assert!(
            ["network", "expired", "blocked", "damaged"]
                .iter()
                .all(|code| is_retryable(code))
        );
    }

    #[test]
    fn words_that_are_no_error_have_no_remedy() {
        for word in [
            "stored",
            "stopped",
            "interrupted",
            "refreshed",
            "not_refreshed",
            "",
        ] {
            assert_eq!(remedy(word), None, "{word}");
        }
    }

    #[test]
    fn a_remedy_is_one_sentence() {
        for code in ["network", "expired", "blocked", "local", "superseded"] {
            let remedy = remedy(code).unwrap();
            assert!(
                remedy.ends_with('.') && !remedy.contains(". "),
                "{code}: {remedy}"
            );
        }
    }
}
