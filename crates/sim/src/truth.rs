//! What is really there: the virtual forge's jobs and registrations, the virtual provider's instances.
//! The controller never sees this, only what it is told of it.

use std::collections::{BTreeMap, BTreeSet};

use remuda_core::Timestamp;
use remuda_core::job::{Conclusion, JobKey, JobState, RunnerRef, Title};
use remuda_core::label::{LabelSet, Wanted};
use remuda_core::name::{ForgeName, NodeName, PoolName, ProviderName, RunnerName};
use remuda_core::observation::{Condition, InstanceSeen, JobSeen, RunnerSeen, Source};
use remuda_core::runner::{InstanceId, Runner, RunnerId};
use remuda_core::tenant::{Repository, Scope, Tenant};

use crate::rng::Rng;

/// A job at the forge.
#[derive(Clone, Debug)]
pub(crate) struct TrueJob {
    pub(crate) tenant: Tenant,
    pub(crate) scope: Scope,
    pub(crate) repository: Repository,
    pub(crate) labels: LabelSet,
    pub(crate) state: JobState,
    pub(crate) conclusion: Option<Conclusion>,
    /// The registration that has it.
    pub(crate) runner: Option<u64>,
    pub(crate) named: Option<RunnerRef>,
    pub(crate) queued_at: Timestamp,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) completed_at: Option<Timestamp>,
    /// How often it was started.
    pub(crate) starts: u32,
    /// How often it was put back.
    pub(crate) put_back: u32,
    /// How often it was told of as it was no more.
    pub(crate) told_stale: u32,
    /// The forge has lost it, and answers 404 to every question.
    pub(crate) vanished: bool,
    /// At which step of its life it is cancelled.
    pub(crate) cancel: Option<JobState>,
    /// What it was until when.
    pub(crate) before: Option<(Timestamp, Box<TrueJob>)>,
}

impl TrueJob {
    /// True if the forge would hand it to a runner.
    pub(crate) fn asks(&self) -> bool {
        self.state == JobState::Queued && !self.vanished
    }

    /// Keeps what it is until now, for replicas that lag.
    fn turns(&mut self, now: Timestamp) {
        let was = Self { before: None, ..self.clone() };
        self.before = Some((now, Box::new(was)));
    }
}

/// A registration at the forge.
#[derive(Clone, Debug)]
pub(crate) struct TrueRunner {
    pub(crate) name: RunnerName,
    pub(crate) scope: Scope,
    pub(crate) labels: LabelSet,
    pub(crate) online: bool,
    pub(crate) job: Option<u64>,
    pub(crate) had_job: bool,
    /// When the earliest and the last of the listings were asked that have left it out, with none between
    /// them that showed it connected, as it is.
    pub(crate) left_out: Option<(Timestamp, Timestamp)>,
    /// It is another's.
    pub(crate) foreign: bool,
}

/// An instance at the provider.
#[derive(Clone, Debug)]
pub(crate) struct TrueInstance {
    pub(crate) provider: ProviderName,
    pub(crate) node: NodeName,
    pub(crate) pool: PoolName,
    pub(crate) scope: Scope,
    pub(crate) name: RunnerName,
    pub(crate) registration: u64,
    pub(crate) made_at: Timestamp,
    pub(crate) exited: Option<i32>,
    /// It appeared after its launch's deadline, when nobody counted on it any more.
    pub(crate) late: bool,
    /// It has outlived a destruction.
    pub(crate) destroyed: bool,
    /// Until when it outlives its destruction.
    pub(crate) stays_until: Option<Timestamp>,
}

/// What is really there.
#[derive(Clone, Debug)]
pub(crate) struct Truth {
    pub(crate) forge: ForgeName,
    pub(crate) jobs: BTreeMap<u64, TrueJob>,
    pub(crate) runners: BTreeMap<u64, TrueRunner>,
    pub(crate) instances: BTreeMap<InstanceId, TrueInstance>,
    pub(crate) next_registration: u64,
    /// How often each runner was registered: more than once is launching twice.
    pub(crate) registered: BTreeMap<RunnerId, u32>,
    /// Instances ever made.
    pub(crate) made: u32,
    /// Jobs that are not over.
    pub(crate) open: BTreeSet<u64>,
}

impl Truth {
    pub(crate) fn new(forge: ForgeName) -> Self {
        Self {
            forge,
            jobs: BTreeMap::new(),
            runners: BTreeMap::new(),
            instances: BTreeMap::new(),
            next_registration: 1000,
            registered: BTreeMap::new(),
            made: 0,
            open: BTreeSet::new(),
        }
    }

    pub(crate) fn put_job(&mut self, id: u64, job: TrueJob) {
        self.open.insert(id);
        self.jobs.insert(id, job);
    }

    /// Makes a registration; gives the forge's id for it.
    pub(crate) fn register(&mut self, runner: RunnerId, row: TrueRunner) -> u64 {
        let id = self.next_registration;
        self.next_registration += 1;
        *self.registered.entry(runner).or_default() += 1;
        self.runners.insert(id, row);
        id
    }

    pub(crate) fn make(&mut self, id: InstanceId, row: TrueInstance) {
        self.made += 1;
        self.instances.insert(id, row);
    }

    /// Lets an instance outlive its destruction.
    pub(crate) fn stays(&mut self, id: InstanceId, until: Timestamp) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.stays_until = Some(until);
        }
    }

    /// A listing left out an instance. If it outlives its destruction, which its provider has confirmed,
    /// nobody can know any longer that it is there.
    pub(crate) fn denied(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.late |= instance.destroyed;
        }
    }

    /// Takes an instance away, with whatever runs on it.
    pub(crate) fn unmake(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.remove(&id)
            && let Some(runner) = self.runners.get_mut(&instance.registration)
        {
            runner.online = false;
        }
    }

    /// The forge's rule: any queued job goes to any idle, online runner of its scope that has all its
    /// labels. Gives the jobs that began.
    pub(crate) fn assign(&mut self, now: Timestamp, rng: &mut Rng) -> Vec<u64> {
        let mut begun = Vec::new();
        if !self.runners.values().any(|r| r.online && r.job.is_none() && !r.had_job) {
            return begun;
        }
        let queued = |id: &&u64| self.jobs.get(id).is_some_and(TrueJob::asks);
        let queued: Vec<u64> = self.open.iter().filter(queued).copied().collect();
        for id in queued {
            let job = &self.jobs[&id];
            let fit = |r: &TrueRunner| {
                r.online
                    && r.job.is_none()
                    && !r.had_job
                    && r.scope == job.scope
                    && r.labels.satisfies(&job.labels)
            };
            let idle: Vec<u64> =
                self.runners.iter().filter(|(_, r)| fit(r)).map(|(id, _)| *id).collect();
            let Some(chosen) = rng.pick(&idle) else { continue };
            let runner = self.runners.get_mut(&chosen).expect("it was just listed");
            runner.job = Some(id);
            runner.had_job = true;
            let name = runner.name.clone();
            let job = self.jobs.get_mut(&id).expect("it was just listed");
            job.turns(now);
            job.state = JobState::InProgress;
            job.runner = Some(chosen);
            job.named = Some(RunnerRef { id: chosen, name });
            job.started_at = Some(now);
            job.starts += 1;
            begun.push(id);
        }
        begun
    }

    /// Ends a job; its runner's registration ends with it.
    pub(crate) fn complete(&mut self, id: u64, conclusion: Conclusion, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.state == JobState::Completed {
            return;
        }
        job.turns(now);
        job.state = JobState::Completed;
        job.conclusion = Some(conclusion);
        job.completed_at = Some(now);
        self.open.remove(&id);
        if let Some(runner) = job.runner.take() {
            self.runners.remove(&runner);
        }
    }

    /// Puts a started job back under the same id; its runner's registration ends.
    pub(crate) fn put_back(&mut self, id: u64, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(&id).filter(|j| j.state == JobState::InProgress) else {
            return;
        };
        job.turns(now);
        job.put_back += 1;
        job.state = JobState::Queued;
        job.named = None;
        job.started_at = None;
        if let Some(runner) = job.runner.take() {
            self.runners.remove(&runner);
        }
    }

    /// What the forge says of a job.
    pub(crate) fn tell(&self, id: u64, source: Source) -> Option<JobSeen> {
        self.jobs.get(&id).filter(|job| !job.vanished).map(|job| self.seen(id, job, source))
    }

    /// What a replica says of a job that shows the state of an earlier instant.
    pub(crate) fn tell_as_of(
        &mut self,
        id: u64,
        source: Source,
        as_of: Timestamp,
    ) -> Option<JobSeen> {
        let job = self.jobs.get_mut(&id).filter(|job| !job.vanished)?;
        let before = job.before.clone().filter(|(until, _)| *until > as_of).map(|(_, was)| was);
        job.told_stale += u32::from(before.is_some());
        match before {
            Some(was) => Some(self.seen(id, &was, source)),
            None => self.tell(id, source),
        }
    }

    fn seen(&self, id: u64, job: &TrueJob, source: Source) -> JobSeen {
        JobSeen {
            key: JobKey::rest(&self.forge, id),
            state: job.state,
            conclusion: job.conclusion,
            tenant: job.tenant.clone(),
            scope: job.scope.clone(),
            repository: job.repository.clone(),
            wanted: Wanted::AllOf(job.labels.clone()),
            runner: job.named.clone(),
            title: Title::default(),
            queued_at: Some(job.queued_at),
            started_at: job.started_at,
            completed_at: job.completed_at,
            source,
        }
    }

    /// The open jobs of a scope.
    pub(crate) fn list_jobs(
        &mut self,
        scope: &Scope,
        asked_at: Timestamp,
        as_of: Timestamp,
    ) -> Vec<JobSeen> {
        let here = |id: &u64| self.jobs.get(id).is_some_and(|job| job.scope == *scope);
        let lags = as_of < asked_at;
        let ended = self.jobs.keys().filter(|id| lags && !self.open.contains(id));
        let ids: Vec<u64> = self.open.iter().chain(ended).copied().filter(here).collect();
        let source = Source::Read { asked_at };
        let told = ids.into_iter().filter_map(|id| self.tell_as_of(id, source, as_of));
        told.filter(|seen| seen.state < JobState::Completed).collect()
    }

    /// The registrations of a scope.
    pub(crate) fn list_runners(&self, scope: &Scope) -> Vec<RunnerSeen> {
        let here = self.runners.iter().filter(|(_, runner)| runner.scope == *scope);
        here.map(|(id, runner)| RunnerSeen {
            id: *id,
            name: runner.name.clone(),
            online: runner.online,
            busy: runner.job.is_some(),
        })
        .collect()
    }

    /// Notes whom a listing of registrations left out although they are connected.
    pub(crate) fn listed(&mut self, scope: &Scope, asked_at: Timestamp, all: &[RunnerSeen]) {
        let shown: BTreeSet<u64> = all.iter().filter(|r| r.online).map(|r| r.id).collect();
        for (id, runner) in self.runners.iter_mut().filter(|(_, r)| r.online && r.scope == *scope) {
            let first = runner.left_out.map_or(asked_at, |(first, _)| first.min(asked_at));
            runner.left_out = (!shown.contains(id)).then_some((first, asked_at));
        }
    }

    /// What a provider has.
    pub(crate) fn list_instances(&self, provider: &ProviderName) -> Vec<InstanceSeen> {
        let own = self.instances.iter().filter(|(_, instance)| instance.provider == *provider);
        own.map(|(id, instance)| InstanceSeen {
            id: *id,
            runner: Some(instance.name.clone()),
            node: Some(instance.node.clone()),
            condition: match instance.exited {
                None => Condition::Running,
                Some(code) => Condition::Exited(Some(code)),
            },
        })
        .collect()
    }

    /// True if a runner of ours really waits for a job.
    pub(crate) fn listens(&self, runner: &Runner) -> bool {
        let instance = self.instances.get(&runner.instance).filter(|i| i.exited.is_none());
        instance
            .and_then(|instance| self.runners.get(&instance.registration))
            .is_some_and(|runner| runner.online && runner.job.is_none())
    }

    /// When the listings were asked that have left out the registration on an instance, as far as it
    /// is connected: the earliest and the last of them in a row.
    pub(crate) fn left_out(&self, id: InstanceId) -> Option<(Timestamp, Timestamp)> {
        self.runners.get(&self.instances.get(&id)?.registration)?.left_out
    }

    /// True if what runs on an instance could get a job.
    pub(crate) fn listening(&self, id: InstanceId) -> bool {
        let instance = self.instances.get(&id).filter(|instance| instance.exited.is_none());
        instance.is_some_and(|instance| self.runners.contains_key(&instance.registration))
    }

    /// The job that is really on an instance right now.
    pub(crate) fn job_on(&self, id: InstanceId) -> Option<u64> {
        let instance = self.instances.get(&id).filter(|instance| instance.exited.is_none())?;
        self.runners.get(&instance.registration)?.job
    }
}
