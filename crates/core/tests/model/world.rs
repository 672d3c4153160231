//! A small world to tell stories in: a fleet in a few lines of text, facts in plain words, and what the
//! controller asks for as text.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use remuda_core::action::Look;
use remuda_core::controller::{Controller, Rules, Seen};
use remuda_core::fleet::{
    Demand, Fleet, Forge, Image, JitBy, Polls, Process, Provider, ProviderKind, Tenants, Terms,
};
use remuda_core::job::{Conclusion, Job, JobKey, JobState, RunnerRef, Title};
use remuda_core::label::{LabelSet, Wanted};
use remuda_core::name::{
    ForgeName, GroupName, ImageName, InstallationId, Login, NodeName, PoolName, ProviderName,
    Resource,
};
use remuda_core::observation::{
    Call, Cause, Condition, Covered, InstanceSeen, JobSeen, Observation, RunnerSeen, Source,
    Subject,
};
use remuda_core::pool::{Audience, Capacity, Gather, Limits, Mode, Pool};
use remuda_core::runner::{InstanceId, Runner, RunnerId, RunnerState};
use remuda_core::tenant::{OwnerKind, Repository, Scope, Tenant, TenantKey};
use remuda_core::{
    Action, Batch, Change, Plan, Reason, Snapshot, Timestamp, Turn, actions, check, observe, plan,
    settle,
};

pub(crate) fn forge() -> ForgeName {
    ForgeName::new("github").unwrap()
}

pub(crate) fn labels(text: &str) -> LabelSet {
    LabelSet::parse(text.split_whitespace()).unwrap()
}

pub(crate) fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

pub(crate) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Reads a fleet, a declaration per line, each a kind, a name and `key=value` words:
/// `pool small labels=linux,rvv max=2 min_idle=1 scopes=org:acme provider=one needs=cpu:1`,
/// `provider one max=4 launches=8`, `tenant acme cap=1 floor=1 weight=2` (by login), and
/// `tenant default cap=5`, above all others.
pub(crate) fn fleet(text: &str) -> Fleet {
    let mut fleet = Fleet {
        forges: [(forge(), github())].into(),
        images: [(image().name, image())].into(),
        ..Fleet::default()
    };
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.split_whitespace();
        let (kind, name) = (words.next().unwrap(), words.next().unwrap());
        let values: BTreeMap<&str, &str> =
            words.map(|word| word.split_once('=').unwrap()).collect();
        match kind {
            "pool" => {
                let pool = pool(name, &values);
                let of = provider(pool.provider.as_str(), &BTreeMap::new());
                fleet.providers.entry(pool.provider.clone()).or_insert(of);
                fleet.pools.insert(pool.name.clone(), pool);
            }
            "provider" => {
                let provider = provider(name, &values);
                fleet.providers.insert(provider.name.clone(), provider);
            }
            "tenant" => tenant_terms(&mut fleet.tenants, name, &values),
            other => panic!("{other:?} is no kind of declaration"),
        }
    }
    fleet
}

fn tenant_terms(tenants: &mut Tenants, name: &str, values: &BTreeMap<&str, &str>) {
    let default = tenants.default;
    let terms = Terms {
        cap: number(values, "cap", default.cap),
        floor: number(values, "floor", default.floor),
        weight: number(values, "weight", default.weight),
    };
    if name == "default" {
        tenants.default = terms;
    } else {
        tenants.by_login.insert((forge(), Login::new(name).unwrap()), (None, terms));
    }
}

fn github() -> Forge {
    Forge {
        name: forge(),
        api: "https://forge.invalid".into(),
        apps: Vec::new(),
        token: None,
        hooks: Vec::new(),
        scopes: Vec::new(),
        group: GroupName::new("remuda").unwrap(),
        polls: Polls::default(),
        demand: Demand::default(),
    }
}

fn image() -> Image {
    Image {
        name: ImageName::new("plain").unwrap(),
        archive: None,
        command: vec!["run".into()],
        env: BTreeMap::new(),
        jit: JitBy::Env(JitBy::OFFICIAL.into()),
    }
}

fn number<T: std::str::FromStr>(values: &BTreeMap<&str, &str>, key: &str, otherwise: T) -> T {
    values.get(key).map_or(otherwise, |text| text.parse().ok().unwrap())
}

fn provider(name: &str, values: &BTreeMap<&str, &str>) -> Provider {
    Provider {
        name: ProviderName::new(name).unwrap(),
        kind: ProviderKind::Process(Process {
            directory: None,
            node: None,
            capacity: BTreeMap::new(),
        }),
        max: values.get("max").map(|max| max.parse().unwrap()),
        launches_max: number(values, "launches", 100),
        launch_deadline: seconds(60),
        poll: seconds(30),
        absent: seconds(60),
    }
}

fn pool(name: &str, values: &BTreeMap<&str, &str>) -> Pool {
    let list = |key| values.get(key).into_iter().flat_map(|text: &&str| text.split(','));
    let needs = list("needs").map(|need| need.split_once(':').unwrap());
    let needs = needs.map(|(what, units)| (Resource::new(what).unwrap(), units.parse().unwrap()));
    Pool {
        name: PoolName::new(name).unwrap(),
        forge: forge(),
        scopes: list("scopes").map(scope).collect(),
        group: None,
        labels: LabelSet::parse(list("labels")).unwrap(),
        provider: ProviderName::new(values.get("provider").unwrap_or(&"one")).unwrap(),
        image: image().name,
        needs: Arc::new(needs.collect()),
        min_idle: number(values, "min_idle", 0),
        max: number(values, "max", 10),
        gather: match values.get("mode") {
            Some(&"lazy") => Mode::Lazy.gather(),
            Some(&"balanced") => Mode::Balanced.gather(),
            Some(&"aggressive") => Mode::Aggressive.gather(),
            Some(other) => panic!("{other:?} is no mode"),
            None => Gather::default(),
        },
        limits: Limits::default(),
        audience: Audience::Anyone,
    }
}

/// A job of `org:acme` or, with [`Told::of`], of somebody else.
#[derive(Clone)]
pub(crate) struct Told(pub(crate) JobSeen);

/// What the forge tells of job `id`.
pub(crate) fn job(id: u64, state: JobState, wanted: &str) -> Told {
    let seen = JobSeen {
        key: JobKey::rest(&forge(), id),
        state,
        conclusion: (state == JobState::Completed).then_some(Conclusion::Success),
        tenant: tenant("org:acme"),
        scope: scope("org:acme"),
        repository: "acme/app".parse().unwrap(),
        wanted: Wanted::AllOf(labels(wanted)),
        runner: None,
        title: Title::default(),
        queued_at: Some(at(i64::try_from(id).unwrap())),
        started_at: (state >= JobState::InProgress).then(|| at(1000)),
        completed_at: (state == JobState::Completed).then(|| at(2000)),
        source: Source::Delivery { received_at: at(0) },
    };
    Told(seen)
}

pub(crate) fn queued(id: u64, wanted: &str) -> Told {
    job(id, JobState::Queued, wanted)
}

pub(crate) fn runs(id: u64, wanted: &str) -> Told {
    job(id, JobState::InProgress, wanted)
}

pub(crate) fn ended(id: u64, wanted: &str) -> Told {
    job(id, JobState::Completed, wanted)
}

/// The tenant that owns a scope. Every account has number 7: only its kind tells them apart.
fn tenant(of: &str) -> Tenant {
    let scope = scope(of);
    let kind = match &scope {
        Scope::Organization(_) => OwnerKind::Organization,
        Scope::Repository(_) => OwnerKind::User,
        Scope::Enterprise(_) => OwnerKind::Enterprise,
    };
    let id = if scope.owner().as_str() == "other" { 8 } else { 7 };
    Tenant { key: TenantKey { forge: forge(), kind, id }, login: scope.owner().clone() }
}

impl Told {
    /// Of this scope.
    pub(crate) fn of(mut self, text: &str) -> Self {
        self.0.tenant = tenant(text);
        self.0.scope = scope(text);
        self.0.repository = match &self.0.scope {
            Scope::Repository(repository) => repository.clone(),
            Scope::Organization(owner) | Scope::Enterprise(owner) => {
                format!("{owner}/app").parse::<Repository>().unwrap()
            }
        };
        self
    }

    /// On one of our runners; its registration bears the runner's number and 1000.
    pub(crate) fn on(mut self, runner: u64, pool: &str) -> Self {
        let name =
            Runner::name_for(&installation(), &PoolName::new(pool).unwrap(), RunnerId(runner));
        self.0.runner = Some(RunnerRef { id: 1000 + runner, name });
        self
    }

    pub(crate) fn delivered(mut self, received_at: Timestamp) -> JobSeen {
        self.0.source = Source::Delivery { received_at };
        self.0
    }

    pub(crate) fn read(mut self, asked_at: Timestamp) -> JobSeen {
        self.0.source = Source::Read { asked_at };
        self.0
    }
}

pub(crate) fn installation() -> InstallationId {
    InstallationId::new("test").unwrap()
}

/// The rules of a world: as they are, or with one taken away, to see what it was good for.
#[derive(Clone, Copy)]
pub(crate) struct Rulebook {
    pub(crate) observe: fn(&Snapshot, &Observation) -> Vec<Change>,
    pub(crate) settle: fn(&Snapshot) -> Vec<Change>,
    pub(crate) plan: fn(&Snapshot) -> Plan,
    pub(crate) actions: fn(&Snapshot) -> Vec<Action>,
}

/// The rules as they are.
pub(crate) const SOUND: Rulebook = Rulebook { observe, settle, plan, actions };

impl Rules for Rulebook {
    fn observe(&self, world: &Snapshot, seen: &Observation) -> Vec<Change> {
        (self.observe)(world, seen)
    }
    fn settle(&self, world: &Snapshot) -> Vec<Change> {
        (self.settle)(world)
    }
    fn plan(&self, world: &Snapshot) -> Plan {
        (self.plan)(world)
    }
    fn actions(&self, world: &Snapshot) -> Vec<Action> {
        (self.actions)(world)
    }
}

/// The controller, its disk, and what it asked for.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) controller: Controller<Rulebook>,
    rules: Rulebook,
    pub(crate) disk: Snapshot,
    pub(crate) now: Timestamp,
    calls: Vec<Action>,
}

impl World {
    pub(crate) fn new(text: &str) -> Self {
        Self::of(fleet(text))
    }

    pub(crate) fn of(fleet: Fleet) -> Self {
        Self::ruled(fleet, SOUND)
    }

    /// A world under other rules.
    pub(crate) fn ruled(fleet: Fleet, rules: Rulebook) -> Self {
        let disk = Snapshot::new(installation(), Arc::new(fleet));
        let controller = Controller::with_rules(disk.clone(), rules);
        Self { controller, rules, disk, now: at(0), calls: Vec::new() }
    }

    pub(crate) fn books(&self) -> &Snapshot {
        self.controller.world()
    }

    /// The next turn brings in these; what it wants written is written.
    pub(crate) fn turn(&mut self, seen: Vec<Seen>) -> Batch {
        let Turn { batch, actions } = self.controller.turn(self.now, seen);
        self.disk.now = self.now;
        for change in batch.changes.iter().filter(|change| change.is_durable()) {
            self.disk.apply(std::slice::from_ref(change));
        }
        self.calls.extend(actions);
        assert_eq!(check(self.books()), [], "{}", self.tells());
        batch
    }

    pub(crate) fn sees(&mut self, fact: Observation) -> Batch {
        self.turn(vec![Seen::Fact(fact)])
    }

    /// A call about `subject` ends with these facts.
    pub(crate) fn answered(&mut self, subject: Subject, facts: Vec<Observation>) -> Batch {
        self.turn(vec![Seen::Answer { subject, facts }])
    }

    /// A webhook tells of a job.
    pub(crate) fn hears(&mut self, told: Told) -> Batch {
        let seen = told.delivered(self.now);
        self.sees(Observation::Job(Box::new(seen)))
    }

    /// A read of a job shows it.
    pub(crate) fn reads(&mut self, told: Told) -> Batch {
        let seen = told.read(self.now);
        self.answered(Subject::Job(seen.key.clone()), vec![Observation::Job(Box::new(seen))])
    }

    /// A read of a job is answered with 404.
    pub(crate) fn misses(&mut self, id: u64) -> Batch {
        let (key, asked_at) = (JobKey::rest(&forge(), id), self.now);
        let subject = Subject::Job(key.clone());
        self.answered(subject, vec![Observation::JobMissing { key, asked_at }])
    }

    /// The open jobs of a scope are listed.
    pub(crate) fn lists_jobs(&mut self, of: &str, all: Vec<Told>) -> Batch {
        let asked_at = self.now;
        let (forge, scope) = (forge(), scope(of));
        let subject = Subject::Jobs(forge.clone(), scope.clone());
        let all = all.into_iter().map(|told| told.read(asked_at)).collect();
        self.answered(
            subject,
            vec![Observation::Jobs { forge, scope, asked_at, all, covered: Covered::Whole }],
        )
    }

    /// The registrations of a scope are listed: these runners of ours are online.
    pub(crate) fn lists_runners(&mut self, of: &str, online: &[u64]) -> Batch {
        let asked_at = self.now;
        let (forge, scope) = (forge(), scope(of));
        let subject = Subject::Runners(forge.clone(), scope.clone());
        let all = online.iter().map(|id| self.registration(*id)).collect();
        self.answered(subject, vec![Observation::Runners { forge, scope, asked_at, all }])
    }

    fn registration(&self, id: u64) -> RunnerSeen {
        let name = self.runner(id).name.clone();
        RunnerSeen { id: 1000 + id, name, online: true, busy: false }
    }

    /// A provider is listed: it runs these instances, and those have ended by themselves.
    pub(crate) fn lists_instances(&mut self, of: &str, running: &[u64], ended: &[u64]) -> Batch {
        let seen = |id: &u64, condition| InstanceSeen {
            id: InstanceId(*id),
            runner: self.books().runner(RunnerId(*id)).map(|runner| runner.name.clone()),
            node: None,
            condition,
        };
        let running = running.iter().map(|id| seen(id, Condition::Running));
        let ended = ended.iter().map(|id| seen(id, Condition::Exited(Some(1))));
        let all = running.chain(ended).collect();
        let (provider, asked_at) = (ProviderName::new(of).unwrap(), self.now);
        let subject = Subject::Instances(provider.clone());
        self.answered(subject, vec![Observation::Instances { provider, asked_at, all }])
    }

    /// A provider's nodes have this much: `a=cpu:2 b=cpu:1`.
    pub(crate) fn has_nodes(&mut self, of: &str, text: &str) -> Batch {
        let node = |word: &str| {
            let (node, need) = word.split_once('=').unwrap();
            let (what, units) = need.split_once(':').unwrap();
            let units = [(Resource::new(what).unwrap(), units.parse().unwrap())];
            (NodeName::new(node).unwrap(), units.into())
        };
        let capacity = Some(Capacity { nodes: text.split_whitespace().map(node).collect() });
        self.sees(Observation::Capacity { provider: ProviderName::new(of).unwrap(), capacity })
    }

    /// A launch succeeds: registered, then made.
    pub(crate) fn launched(&mut self, id: u64) -> Batch {
        let facts = vec![
            Observation::Registered { runner: RunnerId(id), id: 1000 + id },
            Observation::Launched { instance: self.instance(id), node: None },
        ];
        self.answered(Subject::Instance(self.instance(id)), facts)
    }

    /// A launch succeeds and the runner comes online.
    pub(crate) fn comes_online(&mut self, id: u64) {
        self.launched(id);
        let of = self.runner(id).scope.to_string();
        let here = self.books().runners().filter(|runner| runner.scope.to_string() == of);
        let online: Vec<u64> = here
            .filter(|r| (r.state == RunnerState::Idle) || r.id == RunnerId(id))
            .map(|r| r.id.0)
            .collect();
        self.lists_runners(&of, &online);
    }

    /// A launch fails.
    pub(crate) fn launch_fails(&mut self, id: u64, call: Call, cause: Cause) -> Batch {
        self.fails(Subject::Instance(self.instance(id)), call, cause)
    }

    pub(crate) fn fails(&mut self, subject: Subject, call: Call, cause: Cause) -> Batch {
        let message = "virtual failure".into();
        let fact = Observation::Failed { subject: subject.clone(), call, cause, message };
        self.answered(subject, vec![fact])
    }

    /// The forge confirms that a runner's registration is gone.
    pub(crate) fn deregistered(&mut self, id: u64) -> Batch {
        let subject = Subject::Runner(RunnerId(id));
        self.answered(subject.clone(), vec![Observation::Deregistered { subject }])
    }

    /// The forge refuses to remove a registration because it has a job.
    pub(crate) fn refused_as_busy(&mut self, id: u64) -> Batch {
        let subject = Subject::Runner(RunnerId(id));
        self.answered(subject.clone(), vec![Observation::DeregisterBusy { subject }])
    }

    /// The provider confirms a destruction, and a later listing agrees.
    pub(crate) fn destroyed(&mut self, id: u64) {
        let (instance, asked_at) = (self.instance(id), self.now);
        let fact = Observation::Destroyed { instance, asked_at };
        self.answered(Subject::Instance(instance), vec![fact]);
        self.passes(1);
        let provider = self.books().instance(instance).unwrap().provider.to_string();
        let live = self.books().instances().filter(|row| {
            row.provider.as_str() == provider && row.launch.is_some() && row.id != instance
        });
        let live: Vec<u64> = live.filter(|row| row.gone_at.is_none()).map(|row| row.id.0).collect();
        self.lists_instances(&provider, &live, &[]);
    }

    fn instance(&self, id: u64) -> InstanceId {
        self.runner(id).instance
    }

    /// Time passes in one step, without news.
    pub(crate) fn passes(&mut self, count: u64) -> Batch {
        self.now = self.now + seconds(count);
        self.turn(Vec::new())
    }

    /// The controller dies; the next one has what was written.
    pub(crate) fn restarts(&mut self) {
        self.disk.now = self.now;
        self.disk.epoch += 1;
        self.controller = Controller::with_rules(self.disk.clone(), self.rules);
        self.calls.clear();
        self.turn(Vec::new());
    }

    pub(crate) fn job(&self, id: u64) -> &Job {
        self.books().job(&JobKey::rest(&forge(), id)).unwrap()
    }

    pub(crate) fn runner(&self, id: u64) -> &Runner {
        self.books().runner(RunnerId(id)).unwrap()
    }

    /// The state of a job, as one word.
    pub(crate) fn job_is(&self, id: u64) -> &'static str {
        self.job(id).attempt.state.as_str()
    }

    /// The state of a runner, as one word.
    pub(crate) fn runner_is(&self, id: u64) -> &'static str {
        self.runner(id).state.as_str()
    }

    /// Why a job waits, as words; empty if it does not.
    pub(crate) fn why(&self, id: u64) -> Vec<&'static str> {
        let reasons = self.controller.reasons(&JobKey::rest(&forge(), id));
        reasons.map_or(Vec::new(), |(_, all)| all.iter().map(Reason::code).collect())
    }

    /// Why a job waits, in whole sentences.
    pub(crate) fn tells_why(&self, id: u64) -> String {
        let reasons = self.controller.reasons(&JobKey::rest(&forge(), id));
        let told = |(_, all): (_, &Arc<[Reason]>)| {
            all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        reasons.map(told).unwrap_or_default()
    }

    /// Runners that are not gone, by pool.
    pub(crate) fn runners_of(&self, pool: &str) -> usize {
        let here = self.books().runners().filter(|runner| runner.pool.as_str() == pool);
        here.filter(|runner| runner.state < RunnerState::Gone).count()
    }

    /// The calls begun since this was last asked, looks apart, as text.
    pub(crate) fn calls(&mut self) -> Vec<String> {
        let calls = self.actions();
        calls.iter().filter(|call| !matches!(call, Action::Look(_))).map(words).collect()
    }

    /// The looks begun since the calls were last asked for, as text.
    pub(crate) fn looks(&mut self) -> Vec<String> {
        let calls = self.actions();
        calls.iter().filter(|call| matches!(call, Action::Look(_))).map(words).collect()
    }

    /// The calls begun since this was last asked.
    pub(crate) fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.calls)
    }

    /// The books, as text.
    pub(crate) fn tells(&self) -> String {
        let mut text = String::new();
        for job in self.books().jobs() {
            let (id, state) = (job.key.native, job.attempt.state.as_str());
            let _ = writeln!(text, "job {id} {state} {:?}", self.why(id));
        }
        for runner in self.books().runners() {
            let state = runner.state.as_str();
            let (id, pool, scope) = (runner.id, &runner.pool, &runner.scope);
            let _ = writeln!(text, "runner {id} {pool} {scope} {state}");
        }
        text
    }
}

fn words(call: &Action) -> String {
    match call {
        Action::Launch(launch) => format!("launch {} of {}", launch.runner, launch.pool),
        Action::Deregister(call) => format!("deregister {}", call.name),
        Action::Destroy(call) => format!("destroy {}", call.instance),
        Action::Look(Look::Job { key, .. }) => format!("read {}", key.native),
        Action::Look(Look::Jobs { scope, .. }) => format!("jobs of {scope}"),
        Action::Look(Look::Runners { scope, .. }) => format!("runners of {scope}"),
        Action::Look(Look::Deliveries { hook, .. }) => format!("deliveries of {hook}"),
        Action::Redeliver(call) => format!("deliver {} again", call.guid),
        Action::Look(Look::Instances { provider }) => format!("instances of {provider}"),
    }
}
