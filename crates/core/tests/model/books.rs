//! Books that are out of order are found out, and a controller keeps them by the rules that the stories
//! tell.

use std::sync::Arc;

use remuda_core::check::Violation;
use remuda_core::controller::{Controller, Seen};
use remuda_core::fleet::Fleet;
use remuda_core::observation::{Call, Cause, Observation, Subject};
use remuda_core::runner::{
    Instance, InstanceId, InstanceState, Outcome, Runner, RunnerId, RunnerState,
};
use remuda_core::{Change, Snapshot, check};

use crate::world::{World, ended, queued, runs};

/// Runner 1 is at work, runner 2 idles.
fn sound() -> Snapshot {
    let mut world = World::new("pool small labels=x max=2");
    for id in 1..=2 {
        world.hears(queued(id, "x"));
        world.comes_online(id);
    }
    world.hears(runs(1, "x").on(1, "small"));
    world.books().clone()
}

fn spoil_runner(books: &mut Snapshot, id: u64, spoil: impl Fn(&mut Runner)) {
    let mut runner = books.runner(RunnerId(id)).unwrap().clone();
    spoil(&mut runner);
    books.apply(&[Change::Runner(Box::new(runner))]);
}

fn spoil_instance(books: &mut Snapshot, id: u64, spoil: impl Fn(&mut Instance)) {
    let mut instance = books.instance(InstanceId(id)).unwrap().clone();
    spoil(&mut instance);
    books.apply(&[Change::Instance(Box::new(instance))]);
}

fn limit(books: &mut Snapshot, limit: impl Fn(&mut Fleet)) {
    let mut fleet = Fleet::clone(&books.fleet);
    limit(&mut fleet);
    books.fleet = fleet.into();
}

/// A way to spoil the books, and what is then to be found.
type Fault = (fn(&mut Snapshot), Violation);

fn found_alone(faults: &[Fault]) {
    assert_eq!(check(&sound()), []);
    for (spoil, found) in faults {
        let mut books = sound();
        spoil(&mut books);
        assert_eq!(check(&books), std::slice::from_ref(found));
    }
}

fn moves(books: &mut Snapshot, id: u64, state: RunnerState, outcome: Option<Outcome>) {
    let now = books.now;
    spoil_runner(books, id, |runner| runner.enter(state, outcome, now));
}

fn numbers(books: &mut Snapshot, runner: u64, instance: u64) {
    let (runner, instance) = (RunnerId(runner), InstanceId(instance));
    books.apply(&[Change::Next { runner, instance }]);
}

#[test]
fn a_runners_row_that_is_out_of_order_is_found() {
    let (one, two) = (RunnerId(1), RunnerId(2));
    let job = sound().runner(one).unwrap().job.clone().unwrap();
    found_alone(&[
        (
            |books| spoil_runner(books, 1, |runner| runner.instance = InstanceId(0)),
            Violation::RunnerWithoutInstance(one),
        ),
        (
            |books| spoil_runner(books, 1, |runner| runner.instance = InstanceId(2)),
            Violation::RunnerWithoutInstance(one),
        ),
        (
            |books| moves(books, 2, RunnerState::Gone, Some(Outcome::Surplus)),
            Violation::GoneWithInstance(two, InstanceId(2)),
        ),
        (|books| moves(books, 2, RunnerState::Stopping, None), Violation::EndWithoutOutcome(two)),
        (
            |books| spoil_runner(books, 2, |runner| runner.state = RunnerState::Draining),
            Violation::StateWithoutTime(two),
        ),
        (|books| numbers(books, 2, 3), Violation::NumberReused(two)),
        (|books| numbers(books, 3, 2), Violation::NumberReused(two)),
        (
            |books| {
                let job = books.runner(RunnerId(1)).unwrap().job.clone();
                spoil_runner(books, 2, |runner| runner.job.clone_from(&job));
                moves(books, 2, RunnerState::Busy, None);
            },
            Violation::JobOnTwoRunners(job),
        ),
    ]);
}

#[test]
fn an_instance_without_its_call_and_one_too_many_are_found() {
    found_alone(&[
        (
            |books| spoil_instance(books, 2, |instance| instance.launch = None),
            Violation::InstanceWithoutLaunch(InstanceId(2)),
        ),
        (
            |books| limit(books, |fleet| fleet.pools.values_mut().for_each(|pool| pool.max = 1)),
            Violation::PoolOverMax("small".parse().unwrap(), 2),
        ),
        (
            |books| {
                limit(books, |fleet| fleet.providers.values_mut().for_each(|p| p.max = Some(1)));
            },
            Violation::ProviderOverMax("one".parse().unwrap(), 2),
        ),
    ]);
}

#[test]
fn two_runners_of_one_name_are_found() {
    let mut books = sound();
    let name = books.runner(RunnerId(1)).unwrap().name.clone();
    spoil_runner(&mut books, 2, |runner| runner.name.clone_from(&name));
    assert_eq!(check(&books), [Violation::NameReused(RunnerId(1))]);
}

#[test]
fn what_is_planned_or_has_ended_breaks_no_invariant() {
    let mut books = sound();
    spoil_instance(&mut books, 2, |instance| {
        (instance.state, instance.launch) = (InstanceState::Planned, None);
    });
    // Its job is over, so another runner may be called busy with it.
    let job = books.runner(RunnerId(1)).unwrap().job.clone();
    let now = books.now;
    spoil_runner(&mut books, 1, |runner| runner.job_ended_at = Some(now));
    spoil_runner(&mut books, 2, |runner| {
        runner.job.clone_from(&job);
        runner.enter(RunnerState::Busy, None, now);
    });
    assert_eq!(check(&books), []);
}

#[test]
fn a_controller_without_rules_of_its_own_does_as_the_stories_tell() {
    let mut told = World::new("pool small labels=x max=2 min_idle=1 scopes=org:acme");
    let mut plain = Controller::new(told.disk.clone());
    let fact = |told: &World, job: crate::world::Told| {
        Seen::Fact(Observation::Job(Box::new(job.delivered(told.now))))
    };
    let subject = Subject::Instance(InstanceId(1));
    let failed = Observation::Failed {
        subject: subject.clone(),
        call: Call::Launch,
        cause: Cause::Transient,
        message: Arc::from("virtual failure"),
    };
    let mut begun = 0;
    for step in 0..400 {
        let seen = match step {
            1 => vec![fact(&told, queued(1, "x"))],
            2 => vec![Seen::Answer { subject: subject.clone(), facts: vec![failed.clone()] }],
            20 => vec![fact(&told, runs(1, "x").on(1, "small"))],
            90 => vec![fact(&told, ended(1, "x").on(1, "small"))],
            _ => Vec::new(),
        };
        let turn = plain.turn(told.now, seen.clone());
        begun += turn.actions.len();
        assert_eq!(turn.batch, told.turn(seen), "step {step}");
        assert_eq!(turn.actions, told.actions(), "step {step}");
        told.now = told.now + crate::world::seconds(1);
    }
    assert!(begun > 10 && plain.world() == told.books());
}
