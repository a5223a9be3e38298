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

-- The words of prompts, by task. Filled apart from what is recorded, some rows at a time: `counters.prompts` is the last task
-- that was looked at, and later ones follow. Merging is asked for in small portions, never left to an insertion.
CREATE VIRTUAL TABLE prompts USING fts5 (
    prompt, content = '', contentless_delete = 1, prefix = '1 2', tokenize = 'unicode61 remove_diacritics 2'
);
INSERT INTO prompts (prompts, rank) VALUES ('automerge', 0), ('crisismerge', 1000);
INSERT INTO counters (name, value) VALUES ('prompts', 0);
-- Tasks that were looked at before their prompt was known.
CREATE TABLE prompts_due (task INTEGER PRIMARY KEY) STRICT;
CREATE TRIGGER tasks_change_prompt AFTER UPDATE OF prompt ON tasks WHEN NEW.prompt IS NOT OLD.prompt
BEGIN
    INSERT OR IGNORE INTO prompts_due (task)
        SELECT NEW.id WHERE NEW.id <= (SELECT value FROM counters WHERE name = 'prompts');
END;
