//! `healthcheck`: whether a server is alive, for container platforms.

use super::client::{Server, ServerArgs};
use super::{Exit, Session};

/// Arguments of `healthcheck`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArgs,
}

/// Asks `/healthz`.
pub(super) async fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let server = Server::new(&args.server, session)?;
    let answer = server.get(&["healthz"], &[]).await?;
    if args.server.json {
        session.print(answer.0.trim_end())?;
    } else {
        session.print(&format!("{} is alive", server.base()))?;
    }
    Ok(Exit::Fine)
}
