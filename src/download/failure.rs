//! Why a download failed, and what follows from it: another attempt, an end, or a wait that costs nothing.

use std::time::Duration;

use super::Settings;
use super::content::NotMedia;
use crate::clock::{Millis, millis};
use crate::egress::EgressError;
use crate::retry::parse_retry_after;
use crate::storage::StorageError;
use crate::store::downloads::{ClaimedDownload, DownloadError, Settlement};

/// Longest `Retry-After` that is honoured.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);

/// How long before a file is expected to be deleted an attempt is made that would otherwise come too late.
const LAST_CALL: Duration = Duration::from_mins(1);

/// How long a download waits after a fault of this machine.
///
/// Every download meets the same full disk, each of them alone: a pause of the whole queue belongs in [`super::Downloader`].
const AFTER_LOCAL_FAULT: Duration = Duration::from_secs(30);

/// Why a file could not be fetched and stored.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No answer, a broken one, or one that the guard refused.
    #[error("{}", .0.sentence())]
    Egress(#[from] EgressError),
    /// An answer without the file.
    #[error("the server answered with status {status}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// Its `Retry-After`, as it came.
        retry_after: Option<String>,
    },
    /// The file is larger than `max_size`.
    #[error("the file is larger than the {limit} bytes that are allowed")]
    TooLarge {
        /// `max_size`.
        limit: u64,
    },
    /// Fewer or more bytes than announced.
    #[error("{received} bytes came where {announced} were announced")]
    Length {
        /// By `Content-Length`.
        announced: u64,
        /// How many came.
        received: u64,
    },
    /// Compressed although we asked for the file as it is.
    #[error("the answer was encoded as {encoding}, which was not asked for")]
    Encoded {
        /// The `Content-Encoding`.
        encoding: String,
    },
    /// The content is not media.
    #[error(transparent)]
    NotMedia(#[from] NotMedia),
    /// It took longer than `total_timeout`.
    #[error("not finished within {} s", .limit.as_secs())]
    TooSlow {
        /// `total_timeout`.
        limit: Duration,
    },
    /// Our disk failed.
    #[error("{}", .0.sentence())]
    Storage(#[from] StorageError),
    /// Our code failed.
    #[error("the download crashed; the log has the details")]
    Panicked,
}

/// What a failure means for the download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// The other side may do better next time.
    Retryable,
    /// Nothing will be different next time.
    Final,
    /// Not the other side's fault.
    Local,
}

impl FetchError {
    /// The stable word for it in the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Egress(EgressError::Blocked { .. }) => "blocked",
            Self::Egress(EgressError::Truncated { .. }) | Self::Length { .. } => "truncated",
            Self::Egress(error) if error.is_local() => "local",
            Self::Egress(_) | Self::TooSlow { .. } => "network",
            Self::Status {
                status: 403 | 404 | 410,
                ..
            } => "expired",
            Self::Status { .. } => "http_status",
            Self::TooLarge { .. } => "too_large",
            Self::Encoded { .. } | Self::NotMedia(_) => "not_media",
            Self::Storage(StorageError::Io { .. }) => "local",
            Self::Storage(StorageError::BadKey | StorageError::Missing) | Self::Panicked => "internal",
        }
    }

    fn class(&self) -> Class {
        match self.code() {
            "local" => Class::Local,
            "blocked" | "too_large" | "not_media" => Class::Final,
            "http_status" if !self.is_passing_status() => Class::Final,
            // Also `expired`: a file may show up late, and without an API key there is no other URL to ask for.
            _ => Class::Retryable,
        }
    }

    /// Whether the status may change by itself. An answer without a file that is no refusal (202, 204, 304) may, too.
    fn is_passing_status(&self) -> bool {
        let Self::Status { status, .. } = self else {
            return false;
        };
        matches!(status, 408 | 425 | 429) || !(400..500).contains(status)
    }

    fn shown(&self) -> DownloadError {
        DownloadError {
            code: self.code(),
            detail: self.to_string(),
        }
    }
}

/// How a claim ends that failed at `now`; `jitter` is any random number.
pub(super) fn settlement(
    failure: &FetchError,
    claim: &ClaimedDownload,
    settings: &Settings,
    now: Millis,
    jitter: u64,
) -> Settlement {
    let mut error = failure.shown();
    let attempt = claim.attempts.saturating_add(1);
    match failure.class() {
        Class::Local => Settlement::Released {
            at: now.saturating_add(millis(AFTER_LOCAL_FAULT)),
            error: Some(error),
        },
        Class::Retryable if attempt < settings.max_attempts => {
            let backoff = settings.backoff.delay(attempt, jitter);
            let asked = asked_wait(failure, now).unwrap_or_default();
            let at = now.saturating_add(millis(backoff.max(asked)));
            Settlement::Retry {
                at: in_time(at, claim, now),
                error,
            }
        }
        Class::Retryable => {
            error.detail = format!("{}; given up after {attempt} attempts", error.detail);
            Settlement::Failed { error }
        }
        Class::Final => Settlement::Failed { error },
    }
}

/// The wait that the server asked for, within reason: an hour at most.
fn asked_wait(failure: &FetchError, now: Millis) -> Option<Duration> {
    let FetchError::Status {
        retry_after: Some(value),
        ..
    } = failure
    else {
        return None;
    };
    Some(parse_retry_after(value, now)?.min(LONGEST_RETRY_AFTER))
}

/// No wait, neither ours nor one that was asked for, skips the last chance before the file is expected to be deleted.
/// Once that has passed, waits are what they are: the expectation may be wrong.
fn in_time(at: Millis, claim: &ClaimedDownload, now: Millis) -> Millis {
    let last_call = claim.deadline.saturating_sub(millis(LAST_CALL));
    if now < last_call { at.min(last_call) } else { at }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::egress::BlockReason;
    use crate::provider::{Kind, Role};
    use crate::retry::Backoff;
    use crate::store::downloads::Lease;

    const NOW: Millis = 1_800_000_000_000;

    fn settings() -> Settings {
        Settings {
            concurrency: 1,
            per_host: 1,
            max_size: 1_000,
            total_timeout: Duration::from_secs(5),
            lease: Duration::from_secs(5),
            max_attempts: 3,
            backoff: Backoff {
                base: Duration::from_secs(2),
                cap: Duration::from_mins(15),
            },
        }
    }

    fn claim(attempts: u32) -> ClaimedDownload {
        ClaimedDownload {
            lease: Lease {
                download: 1,
                token: 1,
            },
            source: "kie".to_owned(),
            task_id: "t1".parse().unwrap(),
            kind: Kind::video(),
            index: 0,
            role: Role::Result,
            n: 0,
            url: "https://a.example/1.mp4".to_owned(),
            attempts,
            deadline: NOW + 20 * 60_000,
        }
    }

    fn status(status: u16, retry_after: Option<&str>) -> FetchError {
        FetchError::Status {
            status,
            retry_after: retry_after.map(str::to_owned),
        }
    }

    fn disk(kind: rustix::io::Errno) -> FetchError {
        let source = io::Error::from(kind);
        let action = "write to the spool";
        StorageError::Io { action, source }.into()
    }

    /// The wait until the next attempt in seconds, with the longest backoff; `None` if there is none.
    fn wait(failure: &FetchError, attempts: u32) -> Option<i64> {
        match settlement(failure, &claim(attempts), &settings(), NOW, u64::MAX) {
            Settlement::Retry { at, .. } => Some((at - NOW + 1) / 1_000),
            Settlement::Failed { .. } => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_may_pass_is_tried_again_with_growing_waits() {
        for passing in [
            202, 204, 301, 304, 403, 404, 408, 410, 425, 429, 500, 502, 503, 504, 599,
        ] {
            assert_eq!(wait(&status(passing, None), 0), Some(2), "{passing}");
            assert_eq!(wait(&status(passing, None), 1), Some(4), "{passing}");
        }
        let length = FetchError::Length {
            announced: 2,
            received: 1,
        };
        let limit = Duration::from_secs(1);
        for passing in [
            length,
            FetchError::TooSlow { limit },
            FetchError::Panicked,
            EgressError::TooManyRedirects.into(),
        ] {
            assert_eq!(wait(&passing, 0), Some(2), "{passing}");
        }
    }

    #[test]
    fn what_will_not_pass_is_not_tried_again() {
        for lasting in [400, 401, 402, 405, 406, 409, 412, 413, 416, 418, 451] {
            assert_eq!(wait(&status(lasting, Some("1")), 0), None, "{lasting}");
        }
        let blocked = EgressError::from(BlockReason::InvalidUrl);
        let encoding = "gzip".to_owned();
        for lasting in [
            FetchError::TooLarge { limit: 1 },
            NotMedia::Empty.into(),
            blocked.into(),
            FetchError::Encoded { encoding },
        ] {
            assert_eq!(wait(&lasting, 0), None, "{lasting}");
        }
    }

    #[test]
    fn the_last_attempt_fails_for_good() {
        let last = settlement(&status(404, None), &claim(2), &settings(), NOW, 0);
        let Settlement::Failed { error } = last else {
            panic!("{last:?}");
        };
        assert_eq!(error.code, "expired");
        assert_eq!(
            error.detail,
            "the server answered with status 404; given up after 3 attempts"
        );
    }

    #[test]
    fn no_wait_skips_the_last_chance_before_the_deadline() {
        let settings = Settings {
            max_attempts: 30,
            backoff: Backoff {
                base: Duration::from_hours(1),
                cap: Duration::from_hours(6),
            },
            ..settings()
        };
        let after = |now| match settlement(&status(500, None), &claim(9), &settings, now, u64::MAX) {
            Settlement::Retry { at, .. } => at,
            other => panic!("{other:?}"),
        };
        let last_call = claim(9).deadline - 60_000;
        assert_eq!(after(NOW), last_call);
        assert_eq!(after(last_call - 1), last_call);
        // That one failed as well: the deadline is an estimate, so what attempts are left are still made.
        assert_eq!(after(last_call), last_call + 6 * 3_600_000 - 1);
    }

    /// On average: the first twelve of 24 attempts come within 35 minutes, for what passes soon, the others within 31
    /// hours, for an outage of a day on either side.
    #[test]
    fn the_default_attempts_outlast_an_outage_of_a_day() {
        let defaults = crate::config::Downloads::default();
        let backoff = Backoff {
            base: defaults.retry_base,
            cap: defaults.retry_cap,
        };
        let span = |attempts| -> Duration {
            (1..attempts)
                .map(|attempt| backoff.delay(attempt, u64::MAX / 2))
                .sum()
        };
        assert_eq!(span(12).as_secs() / 60, 34);
        assert_eq!(span(defaults.max_attempts).as_secs() / 3_600, 31);
    }

    #[test]
    fn a_fault_of_this_machine_costs_no_attempt() {
        use rustix::io::Errno;
        for errno in [
            Errno::NOSPC,
            Errno::DQUOT,
            Errno::ROFS,
            Errno::MFILE,
            Errno::IO,
            Errno::ACCESS,
        ] {
            let released = settlement(&disk(errno), &claim(2), &settings(), NOW, 0);
            let Settlement::Released {
                at,
                error: Some(error),
            } = released
            else {
                panic!("{released:?}");
            };
            assert_eq!((at - NOW, error.code), (30_000, "local"), "{errno}");
        }
    }

    #[test]
    fn retry_after_is_honoured_within_reason() {
        assert_eq!(wait(&status(429, Some("60")), 0), Some(60));
        assert_eq!(
            wait(&status(503, Some("1")), 0),
            Some(2),
            "never sooner than the backoff"
        );
        assert_eq!(wait(&status(503, Some("soon")), 0), Some(2));
        assert_eq!(
            wait(&status(503, Some("1200")), 0),
            Some(1_140),
            "a minute before the deadline: past it nothing is left to fetch"
        );
        let late = ClaimedDownload {
            deadline: NOW - 1,
            ..claim(0)
        };
        let settled = settlement(&status(503, Some("999999")), &late, &settings(), NOW, 0);
        assert!(
            matches!(settled, Settlement::Retry { at, .. } if at == NOW + 3_600_000),
            "{settled:?}"
        );
    }
}
