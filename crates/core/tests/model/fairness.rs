//! Tenants: whom a table of the fleet file means, and whose turn it is.

use remuda_core::observation::Observation;
use remuda_core::{Seen, Snapshot};

use crate::world::{Told, World, at, queued, scope};

/// An account of this number and login asks for a runner of one of its repositories.
fn asks(id: u64, number: u64, login: &str) -> Told {
    let mut told = queued(id, "x").of(&format!("org:{login}"));
    told.0.tenant.key.id = number;
    told
}

fn hears_at_once(world: &mut World, told: Vec<Told>) {
    let now = world.now;
    let fact = |told: Told| Seen::Fact(Observation::Job(Box::new(told.delivered(now))));
    world.turn(told.into_iter().map(fact).collect());
}

/// The cap in force for an account.
fn cap_of(books: &Snapshot, number: u64) -> u32 {
    let met = books.tenants().find(|met| met.tenant.key.id == number).unwrap();
    books.fleet.tenants.terms(&met.tenant.key, Some(met)).cap
}

#[test]
fn a_renamed_account_keeps_what_is_declared_for_it() {
    let mut world = World::new("pool small labels=x\n tenant acme cap=3");
    world.hears(asks(1, 70, "acme"));
    world.hears(asks(2, 70, "acme-inc"));
    assert_eq!(cap_of(world.books(), 70), 3);
    world.restarts();
    assert_eq!(cap_of(world.books(), 70), 3);
}

#[test]
fn who_takes_over_a_login_does_not_take_over_what_is_declared_for_it() {
    let mut world = World::new("pool small labels=x\n tenant acme cap=3");
    world.hears(asks(1, 70, "acme"));
    world.hears(asks(2, 70, "acme-inc"));
    world.hears(asks(3, 99, "acme"));
    assert_eq!((cap_of(world.books(), 70), cap_of(world.books(), 99)), (3, 20));
}

#[test]
fn the_login_of_today_is_written_as_well_as_the_one_of_yesterday() {
    for (text, cap) in [
        ("tenant acme-inc cap=4", 4),
        ("tenant acme-inc cap=4\n tenant acme cap=3", 4),
        ("tenant acme cap=3\n tenant acme-inc cap=4", 4),
    ] {
        let mut world = World::new(&format!("pool small labels=x\n{text}"));
        world.hears(asks(1, 70, "acme"));
        world.hears(asks(2, 70, "acme-inc"));
        assert_eq!(cap_of(world.books(), 70), cap, "{text}");
    }
}

#[test]
fn runners_are_counted_for_whoever_bears_the_login_of_their_scope_now() {
    let mut world = World::new("pool small labels=x max=9\n tenant acme cap=1");
    world.hears(asks(1, 70, "acme"));
    world.hears(asks(2, 70, "acme-inc"));
    assert_eq!((world.runners_of("small"), world.why(2)), (1, vec!["tenant_at_cap"]));
    world.hears(asks(3, 99, "acme"));
    world.hears(asks(4, 70, "acme-inc"));
    assert_eq!(world.runners_of("small"), 3, "the newcomer's runner is its own\n{}", world.tells());
}

#[test]
fn the_next_runner_goes_to_whoever_holds_the_least_for_its_weight() {
    let mut world = World::new("pool small labels=x max=8\n tenant acme weight=3");
    let other = (1..=9).map(|id| queued(id, "x").of("org:other"));
    let acme = (11..=19).map(|id| queued(id, "x"));
    hears_at_once(&mut world, other.chain(acme).collect());
    let of = |text: &str| world.books().runners().filter(|r| r.scope == scope(text)).count();
    assert_eq!((of("org:acme"), of("org:other")), (6, 2));
}

#[test]
fn a_tenant_below_its_floor_comes_first() {
    let mut world = World::new("pool small labels=x max=5\n tenant acme floor=4");
    let other = (1..=9).map(|id| queued(id, "x").of("org:other"));
    let acme = (11..=19).map(|id| queued(id, "x"));
    hears_at_once(&mut world, other.chain(acme).collect());
    let of = |text: &str| world.books().runners().filter(|r| r.scope == scope(text)).count();
    assert_eq!((of("org:acme"), of("org:other")), (4, 1));
}

#[test]
fn a_tenant_that_was_just_served_goes_behind_one_that_has_waited() {
    let mut world = World::new("pool small labels=x max=1");
    world.now = at(60);
    let flood = (1..=50).map(|id| queued(id, "x"));
    hears_at_once(&mut world, flood.collect());
    world.hears(queued(55, "x").of("org:other"));
    // The flood's first job ends; its next one was queued before the other's only one.
    world.comes_online(1);
    world.hears(crate::world::runs(1, "x").on(1, "small"));
    world.hears(crate::world::ended(1, "x").on(1, "small"));
    world.lists_instances("one", &[], &[1]);
    world.deregistered(1);
    world.destroyed(1);
    assert_eq!(world.runner(2).scope, scope("org:other"), "{}", world.tells());
}
