//! The real program under real kills: replicas, runners and whatever these have started die at random
//! moments, and the leader is stopped past its lease, while jobs keep coming. What is counted afterwards
//! must be nothing.
//!
//! `REMUDA_CHAOS="kills=1000 jobs=500"` is the long form (`scripts/chaos`); without it a short one is played.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on stops the test")]
#![expect(clippy::print_stderr, reason = "what was counted is for people, too")]

#[path = "../common/mod.rs"]
mod common;
mod stage;
mod tally;

use common::shared::Database;
use stage::{Chances, Stage};

/// How much is played.
#[derive(Clone, Copy, Debug)]
struct Length {
    /// Processes to kill.
    kills: usize,
    /// Jobs that are kept open meanwhile.
    jobs: u64,
    /// Runners at once.
    runners: u32,
    /// What chance is drawn from.
    seed: u64,
}

impl Length {
    fn asked_for() -> Self {
        let short = Self { kills: 24, jobs: 30, runners: 8, seed: u64::from(std::process::id()) };
        let Some(text) = std::env::var_os("REMUDA_CHAOS") else { return short };
        let mut length = Self { runners: 40, ..short };
        for word in text.to_str().unwrap().split_whitespace() {
            let (key, value) = word.split_once('=').expect("REMUDA_CHAOS holds KEY=NUMBER words");
            let number: u64 = value.parse().unwrap();
            match key {
                "kills" => length.kills = usize::try_from(number).unwrap(),
                "jobs" => length.jobs = number,
                "runners" => length.runners = u32::try_from(number).unwrap(),
                "seed" => length.seed = number,
                other => panic!("REMUDA_CHAOS knows no {other:?}, but kills, jobs, runners, seed"),
            }
        }
        length
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_servers_and_runners_lose_double_leak_and_interrupt_nothing() {
    let length = Length::asked_for();
    eprintln!("chaos: one server, {length:?}");
    play(Stage::put_up(&length, None).await, length).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_two_replicas_and_their_runners_lose_double_leak_and_interrupt_nothing() {
    let Some(database) = Database::new().await else { return };
    let length = Length::asked_for();
    eprintln!("chaos: two replicas, {length:?}");
    play(Stage::put_up(&length, Some(&database)).await, length).await;
    database.close().await;
}

async fn play(mut stage: Stage, length: Length) {
    let mut chances = Chances::new(length.seed);
    while stage.tally.kills() < length.kills {
        stage.keeps_open(length.jobs);
        stage.moment(&mut chances).await;
        match chances.below(20) {
            0..=8 => stage.kills_a_server(&mut chances).await,
            9..=18 => stage.kills_in_a_runner(&mut chances),
            // Each costs the length of a lease.
            _ if stage.tally.stops * 40 <= stage.tally.kills() => stage.stops_the_leader().await,
            _ => {}
        }
    }
    if stage.tally.stops == 0 {
        stage.stops_the_leader().await;
    }
    let tally = stage.comes_to_rest().await;
    eprintln!("chaos: {tally}");
    assert!(tally.is_clean(), "{}\n{tally}", stage.log());
    stage.strike().await;
}
