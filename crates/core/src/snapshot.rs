//! All we know at one instant, and the only way it changes: whole rows, applied in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::budget::{Budget, Credential, PurseKey};
use crate::fleet::Fleet;
use crate::hook::{HookKey, Undelivered, Watch};
use crate::job::{Job, JobKey, JobState, Trust};
use crate::label::Wanted;
use crate::name::{ForgeName, InstallationId, ProviderName, RunnerName};
use crate::observation::{StrayRegistration, Subject};
use crate::pool::Capacity;
use crate::reason::{BackoffKey, DrainKey};
use crate::runner::{Instance, InstanceId, InstanceState, Runner, RunnerId, RunnerState};
use crate::tenant::{Met, Repository, Scope, TenantKey};
use crate::time::Timestamp;

pub use crate::note::Note;

/// A row's new value. Applying one twice is the same as applying it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A job.
    Job(Box<Job>),
    /// A runner.
    Runner(Box<Runner>),
    /// An instance.
    Instance(Box<Instance>),
    /// A tenant.
    Tenant(Box<Met>),
    /// A back-off, or its end.
    Backoff(BackoffKey, Option<Backoff>),
    /// A drain of a pool, provider or node, or its end.
    Drain(DrainKey, Option<Drain>),
    /// Doubt whether these books are the newest, or its end.
    Recovering(Option<Recovering>),
    /// A registration nobody explains, or its end.
    Stray(StrayRegistration, Option<Stray>),
    /// The numbers the next runner and instance get.
    Next {
        /// For runners.
        runner: RunnerId,
        /// For instances.
        instance: InstanceId,
    },
    /// An instance that bears our tag and that no row explains, or its end. Not stored: listings tell.
    Orphan(ProviderName, InstanceId, Option<Orphan>),
    /// A job that ended long ago leaves the snapshot; its history stays in the store.
    ForgetJob(JobKey),
    /// A runner that is gone leaves the snapshot with its instance; their history stays in the store.
    ForgetRunner(RunnerId),
    /// What a provider's nodes have. Not stored: it is asked anew.
    Capacity(ProviderName, Option<Capacity>),
    /// When something was looked at. Not stored.
    Looked(Subject, Looked),
    /// What is only ever remembered.
    Note(Note),
}

impl Change {
    /// True if it must be in the store before anything is done on its account.
    pub fn is_durable(&self) -> bool {
        match self {
            Self::Job(_)
            | Self::Runner(_)
            | Self::Instance(_)
            | Self::Tenant(_)
            | Self::Backoff(..)
            | Self::Drain(..)
            | Self::Recovering(_)
            | Self::Stray(..)
            | Self::Next { .. }
            | Self::ForgetJob(_)
            | Self::ForgetRunner(_) => true,
            Self::Orphan(..) | Self::Capacity(..) | Self::Looked(..) | Self::Note(_) => false,
        }
    }
}

/// Most causes kept of earlier failures.
pub const EARLIER_MAX: usize = 3;

/// Failures being waited out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// How many in a row.
    pub failures: u32,
    /// When the first of them was.
    pub since: Timestamp,
    /// When the last that counted was.
    pub failed_at: Timestamp,
    /// Nothing is tried before this.
    pub until: Timestamp,
    /// The last failure, for people.
    pub because: Arc<str>,
    /// Other causes before it, the newest first; at most [`EARLIER_MAX`].
    pub earlier: Vec<Arc<str>>,
    /// What shows that it works again.
    pub proof: Proof,
    /// True if it is no fault: the provider said that it is full, or the forge that an owner's calls
    /// are too many.
    pub full: bool,
}

/// What shows that something works again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proof {
    /// A runner that got a job: those that failed never had one.
    #[default]
    Job,
    /// A runner that finished its job: the last that failed died with one.
    End,
}

/// A person's order that nothing new is placed somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Who ordered it.
    pub who: Arc<str>,
    /// Why.
    pub why: Arc<str>,
    /// Since when.
    pub since: Timestamp,
}

/// Doubt whether these books are the newest there are: something outside is younger than they are.
/// Until all that is outside has been seen, nothing is removed for want of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovering {
    /// Since when.
    pub since: Timestamp,
    /// What raised the doubt, for people.
    pub because: Arc<str>,
}

/// A registration that bears our name and that no row explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Its name.
    pub name: RunnerName,
    /// The listing that first had it.
    pub first_seen: Timestamp,
    /// The listing that last had it.
    pub last_seen: Timestamp,
    /// When its removal was last tried.
    pub tried_at: Option<Timestamp>,
}

/// An instance that bears our tag and that no row explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The runner it says it carries.
    pub runner: Option<RunnerName>,
    /// The listing that first had it.
    pub first_seen: Timestamp,
    /// The listing that last had it.
    pub last_seen: Timestamp,
}

/// When something was last asked or called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// When the last successful look was asked.
    pub asked_at: Option<Timestamp>,
    /// When the last look failed, if none has succeeded since. Of an idle runner: which listing first
    /// lacked it.
    pub failed_at: Option<Timestamp>,
    /// How many failed in a row.
    pub failures: u32,
    /// Calls that the last one took of a budget.
    pub cost: u32,
}

/// Jobs that are alike to the planner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    /// Whose they are.
    pub tenant: TenantKey,
    /// Where their runners register.
    pub scope: Scope,
    /// What they ask for.
    pub wanted: Wanted,
    /// Whether they may meet trusted runners.
    pub trust: Trust,
}

impl Class {
    /// The class of a job.
    pub fn of(job: &Job) -> Self {
        Self {
            tenant: job.tenant.clone(),
            scope: job.scope.clone(),
            wanted: job.wanted.clone(),
            trust: job.trust,
        }
    }
}

/// All we know at one instant. Nothing else exists for the planner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The instant.
    pub now: Timestamp,
    /// Which set of books this is.
    pub installation: InstallationId,
    /// The epoch of the lease under which changes are written.
    pub epoch: u64,
    /// What is declared.
    pub fleet: Arc<Fleet>,
    pub(crate) jobs: BTreeMap<JobKey, Job>,
    pub(crate) runners: BTreeMap<RunnerId, Runner>,
    pub(crate) instances: BTreeMap<InstanceId, Instance>,
    pub(crate) tenants: BTreeMap<TenantKey, Met>,
    pub(crate) backoffs: BTreeMap<BackoffKey, Backoff>,
    pub(crate) drains: BTreeMap<DrainKey, Drain>,
    pub(crate) recovering: Option<Recovering>,
    /// These books were begun by an earlier controller. Not stored.
    pub(crate) adopted: bool,
    pub(crate) strays: BTreeMap<StrayRegistration, Stray>,
    pub(crate) orphans: BTreeMap<(ProviderName, InstanceId), Orphan>,
    pub(crate) next_runner: RunnerId,
    pub(crate) next_instance: InstanceId,
    pub(crate) capacity: BTreeMap<ProviderName, Capacity>,
    pub(crate) looked: BTreeMap<Subject, Looked>,
    pub(crate) budgets: BTreeMap<(ForgeName, Credential), Budget>,
    pub(crate) rests: BTreeMap<PurseKey, Timestamp>,
    pub(crate) swept: BTreeMap<(ForgeName, Scope), Repository>,
    pub(crate) hooks: BTreeMap<(ForgeName, HookKey), Watch>,
    pub(crate) undelivered: BTreeMap<(ForgeName, HookKey), BTreeMap<Arc<str>, Undelivered>>,
    /// Demand by class, oldest first. Derived from `jobs`.
    pub(crate) queue: BTreeMap<Class, BTreeSet<(Timestamp, JobKey)>>,
    /// Jobs that are open or in doubt. Derived from `jobs`.
    pub(crate) open: BTreeSet<JobKey>,
    /// Ended jobs by the time we learned of their end. Derived from `jobs`.
    pub(crate) ended: BTreeSet<(Timestamp, JobKey)>,
    /// Every scope a job came from or a runner was in, with how many of those are known. Derived.
    pub(crate) scopes: BTreeMap<(ForgeName, Scope), usize>,
    /// Derived from `runners`.
    pub(crate) names: BTreeMap<RunnerName, RunnerId>,
    /// Runners that are not gone. Derived from `runners`.
    pub(crate) active: BTreeSet<RunnerId>,
    /// Runners that are gone, by when. Derived from `runners`.
    pub(crate) gone: BTreeSet<(Timestamp, RunnerId)>,
    /// Instances that are not gone. Derived from `instances`.
    pub(crate) existing: BTreeSet<InstanceId>,
}

impl Snapshot {
    /// Empty books.
    pub fn new(installation: InstallationId, fleet: Arc<Fleet>) -> Self {
        Self {
            now: Timestamp::default(),
            installation,
            epoch: 0,
            fleet,
            jobs: BTreeMap::new(),
            runners: BTreeMap::new(),
            instances: BTreeMap::new(),
            tenants: BTreeMap::new(),
            backoffs: BTreeMap::new(),
            drains: BTreeMap::new(),
            recovering: None,
            adopted: false,
            strays: BTreeMap::new(),
            orphans: BTreeMap::new(),
            next_runner: RunnerId(1),
            next_instance: InstanceId(1),
            capacity: BTreeMap::new(),
            looked: BTreeMap::new(),
            budgets: BTreeMap::new(),
            rests: BTreeMap::new(),
            swept: BTreeMap::new(),
            hooks: BTreeMap::new(),
            undelivered: BTreeMap::new(),
            queue: BTreeMap::new(),
            open: BTreeSet::new(),
            ended: BTreeSet::new(),
            scopes: BTreeMap::new(),
            names: BTreeMap::new(),
            active: BTreeSet::new(),
            gone: BTreeSet::new(),
            existing: BTreeSet::new(),
        }
    }

    /// Every job not yet forgotten.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// Every runner not yet forgotten, the gone ones included.
    pub fn runners(&self) -> impl Iterator<Item = &Runner> {
        self.runners.values()
    }

    /// Every runner that is not gone: few, where those gone within the hour may be many.
    pub fn active_runners(&self) -> impl Iterator<Item = &Runner> {
        self.active.iter().filter_map(|id| self.runners.get(id))
    }

    /// Every instance that is not gone.
    pub fn existing_instances(&self) -> impl Iterator<Item = &Instance> {
        self.existing.iter().filter_map(|id| self.instances.get(id))
    }

    /// Every instance not yet forgotten, the gone ones included.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    /// Every tenant met.
    pub fn tenants(&self) -> impl Iterator<Item = &Met> {
        self.tenants.values()
    }

    /// Every back-off in force or not yet disproved.
    pub fn backoffs(&self) -> impl Iterator<Item = (&BackoffKey, &Backoff)> {
        self.backoffs.iter()
    }

    /// What persons ordered drained.
    pub fn drains(&self) -> impl Iterator<Item = (&DrainKey, &Drain)> {
        self.drains.iter()
    }

    /// One drain.
    pub fn drain(&self, key: &DrainKey) -> Option<&Drain> {
        self.drains.get(key)
    }

    /// Why these books may not be the newest, if there is doubt.
    pub fn recovering(&self) -> Option<&Recovering> {
        self.recovering.as_ref()
    }

    /// Instances that bear our tag and that no row explains.
    pub fn orphans(&self) -> impl Iterator<Item = (&(ProviderName, InstanceId), &Orphan)> {
        self.orphans.iter()
    }

    /// What providers' nodes have, where they have said so.
    pub fn capacities(&self) -> impl Iterator<Item = (&ProviderName, &Capacity)> {
        self.capacity.iter()
    }

    /// Registrations under our name that no row explains.
    pub fn strays(&self) -> impl Iterator<Item = (&StrayRegistration, &Stray)> {
        self.strays.iter()
    }

    /// One job.
    pub fn job(&self, key: &JobKey) -> Option<&Job> {
        self.jobs.get(key)
    }

    /// One runner.
    pub fn runner(&self, id: RunnerId) -> Option<&Runner> {
        self.runners.get(&id)
    }

    /// One instance.
    pub fn instance(&self, id: InstanceId) -> Option<&Instance> {
        self.instances.get(&id)
    }

    /// The runner registered under a name.
    pub fn runner_named(&self, name: &RunnerName) -> Option<&Runner> {
        self.names.get(name).and_then(|id| self.runners.get(id))
    }

    /// When something was last looked at.
    pub fn looked(&self, subject: &Subject) -> Looked {
        self.looked.get(subject).copied().unwrap_or_default()
    }

    /// Until when a forge asks for patience with the calls of one owner, if it does.
    pub fn limited_in(&self, forge: &ForgeName, scope: &Scope) -> Option<Timestamp> {
        self.owner_limited(forge, scope).max(self.token_spent(forge, scope.owner()))
    }

    /// The same, of the owner alone.
    pub(crate) fn owner_limited(&self, forge: &ForgeName, scope: &Scope) -> Option<Timestamp> {
        let mine = self.backoffs.iter().filter_map(|(key, backoff)| match key {
            BackoffKey::Scope(at, of) if at == forge && of.owner() == scope.owner() => {
                Some(backoff).filter(|backoff| backoff.full).map(|backoff| backoff.until)
            }
            BackoffKey::Scope(..)
            | BackoffKey::Pool(_)
            | BackoffKey::Provider(_)
            | BackoffKey::Image(_)
            | BackoffKey::Node(..) => None,
        });
        let owner = scope.owner();
        let spent = self.exhausted_until(forge, owner).filter(|_| self.is_installed(forge, owner));
        mine.filter(|until| *until > self.now).chain(spent).max()
    }

    /// Jobs that are not over, or in doubt.
    pub fn open_jobs(&self) -> impl Iterator<Item = &Job> {
        self.open.iter().filter_map(|key| self.jobs.get(key))
    }

    /// The numbers that the next runner and the next instance get.
    pub const fn next_numbers(&self) -> (RunnerId, InstanceId) {
        (self.next_runner, self.next_instance)
    }

    /// Takes changes in, in order.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            self.apply_one(change);
        }
    }

    fn apply_one(&mut self, change: &Change) {
        match change {
            Change::Job(job) => self.put_job((**job).clone()),
            Change::Runner(runner) => self.put_runner((**runner).clone()),
            Change::Instance(instance) => {
                if instance.state < InstanceState::Gone {
                    self.existing.insert(instance.id);
                } else {
                    self.existing.remove(&instance.id);
                }
                self.instances.insert(instance.id, (**instance).clone());
            }
            Change::Tenant(met) => {
                self.tenants.insert(met.tenant.key.clone(), (**met).clone());
            }
            Change::Backoff(key, value) => put(&mut self.backoffs, key, value.as_ref()),
            Change::Drain(key, value) => put(&mut self.drains, key, value.as_ref()),
            Change::Recovering(value) => self.recovering.clone_from(value),
            Change::Stray(key, value) => {
                if value.is_none() {
                    self.looked.remove(&Subject::Stray(key.clone()));
                }
                put(&mut self.strays, key, value.as_ref());
            }
            Change::Orphan(provider, id, value) => {
                put(&mut self.orphans, &(provider.clone(), *id), value.as_ref());
            }
            Change::Next { runner, instance } => {
                self.next_runner = *runner;
                self.next_instance = *instance;
            }
            Change::ForgetJob(key) => {
                if let Some(job) = self.jobs.remove(key) {
                    self.unindex(&job);
                }
                self.looked.remove(&Subject::Job(key.clone()));
            }
            Change::ForgetRunner(id) => {
                if let Some(runner) = self.runners.remove(id) {
                    self.unindex_runner(&runner);
                    self.names.remove(&runner.name);
                    self.instances.remove(&runner.instance);
                    self.existing.remove(&runner.instance);
                    self.looked.remove(&Subject::Instance(runner.instance));
                }
                self.looked.remove(&Subject::Runner(*id));
            }
            Change::Capacity(provider, capacity) => {
                put(&mut self.capacity, provider, capacity.as_ref());
            }
            // Nothing worth noting is not kept, or every subject there ever was would be.
            Change::Looked(subject, looked) => {
                put(&mut self.looked, subject, Some(looked).filter(|l| **l != Looked::default()));
            }
            Change::Note(note) => self.remember(note),
        }
    }

    fn put_runner(&mut self, runner: Runner) {
        self.enter_scope(&runner.forge, &runner.scope);
        if let Some(old) = self.runners.remove(&runner.id) {
            self.unindex_runner(&old);
        }
        if runner.state < RunnerState::Gone {
            self.active.insert(runner.id);
        } else {
            self.gone.insert((gone_at(&runner), runner.id));
        }
        self.names.insert(runner.name.clone(), runner.id);
        self.runners.insert(runner.id, runner);
    }

    fn unindex_runner(&mut self, runner: &Runner) {
        self.active.remove(&runner.id);
        self.gone.remove(&(gone_at(runner), runner.id));
        self.leave_scope(&runner.forge, &runner.scope);
    }

    fn put_job(&mut self, job: Job) {
        // Before the old row leaves it, or the scope would be forgotten for a moment.
        self.enter_scope(&job.key.forge, &job.scope);
        if let Some(old) = self.jobs.remove(&job.key) {
            self.unindex(&old);
        }
        if job.is_demand() {
            let place = (job.attempt.queued_at, job.key.clone());
            self.queue.entry(Class::of(&job)).or_default().insert(place);
        }
        if job.attempt.state == JobState::Completed {
            self.ended.insert((job.attempt.fact_at, job.key.clone()));
        }
        if job.is_open() || job.doubt.is_some() {
            self.open.insert(job.key.clone());
        }
        self.jobs.insert(job.key.clone(), job);
    }

    fn enter_scope(&mut self, forge: &ForgeName, scope: &Scope) {
        *self.scopes.entry((forge.clone(), scope.clone())).or_default() += 1;
    }

    /// Forgets a scope with the last that was known there.
    fn leave_scope(&mut self, forge: &ForgeName, scope: &Scope) {
        let place = (forge.clone(), scope.clone());
        let Some(known) = self.scopes.get_mut(&place) else { return };
        *known -= 1;
        if *known == 0 {
            self.scopes.remove(&place);
            let (forge, scope) = place;
            self.looked.remove(&Subject::Jobs(forge.clone(), scope.clone()));
            self.looked.remove(&Subject::Runners(forge, scope));
        }
    }

    fn unindex(&mut self, job: &Job) {
        self.leave_scope(&job.key.forge, &job.scope);
        self.open.remove(&job.key);
        self.ended.remove(&(job.attempt.fact_at, job.key.clone()));
        if job.is_demand() {
            let class = Class::of(job);
            if let Some(queue) = self.queue.get_mut(&class) {
                queue.remove(&(job.attempt.queued_at, job.key.clone()));
                if queue.is_empty() {
                    self.queue.remove(&class);
                }
            }
        }
    }

    /// Runners in `state`.
    pub fn runners_in(&self, state: RunnerState) -> impl Iterator<Item = &Runner> {
        let active = self.active_runners().filter(move |runner| runner.state == state);
        let gone = self.gone.iter().filter(move |_| state == RunnerState::Gone);
        active.chain(gone.filter_map(|(_, id)| self.runners.get(id)))
    }
}

fn gone_at(runner: &Runner) -> Timestamp {
    runner.since.at(RunnerState::Gone).unwrap_or_default()
}

pub(crate) fn put<K: Ord + Clone, V: Clone>(rows: &mut BTreeMap<K, V>, key: &K, value: Option<&V>) {
    match value {
        Some(value) => rows.insert(key.clone(), value.clone()),
        None => rows.remove(key),
    };
}
