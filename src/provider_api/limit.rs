//! How often the provider is asked: never more than so many requests in any stretch of time, in the order of asking.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout};

use super::error::ApiError;

/// At most so many requests in any stretch of this length, as the provider counts them.
///
/// It counts arrivals, and one request may be longer on its way than the next: the first has a connection to make, the next
/// finds it. So a place is given to the next request a whole stretch after the *end* of the one before. That bounds the
/// requests under way, too.
#[derive(Debug)]
pub(super) struct Limit {
    span: Duration,
    /// A permit for each place that no request is using. Fair: who waits for it waits in line.
    places: Semaphore,
    ended: Mutex<Ended>,
}

#[derive(Debug)]
struct Ended {
    /// Places that were never used.
    unused: usize,
    /// When the requests of the others ended, the earliest first.
    at: BinaryHeap<Reverse<Instant>>,
}

/// The right to send one request, which ends when this is dropped. Unless it is taken, it costs nothing.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    limit: &'a Limit,
    /// When the request before it ended; `None` if there was none.
    before: Option<Instant>,
    is_taken: bool,
    _place: SemaphorePermit<'a>,
}

impl Limit {
    pub(super) fn new(most: u32, span: Duration) -> Self {
        let most = usize::try_from(most.max(1)).unwrap_or(usize::MAX);
        let most = most.min(Semaphore::MAX_PERMITS);
        Self {
            span,
            places: Semaphore::new(most),
            ended: Mutex::new(Ended {
                unused: most,
                at: BinaryHeap::new(),
            }),
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
        let place = self.places.acquire().await.expect("nobody closes it");
        // From here on the place is given back by whoever drops the turn.
        let turn = Turn {
            before: self.with_ended(|ended| ended.take(self.span)),
            limit: self,
            is_taken: false,
            _place: place,
        };
        if let Some(before) = turn.before {
            sleep_until(before + self.span).await;
        }
        turn
    }

    fn with_ended<T>(&self, work: impl FnOnce(&mut Ended) -> T) -> T {
        work(&mut self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Ended {
    /// The place that is free first, by when its last request ended. There is one for each permit.
    fn take(&mut self, span: Duration) -> Option<Instant> {
        let first = self.at.peek().map(|Reverse(at)| *at);
        if self.unused > 0 && first.is_none_or(|at| at.elapsed() < span) {
            self.unused -= 1;
            return None;
        }
        self.at.pop().map(|Reverse(at)| at)
    }
}

impl Turn<'_> {
    /// Uses the turn: the request goes out now.
    pub(super) fn take(&mut self) {
        self.is_taken = true;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let before = if self.is_taken {
            Some(Instant::now())
        } else {
            self.before
        };
        self.limit.with_ended(|ended| match before {
            Some(at) => ended.at.push(Reverse(at)),
            None => ended.unused += 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);
    const SPAN: Duration = Duration::from_millis(100);

    /// Sends a request that is so long under way; between which moments it arrived.
    async fn send(limit: &Limit, takes: Duration) -> (Instant, Instant) {
        let mut turn = limit.turn(PATIENCE).await.unwrap();
        turn.take();
        let begun = Instant::now();
        tokio::time::sleep(takes).await;
        (begun, Instant::now())
    }

    #[tokio::test]
    async fn no_stretch_holds_more_than_the_limit_however_long_requests_are_under_way() {
        let limit = Limit::new(3, SPAN);
        let lengths = [80, 0, 40, 0, 0, 90, 0, 30, 10, 0, 0, 0];
        let sending = lengths.map(|ms| send(&limit, Duration::from_millis(ms)));
        let mut sent = futures_util::future::join_all(sending).await;
        sent.sort_by_key(|(begun, _)| *begun);
        // Whenever each may have arrived: of four, not all came within one stretch.
        for (n, (begun, _)) in sent.iter().enumerate().skip(3) {
            let before = sent[..n].iter().filter(|(_, ended)| *ended + SPAN > *begun);
            assert!(before.count() < 3, "the {n}th of {sent:?}");
        }
    }

    #[tokio::test]
    async fn who_asked_first_is_first_and_who_gives_up_costs_nothing() {
        let limit = Limit::new(1, SPAN);
        send(&limit, Duration::ZERO).await;
        let served = Mutex::new(Vec::new());
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
        for _ in 0..3 {
            assert!(limit.turn(SPAN / 10).await.is_err());
        }
        assert_eq!(limit.places.available_permits(), 1);
        assert_eq!(limit.with_ended(|ended| ended.at.len()), 1);
    }
}
