//! Open jobs, as the forge tells them when asked. There is no endpoint for a queue: it is read run
//! by run, repository by repository. Answers that did not change cost
//! no budget (conditional requests).

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use http::StatusCode;
use remuda_core::Timestamp;
use remuda_core::job::{JobKey, JobState};
use remuda_core::name::Login;
use remuda_core::observation::{JobSeen, Source};
use remuda_core::tenant::{Repository, Scope, Tenant};
use serde::Deserialize;

use super::auth::Access;
use super::rest::{Ask, Page, Who};
use super::wire::{Home, Job, WireRepository, state};
use super::{GitHub, repository_path, segment};
use crate::error::bounded;
use crate::{DecodeError, ForgeError};

/// Requests of one sweep in flight at once. GitHub admits a hundred from all of an account's clients.
const SWEEP_CALLS_MAX: usize = 8;
/// The states of runs that may hold open jobs, in the order runs go through them: one that moves on
/// while we read is met again. A run `in_progress` may have jobs that are still queued.
const OPEN: [&str; 4] = ["waiting", "pending", "queued", "in_progress"];
/// GitHub lists no more runs than this of one state (REST, "List workflow runs for a repository").
const RUNS_MAX: usize = 1000;
/// How long an account's number is believed without asking again; accounts can be renamed.
const OWNER_AGE_MAX: std::time::Duration = std::time::Duration::from_hours(1);

/// An account, and when we asked for it.
#[derive(Clone)]
pub(super) struct Owner {
    tenant: Tenant,
    asked_at: Timestamp,
}

#[derive(Deserialize)]
struct Repositories {
    repositories: Vec<WireRepository>,
}

impl Page for Repositories {
    type Item = WireRepository;
    fn items(self) -> Vec<WireRepository> {
        self.repositories
    }
}

#[derive(Deserialize)]
struct Run {
    id: u64,
    repository: WireRepository,
}

#[derive(Deserialize)]
struct Runs {
    workflow_runs: Vec<Run>,
}

impl Page for Runs {
    type Item = Run;
    fn items(self) -> Vec<Run> {
        self.workflow_runs
    }
}

#[derive(Deserialize)]
struct Jobs {
    jobs: Vec<Job>,
}

impl Page for Jobs {
    type Item = Job;
    fn items(self) -> Vec<Job> {
        self.jobs
    }
}

/// A run, with the credential that could see it.
struct Found {
    access: Access,
    path: String,
    home: Home,
}

impl GitHub {
    pub(super) async fn job_as(
        &self,
        access: Access,
        repository: &Repository,
        key: &JobKey,
        asked_at: Timestamp,
    ) -> Result<JobSeen, ForgeError> {
        let path = repository_path(repository)?;
        let ask = Ask::get(format!("{path}/actions/jobs/{}", key.native));
        let job: Job = self.send(&access, &ask).await?.read(&ask)?;
        let tenant = self.owner(&access, &path, &repository.owner).await?;
        let home = Home { repository: repository.clone(), tenant };
        job.seen(&self.name, &home, state(&job), Source::Read { asked_at })
            .map_err(|error| unreadable(&ask, &error))
    }

    /// The account that owns a repository. Answers about jobs do not say its number.
    async fn owner(
        &self,
        access: &Access,
        path: &str,
        login: &Login,
    ) -> Result<Tenant, ForgeError> {
        let recent = |owner: &Owner| self.rest.now().since(owner.asked_at) < OWNER_AGE_MAX;
        let look = async {
            let asked_at = self.rest.now();
            let ask = Ask::get(path.into());
            let repository: WireRepository = self.send(access, &ask).await?.read(&ask)?;
            let tenant = repository.owner.tenant(&self.name);
            Ok(Owner { tenant: tenant.map_err(|error| unreadable(&ask, &error))?, asked_at })
        };
        Ok(self.owners.get(login, recent, look).await?.into_inner().tenant)
    }

    pub(super) async fn open_jobs(
        &self,
        scope: &Scope,
        asked_at: Timestamp,
    ) -> Result<Vec<JobSeen>, ForgeError> {
        let repositories = match scope {
            Scope::Repository(repository) => self.one_repository(scope, repository).await?,
            Scope::Organization(login) => self.repositories(scope, login).await?,
            Scope::Enterprise(_) => {
                return Err(ForgeError::Unsupported(format!(
                    "the jobs of {scope} cannot be listed: name its organizations as scopes"
                )));
            }
        };
        let calls = repositories.into_iter().map(|(path, access)| self.open_runs(path, access));
        let runs: Vec<Vec<Found>> = few_at_a_time(calls.collect()).await?;
        let source = Source::Read { asked_at };
        let calls = runs.into_iter().flatten().map(|run| self.open_jobs_of(run, source));
        let jobs: Vec<Vec<JobSeen>> = few_at_a_time(calls.collect()).await?;
        let by_key: BTreeMap<JobKey, JobSeen> =
            jobs.into_iter().flatten().map(|job| (job.key.clone(), job)).collect();
        Ok(by_key.into_values().collect())
    }

    async fn one_repository(
        &self,
        scope: &Scope,
        repository: &Repository,
    ) -> Result<BTreeMap<String, Access>, ForgeError> {
        let path = repository_path(repository)?;
        let ask = Ask::get(path.clone());
        // Asked for its own sake: the listing of a repository nobody may see must be an error.
        let seen = async |access: Access| {
            self.send(&access, &ask).await?.read::<WireRepository>(&ask)?;
            Ok(access)
        };
        let access = self.with(scope, seen).await?;
        Ok(BTreeMap::from([(path, access)]))
    }

    /// The organization's repositories that may hold jobs, by path, each with a credential for it.
    async fn repositories(
        &self,
        scope: &Scope,
        login: &Login,
    ) -> Result<BTreeMap<String, Access>, ForgeError> {
        let mut all = BTreeMap::new();
        for access in self.credentials(scope).await? {
            let listed = match access.bearer.who {
                Who::App(_) | Who::Installation(..) => {
                    let ask = Ask::get("/installation/repositories".into());
                    self.pages::<Repositories>(&access, ask).await?
                }
                Who::Token => {
                    let ask = Ask::get(format!("/orgs/{}/repos", segment(login.as_str())?));
                    self.pages::<Vec<WireRepository>>(&access, ask).await?
                }
            };
            for repository in listed {
                if repository.archived || repository.disabled {
                    continue;
                }
                let Ok(home) = repository.home(&self.name) else { continue };
                if home.tenant.login == *login {
                    let path = repository_path(&home.repository)?;
                    all.entry(path).or_insert_with(|| access.clone());
                }
            }
        }
        Ok(all)
    }

    async fn open_runs(&self, path: String, access: Access) -> Result<Vec<Found>, ForgeError> {
        let mut runs = BTreeMap::new();
        for status in OPEN {
            let ask = Ask::get(format!("{path}/actions/runs")).with("status", status);
            let listed = match self.pages::<Runs>(&access, ask.clone()).await {
                Err(error) if is_gone(&error) => return Ok(Vec::new()),
                listed => listed?,
            };
            if listed.len() >= RUNS_MAX {
                let what = "runs of one status, which is all that GitHub lists";
                return Err(ForgeError::TooLong { call: ask.name(), max: RUNS_MAX, what });
            }
            for run in listed {
                let home =
                    run.repository.home(&self.name).map_err(|error| unreadable(&ask, &error))?;
                let path = format!("{path}/actions/runs/{}/jobs", run.id);
                runs.insert(run.id, Found { access: access.clone(), path, home });
            }
        }
        Ok(runs.into_values().collect())
    }

    async fn open_jobs_of(&self, run: Found, source: Source) -> Result<Vec<JobSeen>, ForgeError> {
        let ask = Ask::get(run.path).with("filter", "latest");
        let jobs = match self.pages::<Jobs>(&run.access, ask).await {
            Err(error) if is_gone(&error) => return Ok(Vec::new()),
            jobs => jobs?,
        };
        let seen = |job: Job| {
            let state = state(&job);
            if state == JobState::Completed {
                return None;
            }
            // A job that cannot be a job of ours must not hide the others. No pool could serve one
            // with such labels, and its delivery is kept with the reason.
            job.seen(&self.name, &run.home, state, source).ok()
        };
        Ok(jobs.into_iter().filter_map(seen).collect())
    }
}

/// Makes calls, at most [`SWEEP_CALLS_MAX`] at once; the first error ends them.
async fn few_at_a_time<T>(
    calls: Vec<impl Future<Output = Result<T, ForgeError>>>,
) -> Result<Vec<T>, ForgeError> {
    stream::iter(calls).buffer_unordered(SWEEP_CALLS_MAX).try_collect().await
}

/// True if what was listed a moment ago is no longer there, or closed by GitHub (451; 403 with
/// "Repository access blocked"). That is no reason to give up on the other repositories.
fn is_gone(error: &ForgeError) -> bool {
    let ForgeError::Refused { status, message, .. } = error else { return false };
    match *status {
        StatusCode::NOT_FOUND | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => true,
        StatusCode::FORBIDDEN => message.contains("access blocked"),
        _ => false,
    }
}

fn unreadable(ask: &Ask, error: &DecodeError) -> ForgeError {
    ask.broken(format!("the answer cannot be understood: {}", bounded(&error.to_string())))
}
