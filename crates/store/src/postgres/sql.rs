//! The statements that are `PostgreSQL`'s alone, and how it writes those that are everybody's.

use std::sync::LazyLock;

use crate::sql as common;

/// What marks that a delivery came in: a hint for those who look for it anyway.
pub(super) const CHANNEL: &str = "remuda_delivery";

/// The database's own clock, in milliseconds since 1970, unless `?1` tells the time.
const NOW: &str = "coalesce(?1::bigint, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)";

/// A statement as `PostgreSQL` writes its parameters. None of ours has a question mark in a text.
pub(super) fn dialect(sql: &str) -> String {
    sql.replace('?', "$")
}

pub(super) const TABLES: &str =
    "SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname = current_schema()";
pub(super) const CREATE_MIGRATIONS: &str = "\
CREATE TABLE IF NOT EXISTS schema_migration (
    number BIGINT PRIMARY KEY,
    sha256 TEXT NOT NULL,
    applied_at BIGINT NOT NULL
)";
/// One process at a time brings a database forward. The number says nothing; it is only ours.
pub(super) const ALONE: &str = "SELECT pg_advisory_xact_lock(7236142305)";

pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
/// Everything that is read sees one state of the database.
pub(super) const BEGIN_READING: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// Held until the end of the transaction; see the migration for what it is good for.
pub(super) const NUMBER: &str = "SELECT last FROM delivery_number WHERE one = 1 FOR UPDATE";
/// Keeps what is not known yet, and gives each its number. Nothing in it comes twice. The subselect,
/// rather than a join, has each id looked up in the index whatever size the table is thought to have.
pub(super) const ACCEPT: &str = "\
WITH given AS (
    SELECT * FROM unnest(?1::text[], ?2::text[], ?3::text[], ?4::bigint[], ?5::bytea[])
    WITH ORDINALITY AS given (forge, id, event, received_at, body, place)
), found AS (
    SELECT given.*, (SELECT sequence FROM delivery
        WHERE delivery.forge = given.forge AND delivery.id = given.id) AS known
    FROM given
), fresh AS (
    SELECT found.*, (SELECT last FROM delivery_number WHERE one = 1)
        + row_number() OVER (ORDER BY place) AS sequence
    FROM found WHERE known IS NULL
), numbered AS (
    UPDATE delivery_number SET last = last + (SELECT count(*) FROM fresh) WHERE one = 1
), kept AS (
    INSERT INTO delivery (sequence, forge, id, event, received_at)
    SELECT sequence, forge, id, event, received_at FROM fresh
), bodies AS (
    INSERT INTO delivery_body (sequence, body) SELECT sequence, body FROM fresh
)
SELECT place, sequence, 1::bigint AS is_new FROM fresh
UNION ALL SELECT place, known, 0::bigint FROM found WHERE known IS NOT NULL
ORDER BY place";

/// Ends before the bodies grow over ?3 bytes, but not before the first.
pub(super) const UNDECODED: &str = "\
SELECT sequence, forge, id, event, received_at, body FROM (
    SELECT slice.*, row_number() OVER following AS place,
        sum(octet_length(body)) OVER following AS bytes
    FROM (
        SELECT sequence, forge, id, event, received_at, body
        FROM delivery JOIN delivery_body USING (sequence)
        WHERE state = 'pending' AND sequence > ?1 ORDER BY sequence LIMIT ?2
    ) AS slice
    WINDOW following AS (ORDER BY sequence)
) AS summed
WHERE place = 1 OR bytes <= ?3 ORDER BY sequence";
pub(super) const UNDECODABLE: &str = "\
SELECT sequence, forge, id, event, received_at, body, error FROM (
    SELECT slice.*, row_number() OVER following AS place,
        sum(octet_length(body)) OVER following AS bytes
    FROM (
        SELECT sequence, forge, id, event, received_at, body, error, decided_at
        FROM delivery JOIN delivery_body USING (sequence)
        WHERE state = 'undecodable' AND state <> 'pending'
        ORDER BY decided_at DESC, sequence DESC LIMIT ?1
    ) AS slice
    WINDOW following AS (ORDER BY decided_at DESC, sequence DESC)
) AS summed
WHERE place = 1 OR bytes <= ?2 ORDER BY decided_at DESC, sequence DESC";

/// Takes the lease for ?3 milliseconds if nobody else's is in force.
pub(super) static LEASE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "UPDATE lease SET \
         epoch = epoch + 1, taken_at = {NOW}, holder = ?2, expires_at = {NOW} + ?3 \
         WHERE one = 1 AND (holder IS NULL OR holder = ?2 OR expires_at <= {NOW}) RETURNING epoch"
    )
});

/// Lets the lease of epoch ?2 and holder ?3 last for ?4 milliseconds if it is in force.
pub(super) static RENEW_LEASE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "UPDATE lease SET expires_at = {NOW} + ?4 \
         WHERE one = 1 AND epoch = ?2 AND holder = ?3 AND expires_at > {NOW} RETURNING epoch"
    )
});

pub(super) static LEADER: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT holder, epoch, taken_at FROM lease \
         WHERE one = 1 AND holder IS NOT NULL AND expires_at > {NOW}"
    )
});

/// Whose lease is in force. Nobody can take it until the end of the transaction.
pub(super) static FENCE: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT epoch, holder, {NOW} AS now FROM lease WHERE one = 1 FOR UPDATE")
});

pub(super) static PROBE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "INSERT INTO meta (key, value) VALUES ('checked_at', {NOW}::text) \
         ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    )
});

/// The removal of old rows of each kind, each with the statement that finds them.
pub(super) static PRUNE: LazyLock<[String; 7]> = LazyLock::new(|| {
    let remove = |table, key, old| format!("DELETE FROM {table} WHERE {key} IN ({old})");
    [
        format!(
            "WITH old AS ({}), emptied AS \
             (DELETE FROM delivery_body WHERE sequence IN (SELECT sequence FROM old)) \
             UPDATE delivery SET state = 'emptied' WHERE sequence IN (SELECT sequence FROM old)",
            common::OLD_BODIES
        ),
        remove("delivery", "sequence", common::OLD_EMPTIED),
        remove("delivery", "sequence", common::OLD_UNDECODABLE),
        remove("job", "id", common::OLD_JOBS),
        remove("runner", "id", common::OLD_RUNNERS),
        remove("instance", "id", common::OLD_INSTANCES),
        remove("event", "sequence", common::OLD_EVENTS),
    ]
});
