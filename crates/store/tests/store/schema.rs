//! The schema that the migrations make is the committed one, and that of `PostgreSQL` its twin.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use remuda_store::SqliteStore;
use remuda_store::postgres::{self, PostgresStore};
use rusqlite::Connection;
use secrecy::ExposeSecret as _;
use tokio_postgres::Client;

use crate::fixture::{Hand, settings};
use crate::real::{Schema, client};

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
    is_committed("schema.sql", &dump(&database));
}

fn is_committed(name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(made, committed, "write {name} anew: {WRITE}=1 cargo test -p remuda-store");
}

/// Tables, columns, constraints and indexes, one line each.
async fn dump_postgres(client: &Client) -> String {
    let parts = [
        "SELECT table_name || '.' || column_name || ' ' || data_type
            || CASE is_nullable WHEN 'NO' THEN ' NOT NULL' ELSE '' END
            || coalesce(' DEFAULT ' || column_default, '')
            || CASE is_identity WHEN 'YES' THEN ' IDENTITY' ELSE '' END
         FROM information_schema.columns WHERE table_schema = current_schema()",
        "SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid)
         FROM pg_constraint WHERE connamespace = current_schema()::regnamespace",
        "SELECT replace(indexdef, current_schema() || '.', '')
         FROM pg_indexes WHERE schemaname = current_schema()",
    ];
    let mut text = String::from("-- What all migrations make of an empty PostgreSQL. Generated.\n");
    for part in parts {
        let sql = format!("SELECT line FROM ({part}) AS part (line) ORDER BY line COLLATE \"C\"");
        text.push('\n');
        for row in client.query(&sql, &[]).await.unwrap() {
            writeln!(text, "{}", row.get::<_, String>(0)).unwrap();
        }
    }
    text
}

#[tokio::test]
async fn the_committed_schema_is_what_the_migrations_make_of_postgres() {
    let Some(schema) = Schema::new().await else { return };
    let store = PostgresStore::open(&schema.url(), postgres::Settings::default()).await.unwrap();
    let client = client(schema.url().expose_secret()).await;
    is_committed("schema-postgres.txt", &dump_postgres(&client).await);
    drop(store);
}

/// Table, column and whether it may be empty.
type Columns = BTreeSet<(String, String, bool)>;

fn sqlite_columns() -> Columns {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("books.db");
    drop(SqliteStore::open(&database, settings(&Hand::default())).unwrap());
    let connection = Connection::open(database).unwrap();
    let sql = "SELECT tables.name, columns.name, columns.\"notnull\" = 0 AND columns.pk = 0
        FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns
        WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite_%'";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

#[tokio::test]
async fn postgres_has_the_columns_of_sqlite_and_a_table_of_numbers() {
    let Some(schema) = Schema::new().await else { return };
    let store = PostgresStore::open(&schema.url(), postgres::Settings::default()).await.unwrap();
    let client = client(schema.url().expose_secret()).await;
    let sql = "SELECT table_name::text, column_name::text, is_nullable = 'YES'
        FROM information_schema.columns WHERE table_schema = current_schema()";
    let rows = client.query(sql, &[]).await.unwrap();
    let mut columns: Columns =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    columns.retain(|(table, _, _)| table != "delivery_number");
    assert_eq!(columns, sqlite_columns());
    drop(store);
}
