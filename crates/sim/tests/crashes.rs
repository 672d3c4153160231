//! A leader killed at every durable commit of a history: before it, between it and its calls, between
//! any two of these, and after the last.

use remuda_core::Sound;
use remuda_sim::{Hardship, Kill, Settings, simulate, simulate_killed};

/// Calls after which a kill is tried, of one commit; few commits begin more.
const CALLS: usize = 4;

fn killed_at_every_commit(seed: u64, hardship: Hardship) -> u64 {
    let settings = Settings { seed, jobs: 10, hours: 2, hardship, trace: false };
    let commits = simulate(settings).unwrap_or_else(|failure| panic!("{failure}")).commits;
    for commit in 1..=commits {
        let after = (0..=CALLS).map(|begun| Kill::After(commit, begun));
        for kill in std::iter::once(Kill::Before(commit)).chain(after) {
            match simulate_killed(settings, kill, Sound) {
                Ok(report) => assert!(report.crashes > 0, "{kill:?} killed nobody"),
                Err(failure) => panic!("{kill:?}: {failure}"),
            }
        }
    }
    commits
}

#[test]
fn a_leader_may_be_killed_at_every_commit() {
    let commits = killed_at_every_commit(1, Hardship::NONE);
    assert!(commits > 50, "{commits} commits are too few to mean anything");
}

#[test]
fn a_leader_may_be_killed_at_every_commit_while_answers_are_lost_and_late() {
    let hardship = Hardship {
        answer_lost: 100,
        delay_huge: 30,
        call_fails: 50,
        cancelled: 100,
        ..Hardship::LOW
    };
    let hardship = Hardship { level: remuda_sim::Level::High, ..hardship };
    let commits = killed_at_every_commit(2, hardship);
    assert!(commits > 50, "{commits} commits are too few to mean anything");
}
