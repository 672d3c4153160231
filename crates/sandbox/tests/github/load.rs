//! Many jobs and runners at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use remuda_sandbox::Sandbox;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::common::{Caller, config, installation, register};

const RUNNERS: usize = 200;
const JOBS: usize = 1000;

/// The runner protocol without a shell behind it: one job, done at once.
async fn one_job(caller: &Caller, name: &str) -> u64 {
    let jit = register(caller, "/orgs/acme", name, &["x"]).await;
    let file =
        |text: &str| -> Value { serde_json::from_slice(&STANDARD.decode(text).unwrap()).unwrap() };
    let files = file(jit.expose_secret());
    let settings = file(files[".runner"].as_str().unwrap());
    let credentials = file(files[".credentials"].as_str().unwrap());
    let token = credentials["Data"]["token"].as_str();
    let mut runner = caller.clone();
    runner.base = settings["ServerUrl"].as_str().unwrap().into();
    runner.token = Some(token.unwrap().into());
    let welcome = runner.post("/session", json!({ "os": "linux" })).await.json();
    runner.token = Some(welcome["session"].as_str().unwrap().into());
    let job = loop {
        let message = runner.get("/message").await;
        if message.status == 200 {
            break message.json()["job"].as_u64().unwrap();
        }
        assert_eq!(message.status, 202);
    };
    assert_eq!(runner.post(&format!("/jobs/{job}/acknowledge"), json!({})).await.status, 200);
    let path = format!("/jobs/{job}/complete");
    assert_eq!(runner.post(&path, json!({ "conclusion": "success" })).await.status, 204);
    job
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_jobs_pass_through_two_hundred_runners_each_once() {
    let sandbox = Arc::new(Sandbox::start(config()).await.unwrap());
    let caller = installation(&sandbox, "acme").await;
    let text = "jobs: { a: { runs-on: x, steps: [{ run: x }] } }";
    // The first two hundred runners wait before there is work.
    let mut runners = JoinSet::new();
    for number in 0..RUNNERS {
        let caller = caller.clone();
        runners.spawn(async move {
            let mut jobs = Vec::new();
            for round in 0..JOBS / RUNNERS {
                jobs.push(one_job(&caller, &format!("r{number}-{round}")).await);
            }
            jobs
        });
    }
    let mut changes = sandbox.changes();
    while sandbox.runners().iter().filter(|runner| runner.state == "idle").count() < RUNNERS {
        changes.changed().await.unwrap();
    }
    sandbox.submit("acme", "app", text, JOBS).unwrap();
    let mut ran = BTreeSet::new();
    while let Some(jobs) = runners.join_next().await {
        for job in jobs.unwrap() {
            assert!(ran.insert(job), "job {job} ran twice");
        }
    }
    assert_eq!(ran.len(), JOBS);
    let statistics = sandbox.statistics();
    assert_eq!(statistics.concluded("success"), JOBS as u64);
    let ended = statistics.runners;
    assert_eq!((ended.created, ended.finished, ended.leaked), (JOBS as u64, JOBS as u64, 0));
    Arc::into_inner(sandbox).expect("the runners are done").close().await;
}
