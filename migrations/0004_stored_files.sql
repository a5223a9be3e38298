-- What stored files are, and whether they are still whole.

-- What the structure of the file says of it; NULL where it says nothing.
ALTER TABLE downloads ADD COLUMN duration_ms INTEGER;
ALTER TABLE downloads ADD COLUMN width INTEGER;
ALTER TABLE downloads ADD COLUMN height INTEGER;
ALTER TABLE downloads ADD COLUMN codec TEXT;

-- Stored files, the first stored first: retention goes along it.
CREATE INDEX downloads_stored ON downloads (updated_at) WHERE state = 'stored';

-- Each time that all stored files were read again and compared; the newest rows are kept.
CREATE TABLE scrubs (
    id          INTEGER PRIMARY KEY,
    began_at    INTEGER NOT NULL,
    ended_at    INTEGER,                        -- NULL: under way, or cut off by a stop, and then the next start goes on
    complete    INTEGER NOT NULL,               -- whether it came to its end; somebody stopped it otherwise
    background  INTEGER NOT NULL,               -- whether it came by itself, and leaves the disk to others
    repair      INTEGER NOT NULL,               -- whether damaged files are fetched again
    last        INTEGER NOT NULL,               -- the download that was looked at last: where to go on
    upto        INTEGER NOT NULL,               -- the last one there was when it began
    files_total INTEGER NOT NULL,               -- as counted when it began
    bytes_total INTEGER NOT NULL,
    files       INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    damaged     INTEGER NOT NULL,               -- other bytes than were stored
    missing     INTEGER NOT NULL,
    unreadable  INTEGER NOT NULL,               -- the storage failed to give them
    repaired    INTEGER NOT NULL,               -- queued again, or put back by somebody and found whole
    none_of     INTEGER NOT NULL DEFAULT 0      -- it ended at once: so many files looked for first, and none was there
) STRICT;

-- Files to be removed from the storage, by their key. A key is noted in the transaction that takes it from its row, and
-- forgotten once the file is gone; source and task id say under which lock that happens.
CREATE TABLE doomed_keys (
    task_id     TEXT NOT NULL,
    source      TEXT NOT NULL,
    storage_key TEXT NOT NULL,                  -- empty: all in the task's directory, doomed before keys were noted
    -- The claim that publishes the file, beside an older one that its row names: doomed unless that is settled.
    download    INTEGER,
    lease_token INTEGER,
    PRIMARY KEY (task_id, source, storage_key)
) STRICT, WITHOUT ROWID;
INSERT INTO doomed_keys (task_id, source, storage_key) SELECT task_id, source, '' FROM doomed_files;
DROP TABLE doomed_files;

-- What they found, the first thousand of each.
CREATE TABLE scrub_findings (
    scrub   INTEGER NOT NULL,
    n       INTEGER NOT NULL,
    source  TEXT    NOT NULL,
    task_id TEXT    NOT NULL,
    name    TEXT    NOT NULL,
    wrong   TEXT    NOT NULL,                   -- damaged, missing or unreadable
    detail  TEXT    NOT NULL,
    queued  INTEGER NOT NULL,                   -- whether it is fetched again
    PRIMARY KEY (scrub, n)
) STRICT, WITHOUT ROWID;
