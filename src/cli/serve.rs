//! `serve`: the receiver itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{self, SignalKind};
use url::Url;

use super::instance::Instance;
use super::{Exit, Session, banner};
use crate::clock::Clock;
use crate::config::{Config, LogFormat, Overrides};
#[cfg(debug_assertions)]
use crate::failpoint;
use crate::telemetry;

/// Arguments of `serve`, and of everything else that works on the configuration as `serve` would see it.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Args {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// How the provider reaches that address
    #[arg(long, value_name = "URL")]
    public_url: Option<Url>,
    /// Where database, spool and media lie
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Log lines for people (text) or programs (json)
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// error, warn, info, debug, trace, or filter directives
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl From<Args> for Overrides {
    fn from(args: Args) -> Self {
        let Args {
            listen,
            public_url,
            data_dir,
            log_format,
            log_level,
        } = args;
        Self {
            listen,
            data_dir,
            public_url,
            log_format,
            log_level,
        }
    }
}

/// Loads the configuration, starts the logs, and serves until told to stop.
pub(super) async fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let config = session.config(args.clone().into())?;
    let _logs = start_logs(&config)?;
    #[cfg(debug_assertions)]
    if let Some(armed) = session.environment.value(failpoint::VARIABLE) {
        failpoint::arm(armed)?;
    }
    for warning in &config.origin.warnings {
        tracing::warn!("{warning}");
    }
    for (name, source) in config.sources.iter().filter(|(_, source)| source.is_unverified()) {
        let from = if source.allow_unverified {
            "from anywhere"
        } else {
            "from this machine only"
        };
        tracing::warn!(
            source = %name,
            "source {name} verifies nothing and takes any callback {from}; set sources.{name}.hmac_keys"
        );
    }
    serve(config, args, session).await
}

fn start_logs(config: &Config) -> anyhow::Result<telemetry::Guard> {
    let format = match config.log.format {
        LogFormat::Text => telemetry::Format::Text,
        LogFormat::Json => telemetry::Format::Json,
    };
    telemetry::init(format, &config.log.level).context("log.level cannot be used")
}

/// Serves until a signal: the first drains, a second one cuts short, SIGHUP re-reads sources and tokens.
async fn serve(mut config: Config, args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let mut signals = Signals::install()?;
    let instance = Instance::start(&config, Clock::system()).await?;
    if config.log.format == LogFormat::Text {
        // A receiver does not end because nobody reads its greeting.
        let _ = session.print(&banner::of(&config, instance.addr, instance.api_addr));
        let _ = session.flush();
    }
    tracing::info!(listen = %instance.addr, "listening on {}", instance.addr);
    if instance.api_addr != instance.addr {
        tracing::info!(admin_listen = %instance.api_addr, "serving the API on {}", instance.api_addr);
    }
    loop {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            () = instance.broke() => return Ok(give_up(instance).await),
        };
        match signal {
            Signal::Reload => reload(&mut config, &instance, args.clone(), session),
            Signal::Stop => break,
        }
    }
    tracing::info!(
        "stopping: finishing requests and downloads within {:?}; a second signal stops at once",
        config.shutdown_grace
    );
    let tasks = instance.tasks();
    tokio::select! {
        in_time = instance.stop() => {
            let how = if in_time { "all work done" } else { "unfinished downloads went back to the queue" };
            tracing::info!("stopped: {how}");
        }
        () = signals.stop() => {
            tasks.drain(Duration::ZERO).await;
            tracing::warn!("stopped at once: unfinished downloads go back to the queue at the next start");
        }
    }
    Ok(Exit::Fine)
}

/// Takes over the sources and tokens of the configuration as it is now; a bad file keeps the old ones.
fn reload(config: &mut Config, instance: &Instance, args: Args, session: &Session) {
    let fresh = session.config(args.into());
    let renewed = fresh.and_then(|fresh| Ok((config.waiting_for_restart(&fresh), config.renewed(fresh)?)));
    match renewed {
        Ok((waiting, renewed)) => {
            *config = renewed;
            instance.reload(config);
            tracing::info!("sources and tokens were read again");
            if !waiting.is_empty() {
                tracing::warn!(
                    "changed, but taken over only by a restart: {}",
                    waiting.join(", ")
                );
            }
        }
        Err(error) => {
            tracing::error!(error = %format!("{error:#}"), "the configuration was not taken over; the old one stays in force");
        }
    }
}

/// Ends at once what cannot be recorded any more; the exit code has the service manager start anew.
async fn give_up(instance: Instance) -> Exit {
    tracing::error!(
        "the database writer failed, and nothing can be recorded any more; its panic is logged above. Stopping: start \
         reelhook again, nothing acknowledged is lost"
    );
    instance.tasks().drain(Duration::ZERO).await;
    instance.stop().await;
    Exit::Failed
}

enum Signal {
    Stop,
    Reload,
}

/// The signals that `serve` listens to.
struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hang_up: unix::Signal,
}

impl Signals {
    fn install() -> anyhow::Result<Self> {
        let listen = |kind| unix::signal(kind).context("cannot listen to signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hang_up.recv() => Signal::Reload,
        }
    }

    async fn stop(&mut self) {
        while let Signal::Reload = self.next().await {}
    }
}
