//! Reasons are true: take away what they name, and the job is served.
//!
//! For small worlds of every kind, and each job that waits: whatever each of its reasons names is taken
//! away, alone and together, and the plan is made anew. Taken away together, by one runner's worth each,
//! the job must be served. Taken away alone, the job is served or that reason is gone, and what remains
//! must again be true of the world as it is then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use remuda_core::budget::Budget;
use remuda_core::fleet::Terms;
use remuda_core::job::{Job, JobKey, JobState, Trust};
use remuda_core::label::Wanted;
use remuda_core::name::{NodeName, PoolName, ProviderName};
use remuda_core::pool::{Audience, Capacity, Pool};
use remuda_core::reason::{BackoffKey, Reason};
use remuda_core::runner::RunnerState;
use remuda_core::snapshot::{Backoff, Change, Note};
use remuda_core::tenant::TenantKey;
use remuda_core::{Plan, Snapshot, plan};

use crate::small::worlds;
use crate::world::seconds;

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
        Reason::BackingOff { what, .. } | Reason::Quarantined { what, .. } => {
            mend(&mut world, what, by);
        }
        Reason::Drained { what, .. } => world.apply(&[Change::Drain(what.clone(), None)]),
        Reason::Proving { what } => world.apply(&[Change::Backoff(what.clone(), None)]),
        Reason::Gathering { .. } => no_company(&mut world, &job),
        Reason::BehindOlder => {
            // Who is alone after them may have to wait for company: that is another question.
            no_company(&mut world, &job);
            forget(&mut world, waiting, |other| {
                let place = |job: &Job| (job.attempt.queued_at, job.key.clone());
                other.tenant == job.tenant && place(other) < place(&job)
            });
        }
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
    if let BackoffKey::Scope(..) = what {
        let refilled = world.budgets().map(|(forge, credential, budget)| {
            let full = Budget { remaining: budget.limit, ..*budget };
            Change::Note(Note::Budget(forge.clone(), credential.clone(), full))
        });
        changes.extend(refilled.collect::<Vec<_>>());
    }
    world.apply(&changes);
}

/// The jobs of the kind have waited long enough for company.
fn no_company(world: &mut Snapshot, job: &Job) {
    let alike = |other: &&Job| {
        (&other.tenant, &other.scope, &other.wanted, other.trust)
            == (&job.tenant, &job.scope, &job.wanted, job.trust)
    };
    let mut alike: Vec<Job> = world.jobs().filter(alike).cloned().collect();
    for job in &mut alike {
        job.accepted_at = world.now - seconds(9999);
    }
    world.apply(&alike.into_iter().map(|job| Change::Job(Box::new(job))).collect::<Vec<_>>());
}

/// Those of the waiting jobs that `is` true of are gone.
fn forget(world: &mut Snapshot, waiting: &BTreeSet<JobKey>, is: impl Fn(&Job) -> bool) {
    let gone = waiting.iter().filter(|key| world.job(key).is_some_and(&is));
    let gone: Vec<Change> = gone.map(|key| Change::ForgetJob(key.clone())).collect();
    world.apply(&gone);
}

/// True if some pool waits for company for its jobs.
fn gathers(world: &Snapshot) -> bool {
    world.fleet.pools.values().any(|pool| pool.gather.jobs > 1)
}

/// Reasons that hide others: nothing is looked at behind them. Who is trusted at last is of another kind,
/// and may be one too many or too few of it for a pool that waits for company.
fn hides(world: &Snapshot, reason: &Reason) -> bool {
    match reason {
        Reason::HeldByForge | Reason::UnknownToForge { .. } | Reason::NoPoolHasLabels { .. } => {
            true
        }
        Reason::TrustUnknown(_) | Reason::NotTrusted(_) => gathers(world),
        _ => false,
    }
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
    if told.iter().any(|reason| hides(world, reason)) {
        let untold = |reason: &&Reason| hides(world, reason) && left.contains(*reason);
        let again = told.iter().find(untold);
        prop_assert!(again.is_none(), "job {}: {told:?} and then {left:?}", job.key);
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
            // What a plan tells is true of the world that it makes; but a runner may then be counted on
            // by an older job that waited for company, and the younger one waits in its place.
            let told = reasons(&first, &job);
            let still = reasons(&plan(&planned), &job);
            let same = served(&told) && served(&still) || told == still;
            prop_assert!(same || gathers(&planned), "{told:?}, {still:?}");
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
