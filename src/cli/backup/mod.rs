//! `backup`: a copy of the database while a server runs, tried before it is called good.

use std::fs::{self, File};
use std::future::Future;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{Exit, Session, human};
use crate::clock::rfc3339;
use crate::config::{Config, Overrides};
use crate::store::backup::{self, Contents, Source};
use crate::store::data_dir::DataDir;

mod target;
mod trial;

use target::{Target, measure, sync_private};

/// The copy.
const DATABASE: &str = "reelhook.db";
/// One line for each stored file.
const MANIFEST: &str = "media.jsonl";
/// What says that the other two are good.
const SEAL: &str = "backup.json";

/// How many sentences about files are kept.
const FINDINGS: usize = 100;
/// How often it is looked how far the copy is.
const PAUSE: Duration = Duration::from_millis(200);

/// Arguments of `backup`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to: a directory that is empty or does not exist yet
    dir: PathBuf,
    /// Where the database lies [default: as configured]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Do not look whether the stored files are where the database says
    #[arg(long)]
    no_media_check: bool,
    /// Print what backup.json says
    #[arg(long)]
    json: bool,
}

/// What `backup.json` says.
#[derive(Debug, Serialize)]
struct Seal {
    reelhook: &'static str,
    created_at: String,
    duration_ms: u64,
    migration: i64,
    contents: Contents,
    database: Part,
    media: Part,
    media_check: MediaCheck,
}

/// A file of the backup.
#[derive(Debug, Serialize)]
struct Part {
    file: &'static str,
    bytes: u64,
    sha256: String,
}

/// Whether the stored files were looked for, and what was wrong with them.
#[derive(Debug, Default, Serialize)]
struct MediaCheck {
    /// Whether all were looked for.
    done: bool,
    /// Files that were deleted, or stored anew, between the copy and the look.
    changed_since: u64,
    missing: u64,
    /// Files of another length.
    damaged: u64,
    /// Files that the storage failed to look for.
    unreadable: u64,
    /// A sentence for each of them, the first [`FINDINGS`].
    findings: Vec<String>,
}

impl MediaCheck {
    fn found(&mut self, what: String) {
        if self.findings.len() < FINDINGS {
            self.findings.push(what);
        }
    }

    fn wrong(&self) -> u64 {
        self.missing + self.damaged + self.unreadable
    }

    fn in_words(&self) -> String {
        match self {
            _ if self.wrong() > 0 => format!(
                "{} missing, {} damaged, {} that could not be looked for",
                self.missing, self.damaged, self.unreadable
            ),
            Self { done: false, .. } => "not looked for".to_owned(),
            Self { changed_since: 0, .. } => "all in their place".to_owned(),
            Self { changed_since, .. } => {
                format!("all in their place but for {changed_since} that changed since")
            }
        }
    }
}

/// Makes a backup. One that is not good leaves nothing behind. One that is good while stored files are not stays, and the
/// exit code says so.
pub(super) async fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let config = session.config(Overrides {
        data_dir: args.data_dir.clone(),
        ..Overrides::default()
    })?;
    let bar = bar()?;
    let made = tokio::select! {
        made = make(&args, &config, session, &bar) => made,
        Ok(()) = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted; nothing is left of the backup")),
    };
    bar.finish_and_clear();
    let seal = made?;
    if args.json {
        session.print(&serde_json::to_string(&seal)?)?;
    } else {
        show(&seal, &args.dir, session)?;
    }
    warn(&seal.media_check, session);
    Ok(if seal.media_check.findings.is_empty() {
        Exit::Fine
    } else {
        Exit::Failed
    })
}

/// Drawn on standard error, if that is a terminal.
fn bar() -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:24} {pos} of {len} {msg}, {elapsed}")?;
    Ok(ProgressBar::new(0).with_style(style))
}

async fn make(args: &Args, config: &Config, session: &Session, bar: &ProgressBar) -> anyhow::Result<Seal> {
    let database = DataDir::database_in(&config.data_dir);
    anyhow::ensure!(
        database.exists(),
        "there is no database {}; name its directory with --data-dir, or the configuration with --config",
        database.display()
    );
    let (began, created_at) = (Instant::now(), rfc3339(session.clock.now()));
    let mut target = Target::make(&args.dir)?;
    let copy = target.path(DATABASE);
    // The copy, and its own copy that is tried.
    target.has_room_for(Source::open(&database)?.used_bytes()?.saturating_mul(2))?;
    copy_database(&database, &copy, bar).await?;
    bar.set_message("reading the copy");
    let manifest = target.path(MANIFEST);
    let (contents, [database_part, media]) = blocking({
        let copy = copy.clone();
        move || describe(&copy, &manifest)
    })
    .await?;
    bar.set_message("trying it");
    let restored = trial::restore(&target, &copy, &contents).await?;
    let media_check = if args.no_media_check {
        MediaCheck::default()
    } else {
        trial::look_for_files(&restored, &database, config, bar).await?
    };
    let scratch = restored.end().await;
    fs::remove_dir_all(scratch).context("cannot remove the copy that was tried")?;
    let seal = Seal {
        reelhook: env!("CARGO_PKG_VERSION"),
        created_at,
        duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        migration: backup::migration(&copy)?,
        contents,
        database: database_part,
        media,
        media_check,
    };
    let mut text = serde_json::to_vec_pretty(&seal)?;
    text.push(b'\n');
    target
        .finish(&[DATABASE, MANIFEST], (SEAL, &text))
        .with_context(|| format!("cannot finish {}", target.finished_path(SEAL).display()))?;
    Ok(seal)
}

/// Ends the copy that is under way when nobody waits for it any more.
struct Interrupter(rusqlite::InterruptHandle);

impl Drop for Interrupter {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

async fn copy_database(from: &Path, to: &Path, bar: &ProgressBar) -> anyhow::Result<()> {
    let source = Source::open(from).with_context(|| format!("cannot read {}", from.display()))?;
    bar.set_style(ProgressStyle::with_template(
        "{bar:24} {bytes} of {total_bytes} {msg}, {elapsed}",
    )?);
    bar.set_length(source.bytes()?);
    bar.set_message("copying the database");
    let _interrupter = Interrupter(source.interrupter());
    let copying = blocking({
        let to = to.to_owned();
        move || {
            source.copy_into(&to)?;
            // SQLite does not sync what it vacuums into.
            sync_private(&to)?;
            Ok(())
        }
    });
    let watching = async {
        loop {
            bar.set_position(fs::metadata(to).map_or(0, |copy| copy.len()));
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        copied = copying => copied.with_context(|| format!("cannot copy the database to {}", to.display())),
        () = watching => unreachable!("it goes on for ever"),
    }
}

/// Writes the manifest, counts what the copy holds, and measures both files.
fn describe(copy: &Path, manifest: &Path) -> anyhow::Result<(Contents, [Part; 2])> {
    let contents = backup::contents(copy)?;
    let mut out = BufWriter::new(File::create_new(manifest)?);
    let listed = backup::write_manifest(copy, &mut out)?;
    out.flush()?;
    sync_private(manifest)?;
    anyhow::ensure!(
        listed == (contents.stored, contents.stored_bytes),
        "the copy has {} stored files, of which {} could be listed",
        contents.stored,
        listed.0
    );
    let part = |file, path| -> anyhow::Result<Part> {
        let (bytes, sha256) = measure(path)?;
        Ok(Part { file, bytes, sha256 })
    };
    Ok((contents, [part(DATABASE, copy)?, part(MANIFEST, manifest)?]))
}

fn show(seal: &Seal, dir: &Path, session: &mut Session) -> anyhow::Result<()> {
    let contents = &seal.contents;
    let count = |count: i64, noun| human::counted(count.unsigned_abs(), noun);
    session.print(&format!(
        "{}: the database, {}, with {} and {}; tried and good",
        dir.display(),
        human::size(seal.database.bytes),
        count(contents.tasks, "task"),
        count(contents.stored, "stored file"),
    ))?;
    let looked = seal.media_check.in_words();
    session.print(&format!(
        "the files themselves, {}, are not in it ({looked}): {MANIFEST} lists what to copy",
        human::size(contents.stored_bytes.unsigned_abs())
    ))?;
    session.note(&format!(
        "took {:.1} s",
        Duration::from_millis(seal.duration_ms).as_secs_f64()
    ));
    Ok(())
}

/// Says what is wrong with the files.
fn warn(check: &MediaCheck, session: &mut Session) {
    if check.findings.is_empty() {
        return;
    }
    for finding in &check.findings {
        session.note(finding);
    }
    let more = check.wrong().saturating_sub(check.findings.len() as u64);
    if more > 0 {
        session.note(&format!("and {more} more"));
    }
    if !check.done {
        session.note("not all files were looked for");
    }
    session.note("the copy of the database is good; `reelhook scrub --repair` has such files fetched again");
}

/// Runs work on a thread that may block.
fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> impl Future<Output = anyhow::Result<T>> {
    let work = tokio::task::spawn_blocking(work);
    async { work.await? }
}
