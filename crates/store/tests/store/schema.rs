//! The schema that the migrations make is the committed one.

use std::fmt::Write as _;
use std::path::Path;

use remuda_store::SqliteStore;
use rusqlite::Connection;

use crate::fixture::{Hand, settings};

/// Set to write the file anew after a migration was added.
const WRITE: &str = "REMUDA_WRITE_SCHEMA";

fn dump(database: &Path) -> String {
    let connection = Connection::open(database).unwrap();
    let mut statement = connection
        .prepare(
            "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'
             ORDER BY tbl_name, type DESC, name",
        )
        .unwrap();
    let mut text = String::from("-- What all migrations make of an empty database. Generated.\n");
    for sql in statement.query_map([], |row| row.get::<_, String>(0)).unwrap() {
        writeln!(text, "\n{};", sql.unwrap()).unwrap();
    }
    text
}

#[test]
fn the_committed_schema_is_what_the_migrations_make() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("books.db");
    drop(SqliteStore::open(&database, settings(&Hand::default())).unwrap());
    let made = dump(&database);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.sql");
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(made, committed, "write schema.sql anew: {WRITE}=1 cargo test -p remuda-store");
}
