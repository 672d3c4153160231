//! Removes what is past its retention, a little in every commit, so that no commit takes long.

use remuda_core::Timestamp;
use rusqlite::{Connection, params};

use super::sql;
use crate::{Retention, sql as common};

/// Most rows of one kind that one commit removes: more than one commit ever adds for long.
const ROWS_MAX: u32 = 256;

pub(super) fn prune(
    connection: &Connection,
    retention: &Retention,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let before = |kept| (now - kept).as_millis();
    let (bodies, deliveries) = (before(retention.bodies), before(retention.deliveries));
    let (undecodable, history) = (before(retention.undecodable), before(retention.history));
    let kinds: [(&str, i64, &[&str]); 7] = [
        (common::OLD_BODIES, bodies, &[sql::REMOVE_BODY, sql::MARK_EMPTIED]),
        (common::OLD_EMPTIED, deliveries, &[sql::REMOVE_DELIVERY]),
        (common::OLD_UNDECODABLE, undecodable, &[sql::REMOVE_DELIVERY]),
        (common::OLD_JOBS, history, &[sql::REMOVE_JOB]),
        (common::OLD_RUNNERS, history, &[sql::REMOVE_RUNNER]),
        (common::OLD_INSTANCES, history, &[sql::REMOVE_INSTANCE]),
        (common::OLD_EVENTS, i64::from(retention.events), &[sql::REMOVE_EVENT]),
    ];
    for (old, bound, removals) in kinds {
        // First the rows, then their removal one by one: that costs next to nothing if there are none.
        let rows: Vec<i64> = connection
            .prepare_cached(old)?
            .query_map(params![bound, ROWS_MAX], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for row in rows {
            for removal in removals {
                connection.prepare_cached(removal)?.execute([row])?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{Settings, migrate, work::Place};

    #[test]
    fn what_is_old_is_found_without_reading_a_whole_table() {
        let connection = Connection::open_in_memory().unwrap();
        let now = Settings::default().clock.now();
        migrate::run(&connection, &Place::new("test"), migrate::MIGRATIONS, now).unwrap();
        let statements = [
            common::OLD_BODIES,
            common::OLD_EMPTIED,
            common::OLD_UNDECODABLE,
            common::OLD_JOBS,
            common::OLD_RUNNERS,
            common::OLD_INSTANCES,
            common::OLD_EVENTS,
            sql::UNDECODED,
            sql::UNDECODABLE,
        ];
        for statement in statements {
            let mut explained =
                connection.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
            let steps: Vec<String> = explained
                .raw_query()
                .mapped(|row| row.get::<_, String>(3))
                .collect::<rusqlite::Result<_>>()
                .unwrap();
            let scans = |step: &&String| step.starts_with("SCAN") && !step.contains("INDEX");
            assert_eq!(steps.iter().find(scans), None, "{statement}");
        }
    }
}
