//! Histories of the virtual world under every level of hardship.

use remuda_sim::{Hardship, Mark, Marks, Settings, simulate};

fn check(seeds: std::ops::Range<u64>, jobs: u32, hours: u32, hardship: Hardship) -> Marks {
    let mut marks = Marks::default();
    for seed in seeds {
        match simulate(Settings { seed, jobs, hours, hardship, trace: false }) {
            Ok(report) => {
                assert_eq!(report.jobs, jobs);
                marks.extend(report.marks);
            }
            Err(failure) => {
                panic!("{failure}\nremuda simulate --seed {seed} --jobs {jobs} --trace")
            }
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
    let marks = check(0..300, 12, 2, Hardship::HIGH);
    let never: Vec<&Mark> =
        Mark::ALL.iter().filter(|mark| !RAREST.contains(mark) && !marks.contains(**mark)).collect();
    assert!(never.is_empty(), "300 histories never reached {never:?}");
}

/// Marks that only thousands of histories reach: `remuda simulate` asks for them.
const RAREST: [Mark; 4] = [Mark::Expired, Mark::WebhookAgesLate, Mark::LandedLate, Mark::Lifetime];

#[test]
fn one_seed_is_one_history() {
    let settings = Settings { seed: 42, jobs: 20, hours: 2, hardship: Hardship::HIGH, trace: true };
    assert_eq!(simulate(settings), simulate(settings));
}
