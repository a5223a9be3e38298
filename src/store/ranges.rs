//! Ids of the rows that a task has in a table of its own kind, outcomes or downloads: all in one range, so that they lie
//! together and are found without an index.

use rusqlite::params;

use super::writer::Tx;

/// Bits of an id that number the rows of one task; the task's own id is above them.
const BITS: u32 = 24;
/// How many rows a task can have in one table. `of_task` and the schema know it too.
const ROWS: i64 = 1 << BITS;
/// The first task without a range.
const TASKS: i64 = 1 << (63 - BITS);

/// SQL that selects the rows of a task, perhaps in a table that goes by another name, or by a column that holds the id of
/// such a row.
macro_rules! of_task {
    ($task:literal) => {
        of_task!(by "id", $task)
    };
    (by $column:literal, $task:literal) => {
        concat!($column, " BETWEEN ", $task, " << 24 AND (", $task, " << 24) + 16777215")
    };
    ($table:literal, $task:literal) => {
        concat!($table, ".", of_task!($task))
    };
}
pub(super) use of_task;

/// Why there is no id for a row; the command that asked for it fails, and nothing else.
#[derive(Debug, thiserror::Error)]
#[error("task {task} has no room for another row: {ROWS} of one kind are the most, and {TASKS} tasks")]
struct Full {
    task: i64,
}

/// The id of a row of a task, by its number.
pub(super) fn nth(task: i64, n: i64) -> rusqlite::Result<i64> {
    if (0..TASKS).contains(&task) && (0..ROWS).contains(&n) {
        return Ok(task << BITS | n);
    }
    Err(rusqlite::Error::ToSqlConversionFailure(Box::new(Full { task })))
}

/// The id of the next row of a task; `last` finds the last of those that it has, if it has any.
pub(super) fn next(tx: &Tx<'_>, task: i64, last: &'static str) -> rusqlite::Result<i64> {
    let last: Vec<i64> = tx.all(last, params![task], |row| row.get(0))?;
    nth(task, last.first().map_or(0, |last| (last & (ROWS - 1)) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_range_runs_over_into_no_other() {
        let last = nth(7, ROWS - 1).unwrap();
        assert_eq!(last + 1, nth(8, 0).unwrap());
        assert_eq!(last >> BITS, 7);
        let full = nth(7, ROWS).unwrap_err();
        assert!(full.to_string().contains("task 7 has no room"), "{full}");
        assert_eq!(nth(TASKS - 1, ROWS - 1).unwrap(), i64::MAX);
        nth(TASKS, 0).unwrap_err();
    }

    #[test]
    fn rows_are_looked_for_where_they_are() {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE rows (id INTEGER PRIMARY KEY)")
            .unwrap();
        for (task, n) in [(6, ROWS - 1), (7, 0), (7, ROWS - 1), (8, 0)] {
            let id = nth(task, n).unwrap();
            db.execute("INSERT INTO rows VALUES (?1)", params![id]).unwrap();
        }
        let found = concat!(
            "SELECT min(id), max(id), count(*) FROM rows r WHERE ",
            of_task!("r", "?1")
        );
        let found: (i64, i64, i64) = db
            .query_row(found, params![7], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .unwrap();
        assert_eq!(found, (7 << 24, (8 << 24) - 1, 2));
        let plan: String = db
            .query_row(
                concat!("EXPLAIN QUERY PLAN SELECT * FROM rows WHERE ", of_task!("?1")),
                params![7],
                |row| row.get(3),
            )
            .unwrap();
        assert!(plan.contains("rowid>? AND rowid<?"), "{plan}");
    }
}
