//! Two databases, two servers, and requests to both in turn.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use sqlx::Connection as _;

use crate::Args;
use crate::data_dir::DataDir;
use crate::report::{Page, Report, Side};
use crate::rig::machine::Machine;
use crate::rig::progress::Progress;
use crate::rig::server::{Server, get};
use crate::seed::seed;
use crate::wire::Connection;

/// Tasks of the small database.
const FEW: u64 = 1_000;
/// One task in so many has failed, so that there is something to look for.
const FAILED: u64 = 997;
/// The seconds that a million tasks are expected to take, for the estimate only.
const PER_MILLION: f64 = 60.0;
/// What a page is expected to take, for the estimate only.
const PER_PAGE: f64 = 2.0;
/// What a server still does after its start, such as indexing the words of prompts, is over by then.
const SETTLING: Duration = Duration::from_secs(2);

/// What is asked for: a name, and the path; `{id}` stands for the id of a stored task.
const PAGES: [(&str, &str); 12] = [
    ("the overview", "/"),
    ("tasks as a gallery", "/tasks"),
    ("tasks as a table", "/tasks?view=table"),
    ("failed tasks", "/tasks?state=failed"),
    ("tasks by words of the prompt", "/tasks?words=golden+retriever"),
    ("tasks by words that none has", "/tasks?words=zeppelin"),
    ("one task", "/tasks/{id}?source=kie"),
    ("deliveries", "/deliveries"),
    ("`GET /v1/tasks`", "/v1/tasks"),
    ("`GET /v1/tasks/{id}`", "/v1/tasks/{id}"),
    ("`GET /v1/stats`", "/v1/stats"),
    ("`GET /metrics`", "/metrics"),
];

/// A server on a database.
struct Seeded {
    server: Server,
    /// Of a task that is stored.
    id: String,
    _data: DataDir,
}

/// Runs everything.
pub(crate) async fn measure(args: &Args) -> anyhow::Result<Report> {
    let machine = Machine::this();
    let many = u64::from(args.thousands) * 1_000;
    let pages = u32::try_from(PAGES.len())?;
    let seeding = PER_MILLION * f64::from(args.thousands) / 1_000.0;
    let progress = Progress::new(seeding + PER_PAGE * f64::from(pages));
    let few = serve(FEW).await?;
    let many_tasks = serve(many).await?;
    progress.step(seeding, &format!("{many} tasks and {FEW} are stored"));
    tokio::time::sleep(SETTLING).await;

    let mut report = Report::new(machine, many, args.requests);
    for (name, path) in PAGES {
        let page = time(name, path, (&few, &many_tasks), args.requests).await?;
        progress.step(PER_PAGE, &page.line());
        report.pages.push(page);
    }
    report.peak_memory = many_tasks.server.peak_memory()?;
    report.judge();
    Ok(report)
}

async fn serve(tasks: u64) -> anyhow::Result<Seeded> {
    let data = DataDir::below(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    let ids = seed(&data, tasks).await?;
    let mut database = data.database().await?;
    sqlx::query("UPDATE tasks SET state = 'failed' WHERE id % ?1 = 0")
        .bind(i64::try_from(FAILED)?)
        .execute(&mut database)
        .await?;
    database.close().await?;
    let (server, _) = data.serve_until_ready().await?;
    Ok(Seeded {
        server,
        id: ids.into_iter().next().context("nothing was seeded")?,
        _data: data,
    })
}

/// Asks for a page, in turn of the one server and the other.
async fn time(
    name: &str,
    path: &str,
    (few, many): (&Seeded, &Seeded),
    requests: u16,
) -> anyhow::Result<Page> {
    let mut page = Page::new(name, path);
    let mut sides = [(few, &mut page.few), (many, &mut page.many)];
    for (seeded, side) in &mut sides {
        // What only the first request pays: statements to prepare, pages of the database to read.
        ask(seeded, path, side).await?;
        side.first_us = side.times_us.pop().unwrap_or_default();
    }
    for _ in 0..requests {
        for (seeded, side) in &mut sides {
            ask(seeded, path, side).await?;
        }
    }
    Ok(page)
}

async fn ask(seeded: &Seeded, path: &str, side: &mut Side) -> anyhow::Result<()> {
    let path = path.replace("{id}", &seeded.id);
    let mut connection = Connection::open(seeded.server.addr).await?;
    let began = Instant::now();
    let (status, body) = get(&mut connection, &path).await?;
    side.times_us.push(u32::try_from(began.elapsed().as_micros())?);
    side.bytes = body.len();
    ensure!(status == 200, "{path} was answered {status}");
    Ok(())
}
