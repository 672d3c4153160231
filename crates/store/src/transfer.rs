//! Everything durable as one stream, from one database into another of whatever kind.
//!
//! A line each, in JSON: a header, then for each table its name and columns followed by its rows, and
//! at the end how many rows there were. No more than a few rows are in memory. Which tables and columns
//! there are is asked of the database, so that none can be forgotten.

use std::io::{self, BufRead, Read as _, Write};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::StoreError;
use crate::value::Value;

/// The form of the stream. Another number is another form.
const FORM: u32 = 1;
/// Most bytes of a line: far more than the largest body that the intake takes.
const LINE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Tables that others refer to: first, so that what a row refers to is there before it.
const FIRST: [&str; 2] = ["delivery", "job"];
/// In the place of a table: the last number that was given to a row of those that are counted.
pub(crate) const NUMBERS: &str = "last_number";

/// Why a stream could not be written or read. A database that was to be filled is as it was.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stream cannot be written.
    #[error("cannot write the export: {0}")]
    Write(#[source] io::Error),
    /// The stream cannot be read.
    #[error("cannot read the export: {0}")]
    Read(#[source] io::Error),
    /// It is not what an export writes.
    #[error("line {line} of the export is not as it was written: {problem}")]
    Garbled {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// It was written by a version with other tables.
    #[error(
        "the export is of schema {found} and this version has {known}: export again with the version \
         that imports, after `remuda store migrate`"
    )]
    Schema {
        /// The export's.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The database to be filled is in use already.
    #[error("database {place} is not empty and nothing was imported: name an empty one")]
    NotEmpty {
        /// The database.
        place: Arc<str>,
    },
    /// A server works on it.
    #[error("database {place} is in use by server {holder}: stop it first")]
    Held {
        /// The database.
        place: Arc<str>,
        /// Who holds the lease.
        holder: Arc<str>,
    },
}

#[derive(Serialize, Deserialize)]
struct Header {
    remuda_export: u32,
    schema: u32,
}

/// A table and its columns, those of its key first in `keys`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    pub(crate) keys: Vec<String>,
}

impl Table {
    /// Those that hold what must not be lost, in the order in which they can be filled.
    pub(crate) fn in_order(mut all: Vec<Self>) -> Vec<Self> {
        // The last number given is told apart from how a database keeps it.
        all.retain(|table| !["schema_migration", "delivery_number"].contains(&&*table.name));
        all.sort_by_key(|table| {
            let place = FIRST.iter().position(|first| **first == table.name);
            (place.unwrap_or(FIRST.len()), table.name.clone())
        });
        all
    }

    /// What reads it, in the order of its key, by `collation` where that is of texts.
    pub(crate) fn select(&self) -> String {
        // The lease's row is only there, in one kind of database, once somebody has taken it.
        let rows = if self.name == "lease" { " WHERE epoch > 0" } else { "" };
        let (columns, keys) = (self.columns.join(", "), self.keys.join(", "));
        format!("SELECT {columns} FROM {}{rows} ORDER BY {keys}", self.name)
    }

    /// What writes a row of `columns` to it; `?1` stands for the first value.
    fn insert(&self, columns: &[String]) -> String {
        let values: Vec<String> = (1..=columns.len()).map(|number| format!("?{number}")).collect();
        format!("INSERT INTO {} ({}) VALUES ({})", self.name, columns.join(", "), values.join(", "))
    }
}

/// Rows that are there from the beginning, and give way to those that are imported.
pub(crate) const GIVES_WAY: [&str; 2] = ["meta", "lease"];

/// Writes a stream.
pub(crate) struct Writer<'a> {
    out: &'a mut dyn Write,
    rows: u64,
}

impl<'a> Writer<'a> {
    pub(crate) fn begin(out: &'a mut dyn Write, schema: u32) -> Result<Self, TransferError> {
        let mut writer = Self { out, rows: 0 };
        writer.line(&json!(Header { remuda_export: FORM, schema }))?;
        Ok(writer)
    }

    pub(crate) fn table(&mut self, name: &str, columns: &[String]) -> Result<(), TransferError> {
        self.line(&json!({ "table": name, "columns": columns }))
    }

    pub(crate) fn row(&mut self, cells: Vec<Value<'_>>) -> Result<(), TransferError> {
        self.rows += 1;
        let cells = cells.into_iter().map(|cell| match cell {
            Value::Null => Json::Null,
            Value::Int(number) => number.into(),
            Value::Text(text) => text.into(),
            Value::Bytes(bytes) => json!({ "base64": STANDARD.encode(bytes) }),
        });
        self.line(&Json::Array(cells.collect()))
    }

    /// Gives the number of rows.
    pub(crate) fn end(mut self) -> Result<u64, TransferError> {
        self.line(&json!({ "rows": self.rows }))?;
        self.out.flush().map_err(TransferError::Write)?;
        Ok(self.rows)
    }

    fn line(&mut self, line: &Json) -> Result<(), TransferError> {
        writeln!(self.out, "{line}").map_err(TransferError::Write)
    }
}

/// What a row goes into.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// This statement, in which `?1` stands for the first value.
    Insert(Arc<str>),
    /// The last number given to rows of a table.
    Number,
}

/// Reads a stream into tables that are there.
pub(crate) struct Reader<'a> {
    input: &'a mut (dyn BufRead + Send),
    tables: Vec<Table>,
    line: u64,
    rows: u64,
    now: Option<(Target, usize)>,
}

impl<'a> Reader<'a> {
    pub(crate) fn begin(
        input: &'a mut (dyn BufRead + Send),
        schema: u32,
        tables: Vec<Table>,
    ) -> Result<Self, TransferError> {
        let mut reader = Self { input, tables, line: 0, rows: 0, now: None };
        let header: Header = match reader.json()? {
            Some(line) => serde_json::from_value(line)
                .map_err(|_| reader.garbled("it is not the first line of an export of Remuda"))?,
            None => return Err(reader.garbled("there is nothing")),
        };
        if header.remuda_export != FORM {
            return Err(reader.garbled("it is of a form that this version does not know"));
        }
        if header.schema != schema {
            return Err(TransferError::Schema { found: header.schema, known: schema });
        }
        Ok(reader)
    }

    fn garbled(&self, problem: impl Into<String>) -> TransferError {
        TransferError::Garbled { line: self.line, problem: problem.into() }
    }

    fn json(&mut self) -> Result<Option<Json>, TransferError> {
        let mut text = Vec::new();
        let mut bounded = (&mut *self.input).take(LINE_BYTES_MAX);
        bounded.read_until(b'\n', &mut text).map_err(TransferError::Read)?;
        self.line += 1;
        if text.is_empty() {
            return Ok(None);
        }
        let read = serde_json::from_slice(&text);
        read.map(Some).map_err(|error| self.garbled(error.to_string()))
    }

    /// The next row and what it goes into; none at the end of a whole stream.
    pub(crate) fn next(&mut self) -> Result<Option<(Target, Vec<Value<'static>>)>, TransferError> {
        loop {
            let Some(line) = self.json()? else {
                return Err(self.garbled("it ends too early"));
            };
            if let Json::Array(cells) = line {
                let Some((target, count)) = self.now.clone() else {
                    return Err(self.garbled("a row of no table"));
                };
                let cells: Option<Vec<_>> = cells.into_iter().map(cell).collect();
                let cells = cells.ok_or_else(|| self.garbled("a value of no kind that we keep"))?;
                if cells.len() != count {
                    return Err(self.garbled("a row of another length than its table's"));
                }
                self.rows += 1;
                return Ok(Some((target, cells)));
            }
            if let Some(rows) = line.get("rows") {
                if rows.as_u64() != Some(self.rows) {
                    return Err(self.garbled(format!("{} rows came before it", self.rows)));
                }
                return match self.json()? {
                    None => Ok(None),
                    Some(_) => Err(self.garbled("it goes on after its end")),
                };
            }
            self.now = Some(self.table(&line)?);
        }
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    fn table(&self, line: &Json) -> Result<(Target, usize), TransferError> {
        let name = line["table"].as_str().ok_or_else(|| self.garbled("it is no table's"))?;
        let columns: Vec<String> = serde_json::from_value(line["columns"].clone())
            .map_err(|_| self.garbled("it names no columns"))?;
        if name == NUMBERS {
            return Ok((Target::Number, 2));
        }
        let table = self.tables.iter().find(|table| table.name == name);
        let table = table.ok_or_else(|| self.garbled(format!("there is no table {name:?}")))?;
        // Nothing of the stream becomes part of a statement that is not the name of a column.
        if let Some(other) = columns.iter().find(|column| !table.columns.contains(column)) {
            return Err(self.garbled(format!("table {name} has no column {other:?}")));
        }
        Ok((Target::Insert(table.insert(&columns).into()), columns.len()))
    }
}

fn cell(cell: Json) -> Option<Value<'static>> {
    Some(match cell {
        Json::Null => Value::Null,
        Json::Number(number) => Value::Int(number.as_i64()?),
        Json::String(text) => Value::Text(text.into()),
        Json::Object(bytes) => {
            Value::Bytes(STANDARD.decode(bytes.get("base64")?.as_str()?).ok()?.into())
        }
        Json::Bool(_) | Json::Array(_) => return None,
    })
}
