//! An earlier version and this one on one real `PostgreSQL`: each leads after the other, on the schema of this one,
//! while jobs run. `scripts/upgrade` builds the earlier version and plays this.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on stops the test")]

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::shared::{Database, Front};
use common::{Estate, REMUDA, Served, free_address};
use remuda_sandbox::{Config, Statistics};
use rustix::process::Signal;

/// Jobs that are submitted before each end of a leader, and after the last.
const BURST: u64 = 25;

struct Replica {
    listen: SocketAddr,
    server: Served,
}

impl Replica {
    fn start(estate: &Estate, program: &Path, name: &str, listen: SocketAddr) -> Self {
        let state = estate.path(name);
        Self { listen, server: estate.serve_as(program, &estate.fleet(), &state, listen) }
    }

    async fn until_it(&self, leads: u8, estate: &Estate) {
        let metric = format!("remuda_leader {leads}");
        let shown = async {
            let mut tick = tokio::time::interval(Duration::from_millis(50));
            loop {
                tick.tick().await;
                let answer = reqwest::get(format!("http://{}/metrics", self.listen)).await;
                let Ok(answer) = answer else { continue };
                if answer.text().await.is_ok_and(|text| text.lines().any(|line| line == metric)) {
                    return;
                }
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), shown).await;
        assert!(waited.is_ok(), "{metric} was not reached\n{}", estate.log());
    }
}

/// Submits jobs and waits until the middle of them.
async fn burst(estate: &Estate, number: u64) {
    let note = format!("echo {number}-${{{{ matrix.n }}}} >> {}", estate.path("diary").display());
    let text = common::burst(usize::try_from(BURST).unwrap(), &[note, common::a_while()]);
    estate.sandbox.submit("acme", "app", &text, 1).unwrap();
    let middle = BURST * number + BURST / 3;
    estate.until("the middle of a burst", |seen| seen.jobs_in("completed") >= middle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_version_and_this_one_lead_in_turn_and_lose_no_job() {
    let Some(earlier) = std::env::var_os("REMUDA_UPGRADE_FROM").map(PathBuf::from) else {
        let line =
            "skipped: an upgrade, as REMUDA_UPGRADE_FROM names no program (see scripts/upgrade)\n";
        std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
        return;
    };
    let database = Database::new().await.expect("an upgrade needs PostgreSQL");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let estate = Estate::new(Config::default()).await;
    estate.shares(&database.url());
    // What is declared by keys that the earlier version does not know is left out.
    let text = std::fs::read_to_string(estate.fleet()).unwrap();
    let known: Vec<_> = text.lines().filter(|line| !line.starts_with("demand = ")).collect();
    std::fs::write(estate.fleet(), known.join("\n")).unwrap();

    let listens = [free_address(), free_address(), free_address(), free_address()];
    let _front = Front::before(estate.listen, listens.to_vec()).await;
    let this = Path::new(REMUDA);

    let old = Replica::start(&estate, &earlier, "old-1", listens[0]);
    old.until_it(1, &estate).await;
    let other = Replica::start(&estate, &earlier, "old-2", listens[1]);
    other.until_it(0, &estate).await;
    // It brings the database to its schema; both others go on.
    let new = Replica::start(&estate, this, "new-1", listens[2]);
    new.until_it(0, &estate).await;

    burst(&estate, 0).await;
    other.server.signal(Signal::STOP);
    assert_eq!(old.server.stop(), Some(0), "{}", estate.log());
    new.until_it(1, &estate).await;
    other.server.signal(Signal::CONT);
    other.until_it(0, &estate).await;

    burst(&estate, 1).await;
    let Replica { mut server, .. } = new;
    server.kill();
    other.until_it(1, &estate).await;

    burst(&estate, 2).await;
    let last = Replica::start(&estate, this, "new-2", listens[3]);
    last.until_it(0, &estate).await;
    assert_eq!(other.server.stop(), Some(0), "{}", estate.log());
    last.until_it(1, &estate).await;

    burst(&estate, 3).await;
    let jobs = 4 * BURST;
    let at_rest =
        |seen: &Statistics| seen.jobs_in("completed") == jobs && seen.runners.registered == 0;
    let seen = estate.until("the end of all jobs", at_rest).await;
    assert_eq!(seen.concluded("success"), jobs, "{seen:?}\n{}", estate.log());
    assert_eq!((seen.requeued, seen.runners.leaked), (0, 0), "{}", estate.log());
    let written = std::fs::read_to_string(estate.path("diary")).unwrap();
    let lines: Vec<_> = written.lines().collect();
    assert_eq!(lines.len() as u64, jobs, "a job ran twice or not at all");
    assert_eq!(lines.into_iter().collect::<BTreeSet<_>>().len() as u64, jobs);
    estate.nothing_left_in(&estate.path("instances")).await;
    assert_eq!(last.server.stop(), Some(0), "{}", estate.log());
    estate.sandbox.close().await;
    database.close().await;
}
