//! Caps, room, failures and the forge's patience: what may be tried, how often, and who pays.

use remuda_core::Action;
use remuda_core::observation::{Call, Cause, Subject};
use remuda_core::runner::RunnerState;
use remuda_core::tenant::OwnerKind;

use crate::world::{World, at, forge, queued, scope};

/// Lets time pass in steps of two seconds, answering each call as `respond` says.
fn lives(
    world: &mut World,
    seconds: u64,
    mut respond: impl FnMut(&mut World, &Action),
) -> Vec<Action> {
    let mut all = Vec::new();
    for _ in 0..seconds / 2 {
        world.passes(2);
        for call in world.actions() {
            respond(world, &call);
            all.push(call);
        }
    }
    all
}

fn launches(calls: &[Action]) -> usize {
    calls.iter().filter(|call| matches!(call, Action::Launch(_))).count()
}

// A38
#[test]
fn demand_that_is_met_asks_for_nothing() {
    let mut world = World::new("pool small labels=x max=9");
    world.hears(queued(1, "x"));
    world.actions();
    world.passes(1);
    world.comes_online(1);
    assert_eq!((world.calls().len(), world.why(1)), (0, vec!["runner_idle"]));
}

// A31, A38: supply is what could still take a job, so two jobs need two.
#[test]
fn each_job_needs_a_runner_that_is_not_yet_at_work() {
    let mut world = World::new("pool small labels=x max=9");
    for id in 1..=3 {
        world.hears(queued(id, "x"));
    }
    assert_eq!(world.runners_of("small"), 3);
}

// A39
#[test]
fn without_room_on_any_node_nothing_is_made_and_the_job_is_told() {
    let mut world = World::new("pool small labels=x needs=cpu:2 max=9");
    world.has_nodes("one", "a=cpu:3 b=cpu:2");
    for id in 1..=3 {
        world.hears(queued(id, "x"));
    }
    assert_eq!((world.runners_of("small"), world.why(3)), (2, vec!["no_node_has_room"]));
}

// A39
#[test]
fn a_pool_and_a_provider_have_no_more_than_their_max() {
    let mut world = World::new(
        "
        pool small labels=x max=2 provider=one
        pool large labels=y max=9 provider=one
        provider one max=3
    ",
    );
    for id in 1..=3 {
        world.hears(queued(id, "x"));
        world.hears(queued(10 + id, "y"));
    }
    assert_eq!((world.runners_of("small"), world.runners_of("large")), (2, 1));
    assert_eq!(
        (world.why(3), world.why(13)),
        (vec!["pool_full", "provider_full"], vec!["provider_full", "behind_older"])
    );
}

// A40
#[test]
fn a_tenant_has_no_more_than_its_cap() {
    let mut world = World::new("pool small labels=x max=99");
    for id in 1..=25 {
        world.hears(queued(id, "x"));
    }
    assert_eq!((world.runners_of("small"), world.why(21)), (20, vec!["tenant_at_cap"]));
    assert_eq!(world.why(25), ["tenant_at_cap", "behind_older"]);
}

// W19
#[test]
fn a_personal_cap_covers_all_repositories_of_the_user() {
    let mut world = World::new("pool small labels=x max=99\n tenant solo cap=2");
    for (id, repository) in [(1, "repo:solo/a"), (2, "repo:solo/b"), (3, "repo:solo/c")] {
        world.hears(queued(id, "x").of(repository));
    }
    assert_eq!((world.runners_of("small"), world.why(3)), (2, vec!["tenant_at_cap"]));
}

// W19
#[test]
fn a_user_and_an_organization_with_one_number_are_two_tenants() {
    let mut world = World::new("pool small labels=x max=99\n tenant acme cap=1");
    world.hears(queued(1, "x"));
    world.hears(queued(2, "x"));
    world.hears(queued(3, "x").of("repo:solo/app"));
    let tenants = world.books().tenants().map(|met| (met.tenant.key.kind, met.tenant.key.id));
    assert_eq!(tenants.collect::<Vec<_>>(), [(OwnerKind::User, 7), (OwnerKind::Organization, 7)]);
    assert_eq!((world.why(2), world.why(3)), (vec!["tenant_at_cap"], vec!["runner_starting"]));
}

// A draining or stopping runner still has its instance.
#[test]
fn a_runner_that_is_leaving_counts_until_it_is_gone() {
    let mut world = World::new("pool small labels=x max=1");
    world.hears(queued(1, "x"));
    world.launched(1);
    world.actions();
    world.passes(300);
    assert_eq!((world.runner_is(1), world.why(1)), ("draining", vec!["pool_full", "backing_off"]));
    world.passes(60);
    world.deregistered(1);
    assert_eq!((world.runner_is(1), world.why(1)), ("stopping", vec!["pool_full"]));
    world.destroyed(1);
    assert_eq!(world.why(1), ["runner_starting"]);
}

// W29
#[test]
fn a_scope_whose_calls_fail_holds_up_no_other() {
    let mut world = World::new("pool small labels=x max=9");
    world.hears(queued(1, "x"));
    world.hears(queued(2, "x").of("org:other"));
    world.actions();
    let failing = |subject: &Subject| {
        matches!(subject,
        Subject::Jobs(_, of) | Subject::Runners(_, of) if *of == scope("org:acme"))
    };
    let calls = lives(&mut world, 3600, |world, call| {
        let subject = call.subject();
        if failing(&subject) {
            world.fails(subject, Call::Look, Cause::Transient);
        } else if let Subject::Jobs(..) = subject {
            world.lists_jobs("org:other", vec![queued(2, "x").of("org:other")]);
        }
    });
    let failed = calls.iter().filter(|call| failing(&call.subject())).count();
    let other = Subject::Jobs(forge(), scope("org:other"));
    let listed = calls.iter().filter(|call| call.subject() == other).count();
    assert!(failed < 60, "{failed} calls that fail");
    assert!(listed >= 29, "{listed} listings of the other");
}

// W29, R11
#[test]
fn a_limit_that_one_owner_met_holds_back_nobody_else() {
    let mut world = World::new("pool small labels=x max=9");
    world.hears(queued(1, "x"));
    world.launch_fails(1, Call::Register, Cause::Limited { until: at(3600) });
    world.actions();
    world.hears(queued(2, "x"));
    world.hears(queued(3, "x").of("org:other"));
    assert_eq!(world.why(2), ["backing_off", "behind_older"]);
    assert_eq!(world.why(3), ["runner_starting"]);
    assert_eq!(world.calls(), ["launch 2 of small"]);
    let calls = lives(&mut world, 600, |_, _| ());
    let mine = |call: &&Action| {
        matches!(call.subject(),
        Subject::Jobs(_, of) | Subject::Runners(_, of) if of == scope("org:acme"))
    };
    assert_eq!(calls.iter().filter(mine).count(), 0);
}

// W32, W31, A41
#[test]
fn a_tenant_whose_registrations_always_fail_is_tried_seldom_and_keeps_its_cap() {
    let mut world = World::new(
        "
        pool small labels=x max=99
        provider one launches=4
    ",
    );
    for id in 1..=100 {
        world.hears(queued(id, "x"));
    }
    let mut most = 0;
    let calls = lives(&mut world, 3600, |world, call| match call {
        Action::Launch(launch) => {
            most = most.max(world.runners_of("small"));
            world.fails(Subject::Instance(launch.instance), Call::Register, Cause::Invalid);
        }
        Action::Deregister(_) | Action::Destroy(_) | Action::Redeliver(_) | Action::Look(_) => {}
    });
    assert!(launches(&calls) <= 25, "{} registrations in an hour", launches(&calls));
    assert!(most <= 20, "{most} runners at once");
    // Somebody else is served at once.
    world.hears(queued(200, "x").of("org:other"));
    assert_eq!(world.calls().len(), 1);
}

/// Makes every runner come online and end at once, for an hour.
fn crash_loop(online: bool) -> usize {
    let mut world = World::new("pool small labels=x max=4");
    world.hears(queued(1, "x"));
    let mut live: Vec<u64> = Vec::new();
    world.now = at(-2);
    let calls = lives(&mut world, 3600, |world, call| match call {
        Action::Launch(launch) => {
            let id = launch.runner.0;
            if online {
                world.comes_online(id);
            } else {
                world.launched(id);
            }
            live.push(id);
            world.passes(1);
            world.lists_instances("one", &[], &live);
        }
        Action::Deregister(call) => {
            let runner = world.books().runner_named(&call.name).unwrap().id;
            world.deregistered(runner.0);
        }
        Action::Destroy(call) => {
            live.retain(|id| *id != call.instance.0);
            world.destroyed(call.instance.0);
        }
        Action::Redeliver(_) | Action::Look(_) => {}
    });
    launches(&calls)
}

// W33
#[test]
fn a_crash_loop_is_waited_out_longer_each_time() {
    for online in [false, true] {
        let launches = crash_loop(online);
        assert!((5..30).contains(&launches), "{launches} launches, online: {online}");
    }
}

// W33
#[test]
fn after_failures_one_runner_is_tried_before_the_others() {
    let mut world = World::new("pool small labels=x max=9");
    world.hears(queued(1, "x"));
    world.launched(1);
    world.passes(300);
    for id in 2..=5 {
        world.hears(queued(id, "x"));
    }
    world.actions();
    world.passes(5);
    assert_eq!(world.calls().iter().filter(|call| call.starts_with("launch")).count(), 1);
    assert_eq!((world.why(1), world.why(2)), (vec!["runner_starting"], vec!["proving"]));
    // What came online holds up nobody, though it has no job yet.
    world.comes_online(2);
    assert_eq!(world.calls(), ["launch 3 of small"]);
    assert_eq!(world.books().backoffs().count(), 1);
    world.hears(crate::world::runs(1, "x").on(2, "small"));
    assert_eq!((world.calls().len(), world.books().backoffs().count()), (3, 0));
}

// W33
#[test]
fn what_was_planned_before_a_failure_waits_with_it() {
    let mut world = World::new(
        "
        pool small labels=x max=9
        provider one launches=1
    ",
    );
    for id in 1..=5 {
        world.hears(queued(id, "x"));
    }
    assert_eq!(world.calls(), ["launch 1 of small"]);
    world.launch_fails(1, Call::Launch, Cause::Full);
    world.passes(1);
    assert_eq!(world.calls().iter().filter(|call| call.starts_with("launch")).count(), 0);
    assert_eq!(world.why(1), ["provider_full"]);
    world.passes(2);
    assert_eq!(world.calls().iter().filter(|call| call.starts_with("launch")).count(), 1);
}

// W33
#[test]
fn what_was_planned_before_a_failure_goes_to_another_pool_at_once() {
    let mut world = World::new(
        "
        pool first labels=x max=9 provider=one
        pool other labels=x,y max=9 provider=two
        provider one launches=1
    ",
    );
    for id in 1..=3 {
        world.hears(queued(id, "x"));
    }
    assert_eq!(world.calls(), ["launch 1 of first"]);
    world.launch_fails(1, Call::Launch, Cause::Full);
    let launched = world.calls().into_iter().filter(|call| call.starts_with("launch"));
    assert_eq!(launched.count(), 3);
    assert_eq!(world.runners_of("other"), 3);
}

#[test]
fn a_full_provider_sends_the_job_to_the_next_pool() {
    let mut world = World::new(
        "
        pool first labels=x max=9 provider=one
        pool other labels=x,y max=9 provider=two
    ",
    );
    world.hears(queued(1, "x"));
    assert_eq!(world.calls(), ["launch 1 of first"]);
    world.launch_fails(1, Call::Launch, Cause::Full);
    assert!(world.calls().contains(&"launch 2 of other".into()));
}

#[test]
fn a_launch_that_failed_after_a_listing_showed_its_instance_made_it_all_the_same() {
    let mut world = World::new("pool small labels=x max=9");
    world.hears(queued(1, "x"));
    world.lists_instances("one", &[1], &[]);
    world.launch_fails(1, Call::Launch, Cause::Transient);
    assert_eq!(world.runner(1).state, RunnerState::Starting);
}
