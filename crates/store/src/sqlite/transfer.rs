//! A database as a stream, and a stream as a database.

use std::io::{BufRead, Write};
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params_from_iter};

use super::work::Place;
use super::{MIGRATIONS, Settings, SqliteStore, connect, migrate};
use crate::migration::{newest, up_to_date};
use crate::transfer::{GIVES_WAY, NUMBERS, Reader, Table, Target, TransferError, Writer};
use crate::value::Value;

const COLUMNS: &str = "\
SELECT tables.name, columns.name, columns.pk
FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns
WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite_%'
ORDER BY tables.name, columns.cid";
const LAST_NUMBER: &str = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = ?1), 0)";

impl SqliteStore {
    /// Writes everything that the database at `path` holds to `out`. Gives the number of rows. Blocks.
    /// No server may be at work on it, which is for the caller to see to.
    pub fn export(path: &Path, out: &mut dyn Write) -> Result<u64, TransferError> {
        let place = Place::of(path);
        let connection = connect(path, &place, &Settings::default())?;
        let failed = |error| place.error(error);
        let reading = Transaction::new_unchecked(&connection, TransactionBehavior::Deferred)
            .map_err(failed)?;
        up_to_date(migrate::check(&reading, &place, MIGRATIONS)?, MIGRATIONS, &place.name())?;
        let mut writer = Writer::begin(out, newest(MIGRATIONS))?;
        for table in tables(&reading).map_err(failed)? {
            writer.table(&table.name, &table.columns)?;
            let mut statement = reading.prepare(&table.select()).map_err(failed)?;
            let mut rows = statement.query([]).map_err(failed)?;
            while let Some(row) = rows.next().map_err(failed)? {
                writer.row(cells(row, table.columns.len()).map_err(failed)?)?;
            }
        }
        writer.table(NUMBERS, &["table".into(), "number".into()])?;
        for table in ["delivery", "event"] {
            let last: i64 =
                reading.query_row(LAST_NUMBER, [table], |row| row.get(0)).map_err(failed)?;
            writer.row(vec![table.into(), last.into()])?;
        }
        writer.end()
    }

    /// Fills the database at `path`, which is made if it is not there, with what [`Self::export`] or its
    /// twin wrote: all of it, or nothing. Gives the number of rows. Blocks. No server may be at work on it.
    pub fn import(path: &Path, input: &mut (dyn BufRead + Send)) -> Result<u64, TransferError> {
        drop(Self::open(path, Settings::default())?);
        let place = Place::of(path);
        let connection = connect(path, &place, &Settings::default())?;
        let failed = |error| place.error(error);
        let filling = Transaction::new_unchecked(&connection, TransactionBehavior::Immediate)
            .map_err(failed)?;
        let tables = tables(&filling).map_err(failed)?;
        for table in &tables {
            let count = if table.name == "lease" {
                "SELECT count(*) FROM lease WHERE epoch > 0".to_owned()
            } else if GIVES_WAY.contains(&&*table.name) {
                continue;
            } else {
                format!("SELECT count(*) FROM {}", table.name)
            };
            let rows: i64 = filling.query_row(&count, [], |row| row.get(0)).map_err(failed)?;
            if rows > 0 {
                return Err(TransferError::NotEmpty { place: place.name() });
            }
        }
        for table in GIVES_WAY {
            filling.execute(&format!("DELETE FROM {table}"), []).map_err(failed)?;
        }
        let mut reader = Reader::begin(input, newest(MIGRATIONS), tables)?;
        filling.execute("DELETE FROM sqlite_sequence", []).map_err(failed)?;
        while let Some((target, cells)) = reader.next()? {
            let sql = match &target {
                Target::Insert(sql) => sql,
                Target::Number => {
                    "INSERT OR REPLACE INTO sqlite_sequence (rowid, name, seq) VALUES (
                        (SELECT rowid FROM sqlite_sequence WHERE name = ?1), ?1, ?2)"
                }
            };
            let mut statement = filling.prepare_cached(sql).map_err(failed)?;
            statement.execute(params_from_iter(cells)).map_err(failed)?;
        }
        filling.execute("UPDATE lease SET holder = NULL", []).map_err(failed)?;
        filling.commit().map_err(failed)?;
        Ok(reader.rows())
    }
}

fn tables(connection: &Connection) -> rusqlite::Result<Vec<Table>> {
    let mut all: Vec<Table> = Vec::new();
    let mut keys: Vec<(i64, usize, String)> = Vec::new();
    let mut statement = connection.prepare(COLUMNS)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (name, column, key): (String, String, i64) = row.try_into()?;
        if all.last().is_none_or(|table| table.name != name) {
            all.push(Table { name, ..Table::default() });
        }
        let last = all.len() - 1;
        all[last].columns.push(column.clone());
        if key > 0 {
            keys.push((key, last, column));
        }
    }
    keys.sort();
    for (_, table, column) in keys {
        all[table].keys.push(column);
    }
    Ok(Table::in_order(all))
}

fn cells<'a>(row: &'a Row<'_>, count: usize) -> rusqlite::Result<Vec<Value<'a>>> {
    (0..count)
        .map(|index| {
            let cell = row.get_ref(index)?;
            Ok(match cell {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(number) => number.into(),
                ValueRef::Text(_) => cell.as_str()?.into(),
                ValueRef::Blob(bytes) => bytes.into(),
                ValueRef::Real(_) => {
                    let found = rusqlite::types::Type::Real;
                    return Err(rusqlite::Error::InvalidColumnType(index, String::new(), found));
                }
            })
        })
        .collect()
}
