//! Stores on a clock that tests set by hand, and short ways to make nouns.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use remuda_core::job::{Attempt, Job, JobKey, JobState, Title, Trust};
use remuda_core::label::{LabelSet, Wanted};
use remuda_core::name::{ForgeName, InstallationId, PoolName, ProviderName, RunnerName};
use remuda_core::pool::Needs;
use remuda_core::runner::{
    Instance, InstanceId, InstanceState, Purpose, Registration, Runner, RunnerId, RunnerState,
    Since,
};
use remuda_core::tenant::{OwnerKind, TenantKey};
use remuda_core::{Batch, Change, Delivery, Event, Timestamp};
use remuda_store::clock::Clock;
use remuda_store::postgres::{self, PostgresStore};
use remuda_store::sqlite::Settings;
use remuda_store::{Lease, MemoryStore, Retention, SqliteStore, Store};
use tempfile::TempDir;

use crate::real::Schema;

pub(crate) const HOUR: Duration = Duration::from_hours(1);

/// A clock that stands still until it is moved.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hand(Arc<AtomicI64>);

impl Hand {
    pub(crate) fn advance(&self, span: Duration) {
        let millis = i64::try_from(span.as_millis()).unwrap();
        self.0.fetch_add(millis, Ordering::SeqCst);
    }

    pub(crate) fn clock(&self) -> Clock {
        let hand = self.0.clone();
        Clock::from_fn(move || Timestamp::from_millis(hand.load(Ordering::SeqCst)))
    }
}

/// A store and what it depends on.
pub(crate) struct Fixture {
    pub(crate) store: Box<dyn Store>,
    pub(crate) hand: Hand,
    _place: Place,
}

/// What is removed once the store is gone.
enum Place {
    Nowhere,
    Directory { _directory: TempDir },
    Schema { _schema: Schema },
}

pub(crate) const RETENTION: Retention = Retention {
    bodies: HOUR,
    deliveries: Duration::from_hours(72),
    undecodable: Duration::from_hours(720),
    history: Duration::from_hours(240),
    events: 12,
};

pub(crate) fn settings(hand: &Hand) -> Settings {
    Settings {
        busy_timeout: Duration::from_millis(20),
        retention: RETENTION,
        clock: hand.clock(),
        ..Settings::default()
    }
}

pub(crate) fn memory() -> Fixture {
    let hand = Hand::default();
    let installation = InstallationId::new("memory").unwrap();
    let store = MemoryStore::with(installation, hand.clock(), RETENTION);
    Fixture { store: Box::new(store), hand, _place: Place::Nowhere }
}

pub(crate) fn sqlite_file() -> Fixture {
    let hand = Hand::default();
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&directory.path().join("books.db"), settings(&hand)).unwrap();
    Fixture { store: Box::new(store), hand, _place: Place::Directory { _directory: directory } }
}

pub(crate) fn sqlite_in_memory() -> Fixture {
    let hand = Hand::default();
    let store = SqliteStore::in_memory(settings(&hand)).unwrap();
    Fixture { store: Box::new(store), hand, _place: Place::Nowhere }
}

pub(crate) async fn postgres() -> Option<Fixture> {
    let schema = Schema::new().await?;
    let hand = Hand::default();
    let settings = postgres::Settings {
        clock: Some(hand.clock()),
        retention: RETENTION,
        ..postgres::Settings::default()
    };
    let store = PostgresStore::open(&schema.url(), settings).await.unwrap();
    Some(Fixture { store: Box::new(store), hand, _place: Place::Schema { _schema: schema } })
}

pub(crate) async fn lease_of(store: &dyn Store) -> Lease {
    store.lease("us", HOUR).await.unwrap().unwrap()
}

pub(crate) async fn commit(store: &dyn Store, lease: &Lease, changes: Vec<Change>) {
    let batch = Batch { changes, ..Batch::default() };
    store.commit(lease, &batch, &[]).await.unwrap();
}

pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(crate) fn forge() -> ForgeName {
    ForgeName::new("github").unwrap()
}

pub(crate) fn delivery(id: &str, body: &[u8]) -> Delivery {
    let (forge, event) = (forge(), "workflow_job".into());
    Delivery { forge, id: id.into(), event, received_at: at(5), body: body.into() }
}

pub(crate) fn event(text: &str) -> Event {
    Event { at: at(9), job: None, runner: None, pool: None, text: text.into() }
}

pub(crate) fn key(native: u64) -> JobKey {
    JobKey::rest(&forge(), native)
}

pub(crate) fn attempt(number: u32, state: JobState) -> Attempt {
    Attempt {
        number,
        state,
        runner: None,
        conclusion: None,
        queued_at: at(1),
        started_at: None,
        completed_at: None,
        fact_at: at(2),
    }
}

pub(crate) fn job(native: u64, attempt: Attempt) -> Job {
    Job {
        key: key(native),
        tenant: TenantKey { forge: forge(), kind: OwnerKind::Organization, id: 3 },
        scope: "org:acme".parse().unwrap(),
        repository: "acme/app".parse().unwrap(),
        wanted: Wanted::AllOf(LabelSet::parse(["linux"]).unwrap()),
        trust: Trust::Unknown,
        title: Title::default(),
        accepted_at: at(1),
        attempt,
        past_runners: Vec::new(),
        doubt: None,
    }
}

pub(crate) fn job_change(native: u64, attempt: Attempt) -> Change {
    Change::Job(Box::new(job(native, attempt)))
}

pub(crate) fn runner(id: u64) -> Runner {
    Runner {
        id: RunnerId(id),
        name: RunnerName::new(&format!("remuda-x-{id}")).unwrap(),
        pool: PoolName::new("rvv").unwrap(),
        forge: forge(),
        scope: "org:acme".parse().unwrap(),
        group: None,
        labels: LabelSet::default(),
        instance: InstanceId(id + 100),
        state: RunnerState::Pending,
        since: Since::default(),
        registration: Registration::Unknown,
        job: None,
        job_ended_at: None,
        outcome: None,
        hold: None,
    }
}

pub(crate) fn instance(id: u64) -> Instance {
    Instance {
        id: InstanceId(id),
        provider: ProviderName::new("farm").unwrap(),
        pool: PoolName::new("rvv").unwrap(),
        purpose: Purpose::Standby,
        needs: Needs::default(),
        node: None,
        epoch: 1,
        state: InstanceState::Planned,
        created_at: at(1),
        launch: None,
        exit: None,
        missing_since: None,
        destroyed_at: None,
        gone_at: None,
    }
}
