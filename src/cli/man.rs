//! `man`: the manual, from what the commands say of themselves.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_mangen::Man;

use super::{Cli, Exit, Session};

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to write a page for each command; without it, the main page is printed
    dir: Option<PathBuf>,
}

/// Prints the main page, or writes all of them.
pub(super) fn run(args: &Args, session: &mut Session) -> anyhow::Result<Exit> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        Man::new(Cli::command()).render(&mut page)?;
        session.print(String::from_utf8(page)?.trim_end())?;
        return Ok(Exit::Fine);
    };
    fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .with_context(|| format!("the pages cannot be written to {}", dir.display()))?;
    session.note(&format!(
        "a page for each command is in {}; `man -l {}` shows the first",
        dir.display(),
        dir.join("reelhook.1").display()
    ));
    Ok(Exit::Fine)
}
