//! A delivery that is believed over another one: what becomes of the files.

use std::collections::HashSet;

use rusqlite::params;

use super::downloads::{self, NewDownload, Present};
use super::writer::Tx;
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
    /// Whether they wait until the provider confirmed them.
    pub(super) hold: bool,
}

/// Gives the task the files that the overruling delivery names. Stored ones stay; of the others, those it names are queued
/// and the rest fail as `superseded`. The caller refreshes the task's summary.
pub(super) fn files(tx: &mut Tx<'_>, task: i64, by: &Overruling<'_>) -> rusqlite::Result<()> {
    let present = downloads::present(tx, task, (by.kind, by.index))?;
    let wanted = place(by.media, &present);
    for media in &wanted {
        let mut file = NewDownload::announced(task, (by.kind, by.index), media, by.received_at);
        // Settled by hand, perhaps days later: due at once.
        file.due_at(tx.now);
        if by.hold {
            file.hold();
        }
        file.insert(tx, &present)?;
    }
    let named: HashSet<(&str, u32)> = wanted
        .iter()
        .map(|media| (media.role.as_str(), media.n))
        .collect();
    let superseded = present
        .iter()
        .filter(|file| !file.stored && !named.contains(&(file.role.as_str(), file.n)));
    let change = tx.next_change(task);
    for file in superseded {
        tx.execute(
            "UPDATE downloads SET state = 'failed', error_code = 'superseded', waits_until = NULL, lease_until = NULL,
                error_detail = 'another delivery was believed instead, which does not name this file',
                updated_at = ?2, change_seq = ?3 WHERE id = ?1",
            params![file.id, tx.now, change],
        )?;
        tx.note_ended(task, file.id);
    }
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
