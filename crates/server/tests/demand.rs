//! Each source of jobs by itself, with the real server and a GitHub that loses what the others would bring.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use common::{Estate, SECRET};
use remuda_sandbox::{Config, Faults, Hook, Statistics, WebhookFaults};

const WORKFLOW: &str = "
on: push
jobs:
  work:
    runs-on: [linux]
    strategy: { matrix: { n: [1, 2] } }
    steps: [{ run: 'true' }]
";

/// An estate whose jobs are found as `demand` says, at a GitHub that does this to webhooks.
async fn estate(demand: &str, webhooks: WebhookFaults) -> Estate {
    let faults = Faults { webhooks, ..Faults::default() };
    let estate = Estate::new(Config { faults, ..Config::default() }).await;
    edit(&estate, "demand = { sweep = \"2s\", budget = 1000000 }", demand);
    estate
}

fn edit(estate: &Estate, from: &str, to: &str) {
    let text = std::fs::read_to_string(estate.fleet()).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(estate.fleet(), text.replace(from, to)).unwrap();
}

/// Waits until the server takes connections: what is delivered before is lost, and here for good.
async fn listening(estate: &Estate) {
    let connected = async {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(20));
        while tokio::net::TcpStream::connect(estate.listen).await.is_err() {
            tick.tick().await;
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_mins(1), connected).await;
    assert!(waited.is_ok(), "nobody listens\n{}", estate.log());
}

/// Two jobs each of an organization and of a person run to their end.
async fn runs_jobs(estate: Estate) -> Statistics {
    let server = estate.serve();
    listening(&estate).await;
    estate.sandbox.submit("acme", "app", WORKFLOW, 1).unwrap();
    estate.sandbox.submit("solo", "app", WORKFLOW, 1).unwrap();
    let at_rest =
        |seen: &Statistics| seen.jobs_in("completed") == 4 && seen.concluded("success") == 4;
    let seen = estate.until("the end of all jobs", at_rest).await;
    assert_eq!(server.stop(), Some(0), "{}", estate.log());
    common::end_processes_below(&estate.state());
    estate.sandbox.close().await;
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_alone_bring_every_job() {
    let demand = "demand = { redelivery = \"off\", sweep = \"off\" }";
    let seen = runs_jobs(estate(demand, WebhookFaults::default()).await).await;
    assert_eq!(seen.deliveries.redelivered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn redelivery_alone_brings_every_job() {
    let demand = "demand = { redelivery = \"1s\", sweep = \"off\" }";
    let drops = WebhookFaults { drop: 1.0, ..WebhookFaults::default() };
    let seen = runs_jobs(estate(demand, drops).await).await;
    // Of each account at least one; the rest may have been found out by reading what that one told of.
    assert!(seen.deliveries.redelivered >= 2, "{:?}", seen.deliveries);
}

#[tokio::test(flavor = "multi_thread")]
async fn redelivery_of_an_organizations_and_a_repositorys_own_hook_brings_every_job() {
    let demand = "demand = { redelivery = \"1s\", sweep = \"off\" }";
    let drops = WebhookFaults { drop: 1.0, ..WebhookFaults::default() };
    let estate = estate(demand, drops).await;
    let hook = |owner: &str, repository: Option<&str>| {
        let url = format!("http://{}/webhooks/github", estate.listen);
        let (owner, repository) = (owner.into(), repository.map(Into::into));
        estate.sandbox.create_hook(Hook { url, secret: SECRET.into(), owner, repository }).unwrap()
    };
    let hooks = [("org:acme", hook("acme", None)), ("repo:solo/app", hook("solo", Some("app")))];
    // The App's own deliveries are not taken, so nothing is asked of its hook.
    let secret = format!("\"file:{}\"", estate.path("hook").display());
    let declared = hooks.map(|(scope, id)| {
        format!("[[forge.github.hook]]\nid = {id}\nscope = \"{scope}\"\nsecret = {secret}\n")
    });
    edit(&estate, &format!("webhook_secret = {secret}\n"), &declared.concat());
    let seen = runs_jobs(estate).await;
    assert!(seen.deliveries.redelivered >= 2, "{:?}", seen.deliveries);
}

#[tokio::test(flavor = "multi_thread")]
async fn sweeps_alone_bring_every_job() {
    let demand = "demand = { webhooks = false, sweep = \"1s\", budget = 1000000 }";
    let vanish = WebhookFaults { vanish: 1.0, ..WebhookFaults::default() };
    let seen = runs_jobs(estate(demand, vanish).await).await;
    assert_eq!((seen.deliveries.succeeded, seen.deliveries.redelivered), (0, 0));
    assert!(seen.deliveries.vanished >= 4, "{:?}", seen.deliveries);
}
