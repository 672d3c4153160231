//! Brings a database to the newest schema: forward only, each step in a transaction of its own, and
//! never over a database that a newer version, another program or a changed migration has made.

use remuda_core::Timestamp;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::sql as own;
use super::work::Place;
use crate::migration::{Migration, applied};
use crate::{StoreError, sql};

/// Every step, in order.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { number: 1, sql: include_str!("../../migrations/sqlite/0001_initial.sql") },
    Migration { number: 2, sql: include_str!("../../migrations/sqlite/0002_lease_taken_at.sql") },
    Migration {
        number: 3,
        sql: include_str!("../../migrations/sqlite/0003_tenant_logins_and_turns.sql"),
    },
    Migration {
        number: 4,
        sql: include_str!("../../migrations/sqlite/0004_failing_drain_recovering.sql"),
    },
    Migration {
        number: 5,
        sql: include_str!("../../migrations/sqlite/0005_bodies_compressed.sql"),
    },
    Migration { number: 6, sql: include_str!("../../migrations/sqlite/0006_fleets.sql") },
];

/// Refuses a database that `migrations` cannot bring forward. Writes nothing. Gives the number of
/// migrations that it has had.
pub(super) fn check(
    connection: &Connection,
    place: &Place,
    migrations: &[Migration],
) -> Result<usize, StoreError> {
    let failed = |error| place.error(error);
    let tables: Vec<String> = rows(connection, own::TABLES, |row| row.get(0)).map_err(failed)?;
    if tables.is_empty() {
        return Ok(0);
    }
    if !tables.iter().any(|name| name == "schema_migration") {
        return Err(StoreError::Foreign { place: place.name() });
    }
    let found: Vec<(u32, String)> =
        rows(connection, sql::MIGRATIONS, |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
    applied(&found, migrations, &place.name())
}

/// Applies what is missing.
pub(super) fn run(
    connection: &Connection,
    place: &Place,
    migrations: &[Migration],
    now: Timestamp,
) -> Result<(), StoreError> {
    for _ in 0..migrations.len() {
        // Looked at anew under the write lock: another process may be at the same.
        let failed = |error| place.error(error);
        let step = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)
            .map_err(failed)?;
        let Some(missing) = migrations.get(check(&step, place, migrations)?) else { break };
        apply(&step, missing, now).map_err(failed)?;
        step.commit().map_err(failed)?;
    }
    Ok(())
}

fn apply(step: &Connection, migration: &Migration, now: Timestamp) -> rusqlite::Result<()> {
    step.execute_batch(own::CREATE_MIGRATIONS)?;
    step.execute_batch(migration.sql)?;
    let record = params![migration.number, migration.sha256(), now.as_millis()];
    step.execute(sql::PUT_MIGRATION, record)?;
    Ok(())
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare(sql)?.query_map([], read)?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Migration = Migration { number: 1, sql: "CREATE TABLE a (x INTEGER) STRICT;" };
    const SECOND: Migration =
        Migration { number: 2, sql: "ALTER TABLE a ADD COLUMN y TEXT NOT NULL DEFAULT 'none';" };
    const BROKEN: Migration = Migration { number: 2, sql: "CREATE TABLE b (x); DROP TABLE none;" };

    fn migrate(connection: &Connection, migrations: &[Migration]) -> Result<(), StoreError> {
        run(connection, &Place::new("test.db"), migrations, Timestamp::from_millis(7))
    }

    #[test]
    fn a_migration_keeps_the_rows_it_finds() {
        let connection = Connection::open_in_memory().unwrap();
        migrate(&connection, &[FIRST]).unwrap();
        connection.execute("INSERT INTO a VALUES (5)", []).unwrap();
        migrate(&connection, &[FIRST, SECOND]).unwrap();
        migrate(&connection, &[FIRST, SECOND]).unwrap();
        let row: (i64, String) =
            connection.query_row("SELECT x, y FROM a", [], |r| r.try_into()).unwrap();
        assert_eq!(row, (5, "none".to_owned()));
    }

    #[test]
    fn a_migration_that_fails_leaves_nothing_and_can_be_tried_again() {
        let connection = Connection::open_in_memory().unwrap();
        let error = migrate(&connection, &[FIRST, BROKEN]).unwrap_err();
        assert!(matches!(error, StoreError::Failed { .. }), "{error}");
        let tables: Vec<String> = rows(&connection, own::TABLES, |row| row.get(0)).unwrap();
        assert_eq!(tables, ["schema_migration", "a"]);
        migrate(&connection, &[FIRST, SECOND]).unwrap();
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let connection = Connection::open_in_memory().unwrap();
        migrate(&connection, &[FIRST, SECOND]).unwrap();
        let error = migrate(&connection, &[FIRST]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "database test.db has schema 2 and this version knows no more than 1: \
             run the version that wrote it, or a newer one"
        );
    }

    #[test]
    fn a_migration_that_changed_after_it_was_applied_is_refused() {
        let connection = Connection::open_in_memory().unwrap();
        migrate(&connection, &[FIRST]).unwrap();
        let changed = Migration { number: 1, sql: "CREATE TABLE a (z INTEGER) STRICT;" };
        let error = migrate(&connection, &[changed, SECOND]).unwrap_err();
        assert!(matches!(error, StoreError::Drift { migration: 1, .. }), "{error}");
    }

    #[test]
    fn a_database_of_another_program_is_refused_and_left_alone() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE song (title TEXT)").unwrap();
        let error = migrate(&connection, &[FIRST]).unwrap_err();
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        let tables: Vec<String> = rows(&connection, own::TABLES, |row| row.get(0)).unwrap();
        assert_eq!(tables, ["song"]);
    }
}
