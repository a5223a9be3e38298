//! Why the provider's API gave no answer that can be used, sorted by what the asker does next.

use std::time::Duration;

/// What the asker does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Ask again later: the provider, the way to it, or something before it is not well.
    Retry,
    /// Ask again no sooner than [`ApiError::retry_after`]: there were too many questions.
    Wait,
    /// Asking the same again will not help.
    Final,
    /// The key was not accepted; a person has to change it.
    Auth,
    /// No credits are left, or the key's limit is reached; a person has to see to it.
    Credits,
    /// The provider is being maintained, or has switched this off.
    Maintenance,
}

impl Class {
    /// The stable word for it in answers, records and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Retry => "provider_unreachable",
            Self::Wait => "rate_limited",
            Self::Final => "refused",
            Self::Auth => "unauthorized",
            Self::Credits => "no_credits",
            Self::Maintenance => "maintenance",
        }
    }

    /// What a code of the provider means by its tables of them; `None` for a success, which is 200 alone.
    pub(super) fn of(code: i64) -> Option<Self> {
        Some(match code {
            200 => return None,
            401 | 403 => Self::Auth,
            402 | 433 => Self::Credits,
            429 => Self::Wait,
            455 | 505 => Self::Maintenance,
            408 | 500..=599 => Self::Retry,
            _ => Self::Final,
        })
    }
}

/// Why there is no answer. Each is one sentence for people, without secrets, addresses of files or line breaks.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ApiError {
    /// The client cannot be set up from its settings.
    #[error("the provider's API cannot be asked: {detail}")]
    Setup {
        /// What is wrong, and what to change.
        detail: String,
    },
    /// The request is none that may be sent.
    #[error("the request was not sent: {detail}")]
    Unfit {
        /// What is wrong with it.
        detail: &'static str,
    },
    /// No connection, or one that broke before the end of the answer.
    #[error("{host} {}: {detail}; it will be asked again", if *sent { "broke off" } else { "cannot be reached" })]
    Unreachable {
        /// The API's host.
        host: String,
        /// As the system put it.
        detail: String,
        /// Whether any of the request may have gone out.
        sent: bool,
    },
    /// The request went out, and no answer came in time.
    #[error("{host} did not answer in time; it will be asked again")]
    Slow {
        /// The API's host.
        host: String,
    },
    /// Something before the API answered, in a language of its own.
    #[error(
        "the provider's gateway answered with {what} ({status}), not as its API does; if this lasts, check the \
         source's api_url"
    )]
    Gateway {
        /// The HTTP status.
        status: u16,
        /// What came instead of an answer.
        what: &'static str,
    },
    /// An answer of the API that cannot be right.
    #[error("the provider's answer cannot be used: {detail}")]
    Garbled {
        /// What is wrong with it.
        detail: &'static str,
        /// Whether asking again could spend credits again.
        costs: bool,
    },
    /// The API's own no.
    #[error("the provider answered {code}{}{}", said(msg), advice(*class))]
    Said {
        /// The body code, else the HTTP status.
        code: i64,
        /// What it means here.
        class: Class,
        /// The provider's sentence.
        msg: String,
        /// How long this API is left alone now, if it is.
        retry_after: Option<Duration>,
    },
    /// Nothing was sent: an earlier answer, which the API is being left alone for, stands.
    #[error("the provider is left alone for {}: {detail}", seconds(*retry_after))]
    Paused {
        /// What the earlier answer meant.
        class: Class,
        /// Its code.
        code: &'static str,
        /// Its sentence.
        detail: String,
        /// How much longer.
        retry_after: Duration,
    },
    /// Nothing was sent: too many others are waiting for their turn.
    #[error("too many requests to the provider are waiting; ask again in {}", seconds(*retry_after))]
    Busy {
        /// When there may be room.
        retry_after: Duration,
    },
}

impl ApiError {
    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Setup { .. } | Self::Unfit { .. } | Self::Garbled { costs: true, .. } => Class::Final,
            Self::Unreachable { .. } | Self::Slow { .. } | Self::Gateway { .. } | Self::Garbled { .. } => {
                Class::Retry
            }
            Self::Said { class, .. } | Self::Paused { class, .. } => *class,
            Self::Busy { .. } => Class::Wait,
        }
    }

    /// The stable word for it: that of the class, or a closer one.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Setup { .. } => "provider_setup",
            Self::Slow { .. } => "provider_slow",
            Self::Gateway { .. } => "provider_gateway",
            Self::Garbled { .. } => "provider_garbled",
            Self::Said { code: 404, .. } => "not_found",
            Self::Said { code: 433, .. } => "key_limit",
            Self::Said { code: 505, .. } => "disabled",
            Self::Said {
                class: Class::Retry, ..
            } => "provider_failed",
            Self::Paused { code, .. } => code,
            Self::Unfit { .. } | Self::Unreachable { .. } | Self::Said { .. } | Self::Busy { .. } => {
                self.class().code()
            }
        }
    }

    /// How long to wait at least before asking again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Said { retry_after, .. } => *retry_after,
            Self::Paused { retry_after, .. } | Self::Busy { retry_after } => Some(*retry_after),
            _ => None,
        }
    }

    /// Whether the provider may have taken the request all the same: it went out, and no clear no came back.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Unreachable { sent, .. } => *sent,
            // A gateway's error page says nothing of what became of the request behind it.
            Self::Slow { .. } | Self::Gateway { .. } | Self::Garbled { .. } => true,
            Self::Said { code, class, .. } => *class == Class::Retry && *code != 501,
            Self::Setup { .. } | Self::Unfit { .. } | Self::Paused { .. } | Self::Busy { .. } => false,
        }
    }
}

fn said(msg: &str) -> String {
    if msg.is_empty() {
        return String::new();
    }
    format!(" ({msg})")
}

fn advice(class: Class) -> &'static str {
    match class {
        Class::Retry | Class::Wait => "; it will be asked again",
        Class::Final => "",
        Class::Auth => "; check the source's api_key",
        Class::Credits => "; top up the account's credits or raise the limit of the API key",
        Class::Maintenance => "; it is being maintained or switched off, and will be asked again",
    }
}

fn seconds(wait: Duration) -> String {
    format!("{} s", wait.as_millis().div_ceil(1000))
}
