//! Reasons are true: take away what they name, and the job is served.
//!
//! For small worlds of every kind, and each job that waits: whatever each of its reasons names is taken
//! away, alone and together, and the plan is made anew. Taken away together, by one runner's worth each,
//! the job must be served. Taken away alone, the job is served or that reason is gone, and what remains
//! must again be true of the world as it is then.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use remuda_core::fleet::Terms;
use remuda_core::job::{Doubt, Job, JobKey, JobState, Trust};
use remuda_core::label::Wanted;
use remuda_core::name::{NodeName, PoolName, ProviderName, Resource};
use remuda_core::pool::{Audience, Capacity, Pool};
use remuda_core::reason::{BackoffKey, Reason};
use remuda_core::runner::{
    Instance, InstanceId, InstanceState, LaunchCall, Outcome, Purpose, Registration, Runner,
    RunnerId, RunnerState, Since,
};
use remuda_core::snapshot::{Backoff, Change};
use remuda_core::tenant::TenantKey;
use remuda_core::{Plan, Snapshot, plan};

use crate::world::{at, fleet, forge, installation, job, scope};

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

#[derive(Clone, Debug)]
struct WorldIs {
    pools: Vec<PoolIs>,
    maxes: [Option<u32>; 2],
    nodes: [Option<Vec<u64>>; 2],
    jobs: Vec<JobIs>,
    runners: Vec<RunnerIs>,
    tenants: Vec<TenantIs>,
    backoffs: Vec<(usize, bool, i64)>,
    limited: Option<i64>,
    now: i64,
}

fn worlds() -> impl Strategy<Value = WorldIs> {
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
    let backoffs = prop::collection::vec((0..10_usize, any::<bool>(), 50..300_i64), 0..3);
    (
        prop::collection::vec(pool, 1..5),
        [rarely(1..4_u32), rarely(1..4_u32)],
        [nodes(), nodes()],
        prop::collection::vec(job, 1..12),
        prop::collection::vec(runner, 0..6),
        prop::collection::vec(tenant, 3),
        prop_oneof![2 => Just(Vec::new()), 1 => backoffs],
        prop::option::weighted(0.05, 50..300_i64),
        select(vec![100, 100, 3700, 9000]),
    )
        .prop_map(|(pools, maxes, nodes, jobs, runners, tenants, backoffs, limited, now)| {
            WorldIs { pools, maxes, nodes, jobs, runners, tenants, backoffs, limited, now }
        })
}

fn provider_of(second: bool) -> ProviderName {
    ProviderName::new(if second { "two" } else { "one" }).unwrap()
}

fn pool_name(index: usize) -> PoolName {
    PoolName::new(POOLS[index]).unwrap()
}

fn cpu() -> Resource {
    Resource::new("cpu").unwrap()
}

impl WorldIs {
    fn books(&self) -> Snapshot {
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
                _ => BackoffKey::Scope(forge(), scope(SCOPES[what - 6])),
            };
            let (failures, because) = (2, "refused".into());
            let full = *full && !matches!(key, BackoffKey::Pool(_));
            let backoff = Backoff { failures, until: at(self.now - 100 + until), because, full };
            books.apply(&[Change::Backoff(key, Some(backoff))]);
        }
        if let Some(until) = self.limited {
            books.apply(&[Change::Limited(forge(), at(self.now - 100 + until))]);
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

fn reasons(plan: &Plan, job: &Job) -> BTreeSet<Reason> {
    let waits = plan.waits.iter().filter(|wait| wait.job == job.key);
    waits.flat_map(|wait| wait.reasons.iter().cloned()).collect()
}

fn is_coming(reason: &Reason) -> bool {
    matches!(reason, Reason::RunnerStarting(_) | Reason::RunnerIdle(_))
}

fn served(reasons: &BTreeSet<Reason>) -> bool {
    reasons.iter().all(is_coming)
}

/// How much of a limit is lifted.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// One runner's worth.
    One,
    /// All of it.
    All,
}

/// Lifts a limit of `max`, of which `held` are taken.
fn lifted(max: u32, held: usize, by: By) -> u32 {
    match by {
        By::One => max.max(u32::try_from(held).unwrap()) + 1,
        By::All => u32::MAX,
    }
}

/// The world without what a reason names, for a job that waits for it.
fn without(told: &Snapshot, job: &Job, reason: &Reason, by: By) -> Snapshot {
    without_all(told, job, [reason], by)
}

/// The world without what any of these reasons names.
fn without_all<'a>(
    told: &Snapshot,
    job: &Job,
    reasons: impl IntoIterator<Item = &'a Reason>,
    by: By,
) -> Snapshot {
    let waits = plan(told).waits;
    let waits = waits.iter().filter(|wait| !wait.reasons.iter().all(is_coming));
    let waiting: BTreeSet<JobKey> = waits.map(|wait| wait.job.clone()).collect();
    let less = |world: Snapshot, reason| less(world, &waiting, job, reason, by);
    reasons.into_iter().fold(told.clone(), less)
}

/// The world without what a reason names; `waiting` are the jobs that had no runner on its way.
fn less(
    mut world: Snapshot,
    waiting: &BTreeSet<JobKey>,
    job: &Job,
    reason: &Reason,
    by: By,
) -> Snapshot {
    let mut fleet = (*world.fleet).clone();
    // The job may have been judged in the meantime.
    let job = world.job(&job.key).unwrap().clone();
    match reason {
        Reason::HeldByForge => {
            with_job(&mut world, job, |job| job.attempt.state = JobState::Queued);
        }
        Reason::UnknownToForge { .. } => with_job(&mut world, job, |job| job.doubt = None),
        Reason::TrustUnknown(_) | Reason::NotTrusted(_) => {
            with_job(&mut world, job, |job| job.trust = Trust::Trusted);
        }
        Reason::NoPoolHasLabels { wanted: Wanted::AllOf(wanted), .. } => {
            let mut pool: Pool = fleet.pools.values().next().unwrap().clone();
            pool.name = PoolName::new("new").unwrap();
            pool.provider = ProviderName::new("new").unwrap();
            (pool.labels, pool.scopes, pool.max) = (wanted.clone(), Vec::new(), 99);
            pool.audience = Audience::Anyone;
            fleet.pools.insert(pool.name.clone(), pool);
        }
        Reason::PoolFull(name) => {
            let held = world.existing_instances().filter(|one| one.pool == *name).count();
            let pool = fleet.pools.get_mut(name).unwrap();
            pool.max = lifted(pool.max, held, by);
        }
        Reason::ProviderFull(name) => {
            let held = world.existing_instances().filter(|one| one.provider == *name).count();
            let provider = fleet.providers.get_mut(name).unwrap();
            provider.max = provider.max.map(|max| lifted(max, held, by));
            let key = BackoffKey::Provider(name.clone());
            if world.backoffs().any(|(known, it)| *known == key && it.full && it.until > world.now)
            {
                world.apply(&[Change::Backoff(key, None)]);
            }
        }
        Reason::NoNodeHasRoom(name) => {
            let pool = &fleet.pools[name];
            let known = capacity_of(&world, &pool.provider);
            let mut nodes = known.nodes;
            let needs = pool.needs.iter().map(|(what, units)| (what.clone(), *units)).collect();
            let more = if by == By::One { 1 } else { 99 };
            for number in 0..more {
                let name = NodeName::new(&format!("zz-{number}-{}", nodes.len())).unwrap();
                nodes.insert(name, BTreeMap::clone(&needs));
            }
            world.apply(&[Change::Capacity(pool.provider.clone(), Some(Capacity { nodes }))]);
        }
        Reason::TenantAtCap { tenant, cap } => {
            let mut terms = Terms { cap: *cap, ..terms_of(&world, tenant) };
            terms.cap = lifted(*cap, held_by(&world, tenant), by);
            fleet.tenants.by_id.insert(tenant.clone(), terms);
        }
        Reason::BackingOff { what, .. } => mend(&mut world, what, by),
        Reason::Proving { what } => world.apply(&[Change::Backoff(what.clone(), None)]),
        Reason::BehindOlder => forget(&mut world, waiting, |other| {
            let place = |job: &Job| (job.attempt.queued_at, job.key.clone());
            other.tenant == job.tenant && place(other) < place(&job)
        }),
        Reason::BehindOthers(_) => forget(&mut world, waiting, |other| other.tenant != job.tenant),
        Reason::RunnerStarting(_) | Reason::RunnerIdle(_) => panic!("a runner is no obstacle"),
    }
    world.fleet = Arc::new(fleet);
    world
}

fn with_job(world: &mut Snapshot, mut job: Job, change: impl FnOnce(&mut Job)) {
    change(&mut job);
    world.apply(&[Change::Job(Box::new(job))]);
}

fn capacity_of(world: &Snapshot, provider: &ProviderName) -> Capacity {
    let known = world.capacities().find(|(name, _)| *name == provider);
    known.map(|(_, capacity)| capacity.clone()).unwrap()
}

fn terms_of(world: &Snapshot, tenant: &TenantKey) -> Terms {
    let met = world.tenants().find(|met| met.tenant.key == *tenant);
    world.fleet.tenants.terms(tenant, met)
}

/// Runners of a tenant, by the owner of their scope: no account is renamed in these worlds.
fn held_by(world: &Snapshot, tenant: &TenantKey) -> usize {
    let login = &world.tenants().find(|met| met.tenant.key == *tenant).unwrap().tenant.login;
    world.active_runners().filter(|runner| runner.scope.owner() == login).count()
}

/// What failed works again, or at least the wait is over.
fn mend(world: &mut Snapshot, what: &BackoffKey, by: By) {
    let same_owner = |key: &BackoffKey| match (key, what) {
        (BackoffKey::Scope(_, one), BackoffKey::Scope(_, other)) => one.owner() == other.owner(),
        (one, other) => one == other,
    };
    let now = world.now;
    let over: Vec<_> = world.backoffs().filter(|(key, _)| same_owner(key)).collect();
    let over = over.into_iter().filter(|(key, it)| *key == what || it.full);
    let over = over.map(|(key, it)| {
        let passed = Backoff { until: now, ..it.clone() };
        Change::Backoff(key.clone(), (by == By::All).then_some(passed))
    });
    let mut changes: Vec<Change> = over.collect();
    if let BackoffKey::Scope(forge, _) = what {
        changes.push(Change::Limited(forge.clone(), now));
    }
    world.apply(&changes);
}

/// Those of the waiting jobs that `is` true of are gone.
fn forget(world: &mut Snapshot, waiting: &BTreeSet<JobKey>, is: impl Fn(&Job) -> bool) {
    let gone = waiting.iter().filter(|key| world.job(key).is_some_and(&is));
    let gone: Vec<Change> = gone.map(|key| Change::ForgetJob(key.clone())).collect();
    world.apply(&gone);
}

/// Reasons that hide others: nothing is looked at behind them.
fn hides(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::HeldByForge | Reason::UnknownToForge { .. } | Reason::NoPoolHasLabels { .. }
    )
}

/// What every reason of the job says must be true.
fn are_true(world: &Snapshot, job: &Job, depth: u32) -> Result<(), TestCaseError> {
    let mut planned = world.clone();
    planned.apply(&plan(world).changes);
    let world = &planned;
    let told = reasons(&plan(world), job);
    prop_assert!(!told.is_empty(), "job {} waits and nobody says why", job.key);
    if served(&told) {
        return Ok(());
    }
    prop_assert!(!told.iter().any(is_coming), "{told:?}");
    let together = without_all(world, job, &told, By::One);
    let left = reasons(&plan(&together), job);
    if told.iter().any(hides) {
        prop_assert!(left.is_disjoint(&told), "job {}: {told:?} and then {left:?}", job.key);
        if depth > 0 {
            are_true(&together, job, depth - 1)?;
        }
        return Ok(());
    }
    prop_assert!(served(&left), "job {}: {told:?} lifted and yet {left:?}", job.key);
    for reason in &told {
        let alone = without(world, job, reason, By::All);
        let left = reasons(&plan(&alone), job);
        prop_assert!(!left.contains(reason), "job {}: without {reason:?} still {left:?}", job.key);
        if depth > 0 {
            are_true(&alone, job, depth - 1)?;
        }
    }
    queued_behind(world, job, &told)
}

/// Who is behind others in the one pool that fits is not served by one more place before they are.
fn queued_behind(
    world: &Snapshot,
    job: &Job,
    told: &BTreeSet<Reason>,
) -> Result<(), TestCaseError> {
    let is_behind =
        |reason: &Reason| matches!(reason, Reason::BehindOlder | Reason::BehindOthers(_));
    let counted = |reason: &Reason| {
        matches!(reason, Reason::PoolFull(_) | Reason::TenantAtCap { .. })
            || matches!(reason, Reason::ProviderFull(name)
                if world.fleet.providers[name].max.is_some()
                    && !world.backoffs().any(|(key, _)| *key == BackoffKey::Provider(name.clone())))
    };
    let limits: Vec<&Reason> = told.iter().filter(|reason| !is_behind(reason)).collect();
    let fit = world.fleet.pools.values().filter(|pool| {
        job.wanted.satisfied_by(&pool.labels)
            && (pool.scopes.is_empty() || pool.scopes.contains(&job.scope))
    });
    let one_pool = fit.count() == 1;
    if limits.iter().all(|reason| counted(reason)) && one_pool {
        for kept in told.iter().filter(|reason| is_behind(reason)) {
            let rest = told.iter().filter(|reason| *reason != kept);
            let lifted = without_all(world, job, rest, By::One);
            let left = reasons(&plan(&lifted), job);
            prop_assert!(!served(&left), "job {}: {told:?}, but {kept:?} is untrue", job.key);
        }
    }
    Ok(())
}

/// A runner that a job counts on can take it, and nobody else counts on it.
fn counted_on_once(world: &Snapshot, plan: &Plan) -> Result<(), TestCaseError> {
    let mut planned = world.clone();
    planned.apply(&plan.changes);
    let mut counted = BTreeSet::new();
    for wait in &plan.waits {
        let job = world.job(&wait.job).unwrap();
        for reason in wait.reasons.iter() {
            let (Reason::RunnerStarting(id) | Reason::RunnerIdle(id)) = reason else { continue };
            let runner = planned.runner(*id).unwrap();
            let idle = matches!(reason, Reason::RunnerIdle(_));
            prop_assert!(counted.insert(*id), "{id} is counted on twice");
            prop_assert!(runner.scope == job.scope && job.wanted.satisfied_by(&runner.labels));
            prop_assert_eq!(idle, runner.state == RunnerState::Idle);
            prop_assert!(runner.state <= RunnerState::Idle);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_reason_names_is_what_stands_in_the_way(is in worlds()) {
        let books = is.books();
        let first = plan(&books);
        counted_on_once(&books, &first)?;
        let mut planned = books;
        planned.apply(&first.changes);
        for wait in &first.waits {
            let job = planned.job(&wait.job).unwrap().clone();
            // What a plan tells is true of the world that it makes.
            let told = reasons(&first, &job);
            let still = reasons(&plan(&planned), &job);
            prop_assert!(served(&told) && served(&still) || told == still, "{told:?}, {still:?}");
            are_true(&planned, &job, 1)?;
        }
    }
}

#[test]
fn every_code_of_a_job_comes_up_in_these_worlds() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let mut seen = BTreeSet::new();
    for _ in 0..2000 {
        let books = worlds().new_tree(&mut runner).unwrap().current().books();
        seen.extend(plan(&books).waits.iter().flat_map(|w| w.reasons.iter().map(Reason::code)));
    }
    let codes = remuda_core::explain::CODES;
    let of_jobs = codes.iter().filter(|code| code.about == remuda_core::explain::About::Job);
    let missing: Vec<_> =
        of_jobs.map(|code| code.name).filter(|code| !seen.contains(code)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
