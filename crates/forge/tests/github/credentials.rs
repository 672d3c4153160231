//! Who we are when we ask.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use remuda_core::fleet::SecretRef;
use remuda_core::observation::Cause;
use remuda_forge::{Forge, ForgeError, GitHub, SetupError};
use serde_json::json;

use super::fake::{App, Fake, Fault, PAT, World, installation, login};
use super::{launch, scope};

fn minted(fake: &Fake) -> usize {
    fake.world().count(&Method::POST, "/access_tokens")
}

// A58
#[tokio::test]
async fn a_token_serves_until_five_minutes_before_its_end() {
    let fake = Fake::start(World::acme()).await;
    let github = fake.client();
    github.runners(&scope("org:acme")).await.unwrap();
    fake.pass(Duration::from_mins(54));
    github.runners(&scope("org:acme")).await.unwrap();
    assert_eq!(minted(&fake), 1);
    fake.pass(Duration::from_mins(2));
    github.runners(&scope("org:acme")).await.unwrap();
    assert_eq!(minted(&fake), 2);
}

#[tokio::test]
async fn many_calls_at_once_share_one_token_and_one_group() {
    let fake = Fake::start(World::acme()).await;
    let github = fake.client();
    let launches: Vec<_> = (0..20).map(|n| launch("org:acme", &format!("rvv-{n}"))).collect();
    let made = join_all(launches.iter().map(|launch| github.register(launch))).await;
    assert!(made.iter().all(Result::is_ok), "{made:?}");

    let world = fake.world();
    assert_eq!(world.runners["orgs/acme"].len(), 20);
    assert_eq!(world.count(&Method::GET, "/orgs/acme/installation"), 1);
    assert_eq!(world.count(&Method::POST, "/access_tokens"), 1);
    assert_eq!(world.count(&Method::POST, "/runner-groups"), 1);
}

#[tokio::test]
async fn a_key_may_be_pkcs_1_or_pkcs_8() {
    let fake = Fake::start(World::acme()).await;
    let mut forge = fake.forge();
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/keys");
    for (key, runner) in [("app-pkcs1.pem", "rvv-1"), ("app-pkcs8.pem", "rvv-2")] {
        forge.apps[0].private_key = SecretRef::File(format!("{keys}/{key}").into());
        fake.client_of(&forge).register(&launch("org:acme", runner)).await.unwrap();
    }
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_at_once_and_not_shown() {
    let mut fake = Fake::start(World::acme()).await;
    let mut forge = fake.forge();
    let ec = "-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----";
    let damaged = "-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n-----END RSA PRIVATE KEY-----";
    for text in ["c2VjcmV0", ec, damaged] {
        forge.apps[0].private_key = fake.secret(text);
        let error = GitHub::new(&forge, fake.clock()).unwrap_err();
        assert!(matches!(error, SetupError::Key { .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("c2VjcmV0"));
    }
}

#[tokio::test]
async fn an_api_must_be_https_or_loopback() {
    let fake = Fake::start(World::acme()).await;
    let mut forge = fake.forge();
    for good in ["https://api.github.com", "http://localhost:1/api/v3", "http://[::1]:1"] {
        forge.api = good.into();
        assert!(GitHub::new(&forge, fake.clock()).is_ok(), "{good}");
    }
    for bad in ["http://github.example", "ftp://127.0.0.1", "", "api.github.com", "https://h/?q"] {
        forge.api = bad.into();
        assert!(GitHub::new(&forge, fake.clock()).is_err(), "{bad}");
    }
    forge.api = "https://user:hunter2@github.example".into();
    let error = GitHub::new(&forge, fake.clock()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

// W43
#[tokio::test]
async fn a_clock_that_is_far_off_is_allowed_for_from_the_second_call_on() {
    for minutes in [-30, 30] {
        let fake = Fake::start(World::acme()).await;
        fake.world().skew = minutes * 60_000;
        let github = fake.client();
        let error = github.runners(&scope("org:acme")).await.unwrap_err();
        assert!(
            matches!(error, ForgeError::ClockOff { seconds, .. } if seconds == minutes * 60),
            "{error}"
        );
        assert_eq!(error.cause(), Cause::Transient);
        github.runners(&scope("org:acme")).await.unwrap();

        // The token's end is told by the forge's clock too.
        fake.pass(Duration::from_mins(54));
        github.runners(&scope("org:acme")).await.unwrap();
        assert_eq!(minted(&fake), 1);
        fake.pass(Duration::from_mins(2));
        github.runners(&scope("org:acme")).await.unwrap();
        assert_eq!(minted(&fake), 2);
    }
}

#[tokio::test]
async fn a_clock_that_is_a_little_off_needs_no_allowance() {
    for seconds in [-50, 50] {
        let fake = Fake::start(World::acme()).await;
        fake.world().skew = seconds * 1000;
        fake.client().runners(&scope("org:acme")).await.unwrap();
    }
}

// A60
#[tokio::test]
async fn an_app_that_github_does_not_know_is_for_a_person_to_mend() {
    let fake = Fake::start(World::acme()).await;
    let mut forge = fake.forge();
    forge.apps[0].id = "99".into();
    let error = fake.client_of(&forge).runners(&scope("org:acme")).await.unwrap_err();
    assert!(error.to_string().contains("Integration not found"), "{error}");
    assert_eq!(error.cause(), Cause::Invalid);
}

fn two_apps() -> World {
    let mut world = World::acme();
    world.apps = vec![
        App { id: "1", installations: vec![] },
        App { id: "Iv1.two", installations: vec![installation(21, "acme")] },
    ];
    world
}

#[tokio::test]
async fn the_first_app_that_is_installed_serves() {
    let fake = Fake::start(two_apps()).await;
    fake.client().register(&launch("org:acme", "rvv-1")).await.unwrap();
    let world = fake.world();
    assert!(world.tokens.values().all(|token| token.installation == 21));
    assert_eq!(world.count(&Method::GET, "/orgs/acme/installation"), 2);
}

#[tokio::test]
async fn an_app_is_not_asked_about_owners_it_is_not_declared_for() {
    let fake = Fake::start(two_apps()).await;
    let mut forge = fake.forge();
    forge.apps[0].owners = vec![login("umbrella")];
    forge.apps[1].owners = vec![login("umbrella"), login("Acme")];
    fake.client_of(&forge).register(&launch("org:acme", "rvv-1")).await.unwrap();
    assert_eq!(fake.world().count(&Method::GET, "/orgs/acme/installation"), 1);

    forge.apps[1].owners = vec![login("umbrella")];
    let error = fake.client_of(&forge).runners(&scope("org:acme")).await.unwrap_err();
    assert!(matches!(error, ForgeError::NoCredential { .. }), "{error}");
    assert_eq!(error.cause(), Cause::Invalid);
}

#[tokio::test]
async fn a_new_installation_is_noticed_after_a_minute() {
    let fake = Fake::start(two_apps()).await;
    let github = fake.client();
    fake.world().apps[1].installations.clear();
    for _ in 0..3 {
        assert!(github.runners(&scope("org:acme")).await.is_err());
    }
    assert_eq!(fake.world().count(&Method::GET, "/orgs/acme/installation"), 2);
    fake.world().apps[0].installations.push(installation(31, "acme"));
    fake.pass(Duration::from_secs(61));
    github.runners(&scope("org:acme")).await.unwrap();
}

#[tokio::test]
async fn an_app_that_may_not_leaves_it_to_the_next() {
    let mut world = two_apps();
    let mut weak = installation(20, "acme");
    weak.permissions.remove("organization_self_hosted_runners");
    world.apps[0].installations.push(weak);
    let fake = Fake::start(world).await;
    fake.client().register(&launch("org:acme", "rvv-1")).await.unwrap();

    // If nobody may, the first refusal is told.
    fake.world().apps[1].installations.clear();
    let error = fake.client().register(&launch("org:acme", "rvv-2")).await.unwrap_err();
    assert!(error.to_string().contains("Resource not accessible by integration"), "{error}");
    assert_eq!(error.cause(), Cause::Invalid);
}

#[tokio::test]
async fn an_app_that_was_suspended_or_removed_leaves_it_to_the_next() {
    let mut world = two_apps();
    world.apps[0].installations.push(installation(20, "acme"));
    let fake = Fake::start(world).await;
    let github = fake.client();
    github.runners(&scope("org:acme")).await.unwrap();
    fake.world().apps[0].installations.clear();
    fake.pass(Duration::from_mins(56));
    github.runners(&scope("org:acme")).await.unwrap();
    let serves = |fake: &Fake| fake.world().tokens.values().map(|t| t.installation).max();
    assert_eq!(serves(&fake), Some(21));

    let mut world = two_apps();
    let mut suspended = installation(30, "acme");
    suspended.suspended = true;
    world.apps[0].installations.push(suspended);
    let fake = Fake::start(world).await;
    fake.client().runners(&scope("org:acme")).await.unwrap();
    assert_eq!(serves(&fake), Some(21));
}

#[tokio::test]
async fn an_app_that_was_installed_anew_is_found_by_the_next_call() {
    let fake = Fake::start(World::acme()).await;
    let github = fake.client();
    github.runners(&scope("org:acme")).await.unwrap();
    fake.world().apps[0].installations = vec![installation(99, "acme")];
    fake.pass(Duration::from_mins(56));
    assert!(github.runners(&scope("org:acme")).await.is_err());
    github.runners(&scope("org:acme")).await.unwrap();
}

#[tokio::test]
async fn the_personal_token_serves_only_where_no_app_does() {
    let mut fake = Fake::start(World::acme()).await;
    let mut forge = fake.forge();
    forge.token = Some(fake.secret(PAT));
    let github = fake.client_of(&forge);
    let by_token = |fake: &Fake| {
        let world = fake.world();
        let last = world.seen.last().unwrap();
        last.headers["authorization"] == *format!("Bearer {PAT}")
    };
    github.runners(&scope("org:acme")).await.unwrap();
    assert!(!by_token(&fake));
    github.runners(&scope("org:umbrella")).await.unwrap();
    assert!(by_token(&fake));
    github.runners(&scope("enterprise:big")).await.unwrap();
    assert!(by_token(&fake));

    // An App that serves and fails is not covered up.
    fake.world().fail(Method::GET, "/orgs/acme/actions/runners", Fault::Answer(403, &[], "{}"));
    assert!(github.runners(&scope("org:acme")).await.is_err());
    assert!(!by_token(&fake));
}

#[tokio::test]
async fn a_revoked_token_is_replaced_by_the_next_call() {
    let fake = Fake::start(World::acme()).await;
    let github = fake.client();
    github.runners(&scope("org:acme")).await.unwrap();
    fake.world().tokens.clear();
    let error = github.runners(&scope("org:acme")).await.unwrap_err();
    assert_eq!(error.cause(), Cause::Transient, "{error}");
    github.runners(&scope("org:acme")).await.unwrap();

    fake.world().tokens.clear();
    let error = github.register(&launch("org:acme", "rvv-1")).await.unwrap_err();
    assert_eq!(error.cause(), Cause::Transient, "{error}");
    github.register(&launch("org:acme", "rvv-1")).await.unwrap();
}

// W11
#[tokio::test]
async fn a_token_opens_no_more_than_it_must() {
    let fake = Fake::start(World::acme()).await;
    fake.client().runners(&scope("org:acme")).await.unwrap();
    let asked = |fake: &Fake| fake.world().tokens.values().next().unwrap().asked.clone();
    let permissions = json!({
        "actions": "read", "metadata": "read", "organization_self_hosted_runners": "write",
    });
    assert_eq!(asked(&fake), json!({"permissions": permissions}));

    let mut world = World::ada();
    world.apps[0].installations[0].permissions.remove("actions");
    let fake = Fake::start(world).await;
    fake.client().runners(&scope("repo:ada/toy")).await.unwrap();
    let permissions = json!({"administration": "write", "metadata": "read"});
    assert_eq!(asked(&fake), json!({"permissions": permissions, "repositories": ["toy"]}));

    let mut world = World::acme();
    let granted = &mut world.apps[0].installations[0].permissions;
    granted.insert("organization_self_hosted_runners".into(), "read".into());
    let fake = Fake::start(world).await;
    fake.client().runners(&scope("org:acme")).await.unwrap();
    let permissions = json!({
        "actions": "read", "metadata": "read", "organization_self_hosted_runners": "read",
    });
    assert_eq!(asked(&fake), json!({"permissions": permissions}));
}

#[tokio::test]
async fn no_error_and_no_description_shows_a_secret() {
    let mut world = World::acme();
    world.apps[0].installations[0].selected = Some(BTreeSet::new());
    let mut fake = Fake::start(world).await;
    let mut forge = fake.forge();
    forge.token = Some(fake.secret(PAT));
    forge.apps[0].webhook_secrets = vec![fake.secret("webhook-hunter2")];
    let github = fake.client_of(&forge);
    let made = github.register(&launch("org:acme", "rvv-1")).await.unwrap();
    let mut texts = vec![format!("{github:?} {made:?} {forge:?}")];

    let leaky = r#"{"token": "ghs_leak", "expires_at": 1}"#;
    fake.pass(Duration::from_mins(56));
    fake.world().fail(Method::POST, "/access_tokens", Fault::Answer(201, &[], leaky));
    let error = github.runners(&scope("org:acme")).await.unwrap_err();
    texts.push(format!("{error} {error:?}"));
    fake.world().fail(Method::POST, "/access_tokens", Fault::Answer(201, &[], "\"ghs_leak\""));
    let error = github.runners(&scope("org:acme")).await.unwrap_err();
    texts.push(format!("{error} {error:?}"));
    let leaky = r#"{"encoded_jit_config": "jit-of-x", "runner": "jit-of-y"}"#;
    fake.world().fail(Method::POST, "/generate-jitconfig", Fault::Answer(201, &[], leaky));
    let error = github.register(&launch("org:acme", "rvv-2")).await.unwrap_err();
    texts.push(format!("{error} {error:?}"));
    for text in texts {
        for secret in [PAT, "ghs_", "jit-of", "PRIVATE", "hunter2", "Bearer"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

/// Who asked last.
fn asked_last(fake: &Fake) -> u64 {
    let world = fake.world();
    let bearer = world.seen.last().unwrap().headers["authorization"].to_str().unwrap().to_owned();
    world.tokens[bearer.trim_start_matches("Bearer ")].installation
}

#[tokio::test]
async fn of_several_apps_the_one_with_most_calls_left_asks() {
    let mut world = two_apps();
    world.apps[0].installations.push(installation(11, "acme"));
    world.budgets = [(11, 3000), (21, 3010)].into();
    let fake = Fake::start(world).await;
    let github = fake.client();
    let acme = scope("org:acme");
    let mut by = Vec::new();
    for round in 0..40 {
        github.register(&launch("org:acme", &format!("rvv-{round}"))).await.unwrap();
        by.push(asked_last(&fake));
    }
    let left = fake.world().budgets.clone();
    assert!(left[&11].abs_diff(left[&21]) <= 2, "{left:?}");
    assert!(by.contains(&11) && by.contains(&21), "{by:?}");
    github.runners(&acme).await.unwrap();
}

#[tokio::test]
async fn a_scope_is_limited_only_when_all_of_its_apps_are() {
    let mut world = two_apps();
    world.apps[0].installations.push(installation(11, "acme"));
    world.budgets = [(11, 0), (21, 2)].into();
    let fake = Fake::start(world).await;
    let github = fake.client();
    let acme = scope("org:acme");
    github.runners(&acme).await.unwrap();
    assert_eq!(asked_last(&fake), 21);
    fake.world().budgets.insert(21, 0);
    fake.world().add_runner("orgs/acme", "new");
    let error = github.runners(&acme).await.unwrap_err();
    assert!(matches!(error.cause(), Cause::Limited { .. }), "{error}");
}
