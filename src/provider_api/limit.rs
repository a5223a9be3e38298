//! How often the provider is asked: never more than so many requests in any stretch of time, in the order of asking.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep_until, timeout};

use super::error::ApiError;

/// At most so many requests in any stretch of this length.
#[derive(Debug)]
pub(super) struct Limit {
    most: usize,
    span: Duration,
    /// When the last ones went out, the earliest first. The lock is fair: who waits for it waits in line.
    sent: Mutex<VecDeque<Instant>>,
}

/// The right to send one request, as soon as it is taken. Dropped, it costs nothing.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    sent: MutexGuard<'a, VecDeque<Instant>>,
}

impl Limit {
    pub(super) fn new(most: u32, span: Duration) -> Self {
        Self {
            most: usize::try_from(most.max(1)).unwrap_or(usize::MAX),
            // The provider counts arrivals, and one request may be longer on its way than the next.
            span: span + span / 20,
            sent: Mutex::default(),
        }
    }

    /// Waits for a turn, behind everybody who asked before; `patience` at most.
    pub(super) async fn turn(&self, patience: Duration) -> Result<Turn<'_>, ApiError> {
        let turn = timeout(patience, self.next());
        turn.await.map_err(|_| ApiError::Busy {
            retry_after: self.span,
        })
    }

    async fn next(&self) -> Turn<'_> {
        let mut sent = self.sent.lock().await;
        if let Some(earliest) = sent.len().checked_sub(self.most).and_then(|at| sent.get(at)) {
            sleep_until(*earliest + self.span).await;
        }
        let now = Instant::now();
        while sent.front().is_some_and(|earliest| *earliest + self.span <= now) {
            sent.pop_front();
        }
        Turn { sent }
    }
}

impl Turn<'_> {
    /// Uses the turn up: the request goes out now.
    pub(super) fn take(mut self) {
        self.sent.push_back(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);
    const SPAN: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn no_stretch_holds_more_than_the_limit() {
        let limit = Limit::new(3, SPAN);
        let mut sent = Vec::new();
        for idle_ms in [0, 0, 0, 0, 90, 0, 0, 40, 0, 0, 0, 300, 0, 0, 0] {
            tokio::time::sleep(Duration::from_millis(idle_ms)).await;
            limit.turn(PATIENCE).await.unwrap().take();
            sent.extend(limit.sent.lock().await.back().copied());
        }
        assert_eq!(sent.len(), 15);
        for four in sent.windows(4) {
            assert!(four[3] - four[0] >= SPAN, "{four:?}");
        }
        assert!(limit.sent.lock().await.len() <= 3);
    }

    #[tokio::test]
    async fn who_asked_first_is_first_and_who_gives_up_costs_nothing() {
        let limit = Limit::new(1, SPAN);
        limit.turn(PATIENCE).await.unwrap().take();
        let served = std::sync::Mutex::new(Vec::new());
        let ask = async |name: &'static str, patience: Duration| {
            limit.turn(patience).await?.take();
            served.lock().unwrap().push(name);
            Ok::<(), ApiError>(())
        };
        let hasty = ask("hasty", SPAN / 10);
        let (first, hasty, last) = tokio::join!(ask("first", PATIENCE), hasty, ask("last", PATIENCE));
        assert!(first.is_ok() && last.is_ok());
        assert!(matches!(hasty, Err(ApiError::Busy { .. })));
        assert_eq!(*served.lock().unwrap(), ["first", "last"]);
    }

    #[tokio::test]
    async fn a_turn_that_is_not_taken_is_anothers() {
        let limit = Limit::new(1, Duration::from_hours(1));
        drop(limit.turn(PATIENCE).await.unwrap());
        limit.turn(PATIENCE).await.unwrap().take();
        assert!(limit.turn(SPAN).await.is_err());
    }
}
