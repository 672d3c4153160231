//! Reading jobs.

use std::collections::BTreeSet;

use http::Method;
use remuda_core::Timestamp;
use remuda_core::action::Reach;
use remuda_core::job::{Conclusion, JobKey, JobState};
use remuda_core::name::ForgeName;
use remuda_core::observation::{Cause, Covered, JobSeen, Source};
use remuda_core::tenant::OwnerKind;
use remuda_forge::{Forge, ForgeError, GitHub};
use serde_json::{Value, json};

use super::fake::{App, Fake, Fault, PAT, Repo, Run, World, installation, owner_id};
use super::{repository, scope};

fn job(id: u64, status: &str) -> Value {
    json!({
        "id": id, "run_id": 5, "status": status, "conclusion": null, "name": "build",
        "workflow_name": "CI", "html_url": "https://github.com/acme/app/actions/runs/5/job/1",
        "labels": ["self-hosted", "rvv"], "created_at": "2023-11-14T22:00:00Z",
        "started_at": "2023-11-14T22:00:01Z", "completed_at": null,
        "runner_id": null, "runner_name": null,
    })
}

fn run(id: u64, status: &'static str, jobs: Vec<Value>) -> Run {
    Run { id, status, jobs }
}

fn repo(owner: &'static str, name: &'static str, runs: Vec<Run>) -> Repo {
    Repo { owner, name, archived: false, runs }
}

fn key(id: u64) -> JobKey {
    JobKey::rest(&ForgeName::new("github").unwrap(), id)
}

fn found(jobs: &[JobSeen]) -> Vec<(u64, JobState)> {
    jobs.iter().map(|job| (job.key.native, job.state)).collect()
}

fn reach() -> Reach {
    Reach { active: BTreeSet::new(), after: None, others: 1000, calls_max: 10_000 }
}

/// A sweep that reaches everything.
async fn sweep(fake: &Fake, github: &GitHub, at: &str) -> Result<Vec<JobSeen>, ForgeError> {
    let open = github.jobs(&scope(at), &reach(), fake.now()).await?;
    assert_eq!(open.covered, Covered::Whole);
    Ok(open.all)
}

async fn read(fake: &Fake, github: &GitHub, id: u64) -> Result<Option<JobSeen>, ForgeError> {
    github.job(&scope("org:acme"), &repository("acme", "app"), &key(id), fake.now()).await
}

#[tokio::test]
async fn open_jobs_are_found_in_every_repository_and_state() {
    let mut world = World::acme();
    let mut running = job(3, "in_progress");
    running["runner_id"] = json!(9);
    running["runner_name"] = json!("rvv-1");
    world.repositories = vec![
        repo(
            "acme",
            "app",
            vec![
                run(1, "queued", vec![job(1, "queued"), job(2, "waiting")]),
                run(2, "in_progress", vec![running, job(4, "queued"), job(5, "completed")]),
                run(3, "completed", vec![job(6, "completed")]),
            ],
        ),
        repo(
            "acme",
            "lib",
            vec![
                run(4, "waiting", vec![job(7, "waiting")]),
                run(5, "pending", vec![job(8, "pending")]),
            ],
        ),
        repo("umbrella", "x", vec![run(6, "queued", vec![job(9, "queued")])]),
    ];
    let fake = Fake::start(world).await;
    let jobs = sweep(&fake, &fake.client(), "org:acme").await.unwrap();
    let expected = [
        (1, JobState::Queued),
        (2, JobState::Waiting),
        (3, JobState::InProgress),
        (4, JobState::Queued),
        (7, JobState::Waiting),
        (8, JobState::Waiting),
    ];
    assert_eq!(found(&jobs), expected);
    let running = &jobs[2];
    assert_eq!(running.runner.as_ref().map(|runner| runner.id), Some(9));
    assert_eq!(running.source, Source::Read { asked_at: fake.now() });
    assert_eq!(
        (running.tenant.key.kind, running.tenant.key.id),
        (OwnerKind::Organization, owner_id("acme"))
    );
    assert_eq!(running.repository, repository("acme", "app"));
    assert_eq!(running.scope, scope("org:acme"));
    assert_eq!(jobs[4].repository, repository("acme", "lib"));
}

#[tokio::test]
async fn many_repositories_and_jobs_are_read_to_the_last_page() {
    let mut world = World::acme();
    let names: Vec<&'static str> = (0..120).map(|n| &*format!("repo-{n:03}").leak()).collect();
    world.repositories = names.iter().map(|name| repo("acme", name, vec![])).collect();
    let jobs = (0..230).map(|id| job(id, "queued")).collect();
    world.repositories[110].runs.push(run(1, "queued", jobs));
    let fake = Fake::start(world).await;
    let jobs = sweep(&fake, &fake.client(), "org:acme").await.unwrap();
    assert_eq!(jobs.len(), 230);
    assert!(jobs.iter().all(|job| job.repository.name.as_str() == "repo-110"));
}

#[tokio::test]
async fn a_sweep_of_which_nothing_changed_costs_no_budget() {
    let mut world = World::acme();
    world.budget = Some(1000);
    world.repositories[0].runs.push(run(1, "queued", vec![job(1, "queued")]));
    let fake = Fake::start(world).await;
    let github = fake.client();
    let first = sweep(&fake, &github, "org:acme").await.unwrap();
    let left = fake.world().budget;
    let second = sweep(&fake, &github, "org:acme").await.unwrap();
    assert_eq!((second, fake.world().budget), (first, left));
}

#[tokio::test]
async fn a_personal_accounts_repository_is_a_scope_of_its_own() {
    let mut world = World::ada();
    world.repositories[0].runs.push(run(1, "queued", vec![job(1, "queued")]));
    let fake = Fake::start(world).await;
    let jobs = sweep(&fake, &fake.client(), "repo:ada/toy").await.unwrap();
    let [job] = jobs.as_slice() else { panic!("{jobs:?}") };
    assert_eq!(job.scope, scope("repo:ada/toy"));
    assert_eq!((job.tenant.key.kind, job.tenant.key.id), (OwnerKind::User, owner_id("ada")));
}

#[tokio::test]
async fn several_apps_together_see_what_each_of_them_sees() {
    let mut world = World::acme();
    let see = |id, name| {
        let mut one = installation(id, "acme");
        one.selected = Some(BTreeSet::from([name]));
        one
    };
    world.apps = vec![
        App { id: "1", installations: vec![see(11, "app")] },
        App { id: "2", installations: vec![see(12, "lib")] },
    ];
    world.repositories = vec![
        repo("acme", "app", vec![run(1, "queued", vec![job(1, "queued")])]),
        repo("acme", "lib", vec![run(2, "queued", vec![job(2, "queued")])]),
        repo("acme", "hid", vec![run(3, "queued", vec![job(3, "queued")])]),
    ];
    let fake = Fake::start(world).await;
    let github = fake.client();
    let jobs = sweep(&fake, &github, "org:acme").await.unwrap();
    assert_eq!(found(&jobs), [(1, JobState::Queued), (2, JobState::Queued)]);
    // A single job too is found by whoever can see it.
    let read = async |name: &str, id| {
        let acme = scope("org:acme");
        github.job(&acme, &repository("acme", name), &key(id), fake.now()).await.unwrap()
    };
    assert!(read("lib", 2).await.is_some());
    assert!(read("hid", 3).await.is_none());
}

#[tokio::test]
async fn the_personal_token_lists_an_organizations_repositories() {
    let mut world = World::acme();
    world.apps.clear();
    world.repositories[0].runs.push(run(1, "queued", vec![job(1, "queued")]));
    let mut fake = Fake::start(world).await;
    let mut forge = fake.forge();
    forge.token = Some(fake.secret(PAT));
    let github = fake.client_of(&forge);
    let jobs = sweep(&fake, &github, "org:acme").await.unwrap();
    assert_eq!(found(&jobs), [(1, JobState::Queued)]);
    let error = sweep(&fake, &github, "enterprise:big").await.unwrap_err();
    assert_eq!(error.cause(), Cause::Invalid, "{error}");
}

#[tokio::test]
async fn one_hostile_job_does_not_hide_the_others() {
    let mut world = World::acme();
    let mut hostile = job(1, "queued");
    hostile["labels"] = json!(["a\u{7}b"]);
    let mut crowded = job(2, "queued");
    crowded["labels"] = json!((0..101).map(|n| n.to_string()).collect::<Vec<_>>());
    let jobs = vec![hostile, crowded, job(3, "queued")];
    world.repositories[0].runs.push(run(1, "queued", jobs));
    let fake = Fake::start(world).await;
    let jobs = sweep(&fake, &fake.client(), "org:acme").await.unwrap();
    assert_eq!(found(&jobs), [(3, JobState::Queued)]);
}

#[tokio::test]
async fn a_repository_that_is_gone_or_closed_does_not_hide_the_others() {
    for (status, body) in [
        (404, r#"{"message": "Not Found"}"#),
        (451, r#"{"message": "Repository access blocked"}"#),
        (403, r#"{"message": "Repository access blocked"}"#),
    ] {
        let mut world = World::acme();
        world.repositories.push(repo("acme", "gone", vec![]));
        world.repositories.push(Repo { archived: true, ..repo("acme", "old", vec![]) });
        world.repositories[0].runs.push(run(1, "queued", vec![job(1, "queued")]));
        world.fail(Method::GET, "/acme/gone/actions/runs", Fault::Answer(status, &[], body));
        let fake = Fake::start(world).await;
        let jobs = sweep(&fake, &fake.client(), "org:acme").await.unwrap();
        assert_eq!(found(&jobs), [(1, JobState::Queued)]);
        assert_eq!(fake.world().count(&Method::GET, "/acme/old/actions/runs"), 0);
    }
}

#[tokio::test]
async fn a_repository_of_another_owner_is_not_swept() {
    let mut world = World::acme();
    world.repositories[0].runs.push(run(1, "queued", vec![job(1, "queued")]));
    let listed = r#"{"repositories": [
        {"name": "x", "owner": {"login": "umbrella", "id": 1, "type": "Organization"}},
        {"name": "app", "owner": {"login": "Acme", "id": 2, "type": "Organization"}}
    ]}"#;
    world.fail(Method::GET, "/installation/repositories", Fault::Answer(200, &[], listed));
    let fake = Fake::start(world).await;
    let jobs = sweep(&fake, &fake.client(), "org:acme").await.unwrap();
    assert_eq!(found(&jobs), [(1, JobState::Queued)]);
    assert_eq!(fake.world().count(&Method::GET, "/umbrella/x/actions/runs"), 0);
}

#[tokio::test]
async fn a_sweep_that_fails_in_one_place_is_not_passed_off_as_whole() {
    for (path, fault) in [
        ("/installation/repositories", Fault::Answer(502, &[], "")),
        ("/acme/app/actions/runs", Fault::Answer(500, &[], "")),
        ("/actions/runs/1/jobs", Fault::Hang),
        ("/actions/runs/1/jobs", Fault::Answer(200, &[], "{\"jobs\": [{}]}")),
    ] {
        let mut world = World::acme();
        world.repositories[0].runs.push(run(1, "queued", vec![job(1, "queued")]));
        world.fail(Method::GET, path, fault.clone());
        let fake = Fake::start(world).await;
        let error = sweep(&fake, &fake.wary(&fault), "org:acme").await.unwrap_err();
        assert_eq!(error.cause(), Cause::Transient, "{path} {fault:?}: {error}");
    }
    let mut world = World::acme();
    world.apps[0].installations[0].permissions.remove("actions");
    let fake = Fake::start(world).await;
    let error = sweep(&fake, &fake.client(), "org:acme").await.unwrap_err();
    assert_eq!(error.cause(), Cause::Invalid, "{error}");
}

#[tokio::test]
async fn more_runs_than_github_lists_are_an_error() {
    let mut world = World::acme();
    let runs = (0..1000).map(|id| run(id, "queued", vec![]));
    world.repositories[0].runs.extend(runs);
    let fake = Fake::start(world).await;
    let error = sweep(&fake, &fake.client(), "org:acme").await.unwrap_err();
    assert!(matches!(error, ForgeError::TooLong { max: 1000, .. }), "{error}");
}

// A67
#[tokio::test]
async fn a_job_is_read_with_its_tenant_which_is_asked_for_once() {
    let mut world = World::acme();
    let mut done = job(1, "completed");
    done["conclusion"] = json!("failure");
    done["completed_at"] = json!("2023-11-14T22:05:00Z");
    done["runner_id"] = json!(9);
    done["runner_name"] = json!("rvv-1");
    world.repositories[0].runs.push(run(1, "completed", vec![done, job(2, "queued")]));
    let fake = Fake::start(world).await;
    let github = fake.client();
    let seen = read(&fake, &github, 1).await.unwrap().unwrap();
    assert_eq!((seen.state, seen.conclusion), (JobState::Completed, Some(Conclusion::Failure)));
    assert_eq!(seen.tenant.key.id, owner_id("acme"));
    assert_eq!(seen.scope, scope("org:acme"));
    assert_eq!(seen.completed_at.map(Timestamp::as_millis), Some(1_699_999_500_000));
    assert_eq!(seen.source, Source::Read { asked_at: fake.now() });
    let seen = read(&fake, &github, 2).await.unwrap().unwrap();
    assert_eq!((seen.state, seen.conclusion, seen.started_at), (JobState::Queued, None, None));
    assert_eq!(fake.world().count(&Method::GET, "/repos/acme/app"), 1);
}

#[tokio::test]
async fn a_job_with_a_conclusion_is_over_whatever_its_status_says() {
    let mut world = World::acme();
    let mut cancelled = job(1, "in_progress");
    cancelled["conclusion"] = json!("cancelled");
    world.repositories[0].runs.push(run(1, "in_progress", vec![cancelled]));
    let fake = Fake::start(world).await;
    let github = fake.client();
    let seen = read(&fake, &github, 1).await.unwrap().unwrap();
    assert_eq!((seen.state, seen.conclusion), (JobState::Completed, Some(Conclusion::Cancelled)));
    assert_eq!(sweep(&fake, &github, "org:acme").await, Ok(vec![]));
}

// A68, W21
#[tokio::test]
async fn a_job_that_nobody_knows_is_missing_and_an_error_is_not() {
    let fake = Fake::start(World::acme()).await;
    let github = fake.client();
    assert_eq!(read(&fake, &github, 7).await, Ok(None));
    for (status, cause) in [(403, Cause::Invalid), (500, Cause::Transient)] {
        fake.world().fail(Method::GET, "/actions/jobs/7", Fault::Answer(status, &[], "{}"));
        assert_eq!(read(&fake, &github, 7).await.unwrap_err().cause(), cause);
    }
    // An App that was removed says nothing about the jobs it used to see.
    let mut world = World::acme();
    world.apps[0].installations.clear();
    let fake = Fake::start(world).await;
    let error = read(&fake, &fake.client(), 7).await.unwrap_err();
    assert!(matches!(error, ForgeError::NoCredential { .. }), "{error}");
}

#[tokio::test]
async fn a_name_from_outside_cannot_lead_a_request_astray() {
    let fake = Fake::start(World::acme()).await;
    let github = fake.client();
    for bad in ["..", "a?b", "a%2fb"] {
        let astray = repository("acme", bad);
        let asked = github.job(&scope("org:acme"), &astray, &key(1), fake.now()).await;
        assert!(matches!(asked, Err(ForgeError::Unsupported(_))), "{asked:?}");
    }
}

/// An organization of thirty repositories, each with one queued job of its number.
fn thirty() -> World {
    let mut world = World::acme();
    let names: Vec<&'static str> = (0..30).map(|n| &*format!("repo-{n:02}").leak()).collect();
    let one = |(n, name): (u64, &'static str)| {
        repo("acme", name, vec![run(n, "queued", vec![job(n, "queued")])])
    };
    world.repositories = (0..).zip(names).map(one).collect();
    world
}

#[tokio::test]
async fn a_sweep_reaches_active_repositories_and_some_of_the_others_in_turn() {
    let fake = Fake::start(thirty()).await;
    let github = fake.client();
    let named = |n: u64| repository("acme", &format!("repo-{n:02}"));
    let active = BTreeSet::from([named(29), repository("acme", "gone")]);
    let mut reach = Reach { active, others: 12, ..reach() };
    let mut found = BTreeSet::new();
    for (from, to, next) in [(0, 12, 11), (12, 24, 23), (24, 29, 6)] {
        let open = github.jobs(&scope("org:acme"), &reach, fake.now()).await.unwrap();
        let Covered::Part { repositories, next: Some(after) } = open.covered else { panic!() };
        assert!((from..to).all(|n| repositories.contains(&named(n))), "{repositories:?}");
        // What is gone was looked at too: it has no jobs.
        assert!(repositories.contains(&named(29)) && repositories.len() == 14, "{repositories:?}");
        assert_eq!((open.all.len(), &after), (13, &named(next)));
        assert!(open.all.iter().all(|job| repositories.contains(&job.repository)));
        found.extend(open.all.iter().map(|job| job.key.native));
        reach.after = Some(after);
    }
    assert_eq!(found.len(), 30);
}

#[tokio::test]
async fn a_sweep_costs_no_more_than_it_may_and_says_what_it_did_not_read() {
    let fake = Fake::start(thirty()).await;
    let github = fake.client();
    let reach = Reach { calls_max: 40, ..reach() };
    let (mut found, mut rounds) = (BTreeSet::new(), 0);
    loop {
        let before = fake.world().seen.len();
        let open = github.jobs(&scope("org:acme"), &reach, fake.now()).await.unwrap();
        assert!(open.calls <= 40, "{} calls", open.calls);
        let world = fake.world();
        let counted = world.seen[before..].iter().filter(|seen| seen.status == 200);
        let by_installation = counted.filter(|seen| !seen.path.ends_with("/installation"));
        assert_eq!(by_installation.count(), usize::try_from(open.calls).unwrap());
        found.extend(open.all.iter().map(|job| job.key.native));
        rounds += 1;
        match open.covered {
            Covered::Whole => break,
            Covered::Part { repositories, .. } => {
                let missing = (0..30).filter(|n| !found.contains(n));
                let unread =
                    |n: &u64| !repositories.contains(&repository("acme", &format!("repo-{n:02}")));
                assert!(missing.clone().all(|n| unread(&n)), "{:?}", missing.collect::<Vec<_>>());
            }
        }
        assert!(rounds < 10, "it never gets through");
    }
    // What was read once and has not changed costs nothing, so each sweep gets further.
    assert_eq!(found.len(), 30);
}

#[tokio::test]
async fn several_apps_share_the_repositories_they_all_see() {
    let mut world = thirty();
    let second = App { id: "2", installations: vec![installation(21, "acme")] };
    world.apps.push(second);
    world.budgets = [(11, 5000), (21, 5000)].into();
    let fake = Fake::start(world).await;
    let jobs = sweep(&fake, &fake.client(), "org:acme").await.unwrap();
    assert_eq!(jobs.len(), 30);
    let left = fake.world().budgets.clone();
    assert!(left.values().all(|left| *left < 4950), "{left:?}");
}
