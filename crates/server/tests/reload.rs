//! A fleet is replaced while the server runs.

mod common;

use std::path::Path;
use std::process::Command;

use common::Estate;
use remuda_sandbox::{Config, Statistics};

/// A workflow of one job for these labels, which ends once the file is there.
fn waits_for(labels: &str, file: &Path) -> String {
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
    estate.logged("serves fleet 2").await;
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

/// Runs the program beside the server: its exit code, and what it said on both streams.
/// A server that has just been started may not listen yet.
fn remuda(estate: &Estate, args: &[&str]) -> (Option<i32>, String) {
    let begun = std::time::Instant::now();
    loop {
        let ran = Command::new(common::REMUDA)
            .args(args)
            .env("REMUDA_STATE", estate.state())
            .env("USER", "ann")
            .output()
            .expect("the program runs");
        if ran.status.code() != Some(69) || begun.elapsed().as_secs() > 30 {
            let said = [ran.stdout, ran.stderr].concat();
            return (ran.status.code(), String::from_utf8_lossy(&said).into_owned());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_is_planned_applied_and_rolled_back_and_history_tells_by_whom() {
    let estate = Estate::new(Config::default()).await;
    let server = estate.serve();
    estate.logged("leads").await;
    let (own, next) = (estate.fleet().display().to_string(), estate.path("next.toml"));
    let file = next.display().to_string();
    let now = std::fs::read_to_string(estate.fleet()).unwrap();
    let (code, said) = remuda(&estate, &["plan", &own]);
    assert_eq!((code, said.as_str()), (Some(0), "nothing would change; fleet 1 is in force\n"));

    let wanted = now
        .replace("[pool.rvv]", "[pool.board]")
        .replace("\"linux\", \"rvv\"]", "\"linux\", \"board\"]")
        .replace("max = 6", "max = 4\nlimits.job = \"1h\"")
        .replace("limits.job = \"1h\"\nlimits = {", "limits = { job = \"1h\",");
    std::fs::write(&next, &wanted).unwrap();
    let (code, said) = remuda(&estate, &["plan", &file]);
    assert_eq!(code, Some(2), "{said}");
    insta::assert_snapshot!(said, @r#"
    + pool board
        forge = "github"
        image = "sandbox"
        labels = ["board", "linux", "self-hosted"]
        limits.boot = "1m"
        limits.finish = "5s"
        limits.idle = "3s"
        max = 2
        provider = "local"
    - pool rvv
    ~ pool small
        limits.job = (unset) -> "1h"
        max = 6 -> 4
    1 to add, 1 to change, 1 to remove; fleet 1 is in force
    "#);
    let (code, said) = remuda(&estate, &["apply", &file]);
    assert!(code == Some(0) && said.ends_with("fleet 2 is in force\n"), "{said}");
    let (code, said) = remuda(&estate, &["plan", &file]);
    assert_eq!((code, said.as_str()), (Some(0), "nothing would change; fleet 2 is in force\n"));

    std::fs::write(&next, wanted.replace("[pool.board]", "[pool.board]\nlabls = 1")).unwrap();
    let (code, said) = remuda(&estate, &["apply", &file]);
    assert!(code == Some(1) && said.contains("unknown key \"labls\""), "{said}");

    let (code, said) = remuda(&estate, &["rollback"]);
    assert!(code == Some(0) && said.ends_with("fleet 3 is in force\n"), "{said}");
    let (_, rows) = remuda(&estate, &["history", "-o", "json"]);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&rows).unwrap();
    let told: Vec<_> = rows.iter().map(|row| (&row["number"], &row["how"], &row["who"])).collect();
    assert_eq!(told[0], (&3.into(), &"rollback to 1".into(), &"ann".into()));
    assert_eq!(told[1], (&2.into(), &"apply".into(), &"ann".into()));
    assert_eq!((told[2].0, told[2].1), (&1.into(), &"start".into()));
    assert_eq!((rows.len(), &rows[0]["revision"]), (3, &rows[2]["revision"]));
    let (code, said) = remuda(&estate, &["rollback", "7"]);
    assert!(code == Some(66) && said.contains("there is no fleet 7"), "{said}");
    assert_eq!(server.stop(), Some(0), "{}", estate.log());
    estate.sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_plan_is_refused_once_the_fleet_in_force_or_the_file_is_another() {
    let estate = Estate::new(Config::default()).await;
    let server = estate.serve();
    estate.logged("leads").await;
    let now = std::fs::read_to_string(estate.fleet()).unwrap();
    let write = |name: &str, max: &str| {
        std::fs::write(estate.path(name), now.replace("max = 6", max)).unwrap();
        estate.path(name).display().to_string()
    };
    let (four, five) = (write("four.toml", "max = 4"), write("five.toml", "max = 5"));
    let plan = |of: &str, name: &str| {
        let out = estate.path(name).display().to_string();
        assert_eq!(remuda(&estate, &["plan", of, "--out", &out]).0, Some(2));
        out
    };
    let (to_four, to_five) = (plan(&four, "to-four"), plan(&five, "to-five"));
    assert_eq!(remuda(&estate, &["apply", &to_four]).0, Some(0));
    let (code, said) = remuda(&estate, &["apply", &to_five]);
    assert!(code == Some(1) && said.contains("ann put fleet 2 in force at"), "{said}");
    let again = plan(&five, "again");
    write("five.toml", "max = 50");
    let (code, said) = remuda(&estate, &["apply", &again]);
    assert!(code == Some(1) && said.contains("is not what was planned any more"), "{said}");
    let (_, said) = remuda(&estate, &["plan", &four]);
    assert_eq!(said, "nothing would change; fleet 2 is in force\n");
    assert_eq!(server.stop(), Some(0), "{}", estate.log());
    estate.sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_applied_outlives_the_server_until_its_own_file_changes() {
    let estate = Estate::new(Config::default()).await;
    let server = estate.serve();
    estate.logged("leads").await;
    let now = std::fs::read_to_string(estate.fleet()).unwrap();
    let next = estate.path("next.toml");
    std::fs::write(&next, now.replace("max = 6", "max = 4")).unwrap();
    let next = next.display().to_string();
    assert_eq!(remuda(&estate, &["apply", &next]).0, Some(0));
    assert_eq!(server.stop(), Some(0), "{}", estate.log());

    let server = estate.serve();
    let in_force = || remuda(&estate, &["plan", &next]).1;
    assert_eq!(in_force(), "nothing would change; fleet 2 is in force\n");
    assert_eq!(server.stop(), Some(0), "{}", estate.log());

    estate.edit("max = 6", "max = 3");
    let server = estate.serve();
    assert!(in_force().contains("max = 3 -> 4\n"), "{}", in_force());
    assert_eq!(server.stop(), Some(0), "{}", estate.log());
    estate.sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_a_command_prints_is_read_anew_on_a_signal() {
    let estate = Estate::new(Config::default()).await;
    let hook = format!("file:{}", estate.path("hook").display());
    let other = estate.path("other");
    std::fs::write(&other, "not the secret of the hook").unwrap();
    let command = format!("cmd:cat {}", other.display());
    estate.edit(&hook, &command);
    let server = estate.serve();
    estate.logged("leads").await;
    let job = waits_for("self-hosted, linux", Path::new("/"));
    estate.sandbox.submit("acme", "app", &job, 1).unwrap();
    estate.until("a refusal", |seen| seen.deliveries.failed > 0).await;

    std::fs::copy(estate.path("hook"), &other).unwrap();
    server.signal(rustix::process::Signal::HUP);
    estate.logged("serves fleet 1").await;
    estate.sandbox.submit("acme", "app", &job, 1).unwrap();
    estate.until("a delivery that is taken", |seen| seen.deliveries.succeeded > 0).await;
    assert_eq!(server.stop(), Some(0), "{}", estate.log());
    estate.sandbox.close().await;
}
