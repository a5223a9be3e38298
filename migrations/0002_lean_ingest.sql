-- What a callback costs the writer, cut to the bone: every row is appended, and no index is hit at random.
-- No foreign keys from here on: checking them cost a look-up a row. There is one writer, and it deletes a task's rows
-- together; the tests look for orphans.

-- Task rows by id. The newest are not in here yet: the writer keeps their keys in memory and writes them in sorted order,
-- thousands at a time, so that a page of this index is written for many of them and not for each. `counters.keyed` is the last task that is
-- in here for certain; later ones are read at the start.
CREATE TABLE task_keys (
    hash INTEGER NOT NULL,                      -- the first 8 bytes of the SHA-256 of the task id
    task INTEGER NOT NULL,
    PRIMARY KEY (hash, task)
) STRICT, WITHOUT ROWID;

CREATE TABLE lean_tasks (
    id          INTEGER PRIMARY KEY,
    source      TEXT    NOT NULL,               -- (task_id, source) is unique: the writer looks before it inserts
    task_id     TEXT    NOT NULL,
    state       TEXT    NOT NULL,               -- of (video, 0) if known, else of the newest outcome
    media       TEXT    NOT NULL,               -- summary over its downloads
    family      TEXT,
    params      TEXT,                           -- JSON, as the submitter gave it
    prompt      TEXT,
    created_at  INTEGER NOT NULL,
    received_at INTEGER,                        -- first delivery; NULL while only expected
    updated_at  INTEGER NOT NULL,
    deliveries  INTEGER NOT NULL,               -- accepted, duplicate and conflict, counted beyond the rows kept
    conflicts   INTEGER NOT NULL,               -- open ones
    change_seq  INTEGER NOT NULL
) STRICT;
INSERT INTO lean_tasks SELECT id, source, task_id, state, media, family, params, prompt, created_at, received_at,
                              updated_at, deliveries, conflicts, change_seq FROM tasks ORDER BY id;

CREATE TABLE lean_outcomes (
    task           INTEGER NOT NULL,
    kind           TEXT    NOT NULL,
    idx            INTEGER NOT NULL,
    id             INTEGER NOT NULL,            -- unique, in the order they came into being
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
    conflicts      INTEGER NOT NULL DEFAULT 0,  -- open ones, counted beyond the rows kept
    contradicted   INTEGER NOT NULL DEFAULT 0,  -- the provider's record speaks against a stored file
    ask_at         INTEGER,                     -- when the provider is asked next
    asks           INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (task, kind, idx)
) STRICT, WITHOUT ROWID;
INSERT INTO lean_outcomes SELECT task, kind, idx, id, state, code, msg, failure, resolution, fallback, credits, via,
                                 received_at, digest, has_media, accepted_rows, duplicate_rows, conflict_rows,
                                 conflicts, contradicted, ask_at, asks FROM outcomes ORDER BY task, kind, idx;

CREATE TABLE lean_downloads (
    id           INTEGER PRIMARY KEY,
    task         INTEGER NOT NULL,
    kind         TEXT    NOT NULL,
    idx          INTEGER NOT NULL,
    role         TEXT    NOT NULL,
    n            INTEGER NOT NULL,
    name         TEXT    NOT NULL,
    url          TEXT    NOT NULL,
    host         TEXT    NOT NULL,
    state        TEXT    NOT NULL,              -- queued, held, needs_url, downloading, stored, failed, deleted
    deadline     INTEGER NOT NULL,              -- when the provider is expected to delete it
    next_at      INTEGER NOT NULL,              -- not before
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
INSERT INTO lean_downloads SELECT id, task, kind, idx, role, n, name, url, host, state, deadline, next_at, attempts,
                                  lease_token, lease_until, bytes, sha256, content_type, storage_key, error_code,
                                  error_detail, created_at, updated_at, change_seq FROM downloads ORDER BY id;

CREATE TABLE lean_deliveries (
    id          INTEGER PRIMARY KEY,
    task        INTEGER,                        -- NULL: rejected, and the task unknown
    outcome     INTEGER,                        -- which it is counted on; NULL as for task
    source      TEXT    NOT NULL,
    task_id     TEXT,
    kind        TEXT,
    idx         INTEGER,
    received_at INTEGER NOT NULL,
    via         TEXT    NOT NULL,
    verdict     TEXT    NOT NULL,
    reason      TEXT,
    remote_addr TEXT,
    headers     TEXT    NOT NULL,               -- JSON object of the kept ones
    body_sha256 BLOB    NOT NULL,
    -- of the first under its signature, which is bound to source, kind, idx and body_sha256:
    binding     BLOB,                           -- SHA-256 over task id, timestamp and MAC
    bound_until INTEGER,                        -- when no tolerance accepts the signature any more
    -- of rejected ones, for the bounds of their ring:
    net         TEXT,                           -- /24 or /64 of the sender
    known       INTEGER,                        -- whether the task was known
    size        INTEGER,                        -- bytes kept
    body_of     INTEGER,                        -- an earlier delivery of the task that has the same body
    body        BLOB                            -- last, so that reading the rest does not touch it; NULL: not kept, or body_of
) STRICT;
INSERT INTO lean_deliveries
    WITH owners AS MATERIALIZED (
        SELECT task, body, min(id) AS id FROM deliveries
        WHERE task IS NOT NULL AND body IS NOT NULL AND verdict <> 'rejected' GROUP BY task, body)
    SELECT d.id, d.task, d.outcome, d.source, d.task_id, d.kind, d.idx, d.received_at, d.via, d.verdict, d.reason,
           d.remote_addr, d.headers, COALESCE(d.body_sha256, b.digest, x''), NULL, NULL, d.net, d.known, d.size,
           NULLIF(o.id, d.id), CASE WHEN o.id IS NULL OR o.id = d.id THEN b.bytes END
    FROM deliveries d LEFT JOIN bodies b ON b.id = d.body
    LEFT JOIN owners o ON o.task = d.task AND o.body = d.body AND d.verdict <> 'rejected' ORDER BY d.id;

DROP TABLE deliveries;
DROP TABLE bodies;
DROP TABLE downloads;
DROP TABLE outcomes;
DROP TABLE tasks;
ALTER TABLE lean_tasks RENAME TO tasks;
ALTER TABLE lean_outcomes RENAME TO outcomes;
ALTER TABLE lean_downloads RENAME TO downloads;
ALTER TABLE lean_deliveries RENAME TO deliveries;

CREATE INDEX outcomes_to_ask ON outcomes (ask_at) WHERE ask_at IS NOT NULL;
CREATE UNIQUE INDEX downloads_by_task ON downloads (task, n, role, kind, idx);
-- Claiming looks along the first, and where hosts at their cap crowd its beginning, from host to host along the second.
CREATE INDEX downloads_queued ON downloads (deadline, next_at, host) WHERE state = 'queued' AND next_at <= created_at;
CREATE INDEX downloads_by_host ON downloads (host, deadline) WHERE state = 'queued' AND next_at <= created_at;
-- The same of those that wait for a moment (put off after a failure, or queued again), the first due first: a claim that
-- finds nothing does not walk over all that waits.
CREATE INDEX downloads_waiting ON downloads (next_at, deadline, host, created_at)
    WHERE state = 'queued' AND next_at > created_at;
CREATE INDEX downloads_waiting_by_host ON downloads (host, next_at) WHERE state = 'queued' AND next_at > created_at;
CREATE INDEX downloads_leased ON downloads (lease_until, host) WHERE state = 'downloading';
-- Rejected ones apart: there may be thousands of them about a task, and each callback about it looks among the others.
CREATE INDEX deliveries_by_task ON deliveries (task, id) WHERE task IS NOT NULL AND verdict <> 'rejected';
CREATE INDEX rejected_by_task ON deliveries (task, id) WHERE task IS NOT NULL AND verdict = 'rejected';
CREATE INDEX deliveries_in_conflict ON deliveries (id) WHERE verdict = 'conflict';
-- With all that the ring counts at each start.
CREATE INDEX rejected_by_id ON deliveries (id, reason, net, size) WHERE verdict = 'rejected';
CREATE INDEX rejected_by_age ON deliveries (known, id) WHERE verdict = 'rejected';
CREATE INDEX rejected_by_reason ON deliveries (reason, known, id) WHERE verdict = 'rejected';
CREATE INDEX rejected_by_net ON deliveries (net, known, id) WHERE verdict = 'rejected';

-- The table `bindings` holds from now on only the signatures whose first delivery has no row: it was counted only, or went
-- with its task or by age. (Those from before this migration stay until they expire.)

-- How many there are, so that nobody has to count. Inserts are added up by the writer, a transaction at a time.
INSERT INTO counters (name, value) VALUES
    ('keyed', 0), ('outcome', (SELECT COALESCE(max(id), 0) FROM outcomes)),
    ('stored_bytes', (SELECT COALESCE(sum(bytes), 0) FROM downloads WHERE state = 'stored')),
    ('tasks.pending', 0), ('tasks.succeeded', 0), ('tasks.failed', 0),
    ('files.queued', 0), ('files.held', 0), ('files.needs_url', 0), ('files.downloading', 0), ('files.stored', 0),
    ('files.failed', 0), ('files.deleted', 0);
UPDATE counters SET value = n FROM (SELECT 'tasks.' || state AS counted, count(*) AS n FROM tasks GROUP BY state)
    WHERE name = counted;
UPDATE counters SET value = n FROM (SELECT 'files.' || state AS counted, count(*) AS n FROM downloads GROUP BY state)
    WHERE name = counted;

CREATE TRIGGER tasks_change_state AFTER UPDATE OF state ON tasks WHEN OLD.state IS NOT NEW.state
BEGIN
    UPDATE counters SET value = value - 1 WHERE name = 'tasks.' || OLD.state;
    UPDATE counters SET value = value + 1 WHERE name = 'tasks.' || NEW.state;
END;
CREATE TRIGGER tasks_go AFTER DELETE ON tasks
BEGIN
    UPDATE counters SET value = value - 1 WHERE name = 'tasks.' || OLD.state;
END;
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
