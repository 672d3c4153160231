//! Small worlds of every kind: pools, nodes, jobs, runners, failures, in a few numbers each.

use std::fmt::Write;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use remuda_core::Snapshot;
use remuda_core::budget::{Budget, Credential};
use remuda_core::job::{Doubt, Job, JobState, Trust};
use remuda_core::name::{ImageName, NodeName, PoolName, ProviderName, Resource};
use remuda_core::pool::{Audience, Capacity, Gather};
use remuda_core::reason::{BackoffKey, DrainKey};
use remuda_core::runner::{
    Instance, InstanceId, InstanceState, LaunchCall, Outcome, Purpose, Registration, Runner,
    RunnerId, RunnerState, Since,
};
use remuda_core::snapshot::{Backoff, Change, Drain, Note, Proof};

use crate::world::{at, fleet, forge, installation, job, scope, seconds};

const SCOPES: [&str; 4] = ["org:acme", "org:other", "repo:solo/app", "repo:solo/lib"];
const WANTED: [&str; 5] = ["x", "y", "x y", "", "gpu"];
const POOLS: [&str; 4] = ["a", "b", "c", "d"];

/// A pool in numbers.
#[derive(Clone, Debug)]
struct PoolIs {
    labels: usize,
    max: u32,
    provider: bool,
    needs: u32,
    scoped: bool,
    trusted: bool,
    min_idle: u32,
}

#[derive(Clone, Debug)]
struct JobIs {
    scope: usize,
    wanted: usize,
    trust: Trust,
    queued_at: i64,
    state: u32,
}

#[derive(Clone, Debug)]
struct RunnerIs {
    pool: usize,
    scope: usize,
    state: RunnerState,
    job: Option<usize>,
    called: bool,
}

#[derive(Clone, Debug)]
struct TenantIs {
    cap: u32,
    floor: u32,
    weight: u32,
    served_at: Option<i64>,
}

/// A small world in numbers: whatever they are, it is one that could be.
#[derive(Clone, Debug)]
pub(crate) struct WorldIs {
    pools: Vec<PoolIs>,
    maxes: [Option<u32>; 2],
    nodes: [Option<Vec<u64>>; 2],
    jobs: Vec<JobIs>,
    runners: Vec<RunnerIs>,
    tenants: Vec<TenantIs>,
    backoffs: Vec<(usize, bool, i64)>,
    drains: Vec<usize>,
    /// A pool that waits for company.
    gathers: Option<usize>,
    limited: Option<i64>,
    now: i64,
}

pub(crate) fn worlds() -> impl Strategy<Value = WorldIs> {
    let pool = (0..4_usize, 1..4_u32, any::<bool>(), 0..3_u32, 0..4_u32, 0..6_u32, 0..6_u32)
        .prop_map(|(labels, max, provider, needs, scoped, trusted, min_idle)| {
            let (scoped, trusted) = (scoped == 0, trusted == 0);
            let min_idle = u32::from(min_idle == 0 && scoped);
            PoolIs { labels, max, provider, needs, scoped, trusted, min_idle }
        });
    let trust = select(vec![Trust::Unknown, Trust::Untrusted, Trust::Trusted, Trust::Trusted]);
    let job = (0..4_usize, 0..5_usize, trust, 0..90_i64, 0..12_u32).prop_map(
        |(scope, wanted, trust, queued_at, state)| JobIs { scope, wanted, trust, queued_at, state },
    );
    let states = select(vec![
        RunnerState::Pending,
        RunnerState::Starting,
        RunnerState::Idle,
        RunnerState::Draining,
        RunnerState::Busy,
    ]);
    let on = prop::option::of(0..12_usize);
    let runner = (0..4_usize, 0..4_usize, states, on, any::<bool>())
        .prop_map(|(pool, scope, state, job, called)| RunnerIs { pool, scope, state, job, called });
    let tenant = (0..5_u32, 0..3_u32, 1..4_u32, prop::option::of(-9000..90_i64))
        .prop_map(|(cap, floor, weight, served_at)| TenantIs { cap, floor, weight, served_at });
    let rarely = |s| prop::option::weighted(0.4, s);
    let nodes = || prop::option::weighted(0.3, prop::collection::vec(0..4_u64, 0..3));
    let backoffs = prop::collection::vec((0..14_usize, any::<bool>(), 50..300_i64), 0..3);
    let drains = prop::collection::vec(0..8_usize, 1..3);
    (
        prop::collection::vec(pool, 1..5),
        [rarely(1..4_u32), rarely(1..4_u32)],
        [nodes(), nodes()],
        prop::collection::vec(job, 1..12),
        prop::collection::vec(runner, 0..6),
        prop::collection::vec(tenant, 3),
        (
            prop_oneof![2 => Just(Vec::new()), 1 => backoffs],
            prop_oneof![4 => Just(Vec::new()), 1 => drains],
            prop::option::weighted(0.3, 0..4_usize),
        ),
        prop::option::weighted(0.05, 50..300_i64),
        select(vec![100, 100, 3700, 9000]),
    )
        .prop_map(
            |(
                pools,
                maxes,
                nodes,
                jobs,
                runners,
                tenants,
                (backoffs, drains, gathers),
                limited,
                now,
            )| {
                WorldIs {
                    pools,
                    maxes,
                    nodes,
                    jobs,
                    runners,
                    tenants,
                    backoffs,
                    drains,
                    gathers,
                    limited,
                    now,
                }
            },
        )
}

fn provider_of(second: bool) -> ProviderName {
    ProviderName::new(if second { "two" } else { "one" }).unwrap()
}

fn pool_name(index: usize) -> PoolName {
    PoolName::new(POOLS[index]).unwrap()
}

fn node_name(number: usize) -> NodeName {
    NodeName::new(&format!("node-{number}")).unwrap()
}

fn cpu() -> Resource {
    Resource::new("cpu").unwrap()
}

impl WorldIs {
    pub(crate) fn books(&self) -> Snapshot {
        let mut books = Snapshot::new(installation(), Arc::new(self.fleet()));
        books.now = at(self.now);
        for index in 0..self.jobs.len() {
            let seen = self.told(index);
            books.apply(&[Change::Tenant(Box::new(seen.0.tenant.clone().into()))]);
        }
        for (tenant, is) in ["org:acme", "org:other", "repo:solo/app"].iter().zip(&self.tenants) {
            let seen = job(999, JobState::Queued, "x").of(tenant).0.tenant;
            let mut met = remuda_core::tenant::Met::from(seen);
            met.served_at = is.served_at.map(at);
            books.apply(&[Change::Tenant(Box::new(met))]);
        }
        let jobs: Vec<Change> =
            (0..self.jobs.len()).map(|index| Change::Job(Box::new(self.job(index)))).collect();
        books.apply(&jobs);
        for (id, runner) in (1..).zip(&self.runners) {
            self.put_runner(&mut books, id, runner);
        }
        let next = self.runners.len() as u64 + 1;
        books.apply(&[Change::Next { runner: RunnerId(next), instance: InstanceId(next) }]);
        for (index, second) in [false, true].into_iter().enumerate() {
            let Some(nodes) = &self.nodes[index] else { continue };
            let node = |(number, cpus): (usize, &u64)| {
                let name = NodeName::new(&format!("node-{number}")).unwrap();
                (name, [(cpu(), *cpus)].into())
            };
            let nodes = nodes.iter().enumerate().map(node).collect();
            books.apply(&[Change::Capacity(provider_of(second), Some(Capacity { nodes }))]);
        }
        for (what, full, until) in &self.backoffs {
            let key = match what {
                0..4 => BackoffKey::Pool(pool_name(*what)),
                4..6 => BackoffKey::Provider(provider_of(*what == 5)),
                6..10 => BackoffKey::Scope(forge(), scope(SCOPES[what - 6])),
                10 => BackoffKey::Image(ImageName::new("plain").unwrap()),
                _ => BackoffKey::Node(provider_of(*what > 12), node_name(what % 2)),
            };
            let soft = matches!(key, BackoffKey::Provider(_) | BackoffKey::Scope(..));
            // Of what can be in quarantine, half is.
            let backoff = Backoff {
                failures: if *full { 9 } else { 2 },
                since: at(0),
                failed_at: at(0),
                until: at(self.now - 100 + until),
                because: "refused".into(),
                earlier: Vec::new(),
                proof: Proof::Job,
                full: *full && soft,
            };
            books.apply(&[Change::Backoff(key, Some(backoff))]);
        }
        for what in &self.drains {
            let what = match what {
                0..4 => DrainKey::Pool(pool_name(*what)),
                4..6 => DrainKey::Provider(provider_of(*what == 5)),
                _ => DrainKey::Node(provider_of(*what == 7), node_name(0)),
            };
            let drain = Drain { who: "ada".into(), why: "to look".into(), since: at(0) };
            books.apply(&[Change::Drain(what, Some(drain))]);
        }
        if let Some(until) = self.limited {
            let resets_at = at(self.now - 100 + until);
            let budget = Budget { limit: 5000, remaining: 0, resets_at };
            books.apply(&[Change::Note(Note::Budget(forge(), Credential::Token, budget))]);
        }
        books
    }

    fn fleet(&self) -> remuda_core::fleet::Fleet {
        let mut text = String::new();
        for (login, is) in ["acme", "other", "solo"].iter().zip(&self.tenants) {
            let TenantIs { cap, floor, weight, .. } = is;
            let _ = writeln!(text, "tenant {login} cap={cap} floor={floor} weight={weight}");
        }
        for (second, max) in [false, true].into_iter().zip(self.maxes) {
            let max = max.map_or(String::new(), |max| format!("max={max}"));
            let _ = writeln!(text, "provider {} {max}", provider_of(second));
        }
        for (index, is) in self.pools.iter().enumerate() {
            let labels = ["x", "y", "x,y", "x,y,z"][is.labels];
            let scopes = if is.scoped { "scopes=org:acme,repo:solo/app" } else { "" };
            let needs =
                if is.needs > 0 { format!("needs=cpu:{}", is.needs) } else { String::new() };
            let _ = writeln!(
                text,
                "pool {} labels={labels} max={} provider={} min_idle={} {scopes} {needs}",
                POOLS[index],
                is.max,
                provider_of(is.provider),
                is.min_idle,
            );
        }
        let mut fleet = fleet(&text);
        for (index, is) in self.pools.iter().enumerate() {
            if self.gathers == Some(index) {
                let company = Gather { jobs: 2, wait: seconds(300) };
                fleet.pools.get_mut(&pool_name(index)).unwrap().gather = company;
            }
            if is.trusted {
                fleet.pools.get_mut(&pool_name(index)).unwrap().audience = Audience::TrustedOnly;
            }
        }
        fleet
    }

    fn told(&self, index: usize) -> crate::world::Told {
        let is = &self.jobs[index];
        let state = if is.state == 0 { JobState::Waiting } else { JobState::Queued };
        job(index as u64, state, WANTED[is.wanted]).of(SCOPES[is.scope])
    }

    fn job(&self, index: usize) -> Job {
        let is = &self.jobs[index];
        let seen = self.told(index).0;
        let mut doubt = Doubt::new(at(0));
        doubt.missing_since = Some(at(10));
        doubt.reads = 2;
        Job {
            key: seen.key,
            tenant: seen.tenant.key,
            scope: seen.scope,
            repository: seen.repository,
            wanted: seen.wanted,
            trust: is.trust,
            title: seen.title,
            accepted_at: at(0),
            attempt: remuda_core::job::Attempt {
                number: 1,
                state: seen.state,
                runner: None,
                conclusion: None,
                queued_at: at(is.queued_at),
                started_at: None,
                completed_at: None,
                fact_at: at(is.queued_at),
            },
            past_runners: Vec::new(),
            doubt: (is.state == 1).then_some(doubt),
        }
    }

    fn put_runner(&self, books: &mut Snapshot, id: u64, is: &RunnerIs) {
        let name = pool_name(is.pool % self.pools.len());
        let pool = books.fleet.pools[&name].clone();
        // A runner is where its pool may be, and has a job of somebody who owns that scope.
        let index = if pool.scopes.is_empty() { is.scope } else { [0, 2][is.scope % 2] };
        let of = scope(SCOPES[index]);
        let busy = is.state == RunnerState::Busy;
        let job = is.job.filter(|_| busy).and_then(|wanted| {
            let known: Vec<_> = books.jobs().filter(|job| job.scope == of).collect();
            let taken = |job: &&&Job| books.runners().any(|r| r.job.as_ref() == Some(&job.key));
            let job = known.get(wanted).filter(|job| !taken(job))?;
            Some((*job).clone())
        });
        if let Some(mut job) = job.clone() {
            (job.attempt.state, job.doubt) = (JobState::InProgress, None);
            books.apply(&[Change::Job(Box::new(job))]);
        }
        let mut since = Since::default();
        for state in [RunnerState::Pending, is.state] {
            since.enter(state, books.now);
        }
        let called = is.called || is.state > RunnerState::Pending;
        let call = LaunchCall { at: books.now, deadline: books.now, answered_at: Some(books.now) };
        let instance = Instance {
            id: InstanceId(id),
            provider: pool.provider.clone(),
            pool: name.clone(),
            purpose: Purpose::Runner(RunnerId(id)),
            needs: pool.needs.clone(),
            node: Some(NodeName::new("node-0").unwrap()),
            epoch: 1,
            state: if called { InstanceState::Live } else { InstanceState::Planned },
            created_at: books.now,
            launch: called.then_some(call),
            exit: None,
            missing_since: None,
            destroyed_at: None,
            gone_at: None,
        };
        let runner = Runner {
            id: RunnerId(id),
            name: Runner::name_for(&installation(), &name, RunnerId(id)),
            pool: name,
            forge: forge(),
            scope: of,
            group: None,
            labels: pool.labels.clone(),
            instance: InstanceId(id),
            state: is.state,
            since,
            registration: Registration::Made(1000 + id),
            job: job.map(|job| job.key),
            job_ended_at: None,
            outcome: (is.state == RunnerState::Draining).then_some(Outcome::Surplus),
            hold: None,
        };
        books.apply(&[Change::Instance(Box::new(instance)), Change::Runner(Box::new(runner))]);
    }
}
