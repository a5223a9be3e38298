//! Closing the gap to the provider's own record: whatever its callbacks left open is asked for.
//!
//! A callback is a hint, sent a few times and then never again; the provider's record is the truth. The store keeps what is
//! open (`store::asks`): tasks that are silent, callbacks that contradict each other or came too late, files that wait to be
//! confirmed or whose link expired. The [`Reconciler`] asks about each when it is due, has the answer recorded the way a
//! callback is, and asks again, later each time, until nothing is open or it is given up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::clock::{Clock, Millis, millis};
use crate::config::Live;
use crate::provider::{Event, Kind, family};
use crate::provider_api::{Answer, ApiError, Class, Family, ProviderApi};
use crate::shutdown::Tasks;
use crate::store::asks::{Ask, EVERY_4K, FreshLink, Note, Reason, Then};
use crate::store::record::{ProviderAnswer, Via};
use crate::store::{Store, StoreError};
use crate::worker;

mod pace;

use pace::Turns;

/// How long a fresh link opens, by the page of download-url.
const LINK_LIFETIME: Duration = Duration::from_mins(20);

/// When what came up while a question was under way is asked about.
const SOON: Duration = Duration::from_secs(1);

/// Questions under way at one time, of all sources.
const CONCURRENCY: usize = 16;

/// The providers that can be asked, by the source's name.
pub type Apis = BTreeMap<String, ProviderApi>;

/// How it asks.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The least time between two questions about the same.
    pub every: Duration,
    /// How long a question may stay open.
    pub give_up_after: Duration,
    /// Questions a second of each source.
    pub max_per_second: u32,
}

/// Asks the providers about what is open.
#[derive(Debug)]
pub struct Reconciler {
    store: Store,
    clock: Clock,
    tasks: Tasks,
    settings: Settings,
    apis: Live<Apis>,
    turns: Mutex<BTreeMap<String, Turns>>,
}

/// What came of a question.
enum Came {
    /// The answer is recorded, and nothing of what was asked is open any more.
    Answered,
    /// The provider answered, and knows no end yet. After long enough that is given up.
    Open(Note),
    /// There is no answer.
    Trouble {
        note: Note,
        /// What the provider asked to be left in peace for.
        not_before: Duration,
    },
    /// Nothing was sent, as the provider is left alone for so long.
    Unsent(Duration),
    /// Nobody can be asked this.
    Mute(Note),
    /// There never will be an answer.
    Never(Note),
}

impl Came {
    fn mute(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Mute(note(code, detail))
    }

    fn trouble(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Trouble {
            note: note(code, detail),
            not_before: Duration::ZERO,
        }
    }
}

impl From<ApiError> for Came {
    fn from(error: ApiError) -> Self {
        match error {
            // What is asked of a provider that is left alone was told by whoever found out.
            ApiError::Paused { retry_after, .. } | ApiError::Busy { retry_after } => {
                Self::Unsent(retry_after)
            }
            // Asking again could order, and cost, again.
            ApiError::Garbled { costs: true, .. } => Self::Never(note(error.code(), error.to_string())),
            error => Self::Trouble {
                note: note(error.code(), error.to_string()),
                not_before: error.retry_after().unwrap_or_default(),
            },
        }
    }
}

impl From<StoreError> for Came {
    fn from(error: StoreError) -> Self {
        Self::trouble(
            "not_recorded",
            format!("the answer could not be recorded: {error}"),
        )
    }
}

fn note(code: &'static str, detail: impl Into<String>) -> Note {
    Note {
        code,
        detail: detail.into(),
    }
}

impl Reconciler {
    /// Asks `apis`, which a reload may replace.
    pub fn new(store: Store, (clock, tasks): (Clock, Tasks), settings: Settings, apis: Live<Apis>) -> Self {
        Self {
            store,
            clock,
            tasks,
            settings,
            apis,
            turns: Mutex::default(),
        }
    }

    /// Asks until the soft stop.
    pub async fn run(self) {
        let (clock, tasks) = (self.clock.clone(), self.tasks.clone());
        worker::run(Arc::new(self), CONCURRENCY, clock, tasks).await;
    }

    /// The question of a source that is to be asked first and is not being asked.
    async fn first(&self, source: &str) -> Result<Option<Ask>, StoreError> {
        let under_way = self.with_turns(source, |turns| turns.under_way.clone());
        self.store.next_ask(source, &under_way, self.clock.now()).await
    }

    /// How long a source is left alone, whatever is due; `None` for until a turn ends.
    fn pause(&self, source: &str, api: &ProviderApi) -> Option<Duration> {
        // A trouble with one endpoint is found out by whoever wants that.
        let paused_until = api
            .pause()
            .filter(|pause| pause.endpoint.is_none())
            .map(|pause| pause.until);
        let left = paused_until.unwrap_or(0).saturating_sub(self.clock.now());
        let paused = Duration::from_millis(u64::try_from(left).unwrap_or(0));
        self.with_turns(source, |turns| {
            (!turns.is_full()).then(|| turns.pause().max(paused))
        })
    }

    /// A question that takes another request puts off the next question.
    fn count_request(&self, source: &str) {
        self.with_turns(source, |turns| turns.count(self.settings.max_per_second));
    }

    fn with_turns<T>(&self, source: &str, work: impl FnOnce(&mut Turns) -> T) -> T {
        let mut turns = self.turns.lock().expect("nothing panics while it holds the lock");
        work(turns.entry(source.to_owned()).or_insert_with(Turns::new))
    }

    async fn ask(&self, api: &ProviderApi, ask: &Ask) -> (Came, Option<Family>) {
        let is_upgrade = [Kind::four_k(), Kind::full_hd()].contains(&ask.about.kind);
        let (came, family) = if is_upgrade && ask.reason == Reason::NeedsUrl {
            (Came::Answered, None)
        } else {
            match self.question(api, ask).await {
                Ok((answer, family)) => (self.take(ask, answer).await, family),
                Err(came) => (came, None),
            }
        };
        // Whatever the record says or does not: a fresh link may be had.
        match self.refresh_links(api, ask).await {
            Ok(0) => (came, family),
            Ok(_) if ask.reason == Reason::NeedsUrl => (Came::Answered, family),
            Ok(_) => (came, family),
            Err(trouble) => (trouble, family),
        }
    }

    /// Puts the question that tells about the outcome; with the answer, which family the task turned out to be of.
    async fn question(&self, api: &ProviderApi, ask: &Ask) -> Result<(Answer, Option<Family>), Came> {
        let (task_id, index) = (&ask.task_id, ask.about.index);
        if ask.about.kind == Kind::full_hd() {
            return Ok((api.get_1080p_video(task_id, index).await?, None));
        }
        if ask.about.kind == Kind::four_k() && ask.family.as_deref() != Some(family::UPGRADE) {
            // The question is the order: where nobody ordered one, or it ended, it would cost.
            if !self.store.is_awaited(&ask.about).await? {
                return Err(Came::mute(
                    "not_ordered",
                    "asking for a 4K video that is not awaited might order another: announce it with POST /v1/tasks \
                     (kind 4k) if it was ordered, or settle it with `reelhook deliveries accept`",
                ));
            }
            return Ok((api.get_4k_video(task_id, index).await?, None));
        }
        match ask.family.as_deref() {
            Some(name) => {
                let family = family_of(name).ok_or_else(|| {
                    Came::mute(
                        "no_query",
                        format!(
                            "the provider cannot be asked about tasks of the family {name}{}",
                            way_out(ask)
                        ),
                    )
                })?;
                Ok((api.record(family, task_id).await?, None))
            }
            None => self.of_unknown_family(api, ask).await,
        }
    }

    /// Nobody told the family: the record that knows the task tells. An endpoint that is in trouble does not hide the other.
    async fn of_unknown_family(
        &self,
        api: &ProviderApi,
        ask: &Ask,
    ) -> Result<(Answer, Option<Family>), Came> {
        let mut trouble = None;
        let mut unknown = None;
        for family in [Family::Veo, Family::Market] {
            if family != Family::Veo {
                self.count_request(&ask.source);
            }
            match api.record(family, &ask.task_id).await {
                Ok(Answer::Unknown { msg, forever }) => {
                    let forever = forever && !matches!(unknown, Some(Answer::Unknown { forever: false, .. }));
                    unknown = Some(Answer::Unknown { msg, forever });
                }
                Ok(known) => return Ok((known, Some(family))),
                Err(error) => trouble = trouble.or(Some(error)),
            }
        }
        match (trouble, unknown) {
            (Some(error), _) => Err(error.into()),
            (None, unknown) => Ok((unknown.expect("two were asked"), None)),
        }
    }

    /// Acts on an answer.
    async fn take(&self, ask: &Ask, answer: Answer) -> Came {
        match answer {
            Answer::Ended { event, body, .. } => match self.record(ask, event, body).await {
                Ok(()) => Came::Answered,
                Err(error) => error.into(),
            },
            Answer::Running { msg, .. } => {
                let said = quoted(&msg);
                Came::Open(note("running", format!("the provider is still at it{said}")))
            }
            Answer::Unknown { msg, forever } => {
                let (said, way_out) = (quoted(&msg), way_out(ask));
                let note = note(
                    "unknown",
                    format!("the provider has no record of it{said}{way_out}"),
                );
                if forever {
                    Came::Never(note)
                } else {
                    Came::Open(note)
                }
            }
        }
    }

    /// Has a final answer recorded, the way a callback is.
    async fn record(&self, ask: &Ask, event: Event, body: Bytes) -> Result<(), StoreError> {
        let answer = ProviderAnswer {
            source: ask.source.clone(),
            via: Via::Poll,
            received_at: self.clock.now(),
            task_id: ask.task_id.clone(),
            kind: ask.about.kind.clone(),
            index: ask.about.index,
            event,
            body,
        };
        let recorded = self.store.record_delivery(answer.into()).await?;
        tracing::info!(
            source = ask.source,
            task.id = %ask.task_id,
            reason = ask.reason.as_str(),
            verdict = recorded.verdict.as_str(),
            queued = recorded.queued,
            "the provider told what became of task {}, asked because of: {}",
            ask.task_id,
            ask.reason.as_str()
        );
        if recorded.reason == Some("contradicts_stored") {
            tracing::warn!(
                source = ask.source,
                task.id = %ask.task_id,
                "the provider's record contradicts what is stored of task {}; the stored files stay",
                ask.task_id
            );
        }
        Ok(())
    }

    /// Gives every file whose link expired a fresh one, or has it wait no longer; how many there were.
    async fn refresh_links(&self, api: &ProviderApi, ask: &Ask) -> Result<usize, Came> {
        let links = self.store.dead_links(&ask.about).await?;
        for link in &links {
            self.count_request(&ask.source);
            let fresh = match api.download_url(&link.url).await {
                Ok(url) => FreshLink::Link {
                    url,
                    until: self.clock.now().saturating_add(millis(LINK_LIFETIME)),
                },
                // No other answer is to be had for this URL.
                Err(error) if error.class() == Class::Final => FreshLink::None,
                Err(error) => return Err(error.into()),
            };
            self.store.refresh_link(link, fresh).await?;
        }
        Ok(links.len())
    }

    /// When to ask again, if at all.
    fn then(&self, ask: &Ask, came: Came) -> Then {
        let now = self.clock.now();
        let age = Duration::from_millis(u64::try_from(now.saturating_sub(ask.since)).unwrap_or(0));
        let every = if ask.about.kind == Kind::four_k() {
            self.settings.every.max(EVERY_4K)
        } else {
            self.settings.every
        };
        let after = |wait: Duration| now.saturating_add(millis(wait));
        let wait = pace::wait(age, every);
        match came {
            // What is open now came up while the question was under way, unless that goes on.
            Came::Answered => Then::Answered {
                at: after(if ask.asks == 0 { every.min(SOON) } else { wait }),
                note: note("answered", "the provider answered"),
            },
            Came::Never(note) => Then::GivenUp { note },
            Came::Unsent(pause) => Then::Later {
                at: after(pause.max(SOON)),
            },
            Came::Mute(note) => Then::Again {
                at: after(pace::LONGEST),
                note,
            },
            Came::Open(note) if age >= self.settings.give_up_after => Then::GivenUp {
                note: Note {
                    code: "given_up",
                    detail: format!("asked for {}, in vain; at last: {}", days(age), note.detail),
                },
            },
            Came::Open(note) => Then::Again {
                at: after(wait),
                note,
            },
            Came::Trouble { note, not_before } => Then::Again {
                at: after(wait.max(not_before)),
                note,
            },
        }
    }

    async fn settle(&self, ask: &Ask, came: Came, family: Option<Family>) {
        if let Came::Trouble { note, .. } = &came {
            tracing::warn!(
                source = ask.source,
                task.id = %ask.task_id,
                code = note.code,
                "the provider could not be asked about task {}: {}",
                ask.task_id,
                note.detail
            );
        }
        let then = self.then(ask, came);
        if let Then::GivenUp { note } = &then {
            tracing::warn!(
                source = ask.source,
                task.id = %ask.task_id,
                code = note.code,
                "nobody is asked about task {} any more: {}",
                ask.task_id,
                note.detail
            );
        }
        if let Err(error) = self
            .store
            .note_answer(ask, then, family.map(Family::as_str))
            .await
        {
            tracing::error!(%error, task.id = %ask.task_id, "an answer could not be noted: {error}");
        }
    }
}

/// The family by the name that a task was announced with.
fn family_of(name: &str) -> Option<Family> {
    match name {
        family::EXTENSION | family::UPGRADE => Some(Family::Veo),
        name => name.parse().ok(),
    }
}

/// What a person can do about files that wait for an answer that may never come.
fn way_out(ask: &Ask) -> &'static str {
    if ask.reason == Reason::Held {
        "; `reelhook deliveries accept` has the files fetched all the same, and confirm = false those of later callbacks"
    } else {
        ""
    }
}

/// The provider's sentence, to be put behind ours.
fn quoted(msg: &str) -> String {
    if msg.is_empty() {
        String::new()
    } else {
        format!(" ({})", msg.trim_end_matches('.'))
    }
}

fn days(age: Duration) -> String {
    let hours = age.as_secs() / 3600;
    if hours < 48 {
        format!("{hours} hours")
    } else {
        format!("{} days", hours / 24)
    }
}

impl worker::Queue for Reconciler {
    type Job = Ask;
    type Error = StoreError;

    async fn claim(&self) -> Result<Option<Ask>, StoreError> {
        let now = self.clock.now();
        for (source, api) in self.apis.now().iter() {
            if self.pause(source, api) != Some(Duration::ZERO) {
                continue;
            }
            if let Some(ask) = self.first(source).await?.filter(|ask| ask.ask_at <= now) {
                let about = ask.about.clone();
                self.with_turns(source, |turns| turns.take(about, self.settings.max_per_second));
                return Ok(Some(ask));
            }
        }
        Ok(None)
    }

    async fn next_due(&self) -> Result<Option<Millis>, StoreError> {
        let now = self.clock.now();
        let mut next: Option<Millis> = None;
        for (source, api) in self.apis.now().iter() {
            let Some(pause) = self.pause(source, api) else {
                continue;
            };
            if let Some(ask) = self.first(source).await? {
                // Rounded up: a moment too early, nothing may be claimed yet.
                let pause = millis(pause.saturating_add(Duration::from_nanos(999_999)));
                let due = ask.ask_at.max(now.saturating_add(pause));
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        Ok(next)
    }

    async fn bring_forward(&self, by: Duration) -> Result<(), StoreError> {
        self.store.bring_asks_forward(by).await
    }

    fn ring(&self) -> &Notify {
        self.store.asks_due()
    }

    async fn carry_out(&self, ask: Ask) {
        let api = self.apis.now().get(&ask.source).cloned();
        if let Some(api) = api {
            tokio::select! {
                (came, family) = self.ask(&api, &ask) => self.settle(&ask, came, family).await,
                // Asked again after the next start.
                () = self.tasks.draining() => {}
            }
        }
        self.with_turns(&ask.source, |turns| turns.give_back(&ask.about));
    }

    async fn after_panic(&self, ask: Ask) {
        let came = Came::trouble(
            "internal",
            "the answer made this program stumble; please report it",
        );
        self.settle(&ask, came, None).await;
        self.with_turns(&ask.source, |turns| turns.give_back(&ask.about));
    }
}
