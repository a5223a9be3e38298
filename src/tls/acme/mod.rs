//! A certificate from an authority that speaks ACME (RFC 8555): obtained, kept, and renewed in time.
//!
//! What is served and for how long is decided here; one order, from account to chain, is `order`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::{Certificate, Served};
use crate::clock::{Clock, Millis, millis, rfc3339};
use crate::retry::Backoff;
use crate::shutdown::Tasks;

mod cache;
mod challenges;
mod error;
mod order;
mod web;

pub use cache::{cache_dir, cached};
pub use challenges::Challenges;
pub use error::AcmeError;
pub use web::check_roots;

use cache::Cache;
use order::Authority;

/// How often it is asked whether the time has come. The wall clock may jump or the machine sleep, so that one long wait
/// until the due time would miss it.
const POLL: Duration = Duration::from_mins(1);

/// How long one order may take in all: authorities answer within seconds, but may queue.
const PATIENCE: Duration = Duration::from_mins(5);

/// The least wait between two orders; after one that failed, [`BACKOFF`] is added. Let's Encrypt allows five failed validations an
/// hour.
const PAUSE: Duration = Duration::from_mins(2);
const BACKOFF: Backoff = Backoff {
    base: Duration::from_mins(8),
    cap: Duration::from_hours(4),
};

/// What to ask for, and whom.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The names of the certificate; never empty.
    pub domains: Vec<String>,
    /// An e-mail address for the authority.
    pub contact: Option<String>,
    /// Where the authority's directory is.
    pub directory_url: String,
    /// A PEM file with the roots that vouch for that server, in place of the system's.
    pub directory_ca_file: Option<PathBuf>,
    /// Where account and certificate are kept.
    pub cache_dir: PathBuf,
}

/// Keeps a certificate in force.
#[derive(Debug)]
pub struct Acme {
    authority: Authority,
    cache: Cache,
    served: Served,
    clock: Clock,
    /// Rung to have a failed order tried again at once.
    now: Arc<Notify>,
}

impl Acme {
    /// Serves what an earlier run obtained, if that is for the same names. Nothing is asked of the authority yet.
    pub fn open(settings: Settings, clock: Clock, now: Arc<Notify>) -> Result<Self, AcmeError> {
        let cache = Cache::open(&settings)?;
        let served = Served::nothing();
        if let Some(certificate) = cache.certificate(clock.now()) {
            tracing::info!("certificate for {}", certificate.summary(clock.now()));
            served.replace(certificate);
        }
        Ok(Self {
            authority: Authority::new(settings)?,
            cache,
            served,
            clock,
            now,
        })
    }

    /// What is served.
    pub fn served(&self) -> Served {
        self.served.clone()
    }

    /// What the authority wants to find under `/.well-known/acme-challenge/`.
    pub fn challenges(&self) -> Challenges {
        self.authority.challenges()
    }

    /// Obtains and renews until the soft stop.
    pub async fn run(self, tasks: Tasks) {
        tokio::select! {
            // An order that is cut off is begun anew by the next start; nothing of it was kept yet.
            () = self.keep_in_force() => {}
            () = tasks.draining() => {}
        }
    }

    async fn keep_in_force(&self) {
        let mut due = self.due();
        loop {
            self.wait_until(due).await;
            due = self.obtain_with_patience().await;
        }
    }

    async fn wait_until(&self, due: Millis) {
        while self.clock.now() < due {
            let left = u64::try_from(due - self.clock.now()).unwrap_or(0);
            tokio::select! {
                () = tokio::time::sleep(POLL.min(Duration::from_millis(left))) => {}
                () = self.now.notified() => {}
            }
        }
    }

    /// Tries until there is a certificate, with growing waits; gives when the next one is due. That is never at once:
    /// between an authority and a machine that disagree about the time, every certificate looks old.
    async fn obtain_with_patience(&self) -> Millis {
        for attempt in 1.. {
            let Err(error) = self.obtain().await else { break };
            let wait = PAUSE + BACKOFF.random_delay(attempt);
            self.complain(&error, wait);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.now.notified() => {}
            }
        }
        self.due().max(self.clock.now() + millis(PAUSE))
    }

    async fn obtain(&self) -> Result<(), AcmeError> {
        let domains = self.authority.domains().join(", ");
        tracing::info!("asking {} for a certificate for {domains}", self.authority.url());
        let ordered = tokio::time::timeout(PATIENCE, self.authority.order(&self.cache)).await;
        let issued = ordered.map_err(|_| AcmeError::TooSlow(PATIENCE))??;
        let certificate = issued.certificate()?;
        // Only a certificate that a restart finds again is worth having: authorities count how many they gave.
        self.cache.keep(&issued)?;
        tracing::info!("certificate obtained: {}", certificate.summary(self.clock.now()));
        self.served.replace(certificate);
        Ok(())
    }

    /// When a certificate is to be asked for.
    fn due(&self) -> Millis {
        match self.served.now() {
            // Without randomness as late as may be.
            Some(certificate) => renewal(&certificate, getrandom::u64().unwrap_or(0)),
            None => self.clock.now(),
        }
    }

    /// What failed, until when it does no harm, and when it is tried again.
    fn complain(&self, error: &AcmeError, wait: Duration) {
        let now = self.clock.now();
        let next = rfc3339(now + millis(wait));
        match self.served.now() {
            Some(certificate) if certificate.judge(now).is_ok() => tracing::warn!(
                %error,
                "the certificate was not renewed; the old one is served, {}; next attempt at {next}, or at SIGHUP",
                certificate.summary(now)
            ),
            _ => tracing::error!(
                %error,
                "no certificate was obtained, and no TLS connection can be made without; next attempt at {next}, or at \
                 SIGHUP"
            ),
        }
    }
}

/// When to renew: a third of its lifetime before the end, or up to a tenth of that third earlier, the share
/// `random / 2^64` of it, so that what was issued together is not renewed together.
fn renewal(certificate: &Certificate, random: u64) -> Millis {
    let third = certificate.lifetime() / 3;
    let earlier = (i128::from(third / 10) * i128::from(random)) >> 64;
    certificate.not_after() - third - Millis::try_from(earlier).unwrap_or(0)
}

/// What an order brings: PEM texts, as they came.
pub(super) struct Issued {
    chain: String,
    key: String,
}

impl Issued {
    fn certificate(&self) -> Result<Certificate, AcmeError> {
        Certificate::from_pem(self.chain.as_bytes(), self.key.as_bytes()).map_err(AcmeError::Unusable)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;
    use crate::clock::parse_rfc3339;

    #[test]
    fn a_third_of_the_lifetime_before_the_end_or_a_little_earlier_it_is_renewed() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 4, 1);
        let pem = params.self_signed(&key).unwrap().pem() + &key.serialize_pem();
        let certificate = Certificate::from_pem(pem.as_bytes(), pem.as_bytes()).unwrap();
        let at = |text| parse_rfc3339(text).unwrap();
        // Of 90 days, 30 before the end; or 33.
        assert_eq!(renewal(&certificate, 0), at("2026-03-02T00:00:00Z"));
        let earliest = renewal(&certificate, u64::MAX);
        assert!(
            (0..10).contains(&(earliest - at("2026-02-27T00:00:00Z"))),
            "{earliest}"
        );
    }
}
