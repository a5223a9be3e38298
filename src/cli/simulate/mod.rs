//! `simulate`: a fake provider, to try a receiver or a client on.

use std::time::Duration;

use anyhow::Context as _;
use url::Url;

use super::{Exit, Session, UsageError};
use crate::shutdown::Tasks;
use crate::simulate::{Event, Simulator};

mod flags;
mod report;
mod trickle;

pub(super) use flags::{duration, random_seed};
pub(super) use trickle::{Target, Trickle, next_event};

/// Arguments of `simulate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print what happens as one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: flags::Flags,
    /// Submit so many tasks to itself
    #[arg(
        long,
        value_name = "NUMBER",
        requires = "callback_url",
        help_heading = "Submissions of its own"
    )]
    submit: Option<usize>,
    /// Where those call back
    #[arg(
        long,
        value_name = "URL",
        requires = "submit",
        help_heading = "Submissions of its own"
    )]
    callback_url: Option<Url>,
    /// Time between two of them
    #[arg(
        long,
        value_name = "TIME",
        default_value = "1s",
        value_parser = duration,
        help_heading = "Submissions of its own"
    )]
    every: Duration,
}

/// How long requests and callbacks may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// Simulates until it is interrupted, and sums up.
pub(super) async fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let (json, every) = (args.json, args.every);
    let settings = args.flags.settings()?;
    let listen = settings.listen;
    let tasks = Tasks::new();
    let simulator = Simulator::start(settings, session.clock.clone(), tasks.clone())
        .await
        .with_context(|| format!("cannot listen on {listen}; --listen and --media-listen choose others"))?;
    let mut trickle = match args.callback_url {
        Some(callback) => Some(Trickle::new(target(&simulator, callback)?)?),
        None => None,
    };
    session.print(&if json {
        report::greeting_json(&simulator).to_string()
    } else {
        report::greeting(&simulator)
    })?;
    session.flush()?;
    let watched = Watch {
        simulator: &simulator,
        json,
    };
    let most = args.submit.unwrap_or_default();
    watched
        .until_interrupted(&mut trickle, (most, every), session)
        .await?;
    tasks.drain(GRACE).await;
    session.print(&report::ending(&simulator.outline(), json))?;
    Ok(Exit::Fine)
}

fn target(simulator: &Simulator, callback: Url) -> anyhow::Result<Target> {
    if !matches!(callback.scheme(), "http" | "https") {
        return Err(UsageError("--callback-url must be an http or https URL".to_owned()).into());
    }
    Ok(Target {
        api: simulator.url(),
        key: simulator.key().clone(),
        callback: Some(callback),
    })
}

/// What is shown while it runs.
struct Watch<'a> {
    simulator: &'a Simulator,
    json: bool,
}

impl Watch<'_> {
    /// Shows what happens and submits, if that was asked for.
    async fn until_interrupted(
        &self,
        trickle: &mut Option<Trickle>,
        (most, every): (usize, Duration),
        session: &mut Session,
    ) -> anyhow::Result<()> {
        let mut stop = Stop::install()?;
        let mut events = self.simulator.events();
        let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
        loop {
            let submits = trickle.as_ref().is_some_and(|trickle| trickle.made() < most);
            tokio::select! {
                () = stop.signal() => return Ok(()),
                Some(event) = next_event(&mut events) => {
                    self.show(&event, session)?;
                    if let Some(trickle) = trickle {
                        note(trickle.follow(&event).await, session);
                    }
                }
                _ = ticks.tick(), if submits => {
                    if let Some(trickle) = trickle {
                        note(trickle.next().await, session);
                    }
                }
            }
        }
    }

    fn show(&self, event: &Event, session: &mut Session) -> anyhow::Result<()> {
        let line = if self.json {
            serde_json::to_string(event)?
        } else {
            report::line(event)
        };
        Ok(session.print(&line)?)
    }
}

/// What could not be submitted is said, and the next one tried.
fn note(submitted: anyhow::Result<()>, session: &mut Session) {
    if let Err(error) = submitted {
        session.note(&format!("not submitted: {error:#}"));
    }
}

/// The signals that end it.
pub(super) struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    pub(super) fn install() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Resolves at the next one.
    pub(super) async fn signal(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
