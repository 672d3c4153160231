//! Removes what is past its retention, a little in every commit, so that no commit takes long.

use remuda_core::Timestamp;
use rusqlite::{Connection, params};

use super::sql;
use crate::Retention;

/// Most rows of one kind that one commit removes: more than one commit ever adds for long.
const ROWS_MAX: u32 = 256;

pub(super) fn prune(
    connection: &Connection,
    retention: &Retention,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let bodies = (now - retention.bodies).as_millis();
    let old: Vec<i64> = connection
        .prepare_cached(sql::OLD_BODIES)?
        .query_map(params![bodies, ROWS_MAX], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for sequence in old {
        connection.prepare_cached(sql::REMOVE_BODY)?.execute([sequence])?;
        connection.prepare_cached(sql::MARK_EMPTIED)?.execute([sequence])?;
    }
    for (state, kept) in [("emptied", retention.deliveries), ("undecodable", retention.undecodable)]
    {
        let before = (now - kept).as_millis();
        connection
            .prepare_cached(sql::PRUNE_DELIVERIES)?
            .execute(params![before, ROWS_MAX, state])?;
    }
    let forgotten = (now - retention.history).as_millis();
    for statement in [sql::PRUNE_JOBS, sql::PRUNE_RUNNERS, sql::PRUNE_INSTANCES] {
        connection.prepare_cached(statement)?.execute(params![forgotten, ROWS_MAX])?;
    }
    connection.prepare_cached(sql::PRUNE_EVENTS)?.execute(params![retention.events, ROWS_MAX])?;
    Ok(())
}
