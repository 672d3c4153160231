//! What people are told as it happens: a sentence for every step, and none for what was known before.

use remuda_core::Batch;
use remuda_core::job::JobState;
use remuda_core::name::RunnerName;
use remuda_core::observation::{
    Call, Cause, Condition, InstanceSeen, Observation, Order, RunnerSeen,
};
use remuda_core::reason::{BackoffKey, DrainKey};
use remuda_core::runner::{InstanceId, RunnerId};

use crate::world::{World, ended, forge, job, queued, runs, scope};

const SMALL: &str = "pool small labels=x max=2";

fn told(batch: &Batch) -> Vec<&str> {
    told_of("", batch)
}

/// What is told of one kind of thing.
fn told_of<'a>(what: &str, batch: &'a Batch) -> Vec<&'a str> {
    let texts = batch.events.iter().map(|event| &*event.text);
    texts.filter(|text| text.starts_with(what)).collect()
}

#[test]
fn every_step_of_a_job_is_told_once() {
    let mut world = World::new(SMALL);
    let held = world.hears(job(1, JobState::Waiting, "x"));
    assert_eq!(told(&held), ["job github/1 is held back by the forge"]);
    assert_eq!(held.events[0].job.as_ref(), Some(&world.job(1).key));
    let asks = world.hears(queued(1, "x"));
    assert_eq!(told_of("job", &asks), ["job github/1 of acme/app asks for [x]"]);
    assert_eq!(told(&world.hears(queued(1, "x"))), [""; 0]);
    world.comes_online(1);
    let at_work = world.hears(runs(1, "x").on(1, "small"));
    assert_eq!(told_of("job", &at_work), ["job github/1 runs, runner remuda-test-small-1"]);
    world.passes(2000);
    let back = world.reads(queued(1, "x"));
    assert_eq!(told_of("job", &back), ["job github/1 was put back by the forge, attempt 2"]);
    assert_eq!(told(&world.hears(ended(1, "x"))), ["job github/1 is over: success"]);
    assert_eq!(told(&world.hears(ended(1, "x"))), [""; 0]);
}

#[test]
fn every_step_of_a_runner_is_told_once() {
    let mut world = World::new(SMALL);
    let wanted = world.hears(queued(1, "x"));
    let event = &wanted.events[1];
    assert_eq!(&*event.text, "runner remuda-test-small-1 of pool small is wanted in org:acme");
    assert_eq!(event.runner, Some(RunnerId(1)));
    assert_eq!(event.pool.as_ref().map(ToString::to_string).as_deref(), Some("small"));
    assert_eq!(event.at, world.now);
    assert_eq!(told(&world.launched(1)), ["runner remuda-test-small-1 starts"]);
    let online = world.lists_runners("org:acme", &[1]);
    assert_eq!(told(&online), ["runner remuda-test-small-1 is online"]);
    assert_eq!(told(&world.lists_runners("org:acme", &[1])), [""; 0]);
    let busy = world.hears(runs(1, "x").on(1, "small"));
    assert_eq!(told_of("runner", &busy), ["runner remuda-test-small-1 has a job"]);
    assert!(busy.events.iter().all(|event| event.job.as_ref() == Some(&world.job(1).key)));
    // It is given a while to exit by itself.
    assert_eq!(told(&world.hears(ended(1, "x").on(1, "small"))).len(), 1);
    let leaves = world.passes(60);
    assert_eq!(told(&leaves), ["runner remuda-test-small-1 is being removed (finished)"]);
    world.passes(1);
    let gone = world.lists_instances("one", &[], &[1]);
    assert_eq!(told(&gone), [""; 0]);
}

#[test]
fn why_a_runner_is_to_be_removed_is_told_with_it() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "x"));
    world.comes_online(1);
    let order = Order::DrainRunner { runner: RunnerId(1) };
    let leaves = world.sees(Observation::Order(order));
    let first = told(&leaves)[0];
    assert_eq!(first, "runner remuda-test-small-1 is to be removed (ordered)");
}

#[test]
fn failures_are_told_as_they_are_counted_and_then_that_it_works_again() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "x"));
    world.hears(queued(2, "x"));
    let fails = world.launch_fails(1, Call::Launch, Cause::Invalid);
    let says = "pool small backs off: virtual failure";
    assert!(told(&fails).contains(&says), "{:?}", told(&fails));
    // The other was under way with it.
    let counted_before = world.launch_fails(2, Call::Launch, Cause::Invalid);
    assert!(!told(&counted_before).contains(&says), "{:?}", told(&counted_before));
    let what = BackoffKey::Pool("small".parse().unwrap());
    let forgive = |what| Observation::Order(Order::Forgive { what });
    let works = world.sees(forgive(what.clone()));
    assert_eq!(told(&works)[0], "pool small works again");
    assert!(!told(&world.sees(forgive(what))).contains(&"pool small works again"));
}

#[test]
fn a_drain_is_told_with_who_and_why_and_so_is_its_end() {
    let mut world = World::new(SMALL);
    let drain = |why: &str| {
        let what = DrainKey::Provider("one".parse().unwrap());
        Observation::Order(Order::Drain { what, who: "ada".into(), why: why.into() })
    };
    let resume =
        || Observation::Order(Order::Resume { what: DrainKey::Provider("one".parse().unwrap()) });
    assert_eq!(told(&world.sees(resume())), [""; 0]);
    assert_eq!(told(&world.sees(drain("disk"))), ["provider one is drained by ada: disk"]);
    assert_eq!(told(&world.sees(drain("disk"))), [""; 0]);
    assert_eq!(told(&world.sees(drain("fan"))), ["provider one is drained by ada: fan"]);
    assert_eq!(told(&world.sees(resume())), ["provider one is in use again"]);
}

#[test]
fn what_no_row_explains_is_told_when_it_is_first_seen() {
    let mut world = World::new(SMALL);
    let name: RunnerName = "remuda-test-small-9".parse().unwrap();
    let registration = RunnerSeen { id: 77, name: name.clone(), online: true, busy: false };
    let node = None;
    let instance = |id| InstanceSeen {
        id: InstanceId(id),
        runner: Some(name.clone()),
        node: node.clone(),
        condition: Condition::Running,
    };
    let registrations = |world: &World| {
        let (forge, scope, asked_at) = (forge(), scope("org:acme"), world.now);
        Observation::Runners { forge, scope, asked_at, all: vec![registration.clone()] }
    };
    let instances = |world: &World, ids: &[u64]| {
        let (provider, asked_at) = ("one".parse().unwrap(), world.now);
        let all = ids.iter().map(|id| instance(*id)).collect();
        Observation::Instances { provider, asked_at, all }
    };
    let first = world.sees(registrations(&world));
    let said = ["registration remuda-test-small-9 in org:acme has no runner of ours"];
    assert_eq!(told_of("registration", &first), said);
    let first = world.sees(instances(&world, &[9]));
    let said = ["instance 9 of provider one has no runner of ours"];
    assert_eq!(told_of("instance", &first), said);
    world.passes(30);
    assert_eq!(told(&world.sees(registrations(&world))), [""; 0]);
    let said = ["instance 10 of provider one has no runner of ours"];
    assert_eq!(told(&world.sees(instances(&world, &[9, 10]))), said);
}

#[test]
fn doubt_of_the_books_is_told_when_it_arises_and_when_it_ends() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "x"));
    world.comes_online(1);
    world.restarts();
    let newer = |world: &World| {
        let seen = |id: u64| InstanceSeen {
            id: InstanceId(id),
            runner: format!("remuda-test-small-{id}").parse().ok(),
            node: None,
            condition: Condition::Running,
        };
        let (provider, asked_at) = ("one".parse().unwrap(), world.now);
        Observation::Instances { provider, asked_at, all: vec![seen(1), seen(5)] }
    };
    let count = |batch: &Batch, text: &str| {
        told(batch).iter().filter(|told| told.starts_with(text)).count()
    };
    let doubt = "these books may not be the newest: ";
    assert_eq!(count(&world.sees(newer(&world)), doubt), 1);
    assert_eq!(count(&world.sees(newer(&world)), doubt), 0);
    let sure = "these books are taken for the newest";
    assert_eq!(count(&world.sees(Observation::Order(Order::Confirm)), sure), 1);
    assert_eq!(count(&world.sees(Observation::Order(Order::Confirm)), sure), 0);
}
