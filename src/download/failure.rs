//! Why a download failed, and what follows from it: another attempt, an end, or a wait that costs nothing.

use std::time::Duration;

use super::Settings;
use super::content::NotMedia;
use super::pause::Cause;
use crate::clock::{Millis, millis};
use crate::egress::EgressError;
use crate::retry::parse_retry_after;
use crate::storage::{AMPLE, StorageError};
use crate::store::downloads::{ClaimedDownload, DownloadError, Settlement};

/// Longest `Retry-After` that is honoured.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);

/// How long before a file is expected to be deleted an attempt is made that would otherwise come too late.
const LAST_CALL: Duration = Duration::from_mins(1);

/// How long a download waits after a fault of this machine, besides the pause of the queue: should the fault be the
/// download's own after all, others get their turn.
const AFTER_LOCAL_FAULT: Duration = Duration::from_secs(5);

/// How long a download waits after such a fault that others do not meet: a file for which there is no room, where smaller ones
/// find some.
const ALONE: Duration = Duration::from_secs(30);

/// Why a file could not be fetched and stored.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No answer, a broken one, or one that the guard refused.
    #[error("{}", .0.sentence())]
    Egress(#[from] EgressError),
    /// No host can be reached, so that this one is not to blame.
    #[error("this machine reaches no host: {}", .seen.sentence())]
    Offline {
        /// What was seen of this one.
        seen: EgressError,
        /// URLs of hosts that worked lately.
        witnesses: Vec<String>,
    },
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
        /// By `Content-Length` or `Content-Range`.
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
    /// As many bytes as announced, but the media in them goes on.
    #[error("the file is cut off: {detail}")]
    Truncated {
        /// What is missing.
        detail: String,
    },
    /// The content is not media.
    #[error(transparent)]
    NotMedia(#[from] NotMedia),
    /// The transfer crawled.
    #[error("only {speed} bytes a second came for {} s, where {least} are wanted", .over.as_secs_f32())]
    Stalled {
        /// Bytes a second.
        speed: u64,
        /// `min_speed`.
        least: u64,
        /// `stall_timeout`.
        over: Duration,
    },
    /// It took longer than `total_timeout`.
    #[error("not finished within {} s", .limit.as_secs_f32())]
    TooSlow {
        /// `total_timeout`.
        limit: Duration,
    },
    /// Our disk or storage failed.
    #[error("{}", .0.sentence())]
    Storage(#[from] StorageError),
    /// The server is being stopped.
    #[error("the server was stopped")]
    Stopped,
    /// Our code failed.
    #[error("the download crashed; the log has the details")]
    Panicked,
}

/// What a failure means for the download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// The other side may do better next time: costs an attempt.
    Retryable,
    /// The same, and another URL of the file would be better still.
    Expired,
    /// Nothing will be different next time.
    Final,
    /// Not the other side's fault: costs nothing.
    Local,
}

/// What a failure tells of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfHost {
    /// Nothing.
    Nothing,
    /// It does its work, only not for this file.
    Works,
    /// It can be reached, but cannot do its work, or wants to be left alone.
    Struggles,
    /// It cannot be reached, or says nothing.
    Gone,
}

impl FetchError {
    /// The stable word for it in the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Egress(EgressError::Blocked { .. }) => "blocked",
            Self::Egress(EgressError::Truncated { .. }) | Self::Length { .. } | Self::Truncated { .. } => {
                "truncated"
            }
            Self::Egress(error) if error.is_local() => "local",
            Self::Egress(_) | Self::TooSlow { .. } => "network",
            Self::Stalled { .. } => "stalled",
            Self::Status {
                status: 403 | 404 | 410,
                ..
            } => "expired",
            Self::Status { .. } => "http_status",
            Self::TooLarge { .. } => "too_large",
            Self::Encoded { .. } | Self::NotMedia(_) => "not_media",
            Self::Storage(StorageError::BadKey | StorageError::Missing) | Self::Panicked => "internal",
            Self::Storage(_) | Self::Offline { .. } | Self::Stopped => "local",
        }
    }

    fn class(&self) -> Class {
        match self.code() {
            "local" => Class::Local,
            "expired" => Class::Expired,
            "blocked" | "too_large" => Class::Final,
            // A page of text in the place of a file may be that of a maintenance, and what seems damaged may have been so on its
            // way; what is compressed unasked is what the host has.
            "not_media" if !matches!(self, Self::NotMedia(_)) => Class::Final,
            "http_status" if !self.is_passing_status() => Class::Final,
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

    /// What it tells of the host.
    pub(super) fn of_host(&self) -> OfHost {
        match self {
            // A crawl is as much the way's fault as the host's, or of this file alone.
            Self::Storage(_)
            | Self::Offline { .. }
            | Self::Stopped
            | Self::Panicked
            | Self::Stalled { .. }
            | Self::TooSlow { .. } => OfHost::Nothing,
            Self::Egress(error) if error.is_local() || matches!(error, EgressError::Blocked { .. }) => {
                OfHost::Nothing
            }
            Self::Egress(error) if !error.has_answered() => OfHost::Gone,
            Self::Status { status, .. } if *status == 429 || *status >= 500 => OfHost::Struggles,
            _ => OfHost::Works,
        }
    }

    /// Whether the connection was cut, by whomever, while a body came that was fine so far.
    pub(super) fn is_cut(&self) -> bool {
        match self {
            Self::Egress(EgressError::Truncated { .. } | EgressError::Exchange { .. })
            | Self::Stalled { .. } => true,
            Self::Egress(EgressError::Timeout { source, .. }) => !source.is_connect(),
            Self::Length { announced, received } => received < announced,
            _ => false,
        }
    }

    /// Whether what came of the file so far is worth going on with.
    pub(super) fn leaves_a_part(&self) -> bool {
        match self {
            Self::Length { announced, received } => received < announced,
            Self::NotMedia(_) | Self::Truncated { .. } | Self::Panicked => false,
            _ => self.class() != Class::Final,
        }
    }

    /// What is wrong with this machine, if that is what it is and concerns all downloads.
    pub(super) fn pause_cause(&self) -> Option<Cause> {
        match self {
            // A large file waits alone where smaller ones find room; one that never fits must not stop all others.
            Self::Storage(StorageError::NoRoom { spare, fits, .. }) if *spare >= AMPLE || !fits => None,
            Self::Storage(StorageError::NoRoom { needed, .. }) => Some(Cause::Full(*needed)),
            Self::Storage(error) if error.is_full() => Some(Cause::Full(1)),
            Self::Offline { witnesses, .. } => Some(Cause::Network(witnesses.clone())),
            Self::Stopped => None,
            Self::Storage(_) if self.code() == "local" => Some(Cause::Storage),
            _ if self.code() == "local" => Some(Cause::Machine),
            _ => None,
        }
    }

    fn shown(&self) -> DownloadError {
        DownloadError {
            code: self.code(),
            detail: self.to_string(),
        }
    }
}

/// When and under which rules a failure is settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) settings: &'a Settings,
    /// Whether the provider's API can be asked for another URL.
    pub(super) can_refresh: bool,
    /// Whether all downloads wait until the fault is over, if it is one of this machine.
    pub(super) is_paused: bool,
    pub(super) now: Millis,
    /// Any random number.
    pub(super) jitter: u64,
}

/// How a claim ends that failed.
pub(super) fn settlement(failure: &FetchError, claim: &ClaimedDownload, terms: Terms<'_>) -> Settlement {
    let mut error = failure.shown();
    let attempt = claim.attempts.saturating_add(1);
    match failure.class() {
        Class::Local => {
            let (wait, error) = match failure {
                FetchError::Stopped => (Duration::ZERO, None),
                _ if terms.is_paused => (AFTER_LOCAL_FAULT, Some(error)),
                _ => (ALONE, Some(error)),
            };
            let at = terms.now.saturating_add(millis(wait));
            Settlement::Released { at, error }
        }
        Class::Final => Settlement::Failed { error, counts: false },
        Class::Retryable | Class::Expired => {
            if let Some(why) = given_up(claim, attempt, terms) {
                error.detail = format!("{}; given up {why}", error.detail);
                return Settlement::Failed { error, counts: true };
            }
            let backoff = terms.settings.backoff.delay(attempt, terms.jitter);
            let asked = asked_wait(failure, terms.now).unwrap_or_default();
            let at = in_time(
                terms.now.saturating_add(millis(backoff.max(asked))),
                claim,
                terms.now,
            );
            if failure.class() == Class::Expired && terms.can_refresh {
                Settlement::Expired { at, error }
            } else {
                Settlement::Retry { at, error }
            }
        }
    }
}

/// Why there is no further attempt after so many, if so. Time alone ends nothing before the file is expected to be deleted.
fn given_up(claim: &ClaimedDownload, attempt: u32, terms: Terms<'_>) -> Option<String> {
    let Settings {
        max_attempts,
        give_up_after,
        ..
    } = *terms.settings;
    if attempt >= max_attempts {
        return Some(format!("after {attempt} attempts"));
    }
    let last = claim.queued_at.saturating_add(millis(give_up_after));
    let days = give_up_after.as_secs() / 86_400;
    (terms.now >= last.max(claim.deadline))
        .then(|| format!("after {attempt} attempts in {days} days or more"))
}

/// For how long the server wants to be left alone, within reason, and so that this download has its last chance.
pub(super) fn wait_of_host(failure: &FetchError, claim: &ClaimedDownload, now: Millis) -> Option<Duration> {
    let at = in_time(now.saturating_add(millis(asked_wait(failure, now)?)), claim, now);
    Some(Duration::from_millis(u64::try_from(at - now).unwrap_or(0)))
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
    use crate::download::tests;
    use crate::egress::BlockReason;
    use crate::retry::Backoff;

    const NOW: Millis = 1_800_000_000_000;

    fn settings() -> Settings {
        Settings {
            concurrency: 1,
            per_host: 1,
            lease: Duration::from_secs(5),
            max_attempts: 3,
            give_up_after: Duration::from_hours(14 * 24),
            backoff: Backoff {
                base: Duration::from_secs(2),
                cap: Duration::from_mins(15),
            },
        }
    }

    fn claim(attempts: u32) -> ClaimedDownload {
        ClaimedDownload {
            attempts,
            queued_at: NOW,
            deadline: NOW + 20 * 60_000,
            ..tests::claim("https://a.example/1.mp4")
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

    fn settled(failure: &FetchError, claim: &ClaimedDownload, (now, jitter): (Millis, u64)) -> Settlement {
        let terms = Terms {
            settings: &settings(),
            can_refresh: false,
            is_paused: failure.pause_cause().is_some(),
            now,
            jitter,
        };
        settlement(failure, claim, terms)
    }

    /// The wait until the next attempt in seconds, with the longest backoff; `None` if there is none.
    fn wait(failure: &FetchError, attempts: u32) -> Option<i64> {
        match settled(failure, &claim(attempts), (NOW, u64::MAX)) {
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
            FetchError::Truncated {
                detail: String::new(),
            },
            FetchError::TooSlow { limit },
            FetchError::Panicked,
            EgressError::TooManyRedirects.into(),
            NotMedia::Empty.into(),
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
            blocked.into(),
            FetchError::Encoded { encoding },
        ] {
            assert_eq!(wait(&lasting, 0), None, "{lasting}");
            let settled = settled(&lasting, &claim(0), (NOW, 0));
            assert!(matches!(settled, Settlement::Failed { counts: false, .. }));
        }
    }

    #[test]
    fn the_last_attempt_fails_for_good() {
        let last = settled(&status(404, None), &claim(2), (NOW, 0));
        let Settlement::Failed { error, counts: true } = last else {
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
        let terms = |now| Terms {
            settings: &settings,
            can_refresh: false,
            is_paused: false,
            now,
            jitter: u64::MAX,
        };
        let after = |now| match settlement(&status(500, None), &claim(9), terms(now)) {
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
    fn what_seems_damaged_is_asked_for_again() {
        let (flaw, beginning) = ("the file is damaged".to_owned(), String::new());
        let damaged = FetchError::from(NotMedia::Damaged { flaw, beginning });
        assert!(wait(&damaged, 1).is_some(), "it may have been so on its way");
        assert_eq!(wait(&damaged, 3), None, "attempts have an end");
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
            let released = settled(&disk(errno), &claim(2), (NOW, 0));
            let Settlement::Released {
                at,
                error: Some(error),
            } = released
            else {
                panic!("{released:?}");
            };
            assert_eq!((at - NOW, error.code), (5_000, "local"), "{errno}");
        }
        assert_eq!(disk(Errno::NOSPC).pause_cause(), Some(Cause::Full(1)));
        assert_eq!(disk(Errno::ROFS).pause_cause(), Some(Cause::Storage));
    }

    #[test]
    fn a_file_too_large_for_the_room_there_is_waits_alone_while_smaller_ones_find_some() {
        let no_room = |spare, fits| {
            FetchError::from(StorageError::NoRoom {
                needed: 2 * AMPLE,
                spare,
                reserve: 1,
                fits,
            })
        };
        assert_eq!(
            no_room(AMPLE - 1, true).pause_cause(),
            Some(Cause::Full(2 * AMPLE))
        );
        for alone in [no_room(AMPLE, true), no_room(0, false)] {
            assert_eq!(alone.pause_cause(), None);
            let settled = settled(&alone, &claim(2), (NOW, 0));
            assert!(matches!(settled, Settlement::Released { at, .. } if at == NOW + 30_000));
        }
    }

    #[test]
    fn an_expired_url_waits_for_another_where_one_can_be_asked_for() {
        let settings = settings();
        let terms = Terms {
            settings: &settings,
            can_refresh: true,
            is_paused: false,
            now: NOW,
            jitter: u64::MAX,
        };
        for code in [403, 404, 410] {
            let settled = settlement(&status(code, None), &claim(0), terms);
            assert!(
                matches!(settled, Settlement::Expired { at, .. } if at == NOW + 1_999),
                "{settled:?}"
            );
        }
        let settled = settlement(&status(500, None), &claim(0), terms);
        assert!(matches!(settled, Settlement::Retry { .. }));
        let settled = settlement(&status(404, None), &claim(2), terms);
        assert!(
            matches!(settled, Settlement::Failed { counts: true, .. }),
            "its attempts are used up"
        );
    }

    #[test]
    fn time_alone_ends_nothing_before_the_deadline() {
        let after = |queued_at, deadline| {
            let claim = ClaimedDownload {
                queued_at,
                deadline,
                ..claim(0)
            };
            settled(&status(500, None), &claim, (NOW, 0))
        };
        let long_ago = NOW - 15 * 86_400_000;
        assert!(matches!(after(long_ago, NOW + 1), Settlement::Retry { .. }));
        assert!(
            matches!(after(NOW, NOW - 1), Settlement::Retry { .. }),
            "it is young"
        );
        let Settlement::Failed { error, counts: true } = after(long_ago, NOW - 1) else {
            panic!("both have passed");
        };
        assert!(
            error
                .detail
                .ends_with("given up after 1 attempts in 14 days or more"),
            "{}",
            error.detail
        );
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
        let settled = settled(&status(503, Some("999999")), &late, (NOW, 0));
        assert!(
            matches!(settled, Settlement::Retry { at, .. } if at == NOW + 3_600_000),
            "{settled:?}"
        );
    }
}
