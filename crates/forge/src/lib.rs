//! Forges: where jobs come from and runners register.
//!
//! Turns deliveries and listings into observations, and actions into calls. Nothing here retries,
//! waits or decides: every call ends in an answer or in a [`ForgeError`] that says, by its
//! [`cause`](ForgeError::cause), what is known of its effect. When to ask again is the core's affair.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use remuda_core::action::{Launch, Reach};
use remuda_core::budget::{Budget, Credential};
use remuda_core::hook::{FailedDelivery, HookKey};
use remuda_core::job::JobKey;
use remuda_core::name::RunnerName;
use remuda_core::observation::{Covered, JobSeen, RunnerSeen};
use remuda_core::tenant::{Repository, Scope};
use remuda_core::{Delivery, Observation, Timestamp};
use secrecy::SecretString;

mod cache;
mod error;
mod github;
pub mod secrets;

pub use error::{DecodeError, Effect, ForgeError, Refusal, SetupError};
pub use github::{CallLimits, GitHub};

/// Tells the time. Handed in, so that tests can set it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A webhook request as it arrived: nothing about it is believed yet.
#[derive(Clone, Copy)]
pub struct RawDelivery<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body, byte for byte: that is what is signed.
    pub body: &'a Bytes,
    /// When it arrived.
    pub received_at: Timestamp,
}

impl fmt::Debug for RawDelivery<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawDelivery")
            .field("received_at", &self.received_at)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A registration just made.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The forge's id of it, by which it is removed again.
    pub id: u64,
    /// What the runner needs to come online: a bearer secret until it is used.
    pub jit: SecretString,
}

/// The forge's answer to a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The registration is gone, by this call or before it. No job can reach the runner any more.
    Removed,
    /// The forge keeps it, because it has a job.
    Busy,
}

/// The open jobs that a listing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenJobs {
    /// Waiting, queued or in progress.
    pub all: Vec<JobSeen>,
    /// Where it looked, to the end.
    pub covered: Covered,
    /// Calls that count against a budget.
    pub calls: u32,
}

/// Deliveries of which no attempt succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedDeliveries {
    /// Those that were read.
    pub failed: Vec<FailedDelivery>,
    /// Where the listing goes on, if it was too long to be read at once.
    pub next: Option<Arc<str>>,
}

/// A forge.
#[async_trait]
pub trait Forge: Send + Sync {
    /// Checks who sent a request, by the signature over its raw body and before any parsing.
    /// Touches nothing outside.
    fn verify(&self, raw: &RawDelivery<'_>) -> Result<Delivery, Refusal>;

    /// Reads what a delivery says; empty for events and actions that do not concern us. Pure.
    fn decode(&self, delivery: &Delivery) -> Result<Vec<Observation>, DecodeError>;

    /// Registers a runner for one job. Called once per runner: an error whose cause is
    /// [`Unknown`](remuda_core::observation::Cause::Unknown) may have left a registration.
    async fn register(&self, launch: &Launch) -> Result<Registered, ForgeError>;

    /// Removes a registration: by its id, or without one by its name. One that is not there counts
    /// as removed, once the forge has shown that it would have let us see it.
    async fn deregister(
        &self,
        scope: &Scope,
        name: &RunnerName,
        id: Option<u64>,
    ) -> Result<Removal, ForgeError>;

    /// Reads one job; `None` if nobody we can ask as knows it. `asked_at` is when the question
    /// was decided, and becomes the fact's time.
    async fn job(
        &self,
        scope: &Scope,
        repository: &Repository,
        key: &JobKey,
        asked_at: Timestamp,
    ) -> Result<Option<JobSeen>, ForgeError>;

    /// Lists a scope's open jobs: waiting, queued or in progress. All of them where it says to have
    /// looked, or an error.
    async fn jobs(
        &self,
        scope: &Scope,
        reach: &Reach,
        asked_at: Timestamp,
    ) -> Result<OpenJobs, ForgeError>;

    /// Lists a scope's registrations, ours and others'. All pages, or an error. A registration made
    /// or removed while the pages are read may be in it or not.
    async fn runners(&self, scope: &Scope) -> Result<Vec<RunnerSeen>, ForgeError>;

    /// Lists a hook's failed deliveries, the newest first, back to `since` or from where an earlier
    /// listing stopped.
    async fn deliveries(
        &self,
        hook: &HookKey,
        since: Timestamp,
        from: Option<&str>,
    ) -> Result<FailedDeliveries, ForgeError>;

    /// Has a delivery sent again: it comes as it came the first time, under the same id.
    async fn redeliver(&self, hook: &HookKey, id: u64) -> Result<(), ForgeError>;

    /// What the forge has said of its budgets since this was last asked.
    fn budgets(&self) -> Vec<(Credential, Budget)>;
}
