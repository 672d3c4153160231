//! Tenants: whom a table of the fleet file means, and whose turn it is.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use remuda_core::job::JobState;
use remuda_core::observation::Observation;
use remuda_core::plan::PATIENCE;
use remuda_core::runner::{RunnerId, RunnerState};
use remuda_core::snapshot::Change;
use remuda_core::{Seen, Snapshot, observe, plan};

use crate::world::{Told, World, at, fleet, installation, queued, scope, seconds};

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

/// A turn goes by: what runs ends, and the place it had is free. Gives whose runner comes next.
struct Place {
    books: Snapshot,
}

impl Place {
    /// A fleet with these jobs, each given by its number, its owner and when it was queued.
    fn new(text: &str, jobs: impl Iterator<Item = (u64, usize, i64)>, now: i64) -> Self {
        let mut books = Snapshot::new(installation(), Arc::new(fleet(text)));
        books.now = at(now);
        for (id, owner, queued_at) in jobs {
            let mut told = asks(id, 100 + owner as u64, &format!("org-{owner}"));
            told.0.queued_at = Some(at(queued_at));
            let fact = Observation::Job(Box::new(told.delivered(at(now))));
            books.apply(&observe(&books, &fact));
        }
        Self { books }
    }

    /// Plans; the runners that were made, by the number of their owner.
    fn plans(&mut self) -> Vec<(RunnerId, usize)> {
        let plan = plan(&self.books);
        self.books.apply(&plan.changes);
        let made = plan.changes.iter().filter_map(|change| match change {
            Change::Runner(runner) if runner.state == RunnerState::Pending => Some(&**runner),
            _ => None,
        });
        made.map(|runner| {
            let login = runner.scope.owner().as_str();
            (runner.id, login.strip_prefix("org-").unwrap().parse().unwrap())
        })
        .collect()
    }

    /// The runner's job starts: its owner's oldest that waits.
    fn starts(&mut self, id: RunnerId) {
        let scope = self.books.runner(id).unwrap().scope.clone();
        let mine = self.books.jobs().filter(|job| job.scope == scope && job.is_demand());
        let first = mine.min_by_key(|job| (job.attempt.queued_at, job.key.clone()));
        let mut job = first.unwrap().clone();
        job.attempt.state = JobState::InProgress;
        let mut runner = self.books.runner(id).unwrap().clone();
        runner.job = Some(job.key.clone());
        runner.enter(RunnerState::Busy, None, self.books.now);
        self.books.apply(&[Change::Job(Box::new(job)), Change::Runner(Box::new(runner))]);
    }

    /// The tenant holds one more runner, of a pool of its own.
    fn holds_elsewhere(&mut self, owner: usize) {
        let id = 50_000 + self.books.active_runners().count() as u64;
        let mut told = asks(id, 100 + owner as u64, &format!("org-{owner}"));
        told.0.wanted = remuda_core::label::Wanted::AllOf(crate::world::labels("own"));
        told.0.queued_at = Some(at(0));
        let waiting: Vec<_> = self.books.jobs().cloned().collect();
        let away = waiting.iter().map(|job| Change::ForgetJob(job.key.clone()));
        self.books.apply(&away.collect::<Vec<_>>());
        let fact = Observation::Job(Box::new(told.delivered(self.books.now)));
        self.books.apply(&observe(&self.books, &fact));
        for (id, _) in self.plans() {
            self.starts(id);
        }
        let back = waiting.into_iter().map(|job| Change::Job(Box::new(job)));
        self.books.apply(&back.collect::<Vec<_>>());
    }

    /// After a time the runner's job has ended, and an hour later nobody remembers the runner.
    fn ends(&mut self, id: RunnerId, after: u64) {
        self.books.now = self.books.now + seconds(after);
        let job = self.books.runner(id).and_then(|runner| runner.job.clone());
        self.books.apply(&[Change::ForgetRunner(id)]);
        self.books.apply(&job.map(Change::ForgetJob).into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn turns_are_remembered_longer_than_runners() {
    // Three tenants with old jobs take turns at one place; a fourth has one younger job.
    let old = (0..60).map(|id| (id, (id % 3) as usize, 0));
    let mut place = Place::new("pool small labels=x max=1", old.chain([(99, 3, 10)]), 20);
    let mut turns = Vec::new();
    while turns.last() != Some(&3) && turns.len() < 20 {
        let (id, owner) = place.plans()[0];
        place.starts(id);
        place.ends(id, 300);
        turns.push(owner);
    }
    assert_eq!(turns.len(), 4, "{turns:?}");
}

#[test]
fn one_job_waits_for_one_turn_of_ten_thousand() {
    let flood = (0..10_000).map(|id| (id, 0, 0));
    let mut place = Place::new("pool small labels=x max=2", flood.chain([(10_000, 1, 30)]), 20);
    let made = place.plans();
    assert_eq!(made.iter().map(|(_, owner)| *owner).collect::<Vec<_>>(), [0, 1]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_waits_longer_for_a_turn_than_the_bound(
        floods in prop::collection::vec((1..4_u32, 0..4_u32, 1..6_u64), 1..5),
        (weight, held) in (1..3_u32, 0..4_u32),
        places in 1..4_u32,
        length in select(vec![60_u64, 600, 2400, 7200]),
    ) {
        // Tenant 0 holds `held` runners elsewhere and has one job here; each of the others always has more.
        let mut text = format!("pool small labels=x max={places}\npool own labels=own max=9\n");
        let _ = writeln!(text, "tenant org-0 weight={weight}");
        for (number, (weight, floor, _)) in (1..).zip(&floods) {
            let _ = writeln!(text, "tenant org-{number} weight={weight} floor={floor}");
        }
        let flood = (1..).zip(&floods).flat_map(|(owner, (_, _, tens))| {
            (0..tens * 40).map(move |id| (1000 * owner as u64 + id, owner, 0))
        });
        let mut place = Place::new(&text, flood.chain([(1, 0, 15)]), 20);
        for _ in 0..held {
            place.holds_elsewhere(0);
        }
        let others = floods.len() as u64;
        let patience = PATIENCE.as_secs() * u64::from(weight + held) / u64::from(weight);
        let bound = patience + 1 + (others + 1) * length;
        let mut running = VecDeque::new();
        while place.books.now < at(20) + seconds(bound) {
            for (id, owner) in place.plans() {
                if owner == 0 {
                    return Ok(());
                }
                place.starts(id);
                running.push_back(id);
            }
            let Some(id) = running.pop_front() else { break };
            place.ends(id, length);
        }
        prop_assert!(false, "no turn within {bound} s");
    }
}
