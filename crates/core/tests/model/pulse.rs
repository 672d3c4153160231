//! When the outside is looked at, and how often.

use remuda_core::action::Look;
use remuda_core::controller::Seen;
use remuda_core::observation::{Order, Subject};
use remuda_core::{Action, Observation};

use crate::world::{World, at, fleet, forge, queued, runs, scope};

/// A world that looks after a scope before anybody told of it.
fn declared() -> World {
    let mut fleet = fleet("pool small labels=linux max=2");
    for forge in fleet.forges.values_mut() {
        forge.scopes.push(scope("org:acme"));
    }
    World::of(fleet)
}

// A49
#[test]
fn with_nothing_declared_and_nothing_told_the_forge_is_left_alone() {
    let mut world = World::new("pool small labels=linux max=2");
    world.passes(3600);
    assert_eq!(world.looks(), ["instances of one"]);
}

// W16
#[test]
fn a_job_whose_delivery_was_lost_is_found_by_listing() {
    let mut world = declared();
    world.passes(1);
    assert!(world.looks().contains(&"jobs of org:acme".into()));
    world.lists_jobs("org:acme", vec![queued(1, "linux")]);
    assert_eq!(world.calls(), ["launch 1 of small"]);
    world.passes(119);
    assert!(!world.looks().contains(&"jobs of org:acme".into()));
    world.passes(1);
    assert!(world.looks().contains(&"jobs of org:acme".into()));
}

/// After how many seconds a scope's registrations are listed again.
fn listed_every(world: &mut World, online: &[u64]) -> u64 {
    world.lists_runners("org:acme", online);
    world.actions();
    let again = |world: &mut World| {
        world.passes(1);
        world.looks().contains(&"runners of org:acme".into())
    };
    (1..=3600).find(|_| again(world)).expect("they are listed within the hour")
}

#[test]
fn registrations_are_listed_the_more_often_the_more_is_awaited_there() {
    let mut world = declared();
    assert_eq!(listed_every(&mut world, &[]), 600);
    // An instance that no row explains may have a registration anywhere.
    world.lists_instances("one", &[7], &[]);
    world.sees(Observation::Order(Order::Confirm));
    assert!(world.books().orphans().count() == 1 && world.books().recovering().is_none());
    assert_eq!(listed_every(&mut world, &[]), 60);
    world.lists_instances("one", &[], &[]);
    world.hears(queued(1, "linux"));
    assert_eq!(world.runner_is(8), "pending");
    assert_eq!(listed_every(&mut world, &[]), 60);
    world.launched(8);
    assert_eq!(listed_every(&mut world, &[]), 10);
    assert_eq!((listed_every(&mut world, &[8]), world.runner_is(8)), (60, "idle"));
}

// W16
#[test]
fn a_job_that_a_listing_lacks_is_read_and_not_assumed_over() {
    let mut world = declared();
    world.hears(queued(1, "linux"));
    world.passes(10);
    world.actions();
    world.lists_jobs("org:acme", vec![]);
    assert_eq!((world.job_is(1), world.looks()), ("queued", vec!["read 1".into()]));
}

// W28
#[test]
fn five_hundred_jobs_cost_fewer_calls_than_an_hour_allows() {
    // The listing of open jobs fails all the time, so that only single reads tell.
    for listed in [true, false] {
        let mut world = World::new("pool small labels=linux max=2");
        for id in 1..=500 {
            world.hears(runs(id, "linux"));
        }
        world.actions();
        let mut forge_calls = 0;
        for _ in 0..720 {
            world.passes(5);
            for call in world.actions() {
                let Action::Look(look) = &call else { continue };
                match look {
                    Look::Job { key, .. } => {
                        world.reads(runs(key.native, "linux"));
                    }
                    Look::Jobs { .. } if listed => {
                        let all = (1..=500).map(|id| runs(id, "linux")).collect();
                        world.lists_jobs("org:acme", all);
                    }
                    Look::Runners { .. } => {
                        world.lists_runners("org:acme", &[]);
                    }
                    Look::Deliveries { .. } => unreachable!("no hook is declared"),
                    Look::Instances { .. } => {
                        world.lists_instances("one", &[], &[]);
                        continue;
                    }
                    Look::Jobs { .. } => {
                        let (call, cause) = (
                            remuda_core::observation::Call::Look,
                            remuda_core::observation::Cause::Transient,
                        );
                        world.fails(look.subject(), call, cause);
                    }
                }
                forge_calls += 1;
            }
        }
        let most = if listed { 100 } else { 3200 };
        assert!(forge_calls < most, "{forge_calls} calls in an hour, listed: {listed}");
    }
}

// W28
#[test]
fn a_doubtful_job_is_read_at_once_and_then_ever_more_seldom() {
    let mut world = World::new("pool small labels=linux max=2");
    world.hears(queued(1, "linux"));
    world.passes(1);
    world.lists_jobs("org:acme", vec![]);
    world.actions();
    let mut reads = 0;
    for _ in 0..3600 {
        world.passes(1);
        if world.looks().contains(&"read 1".into()) {
            reads += 1;
            world.misses(1);
        }
    }
    assert!((5..20).contains(&reads), "{reads} reads in an hour");
}

#[test]
fn a_hint_is_followed_at_once() {
    let mut world = declared();
    world.passes(1);
    world.lists_jobs("org:acme", vec![]);
    world.actions();
    let subject = Subject::Jobs(forge(), scope("org:acme"));
    world.turn(vec![Seen::Hint(subject)]);
    assert_eq!(world.looks(), ["jobs of org:acme"]);
}

#[test]
fn a_hint_that_comes_during_a_look_is_followed_by_another_look() {
    let mut world = declared();
    world.passes(1);
    assert!(world.looks().contains(&"jobs of org:acme".into()));
    world.turn(vec![Seen::Hint(Subject::Jobs(forge(), scope("org:acme")))]);
    assert_eq!(world.looks(), [] as [&str; 0]);
    // What was asked before the hint may not show what it was about.
    world.lists_jobs("org:acme", vec![]);
    assert_eq!(world.looks(), ["jobs of org:acme"]);
    world.lists_jobs("org:acme", vec![]);
    assert_eq!(world.looks(), [] as [&str; 0]);
}

#[test]
fn one_call_is_in_flight_per_subject() {
    let mut world = declared();
    for _ in 0..100 {
        world.passes(1);
    }
    let looks = world.looks();
    assert_eq!(looks.iter().filter(|look| *look == "jobs of org:acme").count(), 1);
}

#[test]
fn looks_that_hang_do_not_hold_up_removals() {
    let mut world = World::new("pool small labels=linux max=2");
    world.hears(queued(1, "linux"));
    world.comes_online(1);
    for id in 100..300 {
        world.hears(runs(id, "linux"));
    }
    world.passes(650);
    let looks = world.looks().len();
    assert!(looks < 64, "{looks} looks");
    world.hears(crate::world::ended(1, "linux"));
    world.passes(1);
    assert_eq!(world.calls(), ["deregister remuda-test-small-1"]);
}

#[test]
fn what_was_answered_leaves_no_trace_that_would_grow() {
    let mut world = World::new("pool small labels=linux max=2");
    world.hears(queued(1, "linux"));
    world.comes_online(1);
    world.hears(crate::world::ended(1, "linux"));
    world.passes(300);
    world.deregistered(1);
    world.destroyed(1);
    let key = world.job(1).key.clone();
    world.passes(8 * 86_400);
    let books = world.books();
    for subject in [
        Subject::Runner(remuda_core::runner::RunnerId(1)),
        Subject::Instance(remuda_core::runner::InstanceId(1)),
        Subject::Job(key),
    ] {
        assert_eq!(books.looked(&subject), remuda_core::snapshot::Looked::default());
    }
    assert_eq!(
        (books.jobs().count(), books.runners().count(), books.instances().count()),
        (0, 0, 0)
    );
}

#[test]
fn a_job_read_again_after_failures_has_none_left() {
    let mut world = World::new("pool small labels=linux max=2");
    world.hears(runs(1, "linux"));
    world.passes(601);
    let subject = Subject::Job(world.job(1).key.clone());
    let (call, cause) =
        (remuda_core::observation::Call::Look, remuda_core::observation::Cause::Transient);
    world.fails(subject.clone(), call, cause);
    assert_eq!(world.books().looked(&subject).failures, 1);
    let seen = runs(1, "linux").read(world.now);
    world.answered(subject.clone(), vec![Observation::Job(Box::new(seen))]);
    assert_eq!(world.books().looked(&subject).failures, 0);
}

#[test]
fn a_listing_of_jobs_that_are_as_they_were_costs_no_write() {
    let mut world = World::new("pool small labels=linux max=2");
    let told = |from: u64| -> Vec<_> {
        (from..2000).map(|id| queued(id, "linux")).chain([runs(2001, "linux")]).collect()
    };
    world.lists_jobs("org:acme", told(0));
    world.passes(120);
    let batch = world.lists_jobs("org:acme", told(0));
    let written: Vec<_> = batch.changes.iter().filter(|change| change.is_durable()).collect();
    assert!(batch.is_idle(), "{written:?} {:?}", batch.events);
    // What was seen is known, and what changes is written, with all that was seen.
    assert_eq!(world.job(7).attempt.fact_at, at(120));
    world.passes(120);
    world.lists_jobs("org:acme", told(1));
    assert_eq!(world.disk.job(&world.job(0).key).unwrap().attempt.fact_at, at(120));
    assert!(world.job(0).doubt.is_some() && world.job(1).doubt.is_none());
}

// W28
#[test]
fn after_a_restart_jobs_are_listed_before_any_is_read() {
    let mut world = World::new("pool small labels=linux max=2");
    for id in 1..=100 {
        world.hears(runs(id, "linux"));
    }
    let all = || (1..=100).map(|id| runs(id, "linux")).collect();
    for _ in 0..20 {
        world.passes(120);
        world.lists_jobs("org:acme", all());
    }
    world.passes(1);
    world.restarts();
    world.passes(1);
    let looks = world.looks();
    assert!(looks.contains(&"jobs of org:acme".into()));
    assert!(!looks.iter().any(|look| look.starts_with("read")), "{looks:?}");
    world.lists_jobs("org:acme", all());
    world.passes(1);
    assert_eq!(world.looks(), Vec::<String>::new());
}
