//! The sandbox as a program holds it: started, asked, closed.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{AppConfig, Config, Hook, OwnerKind, PersonalToken, Visibility};
use crate::faults::Faults;
use crate::gate::sign_app_token;
use crate::http::router;
use crate::id::{
    AppId, GroupId, HookId, InstallationId, JobId, OwnerId, RepositoryId, RunId, RunnerId,
};
use crate::post::deliver;
use crate::report::{self, DeliveryReport, JobReport, RunnerReport, Statistics};
use crate::shared::Shared;
use crate::workflow::{Workflow, WorkflowRefusal};
use crate::world::{AccountError, GroupVisibility, HookAt, RunError, World};

/// The private key (PKCS#1) of every App that is given no key of its own. It is in the source for
/// all to read and protects nothing but sandboxes.
pub const SANDBOX_APP_KEY_PEM: &str = include_str!("../keys/sandbox-app-key-protects-nothing.pem");

/// Most jobs a sandbox holds.
const JOBS_MAX: usize = 100_000;
/// How long closing waits for requests under way before it ends them.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// Why the sandbox did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// An App's key cannot be read.
    #[error("the key of App {app} is no use: {problem}")]
    Key {
        /// The App.
        app: AppId,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An account, repository, group or webhook cannot be made.
    #[error("{0}")]
    Account(String),
    /// A workflow cannot be run here.
    #[error("the workflow cannot be run by the sandbox: {0}")]
    Workflow(#[from] WorkflowRefusal),
    /// A fault's value is no probability.
    #[error("{0}")]
    Faults(String),
    /// The sandbox holds as many jobs as it can.
    #[error("the sandbox holds {0} jobs and takes no more than {JOBS_MAX}")]
    Full(usize),
    /// A run cannot be cancelled.
    #[error("run {run} cannot be cancelled: {problem}")]
    Run {
        /// The run.
        run: RunId,
        /// Why not.
        problem: String,
    },
}

impl From<AccountError> for SandboxError {
    fn from(error: AccountError) -> Self {
        Self::Account(error.to_string())
    }
}

/// A run as submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Submitted {
    /// The run's number.
    pub run_id: RunId,
    /// Its jobs' numbers, in the order of the file.
    pub job_ids: Vec<JobId>,
}

/// Which of an organization's repositories a runner group serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupAccess {
    /// All of them, public ones included.
    All,
    /// The private ones.
    Private,
    /// These.
    Selected(BTreeSet<RepositoryId>),
}

/// A running sandbox. Dropping it ends its tasks at once; [`Sandbox::close`] ends them in order.
pub struct Sandbox {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    address: SocketAddr,
    app_keys: Vec<(AppId, SecretString)>,
}

impl Sandbox {
    /// Starts a sandbox with what `config` says; it serves when this returns.
    pub async fn start(config: Config) -> Result<Self, SandboxError> {
        if let Some(problem) = config.faults.problem() {
            return Err(SandboxError::Faults(problem));
        }
        let listen = config.listen;
        let unable = |source| SandboxError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(unable)?;
        let address = listener.local_addr().map_err(unable)?;
        let base = match &config.public_url {
            Some(url) => url.trim_end_matches('/').to_string(),
            None => format!("http://{address}"),
        };
        let world = World::new(config.seed, config.times, config.faults.clone());
        let shared = Arc::new(Shared::new(world, &base, config.times, config.limits));
        let mut sandbox =
            Self { shared: shared.clone(), tasks: JoinSet::new(), address, app_keys: Vec::new() };
        sandbox.furnish(config)?;
        let app = router(shared.clone());
        let stopped = shared.stop.clone().cancelled_owned();
        sandbox.tasks.spawn(async move {
            let served = axum::serve(listener, app).with_graceful_shutdown(stopped).await;
            if let Err(error) = served {
                tracing::error!(%error, "the sandbox no longer serves");
            }
        });
        sandbox.tasks.spawn(deliver(shared.clone()));
        sandbox.tasks.spawn(async move { shared.keep_time().await });
        Ok(sandbox)
    }

    fn furnish(&mut self, config: Config) -> Result<(), SandboxError> {
        for owner in config.owners {
            self.create_owner(&owner.login, owner.kind)?;
            for name in owner.repositories {
                self.create_repository(&owner.login, &name, Visibility::Private)?;
            }
        }
        for app in config.apps {
            self.create_app(app)?;
        }
        for hook in config.webhooks {
            self.create_hook(hook)?;
        }
        for token in config.personal_tokens {
            self.create_personal_token(token);
        }
        Ok(())
    }

    /// Where it serves, such as `http://127.0.0.1:4000`, without a trailing slash.
    pub fn url(&self) -> String {
        self.shared.links.html.clone()
    }

    /// The address it listens on.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends everything: answers what is under way, closes connections, joins every task.
    pub async fn close(mut self) {
        self.shared.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSE_GRACE, ended).await.is_err() {
            tracing::warn!("a connection to the sandbox did not end; it is cut");
            self.tasks.shutdown().await;
        }
    }

    /// Makes an App, its webhook if it has one, and its installations.
    pub fn create_app(&mut self, app: AppConfig) -> Result<(), SandboxError> {
        let id = app.id;
        let key = app.key_pem.clone().unwrap_or_else(|| SANDBOX_APP_KEY_PEM.into());
        self.shared
            .gate
            .register_key(id, key.expose_secret())
            .map_err(|problem| SandboxError::Key { app: id, problem })?;
        self.shared.act(|world, now| world.create_app(app, now))?;
        self.app_keys.push((id, key));
        Ok(())
    }

    /// The key an App was given: its private key, unless it was configured with a public one.
    pub fn app_private_key_pem(&self, app: AppId) -> Option<SecretString> {
        self.app_keys.iter().find(|(id, _)| *id == app).map(|(_, key)| key.clone())
    }

    /// A token signed by an App, good for nine minutes; `None` if there is no such App or its
    /// private key (PKCS#1) is not known here.
    pub fn app_token(&self, app: AppId) -> Option<SecretString> {
        let key = self.app_private_key_pem(app)?;
        sign_app_token(&key, app, self.shared.clock.now()).ok().map(SecretString::from)
    }

    /// Makes an account; every App that is for all accounts is installed there.
    pub fn create_owner(&self, login: &str, kind: OwnerKind) -> Result<OwnerId, SandboxError> {
        Ok(self.shared.act(|world, now| world.create_owner(login, kind, now))?)
    }

    /// Makes a repository.
    pub fn create_repository(
        &self,
        owner: &str,
        name: &str,
        visibility: Visibility,
    ) -> Result<RepositoryId, SandboxError> {
        Ok(self.shared.act(|world, now| world.create_repository(owner, name, visibility, now))?)
    }

    /// Installs an App at an account; gives the installation there is, if there is one.
    pub fn install(&self, app: AppId, owner: &str) -> Result<InstallationId, SandboxError> {
        let installed = self.shared.act(|world, now| {
            let id = world.owner(owner).ok_or_else(|| AccountError::NoOwner(owner.into()))?.id;
            if world.apps.contains_key(&app) {
                Ok(world.install(app, id, now))
            } else {
                Err(AccountError::NoApp(app))
            }
        });
        Ok(installed?)
    }

    /// Makes a runner group in an organization.
    pub fn create_group(
        &self,
        owner: &str,
        name: &str,
        access: GroupAccess,
    ) -> Result<GroupId, SandboxError> {
        let (visibility, allows_public) = match access {
            GroupAccess::All => (GroupVisibility::All, true),
            GroupAccess::Private => (GroupVisibility::Private, false),
            GroupAccess::Selected(selected) => (GroupVisibility::Selected(selected), true),
        };
        let made = self.shared.act(|world, _| {
            let id = world.owner(owner).ok_or_else(|| AccountError::NoOwner(owner.into()))?.id;
            world.create_group(id, name, visibility, allows_public)
        });
        Ok(made?)
    }

    /// Makes a webhook and pings it.
    pub fn create_hook(&self, hook: Hook) -> Result<HookId, SandboxError> {
        let made = self.shared.act(|world, now| {
            let owner = world.owner(&hook.owner);
            let owner = owner.ok_or_else(|| AccountError::NoOwner(hook.owner.clone()))?;
            let at = match (&hook.repository, owner.kind) {
                (Some(name), _) => HookAt::Repository(
                    world
                        .repository(&hook.owner, name)
                        .ok_or_else(|| AccountError::NoRepository(name.clone()))?
                        .id,
                ),
                (None, OwnerKind::Organization) => HookAt::Organization(owner.id),
                (None, OwnerKind::User) => {
                    return Err(AccountError::NotAnOrganization(hook.owner));
                }
            };
            world.create_hook(at, hook.url, hook.secret, now)
        });
        Ok(made?)
    }

    /// Accepts a personal access token from here on.
    pub fn create_personal_token(&self, token: PersonalToken) {
        self.shared.gate.register_person(token);
    }

    /// Runs a workflow (the text of its YAML file) `count` times in a repository.
    pub fn submit(
        &self,
        owner: &str,
        repository: &str,
        yaml: &str,
        count: usize,
    ) -> Result<Vec<Submitted>, SandboxError> {
        submit(&self.shared, owner, repository, yaml, count)
    }

    /// All jobs, oldest first.
    pub fn jobs(&self) -> Vec<JobReport> {
        self.shared
            .read(|view| view.world.jobs.values().map(|job| report::job(view, job)).collect())
    }

    /// One job.
    pub fn job(&self, id: JobId) -> Option<JobReport> {
        self.shared.read(|view| view.world.jobs.get(&id).map(|job| report::job(view, job)))
    }

    /// A job's log so far.
    pub fn log(&self, id: JobId) -> Option<String> {
        self.shared.read(|view| view.world.jobs.get(&id).map(|job| job.log.clone()))
    }

    /// All registrations.
    pub fn runners(&self) -> Vec<RunnerReport> {
        self.shared.read(|view| view.world.runners.values().map(report::runner).collect())
    }

    /// The latest webhooks, newest first, `limit` at most.
    pub fn deliveries(&self, limit: usize) -> Vec<DeliveryReport> {
        let latest = self.shared.post.deliveries(None, limit, |_| true);
        latest.iter().map(report::delivery).collect()
    }

    /// Totals since the start.
    pub fn statistics(&self) -> Statistics {
        statistics(&self.shared)
    }

    /// The levers as they stand.
    pub fn faults(&self) -> Faults {
        self.shared.read(|view| view.world.faults.clone())
    }

    /// Moves the levers.
    pub fn set_faults(&self, faults: Faults) -> Result<(), SandboxError> {
        set_faults(&self.shared, faults)
    }

    /// Cancels a run.
    pub fn cancel_run(&self, run: RunId) -> Result<(), SandboxError> {
        self.shared
            .act(|world, now| world.cancel_run(run, now))
            .map_err(|error: RunError| SandboxError::Run { run, problem: error.to_string() })
    }

    /// Lets a job past its `environment`. False if it does not wait there.
    pub fn release_job(&self, job: JobId) -> bool {
        self.shared.act(|world, now| world.release(job, now))
    }

    /// Loses the runner of a started job and queues the job again under the same number. False if
    /// the job is not started.
    pub fn requeue_job(&self, job: JobId) -> bool {
        self.shared.act(|world, now| world.requeue(job, now))
    }

    /// Loses a runner; the job it runs fails. False if there is no such runner.
    pub fn lose_runner(&self, runner: RunnerId) -> bool {
        self.shared.act(|world, now| world.lose_runner(runner, false, now))
    }

    /// Brings every registered runner online and lets each take the job that it is offered, without any
    /// process or connection: what thousands of runners do, on a machine that has no room for them.
    pub fn animate_runners(&self) {
        self.shared.act(World::animate);
    }

    /// Ends the jobs of at most `count` runners with success, those of the runners registered first
    /// first, and uses up their registrations. Gives how many ended.
    pub fn finish_jobs(&self, count: usize) -> usize {
        self.shared.act(|world, now| world.finish(count, now))
    }

    /// Counts up whenever something changed; for those who wait without polling.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.revisions()
    }

    /// Waits until `reached` says so of the statistics, which it is asked after every change.
    pub async fn wait_until(&self, reached: impl Fn(&Statistics) -> bool) -> Statistics {
        let mut changes = self.changes();
        loop {
            changes.borrow_and_update();
            let statistics = self.statistics();
            // The sender lives as long as `self`, so only its end can end the waiting early.
            if reached(&statistics) || changes.changed().await.is_err() {
                return statistics;
            }
        }
    }
}

pub(crate) fn submit(
    shared: &Shared,
    owner: &str,
    repository: &str,
    yaml: &str,
    count: usize,
) -> Result<Vec<Submitted>, SandboxError> {
    let workflow = Arc::new(Workflow::parse(yaml)?);
    let each: usize = workflow.jobs.iter().map(|job| job.combinations.len()).sum();
    shared.act(|world, now| {
        let found = world.repository(owner, repository);
        let id =
            found.ok_or_else(|| AccountError::NoRepository(format!("{owner}/{repository}")))?.id;
        if world.jobs.len().saturating_add(each.saturating_mul(count)) > JOBS_MAX {
            return Err(SandboxError::Full(world.jobs.len()));
        }
        let runs = (0..count).map(|_| {
            let run_id = world.submit(id, &workflow, yaml, now);
            Submitted { run_id, job_ids: world.runs[&run_id].jobs.clone() }
        });
        Ok(runs.collect())
    })
}

pub(crate) fn statistics(shared: &Shared) -> Statistics {
    let counts = shared.post.counts();
    shared.read(|view| Statistics::of(view.world, counts))
}

pub(crate) fn set_faults(shared: &Shared, faults: Faults) -> Result<(), SandboxError> {
    if let Some(problem) = faults.problem() {
        return Err(SandboxError::Faults(problem));
    }
    shared.act(|world, _| world.faults = faults);
    Ok(())
}
