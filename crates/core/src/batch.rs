//! What one turn of the controller wants written: the rows, why jobs wait, and what people are told.

use std::sync::Arc;

use crate::job::JobKey;
use crate::name::PoolName;
use crate::reason::Reason;
use crate::runner::RunnerId;
use crate::snapshot::Change;
use crate::time::Timestamp;

/// One turn's worth of writing, committed as a whole before anything is done on its account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// New rows, in order. Those that are not durable are of no concern to a store.
    pub changes: Vec<Change>,
    /// Jobs whose reasons for waiting are others than before.
    pub waits: Vec<WaitChange>,
    /// What happened, for people.
    pub events: Vec<Event>,
}

impl Batch {
    /// True if there is nothing a store would have to write.
    pub fn is_idle(&self) -> bool {
        self.waits.is_empty()
            && self.events.is_empty()
            && !self.changes.iter().any(Change::is_durable)
    }
}

/// A job's reasons for waiting have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitChange {
    /// The job.
    pub job: JobKey,
    /// Since when these are its reasons.
    pub at: Timestamp,
    /// The reasons; none once it waits no more.
    pub reasons: Arc<[Reason]>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When we learned of it.
    pub at: Timestamp,
    /// The job it is about, if any.
    pub job: Option<JobKey>,
    /// The runner it is about, if any.
    pub runner: Option<RunnerId>,
    /// The pool it is about, if any.
    pub pool: Option<PoolName>,
    /// One sentence, lower case, without secrets.
    pub text: Arc<str>,
}
