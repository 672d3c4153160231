//! Two real servers on one real `PostgreSQL`: who leads, who stands by, and what becomes of jobs when the leader
//! dies in the middle of a burst.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on stops the test")]

mod common;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use common::shared::{Database, Front};
use common::{Estate, REMUDA, Served, a_while, burst, free_address};
use remuda_sandbox::Config;

/// A server of the pair.
struct Replica {
    state: PathBuf,
    listen: SocketAddr,
    server: Option<Served>,
}

impl Replica {
    fn start(estate: &Estate, name: &str) -> Self {
        let (state, listen) = (estate.path(name), free_address());
        let server = Some(estate.serve_at(&state, listen));
        Self { state, listen, server }
    }

    /// What a verb says to a person, and its exit code.
    fn asks(&self, verb: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(REMUDA);
        let output = command.args(verb).arg("--state").arg(&self.state).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }

    async fn says(&self, path: &str) -> String {
        let answer = reqwest::get(format!("http://{}{path}", self.listen)).await;
        let Ok(answer) = answer else { return String::new() };
        format!("{} {}", answer.status(), answer.text().await.unwrap_or_default())
    }

    async fn until_it_shows(&self, metric: &str) {
        let shown = async {
            let mut tick = tokio::time::interval(Duration::from_millis(50));
            while !self.says("/metrics").await.lines().any(|line| line == metric) {
                tick.tick().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), shown).await;
        assert!(waited.is_ok(), "{metric} was not reached: {}", self.says("/metrics").await);
    }
}

fn workflow(diary: &std::path::Path, jobs: usize) -> String {
    let note =
        |what| format!("echo {what} ${{{{ matrix.n }}}} $GITHUB_REPOSITORY >> {}", diary.display());
    burst(jobs, &[note("begin"), a_while(), note("end")])
}

/// A database and an estate whose books are in it; none where no `PostgreSQL` is to be had.
async fn shared() -> Option<(Database, Estate)> {
    let database = Database::new().await?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let estate = Estate::new(Config::default()).await;
    estate.shares(&database.url());
    Some((database, estate))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_in_mid_burst_is_replaced_and_nothing_is_lost_doubled_or_leaked() {
    const JOBS: u64 = 60;
    let Some((database, estate)) = shared().await else { return };
    let mut first = Replica::start(&estate, "first");
    first.until_it_shows("remuda_leader 1").await;
    let mut second = Replica::start(&estate, "second");
    second.until_it_shows("remuda_leader 0").await;
    let _front = Front::before(estate.listen, vec![first.listen, second.listen]).await;

    // One that stands by is healthy, ready, and says who leads.
    assert_eq!(second.says("/healthz").await, "200 OK ok, standing by\n");
    assert_eq!(second.says("/readyz").await, "200 OK ok\n");
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for verb in [&["get", "jobs"][..], &["describe", "runner", "1"], &["explain", "job", "1"]] {
        let (code, text) = second.asks(verb);
        assert_eq!(code, Some(75), "{text}");
        assert!(text.contains(&format!("this replica stands by: {host}/")), "{text}");
    }
    let (code, text) = second.asks(&["doctor"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("stands by"), "{text}");
    assert_eq!(first.asks(&["get", "jobs"]).0, Some(0));

    let path = estate.path("diary");
    estate.sandbox.submit("acme", "app", &workflow(&path, 30), 1).unwrap();
    estate.sandbox.submit("solo", "app", &workflow(&path, 30), 1).unwrap();
    estate.until("the middle of the burst", |seen| seen.jobs_in("completed") >= 10).await;
    first.server.take().unwrap().kill();
    second.until_it_shows("remuda_leader 1").await;
    // What was killed comes back and stands by.
    first.server = Some(estate.serve_at(&first.state, first.listen));
    first.until_it_shows("remuda_leader 0").await;
    let at_rest = |seen: &remuda_sandbox::Statistics| {
        seen.jobs_in("completed") == JOBS && seen.runners.registered == 0
    };
    let seen = estate.until("the end of all jobs", at_rest).await;
    assert_eq!(seen.concluded("success"), JOBS, "{seen:?}\n{}", estate.log());
    assert_eq!((seen.requeued, seen.runners.leaked), (0, 0), "{}", estate.log());
    let written = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<_> = written.lines().collect();
    assert_eq!(lines.len() as u64, JOBS * 2, "each job began and ended once");
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len() as u64, JOBS * 2, "a job ran twice");
    estate.nothing_left_in(&estate.path("instances")).await;

    // An orderly end of the leader: the other one leads within a second or two.
    let told = std::time::Instant::now();
    assert_eq!(second.server.take().unwrap().stop(), Some(0), "{}", estate.log());
    first.until_it_shows("remuda_leader 1").await;
    assert!(told.elapsed() < Duration::from_secs(8), "{:?}", told.elapsed());
    assert_eq!(first.server.take().unwrap().stop(), Some(0), "{}", estate.log());
    estate.sandbox.close().await;
    database.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_and_started_again_waits_for_no_lease_of_its_own() {
    let Some((database, estate)) = shared().await else { return };
    let mut only = Replica::start(&estate, "only");
    only.until_it_shows("remuda_lease_epoch 1").await;
    let killed = std::time::Instant::now();
    only.server.take().unwrap().kill();
    only.server = Some(estate.serve_at(&only.state, only.listen));
    only.until_it_shows("remuda_lease_epoch 2").await;
    assert!(killed.elapsed() < Duration::from_secs(8), "{:?}", killed.elapsed());
    assert_eq!(only.server.take().unwrap().stop(), Some(0), "{}", estate.log());
    estate.sandbox.close().await;
    database.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_one_replica_is_given_is_every_replicas() {
    let Some((database, estate)) = shared().await else { return };
    let mut first = Replica::start(&estate, "first");
    first.until_it_shows("remuda_leader 1").await;
    let mut second = Replica::start(&estate, "second");
    second.until_it_shows("remuda_leader 0").await;
    let next = estate.path("next.toml");
    let fleet = std::fs::read_to_string(estate.fleet()).unwrap();
    std::fs::write(&next, fleet.replace("cap = 20", "cap = 7")).unwrap();
    let next = next.display().to_string();

    let (code, said) = first.asks(&["apply", &next]);
    assert!(code == Some(0) && said.ends_with("fleet 2 is in force\n"), "{said}");
    estate.until_log(|log| log.matches("serves fleet 2").count() == 2).await;
    // It is what the other one leads with, and what one that is started again begins with.
    first.server.take().unwrap().kill();
    second.until_it_shows("remuda_leader 1").await;
    let in_force = "nothing would change; fleet 2 is in force\n";
    assert_eq!(second.asks(&["plan", &next]), (Some(0), in_force.into()));
    assert_eq!(second.server.take().unwrap().stop(), Some(0), "{}", estate.log());
    first.server = Some(estate.serve_at(&first.state, first.listen));
    first.until_it_shows("remuda_leader 1").await;
    assert_eq!(first.asks(&["plan", &next]), (Some(0), in_force.into()));
    assert_eq!(first.server.take().unwrap().stop(), Some(0), "{}", estate.log());
    estate.sandbox.close().await;
    database.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_begins_before_its_database_waits_for_it() {
    let Some(database) = Database::new().await else { return };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let estate = Estate::new(Config::default()).await;
    let (url, nowhere) = (database.url(), free_address());
    let (before, rest) = url.split_once('@').unwrap();
    let (there, name) = rest.split_once('/').unwrap();
    estate.shares(&format!("{before}@{nowhere}/{name}"));
    let mut early = Replica::start(&estate, "early");
    let begun = std::time::Instant::now();
    while !estate.log().contains("waits up to 30 s: ") {
        let ended = early.server.as_mut().unwrap().has_ended();
        assert!(!ended && begun.elapsed() < Duration::from_secs(20), "{}", estate.log());
        tokio::task::yield_now().await;
    }
    let _front = Front::before(nowhere, vec![there.parse().unwrap()]).await;
    early.until_it_shows("remuda_leader 1").await;
    assert_eq!(early.server.take().unwrap().stop(), Some(0), "{}", estate.log());
    estate.sandbox.close().await;
    database.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_database_that_cannot_be_had_is_a_clear_word_and_no_secret() {
    let Some(database) = Database::new().await else { return };
    let estate = Estate::new(Config::default()).await;
    let (user, rest) =
        database.url().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let (user, _) = user.rsplit_once(':').unwrap();
    for (url, said) in [
        ("mysql://x:hidden@localhost/y".to_owned(), "URL"),
        (format!("{user}:hidden@{rest}"), "does not let us in"),
    ] {
        estate.shares(&url);
        let mut command = Command::new(REMUDA);
        command.args(["serve", "--listen", "127.0.0.1:0", "--fleet"]).arg(estate.fleet());
        let output = command.arg("--state").arg(estate.path("other")).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(said) && !text.contains("hidden"), "{text}");
    }
    estate.sandbox.close().await;
    database.close().await;
}
