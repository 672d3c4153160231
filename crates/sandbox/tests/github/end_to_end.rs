//! Workflows in, jobs run by the runner program, webhooks out.

use std::path::Path;
use std::time::Duration;

use super::common::{Caller, Output, app, config, installation, receiver, register, run};
use remuda_sandbox::{Faults, Sandbox, SandboxError, runner};
use serde_json::json;
use tokio::task::JoinSet;

const BUILD: &str = r#"
name: CI
env: { LEVEL: workflow, WHERE: "${{ github.repository }}" }
jobs:
  build:
    name: Build ${{ matrix.arch }}
    runs-on: [self-hosted, "${{ matrix.arch }}"]
    strategy: { matrix: { arch: [riscv64] } }
    env: { LEVEL: job }
    steps:
      - id: first
        name: First on ${{ matrix.arch }}
        run: |
          echo "level $LEVEL at $WHERE in $GITHUB_REPOSITORY, run $GITHUB_RUN_ID, ci $CI"
          echo "word=hello there" >> "$GITHUB_OUTPUT"
          echo "CARRIED=over" >> "$GITHUB_ENV"
          mkdir tools && printf '#!/bin/sh\necho from the tool\n' > tools/it && chmod +x tools/it
          echo "$PWD/tools" >> "$GITHUB_PATH"
          echo "on stderr" >&2
      - run: echo "${{ steps.first.outputs.word }}, $CARRIED, ${{ env.LEVEL }}"; it
        env: { LEVEL: step }
      - shell: sh
        working-directory: tools
        run: pwd; test "$GITHUB_WORKSPACE/tools" = "$PWD"
"#;

#[tokio::test]
async fn a_workflow_runs_on_a_registered_runner_and_its_log_is_kept() {
    let sandbox = Sandbox::start(config()).await.unwrap();
    let submitted = sandbox.submit("acme", "app", BUILD, 1).unwrap();
    let caller = installation(&sandbox, "acme").await;
    let jit = register(&caller, "/orgs/acme", "rvv-1", &["self-hosted", "RISCV64"]).await;
    let (code, printed) = run(jit).await;
    assert_eq!(code, 0, "{printed}");
    let job = sandbox.job(submitted[0].job_ids[0]).unwrap();
    let log = sandbox.log(job.id).unwrap();
    assert_eq!(job.conclusion.as_deref(), Some("success"), "{log}");
    assert_eq!((job.name.as_str(), job.runner.as_deref()), ("Build riscv64", Some("rvv-1")));
    let run_id = submitted[0].run_id;
    for line in [
        format!("level job at acme/app in acme/app, run {run_id}, ci true"),
        "on stderr".into(),
        "hello there, over, step".into(),
        "from the tool".into(),
    ] {
        assert!(log.lines().any(|logged| logged == line), "{line:?} is not in\n{log}");
    }
    for line in ["√ Connected to GitHub", "Z: Listening for Jobs", "Z: Running job: Build riscv64"]
    {
        assert!(printed.contains(line), "{line:?} is not in\n{printed}");
    }
    assert!(printed.contains("Z: Job Build riscv64 completed with result: Succeeded"));
    assert_eq!(sandbox.runners(), [], "a JIT registration is gone after its job");
    sandbox.close().await;
}

#[tokio::test]
async fn a_job_that_fails_is_reported_as_failed_and_the_runner_still_exits_0() {
    let text = "jobs: { a: { runs-on: x, steps: [
        { run: 'echo one; false; echo two' },
        { run: 'echo never' },
        { if: failure(), run: 'echo cleaning up' },
        { if: always(), run: 'echo in any case; exit 3', continue-on-error: true } ] } }";
    let sandbox = Sandbox::start(config()).await.unwrap();
    let job = sandbox.submit("ann", "tool", text, 1).unwrap()[0].job_ids[0];
    let caller = installation(&sandbox, "ann").await;
    let jit = register(&caller, "/repos/ann/tool", "r", &["x"]).await;
    let (code, printed) = run(jit).await;
    assert_eq!(code, 0);
    assert!(printed.contains("completed with result: Failed"), "{printed}");
    let log = sandbox.log(job).unwrap();
    let said = |word: &str| log.lines().any(|line| line == word);
    assert!(said("one") && said("cleaning up") && said("in any case"), "{log}");
    assert!(!said("two") && !said("never"), "{log}");
    let path = format!("/repos/ann/tool/actions/jobs/{job}");
    let shown = caller.get(&path).await.json();
    let steps = shown["steps"].as_array().unwrap();
    let ends: Vec<_> = steps.iter().map(|step| step["conclusion"].as_str().unwrap()).collect();
    assert_eq!(ends, ["failure", "skipped", "success", "failure"]);
    sandbox.close().await;
}

#[tokio::test]
async fn each_change_of_a_job_is_told_by_a_signed_webhook() {
    let mut tasks = JoinSet::new();
    let (url, received) = receiver(&mut tasks).await;
    let mut config = config();
    config.apps[0].webhook_url = Some(url);
    config.apps[0].webhook_secret = "It's a Secret to Everybody".to_string().into();
    let sandbox = Sandbox::start(config).await.unwrap();
    let text = "jobs: { a: { runs-on: x, steps: [{ run: 'true' }] } }";
    sandbox.submit("acme", "app", text, 1).unwrap();
    let caller = installation(&sandbox, "acme").await;
    let (code, _) = run(register(&caller, "/orgs/acme", "r", &["x"]).await).await;
    assert_eq!(code, 0);
    sandbox.wait_until(|statistics| statistics.deliveries.succeeded == 4).await;
    let got = received.lock().unwrap().clone();
    let events: std::collections::BTreeSet<_> = got
        .iter()
        .map(|(headers, body)| {
            (headers["x-github-event"].clone(), body["action"].as_str().unwrap_or("").to_string())
        })
        .collect();
    let expected = [
        ("ping", ""),
        ("workflow_job", "completed"),
        ("workflow_job", "in_progress"),
        ("workflow_job", "queued"),
    ];
    assert_eq!(events, expected.map(|(event, action)| (event.into(), action.into())).into());
    for (headers, body) in &got {
        assert!(headers["x-hub-signature-256"].starts_with("sha256="), "{headers:?}");
        assert_eq!(headers["x-github-hook-installation-target-type"], "integration");
        if headers["x-github-event"] == "workflow_job" {
            let queued = body["action"] == "queued";
            assert_eq!(body["workflow_job"]["runner_id"].is_null(), queued, "{body}");
            assert_eq!(body["organization"]["login"], "acme");
            assert!(body["installation"]["id"].is_u64());
        }
    }
    sandbox.close().await;
    tasks.shutdown().await;
}

/// Waits until the process whose number is in `file` has ended: a kill is an order, and takes effect a
/// little later.
async fn ends(file: &Path) {
    let ended = async {
        while !ended(file) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("it was killed");
}

/// True if the process whose number is in `file` runs no more (one that nobody has reaped yet
/// runs no more either).
fn ended(file: &Path) -> bool {
    let pid = std::fs::read_to_string(file).unwrap();
    match std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())) {
        Err(_) => true,
        Ok(stat) => stat.rsplit(") ").next().unwrap().starts_with('Z'),
    }
}

#[tokio::test]
async fn a_cancelled_run_stops_its_steps_and_their_children() {
    let directory = tempfile::tempdir().unwrap();
    let child = directory.path().join("child");
    let text = format!(
        "jobs: {{ a: {{ runs-on: x, steps: [
        {{ run: 'sleep 1000 & echo $! > {}; echo started; wait' }},
        {{ if: cancelled(), run: 'echo tidied' }}, {{ run: 'echo never' }} ] }} }}",
        child.display()
    );
    let sandbox = Sandbox::start(config()).await.unwrap();
    let submitted = sandbox.submit("acme", "app", &text, 1).unwrap().remove(0);
    let caller = installation(&sandbox, "acme").await;
    let jit = register(&caller, "/orgs/acme", "r", &["x"]).await;
    let job = submitted.job_ids[0];
    let cancel = async {
        let mut changes = sandbox.changes();
        while !sandbox.log(job).unwrap().lines().any(|line| line == "started") {
            changes.changed().await.unwrap();
        }
        let path = format!("/repos/acme/app/actions/runs/{}/cancel", submitted.run_id);
        assert_eq!(caller.post(&path, json!({})).await.status, 202);
    };
    let ((code, printed), ()) = tokio::join!(run(jit), cancel);
    assert_eq!(code, 0);
    assert!(printed.contains("completed with result: Canceled"), "{printed}");
    let log = sandbox.log(job).unwrap();
    assert!(log.contains("tidied") && !log.contains("never"), "{log}");
    assert_eq!(sandbox.statistics().concluded("cancelled"), 1);
    ends(&child).await;
    sandbox.close().await;
}

#[tokio::test]
async fn what_a_step_leaves_running_serves_later_steps_and_ends_with_the_job() {
    let directory = tempfile::tempdir().unwrap();
    let child = directory.path().join("child");
    let text = format!(
        "jobs: {{ a: {{ runs-on: x, steps: [
        {{ run: 'sleep 1000 & echo $! > {0}' }}, {{ run: 'kill -0 $(cat {0})' }} ] }} }}",
        child.display()
    );
    let sandbox = Sandbox::start(config()).await.unwrap();
    sandbox.submit("acme", "app", &text, 1).unwrap();
    let caller = installation(&sandbox, "acme").await;
    let (code, printed) = run(register(&caller, "/orgs/acme", "r", &["x"]).await).await;
    assert_eq!(code, 0);
    assert!(printed.contains("Succeeded"), "{printed}");
    ends(&child).await;
    sandbox.close().await;
}

#[tokio::test]
async fn runners_side_by_side_each_do_one_job() {
    let sandbox = Sandbox::start(config()).await.unwrap();
    let text = "jobs: { a: { runs-on: x, steps: [{ run: 'echo on $RUNNER_NAME' }] } }";
    sandbox.submit("acme", "app", text, 6).unwrap();
    let caller = installation(&sandbox, "acme").await;
    let mut runners = JoinSet::new();
    for name in 0..6 {
        let jit = register(&caller, "/orgs/acme", &format!("r{name}"), &["x"]).await;
        runners.spawn(run(jit));
    }
    while let Some(ended) = runners.join_next().await {
        assert_eq!(ended.unwrap().0, 0);
    }
    for job in sandbox.jobs() {
        let line = format!("on {}", job.runner.unwrap());
        assert!(sandbox.log(job.id).unwrap().contains(&line));
    }
    assert_eq!(sandbox.statistics().concluded("success"), 6);
    sandbox.close().await;
}

#[tokio::test]
async fn a_runner_told_to_stop_while_it_waits_closes_its_session() {
    let sandbox = Sandbox::start(config()).await.unwrap();
    let caller = installation(&sandbox, "acme").await;
    let jit = register(&caller, "/orgs/acme", "r", &["x"]).await;
    let mut changes = sandbox.changes();
    let listening = async {
        while sandbox.runners()[0].state != "idle" {
            changes.changed().await.unwrap();
        }
    };
    let directory = tempfile::tempdir().unwrap();
    let out = Output::default();
    let work = directory.path().to_path_buf();
    assert_eq!(runner::run_until(jit, work, out.clone(), listening).await, 1);
    assert!(out.text().contains("The runner was told to stop."));
    assert_eq!(sandbox.runners()[0].state, "offline");
    sandbox.close().await;
}

#[tokio::test]
async fn a_step_beyond_its_time_is_stopped_and_fails() {
    let text = "jobs: { a: { runs-on: x, steps: [
        { run: 'sleep 1000', timeout-minutes: 0.005 }, { if: failure(), run: 'echo after' } ] } }";
    let sandbox = Sandbox::start(config()).await.unwrap();
    let job = sandbox.submit("acme", "app", text, 1).unwrap()[0].job_ids[0];
    let caller = installation(&sandbox, "acme").await;
    let (code, _) = run(register(&caller, "/orgs/acme", "r", &["x"]).await).await;
    assert_eq!(code, 0);
    let log = sandbox.log(job).unwrap();
    assert!(log.contains("The action has timed out.") && log.contains("after"), "{log}");
    assert_eq!(sandbox.statistics().concluded("failure"), 1);
    sandbox.close().await;
}

#[tokio::test]
async fn needs_are_kept_and_a_failed_need_skips() {
    let text = "jobs:
  a: { runs-on: x, steps: [{ run: 'true' }] }
  b: { runs-on: x, needs: a, steps: [{ run: 'false' }] }
  c: { runs-on: x, needs: [a, b], steps: [{ run: 'true' }] }
  d: { runs-on: x, needs: b, if: always(), steps: [{ run: 'true' }] }";
    let sandbox = Sandbox::start(config()).await.unwrap();
    sandbox.submit("acme", "app", text, 1).unwrap();
    assert_eq!(
        (sandbox.statistics().jobs_in("queued"), sandbox.statistics().jobs_in("blocked")),
        (1, 3)
    );
    let caller = installation(&sandbox, "acme").await;
    for name in ["1", "2", "3"] {
        assert_eq!(run(register(&caller, "/orgs/acme", name, &["x"]).await).await.0, 0);
    }
    let ends: Vec<_> = sandbox.jobs().into_iter().map(|job| job.conclusion.unwrap()).collect();
    assert_eq!(ends, ["success", "failure", "skipped", "success"]);
    sandbox.close().await;
}

#[tokio::test]
async fn a_runner_whose_registration_is_removed_exits_1() {
    let sandbox = Sandbox::start(config()).await.unwrap();
    let caller = installation(&sandbox, "acme").await;
    let jit = register(&caller, "/orgs/acme", "r", &["x"]).await;
    let remove = async {
        let mut changes = sandbox.changes();
        while sandbox.runners()[0].state != "idle" {
            changes.changed().await.unwrap();
        }
        let id = sandbox.runners()[0].id;
        let path = format!("/orgs/acme/actions/runners/{id}");
        assert_eq!(caller.delete(&path).await.status, 204);
    };
    let ((code, printed), ()) = tokio::join!(run(jit.clone()), remove);
    assert_eq!(code, 1);
    assert!(printed.contains("An error occurred: Runner not found"), "{printed}");
    let (code, printed) = run(jit).await;
    assert_eq!((code, printed.trim()), (1, "An error occurred: Runner not found"));
    sandbox.close().await;
}

#[tokio::test]
async fn a_lost_runners_job_is_queued_again_under_its_number_and_another_runs_it() {
    let mut config = config();
    config.faults = Faults { lose_runner: 1.0, requeue_lost: 1.0, ..Faults::default() };
    let sandbox = Sandbox::start(config).await.unwrap();
    // It hangs until the test lets it go, so that it cannot end before its runner is lost.
    let directory = tempfile::tempdir().unwrap();
    let go = directory.path().join("go");
    let text = format!(
        "jobs: {{ a: {{ runs-on: x, steps: [{{ run: 'test -e {} || sleep 1000' }}] }} }}",
        go.display()
    );
    let job = sandbox.submit("acme", "app", &text, 1).unwrap()[0].job_ids[0];
    let caller = installation(&sandbox, "acme").await;
    let (code, printed) = run(register(&caller, "/orgs/acme", "one", &["x"]).await).await;
    assert_eq!(code, 1, "{printed}");
    let between = sandbox.job(job).unwrap();
    assert_eq!((between.status.as_str(), between.requeues, between.runner), ("queued", 1, None));
    sandbox.set_faults(Faults::default()).unwrap();
    std::fs::write(go, "").unwrap();
    let (code, _) = run(register(&caller, "/orgs/acme", "two", &["x"]).await).await;
    assert_eq!(code, 0);
    let after = sandbox.job(job).unwrap();
    assert_eq!(after.conclusion.as_deref(), Some("success"));
    assert_eq!(after.runner.as_deref(), Some("two"));
    sandbox.close().await;
}

#[tokio::test]
async fn a_workflow_the_sandbox_cannot_run_is_refused_with_its_problems() {
    let sandbox = Sandbox::start(config()).await.unwrap();
    let text = "jobs: { a: { runs-on: x, steps: [{ uses: actions/checkout@v4 }] } }";
    let error = sandbox.submit("acme", "app", text, 1).unwrap_err();
    assert!(matches!(error, SandboxError::Workflow(_)));
    let caller = Caller::new(&sandbox.url(), None);
    let path = "/_sandbox/repos/acme/app/workflows";
    let answer = caller.post(path, text.into()).await;
    assert_eq!(answer.status, 422);
    assert_eq!(answer.json()["problems"][0]["place"], "jobs.a.steps[0].uses");
    assert_eq!(sandbox.jobs(), []);
    sandbox.close().await;
}

#[tokio::test]
async fn a_garbled_configuration_is_refused_without_showing_it() {
    for garbled in ["", "%%%", "bm90IGpzb24=", "e30="] {
        let (code, printed) = run(garbled.to_string().into()).await;
        assert_eq!(code, 1);
        assert!(printed.contains("the JIT configuration cannot be used"), "{printed}");
        assert!(garbled.is_empty() || !printed.contains(garbled));
    }
}

#[tokio::test]
async fn an_app_token_by_another_key_is_refused() {
    let sandbox = Sandbox::start(config()).await.unwrap();
    let mut caller = app(&sandbox);
    assert_eq!(caller.get("/app").await.status, 200);
    let mut token = caller.token.take().unwrap();
    let place = token.rfind('.').unwrap() + 10;
    let other = if &token[place..=place] == "A" { "B" } else { "A" };
    token.replace_range(place..=place, other);
    caller.token = Some(token);
    assert_eq!(caller.get("/app").await.status, 401);
    sandbox.close().await;
}
