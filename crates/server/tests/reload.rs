//! A fleet is replaced while the server runs.

mod common;

use common::Estate;
use remuda_sandbox::{Config, Statistics};

/// A workflow of one job for these labels, which ends once the file is there.
fn waits_for(labels: &str, file: &std::path::Path) -> String {
    format!(
        "name: one\non: push\njobs:\n  one:\n    runs-on: [{labels}]\n    steps:\n      - run: while \
         [ ! -e {} ]; do sleep 0.05; done\n",
        file.display()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_fleet_is_served_while_jobs_run_on_and_a_broken_one_changes_nothing() {
    let estate = Estate::new(Config::default()).await;
    let server = estate.serve();
    let hangup = || server.signal(rustix::process::Signal::HUP);
    let done = estate.path("done");
    estate.sandbox.submit("acme", "app", &waits_for("self-hosted, linux", &done), 1).unwrap();
    estate.until("the first job runs", |seen| seen.jobs_in("in_progress") == 1).await;

    estate.edit("[pool.rvv]", "[pool.rvv]\nlabls = [\"x\"]");
    hangup();
    estate.logged("goes on with the fleet as it was").await;
    assert!(estate.log().contains("unknown key \"labls\""));

    // A pool that was not there before, by another name and with another label.
    estate.edit("[pool.rvv]\nlabls = [\"x\"]", "[pool.board]");
    estate.edit("\"linux\", \"rvv\"]", "\"linux\", \"board\"]");
    hangup();
    estate.logged("serves another fleet").await;
    estate.sandbox.submit("acme", "app", &waits_for("self-hosted, board", &done), 1).unwrap();
    estate.until("the second runs beside the first", |seen| seen.jobs_in("in_progress") == 2).await;

    std::fs::write(&done, "").unwrap();
    let at_rest =
        |seen: &Statistics| seen.jobs_in("completed") == 2 && seen.runners.registered == 0;
    let seen = estate.until("the end of both", at_rest).await;
    assert_eq!((seen.concluded("success"), seen.requeued, seen.runners.leaked), (2, 0, 0));
    estate.nothing_left_in(&estate.state().join("instances").join("local")).await;
    assert_eq!(server.stop(), Some(0), "{}", estate.log());
    estate.sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_only_read_at_the_start_is_not_changed_by_the_way() {
    let estate = Estate::new(Config::default()).await;
    let server = estate.serve();
    estate.logged("leads").await;
    estate.edit("[server]\n", "[server]\ndatabase = \"env:NOWHERE\"\n");
    estate.edit("kind = \"process\"", "kind = \"process\"\nnode = \"a\"\ndirectory = \"b\"");
    server.signal(rustix::process::Signal::HUP);
    estate.logged("[server] is different").await;
    assert_eq!(server.stop(), Some(0), "{}", estate.log());
    estate.sandbox.close().await;
}
