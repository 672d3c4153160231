//! What holds whatever happens: over arbitrary facts in arbitrary order.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use remuda_core::controller::Seen;
use remuda_core::job::{Attempt, JobKey, JobState};
use remuda_core::label::LabelSet;
use remuda_core::name::PoolName;
use remuda_core::observation::{
    Call, Cause, Condition, Covered, InstanceSeen, Observation, Order, RunnerSeen, Subject,
};
use remuda_core::reason::Reason;
use remuda_core::runner::{InstanceState, RunnerId, RunnerState};
use remuda_core::snapshot::Change;
use remuda_core::{Snapshot, Timestamp, check, observe, plan, settle};

use crate::world::{Told, World, at, forge, job, labels, queued, scope};

const FLEET: &str = "
    pool small labels=linux max=3 provider=one needs=cpu:1
    pool rvv labels=linux,rvv max=2 provider=one needs=cpu:2
    pool arm labels=arm max=2 min_idle=1 scopes=org:acme provider=two
    pool arm-rest labels=arm max=2 provider=two
    provider one max=4 launches=3
    provider two launches=2
    tenant acme cap=4
";
const POOLS: [&str; 4] = ["small", "rvv", "arm", "arm-rest"];
const SCOPES: [&str; 3] = ["org:acme", "org:other", "repo:solo/app"];
const WANTED: [&str; 6] = ["linux", "RVV linux", "rvv", "arm", "", "gpu"];

/// Something that may happen. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Delivered { id: u64, state: JobState, runner: Option<Index> },
    Read { id: u64, state: JobState, runner: Option<Index>, age: u64 },
    Missing { id: u64 },
    Listed { scope: usize, open: Vec<(u64, JobState)> },
    Registrations { scope: usize, seen: Vec<(Index, bool)>, age: u64 },
    Instances { one: bool, seen: Vec<(Index, bool)>, age: u64 },
    Launched(Index),
    LaunchFailed(Index, Call, Cause),
    Deregistered(Index),
    Busy(Index),
    Destroyed(Index),
    CallFailed(Index),
    Ordered(Index, bool),
    Passes(u64),
    Restarts,
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = 0..20_u64;
    let state = || select(JobState::ALL.to_vec());
    let runner = || prop::option::of(any::<Index>());
    let age = || select(vec![0, 0, 0, 3, 90, 1000]);
    let seen = || prop::collection::vec((any::<Index>(), any::<bool>()), 0..6);
    let call = select(vec![Call::Register, Call::Launch]);
    let cause = select(vec![
        Cause::Full,
        Cause::Transient,
        Cause::Unknown,
        Cause::Invalid,
        Cause::Limited { until: at(500) },
    ]);
    let span = select(vec![0, 1, 5, 11, 61, 130, 310, 700, 4000, 90_000]);
    let open = prop::collection::vec((id.clone(), state()), 0..5);
    let step = prop_oneof![
        6 => id.clone().prop_map(|id| Step::Delivered { id, state: JobState::Queued, runner: None }),
        4 => (id.clone(), state(), runner())
            .prop_map(|(id, state, runner)| Step::Delivered { id, state, runner }),
        2 => (id.clone(), state(), runner(), age())
            .prop_map(|(id, state, runner, age)| Step::Read { id, state, runner, age }),
        1 => id.prop_map(|id| Step::Missing { id }),
        1 => (0..3_usize, open).prop_map(|(scope, open)| Step::Listed { scope, open }),
        3 => (0..3_usize, seen(), age())
            .prop_map(|(scope, seen, age)| Step::Registrations { scope, seen, age }),
        3 => (any::<bool>(), seen(), age())
            .prop_map(|(one, seen, age)| Step::Instances { one, seen, age }),
        4 => any::<Index>().prop_map(Step::Launched),
        2 => (any::<Index>(), call, cause)
            .prop_map(|(index, call, cause)| Step::LaunchFailed(index, call, cause)),
        2 => any::<Index>().prop_map(Step::Deregistered),
        1 => any::<Index>().prop_map(Step::Busy),
        2 => any::<Index>().prop_map(Step::Destroyed),
        1 => any::<Index>().prop_map(Step::CallFailed),
        1 => (any::<Index>(), any::<bool>()).prop_map(|(index, hold)| Step::Ordered(index, hold)),
        6 => span.prop_map(Step::Passes),
        1 => Just(Step::Restarts),
    ];
    prop::collection::vec(step, 0..60)
}

/// One of the runners there are.
fn some_runner(world: &World, index: Index) -> Option<RunnerId> {
    let all: Vec<RunnerId> = world.books().runners().map(|runner| runner.id).collect();
    (!all.is_empty()).then(|| all[index.index(all.len())])
}

/// What is told of job `id`; its labels and scope follow from its number.
fn told(world: &World, id: u64, state: JobState, runner: Option<Index>) -> Told {
    let wanted = WANTED[usize::try_from(id).unwrap() % WANTED.len()];
    let scope = SCOPES[usize::try_from(id).unwrap() / 8];
    let told = job(id, state, wanted).of(scope);
    match runner.and_then(|index| some_runner(world, index)) {
        Some(runner) => told.on(runner.0, world.runner(runner.0).pool.as_str()),
        None => told,
    }
}

/// The facts that a step brings, as of the world's instant.
fn facts(world: &World, step: &Step) -> Vec<Observation> {
    let one = |fact| vec![fact];
    let on = |index: &Index, fact: fn(&World, RunnerId) -> Observation| {
        some_runner(world, *index).map_or(Vec::new(), |id| vec![fact(world, id)])
    };
    match step {
        Step::Delivered { id, state, runner } => {
            let seen = told(world, *id, *state, *runner).delivered(world.now);
            one(Observation::Job(Box::new(seen)))
        }
        Step::Read { id, state, runner, age } => {
            let seen = told(world, *id, *state, *runner).read(ago(world, *age));
            one(Observation::Job(Box::new(seen)))
        }
        Step::Missing { id } => {
            one(Observation::JobMissing { key: JobKey::rest(&forge(), *id), asked_at: world.now })
        }
        Step::Listed { .. } | Step::Registrations { .. } | Step::Instances { .. } => {
            listing(world, step).into_iter().collect()
        }
        Step::Launched(index) => some_runner(world, *index).map_or(Vec::new(), |id| {
            let instance = world.runner(id.0).instance;
            let registered = Observation::Registered { runner: id, id: 1000 + id.0 };
            let begun = world.books().instance(instance).unwrap().launch.is_some();
            let launched = Observation::Launched { instance, node: None };
            if begun { vec![registered, launched] } else { Vec::new() }
        }),
        Step::LaunchFailed(index, call, cause) => {
            some_runner(world, *index).map_or(Vec::new(), |id| {
                let subject = Subject::Instance(world.runner(id.0).instance);
                let message = "refused".into();
                vec![Observation::Failed { subject, call: *call, cause: *cause, message }]
            })
        }
        Step::Deregistered(index) => {
            on(index, |_, id| Observation::Deregistered { subject: Subject::Runner(id) })
        }
        Step::Busy(index) => {
            on(index, |_, id| Observation::DeregisterBusy { subject: Subject::Runner(id) })
        }
        Step::Destroyed(index) => on(index, |world, id| {
            let (instance, asked_at) = (world.runner(id.0).instance, world.now);
            Observation::Destroyed { instance, asked_at }
        }),
        Step::CallFailed(index) => on(index, |_, id| Observation::Failed {
            subject: Subject::Runner(id),
            call: Call::Deregister,
            cause: Cause::Transient,
            message: "refused".into(),
        }),
        Step::Ordered(index, hold) => some_runner(world, *index).map_or(Vec::new(), |runner| {
            let (who, why) = ("someone".into(), "to look".into());
            let hold = hold.then_some(Order::Hold { runner, who, why });
            vec![Observation::Order(hold.unwrap_or(Order::DrainRunner { runner }))]
        }),
        Step::Passes(_) | Step::Restarts => Vec::new(),
    }
}

/// The listing that a step brings.
fn listing(world: &World, step: &Step) -> Option<Observation> {
    match step {
        Step::Listed { scope: index, open } => {
            let all = open.iter().map(|(id, state)| told(world, *id, *state, None));
            let all = all.map(|told| told.read(world.now)).collect();
            let (forge, scope, asked_at) = (forge(), scope(SCOPES[*index]), world.now);
            Some(Observation::Jobs { forge, scope, asked_at, all, covered: Covered::Whole })
        }
        Step::Registrations { scope: index, seen, age } => {
            let all = seen.iter().filter_map(|(index, online)| {
                let id = some_runner(world, *index)?;
                let (name, online) = (world.runner(id.0).name.clone(), *online);
                Some(RunnerSeen { id: 1000 + id.0, name, online, busy: false })
            });
            let (all, asked_at) = (all.collect(), ago(world, *age));
            let (forge, scope) = (forge(), scope(SCOPES[*index]));
            Some(Observation::Runners { forge, scope, asked_at, all })
        }
        Step::Instances { one: first, seen, age } => {
            let all = seen.iter().filter_map(|(index, running)| {
                let runner = world.runner(some_runner(world, *index)?.0);
                let exited = Condition::Exited(None);
                let condition = if *running { Condition::Running } else { exited };
                let (id, runner) = (runner.instance, Some(runner.name.clone()));
                Some(InstanceSeen { id, runner, node: None, condition })
            });
            let (all, asked_at) = (all.collect(), ago(world, *age));
            let provider = if *first { "one" } else { "two" }.parse().unwrap();
            Some(Observation::Instances { provider, asked_at, all })
        }
        Step::Delivered { .. }
        | Step::Read { .. }
        | Step::Missing { .. }
        | Step::Launched(_)
        | Step::LaunchFailed(..)
        | Step::Deregistered(_)
        | Step::Busy(_)
        | Step::Destroyed(_)
        | Step::CallFailed(_)
        | Step::Ordered(..)
        | Step::Passes(_)
        | Step::Restarts => None,
    }
}

fn ago(world: &World, age: u64) -> Timestamp {
    world.now - std::time::Duration::from_secs(age)
}

fn happen(world: &mut World, step: &Step) {
    match step {
        Step::Passes(span) => {
            world.passes(*span);
        }
        Step::Restarts => world.restarts(),
        Step::Delivered { .. }
        | Step::Read { .. }
        | Step::Missing { .. }
        | Step::Listed { .. }
        | Step::Registrations { .. }
        | Step::Instances { .. }
        | Step::Launched(_)
        | Step::LaunchFailed(..)
        | Step::Deregistered(_)
        | Step::Busy(_)
        | Step::Destroyed(_)
        | Step::CallFailed(_)
        | Step::Ordered(..) => {
            let facts = facts(world, step).into_iter().map(Seen::Fact).collect();
            world.turn(facts);
        }
    }
}

pub(crate) fn lived(steps: &[Step]) -> World {
    let mut world = World::new(FLEET);
    for step in steps {
        happen(&mut world, step);
    }
    world
}

/// The books of a world that has seen this too, and has not planned since.
fn seen(world: &World, last: &[Step]) -> Snapshot {
    let mut books = world.books().clone();
    for fact in last.iter().flat_map(|step| facts(world, step)) {
        books.apply(&observe(&books, &fact));
    }
    books
}

/// The world with these changes, and what `settle` still has to say.
fn settled(mut world: Snapshot) -> (Snapshot, usize) {
    for round in 0..50 {
        let changes = settle(&world);
        if changes.is_empty() {
            return (world, round);
        }
        world.apply(&changes);
    }
    panic!("settling does not end: {:?}", settle(&world));
}

/// The first row that two worlds do not share.
fn difference(a: &Snapshot, b: &Snapshot) -> Option<String> {
    let rows = |world: &Snapshot| {
        let jobs = world.jobs().map(|row| format!("{row:?}"));
        let runners = world.runners().map(|row| format!("{row:?}"));
        let instances = world.instances().map(|row| format!("{row:?}"));
        let backoffs = world.backoffs().map(|row| format!("{row:?}"));
        let strays = world.strays().map(|row| format!("{row:?}"));
        let all = jobs.chain(runners).chain(instances);
        all.chain(backoffs).chain(strays).collect::<Vec<_>>()
    };
    let (left, right) = (rows(a), rows(b));
    let first = left.iter().zip(&right).find(|(left, right)| left != right);
    if let Some((left, right)) = first {
        return Some(format!("{left}\n{right}"));
    }
    (a != b).then(|| "rows that are not durable, or more rows".into())
}

/// The books but for registrations that runners now gone have left: the listing in which a runner goes is
/// the last that it explains, so the same listing, told again, notes its registration as a stray.
fn without_leftovers(world: &World) -> Snapshot {
    let mut books = world.books().clone();
    let gone = |name| books.runner_named(name).is_none_or(|row| row.state == RunnerState::Gone);
    let left = books.strays().filter(|(_, stray)| gone(&stray.name));
    let left: Vec<Change> = left.map(|(key, _)| Change::Stray(key.clone(), None)).collect();
    books.apply(&left);
    books
}

fn in_pool(world: &Snapshot) -> BTreeMap<&str, usize> {
    let mut count = BTreeMap::new();
    for instance in world.instances().filter(|row| row.state < InstanceState::Gone) {
        *count.entry(instance.pool.as_str()).or_default() += 1;
    }
    count
}

fn at_provider(world: &Snapshot) -> BTreeMap<&str, usize> {
    let mut count = BTreeMap::new();
    for instance in world.instances().filter(|row| row.state < InstanceState::Gone) {
        *count.entry(instance.provider.as_str()).or_default() += 1;
    }
    count
}

/// Runners by whose job they have, or else by who owns the scope they are in.
fn of_owner(world: &Snapshot) -> BTreeMap<&str, usize> {
    let mut count = BTreeMap::new();
    for runner in world.runners().filter(|row| row.state < RunnerState::Gone) {
        let job = runner.job.as_ref().and_then(|job| world.job(job));
        let scope = job.map_or(&runner.scope, |job| &job.scope);
        *count.entry(scope.owner().as_str()).or_default() += 1;
    }
    count
}

/// What deliveries of one attempt say, without when they were taken in.
fn told_of(attempt: &Attempt) -> impl PartialEq + std::fmt::Debug + use<> {
    let Attempt { number, state, runner, conclusion, .. } = attempt.clone();
    let times = (attempt.queued_at, attempt.started_at, attempt.completed_at);
    (number, state, runner, conclusion, times)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn deliveries_of_one_attempt_fold_to_one_result_in_any_order(
        some in subsequence(JobState::ALL.to_vec(), 1..=4),
        order in Just((0..8_usize).collect::<Vec<_>>()).prop_shuffle(),
        bare in any::<bool>(),
    ) {
        // Each is delivered twice; what the forge says of the runner may be missing at the end.
        let fold = |order: Vec<usize>| {
            let mut world = World::new(FLEET);
            world.hears(queued(50, "linux"));
            world.comes_online(1);
            for index in order {
                let state = some[index % some.len()];
                let told = job(3, state, "linux");
                let named = state >= JobState::InProgress && (state < JobState::Completed || !bare);
                world.passes(1);
                world.hears(if named { told.on(1, "small") } else { told });
            }
            let runner = world.runner(1);
            let on_it = runner.job.as_ref().is_some_and(|key| key.native == 3);
            (told_of(&world.job(3).attempt), on_it, runner.job_ended_at.is_some())
        };
        prop_assert_eq!(fold((0..8).collect()), fold(order));
    }

    #[test]
    fn what_is_delivered_twice_counts_once(steps in steps()) {
        let mut once = World::new(FLEET);
        let mut twice = World::new(FLEET);
        for step in &steps {
            let seen: Vec<Seen> = facts(&once, step).into_iter().map(Seen::Fact).collect();
            happen(&mut once, step);
            happen(&mut twice, step);
            let repeated = matches!(step, Step::Delivered { .. } | Step::Launched(_)
                | Step::Registrations { .. } | Step::Instances { .. } | Step::Deregistered(_));
            once.turn(Vec::new());
            twice.turn(if repeated { seen } else { Vec::new() });
            let (once, twice) = (without_leftovers(&once), without_leftovers(&twice));
            prop_assert_eq!(difference(&once, &twice), None);
        }
    }

    #[test]
    fn a_fact_folded_in_twice_changes_nothing_the_second_time(steps in steps(), last in steps()) {
        let world = lived(&steps);
        for step in last.iter().filter(|step| !matches!(step,
            // Failures, denials and doubtful reads are counted: each is an answer of its own.
            Step::LaunchFailed(..) | Step::CallFailed(_) | Step::Missing { .. } | Step::Read { .. }
            | Step::Listed { .. }))
        {
            for fact in facts(&world, step) {
                let mut books = world.books().clone();
                books.apply(&observe(&books, &fact));
                let again = observe(&books, &fact);
                let before = books.clone();
                books.apply(&again);
                prop_assert_eq!(difference(&before, &books), None, "{:?}", fact);
            }
        }
    }

    #[test]
    fn states_never_move_left_and_the_books_stay_in_order(steps in steps()) {
        let mut world = World::new(FLEET);
        for step in &steps {
            let mut before = world.disk.clone();
            if matches!(step, Step::Restarts) {
                world.restarts();
                continue;
            }
            let seen = facts(&world, step).into_iter().map(Seen::Fact).collect();
            let batch = match step {
                Step::Passes(span) => world.passes(*span),
                Step::Restarts
                | Step::Delivered { .. }
                | Step::Read { .. }
                | Step::Missing { .. }
                | Step::Listed { .. }
                | Step::Registrations { .. }
                | Step::Instances { .. }
                | Step::Launched(_)
                | Step::LaunchFailed(..)
                | Step::Deregistered(_)
                | Step::Busy(_)
                | Step::Destroyed(_)
                | Step::CallFailed(_)
                | Step::Ordered(..) => world.turn(seen),
            };
            for change in &batch.changes {
                if let Change::Runner(new) = change
                    && let Some(old) = before.runner(new.id)
                {
                    prop_assert!(new.state >= old.state, "runner {:?} → {:?}", old.state, new.state);
                }
                if let Change::Job(new) = change
                    && let Some(old) = before.job(&new.key)
                {
                    let (old, new) = (&old.attempt, &new.attempt);
                    prop_assert!((new.number, new.state) >= (old.number, old.state));
                }
                if let Change::Instance(new) = change
                    && let Some(old) = before.instance(new.id)
                {
                    prop_assert!(new.state >= old.state);
                }
                before.apply(std::slice::from_ref(change));
            }
            prop_assert_eq!(check(world.books()), []);
            prop_assert_eq!(check(&world.disk), []);
        }
    }

    #[test]
    fn settling_ends_and_has_nothing_to_add(steps in steps(), last in steps()) {
        let (books, rounds) = settled(seen(&lived(&steps), &last));
        prop_assert!(rounds <= 3, "{rounds} rounds");
        prop_assert_eq!(settle(&books), []);
    }

    #[test]
    fn a_plan_keeps_every_limit(steps in steps(), last in steps()) {
        let (books, _) = settled(seen(&lived(&steps), &last));
        let mut planned = books.clone();
        planned.apply(&plan(&books).changes);
        for (pool, count) in in_pool(&planned) {
            let max = books.fleet.pools[&pool.parse().unwrap()].max;
            prop_assert!(count <= usize::try_from(max).unwrap(), "pool {pool} has {count}");
        }
        for (provider, count) in at_provider(&planned) {
            let max = books.fleet.providers[&provider.parse().unwrap()].max.unwrap_or(u32::MAX);
            prop_assert!(count <= usize::try_from(max).unwrap(), "{provider} has {count}");
        }
        for (owner, count) in of_owner(&planned) {
            let cap = books.fleet.tenants.terms_of(&forge(), &owner.parse().unwrap()).cap;
            // The steps may hand one owner's job to another's runner, which no forge does.
            let before = of_owner(&books).get(owner).copied().unwrap_or(0);
            prop_assert!(count <= before.max(usize::try_from(cap).unwrap()), "{owner} has {count}");
        }
    }

    #[test]
    fn every_job_that_asks_is_served_or_told_why_not(steps in steps(), last in steps()) {
        let (books, _) = settled(seen(&lived(&steps), &last));
        let plan = plan(&books);
        for job in books.jobs().filter(|job| job.attempt.state <= JobState::Queued) {
            let waits: Vec<_> = plan.waits.iter().filter(|wait| wait.job == job.key).collect();
            prop_assert_eq!(waits.len(), 1, "job {}", &job.key);
            prop_assert!(!waits[0].reasons.is_empty());
        }
        for wait in &plan.waits {
            prop_assert!(books.job(&wait.job).is_some_and(|job| job.attempt.state <= JobState::Queued));
        }
    }

    #[test]
    fn no_younger_job_takes_what_an_older_one_could_have_had(steps in steps(), last in steps()) {
        let (books, _) = settled(seen(&lived(&steps), &last));
        let plan = plan(&books);
        let place = |key: &JobKey| books.job(key).map(|job| (job.attempt.queued_at, key.clone()));
        let made = |reason: &Reason| {
            let Reason::RunnerStarting(id) = reason else { return None };
            books.runner(*id).is_none().then_some(*id)
        };
        let mut planned = books.clone();
        planned.apply(&plan.changes);
        let coming = |reason: &Reason| matches!(reason,
            Reason::RunnerStarting(_) | Reason::RunnerIdle(_));
        for blocked in plan.waits.iter().filter(|wait| !wait.reasons.iter().any(coming)) {
            let older = books.job(&blocked.job).unwrap();
            if !older.is_demand() {
                continue;
            }
            for wait in plan.waits.iter().filter(|wait| place(&wait.job) > place(&blocked.job)) {
                for id in wait.reasons.iter().filter_map(made) {
                    let new = planned.runner(id).unwrap();
                    let usable = new.scope == older.scope && older.wanted.satisfied_by(&new.labels);
                    prop_assert!(!usable, "runner {id} for job {} passes job {}", wait.job, blocked.job);
                }
            }
        }
    }

    #[test]
    fn planning_the_planned_world_again_changes_nothing(steps in steps(), last in steps()) {
        let (mut books, _) = settled(seen(&lived(&steps), &last));
        books.apply(&plan(&books).changes);
        prop_assert_eq!(plan(&books).changes, []);
    }

    #[test]
    fn a_restart_asks_for_the_same_world(steps in steps()) {
        let world = lived(&steps);
        let mut again = world.clone();
        again.restarts();
        // Everything durable is the same but what follows from the restart's own planning. That a job
        // was seen unchanged is remembered, not stored.
        for job in world.books().jobs() {
            let mut kept = again.job(job.key.native).clone();
            prop_assert!(kept.attempt.fact_at <= job.attempt.fact_at);
            kept.attempt.fact_at = job.attempt.fact_at;
            prop_assert_eq!(job, &kept);
        }
        prop_assert_eq!(world.books().jobs().count(), again.books().jobs().count());
        for runner in world.books().runners() {
            prop_assert_eq!(Some(&runner.name), again.books().runner(runner.id).map(|r| &r.name));
        }
    }

    #[test]
    fn label_sets_are_ordered_by_what_they_satisfy(
        a in prop::collection::vec("[a-dA-D]", 0..4),
        b in prop::collection::vec("[a-dA-D]", 0..4),
        c in prop::collection::vec("[a-dA-D]", 0..4),
    ) {
        let set = |words: &[String]| LabelSet::parse(words).unwrap();
        let both: Vec<String> = a.iter().chain(&b).cloned().collect();
        let (a, b, c, both) = (set(&a), set(&b), set(&c), set(&both));
        prop_assert!(a.satisfies(&a) && a.satisfies(&labels("")));
        prop_assert!(both.satisfies(&a) && both.satisfies(&b));
        prop_assert!(!(a.satisfies(&b) && b.satisfies(&c)) || a.satisfies(&c));
        prop_assert_eq!(a.satisfies(&b) && b.satisfies(&a), a == b);
        let loud: Vec<String> = a.iter().map(|label| label.as_str().to_uppercase()).collect();
        prop_assert_eq!(set(&loud), a);
    }
}

#[test]
fn the_fleet_of_the_properties_is_as_written() {
    let world = World::new(FLEET);
    let pools: Vec<&str> = world.books().fleet.pools.keys().map(PoolName::as_str).collect();
    let mut expected = POOLS.to_vec();
    expected.sort_unstable();
    assert_eq!(pools, expected);
}
