//! The `/_sandbox` API: everything from nothing, over HTTP alone.

use http::Method;
use remuda_sandbox::{Config, Sandbox};
use serde_json::json;
use tokio::task::JoinSet;

use super::common::{Caller, receiver};

#[tokio::test]
async fn accounts_workflows_and_faults_are_managed_over_http() {
    let mut tasks = JoinSet::new();
    let (url, received) = receiver(&mut tasks).await;
    let sandbox = Sandbox::start(Config::default()).await.unwrap();
    let caller = Caller::new(&format!("{}/_sandbox", sandbox.url()), None);
    let made = caller.post("/owners", json!({ "login": "o", "kind": "organization" })).await;
    assert_eq!(made.status, 201);
    let again = caller.post("/owners", json!({ "login": "O", "kind": "user" })).await;
    assert_eq!((again.status.as_u16(), &again.json()["message"]), (422, &json!("\"O\" exists")));
    let odd = caller.post("/owners/o/repositories", json!({ "name": "a/b" })).await;
    assert_eq!(odd.status, 422);
    let made = caller.post("/owners/o/repositories", json!({ "name": "r" })).await;
    assert_eq!(made.status, 201);
    let hook = json!({ "url": url, "secret": "s", "owner": "o" });
    assert_eq!(caller.post("/hooks", hook).await.status, 201);
    let yaml = "jobs: { a: { runs-on: x, environment: e, steps: [{ run: x }] } }";
    let runs = caller.post("/repos/o/r/workflows?count=2", yaml.into()).await.json();
    let id = &runs["runs"][1]["job_ids"][0];
    assert_eq!(caller.get(&format!("/jobs/{id}")).await.json()["status"], "waiting");
    assert_eq!(caller.post(&format!("/jobs/{id}/release"), json!({})).await.status, 204);
    assert_eq!(caller.post(&format!("/jobs/{id}/release"), json!({})).await.status, 404);
    assert_eq!(caller.post(&format!("/jobs/{id}/requeue"), json!({})).await.status, 404);
    assert_eq!(caller.get(&format!("/jobs/{id}/log")).await.body, "");
    let jobs = caller.get("/jobs").await.json();
    assert_eq!(jobs["jobs"][1]["status"], "queued");
    assert!(jobs["jobs"][1]["queued_at"].is_i64() && jobs["jobs"][1]["started_at"].is_null());
    sandbox.wait_until(|statistics| statistics.deliveries.succeeded == 4).await;
    assert_eq!(received.lock().unwrap().len(), 4);
    let statistics = caller.get("/statistics").await.json();
    assert_eq!(statistics["jobs"], json!({ "queued": 1, "waiting": 1 }));
    assert_eq!(caller.get("/deliveries").await.json()["deliveries"].as_array().unwrap().len(), 4);
    assert_eq!(caller.get("/runners").await.json(), json!({ "runners": [] }));
    let lose = caller.post("/runners/1/lose", json!({ "requeue": true })).await;
    assert_eq!(lose.status, 404);
    sandbox.close().await;
    tasks.shutdown().await;
}

#[tokio::test]
async fn faults_are_read_and_set_and_what_is_no_lever_is_refused() {
    let sandbox = Sandbox::start(Config::default()).await.unwrap();
    let caller = Caller::new(&format!("{}/_sandbox", sandbox.url()), None);
    let mut faults = caller.get("/faults").await.json();
    faults["busy_lies"] = json!(0.25);
    faults["rest"] = json!({ "runners": { "too_many": 0.5, "retry_after_s": 2 } });
    let put = |body| caller.send(Method::PUT, "/faults", Some(body));
    assert_eq!(put(faults).await.status, 200);
    assert!((sandbox.faults().busy_lies - 0.25).abs() < f64::EPSILON);
    for wrong in [json!({ "busy_lies": 2 }), json!({ "lies": 1 }), json!({ "rest": { "x": {} } })] {
        assert_eq!(put(wrong.clone()).await.status, 422, "{wrong}");
    }
    assert!((sandbox.faults().busy_lies - 0.25).abs() < f64::EPSILON);
    sandbox.close().await;
}
