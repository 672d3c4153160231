-- Every fleet that was put in force, the newest last; `files` is a JSON list of names and texts, which hold
-- references to secrets and no secrets.
CREATE TABLE fleet (
    number INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    how TEXT NOT NULL,
    revision TEXT NOT NULL,
    files TEXT NOT NULL
) STRICT;
