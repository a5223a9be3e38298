//! A scrub without a server, under the lock of the data directory.

use std::time::Duration;

use anyhow::Context as _;
use indicatif::ProgressBar;
use serde_json::Value;

use super::super::Session;
use super::super::answers::Scrub;
use super::super::instance::existing_storage_of;
use super::{Args, PAUSE, draw};
use crate::clock::Clock;
use crate::config::{Config, Overrides};
use crate::http::scrub_json;
use crate::scrub::{Scrubber, Settings};
use crate::shutdown::Tasks;
use crate::storage::Storage;
use crate::store::Store;
use crate::store::data_dir::{DataDir, DataDirError};
use crate::store::scrub::Orders;

/// How long the last commits may take.
const LAST_COMMITS: Duration = Duration::from_secs(10);

/// Scrubs and gives what came of it, as the server would.
pub(super) async fn scrub(args: &Args, session: &Session, bar: &ProgressBar) -> anyhow::Result<Value> {
    let config = session.config(Overrides {
        data_dir: args.data_dir.clone(),
        ..Overrides::default()
    })?;
    let data = locked(&config)?;
    let (tasks, writer) = (Tasks::new(), Tasks::new());
    let storage = existing_storage_of(&config, &tasks)?;
    let store = Store::open(&data.database(), Clock::system(), &writer).await?;
    let ended = carry_out(args.repair, (&store, storage), &tasks, bar).await;
    tasks.drain(LAST_COMMITS).await;
    drop(store);
    writer.drain(LAST_COMMITS).await;
    ended
}

fn locked(config: &Config) -> anyhow::Result<DataDir> {
    let database = DataDir::database_in(&config.data_dir);
    anyhow::ensure!(
        database.exists(),
        "there is no database {}; name its directory with --data-dir, or the configuration with --config",
        database.display()
    );
    DataDir::open(&config.data_dir).map_err(|error| match error {
        DataDirError::InUse(dir) => {
            anyhow::anyhow!("a server runs on {dir}: leave out --offline to have it scrub, or stop it first")
        }
        unusable @ DataDirError::Unusable { .. } => unusable.into(),
    })
}

async fn carry_out(
    repair: bool,
    (store, storage): (&Store, Storage),
    tasks: &Tasks,
    bar: &ProgressBar,
) -> anyhow::Result<Value> {
    // What a server left undone was to read no more than this does.
    if let Some(cut_off) = store.unfinished_scrub().await? {
        store.end_scrub(cut_off, false).await?;
    }
    let parts = (Clock::system(), tasks.clone());
    let scrubber = Scrubber::new(store.clone(), storage, parts, Settings::default());
    let orders = Orders {
        background: false,
        repair,
    };
    let begun = scrubber.begin(orders).await?;
    let running = async {
        while let Some(progress) = scrubber.progress().await {
            let shown = scrub_json(progress.scrub, Some(progress), Vec::new());
            draw(bar, &serde_json::from_value::<Scrub>(shown).unwrap_or_default());
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::pin!(running);
    tokio::select! {
        () = &mut running => {}
        _ = tokio::signal::ctrl_c() => {
            scrubber.stop().await;
            running.await;
        }
    }
    let last = store.last_scrub().await?.filter(|last| last.id == begun.id);
    let last = last.context("the database failed meanwhile; `reelhook serve` would go on with the scrub")?;
    let findings = store.scrub_findings(last.id).await?;
    Ok(scrub_json(last, None, findings))
}
