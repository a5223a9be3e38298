//! The claim loop: permits, wake-ups, leases and drain, for any queue that lies in the store.

use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, Semaphore};

use crate::clock::{Clock, Millis};
use crate::shutdown::Tasks;

/// How long the loop waits after the store failed, before it asks again.
const AFTER_STORE_ERROR: Duration = Duration::from_secs(1);

/// Longest sleep without asking the store. The ring and the due time make it superfluous, except that the clock by
/// which work falls due may be set back or forth while we sleep.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// The sleep before due work is asked for again that was not claimed.
const HELD_BACK: Duration = Duration::from_millis(50);

/// A queue of due work, claimed one piece at a time.
pub trait Queue: Send + Sync + 'static {
    /// A claimed piece of work.
    type Job: Clone + Send + Sync + 'static;
    /// Why the queue could not be asked.
    type Error: Display + Send;

    /// Claims a piece of due work; `None` if there is none.
    fn claim(&self) -> impl Future<Output = Result<Option<Self::Job>, Self::Error>> + Send;
    /// When the next piece falls due, if any is waiting.
    fn next_due(&self) -> impl Future<Output = Result<Option<Millis>, Self::Error>> + Send;
    /// Brings waiting work forward by so much: the clock was set back, and what was due soon is not to wait for it to catch
    /// up.
    fn bring_forward(&self, by: Duration) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Rung when there may be more to claim.
    fn ring(&self) -> &Notify;
    /// Carries a piece out and settles it. Ends soon after [`Tasks::stopping`].
    fn carry_out(&self, job: Self::Job) -> impl Future<Output = ()> + Send;
    /// Settles a piece whose carrying out panicked.
    fn after_panic(&self, job: Self::Job) -> impl Future<Output = ()> + Send;
}

/// Claims and carries out work, `concurrency` pieces at a time, until the soft stop; what runs then goes on under
/// `tasks`, and this returns.
pub async fn run<Q: Queue>(queue: Arc<Q>, concurrency: usize, clock: Clock, tasks: Tasks) {
    let permits = Arc::new(Semaphore::new(concurrency));
    let ended = Arc::new(Notify::new());
    let mut latest = clock.now();
    loop {
        let permit = tokio::select! {
            biased;
            () = tasks.draining() => return,
            permit = Arc::clone(&permits).acquire_owned() => permit.expect("the semaphore is never closed"),
        };
        // Both exist before the store is asked: a ring between question and sleep is not lost.
        let rung = queue.ring().notified();
        // Work may have been held back by a bound on the pieces that run at once (per host).
        let freed = ended.notified();
        follow_the_clock(&*queue, &clock, &mut latest).await;
        match queue.claim().await {
            Ok(Some(job)) => {
                let (queue, ended) = (Arc::clone(&queue), Arc::clone(&ended));
                tasks.spawn(async move {
                    carry_out(&*queue, job).await;
                    drop(permit);
                    ended.notify_waiters();
                });
            }
            Ok(None) => {
                let pause = until_due(&*queue, &clock).await;
                tokio::select! {
                    () = rung => {}
                    () = freed => {}
                    () = tokio::time::sleep(pause) => {}
                    () = tasks.draining() => return,
                }
            }
            Err(error) => {
                tracing::error!(%error, "the queue cannot be asked for work: {error}");
                tokio::select! {
                    () = tokio::time::sleep(AFTER_STORE_ERROR) => {}
                    () = tasks.draining() => return,
                }
            }
        }
    }
}

/// Claims and carries out one piece of due work; `false` if there was none.
pub async fn step<Q: Queue>(queue: &Q) -> Result<bool, Q::Error> {
    let Some(job) = queue.claim().await? else {
        return Ok(false);
    };
    carry_out(queue, job).await;
    Ok(true)
}

/// A panic is a failure of this piece of work, not of the queue: one poisoned row must not stop all others.
async fn carry_out<Q: Queue>(queue: &Q, job: Q::Job) {
    let work = AssertUnwindSafe(queue.carry_out(job.clone())).catch_unwind();
    if work.await.is_err() {
        queue.after_panic(job).await;
    }
}

/// Notices that the clock was set back since it was `latest` looked at, and has waiting work follow.
async fn follow_the_clock<Q: Queue>(queue: &Q, clock: &Clock, latest: &mut Millis) {
    let now = clock.now();
    // What keeps a clock right sets it back by a little now and then; that may be waited for.
    if let Ok(by @ 1000..) = u64::try_from(*latest - now) {
        if let Err(error) = queue.bring_forward(Duration::from_millis(by)).await {
            // It is still behind the next time, and tried again.
            tracing::error!(%error, "the clock was set back, and waiting work could not follow: {error}");
            return;
        }
        tracing::warn!("the clock was set back by {by} ms or more, and waiting work with it");
    }
    *latest = now;
}

async fn until_due<Q: Queue>(queue: &Q, clock: &Clock) -> Duration {
    match queue.next_due().await {
        Ok(Some(due)) => match u64::try_from(due.saturating_sub(clock.now())).unwrap_or(0) {
            // Due work that was not claimed is held back or just claimed by another: not a reason to spin.
            0 => HELD_BACK,
            wait => Duration::from_millis(wait).min(LONGEST_SLEEP),
        },
        Ok(None) => LONGEST_SLEEP,
        Err(_) => AFTER_STORE_ERROR,
    }
}

/// Does `work` while its lease is renewed every `interval`; `None` if the lease was lost, and then `work` was dropped where
/// it stood.
///
/// `renew` says whether the lease still stands. It says `None` when it could not find out; then the work goes on, since
/// the fencing token keeps a holder that is late from doing harm.
pub async fn while_leased<T, R>(
    interval: Duration,
    mut renew: impl FnMut() -> R,
    work: impl Future<Output = T>,
) -> Option<T>
where
    R: Future<Output = Option<bool>>,
{
    let lost = async {
        loop {
            tokio::time::sleep(interval).await;
            if renew().await == Some(false) {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = lost => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A queue in memory: jobs are (due, panics).
    #[derive(Default)]
    struct Memory {
        waiting: Mutex<Vec<(Millis, bool)>>,
        ring: Notify,
        clock: Clock,
        /// Each job takes a permit of it for good, if set.
        gate: Option<Semaphore>,
        done: AtomicUsize,
        panicked: AtomicUsize,
        claims: AtomicUsize,
        progress: Notify,
    }

    impl Memory {
        fn put(&self, due: Millis, panics: bool) {
            self.waiting.lock().unwrap().push((due, panics));
            self.ring.notify_waiters();
        }

        async fn wait_until(&self, condition: impl Fn(&Self) -> bool) {
            let wait = async {
                loop {
                    let progress = self.progress.notified();
                    if condition(self) {
                        return;
                    }
                    progress.await;
                }
            };
            tokio::time::timeout(Duration::from_secs(5), wait)
                .await
                .expect("in time");
        }
    }

    impl Queue for Memory {
        type Job = bool;
        type Error = String;

        async fn claim(&self) -> Result<Option<bool>, String> {
            let mut waiting = self.waiting.lock().unwrap();
            let Some(due) = waiting.iter().position(|(due, _)| *due <= self.clock.now()) else {
                return Ok(None);
            };
            self.claims.fetch_add(1, Ordering::SeqCst);
            self.progress.notify_waiters();
            Ok(Some(waiting.remove(due).1))
        }

        async fn next_due(&self) -> Result<Option<Millis>, String> {
            Ok(self.waiting.lock().unwrap().iter().map(|(due, _)| *due).min())
        }

        async fn bring_forward(&self, by: Duration) -> Result<(), String> {
            for (due, _) in self.waiting.lock().unwrap().iter_mut() {
                *due -= crate::clock::millis(by);
            }
            Ok(())
        }

        fn ring(&self) -> &Notify {
            &self.ring
        }

        async fn carry_out(&self, panics: bool) {
            assert!(!panics, "a poisoned job");
            if let Some(gate) = &self.gate {
                gate.acquire().await.expect("open").forget();
            }
            self.done.fetch_add(1, Ordering::SeqCst);
            self.progress.notify_waiters();
        }

        async fn after_panic(&self, _: bool) {
            self.panicked.fetch_add(1, Ordering::SeqCst);
            self.progress.notify_waiters();
        }
    }

    fn start(queue: &Arc<Memory>, concurrency: usize) -> Tasks {
        let tasks = Tasks::new();
        let running = run(Arc::clone(queue), concurrency, queue.clock.clone(), tasks.clone());
        tasks.spawn(running);
        tasks
    }

    #[tokio::test]
    async fn the_ring_wakes_the_loop() {
        let queue = Arc::new(Memory::default());
        let tasks = start(&queue, 2);
        for n in 1..=20 {
            queue.put(0, false);
            queue
                .wait_until(|queue| queue.done.load(Ordering::SeqCst) == n)
                .await;
        }
        assert!(tasks.drain(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn work_starts_when_it_falls_due() {
        let queue = Arc::new(Memory::default());
        queue.put(queue.clock.now() + 100, false);
        let tasks = start(&queue, 1);
        queue
            .wait_until(|queue| queue.done.load(Ordering::SeqCst) == 1)
            .await;
        assert!(tasks.drain(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn the_loop_sleeps_no_longer_than_until_work_falls_due_and_never_spins() {
        let clock = Clock::manual(3_600_000);
        for (due, sleep) in [
            (5, Duration::from_millis(5)),
            (0, HELD_BACK),
            (-7, HELD_BACK),
            (3_600_000, LONGEST_SLEEP),
        ] {
            let queue = Memory::default();
            queue.put(clock.now() + due, false);
            assert_eq!(until_due(&queue, &clock).await, sleep, "due in {due} ms");
        }
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_holds_nothing_up() {
        let hour = 3_600_000;
        let queue = Arc::new(Memory {
            clock: Clock::manual(2 * hour),
            gate: Some(Semaphore::new(0)),
            ..Memory::default()
        });
        queue.put(2 * hour, false);
        let tasks = start(&queue, 1);
        queue
            .wait_until(|queue| queue.claims.load(Ordering::SeqCst) == 1)
            .await;
        queue.put(2 * hour, false);
        queue.clock.set(hour);
        queue.gate.as_ref().unwrap().add_permits(2);
        queue
            .wait_until(|queue| queue.done.load(Ordering::SeqCst) == 2)
            .await;
        assert!(tasks.drain(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn no_more_is_claimed_than_may_run() {
        let queue = Arc::new(Memory {
            gate: Some(Semaphore::new(0)),
            ..Memory::default()
        });
        for _ in 0..3 {
            queue.put(0, false);
        }
        let tasks = start(&queue, 2);
        queue
            .wait_until(|queue| queue.claims.load(Ordering::SeqCst) == 2)
            .await;
        tokio::task::yield_now().await;
        assert_eq!(queue.claims.load(Ordering::SeqCst), 2);
        let gate = queue.gate.as_ref().unwrap();
        gate.add_permits(1);
        queue
            .wait_until(|queue| queue.claims.load(Ordering::SeqCst) == 3)
            .await;
        gate.add_permits(2);
        assert!(tasks.drain(Duration::from_secs(5)).await);
        assert_eq!(queue.done.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_of_its_job_alone() {
        let queue = Arc::new(Memory::default());
        queue.put(0, true);
        queue.put(0, false);
        let tasks = start(&queue, 1);
        queue
            .wait_until(|queue| queue.done.load(Ordering::SeqCst) == 1)
            .await;
        assert_eq!(queue.panicked.load(Ordering::SeqCst), 1);
        assert!(tasks.drain(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn drain_claims_nothing_more_and_waits_for_what_runs() {
        let queue = Arc::new(Memory {
            gate: Some(Semaphore::new(0)),
            ..Memory::default()
        });
        queue.put(0, false);
        let tasks = start(&queue, 1);
        queue
            .wait_until(|queue| queue.claims.load(Ordering::SeqCst) == 1)
            .await;
        tasks.begin_drain();
        queue.put(0, false);
        queue.gate.as_ref().unwrap().add_permits(2);
        assert!(tasks.drain(Duration::from_secs(5)).await);
        assert_eq!(queue.done.load(Ordering::SeqCst), 1);
        assert_eq!(queue.claims.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_lost_lease_ends_the_work_and_an_unknown_one_does_not() {
        let short = Duration::from_millis(1);
        let endless = std::future::pending::<()>();
        let lost = || std::future::ready(Some(false));
        assert_eq!(while_leased(short, lost, endless).await, None);

        let mut asked = 0;
        let unknown = || {
            asked += 1;
            std::future::ready(None)
        };
        let work = tokio::time::sleep(Duration::from_millis(50));
        assert_eq!(while_leased(short, unknown, work).await, Some(()));
        assert!(asked > 0);
    }
}
