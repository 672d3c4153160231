//! How long what failed is left alone: what counts as one failure, and what was stated.

use remuda_core::observation::{Call, Cause, Condition, InstanceSeen, Observation, Subject};
use remuda_core::reason::BackoffKey;
use remuda_core::runner::{InstanceId, RunnerId};
use remuda_core::snapshot::Backoff;

use crate::world::{World, at, forge, queued, scope, seconds};

const SMALL: &str = "pool small labels=x max=9";

fn pool(name: &str) -> BackoffKey {
    BackoffKey::Pool(name.parse().unwrap())
}

fn acme() -> BackoffKey {
    BackoffKey::Scope(forge(), scope("org:acme"))
}

impl World {
    fn backoff(&self, key: &BackoffKey) -> &Backoff {
        let known = self.books().backoffs().find(|(known, _)| *known == key);
        known.unwrap_or_else(|| panic!("{key} has not failed")).1
    }

    /// Launched runners end by themselves before they have a job.
    fn die(&mut self, codes: &[(u64, i32)]) {
        let ids = self.books().existing_instances().filter(|row| row.launch.is_some());
        let ids: Vec<InstanceId> = ids.map(|row| row.id).collect();
        for id in &ids {
            let facts = vec![
                Observation::Registered { runner: RunnerId(id.0), id: 1000 + id.0 },
                Observation::Launched { instance: *id, node: None },
            ];
            self.answered(Subject::Instance(*id), facts);
        }
        self.passes(1);
        let seen = ids.into_iter().map(|id| {
            let code = codes.iter().find(|(ended, _)| *ended == id.0).map(|(_, code)| *code);
            let condition = code.map_or(Condition::Running, |code| Condition::Exited(Some(code)));
            InstanceSeen { id, runner: None, node: None, condition }
        });
        let (all, provider, asked_at) = (seen.collect(), "one".parse().unwrap(), self.now);
        self.sees(Observation::Instances { provider, asked_at, all });
    }
}

#[test]
fn launches_that_were_begun_before_the_last_failure_count_with_it() {
    let mut world = World::new(SMALL);
    for id in 1..=2 {
        world.hears(queued(id, "x"));
    }
    world.passes(1);
    world.launch_fails(1, Call::Launch, Cause::Invalid);
    world.passes(9);
    // Begun before the first failure, reported long after the wait for it.
    world.launch_fails(2, Call::Launch, Cause::Invalid);
    let backoff = world.backoff(&pool("small"));
    assert_eq!((backoff.failures, backoff.failed_at, backoff.until), (1, at(1), at(3)));
    world.hears(queued(3, "x"));
    world.passes(1);
    let last = world.books().runners().last().unwrap().id.0;
    world.launch_fails(last, Call::Launch, Cause::Invalid);
    let backoff = world.backoff(&pool("small"));
    assert_eq!((backoff.failures, backoff.since), (2, at(1)));
    assert_eq!((backoff.failed_at, backoff.until), (at(11), at(15)));
}

// An image that the forge refuses is not tried again before a person renewed it, whoever said so first.
#[test]
fn what_is_certain_puts_in_quarantine_though_it_counts_with_what_failed_before() {
    let mut world = World::new(
        "
        pool small labels=x max=9
        pool large labels=y max=9
    ",
    );
    for (id, wanted) in [(1, "x"), (2, "y"), (3, "y")] {
        world.hears(queued(id, wanted));
    }
    world.die(&[(1, 1)]);
    world.die(&[(1, 1), (2, 1)]);
    let image = BackoffKey::Image("plain".parse().unwrap());
    let failed_at = world.now;
    let backoff = world.backoff(&image);
    assert_eq!((backoff.failures, backoff.until), (1, failed_at + seconds(2)));
    world.die(&[(1, 1), (2, 1), (3, 7)]);
    let backoff = world.backoff(&image);
    assert_eq!((backoff.failures, backoff.failed_at), (5, failed_at));
    assert_eq!(backoff.until, failed_at + seconds(300));
    assert!(backoff.because.contains("renew the image"));
    assert_eq!(backoff.earlier.len(), 1);
}

#[test]
fn what_was_said_to_last_until_an_instant_lasts_until_then_and_no_longer() {
    let mut world = World::new(SMALL);
    for id in 1..=3 {
        world.hears(queued(id, "x"));
    }
    world.launch_fails(1, Call::Register, Cause::Limited { until: at(3) });
    let mut sooner = world.clone();
    sooner.launch_fails(2, Call::Register, Cause::Transient);
    let backoff = sooner.backoff(&acme());
    assert_eq!((backoff.until, backoff.full), (at(3), true));
    // Once that is over, a failure is one like any other.
    world.passes(10);
    world.launch_fails(2, Call::Register, Cause::Transient);
    let backoff = world.backoff(&acme());
    assert_eq!((backoff.until, backoff.full), (at(12), false));
}

#[test]
fn a_stated_limit_holds_for_every_call_though_a_launch_under_way_failed_too() {
    let mut world = World::new(SMALL);
    for id in 1..=2 {
        world.hears(queued(id, "x"));
    }
    world.lists_runners("org:acme", &[]);
    world.launch_fails(1, Call::Register, Cause::Limited { until: at(3600) });
    world.launch_fails(2, Call::Register, Cause::Transient);
    world.actions();
    let of_acme = |looks: Vec<String>| looks.contains(&"runners of org:acme".into());
    world.passes(3599);
    assert!(!of_acme(world.looks()));
    world.passes(1);
    assert!(of_acme(world.looks()));
}

#[test]
fn causes_are_kept_each_once_the_newest_first_and_no_more_than_three() {
    let mut world = World::new(SMALL);
    let mut fails = |message: &str| {
        world.hears(queued(1, "x"));
        world.passes(400);
        let last = world.books().runners().last().unwrap();
        let subject = Subject::Instance(last.instance);
        let fact = Observation::Failed {
            subject: subject.clone(),
            call: Call::Launch,
            cause: Cause::Invalid,
            message: message.into(),
        };
        world.answered(subject, vec![fact]);
        let backoff = world.backoff(&pool("small"));
        let earlier: Vec<_> = backoff.earlier.iter().map(ToString::to_string).collect();
        format!("{} after {}", backoff.because, earlier.join(" "))
    };
    assert_eq!(fails("a"), "a after ");
    assert_eq!(fails("b"), "b after a");
    assert_eq!(fails("a"), "a after b");
    assert_eq!(fails("c"), "c after a b");
    assert_eq!(fails("d"), "d after c a b");
    assert_eq!(fails("e"), "e after d c a");
}
