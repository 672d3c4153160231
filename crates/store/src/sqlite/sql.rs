//! The statements that are `SQLite`'s alone.

pub(super) const TABLES: &str =
    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
pub(super) const CREATE_MIGRATIONS: &str = "\
CREATE TABLE IF NOT EXISTS schema_migration (
    number INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT";

pub(super) const DELIVERY_NUMBER: &str =
    "SELECT sequence FROM delivery WHERE forge = ?1 AND id = ?2";
pub(super) const PUT_DELIVERY: &str =
    "INSERT INTO delivery (forge, id, event, received_at) VALUES (?1, ?2, ?3, ?4)";
pub(super) const PUT_BODY: &str = "INSERT INTO delivery_body (sequence, body) VALUES (?1, ?2)";
pub(super) const UNDECODED: &str = "\
SELECT sequence, forge, id, event, received_at, body
FROM delivery JOIN delivery_body USING (sequence)
WHERE state = 'pending' AND sequence > ?1 ORDER BY sequence LIMIT ?2";
pub(super) const UNDECODABLE: &str = "\
SELECT sequence, forge, id, event, received_at, body, error
FROM delivery JOIN delivery_body USING (sequence)
WHERE state = 'undecodable' AND state <> 'pending'
ORDER BY decided_at DESC, sequence DESC LIMIT ?1";

pub(super) const LEASE: &str =
    "SELECT epoch, holder, expires_at, taken_at FROM lease WHERE one = 1";
pub(super) const PUT_LEASE: &str = "\
INSERT INTO lease (one, epoch, holder, expires_at, taken_at) VALUES (1, ?1, ?2, ?3, ?4)
ON CONFLICT (one) DO UPDATE
SET epoch = excluded.epoch, holder = excluded.holder, expires_at = excluded.expires_at,
    taken_at = excluded.taken_at";
pub(super) const RENEW_LEASE: &str = "\
UPDATE lease SET expires_at = ?3
WHERE one = 1 AND epoch = ?1 AND holder = ?2 AND expires_at > ?4";

pub(super) const REMOVE_BODY: &str = "DELETE FROM delivery_body WHERE sequence = ?1";
pub(super) const MARK_EMPTIED: &str = "UPDATE delivery SET state = 'emptied' WHERE sequence = ?1";
pub(super) const REMOVE_DELIVERY: &str = "DELETE FROM delivery WHERE sequence = ?1";
pub(super) const REMOVE_JOB: &str = "DELETE FROM job WHERE id = ?1";
pub(super) const REMOVE_RUNNER: &str = "DELETE FROM runner WHERE id = ?1";
pub(super) const REMOVE_INSTANCE: &str = "DELETE FROM instance WHERE id = ?1";
pub(super) const REMOVE_EVENT: &str = "DELETE FROM event WHERE sequence = ?1";
