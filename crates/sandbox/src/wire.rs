//! What the sandbox and its runner say to each other under `/_runner/`; ours, not GitHub's.
//!
//! `POST session` (bearer: the JIT credential) opens the session, whose name is the bearer of all
//! that follows: `GET message` (held open; also while a job runs, which is the heartbeat),
//! `POST jobs/{id}/acknowledge`, `POST jobs/{id}/log`, `POST jobs/{id}/step`,
//! `POST jobs/{id}/complete`, `DELETE session`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::JobId;
use crate::workflow::{Combination, Recipe};
use crate::world::Conclusion;

/// The runner introduces itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) os: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) session: String,
    /// How long a poll is held, in milliseconds; a runner waits somewhat longer.
    pub(crate) poll_hold_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Message {
    /// There is a job; acknowledge it.
    Job { job: JobId },
    /// Stop the job.
    Cancel { job: JobId },
}

/// A job to be run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) job: JobId,
    pub(crate) name: String,
    pub(crate) matrix: Combination,
    /// The `github` context.
    pub(crate) github: BTreeMap<String, String>,
    pub(crate) recipe: Recipe,
}

/// A step began or ended.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StepReport {
    /// Its place among the job's steps, from 0.
    pub(crate) step: usize,
    /// The name with its expressions replaced.
    pub(crate) name: String,
    /// `None` when it began.
    pub(crate) conclusion: Option<Conclusion>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Completion {
    pub(crate) conclusion: Conclusion,
}

/// `.credentials` of a JIT configuration.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Credentials {
    pub(crate) scheme: String,
    pub(crate) data: CredentialData,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct CredentialData {
    pub(crate) token: String,
}

/// `.runner` of a JIT configuration: what a runner of ours reads of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Settings {
    pub(crate) agent_name: String,
    pub(crate) server_url: String,
    pub(crate) work_folder: String,
}

/// The `Scheme` of our credentials, so that another runner's refusal is clear.
pub(crate) const SCHEME: &str = "RemudaSandbox";
