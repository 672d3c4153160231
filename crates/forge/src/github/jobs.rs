//! Open jobs, as the forge tells them when asked. There is no endpoint for a queue: it is read run
//! by run, repository by repository. Answers that did not change cost
//! no budget (conditional requests).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use http::StatusCode;
use remuda_core::Timestamp;
use remuda_core::action::Reach;
use remuda_core::job::{JobKey, JobState};
use remuda_core::name::Login;
use remuda_core::observation::{Covered, JobSeen, Source};
use remuda_core::tenant::{Repository, Scope, Tenant};
use serde::Deserialize;

use super::auth::Access;
use super::rest::{Ask, Meter, Page, Who};
use super::wire::{Home, Job, WireRepository, state};
use super::{GitHub, repository_path, segment};
use crate::error::bounded;
use crate::{DecodeError, ForgeError, OpenJobs};

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
    at: Repository,
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
        reach: &Reach,
        asked_at: Timestamp,
    ) -> Result<OpenJobs, ForgeError> {
        let meter = Arc::new(Meter::new(reach.calls_max));
        let (repositories, mut covered) = match scope {
            Scope::Repository(repository) => {
                (self.one_repository(scope, repository, &meter).await?, Covered::Whole)
            }
            Scope::Organization(login) => {
                chosen(self.repositories(scope, login, &meter).await?, reach)
            }
            Scope::Enterprise(_) => {
                return Err(ForgeError::Unsupported(format!(
                    "the jobs of {scope} cannot be listed: name its organizations as scopes"
                )));
            }
        };
        let all: BTreeSet<Repository> = repositories.keys().cloned().collect();
        let calls = repositories.into_iter().map(|(at, access)| self.open_runs(at, access));
        let (runs, mut unread) = few_at_a_time(calls.collect()).await?;
        let source = Source::Read { asked_at };
        let calls = runs.into_iter().map(|run| self.open_jobs_of(run, source));
        let (jobs, more) = few_at_a_time(calls.collect()).await?;
        unread.extend(more);
        if !unread.is_empty() {
            covered = without(covered, all, &unread);
        }
        let by_key: BTreeMap<JobKey, JobSeen> =
            jobs.into_iter().map(|job| (job.key.clone(), job)).collect();
        Ok(OpenJobs { all: by_key.into_values().collect(), covered, calls: meter.spent() })
    }

    async fn one_repository(
        &self,
        scope: &Scope,
        repository: &Repository,
        meter: &Arc<Meter>,
    ) -> Result<BTreeMap<Repository, Access>, ForgeError> {
        let ask = Ask::get(repository_path(repository)?);
        // Asked for its own sake: the listing of a repository nobody may see must be an error.
        let seen = async |mut access: Access| {
            access.bearer.meter = Some(Arc::clone(meter));
            self.send(&access, &ask).await?.read::<WireRepository>(&ask)?;
            Ok(access)
        };
        let access = self.with(scope, seen).await?;
        Ok(BTreeMap::from([(repository.clone(), access)]))
    }

    /// The organization's repositories that may hold jobs, each with a credential for it. Where several
    /// see one, which of them asks follows from its name: so the load is shared, and each remembers what
    /// it was answered.
    async fn repositories(
        &self,
        scope: &Scope,
        login: &Login,
        meter: &Arc<Meter>,
    ) -> Result<BTreeMap<Repository, Access>, ForgeError> {
        let mut seers: BTreeMap<Repository, Vec<Access>> = BTreeMap::new();
        for mut access in self.credentials(scope).await? {
            access.bearer.meter = Some(Arc::clone(meter));
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
                    seers.entry(home.repository).or_default().push(access.clone());
                }
            }
        }
        let one = |(repository, mut seers): (Repository, Vec<Access>)| {
            let able = |access: &Access| self.rest.left(&access.bearer.credential) > 0;
            if seers.iter().any(able) {
                seers.retain(able);
            }
            let letters = repository.name.as_str().bytes().map(usize::from).sum::<usize>();
            let chosen = letters % seers.len();
            (repository, seers.swap_remove(chosen))
        };
        Ok(seers.into_iter().map(one).collect())
    }

    async fn open_runs(&self, at: Repository, access: Access) -> Part<Found> {
        let path = repository_path(&at)?;
        let mut runs = BTreeMap::new();
        for status in OPEN {
            let ask = Ask::get(format!("{path}/actions/runs")).with("status", status);
            let listed = match self.pages::<Runs>(&access, ask.clone()).await {
                Err(error) if is_gone(&error) => return Ok((Vec::new(), None)),
                Err(ForgeError::Dear { .. }) => {
                    return Ok((runs.into_values().collect(), Some(at)));
                }
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
                let (at, access) = (at.clone(), access.clone());
                runs.insert(run.id, Found { access, path, home, at });
            }
        }
        Ok((runs.into_values().collect(), None))
    }

    async fn open_jobs_of(&self, run: Found, source: Source) -> Part<JobSeen> {
        let ask = Ask::get(run.path).with("filter", "latest");
        let jobs = match self.pages::<Jobs>(&run.access, ask).await {
            Err(error) if is_gone(&error) => return Ok((Vec::new(), None)),
            Err(ForgeError::Dear { .. }) => return Ok((Vec::new(), Some(run.at))),
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
        Ok((jobs.into_iter().filter_map(seen).collect(), None))
    }
}

/// What one call of a sweep found, and the repository that it could not read to the end because the
/// sweep had cost as much as it may.
type Part<T> = Result<(Vec<T>, Option<Repository>), ForgeError>;

/// Of the repositories there are, those that a sweep reaches, and what it has seen then.
fn chosen(
    mut all: BTreeMap<Repository, Access>,
    reach: &Reach,
) -> (BTreeMap<Repository, Access>, Covered) {
    let others: Vec<Repository> =
        all.keys().filter(|one| !reach.active.contains(one)).cloned().collect();
    if others.len() <= reach.others {
        return (all, Covered::Whole);
    }
    let from = others.partition_point(|one| reach.after.as_ref().is_some_and(|after| one <= after));
    let turn: Vec<Repository> =
        others.iter().cycle().skip(from).take(reach.others).cloned().collect();
    let next = turn.last().cloned();
    // One that is there no more has been looked at: it has nothing.
    let repositories: BTreeSet<Repository> = reach.active.iter().cloned().chain(turn).collect();
    all.retain(|one, _| repositories.contains(one));
    (all, Covered::Part { repositories, next })
}

/// What was seen, less what was not read to the end.
fn without(covered: Covered, all: BTreeSet<Repository>, unread: &BTreeSet<Repository>) -> Covered {
    let (mut repositories, next) = match covered {
        Covered::Whole => (all, None),
        Covered::Part { repositories, next } => (repositories, next),
    };
    repositories.retain(|one| !unread.contains(one));
    Covered::Part { repositories, next }
}

/// Makes calls, at most [`SWEEP_CALLS_MAX`] at once; the first error ends them.
async fn few_at_a_time<T>(
    calls: Vec<impl Future<Output = Part<T>>>,
) -> Result<(Vec<T>, BTreeSet<Repository>), ForgeError> {
    let parts: Vec<_> = stream::iter(calls).buffer_unordered(SWEEP_CALLS_MAX).try_collect().await?;
    let (found, unread): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    Ok((found.into_iter().flatten().collect(), unread.into_iter().flatten().collect()))
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
