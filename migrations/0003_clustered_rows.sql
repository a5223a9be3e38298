-- What a fresh callback inserts, cheaper still: the rows of a task lie together because of their ids, and need no index
-- that says whose they are. `id = task << 24 | n`, with n counting on from 0: the rows of a task are those with an id
-- between `task << 24` and `(task << 24) + 0xFFFFFF` (`store::ranges`). Reading `task` costs nothing, but looking for it does.

CREATE TABLE clustered_outcomes (
    id             INTEGER PRIMARY KEY,         -- in the order they came into being
    task           INTEGER GENERATED ALWAYS AS (id >> 24) VIRTUAL,
    kind           TEXT    NOT NULL,            -- (task, kind, idx) is unique: the writer looks before it inserts
    idx            INTEGER NOT NULL,
    state          TEXT    NOT NULL,
    code           INTEGER,
    msg            TEXT,
    failure        TEXT,                        -- JSON
    resolution     TEXT,
    fallback       INTEGER,
    credits        REAL,
    via            TEXT,                        -- callback, poll or api; NULL while only expected
    received_at    INTEGER,
    digest         BLOB,                        -- what makes two deliveries equal; NULL while only expected
    has_media      INTEGER NOT NULL,
    accepted_rows  INTEGER NOT NULL,            -- delivery rows kept, by verdict: each is bounded
    duplicate_rows INTEGER NOT NULL,
    conflict_rows  INTEGER NOT NULL,
    conflicts      INTEGER NOT NULL             -- open ones, counted beyond the rows kept
) STRICT;

-- Which outcome is which from now on.
CREATE TABLE moved_outcomes (
    was  INTEGER PRIMARY KEY,
    task INTEGER NOT NULL,
    id   INTEGER NOT NULL
) STRICT;
INSERT INTO moved_outcomes
    SELECT id, task, task << 24 | row_number() OVER (PARTITION BY task ORDER BY id) - 1 FROM outcomes;

INSERT INTO clustered_outcomes
    SELECT m.id, kind, idx, state, code, msg, failure, resolution, fallback, credits, via, received_at, digest, has_media,
           accepted_rows, duplicate_rows, conflict_rows, conflicts
    FROM moved_outcomes m JOIN outcomes o ON o.task = m.task AND o.id = m.was ORDER BY m.id;
UPDATE deliveries SET outcome = (SELECT id FROM moved_outcomes WHERE was = deliveries.outcome)
    WHERE outcome IS NOT NULL;

CREATE TABLE clustered_downloads (
    id           INTEGER PRIMARY KEY,           -- in the order they came into being
    task         INTEGER GENERATED ALWAYS AS (id >> 24) VIRTUAL,
    kind         TEXT    NOT NULL,              -- (task, kind, idx, role, n) is unique: the writer looks before it inserts
    idx          INTEGER NOT NULL,
    role         TEXT    NOT NULL,
    n            INTEGER NOT NULL,
    name         TEXT    NOT NULL,
    url          TEXT    NOT NULL,
    host         TEXT    NOT NULL,
    state        TEXT    NOT NULL,              -- queued, held, needs_url, downloading, stored, failed, deleted
    deadline     INTEGER NOT NULL,              -- when the provider is expected to delete it
    next_at      INTEGER NOT NULL,              -- not before
    waits_until  INTEGER,                       -- next_at, of a queued one that was put off and has not been found due yet
    attempts     INTEGER NOT NULL,              -- those that counted
    lease_token  INTEGER,
    lease_until  INTEGER,
    bytes        INTEGER,
    sha256       BLOB,
    content_type TEXT,
    storage_key  TEXT,
    error_code   TEXT,
    error_detail TEXT,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    change_seq   INTEGER NOT NULL
) STRICT;
INSERT INTO clustered_downloads
    SELECT task << 24 | row_number() OVER (PARTITION BY task ORDER BY id) - 1, kind, idx, role, n, name, url, host, state,
           deadline, next_at, CASE WHEN state = 'queued' AND next_at > created_at THEN next_at END, attempts, lease_token,
           lease_until, bytes, sha256, content_type, storage_key, error_code, error_detail, created_at, updated_at,
           change_seq
    FROM downloads ORDER BY 1;

DROP TABLE moved_outcomes;
DROP TABLE outcomes;
DROP TABLE downloads;
ALTER TABLE clustered_outcomes RENAME TO outcomes;
ALTER TABLE clustered_downloads RENAME TO downloads;

-- The queue: a claim goes from host to host, to the earliest deadline of each. (With `waits_until`, which is NULL in all
-- of it, SQLite sees that it needs not look at the rows.)
CREATE INDEX downloads_by_host ON downloads (host, deadline, created_at, waits_until)
    WHERE state = 'queued' AND waits_until IS NULL;
-- Those that were put off enter it once they are due.
CREATE INDEX downloads_waiting ON downloads (waits_until, created_at) WHERE waits_until IS NOT NULL;
CREATE INDEX downloads_leased ON downloads (lease_until, host) WHERE state = 'downloading';

CREATE TRIGGER downloads_change_state AFTER UPDATE OF state ON downloads WHEN OLD.state IS NOT NEW.state
BEGIN
    UPDATE counters SET value = value - 1 WHERE name = 'files.' || OLD.state;
    UPDATE counters SET value = value + 1 WHERE name = 'files.' || NEW.state;
    UPDATE counters SET value = value + CASE 'stored' WHEN NEW.state THEN COALESCE(NEW.bytes, 0)
                                                      WHEN OLD.state THEN -COALESCE(OLD.bytes, 0) ELSE 0 END
        WHERE name = 'stored_bytes';
END;
CREATE TRIGGER downloads_go AFTER DELETE ON downloads
BEGIN
    UPDATE counters SET value = value - 1 WHERE name = 'files.' || OLD.state;
    UPDATE counters SET value = value - COALESCE(OLD.bytes, 0) WHERE name = 'stored_bytes' AND OLD.state = 'stored';
END;
DELETE FROM counters WHERE name = 'outcome';
