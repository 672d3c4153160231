//! A runner's life by the clock, as Embeddenator's specification asks for it: gone after its idle time,
//! there again for the next job, never older than it may be, looked at every 30 seconds, replaced.

use proptest::prelude::*;
use remuda_core::Action;
use remuda_core::action::Look;
use remuda_core::pool::{Gather, Limits, Mode};
use remuda_core::runner::{Outcome, RunnerState};

use crate::world::{World, at, ended, queued, runs, seconds};

fn small() -> World {
    World::new("pool small labels=x max=99")
}

/// A world with a runner that idles since now, the pool's idle limit being this.
fn idling(limit: u64) -> World {
    let mut fleet = crate::world::fleet("pool small labels=x max=99");
    for pool in fleet.pools.values_mut() {
        pool.limits = Limits { idle: seconds(limit), ..Limits::default() };
    }
    let mut world = World::of(fleet);
    world.hears(queued(1, "x"));
    world.comes_online(1);
    world.hears(ended(1, "x"));
    world
}

proptest! {
    // FR-4: 300 s, give or take 5. The server turns twice a second; here within five.
    #[test]
    fn an_idle_runner_leaves_at_its_limit(
        limit in prop_oneof![Just(300_u64), 1..3600_u64],
        steps in prop::collection::vec(1..=5_u64, 3700),
    ) {
        let mut world = idling(limit);
        let since = world.now;
        for step in steps {
            world.passes(step);
            let idled = world.now.since(since);
            if world.runner(1).state == RunnerState::Draining {
                prop_assert!(idled >= seconds(limit) && idled <= seconds(limit + 5));
                prop_assert_eq!(world.runner(1).outcome, Some(Outcome::Surplus));
                return Ok(());
            }
            prop_assert!(idled < seconds(limit));
        }
        prop_assert!(false, "it never left");
    }

    // FR-4: the next job has its runner in the books in the very turn that takes it in.
    #[test]
    fn the_next_job_gets_its_runner_within_a_second(jobs in prop::collection::vec(1..400_u64, 1..20)) {
        let mut world = small();
        for (id, pause) in (1..).zip(jobs) {
            world.passes(pause);
            let heard = world.now;
            world.hears(queued(id, "x"));
            let on_disk = world.disk.runners().any(|runner| {
                runner.since.at(RunnerState::Pending) == Some(heard)
            });
            prop_assert!(on_disk, "no intent was committed for job {}", id);
        }
    }

    // NFR-2c: what has instances is listed every 30 seconds, so an end is seen within that and the call.
    #[test]
    fn a_dead_runner_is_noticed_within_thirty_seconds_and_a_call(
        ends in 1..600_u64,
        takes in 0..5_u64,
        busy in any::<bool>(),
    ) {
        let mut world = small();
        world.hears(queued(1, "x"));
        world.comes_online(1);
        if busy {
            world.hears(runs(1, "x").on(1, "small"));
        }
        world.actions();
        world.lists_instances("one", &[1], &[]);
        let dies = world.now + seconds(ends);
        for _ in 0..700 {
            world.passes(1);
            for call in world.actions() {
                let Action::Look(Look::Instances { .. }) = call else { continue };
                let dead = world.now >= dies;
                for _ in 0..takes {
                    world.passes(1);
                }
                let (running, ended): (&[u64], &[u64]) = if dead { (&[], &[1]) } else { (&[1], &[]) };
                world.lists_instances("one", running, ended);
            }
            if world.books().instances().next().unwrap().exit.is_some() {
                prop_assert!(world.now.since(dies) <= seconds(31 + 2 * takes));
                return Ok(());
            }
        }
        prop_assert!(false, "nobody noticed");
    }
}

// NFR-2b: what died is replaced while there is demand, in the same turn.
#[test]
fn a_runner_that_died_is_replaced_while_its_job_waits_and_not_without() {
    for waits in [true, false] {
        let mut world = small();
        world.hears(queued(1, "x"));
        world.comes_online(1);
        if !waits {
            world.hears(ended(1, "x"));
        }
        world.actions();
        world.lists_instances("one", &[], &[1]);
        world.passes(2);
        let launches = world.calls().into_iter().filter(|call| call.starts_with("launch"));
        assert_eq!(launches.count(), usize::from(waits));
    }
}

#[test]
fn a_runner_is_never_older_than_its_lifetime_unless_it_has_a_job() {
    let mut world = World::new("pool small labels=x max=9 min_idle=1 scopes=org:acme");
    world.passes(1);
    world.comes_online(1);
    world.hears(queued(1, "x"));
    world.comes_online(2);
    world.hears(runs(1, "x").on(1, "small"));
    world.passes(86_399);
    assert_eq!((world.runner_is(1), world.runner_is(2)), ("busy", "idle"));
    world.passes(1);
    assert_eq!((world.runner_is(1), world.runner_is(2)), ("busy", "draining"));
    assert_eq!(world.runner(2).outcome, Some(Outcome::Lifetime));
}

// FR-4: an outage of the forge is no reason to let anybody go.
#[test]
fn a_forge_that_answers_nothing_costs_no_runner_that_is_kept() {
    let mut world = World::new("pool small labels=x max=9 min_idle=2 scopes=org:acme");
    world.passes(1);
    world.comes_online(1);
    world.comes_online(2);
    world.actions();
    for _ in 0..360 {
        world.passes(10);
        for call in world.actions() {
            if let Action::Look(Look::Instances { .. }) = call {
                world.lists_instances("one", &[1, 2], &[]);
            } else {
                let (call_of, cause) = (
                    remuda_core::observation::Call::Look,
                    remuda_core::observation::Cause::Transient,
                );
                world.fails(call.subject(), call_of, cause);
            }
        }
    }
    assert_eq!((world.runner_is(1), world.runner_is(2)), ("idle", "idle"));
}

// S-3: Embeddenator's thresholds.
#[test]
fn modes_are_the_seeds_thresholds() {
    let gather = |jobs, wait| Gather { jobs, wait: seconds(wait) };
    assert_eq!(Mode::Lazy.gather(), gather(5, 120));
    assert_eq!(Mode::Balanced.gather(), gather(2, 60));
    assert_eq!(Mode::Aggressive.gather(), gather(1, 30));
}

#[test]
fn a_pool_waits_for_as_many_jobs_as_its_mode_says_and_no_longer_than_it_says() {
    for (mode, jobs, wait) in [("lazy", 5, 120), ("balanced", 2, 60), ("aggressive", 1, 30)] {
        let fleet = format!("pool small labels=x max=99 mode={mode}");
        let mut world = World::new(&fleet);
        for id in 1..jobs {
            world.hears(queued(id, "x"));
            assert_eq!(world.why(id)[0], "gathering", "{mode}");
        }
        world.hears(queued(jobs, "x"));
        assert_eq!(world.runners_of("small"), usize::try_from(jobs).unwrap(), "{mode}");
        // One alone is served when it has waited long enough, and at once by a runner that is there.
        let mut world = World::new(&fleet);
        world.hears(queued(1, "x"));
        world.passes(wait - 1);
        assert_eq!(world.runners_of("small"), usize::from(jobs == 1), "{mode}");
        world.passes(1);
        assert_eq!(world.runners_of("small"), 1, "{mode}");
        world.comes_online(1);
        world.hears(ended(1, "x"));
        world.hears(queued(2, "x"));
        assert_eq!(world.why(2), ["runner_idle"], "{mode}");
        assert!(world.now >= at(0));
    }
}
