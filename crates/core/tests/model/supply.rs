//! A runner's life, from the intent to the end of its instance.

use remuda_core::observation::{
    Call, Cause, Condition, InstanceSeen, Observation, Order, RunnerSeen, StrayRegistration,
    Subject,
};
use remuda_core::runner::{InstanceState, Outcome, RunnerId, RunnerState};

use remuda_core::snapshot::Change;

use crate::world::{World, at, ended, fleet, queued, runs, scope, seconds};

const SMALL: &str = "pool small labels=linux max=2";

/// A world with one job and its runner online.
fn one_idle() -> World {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "linux"));
    world.comes_online(1);
    world.actions();
    world
}

/// A world with one job on its runner.
fn one_busy() -> World {
    let mut world = one_idle();
    world.hears(runs(1, "linux").on(1, "small"));
    world
}

// A33, A36, A41, W34
#[test]
fn a_launch_is_written_down_before_it_is_begun() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "linux"));
    assert_eq!(world.calls(), ["launch 1 of small"]);
    let written = world.disk.instance(world.runner(1).instance).unwrap();
    assert_eq!(written.state, InstanceState::Launching);
    assert_eq!(written.launch.unwrap().deadline, at(60));
}

// A34, W34
#[test]
fn a_second_controller_over_the_same_books_does_not_launch_again() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "linux"));
    world.restarts();
    world.passes(30);
    assert_eq!((world.calls().len(), world.runners_of("small")), (0, 1));
    // The first one's call landed: a listing adopts what it made.
    world.lists_instances("one", &[1], &[]);
    assert_eq!((world.runner_is(1), world.calls().len()), ("starting", 0));
}

// W34
#[test]
fn a_launch_that_died_with_its_controller_is_replaced_once_it_cannot_land_any_more() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "linux"));
    world.restarts();
    world.lists_instances("one", &[], &[]);
    assert_eq!(world.runner_is(1), "pending");
    world.passes(61);
    world.lists_instances("one", &[], &[]);
    assert_eq!(world.runner_is(1), "pending");
    world.passes(61);
    world.lists_instances("one", &[], &[]);
    assert_eq!(
        (world.runner_is(1), world.runner(1).outcome),
        ("draining", Some(Outcome::LaunchLost))
    );
    world.passes(3);
    assert!(world.calls().contains(&"launch 2 of small".into()));
}

// A36, A37
#[test]
fn a_runner_registers_where_its_job_came_from() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "linux"));
    world.hears(queued(2, "linux").of("repo:solo/app"));
    assert_eq!(world.runner(1).scope, scope("org:acme"));
    assert_eq!(world.runner(2).scope, scope("repo:solo/app"));
}

// A35, A42
#[test]
fn a_finished_runner_is_destroyed_and_its_row_stays_for_a_while() {
    let mut world = one_busy();
    world.hears(ended(1, "linux").on(1, "small"));
    world.lists_instances("one", &[], &[1]);
    assert_eq!(world.calls(), ["destroy 1"]);
    world.destroyed(1);
    assert_eq!((world.runner_is(1), world.runner(1).outcome), ("gone", Some(Outcome::Finished)));
    assert_eq!(world.runner(1).job.as_ref().unwrap().native, 1);
    world.passes(3601);
    assert_eq!(world.books().runners().count(), 0);
}

// A43
#[test]
fn a_runner_at_work_is_left_alone() {
    let mut world = one_busy();
    for _ in 0..100 {
        world.passes(60);
        world.lists_instances("one", &[1], &[]);
        world.lists_runners("org:acme", &[1]);
    }
    assert_eq!((world.runner_is(1), world.calls().len()), ("busy", 0));
}

// A44
#[test]
fn a_destruction_that_fails_is_tried_again_and_closes_nothing() {
    let mut world = one_busy();
    world.hears(ended(1, "linux").on(1, "small"));
    world.lists_instances("one", &[], &[1]);
    assert_eq!(world.calls(), ["destroy 1"]);
    world.fails(Subject::Instance(world.runner(1).instance), Call::Destroy, Cause::Transient);
    assert_eq!((world.runner_is(1), world.calls().len()), ("stopping", 0));
    world.passes(3);
    assert_eq!(world.calls(), ["destroy 1"]);
}

#[test]
fn an_instance_that_is_listed_after_its_destruction_is_destroyed_again() {
    let mut world = one_busy();
    world.hears(ended(1, "linux").on(1, "small"));
    world.lists_instances("one", &[], &[1]);
    let (instance, asked_at) = (world.runner(1).instance, world.now);
    let done = Observation::Destroyed { instance, asked_at };
    world.answered(Subject::Instance(instance), vec![done]);
    assert_eq!(world.calls(), ["destroy 1"]);
    world.passes(14);
    world.lists_instances("one", &[1], &[]);
    assert_eq!(world.calls(), [""; 0]);
    world.passes(1);
    assert_eq!((world.calls(), world.runner_is(1)), (vec!["destroy 1".into()], "stopping"));
}

// W17
#[test]
fn a_runner_that_never_boots_does_not_starve_its_job() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "linux"));
    world.launched(1);
    world.actions();
    world.passes(299);
    assert_eq!((world.calls().len(), world.runner_is(1)), (0, "starting"));
    world.passes(1);
    assert_eq!(world.runner(1).outcome, Some(Outcome::NeverOnline));
    assert_eq!(world.calls(), ["deregister remuda-test-small-1"]);
    world.passes(2);
    assert_eq!(world.calls(), ["launch 2 of small"]);
}

// W17
#[test]
fn an_idle_runner_that_lost_its_registration_does_not_starve_a_job() {
    let mut world = one_idle();
    for _ in 0..3 {
        world.passes(60);
        world.lists_runners("org:acme", &[]);
    }
    assert_eq!(world.runner_is(1), "draining");
    world.passes(3);
    assert!(world.calls().contains(&"launch 2 of small".into()));
}

// W17
#[test]
fn a_job_whose_runner_was_taken_by_another_gets_its_own() {
    let mut world = one_idle();
    world.hears(runs(99, "linux").on(1, "small"));
    assert_eq!((world.runner_is(1), world.calls()), ("busy", vec!["launch 2 of small".into()]));
}

// W17
#[test]
fn a_runner_that_outlives_its_job_gives_its_place_back() {
    let mut world = one_busy();
    world.hears(ended(1, "linux").on(1, "small"));
    world.passes(29);
    assert_eq!((world.runner_is(1), world.calls().len()), ("busy", 0));
    world.passes(1);
    assert_eq!(world.calls(), ["destroy 1"]);
}

// W17, W20
#[test]
fn a_runner_that_died_with_its_job_gives_its_place_back_and_the_job_is_asked_about() {
    let mut world = one_busy();
    world.lists_instances("one", &[], &[1]);
    world.passes(31);
    assert_eq!(world.runner(1).outcome, Some(Outcome::Lost));
    let looks = world.actions();
    assert!(
        looks.iter().any(|call| matches!(call.subject(), Subject::Job(key) if key.native == 1))
    );
}

#[test]
fn a_runner_that_runs_after_it_was_called_ended_keeps_its_job() {
    let mut world = one_busy();
    world.lists_instances("one", &[], &[1]);
    world.passes(29);
    world.lists_instances("one", &[1], &[]);
    world.passes(3600);
    assert_eq!(world.runner_is(1), "busy");
    let earlier = world.now;
    world.passes(1);
    world.lists_instances("one", &[], &[1]);
    let (provider, id) = ("one".parse().unwrap(), world.runner(1).instance);
    let all = vec![InstanceSeen { id, runner: None, node: None, condition: Condition::Running }];
    world.sees(Observation::Instances { provider, asked_at: earlier, all });
    world.passes(31);
    assert_eq!(world.runner(1).outcome, Some(Outcome::Lost), "the newest look is what counts");
}

// W18
#[test]
fn a_runner_whose_job_was_cancelled_is_reaped_when_it_has_idled_long_enough() {
    let mut world = one_idle();
    world.hears(ended(1, "linux"));
    world.passes(299);
    assert_eq!((world.runner_is(1), world.calls().len()), ("idle", 0));
    world.passes(1);
    assert_eq!(world.calls(), ["deregister remuda-test-small-1"]);
    world.deregistered(1);
    assert_eq!(world.calls(), ["destroy 1"]);
    world.destroyed(1);
    assert_eq!(world.runners_of("small"), 0);
}

// W18
#[test]
fn a_runner_whose_launch_was_not_begun_goes_with_its_job() {
    let mut world = World::new(
        "
        pool small labels=linux max=2
        provider one launches=1
    ",
    );
    world.hears(queued(1, "linux"));
    world.hears(queued(2, "linux"));
    assert_eq!(world.calls(), ["launch 1 of small"]);
    world.hears(ended(2, "linux"));
    world.passes(1);
    assert_eq!((world.runner_is(2), world.calls().len()), ("gone", 0));
}

// Architecture invariant 5.
#[test]
fn a_draining_runner_that_got_a_job_is_kept() {
    let mut world = one_idle();
    world.hears(ended(1, "linux"));
    world.passes(300);
    assert_eq!(world.runner_is(1), "draining");
    world.refused_as_busy(1);
    assert_eq!((world.runner_is(1), world.runner(1).outcome), ("busy", None));
    world.hears(runs(2, "linux").on(1, "small"));
    assert_eq!(world.runner(1).job.as_ref().unwrap().native, 2);
    assert!(!world.calls().iter().any(|call| call.starts_with("destroy")));
}

// Decision 5.
#[test]
fn a_busy_runner_that_no_job_explains_is_asked_about_and_never_assumed_idle() {
    let mut world = one_idle();
    world.hears(ended(1, "linux"));
    world.passes(300);
    world.refused_as_busy(1);
    world.actions();
    for _ in 0..3 {
        world.passes(120);
        assert_eq!(world.calls(), ["deregister remuda-test-small-1"]);
        world.refused_as_busy(1);
    }
    world.passes(120);
    world.deregistered(1);
    assert_eq!(world.runner_is(1), "stopping");
}

// W35
#[test]
fn an_empty_listing_of_instances_orphans_nobody() {
    let mut world = one_busy();
    world.hears(queued(2, "linux"));
    world.comes_online(2);
    world.actions();
    world.passes(90);
    world.lists_instances("one", &[], &[]);
    world.passes(90);
    world.lists_instances("one", &[1, 2], &[]);
    world.passes(90);
    world.lists_instances("one", &[], &[]);
    assert_eq!((world.runner_is(1), world.runner_is(2)), ("busy", "idle"));
    assert_eq!(world.calls().len(), 0);
}

// A runner said to be busy may get its job at any time: the limit is the job's, not the rumour's.
#[test]
fn a_limit_on_jobs_counts_from_the_jobs_start() {
    let mut limited = fleet(SMALL);
    limited.pools.values_mut().for_each(|pool| pool.limits.job = Some(seconds(600)));
    let mut world = World::of(limited);
    world.hears(queued(1, "linux"));
    world.comes_online(1);
    world.sees(Observation::Order(Order::DrainRunner { runner: RunnerId(1) }));
    world.refused_as_busy(1);
    for _ in 0..20 {
        world.passes(60);
        world.refused_as_busy(1);
    }
    assert_eq!(world.runner_is(1), "busy");
    let mut begins = runs(1, "linux").on(1, "small");
    begins.0.started_at = Some(world.now);
    world.hears(begins);
    world.passes(599);
    assert_eq!(world.runner_is(1), "busy");
    world.passes(1);
    assert_eq!(
        (world.runner_is(1), world.runner(1).outcome),
        ("stopping", Some(Outcome::TimedOut))
    );
}

// It may be forgotten in the same batch, which is written again where its outcome is not known.
#[test]
fn nothing_more_is_written_of_an_instance_that_is_gone() {
    let mut world = one_busy();
    world.hears(ended(1, "linux").on(1, "small"));
    world.lists_instances("one", &[], &[1]);
    world.destroyed(1);
    let (instance, asked_at) = (world.runner(1).instance, world.now);
    for fact in [
        Observation::Destroyed { instance, asked_at },
        Observation::Launched { instance, node: None },
    ] {
        let batch = world.sees(fact);
        assert!(!batch.changes.iter().any(Change::is_durable), "{:?}", batch.changes);
    }
}

// W35
#[test]
fn an_empty_listing_of_registrations_removes_nobody() {
    let mut world = one_idle();
    world.passes(90);
    world.lists_runners("org:acme", &[]);
    assert_eq!((world.runner_is(1), world.calls().len()), ("idle", 0));
    world.passes(90);
    world.lists_runners("org:acme", &[1]);
    world.passes(90);
    world.lists_runners("org:acme", &[]);
    assert_eq!((world.runner_is(1), world.calls().len()), ("idle", 0));
}

// What a listing lacks is not believed while it lacks a runner that has a job.
#[test]
fn a_listing_of_registrations_that_lacks_a_runner_at_work_removes_nobody() {
    let mut world = two_idle();
    world.hears(runs(1, "linux").on(1, "small"));
    for _ in 0..30 {
        world.passes(60);
        world.lists_instances("one", &[1, 2], &[]);
        world.lists_runners("org:acme", &[]);
    }
    assert_eq!((world.runner_is(2), world.calls().len()), ("idle", 0));
    // One that shows the runner at work may be right about the other.
    for _ in 0..2 {
        world.passes(60);
        world.lists_runners("org:acme", &[1]);
    }
    assert_eq!((world.runner_is(2), world.runner(2).outcome), ("draining", Some(Outcome::Died)));
}

// A runner that has ended its job, or itself, is rightly lacked.
#[test]
fn a_listing_of_registrations_that_lacks_only_those_who_ended_is_believed() {
    for exits in [false, true] {
        let mut world = two_idle();
        world.hears(runs(1, "linux").on(1, "small"));
        world.passes(90);
        if exits {
            world.lists_instances("one", &[2], &[1]);
        } else {
            world.hears(ended(1, "linux").on(1, "small"));
        }
        for _ in 0..2 {
            world.passes(60);
            world.lists_runners("org:acme", &[]);
        }
        assert_eq!(world.runner(2).outcome, Some(Outcome::Died));
    }
}

#[test]
fn a_listing_of_registrations_is_false_only_of_its_own_place_and_time() {
    // Who is at work elsewhere is rightly lacked.
    let mut world = one_idle();
    world.hears(queued(2, "linux").of("repo:solo/app"));
    world.comes_online(2);
    world.hears(runs(2, "linux").of("repo:solo/app").on(2, "small"));
    for _ in 0..2 {
        world.passes(60);
        world.lists_runners("org:acme", &[]);
    }
    assert_eq!(world.runner(1).outcome, Some(Outcome::Died));
    // So is who registered later.
    let mut world = one_idle();
    world.passes(60);
    world.lists_runners("org:acme", &[]);
    world.passes(60);
    let (forge, scope, asked_at) = (crate::world::forge(), scope("org:acme"), world.now);
    world.passes(1);
    world.hears(queued(2, "linux"));
    world.launched(2);
    world.hears(runs(2, "linux").on(2, "small"));
    world.sees(Observation::Runners { forge, scope, asked_at, all: Vec::new() });
    assert_eq!(world.runner(1).outcome, Some(Outcome::Died));
}

// What it lists may still be believed, and what it lacks is not forgotten.
#[test]
fn a_listing_of_registrations_that_lacks_a_runner_at_work_is_believed_in_what_it_shows() {
    let mut world = one_idle();
    world.hears(runs(1, "linux").on(1, "small"));
    world.hears(queued(2, "linux"));
    world.launched(2);
    let (id, name) = (77, "remuda-test-small-1".parse().unwrap());
    let stray = RunnerSeen { id, name, online: false, busy: false };
    let lists = |world: &mut World, all| {
        world.passes(60);
        let (forge, scope, asked_at) = (crate::world::forge(), scope("org:acme"), world.now);
        world.sees(Observation::Runners { forge, scope, asked_at, all });
    };
    lists(&mut world, vec![stray]);
    lists(&mut world, Vec::new());
    assert_eq!(world.books().strays().count(), 1);
    world.lists_runners("org:acme", &[2]);
    assert_eq!((world.runner_is(2), world.books().strays().count()), ("idle", 1));
    world.lists_runners("org:acme", &[1, 2]);
    assert_eq!(world.books().strays().count(), 0);
}

// Architecture invariant 6.
#[test]
fn a_listing_that_a_newer_one_overtook_says_nothing_about_what_it_lacks() {
    let mut world = one_idle();
    world.passes(200);
    world.lists_instances("one", &[1], &[]);
    for age in [100, 10] {
        let (provider, all) = ("one".parse().unwrap(), Vec::new());
        let asked_at = world.now - std::time::Duration::from_secs(age);
        world.sees(Observation::Instances { provider, asked_at, all });
    }
    assert_eq!(world.runner_is(1), "idle");
}

#[test]
fn an_instance_that_is_gone_for_two_looks_is_believed_gone() {
    let mut world = two_idle();
    world.passes(90);
    world.lists_instances("one", &[2], &[]);
    assert_eq!(world.runner_is(1), "idle");
    world.passes(60);
    world.lists_instances("one", &[2], &[]);
    assert_eq!((world.runner_is(1), world.runner(1).outcome), ("draining", Some(Outcome::Died)));
}

/// A world with two runners online.
fn two_idle() -> World {
    let mut world = one_idle();
    world.hears(queued(2, "linux"));
    world.comes_online(2);
    world.actions();
    world
}

// GARM #834: a consolidation that believed one wrong listing.
#[test]
fn a_provider_that_shows_nothing_for_minutes_is_not_believed() {
    let mut world = two_idle();
    for _ in 0..9 {
        world.passes(30);
        world.lists_instances("one", &[], &[]);
    }
    assert_eq!((world.runner_is(1), world.runner_is(2)), ("idle", "idle"));
    world.lists_instances("one", &[1, 2], &[]);
    assert_eq!(world.calls().len(), 0);
}

// The listing lies, and the destruction it was asked before has no effect.
#[test]
fn a_listing_asked_before_a_destruction_does_not_confirm_it() {
    let mut world = one_busy();
    world.passes(30);
    world.lists_instances("one", &[], &[]);
    world.hears(ended(1, "linux").on(1, "small"));
    world.passes(60);
    let (provider, asked_at) = ("one".parse().unwrap(), world.now);
    let (instance, all) = (world.runner(1).instance, Vec::new());
    world.sees(Observation::Destroyed { instance, asked_at: world.now });
    world.sees(Observation::Instances { provider, asked_at, all });
    assert_eq!(world.runner_is(1), "stopping");
    world.passes(1);
    world.lists_instances("one", &[], &[]);
    assert_eq!(world.runner_is(1), "gone");
}

// Numbers alone are anybody's to give.
#[test]
fn a_provider_that_shows_only_a_number_of_ours_shows_nothing() {
    for runner in [None, Some("remuda-other-small-1".parse().unwrap())] {
        let mut world = two_idle();
        for _ in 0..9 {
            world.passes(30);
            let (id, condition) = (world.runner(2).instance, Condition::Running);
            let all = vec![InstanceSeen { id, runner: runner.clone(), node: None, condition }];
            let (provider, asked_at) = ("one".parse().unwrap(), world.now);
            world.sees(Observation::Instances { provider, asked_at, all });
        }
        assert_eq!((world.runner_is(1), world.runner_is(2)), ("idle", "idle"));
    }
}

#[test]
fn a_provider_that_shows_nothing_for_hours_is_not_believed_and_holds_nothing_up() {
    let mut world = two_idle();
    world.hears(runs(1, "linux").on(1, "small"));
    world.hears(ended(2, "linux"));
    for _ in 0..500 {
        world.passes(30);
        world.lists_instances("one", &[], &[]);
        world.lists_runners("org:acme", &[1, 2]);
    }
    assert_eq!((world.runner_is(1), world.runner_is(2)), ("busy", "draining"));
    // The forge's word on the job ends the one, its removal of the registration the other.
    world.hears(ended(1, "linux").on(1, "small"));
    world.passes(31);
    world.deregistered(2);
    for id in [1, 2] {
        world.destroyed(id);
        assert_eq!(world.runner_is(id), "gone");
    }
}

#[test]
fn a_provider_that_shows_nothing_is_believed_of_what_idles_once_the_forge_says_so_too() {
    let mut world = one_idle();
    world.passes(90);
    world.lists_instances("one", &[], &[]);
    world.lists_runners("org:acme", &[]);
    world.passes(60);
    world.lists_runners("org:acme", &[]);
    assert_eq!((world.runner_is(1), world.runner(1).outcome), ("draining", Some(Outcome::Died)));
}

// GARM #834
#[test]
fn a_runner_that_the_forge_has_connected_is_not_lost_however_long_its_provider_says_so() {
    let mut world = two_idle();
    for _ in 0..60 {
        world.passes(30);
        world.lists_instances("one", &[2], &[]);
        world.passes(15);
        world.lists_runners("org:acme", &[1, 2]);
    }
    assert_eq!((world.runner_is(1), world.calls().len()), ("idle", 0));
}

#[test]
fn a_registration_with_our_runners_name_and_another_id_is_not_our_runner() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "linux"));
    world.launched(1);
    let name = world.runner(1).name.clone();
    let seen = RunnerSeen { id: 7, name, online: true, busy: false };
    let listing = |asked_at| {
        let (forge, scope) = (crate::world::forge(), scope("org:acme"));
        Observation::Runners { forge, scope, asked_at, all: vec![seen.clone()] }
    };
    world.sees(listing(world.now));
    assert_eq!((world.runner_is(1), world.books().strays().count()), ("starting", 1));
    world.passes(120);
    world.sees(listing(world.now));
    assert_eq!(world.calls(), ["launch 1 of small", "deregister remuda-test-small-1"]);
    // A job on that one is not on ours either.
    let mut elsewhere = runs(1, "linux").on(1, "small");
    elsewhere.0.runner.as_mut().unwrap().id = 7;
    world.hears(elsewhere);
    assert_eq!(world.runner_is(1), "starting");
}

// Decision 17.
#[test]
fn an_instance_that_no_row_explains_is_destroyed_only_after_its_registration() {
    let mut world = one_idle();
    let older = World::new(SMALL);
    // The books are an older copy: they know neither the runner nor its instance.
    let name = world.runner(1).name.clone();
    world.disk = older.disk.clone();
    let fleet = remuda_core::fleet::Fleet::clone(&world.disk.fleet);
    world.disk.fleet = with_scope(fleet).into();
    world.restarts();
    let listed = |world: &mut World, registered: bool| {
        let seen = RunnerSeen { id: 1001, name: name.clone(), online: true, busy: true };
        let all = registered.then_some(seen).into_iter().collect();
        let (forge, scope, asked_at) = (crate::world::forge(), scope("org:acme"), world.now);
        world.sees(Observation::Runners { forge, scope, asked_at, all });
        world.lists_instances("one", &[1], &[]);
    };
    // Seen once, however long ago, proves nothing; seen again after the grace does.
    listed(&mut world, true);
    world.passes(119);
    assert_eq!(world.calls(), [""; 0]);
    listed(&mut world, true);
    assert_eq!(world.calls(), [""; 0]);
    world.passes(1);
    listed(&mut world, true);
    assert_eq!(world.calls(), ["deregister remuda-test-small-1"]);
    // The forge refuses while a job is on it, and is asked again after the same grace.
    let (forge, scope) = (crate::world::forge(), scope("org:acme"));
    let subject = Subject::from(StrayRegistration { forge, scope, id: 1001 });
    let busy = Observation::DeregisterBusy { subject: subject.clone() };
    world.answered(subject, vec![busy]);
    world.passes(119);
    listed(&mut world, true);
    assert_eq!(world.calls(), [""; 0]);
    world.passes(1);
    assert_eq!(world.calls(), ["deregister remuda-test-small-1"]);
    world.passes(60);
    listed(&mut world, false);
    world.passes(60);
    listed(&mut world, false);
    assert_eq!(world.calls(), ["destroy 1"]);
}

fn with_scope(mut fleet: remuda_core::fleet::Fleet) -> remuda_core::fleet::Fleet {
    for forge in fleet.forges.values_mut() {
        forge.scopes.push(scope("org:acme"));
    }
    fleet
}

// Decision 17: a foreign tag is reported and never touched.
#[test]
fn an_instance_that_carries_another_installations_runner_is_never_destroyed() {
    let mut world = World::of(with_scope(fleet(SMALL)));
    let listed = |world: &mut World, runner: &str| {
        let instance = InstanceSeen {
            id: remuda_core::runner::InstanceId(7),
            runner: remuda_core::name::RunnerName::new(runner).ok(),
            node: None,
            condition: Condition::Running,
        };
        let provider = remuda_core::name::ProviderName::new("one").unwrap();
        let (asked_at, all) = (world.now, vec![instance]);
        world.lists_runners("org:acme", &[]);
        world.sees(Observation::Instances { provider, asked_at, all });
        world.passes(60);
    };
    for _ in 0..10 {
        listed(&mut world, "remuda-other-small-7");
        assert_eq!(world.calls(), [""; 0]);
    }
    assert_eq!(world.books().orphans().count(), 1, "it is reported");
}

#[test]
fn numbers_that_the_outside_knows_are_never_given_again() {
    let mut world = World::new(SMALL);
    world.lists_instances("one", &[41], &[]);
    world.hears(queued(1, "linux"));
    assert_eq!(world.calls(), ["launch 42 of small"]);
}

#[test]
fn a_held_runner_is_not_destroyed() {
    let mut world = one_busy();
    let (runner, who, why) = (RunnerId(1), "ada".into(), "to look".into());
    world.sees(Observation::Order(Order::Hold { runner, who, why }));
    world.hears(ended(1, "linux").on(1, "small"));
    world.passes(3600);
    assert_eq!((world.runner_is(1), world.calls().len()), ("busy", 0));
    world.sees(Observation::Order(Order::Release { runner }));
    assert_eq!(world.calls(), ["destroy 1"]);
}

#[test]
fn idle_runners_are_kept_and_replaced() {
    let mut world = World::new("pool small labels=linux max=3 min_idle=1 scopes=org:acme");
    world.passes(1);
    assert_eq!(world.calls(), ["launch 1 of small"]);
    world.comes_online(1);
    world.hears(queued(1, "linux"));
    assert_eq!(
        (world.why(1), world.calls()),
        (vec!["runner_idle"], vec!["launch 2 of small".into()])
    );
    world.comes_online(2);
    world.hears(runs(1, "linux").on(1, "small"));
    for _ in 0..10 {
        world.passes(60);
        world.lists_runners("org:acme", &[1, 2]);
    }
    assert_eq!((world.runner_is(2), world.calls().len()), ("idle", 0));
    world.passes(86_400);
    assert_eq!(world.runner(2).state, RunnerState::Draining);
    assert_eq!(world.runner(2).outcome, Some(Outcome::Lifetime));
}
