//! What is counted and measured, in `OpenMetrics` text. Gauges are read off the snapshot when asked.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use remuda_core::budget::Credential;
use remuda_core::job::JobState;
use remuda_core::observation::Observation;
use remuda_core::runner::RunnerState;
use remuda_core::{Controller, Seen};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PoolState {
    pool: String,
    state: String,
}

/// Bounds of the times from a delivery to its decision, in seconds.
const DECISION_BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 5.0, 30.0];

/// What the server counts as it goes.
#[derive(Debug)]
pub struct Metrics {
    deliveries: Family<Kind, Counter>,
    calls: Family<Kind, Counter>,
    failed: Family<Kind, Counter>,
    turns: Histogram,
    decisions: Histogram,
    takeovers: Counter,
    /// The epoch of the lease that is held; 0 while another replica leads.
    epoch: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            deliveries: Family::default(),
            calls: Family::default(),
            failed: Family::default(),
            turns: Histogram::new(exponential_buckets(0.0001, 4.0, 10)),
            decisions: Histogram::new(DECISION_BOUNDS),
            takeovers: Counter::default(),
            epoch: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    /// A webhook request was answered: `accepted`, `duplicate`, `ignored`, `refused` or `failed`.
    pub fn delivery(&self, kind: &str) {
        self.deliveries.get_or_create(&Kind { kind: kind.into() }).inc();
    }

    /// A delivery could not be read.
    pub(crate) fn undecodable(&self) {
        self.delivery("undecodable");
    }

    /// A turn of the controller took this long.
    pub(crate) fn turn(&self, took: Duration) {
        self.turns.observe(took.as_secs_f64());
    }

    /// What followed from a delivery was committed so long after its arrival.
    pub(crate) fn decided(&self, after: Duration) {
        self.decisions.observe(after.as_secs_f64());
    }

    /// This replica leads.
    pub(crate) fn leads(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Relaxed);
        self.takeovers.inc();
    }

    /// This replica leads no more.
    pub(crate) fn stands_by(&self) {
        self.epoch.store(0, Ordering::Relaxed);
    }

    /// A call ended.
    pub(crate) fn answered(&self, answer: &Seen) {
        let Seen::Answer { facts, .. } = answer else { return };
        self.calls.get_or_create(&Kind { kind: "all".into() }).inc();
        for fact in facts {
            if let Observation::Failed { call, .. } = fact {
                let kind = format!("{call:?}").to_lowercase();
                self.failed.get_or_create(&Kind { kind }).inc();
            }
        }
    }

    /// Everything, as `OpenMetrics` text; without gauges where there are no books to read them off.
    pub fn render(&self, gauges: Option<&Gauges>) -> String {
        let mut registry = Registry::with_prefix("remuda");
        registry.register(
            "deliveries",
            "Webhook requests by what became of them",
            self.deliveries.clone(),
        );
        registry.register("calls", "Calls to forges and providers that ended", self.calls.clone());
        registry.register("calls_failed", "Calls that failed, by kind", self.failed.clone());
        registry.register("turn_seconds", "Time one turn took to think", self.turns.clone());
        let help = "Time from a delivery's arrival to the commit of what follows from it";
        registry.register("decision_seconds", help, self.decisions.clone());
        registry.register(
            "takeovers",
            "Times this replica has begun to lead",
            self.takeovers.clone(),
        );
        let epoch = self.epoch.load(Ordering::Relaxed);
        single(&mut registry, "leader", "1 if this replica leads", i64::from(epoch > 0));
        let help = "Number of the lease this replica holds; 0 if none";
        single(&mut registry, "lease_epoch", help, i64::try_from(epoch).unwrap_or(i64::MAX));
        if let Some(gauges) = gauges {
            gauges.register(&mut registry);
        }
        let mut text = String::new();
        if encode(&mut text, &registry).is_err() {
            text.clear();
            let _ = text.write_str("# the metrics could not be written\n# EOF\n");
        }
        text
    }
}

/// What is read off the controller.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    jobs: BTreeMap<&'static str, i64>,
    runners: BTreeMap<(String, &'static str), i64>,
    waits: BTreeMap<&'static str, i64>,
    oldest_queued_ms: i64,
    calls: i64,
    backoffs: i64,
    strays: i64,
    budgets: Vec<(Caller, u64, u64)>,
}

/// Whose calls a budget counts. Never a secret.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Caller {
    forge: String,
    app: String,
    owner: String,
}

impl Gauges {
    /// Reads them.
    pub fn read(controller: &Controller) -> Self {
        let world = controller.world();
        let mut gauges = Self::default();
        for state in JobState::ALL {
            gauges.jobs.insert(state.as_str(), 0);
        }
        for job in world.jobs() {
            *gauges.jobs.entry(job.attempt.state.as_str()).or_default() += 1;
            if job.attempt.state == JobState::Queued {
                let age = world.now.since(job.attempt.queued_at).as_millis();
                let age = i64::try_from(age).unwrap_or(i64::MAX);
                gauges.oldest_queued_ms = gauges.oldest_queued_ms.max(age);
            }
        }
        for runner in world.runners().filter(|runner| runner.state < RunnerState::Gone) {
            let key = (runner.pool.to_string(), runner.state.as_str());
            *gauges.runners.entry(key).or_default() += 1;
        }
        for (_, _, reasons) in controller.waits() {
            for reason in reasons.iter() {
                *gauges.waits.entry(reason.code()).or_default() += 1;
            }
        }
        let count = |len: usize| i64::try_from(len).unwrap_or(i64::MAX);
        gauges.calls = count(controller.calls());
        gauges.backoffs = count(world.backoffs().count());
        gauges.strays = count(world.strays().count());
        gauges.budgets = world
            .budgets()
            .map(|(forge, credential, budget)| {
                let (app, owner) = match credential {
                    Credential::App { id, owner } => (id.to_string(), owner.as_ref()),
                    Credential::Token => (String::new(), None),
                };
                let owner = owner.map(ToString::to_string).unwrap_or_default();
                let of = Caller { forge: forge.to_string(), app, owner };
                (of, budget.limit, budget.left_at(world.now))
            })
            .collect();
        gauges
    }

    fn register(&self, registry: &mut Registry) {
        let jobs = Family::<Kind, Gauge>::default();
        for (kind, count) in &self.jobs {
            jobs.get_or_create(&Kind { kind: (*kind).into() }).set(*count);
        }
        registry.register("jobs", "Jobs known, by state", jobs);
        let runners = Family::<PoolState, Gauge>::default();
        for ((pool, state), count) in &self.runners {
            let label = PoolState { pool: pool.clone(), state: (*state).into() };
            runners.get_or_create(&label).set(*count);
        }
        registry.register("runners", "Runners, by pool and state", runners);
        let waits = Family::<Kind, Gauge>::default();
        for (kind, count) in &self.waits {
            waits.get_or_create(&Kind { kind: (*kind).into() }).set(*count);
        }
        registry.register("waiting_jobs", "Jobs not running, by reason", waits);
        let (limits, left) =
            (Family::<Caller, Gauge>::default(), Family::<Caller, Gauge>::default());
        for (of, limit, remaining) in &self.budgets {
            limits.get_or_create(of).set(i64::try_from(*limit).unwrap_or(i64::MAX));
            left.get_or_create(of).set(i64::try_from(*remaining).unwrap_or(i64::MAX));
        }
        registry.register("budget_limit", "Calls a credential may make in a window", limits);
        registry.register("budget_left", "Calls a credential has left of them", left);
        let singles = [
            ("oldest_queued_milliseconds", "Age of the oldest queued job", self.oldest_queued_ms),
            ("calls_in_flight", "Calls being made", self.calls),
            (
                "backoffs",
                "Pools, providers and scopes whose failures are waited out",
                self.backoffs,
            ),
            ("strays", "Registrations under our name that no row explains", self.strays),
        ];
        for (name, help, value) in singles {
            single(registry, name, help, value);
        }
    }
}

fn single(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}
