//! The writer's prepared statements, each found by where its text lies in the program.
//!
//! A callback runs half a dozen of them: comparing their texts, as a cache for any text has to, cost it as much as one of
//! its rows.

use std::cell::RefCell;
use std::collections::HashMap;
use std::{fmt, ptr};

use rusqlite::{Connection, Params, PrepFlags, Row, Statement};

/// Statements that are prepared once, for as long as the connection lives.
pub(super) struct Statements<'c> {
    db: &'c Connection,
    prepared: RefCell<HashMap<*const str, Statement<'c>>>,
}

impl<'c> Statements<'c> {
    pub(super) fn of(db: &'c Connection) -> Self {
        Self {
            db,
            prepared: RefCell::default(),
        }
    }

    /// Runs a statement; how many rows it changed.
    pub(super) fn execute(&self, sql: &'static str, params: impl Params) -> rusqlite::Result<usize> {
        self.with(sql, |statement| statement.execute(params))
    }

    /// What a statement finds, read row by row.
    pub(super) fn all<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        self.with(sql, |statement| statement.query_map(params, read)?.collect())
    }

    fn with<T>(
        &self,
        sql: &'static str,
        run: impl FnOnce(&mut Statement<'c>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let mut prepared = self.prepared.borrow_mut();
        if let Some(statement) = prepared.get_mut(&ptr::from_ref(sql)) {
            return run(statement);
        }
        let statement = self
            .db
            .prepare_with_flags(sql, PrepFlags::SQLITE_PREPARE_PERSISTENT)?;
        run(prepared.entry(ptr::from_ref(sql)).or_insert(statement))
    }
}

impl fmt::Debug for Statements<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statements").finish_non_exhaustive()
    }
}
