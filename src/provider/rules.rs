//! The state rules: what a delivery changes, given what is known of its outcome.
//!
//! The signature does not cover the body, so a delivery is a claim, not a fact. These rules decide, per
//! `(source, task, kind, index)`, which claims are believed: the first success stands, a failure may still be
//! followed by a success, and whatever contradicts a success is kept for a person (or the provider's own record)
//! to settle. Nothing here reads a clock or a database.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Event, Media, OutcomeClass};

/// What we believe of a task or of one of its outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not finished, as far as we know.
    Pending,
    /// Finished with a result.
    Succeeded,
    /// Finished without one.
    Failed,
}

impl State {
    /// The word in JSON and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing more is awaited.
    pub fn is_terminal(self) -> bool {
        self != Self::Pending
    }
}

impl From<OutcomeClass> for State {
    fn from(class: OutcomeClass) -> Self {
        match class {
            OutcomeClass::Progress => Self::Pending,
            OutcomeClass::Failure => Self::Failed,
            OutcomeClass::Success => Self::Succeeded,
        }
    }
}

/// What makes two deliveries *equal*: the outcome class and the list of (role, n, URL).
pub type Digest = [u8; 32];

/// The digest of an event under [`Digest`]'s rule; messages, credits and times do not enter it.
pub fn digest(class: OutcomeClass, media: &[Media]) -> Digest {
    let mut hash = Sha256::new();
    hash.update([class as u8]);
    for file in media {
        hash.update(file.role.as_str());
        hash.update(file.n.to_le_bytes());
        // Lengths keep neighbours apart: no two lists share an encoding.
        hash.update((file.url.len() as u64).to_le_bytes());
        hash.update(&file.url);
    }
    hash.finalize().into()
}

/// What is known of an outcome before a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What we believe.
    pub state: State,
    /// What the delivery it stands on said.
    pub digest: Digest,
    /// Whether any file was announced.
    pub has_media: bool,
    /// Whether any of its files is stored.
    pub has_stored: bool,
}

/// A delivery as the rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Progress, failure or success.
    pub class: OutcomeClass,
    /// Of the whole claim.
    pub digest: Digest,
    /// Whether any file is announced.
    pub has_media: bool,
}

impl From<&Event> for Claim {
    fn from(event: &Event) -> Self {
        Self {
            class: event.class,
            digest: digest(event.class, &event.media),
            has_media: !event.media.is_empty(),
        }
    }
}

/// Whose word a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// A callback: anybody who saw one signature may have written it.
    Callback,
    /// The provider's own answer to our question.
    Provider,
    /// A person who settled a conflict in favour of the delivery.
    Person,
}

/// What a delivery turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It told something.
    Accepted,
    /// It told what was known, or less.
    Duplicate,
    /// It contradicts what is believed; nothing is fetched for it.
    Conflict,
    /// It was refused before the rules saw it.
    Rejected,
}

impl Verdict {
    /// The word in JSON and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
            Self::Rejected => "rejected",
        }
    }
}

/// What a delivery changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing but its own record.
    Keep,
    /// The newest message, code and failure replace the older ones.
    RefreshText,
    /// The outcome becomes what the delivery says and its files are queued.
    Adopt,
    /// As `Adopt` over an outcome that had files: those not stored yet may get other URLs, others may be added,
    /// stored ones stay.
    Overrule,
}

/// The rules' answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruling {
    /// What the delivery is.
    pub verdict: Verdict,
    /// What it changes.
    pub effect: Effect,
    /// Whether open conflicts of the outcome are settled by it.
    pub settles: bool,
    /// Whether the provider itself contradicts what is already stored: worth a flag, never an undoing.
    pub contradicts_stored: bool,
}

impl Ruling {
    const fn plain(verdict: Verdict, effect: Effect) -> Self {
        Self {
            verdict,
            effect,
            settles: false,
            contradicts_stored: false,
        }
    }
}

/// Decides what `claim` changes. `None` stands for an outcome never heard of.
pub fn rule(standing: Option<&Standing>, claim: &Claim, authority: Authority) -> Ruling {
    match authority {
        Authority::Callback => rule_callback(standing, claim),
        Authority::Provider => rule_provider(standing, claim),
        Authority::Person => Ruling {
            settles: true,
            ..Ruling::plain(Verdict::Accepted, Effect::Overrule)
        },
    }
}

fn rule_callback(standing: Option<&Standing>, claim: &Claim) -> Ruling {
    use OutcomeClass::{Failure, Progress, Success};
    let Some(standing) = standing else {
        return Ruling::plain(Verdict::Accepted, Effect::Adopt);
    };
    match (standing.state, claim.class) {
        // Suno's stages: each tells something, none changes more than the text.
        (State::Pending, Progress) => Ruling::plain(Verdict::Accepted, Effect::RefreshText),
        (State::Pending, _) | (State::Failed, Success) => Ruling::plain(Verdict::Accepted, Effect::Adopt),
        (State::Failed | State::Succeeded, Progress) => Ruling::plain(Verdict::Duplicate, Effect::Keep),
        (State::Failed, Failure) => Ruling::plain(Verdict::Duplicate, Effect::RefreshText),
        (State::Succeeded, Success) if claim.digest == standing.digest => {
            Ruling::plain(Verdict::Duplicate, Effect::Keep)
        }
        (State::Succeeded, Success) if !standing.has_media => Ruling::plain(Verdict::Accepted, Effect::Adopt),
        (State::Succeeded, Success | Failure) => Ruling::plain(Verdict::Conflict, Effect::Keep),
    }
}

/// The provider's own word is never a conflict, settles the open ones, and never undoes a stored file.
fn rule_provider(standing: Option<&Standing>, claim: &Claim) -> Ruling {
    let by_callback = rule_callback(standing, claim);
    if claim.class == OutcomeClass::Progress {
        return by_callback;
    }
    if by_callback.verdict != Verdict::Conflict {
        return Ruling {
            settles: true,
            ..by_callback
        };
    }
    let stored = standing.is_some_and(|standing| standing.has_stored);
    let undoing = stored && claim.class == OutcomeClass::Failure;
    Ruling {
        verdict: Verdict::Accepted,
        effect: if undoing { Effect::Keep } else { Effect::Overrule },
        settles: true,
        contradicts_stored: stored,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::Role;
    use super::*;

    fn media(urls: &[&str]) -> Vec<Media> {
        (0u32..)
            .zip(urls)
            .map(|(n, url)| Media {
                role: Role::Result,
                n,
                url: (*url).to_owned(),
                lifetime: Duration::from_secs(1),
                fault: None,
            })
            .collect()
    }

    fn claim(class: OutcomeClass, urls: &[&str]) -> Claim {
        Claim {
            class,
            digest: digest(class, &media(urls)),
            has_media: !urls.is_empty(),
        }
    }

    fn apply(standing: Option<Standing>, claim: &Claim, ruling: Ruling) -> Option<Standing> {
        match ruling.effect {
            Effect::Keep | Effect::RefreshText => standing,
            Effect::Adopt | Effect::Overrule => Some(Standing {
                state: claim.class.into(),
                digest: claim.digest,
                has_media: claim.has_media,
                has_stored: false,
            }),
        }
    }

    /// The table of the design, cell by cell: an independent statement of the same rules.
    fn reference(now: &str, incoming: &str, equal: bool) -> (&'static str, &'static str) {
        match (now, incoming) {
            ("nothing" | "pending", "progress") => ("accepted", "pending"),
            ("nothing" | "pending", "failure") => ("accepted", "failed"),
            ("nothing" | "pending" | "failed", "bare success") => ("accepted", "bare"),
            ("nothing" | "pending" | "failed" | "bare", "success") => ("accepted", "succeeded"),
            ("failed", _) => ("duplicate", "failed"),
            ("bare", "failure") => ("conflict", "bare"),
            ("bare", _) => ("duplicate", "bare"),
            ("succeeded", "progress") => ("duplicate", "succeeded"),
            ("succeeded", "success") if equal => ("duplicate", "succeeded"),
            ("succeeded", _) => ("conflict", "succeeded"),
            other => unreachable!("{other:?}"),
        }
    }

    fn name(standing: Option<&Standing>) -> &'static str {
        match standing {
            None => "nothing",
            Some(s) if s.state == State::Succeeded && !s.has_media => "bare",
            Some(s) => s.state.as_str(),
        }
    }

    proptest! {
        #[test]
        fn every_order_of_callbacks_follows_the_table(incoming in prop::collection::vec(0usize..5, 0..12)) {
            let kinds: [(&str, OutcomeClass, &[&str]); 5] = [
                ("progress", OutcomeClass::Progress, &[]),
                ("failure", OutcomeClass::Failure, &[]),
                ("bare success", OutcomeClass::Success, &[]),
                ("success", OutcomeClass::Success, &["https://a/1.mp4"]),
                ("success", OutcomeClass::Success, &["https://a/2.mp4"]),
            ];
            let mut standing: Option<Standing> = None;
            for choice in incoming {
                let (word, class, urls) = kinds[choice];
                let claim = claim(class, urls);
                let equal = standing.is_some_and(|s| s.digest == claim.digest);
                let (verdict, state) = reference(name(standing.as_ref()), word, equal);
                let ruling = rule(standing.as_ref(), &claim, Authority::Callback);
                prop_assert_eq!(ruling.verdict.as_str(), verdict);
                standing = apply(standing, &claim, ruling);
                prop_assert_eq!(name(standing.as_ref()), state);
            }
        }

        #[test]
        fn the_providers_word_is_never_a_conflict_and_never_undoes_a_stored_file(
            state in 0usize..3, has_media: bool, has_stored: bool, class in 0usize..3, same: bool
        ) {
            let standing = Standing {
                state: [State::Pending, State::Failed, State::Succeeded][state],
                digest: digest(OutcomeClass::Success, &media(&["https://a/1.mp4"])),
                has_media: has_media || has_stored,
                has_stored,
            };
            let class = [OutcomeClass::Progress, OutcomeClass::Failure, OutcomeClass::Success][class];
            let claim = claim(class, if same { &["https://a/1.mp4"] } else { &["https://a/2.mp4"] });
            let ruling = rule(Some(&standing), &claim, Authority::Provider);
            prop_assert_ne!(ruling.verdict, Verdict::Conflict);
            if standing.state == State::Succeeded && has_stored && class == OutcomeClass::Failure {
                prop_assert_eq!(ruling.effect, Effect::Keep);
                prop_assert!(ruling.contradicts_stored);
            }
        }
    }

    #[test]
    fn a_person_overrules_whatever_stands() {
        let standing = Standing {
            state: State::Succeeded,
            digest: [0; 32],
            has_media: true,
            has_stored: true,
        };
        let ruling = rule(
            Some(&standing),
            &claim(OutcomeClass::Failure, &[]),
            Authority::Person,
        );
        assert_eq!(
            (ruling.verdict, ruling.effect, ruling.settles),
            (Verdict::Accepted, Effect::Overrule, true)
        );
    }

    #[test]
    fn lists_that_only_join_alike_are_not_equal() {
        let one = digest(OutcomeClass::Success, &media(&["https://a/1", "https://a/2"]));
        let other = digest(OutcomeClass::Success, &media(&["https://a/1https://a/2"]));
        assert_ne!(one, other);
    }
}
