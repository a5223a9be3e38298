//! Fills a database with stored tasks: with the counts in [`crate::data_dir`], all that the benchmark knows of the schema.
//!
//! The server itself makes the pattern, one callback received and its file stored, and SQL multiplies it: row numbers
//! count on from the pattern's, ids and digests are random, so that every index is as scattered as in real life, times
//! are spread over the last hours, and all the rest is as the server wrote it. A column that is added to the schema needs
//! nothing here, unless it is unique or points to another row.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};

use crate::data_dir::DataDir;
use crate::media::MediaHost;
use crate::rig::callback::Callbacks;
use crate::rig::server::get;
use crate::wire::Connection;

/// Columns that hold the number of a row, of this table or another, or count on with them.
const NUMBERS: [&str; 3] = ["id", "task", "change_seq"];
/// Tables and their columns that hold the number of a row in its task's range.
const IN_RANGES: [(&str, &str); 5] = [
    ("outcomes", "id"),
    ("downloads", "id"),
    ("deliveries", "outcome"),
    ("attempts", "download"),
    ("stored_urls", "download"),
];
/// Tables of sums: a multiple of what the pattern added, as `(table, name column, value column)`.
const SUMS: [(&str, &str, &str); 1] = [("counters", "name", "value")];
/// Tables of which a task of yesterday has no row.
const LEFT_OUT: [&str; 3] = ["bindings", "_sqlx_migrations", "instance"];
/// The index of prompts, with what SQLite keeps beside it: the server fills it.
const INDEX: &str = "prompts";
/// The first start fills the index of task ids, as after a migration.
const FIRST_START: Duration = Duration::from_mins(5);
/// How far back the tasks were received: no longer than anything is kept by default.
const HOURS: u32 = 12;

/// The pattern is stored well within this.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many task ids are handed back.
const SAMPLE: u64 = 500;

/// Makes `tasks` stored tasks in `data`, which is new, and returns some of their ids.
pub(crate) async fn seed(data: &DataDir, tasks: u64) -> anyhow::Result<Vec<String>> {
    drop(data.serve()?);
    let before = sums(&mut data.database().await?).await?;
    let pattern = store_one(data).await?;
    let mut database = data.database().await?;
    // A run that is cut short throws the database away, so nothing has to be undone, and it is synced as a whole below.
    let in_haste = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000;
                    PRAGMA temp_store = MEMORY; PRAGMA foreign_keys = OFF";
    sqlx::raw_sql(in_haste).execute(&mut database).await?;
    sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&mut database).await?;
    number_clones(&mut database, tasks).await?;
    for table in tables(&mut database).await? {
        multiply(&mut database, &table, &pattern).await?;
    }
    for sum in before {
        sum.multiply(&mut database, tasks).await?;
    }
    sqlx::raw_sql("COMMIT").execute(&mut database).await?;
    let ids = sqlx::query_scalar(
        "SELECT task_id FROM clones WHERE n % max(1, (SELECT count(*) FROM clones) / ?1) = 0",
    )
    .bind(i64::try_from(SAMPLE)?)
    .fetch_all(&mut database)
    .await?;
    sqlx::raw_sql("PRAGMA journal_mode = WAL")
        .execute(&mut database)
        .await?;
    database.close().await?;
    data.sync()?;
    drop(data.serve_within(FIRST_START).await?);
    Ok(ids)
}

/// Has the server receive one callback and store its file; returns the task's id.
async fn store_one(data: &DataDir) -> anyhow::Result<String> {
    let host = MediaHost::giving().await?;
    let (server, _) = data.serve_until_ready().await?;
    let mut connection = Connection::open(server.addr).await?;
    let mut callbacks = Callbacks::new(getrandom::u64()?, host.port);
    let status = connection.status_of(callbacks.next()).await?;
    connection.body().await?;
    ensure!(status == 200, "the pattern was refused with {status}");
    let began = Instant::now();
    loop {
        let (_, listed) = get(&mut connection, "/v1/tasks").await?;
        let listed: Value = serde_json::from_slice(&listed)?;
        let task = &listed["tasks"][0];
        if task["media"] == "stored" {
            let id = task["task_id"].as_str().context("a task without an id")?;
            return Ok(id.to_owned());
        }
        ensure!(began.elapsed() < PATIENCE, "the pattern is not stored: {task}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A table of numbers, random task ids and ages, a row for each task but the pattern.
async fn number_clones(database: &mut SqliteConnection, tasks: u64) -> anyhow::Result<()> {
    let (clones, span) = (
        i64::try_from(tasks.saturating_sub(1))?,
        i64::from(HOURS) * 3_600_000,
    );
    sqlx::query(
        "CREATE TEMP TABLE clones AS
         WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1)
         SELECT n, lower(hex(randomblob(16))) AS task_id, (?1 - n) * ?2 / ?1 AS age FROM numbers",
    )
    .bind(clones)
    .bind(span)
    .execute(database)
    .await?;
    Ok(())
}

/// The tables that the pattern has its row in.
async fn tables(database: &mut SqliteConnection) -> anyhow::Result<Vec<String>> {
    let all: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
    )
    .fetch_all(&mut *database)
    .await?;
    let mut cloned = Vec::new();
    for table in all {
        if LEFT_OUT.contains(&&*table)
            || table.starts_with(INDEX)
            || SUMS.iter().any(|(sums, ..)| *sums == table)
        {
            continue;
        }
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
            .fetch_one(&mut *database)
            .await?;
        match rows {
            0 => {}
            1 => cloned.push(table),
            _ => bail!("one task has {rows} rows in {table}: tell benches/ingest/seed.rs what they are"),
        }
    }
    Ok(cloned)
}

/// Inserts a row for each clone, in the order of their numbers.
async fn multiply(database: &mut SqliteConnection, table: &str, pattern: &str) -> anyhow::Result<()> {
    let columns = sqlx::query("SELECT name, type FROM pragma_table_info(?1)")
        .bind(table)
        .fetch_all(&mut *database)
        .await?;
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for column in columns {
        let (name, kind): (String, String) = (column.try_get(0)?, column.try_get(1)?);
        values.push(value(table, &name, &kind));
        names.push(name);
    }
    let (names, values) = (names.join(", "), values.join(", "));
    // From a copy, because reading the table that is written would pile up all new rows first. CROSS keeps SQLite from
    // turning the loops around.
    let copy =
        format!("DROP TABLE IF EXISTS temp.pattern; CREATE TEMP TABLE pattern AS SELECT * FROM {table}");
    sqlx::raw_sql(AssertSqlSafe(copy)).execute(&mut *database).await?;
    let sql = format!("INSERT INTO {table} ({names}) SELECT {values} FROM temp.pattern CROSS JOIN clones");
    sqlx::query(AssertSqlSafe(sql))
        .bind(pattern)
        .execute(database)
        .await
        .with_context(|| format!("{table} cannot be multiplied"))?;
    Ok(())
}

/// What stands in a column of a clone; `?1` is the pattern's task id.
fn value(table: &str, name: &str, kind: &str) -> String {
    let column = format!("pattern.{name}");
    match kind {
        "INTEGER" if IN_RANGES.contains(&(table, name)) => format!("{column} + (clones.n << 24)"),
        "INTEGER" if NUMBERS.contains(&name) => format!("{column} + clones.n"),
        "INTEGER" if name.ends_with("_at") => format!("{column} - clones.age"),
        "TEXT" => format!("replace({column}, ?1, clones.task_id)"),
        // A digest, or a body with the id in it.
        "BLOB" => format!(
            "CASE WHEN length({column}) <= 64 THEN randomblob(length({column}))
                  ELSE CAST(replace(CAST({column} AS TEXT), ?1, clones.task_id) AS BLOB) END"
        ),
        _ => column,
    }
}

/// A sum as it was before the pattern.
struct Sum {
    table: &'static str,
    name_column: &'static str,
    value_column: &'static str,
    name: String,
    value: i64,
}

async fn sums(database: &mut SqliteConnection) -> anyhow::Result<Vec<Sum>> {
    let mut sums = Vec::new();
    for (table, name_column, value_column) in SUMS {
        let sql = format!("SELECT {name_column}, {value_column} FROM {table}");
        let rows: Vec<(String, i64)> = sqlx::query_as(AssertSqlSafe(sql))
            .fetch_all(&mut *database)
            .await?;
        sums.extend(rows.into_iter().map(|(name, value)| Sum {
            table,
            name_column,
            value_column,
            name,
            value,
        }));
    }
    Ok(sums)
}

impl Sum {
    /// What one task added is added for each.
    async fn multiply(&self, database: &mut SqliteConnection, tasks: u64) -> sqlx::Result<()> {
        let Self {
            table,
            name_column,
            value_column,
            name,
            value,
        } = self;
        let sql = format!(
            "UPDATE {table} SET {value_column} = ?1 + ({value_column} - ?1) * ?2 WHERE {name_column} = ?3"
        );
        sqlx::query(AssertSqlSafe(sql))
            .bind(value)
            .bind(i64::try_from(tasks).unwrap_or(i64::MAX))
            .bind(name)
            .execute(database)
            .await?;
        Ok(())
    }
}
