//! What the command line says of a simulator.

use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::SpanRelativeTo;
use jiff::fmt::friendly::SpanParser;

use super::super::UsageError;
use crate::config::Secret;
use crate::simulate::{Account, Callbacks, Faults, Links, Settings};

/// How the provider is to behave.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// Address and port of the API
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    listen: SocketAddr,
    /// Address and port of the files, if not the same
    #[arg(long, value_name = "ADDRESS")]
    media_listen: Option<SocketAddr>,
    /// The API's bearer key
    #[arg(long, default_value = "sim-key")]
    key: Secret,
    /// Sign callbacks with this key; without one they are not signed
    #[arg(long, value_name = "KEY")]
    hmac_key: Option<Secret>,
    /// Decides all that is left to chance, task by task [default: a random one]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// How long a task takes
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    takes: Duration,
    /// By which share of that it may take less or more
    #[arg(long, value_name = "SHARE", default_value = "0.2", value_parser = share)]
    jitter: f64,
    /// Results of each task
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    results: u32,
    /// Bytes that a film has at least
    #[arg(long, value_name = "SIZE", default_value = "96KiB", value_parser = size)]
    film_size: u64,
    /// How long a finished task is known
    #[arg(long, value_name = "TIME", default_value = "14d", value_parser = duration)]
    keep: Duration,
    /// What the account has
    #[arg(long, default_value_t = 1_000_000.25)]
    credits: f64,
    /// Submissions in ten seconds before the answer is 429; 0: any number
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    submissions: u32,
    /// Queries in a second before the answer is 429; 0: any number
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    queries: u32,
    #[command(flatten)]
    faults: FaultFlags,
    #[command(flatten)]
    callbacks: CallbackFlags,
}

/// What goes wrong. Shares are from 0, never, to 1, always.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Faults")]
struct FaultFlags {
    /// Share of results that are never announced
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    drop: f64,
    /// Share of callbacks that are sent twice
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    duplicate: f64,
    /// Share of results that fail
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    fail: f64,
    /// Put off each callback by anything up to this, so that they come in another order
    #[arg(
        long,
        value_name = "TIME",
        default_value = "0s",
        num_args = 0..=1,
        default_missing_value = "5s",
        value_parser = duration
    )]
    reorder: Duration,
    /// How long the URL of a result opens
    #[arg(long, value_name = "TIME", default_value = "14d", value_parser = duration)]
    expire: Duration,
    /// How long a URL from common/download-url opens
    #[arg(long, value_name = "TIME", default_value = "20m", value_parser = duration)]
    fresh: Duration,
    /// Bytes a second of each download
    #[arg(long, value_name = "SIZE", value_parser = size)]
    slow: Option<u64>,
}

/// How callbacks are sent.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Callbacks")]
struct CallbackFlags {
    /// Tries after the first
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    retries: u32,
    /// Time between two tries
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    retry_spacing: Duration,
    /// Whether each try is signed anew
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = true,
        action = clap::ArgAction::Set
    )]
    retry_resign: bool,
    /// How long an answer may take
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = duration)]
    callback_timeout: Duration,
}

impl Flags {
    /// The settings they describe; a seed that was not given is random.
    pub(super) fn settings(self) -> anyhow::Result<Settings> {
        let (faults, callbacks) = (self.faults, self.callbacks);
        if !(self.credits.is_finite() && self.credits >= 0.0) {
            return Err(UsageError("--credits is a number from 0 up".to_owned()).into());
        }
        Ok(Settings {
            listen: self.listen,
            media_listen: self.media_listen,
            key: self.key,
            hmac_key: self.hmac_key,
            seed: match self.seed {
                Some(seed) => seed,
                None => random_seed()?,
            },
            takes: self.takes,
            jitter: self.jitter,
            results: self.results,
            film_bytes: self.film_size,
            keep: self.keep,
            faults: Faults {
                drop: faults.drop,
                duplicate: faults.duplicate,
                fail: faults.fail,
                reorder: faults.reorder,
            },
            links: Links {
                expire: faults.expire,
                fresh: faults.fresh,
                speed: faults.slow,
            },
            callbacks: Callbacks {
                timeout: callbacks.callback_timeout,
                retries: callbacks.retries,
                spacing: callbacks.retry_spacing,
                resign: callbacks.retry_resign,
            },
            account: Account {
                credits: self.credits,
                submissions: Some(self.submissions).filter(|most| *most > 0),
                queries: Some(self.queries).filter(|most| *most > 0),
            },
        })
    }
}

/// Short enough to be typed again.
pub(in super::super) fn random_seed() -> anyhow::Result<u64> {
    let random = getrandom::u32().map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    Ok(u64::from(random % 1_000_000))
}

/// A duration as in the configuration, where a day has 24 hours.
pub(in super::super) fn duration(text: &str) -> Result<Duration, &'static str> {
    let span = SpanParser::new().parse_span(text).ok();
    let duration = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    let duration = duration.and_then(|duration| Duration::try_from(duration).ok());
    duration.ok_or("write a duration such as 500ms, 5s or 14d")
}

fn size(text: &str) -> Result<u64, &'static str> {
    let size: Result<ByteSize, _> = text.parse();
    size.map(|size| size.as_u64())
        .map_err(|_| "write a size such as 200KiB or 4MiB")
}

fn share(text: &str) -> Result<f64, &'static str> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or("write a share from 0 to 1, such as 0.3")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn settings(line: &str) -> anyhow::Result<Settings> {
        let words = std::iter::once("simulate").chain(line.split_whitespace());
        Line::try_parse_from(words)?.flags.settings()
    }

    #[test]
    fn every_flag_has_its_setting() {
        let settings = settings(
            "--seed 7 --takes 2s --results 2 --drop 0.3 --reorder --expire 20s --slow 200KiB --retries 1 \
             --retry-spacing 1s --retry-resign false --queries 0",
        )
        .unwrap();
        assert_eq!((settings.seed, settings.results), (7, 2));
        assert_eq!(settings.takes, Duration::from_secs(2));
        assert_eq!(settings.faults.reorder, Duration::from_secs(5));
        assert_eq!(settings.links.expire, Duration::from_secs(20));
        assert_eq!(settings.links.speed, Some(200 << 10));
        assert_eq!(
            (settings.callbacks.retries, settings.callbacks.resign),
            (1, false)
        );
        assert_eq!(
            (settings.account.submissions, settings.account.queries),
            (Some(20), None)
        );
    }

    #[test]
    fn without_flags_it_is_the_provider_as_documented() {
        let (given, usual) = (settings("").unwrap(), Settings::default());
        assert_eq!(given.key, usual.key);
        assert_eq!(given.keep, usual.keep);
        assert_eq!(given.film_bytes, usual.film_bytes);
        assert_eq!(given.takes, usual.takes);
        assert_eq!(
            (given.links.expire, given.links.fresh),
            (usual.links.expire, usual.links.fresh)
        );
        assert_eq!(given.callbacks.timeout, usual.callbacks.timeout);
        assert_eq!(given.callbacks.spacing, usual.callbacks.spacing);
        assert_eq!(given.faults.reorder, Duration::ZERO);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "--drop 2",
            "--drop -1",
            "--fail often",
            "--takes soon",
            "--slow fast",
            "--results 0",
        ] {
            assert!(settings(line).is_err(), "{line}");
        }
    }
}
