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
    id       INTEGER PRIMARY KEY,
    began_at INTEGER NOT NULL,
    ended_at INTEGER,                           -- NULL: under way, or cut off by a stop
    repair   INTEGER NOT NULL,                  -- whether damaged files are fetched again
    last     INTEGER NOT NULL,                  -- the download that was looked at last: where to go on
    files    INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    damaged  INTEGER NOT NULL,                  -- other bytes than were stored
    missing  INTEGER NOT NULL,
    repaired INTEGER NOT NULL                   -- queued again
) STRICT;
