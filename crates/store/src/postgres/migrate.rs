//! Brings a database to the newest schema: forward only, each step in a transaction of its own, one
//! process at a time, and never over what a newer version, another program or a changed migration made.
//! A step takes as long as there are rows; only its waits for locks are bounded.

use remuda_core::Timestamp;

use super::link::{Link, Session};
use super::sql as own;
use crate::migration::{Migration, applied};
use crate::row::word;
use crate::value::{Cells, Misread, values};
use crate::{StoreError, sql};

/// Every step, in order, with the same numbers as those of `SQLite`.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { number: 1, sql: include_str!("../../migrations/postgres/0001_initial.sql") },
    Migration { number: 2, sql: include_str!("../../migrations/postgres/0002_lease_taken_at.sql") },
    Migration {
        number: 3,
        sql: include_str!("../../migrations/postgres/0003_tenant_logins_and_turns.sql"),
    },
    Migration {
        number: 4,
        sql: include_str!("../../migrations/postgres/0004_failing_drain_recovering.sql"),
    },
    Migration {
        number: 5,
        sql: include_str!("../../migrations/postgres/0005_bodies_compressed.sql"),
    },
    Migration { number: 6, sql: include_str!("../../migrations/postgres/0006_fleets.sql") },
];

/// Refuses a database that `migrations` cannot bring forward. Gives how many of them it has had.
pub(super) async fn check(
    link: &Link,
    session: &Session<'_>,
    migrations: &[Migration],
) -> Result<usize, StoreError> {
    let tables = session.rows(own::TABLES, Vec::new(), |row| word(row, "tablename")).await?;
    if tables.is_empty() {
        return Ok(0);
    }
    if !tables.iter().any(|name| name == "schema_migration") {
        return Err(StoreError::Foreign { place: link.place.name() });
    }
    let found = session.rows(sql::MIGRATIONS, Vec::new(), step).await?;
    applied(&found, migrations, &link.place.name())
}

fn step(row: &dyn Cells) -> Result<(u32, String), Misread> {
    let number = row.int("number")?.and_then(|number| u32::try_from(number).ok());
    let number = number.ok_or_else(|| Misread::new("number", "it is out of range"))?;
    Ok((number, word(row, "sha256")?))
}

/// Applies what is missing. Gives how many steps were.
pub(super) async fn run(
    link: &Link,
    migrations: &[Migration],
    now: Timestamp,
) -> Result<usize, StoreError> {
    let failed = |error| link.place.failed(error);
    let session = link.session().await?;
    // Nothing is written, or locked, where nothing is missing: most servers start so.
    if link.bounded(check(link, &session, migrations)).await? == migrations.len() {
        session.keep();
        return Ok(0);
    }
    for done in 0..=migrations.len() {
        let Some(missing) = link.bounded(missing(link, &session, migrations)).await? else {
            session.run("COMMIT").await.map_err(failed)?;
            session.keep();
            return Ok(done);
        };
        let locks = link.settings.call_timeout.as_millis();
        let unbounded =
            format!("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {locks}");
        session.run(&unbounded).await.map_err(failed)?;
        session.run(missing.sql).await.map_err(failed)?;
        let record = values![missing.number, missing.sha256(), now];
        session.all(std::iter::once((sql::PUT_MIGRATION, record))).await.map_err(failed)?;
        session.run("COMMIT").await.map_err(|error| link.place.unended(error))?;
    }
    session.keep();
    Ok(migrations.len())
}

/// Begins a transaction in which nobody else brings the database forward. Gives the next step.
async fn missing<'m>(
    link: &Link,
    session: &Session<'_>,
    migrations: &'m [Migration],
) -> Result<Option<&'m Migration>, StoreError> {
    let failed = |error| link.place.failed(error);
    session.run(own::BEGIN).await.map_err(failed)?;
    session.run(own::ALONE).await.map_err(failed)?;
    // Looked at anew under the lock: another process may be at the same.
    let missing = migrations.get(check(link, session, migrations).await?);
    if missing.is_some() {
        session.run(own::CREATE_MIGRATIONS).await.map_err(failed)?;
    }
    Ok(missing)
}
