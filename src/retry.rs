//! When to try again: backoff with full jitter, and Retry-After.

use std::time::{Duration, UNIX_EPOCH};

use crate::clock::{Millis, millis};

/// Exponential backoff with full jitter: a wait anywhere between nothing and a bound that doubles with every attempt.
///
/// Full jitter, because what fails together (a provider that is down) would otherwise come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The bound after the first failed attempt.
    pub base: Duration,
    /// The bound is never larger than this.
    pub cap: Duration,
}

impl Backoff {
    /// The wait after `attempt` failed attempts (1 for the first), as the share `random / 2^64` of its bound.
    pub fn delay(&self, attempt: u32, random: u64) -> Duration {
        let doublings = attempt.saturating_sub(1);
        let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
        let bound = self.base.saturating_mul(factor).min(self.cap);
        let bound = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
        let share = (u128::from(bound) * u128::from(random)) >> 64;
        Duration::from_millis(u64::try_from(share).unwrap_or(bound))
    }

    /// The wait after `attempt` failed attempts, with randomness from the operating system.
    pub fn random_delay(&self, attempt: u32) -> Duration {
        // Without randomness the whole bound is a safe wait.
        self.delay(attempt, getrandom::u64().unwrap_or(u64::MAX))
    }
}

/// Reads a `Retry-After` value, seconds or an HTTP date; a date in the past is no wait. `None` if it is neither.
///
/// The peer chose it: the caller must put a bound on it.
pub fn parse_retry_after(value: &str, now: Millis) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a long wait, not a malformed one.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let at = date.duration_since(UNIX_EPOCH).map_or(0, millis);
    Some(Duration::from_millis(
        u64::try_from(at.saturating_sub(now)).unwrap_or(0),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        base: Duration::from_secs(2),
        cap: Duration::from_mins(15),
    };

    #[test]
    fn the_bound_doubles_up_to_the_cap() {
        let longest = |attempt| BACKOFF.delay(attempt, u64::MAX).as_millis();
        assert_eq!(longest(0), 1_999);
        assert_eq!(longest(1), 1_999);
        assert_eq!(longest(2), 3_999);
        assert_eq!(longest(9), 511_999);
        assert_eq!(longest(10), 899_999);
        assert_eq!(longest(u32::MAX), 899_999);
    }

    #[test]
    fn the_wait_is_a_share_of_the_bound() {
        assert_eq!(BACKOFF.delay(3, 0), Duration::ZERO);
        assert_eq!(BACKOFF.delay(3, u64::MAX / 2 + 1), Duration::from_secs(4));
        assert!((1..50).all(|attempt| BACKOFF.random_delay(attempt) <= BACKOFF.cap));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = 784_111_777_000; // Sun, 06 Nov 1994 08:49:37 GMT
        let seconds = |value| parse_retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds(" 0 "), Some(0));
        assert_eq!(seconds("99999999999999999999999"), Some(u64::MAX));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        for nonsense in ["", "-1", "1.5", "soon", "12 s", "+5"] {
            assert_eq!(seconds(nonsense), None, "{nonsense}");
        }
    }
}
