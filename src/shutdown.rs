//! Two-stage shutdown: a soft stop that drains, a hard stop that ends what is left, and the tracker both wait on.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns every task of the server and carries the two stop signals to them. Clones share both.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    soft: CancellationToken,
    hard: CancellationToken,
}

impl Tasks {
    /// A fresh tracker with neither stop given.
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns a task that drain waits for.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(future)
    }

    /// Asks for the soft stop: accept nothing more, finish what runs.
    pub fn begin_drain(&self) {
        self.soft.cancel();
    }

    /// Whether the soft stop was asked for.
    pub fn is_draining(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Resolves when the soft stop is asked for.
    pub async fn draining(&self) {
        self.soft.cancelled().await;
    }

    /// Resolves when the grace period is over and what still runs must let go.
    pub async fn stopping(&self) {
        self.hard.cancelled().await;
    }

    /// Drains: soft stop, `grace` for the tasks to end, then hard stop and a short wait for them to let go.
    /// `true` if every task ended by itself within the grace period.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.soft.cancel();
        self.tracker.close();
        let in_time = tokio::time::timeout(grace, self.tracker.wait()).await.is_ok();
        self.hard.cancel();
        if !in_time {
            // Letting go is a matter of one commit; a task that cannot is left to the end of the process.
            let _ = tokio::time::timeout(Duration::from_secs(5), self.tracker.wait()).await;
        }
        in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_on_the_soft_stop_is_waited_for() {
        let tasks = Tasks::new();
        let seen = tasks.clone();
        let task = tasks.spawn(async move { seen.draining().await });
        assert!(tasks.drain(Duration::from_secs(5)).await);
        assert!(task.is_finished());
    }

    #[tokio::test]
    async fn a_task_past_the_grace_period_gets_the_hard_stop() {
        let tasks = Tasks::new();
        let seen = tasks.clone();
        let task = tasks.spawn(async move { seen.stopping().await });
        assert!(!tasks.drain(Duration::from_millis(10)).await);
        assert!(task.is_finished());
    }
}
