//! What people are told of runners, pools and providers.

use std::collections::BTreeSet;

use remuda_core::explain::{self, CODES, Standing, code};
use remuda_core::name::{PoolName, ProviderName};
use remuda_core::observation::{Call, Cause, Observation, Order, Subject};
use remuda_core::reason::{BackoffKey, DrainKey, Reason};

use proptest::prelude::*;

use crate::properties::{lived, steps};
use crate::world::{World, at, ended, queued, runs};

impl World {
    /// What is told of a runner, the codes alone.
    fn explains(&self, id: u64) -> Vec<&'static str> {
        codes(&explain::runner(self.books(), self.runner(id)))
    }

    fn explains_pool(&self, name: &str) -> Vec<&'static str> {
        let pool = &self.books().fleet.pools[&PoolName::new(name).unwrap()];
        let waits = self.controller.waits().map(|(_, _, reasons)| &**reasons);
        codes(&explain::pool(self.books(), pool, waits))
    }

    fn explains_provider(&self, name: &str) -> Vec<Standing> {
        let provider = &self.books().fleet.providers[&ProviderName::new(name).unwrap()];
        explain::provider(self.books(), provider)
    }
}

fn codes(all: &[Standing]) -> Vec<&'static str> {
    assert!(all.iter().all(|standing| code(standing.code).is_some()), "{all:?}");
    all.iter().map(|standing| standing.code).collect()
}

#[test]
fn codes_are_told_apart_and_each_says_what_ends_it() {
    let names: BTreeSet<_> = CODES.iter().map(|code| code.name).collect();
    assert_eq!(names.len(), CODES.len());
    for code in CODES {
        let plain = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(code.name.chars().all(plain), "{}", code.name);
        assert!(code.cause.ends_with('.') && code.cure.ends_with('.'), "{}", code.name);
    }
}

#[test]
fn every_reason_has_a_code() {
    let mut reason = Some(Reason::HeldByForge);
    let mut seen = BTreeSet::new();
    while let Some(one) = reason {
        assert!(code(one.code()).is_some_and(|c| c.about == explain::About::Job), "{one:?}");
        seen.insert(one.code());
        reason = following(&one);
    }
    let told = CODES.iter().filter(|code| code.about == explain::About::Job);
    assert_eq!(told.map(|code| code.name).collect::<BTreeSet<_>>(), seen);
}

/// Some reason of the next kind. A kind without a place here does not compile.
fn following(reason: &Reason) -> Option<Reason> {
    let pool = PoolName::new("small").unwrap();
    let provider = ProviderName::new("one").unwrap();
    let what = BackoffKey::Pool(pool.clone());
    let mut world = World::new("pool small labels=linux max=2");
    world.hears(queued(1, "linux"));
    let job = world.job(1).clone();
    Some(match reason {
        Reason::HeldByForge => {
            Reason::NoPoolHasLabels { wanted: job.wanted, nearest: Some((pool, "gpu".into())) }
        }
        Reason::NoPoolHasLabels { .. } => Reason::PoolFull(pool),
        Reason::PoolFull(_) => Reason::ProviderFull(provider),
        Reason::ProviderFull(_) => Reason::NoNodeHasRoom(pool),
        Reason::NoNodeHasRoom(_) => Reason::TenantAtCap { tenant: job.tenant, cap: 1 },
        Reason::TenantAtCap { .. } => {
            Reason::BackingOff { what, until: at(1), because: "x".into() }
        }
        Reason::BackingOff { .. } => Reason::Proving { what },
        Reason::Proving { .. } => {
            Reason::Quarantined { what, since: at(0), until: at(1), because: "x".into() }
        }
        Reason::Quarantined { .. } => {
            let what = DrainKey::Pool(pool);
            Reason::Drained { what, who: "ada".into(), why: "x".into(), since: at(0) }
        }
        Reason::Drained { .. } => Reason::Gathering { pool, jobs: 5, until: at(1) },
        Reason::Gathering { .. } => Reason::BehindOlder,
        Reason::BehindOlder => Reason::BehindOthers(pool),
        Reason::BehindOthers(_) => Reason::TrustUnknown(pool),
        Reason::TrustUnknown(_) => Reason::NotTrusted(pool),
        Reason::NotTrusted(_) => Reason::RunnerStarting(remuda_core::runner::RunnerId(1)),
        Reason::RunnerStarting(id) => Reason::RunnerIdle(*id),
        Reason::RunnerIdle(_) => Reason::UnknownToForge { since: at(1) },
        Reason::UnknownToForge { .. } => return None,
    })
}

#[test]
fn a_runner_is_explained_from_its_wish_to_its_end() {
    let mut world = World::new("pool small labels=linux max=2");
    world.hears(queued(1, "linux"));
    assert_eq!(world.explains(1), ["launching"]);
    world.launched(1);
    assert_eq!(world.explains(1), ["booting"]);
    world.comes_online(1);
    assert_eq!(world.explains(1), ["idle"]);
    world.hears(runs(1, "linux").on(1, "small"));
    assert_eq!(world.explains(1), ["running_job"]);
    world.hears(ended(1, "linux").on(1, "small"));
    assert_eq!(world.explains(1), ["finishing"]);
    world.passes(31);
    assert_eq!(world.explains(1), ["destroying"]);
    world.destroyed(1);
    world.passes(1);
    world.lists_instances("one", &[], &[]);
    assert_eq!(world.explains(1), ["gone"]);
}

#[test]
fn a_wait_says_when_it_is_over() {
    let mut world = World::new("pool small labels=linux max=2");
    world.hears(queued(1, "linux"));
    world.launched(1);
    let told = explain::runner(world.books(), world.runner(1));
    let limit = world.books().fleet.pools.values().next().unwrap().limits.boot;
    assert_eq!(told[0].next, Some(told[0].since.unwrap() + limit));
}

#[test]
fn a_pool_tells_what_stands_in_its_way_and_who_waits() {
    let mut world = World::new("pool small labels=linux max=1");
    assert_eq!(world.explains_pool("small"), ["serving"]);
    world.hears(queued(1, "linux"));
    world.hears(queued(2, "linux"));
    assert_eq!(world.explains_pool("small"), ["pool_full", "wanted"]);
    world.launch_fails(1, Call::Launch, Cause::Invalid);
    assert!(world.explains_pool("small").contains(&"backing_off"));
}

#[test]
fn a_provider_that_fails_says_since_when_and_when_it_is_asked_again() {
    let mut world = World::new("pool small labels=linux max=1");
    assert_eq!(codes(&world.explains_provider("one")), ["never_asked"]);
    world.lists_instances("one", &[], &[]);
    assert_eq!(codes(&world.explains_provider("one")), ["answering"]);
    let subject = Subject::Instances(ProviderName::new("one").unwrap());
    world.passes(1);
    world.fails(subject, Call::Look, Cause::Transient);
    let told = world.explains_provider("one");
    assert_eq!(codes(&told), ["failing"]);
    assert!(told[0].since.unwrap() < told[0].next.unwrap());
}

#[test]
fn a_provider_and_a_pool_tell_who_drained_them() {
    let mut world = World::new("pool small labels=linux max=1 scopes=org:acme");
    let (who, why): (std::sync::Arc<str>, _) = ("ada".into(), "new disk".into());
    for what in [
        DrainKey::Pool(PoolName::new("small").unwrap()),
        DrainKey::Node(ProviderName::new("one").unwrap(), "a".parse().unwrap()),
    ] {
        let order = Order::Drain { what, who: who.clone(), why: std::sync::Arc::clone(&why) };
        world.sees(Observation::Order(order));
    }
    assert_eq!(world.explains_pool("small"), ["drained"]);
    let told = world.explains_provider("one");
    assert_eq!(codes(&told), ["never_asked", "drained"]);
    assert!(told[1].text.contains("node one/a is drained by ada: new disk"), "{told:?}");
}

proptest! {
    #[test]
    fn whatever_happens_everything_is_explained(steps in steps()) {
        let world = lived(&steps);
        let books = world.books();
        for runner in books.runners() {
            prop_assert!(!codes(&explain::runner(books, runner)).is_empty());
        }
        for pool in books.fleet.pools.values() {
            prop_assert!(!world.explains_pool(pool.name.as_str()).is_empty());
        }
        for provider in books.fleet.providers.keys() {
            prop_assert!(!codes(&world.explains_provider(provider.as_str())).is_empty());
        }
    }
}
