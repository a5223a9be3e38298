//! How a simulator behaves.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::config::Secret;

/// Everything that can be chosen. The default is a provider on a free loopback port that does all it should.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it answers; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where it serves files instead, if anywhere.
    pub media_listen: Option<SocketAddr>,
    /// The bearer key of its API.
    pub key: Secret,
    /// The key that callbacks are signed with; without one they are not signed.
    pub hmac_key: Option<Secret>,
    /// Decides everything that is left to chance: the n-th task of a seed always fares the same.
    pub seed: u64,
    /// How long a task takes.
    pub takes: Duration,
    /// By which share of that it may take less or more, 0 to 1.
    pub jitter: f64,
    /// Results of each task.
    pub results: u32,
    /// Bytes that a film has at least.
    pub film_bytes: u64,
    /// How long a finished task is known. The provider's own answers say "14 days".
    pub keep: Duration,
    /// What goes wrong.
    pub faults: Faults,
    /// How files are served.
    pub links: Links,
    /// How callbacks are sent.
    pub callbacks: Callbacks,
    /// What the account may do.
    pub account: Account,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            media_listen: None,
            key: Secret::new("sim-key"),
            hmac_key: None,
            seed: 1,
            takes: Duration::from_secs(5),
            jitter: 0.2,
            results: 1,
            film_bytes: 96 << 10,
            keep: DAYS_14,
            faults: Faults::default(),
            links: Links::default(),
            callbacks: Callbacks::default(),
            account: Account::default(),
        }
    }
}

/// How long the provider keeps records and media, by its getting-started page.
pub(super) const DAYS_14: Duration = Duration::from_hours(14 * 24);

/// What goes wrong: shares are from 0, never, to 1, always.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Share of results whose callback is not even tried.
    pub drop: f64,
    /// Share of callbacks that are sent twice.
    pub duplicate: f64,
    /// Share of results that fail, with one of the documented codes.
    pub fail: f64,
    /// Each callback is put off by anything up to this, so that they come in another order.
    pub reorder: Duration,
}

/// How files are served.
#[derive(Debug, Clone, Copy)]
pub struct Links {
    /// How long the URL of a result opens, from the moment it is finished.
    pub expire: Duration,
    /// How long a URL from `common/download-url` opens.
    pub fresh: Duration,
    /// Bytes a second of one download at most.
    pub speed: Option<u64>,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            expire: DAYS_14,
            // By the download-url page.
            fresh: Duration::from_mins(20),
            speed: None,
        }
    }
}

/// How callbacks are sent. Spacing and signing of retries are documented nowhere.
#[derive(Debug, Clone, Copy)]
pub struct Callbacks {
    /// How long an answer may take; 15 seconds by the callback pages.
    pub timeout: Duration,
    /// Tries after the first.
    pub retries: u32,
    /// Time between two tries.
    pub spacing: Duration,
    /// Whether each try is signed for the moment it is made, or all for that of the first.
    pub resign: bool,
}

impl Default for Callbacks {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(15),
            retries: 3,
            spacing: Duration::from_secs(1),
            resign: true,
        }
    }
}

/// What the account may do.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    /// Credits to begin with.
    pub credits: f64,
    /// Submissions in ten seconds, unlimited if `None`.
    pub submissions: Option<u32>,
    /// Queries in a second, unlimited if `None`.
    pub queries: Option<u32>,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            credits: 1_000_000.25,
            submissions: Some(20),
            queries: Some(10),
        }
    }
}

/// Trouble of the whole API, switched on and off while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Body code 455.
    Maintenance,
    /// Body code 429, whatever the rate.
    TooManyRequests,
    /// Body code 401, whatever the key.
    KeyRevoked,
    /// Body code 500.
    Internal,
    /// A gateway's page: HTTP 502 with HTML.
    Gateway,
    /// Requests are read and nothing happens.
    Hang,
    /// What is asked for is done, and never answered.
    AnswersLost,
    /// Every answer takes so long.
    Slow(Duration),
}
