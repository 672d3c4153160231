//! The whole path with real parts: a sandbox GitHub over HTTP, the server as a process, a database on disk,
//! runners as local processes that execute real steps.

mod common;

use std::collections::BTreeMap;

use common::Estate;
use remuda_sandbox::{Config, Statistics};

/// A workflow whose jobs write down when they begin and when they end.
fn workflow(diary: &std::path::Path, jobs: usize, labels: &str, step: &str) -> String {
    let numbers: Vec<String> = (0..jobs).map(|n| n.to_string()).collect();
    format!(
        r"
name: diary
on: push
jobs:
  work:
    runs-on: [{labels}]
    strategy:
      matrix: {{ n: [{numbers}] }}
    steps:
      - run: echo begin ${{{{ matrix.n }}}} $GITHUB_REPOSITORY >> {diary}
      - run: {step}
      - run: echo end ${{{{ matrix.n }}}} $GITHUB_REPOSITORY >> {diary}
",
        numbers = numbers.join(", "),
        diary = diary.display(),
    )
}

/// How often each line was written.
fn diary(path: &std::path::Path) -> BTreeMap<String, u32> {
    let mut lines = BTreeMap::new();
    for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
        *lines.entry(line.to_owned()).or_default() += 1;
    }
    lines
}

fn at_rest(seen: &Statistics, jobs: u64) -> bool {
    seen.jobs_in("completed") == jobs && seen.runners.registered == 0
}

/// Waits until nothing of any instance is left.
async fn nothing_left(estate: &Estate) {
    estate.nothing_left_in(&estate.state().join("instances/local")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_two_tenants_run_each_once_and_leave_nothing() {
    let estate = Estate::new(Config::default()).await;
    let server = estate.serve();
    let path = estate.path("diary");
    estate
        .sandbox
        .submit("acme", "app", &workflow(&path, 6, "self-hosted, linux", "true"), 1)
        .unwrap();
    estate.sandbox.submit("acme", "app", &workflow(&path, 2, "RVV", "true"), 1).unwrap();
    estate.sandbox.submit("solo", "app", &workflow(&path, 3, "linux", "true"), 1).unwrap();
    let seen = estate.until("the end of all jobs", |seen| at_rest(seen, 11)).await;
    assert_eq!(seen.concluded("success"), 11, "{}", estate.log());
    assert_eq!(seen.runners.leaked, 0);
    nothing_left(&estate).await;
    assert_eq!(server.stop(), Some(0), "{}", estate.log());
    estate.sandbox.close().await;
}

/// Ten times at a random moment of the burst, the server dies without a word and is started again.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_ten_times_in_mid_burst_loses_interrupts_and_leaks_nothing() {
    const JOBS: u64 = 80;
    let estate = Estate::new(Config::default()).await;
    let path = estate.path("diary");
    let mut server = estate.serve();
    let small = workflow(&path, 30, "self-hosted, linux", "sleep 0.$((RANDOM % 9 + 1))");
    estate.sandbox.submit("acme", "app", &small, 1).unwrap();
    estate.sandbox.submit("solo", "app", &small, 1).unwrap();
    let rvv = workflow(&path, 20, "linux, rvv", "sleep 0.$((RANDOM % 5 + 1))");
    estate.sandbox.submit("acme", "app", &rvv, 1).unwrap();
    let mut lot = u64::from(std::process::id());
    for _ in 0..10 {
        lot = lot.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let ended = estate.sandbox.statistics().jobs_in("completed");
        let next = (ended + (lot >> 33) % 9).min(JOBS - 1);
        estate.until("the next moment to die", |seen| seen.jobs_in("completed") >= next).await;
        server.kill();
        server = estate.serve();
    }
    let seen = estate.until("the end of all jobs", |seen| at_rest(seen, JOBS)).await;
    assert_eq!(seen.concluded("success"), JOBS, "{seen:?}\n{}", estate.log());
    assert_eq!(seen.requeued, 0, "a running job was interrupted");
    assert_eq!(seen.runners.leaked, 0);
    let written = diary(&path);
    // Each number stands once for each of the two repositories, and twice where both label sets have it.
    let lines: u32 = written.values().sum();
    assert_eq!(lines, u32::try_from(JOBS * 2).unwrap(), "{written:?}");
    for (line, count) in written.iter().filter(|(line, _)| line.starts_with("begin")) {
        assert_eq!(written.get(&line.replace("begin", "end")), Some(count), "{line}");
    }
    nothing_left(&estate).await;
    assert_eq!(server.stop(), Some(0), "{}", estate.log());
    estate.sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_on_while_the_server_is_stopped_and_is_adopted_by_the_next() {
    let estate = Estate::new(Config::default()).await;
    let server = estate.serve();
    let path = estate.path("diary");
    let gate = estate.path("gate");
    let step = format!("while [ ! -e {} ]; do sleep 0.1; done", gate.display());
    estate.sandbox.submit("acme", "app", &workflow(&path, 1, "linux", &step), 1).unwrap();
    estate.until("the job's start", |seen| seen.jobs_in("in_progress") == 1).await;
    assert_eq!(server.stop(), Some(0), "{}", estate.log());
    assert!(!estate.processes().is_empty(), "the running job went with the server");
    let server = estate.serve();
    std::fs::write(gate, "").unwrap();
    let seen = estate.until("the job's end", |seen| at_rest(seen, 1)).await;
    assert_eq!(seen.concluded("success"), 1);
    nothing_left(&estate).await;
    assert_eq!(server.stop(), Some(0), "{}", estate.log());
    estate.sandbox.close().await;
}
