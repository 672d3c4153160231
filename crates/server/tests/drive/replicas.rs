//! Replicas on one set of books, and what is really there: a forge that hands queued jobs to idle runners,
//! and a provider whose instances run until their job has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io::Write;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use remuda::clock::Clock;
use remuda::handle::Handle;
use remuda::lead::{Candidate, Lead};
use remuda::metrics::Metrics;
use remuda::perform::Outside;
use remuda::site::Site;
use remuda_core::action::{Launch, Reach};
use remuda_core::budget::{Budget, Credential};
use remuda_core::fleet::{Fleet, Source, parse};
use remuda_core::hook::HookKey;
use remuda_core::job::{Conclusion, JobKey, JobState, RunnerRef, Title};
use remuda_core::label::{LabelSet, Wanted};
use remuda_core::name::{ForgeName, InstallationId, Login, NodeName, ProviderName, RunnerName};
use remuda_core::observation::{self, Condition, Covered, InstanceSeen, JobSeen, RunnerSeen};
use remuda_core::pool::Capacity;
use remuda_core::runner::InstanceId;
use remuda_core::tenant::{OwnerKind, Repository, Scope, Tenant, TenantKey};
use remuda_core::{Change, Delivery, Observation, Timestamp};
use remuda_forge::{
    DecodeError, FailedDeliveries, Forge, ForgeError, OpenJobs, RawDelivery, Refusal, Registered,
    Removal,
};
use remuda_provider::{Provider, ProviderError};
use remuda_store::{MemoryStore, Retention, Store, clock::Clock as StoreClock};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use crate::wire::Wire;
use crate::wire::Wired;

const FLEET: &str = r#"
[forge.github]
token = "env:NONE"
scopes = ["org:acme"]
polls = { starting = "1s", runners = "2s", job = "10s" }
demand = { sweep = "2s", budget = 1000000 }

[provider.local]
kind = "process"
poll = "1s"
absent = "5s"
launch_deadline = "20s"

[image.plain]
command = ["run"]

[pool.small]
labels = ["linux"]
provider = "local"
image = "plain"
max = 10
limits = { idle = "5s", finish = "5s", boot = "30s" }
"#;

/// The instant at which every story begins, in milliseconds: some day in November 2023.
const BEGIN: i64 = 1_700_000_000_000;

fn forge() -> ForgeName {
    ForgeName::new("github").unwrap()
}

fn scope() -> Scope {
    "org:acme".parse().unwrap()
}

/// What is really there.
#[derive(Default)]
pub(crate) struct Truth {
    jobs: BTreeMap<u64, Job>,
    registrations: BTreeMap<u64, Registration>,
    instances: BTreeMap<InstanceId, RunnerName>,
    ended: BTreeSet<InstanceId>,
    last_registration: u64,
    names: BTreeSet<RunnerName>,
    launched: BTreeSet<InstanceId>,
    calls: Vec<(&'static str, &'static str)>,
}

struct Job {
    state: JobState,
    runner: Option<RunnerRef>,
}

struct Registration {
    name: RunnerName,
    online: bool,
    job: Option<u64>,
}

impl Truth {
    pub(crate) fn is_running(&self, job: u64) -> bool {
        self.jobs.get(&job).is_some_and(|job| job.state == JobState::InProgress)
    }

    /// The forge hands the oldest jobs to idle runners.
    fn assign(&mut self) {
        let queued = self.jobs.iter_mut().filter(|(_, job)| job.state == JobState::Queued);
        let idle = self.registrations.iter_mut().filter(|(_, at)| at.online && at.job.is_none());
        for ((number, job), (id, registration)) in queued.zip(idle) {
            job.state = JobState::InProgress;
            job.runner = Some(RunnerRef { id: *id, name: registration.name.clone() });
            registration.job = Some(*number);
        }
    }

    fn seen(&self, number: u64, source: observation::Source) -> JobSeen {
        let job = &self.jobs[&number];
        let login = Login::new("acme").unwrap();
        JobSeen {
            key: JobKey::rest(&forge(), number),
            state: job.state,
            conclusion: (job.state == JobState::Completed).then_some(Conclusion::Success),
            tenant: Tenant {
                key: TenantKey { forge: forge(), kind: OwnerKind::Organization, id: 7 },
                login,
            },
            scope: scope(),
            repository: "acme/app".parse().unwrap(),
            wanted: Wanted::AllOf(LabelSet::parse(["linux"]).unwrap()),
            runner: job.runner.clone(),
            title: Title::default(),
            queued_at: None,
            started_at: None,
            completed_at: None,
            source,
        }
    }
}

/// The machine all replicas share: its books, its time, and what is really there.
pub(crate) struct Ground {
    truth: Arc<Mutex<Truth>>,
    books: Arc<MemoryStore>,
    fleet: Arc<Fleet>,
    begun: Instant,
    errors: Errors,
    _logged: tracing::subscriber::DefaultGuard,
}

/// What was logged as an error.
#[derive(Clone, Default)]
struct Errors(Arc<Mutex<Vec<u8>>>);

impl Write for Errors {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let errors = String::from_utf8(self.errors.0.lock().unwrap().clone()).unwrap();
            assert_eq!(errors, "", "an error was logged that nobody expected");
        }
    }
}

impl Ground {
    pub(crate) fn new() -> Self {
        let errors = Errors::default();
        let sink = errors.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::ERROR)
            .with_writer(move || sink.clone())
            .finish();
        let begun = Instant::now();
        let installation = InstallationId::new("test").unwrap();
        let clock = StoreClock::from_fn(move || time(begun, 0));
        Self {
            truth: Arc::default(),
            books: Arc::new(MemoryStore::with(installation, clock, Retention::default())),
            fleet: Arc::new(parse(&[Source { name: "fleet.toml", text: FLEET }]).unwrap()),
            begun,
            errors,
            _logged: tracing::subscriber::set_default(subscriber),
        }
    }

    pub(crate) fn truth(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap()
    }

    /// Starts a replica.
    pub(crate) async fn replica(&self, who: &'static str) -> Replica {
        self.starts(who, |outside, local, side| {
            outside.providers.insert(local, side);
        })
        .await
    }

    /// Starts a replica on another machine than the one that instances live on.
    pub(crate) async fn replica_elsewhere(&self, who: &'static str) -> Replica {
        self.starts(who, |outside, local, _| {
            outside.elsewhere.insert(local, "its instances are on another machine".into());
        })
        .await
    }

    async fn starts(
        &self,
        who: &'static str,
        sees: fn(&mut Outside, ProviderName, Arc<dyn Provider>),
    ) -> Replica {
        let (begun, skew) = (self.begun, Arc::new(AtomicI64::new(0)));
        let stood = Arc::new(AtomicU64::new(u64::MAX));
        let (hand, still) = (Arc::clone(&skew), Arc::clone(&stood));
        let clock = Clock::from_fns(
            move || time(begun, hand.load(Ordering::SeqCst)),
            move || begun.elapsed().min(Duration::from_millis(still.load(Ordering::SeqCst))),
        );
        let store = Arc::new(Wired::new(Arc::clone(&self.books)));
        let open = watch::Sender::new(true);
        let side = Arc::new(Side { who, truth: Arc::clone(&self.truth), open: open.subscribe() });
        let mut outside = Outside::new(clock.clone());
        outside.forges.insert(forge(), Arc::clone(&side) as Arc<dyn Forge>);
        sees(&mut outside, ProviderName::new("local").unwrap(), side);
        let (fleet, outside) = (Arc::clone(&self.fleet), Arc::new(outside));
        let estate = Site { number: 1, files: Vec::new(), fleet, outside };
        let (served, sites) = watch::channel(Arc::new(estate));
        let lead = Lead::new(Candidate {
            store: Arc::clone(&store) as Arc<dyn Store>,
            holder: who.into(),
            installation: InstallationId::new("test").unwrap(),
            sites,
            metrics: Arc::new(Metrics::default()),
            clock,
        });
        let (handle, stop, brake) = (lead.handle(), CancellationToken::new(), Brake::default());
        let mut task = JoinSet::new();
        task.spawn(brake.clone().on(Box::pin(lead.run(stop.clone()))));
        tokio::task::yield_now().await;
        let truth = Arc::clone(&self.truth);
        Replica {
            handle,
            store,
            stop,
            brake,
            task,
            _served: served,
            open,
            skew,
            stood,
            truth,
            begun,
        }
    }

    pub(crate) fn job(&self, number: u64) -> JobState {
        self.truth().jobs[&number].state
    }

    pub(crate) fn running(&self) -> Vec<u64> {
        let truth = self.truth();
        truth.jobs.keys().copied().filter(|job| truth.is_running(*job)).collect()
    }

    /// Calls begun by a replica.
    pub(crate) fn calls_of(&self, who: &str) -> usize {
        self.truth().calls.iter().filter(|(by, _)| *by == who).count()
    }

    /// Calls begun by a replica that change something outside.
    pub(crate) fn deeds_of(&self, who: &str) -> usize {
        let truth = self.truth();
        truth.calls.iter().filter(|(by, what)| *by == who && *what != "look").count()
    }

    /// Instances there are.
    pub(crate) fn instances(&self) -> usize {
        self.truth().instances.len()
    }

    /// Registrations begun, by whomever.
    pub(crate) fn registrations(&self) -> usize {
        self.truth().calls.iter().filter(|(_, what)| *what == "register").count()
    }

    /// A job ends well; its runner leaves by itself.
    pub(crate) fn finish(&self, number: u64) {
        let mut truth = self.truth();
        let job = truth.jobs.get_mut(&number).unwrap();
        assert_eq!(job.state, JobState::InProgress, "job {number} does not run");
        job.state = JobState::Completed;
        let runner = job.runner.clone().unwrap();
        truth.registrations.remove(&runner.id);
        let ended = truth.instances.iter().filter(|(_, name)| **name == runner.name);
        let ended: Vec<_> = ended.map(|(id, _)| *id).collect();
        truth.ended.extend(ended);
    }

    pub(crate) async fn until(&self, what: &str, reached: impl Fn(&Truth) -> bool) {
        for _ in 0..8000 {
            if reached(&self.truth()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{what}: not within 400 s");
    }

    /// Waits until a job runs.
    pub(crate) async fn runs(&self, number: u64) {
        self.until("the job runs", |truth| truth.is_running(number)).await;
    }

    /// These jobs, the last, end well; waits until every job has ended and nothing is left outside.
    pub(crate) async fn ends(&self, last: impl IntoIterator<Item = u64>) {
        for number in last {
            self.finish(number);
        }
        self.until("everything has ended", |truth| {
            truth.jobs.values().all(|job| job.state == JobState::Completed)
                && truth.registrations.is_empty()
                && truth.instances.is_empty()
        })
        .await;
    }

    pub(crate) async fn epoch(&self) -> u64 {
        self.books.leader().await.unwrap().unwrap().epoch
    }

    /// Why a runner is held, as the books say.
    pub(crate) async fn hold(&self, runner: u64) -> Option<String> {
        let books = self.books.load().await.unwrap();
        let row = books.changes.into_iter().find_map(|change| match change {
            Change::Runner(row) if row.id.0 == runner => Some(row),
            _ => None,
        });
        row?.hold.map(|hold| hold.why.to_string())
    }

    /// Ends replicas in order.
    pub(crate) async fn closes(&self, all: impl IntoIterator<Item = Replica>) {
        for mut replica in all {
            replica.stop.cancel();
            replica.task.join_next().await.unwrap().unwrap().unwrap();
        }
    }

    /// What was logged as an error so far was to be expected.
    pub(crate) fn expects_errors(&self) {
        let mut errors = self.errors.0.lock().unwrap();
        assert!(!errors.is_empty(), "no error was logged");
        errors.clear();
    }

    /// True if nothing else holds on to what calls are made to.
    pub(crate) fn is_all_mine(&self) -> bool {
        Arc::strong_count(&self.truth) == 1
    }
}

fn time(begun: Instant, skew: i64) -> Timestamp {
    let passed = i64::try_from(begun.elapsed().as_millis()).unwrap();
    Timestamp::from_millis(BEGIN + skew + passed)
}

type Running = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// Holds a replica's loop where it is, as SIGSTOP does.
#[derive(Clone, Default)]
struct Brake(Arc<(AtomicBool, Mutex<Option<Waker>>)>);

impl Brake {
    async fn on(self, mut running: Running) -> anyhow::Result<()> {
        poll_fn(move |context| {
            if self.0.0.load(Ordering::SeqCst) {
                *self.0.1.lock().unwrap() = Some(context.waker().clone());
                return Poll::Pending;
            }
            running.as_mut().poll(context)
        })
        .await
    }
}

/// One server, without its listeners.
pub(crate) struct Replica {
    pub(crate) handle: Handle,
    pub(crate) store: Arc<Wired>,
    stop: CancellationToken,
    brake: Brake,
    task: JoinSet<anyhow::Result<()>>,
    // No other fleet comes, but nobody may think that none can.
    _served: watch::Sender<Arc<Site>>,
    open: watch::Sender<bool>,
    skew: Arc<AtomicI64>,
    stood: Arc<AtomicU64>,
    truth: Arc<Mutex<Truth>>,
    begun: Instant,
}

impl Replica {
    /// A job is queued, and this replica is told.
    pub(crate) async fn posts(&self, number: u64) {
        let job = Job { state: JobState::Queued, runner: None };
        self.truth.lock().unwrap().jobs.insert(number, job);
        let delivery = Delivery {
            forge: forge(),
            id: number.to_string().into(),
            event: "workflow_job".into(),
            received_at: time(self.begun, self.skew.load(Ordering::SeqCst)),
            body: number.to_string().into_bytes().into(),
        };
        self.store.accept(&delivery).await.unwrap();
        self.handle.delivered();
    }

    /// SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.task.abort_all();
        while self.task.join_next().await.is_some() {}
    }

    /// SIGSTOP.
    pub(crate) fn stop(&self) {
        self.brake.0.0.store(true, Ordering::SeqCst);
    }

    /// SIGCONT.
    pub(crate) fn go_on(&self) {
        self.brake.0.0.store(false, Ordering::SeqCst);
        if let Some(waker) = self.brake.0.1.lock().unwrap().take() {
            waker.wake();
        }
    }

    pub(crate) fn holds_back_registrations(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn lets_registrations_pass(&self) {
        self.open.send_replace(true);
    }

    /// Its steady clock does not move any more.
    pub(crate) fn stop_clock(&self) {
        let passed = u64::try_from(self.begun.elapsed().as_millis()).unwrap();
        self.stood.store(passed, Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> Timestamp {
        time(self.begun, self.skew.load(Ordering::SeqCst))
    }

    pub(crate) fn turns_its_clock_by(&self, seconds: i64) {
        self.skew.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
}

/// Forge and provider as one replica reaches them.
struct Side {
    who: &'static str,
    truth: Arc<Mutex<Truth>>,
    open: watch::Receiver<bool>,
}

impl Side {
    fn begin(&self, what: &'static str) -> MutexGuard<'_, Truth> {
        let mut truth = self.truth.lock().unwrap();
        truth.calls.push((self.who, what));
        truth
    }
}

#[async_trait]
impl Forge for Side {
    fn verify(&self, _: &RawDelivery<'_>) -> Result<Delivery, Refusal> {
        Err(Refusal::Signature)
    }

    fn decode(&self, delivery: &Delivery) -> Result<Vec<Observation>, DecodeError> {
        let number = std::str::from_utf8(&delivery.body).unwrap().parse().unwrap();
        let source = observation::Source::Delivery { received_at: delivery.received_at };
        let mut seen = self.truth.lock().unwrap().seen(number, source);
        (seen.state, seen.conclusion, seen.runner) = (JobState::Queued, None, None);
        Ok(vec![Observation::Job(Box::new(seen))])
    }

    async fn register(&self, launch: &Launch) -> Result<Registered, ForgeError> {
        drop(self.begin("register"));
        self.open.clone().wait_for(|open| *open).await.unwrap();
        let mut truth = self.truth.lock().unwrap();
        assert!(truth.names.insert(launch.name.clone()), "{} registered twice", launch.name);
        truth.last_registration += 1;
        let id = truth.last_registration;
        let registration = Registration { name: launch.name.clone(), online: false, job: None };
        truth.registrations.insert(id, registration);
        Ok(Registered { id, jit: "secret".into() })
    }

    async fn deregister(
        &self,
        _: &Scope,
        name: &RunnerName,
        id: Option<u64>,
    ) -> Result<Removal, ForgeError> {
        let mut truth = self.begin("deregister");
        let mut found = truth.registrations.iter();
        let found = found.find(|(number, at)| id.map_or(at.name == *name, |id| id == **number));
        let Some((found, busy)) = found.map(|(id, at)| (*id, at.job.is_some())) else {
            return Ok(Removal::Removed);
        };
        if busy {
            return Ok(Removal::Busy);
        }
        truth.registrations.remove(&found);
        Ok(Removal::Removed)
    }

    async fn job(
        &self,
        _: &Scope,
        _: &Repository,
        key: &JobKey,
        asked_at: Timestamp,
    ) -> Result<Option<JobSeen>, ForgeError> {
        let source = observation::Source::Read { asked_at };
        Ok(Some(self.begin("look").seen(key.native, source)))
    }

    async fn jobs(
        &self,
        _: &Scope,
        _: &Reach,
        asked_at: Timestamp,
    ) -> Result<OpenJobs, ForgeError> {
        let truth = self.begin("look");
        let open = truth.jobs.iter().filter(|(_, job)| job.state < JobState::Completed);
        let source = observation::Source::Read { asked_at };
        let all = open.map(|(number, _)| truth.seen(*number, source)).collect();
        Ok(OpenJobs { all, covered: Covered::Whole, calls: 1 })
    }

    async fn runners(&self, _: &Scope) -> Result<Vec<RunnerSeen>, ForgeError> {
        let truth = self.begin("look");
        let seen = truth.registrations.iter().map(|(id, at)| RunnerSeen {
            id: *id,
            name: at.name.clone(),
            online: at.online,
            busy: at.job.is_some(),
        });
        Ok(seen.collect())
    }

    async fn deliveries(
        &self,
        _: &HookKey,
        _: Timestamp,
        _: Option<&str>,
    ) -> Result<FailedDeliveries, ForgeError> {
        Ok(FailedDeliveries { failed: Vec::new(), next: None })
    }

    async fn redeliver(&self, hook: &HookKey, _: u64) -> Result<(), ForgeError> {
        Err(ForgeError::Unsupported(format!("{hook} has no failed deliveries")))
    }

    fn budgets(&self) -> Vec<(Credential, Budget)> {
        Vec::new()
    }
}

#[async_trait]
impl Provider for Side {
    async fn launch(
        &self,
        launch: &Launch,
        _: &secrecy::SecretString,
    ) -> Result<Option<NodeName>, ProviderError> {
        let mut truth = self.begin("launch");
        assert!(truth.launched.insert(launch.instance), "{} launched twice", launch.instance);
        truth.instances.insert(launch.instance, launch.name.clone());
        let mut all = truth.registrations.values_mut();
        if let Some(registration) = all.find(|at| at.name == launch.name) {
            registration.online = true;
        }
        truth.assign();
        Ok(None)
    }

    async fn destroy(&self, instance: InstanceId) -> Result<(), ProviderError> {
        let mut truth = self.begin("destroy");
        let Some(name) = truth.instances.remove(&instance) else { return Ok(()) };
        let busy = truth.registrations.values().any(|at| at.name == name && at.job.is_some());
        assert!(!busy, "{instance} was destroyed under its job");
        Ok(())
    }

    async fn instances(&self) -> Result<Vec<InstanceSeen>, ProviderError> {
        let truth = self.begin("look");
        let seen = truth.instances.iter().map(|(id, name)| InstanceSeen {
            id: *id,
            runner: Some(name.clone()),
            node: None,
            condition: if truth.ended.contains(id) {
                Condition::Exited(Some(0))
            } else {
                Condition::Running
            },
        });
        Ok(seen.collect())
    }

    async fn capacity(&self) -> Result<Option<Capacity>, ProviderError> {
        Ok(None)
    }

    async fn tail(&self, _: InstanceId, _: usize) -> Result<Vec<u8>, ProviderError> {
        Ok(Vec::new())
    }
}
