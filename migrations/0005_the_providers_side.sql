-- What the provider is asked, and what is submitted to it through us.

-- Outcomes that something is open about: the queue of what to ask the provider, by when. What is open is seen from the
-- rows it is about: a pending outcome, open conflicts, files that are held or want another URL. Two reasons stand here
-- only: a stale callback, and the whole film that an extension belongs to, which only the provider's record names.
CREATE TABLE asks (
    task      INTEGER NOT NULL,
    kind      TEXT    NOT NULL,
    idx       INTEGER NOT NULL,
    source    TEXT    NOT NULL,
    reason    TEXT    NOT NULL,                 -- silent, stale, conflict, held, needs_url or full
    since     INTEGER NOT NULL,                 -- since when: the waits grow with it, until it is given up
    ask_at    INTEGER,                          -- not before; NULL: no more
    asks      INTEGER NOT NULL,                 -- how often it was asked; an answer says which question it answers
    asked_at  INTEGER,                          -- the last time
    note_code TEXT,                             -- what came of that: a stable word
    note      TEXT,                             -- and a sentence
    PRIMARY KEY (task, kind, idx)
) STRICT, WITHOUT ROWID;
CREATE INDEX asks_due ON asks (source, ask_at) WHERE ask_at IS NOT NULL;

-- Set where somebody announced it: asking for a 4K upgrade that nobody ordered would order one.
ALTER TABLE outcomes ADD COLUMN ordered INTEGER;
-- A fresh link to what lies at `url`, where the provider gave one; it does not last.
ALTER TABLE downloads ADD COLUMN fetch_url TEXT;

-- What was open before anybody could be asked.
INSERT INTO asks (task, kind, idx, source, reason, since, ask_at, asks)
    SELECT o.task, o.kind, o.idx, t.source, 'silent', t.created_at, t.created_at, 0
    FROM outcomes o JOIN tasks t ON t.id = o.task WHERE o.state = 'pending';
INSERT OR IGNORE INTO asks (task, kind, idx, source, reason, since, ask_at, asks)
    SELECT o.task, o.kind, o.idx, t.source, 'conflict', t.updated_at, t.updated_at, 0
    FROM outcomes o JOIN tasks t ON t.id = o.task WHERE o.conflicts > 0;
INSERT OR IGNORE INTO asks (task, kind, idx, source, reason, since, ask_at, asks)
    SELECT d.task, d.kind, d.idx, t.source, 'needs_url', min(d.updated_at), min(d.next_at), 0
    FROM downloads d JOIN tasks t ON t.id = d.task WHERE d.state = 'needs_url' GROUP BY d.task, d.kind, d.idx;

INSERT INTO counters (name, value) VALUES ('repaired', 0);

-- Open questions are counted by reason. An ordinary callback leaves none.
INSERT INTO counters (name, value)
VALUES ('asks.silent', 0), ('asks.conflict', 0), ('asks.held', 0), ('asks.needs_url', 0), ('asks.stale', 0);
CREATE TRIGGER asks_come AFTER INSERT ON asks
BEGIN
    UPDATE counters SET value = value + 1 WHERE name = 'asks.' || NEW.reason;
END;
CREATE TRIGGER asks_change_reason AFTER UPDATE OF reason ON asks WHEN OLD.reason IS NOT NEW.reason
BEGIN
    UPDATE counters SET value = value - 1 WHERE name = 'asks.' || OLD.reason;
    UPDATE counters SET value = value + 1 WHERE name = 'asks.' || NEW.reason;
END;
CREATE TRIGGER asks_go AFTER DELETE ON asks
BEGIN
    UPDATE counters SET value = value - 1 WHERE name = 'asks.' || OLD.reason;
END;
