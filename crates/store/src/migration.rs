//! Numbered steps that bring a database to the newest schema, and how far one has come.
//!
//! Forward only: a step is never taken back, so a schema is first expanded, and what nobody uses any
//! more is removed a release later.

use std::fmt::Write as _;
use std::sync::Arc;

use ring::digest::{SHA256, digest};

use crate::StoreError;

/// One step. The text of a released one never changes: its digest is kept in the database.
pub(crate) struct Migration {
    pub(crate) number: u32,
    pub(crate) sql: &'static str,
}

impl Migration {
    pub(crate) fn sha256(&self) -> String {
        let mut text = String::new();
        for byte in digest(&SHA256, self.sql.as_bytes()).as_ref() {
            write!(text, "{byte:02x}").expect("a string takes what is written to it");
        }
        text
    }
}

/// How many of `migrations` the database `place` has had, given the numbers and digests of those it
/// says it had. Refuses one that they cannot bring forward.
pub(crate) fn applied(
    found: &[(u32, String)],
    migrations: &[Migration],
    place: &Arc<str>,
) -> Result<usize, StoreError> {
    let known = newest(migrations);
    if let Some((schema, _)) = found.last().filter(|(number, _)| *number > known) {
        return Err(StoreError::Newer { place: place.clone(), schema: *schema, known });
    }
    for ((number, sha256), migration) in found.iter().zip(migrations) {
        if *number != migration.number || *sha256 != migration.sha256() {
            return Err(StoreError::Drift { place: place.clone(), migration: *number });
        }
    }
    Ok(found.len())
}

/// The number of the newest.
pub(crate) const fn newest(migrations: &[Migration]) -> u32 {
    match migrations.last() {
        Some(migration) => migration.number,
        None => 0,
    }
}

/// Refuses a database that has had only the first `done` of `migrations`.
pub(crate) fn up_to_date(
    done: usize,
    migrations: &[Migration],
    place: &Arc<str>,
) -> Result<(), StoreError> {
    if done == migrations.len() {
        return Ok(());
    }
    let (schema, known) = (newest(&migrations[..done]), newest(migrations));
    Err(StoreError::Older { place: place.clone(), schema, known })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{postgres, sqlite};

    fn backends() -> [(&'static str, &'static [Migration]); 2] {
        [("sqlite", sqlite::MIGRATIONS), ("postgres", postgres::MIGRATIONS)]
    }

    /// Every column that is added without a value for the rows that are there already.
    fn columns_without_default(sql: &str) -> Vec<String> {
        let sql = sql.to_uppercase();
        sql.split(';')
            .filter(|statement| statement.contains("ADD COLUMN"))
            .filter(|statement| statement.contains("NOT NULL") && !statement.contains("DEFAULT"))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn migrations_are_numbered_from_one_without_a_gap_and_alike_for_every_database() {
        for (_, migrations) in backends() {
            let numbers: Vec<u32> = migrations.iter().map(|migration| migration.number).collect();
            assert_eq!(numbers, (1..).take(sqlite::MIGRATIONS.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_migration_file_is_applied() {
        for (backend, migrations) in backends() {
            let directory = format!("{}/migrations/{backend}", env!("CARGO_MANIFEST_DIR"));
            let mut files: Vec<_> = std::fs::read_dir(directory)
                .unwrap()
                .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
                .collect();
            let mut applied: Vec<_> = migrations.iter().map(|migration| migration.sql).collect();
            files.sort_unstable();
            applied.sort_unstable();
            assert_eq!(files, applied);
        }
    }

    /// What a program of an earlier version, which runs beside this one, could stumble over.
    fn narrowing(sql: &str) -> Vec<String> {
        let code: String =
            sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
        let words = code.to_uppercase().replace(['(', ')', ','], " ");
        let words: Vec<_> = words.split_whitespace().collect();
        let found = words.windows(2).filter(|pair| match **pair {
            ["DROP", what] => what != "INDEX",
            ["RENAME" | "TYPE", _] | ["SET", "NOT"] => true,
            _ => false,
        });
        found.map(|pair| pair.join(" ")).collect()
    }

    #[test]
    fn the_baseline_can_go_on_with_every_later_schema() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/upgrade-baseline");
        let baseline = std::fs::read_to_string(path).unwrap();
        let schema = baseline.lines().find_map(|line| line.strip_prefix("schema "));
        let schema: u32 = schema.unwrap().parse().unwrap();
        for (backend, migrations) in backends() {
            for migration in migrations.iter().filter(|migration| migration.number > schema) {
                let (number, none) = (migration.number, Vec::<String>::new());
                assert_eq!(narrowing(migration.sql), none, "{backend} {number}");
            }
        }
        let narrow = "alter table a drop column b; alter table a alter c type text, rename d to e;
                      alter table a alter column f set not null; drop index g";
        assert_eq!(narrowing(narrow), ["DROP COLUMN", "TYPE TEXT", "RENAME D", "SET NOT"]);
    }

    #[test]
    fn a_column_added_to_rows_has_a_value_for_them() {
        for migration in backends().into_iter().flat_map(|(_, migrations)| migrations) {
            assert_eq!(columns_without_default(migration.sql), Vec::<String>::new());
        }
        assert_eq!(columns_without_default("alter table a add column y text not null").len(), 1);
    }
}
