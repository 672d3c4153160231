//! What a failure of the network or of `PostgreSQL` means to our callers.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::PoolError;
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

use crate::StoreError;
use crate::value::Misread;

/// What a database is called in errors.
#[derive(Clone, Debug)]
pub(super) struct Place(pub(super) Arc<str>);

impl Place {
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// No connection could be had.
    pub(super) fn unconnected(&self, error: PoolError) -> StoreError {
        let place = self.name();
        match error {
            PoolError::Backend(error) => self.refused(error),
            PoolError::Timeout(deadpool_postgres::TimeoutType::Create) => {
                StoreError::Unreachable { place, detail: "no answer in time".into() }
            }
            PoolError::Timeout(_) => {
                StoreError::Busy { place, detail: "all our connections are in use".into() }
            }
            PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                StoreError::Closed { place }
            }
        }
    }

    /// A connection could not be made.
    pub(super) fn refused(&self, error: Error) -> StoreError {
        let place = self.name();
        if error.as_db_error().is_some() {
            return self.failed(error);
        }
        let detail = causes(&error);
        // These kinds are private to the library; their texts are all that tells them apart.
        let text = error.to_string();
        if text.contains("TLS") {
            StoreError::Tls { place, detail }
        } else if text.contains("configuration") || text.contains("authentication") {
            StoreError::Denied { place, detail }
        } else {
            StoreError::Unreachable { place, detail }
        }
    }

    /// Work that was begun failed, and nobody had asked for its end.
    pub(super) fn failed(&self, error: Error) -> StoreError {
        let place = self.name();
        let Some(said) = error.as_db_error() else {
            if is_broken(&error) {
                return StoreError::Lost { place, detail: causes(&error) };
            }
            return StoreError::Failed { place, cause: Arc::new(error) };
        };
        let (code, detail) = (said.code(), said.message().to_owned());
        match code.code() {
            "28000" if detail.contains("encryption") => StoreError::Tls { place, detail },
            "28000" | "28P01" | "3F000" | "42501" => StoreError::Denied { place, detail },
            "3D000" => StoreError::Missing { place },
            "25006" => StoreError::ReadOnly { place },
            "57P01" | "57P02" | "57P03" => StoreError::Restarting { place },
            "53300" | "55P03" | "57014" => StoreError::Busy { place, detail },
            "25P03" => StoreError::Lost { place, detail },
            "53100" => StoreError::Full { place },
            "XX001" | "XX002" => StoreError::Corrupt { place, detail },
            _ => StoreError::Failed { place, cause: Arc::new(Said::from(said)) },
        }
    }

    /// Work failed whose end had been asked for: unless the server says that it undid it, nobody knows.
    pub(super) fn unended(&self, error: Error) -> StoreError {
        let is_told = error
            .as_db_error()
            .is_some_and(|said| !matches!(said.code().code(), "57P01" | "57P02" | "57P03"));
        if is_told || !is_broken(&error) && error.as_db_error().is_none() {
            return self.failed(error);
        }
        StoreError::Unknown { place: self.name(), detail: causes(&error) }
    }

    pub(super) fn late(&self, limit: Duration) -> StoreError {
        let detail = format!("no answer within {} s", limit.as_secs());
        StoreError::Busy { place: self.name(), detail }
    }

    /// As [`Self::late`], of work whose end had been asked for.
    pub(super) fn unanswered(&self, limit: Duration) -> StoreError {
        let detail = format!("no answer within {} s", limit.as_secs());
        StoreError::Unknown { place: self.name(), detail }
    }

    pub(super) fn corrupt(&self, error: &Misread) -> StoreError {
        StoreError::Corrupt { place: self.name(), detail: error.to_string() }
    }

    pub(super) fn closed(&self) -> StoreError {
        StoreError::Closed { place: self.name() }
    }
}

/// The connection is of no more use.
fn is_broken(error: &Error) -> bool {
    let is_io = error.source().is_some_and(<dyn std::error::Error>::is::<io::Error>);
    error.is_closed() || is_io
}

/// An error and what caused it. No message of the library holds a password.
fn causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// What the server said, as one line. Its details may quote values of rows, and are left out.
#[derive(Debug, thiserror::Error)]
#[error("{message} (SQLSTATE {})", code.code())]
struct Said {
    message: String,
    code: SqlState,
}

impl From<&DbError> for Said {
    fn from(said: &DbError) -> Self {
        Self { message: said.message().to_owned(), code: said.code().clone() }
    }
}
