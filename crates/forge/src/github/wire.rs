//! Jobs as GitHub writes them, in deliveries and in answers alike, and what they mean to us.
//!
//! Every field is optional that GitHub's description calls nullable or that some Enterprise Server
//! leaves out: its 3.3 sent no `created_at`, `workflow_name` or `run_attempt`.

use remuda_core::Timestamp;
use remuda_core::job::{Conclusion, JobKey, JobState, RunnerRef, Title};
use remuda_core::label::{LabelSet, Wanted};
use remuda_core::name::{ForgeName, Login, RepositoryName, RunnerName};
use remuda_core::observation::{JobSeen, Source};
use remuda_core::tenant::{OwnerKind, Repository, Scope, Tenant, TenantKey};
use serde::Deserialize;
use serde_json::Value;

use super::time;
use crate::DecodeError;
use crate::error::bounded;

/// `workflow_job` of a delivery; an item of `jobs` of an answer.
#[derive(Debug, Deserialize)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) status: Option<String>,
    pub(super) conclusion: Option<String>,
    run_id: Option<u64>,
    name: Option<String>,
    workflow_name: Option<String>,
    html_url: Option<String>,
    created_at: Option<String>,
    started_at: Option<String>,
    completed_at: Option<String>,
    labels: Option<Vec<String>>,
    /// A number; absent, null, 0 or "" where there is no runner.
    runner_id: Option<Value>,
    runner_name: Option<String>,
}

/// `repository` of a delivery or a run; an item of a listing of repositories.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct WireRepository {
    pub(super) name: String,
    pub(super) owner: WireOwner,
    /// Read-only: nothing can be queued in it.
    #[serde(default)]
    pub(super) archived: bool,
    /// Closed by GitHub.
    #[serde(default)]
    pub(super) disabled: bool,
}

/// The owner of a repository.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct WireOwner {
    pub(super) id: u64,
    pub(super) login: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
}

/// A repository and the account it belongs to.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) repository: Repository,
    pub(super) tenant: Tenant,
}

impl WireOwner {
    /// The account as a tenant.
    pub(super) fn tenant(&self, forge: &ForgeName) -> Result<Tenant, DecodeError> {
        let kind = match self.kind.as_str() {
            "Organization" => OwnerKind::Organization,
            "User" => OwnerKind::User,
            other => return Err(DecodeError::Owner(bounded(other))),
        };
        let key = TenantKey { forge: forge.clone(), kind, id: self.id };
        Ok(Tenant { key, login: Login::new(&self.login)? })
    }
}

impl WireRepository {
    /// The repository as part of the model.
    pub(super) fn home(&self, forge: &ForgeName) -> Result<Home, DecodeError> {
        let tenant = self.owner.tenant(forge)?;
        let name = RepositoryName::new(&self.name)?;
        Ok(Home { repository: Repository { owner: tenant.login.clone(), name }, tenant })
    }
}

impl Home {
    /// Where a runner for the repository registers. Personal accounts have no runners of their own.
    fn scope(&self) -> Scope {
        match self.tenant.key.kind {
            OwnerKind::Organization | OwnerKind::Enterprise => {
                Scope::Organization(self.tenant.login.clone())
            }
            OwnerKind::User => Scope::Repository(self.repository.clone()),
        }
    }
}

/// The state an answer gives a job. One that has a conclusion is over, whatever its status says:
/// GitHub has been seen to report `in_progress` with `cancelled`.
pub(super) fn state(job: &Job) -> JobState {
    if job.conclusion.is_some() {
        return JobState::Completed;
    }
    match job.status.as_deref() {
        Some("queued") => JobState::Queued,
        Some("in_progress") => JobState::InProgress,
        Some("completed") => JobState::Completed,
        // `requested`, `pending`, `waiting`, and whatever is invented later: no demand, no harm.
        Some(_) | None => JobState::Waiting,
    }
}

fn conclusion(word: &str) -> Conclusion {
    match word {
        "success" => Conclusion::Success,
        "failure" => Conclusion::Failure,
        "cancelled" => Conclusion::Cancelled,
        "skipped" => Conclusion::Skipped,
        "timed_out" => Conclusion::TimedOut,
        "action_required" => Conclusion::ActionRequired,
        "neutral" => Conclusion::Neutral,
        _ => Conclusion::Other,
    }
}

impl Job {
    /// The job as a fact.
    pub(super) fn seen(
        &self,
        forge: &ForgeName,
        home: &Home,
        state: JobState,
        source: Source,
    ) -> Result<JobSeen, DecodeError> {
        let labels = LabelSet::parse(self.labels.iter().flatten())?;
        let text = |text: &Option<String>| Title::bounded(text.as_deref().unwrap_or_default());
        let title = Title {
            job: text(&self.name),
            workflow: text(&self.workflow_name),
            url: text(&self.html_url),
            run: self.run_id.unwrap_or(0),
        };
        let has_run = state >= JobState::InProgress;
        let is_over = state == JobState::Completed;
        let word = self.conclusion.as_deref();
        Ok(JobSeen {
            key: JobKey::rest(forge, self.id),
            state,
            conclusion: is_over.then(|| word.map_or(Conclusion::Other, conclusion)),
            tenant: home.tenant.clone(),
            scope: home.scope(),
            repository: home.repository.clone(),
            wanted: Wanted::AllOf(labels),
            // A job that GitHub queued again may still name its lost runner.
            runner: if has_run { self.runner()? } else { None },
            title,
            queued_at: moment("created_at", self.created_at.as_deref())?,
            // GitHub fills this in for queued jobs too, with the time they were made.
            started_at: moment("started_at", self.started_at.as_deref())?.filter(|_| has_run),
            completed_at: moment("completed_at", self.completed_at.as_deref())?.filter(|_| is_over),
            source,
        })
    }

    fn runner(&self) -> Result<Option<RunnerRef>, DecodeError> {
        let id = self.runner_id.as_ref().and_then(Value::as_u64).filter(|id| *id > 0);
        let name = self.runner_name.as_deref().filter(|name| !name.is_empty());
        let (Some(id), Some(name)) = (id, name) else { return Ok(None) };
        Ok(Some(RunnerRef { id, name: RunnerName::new(name)? }))
    }
}

/// A time; none where GitHub writes its zero (`0001-01-01T00:00:00Z`).
fn moment(field: &'static str, text: Option<&str>) -> Result<Option<Timestamp>, DecodeError> {
    let Some(text) = text else { return Ok(None) };
    let at = time(text).ok_or(DecodeError::Time { field })?;
    Ok(Some(at).filter(|at| at.as_millis() > 0))
}
