//! What is kept of a job, and how facts about it fold together.

use remuda_core::job::{Conclusion, JobKey, JobState, Trust};
use remuda_core::label::Wanted;
use remuda_core::observation::{Call, Cause, Subject};
use remuda_core::runner::Outcome;
use remuda_core::tenant::OwnerKind;

use crate::world::{World, at, ended, forge, labels, queued, runs, scope};

const SMALL: &str = "pool small labels=linux max=2";

// A15
#[test]
fn a_queued_job_of_an_organization_is_kept_with_all_that_was_told() {
    let mut world = World::new(SMALL);
    world.hears(queued(12, "linux"));
    let job = world.job(12);
    assert_eq!(job.key, JobKey::rest(&forge(), 12));
    assert_eq!((job.tenant.kind, job.tenant.id), (OwnerKind::Organization, 7));
    assert_eq!((&job.scope, job.repository.to_string()), (&scope("org:acme"), "acme/app".into()));
    assert_eq!((&job.wanted, job.trust), (&Wanted::AllOf(labels("linux")), Trust::Unknown));
    let attempt = &job.attempt;
    assert_eq!((attempt.number, attempt.state, attempt.queued_at), (1, JobState::Queued, at(12)));
    let tenant = world.books().tenants().next().unwrap();
    assert_eq!((tenant.tenant.key.id, tenant.tenant.login.as_str()), (7, "acme"));
}

// A16 (README.md), W19
#[test]
fn a_personal_job_is_its_users_and_registers_at_its_repository() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "linux").of("repo:solo/app"));
    let job = world.job(1);
    assert_eq!((job.tenant.kind, job.tenant.id), (OwnerKind::User, 7));
    assert_eq!(job.scope, scope("repo:solo/app"));
}

// A17, A22, A46
#[test]
fn a_job_in_progress_is_so_by_delivery_and_by_reading() {
    for by_reading in [false, true] {
        let mut world = World::new(SMALL);
        world.hears(queued(1, "linux"));
        world.passes(1);
        if by_reading {
            world.reads(runs(1, "linux"));
        } else {
            world.hears(runs(1, "linux"));
        }
        assert_eq!((world.job_is(1), world.why(1)), ("in_progress", vec![]));
    }
}

// A18, A25, A26, A45
#[test]
fn a_completed_job_is_over_from_wherever_it_stood() {
    for told in [vec![], vec![queued(1, "linux")], vec![queued(1, "linux"), runs(1, "linux")]] {
        for by_reading in [false, true] {
            let mut world = World::new(SMALL);
            for told in told.clone() {
                world.hears(told);
            }
            world.passes(10);
            let end = ended(1, "linux");
            if by_reading {
                world.reads(end)
            } else {
                world.hears(end)
            };
            let attempt = &world.job(1).attempt;
            assert_eq!((attempt.state, attempt.number), (JobState::Completed, 1));
            assert_eq!(attempt.conclusion, Some(Conclusion::Success));
        }
    }
}

// A19, A20
#[test]
fn a_delivery_that_comes_twice_makes_one_job_and_one_runner() {
    let mut world = World::new(SMALL);
    assert!(!world.hears(queued(1, "linux")).is_idle());
    assert!(world.hears(queued(1, "linux")).is_idle());
    world.passes(60);
    world.hears(queued(1, "linux"));
    assert_eq!(world.books().jobs().count(), 1);
    assert_eq!(world.calls(), ["launch 1 of small"]);
}

// A21
#[test]
fn labels_in_another_order_are_the_same_demand() {
    let mut world = World::new("pool small labels=a,b max=2");
    world.hears(queued(1, "a b"));
    world.hears(queued(2, "b A"));
    assert_eq!(world.job(1).wanted, world.job(2).wanted);
}

// A23, A27
#[test]
fn what_was_already_known_changes_nothing() {
    let mut world = World::new(SMALL);
    world.hears(runs(1, "linux"));
    assert!(world.hears(runs(1, "linux")).is_idle());
    world.hears(ended(1, "linux"));
    assert!(world.hears(ended(1, "linux")).is_idle());
}

// A24, A28 (README.md)
#[test]
fn a_job_first_heard_of_late_in_its_life_is_kept_and_gets_no_runner() {
    let mut world = World::new(SMALL);
    world.hears(runs(1, "linux"));
    world.hears(ended(2, "linux"));
    assert_eq!((world.job_is(1), world.job_is(2)), ("in_progress", "completed"));
    world.hears(queued(2, "linux"));
    assert_eq!((world.job_is(2), world.calls().len()), ("completed", 0));
}

// A29, A30 (README.md)
#[test]
fn how_a_job_and_its_runner_ended_is_kept_as_words_of_a_closed_set() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "linux"));
    world.comes_online(1);
    world.hears(runs(1, "linux").on(1, "small"));
    let mut failed = ended(1, "linux").on(1, "small");
    failed.0.conclusion = Some(Conclusion::Failure);
    world.hears(failed);
    world.lists_instances("one", &[], &[1]);
    assert_eq!(world.job(1).attempt.conclusion, Some(Conclusion::Failure));
    assert_eq!(world.runner(1).outcome, Some(Outcome::Finished));
    assert_eq!(
        world.books().instance(world.runner(1).instance).unwrap().exit.unwrap().code,
        Some(1)
    );
}

// A22-A28: within an attempt nothing moves left, whatever the order.
#[test]
fn deliveries_in_any_order_end_in_one_state_and_make_no_extra_runner() {
    let all =
        [queued(1, "linux"), runs(1, "linux").on(1, "small"), ended(1, "linux").on(1, "small")];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut world = World::new(SMALL);
        for index in order {
            world.hears(all[index].clone());
            world.hears(all[index].clone());
        }
        assert_eq!(world.job_is(1), "completed", "{order:?}");
        let made = world
            .books()
            .runners()
            .filter(|runner| {
                runner.job.is_none() && runner.state == remuda_core::runner::RunnerState::Pending
            })
            .count();
        assert_eq!(made, 0, "{order:?}");
    }
}

// W20
#[test]
fn a_job_that_was_put_back_is_served_again() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "linux"));
    world.comes_online(1);
    world.hears(runs(1, "linux").on(1, "small"));
    world.passes(100);
    world.actions();
    // A `queued` for a started job may be old news: only a read tells.
    world.hears(queued(1, "linux"));
    assert_eq!((world.job_is(1), world.looks().contains(&"read 1".into())), ("in_progress", true));
    world.reads(queued(1, "linux"));
    assert_eq!((world.job_is(1), world.job(1).attempt.number), ("queued", 2));
    assert!(world.calls().contains(&"launch 2 of small".into()));
}

// W20
#[test]
fn late_facts_of_a_former_runner_are_ignored() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "linux"));
    world.comes_online(1);
    world.hears(runs(1, "linux").on(1, "small"));
    world.passes(100);
    world.reads(queued(1, "linux"));
    world.hears(runs(1, "linux").on(1, "small"));
    assert_eq!((world.job_is(1), world.job(1).attempt.number), ("queued", 2));
    world.hears(runs(1, "linux").on(2, "small"));
    assert_eq!(world.job(1).attempt.runner.as_ref().unwrap().id, 1002);
}

// W20
#[test]
fn a_read_that_is_no_newer_than_what_is_known_puts_no_job_back() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "linux"));
    let asked_at = world.now;
    world.passes(3);
    world.hears(runs(1, "linux").on(1, "small"));
    let late = queued(1, "linux").read(asked_at);
    world.sees(remuda_core::Observation::Job(Box::new(late)));
    assert_eq!((world.job_is(1), world.job(1).attempt.number), ("in_progress", 1));
}

#[test]
fn a_runner_whose_job_seems_put_back_is_destroyed_only_after_the_forge_let_go_of_it() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "linux"));
    world.comes_online(1);
    world.hears(runs(1, "linux").on(1, "small"));
    world.passes(200);
    world.actions();
    world.reads(queued(1, "linux"));
    assert!(world.calls().contains(&"deregister remuda-test-small-1".into()));
    // The read was stale: the forge says that the runner is at work.
    world.refused_as_busy(1);
    world.passes(100);
    assert_eq!(world.runner_is(1), "busy");
    assert!(!world.calls().iter().any(|call| call.starts_with("destroy")));
    world.reads(runs(1, "linux").on(1, "small"));
    world.hears(ended(1, "linux").on(1, "small"));
    assert_eq!(world.job_is(1), "completed");
    world.passes(31);
    assert!(world.calls().contains(&"destroy 1".into()));
}

// A47 (README.md), W21
#[test]
fn one_404_proves_nothing_and_two_only_stop_the_serving() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "linux"));
    world.passes(10);
    world.misses(1);
    assert_eq!((world.job_is(1), world.why(1)), ("queued", vec!["runner_starting"]));
    world.passes(10);
    world.misses(1);
    assert_eq!((world.job_is(1), world.why(1)), ("queued", vec!["unknown_to_forge"]));
    world.passes(60);
    world.reads(queued(1, "linux"));
    assert_eq!(world.why(1), ["runner_starting"]);
}

// W21
#[test]
fn a_job_that_the_forge_denied_is_believed_when_it_runs_after_all() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "linux"));
    for _ in 0..5 {
        world.passes(600);
        world.misses(1);
    }
    world.hears(runs(1, "linux"));
    assert_eq!((world.job_is(1), world.job(1).doubt), ("in_progress", None));
}

// W21
#[test]
fn a_job_denied_for_longer_than_the_forge_keeps_one_is_over() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "linux"));
    for _ in 0..26 {
        world.passes(3600);
        world.misses(1);
    }
    assert_eq!(world.job(1).attempt.conclusion, Some(Conclusion::Expired));
}

// W21
#[test]
fn a_job_that_a_runner_of_ours_is_at_is_not_over_however_long_it_is_denied() {
    let mut world = World::new(SMALL);
    world.hears(queued(1, "linux"));
    world.comes_online(1);
    world.hears(runs(1, "linux").on(1, "small"));
    for _ in 0..50 {
        world.passes(3600);
        world.misses(1);
    }
    assert_eq!((world.job_is(1), world.runner_is(1)), ("in_progress", "busy"));
    assert!(!world.calls().iter().any(|call| call.starts_with("destroy")));
}

// A48 (README.md)
#[test]
fn a_scope_that_cannot_be_read_ends_none_of_its_jobs() {
    let mut world = World::new(SMALL);
    world.hears(runs(1, "linux"));
    world.fails(Subject::Jobs(forge(), scope("org:acme")), Call::Look, Cause::Invalid);
    world.passes(601);
    assert!(world.looks().contains(&"read 1".into()));
    let subject = Subject::Job(JobKey::rest(&forge(), 1));
    world.fails(subject, Call::Look, Cause::Invalid);
    assert_eq!(world.job_is(1), "in_progress");
}

#[test]
fn a_job_that_a_listing_of_several_pages_shows_twice_is_folded_once() {
    let mut world = World::new(SMALL);
    world.lists_jobs("org:acme", vec![runs(1, "linux"), queued(1, "linux")]);
    assert_eq!((world.job_is(1), world.job(1).attempt.number), ("in_progress", 1));
}

#[test]
fn an_ended_job_is_forgotten_once_no_redelivery_can_come() {
    let mut world = World::new(SMALL);
    world.hears(ended(1, "linux"));
    world.passes(6 * 86_400);
    world.hears(queued(1, "linux"));
    assert_eq!(world.job_is(1), "completed");
    world.passes(2 * 86_400);
    assert_eq!(world.books().jobs().count(), 0);
}
