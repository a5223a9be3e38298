//! The one source of wall-clock time, so that tests can move it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment: milliseconds since the Unix epoch, UTC. The unit of every time in the database.
pub type Millis = i64;

/// Where the time comes from. Cheap to clone; clones share the same time.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// `None` is the system's clock; `Some` stands still until a test moves it.
    manual: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that shows `now` until it is advanced.
    pub fn manual(now: Millis) -> Self {
        Self {
            manual: Some(Arc::new(AtomicI64::new(now))),
        }
    }

    /// The present moment.
    pub fn now(&self) -> Millis {
        match &self.manual {
            Some(manual) => manual.load(Ordering::SeqCst),
            None => system_now(),
        }
    }

    /// Sets a manual clock, back as well as forth, as somebody may do with a machine's. The system's clock cannot be set.
    pub fn set(&self, now: Millis) {
        if let Some(manual) = &self.manual {
            manual.store(now, Ordering::SeqCst);
        }
    }

    /// Moves a manual clock forward. The system's clock cannot be moved.
    pub fn advance(&self, by: Duration) {
        if let Some(manual) = &self.manual {
            manual.fetch_add(millis(by), Ordering::SeqCst);
        }
    }
}

fn system_now() -> Millis {
    millis(since_1970())
}

/// How long ago 1970 was, by the system's clock: for log lines, which tell microseconds.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one home of the system's clock"
)]
pub fn since_1970() -> Duration {
    // A clock set before 1970 reads as the epoch: wrong, but ordered and harmless.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A duration in whole milliseconds, saturating.
pub fn millis(duration: Duration) -> Millis {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A moment as RFC 3339 in UTC with milliseconds (`2026-11-21T09:30:00.250Z`), as every JSON answer shows it.
pub fn rfc3339(at: Millis) -> String {
    let moment = jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{moment:.3}")
}

/// Reads an RFC 3339 moment; `None` if the text is not one.
pub fn parse_rfc3339(text: &str) -> Option<Millis> {
    text.parse::<jiff::Timestamp>()
        .ok()
        .map(jiff::Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_survives_the_way_through_rfc3339() {
        let at = 1_795_284_446_250;
        assert_eq!(rfc3339(at), "2026-11-21T18:07:26.250Z");
        assert_eq!(parse_rfc3339(&rfc3339(at)), Some(at));
        assert_eq!(parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn clones_of_a_manual_clock_share_its_time() {
        let clock = Clock::manual(1_000);
        let clone = clock.clone();
        clock.advance(Duration::from_secs(2));
        assert_eq!(clone.now(), 3_000);
        clone.set(500);
        assert_eq!(clock.now(), 500);
    }
}
