//! Histories of the virtual world under every level of hardship.

use std::collections::BTreeSet;

use remuda_sim::{Hardship, Settings, simulate};

fn check(
    seeds: std::ops::Range<u64>,
    jobs: u32,
    hours: u32,
    hardship: Hardship,
) -> BTreeSet<&'static str> {
    let mut marks = BTreeSet::new();
    for seed in seeds {
        match simulate(Settings { seed, jobs, hours, hardship, trace: false }) {
            Ok(report) => {
                assert_eq!(report.jobs, jobs);
                marks.extend(report.marks);
            }
            Err(failure) => panic!("{failure}\nremuda simulate --seed {seed} --trace"),
        }
    }
    marks
}

#[test]
fn a_calm_world_serves_every_job_in_time() {
    check(0..100, 20, 2, Hardship::NONE);
}

#[test]
fn cancellations_and_doubled_webhooks_leave_nothing_behind() {
    check(0..100, 20, 2, Hardship::LOW);
}

#[test]
fn a_bad_week_loses_and_leaks_nothing() {
    check(0..100, 20, 2, Hardship::NORMAL);
}

#[test]
fn everything_at_once_loses_and_leaks_nothing_and_reaches_the_rare_branches() {
    let marks = check(0..200, 20, 2, Hardship::HIGH);
    let rare = [
        "answer lost",
        "boot dies",
        "boot hangs",
        "deregistration refused as busy",
        "huge delay",
        "job cancelled",
        "job denied",
        "job put back",
        "killed before the commit",
        "killed between the commit and the calls",
        "killed with calls in flight",
        "listing empty by surprise",
        "registered too late",
        "registration refused in an outage",
        "runner died with its job",
        "runner went deaf",
        "webhook lost",
    ];
    for mark in rare {
        assert!(marks.contains(mark), "no history reached {mark:?}");
    }
}

#[test]
fn one_seed_is_one_history() {
    let settings = Settings { seed: 42, jobs: 20, hours: 2, hardship: Hardship::HIGH, trace: true };
    assert_eq!(simulate(settings), simulate(settings));
}
