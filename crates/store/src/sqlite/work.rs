//! Who touches a connection: one thread that writes in groups, one that reads, or, for a database
//! in memory, the caller itself.
//!
//! A group is one transaction, so callers that wait at the same time share one flush of the disk.
//! Nobody is answered before it is committed. If anything in a group fails, it is undone as a whole
//! and each caller's work is done again alone, so that only the culprit hears of the failure.

use std::path::Path;
use std::slice;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::StoreError;

/// Most calls that wait for the thread; further callers wait to be let in.
const QUEUE_MAX: usize = 1024;
/// Most calls of one group.
const GROUP_MAX: usize = 256;
/// A group that carries this many bytes takes no more calls.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a database is called in errors.
#[derive(Clone, Debug)]
pub(super) struct Place(Arc<str>);

impl Place {
    pub(super) fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub(super) fn of(path: &Path) -> Self {
        Self(path.display().to_string().into())
    }

    pub(super) fn name(&self) -> Arc<str> {
        self.0.clone()
    }

    /// What a failure of `SQLite` means to our callers.
    pub(super) fn error(&self, error: rusqlite::Error) -> StoreError {
        let place = self.name();
        match &error {
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::QueryReturnedNoRows => {
                return StoreError::Corrupt { place, detail: error.to_string() };
            }
            _ => {}
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::Full { place },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                StoreError::Locked { place }
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                StoreError::Corrupt { place, detail: error.to_string() }
            }
            Some(_) | None => StoreError::Failed { place, cause: Arc::new(error) },
        }
    }

    pub(super) fn unopened(&self, error: std::io::Error) -> StoreError {
        StoreError::Open { place: self.name(), cause: Arc::new(error) }
    }

    fn closed(&self) -> StoreError {
        StoreError::Closed { place: self.name() }
    }
}

/// Why a piece of work was not done.
pub(super) enum Undone {
    /// It found the lease over, before it wrote anything.
    Fenced(u64),
    /// `SQLite` failed; what it wrote must be undone.
    Failed(rusqlite::Error),
}

impl From<rusqlite::Error> for Undone {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

/// A piece of work with a caller who waits for its answer. It may be done more than once, each time
/// after what it did before was undone.
trait Work: Send {
    fn bytes(&self) -> usize;
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()>;
    fn fail(&mut self, error: StoreError);
    fn answer(self: Box<Self>);
}

struct Call<T, F> {
    bytes: usize,
    run: F,
    result: Option<Result<T, StoreError>>,
    caller: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Work for Call<T, F>
where
    T: Send,
    F: FnMut(&Connection) -> Result<T, Undone> + Send,
{
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.result = Some(match (self.run)(connection) {
            Ok(value) => Ok(value),
            Err(Undone::Fenced(epoch)) => Err(StoreError::Fenced { epoch }),
            Err(Undone::Failed(error)) => return Err(error),
        });
        Ok(())
    }

    fn fail(&mut self, error: StoreError) {
        self.result = Some(Err(error));
    }

    fn answer(self: Box<Self>) {
        if let Some(result) = self.result {
            // A caller that has gone away needs no answer.
            drop(self.caller.send(result));
        }
    }
}

/// A connection and how transactions on it begin.
pub(super) struct Desk {
    connection: Connection,
    place: Place,
    behavior: TransactionBehavior,
    group_max: usize,
}

impl Desk {
    /// For work that writes.
    pub(super) fn writer(connection: Connection, place: Place) -> Self {
        let behavior = TransactionBehavior::Immediate;
        Self { connection, place, behavior, group_max: GROUP_MAX }
    }

    /// For work that reads: each piece sees one state of the database, the newest.
    pub(super) fn reader(connection: Connection, place: Place) -> Self {
        let behavior = TransactionBehavior::Deferred;
        Self { connection, place, behavior, group_max: 1 }
    }

    fn together(&self, group: &mut [Box<dyn Work>]) -> Result<(), StoreError> {
        let failed = |error| self.place.error(error);
        let transaction =
            Transaction::new_unchecked(&self.connection, self.behavior).map_err(failed)?;
        for work in group {
            work.run(&transaction).map_err(failed)?;
        }
        transaction.commit().map_err(failed)
    }

    fn one_by_one(&self, group: &mut [Box<dyn Work>]) {
        let mut locked = None;
        for work in group {
            let done = match &locked {
                None => self.together(slice::from_mut(work)),
                Some(error) => Err(StoreError::clone(error)),
            };
            if let Err(error) = done {
                if matches!(error, StoreError::Locked { .. }) {
                    locked = Some(error.clone());
                }
                work.fail(error);
            }
        }
    }

    fn serve(&self, mut group: Vec<Box<dyn Work>>) {
        if let Err(error) = self.together(&mut group) {
            // To wait for a lock takes time: once is enough for all.
            if group.len() == 1 || matches!(error, StoreError::Locked { .. }) {
                for work in &mut group {
                    work.fail(error.clone());
                }
            } else {
                self.one_by_one(&mut group);
            }
        }
        for work in group {
            work.answer();
        }
    }

    fn serve_all(&self, mut calls: mpsc::Receiver<Box<dyn Work>>) {
        while let Some(first) = calls.blocking_recv() {
            let mut bytes = first.bytes();
            let mut group = vec![first];
            while group.len() < self.group_max
                && bytes < GROUP_BYTES_MAX
                && let Ok(next) = calls.try_recv()
            {
                bytes = bytes.saturating_add(next.bytes());
                group.push(next);
            }
            self.serve(group);
        }
    }
}

/// Takes calls to a [`Desk`] and brings their answers back. Dropping it ends the thread, after it has
/// done what it was asked to.
pub(super) struct Hands {
    place: Place,
    at: At,
}

enum At {
    /// On the caller's thread: nothing is waited for, so a test's paused clock stands still.
    Caller(Mutex<Desk>),
    Thread {
        calls: Option<mpsc::Sender<Box<dyn Work>>>,
        thread: Option<JoinHandle<()>>,
    },
}

impl Hands {
    /// Has work done by the caller itself.
    pub(super) fn here(desk: Desk) -> Self {
        Self { place: desk.place.clone(), at: At::Caller(Mutex::new(desk)) }
    }

    /// Has work done by a thread called `name`.
    pub(super) fn thread(name: &str, desk: Desk) -> Result<Self, StoreError> {
        let place = desk.place.clone();
        let (calls, queue) = mpsc::channel(QUEUE_MAX);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || desk.serve_all(queue))
            .map_err(|error| place.unopened(error))?;
        Ok(Self { place, at: At::Thread { calls: Some(calls), thread: Some(thread) } })
    }

    /// Has `run` done inside a transaction and gives its answer once that is committed. `bytes` says
    /// how much it writes, roughly.
    pub(super) async fn call<T, F>(&self, bytes: usize, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, Undone> + Send + 'static,
    {
        let (caller, answer) = oneshot::channel();
        let call = Box::new(Call { bytes, run, result: None, caller });
        match &self.at {
            At::Caller(desk) => {
                desk.lock().expect("nothing panics while it holds the lock").serve(vec![call]);
            }
            At::Thread { calls, .. } => {
                let calls = calls.as_ref().ok_or_else(|| self.place.closed())?;
                calls.send(call).await.map_err(|_| self.place.closed())?;
            }
        }
        answer.await.map_err(|_| self.place.closed())?
    }
}

impl Drop for Hands {
    fn drop(&mut self) {
        if let At::Thread { calls, thread } = &mut self.at {
            drop(calls.take());
            if let Some(thread) = thread.take() {
                // A thread that panicked has said so, and its callers were told that it is closed.
                drop(thread.join());
            }
        }
    }
}
