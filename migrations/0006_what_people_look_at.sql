-- What people look at: how each file came, and words to find a task by.

-- Attempts to fetch a file, and other links that were obtained for it, the newest of each file; written in the transaction
-- that ends them. A fresh callback writes none.
CREATE TABLE attempts (
    download INTEGER NOT NULL,
    n        INTEGER NOT NULL,                  -- counting on
    began_at INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    outcome  TEXT    NOT NULL,                  -- stored, the code of what went wrong, stopped, interrupted,
                                                -- refreshed or not_refreshed
    detail   TEXT,                              -- a sentence about it
    bytes    INTEGER,                           -- of the file that were there in the end
    PRIMARY KEY (download, n)
) STRICT, WITHOUT ROWID;

-- What the URL of a rejected delivery said that is needed to judge it again: `token` if it had one of the source's, and its
-- `ref`. Of those from before nobody knows.
ALTER TABLE deliveries ADD COLUMN query TEXT;
UPDATE deliveries SET query = 'unknown' WHERE verdict = 'rejected';
