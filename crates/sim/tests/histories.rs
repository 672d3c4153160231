//! Histories of the virtual world under every level of hardship.

use remuda_sim::{Hardship, Level, Mark, Marks, Settings, simulate};

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
    let due = Mark::ALL.iter().filter(|mark| mark.level() <= Level::High && !RAREST.contains(mark));
    let never: Vec<&Mark> = due.filter(|mark| !marks.contains(**mark)).collect();
    assert!(never.is_empty(), "300 histories never reached {never:?}");
}

#[test]
fn listings_that_lie_for_hours_lose_and_leak_nothing_and_cost_only_boots() {
    let marks = check(0..60, 12, 2, Hardship::LYING);
    assert!(marks.contains(Mark::TakenForDeaf), "no runner was sent away on a lie");
}

/// Marks that only thousands of histories reach: `remuda simulate` asks for them.
const RAREST: [Mark; 4] = [Mark::Expired, Mark::WebhookAgesLate, Mark::LandedLate, Mark::Lifetime];

#[test]
fn one_seed_is_one_history() {
    let settings = Settings { seed: 42, jobs: 20, hours: 2, hardship: Hardship::HIGH, trace: true };
    assert_eq!(simulate(settings), simulate(settings));
}
