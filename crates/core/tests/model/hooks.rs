//! Deliveries that failed, and having them sent again.

use std::sync::Arc;

use remuda_core::action::{Look, Redeliver};
use remuda_core::budget::{Budget, Credential};
use remuda_core::fleet::{App, Hook, SecretRef};
use remuda_core::hook::{FailedDelivery, HookKey};
use remuda_core::observation::{Call, Cause, Observation, Subject};
use remuda_core::{Action, Timestamp};

use crate::world::{World, at, fleet, forge, scope, seconds};

const DAY: u64 = 86_400;

fn app() -> HookKey {
    HookKey::App("1".into())
}

/// A world with an App's hook and a repository's own, ten days after the beginning of time.
fn hooked() -> World {
    hooked_at("https://forge.invalid")
}

fn hooked_at(api: &str) -> World {
    let mut fleet = fleet("pool small labels=x max=9");
    let secret = || vec![SecretRef::Env("HOOK".into())];
    for forge in fleet.forges.values_mut() {
        forge.api = api.into();
        forge.apps = vec![App {
            id: "1".into(),
            private_key: SecretRef::Env("KEY".into()),
            webhook_secrets: secret(),
            owners: Vec::new(),
        }];
        let own = Hook { id: Some(9), scope: Some(scope("repo:solo/app")), secrets: secret() };
        let unknown = Hook { id: None, scope: None, secrets: secret() };
        forge.hooks = vec![own, unknown];
    }
    let mut world = World::of(fleet);
    world.now = at(0) + seconds(10 * DAY);
    world.passes(0);
    world
}

/// The listings of failed deliveries begun since the calls were last asked for.
fn listings(world: &mut World) -> Vec<(String, Timestamp, Option<Arc<str>>)> {
    let listing = |call| match call {
        Action::Look(Look::Deliveries { hook, since, from, .. }) => {
            Some((hook.to_string(), since, from))
        }
        Action::Launch(_)
        | Action::Deregister(_)
        | Action::Destroy(_)
        | Action::Redeliver(_)
        | Action::Look(_) => None,
    };
    world.actions().into_iter().filter_map(listing).collect()
}

/// The deliveries that were asked for since the calls were last asked for, by their attempt.
fn asked(world: &mut World) -> Vec<Redeliver> {
    let order = |call| match call {
        Action::Redeliver(call) => Some(call),
        Action::Launch(_) | Action::Deregister(_) | Action::Destroy(_) | Action::Look(_) => None,
    };
    world.actions().into_iter().filter_map(order).collect()
}

fn failed(guid: &str, id: u64, attempts: u32, failed_at: Timestamp) -> FailedDelivery {
    FailedDelivery { guid: guid.into(), id, attempts, failed_at }
}

fn lists(world: &mut World, failed: Vec<FailedDelivery>, next: Option<&str>) {
    let (forge, hook, asked_at) = (forge(), app(), world.now);
    let subject = Subject::Deliveries(forge.clone(), hook.clone());
    let next = next.map(Arc::from);
    let fact = Observation::Deliveries { forge, hook, asked_at, failed, next };
    world.answered(subject, vec![fact]);
}

fn takes(world: &mut World, call: &Redeliver) {
    let Redeliver { forge, hook, guid, .. } = call.clone();
    world.answered(call.subject(), vec![Observation::Redelivered { forge, hook, guid }]);
}

// W16
#[test]
fn failed_deliveries_are_listed_back_to_what_was_seen_and_no_further_than_the_window() {
    let mut world = hooked();
    let start = world.now;
    let window = seconds(3 * DAY);
    let first = listings(&mut world);
    let names: Vec<&str> = first.iter().map(|(hook, _, _)| hook.as_str()).collect();
    assert_eq!(names, ["the hook of App 1", "hook 9 of repo:solo/app"]);
    assert!(first.iter().all(|(_, since, from)| *since == start - window && from.is_none()));
    // A listing too long for one reading goes on at once; what is new meanwhile is seen the next time.
    lists(&mut world, vec![], Some("v1_7"));
    let [(_, _, from)] = &*listings(&mut world) else { panic!("it goes on") };
    assert_eq!(from.as_deref(), Some("v1_7"));
    world.passes(60);
    lists(&mut world, vec![], None);
    world.passes(299);
    assert!(!listings(&mut world).iter().any(|(hook, _, _)| hook.contains("App")));
    world.passes(1);
    // One listing may be empty by surprise: what it should have shown is looked for once more.
    let again = world.now;
    let [(_, since, None)] = &*listings(&mut world) else { panic!("one listing") };
    assert_eq!(*since, again - window);
    lists(&mut world, vec![], None);
    world.passes(300);
    let of_app = |(hook, since, _): &(String, Timestamp, _)| hook.contains("App").then_some(*since);
    let since: Vec<_> = listings(&mut world).iter().filter_map(of_app).collect();
    assert_eq!(since, [start - seconds(300)]);
}

#[test]
fn an_enterprise_server_is_asked_for_a_week_back() {
    let mut world = hooked_at("https://ghe.invalid/api/v3");
    let start = world.now;
    assert!(listings(&mut world).iter().all(|(_, since, _)| *since == start - seconds(7 * DAY)));
    lists(&mut world, vec![failed("a", 1, 9, start)], None);
    world.passes(7 * DAY);
    lists(&mut world, vec![], None);
    assert_eq!(world.books().undelivered_of(&forge(), &app()).count(), 1);
    world.passes(1);
    lists(&mut world, vec![], None);
    assert_eq!(world.books().undelivered_of(&forge(), &app()).count(), 0);
}

#[test]
fn what_was_asked_for_or_given_up_is_not_counted_as_undelivered() {
    let mut world = hooked();
    let failed_at = world.now;
    let undelivered = |world: &World| world.books().undelivered().count();
    lists(&mut world, vec![failed("a", 1, 5, failed_at), failed("b", 2, 6, failed_at)], None);
    assert_eq!(undelivered(&world), 1);
    // Its fifth attempt is repeated two hours after it failed.
    world.passes(2 * 3600 + 480);
    let [call] = &*asked(&mut world) else { panic!("one of them is asked for") };
    assert_eq!(&*call.guid, "a");
    takes(&mut world, call);
    assert_eq!(undelivered(&world), 0);
}

#[test]
fn what_failed_is_asked_for_once_the_newest_first_and_in_no_haste() {
    let mut world = hooked();
    let ago = |seconds_ago| at(0) + seconds(10 * DAY - seconds_ago);
    lists(&mut world, vec![failed("a", 1, 1, ago(900)), failed("b", 2, 1, ago(60))], None);
    let [first] = &*asked(&mut world) else { panic!("one at a time") };
    assert_eq!((&*first.guid, first.id), ("b", 2));
    takes(&mut world, first);
    assert!(asked(&mut world).is_empty());
    world.passes(1);
    let [second] = &*asked(&mut world) else { panic!("then the other") };
    assert_eq!((&*second.guid, second.id), ("a", 1));
    takes(&mut world, second);
    // The same attempts are listed again, because the readings overlap.
    world.passes(300);
    lists(&mut world, vec![failed("a", 1, 1, ago(900)), failed("b", 2, 1, ago(60))], None);
    world.passes(3600);
    assert!(asked(&mut world).is_empty());
}

#[test]
fn of_one_delivery_the_latest_attempt_is_remembered_in_whatever_order_they_are_listed() {
    let mut world = hooked();
    let start = world.now;
    let known = |world: &World| {
        let all: Vec<_> = world.books().undelivered_of(&forge(), &app()).collect();
        let [(guid, row)] = all[..] else { panic!("{all:?}") };
        assert_eq!(&**guid, "a");
        (row.id, row.attempts, row.failed_at)
    };
    lists(&mut world, vec![failed("a", 2, 2, start)], None);
    lists(&mut world, vec![failed("a", 1, 1, start - seconds(60))], None);
    assert_eq!(known(&world), (2, 2, start));
    lists(&mut world, vec![failed("a", 2, 2, start)], None);
    assert_eq!(known(&world), (2, 2, start));
    // One that was listed alone is one more.
    lists(&mut world, vec![failed("a", 3, 1, start)], None);
    assert_eq!(known(&world), (3, 3, start));
    lists(&mut world, vec![failed("a", 9, 5, start + seconds(1))], None);
    assert_eq!(known(&world), (9, 5, start + seconds(1)));
}

#[test]
fn a_delivery_that_fails_again_is_asked_for_ever_more_seldom_and_then_given_up() {
    let mut world = hooked();
    let mut waits = Vec::new();
    let mut id = 1;
    let failed_at = world.now;
    lists(&mut world, vec![failed("a", id, 1, failed_at)], None);
    let mut since = world.now;
    for _ in 0..20_000 {
        for call in asked(&mut world) {
            waits.push(world.now.since(since).as_secs() / 60);
            takes(&mut world, &call);
            (id, since) = (id + 1, world.now);
            let failed_at = world.now;
            lists(&mut world, vec![failed("a", id, 1, failed_at)], None);
        }
        world.passes(20);
    }
    assert_eq!(waits, [0, 2, 8, 32, 128]);
    // The forge's record tells how often it was attempted, so a restart gives it no new tries.
    world.restarts();
    let failed_at = world.now;
    lists(&mut world, vec![failed("a", id, 6, failed_at)], None);
    world.passes(86_400);
    assert!(asked(&mut world).is_empty());
}

#[test]
fn what_the_forge_will_not_send_again_is_left_and_what_failed_by_the_way_is_not() {
    for (cause, again) in [(Cause::Invalid, 0), (Cause::Transient, 1)] {
        let mut world = hooked();
        let failed_at = world.now;
        lists(&mut world, vec![failed("a", 1, 1, failed_at)], None);
        let [call] = &*asked(&mut world) else { panic!("it is asked for") };
        world.fails(call.subject(), Call::Redeliver, cause);
        world.passes(1);
        assert!(asked(&mut world).is_empty(), "{cause:?}");
        world.passes(2);
        assert_eq!(asked(&mut world).len(), again, "{cause:?}");
    }
}

#[test]
fn redelivery_stops_first_as_the_apps_budget_runs_low() {
    let mut world = hooked();
    let credential = Credential::App { id: "1".into(), owner: None };
    let resets_at = world.now + seconds(3600);
    let budget = |remaining| {
        let budget = Budget { limit: 1000, remaining, resets_at };
        Observation::Budget { forge: forge(), credential: credential.clone(), budget }
    };
    let failed_at = world.now;
    world.sees(budget(400));
    lists(&mut world, vec![failed("a", 1, 1, failed_at)], None);
    assert!(asked(&mut world).is_empty());
    world.sees(budget(401));
    assert_eq!(asked(&mut world).len(), 1);
}

#[test]
fn what_is_remembered_of_failed_deliveries_is_bounded() {
    let mut world = hooked();
    for page in 0..8_u64 {
        let failed_at = world.now;
        let many =
            (page * 1000..(page + 1) * 1000).map(|n| failed(&n.to_string(), n, 9, failed_at));
        lists(&mut world, many.collect(), None);
        world.passes(1);
    }
    let known = |world: &World| world.books().undelivered_of(&forge(), &app()).count();
    assert_eq!(known(&world), 5000);
    world.passes(4 * DAY);
    lists(&mut world, vec![], None);
    assert_eq!(known(&world), 0);
}
