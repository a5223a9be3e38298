//! The one feeder, and the seats of those it feeds.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, Semaphore, broadcast, watch};
use tokio::time::{Instant, sleep_until};

use super::render::{self, Event};
use crate::clock::Millis;
use crate::http::App;
use crate::store::StoreError;
use crate::store::changes::Change;

/// Changes told in one round, at most and at least.
const ROUND: usize = 256;
const LEAST_ROUND: usize = 8;
/// Bytes that all readers together get in one round: a callback that comes meanwhile waits for a part of that.
const ROUND_BYTES: usize = 4 << 20;
/// What an event has, as long as none was seen.
const USUAL_EVENT: usize = 2_048;
/// Between two rounds, at least.
const PAUSE: Duration = Duration::from_millis(100);
/// Each reader costs a write a round, so that rounds become rarer with their number; and up to which pause.
const PAUSE_PER_READER: Duration = Duration::from_millis(2);
const LONGEST_FOR_READERS: Duration = Duration::from_secs(1);
/// Bytes a second that all readers together get: callbacks need the processor more than they do.
const BYTES_PER_SECOND: u64 = 32 << 20;
/// How often it is told how far downloads are.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// After how long it is tried again to read what changed.
const AFTER_ERROR: Duration = Duration::from_secs(1);
/// Messages that a reader may be behind, and about how many bytes each has: with both, all that those who stall can hold.
const BACKLOG: usize = 64;
const MESSAGE: usize = 256 * 1024;
/// Readers who catch up at one time.
const TURNS: usize = 2;

/// What all readers are told.
#[derive(Debug, Clone)]
pub(super) enum Message {
    Events(Arc<Events>),
    /// Since when the queue is paused, and how that is told; or that it is not.
    Queue(Option<(Millis, Bytes)>),
    /// So much was missed that it cannot be told: up to this change.
    Reset(i64),
    /// Come back, and show anew that you may.
    HangUp,
}

/// Events that follow each other.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) bytes: Bytes,
    pub(super) parts: Vec<Part>,
    /// All changes up to this one were told, then; 0 if these are about none.
    pub(super) through: i64,
}

/// One of the events.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) id: Option<i64>,
    pub(super) source: String,
    pub(super) task_id: String,
    pub(super) range: Range<usize>,
}

/// Where readers get their seats.
#[derive(Debug)]
pub(in crate::http) struct Feed {
    messages: broadcast::Sender<Message>,
    seats: Mutex<Seats>,
    most: usize,
    taken: Notify,
    pub(super) turns: Semaphore,
}

#[derive(Debug, Default)]
struct Seats {
    taken: usize,
    /// All changes up to this one were told, or nobody wanted to hear of them.
    told: i64,
}

impl Feed {
    /// With so many seats.
    pub(in crate::http) fn new(most: usize) -> Self {
        Self {
            messages: broadcast::Sender::new(BACKLOG),
            seats: Mutex::default(),
            most,
            taken: Notify::new(),
            turns: Semaphore::new(TURNS),
        }
    }

    /// Has everybody come back, and show anew that he may.
    pub(in crate::http) fn hang_up(&self) {
        self.send(Message::HangUp);
    }

    fn send(&self, message: Message) {
        // Nobody may be there any more.
        let _ = self.messages.send(message);
    }

    /// How many follow.
    pub(in crate::http) fn readers(&self) -> usize {
        self.lock().taken
    }

    async fn reader(&self) {
        while self.readers() == 0 {
            self.taken.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes that one who comes back is told of: above that he had better load again what he shows.
const CATCH_UP: usize = 4096;

/// The seat of a reader; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) app: App,
    pub(super) messages: broadcast::Receiver<Message>,
    /// The last change at that time. Of all later ones he hears by messages.
    pub(super) joined_at: i64,
}

impl Seat {
    /// `None` if all are taken.
    pub(super) fn take(app: &App) -> Option<Self> {
        let feed = app.events();
        let mut seats = feed.lock();
        if seats.taken >= feed.most {
            return None;
        }
        let joined_at = app.store.last_change();
        if seats.taken == 0 {
            // What happened while nobody listened is told to nobody.
            seats.told = joined_at;
        }
        seats.taken += 1;
        let messages = feed.messages.subscribe();
        drop(seats);
        feed.taken.notify_one();
        Some(Self {
            app: app.clone(),
            messages,
            joined_at,
        })
    }

    /// The changes from one until he came, each task and file once; `None` if they are not known any more, or are too many
    /// to be kept for each who asks.
    pub(super) fn since(&self, seq: i64) -> Option<Vec<Change>> {
        if seq > self.joined_at {
            return None;
        }
        let mut changes = self.app.store.changes_after(seq, CATCH_UP + 1)?;
        if changes.len() > CATCH_UP {
            return None;
        }
        changes.retain(|change| change.seq <= self.joined_at);
        Some(latest(&changes))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.app.events().lock().taken -= 1;
    }
}

/// The last change of each task and each file, in their order.
fn latest(changes: &[Change]) -> Vec<Change> {
    let last: HashMap<(i64, Option<i64>), i64> = changes
        .iter()
        .map(|change| ((change.task, change.file), change.seq))
        .collect();
    let is_last = |change: &&Change| last.get(&(change.task, change.file)) == Some(&change.seq);
    changes.iter().filter(is_last).copied().collect()
}

/// Feeds whoever follows the events, until the soft stop.
pub(in crate::http) async fn feed(app: App) {
    let feeder = Feeder {
        changes: app.store.changes(),
        pauses: app.pause.changes(),
        more: true,
        round_at: Instant::now(),
        progress_at: Instant::now(),
        each: USUAL_EVENT,
        app: app.clone(),
    };
    tokio::select! {
        () = feeder.run() => {}
        () = app.tasks.draining() => {}
    }
}

struct Feeder {
    app: App,
    changes: watch::Receiver<i64>,
    pauses: watch::Receiver<()>,
    /// Whether there may be changes that were not told.
    more: bool,
    /// Not before.
    round_at: Instant,
    progress_at: Instant,
    /// Bytes that an event of the last round had.
    each: usize,
}

impl Feeder {
    async fn run(mut self) {
        loop {
            self.app.events().reader().await;
            // It may have changed while nobody listened.
            self.pauses.mark_changed();
            while self.app.events().readers() > 0 {
                self.step().await;
            }
        }
    }

    async fn step(&mut self) {
        tokio::select! {
            biased;
            // Its sender lives in what we hold.
            _ = self.pauses.changed() => {}
            () = sleep_until(self.progress_at) => return self.tell_progress().await,
            () = news(&mut self.changes, &mut self.more, self.round_at) => return self.round().await,
        }
        self.app.events().send(Message::Queue(render::queue(&self.app)));
    }

    /// Tells the next changes, and decides when those after them are told.
    async fn round(&mut self) {
        let told = match self.tell_changes().await {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(%error, "what changed cannot be told for now: {error}");
                self.more = true;
                self.round_at = Instant::now() + AFTER_ERROR;
                return;
            }
        };
        self.round_at = Instant::now() + pause(self.app.events().readers(), told);
    }

    /// How many bytes that were.
    async fn tell_changes(&mut self) -> Result<usize, StoreError> {
        let feed = self.app.events();
        let told = feed.lock().told;
        let most = most(feed.readers(), self.each);
        let Some(changes) = self.app.store.changes_after(told, most) else {
            // More changed than can be told at this rate: on from here.
            let last = self.app.store.last_change();
            feed.lock().told = last;
            feed.send(Message::Reset(last));
            return Ok(0);
        };
        self.more = changes.len() == most;
        let Some(last) = changes.last() else {
            return Ok(0);
        };
        let through = last.seq;
        let events = render::events(&self.app, &latest(&changes)).await?;
        let bytes: usize = events.iter().map(|event| event.text.len()).sum();
        self.each = bytes.checked_div(events.len()).unwrap_or(self.each);
        for message in messages(events, through) {
            feed.send(Message::Events(Arc::new(message)));
        }
        feed.lock().told = through;
        Ok(bytes)
    }

    async fn tell_progress(&mut self) {
        self.progress_at = Instant::now() + PROGRESS_EVERY;
        // It is told again in a second.
        let events = render::progress(&self.app).await.unwrap_or_default();
        if !events.is_empty() {
            for message in messages(events, 0) {
                self.app.events().send(Message::Events(Arc::new(message)));
            }
        }
    }
}

/// Resolves when there are changes, and it is time to tell them. Nothing is lost if it is dropped before.
async fn news(changes: &mut watch::Receiver<i64>, more: &mut bool, at: Instant) {
    if !*more {
        // Its sender lives in the store, which the feeder holds.
        let _ = changes.changed().await;
        *more = true;
    }
    sleep_until(at).await;
}

/// Changes that the next round may have, if an event has so many bytes.
fn most(readers: usize, each: usize) -> usize {
    let bytes = ROUND_BYTES / readers.max(1);
    (bytes / each.max(1)).clamp(LEAST_ROUND, ROUND)
}

/// How long nothing is told after so many bytes to so many readers.
fn pause(readers: usize, bytes: usize) -> Duration {
    let count = u32::try_from(readers).unwrap_or(u32::MAX);
    let for_readers = PAUSE_PER_READER.saturating_mul(count).min(LONGEST_FOR_READERS);
    let total = (readers as u64).saturating_mul(bytes as u64);
    let for_bytes = Duration::from_millis(total.saturating_mul(1000) / BYTES_PER_SECOND);
    PAUSE.max(for_readers).max(for_bytes)
}

/// Packs events, in which all changes up to one are told.
fn messages(events: Vec<Event>, through: i64) -> Vec<Events> {
    let mut packed = Vec::new();
    let (mut bytes, mut parts) = (BytesMut::new(), Vec::new());
    for event in events {
        if !parts.is_empty() && bytes.len() + event.text.len() > MESSAGE {
            packed.push(pack(&mut bytes, &mut parts, through));
        }
        let begin = bytes.len();
        bytes.extend_from_slice(event.text.as_bytes());
        parts.push(Part {
            id: event.id,
            source: event.source,
            task_id: event.task_id,
            range: begin..bytes.len(),
        });
    }
    let mut last = pack(&mut bytes, &mut parts, through);
    last.through = through;
    packed.push(last);
    packed
}

fn pack(bytes: &mut BytesMut, parts: &mut Vec<Part>, through: i64) -> Events {
    let parts = std::mem::take(parts);
    Events {
        bytes: bytes.split().freeze(),
        through: parts.last().and_then(|part| part.id).unwrap_or(0).min(through),
        parts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: i64, length: usize) -> Event {
        Event {
            id: Some(id),
            source: "kie".to_owned(),
            task_id: id.to_string(),
            text: "x".repeat(length),
        }
    }

    #[test]
    fn of_each_task_and_each_file_the_last_change_is_told() {
        let change = |seq, task, file| Change { seq, task, file };
        let changes = [
            change(1, 7, None),
            change(2, 8, None),
            change(3, 7, Some(70)),
            change(4, 7, None),
            change(5, 7, Some(71)),
        ];
        let told: Vec<i64> = latest(&changes).iter().map(|change| change.seq).collect();
        assert_eq!(told, [2, 3, 4, 5]);
    }

    #[test]
    fn messages_are_cut_between_events_and_say_how_far_they_lead() {
        let packed = messages(
            vec![
                event(3, MESSAGE - 1),
                event(5, 1),
                event(8, 2 * MESSAGE),
                event(9, 7),
            ],
            11,
        );
        let led: Vec<_> = packed
            .iter()
            .map(|events| (events.bytes.len(), events.through, events.parts.len()))
            .collect();
        assert_eq!(led, [(MESSAGE, 5, 2), (2 * MESSAGE, 8, 1), (7, 11, 1)]);
        assert_eq!(packed[0].parts[1].range, MESSAGE - 1..MESSAGE);
        let nothing = messages(Vec::new(), 12);
        assert_eq!(
            (nothing.len(), nothing[0].through),
            (1, 12),
            "what is gone counts"
        );
    }

    #[test]
    fn the_more_readers_and_bytes_the_longer_the_pause() {
        assert_eq!(pause(1, 1_000), PAUSE);
        assert_eq!(pause(200, 1_000), Duration::from_millis(400));
        assert_eq!(pause(100_000, 0), LONGEST_FOR_READERS);
        assert_eq!(pause(200, 1 << 20), Duration::from_millis(6_250));
        assert_eq!((most(1, 2_000), most(0, 0)), (ROUND, ROUND));
        assert_eq!((most(200, 2_000), most(200, 40_000)), (10, LEAST_ROUND));
    }
}
