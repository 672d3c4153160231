//! Making registrations.

use http::Method;
use remuda_core::observation::Cause;
use remuda_forge::{Forge, ForgeError};
use secrecy::ExposeSecret;
use serde_json::json;

use super::fake::{Fake, World};
use super::{in_group, launch};

// A62, A63
#[tokio::test]
async fn an_organizations_runner_joins_a_group_that_is_made_once() {
    let fake = Fake::start(World::acme()).await;
    let github = fake.client();
    let made = github.register(&launch("org:acme", "rvv-1")).await.unwrap();
    github.register(&launch("org:acme", "rvv-2")).await.unwrap();

    let world = fake.world();
    let [(group, _, asked)] = world.groups["orgs/acme"].as_slice() else { panic!() };
    let expected = json!({
        "name": "Remuda Runners", "visibility": "all", "allows_public_repositories": true,
    });
    assert_eq!(*asked, expected);
    let [first, second] = world.runners["orgs/acme"].as_slice() else { panic!() };
    assert_eq!((first.id, first.group, second.group), (made.id, *group, *group));
    assert_eq!(first.labels, ["linux", "rvv", "self-hosted"]);
    assert_eq!(made.jit.expose_secret(), "jit-of-rvv-1");
}

#[tokio::test]
async fn a_pools_own_group_is_preferred_to_the_forges() {
    let fake = Fake::start(World::acme()).await;
    fake.world().groups.insert("orgs/acme".into(), vec![(5, "boards".into(), json!(null))]);
    fake.client().register(&in_group(launch("org:acme", "rvv-1"), "boards")).await.unwrap();
    assert_eq!(fake.world().runners["orgs/acme"][0].group, 5);
}

// A61, W42
#[tokio::test]
async fn a_group_on_the_second_page_is_found_and_not_made_again() {
    let fake = Fake::start(World::acme()).await;
    let name = |id: u64| if id == 130 { "Remuda Runners".into() } else { format!("group {id}") };
    let groups = (2..150).map(|id| (id, name(id), json!(null))).collect();
    fake.world().groups.insert("orgs/acme".into(), groups);
    fake.client().register(&launch("org:acme", "rvv-1")).await.unwrap();

    let world = fake.world();
    assert_eq!(world.runners["orgs/acme"][0].group, 130);
    assert_eq!(world.groups["orgs/acme"].len(), 148);
}

#[tokio::test]
async fn a_group_that_somebody_else_makes_meanwhile_is_used() {
    let fake = Fake::start(World::acme()).await;
    fake.world().race = Some("Remuda Runners".into());
    fake.client().register(&launch("org:acme", "rvv-1")).await.unwrap();

    let world = fake.world();
    let [(group, ..)] = world.groups["orgs/acme"].as_slice() else { panic!() };
    assert_eq!(world.runners["orgs/acme"][0].group, *group);
}

#[tokio::test]
async fn a_group_that_was_removed_is_asked_for_anew_by_the_next_call() {
    let fake = Fake::start(World::acme()).await;
    let github = fake.client();
    github.register(&launch("org:acme", "rvv-1")).await.unwrap();
    fake.world().groups.clear();

    let error = github.register(&launch("org:acme", "rvv-2")).await.unwrap_err();
    assert!(matches!(error, ForgeError::Stale { what: "the runner group", .. }), "{error}");
    assert_eq!(error.cause(), Cause::Transient);
    github.register(&launch("org:acme", "rvv-2")).await.unwrap();
}

// A59, A65
#[tokio::test]
async fn a_personal_accounts_runner_registers_at_its_repository() {
    let fake = Fake::start(World::ada()).await;
    let made = fake.client().register(&launch("repo:ada/toy", "rvv-1")).await.unwrap();

    let world = fake.world();
    let [runner] = world.runners["repos/ada/toy"].as_slice() else { panic!() };
    assert_eq!((runner.id, runner.group), (made.id, 1));
    assert!(world.groups.is_empty());
}

// A64
#[tokio::test]
async fn a_name_that_is_taken_tells_of_an_earlier_call() {
    let fake = Fake::start(World::acme()).await;
    let github = fake.client();
    github.register(&launch("org:acme", "rvv-1")).await.unwrap();
    let error = github.register(&launch("org:acme", "rvv-1")).await.unwrap_err();
    assert!(matches!(error, ForgeError::NameTaken { .. }), "{error}");
    assert_eq!(error.cause(), Cause::Unknown);
    assert_eq!(fake.world().runners["orgs/acme"].len(), 1);
}

#[tokio::test]
async fn enterprise_server_is_asked_under_its_prefix_and_github_com_without() {
    let fake = Fake::start(World::acme()).await;
    let mut forge = fake.forge();
    assert!(forge.api.ends_with("/api/v3"));
    fake.client_of(&forge).register(&launch("org:acme", "rvv-1")).await.unwrap();
    forge.api = format!("{}/", fake.address);
    fake.client_of(&forge).register(&launch("org:acme", "rvv-2")).await.unwrap();
    assert_eq!(fake.world().count(&Method::POST, "generate-jitconfig"), 2);
}

#[tokio::test]
async fn a_registration_whose_deadline_has_passed_is_not_made() {
    let fake = Fake::start(World::acme()).await;
    let mut late = launch("org:acme", "rvv-1");
    late.deadline = fake.now();
    let error = fake.client().register(&late).await.unwrap_err();
    assert!(matches!(error, ForgeError::TooLate { .. }), "{error}");
    assert_eq!(error.cause(), Cause::Transient);
    assert!(fake.world().runners.is_empty());
}
