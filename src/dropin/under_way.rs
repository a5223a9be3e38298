//! Submissions that are being sent, for those who send the same meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::{Answer, Refusal};

/// Longest wait for the answer to somebody else's submission.
const PATIENCE: Duration = Duration::from_mins(1);

/// What came of a submission.
pub(super) type Outcome = Result<Answer, Refusal>;

type Waiting = watch::Receiver<Option<Outcome>>;

/// All that are being sent, by their refs.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashMap<String, Waiting>>>);

/// One of them, as long as this lives.
#[derive(Debug)]
pub(super) struct Place {
    all: Arc<Mutex<HashMap<String, Waiting>>>,
    reference: String,
    outcome: watch::Sender<Option<Outcome>>,
}

impl UnderWay {
    /// From now on this one is being sent.
    pub(super) fn enter(&self, reference: &str) -> Place {
        let (outcome, waiting) = watch::channel(None);
        lock(&self.0).insert(reference.to_owned(), waiting);
        Place {
            all: self.0.clone(),
            reference: reference.to_owned(),
            outcome,
        }
    }

    /// What comes of that one; `None` if it is not being sent. Whoever waits too long, or in vain, is in doubt.
    pub(super) async fn outcome(&self, reference: &str) -> Option<Outcome> {
        let mut waiting = lock(&self.0).get(reference).cloned()?;
        let known = tokio::time::timeout(PATIENCE, waiting.wait_for(Option::is_some)).await;
        let outcome = match known {
            Ok(Ok(outcome)) => outcome.clone(),
            _ => None,
        };
        Some(match outcome {
            None | Some(Err(Refusal::Lost(_))) => Err(Refusal::InDoubt),
            Some(outcome) => outcome,
        })
    }
}

impl Place {
    /// Tells those who wait for it.
    pub(super) fn tell(&self, outcome: &Outcome) {
        self.outcome.send_replace(Some(outcome.clone()));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.all).remove(&self.reference);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds the lock")
}
