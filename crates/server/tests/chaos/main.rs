//! The real program under real kills: replicas, runners, whatever these have started, and the database die at
//! random moments, and the leader is stopped and cut off past its lease, while jobs keep coming. What is
//! counted afterwards must be nothing.
//!
//! `REMUDA_CHAOS="kills=1000 jobs=500"` is the long form (`scripts/chaos`); without it a short one is played.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on stops the test")]
#![expect(clippy::print_stderr, reason = "what was counted is for people, too")]

mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod stage;
mod tally;
mod wire;

use std::time::Instant;

use cluster::Cluster;
use stage::{Chances, Stage};
use wire::Weather;

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
        let short = Self { kills: 16, jobs: 30, runners: 8, seed: u64::from(std::process::id()) };
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
    eprintln!("chaos: one server on SQLite, {length:?}");
    play(Stage::put_up(&length, None).await, length).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_replicas_runners_and_their_database_lose_double_leak_and_interrupt_nothing() {
    let Some(cluster) = Cluster::start().await else { return };
    let length = Length::asked_for();
    eprintln!("chaos: two replicas on PostgreSQL, {length:?}");
    play(Stage::put_up(&length, Some(cluster)).await, length).await;
}

async fn play(mut stage: Stage, length: Length) {
    let (mut chances, begun) = (Chances::new(length.seed), Instant::now());
    // What costs the length of a lease comes seldom.
    let parts = 1 + length.kills / 200;
    for part in 1..=parts {
        while stage.tally.kills() < length.kills * part / parts {
            stage.keeps_open(length.jobs);
            stage.moment(&mut chances).await;
            stage.strikes(&mut chances).await;
        }
        stage.kills_the_database(&mut chances).await;
        stage.cuts_all_off(&mut chances).await;
        for weather in [Weather::Cut, Weather::Stalled].into_iter().skip(usize::from(parts == 1)) {
            stage.keeps_open(length.jobs);
            stage.cuts_the_leader_off(weather).await;
        }
        stage.keeps_open(length.jobs);
        stage.stops_the_leader().await;
    }
    let tally = stage.comes_to_rest().await;
    eprintln!("chaos: {tally}, in {:.0?}", begun.elapsed());
    assert!(tally.is_clean(), "{}\n{tally}", stage.log());
    stage.strike();
}
