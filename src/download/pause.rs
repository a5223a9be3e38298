//! While this machine is at fault (its disk, its storage, its network, its limits) nothing is fetched at all: every download
//! would meet the same fault, and none of them is to blame. The fault is probed, and once it is over the queue goes on by
//! itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::{Clock, Millis, millis};

/// Between two probes, at first and at most.
const PROBE_AFTER: Duration = Duration::from_secs(1);
const PROBE_AT_LEAST: Duration = Duration::from_secs(15);
/// A fault that comes back within so long after a pause was not over: probes go on where they stopped.
const SAME_FAULT: Duration = Duration::from_mins(1);

/// Whether the queue is paused. Cheap to clone; clones are of the same queue.
#[derive(Debug, Clone, Default)]
pub struct Pause(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Rung when it begins and when it ends.
    changed: watch::Sender<()>,
}

/// Why the queue is paused, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Stable: `disk_full`, `storage`, `network` or `machine`.
    pub code: &'static str,
    /// One sentence.
    pub detail: String,
    /// Since when.
    pub since: Millis,
}

/// What is at fault, as far as it must be known to find out whether it still is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// The disk has no room for so many bytes.
    Full(u64),
    /// The storage.
    Storage,
    /// The network: none of these URLs can be reached.
    Network(Vec<String>),
    /// A limit of the system, such as that of open files.
    Machine,
}

impl Cause {
    fn code(&self) -> &'static str {
        match self {
            Self::Full(_) => "disk_full",
            Self::Storage => "storage",
            Self::Network(_) => "network",
            Self::Machine => "machine",
        }
    }
}

#[derive(Debug, Default)]
struct State {
    paused: Option<Paused>,
    last: Option<Last>,
}

/// The pause before this one.
#[derive(Debug, Clone, Copy)]
struct Last {
    ended: Millis,
    /// Between its probes, in the end.
    wait: Duration,
    culprit: i64,
}

#[derive(Debug)]
struct Paused {
    reason: Reason,
    cause: Cause,
    wait: Duration,
    probe_at: Millis,
    /// The download that met the fault.
    culprit: i64,
}

impl Pause {
    /// Why nothing is fetched at the moment, if so.
    pub fn reason(&self) -> Option<Reason> {
        let state = self.lock();
        state.paused.as_ref().map(|paused| paused.reason.clone())
    }

    /// Changes whenever the queue is paused or goes on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// Pauses the queue, unless it is paused already, for a fault that a download met at this moment; whether it is paused.
    ///
    /// The download that met the last fault, too, when others have none, has a fault of its own: that is no reason.
    pub(super) fn begin(&self, cause: Cause, detail: &str, (now, culprit): (Millis, i64)) -> bool {
        let mut state = self.lock();
        if state.paused.is_some() {
            return true;
        }
        let recent = state.last.filter(|last| now - last.ended < millis(SAME_FAULT));
        if recent.is_some_and(|last| last.culprit == culprit && cause == Cause::Storage) {
            return false;
        }
        let wait = recent.map_or(PROBE_AFTER, |last| (last.wait * 2).min(PROBE_AT_LEAST));
        let code = cause.code();
        tracing::warn!(
            reason = code,
            "downloads are paused, callbacks are still taken: {detail}"
        );
        state.paused = Some(Paused {
            reason: Reason {
                code,
                detail: detail.to_owned(),
                since: now,
            },
            cause,
            wait,
            probe_at: now.saturating_add(millis(wait)),
            culprit,
        });
        drop(state);
        self.0.changed.send_replace(());
        true
    }

    /// Whether the queue is paused because no host can be reached.
    pub(super) fn is_for_the_network(&self) -> bool {
        let state = self.lock();
        let cause = state.paused.as_ref().map(|paused| &paused.cause);
        matches!(cause, Some(Cause::Network(_)))
    }

    /// When it is to be probed next, if the queue is paused. Never later than the wait between two probes, should the clock be
    /// set back.
    pub(super) fn probe_at(&self, clock: &Clock) -> Option<Millis> {
        let mut state = self.lock();
        let paused = state.paused.as_mut()?;
        let latest = clock.now().saturating_add(millis(paused.wait));
        paused.probe_at = paused.probe_at.min(latest);
        Some(paused.probe_at)
    }

    /// What is to be probed now: the next probe is put off.
    pub(super) fn due(&self, now: Millis) -> Option<Cause> {
        let mut state = self.lock();
        let paused = state.paused.as_mut()?;
        paused.wait = (paused.wait * 2).min(PROBE_AT_LEAST);
        paused.probe_at = now.saturating_add(millis(paused.wait));
        Some(paused.cause.clone())
    }

    /// The fault is over.
    pub(super) fn end(&self, now: Millis) {
        let mut state = self.lock();
        if let Some(paused) = state.paused.take() {
            state.last = Some(Last {
                ended: now,
                wait: paused.wait,
                culprit: paused.culprit,
            });
            let seconds = (now - paused.reason.since) / 1000;
            tracing::info!(
                reason = paused.reason.code,
                "downloads go on after a pause of {seconds} s"
            );
            drop(state);
            self.0.changed.send_replace(());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_become_rarer_and_a_fault_that_comes_back_is_not_new() {
        let (pause, clock) = (Pause::default(), Clock::manual(1_000_000));
        assert_eq!((pause.reason(), pause.probe_at(&clock)), (None, None));
        pause.begin(Cause::Full(1), "full", (clock.now(), 1));
        pause.begin(Cause::Machine, "another", (clock.now(), 2));
        let reason = pause.reason().unwrap();
        assert_eq!((reason.code, &*reason.detail), ("disk_full", "full"));
        assert_eq!(pause.probe_at(&clock), Some(1_001_000));
        assert_eq!(pause.due(clock.now()), Some(Cause::Full(1)));
        assert_eq!(pause.probe_at(&clock), Some(1_002_000));
        for _ in 0..9 {
            pause.due(clock.now());
        }
        assert_eq!(pause.probe_at(&clock), Some(1_015_000));
        pause.end(clock.now());
        assert_eq!((pause.reason(), pause.due(clock.now())), (None, None));
        assert!(!pause.begin(Cause::Storage, "its own", (clock.now(), 1)));
        assert!(pause.begin(Cause::Storage, "again", (clock.now(), 2)));
        assert_eq!(pause.probe_at(&clock), Some(1_015_000));
        clock.set(1_000);
        assert_eq!(pause.probe_at(&clock), Some(16_000), "set back");
        clock.set(2_000);
        assert_eq!(pause.probe_at(&clock), Some(16_000), "and it comes nearer");
    }
}
