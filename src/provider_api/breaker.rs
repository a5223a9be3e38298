//! When the provider is left alone: after answers that asking again would only repeat, and while nobody answers at all.
//!
//! A pause refuses requests without sending them. Once it is over, one request goes out to see, and only its success ends
//! the trouble for all; so whoever asks in a loop causes one request per pause.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::error::{ApiError, Class};
use crate::clock::{Clock, Millis, millis};
use crate::retry::Backoff;

/// So many failures in a row, with nobody answering, open a pause.
const MANY: u32 = 5;
/// How long one request may go out to see before another one does.
const PROBE: Duration = Duration::from_secs(5);
/// How long a pause that is over is still told of, unless a success ended the trouble.
const LINGER: Duration = Duration::from_mins(1);
/// Most pauses of endpoints at one time.
const MOST_PAUSES: usize = 32;

/// What the limits of the provider tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Costs nothing and may be asked twice.
    Query,
    /// May cost credits.
    Submission,
}

/// What a request is, as far as pauses go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Errand<'a> {
    pub(super) lane: Lane,
    pub(super) path: &'a str,
}

/// Why the provider, or one of its endpoints, is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// What the trouble is.
    pub class: Class,
    /// Its stable word, as of [`ApiError::code`].
    pub code: &'static str,
    /// One sentence.
    pub detail: String,
    /// The one endpoint it is about; `None` if it is about all.
    pub endpoint: Option<String>,
    /// Since when.
    pub since: Millis,
    /// When a request will go out to see whether it is over. May be past, as somebody has to want to know.
    pub until: Millis,
}

/// The pauses of one provider.
#[derive(Debug)]
pub(super) struct Breaker {
    host: String,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: Vec<Held>,
    /// Failures in a row with nobody answering.
    unanswered: u32,
}

#[derive(Debug)]
struct Held {
    class: Class,
    code: &'static str,
    detail: String,
    lane: Lane,
    path: String,
    since: Millis,
    /// What was sent before this moment knows nothing of the pause, and its end changes nothing.
    opened: Instant,
    until: Instant,
    /// How often in a row.
    times: u32,
}

impl Held {
    /// Whether it is about one endpoint: another one may be fine, and another model costs less.
    fn is_of_one_endpoint(&self) -> bool {
        matches!(self.class, Class::Credits | Class::Maintenance)
    }

    fn blocks(&self, errand: Errand<'_>) -> bool {
        !self.is_of_one_endpoint() || self.path == errand.path
    }

    /// Whether this errand can show that the trouble is over.
    fn is_shown_by(&self, errand: Errand<'_>) -> bool {
        match self.class {
            // Submissions have a limit of their own.
            Class::Wait => self.lane == errand.lane,
            _ => self.blocks(errand),
        }
    }

    fn refusal(&self, now: Instant) -> ApiError {
        ApiError::Paused {
            class: self.class,
            code: self.code,
            detail: self.detail.clone(),
            retry_after: self.until - now,
        }
    }
}

impl Breaker {
    pub(super) fn new(host: String, clock: Clock) -> Self {
        Self {
            host,
            clock,
            state: Mutex::default(),
        }
    }

    /// Refuses an errand that a pause forbids.
    pub(super) fn check(&self, errand: Errand<'_>, now: Instant) -> Result<(), ApiError> {
        self.lock().check(errand, now)
    }

    /// Lets an errand go out, as the one that goes to see if a pause has just ended.
    pub(super) fn enter(&self, errand: Errand<'_>, now: Instant) -> Result<(), ApiError> {
        let mut state = self.lock();
        state.check(errand, now)?;
        for held in state.held.iter_mut().filter(|held| held.is_shown_by(errand)) {
            held.until = now + PROBE;
        }
        Ok(())
    }

    /// An errand that went out at `entered` came back well.
    pub(super) fn succeeded(&self, errand: Errand<'_>, entered: Instant) {
        self.end(errand, entered, |_| true);
    }

    /// An errand that went out at `entered` came back `now` with an error; how long the provider is left alone for it.
    pub(super) fn failed(
        &self,
        errand: Errand<'_>,
        (entered, now): (Instant, Instant),
        error: &ApiError,
    ) -> Option<Duration> {
        match error {
            ApiError::Unreachable { .. } | ApiError::Slow { .. } | ApiError::Gateway { .. } => {
                let mut state = self.lock();
                state.unanswered = state.unanswered.saturating_add(1);
                if state.unanswered < MANY {
                    return None;
                }
            }
            ApiError::Said { class, .. } => {
                // It answers, whatever it says; and what it says of a question it has looked at.
                self.end(errand, entered, |trouble| {
                    trouble == Class::Retry || *class == Class::Final
                });
                if matches!(class, Class::Retry | Class::Final) {
                    return None;
                }
            }
            _ => return None,
        }
        Some(self.hold(errand, (entered, now), error))
    }

    /// Ends the pauses of some classes that an errand, which went out at `entered`, has shown to be over.
    fn end(&self, errand: Errand<'_>, entered: Instant, which: impl Fn(Class) -> bool) {
        let mut state = self.lock();
        state.unanswered = 0;
        let is_over =
            |held: &mut Held| which(held.class) && held.is_shown_by(errand) && held.opened <= entered;
        for over in state.held.extract_if(.., is_over) {
            tracing::info!(
                provider = self.host,
                reason = over.code,
                "the provider is asked again"
            );
        }
    }

    /// The pause that matters most to a person, if there is any.
    pub(super) fn pause(&self, now: Instant) -> Option<Pause> {
        let today = self.clock.now();
        let state = self.lock();
        let told = state.held.iter().filter(|held| held.until + LINGER > now);
        let worst = told.max_by_key(|held| (!held.is_of_one_endpoint(), held.until))?;
        let until = match worst.until.checked_duration_since(now) {
            Some(ahead) => today + millis(ahead),
            None => today - millis(now - worst.until),
        };
        Some(Pause {
            class: worst.class,
            code: worst.code,
            detail: worst.detail.clone(),
            endpoint: worst.is_of_one_endpoint().then(|| worst.path.clone()),
            since: worst.since,
            until,
        })
    }

    fn hold(&self, errand: Errand<'_>, (entered, now): (Instant, Instant), error: &ApiError) -> Duration {
        let asked = error.retry_after().unwrap_or_default();
        let mut state = self.lock();
        let known = state
            .held
            .iter_mut()
            .find(|held| held.class == error.class() && held.is_shown_by(errand));
        if let Some(held) = known {
            if held.opened <= entered {
                held.times = held.times.saturating_add(1);
                held.opened = now;
                held.until = now + length(held.class, errand.lane, held.times).max(asked);
                held.detail = error.to_string();
            } else {
                // Sent before the pause began: one cause, one step.
                held.until = held.until.max(now + asked);
            }
            return held.until - now;
        }
        let length = length(error.class(), errand.lane, 1).max(asked);
        let detail = error.to_string();
        tracing::warn!(
            provider = self.host,
            reason = error.code(),
            "the provider is left alone for {} ms: {detail}",
            length.as_millis()
        );
        state.add(Held {
            class: error.class(),
            code: error.code(),
            detail,
            lane: errand.lane,
            path: errand.path.to_owned(),
            since: self.clock.now(),
            opened: now,
            until: now + length,
            times: 1,
        });
        length
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self, errand: Errand<'_>, now: Instant) -> Result<(), ApiError> {
        let blocking = self
            .held
            .iter()
            .filter(|held| held.until > now && held.blocks(errand));
        let longest = blocking.max_by_key(|held| held.until);
        longest.map_or(Ok(()), |held| Err(held.refusal(now)))
    }

    fn add(&mut self, held: Held) {
        if self.held.len() >= MOST_PAUSES {
            let first = (0..self.held.len()).min_by_key(|at| self.held[*at].until);
            first.map(|at| self.held.swap_remove(at));
        }
        self.held.push(held);
    }
}

/// How long the provider is left alone after so many failures of a class in a row: a bound that doubles, and up to a quarter
/// more, so that several of us do not come back together.
fn length(class: Class, lane: Lane, times: u32) -> Duration {
    let (first, most) = match (class, lane) {
        (Class::Auth, _) => (Duration::from_mins(1), Duration::from_mins(1)),
        // A person may have another model in mind, or has just topped up.
        (Class::Credits | Class::Maintenance, Lane::Submission) => {
            (Duration::from_secs(5), Duration::from_secs(5))
        }
        (Class::Credits | Class::Maintenance, Lane::Query) => {
            (Duration::from_secs(10), Duration::from_mins(5))
        }
        (Class::Retry, _) => (Duration::from_secs(2), Duration::from_mins(1)),
        (Class::Wait | Class::Final, _) => (Duration::from_secs(1), Duration::from_mins(1)),
    };
    let doubled = 2_u32.saturating_pow(times.saturating_sub(1));
    let bound = first.saturating_mul(doubled).min(most);
    let quarter = Backoff {
        base: bound / 4,
        cap: bound / 4,
    };
    bound + quarter.random_delay(1)
}

#[cfg(test)]
mod tests {
    use super::super::answer::said;
    use super::*;

    const RECORD: Errand<'_> = Errand {
        lane: Lane::Query,
        path: "veo/record-info",
    };
    const LINK: Errand<'_> = Errand {
        lane: Lane::Query,
        path: "common/download-url",
    };
    const ORDER: Errand<'_> = Errand {
        lane: Lane::Submission,
        path: "veo/generate",
    };

    /// A breaker with a watch of its own.
    struct Scene {
        breaker: Breaker,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                breaker: Breaker::new("api.example".to_owned(), Clock::manual(1_000_000)),
                now: Instant::now(),
            }
        }

        fn advance(&mut self, by: Duration) {
            self.now += by;
        }

        fn enter(&self, errand: Errand<'_>) -> Instant {
            self.breaker.enter(errand, self.now).unwrap();
            self.now
        }

        /// Sends an errand that comes back at once with this code.
        fn fail(&self, errand: Errand<'_>, code: i64) -> Option<Duration> {
            let entered = self.enter(errand);
            self.meet(errand, entered, &said(code, "no".to_owned(), None))
        }

        fn meet(&self, errand: Errand<'_>, entered: Instant, error: &ApiError) -> Option<Duration> {
            self.breaker.failed(errand, (entered, self.now), error)
        }

        fn is_free(&self, errand: Errand<'_>) -> bool {
            self.breaker.check(errand, self.now).is_ok()
        }
    }

    #[test]
    fn a_refused_key_stops_everything_and_is_tried_once_a_minute() {
        let mut scene = Scene::new();
        let mut sent = 0;
        let end = scene.now + Duration::from_mins(10);
        while scene.now < end {
            for errand in [RECORD, LINK, ORDER] {
                if scene.is_free(errand) {
                    scene.fail(errand, 401);
                    sent += 1;
                }
            }
            scene.advance(Duration::from_millis(100));
        }
        assert!((8..=10).contains(&sent), "{sent} requests in ten minutes");
    }

    #[test]
    fn one_request_goes_to_see_and_its_success_frees_all() {
        let mut scene = Scene::new();
        let length = scene.fail(RECORD, 401).unwrap();
        scene.advance(length);
        let entered = scene.enter(RECORD);
        assert!(!scene.is_free(RECORD) && !scene.is_free(ORDER));
        scene.breaker.succeeded(RECORD, entered);
        assert!(scene.is_free(RECORD) && scene.is_free(ORDER));
        assert_eq!(scene.breaker.pause(scene.now), None);
    }

    #[test]
    fn a_probe_that_never_comes_back_is_followed_by_another() {
        let mut scene = Scene::new();
        let length = scene.fail(RECORD, 401).unwrap();
        scene.advance(length);
        scene.enter(RECORD);
        assert!(!scene.is_free(RECORD));
        scene.advance(PROBE);
        assert!(scene.is_free(RECORD));
    }

    #[test]
    fn pauses_for_too_many_requests_grow_and_honour_what_was_asked_for() {
        let mut scene = Scene::new();
        let mut last = Duration::ZERO;
        for _ in 0..6 {
            let length = scene.fail(RECORD, 429).unwrap();
            assert!(length > last, "{length:?} after {last:?}");
            assert!(!scene.is_free(LINK) && !scene.is_free(ORDER));
            last = length;
            scene.advance(length);
        }
        let patience = Duration::from_mins(10);
        let entered = scene.enter(RECORD);
        let error = said(429, String::new(), Some(patience));
        assert_eq!(scene.meet(RECORD, entered, &error), Some(patience));
    }

    #[test]
    fn many_failures_of_one_moment_are_one_step() {
        let mut scene = Scene::new();
        let entered: Vec<Instant> = (0..50).map(|_| scene.enter(RECORD)).collect();
        scene.advance(Duration::from_millis(10));
        for entered in entered {
            let length = scene.meet(RECORD, entered, &said(429, String::new(), None));
            assert!(length.unwrap() < Duration::from_secs(2), "{length:?}");
        }
    }

    #[test]
    fn a_success_from_before_ends_no_pause() {
        let mut scene = Scene::new();
        let early = scene.enter(RECORD);
        scene.advance(Duration::from_millis(1));
        scene.fail(RECORD, 429);
        scene.breaker.succeeded(RECORD, early);
        assert!(!scene.is_free(RECORD));
    }

    #[test]
    fn a_question_does_not_end_the_pause_of_submissions_nor_wait_for_their_probe() {
        let mut scene = Scene::new();
        let first = scene.fail(ORDER, 429).unwrap();
        scene.advance(first);
        let entered = scene.enter(RECORD);
        assert!(scene.is_free(RECORD) && scene.is_free(ORDER));
        scene.breaker.succeeded(RECORD, entered);
        assert!(scene.fail(ORDER, 429).unwrap() > first);
    }

    #[test]
    fn trouble_of_one_endpoint_leaves_the_others_alone() {
        for code in [402, 433, 455, 505] {
            let scene = Scene::new();
            scene.fail(LINK, code);
            assert!(!scene.is_free(LINK));
            assert!(scene.is_free(RECORD) && scene.is_free(ORDER));
            let pause = scene.breaker.pause(scene.now).unwrap();
            assert_eq!(pause.endpoint.as_deref(), Some(LINK.path));
        }
    }

    #[test]
    fn silence_opens_a_pause_and_an_error_of_one_task_does_not() {
        let scene = Scene::new();
        let gone = ApiError::Unreachable {
            host: "api.example".to_owned(),
            detail: "no such name".to_owned(),
            sent: false,
        };
        for _ in 0..2 * MANY {
            assert_eq!(scene.fail(RECORD, 500), None);
        }
        for n in 1..=MANY {
            let entered = scene.enter(RECORD);
            assert_eq!(scene.meet(RECORD, entered, &gone).is_some(), n == MANY);
        }
        let refused = scene.breaker.check(ORDER, scene.now).unwrap_err();
        assert_eq!(refused.class(), Class::Retry);
        assert!(!refused.may_have_arrived() && refused.retry_after().is_some());
    }

    #[test]
    fn an_answer_ends_the_silence() {
        let mut scene = Scene::new();
        let slow = ApiError::Slow {
            host: "api.example".to_owned(),
        };
        for n in 0..5 * MANY {
            let entered = scene.enter(RECORD);
            assert_eq!(scene.meet(RECORD, entered, &slow), None);
            match n % 3 {
                0 => scene.breaker.succeeded(LINK, entered),
                1 => assert_eq!(scene.fail(LINK, 422), None),
                _ => assert_eq!(scene.fail(LINK, 500), None),
            }
        }
        while scene.is_free(RECORD) {
            scene.meet(RECORD, scene.enter(RECORD), &slow);
        }
        scene.advance(2 * PROBE);
        assert_eq!(scene.fail(RECORD, 500), None);
        assert!(scene.is_free(RECORD) && scene.is_free(ORDER));
    }

    #[test]
    fn a_pause_is_told_of_until_a_while_after_its_end() {
        let mut scene = Scene::new();
        assert_eq!(scene.breaker.pause(scene.now), None);
        scene.fail(LINK, 455);
        let length = scene.fail(RECORD, 401).unwrap();
        let pause = scene.breaker.pause(scene.now).unwrap();
        assert_eq!((pause.class, pause.code), (Class::Auth, "unauthorized"));
        assert_eq!((pause.endpoint, pause.since), (None, 1_000_000));
        assert_eq!(pause.until, 1_000_000 + millis(length));
        assert!(pause.detail.contains("api_key"), "{}", pause.detail);
        scene.advance(length + Duration::from_secs(10));
        assert!(scene.breaker.pause(scene.now).unwrap().until < 1_000_000);
        scene.advance(LINGER);
        assert_eq!(scene.breaker.pause(scene.now), None);
    }

    #[test]
    fn the_number_of_pauses_is_bounded() {
        let scene = Scene::new();
        for n in 0..1_000 {
            let path = format!("any/{n}");
            let lane = Lane::Query;
            scene.fail(Errand { lane, path: &path }, 455);
        }
        assert_eq!(scene.breaker.lock().held.len(), MOST_PAUSES);
    }
}
