//! What a store can fail with: answers its callers act on, and failures people must end. Each says all
//! that there is to say: none has a cause that is to be shown besides.

use std::error::Error;
use std::sync::Arc;

/// Why a store did not do what it was asked to. None of these leaves a part of it done; one does
/// not know whether all of it is.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The lease is not in force any more: what was decided under it must not be written.
    #[error(
        "the lease of epoch {epoch} is over and nothing was written: \
         take a lease and load the books again"
    )]
    Fenced {
        /// The epoch of the lease that was shown.
        epoch: u64,
    },
    /// The connection broke while the answer was awaited: all of it was done, or nothing.
    #[error(
        "database {place} may have written the last change or not ({detail}): \
         load the books again under a new lease"
    )]
    Unknown {
        /// The database.
        place: Arc<str>,
        /// What happened to the connection.
        detail: String,
    },
    /// There is no room for more.
    #[error(
        "database {place} cannot grow and nothing was written: \
         free space on its file system or raise its limit"
    )]
    Full {
        /// The database.
        place: Arc<str>,
    },
    /// Somebody else kept the database locked for longer than we wait.
    #[error(
        "database {place} is locked by another program and nothing was written: \
         end the program that has it open"
    )]
    Locked {
        /// The database.
        place: Arc<str>,
    },
    /// The database holds what we never wrote.
    #[error(
        "database {place} is damaged ({detail}): \
         stop, keep a copy of it, and restore it from a backup"
    )]
    Corrupt {
        /// The database.
        place: Arc<str>,
        /// What was found.
        detail: String,
    },
    /// A newer version has written to the database.
    #[error(
        "database {place} has schema {schema} and this version knows no more than {known}: \
         run the version that wrote it, or a newer one"
    )]
    Newer {
        /// The database.
        place: Arc<str>,
        /// Its newest migration.
        schema: u32,
        /// Our newest migration.
        known: u32,
    },
    /// The database is as an older version left it.
    #[error(
        "database {place} has schema {schema} and this version works with {known}: \
         bring it forward with `remuda store migrate`"
    )]
    Older {
        /// The database.
        place: Arc<str>,
        /// Its newest migration; 0 if there is nothing in it.
        schema: u32,
        /// Our newest migration.
        known: u32,
    },
    /// A migration was applied to the database in another form than the one we have.
    #[error(
        "database {place} was made with another migration {migration} than this version's: \
         run the version that made it, or restore a backup"
    )]
    Drift {
        /// The database.
        place: Arc<str>,
        /// The number of the migration.
        migration: u32,
    },
    /// A database of another program.
    #[error("database {place} holds tables that are not ours: name another")]
    Foreign {
        /// The database.
        place: Arc<str>,
    },
    /// The file cannot be made or opened.
    #[error("cannot open database {place}: {cause}")]
    Open {
        /// The database.
        place: Arc<str>,
        /// Why.
        cause: Arc<std::io::Error>,
    },
    /// The database's URL cannot be understood. What it says is not shown: a password may be in it.
    #[error(
        "the database's URL {problem}: write \
         postgresql://USER:PASSWORD@HOST:PORT/NAME?sslmode=verify-full"
    )]
    Address {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Nobody answers there.
    #[error("cannot reach database {place} ({detail}): start it, or correct its address")]
    Unreachable {
        /// The database.
        place: Arc<str>,
        /// What the network said.
        detail: String,
    },
    /// It does not let us in.
    #[error(
        "database {place} does not let us in ({detail}): \
         correct the user or the password, or what the server allows"
    )]
    Denied {
        /// The database.
        place: Arc<str>,
        /// What the server said.
        detail: String,
    },
    /// The server has no database of this name.
    #[error("there is no database {place}: create it, or correct its name")]
    Missing {
        /// The database.
        place: Arc<str>,
    },
    /// Who answers cannot be trusted as far as was asked for, or asks for more than we offered.
    #[error(
        "no safe connection to database {place} ({detail}): \
         correct sslmode (disable, require, verify-full) or sslrootcert in its URL"
    )]
    Tls {
        /// The database.
        place: Arc<str>,
        /// What went wrong.
        detail: String,
    },
    /// It takes no writes.
    #[error("database {place} is read-only and nothing was written: name the primary server")]
    ReadOnly {
        /// The database.
        place: Arc<str>,
    },
    /// The server is starting up or shutting down.
    #[error("database {place} is restarting and nothing was written: it will be tried again")]
    Restarting {
        /// The database.
        place: Arc<str>,
    },
    /// It took longer than we wait, or has no connection left for us.
    #[error("database {place} is too busy ({detail}) and nothing was written: lighten its load")]
    Busy {
        /// The database.
        place: Arc<str>,
        /// What was waited for.
        detail: String,
    },
    /// The connection broke before the end of the work was asked for.
    #[error("the connection to database {place} broke ({detail}) and nothing was written")]
    Lost {
        /// The database.
        place: Arc<str>,
        /// How it broke.
        detail: String,
    },
    /// Anything else that the database says.
    #[error("database {place} failed and nothing was written: {cause}")]
    Failed {
        /// The database.
        place: Arc<str>,
        /// What it said.
        cause: Arc<dyn Error + Send + Sync>,
    },
    /// The thread that owns the database has ended.
    #[error("database {place} is closed: start again")]
    Closed {
        /// The database.
        place: Arc<str>,
    },
}
