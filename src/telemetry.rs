//! What we tell of ourselves: logs, one line per event on standard error, for people or for programs; and the
//! [pulse](Pulse) of the last hour; meters that [count](Counter); and [`traces`].

use std::io;
use std::str::FromStr;
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

mod line;
mod meter;
mod output;
mod process;
mod pulse;
pub mod traces;

use line::{Line, LineFields};
use output::Output;

pub use meter::{Counter, Counts, Distribution, Histogram};
pub use output::Guard;
pub use process::{Disk, Process};
pub use pulse::{Beat, MINUTES, Minute, Pulse};

/// The shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A compact line for a person, coloured on a terminal unless `NO_COLOR` is set.
    Text,
    /// One JSON object per line, the event's fields at its top level.
    Json,
}

/// A filter that says nothing sensible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "log level {filter:?} is not understood{}: write one of error, warn, info, debug, trace, off, or directives \
     such as \"warn,reelhook::download=debug\"",
    detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default()
)]
pub struct BadFilter {
    /// What was written.
    filter: String,
    /// What the parser said, where it said anything.
    detail: Option<String>,
}

/// Sends all log lines to standard error from now on, by a thread of their own, until the guard is dropped. If something
/// else already does (as in tests), that stays.
///
/// `level` is a level for our own lines, with everyone else's at `warn`; or a comma-separated list of directives,
/// which is then taken as it is.
pub fn init(format: Format, level: &str) -> Result<Guard, BadFilter> {
    let filter = filter(level)?;
    let (output, guard) = Output::start(io::stderr());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(output);
    // An error means only that a subscriber is there already.
    let colour = || anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
    let _ = match format {
        Format::Text if colour() => lines
            .compact()
            .with_target(false)
            .with_ansi(true)
            .finish()
            .try_init(),
        Format::Text => lines
            .with_ansi(false)
            .event_format(Line::new())
            .fmt_fields(LineFields)
            .finish()
            .try_init(),
        Format::Json => lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .finish()
            .try_init(),
    };
    Ok(guard)
}

/// Whether [`init`] would take this level.
pub fn check(level: &str) -> Result<(), BadFilter> {
    filter(level).map(drop)
}

/// Reads a level or a list of directives.
fn filter(level: &str) -> Result<EnvFilter, BadFilter> {
    let bad = |detail| BadFilter {
        filter: level.to_owned(),
        detail,
    };
    let level = level.trim();
    let is_level = |word: &str| LevelFilter::from_str(word).is_ok() && !word.is_empty();
    // The parser takes any bare word for the name of a module, so that a misspelt level would silence everything else.
    let words: Vec<&str> = level.split(',').map(str::trim).collect();
    if !words
        .iter()
        .all(|word| is_level(word) || word.contains(['=', '[']))
    {
        return Err(bad(None));
    }
    let directives = if is_level(level) {
        format!(
            "{},reelhook={level}",
            if level.eq_ignore_ascii_case("off") {
                "off"
            } else {
                "warn"
            }
        )
    } else {
        words.join(",")
    };
    EnvFilter::builder()
        .parse(directives)
        .map_err(|error| bad(Some(error.to_string())))
}

/// Lets one line a minute be said and counts the others: for what outsiders can cause at any rate.
#[derive(Debug, Default)]
pub struct Sparse {
    said: Option<Instant>,
    unsaid: u64,
}

impl Sparse {
    const PAUSE: Duration = Duration::from_mins(1);

    /// Whether to say it now; if so, how often it went unsaid since the last time.
    pub fn say(&mut self, now: Instant) -> Option<u64> {
        if self.said.is_some_and(|said| now < said + Self::PAUSE) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_for_our_own_lines() {
        assert_eq!(filter("debug").unwrap().to_string(), "reelhook=debug,warn");
        assert_eq!(filter("off").unwrap().to_string(), "reelhook=off,off");
    }

    #[test]
    fn directives_are_taken_as_they_are() {
        let filter = filter("info, hyper=error").unwrap();
        assert_eq!(filter.to_string(), "hyper=error,info");
    }

    #[test]
    fn a_misspelt_level_is_an_error_that_says_what_to_write() {
        for bad in ["", "inof", "info,loud", "reelhook=loud", ","] {
            let error = filter(bad).unwrap_err().to_string();
            assert!(error.contains("write one of error, warn, info"), "{error}");
        }
    }

    #[test]
    fn starting_twice_is_harmless() {
        let _first = init(Format::Json, "warn").unwrap();
        let _second = init(Format::Text, "info").unwrap();
    }

    #[test]
    fn one_line_a_minute_is_said_and_the_others_are_counted() {
        let (mut sparse, start) = (Sparse::default(), Instant::now());
        let mut say = |seconds| sparse.say(start + Duration::from_secs(seconds));
        assert_eq!([say(0), say(1), say(59)], [Some(0), None, None]);
        assert_eq!([say(60), say(61), say(200)], [Some(2), None, Some(1)]);
    }
}
