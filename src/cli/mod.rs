//! The commands, and the only place that knows all parts and wires them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

mod address;
mod answers;
mod backfill;
mod backup;
mod banner;
mod callback_url;
mod check;
mod client;
mod deliveries;
mod demo;
mod descriptors;
mod healthcheck;
mod human;
pub mod instance;
mod listeners;
mod man;
mod scrub;
mod serve;
mod session;
mod signing;
mod simulate;
mod stats;
mod tasks;
mod trigger;

#[cfg(test)]
mod tests;

pub use session::{CannotWrite, Session};

/// A webhook receiver for generated media: verifies and records callbacks, downloads what they announce, serves it.
#[expect(clippy::doc_markdown, reason = "clap prints the docs as they are")]
#[derive(Debug, Parser)]
#[command(
    name = "reelhook",
    version,
    arg_required_else_help = true,
    max_term_width = 110
)]
pub struct Cli {
    /// The configuration file [env: REELHOOK_CONFIG] [default: config.toml, if there is one]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Receive callbacks, download what they announce, serve the results
    Serve(serve::Args),
    /// Check the configuration and what it needs; show the one in effect, without secrets
    Check(check::Args),
    /// About the configuration file
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Send a realistic callback, as the provider would
    Trigger(trigger::Args),
    /// Compute the signature headers of a callback
    Sign(signing::SignArgs),
    /// Check the signature headers of a callback
    Verify(signing::VerifyArgs),
    /// Print the callBackUrl to give to the provider
    Url(callback_url::Args),
    /// See and handle tasks on a running server
    Tasks(tasks::Args),
    /// See what arrived at a running server, and settle conflicts
    Deliveries(deliveries::Args),
    /// Show what a running server counts: tasks and files by state, bytes, and why it waits if it does
    Stats(stats::Args),
    /// Watch it work: a server and a fake provider on this machine, which does everything wrong
    Demo(demo::Args),
    /// Be a fake provider: its API, signed callbacks, files that expire, and faults on demand
    Simulate(simulate::Args),
    /// Read all stored files again and find those that are damaged or missing
    Scrub(scrub::Args),
    /// Copy the database while a server runs on it, list the stored files, and try the copy
    Backup(backup::Args),
    /// Announce tasks from before, by a file of their ids, and have the provider asked what became of them
    Backfill(backfill::Args),
    /// Ask a running server whether it is alive
    Healthcheck(healthcheck::Args),
    /// Print the OpenAPI document of the HTTP API
    Openapi,
    /// Print the manual page, or write one for each command
    Man(man::Args),
    /// Print the completion script of a shell
    Completions {
        /// Whose script
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print an example file with every key at its default
    Example,
}

/// How a command ended: the exit code of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All went well: 0.
    Fine,
    /// It could not be done, or the answer is no: 1.
    Failed,
    /// It was asked for in a way that makes no sense: 2, as clap does for what it finds itself.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Fine => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
        })
    }
}

/// A request that makes no sense in a way only the command could see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

impl Cli {
    /// Does what was asked for, with the process's environment and streams.
    pub async fn run(self) -> ExitCode {
        // Whoever builds a TLS client needs one; it can be there already.
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut session = Session::of_process(self.config);
        self.command.run(&mut session).await.into()
    }
}

impl Command {
    /// Runs the command and says on standard error what went wrong.
    async fn run(self, session: &mut Session) -> Exit {
        let done = match self.dispatch(session).await {
            Ok(exit) => session.flush().map(|()| exit).map_err(anyhow::Error::from),
            Err(error) => Err(error),
        };
        match done {
            Ok(exit) => exit,
            // The reader has seen enough, as with `| head`.
            Err(error) if error.downcast_ref().is_some_and(CannotWrite::is_broken_pipe) => Exit::Fine,
            Err(error) => {
                session.note(&report(&error));
                if error.is::<UsageError>() {
                    Exit::Usage
                } else {
                    Exit::Failed
                }
            }
        }
    }

    async fn dispatch(self, session: &mut Session) -> anyhow::Result<Exit> {
        match self {
            Self::Serve(args) => serve::run(args, session).await,
            Self::Check(args) => check::run(args, session).await,
            Self::Config {
                command: ConfigCommand::Example,
            } => {
                session.print(crate::config::EXAMPLE.trim_end())?;
                Ok(Exit::Fine)
            }
            Self::Trigger(args) => trigger::run(args, session).await,
            Self::Sign(args) => signing::sign(&args, session),
            Self::Verify(args) => signing::verify(&args, session),
            Self::Url(args) => callback_url::run(&args, session),
            Self::Tasks(args) => tasks::run(args, session).await,
            Self::Deliveries(args) => deliveries::run(args, session).await,
            Self::Stats(args) => stats::run(args, session).await,
            Self::Demo(args) => demo::run(args, session).await,
            Self::Simulate(args) => simulate::run(args, session).await,
            Self::Scrub(args) => scrub::run(args, session).await,
            Self::Backfill(args) => backfill::run(args, session).await,
            Self::Backup(args) => backup::run(args, session).await,
            Self::Healthcheck(args) => healthcheck::run(args, session).await,
            Self::Openapi => {
                session.print(crate::http::openapi_json().trim_end())?;
                Ok(Exit::Fine)
            }
            Self::Man(args) => man::run(&args, session),
            Self::Completions { shell } => completions(shell, session),
        }
    }
}

/// An error as a person reads it: on one line, or each of several problems on a line of its own.
fn report(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let lines: Vec<&str> = text.lines().collect();
    let separator = if lines.len() > 1 { "\n  " } else { " " };
    format!(
        "{}{separator}{}",
        human::painted(human::ERROR, "error:"),
        lines.join("\n  ")
    )
}

fn completions(shell: clap_complete::Shell, session: &mut Session) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "reelhook", &mut script);
    session.print(String::from_utf8(script)?.trim_end())?;
    Ok(Exit::Fine)
}
