-- What people look at: how each file came, and words to find a task by.

-- Attempts to fetch a file, the newest of each; written with the settlement.
CREATE TABLE attempts (
    download INTEGER NOT NULL,
    n        INTEGER NOT NULL,                  -- counting on
    began_at INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    outcome  TEXT    NOT NULL,                  -- stored, or the code of what went wrong
    detail   TEXT,                              -- a sentence about it
    bytes    INTEGER,                           -- that came
    PRIMARY KEY (download, n)
) STRICT, WITHOUT ROWID;
