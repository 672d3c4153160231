//! Which pool a job gets its runner from, and what it is told if none.

use remuda_core::job::JobState;
use remuda_core::reason::Reason;

use crate::world::{World, ended, job, queued, runs};

const BOARDS: &str = "
    pool em labels=self-hosted,ubuntu-24.04-riscv max=2
    pool rvv labels=self-hosted,ubuntu-24.04-riscv,rvv max=2
";

// A12
#[test]
fn a_job_gets_a_runner_of_the_pool_with_the_fewest_needless_labels() {
    let mut world = World::new(BOARDS);
    world.hears(queued(1, "ubuntu-24.04-riscv"));
    world.hears(queued(2, "ubuntu-24.04-riscv rvv"));
    assert_eq!(world.calls(), ["launch 1 of em", "launch 2 of rvv"]);
}

// A12, W24
#[test]
fn case_order_and_self_hosted_do_not_matter() {
    let mut world = World::new(BOARDS);
    world.hears(queued(1, "RVV Self-Hosted"));
    assert_eq!(world.calls(), ["launch 1 of rvv"]);
}

// A13, A14, W24
#[test]
fn a_job_that_no_pool_satisfies_is_kept_and_told_what_is_lacking() {
    let mut world = World::new(BOARDS);
    world.hears(queued(1, "ubuntu-24.04-riscv gpu"));
    assert_eq!(world.calls(), [] as [&str; 0]);
    let key = world.job(1).key.clone();
    let (_, reasons) = world.controller.reasons(&key).unwrap();
    let Reason::NoPoolHasLabels { nearest: Some((pool, lacking)), .. } = &reasons[0] else {
        panic!("{reasons:?}");
    };
    assert_eq!((pool.as_str(), &**lacking), ("em", "gpu"));
}

// W24
#[test]
fn a_label_that_merely_resembles_a_pools_is_no_match() {
    let mut world = World::new(BOARDS);
    world.hears(queued(1, "xxubuntu-24.04-riscv-foo"));
    assert_eq!(world.why(1), ["no_pool_has_labels"]);
}

// W26
#[test]
fn a_job_behind_a_deployment_gate_gets_no_runner_before_it_is_released() {
    let mut world = World::new(BOARDS);
    world.hears(job(1, JobState::Waiting, "rvv"));
    assert_eq!((world.calls().len(), world.why(1)), (0, vec!["held_by_forge"]));
    world.hears(queued(1, "rvv"));
    assert_eq!(world.calls(), ["launch 1 of rvv"]);
}

// W22
#[test]
fn a_small_job_on_a_larger_runner_does_not_strand_the_larger_job() {
    let mut world = World::new(
        "
        pool small labels=x max=3
        pool large labels=x,y max=3
    ",
    );
    world.hears(queued(1, "x"));
    world.hears(queued(2, "x y"));
    world.comes_online(1);
    world.comes_online(2);
    assert_eq!(world.calls(), ["launch 1 of small", "launch 2 of large"]);
    // The forge hands the small job to the large runner.
    world.hears(runs(1, "x").on(2, "large"));
    assert_eq!(world.calls(), ["launch 3 of large"]);
    assert_eq!(world.runner_is(1), "idle");
}

// W22
#[test]
fn an_idle_runner_with_more_labels_is_counted_on_before_a_new_one_is_made() {
    let mut world = World::new(
        "
        pool small labels=x max=3
        pool large labels=x,y max=3
    ",
    );
    world.hears(queued(1, "x y"));
    world.comes_online(1);
    world.hears(ended(1, "x y"));
    world.actions();
    world.hears(queued(2, "x"));
    assert_eq!((world.calls().len(), world.why(2)), (0, vec!["runner_idle"]));
}

// A32
#[test]
fn the_oldest_job_is_served_first_over_all_tenants() {
    let mut world = World::new("pool small labels=x max=1");
    // Both are told of in one turn, the younger one first.
    let seen = [queued(9, "x"), queued(4, "x").of("repo:solo/app")].map(|told| {
        let seen = told.delivered(world.now);
        remuda_core::Seen::Fact(remuda_core::Observation::Job(Box::new(seen)))
    });
    world.turn(seen.into());
    assert_eq!((world.why(4), world.why(9)), (vec!["runner_starting"], vec!["pool_full"]));
}

// A32
#[test]
fn a_blocked_job_blocks_no_other() {
    let mut world = World::new(
        "
        pool small labels=x max=1 provider=one
        pool arm labels=arm max=1 provider=two
    ",
    );
    world.hears(queued(1, "x"));
    world.hears(queued(2, "x"));
    world.hears(queued(3, "x gpu"));
    world.hears(queued(4, "arm"));
    assert_eq!(world.calls(), ["launch 1 of small", "launch 2 of arm"]);
    assert_eq!((world.why(2), world.why(3)), (vec!["pool_full"], vec!["no_pool_has_labels"]));
}

#[test]
fn a_pool_serves_only_the_scopes_it_lists() {
    let mut world = World::new("pool small labels=x scopes=org:acme");
    world.hears(queued(1, "x").of("org:other"));
    assert_eq!(world.why(1), ["no_pool_has_labels"]);
    world.hears(queued(2, "x"));
    assert_eq!(world.calls(), ["launch 1 of small"]);
}
