//! A database as a stream, and a stream as a database.

use std::io::{BufRead, Write};
use std::sync::Arc;

use secrecy::SecretString;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::address::Address;
use super::link::{Link, Session};
use super::{MIGRATIONS, PostgresStore, Settings, books, migrate, sql as own};
use crate::migration::{newest, up_to_date};
use crate::row::word;
use crate::transfer::{GIVES_WAY, NUMBERS, Reader, Table, Target, TransferError, Writer};
use crate::value::{Cells, Misread, Value, values};
use crate::{Leader, Store as _};

/// Rows that are read at once. Between two reads the server waits for us and not for its statement's end,
/// so a table may take as long as whoever takes it.
const ROWS_PER_READ: usize = 16;
/// Most rows, and bytes of them, that are on their way to the database at once.
const ROWS_MAX: usize = 256;
const BYTES_MAX: usize = 8 * 1024 * 1024;

const COLUMNS: &str = "\
SELECT columns.table_name::text, columns.column_name::text, key.ordinal_position::bigint AS place,
    columns.data_type::text
FROM information_schema.columns AS columns LEFT JOIN information_schema.key_column_usage AS key
ON key.table_schema = columns.table_schema AND key.table_name = columns.table_name
AND key.column_name = columns.column_name AND key.constraint_name = columns.table_name || '_pkey'
WHERE columns.table_schema = current_schema()
ORDER BY columns.table_name, columns.ordinal_position";
const LAST_NUMBERS: &str = "\
SELECT 'delivery' AS table_name, last FROM delivery_number UNION ALL
SELECT 'event', coalesce(pg_sequence_last_value(
    pg_get_serial_sequence('event', 'sequence')::regclass), 0) ORDER BY 1";
const NUMBER_DELIVERIES: &str = "UPDATE delivery_number SET last = ?1";
const NUMBER_EVENTS: &str = "\
SELECT setval(pg_get_serial_sequence('event', 'sequence'), greatest(?1::bigint, 1), ?1::bigint > 0)";
const NUMBER_JOBS: &str = "\
SELECT setval(pg_get_serial_sequence('job', 'id'), coalesce(max(id), 1), max(id) IS NOT NULL)
FROM job";

impl PostgresStore {
    /// Writes everything that the database at `url` holds to `out`, as of one instant. Gives the number
    /// of rows. Refused while a server leads.
    pub async fn export(
        url: &SecretString,
        settings: Settings,
        out: &mut dyn Write,
    ) -> Result<u64, TransferError> {
        let link = Link::new(Address::read(url)?, settings)?;
        let failed = |error| link.place.failed(error);
        let session = link.session().await?;
        session.run(&unhurried(own::BEGIN_READING, &link)).await.map_err(failed)?;
        let done = migrate::check(&link, &session, MIGRATIONS).await?;
        up_to_date(done, MIGRATIONS, &link.place.name())?;
        unheld(&link, books::leader(&link).await?)?;
        let mut writer = Writer::begin(out, newest(MIGRATIONS))?;
        for table in tables(&session).await? {
            writer.table(&table.name, &table.columns)?;
            write_rows(&link, &session, &table, &mut writer).await?;
        }
        writer.table(NUMBERS, &["table".into(), "number".into()])?;
        let read = |row: &dyn Cells| Ok((word(row, "table_name")?, row.int("last")?));
        for (table, last) in session.rows(LAST_NUMBERS, Vec::new(), read).await? {
            writer.row(vec![(&table).into(), last.into()])?;
        }
        session.run("COMMIT").await.map_err(failed)?;
        session.keep();
        writer.end()
    }

    /// Fills the database at `url` with what [`Self::export`] or its twin wrote: all of it, or nothing.
    /// Gives the number of rows.
    pub async fn import(
        url: &SecretString,
        settings: Settings,
        input: &mut (dyn BufRead + Send),
    ) -> Result<u64, TransferError> {
        let store = Self::open(url, settings).await?;
        let link = Arc::clone(&store.link);
        unheld(&link, store.leader().await?)?;
        let session = link.session().await?;
        match fill(&link, &session, input).await {
            Ok(rows) => {
                session.keep();
                Ok(rows)
            }
            Err(error) => {
                // Whoever hears of it finds its locks let go, if the connection can still tell the server.
                let undone = async {
                    session.run("ROLLBACK").await.map_err(|error| link.place.failed(error))
                };
                drop(link.bounded(undone).await);
                Err(error)
            }
        }
    }
}

/// Begins a transaction in which the server waits for us for as long as an export or import may stall.
fn unhurried(begin: &str, link: &Link) -> String {
    let millis = link.settings.stall_timeout.as_millis();
    format!("{begin}; SET LOCAL idle_in_transaction_session_timeout = {millis}")
}

async fn write_rows(
    link: &Link,
    session: &Session<'_>,
    table: &Table,
    writer: &mut Writer<'_>,
) -> Result<(), TransferError> {
    let failed = |error| link.place.failed(error);
    let cursor = format!("export_{}", table.name);
    let declared = format!("DECLARE {cursor} NO SCROLL CURSOR FOR {}", table.select());
    session.run(&declared).await.map_err(failed)?;
    let next = session.prepared(&format!("FETCH {ROWS_PER_READ} FROM {cursor}")).await;
    let next = next.map_err(failed)?;
    loop {
        let rows = session.query(&next, Vec::<i64>::new()).await.map_err(failed)?;
        for row in &rows {
            let cells: Result<Vec<_>, _> = (0..row.len()).map(|n| cell(row, n)).collect();
            writer.row(cells.map_err(|error| link.place.corrupt(&error))?)?;
        }
        if rows.len() < ROWS_PER_READ {
            break;
        }
    }
    session.run(&format!("CLOSE {cursor}")).await.map_err(failed)?;
    Ok(())
}

async fn fill(
    link: &Link,
    session: &Session<'_>,
    input: &mut (dyn BufRead + Send),
) -> Result<u64, TransferError> {
    let failed = |error| link.place.failed(error);
    session.run(&unhurried(own::BEGIN, link)).await.map_err(failed)?;
    // Whoever would take it waits until the end.
    session.run("SELECT * FROM lease FOR UPDATE").await.map_err(failed)?;
    let tables = tables(session).await?;
    empty(link, session, &tables).await?;
    let mut reader = Reader::begin(input, newest(MIGRATIONS), tables)?;
    let mut more = true;
    while more {
        let batch = gather(&mut reader, &mut more)?;
        let statements = batch.iter().map(|(sql, cells)| (&**sql, cells.clone()));
        let written = async { session.all(statements).await.map_err(failed) };
        link.bounded(written).await?;
    }
    session.run("UPDATE lease SET holder = NULL").await.map_err(failed)?;
    session.run(NUMBER_JOBS).await.map_err(failed)?;
    session.run("COMMIT").await.map_err(|error| link.place.unended(error))?;
    Ok(reader.rows())
}

fn unheld(link: &Link, leader: Option<Leader>) -> Result<(), TransferError> {
    match leader {
        None => Ok(()),
        Some(Leader { holder, .. }) => {
            Err(TransferError::Held { place: link.place.name(), holder })
        }
    }
}

/// Refuses a database in which there is anything but what every new one has, and removes that.
async fn empty(link: &Link, session: &Session<'_>, tables: &[Table]) -> Result<(), TransferError> {
    for table in tables {
        let rows = match &*table.name {
            "lease" => "lease WHERE epoch > 0",
            "meta" => continue,
            other => other,
        };
        let count = format!("SELECT count(*) AS rows FROM {rows}");
        let counted = session.rows(&count, Vec::new(), |row| row.int("rows")).await?;
        if counted != [Some(0)] {
            return Err(TransferError::NotEmpty { place: link.place.name() });
        }
    }
    for table in GIVES_WAY {
        let failed = |error| link.place.failed(error);
        session.run(&format!("DELETE FROM {table}")).await.map_err(failed)?;
    }
    Ok(())
}

type Rows = Vec<(Arc<str>, Vec<Value<'static>>)>;

/// As many rows as may be under way.
fn gather(reader: &mut Reader<'_>, more: &mut bool) -> Result<Rows, TransferError> {
    let (mut batch, mut bytes) = (Rows::new(), 0);
    while batch.len() < ROWS_MAX && bytes < BYTES_MAX {
        let Some((target, cells)) = reader.next()? else {
            *more = false;
            break;
        };
        bytes += cells.iter().map(Value::bytes).sum::<usize>();
        batch.push(match target {
            Target::Insert(sql) => (sql, cells),
            Target::Number => match &cells[..] {
                [Value::Text(table), Value::Int(last)] if table == "delivery" => {
                    (NUMBER_DELIVERIES.into(), values![*last])
                }
                [_, Value::Int(last)] => (NUMBER_EVENTS.into(), values![*last]),
                _ => continue,
            },
        });
    }
    Ok(batch)
}

async fn tables(session: &Session<'_>) -> Result<Vec<Table>, TransferError> {
    let read = |row: &dyn Cells| {
        let text = word(row, "data_type")? == "text";
        Ok((word(row, "table_name")?, word(row, "column_name")?, row.int("place")?, text))
    };
    let mut all: Vec<Table> = Vec::new();
    let mut keys: Vec<(i64, usize, String)> = Vec::new();
    for (name, column, key, is_text) in session.rows(COLUMNS, Vec::new(), read).await? {
        if all.last().is_none_or(|table| table.name != name) {
            all.push(Table { name, ..Table::default() });
        }
        let last = all.len() - 1;
        if let Some(key) = key {
            // The order of bytes, which is that of `SQLite`.
            let order = if is_text { " COLLATE \"C\"" } else { "" };
            keys.push((key, last, format!("{column}{order}")));
        }
        all[last].columns.push(column);
    }
    keys.sort();
    for (_, table, column) in keys {
        all[table].keys.push(column);
    }
    Ok(Table::in_order(all))
}

fn cell(row: &Row, index: usize) -> Result<Value<'_>, Misread> {
    let column = &row.columns()[index];
    let name = column.name();
    Ok(match *column.type_() {
        Type::INT8 => row.int(name)?.into(),
        Type::TEXT => row.text(name)?.map_or(Value::Null, Value::Text),
        _ => row.bytes(name)?.into(),
    })
}
