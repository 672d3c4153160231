//! Quarantine, drains, and books that are not the newest: what nothing new is placed on, and until when.

use remuda_core::Action;
use remuda_core::health::is_quarantine;
use remuda_core::observation::{Call, Cause, Condition, InstanceSeen, Observation, Order, Subject};
use remuda_core::reason::{BackoffKey, DrainKey, Reason};
use remuda_core::runner::{InstanceId, Outcome, RunnerId};

use crate::world::{World, ended, forge, queued, runs, scope};

const SMALL: &str = "pool small labels=x max=9";

fn pool(name: &str) -> BackoffKey {
    BackoffKey::Pool(name.parse().unwrap())
}

fn node(name: &str) -> BackoffKey {
    BackoffKey::Node("one".parse().unwrap(), name.parse().unwrap())
}

fn failures(world: &World, key: &BackoffKey) -> u32 {
    world.books().backoffs().find(|(known, _)| *known == key).map_or(0, |(_, found)| found.failures)
}

fn in_quarantine(world: &World, key: &BackoffKey) -> bool {
    let books = world.books();
    books.backoffs().any(|(known, found)| known == key && is_quarantine(books, known, found))
}

/// The next runner is launched on a node and dies before it has a job. Gives how long that took to
/// begin, or nothing if it never did within two hours.
fn next_dies(world: &mut World, on: Option<&str>) -> Option<u64> {
    for waited in 0..7200 {
        for call in world.actions() {
            if let Action::Launch(launch) = call {
                assert!(on.is_none_or(|on| !launch.avoid.contains(&on.parse().unwrap())));
                dies(world, launch.runner.0, on);
                return Some(waited);
            }
        }
        world.passes(1);
    }
    None
}

/// A launched runner dies before it has a job, and is cleared away.
fn dies(world: &mut World, id: u64, on: Option<&str>) {
    launched_on(world, id, on);
    world.passes(1);
    exits(world, id, 1);
    world.passes(1);
    world.deregistered(id);
    world.destroyed(id);
}

/// A job is queued and its runner, of the same number, runs it on a node.
fn works_on(world: &mut World, id: u64, node: &str) {
    world.hears(queued(id, "x"));
    launched_on(world, id, Some(node));
    world.lists_runners("org:acme", &[id]);
    world.hears(runs(id, "x").on(id, "small"));
    world.actions();
}

fn launched_on(world: &mut World, id: u64, node: Option<&str>) {
    let node = node.map(|node| node.parse().unwrap());
    let facts = vec![
        Observation::Registered { runner: RunnerId(id), id: 1000 + id },
        Observation::Launched { instance: InstanceId(id), node },
    ];
    world.answered(Subject::Instance(InstanceId(id)), facts);
}

/// A listing shows that an instance has ended by itself; the others run.
fn exits(world: &mut World, id: u64, code: i32) {
    let seen = world.books().existing_instances().filter(|row| row.launch.is_some());
    let seen = seen.map(|row| InstanceSeen {
        id: row.id,
        runner: None,
        node: row.node.clone(),
        condition: if row.id == InstanceId(id) {
            Condition::Exited(Some(code))
        } else {
            Condition::Running
        },
    });
    let (all, provider, asked_at) = (seen.collect(), "one".parse().unwrap(), world.now);
    world.sees(Observation::Instances { provider, asked_at, all });
}

/// The nodes that each launch begun since is to avoid.
fn avoided(world: &mut World) -> Vec<Vec<String>> {
    let calls = world.actions();
    let avoided = calls.iter().filter_map(|call| match call {
        Action::Launch(launch) => Some(launch.avoid.iter().map(ToString::to_string).collect()),
        Action::Deregister(_) | Action::Destroy(_) | Action::Redeliver(_) | Action::Look(_) => None,
    });
    avoided.collect()
}

// ARC #4602, AWS-TF #3493: what never works is not tried for ever, and jobs are told.
#[test]
fn a_pool_whose_runners_keep_dying_is_put_in_quarantine_and_the_job_is_told() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "x"));
    for _ in 0..4 {
        next_dies(&mut world, None).unwrap();
    }
    assert!(!in_quarantine(&world, &pool("small")));
    next_dies(&mut world, None).unwrap();
    assert!(in_quarantine(&world, &pool("small")));
    assert_eq!(world.why(1), ["quarantined"]);
    let reasons = world.controller.reasons(&world.job(1).key.clone()).unwrap().1.clone();
    let [Reason::Quarantined { since, until, because, .. }] = &*reasons else { panic!() };
    assert!(*since < *until && until.since(world.now) > crate::world::seconds(280));
    assert_eq!(&**because, "a runner ended before it had a job");
}

#[test]
fn quarantine_grows_to_its_bound_and_tries_one_runner_at_a_time() {
    let mut world = World::new(SMALL);
    for id in 1..=4 {
        world.hears(queued(id, "x"));
    }
    // All four fail together.
    world.actions();
    for id in 1..=4 {
        dies(&mut world, id, None);
    }
    assert_eq!(failures(&world, &pool("small")), 1);
    for _ in 0..4 {
        next_dies(&mut world, None).unwrap();
    }
    let waits: Vec<_> = (0..6).map(|_| next_dies(&mut world, None).unwrap()).collect();
    assert!(waits.is_sorted() && waits[0] > 280 && waits[5] > 3500, "{waits:?}");
    assert!(waits[5] <= 3600, "{waits:?}");
    world.passes(3600);
    let launches = world.calls().into_iter().filter(|call| call.starts_with("launch"));
    assert_eq!((launches.count(), world.why(2)), (1, vec!["proving"]));
}

#[test]
fn a_runner_that_comes_online_ends_no_quarantine_and_one_with_a_job_does() {
    let mut world = World::new(SMALL);
    for id in 1..=3 {
        world.hears(queued(id, "x"));
    }
    world.actions();
    for id in 1..=3 {
        dies(&mut world, id, None);
    }
    for _ in 0..4 {
        next_dies(&mut world, None).unwrap();
    }
    assert!(in_quarantine(&world, &pool("small")));
    world.passes(600);
    let probe = world.books().runners().last().unwrap().id.0;
    world.actions();
    world.comes_online(probe);
    world.passes(1);
    assert_eq!((in_quarantine(&world, &pool("small")), world.runners_of("small")), (true, 1));
    world.hears(runs(1, "x").on(probe, "small"));
    assert_eq!((in_quarantine(&world, &pool("small")), world.runners_of("small")), (false, 3));
}

// The forge may call it busy, and refuse to remove it, before anybody says with what.
#[test]
fn a_runner_that_was_called_busy_ends_a_quarantine_once_its_job_is_told() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "x"));
    for _ in 0..6 {
        next_dies(&mut world, None).unwrap();
    }
    world.passes(3600);
    let probe = world.books().runners().last().unwrap().id;
    world.comes_online(probe.0);
    world.sees(Observation::Order(Order::DrainRunner { runner: probe }));
    world.refused_as_busy(probe.0);
    assert_eq!((world.runner_is(probe.0), in_quarantine(&world, &pool("small"))), ("busy", true));
    world.hears(runs(1, "x").on(probe.0, "small"));
    assert!(!in_quarantine(&world, &pool("small")));
}

#[test]
fn a_person_ends_a_quarantine() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "x"));
    for _ in 0..6 {
        next_dies(&mut world, None).unwrap();
    }
    world.actions();
    world.sees(Observation::Order(Order::Forgive { what: pool("small") }));
    assert!(world.calls().iter().any(|call| call.starts_with("launch")));
}

#[test]
fn a_node_whose_runners_keep_dying_is_left_alone_and_its_pool_is_not() {
    let mut world = World::new("pool small labels=x needs=cpu:1 max=9");
    world.has_nodes("one", "bad=cpu:1 good=cpu:1");
    works_on(&mut world, 1, "good");
    world.hears(queued(2, "x"));
    for _ in 0..5 {
        next_dies(&mut world, Some("bad")).unwrap();
    }
    assert!(in_quarantine(&world, &node("bad")));
    assert_eq!((failures(&world, &pool("small")), world.why(2)), (0, vec!["quarantined"]));
    // Room on the good node counts, and nowhere else may the runner be made.
    exits(&mut world, 1, 0);
    world.hears(ended(1, "x").on(1, "small"));
    world.destroyed(1);
    assert_eq!(avoided(&mut world), [["bad"]]);
}

#[test]
fn when_every_node_fails_it_is_the_pool_and_when_every_pool_fails_it_is_the_image() {
    let mut world = World::new(
        "
        pool small labels=x needs=cpu:1 max=9
        pool large labels=y needs=cpu:1 max=9
    ",
    );
    world.has_nodes("one", "a=cpu:9 b=cpu:9");
    let image = BackoffKey::Image("plain".parse().unwrap());
    world.hears(queued(1, "x"));
    next_dies(&mut world, Some("a")).unwrap();
    assert_eq!((failures(&world, &node("a")), failures(&world, &pool("small"))), (1, 0));
    next_dies(&mut world, Some("b")).unwrap();
    assert_eq!((failures(&world, &pool("small")), failures(&world, &image)), (1, 0));
    world.hears(ended(1, "x"));
    world.launch_fails(3, Call::Launch, Cause::Full);
    world.actions();
    world.passes(10);
    world.hears(queued(2, "y"));
    next_dies(&mut world, Some("b")).unwrap();
    assert_eq!((failures(&world, &pool("large")), failures(&world, &image)), (1, 1));
}

// Its other nodes keep serving another pool, which proves each of them and says nothing of this one.
#[test]
fn a_pool_that_failed_is_blamed_again_though_only_one_of_its_nodes_fails() {
    let mut world = World::new(
        "
        pool small labels=x needs=cpu:1 max=9
        pool large labels=y needs=cpu:1 max=9
    ",
    );
    world.has_nodes("one", "a=cpu:9 b=cpu:9");
    world.hears(queued(1, "x"));
    next_dies(&mut world, Some("a")).unwrap();
    next_dies(&mut world, Some("b")).unwrap();
    assert_eq!(failures(&world, &pool("small")), 1);
    for what in ["a", "b"] {
        world.sees(Observation::Order(Order::Forgive { what: node(what) }));
    }
    world.actions();
    let next = world.books().runners().last().unwrap().id.0;
    dies(&mut world, next, Some("a"));
    assert_eq!((failures(&world, &node("a")), failures(&world, &pool("small"))), (1, 2));
}

#[test]
fn a_node_beside_which_all_are_drained_stands_for_nothing_of_its_own() {
    let mut world = World::new("pool small labels=x needs=cpu:1 max=9");
    world.has_nodes("one", "a=cpu:9 b=cpu:9");
    let what = DrainKey::Node("one".parse().unwrap(), "b".parse().unwrap());
    world.sees(Observation::Order(Order::Drain { what, who: "ada".into(), why: "disk".into() }));
    world.hears(queued(1, "x"));
    next_dies(&mut world, Some("a")).unwrap();
    assert_eq!((failures(&world, &node("a")), failures(&world, &pool("small"))), (0, 1));
}

// An image may go bad while hundreds of older runners still work.
#[test]
fn a_runner_from_before_the_failures_proves_nothing_about_boots() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "x"));
    world.actions();
    world.comes_online(1);
    world.hears(runs(1, "x").on(1, "small"));
    world.passes(600);
    world.hears(queued(2, "x"));
    for _ in 0..5 {
        next_dies(&mut world, None).unwrap();
    }
    assert!(in_quarantine(&world, &pool("small")));
    world.hears(ended(1, "x").on(1, "small"));
    assert!(in_quarantine(&world, &pool("small")));
}

#[test]
fn a_trial_that_finds_no_job_gives_way_to_another_after_five_minutes() {
    let mut world = World::new(
        "
        pool small labels=x max=9 min_idle=1 scopes=org:acme
        pool rest labels=x max=9 scopes=org:other
    ",
    );
    world.actions();
    launched_on(&mut world, 1, None);
    world.passes(1);
    exits(&mut world, 1, 7);
    assert!(in_quarantine(&world, &BackoffKey::Image("plain".parse().unwrap())));
    world.passes(600);
    let probe = world.books().runners().last().unwrap().id.0;
    world.comes_online(probe);
    world.hears(queued(1, "x").of("org:other"));
    assert_eq!(world.why(1), ["proving"]);
    world.passes(299);
    assert_eq!(world.why(1), ["proving"]);
    world.passes(1);
    assert_eq!(world.why(1), ["runner_starting"]);
}

// Any tenant could do that on purpose.
#[test]
fn a_job_that_kills_its_runner_puts_no_pool_in_quarantine() {
    let mut world = World::new(SMALL);
    for id in 1..=9 {
        world.hears(queued(id, "x"));
        world.actions();
        world.comes_online(id);
        world.hears(runs(id, "x").on(id, "small"));
        exits(&mut world, id, 137);
        world.passes(31);
        assert_eq!(world.runner(id).outcome, Some(Outcome::Lost));
        world.destroyed(id);
        world.hears(ended(id, "x"));
    }
    assert_eq!(world.books().backoffs().count(), 0);
}

#[test]
fn a_node_that_loses_running_jobs_needs_a_finished_one_to_be_trusted_again() {
    let mut world = World::new("pool small labels=x needs=cpu:1 max=9");
    world.has_nodes("one", "bad=cpu:1 good=cpu:1");
    works_on(&mut world, 1, "bad");
    exits(&mut world, 1, 137);
    world.passes(31);
    world.destroyed(1);
    assert_eq!(failures(&world, &node("bad")), 1);
    works_on(&mut world, 2, "bad");
    assert_eq!(failures(&world, &node("bad")), 1);
    world.hears(ended(2, "x").on(2, "small"));
    assert_eq!(failures(&world, &node("bad")), 0);
}

#[test]
fn what_is_no_longer_declared_or_asked_for_is_forgotten() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "x"));
    world.launch_fails(1, Call::Register, Cause::Transient);
    world.hears(ended(1, "x"));
    let scope = BackoffKey::Scope(forge(), scope("org:acme"));
    assert_eq!(failures(&world, &scope), 1);
    world.passes(86_500);
    assert_eq!(failures(&world, &scope), 0);
    // A scope that nobody asks for any more is looked at no more.
    world.passes(8 * 86_400);
    world.actions();
    world.passes(3600);
    assert_eq!(world.looks(), ["instances of one"]);
}

fn drain(what: DrainKey) -> Observation {
    let (who, why) = ("ada".into(), "new disk".into());
    Observation::Order(Order::Drain { what, who, why })
}

// T5: drained, never killed.
#[test]
fn a_drained_pool_gets_nothing_new_lets_the_idle_go_and_the_busy_finish() {
    let mut world = World::new("pool small labels=x max=9 min_idle=1 scopes=org:acme");
    world.hears(queued(1, "x"));
    world.comes_online(1);
    world.hears(runs(1, "x").on(1, "small"));
    world.comes_online(2);
    world.actions();
    let key = DrainKey::Pool("small".parse().unwrap());
    world.sees(drain(key.clone()));
    assert_eq!((world.runner_is(1), world.runner_is(2)), ("busy", "draining"));
    assert_eq!(world.runner(2).outcome, Some(Outcome::Ordered));
    assert_eq!(world.calls(), ["deregister remuda-test-small-2"]);
    world.hears(queued(2, "x"));
    assert_eq!(world.why(2), ["drained"]);
    world.restarts();
    world.lists_instances("one", &[1, 2], &[]);
    world.passes(60);
    assert_eq!((world.why(2), world.runner_is(1)), (vec!["drained"], "busy"));
    world.sees(Observation::Order(Order::Resume { what: key }));
    assert_eq!(world.why(2), ["runner_starting"]);
}

#[test]
fn a_drained_provider_sends_jobs_to_another() {
    let mut world = World::new(
        "
        pool first labels=x max=9 provider=one
        pool other labels=x,y max=9 provider=two
    ",
    );
    world.hears(queued(1, "x"));
    world.sees(drain(DrainKey::Provider("one".parse().unwrap())));
    assert!(world.calls().contains(&"launch 2 of other".into()));
}

#[test]
fn a_drained_node_is_avoided_and_its_room_does_not_count() {
    let mut world = World::new("pool small labels=x needs=cpu:1 max=9");
    world.has_nodes("one", "a=cpu:1 b=cpu:1");
    world.sees(drain(DrainKey::Node("one".parse().unwrap(), "a".parse().unwrap())));
    world.hears(queued(1, "x"));
    world.hears(queued(2, "x"));
    assert_eq!((world.runners_of("small"), world.why(2)), (1, vec!["drained"]));
    assert_eq!(avoided(&mut world), [["a"]]);
}

#[test]
fn a_held_runner_stays_in_a_drained_pool() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "x"));
    world.comes_online(1);
    let (runner, who, why) = (RunnerId(1), "ada".into(), "to look".into());
    world.sees(Observation::Order(Order::Hold { runner, who, why }));
    world.sees(drain(DrainKey::Pool("small".parse().unwrap())));
    world.passes(60);
    assert_eq!(world.runner_is(1), "idle");
}

#[test]
fn a_provider_taken_out_too_early_is_said_to_be_stuck_and_called_no_more() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "x"));
    world.comes_online(1);
    world.actions();
    let mut fleet = remuda_core::fleet::Fleet::clone(&world.books().fleet);
    fleet.pools.clear();
    fleet.providers.clear();
    world.controller.declare(fleet.into());
    world.passes(1);
    assert_eq!(world.calls(), ["deregister remuda-test-small-1"]);
    world.deregistered(1);
    world.passes(60);
    assert_eq!((world.runner_is(1), world.calls().len()), ("stopping", 0));
    let stuck = remuda_core::stuck(world.books());
    assert_eq!(stuck.len(), 1);
    assert_eq!(stuck[0].what, "provider one");
    assert!(stuck[0].text.contains("declare it again"), "{}", stuck[0].text);
}

#[test]
fn what_an_undeclared_provider_and_forge_still_have_is_counted() {
    let mut world = World::new(SMALL);
    for job in 1..=3 {
        world.hears(queued(job, "x"));
    }
    world.comes_online(1);
    world.actions();
    assert!(remuda_core::stuck(world.books()).is_empty());
    let mut fleet = remuda_core::fleet::Fleet::clone(&world.books().fleet);
    fleet.pools.clear();
    fleet.providers.clear();
    fleet.forges.clear();
    world.controller.declare(fleet.into());
    let stuck = remuda_core::stuck(world.books());
    let said: Vec<_> = stuck.iter().map(|one| (one.what.as_str(), one.text.as_str())).collect();
    let [("provider one", provider), ("forge github", forge)] = said[..] else {
        panic!("{said:?}")
    };
    assert!(provider.contains("still has 3 instance(s)"), "{provider}");
    assert!(forge.contains("still has 3 runner(s)"), "{forge}");
}

/// A world whose books are older than what they describe: they know nothing of runner 5.
fn restored() -> World {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "x"));
    world.comes_online(1);
    world.actions();
    world.restarts();
    world
}

fn lists_five(world: &mut World) {
    let seen = |id, runner: Option<&str>| InstanceSeen {
        id: InstanceId(id),
        runner: runner.map(|name| name.parse().unwrap()),
        node: None,
        condition: Condition::Running,
    };
    let all = vec![seen(1, None), seen(5, Some("remuda-test-small-5"))];
    let (provider, asked_at): (_, _) = ("one".parse().unwrap(), world.now);
    world.answered(
        Subject::Instances("one".parse().unwrap()),
        vec![Observation::Instances { provider, asked_at, all }],
    );
}

// Decision 17.
#[test]
fn after_a_restored_copy_nothing_is_removed_before_all_has_been_seen() {
    let mut world = restored();
    lists_five(&mut world);
    assert!(world.books().recovering().is_some());
    for _ in 0..20 {
        world.passes(60);
        lists_five(&mut world);
    }
    // No scope has been listed, so the doubt stays, over a restart too.
    world.restarts();
    for _ in 0..20 {
        world.passes(60);
        lists_five(&mut world);
    }
    assert!(world.books().recovering().is_some());
    assert_eq!(world.calls(), [] as [&str; 0]);
    assert!(remuda_core::stuck(world.books())[1].text.contains("org:acme at github"));
    world.lists_runners("org:acme", &[1]);
    assert!(world.books().recovering().is_none());
    assert_eq!(world.calls(), ["destroy 5"]);
}

#[test]
fn a_person_may_confirm_that_the_books_are_the_newest() {
    let mut world = restored();
    lists_five(&mut world);
    world.sees(Observation::Order(Order::Confirm));
    assert!(world.books().recovering().is_none());
}

#[test]
fn a_registration_with_a_number_yet_to_be_given_raises_the_doubt_too() {
    let mut world = restored();
    let seen = |id: u64| remuda_core::observation::RunnerSeen {
        id: 1000 + id,
        name: format!("remuda-test-small-{id}").parse().unwrap(),
        online: true,
        busy: true,
    };
    let listing = |world: &World, id| {
        let (forge, scope, asked_at) = (forge(), scope("org:acme"), world.now);
        Observation::Runners { forge, scope, asked_at, all: vec![seen(1), seen(id)] }
    };
    // Anybody can give a runner any name.
    world.sees(listing(&world, 9_000_000));
    assert!(world.books().recovering().is_none());
    world.sees(listing(&world, 8));
    assert!(world.books().recovering().is_some());
    world.lists_instances("one", &[1], &[]);
    world.hears(queued(2, "x"));
    assert!(world.calls().contains(&"launch 9 of small".into()));
}

#[test]
fn a_restarted_controller_launches_nothing_before_it_has_listed_the_provider() {
    let mut world = restored();
    world.hears(queued(2, "x"));
    world.passes(5);
    assert!(!world.calls().iter().any(|call| call.starts_with("launch")));
    lists_five(&mut world);
    assert!(world.calls().iter().any(|call| call.starts_with("launch")));
    assert!(world.books().instance(InstanceId(5)).is_none());
}

#[test]
fn an_orphan_of_a_known_runner_waits_for_its_own_scope_alone() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "x"));
    world.hears(queued(2, "x").of("org:other"));
    world.comes_online(1);
    world.actions();
    world.hears(ended(1, "x"));
    world.passes(300);
    world.deregistered(1);
    world.destroyed(1);
    world.actions();
    // It was gone, and is there again: a launch that landed late.
    for _ in 0..4 {
        world.passes(60);
        let seen = InstanceSeen {
            id: InstanceId(1),
            runner: Some(world.runner(1).name.clone()),
            node: None,
            condition: Condition::Running,
        };
        let (provider, asked_at) = ("one".parse().unwrap(), world.now);
        world.sees(Observation::Instances { provider, asked_at, all: vec![seen] });
    }
    assert!(!world.calls().contains(&"destroy 1".into()));
    assert!(remuda_core::stuck(world.books()).iter().any(|stuck| stuck.text.contains("org:acme")));
    world.lists_runners("org:acme", &[]);
    world.passes(1);
    assert!(world.calls().contains(&"destroy 1".into()));
}
