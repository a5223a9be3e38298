//! A delivery that is believed over another one: what becomes of the files.

use std::collections::HashSet;

use sqlx::Row;

use super::downloads::{self, NewDownload};
use super::record::to_json;
use super::writer::{Tx, next};
use crate::clock::Millis;
use crate::provider::{Kind, Media};

/// What is believed from now on.
#[derive(Debug)]
pub(super) struct Overruling<'d> {
    pub(super) kind: &'d Kind,
    pub(super) index: u32,
    pub(super) media: &'d [Media],
    /// When the delivery came: the media's lifetimes count from there.
    pub(super) received_at: Millis,
}

/// A file as it is before.
struct Present {
    id: i64,
    role: String,
    n: u32,
    url: String,
    stored: bool,
}

/// Gives the task the files that the overruling delivery names. Stored ones stay; of the others, those it names are queued
/// and the rest fail as `superseded`. The caller refreshes the task's summary.
pub(super) async fn files(tx: &mut Tx<'_>, task: i64, by: &Overruling<'_>) -> Result<(), sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id, role, n, url, state = 'stored' FROM downloads WHERE task = $1 AND kind = $2 AND idx = $3",
    )
    .bind(task)
    .bind(by.kind.as_str())
    .bind(by.index)
    .fetch_all(&mut *tx.connection)
    .await?;
    let present = rows
        .iter()
        .map(|row| {
            Ok(Present {
                id: row.try_get(0)?,
                role: row.try_get(1)?,
                n: row.try_get(2)?,
                url: row.try_get(3)?,
                stored: row.try_get(4)?,
            })
        })
        .collect::<Result<Vec<_>, sqlx::Error>>()?;
    let wanted = place(by.media, &present);
    let named: HashSet<(&str, u32)> = wanted
        .iter()
        .map(|media| (media.role.as_str(), media.n))
        .collect();
    let superseded: Vec<i64> = present
        .iter()
        .filter(|file| !file.stored && !named.contains(&(file.role.as_str(), file.n)))
        .map(|file| file.id)
        .collect();
    let files: Vec<NewDownload> = wanted
        .iter()
        .map(|media| {
            let id = next(&mut tx.ids.download);
            let mut file = NewDownload::announced(id, task, (by.kind, by.index), media, by.received_at);
            // Settled by hand, perhaps days later: due at once.
            file.due_at(tx.now);
            file
        })
        .collect();
    downloads::insert(tx, &files).await?;
    let change = tx.next_change();
    sqlx::query(
        "UPDATE downloads SET state = 'failed', error_code = 'superseded', lease_until = NULL,
            error_detail = 'another delivery was believed instead, which does not name this file', updated_at = $2,
            change_seq = $3
         WHERE id IN (SELECT value FROM jsonb_each($1))",
    )
    .bind(to_json(&superseded))
    .bind(tx.now)
    .bind(change)
    .execute(&mut *tx.connection)
    .await?;
    Ok(())
}

/// Gives each announced file its place: its own if that is free or not stored yet, none if it is stored already
/// under the same URL, the next free one of its role if another file is stored there.
fn place(announced: &[Media], present: &[Present]) -> Vec<Media> {
    let mut taken: HashSet<(String, u32)> = present
        .iter()
        .filter(|file| file.stored)
        .map(|file| (file.role.clone(), file.n))
        .collect();
    let is_stored = |media: &Media| {
        present
            .iter()
            .any(|file| file.stored && file.role == media.role.as_str() && file.url == media.url)
    };
    let mut placed = Vec::new();
    for media in announced.iter().filter(|media| !is_stored(media)) {
        let role = media.role.as_str().to_owned();
        let mut n = media.n;
        while taken.contains(&(role.clone(), n)) {
            n += 1;
        }
        taken.insert((role, n));
        placed.push(Media { n, ..media.clone() });
    }
    placed
}
