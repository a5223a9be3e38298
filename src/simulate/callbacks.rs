//! When results are finished, and how that is announced: once, twice, late or never, signed as the provider signs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::redirect::Policy;
use tokio::sync::{Notify, Semaphore};
use url::Url;

use super::tasks::{Copy, Part, Task};
use super::{Event, Simulator, bodies, lock};
use crate::clock::{Millis, millis};
use crate::provider::signature;
use crate::roots;

/// How often a clock is looked at that a test may have moved.
const LOOK: Duration = Duration::from_millis(20);
/// Callbacks on their way at one time.
const AT_ONCE: usize = 64;
/// How long after a callback its duplicate follows, if nothing else is put off.
const SOON: Duration = Duration::from_millis(500);

/// What is due when.
#[derive(Debug, Default)]
pub(super) struct Timetable {
    due: Mutex<BinaryHeap<Reverse<Due>>>,
    changed: Notify,
}

/// What happens to the part of a task: `None`, it is finished; else, that copy of its callback is sent.
#[derive(Debug, Clone, std::marker::Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Millis,
    task: u64,
    part: usize,
    copy: Option<usize>,
}

impl Timetable {
    /// Has the part noticed when it is finished.
    pub(super) fn await_part(&self, at: Millis, task: u64, part: usize) {
        self.add(Due {
            at,
            task,
            part,
            copy: None,
        });
    }

    fn add(&self, due: Due) {
        lock(&self.due).push(Reverse(due));
        self.changed.notify_one();
    }

    /// The next that is due, or when it will be.
    fn next(&self, now: Millis) -> Result<Due, Option<Millis>> {
        let mut all = lock(&self.due);
        match all.peek() {
            Some(Reverse(first)) if first.at <= now => Ok(all.pop().expect("just seen").0),
            first => Err(first.map(|first| first.0.at)),
        }
    }
}

/// A client for the URLs that were given with submissions. The operator runs the simulator, and vouches for who submits.
pub(super) fn client(timeout: Duration) -> reqwest::Result<reqwest::Client> {
    roots::client(|| {
        reqwest::Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .timeout(timeout)
            .user_agent(concat!("reelhook-simulate/", env!("CARGO_PKG_VERSION")))
    })
}

/// Does what is due until the tasks drain.
pub(super) async fn run(simulator: Simulator) {
    let shared = &simulator.0;
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let now = shared.clock.now();
        let wait = match shared.timetable.next(now) {
            Ok(due) => {
                simulator.carry_out(due, &places);
                continue;
            }
            Err(Some(at)) => Duration::from_millis(u64::try_from(at - now).unwrap_or_default()).min(LOOK),
            // Nothing comes due by itself.
            Err(None) => Duration::MAX,
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.timetable.changed.notified() => {}
            () = shared.tasks.draining() => return,
        }
    }
}

impl Simulator {
    fn carry_out(&self, due: Due, places: &Arc<Semaphore>) {
        let Some(copy) = due.copy else {
            self.announce(due);
            return;
        };
        let (simulator, places) = (self.clone(), places.clone());
        self.0.tasks.spawn(async move {
            let _place = places.acquire_owned().await;
            tokio::select! {
                () = simulator.deliver(due, copy) => {}
                () = simulator.0.tasks.draining() => {}
            }
        });
    }

    /// Decides what becomes of the callback of a part that is finished.
    fn announce(&self, due: Due) {
        let mut book = self.book();
        let Some(task) = book.tasks.get_mut(&due.task) else {
            return;
        };
        let part = &task.parts[due.part];
        self.tell(task.finished(part));
        if part.callback.url.is_none() {
            return;
        }
        if part.callback.dropped {
            self.tell(Event::Dropped {
                task_id: task.id.clone(),
                kind: part.kind,
                index: part.index,
            });
            return;
        }
        let delays = self.delays(task, part);
        for (copy, delay) in delays.into_iter().enumerate() {
            task.parts[due.part].callback.copies.push(Copy::default());
            self.0.timetable.add(Due {
                at: due.at + millis(delay),
                copy: Some(copy),
                ..due
            });
        }
    }

    /// How long each copy of a callback is put off.
    fn delays(&self, task: &Task, part: &Part) -> Vec<Duration> {
        let faults = self.0.settings.faults;
        let dice = self.0.dice;
        let about = |what: &str| format!("{}-{}-{what}", part.kind.as_str(), part.index);
        let twice = dice.says(task.number, &about("duplicate"), faults.duplicate);
        let mut delays = vec![dice.up_to(task.number, &about("delay"), faults.reorder)];
        if twice {
            delays.push(dice.up_to(task.number, &about("delay again"), faults.reorder.max(SOON)));
        }
        delays
    }

    /// Sends one copy of a callback until it is answered 200, or the tries are used up.
    async fn deliver(&self, due: Due, copy: usize) {
        let Some((url, id, body)) = self.message(due) else {
            return;
        };
        let settings = self.0.settings.callbacks;
        let first = self.0.clock.now();
        for attempt in 1..=settings.retries as usize + 1 {
            if attempt > 1 {
                tokio::time::sleep(settings.spacing).await;
            }
            let signed_at = if settings.resign {
                self.0.clock.now()
            } else {
                first
            };
            let status = self.send(&url, &id, body.clone(), signed_at).await;
            let over = status == Some(200) || attempt > settings.retries as usize;
            self.note_answer(due, copy, status, over);
            if over {
                return;
            }
        }
    }

    fn message(&self, due: Due) -> Option<(Url, String, String)> {
        let book = self.book();
        let task = book.tasks.get(&due.task)?;
        let part = &task.parts[due.part];
        let body = bodies::callback(self, task, part, book.credits);
        Some((part.callback.url.clone()?, task.id.clone(), body.to_string()))
    }

    /// The status of the answer, if there is one in time. Only the head counts: what it says is of no interest.
    async fn send(&self, url: &Url, id: &str, body: String, signed_at: Millis) -> Option<u16> {
        let mut request = self
            .0
            .client
            .post(url.clone())
            .header("content-type", "application/json")
            .body(body);
        if let Some(key) = &self.0.settings.hmac_key {
            let timestamp = (signed_at / 1_000).to_string();
            request = request
                .header(
                    "x-webhook-signature",
                    signature::sign(key.expose(), id, &timestamp),
                )
                .header("x-webhook-timestamp", timestamp);
        }
        let response = request.send().await.ok()?;
        Some(response.status().as_u16())
    }

    fn note_answer(&self, due: Due, copy: usize, status: Option<u16>, over: bool) {
        let mut book = self.book();
        let Some(task) = book.tasks.get_mut(&due.task) else {
            return;
        };
        let part = &mut task.parts[due.part];
        let noted = &mut part.callback.copies[copy];
        noted.answers.push(status);
        noted.over = over;
        self.tell(Event::Called {
            task_id: task.id.clone(),
            kind: part.kind,
            index: part.index,
            copy,
            attempt: noted.answers.len(),
            status,
        });
    }
}
