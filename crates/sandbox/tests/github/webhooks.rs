//! Webhooks that arrive, that do not, and that are asked for again.

use std::time::Duration;

use remuda_sandbox::{Faults, Sandbox, Statistics, Times, WebhookFaults};
use ring::hmac;
use serde_json::json;
use tokio::task::JoinSet;

use super::common::{Caller, Received, app, config, receiver};

const JOB: &str = "jobs: { a: { runs-on: x, steps: [{ run: x }] } }";

/// A sandbox with an App whose webhook is received, after its ping.
async fn start(tasks: &mut JoinSet<()>, webhooks: WebhookFaults) -> (Sandbox, Received, Caller) {
    let (url, received) = receiver(tasks).await;
    let mut config = config();
    config.apps[0].webhook_url = Some(url);
    config.apps[0].webhook_secret = "It's a Secret to Everybody".to_string().into();
    config.faults = Faults { webhooks, ..Faults::default() };
    let sandbox = Sandbox::start(config).await.unwrap();
    sandbox.wait_until(|statistics| statistics.deliveries.succeeded == 1).await;
    let caller = app(&sandbox);
    (sandbox, received, caller)
}

fn at_rest(statistics: &Statistics) -> bool {
    statistics.deliveries.pending == 0
}

#[tokio::test]
async fn the_signature_is_that_of_the_raw_body() {
    let mut tasks = JoinSet::new();
    let (sandbox, received, _) = start(&mut tasks, WebhookFaults::default()).await;
    let (headers, body) = received.lock().unwrap()[0].clone();
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"It's a Secret to Everybody");
    let hex = headers["x-hub-signature-256"].strip_prefix("sha256=").unwrap();
    let tag: Vec<u8> = (0..hex.len() / 2)
        .map(|place| u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).unwrap())
        .collect();
    hmac::verify(&key, body.to_string().as_bytes(), &tag).unwrap();
    assert!(headers["user-agent"].starts_with("GitHub-Hookshot/"));
    sandbox.close().await;
}

#[tokio::test]
async fn a_dropped_webhook_is_listed_as_failed_and_can_be_sent_again() {
    let mut tasks = JoinSet::new();
    let drop = WebhookFaults { drop: 1.0, ..WebhookFaults::default() };
    let (sandbox, received, caller) = start(&mut tasks, drop).await;
    sandbox.submit("acme", "app", JOB, 1).unwrap();
    let statistics = sandbox.wait_until(at_rest).await;
    assert_eq!((statistics.deliveries.dropped, received.lock().unwrap().len()), (1, 1));
    let failed = caller.get("/app/hook/deliveries?status=failure").await.json();
    assert_eq!(failed.as_array().unwrap().len(), 1);
    assert_eq!((&failed[0]["action"], &failed[0]["status_code"]), (&json!("queued"), &json!(0)));
    let path = format!("/app/hook/deliveries/{}/attempts", failed[0]["id"]);
    assert_eq!(caller.post(&path, json!({})).await.status, 202);
    sandbox.wait_until(|statistics| statistics.deliveries.succeeded == 2).await;
    let (headers, _) = received.lock().unwrap()[1].clone();
    assert_eq!(headers["x-github-delivery"], failed[0]["guid"].as_str().unwrap());
    sandbox.close().await;
}

#[tokio::test]
async fn a_vanished_webhook_leaves_no_trace() {
    let mut tasks = JoinSet::new();
    let vanish = WebhookFaults { vanish: 1.0, ..WebhookFaults::default() };
    let (sandbox, received, caller) = start(&mut tasks, vanish).await;
    sandbox.submit("acme", "app", JOB, 3).unwrap();
    let statistics = sandbox.wait_until(at_rest).await;
    assert_eq!((statistics.deliveries.vanished, received.lock().unwrap().len()), (3, 1));
    assert_eq!(caller.get("/app/hook/deliveries").await.json().as_array().unwrap().len(), 1);
    sandbox.close().await;
}

#[tokio::test]
async fn a_doubled_webhook_has_one_id() {
    let mut tasks = JoinSet::new();
    let duplicate = WebhookFaults { duplicate: 1.0, ..WebhookFaults::default() };
    let (sandbox, received, _) = start(&mut tasks, duplicate).await;
    sandbox.submit("acme", "app", JOB, 1).unwrap();
    sandbox.wait_until(at_rest).await;
    let got = received.lock().unwrap().clone();
    let ids: Vec<_> = got.iter().map(|(headers, _)| &headers["x-github-delivery"]).collect();
    assert_eq!((ids.len(), ids[1] == ids[2], ids[0] == ids[1]), (3, true, false));
    sandbox.close().await;
}

#[tokio::test]
async fn webhooks_that_are_late_or_held_back_arrive_all_the_same() {
    let mut tasks = JoinSet::new();
    let late = WebhookFaults { reorder: 0.5, delay: 1.0, delay_ms_max: 20, ..Default::default() };
    let (sandbox, received, _) = start(&mut tasks, late).await;
    sandbox.submit("acme", "app", JOB, 8).unwrap();
    let statistics = sandbox.wait_until(at_rest).await;
    assert_eq!((statistics.deliveries.succeeded, received.lock().unwrap().len()), (9, 9));
    sandbox.close().await;
}

#[tokio::test]
async fn a_receiver_that_is_slow_or_gone_is_not_asked_again() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = format!("http://{}/hook", gone.local_addr().unwrap());
    drop(gone);
    // It accepts and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = format!("http://{}/hook", silent.local_addr().unwrap());
    let (long, short) = (Times::default().webhook, Duration::from_millis(50));
    for (url, webhook, expected) in
        [(dead, long, "cannot reach it"), (mute, short, "no answer within")]
    {
        let mut config = config();
        config.times = Times { webhook, ..Times::default() };
        config.apps[0].webhook_url = Some(url);
        let sandbox = Sandbox::start(config).await.unwrap();
        let statistics = sandbox.wait_until(at_rest).await;
        assert_eq!((statistics.deliveries.attempted, statistics.deliveries.failed), (1, 1));
        let outcome = sandbox.deliveries(10)[0].outcome.clone();
        assert!(outcome.contains(expected), "{outcome}");
        sandbox.close().await;
    }
}

#[tokio::test]
async fn deliveries_are_listed_newest_first_by_a_cursor() {
    let mut tasks = JoinSet::new();
    let (sandbox, _, caller) = start(&mut tasks, WebhookFaults::default()).await;
    sandbox.submit("acme", "app", JOB, 4).unwrap();
    sandbox.wait_until(at_rest).await;
    let mut path = "/app/hook/deliveries?per_page=2".to_string();
    let mut ids = Vec::new();
    loop {
        let answer = caller.get(&path).await;
        ids.extend(answer.json().as_array().unwrap().iter().map(|one| one["id"].as_u64().unwrap()));
        let Some(url) = answer.header("link").split(['<', '>']).nth(1) else { break };
        path = url.strip_prefix(&caller.base).unwrap().to_string();
    }
    assert_eq!(ids.len(), 5);
    assert!(ids.is_sorted_by(|newer, older| newer > older), "{ids:?}");
    sandbox.close().await;
}
